"""When to look again at what runs on the server, after an answer and after an error.

The module is pure: times are arguments, in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from heygen_async.errors import APIError, AuthenticationError, HeyGenError, NotFound, UnexpectedResponse, may_be_page
from heygen_async.policies import PollPolicy

_MOST_UNREADABLE: Final = 10
"""Unreadable answers in a row that end a wait: about two minutes of a gateway's pages."""

_MOST_REFUSED: Final = 3
"""Refusals of the key without a code that end a wait: the key may really be wrong."""

_MOST_MISSING: Final = 4
"""How many answers that a new job does not exist end its wait: reads may lag behind its create."""

_YOUNG: Final = 60.0
"""Seconds after its create in which reads may not know a job or a batch yet."""

_MAX_OMISSIONS: Final = 3
"""Answers in a row that may omit a job before it is fetched by itself."""

_RECENT: Final = 64
"""How many finished jobs the typical length is taken from."""

_JITTER: Final = 0.2
"""The width of the random factor on the time to the next look: 0.9 to 1.1."""


@frozen
class Failures:
    """Consecutive requests that failed or said nothing of a job or a batch, and the rule for what happens next."""

    count: int = 0
    """Requests in a row that failed."""
    unreadable: int = 0
    """Unreadable answers and pages in a row; answers without the job do not count."""
    missing: int = 0
    """Answers that it does not exist, since one that had it."""
    omissions: int = 0
    """Readable answers in a row without the job."""
    error: HeyGenError | None = None
    """What the last request failed with; `None` if it was answered."""
    refused: int = 0
    """How many of the unreadable answers refuse the key."""

    @property
    def is_omitted(self) -> bool:
        """Whether so many answers omit the job that only its own GET can tell its status."""
        return self.omissions >= _MAX_OMISSIONS

    @property
    def has_retry_after(self) -> bool:
        """Whether the server has said how long to wait: then the job is not fetched before it is due."""
        return isinstance(self.error, APIError) and bool(self.error.retry_after)

    def after_omission(self) -> Failures:
        """Return these and an answer without the job."""
        return Failures(0, self.unreadable, self.missing, self.omissions + 1, refused=self.refused)

    def after_error(self, error: Exception, *, is_new: bool = False) -> Failures | None:
        """Return these and a request that failed; `None` if *error* ends the wait.

        It does if it is not transient, except for a gateway's page, and for a job that is missing but *is_new*. These,
        and unreadable answers, end it if they are repeated.
        """
        if not isinstance(error, HeyGenError):
            return None
        unreadable, refused, missing = 0, 0, self.missing
        if may_be_page(error) or (isinstance(error, UnexpectedResponse) and error.is_transient):
            unreadable, refused = self.unreadable + 1, self.refused + isinstance(error, AuthenticationError)
        elif is_new and isinstance(error, NotFound):
            missing += 1
        elif not error.is_transient:
            return None
        if unreadable == _MOST_UNREADABLE or refused == _MOST_REFUSED or missing == _MOST_MISSING:
            return None
        return Failures(self.count + 1, unreadable, missing, self.omissions, error, refused)

    def delay(self, policy: PollPolicy) -> float:
        """Return the least seconds until the next request."""
        backoff = min(policy.fastest * 2.0 ** min(self.count, 32), policy.slowest)
        retry_after = self.error.retry_after if isinstance(self.error, APIError) else None
        # A wait must come to its own end, whatever time the server asks for.
        return max(backoff, min(retry_after or 0.0, policy.longest))


NO_FAILURES: Final = Failures()


def is_young(age: float) -> bool:
    """Return whether a job or a batch of *age* seconds is so young that reads may not know it yet."""
    return age < _YOUNG


class Cadence:
    """How often to look at jobs, learnt from those that have ended.

    Args:
        policy: The policy of waits that have none of their own.
    """

    def __init__(self, policy: PollPolicy) -> None:
        self.trust = NotificationTrust()
        self._policy = policy
        self._safety_net = PollPolicy.with_webhooks()
        self._lengths: deque[float] = deque(maxlen=_RECENT)
        self._typical = 0.0

    def interval(self, policies: Iterable[PollPolicy | None], age: float, *, notified: bool = False) -> float:
        """Return the seconds to the next look at a job.

        Args:
            policies: Those of its waiters; the most eager one decides. `None` is the general policy.
            age: Seconds since the job was created.
            notified: Whether a notification has arrived while the job was still running. Another one is not expected.
        """
        intervals = [(policy or self._policy).interval(age, self._typical) for policy in policies]
        interval = min(intervals, default=self._policy.slowest)
        if self.trust.is_trusted and not notified:
            return max(interval, safety_net_interval(self._safety_net, age, self._typical))
        return interval

    def learn(self, length: float) -> None:
        """Note how many seconds a job has taken."""
        self._lengths.append(length)
        self._typical = sorted(self._lengths)[len(self._lengths) // 2]


def jitter(chance: float) -> float:
    """Return the factor on the time to the next look, from a random number of 0 to 1."""
    return 1 + _JITTER * (chance - 0.5)


class NotificationTrust:
    """Whether webhooks can be relied on to report the ends of jobs.

    One lost delivery does not end the trust, because others arrive. It ends when a job has ended without a
    notification and none arrived for any other job either while that one was waited for. It is restored by the next
    job whose end was notified.
    """

    def __init__(self) -> None:
        self.is_trusted = False
        self._expected = False
        self._last = -math.inf

    def expect(self) -> None:
        """Trust from now on."""
        self.is_trusted = self._expected = True

    def confirmed(self, now: float) -> None:
        """Note that a job has ended whose end was notified."""
        self._last = now
        self.is_trusted = self._expected

    def missed(self, since: float) -> bool:
        """Note that a job, created at *since*, has ended without a notification; return whether this ends the trust."""
        if not self.is_trusted or self._last >= since:
            return False
        self.is_trusted = False
        return True


def safety_net_interval(net: PollPolicy, age: float, typical: float) -> float:
    """Return the seconds to the next look at a job whose end is expected to be notified.

    The first look is when the job is overdue by half the length of a typical job; later looks follow the policy *net*.

    Args:
        net: The policy of the safety net.
        age: Seconds since the job was created.
        typical: How long such jobs take, in seconds; 0 if that is not known.
    """
    overdue = typical + min(typical / 2, net.slowest)
    return max(net.interval(age, typical), overdue - age)
