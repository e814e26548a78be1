"""A file from its host, resumed where the connection broke until it is complete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from http import HTTPStatus
from random import random
from typing import Final

from attrs import frozen

from heygen_async._media.first_bytes import BLANKS, OutputKind, Verdict, verdict_on
from heygen_async._media.hosts import (
    PLAIN_TEXT,
    PartState,
    declared_otherwise,
    has_expired,
    is_unnamed,
    media_type,
    no_output,
    range_headers,
    refusal,
    resumed,
)
from heygen_async._media.output_links import NoLinkError, OutputLink, expires_at
from heygen_async._transport.driver import Transport
from heygen_async._transport.http import HOST_EXCERPT, Incoming
from heygen_async._transport.retry import Attempts
from heygen_async.errors import (
    APIError,
    DownloadError,
    HeyGenError,
    RateLimited,
    TransportError,
    UnexpectedResponse,
)

_EXCERPT_SECONDS: Final = 5.0


@frozen
class Chunk:
    """Some bytes of a file."""

    start: int
    """Where in the file they belong. It goes back if the file must be downloaded again."""
    data: bytes
    state: PartState
    """How much of the file there is with them."""


class _RestartError(HeyGenError):
    """Raised when what there is cannot be continued, and all of the file must be requested."""


class TooLongError(DownloadError):
    """Raised when a file is longer than the limit."""


async def fetch(
    transport: Transport, link: OutputLink, state: PartState, *, max_bytes: int
) -> AsyncGenerator[Chunk, None]:
    """Yield a file as it arrives, until it is complete.

    Attempts that bring nothing new are bounded by `RetryPolicy`, silence by `Timeouts.transfer_idle`. While there is
    progress, it goes on.

    Args:
        transport: Sends the requests.
        link: The file.
        state: What there is already.
        max_bytes: The longest file.

    Raises:
        DownloadError: If it cannot be downloaded, or is longer than *max_bytes*. It is transient if the host or the
            network failed.
        HeyGenError: If a fresh link is needed, and the API does not return one.
    """
    end = expires_at(link.url)
    if end is not None and end <= time.time():
        await link.renew()
    download = _Fetch(transport, link, state, max_bytes)
    while True:
        try:
            async with aclosing(download.attempt()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (TransportError, APIError, UnexpectedResponse, NoLinkError, _RestartError) as error:
            await download.prepare_retry(error)
        else:
            return


class _Fetch:
    """The progress of one download: its bytes so far, and its attempts."""

    def __init__(self, transport: Transport, link: OutputLink, state: PartState, max_bytes: int) -> None:
        self._transport = transport
        self._link = link
        self._state = state
        self._max_bytes = max_bytes
        self._most = state.done
        self._attempts = Attempts(transport.retry)
        self._resumes = True

    async def attempt(self) -> AsyncGenerator[Chunk, None]:
        """Request once what is missing, and yield what arrives."""
        known = self._state if self._resumes else PartState()
        headers = range_headers(known)
        answer = await self._transport.http.get(self._link.url, headers=headers, timeouts=self._transport.timeouts)
        try:
            state = await self._start(answer, known)
            data = await self._first(answer, state)
            while data:
                start, state = state.done, state.plus(len(data))
                self._check_length(state)
                self._state = state
                yield Chunk(start, data, state)
                data = await answer.read()
        finally:
            answer.close()
        self._check_end(state)

    async def _first(self, answer: Incoming, state: PartState) -> bytes:
        if state.is_complete:
            return b""
        return await (answer.read() if state.done else _first_bytes(answer, self._link.kind))

    async def _start(self, answer: Incoming, known: PartState) -> PartState:
        resuming = bool(range_headers(known))
        if answer.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT} or (
            answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and resuming
        ):
            state = resumed(known, answer.status, answer.headers, self._link.kind)
            if state is None:
                raise _RestartError(f"the file host does not resume the download ({answer.status})")
            self._check_length(state)
            return state
        error = refusal(answer.status, answer.headers, await self._excerpt(answer), now=time.time())
        raise error or UnexpectedResponse(["the file host sent no file"], status=answer.status)

    async def _excerpt(self, answer: Incoming) -> bytes:
        """Return the start of a body that is no file, or what arrives of it in time, and before it breaks."""
        start = bytearray()
        try:
            with suppress(TransportError, TimeoutError):
                async with asyncio.timeout(min(_EXCERPT_SECONDS, self._transport.timeouts.transfer_idle)):
                    while (size := len(start)) < HOST_EXCERPT:
                        start += await answer.read()
                        if len(start) == size:
                            break
            return bytes(start)
        finally:
            start.clear()  # or a traceback with local variables would show links that it quotes

    def _check_length(self, state: PartState) -> None:
        subject = f"the {self._link.kind} of {self._link.lipsync.id}"
        if state.total is not None and state.total > self._max_bytes:
            raise TooLongError(
                f"{subject} has {state.total:,} bytes according to its file host, and {self._max_bytes:,} is the limit"
            )
        if state.done > self._max_bytes:
            raise TooLongError(f"{subject} does not end after {self._max_bytes:,} bytes, which is the limit")
        if state.total is not None and state.done > state.total:
            raise _RestartError("the file host sent more than it announced")

    @staticmethod
    def _check_end(state: PartState) -> None:
        if state.done == 0:
            raise TransportError("the file host sent an empty file")
        if state.total is not None and not state.is_complete:
            raise TransportError("the file host ended its answer early")

    async def prepare_retry(self, error: HeyGenError) -> None:
        """Prepare for the next attempt, and wait until it is time for it.

        Raises:
            DownloadError: If there is to be none.
        """
        if self._state.done > self._most:
            self._most = self._state.done
            self._attempts.reset()
        needs_link = has_expired(error) or isinstance(error, NoLinkError)
        delay = self._delay_after(error, is_change=needs_link or isinstance(error, _RestartError))
        if delay is None and self._may_refuse_range(error):
            self._resumes, delay = False, 0.0
        if delay is None:
            raise self._failure(error) from error
        if needs_link:
            await self._link.renew()
        if isinstance(error, _RestartError):
            self._state = PartState()
        await self._transport.gate.sleep(delay)

    def _delay_after(self, error: HeyGenError, *, is_change: bool) -> float | None:
        chance = random()  # noqa: S311 it spreads retries, it guards nothing
        if is_change:
            return self._attempts.delay_before_change(chance=chance)
        return self._attempts.delay_after(error, chance=chance)

    def _may_refuse_range(self, error: HeyGenError) -> bool:
        """Return whether *error* may mean only that the host takes no `Range`, so that all of the file is tried."""
        if not self._resumes or not range_headers(self._state):
            return False
        is_not_now = isinstance(error, RateLimited) or (isinstance(error, APIError) and error.retry_after)
        return isinstance(error, (APIError, UnexpectedResponse)) and not is_not_now

    def _failure(self, error: HeyGenError) -> DownloadError:
        # A fresh link that is refused is the host's failure too: the file may be late.
        is_hosts = error.is_transient or isinstance(error, (APIError, _RestartError))
        failure = DownloadError(
            f"the {self._link.kind} of {self._link.lipsync.id} could not be downloaded "
            f"({self._state.done:,} bytes arrived): {error}",
            is_transient=is_hosts,
        )
        failure.attempts = self._attempts.made
        return failure


async def _first_bytes(answer: Incoming, kind: OutputKind) -> bytes:
    """Return the first bytes of a file, enough of them to know that it is what it should be; nothing if it is blank.

    So no byte of a page gets into a part, which would be resumed as a video.

    Raises:
        UnexpectedResponse: If it is a page, or certainly no file of this *kind*.
    """
    start, is_all = bytearray(), False
    wrong = declared_otherwise(answer.status, answer.headers, kind)
    is_doubtful = wrong is not None or is_unnamed(answer.headers)
    while not is_all:
        data = await answer.read()
        start += data
        is_all = not data
        if is_all and not start.strip(BLANKS):
            return b""
        verdict = verdict_on(bytes(start), kind, is_doubtful=is_doubtful, is_all=is_all)
        if verdict is Verdict.MAY_BE:
            break
        if verdict is not Verdict.OPEN:
            del start, data  # or a traceback with local variables would show what a page quotes
            raise wrong or _no_file(verdict, answer, kind)
    return bytes(start)


def _no_file(verdict: Verdict, answer: Incoming, kind: OutputKind) -> UnexpectedResponse:
    if verdict is Verdict.PAGE:
        return UnexpectedResponse(["the file host sent a page instead of a file"], status=answer.status)
    given = PLAIN_TEXT if media_type(answer.headers) == PLAIN_TEXT else "another file"
    return no_output(answer.status, given, kind)
