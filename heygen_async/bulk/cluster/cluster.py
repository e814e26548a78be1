"""A cluster: its database, and what a program does with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, LiteralString, Self

from anyio import to_thread
from attrs import frozen

from heygen_async._arguments import check_count, check_rate, check_text, check_type
from heygen_async._ids import segment
from heygen_async._media.targets import expanded
from heygen_async._task_group import first_error
from heygen_async._text import one_line
from heygen_async._wire import chosen_base_url
from heygen_async.bulk.budget import check_budget, check_rates
from heygen_async.bulk.cluster.accounts import ALIVE_SECONDS, AccountStore, join_account
from heygen_async.bulk.cluster.api_calls import Api, Session
from heygen_async.bulk.cluster.database import ClusterError, Database, RetryingStatements, to_jsonb
from heygen_async.bulk.cluster.delivery import Procrastinate, check_engine, make_engine_tables, remove_abandoned_work
from heygen_async.bulk.cluster.enqueue import FORGET, Enqueue, Enqueued, locked_run
from heygen_async.bulk.cluster.postgres import COLUMNS, GIVEN, stored_row, written_row
from heygen_async.bulk.cluster.rows import RunOptions, StoredRow
from heygen_async.bulk.cluster.scheduling import Tuning
from heygen_async.bulk.cluster.schema import CHANNEL
from heygen_async.bulk.cluster.status import ClusterStatus, read_cluster_status
from heygen_async.bulk.cluster.transitions import placed, retried
from heygen_async.bulk.cluster.worker import SharedPace, Slots, Worker
from heygen_async.bulk.local_files import is_utf_8
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.outputs import absolute_path, is_written
from heygen_async.bulk.own_files import OwnFiles, own_files_of
from heygen_async.bulk.owner import account_of
from heygen_async.bulk.plan import check_rows
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.record import Record
from heygen_async.bulk.report import write_report
from heygen_async.bulk.row_source import slices_of
from heygen_async.models import DubRow, Secret

_DEFAULT_RUN: Final = "default"
_PAGE: Final = 500


class Cluster:
    """The same rows as `HeyGenSession.dub_many`, on as many machines as you like, with PostgreSQL between them.

    ::

        async with Cluster("postgresql://dubbing@db.example.com/dubbing") as cluster:
            await cluster.enqueue(Manifest("episodes.csv"), output_dir="/shared/dubbed")

        async with Cluster(url) as cluster, HeyGenSession() as heygen:   # on each machine
            await cluster.work(heygen)

    Every machine sees the output folder, and local sources, under the same path. The database has no API key and no
    signed link in it.

    Args:
        database_url: The database, `postgresql://USER:PASSWORD@HOST:PORT/NAME`. The tables are made on first use, in
            the schema `heygen`. Connections that a pooler shares between statements are not enough.

    Raises:
        ValueError: If the URL cannot be read.
        ClusterError: On entering, if the database cannot be used.
    """

    def __init__(self, database_url: str) -> None:
        url = Secret(database_url)
        del database_url  # or a traceback with local variables would show its password
        self._database = Database(url)
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect, and make the tables or bring them to this version.

        Raises:
            ClusterError: If the database cannot be reached or used.
        """
        async with AsyncExitStack() as resources:
            await resources.enter_async_context(self._database)
            await self._database.migrate(lambda: make_engine_tables(self._database))
            self._resources = resources.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def enqueue(
        self,
        rows: Iterable[DubRow] | AsyncIterable[DubRow],
        *,
        output_dir: str | PathLike[str] | None = None,
        run: str | None = None,
        base_url: str | None = None,
        max_in_flight: int | None = None,
        max_attempts: int = 3,
        max_requests_per_second: float | None = None,
        budget: float | None = None,
        rates: Mapping[str, float] | None = None,
        captions: bool = False,
    ) -> Enqueued:
        """Check all rows, store them, and release them to the workers; or none, if any has a problem.

        The same rows again add nothing. A row that is stored already and has changed is worked on as it is now, and
        gets another attempt if it had failed; once it has a job, its video, audio and options must stay the same. Rows
        that are left out stay in the run. Options are those of the last call: a higher budget lets skipped rows go.

        Args:
            rows: The rows. Sources are public URLs, files in a folder that all machines share, or assets.
            output_dir: The shared folder for the videos. Without it only rows with an `output` are downloaded.
            run: A name; by default that of the manifest, if no other manifest has it. A run belongs to one API and one
                account, that of the first worker that sees it, and keeps its output folder.
            base_url: The address of the API that the workers of this run use; as for `HeyGenSession`.
            max_in_flight: The most jobs of this run at once, 1 or more; `None` finds out what the account allows.
            max_attempts: The most jobs for one row if jobs fail for transient reasons, 1 or more.
            max_requests_per_second: The most requests of all workers together to the API in a second, more than 0,
                until all rows of the run have ended.
            budget: Dollars, for the run. Rows whose jobs would exceed it are skipped.
            rates: Dollars per second of output, by mode, for the estimate; the default is the published rates.
            captions: Whether captions are written beside each video.

        Raises:
            BadRows: If rows are wrong; nothing was enqueued.
            TypeError, ValueError: If an option is wrong.
            ClusterError: If the database cannot be used, the run has another output folder, or one that is not mounted
                here, the run that has the name of the manifest is of another one, or another enqueue of it goes on.
            OSError: If an output folder cannot be written to.

        If cancelled, it withdraws its rows, unless all of them were released just before. Without the database the next
        enqueue of the run, or `prune`, withdraws them.
        """
        check_rows(rows)
        check_text("run", run)
        origin = chosen_base_url(base_url, os.getenv)
        folder = None if output_dir is None else Path(expanded(output_dir))
        options = _options(
            manifest=await to_thread.run_sync(_path_of, rows),
            output_dir=None if folder is None else await to_thread.run_sync(absolute_path, folder),
            max_in_flight=max_in_flight,
            max_attempts=max_attempts,
            max_requests_per_second=max_requests_per_second,
            budget=budget,
            rates=rates,
            captions=captions,
        )
        name = await to_thread.run_sync(_name_of, rows) if run is None else run
        opened = locked_run(self._database, origin, name, options, is_chosen=run is not None)
        async with opened as (locked, number, now):
            return await Enqueue(locked, number, name, options, now).check_and_add(slices_of(rows))

    async def work(
        self,
        heygen: Session,
        *,
        uploads: int = 4,
        downloads: int = 4,
        delays: RetryDelays | None = None,
    ) -> None:
        """Be a worker until cancelled: take steps of rows, and be the scheduler if there is none.

        Cancelled, it puts transfers back, waits up to 5 seconds for the answers of creates, and removes itself.

        Args:
            heygen: An open `HeyGenSession`. Its account's rows are worked on, those of its `base_url`.
            uploads: How many rows it prepares at once, 0 or more.
            downloads: How many files it downloads at once, 0 or more.
            delays: How long rows wait before they try again.

        Raises:
            TypeError, ValueError: If *uploads* or *downloads* is no such number.
            AuthenticationError: If the API key is refused.
            ClusterError: If the database cannot be used, or cannot be reached at the start; if a shared folder is not
                there on this machine; or if the workers that are running have another version of the engine that
                delivers steps.
            HeyGenError: If the account of the key cannot be read at the start, after the session's own retries. A key
                that may not read it is no error: its workers share an account without a name.
        """
        for name, value in {"uploads": uploads, "downloads": downloads}.items():
            check_type(name, value, int)
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, not {value}")
        api = heygen._bulk_calls()  # noqa: SLF001 as `dub_many` does
        await check_engine(self._database)
        account = await join_account(self._database, api.origin, await _account_name(api))
        pace = SharedPace(AccountStore(RetryingStatements(self._database), account))
        delivery = Procrastinate(self._database, account)
        await delivery.open()
        worker = Worker(
            self._database,
            account,
            delivery,
            heygen._bulk_calls(pace),  # noqa: SLF001 the same
            Slots(uploads=uploads, downloads=downloads),
            pace,
            Tuning(delays=delays or RetryDelays()),
        )
        failure: BaseException | None = None
        try:
            await worker.run()
        except BaseExceptionGroup as errors:
            failure = first_error(errors)
        if failure is not None:  # raised here it keeps its cause and its context
            raise failure

    async def status(self) -> ClusterStatus:
        """Return what the cluster does now.

        Raises:
            ClusterError: If the database cannot be used.

        Cancelling it affects nothing.
        """
        return await read_cluster_status(self._database)

    async def report(self, path: str | PathLike[str], *, run: str | None = None, base_url: str | None = None) -> None:
        """Write the state of each row of a run to *path*, as CSV.

        Args:
            path: The file.
            run: The run; `None` if there is only one.
            base_url: The address of its API, if runs of several have that name.

        Raises:
            TypeError, ValueError: If *base_url* cannot be one, or the manifest of the run is at *path*.
            ClusterError: If the database cannot be used, it is not clear which run, or there is none.
            OSError: If it cannot be written.

        If cancelled, *path* has either the whole report or what it had before.
        """
        number = await self._run(run, base_url)
        ((options,),) = await self._database.fetch("SELECT options FROM runs WHERE id = %(run)s", {"run": number})
        own_files = await to_thread.run_sync(_own_files, RunOptions.from_json(options))
        await write_report(_RunRows(self._database, number), Path(expanded(path)), own_files)

    async def retry_failed(self, *, run: str | None = None, base_url: str | None = None) -> int:
        """Give rows that failed, or were skipped, another attempt, final failures included; return how many.

        A row whose job was deleted gets another one if it is known whose account it is, once the API has said again
        that there is no such job. Creates that were halted go on.

        Args:
            run: The run; `None` is all of them.
            base_url: Only runs of the API with this address.

        Raises:
            TypeError, ValueError: If *base_url* cannot be one.
            ClusterError: If the database cannot be used, or there is no such run.

        If cancelled, some of the rows may have their attempt already; another call gives it to the others.
        """
        chosen = {} if run is None and base_url is None else await self._named(run, base_url)
        count = 0
        last: dict[str, object] = {"last_run": 0, "last_key": ""}
        # Each row is seen once, though the scheduler may skip it again at once.
        while rows := await self._database.fetch(_FAILED, {"runs": list(chosen) or None, "limit": _PAGE, **last}):
            again = [await _another_attempt(values) for values in rows]
            last = {"last_run": again[-1].run, "last_key": again[-1].row.key}
            values = {"rows": to_jsonb([written_row(row, deferred=None) for row in again])}
            count += len(await self._database.fetch(_RETRY, values))
        await self._database.fetch(_GO_ON, {"runs": list(chosen) or None, "channel": CHANNEL})
        return count

    async def prune(self, *, older_than: float = 7 * 86400.0) -> int:
        """Remove runs of which every row has ended, and what workers and enqueues that died have left.

        What is removed is not known any more: the same rows enqueued later are paid for again. Runs in which rows are
        being enqueued are left alone.

        Args:
            older_than: Only runs whose last row ended so many seconds ago, 0 or more.

        Returns:
            How many runs it has removed, those without rows too.

        Raises:
            TypeError, ValueError: If *older_than* is no such number.
            ClusterError: If the database cannot be used.

        If cancelled, some of the runs may be removed already.
        """
        if not older_than >= 0:  # NaN is not
            raise ValueError(f"older_than must be 0 or more, not {older_than}")
        removed = 0
        for (run,) in await self._database.fetch("SELECT id FROM runs ORDER BY id"):
            async with self._database.locked(run) as locked:
                if locked is not None:
                    await locked.fetch(FORGET, {"run": run})
                    removed += len(await locked.fetch(_PRUNE, {"run": run, "seconds": older_than}))
        await self._database.fetch(
            "DELETE FROM workers WHERE beat < unix_time() - %(seconds)s", {"seconds": 100 * ALIVE_SECONDS}
        )
        await remove_abandoned_work(self._database)
        return removed

    async def notify(self, lipsync_id: str) -> None:
        """Tell the scheduler that a job may have ended, as a webhook says; it looks at once.

        Args:
            lipsync_id: The job.

        Raises:
            TypeError, ValueError: If it is no id.
            ClusterError: If the database cannot be used.
        """
        segment("lipsync_id", lipsync_id)
        await self._database.fetch(
            "SELECT pg_notify(%(channel)s, %(text)s)", {"channel": CHANNEL, "text": f"job {lipsync_id}"}
        )

    async def _run(self, name: str | None, base_url: str | None) -> int:
        found = await self._named(name, base_url)
        if len(found) > 1:
            shown = ", ".join(f"{known} at {origin}" for known, origin in found.values())[:500]
            raise ClusterError(f"there are several runs: give run=, and base_url= if others have its name: {shown}")
        return next(iter(found))

    async def _named(self, name: str | None, base_url: str | None) -> dict[int, tuple[str, str]]:
        """Return the names and addresses of all runs with this name at this address, by number; `None` is any."""
        origin = None if base_url is None else chosen_base_url(base_url, os.getenv)
        found = await self._database.fetch("SELECT id, name, origin FROM runs ORDER BY id")
        chosen = {number: (known, at) for number, known, at in found if name in (None, known) and origin in (None, at)}
        if not chosen:
            where = "" if origin is None else f" at {origin}"
            raise ClusterError("there is no run" + ("" if name is None else f" {name}") + where)
        return chosen


@frozen
class _RunRows:
    """The rows of a run, for a report."""

    database: Database
    run: int

    async def rows(self, after: int, limit: int) -> Sequence[Record]:
        """Return rows in order, the first *limit* after row number *after*, and all that have the last number of them.

        Rows of several enqueues may have the same number.
        """
        found = await self.database.fetch(
            f"SELECT {COLUMNS} FROM rows WHERE run = %(run)s AND number > %(after)s AND NOT is_held "  # noqa: S608
            "ORDER BY number FETCH FIRST %(limit)s ROWS WITH TIES",
            {"run": self.run, "after": after, "limit": limit},
        )
        return [stored_row(values).record for values in found]


def _options(
    *,
    manifest: str | None,
    output_dir: str | None,
    max_in_flight: int | None,
    max_attempts: int,
    max_requests_per_second: float | None,
    budget: float | None,
    rates: Mapping[str, float] | None,
    captions: bool,
) -> RunOptions:
    if max_in_flight is not None:
        check_count("max_in_flight", max_in_flight)
    check_rate("max_requests_per_second", max_requests_per_second)
    check_budget(budget)
    check_type("captions", captions, bool)
    if output_dir is not None and not is_utf_8(output_dir):
        raise ValueError(f"output_dir is not valid UTF-8, so that it cannot be stored: {one_line(output_dir)}")
    return RunOptions(
        manifest=manifest,
        output_dir=output_dir,
        max_in_flight=max_in_flight,
        max_attempts=check_count("max_attempts", max_attempts),
        max_requests_per_second=max_requests_per_second,
        budget=budget,
        rates=check_rates(rates),
        captions=captions,
    )


def _own_files(options: RunOptions) -> OwnFiles:
    return own_files_of(manifest=None if options.manifest is None else Path(options.manifest), journal=None)


def _name_of(rows: object) -> str:
    """Return the name of the run of *rows*; for a thread.

    Raises:
        ValueError: If it cannot be stored.
    """
    name = rows.storable_name() if isinstance(rows, Manifest) else None
    return name or _DEFAULT_RUN


def _path_of(rows: object) -> str | None:
    """Return the file that *rows* are listed in, as it can be stored; `None` if there is none. For a thread."""
    if not isinstance(rows, Manifest) or rows.name is None:
        return None
    return os.fsencode(os.path.realpath(rows.path)).decode(errors="replace")


async def _account_name(api: Api) -> str:
    """Return the name of the account; an empty one if the key may not read it.

    Raises:
        HeyGenError: As `account_of` does. A worker that does not know its account must not take the rows of another.
    """
    account = await account_of(api)
    return "" if account is None else account.username


async def _another_attempt(values: Sequence[Any]) -> StoredRow:
    """Return a row of `_FAILED` as it is to be saved."""
    *stored, options, account, now = values
    row = retried(stored_row(stored), is_account_known=bool(account))
    most = RunOptions.from_json(options).max_attempts
    has_file = await to_thread.run_sync(is_written, row.record)
    return placed(row, now, max_attempts=most, delays=RetryDelays(), has_file=has_file).saved()


_FAILED: Final[LiteralString] = f"""
SELECT {COLUMNS}, runs.options, accounts.name, unix_time() FROM rows
JOIN runs ON runs.id = rows.run LEFT JOIN accounts ON accounts.id = runs.account
WHERE stage IN ('failed', 'skipped') AND (%(runs)s::integer[] IS NULL OR run = ANY(%(runs)s))
    AND (run, key) > (%(last_run)s, %(last_key)s)
ORDER BY run, key LIMIT %(limit)s
"""  # noqa: S608 names of ours

_RETRY: Final[LiteralString] = f"""
UPDATE rows SET version = given.version, stage = given.stage, resend = given.resend, due = given.due, deferred = NULL,
    holder = NULL, price = given.price, reserved = given.reserved, unanswered = given.unanswered,
    lipsync_id = given.lipsync_id, asked_at = given.asked_at, record = given.record, changed = unix_time()
FROM jsonb_to_recordset(%(rows)s) AS {GIVEN}
WHERE rows.run = given.run AND rows.key = given.key AND rows.version = given.version - 1
    AND given.stage NOT IN ('failed', 'skipped')
RETURNING rows.key
"""  # noqa: S608 names of ours

_GO_ON: Final[LiteralString] = """
WITH free AS (
    UPDATE accounts SET halted = NULL
    WHERE %(runs)s::integer[] IS NULL OR id IN (SELECT account FROM runs WHERE id = ANY(%(runs)s)) RETURNING id
)
SELECT pg_notify(%(channel)s, id::text) FROM free
"""

_PRUNE: Final[LiteralString] = """
DELETE FROM runs WHERE id = %(run)s AND NOT EXISTS (
    SELECT 1 FROM rows WHERE rows.run = runs.id
        AND (stage NOT IN ('done', 'failed', 'skipped') OR changed > unix_time() - %(seconds)s)
)
RETURNING id
"""
