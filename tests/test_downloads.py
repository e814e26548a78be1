"""Downloads: resumed, checked, and published complete or not at all."""

import asyncio
import base64
import contextlib
import errno
import io
import logging
import os
import subprocess
import sys
import tempfile
import traceback
from contextlib import aclosing, asynccontextmanager, closing, suppress
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from mp4 import mp4
from until import until

from heygen_async import (
    DownloadError,
    HeyGenSession,
    Lipsync,
    LipsyncFailed,
    NotFound,
    RetryPolicy,
    Timeouts,
    TransportError,
)
from heygen_async._media import parts
from heygen_async._media.fetch import fetch
from heygen_async._media.hosts import PartState
from heygen_async._media.output_links import OutputLink
from heygen_async._media.parts import Part
from heygen_async._media.targets import captions_path, target_in, target_problems
from heygen_async._transport.gate import Gate
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox, faults

QUICK = RetryPolicy(first_delay=0.001, max_delay=0.002)
FILES, GET = "GET /files/{name}", "GET /v3/lipsyncs/{lipsync_id}"
SIZE = 3_000_000


VIDEO = mp4(SIZE)
CAPTIONS = b"1\n00:00:00,000 --> 00:00:01,000\nBonjour\n"


@pytest.fixture
async def heygen_sandbox():
    async with Sandbox(job_seconds=0.001) as running:
        yield running


@pytest.fixture
async def job(heygen):
    """A completed job, whose video is that of its source."""
    job = await heygen.lipsyncs.create(video=VIDEO, audio=SAMPLE_AUDIO, title="Episode 1")
    await job.wait()
    return job


def sent(sandbox, route=FILES):
    return [request for request in sandbox.requests if request.route == route]


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


@asynccontextmanager
async def served(video, captions=None, *, path="/a.mp4", **options):
    """Serve one completed lipsync, whose outputs are what the handlers answer."""
    app = web.Application()
    app.router.add_get("/v3/lipsyncs/ls_1", lipsync_at)
    app.router.add_get(path, video)
    app.router.add_get("/a.srt", captions or send(CAPTIONS))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with HeyGenSession("key", base_url=url, retry=QUICK, **options) as heygen:
            yield heygen
    finally:
        await runner.cleanup()


async def lipsync_at(request):
    links = {"video_url": f"http://{request.host}/a.mp4?sig=1", "caption_url": f"http://{request.host}/a.srt?sig=2"}
    return web.json_response({"data": {"id": "ls_1", "status": "completed", **links}})


def send(body, status=200, headers=None):
    """Make a handler that counts its requests."""

    async def handler(request):
        handler.calls += 1
        return web.Response(body=body, status=status, headers=headers)

    handler.calls = 0
    return handler


def send_endlessly(headers=None):
    """Make a handler whose answer has no end."""

    async def handler(request):
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b"0" * 65536)
        return response

    return handler


def in_packets(*packets, headers=None, gap=0.01):
    """Make a handler whose answer arrives piece by piece."""

    async def handler(request):
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for packet in packets:
            await response.write(packet)
            await asyncio.sleep(gap)
        return response

    return handler


# Videos


async def test_a_download_leaves_the_video_and_nothing_else(job, sandbox, tmp_path):
    path = await job.download(tmp_path / "a.mp4")

    assert path == tmp_path / "a.mp4"
    assert path.read_bytes() == VIDEO
    assert left_in(tmp_path) == ["a.mp4"]
    assert len(sent(sandbox)) == 1


async def test_a_path_may_be_a_string(job, tmp_path):
    assert (await job.download(str(tmp_path / "a.mp4"))).read_bytes() == VIDEO


async def test_a_given_lipsync_is_not_requested_again(heygen, job, sandbox, tmp_path):
    lipsync = await job.get()
    before = len(sent(sandbox, GET))

    await heygen.download(lipsync, tmp_path / "a.mp4")

    assert len(sent(sandbox, GET)) == before


async def test_in_a_folder_a_video_is_named_after_title_and_id(job, tmp_path):
    path = await job.download(tmp_path)

    assert path == tmp_path / f"Episode 1 ({job.id}).mp4"
    assert path.read_bytes() == VIDEO


async def test_the_bytes_can_be_iterated_over(heygen, job):
    assert b"".join([data async for data in job.iter_bytes()]) == VIDEO
    assert b"".join([data async for data in heygen.iter_bytes(await job.get())]) == VIDEO


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_progress_reports_bytes_done_and_total(job, tmp_path, asynchronous):
    reports = []

    async def later(done, total):
        reports.append((done, total))

    await job.download(tmp_path / "a.mp4", progress=later if asynchronous else lambda *now: reports.append(now))

    assert reports == sorted(reports)
    assert reports[-1] == (SIZE, SIZE)
    assert {total for _, total in reports} == {SIZE}


async def test_an_exception_of_progress_ends_the_transfer(job, tmp_path):
    def progress(done, total):
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        await job.download(tmp_path / "a.mp4", progress=progress)


# Interruptions


@pytest.mark.parametrize("after", [0, 1, 65536, 1_500_000, SIZE - 1])
async def test_an_interrupted_download_is_resumed(job, sandbox, tmp_path, after):
    sandbox.faults = [faults.cut_download(after_bytes=after, times=1)]

    path = await job.download(tmp_path / "a.mp4")

    first, second = sent(sandbox)
    assert path.read_bytes() == VIDEO
    assert "Range" not in first.headers
    if after:
        assert second.headers["Range"] == f"bytes={after}-"
        assert second.headers["If-Range"].startswith('"')


async def test_a_download_goes_on_while_there_is_progress(job, sandbox, tmp_path):
    sandbox.faults = [faults.cut_download(after_bytes=100_000)]

    path = await job.download(tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert len(sent(sandbox)) == SIZE // 100_000


async def test_without_progress_the_attempts_of_the_policy_are_the_limit(job, sandbox, tmp_path):
    sandbox.faults = [faults.reset(FILES)]
    with pytest.raises(DownloadError, match=r"could not be downloaded \(0 bytes arrived\)") as failed:
        await job.download(tmp_path / "a.mp4")

    assert failed.value.attempts == len(sent(sandbox)) == QUICK.max_attempts
    assert isinstance(failed.value.__cause__, TransportError)


async def test_another_run_resumes_an_interrupted_download(heygen, job, sandbox, tmp_path):
    sandbox.faults = [faults.cut_download(after_bytes=1_234_567, times=1), faults.reset(FILES)]
    with pytest.raises(DownloadError, match="1,234,567 bytes arrived"):
        await job.download(tmp_path / "a.mp4")
    assert left_in(tmp_path) == ["a.mp4.part", "a.mp4.part.etag"]
    sandbox.faults = []

    async with session(sandbox) as another:
        path = await another.download(job.id, tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert sent(sandbox)[-1].headers["Range"] == "bytes=1234567-"
    assert left_in(tmp_path) == ["a.mp4"]


def session(sandbox, **options):
    return HeyGenSession(sandbox.api_key, base_url=sandbox.url, **{"retry": QUICK, **options})


async def test_a_part_of_another_version_starts_again(job, sandbox, tmp_path):
    leave_part(tmp_path / "a.mp4", job.id, '"another"\n5000\n')

    path = await job.download(tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert sent(sandbox)[0].headers["If-Range"] == '"another"'


def leave_part(target, lipsync_id, version="", content=b"y" * 1000):
    """Leave the unfinished download of a lipsync, as a run that was killed does."""
    target.with_name(f"{target.name}.part").write_bytes(content)
    target.with_name(f"{target.name}.part.etag").write_bytes(f"lipsync {lipsync_id}\n{version}".encode("latin-1"))


@pytest.mark.parametrize("version", ["", 'W/"weak"\n5\n', '"x\n', '"x"', "\xff", '"a"\n10\n'])
async def test_a_part_whose_version_is_not_known_starts_again(job, sandbox, tmp_path, version):
    leave_part(tmp_path / "a.mp4", job.id, version)

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO
    assert "Range" not in sent(sandbox)[0].headers


async def test_a_complete_part_that_was_not_published_needs_one_byte(job, sandbox, tmp_path):
    await job.download(tmp_path / "a.mp4")
    leave_part(tmp_path / "b.mp4", job.id, f"{await etag_of(job)}\n{SIZE}\n", VIDEO)

    path = await job.download(tmp_path / "b.mp4")

    assert path.read_bytes() == VIDEO
    assert sent(sandbox)[-1].headers["Range"] == f"bytes={SIZE - 1}-"


async def etag_of(job):
    async with aiohttp.ClientSession() as http, http.head((await job.get()).video_url) as head:
        if "ETag" in head.headers:
            return head.headers["ETag"]
    async with aiohttp.ClientSession() as http, http.get((await job.get()).video_url) as answer:
        return answer.headers["ETag"]


async def test_a_host_that_cannot_resume_sends_it_all_again(job, sandbox, tmp_path):
    sandbox.faults = [faults.cut_download(after_bytes=1_000_000, times=1), faults.no_ranges()]

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO
    assert len(sent(sandbox)) == 2


REFUSALS = [400, 403, 404, 405, 412, 500, 501, 302]
"""How hosts answer a request with `Range` that they do not support."""


def refuse_ranges(status, *, after=0):
    """Make a handler that sends the file only if all of it is requested, and breaks off *after* bytes, once."""

    async def handler(request):
        handler.ranges.append(request.headers.get("Range"))
        if "Range" in request.headers:
            return web.Response(status=status)
        response = web.StreamResponse(headers={"Content-Length": str(SIZE), "ETag": '"a"'})
        await response.prepare(request)
        if after and len(handler.ranges) == 1:
            await response.write(VIDEO[:after])
            request.transport.close()
        else:
            await response.write(VIDEO)
        return response

    handler.ranges = []
    return handler


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_host_that_refuses_to_resume_is_asked_for_all_of_the_file(tmp_path, status):
    host = refuse_ranges(status, after=1000)
    async with served(host) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert host.ranges[0] is host.ranges[-1] is None
    assert set(host.ranges[1:-1]) == {"bytes=1000-"}


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_part_of_an_earlier_run_does_not_stay_in_the_way_if_its_host_refuses_to_resume(tmp_path, status):
    leave_part(tmp_path / "a.mp4", "ls_1", f'"a"\n{SIZE}\n', VIDEO[:5000])
    async with served(refuse_ranges(status)) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert left_in(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("status", REFUSALS)
async def test_an_iteration_over_a_host_that_refuses_to_resume_skips_what_was_yielded(status):
    async with served(refuse_ranges(status, after=1000)) as heygen:
        assert b"".join([data async for data in heygen.iter_bytes("ls_1")]) == VIDEO


@pytest.mark.parametrize(("status", "headers"), [(400, None), (429, None), (503, {"Retry-After": "86400"})])
async def test_a_part_stays_as_it_is_until_other_bytes_arrive(tmp_path, status, headers):
    leave_part(tmp_path / "a.mp4", "ls_1", f'"a"\n{SIZE}\n', VIDEO[:5000])
    host = send(b"", status, headers)
    async with served(host) as heygen:
        with pytest.raises(DownloadError, match=rf"\(5,000 bytes arrived\): {status}"):
            await heygen.with_options(retry=evolve(QUICK, on_rate_limit="raise")).download("ls_1", tmp_path / "a.mp4")

    assert (tmp_path / "a.mp4.part").read_bytes() == VIDEO[:5000]
    assert host.calls == (2 if status == 400 else 1)  # to wait is no reason to ask for all of the file


async def test_a_length_that_is_too_long_once_is_corrected(job, sandbox, tmp_path):
    sandbox.faults = [faults.wrong_length(off_by=1000, times=1)]

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO


async def test_a_length_that_is_always_too_long_is_an_error(job, sandbox, tmp_path):
    sandbox.faults = [faults.wrong_length(off_by=1000)]
    with pytest.raises(DownloadError):
        await job.download(tmp_path / "a.mp4")

    assert "a.mp4" not in left_in(tmp_path)


async def test_a_video_that_is_cut_short_by_a_wrong_length_is_downloaded_again(job, sandbox, tmp_path):
    sandbox.faults = [faults.wrong_length(off_by=-1000, times=1)]

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO


async def test_a_video_that_is_cut_short_on_its_host_is_an_error_and_leaves_nothing(job, sandbox, tmp_path):
    sandbox.faults = [faults.wrong_length(off_by=-1000)]
    with pytest.raises(DownloadError, match=r"is cut short on its host: its mdat box ends 9\d\d bytes after"):
        await job.download(tmp_path / "a.mp4")

    assert left_in(tmp_path) == []
    assert len(sent(sandbox)) == 2


async def test_a_page_instead_of_the_video_is_an_error(job, sandbox, tmp_path):
    sandbox.faults = [faults.html(FILES)]
    with pytest.raises(DownloadError, match="a page"):
        await job.download(tmp_path / "a.mp4")

    assert len(sent(sandbox)) == QUICK.max_attempts
    assert "a.mp4" not in left_in(tmp_path)


async def test_a_redirect_is_not_followed(job, sandbox, tmp_path):
    sandbox.faults = [faults.redirect(FILES, location=f"{sandbox.url}/files/elsewhere")]
    with pytest.raises(DownloadError, match="a redirect, which is not followed"):
        await job.download(tmp_path / "a.mp4")

    assert len(sent(sandbox)) == 1


async def test_a_host_that_fails_for_a_while_is_retried(job, sandbox, tmp_path):
    sandbox.faults = [
        faults.server_error(FILES, status=503, body="html", times=2),
        faults.rate_limited(FILES, retry_after=0, times=1),
    ]

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO


async def test_a_slow_download_does_not_time_out(sandbox, job, tmp_path):
    sandbox.faults = [faults.slow_drip(chunk=SIZE // 12, pause=0.1)]
    async with session(sandbox, timeouts=Timeouts(transfer_idle=1)) as heygen:  # less than all the pauses together
        path = await asyncio.wait_for(heygen.download(job.id, tmp_path / "a.mp4"), 20)

    assert path.read_bytes() == VIDEO
    assert len(sent(sandbox)) == 1


async def test_a_host_that_falls_silent_is_retried(sandbox, job, tmp_path):
    sandbox.faults = [faults.slow_drip(chunk=1000, pause=5, times=1)]
    async with session(sandbox, timeouts=Timeouts(transfer_idle=0.5)) as heygen:
        path = await asyncio.wait_for(heygen.download(job.id, tmp_path / "a.mp4"), 20)

    assert path.read_bytes() == VIDEO
    assert sent(sandbox)[1].headers["Range"] == "bytes=1000-"


# Links that expire


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_an_expired_link_is_renewed(job, sandbox, tmp_path, status):
    sandbox.faults = [faults.error(status, "gone", route=FILES, times=1)]
    before = len(sent(sandbox, GET))

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO
    assert len(sent(sandbox, GET)) == before + 2


@pytest.mark.parametrize(
    "packets",
    [
        pytest.param([b"<Error><Code>ExpiredToken</Code></Error>"], id="whole"),
        pytest.param([b'<?xml version="1.0"?>', b"<Error><Code>ExpiredToken</Code></Error>"], id="in-packets"),
    ],
)
async def test_a_link_that_has_expired_according_to_a_400_is_renewed(tmp_path, packets):
    calls = []

    async def handler(request):
        calls.append(request)
        if len(calls) > 1:
            return web.Response(body=VIDEO)
        response = web.StreamResponse(status=400, headers={"Content-Type": "application/xml"})
        await response.prepare(request)
        for packet in packets:
            await response.write(packet)
            await asyncio.sleep(0.05)  # so that they mostly arrive one by one
        return response

    async with served(handler) as heygen:
        path = await heygen.download(await heygen.lipsyncs.get("ls_1"), tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO


async def test_a_refusal_whose_body_never_ends_is_read_for_a_moment_only(tmp_path):
    refused = []

    async def handler(request):
        if len(refused) == 2:
            return web.Response(body=VIDEO)
        refused.append(request)
        response = web.StreamResponse(status=503)
        await response.prepare(request)
        while True:  # until the connection is closed
            await response.write(b".")
            await asyncio.sleep(0.01)

    async with asyncio.timeout(20), served(handler, timeouts=Timeouts(transfer_idle=0.1)) as heygen:
        path = await heygen.download(await heygen.lipsyncs.get("ls_1"), tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO


async def test_what_a_refusal_quotes_is_in_no_traceback(tmp_path):
    async def handler(request):
        response = web.StreamResponse(status=403)
        await response.prepare(request)
        await response.write(b"<Error><Url>/a.mp4?X-Amz-Signature=quoted</Url>")
        quoting.set()
        await asyncio.sleep(30)  # until the connection is closed

    quoting = asyncio.Event()
    async with asyncio.timeout(20), served(handler) as heygen:
        download = asyncio.create_task(heygen.download(await heygen.lipsyncs.get("ls_1"), tmp_path / "a.mp4"))
        await quoting.wait()
        await asyncio.sleep(0.02)
        download.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await download

    lines = traceback.TracebackException.from_exception(cancelled.value, capture_locals=True).format()
    assert "quoted" not in "".join(lines)


async def test_a_link_that_expires_midway_is_renewed_and_the_download_resumed(job, sandbox, tmp_path):
    sandbox.faults = [faults.cut_download(after_bytes=2_000_000, times=1), faults.expired_link(times=1)]

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO
    assert [request.headers.get("Range") for request in sent(sandbox)] == [None, *["bytes=2000000-"] * 2]


def without_link(**when):
    return faults.Fault(GET, faults.Alter({"video_url": None}, replace_only=True), **when)


async def test_a_link_that_is_late_is_waited_for(heygen, job, sandbox, tmp_path):
    sandbox.faults = [without_link(times=2)]

    assert (await heygen.download(job.id, tmp_path / "a.mp4")).read_bytes() == VIDEO


async def test_a_dub_waits_for_a_link_that_is_late(heygen, sandbox, tmp_path):
    sandbox.faults = [without_link(times=1)]
    await heygen.dub(video=VIDEO, audio=SAMPLE_AUDIO, output=tmp_path / "a.mp4")

    assert (tmp_path / "a.mp4").read_bytes() == VIDEO


async def test_a_link_that_is_missing_after_it_was_renewed_midway_is_waited_for(heygen, job, sandbox, tmp_path):
    lipsync = await heygen.lipsyncs.get(job.id)
    expired = [faults.cut_download(after_bytes=2_000_000, times=1), faults.expired_link(times=1)]
    sandbox.faults = [*expired, without_link(times=1)]

    assert (await heygen.download(lipsync, tmp_path / "a.mp4")).read_bytes() == VIDEO
    assert len(sent(sandbox)) == 3


async def test_a_link_that_never_comes_is_not_waited_for_without_end(job, sandbox, tmp_path):
    sandbox.faults = [without_link()]
    before = len(sent(sandbox, GET))
    with pytest.raises(DownloadError, match="has no link to its video") as failed:
        await job.download(tmp_path / "a.mp4")

    assert failed.value.is_transient
    assert len(sent(sandbox, GET)) == before + QUICK.max_attempts


async def test_links_are_not_renewed_without_end(job, sandbox, tmp_path):
    sandbox.faults = [faults.expired_link()]
    with pytest.raises(DownloadError, match=r"403 AccessDenied") as failed:
        await job.download(tmp_path / "a.mp4")

    assert len(sent(sandbox)) == QUICK.max_attempts
    assert not shows_link(failed.value)


async def test_a_link_whose_signature_has_expired_is_not_tried(heygen, job, sandbox, tmp_path):
    lipsync = await job.get()
    url = lipsync.video_url.replace("X-Amz-Date=2", "X-Amz-Date=1")  # a thousand years ago

    await heygen.download(evolve(lipsync, video_url=url), tmp_path / "a.mp4")

    await until(lambda: [request.status for request in sent(sandbox)] == [200])


@pytest.mark.parametrize("seconds", ["9" * 400, "-" + "9" * 400, "1e400"])
async def test_a_link_with_an_odd_expiry_is_downloaded(tmp_path, seconds):
    async with served(send(VIDEO)) as heygen:
        lipsync = await heygen.lipsyncs.get("ls_1")
        link = f"{lipsync.video_url}&X-Amz-Date=20260101T000000Z&X-Amz-Expires={seconds}"
        path = await heygen.download(evolve(lipsync, video_url=link), tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO


async def test_a_lipsync_that_is_deleted_meanwhile_is_not_found(job, sandbox, tmp_path, heygen):
    lipsync = await job.get()
    await job.delete()
    sandbox.faults = [faults.expired_link()]
    with pytest.raises(NotFound):
        await heygen.download(lipsync, tmp_path / "a.mp4")


# Secrets


def shows_link(error):
    """Whether anything of a presigned query is in the error, its causes, or the local variables of their frames."""
    seen = ""
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename != __file__]
        seen += f"{error!r} {error} {vars(error)} {[frame.f_locals for frame in frames]}"
        error = error.__cause__ or error.__context__
    return "X-Amz-Signature=" in seen


async def test_no_error_and_no_log_shows_the_links_query(heygen, sandbox, job, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    for fault in (faults.reset(FILES), faults.expired_link(), faults.html(FILES), faults.redirect(FILES)):
        sandbox.faults = [fault]
        with pytest.raises(DownloadError) as failed:
            await job.download(tmp_path / "a.mp4")
        assert not shows_link(failed.value)
    dead = evolve(await job.get(), video_url="http://127.0.0.1:9/a.mp4?X-Amz-Signature=1")
    with pytest.raises(DownloadError) as failed:
        await heygen.with_options(retry=RetryPolicy(max_attempts=1)).download(dead, tmp_path / "a.mp4")

    assert not shows_link(failed.value)
    assert "X-Amz" not in caplog.text.replace("asyncio", "")


async def test_the_key_and_the_callers_headers_never_go_to_the_file_host(sandbox, job, tmp_path):
    theirs = {"X-Private": "p", "Authorization": "Bearer theirs"}
    async with (
        aiohttp.ClientSession(headers=theirs, cookies={"c": "1"}) as http,
        session(sandbox, headers={"X-Mine": "m"}, http=http) as heygen,
    ):
        await heygen.download(job.id, tmp_path / "a.mp4")

    await until(lambda: [request.status for request in sent(sandbox)] == [200])
    for request in sent(sandbox):
        assert not {"X-Api-Key", "Authorization", "X-Mine", "X-Private", "Cookie"} & {*request.headers}
        assert request.headers["Accept-Encoding"] == "identity"
        assert sandbox.api_key not in str(dict(request.headers))


@pytest.mark.parametrize(
    "path",
    ["/Mon film é.mp4?name=Mon film é.mp4&sig=a%2Fb+c", "/a%20b.mp4?sig=/+=~!*'()[]{}|^,;:@$", "/a.mp4?sig=1 \n"],
)
async def test_a_link_with_blanks_and_accents_is_requested_as_browsers_request_it(tmp_path, path):
    requested = []

    async def handler(request):
        requested.append(request.raw_path)
        return web.Response(body=VIDEO)

    async with served(handler, path="/{name}") as heygen:
        lipsync = await heygen.lipsyncs.get("ls_1")
        host = lipsync.video_url.removesuffix("/a.mp4?sig=1")
        await heygen.download(evolve(lipsync, video_url=host + path), tmp_path / "a.mp4")

    assert requested == [path.strip().replace(" ", "%20").replace("é", "%C3%A9")]


@pytest.mark.parametrize(
    "url", ["https://x.test/a\nb.mp4", "http://elsewhere.test/a.mp4?X-Amz-Signature=1", "file:///etc/passwd", "//x"]
)
async def test_a_link_that_is_not_https_is_not_followed(heygen, url, tmp_path):
    lipsync = Lipsync(id="ls_1", status="completed", video_url=url)
    with pytest.raises(DownloadError, match="not https") as failed:
        await heygen.download(lipsync, tmp_path / "a.mp4")

    assert not shows_link(failed.value)
    assert left_in(tmp_path) == []


# Files and folders


@pytest.mark.parametrize(
    "host", ["a" * 70 + ".b", "\ufffd", "a..b", "xn--\xfc.b", pytest.param("[::1]x", id="no-url")], ids=ascii
)
async def test_a_link_whose_host_cannot_be_looked_up_is_an_error_that_stays(heygen, host, tmp_path, caplog):
    lipsync = Lipsync(id="ls_1", status="completed", video_url=f"https://{host}/v.mp4?X-Amz-Signature=1")

    with pytest.raises(DownloadError) as odd:
        await heygen.download(lipsync, tmp_path / "a.mp4")

    assert not odd.value.is_transient
    assert not shows_link(odd.value)
    assert "X-Amz" not in caplog.text


async def test_an_existing_file_is_an_error_before_any_request(heygen, job, sandbox, tmp_path):
    (tmp_path / "a.mp4").write_text("mine")
    before = len(sandbox.requests)
    with pytest.raises(DownloadError, match="exists already; give overwrite=True"):
        await job.download(tmp_path / "a.mp4")

    assert len(sandbox.requests) == before
    assert (tmp_path / "a.mp4").read_text() == "mine"


async def test_an_existing_file_can_be_replaced(job, tmp_path):
    (tmp_path / "a.mp4").write_text("old")

    await job.download(tmp_path / "a.mp4", overwrite=True)

    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    assert left_in(tmp_path) == ["a.mp4"]


async def test_a_file_that_appears_meanwhile_is_not_overwritten(job, tmp_path):
    async def race(done, total):
        await asyncio.to_thread((tmp_path / "a.mp4").write_text, "mine")

    with pytest.raises(DownloadError, match="was created by somebody else meanwhile"):
        await job.download(tmp_path / "a.mp4", progress=race)

    assert (tmp_path / "a.mp4").read_text() == "mine"
    assert "a.mp4.part" in left_in(tmp_path)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
async def test_a_file_system_without_hard_links_works_too(job, tmp_path, monkeypatch, code):
    def no_link(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_link)
    await job.download(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_text("mine")

    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    await asyncio.to_thread(publish_over, tmp_path / "b.mp4")
    assert (tmp_path / "b.mp4").read_text() == "mine"


def publish_over(path):
    with closing(Part.open(path, "ls_1")) as part, pytest.raises(FileExistsError):
        part.publish(overwrite=False)


async def test_a_part_that_is_a_second_name_of_the_target_is_removed(job, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"whole")
    os.link(tmp_path / "a.mp4", tmp_path / "a.mp4.part")
    os.link(tmp_path / "a.mp4", tmp_path / "seen")
    (tmp_path / "a.mp4.part.etag").write_text("lipsync ls_other\n")

    await job.download(tmp_path / "a.mp4", overwrite=True)

    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    assert (tmp_path / "seen").read_bytes() == b"whole"  # what was whole was not written into
    assert left_in(tmp_path) == ["a.mp4", "seen"]


async def test_a_missing_folder_is_an_error_before_any_request(job, sandbox, tmp_path):
    before = len(sandbox.requests)
    with pytest.raises(DownloadError, match=r"the folder .* does not exist"):
        await job.download(tmp_path / "no" / "a.mp4")
    assert len(sandbox.requests) == before


async def test_a_folder_in_the_way_of_the_part_is_an_error_and_nothing_is_downloaded(job, sandbox, tmp_path):
    (tmp_path / "a.mp4.part").mkdir()
    with pytest.raises(DownloadError, match=r"cannot write .*a\.mp4\.part: it is a folder"):
        await job.download(tmp_path / "a.mp4")
    assert not sent(sandbox)


async def test_a_part_that_is_a_link_to_elsewhere_is_not_written_through(job, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.mp4.part").symlink_to(tmp_path / "precious")
    with pytest.raises(DownloadError, match="cannot write"):
        await job.download(tmp_path / "a.mp4")
    assert (tmp_path / "precious").read_text() == "mine"


async def test_a_full_disk_is_an_error_and_keeps_the_part_to_be_resumed(job, sandbox, tmp_path, monkeypatch):
    def full(part, blocks):
        part._file.write(b"".join(blocks)[:1000])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Part, "write", full)
        with pytest.raises(DownloadError, match="No space left on device") as failed:
            await job.download(tmp_path / "a.mp4")
    assert isinstance(failed.value.__cause__, OSError)
    assert not failed.value.is_transient
    assert (tmp_path / "a.mp4.part").stat().st_size == 1000

    path = await job.download(tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert sent(sandbox)[-1].headers["Range"] == "bytes=1000-"


async def test_two_downloads_to_one_file_at_the_same_time_are_an_error(job, sandbox, tmp_path):
    sandbox.faults = [faults.stall(FILES)]
    first = asyncio.create_task(job.download(tmp_path / "a.mp4"))
    await until(lambda: sent(sandbox) and sent(sandbox)[0].fault is not None)

    with pytest.raises(DownloadError, match=r"a\.mp4 is being downloaded already"):
        await job.download(tmp_path / "." / "a.mp4")
    async with session(sandbox) as another:
        with pytest.raises(DownloadError, match="is being downloaded by another process"):
            await another.download(job.id, tmp_path / "a.mp4")

    sandbox.release()
    assert (await first).read_bytes() == VIDEO


def test_a_part_that_was_published_while_it_was_opened_is_not_written_to(tmp_path, monkeypatch):
    target = tmp_path / "a.mp4"
    leave_part(target, "ls_1", content=b"whole")
    real = parts._lock

    def late(side, part):
        real(side, part)
        if part.exists() and part.read_bytes() == b"whole":  # another process has finished it just now
            part.rename(target)
            (tmp_path / "a.mp4.part.etag").unlink()

    monkeypatch.setattr(parts, "_lock", late)
    with closing(Part.open(target, "ls_1")) as part:
        part.write([b"mine"])

    assert target.read_bytes() == b"whole"
    assert (tmp_path / "a.mp4.part").read_bytes() == b"mine"


# The state of the job


@pytest.mark.parametrize("overwrite", [False, True])
async def test_what_another_program_puts_in_the_place_of_a_part_does_not_become_the_video(job, tmp_path, overwrite):
    async def replace(done, total):
        if done == total:
            await asyncio.to_thread(put_in_place_of, tmp_path / "a.mp4.part")

    with pytest.raises(DownloadError, match=r"a\.mp4\.part was removed or replaced by another program"):
        await job.download(tmp_path / "a.mp4", overwrite=overwrite, progress=replace)

    assert (tmp_path / "a.mp4.part").read_text() == "mine"
    assert left_in(tmp_path) == ["a.mp4.part"]
    with pytest.raises(DownloadError, match="is not an unfinished download"):
        await job.download(tmp_path / "a.mp4", overwrite=overwrite)


def put_in_place_of(path):
    new = path.with_name("new")
    new.write_text("mine")
    new.rename(path)


async def test_a_video_that_is_too_long_takes_nothing_of_another_program_with_it(tmp_path):
    async def replace(done, total):
        await asyncio.to_thread(put_in_place_of, tmp_path / "a.mp4.part")

    async with served(send_endlessly(), max_download_bytes=SIZE) as heygen:
        with pytest.raises(DownloadError, match="does not end"):
            await heygen.download("ls_1", tmp_path / "a.mp4", progress=replace)

    assert left_in(tmp_path) == ["a.mp4.part"]
    assert (tmp_path / "a.mp4.part").read_text() == "mine"


async def test_a_running_job_has_no_video_yet(tmp_path):
    async with Sandbox(manual=True) as slow, session(slow) as heygen:
        job = await heygen.lipsyncs.create(video=SAMPLE_VIDEO, audio=SAMPLE_AUDIO)
        with pytest.raises(DownloadError, match="wait for it first"):
            await job.download(tmp_path / "a.mp4")
        with pytest.raises(DownloadError, match="wait for it first"):
            await anext(job.iter_bytes())


async def test_a_failed_job_is_raised_as_such(heygen, tmp_path):
    failed = Lipsync(id="ls_1", status="failed", failure_message="no face")
    with pytest.raises(LipsyncFailed, match="no face"):
        await heygen.download(failed, tmp_path / "a.mp4")


# Cancellation


async def test_a_cancelled_download_keeps_its_part_and_leaves_nothing_running(heygen, job, sandbox, tmp_path):
    sandbox.faults = [faults.slow_drip(chunk=100_000, pause=0.06, times=1)]
    before = asyncio.all_tasks()
    task = asyncio.create_task(job.download(tmp_path / "a.mp4"))
    part = tmp_path / "a.mp4.part"
    await until(lambda: part.exists() and part.stat().st_size >= 200_000)

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await until(lambda: not [one for one in asyncio.all_tasks() - before if not is_servers(one)])

    assert task.cancelled()
    assert heygen._calls.transfers.targets == set()
    kept = part.read_bytes()  # a thread may still be writing its last block
    assert kept == VIDEO[: len(kept)]
    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO
    assert int(sent(sandbox)[-1].headers["Range"].removeprefix("bytes=").removesuffix("-")) >= len(kept) >= 200_000


def is_servers(task):
    return "sandbox" in repr(task) or "web_protocol" in repr(task)


async def test_an_iteration_that_ends_early_leaves_nothing_open(heygen, job, sandbox):
    sandbox.faults = [faults.slow_drip(chunk=1000, pause=0.001)]
    async with aclosing(job.iter_bytes()) as pieces:
        async for _ in pieces:
            break
    await heygen.account.me()

    assert not heygen._connections._connector._acquired


# Iterating


async def test_an_interrupted_iteration_is_resumed(job, sandbox):
    sandbox.faults = [faults.cut_download(after_bytes=1_000_001, times=2)]

    assert b"".join([data async for data in job.iter_bytes()]) == VIDEO


async def test_bytes_that_arrived_before_the_connection_broke_are_not_lost_to_a_slow_consumer():
    ranges, got = [], bytearray()

    async def handler(request):
        ranges.append(request.headers.get("Range"))
        if len(ranges) > 1:
            headers = {"ETag": '"a"', "Content-Range": f"bytes 200000-{SIZE - 1}/{SIZE}"}
            return web.Response(status=206, body=VIDEO[200_000:], headers=headers)
        response = web.StreamResponse(headers={"Content-Length": str(SIZE), "ETag": '"a"'})
        await response.prepare(request)
        await response.write(VIDEO[:200_000])
        request.transport.close()
        return response

    async with served(handler) as heygen:
        async for data in heygen.iter_bytes("ls_1"):
            got += data
            for _ in range(3):  # by now the connection has ended
                await heygen.lipsyncs.get("ls_1")

    assert bytes(got) == VIDEO
    assert ranges == [None, "bytes=200000-"]


async def test_an_iteration_over_a_host_that_cannot_resume_skips_what_was_yielded(job, sandbox):
    sandbox.faults = [faults.cut_download(after_bytes=1_000_001, times=1), faults.no_ranges()]

    assert b"".join([data async for data in job.iter_bytes()]) == VIDEO


# Captions


async def test_captions_are_written_only_on_request(tmp_path):
    captions = send(CAPTIONS)
    async with served(send(VIDEO), captions) as heygen:
        await heygen.download("ls_1", tmp_path / "a.mp4")
        await heygen.lipsyncs.job("ls_1").download(tmp_path / "b.mp4")

    assert captions.calls == 0
    assert left_in(tmp_path) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("handle", ["session", "job"])
async def test_captions_are_written_beside_the_video(tmp_path, handle):
    async with served(send(VIDEO)) as heygen:
        if handle == "session":
            path = await heygen.download("ls_1", tmp_path / "a.mp4", captions=True)
        else:
            path = await heygen.lipsyncs.job("ls_1").download(tmp_path / "a.mp4", captions=True)

    assert path == tmp_path / "a.mp4"
    assert left_in(tmp_path) == ["a.mp4", "a.srt"]
    assert (tmp_path / "a.srt").read_bytes() == CAPTIONS


OCTETS = {"Content-Type": "application/octet-stream"}
BAD_CAPTIONS = [
    pytest.param(send(b""), "an empty file", id="empty"),
    pytest.param(send(b" \n"), "an empty file", id="blank"),
    pytest.param(send(b"\xef\xbb\xbf\r\n"), "an empty file", id="byte-order-mark"),
    pytest.param(send(b"", 404), "404", id="gone"),
    pytest.param(send(b"", 403), "403", id="expired"),
    pytest.param(send(b"<html>", headers={"Content-Type": "text/html"}), "a page", id="page"),
    pytest.param(send(b"<!doctype html>", headers={"Content-Type": "text/plain"}), "a page", id="page-as-text"),
    pytest.param(send(b'{"error": 1}', headers={"Content-Type": "text/plain"}), "a page", id="json-as-text"),
    pytest.param(in_packets(b"\n", b"<!doc", b"type html>"), "a page", id="page-in-packets"),
    pytest.param(send(b"", 500), "500", id="server-error"),
    pytest.param(send(VIDEO, headers=OCTETS), "another file, which is no text", id="video-as-octets"),
    pytest.param(send(bytes(1000), headers=OCTETS), "another file, which is no text", id="zeros"),
    pytest.param(in_packets(b"\x1f", b"\x8b", b"\x08abc"), "another file, which is no text", id="gzip-in-packets"),
    pytest.param(send_endlessly(), "does not end", id="endless"),
]


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=utf-8", "application/octet-stream"])
async def test_a_video_is_written_though_its_server_does_not_know_its_name(tmp_path, kind):
    video = b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x08moov" + b"\0\0\0\x0cmdat1234"
    async with served(in_packets(video[:3], video[3:], headers={"Content-Type": kind})) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == video


WRONG_TYPES = [
    *("application/xml", "application/json", "text/html", "text/xml", "audio/mp4", "image/png"),
    *("application/pdf", "application/x-mpegURL"),
]


@pytest.mark.parametrize("kind", WRONG_TYPES)
async def test_a_video_is_written_whatever_its_host_declares_it_as(tmp_path, kind):
    async with served(in_packets(VIDEO[:3], VIDEO[3:], headers={"Content-Type": kind})) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO


@pytest.mark.parametrize("kind", WRONG_TYPES)
async def test_a_video_that_is_declared_as_something_else_is_resumed(tmp_path, kind):
    ranges = []

    async def handler(request):
        ranges.append(request.headers.get("Range"))
        headers = {"ETag": '"a"', "Content-Type": kind}
        if len(ranges) > 1:
            headers["Content-Range"] = f"bytes 1000-{SIZE - 1}/{SIZE}"
            return web.Response(status=206, body=VIDEO[1000:], headers=headers)
        response = web.StreamResponse(headers={**headers, "Content-Length": str(SIZE)})
        await response.prepare(request)
        await response.write(VIDEO[:1000])
        request.transport.close()
        return response

    async with served(handler) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize("kind", WRONG_TYPES)
async def test_captions_are_not_what_a_video_is_declared_as(tmp_path, kind):
    async with served(send(VIDEO), send(VIDEO, headers={"Content-Type": kind})) as heygen:
        with pytest.raises(DownloadError):
            await heygen.download_captions("ls_1", tmp_path / "a.mp4")

    assert left_in(tmp_path) == []


@pytest.mark.parametrize("coding", ["aws-chunked", "utf-8", "binary", "base64"])
async def test_a_video_is_written_though_it_was_stored_with_a_coding_that_it_does_not_have(tmp_path, coding):
    async with served(send(VIDEO, headers={"Content-Encoding": coding})) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO


async def test_a_video_that_has_an_unknown_coding_is_not_written(tmp_path):
    async with served(send(base64.b64encode(VIDEO), headers={"Content-Encoding": "base64"})) as heygen:
        with pytest.raises(DownloadError, match="is no video"):
            await heygen.download("ls_1", tmp_path / "a.mp4")

    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("body", "kind", "problem"),
    [
        (b"<", "video/mp4", "a page"),
        (b"\xff\xfe", "video/mp4", "a page"),
        (b"Access denied", "text/plain", "sent text/plain, which is no video"),
        (b"#EXTM3U\n", "application/octet-stream", "which is no video"),
        (b"any bytes of no certain kind", "text/html", "a page"),
        (b"any bytes of no certain kind", "image/png", "sent image/png, which is no video"),
        (b"<html>", "image/png", "sent image/png, which is no video"),
        (b"\0\0\0\x10ftypheic\0\0\0\0", "image/heic", "sent image/heic, which is no video"),
    ],
)
async def test_what_is_no_video_is_not_written(tmp_path, body, kind, problem):
    answer = send(body, headers={"Content-Type": kind})
    async with served(answer) as heygen:
        with pytest.raises(DownloadError, match=problem) as error:
            await heygen.download("ls_1", tmp_path / "a.mp4")

    assert not (tmp_path / "a.mp4").exists()
    assert error.value.is_transient == (problem == "a page")
    assert answer.calls == 1 or error.value.is_transient


@pytest.mark.parametrize(("captions", "problem"), BAD_CAPTIONS)
async def test_a_problem_with_captions_is_logged_and_the_video_is_there(tmp_path, caplog, captions, problem):
    async with served(send(VIDEO), captions) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4", captions=True)

    assert path.read_bytes() == VIDEO
    assert left_in(tmp_path) == ["a.mp4"]
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.name == "heygen_async"
    assert "the captions of ls_1 were not written" in warning.getMessage()
    assert problem in warning.getMessage()
    assert "sig" not in warning.getMessage()


@pytest.mark.parametrize(("captions", "problem"), BAD_CAPTIONS)
async def test_a_problem_with_captions_alone_is_an_error_and_leaves_nothing(tmp_path, captions, problem):
    async with served(send(VIDEO), captions) as heygen:
        with pytest.raises(DownloadError, match=problem):
            await heygen.download_captions("ls_1", tmp_path / "a.mp4")

    assert left_in(tmp_path) == []


async def test_a_lipsync_without_a_link_to_captions_is_requested_once_more(tmp_path):
    early = Lipsync(id="ls_1", status="completed", video_url="https://x.test/a.mp4")
    async with served(send(VIDEO)) as heygen:
        path = await heygen.download_captions(early, tmp_path / "a.mp4")

    assert path == tmp_path / "a.srt"
    assert path.read_bytes() == CAPTIONS


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.symlink_to("nowhere")])
async def test_captions_never_replace_a_file_unless_that_is_wanted(tmp_path, caplog, make):
    make(tmp_path / "a.srt")
    before = _identity(tmp_path / "a.srt")
    async with served(send(VIDEO)) as heygen:
        assert (await heygen.download("ls_1", tmp_path / "a.mp4", captions=True)).read_bytes() == VIDEO
        assert "a.srt exists already" in caplog.text
        with pytest.raises(DownloadError, match=r"a\.srt exists already"):
            await heygen.download_captions("ls_1", tmp_path / "a.mp4")
        assert _identity(tmp_path / "a.srt") == before
        await heygen.download_captions("ls_1", tmp_path / "a.mp4", overwrite=True)

    assert (tmp_path / "a.srt").read_bytes() == CAPTIONS


def _identity(path: Path) -> tuple[int, int, int]:
    """Return what does not change while a file or a link is only read."""
    found = os.lstat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nodir/", "the folder does not exist"),
        ("no/dir/", "the folder does not exist"),
        ("no/dir/a.mp4", "does not exist"),
        ("", "names no file"),
        ("a\0b", "must not contain NUL"),
        ("a\ud800.mp4", "a character that no file name can have"),
        ("x" * 300, "304 bytes, and 255 fit$"),
        ("あ" * 83 + "abc", "256 bytes, and 255 fit$"),
    ],
)
async def test_captions_that_cannot_be_written_are_not_requested(tmp_path, monkeypatch, path, problem):
    monkeypatch.chdir(tmp_path)
    captions = send(CAPTIONS)
    async with served(send(VIDEO), captions) as heygen:
        with pytest.raises(DownloadError, match=problem):
            await heygen.download_captions("ls_1", path)

    assert captions.calls == 0
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("wrong", [None, 5, b"ls_1", Path("ls_1")], ids=repr)
async def test_what_is_no_lipsync_and_no_id_is_refused_by_its_type(heygen, tmp_path, wrong):
    kind = type(wrong).__name__
    for call in (heygen.download, heygen.download_captions):
        with pytest.raises(TypeError, match=f"lipsync must be a Lipsync or its id, not {kind}"):
            await call(wrong, tmp_path / "a.mp4")
    with pytest.raises(TypeError, match=f"lipsync must be a Lipsync or its id, not {kind}"):
        await drain(heygen.iter_bytes(wrong))


async def test_a_job_in_the_place_of_its_id_is_refused_with_advice(heygen, job, tmp_path):
    with pytest.raises(TypeError, match=r"not LipsyncJob: call its own download\(\), or give its \.id"):
        await heygen.download(job, tmp_path / "a.mp4")
    with pytest.raises(TypeError, match=r"give its \.id"):
        await heygen.download_captions(job, tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["x" * 242 + ".mp4", "あ" * 83 + "ab.mp4", "x" * 251 + ".mp4", "x" * 251])
async def test_captions_are_written_beside_a_video_whatever_the_length_of_its_name(tmp_path, name):
    async with served(send(VIDEO)) as heygen:
        path = await heygen.download_captions("ls_1", tmp_path / name)

    assert path.read_bytes() == CAPTIONS
    assert left_in(tmp_path) == [f"{name.removesuffix('.mp4')}.srt"]


async def test_captions_that_appear_while_they_are_downloaded_are_not_replaced(tmp_path):
    async def captions(request):
        await asyncio.to_thread((tmp_path / "a.srt").write_text, "mine")
        return web.Response(body=CAPTIONS)

    async with served(send(VIDEO), captions) as heygen:
        with pytest.raises(DownloadError, match="created by somebody else"):
            await heygen.download_captions("ls_1", tmp_path / "a.mp4")

    assert left_in(tmp_path) == ["a.srt"]
    assert (tmp_path / "a.srt").read_text() == "mine"


def test_what_a_killed_process_leaves_of_captions_is_removed_by_the_next_one(tmp_path, monkeypatch):
    class Killed(BaseException):
        """Ends a process at once: nothing is removed on the way out."""

    def die(*_, **__):
        raise Killed

    target = tmp_path / "a.srt"
    with monkeypatch.context() as killed, suppress(Killed):
        killed.setattr(parts, "_publish", lambda *_, **__: killed.setattr(Path, "unlink", die) or die())
        parts.write_whole(target, b"old", overwrite=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]

    parts.write_whole(target, b"new", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.srt"]
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("options", "files"),
    [
        pytest.param({}, ["a.mp4"], id="by-default"),
        pytest.param({"enable_caption": False}, ["a.mp4"], id="switched-off"),
        pytest.param({"enable_caption": True}, ["a.mp4", "a.srt"], id="by-the-option-of-the-create"),
        pytest.param({"enable_caption": True, "captions": True}, ["a.mp4", "a.srt"], id="on-request"),
    ],
)
async def test_dub_writes_captions_on_request(heygen, tmp_path, options, files):
    await heygen.dub(video=VIDEO, audio=SAMPLE_AUDIO, output=tmp_path / "a.mp4", **options)

    assert left_in(tmp_path) == files


async def test_captions_in_the_way_of_dub_are_found_before_anything_is_sent(heygen, sandbox, tmp_path):
    (tmp_path / "a.srt").write_text("mine")
    with pytest.raises(DownloadError, match=r"a\.srt exists already"):
        await heygen.dub(video=VIDEO, audio=SAMPLE_AUDIO, output=tmp_path / "a.mp4", captions=True)
    with pytest.raises(ValueError, match="captions=True needs an output"):
        await heygen.dub(video=VIDEO, audio=SAMPLE_AUDIO, captions=True)

    assert not sandbox.requests


# Outputs that cannot be written are found before anything is sent


def a_file_as_folder(folder):
    (folder / "file").write_text("mine")
    return folder / "file" / "a.mp4"


def a_folder_as_part(folder):
    (folder / "a.mp4.part").mkdir()
    return folder / "a.mp4"


def a_folder_as_side_file(folder):
    (folder / "a.mp4.part.etag").mkdir()
    return folder / "a.mp4"


def somebodys_part(folder):
    (folder / "a.mp4.part").write_text("mine")
    return folder / "a.mp4"


def somebodys_link_to_the_target(folder):
    (folder / "a.mp4").write_text("mine")
    os.link(folder / "a.mp4", folder / "a.mp4.part")
    return folder / "a.mp4"


def somebodys_side_file(folder):
    (folder / "a.mp4.part.etag").write_text("mine")
    return folder / "a.mp4"


def another_lipsyncs_part(folder):
    leave_part(folder / "a.mp4", "ls_other")
    return folder / "a.mp4"


def a_part_of_a_part(folder):
    return folder / "a.mp4.part"


def a_link_to_nowhere(folder):
    (folder / "a.mp4").symlink_to("nowhere")
    return folder / "a.mp4"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(
            lambda folder: folder / ("あ" * 83 + ".mp4"), "the name has 253 bytes, and 245 fit", id="253-bytes"
        ),
        pytest.param(lambda folder: folder / ("x" * 242 + ".mp4"), "the name has 246 bytes", id="246-bytes"),
        pytest.param(lambda folder: folder / ("x" * 300 + ".mp4"), "the name has 304 bytes", id="304-bytes"),
        pytest.param(lambda folder: folder.joinpath(*["d"] * 2100, "a.mp4"), "the path has", id="long-path"),
        pytest.param(lambda _: "", "names no file", id="empty"),
        pytest.param(lambda folder: folder / "a\0.mp4", "NUL", id="nul"),
        pytest.param(lambda folder: folder / "\ud83d.mp4", "no file name can have", id="lone-surrogate"),
        pytest.param(lambda folder: folder / "no" / "a.mp4", "does not exist", id="no-folder"),
        pytest.param(lambda folder: f"{folder}/fr/", "the folder does not exist", id="no-folder-to-write-into"),
        pytest.param(a_file_as_folder, "is not a folder", id="file-as-folder"),
        pytest.param(a_folder_as_part, r"a\.mp4\.part: it is a folder", id="folder-as-part"),
        pytest.param(a_folder_as_side_file, r"a\.mp4\.part\.etag: it is a folder", id="folder-as-side-file"),
        pytest.param(somebodys_part, r"a\.mp4\.part exists and is not an unfinished download", id="foreign-part"),
        pytest.param(somebodys_side_file, r"a\.mp4\.part\.etag exists and is not", id="foreign-side-file"),
        pytest.param(another_lipsyncs_part, "an unfinished download of lipsync ls_other", id="part-of-another"),
        pytest.param(a_part_of_a_part, "names that end with", id="name-of-a-part"),
        pytest.param(a_link_to_nowhere, "exists already", id="dangling-link"),
    ],
)
async def test_an_output_that_cannot_be_written_is_found_before_anything_is_sent(
    heygen, sandbox, tmp_path, make, problem
):
    output = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DownloadError, match=problem) as refused:
        await heygen.dub(video=VIDEO, audio=SAMPLE_AUDIO, output=output)
    with pytest.raises(DownloadError, match=problem):
        await heygen.download("ls_1", output)

    assert not refused.value.is_transient
    assert not sandbox.requests
    assert sorted(tmp_path.rglob("*")) == before


@given(st.text(max_size=30), st.booleans(), st.booleans(), st.booleans())
def test_checking_an_output_never_fails_whatever_its_path_is(path, overwrite, makes_folders, captions):
    problems = target_problems(Path(path), overwrite=overwrite, makes_folders=makes_folders, captions=captions)

    assert all(isinstance(problem, str) for problem in problems)


@pytest.mark.parametrize("through_link", [False, True])
async def test_a_pipe_or_a_device_is_never_replaced(heygen, job, sandbox, tmp_path, through_link):
    for name in ("video.mp4", "captions.srt"):
        pipe = tmp_path / (f"{name}.pipe" if through_link else name)
        os.mkfifo(pipe)
        if through_link:
            (tmp_path / name).symlink_to(pipe)
    requests, before = len(sandbox.requests), left_in(tmp_path)

    with pytest.raises(DownloadError, match="is not a regular file"):
        await job.download(tmp_path / "video.mp4", overwrite=True)
    with pytest.raises(DownloadError, match="is not a regular file"):
        await heygen.download_captions(job.id, tmp_path / "captions.mp4", overwrite=True)

    assert left_in(tmp_path) == before
    assert len(sandbox.requests) == requests


async def test_captions_in_a_folder_replace_no_pipe(heygen, job, tmp_path):
    name = captions_path(await job.download(tmp_path)).name
    os.mkfifo(tmp_path / name)

    with pytest.raises(DownloadError, match="is not a regular file"):
        await heygen.download_captions(job.id, tmp_path, overwrite=True)
    assert (tmp_path / name).is_fifo()


def test_every_problem_of_an_output_is_found_at_once(tmp_path):
    target = tmp_path / ("x" * 246)
    target.write_text("mine")
    captions_path(target).mkdir()
    (tmp_path / f"{target.name}.part").symlink_to("nowhere")

    problems = target_problems(target, captions=True)

    assert len(problems) == 4


def test_the_longest_name_that_fits_is_no_problem_and_one_byte_more_is(tmp_path):
    name_max = os.pathconf(tmp_path, "PC_NAME_MAX")

    assert target_problems(tmp_path / ("x" * (name_max - len(".part.etag")))) == []
    assert len(target_problems(tmp_path / ("x" * (name_max - len(".part.etag") + 1)))) == 1


@pytest.mark.parametrize("limit", [-1, 0, -2])
def test_a_file_system_that_has_no_limits_of_names_takes_usual_ones(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(os, "pathconf", lambda *_: limit)

    assert target_problems(tmp_path / "a.mp4") == []
    assert target_problems(tmp_path / ("a" * 300)) != []
    assert target_in(str(tmp_path), "Episode 1", "ls_1", "https://x.test/a.mp4").name == "Episode 1 (ls_1).mp4"


def test_folders_that_are_made_are_checked_too(tmp_path):
    (tmp_path / "file").write_text("mine")

    assert target_problems(tmp_path / "a" / "b" / "c.mp4", makes_folders=True) == []
    assert "the folder name" in target_problems(tmp_path / ("x" * 256) / "c.mp4", makes_folders=True)[0]
    assert "is not a folder" in target_problems(tmp_path / "file" / "b" / "c.mp4", makes_folders=True)[0]


def test_a_folder_that_may_not_be_written_to_is_a_problem():
    program = (
        "import os, sys; from pathlib import Path; from heygen_async._media.targets import target_in, target_problems; "
        "os.geteuid() or os.setuid(65534); print(*target_problems(Path(sys.argv[1], 'a.mp4')))"  # root may write all
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", program, folder]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    assert "is not writable" in found


@pytest.mark.parametrize("path", ["/", ".", "..", "/tmp", ""])
def test_a_folder_is_not_a_file_to_replace(path):
    [problem, *_] = target_problems(Path(path), overwrite=True)

    assert "it is a folder" in problem or "names no file" in problem


@pytest.mark.parametrize("names", [("a.mp4.part", "a.mp4.part.etag"), ("a.mp4.part.etag",)], ids=["part", "side"])
def test_what_cannot_be_removed_beside_a_finished_download_is_left_there(names):
    program = (
        "import os, sys; from pathlib import Path; from heygen_async._media.parts import remove_unneeded\n"
        "os.geteuid() or os.setuid(65534)  # root may remove all\n"
        "remove_unneeded(Path(sys.argv[1], 'a.mp4'), 'ls_1')"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.mp4", *names):
            Path(folder, name).write_text("lipsync ls_1\n")
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", program, folder]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        left = left_in(Path(folder))
        Path(folder).chmod(0o700)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert left == ["a.mp4", *names]


# Whose part it is


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(
    "leave", [somebodys_part, somebodys_link_to_the_target, another_lipsyncs_part, somebodys_side_file]
)
async def test_a_part_that_is_not_ours_is_never_touched(job, sandbox, tmp_path, leave, overwrite):
    target = leave(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    requests = len(sandbox.requests)
    with pytest.raises(DownloadError, match=r"a\.mp4\.part") as refused:
        await job.download(target, overwrite=overwrite)

    assert not refused.value.is_transient
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(sandbox.requests) == requests


@pytest.mark.parametrize(
    "side",
    [
        pytest.param("", id="made-but-not-written"),
        pytest.param("lipsync {id}\n", id="made-before-the-part"),
        pytest.param('lipsync {id}\n"a"\n', id="half-of-a-version"),
        pytest.param("lipsync ls_other\n", id="left-by-another-after-its-part"),
    ],
)
async def test_a_crash_before_the_first_byte_leaves_nothing_in_the_way(job, tmp_path, side):
    (tmp_path / "a.mp4.part.etag").write_text(side.format(id=job.id))

    assert (await job.download(tmp_path / "a.mp4")).read_bytes() == VIDEO
    assert left_in(tmp_path) == ["a.mp4"]


async def test_the_name_and_the_version_of_a_file_do_not_make_a_part_ours(heygen, job, tmp_path):
    await heygen.lipsyncs.create(video=VIDEO, audio=SAMPLE_AUDIO)
    leave_part(tmp_path / "a.mp4", "ls_other", f"{await etag_of(job)}\n{SIZE}\n", VIDEO[:1000])
    with pytest.raises(DownloadError, match="an unfinished download of lipsync ls_other"):
        await job.download(tmp_path / "a.mp4")


# Paths


async def test_a_leading_tilde_is_the_home_folder(job, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    path = await job.download("~/a.mp4")

    assert path == tmp_path / "a.mp4"
    assert left_in(tmp_path) == ["a.mp4"]


async def test_a_path_that_ends_with_a_separator_is_a_folder(job, tmp_path):
    (tmp_path / "fr").mkdir()

    path = await job.download(f"{tmp_path}/fr/")

    assert path.parent == tmp_path / "fr"


# Limits


@pytest.mark.parametrize("headers", [None, {"ETag": '"a"'}])
async def test_a_download_that_never_ends_is_ended_at_the_limit(tmp_path, headers):
    async with served(send_endlessly(headers), max_download_bytes=1_000_000) as heygen:
        with pytest.raises(DownloadError, match="does not end after 1,000,000 bytes, which is the limit") as ended:
            await asyncio.wait_for(heygen.download("ls_1", tmp_path / "a.mp4"), 20)
        with pytest.raises(DownloadError, match="does not end after 1,000,000 bytes"):
            await asyncio.wait_for(drain(heygen.iter_bytes("ls_1")), 20)

    assert not ended.value.is_transient
    assert left_in(tmp_path) == []


async def drain(pieces):
    async for _ in pieces:
        pass


async def test_a_video_that_is_announced_as_longer_than_the_limit_is_not_downloaded(tmp_path):
    async with served(send(VIDEO), max_download_bytes=SIZE - 1) as heygen:
        with pytest.raises(DownloadError, match=r"has 3,000,000 bytes according to its file host, and 2,999,999 is"):
            await heygen.download("ls_1", tmp_path / "a.mp4")
        with pytest.raises(DownloadError, match="2,999,999 is the limit"):
            await drain(heygen.with_options(retry=QUICK).iter_bytes("ls_1"))
    async with served(send(VIDEO), max_download_bytes=SIZE) as heygen:
        assert (await heygen.download("ls_1", tmp_path / "a.mp4")).read_bytes() == VIDEO


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_the_limit_is_a_count(value, error):
    with pytest.raises(error, match="max_download_bytes"):
        HeyGenSession("key", max_download_bytes=value)


async def test_a_host_that_sends_more_than_it_announced_for_a_range_is_started_again(tmp_path):
    calls = []

    async def handler(request):
        calls.append(request.headers.get("Range"))
        if len(calls) == 1:
            response = web.StreamResponse(headers={"Content-Length": str(SIZE), "ETag": '"a"'})
            await response.prepare(request)
            await response.write(VIDEO[:1000])
            request.transport.close()
            return response
        if len(calls) == 2:
            headers = {"ETag": '"a"', "Content-Range": f"bytes 1000-{SIZE - 1}/{SIZE}"}
            response = web.StreamResponse(status=206, headers=headers)
            response.enable_chunked_encoding()
            await response.prepare(request)
            with suppress(ConnectionError):
                while True:
                    await response.write(bytes(65536))
        return web.Response(body=VIDEO, headers={"ETag": '"a"'})

    async with served(handler) as heygen:
        path = await asyncio.wait_for(heygen.download("ls_1", tmp_path / "a.mp4"), 20)

    assert path.read_bytes() == VIDEO
    assert calls == [None, "bytes=1000-", None]


# What is transient


TRANSIENT = [
    pytest.param(faults.error(408, "timeout", route=FILES), id="408"),
    pytest.param(faults.rate_limited(FILES, retry_after=0), id="429"),
    pytest.param(faults.server_error(FILES, status=500), id="500"),
    pytest.param(faults.server_error(FILES, status=503, body="html"), id="503"),
    pytest.param(faults.html(FILES), id="html-200"),
    pytest.param(faults.reset(FILES), id="reset"),
    pytest.param(faults.stall(FILES), id="timeout"),
]
IMPATIENT = {"timeouts": Timeouts(transfer_idle=0.3), "retry": evolve(QUICK, max_attempts=10)}


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_a_transient_failure_of_a_file_host_is_retried(job, sandbox, tmp_path, fault):
    sandbox.faults = [evolve(fault, times=2)]
    async with session(sandbox, **IMPATIENT) as heygen:
        path = await asyncio.wait_for(heygen.download(job.id, tmp_path / "a.mp4"), 20)
        assert b"".join([data async for data in heygen.iter_bytes(job.id)]) == VIDEO

    assert path.read_bytes() == VIDEO


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_a_failure_of_a_file_host_that_stays_ends_in_a_transient_error(job, sandbox, tmp_path, fault):
    sandbox.faults = [fault]
    async with session(sandbox, **IMPATIENT) as heygen:
        limited = heygen.with_options(
            retry=RetryPolicy(first_delay=0.02, max_delay=0.02, max_attempts=2, max_seconds=0.1)
        )
        with pytest.raises(DownloadError) as failed:
            await asyncio.wait_for(limited.download(job.id, tmp_path / "a.mp4"), 20)

    assert failed.value.is_transient


# Any behaviour of a host


class Host:
    """A file host, and the transport to it, that breaks where it should.

    `breaks` are bytes after which the answers end, one after another; an answer past them is whole.
    """

    def __init__(self, data, *, etag, ranges, length, breaks, chunk):
        self.data = data
        self.etag = etag
        self.ranges = ranges
        self.length = length
        self.breaks = list(breaks)
        self.chunk = chunk
        self.http = self
        self.retry = RetryPolicy(first_delay=0, max_delay=0, max_attempts=len(self.breaks) + 2)
        self.timeouts = Timeouts()
        self.gate = Gate(max_connections=1, max_requests_per_second=None)

    async def get(self, url, *, headers, timeouts):
        start, status, answered = 0, HTTPStatus.OK, {"ETag": self.etag} if self.etag else {}
        if self.ranges and "Range" in headers and headers["If-Range"] == self.etag:
            start, status = int(headers["Range"][6:-1]), HTTPStatus.PARTIAL_CONTENT
            answered["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        if self.length:
            answered["Content-Length"] = str(len(self.data) - start)
        return Answer(status, answered, self.data[start:], self.breaks.pop(0) if self.breaks else None, self.chunk)


class Answer:
    def __init__(self, status, headers, data, cut, chunk):
        self.status = status
        self.headers = headers
        self.body = io.BytesIO(data[:cut])
        self.cut = cut is not None and cut < len(data)
        self.chunk = chunk

    async def read(self):
        data = self.body.read(self.chunk)
        if not data and self.cut:
            raise TransportError("cut")
        return data

    def close(self):
        self.body.close()


@settings(max_examples=300)
@given(
    data=st.binary(min_size=1, max_size=200),
    breaks=st.lists(st.integers(0, 200), max_size=6),
    chunk=st.integers(1, 64),
    ranges=st.booleans(),
    length=st.booleans(),
    etag=st.sampled_from(['"a"', 'W/"a"', None]),
    there=st.integers(0, 200),
)
def test_the_bytes_are_those_of_the_file_wherever_the_connection_breaks(  # noqa: PLR0917 drawn by name
    data, breaks, chunk, ranges, length, etag, there
):
    data = b"v" + data  # or it may be a page
    host = Host(data, etag=etag, ranges=ranges, length=length, breaks=breaks, chunk=chunk)
    state = PartState(min(there, len(data)), '"a"', len(data)) if etag == '"a"' else PartState()
    got = bytearray(data[: state.done])

    asyncio.run(take(host, state, got))

    assert bytes(got) == data


async def take(host, state, got):
    lipsync = Lipsync(id="ls_1", status="completed", video_url="https://x.test/a.mp4")
    async for chunk in fetch(host, OutputLink("video", lipsync, False, None), state, max_bytes=1000):
        got[chunk.start :] = chunk.data
        assert chunk.state.done == len(got)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"Content-Range": "bytes 0-99/3000000"}, id="another-start"),
        pytest.param({"Content-Range": "bytes 1000-9/7"}, id="another-total"),
        pytest.param({}, id="none"),
        pytest.param({"Content-Range": "bytes 1000-2999999/3000000", "ETag": '"b"'}, id="another-etag"),
        pytest.param({"Content-Range": "bytes 1000-2999999/3000000", "ETag": 'W/"b"'}, id="another-weak-etag"),
    ],
)
async def test_an_answer_to_another_range_is_not_taken_for_the_rest(tmp_path, odd):
    ranges = []

    async def handler(request):
        ranges.append(request.headers.get("Range"))
        if "Range" in request.headers:
            return web.Response(status=206, body=b"y" * 100, headers={"ETag": '"a"', **odd})
        response = web.StreamResponse(headers={"Content-Length": str(SIZE), "ETag": '"a"'})
        await response.prepare(request)
        cut = 1000 if len(ranges) == 1 else SIZE
        with contextlib.suppress(ConnectionError):
            await response.write(VIDEO[:cut])
        if cut < SIZE:
            request.transport.close()
        return response

    async with served(handler) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert ranges == [None, "bytes=1000-", None]


async def test_a_host_that_sends_the_rest_in_pieces_is_requested_for_each(tmp_path):
    async def handler(request):
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        end = min(start + 1_000_000, SIZE)
        if not start:
            response = web.StreamResponse(headers={"Content-Length": str(SIZE), "ETag": '"a"'})
            await response.prepare(request)
            await response.write(VIDEO[:1000])
            request.transport.close()
            return response
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{SIZE}", "ETag": '"a"'}
        return web.Response(status=206, body=VIDEO[start:end], headers=headers)

    async with served(handler) as heygen:
        assert (await heygen.download("ls_1", tmp_path / "a.mp4")).read_bytes() == VIDEO


async def test_a_host_that_answers_every_request_with_a_range_is_downloaded_piece_by_piece(tmp_path):
    async def handler(request):
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        end = min(start + 1_000_000, SIZE)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{SIZE}", "ETag": '"a"'}
        return web.Response(status=206, body=VIDEO[start:end], headers=headers)

    async with served(handler) as heygen:
        assert (await heygen.download("ls_1", tmp_path / "a.mp4")).read_bytes() == VIDEO


def without_length(*, ends):
    """Make a handler that never says how long the file is, and whose answer breaks off, or goes on, at its end."""

    async def handler(request):
        handler.ranges.append(request.headers.get("Range"))
        if "Range" in request.headers:
            headers = {"Content-Range": f"bytes */{SIZE}", "ETag": '"a"'}
            return web.Response(status=416, headers=headers, body=b"<Error><Code>InvalidRange</Code></Error>")
        response = web.StreamResponse(headers={"ETag": '"a"'})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(VIDEO)
        if not ends:
            await asyncio.Event().wait()
        request.transport.close()
        return response

    handler.ranges = []
    return handler


@pytest.mark.parametrize("ends", [True, False])
async def test_a_file_of_unknown_length_that_has_no_end_is_complete_if_its_host_has_no_more_of_it(tmp_path, ends):
    host, reports = without_length(ends=ends), []
    async with served(host, timeouts=Timeouts(transfer_idle=0.1)) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4", progress=lambda *now: reports.append(now))
        assert b"".join([data async for data in heygen.iter_bytes("ls_1")]) == VIDEO

    assert path.read_bytes() == VIDEO
    assert left_in(tmp_path) == ["a.mp4"]
    assert host.ranges == [None, f"bytes={SIZE}-"] * 2
    assert reports[-1] == (SIZE, SIZE)


async def test_a_part_of_an_earlier_run_is_complete_if_its_host_has_no_more_of_it(tmp_path):
    leave_part(tmp_path / "a.mp4", "ls_1", '"a"\n\n', VIDEO)
    host = without_length(ends=True)
    async with served(host) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert host.ranges == [f"bytes={SIZE}-"]


async def test_a_file_of_unknown_length_is_read_to_its_end(tmp_path):
    async def handler(request):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(VIDEO)
        return response

    reports = []
    async with served(handler) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4", progress=lambda *now: reports.append(now))

    assert path.read_bytes() == VIDEO
    assert reports[-2:] == [(SIZE, None), (SIZE, SIZE)]  # at its end, the length is known


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        pytest.param(b"", {}, "an empty file", id="empty"),
        pytest.param(b"<!doctype html>", {"Content-Type": "video/mp4"}, "a page", id="page-in-disguise"),
        pytest.param(b"\x1f\x8b", {"Content-Encoding": "gzip"}, "compressed", id="compressed"),
    ],
)
async def test_an_answer_without_a_video_is_an_error(tmp_path, body, headers, error):
    async def handler(request):
        return web.Response(body=body, headers=headers)

    async with served(handler) as heygen:
        with pytest.raises(DownloadError, match=error):
            await heygen.download("ls_1", tmp_path / "a.mp4")
    assert "a.mp4" not in left_in(tmp_path)


PAGES = [
    pytest.param((b"<!doc", b"type html>"), id="two-packets"),
    pytest.param((b"<", b"!doctype html>"), id="one-byte-first"),
    pytest.param((b" " * 100, b"\n", b"<html>"), id="blanks-in-packets"),
    pytest.param((b"\xef", b"\xbb\xbf", b"<!doctype html>"), id="byte-order-mark-in-packets"),
    pytest.param((b"\n" * 100_000, b"1"), id="nothing-but-blanks-for-too-long"),
    pytest.param((b"<!-- x --><html>",), id="comment"),
    pytest.param((b"<HEAD></HEAD>",), id="head"),
    pytest.param((b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",), id="xml"),
    pytest.param((b'{"error": {"code": "expired"}}',), id="json"),
    pytest.param((b'[{"error": 1}]',), id="json-list"),
    pytest.param((b"<scr", b"ipt>location = 1</script>"), id="script"),
    pytest.param((b"<", b"h1>403 Forbidden</h1>"), id="heading"),
    pytest.param((b"<ns:Error xmlns:ns='x'>",), id="xml-with-a-namespace"),
    pytest.param((b"\xff", b"\xfe<", b"\0!\0"), id="utf-16-in-packets"),
    pytest.param((b'["exp', b'ired"]'), id="json-list-of-strings"),
    pytest.param((b'"expired"',), id="json-string"),
]


@pytest.mark.parametrize("kind", ["video/mp4", "", "application/octet-stream"])
@pytest.mark.parametrize("packets", PAGES)
async def test_a_page_is_never_a_video_however_it_arrives(tmp_path, packets, kind):
    headers = {"Content-Type": kind, "ETag": '"a"', "Content-Length": str(sum(map(len, packets)))}
    async with served(in_packets(*packets, headers=headers)) as heygen:
        with pytest.raises(DownloadError, match="a page"):
            await heygen.download("ls_1", tmp_path / "a.mp4")
        with pytest.raises(DownloadError, match="a page"):
            await drain(heygen.iter_bytes("ls_1"))

    assert "a.mp4" not in left_in(tmp_path)
    assert (tmp_path / "a.mp4.part").read_bytes() == b""


@pytest.mark.parametrize("start", [(b"\n", b" \n"), (b"\xef\xbb", b"\xbf"), (b"\t" * 10,)])
async def test_a_video_that_begins_with_blanks_has_all_of_its_bytes(tmp_path, start):
    packets = (*start, b"any bytes", b"<html>")
    async with served(in_packets(*packets, headers={"Content-Type": "video/mp4"})) as heygen:
        path = await heygen.download("ls_1", tmp_path / "a.mp4")

    assert path.read_bytes() == b"".join(packets)


async def test_a_connection_that_breaks_before_a_file_has_begun_is_not_resumed_after_its_blanks(tmp_path):
    ranges = []

    async def handler(request):
        ranges.append(request.headers.get("Range"))
        response = web.StreamResponse(headers={"Content-Length": "1000", "ETag": '"a"'})
        await response.prepare(request)
        await response.write(b" " * 500)
        if len(ranges) > 1:
            await response.write(b"<html>" + b"<" * 494)
        request.transport.close()
        return response

    async with served(handler) as heygen:
        with pytest.raises(DownloadError, match="a page"):
            await heygen.download("ls_1", tmp_path / "a.mp4")

    assert set(ranges) == {None}


@pytest.mark.parametrize("start", [b"<!doctype html>", b"\n" * 100 + b"{", b" \n", b"\xef\xbb\xbf<"])
async def test_a_part_that_begins_like_a_page_is_not_resumed(job, sandbox, tmp_path, start):
    leave_part(tmp_path / "a.mp4", job.id, f"{await etag_of(job)}\n{SIZE}\n", start)
    before = len(sent(sandbox))

    path = await job.download(tmp_path / "a.mp4")

    assert path.read_bytes() == VIDEO
    assert [request.headers.get("Range") for request in sent(sandbox)[before:]] == [None]


async def test_an_iteration_over_a_file_that_changed_is_an_error(tmp_path):
    count = iter(range(9))

    async def handler(request):
        number = next(count)
        response = web.StreamResponse(headers={"Content-Length": str(SIZE), "ETag": f'"{number}"'})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(mp4(SIZE, bytes([number]))[: 1000 if not number else SIZE])
        if not number:
            request.transport.close()
        return response

    async with served(handler) as heygen:
        with pytest.raises(DownloadError, match="had to start again after 1,000 bytes"):
            [data async for data in heygen.iter_bytes("ls_1")]
