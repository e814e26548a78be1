"""One wait for many jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Final, Self, cast

from heygen_async._arguments import built_in
from heygen_async._ids import segment
from heygen_async.errors import AuthenticationError, HeyGenError, WaitTimeout, copy_of
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.polling.requests import Dispatcher, log_finished, wake
from heygen_async.polling.waiters import ManyWaiter, WaitResult

_SLICE: Final = 500
"""How many ids are read from an iterable before the event loop has its turn."""


class Completions:
    """What `LipsyncPoller.as_completed` returns: an async iterator over jobs in order of completion.

    Cancelling a step cancels its requests and loses no result; the next step continues. (Without `async with`,
    cancelling a step that still reads ids from an async iterable ends the iteration.) Without `async with`, requests
    in flight when you stop iterating run to their own end.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        ids: Iterable[str] | AsyncIterable[str],
        *,
        timeout: float | None,
        created_at: datetime | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._source: Iterator[str] | AsyncIterator[str] = aiter(ids) if isinstance(ids, AsyncIterable) else iter(ids)
        self._listed: Iterable[object] = ids if isinstance(ids, Collection) else ()  # others can be read only once
        self._timeout = timeout
        self._created_at = created_at
        self._deadline: float | None = None
        self._waiter = ManyWaiter(math.inf)
        self._started: dict[str, float] = {}
        """When the wait for each id began."""
        self._requests: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._bug: BaseException | None = None
        self._is_stepping = False
        self._is_cut = False
        self._has_ended = False

    async def __aenter__(self) -> Self:
        if isinstance(self._source, AsyncIterator):
            self._reader = asyncio.get_running_loop().create_task(self._read_ids())
            self._reader.add_done_callback(self._on_reader_done)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop waiting, cancel the requests in flight, and wait until they have ended.

        It raises no error of theirs, and a second call does nothing. If cancelled, they end all the same.
        """
        tasks = self._end()
        if tasks:
            await asyncio.wait(tasks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Lipsync:
        if self._is_stepping:
            raise RuntimeError("as_completed() is already being iterated by another task")
        if self._has_ended:
            raise StopAsyncIteration
        if self._is_cut:
            raise RuntimeError("reading the ids was cancelled; use `async with` to make that safe")
        self._is_stepping = True
        try:
            if not self._waiter.results:
                await self._step()
        finally:
            self._is_stepping = False
        return self._next_result()

    async def _step(self) -> None:
        """Wait until there is a result, or nothing left to wait for."""
        scope = asyncio.timeout_at(self._set_deadline())
        try:
            async with scope:
                await self._work()
        except TimeoutError:
            if not scope.expired():
                raise
            if self._waiter.results:
                return
            pending = self._pending()
            self._end()
            raise WaitTimeout(None, pending=pending) from None

    def _pending(self) -> dict[str, str | None]:
        """Return the last status of each job that has not ended, those included of which the ids were not read yet."""
        pending: dict[str, str | None] = {job.id: job.status for job in self._waiter.pending.values()}
        unread = (built_in(one) for one in self._listed if isinstance(one, str) and one not in self._started)
        return {**pending, **dict.fromkeys(cast("Iterable[str]", unread))}

    def _set_deadline(self) -> float:
        now = self._dispatcher.open()
        if self._timeout is None:
            self._waiter.deadline = now + self._dispatcher.policy.longest
        elif self._deadline is None:
            self._deadline = self._waiter.deadline = now + self._timeout
        return self._waiter.deadline

    async def _work(self) -> None:
        """Read the ids, then be there for the board, which assigns requests to active waiters."""
        board, waiter = self._dispatcher.board, self._waiter
        try:
            if self._reader is None and self._bug is None:
                await self._read_here()
            board.resume(waiter)
            self._dispatcher.iterating.add(waiter)
            try:
                await self._until_result()
            finally:
                self._dispatcher.iterating.discard(waiter)
                board.pause(waiter)
        except asyncio.CancelledError:
            self._cancel_requests()
            raise

    async def _read_here(self) -> None:
        # The waiter is not active yet: requests assigned meanwhile would not be sent.
        try:
            await self._read_ids()
        except asyncio.CancelledError:
            # The cancellation went through the source of ids, which, if it is an async generator, has ended by it.
            self._is_cut = isinstance(self._source, AsyncIterator)
            raise

    async def _until_result(self) -> None:
        waiter = self._waiter
        self._dispatcher.update()
        self._start_requests()
        while not waiter.results and self._bug is None and (waiter.pending or self._reader):
            self._dispatcher.open()  # raises if the session was closed meanwhile
            await self._dispatcher.serve(waiter)
            self._start_requests()

    def _start_requests(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiter.to_start:
            # A task for each, which ends with its request. It may outlive the step: otherwise every slow answer would
            # be discarded whenever a quick one comes first.
            task = loop.create_task(self._dispatcher.send(self._waiter.to_start.popleft()))
            self._requests.add(task)
            task.add_done_callback(self._on_request_done)

    def _on_request_done(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._note_bug(task)

    def _on_reader_done(self, task: asyncio.Task[None]) -> None:
        self._reader = None
        self._note_bug(task)
        wake(self._waiter)

    def _note_bug(self, task: asyncio.Task[None]) -> None:
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            self._bug = self._bug or bug
            wake(self._waiter)

    async def _read_ids(self) -> None:
        """Wait for every id of the source. If cancelled, the next call continues."""
        source = self._source
        if isinstance(source, AsyncIterator):
            async for lipsync_id in source:
                await self._add(lipsync_id)
        else:
            for lipsync_id in source:
                await self._add(lipsync_id)
        self._source = iter(())  # each step reads on: a queue with a mark at its end, for instance, would wait for ever

    async def _add(self, given: str) -> None:
        lipsync_id = cast("str", built_in(given))
        if lipsync_id in self._started:
            return
        self._started[lipsync_id] = now = self._dispatcher.open()
        self._join(lipsync_id, now)
        if self._reader is not None:
            self._dispatcher.update()  # a step may be waiting
        if len(self._started) % _SLICE == 0:
            await asyncio.sleep(0)

    def _join(self, lipsync_id: str, now: float) -> None:
        try:
            segment("lipsync_id", lipsync_id)
        except ValueError as error:
            self._waiter.results.append((lipsync_id, _unavailable(lipsync_id, error)))
            wake(self._waiter)  # the board knows nothing of it
        else:
            self._dispatcher.board.join(self._waiter, lipsync_id, now, age=self._dispatcher.age(self._created_at))

    def _next_result(self) -> Lipsync:
        if self._waiter.results:
            return self._result(*self._waiter.results.popleft())
        self._end()
        if self._bug is not None:
            raise self._bug
        raise StopAsyncIteration

    def _result(self, lipsync_id: str, result: WaitResult) -> Lipsync:
        if isinstance(result, Lipsync):
            log_finished("lipsync", lipsync_id, result.status, self._dispatcher.time() - self._started[lipsync_id])
            return result
        if isinstance(result, HeyGenError) and not isinstance(result, AuthenticationError):
            return _unavailable(lipsync_id, result)
        self._end()
        raise copy_of(result) from result

    def _cancel_requests(self) -> None:
        """Cancel all requests. Their jobs are due now, for whichever waiter is active."""
        for task in self._requests:
            task.cancel()
        self._dispatcher.board.cancel_requests(self._waiter, asyncio.get_running_loop().time())
        self._dispatcher.update()

    def _end(self) -> set[asyncio.Task[None]]:
        """End the iteration and leave the board; return the tasks that were cancelled."""
        self._has_ended = True
        tasks = self._requests | ({self._reader} if self._reader else set())
        for task in tasks:
            task.cancel()
        self._dispatcher.board.leave_all(self._waiter, asyncio.get_running_loop().time())
        self._dispatcher.update()
        wake(self._waiter)  # another task may be in a step
        return tasks


def _unavailable(lipsync_id: str, error: Exception) -> Lipsync:
    return Lipsync(id=lipsync_id, status=LipsyncStatus.NOT_FOUND, failure_message=str(error))
