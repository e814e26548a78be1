"""Which journals this process has open, and a lock on each that nothing else in the process can end.

SQLite's own lock is not enough: it is a POSIX lock, and a process loses all of those that it has on a file as soon as
it closes any descriptor of that file: one that looked at its header, or one that a backup was read from.

Rule 1: a file that this process has claimed is not opened again. It is recognised by its device and inode.
Rule 2: on Linux a claim has a lock of its own descriptor, which ends with that descriptor only. It is on a byte that
SQLite neither locks nor uses: a lock on the whole file, as `flock` makes it on network file systems, would keep SQLite
out.
Rule 3: a claim comes before SQLite reads the file: without a lock, SQLite takes the transaction of another process for
one that was interrupted, and rolls it back.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Final
from weakref import WeakValueDictionary

from attrs import define, field

if sys.platform == "linux":
    import fcntl

_BYTE: Final = 0x4000_0400
"""The byte that is locked: in the page that SQLite leaves out for its own locks, behind those."""

_lock: Final = RLock()  # held for a few calls of the system; a claim may be collected, and so released, within them


@define(eq=False)
class Claim:
    """The claim of this process on one file; without a path, the file is in memory, and nobody else can have it.

    Args:
        path: The file.
    """

    _path: Path | None
    _inode: tuple[int, int] | None = field(default=None, init=False)
    _descriptor: int | None = field(default=None, init=False)
    """What has the lock; only on Linux."""

    def take(self, *, create: bool = False) -> bool:
        """Claim the file, unless that is done already; return whether nobody else has it.

        Args:
            create: Whether to create the file if there is none; otherwise there is nothing to claim then.
        """
        if self._path is None or self._inode is not None:
            return True
        with _lock:
            if create:
                _create(self._path)
            try:
                found = os.stat(self._path)  # noqa: PTH116 as below
            except OSError:
                return True  # there is none; if it cannot be created, SQLite says why
            inode = found.st_dev, found.st_ino
            if inode in _claims:
                return False
            self._inode, _claims[inode] = inode, self
            return self._lock_file(self._path)

    def _lock_file(self, path: Path) -> bool:
        if sys.platform != "linux":
            return True
        try:
            self._descriptor = os.open(path, os.O_RDWR)
            lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            self.release()
            return False
        except OSError:
            pass  # not every file system has such locks; where the file cannot be written to, SQLite says so
        return True

    def release(self) -> None:
        """Give the file up, once SQLite has closed it."""
        with _lock:
            if self._inode is not None and _claims.get(self._inode) is self:
                del _claims[self._inode]
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)

    def __del__(self) -> None:
        self.release()


_claims: Final[WeakValueDictionary[tuple[int, int], Claim]] = WeakValueDictionary()
"""The claims of this process by device and inode. A run that nobody has ended, and nobody refers to, has none."""


def _create(path: Path) -> None:
    """Create the file as SQLite does, if there is none."""
    with suppress(OSError):
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))


def release_all() -> None:
    """Give up all claims, as the end of a process does; a child is another process, though it has the descriptors."""
    for claim in list(_claims.values()):
        claim.release()


def _begin_child() -> None:
    release_all()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_begin_child)
