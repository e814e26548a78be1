"""When to look again at what runs on the server, after an answer and after an error. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define

from heygen_async.errors import APIError, HeyGenError, UnexpectedResponse

if TYPE_CHECKING:
    from heygen_async.policies import PollPolicy

_MAX_UNREADABLE: Final = 10
"""Unreadable answers in a row that end a wait: about two minutes of a gateway's error pages."""


@define
class Failures:
    """The consecutive requests that told nothing of a job or a batch, and the one rule for what follows."""

    count: int = 0
    """Requests in a row that failed."""
    unreadable: int = 0
    """Unreadable answers in a row, the last ones of `count`."""
    omissions: int = 0
    """Readable answers in a row without the job."""
    error: HeyGenError | None = None
    """What the last request failed with; `None` if it was answered."""

    def clear(self) -> None:
        """Note an answer with a status."""
        self.count, self.unreadable, self.omissions, self.error = 0, 0, 0, None

    def omitted(self) -> int:
        """Note an answer without the job; return how many there were in a row."""
        self.count, self.unreadable, self.error = 0, 0, None
        self.omissions += 1
        return self.omissions

    def failed(self, error: Exception, policy: PollPolicy) -> float | None:
        """Note a request that failed.

        Returns:
            The least seconds until the next request, or `None` if *error* ends the wait: it is not transient, or
            answers stay unreadable.
        """
        if not isinstance(error, HeyGenError) or not error.is_transient:
            return None
        self.count += 1
        self.error = error
        self.unreadable = self.unreadable + 1 if isinstance(error, UnexpectedResponse) else 0
        if self.unreadable == _MAX_UNREADABLE:
            return None
        backoff = min(policy.fastest * 2.0 ** min(self.count, 32), policy.slowest)
        retry_after = error.retry_after if isinstance(error, APIError) else None
        # A wait must come to its own end, whatever time the server asks for.
        return max(backoff, min(retry_after or 0.0, policy.longest))
