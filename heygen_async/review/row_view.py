"""What the page shows of a row: its record, its decision, its sources and its stage as one JSON object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from attrs import frozen

from heygen_async.bulk.events import ENDS, Stage
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.reviews import Review
from heygen_async.models import JSON, DubRow

Category: TypeAlias = Literal["review", "approved", "rejected", "failed", "running"]
"""Each row is in exactly one category, so that their counts add up."""

FileState: TypeAlias = Literal["ready", "missing", "changed", "unknown", "none"]
"""A result: `changed` since it was written, `unknown` if no fingerprint is recorded, `none` if it is not wanted."""

_ADVICE: Final[Mapping[FileState, str]] = {
    "missing": "The file is gone. Run the same dub command again: it is downloaded again, and not paid for again.",
    "changed": "The file was changed or replaced after the run wrote it. Move it away and run the same dub command "
    "again: it is downloaded again, and not paid for again.",
    "unknown": "The journal does not say which file the run wrote. Move the file away and run the same dub command "
    "again: it is downloaded again, and not paid for again.",
    "none": "The run wrote no file for this row. Give it an output, or the run an --output-dir, and run it again.",
}
_FINAL: Final = (
    "Another attempt would fail in the same way: change the video or the audio of the row, and run the same dub "
    "command again. A failed job costs nothing."
)
_PASSING: Final = "Run the same dub command again with --retry-failed. A failed job costs nothing."
_REFUSED: Final = "No job was created. Change what the message says, and run the same dub command again."
_DOWNLOAD: Final = "The video is paid for. Run the same dub command again: only the download is repeated."
_UNFINISHED: Final = "Run the same dub command again: it continues where it stopped."


@frozen
class LiveRow:
    """A row in the run in progress."""

    stage: Stage
    message: str | None
    history: tuple[tuple[float, Stage], ...]
    """When it came to each stage, in seconds since the start of the run."""


def category_of(record: Record, review: Review | None, live: LiveRow | None) -> Category:
    """Return where a row is listed."""
    if live is not None and live.stage not in ENDS:
        return "running"
    if record.state is State.DONE:
        return "review" if review is None else review.decision
    has_failed = record.state is State.FAILED or record.error is not None
    return "failed" if has_failed or (live is not None and live.stage == "failed") else "running"


def row_view(
    record: Record, review: Review | None, row: DubRow | None, file: FileState, live: LiveRow | None
) -> dict[str, JSON]:
    """Return the JSON object of a row, without what is empty: there are thousands of them.

    Args:
        record: Its record.
        review: The decision on its job, if there is one.
        row: The row of the manifest, if there is one.
        file: The state of its result.
        live: Where it is in the run in progress.
    """
    category = category_of(record, review, live)
    message = live.message if live is not None and category in {"running", "failed"} else None
    is_done = record.state is State.DONE
    steps = [record.upload_seconds, record.submit_seconds, record.wait_seconds, record.download_seconds]
    view: dict[str, JSON] = {
        "key": record.key,
        "number": record.number,
        "place": record.place,
        "title": None if row is None else row.title,
        "mode": None if row is None else row.mode,
        "draft": record.draft,
        "category": category,
        "state": live.stage if live is not None and live.stage not in {"completed", "unchanged"} else record.state,
        "seconds": record.seconds,
        "cost": record.estimate + record.earlier_estimate,
        "attempts": record.jobs,
        "steps": [*steps] if any(step is not None for step in steps) else None,
        "job": record.lipsync_id,
        "decision": None if review is None else review.decision,
        "note": None if review is None else review.note,
        "file": file if is_done else None,
        "has_captions": record.captions is not None,
        "path": record.writing_to if is_done else record.target,
        "source": _source(row),
        "offset": 0.0 if row is None else row.start_time or 0.0,
        "error": record.error or message,
        "advice": None if live is not None and live.stage not in ENDS else advice(record, category, file),
        "history": None if live is None else _history(live),
    }
    return {name: value for name, value in view.items() if value}


def moved_view(key: str, live: LiveRow) -> dict[str, JSON]:
    """Return what changes in the JSON object of a row that comes to another stage of a run."""
    view: dict[str, JSON] = {
        "key": key,
        "category": "running",
        "state": live.stage,
        "error": live.message,
        "history": _history(live),
    }
    return view


def _history(live: LiveRow) -> list[JSON]:
    return [[round(when, 3), stage] for when, stage in live.history]


def _source(row: DubRow | None) -> dict[str, JSON] | None:
    match None if row is None else row.video:
        case str() as url:
            return {"kind": "url", "url": url}
        case Path() as path:
            return {"kind": "file", "name": path.name}
        case None:
            return None
        case _:
            return {"kind": "asset"}


def advice(record: Record, category: Category, file: FileState) -> str | None:
    """Return what to do about a row that cannot be watched; `None` if it can, or is being worked on."""
    if record.state is State.DONE:
        return _ADVICE.get(file)
    if category == "failed":
        return _failed_advice(record)
    return _UNFINISHED if category == "running" else None


def _failed_advice(record: Record) -> str:
    match record.state:
        case State.FAILED:
            return _FINAL if record.is_final else _PASSING
        case State.COMPLETED:
            return _DOWNLOAD
        case State.PLANNED:
            return _REFUSED
        case _:
            return _UNFINISHED
