"""What the API's contract says of a field beyond its type: when it is there, and how its time is written. Pure.

It is kept as metadata of the models' fields, and changes nothing in how an answer is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from attrs import Attribute

TimeForm: TypeAlias = Literal["unix", "iso"]


def contract(*, when: Mapping[str, str], time: TimeForm | None = None) -> Mapping[str, object]:
    """Return the metadata of a field.

    Args:
        when: The values of other fields with which it is there; empty for always.
        time: How a time is written; `None` if the contract does not say.
    """
    return {"when": when, "time": time}


def is_promised(attribute: Attribute[Any], wire: Mapping[str, object]) -> bool:
    """Return whether an object with the other fields of *wire* must have a field."""
    when: Mapping[str, str] | None = attribute.metadata.get("when")
    return when is not None and all(wire.get(name) == value for name, value in when.items())


def time_form(attribute: Attribute[Any]) -> TimeForm | None:
    """Return how the time in a field is written; `None` if the contract does not say."""
    form: TimeForm | None = attribute.metadata.get("time")
    return form
