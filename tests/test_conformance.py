"""The contract of HeyGen's v3 lipsync API, row by row, held by the sandbox over bare HTTP.

Nothing of the client is used: what stands here is what the API says, and the sandbox must not drift from it.
What takes more than a call or two (uploads, links, deliveries of webhooks) is in `test_sandbox.py`.
"""

import asyncio
import hashlib
import io
import math
import os
import re
import shutil

import aiohttp
import orjson
import pytest
from attrs import frozen

from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox

ENOUGH = 10  # seconds; a test that waits so long has failed
VIDEO = {"type": "url", "url": "https://example.com/source.mp4"}
AUDIO = {"type": "url", "url": "https://example.com/new-audio.mp3"}
BODY = {"video": VIDEO, "audio": AUDIO}
FAILING = {**BODY, "video": {"type": "url", "url": "https://sandbox.invalid/v.mp4?fail=No+face"}}
LIPSYNCS = "/v3/lipsyncs"


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ENOUGH)) as http:
        yield http


@pytest.fixture
async def sandbox():
    async with Sandbox(manual=True) as sandbox:
        yield sandbox


@frozen
class Answer:
    status: int
    headers: object
    body: bytes

    @property
    def json(self):
        return orjson.loads(self.body)

    @property
    def data(self):
        assert 200 <= self.status < 300, self.body
        return self.json["data"]

    @property
    def error(self):
        return self.json["error"]


@pytest.fixture
def call(sandbox, http):
    """Call the API with its key: `await call("GET /v3/users/me")`."""

    async def call(what, key=sandbox.api_key, **more):
        method, path = what.split(" ")
        headers = {**({"X-Api-Key": key} if key else {}), **more.pop("headers", {})}
        async with http.request(method, sandbox.url + path, headers=headers, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    return call


@pytest.fixture
async def names(sandbox, call):
    """One of everything, by name."""
    names = {}
    for name, body in {
        "done": {**BODY, "title": "Done", "enable_caption": True, "callback_id": "row-1"},
        "failed": FAILING,
    }.items():
        names[name] = (await call(f"POST {LIPSYNCS}", json=body)).data["lipsync_id"]
    names["batch"] = (await call(f"POST {LIPSYNCS}/batches", json={"lipsyncs": [BODY], "title": "B"})).data["batch_id"]
    await sandbox.advance(20)
    names["pending"] = (await call(f"POST {LIPSYNCS}", json=BODY)).data["lipsync_id"]
    names["asset"] = (await upload(call)).data["asset_id"]
    endpoint = await call("POST /v3/webhooks/endpoints", json={"url": "https://example.com/hook"})
    names["endpoint"] = endpoint.data["endpoint_id"]
    return names


async def upload(call, content=SAMPLE_VIDEO.read_bytes(), filename="source.mp4", **more):
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(content), filename=filename)
    return await call("POST /v3/assets", data=form, **more)


# --- transport ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"X-Api-Key": "sandbox-key"}, {"Authorization": "Bearer sandbox-key"}, {"Authorization": "bearer sandbox-key"}],
)
async def test_a_key_or_a_bearer_token_opens_the_api(call, headers):
    assert (await call("GET /v3/users/me", key=None, headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Api-Key": "wrong"},
        {"X-Api-Key": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "sandbox-key"},
    ],
    ids=["none", "wrong", "empty", "wrong token", "no scheme"],
)
@pytest.mark.parametrize("what", ["GET /v3/users/me", f"POST {LIPSYNCS}", "POST /v3/assets", f"DELETE {LIPSYNCS}/ls_1"])
async def test_a_missing_key_and_a_wrong_key_give_the_same_401(call, what, headers):
    answer = await call(what, key=None, headers=headers)
    assert (answer.status, answer.error["code"]) == (401, "unauthorized")
    assert answer.body == (await call(what, key=None)).body


async def test_every_answer_has_a_request_id_of_its_own(call, names):
    answers = [
        await call("GET /v3/users/me"),
        await call("GET /v3/users/me", key="wrong"),
        await call("GET /nowhere"),
        await call(f"DELETE {LIPSYNCS}/{names['done']}"),
    ]
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    assert (len(ids), "" in ids) == (4, False)


async def test_there_are_no_rate_limit_headers(sandbox, call):
    answers = [await call(f"POST {LIPSYNCS}", json=BODY) for _ in range(11)]
    assert [answers[0].status, answers[-1].status] == [200, 429]
    assert not [name for answer in answers for name in answer.headers if name.lower().startswith("x-ratelimit")]


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ("GET /nowhere", 404, "not_found"),
        ("GET /v3/lipsyncs/", 404, "not_found"),
        ("GET /v3", 404, "not_found"),
        ("PUT /v3/lipsyncs", 405, "method_not_allowed"),
        ("DELETE /v3/users/me", 405, "method_not_allowed"),
    ],
)
async def test_an_unknown_path_is_answered_with_an_api_error(call, what, status, code):
    answer = await call(what)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["Content-Type"].startswith("application/json")


# --- idempotency -------------------------------------------------------------------------------------------


def keyed(key):
    return {"headers": {"Idempotency-Key": key}}


async def test_the_same_key_replays_the_first_answer_even_to_another_body(sandbox, call):
    first = await call(f"POST {LIPSYNCS}", json=BODY, **keyed("k"))
    assert (await call(f"POST {LIPSYNCS}", json=BODY, **keyed("k"))).body == first.body
    assert (await call(f"POST {LIPSYNCS}", json={"nonsense": 1}, **keyed("k"))).body == first.body
    assert len(sandbox.jobs) == 1
    assert (await call(f"POST {LIPSYNCS}", json=BODY)).body != first.body


async def test_a_key_is_remembered_for_a_day(sandbox, call):
    first = await call(f"POST {LIPSYNCS}", json=BODY, **keyed("k"))
    await sandbox.advance(24 * 3600 - 1)
    assert (await call(f"POST {LIPSYNCS}", json=BODY, **keyed("k"))).body == first.body
    await sandbox.advance(1)
    assert (await call(f"POST {LIPSYNCS}", json=BODY, **keyed("k"))).body != first.body


async def test_only_a_success_is_kept_under_a_key(sandbox, call):
    assert (await call(f"POST {LIPSYNCS}", json={}, **keyed("k"))).status == 400
    assert (await call(f"POST {LIPSYNCS}", json=BODY, **keyed("k"))).status == 200


async def test_a_key_belongs_to_its_endpoint_and_resource(call, names):
    created = await call(f"POST {LIPSYNCS}", json=BODY, **keyed("k"))
    batch = await call(f"POST {LIPSYNCS}/batches", json={"lipsyncs": [BODY]}, **keyed("k"))
    assert (created.data.keys(), batch.data.keys()) == ({"lipsync_id"}, {"batch_id"})
    assert (await upload(call, **keyed("k"))).data.keys() >= {"asset_id"}
    assert (await call("POST /v3/assets/asset_unknown/complete", **keyed("k"))).status == 404
    assert (await call(f"POST /v3/assets/{names['asset']}/complete", **keyed("k"))).status == 200


@pytest.mark.parametrize("key", ["a", "A-Za_z0.9:", "x" * 255])
async def test_a_key_follows_a_grammar(call, key):
    assert (await call(f"POST {LIPSYNCS}", json=BODY, **keyed(key))).status == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a/b", "é"])
async def test_a_key_off_the_grammar_is_refused(sandbox, call, key):
    answer = await call(f"POST {LIPSYNCS}", json=BODY, **keyed(key))
    assert (answer.status, answer.error["param"], sandbox.jobs) == (400, "Idempotency-Key", [])


# --- limits and money --------------------------------------------------------------------------------------


async def test_a_create_past_the_concurrency_limit_gets_a_429(sandbox, call):
    for _ in range(10):
        assert (await call(f"POST {LIPSYNCS}", json=BODY)).status == 200
    answer = await call(f"POST {LIPSYNCS}", json=BODY)
    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (429, "rate_limit_exceeded", "1")
    await sandbox.advance(20)
    assert (await call(f"POST {LIPSYNCS}", json=BODY)).status == 200


async def test_a_batch_does_not_run_into_the_concurrency_limit(sandbox, call):
    body = {"lipsyncs": [BODY] * 100}
    answer = await call(f"POST {LIPSYNCS}/batches", json=body)
    await sandbox.advance(19)
    counts = (await call(f"GET {LIPSYNCS}/batches/{answer.data['batch_id']}")).data["counts_by_status"]
    assert counts == {"processing": 10, "queued": 90}
    await sandbox.advance(181)
    counts = (await call(f"GET {LIPSYNCS}/batches/{answer.data['batch_id']}")).data["counts_by_status"]
    assert counts == {"completed": 100}


@pytest.mark.parametrize(("mode", "rate"), [(None, 0.0333), ("speed", 0.0333), ("precision", 0.0667)])
async def test_the_price_is_by_second_of_output_and_really_spent(sandbox, call, mode, rate):
    await call(f"POST {LIPSYNCS}", json=BODY if mode is None else {**BODY, "mode": mode})
    assert sandbox.charged == pytest.approx(4 * rate)  # the sample is 4 s long
    wallet = (await call("GET /v3/users/me")).data["wallet"]
    assert wallet["remaining_balance"] == pytest.approx(100 - 4 * rate)


async def test_an_empty_wallet_is_a_402(http):
    async with Sandbox(balance=0) as sandbox:
        headers = {"X-Api-Key": sandbox.api_key}
        for path, body in ((LIPSYNCS, BODY), (f"{LIPSYNCS}/batches", {"lipsyncs": [BODY]})):
            async with http.post(sandbox.url + path, json=body, headers=headers) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (402, "insufficient_credit")


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "body", "paths"),
    [
        (f"POST {LIPSYNCS}", {}, ["video", "audio"]),
        (f"POST {LIPSYNCS}", {**BODY, "mode": "fast", "volume": 11, "title": 7}, ["mode", "volume", "title"]),
        (f"POST {LIPSYNCS}", {**BODY, "title": 7, "start_time": 3, "end_time": 2}, ["title", "end_time"]),
        (f"POST {LIPSYNCS}", {**BODY, "video": {"type": "url", "url": "x", "id": 1}}, ["video.url", "video.id"]),
        (f"POST {LIPSYNCS}/batches", {"lipsyncs": [{}, BODY, {**BODY, "mode": 1}]}, ["0.video", "0.audio", "2.mode"]),
        ("POST /v3/assets/direct-uploads", {"filename": 1}, ["content_type", "size_bytes", "filename"]),
        (f"GET {LIPSYNCS}?limit=0&token=x&page=2", None, ["page", "limit", "token"]),
    ],
)
async def test_all_errors_of_a_request_are_answered_at_once(call, what, body, paths):
    answer = await call(what, json=body)
    main = answer.error
    errors = main.pop("errors")
    assert [one["path"].removeprefix("lipsyncs.") for one in errors] == paths
    assert all(one["code"] == "invalid_parameter" and one["message"] for one in errors)
    assert main == {"code": errors[0]["code"], "message": errors[0]["message"], "param": errors[0]["path"]}


async def test_both_sources_are_checked_at_once(call, names):
    wrong = {"type": "asset_id", "asset_id": "asset_unknown"}
    audio = {"type": "asset_id", "asset_id": names["asset"]}
    answer = await call(f"POST {LIPSYNCS}", json={"video": wrong, "audio": audio})
    assert (answer.status, [one["code"] for one in answer.error["errors"]]) == (
        404,
        ["asset_not_found", "invalid_parameter"],
    )


MINIMAL = {
    "mode": ["speed", "precision"],
    "title": ["", "Épisode 1"],
    "enable_caption": [True, False],
    "enable_dynamic_duration": [True, False],
    "disable_music_track": [True, False],
    "enable_speech_enhancement": [True, False],
    "enable_watermark": [True, False],
    "start_time": [0, 1.5],
    "end_time": [1, 2.5],
    "keep_the_same_format": [True, False],
    "fps_mode": ["vfr", "cfr", "passthrough"],
    "callback_url": ["https://example.com/hook", "http://127.0.0.1:9/hook"],
    "callback_id": ["row-7"],
    "folder_id": ["folder"],
}
WRONG = {
    "video": [None, "https://example.com/v.mp4", {}, {"type": "file", "url": "https://example.com/v.mp4"}],
    "audio": [3, [AUDIO], {"url": "https://example.com/a.mp3"}],
    "mode": ["fast", None, 1],
    "title": [None, 7],
    "enable_caption": [None, 1, "true"],
    "enable_dynamic_duration": [0],
    "disable_music_track": ["no"],
    "enable_speech_enhancement": [1.0],
    "enable_watermark": [[]],
    "start_time": [-0.1, "0", True, None],
    "end_time": [-1, {}, 0],
    "keep_the_same_format": ["yes"],
    "fps_mode": ["60", 60],
    "callback_url": ["http://example.com/hook", "hook", "https://", "ftp://example.com", "https://[x"],
    "callback_id": [7],
    "folder_id": [None],
    "volume": [11],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in MINIMAL for value in MINIMAL[field]])
async def test_every_field_of_a_create_is_taken(sandbox, call, field, value):
    body = {**BODY, field: value}
    assert (await call(f"POST {LIPSYNCS}", json=body)).status == 200
    assert sandbox.jobs[0].body == body


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
async def test_a_wrong_or_unknown_field_of_a_create_is_refused_by_name(sandbox, call, field, value):
    answer = await call(f"POST {LIPSYNCS}", json={**BODY, field: value})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_parameter", field)
    assert sandbox.jobs == []


@pytest.mark.parametrize("field", ["video", "audio"])
async def test_video_and_audio_are_required(call, field):
    answer = await call(f"POST {LIPSYNCS}", json={key: value for key, value in BODY.items() if key != field})
    assert (answer.status, answer.error["param"]) == (400, field)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v.mp4",
        "https:///v.mp4",
        "https://localhost/v.mp4",
        "https://127.0.0.1/v.mp4",
        "https://10.1.2.3/v.mp4",
        "https://[::1]/v.mp4",
        "https://localhost./v.mp4",
        "https://media.localhost/v.mp4",
        "https://127.1/v.mp4",
        "https://2130706433/v.mp4",
        "https://0x7f.0.0.1/v.mp4",
        "https://192.168.0.1./v.mp4",
        "https://example.com/a b.mp4",
        "file:///etc/passwd",
        "example.com/v.mp4",
        "",
        7,
    ],
)
async def test_a_source_must_be_public_https(call, url):
    answer = await call(f"POST {LIPSYNCS}", json={**BODY, "video": {"type": "url", "url": url}})
    assert (answer.status, answer.error["param"]) == (400, "video.url")


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ({"type": "asset_id", "asset_id": "asset_unknown"}, 404, "asset_not_found"),
        ({"type": "asset_id", "asset_id": "not an id"}, 400, "invalid_parameter"),
        ({"type": "asset_id", "asset_id": "asset_1", "url": "https://example.com"}, 400, "invalid_parameter"),
        ({"type": "asset_id"}, 400, "invalid_parameter"),
    ],
)
async def test_a_source_must_be_an_asset_that_is_there(call, source, status, code):
    answer = await call(f"POST {LIPSYNCS}", json={**BODY, "audio": source})
    assert (answer.status, answer.error["code"]) == (status, code)


async def test_a_source_must_be_of_the_right_kind(call, names):
    answer = await call(f"POST {LIPSYNCS}", json={**BODY, "audio": {"type": "asset_id", "asset_id": names["asset"]}})
    assert (answer.status, answer.error["param"]) == (400, "audio.asset_id")


@pytest.mark.parametrize(("start", "end"), [(2, 2), (3, 2.5)])
async def test_a_partial_lipsync_ends_after_it_starts(call, start, end):
    answer = await call(f"POST {LIPSYNCS}", json={**BODY, "start_time": start, "end_time": end})
    assert (answer.status, answer.error["param"]) == (400, "end_time")


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b'"x"', b'{"video": NaN}', b"\xff"])
@pytest.mark.parametrize("what", [f"POST {LIPSYNCS}", f"PATCH {LIPSYNCS}/{{done}}", f"POST {LIPSYNCS}/batches"])
async def test_a_body_that_is_no_json_object_is_refused(call, names, what, raw):
    answer = await call(what.format(**names), data=raw, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.error["code"]) == (400, "invalid_parameter")


async def test_json_must_be_called_json(call):
    answer = await call(f"POST {LIPSYNCS}", data=orjson.dumps(BODY), headers={"Content-Type": "text/plain"})
    assert answer.status == 400


async def test_a_body_has_a_limit(call):
    body = io.BytesIO(orjson.dumps({**BODY, "title": "x" * (5 << 20)}))
    answer = await call(f"POST {LIPSYNCS}", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.error["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("what", "param"),
    [
        (f"GET {LIPSYNCS}?limit=0", "limit"),
        (f"GET {LIPSYNCS}?limit=101", "limit"),
        (f"GET {LIPSYNCS}?limit=ten", "limit"),
        (f"GET {LIPSYNCS}?limit=-1", "limit"),
        (f"GET {LIPSYNCS}?limit=1&limit=2", "limit"),
        (f"GET {LIPSYNCS}?token=made-up", "token"),
        (f"GET {LIPSYNCS}?token=", "token"),
        (f"GET {LIPSYNCS}?token=bGlwc3luY3M6LTU", "token"),  # "lipsyncs:-5"
        (f"GET {LIPSYNCS}?page=2", "page"),
        (f"GET {LIPSYNCS}/ls%2F1", "lipsync_id"),
        (f"GET {LIPSYNCS}/ls%201", "lipsync_id"),
        (f"GET {LIPSYNCS}/statuses", "lipsync_ids"),
        (f"GET {LIPSYNCS}/statuses?lipsync_ids=", "lipsync_ids"),
        (f"GET {LIPSYNCS}/statuses?lipsync_ids=a,,b", "lipsync_ids"),
        (f"GET {LIPSYNCS}/statuses?lipsync_ids={','.join(f'ls_{n}' for n in range(101))}", "lipsync_ids"),
        (f"GET {LIPSYNCS}/batches/{{batch}}?limit=101", "limit"),
        ("GET /v3/assets", "username"),
        ("GET /v3/assets?username=sandbox&limit=0", "limit"),
        ("GET /v3/assets/statuses", "asset_ids"),
        ("GET /v3/webhooks/endpoints?limit=x", "limit"),
        ("GET /v3/webhooks/events?token=x", "token"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(call, names, what, param):
    answer = await call(what.format(**names))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_parameter", param)


async def test_the_token_of_one_list_is_not_one_of_another(call, names):
    token = (await call(f"GET {LIPSYNCS}?limit=1")).json["next_token"]
    assert (await call(f"GET {LIPSYNCS}?limit=1&token={token}")).status == 200
    assert (await call(f"GET /v3/webhooks/events?token={token}")).status == 400


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (f"GET {LIPSYNCS}/ls_unknown", "not_found"),
        (f"PATCH {LIPSYNCS}/ls_unknown", "not_found"),
        (f"DELETE {LIPSYNCS}/ls_unknown", "not_found"),
        (f"GET {LIPSYNCS}/batches/batch_unknown", "not_found"),
        ("GET /v3/assets/asset_unknown", "asset_not_found"),
        ("POST /v3/assets/asset_unknown/complete", "asset_not_found"),
        ("DELETE /v3/assets/asset_unknown", "asset_not_found"),
        ("PATCH /v3/webhooks/endpoints/we_unknown", "webhook_not_found"),
        ("DELETE /v3/webhooks/endpoints/we_unknown", "webhook_not_found"),
        ("POST /v3/webhooks/endpoints/we_unknown/rotate-secret", "webhook_not_found"),
    ],
)
async def test_an_unknown_id_is_a_404(call, what, code):
    more = {"json": {"title": "x"}} if what.startswith("PATCH /v3/lip") else {}
    more = {"json": {}} if what.startswith("PATCH /v3/web") else more
    answer = await call(what, **more)
    assert (answer.status, answer.error["code"]) == (404, code)


# --- lipsyncs ----------------------------------------------------------------------------------------------


async def test_a_create_answers_with_the_id(call):
    answer = await call(f"POST {LIPSYNCS}", json=BODY)
    assert (answer.status, answer.json.keys(), answer.data.keys()) == (200, {"data"}, {"lipsync_id"})
    assert answer.data["lipsync_id"].startswith("ls_")


async def test_a_completed_lipsync_has_its_output(call, names):
    data = (await call(f"GET {LIPSYNCS}/{names['done']}")).data
    assert data["duration"] == pytest.approx(4)  # the sample is 4 s long
    assert re.fullmatch(r"http://127.0.0.1:\d+/files/.*\?.*", data.pop("video_url"))
    assert re.fullmatch(r"http://127.0.0.1:\d+/captions/.*\?.*", data.pop("caption_url"))
    assert isinstance(data.pop("created_at"), int)
    assert data == {
        "id": names["done"],
        "title": "Done",
        "status": "completed",
        "duration": data["duration"],
        "callback_id": "row-1",
        "failure_message": None,
    }


async def test_a_failed_lipsync_has_its_failure_message(call, names):
    data = (await call(f"GET {LIPSYNCS}/{names['failed']}")).data
    assert (data["status"], data["failure_message"]) == ("failed", "No face")
    assert (data["video_url"], data["duration"]) == (None, None)


async def test_a_lipsync_goes_from_pending_through_running_to_completed(sandbox, call):
    lipsync_id = (await call(f"POST {LIPSYNCS}", json=BODY)).data["lipsync_id"]
    seen = []
    for _ in range(4):
        one = (await call(f"GET {LIPSYNCS}/{lipsync_id}")).data
        bulk = (await call(f"GET {LIPSYNCS}/statuses?lipsync_ids={lipsync_id}")).data[0]
        seen.append((one["status"], bulk["status"]))
        await sandbox.advance(7)
    assert seen == [("pending", "queued"), ("running", "processing"), ("running", "processing"), ("completed",) * 2]


async def test_created_at_is_a_unix_timestamp_in_seconds(sandbox, call):
    first = (await call(f"POST {LIPSYNCS}", json=BODY)).data["lipsync_id"]
    await sandbox.advance(90)
    second = (await call(f"POST {LIPSYNCS}", json=BODY)).data["lipsync_id"]
    made = [(await call(f"GET {LIPSYNCS}/{one}")).data["created_at"] for one in (first, second)]
    assert made[1] - made[0] == 90
    assert math.isclose(made[0], sandbox.jobs[0].created_at, abs_tol=1)


async def test_a_list_is_newest_first_in_pages_of_ten_by_default(sandbox, call):
    made = []
    for _ in range(12):
        made.append((await call(f"POST {LIPSYNCS}", json=BODY)).data["lipsync_id"])
        await sandbox.advance(20)
    first = (await call(f"GET {LIPSYNCS}")).json
    assert first.keys() == {"data", "has_more", "next_token"}
    assert ([one["id"] for one in first["data"]], first["has_more"]) == (made[:1:-1], True)
    second = (await call(f"GET {LIPSYNCS}?token={first['next_token']}")).json
    assert [one["id"] for one in second["data"]] == made[1::-1]
    assert (second["has_more"], second["next_token"]) == (False, None)
    assert first["data"][0].keys() == (await call(f"GET {LIPSYNCS}/{made[0]}")).data.keys()


async def test_a_list_that_is_read_while_it_changes_repeats_and_skips_nothing(sandbox, call):
    made = [(await call(f"POST {LIPSYNCS}", json=BODY)).data["lipsync_id"] for _ in range(6)]
    first = (await call(f"GET {LIPSYNCS}?limit=2")).json
    await call(f"POST {LIPSYNCS}", json=BODY)
    await call(f"DELETE {LIPSYNCS}/{made[3]}")  # where the next page would have started
    rest = (await call(f"GET {LIPSYNCS}?limit=100&token={first['next_token']}")).json
    assert [one["id"] for one in first["data"] + rest["data"]] == [made[n] for n in (5, 4, 2, 1, 0)]


async def test_an_update_changes_the_title_and_answers_with_the_whole(call, names):
    before = (await call(f"GET {LIPSYNCS}/{names['pending']}")).data
    answer = await call(f"PATCH {LIPSYNCS}/{names['pending']}", json={"title": "Updated Title"})
    assert answer.data == {**before, "title": "Updated Title"}
    assert (await call(f"GET {LIPSYNCS}/{names['pending']}")).data == answer.data


@pytest.mark.parametrize(
    ("body", "param"), [({}, "title"), ({"title": None}, "title"), ({"title": "x", "mode": "speed"}, "mode")]
)
async def test_an_update_takes_a_title_only(call, names, body, param):
    answer = await call(f"PATCH {LIPSYNCS}/{names['done']}", json=body)
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_a_delete_is_permanent(call, names):
    answer = await call(f"DELETE {LIPSYNCS}/{names['done']}")
    assert answer.json == {"data": {"id": names["done"]}}
    assert (await call(f"GET {LIPSYNCS}/{names['done']}")).status == 404
    assert (await call(f"DELETE {LIPSYNCS}/{names['done']}")).status == 404
    listed = (await call(f"GET {LIPSYNCS}")).data
    assert names["done"] not in {one["id"] for one in listed}


# --- statuses and batches ----------------------------------------------------------------------------------


async def test_statuses_have_a_vocabulary_of_their_own_and_keep_the_order_of_the_ids(call, names):
    ids = [names["pending"], "ls_unknown", names["failed"], names["done"], names["done"]]
    answer = (await call(f"GET {LIPSYNCS}/statuses?lipsync_ids={','.join(ids)}")).json
    assert answer == {
        "data": [
            {"video_id": names["pending"], "status": "queued"},
            {"video_id": "ls_unknown", "status": "not_found"},
            {"video_id": names["failed"], "status": "failed", "error": "No face"},
            {"video_id": names["done"], "status": "completed"},
        ],
        "has_more": False,
        "next_token": None,
    }


async def test_statuses_of_an_unknown_batch_say_so(call):
    assert (await call(f"GET {LIPSYNCS}/statuses?batch_ids=batch_unknown")).data == [
        {"video_id": None, "batch_id": "batch_unknown", "status": "not_found"}
    ]


async def test_statuses_take_a_hundred_ids(call):
    ids = [f"ls_{n}" for n in range(100)]
    assert len((await call(f"GET {LIPSYNCS}/statuses?lipsync_ids={','.join(ids)}")).data) == 100


async def test_statuses_of_a_batch_name_the_batch_and_the_place_and_can_page(call):
    bad = {**BODY, "video": {"type": "url", "url": "https://sandbox.invalid/v.mp4?refuse=download_failed"}}
    batch = (await call(f"POST {LIPSYNCS}/batches", json={"lipsyncs": [BODY, bad, BODY]})).data["batch_id"]
    path = f"GET {LIPSYNCS}/statuses?batch_ids={batch}&limit=2"
    first = (await call(path)).json
    rest = (await call(f"{path}&token={first['next_token']}")).json
    rows = first["data"] + rest["data"]
    assert [(row["batch_id"], row["item_index"], row["status"]) for row in rows] == [
        (batch, 0, "queued"),
        (batch, 1, "failed"),
        (batch, 2, "queued"),
    ]
    assert rows[1]["error"] == "The video could not be downloaded."
    assert (first["has_more"], rest["has_more"]) == (True, False)


async def test_a_batch_is_accepted_and_its_cursor_is_inside_its_data(call):
    answer = await call(f"POST {LIPSYNCS}/batches", json={"lipsyncs": [BODY] * 3, "title": "Episodes"})
    assert (answer.status, answer.json.keys(), answer.data.keys()) == (202, {"data"}, {"batch_id"})
    path = f"GET {LIPSYNCS}/batches/{answer.data['batch_id']}?limit=2"
    first = (await call(path)).json
    assert first.keys() == {"data"}
    page = first["data"]
    items, token, created_at = page.pop("items"), page.pop("next_token"), page.pop("created_at")
    assert (isinstance(token, str), isinstance(created_at, int)) == (True, True)
    assert page == {
        "batch_id": answer.data["batch_id"],
        "status": "processing",
        "total_items": 3,
        "counts_by_status": {"queued": 3},
        "title": "Episodes",
        "has_more": True,
    }
    rest = (await call(f"{path}&token={token}")).data
    assert [item["item_index"] for item in items + rest["items"]] == [0, 1, 2]
    assert items[0].keys() == {"item_index", "status", "video_id", "error"}
    assert (rest["has_more"], rest["next_token"]) == (False, None)


async def test_one_bad_source_of_a_batch_fails_alone(sandbox, call):
    gone = {**BODY, "audio": {"type": "asset_id", "asset_id": "asset_gone"}}
    batch = (await call(f"POST {LIPSYNCS}/batches", json={"lipsyncs": [gone, BODY, FAILING]})).data["batch_id"]
    await sandbox.advance(20)
    data = (await call(f"GET {LIPSYNCS}/batches/{batch}")).data
    assert [(item["status"], item["error"]) for item in data["items"]] == [
        ("failed", "Asset 'asset_gone' was not found."),
        ("completed", None),
        ("failed", "No face"),
    ]
    assert (data["status"], data["counts_by_status"]) == ("completed", {"failed": 2, "completed": 1})
    assert [item["video_id"] is None for item in data["items"]] == [True, False, False]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "lipsyncs"),
        ({"lipsyncs": []}, "lipsyncs"),
        ({"lipsyncs": [BODY] * 101}, "lipsyncs"),
        ({"lipsyncs": {"0": BODY}}, "lipsyncs"),
        ({"lipsyncs": [BODY, {"video": VIDEO}]}, "lipsyncs.1.audio"),
        ({"lipsyncs": [{**BODY, "mode": "fast"}]}, "lipsyncs.0.mode"),
        ({"lipsyncs": [{**BODY, "start_time": 2, "end_time": 1}]}, "lipsyncs.0.end_time"),
        ({"lipsyncs": [BODY], "title": 1}, "title"),
        ({"lipsyncs": [BODY], "callback_url": "x"}, "callback_url"),
        ({"lipsyncs": [BODY], "mode": "speed"}, "mode"),
    ],
)
async def test_a_batch_off_its_shape_is_refused_whole(sandbox, call, body, param):
    answer = await call(f"POST {LIPSYNCS}/batches", json=body)
    assert (answer.status, answer.error["param"], sandbox.jobs) == (400, param, [])


# --- assets ------------------------------------------------------------------------------------------------

WAV = (
    b"RIFF\x24\x08\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00"
    b"\x40\x1f\x00\x00\x01\x00\x08\x00data\x00\x08\x00\x00"
)


@pytest.mark.parametrize(
    ("content", "filename", "mime_type"),
    [
        (SAMPLE_VIDEO.read_bytes(), "a.mp4", "video/mp4"),
        (SAMPLE_AUDIO.read_bytes(), "a.MP3", "audio/mpeg"),
        (WAV + bytes(2048), "a.wav", "audio/wav"),
        (b"\x1a\x45\xdf\xa3" + bytes(20) + b"\x42\x82\x84webm" + bytes(100), "a.webm", "video/webm"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a.png", "image/png"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a.jpeg", "image/jpeg"),
        (b"%PDF-1.7\n" + bytes(100), "a.pdf", "application/pdf"),
        (b"1\n00:00:00,000 --> 00:00:01,000\nBonjour\n", "a.srt", "application/x-subrip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_type_of_an_asset_is_detected_from_its_bytes(call, content, filename, mime_type):
    data = (await upload(call, content, filename)).data
    assert data.keys() == {"asset_id", "url", "mime_type", "size_bytes"}
    assert (data["mime_type"], data["size_bytes"]) == (mime_type, len(content))


async def test_an_upload_over_32_mb_is_refused_before_it_is_sent(sandbox, call):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    head = (
        "POST /v3/assets HTTP/1.1\r\nHost: sandbox\r\nX-Api-Key: sandbox-key\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {33 << 20}\r\n\r\n"
    )
    async with asyncio.timeout(ENOUGH):
        writer.write(head.encode())
        assert b" 413 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_an_asset_can_be_read(call, names):
    data = (await call(f"GET /v3/assets/{names['asset']}")).data
    assert data.keys() == {"id", "name", "type", "owner", "space_id", "uploaded_at", "folder_id", "url"}
    assert (data["id"], data["name"], data["type"], data["owner"]) == (names["asset"], "source.mp4", "video", "sandbox")


async def test_assets_are_listed_for_their_owner_newest_first(call, names):
    newer = (await upload(call)).data["asset_id"]
    answer = (await call("GET /v3/assets?username=sandbox&limit=1")).json
    assert ([one["id"] for one in answer["data"]], answer["has_more"]) == ([newer], True)
    rest = (await call(f"GET /v3/assets?username=sandbox&token={answer['next_token']}")).json
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([names["asset"]], False)
    assert (await call("GET /v3/assets?username=sandbox&folder_id=f")).data == []
    assert (await call("GET /v3/assets?username=somebody")).status == 403


async def test_assets_have_statuses(call, names):
    body = {"filename": "a.mp3", "content_type": "audio/mpeg", "size_bytes": 10}
    waiting = (await call("POST /v3/assets/direct-uploads", json=body)).data["asset_id"]
    rows = (await call(f"GET /v3/assets/statuses?asset_ids={names['asset']},{waiting},asset_unknown")).data
    assert [row["status"] for row in rows] == ["completed", "pending_upload", "not_found"]


async def test_an_asset_is_deleted_permanently(call, names):
    assert (await call(f"DELETE /v3/assets/{names['asset']}")).json == {"data": {"id": names["asset"]}}
    answer = await call(f"POST {LIPSYNCS}", json={**BODY, "video": {"type": "asset_id", "asset_id": names["asset"]}})
    assert (answer.status, answer.error["code"]) == (404, "asset_not_found")


async def test_a_direct_upload_gets_its_url_and_headers(call):
    content = SAMPLE_AUDIO.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    body = {"filename": "a.mp3", "content_type": "audio/mpeg", "size_bytes": len(content), "checksum_sha256": digest}
    data = (await call("POST /v3/assets/direct-uploads", json=body)).data
    assert data.keys() == {"asset_id", "upload_url", "upload_headers", "expires_in_seconds", "max_bytes", "status"}
    assert (data["status"], data["upload_headers"]["Content-Type"]) == ("pending_upload", "audio/mpeg")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"filename": 7}, 400, "filename"),
        ({"filename": "a.mp4"}, 400, "filename"),
        ({"content_type": "image/gif"}, 400, "content_type"),
        ({"size_bytes": 0}, 400, "size_bytes"),
        ({"size_bytes": 1.5}, 400, "size_bytes"),
        ({"size_bytes": (1 << 30) + 1}, 413, "size_bytes"),
        ({"checksum_sha256": "abc"}, 400, "checksum_sha256"),
        ({"folder": "x"}, 400, "folder"),
    ],
)
async def test_a_direct_upload_off_its_shape_is_refused(call, change, status, param):
    body = {"filename": "a.mp3", "content_type": "audio/mpeg", "size_bytes": 10, **change}
    answer = await call("POST /v3/assets/direct-uploads", json=body)
    assert (answer.status, answer.error["param"]) == (status, param)


# --- webhooks ----------------------------------------------------------------------------------------------


async def test_an_endpoint_shows_its_secret_once(call, names):
    made = (await call("POST /v3/webhooks/endpoints", json={"url": "https://example.com/hook"})).data
    assert made.keys() == {"endpoint_id", "url", "events", "status", "created_at", "secret"}
    assert (made["status"], made.pop("secret").startswith("whsec_")) == ("enabled", True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])
    answer = (await call("GET /v3/webhooks/endpoints?limit=1")).json
    assert (answer["data"], answer["has_more"]) == ([made], True)
    rotated = (await call(f"POST /v3/webhooks/endpoints/{made['endpoint_id']}/rotate-secret")).data
    assert rotated.keys() == {"endpoint_id", "secret"}


async def test_an_update_of_an_endpoint_replaces_its_events_whole(call, names):
    path = f"PATCH /v3/webhooks/endpoints/{names['endpoint']}"
    assert (await call(path, json={"events": ["batch.finished"]})).data["events"] == ["batch.finished"]
    changed = (await call(path, json={"url": "https://example.com/other"})).data
    assert (changed["url"], changed["events"]) == ("https://example.com/other", ["batch.finished"])
    assert (await call(path, json={"events": None})).data["events"] is None
    assert (await call(f"DELETE /v3/webhooks/endpoints/{names['endpoint']}")).status == 200
    assert (await call(path, json={})).status == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": "http://example.com"}, "url"),
        ({"url": "https://example.com", "events": ["lipsync.success"]}, "events"),
        ({"url": "https://example.com", "events": []}, "events"),
        ({"url": "https://example.com", "events": "batch.finished"}, "events"),
        ({"url": "https://example.com", "secret": "mine"}, "secret"),
    ],
)
async def test_an_endpoint_off_its_shape_is_refused(call, body, param):
    answer = await call("POST /v3/webhooks/endpoints", json=body)
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_event_types_are_those_that_the_api_publishes_and_none_is_of_single_lipsyncs(call):
    rows = (await call("GET /v3/webhooks/event-types")).data
    types = {row["event_type"] for row in rows}
    assert types >= {"avatar_video.success", "video_translate.fail", "proofread_creation.success", "batch.finished"}
    assert not [name for name in types if name.startswith("lipsync")]
    assert all(row.keys() == {"event_type", "description"} for row in rows)


async def test_an_endpoint_without_events_gets_all(call, names):
    made = (await call("POST /v3/webhooks/endpoints", json={"url": "https://example.com/hook"})).data
    assert made["events"] is None


async def test_the_history_of_events_can_be_read_and_narrowed(sandbox, call, names):
    second = (await call(f"POST {LIPSYNCS}/batches", json={"lipsyncs": [BODY]})).data["batch_id"]
    await sandbox.advance(60)
    rows = (await call("GET /v3/webhooks/events")).data
    assert [(row["event_type"], row["event_data"]["batch_id"]) for row in rows] == [
        ("batch.finished", second),
        ("batch.finished", names["batch"]),
    ]
    assert rows[0].keys() == {"event_id", "event_type", "event_data", "created_at"}
    assert (await call("GET /v3/webhooks/events?event_type=batch.finished")).data == rows
    assert (await call("GET /v3/webhooks/events?event_type=avatar_video.fail")).data == []
    assert (await call(f"GET /v3/webhooks/events?entity_id={names['batch']}")).data == rows[1:]
    first = (await call("GET /v3/webhooks/events?limit=1")).json
    rest = (await call(f"GET /v3/webhooks/events?token={first['next_token']}")).json
    assert (first["data"] + rest["data"], rest["has_more"]) == (rows, False)


# --- account -----------------------------------------------------------------------------------------------


async def test_the_key_describes_itself(call):
    data = (await call("GET /v3/api_keys/self")).data
    assert data.keys() == {"key_id", "key_name", "status", "scope_mode", "scopes", "created_at", "updated_at"}
    assert (data["scopes"], data["scope_mode"]) == (["*:*"], "all")


@pytest.mark.parametrize("seconds", [math.inf, 1e15, 1e11 + 1])
async def test_a_key_that_outlives_the_calendar_has_no_expiry(http, seconds):
    async with (
        Sandbox(key_seconds=seconds) as sandbox,
        http.get(f"{sandbox.url}/v3/api_keys/self", headers={"X-Api-Key": sandbox.api_key}) as answer,
    ):
        body = await answer.json()
    assert (answer.status, body["data"]["status"]) == (200, "active")
    assert not {"expires_at", "expires_in_seconds"} & set(body["data"])


async def test_the_account_has_its_wallet(call):
    data = (await call("GET /v3/users/me")).data
    assert (data["username"], data["billing_type"]) == ("sandbox", "wallet")
    assert (data["wallet"]["currency"], data["wallet"]["remaining_balance"]) == ("usd", 100.0)


# --- the calls of HeyGen's own page, with curl -------------------------------------------------------------

# As the page prints them; only the host and the id are others, and the key is in the environment.
CREATE = """\
curl -X POST "https://api.heygen.com/v3/lipsyncs" \\
  -H "X-Api-Key: $HEYGEN_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "video": { "type": "url", "url": "https://example.com/source.mp4" },
    "audio": { "type": "url", "url": "https://example.com/new-audio.mp3" },
    "mode": "speed"
  }'
"""
GET = """\
curl -X GET "https://api.heygen.com/v3/lipsyncs/ls_abc123" \\
  -H "X-Api-Key: $HEYGEN_API_KEY"
"""
LIST = """\
curl -X GET "https://api.heygen.com/v3/lipsyncs?limit=10" \\
  -H "X-Api-Key: $HEYGEN_API_KEY"
"""
UPDATE = """\
curl -X PATCH "https://api.heygen.com/v3/lipsyncs/ls_abc123" \\
  -H "X-Api-Key: $HEYGEN_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{ "title": "Updated Title" }'
"""
DELETE = """\
curl -X DELETE "https://api.heygen.com/v3/lipsyncs/ls_abc123" \\
  -H "X-Api-Key: $HEYGEN_API_KEY"
"""
POLL = """\
curl -s "https://api.heygen.com/v3/lipsyncs/ls_abc123" \\
    -H "X-Api-Key: $HEYGEN_API_KEY"
"""


@pytest.fixture
def shell(sandbox):
    """Run a command of the page against the sandbox and return the JSON that it prints."""
    environment = {"PATH": os.environ["PATH"], "HEYGEN_API_KEY": sandbox.api_key}

    async def run(command, lipsync_id=""):
        line = command.replace("https://api.heygen.com", sandbox.url).replace("ls_abc123", lipsync_id)
        pipe = asyncio.subprocess.PIPE
        async with asyncio.timeout(ENOUGH):
            process = await asyncio.create_subprocess_exec("sh", "-c", line, stdout=pipe, stderr=pipe, env=environment)
            printed, complaints = await process.communicate()
        assert process.returncode == 0, complaints
        return orjson.loads(printed)

    return run


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.skipif(os.name != "posix", reason="the page's commands are for a POSIX shell")
async def test_the_curl_calls_of_the_page_work_with_only_the_host_changed(sandbox, shell):
    lipsync_id = (await shell(CREATE))["data"]["lipsync_id"]
    assert (await shell(POLL, lipsync_id))["data"]["status"] == "pending"
    await sandbox.advance(20)
    got = (await shell(GET, lipsync_id))["data"]
    assert (got["id"], got["status"], got["failure_message"]) == (lipsync_id, "completed", None)
    assert (await shell(LIST))["data"][0]["id"] == lipsync_id
    assert (await shell(UPDATE, lipsync_id))["data"]["title"] == "Updated Title"
    assert await shell(DELETE, lipsync_id) == {"data": {"id": lipsync_id}}
    assert (await shell(GET, lipsync_id))["error"]["code"] == "not_found"
