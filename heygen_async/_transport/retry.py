"""When to send a request again: a pure decision.

Rule 1: nothing here waits or reads a clock, and chance comes in as a number.
Rule 2: what is decided here is only whether repeating helps. Whether it is safe (nothing is changed by it, or it
goes under an idempotency key) is the caller's to know, and comes in as `repeatable`.
"""

from __future__ import annotations

from attrs import frozen

from heygen_async._wire import is_in_progress
from heygen_async.errors import APIError, HeyGenError, RateLimited
from heygen_async.policies import RetryPolicy


@frozen(kw_only=True)
class Spent:
    """What a call has used up.

    Attributes:
        attempts: Attempts that count.
        refusals: Attempts that do not: answered 429, or 409 `request_in_progress`.
        seconds: Since its first attempt.
    """

    attempts: int
    refusals: int
    seconds: float


def is_refusal(error: HeyGenError) -> bool:
    """Tell whether *error* only says "not now", so that it uses up no attempt."""
    return isinstance(error, RateLimited) or is_in_progress(error)


def decide(policy: RetryPolicy, error: HeyGenError, *, spent: Spent, repeatable: bool, chance: float) -> float | None:
    """Return the seconds to wait before the next attempt, or `None` to stop and raise *error*.

    Args:
        policy: The limits.
        error: What ended the last attempt.
        spent: What the call has used up, the last attempt included.
        repeatable: Whether sending it again is safe.
        chance: A random number, 0 to 1.
    """
    if not repeatable or policy.max_attempts == 1 or not error.is_transient:
        return None
    if isinstance(error, RateLimited) and policy.on_rate_limit == "raise":
        return None
    if not is_refusal(error) and spent.attempts >= policy.max_attempts:
        return None
    asked = error.retry_after if isinstance(error, APIError) else None
    if asked is not None and asked > policy.max_retry_after:
        return None
    delay = backoff(policy, spent.attempts + spent.refusals, chance=chance)
    if asked:
        # After a 429 the gate spreads the departures; jitter on top would hold back the whole lane.
        delay = asked if isinstance(error, RateLimited) else max(asked, delay)
    return delay if spent.seconds + delay <= policy.max_seconds else None


def backoff(policy: RetryPolicy, failures: int, *, chance: float) -> float:
    """Return the wait after so many *failures*, 1 at least: exponential, with full jitter."""
    doublings = min(failures - 1, 60)  # a float holds it, and it is past any max_delay
    return chance * min(policy.first_delay * 2.0**doublings, policy.max_delay)
