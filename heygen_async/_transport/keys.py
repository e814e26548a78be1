"""Which request each idempotency key was sent with: the server answers a known key with its first result. Pure.

Rule 1: a key under which something may have been created is never sent with another request.
Rule 2: of requests only hashes are kept, of the most recent keys.
"""

from __future__ import annotations

from typing import Final

from attrs import define

from heygen_async._transport.server_time import Moment
from heygen_async._wire import Request, Stream
from heygen_async.errors import Outcome

_MOST: Final = 65_536


@define(eq=False)
class KeyUse:
    """How one key is used, by all calls of a session under it.

    Attributes:
        key: The key.
        request: The hash of the one request that it may be sent with.
        calls: Calls under way.
        is_done: Whether a call has succeeded.
        is_unknown: Whether a call has ended without an answer that says what became of it.
        since: When that call was first sent.
    """

    key: str
    request: int
    calls: int = 0
    is_done: bool = False
    is_unknown: bool = False
    since: Moment | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What is known of the key before a call: `unknown` if something may have been created under it."""
        return "unknown" if self.is_unknown or self.is_done else None


class UsedKeys:
    """The keys that a session has used; views of the session share them.

    Args:
        most: How many keys are kept.
    """

    def __init__(self, *, most: int = _MOST) -> None:
        self._most = most
        # Least recent first. A key whose calls have all succeeded is only the hash of its request: nearly all keys are
        # such, and thousands of objects that last make each garbage collection longer.
        self._uses: dict[str, KeyUse | int] = {}

    def begin(self, request: Request) -> KeyUse | None:
        """Record that a call starts, and return how its key is used; `None` if the key is not kept.

        Raises:
            ValueError: If the key was used for a different request.
        """
        key = request.idempotency_key
        # A stream is an upload, whose key is made for it and never used again.
        if key is None or isinstance(request.body, Stream):
            return None
        request_hash = _request_hash(request)
        use = self._uses.pop(key, None)
        if not isinstance(use, KeyUse):
            use = KeyUse(key, request_hash) if use is None else KeyUse(key, use, is_done=True)
        self._uses[key] = use
        if use.request != request_hash:
            raise already_used(key)
        use.calls += 1
        if len(self._uses) > self._most:
            del self._uses[next(iter(self._uses))]
        return use

    def is_used(self, key: str) -> bool:
        """Return whether *key* was used, so that it may be sent with the same request only."""
        return key in self._uses

    def outcome_before(self, key: str | None) -> Outcome:
        """Return what is known of *key* before a call under it is sent: `unknown` if an earlier one was."""
        return "not_sent" if key is None or key not in self._uses else "unknown"

    def end(self, use: KeyUse, outcome: Outcome | None, *, is_final: bool, since: Moment | None = None) -> None:
        """Record how a call ended. A key under which nothing can have been created is free again.

        Args:
            use: What `begin` returned.
            outcome: What is known of the request; `None` if it succeeded.
            is_final: Whether an answer showed that no request under the key has created anything.
            since: When it was first sent.
        """
        use.calls -= 1
        use.is_done |= outcome is None
        use.is_unknown = outcome == "unknown" or (use.is_unknown and not (is_final or use.is_done))
        known = [one for one in (use.since, since) if one is not None]
        use.since = min(known, key=lambda one: one.elapsed, default=None) if use.is_unknown else None
        if use.is_done or use.is_unknown:
            self._uses.setdefault(use.key, use)  # a refusal of another call has freed it meanwhile
        if self._uses.get(use.key) is not use:
            return
        if is_final or not (use.calls or use.is_done or use.is_unknown):
            del self._uses[use.key]
        elif not (use.calls or use.is_unknown):
            self._uses[use.key] = use.request


def already_used(key: str) -> ValueError:
    """Return the error for a key that was used for a different request."""
    return ValueError(
        f"the idempotency key {key} was already used for a different request in this session, and HeyGen would "
        "answer with the result of that one; use another key"
    )


def _request_hash(request: Request) -> int:
    """Return the hash of a request; the order of the fields of a JSON object does not matter: `compose` sorts them."""
    return hash((request.method, request.path, request.query, request.body))
