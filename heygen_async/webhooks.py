"""Receiving webhooks: who sent it, what it says, and an application that takes it in.

The rules of this file:

1. A body is verified as the bytes that came. Nothing in it is read before.
2. The timestamp and the event id in the headers are not under the signature. So a replay is told by what is: the
   event id in the body, or, where there is none, the body itself.
3. A delivery is answered with a 2xx once it is in somebody's hands, and remembered only then. Until that HeyGen
   delivers it again, for up to 24 h.
4. What a delivery says is a hint to look. `lipsyncs.get` knows the truth.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias, cast

import orjson
from attrs import define, field, frozen

from heygen_async._arguments import check_count
from heygen_async._events import read_event
from heygen_async.errors import InvalidSignature, StaleDelivery, WebhookError
from heygen_async.models import Secret, WebhookEvent

if TYPE_CHECKING:
    from aiohttp import web

    from heygen_async.polling import LipsyncPoller

__all__ = ("SeenEvents", "WebhookEvent", "WebhookReceiver", "parse_event", "sign", "verify")

logger: Final = logging.getLogger("heygen_async.webhooks")

Body: TypeAlias = bytes | bytearray | memoryview
SigningSecret: TypeAlias = str | Secret | Sequence[str | Secret]
"""The secret of an endpoint; or several, while it is being rotated or for several endpoints."""

_SIGNATURE: Final = "Heygen-Signature"
_TIMESTAMP: Final = "Heygen-Timestamp"
_EVENT_ID: Final = "Heygen-Event-Id"

_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_ID: Final = re.compile(r"[!-~]{1,255}")


def verify(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret,
    tolerance: float = 300,
    now: float | None = None,
) -> None:
    """See that a delivery was signed with *secret*, and lately. Returns nothing if it was.

    The signature is compared in constant time. It does not cover the timestamp: that bounds accidents, not an
    attacker. A replay is told by the event id, see `WebhookReceiver`.

    Args:
        body: The bytes as they came, before any decoding.
        headers: The headers; look-up ignores case.
        secret: The secret of the endpoint, or several.
        tolerance: How far the timestamp may be from *now*, either way, in seconds.
        now: Unix time in seconds; `None` is the time of the clock.

    Raises:
        InvalidSignature: If the signature is missing or wrong.
        StaleDelivery: If the timestamp is missing, unreadable, or too far from now.
        TypeError, ValueError: If an argument is wrong, such as an empty secret or a body that is not bytes.
    """
    keys = _keys(secret)
    _check_signature(_checked(body), _header(headers, _SIGNATURE), keys)
    _check_timestamp(_header(headers, _TIMESTAMP), _checked_tolerance(tolerance), time.time() if now is None else now)


def parse_event(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret | None,
    tolerance: float = 300,
    now: float | None = None,
) -> WebhookEvent:
    """Verify a delivery and return what it says.

    Args:
        body: The bytes as they came, before any decoding.
        headers: The headers; look-up ignores case.
        secret: The secret of the endpoint, or several. `None` takes in unsigned deliveries, such as a
            `callback_url` may get: then anybody can send one, and it is a hint to look and no more.
        tolerance: How far the timestamp may be from *now*, either way, in seconds.
        now: Unix time in seconds; `None` is the time of the clock.

    Raises:
        InvalidSignature: If the signature is missing or wrong.
        StaleDelivery: If the timestamp is missing, unreadable, or too far from now.
        WebhookError: If the body is not an event.
        TypeError, ValueError: If an argument is wrong, such as an empty secret or a body that is not bytes.
    """
    return _open(body, headers, secret=secret, tolerance=tolerance, now=now).event


def sign(body: Body, *, secret: str | Secret, event_id: str, timestamp: float) -> dict[str, str]:
    """Return the headers of a delivery of *body*, to test a receiver with.

    Args:
        body: The bytes that will be sent.
        secret: The secret of the endpoint.
        event_id: The event's id.
        timestamp: Unix time in seconds.

    Raises:
        TypeError, ValueError: If an argument is wrong.
    """
    (key,) = _keys(secret)
    if not _ID.fullmatch(event_id):
        raise ValueError("event_id must be 1 to 255 printable ASCII characters without spaces")
    return {
        _SIGNATURE: _digest(_checked(body), key).decode(),
        _TIMESTAMP: str(int(timestamp)),
        _EVENT_ID: event_id,
    }


@frozen
class _Delivery:
    """A delivery that may be believed as far as its signature goes."""

    event: WebhookEvent
    marks: frozenset[str]
    """What another delivery of the same event has at least one of."""


def _open(
    body: Body,
    headers: Mapping[str, str],
    *,
    secret: SigningSecret | None,
    tolerance: float,
    now: float | None = None,
) -> _Delivery:
    if secret is not None:
        verify(body, headers, secret=secret, tolerance=tolerance, now=now)
    wire = _json_object(_checked(body))
    marks = _marks(wire.get("event_id"), headers, body)
    try:
        return _Delivery(read_event({**wire, "event_id": marks[0]}), frozenset(marks))
    except ValueError:
        raise WebhookError("the body does not say what kind of event it is") from None


def _marks(own_id: object, headers: Mapping[str, str], body: Body) -> list[str]:
    """Return what tells the event from others, the best first."""
    if isinstance(own_id, str) and _ID.fullmatch(own_id):
        return [own_id]
    header_id = _header(headers, _EVENT_ID)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    # The id in the header can be changed by whoever replays a delivery, the body cannot.
    return [header_id, digest] if _ID.fullmatch(header_id) else [digest]


def _json_object(body: Body) -> Mapping[str, object]:
    try:
        wire = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise WebhookError("the body is not JSON") from None
    if not isinstance(wire, dict):
        raise WebhookError("the body is not a JSON object")
    return wire


def _header(headers: Mapping[str, str], name: str) -> str:
    found = (value.strip() for key, value in headers.items() if key.lower() == name.lower())
    return next(found, "")


def _checked(body: Body) -> Body:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"body must be the bytes as they came, not {type(body).__name__}")
    return body


def _keys(secret: SigningSecret) -> list[bytes]:
    several = isinstance(secret, Sequence) and not isinstance(secret, (str, bytes))
    secrets = cast("Sequence[str | Secret]", secret if several else [secret])
    return [_key(each) for each in secrets or [""]]


def _key(secret: str | Secret) -> bytes:
    revealed = secret.reveal() if isinstance(secret, Secret) else secret
    if not isinstance(revealed, str):
        raise TypeError(f"secret must be a string, a Secret or a sequence of them, not {type(secret).__name__}")
    if not revealed:
        raise ValueError("secret is empty")
    return revealed.encode()


def _digest(body: Body, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256").hex().encode()


def _check_signature(body: Body, given: str, keys: Sequence[bytes]) -> None:
    if not given:
        raise InvalidSignature(f"the header {_SIGNATURE} is missing")
    # Bytes: compare_digest refuses text that is not ASCII. Every key is tried, so that the time tells nothing.
    signature = given.lower().encode("utf-8", "replace")
    fits = [hmac.compare_digest(_digest(body, key), signature) for key in keys]
    if not any(fits):
        raise InvalidSignature("the signature does not fit the body and the secret")


def _check_timestamp(given: str, tolerance: float, now: float) -> None:
    if not _UNIX_SECONDS.fullmatch(given):
        raise StaleDelivery(f"the header {_TIMESTAMP} is missing or not in unix seconds")
    off = float(given) - now
    if not abs(off) <= tolerance:
        raise StaleDelivery(f"the delivery is {abs(off):.0f} s {'ahead' if off > 0 else 'old'}, over {tolerance:g} s")


def _checked_tolerance(tolerance: float) -> float:
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 seconds or more, not {tolerance!r}")
    return tolerance


# The receiver

MAX_BODY: Final = 1 << 20
"""The longest body that is read, in bytes."""

_PATIENCE: Final = 8.0
"""Seconds until a delivery is answered in any case. HeyGen waits for 10."""

_DAY: Final = 86_400.0
_MOST_SEEN: Final = 100_000

Scope: TypeAlias = MutableMapping[str, object]
Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
OnEvent: TypeAlias = Callable[[WebhookEvent], Awaitable[object] | None]


ReadBody: TypeAlias = Callable[[], Awaitable[bytes | None]]
"""Reads a body to its end; `None` is one that is too long."""


class SeenEvents(Protocol):
    """A memory of the events that were taken in: a table or a Redis that several processes share, for instance.

    An event is added after it was taken in, so that a crash in between has it delivered again and not lost. Two
    processes that get the same event in the same moment may therefore both take it in.
    """

    async def has(self, event_id: str, /) -> bool:
        """Return whether *event_id* was added, within 24 h at least."""
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


_TAKEN: Final = _Answer(200)
_PROBED: Final = _Answer(200, headers={"Allow": "OPTIONS, POST"})
_WRONG_METHOD: Final = _Answer(405, "webhooks are sent with POST", {"Allow": "OPTIONS, POST"})
_TOO_LONG: Final = _Answer(413, f"at most {MAX_BODY} bytes")
_LATE: Final = _Answer(500, "it could not be taken in in time")
_FAILED: Final = _Answer(500, "it could not be taken in")
_BUSY: Final = _Answer(503, "this event is being taken in just now")
_FULL: Final = _Answer(503, "too many events are waiting")


class WebhookReceiver:
    """Takes in HeyGen's webhooks: an ASGI application, and a handler for `aiohttp.web`.

    Each event is given to *on_event*, or without one to `async for event in receiver`, once: deliveries of an
    event that was taken in before are answered, and that is all. HeyGen is told that a delivery has arrived after
    *on_event* has returned, or when the event is in the queue. Until then it delivers again, so an event is not
    lost when *on_event* raises, is late, or the queue is full. (What is in the queue is lost with the process.)

    ::

        receiver = WebhookReceiver(secret=os.environ["HEYGEN_WEBHOOK_SECRET"], on_event=store)

        app.routes.append(Route("/heygen", receiver))             # Starlette, FastAPI
        app.router.add_route("*", "/heygen", receiver.handle)     # aiohttp.web

    It answers to `POST`, and to the `OPTIONS` that HeyGen tries a new endpoint with. Make one anywhere, at import
    time too, and use it on one event loop. (Mounted in Starlette it answers only where the path has a slash at its
    end.)

    Args:
        secret: The secret of the endpoint, or several while it is being rotated. `None` takes in unsigned
            deliveries: then anybody can send one, and it is a hint to look and no more.
        on_event: Called with each event, in the task of its request. A coroutine function is awaited, and
            cancelled if the answer would be late, after 8 s in all.
        queue_size: How many events may wait for `async for`.
        seen: The memory of the events that were taken in; without one this process remembers the last 100,000 of
            the last 24 h.
        url: Where HeyGen reaches it, for `url`.
        tolerance: How far the timestamp of a delivery may be from now, either way, in seconds.

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
    ) -> None:
        # Checked now, and kept in a form that no repr shows.
        self._secret = None if secret is None else [Secret(key.decode()) for key in _keys(secret)]
        self._on_event = on_event
        self._queue: asyncio.Queue[WebhookEvent] = asyncio.Queue(check_count("queue_size", queue_size))
        self._seen: SeenEvents = _Recent() if seen is None else seen
        self._url = url
        self._tolerance = _checked_tolerance(tolerance)
        self._pollers: list[LipsyncPoller] = []
        self._busy: set[str] = set()
        self._iterated = False

    @property
    def url(self) -> str:
        """Where HeyGen reaches it: `lipsyncs.create(callback_url=receiver.url)`.

        Raises:
            RuntimeError: If it was not told. It cannot know, for that depends on what stands before it.
        """
        if self._url is None:
            raise RuntimeError("the receiver does not know its address; make it with url=")
        return self._url

    def attach(self, poller: LipsyncPoller) -> None:
        """Have the job of every event looked at now by *poller*, `session.poller`, which polls less meanwhile.

        What the wait returns comes from the API, not from the event. A poller that is told of its jobs asks by
        itself only now and then, for what was not delivered; when jobs end that it was not told of, it asks as
        often as ever. Use receiver and poller on the same event loop.

        An attached receiver without *on_event* queues events from the first `async for` on, not before.
        """
        self._pollers.append(poller)
        poller.expect_notifications()

    def __aiter__(self) -> Self:
        """Iterate over the events as they come, without end. Each goes to one of those who iterate.

        Raises:
            RuntimeError: If there is an *on_event*, which gets them.
        """
        if self._on_event is not None:
            raise RuntimeError("the events go to on_event; make the receiver without it to iterate")
        self._iterated = True
        return self

    async def __anext__(self) -> WebhookEvent:
        return await self._queue.get()

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request of `aiohttp.web`. Add it for all methods: `add_route("*", path, receiver.handle)`."""
        from aiohttp import web  # noqa: PLC0415 who serves with ASGI has no need of it

        # What a middleware has read before us is kept by the request.
        was_read = request.content.at_eof()
        try:
            answer = await self._answer(
                request.method,
                request.headers,
                request.read if was_read else partial(_read_all, request.content.readany),
            )
        except (ConnectionError, web.RequestPayloadError):  # broken off, or not what its Content-Encoding says
            return web.Response(status=400)
        return web.Response(status=answer.status, text=answer.text, headers=answer.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application, mounted in another or on its own."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"this application does not speak {scope['type']}")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
        texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        try:
            answer = await self._answer(str(scope["method"]), texts, partial(_read_all, _AsgiBody(receive).read))
        except ConnectionError:
            return  # nobody is there to read it
        body = answer.text.encode()
        sent = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **answer.headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, headers: Mapping[str, str], read: ReadBody) -> _Answer:
        if method != "POST":
            return _PROBED if method == "OPTIONS" else _WRONG_METHOD
        try:
            async with asyncio.timeout(_PATIENCE):
                body = await read()
                return _TOO_LONG if body is None else await self._take(body, headers)
        except TimeoutError:
            logger.error("a webhook delivery was not taken in within %g s", _PATIENCE)  # noqa: TRY400 no trace of ours
            return _LATE

    async def _take(self, body: bytes, headers: Mapping[str, str]) -> _Answer:
        try:
            delivery = _open(body, headers, secret=self._secret, tolerance=self._tolerance)
        except WebhookError as error:
            logger.warning("a webhook delivery was refused: %s", error)
            return _Answer(401 if isinstance(error, InvalidSignature) else 400, str(error))
        self._notify(delivery.event)
        if not self._busy.isdisjoint(delivery.marks):
            return _BUSY
        self._busy |= delivery.marks
        try:
            return await self._take_once(delivery)
        finally:
            self._busy -= delivery.marks

    async def _take_once(self, delivery: _Delivery) -> _Answer:
        try:
            if any([await self._seen.has(mark) for mark in delivery.marks]):
                return _TAKEN
            if not await self._hand_over(delivery.event):
                return _FULL
            for mark in delivery.marks:
                await self._seen.add(mark)
        except Exception:  # whatever the caller's own code raises, HeyGen is to deliver again
            logger.exception("the webhook event %s could not be taken in", delivery.event.event_id)
            return _FAILED
        return _TAKEN

    async def _hand_over(self, event: WebhookEvent) -> bool:
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
        for poller in self._pollers if event.lipsync_id is not None else ():
            poller.notify(cast("str", event.lipsync_id))


@define
class _AsgiBody:
    receive: Receive
    whole: bool = False

    async def read(self) -> bytes:
        """Return what came next of the body, nothing at its end."""
        while not self.whole:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            self.whole = not message.get("more_body")
            if body := message.get("body"):
                return cast("bytes", body)
        return b""


async def _read_all(read: Callable[[], Awaitable[bytes]]) -> bytes | None:
    body = bytearray()
    while chunk := await read():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


async def _live(receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})
