"""A download on disk: `NAME.part` beside its target until it is complete, then the target itself.

`NAME.part.etag`, the side file, is made before the part and removed after it. Its first line names the lipsync; the
next two, once the file host has answered, are the version of the file and its length, so that another run can resume
it. Whoever downloads holds a lock on the side file. A part without a side file, or of another lipsync, is not ours and
is never touched. Everything here is for threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from heygen_async._media.first_bytes import MOST_BLANKS, is_page
from heygen_async._media.hosts import PartState, is_strong
from heygen_async._media.mp4_boxes import cut_short
from heygen_async.errors import DownloadError

try:
    import fcntl
except ImportError:  # Windows: there is no lock against other processes
    fcntl = None  # type: ignore[assignment]

PART: Final = ".part"
SIDE: Final = ".part.etag"

_OWNER: Final = "lipsync "
_SIDE_BYTES: Final = 4096
"""More than is ever written into a side file."""

_LOCK_ATTEMPTS, _LOCK_PAUSE = 20, 0.02
"""How long to wait for the lock, the pause in seconds."""

_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def part_path(target: Path) -> Path:
    """Return where the unfinished form of *target* is."""
    return target.with_name(target.name + PART)


def side_path(target: Path) -> Path:
    """Return where the owner and the version of the unfinished form of *target* are."""
    return target.with_name(target.name + SIDE)


def owner_line(lipsync_id: str) -> str:
    """Return the first line of a side file."""
    return f"{_OWNER}{lipsync_id}\n"


def part_problem(target: Path, lipsync_id: str | None) -> str | None:
    """Return why the unfinished form of *target* must not be touched; `None` if it is free, or of this lipsync.

    Args:
        target: The file that it is to become.
        lipsync_id: The lipsync; `None` for one that does not exist yet.
    """
    side = side_path(target)
    for path in (part_path(target), side):
        found = _lstat(path)
        if found is not None and not stat.S_ISREG(found.st_mode):
            return f"cannot write {path}: it is {'a folder' if stat.S_ISDIR(found.st_mode) else 'not a regular file'}"
    if _lstat(side) is None:
        return owner_problem(target, "", lipsync_id)
    try:
        with side.open("rb") as file:
            return owner_problem(target, file.read(_SIDE_BYTES).decode("utf-8", "replace"), lipsync_id)
    except OSError as error:
        return f"cannot read {side}: {error.strerror or error}"


def owner_problem(target: Path, side_text: str, lipsync_id: str | None) -> str | None:
    """Return why the unfinished form of *target*, whose side file contains *side_text*, must not be touched."""
    part, side = part_path(target), side_path(target)
    first, newline, _ = side_text.partition("\n")
    owner = first.removeprefix(_OWNER) if newline and first.startswith(_OWNER) else None
    if _lstat(part) is None:  # there are no bytes to lose
        return _foreign(side) if side_text and owner is None else None
    if owner is None:
        return _foreign(part)
    if owner == lipsync_id or _is_published(target):
        return None
    return (
        f"{part} is an unfinished download of lipsync {owner}; finish that download to {target}, "
        f"or remove it and {side.name}"
    )


def _is_published(target: Path) -> bool:
    """Return whether the part and *target* are two names of one file, as a crash at the end of a download leaves."""
    try:
        return part_path(target).samefile(target)
    except OSError:
        return False


def remove_leftovers(target: Path) -> None:
    """Remove what downloads of a lipsync leave beside *target* once that is there.

    A crash at the end of a download leaves the other name of the file, and the side file. A download that could not be
    published, because another process was first, leaves a copy. The caller has checked that they are its own. What
    cannot be removed stays: the file is there, whatever is beside it.
    """
    with suppress(OSError):
        if _is_published(target) or not is_in_use(target):
            part_path(target).unlink(missing_ok=True)
        if _lstat(part_path(target)) is None:
            side_path(target).unlink(missing_ok=True)


def remove_unneeded(target: Path, lipsync_id: str) -> None:
    """Remove an unfinished download of a lipsync if *target* is there: another process has finished it."""
    if _lstat(target) is not None and part_problem(target, lipsync_id) is None:
        remove_leftovers(target)


def _foreign(path: Path) -> str:
    return f"{path} exists and is not an unfinished download of this lipsync; move or remove it"


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:  # it is not there, or its name is too long to be
        return None


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

    def state(self) -> PartState:
        """Return how much of the file there is; nothing, if its version is not known."""
        size = self._file.seek(0, os.SEEK_END)
        self._side.seek(len(self._owner))
        # Three parts: both lines were written to their end.
        etag, _, rest = self._side.read(_SIDE_BYTES).decode("utf-8", "replace").partition("\n")
        total, end, _ = rest.partition("\n")
        known = int(total) if total.isascii() and total.isdigit() else None
        if not end or not is_strong(etag) or (known is not None and size > known) or self._may_be_page():
            return PartState()
        return PartState(size, etag, known)

    def _may_be_page(self) -> bool:
        """Return whether its bytes may be the start of a page: earlier versions wrote some of those."""
        self._file.seek(0)
        return is_page(self._file.read(MOST_BLANKS)) is not False

    def begin(self, start: int, state: PartState) -> None:
        """Prepare for bytes from *start* on, of the version that *state* names."""
        # In this order: after a crash there may be bytes without a version, but never a version of other bytes.
        self._side.truncate(len(self._owner))
        self._file.truncate(start)
        self._file.seek(start)
        if state.etag is not None:
            self._side.seek(len(self._owner))
            self._side.write(f"{state.etag}\n{'' if state.total is None else state.total}\n".encode())

    def write(self, blocks: Iterable[bytes]) -> None:
        """Write *blocks*, whole."""
        for block in blocks:
            rest = memoryview(block)
            while rest:
                rest = rest[self._file.write(rest) :]

    def flaw(self) -> str | None:
        """Return what is wrong with the whole file, though as many bytes came as were announced."""
        return cut_short(self._file)

    def publish(self, *, overwrite: bool) -> None:
        """Give the file its name, all at once.

        Raises:
            FileExistsError: If the name has been taken meanwhile, and may not be overwritten.
            DownloadError: If somebody else has removed or replaced the unfinished file.
            OSError: If its bytes cannot be written to the disk, or its name cannot be changed.
        """
        part = part_path(self._target)
        os.fsync(self._file.fileno())  # or a power failure could leave a complete name without its bytes
        if not _is_at(self._file, part):  # now, because that takes its time
            self.discard()
            raise DownloadError(f"{part} was removed or replaced by another program; download to {self._target} again")
        if fcntl is None:
            self.close()  # Windows renames and removes no open file
        _publish(part, self._target, overwrite=overwrite)
        side_path(self._target).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it and its side file, but not what somebody else has put in their place."""
        part, side = part_path(self._target), side_path(self._target)
        paths = [path for file, path in ((self._file, part), (self._side, side)) if _is_at(file, path)]
        if fcntl is None:
            self.close()
        for path in paths:
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
    text = side.read(_SIDE_BYTES).decode("utf-8", "replace")
    if problem := owner_problem(target, text, lipsync_id):
        raise DownloadError(problem)
    if _is_published(target):
        part_path(target).unlink()
    owner = owner_line(lipsync_id)
    if not text.startswith(owner):
        side.seek(0)
        side.truncate()
        side.write(owner.encode())
        os.fsync(side.fileno())  # or a power failure could leave bytes without an owner


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, _FLAGS, 0o666), "r+b", buffering=0)


def _lock(side: BinaryIO, part: Path) -> None:
    if fcntl is None:
        return
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(side, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a cancelled download holds it until its last block is written
            time.sleep(_LOCK_PAUSE)
        except OSError:  # some network file systems have no locks
            return
        else:
            return
    raise DownloadError(f"{part} is being downloaded by another process", is_transient=True)


def is_in_use(target: Path) -> bool:
    """Return whether a process holds the unfinished form of *target*."""
    try:
        with side_path(target).open("rb") as side:
            if fcntl is not None:
                fcntl.flock(side, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is not there, or the file system has no locks
        return False
    return False


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_whole(target: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a small file, which appears all at once.

    Raises:
        FileExistsError: If the name is taken, and may not be overwritten, or if another process writes the same file.
        OSError: If it cannot be written.
    """
    temporary = _temporary(target)
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            if not _is_at(file, temporary):
                raise FileExistsError(errno.EEXIST, "another process writes the same file", str(target))
        _publish(temporary, target, overwrite=overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unwritten(target: Path) -> None:
    """Remove what a process leaves that is killed while it writes a small file, if that is possible."""
    with suppress(OSError):
        _temporary(target).unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    # One name for a target, so that the next write finds what is left.
    name = hashlib.blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
    return target.with_name(f".heygen-{name}{PART}")


def _publish(part: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite:
        part.replace(target)
        return
    try:
        os.link(part, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        # Perhaps it has no links, which each file system and each system of permissions reports in its own way: take
        # the name with an empty file, which is then replaced.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            part.replace(target)
        except OSError:
            target.unlink(missing_ok=True)  # or our own empty file would be in the way of the next download
            raise
    else:
        part.unlink()
