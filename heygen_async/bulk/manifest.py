"""Manifests: files that list the rows of a bulk run, as CSV with a header or as JSON Lines.

A manifest is read as a stream, so that a hundred thousand rows cost no more memory than one, and may be read
again and again: once to check all of it, and once to run it.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import orjson
from attrs import frozen

from heygen_async.bulk.identity import inside
from heygen_async.bulk.journal import Problem
from heygen_async.models import AssetId, DubRow

COLUMNS: Final = tuple(attribute.name for attribute in attrs.fields(DubRow))
"""What a row may say, by the names of `DubRow`."""

_SOURCES: Final = ("video", "audio")
_FLAGS: Final = frozenset(a.name for a in attrs.fields(DubRow) if str(a.type).startswith("bool"))
_NUMBERS: Final = frozenset({"start_time", "end_time"})
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_JSON_LINES: Final = frozenset({".jsonl", ".ndjson", ".json"})
_DELIMITERS: Final = ",;\t|"
_MARK: Final = b"\xef\xbb\xbf"  # what some programs put before UTF-8
_UTF_16: Final = frozenset({b"\xff\xfe", b"\xfe\xff"})
_SOURCE: Final = "an https URL, a file, or asset:ID"

Cells: TypeAlias = Mapping[str, object]
"""What a line says, by column; what it leaves empty is not in it."""


@frozen
class Placed:
    """A row, or what is wrong with it, and where it stands."""

    number: int
    """From 1."""
    place: str
    """For people: `line 12`."""
    row: DubRow | None
    problems: Sequence[Problem] = ()


class Manifest(Iterable[DubRow]):
    """The rows that a file lists; iterate it as often as you like.

    Columns, or members, are those of `DubRow`: `video` and `audio`, each an https URL, a file (relative to the
    manifest) or `asset:ID`; `key`, `output`, and any option of a create. JSON Lines may also give sources as the
    API does, `{"type": "asset_id", "asset_id": "..."}`.

    Args:
        path: The file. `.jsonl`, `.ndjson` and `.json` are JSON Lines, and so is any other that starts with `{`; CSV
            is separated by whatever its header is: comma, semicolon, tab or bar. Both are UTF-8.
        outputs: The folder that outputs are relative to, and stay in. Without it they are as they are written: for a
            run with an `output_dir`, which sees to that itself.
    """

    def __init__(self, path: str | PathLike[str], *, outputs: str | PathLike[str] | None = None) -> None:
        self.path = Path(path)
        self.outputs = None if outputs is None else Path(outputs)

    def __iter__(self) -> Iterator[DubRow]:
        """Iterate over the rows.

        Raises:
            ValueError: At the first row that is wrong.
        """
        with closing(self.placed()) as lines:
            for placed in lines:
                for problem in placed.problems:
                    raise ValueError(f"{self.path}, {problem}")
                if placed.row is not None:
                    yield placed.row

    def placed(self) -> Generator[Placed, None, None]:
        """Iterate over all rows, wrong ones too; what makes the rest unreadable comes last.

        Raises:
            OSError: If the file cannot be read.
        """
        with self.path.open("rb") as file:
            start = file.peek(64)
            if b"\0" in start[:64]:
                text = "it is UTF-16, not UTF-8" if start[:2] in _UTF_16 else "it is no text file"
                yield Placed(1, "line 1", None, [Problem("line 1", f"{text}; save it as CSV in UTF-8")])
                return
            head = start.removeprefix(_MARK).lstrip()[:1]
            is_json = self.path.suffix.lower() in _JSON_LINES or head == b"{"
            lines, read = (_json_lines(file), _as_it_is) if is_json else (_csv_lines(file), _cell)
            with closing(lines):
                for number, (place, told) in enumerate(lines, start=1):
                    if isinstance(told, Problem):
                        yield Placed(number, place, None, [told])
                    else:
                        yield _place(number, place, told, partial(_value, self.path.parent, self.outputs, read))


def _place(number: int, place: str, cells: Cells, value: Callable[[str, object], object]) -> Placed:
    said: dict[str, Any] = {}
    problems = [Problem(f"{place}, {name}", "it is missing") for name in _SOURCES if name not in cells]
    for name, cell in cells.items():
        try:
            said[name] = value(name, cell)
        except ValueError as error:
            problems.append(Problem(f"{place}, {name}", str(error)))
    if problems:
        return Placed(number, place, None, problems)
    try:
        return Placed(number, place, DubRow(**said))
    except (ValueError, TypeError) as error:
        column = str(error).partition(" ")[0]
        where = f"{place}, {column}" if column in COLUMNS else place
        return Placed(number, place, None, [Problem(where, str(error))])


def _value(
    folder: Path, outputs: Path | None, read: Callable[[str, object], object], name: str, cell: object
) -> object:
    if name not in COLUMNS:
        raise ValueError(f"there is no such column{_guess(name)}")
    if name in _SOURCES:
        return _source(cell, folder)
    if name == "output" and outputs is not None and isinstance(cell, str):
        return inside(outputs, cell)
    return read(name, cell)


def _guess(name: str) -> str:
    near = difflib.get_close_matches(name, COLUMNS, n=1)
    return f"; is it {near[0]}?" if near else ""


def _as_it_is(_name: str, value: object) -> object:
    return value


def _source(value: object, folder: Path) -> object:
    match value:
        case {"type": "url", "url": str(url)}:
            return _source(url, folder) if "://" in url else url
        case {"type": "asset_id", "asset_id": str(asset_id)} if asset_id:
            return AssetId(asset_id)
        case str() if value.startswith("asset:") and len(value) > len("asset:"):
            return AssetId(value.removeprefix("asset:"))
        case str() if "://" in value:
            return value  # DubRow says what it may be
        case str() if value.strip():
            return folder / value
        case _:
            raise ValueError(f"it must be {_SOURCE}")


# JSON Lines


def _json_lines(file: io.BufferedReader) -> Generator[tuple[str, Cells | Problem], None, None]:
    for number, line in enumerate(file, start=1):
        place = f"line {number}"
        text = line.removeprefix(_MARK).strip()
        if text:
            yield place, _json_object(place, text)


def _json_object(place: str, text: bytes) -> Cells | Problem:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Problem(place, f"it is not JSON: {error.msg} at character {error.colno}")
    if not isinstance(told, dict):
        return Problem(place, 'it must be an object, such as {"video": ..., "audio": ...}')
    return {name: value for name, value in told.items() if value is not None}


# CSV


def _csv_lines(file: io.BufferedReader) -> Generator[tuple[str, Cells | Problem], None, None]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    end = 0  # of the line before: a quoted cell may go over several
    try:
        header = text.readline()
        delimiter = max(_DELIMITERS, key=header.count)
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter, strict=True), [])]
        if problem := _header_problem(names):
            yield "line 1", problem
            return
        end = 1
        reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
        for cells in reader:
            place, end = f"line {end + 1}", reader.line_num + 1
            if any(cell.strip() for cell in cells):
                yield place, _csv_cells(place, names, cells)
    except csv.Error as error:
        place = f"line {end + 1}"
        yield place, Problem(place, f"it cannot be read: {error}; what follows was not looked at")
    finally:
        text.detach()


def _header_problem(names: Sequence[str]) -> Problem | None:
    if not any(names):
        return Problem("line 1", "there must be a header: the names of the columns, video and audio at least")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return Problem("line 1", f"the column {twice[0] or 'without a name'} is there twice")
    for name in names:
        if name not in COLUMNS:
            guess = _guess(name) or f"; there are {', '.join(COLUMNS)}"
            return Problem("line 1", f"there is no column {name!r}{guess}")
    missing = [name for name in _SOURCES if name not in names]
    return Problem("line 1", f"there is no column {' and no column '.join(missing)}") if missing else None


def _csv_cells(place: str, names: Sequence[str], cells: Sequence[str]) -> Cells | Problem:
    if len(cells) > len(names):
        return Problem(place, f"it has {len(cells)} cells, and the header {len(names)}")
    if any("\udc80" <= char <= "\udcff" for cell in cells for char in cell):
        return Problem(place, "it is not UTF-8")
    return {name: cell.strip() for name, cell in zip(names, cells, strict=False) if cell.strip()}


def _cell(name: str, cell: object) -> object:
    """Return what a cell of a CSV file, which is always text, says."""
    text = str(cell)
    if name in _FLAGS:
        if text.lower() not in _WORDS:
            raise ValueError(f"it must be true or false, not {text!r}")
        return _WORDS[text.lower()]
    if name in _NUMBERS:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"it must be a number of seconds, not {text!r}") from None
    return text
