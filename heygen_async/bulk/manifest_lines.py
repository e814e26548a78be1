"""CSV and JSON Lines as rows of cells."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Final, TextIO, TypeAlias

import attrs
import orjson
from attrs import frozen

from heygen_async._arguments import shown
from heygen_async.bulk.identity import ROLES
from heygen_async.bulk.store import Problem
from heygen_async.models import DubRow

COLUMNS: Final = tuple(dict.fromkeys([*ROLES, *(attribute.name for attribute in attrs.fields(DubRow))]))
"""The columns of a manifest: the fields of `DubRow`."""
_COLUMNS: Final = frozenset(COLUMNS)

_KNOWN: Final = f"; the columns are {', '.join(COLUMNS)}"
_FLAGS: Final = frozenset(a.name for a in attrs.fields(DubRow) if str(a.type).startswith("bool"))
_NUMBERS: Final = frozenset({"start_time", "end_time"})
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)")
"""A number as people write it; `float` reads `1_0` and the digits of all scripts, too."""
_DECIMAL_COMMA: Final = re.compile(r"[+-]?(?:0,[0-9]+|[0-9]+,(?![0-9]{3}\Z)[0-9]+)")
"""One with a comma. `1,500` is none: it may mean fifteen hundred."""
_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
}
"""Flags as people write them, and as pandas writes a column of flags with gaps."""
_JSON_LINES: Final = frozenset({".jsonl", ".ndjson", ".json"})
_DELIMITERS: Final = ",;\t|"
_SEPARATOR: Final = re.compile(r'\s*"?sep=([^"\r\n])"?[,;\t|\s]*', re.IGNORECASE)
"""A first line by which Excel names the separator."""
_QUOTED: Final = re.compile(r'"[^"]*"')
_MOST_HEADER_LINES: Final = 100
"""Lines of a header; in one that has more, a quotation mark is not closed."""
_SPACES: Final = re.compile(r"[\s-]+")
"""What people write in a name of a column in place of an underscore."""
_UNNAMED: Final = {
    False: "a cell that contains the separator must be in quotes",
    True: "pandas writes its index so: write the file with index=False",
}
"""Advice on a cell in a column without a name, by whether it may be an index."""
_CSV_ERRORS: Final = {
    "unexpected end of data": "a quotation mark is not closed",
    "expected after": 'text follows a closing quotation mark; inside of quotes a quotation mark is written ""',
    "field larger than": "a cell is too long; is a quotation mark not closed?",
}
"""Errors of `csv` in the words of people who write CSV."""
_MARKS: Final = "\ufeff\u200b"
"""Byte order marks, and what else editors put unseen before the first character."""
_CONTROLS: Final = "\x1a\x1e"
"""The end of a file in DOS, and what `jq --seq` writes before each line."""
_UTF_16: Final = frozenset({b"\xff\xfe", b"\xfe\xff"})
_NOT_UTF_8: Final = re.compile("[\udc80-\udcff]")
_MEMBER: Final = re.compile(r'"\s*:')
"""The end of a member's name in JSON; in a text too, so there may be more of these than members."""
_NAME: Final = re.compile(r"[a-z_]{1,40}")

Cells: TypeAlias = Mapping[str, object]
"""The values of a row by column; empty ones are left out."""


@frozen
class Line:
    """A row as it is written."""

    place: str
    cells: Cells
    problems: Sequence[Problem]
    """What is wrong with it so far."""
    is_whole: bool = True
    """Whether all of its cells are there: not if the header has an error, and the row can only be checked."""


def guess(name: str) -> str:
    """Return which column may be meant by *name*, in words; nothing if none is near."""
    near = difflib.get_close_matches(_as_column(name), COLUMNS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def lines_of(file: io.BufferedReader, suffix: str) -> Generator[Line, None, None]:
    """Iterate over the rows of a file whose name ends in *suffix*, in lower case."""
    start = file.peek(64)[:64]
    is_utf_16 = start[:2] in _UTF_16 and start[2:4] != b"\0\0"  # or it is UTF-32
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


def _unreadable(place: str, message: str) -> Line:
    return Line(place, {}, [Problem(place, message)])


def _first_line(text: TextIO) -> tuple[int, str, str | None]:
    """Return the first line that is not blank, how many are before it, and the separator if they name it."""
    delimiter: str | None = None
    skipped = 0
    for line in (line.lstrip(_MARKS) for line in text):
        if named := _SEPARATOR.fullmatch(line):
            delimiter = named[1]
        elif line.strip(f'{_DELIMITERS}" \r\n') or line.count('"') % 2:  # a name that begins with a line break
            return skipped, line, delimiter
        skipped += 1
    return skipped, "", delimiter


def _json_lines(lines: Iterable[str], skipped: int) -> Iterator[Line]:
    for number, line in enumerate(lines, start=skipped + 1):
        text, place = line.strip(f"{_MARKS}{_CONTROLS} \t\r\n"), f"line {number}"
        if number == skipped + 1 and (begun := _begins(text)):
            yield _unreadable(place, f"begins {begun}; JSON Lines are one object on each line, without [ ] and commas")
            return
        if text:
            yield _json_object(place, text)


def _begins(text: str) -> str | None:
    """Return what of JSON the first line begins that is written over several lines; `None` for JSON Lines."""
    return "a list" if text.startswith("[") else "an object of several lines" if text == "{" else None


def _json_object(place: str, line: str) -> Line:
    if _NOT_UTF_8.search(line):
        return _unreadable(place, "is not UTF-8 text")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _unreadable(place, f"is not JSON: {error.msg} at character {error.colno}")
    if not isinstance(value, dict):
        return _unreadable(place, 'must be an object, such as {"video": ..., "audio": ...}')
    twice: list[str] = []
    if len(_MEMBER.findall(line)) > sum(1 + len(one) if isinstance(one, dict) else 1 for one in value.values()):
        twice = repeated_members(line)
    if not value.keys() <= _COLUMNS:
        twice += _repeated(map(_column, value))
    cells = {_column(name): one for name, one in value.items() if one is not None}
    return Line(place, cells, [_twice(place, name) for name in twice])


def _column(name: str) -> str:
    """Return the column that a *name* means, in any case and with blanks or dashes; the name itself if none is."""
    column = name if name in _COLUMNS else _as_column(name)
    return column if column in _COLUMNS else name


def _as_column(name: str) -> str:
    return _SPACES.sub("_", name.strip().casefold())


def _twice(place: str, name: str) -> Problem:
    return Problem(f"{place}, {name if _NAME.fullmatch(name) else shown(name)}", "is there twice")


def repeated_members(text: str | bytes) -> list[str]:
    """Return the names that an object in a *text* of JSON has more than once: readers take one of the values."""
    found: list[str] = []

    def note(members: list[tuple[str, object]]) -> None:
        found.extend(_repeated(name for name, _ in members))

    with suppress(RecursionError):  # orjson has read a little more nesting; no column has so much
        json.loads(text, object_pairs_hook=note, parse_int=str, parse_float=str)
    return found


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _csv_lines(lines: Iterable[str], skipped: int, delimiter: str | None) -> Iterator[Line]:
    lines = iter(lines)
    first = list(_header_lines(lines))
    separator = delimiter or max(_DELIMITERS, key=_QUOTED.sub("", "".join(first)).count)
    reader = csv.reader(chain(first, lines), delimiter=separator, skipinitialspace=True, strict=True)
    end = 0  # of the row before: a quoted cell may contain line breaks
    try:
        header = next(reader, [])
        names = [_column(name.strip()) for name in header]
        known = [name for name in names if name in COLUMNS and names.count(name) == 1]
        if problems := list(_header_problems(names, f"line {skipped + 1}")):
            yield Line(f"line {skipped + 1}", {}, problems)
            if not set(ROLES) <= set(known):
                return
        end = reader.line_num
        for cells in reader:
            place, end = f"line {skipped + end + 1}", reader.line_num
            if any(cell.strip(_CONTROLS).strip() for cell in cells):
                row = _csv_row(place, names, cells, separator)
                yield row if not problems else _part_of(row, known)
    except csv.Error as error:
        problem = next((said for part, said in _CSV_ERRORS.items() if part in str(error)), str(error))
        place = f"line {skipped + end + 1}"
        yield _unreadable(place, f"cannot be read: {problem}; the lines after it were not checked")


def _header_lines(lines: Iterator[str]) -> Iterator[str]:
    """Iterate over the lines of the header: a name in quotes may have line breaks."""
    marks = 0
    for line in islice(lines, _MOST_HEADER_LINES):
        yield line
        marks += line.count('"')
        if marks % 2 == 0:
            return


def _header_problems(names: Sequence[str], place: str) -> Iterator[Problem]:
    if not any(names):
        yield Problem(place, "there is no header: the names of the columns, video and audio at least")
        return
    for name in sorted(filter(None, _repeated(names))):
        yield Problem(place, f"the column {name} is there twice")
    for name in dict.fromkeys(names):
        if name and name not in COLUMNS:
            yield Problem(place, f"unknown column {shown(name)}{guess(name) or _KNOWN}")
    for name in ROLES:
        if name not in names:
            yield Problem(place, f"the column {name} is missing")


def _csv_row(place: str, names: Sequence[str], cells: Sequence[str], separator: str) -> Line:
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for number, cell in enumerate(cells, start=1):
        text = cell.strip()
        name = names[number - 1] if number <= len(names) else ""
        if not text:
            continue
        if not name:
            is_index = number == 1 and text.isdecimal()
            problems.append(Problem(f"{place}, column {number}", f"has no name in the header; {_UNNAMED[is_index]}"))
            continue
        try:
            values[name] = _cell(name, text, separator)
        except ValueError as error:
            problems.append(Problem(f"{place}, {name}", str(error)))
    return Line(place, values, problems)


def _part_of(row: Line, columns: Container[str]) -> Line:
    """Return what can be checked of a row below a header with errors: its cells in these *columns*."""
    cells = {name: cell for name, cell in row.cells.items() if name in columns}
    return attrs.evolve(row, cells=cells, is_whole=False)


def _cell(name: str, text: str, separator: str) -> object:
    """Return the value of a cell, which in CSV is always text."""
    if _NOT_UTF_8.search(text):
        raise ValueError("is not UTF-8 text; save the file as CSV in UTF-8")
    if name in _FLAGS:
        if text.lower() not in _WORDS:
            raise ValueError(f"must be true or false, not {shown(text)}")
        return _WORDS[text.lower()]
    if name in _NUMBERS:
        return _seconds(text, separator)
    return text


def _seconds(text: str, separator: str) -> float:
    is_comma = separator != "," and _DECIMAL_COMMA.fullmatch(text)
    number = text.replace(",", ".") if is_comma else text
    if not _DECIMAL.fullmatch(number):
        raise ValueError(f"must be a number of seconds, not {shown(text)}")
    return float(number)
