"""When to look at the jobs of a cluster, and what an answer means: the one poller for all workers. Pure.

Rule 1: a request is always full: jobs that are due first, then those that will be due next.
Rule 2: whatever ends a request, none of its jobs stays in flight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Final

from attrs import define, field, frozen

from heygen_async._ids import MAX_STATUS_IDS, MAX_STATUS_QUERY, query_size
from heygen_async.bulk.cluster.rows import Ticket
from heygen_async.errors import HeyGenError
from heygen_async.models import TERMINAL, LipsyncStatus
from heygen_async.policies import PollPolicy
from heygen_async.polling.cadence import NO_FAILURES, Cadence, Failures


@define(eq=False)
class Look:
    """A job that runs, and when it is looked at again."""

    ticket: Ticket
    lipsync_id: str
    since: float
    """When it was sent."""
    due: float
    failures: Failures = NO_FAILURES
    missing: int = 0
    """How often the server did not know it."""
    is_taken: bool = False
    """Whether a request for it is in flight."""
    is_gone: bool = False


@frozen
class Ended:
    """A job that is not looked at any more."""

    look: Look
    status: LipsyncStatus | str
    error: Exception | None = None
    """Why it cannot be looked at, if it has not ended."""


_NEVER: Final = math.inf


class Looks:
    """The jobs of an account that run.

    Args:
        policy: How often to look at them.
        missing: Seconds to the next look at a job that the server does not know, each time.
    """

    def __init__(self, policy: PollPolicy, missing: Sequence[float]) -> None:
        self.eager: PollPolicy | None = None
        """How often to look while rows wait for a seat; `None` is as often as always."""
        self._policy = policy
        self._missing = missing
        self._cadence = Cadence(policy)
        self._jobs: dict[str, Look] = {}
        self._queue: list[tuple[float, int, Look]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, lipsync_id: str) -> bool:
        return lipsync_id in self._jobs

    def add(self, ticket: Ticket, lipsync_id: str, since: float, due: float) -> None:
        """Look at a job from *due* on; one that is known keeps its time, with the new ticket."""
        known = self._jobs.get(lipsync_id)
        if known is not None:
            known.ticket = ticket
            return
        look = self._jobs[lipsync_id] = Look(ticket, lipsync_id, since, due)
        self._push(look, due)

    def keep(self, lipsync_ids: set[str]) -> None:
        """Forget all jobs but these: the others were seen to end by somebody else."""
        for gone in self._jobs.keys() - lipsync_ids:
            self.forget(gone)

    def forget(self, lipsync_id: str) -> None:
        """Forget a job."""
        look = self._jobs.pop(lipsync_id, None)
        if look is not None:
            look.is_gone = True

    def notify(self, lipsync_id: str, now: float) -> bool:
        """Look at a job now, because a webhook arrived; return whether it is one of these."""
        look = self._jobs.get(lipsync_id)
        if look is None:
            return False
        if not look.is_taken:
            self._push(look, now)
        return True

    def first_interval(self, age: float) -> float:
        """Return the seconds to the first look at a job."""
        return self._cadence.interval([self.eager], age)

    def next_due(self) -> float:
        """Return when the next job is due; infinity if there is none."""
        while self._queue and not self._is_valid(self._queue[0]):
            heappop(self._queue)
        return self._queue[0][0] if self._queue else _NEVER

    def take(self, now: float) -> list[Look]:
        """Return the jobs of the next request, if one is due; `answered` or `failed` must follow."""
        taken: list[Look] = []
        room = MAX_STATUS_QUERY
        if self.next_due() > now:
            return taken
        while len(taken) < MAX_STATUS_IDS and self.next_due() < _NEVER:
            look = self._queue[0][2]
            room -= query_size(look.lipsync_id)
            if room < 0 and taken:
                break
            heappop(self._queue)
            look.is_taken = True
            taken.append(look)
        return taken

    def answered(
        self,
        looks: Sequence[Look],
        statuses: Mapping[str, LipsyncStatus | str | HeyGenError],
        now: float,
        jitter: float,
    ) -> list[Ended]:
        """Settle a request that was answered at *now*; return the jobs that have ended, or are given up.

        Args:
            looks: The jobs of the request.
            statuses: Their statuses, as far as the answer has them, or why one of them cannot be read.
            now: The time.
            jitter: The factor on the time to the next look, about 1.
        """
        ended = []
        for look in looks:
            status = statuses.get(look.lipsync_id)
            look.is_taken = False
            if look.is_gone:
                continue
            if isinstance(status, HeyGenError):
                ended += self.failed([look], status, now)
            elif status is None or status == LipsyncStatus.NOT_FOUND:
                ended += self._unknown(look, now)
            elif status in TERMINAL:
                self._cadence.learn(max(0.0, now - look.since))
                ended.append(self._end(look, status))
            else:
                self.running(look, now, jitter)
        return ended

    def running(self, look: Look, now: float, jitter: float) -> None:
        """Settle a job that runs: it is looked at later."""
        look.is_taken, look.failures, look.missing = False, NO_FAILURES, 0
        if self._is_wanted(look):
            self._push(look, now + jitter * self._cadence.interval([self.eager], max(0.0, now - look.since)))

    def _is_wanted(self, look: Look) -> bool:
        """Return whether a job is to be looked at again, though it seemed to have ended."""
        return not look.is_gone and self._jobs.setdefault(look.lipsync_id, look) is look

    def failed(self, looks: Sequence[Look], error: Exception, now: float) -> list[Ended]:
        """Settle a request that failed; return the jobs that are given up."""
        ended = []
        for look in looks:
            look.is_taken = False
            if not self._is_wanted(look):
                continue
            after = look.failures.after_error(error)
            if after is None:
                ended.append(self._end(look, "unknown", error))
            else:
                look.failures = after
                self._push(look, now + after.delay(self._policy))
        return ended

    def put_back(self, looks: Sequence[Look], now: float) -> None:
        """Settle a request that was not sent, or whose ends could not be saved: its jobs are due again."""
        for look in looks:
            look.is_taken = False
            if self._is_wanted(look):
                self._push(look, now)

    def _unknown(self, look: Look, now: float) -> list[Ended]:
        if look.missing >= len(self._missing):
            return [self._end(look, LipsyncStatus.NOT_FOUND)]
        look.missing += 1
        self._push(look, now + self._missing[look.missing - 1])
        return []

    def _end(self, look: Look, status: LipsyncStatus | str, error: Exception | None = None) -> Ended:
        self._jobs.pop(look.lipsync_id, None)
        return Ended(look, status, error)

    def _push(self, look: Look, due: float) -> None:
        look.due = due
        heappush(self._queue, (due, next(self._numbers), look))

    @staticmethod
    def _is_valid(entry: tuple[float, int, Look]) -> bool:
        due, _, look = entry
        return not look.is_gone and not look.is_taken and look.due == due


@define
class Reachability:
    """Whether the API can be reached from this process."""

    clock: Callable[[], float]
    """Seconds on a clock that does not go back."""
    _failing_since: float | None = field(default=None, init=False)

    def begin(self) -> None:
        """Note that a request leaves that is answered at once, if the API can be reached."""
        self.note(is_answered=False)

    def note(self, *, is_answered: bool) -> None:
        """Note a request that was answered, or had no usable answer."""
        if is_answered:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = self.clock()

    def is_unreachable(self, seconds: float) -> bool:
        """Return whether nothing has been answered for *seconds*, though there were requests."""
        return self._failing_since is not None and self.clock() - self._failing_since >= seconds
