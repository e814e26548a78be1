"""What a connection that drops during a paid create does: POSTs sent, keys on the wire, jobs made.

The server reads the whole POST, makes the job, and closes the connection without an answer: the first time only, or
each time. It makes one job for each idempotency key, as HeyGen does, and one for each POST without a key. Each
contender creates one job by its default settings.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from benchmarks.bench import Bench, Clients, Rounds, Task
from benchmarks.contenders import OURS
from benchmarks.results import Figure, Line, Table

MINUTES = 1.0
ALWAYS = 1_000_000


async def measure(bench: Bench) -> list[Table]:
    """Measure both cases."""
    async with bench.open() as clients:
        return [
            await _case(clients, "The first connection drops", drops=1),
            await _case(clients, "Every connection drops", drops=ALWAYS),
        ]


async def _case(clients: Clients, title: str, drops: int) -> Table:
    rounds = await clients.rounds(Task("create", "create_once", server={"drops": drops}), rounds=1)
    lines = [_with_error(line, rounds) for line in rounds.lines(lambda name: _figures(rounds, name))]
    about = "One create, by default settings. Each job that is made is paid for; the caller knows one that is returned."
    return Table(title, about, lines)


def _figures(rounds: Rounds, name: str) -> Mapping[str, Figure]:
    jobs = rounds.figure(name, lambda one: one.facts["server"]["jobs"], "", at_most=1 if name == OURS else None)
    return {
        "POSTs sent": rounds.figure(name, lambda one: one.facts["server"]["posts"], ""),
        "keys on the wire": rounds.figure(name, lambda one: one.facts["server"]["keys"], ""),
        "jobs made": jobs,
        "jobs returned": rounds.figure(name, lambda one: float(one.facts["error"] is None), ""),
        "time": rounds.figure(name, lambda one: one.wall, "s"),
    }


def _with_error(line: Line, rounds: Rounds) -> Line:
    """Return the line with a note of the error that the caller got."""
    if line.name not in rounds.samples:
        return line
    error = rounds.samples[line.name][0].facts["error"]
    return evolve(line, note="" if error is None else f"raised {error}")
