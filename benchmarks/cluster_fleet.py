"""A fleet of worker processes on a sandbox and a PostgreSQL, and what befalls it; for tests and benchmarks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import define, field, frozen

from heygen_async.bulk.cluster import Cluster
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_VIDEO, Sandbox

AUDIO = "https://example.com/new.mp3"
CREATE = "POST /v3/lipsyncs"
UPLOADS = ("POST /v3/assets", "PUT /files/{name}")


@define
class Member:
    """One worker process."""

    process: asyncio.subprocess.Process
    name: str | None = None
    is_stopped: bool = False

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def signal(self, number: int) -> None:
        if self.is_alive:
            os.kill(self.process.pid, number)


@define(eq=False)
class Fleet:
    """Workers as processes."""

    sandbox: Sandbox
    database_url: str
    folder: Path
    cluster: Cluster
    members: list[Member] = field(factory=list)
    kills: int = 0
    options: Sequence[str] = ()

    async def start(self, count: int = 1, *, env: dict[str, str] | None = None) -> list[Member]:
        """Start workers, without waiting for them."""
        return [await self._start(env or {}) for _ in range(count)]

    async def _start(self, env: dict[str, str]) -> Member:
        environment = {
            **os.environ,
            "HEYGEN_API_KEY": self.sandbox.api_key,
            "HEYGEN_BASE_URL": self.sandbox.url,
            "HEYGEN_DATABASE_URL": self.database_url,
            **env,
        }
        log = (self.folder / "workers.log").open("ab")
        with log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "heygen_async", "cluster", "worker", "-v", *self.options),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        member = Member(process)
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
        accounts = (await self.cluster.status()).accounts
        name = next((one.scheduler for one in accounts), None) or ""
        return next((one for one in self.alive() if f"-{one.process.pid}-" in name), None)

    async def kill(self, member: Member) -> None:
        member.signal(signal.SIGKILL)
        await member.process.wait()
        self.kills += 1

    async def close(self) -> None:
        for member in self.members:
            member.signal(signal.SIGKILL)
        for member in self.members:
            await member.process.wait()


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
async def fleet(
    database_url: str, folder: Path, *, options: Sequence[str] = (), **settings: object
) -> AsyncIterator[Fleet]:
    """Open a sandbox and a fleet without members."""
    async with Sandbox(balance=1e6, **settings) as sandbox, Cluster(database_url) as cluster:
        found = Fleet(sandbox, database_url, folder, cluster, options=options)
        try:
            yield found
        finally:
            await found.close()


async def enqueue(found: Fleet, rows: Sequence[DubRow], **options: object) -> object:
    return await found.cluster.enqueue(rows, output_dir=found.folder / "out", base_url=found.sandbox.url, **options)


async def completed(found: Fleet, seconds: float = 300.0) -> None:
    """Wait until every row has ended."""

    async def is_complete() -> bool:
        try:
            return (await found.cluster.status()).is_complete
        except OSError:
            return False
        except Exception as error:
            if type(error).__name__ != "DatabaseLost":
                raise
            return False

    await until(is_complete, seconds, every=0.1)


# What befalls a fleet


async def churn(found: Fleet, every: float, rng: random.Random, *, hunts: bool = False, freezes: float = 0.0) -> None:
    """Kill a worker again and again, and replace it; freeze one for a while, once."""
    if freezes:
        asyncio.get_running_loop().call_later(every / 2, lambda: None)
    has_frozen = not freezes
    while True:
        await asyncio.sleep(every)
        victims = found.alive()
        victim = (await found.scheduler() if hunts else None) or rng.choice(victims)
        await found.kill(victim)
        await found.start()
        if not has_frozen:
            has_frozen = True
            asyncio.get_running_loop().create_task(freeze(rng.choice(found.alive()), freezes))


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
    uploads: int
    requests: float
    """Requests to the API and its file host in a row."""
    kills: int
    rows: int

    @property
    def ratio(self) -> float:
        return self.wall / self.ideal


def outcome(found: Fleet, rows: Sequence[DubRow], wall: float, ideal: float) -> Outcome:
    """Return what came of rows with local videos, or with links."""
    requests = found.sandbox.requests
    routes = Counter(one.route for one in requests)
    created = [one for one in requests if one.route == CREATE and one.status < 300]
    return Outcome(
        wall=wall,
        ideal=ideal,
        jobs=len(found.sandbox.jobs),
        files=sum(is_right(found, row) for row in rows),
        peak=peak(found.sandbox),
        refusals=sum(one.route == CREATE and one.status == 429 for one in requests),
        replays=len(created) - len(found.sandbox.jobs),
        uploads=routes["POST /v3/assets"] + routes["POST /v3/assets/direct-uploads"],
        requests=len(requests) / len(rows),
        kills=found.kills,
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
