"""The connections of a process to the cluster's database, and the creation of its tables.

Rule 1: the password of the URL is in no message of ours.
Rule 2: every write is one statement, which is committed when it returns.
Rule 3: untrusted text cannot end a worker: what PostgreSQL does not take is stored as U+FFFD.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Any, Final, LiteralString, Protocol, Self

import orjson
import psycopg
from attrs import frozen
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from heygen_async._text import whole_characters
from heygen_async.bulk.cluster.schema import ENGINE_SCHEMA, MIGRATIONS, SCHEMA, VERSION
from heygen_async.bulk.store import JournalError
from heygen_async.models import Secret

_CONNECTIONS: Final = 4
_WAIT: Final = 1.0
"""Seconds to wait for a connection."""
_RECONNECT: Final = 0.3
"""Seconds after which the pool gives up a connection. Whoever needs one tries again: the pool's own pauses grow."""
_PAUSE, _LONGEST_PAUSE = 0.1, 0.4
"""Seconds between two attempts while the database is away: at first, and later."""

_SEARCH_PATH: Final = f"{SCHEMA},{ENGINE_SCHEMA}"
_LASTING: Final = {
    "options": f"-c search_path={_SEARCH_PATH}",
    "application_name": "heygen-async",
    "client_encoding": "UTF8",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_POOLED: Final = (
    "the connection goes through a pooler that does not keep its settings, as PgBouncer in transaction mode: workers "
    "LISTEN and hold locks, so give them the address of PostgreSQL itself"
)
_ENCODED: Final = (
    "the encoding of the database is {}, which cannot store every text: make a database for this with "
    "createdb --encoding=UTF8 --template=template0 NAME"
)
_REFUSED_BY_POOLER: Final = "unsupported startup parameter"
_LOST: Final = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed)
_LIMITS: Final = "54"
"""The class of errors of what is too large for the database: the driver takes them for operational ones."""
_UNLOCK_SECONDS: Final = 1.0
_LOCK: Final = 0x4845_5947  # of migrations; with a second number, of that run
# The server, too, notices within seconds that the machine of a connection is gone: then its lock is free.
_LOCK_RUN: Final[LiteralString] = """
SELECT pg_try_advisory_lock(%(lock)s::integer, %(run)s), set_config('tcp_keepalives_idle', '5', false),
    set_config('tcp_keepalives_interval', '2', false), set_config('tcp_keepalives_count', '3', false)
"""


class ClusterError(JournalError):
    """Raised when the database of a cluster, a run in it, or the shared folder cannot be used."""


class DatabaseLost(ClusterError):
    """Raised when the database does not answer, or the connection broke: what was written may have been committed."""

    is_transient = True


def connection_string(url: Secret) -> str:
    """Return what to connect with.

    Raises:
        ValueError: If *url* cannot be read.
    """
    try:
        given = conninfo_to_dict(url.reveal())
    except psycopg.ProgrammingError:
        given = None
    if given is None:
        # Not chained: the driver's message repeats what it cannot read.
        raise ValueError("the database URL cannot be read; write postgresql://USER@HOST:PORT/NAME")
    return make_conninfo("", **{**_LASTING, **given, "options": _options(given.get("options"))})


def has_password(url: str) -> bool:
    """Return whether there is a password in *url*."""
    try:
        return bool(conninfo_to_dict(url).get("password"))
    except psycopg.ProgrammingError:
        return False


def _options(given: Any) -> str:  # noqa: ANN401 as the driver has it
    return f"{given or ''} {_LASTING['options']}".strip()


def to_jsonb(value: object) -> Jsonb:
    """Return *value* as a parameter."""
    return Jsonb(value, dumps=_dumps)


def _dumps(value: object) -> str:
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # half of a surrogate pair
        text = None
    return text if text is not None and "\\u0000" not in text else orjson.dumps(_storable(value)).decode()


def _storable(value: Any) -> Any:  # noqa: ANN401 any parameter of a statement, or JSON
    match value:
        case str():
            return whole_characters(value.replace("\0", "\ufffd"))
        case list():
            return [_storable(one) for one in value]
        case dict():
            return {name: _storable(one) for name, one in value.items()}
        case _:
            return value


@contextmanager
def keeping_cancellation() -> Iterator[None]:
    """Raise a cancellation that the body has lost.

    Until Python 3.12 `asyncio.wait_for`, which the driver uses, returns the result of what has just ended, and forgets
    that the task was cancelled at the same moment.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 the body awaits
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver raises into errors of ours."""
    try:
        with keeping_cancellation():
            yield
    except (psycopg.Error, PoolTimeout, PoolClosed) as error:
        if _REFUSED_BY_POOLER in str(error):
            raise ClusterError(_POOLED) from None
        if _may_pass(error):
            raise DatabaseLost(f"the database does not answer: {_sentence(error)}") from None
        raise ClusterError(f"the database refused a statement: {_sentence(error)}") from error


def _may_pass(error: Exception) -> bool:
    """Return whether the same statement may be carried out later."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):  # a standby takes over, or the disk is full
        return True
    is_limit = (getattr(error, "sqlstate", None) or "").startswith(_LIMITS)
    return not is_limit and isinstance(error, _LOST)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Statements(Protocol):
    """What carries out statements."""

    def fetch(
        self, statement: LiteralString | sql.SQL | sql.Composed, values: Mapping[str, object] | None = None
    ) -> Awaitable[list[tuple[Any, ...]]]:
        """Carry out one statement, and return its rows."""
        ...


@frozen
class LockedConnection:
    """Carries out statements on the connection that holds a lock: none any more once that is lost."""

    _connection: psycopg.AsyncConnection[tuple[Any, ...]]

    async def fetch(
        self, statement: LiteralString | sql.SQL | sql.Composed, values: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Carry out one statement, and return its rows.

        Raises:
            DatabaseLost: If there was no answer: then it may have been carried out.
            ClusterError: If the database refused it.
        """
        with translated():
            return await _fetch(self._connection, statement, values)


async def _fetch(
    connection: psycopg.AsyncConnection[tuple[Any, ...]],
    statement: LiteralString | sql.SQL | sql.Composed,
    values: Mapping[str, object] | None,
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(statement, None if values is None else _storable(dict(values)))
    return await cursor.fetchall() if cursor.description else []


class Database:
    """A pool of connections. Use it with `async with`.

    Args:
        url: The database, `postgresql://USER:PASSWORD@HOST:PORT/NAME`.
    """

    def __init__(self, url: Secret) -> None:
        self._conninfo = connection_string(url)
        self.pool: AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]] = AsyncConnectionPool(
            self._conninfo,
            configure=_commit_each_statement,  # the engine makes connections with the pool's keywords too
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=_WAIT,
            reconnect_timeout=_RECONNECT,
            open=False,
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            DatabaseLost: If the database cannot be reached.
            ClusterError: If a pooler between does not keep what is set for a connection, or the database cannot store
                every text.
        """
        with translated():  # the pool would keep trying, and say less
            async with await self.connect() as connection:
                encoding = connection.info.parameter_status("server_encoding")
                if encoding != "UTF8":
                    raise ClusterError(_ENCODED.format(encoding))
                cursor = await connection.execute("SELECT current_setting('search_path')")
                if await cursor.fetchall() != [(_SEARCH_PATH,)]:
                    raise ClusterError(_POOLED)
            await self.pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pool.close(timeout=1.0)

    async def connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """Return a connection of its own, which the caller closes."""
        with translated():
            return await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)

    async def fetch(
        self, statement: LiteralString | sql.SQL | sql.Composed, values: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Carry out one statement, and return its rows.

        Raises:
            DatabaseLost: If there was no answer: then it may have been carried out.
            ClusterError: If the database refused it.
        """
        with translated():
            async with self.pool.connection() as connection:
                try:
                    return await _fetch(connection, statement, values)
                except psycopg.errors.ReadOnlySqlTransaction:
                    await connection.close()  # it may stay read-only when the database is not any more
                    raise

    @asynccontextmanager
    async def locked(self, run: int) -> AsyncIterator[LockedConnection | None]:
        """Lock a run while the body goes on; yields what works on it, or `None` if it is locked already.

        What is written to the run goes through that: with its connection the lock is lost, and somebody else may
        have it.

        Args:
            run: The number of the run.

        Raises:
            DatabaseLost: If the database cannot be reached.
        """
        async with await self.connect() as connection:
            locked = LockedConnection(connection)
            ((is_ours, *_),) = await locked.fetch(_LOCK_RUN, {"lock": _LOCK, "run": run})
            try:
                yield locked if is_ours else None
            finally:  # the server notices the end of the connection a moment later
                with suppress(DatabaseLost, TimeoutError):
                    async with asyncio.timeout(_UNLOCK_SECONDS):
                        await locked.fetch("SELECT pg_advisory_unlock_all()")

    async def migrate(self, make_engine_tables: Callable[[], Awaitable[None]]) -> None:
        """Create the tables, or bring them to this version.

        Args:
            make_engine_tables: Creates those of the engine, or brings them to its version.

        Raises:
            ClusterError: If they are of a later version.
        """
        with translated():
            async with await self.connect() as connection:
                await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
                version = await _version(connection)
                if version > VERSION:
                    raise ClusterError(
                        f"the database was made by a later version of heygen-async (format {version}); upgrade this one"
                    )
                for number in range(version, VERSION):
                    async with connection.transaction():
                        await connection.execute(MIGRATIONS[number])
                        await connection.execute(_note_version(number + 1))
                await make_engine_tables()


def _note_version(version: int) -> sql.Composed:
    comment = sql.SQL("COMMENT ON SCHEMA {} IS {}")
    return comment.format(sql.Identifier(SCHEMA), sql.Literal(f"heygen-async {version}"))


@frozen
class RetryingStatements:
    """Carries out statements however long the database is away. Each must do no harm if it was carried out before."""

    database: Statements

    async def fetch(
        self, statement: LiteralString | sql.SQL | sql.Composed, values: Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Carry out one statement, again until it is answered, and return its rows."""
        pause = _PAUSE
        while True:
            try:
                return await self.database.fetch(statement, values)
            except DatabaseLost:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


async def _commit_each_statement(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
    await connection.set_autocommit(True)


async def _version(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> int:
    """Return the version of the tables, from the comment on their schema, which is made if it is not there."""
    cursor = await connection.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (SCHEMA,)
    )
    found = await cursor.fetchall()
    if not found:  # only then: whoever uses the tables need not have the right to make a schema
        await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        return 0
    ((comment,),) = found
    mark, _, version = (comment or "").partition(" ")
    return int(version) if mark == "heygen-async" and version.isdecimal() else 0
