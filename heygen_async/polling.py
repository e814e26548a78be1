"""Waiting for lipsyncs: any number of waits, a handful of requests, no task in the background.

Those who wait ask for each other. A timer handle wakes, for each chunk of ids that is due, one of its waiters,
which carries the request in its own task, tells the others, and goes back to waiting. What to ask, when, and
who carries it is decided in `_board`; this module waits, asks and rings.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import logging
import math
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from attrs import field, frozen

from heygen_async._board import (
    Awaited,
    Board,
    Errand,
    LipsyncPage,
    ManyWaiter,
    Moment,
    Outcome,
    Place,
    Waiter,
    Way,
)
from heygen_async.errors import AuthenticationError, HeyGenError, LipsyncFailed, NotFound, WaitTimeout
from heygen_async.models import TERMINAL, Lipsync, LipsyncStatus

__all__ = ("Completions", "LipsyncPoller", "PollPolicy", "PollerSnapshot", "WaitingFor")

_logger: Final = logging.getLogger("heygen_async.polling")

_JITTER: Final = 0.2
"""The width of the spread of the times between looks: 0.9 to 1.1."""

_SLICE: Final = 500
"""How many ids are read from an iterable before the event loop gets its turn."""

_CLOSED: Final = "the session is closed"

_WORDS: Final = 32
"""The most unknown statuses that are remembered, in order to log each once."""


def _check_positive(_policy: object, attribute: object, value: float) -> None:
    if not value > 0:
        name = getattr(attribute, "name", attribute)
        raise ValueError(f"{name} must be more than 0, not {value!r}")


@frozen(kw_only=True)
class PollPolicy:
    """How often to look at jobs that run.

    A job is looked at again after `growth` times its age, or times the length of a typical job if that is
    more, but never sooner than `fastest` nor later than `slowest`. So a result is seen late by a small share of
    the job's own length.

    Attributes:
        fastest: The shortest time between two looks at a job, seconds.
        growth: The share of a job's age that may pass between two looks.
        slowest: The longest time between two looks, seconds.
        longest: When a wait without a `timeout` ends, seconds.
        max_bulk: How many bulk status requests, of 100 jobs each, may be in the air at once.
    """

    fastest: float = field(default=1.0, validator=_check_positive)
    growth: float = field(default=0.03, validator=_check_positive)
    slowest: float = field(default=15.0, validator=_check_positive)
    longest: float = field(default=86400.0, validator=_check_positive)
    max_bulk: int = field(default=4, validator=_check_positive)

    def __attrs_post_init__(self) -> None:
        if self.fastest > self.slowest:
            raise ValueError(f"fastest ({self.fastest}) must not be more than slowest ({self.slowest})")

    @classmethod
    def eager(cls) -> Self:
        """Return the policy for a few short jobs that somebody is sitting in front of."""
        return cls(fastest=0.25, growth=0.01, slowest=2.0)

    @classmethod
    def gentle(cls) -> Self:
        """Return the policy for jobs that may take days, where minutes do not matter."""
        return cls(fastest=10.0, growth=0.05, slowest=300.0, longest=14 * 86400.0)

    def interval(self, age: float, typical: float) -> float:
        """Return the seconds to the next look at a job.

        Args:
            age: Seconds since the job was created.
            typical: How long such jobs take, in seconds; 0 if nothing is known of it.
        """
        return min(max(self.growth * max(age, typical), self.fastest), self.slowest)


@frozen(kw_only=True)
class WaitingFor:
    """One job that somebody waits for."""

    status: LipsyncStatus | str | None
    """What was last heard of it; `None` if nothing was."""
    waiters: int
    """How many calls wait for it."""
    age: float
    """Seconds since its creation, or since it was first waited for if that is not known."""
    due_in: float | None
    """Seconds to the next look, less than 0 if it is late; `None` while a request for it is on its way."""
    error: HeyGenError | None
    """What the last request met, if it did not come through."""


@frozen(kw_only=True)
class PollerSnapshot:
    """What a poller is about at one moment."""

    waiting: Mapping[str, WaitingFor]
    """By the job's id."""
    bulk_requests: int
    """How many bulk status requests are in the air."""
    has_statuses: bool
    """`False` once the account turned out not to have bulk status requests."""


class LipsyncPoller:
    """Waits for lipsyncs, all waits together with as few requests as will do.

    It has no task of its own: those who wait carry the requests, for one another. With nobody waiting nothing
    is sent. It may be made anywhere, and belongs to the event loop in which it is first waited on.

    Args:
        statuses: Makes one bulk status request for at most 100 ids.
        get: Gets one lipsync.
        list_page: Gets one page of the list, 100 lipsyncs, newest first; its argument is the cursor.
        policy: How often to look.
        random: Draws from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        *,
        statuses: Callable[[Sequence[str]], Awaitable[Mapping[str, LipsyncStatus | str]]],
        get: Callable[[str], Awaitable[Lipsync]],
        list_page: Callable[[str | None], Awaitable[LipsyncPage]],
        policy: PollPolicy | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._statuses = statuses
        self._get = get
        self._list_page = list_page
        self._policy = policy or PollPolicy()
        self._random = random
        self._board = Board(self._policy)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = math.inf
        self._closed = False
        self._words: set[str] = set()

    async def wait(
        self,
        lipsync_id: str,
        *,
        timeout: float | None = None,
        created_at: datetime | None = None,  # noqa: ASYNC109 a deadline over shared work
    ) -> Lipsync:
        """Wait until a job has ended.

        Cancelling a wait disturbs nobody: a request that it carries for others is made again by one of them.

        Args:
            lipsync_id: The job.
            timeout: Seconds; `None` leaves it to `PollPolicy.longest`.
            created_at: When the job was created, if you know: how often it is looked at goes by its age.

        Returns:
            The completed lipsync, with its links.

        Raises:
            LipsyncFailed: The job failed.
            WaitTimeout: The time was up. The job goes on, and may be waited for again.
            NotFound: There is no such job.
            HeyGenError: Anything else that repeating the requests does not mend.
            RuntimeError: The session is closed, or belongs to another event loop.
        """
        waiter = self._newcomer(timeout)
        awaited = self._join(waiter, lipsync_id, created_at)
        try:
            async with asyncio.timeout_at(None if waiter.soft else waiter.deadline) as scope:
                while waiter.outcome is None:
                    await self._serve(waiter)
        except TimeoutError:
            if not scope.expired():
                raise
            if waiter.outcome is None:
                raise WaitTimeout(lipsync_id, last_status=awaited.status) from awaited.error
        finally:
            self._leave(waiter, awaited)
        return _completed(lipsync_id, waiter.outcome)

    async def updates(
        self, lipsync_id: str, *, created_at: datetime | None = None
    ) -> AsyncIterator[LipsyncStatus | str]:
        """Yield the status of a job now and whenever it changes; end after the last, failed or not.

        Between two of them nothing is asked. Stop whenever you like.

        Args:
            lipsync_id: The job.
            created_at: When the job was created, if you know.

        Raises:
            WaitTimeout: It did not change for as long as `PollPolicy.longest`.
            HeyGenError: Anything that repeating the requests does not mend.
            RuntimeError: The session is closed, or belongs to another event loop.
        """
        status: LipsyncStatus | str | None = None
        awaited: Awaited | None = None  # held between the steps, so that the board remembers it
        while status not in TERMINAL:
            waiter = self._newcomer(None, watching=True)
            awaited = self._join(waiter, lipsync_id, created_at)
            try:
                while waiter.outcome is None and (awaited.status == status or awaited.status in TERMINAL):
                    await self._serve(waiter)
            finally:
                self._leave(waiter, awaited)
            status = _status(waiter.outcome) if waiter.outcome is not None else awaited.status
            if status is not None:
                yield status

    def as_completed(self, ids: Iterable[str] | AsyncIterable[str], *, timeout: float | None = None) -> Completions:
        """Wait for many jobs and yield each when it has ended, failed ones too.

        Iterate the result with `async for`. If you may stop early, put it into `async with`, which ends the
        requests that are still on their way. Requests are sent only while it is being waited on.

        Args:
            ids: The jobs. An id that comes twice is yielded once. All are read before the first is waited for;
                those of an async iterable, inside `async with`, alongside the waiting.
            timeout: Seconds for all of them, from the first step; `None` is `PollPolicy.longest` for each step.

        Returns:
            Yields a `Lipsync` for each id. One that cannot be had, such as an unknown id, comes with the status
            `not_found` and the reason as its `failure_message`.

        Raises:
            WaitTimeout: From a step, when the time was up; `.pending` has the rest and what is known of them.
            AuthenticationError: From a step: the key is refused.
            RuntimeError: From a step: the session is closed, or belongs to another event loop.
        """
        if isinstance(ids, str):
            raise TypeError("ids is one string; give a list of ids")
        return Completions(self, ids, timeout=timeout)

    def notify(self, lipsync_id: str) -> None:
        """Look at a job now, because there is word of it, such as a webhook's. Nothing if nobody waits for it.

        Call it from the event loop's own thread.
        """
        self._board.notify(lipsync_id)
        if self._loop is not None and not self._closed:
            self._turn()

    def snapshot(self) -> PollerSnapshot:
        """Return who waits for what, what was last heard, and what is due."""
        now = self._loop.time() if self._loop is not None else 0.0
        return PollerSnapshot(
            waiting={awaited.id: _waiting_for(awaited, now) for awaited in self._board.awaited()},
            bulk_requests=self._board.looks,
            has_statuses=self._board.has_statuses,
        )

    def close(self) -> None:
        """End every wait with a `RuntimeError`, now and from now on."""
        self._closed = True
        if self._loop is None or self._loop.is_closed():
            return
        self._board.end_all(RuntimeError(_CLOSED), self._loop.time())
        self._turn()

    # The shell: who calls here is in the event loop, and has joined or is about to.

    def _here(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise RuntimeError(_CLOSED)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("the session is in use by another event loop; make one session for each")
        return loop

    def _newcomer(self, timeout: float | None, *, watching: bool = False) -> Waiter:
        limit = self._policy.longest if timeout is None else timeout
        return Waiter(self._here().time() + limit, soft=timeout is None, watching=watching)

    def _join(self, waiter: Waiter, lipsync_id: str, created_at: datetime | None) -> Awaited:
        _check_id(lipsync_id)
        age = None if created_at is None else max(0.0, (datetime.now(UTC) - created_at).total_seconds())
        awaited = self._board.join(waiter, lipsync_id, self._here().time(), age=age)
        self._turn()
        return awaited

    def _leave(self, waiter: Waiter, awaited: Awaited) -> None:
        self._board.leave(waiter, awaited, asyncio.get_running_loop().time())
        self._turn()

    async def _serve(self, waiter: Waiter) -> None:
        """Carry the errand of *waiter*, or sleep until there is one or something to hear."""
        if waiter.errand is not None:
            await self._carry(waiter.errand)
        else:
            await self._sleep(waiter)

    async def _sleep(self, waiter: Waiter) -> None:
        waiter.bell = asyncio.get_running_loop().create_future()
        try:
            await waiter.bell
        finally:
            waiter.bell = None

    async def _carry(self, errand: Errand) -> None:
        """Make the request of *errand* and tell what came of it; cancelled, leave it to another."""
        settle: Callable[[Moment], None] = lambda at: self._board.give_back(errand, at.now)
        try:
            settle = await self._ask(errand)
        except HeyGenError as error:
            settle = self._failure(errand, error)
        except Exception as bug:  # told to those who wait for these ids, so that they do not wait for ever
            settle = self._failure(errand, bug)
            raise
        finally:
            settle(self._moment())
            self._turn()

    async def _ask(self, errand: Errand) -> Callable[[Moment], None]:
        if errand.way is Way.LOOK:
            answer = await self._statuses(errand.ids)
            words = {lipsync_id: self._word(answer[lipsync_id]) for lipsync_id in errand.ids if lipsync_id in answer}
            return lambda at: self._board.heard(errand, words, at)
        if errand.way is Way.FETCH:
            lipsync = await self._get(errand.ids[0])
            self._word(lipsync.status)
            return lambda at: self._board.fetched(errand, lipsync, at)
        page = await self._list_page(errand.token)
        return lambda at: self._board.paged(errand, page, at)

    def _failure(self, errand: Errand, error: Exception) -> Callable[[Moment], None]:
        return lambda at: self._board.failed(errand, error, at)

    def _word(self, status: LipsyncStatus | str) -> LipsyncStatus | str:
        if not isinstance(status, str):
            raise TypeError(f"a status is a string, not {status!r}")
        if not isinstance(status, LipsyncStatus) and len(self._words) < _WORDS and status not in self._words:
            self._words.add(status)
            _logger.warning("unknown lipsync status %r: taken for one that is not the last", status)
        return status

    def _moment(self) -> Moment:
        spread = 1.0 + _JITTER * (self._random() - 0.5)
        return Moment(asyncio.get_running_loop().time(), datetime.now(UTC), spread)

    def _turn(self) -> None:
        """Wake whom a change on the board concerns, and set the timer.

        Only the timer hands out what is due, also what is due already: it comes after all that is ready to run, so
        that those who come together share a request.
        """
        for waiter in self._board.rung():
            _ring(waiter)
        self._arm(self._board.next_due())

    def _arm(self, due: float | None) -> None:
        # A timer that fires early finds nothing to do and is set anew, so a later time needs no new one.
        if due is not None and due >= self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._armed = None, math.inf
        if due is not None:
            self._armed = due
            # In a context of its own, for the timer is nobody's and must not keep anybody's alive.
            self._timer = asyncio.get_running_loop().call_at(due, self._tick, context=contextvars.Context())

    def _tick(self) -> None:
        # A loop may be early by as much as its clock is coarse.
        now = max(asyncio.get_running_loop().time(), self._armed)
        self._timer, self._armed = None, math.inf
        self._board.take(now)
        self._turn()


class Completions:
    """What `LipsyncPoller.as_completed` returns: jobs, each when it has ended.

    A step that is cancelled ends its requests and loses nothing; the next one goes on. Without `async with`,
    requests that are on their way when you stop iterating come to their own end.
    """

    def __init__(
        self, poller: LipsyncPoller, ids: Iterable[str] | AsyncIterable[str], *, timeout: float | None
    ) -> None:
        self._poller = poller
        self._board = poller._board
        self._source = aiter(ids) if isinstance(ids, AsyncIterable) else iter(ids)
        self._read = False
        self._timeout = timeout
        self._waiter = ManyWaiter(math.inf)
        self._known: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._bug: BaseException | None = None
        self._stepping = False
        self._ended = False
        self._deadline: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        loop = self._poller._here()
        if isinstance(self._source, AsyncIterator):
            self._reader = loop.create_task(self._read_ids())
            self._reader.add_done_callback(self._reader_done)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop waiting, and end the requests that are on their way. Cancelled or not, nothing is left behind."""
        tasks = self._end()
        if tasks:
            await asyncio.wait(tasks)

    async def __anext__(self) -> Lipsync:
        if self._stepping:
            raise RuntimeError("as_completed is already being waited on")
        if self._ended:
            raise StopAsyncIteration
        self._stepping = True
        try:
            if not self._waiter.heard:
                await self._step()
        finally:
            self._stepping = False
        return self._pass_on()

    async def _step(self) -> None:
        """Wait until there is a result, or nothing left to wait for."""
        try:
            async with asyncio.timeout_at(self._limit()) as scope:
                try:
                    if self._reader is None:
                        await self._read_ids()
                    while self._board.unpark(self._waiter):
                        await asyncio.sleep(0)
                    await self._attend()
                except asyncio.CancelledError:
                    self._drop()
                    raise
        except TimeoutError:
            if not scope.expired():
                raise
            if not self._waiter.heard:
                pending = {lipsync_id: awaited.status for lipsync_id, awaited in self._waiter.pending.items()}
                self._end()
                raise WaitTimeout(None, pending=pending) from None

    async def _attend(self) -> None:
        """Be there for the board, which hands out errands to whoever is."""
        waiter = self._waiter
        self._board.enter(waiter)
        try:
            self._poller._turn()
            while True:
                self._start_errands()
                if waiter.heard or self._bug is not None or not (waiter.pending or self._reader):
                    return
                await self._poller._sleep(waiter)
        finally:
            self._board.exit(waiter)
            self._poller._turn()

    def _limit(self) -> float:
        now = self._poller._here().time()
        if self._timeout is None:
            return now + self._poller._policy.longest
        if self._deadline is None:
            self._deadline = self._waiter.deadline = now + self._timeout
        return self._deadline

    async def _read_ids(self) -> None:
        """Join the board for every id; it can be broken off and gone on with."""
        source = self._source
        if isinstance(source, AsyncIterator):
            async for lipsync_id in source:
                self._add(lipsync_id)
        else:
            for count, lipsync_id in enumerate(source, start=1):
                self._add(lipsync_id)
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
        self._source = iter(())

    def _add(self, lipsync_id: str) -> None:
        _check_id(lipsync_id)
        if lipsync_id not in self._known:
            self._known.add(lipsync_id)
            self._board.join(self._waiter, lipsync_id, self._poller._here().time())
            self._poller._turn()

    def _start_errands(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiter.to_start:
            # Each ends with its one request. It may outlive the step that started it, so that a slow answer is
            # not thrown away whenever a fast one comes first.
            task = loop.create_task(self._poller._carry(self._waiter.to_start.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._errand_done)

    def _errand_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._note_bug(task)

    def _reader_done(self, task: asyncio.Task[None]) -> None:
        self._reader = None
        self._note_bug(task)
        _ring(self._waiter)

    def _note_bug(self, task: asyncio.Task[None]) -> None:
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            self._bug = self._bug or bug
            _ring(self._waiter)

    def _pass_on(self) -> Lipsync:
        if self._waiter.heard:
            lipsync_id, outcome = self._waiter.heard.popleft()
            if isinstance(outcome, Lipsync):
                return outcome
            if isinstance(outcome, HeyGenError) and not isinstance(outcome, AuthenticationError):
                return Lipsync(id=lipsync_id, status=LipsyncStatus.NOT_FOUND, failure_message=str(outcome))
            self._end()
            raise _again(outcome) from outcome
        self._end()
        if self._bug is not None:
            raise self._bug
        raise StopAsyncIteration

    def _drop(self) -> None:
        """Break off all requests; the ids are due now, for whoever is there."""
        for task in self._tasks:
            task.cancel()
        self._board.drop(self._waiter, self._now())
        self._poller._turn()

    def _end(self) -> set[asyncio.Task[None]]:
        """Leave the board for good; return the tasks that are about to end."""
        self._ended = True
        tasks = set(self._tasks)
        if self._reader is not None:
            tasks.add(self._reader)
        for task in tasks:
            task.cancel()
        if self._waiter.pending or self._waiter.carried:
            self._board.leave_all(self._waiter, self._now())
            self._poller._turn()
        return tasks

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _ring(waiter: Waiter) -> None:
    if waiter.bell is not None and not waiter.bell.done():
        waiter.bell.set_result(None)


def _check_id(lipsync_id: str) -> None:
    if not isinstance(lipsync_id, str):
        raise TypeError(f"a lipsync id is a string, not {lipsync_id!r}")
    if not lipsync_id:
        raise ValueError("a lipsync id must not be empty")


def _again(error: Exception) -> Exception:
    """Return a copy of *error* without traceback, for each of those who share it raises it anew."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 a foreign exception may refuse to be copied in any way it likes
        return error


def _completed(lipsync_id: str, outcome: Outcome | None) -> Lipsync:
    """Return the lipsync of a wait that ended well, or raise what it ended with."""
    if isinstance(outcome, Exception):
        raise _again(outcome) from outcome
    assert outcome is not None
    if outcome.status == LipsyncStatus.FAILED:
        raise LipsyncFailed(outcome)
    if outcome.status == LipsyncStatus.NOT_FOUND:
        raise NotFound(f"there is no lipsync {lipsync_id}", status=404, code="not_found")
    return outcome


def _status(outcome: Outcome) -> LipsyncStatus | str:
    if isinstance(outcome, Lipsync):
        return outcome.status
    if isinstance(outcome, NotFound):
        return LipsyncStatus.NOT_FOUND
    raise _again(outcome) from outcome


def _waiting_for(awaited: Awaited, now: float) -> WaitingFor:
    return WaitingFor(
        status=awaited.status,
        waiters=len(awaited.waiters),
        age=now - awaited.born,
        due_in=None if awaited.place is Place.IN_FLIGHT else awaited.due - now,
        error=awaited.error,
    )
