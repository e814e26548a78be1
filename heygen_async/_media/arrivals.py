"""A file on its way down: asked for, from where it broke off, until all of it has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from random import random

from attrs import frozen

from heygen_async._media.answers import EXPIRED, Held, check_start, continued, range_headers
from heygen_async._media.hosts import refusal
from heygen_async._media.links import Link, expires_at
from heygen_async._media.patience import Patience
from heygen_async._transport.driver import Transport
from heygen_async._transport.http import Incoming
from heygen_async.errors import APIError, DownloadError, HeyGenError, TransportError, UnexpectedResponse
from heygen_async.models import Secret


@frozen
class Arrival:
    """Some bytes of a file."""

    place: int
    """Where in the file they belong. It falls back to an earlier place if the file must be had anew."""
    data: bytes
    held: Held
    """What one has with them."""


class _AnewError(HeyGenError):
    """Raised when what one has is of no use, and all of the file must be asked for."""


async def arrivals(transport: Transport, link: Link, held: Held) -> AsyncGenerator[Arrival, None]:
    """Give out a file as it comes, until all of it has.

    Tries that bring nothing new are bounded by `RetryPolicy`, silence by `Timeouts.transfer_idle`. As long as the
    file gets on, it goes on.

    Args:
        transport: Where to ask.
        link: What for.
        held: What is here already.

    Raises:
        DownloadError: If it cannot be had.
        HeyGenError: If a fresh link is needed, and the API does not give one.
    """
    end = expires_at(link.url)
    if end is not None and end <= time.time():
        await link.renew()
    download = _Download(transport, link, held)
    while True:
        try:
            async with aclosing(download.attempt()) as attempt:
                async for arrival in attempt:
                    yield arrival
        except (TransportError, APIError, UnexpectedResponse, _AnewError) as error:
            await download.recover(error)
        else:
            return


class _Download:
    """What one has of a file, and what getting it has cost."""

    def __init__(self, transport: Transport, link: Link, held: Held) -> None:
        self._transport = transport
        self._link = link
        self._held = held
        self._most = held.done
        self._patience = Patience(transport.retry)

    async def attempt(self) -> AsyncGenerator[Arrival, None]:
        """Ask once for what is missing, and give out what comes."""
        headers = range_headers(self._held)
        answer = await self._transport.http.get(
            Secret(self._link.url), headers=headers, timeouts=self._transport.timeouts
        )
        try:
            self._held = await self._judge(answer)
            while data := await answer.read():
                place = self._held.done
                if place == 0:
                    check_start(data)
                self._held = self._held.plus(len(data))
                yield Arrival(place, data, self._held)
        finally:
            answer.close()
        self._check_end()

    async def _judge(self, answer: Incoming) -> Held:
        resuming = bool(range_headers(self._held))
        if answer.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT} or (
            answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and resuming
        ):
            held = continued(self._held, answer.status, answer.headers)
            if held is None:
                raise _AnewError(f"the file host does not go on where it broke off ({answer.status})")
            return held
        error = refusal(answer.status, answer.headers, await answer.read(), now=time.time())
        raise error or UnexpectedResponse(["the file host sent no file"], status=answer.status)

    def _check_end(self) -> None:
        held = self._held
        if held.done == 0:
            raise TransportError("the file host sent an empty file")
        if held.total is None or held.is_complete:
            return
        if held.done > held.total:
            raise _AnewError("more came than the file host had said")
        raise TransportError("the file host ended it early")

    async def recover(self, error: HeyGenError) -> None:
        """Make ready for the next attempt, and wait for its time.

        Raises:
            DownloadError: If there is to be none.
        """
        if self._held.done > self._most:
            self._most = self._held.done
            self._patience.renew()
        chance = random()  # noqa: S311 it spreads retries, it guards nothing
        has_expired = isinstance(error, APIError) and error.status in EXPIRED
        if has_expired or isinstance(error, _AnewError):
            delay = self._patience.again(chance=chance)
        else:
            delay = self._patience.after(error, chance=chance)
        if delay is None:
            raise self._failure(error) from error
        if has_expired:
            await self._link.renew()
        if isinstance(error, _AnewError):
            self._held = Held()
        await asyncio.sleep(delay)

    def _failure(self, error: HeyGenError) -> DownloadError:
        failure = DownloadError(
            f"the {self._link.kind} of {self._link.lipsync.id} could not be downloaded, "
            f"{self._held.done:,} bytes had come: {error}"
        )
        failure.attempts = self._patience.tries
        return failure
