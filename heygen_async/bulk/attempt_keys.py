"""The idempotency keys of a row's attempts, by which their jobs are found again. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

import orjson

_KEY_CHARACTERS: Final = 200
"""Characters of a row's key in its attempt keys; the API takes 255 in all."""
_DIGITS: Final = 16
_ATTEMPT_KEY: Final = re.compile(rf".{{1,{_KEY_CHARACTERS}}}\.[0-9a-f]{{{_DIGITS}}}")


def attempt_key(row_key: str, digest: str, attempt: int) -> str:
    """Return the idempotency key of an attempt.

    The same row gets the same key in every journal, so that the server replays its job; a row that differs in
    anything gets another key. It ends in 16 hex digits of a hash, so no row key leads to the attempt key of another.

    Args:
        row_key: The row's own key.
        digest: Covers everything that is sent for it.
        attempt: The number of the attempt, from 1.
    """
    covered = orjson.dumps([row_key, digest, attempt])
    return f"{row_key[:_KEY_CHARACTERS]}.{hashlib.sha256(covered).hexdigest()[:_DIGITS]}"


def is_like_attempt_key(callback_id: str) -> bool:
    """Return whether *callback_id* has the form of an attempt key, which hardly any other one has."""
    return _ATTEMPT_KEY.fullmatch(callback_id) is not None


def first_version_key(key: str, attempt: int) -> str:
    """Return the attempt key that the first version of this library used."""
    return key if attempt == 1 else f"{key}.{attempt}"
