"""The queue before creates: which row may send its create next.

Every change of the limiter or the circuit breaker (an answer, the end of a job, the timer) moves the queue: the row
with the lowest number goes first, after failures the one with the fewest tries. A row with a time before which it may
not go is skipped until then.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from heygen_async.bulk.limits import CircuitBreaker, Limiter, Unanswered
from heygen_async.bulk.program import CreateAnswer
from heygen_async.bulk.run_aborted import RunAborted
from heygen_async.errors import HeyGenError


@define(eq=False)
class _QueuedRow:
    number: int
    not_before: float
    tries: int
    turn: asyncio.Future[int]


@define(eq=False)
class CreateQueue:
    """Rows that wait for their create."""

    limiter: Limiter
    breaker: CircuitBreaker
    last_error: str = ""
    """What went wrong when a request last had no usable answer."""
    answers: int = 0
    """How many creates had a usable answer."""
    _batches: int = 0
    """How many batches have been sent and have no answer; they need no seat."""
    _queue: list[_QueuedRow] = field(factory=list)
    _timer: asyncio.TimerHandle | None = None
    _closes_at: float | None = None
    """When `close` stops waiting for answers; a second call waits until the same time."""
    _empty: asyncio.Event = field(factory=asyncio.Event)

    def clock(self) -> float:
        """Return the time of the event loop, in seconds."""
        return asyncio.get_running_loop().time()

    async def enter(self, number: int, not_before: float = -math.inf, *, tries: int = 0) -> int:
        """Wait until a row may send its create, which then is in the air; return the epoch in which it is sent.

        Args:
            number: The number of the row: lower ones go first.
            not_before: The time before which it may not go.
            tries: How many of its creates had no usable answer. After failures, rows with fewer of them go first: it
                may be the row, and not the API, that gets no answer.
        """
        waiting = _QueuedRow(number, not_before, tries, asyncio.get_running_loop().create_future())
        insort(self._queue, waiting, key=lambda one: one.number)
        self.move()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
                self.move()  # the timer may have been set for this row alone
            elif waiting.turn.done() and not waiting.turn.cancelled():
                self.limiter.give_up()
                self.move()
            raise

    def note_answer(self) -> None:
        """Note that a request on which creates depend had a usable answer."""
        self.answers += 1
        self.breaker.success()

    def note_failure(self) -> None:
        """Note that a request on which creates depend had no usable answer."""
        self.breaker.failure(self.clock())

    def count_unanswered(self, before: Unanswered, error: HeyGenError) -> Unanswered:
        """Return the unanswered requests of a row after another one, which ended in *error*.

        Raises:
            RunAborted: If the API has answered no request for too long.
        """
        self.last_error = str(error)
        after = before.after(self.answers)
        if not after.is_too_many and self.breaker.is_hopeless(self.clock()):
            raise RunAborted(error)
        return after

    def recover(self) -> None:
        """Note that such a request was answered, and let creates go."""
        self.note_answer()
        self.move()

    async def wait_if_closed(self) -> None:
        """Return at once; after `close`, wait until cancelled."""
        if self._closes_at is not None:
            await asyncio.get_running_loop().create_future()

    @contextmanager
    def sending_batch(self) -> Iterator[None]:
        """Count a batch that is being sent."""
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            self._note_empty()

    async def close(self, grace: float) -> None:
        """Let no more creates go, and wait for the answers of those that were sent, at most *grace* seconds."""
        self._closes_at = self.clock() + grace if self._closes_at is None else self._closes_at
        if self._timer is not None:
            self._timer.cancel()
        self._note_empty()
        try:
            async with asyncio.timeout(max(0.0, self._closes_at - self.clock())):
                await self._empty.wait()
        except TimeoutError:
            pass

    @property
    def waiting(self) -> int:
        """How many rows wait for their create."""
        return len(self._queue)

    def seconds_to_next(self) -> float:
        """Return the seconds until a request may be sent again after failures."""
        return max(0.0, self.breaker.next_chance() - self.clock())

    def _note_empty(self) -> None:
        if self.limiter.in_air or self._batches:
            self._empty.clear()
        else:
            self._empty.set()

    def move(self) -> None:
        """Let the rows go that may go now."""
        self._note_empty()
        if self._closes_at is not None:
            return
        while self._queue and self._may_send():
            ready = self._next_ready()
            if ready is None:
                break
            self._queue.remove(ready)
            if not ready.turn.done():
                ready.turn.set_result(self.limiter.send())
        self._note_empty()
        self._arm()

    def _next_ready(self) -> _QueuedRow | None:
        now = self.clock()
        ready = (one for one in self._queue if one.not_before <= now)
        return min(ready, key=lambda one: one.tries, default=None) if self.breaker.failures else next(ready, None)

    def _may_send(self) -> bool:
        now = self.clock()
        return self.limiter.may_send(now) and self.breaker.may_send(now, in_air=self.limiter.in_air)

    def _arm(self) -> None:
        """Set the timer to when the next row may go if nothing else happens before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._next_chance()
        if when < math.inf:
            self._timer = asyncio.get_running_loop().call_at(when, self.move)

    def _next_chance(self) -> float:
        now = self.clock()
        held = [one.not_before for one in self._queue if one.not_before > now]
        if not self._queue or (self.limiter.in_air and self.breaker.failures):
            return math.inf
        ready = now if len(held) < len(self._queue) else min(held)
        chance = now if self.limiter.may_send(now) else self.limiter.next_chance()
        # At least a moment ahead: a loop may wake a timer early by as much as its clock is coarse.
        return max(ready, chance, self.breaker.next_chance() if self.breaker.failures else now, now + 0.001)


@define(eq=False)
class RowSeat:
    """The seat of a row. It is taken for a create that has no answer yet, or for a job that runs."""

    _queue: CreateQueue
    _number: int
    is_taken: bool = False
    _epoch: int = 0
    """What the limiter knew when the create left."""
    _not_before: float = 0.0

    async def take(self, tries: int) -> None:
        """Wait for a seat; *tries* is how many creates of the row had no usable answer."""
        self._epoch = await self._queue.enter(self._number, self._not_before, tries=tries)
        self.is_taken = True

    def adopt(self) -> None:
        """Take a seat for a job that exists already, unless one is taken."""
        if not self.is_taken:
            self._queue.limiter.adopt()
            self.is_taken = True

    def hold(self, seconds: float) -> None:
        """Let the row not take its next seat before *seconds* have passed."""
        self._not_before = self._queue.clock() + seconds

    def answered(self, answer: CreateAnswer, retry_after: float | None) -> None:
        """Report how the create was answered. The seat is kept only for a job."""
        queue = self._queue
        self.is_taken = answer == "accepted"
        if answer == "failed":
            queue.note_failure()
        else:
            queue.note_answer()
        match answer:
            case "accepted":
                queue.limiter.accept(queue.clock())
            case "refused":
                queue.limiter.refuse(self._epoch, queue.clock(), retry_after=retry_after)
            case "rejected" | "failed":
                queue.limiter.give_up()
        queue.move()

    def release(self, *, has_job: bool) -> None:
        """Give back the seat, if it is taken: after a job, or after a create that was not sent or was given up."""
        if not self.is_taken:
            return
        self.is_taken = False
        if has_job:
            self._queue.limiter.finish()
        else:
            self._queue.limiter.give_up()
        self._queue.move()
