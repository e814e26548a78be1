"""The store of one run in PostgreSQL, and the writes of a row that workers and the scheduler share.

Rule 1: every write of a row is one statement, fenced by the row's version, and that of a scheduler by its epoch too.
Rule 2: a write that is repeated because its answer was lost finds its own token, and does nothing more.
Rule 3: times are the database's.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

from attrs import frozen

from heygen_async._ids import is_id
from heygen_async.bulk.budget import length_of
from heygen_async.bulk.cluster.database import Statements, to_jsonb
from heygen_async.bulk.cluster.rows import (
    Stage,
    StepAnswer,
    StoredRow,
    Ticket,
    record_from_json,
    record_to_json,
    row_from_json,
)
from heygen_async.bulk.cluster.schema import CHANNEL
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import Admission, Entry, LostRow, Problem
from heygen_async.models import JSON

GIVEN: Final[LiteralString] = """given (
    run integer, key text, number integer, version bigint, stage text, resend boolean, due double precision,
    deferred double precision, answer text, retry_after double precision, epoch bigint, price double precision,
    reserved boolean, unanswered integer[], lipsync_id text, asked_at double precision, fresh boolean, prepared jsonb,
    record jsonb, claims jsonb
)"""
"""The columns of rows that are given to a statement as JSON; those that it does not need may be missing."""

WRITE: Final[LiteralString] = f"""
WITH lease AS (
    SELECT 1 FROM accounts WHERE id = %(account)s AND epoch = %(fence)s::bigint FOR SHARE
), given AS (
    SELECT * FROM jsonb_to_recordset(%(rows)s) AS {GIVEN}
), written AS (
    UPDATE rows SET
        version = given.version, token = %(token)s, stage = given.stage, resend = given.resend,
        deferred = given.deferred, holder = NULL, fresh = given.fresh,
        retry_after = given.retry_after, epoch = given.epoch, price = given.price, reserved = given.reserved,
        lipsync_id = given.lipsync_id, asked_at = given.asked_at,
        changed = unix_time(), record = given.record,
        -- If it was written before, the scheduler may have learnt from it since: it teaches once.
        due = CASE WHEN rows.version = given.version THEN rows.due ELSE given.due END,
        answer = CASE WHEN rows.version = given.version THEN rows.answer ELSE given.answer END,
        unanswered = CASE WHEN rows.version = given.version THEN rows.unanswered ELSE given.unanswered END
    FROM given
    WHERE rows.run = given.run AND rows.key = given.key
        AND (rows.version = given.version - 1 OR (rows.version = given.version AND rows.token = %(token)s))
        AND (%(fence)s::bigint IS NULL OR EXISTS (SELECT 1 FROM lease))
    RETURNING rows.run, rows.key, rows.version
), notified AS (
    SELECT pg_notify('{CHANNEL}', %(account)s::text) WHERE %(notifies)s AND EXISTS (SELECT 1 FROM written)
)
SELECT written.* FROM written LEFT JOIN notified ON true
"""  # noqa: S608 names of ours

COLUMNS: Final[LiteralString] = (
    "rows.run, rows.prepared, rows.record, rows.version, rows.number, rows.stage, rows.due, rows.answer, "
    "rows.retry_after, rows.epoch, rows.price, rows.reserved, rows.unanswered, rows.fresh"
)


def stored_row(values: Sequence[Any]) -> StoredRow:
    """Return the row of a result with `COLUMNS`."""
    (
        run,
        prepared,
        record,
        version,
        number,
        stage,
        due,
        answer,
        retry_after,
        epoch,
        price,
        reserved,
        unanswered,
        fresh,
    ) = values
    found = record_from_json(record, version, fresh=fresh)
    return StoredRow(
        run=run,
        row=row_from_json(prepared, number, found.inputs),
        record=found,
        stage=Stage(stage),
        due=due,
        answer=None if answer is None else StepAnswer(answer),
        retry_after=retry_after,
        epoch=epoch,
        price=price,
        reserved=reserved,
        unanswered=(unanswered[0], unanswered[1]),
    )


def written_row(row: StoredRow, *, deferred: float | None) -> dict[str, JSON]:
    """Return a row as `WRITE` takes it."""
    record = row.record
    return {
        "run": row.run,
        "key": row.row.key,
        "version": record.version,
        "stage": row.stage,
        "resend": record.state is State.SUBMITTING,
        "due": row.due,
        "deferred": deferred,
        "answer": row.answer,
        "retry_after": row.retry_after,
        "epoch": row.epoch,
        "price": row.price,
        "reserved": row.reserved,
        "unanswered": list(row.unanswered),
        "lipsync_id": record.lipsync_id,
        "asked_at": record.sent_at,
        "fresh": record.is_fresh,
        "record": record_to_json(record),
    }


async def write(
    database: Statements,
    account: int,
    rows: Iterable[StoredRow],
    *,
    fence: int | None = None,
    deferred: float | None = None,
    notifies: bool = False,
) -> set[Ticket]:
    """Save rows, each for itself, and return those that were saved; the others have another version by now.

    Args:
        database: The database.
        account: The account that they belong to.
        rows: The rows at their new versions.
        fence: The epoch of the scheduler that writes; `None` for a worker.
        deferred: When they are given to the engine, if they are.
        notifies: Whether to notify the scheduler.
    """
    values = {
        "account": account,
        "rows": to_jsonb([written_row(row, deferred=deferred) for row in rows]),
        "fence": fence,
        "token": secrets.token_hex(8),
        "notifies": notifies,
    }
    return {Ticket(*found) for found in await database.fetch(WRITE, values)}


async def learn_length(database: Statements, stored: StoredRow) -> None:
    """Note the length of the output of a row once its cost is saved: with both, others may get more of the budget."""
    seconds = None if stored.record.job is None else length_of(stored.record.job)
    if seconds is not None and stored.row.seconds is None:  # that of a part says nothing of lengths that are not known
        await database.fetch(
            "UPDATE runs SET longest = %(seconds)s WHERE id = %(run)s AND longest < %(seconds)s",
            {"run": stored.run, "seconds": seconds},
        )


@frozen
class PostgresStore:
    """The records of one run; see `heygen_async.bulk.store.Store`.

    Args:
        database: The database.
        account: The account.
        run: The run.
    """

    _database: Statements
    account: int
    run: int

    async def admit(self, entries: Sequence[Entry]) -> Sequence[Admission]:
        """Return the records of rows that were enqueued."""
        found = await self.records([entry.key for entry in entries])
        return [
            found.get(entry.key) or Problem(entry.place, f"the row {entry.key} was not enqueued") for entry in entries
        ]

    async def records(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """Return the records of the rows with these keys, as far as there are any."""
        found = await self._database.fetch(
            "SELECT record, version FROM rows WHERE run = %(run)s AND key = ANY(%(keys)s)",
            {"run": self.run, "keys": list(keys)},
        )
        return {record.key: record for record in (record_from_json(*values) for values in found)}

    async def save(self, *records: Record) -> None:
        """Save records, all of them or none.

        Raises:
            LostRow: If somebody else has written that version.
        """
        values = {
            "run": self.run,
            "token": secrets.token_hex(8),
            "records": to_jsonb([_saved(record) for record in records]),
            "count": len(records),
        }
        if len(await self._database.fetch(_SAVE, values)) < len(records):
            raise LostRow(f"{', '.join(record.key for record in records)[:200]} was saved by another executor")

    async def in_doubt(self) -> Sequence[Record]:
        """Return the rows of the account for which it is not known whether there is a job."""
        found = await self._database.fetch(
            "SELECT rows.record, rows.version FROM rows JOIN runs ON runs.id = rows.run "
            "WHERE rows.resend AND runs.account = %(account)s",
            {"account": self.account},
        )
        return [record_from_json(*values) for values in found]

    async def rows_of_batch(self, batch: str) -> Sequence[Record]:
        """Return the rows that were recorded for the batch with this key."""
        found = await self._database.fetch(
            "SELECT record, version FROM rows WHERE run = %(run)s AND record->>'batch' = %(batch)s",
            {"run": self.run, "batch": batch},
        )
        return [record_from_json(*values) for values in found]

    async def asset(self, digest: str) -> str | None:
        """Return the id under which the content with *digest* was uploaded."""
        found = await self._database.fetch(
            "SELECT asset_id FROM assets WHERE account = %(account)s AND digest = %(digest)s",
            {"account": self.account, "digest": digest},
        )
        return str(found[0][0]) if found else None

    async def keep_asset(self, digest: str, asset_id: str) -> None:
        """Save the asset of an uploaded content."""
        await self._database.fetch(
            "INSERT INTO assets VALUES (%(account)s, %(digest)s, %(asset)s) "
            "ON CONFLICT (account, digest) DO UPDATE SET asset_id = excluded.asset_id",
            {"account": self.account, "digest": digest, "asset": asset_id},
        )

    async def forget_assets(self, asset_ids: Sequence[str]) -> None:
        """Forget assets that the server no longer has."""
        await self._database.fetch(
            "DELETE FROM assets WHERE account = %(account)s AND asset_id = ANY(%(assets)s)",
            {"account": self.account, "assets": list(asset_ids)},
        )

    async def known_jobs(self, lipsync_ids: Sequence[str]) -> set[str]:
        """Return those of the jobs that belong to a row of the account."""
        found = await self._database.fetch(_KNOWN_JOBS, {"account": self.account, "jobs": list(lipsync_ids)})
        return {lipsync_id for (lipsync_id,) in found}

    async def fact(self, name: str) -> str | None:
        """Return a fact about the account."""
        found = await self._database.fetch(
            "SELECT value FROM facts WHERE account = %(account)s AND name = %(name)s",
            {"account": self.account, "name": name},
        )
        return str(found[0][0]) if found else None

    async def keep_fact(self, name: str, value: str) -> None:
        """Save a fact."""
        await self._database.fetch(
            "INSERT INTO facts VALUES (%(account)s, %(name)s, %(value)s) "
            "ON CONFLICT (account, name) DO UPDATE SET value = excluded.value",
            {"account": self.account, "name": name, "value": value},
        )

    async def keep_listed(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Keep jobs that were seen in the list: their ids and callback ids. One without a usable id is none of ours."""
        by_id = {job: callback_id for job, callback_id in jobs if is_id(job)}  # one statement takes each once
        await self._database.fetch(
            "INSERT INTO listed SELECT %(account)s, * FROM unnest(%(jobs)s::text[], %(callbacks)s::text[]) "
            "ON CONFLICT (account, lipsync_id) DO UPDATE SET callback_id = excluded.callback_id",
            {"account": self.account, "jobs": list(by_id), "callbacks": list(by_id.values())},
        )

    async def has_listed(self) -> bool:
        """Return whether jobs were seen in the list."""
        found = await self._database.fetch(
            "SELECT 1 FROM listed WHERE account = %(account)s LIMIT 1", {"account": self.account}
        )
        return bool(found)

    async def listed(self, callback_ids: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Return the listed jobs with one of the callback ids that belong to no row: their ids and callback ids."""
        found = await self._database.fetch(
            "SELECT lipsync_id, callback_id FROM listed WHERE account = %(account)s AND callback_id = ANY(%(ids)s)",
            {"account": self.account, "ids": list(callback_ids)},
        )
        known = await self.known_jobs([job for job, _ in found]) if found else set()
        return [(job, callback_id) for job, callback_id in found if job not in known]

    async def reconciled(self, anchor: str | None) -> None:
        """Record that all jobs up to *anchor*, the newest one, are listed: no lost write is missed."""
        await self._database.fetch(_RECONCILED, {"account": self.account, "anchor": anchor})

    def __str__(self) -> str:
        return "the cluster's database"


_SAVE: Final[LiteralString] = f"""
WITH given AS (
    SELECT * FROM jsonb_to_recordset(%(records)s) AS {GIVEN}
), found AS (
    SELECT rows.key FROM rows JOIN given USING (key)
    WHERE rows.run = %(run)s
        AND (rows.version = given.version - 1 OR (rows.version = given.version AND rows.token = %(token)s))
    FOR UPDATE OF rows
)
UPDATE rows SET version = given.version, token = %(token)s, resend = given.resend, lipsync_id = given.lipsync_id,
    asked_at = given.asked_at, record = given.record, changed = unix_time()
FROM given
WHERE rows.run = %(run)s AND rows.key = given.key AND (SELECT count(*) FROM found) = %(count)s
RETURNING rows.key
"""  # noqa: S608 names of ours

_KNOWN_JOBS: Final[LiteralString] = """
SELECT rows.lipsync_id FROM rows JOIN runs ON runs.id = rows.run
WHERE runs.account = %(account)s AND rows.lipsync_id = ANY(%(jobs)s)
UNION
SELECT old.job FROM rows JOIN runs ON runs.id = rows.run, jsonb_array_elements_text(rows.record->'earlier') AS old (job)
WHERE runs.account = %(account)s AND rows.record->'earlier' <> '[]' AND old.job = ANY(%(jobs)s)
"""

_RECONCILED: Final[LiteralString] = """
WITH gone AS (DELETE FROM facts WHERE account = %(account)s AND name = 'unclean')
INSERT INTO facts SELECT %(account)s, 'anchor', %(anchor)s::text WHERE %(anchor)s::text IS NOT NULL
ON CONFLICT (account, name) DO UPDATE SET value = excluded.value
"""


def _saved(record: Record) -> dict[str, JSON]:
    return {
        "key": record.key,
        "version": record.version,
        "resend": record.state is State.SUBMITTING,
        "lipsync_id": record.lipsync_id,
        "asked_at": record.sent_at,
        "record": record_to_json(record),
    }
