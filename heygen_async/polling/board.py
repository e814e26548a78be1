"""The poller's decisions: who waits for which job, when it is due, who sends the request, and what the answer means.

Rules:

1. Nothing here waits, reads a clock or draws random numbers. Times are seconds on one monotonic clock, and are
   arguments.
2. A job with waiters is in one state at a time (`JobState`). A request (`StatusRequest`) is sent by one of the waiters
   of its jobs. Until it is settled its jobs are in flight; once it is settled, none is.
3. A waiter of one job has at most one request, and it includes that job. So each waiter of a job that is not in flight
   is free, and for whatever is due there is a sender among the active waiters.
4. Nobody is woken here. `Board.take_ready` returns the waiters that have something to send or to receive, and the
   dispatcher wakes them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final
from weakref import WeakValueDictionary

from heygen_async._ids import MAX_STATUS_IDS, MAX_STATUS_QUERY, query_size
from heygen_async.errors import (
    AuthenticationError,
    HeyGenError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    WaitTimeout,
    may_be_page,
)
from heygen_async.models import TERMINAL, Lipsync
from heygen_async.policies import PollPolicy
from heygen_async.polling.cadence import NO_FAILURES, Cadence
from heygen_async.polling.pages import Pages
from heygen_async.polling.schedule import DueQueue, Schedule
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
    WaitResult,
)

_SLICE: Final = 1000  # the most jobs handled in one go, so that the event loop is not blocked
_PROBE_AFTER: Final = 3
"""Bulk requests that fail in a row before it is tried whether a GET succeeds."""
_STATUSES_PAUSE: Final = 300.0
"""Seconds without bulk status requests after a gateway's page has refused one."""


class Board:
    """The jobs with waiters, and the requests to be sent for them.

    Args:
        policy: How often to look, and how many bulk status requests may be in flight.
    """

    def __init__(self, policy: PollPolicy) -> None:
        self.has_statuses = True
        """Whether the account has bulk status requests, as far as is known."""
        self._statuses_again = math.inf  # when to find out once more
        self._failed_in_a_row = 0  # of bulk requests
        self.bulk_requests = 0
        """Bulk status requests in flight."""
        self._policy = policy
        # A job is on the board for as long as something holds it: a waiter, a queue, a request. One without waiters
        # is not looked at, and is forgotten when it is due at the latest.
        self._jobs: WeakValueDictionary[str, Job] = WeakValueDictionary()
        self._schedule: Schedule[Job] = Schedule()
        self._shared: DueQueue[Job] = DueQueue()  # of all waiters of one job
        self._schedule.open(self._shared)
        self._ready: list[Waiter] = []
        self._pages = Pages()
        self._cadence = Cadence(policy)

    # Waiters

    def join(self, waiter: Waiter, lipsync_id: str, now: float, *, age: float | None = None) -> Job:
        """Let *waiter* wait for *lipsync_id*, which is *age* seconds old if that is known."""
        job = self._jobs.get(lipsync_id)
        if job is None:
            job = self._jobs[lipsync_id] = self._new_job(waiter, lipsync_id, now, age)
        elif age is not None:
            job.created, job.has_age = min(job.created, now - age), True
        queue = self._queue_of(waiter)
        is_queued = any(self._queue_of(other) is queue for other in job.waiters)
        job.waiters[waiter] = None
        queue.waiting += 1
        if isinstance(waiter, ManyWaiter):
            waiter.pending[lipsync_id] = job
        if job.state is JobState.TO_GET:
            self._get_each([job])
        elif job.state is JobState.QUEUED and not is_queued:
            self._schedule.push(queue, job.due, job)
        return job

    def leave(self, waiter: Waiter, job: Job, now: float) -> None:
        """Remove *waiter*, of one job. A request that it had is due now, for another waiter."""
        self._remove_waiter(waiter, job)
        if waiter.request is not None:
            self.on_cancelled(waiter.request, now)

    def resume(self, many: ManyWaiter) -> None:
        """Let *many* send requests from now on, first those that were left for it."""
        many.is_active = True
        self._schedule.open(many.queue)
        self._assign_gets(many)

    def pause(self, many: ManyWaiter) -> None:
        """Give *many* no more requests. Those that it has go on."""
        many.is_active = False
        self._schedule.close(many.queue)

    def cancel_requests(self, many: ManyWaiter, now: float) -> None:
        """Take back all requests of *many*, which is paused but goes on waiting."""
        many.to_start.clear()
        for request in tuple(many.requests):
            self.on_cancelled(request, now)

    def leave_all(self, many: ManyWaiter, now: float) -> None:
        """Remove *many*, which is paused, from all of its jobs."""
        for job in many.pending.values():
            self._remove_waiter(many, job)
        many.pending.clear()
        self.cancel_requests(many, now)

    def notify(self, lipsync_id: str, now: float) -> None:
        """Have *lipsync_id* fetched now, because a notification arrived. Does nothing for a job without waiters."""
        if (job := self._jobs.get(lipsync_id)) is None:
            return
        job.notified = True
        if job.state is JobState.IN_FLIGHT:
            job.refetch = True
        elif job.state is JobState.QUEUED:
            self._get_each(self._ready_to_get([job], now))

    def expect_notifications(self) -> None:
        """Rely on `notify` for the ends of jobs, for as long as it is called."""
        self._cadence.trust.expect()

    def end_all(self, error: Exception, now: float) -> None:
        """End every wait with *error*."""
        for job in list(self._jobs.values()):
            self._finish(job, error, now)

    def jobs(self) -> list[Job]:
        """Return every job with waiters."""
        return [job for job in self._jobs.values() if job.waiters]

    def take_ready(self) -> list[Waiter]:
        """Return the waiters that have got something to send or to receive since the last call."""
        ready, self._ready = self._ready, []
        return ready

    # What is due

    def next_due(self) -> float | None:
        """Return when to call `start_due` next; `None` if not before something else happens."""
        return None if self._is_full() else self._schedule.first_due()

    def start_due(self, now: float) -> None:
        """Assign requests for what is due at *now*, within the limit on bulk requests."""
        if now >= self._statuses_again:
            self.has_statuses, self._statuses_again = True, math.inf
        if not self.has_statuses:
            self._fetch(list(itertools.islice(self._pop_until(now), _SLICE)))
            return
        while not self._is_full() and (chunk := self._next_chunk(now)):
            self._start(RequestKind.STATUSES, chunk)

    def _is_full(self) -> bool:
        return self.bulk_requests >= self._policy.max_bulk

    def _next_chunk(self, now: float) -> list[Job]:
        chunk = list(itertools.islice(self._pop_until(now), 1))
        room = MAX_STATUS_QUERY - sum(job.size for job in chunk)
        # A request costs the same however full it is: the next due jobs fill it up.
        for job in self._pop_until(math.inf) if chunk else ():
            room -= job.size
            if room < 0:
                self._enqueue(job, job.due)
                break
            chunk.append(job)
            if len(chunk) == MAX_STATUS_IDS:
                break
        return chunk

    def _pop_until(self, until: float) -> Iterator[Job]:
        """Yield, in order, what is due by *until* and has an active waiter; skip a slice of stale entries at most."""
        stale = 0
        while (first := self._schedule.first_due()) is not None and first <= until and stale < _SLICE:
            if self._is_live(*(entry := self._schedule.pop())):
                job = entry[2]
                job.state = JobState.IN_FLIGHT
                yield job
            else:
                stale += 1

    # The ends of requests

    def on_statuses(self, request: StatusRequest, statuses: Mapping[str, Status], now: Now) -> None:
        """Settle a bulk status request."""
        self._failed_in_a_row = 0
        ended = []
        for job in self._settle(request):
            status = statuses.get(job.id)
            if status in TERMINAL:
                job.status = status
                ended.append(job)
            elif status is not None:
                self._on_running(job, status, now)
            else:
                job.failures = job.failures.after_omission()
                if job.failures.is_omitted:
                    ended.append(job)  # perhaps: only its own GET can tell
                else:
                    self._reschedule(job, now)
        self._fetch(self._ready_to_get(ended, now.time))

    def on_lipsync(self, request: StatusRequest, lipsync: Lipsync, now: Now) -> None:
        """Settle the GET of one lipsync."""
        if self._failed_in_a_row >= _PROBE_AFTER:  # only bulk requests fail
            self._pause_statuses(now.time + _STATUSES_PAUSE)
        for job in self._settle(request):
            self._on_job(job, lipsync, now)
        self._assign_gets(request.sender)

    def on_page(self, request: StatusRequest, page: LipsyncPage, now: Now) -> None:
        """Settle a page of the list; use what it has of the wanted jobs and of other jobs with waiters."""
        left = {job.id: job for job in self._settle(request)}
        saved = 0
        for lipsync in page.items:
            is_wanted = lipsync.id in left
            job = left.pop(lipsync.id, None) or self._jobs.get(lipsync.id)
            if job is None:
                continue
            # One that has ended saves a status request and a GET even if it was not due.
            saved += is_wanted or lipsync.is_terminal
            if is_wanted or job.state is not JobState.IN_FLIGHT:
                self._on_job(job, lipsync, now)
        self._after_page(request, page, list(left.values()), saved)

    def on_error(self, request: StatusRequest, error: Exception, now: Now) -> None:
        """Settle a request that failed. No job but its own is affected, unless the API refuses the key."""
        jobs = self._settle(request)
        is_bulk = request.kind is RequestKind.STATUSES
        if isinstance(error, AuthenticationError) and not may_be_page(error):
            self.end_all(error, now.time)
        elif request.kind is RequestKind.PAGE and isinstance(error, HeyGenError):
            self._after_page(request, None, jobs, 0)
        elif is_bulk and isinstance(error, NotFound | PermissionDenied):
            self._pause_statuses(now.time + _STATUSES_PAUSE if may_be_page(error) else math.inf)
            for job in jobs:
                self._enqueue(job, now.time)
        elif is_bulk and isinstance(error, InvalidRequest):
            self._get_each(self._ready_to_get(jobs, now.time))  # one of these ids is wrong: each is fetched by itself
        else:
            for job in jobs:
                self._on_job_error(job, error, now, is_bulk=is_bulk)
            if is_bulk and not isinstance(error, RateLimited):
                self._probe(jobs, now.time)
        self._assign_gets(request.sender)

    def _pause_statuses(self, until: float) -> None:
        self.has_statuses, self._statuses_again, self._failed_in_a_row = False, until, 0

    def _probe(self, jobs: Sequence[Job], now: float) -> None:
        """After some bulk requests that failed in a row, have one of *jobs* fetched by itself."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row % _PROBE_AFTER == 0:
            waiting = [job for job in jobs if job.state is JobState.QUEUED and job.not_before <= now]
            self._get_each(waiting[:1])

    def on_cancelled(self, request: StatusRequest, now: float) -> None:
        """Settle a request that ended without an answer because its sender was cancelled: it is due now."""
        for job in self._settle(request):
            if request.kind is RequestKind.STATUSES:
                self._enqueue(job, now)
            else:
                self._get_each([job])

    def _settle(self, request: StatusRequest) -> list[Job]:
        """Mark *request* as settled; return the jobs that must get another state now."""
        if request.settled:
            return []
        request.settled = True
        request.sender.release(request)
        self.bulk_requests -= request.kind is RequestKind.STATUSES
        if self._pages.reading is request:
            self._pages.reading = None
        return [job for job in request.jobs if job.state is JobState.IN_FLIGHT]

    def _on_running(self, job: Job, status: Status, now: Now) -> None:
        job.failures = NO_FAILURES
        job.seen_running = True
        if status != job.status:
            job.status = status
            self._ready.extend(waiter for waiter in job.waiters if waiter.wants_updates)
        self._reschedule(job, now)

    def _on_job(self, job: Job, lipsync: Lipsync, now: Now) -> None:
        if lipsync.is_terminal:
            self._finish(job, lipsync, now.time)
            return
        if lipsync.created_at is not None and now.wall is not None:
            age = (now.wall - lipsync.created_at).total_seconds()
            job.created = min(job.created, now.time - age)
        self._on_running(job, lipsync.status, now)

    def _on_job_error(self, job: Job, error: Exception, now: Now, *, is_bulk: bool) -> None:
        failures = job.failures.after_error(error, is_new=job.is_young(now.time))
        if failures is None:
            self._finish(job, error, now.time)
        else:
            job.failures = failures
            delay = failures.delay(self._policy)
            # Status requests go on with other jobs: one that they report as completed is not fetched at once again.
            if failures.has_retry_after or not is_bulk:
                job.not_before = now.time + delay
            self._reschedule(job, now, at_least=delay)

    # When a job is looked at next

    def _new_job(self, waiter: Waiter, lipsync_id: str, now: float, age: float | None) -> Job:
        # If its age is not known it may have ended long ago. A new job is not due at once.
        due = now if age is None else max(now, now - age + self._cadence.interval([waiter.policy], 0.0))
        return Job(
            lipsync_id,
            created=now - (age or 0.0),
            due=due,
            size=query_size(lipsync_id),
            was_new=due > now,
            has_age=age is not None,
        )

    def _interval(self, job: Job, age: float, *, notified: bool) -> float:
        return self._cadence.interval((waiter.policy for waiter in job.waiters), age, notified=notified)

    def _reschedule(self, job: Job, now: Now, *, at_least: float = 0.0) -> None:
        """Queue *job* for its next look, or have it fetched if a notification arrived while it was in flight."""
        self._expire(job, now.time)
        if job.refetch and job.not_before <= now.time:
            job.refetch = False
            self._get_each([job])
            return
        interval = self._interval(job, now.time - job.created, notified=job.notified) * now.jitter
        self._enqueue(job, now.time + max(interval, at_least))

    def _reschedule_all(self, now: float) -> None:
        """Look sooner at the jobs whose ends were expected to be notified."""
        for job in list(self._jobs.values()):
            due = now + self._interval(job, now - job.created, notified=False)
            if job.state is JobState.QUEUED and job.due > due:
                self._enqueue(job, due)

    def _expire(self, job: Job, now: float) -> None:
        expired = [waiter for waiter in job.waiters if waiter.is_limited_by_policy and waiter.deadline <= now]
        for waiter in expired:
            self._end_wait(waiter, job, WaitTimeout(job.id, last_status=job.status))

    def _enqueue(self, job: Job, due: float) -> None:
        due = max(due, job.not_before)
        job.state = JobState.QUEUED
        job.due = due
        for queue in dict.fromkeys(map(self._queue_of, job.waiters)):
            self._schedule.push(queue, due, job)
            self._schedule.compact(queue, self._is_live)

    def _is_live(self, queue: DueQueue[Job], due: float, job: Job) -> bool:
        """Return whether an entry of *queue* still says when a job is due for one of its waiters there."""
        if job.state is not JobState.QUEUED or job.due != due:
            return False
        for waiter in job.waiters:  # noqa: SIM110 any() takes twice the time
            if self._queue_of(waiter) is queue:
                return True
        return False

    def _queue_of(self, waiter: Waiter) -> DueQueue[Job]:
        return waiter.queue if isinstance(waiter, ManyWaiter) else self._shared

    def _end_wait(self, waiter: Waiter, job: Job, result: WaitResult) -> None:
        self._remove_waiter(waiter, job)
        waiter.deliver(job, result)
        self._ready.append(waiter)

    def _remove_waiter(self, waiter: Waiter, job: Job) -> None:
        if waiter in job.waiters:
            del job.waiters[waiter]
            queue = self._queue_of(waiter)
            queue.waiting -= 1
            self._schedule.compact(queue, self._is_live)

    def _finish(self, job: Job, result: WaitResult, now: float) -> None:
        if isinstance(result, Lipsync):
            self._learn(job, now)
        job.state = JobState.DONE
        del self._jobs[job.id]
        for waiter in tuple(job.waiters):
            self._end_wait(waiter, job, result)

    def _learn(self, job: Job, now: float) -> None:
        """Learn from a job that has ended how long such jobs take, and whether their ends are notified."""
        if job.seen_running or job.notified:
            self._cadence.learn(now - job.created)
        if job.notified:
            self._cadence.trust.confirmed(now)
        elif (job.seen_running or job.was_new) and self._cadence.trust.missed(job.created):
            self._reschedule_all(now)

    # Who sends which request

    def _ready_to_get(self, jobs: Iterable[Job], now: float) -> list[Job]:
        """Return those of *jobs* that may be fetched now; the others are due when they may."""
        ready = []
        for job in jobs:
            if job.not_before > now:
                self._enqueue(job, job.not_before)
            else:
                ready.append(job)
        return ready

    def _fetch(self, jobs: Sequence[Job]) -> None:
        """Have *jobs* fetched: from a page of the list if it may have enough of them, otherwise one by one."""
        page = self._pages.join(len(jobs))
        if page is not None:
            page.jobs.extend(jobs)
            for job in jobs:
                job.state = JobState.IN_FLIGHT
        elif self._pages.is_worthwhile(len(jobs)):
            self._begin_page(jobs)
        else:
            self._get_each(jobs)

    def _begin_page(self, jobs: Sequence[Job]) -> None:
        # Without bulk requests running jobs are read from the list, too, and they are among the newest.
        self._start(RequestKind.PAGE, jobs, self._pages.begin(at_the_newest=not self.has_statuses))

    def _after_page(self, request: StatusRequest, page: LipsyncPage | None, left: list[Job], saved: int) -> None:
        if self._pages.learn(request, page, saved=saved, left=len(left)):
            self._start(RequestKind.PAGE, left, self._pages.cursor)
        else:
            self._get_each(left)

    def _get_each(self, jobs: Iterable[Job]) -> None:
        """Have each of *jobs* fetched by one of its own waiters, or by the first of them that becomes free."""
        for job in jobs:
            job.state = JobState.TO_GET
            sender = self._choose_sender(RequestKind.LIPSYNC, [job])
            if sender is not None:
                self._assign(StatusRequest(RequestKind.LIPSYNC, [job], sender))
                continue
            for waiter in job.waiters:
                if isinstance(waiter, ManyWaiter):
                    waiter.to_get.append(job)

    def _assign_gets(self, waiter: Waiter) -> None:
        """Assign to *waiter*, which has become free, what was to be fetched while it was not."""
        if not isinstance(waiter, ManyWaiter) or not waiter.is_active:
            return
        if self._pages.is_worthwhile(len(waiter.to_get)):
            self._begin_page(list(itertools.islice(waiter.pop_to_get(), _SLICE)))
        while waiter.is_free(RequestKind.LIPSYNC) and (job := next(waiter.pop_to_get(), None)):
            self._assign(StatusRequest(RequestKind.LIPSYNC, [job], waiter))

    def _start(self, kind: RequestKind, jobs: Sequence[Job], token: str | None = None) -> None:
        sender = self._choose_sender(kind, jobs)
        if sender is None:
            self._get_each(jobs)
        else:
            self._assign(StatusRequest(kind, list(jobs), sender, token))

    def _choose_sender(self, kind: RequestKind, jobs: Iterable[Job]) -> Waiter | None:
        """Return the free waiter with the latest deadline."""
        free = (waiter for job in jobs for waiter in job.waiters if waiter.is_free(kind))
        return max(free, key=attrgetter("deadline"), default=None)

    def _assign(self, request: StatusRequest) -> None:
        for job in request.jobs:
            job.state = JobState.IN_FLIGHT
        self.bulk_requests += request.kind is RequestKind.STATUSES
        if request.kind is RequestKind.PAGE:
            self._pages.reading = request
        request.sender.assign(request)
        self._ready.append(request.sender)
