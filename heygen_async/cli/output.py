"""What is printed: results on standard output, everything for people on standard error."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from heygen_async._text import escape_controls, whole_characters
from heygen_async.cli.options import Printing
from heygen_async.cli.suggestions import flag

if TYPE_CHECKING:
    from rich.console import RenderableType

    from heygen_async.models import JSON


_DEEPEST: Final = 100
"""Levels of nesting that are printed, as many as those that a model makes JSON of. The API's answers have 5."""
_TOO_DEEP: Final = "<too deeply nested>"


def wants_json(flag: bool) -> bool:  # noqa: FBT001 it is the value of --json
    """Return whether to print JSON: with --json, or where the output is not a terminal."""
    return flag or not sys.stdout.isatty()


def to_json(data: JSON, *, is_indented: bool = False) -> str:
    """Return *data* as JSON that any encoding and any terminal can take: controls and bidi overrides are escaped.

    What is nested too deeply for `json` to write is a text that says so.
    """
    indent, separators = (2, (",", ": ")) if is_indented else (None, (",", ":"))
    text = json.dumps(bounded(data), ensure_ascii=False, indent=indent, separators=separators)
    return "\n".join(escape_controls(line) for line in whole_characters(text).split("\n"))


def bounded(data: JSON, depth: int = 0) -> JSON:
    """Return *data* with a text in place of what is nested more than 100 levels deep; *depth* is its own level."""
    match data:
        case dict():
            return _TOO_DEEP if depth == _DEEPEST else {name: bounded(one, depth + 1) for name, one in data.items()}
        case list():
            return _TOO_DEEP if depth == _DEEPEST else [bounded(one, depth + 1) for one in data]
        case _:
            return data


def print_json(data: JSON) -> None:
    """Print *data* as JSON, indented for a terminal."""
    print(to_json(data, is_indented=sys.stdout.isatty()), flush=True)  # noqa: T201 it is the result


def print_json_line(data: JSON) -> None:
    """Print *data* as one line of JSON."""
    print(to_json(data), flush=True)  # noqa: T201 it is the result


def print_line(text: str) -> None:
    """Print a line as a result; names and messages in it have gone through `one_line`."""
    print(text, flush=True)  # noqa: T201 it is the result


def print_parts(parts: Iterable[RenderableType]) -> None:
    """Print the *parts* of a result for a person, laid out for the terminal."""
    from rich.console import Console, Group  # noqa: PLC0415 it takes longer to load than JSON to print

    Console().print(Group(*parts), crop=False)  # a line that is not wrapped is not cut either


def emit(envelope: JSON, options: Printing) -> None:
    """Print an answer of the API: unchanged as JSON, or laid out for a person."""
    if wants_json(options.json):
        print_json(envelope)
    else:
        _show(envelope)


def emit_one_of_many(envelope: JSON, options: Printing) -> None:
    """Print one of several answers: as one line of JSON, or laid out for a person."""
    if wants_json(options.json):
        print_json_line(envelope)
    else:
        _show(envelope)


def _show(envelope: JSON) -> None:
    from rich.console import Console  # noqa: PLC0415 it takes longer to load than JSON to print

    from heygen_async.cli.envelope_view import show  # noqa: PLC0415 it imports rich

    show(bounded(envelope), Console())


def emit_page(page: JSON, options: Printing, *, more: str = "") -> None:
    """Print a page of a list, and for a person how to get the next one, or *more*."""
    emit(page, options)
    with suppress(TypeError):  # a cursor that cannot be read was printed as it is
        if token := next_token(page):
            note(f"the next page: {shlex.join(flag('--token', token))}{more}", options)


def next_token(page: JSON) -> str | None:
    """Return the cursor of the page after this one, read as the library reads it; `None` on the last.

    Raises:
        TypeError: If it is neither text nor a number.
    """
    from heygen_async._values import lenient_text  # noqa: PLC0415 few commands print pages

    if not isinstance(page, Mapping) or page.get("has_more") is False or not page.get("next_token"):
        return None
    return lenient_text(page["next_token"])


def note(text: str, options: Printing) -> None:
    """Print a line for a person beside the result; nothing if JSON is printed, for a program."""
    if not wants_json(options.json):
        print_for_people(escape_controls(text))  # a path or a command in it keeps its spaces


def print_for_people(text: str) -> None:
    """Print *text* to standard error as it is."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 it is for people
