"""Waiting over a real connection: session, poller and sandbox together, on a schedule of milliseconds."""

import asyncio
import itertools
from collections import Counter

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from until import until

from heygen_async import (
    AuthenticationError,
    HeyGenSession,
    LipsyncFailed,
    LipsyncRequest,
    LipsyncStatus,
    NotFound,
    PollPolicy,
    RetryPolicy,
    UnexpectedResponse,
)
from heygen_async.sandbox import Sandbox, faults

VIDEO, AUDIO = "https://example.com/v.mp4", "https://example.com/a.mp3"
FAILS = "https://sandbox.invalid/v.mp4?fail=no+face"
LOOK, GET, LIST = "GET /v3/lipsyncs/statuses", "GET /v3/lipsyncs/{lipsync_id}", "GET /v3/lipsyncs"

# Sandbox time runs 20 times as fast: jobs of 2 to 8 s take 100 to 400 ms.
SPEED = 20


def sandbox_of(**options):
    options = {"speed": SPEED, "account_limit": None, "job_seconds": [2, 4, 6, 8]} | options
    return Sandbox(**options)


def session_on(sandbox, **options):
    options = {
        "retry": RetryPolicy(max_attempts=2, first_delay=0.001, max_delay=0.002),
        "polling": PollPolicy(fastest=0.02, slowest=0.1),
    } | options
    return HeyGenSession(sandbox.api_key, base_url=sandbox.url, **options)


async def make_jobs(session, sandbox, count, video=VIDEO):
    """Create *count* jobs in batches, and return their ids."""
    before = len(sandbox.jobs)
    for start in range(0, count, 100):
        size = min(100, count - start)
        await session.lipsyncs.create_batch([LipsyncRequest(video=video, audio=AUDIO)] * size)
    return [job.id for job in sandbox.jobs[before:]]


def asked(sandbox):
    """Count the requests of the poller, by route."""
    return Counter(one.route for one in sandbox.requests if one.route in {LOOK, GET, LIST})


async def test_waits_of_many_tasks_cost_a_handful_of_requests():
    async with sandbox_of() as sandbox, session_on(sandbox) as session, asyncio.timeout(20):
        ids = await make_jobs(session, sandbox, 200)

        done = await asyncio.gather(*(session.poller.wait(one) for one in ids))

    assert {one.status for one in done} == {LipsyncStatus.COMPLETED}
    assert all(one.video_url for one in done)
    assert asked(sandbox)[LOOK] < 80
    assert asked(sandbox)[GET] <= 200
    assert asked(sandbox)[LIST] <= 20  # a page is read for 10 jobs at least


async def test_each_look_at_a_job_is_one_request_while_the_api_is_out_of_order():
    retry = RetryPolicy(max_attempts=4, first_delay=0.001)
    polling = PollPolicy(fastest=0.001, slowest=0.002)
    async with (
        sandbox_of(faults=[faults.html("GET /v3/*", times=1000)]) as sandbox,
        session_on(sandbox, retry=retry, polling=polling) as session,
        asyncio.timeout(20),
    ):
        [lipsync_id] = await make_jobs(session, sandbox, 1)

        with pytest.raises(UnexpectedResponse) as caught:
            await session.poller.wait(lipsync_id)

    assert caught.value.attempts == 1
    assert asked(sandbox)[LOOK] + asked(sandbox)[GET] == 10  # as many unreadable answers in a row end a wait


BULK_FAULTS = {
    "500": faults.server_error(LOOK),
    "503": faults.server_error(LOOK, status=503, body="html"),
    "a page": faults.html(LOOK),
    "cut off": faults.truncated(LOOK),
    "a reset": faults.reset(LOOK),
}


@pytest.mark.parametrize("fault", BULK_FAULTS.values(), ids=BULK_FAULTS)
async def test_jobs_are_fetched_by_themselves_while_only_bulk_requests_fail(fault):
    polling = PollPolicy(fastest=0.001, slowest=0.002)
    async with (
        sandbox_of(faults=[fault]) as sandbox,
        session_on(sandbox, retry=RetryPolicy(max_attempts=1), polling=polling) as session,
        asyncio.timeout(20),
    ):
        ids = await make_jobs(session, sandbox, 3)
        ended = [lipsync async for lipsync in session.poller.as_completed(ids)]

    assert {one.status for one in ended} == {LipsyncStatus.COMPLETED}
    assert asked(sandbox)[LOOK] <= 10


async def test_each_look_at_a_batch_is_one_request_while_the_api_is_out_of_order_and_a_get_is_repeated():
    retry = RetryPolicy(max_attempts=4, first_delay=0.001)
    polling = PollPolicy(fastest=0.001, slowest=0.002)
    route = "GET /v3/lipsyncs/batches/{batch_id}"
    async with (
        sandbox_of(faults=[faults.html(route, times=1000)]) as sandbox,
        session_on(sandbox, retry=retry, polling=polling) as session,
        asyncio.timeout(20),
    ):
        batch = await session.lipsyncs.create_batch([LipsyncRequest(video=VIDEO, audio=AUDIO)])

        with pytest.raises(UnexpectedResponse) as caught:
            await batch.wait()
        looks = sum(one.route == route for one in sandbox.requests)
        with pytest.raises(UnexpectedResponse) as repeated:
            await batch.get()

    assert (caught.value.attempts, looks) == (1, 10)  # as many unreadable answers in a row end a wait
    assert repeated.value.attempts == 4


FAULTS = [
    faults.server_error(LOOK, probability=0.1),
    faults.server_error(GET, status=502, body="html", probability=0.1),
    faults.reset("GET *", probability=0.1),
    faults.truncated("GET *", probability=0.05),
    faults.html("GET *", probability=0.05),
    faults.rate_limited("GET *", retry_after=None, probability=0.05),
    faults.unknown_status(LOOK, probability=0.1),
    faults.unknown_fields("GET *", probability=0.2),
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("statuses_available", [True, False], ids=["bulk", "no bulk"])
async def test_with_random_faults_every_wait_still_ends(seed, statuses_available):
    sandbox = sandbox_of(seed=seed, statuses_available=statuses_available, job_seconds=[2, 4])
    async with sandbox, session_on(sandbox) as session, asyncio.timeout(30):
        good = await make_jobs(session, sandbox, 60)
        bad = await make_jobs(session, sandbox, 5, video=FAILS)
        sandbox.faults = FAULTS

        waits = asyncio.gather(*(session.poller.wait(one) for one in good + bad), return_exceptions=True)
        async with session.poller.as_completed([*good, *bad, "no-such-id"]) as completions:
            completed = {one.id: one.status async for one in completions}
        results = dict(zip(good + bad, await waits, strict=True))
        snapshot = session.poller.snapshot()

    assert all(results[one].status == LipsyncStatus.COMPLETED for one in good)
    assert all(isinstance(results[one], LipsyncFailed) for one in bad)
    assert completed.pop("no-such-id") == LipsyncStatus.NOT_FOUND
    assert completed == dict.fromkeys(good, "completed") | dict.fromkeys(bad, "failed")
    assert not snapshot.waiting
    assert snapshot.bulk_requests == 0


async def wait_for_many(tasks, count):
    for task in itertools.islice(asyncio.as_completed(tasks), count):
        await task


async def test_a_request_that_hangs_delays_only_its_own_ids():
    async with sandbox_of(job_seconds=6) as sandbox, session_on(sandbox) as session, asyncio.timeout(20):
        ids = await make_jobs(session, sandbox, 300)
        sandbox.faults = [faults.stall(LOOK, times=1)]
        tasks = {one: asyncio.create_task(session.poller.wait(one)) for one in ids}

        await asyncio.wait_for(wait_for_many(tasks.values(), 200), 10)
        assert sum(task.done() for task in tasks.values()) == 200
        sandbox.release()

        await asyncio.gather(*tasks.values())


async def test_a_wrong_key_ends_all_waits():
    async with sandbox_of(job_seconds=1000) as sandbox, session_on(sandbox) as session, asyncio.timeout(20):
        ids = await make_jobs(session, sandbox, 150)
        waits = asyncio.gather(*(session.poller.wait(one) for one in ids), return_exceptions=True)
        await until(lambda: asked(sandbox)[LOOK])

        sandbox.faults = [faults.error(401, "unauthorized", route="GET *")]

        assert {type(one) for one in await waits} == {AuthenticationError}


async def test_a_job_that_is_deleted_while_it_is_waited_for_is_not_found():
    async with Sandbox(manual=True, job_seconds=4) as sandbox, session_on(sandbox) as session, asyncio.timeout(20):
        ids = await make_jobs(session, sandbox, 10)
        waits = asyncio.gather(*(session.poller.wait(one) for one in ids), return_exceptions=True)
        await until(lambda: asked(sandbox)[LOOK])

        await session.lipsyncs.delete(ids[3])
        await sandbox.advance(4)

        gone = (await waits)[3]
        others = [one for n, one in enumerate(await waits) if n != 3]
    assert isinstance(gone, NotFound)
    assert all(one.status == LipsyncStatus.COMPLETED for one in others)


async def test_long_ids_fit_the_query():
    async with sandbox_of() as sandbox, session_on(sandbox) as session, asyncio.timeout(20):
        ids = [f"{'long' * 60}{n}" for n in range(250)]

        seen = [one.status async for one in session.poller.as_completed(ids)]

    assert seen == [LipsyncStatus.NOT_FOUND] * 250
    assert max(len(one.query.get("lipsync_ids", "")) for one in sandbox.requests) <= 6000


# Opened in one task, closed in another


async def test_a_session_of_a_web_app_waits_for_its_users():
    async with sandbox_of() as sandbox:
        key = web.AppKey("session", HeyGenSession)

        async def heygen(app):
            async with session_on(sandbox) as app[key]:
                yield

        async def dub(request):
            session = request.app[key]
            job = await session.lipsyncs.create(video=VIDEO, audio=AUDIO)
            return web.json_response({"status": (await job.wait(timeout=10)).status})

        app = web.Application()
        app.cleanup_ctx.append(heygen)
        app.router.add_post("/", dub)
        async with TestServer(app) as server, aiohttp.ClientSession() as user, asyncio.timeout(20):
            answers = await asyncio.gather(*(user.post(server.make_url("/")) for _ in range(20)))
            assert [await answer.json() for answer in answers] == [{"status": "completed"}] * 20


class Lifespan:
    """The lifespan protocol of an ASGI server: messages to a task of its own."""

    def __init__(self, app):
        self.messages = asyncio.Queue()
        self.sent = asyncio.Queue()
        self.task = asyncio.create_task(app({"type": "lifespan"}, self.messages.get, self.sent.put))

    async def say(self, what):
        await self.messages.put({"type": f"lifespan.{what}"})
        assert await self.sent.get() == {"type": f"lifespan.{what}.complete"}


async def test_a_session_of_an_asgi_lifespan_is_opened_closed_and_used_in_three_tasks():
    async with sandbox_of() as sandbox, asyncio.timeout(20):
        session = session_on(sandbox)

        async def app(_scope, receive, send):
            await receive()
            await asyncio.create_task(session.__aenter__())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await asyncio.create_task(session.__aexit__(None, None, None))
            await send({"type": "lifespan.shutdown.complete"})

        lifespan = Lifespan(app)
        await lifespan.say("startup")
        (first, second) = await make_jobs(session, sandbox, 2)
        assert (await asyncio.create_task(session.poller.wait(first))).status == LipsyncStatus.COMPLETED
        sandbox.faults = [faults.stall("GET *")]
        before = len(sandbox.requests)
        left = asyncio.create_task(session.poller.wait(second))
        await until(lambda: len(sandbox.requests) > before)

        await lifespan.say("shutdown")

        sandbox.release()
        with pytest.raises(RuntimeError, match="closed"):
            await left
        await lifespan.task


@pytest.fixture
async def opened():
    """A session that pytest opens and closes outside of the test's task."""
    async with sandbox_of() as sandbox, session_on(sandbox) as session:
        yield session, sandbox


async def test_a_session_of_a_fixture_waits(opened):
    session, sandbox = opened
    (one,) = await make_jobs(session, sandbox, 1)

    async with asyncio.timeout(20):
        assert (await session.poller.wait(one)).status == LipsyncStatus.COMPLETED
        assert [status async for status in session.lipsyncs.job(one).updates()] == ["completed"]
