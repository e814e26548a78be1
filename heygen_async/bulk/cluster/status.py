"""What a cluster does at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, LiteralString

from attrs import frozen

from heygen_async.bulk.cluster.accounts import ALIVE_SECONDS
from heygen_async.bulk.cluster.database import Database
from heygen_async.bulk.cluster.rows import ENDED, RunOptions, Stage
from heygen_async.bulk.limits import START

_RECENT: Final = 300.0
"""The most seconds of the past that the rate is taken from: those of the run, and of the workers that are alive."""


@frozen(kw_only=True)
class RunStatus:
    """One run."""

    name: str
    origin: str
    account: str | None
    """The account that it belongs to; `None` until a worker has begun it."""
    rows: Mapping[str, int]
    """How many rows are in each stage."""
    estimate: float
    """The estimated cost of its jobs, in dollars: `spent` and `reserved`."""
    reserved: float
    """The part of it for jobs that have not ended."""
    budget: float | None
    rate: float
    """How many rows end in a second, lately."""
    halted: str | None
    """Why nothing more is created, if so, and how that goes on."""

    @property
    def spent(self) -> float:
        """The part of the estimate for jobs that have ended."""
        return max(self.estimate - self.reserved, 0.0)

    @property
    def total(self) -> int:
        """How many rows there are."""
        return sum(self.rows.values())

    @property
    def ended(self) -> int:
        """How many rows have ended."""
        return sum(count for stage, count in self.rows.items() if stage in ENDED)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all rows will have ended; `None` if that cannot be estimated."""
        return (self.total - self.ended) / self.rate if self.rate else None


@frozen(kw_only=True)
class AccountStatus:
    """The scheduler of one account."""

    name: str
    origin: str
    in_flight: int
    """Jobs that run at HeyGen."""
    in_air: int
    """Creates that have no answer yet."""
    limit: int
    """How many jobs the account seems to take at once."""
    refusals: int
    """Creates that were answered 429."""
    scheduler: str | None
    """The worker that is the scheduler; `None` if there is none."""
    workers: Sequence[str]
    """The workers that are alive."""
    trouble: str | None
    """The last error, while the API does not answer."""


@frozen(kw_only=True)
class ClusterStatus:
    """All runs of a database, and a moment later its accounts."""

    runs: Sequence[RunStatus]
    accounts: Sequence[AccountStatus]

    @property
    def is_complete(self) -> bool:
        """Whether every row has ended."""
        return all(run.ended == run.total for run in self.runs)

    @property
    def has_failures(self) -> bool:
        """Whether rows have failed, or were skipped."""
        return any(run.rows.get(stage.value) for run in self.runs for stage in (Stage.FAILED, Stage.SKIPPED))


async def read_cluster_status(database: Database) -> ClusterStatus:
    """Return the status of a cluster."""
    runs = await database.fetch(_RUNS, {"recent": _RECENT, "gone": ALIVE_SECONDS})
    accounts = await database.fetch(_ACCOUNTS, {"gone": ALIVE_SECONDS})
    return ClusterStatus(
        runs=[
            RunStatus(
                name=name,
                origin=origin,
                account=account,
                rows={Stage(stage).value: count for stage, count in (rows or {}).items()},
                estimate=estimate,
                reserved=reserved,
                budget=RunOptions.from_json(options).budget,
                rate=rate,
                halted=halted,
            )
            for name, origin, account, options, estimate, rows, reserved, rate, halted in runs
        ],
        accounts=[
            AccountStatus(
                name=name,
                origin=origin,
                in_flight=in_flight,
                in_air=in_air,
                limit=limiter.get("limiter", {}).get("limit", START),
                refusals=limiter.get("limiter", {}).get("refusals", 0),
                scheduler=scheduler,
                workers=workers or (),
                trouble=trouble,
            )
            for name, origin, limiter, trouble, in_flight, in_air, scheduler, workers in accounts
        ],
    )


_RUNS: Final[LiteralString] = """
SELECT runs.name, runs.origin, accounts.name, runs.options, runs.spent, counts.rows, coalesce(counts.reserved, 0),
    coalesce(counts.rate, 0), accounts.halted
FROM runs LEFT JOIN accounts ON accounts.id = runs.account
CROSS JOIN LATERAL (
    SELECT greatest(unix_time() - %(recent)s, runs.created, (
        SELECT min(started) FROM workers WHERE account = runs.account AND beat > unix_time() - %(gone)s
    )) AS began
) AS span
LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(stage, count) AS rows, sum(reserved) AS reserved,
        sum(ended) / greatest(unix_time() - span.began, 1) AS rate
    FROM (
        SELECT stage, count(*) AS count, sum(counted) FILTER (WHERE reserved) AS reserved,
            count(*) FILTER (WHERE stage IN ('done', 'failed') AND changed > span.began) AS ended
        FROM rows WHERE rows.run = runs.id AND NOT is_held GROUP BY stage
    ) AS stages
) AS counts ON true
ORDER BY runs.id
"""

_ACCOUNTS: Final[LiteralString] = """
SELECT accounts.name, accounts.origin, accounts.limiter, accounts.trouble,
    (SELECT count(*) FROM rows JOIN runs ON runs.id = rows.run WHERE runs.account = accounts.id AND stage = 'flight'),
    (SELECT count(*) FROM rows JOIN runs ON runs.id = rows.run WHERE runs.account = accounts.id AND stage = 'create'),
    (SELECT name FROM workers WHERE workers.name = accounts.holder AND accounts.until > unix_time()),
    (SELECT array_agg(workers.name ORDER BY workers.name) FROM workers
        WHERE workers.account = accounts.id AND workers.beat > unix_time() - %(gone)s)
FROM accounts ORDER BY accounts.id
"""
