"""The process that waits for jobs with the library in ways that no rival has: `python -m benchmarks.our_waits URL`."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from benchmarks.client import Facts, run
from benchmarks.garbage import Collections
from benchmarks.sample import resident
from heygen_async import HeyGenSession, WaitTimeout


async def wait_each(heygen: HeyGenSession, ids: Sequence[str], *, is_frozen: bool = False) -> Facts:
    """Wait for each job in a task of its own. *is_frozen*: with `gc.freeze()` once all wait."""
    return await _wait_each(heygen.poller.wait, ids, is_frozen=is_frozen)


async def get_loop(heygen: HeyGenSession, ids: Sequence[str], interval: float) -> Facts:
    """Get each job over and over, with a pause of *interval* seconds."""

    async def wait(job: str) -> None:
        while not (await heygen.lipsyncs.get(job)).is_terminal:  # noqa: ASYNC110 it is what one writes by hand
            await asyncio.sleep(interval)

    return await _wait_each(wait, ids)


async def _wait_each(wait: Callable[[str], Awaitable[object]], ids: Sequence[str], *, is_frozen: bool = False) -> Facts:
    seen: dict[str, float] = {}

    async def one(job: str) -> None:
        await wait(job)
        seen[job] = time.monotonic()

    with Collections() as collections:
        async with asyncio.TaskGroup() as group:
            for n, job in enumerate(ids):
                group.create_task(one(job))
                if n % 100 == 99:
                    await asyncio.sleep(0)
            if is_frozen:
                gc.freeze()
    return {"seen": seen, "collecting": collections.seconds, "longest_collection": collections.longest}


async def wait_among_hasty(heygen: HeyGenSession, ids: Sequence[str]) -> Facts:
    """Wait for one job without a deadline while fifty waits a second with a deadline of 0.1 s come and go."""
    patient, *others = ids
    waiting = asyncio.create_task(heygen.poller.wait(patient))

    async def hasty(job: str) -> None:
        with suppress(WaitTimeout):
            await heygen.poller.wait(job, timeout=0.1)

    async with asyncio.TaskGroup() as group:
        while not waiting.done():
            group.create_task(hasty(random.choice(others)))
            await asyncio.sleep(0.02)
    return {"seen": {patient: time.monotonic()}}


async def footprint(heygen: HeyGenSession, ids: Sequence[str], seconds: float, *, is_bare: bool) -> Facts:
    """Measure the resident memory of a task that waits for a job, or of one that waits for nothing, after a time."""
    await heygen.lipsyncs.get(ids[0])
    gc.collect()

    async def nothing(_: str) -> None:
        await asyncio.get_running_loop().create_future()

    before = resident()
    tasks = [asyncio.create_task(nothing(job) if is_bare else heygen.poller.wait(job)) for job in ids]
    await asyncio.sleep(seconds)
    size = (resident() - before) / len(ids)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"bytes": size}


MEASURES: Mapping[str, Callable[..., Awaitable[Facts]]] = {
    "wait_each": wait_each,
    "get_loop": get_loop,
    "wait_among_hasty": wait_among_hasty,
    "footprint": footprint,
}


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[HeyGenSession]:
    async with HeyGenSession("key", base_url=url) as heygen:
        yield heygen


if __name__ == "__main__":
    run(_open(sys.argv[1]), MEASURES)
