"""A cluster in one process, step by step: a real database, an API and an engine in memory, and whoever is to stop."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from attrs import define, field
from test_bulk_executors import Api, Points, Watched, never, video_of

from heygen_async.bulk.cluster import Cluster, scheduler, scheduler_store
from heygen_async.bulk.cluster.accounts import AccountStore, join_account
from heygen_async.bulk.cluster.database import Database, RetryingStatements
from heygen_async.bulk.cluster.looks import Reachability
from heygen_async.bulk.cluster.postgres import PostgresStore
from heygen_async.bulk.cluster.rows import Ticket, WorkKind
from heygen_async.bulk.cluster.scheduler_store import SchedulerStore
from heygen_async.bulk.cluster.scheduling import DatabaseClock, Scheduler, Tuning
from heygen_async.bulk.cluster.steps import Steps
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.searching import Searcher
from heygen_async.bulk.store import UnixClock
from heygen_async.models import DubRow, Lipsync, LipsyncStatus, Source
from heygen_async.sandbox import SAMPLE_AUDIO

DELAYS = RetryDelays(refused=0, renewal=0, missing=(0.0,), download=(0.0,) * 50)
ORIGIN = "http://127.0.0.1:1"
URL = "https://example.com/v.mp4"
AUDIO = "https://example.com/a.mp3"


class ClusterApi(Api):
    """Also answers for many jobs at once, and writes files. Jobs of `fails` fail once; the others are completed."""

    origin = ORIGIN

    @property
    def statuses(self) -> Callable[[Sequence[str]], object]:
        async def read(lipsync_ids: Sequence[str]) -> Mapping[str, str]:
            return {one: (await self.get(one)).status for one in lipsync_ids}

        return read

    async def get(self, lipsync_id: str) -> Lipsync:
        first = next((job for job, key in self.jobs.items() if key.startswith("fails.")), None)
        if lipsync_id == first:
            return Lipsync(id=lipsync_id, status=LipsyncStatus.FAILED, failure_message="internal error")
        return Lipsync(id=lipsync_id, status=LipsyncStatus.COMPLETED, duration=1.0, video_url="https://x/?secret")

    async def upload(self, source: Source, sha256: str) -> object:
        content = await asyncio.to_thread(Path(str(source)).read_bytes)
        return await super().upload(content, sha256)


@define
class Engine:
    """What was deferred, and given to nobody."""

    waiting: list[tuple[WorkKind, Ticket]] = field(factory=list)

    async def defer(self, kind: WorkKind, tickets: Sequence[Ticket]) -> None:
        self.waiting += [(kind, ticket) for ticket in tickets]

    async def queued(self) -> set[Ticket]:
        return {ticket for _, ticket in self.waiting}


@define(eq=False)
class ClusterHarness:
    """The database, the API and the engine."""

    database: Database
    cluster: Cluster
    account: int
    api: ClusterApi
    engine: Engine
    folder: Path

    async def scheduler(self, points: Points | None = None) -> Scheduler:
        """Take the lease."""
        lease = await AccountStore(self.database, self.account).take_lease("scheduler")
        assert lease is not None
        clock = DatabaseClock()
        clock.set(lease.now)
        watched = self.database if points is None else Watched(self.database, points)
        api = self.api if points is None else Watched(self.api, points)
        engine = self.engine if points is None else Watched(self.engine, points)
        store = SchedulerStore(watched, lease, ORIGIN)
        searcher = Searcher(api, PostgresStore(watched, self.account, 0), UnixClock(clock))
        reachability = Reachability(asyncio.get_running_loop().time)
        tuning = Tuning(delays=DELAYS)

        async def is_worse() -> bool:
            return False

        return Scheduler(store, engine, api, searcher, is_worse, reachability, tuning, clock, lease.learnt)

    async def schedule(self, points: Points | None = None) -> None:
        """Do all that a scheduler does, once."""
        one = await self.scheduler(points)
        await one._look_around()
        await one._redeliver()
        await one._move()
        await one._move()
        while taken := one._looks.take(one.clock()):
            await one._look(taken)

    async def work(self, name: str, points: Points | None = None) -> None:
        """Do all work that waits."""
        watched = self.database if points is None else Watched(self.database, points)
        api = self.api
        if points is not None:
            api = Watched(ClusterApi(points, self.api.jobs, self.api.keys), points)
        engine = self.engine if points is None else Watched(self.engine, points)
        async with asyncio.TaskGroup() as tasks:
            reachability = Reachability(asyncio.get_running_loop().time)
            known = AccountStore(RetryingStatements(watched), self.account)
            steps = Steps(known, engine, api, name, reachability, DELAYS, tasks, _raise)
            while self.engine.waiting:
                await steps.handle(*self.engine.waiting.pop(0))

    async def complete(self) -> None:
        """Schedule and work until every row has ended."""
        for _ in range(60):
            await self.schedule()
            await self.work("healthy")
            if (await self.cluster.status()).is_complete and not self.engine.waiting:
                return
        raise AssertionError((await self.cluster.status()).runs)

    async def stages(self) -> Counter[str]:
        (run,) = (await self.cluster.status()).runs
        return Counter(run.rows)

    async def errors(self) -> list[object]:
        return await self.database.fetch("SELECT key, stage, record->>'error' FROM heygen.rows WHERE stage <> 'done'")

    def jobs(self) -> Counter[str]:
        return Counter(key.rpartition(".")[0] for key in self.api.jobs.values())

    def has_right_files(self, *keys: str) -> bool:
        jobs = {key.rpartition(".")[0]: job for job, key in self.api.jobs.items()}  # the last job of each
        return all((self.folder / "out" / f"{key}.mp4").read_bytes() == video_of(jobs[key]) for key in keys)


def _raise(error: Exception) -> None:
    raise error


def rows(folder: Path) -> list[DubRow]:
    """Return a row with links, one whose first job fails, and one with a local file."""
    source = folder / "new.mp3"
    if not source.exists():
        source.write_bytes(SAMPLE_AUDIO.read_bytes())
    return [DubRow(URL, AUDIO, key="plain"), DubRow(URL, AUDIO, key="fails"), DubRow(URL, source, key="local")]


@asynccontextmanager
async def open_harness(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, given: Sequence[DubRow] | None = None
) -> AsyncIterator[ClusterHarness]:
    """Open a harness with three rows, in which nobody waits for the clock."""
    monkeypatch.setattr(scheduler_store, "START_SECONDS", 0.0)
    monkeypatch.setattr(scheduler, "QUEUED_SECONDS", 0.0)
    async with Cluster(url) as cluster:
        database = cluster._database
        await cluster.enqueue(given or rows(folder), output_dir=folder / "out", base_url=ORIGIN)
        account = await join_account(database, ORIGIN, "tester")
        yield ClusterHarness(database, cluster, account, ClusterApi(never()), Engine(), folder)


__all__ = (
    "AUDIO",
    "DELAYS",
    "ORIGIN",
    "URL",
    "ClusterApi",
    "ClusterHarness",
    "Engine",
    "never",
    "open_harness",
    "rows",
)
