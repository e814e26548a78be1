"""The run page: how soon it can be used, how fast it answers, what it needs, and what it costs a run.

    python benchmarks/review.py                    # all of it, five minutes
    python benchmarks/review.py --quick            # one minute
    python benchmarks/review.py --only rows        # one part: rows, video, live

rows: a journal of 5,000 finished rows with their files, in Chromium: from the request of the page until its rows are
drawn, from a key in the search until the list is drawn, and the memory of the server. A keystroke is measured from the
time stamp of its `keydown` event until the end of the first frame after the list has changed: its style, layout and
paint are included, and the wait for the frame, 8 ms on average. Keys come one after the other, each when the one before
is drawn, and 13 at once.

video: a video whose 4 seconds are spread over 1 GB of file, in Chromium: until its first picture, and until another one
after a jump to its end. What the server has read is what the kernel counted. Only its first picture is complete, so the
browser looks at each of its 170 pieces on the way to the end: no video needs more of its file.

live: 300 rows against a sandbox, in a process of its own: without a page, with an open page, and with one whose work is
metered, in turns. The CPU time of the first two kinds is compared in pairs, which other work on the machine blurs: see
--rounds. The meter adds up the CPU time of what the page does, in all threads. The page is a client that reads the
events, so that a browser takes nothing from the run.

Chromium is driven by playwright; without them only `live` is measured.
"""

# ruff: noqa: ANN401, ASYNC110, PLC0415 pages are playwright's, which is optional; nothing tells when they have drawn

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from heygen_async import DubRow, HeyGenSession, PollPolicy
from heygen_async._media.sources import fingerprint
from heygen_async.bulk.events import DubEvent, DubSnapshot
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.record import Record, State
from heygen_async.cli.dub_progress import Progress
from heygen_async.review import LiveRows, LiveRun, RunPage, run_view
from heygen_async.sandbox import SAMPLE_VIDEO, Sandbox

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MANY, GIGABYTE = 5_000, 1 << 30
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def show(what: str, value: str, goal: str, *, is_met: bool) -> None:
    print(f"  {what:<52} {value:>16}   goal {goal:<12} {'met' if is_met else 'NOT MET'}")


# Journals


async def make_journal(folder: Path, records: list[Record]) -> Path:
    path = folder / "run.sqlite"
    journal = Journal(path, origin="http://127.0.0.1:1")
    await journal.open()
    await journal.save(*records)
    await journal.aclose()
    return path


def finished(number: int, file: Path) -> Record:
    return Record(
        key=f"series-1:episode-{number}",
        inputs="i" * 64,
        number=number,
        place=f"line {number + 1}",
        target=str(file),
        state=State.DONE,
        attempt_key=f"series-1:episode-{number}.0123456789abcdef",
        lipsync_id=f"ls_{number:024}",
        writing_to=str(file),
        written=fingerprint(file.stat()),
        estimate=2.0,
        seconds=60.0 + number % 50,
        upload_seconds=1.5,
        submit_seconds=0.2,
        wait_seconds=80.0 + number % 40,
        download_seconds=2.5,
    )


def write_files(folder: Path, count: int) -> list[Record]:
    (folder / "out").mkdir()
    records = []
    for number in range(1, count + 1):
        file = folder / "out" / f"{number}.mp4"
        file.write_bytes(b"video")
        records.append(finished(number, file))
    return records


def write_manifest(folder: Path, count: int) -> None:
    lines = (
        f"series-1:episode-{number},Series 1 episode {number},https://cdn.invalid/{number}.mp4,https://cdn.invalid/a.mp3"
        for number in range(1, count + 1)
    )
    (folder / "rows.csv").write_text("\n".join(["key,title,video,audio", *lines]))


# Processes


@asynccontextmanager
async def review(journal: Path, *words: str) -> AsyncIterator[tuple[int, str]]:
    """Run `heygen-async review`; yields its process id and the address of the page."""
    command = (sys.executable, "-m", "heygen_async", "review", str(journal), "--no-open", *words)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        yield process.pid, json.loads(await process.stdout.readline())["url"]
    finally:
        process.terminate()
        await process.wait()


def megabytes(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def bytes_read(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


@asynccontextmanager
async def pages() -> AsyncIterator[Any]:
    """Start Chromium; yields a function that opens a new page in it."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])

        async def new(script: str | None = None) -> Any:
            page = await (await chromium.new_context(viewport={"width": 1440, "height": 900})).new_page()
            if script is not None:
                await page.add_init_script(script)
            return page

        try:
            yield new
        finally:
            await chromium.close()


async def until(page: Any, script: str) -> Any:
    while not (found := await page.evaluate(script)):
        await asyncio.sleep(0.005)
    return found


# Parts

WATCH = """
addEventListener("DOMContentLoaded", () => {
  const look = () => {
    if (document.querySelector(".list .row b")?.textContent) {
      requestAnimationFrame(() => { window.usableAfter = performance.now() })
    } else requestAnimationFrame(look)
  }
  look()
})
window.keystrokes = []
let pressed = 0
addEventListener("keydown", (event) => { pressed = event.timeStamp }, true)
addEventListener("input", () => {
  const started = pressed, drawn = new MessageChannel()
  drawn.port1.onmessage = () => window.keystrokes.push(performance.now() - started)
  requestAnimationFrame(() => drawn.port2.postMessage(null))
}, true)
"""


async def rows(options: argparse.Namespace) -> None:
    print(f"rows: {MANY:,} in Chromium")
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        few = await asyncio.to_thread(write_files, Path(one), 1)
        lots = await asyncio.to_thread(write_files, Path(many), MANY)
        write_manifest(Path(one), 1)
        write_manifest(Path(many), MANY)
        small, large = await make_journal(Path(one), few), await make_journal(Path(many), lots)
        async with pages() as new:
            before = await _memory(new, small, Path(one) / "rows.csv")
            usable, strokes, bursts, after, peak = await _rows(
                new, large, Path(many) / "rows.csv", 3 if options.quick else 7
            )
    show("usable after", f"{usable:,.0f} ms", "<= 1,500 ms", is_met=usable <= 1500)
    _show_keys("keys one after the other", strokes)
    _show_keys("13 keys at once", bursts)
    show(
        "memory of the server beyond that for 1 row",
        f"{after - before:,.1f} MB",
        "<= 30 MB",
        is_met=after - before <= 30,
    )
    show("at its peak", f"{peak - before:,.1f} MB", "<= 30 MB", is_met=peak - before <= 30)


async def _memory(new: Any, journal: Path, manifest: Path) -> float:
    async with review(journal, "--manifest", str(manifest)) as (pid, url):
        page = await new(WATCH)
        await page.goto(url)
        await until(page, "() => window.usableAfter")
        return megabytes(pid, "VmRSS")


KEYS = (*"episode", "Space", "1", "2", "Backspace", "Backspace", "4")


def _show_keys(what: str, times: list[float]) -> None:
    median, most, worst = statistics.median(times), statistics.quantiles(times, n=20)[-1], max(times)
    show(f"{what}, {len(times)}: median", f"{median:,.1f} ms", "<= 20 ms", is_met=median <= 20)
    show("  95 % of them within", f"{most:,.1f} ms", "<= 50 ms", is_met=most <= 50)
    print(f"    the slowest took {worst:,.1f} ms, on a machine with a load of {os.getloadavg()[0]:.1f}")


async def _rows(
    new: Any, journal: Path, manifest: Path, times: int
) -> tuple[float, list[float], list[float], float, float]:
    loads: list[float] = []
    strokes: list[float] = []
    bursts: list[float] = []
    async with review(journal, "--manifest", str(manifest)) as (pid, url):
        for _ in range(times):
            page = await new(WATCH)
            await page.goto(url)
            loads.append(await until(page, "() => window.usableAfter"))
            strokes += await _typed(page, waits=True)
            bursts += await _typed(page, waits=False)
            await page.context.close()
        return statistics.median(loads), strokes, bursts, megabytes(pid, "VmRSS"), megabytes(pid, "VmHWM")


async def _typed(page: Any, *, waits: bool) -> list[float]:
    """Type into an empty search; return how long each key took to be drawn, in milliseconds."""
    await page.evaluate("() => { const search = document.getElementById('search'); search.value = ''; search.focus() }")
    await page.evaluate("() => { window.keystrokes = [] }")
    for number, key in enumerate(KEYS, start=1):
        await page.keyboard.press(key)
        if waits:
            await until(page, f"() => window.keystrokes.length === {number}")
    await until(page, f"() => window.keystrokes.length === {len(KEYS)}")
    found: list[float] = await page.evaluate("() => window.keystrokes")
    return found


def boxes(content: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    while start < stop:
        size, kind = struct.unpack(">I4s", content[start : start + 8])
        yield kind, start, size
        if kind in _CONTAINERS:
            yield from boxes(content, start + 8, start + size)
        start += size


def spread_video(path: Path, size: int) -> None:
    """Write the sample video with its chunks spread over *size* bytes, of which the rest is a hole."""
    content = bytearray(SAMPLE_VIDEO.read_bytes())
    found = list(boxes(bytes(content), 0, len(content)))
    tables = [start for kind, start, _ in found if kind == b"stco"]
    data = next((start, length) for kind, start, length in found if kind == b"mdat")
    places = [
        table + 16 + 4 * index
        for table in tables
        for index in range(struct.unpack(">I", content[table + 12 : table + 16])[0])
    ]
    chunks = sorted((struct.unpack(">I", content[place : place + 4])[0], place) for place in places)
    ends = [start for start, _ in chunks[1:]] + [data[0] + data[1]]
    gap = (size - len(content)) // len(chunks)
    with path.open("wb") as file:
        for number, ((start, place), end) in enumerate(zip(chunks, ends, strict=True)):
            content[place : place + 4] = struct.pack(">I", start + number * gap)
            file.seek(start + number * gap)
            file.write(content[start:end])
        content[data[0] : data[0] + 4] = struct.pack(">I", size - data[0])
        file.seek(0)
        file.write(content[: chunks[0][0]])
        file.truncate(size)


async def video(_options: argparse.Namespace) -> None:
    print("video: 4 seconds over 1 GB of file, in Chromium")
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "large.mp4"
        await asyncio.to_thread(spread_video, file, GIGABYTE)
        journal = await make_journal(Path(name), [finished(1, file)])
        async with pages() as new, review(journal) as (pid, url):
            page = await new()
            before, started = bytes_read(pid), time.monotonic()
            await page.goto(url)
            await until(page, "() => document.getElementById('result').readyState >= 2")
            start = time.monotonic() - started
            started = time.monotonic()
            await page.evaluate("() => { document.getElementById('result').currentTime = 3.6 }")
            await until(page, "() => !document.getElementById('result').seeking")
            jump = time.monotonic() - started
            assert await page.evaluate("() => document.getElementById('result').currentTime") == 3.6
            read, peak = bytes_read(pid) - before, megabytes(pid, "VmHWM")
    show("the first picture after", f"{1000 * start:,.0f} ms", "none", is_met=True)
    show("another one after a jump to the end", f"{1000 * jump:,.0f} ms", "none", is_met=True)
    share = read / GIGABYTE
    show("of the file the server has read", f"{100 * share:,.1f} %", "<= 25 %", is_met=share <= 0.25)
    show("its memory at the peak", f"{peak:,.0f} MB", "none", is_met=True)


async def live(options: argparse.Namespace) -> None:
    count, rounds = (100, 3) if options.quick else (300, options.rounds)
    print(f"live: {count} rows, {rounds} rounds of three runs")
    plain: list[float] = []
    paged: list[float] = []
    shares: list[float] = []
    for _ in range(rounds):
        plain.append((await _live_run(count, "plain"))[0])
        paged.append((await _live_run(count, "page"))[0])
        cost, own = await _live_run(count, "metered")
        shares.append(own / (cost - own))
    share, more = statistics.median(shares), statistics.median(map(float.__truediv__, paged, plain)) - 1
    show("CPU of the page, beside that of the run", f"{100 * share:.1f} %", "<= 3 %", is_met=share <= 0.03)
    show("the whole process, with a page and without", f"{100 * more:+.1f} %", "<= 3 %", is_met=more <= 0.03)
    print(f"  CPU of a run: {_spread(plain)} without a page, {_spread(paged)} with one")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


async def _live_run(count: int, kind: str) -> tuple[float, float]:
    """Run rows in a process of their own; return its CPU time and that of the page alone, if it is metered."""
    async with Sandbox(speed=20, job_seconds=20, balance=1e6) as sandbox:
        words = (str(count), kind, sandbox.url, sandbox.api_key)
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--run", *words, stdout=subprocess.PIPE, env=os.environ
        )
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(http, url)) if url else None
            cost, own = json.loads(await process.stdout.readline())
            if watching is not None:
                watching.cancel()
            await process.wait()
        return cost, own


async def _watch(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(f"{url}rows") as answer:
        await answer.read()
    try:
        async with http.get(f"{url}events", timeout=aiohttp.ClientTimeout(total=None)) as events:
            async for _ in events.content:
                pass
    except aiohttp.ClientError:
        pass


class Meter:
    """Adds up the CPU time of what the page does, in any thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_on: ContextVar[bool] = ContextVar("is_on", default=False)

    def call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return *function*, metered."""

        def metered(*arguments: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.thread_time() - started

        return metered

    @types.coroutine
    def drive(self, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run a coroutine, each of its steps metered."""
        self._is_on.set(True)
        send, throw, value, error = self.call(work.send), self.call(work.throw), None, None
        while True:
            try:
                waited = send(value) if error is None else throw(error)
            except StopIteration as end:
                return end.value
            try:
                value, error = (yield waited), None
            except BaseException as found:  # noqa: BLE001 it goes on to the work
                error = found

    def attach(self, journal: Journal) -> None:
        """Meter what a journal does in its thread for the page."""
        in_turn = journal.in_turn

        async def metered(job: Callable[[], Any]) -> Any:
            return await in_turn(self.call(job) if self._is_on.get() else job)

        journal.in_turn = metered  # type: ignore[method-assign]


class MeteredPage(RunPage):
    """The run page, with a meter."""

    meter: Meter

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        answer: web.StreamResponse = await self.meter.drive(RunPage._guarded(self, request, handler))  # noqa: SLF001
        return answer


async def run(count: int, kind: str, url: str, key: str) -> None:
    """Run rows, and print the CPU time of it; the process of `_live_run`."""
    polling = PollPolicy(fastest=0.25, slowest=1.0)
    given = [
        DubRow(f"https://sandbox.invalid/{n}.mp4", "https://example.com/a.mp3", key=f"row-{n}") for n in range(count)
    ]
    progress, live_rows, meter = Progress(time.monotonic), LiveRows(time.monotonic), Meter()
    follow = meter.call(live_rows.on_event) if kind == "metered" else live_rows.on_event

    def on_event(event: DubEvent) -> None:
        progress.on_event(event)  # as `dub` does without a page too
        if kind != "plain":
            follow(event)

    with tempfile.TemporaryDirectory() as name:
        async with HeyGenSession(key, base_url=url, polling=polling) as heygen:
            options: dict[str, Any] = {"journal": Path(name) / "run.sqlite", "output_dir": Path(name) / "out"}
            async with heygen.dub_many(given, **options, on_event=on_event) as running:
                if kind == "plain":
                    print(json.dumps(None), flush=True)
                    await _spend(running, meter)
                    return

                def state() -> Any:
                    return run_view(running.snapshot(), pace, elapsed=live_rows.elapsed, has_ended=False)

                rows_by_key = {str(row.key): row for row in given}
                live_run = LiveRun(rows=live_rows, state=state)
                kind_of_page = MeteredPage if kind == "metered" else RunPage
                shown = kind_of_page(journal=running.journal, name="run", rows=rows_by_key, live=live_run)
                if isinstance(shown, MeteredPage):
                    shown.meter = meter
                    meter.attach(running.journal)
                async with shown.served() as page:
                    print(json.dumps(page), flush=True)
                    await _spend(running, meter)


def pace(_snapshot: DubSnapshot) -> tuple[float | None, float | None]:
    return None, None


async def _spend(running: Any, meter: Meter) -> None:
    before, own = time.process_time(), meter.seconds
    async for outcome in running:
        assert outcome.state == "completed", outcome
    print(json.dumps([time.process_time() - before, meter.seconds - own]), flush=True)


PARTS = {"rows": rows, "video": video, "live": live}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=5, help="of the part live; 15 on a machine with other work")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        await run(int(options.run[0]), *options.run[1:])
        return
    for name, part in PARTS.items():
        if options.only in {None, name}:
            if CHROMIUM is None and name != "live":
                print(f"{name}: needs a chromium")
                continue
            await part(options)


if __name__ == "__main__":
    asyncio.run(main())
