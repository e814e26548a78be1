"""The control of a sandbox over HTTP, and its page."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from chromium import browser, needs_chromium
from until import until

from heygen_async import HeyGenSession, InvalidRequest, LipsyncFailed, PollPolicy, RetryPolicy
from heygen_async.sandbox import Sandbox, faults
from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.http.control import check_caller
from heygen_async.sandbox.http.fault_requests import KINDS, read_fault

VIDEO, AUDIO = "https://example.com/a.mp4", "https://example.com/a.mp3"
CREATE = "POST /v3/lipsyncs"
SCREENSHOTS = os.environ.get("HEYGEN_ASYNC_TEST_SCREENSHOTS")


@pytest.fixture
async def sandbox():
    async with Sandbox(manual=True) as sandbox:
        yield sandbox


@pytest.fixture
async def control(sandbox):
    """Call the control of the sandbox."""
    async with aiohttp.ClientSession(f"{sandbox.url}/_sandbox/", timeout=aiohttp.ClientTimeout(total=10)) as http:

        async def call(method, path, json=None, **more):
            async with http.request(method, path, json=json, **more) as answer:
                return answer.status, await answer.json()

        yield call


@pytest.fixture
async def heygen(sandbox):
    async with session_on(sandbox) as session:
        yield session


def session_on(sandbox):
    quick = {"polling": PollPolicy(fastest=0.01, slowest=0.02), "retry": RetryPolicy(max_attempts=1)}
    return HeyGenSession(sandbox.api_key, base_url=sandbox.url, **quick)


# What happened


async def test_jobs_are_what_the_sandbox_has(sandbox, control, heygen):
    job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO, title="One")
    status, answer = await control("GET", "jobs")

    assert status == 200
    [shown] = answer["data"]
    assert (shown["id"], shown["status"], shown["title"]) == (job.id, "pending", "One")
    assert shown["body"] == sandbox.jobs[0].body


async def test_requests_are_shown_with_headers_and_bodies_and_without_secrets(sandbox, control, heygen):
    sandbox.faults = [faults.unknown_fields(CREATE, times=1)]
    job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO, idempotency_key="k")
    await sandbox.advance(20)
    async with aiohttp.ClientSession() as http, http.get((await job.get()).video_url) as download:
        await download.read()
    _, answer = await control("GET", "requests")
    create, get, file = answer["data"]

    assert (create["method"], create["path"], create["status"]) == ("POST", "/v3/lipsyncs", 200)
    assert (create["headers"]["Idempotency-Key"], create["headers"]["X-Api-Key"]) == ("k", "***")
    assert VIDEO in create["body"]
    assert create["fault"]["route"] == CREATE
    assert get["fault"] is None
    assert file["query"]["X-Amz-Signature"] == "***"
    assert sandbox.api_key not in str(answer)
    assert sandbox.requests[2].query["X-Amz-Signature"] not in str(answer)


async def test_a_request_with_bytes_that_are_no_text_is_shown(sandbox, control):
    host, _, port = sandbox.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Odd: \xff\xfe\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()

    status, answer = await control("GET", "requests")
    assert (status, [one["headers"]["X-Odd"] for one in answer["data"]]) == (200, ["\udcff\udcfe"])


@pytest.mark.parametrize("what", ["jobs", "requests"])
async def test_the_newest_are_shown_as_many_as_wanted(sandbox, control, heygen, what):
    for _ in range(3):
        await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)

    assert len((await control("GET", what))[1]["data"]) == 3
    [last] = (await control("GET", f"{what}?limit=1"))[1]["data"]
    assert last["id"] == getattr(sandbox, what)[-1].id
    for wrong in ("0", "-1", "x", "20001", "٣", "1".zfill(6).ljust(5000, "0")):
        status, answer = await control("GET", what, params={"limit": wrong})
        assert (status, answer["error"]["param"]) == (400, "limit")


async def test_control_is_not_recorded_meets_no_fault_and_needs_no_key(sandbox, control):
    sandbox.faults = [faults.server_error("*")]

    assert (await control("GET", "jobs"))[0] == 200
    assert sandbox.requests == []


# Time and ends


async def test_the_clock_of_a_manual_sandbox_is_moved(control, heygen):
    job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)

    assert (await control("POST", "advance", {"seconds": 20}))[0] == 200
    assert (await job.get()).status == "completed"
    assert (await control("GET", "clock"))[1]["data"] == {"now": 20, "is_manual": True, "speed": 1.0}


async def test_a_clock_that_runs_by_itself_is_not_moved():
    async with (
        Sandbox() as sandbox,
        aiohttp.ClientSession() as http,
        http.post(f"{sandbox.url}/_sandbox/advance", json={"seconds": 1}) as answer,
    ):
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (409, "not_manual")
        assert "--manual" in error["message"]


async def test_a_job_is_finished_by_hand(control, heygen):
    job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)

    assert (await control("POST", "finish", {"lipsync_id": job.id}))[0] == 200
    assert (await job.wait(timeout=10)).status == "completed"


async def test_a_job_is_failed_by_hand(control, heygen):
    job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)

    assert (await control("POST", "finish", {"lipsync_id": job.id, "failure_message": "No face"}))[0] == 200
    with pytest.raises(LipsyncFailed, match="No face"):
        await job.wait(timeout=10)


async def test_a_job_that_has_ended_or_is_not_there_cannot_be_finished(control, heygen):
    job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)
    await control("POST", "finish", {"lipsync_id": job.id})

    for failure in ({}, {"failure_message": "late"}):
        status, answer = await control("POST", "finish", {"lipsync_id": job.id, **failure})
        assert (status, answer["error"]["code"]) == (409, "has_ended")
    assert (await control("POST", "finish", {"lipsync_id": "ls_none"}))[0] == 404


def test_python_finishes_a_job_too(sandbox_with_a_job):
    sandbox, lipsync_id = sandbox_with_a_job
    sandbox.finish(lipsync_id)

    assert [job.status for job in sandbox.jobs] == ["completed"]
    with pytest.raises(ValueError, match="ended"):
        sandbox.finish(lipsync_id)
    with pytest.raises(LookupError):
        sandbox.finish("ls_none")


@pytest.fixture
async def sandbox_with_a_job(sandbox, heygen):
    return sandbox, (await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)).id


# Faults


async def test_a_fault_is_added_listed_and_used_up(sandbox, control, heygen):
    fault = {"kind": "rate_limited", "route": "GET /v3/users/me", "times": 1, "retry_after": 7}
    _, added = await control("POST", "faults", fault)

    assert sandbox.faults == [faults.rate_limited("GET /v3/users/me", times=1, retry_after=7)]
    assert [(one["route"], one["times"]) for one in added["data"]] == [("GET /v3/users/me", 1)]
    key = {"X-Api-Key": sandbox.api_key}
    async with aiohttp.ClientSession(headers=key) as http, http.get(f"{sandbox.url}/v3/users/me") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert (await control("GET", "faults"))[1] == {"data": []}


async def test_faults_are_cleared(sandbox, control):
    sandbox.faults = [faults.server_error()]

    assert (await control("DELETE", "faults"))[0] == 200
    assert sandbox.faults == []


def nested_lists(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


WRONG = {
    "no kind": ({}, "kind"),
    "unknown kind": ({"kind": "earthquake"}, "kind"),
    "kind of another type": ({"kind": []}, "kind"),
    "mistyped route": ({"kind": "reset", "route": "POST /v3/lipsync"}, "route"),
    "unknown field": ({"kind": "reset", "atfer": True}, "atfer"),
    "field of another type": ({"kind": "reset", "after": "yes"}, "after"),
    "missing field": ({"kind": "cut_download"}, "after_bytes"),
    "impossible odds": ({"kind": "reset", "probability": 2}, "probability"),
    "odds that are no number": ({"kind": "reset", "probability": None}, "probability"),
    "impossible times": ({"kind": "reset", "times": 0}, "times"),
    "no status": ({"kind": "error", "status": 99, "code": "x"}, "status"),
    "no code": ({"kind": "error", "status": 400, "code": None}, "code"),
    "no object": ({"kind": "odd_fields", "fields": 3}, "fields"),
    "object of many levels": ({"kind": "odd_fields", "fields": {"title": nested_lists(900)}}, "fields"),
    "larger than memory": ({"kind": "huge", "size": 10_000_000_000_000}, "size"),
    "packed and larger than memory": ({"kind": "gzip_bomb", "size": 1 << 40}, "size"),
    "two lines in a header": ({"kind": "redirect", "location": "a\r\nX: y"}, "location"),
    "control character in a header": ({"kind": "redirect", "location": "https://a.example/\0"}, "location"),
    "no date": ({"kind": "rate_limited", "as_date": True, "retry_after": 1e300}, "retry_after"),
    "no number of seconds": ({"kind": "rate_limited", "retry_after": 1e300}, "retry_after"),
    "seconds before now": ({"kind": "rate_limited", "retry_after": -1}, "retry_after"),
    "less than nothing of a body": ({"kind": "cut_download", "after_bytes": -1}, "after_bytes"),
    "right length": ({"kind": "wrong_length", "off_by": 0}, "off_by"),
    "year 10000": ({"kind": "rate_limited", "as_date": True, "retry_after": 3e11}, "retry_after"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_fault_that_cannot_be_is_refused_with_its_field(sandbox, control, what):
    body, param = WRONG[what]
    status, answer = await control("POST", "faults", body)

    assert (status, answer["error"].get("param")) == (400, param)
    assert "seconds" not in answer["error"]["message"] or param == "retry_after"
    assert sandbox.faults == []


ARGUMENTS = {
    "error": {"status": 418, "code": "teapot"},
    "missing": {"route": "GET /v3/users/me"},
    "odd_fields": {"fields": {"duration": "12"}},
    "cut_download": {"after_bytes": 10},
    "wrong_length": {"off_by": -1},
    "huge": {"size": 1000},
    "gzip_bomb": {"size": 1000},
}


def test_every_kind_of_fault_can_be_written_as_json():
    made = {
        name for name, made in vars(faults).items() if getattr(made, "__annotations__", {}).get("return") == "Fault"
    }

    assert set(KINDS) == made
    for kind in KINDS:
        arguments = ARGUMENTS.get(kind, {})
        assert read_fault({"kind": kind, "times": 2, **arguments}) == getattr(faults, kind)(times=2, **arguments)


async def test_an_error_may_have_a_number_as_its_code(control, heygen):
    fault = {"kind": "error", "status": 400, "code": 400140, "shape": "number", "route": "GET /v3/users/me"}
    assert (await control("POST", "faults", fault))[0] == 200
    with pytest.raises(InvalidRequest) as caught:
        await heygen.account.me()
    assert caught.value.code == "400140"


def test_the_fields_of_a_fault_are_the_arguments_of_its_function():
    for make, shape, _ in KINDS.values():
        assert set(make.__annotations__) - {"route", "when", "return"} == set(shape)


async def test_stalled_requests_are_released(sandbox, control, heygen):
    sandbox.faults = [faults.stall(CREATE)]
    creating = asyncio.create_task(heygen.lipsyncs.create(video=VIDEO, audio=AUDIO))
    await until(lambda: sandbox.requests and sandbox.requests[0].fault is not None)

    assert (await control("POST", "release"))[0] == 200
    assert (await asyncio.wait_for(creating, 10)).id


# Reset


async def test_after_a_reset_the_sandbox_is_as_at_its_start(sandbox, control):
    async with session_on(sandbox) as heygen:
        first = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO, idempotency_key="k")
    sandbox.faults = [faults.server_error()]
    sandbox.account_limit = 1
    await sandbox.advance(100)

    assert (await control("POST", "reset"))[0] == 200
    assert (sandbox.jobs, sandbox.requests, sandbox.deliveries, sandbox.faults) == ([], [], [], [])
    assert (sandbox.charged, sandbox.now, sandbox.account_limit) == (0, 0, 10)
    async with session_on(sandbox) as heygen:
        again = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO, idempotency_key="k")
    assert len(sandbox.jobs) == 1  # the key was forgotten
    assert again.id == first.id  # and ids start again


async def test_a_sandbox_whose_clock_runs_goes_on_after_a_reset():
    before = asyncio.all_tasks()
    async with Sandbox(speed=1000, faults=[faults.nothing()]) as sandbox:
        await sandbox.reset()
        await sandbox.reset()
        assert sandbox.faults == [faults.nothing()]
        async with session_on(sandbox) as heygen:
            job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)
            assert (await job.wait(timeout=10)).status == "completed"
    assert asyncio.all_tasks() == before


async def test_a_reset_lets_stalled_requests_go(sandbox, heygen):
    sandbox.faults = [faults.stall(CREATE)]
    creating = asyncio.create_task(heygen.lipsyncs.create(video=VIDEO, audio=AUDIO))
    await until(lambda: sandbox.requests and sandbox.requests[0].fault is not None)
    await sandbox.reset()

    await asyncio.wait_for(creating, 10)
    assert sandbox.jobs == []  # it belongs to the time before


# Time


@pytest.mark.parametrize("seconds", [1e308, 10**30, 1e12])
async def test_time_that_has_no_date_is_refused(control, sandbox, seconds):
    status, answer = await control("POST", "advance", {"seconds": seconds})

    assert (status, answer["error"]["param"]) == (400, "seconds")
    assert sandbox.now == 0


async def test_the_end_of_time_is_one_for_all_advances(control, sandbox, heygen):
    assert (await control("POST", "advance", {"seconds": 6e10}))[0] == 200
    assert (await control("POST", "advance", {"seconds": 6e10}))[0] == 400
    assert (await control("POST", "advance", {"seconds": 3e10}))[0] == 200
    job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)
    await sandbox.advance(20)
    assert (await job.get()).video_url


# Who may


HERE = "127.0.0.1:8080"


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost"])
@pytest.mark.parametrize("remote", ["127.0.0.1", "::1", "127.8.8.8", "::ffff:127.0.0.1"])
def test_this_machine_may_control_it(host, remote):
    check_caller(remote, {"Host": host})
    check_caller(remote, {"Host": host, "Origin": f"http://{host}"})


@pytest.mark.parametrize(
    ("remote", "headers"),
    [
        ("192.0.2.1", {"Host": HERE}),
        ("::ffff:192.0.2.1", {"Host": HERE}),
        ("", {"Host": HERE}),
        ("127.0.0.1", {"Host": "rebound.example:8080"}),
        ("127.0.0.1", {}),
        ("127.0.0.1", {"Host": "[::1"}),
        ("127.0.0.1", {"Host": "::1]:8080"}),
        ("127.0.0.1", {"Host": "[127.0.0.1]:8080"}),
        ("127.0.0.1", {"Host": HERE, "Origin": "https://evil.example"}),
        ("127.0.0.1", {"Host": HERE, "Origin": "null"}),
        ("127.0.0.1", {"Host": HERE, "Origin": "http://127.0.0.1:9000"}),
    ],
)
def test_other_machines_and_pages_of_other_origins_may_not(remote, headers):
    with pytest.raises(ErrorAnswer) as caught:
        check_caller(remote, headers)

    assert caught.value.status == 403


async def test_a_page_of_another_origin_is_refused(sandbox, control):
    for headers in ({"Origin": "https://evil.example"}, {"Host": "rebound.example"}):
        assert (await control("POST", "reset", headers=headers))[0] == 403


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "nowhere", 404), ("PUT", "jobs", 405)])
async def test_a_path_that_is_not_there_is_an_error_in_json(control, method, path, status):
    found, answer = await control(method, path)

    assert (found, "code" in answer["error"]) == (status, True)


async def test_a_body_that_is_no_json_is_refused(control):
    assert (await control("POST", "advance", data=b"{", headers={"Content-Type": "application/json"}))[0] == 400
    assert (await control("POST", "advance", {"seconds": -1}))[0] == 400
    assert (await control("POST", "advance", {}))[0] == 400


# The page


async def test_the_page_and_its_files_have_a_strict_policy(sandbox):
    async with aiohttp.ClientSession(f"{sandbox.url}") as http:
        for path, kind in (("", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
            async with http.get(f"/_sandbox{path}") as answer:
                text = await answer.text()
                assert (answer.status, answer.content_type) == (200, kind)
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
                assert "unsafe" not in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "innerHTML" not in text
                assert "http" not in text.replace("HTTP", "")  # nothing from elsewhere


def text(selector):
    return f"document.querySelector({selector!r}).innerText"


@needs_chromium
async def test_a_browser_shows_jobs_requests_and_faults_and_controls_them(sandbox, heygen, tmp_path):
    folder = Path(SCREENSHOTS) if SCREENSHOTS else tmp_path
    hostile = "<img src=x onerror=document.title='hacked'>"
    first = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO, title=hostile)
    second = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO, title="Episode 2")
    sandbox.faults = [faults.rate_limited(CREATE, times=3), faults.server_error(probability=0.05)]
    async with asyncio.timeout(50), browser(tmp_path / "profile") as page:

        async def shows(condition):
            while not await page.run(condition):  # noqa: ASYNC110 there is no event for it
                await asyncio.sleep(0.02)

        await page.open(f"{sandbox.url}/_sandbox")
        await shows(f"{text('#jobs')}.includes({second.id!r})")
        assert hostile in await page.run(text("#jobs"))
        assert await page.run("document.title") == "HeyGen sandbox"
        assert "POST /v3/lipsyncs" in await page.run(text("#faults"))
        assert "POST /v3/lipsyncs" in await page.run(text("#requests"))
        assert "manual clock" in await page.run(text("#state"))
        await page.photograph(folder / "sandbox-light.png")

        await page.run("document.querySelector('#jobs tr:last-child button').click()")
        await shows(f"{text('#jobs tr:last-child')}.includes('completed')")
        assert (await first.get()).status == "completed"
        await page.run("document.querySelector('#jobs tr:first-child td:last-child button:last-child').click()")
        await shows(f"{text('#jobs')}.includes('Failed by hand')")
        await page.run("document.querySelector('#clear-faults').click()")
        await shows("!document.querySelector('#faults-empty').hidden")
        assert sandbox.faults == []
        await page.run("document.querySelector('#advance').requestSubmit()")
        await shows(f"{text('#state')}.startsWith('60.0 s')")
        await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        await page.photograph(folder / "sandbox-dark.png")
        await page.run("document.querySelector('#reset').click()")
        await shows("!document.querySelector('#jobs-empty').hidden")
        assert sandbox.jobs == []


def test_the_page_is_beside_the_package():
    program = "from heygen_async.sandbox.http import control; print(*sorted(p.name for p in control._FOLDER.iterdir()))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed.split() == ["page.css", "page.html", "page.js"]
