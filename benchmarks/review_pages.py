# ruff: noqa: ANN401, ASYNC110, PLC0415 pages are playwright's, which is optional; nothing tells when they have drawn
"""What the run page is measured with: journals, a large video, `heygen-async review` and Chromium."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from heygen_async._media.sources import fingerprint
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.record import Record, State
from heygen_async.sandbox import SAMPLE_VIDEO

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def why_no_browser() -> str | None:
    """Return what is missing for a browser."""
    if CHROMIUM is None:
        return "there is no Chromium"
    return None if importlib.util.find_spec("playwright") else "playwright is not installed"


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


# Processes and the browser


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

KEYS = (*"episode", "Space", "1", "2", "Backspace", "Backspace", "4")


async def typed(page: Any, *, waits: bool) -> list[float]:
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


# A large video


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
