"""The session against the sandbox: opening, closing, keys, options, and every call on lipsyncs."""

import asyncio
import copy
import enum
import gc
import io
import logging
import pickle
import re
import ssl
import subprocess
import sys
import traceback
import warnings
from contextlib import asynccontextmanager
from datetime import date, datetime
from pathlib import Path

import aiohttp
import attrs
import pytest
from aiohttp import web
from anyio import to_thread
from until import until
from yarl import URL

import heygen_async
from heygen_async import (
    APIError,
    Asset,
    AuthenticationError,
    DownloadError,
    HeyGenError,
    HeyGenSession,
    InvalidRequest,
    Lipsync,
    LipsyncFailed,
    LipsyncRequest,
    LipsyncStatus,
    NotFound,
    PollPolicy,
    RetryPolicy,
    Timeouts,
    TransportError,
    WaitTimeout,
)
from heygen_async._wire import compose_raw
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox, faults

VIDEO = "https://example.com/source.mp4"
AUDIO = "https://example.com/new-audio.mp3"
BOTH = {"video": VIDEO, "audio": AUDIO}
DONE = Lipsync(id="ls_1", status="completed", video_url="https://example.com/v.mp4")


def session_on(sandbox, **options):
    return HeyGenSession(sandbox.api_key, base_url=sandbox.url, **options)


@asynccontextmanager
async def serving(answer, *, context=None):
    async def handle(request):
        await request.read()
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# Opening and closing


async def test_it_opens_on_first_use_and_with_async_with(sandbox):
    session = session_on(sandbox)
    assert "unopened" in repr(session)
    await session.account.me()
    assert "open" in repr(session)
    await session.aclose()
    assert "closed" in repr(session)
    async with session_on(sandbox) as other:
        assert (await other.account.me()).username


def test_it_may_be_made_where_no_loop_runs():
    session = HeyGenSession("key")
    assert "unopened" in repr(session)


async def test_closing_twice_does_nothing_the_second_time(sandbox):
    session = session_on(sandbox)
    await session.aclose()
    await session.aclose()


async def test_use_after_close_is_a_runtime_error_with_a_sentence(sandbox):
    async with session_on(sandbox) as session:
        pass
    with pytest.raises(RuntimeError, match="this HeyGenSession is closed; make a new one"):
        await session.account.me()
    with pytest.raises(RuntimeError, match="closed"):
        async with session:
            pass


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda session, path: session.assets.upload(SAMPLE_AUDIO), id="upload"),
        pytest.param(lambda session, path: session.lipsyncs.create(video=SAMPLE_VIDEO, audio=AUDIO), id="create"),
        pytest.param(lambda session, path: session.download(DONE, path), id="download"),
    ],
)
async def test_a_file_is_neither_sent_nor_received_after_the_close(sandbox, tmp_path, use):
    async with session_on(sandbox) as session:
        await session.assets.upload(SAMPLE_AUDIO)
    with pytest.raises(RuntimeError, match="this HeyGenSession is closed; make a new one"):
        await use(session, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def busy(request):
    error = {"error": {"code": "internal_error", "message": "busy"}}
    return web.json_response(error, status=503, headers={"Retry-After": "3600"})


def running(request):
    return web.json_response({"data": {"batch_id": "bt_1", "id": "ls_1", "status": "processing"}})


def stores_nothing(request):
    """Answer as an API whose files go to a storage host, which is busy; and so is the host of videos."""
    if request.path.startswith("/storage/"):
        return web.Response(status=503, headers={"Retry-After": "100"})
    if request.path == "/v3/assets":
        return web.json_response({"error": {"code": "payload_too_large", "message": "large"}}, status=413)
    link = f"http://{request.host}/storage/file"
    grant = {"asset_id": "as_1", "upload_url": link, "upload_headers": {}}
    return web.json_response({"data": {"id": "ls_1", "status": "completed", "video_url": link, **grant}})


def processes(request):
    asset = {"asset_id": "as_1", "status": "processing"}
    return web.json_response({"data": [asset] if "statuses" in request.path else asset, "has_more": False})


SLEEPS = {
    "a batch, after an error": (busy, lambda session, path: session.lipsyncs.batch("bt_1").wait()),
    "a batch that runs": (running, lambda session, path: session.lipsyncs.batch("bt_1").wait()),
    "a download": (stores_nothing, lambda session, path: session.download("ls_1", path / "a.mp4")),
    "a direct upload": (stores_nothing, lambda session, path: session.assets.upload(SAMPLE_AUDIO)),
    "an asset that is processed": (processes, lambda session, path: session.assets.upload(SAMPLE_AUDIO)),
}


@pytest.mark.parametrize(("answer", "call"), SLEEPS.values(), ids=SLEEPS)
async def test_what_sleeps_between_two_requests_ends_with_the_session(tmp_path, answer, call):
    async with serving(answer) as url:
        session = HeyGenSession("key", base_url=url, polling=PollPolicy.gentle())
        task = asyncio.create_task(call(session, tmp_path))
        await until(lambda: session._transport.gate._closed._waiters)
        await session.aclose()
        with pytest.raises(RuntimeError, match="this HeyGenSession is closed"):
            await asyncio.wait_for(task, 20)


@pytest.mark.parametrize("waiting", [1, 3])
async def test_requests_that_wait_for_the_rate_end_with_the_session_and_say_that_they_were_not_sent(waiting):
    async with serving(lambda _: web.json_response({"data": {"id": "ls_1", "status": "running"}})) as url:
        session = HeyGenSession("key", base_url=url, max_requests_per_second=0.001)
        await session.lipsyncs.get("ls_1")
        tasks = [asyncio.create_task(session.lipsyncs.create(**BOTH, idempotency_key=f"k{n}")) for n in range(waiting)]
        await until(lambda: len(session._transport.gate._scopes) == waiting)
        before = asyncio.all_tasks()
        await session.aclose()
        for number, task in enumerate(tasks):
            with pytest.raises(RuntimeError, match="this HeyGenSession is closed") as caught:
                await asyncio.wait_for(task, 20)
            error = caught.value
            assert (error.idempotency_key, error.attempts, error.outcome) == (f"k{number}", 0, "not_sent")
        assert asyncio.all_tasks() <= before
        await session.aclose()  # a second time it does nothing


async def test_a_session_is_closed_twice_while_calls_wait_for_their_seats_and_the_rate():
    async with serving(lambda _: web.json_response({"data": {"id": "ls_1", "status": "running"}})) as url:
        async with HeyGenSession("key", base_url=url, max_requests_per_second=0.001, max_connections=1) as session:
            await session.lipsyncs.get("ls_1")
            tasks = [asyncio.create_task(session.lipsyncs.get("ls_1")) for _ in range(3)]
            await until(lambda: session._transport.gate._scopes)
            await asyncio.gather(session.aclose(), session.aclose())
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    assert [str(error) for error in ended] == ["this HeyGenSession is closed; make a new one"] * 3


async def test_a_request_that_waits_for_the_rate_can_still_be_cancelled_and_frees_its_connection():
    async with (
        serving(lambda _: web.json_response({"data": {"id": "ls_1", "status": "running"}})) as url,
        HeyGenSession("key", base_url=url, max_requests_per_second=0.001, max_connections=1) as session,
    ):
        await session.lipsyncs.get("ls_1")
        gate = session._transport.gate
        for _ in range(2):
            task = asyncio.create_task(session.lipsyncs.get("ls_1"))
            await until(lambda: gate._scopes)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not gate._scopes


async def test_a_dub_that_the_close_interrupts_has_the_key_that_returns_the_job(sandbox):
    session = session_on(sandbox)
    endless = {**BOTH, "video": "https://sandbox.invalid/v.mp4?seconds=36000"}
    dub = asyncio.create_task(session.dub(**endless, idempotency_key="mine"))
    await until(lambda: any(request.method == "GET" for request in sandbox.requests))
    await session.aclose()
    with pytest.raises(RuntimeError, match="this HeyGenSession is closed") as caught:
        await asyncio.wait_for(dub, 20)
    assert (caught.value.idempotency_key, caught.value.outcome) == ("mine", None)
    [job] = sandbox.jobs
    assert f"The job is {job.id}." in caught.value.__notes__[0]


async def test_a_create_that_the_close_interrupts_says_under_which_key_it_was_sent():
    async with Sandbox(faults=[faults.stall("POST /v3/lipsyncs", after=True)]) as sandbox:
        session = session_on(sandbox, retry=RetryPolicy(first_delay=0.01))
        creating = asyncio.create_task(session.lipsyncs.create(**BOTH))
        await until(lambda: sandbox.jobs)
        await session.aclose()
        with pytest.raises(TransportError) as caught:
            await asyncio.wait_for(creating, 20)
        [request] = sandbox.requests
        assert caught.value.idempotency_key == request.headers["Idempotency-Key"]
        assert (caught.value.attempts, caught.value.outcome) == (1, "unknown")
        assert caught.value.__notes__ == ["It was not sent again: the session was closed."]


async def test_a_create_that_the_close_of_its_borrowed_client_interrupts_says_under_which_key_it_was_sent():
    async with Sandbox(faults=[faults.server_error("POST /v3/lipsyncs", status=500)]) as sandbox:
        async with aiohttp.ClientSession() as theirs:
            session = session_on(sandbox, http=theirs, retry=RetryPolicy(first_delay=0.01, max_attempts=100))
            creating = asyncio.create_task(session.lipsyncs.create(**BOTH, idempotency_key="mine"))
            await until(lambda: sandbox.requests)
        with pytest.raises(HeyGenError) as caught:
            await asyncio.wait_for(creating, 20)
        assert (caught.value.idempotency_key, caught.value.outcome) == ("mine", "unknown")
        with pytest.raises(RuntimeError, match="given as http= is closed"):
            await session.lipsyncs.get("ls_1")
        await session.aclose()


@pytest.mark.parametrize("status", [429, 503])
async def test_the_close_ends_what_waits_for_its_next_attempt(status):
    arrived = asyncio.Event()

    def answer(request):
        if request.path == "/v3/lipsyncs":
            arrived.set()
        error = {"code": "code", "message": "Later."}
        return web.json_response({"error": error}, status=status, headers={"Retry-After": "100"})

    async with serving(answer) as base_url, asyncio.timeout(10):
        session = HeyGenSession("key", base_url=base_url)
        waiting = asyncio.create_task(session.poller.wait("ls_1"))
        creating = asyncio.create_task(session.lipsyncs.create(**BOTH, idempotency_key="mine"))
        await arrived.wait()
        await until(lambda: session._transport.gate._seats._value == 100)
        await session.aclose()
        with pytest.raises(APIError) as caught:
            await creating
        with pytest.raises(RuntimeError, match="closed"):
            await waiting
    assert (caught.value.status, caught.value.idempotency_key, caught.value.attempts) == (status, "mine", 1)
    assert caught.value.__notes__ == ["It was not sent again: the session was closed."]


def test_use_on_another_loop_is_a_runtime_error_with_a_sentence():
    session = HeyGenSession("key", base_url="http://127.0.0.1:1", retry=RetryPolicy(max_attempts=1))

    async def use():
        with pytest.raises(heygen_async.TransportError):
            await session.account.me()

    async def use_elsewhere():
        with pytest.raises(RuntimeError, match="opened on another event loop"):
            await session.account.me()
        with pytest.raises(RuntimeError, match="opened on"):
            await session.aclose()

    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        home.run(use())
        elsewhere.run(use_elsewhere())
        home.run(use())  # it was not closed
        home.run(session.aclose())


async def test_a_call_on_another_loop_or_a_closed_session_says_nothing_of_its_key(sandbox):
    async with session_on(sandbox) as session:
        await session.account.me()

        def elsewhere():
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(session.lipsyncs.create(**BOTH, idempotency_key="mine"))

        await asyncio.to_thread(elsewhere)
        assert not session._transport.keys.is_used("mine")
    with pytest.raises(RuntimeError, match="closed"):
        await session.lipsyncs.create(**BOTH, idempotency_key="mine")
    assert not session._transport.keys.is_used("mine")


def test_a_close_on_another_loop_ends_no_wait():
    session = HeyGenSession("key", base_url="http://127.0.0.1:1")

    async def wait():
        with pytest.raises(heygen_async.WaitTimeout):
            await session.poller.wait("ls_1", timeout=0)

    async def close():
        with pytest.raises(RuntimeError, match="opened on"):
            await session.aclose()

    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        home.run(wait())
        home.run(session.__aenter__())
        elsewhere.run(close())
        home.run(wait())
        home.run(session.aclose())


async def test_it_may_be_closed_in_another_task_than_it_was_opened_in(sandbox):
    session = session_on(sandbox)
    await asyncio.create_task(session.__aenter__())
    await session.account.me()
    await asyncio.create_task(session.aclose())


async def test_one_that_was_never_closed_warns_once(sandbox):
    session = session_on(sandbox)
    await session.account.me()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session
        gc.collect()
        await asyncio.sleep(0)
    assert [str(warning.message).split(":")[0] for warning in caught] == ["Unclosed HeyGenSession"]


async def test_one_that_was_never_opened_warns_of_nothing():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        HeyGenSession("key")
        gc.collect()
    assert caught == []


async def test_closing_leaves_no_task_and_no_open_transport(sandbox):
    before = asyncio.all_tasks()
    async with session_on(sandbox) as session:
        await asyncio.gather(*(session.account.me() for _ in range(10)))
        connector = session._connections._connector
    assert connector.closed
    await until(lambda: asyncio.all_tasks() <= before)  # the sandbox has one for each connection until it is closed


# Keys and addresses


def test_without_a_key_the_error_names_the_variable():
    with pytest.raises(ValueError, match="HEYGEN_API_KEY"):
        HeyGenSession()


def test_the_key_and_the_address_are_read_when_the_session_is_made(monkeypatch):
    monkeypatch.setenv("HEYGEN_API_KEY", "one")
    monkeypatch.setenv("HEYGEN_BASE_URL", "http://127.0.0.1:9/")
    session = HeyGenSession()
    monkeypatch.setenv("HEYGEN_API_KEY", "two")
    assert session._connections.origin.credential.reveal() == "one"
    assert session._connections.origin.base_url == "http://127.0.0.1:9"


def test_the_api_is_heygens_by_default():
    assert HeyGenSession("key")._connections.origin.base_url == "https://api.heygen.com"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"api_key": ""}, ValueError, "api_key must be"),
        ({"api_key": "a b"}, ValueError, "api_key must be"),
        ({"api_key": " \r\n"}, ValueError, "api_key must be"),
        ({"api_key": "a\nb"}, ValueError, "api_key must be"),
        ({"api_key": b"a"}, TypeError, "api_key must be a string, not bytes"),
        ({"api_key": "a", "access_token": "b"}, ValueError, "not both"),
        ({"access_token": ""}, ValueError, "access_token must be"),
        ({"api_key": "a", "base_url": "http://example.com"}, ValueError, "base_url must be"),
        ({"api_key": "a", "max_connections": 0}, ValueError, "max_connections must be"),
        ({"api_key": "a", "max_connections": "9"}, TypeError, "max_connections must be"),
        ({"api_key": "a", "max_requests_per_second": 0}, ValueError, "max_requests_per_second must be"),
        ({"api_key": "a", "max_response_bytes": 0}, ValueError, "max_response_bytes must be"),
        ({"api_key": "a", "headers": {"X-Api-Key": "b"}}, ValueError, "headers must not set X-Api-Key"),
        ({"api_key": "a", "headers": {"idempotency-key": "b"}}, ValueError, "headers must not set idempotency-key"),
        ({"api_key": "a", "headers": {"X-A": "b\r\nX-B: c"}}, ValueError, "the header 'X-A'"),
        ({"api_key": "a", "headers": {"X-A": "é"}}, ValueError, "the header 'X-A'"),
        ({"api_key": "a", "headers": {"X A": "b"}}, ValueError, "the header 'X A'"),
        ({"api_key": "a", "headers": {"X-A": 1}}, TypeError, "headers must be a mapping of strings"),
        ({"api_key": "a", "headers": {1: "b"}}, TypeError, "headers must be a mapping of strings"),
        ({"api_key": "a", "headers": ["X-A"]}, TypeError, "headers must be a Mapping, not list"),
        ({"api_key": "a", "headers": "X-A: b"}, TypeError, "headers must be a Mapping, not str"),
        ({"api_key": 5}, TypeError, "api_key must be a string, not int"),
        ({"access_token": b"x"}, TypeError, "access_token must be a string, not bytes"),
        ({"api_key": "a", "base_url": ""}, ValueError, "base_url must be"),
        ({"api_key": "a", "base_url": 5}, TypeError, "base_url must be a string"),
        ({"api_key": "a", "retry": 3}, TypeError, "retry must be a RetryPolicy, not int"),
        ({"api_key": "a", "retry": None}, TypeError, "retry must be a RetryPolicy, not NoneType"),
        ({"api_key": "a", "retry": RetryPolicy}, TypeError, "retry must be a RetryPolicy, not type"),
        ({"api_key": "a", "timeouts": 30}, TypeError, "timeouts must be a Timeouts, not int"),
        ({"api_key": "a", "polling": 3}, TypeError, "polling must be a PollPolicy, not int"),
        ({"api_key": "a", "http": object()}, TypeError, "http must be a ClientSession, not object"),
        ({"api_key": "a", "trust_env": "yes"}, TypeError, "trust_env must be a bool, not str"),
        ({"api_key": "a", "trust_env": 1}, TypeError, "trust_env must be a bool, not int"),
        ({"api_key": "a", "trust_env": None}, TypeError, "trust_env must be a bool, not NoneType"),
        ({"api_key": "a", "max_connections": True}, TypeError, "max_connections must be"),
        ({"api_key": "a", "max_connections": 1.5}, TypeError, "max_connections must be"),
        ({"api_key": "a", "max_connections": None}, TypeError, "max_connections must be"),
        ({"api_key": "a", "max_response_bytes": "1"}, TypeError, "max_response_bytes must be"),
        ({"api_key": "a", "max_response_bytes": True}, TypeError, "max_response_bytes must be"),
        ({"api_key": "a", "max_requests_per_second": "3"}, TypeError, "max_requests_per_second must be"),
        ({"api_key": "a", "max_requests_per_second": True}, TypeError, "max_requests_per_second must be"),
        ({"api_key": "a", "max_requests_per_second": float("nan")}, ValueError, "max_requests_per_second must be"),
        ({"api_key": "a", "max_requests_per_second": float("inf")}, ValueError, "max_requests_per_second must be"),
        ({"api_key": "a", "max_requests_per_second": -1}, ValueError, "max_requests_per_second must be"),
        ({"api_key": "a", "trace_configs": object()}, TypeError, "trace_configs must be a list"),
        ({"api_key": "a", "trace_configs": [1]}, TypeError, "trace_configs must be a list"),
        ({"api_key": "a", "ssl": True}, TypeError, "ssl must be an ssl.SSLContext, False or None, not bool"),
        ({"api_key": "a", "ssl": "ca.pem"}, TypeError, "ssl must be an ssl.SSLContext, False or None, not str"),
        ({"api_key": "a", "ssl": False}, ValueError, "ssl=False is for a base_url on loopback"),
    ],
)
def test_a_session_that_makes_no_sense_is_refused_by_name(arguments, kind, message):
    with pytest.raises(kind, match=message):
        HeyGenSession(**arguments)


@pytest.mark.parametrize("given", ["sk_1\n", "sk_1\r\n", "  sk_1\t"])
@pytest.mark.parametrize("way", ["argument", "token", "environment"])
def test_white_space_around_a_credential_is_stripped(given, way, monkeypatch):
    monkeypatch.setenv("HEYGEN_API_KEY", given if way == "environment" else "other")
    arguments = {"argument": {"api_key": given}, "token": {"access_token": given}, "environment": {}}
    assert HeyGenSession(**arguments[way])._connections.origin.credential.reveal() == "sk_1"


def test_white_space_alone_is_no_key(monkeypatch):
    monkeypatch.setenv("HEYGEN_API_KEY", " \r\n")
    with pytest.raises(ValueError, match="there is no API key"):
        HeyGenSession()


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": "sk_secret and"},
        {"api_key": "sk_secret\x00"},
        {"api_key": "sk_secreté"},
        {"access_token": "sk_secret\r\nX-A: b"},
        {"api_key": b"sk_secret"},
        {"api_key": "sk_secret", "retry": 3},
        {"api_key": "sk_secret", "access_token": "sk_secret_too"},
        {"api_key": "sk_secret", "base_url": "ftp://x"},
        {"api_key": "sk_secret", "headers": {"Authorization": "x"}},
        {"headers": {"X-Api-Key": "sk_secret"}},
        {"headers": {"X-Mine": "sk_secret\n"}},
        {"headers": {"X-Mine": "sk_secret"}, "max_download_bytes": -1},
        {"base_url": "http://example.com"},
        {"base_url": "https://example.com/v3"},
        {"access_token": "sk_secret_too", "api_key": "x"},
    ],
)
def test_an_error_of_the_constructor_does_not_show_the_key(arguments, monkeypatch):
    monkeypatch.setenv("HEYGEN_API_KEY", "sk_secret_of_the_environment")
    with pytest.raises((ValueError, TypeError)) as caught:
        HeyGenSession(**arguments)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = [f"{frame.line} {frame.locals}" for frame in trace.stack if frame.filename != __file__]
    assert shown
    assert "sk_secret" not in "".join([*shown, repr(caught.value)])


async def test_a_wrong_key_is_an_authentication_error_and_is_not_repeated(sandbox):
    async with HeyGenSession("sk_wrong_key", base_url=sandbox.url) as session:
        with pytest.raises(AuthenticationError) as caught:
            await session.account.me()
    assert caught.value.status == 401
    assert caught.value.hint == "Check the API key (HEYGEN_API_KEY, or the one that was given) or the access token."
    assert len(sandbox.requests) == 1
    assert "sk_wrong_key" not in f"{caught.value!r} {vars(caught.value)}"


async def test_an_access_token_goes_as_a_bearer(sandbox):
    async with HeyGenSession(access_token=sandbox.api_key, base_url=sandbox.url) as session:
        await session.account.me()
    headers = sandbox.requests[-1].headers
    assert headers["Authorization"] == f"Bearer {sandbox.api_key}"
    assert "X-Api-Key" not in headers


async def test_the_key_is_in_no_repr_and_no_log(sandbox, caplog):
    caplog.set_level(logging.DEBUG)
    async with session_on(sandbox) as session:
        job = await session.lipsyncs.create(**BOTH, title="t")
        with pytest.raises(InvalidRequest):
            await session.request("POST", "/v3/lipsyncs", json={})
        things = [session, job, session.lipsyncs, session.poller, session._connections.origin, vars(session)]
    assert sandbox.api_key not in repr(things)
    assert sandbox.api_key not in caplog.text


def test_each_part_of_a_session_says_what_it_can_do():
    session = HeyGenSession("key")
    assert repr(session.lipsyncs).startswith("<Lipsyncs: create(), job(), get(),")
    assert repr(session.assets) == "<Assets: upload(), forget(), get(), delete(), list()>"


@pytest.mark.parametrize("params", [None, {"limit": 5}])
@pytest.mark.parametrize(
    ("base_url", "sent"),
    [
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://api.test/präfix/", "https://api.test/pr%C3%A4fix"),
        ("HTTPS://API.Test", "https://api.test"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
    ],
)
def test_the_address_of_the_api_may_have_any_letters_with_and_without_a_query(base_url, sent, params):
    session = HeyGenSession("key", base_url=base_url)
    url = session._transport.http._url(compose_raw("GET", "/v3/other", params=params))
    assert str(url) == f"{sent}/v3/other{'?limit=5' if params else ''}"


async def test_requests_name_the_client_and_its_version(sandbox):
    async with session_on(sandbox, headers={"X-Team": "dubbing"}) as session:
        await session.account.me()
    headers = sandbox.requests[-1].headers
    assert headers["User-Agent"] == f"heygen-async/{heygen_async.__version__} aiohttp/{aiohttp.__version__}"
    assert headers["X-Team"] == "dubbing"
    assert headers["Accept"] == "application/json"


# Borrowed connections


async def test_a_borrowed_client_is_used_for_its_connections_only_and_never_closed(sandbox):
    async with aiohttp.ClientSession(
        base_url="http://elsewhere.invalid/",
        headers={"X-Theirs": "1", "X-Api-Key": "theirs"},
        cookies={"session": "theirs"},
        raise_for_status=True,
    ) as theirs:
        async with session_on(sandbox, http=theirs) as session:
            with pytest.raises(NotFound):
                await session.lipsyncs.get("ls_none")
        assert not theirs.closed
        assert not theirs.connector.closed
    headers = sandbox.requests[-1].headers
    assert headers["X-Api-Key"] == sandbox.api_key
    assert "X-Theirs" not in headers
    assert "Cookie" not in headers


@asynccontextmanager
async def a_proxy(status):
    """Give the address of a proxy that answers everything with *status*, and the heads of the requests it got."""
    heads = []

    async def answer(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"data": {"username": "u"}}'
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def ask(base_url, theirs):
    once = RetryPolicy(max_attempts=1)
    async with HeyGenSession("sk_secret", base_url=base_url, http=theirs, retry=once) as session:
        return await session.account.me()


async def test_the_proxy_of_a_borrowed_client_is_not_sent_the_key():
    async with a_proxy(407) as (address, heads), aiohttp.ClientSession(proxy=address) as theirs:
        with pytest.raises(TransportError, match="the proxy answered 407"):
            await ask("https://localhost:9", theirs)
    [head] = heads
    assert head.startswith(b"CONNECT localhost:9")
    assert b"sk_secret" not in head


async def test_the_key_passes_the_proxy_of_a_borrowed_client_on_its_way_to_the_api():
    async with a_proxy(200) as (address, heads), aiohttp.ClientSession(proxy=address) as theirs:
        await ask("http://127.0.0.1:9", theirs)
    [head] = heads
    assert head.startswith(b"GET http://127.0.0.1:9/v3/users/me")
    assert b"X-Api-Key: sk_secret" in head
    assert b"Accept: application/json" in head


async def test_the_credentials_of_a_borrowed_client_for_its_proxy_are_used():
    async with a_proxy(407) as (address, heads):
        with pytest.warns(DeprecationWarning, match="deprecated"):
            theirs = aiohttp.ClientSession(proxy=address, proxy_auth=aiohttp.BasicAuth("user", "pass"))
        async with theirs:
            with pytest.raises(TransportError):
                await ask("https://localhost:9", theirs)
    [head] = heads
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in head


async def test_a_borrowed_client_that_is_closed_is_a_runtime_error(sandbox):
    theirs = aiohttp.ClientSession()
    await theirs.close()
    with pytest.raises(RuntimeError, match="given as http= is closed"):
        await session_on(sandbox, http=theirs).account.me()


def test_a_borrowed_client_of_another_event_loop_is_a_runtime_error_that_does_not_show_the_key():
    async def lend():
        return aiohttp.ClientSession()

    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        theirs = home.run(lend())
        with pytest.raises(RuntimeError, match="given as http= was made on another event loop") as caught:
            elsewhere.run(ask("http://127.0.0.1:9", theirs))
        home.run(theirs.close())
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    assert "sk_secret" not in "".join(f"{frame.locals}" for frame in frames)


@pytest.mark.parametrize("limits", [{"limit": 1}, {"limit_per_host": 1}, {"limit": 2, "limit_per_host": 1}])
async def test_no_request_waits_for_a_connection_of_a_borrowed_client_where_that_counts_as_connecting(sandbox, limits):
    queued = []

    async def note(client, context, params):
        queued.append(params)

    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(note)
    connector = aiohttp.TCPConnector(**limits)
    async with (
        aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as theirs,
        session_on(sandbox, http=theirs) as session,
    ):
        await asyncio.gather(*(session.account.me() for _ in range(8)))
    assert len(sandbox.requests) == 8
    assert queued == []


@pytest.mark.parametrize("is_borrowed", [False, True])
async def test_with_trust_env_the_proxy_of_the_environment_is_used_and_its_password(monkeypatch, tmp_path, is_borrowed):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password pass")
    async with a_proxy(407) as (address, heads), aiohttp.ClientSession() as theirs:
        monkeypatch.setenv("HTTPS_PROXY", address)
        options = {"http": theirs if is_borrowed else None, "retry": RetryPolicy(max_attempts=1)}
        async with HeyGenSession("sk_secret", base_url="https://localhost:9", trust_env=True, **options) as session:
            with pytest.raises(TransportError, match="the proxy answered 407"):
                await session.account.me()
    [head] = heads
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in head
    assert b"sk_secret" not in head


@pytest.mark.parametrize("way", ["api_key", "access_token"])
async def test_no_password_of_a_netrc_file_is_sent_to_the_api_or_to_a_file_host(monkeypatch, tmp_path, way):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("default login user password pass")
    async with Sandbox(job_seconds=0.01) as sandbox:
        fast = PollPolicy(fastest=0.01)
        async with HeyGenSession(
            base_url=sandbox.url, trust_env=True, polling=fast, **{way: sandbox.api_key}
        ) as session:
            await session.dub(**BOTH, output=tmp_path / "a.mp4")
        authorized = {request.headers.get("Authorization") for request in sandbox.requests}
    assert authorized == ({None} if way == "api_key" else {None, f"Bearer {sandbox.api_key}"})


def test_a_session_opens_in_the_development_mode_with_warnings_as_errors():
    program = "import asyncio; from heygen_async import HeyGenSession\n"
    program += "async def main():\n    async with HeyGenSession('key'): pass\nasyncio.run(main())"
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("make", [None, list, iter, lambda given: (one for one in given)])
async def test_tracing_sees_every_request(sandbox, make):
    seen = []

    async def note(client, context, params):
        seen.append((params.method, params.url.path))

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    if make is None:  # theirs
        async with aiohttp.ClientSession(trace_configs=[trace]) as theirs, session_on(sandbox, http=theirs) as session:
            await session.account.me()
    else:
        async with session_on(sandbox, trace_configs=make([trace])) as session:
            await session.account.me()
    assert seen == [("GET", "/v3/users/me")]


# Views


async def test_a_view_has_options_of_its_own_on_the_same_connections(heygen, sandbox):
    view = heygen.with_options(timeouts=Timeouts(read=1), retry=RetryPolicy(max_attempts=1), headers={"X-A": "1"})
    async with view:
        await view.account.me()
    assert sandbox.requests[-1].headers["X-A"] == "1"
    await heygen.account.me()
    assert "X-A" not in sandbox.requests[-1].headers
    assert view.poller is heygen.poller
    assert view.with_options(headers={"X-B": "2"})._transport.headers == {"X-A": "1", "X-B": "2"}


async def test_a_header_of_a_view_replaces_one_that_is_spelled_in_another_case(sandbox):
    async with HeyGenSession(sandbox.api_key, base_url=sandbox.url, headers={"X-Trace": "a"}) as heygen:
        view = heygen
        for name, value in [("x-trace", "b"), ("X-Trace", "c"), ("X-TRACE", "d")]:
            view = view.with_options(headers={name: value})
            await view.account.me()
            assert sandbox.requests[-1].headers["X-Trace"] == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": 3}, "retry must be a RetryPolicy"),
        ({"timeouts": 30}, "timeouts must be a Timeouts"),
        ({"headers": "a"}, "headers must be a Mapping"),
    ],
)
async def test_a_view_checks_its_options_by_name(heygen, options, message):
    with pytest.raises(TypeError, match=message):
        heygen.with_options(**options)


# TLS

TLS = Path(__file__).parent / "tls"


def https_server():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "localhost-key.pem")
    return serving(lambda _: web.Response(text='{"data": {"username": "someone"}}'), context=context)


async def test_a_private_ca_is_trusted_by_a_context_of_the_users_own():
    async with https_server() as url:
        context = ssl.create_default_context(cafile=TLS / "localhost.pem")
        async with HeyGenSession("key", base_url=url, ssl=context) as session:
            assert (await session.account.me()).username == "someone"


async def test_verification_can_be_switched_off_on_loopback_and_stays_on_for_other_hosts():
    async with https_server() as url, HeyGenSession("key", base_url=url, ssl=False) as session:
        assert (await session.account.me()).username == "someone"
        assert session._connections.verification(URL("https://127.0.0.1/file")) == {"ssl": False}
        assert session._connections.verification(URL("https://files.heygen.ai/file")) == {}


async def test_a_certificate_that_is_not_trusted_is_named_with_what_to_do():
    async with https_server() as url, HeyGenSession("key", base_url=url) as session:
        view = session.with_options(retry=RetryPolicy(max_attempts=1))
        with pytest.raises(heygen_async.TransportError, match="certificate verify failed") as caught:
            await view.account.me()
    assert "set SSL_CERT_FILE, or give an ssl.SSLContext as ssl= in Python" in caught.value.hint
    assert caught.value.outcome == "not_sent"


async def test_a_borrowed_client_has_its_own_certificates():
    async with aiohttp.ClientSession() as theirs:
        for option in (False, ssl.create_default_context()):
            with pytest.raises(ValueError, match="give ssl or http, not both"):
                HeyGenSession("key", base_url="http://127.0.0.1:1", http=theirs, ssl=option)


# Anything else of v3


@pytest.mark.parametrize("params", [3, "limit=5", [("limit", 5)]])
async def test_params_that_are_no_mapping_are_a_type_error(heygen, sandbox, params):
    with pytest.raises(TypeError, match="params must be a Mapping"):
        await heygen.request("GET", "/v3/lipsyncs", params=params)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ids": ["ls_1", "ls_2"]}, "not list"),
        ({"id": b"ls_1"}, "not bytes"),
        ({"since": date(2026, 1, 1)}, "not date"),
        ({1: "x"}, "the name of a parameter must be a string, not int"),
    ],
)
async def test_a_parameter_that_a_query_cannot_have_is_a_type_error(heygen, sandbox, params, message):
    with pytest.raises(TypeError, match=message):
        await heygen.request("GET", "/v3/lipsyncs", params=params)
    assert sandbox.requests == []


@pytest.mark.parametrize("params", [{"q": "a\ud83d"}, {"\udc00": 1}, {"ok": "x", "q": "\ud83d\ud83d"}], ids=ascii)
async def test_a_parameter_with_half_a_character_is_a_value_error_that_says_so(heygen, sandbox, params):
    with pytest.raises(ValueError, match="a parameter is not text") as caught:
        await heygen.request("GET", "/v3/lipsyncs", params=params)
    assert caught.type is ValueError
    assert sandbox.requests == []


async def test_any_other_call_goes_through_request(heygen, sandbox):
    response = await heygen.request("GET", "/v3/lipsyncs", params={"limit": 5, "token": None})
    assert (response.status, response.data["data"], response.data["has_more"]) == (200, [], False)
    assert response.headers["x-request-id"] == response.request_id
    assert sandbox.requests[-1].query == {"limit": "5"}


async def test_a_raw_post_has_an_idempotency_key_too(heygen, sandbox):
    body = {"video": {"type": "url", "url": VIDEO}, "audio": {"type": "url", "url": AUDIO}}
    one = await heygen.request("POST", "/v3/lipsyncs", json=body, idempotency_key="mine")
    two = await heygen.request("POST", "/v3/lipsyncs", json=body, idempotency_key="mine")
    assert one.data == two.data
    assert len(sandbox.jobs) == 1


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda answer: pickle.loads(pickle.dumps(answer))])
async def test_an_answer_survives_pickle_and_copy(heygen, again):
    answer = await heygen.request("GET", "/v3/users/me")
    twin = again(answer)
    assert twin == answer
    assert (twin.data, twin.request_id, twin.attempts) == (answer.data, answer.request_id, 1)
    assert twin.headers["x-request-id"] == answer.headers["X-Request-Id"]


async def test_a_pickled_answer_does_not_have_the_key_though_the_server_repeats_it():
    def repeat(request):
        return web.json_response({"data": {}}, headers={"X-Request-Id": f"req {request.headers['X-Api-Key']}"})

    async with serving(repeat) as url, HeyGenSession("sk_0123456789", base_url=url) as session:
        answer = await session.request("GET", "/v3/users/me")
    pickled = pickle.dumps(answer)
    assert b"sk_0123456789" not in pickled
    assert pickle.loads(pickled).request_id == answer.request_id == "req ****"


# Lipsyncs


async def test_every_field_of_the_contract_is_sent_as_it_was_given_and_nothing_else(heygen, sandbox):
    options = {
        "mode": "precision",
        "title": "Épisode 1",
        "enable_caption": True,
        "enable_dynamic_duration": False,
        "disable_music_track": True,
        "enable_speech_enhancement": True,
        "enable_watermark": False,
        "start_time": 0,
        "end_time": 2.5,
        "keep_the_same_format": True,
        "fps_mode": "cfr",
        "callback_url": "https://example.com/hook",
        "callback_id": "row-1",
        "folder_id": "f_1",
    }
    assert set(options) == set(heygen_async.LipsyncOptions.__annotations__)
    await heygen.lipsyncs.create(**BOTH, **options)
    sources = {"video": {"type": "url", "url": VIDEO}, "audio": {"type": "url", "url": AUDIO}}
    assert sandbox.requests[-1].json == {**sources, **options}

    await heygen.lipsyncs.create(**BOTH)
    assert sandbox.requests[-1].json == {**sources, "mode": "speed"}


class Float(float):
    """A float as numpy has them."""


async def test_a_member_of_an_enum_that_is_a_string_is_an_id(heygen, sandbox):
    made = (await heygen.lipsyncs.create(**BOTH)).id
    word = enum.Enum("Word", {"ID": made}, type=str).ID
    assert (await heygen.lipsyncs.get(word)).id == made
    assert list(await heygen.lipsyncs.statuses([word])) == [made]
    assert (await heygen.lipsyncs.job(word).wait(timeout=600)).id == made
    assert (await heygen.poller.wait(word)).id == made
    assert [one.id async for one in heygen.poller.as_completed([word])] == [made]


async def test_a_time_of_a_subclass_of_float_is_sent_after_files_are_uploaded(heygen, sandbox):
    await heygen.lipsyncs.create(video=SAMPLE_VIDEO, audio=SAMPLE_AUDIO, start_time=Float(0.5), end_time=Float(2))
    assert (sandbox.requests[-1].json["start_time"], sandbox.requests[-1].json["end_time"]) == (0.5, 2.0)
    request = LipsyncRequest(**BOTH, end_time=Float(1.5))
    await heygen.lipsyncs.create_batch([request])
    assert sandbox.requests[-1].json["lipsyncs"][0]["end_time"] == 1.5


async def test_a_create_gives_a_job_with_its_key_and_the_same_key_gives_the_same_job(heygen, sandbox):
    one = await heygen.lipsyncs.create(**BOTH, idempotency_key="row:1")
    two = await heygen.lipsyncs.create(**BOTH, idempotency_key="row:1")
    three = await heygen.lipsyncs.create(**BOTH)
    assert one.id == two.id != three.id
    assert one.idempotency_key == "row:1"
    assert three.idempotency_key
    assert len(sandbox.jobs) == 2


CALLS = {
    "another create": lambda heygen: heygen.lipsyncs.create(**BOTH, title="other", idempotency_key="row:1"),
    "a view": lambda heygen: heygen.with_options(headers={"X-A": "1"}).lipsyncs.create(
        **BOTH, mode="precision", idempotency_key="row:1"
    ),
    "a batch": lambda heygen: heygen.lipsyncs.create_batch([LipsyncRequest(**BOTH)], idempotency_key="row:1"),
    "a raw request": lambda heygen: heygen.request("POST", "/v3/lipsyncs", json={}, idempotency_key="row:1"),
    "another path": lambda heygen: heygen.request("POST", "/v3/other", idempotency_key="row:1"),
    "a webhook endpoint": lambda heygen: heygen.webhooks.create("https://example.com/hook", idempotency_key="row:1"),
    "a local file": lambda heygen: heygen.lipsyncs.create(
        video=SAMPLE_VIDEO, audio=SAMPLE_AUDIO, idempotency_key="row:1"
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_key_that_was_used_is_refused_for_any_other_request(heygen, sandbox, call):
    await heygen.lipsyncs.create(**BOTH, idempotency_key="row:1")
    with pytest.raises(ValueError, match="row:1 was already used for a different request"):
        await call(heygen)
    assert [request.route for request in sandbox.requests] == ["POST /v3/lipsyncs"]


async def test_a_key_of_a_view_is_refused_for_another_request_of_the_session(heygen, sandbox):
    await heygen.with_options(timeouts=Timeouts(write=60)).lipsyncs.create(**BOTH, idempotency_key="row:1")
    with pytest.raises(ValueError, match="already used"):
        await heygen.lipsyncs.create(**BOTH, title="x", idempotency_key="row:1")
    assert len(sandbox.jobs) == 1


async def test_a_key_may_be_used_again_for_the_same_request_also_at_the_same_time(heygen, sandbox):
    create = {"video": SAMPLE_VIDEO, "audio": SAMPLE_AUDIO, "title": "t", "idempotency_key": "row:1"}
    jobs = await asyncio.gather(*(heygen.lipsyncs.create(**create) for _ in range(5)))
    again = await heygen.lipsyncs.create(**create)
    body = {"title": "t", **sandbox.requests[-1].json}
    raw = await heygen.request("POST", "/v3/lipsyncs", json=dict(reversed(body.items())), idempotency_key="row:1")
    assert {job.id for job in [*jobs, again]} == {raw.data["data"]["lipsync_id"]}
    assert len(sandbox.jobs) == 1


async def test_another_local_file_under_a_used_key_is_not_even_uploaded(heygen, sandbox, tmp_path):
    other = tmp_path / "other.mp4"
    other.write_bytes(SAMPLE_VIDEO.read_bytes()[:-1] + b"x")  # equal in size
    await heygen.lipsyncs.create(video=SAMPLE_VIDEO, audio=AUDIO, idempotency_key="row:1")
    sent = len(sandbox.requests)
    for video in (other, other.read_bytes(), other.read_bytes() + b"y"):
        with pytest.raises(ValueError, match="already used"):
            await heygen.lipsyncs.create(video=video, audio=AUDIO, idempotency_key="row:1")
    assert len(sandbox.requests) == sent


async def test_a_request_that_the_api_refused_may_be_corrected_under_its_key(heygen, sandbox):
    with pytest.raises(InvalidRequest):
        await heygen.request("POST", "/v3/lipsyncs", json={"video": 1}, idempotency_key="row:1")
    job = await heygen.lipsyncs.create(**BOTH, idempotency_key="row:1")
    assert [job.id] == [made.id for made in sandbox.jobs]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": "http://x/v.mp4"}, "video"),
        ({"idempotency_key": "a b"}, "idempotency_key"),
        ({"start_time": 2, "end_time": 1}, "end_time"),
        ({"title": ""}, "title"),
    ],
)
async def test_what_is_wrong_is_refused_before_anything_is_sent(heygen, sandbox, arguments, message):
    with pytest.raises(ValueError, match=message):
        await heygen.lipsyncs.create(**{**BOTH, **arguments})
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda heygen, given: heygen.lipsyncs.create(**given), id="create"),
        pytest.param(
            lambda heygen, given: heygen.lipsyncs.create_batch([LipsyncRequest(**BOTH), LipsyncRequest(**given)]),
            id="create_batch",
        ),
        pytest.param(lambda heygen, given: heygen.dub(**given), id="dub"),
    ],
)
@pytest.mark.parametrize(
    ("asset", "message"),
    [
        (("video", "audio/mpeg"), "video: the asset a1 is MP3 audio; HeyGen takes MP4 or WebM video"),
        (("video", "Image/PNG; x=1"), "video: the asset a1 is a PNG image; HeyGen takes MP4 or WebM video"),
        (("video", "application/pdf"), "video: the asset a1 is a PDF document"),
        (("video", "audio/ogg"), "video: the asset a1 is audio/ogg"),
        (("audio", "image/gif"), "audio: the asset a1 is image/gif"),
        (("audio", "application/x-subrip"), "audio: the asset a1 is SRT captions"),
    ],
)
async def test_an_asset_that_cannot_have_its_role_is_refused_before_anything_is_sent(
    heygen, sandbox, call, asset, message
):
    role, mime_type = asset
    given = {**BOTH, role: Asset(id="a1", mime_type=mime_type)}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        await call(heygen, given)
    assert sandbox.requests == []


PRIVATE = ["https://10.0.0.1/v.mp4", "https://localhost/v.mp4", "https://[fd00::1]:8443/v.mp4?sig=s3cret"]


@pytest.mark.parametrize("url", PRIVATE)
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda heygen, given: heygen.lipsyncs.create(**given), id="create"),
        pytest.param(lambda heygen, given: heygen.lipsyncs.create_batch([LipsyncRequest(**given)]), id="create_batch"),
        pytest.param(lambda heygen, given: heygen.dub(**given), id="dub"),
    ],
)
async def test_a_source_on_no_public_host_is_refused_before_the_other_is_uploaded(heygen, sandbox, call, url):
    with pytest.raises(ValueError, match="audio must be on a public host, which HeyGen can reach, not") as caught:
        await call(heygen, {"video": SAMPLE_VIDEO, "audio": url})
    assert sandbox.requests == []
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.tb), capture_locals=True)
    ours = [frame.locals for frame in frames if "heygen_async/" in frame.filename]
    assert "s3cret" not in str([caught.value, *ours])


@pytest.mark.parametrize(
    ("role", "mime_type"),
    [
        *(("video", "video/webm"), ("audio", "audio/x-wav"), ("audio", "AUDIO/MPEG"), ("video", "video/quicktime")),
        *(("video", None), ("video", ""), ("audio", "application/octet-stream"), ("audio", "odd")),
    ],
)
async def test_an_asset_of_a_type_that_may_have_its_role_or_is_not_known_is_sent(heygen, role, mime_type):
    uploaded = await heygen.assets.upload(SAMPLE_VIDEO if role == "video" else SAMPLE_AUDIO)
    assert await heygen.lipsyncs.create(**{**BOTH, role: attrs.evolve(uploaded, mime_type=mime_type)})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda heygen: heygen.dub(**BOTH, timeout="3"), "timeout must be a number of seconds"),
        (lambda heygen: heygen.dub(**BOTH, timeout=float("nan")), "timeout must be 0 seconds or more"),
        (lambda heygen: heygen.dub(**BOTH, timeout=-1), "timeout must be 0 seconds or more"),
        (lambda heygen: heygen.dub(**BOTH, timeout=True), "timeout must be a number of seconds"),
        (lambda heygen: heygen.dub(**BOTH, captions="no"), "captions must be a bool, not str"),
        (lambda heygen: heygen.download("ls_1", "x.mp4", overwrite="no"), "overwrite must be a bool, not str"),
        (lambda heygen: heygen.download("ls_1", "x.mp4", captions=None), "captions must be a bool, not NoneType"),
        (lambda heygen: heygen.download("ls_1", "x.mp4", progress=3), "progress must be a function, not 3"),
        (lambda heygen: heygen.download_captions("ls_1", "x.mp4", overwrite=0), "overwrite must be a bool, not int"),
        (lambda heygen: heygen.assets.upload(b"x", progress="x"), "progress must be a function, not 'x'"),
        (lambda heygen: heygen.lipsyncs.statuses("ls_1"), "lipsync_ids is one string"),
        (lambda heygen: heygen.lipsyncs.update("ls_1", title=None), "title must be a str, not NoneType"),
        (lambda heygen: heygen.assets.list(username=None).first(), "username must be a str, not NoneType"),
        (lambda heygen: heygen.poller.wait("ls_1", timeout=10**400), "timeout must be 0 seconds or more"),
        (lambda heygen: heygen.dub(**BOTH, timeout=2**63), "timeout must be 0 seconds or more"),
        (lambda heygen: heygen.poller.wait("ls_1", created_at=1.5), "created_at must be a datetime, not 1.5"),
        (lambda heygen: heygen.poller.wait("ls_1", created_at=datetime(2026, 1, 1)), "created_at must be an aware"),  # noqa: DTZ001
        (lambda heygen: anext(heygen.poller.updates("ls_1", created_at="now")), "created_at must be a datetime"),
        (lambda heygen: heygen.poller.as_completed([], created_at=date(2026, 1, 1)), "created_at must be a datetime"),
        (lambda heygen: heygen.poller.wait("ls_1", policy=3), "policy must be a PollPolicy, not int"),
        (lambda heygen: heygen.request("GET", 3), "path must be a string, not int"),
    ],
)
async def test_an_argument_of_another_type_is_refused_by_name_before_anything_is_sent(heygen, sandbox, call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        await call(heygen)
    assert sandbox.requests == []


async def _waits_for_nobody(event):
    raise AssertionError(event)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"captions": "no"}, "captions must be a bool, not str"),
        ({"retry_failed": 1}, "retry_failed must be a bool, not int"),
        ({"on_event": "x"}, "on_event must be a function, not 'x'"),
        ({"on_event": _waits_for_nobody}, "on_event must be a plain function"),
    ],
)
def test_an_argument_of_a_run_of_another_type_is_refused_by_name_at_once(arguments, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        HeyGenSession("key").dub_many([], journal=None, **arguments)


@pytest.mark.parametrize(
    ("call", "option", "message"),
    [
        ("create", "tittle", "create() got an unexpected keyword argument 'tittle'. Did you mean 'title'?"),
        ("create", "callbackurl", "create() got an unexpected keyword argument 'callbackurl'. Did you mean 'callback_"),
        ("create", "zzz", "create() got an unexpected keyword argument 'zzz'"),
        ("dub", "mod", "dub() got an unexpected keyword argument 'mod'. Did you mean 'mode'?"),
    ],
)
async def test_an_unknown_option_is_refused_by_the_name_of_the_call(heygen, sandbox, call, option, message):
    calls = {"create": heygen.lipsyncs.create, "dub": heygen.dub}
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        await calls[call](**BOTH, **{option: "x"})
    assert sandbox.requests == []


async def test_get_list_update_and_delete(heygen, sandbox):
    jobs = [await heygen.lipsyncs.create(**BOTH, title=f"n{n}") for n in range(5)]
    assert (await heygen.lipsyncs.get(jobs[0].id)).title == "n0"
    assert [lipsync.title async for lipsync in heygen.lipsyncs.list(page_size=2)] == ["n4", "n3", "n2", "n1", "n0"]
    assert (await heygen.lipsyncs.update(jobs[0].id, title="new")).title == "new"
    await heygen.lipsyncs.delete(jobs[0].id)
    with pytest.raises(NotFound) as caught:
        await jobs[0].get()
    assert caught.value.attempts == 1
    first_page = await anext(heygen.lipsyncs.list(page_size=2).pages())
    rest = await heygen.lipsyncs.list(token=first_page.next_token).collect()
    assert [lipsync.title for lipsync in rest] == ["n2", "n1"]


@pytest.mark.parametrize(
    "call",
    [
        lambda lipsyncs: lipsyncs.get(""),
        lambda lipsyncs: lipsyncs.get("a/../b"),
        lambda lipsyncs: lipsyncs.delete("statuses"),
        lambda lipsyncs: lipsyncs.update("ls_1", title=" "),
        lambda lipsyncs: lipsyncs.statuses(["ls_1", "a,b"]),
        lambda lipsyncs: lipsyncs.create_batch([]),
        lambda lipsyncs: lipsyncs.create_batch([LipsyncRequest(**BOTH)] * 101),
        lambda lipsyncs: lipsyncs.create_batch([LipsyncRequest(**BOTH)], callback_url="http://x"),
    ],
)
async def test_bad_arguments_of_any_call_are_value_errors_before_sending(heygen, sandbox, call):
    with pytest.raises(ValueError, match=r"lipsync_id|title|lipsync_ids|number of requests|callback_url"):
        await call(heygen.lipsyncs)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "call",
    [
        lambda lipsyncs: lipsyncs.job("batches"),
        lambda lipsyncs: lipsyncs.batch("a/b"),
        lambda lipsyncs: lipsyncs.list(page_size=0),
        lambda lipsyncs: lipsyncs.list(page_size=101),
    ],
)
def test_bad_arguments_of_calls_that_send_nothing_are_value_errors_at_once(call):
    with pytest.raises(ValueError, match=r"lipsync_id|batch_id|page_size"):
        call(HeyGenSession("key").lipsyncs)


@pytest.mark.heygen_sandbox(manual=True)  # the job stays pending
async def test_statuses_of_any_number_of_ids_take_a_request_for_each_hundred(heygen, sandbox):
    job = await heygen.lipsyncs.create(**BOTH)
    ids = [job.id, *(f"ls_none_{n}" for n in range(230))]
    found = await heygen.lipsyncs.statuses(iter(ids))
    assert found[job.id] not in (None, LipsyncStatus.NOT_FOUND)
    assert found["ls_none_0"] is LipsyncStatus.NOT_FOUND
    assert list(found) == ids
    assert [request.route for request in sandbox.requests].count("GET /v3/lipsyncs/statuses") == 3


@pytest.mark.parametrize("extra", [["ls_other"], ["ls_other", "ls_1", "ls_3"]])
async def test_statuses_are_those_of_the_given_ids_whatever_else_the_server_lists(extra):
    def answer(request):
        rows = [{"video_id": one, "status": "completed"} for one in [*extra, "ls_1"]]
        return web.json_response({"data": rows, "has_more": False})

    async with serving(answer) as base_url, HeyGenSession("key", base_url=base_url) as session:
        assert await session.lipsyncs.statuses(["ls_1", "ls_2"]) == {"ls_1": "completed"}


async def test_a_batch_is_made_listed_and_awaited(heygen, sandbox):
    batch = await heygen.lipsyncs.create_batch(
        [LipsyncRequest(**BOTH, title=f"n{n}") for n in range(3)], title="all", idempotency_key="batch:1"
    )
    assert (await batch.get()).total_items == 3
    done = await batch.wait(timeout=30)
    assert (done.status, done.title) == ("completed", "all")
    items = await heygen.lipsyncs.batch(batch.id).items().collect()
    assert [item.item_index for item in items] == [0, 1, 2]
    assert all(item.status == "completed" and item.lipsync_id for item in items)


async def test_a_batch_that_takes_too_long_is_a_wait_timeout_with_its_id(sandbox, heygen):
    endless = {**BOTH, "video": "https://sandbox.invalid/v.mp4?seconds=36000"}
    batch = await heygen.lipsyncs.create_batch([LipsyncRequest(**endless)])
    with pytest.raises(WaitTimeout) as caught:
        await batch.wait(timeout=1)  # enough for one answer on a machine that has other work
    assert caught.value.lipsync_id == batch.id
    assert caught.value.last_status == "running"


async def test_calls_that_are_first_used_after_closing_are_refused(sandbox):
    heygen = HeyGenSession(sandbox.api_key, base_url=sandbox.url)
    await heygen.aclose()

    with pytest.raises(RuntimeError, match="this HeyGenSession is closed"):
        await heygen.poller.wait("ls_1")
    with pytest.raises(RuntimeError, match="closed"):
        await heygen.lipsyncs.get("ls_1")
    assert not sandbox.requests


# The whole way


async def test_one_video_is_dubbed_end_to_end(heygen, sandbox, tmp_path):
    job = await heygen.lipsyncs.create(video=SAMPLE_VIDEO, audio=SAMPLE_AUDIO, title="Episode 1, French")
    lipsync = await job.wait(timeout=30)
    path = await job.download(tmp_path / "episode-1-fr.mp4")
    assert lipsync.status == "completed"
    assert lipsync.duration
    assert path.read_bytes() == SAMPLE_VIDEO.read_bytes()
    assert not list(tmp_path.glob("*.part*"))


async def test_dub_is_create_wait_and_download_in_one(heygen, tmp_path):
    lipsync = await heygen.dub(**BOTH, title="t", output=tmp_path / "out.mp4", timeout=30)
    assert lipsync.title == "t"
    assert (tmp_path / "out.mp4").stat().st_size > 1000


async def test_a_program_that_dubs_under_a_key_and_is_run_again_creates_one_job(sandbox, tmp_path):
    for number in range(2):
        async with HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
            await heygen.dub(**BOTH, output=tmp_path / f"{number}.mp4", idempotency_key="episode-1")
    assert len(sandbox.jobs) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"0.mp4", "1.mp4"}


@pytest.mark.parametrize("bytes_there", [0, 1, 5000])
async def test_a_dub_that_is_interrupted_in_its_download_continues_under_its_key(tmp_path, bytes_there):
    output, part = tmp_path / "a.mp4", tmp_path / "a.mp4.part"
    async with Sandbox(job_seconds=0.01, faults=[faults.slow_drip(chunk=1000, pause=0.05)]) as sandbox:
        async with session_on(sandbox, polling=PollPolicy.eager()) as heygen:
            dub = asyncio.create_task(heygen.dub(**BOTH, output=output, idempotency_key="mine"))
            await until(lambda: part.exists() and part.stat().st_size >= bytes_there)
            dub.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dub
        sandbox.faults = []
        async with session_on(sandbox, polling=PollPolicy.eager()) as heygen:
            lipsync = await heygen.dub(**BOTH, output=output, idempotency_key="mine")
        assert [job.id for job in sandbox.jobs] == [lipsync.id]
    assert output.read_bytes() == SAMPLE_VIDEO.read_bytes()
    assert list(tmp_path.iterdir()) == [output]


async def test_a_dub_under_another_key_than_the_unfinished_download_beside_its_output_names_its_job(sandbox, tmp_path):
    (tmp_path / "a.mp4.part").write_bytes(b"bytes of another lipsync")
    (tmp_path / "a.mp4.part.etag").write_text("lipsync ls_other\n")
    async with session_on(sandbox, polling=PollPolicy.eager()) as heygen:
        with pytest.raises(DownloadError, match="unfinished download of lipsync ls_other") as caught:
            await heygen.dub(**BOTH, output=tmp_path / "a.mp4", idempotency_key="mine")
    [job] = sandbox.jobs
    assert f"heygen.download({job.id!r}, path)" in "".join(traceback.format_exception(caught.value))
    assert (tmp_path / "a.mp4.part").read_bytes() == b"bytes of another lipsync"


@pytest.mark.parametrize("side", [None, "", "mine", "lipsync\n"])
async def test_a_dub_with_a_key_touches_no_foreign_part_and_pays_nothing(heygen, sandbox, tmp_path, side):
    (tmp_path / "a.mp4.part").write_bytes(b"mine")
    if side is not None:
        (tmp_path / "a.mp4.part.etag").write_text(side)
    with pytest.raises(DownloadError, match="is not an unfinished download"):
        await heygen.dub(**BOTH, output=tmp_path / "a.mp4", idempotency_key="mine")
    assert sandbox.requests == []


async def test_dub_refuses_an_output_that_is_there_before_anything_is_paid(heygen, sandbox, tmp_path):
    (tmp_path / "out.mp4").touch()
    with pytest.raises(DownloadError, match="exists already"):
        await heygen.dub(**BOTH, output=tmp_path / "out.mp4")
    assert sandbox.requests == []


async def test_a_failed_job_is_an_error_with_its_reason(heygen):
    with pytest.raises(LipsyncFailed) as caught:
        await heygen.dub(video="https://sandbox.invalid/v.mp4?fail=No+face", audio=AUDIO, timeout=30)
    assert caught.value.lipsync.status == "failed"
    assert caught.value.lipsync.failure_message == "No face"
    assert str(caught.value).endswith("failed: No face")


async def test_a_dub_that_takes_too_long_names_the_job_that_still_runs():
    async with Sandbox(manual=True) as sandbox, session_on(sandbox) as heygen:
        with pytest.raises(WaitTimeout) as caught:
            await heygen.dub(**BOTH, timeout=0.05)
        assert caught.value.lipsync_id in {job.id for job in sandbox.jobs}


async def test_a_dub_that_takes_too_long_reports_the_last_status():
    async with Sandbox(manual=True) as sandbox, session_on(sandbox, polling=PollPolicy.eager()) as heygen:
        with pytest.raises(WaitTimeout) as caught:
            await heygen.dub(**BOTH, timeout=1.0)
    assert caught.value.last_status in {"pending", "running"}


@pytest.mark.parametrize(("is_folder", "captions"), [(True, False), (False, True), (False, False)])
async def test_a_dub_whose_download_is_late_says_that_the_job_is_completed(tmp_path, captions, is_folder):
    hang = faults.stall("GET /files/{name}")
    async with (
        Sandbox(job_seconds=0.01, faults=[hang]) as sandbox,
        session_on(sandbox, polling=PollPolicy.eager()) as heygen,
    ):
        with pytest.raises(WaitTimeout, match="is completed, but its video did not arrive in time") as caught:
            await heygen.dub(
                **BOTH, output=tmp_path if is_folder else tmp_path / "a.mp4", captions=captions, timeout=3.0
            )
        sandbox.release()
        [job] = sandbox.jobs
    assert (caught.value.lipsync_id, caught.value.last_status) == (job.id, "completed")
    assert "still runs" not in caught.value.hint


@pytest.mark.parametrize("during", ["GET /v3/lipsyncs/statuses", "GET /v3/lipsyncs/{lipsync_id}", "GET /files/{name}"])
async def test_a_dub_that_is_cancelled_after_its_create_has_the_key_that_returns_the_job(tmp_path, during):
    async with (
        Sandbox(job_seconds=0.01, faults=[faults.stall(during, times=1)]) as sandbox,
        session_on(sandbox, polling=PollPolicy.eager()) as heygen,
    ):
        dub = asyncio.create_task(heygen.dub(**BOTH, output=tmp_path / "a.mp4"))
        await until(lambda: any(request.route == during for request in sandbox.requests))
        dub.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await dub
        sandbox.release()
        assert caught.value.outcome is None
        lipsync = await heygen.dub(**BOTH, output=tmp_path / "b.mp4", idempotency_key=caught.value.idempotency_key)
        assert [job.id for job in sandbox.jobs] == [lipsync.id]


async def test_a_dub_whose_job_fails_has_the_key_of_its_create(sandbox):
    async with session_on(sandbox, polling=PollPolicy.eager()) as heygen:
        with pytest.raises(LipsyncFailed) as caught:
            await heygen.dub(video="https://sandbox.invalid/v.mp4?fail=No+face", audio=AUDIO, idempotency_key="mine")
    assert caught.value.idempotency_key == "mine"


async def test_a_dub_that_cannot_write_its_video_names_the_job(tmp_path):
    async with (
        Sandbox(job_seconds=0.01, faults=[faults.error(422, "no", route="GET /files/{name}")]) as sandbox,
        session_on(sandbox, polling=PollPolicy.eager()) as heygen,
    ):
        with pytest.raises(DownloadError) as caught:
            await heygen.dub(**BOTH, output=tmp_path / "a.mp4")
        [job] = sandbox.jobs
    assert f"heygen.download({job.id!r}, path)" in "".join(traceback.format_exception(caught.value))


async def test_a_timeout_of_the_system_is_not_taken_for_that_of_a_dub(heygen):
    def late():
        raise TimeoutError(110, "Connection timed out")

    source = io.BytesIO(SAMPLE_VIDEO.read_bytes())
    source.tell = late
    with pytest.raises(TimeoutError, match="Connection timed out") as caught:
        await heygen.dub(video=source, audio=AUDIO, timeout=30)
    assert not isinstance(caught.value, WaitTimeout)


async def test_a_dub_whose_captions_are_late_returns_the_lipsync_whose_video_is_written(tmp_path, caplog):
    hang = faults.stall("GET /captions/{name}")
    async with (
        Sandbox(job_seconds=0.01, faults=[hang]) as sandbox,
        session_on(sandbox, polling=PollPolicy.eager()) as heygen,
    ):
        lipsync = await heygen.dub(**BOTH, output=tmp_path / "a.mp4", captions=True, timeout=2.0)
        sandbox.release()

    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert f"the captions of {lipsync.id} were not written: they did not arrive in time" in caplog.text


@pytest.mark.parametrize("other", ["a.mp4", "./a.mp4", "link/a.mp4", "b/../a.mp4"])
async def test_two_dubs_to_one_output_at_the_same_time_are_refused_before_the_second_is_paid(
    heygen, sandbox, tmp_path, other
):
    await to_thread.run_sync(prepare_folders, tmp_path)
    outputs = [f"{tmp_path}/a.mp4", f"{tmp_path}/{other}"]
    ends = await asyncio.gather(*(heygen.dub(**BOTH, output=output) for output in outputs), return_exceptions=True)

    [refused] = [end for end in ends if not isinstance(end, Lipsync)]
    assert isinstance(refused, DownloadError)
    assert "is being downloaded already" in str(refused)
    assert len(sandbox.jobs) == 1
    with pytest.raises(DownloadError, match="exists already"):  # and the claim has ended
        await heygen.dub(**BOTH, output=outputs[1])


def prepare_folders(folder):
    (folder / "b").mkdir()
    (folder / "link").symlink_to(folder)


async def test_two_dubs_into_one_folder_at_the_same_time_have_files_of_their_own(heygen, tmp_path):
    lipsyncs = await asyncio.gather(*(heygen.dub(**BOTH, title=title, output=tmp_path) for title in "ab"))

    assert {path.name for path in tmp_path.iterdir()} == {f"{one.title} ({one.id}).mp4" for one in lipsyncs}


async def test_a_dub_to_what_is_being_downloaded_is_refused_before_it_is_paid(heygen, sandbox, tmp_path):
    job = await heygen.lipsyncs.create(**BOTH)
    await job.wait(timeout=30)
    sandbox.faults = [faults.stall("GET /files/{name}")]
    download = asyncio.create_task(job.download(tmp_path / "a.mp4"))
    await until(lambda: sandbox.requests[-1].route == "GET /files/{name}")
    with pytest.raises(DownloadError, match="is being downloaded already"):
        await heygen.dub(**BOTH, output=tmp_path / "a.mp4")
    download.cancel()
    sandbox.release()

    assert len(sandbox.jobs) == 1


@pytest.mark.parametrize("output", ["a\0b.mp4", "a\0/b.mp4", "\ud800/b.mp4"], ids=ascii)
async def test_a_dub_to_a_path_that_no_file_can_have_is_refused_before_it_is_paid(heygen, sandbox, output):
    with pytest.raises(DownloadError, match="cannot write"):
        await heygen.dub(**BOTH, output=output)
    assert sandbox.requests == []


async def test_a_dub_that_is_too_late_before_its_create_was_answered_reports_the_key():
    async with Sandbox(latency=5.0) as sandbox, session_on(sandbox) as heygen:
        with pytest.raises(WaitTimeout) as caught:
            await heygen.dub(**BOTH, timeout=0.05)
    error = caught.value
    assert (error.lipsync_id, error.attempts, error.outcome) == (None, 1, "unknown")
    assert error.idempotency_key


async def test_errors_of_the_api_carry_what_a_handler_needs(heygen):
    with pytest.raises(APIError) as caught:
        await heygen.request("POST", "/v3/lipsyncs", json={"video": 1})
    error = caught.value
    assert (error.status, error.code, error.outcome, error.attempts) == (400, "invalid_parameter", "rejected", 1)
    assert error.param
    assert error.request_id


def test_policies_are_frozen_values():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RetryPolicy().max_attempts = 9


async def test_a_job_that_was_just_made_is_not_looked_at_before_it_can_have_ended(sandbox):
    async with session_on(sandbox, polling=PollPolicy(fastest=0.3, slowest=0.3)) as heygen:
        job = await heygen.lipsyncs.create(**BOTH)
        await job.wait(timeout=30)
    routes = [request.route for request in sandbox.requests]
    assert routes == ["POST /v3/lipsyncs", "GET /v3/lipsyncs/statuses", "GET /v3/lipsyncs/{lipsync_id}"]
