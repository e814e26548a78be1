"""The SQLite file of a journal: found or created, checked, locked, converted, marked as open, closed.

Nothing here is asynchronous: `journal` calls all of it in one thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import define, field

from heygen_async._text import one_line
from heygen_async.bulk.journal_claim import Claim
from heygen_async.bulk.journal_format import (
    APPLICATION,
    FIRST_VERSION,
    VERSION,
    convert_first_version,
    create_tables,
    fact,
    keep_fact,
)
from heygen_async.bulk.store import JournalError

_WAL_HEADER: Final = (b"\2\2", slice(18, 20))
"""The bytes of SQLite's header that say that the database uses a write-ahead log, and where they are."""

_HEADER_SIZE: Final = 100
"""The bytes of that header."""

_CACHE_KIB: Final = 16 * 1024
"""How much of the file is kept in memory at most: the indexes of a hundred thousand rows."""

_DAMAGED: Final = (
    "{name} is damaged ({problem}): move it away and run again. "
    "Jobs that were created in the last 24 hours are not paid for again, except those in batches with a callback_id of "
    "your own"
)


class JournalInUse(JournalError):
    """Raised when another run uses the journal."""

    _hint = "Wait for the other run to end, or end it, or the review page that shows it: one program at a time."


@define(eq=False)
class JournalFile:
    """A journal that is open for one run, and locked."""

    name: str
    """What messages call it."""
    db: sqlite3.Connection
    run: int
    """The number of the run, from 1."""
    _claim: Claim = field(alias="claim")
    _is_sound: bool = field(default=True, alias="is_sound")
    """Whether everything was written."""

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Use the database; errors of SQLite become `JournalError`."""
        try:
            with _translated(self.name):
                yield self.db
        except JournalError:
            self._is_sound = False  # something may not have been written
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write to the database, everything or nothing."""
        with self.reading(), _transaction(self.db):
            yield self.db

    def close(self) -> None:
        """Note that the run ended cleanly, if it did, and unlock the file."""
        try:
            if self._is_sound:
                with suppress(sqlite3.Error):  # then the next run finds that this one did not end cleanly
                    self.db.execute("DELETE FROM facts WHERE name = 'open'")
        finally:
            self.db.close()
            self._claim.release()


def open_file(path: Path | None, origin: str) -> JournalFile:
    """Open the journal at *path*, or create it, and lock it; `None` keeps it in memory.

    Raises:
        JournalInUse: If another run has locked it.
        JournalError: If it cannot be opened, is not a journal, or belongs to another origin.
    """
    name = name_of(path)
    with _claimed(path, name) as claim:
        used_wal = path is not None and _uses_wal(path)
        _take(claim, name, create=True)
        with _connected(path, name) as db:
            _create_or_convert(db, path, origin, used_wal=used_wal)
            return JournalFile(name, db, _begin_run(db, name), claim)


def open_existing(path: Path) -> JournalFile:
    """Open the journal at *path* and lock it, without a run: what is recorded of the last run stays.

    Raises:
        JournalInUse: If a run has locked it.
        JournalError: If there is none, or it cannot be opened.
    """
    name = name_of(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise JournalError(f"{name} {problem}: name the .sqlite file of a run, which is beside its manifest")
    with _claimed(path, name) as claim:
        _uses_wal(path)
        with _connected(path, name) as db:
            _check_version(db, name)
            run = int(fact(db, "runs") or 0)
            return JournalFile(name, db, run, claim, is_sound=False)  # its last end is not this one


@contextmanager
def _claimed(path: Path | None, name: str) -> Iterator[Claim]:
    """Claim the file, before anything opens it; what fails then gives it up."""
    claim = Claim(path)
    try:
        _take(claim, name)
        yield claim
    except BaseException:
        claim.release()
        raise


def _take(claim: Claim, name: str, *, create: bool = False) -> None:
    if not claim.take(create=create):
        raise JournalInUse(f"{name} is in use by another run")


@contextmanager
def _connected(path: Path | None, name: str) -> Iterator[sqlite3.Connection]:
    """Open the file and lock it; what fails then closes it."""
    with _translated(name):
        db = sqlite3.connect(path or ":memory:", timeout=0, isolation_level=None)
        try:
            _lock(db, name)
            if path is not None:
                _check_size(db, path, name)
            yield db
        except BaseException:
            db.close()
            raise


def _check_version(db: sqlite3.Connection, name: str) -> None:
    _, version, tables = _identity(db)
    if not tables:
        raise JournalError(f"{name} is empty: name the .sqlite file of a run")
    if version == FIRST_VERSION:
        raise JournalError(f"{name} was written by heygen-async 0.1: run its dub command once more, which converts it")


def name_of(path: Path | None) -> str:
    """Return what messages call the journal at *path*."""
    return "the journal in memory" if path is None else f"the journal {path}"


def check_place(path: Path) -> None:
    """Check that a journal can be at *path*.

    Raises:
        JournalError: If not.
    """
    if not path.absolute().parent.is_dir():
        raise JournalError(f"the folder of {name_of(path)} does not exist")
    if path.is_dir():
        raise JournalError(f"{name_of(path)} is a folder: name a file in it")


def _uses_wal(path: Path) -> bool:
    """Look at the files before SQLite does; return whether the journal uses a write-ahead log."""
    check_place(path)
    log = path.with_name(f"{path.name}-wal")
    mark, position = _WAL_HEADER
    head = _head(path) if path.is_file() else b""
    if head and len(head) < _HEADER_SIZE:  # SQLite would take it for a new file, which only an empty one can be
        raise JournalError(_DAMAGED.format(name=name_of(path), problem=f"it has {len(head)} bytes"))
    uses_wal = head[position] == mark
    if log.exists() and not uses_wal:
        # SQLite would apply it to this file, or delete it.
        raise JournalError(
            f"{log} is not of {name_of(path)}, but of an earlier file of that name: "
            "put that file back, or move both away to start a new journal"
        )
    return uses_wal


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_SIZE)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            raise JournalInUse(f"{name} is in use by another run") from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise JournalError(_DAMAGED.format(name=name, problem=error)) from error
        raise JournalError(f"{name} cannot be used: {error}") from error


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _lock(db: sqlite3.Connection, name: str) -> None:
    db.execute("PRAGMA locking_mode = EXCLUSIVE")  # first: a write-ahead log then needs no shared memory
    db.execute("BEGIN EXCLUSIVE")
    try:
        _check_identity(db, name)
    finally:
        db.execute("COMMIT")
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _check_identity(db: sqlite3.Connection, name: str) -> None:
    """Check that this is a journal, or an empty file, which may become one."""
    application, version, tables = _identity(db)
    if tables and application != APPLICATION:
        raise JournalError(f"{name} is a database, but not a journal of heygen-async: name another file")
    if tables and version not in {FIRST_VERSION, VERSION}:
        raise JournalError(
            f"{name} was written by another version of heygen-async (format {version}): "
            "continue it with that version, or use another journal"
        )


def _check_size(db: sqlite3.Connection, path: Path, name: str) -> None:
    """Check that the last page is whole: SQLite reads zeros where its end is missing."""
    (pages,), (page_size,) = db.execute("PRAGMA page_count").fetchone(), db.execute("PRAGMA page_size").fetchone()
    size, expected = path.stat().st_size, pages * page_size
    if size < expected:
        raise JournalError(_DAMAGED.format(name=name, problem=f"it has {size} of {expected} bytes"))


def _identity(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Return the application, the version, and the number of tables and indexes."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return application, version, tables


def _create_or_convert(db: sqlite3.Connection, path: Path | None, origin: str, *, used_wal: bool) -> None:
    """Create or convert the tables, and check that the journal belongs to *origin*."""
    _, version, tables = _identity(db)
    if not tables and used_wal:
        raise JournalError(
            f"{name_of(path)} is empty because its file {path}-wal is missing: "
            "put that back, or move both away to start a new journal"
        )
    if not tables:
        with _transaction(db):
            create_tables(db)
            keep_fact(db, "origin", origin)
    elif version == FIRST_VERSION:
        with _transaction(db):
            convert_first_version(db)
    found = fact(db, "origin")
    if found != origin:
        raise JournalError(f"{name_of(path)} belongs to {found}, not to {origin}; use another journal")


def _begin_run(db: sqlite3.Connection, name: str) -> int:
    """Record that a run begins, and whether the one before did not end cleanly; return its number."""
    opened = fact(db, "open")
    if opened is not None:
        _check_integrity(db, name)
    with _transaction(db):
        if opened is not None:  # the list is read for this end again, and keys may be as old as an earlier one
            keep_fact(db, "unclean", (fact(db, "unclean") or opened).partition(" ")[0])
        run = int(fact(db, "runs") or 0) + 1
        keep_fact(db, "runs", str(run))
        keep_fact(db, "open", repr(time.time()))
    return run


def _check_integrity(db: sqlite3.Connection, name: str) -> None:
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise JournalError(_DAMAGED.format(name=name, problem=one_line(found)))
