"""Rows become work: all of them are checked and stored first, and only then released to the workers, or none is.

Rule 1: a row that is stored already stays as it is, unless it has changed: the same manifest adds nothing.
Rule 2: rows are stored once all of them were checked, and held back until all are stored; those that were stored before
change at that moment too. An enqueue that dies before leaves nothing to do, and the next one removes what it has left.
There is one enqueue of a run at a time: it works on the connection that holds the lock of the run. Workers go on
meanwhile: a row that changes is compared again if they have moved it on, because it may have been submitted.
Rule 3: an enqueue that is refused leaves nothing: no row, no new run and no folder.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, LiteralString

from anyio import to_thread
from attrs import define, evolve, field, frozen

from heygen_async.bulk.budget import Budget, check_rates
from heygen_async.bulk.checks import AdmittedRow, BadRows, RefusedRow, RowChecker
from heygen_async.bulk.claims import conflict, rivals
from heygen_async.bulk.cluster.database import ClusterError, Database, DatabaseLost, Statements, to_jsonb
from heygen_async.bulk.cluster.postgres import GIVEN, written_row
from heygen_async.bulk.cluster.rows import (
    RunOptions,
    Stage,
    StoredRow,
    option_problem,
    record_from_json,
    row_digest,
    row_to_json,
    source_problem,
)
from heygen_async.bulk.cluster.schema import CHANNEL
from heygen_async.bulk.cluster.transitions import placed, unstopped
from heygen_async.bulk.entries import admitted
from heygen_async.bulk.folders import mark_shared
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.manifest import SourceRow
from heygen_async.bulk.outputs import is_written
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.promotion import draft_of
from heygen_async.bulk.record import Record
from heygen_async.bulk.reviews import Review
from heygen_async.bulk.row_source import Snapshot, new_snapshot
from heygen_async.bulk.store import Admission, Entry, Problem
from heygen_async.bulk.survey import Survey, SurveyBuilder
from heygen_async.models import DubRow

_DELAYS: Final = RetryDelays()


@frozen(kw_only=True)
class Enqueued:
    """What an enqueue has added."""

    run: str
    """The name of the run."""
    rows: int
    """How many rows there were."""
    added: int
    """How many of them are new."""
    changed: int
    """How many of the others are worked on again, or otherwise: they have changed, or their files were removed."""
    survey: Survey
    """What there is to do, and about what it costs."""


_LONGEST_INDEXED: Final = 2600
"""The most bytes of a path in an ordered index of PostgreSQL."""
_WITHDRAW_SECONDS: Final = 5.0
"""How long an enqueue that fails tries to remove its rows."""


@frozen
class _Known:
    """A row that is stored."""

    record: Record
    stage: Stage
    content: str
    """The digest of its row: see `row_digest`."""


@frozen
class _ClaimHolder:
    """A row that holds what others must not have."""

    run: int
    key: str
    name: str
    """The name of its run."""
    is_held: bool

    def __str__(self) -> str:
        unfinished = ", whose enqueue goes on, or was interrupted (then prune removes it)" if self.is_held else ""
        return f"the row {self.key} of the run {self.name}{unfinished}"


@define(eq=False)
class _CheckedRows:
    """The store that rows are checked against: the run in the database. See `store.RowStore`."""

    database: Statements
    run: int
    _known: dict[str, _Known] = field(factory=dict)
    _claims: dict[str, tuple[str, str]] = field(factory=dict)
    """What rows of this enqueue have claimed: the key of the row, and where it is listed."""

    async def records(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """Return the records of the rows that are stored."""
        found = await self.database.fetch(
            "SELECT record, version, stage, prepared FROM rows "
            "WHERE run = %(run)s AND key = ANY(%(keys)s) AND NOT is_held",
            {"run": self.run, "keys": list(keys)},
        )
        known = {key: one for key in keys if (one := self._known.get(key)) is not None}
        for record, version, stage, prepared in found:
            one = _Known(record_from_json(record, version), Stage(stage), row_digest(prepared))
            known[one.record.key] = self._known[one.record.key] = one
        return {key: one.record for key, one in known.items()}

    def known(self, key: str) -> _Known | None:
        """Return a row that is stored."""
        return self._known.get(key)

    async def admit(self, entries: Sequence[Entry]) -> Sequence[Admission]:
        """Return the record of each row as it is to be, or why it cannot be enqueued."""
        records = await self.records([entry.key for entry in entries])
        taken = await self._taken({rival for entry in entries for claim in entry.claims for rival in rivals(claim)})
        return [self._admit(entry, records.get(entry.key), taken) for entry in entries]

    def _admit(self, entry: Entry, known: Record | None, taken: Mapping[str, _ClaimHolder]) -> Admission:
        claims = (f"key {entry.key}", *entry.claims)
        found = self._conflict(entry, claims, taken) or admitted(entry, known)
        if isinstance(found, str):
            return Problem(entry.place, found)
        self._claims |= dict.fromkeys(claims, (entry.key, entry.place))
        return found

    def _conflict(self, entry: Entry, claims: Sequence[str], taken: Mapping[str, _ClaimHolder]) -> str | None:
        for claim in claims:
            for rival in rivals(claim):
                other = self._claims.get(rival)
                if other is not None and other[1] != entry.place:
                    return conflict(entry, claim, rival, other[1])
                stored = taken.get(rival)
                if stored is not None and (stored.run, stored.key) != (self.run, entry.key):
                    return conflict(entry, claim, rival, str(stored))
        return None

    async def _taken(self, claims: Collection[str]) -> Mapping[str, _ClaimHolder]:
        found = await self.database.fetch(
            "SELECT claim, run, key, name, is_held FROM claims JOIN runs ON runs.id = run "
            "WHERE claim = ANY(%(claims)s)",
            {"claims": list(claims)},
        )
        return {claim: _ClaimHolder(*values) for claim, *values in found}

    async def reviews(self, keys: Sequence[str]) -> Sequence[Review]:  # noqa: ARG002 as the protocol has it
        """Return nothing: decisions are made on journals."""
        return ()

    async def file_info(self, paths: Sequence[str]) -> Mapping[str, FileInfo]:
        """Return what was last read from files."""
        found = await self.database.fetch(
            "SELECT path, fingerprint, digest, seconds FROM files WHERE path = ANY(%(paths)s)", {"paths": list(paths)}
        )
        return {path: FileInfo(*facts) for path, *facts in found}

    async def keep_file_info(self, facts: Mapping[str, FileInfo]) -> None:
        """Save what was read from files; those with a path that no index takes are read again."""
        rows = [
            [path, one.fingerprint, one.digest, one.seconds]
            for path, one in facts.items()
            if len(os.fsencode(path)) <= _LONGEST_INDEXED
        ]
        await self.database.fetch(_KEEP_FILES, {"files": to_jsonb(rows)})


@define(eq=False)
class Enqueue:
    """One enqueue of rows."""

    database: Statements
    run: int
    name: str
    options: RunOptions
    now: float
    _added: int = 0
    _changed: set[str] = field(factory=set)
    """The keys of rows that are stored already, and are to be worked on again, or otherwise."""

    async def check_and_add(self, slices: AsyncGenerator[list[SourceRow], None]) -> Enqueued:
        """Check all rows, store those that are new, and release them.

        Raises:
            BadRows: If any row has a problem; then none is enqueued.
            OSError: If the output folder cannot be written to; the same.
        """
        try:
            await self.database.fetch(FORGET, {"run": self.run})
            return await self._check_and_add(slices)
        except BaseException:
            await self._withdraw()
            raise

    async def _check_and_add(self, slices: AsyncGenerator[list[SourceRow], None]) -> Enqueued:
        store = _CheckedRows(self.database, self.run)
        plan = Plan(
            journal=None,
            output_dir=None if self.options.output_dir is None else Path(self.options.output_dir),
            max_attempts=self.options.max_attempts,
            captions=self.options.captions,
        )
        checker = _ClusterChecker(store, plan, {})
        builder = SurveyBuilder(plan.max_attempts, Budget(check_rates(self.options.rates)), lambda: self.now)
        rows = 0
        async with new_snapshot() as snapshot:
            async with aclosing(checker.admit_all(slices)) as admitted_rows:
                async for admitted_slice in admitted_rows:
                    found = await to_thread.run_sync(_tried_again, store, admitted_slice)
                    rows += len(found)
                    for one in found:
                        builder.add(one.row, one.record, has_file=one.has_file)
                    await snapshot.add(found)
            await snapshot.complete()
            if self.options.output_dir is not None:
                await mark_shared(self.options.output_dir)
            async for checked in snapshot.slices():
                await self._add(store, checked)
            await self._release(store, snapshot)
        changed = len(self._changed)
        return Enqueued(run=self.name, rows=rows, added=self._added, changed=changed, survey=builder.survey())

    async def _withdraw(self) -> None:
        """Remove what was not released, and the run if it has nothing else; without the database the next one does."""
        with suppress(DatabaseLost, TimeoutError):
            async with asyncio.timeout(_WITHDRAW_SECONDS):
                await asyncio.shield(self.database.fetch(_WITHDRAW, {"run": self.run}))

    async def _add(self, store: _CheckedRows, rows: Sequence[AdmittedRow]) -> None:
        new, changed = await to_thread.run_sync(self._sorted, store, rows)
        self._added += len(new)
        self._changed |= {one.row.key for one in changed if one.stage is not Stage.FAILED}
        if new or changed:
            entries = [one.row.entry for one in (*new, *changed)]
            claims = [
                {"claim": claim, "key": entry.key, "place": entry.place} for entry in entries for claim in entry.claims
            ]
            values = {
                "run": self.run,
                "new": to_jsonb(await to_thread.run_sync(_new_rows, new)),
                "changed": to_jsonb(await to_thread.run_sync(_new_rows, changed)),
                "claims": to_jsonb(claims),
            }
            await self.database.fetch(_ADD, values)
            # An enqueue of another run may have claimed the same meanwhile: the first one has it.
            problems = [one for one in await store.admit(entries) if isinstance(one, Problem)]
            if problems:
                raise BadRows(problems, len(problems))

    def _sorted(self, store: _CheckedRows, rows: Sequence[AdmittedRow]) -> tuple[list[StoredRow], list[StoredRow]]:
        """Return the rows that are new, and those that have changed and are to be worked on again; for a thread."""
        new, changed = [], []
        for one in rows:
            known = store.known(one.row.key)
            if known is None:
                new.append(self._placed(one))
            elif _is_changed(one, known):
                changed.append(self._placed(one).saved())
        return new, changed

    def _placed(self, one: AdmittedRow) -> StoredRow:
        row = StoredRow(run=self.run, row=_absolute(one.row), record=one.record, stage=Stage.READY)
        most = self.options.max_attempts
        return placed(row, self.now, max_attempts=most, delays=_DELAYS, has_file=one.has_file)

    async def _release(self, store: _CheckedRows, snapshot: Snapshot) -> None:
        """Release all rows at once, those that change too."""
        values = {"run": self.run, "options": to_jsonb(self.options.to_json())}
        while not await self.database.fetch(_RELEASE, values):
            moved = {key for (key,) in await self.database.fetch(_MOVED, {"run": self.run})}
            self._changed -= moved
            await snapshot.complete()  # it is read from its start again
            async for rows in snapshot.slices():
                if again := [one for one in rows if one.row.key in moved]:
                    await self._add(store, await _admitted_again(store, again))


class _ClusterChecker(RowChecker):
    """Also checks that every worker could do a row."""

    async def admit(self, rows: Sequence[SourceRow]) -> list[AdmittedRow | RefusedRow]:
        """Check and admit a slice of rows."""
        return await super().admit(await to_thread.run_sync(_with_problems, rows))


def _with_problems(rows: Sequence[SourceRow]) -> list[SourceRow]:
    return [_with_its_problems(row) for row in rows]


def _with_its_problems(source: SourceRow) -> SourceRow:
    row = source.checkable
    found = [] if row is None else list(_problems(row))
    if not found:
        return source
    problems = [Problem(f"{source.place}, {column}", message) for column, message in found]
    return evolve(source, row=None, correct_part=row, problems=[*source.problems, *problems])


def _problems(row: DubRow) -> list[tuple[str, str]]:
    found = [(name, source_problem(getattr(row, name))) for name in ("video", "audio")]
    if draft_of(row) is not None:
        found.append(("key", "it is the final version of a draft, which a journal knows: run it with dub_many"))
    found.append(("callback_url", option_problem(row)))
    return [(column, message) for column, message in found if message is not None]


def _is_changed(one: AdmittedRow, known: _Known) -> bool:
    """Return whether a row that is stored is to be worked on again, or otherwise."""
    if one.record != evolve(known.record, number=one.record.number, place=one.record.place):
        return True
    if known.stage is Stage.DONE:
        return not one.has_file and one.record.target is not None
    # Without its files here, less is known of it than what is stored.
    return not one.row.missing and row_digest(row_to_json(_absolute(one.row))) != known.content


def _tried_again(store: _CheckedRows, rows: Sequence[AdmittedRow]) -> list[AdmittedRow]:
    """Return rows, those that have changed as if they had not failed; for a thread."""
    return [
        evolve(one, record=unstopped(one.record))
        if (known := store.known(one.row.key)) and _is_changed(one, known)
        else one
        for one in rows
    ]


async def _admitted_again(store: _CheckedRows, rows: Sequence[AdmittedRow]) -> list[AdmittedRow]:
    """Return rows with their records as they are now.

    Raises:
        BadRows: If any of them cannot change any more.
    """
    admissions = await store.admit([one.row.entry for one in rows])
    problems = [one for one in admissions if isinstance(one, Problem)]
    if problems:
        raise BadRows(problems, len(problems))
    records = [one for one in admissions if isinstance(one, Record)]
    return await to_thread.run_sync(_with_records, store, rows, records)


def _with_records(store: _CheckedRows, rows: Sequence[AdmittedRow], records: Sequence[Record]) -> list[AdmittedRow]:
    found = [evolve(one, record=record, has_file=is_written(record)) for one, record in zip(rows, records, strict=True)]
    return _tried_again(store, found)


def _absolute(row: PreparedRow) -> PreparedRow:
    """Return a row whose output is the same from every folder."""
    if row.target is None:
        return row
    target = Path(os.path.abspath(row.target))  # noqa: PTH100 it also takes out `..`
    return evolve(row, target=target)


def _new_rows(rows: Sequence[StoredRow]) -> list[dict[str, Any]]:
    return [_new_row(row) for row in rows]


def _new_row(row: StoredRow) -> dict[str, Any]:
    return {
        **written_row(row, deferred=None),
        "number": row.row.number,
        "prepared": row_to_json(row.row),
    }


@asynccontextmanager
async def locked_run(
    database: Database, origin: str, name: str, options: RunOptions
) -> AsyncGenerator[tuple[Statements, int, float]]:
    """Lock the run with this name, made if it is new, while the body goes on.

    Yields what works on it, the run, and the time by the database.

    Raises:
        ClusterError: If it has another output folder, or another enqueue of it goes on.
    """
    while True:
        run, _ = await _open_run(database, origin, name, options)
        async with database.locked(run) as locked:
            if locked is None:
                raise ClusterError(f"rows are being enqueued in the run {name} at the moment; try again after that")
            # An enqueue that was refused may have removed it before it was locked here.
            found, now = await _open_run(database, origin, name, options)
            if found == run:
                yield locked, run, now
                return


async def _open_run(database: Database, origin: str, name: str, options: RunOptions) -> tuple[int, float]:
    """Return the run with this name, made if it is new, and the time by the database."""
    values = {"origin": origin, "name": name, "options": to_jsonb(options.to_json())}
    ((run, now, stored),) = await database.fetch(_OPEN, values)
    known = RunOptions.from_json(stored).output_dir
    if known != options.output_dir:
        raise ClusterError(
            f"the run {name} writes to {known or 'no folder'}, not to {options.output_dir or 'no folder'}; "
            "use another name for another run"
        )
    return int(run), float(now)


# A run without rows is what an enqueue that died has left, and promises nothing.
_OPEN: Final[LiteralString] = """
INSERT INTO runs (origin, name, options) VALUES (%(origin)s, %(name)s, %(options)s)
ON CONFLICT (origin, name) DO UPDATE SET options = CASE
    WHEN EXISTS (SELECT 1 FROM rows WHERE rows.run = runs.id AND NOT is_held) THEN runs.options ELSE excluded.options
END
RETURNING id, unix_time(), options
"""

_ADD: Final[LiteralString] = f"""
WITH new AS (
    INSERT INTO rows (run, key, number, version, stage, is_held, resend, due, price, reserved, lipsync_id, asked_at,
        prepared, record)
    SELECT run, key, number, version, stage, true, resend, due, price, reserved, lipsync_id, asked_at, prepared, record
    FROM jsonb_to_recordset(%(new)s) AS {GIVEN}
    ON CONFLICT (run, key) DO UPDATE SET number = excluded.number, prepared = excluded.prepared,
        record = excluded.record, stage = excluded.stage, due = excluded.due
        WHERE rows.is_held
), changed AS (
    INSERT INTO changes SELECT %(run)s, given->>'key', given FROM jsonb_array_elements(%(changed)s) AS given
)
INSERT INTO claims (claim, run, key, place, is_held) SELECT claim, %(run)s, key, place, true
FROM jsonb_to_recordset(%(claims)s) AS given (claim text, key text, place text)
ON CONFLICT DO NOTHING
"""  # noqa: S608 names of ours

_FORGOTTEN: Final[LiteralString] = """
WITH gone AS (
    DELETE FROM rows WHERE run = %(run)s AND is_held
), unchanged AS (
    DELETE FROM changes WHERE run = %(run)s
), free AS (
    DELETE FROM claims WHERE run = %(run)s AND is_held
)
"""

FORGET: Final[LiteralString] = f"{_FORGOTTEN}SELECT 1"

_WITHDRAW: Final[LiteralString] = f"""{_FORGOTTEN}
DELETE FROM runs WHERE id = %(run)s AND NOT EXISTS (SELECT 1 FROM rows WHERE rows.run = runs.id AND NOT is_held)
"""  # noqa: S608 names of ours

# It does nothing, and returns nothing, if a row that changes is at another version by now.
_RELEASE: Final[LiteralString] = f"""
WITH given AS (
    SELECT given.* FROM changes, jsonb_to_record(change) AS {GIVEN} WHERE changes.run = %(run)s
), unmoved AS (
    SELECT rows.key FROM rows JOIN given
        ON rows.run = given.run AND rows.key = given.key AND rows.version = given.version - 1
    FOR UPDATE OF rows
), noted AS (
    DELETE FROM changes WHERE run = %(run)s AND (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
), released AS (
    UPDATE rows SET is_held = false
    WHERE run = %(run)s AND is_held AND (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
), claimed AS (
    UPDATE claims SET is_held = false
    WHERE run = %(run)s AND is_held AND (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
), changed AS (
    UPDATE rows SET number = given.number, version = given.version, stage = given.stage, due = given.due,
        price = given.price, reserved = given.reserved, deferred = NULL, holder = NULL, fresh = false,
        unanswered = '{{0,-1}}', prepared = given.prepared, record = given.record, changed = unix_time()
    FROM given WHERE rows.run = given.run AND rows.key = given.key
        AND (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
), skipped AS (
    UPDATE rows SET stage = CASE WHEN record->>'state' = 'planned' AND prepared->'files' <> '{{}}'
            AND NOT record ?| array['video_asset', 'audio_asset'] THEN 'prepare' ELSE 'ready' END,
        version = version + 1, deferred = NULL
    WHERE run = %(run)s AND stage = 'skipped' AND NOT EXISTS (SELECT FROM given WHERE given.key = rows.key)
        AND (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
), account AS (
    UPDATE accounts SET halted = NULL, next_request = CASE
        WHEN runs.options->'max_requests_per_second' = %(options)s->'max_requests_per_second' THEN next_request ELSE 0
    END  -- what waits was put off at the rate of before
    FROM runs WHERE runs.id = %(run)s AND accounts.id = runs.account
        AND (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
)
UPDATE runs SET options = %(options)s WHERE id = %(run)s
    AND (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
RETURNING pg_notify('{CHANNEL}', '0')
"""  # noqa: S608 a name of ours

_MOVED: Final[LiteralString] = """
DELETE FROM changes USING rows
WHERE changes.run = %(run)s AND rows.run = changes.run AND rows.key = changes.key
    AND rows.version <> (changes.change->>'version')::bigint - 1
RETURNING changes.key
"""
"""Forgets the changes of rows that workers have moved on since they were compared, and returns their keys."""

_KEEP_FILES: Final[LiteralString] = """
INSERT INTO files
SELECT one->>0, one->>1, one->>2, (one->>3)::double precision FROM jsonb_array_elements(%(files)s) AS one
ON CONFLICT (path) DO UPDATE SET fingerprint = excluded.fingerprint, digest = excluded.digest,
    seconds = excluded.seconds
"""
