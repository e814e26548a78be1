"""A download on disk: `NAME.part` beside its target until it is complete, then the target itself.

`NAME.part.etag` names the lipsync and the version of the file, so that another run can resume it; whoever downloads
holds a lock on it. Everything here is for threads.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from heygen_async._media import mp4
from heygen_async._media.answers import Held
from heygen_async._media.owner import (
    SIDE_BYTES,
    is_published,
    owner_line,
    owner_problem,
    part_path,
    part_problem,
    side_path,
)
from heygen_async.errors import DownloadError

try:
    import fcntl
except ImportError:  # Windows: nothing but care keeps another process out
    fcntl = None  # type: ignore[assignment]

_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class Part:
    """The unfinished form of one file, open, and locked against other processes."""

    def __init__(self, target: Path, owner: bytes, file: BinaryIO, side: BinaryIO) -> None:
        self._target = target
        self._owner = owner
        self._file = file
        self._side = side

    @classmethod
    def open(cls, target: Path, lipsync_id: str) -> Self:
        """Open the part of *target*, made if it is missing, for the download of one lipsync.

        Raises:
            DownloadError: If it belongs to another lipsync or to somebody else, or another process writes it.
        """
        if problem := part_problem(target, lipsync_id):
            raise DownloadError(problem)
        with ExitStack() as stack:
            side = stack.enter_context(_claim(target, lipsync_id))
            file = stack.enter_context(_open(part_path(target)))
            stack.pop_all()
        return cls(target, owner_line(lipsync_id).encode(), file, side)

    def close(self) -> None:
        """Close its files, which unlocks it."""
        self._file.close()
        self._side.close()

    def held(self) -> Held:
        """Return what there is of the file; nothing, if its version is not known."""
        size = self._file.seek(0, os.SEEK_END)
        self._side.seek(len(self._owner))
        # Three parts: both lines were written to their end.
        etag, _, rest = self._side.read(SIDE_BYTES).decode("ascii", "replace").partition("\n")
        total, end, _ = rest.partition("\n")
        known = int(total) if total.isascii() and total.isdigit() else None
        if not end or not etag.startswith('"') or not etag.isprintable() or (known is not None and size > known):
            return Held()
        return Held(size, etag, known)

    def begin(self, place: int, held: Held) -> None:
        """Prepare for bytes from *place* on, of the version that *held* names."""
        # In this order: after a crash there may be bytes without a version, but never a version of other bytes.
        self._side.truncate(len(self._owner))
        self._file.truncate(place)
        self._file.seek(place)
        if held.etag is not None:
            self._side.seek(len(self._owner))
            self._side.write(f"{held.etag}\n{'' if held.total is None else held.total}\n".encode("ascii"))

    def write(self, blocks: Iterable[bytes]) -> None:
        """Write *blocks*, whole."""
        for block in blocks:
            rest = memoryview(block)
            while rest:
                rest = rest[self._file.write(rest) :]

    def flaw(self) -> str | None:
        """Return what is wrong with the whole file, though as many bytes came as were announced."""
        return mp4.cut_short(self._file)

    def publish(self, *, overwrite: bool) -> None:
        """Give the file its name, all at once.

        Raises:
            FileExistsError: If the name has been taken meanwhile, and may not be overwritten.
        """
        part = part_path(self._target)
        if fcntl is None:
            self.close()  # Windows renames and removes no open file
        if overwrite:
            part.replace(self._target)
        else:
            _publish_if_free(part, self._target)
        side_path(self._target).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it."""
        if fcntl is None:
            self.close()
        for path in (part_path(self._target), side_path(self._target)):
            with suppress(OSError):
                path.unlink()


def _claim(target: Path, lipsync_id: str) -> BinaryIO:
    """Open and lock the side file of *target*, and write the owner into it."""
    path = side_path(target)
    while True:
        side = _open(path)
        try:
            _lock(side, part_path(target))
            # Between opening and locking, another process may have finished its download and removed the file.
            if _is_at(side, path):
                _take(side, target, lipsync_id)
                return side
        except BaseException:
            side.close()
            raise
        side.close()


def _take(side: BinaryIO, target: Path, lipsync_id: str) -> None:
    if is_published(target):  # a crash between the two steps of publishing
        part_path(target).unlink()
        side.truncate(0)
    text = side.read(SIDE_BYTES).decode("ascii", "replace")
    if problem := owner_problem(target, text, lipsync_id):
        raise DownloadError(problem)
    owner = owner_line(lipsync_id)
    if not text.startswith(owner):
        side.seek(0)
        side.truncate()
        side.write(owner.encode())
        os.fsync(side.fileno())  # or a power failure could leave bytes that nobody owns


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, _FLAGS, 0o666), "r+b", buffering=0)


def _lock(side: BinaryIO, part: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(side, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DownloadError(f"{part} is being downloaded by another process") from None
    except OSError:  # some network file systems know no locks
        return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _publish_if_free(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links: take the name with an empty file, which is then replaced.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        part.replace(target)
    else:
        part.unlink()
