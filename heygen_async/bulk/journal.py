"""The journal: the record of each row of a bulk run, in a file that survives a crash at any moment.

Rule 1: SQLite is used in one thread, never on the event loop. A write that was started is completed, even if the
task that waits for it is cancelled.
Rule 2: each write is on the disk before it returns (a rollback journal, `synchronous=FULL`), so the main file is
always complete by itself.
Rule 3: one run at a time, by SQLite's own exclusive lock, which ends with the process however that ends.
Rule 4: no secret and no link is written down. What is sent is kept as a digest.
Rule 5: the fact `open` is there from the opening of the file to its clean end. A run that finds it may miss the last
writes of the run before, and creates nothing before it has compared its keys with the list of jobs.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import attrs
import orjson
from attrs import define, field

from heygen_async._text import one_line
from heygen_async.bulk.entries import admitted
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.record import Record, State, first_version_key
from heygen_async.bulk.store import Admission, Entry, JournalError, Problem, shown

P = ParamSpec("P")
T = TypeVar("T")

_APPLICATION: Final = 0x48474A31  # "HGJ1", which marks a database as a journal
_VERSION: Final = 2
_FIRST_VERSION: Final = 1
_WAL_HEADER: Final = (b"\2\2", slice(18, 20))
"""The bytes of SQLite's header that say that the database uses a write-ahead log, and where they are."""

_COLUMNS: Final = tuple(one.name for one in attrs.fields(Record) if one.metadata.get("saved", True))

_SCHEMA: Final = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows ({", ".join(_COLUMNS)}, run INTEGER NOT NULL, PRIMARY KEY (key));
CREATE INDEX rows_by_number ON rows (run, number);
CREATE INDEX rows_by_job ON rows (lipsync_id) WHERE lipsync_id IS NOT NULL;
CREATE TABLE claims (claim TEXT PRIMARY KEY, key TEXT NOT NULL, place TEXT NOT NULL, run INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE assets (digest TEXT PRIMARY KEY, asset_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE listed (lipsync_id TEXT PRIMARY KEY, callback_id TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX listed_by_callback ON listed (callback_id);
CREATE TABLE files (path TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, digest TEXT NOT NULL, seconds REAL) WITHOUT ROWID;
"""

_SAVE: Final = (
    f"INSERT INTO rows ({', '.join(_COLUMNS)}, run) VALUES ({', '.join('?' * len(_COLUMNS))}, ?) "  # noqa: S608 names of ours
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in (*_COLUMNS, 'run'))}"
)
_LOAD: Final = f"SELECT {', '.join(_COLUMNS)} FROM rows"  # noqa: S608 names of ours

_DAMAGED: Final = (
    "{journal} is damaged ({problem}): move it away and run again. "
    "Jobs that were created in the last 24 hours are not paid for again"
)


class JournalInUse(JournalError):
    """Raised when another run uses the journal."""

    hint = "Wait for the other run to end, or end it: a journal is used by one run at a time."


def _in_thread(
    work: Callable[Concatenate[Journal, P], T],
) -> Callable[Concatenate[Journal, P], Coroutine[Any, Any, T]]:
    async def call(journal: Journal, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await journal.in_turn(partial(work, journal, *args, **kwargs))

    update_wrapper(call, work)
    return call


@define
class _Commit:
    """Records that are written in one transaction."""

    records: list[Record] = field(factory=list)
    done: asyncio.Future[None] | None = None


class Journal:
    """The journal of one run: open it, use it, close it.

    Every method raises `JournalError` if the file cannot be read or written, at a full disk for instance.

    Args:
        path: The file; `None` keeps the journal in memory.
        origin: The address of the API. A journal belongs to one, so that a rehearsal never counts as the real run.
    """

    def __init__(self, path: Path | None, *, origin: str) -> None:
        self._path = path
        self.origin = origin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heygen-journal")
        self._db: sqlite3.Connection
        self._run = 0
        self._is_sound = False
        self._joining = threading.Lock()  # held for a few instructions only
        self._waiting: _Commit | None = None

    async def in_turn(self, job: Callable[[], T]) -> T:
        """Do *job* in the journal's thread, after all that was begun before."""
        # The job is in the thread's queue before the first await, and shielded there: the future of a job that has
        # not begun, if it were cancelled, would take the job out of the queue.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, job))

    async def open(self) -> None:
        """Open the file, or make it, and lock it.

        Raises:
            JournalInUse: If another run has it.
            JournalError: If it cannot be opened, is no journal, or belongs to another origin.
        """
        try:
            await self.in_turn(self._open)
        except BaseException:
            self._let_go()
            raise

    async def aclose(self) -> None:
        """Write what is still to be written, and let the file go; cancelled, it does so all the same."""
        await asyncio.shield(self._let_go())

    def _let_go(self) -> asyncio.Future[None]:
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        return closing

    def _open(self) -> None:
        with self._translated():
            used_wal = self._examine()
            self._db = sqlite3.connect(self._path or ":memory:", timeout=0, isolation_level=None)
            self._lock()
            self._settle(used_wal=used_wal)
            self._mark_open()
        self._is_sound = True

    def _examine(self) -> bool:
        """Look at the files before SQLite does; return whether the journal uses a write-ahead log."""
        if self._path is None:
            return False
        if not self._path.absolute().parent.is_dir():
            raise JournalError(f"the folder of {self} does not exist")
        if self._path.is_dir():
            raise JournalError(f"{self} is a folder: name a file in it")
        log = self._path.with_name(f"{self._path.name}-wal")
        mark, place = _WAL_HEADER
        uses_wal = self._path.is_file() and _head(self._path)[place] == mark
        if log.exists() and not uses_wal:
            # SQLite would apply it to this file, or delete it.
            raise JournalError(
                f"{log} is not of {self}, but of an earlier file of that name: "
                "put that file back, or move both away to start a new journal"
            )
        return uses_wal

    def _close(self) -> None:
        if not hasattr(self, "_db"):
            return
        try:
            if self._is_sound:
                with suppress(sqlite3.Error):  # then the next run finds that this one did not end cleanly
                    self._db.execute("DELETE FROM facts WHERE name = 'open'")
        finally:
            self._db.close()

    def _lock(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # first: a write-ahead log then needs no shared memory
        self._db.execute("BEGIN EXCLUSIVE")
        try:
            self._check()
        finally:
            self._db.execute("COMMIT")
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("PRAGMA synchronous = FULL")

    def _check(self) -> None:
        """Check that this is a journal of ours, or an empty file, which may become one."""
        application, version, tables = self._identity()
        if tables and application != _APPLICATION:
            raise JournalError(f"{self._path} is a database, but not a journal of heygen-async")
        if tables and version not in {_FIRST_VERSION, _VERSION}:
            raise JournalError(f"{self} was written by another version of heygen-async (format {version})")

    def _identity(self) -> tuple[int, int, int]:
        """Return the application, the version, and the number of tables and indexes."""
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return application, version, tables

    def _settle(self, *, used_wal: bool) -> None:
        """Create or convert the tables, and check that the journal belongs to the origin."""
        _, version, tables = self._identity()
        if not tables and used_wal:
            raise JournalError(
                f"{self} is empty because its file {self._path}-wal is missing: "
                "put that back, or move both away to start a new journal"
            )
        if not tables:
            with self._transaction():
                self._create_tables()
                self._keep_fact("origin", self.origin)
        elif version == _FIRST_VERSION:
            with self._transaction():
                self._convert()
        found = self._fact("origin")
        if found != self.origin:
            raise JournalError(f"{self} belongs to {found}, not to {self.origin}; use another journal")

    def _create_tables(self) -> None:
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)

    def _convert(self) -> None:
        """Convert a journal of the first version. It has no record of a clean end, so it counts as unclean."""
        kept = {}
        for table in ("facts", "claims", "assets"):
            kept[table] = self._db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 names of ours
        cursor = self._db.execute("SELECT * FROM rows ORDER BY rowid")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, values, strict=True)) for values in cursor]
        for table in ("rows", "files", *kept):
            self._db.execute(f"DROP TABLE {table}")
        self._create_tables()
        for table, values in kept.items():
            for one in values:
                self._db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(one))})", one)  # noqa: S608
        for row in rows:
            self._run = int(row.pop("run"))
            self._save(_first_version_record(row))
        self._keep_fact("unclean", "0")
        self._keep_fact("legacy", "1")

    def _mark_open(self) -> None:
        """Begin a run, and keep in mind if the one before did not end cleanly."""
        opened = self._fact("open")
        if opened is not None:
            self._check_integrity()
        with self._transaction():
            if opened is not None and self._fact("unclean") is None:
                self._keep_fact("unclean", opened)
            self._run = int(self._fact("runs") or 0) + 1
            self._keep_fact("runs", str(self._run))
            self._keep_fact("open", repr(time.time()))

    def _check_integrity(self) -> None:
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise JournalError(_DAMAGED.format(journal=self, problem=one_line(found)))

    def _fact(self, name: str) -> str | None:
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def _keep_fact(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_BUSY:
                raise JournalInUse(f"{self} is in use by another run") from error
            self._is_sound = False  # something may not have been written
            if code == sqlite3.SQLITE_CORRUPT:
                raise JournalError(_DAMAGED.format(journal=self, problem=error)) from error
            raise JournalError(f"{self} cannot be used: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @_in_thread
    def admit(self, entries: Sequence[Entry]) -> list[Admission]:
        """Admit rows to the run: return the record of each, or why it cannot be admitted."""
        with self._transaction():
            return [self._admit(entry) for entry in entries]

    def _admit(self, entry: Entry) -> Admission:
        found = self._conflict(entry) or admitted(entry, self._find(entry.key))
        if isinstance(found, str):
            return Problem(entry.place, found)
        for claim in (f"key {entry.key}", *entry.claims):
            self._db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (claim, entry.key, entry.place, self._run)
            )
        self._save(found)
        return found

    def _conflict(self, entry: Entry) -> str | None:
        for claim in (f"key {entry.key}", *entry.claims):
            taken = self._db.execute(
                "SELECT place FROM claims WHERE claim = ? AND run = ? AND place != ?", (claim, self._run, entry.place)
            ).fetchone()
            if taken is not None:
                return f"duplicate of {taken[0]}: the same {claim}"
        return None

    def _find(self, key: str) -> Record | None:
        found = self._db.execute(f"{_LOAD} WHERE key = ?", (key,)).fetchone()
        return None if found is None else _record(found)

    @_in_thread
    def records(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """Return the records of the rows with these keys, by key."""
        found = self._select("key IN (SELECT value FROM json_each(?))", orjson.dumps(keys).decode())
        return {record.key: record for record in found}

    async def save(self, *records: Record) -> None:
        """Save records, all of them or none; saves that wait for the disk share one transaction."""
        with self._joining:
            commit = self._waiting
            if commit is None:
                commit = self._waiting = _Commit()
            commit.records += records
        if commit.done is None:
            commit.done = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, commit)
        try:
            await asyncio.shield(commit.done)
        except JournalError as error:
            raise error.fresh() from error

    def _commit(self, commit: _Commit) -> None:
        with self._joining:
            self._waiting = None
        with self._transaction():
            for record in commit.records:
                self._save(record)

    def _save(self, record: Record) -> None:
        self._db.execute(_SAVE, (*_values(record), self._run))

    @_in_thread
    def in_doubt(self) -> list[Record]:
        """Return the rows for which it is not known whether there is a job."""
        return self._select("state = ?", State.SUBMITTING)

    @_in_thread
    def batch_size(self, batch: str) -> int:
        """Return how many rows were recorded for the batch with this key."""
        return len(self._select("batch = ?", batch))

    @_in_thread
    def known_jobs(self, lipsync_ids: Sequence[str]) -> set[str]:
        """Return those of the jobs that belong to a row."""
        return self._known_jobs(lipsync_ids)

    def _known_jobs(self, lipsync_ids: Sequence[str]) -> set[str]:
        with self._translated():
            wanted = orjson.dumps(lipsync_ids).decode()
            found = self._db.execute(
                "SELECT lipsync_id FROM rows WHERE lipsync_id IN (SELECT value FROM json_each(?)) "
                "UNION SELECT old.value FROM rows, json_each(rows.earlier) AS old "
                "WHERE rows.earlier != '[]' AND old.value IN (SELECT value FROM json_each(?))",
                (wanted, wanted),
            )
            return {lipsync_id for (lipsync_id,) in found}

    @_in_thread
    def keep_listed(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Keep jobs that were seen in the list: their ids and callback ids."""
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?)", jobs)

    @_in_thread
    def listed(self, callback_ids: Sequence[str]) -> list[tuple[str, str]]:
        """Return the listed jobs with one of the callback ids that belong to no row: their ids and callback ids."""
        with self._translated():
            found = self._db.execute(
                "SELECT lipsync_id, callback_id FROM listed WHERE callback_id IN (SELECT value FROM json_each(?))",
                (orjson.dumps(callback_ids).decode(),),
            ).fetchall()
        known = self._known_jobs([lipsync_id for lipsync_id, _ in found]) if found else set()
        return [(lipsync_id, callback_id) for lipsync_id, callback_id in found if lipsync_id not in known]

    @_in_thread
    def fact(self, name: str) -> str | None:
        """Return a fact of the journal as a whole, such as the account that it belongs to."""
        with self._translated():
            return self._fact(name)

    @_in_thread
    def keep_fact(self, name: str, value: str) -> None:
        """Save a fact."""
        with self._transaction():
            self._keep_fact(name, value)

    @_in_thread
    def reconciled(self, anchor: str | None) -> None:
        """Record that all jobs up to *anchor*, the newest one, are listed: no write of an earlier run is missed."""
        with self._transaction():
            self._db.execute("DELETE FROM facts WHERE name = 'unclean'")
            if anchor is not None:
                self._keep_fact("anchor", anchor)

    @_in_thread
    def estimate(self) -> float:
        """Return the estimated cost of all jobs on this journal, in dollars."""
        with self._translated():
            return float(self._db.execute("SELECT total(estimate) FROM rows").fetchone()[0])

    @_in_thread
    def asset(self, digest: str) -> str | None:
        """Return the id under which the content with *digest* was uploaded."""
        with self._translated():
            found = self._db.execute("SELECT asset_id FROM assets WHERE digest = ?", (digest,)).fetchone()
            return None if found is None else str(found[0])

    @_in_thread
    def keep_asset(self, digest: str, asset_id: str) -> None:
        """Save the asset of an uploaded content."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO assets VALUES (?, ?)", (digest, asset_id))

    @_in_thread
    def forget_assets(self, asset_ids: Sequence[str]) -> None:
        """Forget assets that the server no longer has."""
        with self._transaction():
            self._db.executemany("DELETE FROM assets WHERE asset_id = ?", [(one,) for one in asset_ids])

    @_in_thread
    def file_info(self, paths: Sequence[str]) -> Mapping[str, FileInfo]:
        """Return what was last read from the files at *paths*."""
        with self._translated():
            found = self._db.execute(
                "SELECT path, fingerprint, digest, seconds FROM files WHERE path IN (SELECT value FROM json_each(?))",
                (orjson.dumps(paths).decode(),),
            )
            return {path: FileInfo(*facts) for path, *facts in found}

    @_in_thread
    def keep_file_info(self, facts: Mapping[str, FileInfo]) -> None:
        """Save what was read from files, by path."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(path, one.fingerprint, one.digest, one.seconds) for path, one in facts.items()],
            )

    @_in_thread
    def rows(self, after: int, limit: int) -> list[Record]:
        """Return rows of this run in order, the first *limit* after row number *after*."""
        return self._select("run = ? AND number > ? ORDER BY number LIMIT ?", self._run, after, limit)

    def _select(self, where: str, *values: str | int) -> list[Record]:
        with self._translated():
            return [_record(row) for row in self._db.execute(f"{_LOAD} WHERE {where}", values)]

    def __str__(self) -> str:
        return "the journal in memory" if self._path is None else f"the journal {self._path}"


def _values(record: Record) -> Iterator[object]:
    for name in _COLUMNS:
        value = getattr(record, name)
        if name == "earlier":
            value = orjson.dumps(value).decode()
        elif name == "error" and value is not None:
            value = shown(value)
        yield value


def _record(values: Sequence[object]) -> Record:
    fields = dict(zip(_COLUMNS, values, strict=True))
    fields["state"] = State(str(fields["state"]))
    fields["earlier"] = tuple(orjson.loads(str(fields["earlier"])))
    for name in ("is_final", "captions_free"):
        fields[name] = bool(fields[name])
    return Record(**fields)  # type: ignore[arg-type]  # written by _values


def _first_version_record(row: dict[str, object]) -> Record:
    """Return a record of the first version: the first attempt had the row's key, later ones `KEY.NUMBER`."""
    key, attempt = str(row["key"]), int(str(row["attempt"]))
    was_writing = row.pop("is_writing")
    target = row["target"]
    added: dict[str, object] = {
        "attempt_key": None if row["body"] is None else first_version_key(key, attempt),
        "forgiven": 0,
        "writing_to": os.path.abspath(str(target)) if was_writing and target is not None else None,  # noqa: PTH100
        "written": None,
        "captions_free": 0,
        "version": 0,
    }
    row.update(added)
    return _record([row[name] for name in _COLUMNS])


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(100)
