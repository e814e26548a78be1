"""Runs of a cluster: undisturbed and under all mishaps, each with its figures and their goals."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from benchmarks.cluster_fleet import (
    UPLOAD_SLOTS,
    Fleet,
    Outcome,
    churn,
    clock,
    completed,
    enqueue,
    fleet,
    local_rows,
    outcome,
    until,
    url_rows,
)
from benchmarks.cluster_postgres import Server, temporary_server
from benchmarks.results import Figure, Line, Table
from heygen_async import HeyGenSession
from heygen_async.models import DubRow

LIMIT = 10
Chaos = Callable[[Fleet, "Trials"], Coroutine[Any, Any, None]]


@frozen(kw_only=True)
class Scenario:
    name: str
    target: float | None
    """The most times the ideal."""
    chaos: Chaos | None = None
    workers: int = 4
    download_seconds: float = 0.0


@frozen(kw_only=True)
class Found:
    """What came of a scenario."""

    outcome: Outcome
    gaps: Sequence[float]
    """Seconds from each end of a job to the create that takes its seat."""
    added_again: int


@define
class Trials:
    """Runs of so many rows, and the tables of what came of them."""

    server: Server
    rows: int
    job_seconds: float
    tables: list[Table] = field(factory=list)

    @property
    def ideal(self) -> float:
        """How long a run takes at best, in seconds."""
        return self.rows * self.job_seconds / LIMIT

    def add(self, title: str, *lines: Line, about: str = "") -> None:
        """Add a table."""
        self.tables.append(Table(title, about, lines))

    async def run(self, scenario: Scenario) -> Found:
        latency = {"GET /files/{name}": scenario.download_seconds} if scenario.download_seconds else 0.0
        with tempfile.TemporaryDirectory() as name, self.server.database() as url:
            folder = Path(name)
            rows = local_rows(folder, self.rows)
            async with fleet(url, folder, job_seconds=self.job_seconds, account_limit=LIMIT, latency=latency) as one:
                await one.start(scenario.workers)
                await one.until_alive(scenario.workers)
                await enqueue(one, rows)
                found = await self._measured(one, rows, scenario)
        self.show(scenario, found)
        return found

    async def _measured(self, one: Fleet, rows: Sequence[DubRow], scenario: Scenario) -> Found:
        started = clock()
        chaos = None if scenario.chaos is None else asyncio.create_task(scenario.chaos(one, self))
        try:
            await completed(one)
        finally:
            if chaos is not None:
                chaos.cancel()
                await asyncio.wait([chaos])
        found = await outcome(one, rows, clock() - started, len(rows) * self.job_seconds / LIMIT)
        again = await enqueue(one, rows)
        return Found(outcome=found, gaps=_gaps(one), added_again=again.added)

    def show(self, scenario: Scenario, found: Found) -> None:
        one = found.outcome
        lines = [
            line("of the ideal", one.ratio, scenario.target, "times"),
            line("uploads", one.uploads, one.rows + one.kills),
            # A worker that is killed loses what it uploads at that moment, in as many slots; nearly always nothing.
            line("uploads, at the very worst", one.uploads, one.rows + UPLOAD_SLOTS * (one.kills + one.freezes)),
            line("answers 429", one.refusals, 8 + one.kills),
            line("requests", one.requests, None, "a row"),
            *_rightness(one, found.added_again),
        ]
        if scenario.chaos is None and scenario.workers > 1:
            lines += [
                line("freed seat to next create, p50", 1000 * _quantile(found.gaps, 0.5), None, "ms"),
                line("freed seat to next create, p95", 1000 * _quantile(found.gaps, 0.95), 200, "ms"),
            ]
        self.add(scenario.name, *lines, about=f"{one.rows} rows, {one.kills} kills.")


def line(name: str, figure: float, most: float | None, unit: str = "", *, exactly: bool = False) -> Line:
    """Return a figure with its goal."""
    return Line(name, {"measured": Figure.of([figure], unit, at_most=most, at_least=most if exactly else None)})


def _rightness(one: Outcome, added_again: int) -> list[Line]:
    """Return what shows that nothing was lost, or done twice."""
    return [
        line("jobs", one.jobs, one.rows, exactly=True),
        line("right files", one.files, one.rows, exactly=True),
        line("jobs at once", one.peak, LIMIT),
        line("creates that were repeated, of those interrupted", one.replays, one.interrupted),
        line("added by another enqueue", added_again, 0),
    ]


def _gaps(one: Fleet) -> list[float]:
    ends = sorted(job.ended_at for job in one.sandbox.jobs if job.ended_at is not None)
    creates = sorted(job.created_at for job in one.sandbox.jobs)[LIMIT:]
    return [max(0.0, create - end) for end, create in zip(ends, creates, strict=False)]


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0


# What befalls them


async def kill_any(one: Fleet, _: Trials) -> None:
    await churn(one, 4.0, random.Random(1), freezes=12.0)


async def hunt(one: Fleet, _: Trials) -> None:
    await churn(one, 4.0, random.Random(1), hunts=True, freezes=12.0)


async def kill_database(_: Fleet, trials: Trials) -> None:
    await asyncio.sleep(trials.ideal / 3)
    await asyncio.to_thread(trials.server.kill)
    await asyncio.to_thread(trials.server.start)
    await asyncio.Event().wait()


async def all_killed(trials: Trials) -> None:
    """Kill all workers while all seats are held, enqueue again, and start others."""
    with tempfile.TemporaryDirectory() as name, trials.server.database() as url:
        folder = Path(name)
        rows = local_rows(folder, trials.rows)
        async with fleet(url, folder, job_seconds=trials.job_seconds, account_limit=LIMIT) as one:
            await one.start(4)
            await one.until_alive(4)
            await enqueue(one, rows)

            async def is_full() -> bool:
                return (await one.cluster.status()).runs[0].rows.get("flight", 0) >= LIMIT

            await until(is_full, 60)
            await one.kill_all()
            left = trials.rows - (await one.cluster.status()).runs[0].rows.get("done", 0) - LIMIT
            again = await enqueue(one, rows)
            started, held = clock(), _held(one, trials.job_seconds) / LIMIT
            await one.start(4)
            await completed(one)
            wall, ideal = clock() - started, held + left * trials.job_seconds / LIMIT
            found = await outcome(one, rows, wall, ideal)
    rest = line("the rest", wall, ideal + 3.0, "s")
    title = "All workers killed while all seats are held"
    trials.add(title, rest, *_rightness(found, again.added), about=f"{found.rows} rows.")


def _held(one: Fleet, job_seconds: float) -> float:
    """Return for how many seconds jobs will hold their seats, all together."""
    ends = [job.created_at + job_seconds for job in one.sandbox.jobs if job.ended_at is None]
    return sum(max(0.0, end - time.time()) for end in ends)


async def ends(trials: Trials) -> None:
    """Tell an idle worker to end, and one with transfers under way."""
    lines = []
    for name, latency in (("idle", 0.0), ("with transfers", {"GET /files/{name}": 3600.0})):
        with tempfile.TemporaryDirectory() as folder, trials.server.database() as url:
            async with fleet(url, Path(folder), job_seconds=0.2, latency=latency) as one:
                await one.start(1)
                await one.until_alive(1)
                if latency:
                    await enqueue(one, url_rows(8))

                    async def downloads() -> bool:
                        return (await one.cluster.status()).runs[0].rows.get("download", 0) >= 4

                    await until(downloads, 60)
                started = clock()
                one.members[0].signal(signal.SIGTERM)
                await one.members[0].ended()
                seconds = clock() - started
        lines.append(line(f"from SIGTERM to the end, {name}", seconds, 1.0, "s"))
    trials.add("One worker", *lines)


async def memory(trials: Trials, count: int) -> None:
    """Let one worker wait for many jobs."""
    with tempfile.TemporaryDirectory() as name, trials.server.database() as url:
        async with fleet(url, Path(name), job_seconds=36000.0, account_limit=None) as one:
            first, again = [await enqueue(one, url_rows(count)) for _ in range(2)]
            jobs = await _created(one, count)
            await one.cluster._database.fetch(  # noqa: SLF001 rows that no create could make as fast
                "UPDATE heygen.rows SET stage = 'flight', lipsync_id = jobs.id, asked_at = heygen.unix_time(), "
                "record = record || jsonb_build_object('state', 'submitted', 'lipsync_id', jobs.id) "
                "FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS jobs (id, number) WHERE jobs.number = rows.number",
                {"ids": jobs},
            )
            (member,) = await one.start(1)
            await one.until_alive(1)
            await asyncio.sleep(10.0)
            status = await asyncio.to_thread(Path(f"/proc/{member.pid}/status").read_text)
            looks = sum("statuses" in request.route for request in one.sandbox.requests)
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    trials.add(
        f"One worker, {count:,} rows in flight",
        line("enqueued", first.added, count, exactly=True),
        line("added by another enqueue", again.added, 0),
        line("memory", resident, 90, "MB"),
        line("requests in 10 s", looks, None),
    )


async def imports(trials: Trials) -> None:
    """See what an import of the package loads of the cluster."""
    program = "import sys, heygen_async, heygen_async.bulk; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    heavy = ("psycopg", "procrastinate", "heygen_async.bulk.cluster")
    loaded = sum(name.startswith(heavy) for name in out.decode().split())
    trials.add("import heygen_async", line("modules of the cluster", loaded, 0))


async def _created(one: Fleet, count: int) -> list[str]:
    limit = asyncio.Semaphore(50)
    async with HeyGenSession(one.sandbox.api_key, base_url=one.sandbox.url) as heygen:

        async def create(number: int) -> str:
            async with limit:
                job = await heygen.lipsyncs.create(video=f"https://x.invalid/{number}", audio="https://x.invalid/a")
                return job.id

        return list(await asyncio.gather(*(create(number) for number in range(count))))


FOUR, ONE = "4 workers", "1 worker"
SCENARIOS = (
    Scenario(name=FOUR, target=1.08),
    Scenario(name=ONE, target=None, workers=1),
    Scenario(name="a worker killed every 4 s", target=1.12, chaos=kill_any),
    Scenario(name="the scheduler killed every 4 s", target=1.18, chaos=hunt),
    Scenario(name="a worker killed every 4 s, downloads of 2 s", target=1.2, chaos=kill_any, download_seconds=2.0),
    Scenario(name="the scheduler killed every 4 s, downloads of 2 s", target=1.2, chaos=hunt, download_seconds=2.0),
    Scenario(name="PostgreSQL killed", target=1.15, chaos=kill_database),
)


async def all_tables(rows: int, job_seconds: float) -> list[Table]:
    """Run all scenarios, and what else is measured."""
    with temporary_server() as server:
        trials = Trials(server, rows, job_seconds)
        found = {scenario.name: (await trials.run(scenario)).outcome for scenario in SCENARIOS}
        ratio = found[FOUR].requests / found[ONE].requests
        trials.add("4 workers to 1", line("requests a row", ratio, 1.15, "times"))
        await all_killed(trials)
        await ends(trials)
        await memory(trials, 10_000)
        await imports(trials)
    return trials.tables


async def few_tables() -> list[Table]:
    """Run a few short rows, and see that it works."""
    with temporary_server() as server:
        trials = Trials(server, rows=6, job_seconds=0.2)
        await trials.run(Scenario(name="2 workers", target=None, workers=2))
        await imports(trials)
    return trials.tables
