"""Many jobs awaited at once: requests, how late their ends are seen, CPU, memory and stalls.

All jobs begin at once. Their lengths are not known to the client; they are lognormal (median 30 s, sigma 0.4, so 32.5 s
in the mean) and the same for everyone. Each contender waits by what its package has for it, with its default settings.
The GET loop is one on our session, with an interval that should see ends as late as `heygen-async` did.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen
from cattrs import structure

from benchmarks import processes
from benchmarks.bench import Bench, Clients, Task
from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.processes import Server
from benchmarks.results import Figure, Line, Table
from benchmarks.sample import Sample
from benchmarks.waiting_jobs import MEDIAN, lengths_of, mean_lateness, percentile, requests_a_job

MINUTES = 35.0
GET_LOOP = "GET loop"
BLOCKS = "pauses with time.sleep, and so waits for one job after another: it would take 9 minutes"
TOO_MANY = "is measured with 1,000 jobs at most"


@frozen
class Case:
    """So many jobs at once."""

    jobs: int
    latency: float = 0.0
    """Of the server, in seconds."""
    left_out: Mapping[str, str] = {}


RIVALS = [name for name in CONTENDERS if name != OURS]
CASES = (
    Case(100),
    Case(1_000, left_out={"magic-hour": BLOCKS}),
    Case(10_000, latency=0.15, left_out=dict.fromkeys(RIVALS, TOO_MANY)),
)


async def measure(bench: Bench) -> list[Table]:
    """Measure each number of jobs."""
    median = bench.pick(MEDIAN, 1.0)
    async with bench.open() as clients:
        return [await _case(clients, case, median) for case in bench.pick(CASES, (Case(10),))]


async def _case(clients: Clients, case: Case, median: float) -> Table:
    lengths = lengths_of(case.jobs, median=median)
    task = Task(
        "wait",
        "wait",
        {"ids": list(lengths)},
        server={"lengths": lengths, "latency": case.latency},
        left_out=case.left_out,
        is_fresh=True,
    )
    rounds = await clients.rounds(task, rounds=1)
    lines = rounds.lines(lambda name: _figures(rounds.samples[name][0]))
    if OURS in rounds.samples:
        lines.insert(1, await _get_loop(clients.server, task, 2 * mean_lateness(rounds.samples[OURS][0])))
    about = f"{case.jobs:,} jobs. Delays are from the end of a job until the client knows it."
    latency = f", {case.latency * 1e3:.0f} ms of latency" if case.latency else ""
    return Table(f"{case.jobs:,} jobs{latency}", about, lines)


async def _get_loop(server: Server, task: Task, interval: float) -> Line:
    """Do the same by a loop of GETs."""
    async with processes.worker("benchmarks.our_waits", server.url) as worker:
        await worker.read()
        await server.worker.ask("reset", **task.server)
        sample = structure(await worker.ask("get_loop", interval=interval, **task.arguments), Sample)
        report = await server.worker.ask("report")
    figures = _figures(evolve(sample, facts={**sample.facts, "server": report}))
    return Line(GET_LOOP, figures, f"every {interval:.2f} s")


def _figures(sample: Sample) -> Mapping[str, Figure]:
    return {
        "requests": Figure.of([requests_a_job(sample)], "a job"),
        "delay, mean": Figure.of([mean_lateness(sample)], "s"),
        "delay, p99": Figure.of([percentile(sample, 0.99)], "s"),
        "CPU": Figure.of([sample.cpu], "s"),
        "peak memory": Figure.of([sample.memory], "MB"),
        "longest stall": Figure.of([sample.stall * 1e3], "ms"),
    }
