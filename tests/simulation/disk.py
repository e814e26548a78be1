"""The disk of a simulated machine: a real folder, whose changes can fail, or be the last thing that a process does.

The times of its files are those of the machine's wall clock, in ticks, as a kernel keeps them.

What a process changes goes through here, so that a dead process changes nothing: its `finally` blocks run when its
coroutines are collected, and must have no effect. Each change counts, and a fault names the change that it is for.
"""

import errno
import io
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Self
from unittest import mock

from heygen_async.bulk import journal_claim

from .universe import Crashed, Universe

_CHANGES = ("link", "unlink", "replace", "rename", "mkdir", "rmdir")
_REMOVALS = frozenset({"unlink", "rmdir"})
_FASTER = {
    "PRAGMA journal_mode = DELETE": "PRAGMA journal_mode = MEMORY",
    "PRAGMA synchronous = FULL": "PRAGMA synchronous = OFF",
}
"""Statements that others replace: a process that dies here closes its databases, which rolls back from memory too."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_STATUS_CHANGES = frozenset({"link", "unlink", "replace", "rename"})
"""Changes of the names of a file, which are changes of its status."""
_TICK = 4_000_000
"""Nanoseconds between two times that a file can have."""
SET_TIME = 1e9
"""The time that people give to files whose content they replace."""


class FileTimes:
    """When each file was changed, by the wall clock of its machine; times that somebody has set are left alone.

    Args:
        universe: Whose wall clock counts.
    """

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._written: dict[int, int] = {}
        self._changed: dict[int, int] = {}

    def note_written(self, inode: int) -> None:
        """Note that the content of a file changes now."""
        self._written[inode] = self._now()
        self.note_changed(inode)

    def note_opened(self, found: os.stat_result) -> None:
        """Note that a file is opened for writing; if it is empty it is new, or was truncated."""
        if not found.st_size:
            self.note_written(found.st_ino)

    def note_changed(self, inode: int) -> None:
        """Note that a file is changed now, but not its content."""
        self._changed[inode] = self._now()

    def seen(self, found: os.stat_result) -> os.stat_result:
        """Return what the simulated machine says of a file, of which this one says *found*."""
        changed = self._changed.get(found.st_ino)
        if changed is None:
            return found
        is_set = found.st_mtime == SET_TIME
        written = found.st_mtime_ns if is_set else self._written.get(found.st_ino, changed)
        times = (found.st_atime, written / 1e9, changed / 1e9)
        extra = dict(zip(("st_atime", "st_mtime", "st_ctime"), times, strict=True))
        extra |= {"st_atime_ns": found.st_atime_ns, "st_mtime_ns": written, "st_ctime_ns": changed}
        return os.stat_result((*found[:7], *map(int, times)), extra)

    def _now(self) -> int:
        return int(self._universe.wall() * 1e9) // _TICK * _TICK


class Disk:
    """What a life does to files.

    Args:
        universe: Where the life is.
        folder: The folder that counts; other files are left alone.
        times: When each file was changed, in this life and before.
    """

    def __init__(self, universe: Universe, folder: Path, times: FileTimes) -> None:
        self.universe = universe
        self.times = times
        self.folder = f"{folder}{os.sep}"
        self.changes = 0
        self.is_others = False
        """Whether other people change files, whose changes do not count."""
        self.crash_at: int | None = None
        """The number of the change before which the process dies."""
        self.full: range = range(0)
        """The numbers of the changes that fail because the disk is full."""
        self.statements = 0
        self.full_statements: range = range(0)
        """The same for the statements that write into databases."""
        self.open_files: list[_File] = []
        self.databases: list[_Database] = []

    def change(self, what: str, *, needs_space: bool = True) -> None:
        """Count a change that is about to be made.

        Args:
            what: What is changed.
            needs_space: Whether a full disk refuses it.

        Raises:
            Crashed: If the process is dead, or dies of it.
            OSError: If the disk is full.
        """
        if self.universe.is_dead:
            raise Crashed
        if self.is_others:
            return
        self.changes += 1
        if self.changes == self.crash_at:
            self.universe.note(f"the process dies before change {self.changes} of a file: {what}")
            self.universe.is_dead = True
            raise Crashed
        if needs_space and self.changes in self.full:
            self.universe.note(f"the disk is full at change {self.changes}: {what}")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def by_people(self, change: Callable[[], None]) -> None:
        """Let other people change files."""
        self.is_others = True
        try:
            change()
        finally:
            self.is_others = False

    def statement(self, text: str) -> None:
        """Count a statement of a database.

        Raises:
            sqlite3.OperationalError: If the disk is full.
        """
        if self.universe.is_dead:
            raise Crashed
        if text[:6] in {"INSERT", "DELETE"}:
            self.statements += 1
            if self.statements in self.full_statements:
                self.universe.note(f"the disk is full at statement {self.statements}")
                raise sqlite3.OperationalError("database or disk is full")

    def counts(self, path: object) -> bool:
        """Return whether *path* is in the folder of the simulation."""
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self.folder)

    def die(self) -> None:
        """Close everything as the kernel does when a process dies."""
        for database in self.databases:
            sqlite3.Connection.close(database)  # an open transaction is rolled back
        for file in self.open_files:
            file.real.close()
        journal_claim.release_all()

    def leftovers(self) -> list[str]:
        """Return what is still open."""
        files = [f"the file {file.name}" for file in self.open_files if not file.real.closed]
        return files + ["a database" for database in self.databases if not database.is_closed]

    @contextmanager
    def mounted(self) -> Iterator[None]:  # noqa: C901 one function for each way to change a file
        """Let the code of this process work on this disk."""
        real_fdopen, real_open, real_io_open, real_connect = os.fdopen, os.open, io.open, sqlite3.connect
        real_stat, real_fstat, real_lstat = os.stat, os.fstat, cache(os.lstat)
        names: dict[int, str] = {}

        def changing(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def changed(path: object, *args: Any, **kwargs: Any) -> object:
                if not self.counts(path):
                    return real(path, *args, **kwargs)
                self.change(f"{name} {_name(path)}", needs_space=name not in _REMOVALS)
                if name in _STATUS_CHANGES:
                    self.times.note_changed(real_stat(path, follow_symlinks=False).st_ino)
                return real(path, *args, **kwargs)

            return changed

        def opened(path: object, flags: int, *args: Any, **kwargs: Any) -> int:
            if not self.counts(path) or not flags & _WRITES:
                handle = real_open(path, flags, *args, **kwargs)
                names.pop(handle, None)  # the number of a file that was closed
                return handle
            self.change(f"open {_name(path)}")
            handle = real_open(path, flags, *args, **kwargs)
            names[handle] = os.fspath(path)
            self.times.note_opened(real_fstat(handle))
            return handle

        def file_of(handle: int, *args: Any, **kwargs: Any) -> object:
            raw = real_fdopen(handle, *args, **kwargs)
            name = names.pop(handle, None)
            return raw if name is None else _File(raw, self, name)

        def io_opened(path: object, mode: str = "r", *args: Any, **kwargs: Any) -> object:
            if not self.counts(path) or not set(mode) & set("wxa+"):
                return real_io_open(path, mode, *args, **kwargs)
            self.change(f"open {_name(path)}")
            return _File(real_io_open(path, mode, *args, **kwargs), self, os.fspath(path))

        def looked_at(path: Any, **kwargs: Any) -> os.stat_result:
            # Whoever resolves a path looks at each of its parents: those outside never change.
            is_old = not kwargs and not self.counts(path)
            return real_lstat(path) if is_old else self.times.seen(real_stat(path, follow_symlinks=False))

        def seen(path: Any, **kwargs: Any) -> os.stat_result:
            return self.times.seen(real_stat(path, **kwargs))

        def seen_open(handle: int) -> os.stat_result:
            return self.times.seen(real_fstat(handle))

        def connected(path: object, **kwargs: Any) -> sqlite3.Connection:
            if self.universe.is_dead:
                raise Crashed
            return real_connect(path, factory=partial(_Database, disk=self), **kwargs)

        patches: dict[str, object] = {name: changing(name) for name in _CHANGES}
        patches |= {"open": opened, "fdopen": file_of, "stat": seen, "fstat": seen_open, "lstat": looked_at}
        with (
            mock.patch.multiple(os, **patches),
            mock.patch.object(io, "open", io_opened),
            mock.patch.object(tempfile, "tempdir", f"{self.folder}tmp"),
            mock.patch.object(sqlite3, "connect", connected),
        ):
            yield


class _File:
    """A file that is open for writing."""

    def __init__(self, raw: Any, disk: Disk, name: str) -> None:
        self.real = raw
        self.name = _name(name)
        self._disk = disk
        found = os.fstat(raw.fileno())
        self._inode = found.st_ino
        disk.open_files.append(self)
        disk.times.note_opened(found)

    def write(self, data: bytes) -> int:
        self._disk.change(f"write {self.name}")
        self._disk.times.note_written(self._inode)
        return self.real.write(data)

    def truncate(self, *args: int) -> int:
        self._disk.change(f"truncate {self.name}")
        self._disk.times.note_written(self._inode)
        return self.real.truncate(*args)

    def close(self) -> None:
        if self._disk.universe.is_dead:
            raise Crashed
        self.real.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Database(sqlite3.Connection):
    """A database of which each statement counts."""

    def __init__(self, *args: Any, disk: Disk, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_closed = False
        self._disk = disk
        disk.databases.append(self)

    def execute(self, text: str, *args: Any) -> sqlite3.Cursor:
        self._disk.statement(text)
        return super().execute(_FASTER.get(text, text), *args)

    def executemany(self, text: str, *args: Any) -> sqlite3.Cursor:
        self._disk.statement(text)
        return super().executemany(text, *args)

    def close(self) -> None:
        self.is_closed = True
        super().close()


def _name(path: Any) -> str:
    return os.fspath(path).rpartition(os.sep)[2]
