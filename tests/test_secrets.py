"""The API key and the queries of presigned links are in no error, no cause, and no variable of a traceback."""

import asyncio
import dataclasses
import io
import json
import logging
import traceback
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from attrs import frozen
from rich.console import Console
from rich.traceback import Traceback

from heygen_async import (
    Asset,
    AssetId,
    Batch,
    BatchItem,
    DownloadError,
    DubRow,
    HeyGenError,
    HeyGenSession,
    InvalidRequest,
    Lipsync,
    LipsyncFailed,
    LipsyncRequest,
    RetryPolicy,
    Timeouts,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
    WebhookEvent,
)
from heygen_async._text import one_line
from heygen_async.sandbox import SAMPLE_AUDIO

END = web.AppKey("end", asyncio.Event)
KEY = "sk_live_7f/Qz+91"
SIGNATURE = "5ig9ed"
LINK = f"https://bucket.example/v.mp4?X-Amz-Signature={SIGNATURE}"
BOTH = {"video": LINK, "audio": LINK, "callback_url": LINK}
SHORT = Timeouts(connect=1, read=0.2, write=0.2, transfer_idle=0.2)
ESCAPED = KEY.replace("/", r"\/")
SECRETS = (KEY, SIGNATURE, ESCAPED, KEY.replace("/", "%2F"))


@asynccontextmanager
async def session_on(handler, *, timeouts=SHORT, **options):
    app = web.Application()
    app[END] = asyncio.Event()
    app.router.add_route("*", "/{tail:.*}", handler)
    app.on_response_prepare.append(echo_request_id)
    runner = web.AppRunner(app, shutdown_timeout=0, lingering_time=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        retry = RetryPolicy(max_attempts=2, first_delay=0)
        async with HeyGenSession(KEY, base_url=url, retry=retry, timeouts=timeouts, **options) as heygen:
            yield heygen, url
    finally:
        app[END].set()
        await runner.cleanup()


async def echo_request_id(request, response):
    response.headers.setdefault("X-Request-Id", f"id {KEY} {ESCAPED} {KEY.replace('/', '%2F')}")


def answers(**response):
    async def answer(request):
        return web.Response(**response)

    return answer


QUOTED = (
    f"{LINK} or https://b.example/v.mp4?filename*=UTF-8''e.mp4&x=1&sig={SIGNATURE} or https://u:{SIGNATURE}@b.example/"
    f" or b.example?x={SIGNATURE} or https%3A%2F%2Fb.example%2Fv%3Fx%3D{SIGNATURE}"
)
ECHO = f"key {KEY} or {KEY.replace('/', '%2F')} for {QUOTED}"


async def reset(request):
    request.transport.abort()
    return web.Response()


async def hang(request):
    await request.app[END].wait()
    return web.Response()


async def cut(request):
    response = web.StreamResponse(headers={"Content-Length": "500"})
    await response.prepare(request)
    await response.write(b'{"data"')
    request.transport.close()
    return response


async def late_echo(request):
    return web.Response(status=500, text=ECHO, headers={"X-Request-Id": KEY, "X-Echo": LINK})


HANDLERS = {
    "reset": reset,
    "hang": hang,
    "cut": cut,
    "an error with an echo": late_echo,
    "an API error": answers(status=400, text=f'{{"error": {{"message": "{ECHO}", "errors": ["{ECHO}"]}}}}'),
    "a refusal": answers(status=403, text=ECHO),
    "an escaped echo": answers(status=401, text=f'{{"message": "{ESCAPED}"}}'),
    "half a JSON": answers(text=f'{{"data": {{"video_url": "{LINK}", "key": "{ESCAPED}"'),
    "an error in a success": answers(text=f'{{"error": {{"message": "{ECHO}"}}}}'),
    "a redirect": answers(status=302, headers={"Location": LINK}),
    "too long": answers(text=LINK * 200),
    "bad compression": answers(body=LINK.encode(), headers={"Content-Encoding": "gzip"}),
}
CALLS = {
    "create": lambda heygen, url: heygen.lipsyncs.create(**BOTH),
    "create_batch": lambda heygen, url: heygen.lipsyncs.create_batch([LipsyncRequest(**BOTH)], callback_url=LINK),
    "dub": lambda heygen, url: heygen.dub(**BOTH, timeout=20),
    "get": lambda heygen, url: heygen.lipsyncs.get("ls_1"),
    "request": lambda heygen, url: heygen.request("POST", "/v3/lipsyncs", json=BOTH, params={"link": LINK}),
    "list": lambda heygen, url: heygen.lipsyncs.list().collect(),
    "delete": lambda heygen, url: heygen.lipsyncs.delete("ls_1"),
    "upload": lambda heygen, url: heygen.assets.upload(SAMPLE_AUDIO),
    "webhook": lambda heygen, url: heygen.webhooks.create(LINK),
    "webhook update": lambda heygen, url: heygen.webhooks.update("ep_1", url=LINK),
}


def shown_by(error):
    """Return all that a log or a crash report may show of *error* and of the errors around it."""
    seen, left, texts = set(), [error], []
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        left += [value for value in (*one.args, *vars(one).values()) if isinstance(value, BaseException)]
        texts += [repr(one), str(one), repr(vars(one)), str(getattr(one, "__notes__", ""))]
        trace = traceback.TracebackException.from_exception(one, capture_locals=True)
        # The tests' own variables hold the secrets.
        texts += [repr(frame.locals) for frame in trace.stack if frame.filename != __file__]
    return texts


def check(error, caplog):
    texts = [*shown_by(error), caplog.text]
    for secret in SECRETS:
        found = [text for text in texts if secret in text]
        assert not found, found[0][-500:]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
async def test_no_failing_call_shows_a_secret(handler, call, caplog):
    caplog.set_level(logging.DEBUG, logger="heygen_async")
    async with session_on(handler, max_response_bytes=2000) as (heygen, url):
        with pytest.raises(HeyGenError) as caught:
            await call(heygen, url)
        check(caught.value, caplog)


async def refuses_creates(request):
    if request.method == "POST":
        return web.json_response({"error": {"code": "invalid_parameter", "message": ECHO}}, status=400)
    return web.json_response({"data": {"username": "me"} if request.path == "/v3/users/me" else []})


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_no_row_that_fails_shows_a_secret(submit, caplog):
    rows = [DubRow(**BOTH, key="a")]
    async with session_on(refuses_creates) as (heygen, _), heygen.dub_many(rows, journal=None, submit=submit) as run:
        (outcome,) = [outcome async for outcome in run]
    assert isinstance(outcome.error, InvalidRequest)
    check(outcome.error, caplog)


UNREADABLE = {
    "wrong types": f'{{"data": {{"id": 5, "video_url": "{LINK}", "title": "{KEY}"}}, "next_token": 5}}',
    "no data": f'{{"link": "{LINK}", "key": "{KEY}"}}',
    "a wrong item": f'{{"data": [{{"id": {{}}, "video_url": "{LINK}"}}]}}',
}


@pytest.mark.parametrize("call", ["create", "create_batch", "dub", "get", "list", "upload"])
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_no_answer_that_cannot_be_read_shows_a_secret(body, call, caplog):
    async with session_on(answers(text=body)) as (heygen, url):
        with pytest.raises(UnexpectedResponse) as caught:
            await CALLS[call](heygen, url)
        check(caught.value, caplog)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_cancelled_call_shows_a_secret(call, caplog):
    has_arrived = asyncio.Event()

    async def hang_there(request):
        has_arrived.set()
        return await hang(request)

    async with session_on(hang_there, timeouts=Timeouts()) as (heygen, url):
        with pytest.raises(asyncio.CancelledError) as caught:
            await _cancelled(call(heygen, url), has_arrived)
        check(caught.value, caplog)


async def _cancelled(call, has_arrived):
    async def cancel(task):
        await has_arrived.wait()
        task.cancel()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(cancel(asyncio.current_task()))
        await call


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_refused_connection_shows_a_secret(call, caplog):
    url = "http://127.0.0.1:1"
    async with HeyGenSession(KEY, base_url=url, retry=RetryPolicy(max_attempts=1)) as heygen:
        with pytest.raises(HeyGenError) as caught:
            await call(heygen, url)
    assert caught.value.__cause__ is not None
    check(caught.value, caplog)


@pytest.mark.parametrize("handler", [reset, hang, cut, late_echo, answers(status=302, headers={"Location": LINK})])
async def test_no_failing_download_shows_a_secret(handler, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, logger="heygen_async")
    async with session_on(handler) as (heygen, url):
        done = Lipsync(id="ls_1", status="completed", video_url=f"{url}/v.mp4?X-Amz-Signature={SIGNATURE}")
        with pytest.raises(HeyGenError) as caught:
            await heygen.download(done, tmp_path / "v.mp4")
        check(caught.value, caplog)


def storage(put, **headers):
    """Return an API that has files stored at `/put`, under secret headers, and *put* for that."""

    async def answer(request):
        if request.path == "/put":
            return await put(request)
        await request.read()
        if request.path == "/v3/assets":
            return web.json_response({"error": {"code": "payload_too_large", "message": "large"}}, status=413)
        link = f"http://{request.host}/put?X-Amz-Signature={SIGNATURE}"
        secret = {"x-amz-security-token": SIGNATURE, **headers}
        return web.json_response({"data": {"asset_id": "as_1", "upload_url": link, "upload_headers": secret}})

    return answer


PUTS = {
    "a refusal": storage(answers(status=403, text=ECHO)),
    "a page": storage(answers(text=f"<html>{ECHO}", content_type="text/html")),
    "a page without a type": storage(answers(body=f"<html>{ECHO}".encode(), content_type="binary/octet-stream")),
    "a redirect": storage(answers(status=302, headers={"Location": LINK})),
    "reset": storage(reset),
    "hang": storage(hang),
    "no header": storage(reset, **{"x-amz-meta": SIGNATURE, "x y": SIGNATURE}),
    "no text": storage(reset, **{"x-amz-meta": [SIGNATURE]}),
}


@pytest.mark.parametrize("answer", PUTS.values(), ids=PUTS)
async def test_no_failing_direct_upload_shows_a_header_or_a_link(answer, caplog):
    caplog.set_level(logging.DEBUG, logger="heygen_async")
    async with session_on(answer) as (heygen, _):
        with pytest.raises(HeyGenError) as caught:
            await heygen.assets.upload(SAMPLE_AUDIO)
        check(caught.value, caplog)


async def test_a_proxy_that_cannot_be_reached_does_not_show_its_password(caplog):
    async with aiohttp.ClientSession(proxy=f"http://user:{SIGNATURE}@127.0.0.1:1") as theirs:
        retry = RetryPolicy(max_attempts=1)
        async with HeyGenSession(KEY, base_url="http://127.0.0.1:2", http=theirs, retry=retry) as heygen:
            with pytest.raises(HeyGenError) as caught:
                await heygen.lipsyncs.get("ls_1")
    check(caught.value, caplog)


success = answers(body=b'{"data": {"lipsync_id": "ls_1"}}', content_type="application/json")
HOOKS = ("on_request_start", "on_connection_create_start", "on_request_headers_sent", "on_request_end")


def raising(hook, error):
    async def run(*_arguments):
        raise error from KeyError(KEY)

    tracing = aiohttp.TraceConfig()
    getattr(tracing, hook).append(run)
    return tracing


BUGS = [
    ValueError("bug"),
    ExceptionGroup("bugs", [LookupError("bug")]),
    UnicodeEncodeError("cp1252", "口", 0, 1, "bug"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bug"),
    BrokenPipeError(32, "bug"),
    TimeoutError("bug"),
    aiohttp.InvalidURL("bug"),
]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
async def test_a_bug_of_a_tracing_hook_shows_no_secret_and_leaves_with_the_record_of_the_call(hook, error, caplog):
    async with session_on(success, trace_configs=[raising(hook, error)]) as (heygen, _):
        with pytest.raises(type(error)) as caught:
            await heygen.lipsyncs.create(**BOTH, idempotency_key="mine")
    check(caught.value, caplog)
    assert (caught.value.idempotency_key, caught.value.attempts, caught.value.outcome) == ("mine", 1, "unknown")
    assert (caught.value.args, caught.value is error) == (error.args, False)  # another call may raise the same one
    assert f'"{__file__}", line ' in caught.value.__notes__[-1]
    assert caught.value.__notes__[-1].endswith(", in run")


async def test_calls_that_end_in_one_exception_of_a_hook_have_their_own_keys():
    error = ValueError("one for all")
    error.attempts = "of the hook"
    keys = ["a", "b", "c"]
    async with session_on(success, trace_configs=[raising("on_request_start", error)]) as (heygen, _):
        creates = [heygen.lipsyncs.create(**BOTH, idempotency_key=key) for key in keys]
        ended = await asyncio.gather(*creates, return_exceptions=True)
    assert [one.idempotency_key for one in ended] == keys
    assert {one.attempts for one in ended} == {"of the hook"}
    assert [len(one.__notes__) for one in ended] == [1, 1, 1]
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_bug_of_a_tracing_hook_in_a_transfer_shows_no_link(hook, tmp_path, caplog):
    async with session_on(success, trace_configs=[raising(hook, ValueError("bug"))]) as (heygen, url):
        done = Lipsync(id="ls_1", status="completed", video_url=f"{url}/v.mp4?X-Amz-Signature={SIGNATURE}")
        with pytest.raises(ValueError, match="bug") as caught:
            await heygen.download(done, tmp_path / "v.mp4")
        check(caught.value, caplog)


@frozen
class NoAttributes(RuntimeError):
    message: str


@dataclasses.dataclass(frozen=True)
class NoNotes(RuntimeError):
    message: str


@pytest.mark.parametrize("kind", [NoAttributes, NoNotes])
async def test_a_bug_of_a_resolver_shows_no_secret_even_if_the_error_takes_no_attributes(kind, caplog):
    class Resolver(aiohttp.abc.AbstractResolver):
        async def resolve(self, host, port=0, family=0):
            raise kind("bug")

        async def close(self):
            pass

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver())) as theirs,
        HeyGenSession(KEY, base_url="http://x.localhost:9", http=theirs) as heygen,
    ):
        with pytest.raises(kind) as caught:
            await heygen.lipsyncs.get("ls_1")
    check(caught.value, caplog)


BAD_PROXIES = [f"http://user:{SIGNATURE}@127.0.0.1:99999", f"http://user:{SIGNATURE}@[::1", f"user:{SIGNATURE}@proxy"]


@pytest.mark.parametrize("proxy", BAD_PROXIES)
async def test_a_proxy_that_is_not_valid_is_named_as_such_without_its_password(proxy, monkeypatch, caplog):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with HeyGenSession(KEY, base_url="http://127.0.0.1:1", trust_env=True) as heygen:
        with pytest.raises(TransportError, match="the proxy is not valid") as caught:
            await heygen.lipsyncs.create(**BOTH, idempotency_key="mine")
        [finding] = (await heygen.doctor()).findings
    check(caught.value, caplog)
    error = caught.value
    assert (error.idempotency_key, error.attempts, error.outcome, error.is_transient) == ("mine", 1, "not_sent", False)
    assert "Check HTTP_PROXY and HTTPS_PROXY, or in Python the proxy of" in error.hint
    assert (finding.area, finding.advice) == ("network", error.hint)
    assert "the proxy is not valid" in finding.summary
    assert SIGNATURE not in finding.summary


async def test_a_rich_traceback_with_local_variables_shows_no_secret(caplog):
    async with session_on(late_echo) as (heygen, _):
        with pytest.raises(HeyGenError) as caught:
            await heygen.lipsyncs.get("ls_1")
    console = Console(width=400, record=True, file=io.StringIO())
    shown = Traceback.from_exception(
        caught.type, caught.value, caught.tb, show_locals=True, locals_max_length=1000, locals_max_string=10_000
    )
    # The first frame is this test's own.
    shown.trace.stacks[0].frames = [frame for frame in shown.trace.stacks[0].frames if frame.filename != __file__]
    assert len(shown.trace.stacks[0].frames) > 3
    console.print(shown)
    text = console.export_text()
    assert "locals" in text
    for secret in SECRETS:
        assert secret not in text


async def with_options(heygen, **options):
    heygen.with_options(**options)


def batch_of(**options):
    return lambda heygen: heygen.lipsyncs.create_batch([LipsyncRequest(**BOTH)], **options)


MISTAKES = {
    "create, a wrong mode": lambda heygen: heygen.lipsyncs.create(**BOTH, mode="x"),
    "create, a wrong name": lambda heygen: heygen.lipsyncs.create(**BOTH, tittle="x"),
    "create, a wrong key": lambda heygen: heygen.lipsyncs.create(**BOTH, idempotency_key=""),
    "dub, a wrong mode": lambda heygen: heygen.dub(**BOTH, mode="x"),
    "dub, a wrong name": lambda heygen: heygen.dub(**BOTH, tittle="x"),
    "dub, a wrong timeout": lambda heygen: heygen.dub(**BOTH, timeout="x"),
    "dub, wrong captions": lambda heygen: heygen.dub(**BOTH, captions=5),
    "create_batch, a dict": lambda heygen: heygen.lipsyncs.create_batch([BOTH]),
    "with_options, a wrong header": lambda heygen: with_options(heygen, headers={"X-Api-Key": KEY}),
    "with_options, a wrong retry": lambda heygen: with_options(heygen, headers={"X-Mine": KEY}, retry=3),
    "upload, a link": lambda heygen: heygen.assets.upload(LINK),
    "create_batch, a wrong title": batch_of(title="", callback_url=LINK),
    "create_batch, a wrong link": batch_of(callback_url=LINK.replace("https", "ftp")),
    "create_batch, a wrong key": batch_of(callback_url=LINK, idempotency_key=5),
    "request, a wrong method": lambda heygen: heygen.request("HEAD", "/v3/x", json=BOTH, params={"link": LINK}),
    "request, a wrong path": lambda heygen: heygen.request("GET", f"/v3/x?X-Amz-Signature={SIGNATURE}"),
    "request, a link for a method": lambda heygen: heygen.request(LINK, "GET"),
    "request, half a character": lambda heygen: heygen.request("GET", "/v3/x", params={"link": f"{LINK}\ud83d"}),
    "request, no JSON": lambda heygen: heygen.request("POST", "/v3/x", json={**BOTH, "x": object()}),
    "webhooks.create, a wrong link": lambda heygen: heygen.webhooks.create(LINK.replace("https", "ftp")),
    "webhooks.create, wrong events": lambda heygen: heygen.webhooks.create(LINK, events="x"),
    "webhooks.update, a wrong id": lambda heygen: heygen.webhooks.update("a/b", url=LINK),
}
CONSTRUCTORS = {
    "LipsyncRequest, a wrong source": lambda: LipsyncRequest(video=LINK, audio="x"),
    "LipsyncRequest, a wrong name": lambda: LipsyncRequest(**BOTH, tittle="x"),
    "DubRow, a wrong source": lambda: DubRow(LINK, 5),
    "DubRow, a wrong key": lambda: DubRow(LINK, LINK, key="a b"),
    "AssetId, a link": lambda: AssetId(LINK),
    "HeyGenSession, a password in the URL": lambda: HeyGenSession(KEY, base_url=f"https://u:{SIGNATURE}@api.example"),
    "HeyGenSession, a query in the URL": lambda: HeyGenSession(KEY, base_url=LINK, headers={"X-Mine": KEY}),
    "HeyGenSession, a wrong retry": lambda: HeyGenSession(KEY, base_url=f"http://u:{SIGNATURE}@api.example", retry=3),
}
NO_IDS = {
    "get": lambda heygen: heygen.lipsyncs.get(LINK),
    "statuses": lambda heygen: heygen.lipsyncs.statuses(["ls_1", LINK]),
    "wait": lambda heygen: heygen.poller.wait(LINK),
    "job": lambda heygen: heygen.lipsyncs.job(LINK).get(),
    "asset": lambda heygen: heygen.assets.get(LINK),
}


@pytest.mark.parametrize("call", MISTAKES.values(), ids=MISTAKES)
async def test_no_wrong_argument_shows_the_links_beside_it(call, caplog):
    async with session_on(hang) as (heygen, _):
        with pytest.raises((TypeError, ValueError)) as caught:
            await call(heygen)
    check(caught.value, caplog)


@pytest.mark.parametrize("construct", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_no_constructor_with_a_wrong_argument_shows_its_links(construct, caplog):
    with pytest.raises((TypeError, ValueError)) as caught:
        construct()
    check(caught.value, caplog)


@pytest.mark.parametrize("call", NO_IDS.values(), ids=NO_IDS)
async def test_no_message_on_an_id_that_is_a_link_shows_its_signature(call):
    async with session_on(hang) as (heygen, _):
        with pytest.raises(ValueError, match="is not an id: 'https://bucket") as caught:
            await call(heygen)
    assert SIGNATURE not in str(caught.value)


REASON = f"could not download {LINK}"


@pytest.mark.parametrize(
    "shown",
    [
        Lipsync(id="ls_1", status="failed", failure_message=REASON, title=LINK, callback_id=LINK),
        BatchItem(item_index=0, status="failed", error=REASON),
        WebhookEvent(event_id="e", failure_message=REASON, callback_id=LINK),
        LipsyncFailed(Lipsync(id="ls_1", status="failed", failure_message=REASON)),
        WaitTimeout("ls_1", last_status=LINK),
        Lipsync(id=LINK, status=LINK),
        Batch(id=LINK, status=LINK),
        BatchItem(item_index=0, status=LINK, lipsync_id=LINK),
        Asset(id=LINK, name=LINK, type=LINK, mime_type=LINK, status=LINK, folder_id=LINK),
        WebhookEvent(event_id=LINK, event_type=LINK, lipsync_id=LINK, batch_id=LINK),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_no_link_in_a_reason_shows_its_signature(shown):
    assert SIGNATURE not in str(shown) + repr(shown)
    assert "https://bucket.example/v.mp4?..." in str(shown)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "failed", "failure_message": REASON},
        {"status": "completed", "video_url": LINK.replace("https", "ftp")},
    ],
)
async def test_no_lipsync_that_cannot_be_downloaded_shows_a_secret(fields, tmp_path, caplog):
    async with session_on(answers(text="{}")) as (heygen, _):
        with pytest.raises(HeyGenError) as caught:
            await heygen.download(Lipsync(id="ls_1", **fields), tmp_path / "v.mp4")
    check(caught.value, caplog)


async def test_an_unknown_status_is_shown_without_the_query_of_a_link(caplog):
    body = {"data": [{"video_id": "ls_1", "status": LINK}]}
    async with session_on(answers(text=json.dumps(body))) as (heygen, _):
        with pytest.raises(WaitTimeout) as late:
            await heygen.poller.wait("ls_1", timeout=0.2)
        with pytest.raises(DownloadError, match="has no video yet") as early:
            await heygen.download(Lipsync(id="ls_1", status=LINK), "v.mp4")
    assert "unknown lipsync status" in caplog.text
    assert SIGNATURE not in f"{late.value} {early.value} {caplog.text}"


async def test_a_create_answered_with_a_link_for_an_id_does_not_show_its_signature(caplog):
    async with session_on(answers(text=json.dumps({"data": {"lipsync_id": LINK}}))) as (heygen, _):
        with pytest.raises(UnexpectedResponse, match="no usable id") as caught:
            await heygen.lipsyncs.create(**BOTH)
    check(caught.value, caplog)


@pytest.mark.parametrize("name", ["message", "code", "param"])
@pytest.mark.parametrize("control", ["\x1b[2J", "\x9b2J", "\n", "\u202e", "\r\x07"])
def test_an_error_of_the_api_is_one_line_without_control_characters(name, control):
    error = InvalidRequest(**{"message": "no", "status": 400, name: f"a{control}b"})

    assert one_line(str(error)) == str(error)
    assert not set(control) & set("\x1b\x9b\n\u202e\r\x07") & set(str(error))
