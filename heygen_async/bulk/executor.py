"""The executor of a row in one process: it takes the steps of the program, and is the only place that saves.

A row fails alone. Only what concerns all rows (the key, the store, a lasting outage) leaves it, as `RunAborted`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from anyio import to_thread
from attrs import Factory, define, field

from heygen_async._media.parts import remove_unneeded
from heygen_async.bulk.batches import IncompleteBatch
from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.create_queue import RowSeat
from heygen_async.bulk.effects import advance, after_failed_create, check_target
from heygen_async.bulk.events import RowStage, Stage
from heygen_async.bulk.job_end import checked_item, cost_of, ended_job, job_in_list, without_job
from heygen_async.bulk.limits import Unanswered, asks_too_long, with_wait
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import (
    ENDS_RUN,
    LAST_STEPS,
    NeverMade,
    Step,
    answer_of,
    ended,
    failed_step,
    intent,
    is_remembered,
    may_be_young,
    next_step,
    timed,
)
from heygen_async.bulk.record import UNDER_WAY, Record, State, evolve
from heygen_async.bulk.row_outcomes import new_outcome, outcome_of
from heygen_async.bulk.run_aborted import RunAborted
from heygen_async.bulk.run_context import RunContext
from heygen_async.bulk.spending import NoMoreCreates, Reservation
from heygen_async.bulk.store import LostRow
from heygen_async.errors import DownloadError, HeyGenError, InsufficientCredit, RateLimited
from heygen_async.models import DubOutcome

_BEFORE_CREATE: Final = frozenset({Step.PREPARE, Step.INTEND})
_NO_PROGRESS: Final = frozenset({Step.INTEND, Step.RENEW, Step.FINISH, Step.SEARCH})
"""Steps that do not show that the requests of a row are answered: they send nothing, or read the list alone."""
_STAGES: Final[dict[Step, Stage]] = {Step.PREPARE: "uploading", Step.WAIT: "running"}
"""The stages that begin with a step, and not within it."""


@define(eq=False)
class RowExecutor:
    """One row in one run.

    Args:
        run: What the rows of the run share.
        row: The row.
        record: Its record, as it was loaded.
        has_file: Whether its file exists.
        start_next: Lets another row start. Called once: when this one has a job, or waits for other rows or for money.
    """

    run: RunContext
    row: PreparedRow
    record: Record
    has_file: bool
    _start_next: Callable[[], None]
    _has_started_next: bool = False
    _unanswered: Unanswered = field(factory=Unanswered)
    _has_worked: bool = False
    _stage: RowStage = field(
        init=False,
        default=Factory(lambda self: RowStage(self.run.stages, self.row.key, self.row.place), takes_self=True),
    )
    _seat: RowSeat = field(
        init=False, default=Factory(lambda self: RowSeat(self.run.queue, self.row.number), takes_self=True)
    )
    _reservation: Reservation = field(
        init=False, default=Factory(lambda self: Reservation(self.run.spending), takes_self=True)
    )
    """What is reserved for its job, until its cost is known."""
    _earlier_job: int | None = field(
        init=False, default=Factory(lambda self: _attempt_with_job(self.record), takes_self=True)
    )
    """The attempt that had a job before this run; `None` if none had."""

    async def outcome(self) -> DubOutcome:
        """Take the remaining steps, and return the outcome.

        Raises:
            RunAborted: If something went wrong that concerns all rows.

        Cancelled, it leaves the store as it is: the row continues from there another time.
        """
        try:
            await self._work_alone()
        except OverBudget as reason:
            return self._reported(new_outcome(self.row, self.record, "skipped", reason))
        except NoMoreCreates as reason:
            self.run.spending.stop(reason.error)
            return self._reported(new_outcome(self.row, self.record, "skipped", reason.error))
        except LostRow as error:  # another executor has the row
            await self._remove_download()
            return self._reported(new_outcome(self.row, self.record, "failed", error))
        except ENDS_RUN as error:
            raise RunAborted(error) from error
        except asyncio.CancelledError:
            if self.record.state in UNDER_WAY:
                self._reservation.keep()  # its job goes on, and is paid
            raise
        finally:
            self._leave()
        return await self.result()

    def start_next(self) -> None:
        """Let another row start, unless that was done before."""
        if not self._has_started_next:
            self._has_started_next = True
            self._start_next()

    def step(self) -> Step:
        """Return what to do next."""
        run, record = self.run, self.record
        # The age of a key is not certain before the first date, nor while the API's clock may be wrong; after a
        # search it does not matter.
        is_certain = record.is_fresh or record.was_searched_for
        clock = run.tools.clock
        now = clock.now() if is_certain else clock.latest()
        return next_step(self.row, record, now, max_attempts=run.max_attempts, has_file=self.has_file)

    async def _work_alone(self) -> None:
        """Take the remaining steps, unless another call of this program writes the same file: before it is paid."""
        async with AsyncExitStack() as held:
            try:
                if self.row.target is not None:
                    await held.enter_async_context(self.run.tools.heygen.claim(self.row.target))
            except DownloadError as error:
                await self._save(self.record.stopped(error))
            else:
                await self._work()

    async def _work(self) -> None:
        # An interrupted row of a batch first waits for the other rows, and these may wait for the budget.
        state = self.record.state
        if state is State.SUBMITTED or (state is State.SUBMITTING and self.record.batch is None):
            self._reservation.resume(self.record.estimate)
        while (step := self.step()) not in LAST_STEPS:
            if not self._has_worked:
                await self.run.check_account()
                self._has_worked = True
                await self._take_over()
                continue  # the account's answer also shows the API's time, by which keys are judged
            await self._take_step(step)
            self._note_step(step)
            if step not in _BEFORE_CREATE and self.record.state not in UNDER_WAY and self.record.group is None:
                self._reservation.settle(self.record.estimate)
            await self._pause(step)

    def _leave(self) -> None:
        """Give back what the row holds, so that nothing waits for it."""
        self.start_next()
        self.run.batches.row_ended(self.record)
        self._seat.release(has_job=self.record.state is State.SUBMITTED)
        # Its cost will not become known in this run.
        self._reservation.settle(0.0 if self.record.state is State.PLANNED else self._reservation.price)

    async def _take_over(self) -> None:
        """Save a create that another executor recorded, which then cannot save an answer to it any more."""
        if self.record.state is State.SUBMITTING:
            await self._save(self.record)

    async def _take_step(self, step: Step) -> None:
        """Take one step, and save the record."""
        self._report_step(step)
        before = self.record = self.record.before_effect()
        started = self.run.queue.clock()
        try:
            record = await self._effect(step)
        except (OSError, ValueError) as error:  # such as an invalid id from the server
            record = self.record.stopped(error)
        if asks_too_long(record.failure):
            record = evolve(record.stopped(with_wait(record.failure)), hold=0.0)
        if record.failure is None:
            record = timed(step, record, before, self.run.queue.clock() - started)
        await self._save(record)
        if isinstance(record.failure, HeyGenError) and _ends_creates(step, record.failure):
            raise NoMoreCreates(record.failure)
        if record.ends_run and isinstance(record.failure, HeyGenError):
            raise RunAborted(record.failure)

    async def _effect(self, step: Step) -> Record:  # noqa: PLR0911 one for each step
        match step:
            case Step.PREPARE:
                return await self._reserve() or await self._upload()
            case Step.INTEND:
                return await self._reserve() or await self._intend()
            case Step.CREATE:
                return await self._create()
            case Step.WAIT:
                return await self._wait()
            case Step.DOWNLOAD:
                return await self._download()
            case Step.SEARCH:
                return await self._search()
            case _:
                return await self._advance(step)

    async def _search(self) -> Record:
        before, record = self.record, await self._advance(Step.SEARCH)
        if record.failure is None and not record.was_searched_for:  # else its create may have no answer again
            self.run.queue.recover()
        if before.batch is not None:
            self._note_search_in_batch(before.batch, before, record)
        return record

    def _note_search_in_batch(self, batch: str, before: Record, record: Record) -> None:
        """Let the other rows of the batch search too if its key is old; else they cannot be sent without this one."""
        now = self.run.tools.clock.now()
        if record.state is State.SUBMITTING and is_remembered(record, now):
            return  # it is sent again
        self._reservation.resume_once(before.estimate)
        if before.sent_at is None or may_be_young(before, now):  # a row in doubt says nothing of the key's age
            self.run.batches.leave(batch, record.key)
        else:
            self.run.batches.expire(batch)

    async def _save(self, record: Record) -> None:
        # A step may save more than once, and its record need not know it.
        self.record = evolve(record, version=self.record.version + 1)
        await self.run.tools.store.save(self.record)

    async def _advance(self, step: Step) -> Record:
        return await advance(self.row, self.record, step, self.run.tools, self._save)

    def _note_step(self, step: Step) -> None:
        """Note what a step that was taken means for the next ones."""
        if step is Step.RENEW:
            self._seat.hold(self.record.hold)
        if self.record.failure is None and step not in _NO_PROGRESS:
            self._unanswered = Unanswered()

    async def _pause(self, step: Step) -> None:
        """After a failure, wait until the step may be tried again, or stop the row."""
        error = self.record.failure
        if not isinstance(error, HeyGenError):  # any other error has stopped it
            return
        if self.record.is_stopped and not asks_too_long(error):  # else it counts for the other rows
            return
        self._report(self._stage.current or "waiting", str(error))
        if step is Step.DOWNLOAD:
            await asyncio.sleep(self.record.hold)
        else:
            await self._after_failure(step, error)

    async def _after_failure(self, step: Step, error: HeyGenError) -> None:
        """After a request without a usable answer, wait for the next chance; a create alone does so in the queue."""
        record, queue = self.record, self.run.queue
        was_sent = step is Step.CREATE and self.run.tools.searcher.is_prepared  # else the list could not be read
        is_alone = was_sent and record.batch is None and record.group is None
        is_refused = was_sent and isinstance(error, RateLimited)
        if is_alone:
            self._seat.hold(record.hold)
        if is_alone and is_refused:
            return  # the queue paces creates after a 429
        if not is_alone:
            queue.note_failure()
        unanswered = queue.count_unanswered(self._unanswered, error)
        if not is_refused:  # a 429 of a create is about the account, not about its rows
            self._unanswered = unanswered
        if self._unanswered.is_too_many:
            await self._save(record.stopped(error))
        elif not is_alone:
            await asyncio.sleep(max(queue.seconds_to_next(), record.hold))

    # Up to the job

    async def _reserve(self) -> Record | None:
        """Check the row and reserve its price, unless that was done; return the record of a row not created now."""
        self.run.spending.check_open()
        if self._reservation.price is not None:
            return None
        record = await self._before_reserving()
        if record is None:
            await self._reservation.make(self.row, before_waiting=self.start_next)
        return record

    async def _before_reserving(self) -> Record | None:
        """Check what may be wrong before money is reserved; return the record of a row that is not created now."""
        try:
            await check_target(self.row, self.record)
            await self._prepare_run()
            found = await self.run.tools.searcher.lost_job(self.record, self.row.row, self.run.max_attempts)
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            return failed_step(self.record, error)
        return None if found is None else self._adopted(*found)

    async def _prepare_run(self, *, is_needed: bool = True) -> None:
        """Before the first create of a run: find jobs that its store does not know."""
        if self.run.tools.searcher.is_prepared:
            return
        try:
            await self.run.tools.searcher.prepare(in_batches=self.run.is_batching, is_needed=is_needed)
        except HeyGenError as error:
            if asks_too_long(error):
                raise NoMoreCreates(with_wait(error)) from error
            raise
        self.run.queue.recover()

    def _adopted(self, attempt: int, lipsync_id: str) -> Record:
        """Return the record of a row whose job an interrupted run created without a record of it."""
        price = self.row.price(self.run.spending.budget)
        self._reservation.resume(price, is_new=True)
        return self.record.adopted(attempt, lipsync_id, self.run.tools.clock.now(), estimate=price)

    async def _upload(self) -> Record:
        record = await self._advance(Step.PREPARE)
        if record.failure is None:  # the API answers
            self.run.queue.recover()
        return record

    async def _intend(self) -> Record:
        self._report("waiting")
        if self.run.is_batching:
            return await self.run.batches.join(self.row, self._intent(), before_waiting=self.start_next)
        await self._enter()
        self.run.spending.check_open()
        return evolve(self._intent(), group=None)

    def _intent(self) -> Record:
        return intent(self.row, self.record, self.run.tools.clock.now(), estimate=self._reservation.price or 0.0)

    async def _enter(self) -> None:
        await self._seat.take(self.record.tries)
        self._report("submitting")

    async def _create(self) -> Record:
        try:
            await self._prepare_run(is_needed=False)
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            if error.is_transient:
                return self.record.failing(error)
            # Without the list nothing new is sent, but the API still knows the key of this one.
        if self.record.batch is not None:
            return await self._create_in_batch()
        return await self._seen_job() or await self._create_alone()

    async def _create_alone(self) -> Record:
        if not self._seat.is_taken:
            self._report("waiting")
            await self._enter()
            if self.step() is not Step.CREATE:  # meanwhile the server may have forgotten the key
                self._seat.release(has_job=False)
                return self.record
        record = await self._advance(Step.CREATE)
        error = record.failure
        if isinstance(error, RateLimited) and asks_too_long(error):
            self.run.spending.stop(with_wait(error))  # first: another row may get the seat
            self._seat.answered("rejected", None)  # the rows that wait for a seat are left out, and must not wait
        else:
            self._seat.answered(answer_of(record), error.retry_after if isinstance(error, RateLimited) else None)
        return record

    async def _seen_job(self) -> Record | None:
        """Return the record of a create that is to be sent again with its job, if one has been seen in the list."""
        if self.record.is_fresh:
            return None
        try:
            return await self.run.tools.searcher.seen_job(self.record)
        except ENDS_RUN:
            raise
        except HeyGenError:
            return None  # the API still knows the key

    async def _create_in_batch(self) -> Record:
        record = await self.run.batches.create(self.row, self.record, before_waiting=self.start_next)
        if isinstance(record.failure, IncompleteBatch):
            record = await job_in_list(self.run, self.row, self.record, record.failure)
        self._reservation.resume_once(self.record.estimate)
        return record

    # From the job on

    async def _wait(self) -> Record:
        self.start_next()
        record = self.record
        if record.batch_id is None:  # a job in a batch takes no seat of the account
            self._seat.adopt()
        started = self.run.queue.clock()
        try:
            job = await ended_job(self.run, record)
        except NeverMade as error:
            never = evolve(record.never_made(), is_fresh=True)
            return await after_failed_create(self.row, never, error, self.run.tools)
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            # An API that does not show new jobs yet would get one after the other, each of them to be paid.
            is_of_earlier_run = record.attempt == self._earlier_job
            after = await without_job(self.run, self.row, record, error, is_of_earlier_run=is_of_earlier_run)
            if after.state is State.PLANNED:
                self._reservation.settle(record.estimate)  # the job may have been paid
            return after
        finally:
            self._seat.release(has_job=True)
        checked = await checked_item(self.run, self.row, record, job)
        if checked is not None:
            return checked
        record = ended(record, job, cost=await cost_of(self.run, self.row, record, job))
        return evolve(record, wait_seconds=self.run.queue.clock() - started)

    async def _remove_download(self) -> None:
        """Remove an unfinished download if another executor has finished the row."""
        if self.row.target is not None and self.record.lipsync_id is not None:
            await to_thread.run_sync(remove_unneeded, self.row.target, self.record.lipsync_id)

    async def _download(self) -> Record:
        self.start_next()
        async with self.run.downloads:
            self._report("downloading")
            record = await self._advance(Step.DOWNLOAD)
        self.has_file = self.has_file or record.state is State.DONE
        return record

    # The end

    async def result(self) -> DubOutcome:
        """Return the outcome of a row for which nothing is left to do."""
        return self._reported(await outcome_of(self.row, self.record, has_worked=self._has_worked))

    def _reported(self, outcome: DubOutcome) -> DubOutcome:
        self._report(outcome.state, None if outcome.error is None else str(outcome.error))
        return outcome

    # Events

    def _report_step(self, step: Step) -> None:
        if step is Step.RENEW:
            self._report("waiting", f"the job failed and is tried again: {self.record.error}")
        elif step in _STAGES:
            self._report(_STAGES[step])

    def _report(self, stage: Stage, message: str | None = None) -> None:
        self._stage.report(stage, message, lipsync_id=self.record.lipsync_id)


def _ends_creates(step: Step, error: HeyGenError) -> bool:
    """Return whether the account may create nothing: it is out of credit, or refuses creates for too long."""
    is_refused = step is Step.CREATE and isinstance(error, RateLimited)
    return isinstance(error, InsufficientCredit) or (is_refused and asks_too_long(error))


def _attempt_with_job(record: Record) -> int | None:
    return record.attempt if record.state is State.SUBMITTED else None
