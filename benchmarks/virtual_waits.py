"""The poller alone, over a server without a wire, in time that jumps: the load of the machine does not matter.

The number of connections is not limited. Other clients are their loops by default, one for each job.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from statistics import mean
from typing import TypeVar

from attrs import define, field, frozen

from benchmarks.garbage import Collections
from benchmarks.virtual_heygen import VirtualLoop
from benchmarks.waiting_jobs import lengths_of
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.pagination import Page
from heygen_async.polling import LipsyncPoller

T = TypeVar("T")
Wait = Callable[[str], Awaitable[object]]

OURS, GET_LOOP = "heygen-async", "GET loop"
LOOPS = {"fal-client": (0.1, 0.0), "replicate": (0.5, 0.0), "openai": (5.0, 0.0), "runwayml": (6.0, 1.5)}
"""The pause between two GETs of other clients, in seconds, and its jitter."""
LATENCY = 0.15


@define
class VirtualServer:
    """The three calls of the poller. The state of a job is that of the middle of each call."""

    lengths: Mapping[str, float]
    latency: float
    counts: Counter[str] = field(factory=Counter)

    async def call(self, name: str, answer: Callable[[], T]) -> T:
        self.counts[name] += 1
        await asyncio.sleep(self.latency / 2)
        result = answer()
        await asyncio.sleep(self.latency / 2)
        return result

    def status(self, lipsync_id: str) -> LipsyncStatus:
        is_over = asyncio.get_running_loop().time() >= self.lengths[lipsync_id]
        return LipsyncStatus.COMPLETED if is_over else LipsyncStatus.RUNNING

    def lipsync(self, lipsync_id: str) -> Lipsync:
        return Lipsync(id=lipsync_id, status=self.status(lipsync_id))

    async def statuses(self, ids: Sequence[str]) -> Mapping[str, LipsyncStatus]:
        return await self.call("statuses", lambda: {one: self.status(one) for one in ids})

    async def get(self, lipsync_id: str) -> Lipsync:
        return await self.call("get", lambda: self.lipsync(lipsync_id))

    async def loop(self, lipsync_id: str, interval: float, jitter: float = 0.0) -> None:
        """Wait as other clients do."""
        while not (await self.get(lipsync_id)).is_terminal:  # noqa: ASYNC110 it is what they do
            await asyncio.sleep(interval + random.uniform(-jitter, jitter))

    async def page(self, token: str | None) -> Page[Lipsync]:
        first, newest = int(token or 0), list(self.lengths)[::-1]
        last = first + 100
        return await self.call(
            "list",
            lambda: Page(
                items=[self.lipsync(one) for one in newest[first:last]],
                next_token=str(last) if last < len(newest) else None,
                has_more=last < len(newest),
            ),
        )


@frozen
class VirtualCost:
    """What a way to wait costs."""

    way: str
    jobs: int
    requests: float
    """For each job."""
    late: float
    """How late an end is seen in the mean, as a share of the mean length."""
    seconds: float
    """The same in seconds."""


def virtual_cost(jobs: int, *, way: str = OURS, interval: float = 0.0, latency: float = LATENCY) -> VirtualCost:
    """Wait for so many jobs at once in virtual time, ours by the default policy, the GET loop with *interval*."""
    server = VirtualServer(lengths_of(jobs), latency=latency)
    poller = LipsyncPoller(
        statuses=server.statuses, get=server.get, list_page=server.page, random=random.Random(0).random
    )
    waits: dict[str, Wait] = {OURS: poller.wait, GET_LOOP: partial(server.loop, interval=interval)}
    waits |= {name: partial(server.loop, interval=pause, jitter=jitter) for name, (pause, jitter) in LOOPS.items()}
    loop = VirtualLoop()

    async def lateness(lipsync_id: str) -> float:
        await waits[way](lipsync_id)
        return loop.time() - server.lengths[lipsync_id]

    async def all_of_them() -> list[float]:
        return await asyncio.gather(*map(lateness, server.lengths))

    try:
        late = mean(loop.run_until_complete(all_of_them()))
    finally:
        loop.close()
    return VirtualCost(way, jobs, server.counts.total() / jobs, late / mean(server.lengths.values()), late)


@frozen
class VirtualCollections:
    """Seconds that garbage collection takes while many wait."""

    starting: float
    """While the waits start, all together."""
    full: float
    """A full one later."""
    frozen: float
    """The same after `gc.freeze()`."""


def virtual_collections(jobs: int) -> VirtualCollections:
    """Collect garbage while so many jobs are awaited."""
    server = VirtualServer(dict.fromkeys((f"ls_{n:024}" for n in range(jobs)), 1000.0), latency=LATENCY)
    poller = LipsyncPoller(statuses=server.statuses, get=server.get, list_page=server.page)

    async def seconds(collections: Collections) -> VirtualCollections:
        waits = [asyncio.ensure_future(poller.wait(one)) for one in server.lengths]
        await asyncio.sleep(60)
        started = collections.seconds
        gc.collect()
        full = collections.seconds - started
        gc.freeze()
        gc.collect()
        frozen = collections.seconds - started - full
        for wait in waits:
            wait.cancel()
        return VirtualCollections(started, full, frozen)

    gc.collect()
    gc.freeze()
    loop = VirtualLoop()
    try:
        with Collections() as collections:
            return loop.run_until_complete(seconds(collections))
    finally:
        loop.close()
        gc.unfreeze()
