"""The stage for tests of the run page: a journal with finished rows and their files, the page on it, and a browser."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from attrs import evolve, frozen
from chromium import CHROMIUM

from heygen_async._media.sources import fingerprint
from heygen_async.bulk.journal import Journal, existing_journal
from heygen_async.bulk.local_files import read_file_info
from heygen_async.bulk.record import Record, State
from heygen_async.models import DubRow
from heygen_async.review import RunPage
from heygen_async.sandbox import SAMPLE_VIDEO

ORIGIN = "http://127.0.0.1:1"
SRT = "1\n00:00:00,000 --> 00:00:03,000\nHello <b>there</b>\n"

try:
    import playwright.async_api as playwright
except ImportError:
    playwright = None

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or playwright is None, reason="needs a chromium and playwright's Python package"
)


def finished(number: int, folder: Path, *, content: bytes | None = None, **changes: object) -> Record:
    """Return the record of a finished row, and write its file."""
    target = folder / f"row-{number}.mp4"
    target.write_bytes(SAMPLE_VIDEO.read_bytes() if content is None else content)
    record = Record(
        key=f"row-{number}",
        inputs="i",
        number=number,
        place=f"line {number + 1}",
        target=str(target),
        state=State.DONE,
        lipsync_id=f"ls_{number}",
        writing_to=str(target),
        written=fingerprint(target.stat()),
        estimate=0.1332,
        seconds=4.0,
        upload_seconds=0.5,
        submit_seconds=0.1,
        wait_seconds=30.0,
        download_seconds=1.0,
    )
    return evolve(record, **changes)


def with_captions(record: Record) -> Record:
    """Write captions beside the file of a row, and return its record."""
    path = Path(record.target).with_suffix(".srt")
    path.write_text(SRT)
    return evolve(record, captions=fingerprint(path.stat()))


def failed(number: int, error: str, **changes: object) -> Record:
    record = Record(key=f"row-{number}", inputs="i", number=number, place=f"line {number + 1}")
    return evolve(record, state=State.FAILED, error=error, lipsync_id=f"ls_{number}", **changes)


async def write_journal(path: Path, records: list[Record]) -> None:
    """Write a journal with these records."""
    async with running(path) as journal:
        await journal.save(*records)


def local_row(number: int, folder: Path, **changes: object) -> DubRow:
    """Return a row of a manifest with a local source, and write that."""
    source = folder / f"source-{number}.mp4"
    source.write_bytes(SAMPLE_VIDEO.read_bytes())
    row = DubRow(source, "https://example.com/new.mp3", key=f"row-{number}", title=f"Episode {number}")
    return evolve(row, **changes)


async def keep_sources(path: Path, rows: list[DubRow]) -> None:
    """Have a journal know the local sources of rows."""
    infos = {str(row.video): await asyncio.to_thread(read_file_info, row.video) for row in rows}
    async with existing_journal(path) as journal:
        await journal.keep_file_info(infos)


@asynccontextmanager
async def running(path: Path):
    """Open a journal as a run does."""
    journal = Journal(path, origin=ORIGIN)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.aclose()


@frozen
class Visit:
    """The page of a journal, and somebody who visits it."""

    url: str
    http: aiohttp.ClientSession
    journal: Journal
    page: RunPage

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str, **headers: str):
        async with self.http.get(self.url + path, headers=headers) as answer:
            return answer.status, answer.headers, await answer.read()

    async def decide(self, key: str, job: str, decision: str | None, note: str = "", **headers: str):
        body = {"key": key, "job": job, "decision": decision, "note": note}
        async with self.http.post(
            self.url + "decision", json=body, headers={"Origin": self.origin, **headers}
        ) as answer:
            return answer.status, await answer.json()

    async def rows(self) -> dict[str, dict]:
        async with self.http.get(self.url + "rows") as answer:
            return {row["key"]: row for row in (await answer.json())["rows"]}


@asynccontextmanager
async def visited(path: Path, rows: dict[str, DubRow] | None = None, **options: object):
    """Serve the page of the journal at *path*."""
    async with existing_journal(path) as journal, aiohttp.ClientSession() as http:
        page = RunPage(journal=journal, name=path.name, rows=rows or {}, **options)
        async with page.served() as url:
            yield Visit(url, http, journal, page)


@asynccontextmanager
async def browser(*, width: int = 1280, height: int = 800, scheme: str = "light", expected: tuple[str, ...] = ()):
    """Open a chromium; an error on the console of its page fails the test, unless it contains an *expected* text."""
    problems = []
    async with playwright.async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        try:
            context = await chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = await context.new_page()
            page.set_default_timeout(15_000)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
            yield page
            unexpected = [one for one in problems if not any(text in one for text in expected)]
            assert not unexpected, unexpected
        finally:
            await chromium.close()


async def happens(page, script: str, *arguments: object) -> None:
    """Wait until a function in the page returns something true; the page's policy forbids playwright's own wait."""
    async with asyncio.timeout(20):
        while not await page.evaluate(script, *arguments):  # noqa: ASYNC110 nothing else tells us
            await asyncio.sleep(0.01)
