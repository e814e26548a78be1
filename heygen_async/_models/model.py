"""What every model can do: become JSON, and be returned by a FastAPI endpoint."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from os import PathLike, fspath
from typing import TYPE_CHECKING, TypeAlias, cast

import attrs

from heygen_async._text import whole_characters

if TYPE_CHECKING:
    from attrs import AttrsInstance

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""Any JSON value."""


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
        complete: a presigned one is a secret. `extra` is a field like the others, with the server's own values.
        """
        names = (attribute.name for attribute in attrs.fields(cast("type[AttrsInstance]", type(self))))
        return {name: _json_ready(getattr(self, name)) for name in names}

    def to_json(self) -> str:
        """Return `to_dict()` as a JSON object."""
        return whole_characters(json.dumps(self.to_dict(), ensure_ascii=False))

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


def _json_ready(value: object) -> JSON:  # noqa: C901, PLR0911 one case for each kind of value
    match value:
        case enum.Enum():
            return cast("JSON", value.value)
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case datetime():
            return value.isoformat()
        case Model():
            return value.to_dict()
        case Secret():
            return str(value)
        case PathLike():
            return str(fspath(value))
        case bytes():
            return f"<{len(value)} bytes>"
        case Exception():
            return f"{type(value).__name__}: {value}"
        case Mapping():
            return {str(name): _json_ready(item) for name, item in value.items()}
        case Sequence() | AbstractSet():
            return [_json_ready(item) for item in value]
        case _:
            return f"<{type(value).__name__}>"
