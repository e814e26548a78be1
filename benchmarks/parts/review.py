"""The run page: how soon it can be used, how fast it answers, what it needs, and what it costs a run.

A journal of 5,000 finished rows with their files, in Chromium: from the request of the page until its rows are drawn,
from a key in the search until the list is drawn, and the memory of the server. A keystroke is measured from the time
stamp of its `keydown` event until the end of the first frame after the list has changed: its style, layout and paint
are included, and the wait for the frame, 8 ms on average. Keys come one after the other, each when the one before is
drawn, and 13 at once.

A video whose 4 seconds are spread over 1 GB of file, in Chromium: until its first picture, and until another one after
a jump to its end. What the server has read is what the kernel counted. Only its first picture is complete, so the
browser looks at each of its 170 pieces on the way to the end: no video needs more of its file.

300 rows against a sandbox, in a process of its own: without a page, with an open page, and with one whose work is
metered, in turns. The CPU time of the first two kinds is compared in pairs, which other work on the machine blurs. The
meter adds up the CPU time of what the page does, in all threads. The page is a client that reads the events, so that a
browser takes nothing from the run.

Chromium is driven by playwright; without them only that last one is measured.
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from attrs import define, field

from benchmarks.bench import Bench
from benchmarks.results import RATIO, Figure, Line, Table

MINUTES = 6.0


async def measure(bench: Bench) -> list[Table]:
    """Measure what there are the means for."""
    if importlib.util.find_spec("cyclopts") is None:
        return [Table("The run page", "None.", [Line("the page", note="heygen-async[cli] is not installed")])]
    from benchmarks.review_pages import why_no_browser  # noqa: PLC0415 an extra

    if reason := why_no_browser():
        return [Table("In Chromium", "None.", [Line("the page", note=reason)]), await _live(bench)]
    many, loads = bench.pick((5_000, 7), (100, 1))
    return [await _rows(many, loads), await _video(bench.pick(1 << 30, 8 << 20)), await _live(bench)]


def _line(what: str, values: list[float], unit: str, at_most: float | None = None) -> Line:
    return Line(what, {"measured": Figure.of(values, unit, at_most=at_most)})


# A finished run


@define
class Seen:
    """What a browser saw of a page, in milliseconds, and what its server took, in megabytes."""

    usable: list[float] = field(factory=list)
    strokes: list[float] = field(factory=list)
    bursts: list[float] = field(factory=list)
    memory: float = 0.0
    peak: float = 0.0


async def _rows(many: int, loads: int) -> Table:
    from benchmarks import review_pages as pages  # noqa: PLC0415 an extra

    async with pages.pages() as new:
        one, lots = await _seen(new, 1, 1, has_keys=False), await _seen(new, many, loads, has_keys=True)
    lines = [
        _line("usable after", lots.usable, "ms", 1500),
        *_keys("keys one after the other", lots.strokes),
        *_keys("13 keys at once", lots.bursts),
        _line("memory of the server beyond that for 1 row", [lots.memory - one.memory], "MB", 30),
        _line("at its peak", [lots.peak - one.memory], "MB", 30),
    ]
    return Table(f"{many:,} rows in Chromium", "A finished run.", lines)


async def _seen(new: Any, rows: int, loads: int, *, has_keys: bool) -> Seen:  # noqa: ANN401 playwright's, which is optional
    from benchmarks import review_pages as pages  # noqa: PLC0415 an extra

    seen = Seen()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = await asyncio.to_thread(pages.write_files, folder, rows)
        await asyncio.to_thread(pages.write_manifest, folder, rows)
        journal = await pages.make_journal(folder, records)
        async with pages.review(journal, "--manifest", str(folder / "rows.csv")) as (pid, url):
            for _ in range(loads):
                page = await new(pages.WATCH)
                await page.goto(url)
                seen.usable.append(await pages.until(page, "() => window.usableAfter"))
                if has_keys:
                    seen.strokes += await pages.typed(page, waits=True)
                    seen.bursts += await pages.typed(page, waits=False)
                await page.context.close()
            seen.memory, seen.peak = pages.megabytes(pid, "VmRSS"), pages.megabytes(pid, "VmHWM")
    return seen


def _keys(what: str, times: list[float]) -> list[Line]:
    return [
        _line(f"{what}: drawn after", times, "ms", 20),
        _line(f"{what}: 95 % within", [statistics.quantiles(times, n=20)[-1]], "ms", 50),
        _line(f"{what}: the slowest", [max(times)], "ms"),
    ]


# A large video


async def _video(size: int) -> Table:
    from benchmarks import review_pages as pages  # noqa: PLC0415 an extra

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "large.mp4"
        await asyncio.to_thread(pages.spread_video, file, size)
        journal = await pages.make_journal(Path(name), [pages.finished(1, file)])
        async with pages.pages() as new, pages.review(journal) as (pid, url):
            page = await new()
            before, started = pages.bytes_read(pid), time.monotonic()
            await page.goto(url)
            await pages.until(page, "() => document.getElementById('result').readyState >= 2")
            start = time.monotonic() - started
            started = time.monotonic()
            await page.evaluate("() => { document.getElementById('result').currentTime = 3.6 }")
            await pages.until(page, "() => !document.getElementById('result').seeking")
            jump = time.monotonic() - started
            assert await page.evaluate("() => document.getElementById('result').currentTime") == 3.6
            read, peak = pages.bytes_read(pid) - before, pages.megabytes(pid, "VmHWM")
    lines = [
        _line("the first picture after", [1000 * start], "ms"),
        _line("another one after a jump to the end", [1000 * jump], "ms"),
        _line("of the file the server has read", [100 * read / size], "%", 25 if size == 1 << 30 else None),
        _line("its memory at the peak", [peak], "MB"),
    ]
    return Table(f"A video of {size >> 20:,} MiB in Chromium", "4 seconds, spread over the file.", lines)


# A run that goes on


async def _live(bench: Bench) -> Table:
    from benchmarks.review_run import live_run  # noqa: PLC0415 an extra

    count, rounds = bench.pick((300, 5), (10, 1))
    plain, paged, shares = [], [], []
    for _ in range(rounds):
        plain.append((await live_run(count, "plain"))[0])
        paged.append((await live_run(count, "page"))[0])
        cost, own = await live_run(count, "metered")
        shares.append(own / (cost - own))
    lines = [
        _line("CPU of the page, beside that of the run", [100 * share for share in shares], "%", 3),
        _line("the whole process, without a page = 1", list(map(float.__truediv__, paged, plain)), RATIO, 1.03),
        _line("CPU of a run without a page", plain, "s"),
        _line("CPU of a run with a page", paged, "s"),
    ]
    return Table(f"An open page of a run of {count} rows", "Beside the same run without a page.", lines)
