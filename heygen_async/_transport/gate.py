"""The gate that every attempt passes: the pace after a 429, a free connection, and the user's own rate.

Connections are counted here, before the connector: waiting for one is not connecting, so it uses up no timeout.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from heygen_async._arguments import check_rate
from heygen_async._transport.pacing import Pacer
from heygen_async._wire import RateScope

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter


class Gate:
    """Limits that all requests of a session share.

    Args:
        max_connections: Requests in flight at once.
        max_requests_per_second: Requests that leave in a second, after a burst of as many; `None` for no limit.

    Raises:
        TypeError, ValueError: If the rate is wrong.
    """

    def __init__(self, *, max_connections: int, max_requests_per_second: float | None) -> None:
        self.pacer = Pacer()
        self._seats = asyncio.Semaphore(max_connections)
        check_rate("max_requests_per_second", max_requests_per_second)
        self._limiter = None if max_requests_per_second is None else _limiter(max_requests_per_second)
        self._closed = asyncio.Event()
        self._scopes: set[asyncio.Timeout] = set()
        """The scopes of what `close` is to end."""

    async def enter(self, scope: RateScope) -> None:
        """Wait until a request of *scope* may leave; call `leave` once for each return."""
        pacer = self.pacer
        while True:
            pauses = pacer.pauses(scope)
            if not pacer.is_free:
                await self._wait_for_departure(scope)
            await self._seats.acquire()
            if self._limiter is not None:
                try:
                    await self._unless_closed(self._limiter)
                except BaseException:
                    self._seats.release()
                    raise
            if pacer.pauses(scope) == pauses:
                return
            # A pause has begun while this request waited: the time that was reserved for it is void.
            self._seats.release()

    async def _wait_for_departure(self, scope: RateScope) -> None:
        pacer, now = self.pacer, asyncio.get_running_loop().time()
        departures = pacer.book(scope, now)
        wait = max(departure.time for departure in departures) - now
        if wait <= 0:
            return
        try:
            await self.sleep(wait)
        except BaseException:
            # Otherwise callers that give up early reserve more and more times, and no request leaves.
            pacer.give_back(scope, departures)
            raise

    async def sleep(self, seconds: float) -> None:
        """Wait so many *seconds*, or until the session is closed: then the next attempt fails at once."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            pass

    async def _unless_closed(self, limiter: AsyncLimiter) -> None:
        """Wait for *limiter*, or until the session is closed: then the next attempt fails at once."""
        if self._closed.is_set():
            return
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                try:
                    await limiter.acquire()
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise

    def leave(self) -> None:
        """Free the connection."""
        self._seats.release()

    def close(self) -> None:
        """End every pause, now and from now on."""
        self._closed.set()
        while self._scopes:
            self._scopes.pop().reschedule(asyncio.get_running_loop().time())


def _limiter(rate: float) -> AsyncLimiter:
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 most sessions have no rate

    # Below one a second the bucket must still hold one request.
    return AsyncLimiter(max(rate, 1.0), max(1.0, 1.0 / rate))
