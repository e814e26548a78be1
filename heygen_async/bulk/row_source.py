"""Where the rows of a run come from: an iterable, an asynchronous one, or a manifest; or what was admitted before.

Rows that were admitted before the run are kept in a temporary file: later changes of their source do not matter.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import islice
from typing import IO, BinaryIO, Final, TypeAlias, cast

from anyio import to_thread
from attrs import frozen

from heygen_async.bulk.checks import AdmittedRow
from heygen_async.bulk.manifest import Manifest, SourceRow
from heygen_async.models import DubRow

Rows: TypeAlias = Iterable[DubRow] | AsyncIterable[DubRow]

_SLICE: Final = 100
"""How many rows are read at once."""


@frozen
class Snapshot:
    """Admitted rows in a temporary file, slice by slice, in constant memory."""

    _file: BinaryIO

    async def add(self, rows: Sequence[AdmittedRow]) -> None:
        """Add a slice of rows."""
        await asyncio.to_thread(pickle.dump, rows, self._file, pickle.HIGHEST_PROTOCOL)

    async def complete(self) -> None:
        """Write what is still in memory: what is added is complete."""
        await asyncio.to_thread(self._file.seek, 0)

    async def slices(self) -> AsyncGenerator[Sequence[AdmittedRow], None]:
        """Iterate over the slices, from the first; once."""
        while rows := await asyncio.to_thread(self._next):
            yield rows

    def _next(self) -> Sequence[AdmittedRow]:
        try:
            return cast("Sequence[AdmittedRow]", pickle.load(self._file))  # noqa: S301 a file of ours without a name
        except EOFError:
            return []


@asynccontextmanager
async def new_snapshot() -> AsyncGenerator[Snapshot, None]:
    """Yield an empty snapshot, which is deleted afterwards."""
    opening = asyncio.get_running_loop().run_in_executor(None, _temporary_file)
    try:
        file = cast("BinaryIO", await asyncio.shield(opening))
    except asyncio.CancelledError:
        opening.add_done_callback(_close)  # the thread opens it all the same
        raise
    try:
        yield Snapshot(file)
    finally:
        file.close()


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _close(opening: asyncio.Future[IO[bytes]]) -> None:
    if opening.exception() is None:
        opening.result().close()


def can_be_read_twice(rows: Rows) -> bool:
    """Return whether *rows* can be checked before the run: those of an iterator can be read only once."""
    return not isinstance(rows, AsyncIterable) and iter(rows) is not rows


async def slices_of(rows: Rows) -> AsyncGenerator[list[SourceRow], None]:
    """Iterate over *rows*, slice by slice.

    Raises:
        TypeError: If one of them is no `DubRow`.
        OSError: If a manifest cannot be read.
        RuntimeError: If they raise `CancelledError` though nobody has cancelled the task.
    """
    async with aclosing(_slices_of(rows)) as slices:
        with _own_cancellation_is_error():
            async for one in slices:
                yield one


@contextmanager
def _own_cancellation_is_error() -> Iterator[None]:
    """Turn a `CancelledError` of the rows into an error: they may await a task that somebody has cancelled.

    It would count as the cancellation of the task that reads them, and that would end the run in silence.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("the rows raised CancelledError") from error


async def _slices_of(rows: Rows) -> AsyncGenerator[list[SourceRow], None]:
    if isinstance(rows, AsyncIterable):
        async with aclosing(_one_by_one(rows)) as slices:
            async for one in slices:
                yield one
        return
    in_thread = isinstance(rows, Manifest)  # a program's own iterator stays in its own thread
    source = _source_rows(rows)
    try:
        while taken := await to_thread.run_sync(_take, source) if in_thread else _take(source):
            yield taken
    finally:
        # If this was cancelled while a thread reads, the end of that thread closes the file.
        if inspect.getgeneratorstate(source) != inspect.GEN_RUNNING:
            source.close()


async def _one_by_one(rows: AsyncIterable[DubRow]) -> AsyncGenerator[list[SourceRow], None]:
    number = 0
    async for row in rows:  # the next may take long
        number += 1
        yield [_numbered(number, row)]


def _source_rows(rows: Iterable[DubRow]) -> Generator[SourceRow, None, None]:
    if isinstance(rows, Manifest):
        yield from rows.source_rows()
        return
    for number, row in enumerate(rows, start=1):
        yield _numbered(number, row)


def _numbered(number: int, row: object) -> SourceRow:
    if not isinstance(row, DubRow):
        raise TypeError(f"row {number} must be a DubRow, not {type(row).__name__}")
    return SourceRow(number, f"row {number}", row)


def _take(rows: Iterator[SourceRow]) -> list[SourceRow]:
    return list(islice(rows, _SLICE))
