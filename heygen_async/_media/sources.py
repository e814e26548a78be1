"""What can be uploaded: a `Path`, `bytes` or an open binary file, checked before anything is sent."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from inspect import iscoroutinefunction
from operator import methodcaller
from pathlib import Path, PurePath
from typing import BinaryIO, Final, Protocol, TypeAlias, cast
from weakref import WeakValueDictionary

from anyio import to_thread
from attrs import evolve, field, frozen

from heygen_async._media.mp4_boxes import without_end
from heygen_async._media.open_file import OpenFile
from heygen_async._media.sniffing import EMPTY_TAG, SNIFFED, Role, check_size, sniff, tag_size
from heygen_async._text import whole_characters
from heygen_async.models import Source

_BLOCK: Final = 1 << 20
"""How much of a pipe is read at once, in bytes."""


class Readable(Protocol):
    """A pass over a file."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, position: int, /) -> object: ...

    def close(self) -> None: ...


@frozen
class LocalFile:
    """A file that can be uploaded: it exists, can be read, and is of a type that HeyGen takes."""

    name: str
    """What it is uploaded as."""
    mime_type: str
    size: int
    """In bytes."""
    open: Callable[[], Readable] = field(repr=False)
    """Opens it at its start, for one pass; for a thread. Raises `OSError` if it was replaced or changed."""
    is_unchanged: Callable[[], bool] = field(repr=False)
    """Whether it was neither replaced nor changed since the check, as far as the file system says; for a thread."""
    is_untouched: Callable[[], bool] = field(default=lambda: False, repr=False)
    """Whether certainly nothing has changed it since the check; false where that is not known. For a thread."""
    touched_at: float | None = None
    """When it was last changed, renamed or linked, according to its file system: Unix time; `None` if not known."""
    sha256: str | None = None
    """The digest of its content in hex, if that is known and cannot change."""
    path: Path | None = None

    def changed(self, done: int) -> OSError:
        """Return the error for a file that changed since it was checked."""
        return OSError(f"{self.name} changed while it was read: it had {self.size} bytes, and {done} were read")


@asynccontextmanager
async def local_file(source: Source, *, name: str | None = None, role: Role | None = None) -> AsyncIterator[LocalFile]:
    """Check *source*, off the event loop, and yield it for as long as it is needed.

    A file that cannot be rewound (a pipe, a socket) is first written to an unnamed temporary file: its length must
    be known before the first byte is sent, and its upload can then be retried like any other.

    Args:
        source: The file.
        name: The name to upload it under; `None` for its own.
        role: What it is to be used as, `video` or `audio`; `None` for an upload of any type and size.

    Raises:
        TypeError: If it is not a `Path`, bytes or an open binary file.
        ValueError: If it is empty, of a wrong type, or too large for its role; see `sniff` and `check_size`.
        OSError: If it cannot be read.
    """
    if isinstance(source, Path):
        yield await to_thread.run_sync(partial(look_at_path, source, name, role))
    elif isinstance(source, bytes):
        yield await to_thread.run_sync(partial(_look_at_bytes, source, name, role))
    elif isinstance(source, io.TextIOBase):
        raise TypeError(f"{role or 'source'} must be a file that was opened in binary mode, with 'rb'")
    elif iscoroutinefunction(read := getattr(source, "read", None)):
        advice = "give the plain file in it (`.file`, `.wrapped`), or its Path"
        raise TypeError(f"{role or 'source'} must be a file that is read without await: {advice}")
    elif callable(read):
        if await to_thread.run_sync(_is_seekable, source):
            yield await to_thread.run_sync(partial(_look_at_file, cast("BinaryIO", source), name, role))
        else:
            shown = name or _own_name(source)
            async with _spooled(read, shown, role) as (spool, digest):
                yield await to_thread.run_sync(partial(_look_at_spool, spool, digest, shown, role))
    else:
        raise TypeError(f"{role or 'source'} must be a Path, bytes or an open file, not {type(source).__name__}")


# A path


_Version: TypeAlias = tuple[int, int, int, int]


def _version(found: os.stat_result) -> _Version:
    """Return what a file system says of one version of a file.

    Not the time of the last status change, which a rename, a link or a backup moves without a change of the content:
    the content itself is compared by digest.
    """
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def fingerprint(found: os.stat_result) -> str:
    """Return what identifies one version of one file: device, inode, size, and the times of its last changes."""
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def _check_path(path: Path) -> None:
    if "\0" in str(path):
        raise ValueError(f"cannot read {str(path)!r}: a path must not contain NUL")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(f"cannot read {str(path)!a}: the path has a character that no file name can have") from None


def look_at_path(path: Path, name: str | None, role: Role | None) -> LocalFile:
    """Return the file at *path* if it can be uploaded; only its first bytes are read. For a thread.

    Args:
        path: The file.
        name: What to upload it as; `None` for its own name.
        role: What it is to be used as; `None` for an upload of any type and size.

    Raises:
        ValueError: If it is empty, of a wrong type for its role or at all, or too large; the message says which.
        OSError: If it cannot be read.
    """
    _check_path(path)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        # Opening a named pipe could take forever.
        raise ValueError(f"{whole_characters(path.name)} is not a regular file; write its content to a file first")
    with path.open("rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        version, touched = _version(found), fingerprint(found)
        mime_type, shown = _checked(file, found.st_size, whole_characters(name or path.name), role)
    return LocalFile(
        shown,
        mime_type,
        found.st_size,
        open=partial(_open_again, path, version),
        is_unchanged=lambda: _version(path.stat()) == version,
        is_untouched=lambda: fingerprint(path.stat()) == touched,
        touched_at=max(found.st_ctime, found.st_mtime) if os.name == "posix" else None,  # Windows does not say
        path=path.absolute(),
    )


def _checked(file: Readable, size: int, name: str, role: Role | None) -> tuple[str, str]:
    """Return the media type of a file and the name to upload it under, if it can be uploaded."""
    mime_type, shown = sniff(_head(file), name, role=role)
    check_size(shown, size, role)
    if mime_type == "video/mp4" and (missing := without_end(file, size)) is not None:
        raise ValueError(f"{shown} is not complete: {missing}")
    return mime_type, shown


def _open_again(path: Path, version: _Version) -> BinaryIO:
    file = path.open("rb", buffering=0)
    if _version(os.fstat(file.fileno())) != version:
        file.close()
        raise OSError(f"{whole_characters(path.name)} changed since it was checked")
    return file


# Bytes


def _look_at_bytes(content: bytes, name: str | None, role: Role | None) -> LocalFile:
    file = _at_rest(partial(io.BytesIO, content), len(content), name=name or "upload", role=role)
    return evolve(file, sha256=hashlib.sha256(content).hexdigest())  # only what can be uploaded is read through


def _at_rest(opener: Callable[[], Readable], size: int, *, name: str, role: Role | None) -> LocalFile:
    mime_type, shown = _checked(opener(), size, name, role)
    return LocalFile(shown, mime_type, size, open=opener, is_unchanged=lambda: True)


# An open file


def _is_seekable(file: object) -> bool:
    seekable = getattr(file, "seekable", None)
    return bool(seekable and seekable())


_LOCKS: Final[WeakValueDictionary[int, threading.Lock]] = WeakValueDictionary()
"""By the id of the file: not every object that can be read can be hashed. Whoever uses a lock has the file, too."""
_LOCKS_LOCK: Final = threading.Lock()


def _lock_of(file: BinaryIO) -> threading.Lock:
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(id(file), threading.Lock())


def _look_at_file(file: BinaryIO, name: str | None, role: Role | None) -> LocalFile:
    with _lock_of(file):
        start = file.tell()
        file.seek(0, os.SEEK_END)
        size = file.tell() - start  # not what seek() returns: that is None for a file of paramiko, for instance
        file.seek(start)
    window = partial(_Window, file, start)
    return _at_rest(window, size, name=name or _own_name(file), role=role)


def _head(file: Readable) -> bytes:
    """Return the first bytes of a file; if there is an ID3 tag, with a picture for instance, those after it."""
    head = _read(file)
    size = tag_size(head)
    if size <= SNIFFED // 2:
        return head
    file.seek(size)
    return EMPTY_TAG + _read(file)


def _read(file: Readable) -> bytes:
    """Return some bytes of a file, whose reads may return less than there is."""
    head = b""
    while len(head) < SNIFFED and (block := _octets(file.read(SNIFFED - len(head)))):
        head += block
    return head


class _Window:
    """A caller's open file from a position on, as a file of its own, which keeps the caller's position.

    So many calls can use one open file at once. Closing this leaves that open.
    """

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file = file
        self._lock = _lock_of(file)
        self._start = self._next = start

    def close(self) -> None:
        """Do nothing: the file is the caller's."""

    def seek(self, position: int, /) -> None:
        self._next = self._start + position

    def read(self, size: int, /) -> bytes:
        with self._lock:
            position = self._file.tell()
            self._file.seek(self._next)
            try:
                read = _octets(self._file.read(size))
            finally:
                self._file.seek(position)
        self._next += len(read)
        return read


def _octets(read: object) -> bytes:
    if not isinstance(read, bytes):
        raise TypeError(f"an open file's read() must return bytes, not {type(read).__name__}")
    return read


def _own_name(file: object) -> str:
    own = getattr(file, "name", None)
    return whole_characters(PurePath(own).name) if isinstance(own, str) and PurePath(own).suffix else "upload"


# A one-shot file


@asynccontextmanager
async def _spooled(read: Callable[[int], object], name: str, role: Role | None) -> AsyncIterator[tuple[BinaryIO, str]]:
    size = 0
    with OpenFile(None, _Spool) as opened:
        # Abandoned if cancelled: a read of a silent pipe might not end, and the file is not ours.
        while block := _octets(await to_thread.run_sync(read, _BLOCK, abandon_on_cancel=True)):
            size += len(block)
            check_size(name, size, role)  # now, as it may have no end
            await opened.run(methodcaller("add", block))
        yield await opened.run(lambda spool: (spool.file, spool.digest.hexdigest()))


class _Spool:
    """An unnamed temporary file, and the digest of its content. For a thread."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 its owner closes it
        self.digest = hashlib.sha256()

    def add(self, block: bytes) -> None:
        self.digest.update(block)
        self.file.write(block)

    def close(self) -> None:
        self.file.close()


def _look_at_spool(spool: BinaryIO, sha256: str, name: str, role: Role | None) -> LocalFile:
    return evolve(_at_rest(partial(_Window, spool, 0), spool.tell(), name=name, role=role), sha256=sha256)
