"""The doctor: what it finds in the network, the key, the account and the API, and that it only looks."""

import asyncio
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

import orjson
import pytest
from aiohttp import TraceConfig, web
from attrs import evolve
from cli_sandbox import AUDIO_URL, VIDEO_URL, free_port, known_to_the_shell, on_terminal, run, running
from hypothesis import given
from hypothesis import strategies as st
from loops import LOOPS
from until import until

from heygen_async import HeyGenSession, LipsyncRequest, RetryPolicy, Timeouts
from heygen_async._doctor.examination import examine
from heygen_async._doctor.network_checks import reach_checks
from heygen_async._drift import SHAPES, differences
from heygen_async._transport.driver import Transport
from heygen_async._transport.gate import Gate
from heygen_async._transport.origin import Origin
from heygen_async._transport.probe import Failure, Reach
from heygen_async._transport.server_time import ServerTime
from heygen_async._wire import Answer
from heygen_async.cli.doctor import report
from heygen_async.diagnosis import Check, Diagnosis, Level, Verdict
from heygen_async.models import Secret
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox
from heygen_async.sandbox.faults import (
    Fault,
    Reply,
    error,
    gzip_bomb,
    html,
    missing,
    odd_fields,
    redirect,
    reset,
    server_error,
    stall,
    unknown_fields,
)
from heygen_async.sandbox.routes import ROUTES

TLS = Path(__file__).parent / "tls"
SOURCES = {"video": VIDEO_URL, "audio": AUDIO_URL}
FAILING = {**SOURCES, "video": "https://sandbox.invalid/v.mp4?fail=No+face"}
KEY = "sk_live_7f/Qz+91"
ONE = "GET /v3/lipsyncs/{lipsync_id}"


@asynccontextmanager
async def sandbox_and_session(**options):
    async with (
        Sandbox(manual=True, **options) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, retry=RetryPolicy(first_delay=0)) as heygen,
    ):
        yield sandbox, heygen


@asynccontextmanager
async def examined(*, jobs=True, faults=(), **options):
    """Run the doctor on a sandbox in which a lipsync has completed, another failed and a third runs."""
    async with sandbox_and_session(**options) as (sandbox, heygen):
        if jobs:
            await heygen.lipsyncs.create(**SOURCES, callback_id="row-1", title="Done")
            await heygen.lipsyncs.create(**FAILING)
            await sandbox.advance(30)
            await heygen.lipsyncs.create(**SOURCES)
        before = len(sandbox.requests)
        sandbox.faults = faults
        yield await heygen.doctor(), sandbox, sandbox.requests[before:]


async def diagnosis_of(**options):
    async with examined(**options) as (diagnosis, _, _):
        return diagnosis


def said(diagnosis, level=None):
    """Return the summaries of one level, or of all."""
    return [check.summary for check in diagnosis.checks if level in (None, check.level)]


def found(diagnosis):
    return [check.summary for check in diagnosis.findings]


# A healthy account


async def test_a_healthy_account_has_no_findings():
    diagnosis = await diagnosis_of()
    assert (diagnosis.verdict, found(diagnosis)) == (Verdict.READY, [])
    assert {check.area for check in diagnosis.checks} == {"network", "clock", "key", "account", "calls", "answers"}
    assert {check.level for check in diagnosis.checks} == {Level.OK}


@pytest.mark.parametrize("billing", ["wallet", "subscription", "usage_based"])
async def test_every_kind_of_billing_is_as_expected_and_has_a_balance(billing):
    diagnosis = await diagnosis_of(billing=billing, balance=50, jobs=False)
    assert found(diagnosis) == []
    [balance] = [check for check in diagnosis.checks if check.area == "account"]
    assert balance.summary.startswith(f"billed by {billing}; 50.00 ")


async def test_a_batch_is_compared_too_where_one_of_the_newest_lipsyncs_belongs_to_it():
    async with sandbox_and_session() as (sandbox, heygen):
        await heygen.lipsyncs.create_batch([LipsyncRequest(**SOURCES), LipsyncRequest(**FAILING)])
        await sandbox.advance(30)
        assert (await heygen.doctor()).verdict is Verdict.READY
        sandbox.faults = [odd_fields("GET /v3/lipsyncs/batches/{batch_id}", fields={"item_index": "first"})]
        assert found(await heygen.doctor()) == [
            "BatchItem.item_index is text, not a whole number (GET /v3/lipsyncs/batches/{batch_id}, 2 times)"
        ]


# It only looks


async def test_it_only_reads_and_costs_nothing():
    async with examined() as (_, sandbox, requests):
        assert {request.method for request in requests} == {"GET"}
        assert 0 < len(requests) <= 17
        assert len(sandbox.jobs) == 3
        assert not [request for request in requests if request.route.startswith(("GET /files", "GET /captions"))]


async def test_it_makes_at_most_17_requests_for_the_fullest_account():
    async with sandbox_and_session(account_limit=None) as (sandbox, heygen):
        for _ in range(12):
            await heygen.lipsyncs.create(**SOURCES)
        before = len(sandbox.requests)
        await heygen.doctor()
        assert len(sandbox.requests) - before == 17


@pytest.mark.parametrize("listed", [11, 300])
async def test_it_makes_no_more_requests_for_a_server_that_lists_more_than_was_requested(listed):
    paths = []

    async def answer(request):
        paths.append(request.path)
        items = [{"id": f"ls_{n}", "status": "pending"} for n in range(listed)]
        return web.json_response({"data": items if request.path == "/v3/lipsyncs" else {}})

    async with (
        https_server(answer) as port,
        HeyGenSession("key", base_url=f"https://localhost:{port}", ssl=False) as heygen,
    ):
        await heygen.doctor()
    assert len(paths) == 17


async def test_a_cancelled_doctor_stops_at_once_and_leaves_nothing_running():
    async with sandbox_and_session() as (sandbox, heygen):
        await heygen.lipsyncs.create(**SOURCES)
        sandbox.faults = [stall(ONE)]
        before = asyncio.all_tasks()
        doctor = asyncio.create_task(heygen.doctor())
        await until(lambda: any(request.route == ONE for request in sandbox.requests))
        doctor.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doctor
        assert not [task for task in asyncio.all_tasks() - before if "_doctor" in repr(task)]
        sandbox.release()


async def test_a_closed_session_is_a_runtime_error():
    heygen = HeyGenSession("key", base_url="http://127.0.0.1:1")
    await heygen.aclose()
    with pytest.raises(RuntimeError, match="is closed"):
        await heygen.doctor()


async def test_a_session_that_is_closed_meanwhile_is_a_runtime_error():
    account = "GET /v3/users/me"
    async with sandbox_and_session(faults=[stall(account)]) as (sandbox, heygen):
        doctor = asyncio.create_task(heygen.doctor())
        while not any(request.route == account for request in sandbox.requests):  # noqa: ASYNC110 it has no event for this
            await asyncio.sleep(0)
        await heygen.aclose()
        with pytest.raises(RuntimeError, match="is closed"):
            await doctor
        sandbox.release()


@pytest.mark.parametrize("path", ["/v3/users/me", "/v3/lipsyncs/ls_"])
async def test_a_bug_of_a_tracing_hook_comes_out_as_it_is(path):
    async def hook(_session, _context, params):
        if params.url.path.startswith(path):
            raise LookupError("a bug of the hook")

    tracing = TraceConfig()
    tracing.on_request_start.append(hook)
    async with (
        Sandbox(manual=True) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, trace_configs=[tracing]) as heygen,
    ):
        await heygen.lipsyncs.create(**SOURCES)
        with pytest.raises(LookupError, match="a bug of the hook"):
            await heygen.doctor()


def test_a_session_does_not_import_the_doctor():
    program = "import sys, heygen_async.session; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = [name for name in ran.stdout.split() if "heygen_async" in name]
    assert not [name for name in loaded if "doctor" in name or "diagnosis" in name or "drift" in name]


# The key and the account


@pytest.mark.parametrize("options", [{"key_seconds": 0}, {"session": {}}], ids=["expired", "wrong"])
async def test_a_refused_key_ends_the_examination_with_what_a_401_can_mean(options):
    async with Sandbox(manual=True, key_seconds=options.get("key_seconds")) as sandbox:
        key = sandbox.api_key if "key_seconds" in options else "wrong"
        async with HeyGenSession(key, base_url=sandbox.url) as heygen:
            diagnosis = await heygen.doctor()
        assert len(sandbox.requests) == 2
    assert diagnosis.verdict is Verdict.UNAUTHORIZED
    [finding] = diagnosis.findings
    assert finding.summary.startswith("the API does not accept the key: 401 unauthorized")
    for word in ("missing", "mistyped", "revoked", "expired", "HEYGEN_API_KEY"):
        assert word in finding.advice


@pytest.mark.parametrize(
    ("status", "summary"),
    [
        (401, "the key is valid, but may not read itself (401): scopes and expiry are not known"),
        (403, "the key is valid, but may not read itself (403): scopes and expiry are not known"),
        (404, "this account has no call to read the key (404): its scopes are not known"),
    ],
)
async def test_a_key_that_may_not_read_itself_is_no_finding(status, summary):
    diagnosis = await diagnosis_of(faults=[error(status, "no", route="GET /v3/api_keys/self")])
    assert diagnosis.verdict is Verdict.READY
    assert summary in said(diagnosis, Level.INFO)


OWN_KEY = "GET /v3/api_keys/self"
LIST = "GET /v3/lipsyncs"


@pytest.mark.parametrize(
    ("of_the_key", "of_the_list", "is_valid"),
    [
        (error(401, "unauthorized", route=OWN_KEY), server_error(LIST), False),
        (error(401, "unauthorized", route=OWN_KEY), error(403, "forbidden", route=LIST), True),
        (error(401, "unauthorized", route=OWN_KEY), error(403, "no", shape="text", route=LIST), False),
        (error(403, "forbidden", route=OWN_KEY), server_error(LIST), True),
        (error(403, "no", shape="text", route=OWN_KEY), server_error(LIST), False),
    ],
    ids=["401", "401, list forbidden", "401, list 403 of a gateway", "forbidden", "403 of a gateway"],
)
async def test_a_refused_key_counts_as_valid_only_if_an_answer_shows_it(of_the_key, of_the_list, is_valid):
    diagnosis = await diagnosis_of(jobs=False, faults=[of_the_key, of_the_list])
    [key] = [check for check in diagnosis.checks if check.area == "key"]
    assert key.level is (Level.INFO if is_valid else Level.ERROR)
    assert ("the key is valid" in key.summary) is is_valid
    assert ("whether it is valid is not known" in key.summary) is not is_valid


@pytest.mark.parametrize(
    ("scopes", "findings"),
    [
        (["*:*"], []),
        (["lipsync:*", "assets:*"], []),
        (
            ["lipsync:write"],
            ["the key lacks the scope assets:write: local files cannot be uploaded, only URLs can be used"],
        ),
        (["lipsync:read", "assets:write"], ["the key lacks the scope lipsync:write: creates will be refused with 403"]),
    ],
    ids=str,
)
async def test_a_missing_scope_says_what_it_prevents(scopes, findings):
    assert found(await diagnosis_of(scopes=scopes, jobs=False)) == findings


@pytest.mark.parametrize(
    ("seconds", "level", "summary"),
    [
        (3600 * 30, Level.WARNING, "the key expires in 30.0 hours"),
        (86400 * 3, Level.WARNING, "the key expires in 3 days"),
        (86400 * 90, Level.OK, "the key expires in 90 days"),
    ],
)
async def test_a_key_that_expires_soon_is_a_warning(seconds, level, summary):
    assert summary in said(await diagnosis_of(jobs=False, key_seconds=seconds), level)


async def test_an_expired_date_of_a_key_that_still_works_is_an_error():
    day = datetime.now(UTC) - timedelta(days=1)
    faults = [replying({"key_id": "k", "expires_at": day.isoformat(), "scopes": []}, "GET /v3/api_keys/self")]
    assert "the key has expired" in said(await diagnosis_of(faults=faults), Level.ERROR)


async def test_an_account_that_the_key_may_not_read_is_no_finding():
    diagnosis = await diagnosis_of(scopes=["lipsync:write", "assets:write"])
    assert diagnosis.verdict is Verdict.READY
    assert "the key may not read the account (403), so its balance is not known" in said(diagnosis, Level.INFO)


async def test_an_empty_wallet_is_an_error():
    diagnosis = await diagnosis_of(balance=0, jobs=False)
    [finding] = diagnosis.findings
    assert (finding.level, finding.summary) == (Level.ERROR, "billed by wallet; 0.00 usd left")
    assert "402" in finding.advice


EMPTY_WALLET = {"currency": "usd", "remaining_balance": 0}
SUBSCRIPTION = {"plan": "pro", "credits": {"premium_credits": {"remaining": 500}}}


@pytest.mark.parametrize(
    ("account", "summary"),
    [
        ({"billing_type": "subscription", "subscription": SUBSCRIPTION}, "billed by subscription; 500.00 credits left"),
        (
            {"billing_type": "usage_based", "usage_based": {"remaining_credits": 7}},
            "billed by usage_based; 7.00 credits left",
        ),
        (
            {"billing_type": "subscription", "subscription": {"plan": "pro"}},
            "billed by subscription; the API gives no balance",
        ),
        ({"billing_type": "wallet", "subscription": SUBSCRIPTION}, "billed by wallet; 0.00 usd left"),
        ({"billing_type": "other"}, "billed by other; 0.00 usd left"),
    ],
    ids=["subscription", "usage", "no balance", "wallet", "another word"],
)
async def test_the_balance_is_of_what_the_account_is_billed_to(account, summary):
    answer = {"username": "x", "wallet": EMPTY_WALLET, **account}
    diagnosis = await diagnosis_of(jobs=False, faults=[replying(answer, "GET /v3/users/me")])
    assert [check.summary for check in diagnosis.checks if check.area == "account"] == [summary]


def replying(data, route, **more):
    """Return the fault that answers *data*."""
    return Fault(route, Reply(status=200, body=orjson.dumps({"data": data, **more})))


# What the account may use


async def test_missing_statuses_and_batches_are_distinguished_from_missing_batches_of_an_account_that_has_them():
    there, absent = await diagnosis_of(), await diagnosis_of(statuses_available=False, batches_available=False)
    assert "batches are available" in said(there, Level.OK)
    assert "GET /v3/lipsyncs/statuses is available: waits share requests" in said(there, Level.OK)
    assert absent.verdict is Verdict.READY
    assert {summary[:42] for summary in said(absent, Level.INFO)} == {
        "GET /v3/lipsyncs/statuses is not available",
        "batches seem not to be available: their pa",
    }


async def test_an_account_without_lipsyncs_says_that_nothing_could_be_compared():
    diagnosis = await diagnosis_of(jobs=False)
    assert diagnosis.verdict is Verdict.READY
    assert "the account has no lipsyncs yet, so none could be compared with the models" in said(diagnosis, Level.INFO)


async def test_a_renamed_event_is_found_with_the_names_that_there_are():
    faults = [
        replying(
            [{"event_type": "batch.done", "description": "All jobs of a batch have ended."}],
            EVENT_TYPES,
            has_more=False,
            next_token=None,
        )
    ]
    diagnosis = await diagnosis_of(faults=faults)
    assert found(diagnosis) == [
        "the webhook event batch.finished is not among the 1 that are offered; of batches: batch.done"
    ]


EVENT_TYPES = "GET /v3/webhooks/event-types"


@pytest.mark.parametrize(
    "fault", [server_error, html, redirect, gzip_bomb, reset, missing], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("route", ["GET /v3/lipsyncs", ONE, "GET /v3/users/me", "GET /v3/api_keys/self", EVENT_TYPES])
async def test_a_call_that_fails_is_a_finding_and_never_an_exception(fault, route):
    more = {"size": 20 << 20} if fault is gzip_bomb else {}
    diagnosis = await diagnosis_of(faults=[fault(route, **more)])
    is_harmless = fault is missing and route in ("GET /v3/api_keys/self", EVENT_TYPES)
    assert (diagnosis.verdict is Verdict.READY) is is_harmless
    assert all(check.advice for check in diagnosis.findings)


# Drift


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (unknown_fields("GET /v3/users/me"), ["Account.sandbox_news is new: an object (GET /v3/users/me)"]),
        (unknown_fields(ONE), [f"Lipsync.sandbox_news is new: an object ({ONE}, 3 times)"]),
        (
            unknown_fields("GET /v3/lipsyncs*"),
            [
                f"Lipsync.sandbox_news is new: an object (GET /v3/lipsyncs, {ONE}, 6 times)",
                "StatusEntry.sandbox_news is new: an object (GET /v3/lipsyncs/statuses, 3 times)",
            ],
        ),
        (odd_fields(ONE, fields={"video_url": None}), [f"Lipsync.video_url is missing: text ({ONE})"]),
        (odd_fields(ONE, fields={"duration": "12.5"}), [f"Lipsync.duration is text, not a number ({ONE}, 3 times)"]),
        (
            odd_fields("GET /v3/lipsyncs/statuses", fields={"status": "done"}),
            ["StatusEntry.status has a new word: done (GET /v3/lipsyncs/statuses, 3 times)"],
        ),
        (
            odd_fields("GET /v3/api_keys/self", fields={"key_id": None}),
            ["ApiKey.key_id is missing: text (GET /v3/api_keys/self)"],
        ),
    ],
    ids=["new", "new in each", "new everywhere", "missing", "another type", "another word", "a required one missing"],
)
async def test_planted_drift_is_found_with_where_and_how_often(fault, expected):
    diagnosis = await diagnosis_of(faults=[fault])
    assert (diagnosis.verdict, found(diagnosis)) == (Verdict.FINDINGS, expected)
    assert all("report it to the authors" in check.advice for check in diagnosis.findings)


COMPLETED = {
    "id": "ls_1",
    "status": "completed",
    "duration": 12.5,
    "video_url": "https://files.example/v.mp4?sig=1",
    "caption_url": "https://files.example/v.srt?sig=1",
    "created_at": 1764000000,
}
GONE = "(gone)"
BATCH = {"id": "b", "status": "processing", "counts_by_status": {"queued": "1"}, "total_items": 1, "created_at": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"title": None, "callback_id": "row-1", "failure_message": None}, []),
        ({"duration": 12}, []),
        ({"status": "running", "duration": GONE, "video_url": GONE, "caption_url": None}, []),
        ({"progress": 0.4}, ["Lipsync.progress is new: a number with a fraction"]),
        ({"folder": None}, ["Lipsync.folder is new: null"]),
        ({"id": GONE}, ["Lipsync.id is missing: text"]),
        ({"video_url": GONE}, ["Lipsync.video_url is missing: text"]),
        ({"caption_url": None}, ["Lipsync.caption_url is missing: text"]),
        ({"created_at": GONE}, ["Lipsync.created_at is missing: a time in unix seconds"]),
        ({"status": "failed"}, ["Lipsync.failure_message is missing: text"]),
        ({"duration": "12.5"}, ["Lipsync.duration is text, not a number"]),
        ({"duration": True}, ["Lipsync.duration is true or false, not a number"]),
        ({"id": 7}, ["Lipsync.id is a whole number, not text"]),
        ({"created_at": "2026-01-01T00:00:00Z"}, ["Lipsync.created_at is text, not a time in unix seconds"]),
        ({"created_at": 1764000000000}, ["Lipsync.created_at is a whole number, not a time in unix seconds"]),
        ({"video_url": ["a"]}, ["Lipsync.video_url is a list, not text"]),
        ({"status": "polishing"}, ["Lipsync.status has a new word: polishing"]),
    ],
    ids=str,
)
def test_each_kind_of_drift_of_a_lipsync(change, expected):
    data = {name: value for name, value in {**COMPLETED, **change}.items() if value != GONE}
    assert [*map(str, differences({"data": data}, SHAPES[ONE]))] == expected


@pytest.mark.parametrize(
    ("call", "body", "expected"),
    [
        ("GET /v3/lipsyncs", [], ["answer is a list, not an object"]),
        ("GET /v3/lipsyncs", {"items": []}, ["answer.items is new: a list", "answer.data is missing: a list"]),
        (ONE, {"data": None}, ["Lipsync is null, not an object"]),
        ("GET /v3/lipsyncs", {"data": {}, "has_more": False}, ["answer.data is an object, not a list"]),
        ("GET /v3/lipsyncs", {"data": []}, ["answer.has_more is missing: true or false"]),
        (
            "GET /v3/lipsyncs",
            {"data": [], "has_more": "no", "next_token": 7},
            ["answer.has_more is text, not true or false", "answer.next_token is a whole number, not text"],
        ),
        (
            "GET /v3/users/me",
            {"data": {"username": "x", "billing_type": "wallet", "wallet": {"currency": 1, "auto_reload": {}, "a": 1}}},
            ["Account.wallet.currency is a whole number, not text", "Account.wallet.a is new: a whole number"],
        ),
        (
            "GET /v3/users/me",
            {"data": {"username": "x", "billing_type": "wallet"}},
            ["Account.wallet is missing: an object"],
        ),
        (
            "GET /v3/lipsyncs/batches/{batch_id}",
            {"data": {**BATCH, "items": [{"status": "queued", "item_index": 0, "news": 1}], "has_more": False}},
            [
                "Batch.counts_by_status is an object, not an object of whole numbers",
                "BatchItem.news is new: a whole number",
            ],
        ),
    ],
)
def test_each_kind_of_drift_of_other_answers(call, body, expected):
    assert [*map(str, differences(body, SHAPES[call]))] == expected


async def test_an_answer_of_thousands_of_new_fields_makes_a_report_that_can_be_read():
    account = {"username": "x", "billing_type": "usage_based", **{f"field_{n:04}": n for n in range(3_000)}}

    diagnosis = await diagnosis_of(faults=[replying(account, "GET /v3/users/me")])

    summaries = [check.summary for check in diagnosis.checks if check.area == "answers" and check.is_finding]
    assert len(summaries) == 51
    assert summaries[-1].endswith("more differences are not listed")


async def test_no_answer_of_the_sandbox_differs_from_the_models():
    """This holds the sandbox and the models together: every call whose answer is a model is made and compared."""
    compared = set()
    async with sandbox_and_session() as (sandbox, heygen):

        async def call(route, *, json=None, params=None, **names):
            method, template = route.split(" ")
            response = await heygen.request(method, template.format(**names), json=json, params=params)
            assert [*map(str, differences(response.data, SHAPES[route]))] == [], route
            compared.add(route)
            return response.data["data"]

        video, audio = ({"type": "url", "url": url} for url in (VIDEO_URL, AUDIO_URL))
        body = {"video": video, "audio": audio}
        done = (await call("POST /v3/lipsyncs", json=body))["lipsync_id"]
        failing = {**body, "video": {"type": "url", "url": FAILING["video"]}}
        batch = (await call("POST /v3/lipsyncs/batches", json={"lipsyncs": [body, failing]}))["batch_id"]
        await sandbox.advance(30)
        await call("GET /v3/lipsyncs", params={"limit": 2})
        await call("GET /v3/lipsyncs/statuses", params={"lipsync_ids": f"{done},none", "batch_ids": batch})
        await call("GET /v3/lipsyncs/batches/{batch_id}", batch_id=batch)
        await call("GET /v3/lipsyncs/{lipsync_id}", lipsync_id=done)
        await call("PATCH /v3/lipsyncs/{lipsync_id}", lipsync_id=done, json={"title": "Renamed"})
        upload = {"filename": "v.mp4", "content_type": "video/mp4", "size_bytes": SAMPLE_VIDEO.stat().st_size}
        await call("POST /v3/assets/direct-uploads", json=upload)
        asset = await heygen.assets.upload(SAMPLE_AUDIO)
        await call("GET /v3/assets", params={"username": "sandbox"})
        await call("GET /v3/assets/{asset_id}", asset_id=asset.id)
        await call("POST /v3/assets/{asset_id}/complete", asset_id=asset.id)
        endpoint = (await call("POST /v3/webhooks/endpoints", json={"url": "https://example.com/h"}))["endpoint_id"]
        await call("GET /v3/webhooks/endpoints")
        new = {"events": ["batch.finished"]}
        await call("PATCH /v3/webhooks/endpoints/{endpoint_id}", endpoint_id=endpoint, json=new)
        await call("POST /v3/webhooks/endpoints/{endpoint_id}/rotate-secret", endpoint_id=endpoint)
        for route in ("event-types", "events"):
            await call(f"GET /v3/webhooks/{route}")
        await call("GET /v3/api_keys/self")
        await call("GET /v3/users/me")
    # The upload as a form is sent by the library itself, and read as the same model as the others.
    assert set(SHAPES) - compared == {"POST /v3/assets"}


def test_every_call_of_the_sandbox_has_a_shape_or_no_model():
    without = {route for route in ROUTES if route.startswith(("DELETE", "GET /files", "GET /captions", "PUT"))}
    assert set(ROUTES) - set(SHAPES) == {*without, "GET /v3/assets/statuses"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just("s3cret") | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "id", "video_url", "created_at", "items", "wallet", "scopes", "duration", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON_VALUES, st.sampled_from(sorted(SHAPES)))
def test_any_json_can_be_compared_and_no_value_of_it_is_shown(value, call):
    for body in (value, {"data": value}, {"data": [value]}):
        assert "s3cret" not in str(differences(body, SHAPES[call]))


# Network and clock


async def test_a_clock_that_is_wrong_is_found_by_the_date_of_the_answers():
    async with sandbox_and_session() as (_, heygen):
        true = heygen._transport.clock
        for skew, expected in (
            (400, "this machine's clock is 7 minutes ahead, by the server's date"),
            (-400, "this machine's clock is 7 minutes behind, by the server's date"),
            (90_000, "this machine's clock is 25 hours ahead, by the server's date"),
            (20, None),
        ):
            heygen._transport = evolve(heygen._transport, clock=lambda skew=skew: true() + skew)
            diagnosis = await heygen.doctor()
            assert [check.summary for check in diagnosis.checks if check.level is Level.WARNING] == [
                summary for summary in [expected] if summary
            ]


class Wire:
    """Stands for `Http` and its connections: every exchange takes half a second."""

    def __init__(self, clock):
        self.origin = Origin("https://api.test", "X-Api-Key", "", Secret("sk_test"))
        self.connections = self
        self.clock = clock

    def ensure_open(self):
        """It is always open."""

    async def probe(self, seconds):
        """Nothing is known of the connection."""

    async def exchange(self, request, *, headers, timeouts):
        await asyncio.sleep(0.5)
        return Answer(200, {"Date": formatdate(self.clock(), usegmt=True)}, b'{"data": []}')


@pytest.mark.looptime
async def test_waits_for_the_rate_of_the_session_are_neither_latency_nor_a_wrong_clock():
    def clock():
        return 1_700_000_000 + asyncio.get_running_loop().time()

    gate = Gate(max_connections=1, max_requests_per_second=0.005)
    slowed = Transport(
        Wire(clock), gate, RetryPolicy(), Timeouts(), {}, clock=clock, server_time=ServerTime(elapsed=clock)
    )
    diagnosis = await examine(slowed)
    assert asyncio.get_running_loop().time() > 1000
    assert "answers take 500 ms in the median, 500 ms at most (7 requests)" in said(diagnosis, Level.OK)
    [clocks] = [check for check in diagnosis.checks if check.area == "clock"]
    assert clocks.level is Level.OK


async def test_a_port_where_nothing_listens_is_one_finding():
    async with HeyGenSession("key", base_url=f"http://127.0.0.1:{free_port()}") as heygen:
        [check] = (await heygen.doctor()).checks
    assert (check.area, check.level) == ("network", Level.ERROR)
    assert check.summary.endswith("Connection refused")


async def test_a_name_that_cannot_be_resolved_is_one_finding(monkeypatch):
    async def getaddrinfo(*args, **more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with HeyGenSession(KEY, base_url="https://api.heygen.invalid") as heygen:
        [check] = (await heygen.doctor()).checks
    assert check.summary == "the name of api.heygen.invalid cannot be resolved: Name or service not known"
    assert "online" in check.advice


@pytest.mark.parametrize("host", ["api..heygen.invalid", f"{'a' * 64}.heygen.invalid"])
async def test_a_name_that_no_host_can_have_is_one_finding(host):
    async with HeyGenSession(KEY, base_url=f"https://{host}") as heygen:
        [check] = (await heygen.doctor()).checks
    assert check.summary == f"the name of {host} cannot be resolved: no host can have this name"
    assert "spelling" in check.advice


async def nothing(request):
    return web.json_response({"data": []})


@asynccontextmanager
async def https_server(answer=nothing):
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "localhost-key.pem")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_an_unknown_ca_is_found_and_a_known_one_is_not():
    async with https_server() as port:
        async with HeyGenSession("key", base_url=f"https://localhost:{port}") as heygen:
            unknown = await heygen.doctor()
        context = ssl.create_default_context(cafile=TLS / "localhost.pem")
        async with HeyGenSession("key", base_url=f"https://localhost:{port}", ssl=context) as heygen:
            known = await heygen.doctor()
        async with HeyGenSession("key", base_url=f"https://localhost:{port}", ssl=False) as heygen:
            unverified = await heygen.doctor()
    [finding] = unknown.findings
    assert finding.summary == "the certificate of localhost is not accepted: self-signed certificate"
    assert "SSL_CERT_FILE" in finding.advice
    assert any("the certificate of the server is valid until 2" in text for text in said(known))
    assert any("the certificate was not verified" in text for text in said(unverified, Level.INFO))


async def test_a_server_without_tls_is_distinguished_from_a_bad_certificate(sandbox):
    async with HeyGenSession("key", base_url=sandbox.url.replace("http:", "https:")) as heygen:
        [finding] = (await heygen.doctor()).findings
    assert finding.summary.startswith("TLS with 127.0.0.1 failed: ")


@asynccontextmanager
async def sandbox_url():
    async with Sandbox(manual=True, api_key="key") as sandbox:
        yield sandbox.url


@asynccontextmanager
async def tls_url():
    async with https_server() as port:
        yield f"https://localhost:{port}"


@asynccontextmanager
async def closed_port_url():
    yield f"http://localhost:{free_port()}"


@pytest.mark.looptime(False)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("server", "reached"),
    [
        pytest.param(sandbox_url, "connection to 127.0.0.1", id="plain"),
        pytest.param(tls_url, "the certificate was not verified", id="TLS"),
        pytest.param(closed_port_url, "no connection to localhost", id="nothing"),
    ],
)
def test_it_works_on_every_loop(loop, server, reached):
    async def main():
        async with server() as url, HeyGenSession("key", base_url=url, ssl=False) as heygen:
            return await heygen.doctor()

    with asyncio.Runner(loop_factory=loop) as runner:
        assert reached in " ".join(said(runner.run(main())))


@contextmanager
def proxied(monkeypatch, port):
    with monkeypatch.context() as patch:
        for name in ("HTTPS_PROXY", "https_proxy"):
            patch.setenv(name, f"http://user:pa55word@127.0.0.1:{port}")
        for name in ("NO_PROXY", "no_proxy"):
            patch.delenv(name, raising=False)
        yield


async def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(monkeypatch):
    with proxied(monkeypatch, free_port()):
        async with HeyGenSession(KEY, base_url="https://api.heygen.invalid", trust_env=True) as heygen:
            diagnosis = await heygen.doctor()
    [finding] = diagnosis.findings
    assert finding.summary.startswith("no connection to the proxy 127.0.0.1, port ")
    assert "pa55word" not in diagnosis.to_json()


async def test_a_proxy_that_refuses_is_named_without_its_password(monkeypatch):
    async def refuse(reader, writer):
        if await reader.read(4096):
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        with proxied(monkeypatch, server.sockets[0].getsockname()[1]):
            async with HeyGenSession(KEY, base_url="https://api.heygen.invalid", trust_env=True) as heygen:
                diagnosis = await heygen.doctor()
    [finding] = diagnosis.findings
    assert finding.summary == "GET /v3/api_keys/self: no connection (the proxy answered 407)"
    assert "HTTPS_PROXY" in finding.advice
    assert "pa55word" not in diagnosis.to_json()


@pytest.mark.parametrize(
    ("failure", "summary", "advice"),
    [
        (
            Failure(stage="tls", reason="certificate has expired", certificate_error=10),
            "is not accepted",
            "date of this",
        ),
        (Failure(stage="tls", reason="certificate is not yet valid", certificate_error=9), "is not accepted", "clock"),
        (Failure(stage="tls", reason="Hostname mismatch", certificate_error=62), "is not accepted", "another host"),
        (Failure(stage="tls", reason="unable to get local issuer certificate", certificate_error=20), "is not", "CA"),
        (
            Failure(stage="connect", reason="no answer within 10 s"),
            "no connection to api.heygen.com, port 443",
            "firewall",
        ),
    ],
)
def test_each_failure_of_a_connection_has_its_own_advice(failure, summary, advice):
    reach = Reach(host="api.heygen.com", port=443, addresses=2, dns_seconds=0.01, failure=failure)
    name, check = reach_checks(reach, now=datetime.now(UTC))
    assert name.summary == "DNS: api.heygen.com has 2 addresses, found in 10 ms"
    assert summary in check.summary
    assert advice in check.advice


# Secrets


async def test_nothing_secret_is_in_a_diagnosis_or_its_report():
    """A server that repeats the key everywhere, in names too, and links that are secrets."""
    link = "https://files.example/v.mp4?X-Amz-Signature=5ig9ed"
    hostile = {"id": KEY, "status": KEY, link: 1, KEY: link, "duration": link, "key_name": KEY, "billing_type": KEY}
    faults = [
        error(403, KEY, f"{KEY} may not see {link}", route="GET /v3/users/me"),
        replying([{"event_type": f"batch.{KEY}"}], EVENT_TYPES),
        replying([hostile], "GET /v3/lipsyncs"),
        replying({**hostile, "key_id": link, "scopes": [KEY, link]}, "GET /v3/api_keys/self"),
    ]
    async with sandbox_and_session(api_key=KEY, faults=faults) as (_, heygen):
        diagnosis = await heygen.doctor()
    shown = "\n".join([diagnosis.to_json(), repr(diagnosis), *report(diagnosis, width=80)])
    assert len(diagnosis.findings) > 5
    for secret in (KEY, KEY.replace("/", "\\/"), "5ig9ed"):
        assert secret not in shown


async def test_a_key_with_underscores_in_the_account_is_masked():
    """A server that repeats the key as the kind of billing."""
    key = "sk_live_0a1b2c3d4e5f"
    repeating = odd_fields("GET /v3/users/me", fields={"billing_type": key})
    async with sandbox_and_session(api_key=key, faults=[repeating]) as (_, heygen):
        diagnosis = await heygen.doctor()
    shown = "\n".join([diagnosis.to_json(), repr(diagnosis), *report(diagnosis, width=80)])
    assert "billed by" in shown
    for secret in (key, key.replace("_", " ")):
        assert secret not in shown


async def test_a_report_names_nobody():
    async with examined(billing="wallet") as (diagnosis, sandbox, _):
        shown = "\n".join([diagnosis.to_json(), *report(diagnosis, width=80)])
    for private in ("@example.com", "Sandbox", "User", "key_sandbox", sandbox.api_key, "ls_", "Done", "row-1"):
        assert private not in shown


# Values


def test_a_diagnosis_is_a_frozen_value_that_becomes_json():
    check = Check(area="key", level=Level.WARNING, summary="the key expires in 3 days", advice="Make a new one.")
    worse = evolve(check, level=Level.ERROR)
    at = datetime(2026, 11, 28, tzinfo=UTC)
    diagnosis = Diagnosis(base_url="https://a", version="1", at=at, verdict=Verdict.FINDINGS, checks=[check, worse])
    assert [*diagnosis.findings] == [worse, check]
    assert orjson.loads(diagnosis.to_json())["checks"][0] == {
        "area": "key",
        "level": "warning",
        "summary": "the key expires in 3 days",
        "advice": "Make a new one.",
    }
    assert diagnosis.to_dict()["verdict"] == "findings"
    with pytest.raises(AttributeError):
        diagnosis.verdict = Verdict.READY


# The command


def test_the_command_exits_with_0_1_and_3(monkeypatch):
    with known_to_the_shell(monkeypatch) as sandbox:
        assert run("doctor").code == 0
        sandbox.faults = [unknown_fields("GET /v3/users/me")]
        ran = run("doctor")
        assert (ran.code, ran.answer["data"]["verdict"]) == (1, "findings")
        sandbox.faults = []
        refused = run("doctor", "--json", env={"HEYGEN_API_KEY": "wrong"})
        assert (refused.code, refused.answer["data"]["verdict"]) == (3, "unauthorized")
        assert run("doctor", env={"HEYGEN_API_KEY": ""}).code == 3


def test_a_report_fits_into_80_columns_and_ends_with_the_verdict():
    with running(scopes=["lipsync:write"], statuses_available=False, batches_available=False) as sandbox:
        sandbox.faults = [unknown_fields("GET /v3/api_keys/self")]
        ran = on_terminal("doctor", sandbox=sandbox, columns=80)
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert ran.code == 1
    assert lines[-1] == "Usable, with 2 findings."
    assert lines[lines.index("Findings") + 1].startswith("  warning  the key lacks the scope assets:write")


async def test_a_diagnosis_can_be_hashed():
    async with sandbox_and_session() as (_, heygen):
        diagnosis = await heygen.doctor()
    assert hash(diagnosis) == hash(evolve(diagnosis))


@pytest.mark.parametrize("columns", [1, 20, 39])
def test_in_a_window_that_is_too_narrow_the_lines_of_a_report_are_those_of_one_of_40_columns(columns):
    with running() as sandbox:
        ran = on_terminal("doctor", columns=columns, sandbox=sandbox)

    assert max(map(len, ran.out.splitlines()[2:])) > 30
