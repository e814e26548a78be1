"""When a transfer is attempted again: the session's `RetryPolicy`, counted in attempts without progress. Pure."""

from __future__ import annotations

from attrs import define

from heygen_async._transport.retry import Spent, backoff, decide, is_refusal
from heygen_async.errors import HeyGenError
from heygen_async.policies import RetryPolicy


@define
class Attempts:
    """What one transfer has used up.

    A transfer can take hours, so `max_seconds` bounds the time that it waits between attempts, not the time in which
    bytes move.
    """

    policy: RetryPolicy
    made: int = 0
    refusals: int = 0
    waited: float = 0.0

    def delay_after(self, error: HeyGenError, *, chance: float) -> float | None:
        """Return the seconds to wait after an attempt that ended in *error*, or `None` to stop."""
        self.made += 1
        self.refusals += is_refusal(error)
        spent = Spent(attempts=self.made - self.refusals, refusals=self.refusals, seconds=self.waited)
        delay = decide(self.policy, error, spent=spent, repeatable=True, chance=chance)
        self.waited += delay or 0.0
        return delay

    def delay_before_change(self, *, chance: float) -> float | None:
        """Return the seconds to wait before a changed request, with a fresh link for instance; `None` to stop.

        The first change is tried at once, and even where the policy allows no retry: it is not the same request.
        """
        self.made += 1
        if self.made >= max(self.policy.max_attempts, 2):
            return None
        delay = backoff(self.policy, self.made - 1, chance=chance) if self.made > 1 else 0.0
        self.waited += delay
        return delay

    def reset(self) -> None:
        """Start to count from zero: there was progress."""
        self.made, self.refusals, self.waited = 0, 0, 0.0
