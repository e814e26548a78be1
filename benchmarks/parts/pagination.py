"""A list of 10,000 jobs, page after page of 100: time, CPU, memory and requests.

Each contender goes through the whole list by the iterator that its package has; those without one are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.answers import ITEMS
from benchmarks.bench import Bench, Rounds, Task
from benchmarks.contenders import BARE, OURS
from benchmarks.results import Figure, Table
from benchmarks.sample import Sample

MINUTES = 1.0


async def measure(bench: Bench) -> list[Table]:
    """Measure the whole list."""
    async with bench.open() as clients:
        rounds = await clients.rounds(Task("items", "items", warm_up={}), rounds=bench.pick(7, 1))
    about = "All jobs of the list, one after another, and what that took. CPU is that of the client's process."
    return [Table(f"{ITEMS:,} jobs of a list", about, rounds.lines(lambda name: _figures(rounds, name)))]


def _figures(rounds: Rounds, name: str) -> Mapping[str, Figure]:
    return {
        "time": rounds.figure(name, lambda one: one.wall * 1e3, "ms"),
        "CPU": rounds.figure(name, _cpu, "ms"),
        f"CPU, {BARE} = 1": rounds.ratio(name, _cpu, to=BARE),
        "peak memory": rounds.figure(name, lambda one: one.memory, "MB"),
        "longest stall": rounds.figure(name, lambda one: one.stall * 1e3, "ms"),
        "requests": rounds.figure(name, lambda one: sum(one.facts["server"]["requests"].values()), ""),
        "jobs seen": rounds.figure(name, lambda one: one.facts["items"], "", at_least=ITEMS if name == OURS else None),
    }


def _cpu(sample: Sample) -> float:
    return sample.cpu * 1e3
