"""Server-sent events: rows that changed and how far the run is, while a page is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

import orjson
from aiohttp import web

from heygen_async.models import JSON
from heygen_async.review.live_rows import ChangedRows
from heygen_async.review.row_reader import RowReader

_TICK: Final = 0.5
"""Seconds between two events: a person cannot follow more, and each one costs the run time."""
_ALIVE: Final = 30
"""Ticks without a change after which a comment keeps the connection open."""
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
    with changed.followed() as keys:
        await response.prepare(request)
        await response.write(b"retry: 1000\n\nevent: open\ndata: {}\n\n")
        last, quiet = b"", 0
        while True:
            state = orjson.dumps(run())
            found = list(islice(keys, _MOST_ROWS))
            keys.difference_update(found)
            if found:
                await response.write(_event(b"rows", orjson.dumps(await rows.views(found))))
            if state != last:
                await response.write(_event(b"run", state))
            quiet = quiet + 1 if state == last and not found else 0
            last = state
            if quiet == _ALIVE:
                quiet = 0
                await response.write(b": still here\n\n")
            await asyncio.sleep(_TICK)


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)
