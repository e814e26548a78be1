"""Server-sent events: rows that changed and how far the run is, while a page is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import orjson
from aiohttp import web

from heygen_async.models import JSON
from heygen_async.review.live_rows import ChangedRows
from heygen_async.review.row_reader import RowReader

_PAUSE: Final = 2.0
"""Seconds between two events at least. The first after a quiet time is sent at once; each one costs the run time."""
_ALIVE: Final = 15.0
"""Seconds without a change after which a comment keeps the connection open."""
_MOST_ROWS: Final = 500


async def send_events(
    request: web.Request, rows: RowReader, changed: ChangedRows, run: Callable[[], Mapping[str, JSON] | None]
) -> web.StreamResponse:
    """Send events until the page is closed.

    Args:
        request: The request of the page.
        rows: Reads the rows that have changed.
        changed: Says which rows these are.
        run: Returns how far the run is; `None` if there is none.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    with changed.followed() as follower:
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n" + _event({"run": run()}))
        while True:
            try:
                async with asyncio.timeout(_ALIVE):
                    await follower.wait()
            except TimeoutError:
                await response.write(b": still here\n\n")
                continue
            changes = follower.take(_MOST_ROWS)
            moved = rows.moved(changes.moved)  # now: while rows are read, one of them may end
            read = await rows.views(changes.read) if changes.read else []
            await response.write(_event({"run": run(), "rows": read, "moved": moved}))
            await asyncio.sleep(_PAUSE)


def _event(data: Mapping[str, object]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(data)
