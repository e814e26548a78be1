"""Whole calls against a sandbox whose optional fields have types that nobody expects."""

import pytest

from heygen_async import HeyGenSession, LipsyncFailed, LipsyncRequest, PollPolicy
from heygen_async.sandbox import Sandbox
from heygen_async.sandbox.faults import odd_fields

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
