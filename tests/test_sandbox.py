"""The sandbox as a thing to run: its life, its time, its files, its webhooks."""

import asyncio
import contextlib
import hashlib
import hmac
import io
import itertools
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import aiohttp
import attrs
import orjson
import pytest
from aiohttp import web
from cli_sandbox import free_port, on_ipv6
from cli_sandbox import until as until_true
from hypothesis import given
from hypothesis import strategies as st
from until import until

from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox, faults
from heygen_async.sandbox.address import Address
from heygen_async.sandbox.error_answers import StorageError
from heygen_async.sandbox.http.file_host import requested_slice, srt
from heygen_async.sandbox.http.storage import StoredFile
from heygen_async.sandbox.server import greeting as printed_greeting
from heygen_async.sandbox.settings import CHECKS, SandboxOptions, Settings
from heygen_async.sandbox.state.signed_links import SignedLinks

BODY = {
    "video": {"type": "url", "url": "https://example.com/source.mp4"},
    "audio": {"type": "url", "url": "https://example.com/new-audio.mp3"},
}
ENOUGH = 10  # seconds; a test that waits so long has failed


class Api:
    """The API over bare HTTP."""

    def __init__(self, sandbox, http):
        self.sandbox = sandbox
        self.http = http

    async def __call__(self, method, path, **more):
        async with self.http.request(method, self.sandbox.url + path, **self._keyed(more)) as answer:
            return answer.status, await answer.json()

    def _keyed(self, more):
        return {**more, "headers": {"X-Api-Key": self.sandbox.api_key, **more.get("headers", {})}}

    async def create(self, **changes):
        status, answer = await self("POST", "/v3/lipsyncs", json={**BODY, **changes})
        assert status == 200, answer
        return answer["data"]["lipsync_id"]

    async def get(self, lipsync_id):
        return (await self("GET", f"/v3/lipsyncs/{lipsync_id}"))[1]["data"]

    async def upload(self, content, filename):
        form = aiohttp.FormData()
        form.add_field("file", io.BytesIO(content), filename=filename)
        return await self("POST", "/v3/assets", data=form)

    async def fetch(self, link, **headers):
        """Get a presigned link, without the key."""
        async with self.http.get(link, headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ENOUGH)) as http:
        yield http


@pytest.fixture
async def sandbox():
    async with Sandbox(manual=True) as sandbox:
        yield sandbox


@pytest.fixture
def api(sandbox, http):
    return Api(sandbox, http)


# --- life --------------------------------------------------------------------------------------------------


async def test_it_leaves_nothing_behind(http, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = asyncio.all_tasks()
    async with Sandbox() as sandbox:
        assert (await Api(sandbox, http).upload(SAMPLE_VIDEO.read_bytes(), "a.mp4"))[0] == 200
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.get(sandbox.url)
    await until(lambda: asyncio.all_tasks() <= before)


async def test_a_connection_that_comes_in_during_the_shutdown_is_closed():
    async with Sandbox(manual=True) as sandbox:
        address = ("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
        late = [socket.create_connection(address) for _ in range(20)]  # the loop accepts them while it shuts down
    for connection in late:
        with connection, contextlib.suppress(ConnectionResetError):
            connection.settimeout(ENOUGH)
            assert await asyncio.to_thread(connection.recv, 1) == b""


async def test_its_records_can_be_read_after_its_end(http):
    async with Sandbox(manual=True) as sandbox:
        lipsync_id = await Api(sandbox, http).create()
    assert [job.id for job in sandbox.jobs] == [lipsync_id]
    assert len(sandbox.requests) == 1


async def test_it_starts_once():
    async with Sandbox() as sandbox:
        pass
    with pytest.raises(RuntimeError, match="starts once"):
        await sandbox.__aenter__()


async def test_a_port_may_be_a_whole_number_as_json_has_it():
    async with Sandbox(port=0.0) as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("look", ["url", "jobs", "requests", "charged", "deliveries"])
def test_reading_records_before_the_start_says_what_to_do(look):
    with pytest.raises(RuntimeError, match="async with"):
        getattr(Sandbox(), look)


async def test_a_port_that_is_taken_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await Sandbox(port=taken.getsockname()[1]).__aenter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"speed": 0},
        {"link_seconds": 0},
        {"link_seconds": 8 * 86400},
        {"scopes": ["lipsync"]},
        {"scopes": ["lipsnyc:write"]},
        {"scopes": "lipsync:write"},
        {"captions": "late"},
        {"caption_seconds": -1},
        {"other_jobs": -1},
        {"ingest_seconds": -1},
        {"billing": "invoice"},
        {"currency": "eur"},
        {"callback_shape": "round"},
        {"rates": {"fast": 1}},
        {"rates": {"speed": -1}},
        {"rates": {"precision": math.nan}},
        {"job_seconds": math.nan},
        {"job_seconds": -5},
        {"job_seconds": []},
        {"job_seconds": [20, -1]},
        {"account_limit": -1},
        {"balance": math.inf},
        {"latency": -1},
        {"latency": {"POST /v3/lipsyncs": math.nan}},
        {"retry_after": -5},
        {"speed": math.nan},
        {"speed": 2**64},
        {"speed": 1e9},
        {"key_seconds": -1},
        {"api_key": ""},
        {"host": ""},
        {"port": 99999},
        {"port": -1},
        {"max_asset_bytes": -1},
        {"link_seconds": math.nan},
        {"api_key": "k\ud83d"},
        {"callback_secret": "s\ud83d"},
        {"signature_header": "X-A\r\nB: c"},
        {"signature_header": "X Signature"},
        {"signature_header": "Sïgnature"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(wrong):
    [name] = wrong
    with pytest.raises(ValueError, match=rf"^{name}\b.* must (not )?be") as caught:
        Sandbox(**wrong)
    assert "Settings" not in str(caught.value)
    assert len(caught.value.args) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"faults": [{"kind": "rate_limited", "route": "POST /v3/lipsyncs"}]},
        {"faults": faults.stall()},
        {"faults": 3},
        {"scopes": None},
        {"job_seconds": "20"},
        {"job_seconds": ["20"]},
        {"speed": "60"},
        {"speed": None},
        {"manual": "yes"},
        {"port": 80.5},
        {"account_limit": True},
        {"rates": 0.05},
        {"api_key": None},
        {"seed": "lucky"},
        {"recordings": 3},
    ],
    ids=str,
)
def test_settings_of_another_type_are_refused_by_name(wrong):
    [name] = wrong
    with pytest.raises(TypeError, match=f"^{name} must be"):
        Sandbox(**wrong)


def test_a_wrong_key_is_refused_and_not_shown():
    with pytest.raises(TypeError) as caught:
        Sandbox(api_key=b"the-secret")
    assert "the-secret" not in str(caught.value)


async def test_what_is_assigned_later_is_checked_in_the_same_way(sandbox):
    with pytest.raises(TypeError, match=r"faults must be made by heygen_async\.sandbox\.faults"):
        sandbox.faults = [{"kind": "stall"}]
    with pytest.raises(ValueError, match="account_limit must be"):
        sandbox.account_limit = -1
    with pytest.raises(ValueError, match="other_jobs must be"):
        sandbox.other_jobs = -1
    assert (sandbox.faults, sandbox.account_limit, sandbox.other_jobs) == ([], 10, 0)


@pytest.mark.parametrize(
    "add",
    [
        lambda sandbox: sandbox.faults.append(faults.server_error),  # the call was forgotten
        lambda sandbox: sandbox.faults.insert(0, "POST /v3/lipsyncs"),
        lambda sandbox: sandbox.faults.extend([faults.server_error(), {"kind": "stall"}]),
        lambda sandbox: sandbox.faults.append([faults.server_error()]),
    ],
)
async def test_what_is_no_fault_cannot_be_added_to_faults(sandbox, add):
    sandbox.faults.append(faults.server_error("GET /v3/users/me", times=1))
    with pytest.raises(TypeError, match=r"faults must be made by heygen_async\.sandbox\.faults"):
        add(sandbox)
    assert [fault.route for fault in sandbox.faults] == ["GET /v3/users/me"]
    sandbox.faults += [faults.server_error("GET /v3/lipsyncs")]
    assert len(sandbox.faults) == 2


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
async def test_time_moves_by_a_finite_number(sandbox, seconds):
    with pytest.raises(ValueError, match="seconds must be"):
        await sandbox.advance(seconds)


def test_a_mistyped_route_of_a_latency_is_an_error():
    with pytest.raises(ValueError, match="did you mean 'POST /v3/lipsyncs'"):
        Sandbox(latency={"POST /v3/lipsync": 1.0})


def test_a_misspelt_setting_is_an_error_that_names_it():
    with pytest.raises(
        TypeError, match=r"^Sandbox\(\) got an unexpected keyword argument 'spede'; did you mean 'speed'\?$"
    ):
        Sandbox(spede=30)
    with pytest.raises(TypeError, match=r"^Sandbox\(\) got an unexpected keyword argument 'colour'$"):
        Sandbox(colour="red")


async def test_the_same_seed_gives_the_same_ids(http):
    made = []
    for seed in (1, 1, 2):
        async with Sandbox(seed=seed) as sandbox:
            made.append(await Api(sandbox, http).create())
    assert made[0] == made[1] != made[2]


# --- time --------------------------------------------------------------------------------------------------


async def test_time_runs_by_itself_at_the_given_speed(http):
    async with Sandbox(speed=10_000, job_seconds=20.0) as sandbox:
        api = Api(sandbox, http)
        lipsync_id = await api.create()  # two milliseconds of the wall's clock
        async with asyncio.timeout(ENOUGH):
            while (await api.get(lipsync_id))["status"] != "completed":  # noqa: ASYNC110 - the server has no event
                await asyncio.sleep(0.001)


async def test_in_a_manual_sandbox_a_long_job_takes_no_time_and_is_exact(http):
    async with Sandbox(manual=True, job_seconds=1200.0) as sandbox:
        api = Api(sandbox, http)
        lipsync_id = await api.create()
        await sandbox.advance(1199.999)
        assert (await api.get(lipsync_id))["status"] == "running"
        await sandbox.advance(0.001)
        assert (await api.get(lipsync_id))["status"] == "completed"
        assert sandbox.jobs[0].ended_at - sandbox.jobs[0].created_at == 1200.0


async def test_time_cannot_be_moved_back(sandbox):
    with pytest.raises(ValueError, match="0 or more"):
        await sandbox.advance(-1)


async def test_only_a_manual_sandbox_can_be_advanced():
    async with Sandbox() as sandbox:
        with pytest.raises(RuntimeError, match="manual=True"):
            await sandbox.advance(1)


@pytest.mark.parametrize(
    ("job_seconds", "lengths"),
    [(7.0, [7, 7, 7]), ([1, 5], [1, 5, 1]), (lambda body: len(body["title"]), [1, 2, 3])],
    ids=["one for all", "in turn", "by the body"],
)
async def test_jobs_take_their_job_seconds(http, job_seconds, lengths):
    async with Sandbox(manual=True, job_seconds=job_seconds) as sandbox:
        for title in ("a", "bb", "ccc"):
            await Api(sandbox, http).create(title=title)
        await sandbox.advance(100)
        assert [job.ended_at - job.created_at for job in sandbox.jobs] == lengths


@pytest.mark.parametrize(
    ("wrong", "kind"), [("x", TypeError), (None, TypeError), (-5, ValueError), (math.nan, ValueError)]
)
async def test_a_function_that_returns_no_length_makes_no_job(http, caplog, wrong, kind):
    lengths = [wrong, 7.0]
    async with Sandbox(manual=True, job_seconds=lambda _: lengths.pop(0)) as sandbox:
        api = Api(sandbox, http)
        async with http.post(f"{sandbox.url}/v3/lipsyncs", json=BODY, headers={"X-Api-Key": sandbox.api_key}) as answer:
            assert answer.status == 500
        assert (sandbox.jobs, sandbox.charged) == ([], 0)
        await api.create()
        await sandbox.advance(7)
        assert [job.status for job in sandbox.jobs] == ["completed"]
    [error] = [record.exc_info[1] for record in caplog.records]
    assert type(error) is kind
    assert str(error).startswith("The result of job_seconds must be")


async def test_latency_is_of_a_route_and_keeps_its_key_in_flight(http):
    async with Sandbox(manual=True, latency={"GET *": 0.001, "POST /v3/lips*": 3600}) as sandbox:
        api = Api(sandbox, http)
        keyed = {"json": BODY, "headers": {"Idempotency-Key": "k"}}
        first = asyncio.create_task(api("POST", "/v3/lipsyncs", **keyed))
        await until(lambda: sandbox.requests and sandbox.requests[0].body)
        status, answer = await api("POST", "/v3/lipsyncs", **keyed)
        assert (status, answer["error"]["code"]) == (409, "request_in_progress")
        assert (await api("GET", "/v3/lipsyncs"))[0] == 200
        assert not first.done()
        first.cancel()


async def test_a_client_that_leaves_has_created_its_job_all_the_same(http):
    async with Sandbox(latency=0.001) as sandbox:
        leaving = asyncio.create_task(Api(sandbox, http).create())
        await until(lambda: sandbox.requests)
        leaving.cancel()
        await until(lambda: sandbox.jobs)


# --- how a job goes ----------------------------------------------------------------------------------------


async def test_a_source_url_scripts_its_job(sandbox, api):
    url = "https://sandbox.invalid/v.mp4?seconds=300&duration=12.5&fail=No+face+was+found"
    lipsync_id = await api.create(video={"type": "url", "url": url})
    await sandbox.advance(299)
    assert ((await api.get(lipsync_id))["status"], sandbox.charged) == ("running", pytest.approx(12.5 * 0.0333))
    await sandbox.advance(1)
    seen = await api.get(lipsync_id)
    assert (seen["status"], seen["failure_message"]) == ("failed", "No face was found")
    assert (seen["video_url"], seen["duration"], sandbox.charged) == (None, None, 0)


@pytest.mark.parametrize("code", ["download_failed", "content_policy_violation"])
async def test_a_source_url_can_have_its_create_refused(api, code):
    audio = {"type": "url", "url": f"https://sandbox.invalid/a.mp3?refuse={code}"}
    status, answer = await api("POST", "/v3/lipsyncs", json={**BODY, "audio": audio})
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, code, "audio.url")


@pytest.mark.parametrize(
    "query",
    [
        "secnds=3",
        "seconds=soon",
        "seconds=-1",
        "seconds=nan",
        "seconds=1_0",
        "duration=٣",
        "duration=1e308",
        "refuse=no",
    ],
)
async def test_a_script_with_an_error_is_refused(api, query):
    video = {"type": "url", "url": f"https://sandbox.invalid/v.mp4?{query}"}
    status, answer = await api("POST", "/v3/lipsyncs", json={**BODY, "video": video})
    assert (status, answer["error"]["param"]) == (400, "video.url")


@pytest.mark.parametrize("events", [[], ["no.such"], [1], [None], [["batch.finished"]], [{}], "batch.finished", {}])
async def test_events_that_are_no_list_of_types_are_refused(api, events):
    endpoint = {"url": "https://example.com/hook", "events": events}
    status, answer = await api("POST", "/v3/webhooks/endpoints", json=endpoint)
    assert (status, answer["error"]["param"]) == (400, "events")


async def test_a_job_can_be_failed_by_hand(sandbox, api):
    lipsync_id = await api.create()
    sandbox.fail(lipsync_id, "The power went out.")
    assert (await api.get(lipsync_id))["failure_message"] == "The power went out."
    with pytest.raises(ValueError, match="ended"):
        sandbox.fail(lipsync_id, "Again.")
    with pytest.raises(LookupError):
        sandbox.fail("ls_unknown", "Who?")


@pytest.mark.parametrize(("message", "kind"), [("No face \ud83d", ValueError), (None, TypeError), (b"No", TypeError)])
async def test_a_job_is_failed_with_a_text_that_can_be_sent(sandbox, api, message, kind):
    lipsync_id = await api.create()
    with pytest.raises(kind, match=r"^message must be text"):
        sandbox.fail(lipsync_id, message)
    assert (await api.get(lipsync_id))["status"] == "pending"
    sandbox.fail(lipsync_id, "")
    assert (await api.get(lipsync_id))["status"] == "failed"


async def test_an_account_may_have_no_bulk_calls(http):
    async with Sandbox(statuses_available=False, batches_available=False) as sandbox:
        api = Api(sandbox, http)
        assert (await api("GET", "/v3/lipsyncs/statuses?lipsync_ids=ls_1"))[0] == 404
        assert (await api("POST", "/v3/lipsyncs/batches", json={"lipsyncs": [BODY]}))[0] == 404


async def test_requests_are_recorded_as_they_came(sandbox, api):
    await api("POST", "/v3/lipsyncs", json=BODY, headers={"Idempotency-Key": "k"})
    await api("GET", "/v3/lipsyncs?limit=3")
    await api("GET", "/nowhere")
    create, listing, nowhere = sandbox.requests
    assert (create.route, create.json, create.headers["idempotency-key"]) == ("POST /v3/lipsyncs", BODY, "k")
    assert (listing.path, dict(listing.query), listing.json) == ("/v3/lipsyncs", {"limit": "3"}, None)
    assert (nowhere.route, nowhere.status) == ("", 404)


async def test_the_repr_of_a_request_shows_headers_and_body_and_not_the_key(sandbox, api):
    await api("POST", "/v3/lipsyncs", json={**BODY, "title": "t" * 500}, headers={"Idempotency-Key": "k"})
    await api("GET", "/v3/users/me", headers={"Authorization": "Bearer s3cret"})
    create, me = map(repr, sandbox.requests)
    assert ("'Idempotency-Key': 'k'" in create, "source.mp4" in create, len(create) < 1000) == (True, True, True)
    assert sandbox.api_key not in create + me
    assert "s3cret" not in me


async def test_the_repr_of_a_request_shows_no_signature_of_a_link(sandbox, api):
    lipsync_id = await api.create()
    await sandbox.advance(20)
    await api.fetch((await api.get(lipsync_id))["video_url"])
    signature = sandbox.requests[-1].query["X-Amz-Signature"]
    assert sandbox.requests[-1].path.startswith("/files/")
    assert signature not in repr(sandbox.requests[-1])


def test_the_options_of_a_sandbox_are_one_frozen_value_with_all_of_its_defaults():
    assert set(SandboxOptions.__annotations__) == set(attrs.fields_dict(Settings)) == {*CHECKS, "scopes", "faults"}
    assert Settings(faults=[faults.stall()]).faults == (faults.stall(),)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Settings().port = 1


async def test_the_keys_of_requests_can_be_forgotten(sandbox, api):
    keyed = {"json": BODY, "headers": {"Idempotency-Key": "k"}}
    first, replayed = [await api("POST", "/v3/lipsyncs", **keyed) for _ in range(2)]
    sandbox.forget_keys()
    again = await api("POST", "/v3/lipsyncs", **keyed)
    assert first == replayed != again
    assert len(sandbox.jobs) == 2


# --- the account -------------------------------------------------------------------------------------------


async def test_a_key_may_dub_and_not_read_the_account(http):
    async with Sandbox(scopes=["lipsync:write", "assets:write"]) as sandbox:
        api = Api(sandbox, http)
        lipsync_id = await api.create()
        assert (await api.get(lipsync_id))["id"] == lipsync_id  # write includes read
        assert (await api.upload(SAMPLE_VIDEO.read_bytes(), "a.mp4"))[0] == 200
        status, answer = await api("GET", "/v3/users/me")
        assert (status, answer["error"]["code"]) == (403, "forbidden")
        assert "account:read" in answer["error"]["message"]
        key = (await api("GET", "/v3/api_keys/self"))[1]["data"]
        assert (key["scopes"], key["scope_mode"]) == (["assets:write", "lipsync:write"], "restricted")


@pytest.mark.parametrize("scopes", [["lipsync:read"], ["assets:*", "webhooks:read"], []])
async def test_a_key_without_the_scope_cannot_create(http, scopes):
    async with Sandbox(scopes=scopes) as sandbox:
        status, answer = await Api(sandbox, http)("POST", "/v3/lipsyncs", json=BODY)
        assert (status, "lipsync:write" in answer["error"]["message"], sandbox.jobs) == (403, True, [])


async def test_a_key_can_expire(http):
    async with Sandbox(manual=True, key_seconds=3600) as sandbox:
        api = Api(sandbox, http)
        await sandbox.advance(600)
        assert (await api("GET", "/v3/api_keys/self"))[1]["data"]["expires_in_seconds"] == 3000
        await sandbox.advance(3000)
        assert (await api("GET", "/v3/api_keys/self"))[0] == 401


@pytest.mark.parametrize("currency", ["usd", "credits"])
@pytest.mark.parametrize("mode", ["speed", "precision"])
async def test_prices_are_in_the_currency_of_the_wallet(http, currency, mode):
    rate = {"usd": {"speed": 0.0333, "precision": 0.0667}, "credits": {"speed": 0.05, "precision": 0.1}}[currency][mode]
    async with Sandbox(currency=currency, balance=10) as sandbox:
        api = Api(sandbox, http)
        await api.create(mode=mode, video={"type": "url", "url": "https://sandbox.invalid/v.mp4?duration=100"})
        wallet = (await api("GET", "/v3/users/me"))[1]["data"]["wallet"]
        assert (wallet["currency"], wallet["remaining_balance"]) == (currency, pytest.approx(10 - 100 * rate))
        assert sandbox.charged == pytest.approx(100 * rate)


async def test_an_account_may_be_billed_otherwise(http):
    async with Sandbox(billing="subscription", currency="credits", balance=50) as sandbox:
        me = (await Api(sandbox, http)("GET", "/v3/users/me"))[1]["data"]
        assert (me["billing_type"], me["wallet"], me["usage_based"]) == ("subscription", None, None)
        assert me["subscription"]["credits"]["premium_credits"]["remaining"] == 50
    async with Sandbox(billing="usage_based", balance=50) as sandbox:
        api = Api(sandbox, http)
        await api.create()
        me = (await api("GET", "/v3/users/me"))[1]["data"]
        assert (me["billing_type"], me["wallet"], me["subscription"]) == ("usage_based", None, None)
        assert me["usage_based"] == {
            "spending_cap_usd": 50,
            "spending_current_usd": sandbox.charged,
            "remaining_credits": 50 - sandbox.charged,
            "included_credits": 50,
        }


async def test_places_are_shared_with_other_work_of_the_account(http):
    async with Sandbox(manual=True, account_limit=10, other_jobs=8) as sandbox:
        api = Api(sandbox, http)
        for _ in range(2):
            await api.create()
        assert (await api("POST", "/v3/lipsyncs", json=BODY))[0] == 429
        sandbox.other_jobs = 7
        await api.create()
        sandbox.account_limit = 3
        await sandbox.advance(20)
        assert (await api("POST", "/v3/lipsyncs", json=BODY))[0] == 429
        assert (sandbox.account_limit, sandbox.other_jobs) == (3, 7)


async def test_a_queued_batch_starts_when_other_work_ends(http):
    async with Sandbox(manual=True, account_limit=2, other_jobs=2) as sandbox:
        api = Api(sandbox, http)
        await api("POST", "/v3/lipsyncs/batches", json={"lipsyncs": [BODY]})
        await sandbox.advance(100)
        assert [job.status for job in sandbox.jobs] == ["pending"]
        sandbox.other_jobs = 1
        await sandbox.advance(20)
        assert [job.status for job in sandbox.jobs] == ["completed"]


async def test_keys_can_be_forgotten(sandbox, api):
    keyed = {"json": BODY, "headers": {"Idempotency-Key": "k"}}
    first = await api("POST", "/v3/lipsyncs", **keyed)
    assert await api("POST", "/v3/lipsyncs", **keyed) == first
    sandbox.forget_keys()
    assert await api("POST", "/v3/lipsyncs", **keyed) != first


async def test_keys_can_be_forgotten_while_a_request_is_in_flight(sandbox, api):
    forgotten = asyncio.Event()

    async def body():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        await forgotten.wait()
        yield SAMPLE_VIDEO.read_bytes() + b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b", "Idempotency-Key": "k"}
    first = asyncio.create_task(api("POST", "/v3/assets", data=body(), headers=headers))
    await until(lambda: sandbox.requests)
    assert (await api("POST", "/v3/assets", headers=headers))[0] == 409
    sandbox.forget_keys()
    assert (await api("POST", "/v3/assets", headers=headers))[0] == 400
    forgotten.set()
    assert (await first)[0] == 200


async def test_answers_may_have_no_request_id(http):
    async with Sandbox(manual=True, request_ids=False) as sandbox:
        api = Api(sandbox, http)
        seen = await done(sandbox, api)
        for url in (seen["video_url"], seen["caption_url"], f"{sandbox.url}/v3/lipsyncs", f"{sandbox.url}/nowhere"):
            assert "X-Request-Id" not in (await api.fetch(url))[2]


async def test_on_finished_is_called_with_each_job_that_ends(sandbox, api):
    ended = []
    sandbox.on_finished = ended.append
    made = [await api.create(), await api.create(video=FAILING)]
    await sandbox.advance(19)
    assert ended == []
    await sandbox.advance(1)
    assert ended == made
    made.append(await api.create())
    sandbox.fail(made[-1], "by hand")
    assert ended == made


# --- files in ----------------------------------------------------------------------------------------------


async def test_the_output_is_the_video_that_was_uploaded_and_its_length_is_read_from_it(sandbox, api):
    _, answer = await api.upload(SAMPLE_VIDEO.read_bytes(), "mine.mp4")
    lipsync_id = await api.create(video={"type": "asset_id", "asset_id": answer["data"]["asset_id"]})
    await sandbox.advance(20)
    seen = await api.get(lipsync_id)
    assert seen["duration"] == pytest.approx(4.0)  # the sample was made 4 s long
    assert (await api.fetch(seen["video_url"]))[1] == SAMPLE_VIDEO.read_bytes()
    await api("DELETE", f"/v3/assets/{answer['data']['asset_id']}")
    assert (await api.fetch(seen["video_url"]))[0] == 200


async def test_a_large_upload_arrives_whole(sandbox, api):
    content = SAMPLE_VIDEO.read_bytes() + os.urandom(3 << 20)
    _, answer = await api.upload(content, "large.mp4")
    assert answer["data"]["size_bytes"] == len(content)
    assert (await api.fetch(answer["data"]["url"]))[1] == content


@pytest.mark.parametrize("chunked", [False, True], ids=["by its length", "by its bytes"])
async def test_an_upload_past_the_limit_is_refused(http, chunked):
    async with Sandbox(max_multipart_bytes=100_000) as sandbox:
        form = aiohttp.FormData()
        form.add_field("file", SAMPLE_VIDEO.read_bytes() + bytes(200_000), filename="a.mp4")
        status, answer = await Api(sandbox, http)("POST", "/v3/assets", data=form, chunked=chunked or None)
        assert (status, answer["error"]["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("content", "filename", "says"),
    [
        (b"", "empty.mp4", "empty"),
        (b"just words", "words.mp4", "no supported type"),
        (SAMPLE_VIDEO.read_bytes(), "lies.mp3", "extension"),
        (b"GIF89a" + bytes(100), "moving.gif", "no supported type"),
    ],
)
async def test_an_unsupported_file_is_refused(api, content, filename, says):
    status, answer = await api.upload(content, filename)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "invalid_parameter", "file")
    assert says in answer["error"]["message"]


async def test_a_form_with_anything_but_one_file_is_refused(sandbox, api):
    form = aiohttp.FormData()
    form.add_field("video", b"x", filename="a.mp4")
    assert (await api("POST", "/v3/assets", data=form))[0] == 400
    form = aiohttp.FormData()
    form.add_field("file", SAMPLE_VIDEO.read_bytes(), filename="a.mp4")
    form.add_field("title", "x")
    assert (await api("POST", "/v3/assets", data=form))[0] == 400
    assert (await api("POST", "/v3/assets", json={}))[0] == 400


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"abc"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"garbage"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nbroken off',
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--\r\n",
        ),
        *(
            (
                "multipart/form-data; boundary=b",
                b'--b\r\nContent-Disposition: form-data; name="file"; ' + rest + b"\r\n\r\nx\r\n--b--\r\n",
            )
            for rest in (b'filename="a\x1bb.mp3"', b'filename="a\0.mp3"', b'filename="a.mp3"\r\nno header')
        ),
    ],
)
async def test_a_form_that_is_broken_is_refused(api, content_type, body):
    status, answer = await api("POST", "/v3/assets", data=body, headers={"Content-Type": content_type})
    assert (status, answer["error"]["code"]) == (400, "invalid_parameter")


async def test_a_body_that_does_not_unpack_is_refused(api):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    status, answer = await api("POST", "/v3/lipsyncs", data=b"not gzip", headers=headers)
    assert (status, "cannot be read" in answer["error"]["message"]) == (400, True)


async def test_a_key_of_odd_bytes_is_wrong_and_no_more(sandbox):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    async with asyncio.timeout(ENOUGH):
        writer.write(b"GET /v3/users/me HTTP/1.1\r\nHost: sandbox\r\nX-Api-Key: \xe9\xff\r\n\r\n")
        assert b" 401 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_captions_files_are_recognized_by_their_arrow(api):
    _, answer = await api.upload(srt(5, "Bonjour").encode(), "captions.srt")
    assert answer["data"]["mime_type"] == "application/x-subrip"


async def announced(api, content=SAMPLE_AUDIO.read_bytes(), **changes):
    body = {"filename": "a.mp3", "content_type": "audio/mpeg", "size_bytes": len(content), **changes}
    status, answer = await api("POST", "/v3/assets/direct-uploads", json=body)
    assert status == 200, answer
    return answer["data"]


async def put(api, upload, content=SAMPLE_AUDIO.read_bytes(), **changes):
    headers = {**upload["upload_headers"], **changes}
    async with api.http.put(upload["upload_url"], data=content, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_a_direct_upload_is_announced_put_and_completed(api):
    digest = hashlib.sha256(SAMPLE_AUDIO.read_bytes()).hexdigest()
    upload = await announced(api, checksum_sha256=digest)
    asset_id = upload["asset_id"]
    assert (upload["status"], upload["max_bytes"], upload["expires_in_seconds"]) == ("pending_upload", 1 << 30, 604800)
    using = {**BODY, "audio": {"type": "asset_id", "asset_id": asset_id}}
    status, answer = await api("POST", "/v3/lipsyncs", json=using)
    assert (status, answer["error"]["code"]) == (400, "asset_not_available")
    assert (await api("POST", f"/v3/assets/{asset_id}/complete"))[0] == 409
    assert (await put(api, upload))[0] == 200
    first = await api("POST", f"/v3/assets/{asset_id}/complete", json={"checksum_sha256": digest})
    assert (first[0], first[1]["data"]["mime_type"], first[1]["data"]["status"]) == (200, "audio/mpeg", "completed")
    assert await api("POST", f"/v3/assets/{asset_id}/complete") == first
    assert (await api("POST", "/v3/lipsyncs", json=using))[0] == 200


async def test_a_put_must_carry_the_headers_that_were_signed(api):
    upload = await announced(api)
    assert (await put(api, upload, **{"Content-Type": "video/mp4"}))[0] == 403
    assert (await put(api, upload, **{"X-Api-Key": "sandbox-key"}))[0] == 400
    assert (await put(api, {**upload, "upload_url": upload["upload_url"][:-1] + "?"}))[0] == 403


async def test_a_put_must_bring_the_bytes_that_were_announced(api):
    upload = await announced(api)
    assert (await put(api, upload, SAMPLE_AUDIO.read_bytes()[:-1]))[0] == 400
    wrong = await announced(api, checksum_sha256="0" * 64)
    status, text = await put(api, wrong)
    assert (status, "BadDigest" in text) == (400, True)


async def test_a_put_must_say_its_length(api):
    async def drip():
        yield SAMPLE_AUDIO.read_bytes()

    status, text = await put(api, await announced(api), drip())
    assert (status, "MissingContentLength" in text) == (411, True)


async def test_a_put_to_an_asset_that_is_done_or_gone_is_refused(api):
    upload = await announced(api)
    assert (await put(api, upload))[0] == 200
    await api("POST", f"/v3/assets/{upload['asset_id']}/complete")
    assert (await put(api, upload))[0] == 409
    await api("DELETE", f"/v3/assets/{upload['asset_id']}")
    assert (await put(api, upload))[0] == 404


async def test_a_put_that_breaks_off_leaves_the_upload_to_be_done_again(sandbox, api):
    upload = await announced(api)
    where = upload["upload_url"].removeprefix(sandbox.url)
    _, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    head = {**upload["upload_headers"], "Host": "sandbox", "Content-Length": str(SAMPLE_AUDIO.stat().st_size)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"PUT {where} HTTP/1.1\r\n{lines}\r\n".encode() + b"half")
    await writer.drain()
    await until(lambda: sandbox.requests[-1].method == "PUT")
    writer.close()
    assert (await api("POST", f"/v3/assets/{upload['asset_id']}/complete"))[0] == 409
    assert (await put(api, upload))[0] == 200
    assert (await api("POST", f"/v3/assets/{upload['asset_id']}/complete"))[0] == 200


async def test_a_put_that_is_refused_leaves_what_was_put_before(http, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = SAMPLE_AUDIO.read_bytes()
    async with Sandbox(manual=True) as sandbox:
        api = Api(sandbox, http)
        upload = await announced(api, content, checksum_sha256=hashlib.sha256(content).hexdigest())
        assert (await put(api, upload, content))[0] == 200
        assert (await put(api, upload, bytes(len(content))))[0] == 400
        _, answer = await api("POST", f"/v3/assets/{upload['asset_id']}/complete")
        assert (await api.fetch(answer["data"]["url"]))[:2] == (200, content)
        [folder] = tmp_path.iterdir()
        assert [file.name for file in folder.iterdir()] == [upload["asset_id"]]


async def test_a_checksum_given_at_the_end_is_checked_too(api):
    upload = await announced(api)
    await put(api, upload)
    path = f"/v3/assets/{upload['asset_id']}/complete"
    status, answer = await api("POST", path, json={"checksum_sha256": "0" * 64})
    assert (status, answer["error"]["param"]) == (400, "checksum_sha256")


async def test_a_completed_upload_must_be_of_its_announced_type(api):
    content = SAMPLE_AUDIO.read_bytes()
    upload = await announced(api, content, filename="a.mp4", content_type="video/mp4")
    assert (await put(api, upload, content))[0] == 200
    status, answer = await api("POST", f"/v3/assets/{upload['asset_id']}/complete")
    assert (status, answer["error"]["param"]) == (400, "content_type")


async def test_an_asset_is_processed_for_a_while_before_it_can_be_used(http):
    async with Sandbox(manual=True, ingest_seconds=30) as sandbox:
        api = Api(sandbox, http)
        upload = await announced(api)
        asset_id = upload["asset_id"]
        await put(api, upload)
        complete = (await api("POST", f"/v3/assets/{asset_id}/complete"))[1]["data"]
        assert (complete["status"], complete["url"]) == ("processing", None)

        async def outcome():
            audio = {"type": "asset_id", "asset_id": asset_id}
            rows = (await api("GET", f"/v3/assets/statuses?asset_ids={asset_id}"))[1]["data"]
            status, answer = await api("POST", "/v3/lipsyncs", json={**BODY, "audio": audio})
            return rows[0]["status"], status, answer.get("error", {}).get("code")

        assert await outcome() == ("processing", 400, "asset_not_available")
        await sandbox.advance(29)
        assert (await api("POST", f"/v3/assets/{asset_id}/complete"))[1]["data"]["status"] == "processing"
        await sandbox.advance(1)
        assert await outcome() == ("completed", 200, None)


# --- files out ---------------------------------------------------------------------------------------------


async def done(sandbox, api, **changes):
    lipsync_id = await api.create(**changes)
    await sandbox.advance(20)
    return await api.get(lipsync_id)


async def test_a_key_that_is_shown_to_the_file_host_is_refused_and_seen(sandbox, api):
    link = (await done(sandbox, api))["video_url"]
    for leak in ({"X-Api-Key": "k"}, {"Authorization": "Bearer k"}):
        assert (await api.fetch(link, **leak))[0] == 400
        assert sandbox.requests[-1].status == 400
        assert sandbox.requests[-1].headers.keys() >= leak.keys()


async def test_a_link_expires_and_a_new_one_works(http):
    async with Sandbox(manual=True, link_seconds=60) as sandbox:
        api = Api(sandbox, http)
        seen = await done(sandbox, api)
        await sandbox.advance(59)
        assert (await api.fetch(seen["video_url"]))[0] == 200
        await sandbox.advance(1)
        status, body, headers = await api.fetch(seen["video_url"])
        assert (status, headers["Content-Type"]) == (403, "application/xml; charset=utf-8")
        assert b"Request has expired" in body
        assert (await api.fetch((await api.get(seen["id"]))["video_url"]))[0] == 200


async def test_a_link_works_for_its_own_file_and_method_only(sandbox, api):
    link = (await done(sandbox, api))["video_url"]
    other = (await done(sandbox, api))["id"]
    moved = re.sub(r"/files/[^?]*", f"/files/{other}.mp4", link)
    assert (await api.fetch(moved))[0] == 403
    assert (await api.fetch(link.replace("X-Amz-Expires=604800", "X-Amz-Expires=604801")))[0] == 403
    assert (await api.fetch(link.partition("?")[0]))[0] == 403


async def test_the_link_of_a_deleted_lipsync_leads_nowhere(sandbox, api):
    seen = await done(sandbox, api)
    await api("DELETE", f"/v3/lipsyncs/{seen['id']}")
    assert (await api.fetch(seen["video_url"]))[0] == 404


async def test_a_download_can_be_resumed_if_the_file_is_the_same(sandbox, api):
    link = (await done(sandbox, api))["video_url"]
    _, whole, headers = await api.fetch(link)
    assert headers["Content-Type"] == "video/mp4"
    status, rest, _ = await api.fetch(link, Range="bytes=1000-", **{"If-Range": headers["ETag"]})
    assert (status, rest) == (206, whole[1000:])
    status, again, _ = await api.fetch(link, Range="bytes=1000-", **{"If-Range": '"another"'})
    assert (status, again) == (200, whole)
    status, _, _ = await api.fetch(link, Range=f"bytes={len(whole)}-")
    assert status == 416


@pytest.mark.parametrize("options", [{}, {"enable_caption": True}, {"enable_caption": False}])
async def test_every_completed_job_has_captions(sandbox, api, options):
    link = (await done(sandbox, api, title="Bonjour", **options))["caption_url"]
    _, body, headers = await api.fetch(link)
    assert headers["Content-Type"] == "application/x-subrip"
    # The sample is 4 s long: a cue of three seconds, and one for the rest.
    assert body.decode() == (
        "1\n00:00:00,000 --> 00:00:03,000\nBonjour (1)\n\n2\n00:00:03,000 --> 00:00:04,000\nBonjour (2)\n"
    )


async def test_captions_are_whole_for_each_of_many_who_get_them_at_once(sandbox, api):
    video = {"type": "url", "url": "https://sandbox.invalid/v.mp4?duration=2000"}
    link = (await done(sandbox, api, video=video))["caption_url"]
    answers = await asyncio.gather(*(api.fetch(link) for _ in range(100)))
    assert {(status, len(body)) for status, body, _ in answers} == {(200, len(srt(2000, "Captions")))}


async def test_captions_may_be_empty(http):
    async with Sandbox(manual=True, captions="empty") as sandbox:
        api = Api(sandbox, http)
        assert (await api.fetch((await done(sandbox, api))["caption_url"]))[:2] == (200, b"")


async def test_captions_may_be_gone_while_the_video_is_there(http):
    async with Sandbox(manual=True, captions="gone") as sandbox:
        api = Api(sandbox, http)
        seen = await done(sandbox, api)
        assert (await api.fetch(seen["caption_url"]))[0] == 404
        assert (await api.fetch(seen["video_url"]))[0] == 200


async def test_captions_may_be_late(http):
    async with Sandbox(manual=True, caption_seconds=30) as sandbox:
        api = Api(sandbox, http)
        link = (await done(sandbox, api))["caption_url"]
        assert (await api.fetch(link))[0] == 404
        await sandbox.advance(30)
        assert (await api.fetch(link))[0] == 200


async def test_a_failed_job_has_no_captions(sandbox, api):
    seen = await done(sandbox, api, video={"type": "url", "url": "https://sandbox.invalid/v.mp4?fail=No"})
    assert (seen["status"], seen["caption_url"]) == ("failed", None)


def a_file(size):
    return StoredFile(Path("a.mp4"), size, "video/mp4", '"e"')


@given(st.integers(1, 200), st.integers(0, 250), st.integers(0, 250), st.sampled_from(["{}-{}", "{}-", "-{}"]))
def test_a_range_is_exactly_the_bytes_that_it_names(total, first, last, form):
    content = bytes(range(total))
    wanted = form.format(first, last)
    try:
        found = requested_slice({"Range": f"bytes={wanted}"}, a_file(total))
    except StorageError as error:
        assert error.status == 416
        assert first >= total or (form == "{}-{}" and last < first) or (form == "-{}" and first == 0)
        return
    expected = {"{}-{}": content[first : last + 1], "{}-": content[first:], "-{}": content[-first:]}[form]
    assert content[found.start : found.start + found.length] == expected
    assert found.length > 0


@pytest.mark.parametrize(
    "odd", ["", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=" + "9" * 5000 + "-"], ids=len
)
def test_a_range_that_is_odd_is_ignored(odd):
    assert requested_slice({"Range": odd}, a_file(10)).is_whole


@given(st.floats(1, 604800), st.integers(0, 2_000_000_000), st.floats(0, 1, exclude_max=True))
def test_a_link_never_ends_early_and_at_most_two_seconds_late(seconds, whole, fraction):
    links = SignedLinks("http://h", b"key", seconds)
    made_at = whole + fraction
    query = dict(pair.split("=") for pair in links.sign("GET", "/f", made_at).partition("?")[2].split("&"))
    links.check("GET", "/f", query, made_at + seconds * 0.999_999)
    with pytest.raises(StorageError):
        links.check("GET", "/f", query, made_at + seconds + 2)


# --- where it listens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "127.0.0.1", *(pytest.param(host, marks=on_ipv6) for host in ("::", "::1"))]
)
async def test_its_url_leads_to_it_wherever_it_listens(host, http):
    async with Sandbox(host=host) as sandbox:
        assert (await Api(sandbox, http)("GET", "/v3/users/me"))[0] == 200
        assert re.fullmatch(r"http://\[::1\]:\d+" if ":" in host else r"http://127\.0\.0\.1:\d+", sandbox.url)
        assert f"export HEYGEN_BASE_URL={sandbox.url} " in printed_greeting(sandbox)


async def links_on(sandbox, http, host):
    """Return every kind of link, as the answers to requests with this `Host` have them."""
    api, named = Api(sandbox, http), {"headers": {"Host": host}}
    created = await api("POST", "/v3/lipsyncs", json=BODY, **named)
    await sandbox.advance(20)
    job = (await api("GET", f"/v3/lipsyncs/{created[1]['data']['lipsync_id']}", **named))[1]["data"]
    listed = (await api("GET", "/v3/lipsyncs", **named))[1]["data"][0]
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(SAMPLE_AUDIO.read_bytes()), filename="a.mp3")
    asset = (await api("POST", "/v3/assets", data=form, **named))[1]["data"]
    wanted = {"filename": "a.mp3", "content_type": "audio/mpeg", "size_bytes": 5}
    upload = (await api("POST", "/v3/assets/direct-uploads", json=wanted, **named))[1]["data"]
    kept = (await api("GET", f"/v3/assets/{asset['asset_id']}", **named))[1]["data"]
    return [job["video_url"], job["caption_url"], listed["video_url"], asset["url"], upload["upload_url"], kept["url"]]


def origins(links):
    return {link.partition("/files/")[0].partition("/captions/")[0].partition("/uploads/")[0] for link in links}


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "sandbox:8080", "localhost", "[::1]:80", "my_box.example"])
async def test_on_every_address_links_have_the_host_by_which_their_request_came(host, http):
    async with Sandbox(host="0.0.0.0", manual=True) as sandbox:
        assert origins(await links_on(sandbox, http, host)) == {f"http://{host}"}


async def test_links_that_have_another_host_work(http):
    async with Sandbox(host="0.0.0.0", manual=True) as sandbox:
        host = sandbox.url.removeprefix("http://").replace("127.0.0.1", "127.0.0.2")
        link, *_ = await links_on(sandbox, http, host)

        assert (await Api(sandbox, http).fetch(link))[:2] == (200, SAMPLE_VIDEO.read_bytes())


async def test_on_one_address_links_have_that_one_whatever_the_host(sandbox, http):
    assert origins(await links_on(sandbox, http, "rebound.example")) == {sandbox.url}


@pytest.mark.parametrize(
    "host", ["", "a/b", "a b", "user@a", "a:b", "a?x", "[::1", "[x]:1", "[:::]", "a:80:80", "a\\b"]
)
def test_a_host_that_is_none_makes_no_link(host):
    assert Address("0.0.0.0", 8080).origin(host) == "http://127.0.0.1:8080"


# --- webhooks ----------------------------------------------------------------------------------------------


class Receiver:
    """Somebody who listens on this machine; answers with the statuses in `answers`, then with 200."""

    def __init__(self):
        self.got = []
        self.answers = []
        self.answers_after = None
        self.url = ""

    async def handle(self, request):
        self.got.append((request.method, dict(request.headers), await request.read()))
        if self.answers_after is not None:
            await self.answers_after.wait()
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    @property
    def events(self):
        return [orjson.loads(body) for method, _, body in self.got if method == "POST"]


@pytest.fixture
async def receiver():
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/hook", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    receiver.url = f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def eventful(http):
    """The API of a sandbox that has events of single lipsyncs."""
    async with Sandbox(manual=True, lipsync_events=True) as sandbox:
        yield Api(sandbox, http)


async def registered(api, receiver, **more):
    status, answer = await api("POST", "/v3/webhooks/endpoints", json={"url": receiver.url, **more})
    assert status == 200, answer
    return answer["data"]


async def test_a_new_endpoint_is_probed(sandbox, api, receiver):
    await registered(api, receiver)
    receiver.answers = [404]  # what the probe finds changes nothing
    await sandbox.advance(60)
    assert [method for method, _, _ in receiver.got] == ["OPTIONS"]


async def test_an_endpoint_gets_no_event_of_a_single_lipsync(sandbox, api, receiver):
    await registered(api, receiver)
    await api.create()
    await sandbox.advance(60)
    assert receiver.events == []
    assert (await api("GET", "/v3/webhooks/events"))[1]["data"] == []


async def test_an_endpoint_gets_the_end_of_a_batch(sandbox, api, receiver):
    endpoint = await registered(api, receiver)
    _, answer = await api("POST", "/v3/lipsyncs/batches", json={"lipsyncs": [BODY]})
    await sandbox.advance(20)
    (event,) = receiver.events
    assert (event["event_type"], event["event_data"]["batch_id"]) == ("batch.finished", answer["data"]["batch_id"])
    assert receiver.got[-1][1]["Heygen-Event-Id"] == event["event_id"]
    assert is_signed(receiver.got[-1], endpoint["secret"])


def is_signed(delivery, secret, header="Heygen-Signature"):
    _, headers, body = delivery
    return headers.get(header) == hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def test_guessed_events_of_lipsyncs_are_delivered_if_the_sandbox_has_them(eventful, receiver):
    types = (await eventful("GET", "/v3/webhooks/event-types"))[1]["data"]
    assert {row["event_type"] for row in types} >= {"lipsync.success", "lipsync.fail"}
    endpoint = await registered(eventful, receiver)
    lipsync_id = await eventful.create(callback_id="row-7")
    await eventful.sandbox.advance(20)
    _, headers, body = receiver.got[-1]
    assert is_signed(receiver.got[-1], endpoint["secret"])
    assert headers["Heygen-Timestamp"].isdigit()
    event = orjson.loads(body)
    assert headers["Heygen-Event-Id"] == event["event_id"]
    assert event["event_type"] == "lipsync.success"
    assert event["event_data"]["lipsync_id"] == lipsync_id
    assert event["event_data"]["callback_id"] == "row-7"
    assert (await eventful.fetch(event["event_data"]["url"]))[0] == 200


async def test_a_rotated_secret_signs_what_comes_after(eventful, receiver):
    endpoint = await registered(eventful, receiver)
    path = f"/v3/webhooks/endpoints/{endpoint['endpoint_id']}/rotate-secret"
    secret = (await eventful("POST", path))[1]["data"]["secret"]
    assert secret != endpoint["secret"]
    await eventful.create()
    await eventful.sandbox.advance(20)
    assert is_signed(receiver.got[-1], secret)


FAILING = {"type": "url", "url": "https://sandbox.invalid/v.mp4?fail=No+face"}


async def test_a_callback_is_an_unsigned_event_by_default(sandbox, api, receiver):
    lipsync_id = await api.create(video=FAILING, callback_url=receiver.url, callback_id="row-7")
    await sandbox.advance(20)
    (_, headers, _), event = receiver.got[0], receiver.events[0]
    assert "Heygen-Signature" not in headers
    assert event == {
        "event_type": "lipsync.fail",
        "event_data": {"lipsync_id": lipsync_id, "callback_id": "row-7", "msg": "No face"},
    }


@pytest.mark.parametrize("secret", [None, "whsec_mine"], ids=["unsigned", "signed"])
async def test_a_callback_may_be_a_flat_object(http, receiver, secret):
    async with Sandbox(manual=True, callback_shape="flat", callback_secret=secret) as sandbox:
        api = Api(sandbox, http)
        done = await api.create(callback_url=receiver.url)
        failed = await api.create(video=FAILING, callback_url=receiver.url, callback_id="row-7")
        await sandbox.advance(20)
    first, second = sorted(receiver.events, key=lambda event: event["status"])
    assert first.pop("video_url").startswith(f"{sandbox.url}/files/{done}.mp4?")
    assert first == {"lipsync_id": done, "status": "completed", "callback_id": None}
    assert second == {
        "lipsync_id": failed,
        "status": "failed",
        "callback_id": "row-7",
        "failure_message": "No face",
    }
    for delivery in receiver.got:
        assert is_signed(delivery, secret) if secret else not [name for name in delivery[1] if "heygen" in name.lower()]


@pytest.mark.parametrize("header", ["X-Heygen-Signature", "Signature"])
async def test_the_header_of_the_signature_can_be_called_otherwise(http, receiver, header):
    async with Sandbox(manual=True, signature_header=header, callback_secret="whsec_mine") as sandbox:
        api = Api(sandbox, http)
        await api.create(callback_url=receiver.url)
        endpoint = await registered(api, receiver)
        await api("POST", "/v3/lipsyncs/batches", json={"lipsyncs": [BODY]})
        await sandbox.advance(20)
    callback, event = sorted(
        (one for one in receiver.got if one[0] == "POST"), key=lambda delivery: b"batch.finished" in delivery[2]
    )
    assert is_signed(callback, "whsec_mine", header)
    assert is_signed(event, endpoint["secret"], header)
    assert "Heygen-Signature" not in callback[1]


async def test_a_delivery_that_is_not_taken_comes_again_later_and_later_under_the_same_id(sandbox, api, receiver):
    receiver.answers = [500, 302, 503]
    await api.create(callback_url=receiver.url)
    await sandbox.advance(20)
    attempts = []
    for seconds in (9, 1, 29, 1, 89, 1):  # 10, 30 and 90 seconds after one another
        await sandbox.advance(seconds)
        attempts.append(len(receiver.got))
    assert attempts == [1, 2, 2, 3, 3, 4]
    assert len({headers["Heygen-Event-Id"] for _, headers, _ in receiver.got}) == 1
    assert [delivery.status for delivery in sandbox.deliveries] == [500, 302, 503, 200]
    await sandbox.advance(86_400)
    assert len(receiver.got) == 4


async def test_a_delivery_is_given_up_after_a_day(sandbox, api, receiver):
    receiver.answers = [500] * 100
    await api.create(callback_url=receiver.url)
    await sandbox.advance(20 + 10 * 86_400)
    at = [delivery.at for delivery in sandbox.deliveries]
    # 10 s, then three times as long each time; the next, 65,610 s after the last, would be past a day.
    assert [round(later - earlier) for earlier, later in itertools.pairwise(at)] == [
        10, 30, 90, 270, 810, 2430, 7290, 21870,
    ]  # fmt: skip


async def test_a_delivery_whose_advance_is_cancelled_comes_again(sandbox, api, receiver):
    receiver.answers_after = asyncio.Event()
    await api.create(callback_url=receiver.url)
    advancing = asyncio.create_task(sandbox.advance(60))
    await until(lambda: receiver.got)
    advancing.cancel()
    await asyncio.wait([advancing])
    assert (sandbox.now, [one.status for one in sandbox.deliveries]) == (20, [None])
    receiver.answers_after.set()
    await sandbox.advance(10)
    assert [one.status for one in sandbox.deliveries] == [None, 200]
    assert receiver.got[0][2] == receiver.got[1][2]


async def test_a_delivery_has_its_time_though_many_slow_ones_come_before_it(http, receiver, monkeypatch):
    loop, passed = asyncio.get_running_loop(), 0
    real_time = loop.time
    monkeypatch.setattr(loop, "time", lambda: real_time() + passed)
    async with Sandbox(manual=True, account_limit=None) as sandbox:
        api = Api(sandbox, http)
        lipsyncs = [{**BODY, "callback_url": receiver.url}] * 100
        await api("POST", "/v3/lipsyncs/batches", json={"lipsyncs": lipsyncs})
        await api.create(callback_url=receiver.url)
        receiver.answers_after = first = asyncio.Event()
        advancing = asyncio.create_task(sandbox.advance(20))
        await until(lambda: len(receiver.got) == 100)  # as many as there are connections at once
        passed += 8
        receiver.answers_after = last = asyncio.Event()
        first.set()
        await until(lambda: len(receiver.got) == 101)
        passed += 8
        last.set()
        await advancing
        assert [delivery.status for delivery in sandbox.deliveries] == [200] * 101


async def test_a_receiver_with_many_slow_deliveries_does_not_hold_up_another(http, receiver):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # more connections than one receiver gets wait in its queue
        slow = [{**BODY, "callback_url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}] * 101
        async with Sandbox(manual=True, account_limit=None) as sandbox:
            api = Api(sandbox, http)
            for lipsync in slow:
                await api.create(**lipsync)
            await api.create(callback_url=receiver.url)
            advancing = asyncio.create_task(sandbox.advance(20))
            await until(lambda: receiver.got)
            advancing.cancel()
            await asyncio.wait([advancing])


@pytest.mark.parametrize("user", ["a%3Ab:pw", "あ:pw"], ids=["a colon", "another script"])
async def test_a_callback_that_cannot_be_sent_fails_alone(http, receiver, user):
    async with Sandbox(speed=10_000) as sandbox:
        api, odd = Api(sandbox, http), receiver.url.replace("//", f"//{user}@")
        await api.create(callback_url=odd)
        await until(lambda: sandbox.deliveries)
        await api.create(callback_url=receiver.url)
        await until(lambda: receiver.got)
        assert (sandbox.deliveries[0].url, sandbox.deliveries[0].status) == (odd, None)


async def test_the_end_of_a_batch_is_delivered_once(sandbox, api, receiver):
    body = {"lipsyncs": [BODY, BODY], "callback_url": receiver.url}
    _, answer = await api("POST", "/v3/lipsyncs/batches", json=body)
    await sandbox.advance(20)
    (event,) = receiver.events
    assert event["event_type"] == "batch.finished"
    assert event["event_data"] == {
        "batch_id": answer["data"]["batch_id"],
        "status": "completed",
        "counts_by_status": {"completed": 2},
    }


async def test_an_endpoint_gets_the_events_that_it_names_until_it_is_deleted(eventful, receiver):
    endpoint = await registered(eventful, receiver, events=["lipsync.fail"])
    await eventful.create()
    await eventful.sandbox.advance(20)
    assert receiver.events == []
    path = f"/v3/webhooks/endpoints/{endpoint['endpoint_id']}"
    await eventful("PATCH", path, json={"events": ["lipsync.success"]})
    await eventful.create()
    await eventful.sandbox.advance(20)
    assert len(receiver.events) == 1
    await eventful("DELETE", path)
    await eventful.create()
    await eventful.sandbox.advance(20)
    assert len(receiver.events) == 1


async def test_an_endpoint_of_one_entity_gets_its_events_only(eventful, receiver):
    _, wanted = await eventful.create(), await eventful.create()
    await registered(eventful, receiver, entity_id=wanted)
    await eventful.sandbox.advance(20)
    assert [event["event_data"]["lipsync_id"] for event in receiver.events] == [wanted]


async def test_nothing_is_ever_sent_to_another_machine(sandbox, api):
    await api.create(callback_url="https://example.com/hook")
    await sandbox.advance(20)
    assert [(one.url, one.status) for one in sandbox.deliveries] == [("https://example.com/hook", None)]


async def test_a_running_sandbox_delivers_by_itself(http, receiver):
    async with Sandbox(speed=10_000) as sandbox:
        api = Api(sandbox, http)
        receiver.answers = [500]
        await api.create(callback_url=receiver.url)
        await until(lambda: len(receiver.events) == 2)  # the second one is the repetition, 1 ms later
        endless = {"type": "url", "url": "https://sandbox.invalid/v.mp4?seconds=1e12"}
        sandbox.fail(await api.create(callback_url=receiver.url, video=endless), "by hand")
        await until(lambda: len(receiver.events) == 3)


async def test_a_receiver_that_never_answers_does_not_keep_the_sandbox_from_ending(http):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(ENOUGH), Sandbox(speed=10_000) as sandbox:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            await Api(sandbox, http).create(callback_url=url)
            silent.setblocking(False)
            connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        connection.close()


# --- python -m ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sigint(handler):
    """Have processes that start in the block inherit that SIGINT is ignored, or that it is not."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def command():
    started = []

    def start(*arguments, handler=signal.default_int_handler):
        with sigint(handler):
            process = subprocess.Popen(
                [sys.executable, "-m", "heygen_async.sandbox", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=ENOUGH)


def greeting(process):
    lines = []
    while "Ctrl-C" not in (lines[-1] if lines else ""):
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    return "".join(lines)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.skipif(os.name != "posix", reason="the line is for a POSIX shell")
def test_the_command_prints_a_curl_line_that_works_and_ends_on_sigterm(command):
    process = command("--port", "0", "--speed", "60")
    printed = greeting(process)
    line = printed[printed.index("curl -X POST") : printed.index("\n\nCtrl-C")]
    answer = subprocess.run(["sh", "-c", f"{line} -s"], capture_output=True, timeout=ENOUGH, check=True)
    assert orjson.loads(answer.stdout)["data"]["lipsync_id"].startswith("ls_")
    process.terminate()
    assert process.wait(timeout=ENOUGH) == 0, process.stderr.read()


@pytest.mark.skipif(os.name != "posix", reason="the lines are for a POSIX shell")
@pytest.mark.parametrize("key", ["two words", "it's $HOME", 'a"b'])
def test_the_lines_that_the_command_prints_hold_its_key_whatever_it_is(command, key):
    printed = greeting(command("--port", "0", "--api-key", key))
    [export] = [line for line in printed.splitlines() if "export " in line]
    curl = printed[printed.index("curl -X POST") : printed.index("\n\nCtrl-C")]
    script = f'{export}\nprintf "%s\\n" "$HEYGEN_API_KEY"\ncurl() {{ printf "%s\\n" "$5"; }}\n{curl}'
    said = subprocess.run(["sh", "-c", script], capture_output=True, timeout=ENOUGH, check=True, text=True).stdout

    assert said.splitlines() == [key, f"X-Api-Key: {key}"]


@pytest.mark.parametrize(
    "words",
    [("--port", "٣"), ("--port", "1_0"), ("--speed", "1_0"), ("--speed", "nan"), ("--job-seconds", "inf")],
    ids=" ".join,
)
def test_the_command_takes_plain_numbers_only_as_the_command_line_does(command, words):
    process = command("--port", "0", *words)
    _, said = process.communicate(timeout=ENOUGH)

    assert process.returncode == 2
    assert f"argument {words[0]}: must be a " in said


def is_listening(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the output")
def test_the_command_runs_without_an_output_to_greet_on():
    port = free_port()
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "heygen_async.sandbox", "--port", str(port)]
    with subprocess.Popen(closed, stderr=subprocess.PIPE, text=True) as process:
        try:
            until_true(lambda: process.poll() is not None or is_listening(port))
            assert process.poll() is None, process.stderr.read()
        finally:
            process.terminate()


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGHUP")
def test_the_command_leaves_no_file_behind_when_its_terminal_is_closed(command, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = command("--port", "0")
    greeting(process)
    assert list(tmp_path.iterdir()) != []
    process.send_signal(signal.SIGHUP)

    assert process.wait(timeout=ENOUGH) == 129
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_command_ends_promptly_whatever_its_connections_do(command, number, code):
    process = command("--port", "0")
    port = int(re.search(r"http://127.0.0.1:(\d+)", greeting(process)).group(1))
    form = b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    beginnings = [
        b"",
        b"GET /v3/lipsyncs HTTP/1.1\r\nHost: sand",
        b"GET /v3/lipsyncs HTTP/1.1\r\nHost: sandbox\r\nX-Api-Key: sandbox-key\r\n\r\n",
        b"POST /v3/lipsyncs HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v3/assets HTTP/1.1\r\nHost: sandbox\r\nX-Api-Key: sandbox-key\r\nContent-Length: 1000\r\n" + form,
    ]
    with contextlib.ExitStack() as connections:
        for beginning in beginnings * 5:
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(beginning)
        process.send_signal(number)
        assert process.wait(timeout=ENOUGH) == code, process.stderr.read()


@pytest.mark.skipif(os.name != "posix", reason="there is no SIG_IGN to inherit")
def test_a_command_that_ignores_ctrl_c_from_its_start_goes_on_ignoring_it(command):
    process = command("--port", "0", handler=signal.SIG_IGN)
    greeting(process)
    process.send_signal(signal.SIGINT)
    process.terminate()
    assert process.wait(timeout=ENOUGH) == 0


def post(url, key, path, body):
    request = urllib.request.Request(
        f"{url}{path}", orjson.dumps(body), {"Content-Type": "application/json", "X-Api-Key": key}
    )
    with urllib.request.urlopen(request, timeout=ENOUGH) as answer:
        return orjson.loads(answer.read() or b"null")


def status_of(url, key, lipsync_id):
    request = urllib.request.Request(f"{url}/v3/lipsyncs/{lipsync_id}", headers={"X-Api-Key": key})
    with urllib.request.urlopen(request, timeout=ENOUGH) as answer:
        return orjson.loads(answer.read())["data"]["status"]


@pytest.mark.parametrize("program", ["heygen_async.sandbox", "heygen_async"])
def test_the_time_of_a_sandbox_of_the_command_line_can_be_moved_by_hand(program):
    words = ["sandbox"] if program == "heygen_async" else []
    process = subprocess.Popen(
        [sys.executable, "-m", program, *words, "--port", "0", "--manual", "--job-seconds", "600"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        printed = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", printed)[0]
        made = post(url, "sandbox-key", "/v3/lipsyncs", BODY)["data"]["lipsync_id"]
        post(url, "sandbox-key", "/_sandbox/advance", {"seconds": 599})
        before = status_of(url, "sandbox-key", made)
        post(url, "sandbox-key", "/_sandbox/advance", {"seconds": 1})
        assert (before, status_of(url, "sandbox-key", made)) == ("running", "completed")
    finally:
        process.kill()
        process.communicate(timeout=ENOUGH)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.skipif(os.name != "posix", reason="the line is for a POSIX shell")
def test_the_command_prints_a_line_that_moves_the_time(command):
    printed = greeting(command("--port", "0", "--manual"))
    [line] = [line for line in printed.splitlines() if "/_sandbox/advance" in line]
    subprocess.run(["sh", "-c", f"{line} -s --fail"], capture_output=True, timeout=ENOUGH, check=True)


def test_the_command_does_not_speak_of_time_that_moves_by_itself(command):
    assert "advance" not in greeting(command("--port", "0"))


def test_the_command_says_in_one_line_that_it_cannot_start(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = command("--port", str(taken.getsockname()[1]))
        assert process.wait(timeout=ENOUGH) == 1
    assert re.fullmatch(r"The sandbox cannot start: .*in use.*\n", process.stderr.read())


@pytest.mark.parametrize(
    ("option", "value"),
    [("port", "99999"), ("port", "-1"), ("speed", "nan"), ("job-seconds", "-5"), ("balance", "nan"), ("api-key", "")],
)
def test_the_command_explains_wrong_arguments(command, option, value):
    process = command(f"--{option}={value}")
    assert process.wait(timeout=ENOUGH) == 2
    names = f"{option.replace('-', '_')}|argument --{option}:"
    assert re.search(rf"error: ({names}) must", process.stderr.read())


# --- what ships --------------------------------------------------------------------------------------------


def test_the_samples_are_small():
    assert sum(Path(sample).stat().st_size for sample in (SAMPLE_VIDEO, SAMPLE_AUDIO)) < 100_000
