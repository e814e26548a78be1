"""The report of a run: the state of each row, as CSV for spreadsheets.

Rule 1: it starts with a byte order mark, by which Excel knows that it is UTF-8.
Rule 2: no cell is taken for a formula, also where a semicolon separates cells, and none contains control characters:
some of the text is the server's.
Rule 3: its states are the words of outcomes and stages, so that it agrees with what a run prints.
Rule 4: it appears when it is complete, and never in place of another file of the run, a device or a pipe.
"""

from __future__ import annotations

import csv
import errno
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from anyio import CancelScope, to_thread

from heygen_async._media.targets import same_file_key
from heygen_async._text import escape_controls, one_line
from heygen_async.bulk.own_files import OwnFiles
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import RowPages

COLUMNS: Final = (
    "row",
    "place",
    "key",
    "lipsync_id",
    "state",
    "attempts",
    "upload_seconds",
    "submit_seconds",
    "wait_seconds",
    "download_seconds",
    "estimate",
    "file",
    "error",
)
_STATES: Final = {
    State.PLANNED: "not submitted",
    State.SUBMITTING: "submitting",
    State.SUBMITTED: "running",
    State.COMPLETED: "downloading",
    State.DONE: "completed",
    State.FAILED: "failed",
}
_PAGE: Final = 500
_FORMULA: Final = re.compile(r'(^|;)(?=[\s"]*[=+\-@\uff1d\uff0b\uff0d\uff20])')
"""Where a formula begins, each of its signs in full width too: Excel with a decimal comma takes a `;` in a cell for the
separator, and no comma."""
_DATABASES: Final = (".sqlite", ".db")
_REPORT: Final = "the report"
_HEAD: Final = re.compile(rb'(?:\xef\xbb\xbf)?"?row"?[,;\t]"?place"?[,;\t]"?key\b')
"""How a report begins, also one that a spreadsheet has saved: with its separator, and perhaps in quotes."""


def default_report(journal: Path) -> Path:
    """Return the path of the report that goes with *journal*."""
    stem = journal.stem if journal.suffix in _DATABASES else journal.name  # night.fr and night.de are two runs
    return journal.with_name(f"{stem}.report.csv")


def is_report(path: Path) -> bool:
    """Return whether there is a report of a run at *path*, which another one may replace; no device is opened.

    Raises:
        OSError: If it cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _HEAD.match(file.read(64)) is not None


def unfinished_path(path: Path) -> Path:
    """Return a file beside the report at *path*, to write it to first."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


async def write_report(journal: RowPages, path: Path, own_files: OwnFiles) -> None:
    """Write the state of the rows of this run to *path*.

    Raises:
        ValueError: If another file of the run is there, one of *own_files*.
        OSError: If it cannot be written.
        JournalError: If the journal cannot be read.

    Cancelled, it leaves the file that was there before.
    """
    unfinished = _UnfinishedReport(path)
    try:
        await to_thread.run_sync(unfinished.begin, own_files)
        last = 0
        while records := await journal.rows(last, _PAGE):
            last = records[-1].number
            await to_thread.run_sync(unfinished.add, records)
        await to_thread.run_sync(unfinished.publish)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(unfinished.close)


class _UnfinishedReport:
    """A report that is being written, beside its path. For threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = unfinished_path(path)
        self._file: TextIO | None = None

    def begin(self, own_files: OwnFiles) -> None:
        own = own_files.get(same_file_key(self._path), _REPORT)
        if own != _REPORT:
            raise ValueError(f"the report would overwrite {own}: {self._path}")
        if self._path.exists() and not self._path.is_file():  # a device or a pipe, which would be replaced
            raise FileExistsError(errno.EEXIST, "not a regular file, so no report is written there", str(self._path))
        self._file = self._unfinished.open("x", encoding="utf-8-sig", newline="")
        csv.writer(self._file).writerow(COLUMNS)

    def add(self, records: Sequence[Record]) -> None:
        csv.writer(self._opened()).writerows(_cells(record) for record in records)

    def publish(self) -> None:
        self._opened().close()
        self._unfinished.replace(self._path)

    def close(self) -> None:
        """Close the file, and remove it if it was not published."""
        if self._file is not None:
            self._file.close()
            self._unfinished.unlink(missing_ok=True)

    def _opened(self) -> TextIO:
        assert self._file is not None  # noqa: S101 begin() has opened it
        return self._file


def _cells(record: Record) -> Iterator[object]:
    yield record.number
    yield _cell(record.place)
    yield _cell(record.key)
    yield _cell(record.lipsync_id)
    yield "failed" if record.error is not None else _STATES[record.state]
    yield record.jobs
    seconds = (record.upload_seconds, record.submit_seconds, record.wait_seconds, record.download_seconds)
    yield from (None if one is None else f"{one:.3f}" for one in seconds)
    yield f"{record.estimate + record.earlier_estimate:.4f}"
    yield _path_cell(record.target) if record.state is State.DONE else None
    yield _cell(record.error)


def _cell(text: str | None) -> str | None:
    """Return *text* on one line, and so that no spreadsheet takes it for a formula."""
    return None if text is None else _harmless(one_line(text))


def _path_cell(path: str | None) -> str | None:
    """Return *path* as `_cell` does, but with all of its spaces, and escapes for control characters."""
    return None if path is None else _harmless(escape_controls(path))


def _harmless(line: str) -> str:
    return _FORMULA.sub(r"\1'", line)
