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
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, LiteralString

from anyio import to_thread
from attrs import define, evolve, field, frozen

from heygen_async.bulk.budget import Budget, check_rates
from heygen_async.bulk.checks import AdmittedRow, BadRows, RefusedRow, RowChecker
from heygen_async.bulk.cluster.database import ClusterError, Database, DatabaseLost, Statements, to_jsonb
from heygen_async.bulk.cluster.known_rows import KnownRow, KnownRows
from heygen_async.bulk.cluster.output_folders import OutputFolders
from heygen_async.bulk.cluster.postgres import GIVEN, written_row
from heygen_async.bulk.cluster.rows import (
    RunOptions,
    Stage,
    StoredRow,
    option_problem,
    row_digest,
    row_to_json,
    source_problem,
)
from heygen_async.bulk.cluster.schema import CHANNEL
from heygen_async.bulk.cluster.transitions import placed, unstopped
from heygen_async.bulk.manifest import SourceRow
from heygen_async.bulk.outputs import is_written
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.promotion import draft_of
from heygen_async.bulk.record import Record
from heygen_async.bulk.row_source import Snapshot, new_snapshot
from heygen_async.bulk.store import Problem
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


_WITHDRAW_SECONDS: Final = 5.0
"""How long an enqueue that fails tries to remove its rows."""


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
            OSError: If an output folder cannot be written to; the same.
            UnusableFolder: If one of rows that are stored is not mounted; the same.
        """
        try:
            await self.database.fetch(FORGET, {"run": self.run})
            return await self._check_and_add(slices)
        except BaseException:
            await self._withdraw()
            raise

    async def _check_and_add(self, slices: AsyncGenerator[list[SourceRow], None]) -> Enqueued:
        store = KnownRows(self.database, self.run)
        plan = Plan(
            journal=None,
            output_dir=None if self.options.output_dir is None else Path(self.options.output_dir),
            max_attempts=self.options.max_attempts,
            captions=self.options.captions,
        )
        checker = _ClusterChecker(store, plan, {})
        builder = SurveyBuilder(plan.max_attempts, Budget(check_rates(self.options.rates)), lambda: self.now)
        folders = OutputFolders(self.options, has_rows=await self._has_rows())
        rows = 0
        async with new_snapshot() as snapshot:
            async with aclosing(_admitted(checker, slices, store)) as admitted_rows:
                async for admitted_slice in admitted_rows:
                    found = await to_thread.run_sync(_tried_again, store, admitted_slice)
                    await to_thread.run_sync(_note_folders, folders, store, found)
                    rows += len(found)
                    for one in found:
                        builder.add(one.row, one.record, has_file=one.has_file)
                    await snapshot.add(found)
            await snapshot.complete()
            await folders.mark()
            async for checked in snapshot.slices():
                await self._add(store, checked)
            await self._release(store, snapshot)
        changed = len(self._changed)
        return Enqueued(run=self.name, rows=rows, added=self._added, changed=changed, survey=builder.survey())

    async def _has_rows(self) -> bool:
        """Return whether rows are stored."""
        return bool(await self.database.fetch("SELECT 1 FROM rows WHERE run = %(run)s LIMIT 1", {"run": self.run}))

    async def _withdraw(self) -> None:
        """Remove what was not released, and the run if it has nothing else; without the database the next one does."""
        with suppress(DatabaseLost, TimeoutError):
            async with asyncio.timeout(_WITHDRAW_SECONDS):
                await asyncio.shield(self.database.fetch(_WITHDRAW, {"run": self.run}))

    async def _add(self, store: KnownRows, rows: Sequence[AdmittedRow]) -> None:
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
                "changed": to_jsonb(await to_thread.run_sync(_changed_rows, changed)),
                "claims": to_jsonb(claims),
            }
            await self.database.fetch(_ADD, values)
            # An enqueue of another run may have claimed the same meanwhile: the first one has it.
            problems = [one for one in await store.admit(entries) if isinstance(one, Problem)]
            if problems:
                raise BadRows(problems, len(problems))

    def _sorted(self, store: KnownRows, rows: Sequence[AdmittedRow]) -> tuple[list[StoredRow], list[StoredRow]]:
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

    async def _release(self, store: KnownRows, snapshot: Snapshot) -> None:
        """Release all rows at once, those that change too."""
        passed_on = [{"claim": claim, "key": key, "place": place} for claim, key, place in store.passed_on()]
        values = {"run": self.run, "options": to_jsonb(self.options.to_json()), "passed_on": to_jsonb(passed_on)}
        while not await self.database.fetch(_RELEASE, values):
            moved = {key for (key,) in await self.database.fetch(_MOVED, {"run": self.run})}
            self._changed -= moved
            await snapshot.complete()  # it is read from its start again
            async for rows in snapshot.slices():
                if again := [one for one in rows if one.row.key in moved]:
                    await self._add(store, await _admitted_again(store, again))


async def _admitted(
    checker: RowChecker, slices: AsyncGenerator[list[SourceRow], None], store: KnownRows
) -> AsyncGenerator[list[AdmittedRow]]:
    """Iterate over slices of rows that were admitted.

    Raises:
        BadRows: At the end, if any row has a problem.
    """
    problems: Sequence[Problem] = ()
    count = 0
    try:
        async with aclosing(checker.admit_all(slices)) as found:
            async for rows in found:
                yield rows
    except BadRows as bad:
        problems, count = bad.problems, bad.count
    conflicts = store.conflicts()
    if count or conflicts:
        raise BadRows([*problems, *conflicts], count + len(conflicts))


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


def _is_changed(one: AdmittedRow, known: KnownRow) -> bool:
    """Return whether a row that is stored is to be worked on again, or otherwise."""
    if one.record != evolve(known.record, number=one.record.number, place=one.record.place):
        return True
    if known.stage is Stage.DONE:
        return not one.has_file and one.record.target is not None
    # Without its files here, less is known of it than what is stored.
    return not one.row.missing and row_digest(row_to_json(_absolute(one.row))) != known.content


def _tried_again(store: KnownRows, rows: Sequence[AdmittedRow]) -> list[AdmittedRow]:
    """Return rows, those that have changed as if they had not failed; for a thread."""
    return [
        evolve(one, record=unstopped(one.record))
        if (known := store.known(one.row.key)) and _is_changed(one, known)
        else one
        for one in rows
    ]


def _note_folders(folders: OutputFolders, store: KnownRows, rows: Sequence[AdmittedRow]) -> None:
    for one in rows:
        row, known = _absolute(one.row), store.known(one.row.key)
        folders.add(row, is_known=known is not None and known.record.target == str(row.target))


async def _admitted_again(store: KnownRows, rows: Sequence[AdmittedRow]) -> list[AdmittedRow]:
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


def _with_records(store: KnownRows, rows: Sequence[AdmittedRow], records: Sequence[Record]) -> list[AdmittedRow]:
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


def _changed_rows(rows: Sequence[StoredRow]) -> list[dict[str, Any]]:
    return [{**_new_row(row), "claims": list(row.row.entry.claims)} for row in rows]


def _new_row(row: StoredRow) -> dict[str, Any]:
    return {
        **written_row(row, deferred=None),
        "number": row.row.number,
        "prepared": row_to_json(row.row),
    }


@asynccontextmanager
async def locked_run(
    database: Database, origin: str, name: str, options: RunOptions, *, is_chosen: bool = True
) -> AsyncGenerator[tuple[Statements, int, float]]:
    """Lock the run with this name, made if it is new, while the body goes on.

    Yields what works on it, the run, and the time by the database.

    Args:
        database: The database.
        origin: The address of its API.
        name: The name.
        options: The options.
        is_chosen: Whether the caller has chosen the name. Otherwise it is that of the manifest, and many have the same.

    Raises:
        ClusterError: If it has another output folder or manifest, or another enqueue of it goes on.
    """
    while True:
        run, _ = await _open_run(database, origin, name, options, is_chosen=is_chosen)
        async with database.locked(run) as locked:
            if locked is None:
                raise ClusterError(f"rows are being enqueued in the run {name} at the moment; try again after that")
            # An enqueue that was refused may have removed it before it was locked here.
            found, now = await _open_run(database, origin, name, options, is_chosen=is_chosen)
            if found == run:
                yield locked, run, now
                return


async def _open_run(
    database: Database, origin: str, name: str, options: RunOptions, *, is_chosen: bool
) -> tuple[int, float]:
    """Return the run with this name, made if it is new, and the time by the database."""
    values = {"origin": origin, "name": name, "options": to_jsonb(options.to_json())}
    ((run, now, stored),) = await database.fetch(_OPEN, values)
    known = RunOptions.from_json(stored)
    if known.output_dir != options.output_dir:
        raise ClusterError(
            f"the run {name} writes to {known.output_dir or 'no folder'}, not to {options.output_dir or 'no folder'}; "
            "use another name for another run"
        )
    if not is_chosen and None not in (known.manifest, options.manifest) and known.manifest != options.manifest:
        raise ClusterError(
            f"the run {name} is of the manifest {known.manifest}, not of {options.manifest}: give run= with another "
            f"name, or with {name} if these are the same rows"
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
), all_unmoved AS (
    SELECT 1 WHERE (SELECT count(*) FROM unmoved) = (SELECT count(*) FROM given)
), noted AS (
    DELETE FROM changes WHERE run = %(run)s AND EXISTS (TABLE all_unmoved)
), released AS (
    UPDATE rows SET is_held = false WHERE run = %(run)s AND is_held AND EXISTS (TABLE all_unmoved)
), claimed AS (
    UPDATE claims SET is_held = false WHERE run = %(run)s AND is_held AND EXISTS (TABLE all_unmoved)
), later AS (
    SELECT * FROM jsonb_to_recordset(%(passed_on)s) AS later (claim text, key text, place text)
), passed_on AS (
    UPDATE claims SET key = later.key, place = later.place
    FROM later WHERE run = %(run)s AND claims.claim = later.claim AND EXISTS (TABLE all_unmoved)
), given_up AS (
    DELETE FROM claims USING given
    WHERE claims.run = given.run AND claims.key = given.key AND NOT claims.is_held AND NOT given.claims ? claims.claim
        AND claims.claim NOT IN (SELECT later.claim FROM later) AND EXISTS (TABLE all_unmoved)
), changed AS (
    UPDATE rows SET number = given.number, version = given.version, stage = given.stage, due = given.due,
        price = given.price, reserved = given.reserved, deferred = NULL, holder = NULL, fresh = false,
        unanswered = '{{0,-1}}', prepared = given.prepared, record = given.record, changed = unix_time()
    FROM given WHERE rows.run = given.run AND rows.key = given.key AND EXISTS (TABLE all_unmoved)
), skipped AS (
    UPDATE rows SET stage = CASE WHEN record->>'state' = 'planned' AND prepared->'files' <> '{{}}'
            AND NOT record ?| array['video_asset', 'audio_asset'] THEN 'prepare' ELSE 'ready' END,
        version = version + 1, deferred = NULL
    WHERE run = %(run)s AND stage = 'skipped' AND NOT EXISTS (SELECT FROM given WHERE given.key = rows.key)
        AND EXISTS (TABLE all_unmoved)
), account AS (
    UPDATE accounts SET halted = NULL, next_request = CASE
        WHEN runs.options->'max_requests_per_second' = %(options)s->'max_requests_per_second' THEN next_request ELSE 0
    END  -- what waits was put off at the rate of before
    FROM runs WHERE runs.id = %(run)s AND accounts.id = runs.account
        AND EXISTS (TABLE all_unmoved)
)
UPDATE runs SET options = %(options)s WHERE id = %(run)s
    AND EXISTS (TABLE all_unmoved)
RETURNING pg_notify('{CHANNEL}', '0')
"""  # noqa: S608 a name of ours

_MOVED: Final[LiteralString] = """
DELETE FROM changes USING rows
WHERE changes.run = %(run)s AND rows.run = changes.run AND rows.key = changes.key
    AND rows.version <> (changes.change->>'version')::bigint - 1
RETURNING changes.key
"""
"""Forgets the changes of rows that workers have moved on since they were compared, and returns their keys."""
