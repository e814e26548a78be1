"""Ways to run many rows on an account with a limit, and how long the ideal schedule takes."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from attrs import frozen

from benchmarks.virtual_heygen import RETRY_AFTER, FakeHeyGen, Limit, Server, VirtualLoop
from heygen_async import DubRow, HeyGenSession, RateLimited
from heygen_async.bulk.limits import Limiter
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import HeyGen
from heygen_async.models import LipsyncOptions
from heygen_async.sandbox import Sandbox

ROWS, MEAN, SIGMA = 300, 60.0, 0.6
AUDIO = "https://example.com/a.mp3"
Submit = Literal["each", "batch"]


def steady(limit: int) -> tuple[Limit, Sequence[float]]:
    return lambda _: limit, ()


ACCOUNTS: dict[str, tuple[Limit, Sequence[float]]] = {
    "3": steady(3),
    "10": steady(10),
    "20": steady(20),
    "10, 5, 10 again": (lambda now: 5 if 600 <= now < 1200 else 10, (600, 1200)),
    "10, 0, 10 again": (lambda now: 0 if 300 <= now < 600 else 10, (300, 600)),
    "10, then 20": (lambda now: 10 if now < 500 else 20, (500,)),
}
"""Accounts by their limits, with the times at which these change."""


@frozen
class Measured:
    """What a run took."""

    ratio: float
    """To the ideal time."""
    refused: int
    """Creates that were answered 429."""
    requests: float
    """For each row."""


def lengths_of(seed: int, rows: int = ROWS, mean: float = MEAN) -> dict[str, float]:
    """Return the lengths of jobs in seconds, by the key of their row."""
    rng = random.Random(seed)
    return {f"row-{n}": rng.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA) for n in range(rows)}


def ideal(jobs: Sequence[float], limit: Limit, changes: Sequence[float]) -> float:
    """Return how long the list schedule takes: the same order, each job started the moment a seat is free."""
    ends: list[float] = []
    now, left = 0.0, list(reversed(jobs))
    while left:
        while left and len(ends) < limit(now):
            heapq.heappush(ends, now + left.pop())
        next_change = min((at for at in changes if at > now), default=math.inf)
        now = heapq.heappop(ends) if ends and ends[0] <= next_change else next_change
    return max([now, *ends])


def rows_of(lengths: Mapping[str, float]) -> list[DubRow]:
    """Return the rows of jobs with these lengths."""
    return [
        DubRow(f"https://sandbox.invalid/v.mp4?seconds={length:.6f}", AUDIO, key=key) for key, length in lengths.items()
    ]


async def finish(run: DubRun, count: int) -> None:
    """Run to the end, which must be a good one for so many rows."""
    async with run:
        states = Counter([outcome.state async for outcome in run])
    assert states == {"completed": count}, states


# In virtual time


class Aimd(Limiter):
    """Additive increase, multiplicative decrease: the textbook's limiter."""

    window, held = 10.0, 0.0

    def may_send(self, now: float) -> bool:
        return now >= self.held and self.in_flight + self.in_air < int(self.window)

    def next_chance(self) -> float:
        return self.held

    def accept(self, now: float) -> None:  # noqa: ARG002 that of the limiter that it replaces
        self.in_air -= 1
        self.in_flight += 1
        self.window += 1 / self.window

    def refuse(self, epoch: int, now: float, *, retry_after: float | None = None) -> None:  # noqa: ARG002 the same
        self.in_air -= 1
        if now >= self.held:
            self.window, self.held = max(1.0, self.window / 2), now + (retry_after or 0)


def virtual_run(server: Server, lengths: Mapping[str, float], submit: Submit = "each") -> DubRun:
    return DubRun(FakeHeyGen(server), rows_of(lengths), Plan(journal=None, submit=submit), origin="virtual")


async def dub_many(server: Server, lengths: Mapping[str, float]) -> None:
    await finish(virtual_run(server, lengths), len(lengths))


async def in_batches(server: Server, lengths: Mapping[str, float]) -> None:
    await finish(virtual_run(server, lengths, "batch"), len(lengths))


async def with_aimd(server: Server, lengths: Mapping[str, float]) -> None:
    run = virtual_run(server, lengths)
    run._context.queue.limiter = Aimd()  # noqa: SLF001 to compare with
    await finish(run, len(lengths))


async def by_hand(heygen: HeyGen, key: str, source: str, *, pause: float, every: float) -> None:
    """Do what people write: create, again after each 429, and a GET every so often."""
    while True:
        with suppress(RateLimited):
            options: LipsyncOptions = {"callback_id": key, "mode": "speed"}
            job = await heygen.create(key, key_age=lambda: 0.0, video=source, audio=AUDIO, options=options)
            break
        await asyncio.sleep(pause)
    while not (await heygen.get(job)).is_terminal:  # noqa: ASYNC110 it is what they do
        await asyncio.sleep(every)


async def gathered(server: Server, lengths: Mapping[str, float]) -> None:
    await gather(FakeHeyGen(server), lengths, seats=10, pause=RETRY_AFTER, every=2.0)


async def all_at_once(server: Server, lengths: Mapping[str, float]) -> None:
    await gather(FakeHeyGen(server), lengths, seats=ROWS, pause=RETRY_AFTER, every=2.0)


async def gather(heygen: HeyGen, lengths: Mapping[str, float], *, seats: int, pause: float, every: float) -> None:
    free = asyncio.Semaphore(seats)

    async def one(row: DubRow) -> None:
        async with free:
            await by_hand(heygen, str(row.key), str(row.video), pause=pause, every=every)

    await asyncio.gather(*map(one, rows_of(lengths)))


WAYS: dict[str, Callable[[Server, Mapping[str, float]], Awaitable[None]]] = {
    "dub_many": dub_many,
    "dub_many, batches": in_batches,
    "dub_many, AIMD": with_aimd,
    "gather, semaphore 10": gathered,
    "all at once": all_at_once,
}


def in_virtual_time(way: str, account: str, seed: int, *, rows: int = ROWS, mean: float = MEAN) -> Measured:
    """Run rows with an account, in time that jumps."""
    lengths = lengths_of(seed, rows, mean)
    limit, changes = ACCOUNTS[account]
    server = Server(lengths, limit)
    loop = VirtualLoop()
    for change in changes:
        loop.call_at(change, server.now)
    try:
        loop.run_until_complete(WAYS[way](server, lengths))
    finally:
        loop.close()
    best = ideal(list(lengths.values()), limit, changes)
    return Measured(loop.now / best, server.refused, server.asked.total() / len(lengths))


# Over loopback


async def over_loopback(way: str, lengths: Mapping[str, float]) -> Measured:
    """Run rows against the sandbox, in real time, with an account that takes 10 jobs at a time."""
    async with (
        Sandbox(account_limit=10, retry_after=1, balance=1e6) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen,
    ):
        start = time.perf_counter()
        if way.startswith("dub_many"):
            await _dubbed(heygen, lengths, "batch" if "batches" in way else "each")
        else:
            calls = heygen._bulk_calls()  # noqa: SLF001 with refusals raised
            await gather(calls, lengths, seats=10 if "semaphore" in way else len(lengths), pause=1.0, every=0.1)
        took = time.perf_counter() - start
        refused = sum(one.status == 429 for one in sandbox.requests)
        best = ideal(list(lengths.values()), *ACCOUNTS["10"])
        return Measured(took / best, refused, len(sandbox.requests) / len(lengths))


async def _dubbed(heygen: HeyGenSession, lengths: Mapping[str, float], submit: Submit) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = heygen.dub_many(rows_of(lengths), journal=Path(folder) / "run.sqlite", submit=submit)
        await finish(run, len(lengths))
