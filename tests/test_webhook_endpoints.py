"""`session.webhooks` against the sandbox."""

import logging

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from heygen_async import HeyGenSession, LipsyncRequest, NotFound, Secret, ServerError
from heygen_async.models import WebhookEvent
from heygen_async.sandbox import Sandbox
from heygen_async.sandbox.faults import Fault, Reply, reset, server_error
from heygen_async.webhooks import WebhookReceiver, verify

URL = "https://app.example/hook"
SOURCES = {"video": "https://example.com/v.mp4", "audio": "https://example.com/a.mp3"}


async def test_an_endpoint_is_created_with_a_secret_that_is_never_printed(heygen, caplog):
    caplog.set_level(logging.DEBUG)

    endpoint = await heygen.webhooks.create(URL, events=["batch.finished"])

    assert (endpoint.url, endpoint.status, list(endpoint.events)) == (URL, "enabled", ["batch.finished"])
    assert endpoint.created_at.tzinfo is not None
    assert isinstance(endpoint.secret, Secret)
    assert endpoint.secret.reveal()
    assert endpoint.secret.reveal() not in repr(endpoint) + str(endpoint.secret) + caplog.text


async def test_an_endpoint_without_events_gets_all(heygen):
    endpoint = await heygen.webhooks.create(URL)

    assert endpoint.events is None
    assert "batch.finished" in [kind.event_type for kind in await heygen.webhooks.event_types()]


async def test_event_types_are_those_of_all_pages(sandbox, heygen):
    pages = [
        {"data": [{"event_type": "a.success"}], "has_more": True, "next_token": "two"},
        {"data": [{"event_type": "batch.finished"}], "has_more": False, "next_token": None},
    ]
    route = "GET /v3/webhooks/event-types"
    sandbox.faults = [Fault(route, Reply(status=200, body=orjson.dumps(page)), times=1) for page in pages]

    found = await heygen.webhooks.event_types()

    assert [kind.event_type for kind in found] == ["a.success", "batch.finished"]
    assert [request.query.get("token") for request in sandbox.requests] == [None, "two"]


async def test_an_endpoint_can_be_limited_to_one_entity(sandbox, heygen):
    await heygen.webhooks.create(URL, entity_id="ls_1")

    assert sandbox.requests[-1].json == {"url": URL, "entity_id": "ls_1"}


async def test_endpoints_are_listed_page_by_page_without_their_secrets(heygen):
    made = [(await heygen.webhooks.create(f"{URL}/{n}")).id for n in range(3)]

    found = await heygen.webhooks.list(page_size=2).collect()

    assert [endpoint.id for endpoint in found] == made[::-1]
    assert [endpoint.secret for endpoint in found] == [None] * 3


async def test_an_update_changes_what_it_names(heygen):
    endpoint = await heygen.webhooks.create(URL)

    moved = await heygen.webhooks.update(endpoint.id, url=f"{URL}/2")
    assert (moved.url, moved.events) == (f"{URL}/2", endpoint.events)

    quieter = await heygen.webhooks.update(endpoint.id, events=iter(["batch.finished"]))
    assert (quieter.url, list(quieter.events)) == (f"{URL}/2", ["batch.finished"])


async def test_an_endpoint_that_was_deleted_is_gone(heygen):
    endpoint = await heygen.webhooks.create(URL)

    await heygen.webhooks.delete(endpoint.id)

    assert await heygen.webhooks.list().collect() == []
    with pytest.raises(NotFound):
        await heygen.webhooks.delete(endpoint.id)


async def test_a_rotation_gives_another_secret(heygen):
    endpoint = await heygen.webhooks.create(URL)

    secret = await heygen.webhooks.rotate_secret(endpoint.id)

    assert isinstance(secret, Secret)
    assert secret.reveal() != endpoint.secret.reveal()
    with pytest.raises(NotFound):
        await heygen.webhooks.rotate_secret("we_none")


async def test_a_secret_that_got_lost_is_returned_again_under_the_same_key(sandbox, heygen):
    sandbox.faults = [reset("POST /v3/webhooks/endpoints", after=True, times=1)]

    endpoint = await heygen.webhooks.create(URL)

    assert len(await heygen.webhooks.list().collect()) == 1
    again = await heygen.webhooks.create(URL, idempotency_key="hook-1")
    assert again.id != endpoint.id
    assert await heygen.webhooks.create(URL, idempotency_key="hook-1") == again


async def test_the_history_is_read_page_by_page_and_by_type():
    guessed = Sandbox(manual=True, lipsync_events=True)
    async with guessed as sandbox, HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
        jobs = [await heygen.lipsyncs.create(**SOURCES, callback_id=f"row-{n}") for n in range(3)]
        sandbox.fail(jobs[0].id, "no face")
        await sandbox.advance(60)

        events = await heygen.webhooks.events(page_size=2).collect()
        failed = await heygen.webhooks.events(event_type="lipsync.fail").collect()
        of_one = await heygen.webhooks.events(entity_id=jobs[2].id).collect()

    assert {event.lipsync_id for event in events} == {job.id for job in jobs}
    assert all(isinstance(event, WebhookEvent) and event.created_at.tzinfo for event in events)
    assert [(event.outcome, event.failure_message, event.callback_id) for event in failed] == [
        ("failed", "no face", "row-0")
    ]
    assert [(event.outcome, event.lipsync_id) for event in of_one] == [("completed", jobs[2].id)]


@pytest.mark.parametrize(
    "url", ["", "app.example", "http://app.example/hook", "ftp://app.example", "https://", "https://app.example/a b"]
)
async def test_a_url_that_heygen_cannot_reach_is_a_value_error(sandbox, heygen, url):
    with pytest.raises(ValueError, match="url"):
        await heygen.webhooks.create(url)
    with pytest.raises(ValueError, match="url"):
        await heygen.webhooks.update("we_1", url=url)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        ("lipsync.fail", TypeError, "events must be a list of event types"),
        ([5], TypeError, "events must be a string"),
        ([], ValueError, "events must name at least one event type, or be left out"),
    ],
)
async def test_events_that_are_not_a_list_of_names_are_misuse(heygen, events, error, message):
    with pytest.raises(error, match=message):
        await heygen.webhooks.create(URL, events=events)
    with pytest.raises(error, match=message):
        await heygen.webhooks.update("we_1", events=events)


async def test_an_update_of_nothing_is_a_value_error(heygen):
    with pytest.raises(ValueError, match="nothing"):
        await heygen.webhooks.update("we_1")


async def test_a_secret_is_in_no_error(sandbox, heygen):
    sandbox.faults = [server_error("POST /v3/webhooks/endpoints/{endpoint_id}/rotate-secret", status=500)]
    endpoint = await heygen.webhooks.create(URL)

    with pytest.raises(ServerError) as caught:
        await heygen.webhooks.rotate_secret(endpoint.id)

    assert endpoint.secret.reveal() not in repr(caught.value) + str(caught.value)


@pytest.mark.parametrize("odd", [{"event_type": None}, {"event_type": 5}, {}], ids=["null", "a number", "none"])
async def test_a_past_event_without_a_type_does_not_hide_the_others_of_its_page(sandbox, heygen, odd):
    events = [{"event_id": "evt_2", "event_type": "batch.finished"}, {"event_id": "evt_1", "event_data": {}, **odd}]
    body = orjson.dumps({"data": events, "has_more": False, "next_token": None})
    sandbox.faults = [Fault("GET /v3/webhooks/events", Reply(status=200, body=body))]

    found = await heygen.webhooks.events().collect()

    assert [(event.event_id, event.event_type) for event in found] == [("evt_2", "batch.finished"), ("evt_1", "")]


async def test_the_receiver_accepts_what_the_sandbox_delivers():
    events, headers = [], []
    guessed = Sandbox(manual=True, lipsync_events=True)
    async with guessed as sandbox, HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
        receivers = []

        async def handle(request):
            headers.append((await request.read(), dict(request.headers)))
            return await receivers[0].handle(request) if receivers else web.Response()

        app = web.Application()
        app.router.add_route("*", "/hook", handle)
        async with TestServer(app) as server:
            endpoint = await heygen.webhooks.create(str(server.make_url("/hook")))
            receivers.append(WebhookReceiver(secret=endpoint.secret, on_event=events.append))
            job = await heygen.lipsyncs.create(**SOURCES)
            await sandbox.advance(60)

    assert [(event.lipsync_id, event.outcome) for event in events] == [(job.id, "completed")]
    assert "Signature=" in events[0].video_url
    verify(*headers[-1], secret=endpoint.secret)


@pytest.mark.parametrize("shape", ["event", "flat"])
@pytest.mark.parametrize("secret", [None, "whsec_callback"])
@pytest.mark.parametrize("header", ["Heygen-Signature", "X-Heygen-Signature", "Signature"])
async def test_the_callbacks_of_the_sandbox_are_received_in_every_shape(shape, secret, header):
    events = []
    settings = {"callback_shape": shape, "callback_secret": secret, "signature_header": header}
    async with (
        Sandbox(manual=True, **settings) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen,
    ):
        app = web.Application()
        app.router.add_route("*", "/hook", WebhookReceiver(secret=secret, on_event=events.append).handle)
        async with TestServer(app) as server:
            url = str(server.make_url("/hook"))
            good, bad = [await heygen.lipsyncs.create(**SOURCES, callback_url=url, callback_id="row") for _ in "12"]
            batch = await heygen.lipsyncs.create_batch([LipsyncRequest(**SOURCES)], callback_url=url)
            sandbox.fail(bad.id, "no face")
            await sandbox.advance(60)

    jobs = {event.lipsync_id: event for event in events if event.lipsync_id}
    assert {id: (event.outcome, event.callback_id) for id, event in jobs.items()} == {
        good.id: ("completed", "row"),
        bad.id: ("failed", "row"),
    }
    assert jobs[good.id].video_url
    assert jobs[bad.id].failure_message == "no face"
    assert [event.batch_id for event in events if event.lipsync_id is None] == [batch.id]


async def test_a_registered_endpoint_receives_events_of_batches_and_not_of_single_jobs():
    events = []
    async with Sandbox(manual=True) as sandbox, HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
        receivers = []

        async def handle(request):
            return await receivers[0].handle(request) if receivers else web.Response()

        app = web.Application()
        app.router.add_route("*", "/hook", handle)
        async with TestServer(app) as server:
            endpoint = await heygen.webhooks.create(str(server.make_url("/hook")))
            receivers.append(WebhookReceiver(secret=endpoint.secret, on_event=events.append))
            await heygen.lipsyncs.create(**SOURCES)
            batch = await heygen.lipsyncs.create_batch([LipsyncRequest(**SOURCES)])
            await sandbox.advance(60)

    assert [(event.event_type, event.batch_id) for event in events] == [("batch.finished", batch.id)]
