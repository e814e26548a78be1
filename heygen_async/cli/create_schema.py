"""What a create takes, as JSON Schema (2020-12), made from the model."""

from __future__ import annotations

import types
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from docstring_parser import parse_from_object

from heygen_async.models import JSON, LipsyncRequest, Source

_URL: Final = {"type": "string", "format": "uri", "pattern": "^https://"}
_SOURCE: Final[dict[str, JSON]] = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"type": {"const": "url"}, "url": _URL},
            "required": ["type", "url"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"type": {"const": "asset_id"}, "asset_id": {"type": "string", "minLength": 1}},
            "required": ["type", "asset_id"],
            "additionalProperties": False,
        },
    ]
}
_PLAIN: Final[dict[object, dict[str, JSON]]] = {
    str: {"type": "string", "minLength": 1},
    bool: {"type": "boolean"},
    float: {"type": "number", "minimum": 0},
}


def schema_of_create() -> dict[str, JSON]:
    """Return the schema of the body of `POST /v3/lipsyncs`."""
    fields = attrs.fields(LipsyncRequest)
    hints, texts = get_type_hints(LipsyncRequest), _docstrings()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Create a lipsync",
        "type": "object",
        "properties": {field.name: _property(field, hints[field.name], texts.get(field.name)) for field in fields},
        "required": [field.name for field in fields if field.default is attrs.NOTHING],
        "additionalProperties": False,
    }


def _docstrings() -> dict[str, str | None]:
    return {param.arg_name: param.description for param in parse_from_object(LipsyncRequest).params}


def _property(field: attrs.Attribute[Any], hint: object, description: str | None) -> JSON:
    found: dict[str, JSON] = {}
    if description:
        found["description"] = " ".join(description.replace("`", "").split())
    if field.default not in (None, attrs.NOTHING):
        found["default"] = field.default
    return found | (_URL if field.name.endswith("_url") else _type(hint))


def _type(hint: object) -> dict[str, JSON]:
    if hint == Source:
        return _SOURCE
    if get_origin(hint) in (Union, types.UnionType):
        return _type(next(each for each in get_args(hint) if each is not types.NoneType))
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    return _PLAIN[hint]
