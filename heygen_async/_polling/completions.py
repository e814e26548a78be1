"""One wait for many jobs."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from heygen_async._ids import segment
from heygen_async._polling.carriers import log_finished, ring
from heygen_async._polling.waiting import ManyWaiter, Outcome
from heygen_async.errors import AuthenticationError, HeyGenError, WaitTimeout
from heygen_async.models import Lipsync, LipsyncStatus

if TYPE_CHECKING:
    from heygen_async._polling.carriers import Carriers

_SLICE: Final = 500
"""How many ids are read from an iterable before the event loop has its turn."""


class Completions:
    """What `LipsyncPoller.as_completed` returns: jobs, each when it has ended.

    A step that is cancelled breaks off its requests and loses nothing; the next one goes on. (But without
    `async with`, cancelling one that still reads ids from an async iterable ends it all.) Without `async with`,
    requests that are on their way when you stop iterating come to their own end.
    """

    def __init__(self, carriers: Carriers, ids: Iterable[str] | AsyncIterable[str], *, timeout: float | None) -> None:
        self._carriers = carriers
        self._source = aiter(ids) if isinstance(ids, AsyncIterable) else iter(ids)
        self._timeout = timeout
        self._deadline: float | None = None
        self._waiter = ManyWaiter(math.inf)
        self._started: dict[str, float] = {}
        """When each id was first waited for."""
        self._errands: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._bug: BaseException | None = None
        self._stepping = False
        self._is_cut = False
        self._ended = False

    async def __aenter__(self) -> Self:
        if isinstance(self._source, AsyncIterator):
            self._reader = asyncio.get_running_loop().create_task(self._read_ids())
            self._reader.add_done_callback(self._reader_done)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop waiting, and break off the requests that are on their way."""
        tasks = self._end()
        if tasks:
            await asyncio.wait(tasks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Lipsync:
        if self._stepping:
            raise RuntimeError("as_completed() is being iterated by somebody else")
        if self._ended:
            raise StopAsyncIteration
        if self._is_cut:
            raise RuntimeError("the reading of ids was cancelled; iterate inside `async with` to be safe from that")
        self._stepping = True
        try:
            if not self._waiter.heard:
                await self._step()
        finally:
            self._stepping = False
        return self._next_result()

    async def _step(self) -> None:
        """Wait until there is a result, or nothing left to wait for."""
        scope = asyncio.timeout_at(self._set_deadline())
        try:
            async with scope:
                await self._attend()
        except TimeoutError:
            if not scope.expired():
                raise
            if self._waiter.heard:
                return
            pending = {awaited.id: awaited.status for awaited in self._waiter.pending.values()}
            self._end()
            raise WaitTimeout(None, pending=pending) from None

    def _set_deadline(self) -> float:
        now = self._carriers.now()
        if self._timeout is None:
            self._waiter.deadline = now + self._carriers.policy.longest
        elif self._deadline is None:
            self._deadline = self._waiter.deadline = now + self._timeout
        return self._waiter.deadline

    async def _attend(self) -> None:
        """Be there for the board, which hands errands to those who are."""
        board, waiter = self._carriers.board, self._waiter
        try:
            if self._reader is None:
                await self._read_here()
            board.enter(waiter)
            try:
                await self._until_heard()
            finally:
                board.exit(waiter)
        except asyncio.CancelledError:
            self._break_off()
            raise

    async def _read_here(self) -> None:
        # Not on the board as present yet: what is handed out meanwhile would not be carried.
        try:
            await self._read_ids()
        except asyncio.CancelledError:
            # It went through the source of ids, which, if it is an async generator, is at its end now.
            self._is_cut = isinstance(self._source, AsyncIterator)
            raise

    async def _until_heard(self) -> None:
        waiter = self._waiter
        self._carriers.turn()
        self._start_errands()
        while not waiter.heard and self._bug is None and (waiter.pending or self._reader):
            await self._carriers.serve(waiter)
            self._start_errands()

    def _start_errands(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiter.to_start:
            # A task for each, which ends with its request. It may outlive the step: else every slow answer would
            # be thrown away whenever a quick one comes first.
            task = loop.create_task(self._carriers.carry(self._waiter.to_start.popleft()))
            self._errands.add(task)
            task.add_done_callback(self._errand_done)

    def _errand_done(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        self._note_bug(task)

    def _reader_done(self, task: asyncio.Task[None]) -> None:
        self._reader = None
        self._note_bug(task)
        ring(self._waiter)

    def _note_bug(self, task: asyncio.Task[None]) -> None:
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            self._bug = self._bug or bug
            ring(self._waiter)

    async def _read_ids(self) -> None:
        """Join the board for every id. Broken off, it goes on where it was."""
        source = self._source
        if isinstance(source, AsyncIterator):
            async for lipsync_id in source:
                await self._add(lipsync_id)
        else:
            for lipsync_id in source:
                await self._add(lipsync_id)

    async def _add(self, lipsync_id: str) -> None:
        if lipsync_id in self._started:
            return
        self._started[lipsync_id] = now = self._carriers.now()
        self._join(lipsync_id, now)
        if self._reader is not None:
            self._carriers.turn()  # for a step may be waiting
        if len(self._started) % _SLICE == 0:
            await asyncio.sleep(0)

    def _join(self, lipsync_id: str, now: float) -> None:
        try:
            segment("lipsync_id", lipsync_id)
        except ValueError as error:
            self._waiter.heard.append((lipsync_id, _not_had(lipsync_id, error)))
        else:
            self._carriers.board.join(self._waiter, lipsync_id, now)

    def _next_result(self) -> Lipsync:
        if self._waiter.heard:
            return self._result(*self._waiter.heard.popleft())
        self._end()
        if self._bug is not None:
            raise self._bug
        raise StopAsyncIteration

    def _result(self, lipsync_id: str, outcome: Outcome) -> Lipsync:
        if isinstance(outcome, Lipsync):
            log_finished("lipsync", lipsync_id, outcome.status, self._carriers.clock() - self._started[lipsync_id])
            return outcome
        if isinstance(outcome, HeyGenError) and not isinstance(outcome, AuthenticationError):
            return _not_had(lipsync_id, outcome)
        self._end()
        raise again(outcome) from outcome

    def _break_off(self) -> None:
        """Break off all requests. Their ids are due now, for whoever is there."""
        for task in self._errands:
            task.cancel()
        self._carriers.board.drop(self._waiter, asyncio.get_running_loop().time())
        self._carriers.turn()

    def _end(self) -> set[asyncio.Task[None]]:
        """Leave the board for good; return the tasks that are coming to their end."""
        self._ended = True
        tasks = self._errands | ({self._reader} if self._reader else set())
        for task in tasks:
            task.cancel()
        self._carriers.board.leave_all(self._waiter, asyncio.get_running_loop().time())
        self._carriers.turn()
        ring(self._waiter)  # another task may be in the midst of a step
        return tasks


def _not_had(lipsync_id: str, error: Exception) -> Lipsync:
    return Lipsync(id=lipsync_id, status=LipsyncStatus.NOT_FOUND, failure_message=str(error))


def again(error: Exception) -> Exception:
    """Return a copy of *error* without its traceback, for each of those who share it to raise."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 a foreign exception may refuse to be copied in any way it likes
        return error
