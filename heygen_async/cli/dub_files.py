"""The files of a bulk run itself: manifest, journal and report."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Final, Self, get_args
from urllib.parse import quote

from attrs import evolve, frozen

from heygen_async.bulk.journal import existing_journal
from heygen_async.bulk.manifest import Manifest, SourceRow
from heygen_async.bulk.own_files import own_files_of
from heygen_async.bulk.promotion import Reviews, final_key, known_keys, promote, read_reviews
from heygen_async.bulk.report import default_report, is_report, unfinished_path
from heygen_async.cli.problems import Problems
from heygen_async.cli.review_flags import ReviewFlags
from heygen_async.cli.suggestions import command, file
from heygen_async.models import AssetId, DubRow, Mode, Source

_logger: Final = logging.getLogger("heygen_async.cli")

_NAMED: Final = 5
_SQLITE_SUFFIX: Final = "-journal"
"""After the name of a database, for the file in which SQLite keeps what a transaction replaces."""


@frozen
class RunFiles:
    """The files of a run."""

    manifest: Path
    folder: Path
    """What outputs are relative to: the folder of the manifest, or of a pipe the current one."""
    journal: Path | None
    """`None` keeps it in memory, and writes no report."""

    @classmethod
    def of(cls, manifest: Path, journal: Path | None, *, is_kept: bool = True) -> Self:
        """Return the files of a run: without a *journal*, one beside the manifest; none if the run is not kept.

        Raises:
            FileNotFoundError: If there is no manifest.
            ValueError: If the name of the manifest cannot be stored, two of the files are one, the run would overwrite
                a file that is not a report, the journal cannot be written, or the manifest is a pipe, beside which
                nothing can be.
        """
        if not manifest.exists():
            raise FileNotFoundError(2, "no such manifest", str(manifest))
        if manifest.is_dir():
            raise IsADirectoryError(21, "the manifest is a folder", str(manifest))
        listed = Manifest(manifest)
        listed.storable_name()  # or it cannot be used
        folder = listed.folder.absolute()
        if not is_kept:
            return cls(manifest, folder, None)
        kept = manifest.with_suffix(".sqlite") if journal is None else journal
        problems = Problems()
        if os.path.isdir(kept):  # noqa: PTH112 never raises; and a folder may have no name, such as .
            problems.add("--journal", f"{kept} is a folder: name a file in it, such as {kept / 'run.sqlite'}")
            problems.check()
        files = cls(manifest, folder, kept)
        own_files_of(manifest=manifest, journal=files.journal, report=files.report)
        problems.add("--journal", *files._problems(is_default=journal is None))
        problems.check()
        return files

    @property
    def report(self) -> Path | None:
        """The report, beside the journal and named after it."""
        return None if self.journal is None else default_report(self.journal)

    def places(self, *, is_reported: bool) -> dict[str, Path | None]:
        """Return where the report is, if it was written, and where the journal is."""
        if self.journal is None:
            return {}
        return {**({"Report": self.report} if is_reported else {}), "Journal": self.journal}

    def _problems(self, *, is_default: bool) -> Iterator[str]:
        if is_default and Manifest(self.manifest).name is None:
            yield f"{self.manifest} is not a regular file: give a journal, such as --journal run.sqlite"
        elif not all(map(_is_short_enough, self._longest_names())):
            message = "the names of the journal and the report, or of files beside them, would be too long"
            yield f"{message}: give a shorter journal, such as --journal run.sqlite"
        elif problem := report_problem(self.report):
            yield problem if self._has_journal() else f"{problem}, or give another journal"
        elif self.journal is not None:
            yield from _unwritable(self.journal)

    def _has_journal(self) -> bool:
        """Return whether there is a journal: then another one would pay for its rows again."""
        return self.journal is not None and self.journal.exists()

    def _longest_names(self) -> Iterator[Path]:
        """Return the files with the longest names that are written beside the journal."""
        if self.journal is not None:
            yield self.journal.with_name(f"{self.journal.name}{_SQLITE_SUFFIX}")
        if self.report is not None:
            yield unfinished_path(self.report)


def _unwritable(journal: Path) -> Iterator[str]:
    """Yield why a journal cannot be written; a dry run would not find it, because it writes none."""
    folder = journal.parent
    if not folder.is_dir():
        yield f"the folder of the journal {journal} does not exist"
    elif not os.access(folder, os.W_OK | os.X_OK):
        another = "move the journal to" if journal.exists() else "give a journal in"
        yield f"the folder {folder} is not writable: {another} another one, such as --journal ~/run.sqlite"
    elif journal.exists() and not os.access(journal, os.W_OK):
        yield f"the journal {journal} is not writable"


def _is_short_enough(path: Path) -> bool:
    """Return whether the file system takes a name, and a path, of this length."""
    try:
        path.lstat()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def report_problem(path: Path | None) -> str | None:
    """Return what is at *path* that a report must not replace, and what to do; `None` if nothing is. For a thread."""
    if path is None or not path.exists() or is_report(path):
        return None
    found = "is a folder" if path.is_dir() else "exists and is not a report of a run"
    return f"{path} {found}: move it away"


class RehearsedManifest(Manifest):
    """A manifest whose assets are URLs: a local sandbox does not have those of the account."""

    def source_rows(self) -> Generator[SourceRow, None, None]:
        """Iterate over all rows, as a manifest does."""
        for source in super().source_rows():
            row = source.row
            found = None if row is None else evolve(row, video=_as_url(row.video), audio=_as_url(row.audio))
            yield evolve(source, row=found)


def _as_url(source: Source) -> Source:
    """Return a URL for an asset, and any other source as it is."""
    return f"https://sandbox.invalid/{quote(source.value, safe='')}" if isinstance(source, AssetId) else source


async def earlier_estimate(journal: Path | None) -> float:
    """Return the dollars that earlier runs on a journal have spent or reserved, which count against a budget.

    Raises:
        JournalError: If it cannot be read.
    """
    if journal is None or not await asyncio.to_thread(journal.exists):
        return 0.0
    async with existing_journal(journal) as opened:
        return await opened.estimate()


async def approved_rows(manifest: Manifest, files: RunFiles, review: ReviewFlags) -> Iterable[DubRow]:
    """Return the final versions of the rows that were approved.

    Raises:
        JournalError: If the journal cannot be read.
        ValueError: If no row is approved.
    """
    if files.journal is None:
        raise ValueError("a rehearsal knows no review: leave out --sandbox or --approved")
    reviews = await read_reviews(files.journal)
    if not reviews.approved:
        nothing = ValueError("no row is approved: watch the drafts first")
        nothing.add_note(command("review", file(files.journal)))
        raise nothing
    if left_out := await asyncio.to_thread(lambda: _left_out(manifest, reviews)):
        names = ", ".join([*left_out[:_NAMED], *(["..."] if len(left_out) > _NAMED else [])])
        count = f"{len(left_out):,} approved {'row is' if len(left_out) == 1 else 'rows are'}"
        _logger.warning("%s left out, not in %s or changed in it: %s", count, manifest.path, names)
    return promote(manifest, reviews, mode=review.mode or "precision")


def _left_out(manifest: Manifest, reviews: Reviews) -> list[str]:
    """Return the approved rows that the manifest does not have, by key; none if it has errors, which are reported."""
    if manifest.name is None:
        return []  # a pipe can be read once
    rows = [source.row for source in manifest.source_rows()]
    keys = {key for row in rows if row is not None for key in known_keys(row, reviews.files)}
    finals = {final_key(key, mode) for key in keys for mode in get_args(Mode)}
    return [] if None in rows else [one.key for one in reviews.approved if one.key not in keys | finals]
