"""The report of a run: what each row has reached, as CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from anyio import to_thread

from heygen_async.bulk.journal import Journal
from heygen_async.bulk.record import Record, State

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
_PAGE: Final = 500


async def write_report(journal: Journal, path: Path) -> None:
    """Write what the rows of this run have reached to *path*, which appears when it is whole.

    Raises:
        OSError: If it cannot be written.
        JournalError: If the journal cannot be read.
    """
    part = path.with_name(f"{path.name}.part")
    file = await to_thread.run_sync(_begin, part)
    try:
        last = 0
        while records := await journal.rows(last, _PAGE):
            last = records[-1].number
            await to_thread.run_sync(_add, file, records)
    finally:
        await to_thread.run_sync(file.close)
    await to_thread.run_sync(os.replace, part, path)


def _begin(part: Path) -> TextIO:
    file = part.open("w", encoding="utf-8", newline="")
    csv.writer(file).writerow(COLUMNS)
    return file


def _add(file: TextIO, records: Sequence[Record]) -> None:
    csv.writer(file).writerows(_cells(record) for record in records)


def _cells(record: Record) -> Iterator[object]:
    yield record.number
    yield record.place
    yield record.key
    yield record.lipsync_id
    yield record.state
    yield record.jobs
    seconds = (record.upload_seconds, record.submit_seconds, record.wait_seconds, record.download_seconds)
    yield from (None if one is None else f"{one:.3f}" for one in seconds)
    yield f"{record.estimate:.4f}"
    yield record.target if record.state is State.DONE else None
    yield _harmless(record.error)


def _harmless(text: str | None) -> str | None:
    """Return *text* so that no spreadsheet takes it for a formula: some of it is the server's."""
    return f"'{text}" if text and text[0] in "=+-@\t" else text
