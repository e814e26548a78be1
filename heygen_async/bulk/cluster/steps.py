"""The steps of rows, as a worker takes them: begun once, saved once, and put back where the worker ends before.

Rule 1: a step runs in a task of ours, not of the engine's: what the engine does with its own does not end it.
Rule 2: what has been sent is saved, however long the database is away. What was not is put back.
Rule 3: the age of a key is looked at right before it is sent: a worker that was frozen may come back a day later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from anyio import to_thread
from attrs import define, evolve, field, frozen

from heygen_async import _uptime
from heygen_async._media.parts import is_in_use
from heygen_async._task_group import TaskGroup
from heygen_async._text import line_without_queries
from heygen_async.bulk.cluster.accounts import AccountStore
from heygen_async.bulk.cluster.api_calls import Api
from heygen_async.bulk.cluster.database import ClusterError
from heygen_async.bulk.cluster.delivery import WorkDelivery
from heygen_async.bulk.cluster.looks import Reachability
from heygen_async.bulk.cluster.output_folders import UnusableFolder, check_usable, folder_of, seen_from_here
from heygen_async.bulk.cluster.postgres import PostgresStore, learn_length, write
from heygen_async.bulk.cluster.rows import RunOptions, Stage, StoredRow, Ticket, WorkKind
from heygen_async.bulk.cluster.transitions import STEPS, after_step, cost_of
from heygen_async.bulk.effects import Tools, advance, check_target
from heygen_async.bulk.limits import asks_too_long, with_wait
from heygen_async.bulk.program import ENDS_RUN, RetryDelays, Step, failed_download, next_step
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import LostRow, UnixClock
from heygen_async.errors import (
    APIError,
    AuthenticationError,
    DownloadError,
    HeyGenError,
    InsufficientCredit,
    RateLimited,
)

_logger: Final = logging.getLogger("heygen_async")

_CREDIT_HINT: Final = "once there is credit, enqueue the same rows again: that adds none, and creates go on"
_REFUSED_HINT: Final = "then enqueue the same rows again: that adds none, and creates go on"
_PUT_BACK_SECONDS: Final = 1.0
"""How long a worker that ends tries to give a row back; otherwise the scheduler takes it."""


@frozen
class _Claimed:
    """A row whose step this worker takes."""

    row: StoredRow
    options: RunOptions
    offset: float
    """The database's time minus ours, if the answer to the claim took no time."""
    waited: float
    """How long the claim took: this worker may have been frozen before it read the answer."""

    def now(self) -> float:
        """Return the time by the database."""
        return _uptime.since_boot() + self.offset

    def latest(self) -> float:
        """Return the latest time that it can be by the database."""
        return self.now() + self.waited


@define(eq=False)
class _Work:
    """A step that is being taken."""

    task: asyncio.Task[None]
    kind: WorkKind
    version: int
    """The version of the row, as far as this worker has brought it."""


@define(eq=False)
class Steps:
    """The steps that a worker takes at the moment.

    Args:
        accounts: The account, with statements that wait for the database.
        delivery: Where work is put back.
        api: The API.
        worker: The name of the worker.
        reachability: Whether the API can be reached.
        delays: How long rows wait.
        tasks: The owner of the tasks.
        on_fatal: Called with what ends the worker, such as a refused key.
    """

    accounts: AccountStore
    delivery: WorkDelivery
    api: Api
    worker: str
    reachability: Reachability
    delays: RetryDelays
    tasks: TaskGroup
    on_fatal: Callable[[Exception], object]
    _works: dict[tuple[int, str], _Work] = field(factory=dict, init=False)
    _is_closing: bool = field(default=False, init=False)

    async def handle(self, kind: WorkKind, ticket: Ticket) -> None:
        """Take the step of a row that was delivered, unless its version is old."""
        place = (ticket.run, ticket.key)
        while (work := self._works.get(place)) is not None:
            if ticket.version <= work.version:
                return  # it was delivered twice
            # The row was taken from this worker, which was frozen: its old task can save nothing any more.
            if work.kind is not WorkKind.CREATE:
                work.task.cancel()
            await asyncio.wait([work.task])
        if self._is_closing:
            return
        task = self.tasks.create_task(self._take(kind, ticket), name=f"heygen-{kind}-{ticket.key}")
        self._works[place] = _Work(task, kind, ticket.version)
        task.add_done_callback(lambda _: self._works.pop(place, None))
        await asyncio.wait([task])

    def note_version(self, ticket: Ticket) -> None:
        """Note that this worker has saved a row in the middle of its step."""
        work = self._works.get((ticket.run, ticket.key))
        if work is not None:
            work.version = ticket.version

    async def close(self, grace: float) -> None:
        """Put transfers back, and wait up to *grace* seconds for creates."""
        self._is_closing = True
        works = list(self._works.values())
        for work in works:
            if work.kind is not WorkKind.CREATE:
                work.task.cancel()
        if works:
            _, late = await asyncio.wait([work.task for work in works], timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _take(self, kind: WorkKind, ticket: Ticket) -> None:
        try:
            started = _uptime.since_boot()
            claim = await self.accounts.claim(ticket, self.worker)
            if claim is not None:
                row, options, now = claim
                read = _uptime.since_boot()
                await _OneStep(self, _Claimed(row, options, now - read, read - started), row.record).take()
        except LostRow:
            _logger.info("the row %s was taken over by another worker", ticket.key)
        except (AuthenticationError, ClusterError) as error:
            await self._put_back(kind, ticket, is_begun=not isinstance(error, UnusableFolder))
            self.on_fatal(error)
        except asyncio.CancelledError:
            await asyncio.shield(self._put_back(kind, ticket))
            raise

    async def _put_back(self, kind: WorkKind, ticket: Ticket, *, is_begun: bool = True) -> None:
        """Give a row back, to be delivered again; without the database the scheduler finds it."""
        try:
            async with asyncio.timeout(_PUT_BACK_SECONDS):
                held = await self.accounts.release(ticket, self.worker, is_begun=is_begun)
                if held is not None:
                    await self.delivery.defer(kind, [held])
        except (TimeoutError, ClusterError) as error:
            _logger.info("the row %s is left to the scheduler: %s", ticket.key, error)


@define(eq=False)
class _OneStep:
    """One step of one row."""

    steps: Steps
    claimed: _Claimed
    record: Record
    """The record as it was last saved."""

    @property
    def _store(self) -> PostgresStore:
        accounts = self.steps.accounts
        return PostgresStore(accounts.database, accounts.account, self.claimed.row.run)

    async def take(self) -> None:
        """Take the step, and save what came of it."""
        claimed, row = self.claimed, self.claimed.row
        folder = folder_of(row.row, claimed.options)
        if folder is not None:
            await check_usable(folder)
        record, is_skipped = await self._advanced()
        if asks_too_long(record.failure):
            record = await self._refused_for_long(record, with_wait(record.failure))
        if isinstance(record.failure, InsufficientCredit):
            await self.steps.accounts.halt(f"{line_without_queries(str(record.failure))}; {_CREDIT_HINT}")
        if isinstance(record.failure, (InsufficientCredit, AuthenticationError)):
            record = evolve(record, is_stopped=False)
        self._note(record)
        after = after_step(
            evolve(row, record=self.record),
            evolve(record, version=self.record.version),
            claimed.latest() if record.hold else claimed.now(),  # no `Retry-After` is undercut
            max_attempts=claimed.options.max_attempts,
            delays=self.steps.delays,
            is_skipped=is_skipped,
        )
        await self._finish(after.saved())
        for warning in record.warnings if record.state is State.DONE else ():
            _logger.warning("the row %s: %s", record.key, warning)
        if isinstance(record.failure, AuthenticationError):
            self.steps.on_fatal(record.failure)

    async def _refused_for_long(self, record: Record, error: APIError) -> Record:
        """Return the record after a `Retry-After` that is not waited for: its row ends, or all creates are halted."""
        if self.claimed.row.stage is not Stage.CREATE or not isinstance(error, RateLimited):
            return evolve(record.stopped(error), hold=0.0)
        await self.steps.accounts.halt(f"{line_without_queries(str(error))}; {_REFUSED_HINT}")
        return evolve(record, hold=0.0)

    async def _advanced(self) -> tuple[Record, bool]:
        claimed, row = self.claimed, self.claimed.row
        record = row.record
        step = STEPS[row.stage]
        most = claimed.options.max_attempts
        if next_step(row.row, record, claimed.latest(), max_attempts=most, has_file=False) is not step:
            return record, True
        if step is Step.CREATE and record.is_fresh:
            try:
                await check_target(row.row, record)
            except DownloadError as error:  # nothing was sent
                return record.not_sent().stopped(error), True
        if step is Step.DOWNLOAD:
            record = await self._to_download(record)
            if record.failure is not None:
                return record, False
        tools = Tools(
            heygen=self.steps.api,
            store=self._store,
            clock=UnixClock(claimed.now, claimed.latest),
            delays=self.steps.delays,
        )
        return await advance(row.row, record, step, tools, self._save), False

    async def _to_download(self, record: Record) -> Record:
        """Return a record with its job, which has the link and the true length of the output.

        A worker that was frozen may hold the part, and give it its name when it comes back. What it has recorded of it
        must not be replaced until then.
        """
        target, delays = self.claimed.row.row.target, self.steps.delays
        if target is not None:
            record = await to_thread.run_sync(seen_from_here, record, target)
            if await to_thread.run_sync(is_in_use, target):
                return failed_download(record, DownloadError(f"{target} is being written", is_transient=True), delays)
        if record.lipsync_id is None:
            return record
        try:
            job = await self.steps.api.get(record.lipsync_id)
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            return failed_download(record, error, delays)
        return evolve(record, job=job, estimate=cost_of(self.claimed.row, job, self.claimed.options.rates))

    async def _save(self, record: Record) -> None:
        saved = evolve(record, version=self.record.version).next_version()
        await self._store.save(saved)
        self.record = saved
        self.steps.note_version(Ticket(self.claimed.row.run, saved.key, saved.version))

    async def _finish(self, row: StoredRow) -> None:
        """Save the row after its step, however long the database is away."""
        accounts = self.steps.accounts
        if not await write(accounts.database, accounts.account, [row], notifies=True):
            raise LostRow(f"{row.row.key} was saved by another worker")
        await learn_length(accounts.database, row)

    def _note(self, record: Record) -> None:
        error = record.failure
        is_unanswered = isinstance(error, HeyGenError) and error.is_transient and not isinstance(error, APIError)
        self.steps.reachability.note(is_answered=not is_unanswered)
