"""A server that answers anything, over a real socket."""

import asyncio
import gzip
import itertools
import re
import time
import zlib
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from heygen_async import (
    HeyGenError,
    HeyGenSession,
    RequestTimeout,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
    UnexpectedResponse,
)
from heygen_async._transport.sending import send_stream
from heygen_async._wire import Stream
from heygen_async.models import Secret

ONCE = RetryPolicy(max_attempts=1)
BOTH = {"video": "https://example.com/v.mp4", "audio": "https://example.com/a.mp3"}


@asynccontextmanager
async def answering(handler, **options):
    """Give a session on a server that answers every request with *handler*, and the requests it got."""
    got = []

    async def note(request):
        got.append(request)
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", note)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with HeyGenSession(
            "sk_secret", base_url=f"http://{host}:{port}", **{"retry": ONCE, **options}
        ) as session:
            yield session, got
    finally:
        await runner.cleanup()


def always(**response):
    async def answer(request):
        return web.Response(**response)

    return answer


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        ({"text": "<html>Welcome</html>", "content_type": "text/html"}, UnexpectedResponse, "not JSON: Welcome"),
        ({"text": '{"data": {"id": "ls_1"'}, UnexpectedResponse, "not JSON"),
        ({"text": "{}"}, UnexpectedResponse, "required field missing @ $.data"),
        ({"text": '{"data": null}'}, UnexpectedResponse, "@ $.data"),
        ({"text": ""}, UnexpectedResponse, "@ $"),
        ({"text": '{"data": {"id": "ls_1", "status": 5}}'}, UnexpectedResponse, "@ $.data.status"),
        ({"status": 502, "text": "<html>Bad Gateway</html>"}, ServerError, "502: Bad Gateway"),
        ({"status": 503}, ServerError, "503"),
        ({"status": 302, "headers": {"Location": "https://evil.example/"}}, UnexpectedResponse, "redirect"),
        ({"status": 304}, UnexpectedResponse, "redirect"),
        ({"body": b"x" * 2000}, UnexpectedResponse, "longer than max_response_bytes=1000"),
        (
            {"body": gzip.compress(b"x" * 50_000_000), "headers": {"Content-Encoding": "gzip"}},
            UnexpectedResponse,
            "longer than max_response_bytes=1000",
        ),
        ({"body": b"not gzip", "headers": {"Content-Encoding": "gzip"}}, TransportError, "the connection broke"),
    ],
    ids=lambda value: None,
)
async def test_whatever_is_answered_it_is_one_of_our_errors(response, kind, message):
    async with answering(always(**response), max_response_bytes=1000) as (session, got):
        with pytest.raises(kind, match=re.escape(message)) as caught:
            await session.lipsyncs.get("ls_1")
    assert caught.value.attempts == 1
    assert len(got) == 1


async def test_a_compressed_answer_within_the_bound_is_read():
    body = zlib.compress(b'{"data": {"id": "ls_1", "status": "running"}}')
    async with answering(always(body=body, headers={"Content-Encoding": "deflate"})) as (session, _):
        assert (await session.lipsyncs.get("ls_1")).status == "running"


async def test_an_answer_of_unknown_length_is_bounded_too():
    async def drip(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 100)
        return response

    async with answering(drip, max_response_bytes=1000) as (session, _):
        with pytest.raises(UnexpectedResponse, match="longer than"):
            await session.lipsyncs.get("ls_1")


async def test_a_body_that_ends_early_is_a_transport_error_and_is_tried_again():
    async def cut(request):
        response = web.StreamResponse(headers={"Content-Length": "500"})
        await response.prepare(request)
        await response.write(b'{"data"')
        request.transport.close()
        return response

    async with answering(cut, retry=RetryPolicy(max_attempts=3, first_delay=0)) as (session, got):
        with pytest.raises(TransportError, match=r"GET /v3/lipsyncs/\{lipsync_id\}: the connection broke") as caught:
            await session.lipsyncs.get("ls_1")
    assert (caught.value.attempts, caught.value.outcome) == (3, "unknown")
    assert len(got) == 3


@pytest.mark.parametrize("rest", [[b"b"], [b"b", b"c"], []], ids=len)
async def test_a_deadline_that_passes_in_the_moment_when_more_can_be_sent_is_a_timeout(rest):
    loop, idle = asyncio.get_running_loop(), 0.02
    has_more = loop.create_future()

    async def chunks():
        # Both are late in one turn of the event loop: there is more to send, and the deadline.
        loop.call_later(idle / 2, has_more.set_result, None)
        loop.call_soon(time.sleep, 3 * idle)
        yield b"a"
        await has_more
        for piece in rest:
            yield piece

    async def send(body, _timeout):
        async def write():
            async for _ in body.pieces:
                pass

        writer = asyncio.create_task(write())
        try:
            await asyncio.sleep(10)
        finally:
            writer.cancel()
            written.extend(await asyncio.gather(writer, return_exceptions=True))

    written = []
    with pytest.raises(RequestTimeout):
        await send_stream(send, Stream("a/b", 3, chunks), "PUT", Timeouts(connect=0.1, transfer_idle=idle))
    assert not isinstance(written[0], RuntimeError)


async def test_a_create_whose_answer_is_lost_is_sent_again_under_its_key():
    async def reset(request):
        request.transport.abort()
        return web.Response()

    async with answering(reset, retry=RetryPolicy(max_attempts=3, first_delay=0)) as (session, got):
        with pytest.raises(TransportError) as caught:
            await session.lipsyncs.create(**BOTH)
    assert {request.headers["Idempotency-Key"] for request in got} == {caught.value.idempotency_key}
    assert (len(got), caught.value.attempts, caught.value.outcome) == (3, 3, "unknown")


async def test_a_create_whose_answer_cannot_be_read_has_its_key():
    async with answering(always(text='{"data": {"job": "ls_1"}}')) as (session, _):
        with pytest.raises(UnexpectedResponse, match=r"required field missing @ \$\.data\.lipsync_id") as caught:
            await session.lipsyncs.create(**BOTH, idempotency_key="row-1")
    assert (caught.value.idempotency_key, caught.value.outcome) == ("row-1", "unknown")


async def test_an_answer_that_does_not_come_is_a_request_timeout():
    never = asyncio.Event()

    async def hang(request):
        await never.wait()

    async with answering(hang, timeouts=Timeouts(read=0.05)) as (session, _):
        with pytest.raises(RequestTimeout, match="no answer in time") as caught:
            await session.lipsyncs.get("ls_1")
        assert caught.value.outcome == "unknown"
        assert not isinstance(caught.value, TimeoutError)
        never.set()


async def test_a_connection_that_is_refused_was_not_sent():
    async with HeyGenSession("key", base_url="http://127.0.0.1:1", retry=ONCE) as session:
        with pytest.raises(TransportError, match="no connection") as caught:
            await session.lipsyncs.create(**BOTH)
    assert caught.value.outcome == "not_sent"
    assert isinstance(caught.value.__cause__, aiohttp.ClientConnectorError)


async def test_waiting_for_a_connection_uses_up_no_timeout():
    async def slow(request):
        await asyncio.sleep(0.1)
        return web.Response(text='{"data": {"id": "ls_1", "status": "running"}}')

    async with answering(slow, max_connections=1, timeouts=Timeouts(read=0.6)) as (session, _):
        found = await asyncio.gather(*(session.lipsyncs.get("ls_1") for _ in range(8)))
    assert len(found) == 8


async def test_a_redirect_is_never_followed_and_the_key_stays_at_home():
    reached = []

    async def elsewhere(request):
        reached.append(request.headers)
        return web.Response(text='{"data": {"id": "ls_1", "status": "running"}}')

    async with answering(elsewhere) as (other, _):
        location = f"{other._connections.origin.base_url}/v3/lipsyncs/ls_1"
        for status in (301, 302, 303, 307, 308):
            async with answering(always(status=status, headers={"Location": location})) as (session, _):
                with pytest.raises(UnexpectedResponse):
                    await session.lipsyncs.get("ls_1")
    assert reached == []


async def test_a_cookie_is_not_kept():
    async with answering(always(text='{"data": {"id": "ls_1", "status": "x"}}', headers={"Set-Cookie": "a=b"})) as (
        session,
        got,
    ):
        await session.lipsyncs.get("ls_1")
        await session.lipsyncs.get("ls_1")
    assert "Cookie" not in got[1].headers


@pytest.mark.parametrize("header", ["é\udcff", "x" * 9000])
async def test_odd_headers_of_the_server_are_no_crash(header):
    async def odd(request):
        writer = request.transport
        writer.write(b"HTTP/1.1 200 OK\r\nX-Odd: " + header.encode("utf-8", "surrogateescape") + b"\r\n")
        writer.write(b"Content-Length: 2\r\n\r\n{}")
        writer.close()
        return web.Response()

    async with answering(odd) as (session, _):
        with pytest.raises(HeyGenError):
            await session.lipsyncs.get("ls_1")


async def test_the_error_of_a_view_that_was_cancelled_names_its_create():
    never = asyncio.Event()

    async def hang(request):
        limit.reschedule(0)
        await never.wait()

    async with answering(hang) as (session, _):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(20) as limit:
                await session.lipsyncs.create(**BOTH, idempotency_key="row-7")
        never.set()
    cause = caught.value.__cause__
    assert (cause.idempotency_key, cause.attempts, cause.outcome) == ("row-7", 1, "unknown")


# One attempt is one request on the wire


@asynccontextmanager
async def dropping():
    """Give the address of a server that answers the first request on each connection, and drops the second."""
    got = []

    async def serve(reader, writer):
        for number in (1, 2):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            got.append(head.split(" ", 2)[0:2])
            if number == 1:
                body = b'{"data": {"id": "ls_1", "status": "running", "lipsync_id": "ls_1"}}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", got


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST"])
async def test_a_request_on_a_kept_connection_that_drops_is_not_sent_again_by_aiohttp(method, borrowed):
    async with (
        dropping() as (url, got),
        aiohttp.ClientSession() as theirs,
        HeyGenSession("key", base_url=url, retry=ONCE, http=theirs if borrowed else None) as session,
    ):
        await session.lipsyncs.get("ls_1")
        with pytest.raises(TransportError) as caught:
            await session.request(method, "/v3/lipsyncs/ls_2", json={} if method != "GET" else None)
    assert got == [["GET", "/v3/lipsyncs/ls_1"], [method, "/v3/lipsyncs/ls_2"]]
    assert (caught.value.attempts, caught.value.outcome) == (1, "unknown")


@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_file_host_gets_each_attempt_once_too(borrowed):
    async def chunks():
        yield b"abc"

    async with (
        dropping() as (url, got),
        aiohttp.ClientSession() as theirs,
        HeyGenSession("key", base_url=url, http=theirs if borrowed else None) as session,
    ):
        http, link, options = session._transport.http, Secret(f"{url}/f?sig=1"), {"headers": {}, "timeouts": Timeouts()}
        for exchange in (
            lambda: http.get(link, **options),
            lambda: http.put(link, Stream("video/mp4", 3, chunks), **options),
        ):
            first = await http.get(link, **options)
            while await first.read():
                pass
            first.close()
            with pytest.raises(TransportError):
                await exchange()
    assert [method for method, _ in got] == ["GET", "GET", "GET", "PUT"]


async def test_a_delete_whose_connection_drops_after_it_was_done_has_succeeded():
    deleted = []

    async def delete(request):
        if deleted:
            return web.json_response({"error": {"code": "not_found", "message": "no"}}, status=404)
        deleted.append(request.path)
        request.transport.abort()
        return web.Response()

    async with answering(delete, retry=RetryPolicy(first_delay=0)) as (session, got):
        await session.lipsyncs.delete("ls_1")
    assert len(got) == 2


def always_more(path, **data):
    """Answer a list at *path* with the same page and another cursor each time, and anything else with a job."""
    count = itertools.count(1)

    async def answer(request):
        if request.path != path:
            return web.json_response(
                {"data": {"id": "ls_1", "status": "completed", "video_url": "https://x.invalid/v"}}
            )
        return web.json_response({**data, "has_more": True, "next_token": str(next(count))})

    return answer


STATUSES = "/v3/lipsyncs/statuses"


@pytest.mark.parametrize(
    ("listed", "asked", "found"),
    [
        (["ls_1"], ["ls_1"], {"ls_1": "completed"}),
        (["ls_1", "ls_9"], ["ls_1", "ls_2"], {"ls_1": "completed"}),
        ([], ["ls_1", "ls_2"], {}),
    ],
)
async def test_statuses_end_with_pages_that_bring_none(listed, asked, found):
    data = [{"video_id": one, "status": "completed"} for one in listed]
    async with answering(always_more(STATUSES, data=data)) as (session, got):
        statuses = await session.lipsyncs.statuses(asked)
    assert {one: status for one, status in statuses.items() if one in asked} == found
    assert len(got) <= 2


async def test_statuses_follow_pages_that_bring_some():
    async def answer(request):
        number = int(request.query.get("token", "1"))
        entry = {"video_id": f"ls_{number}", "status": "running"}
        return web.json_response({"data": [entry], "has_more": True, "next_token": str(number + 1)})

    async with answering(answer) as (session, got):
        assert list(await session.lipsyncs.statuses(["ls_1", "ls_2", "ls_3"])) == ["ls_1", "ls_2", "ls_3"]
    assert len(got) == 3


@pytest.mark.parametrize("cursors", [[None], ["", "x"], ["same", "same", "x"]], ids=["none", "empty", "the same"])
async def test_statuses_have_what_was_found_before_the_cursor_was_lost(cursors):
    numbers, left = itertools.count(1), iter(cursors)

    async def answer(request):
        entry = {"video_id": f"ls_{next(numbers)}", "status": "completed"}
        return web.json_response({"data": [entry], "has_more": True, "next_token": next(left)})

    async with answering(answer) as (session, _):
        found = await session.lipsyncs.statuses(["ls_1", "ls_2", "ls_9"])
    assert found["ls_1"] == "completed"


async def test_a_wait_ends_though_the_server_always_has_more_pages():
    data = [{"video_id": "ls_1", "status": "completed"}]
    async with answering(always_more(STATUSES, data=data)) as (session, got):
        assert (await session.lipsyncs.job("ls_1").wait(timeout=10)).status == "completed"
    assert len(got) == 2


@pytest.mark.parametrize("indices", [[0], [0, 1], [5, 5]])
async def test_items_of_a_batch_end_in_an_error_if_pages_bring_none(indices):
    items = [{"item_index": index, "status": "completed", "video_id": f"ls_{index}"} for index in indices]
    count = itertools.count(1)

    async def answer(request):
        data = {"batch_id": "b_1", "items": items, "has_more": True, "next_token": str(next(count))}
        return web.json_response({"data": data})

    async with answering(answer) as (session, got):
        with pytest.raises(UnexpectedResponse, match="only items of pages before it"):
            await session.lipsyncs.batch("b_1").items().collect()
    assert len(got) == 2
