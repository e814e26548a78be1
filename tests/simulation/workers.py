"""Several workers over one store with versions, as a cluster has them: each may take any row, be killed, or be frozen.

The store is in memory and outlives every worker, as a database does. A worker runs the real executors of rows with a
session, a queue and a budget of its own. A worker that is killed is cancelled and saves nothing any more; one that is
frozen stops at its next call of the store or the API, and goes on later, when others may have taken its rows.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import aiohttp
from attrs import define, field
from memory_store import MemoryStore

from heygen_async import HeyGenSession, PollPolicy
from heygen_async.bulk.batches import BatchCollector
from heygen_async.bulk.budget import RATES, Budget
from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.effects import Tools
from heygen_async.bulk.events import StageCounter
from heygen_async.bulk.executor import RowExecutor
from heygen_async.bulk.intake import prepare
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.limits import CircuitBreaker, Limiter
from heygen_async.bulk.manifest import SourceRow
from heygen_async.bulk.outputs import is_written
from heygen_async.bulk.owner import Owner
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.record import State
from heygen_async.bulk.run_aborted import RunAborted
from heygen_async.bulk.run_context import RunContext
from heygen_async.bulk.spending import Spending
from heygen_async.bulk.store import UnixClock
from heygen_async.bulk.window import Window
from heygen_async.models import DubOutcome, DubRow

from .network import Network
from .server import API
from .universe import Universe

_PASSES = 8
_AT_ONCE = 4
_POLICY = PollPolicy(fastest=2.0, growth=0.2, slowest=30.0)


@define(eq=False, kw_only=True)
class Process:
    """A process of several, which may be killed, or be frozen for a time."""

    number: int
    universe: Universe
    is_killed: bool = False
    freezes: dict[int, float] = field(factory=dict)
    """For how many seconds it is frozen, by the number of the call at which that happens."""
    file_freezes: dict[int, float] = field(factory=dict)
    """The same, by the number of the download that is about to give its file its name."""
    _calls: int = 0
    _downloads: int = 0
    _is_thawed: asyncio.Event = field(factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _thawing: asyncio.TimerHandle | None = None

    async def write_file(self, download: Callable[..., Awaitable[object]], *args: object, **kwargs: object) -> object:
        """Download a file; it may freeze when all that remains is to give the file its name."""
        self._downloads += 1
        seconds = self.file_freezes.get(self._downloads)
        note = cast("Callable[..., Awaitable[None]]", kwargs.pop("progress"))

        async def progress(done: int, total: int | None) -> None:
            await note(done, total)
            if seconds is not None and done == total:
                self.freeze(seconds)
                await self._is_thawed.wait()

        return await download(*args, progress=progress, **kwargs)

    def begin(self) -> None:
        """Begin to live, in the current task."""
        self._is_thawed.set()
        self._task = asyncio.current_task()

    def end(self) -> None:
        """End in order."""
        if self._thawing is not None:
            self._thawing.cancel()

    def kill(self) -> None:
        """Kill it: what runs while it is cancelled changes nothing."""
        self.universe.note(f"worker {self.number} is killed")
        self.is_killed = True
        self._is_thawed.set()
        if self._thawing is not None:
            self._thawing.cancel()
        if self._task is not None:
            self._task.cancel()

    def freeze(self, seconds: float) -> None:
        """Freeze it for a time."""
        if self._task is None or self._task.done():
            return
        self.universe.note(f"worker {self.number} is frozen for {seconds:.0f} s")
        self._is_thawed.clear()
        if self._thawing is not None:
            self._thawing.cancel()
        self._thawing = asyncio.get_running_loop().call_later(seconds, self._is_thawed.set)

    async def pause(self) -> None:
        """Wait while it is frozen; a dead one waits for ever."""
        self._calls += 1
        if self._calls in self.freezes:
            self.freeze(self.freezes[self._calls])
        await self._is_thawed.wait()
        if self.is_killed:
            await asyncio.get_running_loop().create_future()


@define(eq=False, kw_only=True)
class Worker(Process):
    """One worker."""

    store: MemoryStore
    network: Network
    report: Callable[[DubOutcome], None]
    rows: Sequence[PreparedRow]

    async def work(self) -> None:
        """Work through the rows until they are done."""
        self.begin()
        try:
            async with AsyncExitStack() as stack:
                borrowed = await stack.enter_async_context(aiohttp.ClientSession(connector=self.network.connector()))
                session = HeyGenSession("secret-key", base_url=API, http=borrowed, polling=_POLICY)
                heygen = await stack.enter_async_context(session)
                await self._through_rows(self._context(heygen))
        except asyncio.CancelledError:
            if not self.is_killed:
                raise
        finally:
            self.end()

    def _context(self, heygen: HeyGenSession) -> RunContext:
        calls, store = Mortal(heygen._bulk_calls(), self), Mortal(self.store, self)
        time = heygen._transport.server_time
        queue = CreateQueue(Limiter(), CircuitBreaker())
        window = Window(10)
        tools = Tools(heygen=calls, store=store, clock=UnixClock(time.now, time.latest), delays=RetryDelays())
        return RunContext(
            tools=tools,
            queue=queue,
            spending=Spending(Budget(RATES)),
            stages=StageCounter(None),
            batches=BatchCollector(tools, queue, window),
            window=window,
            downloads=asyncio.Semaphore(_AT_ONCE),
            max_attempts=3,
            retry_failed=False,
            is_batching=False,
            check_account=Owner(calls, store).check,
        )

    async def _through_rows(self, context: RunContext) -> None:
        dice = random.Random(f"worker {self.number}")
        for _ in range(_PASSES):
            rows = [row for row in self.rows if not self._is_over(row)]
            if not rows:
                return
            dice.shuffle(rows)
            for start in range(0, len(rows), _AT_ONCE):
                async with asyncio.TaskGroup() as tasks:
                    for row in rows[start : start + _AT_ONCE]:
                        tasks.create_task(self._one(context, row))
            await asyncio.sleep(dice.uniform(1, 20))

    def _is_over(self, row: PreparedRow) -> bool:
        record = self.store.records.get(row.key)
        return record is not None and (record.state is State.DONE or (record.state is State.FAILED and record.is_final))

    async def _one(self, context: RunContext, row: PreparedRow) -> None:
        await self.pause()
        (record,) = await self.store.admit([row.entry])
        executor = RowExecutor(context, row, record, is_written(record), lambda: None)
        try:
            outcome = await executor.outcome()
        except RunAborted as aborted:
            self.universe.note(f"worker {self.number}: {aborted}")
            return
        self.universe.note(f"worker {self.number}: {outcome.key}: {outcome.state} {outcome.error or ''}")
        self.report(outcome)


class Mortal:
    """Anything that a process calls: one that is frozen or dead does not come back from it.

    Args:
        inner: What is called.
        process: Who calls it.
        at_once: Calls before which it does not freeze: nobody could notice it between a check and what follows.
    """

    def __init__(self, inner: object, process: Process, at_once: frozenset[str] = frozenset()) -> None:
        self._inner = inner
        self._process = process
        self._at_once = at_once

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: object, **kwargs: object) -> object:
            if name not in self._at_once:
                await self._process.pause()
            if name == "download":
                result = await self._process.write_file(found, *args, **kwargs)
            else:
                result = await found(*args, **kwargs)
            await self._process.pause()
            return result

        return call


async def prepared(rows: Sequence[DubRow], output_dir: Path) -> list[PreparedRow]:
    """Check rows as a run does, and return them prepared."""
    journal = Journal(None, origin=API)
    await journal.open()
    try:
        sources = [SourceRow(number, f"row {number}", row) for number, row in enumerate(rows, start=1)]
        made = await prepare(sources, journal, Plan(journal=None, output_dir=output_dir), {})
    finally:
        await journal.aclose()
    return [one for one in made if isinstance(one, PreparedRow)]
