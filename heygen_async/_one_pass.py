"""Models of plain values, read in one pass over the fields of an object: what nearly every answer takes. Pure.

Rule 1: it is strict. Whatever is unexpected raises, and the converter then reads the same value leniently, or says what
is wrong with it.
Rule 2: what it returns is what the converter returns for the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs

from heygen_async._values import STRICT, STRICT_BY_NAME, Strict, read_object
from heygen_async.models import JSON

T = TypeVar("T")


def attributes(model: type) -> Sequence[attrs.Attribute[Any]]:
    """Return the fields of a *model*, with their types as objects."""
    attrs.resolve_types(model)
    return cast("Sequence[attrs.Attribute[Any]]", attrs.fields(model))


def respelled(wire: Mapping[str, JSON], spellings: Mapping[str, str]) -> Mapping[str, JSON]:
    """Return *wire* with fields under the names of the model, by `{name on the wire: name in the model}`."""
    for spelling, name in spellings.items():
        if spelling in wire:
            value = wire[spelling]
            wire = {other: wire[other] for other in wire if other != spelling}
            if wire.get(name) is None:
                wire = {**wire, name: value}
    return wire


def one_pass_reader(model: type[T], spellings: Mapping[str, str]) -> Callable[[object], T] | None:
    """Make the reader of a *model*; `None` if it has fields that are models themselves."""
    readers: dict[str, Strict] = {}
    for attribute in attributes(model):
        read = STRICT_BY_NAME.get(attribute.name) or STRICT.get(attribute.type)
        if read is not None:
            readers[attribute.name] = read
        elif attribute.name != "extra":
            return None
    keeps_extra = len(readers) < len(attributes(model))

    def reader(value: object) -> T:
        wire = respelled(read_object(value), spellings) if spellings else read_object(value)
        fields: dict[str, Any] = {name: readers[name](item, None) for name, item in wire.items() if name in readers}
        if keeps_extra and len(fields) < len(wire):
            fields["extra"] = {name: item for name, item in wire.items() if name not in readers}
        return model(**fields)

    return reader
