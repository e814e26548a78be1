"""A create from JSON and flags, where flags win. Its files are looked at before anything is sent."""

from __future__ import annotations

import codecs
import difflib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast, get_args

import attrs
import orjson

from heygen_async._arguments import host_problem
from heygen_async._media.sniffing import Role
from heygen_async.cli.output_flags import FileText
from heygen_async.cli.problems import Problems
from heygen_async.cli.streams import read_input
from heygen_async.models import AssetId, LipsyncOptions, LipsyncRequest, Source, row_faults

FIELDS: Final = tuple(field.name for field in attrs.fields(LipsyncRequest))
_ROLES: Final[tuple[Role, ...]] = get_args(Role)
_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})
"""The errors of a path that is no file: of JSON without braces, for instance."""
_SHAPES: Final = '{"type": "url", "url": "https://..."} or {"type": "asset_id", "asset_id": "..."}'


def read_data(given: str) -> bytes:
    """Return what `-d` names: the JSON itself, the content of a file, or with `-` standard input.

    Raises:
        OSError: If the file cannot be read.
    """
    if given == "-":
        return read_input()
    if given.lstrip("\ufeff \t\r\n")[:1] in ("{", "[", '"'):
        return os.fsencode(given)
    try:
        return _path(given).read_bytes()
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(2, "no such file for -d (JSON starts with {)", given) from None
        raise


def compose(
    data: bytes | None,
    *,
    video: FileText | None,
    audio: FileText | None,
    flags: Mapping[str, object],
    problems: Problems,
) -> LipsyncRequest | None:
    """Return the request that JSON *data*, the sources and the other *flags* make.

    Args:
        data: The JSON of `-d`.
        video: The value of `--video`.
        audio: The value of `--audio`.
        flags: Other fields by name; `None` is a flag that is not given.
        problems: Where what is missing or wrong is added.

    Returns:
        The request; `None` if there are problems.

    Raises:
        TypeError, ValueError: If *data* is not a JSON object.
    """
    fields = {} if data is None else _read_fields(data, problems)
    for role, text in zip(_ROLES, (video, audio), strict=True):
        if text is not None:
            fields[role] = None
            with problems.at(f"--{role}"):
                fields[role] = source(str(text), role)
        elif role not in fields:
            problems.add("", f'{role} is missing: give --{role}, or "{role}" in -d')
    fields |= {name: value for name, value in flags.items() if value is not None}
    for name, message in row_faults({name: value for name, value in fields.items() if value is not None}):
        if name not in _ROLES or fields.get(name) is not None:
            problems.add(f"--{name.replace('_', '-')}" if flags.get(name) is not None else "", message)
    return None if problems.found else LipsyncRequest(**fields)  # type: ignore[arg-type] # it was checked


def options_of(request: LipsyncRequest) -> LipsyncOptions:
    """Return what *request* says besides its sources."""
    return cast("LipsyncOptions", {name: getattr(request, name) for name in FIELDS if name not in _ROLES})


def source(text: str, role: Role) -> Source:
    """Return what *text* names: a URL, an asset (`asset:ID`), or a file, which is looked at.

    Raises:
        ValueError: If it is none of them, or the file cannot be the *role*.
        OSError: If the file cannot be read.
    """
    if not text:
        raise ValueError("must not be empty")
    kind, _, rest = text.partition(":")
    if kind == "asset":
        if not rest:
            raise ValueError("asset: needs an id, such as asset:as_abc123")
        return AssetId(rest)
    if kind.lower() == "https":
        return _public(text)
    if "://" in text:
        raise ValueError(f"it must be an https URL, a file, or asset:ID, not a URL with {kind}")
    path = _path(text)
    check_file(path, role)
    return path


def _public(url: str) -> str:
    if (problem := host_problem(url)) is not None:
        raise ValueError(f"it {problem}")
    return url


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111 Path raises where there is no home


def check_file(path: Path, role: Role | None) -> None:
    """Check type and size of the file at *path*, without reading all of it.

    Raises:
        ValueError: If HeyGen does not take it as *role*.
        OSError: If it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    if path.is_dir():
        raise IsADirectoryError(21, "this is a folder, not a file", str(path))
    try:
        from heygen_async._media.sources import look_at_path  # noqa: PLC0415 not every command looks at files

        look_at_path(path, None, role)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"{role}: ")) from error


def _read_fields(data: bytes, problems: Problems) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in _json_object(data, problems).items():
        if name not in FIELDS:
            problems.add("", f"-d has an unknown field {name!r}{_guess(name)}; see create --request-schema")
        elif value is not None:
            fields[name] = _value(name, value, problems)
    return fields


def _json_object(data: bytes, problems: Problems) -> dict[str, object]:
    try:
        text = _utf_8(data)
        given = orjson.loads(text)
    except UnicodeError:
        raise ValueError("-d is not JSON: it is neither UTF-8 nor UTF-16") from None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"-d is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    if not isinstance(given, dict):
        raise TypeError('-d must be a JSON object, such as {"video": ..., "audio": ...}')
    from heygen_async.bulk.manifest_lines import repeated_members  # noqa: PLC0415 most creates have no JSON

    for name in repeated_members(text):
        problems.add("", f"-d has the field {name!r} twice")
    return given


def _utf_8(data: bytes) -> bytes:
    """Return *data* without the mark that some editors write, which may say that it is UTF-16."""
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16").encode() if is_utf_16 else data.removeprefix(codecs.BOM_UTF8)


def _guess(name: str) -> str:
    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _value(name: str, value: object, problems: Problems) -> object:
    if name not in _ROLES:
        return value
    match value:
        case {"type": "url", "url": str(url)}:
            with problems.at(f"{name} in -d"):
                return _public(url)
        case {"type": "asset_id", "asset_id": str(asset_id)}:
            with problems.at(f"{name} in -d"):
                return AssetId(asset_id)
        case _:
            problems.add("", f"{name} in -d must be {_SHAPES}")
    return None
