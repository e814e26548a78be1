"""One request and its answer, as they are kept in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson
from attrs import field, frozen
from cattrs import BaseValidationError, Converter

from heygen_async.sandbox.routes import ROUTES

FORMAT: Final = 1
_FILE: Final = re.compile(r"(\d{4,})-.*\.json")
_PATTERNS: Final = {route: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route))) for route in ROUTES}
_converter: Final = Converter(forbid_extra_keys=True)
_converter.register_structure_hook_func(lambda type_: type_ is object, lambda value, _: value)  # any JSON value


@frozen(kw_only=True)
class Message:
    """The headers and the body of a request or an answer, masked."""

    headers: Mapping[str, str] = field(factory=dict)
    json: object = None
    """The body, if it is JSON."""
    size: int = 0
    """Bytes of the body, whatever it is."""


@frozen(kw_only=True)
class Exchange:
    """A request to an API and its answer, without secrets. What was masked in it is `***`, or on `masked.invalid`."""

    number: int
    at: str
    """When the request arrived, in ISO 8601."""
    seconds: float
    """How long the answer took, until its last byte."""
    method: str
    path: str
    query: Mapping[str, str]
    request: Message
    status: int | None
    """`None` if there was no answer."""
    answer: Message
    differences: tuple[str, ...] = ()
    """How request and answer differ from what the sandbox and the models expect."""
    format: int = FORMAT

    @property
    def route(self) -> str:
        """Method and path template, such as `GET /v3/lipsyncs/{lipsync_id}`; empty for a call that no sandbox has."""
        return route_of(self.method, self.path)

    @property
    def file_name(self) -> str:
        """The name of its file: its number, its method and its path."""
        words = re.sub(r"[^A-Za-z0-9]+", "-", (self.route or self.path).removeprefix(f"{self.method} ")).strip("-")
        return f"{self.number:04}-{self.method}-{words[:60]}.json"


def route_of(method: str, path: str) -> str:
    """Return method and path template of a request; empty if the sandbox has no such call."""
    return next((route for route, pattern in _PATTERNS.items() if pattern.fullmatch(f"{method} {path}")), "")


def load_recordings(directory: str | os.PathLike[str]) -> list[Exchange]:
    """Return the exchanges in a directory, in the order in which they were recorded.

    Raises:
        OSError: If it is not a directory, or a file in it cannot be read.
        ValueError: If a file in it is not a recording; the message names it.
    """
    return [_read(path) for _, path in sorted(_numbered(Path(directory)))]


def _read(path: Path) -> Exchange:
    message = f"{path} is not a recording of this version; record it again, or remove it"
    try:
        content = orjson.loads(path.read_bytes())
        if isinstance(content, dict) and content.get("format") == FORMAT:
            return _converter.structure(content, Exchange)
    except (ValueError, BaseValidationError) as error:
        raise ValueError(message) from error
    raise ValueError(message)


def save(exchange: Exchange, directory: Path) -> None:
    """Write *exchange* to its own file, which is complete whenever it exists."""
    path = directory / exchange.file_name
    unfinished = path.with_suffix(".part")
    content = orjson.dumps(_converter.unstructure(exchange), option=orjson.OPT_INDENT_2)
    unfinished.unlink(missing_ok=True)  # of a recorder that was killed, or a link that somebody else put there
    with unfinished.open("xb") as file:
        file.write(content)
    unfinished.replace(path)


def last_number(directory: Path) -> int:
    """Return the highest number of a recording in *directory*; 0 if there is none."""
    return max((number for number, _ in _numbered(directory)), default=0)


def _numbered(directory: Path) -> Iterator[tuple[int, Path]]:
    for path in directory.iterdir():
        if found := _FILE.fullmatch(path.name):
            yield int(found[1]), path
