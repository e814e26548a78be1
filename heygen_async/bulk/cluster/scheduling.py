"""The scheduler of an account: it reads rows, has `scheduler` and `looks` decide, writes, and gives work to the engine.

What wakes it: whatever changes a row notifies the database's channel, which wakes the scheduler; so do the end of a
request for statuses, and a timer. It holds no lock between two statements. Its end, however it comes, leaves nothing
that its successor does not find in the rows.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from attrs import define, evolve, field, frozen

from heygen_async._task_group import TaskGroup, together
from heygen_async._text import line_without_queries
from heygen_async.bulk.cluster.api_calls import Api, StatusReader
from heygen_async.bulk.cluster.delivery import WorkDelivery
from heygen_async.bulk.cluster.looks import Ended, Look, Looks, Reachability
from heygen_async.bulk.cluster.postgres import learn_length
from heygen_async.bulk.cluster.rows import KINDS, Run, Stage, StoredRow, Ticket, WorkKind
from heygen_async.bulk.cluster.scheduler import AHEAD, Budgets, Busy, Learnt, grant, learn, to_prepare, to_redeliver
from heygen_async.bulk.cluster.scheduler_store import AccountSnapshot, SchedulerStore
from heygen_async.bulk.cluster.transitions import after_end, cost_of, given_up, placed
from heygen_async.bulk.limits import look_policy
from heygen_async.bulk.program import ENDS_RUN, RetryDelays
from heygen_async.bulk.record import State
from heygen_async.bulk.searching import Searcher
from heygen_async.errors import APIError, HeyGenError
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.polling.cadence import jitter

RENEW_SECONDS: Final = 0.5
"""Seconds between two renewals of the lease."""
LOOK_AROUND_SECONDS: Final = 3.0
"""Seconds between two looks at everything, whatever was notified."""
REDELIVERY_SECONDS: Final = 0.25
"""Seconds between two checks for work to deliver again."""
IDLE_SECONDS: Final = 0.5
"""The longest time between two looks at rows that may be granted."""
UNREACHABLE_SECONDS: Final = 8.0
"""Seconds without any answer of the API after which a scheduler resigns, if there is another worker."""

_UNANSWERED: Final = "its requests had no usable answer, while those of other rows had"
_CANDIDATES: Final = 16
_GETS: Final = 8


class ApiUnreachable(Exception):
    """Ends a scheduler that cannot reach the API."""


@define(eq=False)
class DatabaseClock:
    """The database's time, kept up between two statements."""

    _offset: float = 0.0

    def set(self, now: float) -> None:
        """Set it to the database's time."""
        self._offset = now - asyncio.get_running_loop().time()

    def __call__(self) -> float:
        """Return the time."""
        return asyncio.get_running_loop().time() + self._offset


@frozen(kw_only=True)
class Tuning:
    """Delays and time limits of the scheduler, in seconds."""

    delays: RetryDelays = field(factory=RetryDelays)
    unreachable: float = UNREACHABLE_SECONDS


@define(eq=False)
class Scheduler:
    """The scheduler of an account, while it holds the lease."""

    store: SchedulerStore
    delivery: WorkDelivery
    api: Api
    searcher: Searcher
    is_worse: Callable[[], Awaitable[bool]]
    """Whether another worker should be the scheduler."""
    reachability: Reachability
    tuning: Tuning
    clock: DatabaseClock
    learnt: Learnt
    _looks: Looks = field(init=False)
    _statuses: StatusReader = field(init=False)
    _runs: dict[int, Run] = field(factory=dict, init=False)
    _trouble: str | None = field(default=None, init=False)
    """The last error while the API does not answer."""
    _has_new_run: bool = field(default=False, init=False)
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _look_wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _gets: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_GETS), init=False)

    def __attrs_post_init__(self) -> None:
        self._looks = Looks(self.api.polling, self.tuning.delays.missing)
        self._look_for_seats(is_scarce=True)  # until the rows are known: the first look may come before
        self._statuses = StatusReader(self.api)

    async def run(self) -> None:
        """Schedule until cancelled.

        Raises:
            ExceptionGroup: With `LeaseLost`, `DatabaseLost`, `ApiUnreachable`, or an `AuthenticationError`.
        """
        await self._look_around()
        async with TaskGroup() as tasks:
            for loop in (self._keep_lease, self._keep_granting, self._keep_looking, self._keep_looking_around):
                tasks.create_task(loop(), name=f"heygen-cluster{loop.__name__}")

    def wake(self, *, is_new_run: bool = False) -> None:
        """Look at the rows now: something has changed."""
        self._has_new_run = self._has_new_run or is_new_run
        self._wake.set()

    def notify(self, lipsync_id: str) -> None:
        """Look at a job now."""
        if self._looks.notify(lipsync_id, self.clock()):
            self._look_wake.set()

    # The lease, and what is looked at whatever was notified

    async def _keep_lease(self) -> None:
        while True:
            self.clock.set(await self.store.renew(self._trouble))
            if await self.is_worse():
                raise ApiUnreachable("the API does not answer this worker")
            await asyncio.sleep(RENEW_SECONDS)

    async def _keep_looking_around(self) -> None:
        elapsed = 0.0
        while True:
            await asyncio.sleep(REDELIVERY_SECONDS)
            elapsed += REDELIVERY_SECONDS
            await self._redeliver()
            if elapsed >= LOOK_AROUND_SECONDS:
                elapsed = 0.0
                await self._look_around()

    async def _look_around(self) -> None:
        """Compare what is remembered of jobs in flight with the rows: a write of ours may have had no answer."""
        self._runs = dict(await self.store.runs())
        found = await self.store.in_flight(self._runs)
        self._looks.keep({job for _, job, _ in found})
        now = self.clock()
        for ticket, job, asked_at in found:
            self._looks.add(ticket, job, asked_at, now)
        self._look_wake.set()
        self._wake.set()

    async def _redeliver(self) -> None:
        """Deliver again what the engine has lost, or what a worker that is gone had begun."""
        at_work = await self.store.at_work(self._runs)
        if not at_work:
            return
        dead = await self.store.dead_workers() if any(row.holder for row in at_work) else set()
        now = self.clock()
        found = to_redeliver(at_work, (), dead, now)
        if found.overdue:
            found = to_redeliver(at_work, await self.delivery.queued(), dead, now)
        await self._defer(await self.store.take_back(found.orphaned) if found.orphaned else [])
        await self._defer(await self.store.mark_deferred(found.overdue) if found.overdue else [])

    async def _defer(self, work: Iterable[tuple[Ticket, Stage]]) -> None:
        kinds: dict[WorkKind, list[Ticket]] = {}
        for ticket, stage in work:
            kinds.setdefault(KINDS[stage], []).append(ticket)
        for kind, tickets in kinds.items():
            await self.delivery.defer(kind, tickets)

    # Seats

    async def _keep_granting(self) -> None:
        while True:
            self._wake.clear()
            if self._has_new_run:
                self._has_new_run = False
                await self._look_around()
            await self._move()
            now = self.clock()
            wait = min(max(self.learnt.next_chance(now) - now, 0.01), IDLE_SECONDS)
            if self.learnt.may_send(now):
                wait = IDLE_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _move(self) -> None:
        """Learn from answers, and let rows go that may go."""
        snapshot = await self.store.snapshot(self._runs)
        self._look_for_seats(is_scarce=snapshot.halted is None and bool(snapshot.ahead))
        if snapshot.answered:
            await self._learn(snapshot)
        if snapshot.due:
            await self._defer(await self.store.mark_deferred(snapshot.due))
        if snapshot.halted is None and self._runs:
            await self._grant(snapshot.busy)
            await self._prepare(snapshot.ahead)

    def _look_for_seats(self, *, is_scarce: bool) -> None:
        """Look more often at jobs for whose seats rows wait."""
        self._looks.eager = look_policy(self.api.polling, is_scarce=is_scarce)

    async def _learn(self, snapshot: AccountSnapshot) -> None:
        now = self.clock()
        updates = learn(self.learnt, snapshot.answered, snapshot.busy, now)
        await self.store.save_learnt(self.learnt, updates)
        for one in snapshot.answered:
            if one.stage is Stage.FLIGHT and one.lipsync_id is not None:
                since = one.asked_at or now
                self._looks.add(one.ticket, one.lipsync_id, since, now + self._looks.first_interval(now - since))
                self._look_wake.set()
        await self._give_up([one.ticket for one in updates if one.is_given_up])

    async def _give_up(self, tickets: Sequence[Ticket]) -> None:
        if not tickets:
            return
        rows = await self.store.load(tickets)
        await self.store.write([self._given_up(row, HeyGenError(_UNANSWERED)).saved() for row in rows])

    async def _grant(self, busy: Busy) -> None:
        now = self.clock()
        self.learnt.limiter.in_flight, self.learnt.limiter.in_air = busy.in_flight, busy.in_air
        open_runs = [run for run in self._runs if not self._is_full(run, busy.of_run(run))]
        while found := await self.store.ready(open_runs, _CANDIDATES):
            candidates = await self._without_lost_jobs(found) if self.learnt.may_send(now) else []
            if not candidates:
                return
            budgets = await self._budgets()
            if decided := grant(self.learnt, candidates, busy, budgets, now=now, delays=self.tuning.delays):
                await self._save(decided)
                self._wake.set()  # there may be more
                return
            open_runs = _others(open_runs, candidates)

    def _is_full(self, run: int, busy: int) -> bool:
        most = self._runs[run].options.max_in_flight
        return most is not None and busy >= most

    async def _prepare(self, ahead: Mapping[int, int]) -> None:
        # Each run has room of its own: the ready rows of one may wait, for its limit or its budget, all night.
        rooms = {run: AHEAD - ahead.get(run, 0) for run in self._runs}
        found = await self.store.to_prepare({run: room for run, room in rooms.items() if room > 0})
        candidates = await self._without_lost_jobs(found) if found else []
        if candidates and (decided := to_prepare(candidates, await self._budgets())):
            await self._save(decided)

    async def _budgets(self) -> Budgets:
        """Return the budgets, with all that was reserved until now: for creates, and for jobs of uploads."""
        runs = self._runs
        money = await self.store.money(runs)  # without those of runs that were removed meanwhile
        now = {run: evolve(runs[run], spent=found.spent, longest=found.longest) for run, found in money.items()}
        return Budgets({**runs, **now}, {run: found.reserved for run, found in money.items()})

    async def _save(self, decided: Iterable[StoredRow]) -> None:
        """Save rows, and give their work to the engine."""
        rows = [row.saved() for row in decided]
        saved = await self.store.write(rows, now=self.clock())
        await self._defer([(row.ticket, row.stage) for row in rows if row.ticket in saved and row.stage in KINDS])

    # Jobs that the database does not know

    async def _without_lost_jobs(self, candidates: Sequence[StoredRow]) -> list[StoredRow]:
        """Prepare for creates, and return the rows without a job; those whose job was found are saved with it."""
        if not self.searcher.is_prepared:
            try:
                await self._prepare_searcher()
            except HeyGenError as error:
                self._note(error)
                return []
        if not await self.searcher.store.has_listed():
            return list(candidates)
        return [row for row in candidates if not await self._adopt(row)]

    async def _prepare_searcher(self) -> None:
        """Before the first create: if the database was restored, its last writes may be missing."""
        timeline = await self.store.timeline()
        known = await self.searcher.store.fact("timeline")
        if known not in (None, timeline):
            await self.searcher.store.keep_fact("unclean", "0")
        await self.searcher.prepare()
        await self.searcher.store.keep_fact("timeline", timeline)

    async def _adopt(self, row: StoredRow) -> bool:
        """Save a row whose job was found in the list, or that is in doubt; return whether it was one."""
        if row.record.state is not State.PLANNED:
            return False
        try:
            found = await self.searcher.lost_job(row.record, row.row.row, self._most(row))
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            if error.is_transient:
                return True  # it is looked for again
            record = row.record.stopped(error)
        else:
            if found is None:
                return False
            attempt, job = found
            price = row.row.price((await self._budgets()).of(row.run))
            record = row.record.adopted(attempt, job, self.clock(), estimate=price)
        adopted = placed(
            evolve(row, record=record, reserved=True),
            self.clock(),
            max_attempts=self._most(row),
            delays=self.tuning.delays,
            has_file=False,
        )
        await self.store.write([adopted.saved()])
        await self._look_around()
        return True

    def _most(self, row: StoredRow) -> int:
        return self._runs[row.run].options.max_attempts

    # Looks

    async def _keep_looking(self) -> None:
        async with TaskGroup() as requests:
            flying: set[asyncio.Task[None]] = set()
            while True:
                self._look_wake.clear()
                while len(flying) < self.api.polling.max_bulk and (taken := self._looks.take(self.clock())):
                    request = requests.create_task(self._look(taken))
                    flying.add(request)
                    request.add_done_callback(flying.discard)
                    request.add_done_callback(lambda _: self._look_wake.set())
                wait = self._looks.next_due() - self.clock()
                try:
                    async with asyncio.timeout(None if math.isinf(wait) else max(wait, 0.001)):
                        await self._look_wake.wait()
                except TimeoutError:
                    pass

    async def _look(self, looks: Sequence[Look]) -> None:
        """Send one request for statuses, and save the ends that it shows."""
        settle = partial(self._looks.put_back, looks)
        ended: list[Ended] = []
        try:
            self.reachability.begin()
            statuses = await self._statuses.read([look.lipsync_id for look in looks])
        except ENDS_RUN:
            settle(self.clock())
            raise
        except HeyGenError as error:
            self._note(error)
            ended = self._looks.failed(looks, error, self.clock())
        except asyncio.CancelledError:
            settle(self.clock())
            raise
        else:
            self.reachability.note(is_answered=True)
            self._trouble = None
            ended = self._looks.answered(looks, statuses, self.clock(), _jitter())
        if ended:
            await self._end(ended)

    def _note(self, error: HeyGenError) -> None:
        self._trouble = line_without_queries(str(error))
        self.reachability.note(is_answered=isinstance(error, APIError) and not error.is_transient)

    async def _end(self, ended: Sequence[Ended]) -> None:
        """Save the ends of jobs; those of jobs that are to be fetched hold up no others."""
        looks = {one.look.ticket: one for one in ended}
        rows = await self.store.load(looks)
        known = [self._known_end(row, looks[row.ticket]) for row in rows]
        await self._save_ends([row for row in known if row is not None])
        others = [row for row, after in zip(rows, known, strict=True) if after is None]
        await together(self._fetch_and_save(row, looks[row.ticket]) for row in others)

    async def _fetch_and_save(self, row: StoredRow, ended: Ended) -> None:
        after = await self._fetched_end(row, ended)
        await self._save_ends([] if after is None else [after])

    async def _save_ends(self, rows: Sequence[StoredRow]) -> None:
        """Save rows after the ends of their jobs, and give their downloads to the engine."""
        if not rows:
            return
        saved_rows, now = [row.saved() for row in rows], self.clock()
        saved = await self.store.write(saved_rows, now=now)
        for row in saved_rows:
            await learn_length(self.store.database, row)
        self._wake.set()
        done = [row for row in saved_rows if row.ticket in saved and row.stage in KINDS and row.due <= now]
        await self._defer([(row.ticket, row.stage) for row in done if row.stage is not Stage.PREPARE])

    def _known_end(self, row: StoredRow, ended: Ended) -> StoredRow | None:
        """Return a row after the end of its job; `None` if the job is to be fetched."""
        if ended.error is not None:
            return self._given_up(row, ended.error)
        if ended.status == LipsyncStatus.COMPLETED and row.record.target is not None:
            # Whoever downloads it gets the job, for its link and its length.
            return self._ended(row, Lipsync(id=ended.look.lipsync_id, status=ended.status), cost=row.record.estimate)
        return None

    async def _fetched_end(self, row: StoredRow, ended: Ended) -> StoredRow | None:
        """Return a row after the end of its job; `None` if that cannot be read now."""
        try:
            async with self._gets:
                job = await self.api.get(ended.look.lipsync_id)
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            is_given_up = self._looks.failed([ended.look], error, self.clock())
            return self._given_up(row, error) if is_given_up else None
        if job.is_terminal:
            return self._ended(row, job, cost=cost_of(row, job, self._runs[row.run].options.rates))
        self._looks.running(ended.look, self.clock(), _jitter())
        return None

    def _ended(self, row: StoredRow, job: Lipsync, *, cost: float) -> StoredRow:
        most = self._most(row)
        return after_end(row, job, self.clock(), cost=cost, max_attempts=most, delays=self.tuning.delays)

    def _given_up(self, row: StoredRow, error: Exception) -> StoredRow:
        return given_up(row, error, self.clock(), max_attempts=self._most(row), delays=self.tuning.delays)


def _jitter() -> float:
    return jitter(random.random())  # noqa: S311 no secret


def _others(runs: Iterable[int], waiting: Iterable[StoredRow]) -> list[int]:
    """Return the runs of which no row waits for its budget, so that one run does not hold up another."""
    held_up = {row.run for row in waiting}
    return [run for run in runs if run not in held_up]
