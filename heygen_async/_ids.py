"""The grammar of ids and idempotency keys, how long a key is used, and how ids are split into status requests."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from heygen_async._arguments import plain_text, shown

_KEY: Final = re.compile(r"[A-Za-z0-9_\-:.]{1,255}")
# Needs no percent-encoding, and is one segment of a path; a comma would split a list of ids.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9\-._~:@!$&'()*+;=]{1,255}")
_SEGMENTS: Final = re.compile(f"{_SEGMENT.pattern}(?:/{_SEGMENT.pattern})*")
# Words in the place of an id: GET /v3/lipsyncs/statuses is another call, not the lipsync "statuses".
_RESERVED: Final = frozenset({"statuses", "batches", "direct-uploads", ".", ".."})

_UNRESERVED: Final = re.compile(r"[A-Za-z0-9\-._~]*")  # what nearly all ids are made of; quite slow to quote

KEY_SECONDS: Final = 23 * 3600.0
"""How long a key is sent again. The server remembers it for 24 h; the rest allows for clocks and slow requests."""

CLOCK_ERROR: Final = 60.0
"""By how many seconds a clock may go back without a reason to doubt it."""

MAX_STATUS_IDS: Final = 100
"""Most ids in one status request, by the contract."""
MAX_STATUS_QUERY: Final = 6_000
"""Most characters of ids in one status request; servers commonly refuse a request line of over 8 kB."""


def is_id(value: str) -> bool:
    """Return whether *value* can be an id: it is one segment of a path, and no other call has that path."""
    return _SEGMENT.fullmatch(value) is not None and value not in _RESERVED


def segment(name: str, value: object) -> str:
    """Return the id *value* as one segment of a path.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is empty, or could be read as anything but one segment.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not is_id(value):
        raise ValueError(f"{name} is not an id: {shown(value)}")
    return plain_text(value)


def segments(name: str, values: Sequence[str]) -> None:
    """Check that each of *values* is an id. One look at all of them costs a tenth of one at each.

    Raises:
        TypeError, ValueError: As `segment` does for the first one that is none.
    """
    try:
        joined = "/".join(values)
    except TypeError:
        joined = ""
    # An id holds no slash, so a join of ids has one slash less than ids.
    if joined.count("/") == len(values) - 1 and _SEGMENTS.fullmatch(joined) and _RESERVED.isdisjoint(values):
        return
    for value in values:
        segment(name, value)


def new_key() -> str:
    """Return a new idempotency key."""
    return secrets.token_hex(16)


def check_key(key: object) -> str:
    """Return the idempotency *key* if the API will take it.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it breaks the API's grammar.
    """
    if not isinstance(key, str):
        raise TypeError(f"idempotency_key must be a string, not {type(key).__name__}")
    if not _KEY.fullmatch(key):
        raise ValueError("idempotency_key must be 1 to 255 of A-Z a-z 0-9 _ - : .")
    return plain_text(key)


def check_optional_key(key: object) -> str | None:
    """Return `None` for `None`, and else what `check_key` returns or raises."""
    return None if key is None else check_key(key)


def is_key_fresh(first_sent: float, now: float) -> bool:
    """Return whether the server certainly still knows a key that was first sent at *first_sent*.

    Both are seconds on one clock, or 0 and an age. If *now* is more than `CLOCK_ERROR` before *first_sent*, the clock
    was set back: the age is not known, and the key is not fresh.
    """
    return -CLOCK_ERROR <= now - first_sent <= KEY_SECONDS


def query_size(lipsync_id: str) -> int:
    """Return how many characters of a query *lipsync_id* takes, with its comma."""
    return len(lipsync_id if _UNRESERVED.fullmatch(lipsync_id) else quote(lipsync_id, safe="")) + len("%2C")


def chunk_ids(ids: Iterable[str]) -> list[list[str]]:
    """Split *ids* for status requests: at most 100, and 6,000 characters, in each."""
    ids = list(ids)
    are_plain = _UNRESERVED.fullmatch("".join(ids)) is not None  # one look at all of them: each is as long as it is
    chunks: list[list[str]] = []
    room = 0
    for lipsync_id in ids:
        size = len(lipsync_id) + len("%2C") if are_plain else query_size(lipsync_id)
        if not chunks or len(chunks[-1]) == MAX_STATUS_IDS or room < size:
            chunks.append([])
            room = MAX_STATUS_QUERY
        chunks[-1].append(lipsync_id)
        room -= size
    return chunks
