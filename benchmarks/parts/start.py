"""The import of each contender and its memory, and the start of our command line.

Fresh processes, one at a time. What Python itself takes is in the figures of the imports, and not in those of commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from benchmarks.bench import Bench
from benchmarks.contenders import BARE, CONTENDERS, OURS
from benchmarks.processes import ENVIRON, ProcessFailed, Usage, run_fresh
from benchmarks.results import RATIO, Figure, Line, Table

MINUTES = 2.0
PYTHON = "python -c pass"
COMMANDS = {
    "heygen-async --help": (["-m", "heygen_async", "--help"], 200.0),
    "heygen-async lipsync get": (["-m", "heygen_async", "lipsync", "get", "ls_abc123"], 230.0),
}
"""Arguments of Python, and the most milliseconds of CPU beyond those of Python itself."""
IMPORT_GOAL = 1.30
"""Of our import beside that of aiohttp."""

PEAK = """
import resource, sys
if sys.platform == "linux":
    print("peak", open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
else:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
"""Prints the peak of its own resident memory. What the parent is given for it contains the parent's on Linux."""

Runs = Sequence[Mapping[str, Usage]]
"""By the name of the program: those of one mapping are of the same round."""


async def measure(bench: Bench) -> list[Table]:
    """Measure imports and commands."""
    async with bench.open() as clients:
        env = {**ENVIRON, "HEYGEN_BASE_URL": clients.server.url}
        notes = {name: reason for name, one in CONTENDERS.items() if (reason := one.why_not("import")) is not None}
        runs = await asyncio.to_thread(_runs, env, notes, bench.pick(11, 1))
    return [_imports(runs, notes), _commands(runs, notes)]


def _runs(env: Mapping[str, str], notes: dict[str, str], rounds: int) -> Runs:
    """Run each program in turn, after once that keeps its byte code. One that fails then is added to *notes*."""
    programs = {PYTHON: ["-c", PEAK]}
    programs |= {name: ["-c", one.statement + PEAK] for name, one in CONTENDERS.items() if name not in notes}
    programs |= {name: words for name, (words, _) in COMMANDS.items()}
    for name, words in list(programs.items()):
        try:
            run_fresh(words, env)
        except ProcessFailed as error:
            notes[name] = f"failed: {error}"
            del programs[name]
    return [{name: run_fresh(words, env) for name, words in programs.items()} for _ in range(rounds)]


def _imports(runs: Runs, notes: Mapping[str, str]) -> Table:
    names = [PYTHON, *CONTENDERS]
    lines = [Line(name, note=notes[name]) if name in notes else _import(runs, name) for name in names]
    return Table("Import", "A process that imports the package and ends.", lines)


def _import(runs: Runs, name: str) -> Line:
    ratios = [run[name].cpu / run[BARE].cpu for run in runs]
    figures = {
        "CPU": Figure.of([run[name].cpu * 1e3 for run in runs], "ms"),
        "time": Figure.of([run[name].wall * 1e3 for run in runs], "ms"),
        "memory": Figure.of([_peak(run[name]) for run in runs], "MB"),
        f"CPU, {BARE} = 1": Figure.of(ratios, RATIO, at_most=IMPORT_GOAL if name == OURS else None),
    }
    return Line(name, figures)


def _commands(runs: Runs, notes: Mapping[str, str]) -> Table:
    lines = [Line(name, note=notes[name]) if name in notes else _command(runs, name) for name in COMMANDS]
    return Table("Commands", "A command from its start to its end, beyond what Python itself takes.", lines)


def _command(runs: Runs, name: str) -> Line:
    beyond = [(run[name].cpu - run[PYTHON].cpu) * 1e3 for run in runs]
    return Line(name, {"CPU": Figure.of(beyond, "ms", at_most=COMMANDS[name][1])})


def _peak(usage: Usage) -> float:
    """Return the megabytes that `PEAK` printed."""
    return float(usage.output.rpartition("peak ")[2]) / 1024
