"""The exact requests of the API's own documentation, seen by aiohttp's client."""

from functools import partialmethod
from unittest.mock import Mock

import aiohttp
import orjson
import pytest
from aioresponses import aioresponses
from yarl import URL

import heygen_async
from heygen_async import AssetId, HeyGenSession, RetryPolicy

API = "https://api.heygen.com"
OF_EVERY_REQUEST = {
    "Accept": "application/json",
    "User-Agent": f"heygen-async/{heygen_async.__version__} aiohttp/{aiohttp.__version__}",
    "X-Api-Key": "sk_test",
}


class Response(aiohttp.ClientResponse):
    """aiohttp 3.14 asks for a `stream_writer`, which aioresponses 0.7 does not give."""

    __init__ = partialmethod(aiohttp.ClientResponse.__init__, stream_writer=Mock(output_size=0))


@pytest.fixture
def api():
    with aioresponses() as mocked:
        plain = mocked.add
        mocked.add = lambda url, **more: plain(url, response_class=Response, **more)
        yield mocked


@pytest.fixture
async def heygen():
    async with HeyGenSession("sk_test", retry=RetryPolicy(max_attempts=1)) as session:
        yield session


def sent(api):
    ((method, url), (call,)), *others = api.requests.items()
    assert not others
    return method, url, call.kwargs


async def test_the_create_of_the_quick_example(api, heygen):
    api.add(f"{API}/v3/lipsyncs", method="POST", payload={"data": {"lipsync_id": "ls_abc123"}})
    job = await heygen.lipsyncs.create(
        video="https://example.com/source.mp4", audio="https://example.com/new-audio.mp3", mode="speed"
    )
    method, url, call = sent(api)
    assert job.id == "ls_abc123"
    assert (method, url) == ("POST", URL(f"{API}/v3/lipsyncs"))
    assert orjson.loads(call["data"]) == {
        "video": {"type": "url", "url": "https://example.com/source.mp4"},
        "audio": {"type": "url", "url": "https://example.com/new-audio.mp3"},
        "mode": "speed",
    }
    assert call["headers"] == {
        **OF_EVERY_REQUEST,
        "Content-Type": "application/json",
        "Idempotency-Key": job.idempotency_key,
    }
    assert call["allow_redirects"] is False


async def test_a_create_from_an_asset(api, heygen):
    api.add(f"{API}/v3/lipsyncs", method="POST", payload={"data": {"lipsync_id": "ls_1"}})
    await heygen.lipsyncs.create(video=AssetId("asset_xyz789"), audio=AssetId("as_2"))
    body = orjson.loads(sent(api)[2]["data"])
    assert body["video"] == {"type": "asset_id", "asset_id": "asset_xyz789"}


async def test_the_get_of_the_page(api, heygen):
    api.add(f"{API}/v3/lipsyncs/ls_abc123", method="GET", payload={"data": {"id": "ls_abc123", "status": "running"}})
    assert (await heygen.lipsyncs.get("ls_abc123")).status == "running"
    method, url, call = sent(api)
    assert (method, str(url)) == ("GET", f"{API}/v3/lipsyncs/ls_abc123")
    assert call["data"] is None
    assert call["headers"] == OF_EVERY_REQUEST


async def test_the_list_of_the_page_with_its_cursor(api, heygen):
    one = {"data": [{"id": "ls_1", "status": "running"}], "has_more": True, "next_token": "a/b+c=="}
    api.add(f"{API}/v3/lipsyncs?limit=10", method="GET", payload=one)
    two = {"data": [], "has_more": False, "next_token": None}
    api.add(URL(f"{API}/v3/lipsyncs?limit=10&token=a%2Fb%2Bc%3D%3D", encoded=True), method="GET", payload=two)
    assert [lipsync.id async for lipsync in heygen.lipsyncs.list(page_size=10)] == ["ls_1"]


async def test_the_update_of_the_page(api, heygen):
    answer = {"data": {"id": "ls_abc123", "status": "completed", "title": "Updated Title"}}
    api.add(f"{API}/v3/lipsyncs/ls_abc123", method="PATCH", payload=answer)
    await heygen.lipsyncs.update("ls_abc123", title="Updated Title")
    method, _, call = sent(api)
    assert (method, call["data"]) == ("PATCH", b'{"title":"Updated Title"}')
    assert "Idempotency-Key" not in call["headers"]


async def test_the_delete_of_the_page(api, heygen):
    api.add(f"{API}/v3/lipsyncs/ls_abc123", method="DELETE", payload={"data": {"id": "ls_abc123"}})
    await heygen.lipsyncs.delete("ls_abc123")
    assert sent(api)[0] == "DELETE"


async def test_the_statuses_of_many(api, heygen):
    answer = {"data": [{"video_id": "ls_1", "status": "processing"}], "has_more": False, "next_token": None}
    api.add(f"{API}/v3/lipsyncs/statuses?lipsync_ids=ls_1,ls_2", method="GET", payload=answer)
    assert await heygen.lipsyncs.statuses(["ls_1", "ls_2", "ls_1"]) == {"ls_1": "running"}


async def test_the_key_is_a_constant_of_the_client_for_the_api_and_of_no_other(heygen):
    heygen._connections.ensure_open()
    assert heygen._connections._api.headers["X-Api-Key"] == "sk_test"
    assert "X-Api-Key" not in heygen._connections.files.headers
