"""The disk of a simulated machine: a real folder, whose changes can fail, or be the last thing that a process does.

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

from .universe import Crashed, Universe

_CHANGES = ("link", "unlink", "replace", "rename", "mkdir", "rmdir")
_FASTER = {
    "PRAGMA journal_mode = DELETE": "PRAGMA journal_mode = MEMORY",
    "PRAGMA synchronous = FULL": "PRAGMA synchronous = OFF",
}
"""Statements that others replace: a process that dies here closes its databases, which rolls back from memory too."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """What a life does to files.

    Args:
        universe: Where the life is.
        folder: The folder that counts; other files are left alone.
    """

    def __init__(self, universe: Universe, folder: Path) -> None:
        self.universe = universe
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

    def change(self, what: str) -> None:
        """Count a change that is about to be made.

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
        if self.changes in self.full:
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

    def leftovers(self) -> list[str]:
        """Return what is still open."""
        files = [f"the file {file.name}" for file in self.open_files if not file.real.closed]
        return files + ["a database" for database in self.databases if not database.is_closed]

    @contextmanager
    def mounted(self) -> Iterator[None]:  # noqa: C901 one function for each way to change a file
        """Let the code of this process work on this disk."""
        real_fdopen, real_open, real_io_open, real_connect = os.fdopen, os.open, io.open, sqlite3.connect
        real_stat, real_lstat = os.stat, cache(os.lstat)
        names: dict[int, str] = {}

        def changing(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def changed(path: object, *args: Any, **kwargs: Any) -> object:
                if self.counts(path):
                    self.change(f"{name} {_name(path)}")
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
            return real_stat(path, follow_symlinks=False) if kwargs or self.counts(path) else real_lstat(path)

        def connected(path: object, **kwargs: Any) -> sqlite3.Connection:
            if self.universe.is_dead:
                raise Crashed
            return real_connect(path, factory=partial(_Database, disk=self), **kwargs)

        patches = {name: changing(name) for name in _CHANGES} | {"open": opened, "fdopen": file_of, "lstat": looked_at}
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
        disk.open_files.append(self)

    def write(self, data: bytes) -> int:
        self._disk.change(f"write {self.name}")
        return self.real.write(data)

    def truncate(self, *args: int) -> int:
        self._disk.change(f"truncate {self.name}")
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
