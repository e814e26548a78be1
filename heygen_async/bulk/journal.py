"""The journal: the record of each row of a bulk run, in a file that survives a crash at any moment.

Rule 1: SQLite is used in one thread, never on the event loop. A write that was started is completed, even if the
task that waits for it is cancelled.
Rule 2: each write is on the disk before it returns (a rollback journal, `synchronous=FULL`), so the main file is
always complete by itself.
Rule 3: one run at a time, by SQLite's own exclusive lock and by the claim of this process (`journal_claim`). Both end
with the process, however that ends.
Rule 4: no secret and no link is written down. What is sent is kept as a digest.
Rule 5: the fact `open` is there from the opening of the file to its clean end. A run that finds it may miss the last
writes of the run before, and creates nothing before it has compared its keys with the list of jobs.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import orjson
from attrs import define, field

from heygen_async.bulk import journal_format, reviews
from heygen_async.bulk.claims import conflict, rivals
from heygen_async.bulk.entries import admitted
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.journal_file import JournalFile, name_of, open_existing, open_file
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.reviews import Review
from heygen_async.bulk.store import Admission, Entry, JournalError, Problem

P = ParamSpec("P")
T = TypeVar("T")


def _in_thread(
    work: Callable[Concatenate[Journal, P], T],
) -> Callable[Concatenate[Journal, P], Coroutine[Any, Any, T]]:
    async def call(journal: Journal, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await journal.in_turn(partial(work, journal, *args, **kwargs))

    update_wrapper(call, work)
    return call


@define
class _Commit:
    """Records that are written in one transaction, and who waits for it."""

    records: list[Record] = field(factory=list)
    waiters: list[asyncio.Future[None]] = field(factory=list)

    def settle(self, written: asyncio.Future[None]) -> None:
        """Wake the waiters. Each has a future of its own, so that a row that is cancelled cancels nothing else."""
        error = written.exception()
        for waiter in self.waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error.fresh() if isinstance(error, JournalError) else error)


_CLOSE_SECONDS: Final = 5.0
"""How long an `open` that failed, or was cancelled, waits for the file to be closed."""


class Journal:
    """The journal of one run: open it, use it, close it.

    Every method raises `JournalError` if the file cannot be read or written, at a full disk for instance.

    Args:
        path: The file; `None` keeps the journal in memory.
        origin: The address of the API. A journal belongs to one: a run against a sandbox is not a real one.
        keeps_rows: Whether rows that are admitted are recorded; a survey leaves their records as they are.
    """

    def __init__(self, path: Path | None, *, origin: str, keeps_rows: bool = True) -> None:
        self._path = path
        self._keeps_rows = keeps_rows
        self.origin = origin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heygen-journal")
        self._opened: JournalFile | None = None
        self._has_listed = False
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
        await self._open(partial(open_file, self._path, self.origin))

    async def open_existing(self) -> None:
        """Open the file of a run that has ended, and lock it, to look at it and to review it.

        Raises:
            JournalInUse: If a run has it.
            JournalError: If there is none, or it cannot be opened.
        """
        if self._path is None:
            raise JournalError(f"{self} ends with its run")
        await self._open(partial(open_existing, self._path))

    async def _open(self, find: Callable[[], JournalFile]) -> None:
        try:
            await self.in_turn(partial(self._begin, find))
        except BaseException:
            await asyncio.wait([self._close_later()], timeout=_CLOSE_SECONDS)  # the next to open it finds it free
            raise

    def _begin(self, find: Callable[[], JournalFile]) -> None:
        # In the thread, so that it is closed later even if the task that waits for it is cancelled.
        self._opened = find()
        with self._file.reading() as db:
            self._has_listed = bool(db.execute("SELECT EXISTS (SELECT 1 FROM listed)").fetchone()[0])

    async def aclose(self) -> None:
        """Write what is still to be written, and unlock the file; cancelled, it does so all the same."""
        await asyncio.shield(self._close_later())

    def _close_later(self) -> asyncio.Future[None]:
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        return closing

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _file(self) -> JournalFile:
        assert self._opened is not None  # noqa: S101 open() comes first
        return self._opened

    @_in_thread
    def admit(self, entries: Sequence[Entry]) -> list[Admission]:
        """Admit rows to the run: return the record of each, or why it cannot be admitted."""
        with self._file.transaction() as db:
            return _admit(db, entries, self._file.run, keeps_rows=self._keeps_rows)

    @_in_thread
    def records(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """Return the records of the rows with these keys, by key."""
        with self._file.reading() as db:
            return _records(db, keys)

    async def save(self, *records: Record) -> None:
        """Save records, all of them or none; saves that wait for the disk share one transaction."""
        loop = asyncio.get_running_loop()
        with self._joining:
            commit = self._waiting
            if commit is None:
                commit = self._waiting = _Commit()
            commit.records += records
        if not commit.waiters:
            loop.run_in_executor(self._thread, self._commit, commit).add_done_callback(commit.settle)
        waiter = loop.create_future()
        commit.waiters.append(waiter)
        await waiter

    def _commit(self, commit: _Commit) -> None:
        with self._joining:
            self._waiting = None
        with self._file.transaction() as db:
            journal_format.save(db, commit.records, self._file.run)

    @_in_thread
    def in_doubt(self) -> list[Record]:
        """Return the rows for which it is not known whether there is a job, or which job of their batch is theirs."""
        return self._select("state = ? OR (state = ? AND lipsync_id IS NULL)", State.SUBMITTING, State.SUBMITTED)

    @_in_thread
    def rows_of_batch(self, batch: str) -> list[Record]:
        """Return the rows that were recorded for the batch with this key."""
        return self._select("batch = ?", batch)

    @_in_thread
    def known_jobs(self, lipsync_ids: Sequence[str]) -> set[str]:
        """Return those of the jobs that belong to a row."""
        with self._file.reading() as db:
            return _known_jobs(db, lipsync_ids)

    @_in_thread
    def keep_listed(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Keep jobs that were seen in the list: their ids and callback ids."""
        self._has_listed = self._has_listed or bool(jobs)
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?)", jobs)

    async def has_listed(self) -> bool:
        """Return whether jobs were seen in the list."""
        return self._has_listed

    @_in_thread
    def listed(self, callback_ids: Sequence[str]) -> list[tuple[str, str]]:
        """Return the listed jobs with one of the callback ids that belong to no row: their ids and callback ids."""
        with self._file.reading() as db:
            found = db.execute(
                "SELECT lipsync_id, callback_id FROM listed WHERE callback_id IN (SELECT value FROM json_each(?))",
                (orjson.dumps(callback_ids).decode(),),
            ).fetchall()
            known = _known_jobs(db, [lipsync_id for lipsync_id, _ in found]) if found else set()
        return [(lipsync_id, callback_id) for lipsync_id, callback_id in found if lipsync_id not in known]

    @_in_thread
    def fact(self, name: str) -> str | None:
        """Return a fact of the journal as a whole, such as the account that it belongs to."""
        with self._file.reading() as db:
            return journal_format.fact(db, name)

    @_in_thread
    def keep_fact(self, name: str, value: str) -> None:
        """Save a fact."""
        with self._file.transaction() as db:
            journal_format.keep_fact(db, name, value)

    @_in_thread
    def reconciled(self, anchor: str | None) -> None:
        """Record that all jobs up to *anchor*, the newest one, are listed: no write of an earlier run is missed."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM facts WHERE name = 'unclean'")
            if anchor is not None:
                journal_format.keep_fact(db, "anchor", anchor)

    @_in_thread
    def estimate(self) -> float:
        """Return the estimated cost of all jobs on this journal, in dollars."""
        with self._file.reading() as db:
            return float(db.execute("SELECT total(estimate + earlier_estimate) FROM rows").fetchone()[0])

    @_in_thread
    def asset(self, digest: str) -> str | None:
        """Return the id under which the content with *digest* was uploaded."""
        with self._file.reading() as db:
            found = db.execute("SELECT asset_id FROM assets WHERE digest = ?", (digest,)).fetchone()
            return None if found is None else str(found[0])

    @_in_thread
    def keep_asset(self, digest: str, asset_id: str) -> None:
        """Save the asset of an uploaded content."""
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO assets VALUES (?, ?)", (digest, asset_id))

    @_in_thread
    def forget_assets(self, asset_ids: Sequence[str]) -> None:
        """Forget assets that the server no longer has."""
        with self._file.transaction() as db:
            db.executemany("DELETE FROM assets WHERE asset_id = ?", [(one,) for one in asset_ids])

    @_in_thread
    def file_info(self, paths: Sequence[str] | None = None) -> Mapping[str, FileInfo]:
        """Return what was last read from the files at *paths*; without *paths* from all files."""
        query = "SELECT path, fingerprint, digest, seconds FROM files"
        named = "" if paths is None else " WHERE path IN (SELECT value FROM json_each(?))"
        values = () if paths is None else (orjson.dumps(paths).decode(),)
        with self._file.reading() as db:
            return {path: FileInfo(*facts) for path, *facts in db.execute(query + named, values)}

    @_in_thread
    def keep_file_info(self, facts: Mapping[str, FileInfo]) -> None:
        """Save what was read from files, by path."""
        with self._file.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(path, one.fingerprint, one.digest, one.seconds) for path, one in facts.items()],
            )

    @_in_thread
    def rows(self, after: int, limit: int) -> list[Record]:
        """Return rows of this run in order, the first *limit* after row number *after*."""
        return self._select("run = ? AND number > ? ORDER BY number LIMIT ?", self._file.run, after, limit)

    @_in_thread
    def all_rows(self, after: str, limit: int) -> list[Record]:
        """Return rows of all runs by key, the first *limit* after the key *after*."""
        return self._select("key > ? ORDER BY key LIMIT ?", after, limit)

    @_in_thread
    def reviews(self, keys: Sequence[str] | None = None) -> list[Review]:
        """Return the decisions on the rows with these keys; without *keys* on all rows."""
        with self._file.reading() as db:
            return reviews.load(db, keys)

    @_in_thread
    def keep_review(self, review: Review) -> None:
        """Save a decision, in place of an earlier one on the same row."""
        with self._file.transaction() as db:
            reviews.save(db, review)

    @_in_thread
    def withdraw_review(self, key: str) -> None:
        """Delete the decision on a row."""
        with self._file.transaction() as db:
            reviews.delete(db, key)

    def _select(self, where: str, *values: str | int) -> list[Record]:
        with self._file.reading() as db:
            return journal_format.select(db, where, *values)

    def __str__(self) -> str:
        return name_of(self._path)


def _records(db: sqlite3.Connection, keys: Sequence[str]) -> Mapping[str, Record]:
    found = journal_format.select(db, "key IN (SELECT value FROM json_each(?))", orjson.dumps(keys).decode())
    return {record.key: record for record in found}


def _admit(db: sqlite3.Connection, entries: Sequence[Entry], run: int, *, keeps_rows: bool) -> list[Admission]:
    claims = [(f"key {entry.key}", *entry.claims) for entry in entries]
    places = _claimed(db, {rival for own in claims for claim in own for rival in rivals(claim)}, run)
    known = _records(db, [entry.key for entry in entries])
    found: list[Admission] = []
    for entry, own in zip(entries, claims, strict=True):
        one = _conflict(entry, own, places) or admitted(entry, known.get(entry.key))
        found.append(Problem(entry.place, one) if isinstance(one, str) else one)
        if not isinstance(one, str):
            places |= dict.fromkeys(own, (entry.key, entry.place))
    db.executemany(
        "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", [(claim, *owner, run) for claim, owner in places.items()]
    )
    if keeps_rows:
        journal_format.save(db, [one for one in found if isinstance(one, Record)], run)
    return found


def _claimed(db: sqlite3.Connection, claims: Collection[str], run: int) -> dict[str, tuple[str, str]]:
    """Return the rows of this run that have one of the claims: the key and the place of each, by claim."""
    found = db.execute(
        "SELECT claim, key, place FROM claims WHERE run = ? AND claim IN (SELECT value FROM json_each(?))",
        (run, orjson.dumps(list(claims)).decode()),
    )
    return {claim: (key, place) for claim, key, place in found}


def _conflict(entry: Entry, claims: Sequence[str], taken: Mapping[str, tuple[str, str]]) -> str | None:
    for claim in claims:
        for rival in rivals(claim):
            place = taken[rival][1] if rival in taken else entry.place
            if place != entry.place:
                return conflict(entry, claim, rival, place)
    return None


def _known_jobs(db: sqlite3.Connection, lipsync_ids: Sequence[str]) -> set[str]:
    wanted = orjson.dumps(lipsync_ids).decode()
    found = db.execute(
        "SELECT lipsync_id FROM rows WHERE lipsync_id IN (SELECT value FROM json_each(?)) "
        "UNION SELECT old.value FROM rows, json_each(rows.earlier) AS old "
        "WHERE rows.earlier != '[]' AND old.value IN (SELECT value FROM json_each(?))",
        (wanted, wanted),
    )
    return {lipsync_id for (lipsync_id,) in found}


@asynccontextmanager
async def existing_journal(path: Path) -> AsyncIterator[Journal]:
    """Open the journal of a run that has ended, and lock it while the body goes on.

    Raises:
        JournalInUse: If a run has it.
        JournalError: If there is none, or it cannot be opened.
    """
    journal = Journal(path, origin="")
    await journal.open_existing()
    try:
        yield journal
    finally:
        await journal.aclose()
