"""Models of plain values, read in one pass over the fields of an object: what nearly every answer takes. Pure.

Rule 1: it is strict. Whatever is unexpected raises, and the converter then reads the same value leniently, or says what
is wrong with it.
Rule 2: what it returns is what the converter returns for the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs

from heygen_async._values import STRICT, STRICT_BY_NAME, Reader, read_object
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
    """Make the reader of a *model*; `None` if it has fields that are models themselves.

    The reader sets the fields itself: the `__init__` of a model does the same in three times the time. So a model has
    no slots, no converters and no validators, and a default is a constant or made of the other fields.
    """
    readers = _strict_readers(model)
    if readers is None:
        return None
    keeps_extra = len(readers) < len(attributes(model))
    defaults: dict[str, Any] = {attribute.name: attribute.default for attribute in attributes(model)}
    required = frozenset(name for name, default in defaults.items() if default is attrs.NOTHING)
    derived = {name: default.factory for name, default in defaults.items() if hasattr(default, "factory")}
    constants = {name: default for name, default in defaults.items() if name not in required | derived.keys()}

    def reader(value: object) -> T:
        wire = respelled(read_object(value), spellings) if spellings else read_object(value)
        instance = object.__new__(model)
        fields = vars(instance)
        fields.update(constants)
        extra: dict[str, JSON] = {}
        for name, item in wire.items():
            if name in readers:
                fields[name] = readers[name](item)
            else:
                extra[name] = item
        if extra and keeps_extra:
            fields["extra"] = extra
        if not required <= fields.keys():
            raise ValueError("a required field is missing")
        for name, derive in derived.items():
            if name not in fields:
                fields[name] = derive(instance)
        return instance

    return reader


def _strict_readers(model: type) -> Mapping[str, Reader] | None:
    """Return the readers of the fields of a *model*, except `extra`; `None` if one of them is a model itself."""
    readers: dict[str, Reader] = {}
    for attribute in attributes(model):
        read = STRICT_BY_NAME.get(attribute.name) or STRICT.get(attribute.type)
        if read is not None:
            readers[attribute.name] = read
        elif attribute.name != "extra":
            return None
    return readers
