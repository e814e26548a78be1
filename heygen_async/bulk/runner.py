"""A bulk run in one process: rows in, outcomes out, and between them as many rows at work as pays.

Who waits for whom: `_feed` takes rows in, slice by slice, and starts a task for each. It waits for a seat in `ahead`,
which a row gives back once its job is asked for, so that uploads are only so far ahead of creates; and for one in
`window`, which is given back when the outcome is taken, so that nobody's memory fills. Creates wait in `Slots`.
Downloads have seats of their own, and nothing waits for them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, closing, suppress
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias, get_args

from anyio import to_thread
from attrs import field, frozen

from heygen_async._arguments import check_count
from heygen_async.bulk import outputs
from heygen_async.bulk.batches import Batcher
from heygen_async.bulk.budget import Budget, check_budget, check_rates
from heygen_async.bulk.folders import check_writable, temporary_folder
from heygen_async.bulk.intake import OwnFiles, PreparedRow, check_manifest, own_files_of, prepare
from heygen_async.bulk.journal import Admission, Journal, JournalError, Problem
from heygen_async.bulk.limits import Limiter, Weather
from heygen_async.bulk.manifest import Manifest, SourceRow
from heygen_async.bulk.progress import DubEvent, DubSnapshot, Tally
from heygen_async.bulk.record import Record, State, Step
from heygen_async.bulk.report import default_report, write_report
from heygen_async.bulk.searching import Searcher
from heygen_async.bulk.slots import Slots
from heygen_async.bulk.spool import Spool, spooled
from heygen_async.bulk.survey import Survey, SurveyBuilder
from heygen_async.bulk.worker import Fatal, Patience, RowRun, Workshop
from heygen_async.errors import HeyGenError
from heygen_async.models import Account, DubOutcome, DubRow, Wallet
from heygen_async.session import HeyGenSession

Submit: TypeAlias = Literal["each", "batch"]

Rows: TypeAlias = Iterable[DubRow] | AsyncIterable[DubRow]

_SLICE: Final = 100
"""How many rows are looked at in one go."""

_AHEAD: Final = {"each": 16, "batch": 200}
"""How many rows may stand before their create: uploading, or waiting for a seat or for company."""

_WINDOW: Final = 1000
"""How many rows may be at work, or have an outcome that nobody has taken yet."""

_GRACE: Final = 5.0
"""How many seconds the end of a run waits for creates in the air, so that it is known what became of them."""

_BALANCE_SECONDS: Final = 10.0
"""How long to wait for the account's balance."""

_MOST_PROBLEMS: Final = 1000
"""How many problems of rows are kept in memory."""


class BadRows(ValueError):
    """Raised when rows cannot be run, before anything is sent.

    Attributes:
        problems: What is wrong, each with its place; the first thousand.
        count: How many there are.
    """

    def __init__(self, problems: Sequence[Problem], count: int) -> None:
        self.problems = list(problems)
        self.count = count
        shown = [str(problem) for problem in self.problems[:20]]
        more = [f"and {count - len(shown)} more"] if count > len(shown) else []
        super().__init__(
            "\n".join([f"{count} errors in the rows:" if count > 1 else "1 error in the rows:", *shown, *more])
        )


@frozen(kw_only=True)
class Plan:
    """How a run goes; see `HeyGenSession.dub_many`."""

    journal: Path | None
    output_dir: Path | None = None
    max_in_flight: int | None = None
    max_attempts: int = 3
    budget: float | None = None
    rates: Mapping[str, float]
    submit: Submit = "each"
    captions: bool = False
    retry_failed: bool = False
    on_event: Callable[[DubEvent], None] | None = None
    patience: Patience = field(factory=Patience)
    now: Callable[[], float] = time.time


class DubRun:
    """A bulk run: made by `HeyGenSession.dub_many`, entered with `async with`, iterated with `async for`.

    ::

        async with heygen.dub_many(rows, journal="run.sqlite", output_dir="out") as run:
            async for outcome in run:
                print(outcome.key, outcome.state)

    Outcomes come in order of completion. Leaving the `async with`, in whatever way, ends the run: creates that are in
    the air get up to 5 seconds, everything else is cancelled, and the journal can be resumed from. It is entered once.
    """

    def __init__(self, heygen: HeyGenSession, creates: HeyGenSession, rows: Rows, plan: Plan, *, origin: str) -> None:
        self._heygen = heygen
        self._rows = rows
        self._plan = plan
        self._journal = Journal(plan.journal, origin=origin)
        self._tally = Tally(plan.on_event)
        limiter = Limiter() if plan.max_in_flight is None else Limiter(most=plan.max_in_flight)
        self._slots = Slots(limiter, Weather(), lambda: asyncio.get_running_loop().time())
        self._budget = Budget(plan.rates, plan.budget)
        self._batcher = Batcher()
        self._shop = Workshop(
            heygen=heygen,
            creates=creates,
            journal=self._journal,
            slots=self._slots,
            budget=self._budget,
            searcher=Searcher(heygen, self._journal, plan.now),
            tally=self._tally,
            max_attempts=plan.max_attempts,
            patience=plan.patience,
            batcher=self._batcher,
            is_batching=plan.submit == "batch",
            check_account=self._check_account,
            now=plan.now,
        )
        self._batcher.shop = self._shop
        self._state: Literal["new", "running", "over"] = "new"
        self._main: asyncio.Task[None] | None = None
        self._bell = asyncio.Event()
        self._outcomes: deque[DubOutcome] = deque()
        self._is_error_told = False
        self._total: int | None = None
        self._ahead = asyncio.Semaphore(_AHEAD[plan.submit])
        self._window = asyncio.Semaphore(_WINDOW)
        self._balances: list[Wallet | None] = [None, None]
        self._asking = asyncio.Lock()
        self._has_asked = False
        self._own_files: OwnFiles = {}
        self._spool: Spool | None = None
        self._resources = AsyncExitStack()

    # The life of a run

    async def __aenter__(self) -> Self:
        """Lock the journal, check all rows (those of a one-time iterator as they come), and start.

        Raises:
            BadRows: If rows are wrong; nothing was sent.
            JournalError: If the journal cannot be used, or another run has it.
            OSError: If the output folder cannot be written to.
            ValueError: If the journal, or its report, is the manifest.
        """
        if self._state != "new":
            raise RuntimeError("a run is entered once; make another with dub_many")
        self._state = "running"
        await self._journal.open()
        try:
            if isinstance(self._rows, Manifest):
                await check_manifest(self._journal, self._rows)
            self._own_files = await self._find_own_files()
            await check_writable(self._plan.output_dir)
            await self._check()
            self._budget.spent = await self._journal.estimate()
        except BaseException:
            await self._resources.aclose()
            await self._journal.aclose()
            raise
        self._main = asyncio.create_task(self._run(), name="heygen-dub-run")
        self._main.add_done_callback(lambda _: self._bell.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "over"
        main = self._main
        assert main is not None  # noqa: S101 __aenter__ made it
        try:
            await self.stop()
        finally:
            try:
                await _end(main, self._journal)
            finally:
                await self._resources.aclose()
        if error is None:
            self._raise_error()

    async def stop(self) -> None:
        """Create nothing more, and wait up to 5 seconds for the creates that have no answer yet.

        Leaving the `async with` does the same. Call it first where the report is to have their answers.
        """
        if self._main is not None and not self._main.done():
            await self._slots.close(_GRACE)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DubOutcome:
        """Return the next outcome, in order of completion.

        Raises:
            InsufficientCredit, AuthenticationError: If the account or the key ended the run.
            JournalError: If the journal cannot be written any more.
            HeyGenError: If the API could not be reached for an hour, or from the beginning.
            RuntimeError: Outside of `async with`.
        """
        if self._state != "running":
            raise RuntimeError("a run is iterated inside `async with`")
        while not self._outcomes:
            if self._main is None or self._main.done():
                self._raise_error()
                raise StopAsyncIteration
            self._bell.clear()
            await self._bell.wait()
        self._window.release()
        return self._outcomes.popleft()

    def _raise_error(self) -> None:
        """Raise what ended the run before its time, once."""
        main = self._main
        if main is None or not main.done() or main.cancelled():
            return
        error = main.exception()
        if error is not None and not self._is_error_told:
            self._is_error_told = True
            raise error

    def snapshot(self) -> DubSnapshot:
        """Return how far the run is."""
        limiter = self._slots.limiter
        return DubSnapshot(
            stages={stage: count for stage, count in self._tally.stages.items() if count},
            total=self._total,
            in_flight=limiter.in_flight,
            limit=int(min(limiter.limit, limiter.most)),
            refusals=limiter.refusals,
            estimate=self._budget.spent,
            spent=self._budget.spent - self._budget.under_way,
            reserved=self._budget.under_way,
            budget=self._budget.limit,
            balance_before=self._balances[0],
            balance_after=self._balances[1],
            trouble=self._slots.last_trouble if self._slots.weather.troubles else None,
            halted=_text(self._shop.no_credit or self._shop.over_budget),
        )

    async def survey(self) -> Survey:
        """Check all rows and reckon what a run would do; nothing is sent, and a journal is not made.

        It is for a run that has not been entered; the rows are read, so those of an iterator are used up.

        Raises:
            BadRows: If rows are wrong.
            JournalError: If the journal cannot be read, or a run has it.
        """
        if self._state != "new":
            raise RuntimeError("a run is surveyed before it is entered")
        async with temporary_folder() as folder:
            found = SurveyBuilder(self._plan.max_attempts, self._budget, self._plan.now)
            self._own_files = await self._find_own_files()
            journal = Journal(await to_thread.run_sync(self._existing_journal, folder), origin=self._journal.origin)
            await journal.open()
            try:
                if isinstance(self._rows, Manifest):
                    await check_manifest(journal, self._rows)
                async with aclosing(self._looked_at(journal)) as looked_at:
                    async for tasks, records in looked_at:
                        found.add(tasks, records, await _files_there(records))
            finally:
                await journal.aclose()
        return found.survey()

    async def _find_own_files(self) -> OwnFiles:
        """Return the files of the run itself, which no row may write."""
        manifest = self._rows.path if isinstance(self._rows, Manifest) else None
        journal = self._plan.journal
        if manifest is None and journal is None:
            return {}
        report = None if journal is None else default_report(journal)
        return await to_thread.run_sync(partial(own_files_of, manifest=manifest, journal=journal, report=report))

    def _existing_journal(self, folder: Path) -> Path:
        """Return the journal's path, or where there is none yet one in *folder*, which is soon gone."""
        path = self._plan.journal
        return path if path is not None and path.exists() else folder / "survey.sqlite"

    async def write_report(self, path: Path) -> None:
        """Write the state of each row to *path*, as CSV; inside `async with`, at any time.

        Raises:
            ValueError: If the manifest or the journal of the run is there.
            OSError: If it cannot be written.
            JournalError: If the journal cannot be read.
        """
        if self._state != "running":
            raise RuntimeError("a report is written inside `async with`")
        await write_report(self._journal, path, self._own_files)

    # The run itself, in a task of its own

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as rows:
                self._batcher.group = rows
                await self._feed(rows)
                self._batcher.fed()
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        if self._has_asked:
            account = await self._account()
            self._balances[1] = None if account is None else account.wallet
        if self._shop.no_credit is not None:
            raise self._shop.no_credit

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        async with aclosing(self._slices()) as slices:
            async for placed in slices:
                for row in await self._begin(placed):
                    await self._window.acquire()
                    await self._start(row, group)

    async def _start(self, row: RowRun | DubOutcome, group: asyncio.TaskGroup) -> None:
        if isinstance(row, DubOutcome):
            self._hand_out(row)
        elif row.next_step() in {Step.NOTHING, Step.GIVE_UP}:
            self._hand_out(await row.outcome())
        else:
            await self._ahead.acquire()
            self._batcher.expect()
            row.on_submitted = _once(self._go_ahead)
            group.create_task(self._work(row))

    async def _begin(self, placed: Sequence[SourceRow]) -> list[RowRun | DubOutcome]:
        """Take rows into the run; one that cannot be, though all were looked at before, fails alone."""
        made = await self._prepared(placed, self._journal)
        admitted = await self._journal.admit([task.entry for task in made if isinstance(task, PreparedRow)])
        records = [self._renewed(one) for one in admitted]
        files = await _files_there(records)
        left = iter(records)
        rows: list[RowRun | DubOutcome] = []
        for task in made:
            if not isinstance(task, PreparedRow):
                rows.append(_failed(task.row, task.problems))
            elif isinstance(record := next(left), Record):
                rows.append(RowRun(self._shop, task, record, has_file=record.target in files))
            else:
                rows.append(_failed(task.row, [record]))
        return rows

    async def _prepared(self, placed: Sequence[SourceRow], journal: Journal) -> list[PreparedRow | SourceRow]:
        plan = self._plan
        return await prepare(placed, journal, plan.output_dir, captions=plan.captions, own_files=self._own_files)

    def _go_ahead(self) -> None:
        """One row less stands before its create."""
        self._ahead.release()
        self._batcher.came()

    async def _work(self, row: RowRun) -> None:
        self._hand_out(await row.outcome())

    def _hand_out(self, outcome: DubOutcome) -> None:
        self._outcomes.append(outcome)
        self._bell.set()

    def _renewed(self, admitted: Admission) -> Admission:
        """Return the record with another attempt, where the caller asked for one."""
        if isinstance(admitted, Problem) or not self._plan.retry_failed:
            return admitted
        return admitted.forgiving()

    async def _check_account(self) -> None:
        """Look at the account, once, before anything is done: the journal belongs to one, where the API tells which.

        Raises:
            JournalError: If it belongs to another account.
        """
        async with self._asking:
            if self._has_asked:
                return
            account = await self._account()
            if account is not None:
                self._balances[0] = account.wallet
                await self._check_owner(account.username)
            self._has_asked = True

    async def _check_owner(self, username: str) -> None:
        owner = await self._journal.fact("account")
        if owner is None:
            await self._journal.keep_fact("account", username)
        elif owner != username:
            raise JournalError(
                f"{self._journal} belongs to the account {owner}, and the API key to {username}: "
                "use a key of that account, or another journal"
            )

    async def _account(self) -> Account | None:
        with suppress(HeyGenError, TimeoutError):  # the key may not be allowed to read it
            async with asyncio.timeout(_BALANCE_SECONDS):
                return await self._heygen.account.me()
        return None

    # Rows in

    async def _slices(self) -> AsyncGenerator[list[SourceRow], None]:
        if isinstance(self._rows, AsyncIterable):
            number = 0
            async for row in self._rows:  # one by one: the next may take long
                number += 1
                yield [_checked(number, row)]
            return
        if self._spool is not None:
            async with aclosing(self._spool.slices()) as checked:
                async for placed in checked:
                    yield placed
            return
        in_thread = isinstance(self._rows, Manifest)  # a program's own iterator stays in its own thread
        with closing(_placed(self._rows)) as rows:
            while placed := await to_thread.run_sync(_take, rows) if in_thread else _take(rows):
                yield placed

    async def _check(self) -> None:
        """Check every row before anything is sent, and keep what was checked; an iterator's rows are checked later."""
        if isinstance(self._rows, AsyncIterable) or iter(self._rows) is self._rows:
            return
        total = 0
        spool = await self._resources.enter_async_context(spooled())
        async with aclosing(self._looked_at(self._journal, spool)) as looked_at:
            async for tasks, _ in looked_at:
                total += len(tasks)
        self._total, self._spool = total, spool

    async def _looked_at(
        self, journal: Journal, spool: Spool | None = None
    ) -> AsyncGenerator[tuple[list[PreparedRow], list[Record]], None]:
        """Iterate over the rows and their records, slice by slice; raise all problems at the end."""
        problems: list[Problem] = []
        count = 0
        async with aclosing(self._slices()) as slices:
            async for placed in slices:
                made = await self._prepared(placed, journal)
                tasks = [task for task in made if isinstance(task, PreparedRow)]
                admitted = [self._renewed(one) for one in await journal.admit([task.entry for task in tasks])]
                found = [problem for one in made if isinstance(one, SourceRow) for problem in one.problems]
                found += [one for one in admitted if isinstance(one, Problem)]
                count += len(found)
                problems += found[: _MOST_PROBLEMS - len(problems)]
                if not count:
                    if spool is not None:
                        await spool.add(placed)
                    yield tasks, [one for one in admitted if isinstance(one, Record)]
        if count:
            raise BadRows(problems, count)


# Ends


async def _end(main: asyncio.Task[None], journal: Journal) -> None:
    """Cancel the run and wait for its end and the journal's, which are near; a cancellation meanwhile comes after."""
    main.cancel()
    closing: asyncio.Future[None] | None = None
    interrupted: asyncio.CancelledError | None = None
    while closing is None or not closing.done():
        try:
            await asyncio.wait([main])
            closing = closing or asyncio.ensure_future(journal.aclose())
            await asyncio.wait([closing])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what started it: the others were cancelled for its sake."""
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.error if isinstance(error, Fatal) else error


async def _files_there(records: Iterable[Record | Problem]) -> set[str | None]:
    """Return the targets of rows that are done and have written them."""
    done = [one for one in records if isinstance(one, Record) and one.state is State.DONE and one.target]
    return await to_thread.run_sync(_finished, done) if done else set()


def _finished(records: Iterable[Record]) -> set[str | None]:
    return {record.target for record in records if outputs.is_finished(record)}


def _text(error: HeyGenError | None) -> str | None:
    return None if error is None else str(error)


def _failed(row: DubRow | None, problems: Sequence[Problem]) -> DubOutcome:
    if row is None:
        raise BadRows(problems, len(problems))
    return DubOutcome(row=row, key=row.key or "", state="failed", error=ValueError("; ".join(map(str, problems))))


def _once(call: Callable[[], None]) -> Callable[[], None]:
    calls = [call]

    def called() -> None:
        if calls:
            calls.pop()()

    return called


# Rows in


def _placed(rows: Iterable[DubRow]) -> Generator[SourceRow, None, None]:
    if isinstance(rows, Manifest):
        yield from rows.source_rows()
        return
    for number, row in enumerate(rows, start=1):
        yield _checked(number, row)


def _checked(number: int, row: object) -> SourceRow:
    if not isinstance(row, DubRow):
        raise TypeError(f"row {number} must be a DubRow, not {type(row).__name__}")
    return SourceRow(number, f"row {number}", row)


def _take(rows: Iterator[SourceRow]) -> list[SourceRow]:
    return list(islice(rows, _SLICE))


def make_run(
    heygen: HeyGenSession,
    creates: HeyGenSession,
    rows: Rows,
    *,
    origin: str,
    journal: str | PathLike[str] | None,
    output_dir: str | PathLike[str] | None,
    max_in_flight: int | None,
    max_attempts: int,
    budget: float | None,
    rates: Mapping[str, float] | None,
    submit: Submit,
    captions: bool,
    retry_failed: bool,
    on_event: Callable[[DubEvent], None] | None,
) -> DubRun:
    """Make a run; see `HeyGenSession.dub_many`.

    Raises:
        TypeError, ValueError: If an argument is wrong.
    """
    if isinstance(rows, (str, bytes, PathLike, DubRow)) or not isinstance(rows, Iterable | AsyncIterable):
        raise TypeError(f"rows must be an iterable of DubRow, not {type(rows).__name__}; a file is read by Manifest")
    if submit not in get_args(Submit):
        raise ValueError(f"submit must be each or batch, not {submit!r}")
    if max_in_flight is not None:
        check_count("max_in_flight", max_in_flight)
    check_budget(budget)
    plan = Plan(
        journal=None if journal is None else Path(journal),
        output_dir=None if output_dir is None else Path(output_dir),
        max_in_flight=max_in_flight,
        max_attempts=check_count("max_attempts", max_attempts),
        budget=budget,
        rates=check_rates(rates),
        submit=submit,
        captions=captions,
        retry_failed=retry_failed,
        on_event=on_event,
    )
    return DubRun(heygen, creates, rows, plan, origin=origin)
