"""The nouns of the board: jobs, the calls that wait for them, and the requests that these calls send."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from attrs import define, field, frozen

from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.policies import PollPolicy
from heygen_async.polling.cadence import NO_FAILURES, Failures, is_young
from heygen_async.polling.schedule import DueQueue

if TYPE_CHECKING:
    import asyncio

_MAX_GETS: Final = 32
"""The most lipsyncs that one waiter of many jobs gets at once."""

WaitResult: TypeAlias = Lipsync | Exception
"""What a wait ends with: the finished job, or an error."""

Status: TypeAlias = LipsyncStatus | str


class JobState(enum.Enum):
    """Where a job is on the board."""

    QUEUED = "queued"
    """In the queue of each waiter, until it is due."""
    TO_GET = "to get"
    """To be fetched by the first of its waiters that is free."""
    IN_FLIGHT = "in flight"
    """In a request."""
    DONE = "done"
    """Off the board; its waiters have the result."""


class RequestKind(enum.Enum):
    """What a request asks for."""

    STATUSES = "statuses"
    """The statuses of a chunk of jobs."""
    LIPSYNC = "lipsync"
    """One whole lipsync."""
    PAGE = "page"
    """One page of the list, newest first."""


class LipsyncPage(Protocol):
    """What is read of a `Page` of lipsyncs."""

    @property
    def items(self) -> Sequence[Lipsync]:
        """The lipsyncs, newest first."""
        ...

    @property
    def next_token(self) -> str | None:
        """The cursor of the next page."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether there is a next page."""
        ...


@frozen
class Now:
    """The clocks and the random number that the dispatcher reads when a request ends."""

    time: float
    """Seconds on the clock of the event loop."""
    wall: datetime | None = None
    """The same moment as an aware datetime, for the age of jobs."""
    jitter: float = 1.0
    """A factor near 1 for the time to the next look, so that programs do not fall into step."""


@define(eq=False)
class Job:
    """A lipsync with waiters."""

    id: str
    created: float
    """When it was created, or first waited for if that is not known."""
    due: float
    """When to look at it next."""
    size: int
    """How many characters of a query it takes."""
    state: JobState = JobState.QUEUED
    notified: bool = False
    """Whether a notification arrived."""
    refetch: bool = False
    """Whether a notification arrived while the job was in flight."""
    seen_running: bool = False
    """Whether it was seen unfinished, so that its end tells how long such jobs take."""
    was_new: bool = False
    """Whether it was too new to have ended when it was first waited for."""
    has_age: bool = False
    """Whether `created` is when it was created."""
    not_before: float = -math.inf
    """The earliest time at which it may be fetched by itself, set by a `Retry-After` and by a GET that failed."""
    status: Status | None = None
    failures: Failures = NO_FAILURES
    waiters: dict[Waiter, None] = field(factory=dict, repr=False)

    def is_young(self, now: float) -> bool:
        """Return whether it is so young that reads may not know it yet."""
        return self.has_age and is_young(now - self.created)


@define(eq=False)
class StatusRequest:
    """One request to be sent."""

    kind: RequestKind
    jobs: list[Job] = field(repr=False)
    sender: Waiter = field(repr=False)
    token: str | None = None
    """The cursor of the page; `None` is the first one."""
    settled: bool = False

    @property
    def ids(self) -> list[str]:
        """The ids of its jobs."""
        return [job.id for job in self.jobs]


@define(eq=False)
class Waiter:
    """A call that waits for one job."""

    deadline: float
    started: float = 0.0
    is_limited_by_policy: bool = False
    """Whether the board keeps the deadline, which is the policy's. Callers' own timeouts are kept by the poller."""
    wants_updates: bool = False
    """Whether it is woken at every change of status."""
    policy: PollPolicy | None = None
    """How often to look at its job; `None` is the poller's policy."""
    request: StatusRequest | None = None
    result: WaitResult | None = None
    wakeup: asyncio.Future[None] | None = None
    """What it sleeps on; set by the dispatcher."""

    def is_free(self, _kind: RequestKind) -> bool:
        """Return whether it can send a request now."""
        return self.request is None and self.result is None

    def assign(self, request: StatusRequest) -> None:
        """Give it a request to send."""
        self.request = request

    def release(self, _request: StatusRequest) -> None:
        """Take back the request, which is settled."""
        self.request = None

    def deliver(self, _job: Job, result: WaitResult) -> None:
        """Give it the result of its wait."""
        self.result = result


def _new_queue() -> DueQueue[Job]:
    return DueQueue()


@define(eq=False)
class ManyWaiter(Waiter):
    """A call that waits for many jobs, and is paused while its caller works on one of them."""

    is_active: bool = False
    to_start: deque[StatusRequest] = field(factory=deque, repr=False)
    """Requests that it has not begun."""
    requests: dict[StatusRequest, None] = field(factory=dict, repr=False)
    """All of its requests that are not settled."""
    results: deque[tuple[str, WaitResult]] = field(factory=deque, repr=False)
    """Ids and results that it has not passed on."""
    pending: dict[str, Job] = field(factory=dict, repr=False)
    """What it still waits for."""
    to_get: deque[Job] = field(factory=deque, repr=False)
    """Jobs that were to be fetched while it was paused or busy."""
    queue: DueQueue[Job] = field(factory=_new_queue)
    gets: int = 0

    def is_free(self, kind: RequestKind) -> bool:
        """Return whether it can send a request now."""
        return self.is_active and (kind is not RequestKind.LIPSYNC or self.gets < _MAX_GETS)

    def assign(self, request: StatusRequest) -> None:
        """Give it a request to send."""
        self.to_start.append(request)
        self.requests[request] = None
        self.gets += request.kind is RequestKind.LIPSYNC

    def release(self, request: StatusRequest) -> None:
        """Take back a request that is settled."""
        del self.requests[request]
        self.gets -= request.kind is RequestKind.LIPSYNC

    def deliver(self, job: Job, result: WaitResult) -> None:
        """Give it the result of one of its jobs."""
        del self.pending[job.id]
        self.results.append((job.id, result))

    def pop_to_get(self) -> Iterator[Job]:
        """Remove and yield the jobs that were to be fetched, and still are; each is in flight from then on."""
        while self.to_get:
            job = self.to_get.popleft()
            if job.state is JobState.TO_GET:
                job.state = JobState.IN_FLIGHT  # it may be in there twice
                yield job
