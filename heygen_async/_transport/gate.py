"""The gate that every attempt passes: its departure, a seat, and the caller's own rate.

Seats are connections, counted before the connector: waiting for one is not connecting, so it uses up no timeout.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from heygen_async._transport.pacing import Timetable
from heygen_async._wire import Lane

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter


class Gate:
    """What all requests of a session share on their way out.

    Args:
        max_connections: Requests in the air at once.
        max_requests_per_second: Departures in any second, a burst of as many included; `None` for no limit.
    """

    def __init__(self, *, max_connections: int, max_requests_per_second: float | None) -> None:
        self.timetable = Timetable()
        self._seats = asyncio.Semaphore(max_connections)
        self._limiter = None if max_requests_per_second is None else _limiter(max_requests_per_second)

    async def enter(self, lane: Lane) -> None:
        """Wait until a request of *lane* may leave; each return is paid back by one `leave`."""
        timetable = self.timetable
        while True:
            pauses = timetable.pauses
            if not timetable.is_free:
                await self._wait_for_departure(lane)
            await self._seats.acquire()
            if self._limiter is not None:
                try:
                    await self._limiter.acquire()
                except BaseException:
                    self._seats.release()
                    raise
            if timetable.pauses == pauses:
                return
            # A pause has begun while this request waited, perhaps its own: its departure is void.
            self._seats.release()

    async def _wait_for_departure(self, lane: Lane) -> None:
        now = asyncio.get_running_loop().time()
        wait = self.timetable.book(lane, now) - now
        if wait > 0:
            await asyncio.sleep(wait)

    def leave(self) -> None:
        """Give the seat back."""
        self._seats.release()


def _limiter(rate: float) -> AsyncLimiter:
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 most sessions have no rate

    # Below one a second the bucket must still hold one request.
    return AsyncLimiter(max(rate, 1.0), max(1.0, 1.0 / rate))
