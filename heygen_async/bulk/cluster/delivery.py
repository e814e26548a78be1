"""How work reaches a worker: a small protocol, and the engine behind it, procrastinate on the same database.

Rule 1: what is delivered is the key and version of a row, nothing else; a delivery of an old version does nothing.
Rule 2: nothing depends on the engine's memory. What it loses, or has given to a worker that died, is delivered again.
Rule 3: each kind of work has slots of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol, TypeAlias, cast

import attrs
import procrastinate
from anyio import to_thread
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.schema import SchemaManager
from procrastinate.types import JSONValue
from psycopg import sql

from heygen_async._task_group import TaskGroup
from heygen_async.bulk.cluster.accounts import ALIVE_SECONDS
from heygen_async.bulk.cluster.database import ClusterError, Database, DatabaseLost, keeping_cancellation
from heygen_async.bulk.cluster.rows import Ticket, WorkKind
from heygen_async.bulk.cluster.schema import ENGINE_SCHEMA

_TASK: Final = "step"
_POLL: Final = 2.0
"""Seconds between two looks of the engine for work that it was not notified of."""
_PAUSE: Final = 0.2
"""Seconds between two attempts to fetch work while the database is away."""
_NOBODY: Final = cast("int", None)
"""The engine does not know who does the work: the rows say that."""

_logger: Final = logging.getLogger("heygen_async")
for _name in ("procrastinate", "psycopg.pool"):
    # What ends a step is in its record, and what ends a connection in an error of ours.
    logging.getLogger(_name).addHandler(logging.NullHandler())

Handle: TypeAlias = Callable[[Ticket], Awaitable[None]]


class WorkDelivery(Protocol):
    """Brings work to workers."""

    def defer(self, kind: WorkKind, tickets: Sequence[Ticket]) -> Awaitable[None]:
        """Have work done by any worker that has a slot of its kind.

        Raises:
            DatabaseLost: If it is not known whether it was taken.
        """
        ...

    def queued(self) -> Awaitable[set[Ticket]]:
        """Return the work that waits and that no worker has yet."""
        ...

    async def serve(self, kind: WorkKind, slots: int, handle: Handle) -> None:
        """Give work of a kind to *handle*, as much at once as there are slots, until cancelled."""
        ...

    @property
    def channels(self) -> Mapping[str, WorkKind]:
        """The channels of the database on which new work is notified, by kind."""
        ...

    def wake(self, kind: WorkKind) -> None:
        """Look for work of a kind now: it was notified."""
        ...


class Procrastinate:
    """The engine. Its jobs are deleted when they end, whatever came of them.

    Args:
        database: The database.
        account: The account whose work this is.
    """

    def __init__(self, database: Database, account: int) -> None:
        self._account = account
        self._database = database
        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector())
        self._wakes = {kind: asyncio.Event() for kind in WorkKind}

    async def open(self) -> None:
        """Open the engine on the connections of the database."""
        await self._app.open_async(self._database.pool)

    async def defer(self, kind: WorkKind, tickets: Sequence[Ticket]) -> None:
        """Have work done by any worker that has a slot of its kind."""
        if not tickets:
            return
        deferrer = self._app.configure_task(_TASK, queue=self._queue(kind), allow_unknown=True)
        arguments: list[dict[str, JSONValue]] = [attrs.asdict(one) for one in tickets]
        with _engine_errors():
            await deferrer.batch_defer_async(*arguments)

    async def queued(self) -> set[Ticket]:
        """Return the work that waits and that no worker has yet."""
        found: set[Ticket] = set()
        with _engine_errors():
            for kind in WorkKind:
                jobs = await self._app.job_manager.list_jobs_async(queue=self._queue(kind), status="todo")
                found |= {_ticket(job.task_kwargs) for job in jobs}
        return found

    @property
    def channels(self) -> Mapping[str, WorkKind]:
        """The channels on which the engine notifies new work."""
        return {f"procrastinate_queue_v1#{self._queue(kind)}": kind for kind in WorkKind}

    def wake(self, kind: WorkKind) -> None:
        """Look for work of a kind now."""
        self._wakes[kind].set()

    async def serve(self, kind: WorkKind, slots: int, handle: Handle) -> None:
        """Give work of a kind to *handle* until cancelled."""
        # The engine's own worker is not used: after the database was away it receives no notifications.
        free = asyncio.Semaphore(slots)
        async with TaskGroup() as tasks:
            while True:
                await free.acquire()
                self._wakes[kind].clear()
                job = await self._fetch(kind)
                if job is None:
                    free.release()
                    await self._until_woken(kind)
                else:
                    tasks.create_task(self._give(job, handle)).add_done_callback(lambda _: free.release())

    async def _fetch(self, kind: WorkKind) -> Job | None:
        try:
            with _engine_errors():
                return await self._app.job_manager.fetch_job(queues=[self._queue(kind)], worker_id=_NOBODY)
        except DatabaseLost as error:
            _logger.info("no work can be fetched: %s", error)
            await asyncio.sleep(_PAUSE)
            self._wakes[kind].set()
            return None

    async def _until_woken(self, kind: WorkKind) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL):
                await self._wakes[kind].wait()

    async def _give(self, job: Job, handle: Handle) -> None:
        await handle(_ticket(job.task_kwargs))
        with suppress(DatabaseLost), _engine_errors():
            await self._app.job_manager.finish_job(job=job, status=Status.SUCCEEDED, delete_job=True)

    def _queue(self, kind: WorkKind) -> str:
        return f"heygen-{self._account}-{kind}"


async def make_engine_tables(database: Database) -> None:
    """Create the tables of the engine; those of another version are replaced unless workers use them.

    Nothing depends on what is in them.
    """
    schema, version = sql.Identifier(ENGINE_SCHEMA), procrastinate.__version__
    found = await _engine_versions(database)
    if found == [version] or (found and await _has_workers(database)):
        return
    tables = sql.SQL(await to_thread.run_sync(SchemaManager.get_schema))
    replace = sql.SQL(
        "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS {version}; "
        "SET LOCAL search_path TO {schema}; {tables}"
    )
    await database.fetch(replace.format(schema=schema, version=sql.Literal(version), tables=tables))


async def check_engine(database: Database) -> None:
    """Check that the tables of the engine are those of its version here.

    Raises:
        ClusterError: If workers are running that have another version of it.
    """
    here = procrastinate.__version__
    for version in await _engine_versions(database):
        if version != here:
            raise ClusterError(
                f"the workers that are running have procrastinate {version}, and this machine has {here}: install the "
                "same version on all machines, or stop these workers first"
            )


async def _engine_versions(database: Database) -> list[str | None]:
    """Return the version that the tables of the engine are of, if there are any."""
    found = await database.fetch(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %(name)s",
        {"name": ENGINE_SCHEMA},
    )
    return [version for (version,) in found]


async def _has_workers(database: Database) -> bool:
    """Return whether workers are alive."""
    found = await database.fetch(
        "SELECT 1 FROM workers WHERE beat > unix_time() - %(seconds)s LIMIT 1", {"seconds": ALIVE_SECONDS}
    )
    return bool(found)


async def remove_abandoned_work(database: Database) -> None:
    """Remove what workers that were killed have left in the engine: work that was given to them long ago."""
    await database.fetch(
        "DELETE FROM procrastinate_jobs USING procrastinate_events AS events "
        "WHERE events.job_id = procrastinate_jobs.id AND events.type = 'started' AND status = 'doing' "
        "AND events.at < now() - interval '1 day'"
    )


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        with keeping_cancellation():
            yield
    except ConnectorException as error:
        raise DatabaseLost(f"the database does not answer: {error.__cause__ or error}") from None


def _ticket(arguments: Mapping[str, Any]) -> Ticket:
    return Ticket(arguments["run"], arguments["key"], arguments["version"])
