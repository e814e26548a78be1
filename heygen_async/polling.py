"""Waiting for lipsyncs: any number of waits, a handful of requests, no task in the background.

Those who wait ask for each other. A timer wakes, for each chunk of ids that is due, one of their waiters, which
makes that request in its own task, tells the others, and goes back to waiting. What is asked, when, and who
carries it is decided in `_polling.board`; `_polling.carriers` does the waiting.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

from attrs import frozen

from heygen_async._arguments import check_timeout
from heygen_async._polling.carriers import Carriers, log_finished
from heygen_async._polling.completions import Completions, again
from heygen_async._polling.waiting import Awaited, LipsyncPage, Outcome, Place, Waiter
from heygen_async.errors import HeyGenError, LipsyncFailed, NotFound, WaitTimeout
from heygen_async.models import TERMINAL, Lipsync, LipsyncStatus
from heygen_async.policies import PollPolicy

__all__ = ("Completions", "LipsyncPoller", "PollerSnapshot", "WaitingFor")


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

    Attributes:
        policy: How often it looks.
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
        self.policy = policy or PollPolicy()
        self._carriers = Carriers(statuses=statuses, get=get, list_page=list_page, policy=self.policy, random=random)

    async def wait(
        self,
        lipsync_id: str,
        *,
        timeout: float | None = None,
        created_at: datetime | None = None,
        policy: PollPolicy | None = None,
    ) -> Lipsync:
        """Wait until a job has ended.

        Cancelling a wait disturbs nobody: a request that it carries for others is made again by one of them.

        Args:
            lipsync_id: The job.
            timeout: Seconds; `None` leaves it to `PollPolicy.longest`.
            created_at: When the job was created, if you know: how often it is looked at goes by its age.
            policy: How often to look at this job, if not as `policy` of the poller says. Of several waits for one
                job the most eager decides, from the next look on. Its `longest` and `max_bulk` do not count here.

        Returns:
            The completed lipsync, with its links.

        Raises:
            LipsyncFailed: The job failed.
            WaitTimeout: The time was up. The job goes on, and may be waited for again.
            NotFound: There is no such job.
            HeyGenError: Anything else that repeating the requests does not mend.
            RuntimeError: The session is closed, or belongs to another event loop.
        """
        waiter = self._newcomer(timeout, policy=policy)
        awaited = self._carriers.join(waiter, lipsync_id, created_at)
        scope: asyncio.Timeout | None = None
        try:
            # The policy's deadline is kept by the board: so ten thousand waits need no scope each.
            while waiter.soft and waiter.outcome is None:
                await self._carriers.serve(waiter)
            if waiter.outcome is None:
                async with asyncio.timeout_at(waiter.deadline) as scope:
                    while waiter.outcome is None:
                        await self._carriers.serve(waiter)
        except TimeoutError:
            if scope is None or not scope.expired():
                raise
            if waiter.outcome is None:
                raise WaitTimeout(lipsync_id, last_status=awaited.status) from awaited.failures.error
        finally:
            self._carriers.leave(waiter, awaited)
        self._log(lipsync_id, waiter)
        return _completed(waiter.outcome)

    async def updates(
        self, lipsync_id: str, *, created_at: datetime | None = None
    ) -> AsyncGenerator[LipsyncStatus | str, None]:
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
            awaited = self._carriers.join(waiter, lipsync_id, created_at)
            try:
                while waiter.outcome is None and (awaited.status == status or awaited.status in TERMINAL):
                    await self._carriers.serve(waiter)
            finally:
                self._carriers.leave(waiter, awaited)
            self._log(lipsync_id, waiter)
            status = _last_status(waiter.outcome) if waiter.outcome is not None else awaited.status
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
        check_timeout(timeout)
        return Completions(self._carriers, ids, timeout=timeout)

    def notify(self, lipsync_id: str) -> None:
        """Look at a job now, because there is word of it, such as a webhook's. Nothing if nobody waits for it.

        Call it from the event loop's own thread.
        """
        self._carriers.board.notify(lipsync_id)
        self._carriers.turn()

    def expect_notifications(self) -> None:
        """Leave it to `notify` to tell which jobs have ended, and look by itself only as `PollPolicy.with_webhooks`.

        It goes on for as long as `notify` is called. Once a job has ended without, and there was no call for any
        other job either while it was waited for, jobs are looked at as often as ever, until a call is heard again.
        """
        self._carriers.board.expect_notifications()

    def snapshot(self) -> PollerSnapshot:
        """Return who waits for what, what was last heard, and what is due. Call it from the event loop's thread."""
        board = self._carriers.board
        now = self._carriers.now()
        return PollerSnapshot(
            waiting={awaited.id: _waiting_for(awaited, now) for awaited in board.awaited()},
            bulk_requests=board.looks,
            has_statuses=board.has_statuses,
        )

    def close(self) -> None:
        """End every wait with a `RuntimeError`, now and from now on."""
        self._carriers.close()

    def _newcomer(self, timeout: float | None, *, watching: bool = False, policy: PollPolicy | None = None) -> Waiter:
        check_timeout(timeout)
        now = self._carriers.now()
        limit = self.policy.longest if timeout is None else timeout
        return Waiter(now + limit, started=now, soft=timeout is None, watching=watching, policy=policy)

    def _log(self, lipsync_id: str, waiter: Waiter) -> None:
        if isinstance(waiter.outcome, Lipsync):
            log_finished("lipsync", lipsync_id, waiter.outcome.status, self._carriers.clock() - waiter.started)


def _completed(outcome: Outcome) -> Lipsync:
    """Return the lipsync of a wait that ended well, or raise what it ended with."""
    if isinstance(outcome, Exception):
        raise again(outcome) from outcome
    if outcome.status == LipsyncStatus.FAILED:
        raise LipsyncFailed(outcome)
    if outcome.status == LipsyncStatus.NOT_FOUND:
        raise NotFound(f"there is no lipsync {outcome.id}", status=404, code="not_found")
    return outcome


def _last_status(outcome: Outcome) -> LipsyncStatus | str:
    if isinstance(outcome, Lipsync):
        return outcome.status
    if isinstance(outcome, NotFound):
        return LipsyncStatus.NOT_FOUND
    raise again(outcome) from outcome


def _waiting_for(awaited: Awaited, now: float) -> WaitingFor:
    return WaitingFor(
        status=awaited.status,
        waiters=len(awaited.waiters),
        age=now - awaited.born,
        due_in=None if awaited.place in {Place.IN_FLIGHT, Place.WANTED} else awaited.due - now,
        error=awaited.failures.error,
    )
