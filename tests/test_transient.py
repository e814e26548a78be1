"""One rule for transient errors: whoever meets one goes on, and any other error ends the call at once."""

import asyncio
import contextlib
import itertools
from contextlib import asynccontextmanager

import orjson
import pytest
from attrs import field, frozen
from bulk_stage import hasty_run, rows
from cli_sandbox import running

from heygen_async import (
    AuthenticationError,
    HeyGenError,
    HeyGenSession,
    InsufficientCredit,
    InvalidRequest,
    LipsyncRequest,
    LipsyncStatus,
    NotFound,
    PermissionDenied,
    PollPolicy,
    RetryPolicy,
    Timeouts,
    UnexpectedResponse,
)
from heygen_async.cli import main
from heygen_async.cli.options import RETRY
from heygen_async.sandbox import SAMPLE_AUDIO, Sandbox, faults

BOTH = {"video": "https://example.com/v.mp4", "audio": "https://example.com/a.mp3"}

GET, LIST, STATUSES = "GET /v3/lipsyncs/{lipsync_id}", "GET /v3/lipsyncs", "GET /v3/lipsyncs/statuses"
CREATE, CREATE_BATCH = "POST /v3/lipsyncs", "POST /v3/lipsyncs/batches"
GET_BATCH = "GET /v3/lipsyncs/batches/{batch_id}"
FORM, ANNOUNCE, PUT = "POST /v3/assets", "POST /v3/assets/direct-uploads", "PUT /uploads/{asset_id}"
COMPLETE, FILES = "POST /v3/assets/{asset_id}/complete", "GET /files/{name}"

REPEATED = RetryPolicy(max_attempts=8, first_delay=0.001, max_delay=0.002)
ONCE = RetryPolicy(max_attempts=1)
"""For waits: not the request is repeated, but the wait goes on."""

TRANSIENT = {
    "408": lambda route, times: faults.error(408, "request_timeout", route=route, times=times),
    "429": lambda route, times: faults.rate_limited(route, retry_after=None, times=times),
    "500": lambda route, times: faults.server_error(route, times=times),
    "502": lambda route, times: faults.server_error(route, status=502, body="html", times=times),
    "503": lambda route, times: faults.server_error(route, status=503, body="none", times=times),
    "HTML with 200": lambda route, times: faults.html(route, times=times),
    "connection reset": lambda route, times: faults.reset(route, times=times),
    "timeout": lambda route, _times: faults.stall(route, times=1),  # it takes its time
}

LASTING = {
    "400": (lambda route: faults.error(400, "invalid_parameter", route=route), InvalidRequest),
    "401": (lambda route: faults.error(401, "unauthorized", route=route), AuthenticationError),
    "402": (lambda route: faults.error(402, "insufficient_credit", route=route), InsufficientCredit),
    "403": (lambda route: faults.error(403, "forbidden", route=route), PermissionDenied),
    "404": (lambda route: faults.error(404, "not_found", route=route), NotFound),
    "redirect": (faults.redirect, UnexpectedResponse),
}


@frozen
class Call:
    """A call that sends requests, and the route on which something goes wrong."""

    run: object
    route: str
    retry: RetryPolicy = REPEATED
    settings: dict = field(factory=dict)
    times: int = 2


@frozen
class Scene:
    """A sandbox, a session on it and a folder."""

    sandbox: Sandbox
    heygen: HeyGenSession
    folder: object

    def count(self, route):
        return sum(request.route == route for request in self.sandbox.requests)

    async def job(self):
        return await self.heygen.lipsyncs.create(**BOTH)

    async def ids(self, count):
        await self.heygen.lipsyncs.create_batch([LipsyncRequest(**BOTH)] * count)
        return [job.id for job in self.sandbox.jobs]


# What sends requests. Each prepares, calls `meet` to let the fault begin, goes on, and checks its result.


async def get(scene, meet):
    job = await scene.job()
    meet()
    assert (await job.get()).id == job.id


async def create(scene, meet):
    meet()
    job = await scene.heygen.lipsyncs.create(**BOTH, idempotency_key="one")
    assert [job.id] == [made.id for made in scene.sandbox.jobs]


async def wait(scene, meet):
    job = await scene.job()
    meet()
    assert (await job.wait(timeout=30)).status == LipsyncStatus.COMPLETED


async def wait_for_many(scene, meet):
    ids = await scene.ids(12)
    meet()
    ended = await asyncio.gather(*(scene.heygen.poller.wait(one, timeout=30) for one in ids))
    assert [one.id for one in ended] == ids


async def as_completed(scene, meet):
    ids = await scene.ids(3)
    meet()
    ended = {one.id: one.status async for one in scene.heygen.poller.as_completed(ids, timeout=30)}
    assert ended == dict.fromkeys(ids, LipsyncStatus.COMPLETED)


async def updates(scene, meet):
    job = await scene.job()
    meet()
    assert [status async for status in job.updates()][-1] == LipsyncStatus.COMPLETED


async def batch_wait(scene, meet):
    batch = await scene.heygen.lipsyncs.create_batch([LipsyncRequest(**BOTH)])
    meet()
    assert (await batch.wait(timeout=30)).status == LipsyncStatus.COMPLETED


async def upload(scene, meet):
    meet()
    assert (await scene.heygen.assets.upload(SAMPLE_AUDIO)).id


async def download(scene, meet):
    job = await scene.job()
    lipsync = await job.wait(timeout=30)
    meet()
    assert (await scene.heygen.download(lipsync, scene.folder / "a.mp4")).stat().st_size > 0


async def download_by_id(scene, meet):
    job = await scene.job()
    await job.wait(timeout=30)
    meet()
    assert (await job.download(scene.folder / "a.mp4")).stat().st_size > 0


def bulk(submit):
    async def dub_many(scene, meet):
        meet()
        options = {"journal": None, "output_dir": scene.folder / "out", "submit": submit}
        async with hasty_run(scene.heygen, rows(2), origin=scene.sandbox.url, **options) as run:
            outcomes = [outcome async for outcome in run]
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert len(scene.sandbox.jobs) == 2

    return dub_many


NO_STATUSES, NO_FORMS = {"statuses_available": False}, {"max_multipart_bytes": 1000}
CALLS = {
    "get": Call(get, GET),
    "create": Call(create, CREATE),
    "wait-statuses": Call(wait, STATUSES, ONCE),
    "wait-get": Call(wait, GET, ONCE),
    "wait-without-statuses": Call(wait, GET, ONCE, NO_STATUSES),
    "wait-list": Call(wait_for_many, LIST, ONCE, NO_STATUSES, times=1),  # after a page that failed each job is fetched
    "as-completed": Call(as_completed, STATUSES, ONCE),
    "as-completed-get": Call(as_completed, GET, ONCE),
    "updates": Call(updates, STATUSES, ONCE),
    "batch-wait": Call(batch_wait, GET_BATCH, ONCE),
    "upload-form": Call(upload, FORM),
    "upload-announce": Call(upload, ANNOUNCE, settings=NO_FORMS),
    "upload-put": Call(upload, PUT, settings=NO_FORMS),
    "upload-complete": Call(upload, COMPLETE, settings=NO_FORMS),
    "download": Call(download, FILES),
    "download-link": Call(download_by_id, GET),
    "bulk-each-create": Call(bulk("each"), CREATE, ONCE, times=1),
    "bulk-each-wait": Call(bulk("each"), STATUSES, ONCE, times=1),
    "bulk-each-download": Call(bulk("each"), FILES, ONCE, times=1),
    "bulk-batch-create": Call(bulk("batch"), CREATE_BATCH, ONCE, times=1),
    "bulk-batch-wait": Call(bulk("batch"), GET_BATCH, ONCE, times=1),
}
NOT_READ = {("upload-put", "HTML with 200")}  # a storage host's 2xx is enough, whatever its body


MEETINGS = [
    pytest.param(CALLS[name], fault, id=f"{name}-{fault}")
    for name, fault in itertools.product(CALLS, TRANSIENT)
    if (name, fault) not in NOT_READ
]


@asynccontextmanager
async def scene_of(call, folder, timeouts=Timeouts()):
    polling = PollPolicy(fastest=0.005, slowest=0.02)
    async with (
        Sandbox(speed=1000, retry_after=0, **call.settings) as sandbox,
        HeyGenSession(
            sandbox.api_key, base_url=sandbox.url, retry=call.retry, polling=polling, timeouts=timeouts
        ) as heygen,
        asyncio.timeout(45),
    ):
        yield Scene(sandbox, heygen, folder)
        sandbox.release()


@pytest.mark.parametrize(("call", "fault"), MEETINGS)
async def test_a_call_outlasts_a_transient_error(call, fault, tmp_path):
    # Short timeouts only where they are met: on a slow machine any answer may take its time.
    timeouts = Timeouts(read=0.3, write=0.3, transfer_idle=0.3) if fault == "timeout" else Timeouts()
    async with scene_of(call, tmp_path, timeouts) as scene:

        def meet():
            scene.sandbox.faults = [TRANSIENT[fault](call.route, call.times)]

        await call.run(scene, meet)

        assert scene.sandbox.faults == [], "it never met the fault"


# Errors that do not pass


def lasting(*names):
    pairs = itertools.product(names, LASTING)
    return [pytest.param(CALLS[name], *LASTING[status], id=f"{name}-{status}") for name, status in pairs]


ALONE = ("get", "create", "wait-get", "batch-wait", "upload-form", "upload-announce", "download-link")


@pytest.mark.parametrize(("call", "fault", "kind"), lasting(*ALONE))
async def test_any_other_error_ends_a_call_at_its_first_request(call, fault, kind, tmp_path):
    async with scene_of(call, tmp_path) as scene:
        met = []

        def meet():
            met.append(scene.count(call.route))
            scene.sandbox.faults = [fault(call.route)]

        with pytest.raises(kind):
            await call.run(scene, meet)

        # That a new job or batch is missing is believed the fourth time.
        looks = 4 if call in (CALLS["wait-get"], CALLS["batch-wait"]) and kind is NotFound else 1
        assert scene.count(call.route) == met[0] + looks


@pytest.mark.parametrize(("call", "fault", "kind"), lasting("wait-statuses", "wait-without-statuses", "wait-list"))
async def test_any_other_error_ends_a_wait_once_no_other_way_is_left(call, fault, kind, tmp_path):
    async with scene_of(call, tmp_path) as scene:
        made = []

        def meet():
            made.append(len(scene.sandbox.requests))
            scene.sandbox.faults = [fault("GET *")]

        with pytest.raises(kind):
            await call.run(scene, meet)

        # Of one job its statuses, and then itself. That a new one is missing is believed the fourth time.
        looks = 4 if kind is NotFound else 1
        assert len(scene.sandbox.requests) <= made[0] + 2 * looks * len(scene.sandbox.jobs)


@pytest.mark.parametrize(("fault", "kind"), LASTING.values(), ids=LASTING)
async def test_as_completed_yields_a_job_that_cannot_be_read_with_the_reason(fault, kind, tmp_path):
    async with scene_of(CALLS["as-completed"], tmp_path) as scene:
        ids = await scene.ids(2)
        scene.sandbox.faults = [fault("GET *")]
        completions = scene.heygen.poller.as_completed(ids, timeout=30)
        if kind is AuthenticationError:
            with pytest.raises(kind):
                await anext(completions)
            return

        ended = {one.id: one async for one in completions}

    assert {one.status for one in ended.values()} == {LipsyncStatus.NOT_FOUND}
    assert set(ended) == set(ids)
    assert all(one.failure_message for one in ended.values())


@pytest.mark.parametrize("status", [name for name in LASTING if name != "redirect"])  # it may have been created
async def test_a_row_is_not_created_again_after_any_other_error(status, tmp_path):
    async with scene_of(CALLS["bulk-each-create"], tmp_path) as scene:
        scene.sandbox.faults = [LASTING[status][0](CREATE)]
        run = scene.heygen.dub_many(rows(1), journal=None, output_dir=tmp_path / "out")
        with contextlib.suppress(HeyGenError):  # a refused key or no credit ends the run
            async with run:
                assert [outcome.state async for outcome in run] == ["failed"]

        assert scene.count(CREATE) == 1


# The command line


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command on a job, its requests not repeated: the wait has to go on by itself."""
    token = RETRY.set(ONCE)

    def run(sandbox, *argv):
        monkeypatch.setenv("HEYGEN_API_KEY", sandbox.api_key)
        monkeypatch.setenv("HEYGEN_BASE_URL", sandbox.url)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        return int(exit_.value.code or 0), capsys.readouterr().out

    yield run
    RETRY.reset(token)


@pytest.mark.parametrize("fault", [name for name in TRANSIENT if name != "timeout"])  # a command has no option for that
def test_a_wait_on_the_command_line_outlasts_a_transient_error(fault, cli):
    with running(speed=1000) as sandbox:
        _, made = cli(sandbox, "lipsync", "create", "--video", BOTH["video"], "--audio", BOTH["audio"])
        sandbox.faults = [TRANSIENT[fault](STATUSES, 2)]

        code, ended = cli(sandbox, "lipsync", "wait", orjson.loads(made)["data"]["lipsync_id"], "--poll-every", "0.01")

        assert sandbox.faults == []
    assert (code, orjson.loads(ended)["data"]["status"]) == (0, "completed")


@pytest.mark.parametrize("status", LASTING)
def test_a_wait_on_the_command_line_ends_with_any_other_error(status, cli):
    with running(manual=True) as sandbox:
        sandbox.faults = [LASTING[status][0]("GET *")]

        code, _ = cli(sandbox, "lipsync", "wait", "ls_1", "--poll-every", "0.01")

        assert len(sandbox.requests) <= 4
    assert code == (3 if status == "401" else 1)
