"""The answers that were given under each idempotency key, for 24 hours.

Only a 2xx is kept, so that a request that was refused can be corrected and sent again under its key.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final, TypeAlias

from attrs import frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, invalid

KEPT_SECONDS: Final = 24 * 3600.0
_KEY: Final = re.compile(r"[A-Za-z0-9_\-:.]{1,255}", re.ASCII)

Scope: TypeAlias = tuple[str, str]
"""The path of the request, ids included, and its key."""


@frozen
class StoredAnswer:
    """An answer as it was sent."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of successes


def check_key(key: str) -> str:
    """Return *key* if it is a valid idempotency key."""
    if not _KEY.fullmatch(key):
        raise invalid("Idempotency-Key must be 1 to 255 letters, digits, '_', '-', ':' or '.'.", "Idempotency-Key")
    return key


class IdempotencyKeys:
    """The memory of keys."""

    def __init__(self) -> None:
        self._answers: dict[Scope, StoredAnswer | None] = {}  # None: the first request is still in flight
        self._expiries: deque[tuple[float, Scope]] = deque()  # soonest first

    def begin(self, scope: Scope, now: float) -> StoredAnswer | None:
        """Return the first answer; or None, and the key is in flight until the caller calls `end`."""
        self._expire(now)
        if scope not in self._answers:
            self._answers[scope] = None
            return None
        answer = self._answers[scope]
        if answer is None:
            raise ErrorAnswer(409, "request_in_progress", "The first request with this key is still in progress.")
        return answer

    def end(self, scope: Scope, answer: StoredAnswer | None, now: float) -> None:
        """Keep *answer* if it is a success; else forget the key."""
        if answer is None or not answer.is_success:
            del self._answers[scope]
            return
        self._answers[scope] = answer
        self._expiries.append((now + KEPT_SECONDS, scope))

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            del self._answers[self._expiries.popleft()[1]]
