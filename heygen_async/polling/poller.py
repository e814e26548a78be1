"""The public poller."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

from attrs import frozen

from heygen_async._arguments import check_moment, check_timeout, check_type
from heygen_async.errors import HeyGenError, LipsyncFailed, NotFound, WaitTimeout, copy_of
from heygen_async.models import TERMINAL, Lipsync, LipsyncStatus
from heygen_async.policies import PollPolicy
from heygen_async.polling.completions import Completions
from heygen_async.polling.requests import Dispatcher, log_finished
from heygen_async.polling.waiters import Job, JobState, LipsyncPage, Waiter, WaitResult

__all__ = ("LipsyncPoller", "PollerSnapshot", "WaitingFor")


@frozen(kw_only=True)
class WaitingFor:
    """One job that is waited for."""

    status: LipsyncStatus | str | None
    """Its last known status; `None` if there is none yet."""
    waiters: int
    """How many calls wait for it."""
    age: float
    """Seconds since its creation, or since the first wait if that is not known."""
    due_in: float | None
    """Seconds until the next look, below 0 if it is late; `None` while a request for it is in flight."""
    error: HeyGenError | None
    """What the last request failed with; `None` if it was answered."""


@frozen(kw_only=True)
class PollerSnapshot:
    """The state of a poller at one moment."""

    waiting: Mapping[str, WaitingFor]
    """The jobs that are waited for, by id."""
    bulk_requests: int
    """How many bulk status requests are in flight."""
    has_statuses: bool
    """`False` once the account turned out not to have bulk status requests, and for five minutes after a gateway's page
    has refused one."""


class LipsyncPoller:
    """Waits for any number of lipsyncs with few requests. `HeyGenSession.poller` is one.

    It has no background task: waiters send shared requests in their own tasks, and while nobody waits nothing is
    sent. It may be created anywhere, and belongs to the event loop of its first wait.

    A wait and its task take about 2 kB. With 50,000 at once no turn of the event loop takes 0.1 s of CPU time outside
    of garbage collection, but each full collection then takes another 0.1 s, because it visits all of them. If that is
    too long, call `gc.collect()` and `gc.freeze()` once they wait: later collections leave them out.

    Args:
        statuses: Sends one bulk status request for at most 100 ids, and returns their statuses by id.
        get: Gets one lipsync.
        list_page: Gets one page of the list, 100 lipsyncs, newest first; its argument is the cursor.
        policy: How often to look at jobs; `None` is `PollPolicy()`.
        random: Returns random numbers from 0 to 1, for the jitter.
        now: Returns Unix time in seconds, by the clock of the API, which says when jobs were created.

    Attributes:
        policy: How often it looks at jobs.

    Raises:
        TypeError: *policy* is no `PollPolicy`.
    """

    def __init__(
        self,
        *,
        statuses: Callable[[Sequence[str]], Awaitable[Mapping[str, LipsyncStatus | str]]],
        get: Callable[[str], Awaitable[Lipsync]],
        list_page: Callable[[str | None], Awaitable[LipsyncPage]],
        policy: PollPolicy | None = None,
        random: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        check_type("policy", policy, PollPolicy, is_optional=True)
        self.policy = policy or PollPolicy()
        self._dispatcher = Dispatcher(
            statuses=statuses, get=get, list_page=list_page, policy=self.policy, random=random, now=now
        )

    async def wait(
        self,
        lipsync_id: str,
        *,
        timeout: float | None = None,
        created_at: datetime | None = None,
        policy: PollPolicy | None = None,
    ) -> Lipsync:
        """Wait until a job is completed.

        Cancelling a wait affects no other: a shared request that it was sending is sent again by another waiter.

        Args:
            lipsync_id: The job.
            timeout: Seconds for everything inside, 0 or more; `None` is `PollPolicy.longest`.
            created_at: When the job was created, as an aware datetime, if known: how often it is looked at depends
                on its age.
            policy: How often to look at this job; `None` is the poller's policy. If several waits for one job
                differ, the most frequent looks win, from the next look on. Its `longest` and `max_bulk` are ignored.

        Returns:
            The completed lipsync, with its links.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was sent.
            LipsyncFailed: The job failed.
            WaitTimeout: The time is up. The job still runs, and may be waited for again.
            NotFound: There is no such job in this account. For a new job it is raised after four such answers,
                because reads may lag behind its create.
            HeyGenError: Any other error that is not transient, or answers stay unreadable.
            RuntimeError: The session is closed, or in use by another event loop.
        """
        check_type("policy", policy, PollPolicy, is_optional=True)
        waiter = self._new_waiter(timeout, policy=policy)
        job = self._dispatcher.join(waiter, lipsync_id, created_at)
        scope: asyncio.Timeout | None = None
        try:
            # The board keeps the policy's deadline: ten thousand waits need no timer each.
            while waiter.is_limited_by_policy and waiter.result is None:
                await self._dispatcher.serve(waiter)
            if waiter.result is None:
                async with asyncio.timeout_at(waiter.deadline) as scope:
                    while waiter.result is None:
                        await self._dispatcher.serve(waiter)
        except TimeoutError:
            if scope is None or not scope.expired():
                raise
            if waiter.result is None:
                raise WaitTimeout(lipsync_id, last_status=job.status) from job.failures.error
        finally:
            self._dispatcher.leave(waiter, job)
        self._log(lipsync_id, waiter)
        return _completed(waiter.result)

    async def updates(
        self, lipsync_id: str, *, created_at: datetime | None = None
    ) -> AsyncGenerator[LipsyncStatus | str, None]:
        """Yield the status of a job, now and at each change, and end after the terminal one, failed or not.

        Nothing is sent between two steps. Cancelling a step or closing the generator affects no other wait.

        Args:
            lipsync_id: The job.
            created_at: When the job was created, as an aware datetime, if known.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was sent.
            WaitTimeout: The status did not change for `PollPolicy.longest`.
            HeyGenError: An error that is not transient, or answers stay unreadable.
            RuntimeError: The session is closed, or in use by another event loop.
        """
        status: LipsyncStatus | str | None = None
        job: Job | None = None  # kept between the steps, so that the board remembers it
        while status not in TERMINAL:
            waiter = self._new_waiter(None, wants_updates=True)
            job = self._dispatcher.join(waiter, lipsync_id, created_at)
            try:
                # A job that ended for another wait meanwhile has no status yet.
                while waiter.result is None and (job.status in {None, status} or job.status in TERMINAL):
                    await self._dispatcher.serve(waiter)
            finally:
                self._dispatcher.leave(waiter, job)
            self._log(lipsync_id, waiter)
            status = job.status if waiter.result is None else _last_status(waiter.result)
            if status is not None:
                yield status

    def as_completed(
        self,
        ids: Iterable[str] | AsyncIterable[str],
        *,
        timeout: float | None = None,
        created_at: datetime | None = None,
    ) -> Completions:
        """Iterate over many jobs in order of completion, failed ones included.

        Iterate over the result with `async for`. If you may stop early, use it with `async with`, which cancels the
        requests in flight. Nothing is sent between two steps.

        Args:
            ids: The jobs; duplicates are yielded once. All ids are read before the first step waits. Inside
                `async with`, those of an async iterable are read concurrently with the waiting.
            timeout: Seconds for all jobs, 0 or more, from the first step; `None` is `PollPolicy.longest` for each step.
            created_at: When they were created, as an aware datetime, if they were created together just now: reads may
                not know them yet.

        Returns:
            An async iterator of `Lipsync`. One that cannot be read, such as an unknown id, has the status `not_found`
            and the reason as its `failure_message`.

        Raises:
            TypeError, ValueError: *timeout* or *created_at* is wrong, or *ids* is a single string.
            WaitTimeout: From a step: the time is up. `.pending` has the remaining ids and their last known status.
            AuthenticationError: From a step: the key is refused.
            TypeError: From a step: an id is no string.
            RuntimeError: From a step: the session is closed, or in use by another event loop.
        """
        if isinstance(ids, str):
            raise TypeError("ids is one string; pass a list of ids")
        check_timeout(timeout)
        check_moment("created_at", created_at)
        return Completions(self._dispatcher, ids, timeout=timeout, created_at=created_at)

    def notify(self, lipsync_id: str) -> None:
        """Look at a job now, because a notification such as a webhook arrived. Ignored for jobs without waiters.

        Call it from the event loop's thread.

        Args:
            lipsync_id: The job.
        """
        self._dispatcher.board.notify(lipsync_id, self._dispatcher.time())
        self._dispatcher.update()

    def expect_notifications(self) -> None:
        """Rely on `notify` for the ends of jobs, and look only as often as `PollPolicy.with_webhooks()` says.

        Once a job has ended without a notification, and none arrived for any other job either while it was waited
        for, jobs are looked at by `policy` again, until the next job whose end was notified.
        """
        self._dispatcher.board.expect_notifications()

    def snapshot(self) -> PollerSnapshot:
        """Return the jobs that are waited for, with their last known status and next look.

        Call it from the event loop's thread.

        Raises:
            RuntimeError: The session is closed, or in use by another event loop.
        """
        board = self._dispatcher.board
        now = self._dispatcher.open()
        return PollerSnapshot(
            waiting={job.id: _waiting_for(job, now) for job in board.jobs()},
            bulk_requests=board.bulk_requests,
            has_statuses=board.has_statuses,
        )

    def close(self) -> None:
        """End every wait with a `RuntimeError`, now and from now on."""
        self._dispatcher.close()

    def _new_waiter(
        self, timeout: float | None, *, wants_updates: bool = False, policy: PollPolicy | None = None
    ) -> Waiter:
        check_timeout(timeout)
        now = self._dispatcher.open()
        limit = self.policy.longest if timeout is None else timeout
        return Waiter(
            now + limit,
            started=now,
            is_limited_by_policy=timeout is None,
            wants_updates=wants_updates,
            policy=policy,
        )

    def _log(self, lipsync_id: str, waiter: Waiter) -> None:
        if isinstance(waiter.result, Lipsync):
            log_finished("lipsync", lipsync_id, waiter.result.status, self._dispatcher.time() - waiter.started)


def _completed(result: WaitResult) -> Lipsync:
    """Return the lipsync of a wait that ended well, or raise the error that it ended with."""
    if isinstance(result, Exception):
        raise copy_of(result) from result
    if result.status == LipsyncStatus.FAILED:
        raise LipsyncFailed(result)
    if result.status == LipsyncStatus.NOT_FOUND:
        raise NotFound(f"there is no lipsync {result.id}", status=404, code="not_found")
    return result


def _last_status(result: WaitResult) -> LipsyncStatus | str:
    if isinstance(result, Lipsync):
        return result.status
    if isinstance(result, NotFound):
        return LipsyncStatus.NOT_FOUND
    raise copy_of(result) from result


def _waiting_for(job: Job, now: float) -> WaitingFor:
    return WaitingFor(
        status=job.status,
        waiters=len(job.waiters),
        age=now - job.created,
        due_in=None if job.state in {JobState.IN_FLIGHT, JobState.TO_GET} else job.due - now,
        error=job.failures.error,
    )
