"""A bulk run in one process: rows in, outcomes out, with a bounded number of active rows in between.

`_feed` takes admitted rows, slice by slice, and starts a task for each. Two semaphores hold it back. `ahead` is
released once a row has a job, so that uploads are only so far ahead of creates. `window` is released when an outcome
is taken, so that memory stays bounded; rows that wait for the others of an interrupted batch, which may come later,
do not count. Creates wait in the create queue. Downloads have a semaphore of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from anyio import to_thread
from attrs import frozen

from heygen_async._media.targets import expanded
from heygen_async._task_group import TaskGroup, first_error
from heygen_async.bulk.batches import BatchCollector
from heygen_async.bulk.budget import Budget
from heygen_async.bulk.checks import AdmittedRow, RefusedRow, RowChecker
from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.effects import Tools
from heygen_async.bulk.events import DubSnapshot, StageCounter
from heygen_async.bulk.executor import RowExecutor
from heygen_async.bulk.folders import check_creatable, check_writable, temporary_folder
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.journal_file import check_place
from heygen_async.bulk.limits import CircuitBreaker, Limiter
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.own_files import OwnFiles, check_manifest, own_files_of
from heygen_async.bulk.owner import Owner
from heygen_async.bulk.plan import Plan, check_rows
from heygen_async.bulk.program import LAST_STEPS
from heygen_async.bulk.report import default_report, write_report
from heygen_async.bulk.row_outcomes import refused_outcome
from heygen_async.bulk.row_source import Rows, Snapshot, can_be_read_twice, new_snapshot, slices_of
from heygen_async.bulk.run_aborted import RunAborted
from heygen_async.bulk.run_context import RunContext
from heygen_async.bulk.spending import Spending
from heygen_async.bulk.store import HeyGen
from heygen_async.bulk.survey import Survey, SurveyBuilder
from heygen_async.bulk.window import Window
from heygen_async.errors import HeyGenError
from heygen_async.models import DubOutcome

_AHEAD: Final = {"each": 16, "batch": 200}
"""How many rows may be before their create: uploading, or waiting for a seat or for the other rows of a batch."""

_WINDOW: Final = 1000
"""How many rows may be active, or have an outcome that was not taken yet."""

_DOWNLOADS: Final = 4
"""Half of the session's transfers: the other half is left for uploads, which creates wait for."""

_GRACE: Final = 5.0
"""Seconds that the end of a run waits for the answers of creates, so that their outcome is known."""


Outcomes: TypeAlias = asyncio.Queue[DubOutcome | None]
"""The outcomes that were not taken yet; `None` is their end."""


@frozen(kw_only=True)
class _Active:
    """A run that was entered."""

    main: asyncio.Task[None]
    outcomes: Outcomes
    resources: AsyncExitStack


def _context_of(heygen: HeyGen, journal: Journal, plan: Plan, owner: Owner) -> RunContext:
    limiter = Limiter() if plan.max_in_flight is None else Limiter(most=plan.max_in_flight)
    queue = CreateQueue(limiter, CircuitBreaker())
    tools = Tools(heygen=heygen, store=journal, clock=plan.clock, delays=plan.delays)
    window = Window(_WINDOW)
    return RunContext(
        tools=tools,
        queue=queue,
        spending=Spending(Budget(plan.rates, plan.budget)),
        stages=StageCounter(plan.on_event),
        batches=BatchCollector(tools, queue, window),
        window=window,
        downloads=asyncio.Semaphore(_DOWNLOADS),
        max_attempts=plan.max_attempts,
        retry_failed=plan.retry_failed,
        is_batching=plan.submit == "batch",
        check_account=owner.check,
    )


class DubRun:
    """A bulk run: made by `HeyGenSession.dub_many`, entered with `async with`, iterated with `async for`.

    ::

        async with heygen.dub_many(rows, journal="run.sqlite", output_dir="out") as run:
            async for outcome in run:
                print(outcome.key, outcome.state)

    Outcomes arrive in order of completion. Leaving the `async with`, in whatever way, ends the run: creates that were
    sent get up to 5 seconds for their answers, everything else is cancelled, and the journal can be resumed from. A
    run is entered once.
    """

    def __init__(self, heygen: HeyGen, rows: Rows, plan: Plan, *, origin: str) -> None:
        check_rows(rows)
        self._rows = rows
        self._plan = plan
        self._journal = Journal(plan.journal, origin=origin)
        self._owner = Owner(heygen, self._journal)
        self._context = _context_of(heygen, self._journal, plan, self._owner)
        self._state: Literal["new", "running", "over"] = "new"
        self._active: _Active | None = None
        self._is_error_raised = False
        self._total: int | None = None
        self._own_files: OwnFiles = {}
        self._ahead = asyncio.Semaphore(_AHEAD[plan.submit])

    # The life of a run

    async def __aenter__(self) -> Self:
        """Lock the journal, check all rows (those of an iterator as they arrive), and start.

        Raises:
            BadRows: If rows are wrong; nothing was sent.
            JournalError: If the journal cannot be used, or another run has it.
            OSError: If the output folder, or the folder for temporary files, cannot be written to.
            ValueError: If the journal, or its report, is the manifest.
            RuntimeError: If it was entered before.

        If cancelled, it closes the journal; nothing was sent.
        """
        if self._state != "new":
            raise RuntimeError("a run is entered once; make another with dub_many")
        self._state = "running"
        async with AsyncExitStack() as resources:
            await self._journal.open()
            resources.push_async_callback(self._journal.aclose)
            await self._check_files(self._journal)
            snapshot = await resources.enter_async_context(new_snapshot())
            is_checked = await self._check_rows(snapshot)
            await check_writable(self._plan.output_dir)
            await self._load_spending(self._journal)
            outcomes: Outcomes = asyncio.Queue()  # a `get` that is cancelled takes nothing
            resources.callback(outcomes.put_nowait, None)  # the task may be cancelled before it starts
            main = asyncio.create_task(self._run(snapshot if is_checked else None, outcomes), name="heygen-dub-run")
            self._active = _Active(main=main, outcomes=outcomes, resources=resources.pop_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run, and close the journal.

        Raises:
            Exception: What ended the run early, unless the body has raised an error, or the iteration has raised this
                one already.

        If cancelled, it waits no longer for the answers of creates, and closes the journal all the same.
        """
        self._state = "over"
        active = self._active
        assert active is not None  # noqa: S101 __aenter__ made it
        try:
            await self.stop()
        finally:
            await _end(active)
        if error is None:
            self._raise_error(active.main)

    @property
    def journal(self) -> Journal:
        """The journal, which is open inside `async with`."""
        return self._journal

    async def stop(self) -> None:
        """Create nothing more, and wait up to 5 seconds for the creates that have no answer yet.

        Leaving the `async with` does the same. Call it first where the report is to have their answers. Rows that wait
        for their create then have no outcome, so do not wait for the end of the iteration. If cancelled, it waits no
        longer; nothing more is created all the same.
        """
        if self._active is not None and not self._active.main.done():
            await self._context.queue.close(_GRACE)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DubOutcome:
        """Return the next outcome, in order of completion.

        Raises:
            InsufficientCredit: After the last outcome, if the account is out of credit.
            APIError: After the last outcome, if nothing may be created for over an hour, by the `Retry-After` of a 429
                or of the list of jobs.
            AuthenticationError: If the key is refused.
            JournalError: If the journal cannot be written any more.
            HeyGenError: If the API could not be reached for an hour, or from the beginning.
            RuntimeError: Outside of `async with`, or if the rows raise `CancelledError`.

        If cancelled, no outcome is lost: the next call returns it.
        """
        active = self._active
        if self._state != "running" or active is None:
            raise RuntimeError("a run is iterated inside `async with`")
        outcome = await active.outcomes.get()
        if outcome is None:
            active.outcomes.put_nowait(None)  # for the next call
            await asyncio.wait([active.main])
            self._raise_error(active.main)
            raise StopAsyncIteration
        self._context.window.leave(outcome.key)
        return outcome

    def _raise_error(self, main: asyncio.Task[None]) -> None:
        """Raise the error that ended the run early, once."""
        if not main.done() or main.cancelled():
            return
        error = main.exception()
        if error is not None and not self._is_error_raised:
            self._is_error_raised = True
            raise error

    def snapshot(self) -> DubSnapshot:
        """Return the progress of the run; also after its end."""
        queue, spending, owner = self._context.queue, self._context.spending, self._owner
        limiter, budget = queue.limiter, spending.budget
        return DubSnapshot(
            stages={stage: count for stage, count in self._context.stages.stages.items() if count},
            total=self._total,
            in_flight=limiter.in_flight,
            limit=int(min(limiter.limit, limiter.most)),
            refusals=limiter.refusals,
            estimate=budget.spent,
            spent=budget.spent - budget.under_way,
            reserved=budget.under_way,
            budget=budget.limit,
            balance_before=owner.before,
            balance_after=owner.after,
            trouble=queue.last_error if queue.breaker.failures else None,
            halted=_text(spending.no_creates or spending.over_budget),
        )

    async def survey(self) -> Survey:
        """Check all rows and estimate what a run would do; nothing is sent, and no journal is created.

        It is for a run that was not entered; the rows of an iterator are used up.

        Raises:
            BadRows: If rows are wrong.
            JournalError: If the journal cannot be read or created, or a run uses it.
            OSError: If the output folder, or the folder for temporary files, cannot be written to.
            ValueError: If the journal, or its report, is the manifest.
            RuntimeError: If the run was entered.

        If cancelled, it closes the journal and removes its temporary files.
        """
        if self._state != "new":
            raise RuntimeError("a run is surveyed before it is entered")
        builder = SurveyBuilder(self._plan.max_attempts, self._context.spending.budget, self._plan.clock.now)
        async with temporary_folder() as folder, AsyncExitStack() as resources:
            path = await to_thread.run_sync(self._existing_journal, folder)
            journal = Journal(path, origin=self._journal.origin, keeps_rows=False)
            await journal.open()
            resources.push_async_callback(journal.aclose)
            await self._check_files(journal)
            await self._load_spending(journal)
            async with aclosing(self._checker(journal).admit_all(slices_of(self._rows))) as admitted:
                async for rows in admitted:
                    for one in rows:
                        builder.add(one.row, one.record, has_file=one.has_file)
            await check_creatable(self._plan.output_dir)
        return builder.survey()

    def _existing_journal(self, folder: Path) -> Path:
        """Return the path of the journal, or one in *folder*, which is deleted soon, if there is no journal yet."""
        path = self._plan.journal
        if path is None:
            return folder / "survey.sqlite"
        check_place(path)
        return path if path.exists() else folder / "survey.sqlite"

    async def write_report(self, path: Path) -> None:
        """Write the state of each row to *path*, as CSV; inside `async with`, at any time.

        Raises:
            ValueError: If the manifest or the journal of the run is there.
            OSError: If it cannot be written.
            JournalError: If the journal cannot be read.
            RuntimeError: Outside of `async with`.

        If cancelled, *path* has either the whole report or what it had before.
        """
        if self._state != "running":
            raise RuntimeError("a report is written inside `async with`")
        await write_report(self._journal, Path(expanded(path)), self._own_files)

    async def _load_spending(self, journal: Journal) -> None:
        """Continue the estimates of earlier runs."""
        budget = self._context.spending.budget
        budget.spent = await journal.estimate()
        budget.learn_length(float(await journal.fact("longest") or 0.0))

    # Checks before the run

    def _checker(self, journal: Journal) -> RowChecker:
        return RowChecker(journal, self._plan, self._own_files)

    async def _check_files(self, journal: Journal) -> None:
        """Check the files of the run itself."""
        manifest = self._rows if isinstance(self._rows, Manifest) else None
        path = self._plan.journal
        if manifest is not None:
            await check_manifest(journal, manifest)
        if manifest is not None or path is not None:
            report = None if path is None else default_report(path)
            name = None if manifest is None else manifest.path
            find = partial(own_files_of, manifest=name, journal=path, report=report)
            self._own_files = await to_thread.run_sync(find)

    async def _check_rows(self, snapshot: Snapshot) -> bool:
        """Admit every row before anything is sent, into *snapshot*; return whether that is possible."""
        if not can_be_read_twice(self._rows):
            return False
        total = 0
        async with aclosing(self._checker(self._journal).admit_all(slices_of(self._rows))) as admitted:
            async for rows in admitted:
                await snapshot.add(rows)
                total += len(rows)
        await snapshot.complete()
        self._total = total
        return True

    # The run itself, in its own task

    async def _run(self, snapshot: Snapshot | None, outcomes: Outcomes) -> None:
        batches = self._context.batches
        failure: BaseException | None = None
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(batches.run())
                async with TaskGroup() as rows:
                    await self._feed(self._admitted(snapshot), rows, outcomes)
                    batches.no_more_candidates()
                batches.close()
            await self._owner.look_again()
            if self._context.spending.no_creates is not None:
                raise self._context.spending.no_creates
        except BaseExceptionGroup as failed:
            failure = first_error(failed)
        finally:
            outcomes.put_nowait(None)
        if failure is not None:  # raised here it keeps its cause and its context
            raise failure.error if isinstance(failure, RunAborted) else failure

    def _admitted(self, snapshot: Snapshot | None) -> AsyncGenerator[Sequence[AdmittedRow | RefusedRow], None]:
        """Return the slices of *snapshot*, or of rows that are checked as they arrive."""
        return self._checker(self._journal).admit_each(slices_of(self._rows)) if snapshot is None else snapshot.slices()

    async def _feed(
        self,
        slices: AsyncGenerator[Sequence[AdmittedRow | RefusedRow], None],
        tasks: TaskGroup,
        outcomes: Outcomes,
    ) -> None:
        async with aclosing(slices):
            async for rows in slices:
                for one in rows:
                    await self._context.window.enter()
                    if isinstance(one, RefusedRow):
                        outcomes.put_nowait(refused_outcome(one))
                    else:
                        await self._start(one, tasks, outcomes)

    async def _start(self, one: AdmittedRow, tasks: TaskGroup, outcomes: Outcomes) -> None:
        executor = RowExecutor(self._context, one.row, one.record, one.has_file, self._start_next)
        if executor.step() in LAST_STEPS:
            outcomes.put_nowait(await executor.result())
        else:
            await self._ahead.acquire()
            self._context.batches.add_candidate()
            tasks.create_task(_work(executor, outcomes))

    def _start_next(self) -> None:
        """Let another row start: one is past its create, or waits for something that others must do."""
        self._ahead.release()
        self._context.batches.remove_candidate()


async def _work(executor: RowExecutor, outcomes: Outcomes) -> None:
    outcomes.put_nowait(await executor.outcome())


# Ends


async def _end(active: _Active) -> None:
    """Cancel the run, and wait until it has ended and the journal is closed, cancelled or not: both are quick."""
    active.main.cancel()
    closing: asyncio.Task[None] | None = None
    interrupted: asyncio.CancelledError | None = None
    while closing is None or not closing.done():
        try:
            await asyncio.wait([active.main])
            closing = closing or asyncio.create_task(active.resources.aclose())
            await asyncio.wait([closing])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _text(error: HeyGenError | None) -> str | None:
    return None if error is None else str(error)
