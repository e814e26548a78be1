"""From draft to final: approved drafts as rows of another run on the same journal, and rejected rows made again.

Rule 1: what is rendered is what was approved: a final version is refused if its draft has another job since, or if
anything that is sent for it has changed.
Rule 2: a final version is one row, whose key is made of its draft's: promoted twice, it is rendered once.
Rule 3: a second job in place of one that was paid for needs a rejection; see `Record.redone`. It is not recorded before
the row is worked on, so that a dry run changes nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Generator, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Final, get_args

import attrs
from anyio import to_thread
from attrs import evolve, field, frozen

from heygen_async._arguments import check_type, shown
from heygen_async._media.targets import expanded
from heygen_async.bulk.identity import (
    ROLES,
    FileInfo,
    inputs_digest,
    inputs_digest_0_1,
    key_of,
    same_inputs,
    target_of,
)
from heygen_async.bulk.journal import Journal, existing_journal
from heygen_async.bulk.manifest import Manifest, SourceRow
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.reviews import Review
from heygen_async.bulk.store import Draft, RowStore
from heygen_async.models import MAX_ROW_KEY, DubRow, Mode

_PAGE: Final = 1000
_DIGITS: Final = 12
_WITH_A_JOB: Final = frozenset({State.SUBMITTED, State.COMPLETED, State.DONE})


@frozen
class KnownFiles:
    """What a journal knows of local files."""

    folder: str
    """What relative paths are relative to."""
    by_path: Mapping[str, FileInfo] = field(factory=dict)
    """By absolute path."""

    def info(self, path: Path) -> FileInfo | None:
        """Return what is known of the file at *path*."""
        return self.by_path.get(os.path.normpath(os.path.join(self.folder, path)))  # noqa: PTH118 a string will do


async def known_files(journal: Journal) -> KnownFiles:
    """Return what a journal knows of local files.

    Raises:
        JournalError: If it cannot be read.
    """
    return KnownFiles(await to_thread.run_sync(os.getcwd), await journal.file_info())


@frozen(kw_only=True)
class Reviews:
    """The decisions on the videos that the rows of a journal have now."""

    by_key: Mapping[str, Review]
    """The decision on each row that has one, by the row's key."""
    files: KnownFiles = field(factory=lambda: KnownFiles(""), repr=False)

    @property
    def approved(self) -> list[Review]:
        """The approvals."""
        return [review for review in self.by_key.values() if review.decision == "approved"]

    @property
    def rejected(self) -> list[Review]:
        """The rejections."""
        return [review for review in self.by_key.values() if review.decision == "rejected"]


async def read_reviews(journal: str | PathLike[str]) -> Reviews:
    """Return the decisions in a journal.

    Args:
        journal: The SQLite file of a run that has ended.

    Raises:
        JournalInUse: If a run, or a review, uses it.
        JournalError: If there is none, or it cannot be read.

    If cancelled, it closes the journal.
    """
    async with existing_journal(Path(expanded(journal))) as opened:
        return await reviews_in(opened)


async def reviews_in(journal: Journal) -> Reviews:
    """Return the decisions in a journal that is open.

    Raises:
        JournalError: If it cannot be read.
    """
    found = {review.key: review for review in await journal.reviews()}
    current: dict[str, Review] = {}
    keys = list(found)
    for start in range(0, len(keys), _PAGE):
        records = await journal.records(keys[start : start + _PAGE])
        current |= {key: found[key] for key, record in records.items() if found[key].is_of(record)}
    return Reviews(by_key=current, files=await known_files(journal))


# Rows for a run


@frozen
class FinalRow(DubRow):
    """The final version of an approved draft: a row that `promote` makes."""

    draft: DubRow = field(kw_only=True)
    """The row of the draft."""
    draft_key: str = field(kw_only=True)
    draft_job: str = field(kw_only=True)
    """The job of the draft that was approved."""


def promote(rows: Iterable[DubRow], reviews: Reviews, *, mode: Mode = "precision") -> Iterable[DubRow]:
    """Return the approved ones of *rows* as rows for their final versions, to run on the same journal.

    ::

        reviews = await read_reviews("run.sqlite")
        finals = promote(Manifest("rows.csv"), reviews)
        async with heygen.dub_many(finals, journal="run.sqlite", output_dir="final") as run:
            ...

    Each has the key of its draft with the mode added, and the same output, so the run needs another `output_dir`.

    Args:
        rows: The rows of the drafts; a `Manifest` is read when the run needs it.
        reviews: The decisions.
        mode: How to render them.

    Returns:
        The rows, which can be iterated more than once.

    Raises:
        TypeError, ValueError: If an argument is wrong.
    """
    check_type("reviews", reviews, Reviews)
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be speed or precision, not {shown(mode)}")
    if isinstance(rows, Manifest):
        return _FinalManifest(rows, reviews, mode)
    return [final for row in rows if (final := _final(row, reviews, mode)) is not None]


class _FinalManifest(Manifest):
    """The approved rows of a manifest."""

    def __init__(self, manifest: Manifest, reviews: Reviews, mode: Mode) -> None:
        super().__init__(manifest.path, outputs=manifest.outputs)
        self._reviews = reviews
        self._mode: Mode = mode

    def source_rows(self) -> Generator[SourceRow, None, None]:
        for source in super().source_rows():
            if source.row is None:
                yield source
            elif (final := _final(source.row, self._reviews, self._mode)) is not None:
                yield evolve(source, row=final)


def _final(row: DubRow, reviews: Reviews, mode: Mode) -> FinalRow | None:
    key = next((one for one in known_keys(row, reviews.files) if one in reviews.by_key), None)
    if key is None or (review := reviews.by_key[key]).decision != "approved":
        return None
    fields = {one.name: getattr(row, one.name) for one in attrs.fields(DubRow)}
    # An output of its own is checked with everything else of the row.
    output = row.output if row.output is not None else target_of(row, key, Path())
    fields |= {"mode": mode, "key": final_key(key, mode), "output": output}
    return FinalRow(**fields, draft=row, draft_key=key, draft_job=review.lipsync_id)


def known_keys(row: DubRow, files: KnownFiles) -> list[str]:
    """Return the keys that a row may have in its journal: those that this version and 0.1 make for it are two.

    There is none if the row is made of a file that the journal does not know.

    Args:
        row: The row.
        files: What the journal knows of local files.
    """
    if row.key is not None:
        return [row.key]
    found: dict[str, FileInfo] = {}
    for role in ROLES:
        source = getattr(row, role)
        if isinstance(source, bytes):
            found[role] = FileInfo("", hashlib.sha256(source).hexdigest(), None)
        elif isinstance(source, Path):
            known = files.info(source)
            if known is None:
                return []
            found[role] = known
    digests = (inputs_digest(row, found), inputs_digest_0_1(row, found))
    return [key_of(row, digest) for digest in digests if digest is not None]


def final_key(key: str, mode: Mode) -> str:
    """Return the key of the final version of the draft with *key*."""
    end = f":{mode}"
    if len(key) + len(end) > MAX_ROW_KEY:
        digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]
        key = f"{key[: MAX_ROW_KEY - len(end) - _DIGITS - 1]}.{digest}"
    return f"{key}{end}"


async def manifest_rows(manifest: Manifest, journal: Journal) -> Mapping[str, DubRow]:
    """Return the valid rows of a manifest by the keys that they may have in the journal.

    Raises:
        OSError: If the manifest cannot be read.
        JournalError: If the journal cannot be read.
    """
    files = await known_files(journal)
    return await to_thread.run_sync(lambda: dict(_keyed(manifest, files)))


def _keyed(manifest: Manifest, files: KnownFiles) -> Iterator[tuple[str, DubRow]]:
    for source in manifest.source_rows():
        if source.row is not None:
            yield from ((key, source.row) for key in known_keys(source.row, files))


# Checks before the run


def draft_problems(row: DubRow, files: Mapping[str, FileInfo], records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Return why a row must not be rendered as a final version, as columns and messages; none for other rows.

    Args:
        row: The row.
        files: What is known of its local files, by `video` and `audio`.
        records: Records by key, its draft's among them.
    """
    if not isinstance(row, FinalRow):
        return []
    draft, own = records.get(row.draft_key), records.get(row.key or "")
    if own is not None and own.draft != row.draft_key:
        return [("key", f"{row.key} is the key of a row that is no final version of {row.draft_key}: rename that row")]
    if draft is None or draft.lipsync_id != row.draft_job:
        return [("key", f"the draft {row.draft_key} has another job than the one that was approved: review it again")]
    return _input_problems(row, files, draft) if _has_all(row, files) else []


def _input_problems(row: FinalRow, files: Mapping[str, FileInfo], draft: Record) -> list[tuple[str, str]]:
    digests = (inputs_digest(row.draft, files), inputs_digest_0_1(row.draft, files))
    if not same_inputs(draft.inputs, *digests):
        message = "the video, audio or options have changed since the draft was approved: reject it, and redo it"
        return [("video", message)]
    if row.draft.mode == row.mode:  # which is the mode of the video, as nothing has changed
        message = f"its video is final already, in {row.mode} mode: undo its approval in the review to leave it out"
        return [("mode", message)]
    return []


def _has_all(row: DubRow, files: Mapping[str, FileInfo]) -> bool:
    return all(role in files for role in ROLES if isinstance(getattr(row, role), (Path, bytes)))


def draft_of(row: DubRow) -> Draft | None:
    """Return the draft of a row; `None` if it is no final version."""
    return Draft(row.draft_key, row.draft_job) if isinstance(row, FinalRow) else None


def drafts_of(rows: Iterable[DubRow | None]) -> set[str]:
    """Return the keys of the drafts of rows."""
    return {row.draft_key for row in rows if isinstance(row, FinalRow)}


async def records_to_redo(
    records: Mapping[str, Record],
    rows: Mapping[str, tuple[DubRow, str | None]],
    journal: RowStore,
    *,
    redo_rejected: bool,
) -> Mapping[str, Record]:
    """Return the records of rows that get a job in place of one that was paid for, as they will be.

    These are rows whose video was rejected, and final versions of drafts that were redone with other inputs.

    Args:
        records: Records by key.
        rows: The rows by key, each with the digest of what is sent for it now; `None` where that is not known.
        journal: Where the decisions are.
        redo_rejected: Whether to redo rejected rows.
    """
    reviews = await journal.reviews(list(rows)) if redo_rejected else []
    rejected = {review.lipsync_id for review in reviews if review.decision == "rejected"}
    return {
        key: record.redone(inputs or record.inputs)
        for key, (row, inputs) in rows.items()
        if (record := records.get(key)) is not None
        and (_is_rejected(record, rejected) or _is_superseded(record, row, inputs))
    }


def _is_rejected(record: Record, rejected: Container[str]) -> bool:
    return record.state is State.DONE and record.lipsync_id is not None and record.lipsync_id in rejected


def _is_superseded(record: Record, row: DubRow, inputs: str | None) -> bool:
    if not isinstance(row, FinalRow) or record.lipsync_id is None or record.draft_job == row.draft_job:
        return False
    return record.state in _WITH_A_JOB and inputs is not None and not same_inputs(record.inputs, inputs)
