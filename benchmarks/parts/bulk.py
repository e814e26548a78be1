"""Bulk runs: how long they take beside the ideal schedule, what a row costs, the journal, and the start.

In virtual time the runner, the poller and the limiter are the real ones; the server is the sandbox's world, asked
directly, with a network of 0.3 s for a create and 0.1 s for a read, in time that jumps. A run is 300 rows of URLs with
lognormal lengths of 60 s in the mean; nothing is downloaded. The ideal is the list schedule: the same lengths in the
same order, each started the moment a seat is free. Beside `dub_many`: its batches; the same with additive increase and
multiplicative decrease in place of the limiter; `asyncio.gather` with a semaphore of 10 and a GET loop for each job;
and all at once with a retry on 429.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cattrs import structure

from benchmarks import processes
from benchmarks.bench import Bench
from benchmarks.bulk_ways import ACCOUNTS, ROWS, WAYS, Measured, in_virtual_time, lengths_of, over_loopback
from benchmarks.results import RATIO, Figure, Line, Table
from benchmarks.sample import Sample

MINUTES = 10.0


async def measure(bench: Bench) -> list[Table]:
    """Measure each."""
    accounts = bench.pick(list(ACCOUNTS), ["10"])
    return [
        *[await asyncio.to_thread(_virtual, account, *bench.pick((ROWS, 5), (40, 1))) for account in accounts],
        await _loopback(bench.pick(ROWS, 20), bench.pick(1.0, 0.2)),
        await _rows(bench),
        await _journal(bench.pick(5, 1)),
        await _start(bench.pick((1000, 100_000), (1000,))),
    ]


def _virtual(account: str, rows: int, seeds: int) -> Table:
    lines = [_line(way, [in_virtual_time(way, account, seed, rows=rows) for seed in range(seeds)]) for way in WAYS]
    return Table(f"{rows} rows, a limit of {account}, in virtual time", "Medians of runs with other lengths.", lines)


async def _loopback(rows: int, mean: float) -> Table:
    lengths = lengths_of(0, rows=rows, mean=mean)
    lines = [_line(way, [await over_loopback(way, lengths)]) for way in WAYS if "AIMD" not in way]
    about = "Against the sandbox, over HTTP and in real time."
    return Table(f"{rows} rows, a limit of 10, jobs of about {mean:g} s", about, lines)


def _line(way: str, runs: Sequence[Measured]) -> Line:
    figures = {
        "time, ideal = 1": Figure.of([run.ratio for run in runs], RATIO),
        "at worst": Figure.of([max(run.ratio for run in runs)], RATIO),
        "answers 429": Figure.of([run.refused for run in runs], ""),
        "requests": Figure.of([run.requests for run in runs], "a row"),
    }
    return Line(way, figures)


async def _rows(bench: Bench) -> Table:
    runs = bench.pick({1000: 5, 10_000: 3, 100_000: 1}, {200: 1})
    lines = []
    for rows, times in runs.items():
        samples = [await _sample("rows", rows=rows) for _ in range(times)]
        figures = {
            "CPU": Figure.of([one.facts["cpu"] / rows * 1e6 for one in samples], "us a row"),
            "of it collections": Figure.of([one.facts["collecting"] / rows * 1e6 for one in samples], "us a row"),
        }
        lines.append(Line(f"{rows:,} rows", figures))
    about = (
        "Rows of URLs in batches, with a journal on disk, in virtual time. The server and the rows take the same "
        "memory for each number, so that what grows is the library's."
    )
    return Table("The cost of a row", about, lines)


async def _journal(times: int) -> Table:
    samples = [await _sample("journal") for _ in range(times)]
    figures = {
        "transitions": Figure.of([one.facts["transitions a second"] for one in samples], "a second"),
        "longest stall": Figure.of([one.stall * 1e3 for one in samples], "ms"),
    }
    return Table("The journal", "Five transitions of each of 1,000 rows, each on the disk.", [Line("journal", figures)])


async def _start(sizes: Sequence[int]) -> Table:
    lines = []
    for rows in sizes:
        sample = await _sample("first_job", rows=rows)
        figures = {
            "first job after": Figure.of([sample.facts["seconds"]], "s"),
            "memory": Figure.of([sample.facts["bytes"] / 1e6], "MB"),
            "longest stall": Figure.of([sample.stall * 1e3], "ms"),
        }
        lines.append(Line(f"{rows:,} rows", figures))
    return Table("The start of a run", "A manifest in a file, up to the first job.", lines)


async def _sample(measure: str, **arguments: object) -> Sample:
    """Run a measure of `bulk_costs` in a new process."""
    async with processes.worker("benchmarks.bulk_costs") as worker:
        await worker.read()
        return structure(await worker.ask(measure, **arguments), Sample)
