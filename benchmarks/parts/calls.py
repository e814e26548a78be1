"""Calls a second and CPU for each, one at a time and 100 at once.

Each contender makes calls for 0.2 s of CPU in each round. `get` fetches a job of eight fields, `create` sends two URLs,
`page` fetches 100 jobs, and `statuses` the states of 100 jobs. No two calls are alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.bench import Bench, Clients, Rounds, Task
from benchmarks.contenders import BARE, OURS
from benchmarks.results import Figure, Table
from benchmarks.sample import Sample

MINUTES = 6.0

CASES = (("get", 1), ("get", 100), ("create", 1), ("create", 100), ("page", 100), ("statuses", 100))
"""The operation, and how many calls are made at once."""
GOALS = {"get": 1.22, "statuses": 2.0, "page": 3.5, "create": 1.35}
"""Of our CPU beside that of aiohttp by hand, with many calls at once."""
OPENAI, OPENAI_GOAL = "openai (aiohttp)", 5.5
"""What an equal call of it should at least cost beside ours."""


async def measure(bench: Bench) -> list[Table]:
    """Measure each case."""
    async with bench.open() as clients:
        return [await _case(bench, clients, operation, at_once) for operation, at_once in CASES]


async def _case(bench: Bench, clients: Clients, operation: str, at_once: int) -> Table:
    arguments = {"method": operation, "cpu": bench.pick(0.2, 0.0), "at_once": at_once}
    task = Task(operation, "calls", arguments, warm_up={**arguments, "cpu": 0.0})
    rounds = await clients.rounds(task, rounds=bench.pick(15, 1))
    return Table(
        f"{operation}, {at_once} at once",
        f"Calls of `{operation}`. CPU is that of the client's process, the kernel's work for it included.",
        rounds.lines(lambda name: _figures(rounds, name, operation, at_once)),
    )


def _figures(rounds: Rounds, name: str, operation: str, at_once: int) -> Mapping[str, Figure]:
    is_goal = name == OURS and at_once > 1
    return {
        "calls a second": rounds.figure(name, lambda one: one.facts["calls"] / one.wall, "a second"),
        "CPU a call": rounds.figure(name, lambda one: _cpu(one) * 1e6, "us"),
        f"CPU, {BARE} = 1": rounds.ratio(name, _cpu, to=BARE, at_most=GOALS[operation] if is_goal else None),
        f"CPU, {OURS} = 1": rounds.ratio(
            name, _cpu, to=OURS, at_least=OPENAI_GOAL if (name, operation, at_once) == (OPENAI, "get", 100) else None
        ),
        "peak memory": rounds.figure(name, lambda one: one.memory, "MB"),
        "longest stall": rounds.figure(name, lambda one: one.stall * 1e3, "ms"),
    }


def _cpu(sample: Sample) -> float:
    return sample.cpu / float(sample.facts["calls"])
