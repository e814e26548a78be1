"""The account row in PostgreSQL, and what workers do with it: the lease, the steps of rows, the pace of requests.

Rule 1: a lease is taken with a new epoch once its holder is silent, or its connection is gone.
Rule 2: a step is begun at one version of its row, by one worker.
"""

from __future__ import annotations

import secrets
from typing import Final, LiteralString

import attrs
from attrs import frozen

from heygen_async.bulk.cluster.database import ClusterError, Statements
from heygen_async.bulk.cluster.postgres import COLUMNS, stored_row
from heygen_async.bulk.cluster.rows import RunOptions, StoredRow, Ticket
from heygen_async.bulk.cluster.scheduler import Learnt

LEASE_SECONDS: Final = 2.5
"""How long a scheduler holds an account without renewing that."""
ALIVE_SECONDS: Final = 2.0
"""How old the last heartbeat of a worker may be that others count on, in seconds."""


class LeaseLost(ClusterError):
    """Raised when another scheduler has taken over."""


@frozen
class Lease:
    """The right to schedule an account, and what was known of it when that was taken."""

    account: int
    epoch: int
    learnt: Learnt
    now: float
    """The time, by the database."""


async def join_account(database: Statements, origin: str, name: str) -> int:
    """Return the account with this name at an origin."""
    ((account,),) = await database.fetch(
        "INSERT INTO accounts (origin, name) VALUES (%(origin)s, %(name)s) "
        "ON CONFLICT (origin, name) DO UPDATE SET name = excluded.name RETURNING id",
        {"origin": origin, "name": name},
    )
    return int(account)


@frozen
class AccountStore:
    """The statements of one account."""

    database: Statements
    account: int

    # Workers

    async def take_lease(self, worker: str) -> Lease | None:
        """Become the scheduler if there is none, or if it is gone or silent."""
        found = await self.database.fetch(
            _TAKE_LEASE, {"account": self.account, "worker": worker, "seconds": LEASE_SECONDS}
        )
        return None if not found else Lease(self.account, found[0][0], Learnt.from_json(found[0][1]), found[0][2])

    async def rest(self, worker: str, seconds: float) -> None:
        """Note that a worker does nothing for a while."""
        await self.database.fetch(
            "UPDATE workers SET rests_until = unix_time() + %(seconds)s WHERE name = %(worker)s",
            {"worker": worker, "seconds": seconds},
        )

    async def has_others(self, worker: str) -> bool:
        """Return whether another worker is alive and at work."""
        ((found,),) = await self.database.fetch(
            "SELECT count(*) FROM workers WHERE account = %(account)s AND name <> %(worker)s "
            "AND beat > unix_time() - %(seconds)s AND rests_until < unix_time()",
            {"account": self.account, "worker": worker, "seconds": ALIVE_SECONDS},
        )
        return bool(found)

    async def claim(self, ticket: Ticket, worker: str) -> tuple[StoredRow, RunOptions, float] | None:
        """Begin the step of a row, unless it has another version or somebody else has begun it.

        Returns:
            The row, the options of its run, and the time by the database.
        """
        values = {**attrs.asdict(ticket), "worker": worker, "token": secrets.token_hex(8)}
        found = await self.database.fetch(_CLAIM, values)
        if not found:
            return None
        *row, options, now = found[0]
        return stored_row(row), RunOptions.from_json(options), now

    async def release(self, ticket: Ticket, worker: str, *, is_begun: bool) -> Ticket | None:
        """Give back a row whose step was not taken to its end; return it at its version, or `None` if it is not held.

        That may be a later one than is known here: a save may have had no answer.

        Args:
            ticket: The row.
            worker: The worker that holds it.
            is_begun: Whether anything may have been sent.
        """
        found = await self.database.fetch(
            "UPDATE rows SET holder = NULL, fresh = fresh AND NOT %(begun)s, deferred = unix_time() "
            "WHERE run = %(run)s AND key = %(key)s AND holder = %(worker)s RETURNING run, key, version",
            {**attrs.asdict(ticket), "worker": worker, "begun": is_begun},
        )
        return Ticket(*found[0]) if found else None

    async def pace(self) -> float:
        """Reserve the time of one request of the account, and return the seconds until then."""
        found = await self.database.fetch(_PACE, {"account": self.account})
        return float(found[0][0]) if found else 0.0

    async def halt(self, reason: str | None) -> None:
        """Note why nothing more is created, or that creates may go again."""
        await self.database.fetch(
            "UPDATE accounts SET halted = %(reason)s WHERE id = %(account)s",
            {"account": self.account, "reason": reason},
        )


_TAKE_LEASE: Final[LiteralString] = """
UPDATE accounts SET epoch = epoch + 1, holder = %(worker)s, until = unix_time() + %(seconds)s
WHERE id = %(account)s AND (
    until < unix_time() OR holder IS NULL OR holder = %(worker)s OR NOT EXISTS (
        SELECT 1 FROM workers JOIN pg_stat_activity USING (pid) WHERE workers.name = accounts.holder
    )
)
RETURNING epoch, limiter, unix_time()
"""

MOST_REQUESTS: Final[LiteralString] = """
SELECT min((options->>'max_requests_per_second')::double precision) AS most FROM runs
WHERE options->>'max_requests_per_second' IS NOT NULL
    AND (
        account = %(account)s
        OR (account IS NULL AND origin = (SELECT accounts.origin FROM accounts WHERE accounts.id = %(account)s))
    )
    AND (
        EXISTS (SELECT FROM rows WHERE run = runs.id AND stage IN ('prepare', 'create', 'search', 'download'))
        OR EXISTS (SELECT FROM rows WHERE run = runs.id AND stage IN ('create', 'flight'))
        OR EXISTS (SELECT FROM rows WHERE run = runs.id AND stage = 'ready' AND NOT is_held AND resend)
        OR EXISTS (SELECT FROM rows WHERE run = runs.id AND stage = 'ready' AND NOT is_held AND NOT resend)
    )
"""
"""The requests a second that the runs of an account allow, those too that it may be about to take; null is no limit.

Only those that have not ended. Each look for rows that have not is by one of the indexes."""

_PACE: Final[LiteralString] = f"""
WITH pace AS (
    SELECT 1 / most AS gap FROM ({MOST_REQUESTS}) AS allowed
)
UPDATE accounts SET next_request = greatest(next_request, unix_time()) + gap FROM pace
WHERE id = %(account)s AND gap IS NOT NULL
RETURNING next_request - gap - unix_time()
"""  # noqa: S608 a statement of ours

_CLAIM: Final[LiteralString] = f"""
UPDATE rows SET holder = %(worker)s, token = %(token)s
WHERE run = %(run)s AND key = %(key)s AND version = %(version)s AND NOT is_held
    AND (holder IS NULL OR (holder = %(worker)s AND token = %(token)s))
RETURNING {COLUMNS}, (SELECT options FROM runs WHERE runs.id = rows.run), unix_time()
"""  # noqa: S608 names of ours
