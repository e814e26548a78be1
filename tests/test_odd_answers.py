"""Whole calls against a sandbox whose optional fields have types that nobody expects."""

import pytest

from heygen_async import (
    DubRow,
    HeyGenError,
    HeyGenSession,
    LipsyncFailed,
    LipsyncRequest,
    PollPolicy,
    RetryPolicy,
    UnexpectedResponse,
)
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox
from heygen_async.sandbox.faults import error, odd_fields, reset, server_error

SOURCES = {"video": "https://example.com/v.mp4", "audio": "https://example.com/a.mp3"}
FAST = PollPolicy(fastest=0.02, slowest=0.1)
OPTIONAL = [
    "batch_title",
    "callback_id",
    "caption_url",
    "counts_by_status",
    "created_at",
    "description",
    "duration",
    "email",
    "error",
    "events",
    "expires_at",
    "failure_message",
    "first_name",
    "key_name",
    "mime_type",
    "name",
    "scopes",
    "size_bytes",
    "title",
    "total_items",
    "type",
    "updated_at",
    "uploaded_at",
    "url",
    "username",
    "wallet",
]


@pytest.mark.parametrize(
    "value",
    [None, "", 0, -1, 42, 1e300, True, "NaN", "12.5", "half \ud83d", [], ["a", 1], {}, {"code": "x", "message": "m"}],
    ids=repr,
)
async def test_no_optional_field_makes_anything_unreachable(value):
    odd = odd_fields(fields=dict.fromkeys(OPTIONAL, value))
    async with (
        Sandbox(manual=True, faults=[odd]) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, polling=FAST) as heygen,
    ):
        job = await heygen.lipsyncs.create(**SOURCES, title="T", callback_id="row-1")
        failing = await heygen.lipsyncs.create(**SOURCES)
        sandbox.fail(failing.id, "no face")
        batch = await heygen.lipsyncs.create_batch([LipsyncRequest(**SOURCES)], title="B")
        await sandbox.advance(60)

        assert (await job.wait(timeout=30)).video_url
        with pytest.raises(LipsyncFailed):
            await failing.wait(timeout=30)
        assert (await batch.wait(timeout=30)).status == "completed"
        assert [item.item_index for item in await batch.items().collect()] == [0]
        assert len(await heygen.lipsyncs.list().collect()) == 3
        assert await heygen.lipsyncs.update(job.id, title="U")
        await heygen.account.me()
        await heygen.account.key()
        await heygen.webhooks.create("https://app.example/hook")
        await heygen.webhooks.list().collect()
        await heygen.webhooks.event_types()
        for lipsync in await heygen.lipsyncs.list().collect():
            lipsync.to_json()


async def create(heygen):
    return (await heygen.lipsyncs.create(**SOURCES, idempotency_key="mine")).id


async def create_batch(heygen):
    return (await heygen.lipsyncs.create_batch([LipsyncRequest(**SOURCES)], idempotency_key="mine")).id


@pytest.mark.parametrize("odd", ["", "../x", "ls 1", "statuses", "a/b", "ls_1,ls_2", "x" * 256])
@pytest.mark.parametrize(
    ("make", "route", "field"),
    [
        pytest.param(create, "POST /v3/lipsyncs", "lipsync_id", id="create"),
        pytest.param(create_batch, "POST /v3/lipsyncs/batches", "batch_id", id="create_batch"),
    ],
)
async def test_a_create_answered_with_no_usable_id_is_in_doubt_and_its_key_returns_the_true_one(
    make, route, field, odd
):
    faults = [odd_fields(route, fields={field: odd}, times=1)]
    async with Sandbox(manual=True, faults=faults) as sandbox, session(sandbox) as heygen:
        with pytest.raises(UnexpectedResponse, match=rf"no usable id @ \$\.data\.{field}") as odd_answer:
            await make(heygen)
        again = await make(heygen)

    odd_error = odd_answer.value
    assert (odd_error.outcome, odd_error.idempotency_key, odd_error.attempts) == ("unknown", "mine", 1)
    assert again
    assert len(sandbox.jobs) == 1


@pytest.mark.parametrize(
    "refusal",
    [error(402, "insufficient_credit"), server_error(status=404, body="html"), server_error(body="html"), reset()],
    ids=str,
)
async def test_a_create_in_doubt_stays_so_whatever_refuses_it_next(refusal):
    """Without a usable id the first answer says that there is a job, and no such answer that there is none."""
    odd = odd_fields("POST /v3/lipsyncs", fields={"lipsync_id": ""}, times=1)
    async with Sandbox(manual=True, faults=[odd]) as sandbox, session(sandbox) as heygen:
        with pytest.raises(UnexpectedResponse):
            await create(heygen)
        sandbox.faults = [refusal]
        with pytest.raises(HeyGenError) as again:
            await create(heygen)

    assert again.value.outcome == "unknown"


def session(sandbox):
    once = RetryPolicy(max_attempts=1)
    return HeyGenSession(sandbox.api_key, base_url=sandbox.url, polling=FAST, retry=once)


@pytest.mark.parametrize("odd", ["", " ", "a b"])
@pytest.mark.parametrize(
    ("route", "multipart_max"),
    [
        pytest.param("POST /v3/assets", 32_000_000, id="form"),
        pytest.param("POST /v3/assets/direct-uploads", 0, id="direct"),
        pytest.param("POST /v3/assets/{asset_id}/complete", 0, id="complete"),
    ],
)
async def test_an_upload_answered_with_no_usable_id_is_an_error_and_is_not_remembered(route, multipart_max, odd):
    faults = [odd_fields(route, fields={"asset_id": odd}, times=1)]
    async with Sandbox(faults=faults) as sandbox, session(sandbox) as heygen:
        heygen._calls.transfers.multipart_max = multipart_max
        with pytest.raises(UnexpectedResponse, match="no usable id"):
            await heygen.assets.upload(SAMPLE_AUDIO)
        await heygen.lipsyncs.create(video=SAMPLE_VIDEO, audio=SAMPLE_AUDIO)


ONE = "GET /v3/lipsyncs/{lipsync_id}"


async def wait_for(heygen, job):
    await heygen.poller.wait(job.id, timeout=20)


async def download(heygen, job):
    await heygen.download(job.id, "a.mp4")


async def get(heygen, job):
    await heygen.lipsyncs.get(job.id)


@pytest.mark.parametrize("call", [wait_for, download, get])
async def test_the_lipsync_that_is_answered_for_another_id_is_not_used(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with Sandbox(speed=500) as sandbox, session(sandbox) as heygen:
        other = await heygen.lipsyncs.create(**SOURCES, title="Somebody else's")
        job = await heygen.lipsyncs.create(**SOURCES)
        await job.wait()
        sandbox.faults.append(odd_fields(ONE, fields={"id": other.id}))
        with pytest.raises(UnexpectedResponse, match="another id than the requested one") as caught:
            await call(heygen, job)

    assert caught.value.is_transient
    assert list(tmp_path.iterdir()) == []


async def test_a_wait_goes_on_after_the_answer_for_another_id():
    async with Sandbox(speed=500) as sandbox, session(sandbox) as heygen:
        job = await heygen.lipsyncs.create(**SOURCES)
        sandbox.faults.append(odd_fields(ONE, fields={"id": "ls_other"}, times=2))

        assert (await job.wait(timeout=30)).id == job.id


async def test_a_bulk_run_records_no_job_that_is_answered_for_another_id(tmp_path):
    row = DubRow(**SOURCES, key="c")
    async with Sandbox(speed=500) as sandbox, session(sandbox) as heygen:
        sandbox.faults.append(odd_fields(ONE, fields={"id": "ls_other"}, times=1))
        async with heygen.dub_many([row], journal=tmp_path / "j.sqlite", output_dir=tmp_path) as run:
            (outcome,) = [outcome async for outcome in run]

    assert outcome.lipsync is not None
    assert outcome.lipsync.id == sandbox.jobs[0].id


async def rename(heygen, id):
    await heygen.lipsyncs.update(id, title="T")


async def get_batch(heygen, id):
    await heygen.lipsyncs.batch(id).get()


async def list_items(heygen, id):
    await heygen.lipsyncs.batch(id).items().collect()


async def get_asset(heygen, id):
    await heygen.assets.get(id)


async def change_endpoint(heygen, id):
    await heygen.webhooks.update(id, url="https://app.example/b")


async def rotate_secret(heygen, id):
    await heygen.webhooks.rotate_secret(id)


async def make_lipsync(heygen):
    return (await heygen.lipsyncs.create(**SOURCES)).id


async def make_batch(heygen):
    return (await heygen.lipsyncs.create_batch([LipsyncRequest(**SOURCES)])).id


async def make_asset(heygen):
    return (await heygen.assets.upload(SAMPLE_AUDIO)).id


async def make_endpoint(heygen):
    return (await heygen.webhooks.create("https://app.example/a")).id


@pytest.mark.parametrize(
    ("make", "call", "field"),
    [
        (make_lipsync, rename, "id"),
        (make_batch, get_batch, "batch_id"),
        (make_batch, list_items, "batch_id"),
        (make_asset, get_asset, "id"),
        (make_endpoint, change_endpoint, "endpoint_id"),
        (make_endpoint, rotate_secret, "endpoint_id"),
    ],
)
async def test_nothing_that_is_answered_for_another_id_is_used(make, call, field):
    async with Sandbox() as sandbox, session(sandbox) as heygen:
        own_id = await make(heygen)
        await call(heygen, own_id)
        sandbox.faults.append(odd_fields(fields={field: "another"}))
        with pytest.raises(UnexpectedResponse, match="another id than the requested one"):
            await call(heygen, own_id)


@pytest.mark.parametrize("id", [None, 5, ["we_1"]])
async def test_the_answer_to_a_rotation_need_not_name_the_endpoint(id):
    async with Sandbox() as sandbox, session(sandbox) as heygen:
        own_id = await make_endpoint(heygen)
        sandbox.faults.append(odd_fields(fields={"endpoint_id": id}))
        assert (await heygen.webhooks.rotate_secret(own_id)).reveal()


async def test_an_upload_that_is_completed_as_another_asset_is_an_error():
    faults = [odd_fields("POST /v3/assets/{asset_id}/complete", fields={"asset_id": "another"})]
    async with Sandbox(faults=faults) as sandbox, session(sandbox) as heygen:
        heygen._calls.transfers.multipart_max = 0
        with pytest.raises(UnexpectedResponse, match="no usable id"):
            await heygen.assets.upload(SAMPLE_AUDIO)
