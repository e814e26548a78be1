"""The jobs of one account on a clock.

The state of a job is computed from the time. Its end is an entry in a heap; `settle(now)` processes the entries that
are due in order, each at its own moment, however late it is called. Call every other method after `settle(now)`.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final, Literal, TypeAlias

from attrs import define, field

from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.paged_store import Ids, PagedStore
from heygen_async.sandbox.state.scripts import JobScript

Body: TypeAlias = Mapping[str, object]
State: TypeAlias = Literal["pending", "running", "completed", "failed"]
BulkState: TypeAlias = Literal["queued", "processing", "completed", "failed", "not_found"]

PENDING_SHARE: Final = 0.1
"""The first part of a job's time, in which it is pending."""

BULK_STATES: Final[Mapping[State, BulkState]] = {
    "pending": "queued",
    "running": "processing",
    "completed": "completed",
    "failed": "failed",
}
"""The words of statuses and batches for the states of a lipsync."""

_MICRO: Final = 1_000_000


@define(eq=False, kw_only=True)
class SimulatedJob:
    """One lipsync."""

    id: str
    body: Body
    script: JobScript
    seconds: float
    created_at: float
    price: int
    """Millionths of the account's currency."""
    title: str | None = None
    batch: SimulatedBatch | None = field(default=None, repr=False)
    item_index: int | None = None
    started_at: float | None = None
    """None while it waits for a place."""
    ended_at: float | None = None
    failure_message: str | None = None
    deleted: bool = False

    def state(self, now: float) -> State:
        """Return its state."""
        if self.ended_at is not None:
            return "failed" if self.failure_message is not None else "completed"
        if self.started_at is None or now < self.started_at + PENDING_SHARE * self.seconds:
            return "pending"
        return "running"

    @property
    def video_name(self) -> str:
        """The last part of the link to its output."""
        kind = self.script.asset.filename.rpartition(".")[2] if self.script.asset else "mp4"
        return f"{self.id}.{kind}"

    @property
    def callback_url(self) -> str | None:
        """Where its end is reported."""
        return _text(self.body, "callback_url")


@define(eq=False, kw_only=True)
class SimulatedItem:
    """One item of a batch: a job, or the reason why there is none."""

    job: SimulatedJob | None = None
    refusal: ErrorAnswer | None = None

    def state(self, now: float) -> BulkState:
        """Return its state."""
        if self.job is None:
            return "failed"
        return "not_found" if self.job.deleted else BULK_STATES[self.job.state(now)]

    @property
    def error(self) -> str | None:
        """Why it failed."""
        if self.job is None:
            return self.refusal.message if self.refusal else None
        return self.job.failure_message


@define(eq=False, kw_only=True)
class SimulatedBatch:
    """Jobs that were created in one request."""

    id: str
    created_at: float
    title: str | None = None
    callback_url: str | None = None
    items: list[SimulatedItem] = field(factory=list, repr=False)
    unfinished: int = 0
    """How many of its jobs have not ended."""
    ended_at: float | None = None

    def counts(self, now: float) -> dict[BulkState, int]:
        """Return how many items are in each state; states without items are left out."""
        return dict(Counter(item.state(now) for item in self.items))

    def state(self, now: float) -> BulkState:
        """Return `processing` until all have ended, and `failed` only if none completed."""
        if self.unfinished:
            return "processing"
        return "completed" if "completed" in self.counts(now) else "failed"


class World:
    """The account's jobs, batches and money."""

    def __init__(self, ids: Ids, settings: Settings) -> None:
        self._ids = ids
        self._settings = settings
        self._job_seconds = settings.lengths()
        self._balance = _micro(settings.balance)
        self._spent = 0
        self._busy = 0
        self._waiting: deque[SimulatedJob] = deque()
        self._ends: list[tuple[float, int, SimulatedJob]] = []
        self._starts = count()
        self._ended: list[SimulatedJob | SimulatedBatch] = []
        self._jobs: PagedStore[SimulatedJob] = PagedStore("Lipsync")
        self._batches: PagedStore[SimulatedBatch] = PagedStore("Batch")
        self.account_limit = settings.account_limit
        self.other_jobs = settings.other_jobs
        self.created: list[SimulatedJob] = []
        """Every job that was ever created, deleted ones too, oldest first."""
        self.job, self.find, self.page = self._jobs.get, self._jobs.find, self._jobs.page
        self.batch, self.find_batch = self._batches.get, self._batches.find

    # --- time --------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when the next job ends; None if none will."""
        return self._ends[0][0] if self._ends else None

    def settle(self, now: float) -> list[SimulatedJob | SimulatedBatch]:
        """Process all that is due, in order; return what has ended since the last call."""
        while self._ends and self._ends[0][0] <= now:
            at, _, job = heapq.heappop(self._ends)
            if job.ended_at is None and not job.deleted:
                self._end(job, job.script.failure, at)
        ended, self._ended = self._ended, []
        return ended

    def resize(self, now: float, *, account_limit: int | None, other_jobs: int) -> None:
        """Change how many jobs the account runs at once and how many others it has; running jobs continue."""
        self.account_limit, self.other_jobs = account_limit, other_jobs
        self._start_waiting(now)

    def _start(self, job: SimulatedJob, at: float) -> None:
        self._busy += 1
        job.started_at = at
        heapq.heappush(self._ends, (at + job.seconds, next(self._starts), job))

    def _end(self, job: SimulatedJob, failure: str | None, at: float) -> None:
        job.ended_at, job.failure_message = at, failure
        if failure is not None:
            self._pay(-job.price)
            job.price = 0
        self._ended.append(job)
        self._leave(job, at)

    def _leave(self, job: SimulatedJob, at: float) -> None:
        if job.batch is not None:
            job.batch.unfinished -= 1
            self._end_batch(job.batch, at)
        if job.started_at is None:
            self._waiting.remove(job)
            return
        self._busy -= 1
        self._start_waiting(at)

    def _start_waiting(self, at: float) -> None:
        while self._waiting and not self._is_full():
            self._start(self._waiting.popleft(), at)

    def _end_batch(self, batch: SimulatedBatch, at: float) -> None:
        if not batch.unfinished:
            batch.ended_at = at
            self._ended.append(batch)

    def _is_full(self) -> bool:
        return self.account_limit is not None and self._busy + self.other_jobs >= self.account_limit

    # --- creating ----------------------------------------------------------------------------------------

    def create(self, body: Body, script: JobScript, now: float) -> SimulatedJob:
        """Create a job and take its price; past the account's limit it is refused."""
        price = self._price(body, script)
        if self._is_full():
            wait = self._settings.retry_after
            raise ErrorAnswer(429, "rate_limit_exceeded", "Too many jobs of this account are running.", None, wait)
        job = self._create(body, script, price, now)
        self._start(job, now)
        return job

    def create_batch(
        self, entries: Sequence[tuple[Body, JobScript | ErrorAnswer]], body: Body, now: float
    ) -> SimulatedBatch:
        """Create a batch with the title and the callback of *body*; its jobs wait for places."""
        if self._balance <= 0:
            raise _no_credit()
        title, callback_url = _text(body, "title"), _text(body, "callback_url")
        batch = SimulatedBatch(id=self._ids.new("batch"), created_at=now, title=title, callback_url=callback_url)
        self._batches.add(batch)
        batch.items = [self._item(batch, index, *entry, now) for index, entry in enumerate(entries)]
        self._end_batch(batch, now)  # at once, if no item of it could be created
        return batch

    def _item(
        self, batch: SimulatedBatch, index: int, body: Body, script: JobScript | ErrorAnswer, now: float
    ) -> SimulatedItem:
        if isinstance(script, ErrorAnswer):
            return SimulatedItem(refusal=script)
        try:
            job = self._create(body, script, self._price(body, script), now)
        except ErrorAnswer as refusal:
            return SimulatedItem(refusal=refusal)
        job.batch, job.item_index = batch, index
        batch.unfinished += 1
        if self._is_full():
            self._waiting.append(job)
        else:
            self._start(job, now)
        return SimulatedItem(job=job)

    def _create(self, body: Body, script: JobScript, price: int, now: float) -> SimulatedJob:
        job = SimulatedJob(
            id=self._ids.new("ls"),
            body=body,
            script=script,
            seconds=self._job_seconds(body) if script.seconds is None else script.seconds,
            created_at=now,
            price=price,
            title=_text(body, "title"),
        )
        self._pay(price)
        self._jobs.add(job)
        self.created.append(job)
        return job

    # --- money -------------------------------------------------------------------------------------------

    @property
    def balance(self) -> float:
        """What the account holds, in its currency."""
        return self._balance / _MICRO

    @property
    def spent(self) -> float:
        """What the jobs have cost so far: taken when one is created, refunded when it fails."""
        return self._spent / _MICRO

    def _price(self, body: Body, script: JobScript) -> int:
        price = _micro(script.duration * self._settings.rate(str(body.get("mode", "speed"))))
        if self._balance <= 0 or price > self._balance:
            raise _no_credit()
        return price

    def _pay(self, price: int) -> None:
        self._balance -= price
        self._spent += price

    # --- ending ------------------------------------------------------------------------------------------

    def delete(self, lipsync_id: str, now: float) -> None:
        """Delete a job; if it has not ended, its place is free again. What it cost stays spent."""
        job = self._jobs.remove(lipsync_id)
        job.deleted = True
        if job.ended_at is None:
            self._leave(job, now)

    def end(self, lipsync_id: str, failure: str | None, now: float) -> None:
        """End a job that has not ended, as failed if there is a *failure*."""
        job = self.job(lipsync_id)
        if job.ended_at is not None:
            raise ValueError(f"{lipsync_id} has ended already.")
        self._end(job, failure, now)


def _text(body: Body, name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) else None


def _micro(amount: float) -> int:
    return round(amount * _MICRO)


def _no_credit() -> ErrorAnswer:
    return ErrorAnswer(402, "insufficient_credit", "The account does not have enough credit for this.")
