"""Instructions of our calls beside those of aiohttp by hand, by cachegrind, over connections in memory.

What else the machine does has no influence. There are no goals: without the kernel's work a ratio is higher than that
of CPU. It needs valgrind.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp

from benchmarks.bench import Bench
from benchmarks.canned_heygen import InMemory
from benchmarks.client import calls
from benchmarks.contender import Client
from benchmarks.contenders import BARE, OURS
from benchmarks.contenders.bare_aiohttp import BareAiohttp
from benchmarks.contenders.ours import Ours
from benchmarks.processes import ENVIRON, ROOT
from benchmarks.results import RATIO, Figure, Line, Table

MINUTES = 6.0
CALLS = {"get": 500, "statuses": 100, "page": 100, "create": 300}
"""How many of each are counted."""
FEW = 50
"""Calls of the run whose instructions are subtracted, so that the start does not count."""
ABOUT = "Instructions of one call: those of many less those of few."
IN_MEMORY = "http://127.0.0.1:1"


async def measure(bench: Bench) -> list[Table]:
    """Count each call; in a quick run only make it."""
    if bench.is_quick:
        for operation in CALLS:
            for who in (OURS, BARE):
                await _call(who, operation, 1)
        lines = [Line(operation, note="only made, not counted") for operation in CALLS]
    elif shutil.which("valgrind") is None:
        lines = [Line(operation, note="valgrind is not installed") for operation in CALLS]
    else:
        lines = await asyncio.to_thread(_counted_lines)
    return [Table("Instructions of a call", ABOUT, lines)]


def _counted_lines() -> list[Line]:
    _counted(OURS, "get", 1)  # keeps the byte code, or the first figure would contain the compilation
    return [Line(operation, _figures(operation)) for operation in CALLS]


def _figures(operation: str) -> Mapping[str, Figure]:
    ours, bare = _instructions(OURS, operation), _instructions(BARE, operation)
    return {
        OURS: Figure.of([ours], "instructions"),
        BARE: Figure.of([bare], "instructions"),
        f"{BARE} = 1": Figure.of([ours / bare], RATIO),
    }


def _instructions(who: str, operation: str) -> float:
    many = FEW + CALLS[operation]
    return (_counted(who, operation, many) - _counted(who, operation, FEW)) / (many - FEW)


def _counted(who: str, operation: str, number: int) -> int:
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command = [*tool, sys.executable, "-m", __name__, who, operation, str(number)]
    env = {**ENVIRON, "PYTHONHASHSEED": "0"}
    report = subprocess.run(command, check=True, env=env, cwd=ROOT, capture_output=True, text=True).stderr
    found = re.search(r"I +refs: +([0-9,]+)", report)
    assert found is not None, report
    return int(found[1].replace(",", ""))


# The process that is counted


async def _call(who: str, operation: str, number: int) -> None:
    async with _client(who) as client:
        await calls(client, operation, cpu=0, at_once=number)


@asynccontextmanager
async def _client(who: str) -> AsyncIterator[Client]:
    from heygen_async import HeyGenSession  # noqa: PLC0415 the process of the benchmarks needs none

    async with aiohttp.ClientSession(connector=InMemory(limit=0), headers={"X-Api-Key": "key"}) as http:
        if who == BARE:
            yield BareAiohttp(http, IN_MEMORY)
            return
        async with HeyGenSession("key", base_url=IN_MEMORY, http=http) as heygen:
            yield Ours(heygen)


if __name__ == "__main__":
    asyncio.run(_call(sys.argv[1], sys.argv[2], int(sys.argv[3])))
