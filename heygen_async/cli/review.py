"""`heygen-async review`: the run page of a journal, to watch its videos and to approve or reject them."""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from heygen_async._wire import chosen_base_url
from heygen_async.bulk.events import DubEvent, DubSnapshot
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.promotion import manifest_rows
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import JournalError
from heygen_async.cli.advice import advising_on_port
from heygen_async.cli.dub_progress import RunProgress
from heygen_async.cli.number_flags import Port
from heygen_async.cli.options import PathFlag, Printing, Switch
from heygen_async.cli.output import note, print_json_line, wants_json
from heygen_async.cli.problems import Problems
from heygen_async.cli.suggestions import command, file, flag
from heygen_async.models import JSON, DubRow
from heygen_async.review import LiveRows, LiveRun, RunPage, run_view

_SQLITE: Final = b"SQLite format 3\0"
"""The beginning of every SQLite file with something in it."""
_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")


async def review(
    journal: Annotated[PathFlag, Parameter(name="JOURNAL")],
    /,
    *,
    manifest: PathFlag | None = None,
    port: Port = 0,
    no_open: Switch = False,
    options: Printing = Printing(),  # noqa: B008 frozen
) -> None:
    """Watch the videos of a run beside their sources, and approve or reject them, in a page on this machine.

    Decisions are stored in the journal at once. Until Ctrl-C no run can use the journal. Afterwards render what was
    approved with dub MANIFEST --approved --output-dir PATH, and make again what was rejected with dub MANIFEST
    --redo-rejected --output-dir PATH.

    Example: heygen-async review episodes.sqlite

    Args:
        journal: The journal of the run, beside its manifest.
        manifest: The manifest, for titles and source videos; without it the one beside the journal that it was made
            for.
        port: The port to listen on, on 127.0.0.1; 0 takes a free one.
        no_open: Print the address of the page, and do not open a browser.
    """
    opened = await _opened(journal)
    try:
        listed = manifest or await _manifest_of(opened, journal)
        rows: Mapping[str, DubRow] = {}
        problems = Problems()
        with problems.at("--manifest" if manifest else ""):
            rows = {} if listed is None else await manifest_rows(Manifest(listed), opened)
            if manifest is not None and not rows:
                raise ValueError(f"{manifest} has no valid row: name the manifest of the run")
        problems.check()
        with advising_on_port(port):
            page = RunPage(journal=opened, name=journal.name, rows=rows)
            async with page.served(port) as url:
                _announce(url, options)
                note("end it with Ctrl-C", options)
                if listed is not None:
                    _note_next(listed, journal, await opened.fact("origin"), options)
                if not no_open:
                    await _open(page, url, options)
                await asyncio.Event().wait()  # until a signal
    finally:
        await opened.aclose()


async def _opened(path: Path) -> Journal:
    """Open the journal.

    Raises:
        ValueError: If the path is not one of a journal.
        JournalError: If it cannot be used for another reason.
    """
    journal = Journal(path, origin="")
    try:
        await journal.open_existing()
    except JournalError as error:
        advice = await asyncio.to_thread(_advice, path)
        if advice is None:
            raise
        raise ValueError(f"{error}{advice}") from error
    return journal


def _advice(path: Path) -> str | None:
    """Return what to add to the message if another file was meant; `None` if this one was. For a thread."""
    if not path.is_file():
        return ""  # the message says it
    with path.open("rb") as file:
        beginning = file.read(len(_SQLITE))
    return "; name the .sqlite file beside it" if beginning and beginning != _SQLITE else None


async def _manifest_of(opened: Journal, journal: Path) -> Path | None:
    """Return the manifest that the journal was made for, if it is still beside it."""
    name = await opened.fact("manifest")
    path = None if name is None else journal.parent / name
    return path if path is not None and await asyncio.to_thread(path.is_file) else None


def _announce(url: str, options: Printing) -> None:
    if wants_json(options.json):
        print_json_line({"type": "page", "url": url})
    else:
        print(f"run page: {url}", flush=True)  # noqa: T201 it is the result


def _note_next(manifest: Path, journal: Path, origin: str | None, options: Printing) -> None:
    """Say how to render what was approved, at the API that the journal belongs to."""
    where = () if journal == manifest.with_suffix(".sqlite") else flag("--journal", journal)
    url = () if origin is None or origin == _chosen_api() else flag("--base-url", origin)
    note("then render what was approved:", options)
    note(command("dub", file(manifest), "--approved", "--output-dir", "final", *where, *url), options)


def _chosen_api() -> str | None:
    """Return the address that a command without --base-url uses; `None` if it cannot be used."""
    try:
        return chosen_base_url(None, os.environ.get)
    except ValueError:
        return None


async def _open(page: RunPage, url: str, options: Printing) -> None:
    """Open a browser, if a person is there to see it."""
    if not wants_json(options.json) and sys.stdout.isatty() and _has_browser():
        once = page.address_once(url)
        if not await asyncio.to_thread(webbrowser.open, once):
            page.withdraw(once)


def _has_browser() -> bool:
    """Return whether there is a window for a browser: without one, a browser would take over the terminal."""
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in _DISPLAYS)


class PageOfRun:
    """The run page of a run in progress, for `heygen-async dub --review`.

    Args:
        progress: What has happened in the run.
    """

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._rows = LiveRows(progress.clock)
        self._ended_after: float | None = None

    def on_event(self, event: DubEvent) -> None:
        """Follow a row from stage to stage."""
        self._progress.on_event(event)
        self._rows.on_event(event)

    @asynccontextmanager
    async def served(self, run: DubRun, manifest: Path, journal: Path, options: Printing) -> AsyncIterator[None]:
        """Serve the page while the body runs, inside the run."""
        listed = Manifest(manifest)
        is_pipe = await asyncio.to_thread(lambda: listed.name) is None  # the run has read it: it is empty now
        rows = {} if is_pipe else await manifest_rows(listed, run.journal)
        live = LiveRun(rows=self._rows, state=lambda: self._state(run))
        page = RunPage(journal=run.journal, name=journal.name, rows=rows, live=live)
        async with page.served() as url:
            _announce(url, options)
            await _open(page, url, options)
            yield

    async def stay(self, options: Printing) -> None:
        """Go on after the end of the run, until a signal."""
        self._ended_after = self._rows.elapsed
        self._rows.changed.add(None)
        note("the run page stays until Ctrl-C", options)
        await asyncio.Event().wait()

    def _state(self, run: DubRun) -> Mapping[str, JSON]:
        elapsed = self._rows.elapsed if self._ended_after is None else self._ended_after
        return run_view(run.snapshot(), self._pace, elapsed=elapsed, has_ended=self._ended_after is not None)

    def _pace(self, snapshot: DubSnapshot) -> tuple[float | None, float | None]:
        return self._progress.rate(), self._progress.seconds_left(snapshot)
