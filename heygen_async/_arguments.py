"""What an argument may be: checks that name it, as attrs validators and as plain functions.

`None` passes wherever the field takes it: it means that nothing was said.
"""

from __future__ import annotations

import math
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from heygen_async._text import is_text

if TYPE_CHECKING:
    from attrs import Attribute

    Field: TypeAlias = Attribute[Any]


def text(_instance: object, field: Field, value: object) -> None:
    """Check that *value* is one line of text with something in it."""
    check_text(field.name, value)


def check_text(name: str, value: object) -> None:
    """Check that *value* is one line of text with something in it."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not is_text(value):
        raise ValueError(f"{name} must be one line of text, not {value[:80]!r}")


def flag(_instance: object, field: Field, value: object) -> None:
    """See that *value* is a boolean."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{field.name} must be True, False or None, not {value!r}")


def seconds(_instance: object, field: Field, value: object) -> None:
    """See that *value* is a finite number of seconds, 0 or more."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{field.name} must be a number of seconds, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{field.name} must be 0 seconds or more, not {value!r}")


def positive(instance: object, field: Field, value: object) -> None:
    """See that *value* is a finite number above 0."""
    seconds(instance, field, value)
    if value == 0:
        raise ValueError(f"{field.name} must be more than 0")


def check_timeout(timeout: object) -> None:
    """Check that *timeout* is a number of seconds, 0 or more (infinity too), or `None`."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:  # NaN is not
        raise ValueError(f"timeout must be 0 seconds or more, or None, not {timeout!r}")


def count(_instance: object, field: Field, value: object) -> None:
    """See that *value* is a whole number, 1 or more."""
    check_count(field.name, value)


def check_count(name: str, value: object, *, most: int | None = None) -> int:
    """Return *value* if it is a whole number from 1 to *most*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1 or (most is not None and value > most):
        raise ValueError(f"{name} must be 1 {'or more' if most is None else f'to {most}'}, not {value}")
    return value


def callback_url(_instance: object, field: Field, value: object) -> None:
    """See that *value* is a URL that HeyGen may be told to call."""
    check_callback_url(field.name, value)


def check_callback_url(name: str, value: object) -> None:
    """See that *value* is an https URL, or one on this machine, where only a sandbox can call."""
    check_text(name, value)
    if isinstance(value, str) and not is_https(value, or_loopback=True):
        raise ValueError(f"{name} must be an https URL, not {without_query(value)}")


def is_loopback(host: str | None) -> bool:
    """Tell whether *host* names this machine."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_https(url: str, *, or_loopback: bool = False) -> bool:
    """Tell whether *url* is https (or http to this machine), with a host, and nothing that hides."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return False
    if not parts.hostname or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (or_loopback and parts.scheme == "http" and is_loopback(parts.hostname))


def without_query(url: str | None) -> str:
    """Return the repr of *url* less its query, which in a presigned link is a secret."""
    if url is None:
        return "None"
    bare, has_query, _ = url.partition("?")
    return repr(f"{bare}?..." if has_query else url)
