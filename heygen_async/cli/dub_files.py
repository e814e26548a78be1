"""The files of a bulk run beside its rows: manifest, journal and report, none of which may be another."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from heygen_async._media.targets import same_file_key
from heygen_async.bulk.report import COLUMNS
from heygen_async.cli.failures import BadArguments, Problems

_REPORT_HEAD: Final = ",".join(COLUMNS[:3]).encode()
_BOM: Final = b"\xef\xbb\xbf"


@frozen
class RunFiles:
    """The files of a run."""

    manifest: Path
    journal: Path | None
    """`None` keeps it in memory, and writes no report."""

    @classmethod
    def of(cls, manifest: Path, journal: Path | None) -> Self:
        """Return the files of a run: without a *journal*, one beside the manifest.

        Raises:
            FileNotFoundError: If there is no manifest.
            BadArguments: If the run would overwrite the manifest, or a file that is not a report.
        """
        manifest = manifest.expanduser()
        if not manifest.exists():
            raise FileNotFoundError(2, "no such manifest", str(manifest))
        if manifest.is_dir():
            raise IsADirectoryError(21, "the manifest is a folder", str(manifest))
        files = cls(manifest, manifest.with_suffix(".sqlite") if journal is None else journal.expanduser())
        problems = Problems()
        for problem in files._problems(is_default=journal is None):
            problems.add("--journal", problem)
        if problems.found:
            raise BadArguments(problems.found)
        return files

    @property
    def report(self) -> Path | None:
        """The report, beside the journal and named after it."""
        return None if self.journal is None else self.journal.with_suffix(".report.csv")

    def places(self) -> list[str]:
        """Return lines that say where the report and the journal are."""
        return [] if self.journal is None else [f"report: {self.report}", f"journal: {self.journal}"]

    def command(self, name: str, flags: Mapping[str, object]) -> str:
        """Return the command that retries the failed rows of this run; *flags* that are `None` are left out."""
        given = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
        return shlex.join(["heygen-async", name, str(self.manifest), *given, "--retry-failed"])

    def _problems(self, *, is_default: bool) -> Iterator[str]:
        assert self.journal is not None  # noqa: S101 a run of the command line has one
        assert self.report is not None  # noqa: S101 so it has this
        if is_default and not self.manifest.is_file():
            yield f"{self.manifest} is not a regular file: give a journal, such as --journal run.sqlite"
            return
        if _is_same(self.journal, self.manifest):
            yield f"{self.journal} is the manifest itself: give another journal"
        elif _is_same(self.report, self.manifest):
            yield f"the report {self.report} would overwrite the manifest: give another journal"
        elif self.report.is_file() and not _is_report(self.report):
            yield f"{self.report} exists and is not a report of a run: move it away, or give another journal"
        elif self.report.is_dir():
            yield f"the report {self.report} cannot be written: that is a folder"


def _is_same(one: Path, other: Path) -> bool:
    try:
        return same_file_key(one) == same_file_key(other) or one.samefile(other)
    except OSError:
        return False


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).removeprefix(_BOM).startswith(_REPORT_HEAD)
