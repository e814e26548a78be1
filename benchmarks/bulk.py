"""Bulk runs: how long they take beside the ideal schedule, how many requests they cost, how fast the journal is.

    python benchmarks/bulk.py                      # all of it, ten minutes
    python benchmarks/bulk.py --quick              # a small size of each part, a minute
    python benchmarks/bulk.py --only virtual       # one part: virtual, scale, loopback, journal, start
    python benchmarks/bulk.py --seeds 20           # more runs of each way in virtual time

virtual: the runner, the poller and the limiter are the real ones; the server is the sandbox's world, asked directly,
with a network of 0.3 s for a create and 0.1 s for a read, in time that jumps. A run is 300 rows of URLs with lognormal
lengths of 60 s on average; nothing is downloaded. The ideal is the list schedule: the same lengths in the same order,
each started the moment a seat is free. Beside `dub_many`: its batches; the same with additive increase and
multiplicative decrease in place of the limiter; `asyncio.gather` with a semaphore of 10 and a GET loop for each job;
and all at once with retry on 429.

scale: the CPU time of a row in runs of 1,000, 10,000 and 100,000 rows of URLs, in batches, with a journal on disk. The
server and the rows take the same memory for each size, so that what grows is the library's. Each run has a process.

loopback: the same against the sandbox over HTTP, in real time, with jobs of about 1 s.

journal: 1,000 rows, five transitions each, on the disk of the temporary folder.

start: a manifest of 1,000 and of 100,000 rows, up to the first job.
"""

# ruff: noqa: ANN401, ARG002, ASYNC110 fakes have the signatures of what they stand for, and rivals poll

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen
from virtual_heygen import RETRY_AFTER, BatchHeyGen, FakeHeyGen, Limit, Server, VirtualLoop

from heygen_async import DubRow, HeyGenSession, RateLimited
from heygen_async.bulk import Manifest
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.limits import Limiter
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.record import Record
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import Entry, HeyGen
from heygen_async.sandbox import Sandbox

ROWS, MEAN, SIGMA = 300, 60.0, 0.6


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


# Ways


class Aimd(Limiter):
    """Additive increase, multiplicative decrease: the textbook's limiter."""

    window, held = 10.0, 0.0

    def may_send(self, now: float) -> bool:
        return now >= self.held and self.in_flight + self.in_air < int(self.window)

    def next_chance(self) -> float:
        return self.held

    def accept(self, now: float) -> None:
        self.in_air -= 1
        self.in_flight += 1
        self.window += 1 / self.window

    def refuse(self, lesson: int, now: float, *, retry_after: float | None = None) -> None:
        self.in_air -= 1
        if now >= self.held:
            self.window, self.held = max(1.0, self.window / 2), now + (retry_after or 0)


def rows_of(lengths: Mapping[str, float]) -> list[DubRow]:
    return [
        DubRow(f"https://sandbox.invalid/v.mp4?seconds={length:.6f}", "https://example.com/a.mp3", key=key)
        for key, length in lengths.items()
    ]


async def finish(run: DubRun, count: int) -> None:
    async with run:
        states = Counter([outcome.state async for outcome in run])
    assert states == {"completed": count}, states


def virtual_run(server: Server, lengths: Mapping[str, float], submit: Any = "each") -> DubRun:
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
    """What people write: create, again after each 429, and a GET every so often."""
    while True:
        with suppress(RateLimited):
            job = await heygen.create(key, video=source, audio=AUDIO, options={"callback_id": key, "mode": "speed"})
            break
        await asyncio.sleep(pause)
    while not (await heygen.get(job)).is_terminal:
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


# In virtual time

WAYS: dict[str, Callable[[Server, Mapping[str, float]], Awaitable[None]]] = {
    "dub_many": dub_many,
    "dub_many, batches": in_batches,
    "dub_many, AIMD": with_aimd,
    "gather, semaphore 10": gathered,
    "all at once": all_at_once,
}
AUDIO = "https://example.com/a.mp3"


@frozen
class Measured:
    ratio: float
    """To the ideal time."""
    refused: int
    """Creates that were answered 429."""
    requests: float
    """For each row."""


def lengths_of(seed: int, rows: int = ROWS, mean: float = MEAN) -> dict[str, float]:
    rng = random.Random(seed)
    return {f"row-{n}": rng.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA) for n in range(rows)}


def ideal(jobs: Sequence[float], limit: Limit, changes: Sequence[float]) -> float:
    """Return how long the list schedule takes."""
    ends: list[float] = []
    now, left = 0.0, list(reversed(jobs))
    while left:
        while left and len(ends) < limit(now):
            heapq.heappush(ends, now + left.pop())
        next_change = min((at for at in changes if at > now), default=math.inf)
        now = heapq.heappop(ends) if ends and ends[0] <= next_change else next_change
    return max([now, *ends])


def measure(way: str, account: str, seed: int, mean: float = MEAN) -> Measured:
    lengths = lengths_of(seed, mean=mean)
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


def virtual(options: argparse.Namespace) -> None:
    print(f"{'account':18} {'way':22} {'time / ideal':>22} {'429s':>20} {'requests a row':>15}")
    for account in ["10"] if options.quick else ACCOUNTS:
        for way in WAYS:
            show(account, way, [measure(way, account, seed) for seed in range(1 if options.quick else options.seeds)])


def show(account: str, way: str, runs: Sequence[Measured]) -> None:
    ratios, refused = [run.ratio for run in runs], [run.refused for run in runs]
    print(
        f"{account:18} {way:22} {statistics.median(ratios):8.3f} (worst {max(ratios):.3f})"
        f" {statistics.median(refused):8.0f} (worst {max(refused)})"
        f" {statistics.median(run.requests for run in runs):12.2f}",
        flush=True,
    )


# The cost of a row


class Endless:
    """Rows that are made when they are read, as often as they are."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[DubRow]:
        return (DubRow(f"https://example.com/{n}.mp4", AUDIO, key=f"row-{n}") for n in range(self._count))


def row_cost(rows: int) -> tuple[float, float]:
    """Return the CPU time of a row of so many, and the part of it that garbage collection takes: microseconds."""
    collecting = began = 0.0

    def on_gc(phase: str, _: object) -> None:
        nonlocal collecting, began
        now = time.process_time()
        began, collecting = (now, collecting) if phase == "start" else (began, collecting + now - began)

    loop = VirtualLoop()
    gc.callbacks.append(on_gc)
    start = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(journal=Path(folder) / "run.sqlite", submit="batch")
            loop.run_until_complete(finish(DubRun(BatchHeyGen(), Endless(rows), plan, origin="virtual"), rows))
    finally:
        loop.close()
    return (time.process_time() - start) / rows * 1e6, collecting / rows * 1e6


def in_process(rows: int) -> tuple[float, float]:
    """Return `row_cost`, measured in a process of its own."""
    command = [sys.executable, __file__, "--row-cost", str(rows)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cost, collecting = printed.split()
    return float(cost), float(collecting)


def scale(options: argparse.Namespace) -> None:
    runs = {200: 2, 1000: 1} if options.quick else {1000: 5, 10_000: 3, 100_000: 1}
    print("\nCPU time of a row, in batches")
    for rows, times in runs.items():
        costs = [in_process(rows) for _ in range(times)]
        cost, collecting = (statistics.median(one) for one in zip(*costs, strict=True))
        print(f"{rows:,} rows: {cost:.0f} µs, {collecting:.0f} µs of them garbage collection", flush=True)


# Over loopback


async def over_loopback(way: str, lengths: Mapping[str, float]) -> Measured:
    async with (
        Sandbox(account_limit=10, retry_after=1, balance=1e6) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen,
    ):
        start = time.perf_counter()
        if way.startswith("dub_many"):
            submit: Any = "batch" if "batches" in way else "each"
            with tempfile.TemporaryDirectory() as folder:
                await finish(
                    heygen.dub_many(rows_of(lengths), journal=Path(folder) / "run.sqlite", submit=submit), len(lengths)
                )
        else:
            calls = heygen._bulk_calls()  # noqa: SLF001 with refusals raised
            await gather(calls, lengths, seats=10 if "semaphore" in way else len(lengths), pause=1.0, every=0.1)
        took = time.perf_counter() - start
        refused = sum(one.status == 429 for one in sandbox.requests)
        best = ideal(list(lengths.values()), *ACCOUNTS["10"])
        return Measured(took / best, refused, len(sandbox.requests) / len(lengths))


def loopback(options: argparse.Namespace) -> None:
    print(f"\nover loopback, jobs of about 1 s\n{'account':18} {'way':22} {'time / ideal':>22} {'429s':>20} a row")
    lengths = lengths_of(0, rows=30 if options.quick else ROWS, mean=1.0)
    for way in WAYS:
        if "AIMD" not in way:
            show("10", way, [asyncio.run(over_loopback(way, lengths))])


# The journal


async def write_journal(path: Path) -> tuple[float, float]:
    """Return the transitions a second, and the longest stall of the event loop."""
    journal = Journal(path, origin="https://api.heygen.com")
    await journal.open()
    entries = [Entry(key=f"row-{n}", inputs="i" * 64, number=n, place=f"line {n}") for n in range(1000)]
    admitted = await journal.admit(entries)

    async def go(record: Record) -> None:
        for step in (
            lambda it: it.sending("b" * 64, None, 0.0),
            lambda it: it.accepted(f"ls_{it.key}"),
            lambda it: it.completed(0.1),
            lambda it: it.writing("/row.mp4"),
            lambda it: it.done(),
        ):
            record = step(record).next_version()
            await journal.save(record)

    watch = asyncio.create_task(longest_stall())
    start = time.perf_counter()
    await asyncio.gather(*(go(record) for record in admitted if isinstance(record, Record)))
    took = time.perf_counter() - start
    watch.cancel()
    await journal.aclose()
    return 5 * len(admitted) / took, await watch


async def longest_stall() -> float:
    """Watch the event loop until cancelled; return the longest time that it was late by, seconds."""
    longest, last = 0.0, time.perf_counter()
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last - 0.001), now
    return longest


def journal(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = [asyncio.run(write_journal(Path(folder) / f"{n}.sqlite")) for n in range(1 if options.quick else 5)]
    rate = statistics.median(rate for rate, _ in runs)
    stall = statistics.median(stall for _, stall in runs)
    print(f"\njournal: {rate:,.0f} transitions a second, each on the disk; longest stall {stall * 1000:.0f} ms")


# The start of a long run


async def begin(folder: Path, rows: int) -> tuple[float, float, float]:
    """Return the seconds up to the first job, the memory that this took, and the longest stall."""
    manifest = folder / f"{rows}.csv"
    with manifest.open("w") as file:
        file.write("key,video,audio,title\n")
        file.writelines(f"k{n},https://example.com/{n}.mp4,{AUDIO},Episode {n}\n" for n in range(rows))
    async with Sandbox() as sandbox, HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
        await heygen.account.me()
        gc.collect()
        before, start = resident(), time.perf_counter()
        watch = asyncio.create_task(longest_stall())
        async with heygen.dub_many(Manifest(manifest), journal=manifest.with_suffix(".sqlite")):
            while not sandbox.jobs:
                await asyncio.sleep(0.01)
            took, more = time.perf_counter() - start, resident() - before
        watch.cancel()
        return took, more, await watch


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def start(options: argparse.Namespace) -> None:
    print()
    with tempfile.TemporaryDirectory() as folder:
        for rows in (1000,) if options.quick else (1000, 100_000):
            took, more, stall = asyncio.run(begin(Path(folder), rows))
            print(
                f"{rows:,} rows: the first job after {took:.1f} s, {more / 1e6:+.1f} MB resident,"
                f" longest stall {stall * 1000:.0f} ms"
            )


PARTS = {"virtual": virtual, "scale": scale, "loopback": loopback, "journal": journal, "start": start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--row-cost", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row_cost is not None:
        print(*row_cost(options.row_cost))
        return
    for name, part in PARTS.items():
        if options.only in {None, name}:
            part(options)


if __name__ == "__main__":
    main()
