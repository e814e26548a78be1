"""The checks of rows before anything is sent: sources, keys and outputs, off the event loop.

Rule 1: every problem of a row is found at once, with its column; `--dry-run` and a run find the same.
Rule 2: what a row does not need any more is not checked: the sources of a row that has a job, the file that it wrote.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from anyio import to_thread
from attrs import evolve, frozen

from heygen_async._arguments import host_problem
from heygen_async._media.sniffing import Role, check_asset
from heygen_async._media.targets import same_file_key
from heygen_async.bulk.budget import seconds_of
from heygen_async.bulk.claims import claims_of, folders_made_for, written_by
from heygen_async.bulk.identity import (
    ROLES,
    FileInfo,
    inputs_digest,
    inputs_digest_0_1,
    key_of,
    key_problem,
    same_inputs,
    target_of,
    wants_captions,
)
from heygen_async.bulk.local_files import LocalSource, check_bytes, check_files, is_utf_8
from heygen_async.bulk.manifest import SourceRow
from heygen_async.bulk.outputs import is_written, output_problems
from heygen_async.bulk.own_files import OwnFiles
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.promotion import draft_of, draft_problems, drafts_of, records_to_redo
from heygen_async.bulk.record import WITHOUT_A_JOB, Record, State
from heygen_async.bulk.store import Entry, Problem, RowStore
from heygen_async.models import Asset, DubRow, Source

_NOTHING: Final[Mapping[str, Any]] = {}
"""What is known of local files where there are none: one value for all of these rows."""

_Fault: TypeAlias = tuple[str, str]
"""A column, and what is wrong with it."""


@frozen(kw_only=True)
class _Sources:
    """The sources of a row, as they are now."""

    known: Mapping[str, FileInfo] = _NOTHING
    """What is known of its local files, those in *missing* too: as they were when they were last read."""
    missing: Mapping[str, str] = _NOTHING
    inputs: str | None = None
    """The digest of what is sent; `None` if it is not known."""
    key: str | None = None
    key_0_1: str | None = None
    """The key that version 0.1 made for it, if that was another one."""

    @property
    def files(self) -> Mapping[str, FileInfo]:
        """What is known of those that can be used."""
        if not self.missing:
            return self.known
        return {name: info for name, info in self.known.items() if name not in self.missing}

    def recorded_in(self, records: Mapping[str, Record]) -> _Sources:
        """Return these with the key of the row's record: that of version 0.1 if there is only that one."""
        is_older = self.key not in records and self.key_0_1 in records
        return evolve(self, key=self.key_0_1) if is_older else self


async def prepare(
    rows: Sequence[SourceRow], journal: RowStore, plan: Plan, own_files: OwnFiles
) -> list[PreparedRow | SourceRow]:
    """Check rows, and prepare those without problems.

    Args:
        rows: The rows.
        journal: Where records are, and what is known of files. Files are read once for each version of a file.
        plan: The options of the run.
        own_files: The files of the run itself, which no row may write: see `own_files_of`.

    Returns:
        For each row, in order, the prepared row, or the row with all of its problems.
    """
    given = [one.checkable for one in rows]
    found_files = await check_files([row for row in given if row is not None], journal)
    sources = [_Sources() if row is None else await _sources(row, found_files) for row in given]
    keys = [key for one in sources for key in (one.key, one.key_0_1) if key is not None]
    records = await journal.records([*keys, *drafts_of(given)])
    sources = [one.recorded_in(records) for one in sources]
    keyed = {one.key: (row, one.inputs) for row, one in zip(given, sources, strict=True) if row and one.key is not None}
    redone = await records_to_redo(records, keyed, journal, redo_rejected=plan.redo_rejected)
    check = _Check({**records, **redone}, redone.keys(), plan, own_files)
    if plan.output_dir is None and all(row is None or row.output is None for row in given):
        return _checked(check, rows, sources)  # there are no files to check
    return await to_thread.run_sync(_checked, check, rows, sources)


# A row and its record. For threads


@frozen
class _Check:
    """What rows are checked against."""

    records: Mapping[str, Record]
    redone: Container[str]
    """The keys of those that get another job."""
    plan: Plan
    own_files: OwnFiles


@frozen
class _Candidate:
    """A row with its sources and its record."""

    source: SourceRow
    row: DubRow
    """What of it can be checked."""
    sources: _Sources
    record: Record | None
    inputs_0_1: str | None
    captions: bool


def _checked(check: _Check, rows: Sequence[SourceRow], sources: Sequence[_Sources]) -> list[PreparedRow | SourceRow]:
    return [
        one if (row := one.checkable) is None else _prepared(check, _candidate(check, one, row, its_sources))
        for one, its_sources in zip(rows, sources, strict=True)
    ]


def _candidate(check: _Check, source: SourceRow, row: DubRow, sources: _Sources) -> _Candidate:
    record = None if sources.key is None else check.records.get(sources.key)
    is_compared = record is not None and sources.inputs is not None  # a new row need not be
    inputs_0_1 = inputs_digest_0_1(row, sources.known) if is_compared else None
    return _Candidate(source, row, sources, record, inputs_0_1, wants_captions(row, captions=check.plan.captions))


def _prepared(check: _Check, one: _Candidate) -> PreparedRow | SourceRow:
    target, faults = _target_and_faults(check, one)
    entry = None if faults or one.source.row is None else _entry(check, one, target)
    if entry is not None:
        return _with_entry(one, entry, target)
    found = [Problem(f"{one.source.place}, {column}", message) for column, message in faults]
    return evolve(one.source, problems=[*one.source.problems, *found])


def _entry(check: _Check, one: _Candidate, target: Path | None) -> Entry | None:
    """Return what is admitted; `None` if its files cannot be read and never were."""
    key, inputs = one.sources.key, one.sources.inputs or (None if one.record is None else one.record.inputs)
    if key is None or inputs is None:
        return None
    return Entry(
        key=key,
        inputs=inputs,
        inputs_0_1=one.inputs_0_1,
        number=one.source.number,
        place=one.source.place,
        target=None if target is None else str(target),
        redoes=one.record.earlier[-1] if one.record is not None and key in check.redone else None,
        draft=draft_of(one.row),
        claims=claims_of(one.row, target, captions=one.captions),
    )


def _with_entry(one: _Candidate, entry: Entry, target: Path | None) -> PreparedRow:
    files = one.sources.files
    return PreparedRow(
        row=one.row,
        target=target,
        captions=one.captions,
        files=files,
        missing=one.sources.missing,
        seconds=seconds_of(one.row, *(files[name].seconds if name in files else None for name in ROLES)),
        entry=entry,
    )


# What is wrong with a row


def _target_and_faults(check: _Check, one: _Candidate) -> tuple[Path | None, list[_Fault]]:
    is_to_be_sent = _may_be_sent(check, one)
    # Captions never block a job that is paid for.
    target, faults = _target(check, one, captions=one.captions and is_to_be_sent)
    if is_to_be_sent:
        faults = [*_source_faults(one.row, one.sources), *faults]
    elif one.sources.inputs is None:
        faults = [*_unknown_faults(one.sources), *faults]
    return target, [*faults, *draft_problems(one.row, one.sources.files, check.records)]


def _may_be_sent(check: _Check, one: _Candidate) -> bool:
    """Return whether a row may be sent, and so needs its sources: a failed one if it is retried, or has changed."""
    record, inputs = one.record, one.sources.inputs
    if record is None:
        return True
    if record.state is not State.FAILED or not record.is_final:
        return record.state in WITHOUT_A_JOB
    return check.plan.retry_failed or inputs is None or not same_inputs(record.inputs, inputs, one.inputs_0_1)


def _unknown_faults(sources: _Sources) -> list[_Fault]:
    """Return why it is not known whether a row with a job is still the one that the job was created for."""
    advice = "so nothing shows that its job was created from this: put the file back, or leave the row out"
    return [(name, f"{why}; {advice}") for name, why in sources.missing.items() if name not in sources.known]


def _source_faults(row: DubRow, sources: _Sources) -> list[_Fault]:
    found = [(name, sources.missing.get(name) or _remote_problem(name, getattr(row, name))) for name in ROLES]
    others = [("start_time", _start_problem(row, sources.files.get("video"))), ("key", key_problem(row))]
    return [(column, problem) for column, problem in (*found, *others) if problem is not None]


def _remote_problem(role: Role, source: Source) -> str | None:
    """Return why a link or an asset cannot be used; `None` if it can, and for a local file."""
    if not isinstance(source, Asset):
        return host_problem(source)
    try:
        check_asset(source, role)
    except ValueError as error:
        return str(error).removeprefix(f"{role}: ")
    return None


def _start_problem(row: DubRow, video: FileInfo | None) -> str | None:
    start, length = row.start_time or 0.0, None if video is None else video.seconds
    if length is None or start < length:
        return None
    return f"{start:g} is beyond the end of the video ({length:g} s)"


def _target(check: _Check, one: _Candidate, *, captions: bool) -> tuple[Path | None, list[_Fault]]:
    """Return the file of a row, and what is wrong with it."""
    key = one.sources.key
    if key is None and one.row.output is None:
        return None, []  # it would be named after the key
    try:
        target = target_of(one.row, key or "", check.plan.output_dir)
    except ValueError as error:
        return None, [("output", str(error).removeprefix("output "))]
    return target, [] if target is None else _output_faults(check, one, target, captions=captions)


def _output_faults(check: _Check, one: _Candidate, target: Path, *, captions: bool) -> list[_Fault]:
    files = written_by(target, captions=captions)
    keys = [same_file_key(path) for path in files]
    for path, key in zip((*files, *target.parents), (*keys, *folders_made_for(target, keys[0])), strict=False):
        if (own := check.own_files.get(key)) is not None:
            return [("output", f"{path} is {own} of this run")]
    for name in ROLES:
        source = getattr(one.row, name)
        if isinstance(source, Path) and same_file_key(source) == keys[0]:
            return [("output", f"{target} is the {name} of this row")]
    if not is_utf_8(str(target)):
        return [("output", f"its path is not valid UTF-8: {target}")]
    known = one.record or Record(key="", inputs="")
    if is_written(evolve(known, target=str(target))):
        return []
    return [("output", message) for message in output_problems(known, target, captions=captions)]


# Files


async def _sources(row: DubRow, found_files: Mapping[tuple[Role, Path], LocalSource]) -> _Sources:
    found: dict[str, LocalSource] = {}
    for role in ROLES:
        source = getattr(row, role)
        if isinstance(source, bytes):
            found[role] = await check_bytes(role, source)
        elif isinstance(source, Path):
            found[role] = found_files[role, source]
    if not found:
        return _all_known(row, _NOTHING, _NOTHING)
    missing = {name: local.problem for name, local in found.items() if local.problem is not None}
    known = {name: local.info for name, local in found.items() if local.info is not None}
    if len(known) < len(found):
        return _Sources(known=known, missing=missing, key=row.key)
    return _all_known(row, known, missing)


def _all_known(row: DubRow, known: Mapping[str, FileInfo], missing: Mapping[str, str]) -> _Sources:
    inputs = inputs_digest(row, known)
    older = None if row.key is not None else inputs_digest_0_1(row, known)
    return _Sources(
        known=known,
        missing=missing,
        inputs=inputs,
        key=key_of(row, inputs),
        key_0_1=None if older is None else key_of(row, older),
    )
