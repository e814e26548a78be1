"""Send a body piece by piece, with a timeout between pieces and none for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import TypeVar

import aiohttp
from attrs import frozen

from heygen_async._transport.aiohttp_errors import FAILURES, without_frames
from heygen_async._wire import Piece, Stream
from heygen_async.errors import TransportError
from heygen_async.policies import Timeouts

T = TypeVar("T")


@frozen
class AttemptBody:
    """What one attempt sends."""

    pieces: AsyncIterator[Piece]
    headers: Mapping[str, str]


async def send_stream(
    send: Callable[[AttemptBody, aiohttp.ClientTimeout], Awaitable[T]], stream: Stream, what: str, timeouts: Timeouts
) -> T:
    """Send *stream* once: its bytes must keep moving; the whole time has no limit.

    What reading the stream raises comes out as it is.
    """
    outgoing = _Outgoing(stream, timeouts)
    try:
        return await _before_deadline(send, outgoing, timeouts)
    except FAILURES as error:
        failure = without_frames(error, what)
    raise outgoing.reason(failure) if isinstance(failure, TransportError) else failure


async def _before_deadline(
    send: Callable[[AttemptBody, aiohttp.ClientTimeout], Awaitable[T]], outgoing: _Outgoing, timeouts: Timeouts
) -> T:
    timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect)
    async with asyncio.timeout(timeouts.connect + timeouts.transfer_idle) as deadline:
        return await send(AttemptBody(outgoing.pieces(deadline), outgoing.headers), timeout)


class _Outgoing:
    """A body that is being sent: each piece moves the deadline, and an error in reading it is kept.

    aiohttp reports such an error as a broken connection, which may be retried; an unreadable file may not.
    """

    def __init__(self, stream: Stream, timeouts: Timeouts) -> None:
        self._stream = stream
        self._timeouts = timeouts
        self.headers = {"Content-Length": str(stream.length), "Content-Type": stream.content_type}
        self.failure: Exception | None = None
        self._trace: TracebackType | None = None

    def reason(self, error: Exception) -> Exception:
        """Return why sending ended in *error*: what reading the stream raised, or *error* itself."""
        return error if self.failure is None else self.failure.with_traceback(self._trace)

    async def pieces(self, deadline: asyncio.Timeout) -> AsyncIterator[Piece]:
        clock = asyncio.get_running_loop().time
        try:
            async for piece in self._stream.chunks():
                _postpone(deadline, clock() + self._timeouts.transfer_idle)
                yield piece
        except Exception as error:
            self.failure = error
            self._trace = error.__traceback__  # before aiohttp's frames come to it
            raise
        _postpone(deadline, clock() + self._timeouts.write)  # all is sent: now the server works


def _postpone(deadline: asyncio.Timeout, when: float) -> None:
    # It may have passed a moment ago, in the same turn of the event loop: then it ends the attempt.
    if not deadline.expired():
        deadline.reschedule(when)
