"""The faults of a sandbox: the choice is pure, their effects are tested over loopback."""

import asyncio
import contextlib
import gzip
import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from random import Random

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from until import until

from heygen_async.sandbox import SAMPLE_VIDEO, Sandbox, faults
from heygen_async.sandbox.routes import ROUTES

CREATE = "POST /v3/lipsyncs"
BODY = {
    "video": {"type": "url", "url": "https://example.com/source.mp4"},
    "audio": {"type": "url", "url": "https://example.com/new-audio.mp3"},
}
ENOUGH = 10  # seconds; a test that waits so long has failed


@pytest.fixture
async def sandbox():
    async with Sandbox(manual=True) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox):
    timeout = aiohttp.ClientTimeout(total=ENOUGH)
    headers = {"X-Api-Key": sandbox.api_key}
    async with aiohttp.ClientSession(sandbox.url, headers=headers, timeout=timeout) as http:
        yield http


@pytest.fixture
async def bare():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ENOUGH)) as bare:
        yield bare


async def create(http, **headers):
    async with http.post("/v3/lipsyncs", json=BODY, headers=headers) as answer:
        return answer.status, await answer.read()


async def a_link(sandbox, http):
    """Return the link to a finished job's video."""
    _, body = await create(http)
    await sandbox.advance(20)
    async with http.get(f"/v3/lipsyncs/{orjson.loads(body)['data']['lipsync_id']}") as answer:
        return (await answer.json())["data"]["video_url"]


async def collect(answer, into):
    async for chunk in answer.content.iter_any():
        into += chunk


# --- the choice --------------------------------------------------------------------------------------------


def test_faults_with_times_are_a_script():
    script = [faults.rate_limited(times=2), faults.nothing(times=1), faults.reset(times=1)]
    chosen = [faults.choose(script, CREATE, Random(0)) for _ in range(5)]
    effects = [None if fault is None else type(fault.effect).__name__ for fault in chosen]
    assert effects == ["Reply", "Reply", "Nothing", "Reset", None]
    assert script == []


def test_a_fault_applies_to_its_own_route_only():
    script = [faults.reset(CREATE)]
    assert faults.choose(script, "GET /v3/lipsyncs", Random(0)) is None
    assert faults.choose(script, CREATE, Random(0)) is script[0]


def test_the_default_route_is_every_call_of_the_api_but_not_the_file_host():
    script = [faults.reset()]
    assert faults.choose(script, "GET /v3/lipsyncs/{lipsync_id}", Random(0)) is script[0]
    assert faults.choose(script, "GET /files/{name}", Random(0)) is None


def test_the_same_seed_chooses_the_same_requests():
    def choices(seed):
        random = Random(seed)
        return [faults.choose([faults.reset(probability=0.3)], CREATE, random) is not None for _ in range(50)]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)


@given(st.floats(0, 1), st.integers(0, 1000))
def test_a_probability_is_kept(probability, seed):
    random = Random(seed)
    script = [faults.reset(probability=probability)]
    chosen = sum(faults.choose(script, CREATE, random) is not None for _ in range(1000))
    assert abs(chosen - 1000 * probability) < 110  # seven times the largest standard deviation, 15.8


@pytest.mark.parametrize("wrong", [{"probability": 1.1}, {"probability": -0.1}, {"times": 0}])
def test_impossible_odds_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        faults.reset(**wrong)


IMPOSSIBLE = [
    (lambda: faults.error(50, "x"), "status must be a whole number from 200 to 599"),
    (lambda: faults.error(100, "x"), "status must be"),  # the client would wait for the answer
    (lambda: faults.error("500", "x"), "status must be"),
    (lambda: faults.error(500, "x", shape="v4"), "shape must be one of v3, number, text, not 'v4'"),
    (lambda: faults.server_error(status=1), "status must be"),
    (lambda: faults.server_error(body="xml"), "body must be one of json, html, none"),
    (lambda: faults.redirect(status=0), "status must be"),
    (lambda: faults.rate_limited(retry_after="1"), "retry_after must be"),
    (lambda: faults.html(times=1.5), "times must be"),
    (lambda: faults.html(probability="1"), "probability must be"),
    (lambda: faults.huge(size=-1), "size must be"),
    (lambda: faults.gzip_bomb(size=0), "size must be"),
    (lambda: faults.cut_download(after_bytes=1.5), "after_bytes must be"),
    (lambda: faults.wrong_length(off_by=0.5), "off_by must be"),
    (lambda: faults.slow_drip(chunk=-1), "chunk must be"),
    (lambda: faults.slow_drip(pause=float("nan")), "pause must be"),
    (lambda: faults.odd_fields(fields={"created_at": datetime.now(UTC)}), "fields must be names and JSON values"),
    (lambda: faults.odd_fields(fields={"title": b"x"}), "fields must be"),
]


@pytest.mark.parametrize(("make", "message"), IMPOSSIBLE)
def test_a_fault_that_cannot_be_is_refused_by_the_name_of_its_argument(make, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        make()


def test_altering_reaches_objects_in_lists_too():
    page = {"data": [{"status": "running"}, {"id": 1}], "has_more": False}
    word = faults.unknown_status(word="polishing").effect
    assert faults.altered(page, word) == {"data": [{"status": "polishing"}, {"id": 1}], "has_more": False}
    batch = {"data": {"status": "processing", "items": [{"status": "queued"}]}}
    assert faults.altered(batch, word) == {"data": {"status": "polishing", "items": [{"status": "polishing"}]}}


@pytest.mark.parametrize(
    ("mistyped", "near"),
    [
        ("POST /v3/lipsync", "POST /v3/lipsyncs"),
        ("GET /v3/lipsyncs/{id}", "GET /v3/lipsyncs/{lipsync_id}"),
        ("get /v3/lipsyncs", "GET /v3/lipsyncs"),
        ("GET /v3/lipsyncs/ls_1", "GET /v3/lipsyncs/{lipsync_id}"),
        ("PUT /upload/{asset_id}", "PUT /uploads/{asset_id}"),
    ],
)
@pytest.mark.parametrize("make", [faults.reset, faults.stall, lambda route: faults.error(418, "tea", route=route)])
def test_a_mistyped_route_is_an_error_that_names_the_near_one(make, mistyped, near):
    with pytest.raises(ValueError, match="did you mean") as caught:
        make(mistyped)
    assert f"did you mean {near!r}" in str(caught.value)


@pytest.mark.parametrize("pattern", ["*", "GET *", "* /v3/*", "GET /v3/lipsyncs*", "* /v3/webhooks/*"])
def test_a_pattern_may_match_many_routes(pattern):
    assert faults.choose([faults.reset(pattern)], "GET /v3/lipsyncs", Random(0)) or "webhooks" in pattern


def test_a_route_that_is_nowhere_near_is_an_error_too():
    with pytest.raises(ValueError, match="No route of the sandbox matches 'x'"):
        faults.reset("x")


@pytest.mark.parametrize(
    "make",
    [
        partial(faults.cut_download, after_bytes=3),
        partial(faults.wrong_length, off_by=1),
        faults.no_ranges,
        faults.slow_drip,
    ],
)
def test_a_fault_of_downloads_is_refused_for_a_call_of_the_api(make):
    with pytest.raises(ValueError, match="fault of downloads, and 'GET /v3/lipsyncs' matches none"):
        make("GET /v3/lipsyncs")
    assert [make(route).route for route in ("*", "GET *", faults.CAPTIONS)] == ["*", "GET *", faults.CAPTIONS]


@pytest.mark.parametrize(
    "make", [faults.unknown_fields, faults.unknown_status, partial(faults.odd_fields, fields={"a": 1})]
)
@pytest.mark.parametrize("route", [faults.DOWNLOADS, faults.CAPTIONS, "PUT /uploads/{asset_id}"])
def test_a_fault_of_json_is_refused_for_the_file_host(make, route):
    with pytest.raises(ValueError, match=r"fault of answers in JSON, and '.*' matches none"):
        make(route)


@pytest.mark.parametrize(
    ("make", "passed", "met"),
    [
        (partial(faults.cut_download, after_bytes=10), "GET /v3/lipsyncs/statuses", faults.DOWNLOADS),
        (faults.no_ranges, "GET /v3/lipsyncs", faults.CAPTIONS),
        (faults.unknown_fields, faults.DOWNLOADS, "GET /v3/lipsyncs"),
    ],
)
def test_a_fault_is_not_used_up_by_a_request_that_cannot_have_it(make, passed, met):
    script = [make("GET *", times=1), faults.stall("GET *")]
    assert faults.choose(script, passed, Random(0)) == faults.stall("GET *")
    assert faults.choose(script, met, Random(0)) == make("GET *", times=1)
    assert script == [faults.stall("GET *")]


async def test_every_route_that_can_be_named_answers(sandbox, http):
    for name in ROUTES:
        method, path = name.split(" ")
        async with http.request(method, path.replace("{", "").replace("}", "")):
            pass
    assert [request.route for request in sandbox.requests] == list(ROUTES)


# --- answers in place of the true one ----------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "header"), [(31_536_000.0, "31536000"), (0.25, "0.25"), (0, "0")])
def test_a_long_retry_after_is_written_in_digits(seconds, header):
    assert faults.rate_limited(retry_after=seconds).effect.headers == {"Retry-After": header}


async def test_a_rate_limit_has_retry_after_in_seconds(sandbox, http):
    sandbox.faults = [faults.rate_limited(CREATE, retry_after=7)]
    async with http.post("/v3/lipsyncs", json=BODY) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert (await answer.json())["error"]["code"] == "rate_limit_exceeded"
    assert sandbox.jobs == []


async def test_a_rate_limit_may_have_retry_after_as_a_date_that_is_not_early(sandbox, http):
    sandbox.faults = [faults.rate_limited(CREATE, retry_after=7, as_date=True)]
    asked_at = time.time()
    async with http.post("/v3/lipsyncs", json=BODY) as answer:
        date = parsedate_to_datetime(answer.headers["Retry-After"])
    assert date.timestamp() >= asked_at + 7


async def test_a_rate_limit_may_have_no_retry_after(sandbox, http):
    sandbox.faults = [faults.rate_limited(CREATE, retry_after=None)]
    async with http.post("/v3/lipsyncs", json=BODY) as answer:
        assert "Retry-After" not in answer.headers


@pytest.mark.parametrize(
    ("body", "content_type", "starts"),
    [
        ("json", "application/json", b'{"error":'),
        ("html", "text/html", b"<!DOCTYPE html>"),
        ("none", "application/octet-stream", b""),
    ],
)
async def test_a_server_error_has_the_given_body(sandbox, http, body, content_type, starts):
    sandbox.faults = [faults.server_error(CREATE, status=503, body=body, times=1)]
    async with http.post("/v3/lipsyncs", json=BODY) as answer:
        assert (answer.status, answer.content_type) == (503, content_type)
        found = await answer.read()
    assert found.startswith(starts)
    assert bool(found) is bool(starts)
    assert sandbox.jobs == []
    assert (await create(http))[0] == 200


async def test_a_server_error_after_the_work_leaves_a_job_that_the_key_finds_again(sandbox, http):
    sandbox.faults = [faults.server_error(CREATE, status=504, after=True, times=1)]
    assert (await create(http, **{"Idempotency-Key": "k"}))[0] == 504
    assert len(sandbox.jobs) == 1
    status, body = await create(http, **{"Idempotency-Key": "k"})
    assert (status, orjson.loads(body)["data"]["lipsync_id"]) == (200, sandbox.jobs[0].id)
    assert len(sandbox.jobs) == 1


async def test_any_error_can_be_scripted(sandbox, http):
    sandbox.faults = [faults.error(409, "quantum_conflict", route=CREATE)]
    status, body = await create(http)
    assert (status, orjson.loads(body)["error"]["code"]) == (409, "quantum_conflict")


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (faults.error(400, 400140, "Bad file.", shape="number"), {"code": 400140, "message": "Bad file."}),
        (faults.error(400, "bad_file", "Bad file.", shape="text"), {"error": "Bad file."}),
        (faults.error(200, "internal_error", "Oops."), {"error": {"code": "internal_error", "message": "Oops."}}),
    ],
    ids=["a number", "a text", "a success"],
)
async def test_an_error_may_have_an_older_shape(sandbox, http, fault, body):
    sandbox.faults = [fault]
    async with http.post("/v3/lipsyncs", json=BODY) as answer:
        assert answer.status == fault.effect.status
        assert await answer.json() == body
    assert sandbox.jobs == []


async def test_an_endpoint_can_be_missing(sandbox, http):
    sandbox.faults = [faults.missing("GET /v3/lipsyncs/statuses")]
    async with http.get("/v3/lipsyncs/statuses?lipsync_ids=ls_1") as answer:
        assert answer.status == 404
    async with http.get("/v3/lipsyncs") as answer:
        assert answer.status == 200


async def test_a_redirect_says_where_to(sandbox, http):
    sandbox.faults = [faults.redirect(location="https://elsewhere.invalid/x")]
    async with http.get("/v3/lipsyncs", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "https://elsewhere.invalid/x")


async def test_an_html_page_may_replace_json(sandbox, http):
    sandbox.faults = [faults.html()]
    async with http.get("/v3/lipsyncs") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")


async def test_a_huge_answer_has_the_given_size(sandbox, http):
    sandbox.faults = [faults.huge(size=1 << 20)]
    async with http.get("/v3/lipsyncs") as answer:
        assert len(await answer.read()) == 1 << 20
        assert isinstance((await answer.json())["data"], str)


async def test_a_gzip_bomb_is_small_on_the_wire(sandbox, http):
    sandbox.faults = [faults.gzip_bomb(size=4 << 20)]
    async with http.get("/v3/lipsyncs", auto_decompress=False) as answer:
        packed = await answer.read()
    assert len(packed) < 1 << 16
    assert len(orjson.loads(gzip.decompress(packed))["data"]) == 4 << 20


# --- no answer, half an answer, an odd answer --------------------------------------------------------------


@pytest.mark.parametrize(("after", "made"), [(False, 0), (True, 1)])
async def test_a_reset_ends_the_connection_before_or_after_the_work(sandbox, http, after, made):
    sandbox.faults = [faults.reset(CREATE, after=after, times=1)]
    with pytest.raises(aiohttp.ClientConnectionError):
        await create(http)
    assert len(sandbox.jobs) == made
    assert sandbox.requests[0].status is None
    assert sandbox.requests[0].fault == faults.reset(CREATE, after=after, times=1)
    assert sandbox.requests[0].json == BODY


@pytest.mark.parametrize(("after", "made_before"), [(False, 0), (True, 1)])
async def test_a_stalled_request_goes_on_when_it_is_released(sandbox, http, after, made_before):
    sandbox.faults = [faults.stall(CREATE, after=after, times=1)]
    async with asyncio.timeout(ENOUGH):
        waiting = asyncio.create_task(create(http))
        await until(lambda: sandbox.requests)
        assert (await create(http))[0] == 200  # others are not held up
        assert len(sandbox.jobs) == made_before + 1
        sandbox.release()
        assert (await waiting)[0] == 200
    assert len(sandbox.jobs) == 2


async def test_a_stalled_request_does_not_keep_the_sandbox_from_ending():
    async with asyncio.timeout(ENOUGH):
        async with aiohttp.ClientSession() as http:
            async with Sandbox(faults=[faults.stall("*")]) as sandbox:
                waiting = asyncio.create_task(http.get(f"{sandbox.url}/v3/lipsyncs"))
                await until(lambda: sandbox.requests)
            with pytest.raises(aiohttp.ClientConnectionError):
                await waiting


async def test_a_truncated_answer_breaks_off(sandbox, http):
    sandbox.faults = [faults.truncated(CREATE)]
    with pytest.raises(aiohttp.ClientPayloadError):
        await create(http)
    assert len(sandbox.jobs) == 1


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (faults.reset(after=True), aiohttp.ClientConnectionError),
        (faults.truncated(), aiohttp.ClientPayloadError),
        (faults.server_error(after=True), 500),
        (faults.unknown_fields(), 400),
        (faults.nothing(), 400),
    ],
    ids=lambda value: type(value.effect).__name__ if isinstance(value, faults.Fault) else "",
)
async def test_a_fault_applies_to_an_error_as_it_does_to_a_success(sandbox, http, fault, seen):
    sandbox.faults = [fault]
    if isinstance(seen, int):
        async with http.post("/v3/lipsyncs", json={}) as answer:
            assert (answer.status, (await answer.json()).keys()) == (seen, {"error"})
    else:
        with pytest.raises(seen):
            await (await http.post("/v3/lipsyncs", json={})).read()


async def test_a_truncated_answer_has_its_request_id(sandbox, http):
    sandbox.faults = [faults.truncated()]
    async with http.get("/v3/lipsyncs") as answer:
        assert answer.headers["X-Request-Id"] == sandbox.requests[0].id


async def test_answers_may_have_unknown_fields(sandbox, http):
    await create(http)
    sandbox.faults = [faults.unknown_fields()]
    async with http.get("/v3/lipsyncs") as answer:
        assert (await answer.json())["data"][0]["sandbox_news"] == {"since": 2026}


async def test_answers_may_have_an_unknown_status(sandbox, http):
    await create(http)
    sandbox.faults = [faults.unknown_status(word="polishing", times=1)]
    seen = []
    for _ in range(2):
        async with http.get("/v3/lipsyncs") as answer:
            seen.append((await answer.json())["data"][0]["status"])
    assert seen == ["polishing", "pending"]


ODD = {
    "duration": "12.5",
    "created_at": ["", 1_780_000_000_000, "2026-11-28T10:00:00Z"],
    "callback_id": 42,
    "failure_message": {"code": 7, "message": "No face"},
    "title": "Launch \ud83d",
    "video_url": None,
}


async def test_fields_may_be_of_any_type(sandbox, http):
    await create(http)
    sandbox.faults = [faults.odd_fields(fields={**ODD, "not_there": 1})]
    async with http.get("/v3/lipsyncs") as answer:
        raw = await answer.read()
    (seen,) = json.loads(raw)["data"]
    assert {name: seen[name] for name in ODD} == ODD
    assert rb"Launch \ud83d" in raw
    assert "not_there" not in seen


async def test_an_answer_may_have_no_request_id(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.no_request_id("*", times=2)]
    seen = []
    for client, url in ((http, "/v3/lipsyncs"), (bare, link), (bare, link)):
        async with client.get(url) as answer:
            seen.append("X-Request-Id" in answer.headers)
    assert seen == [False, False, True]


# --- downloads ---------------------------------------------------------------------------------------------


async def test_a_download_breaks_off_after_so_many_bytes_and_can_be_resumed(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.cut_download(after_bytes=10_000, times=1)]
    got = bytearray()
    async with bare.get(link) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await collect(answer, got)
    assert len(got) == 10_000
    async with bare.get(link, headers={"Range": "bytes=10000-"}) as answer:
        got += await answer.read()
    assert bytes(got) == SAMPLE_VIDEO.read_bytes()


async def test_a_length_that_is_too_long_ends_in_a_broken_connection(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.wrong_length(off_by=5)]
    async with bare.get(link) as answer:
        assert answer.content_length == SAMPLE_VIDEO.stat().st_size + 5
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_length_that_is_too_short_cuts_the_file(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.wrong_length(off_by=-5)]
    async with bare.get(link) as answer:
        assert await answer.read() == SAMPLE_VIDEO.read_bytes()[:-5]


async def test_ranges_may_be_ignored(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.no_ranges()]
    async with bare.get(link, headers={"Range": "bytes=100-"}) as answer:
        assert (answer.status, "Accept-Ranges" in answer.headers) == (200, False)
        assert await answer.read() == SAMPLE_VIDEO.read_bytes()


async def test_a_file_may_come_in_drips(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.slow_drip(chunk=4096, pause=0.001)]
    async with bare.get(link) as answer:
        pieces = [chunk async for chunk in answer.content.iter_any()]
    assert len(pieces) > 1
    assert b"".join(pieces) == SAMPLE_VIDEO.read_bytes()


async def test_a_link_may_have_expired(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.expired_link(times=1)]
    async with bare.get(link) as answer:
        assert (answer.status, answer.content_type) == (403, "application/xml")
    async with bare.get(link) as answer:
        assert answer.status == 200


async def test_an_html_page_may_replace_media(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.html(faults.DOWNLOADS)]
    async with bare.get(link) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        (faults.truncated(faults.DOWNLOADS), SAMPLE_VIDEO.stat().st_size // 2),
        (faults.reset(faults.DOWNLOADS, after=True), 0),
    ],
    ids=["truncated", "reset"],
)
async def test_a_download_breaks_off_as_other_answers_do(sandbox, http, bare, fault, size):
    link = await a_link(sandbox, http)
    sandbox.faults = [fault]
    got = bytearray()
    with pytest.raises(aiohttp.ClientError):
        async with bare.get(link) as answer:
            await collect(answer, got)
    assert len(got) == size


async def test_an_error_after_the_work_is_the_whole_answer_to_a_download(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.server_error(faults.DOWNLOADS, after=True)]
    async with bare.get(link) as answer:
        assert (answer.status, answer.content_type) == (500, "application/json")


async def test_a_download_that_stalls_after_the_work_sends_nothing_before_it_is_released(sandbox, http, bare):
    link = await a_link(sandbox, http)
    sandbox.faults = [faults.stall(faults.DOWNLOADS, after=True, times=1)]
    async with asyncio.timeout(ENOUGH):
        waiting = asyncio.create_task(bare.get(link))
        await until(lambda: sandbox.requests[-1].fault is not None)
        async with bare.get(link) as other:
            assert await other.read() == SAMPLE_VIDEO.read_bytes()
        assert not waiting.done()
        sandbox.release()
        async with await waiting as answer:
            assert await answer.read() == SAMPLE_VIDEO.read_bytes()


async def test_captions_have_a_route_of_their_own(sandbox, http, bare):
    link = await a_link(sandbox, http)
    caption_link = link.replace("/files/", "/captions/")  # signed for another path
    sandbox.faults = [faults.html(faults.CAPTIONS)]
    async with bare.get(caption_link) as answer:
        assert answer.content_type == "text/html"
    async with bare.get(link) as answer:
        assert answer.content_type == "video/mp4"


async def test_an_upload_may_be_reset(sandbox, http):
    sandbox.faults = [faults.reset("POST /v3/assets", times=1)]
    for status in (None, 200):
        form = aiohttp.FormData()
        form.add_field("file", SAMPLE_VIDEO.read_bytes(), filename="a.mp4")
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with http.post("/v3/assets", data=form) as answer:
                await answer.read()
        assert sandbox.requests[-1].status == status
