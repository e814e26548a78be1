"""Manifests: files that list the rows of a bulk run, as CSV with a header or as JSON Lines.

Rule 1: a manifest is read as a stream, so that a hundred thousand rows need no more memory than one.
Rule 2: every error of a row is reported, with line and column, and the other rows are read all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from heygen_async._arguments import is_https, link_advice, shown
from heygen_async._media.targets import expanded
from heygen_async.bulk.identity import ROLES, inside
from heygen_async.bulk.local_files import is_utf_8
from heygen_async.bulk.manifest_lines import COLUMNS, Line, guess, lines_of
from heygen_async.bulk.store import Problem
from heygen_async.models import AssetId, DubRow, row_faults

_ANY_SOURCE: Final = AssetId("unknown")
"""In place of a source that is wrong: nothing is checked of it."""
_DEVICES: Final = ("/dev/", "/proc/")


@frozen
class SourceRow:
    """A row, or what is wrong with it, and where it is listed."""

    number: int
    """From 1."""
    place: str
    """For people: `line 12`."""
    row: DubRow | None
    problems: Sequence[Problem] = ()
    correct_part: DubRow | None = None
    """The fields of a wrong row that are correct, so that its files are checked as well."""

    @property
    def checkable(self) -> DubRow | None:
        """What can be checked of it: the row, or its correct part."""
        return self.row or self.correct_part


class Manifest(Iterable[DubRow]):
    """The rows that a file lists. Iterate it as often as you like; a pipe can be read only once.

    Columns, or members, are the fields of `DubRow`: `video` and `audio`, each an https URL, a file (relative to the
    manifest) or `asset:ID`; `key`, `output`, `captions`, and any option of a create. Their names may be written as
    `Start time`. JSON Lines may also give sources as the API does, `{"type": "asset_id", "asset_id": "..."}`.

    CSV may be as spreadsheets write it: separated by comma, semicolon, tab or bar, with a `sep=;` line, blank rows
    and columns, a byte order mark, and decimal commas where the separator is not one. It is in UTF-8, or in UTF-16 with
    its mark.

    Args:
        path: The file. `.jsonl`, `.ndjson` and `.json` are JSON Lines, and so is any other that starts with `{`. In a
            pipe, files are relative to the current folder.
        outputs: The folder that outputs are relative to, and must stay in. `None` leaves them as they are, for a run
            with an `output_dir`, which does that itself.
    """

    def __init__(self, path: str | PathLike[str], *, outputs: str | PathLike[str] | None = None) -> None:
        self.path = Path(expanded(path))
        self.outputs = None if outputs is None else Path(expanded(outputs))

    def __iter__(self) -> Iterator[DubRow]:
        """Iterate over the rows.

        Raises:
            ValueError: At the first row that is wrong.
            OSError: If the file cannot be read.
        """
        with closing(self.source_rows()) as lines:
            for placed in lines:
                if placed.problems:
                    raise ValueError(f"{self.path}, {'; '.join(map(str, placed.problems))}")
                if placed.row is not None:
                    yield placed.row

    def source_rows(self) -> Generator[SourceRow, None, None]:
        """Iterate over all rows, wrong ones too; if the rest cannot be read, a problem that says so comes last.

        Raises:
            OSError: If the file cannot be read.
        """
        with self.path.open("rb") as file:
            folder = self.folder
            for number, line in enumerate(lines_of(file, self.path.suffix.lower()), start=1):
                yield _row(number, line, self._reader(folder))

    @property
    def name(self) -> str | None:
        """The name of the file; `None` for a pipe, which has none of its own. It looks at the file."""
        is_device = str(self.path.absolute()).startswith(_DEVICES)
        return None if is_device or self.path.is_fifo() else self.path.name

    @property
    def folder(self) -> Path:
        """What its files are relative to: its folder, or of a pipe the current one. It looks at the file."""
        return Path() if self.name is None else self.path.parent

    def storable_name(self) -> str | None:
        """Return the name, to store it; `None` for a pipe. It looks at the file.

        Raises:
            ValueError: If it cannot be stored.
        """
        name = self.name
        if name is not None and not is_utf_8(name):
            raise ValueError(f"the name of the manifest {self.path} is not UTF-8: rename it")
        return name

    def _reader(self, folder: Path) -> Callable[[str, object], object]:
        def read(name: str, value: object) -> object:
            if name in ROLES:
                return _source(value, folder)
            if name == "output" and self.outputs is not None and isinstance(value, str):
                return inside(self.outputs, value)
            return value

        return read


# Rows


def _row(number: int, line: Line, read: Callable[[str, object], object]) -> SourceRow:
    values: dict[str, Any] = {}
    place, found = line.place, list(line.problems)
    faulty = {problem.place for problem in found}
    if place in faulty:  # nothing is known of its cells
        return SourceRow(number, place, None, found)
    for name, cell in line.cells.items():
        try:
            values[name] = read(name, cell)
        except ValueError as error:
            found.append(_problem(place, name, str(error)))
            faulty.add(found[-1].place)
    for name, message in row_faults(values):
        if f"{place}, {name}" not in faulty:
            found.append(_problem(place, name, message))
    if found or not line.is_whole:
        return SourceRow(number, place, None, sorted(found, key=_column), _correct_part(values, faulty, place))
    return SourceRow(number, place, DubRow(**values))


def _correct_part(values: Mapping[str, Any], faulty: Container[str], place: str) -> DubRow | None:
    wrong = {name for name, _ in row_faults(values)}
    correct = {name: value for name, value in values.items() if name not in wrong and f"{place}, {name}" not in faulty}
    try:
        return DubRow(**{"video": _ANY_SOURCE, "audio": _ANY_SOURCE, **correct})
    except (TypeError, ValueError):
        return None


def _problem(place: str, name: str, message: str) -> Problem:
    if name not in COLUMNS:
        return Problem(place, f"unknown column {shown(name)}{guess(name)}")
    return Problem(f"{place}, {name}", message.removeprefix(f"{name} ") if f"{name} (" not in message else message)


def _column(problem: Problem) -> int:
    name = problem.place.rpartition(", ")[2]
    return COLUMNS.index(name) if name in COLUMNS else len(COLUMNS)


def _source(value: object, folder: Path) -> object:
    match value:
        case {"type": "url", "url": str(url)}:
            return _url(url)
        case {"type": "asset_id", "asset_id": str(asset_id)} if asset_id:
            return AssetId(asset_id)
        case "asset:":
            raise ValueError("asset: needs an id, such as asset:as_abc123")
        case str() if value.startswith("asset:"):
            return AssetId(value.removeprefix("asset:"))
        case str() if "://" in value:
            return _url(value)
        case str() if value.strip():
            return folder / os.path.expanduser(value)  # noqa: PTH111 Path raises where there is no home
        case _:
            raise ValueError("must be an https URL, a file, or asset:ID")


def _url(url: str) -> str:
    if not is_https(url):
        raise ValueError(f"must be an https URL, a file, or asset:ID, not {shown(url)}{link_advice(url)}")
    return url
