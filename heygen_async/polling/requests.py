"""The I/O around the board: it sends the requests, wakes the waiters and sets the timer, and decides nothing.

No task is started here. A request is sent in the task of a waiter, which otherwise sleeps until the board has a request
for it to send, or a result. One timer handle fires when something is due.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeAlias
from weakref import WeakSet

from heygen_async._arguments import check_moment, shown
from heygen_async._ids import segment
from heygen_async._text import one_line
from heygen_async.errors import CLOSED, HeyGenError
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.policies import PollPolicy
from heygen_async.polling.board import Board
from heygen_async.polling.cadence import jitter
from heygen_async.polling.waiters import (
    Job,
    JobState,
    LipsyncPage,
    ManyWaiter,
    Now,
    RequestKind,
    Status,
    StatusRequest,
    Waiter,
)

GetStatuses: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, Status]]]
GetLipsync: TypeAlias = Callable[[str], Awaitable[Lipsync]]
GetPage: TypeAlias = Callable[[str | None], Awaitable[LipsyncPage]]

_logger: Final = logging.getLogger("heygen_async")

_MAX_UNKNOWN: Final = 32
"""The most unknown statuses that are remembered, to log each of them once."""

_in_use: Final[WeakSet[Dispatcher]] = WeakSet()
"""Those that are bound to an event loop. Not their loops: a closed one may hold its dispatchers, and would be kept."""


class Dispatcher:
    """One board, the requests that it assigns, and the timer of what is due.

    Args:
        statuses: Sends one bulk status request for at most 100 ids.
        get: Gets one lipsync.
        list_page: Gets one page of the list, newest first; its argument is the cursor.
        policy: How often to look.
        random: Returns random numbers from 0 to 1, for the jitter.
        now: Returns Unix time in seconds, by the clock of the API.
    """

    def __init__(
        self,
        *,
        statuses: GetStatuses,
        get: GetLipsync,
        list_page: GetPage,
        policy: PollPolicy,
        random: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.board = Board(policy)
        self.policy = policy
        self.iterating: Final[set[ManyWaiter]] = set()
        """The waiters of many jobs that are in a step."""
        self._statuses = statuses
        self._get = get
        self._list_page = list_page
        self._random = random
        self._unix_time = now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closed = False
        self._unknown: set[str] = set()

    @staticmethod
    def in_use() -> list[Dispatcher]:
        """Return those of the running event loop: the pytest plugin reaches the waits of every session here."""
        loop = asyncio.get_running_loop()
        return [dispatcher for dispatcher in _in_use if dispatcher._loop is loop]  # noqa: SLF001 of its own class

    def open(self) -> float:
        """Bind to the running event loop on first use, and return its time.

        Raises:
            RuntimeError: The session is closed, or in use by another event loop.
        """
        if self._closed:
            raise RuntimeError(CLOSED)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            _in_use.add(self)
        if self._loop is not loop:
            raise RuntimeError("the session is in use by another event loop; make a session for each")
        return loop.time()

    def look_at_ended(self, ended: Container[str]) -> None:
        """Look now at the jobs that wait for their next look though they have ended, as the caller knows."""
        for job in self.board.jobs():
            if job.id in ended and job.state is JobState.QUEUED and not job.notified:
                self.board.notify(job.id, self.time())
        self.update()

    def time(self) -> float:
        """Return the time on the clock that all waits share, even after the session or its loop was closed."""
        return 0.0 if self._loop is None else self._loop.time()

    def join(self, waiter: Waiter, lipsync_id: str, created_at: datetime | None = None) -> Job:
        """Let *waiter*, of one job, wait for *lipsync_id*; `leave` must follow."""
        job = self.board.join(waiter, segment("lipsync_id", lipsync_id), self.open(), age=self.age(created_at))
        self.update()
        return job

    def age(self, created_at: datetime | None) -> float | None:
        """Return how old in seconds a job is that was created at *created_at*, if that is known."""
        check_moment("created_at", created_at)
        return None if created_at is None else max(0.0, (self._wall() - created_at).total_seconds())

    def leave(self, waiter: Waiter, job: Job) -> None:
        """Remove *waiter*; a request that it had is sent by another."""
        self.board.leave(waiter, job, self.time())
        self.update()

    def serve(self, waiter: Waiter) -> Awaitable[None]:
        """Return what *waiter* is to await: its request, or a future until it has a request or a result.

        This is no coroutine, so that ten thousand sleeping waiters need none.
        """
        if waiter.request is not None:
            return self.send(waiter.request)
        waiter.wakeup = asyncio.get_running_loop().create_future()
        return waiter.wakeup

    async def send(self, request: StatusRequest) -> None:
        """Send *request* and settle it with what comes of it; if cancelled, leave it to another waiter."""
        settle: Callable[[Now], None] | None = None
        try:
            settle = await self._answer(request)
        except HeyGenError as error:
            settle = partial(self.board.on_error, request, error)
        except Exception as bug:  # given to the waiters of these jobs, which would wait for ever
            settle = partial(self.board.on_error, request, bug)
            if not self._closed:  # if it is closed, this is why, and everybody has that error
                raise
        finally:
            if settle is None:
                self.board.on_cancelled(request, self.time())
            else:
                settle(self._now())
            self.update()

    def update(self) -> None:
        """Wake the waiters that a change on the board concerns, and set the timer.

        Only the timer assigns what is due, even if it is due already: it fires after everything that is ready to
        run, so that calls that start together share a request.
        """
        if self._loop is None or self._loop.is_closed():
            return  # there is no waiter to wake
        for waiter in self.board.take_ready():
            wake(waiter)
        self._set_timer(self._loop, self.board.next_due())

    def close(self) -> None:
        """End every wait with a `RuntimeError`, now and from now on."""
        self._closed = True
        self.board.end_all(RuntimeError(CLOSED), self.time())
        self.update()
        for waiter in self.iterating:  # those without a job on the board, too: they wait for their source of ids
            wake(waiter)

    async def _answer(self, request: StatusRequest) -> Callable[[Now], None]:
        """Send the request; return how to settle it. An answer of a wrong type is found out here."""
        if request.kind is RequestKind.STATUSES:
            ids = request.ids
            answer = await self._statuses(ids)
            statuses = {one: self._checked(answer[one]) for one in ids if one in answer}
            return partial(self.board.on_statuses, request, statuses)
        if request.kind is RequestKind.LIPSYNC:
            lipsync = await self._get(request.ids[0])
            self._checked(lipsync.status)
            return partial(self.board.on_lipsync, request, lipsync)
        page = await self._list_page(request.token)
        for lipsync in page.items:
            self._checked(lipsync.status)
        return partial(self.board.on_page, request, page)

    def _checked(self, status: Status) -> Status:
        if not isinstance(status, str):
            raise TypeError(f"a status is a string, not {status!r}")
        if not isinstance(status, LipsyncStatus) and status not in self._unknown and len(self._unknown) < _MAX_UNKNOWN:
            self._unknown.add(status)
            _logger.warning("unknown lipsync status %s; the wait goes on", shown(status))
        return status

    def _wall(self) -> datetime:
        return datetime.fromtimestamp(self._unix_time(), UTC)

    def _now(self) -> Now:
        return Now(self.time(), self._wall(), jitter(self._random()))

    def _set_timer(self, loop: asyncio.AbstractEventLoop, due: float | None) -> None:
        # A timer that fires early finds nothing to do and is set again: for a later time it need not be replaced.
        if due is not None and due >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf
        if due is not None:
            self._timer_at = due
            # In an empty context: the timer belongs to no call, and must keep no context alive.
            self._timer = loop.call_at(due, self._on_timer, context=contextvars.Context())

    def _on_timer(self) -> None:
        # A loop may be early by the resolution of its clock.
        now = max(self.time(), self._timer_at)
        self._timer, self._timer_at = None, math.inf
        self.board.start_due(now)
        self.update()


def wake(waiter: Waiter) -> None:
    """Wake *waiter* if it sleeps."""
    if waiter.wakeup is not None and not waiter.wakeup.done():
        waiter.wakeup.set_result(None)


def log_finished(kind: str, id: str, status: Status, seconds: float) -> None:
    """Log that a wait of *seconds* has seen the end of a job or a batch."""
    if _logger.isEnabledFor(logging.INFO):
        _logger.info("%s %s: %s after %.1f s of waiting", kind, one_line(id[:255]), status, seconds)
