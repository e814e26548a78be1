"""Validates bodies and queries as strictly as the API: what is unknown, missing or wrong is an error with its name.

A table from field to check describes a body. A check takes a value and its name, and raises an `ErrorAnswer` or
returns None. All errors of a request are raised as one.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

import orjson

from heygen_async.sandbox.error_answers import ErrorAnswer, ErrorCollector, invalid

Check: TypeAlias = Callable[[object, str], None]
Body: TypeAlias = Mapping[str, object]

MAX_IDS: Final = 100
MAX_BATCH: Final = 100
_ID: Final = re.compile(r"[A-Za-z0-9_\-]{1,128}", re.ASCII)
_HEX_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")


# --- values ------------------------------------------------------------------------------------------------


def text(value: object, name: str) -> None:
    """Accept a string."""
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string.", name)


def flag(value: object, name: str) -> None:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise invalid(f"{name} must be a boolean.", name)


def seconds(value: object, name: str) -> None:
    """Accept a number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise invalid(f"{name} must be a number of seconds, 0 or more.", name)


def size(value: object, name: str) -> None:
    """Accept a whole number, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise invalid(f"{name} must be a whole number of bytes, 1 or more.", name)


def checksum(value: object, name: str) -> None:
    """Accept a SHA-256 in hexadecimal."""
    if not isinstance(value, str) or not _HEX_SHA256.fullmatch(value):
        raise invalid(f"{name} must be a SHA-256 in hexadecimal.", name)


def one_of(*allowed: str) -> Check:
    """Return a check that accepts only *allowed*."""

    def check(value: object, name: str) -> None:
        if value not in allowed:
            raise invalid(f"{name} must be one of {', '.join(allowed)}.", name)

    return check


def public_url(value: object, name: str) -> None:
    """Accept an https URL on a public host."""
    parts = _split(value, name)
    if parts.scheme != "https" or not _is_public(parts.hostname or ""):
        raise invalid(f"{name} must be a public https URL.", name)


def callback_url(value: object, name: str) -> None:
    """Accept an https URL, and, which only a sandbox does, http on this machine."""
    parts = _split(value, name)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise invalid(f"{name} must be an https URL.", name)


def _split(value: object, name: str) -> SplitResult:
    text(value, name)
    try:
        parts = urlsplit(str(value))
        known = parts.hostname is not None and parts.port != 0
    except ValueError as error:  # which quotes a part of the URL, and the message gets into recordings
        raise invalid(f"{name} is not a URL.", name) from error
    if not known or _BLANK.search(str(value)):
        raise invalid(f"{name} must be an absolute URL.", name)
    return parts


def is_loopback(host: str) -> bool:
    """Return whether *host* is this machine."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_public(host: str) -> bool:
    """Return whether the API may reach *host*; a name that ends in a number is an address in another spelling."""
    name = host.removesuffix(".")
    if (address := _address(name)) is not None:
        return address.is_global
    last = name.rpartition(".")[2]
    return last not in {"", "localhost"} and not last.isdecimal()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def source(value: object, name: str) -> None:
    """Accept a URL or an asset, in the shape of the API."""
    kind = value.get("type") if isinstance(value, dict) else None
    shape = _SOURCES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise invalid(f'{name} must be an object with "type": "url" or "asset_id".', name)
    fields(value, shape, required=shape, name=name)


def asset_id(value: object, name: str) -> None:
    """Accept what can be an id."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise invalid(f"{name} is not a valid id.", name)


_SOURCES: Final[Mapping[str, Mapping[str, Check]]] = {
    "url": {"type": text, "url": public_url},
    "asset_id": {"type": text, "asset_id": asset_id},
}


# --- bodies ------------------------------------------------------------------------------------------------


def fields(value: object, shape: Mapping[str, Check], *, required: Collection[str], name: str = "") -> Body:
    """Return *value* if all its fields are known and valid and none is missing; else raise all errors at once."""
    if not isinstance(value, dict):
        raise invalid(f"{name or 'The body'} must be a JSON object.", name or None)
    prefix, errors = f"{name}." if name else "", ErrorCollector()
    for missing in (field for field in required if field not in value):
        with errors.collect():
            raise invalid(f"{prefix}{missing} is required.", f"{prefix}{missing}")
    for field, given in value.items():
        with errors.collect():
            shape.get(field, _unknown)(given, f"{prefix}{field}")
    errors.raise_all()
    return value


def _unknown(_: object, name: str) -> None:
    raise invalid(f"{name} is not a known field.", name)


LIPSYNC: Final[Mapping[str, Check]] = {
    "video": source,
    "audio": source,
    "mode": one_of("speed", "precision"),
    "title": text,
    "enable_caption": flag,
    "enable_dynamic_duration": flag,
    "disable_music_track": flag,
    "enable_speech_enhancement": flag,
    "enable_watermark": flag,
    "start_time": seconds,
    "end_time": seconds,
    "keep_the_same_format": flag,
    "fps_mode": one_of("vfr", "cfr", "passthrough"),
    "callback_url": callback_url,
    "callback_id": text,
    "folder_id": text,
}


def lipsync(value: object, name: str = "") -> Body:
    """Return the body of a create if it is valid."""
    errors = ErrorCollector()
    with errors.collect():
        fields(value, LIPSYNC, required=("video", "audio"), name=name)
    if isinstance(value, dict):
        with errors.collect():
            _part(value, name)
    errors.raise_all()
    return value  # type: ignore[return-value] # anything but an object has been refused


def _part(body: Body, name: str) -> None:
    start, end = body.get("start_time", 0.0), body.get("end_time")
    if isinstance(start, int | float) and isinstance(end, int | float) and 0 <= end <= start:
        raise invalid("end_time must be after start_time.", f"{name}.end_time" if name else "end_time")


def _lipsyncs(value: object, name: str) -> None:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_BATCH:
        raise invalid(f"{name} must be a list of 1 to {MAX_BATCH} lipsyncs.", name)
    errors = ErrorCollector()
    for index, item in enumerate(value):
        with errors.collect():
            lipsync(item, f"{name}.{index}")
    errors.raise_all()


BATCH: Final[Mapping[str, Check]] = {"lipsyncs": _lipsyncs, "title": text, "callback_url": callback_url}
DIRECT_UPLOAD: Final[Mapping[str, Check]] = {
    "filename": text,
    "content_type": text,
    "size_bytes": size,
    "checksum_sha256": checksum,
}


def text_in(body: Body, name: str) -> str | None:
    """Return a text field of a validated body; None if it is absent."""
    value = body.get(name)
    return value if isinstance(value, str) else None


def json_body(raw: bytes, content_type: str, *, optional: bool = False) -> object:
    """Return the JSON of a request; where the body is *optional* an empty one is an empty object."""
    if optional and not raw:
        return {}
    if content_type != "application/json":
        raise invalid("The body must be sent as application/json.")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The body is not valid JSON: {error}.") from error


# --- queries -----------------------------------------------------------------------------------------------


def query(given: Mapping[str, str], allowed: Collection[str]) -> Mapping[str, str]:
    """Return *given* if every parameter in it is known and given once."""
    counts, errors = (
        Counter(name for name, _ in given.items()),
        ErrorCollector(),
    )  # a multidict has a name several times
    for name, count in counts.items():
        with errors.collect():
            if name not in allowed:
                raise invalid(f"{name} is not a known query parameter.", name)
            if count > 1:
                raise invalid(f"{name} is given more than once.", name)
    errors.raise_all()
    return given


def page(given: Mapping[str, str], kind: str, default: int, *, also: Collection[str] = ()) -> tuple[int, int | None]:
    """Return the size of the page of a *kind* of list and where it starts; None is the first page."""
    size, start, errors = default, None, ErrorCollector()
    with errors.collect():
        query(given, ("limit", "token", *also))
    with errors.collect():
        size = limit(given, default)
    with errors.collect():
        start = position(given, kind)
    errors.raise_all()
    return size, start


def limit(given: Mapping[str, str], default: int) -> int:
    """Return how many results a page may have."""
    raw = given.get("limit", str(default))
    if not (raw.isascii() and raw.isdigit() and 1 <= int(raw[:4]) <= MAX_IDS and len(raw) <= len("100")):
        raise invalid(f"limit must be a whole number from 1 to {MAX_IDS}.", "limit")
    return int(raw)


def ids(given: Mapping[str, str], name: str) -> list[str]:
    """Return a comma-separated list of ids without duplicates, in the given order."""
    found = given[name].split(",") if given.get(name) else []
    for one in found:
        identifier(one, name)
    return list(dict.fromkeys(found))


def identifier(value: str, name: str) -> str:
    """Return *value* if it can be an id."""
    if not _ID.fullmatch(value):
        raise invalid(f"{name} is not a valid id.", name)
    return value


def cursor(kind: str, position: int) -> str:
    """Return the opaque token for the page of a *kind* of list that starts at *position*."""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode().rstrip("=")


def position(given: Mapping[str, str], kind: str) -> int | None:
    """Return where the page of `token` starts; None is the first page."""
    token = given.get("token")
    if token is None:
        return None
    try:
        name, _, number = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition(":")
        found = int(number)
    except (ValueError, binascii.Error) as error:
        raise _bad_token() from error
    if name != kind or found < 0 or cursor(kind, found) != token:
        raise _bad_token()
    return found


def _bad_token() -> ErrorAnswer:
    return invalid("token is not a token of this list.", "token")
