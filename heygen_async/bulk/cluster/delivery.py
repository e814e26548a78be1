"""How work reaches a worker: a small protocol, and the engine behind it, procrastinate on the same database.

Rule 1: what is delivered is the key and version of a row, nothing else; a delivery of an old version does nothing.
Rule 2: nothing depends on the engine's memory. What it loses, or has given to a worker that died, is delivered again.
Rule 3: each kind of work has slots of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString, Protocol, TypeAlias

import attrs
import procrastinate
from procrastinate.exceptions import ConnectorException
from procrastinate.types import JSONValue
from psycopg import sql

from heygen_async.bulk.cluster.database import Database, DatabaseLost
from heygen_async.bulk.cluster.rows import Kind, Ticket

_TASK: Final = "step"
_POLL: Final = 2.0
"""Seconds between two looks of the engine for work that it was not notified of."""
_PAUSE: Final = 0.2
"""Seconds before the engine is started again after the database was away."""

_REMOVE: Final[LiteralString] = """
DO $$ DECLARE command text; BEGIN
    FOR command IN
        SELECT format('DROP TABLE IF EXISTS %s CASCADE', oid::regclass) FROM pg_class
        WHERE relnamespace = 'heygen'::regnamespace AND relkind = 'r' AND relname LIKE 'procrastinate%'
        UNION ALL
        SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'heygen'::regnamespace AND proname LIKE 'procrastinate%'
        UNION ALL
        SELECT format('DROP TYPE IF EXISTS %s CASCADE', oid::regtype) FROM pg_type
        WHERE typnamespace = 'heygen'::regnamespace AND typtype IN ('e', 'c') AND typname LIKE 'procrastinate_job_%'
    LOOP EXECUTE command; END LOOP;
END $$
"""

_logger: Final = logging.getLogger("heygen_async")
logging.getLogger("procrastinate").setLevel(logging.CRITICAL)  # what ends a step is in its record

Handle: TypeAlias = Callable[[Ticket], Awaitable[None]]


class Delivery(Protocol):
    """Brings work to workers."""

    def defer(self, kind: Kind, tickets: Sequence[Ticket]) -> Awaitable[None]:
        """Have work done by any worker that has a slot of its kind.

        Raises:
            DatabaseLost: If it is not known whether it was taken.
        """
        ...

    def queued(self) -> Awaitable[set[Ticket]]:
        """Return the work that waits and was given to nobody."""
        ...

    def serve(self, kind: Kind, slots: int, handle: Handle) -> Awaitable[None]:
        """Give work of a kind to *handle*, as much at once as there are slots, until cancelled.

        Cancelled, it takes no more, and waits for what it gave.
        """
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

    async def open(self) -> None:
        """Open the engine on the connections of the database."""
        await self._app.open_async(self._database.pool)

    async def defer(self, kind: Kind, tickets: Sequence[Ticket]) -> None:
        """Have work done by any worker that has a slot of its kind."""
        if not tickets:
            return
        deferrer = self._app.configure_task(_TASK, queue=self._queue(kind), allow_unknown=True)
        arguments: list[dict[str, JSONValue]] = [attrs.asdict(one) for one in tickets]
        with _engine_errors():
            await deferrer.batch_defer_async(*arguments)

    async def queued(self) -> set[Ticket]:
        """Return the work that waits and was given to nobody."""
        found: set[Ticket] = set()
        with _engine_errors():
            for kind in Kind:
                jobs = await self._app.job_manager.list_jobs_async(queue=self._queue(kind), status="todo")
                found |= {_ticket(job.task_kwargs) for job in jobs}
        return found

    async def serve(self, kind: Kind, slots: int, handle: Handle) -> None:
        """Give work of a kind to *handle* until cancelled."""
        while True:
            app = procrastinate.App(connector=procrastinate.PsycopgConnector())
            app.task(name=_TASK)(_handler(handle))
            try:
                await app.open_async(self._database.pool)
                with _engine_errors():
                    await app.run_worker_async(
                        queues=[self._queue(kind)],
                        concurrency=slots,
                        install_signal_handlers=False,
                        fetch_job_polling_interval=_POLL,
                        shutdown_graceful_timeout=_POLL,
                        delete_jobs="always",
                    )
            except DatabaseLost as error:
                _logger.info("the engine starts again: %s", error)
            await asyncio.sleep(_PAUSE)

    def _queue(self, kind: Kind) -> str:
        return f"heygen-{self._account}-{kind}"


async def make_engine_tables(database: Database) -> None:
    """Create the tables of the engine; those of an older engine are replaced, because nothing depends on them."""
    found = await database.fetch("SELECT obj_description(to_regclass('procrastinate_jobs'), 'pg_class')")
    version = procrastinate.__version__
    if found == [(version,)]:
        return
    await database.fetch(_REMOVE)
    app = procrastinate.App(connector=procrastinate.PsycopgConnector())
    await app.open_async(database.pool)
    with _engine_errors():
        await app.schema_manager.apply_schema_async()
    comment = sql.SQL("COMMENT ON TABLE procrastinate_jobs IS {}")
    await database.fetch(comment.format(sql.Literal(version)))


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except ConnectorException as error:
        raise DatabaseLost(f"the database does not answer: {error.__cause__ or error}") from None


def _handler(handle: Handle) -> Callable[..., Awaitable[None]]:
    async def step(*, run: int, key: str, version: int) -> None:
        await handle(Ticket(run, key, version))

    return step


def _ticket(arguments: Mapping[str, Any]) -> Ticket:
    return Ticket(arguments["run"], arguments["key"], arguments["version"])
