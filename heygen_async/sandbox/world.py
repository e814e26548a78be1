"""The jobs of one account on a clock: pure, no await, no task. The time, `now`, is always an argument.

A job's state is computed from the time. What happens at a certain moment (a job ends, its seat goes to the
next in the queue) is in a heap, and `settle(now)` lets it happen in order, each thing at its own moment, however
late the call comes. Every method expects to be called after `settle(now)`.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from attrs import define, field

from heygen_async.sandbox.ids import Ids
from heygen_async.sandbox.plans import Plan
from heygen_async.sandbox.refusals import Refusal, not_found
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.shelf import Shelf
from heygen_async.sandbox.strict import Body

State: TypeAlias = Literal["pending", "running", "completed", "failed"]
BulkState: TypeAlias = Literal["queued", "processing", "completed", "failed", "not_found"]

PENDING_SHARE: Final = 0.1
"""The first part of a job's time, in which it is pending."""

IN_BULK: Final[Mapping[State, BulkState]] = {
    "pending": "queued",
    "running": "processing",
    "completed": "completed",
    "failed": "failed",
}
"""The other vocabulary, of statuses and batches."""

_MICRO: Final = 1_000_000


@define(eq=False, kw_only=True)
class Job:
    """One lipsync."""

    id: str
    body: Body
    plan: Plan
    seconds: float
    created_at: float
    price: int
    """Millionths of the account's currency."""
    title: str | None = None
    batch: Batch | None = field(default=None, repr=False)
    item_index: int | None = None
    started_at: float | None = None
    """None while it is queued behind the account's limit."""
    ended_at: float | None = None
    failure_message: str | None = None
    deleted: bool = False
    serial: int = 0

    def state(self, now: float) -> State:
        """Return where it is."""
        if self.ended_at is not None:
            return "failed" if self.failure_message is not None else "completed"
        if self.started_at is None or now < self.started_at + PENDING_SHARE * self.seconds:
            return "pending"
        return "running"

    @property
    def video_name(self) -> str:
        """The last part of the link to its output."""
        kind = self.plan.asset.filename.rpartition(".")[2] if self.plan.asset else "mp4"
        return f"{self.id}.{kind}"

    @property
    def callback_url(self) -> str | None:
        """Where to tell of its end."""
        url = self.body.get("callback_url")
        return url if isinstance(url, str) else None


@define(eq=False, kw_only=True)
class Item:
    """One place in a batch: a job, or why there is none."""

    job: Job | None = None
    refusal: Refusal | None = None

    def state(self, now: float) -> BulkState:
        """Return where it is."""
        if self.job is None:
            return "failed"
        return "not_found" if self.job.deleted else IN_BULK[self.job.state(now)]

    @property
    def error(self) -> str | None:
        """Why it failed."""
        if self.job is None:
            return self.refusal.message if self.refusal else None
        return self.job.failure_message


@define(eq=False, kw_only=True)
class Batch:
    """Jobs that were made in one request."""

    id: str
    created_at: float
    title: str | None = None
    callback_url: str | None = None
    items: list[Item] = field(factory=list, repr=False)
    left: int = 0
    """How many of its jobs have not ended."""
    ended_at: float | None = None

    def counts(self, now: float) -> dict[BulkState, int]:
        """Return how many items are in each state; states without items are left out."""
        return dict(Counter(item.state(now) for item in self.items))

    def state(self, now: float) -> BulkState:
        """Return `processing` until all have ended, and `failed` only if nothing came out."""
        if self.left:
            return "processing"
        return "completed" if "completed" in self.counts(now) else "failed"


class World:
    """The account's jobs, batches and money."""

    def __init__(self, ids: Ids, settings: Settings) -> None:
        self._ids = ids
        self._settings = settings
        self._job_seconds = settings.lengths()
        self._balance = _micro(settings.balance)
        self._busy = 0
        self.account_limit = settings.account_limit
        self.other_jobs = settings.other_jobs
        self._queue: deque[Job] = deque()
        self._ends: list[tuple[float, int, Job]] = []
        self._jobs: dict[str, Job] = {}
        self._batches: dict[str, Batch] = {}
        self._shelf: Shelf[Job] = Shelf()
        self._spent = 0
        self._ended: list[Job | Batch] = []
        self.made: list[Job] = []
        """Every job that was ever made, deleted ones too, oldest first."""

    # --- time --------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when something will happen next; None if nothing will."""
        return self._ends[0][0] if self._ends else None

    def settle(self, now: float) -> list[Job | Batch]:
        """Let everything happen that is due, in order; return what has ended since the last call."""
        while self._ends and self._ends[0][0] <= now:
            at, _, job = heapq.heappop(self._ends)
            if job.ended_at is None and not job.deleted:
                self._end(job, job.plan.failure, at)
        ended, self._ended = self._ended, []
        return ended

    def resize(self, now: float, *, account_limit: int | None, other_jobs: int) -> None:
        """Change how many jobs the account runs at once and how many others it has; running jobs continue."""
        self.account_limit, self.other_jobs = account_limit, other_jobs
        self._fill(now)

    def _start(self, job: Job, at: float) -> None:
        self._busy += 1
        job.started_at = at
        heapq.heappush(self._ends, (at + job.seconds, job.serial, job))

    def _end(self, job: Job, failure: str | None, at: float) -> None:
        job.ended_at, job.failure_message = at, failure
        if failure is not None:
            self._pay(-job.price)
            job.price = 0
        self._ended.append(job)
        self._leave(job, at)

    def _leave(self, job: Job, at: float) -> None:
        if job.batch is not None:
            job.batch.left -= 1
            self._end_batch(job.batch, at)
        if job.started_at is None:
            self._queue.remove(job)
            return
        self._busy -= 1
        self._fill(at)

    def _fill(self, at: float) -> None:
        while self._queue and not self._is_full():
            self._start(self._queue.popleft(), at)

    def _end_batch(self, batch: Batch, at: float) -> None:
        if not batch.left:
            batch.ended_at = at
            self._ended.append(batch)

    def _is_full(self) -> bool:
        return self.account_limit is not None and self._busy + self.other_jobs >= self.account_limit

    # --- making ------------------------------------------------------------------------------------------

    def create(self, body: Body, plan: Plan, now: float) -> Job:
        """Make a job and take its price; past the account's limit it is refused."""
        price = self._price(body, plan)
        if self._is_full():
            wait = self._settings.retry_after
            raise Refusal(429, "rate_limit_exceeded", "Too many jobs of this account are running.", retry_after=wait)
        job = self._make(body, plan, price, now)
        self._start(job, now)
        return job

    def create_batch(
        self, entries: Sequence[tuple[Body, Plan | Refusal]], now: float, *, title: str | None, callback_url: str | None
    ) -> Batch:
        """Make a batch; its jobs wait for a seat instead of being refused."""
        if self._balance <= 0:
            raise _no_credit()
        batch = Batch(id=self._ids.new("batch"), created_at=now, title=title, callback_url=callback_url)
        self._batches[batch.id] = batch
        batch.items = [self._item(batch, index, *entry, now) for index, entry in enumerate(entries)]
        self._end_batch(batch, now)  # at once, if no item of it could be made
        return batch

    def _item(self, batch: Batch, index: int, body: Body, plan: Plan | Refusal, now: float) -> Item:
        if isinstance(plan, Refusal):
            return Item(refusal=plan)
        try:
            job = self._make(body, plan, self._price(body, plan), now)
        except Refusal as refusal:
            return Item(refusal=refusal)
        job.batch, job.item_index = batch, index
        batch.left += 1
        if self._is_full():
            self._queue.append(job)
        else:
            self._start(job, now)
        return Item(job=job)

    def _make(self, body: Body, plan: Plan, price: int, now: float) -> Job:
        title = body.get("title")
        job = Job(
            id=self._ids.new("ls"),
            body=body,
            plan=plan,
            seconds=self._job_seconds(body) if plan.seconds is None else plan.seconds,
            created_at=now,
            price=price,
            title=title if isinstance(title, str) else None,
        )
        self._pay(price)
        job.serial = self._shelf.add(job)
        self._jobs[job.id] = job
        self.made.append(job)
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

    def _price(self, body: Body, plan: Plan) -> int:
        price = _micro(plan.duration * self._settings.rate(str(body.get("mode", "speed"))))
        if self._balance <= 0 or price > self._balance:
            raise _no_credit()
        return price

    def _pay(self, price: int) -> None:
        self._balance -= price
        self._spent += price

    # --- the rest ----------------------------------------------------------------------------------------

    def job(self, lipsync_id: str) -> Job:
        """Return the job with that id."""
        if lipsync_id not in self._jobs:
            raise not_found("Lipsync", lipsync_id)
        return self._jobs[lipsync_id]

    def find(self, lipsync_id: str) -> Job | None:
        """Return the job with that id, if there is one."""
        return self._jobs.get(lipsync_id)

    def batch(self, batch_id: str) -> Batch:
        """Return the batch with that id."""
        if batch_id not in self._batches:
            raise not_found("Batch", batch_id)
        return self._batches[batch_id]

    def find_batch(self, batch_id: str) -> Batch | None:
        """Return the batch with that id, if there is one."""
        return self._batches.get(batch_id)

    def page(self, limit: int, before: int | None) -> tuple[list[Job], int | None]:
        """Return a page of jobs, newest first, and where the next one starts."""
        return self._shelf.page(limit, before)

    def delete(self, lipsync_id: str, now: float) -> None:
        """Forget a job; if it was on its way its seat is free again. What it cost stays spent."""
        job = self.job(lipsync_id)
        del self._jobs[lipsync_id]
        self._shelf.remove(job.serial)
        job.deleted = True
        if job.ended_at is None:
            self._leave(job, now)

    def fail(self, lipsync_id: str, message: str, now: float) -> None:
        """End a job that is on its way, now, as failed."""
        job = self.job(lipsync_id)
        if job.ended_at is not None:
            raise ValueError(f"{lipsync_id} has ended already.")
        self._end(job, message, now)


def _micro(amount: float) -> int:
    return round(amount * _MICRO)


def _no_credit() -> Refusal:
    return Refusal(402, "insufficient_credit", "The account does not have enough credit for this.")
