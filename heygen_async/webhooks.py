"""Receiving webhooks: `verify`, `parse_event` and `sign` for one delivery, and `WebhookReceiver`, a whole application.

The rules of the receiver:

1. A delivery is answered with a 2xx once its event was handled or queued, and remembered only then. Until then HeyGen
   delivers it again, for up to 24 h.
2. An event is a hint to look. `lipsyncs.get` returns the truth.
3. A body is read up to 1 MiB, and a compressed one is not read: the signature covers the bytes as they were sent, which
   aiohttp does not keep.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias, cast

from anyio import to_thread
from attrs import define, field, frozen
from multidict import CIMultiDict

from heygen_async._arguments import check_callback_url, check_count, check_function, check_type, shown
from heygen_async._delivery import (
    Delivery,
    HeaderNames,
    SigningSecret,
    checked_keys,
    checked_tolerance,
    conceal,
    open_delivery,
    parse_event,
    sign,
    verify,
)
from heygen_async.errors import InvalidSignature, WebhookError
from heygen_async.models import WebhookEvent

if TYPE_CHECKING:
    from aiohttp import web

    from heygen_async.polling import LipsyncPoller

__all__ = ("SeenEvents", "WebhookEvent", "WebhookReceiver", "parse_event", "sign", "verify")

_logger: Final = logging.getLogger("heygen_async.webhooks")

MAX_BODY: Final = 1 << 20
"""The longest body that is read, in bytes."""

_LARGE: Final = 16 << 10
"""Bytes from which on a body is read in a thread: one that is almost JSON takes long. Events are far shorter."""

_ANSWER_WITHIN: Final = 8.0
"""Seconds until a delivery is answered in any case. HeyGen waits for 10."""

_DAY: Final = 86_400.0
_MOST_SEEN: Final = 100_000

Scope: TypeAlias = MutableMapping[str, object]
Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
OnEvent: TypeAlias = Callable[[WebhookEvent], Awaitable[object] | None]


ReadBody: TypeAlias = Callable[[], Awaitable[bytes]]
"""Reads a body to its end, or until it is too long."""


class SeenEvents(Protocol):
    """A memory of handled events, such as a table or a Redis that several processes share.

    An event is added after it was handled, so that it is delivered again after a crash in between. Two processes that
    get the same event at the same moment may therefore both handle it.
    """

    async def has(self, event_id: str, /) -> bool:
        """Return whether *event_id* was added, within the last 24 h at least."""
        ...

    async def add(self, event_id: str, /) -> None:
        """Remember *event_id*."""
        ...


class _Recent:
    """The events of the last 24 h in this process, the last *most* of them."""

    def __init__(self, most: int = _MOST_SEEN) -> None:
        self._most = most
        self._added: dict[str, float] = {}  # in the order in which they came

    async def has(self, event_id: str) -> bool:
        added = self._added.get(event_id)
        return added is not None and asyncio.get_running_loop().time() - added < _DAY

    async def add(self, event_id: str) -> None:
        self._added.pop(event_id, None)
        self._added[event_id] = asyncio.get_running_loop().time()
        if len(self._added) > self._most:
            del self._added[next(iter(self._added))]


@frozen
class _Answer:
    status: int
    text: str = ""
    headers: Mapping[str, str] = field(factory=dict)


_ACCEPTED: Final = _Answer(200)
_PROBED: Final = _Answer(200, headers={"Allow": "OPTIONS, POST"})
_COMPRESSED: Final = _Answer(400, "compressed bodies are not accepted", {"Accept-Encoding": "identity"})
_WRONG_METHOD: Final = _Answer(405, "webhooks are sent with POST", {"Allow": "OPTIONS, POST"})
_TOO_LONG: Final = _Answer(413, f"at most {MAX_BODY} bytes")
_LATE: Final = _Answer(500, "the event was not handled in time")
_FAILED: Final = _Answer(500, "the event could not be handled")
_BUSY: Final = _Answer(503, "the event is being handled")
_FULL: Final = _Answer(503, "too many events are queued")


class WebhookReceiver:
    """Receives HeyGen's webhooks: an ASGI application, and a handler for `aiohttp.web`.

    Each event is passed to *on_event*, or without one to `async for event in receiver`, once: later deliveries of the
    same event are only answered. A delivery is answered with a 2xx after *on_event* has returned, or when the event is
    queued. Until then HeyGen delivers it again, so no event is lost when *on_event* raises (a `CancelledError` of a
    task that it awaits, too) or is late, or when the queue is full. (Queued events are lost with the process.)

    ::

        receiver = WebhookReceiver(secret=os.environ["HEYGEN_WEBHOOK_SECRET"], on_event=store)

        app.routes.append(Route("/heygen", receiver))             # Starlette, FastAPI
        app.router.add_route("*", "/heygen", receiver.handle)     # aiohttp.web

    HeyGen sends the published event types to registered endpoints; a single lipsync is announced to its `callback_url`
    only. Both are received: events with `event_type` and `event_data`, and plain callbacks with the members of a
    lipsync. A delivery without an event id is recognized by its body.

    The receiver answers `POST`, and the `OPTIONS` with which HeyGen probes a new endpoint. It refuses bodies over 1 MiB
    and compressed ones. Create it anywhere, at import time too, and use it on one event loop. (Mounted in Starlette it
    answers only paths that end with a slash.)

    Args:
        secret: The secret of the endpoint, or several, during a rotation for instance. `None` accepts unsigned
            deliveries: then anybody can send one, so an event is only a hint to get the job.
        on_event: Called with each event, in the task of its request. A coroutine function is awaited, and cancelled
            8 s after the request came in, in time for an answer.
        queue_size: How many events may be queued for `async for`.
        seen: The memory of handled events; `None` for the last 100,000 of the last 24 h in this process.
        url: The public URL of this receiver, for `url`.
        tolerance: How far the timestamp of a delivery may be from now, either way, in seconds.
        signature_header: As for `verify`.
        timestamp_header: As for `verify`.
        event_id_header: As for `parse_event`.

    Raises:
        TypeError, ValueError: If an argument is wrong, such as an empty secret.
    """

    def __init__(
        self,
        *,
        secret: SigningSecret | None,
        on_event: OnEvent | None = None,
        queue_size: int = 1000,
        seen: SeenEvents | None = None,
        url: str | None = None,
        tolerance: float = 300,
        signature_header: str | None = None,
        timestamp_header: str | None = None,
        event_id_header: str | None = None,
    ) -> None:
        concealed = None if secret is None else conceal(secret)
        del secret  # or a traceback with local variables would show it
        self._keys = None if concealed is None else checked_keys(concealed)
        check_function("on_event", on_event)
        try:
            check_callback_url("url", url)
        except (TypeError, ValueError) as error:
            del url  # as above
            raise error.with_traceback(None) from None
        self._url = url
        del url  # as above
        self._on_event = on_event
        self._queue: asyncio.Queue[WebhookEvent] = asyncio.Queue(check_count("queue_size", queue_size))
        self._seen: SeenEvents = _Recent() if seen is None else _checked_memory(seen)
        self._tolerance = checked_tolerance(tolerance)
        self._names = HeaderNames.of(signature_header, timestamp_header, event_id_header)
        self._pollers: list[LipsyncPoller] = []
        self._busy: set[str] = set()
        self._iterated = False

    @property
    def url(self) -> str:
        """The public URL of this receiver: `lipsyncs.create(callback_url=receiver.url)`.

        Raises:
            RuntimeError: If it was created without `url=`. It cannot find out, since that depends on the proxies in
                front of it.
        """
        if self._url is None:
            raise RuntimeError("the receiver does not know its URL; create it with url=")
        return self._url

    def attach(self, poller: LipsyncPoller) -> None:
        """Have *poller*, `session.poller`, look at the job of every event at once, and poll less meanwhile.

        A wait still returns what the API says, not the event. While notifications arrive for the jobs that it waits
        for, the poller polls only rarely, in case one is not delivered; when jobs end without a notification, it polls
        as often as without a receiver. Use receiver and poller on the same event loop.

        An attached receiver without *on_event* queues events from the first `async for` on, not before.

        Raises:
            TypeError: If it is no poller.
        """
        from heygen_async.polling import LipsyncPoller  # noqa: PLC0415 whoever has a poller has loaded it

        check_type("poller", poller, LipsyncPoller)
        self._pollers.append(poller)
        poller.expect_notifications()

    def __aiter__(self) -> Self:
        """Iterate over the events as they arrive, without end. Of several iterators, each event goes to one.

        Raises:
            RuntimeError: If the receiver has an *on_event*.
        """
        if self._on_event is not None:
            raise RuntimeError("the events go to on_event; create the receiver without it to iterate")
        self._iterated = True
        return self

    async def __anext__(self) -> WebhookEvent:
        """Return the next event. If cancelled, no event is lost: the next call returns it."""
        return await self._queue.get()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of `aiohttp.web`. Add it for all methods: `add_route("*", path, receiver.handle)`.

        An error of *on_event* or *seen* is logged and answered with a 500, not raised. If cancelled, it cancels
        *on_event*, and HeyGen delivers the event again.
        """
        from aiohttp import web  # noqa: PLC0415 not needed with ASGI

        # A body that a middleware has read is kept by the request.
        was_read = request.content.at_eof()
        read = request.read if was_read else partial(_read_all, request.content.readany)
        try:
            answer = await self._answer(request.method, request.headers, read)
        except (ConnectionError, web.RequestPayloadError):  # the client left, or broke the framing
            return web.Response(status=400)
        response = web.Response(status=answer.status, text=answer.text, headers=answer.headers)
        if answer is _COMPRESSED and not was_read:
            await _send_and_close(request, response)
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application, mounted in another or on its own."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"this application does not support {scope['type']}")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
        texts = CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        try:
            answer = await self._answer(str(scope["method"]), texts, partial(_read_all, _AsgiBody(receive).read))
        except ConnectionError:
            return  # the client left
        body = answer.text.encode()
        sent = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **answer.headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, headers: Mapping[str, str], read: ReadBody) -> _Answer:
        if method != "POST":
            return _PROBED if method == "OPTIONS" else _WRONG_METHOD
        if _is_compressed(headers):
            return _refused(_COMPRESSED)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                body = await read()
                return _refused(_TOO_LONG) if len(body) > MAX_BODY else await self._receive(body, headers)
        except TimeoutError:
            _logger.error("a webhook delivery was not handled within %g s", _ANSWER_WITHIN)  # noqa: TRY400 not our trace
            return _LATE

    async def _receive(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        try:
            delivery = await self._opened(body, headers)
        except WebhookError as error:
            return _refused(_Answer(401 if isinstance(error, InvalidSignature) else 400, str(error)))
        if not self._busy.isdisjoint(delivery.marks):
            return _BUSY
        self._busy |= delivery.marks
        try:
            return await self._handle_once(delivery)
        finally:
            self._busy -= delivery.marks

    async def _opened(self, body: bytes, headers: Mapping[str, str]) -> Delivery:
        work = partial(open_delivery, body, headers, keys=self._keys, tolerance=self._tolerance, names=self._names)
        return work() if len(body) < _LARGE else await to_thread.run_sync(work)

    async def _handle_once(self, delivery: Delivery) -> _Answer:
        try:
            if await self._was_handled(delivery):
                return _ACCEPTED
            if not await self._hand_over(delivery.event):
                return _FULL
            for mark in delivery.marks:
                await self._seen.add(mark)
        except (Exception, asyncio.CancelledError) as error:  # of the caller's own code: HeyGen is to deliver again
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            _logger.exception("the webhook event %s could not be handled", delivery.event.event_id)
            return _FAILED
        return _ACCEPTED

    async def _was_handled(self, delivery: Delivery) -> bool:
        """Look the delivery up, and notify pollers unless it was handled: each replay would cost them a request."""
        was_handled = False
        try:
            was_handled = any([await self._seen.has(mark) for mark in delivery.marks])
        finally:
            if not was_handled:
                self._notify(delivery.event)
        return was_handled

    async def _hand_over(self, event: WebhookEvent) -> bool:
        """Pass the event on; return whether there was room for it."""
        if self._on_event is not None:
            result = self._on_event(event)
            if inspect.isawaitable(result):
                await result
        elif self._iterated or not self._pollers:
            if self._queue.full():
                return False
            self._queue.put_nowait(event)
        return True

    def _notify(self, event: WebhookEvent) -> None:
        if event.lipsync_id is not None:
            for poller in self._pollers:
                poller.notify(event.lipsync_id)


def _checked_memory(seen: SeenEvents) -> SeenEvents:
    if not callable(getattr(seen, "has", None)) or not callable(getattr(seen, "add", None)):
        raise TypeError(f"seen must have the coroutine functions has() and add(), not be {shown(seen)}")
    return seen


def _is_being_cancelled() -> bool:
    """Return whether a `CancelledError` is of this task, and not of another one that was awaited here."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _is_compressed(headers: Mapping[str, str]) -> bool:
    encodings = (value for name, value in headers.items() if name.lower() == "content-encoding")
    return any(encoding.strip().lower() not in ("", "identity") for encoding in encodings)


def _refused(answer: _Answer) -> _Answer:
    _logger.warning("a webhook delivery was refused: %s", answer.text)
    return answer


async def _send_and_close(request: web.Request, response: web.StreamResponse) -> None:
    """Send the answer and close the connection, since aiohttp would decompress the rest of the body to skip it."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()


@define
class _AsgiBody:
    receive: Receive
    is_complete: bool = False

    async def read(self) -> bytes:
        """Return the next part of the body; nothing at its end."""
        while not self.is_complete:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            self.is_complete = not message.get("more_body")
            if body := message.get("body"):
                return cast("bytes", body)
        return b""


async def _read_all(read: Callable[[], Awaitable[bytes]]) -> bytes:
    body = bytearray()
    while len(body) <= MAX_BODY and (chunk := await read()):
        body += chunk
    return bytes(body)


async def _live(receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})
