"""How single values are read from JSON: strictly, which is fast, or leniently, which accepts other types. Pure.

A strict reader raises a ValueError for anything but its own type.
A lenient reader is tried after a strict one. It returns what the strict reader of the same type accepts, or raises a
TypeError or ValueError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, cast

from heygen_async.models import JSON, LipsyncStatus, Secret

Reader: TypeAlias = Callable[[object], object]

UNREADABLE: Final = (LookupError, ValueError, TypeError, RecursionError, ExceptionGroup)
"""What readers, and the hooks of cattrs (its errors are groups), raise for a value that they cannot read."""

_WORDS: Final[Mapping[str, LipsyncStatus]] = {
    **{status.value: status for status in LipsyncStatus},
    "queued": LipsyncStatus.PENDING,
    "processing": LipsyncStatus.RUNNING,
}
_LAST_SECOND: Final = 1e11
"""Where unix times in seconds end (in the year 5138) and those in milliseconds begin (in 1973)."""
_LARGEST: Final = 1e300
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def read_status(value: object) -> LipsyncStatus | str:
    """Return a status word of either vocabulary as the one of `LipsyncStatus`, in any case; an unknown one as it is."""
    if type(value) is not str:
        raise ValueError("not a string")
    if (word := _WORDS.get(value)) is not None:
        return word
    return _WORDS.get(value.strip().lower(), value)


def read_text(value: object) -> str:
    """Return a text."""
    if type(value) is not str:
        raise ValueError("not a string")
    return value


def read_object(value: object) -> Mapping[str, JSON]:
    """Return an object."""
    if value.__class__ is not dict:
        raise ValueError("not an object")
    return cast("Mapping[str, JSON]", value)


def read_time(value: object) -> datetime:
    """Return a time after 1970, in unix seconds or ISO 8601. 0 is what some services send for "unknown"."""
    if type(value) is not int and type(value) is not float:
        return _iso_time(read_text(value))
    if not 0 < value < _LAST_SECOND:
        raise ValueError("not a time")
    return datetime.fromtimestamp(value, UTC)


def _iso_time(value: str) -> datetime:
    if "-" not in value and "T" not in value:  # fromisoformat reads some unix times as dates
        raise ValueError("not a time")
    moment = datetime.fromisoformat(value)
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("not a time") from None
    if moment <= _EPOCH:
        raise ValueError("not a time")
    return moment


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value


def _number(value: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise ValueError("not a number")
    if not -_LARGEST < value < _LARGEST:
        raise ValueError("not a finite number")
    return float(value)


def _texts(value: object) -> tuple[str, ...]:
    if value.__class__ is not list:
        raise ValueError("not a list")
    return tuple(map(read_text, cast("list[object]", value)))


def _counts(value: object) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for word, count in read_object(value).items():
        status = str(read_status(word))
        counts[status] = counts.get(status, 0) + _whole(count)
    return counts


def _secret(value: object) -> Secret:
    return Secret(read_text(value))


# The optional ones are whole readers of their own: a chain of two would be half of what a model costs. Most fields are
# optional texts, so that one calls nothing.


def _text_or_none(value: object) -> str | None:
    if value is not None and type(value) is not str:
        raise ValueError("not a string")
    return value


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)


def _number_or_none(value: object) -> float | None:
    return None if value is None else _number(value)


def _time_or_none(value: object) -> datetime | None:
    return None if value is None else read_time(value)


def _secret_or_none(value: object) -> Secret | None:
    return None if value is None else _secret(value)


def _texts_or_none(value: object) -> tuple[str, ...] | None:
    return None if value is None else _texts(value)


# Lenient readers


def acceptable(value: object, strict: Reader, lenient: Reader | None) -> object:
    """Return *value* if *strict* accepts it, or else what *lenient* makes of it; `None` if that is not accepted."""
    if accepts(strict, value):
        return value
    if lenient is None:
        return None
    try:
        found = lenient(value)
    except UNREADABLE:
        return None
    return found if accepts(strict, found) else None


def accepts(strict: Reader, value: object) -> bool:
    """Return whether *strict* can read *value*."""
    try:
        strict(value)
    except UNREADABLE:
        return False
    return True


_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_UTC_BY_NAME: Final = re.compile(r" ?(UTC|GMT)$")
_MESSAGES: Final = ("message", "msg", "failure_message", "detail", "reason", "error", "description")
_MOST_REASONS: Final = 10


def lenient_text(value: object) -> str:
    """Read a number as text: a `callback_id` of 42 may have been given as `"42"`."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError("not text")
    return str(value)


def lenient_reason(value: object) -> str:
    """Read why something failed: a text, an error object such as `{"code", "message"}`, or a list of these."""
    if isinstance(value, list):
        parts = [lenient_reason(item) for item in value[:_MOST_REASONS]]
        separator = "; "
    elif isinstance(value, dict):
        message = next((value[name] for name in _MESSAGES if value.get(name)), None)
        parts = [lenient_reason(part) for part in (value.get("code"), message) if part]
        separator = ": "
    else:
        return lenient_text(value)
    if not parts:
        raise ValueError("not a reason")
    return separator.join(parts)


def lenient_secret(value: object) -> str:
    """Read anything as a secret, so that it is masked."""
    return json.dumps(value)


def _lenient_number(value: object) -> float:
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value.strip()):
        raise ValueError("not a number")
    return float(value)


def _lenient_whole(value: object) -> int:
    number = value if isinstance(value, float) else _lenient_number(value)
    if not number.is_integer():
        raise ValueError("not a whole number")
    return int(number)


def lenient_time(value: object) -> str | float:
    """Read a unix time that is text, or counts milli-, micro- or nanoseconds; and ISO 8601 in "UTC"."""
    if isinstance(value, str) and not _DECIMAL.fullmatch(value.strip()):
        return _UTC_BY_NAME.sub("+00:00", value.strip())
    seconds = float(value) if isinstance(value, str) else _number(value)
    for _ in ("milli", "micro", "nano"):
        if seconds >= _LAST_SECOND:
            seconds /= 1000
    return seconds


def _lenient_texts(value: object) -> list[str]:
    """Read one text as a list of it, and leave out of a list what is no text."""
    if isinstance(value, list):
        return [item for item in value if isinstance(item, str)]
    text = read_text(value)
    return [text] if text else []


def _lenient_counts(value: object) -> Mapping[str, int]:
    """Leave out what is not a number."""
    counts: dict[str, int] = {}
    for word, count in read_object(value).items():
        try:
            counts[word] = count if type(count) is int else _lenient_whole(count)
        except ValueError:
            continue
    return counts


# By the type of a field, and where a field is read in another way than its type, by its name.

STRICT: Final[Mapping[Any, Reader]] = {
    str: read_text,
    int: _whole,
    float: _number,
    datetime: read_time,
    Secret: _secret,
    str | None: _text_or_none,
    int | None: _whole_or_none,
    float | None: _number_or_none,
    datetime | None: _time_or_none,
    Secret | None: _secret_or_none,
    Sequence[str]: _texts,
    Sequence[str] | None: _texts_or_none,
    LipsyncStatus | str: read_status,
}
LENIENT: Final[Mapping[Any, Reader]] = {
    str: lenient_text,
    int: _lenient_whole,
    str | None: lenient_text,
    int | None: _lenient_whole,
    float | None: _lenient_number,
    datetime | None: lenient_time,
    Secret | None: lenient_secret,
    Sequence[str]: _lenient_texts,
    Sequence[str] | None: _lenient_texts,
}
STRICT_BY_NAME: Final[Mapping[str, Reader]] = {"counts_by_status": _counts}
LENIENT_BY_NAME: Final[Mapping[str, Reader]] = {
    "counts_by_status": _lenient_counts,
    "error": lenient_reason,
    "failure_message": lenient_reason,
}
