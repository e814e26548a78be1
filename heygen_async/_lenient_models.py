"""Models that one pass cannot read: field by field, leniently, and with reasons for what cannot be read. Pure.

It is loaded when such an answer comes: cattrs is slow to import.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from operator import eq
from typing import Any, TypeAlias, TypeVar, cast, get_origin

import attrs
from attrs import frozen
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from heygen_async._events import read_event
from heygen_async._one_pass import attributes, respelled
from heygen_async._values import (
    LENIENT,
    LENIENT_BY_NAME,
    STRICT,
    STRICT_BY_NAME,
    UNREADABLE,
    Reader,
    acceptable,
    lenient_secret,
    read_object,
)
from heygen_async.models import JSON, WebhookEvent

T = TypeVar("T")
Spellings: TypeAlias = Mapping[type, Mapping[str, str]]


def problems_of(error: BaseException, path: str) -> list[str]:
    """Return what is wrong with a value that could not be read, each with its path from *path* on."""
    return transform_error(error, path=path)


def make_converter(models: Collection[type], spellings: Spellings) -> Converter:
    """Make the converter of *models*.

    Args:
        models: The models.
        spellings: Where the name on the wire differs from the model's: {model: {wire: model}}.
    """
    converter = Converter()
    for type_, strict in STRICT.items():
        hook = _hook(strict)
        converter.register_structure_hook_func(partial(eq, type_), hook)
        if isinstance(type_, type):  # cattrs looks up its own hooks of plain types before the predicates
            converter.register_structure_hook(type_, hook)
    converter.register_structure_hook_func(lambda type_: get_origin(type_) is cast("Any", Mapping), _hook(read_object))
    # A factory: a model's hook is compiled when it is first read, not at import.
    converter.register_structure_hook_factory(
        models.__contains__, lambda model: _model_hook(model, spellings.get(model, {}), converter)
    )
    converter.register_structure_hook(WebhookEvent, _hook(read_event))
    return converter


def _hook(read: Reader) -> Callable[[object, object], object]:
    """Make the hook of a reader: cattrs gives it the type, too."""
    return lambda value, _: read(value)


def _model_hook(model: type[T], spellings: Mapping[str, str], converter: Converter) -> Callable[[object, object], T]:
    """Make the hook of one model: fields by their names on the wire, unknown ones into `.extra`."""
    fields = [_Field.of(attribute, converter) for attribute in attributes(model) if attribute.name != "extra"]
    keeps_extra = len(fields) < len(attributes(model))
    overrides: dict[str, Any] = {
        field.name: override(struct_hook=_hook(field.strict)) for field in fields if field.name in STRICT_BY_NAME
    }
    structure = make_dict_structure_fn(model, converter, **overrides)
    known = frozenset(field.name for field in fields)

    def hook(value: object, _: object) -> T:
        wire = respelled(read_object(value), spellings)
        if not known.issuperset(wire):
            wire = {**wire, "extra": {name: wire[name] for name in wire.keys() - known}}
        try:
            return structure(wire, model)
        except UNREADABLE:
            if not keeps_extra:  # nothing may be lost
                raise
            return structure(_readable(wire, fields), model)

    return hook


@frozen
class _Field:
    """How one field of a model is read."""

    name: str
    strict: Reader
    lenient: Reader | None
    is_optional: bool

    @classmethod
    def of(cls, attribute: attrs.Attribute[Any], converter: Converter) -> _Field:
        name, type_ = attribute.name, attribute.type
        is_optional = attribute.default is not attrs.NOTHING
        return cls(
            name,
            STRICT_BY_NAME.get(name) or (lambda value: converter.structure(value, cast("Any", type_))),
            # Of the required fields, only an index is unambiguous in another type.
            LENIENT_BY_NAME.get(name) or LENIENT.get(type_) if is_optional or type_ is int else None,
            is_optional,
        )


def _readable(wire: Mapping[str, JSON], fields: Sequence[_Field]) -> Mapping[str, object]:
    """Return *wire* with every optional field either readable or moved into `extra`."""
    readable: dict[str, object] = dict(wire)
    extra = dict(cast("Mapping[str, JSON]", wire.get("extra", {})))
    for known in fields:
        value = wire.get(known.name)
        found = acceptable(value, known.strict, known.lenient)
        if found is not None:
            readable[known.name] = found
        elif known.is_optional:
            readable.pop(known.name, None)
        # Of an object or a list, only a part may have been read.
        is_partial = found is not value and isinstance(value, (dict, list))
        if value is not None and (found is None or is_partial) and known.lenient is not lenient_secret:
            extra[known.name] = value
    return {**readable, "extra": extra}
