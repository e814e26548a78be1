"""What the API's contract says of a field beyond its type: when it is there, and how its time is written. Pure.

It is kept as metadata of the models' fields, and changes nothing in how an answer is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from attrs import Attribute, frozen

_KEY: Final = "contract"


@frozen(kw_only=True)
class Contract:
    """What is promised of one field."""

    when: Mapping[str, str] | None = None
    """The values of other fields with which it is there: empty for always, `None` where it may always be absent."""
    time: Literal["unix", "iso"] | None = None
    """How a time is written; `None` if the contract does not say."""

    def expects(self, wire: Mapping[str, object]) -> bool:
        """Return whether an object with the other fields of *wire* must have it."""
        return self.when is not None and all(wire.get(name) == value for name, value in self.when.items())


def contract(
    *, when: Mapping[str, str] | None = None, time: Literal["unix", "iso"] | None = None
) -> Mapping[str, Contract]:
    """Return the metadata of a field; the arguments are those of `Contract`."""
    return {_KEY: Contract(when=when, time=time)}


_UNSPECIFIED: Final = Contract()


def contract_of(attribute: Attribute[Any]) -> Contract:
    """Return what is promised of a model's field."""
    found: Contract = attribute.metadata.get(_KEY, _UNSPECIFIED)
    return found
