# ruff: noqa: ANN401 settings of others go on as they are
"""A fleet of worker processes on a sandbox and a PostgreSQL, and what befalls it; for tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from heygen_async.bulk.cluster import Cluster, ClusterError, Enqueued
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_VIDEO, Sandbox

AUDIO = "https://example.com/new.mp3"
CREATE = "POST /v3/lipsyncs"
UPLOAD_SLOTS = 4
"""How many uploads a worker may have under way when it is killed or frozen."""


_INTERRUPTED = (
    "CREATE TABLE interrupted (key text)",
    """CREATE FUNCTION count_interrupted() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO heygen.interrupted VALUES (NEW.key); RETURN NULL; END $$""",
    """CREATE TRIGGER rows_interrupted AFTER UPDATE ON rows FOR EACH ROW
        WHEN (OLD.stage = 'create' AND NEW.stage = 'create' AND OLD.holder IS NOT NULL AND NEW.holder IS NULL)
        EXECUTE FUNCTION count_interrupted()""",
)


@define(eq=False)
class Member:
    """One worker process."""

    pid: int
    is_stopped: bool = False

    @property
    def is_alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def ended(self) -> None:
        """Wait until the process is gone."""
        async with asyncio.timeout(60):
            while self.is_alive:  # noqa: ASYNC110 nothing sets an event
                await asyncio.sleep(0.01)


@define(eq=False)
class Fleet:
    """Workers as processes."""

    sandbox: Sandbox
    database_url: str
    folder: Path
    cluster: Cluster
    fork_server: asyncio.subprocess.Process
    members: list[Member] = field(factory=list)
    kills: int = 0
    freezes: int = 0

    async def start(self, count: int = 1, *options: str, env: dict[str, str] | None = None) -> list[Member]:
        """Start workers, without waiting until they work."""
        return [await self._start(options, env or {}) for _ in range(count)]

    async def _start(self, options: Sequence[str], env: dict[str, str]) -> Member:
        order = {
            "argv": ["cluster", "worker", "-v", *options],
            "env": {
                "HEYGEN_API_KEY": self.sandbox.api_key,
                "HEYGEN_BASE_URL": self.sandbox.url,
                "HEYGEN_DATABASE_URL": self.database_url,
                **env,
            },
            "log": str(self.folder / "workers.log"),
        }
        assert self.fork_server.stdin is not None
        assert self.fork_server.stdout is not None
        self.fork_server.stdin.write(f"{json.dumps(order)}\n".encode())
        member = Member(int(await self.fork_server.stdout.readline()))
        self.members.append(member)
        return member

    def alive(self) -> list[Member]:
        return [member for member in self.members if member.is_alive and not member.is_stopped]

    async def until_alive(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many workers are known to the database, and one is the scheduler."""

        async def are_there() -> bool:
            accounts = (await self.cluster.status()).accounts
            return any(len(one.workers) >= count and one.scheduler for one in accounts)

        await until(are_there, seconds)

    async def scheduler(self) -> Member | None:
        """Return the process that is the scheduler."""
        try:
            accounts = (await self.cluster.status()).accounts
        except ClusterError:
            return None
        name = next((one.scheduler for one in accounts), None) or ""
        return next((one for one in self.alive() if f"-{one.pid}-" in name), None)

    async def kill(self, member: Member) -> None:
        member.signal(signal.SIGKILL)
        await member.ended()
        self.kills += 1

    async def kill_all(self) -> None:
        """Kill every worker at the same moment."""
        members = [member for member in self.members if member.is_alive]
        for member in members:
            member.signal(signal.SIGKILL)
        for member in members:
            await member.ended()
        self.kills += len(members)

    def log(self) -> str:
        path = self.folder / "workers.log"
        return path.read_text() if path.exists() else ""


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, every: float = 0.05) -> None:
    """Wait for a condition that nothing tells us of."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 nothing sets an event
            await asyncio.sleep(every)


def video_of(number: int, size: int = 0) -> bytes:
    """Return a video that no other row has: the sandbox gives back what was uploaded."""
    content = hashlib.sha256(str(number).encode()).digest() + bytes(size)
    return SAMPLE_VIDEO.read_bytes() + (8 + len(content)).to_bytes(4, "big") + b"free" + content


def local_rows(folder: Path, count: int, size: int = 0) -> list[DubRow]:
    """Return rows with a local video each."""
    sources = folder / "sources"
    sources.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        path = sources / f"{number}.mp4"
        path.write_bytes(video_of(number, size))
        rows.append(DubRow(path, AUDIO, key=f"row-{number}"))
    return rows


def url_rows(count: int, query: str = "") -> list[DubRow]:
    """Return rows with public links."""
    return [DubRow(f"https://sandbox.invalid/{n}.mp4{query}", AUDIO, key=f"row-{n}") for n in range(count)]


@asynccontextmanager
async def fleet(database_url: str, folder: Path, **settings: Any) -> AsyncIterator[Fleet]:
    """Open a sandbox and a fleet without members; at its end no process is left."""
    fork_server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("cluster_fork_server.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    found: Fleet | None = None
    try:
        async with Sandbox(balance=1e6, **settings) as sandbox, Cluster(database_url) as cluster:
            found = Fleet(sandbox, database_url, folder, cluster, fork_server)
            await _count_interrupted(cluster)
            try:
                yield found
            finally:
                await found.kill_all()
    finally:
        assert fork_server.stdin is not None
        fork_server.stdin.close()
        await fork_server.wait()
        assert found is None or not any(member.is_alive for member in found.members)


async def _count_interrupted(cluster: Cluster) -> None:
    """Count the creates that a worker had begun when they were taken from it."""
    for statement in _INTERRUPTED:
        await cluster._database.fetch(statement)  # noqa: SLF001 what only a test wants to know


async def enqueue(found: Fleet, rows: Sequence[DubRow], **options: Any) -> Enqueued:
    return await found.cluster.enqueue(rows, output_dir=found.folder / "out", base_url=found.sandbox.url, **options)


async def completed(found: Fleet, seconds: float = 300.0) -> None:
    """Wait until every row has ended."""

    async def is_complete() -> bool:
        try:
            return (await found.cluster.status()).is_complete
        except ClusterError:  # the database is away
            return False

    await until(is_complete, seconds, every=0.1)


# What befalls a fleet


async def churn(found: Fleet, every: float, rng: random.Random, *, hunts: bool = False, freezes: float = 0.0) -> None:
    """Kill a worker again and again, and replace it; freeze one, once."""
    async with asyncio.TaskGroup() as tasks:
        if freezes:
            found.freezes += 1
            tasks.create_task(freeze(rng.choice(found.alive()), freezes))
        while True:
            await asyncio.sleep(every)
            victim = (await found.scheduler() if hunts else None) or rng.choice(found.alive())
            await found.kill(victim)
            await found.start()


async def freeze(member: Member, seconds: float) -> None:
    """Stop a worker for a while."""
    member.is_stopped = True
    member.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        member.signal(signal.SIGCONT)
        member.is_stopped = False


# What came of it


@frozen(kw_only=True)
class Outcome:
    """What a fleet has done."""

    wall: float
    ideal: float
    jobs: int
    files: int
    peak: int
    refusals: int
    replays: int
    interrupted: int
    """Creates that a worker had begun when they were taken from it."""
    uploads: int
    requests: float
    """Requests to the API and its file host in a row."""
    kills: int
    freezes: int
    rows: int

    @property
    def ratio(self) -> float:
        return self.wall / self.ideal


async def outcome(found: Fleet, rows: Sequence[DubRow], wall: float, ideal: float) -> Outcome:
    """Return what came of rows with local videos, or with links."""
    requests = found.sandbox.requests
    routes = Counter(one.route for one in requests)
    created = [one for one in requests if one.route == CREATE and one.status is not None and one.status < 300]
    count = await found.cluster._database.fetch("SELECT count(*) FROM interrupted")  # noqa: SLF001 the same
    return Outcome(
        wall=wall,
        ideal=ideal,
        jobs=len(found.sandbox.jobs),
        files=sum(is_right(found, row) for row in rows),
        peak=peak(found.sandbox),
        refusals=sum(one.route == CREATE and one.status == 429 for one in requests),
        replays=len(created) - len(found.sandbox.jobs),
        interrupted=count[0][0],
        uploads=routes["POST /v3/assets"] + routes["POST /v3/assets/direct-uploads"],
        requests=len(requests) / len(rows),
        kills=found.kills,
        freezes=found.freezes,
        rows=len(rows),
    )


def is_right(found: Fleet, row: DubRow) -> bool:
    """Return whether the file of a row is the one of its video."""
    path = found.folder / "out" / f"{row.key}.mp4"
    if not path.exists():
        return False
    expected = row.video.read_bytes() if isinstance(row.video, Path) else SAMPLE_VIDEO.read_bytes()
    return path.read_bytes() == expected


def peak(sandbox: Sandbox) -> int:
    """Return the most jobs that ran at once."""
    events = []
    for job in sandbox.jobs:
        events.append((job.created_at, 1))
        if job.ended_at is not None:
            events.append((job.ended_at, -1))
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def clock() -> float:
    return time.monotonic()
