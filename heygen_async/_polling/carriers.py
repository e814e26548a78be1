"""The shell around the board: it waits, asks and rings, and decides nothing.

There is no task in here and none is started. Whoever waits lends its own: it sleeps on its bell until the board
has an errand for it or something to hear. One timer handle rings when something is due.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from heygen_async._ids import segment
from heygen_async._polling.board import Board
from heygen_async._polling.waiting import Awaited, Errand, LipsyncPage, Moment, Status, Waiter, Way
from heygen_async._text import one_line
from heygen_async.errors import HeyGenError
from heygen_async.models import Lipsync, LipsyncStatus

if TYPE_CHECKING:
    from heygen_async.policies import PollPolicy

AskStatuses: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, Status]]]
AskOne: TypeAlias = Callable[[str], Awaitable[Lipsync]]
AskPage: TypeAlias = Callable[[str | None], Awaitable[LipsyncPage]]

_logger: Final = logging.getLogger("heygen_async")

_CLOSED: Final = "the session is closed"

_JITTER: Final = 0.2
"""How wide the times to the next look are spread: a factor of 0.9 to 1.1."""

_WORDS: Final = 32
"""The most unknown statuses that are remembered, to log each of them once."""


class Carriers:
    """One board, the requests that it calls for, and the timer of what is due.

    Args:
        statuses: Makes one bulk status request for at most 100 ids.
        get: Gets one lipsync.
        list_page: Gets one page of the list, newest first; its argument is the cursor.
        policy: How often to look.
        random: Draws from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        *,
        statuses: AskStatuses,
        get: AskOne,
        list_page: AskPage,
        policy: PollPolicy,
        random: Callable[[], float],
    ) -> None:
        self.board = Board(policy)
        self.policy = policy
        self._statuses = statuses
        self._get = get
        self._list_page = list_page
        self._random = random
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = math.inf
        self._closed = False
        self._words: set[str] = set()

    def now(self) -> float:
        """Return the time, by the clock of the event loop that all waits share.

        Raises:
            RuntimeError: The session is closed, or in use by another event loop.
        """
        if self._closed:
            raise RuntimeError(_CLOSED)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("the session is in use by another event loop; make a session for each")
        return loop.time()

    def join(self, waiter: Waiter, lipsync_id: str, created_at: datetime | None = None) -> Awaited:
        """Let *waiter*, of one id, wait for *lipsync_id*; `leave` must follow."""
        segment("lipsync_id", lipsync_id)
        age = None if created_at is None else max(0.0, (datetime.now(UTC) - created_at).total_seconds())
        awaited = self.board.join(waiter, lipsync_id, self.now(), age=age)
        self.turn()
        return awaited

    def leave(self, waiter: Waiter, awaited: Awaited) -> None:
        """Let *waiter* go; what it carried is left to another."""
        self.board.leave(waiter, awaited, self.clock())
        self.turn()

    def serve(self, waiter: Waiter) -> Awaitable[None]:
        """Return what *waiter* is to await: its errand, or its bell until it has one, or something to hear.

        It is no coroutine, so that ten thousand that sleep need none for that.
        """
        if waiter.errand is not None:
            return self.carry(waiter.errand)
        waiter.bell = asyncio.get_running_loop().create_future()
        return waiter.bell

    async def carry(self, errand: Errand) -> None:
        """Make the request of *errand* and tell what came of it; cancelled, leave it to another."""
        settle: Callable[[Moment], None] = partial(self.board.give_back, errand)
        try:
            settle = await self._ask(errand)
        except HeyGenError as error:
            settle = partial(self.board.failed, errand, error)
        except Exception as bug:  # those who wait for these ids are told, or they would wait for ever
            settle = partial(self.board.failed, errand, bug)
            if not self._closed:  # for then it comes of that, and all have been told
                raise
        finally:
            settle(self._moment())
            self.turn()

    def turn(self) -> None:
        """Wake whom a change on the board concerns, and set the timer.

        Only the timer hands out what is due, even if it is due already: it comes after all that is ready to run,
        so that those who come together share a request.
        """
        if self._loop is None or self._loop.is_closed():
            return  # nobody is there to be woken
        for waiter in self.board.rung():
            ring(waiter)
        self._arm(self._loop, self.board.next_due())

    def close(self) -> None:
        """End every wait with a `RuntimeError`, now and from now on."""
        self._closed = True
        self.board.end_all(RuntimeError(_CLOSED), self.clock())
        self.turn()

    async def _ask(self, errand: Errand) -> Callable[[Moment], None]:
        """Make the request; return how to settle it. What is not an answer at all is found out here."""
        if errand.way is Way.LOOK:
            ids = errand.ids
            answer = await self._statuses(ids)
            words = {one: self._checked(answer[one]) for one in ids if one in answer}
            return partial(self.board.heard, errand, words)
        if errand.way is Way.FETCH:
            lipsync = await self._get(errand.ids[0])
            self._checked(lipsync.status)
            return partial(self.board.fetched, errand, lipsync)
        page = await self._list_page(errand.token)
        for lipsync in page.items:
            self._checked(lipsync.status)
        return partial(self.board.paged, errand, page)

    def _checked(self, status: Status) -> Status:
        if not isinstance(status, str):
            raise TypeError(f"a status is a string, not {status!r}")
        if not isinstance(status, LipsyncStatus) and status not in self._words and len(self._words) < _WORDS:
            self._words.add(status)
            _logger.warning("unknown lipsync status %r; it is not taken for an end", status)
        return status

    def _moment(self) -> Moment:
        spread = 1 + _JITTER * (self._random() - 0.5)
        return Moment(self.clock(), datetime.now(UTC), spread)

    def clock(self) -> float:
        """Return the time, after the session has been closed or its loop too."""
        # Of the loop at hand, not of the running one: a wait that was never finished is cleaned up after its loop.
        return 0.0 if self._loop is None else self._loop.time()

    def _arm(self, loop: asyncio.AbstractEventLoop, due: float | None) -> None:
        # A timer that fires early finds nothing to do and is set anew: for a later time there is no need of one.
        if due is not None and due >= self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._armed = None, math.inf
        if due is not None:
            self._armed = due
            # In a context of its own: the timer is nobody's, and must not keep anybody's context alive.
            self._timer = loop.call_at(due, self._tick, context=contextvars.Context())

    def _tick(self) -> None:
        # A loop may be early by as much as its clock is coarse.
        now = max(self.clock(), self._armed)
        self._timer, self._armed = None, math.inf
        self.board.take(now)
        self.turn()


def ring(waiter: Waiter) -> None:
    """Wake *waiter* if it sleeps."""
    if waiter.bell is not None and not waiter.bell.done():
        waiter.bell.set_result(None)


def log_finished(kind: str, id: str, status: Status, seconds: float) -> None:
    """Log that a wait for a job or a batch of *id* has ended, after *seconds*, with *status*."""
    if _logger.isEnabledFor(logging.INFO):
        _logger.info("%s %s: %s after %.1f s of waiting", kind, one_line(id[:255]), status, seconds)
