"""Manifests: files that list the rows of a bulk run, as CSV with a header or as JSON Lines.

Rule 1: a manifest is read as a stream, so that a hundred thousand rows need no more memory than one.
Rule 2: every error of a row is reported, with line and column, and the other rows are read all the same.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias

import attrs
import orjson
from attrs import frozen

from heygen_async._arguments import is_https, shown
from heygen_async._media.targets import expanded
from heygen_async.bulk.identity import ROLES, inside
from heygen_async.bulk.store import Problem
from heygen_async.models import AssetId, DubRow, row_faults

_ANY_SOURCE: Final = AssetId("unknown")
"""In place of a source that is wrong: nothing is checked of it."""
COLUMNS: Final = tuple(dict.fromkeys([*ROLES, *(attribute.name for attribute in attrs.fields(DubRow))]))
"""The columns of a manifest: the fields of `DubRow`."""

_KNOWN: Final = f"; the columns are {', '.join(COLUMNS)}"
_FLAGS: Final = frozenset(a.name for a in attrs.fields(DubRow) if str(a.type).startswith("bool"))
_NUMBERS: Final = frozenset({"start_time", "end_time"})
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)")
"""A number as people write it; `float` reads `1_0` and the digits of all scripts, too."""
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_JSON_LINES: Final = frozenset({".jsonl", ".ndjson", ".json"})
_DELIMITERS: Final = ",;\t|"
_SEPARATOR: Final = re.compile(r'\s*"?sep=([^"\r\n])"?[,;\t|\s]*', re.IGNORECASE)
"""A first line by which Excel names the separator."""
_SPACES: Final = re.compile(r"[\s-]+")
"""What people write in a name of a column in place of an underscore."""
_CSV_ERRORS: Final = {
    "unexpected end of data": "a quotation mark is not closed",
    "expected after": 'text follows a closing quotation mark; inside of quotes a quotation mark is written ""',
    "field larger than": "a cell is too long; is a quotation mark not closed?",
}
"""Errors of `csv` in the words of people who write CSV."""
_UTF_16: Final = frozenset({b"\xff\xfe", b"\xfe\xff"})
_NOT_UTF_8: Final = re.compile("[\udc80-\udcff]")
_MEMBER: Final = re.compile(r'"\s*:')
"""The end of a member's name in JSON; in a text too, so there may be more of these than members."""
_NAME: Final = re.compile(r"[a-z_]{1,40}")
_DEVICES: Final = ("/dev/", "/proc/")

Cells: TypeAlias = Mapping[str, object]
"""The values of a row by column; empty ones are left out."""


@frozen
class _Line:
    """A row as it is written."""

    place: str
    cells: Cells
    problems: Sequence[Problem]
    """What is wrong with it so far."""
    is_whole: bool = True
    """Whether all of its cells are there: not if the header has an error, and the row can only be checked."""


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
    manifest) or `asset:ID`; `key`, `output`, and any option of a create. JSON Lines may also give sources as the
    API does, `{"type": "asset_id", "asset_id": "..."}`.

    CSV may be as spreadsheets write it: separated by comma, semicolon, tab or bar, with a `sep=;` line, blank rows
    and columns, a byte order mark, names of columns such as `Start time`; in UTF-8, or UTF-16 with its mark.

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
            folder = Path() if self.name is None else self.path.parent
            for number, line in enumerate(_lines(file, self.path.suffix.lower()), start=1):
                yield _row(number, line, self._reader(folder))

    @property
    def name(self) -> str | None:
        """The name of the file; `None` for a pipe, which has none of its own. It looks at the file."""
        is_device = str(self.path.absolute()).startswith(_DEVICES)
        return None if is_device or self.path.is_fifo() else self.path.name

    def _reader(self, folder: Path) -> Callable[[str, object], object]:
        def read(name: str, value: object) -> object:
            if name in ROLES:
                return _source(value, folder)
            if name == "output" and self.outputs is not None and isinstance(value, str):
                return inside(self.outputs, value)
            return value

        return read


# Rows


def _row(number: int, line: _Line, read: Callable[[str, object], object]) -> SourceRow:
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
        return Problem(place, f"unknown column {shown(name)}{_guess(name)}")
    return Problem(f"{place}, {name}", message.removeprefix(f"{name} ") if f"{name} (" not in message else message)


def _column(problem: Problem) -> int:
    name = problem.place.rpartition(", ")[2]
    return COLUMNS.index(name) if name in COLUMNS else len(COLUMNS)


def _guess(name: str) -> str:
    near = difflib.get_close_matches(name, COLUMNS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


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
        raise ValueError(f"must be an https URL, a file, or asset:ID, not {shown(url)}")
    return url


# Lines


def _lines(file: io.BufferedReader, suffix: str) -> Generator[_Line, None, None]:
    start = file.peek(64)[:64]
    is_utf_16 = start[:2] in _UTF_16
    if b"\0" in start and not is_utf_16:
        yield _unreadable("line 1", "this is not a text file; save it as CSV in UTF-8")
        return
    encoding, errors = ("utf-16", "replace") if is_utf_16 else ("utf-8-sig", "surrogateescape")
    text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
    try:
        skipped, first, delimiter = _first_line(text)
        lines = chain([first], text)
        if suffix in _JSON_LINES or first.lstrip().startswith(("{", "[")):
            yield from _json_lines(lines, skipped)
        else:
            yield from _csv_lines(lines, skipped, delimiter)
    finally:
        text.detach()


def _unreadable(place: str, message: str) -> _Line:
    return _Line(place, {}, [Problem(place, message)])


def _first_line(text: TextIO) -> tuple[int, str, str | None]:
    """Return the first line that is not blank, how many are before it, and the separator if they name it."""
    delimiter: str | None = None
    skipped = 0
    for line in text:
        if named := _SEPARATOR.fullmatch(line):
            delimiter = named[1]
        elif line.strip(f'{_DELIMITERS}" \r\n'):
            return skipped, line, delimiter
        skipped += 1
    return skipped, "", delimiter


def _json_lines(lines: Iterable[str], skipped: int) -> Iterator[_Line]:
    for number, line in enumerate(lines, start=skipped + 1):
        text, place = line.strip("\ufeff \t\r\n"), f"line {number}"
        if number == skipped + 1 and (begun := _begins(text)):
            yield _unreadable(place, f"begins {begun}; JSON Lines are one object on each line, without [ ] and commas")
            return
        if text:
            yield _json_object(place, text)


def _begins(text: str) -> str | None:
    """Return what of JSON the first line begins that is written over several lines; `None` for JSON Lines."""
    return "a list" if text.startswith("[") else "an object of several lines" if text == "{" else None


def _json_object(place: str, line: str) -> _Line:
    if _NOT_UTF_8.search(line):
        return _unreadable(place, "is not UTF-8 text")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _unreadable(place, f"is not JSON: {error.msg} at character {error.colno}")
    if not isinstance(value, dict):
        return _unreadable(place, 'must be an object, such as {"video": ..., "audio": ...}')
    problems: list[Problem] = []
    if len(_MEMBER.findall(line)) > sum(1 + len(one) if isinstance(one, dict) else 1 for one in value.values()):
        problems = [_twice(place, name) for name in repeated_members(line)]
    return _Line(place, {name: one for name, one in value.items() if one is not None}, problems)


def _twice(place: str, name: str) -> Problem:
    return Problem(f"{place}, {name if _NAME.fullmatch(name) else shown(name)}", "is there twice")


def repeated_members(text: str | bytes) -> list[str]:
    """Return the names that an object in a *text* of JSON has more than once: readers take one of the values."""
    found: list[str] = []

    def note(members: list[tuple[str, object]]) -> None:
        names = Counter(name for name, _ in members)
        found.extend(name for name, count in names.items() if count > 1)

    with suppress(RecursionError):  # orjson has read a little more nesting; no column has so much
        json.loads(text, object_pairs_hook=note, parse_int=str, parse_float=str)
    return found


def _csv_lines(lines: Iterable[str], skipped: int, delimiter: str | None) -> Iterator[_Line]:
    lines = iter(lines)
    first = next(lines, "")
    separator = delimiter or max(_DELIMITERS, key=first.count)
    reader = csv.reader(chain([first], lines), delimiter=separator, skipinitialspace=True, strict=True)
    end = 0  # of the row before: a quoted cell may contain line breaks
    try:
        header = next(reader, [])
        names = [_SPACES.sub("_", name.strip().casefold()) for name in header]
        known = [name for name in names if name in COLUMNS and names.count(name) == 1]
        if problems := list(_header_problems(names, f"line {skipped + 1}")):
            yield _Line(f"line {skipped + 1}", {}, problems)
            if not set(ROLES) <= set(known):
                return
        end = reader.line_num
        for cells in reader:
            place, end = f"line {skipped + end + 1}", reader.line_num
            if any(cell.strip() for cell in cells):
                row = _csv_row(place, names, cells)
                yield row if not problems else _part_of(row, known)
    except csv.Error as error:
        problem = next((said for part, said in _CSV_ERRORS.items() if part in str(error)), str(error))
        place = f"line {skipped + end + 1}"
        yield _unreadable(place, f"cannot be read: {problem}; the lines after it were not checked")


def _header_problems(names: Sequence[str], place: str) -> Iterator[Problem]:
    if not any(names):
        yield Problem(place, "there is no header: the names of the columns, video and audio at least")
        return
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        yield Problem(place, f"the column {name} is there twice")
    for name in dict.fromkeys(names):
        if name and name not in COLUMNS:
            yield Problem(place, f"unknown column {shown(name)}{_guess(name) or _KNOWN}")
    for name in ROLES:
        if name not in names:
            yield Problem(place, f"the column {name} is missing")


def _csv_row(place: str, names: Sequence[str], cells: Sequence[str]) -> _Line:
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for number, cell in enumerate(cells, start=1):
        text = cell.strip()
        name = names[number - 1] if number <= len(names) else ""
        if not text:
            continue
        if not name:
            message = "has no name in the header; a cell that contains the separator must be in quotes"
            problems.append(Problem(f"{place}, column {number}", message))
            continue
        try:
            values[name] = _cell(name, text)
        except ValueError as error:
            problems.append(Problem(f"{place}, {name}", str(error)))
    return _Line(place, values, problems)


def _part_of(row: _Line, columns: Container[str]) -> _Line:
    """Return what can be checked of a row below a header with errors: its cells in these *columns*."""
    cells = {name: cell for name, cell in row.cells.items() if name in columns}
    return attrs.evolve(row, cells=cells, is_whole=False)


def _cell(name: str, text: str) -> object:
    """Return the value of a cell, which in CSV is always text."""
    if _NOT_UTF_8.search(text):
        raise ValueError("is not UTF-8 text; save the file as CSV in UTF-8")
    if name in _FLAGS:
        if text.lower() not in _WORDS:
            raise ValueError(f"must be true or false, not {shown(text)}")
        return _WORDS[text.lower()]
    if name in _NUMBERS:
        if not _DECIMAL.fullmatch(text):
            raise ValueError(f"must be a number of seconds, not {shown(text)}")
        return float(text)
    return text
