"""The rows of a run as they were checked, in a temporary file, so that later changes of their source do not matter."""

from __future__ import annotations

import asyncio
import pickle
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import BinaryIO, cast

from heygen_async.bulk.manifest import SourceRow


class Spool:
    """Rows in a temporary file, slice by slice, in constant memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    async def add(self, placed: Sequence[SourceRow]) -> None:
        """Add a slice of rows."""
        await asyncio.to_thread(pickle.dump, list(placed), self._file)

    async def slices(self) -> AsyncGenerator[list[SourceRow], None]:
        """Iterate over the slices, from the first."""
        await asyncio.to_thread(self._file.seek, 0)
        while placed := await asyncio.to_thread(self._next):
            yield placed

    def _next(self) -> list[SourceRow]:
        try:
            return cast("list[SourceRow]", pickle.load(self._file))  # noqa: S301 a file of ours without a name
        except EOFError:
            return []


@asynccontextmanager
async def spooled() -> AsyncGenerator[Spool, None]:
    """Give out an empty spool, which is deleted afterwards."""
    file = cast("BinaryIO", await asyncio.to_thread(tempfile.TemporaryFile))
    try:
        yield Spool(file)
    finally:
        file.close()
