"""From rows to entries: local files are looked at, keys and targets are made, off the event loop."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from anyio import to_thread
from attrs import frozen

from heygen_async.bulk.identity import claims_of, inputs_digest, key_of, target_of
from heygen_async.bulk.journal import Entry, FileFacts, Journal, Problem
from heygen_async.bulk.manifest import Placed
from heygen_async.bulk.money import seconds_of
from heygen_async.models import DubRow

_BLOCK: Final = 1 << 20
_SOURCES: Final = ("video", "audio")


@frozen(kw_only=True)
class Task:
    """A row that is ready to be worked on."""

    row: DubRow
    number: int
    place: str
    key: str
    target: Path | None
    files: Mapping[str, FileFacts]
    """What is known of its local files, by `video` and `audio`."""
    seconds: float | None
    """How long the output will about be; `None` where nothing tells."""
    entry: Entry


async def prepare(placed: Sequence[Placed], journal: Journal, output_dir: Path | None) -> list[Task | Problem]:
    """Make tasks of rows; their files are read, once for each state of a file.

    Returns:
        A task or a problem for each row, in order; several problems of one row follow one another.
    """
    looks = await _look_at_files([one.row for one in placed if one.row is not None], journal)
    made: list[Task | Problem] = []
    for one in placed:
        made += one.problems if one.row is None else [_task(one, one.row, looks, output_dir)]
    return made


def _task(placed: Placed, row: DubRow, looks: Mapping[str, FileFacts | str], output_dir: Path | None) -> Task | Problem:
    files: dict[str, FileFacts] = {}
    for name in _SOURCES:
        source = getattr(row, name)
        look = _facts_of_bytes(source) if isinstance(source, bytes) else looks.get(_path(source))
        if isinstance(look, str):
            return Problem(f"{placed.place}, {name}", look)
        if look is not None:
            files[name] = look
    try:
        inputs = inputs_digest(row, files)
        key = key_of(row, inputs)
        target = target_of(row, key, output_dir)
    except ValueError as error:
        return Problem(placed.place, str(error))
    lengths = [files[name].seconds if name in files else None for name in _SOURCES]
    return Task(
        row=row,
        number=placed.number,
        place=placed.place,
        key=key,
        target=target,
        files=files,
        seconds=seconds_of(row, *lengths),
        entry=Entry(
            key=key,
            inputs=inputs,
            number=placed.number,
            place=placed.place,
            target=None if target is None else str(target),
            claims=claims_of(row, target),
        ),
    )


# Files


def _path(source: object) -> str:
    return str(source) if isinstance(source, Path) else ""


async def _look_at_files(rows: Iterable[DubRow], journal: Journal) -> Mapping[str, FileFacts | str]:
    """Return what is known of each local file, by its path, or why it cannot be used."""
    paths = sorted({_path(getattr(row, name)) for row in rows for name in _SOURCES} - {""})
    if not paths:
        return {}
    stamps = await to_thread.run_sync(_stamps, paths)
    known = await journal.file_facts([name for name, _ in stamps.values()])
    looks: dict[str, FileFacts | str] = {}
    news: dict[str, FileFacts] = {}
    for path, (name, stamp) in stamps.items():
        looks[path] = look = (
            known[name]
            if name in known and known[name].stamp == stamp
            # One call a file, so that to be cancelled takes no longer than one.
            else await to_thread.run_sync(read_facts, path)
        )
        if isinstance(look, FileFacts) and known.get(name) != look:
            news[name] = look
    if news:
        await journal.keep_file_facts(news)
    return looks


def _stamps(paths: Iterable[str]) -> Mapping[str, tuple[str, str]]:
    """Return of each path its full name and its stamp."""
    return {path: (os.path.abspath(path), stamp_of(path)) for path in paths}  # noqa: PTH100 a string will do


def stamp_of(path: str) -> str:
    """Return what changes when a file does; for a thread."""
    try:
        return _stamp(os.stat(path))  # noqa: PTH116 a string will do
    except OSError:
        return ""


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns}"


def read_facts(path: str) -> FileFacts | str:
    """Read a file through, and return what is to be known of it, or why it cannot be used; for a thread."""
    name = os.path.basename(path)  # noqa: PTH119 a string will do
    try:
        with open(path, "rb") as file:  # noqa: PTH123 a string will do
            before = os.fstat(file.fileno())
            digest = _digest(file)
            seconds = _seconds(file)
            after = os.fstat(file.fileno())
    except OSError as error:
        return f"{name} cannot be read: {error.strerror or error}"
    if not before.st_size:
        return f"{name} is empty"
    if _stamp(before) != _stamp(after):
        return f"{name} changed while it was read"
    return FileFacts(_stamp(after), digest, seconds)


def _facts_of_bytes(content: bytes) -> FileFacts:
    return FileFacts("", hashlib.sha256(content).hexdigest(), _seconds(io.BytesIO(content)))


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _seconds(file: BinaryIO) -> float | None:
    """Return how long a media file plays; `None` if that cannot be read."""
    from tinytag import TinyTag  # noqa: PLC0415 only runs with local files pay for it

    file.seek(0)
    try:
        found = TinyTag.get(file_obj=file, tags=False).duration
    except Exception:  # noqa: BLE001 a parser of strangers' files; whatever it trips over, the length is unknown
        return None
    return float(found) if found else None
