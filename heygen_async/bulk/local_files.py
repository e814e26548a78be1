"""Local files of rows: looked at, read once for each version of a file, and checked to be unchanged when they are sent.

Rule 1: a file is checked by its first bytes and its size before it is read through.
Rule 2: what was read from a file counts while its fingerprint is the same; an upload checks the content that it sends.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from anyio import to_thread
from attrs import evolve, frozen

from heygen_async._media.sniffing import Role
from heygen_async._media.sources import fingerprint, local_file, look_at_path
from heygen_async.bulk.identity import ROLES, FileInfo
from heygen_async.bulk.store import RowStore
from heygen_async.models import DubRow

_CLOCK_SECONDS: Final = 2.0
"""How coarse the clock of a file system may be."""

_LONGEST_SECONDS: Final = 86_400.0
"""No file that HeyGen takes plays for a day: MP4 says "unknown" by the greatest number that fits."""

_Source: TypeAlias = tuple[Role, Path]


@frozen
class LocalSource:
    """What is known of a local source."""

    info: FileInfo | None = None
    """What was read from it, or, if there is a problem, what was read from it the last time."""
    problem: str | None = None


async def check_bytes(role: Role, content: bytes) -> LocalSource:
    """Look at a source that is in memory."""
    try:
        async with local_file(content, role=role) as file:
            seconds = await to_thread.run_sync(_seconds, io.BytesIO(content))
            return LocalSource(FileInfo("", file.sha256 or "", seconds))
    except ValueError as error:
        return LocalSource(problem=str(error).removeprefix(f"{role}: "))


async def check_files(rows: Iterable[DubRow], journal: RowStore) -> Mapping[_Source, LocalSource]:
    """Look at all local files of *rows*, each once, in their order."""
    sources: dict[_Source, None] = dict.fromkeys(
        (role, source) for row in rows for role in ROLES if isinstance(source := getattr(row, role), Path)
    )
    if not sources:
        return {}
    states = await to_thread.run_sync(_file_states, sources)
    known = await journal.file_info([one.path for one in states.values() if one.path])
    found_files: dict[_Source, LocalSource] = {}
    read: dict[str, FileInfo] = {}
    for source, state in states.items():
        info = known.get(state.path)
        if state.problem is not None:
            found_files[source] = LocalSource(info if state.is_gone else None, state.problem)
        elif info is not None and state.fingerprint and info.fingerprint == state.fingerprint:
            found_files[source] = LocalSource(info)
        else:  # one call a file, so that a cancellation waits for one at most
            found_files[source] = local = await to_thread.run_sync(_read, source[1])
            if local.info is not None and state.path:
                read[state.path] = local.info if state.fingerprint else evolve(local.info, fingerprint="")
    if read:
        await journal.keep_file_info(read)
    return found_files


@frozen
class _FileState:
    """What the file system says of a file, and why the file cannot be used, if so."""

    path: str
    """Its full path; empty if that is not UTF-8, so that the journal cannot keep it."""
    fingerprint: str = ""
    """Empty if another write might leave it as it is, because the file has only just been written for instance."""
    problem: str | None = None
    is_gone: bool = False


def _file_states(sources: Iterable[_Source]) -> Mapping[_Source, _FileState]:
    return {source: _file_state(*source) for source in sources}


def _file_state(role: Role, path: Path) -> _FileState:
    """Check that a file is fit for its role; it is not read through."""
    full = os.path.abspath(path)  # noqa: PTH100 it also takes out `..`
    full = full if is_utf_8(full) else ""
    if not is_utf_8(path.name):
        return _FileState(full, problem=f"the file name is not valid UTF-8; rename the file: {path.name}")
    try:
        look_at_path(path, None, role)
        found = path.stat()
        return _FileState(full, fingerprint(found) if _is_settled(found) else "")
    except OSError as error:
        return _FileState(full, problem=f"{path} cannot be read: {error.strerror or error}", is_gone=True)
    except ValueError as error:
        return _FileState(full, problem=str(error).removeprefix(f"{role}: "))


def _is_settled(found: os.stat_result) -> bool:
    """Return whether another write to a file would certainly change its times: file systems have coarse clocks.

    Windows has only one that a program can set.
    """
    return os.name == "posix" and time.time() - max(found.st_mtime, found.st_ctime) > _CLOCK_SECONDS


def _read(path: Path) -> LocalSource:
    found = read_file_info(path)
    return LocalSource(problem=found) if isinstance(found, str) else LocalSource(found)


def read_file_info(path: Path) -> FileInfo | str:
    """Read a file through, and return what is to be known of it, or why it cannot be used; for a thread."""
    try:
        with path.open("rb") as file:
            before = fingerprint(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            seconds = _seconds(file)
            after = fingerprint(os.fstat(file.fileno()))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return FileInfo(after, digest, seconds) if before == after else f"{path.name} changed while it was read"


async def check_unchanged(name: str, source: Path, info: FileInfo) -> None:
    """Check that a file still has the content that was checked, by reading it only if its fingerprint has changed.

    Args:
        name: What it is: `video` or `audio`.
        source: The file.
        info: What was read from it then.

    Raises:
        ValueError: If its content has changed, or cannot be read.
    """
    problem = await to_thread.run_sync(partial(_change, source, info))
    if problem is not None:
        raise ValueError(f"{name}: {problem}")


def _change(path: Path, info: FileInfo) -> str | None:
    try:
        is_same = fingerprint(path.stat()) == info.fingerprint
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    if is_same:
        return None
    now = read_file_info(path)
    if isinstance(now, str):
        return now
    return None if now.digest == info.digest else f"{path.name} changed during the run"


def is_utf_8(text: str) -> bool:
    """Return whether *text* can be stored and sent: the name of a file may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _seconds(file: BinaryIO) -> float | None:
    """Return how long a media file plays; `None` if that cannot be read."""
    from tinytag import TinyTag  # noqa: PLC0415 only runs with local files need it

    file.seek(0)
    is_wav = file.read(4) == b"RIFF"
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        tag = TinyTag.get(file_obj=file, tags=False)
    except Exception:  # noqa: BLE001 a parser of any file; whatever it fails at, the length is unknown
        return None
    found = tag.duration
    if is_wav and found and tag.samplerate and tag.channels and tag.bitdepth:
        # One that was written to a pipe says that it has 4 GB.
        found = min(found, size * 8 / (tag.samplerate * tag.channels * tag.bitdepth))
    return float(found) if found and found < _LONGEST_SECONDS else None
