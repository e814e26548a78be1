"""When to send a request again: the one count of attempts, for calls, uploads and downloads. Pure.

Rule 1: nothing here waits or reads a clock, and chance comes in as a number.
Rule 2: this decides only whether a retry may help. Whether it is safe comes in as `is_repeatable`.
"""

from __future__ import annotations

from attrs import define

from heygen_async._wire import is_in_progress
from heygen_async.errors import APIError, HeyGenError, RateLimited
from heygen_async.policies import RetryPolicy


@define
class Attempts:
    """What one call or one transfer has used up of its `RetryPolicy`.

    Attributes:
        policy: The limits.
        is_repeatable: Whether sending it again is safe.
        made: Attempts that have ended.
        refusals: Those of them that do not count against `max_attempts`: answered 429, or 409 `request_in_progress`.
        waited: Seconds waited between attempts.
    """

    policy: RetryPolicy
    is_repeatable: bool = True
    made: int = 0
    refusals: int = 0
    waited: float = 0.0

    def delay_after(self, error: HeyGenError, *, chance: float, elapsed: float | None = None) -> float | None:
        """Record an attempt that ended in *error*, and return the seconds to wait before the next one.

        Args:
            error: What ended the attempt.
            chance: A random number, 0 to 1.
            elapsed: The seconds that `max_seconds` bounds; by default those waited between attempts, because a
                transfer can take hours.

        Returns:
            The seconds to wait; `None` to stop and raise *error*.
        """
        self.made += 1
        self.refusals += is_refusal(error)
        delay = None if self._is_last(error) else self._delay(error, chance)
        used = self.waited if elapsed is None else elapsed
        if delay is None or used + delay > self.policy.max_seconds:
            return None
        self.waited += delay
        return delay

    def _is_last(self, error: HeyGenError) -> bool:
        policy = self.policy
        if not self.is_repeatable or policy.max_attempts == 1 or not error.is_transient:
            return True
        if isinstance(error, RateLimited) and policy.on_rate_limit == "raise":
            return True
        return not is_refusal(error) and self.made - self.refusals >= policy.max_attempts

    def _delay(self, error: HeyGenError, chance: float) -> float | None:
        delay = backoff(self.policy, self.made, chance=chance)
        retry_after = error.retry_after if isinstance(error, APIError) else None
        if not retry_after:
            return delay
        if retry_after > self.policy.max_retry_after:
            return None
        # After a 429 the gate spreads the requests; jitter on top would hold back all of its scope.
        return retry_after if isinstance(error, RateLimited) else max(retry_after, delay)

    def pause_after(self, error: HeyGenError, *, chance: float) -> float | None:
        """Return for how many seconds *error* holds back other requests, even if this one is not sent again.

        Returns:
            The seconds; `None` if it holds back none: it is no 429, or one that the policy raises at once.
        """
        if not isinstance(error, RateLimited) or self.policy.on_rate_limit == "raise":
            return None
        return self._delay(error, chance)

    def delay_before_change(self, *, chance: float) -> float | None:
        """Record an attempt that failed, and return the seconds to wait before a different request; `None` to stop.

        The first change, a fresh link for instance, is tried at once, and even where the policy allows no retry.
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


def is_refusal(error: HeyGenError) -> bool:
    """Return whether *error* only means "not now", so that it uses up no attempt."""
    return isinstance(error, RateLimited) or is_in_progress(error)


def backoff(policy: RetryPolicy, failures: int, *, chance: float) -> float:
    """Return the wait after so many *failures*, 1 or more: exponential, with full jitter."""
    doublings = min(failures - 1, 60)  # a float holds it, and it is past any max_delay
    return chance * min(policy.first_delay * 2.0**doublings, policy.max_delay)
