"""How many jobs may be in flight: pure state machines on events and a clock.

The account's limit cannot be read, is shared with other programs, and changes. It shows when a create is answered 429:
then the limit is the number of jobs in flight at that moment.

Rule 1: nothing here waits or reads a clock. Times are seconds on any one clock that does not go back.
Rule 2: a job is in flight from its accepted create until its end was *seen*. So a limit that was learnt may count
a job that has ended meanwhile; the next refusal corrects it.
Rule 3: a refusal teaches once. Creates that were in the air together are refused together, and all but the first
of these refusals are old news.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import define

START: Final = 10
"""The limit of a pay-as-you-go account, as published."""

MOST_IN_AIR: Final = 4
"""The most creates without an answer: how far a wrong limit is overshot at once."""

FIRST_PROBE: Final = 15.0
LONGEST_PROBE: Final = 600.0
"""Seconds before one more than the limit is tried: at first, and after many refusals."""

LOW: Final = 0.75
LONGEST_PROBE_WHEN_LOW: Final = 75.0
"""The same while the limit is below this share of the most that was ever in flight: it may come back."""

FIRST_PROBE_WHEN_IDLE: Final = 1.0
LONGEST_PROBE_WHEN_IDLE: Final = 30.0
"""The same while nothing is in flight: others have the whole account, and no end of ours will show that they left."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds without creates after one that got no usable answer: the first time, and after many."""

OUTAGE: Final = 3600.0
"""Seconds of bad weather after which there is no hope, where the server has answered before."""

NEVER_ANSWERED: Final = 60.0
"""The same where it has not: its address may be wrong."""


@define
class Limiter:
    """The number of jobs in flight, kept just below what the account refuses.

    Args:
        most: A limit of the caller's own, 1 or more, which is kept whatever the account takes.
    """

    most: float = math.inf
    limit: int = START
    """How many jobs the account seems to take."""
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

    def may_send(self, now: float) -> bool:
        """Tell whether a create may leave now."""
        busy = self.in_flight + self.in_air
        if self.in_air >= MOST_IN_AIR or busy >= self.most:
            return False
        return busy < self.limit or (now >= self._probe_at and not self.in_air)

    def next_chance(self) -> float:
        """Return when a create may leave if nothing else happens; infinity if something must happen first."""
        return self._probe_at if not self.in_air and self.in_flight < self.most else math.inf

    def send(self) -> int:
        """Note that a create leaves; return the epoch that it knows of, to be told with its refusal."""
        self.in_air += 1
        return self._epoch

    def adopt(self) -> None:
        """Note a job of an earlier run, which is in flight: the account took it."""
        self.in_flight += 1
        self.limit = max(self.limit, self.in_flight)
        self._best = max(self._best, self.in_flight)

    def accept(self, now: float) -> None:
        """Note that a create was accepted."""
        self.in_air -= 1
        self.in_flight += 1
        self._best = max(self._best, self.in_flight)
        self._idle_wait = FIRST_PROBE_WHEN_IDLE
        if self._is_growing:
            self.limit += 1
        elif self.in_flight > self.limit:
            self.limit = self.in_flight
            self._probe_at = now

    def refuse(self, epoch: int, now: float, *, retry_after: float | None = None) -> None:
        """Note that a create was answered 429, one that left knowing of *epoch*."""
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

    def _wait(self) -> float:
        if self.in_flight:
            return self._probe_wait
        wait, self._idle_wait = self._idle_wait, min(2 * self._idle_wait, LONGEST_PROBE_WHEN_IDLE)
        return wait

    def give_up(self) -> None:
        """Note that a create came to nothing, or to nothing known."""
        self.in_air -= 1

    def finish(self) -> None:
        """Note that a job was seen finished, or is waited for no longer."""
        self.in_flight -= 1


@define
class CircuitBreaker:
    """Whether creates are answered at all: after one that was not, they leave one by one, and more and more rarely.

    So an outage of an hour costs a few requests and no row; one that lasts ends the run.
    """

    since: float = 0.0
    """When it became bad."""
    failures: int = 0
    """Creates without a usable answer, since the last one that had one."""
    _has_answered: bool = False
    _until: float = -math.inf

    def success(self) -> None:
        """Note a usable answer, be it a refusal."""
        self.failures, self._has_answered = 0, True

    def failure(self, now: float) -> None:
        """Note a create without one. Those that were in the air together are one trouble."""
        if self.failures and now < self._until:
            return
        if not self.failures:
            self.since = now
        self.failures += 1
        self._until = now + min(FIRST_PAUSE * 2.0 ** min(self.failures - 1, 32), LONGEST_PAUSE)

    def may_send(self, now: float, *, in_air: int) -> bool:
        """Tell whether a create may leave now."""
        return not self.failures or (now >= self._until and not in_air)

    def next_chance(self) -> float:
        """Return from when on a create may leave."""
        return self._until

    def is_hopeless(self, now: float) -> bool:
        """Tell whether it has lasted too long."""
        return bool(self.failures) and now - self.since > (OUTAGE if self._has_answered else NEVER_ANSWERED)
