"""What every model can do: become JSON, and be returned by a FastAPI endpoint."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import wraps
from os import PathLike, fspath
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast

import attrs

from heygen_async._text import whole_characters

if TYPE_CHECKING:
    from attrs import AttrsInstance

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""Any JSON value."""

_DEEPEST: Final = 100
"""Levels of nesting that become JSON: writers of JSON fail at some depth, orjson at 254. The API's answers have 5."""
_TOO_DEEP: Final = "<too deeply nested>"


class Secret:
    """A string that prints as `****`, so that it reaches no log, no traceback and no repr."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('****')"

    def __str__(self) -> str:
        return "****"

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))


class Model:
    """A frozen value with `to_dict` and `to_json`. `dict(model)` is `to_dict()`, and FastAPI can return a model."""

    __slots__ = ()

    def to_dict(self) -> dict[str, JSON]:
        """Return all fields as values that `json.dumps` takes.

        Times are ISO 8601 with their offset, statuses are words, secrets are `****`, paths are strings. Links are
        complete: a presigned one is a secret. `extra` is a field like the others, with the server's own values. Half of
        a surrogate pair becomes U+FFFD, and what is nested more than 100 levels deep a text that says so.
        """
        return _fields_of(self, 0)

    def to_json(self) -> str:
        """Return `to_dict()` as a JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def __iter__(self) -> Iterator[tuple[str, JSON]]:
        # For dict(model), which FastAPI calls on what an endpoint returns if it is not a type that it knows.
        return iter(self.to_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> object:
        # For endpoints that are annotated with a model, and for pydantic models that have one as a field.
        from pydantic_core import core_schema  # noqa: PLC0415 only pydantic calls this

        as_dict = core_schema.plain_serializer_function_ser_schema(Model.to_dict)
        return core_schema.is_instance_schema(cls, serialization=as_dict)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: object, _handler: object) -> dict[str, JSON]:
        return {"title": cls.__name__, "type": "object"}


M = TypeVar("M", bound=Model)


def hide_arguments(kind: type[M]) -> type[M]:
    """Make the constructor of a model raise without its frames: with local variables they would show its links."""
    construct = kind.__init__

    @wraps(construct)
    def init(self: M, *args: object, **fields: object) -> None:
        try:
            return construct(self, *args, **fields)
        except (TypeError, ValueError) as error:
            failure = error.with_traceback(None)
        del self, args, fields
        raise failure

    kind.__init__ = init  # type: ignore[assignment, method-assign]
    return kind


def restored(kind: type[M], fields: Mapping[str, object]) -> M:
    """Return the model that was stored with these *fields*, without its checks: it has passed those of its time.

    Fields that are not given have their default.
    """
    one = kind.__new__(kind)
    known = attrs.fields(cast("type[AttrsInstance]", kind))
    vars(one).update({each.name: fields.get(each.name, each.default) for each in known})  # as attrs does, frozen or not
    return one


def _fields_of(model: Model, depth: int) -> dict[str, JSON]:
    names = (attribute.name for attribute in attrs.fields(cast("type[AttrsInstance]", type(model))))
    return {name: _json_ready(getattr(model, name), depth + 1) for name in names}


def _json_ready(value: object, depth: int) -> JSON:  # noqa: C901, PLR0911 one case for each kind of value
    match value:
        case str():  # an enum of words too, which becomes its word
            return whole_characters(value)
        case enum.Enum():
            return cast("JSON", value.value)
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int():
            return value
        case datetime():
            return value.isoformat()
        case Secret():
            return str(value)
        case PathLike():
            return whole_characters(str(fspath(value)))
        case bytes():
            return f"<{len(value)} bytes>"
        case Exception():
            return whole_characters(f"{type(value).__name__}: {value}")
        case Model() | Mapping() | Sequence() | AbstractSet():
            return _TOO_DEEP if depth == _DEEPEST else _container(value, depth)
        case _:
            return f"<{type(value).__name__}>"


def _container(value: Model | Mapping[object, object] | Sequence[object] | AbstractSet[object], depth: int) -> JSON:
    match value:
        case Model():
            return _fields_of(value, depth)
        case Mapping():
            return {whole_characters(str(name)): _json_ready(item, depth + 1) for name, item in value.items()}
        case _:
            return [_json_ready(item, depth + 1) for item in value]
