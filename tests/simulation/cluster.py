"""A cluster: real workers with their real scheduler over a database and an engine in memory.

Everything of a worker is real but its connection to the database: its steps, its candidacy, the scheduler and all that
decides. Workers are killed, frozen, or do not reach the API; the database is away for a time, or does the work of a
statement whose answer is lost; the engine loses deliveries. A worker that was killed is replaced after a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from attrs import define, evolve, field

from heygen_async import HeyGenSession, PollPolicy
from heygen_async.bulk.budget import RATES
from heygen_async.bulk.cluster.accounts import AccountStore
from heygen_async.bulk.cluster.database import DatabaseLost
from heygen_async.bulk.cluster.postgres import stored_row
from heygen_async.bulk.cluster.rows import ENDED, RunOptions, Stage, StoredRow, Ticket, WorkKind
from heygen_async.bulk.cluster.transitions import placed
from heygen_async.bulk.cluster.worker import BEAT_SECONDS, SharedPace, Slots, Worker
from heygen_async.bulk.folders import MARK
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.record import Record
from heygen_async.errors import HeyGenError

from .network import MemoryConnector, Network
from .scenario import Fault
from .server import API
from .tables import Tables, Values
from .universe import Universe
from .workers import Mortal, Process

_POLICY = PollPolicy(fastest=2.0, growth=0.2, slowest=30.0)
_ROUGH_SECONDS = 900.0
"""How long a life with faults takes at most."""
_REPLACED_AFTER = 20.0
_ENGINE_LOOKS = 2.0
"""Seconds between two looks of the engine for work that it was not notified of."""
_DELAYS = RetryDelays()
_MOST_ATTEMPTS = 3


class Cluster:
    """What outlives every worker: the tables, and the work that the engine has.

    Args:
        universe: Where it is.
        output_dir: The shared folder.
        start: What the clock of the database shows at first, in Unix time.
    """

    def __init__(self, universe: Universe, output_dir: Path, *, start: float) -> None:
        self.universe = universe
        options = RunOptions(output_dir=str(output_dir), max_attempts=_MOST_ATTEMPTS, rates=RATES)
        self.tables = Tables(lambda: start + universe.now, options)
        self.waiting: list[tuple[WorkKind, Ticket]] = []
        self.away_until = 0.0
        self.statements = 0
        self.deliveries = 0
        self.lost_answers: set[int] = set()
        """The numbers of the statements whose answers are lost."""
        self.lost_deliveries: set[int] = set()
        self.on_delivery: Callable[[WorkKind], None] = lambda _: None
        output_dir.mkdir(exist_ok=True)
        (output_dir / MARK).touch()

    def enqueue(self, rows: Sequence[PreparedRow]) -> None:
        """Enqueue rows for the first time."""
        self.tables.enqueue(self._placed(_new(row)) for row in rows)

    def forgive(self) -> None:
        """Enqueue again what has failed."""
        rows = [row for row in self.rows() if row.stage is Stage.FAILED]
        renewed = [evolve(row, record=evolve(row.record.forgiving(), is_stopped=False, tries=0)) for row in rows]
        self.tables.enqueue(self._placed(row).saved() for row in renewed)

    def _placed(self, row: StoredRow) -> StoredRow:
        now = self.tables.now()
        return placed(row, now, max_attempts=_MOST_ATTEMPTS, delays=_DELAYS, has_file=False)

    def rows(self) -> list[StoredRow]:
        """Return all rows."""
        return [stored_row(row.columns) for row in self.tables.rows.values()]

    def records(self) -> list[Record]:
        """Return the records of all rows."""
        return [row.record for row in self.rows()]

    @property
    def is_over(self) -> bool:
        """Whether all rows have ended."""
        return all(row.stage in ENDED for row in self.tables.rows.values())

    async def work(self, count: int, network: Network, faults: Sequence[Fault], *, is_calm: bool) -> None:
        """Let workers work until all rows have ended; in a life with faults, at most for some time."""
        loop = asyncio.get_running_loop()
        self.away_until, self.lost_answers, self.lost_deliveries = 0.0, set(), set()
        until = float("inf") if is_calm else loop.time() + _ROUGH_SECONDS
        async with asyncio.TaskGroup() as tasks:
            crew = _Crew(self, network, tasks)
            for _ in range(count):
                crew.hire()
            self.tables.on_notify, self.on_delivery = crew.notify, crew.deliver
            network.excused = self.tables.taken_back
            with _timers([crew.timer(one) for one in faults]):
                while not self.is_over and loop.time() < until:  # noqa: ASYNC110 in virtual time
                    await asyncio.sleep(1.0)
            await crew.dismiss()


def _new(row: PreparedRow) -> StoredRow:
    entry = row.entry
    record = Record(key=row.key, inputs=entry.inputs, number=row.number, place=row.place, target=entry.target)
    return StoredRow(run=1, row=row, record=record, stage=Stage.READY)


@contextmanager
def _timers(timers: Sequence[asyncio.TimerHandle | None]) -> Iterator[None]:
    try:
        yield
    finally:
        for timer in timers:
            if timer is not None:
                timer.cancel()


@define(eq=False)
class _Crew:
    """The workers of a life."""

    cluster: Cluster
    network: Network
    tasks: asyncio.TaskGroup
    members: list["_Member"] = field(factory=list)
    replacements: list[asyncio.TimerHandle] = field(factory=list)

    def hire(self) -> None:
        """Start a worker."""
        self.cluster.universe.note(f"worker {len(self.members)} starts")
        member = _Member(
            number=len(self.members),
            universe=self.cluster.universe,
            cluster=self.cluster,
            connector=self.network.connector(),
            name=f"worker-{self.network.life.number}-{len(self.members)}",
        )
        self.members.append(member)
        member.job = self.tasks.create_task(member.work())

    async def dismiss(self) -> None:
        """End all workers in order."""
        for timer in self.replacements:
            timer.cancel()
        for member in self.members:
            member.dismiss()
        await asyncio.wait([member.job for member in self.members if member.job is not None])

    def notify(self) -> None:
        """Wake the scheduler: rows have changed."""
        loop = asyncio.get_running_loop()
        for member in self.members:
            loop.call_soon(member.hear)

    def deliver(self, kind: WorkKind) -> None:
        """Let all workers look for work of a kind."""
        for member in self.members:
            member.wake(kind)

    def timer(self, fault: Fault) -> asyncio.TimerHandle | None:
        """Let a fault happen at its time."""
        call_later = asyncio.get_running_loop().call_later
        member = self.members[int(fault.value) % len(self.members)]
        match fault.what:
            case "worker killed":
                return call_later(fault.at, self._kill, member)
            case "worker frozen":
                return call_later(fault.at, member.freeze, fault.value * 10)
            case "worker frozen at call":
                member.freezes[int(fault.at)] = fault.value * 10
            case "worker frozen before a file":
                member.file_freezes[int(fault.at)] = fault.value * 10
            case "worker blind":
                return call_later(fault.at, member.go_blind, True)
            case "worker sees again":
                return call_later(fault.at, member.go_blind, False)
            case "database away":
                return call_later(fault.at, self._send_away, fault.value)
            case "answer of the database lost":
                self.cluster.lost_answers.add(self.cluster.statements + int(fault.at))
            case "delivery lost":
                self.cluster.lost_deliveries.add(self.cluster.deliveries + int(fault.at))
        return None

    def _kill(self, member: "_Member") -> None:
        member.kill()
        self.cluster.tables.connected.discard(member.name)
        self.replacements.append(asyncio.get_running_loop().call_later(_REPLACED_AFTER, self.hire))

    def _send_away(self, seconds: float) -> None:
        self.cluster.universe.note(f"the database is away for {seconds:.0f} s")
        self.cluster.away_until = self.cluster.universe.now + seconds


@define(eq=False, kw_only=True)
class _Member(Process):
    """A process with one worker, its connection to the database, and its place at the engine."""

    cluster: Cluster
    connector: MemoryConnector
    name: str
    job: asyncio.Task[None] | None = None
    worker: "_Worker | None" = None
    wakes: dict[WorkKind, asyncio.Event] = field(factory=lambda: {kind: asyncio.Event() for kind in WorkKind})

    async def work(self) -> None:
        """Work until it is dismissed or killed, or until an error ends it."""
        self.begin()
        tables = self.cluster.tables
        tables.connected.add(self.name)
        try:
            async with AsyncExitStack() as stack:
                borrowed = await stack.enter_async_context(aiohttp.ClientSession(connector=self.connector))
                session = HeyGenSession("secret-key", base_url=API, http=borrowed, polling=_POLICY)
                heygen = await stack.enter_async_context(session)
                calls: Any = Mortal(heygen._bulk_calls(), self, frozenset({"create"}))
                self.worker = _Worker(
                    database=self,
                    account=1,
                    delivery=self,
                    api=calls,
                    slots=Slots(),
                    pace=SharedPace(AccountStore(self, 1)),
                    name=self.name,
                )
                await self.worker.run()
        except* HeyGenError as errors:
            self.universe.note(f"{self.name} ends: {errors.exceptions}")
        except* asyncio.CancelledError:
            pass
        finally:
            self.worker = None
            tables.connected.discard(self.name)
            self.end()

    def dismiss(self) -> None:
        """End it in order; if it is frozen, it comes back for that."""
        self._is_thawed.set()
        if self.job is not None and not self.is_killed:
            self.job.cancel()

    def go_blind(self, is_blind: bool) -> None:
        """Cut it off from the API, or connect it again."""
        self.universe.note(f"{self.name} {'does not reach' if is_blind else 'reaches'} the API")
        self.connector.is_down = is_blind

    def hear(self) -> None:
        """Receive a notification that rows have changed."""
        if self.worker is not None and self._is_thawed.is_set():
            self.worker.hear_of_rows()

    # The database

    async def fetch(self, statement: Any, values: Values | None = None) -> list[tuple[Any, ...]]:
        """Carry out a statement.

        Raises:
            DatabaseLost: If the database is away, or the answer is lost.
        """
        cluster = self.cluster
        await self.pause()
        await asyncio.sleep(0.001 + 0.01 * self.universe.random.random() ** 3)
        if self.universe.now < cluster.away_until:
            raise DatabaseLost("the database is away")
        cluster.statements += 1
        number = cluster.statements
        result = cluster.tables.fetch(statement, values)
        await asyncio.sleep(0.001)
        await self.pause()
        if number in cluster.lost_answers:
            self.universe.note(f"{self.name} loses the answer of statement {number}")
            raise DatabaseLost("the connection broke")
        return result

    # The engine

    @property
    def channels(self) -> Mapping[str, WorkKind]:
        return {}

    def wake(self, kind: WorkKind) -> None:
        self.wakes[kind].set()

    async def defer(self, kind: WorkKind, tickets: Sequence[Ticket]) -> None:
        await self.pause()
        if self.universe.now < self.cluster.away_until:
            raise DatabaseLost("the database is away")
        for ticket in tickets:
            self.cluster.deliveries += 1
            if self.cluster.deliveries in self.cluster.lost_deliveries:
                self.universe.note(f"the delivery of {ticket.key} is lost")
            else:
                self.cluster.waiting.append((kind, ticket))
        self.cluster.on_delivery(kind)

    async def queued(self) -> set[Ticket]:
        await self.pause()
        return {ticket for _, ticket in self.cluster.waiting}

    async def serve(self, kind: WorkKind, slots: int, handle: Callable[[Ticket], Awaitable[None]]) -> None:
        free = asyncio.Semaphore(slots)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await free.acquire()
                await self.pause()
                ticket = self._next(kind)
                if ticket is None:
                    free.release()
                    await self._until_woken(kind)
                else:
                    tasks.create_task(handle(ticket)).add_done_callback(lambda _: free.release())

    async def _until_woken(self, kind: WorkKind) -> None:
        self.wakes[kind].clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENGINE_LOOKS):
                await self.wakes[kind].wait()

    def _next(self, kind: WorkKind) -> Ticket | None:
        waiting = self.cluster.waiting
        index = next((at for at, (one, _) in enumerate(waiting) if one is kind), None)
        return None if index is None else waiting.pop(index)[1]


@define(eq=False)
class _Worker(Worker):
    """A worker that sends its heartbeats without a connection of its own."""

    def hear_of_rows(self) -> None:
        """Wake its scheduler, if it has one."""
        if self._scheduler is not None:
            self._scheduler.wake()

    async def _listen(self) -> None:
        tables = self.database.cluster.tables
        while True:
            with suppress(DatabaseLost):
                await self.database.fetch("SELECT 1 FROM listed")
                tables.beats[self.name] = tables.now()
                self._is_known.set()
            await asyncio.sleep(BEAT_SECONDS)
