"""The poller in depth: its policy in time that jumps, hanging requests, deadlines, memory, 50,000 waits at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from cattrs import structure

from benchmarks import processes
from benchmarks.bench import Bench
from benchmarks.processes import Server
from benchmarks.results import Figure, Line, Table
from benchmarks.sample import Sample
from benchmarks.virtual_waits import GET_LOOP, LOOPS, OURS, VirtualCost, virtual_collections, virtual_cost
from benchmarks.waiting_jobs import MEDIAN, lateness, lengths_of, mean_lateness, requests_a_job

MINUTES = 12.0
LATENCY = 0.15
LONGEST_TURN = 100.0
"""In milliseconds, what garbage collection takes left out."""


async def measure(bench: Bench) -> list[Table]:
    """Measure each."""
    tables = [await asyncio.to_thread(_virtual, bench), await asyncio.to_thread(_collections, bench)]
    async with processes.server() as server:
        tables += [
            await _hanging_request(server, bench),
            await _among_hasty(server, bench),
            await _memory(server, bench),
            await _large(server, bench),
        ]
    return tables


# In time that jumps


def _virtual(bench: Bench) -> Table:
    costs: list[VirtualCost] = []
    for jobs in bench.pick((10, 100, 1000, 10_000, 50_000), (10, 100)):
        ours = virtual_cost(jobs, latency=LATENCY)
        costs.append(ours)
        if jobs <= 1000:
            costs.append(virtual_cost(jobs, way=GET_LOOP, interval=2 * ours.seconds, latency=LATENCY))
            costs += [virtual_cost(jobs, way=name, latency=LATENCY) for name in LOOPS]
    return Table(
        "In virtual time",
        "Requests, and the mean delay as a share of the mean length of a job, by the default policy, with 150 ms of "
        "latency. Others are their loops by default. This does not depend on the load of the machine.",
        [_cost(one) for one in costs],
    )


def _cost(cost: VirtualCost) -> Line:
    goals = (1.4, 3.0) if (cost.way, cost.jobs) == (OURS, 10_000) else (None, None)
    figures = {
        "requests": Figure.of([cost.requests], "a job", at_most=goals[0]),
        "delay": Figure.of([cost.late * 100], "%", at_most=goals[1]),
    }
    return Line(f"{cost.jobs:,} jobs, {cost.way}", figures)


def _collections(bench: Bench) -> Table:
    jobs = bench.pick(50_000, 1000)
    found = virtual_collections(jobs)
    times = {"while they start": found.starting, "a full one later": found.full, "after gc.freeze()": found.frozen}
    return Table(
        f"Garbage collections, {jobs:,} waits",
        "What collections take while so many jobs are awaited.",
        [Line(name, {"CPU": Figure.of([seconds * 1e3], "ms")}) for name, seconds in times.items()],
    )


# Over loopback


async def _hanging_request(server: Server, bench: Bench) -> Table:
    jobs, median = bench.pick((300, 20.0), (120, 2.0))
    lengths = lengths_of(jobs, median=median, sigma=0.0)
    sample = await _ours(server, "wait_each", lengths, hang_after=median - 1)
    late = lateness(sample)
    figures = {
        "over 2 s late": Figure.of([sum(one > 2 for one in late)], ""),
        "the others, at worst": Figure.of([max((one for one in late if one <= 2), default=0.0)], "s"),
    }
    about = f"{jobs} jobs end together, and one of the requests that ask for 100 of them is answered 3 s late."
    return Table("A request that hangs", about, [Line(OURS, figures)])


async def _among_hasty(server: Server, bench: Bench) -> Table:
    lengths = lengths_of(100, median=bench.pick(20.0, 1.0), sigma=0.1)
    lines = []
    for latency in (0.0, LATENCY):
        sample = await _ours(server, "wait_among_hasty", lengths, latency=latency)
        lines.append(Line(f"{latency * 1e3:.0f} ms of latency", {"delay": Figure.of([mean_lateness(sample)], "s")}))
    about = "How late one wait without a deadline sees its end while 50 a second with a deadline of 0.1 s come and go."
    return Table("Beside waits with a short deadline", about, lines)


async def _memory(server: Server, bench: Bench) -> Table:
    lengths = lengths_of(bench.pick(50_000, 1000), median=1e6)
    seconds = bench.pick(10.0, 0.2)
    lines = []
    for name, is_bare in ((OURS, False), ("a task that waits for nothing", True)):
        sample = await _ours(server, "footprint", lengths, seconds=seconds, is_bare=is_bare)
        lines.append(Line(name, {"memory": Figure.of([sample.facts["bytes"]], "bytes")}))
    return Table(f"Memory of {len(lengths):,} waits", "Resident memory of each wait, its task included.", lines)


async def _large(server: Server, bench: Bench) -> Table:
    jobs, median = bench.pick((50_000, MEDIAN), (200, 0.2))
    lengths = lengths_of(jobs, median=median)
    lines = []
    for name, is_frozen in ((OURS, False), (f"{OURS}, gc.freeze()", True)):
        sample = await _ours(server, "wait_each", lengths, latency=LATENCY, is_frozen=is_frozen)
        lines.append(Line(name, _costs(sample)))
    return Table(f"{jobs:,} jobs, 150 ms of latency", "As they are, and with gc.freeze() once all wait.", lines)


def _costs(sample: Sample) -> Mapping[str, Figure]:
    return {
        "requests": Figure.of([requests_a_job(sample)], "a job"),
        "delay, mean": Figure.of([mean_lateness(sample)], "s"),
        "CPU": Figure.of([sample.cpu], "s"),
        "longest stall": Figure.of([sample.stall * 1e3], "ms"),
        "without collections": Figure.of([sample.work * 1e3], "ms", at_most=LONGEST_TURN),
        "collections": Figure.of([sample.facts["collecting"]], "s"),
        "longest collection": Figure.of([sample.facts["longest_collection"] * 1e3], "ms"),
    }


async def _ours(
    server: Server,
    measure: str,
    lengths: Mapping[str, float],
    *,
    latency: float = 0.0,
    hang_after: float | None = None,
    **arguments: Any,  # noqa: ANN401 of the measure
) -> Sample:
    """Run a measure of `our_waits` in a new process."""
    async with processes.worker("benchmarks.our_waits", server.url) as worker:
        await worker.read()
        await server.worker.ask("reset", lengths=lengths, latency=latency, hang_after=hang_after)
        sample = structure(await worker.ask(measure, ids=list(lengths), **arguments), Sample)
        report = await server.worker.ask("report")
    return evolve(sample, facts={**sample.facts, "server": report})
