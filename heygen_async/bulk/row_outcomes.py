"""The outcome of a row: what a run yields for it, from its record."""

from __future__ import annotations

from pathlib import Path

from anyio import to_thread

from heygen_async._media.targets import captions_path
from heygen_async.bulk.checks import BadRows, RefusedRow
from heygen_async.bulk.outputs import is_changed
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.record import Record, State, evolve
from heygen_async.errors import LipsyncFailed
from heygen_async.models import DubOutcome, Lipsync, LipsyncStatus, RowState


async def outcome_of(row: PreparedRow, record: Record, *, has_worked: bool) -> DubOutcome:
    """Return the outcome of a row for which nothing is left to do.

    Args:
        row: The row.
        record: Its record.
        has_worked: Whether this run has done anything for it.
    """
    if record.is_stopped:
        return new_outcome(row, record, "failed", record.failure)
    if record.state is State.FAILED:
        return new_outcome(row, record, "failed", LipsyncFailed(_failed_job(record)))
    if has_worked:
        return new_outcome(row, record, "completed", path=row.target)
    if row.target is None:
        return new_outcome(row, record, "unchanged")
    return await to_thread.run_sync(_unchanged_file, row, record, row.target)


def _unchanged_file(row: PreparedRow, record: Record, target: Path) -> DubOutcome:
    if is_changed(record):
        warning = f"{target} has changed since it was written; it was left as it is"
        return new_outcome(row, _warning(record, warning), "unchanged")
    if row.captions and not captions_path(target).exists():
        warning = f"it has no captions: to write both, move {target} away and run it again; nothing is paid again"
        record = _warning(record, warning)
    return new_outcome(row, record, "unchanged", path=target)


def _warning(record: Record, warning: str) -> Record:
    return evolve(record, warnings=(*record.warnings, warning))


def new_outcome(
    row: PreparedRow, record: Record, state: RowState, error: Exception | None = None, *, path: Path | None = None
) -> DubOutcome:
    """Return an outcome of a row with the job, the attempts and the warnings of its record."""
    return DubOutcome(
        row=row.row,
        key=row.key,
        state=state,
        lipsync=record.job,
        path=path,
        error=error,
        attempts=record.jobs,
        warnings=record.warnings,
    )


def _failed_job(record: Record) -> Lipsync:
    return record.job or Lipsync(id=record.lipsync_id or "", status=LipsyncStatus.FAILED, failure_message=record.error)


def refused_outcome(refused: RefusedRow) -> DubOutcome:
    """Return the outcome of a row with problems.

    Raises:
        BadRows: If there is no row, only what is wrong with it.
    """
    row, problems = refused.row, refused.problems
    if row is None:
        raise BadRows(problems, len(problems))
    return DubOutcome(row=row, key=row.key or "", state="failed", error=ValueError("; ".join(map(str, problems))))
