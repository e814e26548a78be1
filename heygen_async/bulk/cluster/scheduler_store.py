"""What the scheduler of an account reads and writes in PostgreSQL, under its lease.

Rule 1: whatever it writes is fenced by its epoch, so that one that was frozen changes nothing afterwards.
Rule 2: what an answer teaches and the clearing of that answer are one statement, so that it teaches once.
Rule 3: a worker is gone once its connection is, or once it has been silent for too long. Just after a start of the
database no worker counts as gone: all connections are lost then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

import attrs
from attrs import frozen

from heygen_async.bulk.cluster.accounts import LEASE_SECONDS, Lease, LeaseLost
from heygen_async.bulk.cluster.database import Statements, to_jsonb
from heygen_async.bulk.cluster.postgres import COLUMNS, stored_row, write
from heygen_async.bulk.cluster.rows import Run, RunOptions, Stage, StepAnswer, StoredRow, Ticket
from heygen_async.bulk.cluster.scheduler import AHEAD, AfterAnswer, Answered, AtWork, Busy, Learnt

GONE_SECONDS: Final = 0.8
"""A worker whose connection has ended counts as gone after so many seconds without a heartbeat; it may reconnect."""
SILENT_SECONDS: Final = 4.0
"""A worker that is connected counts as gone after so many seconds without a heartbeat."""
START_SECONDS: Final = 8.0
"""How long after a start of the database no worker is judged."""


@frozen(kw_only=True)
class AccountSnapshot:
    """What may be new for a scheduler."""

    halted: str | None
    """Why nothing is created, if so."""
    answered: Sequence[Answered]
    """Rows with an answer to learn from."""
    busy: Busy
    """What holds seats."""
    due: Sequence[Ticket]
    """Work that no worker has yet, and that may begin."""
    ahead: Mapping[int, int]
    """How many rows of each run are being prepared or are ready, as far as that matters."""


@frozen
class Money:
    """What is known of the money of a run, all of it at one moment."""

    spent: float
    """The estimated cost of all its jobs, in dollars."""
    longest: float
    """The longest output seen, in seconds."""
    reserved: Sequence[float]
    """What is reserved for jobs that have not ended."""


@frozen
class SchedulerStore:
    """What the scheduler reads and writes, under its lease."""

    database: Statements
    lease: Lease
    origin: str

    @property
    def _fence(self) -> dict[str, object]:
        return {"account": self.lease.account, "epoch": self.lease.epoch}

    async def renew(self, trouble: str | None) -> float:
        """Keep the lease, note the last error while the API does not answer, and return the time by the database.

        Raises:
            LeaseLost: If another scheduler has it.
        """
        found = await self.database.fetch(
            "UPDATE accounts SET until = unix_time() + %(seconds)s, trouble = %(trouble)s "
            "WHERE id = %(account)s AND epoch = %(epoch)s RETURNING unix_time()",
            {**self._fence, "seconds": LEASE_SECONDS, "trouble": trouble},
        )
        if not found:
            raise LeaseLost("another scheduler has taken over")
        return float(found[0][0])

    async def resign(self) -> None:
        """Give up the lease at once."""
        await self.database.fetch(
            "UPDATE accounts SET until = 0, holder = NULL WHERE id = %(account)s AND epoch = %(epoch)s", self._fence
        )

    async def runs(self) -> Mapping[int, Run]:
        """Return the runs of the account, new ones too."""
        found = await self.database.fetch(_RUNS, {**self._fence, "origin": self.origin})
        return {
            run: Run(options=RunOptions.from_json(options), spent=spent, longest=longest)
            for run, options, spent, longest in found
        }

    async def snapshot(self, runs: Collection[int]) -> AccountSnapshot:
        """Return what may be new."""
        values = {**self._fence, "runs": list(runs), "limit": AHEAD}
        ((halted, answered, busy, due, ahead),) = await self.database.fetch(_SNAPSHOT, values)
        counts: dict[str, dict[int, int]] = {Stage.FLIGHT: {}, Stage.CREATE: {}}
        for run, stage, count in busy:
            counts[stage][run] = count
        return AccountSnapshot(
            halted=halted,
            answered=[_answered(one) for one in answered],
            busy=Busy(counts[Stage.FLIGHT], counts[Stage.CREATE]),
            due=[Ticket(run, key, version) for run, key, version in due],
            ahead=dict(ahead),
        )

    async def save_learnt(self, learnt: Learnt, updates: Sequence[AfterAnswer]) -> None:
        """Save what was learnt, and clear the answers that taught it.

        Raises:
            LeaseLost: If another scheduler has taken over; then nothing was saved.
        """
        rows = [{**attrs.asdict(one.ticket), "due": one.due, "unanswered": list(one.unanswered)} for one in updates]
        values = {**self._fence, "learnt": to_jsonb(learnt.to_json()), "rows": to_jsonb(rows)}
        if not await self.database.fetch(_SAVE_LEARNT, values):
            raise LeaseLost("another scheduler has taken over")

    async def ready(self, runs: Collection[int], limit: int) -> list[StoredRow]:
        """Return rows that want a seat: first those that may have a job, then by run and number."""
        found = await self.database.fetch(_READY, {"runs": list(runs), "limit": limit})
        return [stored_row(values) for values in found]

    async def to_prepare(self, rooms: Mapping[int, int]) -> list[StoredRow]:
        """Return rows whose files are to be uploaded, in their order: of each run so many as there is room for."""
        given = [{"run": run, "room": room} for run, room in rooms.items()]
        found = await self.database.fetch(_TO_PREPARE, {"rooms": to_jsonb(given)})
        return [stored_row(values) for values in found]

    async def money(self, runs: Collection[int]) -> Mapping[int, Money]:
        """Return the money of runs."""
        found = await self.database.fetch(_MONEY, {"runs": list(runs)})
        return {run: Money(spent, longest, reserved) for run, spent, longest, reserved in found}

    async def mark_deferred(self, tickets: Iterable[Ticket]) -> list[tuple[Ticket, Stage]]:
        """Note that work is given to the engine now; return what is still to be done."""
        return await self._advance(_MARK_DEFERRED, tickets)

    async def take_back(self, tickets: Iterable[Ticket]) -> list[tuple[Ticket, Stage]]:
        """Take work from workers that are gone, and return it at its new version."""
        return await self._advance(_TAKE_BACK, tickets)

    async def _advance(self, statement: LiteralString, tickets: Iterable[Ticket]) -> list[tuple[Ticket, Stage]]:
        values = {**self._fence, "rows": to_jsonb([attrs.asdict(one) for one in tickets])}
        found = await self.database.fetch(statement, values)
        return [(Ticket(run, key, version), Stage(stage)) for run, key, version, stage in found]

    async def at_work(self, runs: Collection[int]) -> list[AtWork]:
        """Return the work that was given to the engine."""
        found = await self.database.fetch(_AT_WORK, {"runs": list(runs)})
        return [AtWork(Ticket(run, key, version), holder, deferred) for run, key, version, holder, deferred in found]

    async def dead_workers(self) -> set[str]:
        """Return the workers that hold rows and are gone, or have been silent for too long; never the scheduler's."""
        values = {
            **self._fence,
            "silent": SILENT_SECONDS,
            "gone": GONE_SECONDS,
            "start": START_SECONDS,
        }
        return {name for (name,) in await self.database.fetch(_DEAD, values)}

    async def in_flight(self, runs: Collection[int]) -> list[tuple[Ticket, str, float]]:
        """Return the jobs that run: their rows, ids, and when they were sent."""
        found = await self.database.fetch(
            "SELECT run, key, version, lipsync_id, coalesce(asked_at, 0) FROM rows "
            "WHERE stage = 'flight' AND run = ANY(%(runs)s)",
            {"runs": list(runs)},
        )
        return [(Ticket(run, key, version), job, asked_at) for run, key, version, job, asked_at in found]

    async def load(self, tickets: Iterable[Ticket]) -> list[StoredRow]:
        """Return rows that still have the version of their tickets."""
        found = await self.database.fetch(_LOAD, {"rows": to_jsonb([attrs.asdict(one) for one in tickets])})
        return [stored_row(values) for values in found]

    async def write(self, rows: Sequence[StoredRow], *, now: float | None = None) -> set[Ticket]:
        """Save rows; *now* is when they are given to the engine, if they are. Return those that were saved."""
        return await write(
            self.database,
            self.lease.account,
            rows,
            fence=self.lease.epoch,
            deferred=now,
        )

    async def timeline(self) -> str:
        """Return what changes when the database was restored from a copy that may miss the last writes."""
        ((system, timeline),) = await self.database.fetch(
            "SELECT system_identifier, timeline_id FROM pg_control_system(), pg_control_checkpoint()"
        )
        return f"{system}.{timeline}"


def _answered(values: Sequence[Any]) -> Answered:
    run, key, version, stage, answer, retry_after, epoch, due, count, answers, job, asked_at = values
    return Answered(
        ticket=Ticket(run, key, version),
        stage=Stage(stage),
        answer=StepAnswer(answer),
        retry_after=retry_after,
        epoch=epoch,
        due=due,
        unanswered=(count, answers),
        lipsync_id=job,
        asked_at=asked_at,
    )


_RUNS: Final[LiteralString] = """
WITH taken AS (
    UPDATE runs SET account = %(account)s
    WHERE origin = %(origin)s AND account IS NULL
        AND EXISTS (SELECT 1 FROM accounts WHERE id = %(account)s AND epoch = %(epoch)s)
    RETURNING id, options, spent, longest
)
SELECT id, options, spent, longest FROM runs WHERE account = %(account)s UNION ALL SELECT * FROM taken
ORDER BY id
"""

_SAVE_LEARNT: Final[LiteralString] = """
WITH lease AS (
    UPDATE accounts SET limiter = %(learnt)s WHERE id = %(account)s AND epoch = %(epoch)s RETURNING 1
), given AS (
    SELECT * FROM jsonb_to_recordset(%(rows)s) AS given (
        run integer, key text, version bigint, due double precision, unanswered integer[]
    )
), cleared AS (
    UPDATE rows SET answer = NULL,
        due = CASE WHEN rows.version = given.version THEN given.due ELSE rows.due END,
        unanswered = given.unanswered
    FROM given WHERE rows.run = given.run AND rows.key = given.key AND EXISTS (SELECT 1 FROM lease)
)
SELECT 1 FROM lease
"""

_READY: Final[LiteralString] = f"""
SELECT {COLUMNS} FROM rows
WHERE stage = 'ready' AND NOT is_held AND answer IS NULL AND run = ANY(%(runs)s) AND due <= unix_time()
ORDER BY resend DESC, run, number LIMIT %(limit)s
"""  # noqa: S608 names of ours

_TO_PREPARE: Final[LiteralString] = f"""
SELECT {COLUMNS} FROM jsonb_to_recordset(%(rooms)s) AS given (run integer, room integer), LATERAL (
    SELECT * FROM rows
    WHERE stage = 'prepare' AND NOT is_held AND deferred IS NULL AND holder IS NULL AND answer IS NULL
        AND run = given.run AND due <= unix_time()
    ORDER BY number LIMIT given.room
) AS rows
ORDER BY rows.run, rows.number
"""  # noqa: S608 names of ours

_SNAPSHOT: Final[LiteralString] = """
SELECT
    (SELECT halted FROM accounts WHERE id = %(account)s),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(run, key, version, stage, answer, retry_after, epoch, due,
            unanswered[1], unanswered[2], lipsync_id, asked_at)), '[]')
        FROM rows WHERE answer IS NOT NULL AND run = ANY(%(runs)s)),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(run, stage, count)), '[]')
        FROM (SELECT run, stage, count(*) FROM rows WHERE stage IN ('create', 'flight') AND run = ANY(%(runs)s)
            GROUP BY run, stage) AS busy),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(run, key, version)), '[]')
        FROM (SELECT run, key, version FROM rows
            WHERE stage IN ('create', 'search', 'download') AND deferred IS NULL AND holder IS NULL AND NOT is_held
                AND answer IS NULL AND run = ANY(%(runs)s) AND due <= unix_time()
            ORDER BY run, number LIMIT 200) AS due),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(run, count)), '[]')
        FROM unnest(%(runs)s::integer[]) AS given (of_run), LATERAL (SELECT of_run AS run, count(*) FROM (
            (SELECT 1 FROM rows WHERE stage = 'prepare' AND NOT is_held AND (deferred IS NOT NULL OR holder IS NOT NULL)
                AND run = of_run LIMIT %(limit)s)
            UNION ALL
            (SELECT 1 FROM rows WHERE stage = 'ready' AND NOT is_held AND resend AND run = of_run LIMIT %(limit)s)
            UNION ALL
            (SELECT 1 FROM rows WHERE stage = 'ready' AND NOT is_held AND NOT resend AND run = of_run LIMIT %(limit)s)
        ) AS found) AS ahead WHERE count > 0)
"""

_MONEY: Final[LiteralString] = """
SELECT id, spent, longest, ARRAY(SELECT counted FROM rows WHERE reserved AND run = runs.id)
FROM runs WHERE id = ANY(%(runs)s)
"""

_ROWS: Final[LiteralString] = """
WITH lease AS (
    SELECT 1 FROM accounts WHERE id = %(account)s AND epoch = %(epoch)s FOR SHARE
), given AS (
    SELECT * FROM jsonb_to_recordset(%(rows)s) AS given (run integer, key text, version bigint)
)
"""

_MARK_DEFERRED: Final[LiteralString] = (
    _ROWS  # noqa: S608 no value
    + """
UPDATE rows SET deferred = unix_time() FROM given
WHERE rows.run = given.run AND rows.key = given.key AND rows.version = given.version AND rows.holder IS NULL
    AND EXISTS (SELECT 1 FROM lease)
RETURNING rows.run, rows.key, rows.version, rows.stage
"""
)

_TAKE_BACK: Final[LiteralString] = (
    _ROWS  # noqa: S608 no value
    + """
UPDATE rows SET version = rows.version + 1, holder = NULL, fresh = false, deferred = unix_time() FROM given
WHERE rows.run = given.run AND rows.key = given.key AND rows.version = given.version AND rows.holder IS NOT NULL
    AND EXISTS (SELECT 1 FROM lease)
RETURNING rows.run, rows.key, rows.version, rows.stage
"""
)

_AT_WORK: Final[LiteralString] = """
SELECT run, key, version, holder, deferred FROM rows
WHERE stage IN ('prepare', 'create', 'search', 'download') AND NOT is_held
    AND (holder IS NOT NULL OR deferred IS NOT NULL) AND run = ANY(%(runs)s)
"""

_DEAD: Final[LiteralString] = """
SELECT DISTINCT rows.holder FROM rows
LEFT JOIN workers ON workers.name = rows.holder
LEFT JOIN pg_stat_activity USING (pid)
WHERE rows.holder IS NOT NULL AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => %(start)s)
    AND (
        workers.name IS NULL OR workers.beat < unix_time() - %(silent)s
        OR (pg_stat_activity.pid IS NULL AND workers.beat < unix_time() - %(gone)s)
    )
    AND rows.run IN (SELECT id FROM runs WHERE account = %(account)s)
    AND rows.holder IS DISTINCT FROM (SELECT holder FROM accounts WHERE id = %(account)s AND epoch = %(epoch)s)
"""

_LOAD: Final[LiteralString] = f"""
SELECT {COLUMNS} FROM rows JOIN jsonb_to_recordset(%(rows)s) AS given (run integer, key text, version bigint)
    ON rows.run = given.run AND rows.key = given.key AND rows.version = given.version
WHERE rows.answer IS NULL OR rows.stage = 'flight'
"""  # noqa: S608 names of ours
