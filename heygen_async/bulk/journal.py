"""The journal: what each row of a bulk run has reached, in a file that survives a crash at any moment.

Rule 1: SQLite is used in one thread, never on the event loop. A write that was begun is carried out, even if the
task that asked for it is cancelled.
Rule 2: each write is on the disk before it returns (WAL, `synchronous=FULL`).
Rule 3: one run at a time, by SQLite's own exclusive lock, which ends with the process however that ends.
Rule 4: no secret and no link is written down. What is sent is kept as a digest.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import attrs
import orjson
from attrs import evolve, field, frozen

from heygen_async._text import one_line
from heygen_async.bulk.identity import FileFacts, same_inputs
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.signatures import without_queries
from heygen_async.errors import HeyGenError

P = ParamSpec("P")
T = TypeVar("T")

_APPLICATION: Final = 0x48474A31  # "HGJ1", by which a journal is told from any other database
_VERSION: Final = 1

_COLUMNS: Final = tuple(attribute.name for attribute in attrs.fields(Record))

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
CREATE TABLE files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL, seconds REAL) WITHOUT ROWID;
"""

_SAVE: Final = (
    f"INSERT INTO rows ({', '.join(_COLUMNS)}, run) VALUES ({', '.join('?' * len(_COLUMNS))}, ?) "  # noqa: S608 names of ours
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in (*_COLUMNS, 'run'))}"
)
_LOAD: Final = f"SELECT {', '.join(_COLUMNS)} FROM rows"  # noqa: S608 names of ours

_SENT: Final = frozenset({State.SUBMITTING, State.SUBMITTED, State.COMPLETED, State.DONE})

_ATTEMPT: Final = re.compile(r"(.+)\.(?:[2-9]|[1-9][0-9]+)", re.DOTALL)


class JournalError(HeyGenError):
    """Raised when a journal cannot be read or written, or is not one of this run's."""


class JournalInUse(JournalError):
    """Raised when another run has the journal."""

    hint = "Wait for the other run to end, or end it; a journal serves one run at a time."


@frozen(kw_only=True)
class Entry:
    """A row that asks to be taken into a run."""

    key: str
    inputs: str
    """Digest of everything that is sent for it; the one of its record if its files cannot be read any more."""
    number: int
    place: str
    inputs_0_1: str | None = None
    """The digest that version 0.1 recorded for the same."""
    target: str | None = None
    claims: tuple[str, ...] = ()
    """Other things that it must have for itself, such as its file and its callback id."""


def _shown(text: str) -> str:
    return one_line(without_queries(text))


@frozen
class Problem:
    """Why a row cannot be taken."""

    place: str = field(converter=_shown)
    message: str = field(converter=_shown)
    """On one line, with no query of a link in it."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


Admission: TypeAlias = Record | Problem


def _in_thread(
    work: Callable[Concatenate[Journal, P], T],
) -> Callable[Concatenate[Journal, P], Coroutine[Any, Any, T]]:
    async def call(journal: Journal, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await journal.in_turn(partial(work, journal, *args, **kwargs))

    update_wrapper(call, work)
    return call


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
            if self._path is not None and not self._path.absolute().parent.is_dir():
                raise JournalError(f"the folder of {self} does not exist")
            self._db = sqlite3.connect(self._path or ":memory:", timeout=0, isolation_level=None)
            self._lock()
            self._settle()
        with self._transaction():
            self._run = int(self._fact("runs") or 0) + 1
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('runs', ?)", (str(self._run),))

    def _close(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()

    def _lock(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before WAL, which then needs no shared memory
        self._db.execute("BEGIN EXCLUSIVE")
        try:
            self._check()
        finally:
            self._db.execute("COMMIT")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    def _check(self) -> None:
        """See that this is a journal of ours, or an empty file, which may become one."""
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (things,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if things and application != _APPLICATION:
            raise JournalError(f"{self._path} is a database, but not a journal of heygen-async")
        if things and version != _VERSION:
            raise JournalError(f"{self} was written by another version of heygen-async (format {version})")

    def _settle(self) -> None:
        """Make the tables, and see that the journal is for the origin."""
        if self._db.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO facts VALUES ('origin', ?)", (self.origin,))
        found = self._fact("origin")
        if found != self.origin:
            raise JournalError(f"{self} belongs to {found}, not to {self.origin}; use another one")

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
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise JournalInUse(f"{self} is in use by another run") from error
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
        """Take rows into the run: return for each what it has reached so far, or why it cannot be taken."""
        with self._transaction():
            return [self._admit(entry) for entry in entries]

    def _admit(self, entry: Entry) -> Admission:
        known = self._find(entry.key)
        problem = self._conflict(entry) or self._change(entry, known)
        if problem is not None:
            return Problem(entry.place, problem)
        for claim in (f"key {entry.key}", *entry.claims):
            self._db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (claim, entry.key, entry.place, self._run)
            )
        record = known or Record(key=entry.key, inputs=entry.inputs)
        inputs = record.inputs if record.state in _SENT else entry.inputs  # by which its job can be found again
        record = evolve(record, inputs=inputs, number=entry.number, place=entry.place, target=entry.target)
        self._save(record)
        return record

    def _conflict(self, entry: Entry) -> str | None:
        for claim in (f"key {entry.key}", *entry.claims):
            taken = self._db.execute(
                "SELECT place FROM claims WHERE claim = ? AND run = ? AND place != ?", (claim, self._run, entry.place)
            ).fetchone()
            if taken is not None:
                return f"it has the {claim}, and so has {taken[0]}"
        return self._attempts_conflict(entry.key)

    def _attempts_conflict(self, key: str) -> str | None:
        """Tell whether a second attempt of one row would go under the key of another."""
        stem = _ATTEMPT.fullmatch(key)
        if stem is not None and self._find(stem[1]) is not None:
            return f"its key {key} is kept for another attempt of the row {stem[1]}"
        # "/" comes right after ".": this is every key that starts with KEY and a dot.
        for (other,) in self._db.execute("SELECT key FROM rows WHERE key > ? AND key < ?", (f"{key}.", f"{key}/")):
            match = _ATTEMPT.fullmatch(other)
            if match is not None and match[1] == key:
                return f"the key {other} of another row is kept for another attempt of this one, {key}"
        return None

    def _change(self, entry: Entry, known: Record | None) -> str | None:
        if known is None or known.state is State.PLANNED or same_inputs(known.inputs, entry.inputs, entry.inputs_0_1):
            return None  # of a planned row there is no job, nor may there be one
        return (
            f"what is to be sent under the key {entry.key} has changed since the journal was written; give it a new key"
        )

    def _find(self, key: str) -> Record | None:
        found = self._db.execute(f"{_LOAD} WHERE key = ?", (key,)).fetchone()
        return None if found is None else _record(found)

    @_in_thread
    def records(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """Return the records of the rows with these keys, by key."""
        found = self._select("key IN (SELECT value FROM json_each(?))", orjson.dumps(keys).decode())
        return {record.key: record for record in found}

    @_in_thread
    def save(self, *records: Record) -> None:
        """Write down what rows have reached, all of it or nothing."""
        with self._transaction():
            for record in records:
                self._save(record)

    def _save(self, record: Record) -> None:
        self._db.execute(_SAVE, (*_values(record), self._run))

    @_in_thread
    def in_doubt(self) -> list[Record]:
        """Return the rows of which it is not known whether there is a job."""
        return self._select("state = ?", State.SUBMITTING)

    @_in_thread
    def batch_size(self, batch: str) -> int:
        """Return how many rows were noted for the batch with this key."""
        return len(self._select("batch = ?", batch))

    @_in_thread
    def known_jobs(self, lipsync_ids: Sequence[str]) -> set[str]:
        """Return those of the jobs that belong to some row."""
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
    def estimate(self) -> float:
        """Return what all jobs that were asked for are thought to cost, in dollars."""
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
        """Note an upload."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO assets VALUES (?, ?)", (digest, asset_id))

    @_in_thread
    def forget_assets(self, asset_ids: Sequence[str]) -> None:
        """Forget uploads that the server does not have any more."""
        with self._transaction():
            self._db.executemany("DELETE FROM assets WHERE asset_id = ?", [(one,) for one in asset_ids])

    @_in_thread
    def file_facts(self, paths: Sequence[str]) -> Mapping[str, FileFacts]:
        """Return what is known of files."""
        with self._translated():
            found = self._db.execute(
                "SELECT path, stamp, digest, seconds FROM files WHERE path IN (SELECT value FROM json_each(?))",
                (orjson.dumps(paths).decode(),),
            )
            return {path: FileFacts(*facts) for path, *facts in found}

    @_in_thread
    def keep_file_facts(self, facts: Mapping[str, FileFacts]) -> None:
        """Note what was read from files."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(path, one.stamp, one.digest, one.seconds) for path, one in facts.items()],
            )

    @_in_thread
    def rows(self, after: int, limit: int) -> list[Record]:
        """Return rows of this run in their order, the first *limit* after row number *after*."""
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
            value = without_queries(value)
        yield value


def _record(values: Sequence[object]) -> Record:
    fields = dict(zip(_COLUMNS, values, strict=True))
    fields["state"] = State(str(fields["state"]))
    fields["earlier"] = tuple(orjson.loads(str(fields["earlier"])))
    for name in ("is_final", "is_writing"):
        fields[name] = bool(fields[name])
    return Record(**fields)  # type: ignore[arg-type]  # written by _values
