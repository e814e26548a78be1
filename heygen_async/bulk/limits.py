"""How many jobs may be in flight: pure state machines on events and a clock.

The account's limit cannot be read, is shared with other programs, and changes. It shows when a create is answered 429:
then the limit is the number of jobs in flight at that moment.

Rule 1: nothing here waits or reads a clock. Times are seconds on one clock that does not go back.
Rule 2: a job is in flight from its accepted create until its end is *seen*. So a limit may count a job that has ended
meanwhile; the next refusal corrects it.
Rule 3: creates that were sent together are refused together: only the first refusal of an epoch changes the limit.
"""

from __future__ import annotations

import math
from typing import Final, TypeGuard

from attrs import define, frozen

from heygen_async.errors import APIError
from heygen_async.policies import PollPolicy

START: Final = 10
"""The limit of a pay-as-you-go account, as published."""

MOST_IN_AIR: Final = 4
"""The most creates without an answer: by how many a wrong limit can be exceeded at once."""

FIRST_PROBE: Final = 15.0
LONGEST_PROBE: Final = 600.0
"""Seconds before one more than the limit is tried: at first, and after many refusals."""

LOW: Final = 0.75
"""The share of the most jobs ever in flight below which the limit may rise again soon."""

LONGEST_PROBE_WHEN_LOW: Final = 75.0
"""The longest time between two probes below that share, in seconds."""

FIRST_PROBE_WHEN_IDLE: Final = 1.0
LONGEST_PROBE_WHEN_IDLE: Final = 30.0
"""Seconds before the next probe where the end of a job cannot show a free seat: none is in flight, or one ended during
the create.
"""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds without creates after a failure: after the first, and after many."""

OUTAGE: Final = 3600.0
"""Seconds of failures after which the run ends, if the server has answered before. A request that is answered with a
longer `Retry-After` fails at once."""

NEVER_ANSWERED: Final = 60.0
"""The same if it has not: its address may be wrong."""


MOST_TRIES: Final = 6
"""How often a request without a usable answer is sent for one row, while others have answers."""


_WHILE_OTHERS_WAIT: Final = PollPolicy(fastest=0.05, growth=0.045)
"""How often to look at a job for whose seat others wait: soon at a short one, else by its age.

A seat is idle from the end of its job until that is seen, half an interval on average. Over a thousand jobs this makes
a run of 60 s jobs on 10 seats 2.6 % longer than it could be, for less than 3 looks a row.
"""


def look_policy(own: PollPolicy, *, is_scarce: bool) -> PollPolicy | None:
    """Return how often to look at a job if others wait for its seat; `None` leaves it to the caller's *own* policy."""
    return _WHILE_OTHERS_WAIT if is_scarce and own == PollPolicy() else None


def asks_too_long(error: BaseException | None) -> TypeGuard[APIError]:
    """Return whether *error* may pass, but its `Retry-After` is longer than a run waits."""
    return isinstance(error, APIError) and error.is_transient and (error.retry_after or 0.0) > OUTAGE


def with_wait(error: APIError) -> APIError:
    """Return *error* with its `Retry-After` in the message."""
    found = error.fresh()
    found.args = (f"{error}; the API asks to wait {(error.retry_after or 0.0) / 3600:,.1f} hours",)
    return found


@define
class Limiter:
    """The number of jobs in flight, kept just below what the account refuses.

    Args:
        most: The caller's own limit, 1 or more, whatever the account allows.
    """

    most: float = math.inf
    limit: int = START
    """How many jobs the account seems to allow."""
    in_flight: int = 0
    """Jobs that were accepted and not seen finished."""
    in_air: int = 0
    """Creates that have no answer yet."""
    refusals: int = 0
    """Creates that were answered 429."""
    _best: int = 0
    _is_growing: bool = True
    _epoch: int = 0
    _probe_at: float = math.inf
    _probe_wait: float = FIRST_PROBE
    _idle_wait: float = FIRST_PROBE_WHEN_IDLE
    _busiest: int = 0
    """The most jobs in flight since the first of the creates in the air was sent, or since a refusal."""

    def may_send(self, now: float) -> bool:
        """Return whether a create may be sent now."""
        busy = self.in_flight + self.in_air
        if self.in_air >= MOST_IN_AIR or busy >= self.most:
            return False
        return busy < self.limit or (now >= self._probe_at and not self.in_air)

    def next_chance(self) -> float:
        """Return when a create may be sent if nothing else happens; infinity if something must happen first."""
        return self._probe_at if not self.in_air and self.in_flight < self.most else math.inf

    def send(self) -> int:
        """Count a create that is sent, and return the epoch, which `refuse` needs."""
        self._busiest = max(self._busiest if self.in_air else 0, self.in_flight)
        self.in_air += 1
        return self._epoch

    def adopt(self) -> None:
        """Count a job of an earlier run that is in flight."""
        self.in_flight += 1
        self.limit = max(self.limit, self.in_flight)
        self._best = max(self._best, self.in_flight)

    def accept(self, now: float) -> None:
        """Count an accepted create."""
        self.in_air -= 1
        self.in_flight += 1
        self._best = max(self._best, self.in_flight)
        self._busiest = max(self._busiest, self.in_flight)
        self._idle_wait = FIRST_PROBE_WHEN_IDLE
        if self._is_growing:
            self.limit += 1
        elif self.in_flight > self.limit:
            self.limit = self.in_flight
            self._probe_at = now

    def refuse(self, epoch: int, now: float, *, retry_after: float | None = None) -> None:
        """Count a create that was answered 429 and was sent in *epoch*."""
        self.in_air -= 1
        self.refusals += 1
        if epoch != self._epoch:
            return
        self._epoch += 1
        self._is_growing = False
        if self.in_flight >= self.limit:
            self._probe_wait = min(2 * self._probe_wait, LONGEST_PROBE)
        self.limit = self.in_flight
        if self.limit < LOW * self._best:
            self._probe_wait = min(self._probe_wait, LONGEST_PROBE_WHEN_LOW)
        self._probe_at = now + max(self._wait(), retry_after or 0)
        self._busiest = self.in_flight

    def _wait(self) -> float:
        """Return the seconds to the next probe: few if a job ended meanwhile, perhaps after the create was refused."""
        if self.in_flight and self.in_flight >= self._busiest:
            return self._probe_wait
        wait, self._idle_wait = self._idle_wait, min(2 * self._idle_wait, LONGEST_PROBE_WHEN_IDLE)
        return wait

    def give_up(self) -> None:
        """Count a create that made no job, or none that is known."""
        self.in_air -= 1

    def finish(self) -> None:
        """Count a job that was seen finished, or is not waited for any more."""
        self.in_flight -= 1


@define
class CircuitBreaker:
    """Whether creates are answered at all: after a failure they are sent one by one, at growing intervals.

    So an outage of an hour costs a few requests and no row; a lasting one ends the run.
    """

    since: float = 0.0
    """When the first of the failures was."""
    failures: int = 0
    """Creates without a usable answer since the last one that had one."""
    _has_answered: bool = False
    _until: float = -math.inf

    def success(self) -> None:
        """Count a usable answer, which may be a refusal."""
        self.failures, self._has_answered = 0, True

    def failure(self, now: float) -> None:
        """Count a create without one. Those that were sent together are one failure."""
        if self.failures and now < self._until:
            return
        if not self.failures:
            self.since = now
        self.failures += 1
        self._until = now + min(FIRST_PAUSE * 2.0 ** min(self.failures - 1, 32), LONGEST_PAUSE)

    def may_send(self, now: float, *, in_air: int) -> bool:
        """Return whether a create may be sent now."""
        return not self.failures or (now >= self._until and not in_air)

    def next_chance(self) -> float:
        """Return when a create may be sent again."""
        return self._until

    def is_hopeless(self, now: float) -> bool:
        """Return whether the failures have lasted too long."""
        return bool(self.failures) and now - self.since > (OUTAGE if self._has_answered else NEVER_ANSWERED)


@frozen
class Unanswered:
    """The requests of one row that had no usable answer while those of other rows had."""

    count: int = 0
    answers: int = -1
    """How many requests had been answered when the last of them was counted."""

    def after(self, answers: int) -> Unanswered:
        """Return these and another one, *answers* being how many requests have been answered so far."""
        return self if answers == self.answers else Unanswered(self.count + 1, answers)

    @property
    def is_too_many(self) -> bool:
        """Whether the row is given up: it is not the API that does not answer."""
        return self.count >= MOST_TRIES
