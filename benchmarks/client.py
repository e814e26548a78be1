"""The process of one contender: `python -m benchmarks.client NAME URL`, started by `processes.client`.

It opens the client, prints `{}`, and then does one measure for each line of standard input. Whatever goes wrong ends
it: the last line of its standard error says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TextIO, TypeVar

import orjson
from cattrs import unstructure

from benchmarks.contender import Client
from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.variants import VARIANTS
from benchmarks.sample import Observer
from benchmarks.turns import Turns

T = TypeVar("T")
Facts = Mapping[str, Any]
NUMBERS = count()


async def calls(client: Client, method: str, cpu: float, at_once: int) -> Facts:
    """Make calls until they took so many seconds of CPU, so many at once; at least one each.

    A round is as long in CPU time on a machine that does other things, so its figure is as good.
    """
    call: Callable[[int], Awaitable[object]] = getattr(client, method)
    until = time.process_time() + cpu
    made = next_look = 0
    is_over = False

    async def caller() -> None:
        nonlocal made, next_look, is_over
        while True:
            await call(next(NUMBERS))
            made += 1
            if made > next_look:  # the clock of the CPU is slow
                next_look = made + 10
                is_over = time.process_time() >= until
            if is_over:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    return {"calls": made}


async def items(client: Client) -> Facts:
    """Go through the whole list."""
    found = 0
    async for _ in client.items():
        found += 1
    return {"items": found}


async def create_once(client: Client) -> Facts:
    """Create one job, and say what came of it."""
    task = asyncio.ensure_future(client.create(next(NUMBERS)))
    await asyncio.wait([task])
    error = task.exception()
    return {"error": None if error is None else type(error).__name__}


async def upload(client: Client, path: str) -> Facts:
    """Upload a file."""
    await client.upload(Path(path))
    return {}


async def download(client: Client, path: str) -> Facts:
    """Download a video."""
    await client.download(next(NUMBERS), Path(path))
    return {}


async def wait(client: Client, ids: list[str]) -> Facts:
    """Wait for all jobs at once. `seen` is when the end of each was known, by `time.monotonic`."""
    seen: dict[str, float] = {}
    await client.wait(ids, lambda job: seen.__setitem__(job, time.monotonic()))
    return {"seen": seen}


MEASURES: Mapping[str, Callable[..., Awaitable[Facts]]] = {
    "calls": calls,
    "items": items,
    "create_once": create_once,
    "upload": upload,
    "download": download,
    "wait": wait,
}


def run(opened: AbstractAsyncContextManager[T], measures: Mapping[str, Callable[..., Awaitable[Facts]]]) -> None:
    """Do the measures that standard input names until it is closed, each with what was opened as its first argument."""
    turns = Turns()
    with (
        contextlib.redirect_stdout(sys.stderr) as _,  # what a package prints is no answer
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(turns)) as runner,
    ):
        assert sys.__stdout__
        runner.run(_answer_commands(opened, measures, Observer(turns), sys.__stdout__))


async def _answer_commands(
    opened: AbstractAsyncContextManager[T],
    measures: Mapping[str, Callable[..., Awaitable[Facts]]],
    observer: Observer,
    output: TextIO,
) -> None:
    async with opened as client:
        print("{}", file=output, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            arguments = orjson.loads(line)
            measure = measures[arguments.pop("command")]
            sample = await observer.observe(partial(measure, client, **arguments))
            print(orjson.dumps(unstructure(sample)).decode(), file=output, flush=True)


if __name__ == "__main__":
    name, url = sys.argv[1:]
    run({**CONTENDERS, **VARIANTS}[name].open(url), MEASURES)
