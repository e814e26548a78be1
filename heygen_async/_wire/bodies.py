"""What any answer consists of: status, headers and body, and how each is read. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

import orjson
from attrs import define, field, frozen
from multidict import CIMultiDict

from heygen_async._masking import Mask
from heygen_async._text import LONGEST_TEXT, one_line, shortened, start_of, whole_characters, without_queries
from heygen_async.models import JSON, Secret

_LONG_NUMBER: Final = 20
"""Digits of an integer that may need more than 64 bits; orjson reads it as a float."""
_TAG: Final = re.compile(r"<[^>]*>")
_EXCERPT: Final = 160
_WINDOW: Final = 4096
_LONGEST_WAIT: Final = 1e9
"""Seconds, about 30 years: a time that is so much later can still be computed, stored and shown."""
_NO_MASK: Final = Mask(Secret(""))


@define
class Answer:
    """An answer as it was received. Its repr shows neither headers nor body: both may hold secrets."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Look-up ignores case."""
    body: bytes = field(repr=lambda body: f"<{len(body):,} bytes>")


@frozen(slots=False)  # made in less time
class Response:
    """An answer of the API. A copy or a pickle has no mask, and its headers are without what that hides.

    Attributes:
        status: The HTTP status, 200 to 299.
        headers: The headers; look-up ignores case.
        data: The parsed JSON body, envelope included; `None` if there was none.
        idempotency_key: The key that a POST went under.
        attempts: How many times it was sent.
        mask: Hides the API key, should the server echo it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    data: JSON = field(repr=False)
    idempotency_key: str | None = None
    attempts: int = 1
    mask: Mask = field(default=_NO_MASK, repr=False, eq=False)

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer, without the key; `None` if it has none."""
        return request_id(self.headers, self.mask)

    def __getstate__(self) -> dict[str, object]:
        # For `pickle` and `copy`: aiohttp's headers cannot be copied, and a mask holds the key.
        headers = CIMultiDict((name, self.mask(value)) for name, value in self.headers.items())
        return {**vars(self), "headers": headers, "mask": _NO_MASK}


def parse_json(body: bytes) -> JSON:
    """Return the value of a JSON *body*.

    What some servers write, though it is not JSON, must not hide everything else in the answer: bytes that are not
    UTF-8 and halves of surrogate pairs become U+FFFD, `NaN`, `Infinity` and numbers too large for a float become
    `None`, and control characters in a text and a byte order mark are accepted.

    Raises:
        ValueError: If it is not JSON in spite of that.
    """
    try:
        parsed: JSON = orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    else:
        return parsed
    try:
        return _with_whole_characters(_lenient(body))
    except RecursionError:
        raise ValueError("too deeply nested") from None


def _lenient(body: bytes) -> object:
    """Read what orjson refuses. The standard library is far slower."""
    return json.loads(
        body.decode("utf-8-sig", "replace"),
        strict=False,
        parse_constant=lambda _: None,
        parse_float=_finite,
        parse_int=_finite_or_whole,
    )


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _finite_or_whole(digits: str) -> float | None:
    return int(digits) if len(digits) < _LONG_NUMBER else _finite(digits)


def _with_whole_characters(value: Any) -> JSON:  # noqa: ANN401 what json.loads returns
    match value:
        case str():
            return whole_characters(value)
        case list():
            return [_with_whole_characters(item) for item in value]
        case dict():
            return {whole_characters(name): _with_whole_characters(item) for name, item in value.items()}
        case _:
            return cast("JSON", value)


def request_id(headers: Mapping[str, str], mask: Mask) -> str | None:
    """Return the `X-Request-Id` as one line of text; `None` if there is none."""
    return one_line(mask(headers.get("X-Request-Id", "")[:LONGEST_TEXT])) or None


def short_text(value: str, mask: Mask) -> str:
    """Return a text of a server's for an error: without the key and without queries, and not too long."""
    start = start_of(value)
    return shortened(without_queries(mask(start, is_cut=len(start) < len(value))))


def excerpt(body: bytes, mask: Mask) -> str:
    """Return the first words of a *body* that could not be read, on one line, without the key and without queries."""
    import html  # noqa: PLC0415 its table of names is slow to load, and few answers are web pages

    start = mask(body[:_WINDOW].decode("utf-8", "replace"), is_cut=len(body) > _WINDOW)
    words = one_line(without_queries(mask(html.unescape(_TAG.sub(" ", start)))))
    return words if len(words) <= _EXCERPT else f"{words[:_EXCERPT]}…"


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait, 0 to 1e9; `None` if it cannot be read.

    It is seconds, or a date, as `unix_time` reads it. A date counts from the `Date` of the same answer: the clock of
    this machine may be wrong.

    Args:
        headers: Of the answer.
        now: Unix time in seconds, for an answer without a `Date`.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    at = unix_time(value)
    if at is None:
        return _decimal(value)
    answered = unix_time(headers.get("Date", ""))
    return min(max(0.0, at - (now if answered is None else answered)), _LONGEST_WAIT)


def unix_time(date: str) -> float | None:
    """Return the Unix time of a *date* in any form of HTTP; `None` if it is none.

    One without a zone, and one with `-0000`, is UTC.
    """
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _decimal(value: str) -> float | None:
    # Not in the standard, but some gateways send "1.5".
    return float(value) if re.fullmatch(r"\d{1,9}\.\d{1,9}", value) else None
