"""What was answered under which idempotency key, for a day. Pure: the time is an argument.

Only a 2xx is kept, so that a request that was refused may be put right and sent again under its key.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final, TypeAlias

from attrs import frozen

from heygen_async.sandbox.error_answers import Refusal, invalid

KEPT_SECONDS: Final = 24 * 3600.0
_KEY: Final = re.compile(r"[A-Za-z0-9_\-:.]{1,255}", re.ASCII)

Scope: TypeAlias = tuple[str, str]
"""The path of the request, resource and all, and its key."""


@frozen
class Kept:
    """A first answer, as it went out."""

    status: int
    body: bytes


def check_key(key: str) -> str:
    """Return *key* if it follows the grammar of idempotency keys."""
    if not _KEY.fullmatch(key):
        raise invalid("Idempotency-Key must be 1 to 255 letters, digits, '_', '-', ':' or '.'.", "Idempotency-Key")
    return key


class Replays:
    """The memory of keys."""

    def __init__(self) -> None:
        self._answers: dict[Scope, Kept | None] = {}  # None: the first request is still in flight
        self._kept: deque[tuple[float, Scope]] = deque()  # in the order in which they will be forgotten

    def begin(self, scope: Scope, now: float) -> Kept | None:
        """Return the first answer; or None, and from now on the key is in flight and the caller's to end."""
        self._forget(now)
        if scope not in self._answers:
            self._answers[scope] = None
            return None
        kept = self._answers[scope]
        if kept is None:
            raise Refusal(409, "request_in_progress", "The first request with this key is still in progress.")
        return kept

    def end(self, scope: Scope, answer: Kept | None, now: float) -> None:
        """Keep *answer* if it is a 2xx; else the key is as if it had never come."""
        if answer is None or not 200 <= answer.status < 300:  # noqa: PLR2004 - the class of successes
            del self._answers[scope]
            return
        self._answers[scope] = answer
        self._kept.append((now + KEPT_SECONDS, scope))

    def _forget(self, now: float) -> None:
        while self._kept and self._kept[0][0] <= now:
            del self._answers[self._kept.popleft()[1]]
