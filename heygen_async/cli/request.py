"""A create, out of JSON and flags, where the flags win."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import attrs
import orjson

from heygen_async.models import AssetId, LipsyncOptions, LipsyncRequest, Source

FIELDS: Final = tuple(field.name for field in attrs.fields(LipsyncRequest))
_SOURCES: Final = ("video", "audio")
_SHAPES: Final = '{"type": "url", "url": "https://..."} or {"type": "asset_id", "asset_id": "..."}'


def read_data(given: str) -> bytes:
    """Return what `-d` was given: the JSON itself, what a file holds, or with `-` standard input.

    Raises:
        OSError: If the file cannot be read.
    """
    if given == "-":
        return sys.stdin.buffer.read()
    if given.lstrip()[:1] in ("{", "[", '"'):
        return given.encode()
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file for -d (JSON starts with {)", given)
    return path.read_bytes()


def compose(data: bytes | None, *, video: str | None, audio: str | None, flags: Mapping[str, object]) -> LipsyncRequest:
    """Return the request that JSON *data*, the sources and the other *flags* make; no file is opened.

    Raises:
        TypeError, ValueError: If something is missing or wrong; the message names it.
    """
    fields: dict[str, object] = {} if data is None else _fields(data)
    fields |= {name: source(name, text) for name, text in (("video", video), ("audio", audio)) if text is not None}
    fields |= {name: value for name, value in flags.items() if value is not None}
    missing = [name for name in _SOURCES if name not in fields]
    if missing:
        raise ValueError(f'there is no {" and no ".join(missing)}: give --{missing[0]}, or "{missing[0]}" in -d')
    return LipsyncRequest(**fields)  # type: ignore[arg-type] # it checks each


def options_of(request: LipsyncRequest) -> LipsyncOptions:
    """Return what *request* says besides its sources."""
    return cast("LipsyncOptions", {name: getattr(request, name) for name in FIELDS if name not in _SOURCES})


def source(name: str, text: str) -> Source:
    """Return what *text* names: a URL, an asset (`asset:ID`), or a file.

    Raises:
        ValueError: If it is none of them.
    """
    kind, _, rest = text.partition(":")
    if kind == "asset" and rest:
        return AssetId(rest)
    if kind == "https":
        return text
    if "://" in text:
        raise ValueError(f"--{name} must be an https URL, a file, or asset:ID, not a {kind} URL")
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(2, f"there is no such file for --{name}", text)
    return path


def _fields(data: bytes) -> dict[str, object]:
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"-d is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    if not isinstance(said, dict):
        raise TypeError('-d must be a JSON object, such as {"video": ..., "audio": ...}')
    for name in said:
        if name not in FIELDS:
            raise ValueError(f"-d has an unknown field {name!r}{_guess(name)}; see create --request-schema")
    return {name: _value(name, value) for name, value in said.items() if value is not None}


def _guess(name: str) -> str:
    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _value(name: str, value: object) -> object:
    if name not in _SOURCES:
        return value
    match value:
        case {"type": "url", "url": str(url)}:
            return url
        case {"type": "asset_id", "asset_id": str(asset_id)} if asset_id:
            return AssetId(asset_id)
        case _:
            raise ValueError(f"{name} in -d must be {_SHAPES}")
