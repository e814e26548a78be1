"""The process that measures what a bulk run costs: `python -m benchmarks.bulk_costs`."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import frozen

from benchmarks.bulk_ways import AUDIO, finish
from benchmarks.client import Facts, run
from benchmarks.garbage import Collections
from benchmarks.sample import resident
from benchmarks.virtual_heygen import BatchHeyGen, VirtualLoop
from heygen_async import DubRow, HeyGenSession
from heygen_async.bulk import Manifest
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.record import Record
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import Entry
from heygen_async.sandbox import Sandbox


@frozen
class Opened:
    """A sandbox, a session on it, and a folder."""

    sandbox: Sandbox
    heygen: HeyGenSession
    folder: Path


# A row of many


class Endless:
    """Rows that are made when they are read, as often as they are."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[DubRow]:
        return (DubRow(f"https://example.com/{n}.mp4", AUDIO, key=f"row-{n}") for n in range(self._count))


async def rows(opened: Opened, rows: int) -> Facts:
    """Run so many rows in batches, in time that jumps, with a journal on disk."""
    return await asyncio.to_thread(_rows, opened.folder / "rows.sqlite", rows)


def _rows(journal: Path, count: int) -> Facts:
    loop = VirtualLoop()
    start = time.process_time()
    try:
        with Collections() as collections:
            plan = Plan(journal=journal, submit="batch")
            loop.run_until_complete(finish(DubRun(BatchHeyGen(), Endless(count), plan, origin="virtual"), count))
    finally:
        loop.close()
    return {"cpu": time.process_time() - start, "collecting": collections.seconds}


# The journal

STEPS: Sequence[Callable[[Record], Record]] = (
    lambda it: it.sending("b" * 64, None, 0.0),
    lambda it: it.accepted(f"ls_{it.key}"),
    lambda it: it.completed(0.1),
    lambda it: it.writing("/row.mp4"),
    lambda it: it.done(),
)


async def journal(opened: Opened) -> Facts:
    """Write five transitions of each of 1,000 rows, each on the disk."""
    journal = Journal(opened.folder / "journal.sqlite", origin="https://api.heygen.com")
    await journal.open()
    entries = [Entry(key=f"row-{n}", inputs="i" * 64, number=n, place=f"line {n}") for n in range(1000)]
    admitted = await journal.admit(entries)

    async def go(record: Record) -> None:
        for step in STEPS:
            record = step(record).next_version()
            await journal.save(record)

    start = time.perf_counter()
    await asyncio.gather(*(go(record) for record in admitted if isinstance(record, Record)))
    took = time.perf_counter() - start
    await journal.aclose()
    return {"transitions a second": 5 * len(admitted) / took}


# The start of a long run


async def first_job(opened: Opened, rows: int) -> Facts:
    """Start a run of a manifest with so many rows, up to its first job."""
    manifest = opened.folder / "manifest.csv"
    await asyncio.to_thread(_write_manifest, manifest, rows)
    await opened.heygen.account.me()
    gc.collect()
    before, start = resident(), time.perf_counter()
    async with opened.heygen.dub_many(Manifest(manifest), journal=opened.folder / "first.sqlite"):
        while not opened.sandbox.jobs:  # noqa: ASYNC110 the sandbox tells nobody of its jobs
            await asyncio.sleep(0.01)
        return {"seconds": time.perf_counter() - start, "bytes": resident() - before}


def _write_manifest(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.write("key,video,audio,title\n")
        file.writelines(f"k{n},https://example.com/{n}.mp4,{AUDIO},Episode {n}\n" for n in range(rows))


MEASURES: Mapping[str, Callable[..., Awaitable[Facts]]] = {"rows": rows, "journal": journal, "first_job": first_job}


@asynccontextmanager
async def _open() -> AsyncIterator[Opened]:
    with tempfile.TemporaryDirectory() as folder:
        async with Sandbox() as sandbox, HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
            yield Opened(sandbox, heygen, Path(folder))


if __name__ == "__main__":
    run(_open(), MEASURES)
