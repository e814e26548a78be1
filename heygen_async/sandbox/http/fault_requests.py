"""Faults as JSON: `{"kind": "rate_limited", "route": "POST /v3/lipsyncs", "times": 1, "retry_after": 2}`.

`kind` is the name of a function in `heygen_async.sandbox.faults`, the other fields are its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import orjson

from heygen_async.sandbox import faults
from heygen_async.sandbox.error_answers import invalid
from heygen_async.sandbox.faults import Fault
from heygen_async.sandbox.http import validation
from heygen_async.sandbox.http.validation import Check


def read_fault(value: object) -> Fault:
    """Return the fault that *value*, parsed JSON, describes.

    Raises:
        ErrorAnswer: If it describes none; the message names the field.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    make, shape, required = KINDS.get(kind if isinstance(kind, str) else "", (None, {}, ()))
    if make is None:
        raise invalid(f"kind must be one of {', '.join(KINDS)}.", "kind")
    known = {**_ANY, **shape}
    body = validation.fields(value, known, required=required)
    try:
        return make(**{name: given for name, given in body.items() if name != "kind"})
    except ValueError as error:  # no such route, an impossible probability, or an argument of this kind
        word = "route" if "route" in str(error) else str(error).partition(" ")[0]
        raise invalid(str(error), word if word in known else None) from error


def _is_null_or(check: Check) -> Check:
    def check_it(value: object, name: str) -> None:
        if value is not None:
            check(value, name)

    return check_it


def _number(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name} must be a number.", name)


def _whole_number(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name} must be a whole number.", name)


def _code(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise invalid(f"{name} must be a string or a whole number.", name)


def _object(value: object, name: str) -> None:
    if not isinstance(value, dict):
        raise invalid(f"{name} must be an object.", name)
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise invalid(f"{name} must not be nested hundreds of levels deep.", name) from error


_ANY: Final[Mapping[str, Check]] = {
    "kind": validation.text,
    "route": validation.text,
    "times": _whole_number,
    "probability": _number,
}
_AFTER: Final[Mapping[str, Check]] = {"after": validation.flag}

KINDS: Final[Mapping[str, tuple[Callable[..., Fault], Mapping[str, Check], tuple[str, ...]]]] = {
    "nothing": (faults.nothing, {}, ()),
    "error": (
        faults.error,
        {
            "status": _whole_number,
            "code": _code,
            "message": validation.text,
            "shape": validation.one_of("v3", "number", "text"),
            **_AFTER,
        },
        ("status", "code"),
    ),
    "rate_limited": (
        faults.rate_limited,
        {"retry_after": _is_null_or(validation.seconds), "as_date": validation.flag},
        (),
    ),
    "server_error": (
        faults.server_error,
        {"status": _whole_number, "body": validation.one_of("json", "html", "none"), **_AFTER},
        (),
    ),
    "missing": (faults.missing, {}, ("route",)),
    "redirect": (faults.redirect, {"location": validation.text, "status": _whole_number}, ()),
    "html": (faults.html, {}, ()),
    "huge": (faults.huge, {"size": validation.size}, ()),
    "gzip_bomb": (faults.gzip_bomb, {"size": validation.size}, ()),
    "reset": (faults.reset, _AFTER, ()),
    "stall": (faults.stall, _AFTER, ()),
    "truncated": (faults.truncated, {}, ()),
    "unknown_fields": (faults.unknown_fields, {}, ()),
    "unknown_status": (faults.unknown_status, {"word": validation.text}, ()),
    "odd_fields": (faults.odd_fields, {"fields": _object}, ("fields",)),
    "no_request_id": (faults.no_request_id, {}, ()),
    "cut_download": (faults.cut_download, {"after_bytes": _whole_number}, ("after_bytes",)),
    "wrong_length": (faults.wrong_length, {"off_by": _whole_number}, ("off_by",)),
    "no_ranges": (faults.no_ranges, {}, ()),
    "slow_drip": (faults.slow_drip, {"chunk": validation.size, "pause": validation.seconds}, ()),
    "expired_link": (faults.expired_link, {}, ()),
}
