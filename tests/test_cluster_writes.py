"""A scheduler that is frozen, blind or without an answer at each of its writes, as they are in the code."""

import ast
import asyncio
import contextlib
import inspect
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, FunctionType

import pytest
from attrs import define, field, frozen
from cluster_harness import AUDIO, DELAYS, URL, ClusterApi, ClusterHarness, Engine, open_harness, rows
from test_bulk_executors import never

from heygen_async.bulk import searching
from heygen_async.bulk.attempt_keys import attempt_key
from heygen_async.bulk.cluster import accounts, scheduler_store, scheduling, worker
from heygen_async.bulk.cluster.accounts import AccountStore
from heygen_async.bulk.cluster.database import Database, DatabaseLost
from heygen_async.bulk.cluster.postgres import PostgresStore
from heygen_async.bulk.cluster.rows import Ticket, WorkKind
from heygen_async.bulk.cluster.scheduler_store import SchedulerStore
from heygen_async.bulk.cluster.scheduling import Tuning
from heygen_async.bulk.cluster.worker import SharedPace, Slots, Worker
from heygen_async.errors import DownloadError, TransportError
from heygen_async.models import DubRow
from heygen_async.policies import PollPolicy

ACTORS = (scheduling, searching)
"""The modules that write as the scheduler."""
OF_BATCHES = frozenset({"_walk_last_day", "_look_at_last_day"})
"""A cluster sends no batches."""
CLUSTER = "heygen_async.bulk.cluster"
WRITES = re.compile(r"\b(INSERT INTO|UPDATE [a-z]|DELETE FROM)")


@frozen(order=True)
class Site:
    """A place in the code of the scheduler that writes."""

    function: str
    write: str


# The writes in the code


def _writes(function: FunctionType) -> bool:
    """Return whether a function has a statement that writes, in itself or in what it calls."""
    found = [inspect.getsource(function)]
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if isinstance(used, str):
            found.append(used)
        elif used is not function and isinstance(used, FunctionType) and used.__module__.startswith(CLUSTER):
            found += ["UPDATE rows"] if _writes(used) else []
    return any(WRITES.search(text) for text in found)


def _writing_methods() -> set[str]:
    classes = (SchedulerStore, PostgresStore)
    methods = {name: one for known in classes for name, one in vars(known).items() if isinstance(one, FunctionType)}
    return {name for name, one in methods.items() if _writes(one)} | {"defer"}


def _sites() -> list[Site]:
    writing, found = _writing_methods(), set()
    for module in ACTORS:
        for function in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(function, ast.AsyncFunctionDef):
                calls = [one.func for one in ast.walk(function) if isinstance(one, ast.Call)]
                names = [one.attr for one in calls if isinstance(one, ast.Attribute) and _is_of_a_store(one.value)]
                found |= {
                    Site(function.name, name) for name in names if name in writing and function.name not in OF_BATCHES
                }
    return sorted(found)


def _is_of_a_store(value: ast.expr) -> bool:
    return isinstance(value, ast.Attribute) and value.attr in {"store", "delivery"}


SITES = _sites()


def test_every_write_of_the_scheduler_is_stopped_at_but_its_resignation() -> None:
    methods = {name for name, one in vars(SchedulerStore).items() if isinstance(one, FunctionType) and _writes(one)}
    assert methods - {site.write for site in SITES} == {"resign"}
    assert len(SITES) > 10


async def test_a_resignation_that_comes_late_changes_nothing(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        first, second = await one.scheduler(), await one.scheduler()
        await first.store.resign()
        assert await one.database.fetch("SELECT epoch, holder FROM accounts WHERE until > unix_time()") == [
            (second.store.lease.epoch, "scheduler")
        ]


# Whoever is stopped at one of them


@define
class Gate:
    """What passes between a process and all else. It closes at a write, before or after that is carried out."""

    at: Site
    how: str
    was_reached: asyncio.Event = field(factory=asyncio.Event)
    _open: asyncio.Event = field(factory=asyncio.Event)
    is_blind: bool = False

    def __attrs_post_init__(self) -> None:
        self._open.set()

    def thaw(self) -> None:
        self._open.set()

    async def carry_out(self, call: Callable[[], Awaitable[object]], frame: FrameType | None) -> object:
        """Carry out what a process does to anything outside."""
        is_it = not self.was_reached.is_set() and _is_at(self.at, frame)
        if is_it:
            self.was_reached.set()
            self.is_blind = self.how == "blind"
            if self.how == "frozen before":
                self._open.clear()
        await self._open.wait()
        found = await call()
        if is_it and self.how == "frozen after":
            self._open.clear()
        await self._open.wait()
        if is_it and self.how == "cut off":
            raise DatabaseLost("the answer was lost")
        return found


def _is_at(site: Site, frame: FrameType | None) -> bool:
    """Return whether the callers of *frame* are at a site: a function of the scheduler, and the write that it calls."""
    callee = ""
    while frame is not None:
        if frame.f_code.co_filename in {module.__file__ for module in ACTORS}:
            return (frame.f_code.co_name, callee) == (site.function, site.write)
        callee = frame.f_code.co_name
        frame = frame.f_back
    return False


@frozen
class GatedDatabase:
    database: Database
    gate: Gate

    async def fetch(self, statement: object, values: Mapping[str, object] | None = None) -> object:
        return await self.gate.carry_out(lambda: self.database.fetch(statement, values), sys._getframe())


@frozen
class GatedEngine:
    engine: Engine
    gate: Gate

    async def defer(self, kind: WorkKind, tickets: Sequence[Ticket]) -> None:
        await self.gate.carry_out(lambda: self.engine.defer(kind, tickets), sys._getframe())

    async def queued(self) -> set[Ticket]:
        return await self.gate.carry_out(self.engine.queued, sys._getframe())


class GatedApi(ClusterApi):
    """The API, as a process sees it that may be frozen or blind."""

    gate: Gate | None = None

    @property
    def statuses(self) -> Callable[[Sequence[str]], object]:
        read = super().statuses

        async def gated(lipsync_ids: Sequence[str]) -> object:
            assert self.gate is not None
            if self.gate.is_blind:
                raise TransportError("no route", outcome="not_sent")
            return await self.gate.carry_out(lambda: read(lipsync_ids), None)

        return gated

    async def list(self, *, page_size: int) -> AsyncIterator[object]:
        assert self.gate is not None
        if self.gate.is_blind:
            raise TransportError("no route", outcome="not_sent")
        async for page in super().list(page_size=page_size):
            yield page


class FlakyApi(ClusterApi):
    """The API of the workers, whose first download breaks off."""

    has_broken = False

    async def download(self, *arguments: object, **options: object) -> Path:
        if not self.has_broken:
            self.has_broken = True
            raise DownloadError("broken", is_transient=True)
        return await super().download(*arguments, **options)


@define
class Workers:
    """They do all work that is delivered, but for the first: one delivery is lost, and a worker dies with another."""

    harness: ClusterHarness

    async def run(self) -> None:
        await self._next()
        claim = AccountStore(self.harness.database, self.harness.account).claim
        while await claim(await self._next(), "dead") is None:  # it may be an old one
            pass
        while True:
            await self.harness.work("healthy")
            await asyncio.sleep(0.005)

    async def _next(self) -> Ticket:
        while not self.harness.engine.waiting:  # noqa: ASYNC110 nothing sets an event
            await asyncio.sleep(0.005)
        return self.harness.engine.waiting.pop(0)[1]


def a_worker(one: ClusterHarness, name: str, gate: Gate) -> Worker:
    """Return a worker that only schedules."""
    api = GatedApi(never(), one.api.jobs, one.api.keys, PollPolicy(fastest=0.01, slowest=0.02))
    api.gate = gate
    made = Worker(
        GatedDatabase(one.database, gate),
        one.account,
        GatedEngine(one.engine, gate),
        api,
        Slots(),
        SharedPace(AccountStore(one.database, one.account)),
        Tuning(delays=DELAYS, unreachable=0.1),
        name=name,
    )
    made._is_known.set()
    return made


async def _make_known(one: ClusterHarness, pid: int) -> None:
    """Enter workers as alive: their heartbeat is of tomorrow."""
    for name in ("first", "second", "healthy"):
        await one.database.fetch(
            "INSERT INTO workers (name, account, host, process, pid, beat) "
            "VALUES (%(name)s, %(account)s, '', 0, %(pid)s, unix_time() + 86400)",
            {"name": name, "account": one.account, "pid": pid},
        )


@contextlib.asynccontextmanager
async def scene(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, site: Site
) -> AsyncIterator[tuple[ClusterHarness, set[str]]]:
    """Open a harness in which the scheduler comes to a site."""
    given = [*rows(folder), DubRow(URL, AUDIO, key="lost"), DubRow(URL, AUDIO, key="unlucky")]
    async with open_harness(url, folder, monkeypatch, given) as one, await one.database.connect() as alive:
        await _make_known(one, alive.info.backend_pid)
        one.api = FlakyApi(never(), one.api.jobs, one.api.keys)
        ((inputs,),) = await one.database.fetch("SELECT record->>'inputs' FROM rows WHERE key = 'lost'")
        await one.api.create(attempt_key("lost", inputs, 1))
        if site.function != "_keep_newest":  # the database is an older copy
            await one.database.fetch(
                "INSERT INTO facts VALUES (%(account)s, 'timeline', 'x')", {"account": one.account}
            )
        if site.write == "reconciled":  # the list is not read a second time
            monkeypatch.setattr(searching, "_ARRIVED_AFTER", 0.0)
        if site.function == "_give_up":
            await one.database.fetch(
                "UPDATE rows SET answer = 'unanswered', unanswered = '{5,-1}' WHERE key = 'unlucky'"
            )
        yield one, {"plain", "fails", "local", "lost", "unlucky"}
        await one.database.fetch("TRUNCATE heygen.runs, heygen.rows, heygen.accounts, heygen.claims CASCADE")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(DatabaseLost):  # a busy machine has no connection within a second
                if await condition():
                    return
            await asyncio.sleep(0.01)


async def _stopped_at(one: ClusterHarness, site: Site, how: str) -> None:
    gate = Gate(site, how)
    first, second = a_worker(one, "first", gate), a_worker(one, "second", Gate(Site("", ""), ""))

    async def is_complete() -> bool:
        return (await one.cluster.status()).is_complete

    async def has_expired() -> bool:
        await one.database.fetch("UPDATE accounts SET until = 0 WHERE holder = 'first'")
        return second._scheduler is not None

    async def is_out() -> bool:
        return first._scheduler is None

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(first._be_candidate()), tasks.create_task(Workers(one).run())]
        async with asyncio.timeout(30):
            await gate.was_reached.wait()
        running.append(tasks.create_task(second._be_candidate()))
        if how.startswith("frozen"):
            await until(has_expired)
        await until(is_complete)
        if how.startswith("frozen"):
            before = await _everything(one)
            gate.thaw()
            await until(is_out)
            assert await _everything(one) == before
        for task in running:
            task.cancel()


async def _everything(one: ClusterHarness) -> list[object]:
    return await one.database.fetch(
        "SELECT key, version, stage, record, accounts.epoch, limiter FROM rows, accounts ORDER BY key"
    )


@pytest.mark.parametrize("how", ["frozen before", "frozen after", "blind", "cut off"])
@pytest.mark.parametrize("site", SITES, ids=lambda site: f"{site.function} {site.write}")
async def test_a_scheduler_that_stops_at_any_of_its_writes_loses_no_row_and_changes_nothing_afterwards(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site, how: str
) -> None:
    for module, name, seconds in (
        (scheduling, "RENEW_SECONDS", 0.05),
        (scheduling, "REDELIVERY_SECONDS", 0.05),
        (scheduling, "LOOK_AROUND_SECONDS", 0.1),
        (scheduling, "IDLE_SECONDS", 0.02),
        (worker, "CANDIDATE_SECONDS", 0.02),
        (accounts, "LEASE_SECONDS", 60.0),
        (scheduler_store, "LEASE_SECONDS", 60.0),
    ):
        monkeypatch.setattr(module, name, seconds)
    async with scene(database_url, tmp_path, monkeypatch, site) as (one, keys):
        await _stopped_at(one, site, how)
        stages = await one.stages()
        jobs = one.jobs()
    assert stages in ({"done": 5}, {"done": 4, "failed": 1})
    assert set(jobs) >= keys - {"unlucky"}
    assert max(jobs[key] for key in keys - {"fails"}) == 1
    assert jobs["fails"] == 2
