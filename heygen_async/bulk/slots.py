"""Who may send the next create: the limiter and the weather, with a queue of rows before them.

Who wakes whom: whatever changes the limiter or the weather (an answer, a completion, the timer) lets the queue move,
the row with the lowest number first. A row that was told to wait is passed over until it may go.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from heygen_async.bulk.limits import Limiter, Weather


@define(eq=False)
class _Waiting:
    number: int
    not_before: float
    turn: asyncio.Future[int]


@define(eq=False)
class Slots:
    """The way to a create.

    Each `enter` is paid back by one of `accepted`, `refused`, `answered`, `troubled` and `dropped`; each job, accepted
    or adopted, by `finished`.
    """

    limiter: Limiter
    weather: Weather
    clock: Callable[[], float]
    last_trouble: str = ""
    """What went wrong when a request was last not answered."""
    answers: int = 0
    """How many creates had a usable answer."""
    batches: int = 0
    """How many batches are on their way to the server, which no seat is needed for."""
    _queue: list[_Waiting] = field(factory=list)
    _timer: asyncio.TimerHandle | None = None
    _is_closed: bool = False
    _empty: asyncio.Event = field(factory=asyncio.Event)

    async def enter(self, number: int, not_before: float = -math.inf) -> int:
        """Wait until a row may send its create; return what `refused` wants to know.

        Args:
            number: Which row: those with lower numbers go first.
            not_before: When it may go at the earliest.
        """
        waiting = _Waiting(number, not_before, asyncio.get_running_loop().create_future())
        insort(self._queue, waiting, key=lambda one: one.number)
        self._move()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            elif waiting.turn.done() and not waiting.turn.cancelled():
                self.dropped()
            raise

    def accepted(self) -> None:
        """The create made a job."""
        self._answered()
        self.limiter.accept(self.clock())
        self._move()

    def refused(self, lesson: int, retry_after: float | None) -> None:
        """The create was answered 429."""
        self._answered()
        self.limiter.refuse(lesson, self.clock(), retry_after=retry_after)
        self._move()

    def answered(self) -> None:
        """The create was refused for another reason."""
        self._answered()
        self.dropped()

    def troubled(self) -> None:
        """The create had no usable answer."""
        self.trouble()
        self.dropped()

    def trouble(self) -> None:
        """Another request, on which creates depend, had no usable answer."""
        self.weather.troubled(self.clock())

    def relief(self) -> None:
        """Another request, on which creates depend, had its answer."""
        self._answered()
        self._move()

    def dropped(self) -> None:
        """The create was not sent, or was given up."""
        self.limiter.give_up()
        self._move()

    def adopt(self) -> None:
        """There is a job of an earlier run."""
        self.limiter.adopt()

    def finished(self) -> None:
        """A job has ended, or is not waited for any more."""
        self.limiter.finish()
        self._move()

    @contextmanager
    def batch_in_air(self) -> Iterator[None]:
        """Note that a batch is on its way while this is entered."""
        self.batches += 1
        try:
            yield
        finally:
            self.batches -= 1
            self._note_air()

    async def close(self, grace: float) -> None:
        """Let no create leave any more, and wait for those in the air, but no longer than *grace* seconds."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._note_air()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            pass

    @property
    def wanted(self) -> int:
        """How many rows wait for their create."""
        return len(self._queue)

    def _answered(self) -> None:
        self.answers += 1
        self.weather.answered()

    def _note_air(self) -> None:
        (self._empty.clear if self.limiter.in_air or self.batches else self._empty.set)()

    def _move(self) -> None:
        self._note_air()
        if self._is_closed:
            return
        while self._queue and self._may_send():
            ready = next((one for one in self._queue if one.not_before <= self.clock()), None)
            if ready is None:
                break
            self._queue.remove(ready)
            if not ready.turn.done():
                ready.turn.set_result(self.limiter.send())
        self._note_air()
        self._arm()

    def _may_send(self) -> bool:
        now = self.clock()
        return self.limiter.may_send(now) and self.weather.may_send(now, in_air=self.limiter.in_air)

    def _arm(self) -> None:
        """Look again when the next row may go, if nothing else happens before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._next_chance()
        if when < math.inf:
            self._timer = asyncio.get_running_loop().call_at(when, self._move)

    def _next_chance(self) -> float:
        now = self.clock()
        held = [one.not_before for one in self._queue if one.not_before > now]
        if not self._queue or (self.limiter.in_air and self.weather.troubles):
            return math.inf
        ready = now if len(held) < len(self._queue) else min(held)
        chance = now if self.limiter.may_send(now) else self.limiter.next_chance()
        # At least a moment ahead: a loop may wake a timer early by as much as its clock is coarse.
        return max(ready, chance, self.weather.next_chance() if self.weather.troubles else now, now + 0.001)
