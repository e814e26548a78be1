"""The driver: a call is attempted until it succeeds or `decide` says stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from random import random

from attrs import define, frozen

from heygen_async._transport.gate import Gate
from heygen_async._transport.http import Http, logger
from heygen_async._transport.retry import Spent, decide, is_refusal
from heygen_async._wire import Answer, Request, Response, decipher, worse
from heygen_async.errors import APIError, HeyGenError, NotFound, Outcome, RateLimited
from heygen_async.policies import RetryPolicy, Timeouts


@define
class _Call:
    """What has become of one request so far."""

    request: Request
    sent: int = 0
    refusals: int = 0
    first_sent: float | None = None
    outcome: Outcome | None = None
    in_flight: bool = False

    def depart(self, now: float) -> None:
        """Note that an attempt leaves."""
        self.sent += 1
        self.in_flight = True
        if self.first_sent is None:
            self.first_sent = now

    def fail(self, error: HeyGenError) -> None:
        """Note that the attempt ended in *error*, and write on it what is known of the whole call."""
        self.in_flight = False
        self.refusals += is_refusal(error)
        self.outcome = worse(self.outcome, error.outcome)
        self.label(error)

    def label(self, error: BaseException) -> None:
        """Write on *error* what is known of the call, whatever kind of exception it is."""
        outcome = worse(self.outcome, "unknown") if self.in_flight else self.outcome
        known = {"attempts": self.sent, "outcome": outcome or "not_sent"}
        vars(error).update(known, idempotency_key=self.request.idempotency_key)

    def spent(self, now: float) -> Spent:
        """Return what `decide` wants to know."""
        seconds = 0.0 if self.first_sent is None else now - self.first_sent
        return Spent(attempts=self.sent - self.refusals, refusals=self.refusals, seconds=seconds)


@frozen
class Transport:
    """How a session, or a view of it, sends requests.

    `with_options` makes another over the same connections and the same gate.
    """

    http: Http
    gate: Gate
    retry: RetryPolicy
    timeouts: Timeouts
    headers: Mapping[str, str]

    async def send(self, request: Request) -> Response:
        """Send *request*, again where that is safe and may help, and return the answer.

        Raises:
            HeyGenError: With `.idempotency_key`, `.attempts` and `.outcome`.
            asyncio.CancelledError: With the same three attributes, whenever it is cancelled.
        """
        call = _Call(request)
        try:
            while True:
                try:
                    return await self._attempt(call)
                except HeyGenError as error:
                    if _was_deleted_before(call, error):
                        return Response(204, {}, None)
                    call.fail(error)
                    delay = self._decide(call, error)
                    if delay is None:
                        raise
                await asyncio.sleep(delay)
        except asyncio.CancelledError as cancelled:
            call.label(cancelled)
            raise

    def _decide(self, call: _Call, error: HeyGenError) -> float | None:
        now = asyncio.get_running_loop().time()
        chance = random()  # noqa: S311 it spreads retries, it guards nothing
        delay = decide(self.retry, error, spent=call.spent(now), repeatable=call.request.is_repeatable, chance=chance)
        if delay is None:
            return None
        logger.info("%s %s: %s; again in %.1f s", call.request.method, call.request.template, _name(error), delay)
        if isinstance(error, RateLimited):
            self.gate.timetable.refuse(call.request.lane, now, delay)
            return 0.0  # the gate makes it wait, like everyone in its lane
        return delay

    async def _attempt(self, call: _Call) -> Response:
        request = call.request
        clock = asyncio.get_running_loop().time
        await self.gate.enter(request.lane)
        started = clock()
        call.depart(started)
        told: Answer | None = None
        try:
            answer = told = await self.http.exchange(request, headers=self.headers, timeouts=self.timeouts)
        finally:
            self.gate.leave()
            if logger.isEnabledFor(logging.DEBUG):
                _log(call, told, clock() - started)
        status, headers, body = answer
        data = decipher(status, headers, body, now=time.time(), secret=self.http.origin.credential.reveal())
        if not self.gate.timetable.is_free:
            self.gate.timetable.accept(request.lane, clock())
        return Response(status, headers, data, request.idempotency_key, call.sent)


def _log(call: _Call, answer: Answer | None, seconds: float) -> None:
    """Log one attempt: never a body, a header or a query."""
    status, headers, _ = answer or ("no answer", {}, b"")
    logger.debug(
        "%s %s -> %s in %.0f ms (attempt %d, request %s)",
        call.request.method,
        call.request.template,
        status,
        1000 * seconds,
        call.sent,
        headers.get("X-Request-Id"),
    )


def _was_deleted_before(call: _Call, error: HeyGenError) -> bool:
    """Tell whether a 404 means that an earlier attempt, which got no answer, has deleted it."""
    return isinstance(error, NotFound) and call.request.method == "DELETE" and call.outcome == "unknown"


def _name(error: HeyGenError) -> str:
    return str(error.status) if isinstance(error, APIError) else type(error).__name__
