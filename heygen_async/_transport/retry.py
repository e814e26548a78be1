"""When to send a request again: a pure decision.

Rule 1: nothing here waits or reads a clock, and chance comes in as a number.
Rule 2: what is decided here is only whether repeating helps. Whether it is safe (nothing is changed by it, or it
goes under an idempotency key) is the caller's to know, and comes in as `repeatable`.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import in_

from heygen_async._arguments import count, seconds
from heygen_async._wire import is_in_progress, is_unsettled
from heygen_async.errors import APIError, HeyGenError, RateLimited, TransportError


@frozen(kw_only=True)
class RetryPolicy:
    """How patiently a request is repeated. Times are seconds.

    Connection errors, timeouts, 408, 429 and 5xx are repeated, after a random wait of up to
    `min(first_delay * 2 ** n, max_delay)`, and never before a `Retry-After` is over. A POST is repeated under one
    idempotency key. A 429, and a 409 which says that the first request under the key is still being worked on,
    use up no attempt; only `max_seconds` bounds them.

    Attributes:
        max_attempts: How often a request is sent at most; 1 switches off every repeat.
        max_seconds: No attempt starts later than this after the first.
        first_delay: The longest wait before the second attempt.
        max_delay: The longest wait before any attempt, unless the server asks for more.
        max_retry_after: A `Retry-After` beyond this is raised at once, as `.retry_after` of the error.
        on_rate_limit: `wait` holds back all requests of the session on a 429 (creates only, if it was a create);
            `raise` raises it at once and holds back none.
    """

    max_attempts: int = field(default=4, validator=count)
    max_seconds: float = field(default=180, validator=seconds)
    first_delay: float = field(default=0.5, validator=seconds)
    max_delay: float = field(default=8, validator=seconds)
    max_retry_after: float = field(default=120, validator=seconds)
    on_rate_limit: Literal["wait", "raise"] = field(default="wait", validator=in_(("wait", "raise")))


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
    if not repeatable or policy.max_attempts == 1 or not _may_pass(error):
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


def _may_pass(error: HeyGenError) -> bool:
    if isinstance(error, APIError):
        return isinstance(error, RateLimited) or is_unsettled(error)
    return isinstance(error, TransportError)
