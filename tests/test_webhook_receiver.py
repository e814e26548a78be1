"""The receiver as ASGI application and as aiohttp handler: its answers, and that no event is lost or handled twice."""

import asyncio
import io
import logging
import threading
import time
import zlib

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from attrs import define, field
from multidict import CIMultiDict

from heygen_async import HeyGenSession
from heygen_async._delivery import open_delivery
from heygen_async.polling import LipsyncPoller
from heygen_async.webhooks import MAX_BODY, WebhookReceiver, _Recent, sign

SECRET = "whsec_abc"


def delivery(event_id="evt_1", *, body=None, secret=SECRET, header_id=None, off=0.0, **data):
    """Return the body and headers of a delivery, stamped now."""
    if body is None:
        body = orjson.dumps({"event_id": event_id, "event_type": "lipsync.success", "event_data": data})
    return body, sign(body, secret=secret, event_id=header_id or event_id, timestamp=time.time() + off)


@define
class Answer:
    status: int
    headers: dict
    text: str


class Asgi:
    """Speaks ASGI to a receiver, with the body in pieces."""

    def __init__(self, receiver, *, pieces=2):
        self.receiver = receiver
        self.pieces = pieces

    async def request(self, method, body=b"", headers=None):
        size = len(body) // self.pieces + 1
        chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        messages[-1]["more_body"] = False
        incoming, sent = iter(messages), []
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]

        async def receive():
            return next(incoming)

        async def send(message):
            sent.append(message)

        await self.receiver({"type": "http", "method": method, "path": "/", "headers": raw}, receive, send)
        start, end = sent
        answered = {name.decode().title(): value.decode() for name, value in start["headers"]}
        assert len(end["body"]) == int(answered["Content-Length"])
        return Answer(start["status"], answered, end["body"].decode())

    async def post(self, delivered):
        return (await self.request("POST", *delivered)).status


class Aiohttp:
    """Speaks HTTP to a receiver behind `aiohttp.web`."""

    def __init__(self, client):
        self.client = client

    async def request(self, method, body=b"", headers=None):
        async with self.client.request(method, "/hook", data=io.BytesIO(body), headers=headers) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.text())

    async def post(self, delivered):
        return (await self.request("POST", *delivered)).status


@pytest.fixture(params=["asgi", "aiohttp"])
async def serve(request):
    """Return what serves a receiver, in each of the two ways."""
    clients = []

    async def start(receiver):
        if request.param == "asgi":
            return Asgi(receiver)
        app = web.Application()
        app.router.add_route("*", "/hook", receiver.handle)
        clients.append(TestClient(TestServer(app)))
        await clients[-1].start_server()
        return Aiohttp(clients[-1])

    yield start
    for client in clients:
        await client.close()


@define
class Taken:
    """An `on_event` with scripted effects."""

    events: list = field(factory=list)
    effects: list = field(factory=list)
    begun: asyncio.Event = field(factory=asyncio.Event)

    async def __call__(self, event):
        self.begun.set()
        effect = self.effects.pop(0) if self.effects else None
        if isinstance(effect, Exception):
            raise effect
        if effect is not None:
            await effect
        self.events.append(event.event_id)


async def test_a_verified_delivery_is_passed_to_on_event(serve):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))

    assert await hook.post(delivery("evt_1")) == 200
    assert taken.events == ["evt_1"]


async def test_on_event_may_be_a_plain_function(serve):
    events = []
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=events.append))

    assert await hook.post(delivery(lipsync_id="ls_1")) == 200
    assert [event.lipsync_id for event in events] == ["ls_1"]


async def test_without_on_event_events_are_iterated_over(serve):
    receiver = WebhookReceiver(secret=SECRET)
    hook = await serve(receiver)
    for name in ("evt_1", "evt_2"):
        assert await hook.post(delivery(name)) == 200

    events = []
    async for event in receiver:
        events.append(event.event_id)
        if len(events) == 2:
            break

    assert events == ["evt_1", "evt_2"]


async def test_a_receiver_with_on_event_cannot_be_iterated():
    with pytest.raises(RuntimeError, match="on_event"):
        aiter(WebhookReceiver(secret=SECRET, on_event=Taken()))


async def test_the_probe_of_a_new_endpoint_is_answered(serve):
    answer = await (await serve(WebhookReceiver(secret=SECRET))).request("OPTIONS")

    assert answer.status == 200
    assert answer.headers["Allow"] == "OPTIONS, POST"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_not_allowed(serve, method):
    answer = await (await serve(WebhookReceiver(secret=SECRET))).request(method)

    assert answer.status == 405
    assert answer.headers["Allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    ("delivered", "status"),
    [
        pytest.param(lambda: delivery(secret="whsec_other"), 401, id="another-secret"),
        pytest.param(lambda: (delivery()[0], {}), 401, id="unsigned"),
        pytest.param(lambda: (b"{}", delivery()[1]), 401, id="another-body"),
        pytest.param(lambda: (b"", {}), 401, id="empty"),
        pytest.param(lambda: (b"{}", {"Heygen-Signature": "é" * 64}), 401, id="a-signature-that-is-not-ascii"),
        pytest.param(lambda: delivery(off=-400), 400, id="old"),
        pytest.param(lambda: delivery(off=400), 400, id="ahead"),
        pytest.param(lambda: delivery(body=b"[1]"), 400, id="no-event"),
        pytest.param(lambda: delivery(body=b"{"), 400, id="no-json"),
    ],
)
async def test_a_delivery_that_cannot_be_trusted_or_read_is_refused(serve, caplog, delivered, status):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))

    assert await hook.post(delivered()) == status
    assert taken.events == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_body_of_the_longest_length_is_read_and_a_longer_one_is_not(serve):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))
    body, _ = delivery()

    assert await hook.post(delivery(body=body.ljust(MAX_BODY))) == 200
    assert await hook.post(delivery(body=body.ljust(MAX_BODY + 1))) == 413
    assert taken.events == ["evt_1"]


async def test_the_tolerance_can_be_set(serve):
    hook = await serve(WebhookReceiver(secret=SECRET, tolerance=3600))

    assert await hook.post(delivery(off=-3000)) == 200


async def test_an_event_that_is_delivered_again_is_handled_once(serve):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))

    assert [await hook.post(delivery("evt_1")) for _ in range(3)] == [200, 200, 200]
    assert taken.events == ["evt_1"]


async def test_a_replay_under_another_id_and_time_is_recognized(serve):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))

    await hook.post(delivery("evt_1"))
    await hook.post(delivery("evt_1", header_id="evt_forged", off=100))

    nameless = b'{"event_type": "lipsync.success", "event_data": {"id": "ls_1"}}'
    await hook.post(delivery(body=nameless, header_id="evt_2"))
    await hook.post(delivery(body=nameless, header_id="evt_forged", off=100))
    await hook.post(delivery(body=nameless + b" ", header_id="evt_2"))

    assert taken.events == ["evt_1", "evt_2"]


async def test_an_event_is_not_remembered_when_on_event_raises(serve, caplog):
    taken = Taken(effects=[OSError("the database is away"), TimeoutError()])
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))

    assert [await hook.post(delivery("evt_1")) for _ in range(4)] == [500, 500, 200, 200]
    assert taken.events == ["evt_1"]
    assert "evt_1" in caplog.text


async def cancels_what_it_awaits(_event):
    task = asyncio.ensure_future(asyncio.sleep(10))
    task.cancel()
    await task


def raises_at_once(_event):
    raise asyncio.CancelledError


async def raises_from_a_group(_event):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    raise asyncio.CancelledError("of somebody else")


@pytest.mark.parametrize("on_event", [cancels_what_it_awaits, raises_at_once, raises_from_a_group])
async def test_a_cancelled_error_of_the_handlers_own_is_a_failure_like_any_other(serve, caplog, on_event):
    receiver = WebhookReceiver(secret=SECRET, on_event=on_event)
    hook = await serve(receiver)
    with caplog.at_level(logging.ERROR, "heygen_async.webhooks"):
        assert [await hook.post(delivery("evt_1")) for _ in range(2)] == [500, 500]
    assert caplog.messages == ["the webhook event evt_1 could not be handled"] * 2
    assert receiver._busy == set()


async def test_a_cancellation_of_the_request_goes_on(caplog):
    begun = asyncio.Event()

    async def waits(_event):
        begun.set()
        await asyncio.Event().wait()

    receiver = WebhookReceiver(secret=SECRET, on_event=waits)
    request = asyncio.ensure_future(Asgi(receiver).post(delivery("evt_1")))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (request.cancelled(), caplog.messages, receiver._busy) == (True, [], set())


@pytest.mark.parametrize("wrong", [None, "session", HeyGenSession("key")], ids=["none", "text", "session"])
async def test_only_a_poller_can_be_attached(serve, wrong):
    receiver = WebhookReceiver(secret=SECRET, on_event=Taken())
    with pytest.raises(TypeError, match="poller must be a LipsyncPoller, not"):
        receiver.attach(wrong)
    assert await (await serve(receiver)).post(delivery("evt_1", lipsync_id="ls_1")) == 200


@pytest.mark.looptime
async def test_an_event_is_not_remembered_when_on_event_is_late(caplog):
    taken = Taken(effects=[asyncio.sleep(9), asyncio.sleep(7)])
    hook = Asgi(WebhookReceiver(secret=SECRET, on_event=taken))

    assert await hook.post(delivery("evt_1")) == 500
    assert asyncio.get_running_loop().time() == pytest.approx(8)
    assert await hook.post(delivery("evt_1")) == 200
    assert await hook.post(delivery("evt_1")) == 200
    assert taken.events == ["evt_1"]
    assert "within 8 s" in caplog.text


@pytest.mark.looptime
async def test_a_body_that_does_not_arrive_is_answered_in_time():
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await WebhookReceiver(secret=SECRET)(scope, receive, send)

    assert sent[0]["status"] == 500
    assert asyncio.get_running_loop().time() == pytest.approx(8)


async def test_an_event_for_a_full_queue_is_refused_and_delivered_again(serve):
    receiver = WebhookReceiver(secret=SECRET, queue_size=1)
    hook = await serve(receiver)

    assert await hook.post(delivery("evt_1")) == 200
    assert await hook.post(delivery("evt_2")) == 503
    assert (await anext(receiver)).event_id == "evt_1"
    assert await hook.post(delivery("evt_2")) == 200
    assert (await anext(receiver)).event_id == "evt_2"


class NotifiedPoller(LipsyncPoller):
    """Keeps the ids that it was notified of, and sends nothing."""

    def __init__(self):
        self.notified = []

    def expect_notifications(self):
        pass

    def notify(self, lipsync_id):
        self.notified.append(lipsync_id)


@pytest.mark.parametrize("pieces", [1, 2], ids=["as-it-was", "under-another-id"])
async def test_a_replay_of_a_handled_event_notifies_no_poller(serve, pieces):
    poller = NotifiedPoller()
    receiver = WebhookReceiver(secret=SECRET, on_event=lambda _: None)
    receiver.attach(poller)
    client = await serve(receiver)
    body = b'{"event_type": "lipsync.success", "event_data": {"lipsync_id": "ls_1"}}'
    for number in range(4):
        assert await client.post(delivery(f"evt_{number % pieces}", body=body)) == 200
    assert poller.notified == ["ls_1"]


async def test_an_event_whose_handler_failed_notifies_again_when_it_is_delivered_again(serve):
    failures = [ValueError("busy"), OSError("full")]

    def handle(_event):
        if failures:
            raise failures.pop()

    poller = NotifiedPoller()
    receiver = WebhookReceiver(secret=SECRET, on_event=handle)
    receiver.attach(poller)
    client = await serve(receiver)
    assert [await client.post(delivery(lipsync_id="ls_1")) for _ in range(5)] == [500, 500, 200, 200, 200]
    assert poller.notified == ["ls_1"] * 3


async def test_pollers_are_notified_though_the_memory_of_handled_events_is_out_of_order(serve):
    class Broken:
        async def has(self, _event_id):
            raise OSError("no connection")

        async def add(self, _event_id):
            raise AssertionError

    poller = NotifiedPoller()
    receiver = WebhookReceiver(secret=SECRET, on_event=lambda _: None, seen=Broken())
    receiver.attach(poller)
    assert await (await serve(receiver)).post(delivery(lipsync_id="ls_1")) == 500
    assert poller.notified == ["ls_1"]


async def test_two_deliveries_of_an_event_at_the_same_time_notify_once(serve):
    poller = NotifiedPoller()
    started, free = asyncio.Event(), asyncio.Event()

    async def handle(_event):
        started.set()
        await free.wait()

    receiver = WebhookReceiver(secret=SECRET, on_event=handle)
    receiver.attach(poller)
    client = await serve(receiver)
    first = asyncio.create_task(client.post(delivery(lipsync_id="ls_1")))
    await started.wait()
    assert await client.post(delivery(lipsync_id="ls_1")) == 503
    free.set()
    assert await first == 200
    assert poller.notified == ["ls_1"]


async def test_an_event_is_not_handled_twice_at_the_same_time(serve):
    gate = asyncio.Event()
    taken = Taken(effects=[gate.wait()])
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        first = group.create_task(hook.post(delivery("evt_1")))
        await taken.begun.wait()
        assert await hook.post(delivery("evt_1")) == 503
        assert await hook.post(delivery("evt_2")) == 200
        gate.set()
    assert first.result() == 200
    assert await hook.post(delivery("evt_1")) == 200
    assert taken.events == ["evt_2", "evt_1"]


async def test_an_event_is_not_remembered_when_its_request_is_cancelled():
    taken = Taken(effects=[asyncio.Event().wait()])
    hook = Asgi(WebhookReceiver(secret=SECRET, on_event=taken))
    task = asyncio.create_task(hook.post(delivery("evt_1")))
    await asyncio.wait_for(taken.begun.wait(), 5)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await hook.post(delivery("evt_1")) == 200
    assert taken.events == ["evt_1"]


@define
class Store:
    """A memory of the caller's, which may be away."""

    ids: set = field(factory=set)
    is_away: bool = False

    async def has(self, event_id):
        if self.is_away:
            raise ConnectionError("away")
        return event_id in self.ids

    async def add(self, event_id):
        await asyncio.sleep(0)
        self.ids.add(event_id)


async def test_the_memory_of_events_can_be_the_callers(serve):
    store, one, other = Store(), Taken(), Taken()
    await (await serve(WebhookReceiver(secret=SECRET, on_event=one, seen=store))).post(delivery("evt_1"))
    second = await serve(WebhookReceiver(secret=SECRET, on_event=other, seen=store))

    assert await second.post(delivery("evt_1")) == 200
    assert (one.events, other.events) == (["evt_1"], [])


async def test_a_memory_that_fails_has_the_event_delivered_again(serve, caplog):
    store, taken = Store(is_away=True), Taken()
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken, seen=store))

    assert await hook.post(delivery("evt_1")) == 500
    store.is_away = False
    assert await hook.post(delivery("evt_1")) == 200
    assert taken.events == ["evt_1"]
    assert "evt_1" in caplog.text


@pytest.mark.looptime
async def test_an_event_is_remembered_for_a_day():
    taken = Taken()
    hook = Asgi(WebhookReceiver(secret=SECRET, on_event=taken))
    await hook.post(delivery("evt_1"))

    await asyncio.sleep(86_399)
    await hook.post(delivery("evt_1"))
    assert taken.events == ["evt_1"]

    await asyncio.sleep(2)
    await hook.post(delivery("evt_1"))
    assert taken.events == ["evt_1", "evt_1"]


async def test_the_memory_is_bounded():
    recent = _Recent(most=3)
    for name in ("evt_1", "evt_2", "evt_1", "evt_3", "evt_4"):
        await recent.add(name)

    assert [await recent.has(f"evt_{n}") for n in range(1, 5)] == [True, False, True, True]


async def test_unsigned_deliveries_are_accepted_with_secret_none(serve):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=None, on_event=taken))

    assert await hook.post((b'{"event_id": "evt_1", "event_type": "lipsync.success"}', {})) == 200
    assert taken.events == ["evt_1"]


async def test_both_secrets_are_accepted_during_a_rotation(serve):
    hook = await serve(WebhookReceiver(secret=["whsec_new", SECRET]))

    assert await hook.post(delivery("evt_1", secret=SECRET)) == 200
    assert await hook.post(delivery("evt_2", secret="whsec_new")) == 200


@pytest.mark.parametrize("secret", ["", [], ["whsec_1", ""]])
def test_an_empty_secret_is_a_value_error(secret):
    with pytest.raises(ValueError, match="secret"):
        WebhookReceiver(secret=secret)


def test_the_secret_is_in_no_repr():
    receiver = WebhookReceiver(secret=SECRET)

    assert SECRET not in repr(receiver) + repr(vars(receiver))


def test_the_url_is_the_one_that_was_given():
    assert WebhookReceiver(secret=SECRET, url="https://app.example/hook").url == "https://app.example/hook"
    with pytest.raises(RuntimeError, match="url"):
        _ = WebhookReceiver(secret=SECRET).url


async def test_a_client_that_leaves_is_not_answered():
    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    await WebhookReceiver(secret=SECRET)({"type": "http", "method": "POST", "headers": []}, receive, send)


async def test_it_supports_the_lifespan_of_an_asgi_application():
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive():
        return next(incoming)

    async def send(message):
        sent.append(message["type"])

    await WebhookReceiver(secret=SECRET)({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_closed_and_other_protocols_are_an_error():
    sent = []

    async def send(message):
        sent.append(message)

    receiver = WebhookReceiver(secret=SECRET)
    await receiver({"type": "websocket"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
    with pytest.raises(ValueError, match="mqtt"):
        await receiver({"type": "mqtt"}, None, send)


async def test_a_body_that_a_middleware_has_read_is_accepted_up_to_the_longest_length():
    taken = Taken()
    receiver = WebhookReceiver(secret=SECRET, on_event=taken)

    @web.middleware
    async def reading(request, handler):
        await request.read()
        return await handler(request)

    app = web.Application(middlewares=[reading], client_max_size=2 * MAX_BODY)
    app.router.add_route("*", "/hook", receiver.handle)
    async with TestClient(TestServer(app)) as client:
        assert await Aiohttp(client).post(delivery("evt_1")) == 200
        longer = delivery("evt_2")[0].ljust(MAX_BODY + 1)
        assert await Aiohttp(client).post(delivery(body=longer)) == 413
    assert taken.events == ["evt_1"]


async def test_a_connection_that_breaks_in_the_body_is_not_logged(caplog):
    receiver = WebhookReceiver(secret=SECRET)
    reading, handled = asyncio.Event(), asyncio.Event()

    async def handle(request):
        reading.set()
        try:
            return await receiver.handle(request)
        finally:
            handled.set()

    app = web.Application()
    app.router.add_route("*", "/hook", handle)
    runner = web.AppRunner(app)  # not a TestServer, which cancels the handlers of those who leave
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asyncio.timeout(5):
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(b"POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        await reading.wait()
        writer.close()
        await writer.wait_closed()
        await handled.wait()
        await runner.cleanup()

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def zipped(body, size=0):
    """Return *body* followed by *size* blanks, compressed and signed as it is sent."""
    compressor = zlib.compressobj(9, wbits=31)
    parts = [compressor.compress(body)]
    parts += [compressor.compress(b" " * (1 << 20)) for _ in range(size >> 20)]
    return delivery(body=b"".join([*parts, compressor.flush()]))


@pytest.mark.parametrize(
    ("other", "if_first"),
    [
        (("Heygen-Signature", "0" * 64), 401),
        (("Heygen-Timestamp", "1"), 400),
        (("Heygen-Signature", ""), 200),
    ],
    ids=["signature", "timestamp", "nothing"],
)
async def test_of_a_header_that_comes_twice_the_first_value_counts(serve, other, if_first):
    hook = await serve(WebhookReceiver(secret=SECRET))
    body, headers = delivery()

    assert await hook.post((body, CIMultiDict([other, *headers.items()]))) == if_first
    assert await hook.post((body, CIMultiDict([*headers.items(), other]))) == 200


@pytest.mark.parametrize("encodings", [["gzip", "identity"], ["identity", "gzip"], ["", "deflate"]], ids=str)
async def test_a_compressed_body_is_refused_whichever_of_two_headers_says_so(serve, encodings):
    hook = await serve(WebhookReceiver(secret=SECRET))
    body, headers = zipped(delivery()[0])

    both = [*headers.items(), *(("Content-Encoding", encoding) for encoding in encodings)]
    answer = await hook.request("POST", body, CIMultiDict(both))

    assert (answer.status, answer.text) == (400, "compressed bodies are not accepted")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "gzip, identity", "x-own"])
async def test_a_compressed_body_is_refused_and_not_read(serve, caplog, encoding):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=taken))
    body, headers = zipped(delivery()[0])

    answer = await hook.request("POST", body, {**headers, "Content-Encoding": encoding})

    assert (answer.status, answer.text) == (400, "compressed bodies are not accepted")
    assert answer.headers["Accept-Encoding"] == "identity"
    assert taken.events == []
    assert [record.levelno for record in caplog.records if record.name == "heygen_async.webhooks"] == [logging.WARNING]


@pytest.mark.parametrize("encoding", ["identity", "Identity ", ""])
async def test_a_body_that_says_that_it_is_not_compressed_is_read(serve, encoding):
    hook = await serve(WebhookReceiver(secret=SECRET))
    body, headers = delivery()

    assert await hook.post((body, {**headers, "Content-Encoding": encoding})) == 200


async def test_a_body_that_is_not_encoded_as_it_says_is_refused(serve):
    hook = await serve(WebhookReceiver(secret=SECRET))
    body, headers = delivery()

    assert await hook.post((body, {**headers, "Content-Encoding": "gzip"})) == 400


async def test_a_body_that_grows_a_thousand_times_is_not_decompressed():
    receiver, requests = WebhookReceiver(secret=SECRET), []

    async def handle(request):
        requests.append(request)
        return await receiver.handle(request)

    app = web.Application()
    app.router.add_route("*", "/hook", handle)
    body, headers = zipped(b"{}", size=1 << 28)
    assert len(body) < MAX_BODY
    async with asyncio.timeout(30), TestClient(TestServer(app)) as client:
        hook = Aiohttp(client)
        assert [await hook.post((body, {**headers, "Content-Encoding": "gzip"})) for _ in range(3)] == [400] * 3
        assert await hook.post(delivery()) == 200

    # What aiohttp had decompressed before it called us, a few of its buffers.
    assert max(request.content.total_bytes for request in requests) < 8 * MAX_BODY


HOSTILE = [
    pytest.param(b"[" * MAX_BODY, id="brackets"),
    pytest.param(b'{"a":' * (MAX_BODY // 5), id="objects"),
    pytest.param(b'["\\ud83d",' + b"[" * (MAX_BODY - 20), id="brackets-after-a-surrogate"),
    pytest.param(b'{"event_type": "a", "x": nan}', id="no-json-at-all"),
    pytest.param(b"9" * MAX_BODY, id="digits"),
    pytest.param(b"\xff" * MAX_BODY, id="no-utf-8"),
    pytest.param(b"\0" * MAX_BODY, id="nul"),
]


@pytest.mark.parametrize("secret", [None, SECRET], ids=["unsigned", "signed"])
@pytest.mark.parametrize("body", HOSTILE)
async def test_a_hostile_body_is_refused(serve, secret, body):
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=secret, on_event=taken))

    assert await hook.post(delivery(body=body)) == 400
    assert await hook.post(delivery("evt_1")) == 200
    assert taken.events == ["evt_1"]


async def test_a_large_body_is_read_without_blocking_the_event_loop(serve, monkeypatch):
    begun, goes_on = threading.Event(), threading.Event()

    def slow(*given, **named):
        begun.set()
        assert goes_on.wait(10)
        return open_delivery(*given, **named)

    monkeypatch.setattr("heygen_async.webhooks.open_delivery", slow)
    taken = Taken()
    hook = await serve(WebhookReceiver(secret=None, on_event=taken))
    body, headers = delivery(note="x" * (64 << 10))

    posting = asyncio.create_task(hook.post((body, headers)))
    await asyncio.to_thread(begun.wait, 10)
    goes_on.set()

    assert await posting == 200
    assert taken.events == ["evt_1"]


def callback(status="completed", **more):
    return orjson.dumps({"lipsync_id": "ls_1", "status": status, **more})


async def test_plain_callbacks_are_received_unsigned_and_recognized_by_their_body(serve):
    events = []
    hook = await serve(WebhookReceiver(secret=None, on_event=events.append))

    for body in (callback("running"), callback(), callback(), callback(video_url="https://files/1?sig=2")):
        assert await hook.post((body, {})) == 200

    assert [(event.lipsync_id, event.outcome) for event in events] == [
        ("ls_1", None),
        ("ls_1", "completed"),
        ("ls_1", "completed"),
    ]


async def test_plain_callbacks_are_received_signed(serve):
    events = []
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=events.append))

    assert await hook.post(delivery(body=callback())) == 200
    assert await hook.post(delivery(body=callback(), header_id="evt_forged")) == 200
    assert await hook.post((callback(), {})) == 401
    assert [event.lipsync_id for event in events] == ["ls_1"]


async def test_events_without_an_id_are_distinguished_by_their_body(serve):
    events = []
    hook = await serve(WebhookReceiver(secret=None, on_event=events.append))

    for n in (1, 2, 1):
        body = orjson.dumps({"event_type": "batch.finished", "event_data": {"batch_id": f"batch_{n}"}})
        assert await hook.post((body, {})) == 200

    assert [event.data["batch_id"] for event in events] == ["batch_1", "batch_2"]


async def test_half_of_a_surrogate_pair_does_not_hide_an_event(serve):
    events = []
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=events.append))
    body = b'{"event_id": "evt_1", "event_type": "x.success", "event_data": {"title": "L \\ud83d"}}'

    assert await hook.post(delivery(body=body)) == 200
    assert [event.data["title"] for event in events] == ["L \ufffd"]


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e400", b"9" * 400])
async def test_a_number_that_is_none_does_not_hide_an_event(serve, number):
    events = []
    hook = await serve(WebhookReceiver(secret=SECRET, on_event=events.append))
    body = b'{"event_id": "evt_1", "event_type": "x.success", "event_data": {"id": "ls_1", "duration": %b}}' % number

    assert await hook.post(delivery(body=body)) == 200
    assert [(event.lipsync_id, event.data["duration"]) for event in events] == [("ls_1", None)]


async def test_header_names_may_be_the_users_own(serve):
    receiver = WebhookReceiver(
        secret=SECRET, signature_header="X-Sig", timestamp_header="X-Time", event_id_header="X-Id"
    )
    hook = await serve(receiver)
    body, headers = delivery(body=callback(), header_id="evt_9")
    own = {"X-Sig": headers["Heygen-Signature"], "X-Time": headers["Heygen-Timestamp"], "X-Id": "evt_9"}

    assert await hook.post((body, headers)) == 401
    assert await hook.post((body, own)) == 200
    assert (await anext(receiver)).event_id == "evt_9"


@pytest.mark.parametrize("prefix", ["X-Heygen-", ""])
async def test_the_known_header_names_are_tried(serve, prefix):
    hook = await serve(WebhookReceiver(secret=SECRET))
    body, headers = delivery()

    assert await hook.post((body, {name.replace("Heygen-", prefix): value for name, value in headers.items()})) == 200
