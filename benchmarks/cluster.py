"""What a cluster costs: time against the ideal, requests, refusals and memory, undisturbed and under all mishaps.

    python benchmarks/cluster.py            # 200 rows of 2 s, limit 10, 4 workers: as the goals are stated
    python benchmarks/cluster.py --quick    # 40 rows: does it work

The ideal is rows x seconds / limit. Each line is a figure and its goal. Ratios and times mean something only on a
machine that has nothing else to do; the counts always do. It starts a PostgreSQL of its own. It takes 10 minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from attrs import define, frozen
from cluster_fleet import (
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
from cluster_postgres import Server, temporary_server

from heygen_async import HeyGenSession
from heygen_async.models import DubRow

JOB_SECONDS = 2.0
LIMIT = 10
Chaos = Callable[[Fleet, "Bench"], Coroutine[Any, Any, None]]


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
class Bench:
    server: Server
    rows: int
    is_good: bool = True

    def line(self, name: str, figure: float, most: float | None, unit: str = "", *, exactly: bool = False) -> None:
        """Print a figure beside its goal."""
        is_good = most is None or (figure == most if exactly else figure <= most)
        self.is_good = self.is_good and is_good
        goal = "" if most is None else f"   goal {'' if exactly else '<= '}{most:g}{unit}"
        shown = f"{figure:.2f}" if isinstance(figure, float) else f"{figure}"
        print(f"  {name:52} {shown:>8}{unit:3}{goal}{'' if is_good else '   <-- MISSED'}", flush=True)

    async def run(self, scenario: Scenario) -> Found:
        latency = {"GET /files/{name}": scenario.download_seconds} if scenario.download_seconds else 0.0
        with tempfile.TemporaryDirectory() as name, self.server.database() as url:
            folder = Path(name)
            rows = local_rows(folder, self.rows)
            async with fleet(url, folder, job_seconds=JOB_SECONDS, account_limit=LIMIT, latency=latency) as one:
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
        found = await outcome(one, rows, clock() - started, len(rows) * JOB_SECONDS / LIMIT)
        again = await enqueue(one, rows)
        return Found(outcome=found, gaps=_gaps(one), added_again=again.added)

    def show(self, scenario: Scenario, found: Found) -> None:
        one = found.outcome
        print(f"{scenario.name} ({one.rows} rows, {one.kills} kills)", flush=True)
        self.line("of the ideal", one.ratio, scenario.target)
        self.line("jobs", one.jobs, one.rows, exactly=True)
        self.line("right files", one.files, one.rows, exactly=True)
        self.line("jobs at once", one.peak, LIMIT)
        self.line("creates that were repeated, of those interrupted", one.replays, one.interrupted)
        # A worker that is killed loses what it uploads at that moment, in as many slots; nearly always that is nothing.
        self.line("uploads", one.uploads, one.rows + one.kills)
        self.line("uploads, at the very worst", one.uploads, one.rows + UPLOAD_SLOTS * (one.kills + one.freezes))
        self.line("answers 429", one.refusals, 8 + one.kills)
        self.line("added by another enqueue", found.added_again, 0)
        self.line("requests a row", one.requests, None)
        if scenario.chaos is None and scenario.workers > 1:
            self.line("freed seat to next create, p50", 1000 * _quantile(found.gaps, 0.5), None, " ms")
            self.line("freed seat to next create, p95", 1000 * _quantile(found.gaps, 0.95), 200, " ms")


def _gaps(one: Fleet) -> list[float]:
    ends = sorted(job.ended_at for job in one.sandbox.jobs if job.ended_at is not None)
    creates = sorted(job.created_at for job in one.sandbox.jobs)[LIMIT:]
    return [max(0.0, create - end) for end, create in zip(ends, creates, strict=False)]


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0


# What befalls them


async def kill_any(one: Fleet, _: Bench) -> None:
    await churn(one, 4.0, random.Random(1), freezes=12.0)


async def hunt(one: Fleet, _: Bench) -> None:
    await churn(one, 4.0, random.Random(1), hunts=True, freezes=12.0)


async def kill_database(_: Fleet, bench: Bench) -> None:
    await asyncio.sleep(bench.rows * JOB_SECONDS / LIMIT / 3)
    await asyncio.to_thread(bench.server.kill)
    await asyncio.to_thread(bench.server.start)
    await asyncio.Event().wait()


async def all_killed(bench: Bench) -> None:
    """Kill all workers while all seats are held, enqueue again, and start others."""
    with tempfile.TemporaryDirectory() as name, bench.server.database() as url:
        folder = Path(name)
        rows = local_rows(folder, bench.rows)
        async with fleet(url, folder, job_seconds=JOB_SECONDS, account_limit=LIMIT) as one:
            await one.start(4)
            await one.until_alive(4)
            await enqueue(one, rows)

            async def is_full() -> bool:
                return (await one.cluster.status()).runs[0].rows.get("flight", 0) >= LIMIT

            await until(is_full, 60)
            await one.kill_all()
            left = bench.rows - (await one.cluster.status()).runs[0].rows.get("done", 0) - LIMIT
            again = await enqueue(one, rows)
            started = clock()
            await one.start(4)
            await completed(one)
            wall, ideal = clock() - started, left * JOB_SECONDS / LIMIT
            found = await outcome(one, rows, wall, ideal)
    print(f"all workers killed while all seats are held ({found.rows} rows)")
    bench.line("the rest", wall, ideal + 3.0, " s")
    bench.line("jobs", found.jobs, found.rows, exactly=True)
    bench.line("right files", found.files, found.rows, exactly=True)
    bench.line("jobs at once", found.peak, LIMIT)
    bench.line("creates that were repeated, of those interrupted", found.replays, found.interrupted)
    bench.line("added by another enqueue", again.added, 0)


async def ends(bench: Bench) -> None:
    """Tell an idle worker to end, and one with transfers under way."""
    print("one worker")
    for name, latency in (("idle", 0.0), ("with transfers", {"GET /files/{name}": 3600.0})):
        with tempfile.TemporaryDirectory() as folder, bench.server.database() as url:
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
        bench.line(f"from SIGTERM to the end, {name}", seconds, 1.0, " s")


async def memory(bench: Bench, count: int) -> None:
    """Let one worker wait for many jobs."""
    with tempfile.TemporaryDirectory() as name, bench.server.database() as url:
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
    print(f"one worker, {count} rows in flight")
    bench.line("enqueued", first.added, count, exactly=True)
    bench.line("added by another enqueue", again.added, 0)
    bench.line("memory", resident, 90, " MB")
    bench.line("requests in 10 s", looks, None)


async def imports(bench: Bench) -> None:
    """See what an import of the package loads of the cluster."""
    program = "import sys, heygen_async, heygen_async.bulk; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    heavy = ("psycopg", "procrastinate", "heygen_async.bulk.cluster")
    print("import heygen_async")
    bench.line("modules of the cluster", sum(name.startswith(heavy) for name in out.decode().split()), 0)


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


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--only", help="the scenarios whose name contains this")
    options = parser.parse_args()
    started = clock()
    with temporary_server() as server:
        bench = Bench(server, 40 if options.quick else 200)
        found = {}
        for scenario in SCENARIOS:
            if options.only is None or options.only in scenario.name:
                found[scenario.name] = (await bench.run(scenario)).outcome
        if {FOUR, ONE} <= found.keys():
            print("4 workers to 1")
            bench.line("requests a row", found[FOUR].requests / found[ONE].requests, 1.15)
        if options.only is None:
            await all_killed(bench)
            await ends(bench)
            await memory(bench, 1_000 if options.quick else 10_000)
            await imports(bench)
    print(f"{'all goals are met' if bench.is_good else 'NOT all goals are met'}, in {clock() - started:.0f} s")
    return 0 if bench.is_good or options.quick else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
