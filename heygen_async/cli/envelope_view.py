"""How an answer of the API is shown to a person: one object as lines, several as a table.

The JSON may be anything, whatever the contract promises, and no character of it may control the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from heygen_async._text import one_line
from heygen_async.models import JSON

_COLOURS: Final = {"completed": "green", "failed": "red", "running": "yellow", "pending": "yellow"}
_COLUMNS: Final = ("id", "status", "duration", "created_at", "title")
"""Columns of a table, where a value for them exists."""


def show(envelope: JSON, console: Console) -> None:
    """Print the content of an *envelope*, such as `{"data": {...}}`."""
    data = envelope.get("data", envelope) if isinstance(envelope, Mapping) else envelope
    console.print(
        _list(data) if isinstance(data, list) else _one(data), soft_wrap=not isinstance(data, list), crop=False
    )


def _one(thing: JSON) -> RenderableType:
    lines = [(name, _text(name.rpartition(".")[2], value)) for name, value in _pairs(thing)]
    width = max((cell_len(name) for name, _ in lines), default=0)
    return Text("\n").join(Text.assemble((set_cell_size(name, width), "bold"), "  ", value) for name, value in lines)


def _pairs(thing: JSON, prefix: str = "") -> Iterator[tuple[str, JSON]]:
    if not isinstance(thing, Mapping):
        yield prefix.rstrip(".") or "answer", thing
        return
    for name, value in thing.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{prefix}{name}.")
        elif value is not None:
            yield one_line(f"{prefix}{name}"), value


def _list(things: Sequence[JSON]) -> RenderableType:
    rows = [thing if isinstance(thing, Mapping) else {"id": thing} for thing in things]
    if not rows:
        return Text("none")
    names = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold", expand="title" in names)
    for name in names:
        is_title = name == "title"  # gets the room that is left; an id is never cut, the others in narrow windows only
        longest = max(cell_len(_text(name, row.get(name)).plain) for row in rows) if name == "id" else None
        table.add_column(name.removesuffix("_at"), no_wrap=True, ratio=1 if is_title else None, min_width=longest)
    for row in rows:
        table.add_row(*(_text(name, row.get(name)) for name in names))
    return table


def _text(name: str, value: JSON) -> Text:
    match name, value:
        case "status", str():
            return Text(one_line(value), style=_COLOURS.get(value, ""))
        case _, None:
            text = ""
        case _, bool():
            text = "yes" if value else "no"
        case "duration", int() | float():
            text = f"{value:,.1f} s"
        case "created_at", int() | float():
            text = _when(value)
        case _, list():
            text = ", ".join(map(str, value))
        case _:
            text = str(value)
    return Text(one_line(text))


def _when(timestamp: float) -> str:
    try:
        return f"{datetime.fromtimestamp(timestamp).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return str(timestamp)
