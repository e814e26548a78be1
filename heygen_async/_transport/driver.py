"""The driver: a call is attempted until it succeeds, or until a retry cannot help or is not allowed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from random import random
from typing import Final

from attrs import define, field, frozen

from heygen_async._ids import is_id, is_key_fresh
from heygen_async._text import one_line
from heygen_async._transport.gate import Gate
from heygen_async._transport.http import Http
from heygen_async._transport.keys import UsedKeys
from heygen_async._transport.retry import Attempts
from heygen_async._transport.server_time import Moment, ServerTime
from heygen_async._wire import (
    Answer,
    Request,
    Response,
    created_id,
    decipher,
    is_final_answer,
    outcome_after,
    request_id,
)
from heygen_async.errors import APIError, CallRecord, HeyGenError, NotFound, Outcome, TransportError, has_own_code
from heygen_async.policies import RetryPolicy, Timeouts

_logger: Final = logging.getLogger("heygen_async")


@define
class _Call:
    """One request, and what is known of it after its attempts so far."""

    request: Request
    attempts: Attempts
    outcome: Outcome | None = None
    key_since: Moment | None = None
    """When its key was first sent, by this call or before it; `None` until it was."""
    first_sent: float | None = None
    """When this call was first attempted, on the event loop's clock."""
    in_flight: bool = False
    last_error: HeyGenError | None = None

    @property
    def sent(self) -> int:
        """How many times the request was sent."""
        return self.attempts.made + self.in_flight

    def start(self, now: float, moment: Moment) -> None:
        """Record that an attempt starts: *now* on the event loop's clock.

        Raises:
            HeyGenError: If the idempotency key is too old to be sent: the error of the last attempt, if there was one.
        """
        if self.first_sent is None:
            self.first_sent = now
        if self.key_since is None:
            self.key_since = moment
        elif self.request.idempotency_key is not None and not is_key_fresh(0.0, self.key_since.age(moment)):
            raise self._too_old()
        self.in_flight = True

    def _too_old(self) -> HeyGenError:
        error = self.last_error or TransportError("the request was not sent", outcome="not_sent")
        error.is_transient = False
        error.hint = "Look for the job in the account's list. If it is not there, make a new call with a new key."
        error.add_note(
            "It was not sent again: its idempotency key is over 23 hours old, and HeyGen may have forgotten it."
        )
        return error

    def on_error(self, error: HeyGenError, *, now: float, chance: float) -> float | None:
        """Record *error*, write on it what is known of the call, and return the seconds to wait; `None` to stop."""
        delay = None
        if self.in_flight:  # else it is an error of an earlier attempt
            self.in_flight, self.last_error = False, error
            self.outcome = outcome_after(self.outcome, error)
            elapsed = now - (self.first_sent or 0.0)
            delay = self.attempts.delay_after(error, chance=chance, elapsed=elapsed)
        self.record().write_to(error)
        return delay

    def record(self) -> CallRecord:
        """Return what an error or a cancellation of the call carries."""
        outcome = "unknown" if self.in_flight else self.outcome or "not_sent"
        return CallRecord(idempotency_key=self.request.idempotency_key, attempts=self.sent, outcome=outcome)

    @property
    def is_final(self) -> bool:
        """Whether the last answer shows that no request under the key has created anything."""
        return self.last_error is not None and not self.in_flight and is_final_answer(self.last_error)


@frozen
class Transport:
    """How a session, or a view of it, sends requests.

    `with_options` makes another over the same connections, gate and keys.
    """

    http: Http
    gate: Gate
    retry: RetryPolicy
    timeouts: Timeouts
    headers: Mapping[str, str] = field(repr=False)
    keys: UsedKeys = field(factory=UsedKeys)
    clock: Callable[[], float] = lambda: time.time()  # noqa: PLW0108 looked up when it is called
    """Unix time in seconds, by the clock of this machine."""
    server_time: ServerTime = field(factory=ServerTime)
    key_since: Moment | None = None
    """When the idempotency keys of its requests were first sent; `None`: in the first attempt of each call."""
    pace: Callable[[], Awaitable[None]] | None = None
    """Returns once a request may leave, where other processes keep the same pace."""

    async def send(self, request: Request) -> Response:
        """Send *request*, again where that is safe and may help, and return the answer.

        Raises:
            ValueError: If its idempotency key was used for a different request; nothing is sent.
            HeyGenError: With `.idempotency_key`, `.attempts` and `.outcome`.
            asyncio.CancelledError: With the same three attributes, whenever it is cancelled. So has any other error
                while it is sent, of a tracing hook for instance.
            RuntimeError: If the session is closed, or in use by another event loop; nothing is sent.
        """
        self.http.connections.ensure_open()  # first: what cannot be sent says nothing of its key
        use = self.keys.begin(request)
        attempts = Attempts(self.retry, is_repeatable=request.is_repeatable)
        call = _Call(request, attempts, key_since=self.key_since)
        if use is not None:
            call.outcome = use.outcome
            call.key_since = use.since if self.key_since is None else self.key_since
        try:
            response = await self._until_done(call)
        except BaseException as error:
            if not isinstance(error, HeyGenError):  # a cancellation, or a bug of a tracing hook for instance
                call.record().write_to(error)
            if use is not None:
                self.keys.end(use, call.record().outcome, is_final=call.is_final, since=call.key_since)
            raise
        if use is not None:
            self.keys.end(use, None, is_final=False)
        return response

    async def _until_done(self, call: _Call) -> Response:
        """Attempt *call* until it is done, or raise the error after which it is not attempted again."""
        while True:
            try:
                return await self._attempt(call)
            except HeyGenError as error:
                if _was_deleted_before(call, error):
                    return Response(204, {}, None, attempts=call.sent)
                delay = self._after_error(call, error)
                if delay is None:
                    raise
            await self.gate.sleep(delay)

    def unsent(self, key: str | None) -> CallRecord:
        """Return what is known of a call under *key* that was not sent yet."""
        return CallRecord(idempotency_key=key, outcome=self.keys.outcome_before(key))

    def _after_error(self, call: _Call, error: HeyGenError) -> float | None:
        now, chance = asyncio.get_running_loop().time(), random()  # noqa: S311 it spreads retries, it guards nothing
        request, is_new = call.request, call.in_flight  # else it is an error of an earlier attempt
        delay = call.on_error(error, now=now, chance=chance)
        pause = call.attempts.pause_after(error, chance=chance) if is_new else None
        if pause is not None:
            self.gate.pacer.refuse(request.scope, now, pause)
        if delay is None:
            return None
        _logger.info("%s %s: %s; again in %.1f s", request.method, one_line(request.path), _name(error), delay)
        # After a 429 the gate makes it wait, like every request of its scope.
        return delay if pause is None else 0.0

    async def _attempt(self, call: _Call) -> Response:
        request = call.request
        if self.pace is not None:
            await self.pace()
        await self.gate.enter(request.scope)
        try:
            self._check_open(call)
            sent = self.moment()
            call.start(asyncio.get_running_loop().time(), sent)
            exchange = self.http.exchange(request, headers=self.headers, timeouts=self.timeouts)
            answer = await (self._logged(call, exchange) if _logger.isEnabledFor(logging.DEBUG) else exchange)
        finally:
            self.gate.leave()
        if answer.status != HTTPStatus.TOO_MANY_REQUESTS and not self.gate.pacer.is_free:
            self.gate.pacer.accept(request.scope, asyncio.get_running_loop().time())
        mask = self.http.origin.mask
        data = decipher(answer, request, now=self.clock(), mask=mask)
        self.server_time.note(answer.headers.get("Date"), sent=sent.elapsed)
        response = Response(answer.status, answer.headers, data, request.idempotency_key, call.sent, mask)
        if request.method == "POST" and _logger.isEnabledFor(logging.INFO):
            _log_created(response, request)
        return response

    def _check_open(self, call: _Call) -> None:
        """Check that the session was not closed meanwhile, or raise the error of the last attempt, if there was one."""
        try:
            self.http.connections.ensure_open()
        except RuntimeError:
            if call.last_error is None:
                raise
            call.last_error.add_note("It was not sent again: the session was closed.")
        else:
            return
        raise call.last_error

    def moment(self) -> Moment:
        """Return what its clocks show."""
        return Moment(self.server_time.elapsed(), self.clock())

    async def _logged(self, call: _Call, exchange: Awaitable[Answer]) -> Answer:
        clock = asyncio.get_running_loop().time
        started, answer = clock(), None
        try:
            answer = await exchange
            return answer
        finally:
            self._log(call, answer, clock() - started)

    def _log(self, call: _Call, answer: Answer | None, seconds: float) -> None:
        """Log one attempt: never a body, a header or a query."""
        _logger.debug(
            "%s %s -> %s in %.0f ms (attempt %d%s)",
            call.request.method,
            one_line(call.request.path),
            "no answer" if answer is None else answer.status,
            1000 * seconds,
            call.sent,
            self._request_note(answer),
        )

    def _request_note(self, answer: Answer | None) -> str:
        known = None if answer is None else request_id(answer.headers, self.http.origin.mask)
        return "" if known is None else f", request {known}"


def _log_created(response: Response, request: Request) -> None:
    created = created_id(request, response.data)
    if created is not None and is_id(created[1]):
        kind, id_ = created
        _logger.info(
            "created %s %s (key %s, %d attempt%s)",
            kind,
            id_,
            response.idempotency_key,
            response.attempts,
            "" if response.attempts == 1 else "s",
        )


def _was_deleted_before(call: _Call, error: HeyGenError) -> bool:
    """Return whether a 404 of the API means that an earlier attempt, which got no answer, has deleted it."""
    is_gone = isinstance(error, NotFound) and has_own_code(error)
    return is_gone and call.request.method == "DELETE" and call.outcome == "unknown"


def _name(error: HeyGenError) -> str:
    return str(error.status) if isinstance(error, APIError) else type(error).__name__
