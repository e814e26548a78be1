"""How a row is admitted where it may be known already. Pure."""

from __future__ import annotations

from heygen_async.bulk.identity import same_inputs
from heygen_async.bulk.record import WITHOUT_A_JOB, Record, State, evolve
from heygen_async.bulk.store import Entry


def admitted(entry: Entry, known: Record | None) -> Record | str:
    """Return the record of a row that is admitted, or why it cannot be.

    Args:
        entry: The row.
        known: Its record, if there is one.
    """
    record = known or Record(key=entry.key, inputs=entry.inputs)
    if (problem := _change(entry, record)) is not None:
        return problem
    if entry.draft is not None and record.state in WITHOUT_A_JOB:  # later it says what was rendered
        record = record.with_draft(entry.draft.key, entry.draft.job)
    if record.state is State.FAILED and not _is_same(entry, record):
        record = record.forgiving()  # the caller has changed what failed
    # Later it says what was sent, and keys are made of it: those of a link that was only signed again stay the same.
    if record.state is State.PLANNED and not same_inputs(record.inputs, entry.inputs):
        record = record.with_inputs(entry.inputs)
    return evolve(record, number=entry.number, place=entry.place, target=entry.target)


def _is_same(entry: Entry, record: Record) -> bool:
    return same_inputs(record.inputs, entry.inputs, entry.inputs_0_1)


def _change(entry: Entry, record: Record) -> str | None:
    if record.state in WITHOUT_A_JOB or _is_same(entry, record):
        return None
    if entry.redoes is not None and entry.redoes == record.lipsync_id:
        return None
    return (
        f"the video, audio or options of the row {entry.key} have changed since its job was created; "
        "give the row a new key to create another job, or reject its video and redo it; if only a link was signed "
        "again, leave the row out"
    )
