"""Uploads: which sources are accepted, how they are sent, and that each content is sent once."""

import asyncio
import hashlib
import io
import os
import ssl
import tempfile
import threading
import time
import traceback
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import anyio
import pytest
from aiohttp import web
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from mp4 import mp4
from until import until

import heygen_async
from heygen_async import (
    APIError,
    Asset,
    AssetId,
    HeyGenError,
    HeyGenSession,
    InsufficientCredit,
    InvalidRequest,
    LipsyncRequest,
    NotFound,
    PollPolicy,
    RequestTimeout,
    RetryPolicy,
    Timeouts,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async._media import reading
from heygen_async._media.ingestion import Ingestion
from heygen_async._media.reading import Reading, sha256_of
from heygen_async._media.sources import LocalFile, fingerprint, local_file, look_at_path
from heygen_async._media.transfers import Transfers
from heygen_async._media.upload_cache import UploadCache
from heygen_async._media.uploads import Uploads
from heygen_async._wire import Response
from heygen_async.sandbox import SAMPLE_AUDIO, Sandbox, faults

QUICK = RetryPolicy(first_delay=0.001, max_delay=0.002)
POST, ANNOUNCE, PUT = "POST /v3/assets", "POST /v3/assets/direct-uploads", "PUT /uploads/{asset_id}"
COMPLETE, CREATE = "POST /v3/assets/{asset_id}/complete", "POST /v3/lipsyncs"


@pytest.fixture
def video(tmp_path):
    """A file of some chunks."""
    return write(tmp_path / "video.mp4", mp4(700_000))


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.fixture
def direct(heygen):
    """A session that sends everything to the storage host."""
    heygen._calls.transfers.multipart_max = 0
    return heygen


@pytest.fixture(params=["before it is sent", "while it is sent"])
def hashed(request, heygen):
    """When a file is hashed, which depends on how long ago it was changed."""
    heygen._calls.transfers.settled_after = 0 if request.param == "while it is sent" else 1 << 40
    return request.param


def entries(heygen):
    cache = heygen._calls.transfers.uploaded
    return [*cache._entries.values(), *cache._unhashed.values()]


def routes(sandbox):
    return [request.route for request in sandbox.requests]


def held(sandbox):
    """Count the requests that a fault has struck."""
    return sum(request.fault is not None for request in sandbox.requests)


async def content(asset):
    async with aiohttp.ClientSession() as http, http.get(asset.url) as response:
        return await response.read()


@asynccontextmanager
async def served(*handlers, tls=None):
    """A server of our own, for what the sandbox does not do."""
    app = web.Application(client_max_size=1 << 30)
    app.add_routes(handlers)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# Sources


async def test_a_small_file_is_uploaded_as_a_form(heygen, sandbox, video):
    asset = await heygen.assets.upload(video)

    assert routes(sandbox) == [POST]
    assert (asset.mime_type, asset.size_bytes) == ("video/mp4", 700_000)
    assert await content(asset) == video.read_bytes()


async def test_a_large_file_is_uploaded_to_the_storage_host_with_its_digest(direct, sandbox, video):
    asset = await direct.assets.upload(video)

    announced, put, completed = sandbox.requests
    assert [announced.route, put.route, completed.route] == [ANNOUNCE, PUT, COMPLETE]
    digest = hashlib.sha256(video.read_bytes()).hexdigest()
    described = {"filename": "video.mp4", "content_type": "video/mp4", "size_bytes": 700_000}
    assert announced.json == {**described, "checksum_sha256": digest}
    assert completed.json == {"checksum_sha256": digest}
    assert put.headers["Content-Length"] == "700000"
    assert asset.status == "completed"
    assert await content(asset) == video.read_bytes()


async def test_exactly_the_largest_form_is_still_a_form(heygen, sandbox, video):
    heygen._calls.transfers.multipart_max = 700_000
    await heygen.assets.upload(video)
    heygen._calls.transfers.multipart_max = 699_999
    heygen.assets.forget()
    await heygen.assets.upload(video)

    assert routes(sandbox)[:2] == [POST, ANNOUNCE]


async def test_a_file_too_large_for_the_form_is_uploaded_to_the_storage_host(video):
    async with Sandbox(max_multipart_bytes=1000) as sandbox, session(sandbox) as heygen:
        asset = await heygen.assets.upload(video)

        assert routes(sandbox)[-3:] == [ANNOUNCE, PUT, COMPLETE]
        assert await content(asset) == video.read_bytes()


def session(sandbox, **options):
    return HeyGenSession(sandbox.api_key, base_url=sandbox.url, retry=QUICK, **options)


async def test_bytes_are_uploaded_under_a_name_of_their_type(direct, sandbox):
    asset = await direct.assets.upload(mp4(5000))

    assert sandbox.requests[0].json["filename"] == "upload.mp4"
    assert await content(asset) == mp4(5000)


async def test_a_name_may_be_given(direct, sandbox):
    await direct.assets.upload(mp4(5000), name="Épisode 1")

    assert sandbox.requests[0].json["filename"] == "Épisode 1.mp4"


@pytest.mark.parametrize("make", [io.BytesIO, lambda data: io.BufferedReader(io.BytesIO(data))])
async def test_an_open_file_is_uploaded_from_its_position_and_keeps_it(direct, make):
    file = make(b"skip this" + mp4(300_000))
    file.seek(9)

    asset = await direct.assets.upload(file)

    assert await content(asset) == mp4(300_000)
    assert file.tell() == 9
    assert not file.closed


async def test_an_open_file_is_rewound_for_each_attempt(direct, sandbox, video):
    sandbox.faults = [faults.server_error(PUT, times=2)]
    with video.open("rb") as file:
        asset = await direct.assets.upload(file)

    assert routes(sandbox).count(PUT) == 3
    assert await content(asset) == video.read_bytes()


async def test_a_pipe_is_uploaded_whole_and_retried(direct, sandbox):
    sandbox.faults = [faults.server_error(PUT, times=1)]
    reader, writer = os.pipe()
    feeder = threading.Thread(target=feed, args=(writer, mp4(300_000)))
    feeder.start()
    with os.fdopen(reader, "rb") as file:
        asset = await asyncio.wait_for(direct.assets.upload(file, name="pipe.mp4"), 10)
    feeder.join()

    assert await content(asset) == mp4(300_000)


def feed(writer, data):
    with os.fdopen(writer, "wb") as file:
        file.write(data)


class AsyncUpload:
    """A file as web frameworks hand it over."""

    file = io.BytesIO(mp4(100))

    async def read(self, size=-1):
        return self.file.read(size)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        pytest.param("https://x.test/a.mp4", TypeError, "URL needs no upload", id="url"),
        pytest.param("a.mp4", TypeError, "a local file is a Path", id="str"),
        pytest.param(io.StringIO("text"), TypeError, "binary mode", id="text-file"),
        pytest.param(anyio.wrap_file(io.BytesIO(mp4(100))), TypeError, "read without await", id="async-file"),
        pytest.param(AsyncUpload(), TypeError, r"in it \(`.file`", id="upload-file"),
        pytest.param(7, TypeError, "not int", id="number"),
        pytest.param(bytearray(mp4(100)), TypeError, "not bytearray", id="bytearray"),
        pytest.param(AssetId("asset_1"), TypeError, "not AssetId", id="asset"),
        pytest.param(b"", ValueError, "upload is empty", id="empty"),
        pytest.param(b"hello", ValueError, "upload is text", id="text"),
        pytest.param(io.BytesIO(), ValueError, "upload is empty", id="empty-file"),
    ],
)
async def test_a_source_that_cannot_be_uploaded_is_refused_before_anything_is_sent(
    heygen, sandbox, source, error, message
):
    with pytest.raises(error, match=message):
        await heygen.assets.upload(source)
    assert not sandbox.requests


async def test_a_file_that_cannot_be_read_is_an_os_error_before_anything_is_sent(heygen, sandbox, tmp_path):
    with pytest.raises(FileNotFoundError):
        await heygen.assets.upload(tmp_path / "nothing.mp4")
    with pytest.raises(IsADirectoryError):
        await heygen.assets.upload(tmp_path)
    assert not sandbox.requests


@pytest.mark.parametrize("way", ["form", "direct"])
async def test_a_file_whose_name_is_not_utf_8_is_uploaded(heygen, sandbox, tmp_path, way):
    heygen._calls.transfers.multipart_max = 0 if way == "direct" else 1 << 30
    path = write(tmp_path / os.fsdecode(b"\xe9pisode\xff.mp4"), mp4(9000))

    asset = await heygen.assets.upload(path)
    with path.open("rb") as file:
        assert (await heygen.assets.upload(file)).id == asset.id

    assert (await heygen.assets.get(asset.id)).name == "\ufffdpisode\ufffd.mp4"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a\0.mp4", r"cannot read 'a\\x00.mp4': a path must not contain NUL"),
        ("\0", "must not contain NUL"),
        ("a\ud800.mp4", "the path has a character that no file name can have"),
    ],
)
async def test_a_path_that_no_file_can_have_is_refused_in_a_sentence(heygen, name, problem):
    with pytest.raises(ValueError, match=problem):
        await heygen.assets.upload(Path(name))
    with pytest.raises(ValueError, match=problem):
        await heygen.lipsyncs.create(video=Path(name), audio="https://example.com/a.mp3")


@pytest.mark.parametrize("wrong", [5, "asset_1", b"asset_1"], ids=repr)
async def test_what_was_never_uploaded_cannot_be_forgotten(heygen, wrong):
    with pytest.raises(
        TypeError, match=f"what must be an Asset, an AssetId, a Path or None, not {type(wrong).__name__}"
    ):
        heygen.assets.forget(wrong)


async def test_a_named_pipe_is_not_waited_for(heygen, tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(ValueError, match="not a regular file"):
        await asyncio.wait_for(heygen.assets.upload(tmp_path / "fifo.mp4"), 5)


async def test_a_file_larger_than_the_server_takes_is_refused_before_its_first_byte(video):
    async with served(*grant(max_bytes=699_999)) as url, HeyGenSession("key", base_url=url) as heygen:
        heygen._calls.transfers.multipart_max = 0
        with pytest.raises(InvalidRequest, match="700,000 bytes, and HeyGen takes 699,999") as refused:
            await heygen.assets.upload(video)

    assert (refused.value.status, refused.value.code) == (413, "payload_too_large")


def grant(**fields):
    async def announce(request):
        link = f"{request.scheme}://{request.host}/put"
        return web.json_response({"data": {"asset_id": "a1", "upload_url": link, "upload_headers": {}, **fields}})

    async def complete(request):
        return web.json_response({"data": {"asset_id": "a1"}})

    return [web.post("/v3/assets/direct-uploads", announce), web.post("/v3/assets/a1/complete", complete)]


async def test_a_file_is_uploaded_over_tls(tmp_path):
    path, received = write(tmp_path / "video.mp4", mp4(9_000_000)), []

    async def put(request):
        received.append(await request.read())
        return web.Response()

    certificate = Path(__file__).parent / "tls" / "localhost.pem"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("localhost-key.pem"))
    async with (
        served(*grant(), web.put("/put", put), tls=context) as url,
        HeyGenSession("key", base_url=url, ssl=False) as heygen,
    ):
        heygen._calls.transfers.multipart_max = 0
        await heygen.assets.upload(path)

    assert received == [path.read_bytes()]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"upload_url": "http://elsewhere.test/put?secret"}, "upload link is not https"),
        ({"upload_url": "ftp://127.0.0.1/put"}, "upload link is not https"),
        ({"upload_headers": {"a": "b\r\nc"}}, "not a header"),
        ({"upload_headers": None}, r"unexpected answer \(200\)"),
    ],
)
async def test_an_odd_upload_link_is_an_unexpected_response(video, fields, message):
    async with served(*grant(**fields)) as url, HeyGenSession("key", base_url=url) as heygen:
        heygen._calls.transfers.multipart_max = 0
        with pytest.raises(UnexpectedResponse, match=message) as odd:
            await heygen.assets.upload(video)

    assert "secret" not in str(odd.value)


# Sizes


def sparse(path, start, size):
    """Make a file of *size* bytes that takes up none, so that to read it through would take long."""
    write(path, start)
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("role", "size"),
    [("video", 100_000_001), ("video", 6_000_000_000), ("audio", 50_000_001), ("audio", 6_000_000_000)],
)
async def test_a_file_that_is_too_large_is_refused_before_it_is_read_or_sent(heygen, sandbox, tmp_path, role, size):
    large = sparse(tmp_path / "large", mp4(100) if role == "video" else SAMPLE_AUDIO.read_bytes(), size)
    sources = {"video": mp4(100), "audio": SAMPLE_AUDIO, role: large}
    limit = {"video": "MP4 or WebM video up to 100 MB", "audio": "WAV or MP3 audio up to 50 MB"}[role]
    with pytest.raises(ValueError, match=f"{role}: large.* has {size:,} bytes; HeyGen takes {limit}"):
        await asyncio.wait_for(heygen.lipsyncs.create(**sources), 2)
    with pytest.raises(ValueError, match="up to"):
        await asyncio.wait_for(heygen.lipsyncs.create_batch([LipsyncRequest(**sources)]), 2)
    with pytest.raises(ValueError, match="up to"):
        await asyncio.wait_for(heygen.dub(**sources, output=tmp_path / "out.mp4"), 2)
    with large.open("rb") as file, pytest.raises(ValueError, match="up to"):
        await asyncio.wait_for(heygen.lipsyncs.create(**{**sources, role: file}), 2)

    assert not sandbox.requests


async def test_the_largest_file_of_a_role_is_taken(tmp_path):
    for role, start, size in (("video", mp4(100), 100_000_000), ("audio", SAMPLE_AUDIO.read_bytes(), 50_000_000)):
        path = sparse(tmp_path / role, start, size)
        assert (await asyncio.to_thread(look_at_path, path, None, role)).size == size


async def test_a_file_without_a_role_has_no_limit_of_ours(tmp_path):
    path = sparse(tmp_path / "large.mp4", mp4(100), 6_000_000_000)

    assert (await asyncio.to_thread(look_at_path, path, None, None)).size == 6_000_000_000


async def test_a_pipe_without_an_end_is_refused_at_the_limit(heygen, sandbox):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def read(self, size=-1):
            return SAMPLE_AUDIO.read_bytes()[:1].ljust(size, b"x")

    with pytest.raises(ValueError, match="up to 50 MB"):
        await asyncio.wait_for(heygen.lipsyncs.create(video=mp4(100), audio=Endless()), 20)
    assert not sandbox.requests


def test_a_fingerprint_names_one_version_of_one_file(tmp_path):
    path = write(tmp_path / "a", b"1")
    one = fingerprint(path.stat())
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    replace(path, b"2")
    os.utime(path, ns=times)

    assert fingerprint(path.stat()) != one
    assert one.count(":") == 4


# A file that changes


@pytest.mark.parametrize("change", [b"", mp4(600_000), mp4(800_000), mp4(700_000, b"y")])
async def test_a_file_that_changed_since_it_was_checked_is_an_error(direct, sandbox, video, change):
    uploads = direct.assets._uploads
    async with local_file(video) as file:
        video.write_bytes(change)
        with pytest.raises(OSError, match="changed"):
            await uploads.upload(file)

    assert routes(sandbox).count(PUT) <= 1  # it is not tried again
    assert COMPLETE not in routes(sandbox)


@pytest.mark.parametrize("way", ["form", "direct"])
@pytest.mark.parametrize("size", [2_000_000, 4_000_000])
async def test_a_file_that_changes_while_it_is_read_is_an_error_and_no_short_upload(
    heygen, sandbox, tmp_path, way, size
):
    heygen._calls.transfers.multipart_max = 0 if way == "direct" else 1 << 30
    path = write(tmp_path / "video.mp4", mp4(3_000_000))

    async def shrink_or_grow(done, total):
        await asyncio.to_thread(os.truncate, path, size)

    with pytest.raises(OSError, match="changed while it was read"):
        await heygen.assets.upload(path, progress=shrink_or_grow)

    assert COMPLETE not in routes(sandbox)
    assert len(heygen._calls.transfers.uploaded) == 0


async def test_a_file_that_is_removed_before_the_second_attempt_is_an_os_error(direct, sandbox, video):
    sandbox.faults = [faults.server_error(PUT)]

    async def remove(done, total):
        await asyncio.to_thread(video.unlink, missing_ok=True)

    with pytest.raises(FileNotFoundError):
        await direct.assets.upload(video, progress=remove)


# Attempts


async def test_a_put_is_retried_after_transient_failures(direct, sandbox, video):
    sandbox.faults = [
        faults.server_error(PUT, status=503, times=1),
        faults.reset(PUT, times=1),
        faults.rate_limited(PUT, retry_after=0, times=1),
    ]

    asset = await direct.assets.upload(video)

    assert routes(sandbox) == [ANNOUNCE, *[PUT] * 4, COMPLETE]
    assert await content(asset) == video.read_bytes()


@pytest.mark.parametrize(("status", "code"), [(400, "RequestTimeout"), (409, "OperationAborted")])
async def test_a_put_is_retried_after_a_refusal_that_may_pass_by_its_code(direct, sandbox, video, status, code):
    sandbox.faults = [storage_error(status, code)]

    asset = await direct.assets.upload(video)

    assert routes(sandbox) == [ANNOUNCE, PUT, PUT, COMPLETE]
    assert await content(asset) == video.read_bytes()


def storage_error(status, code):
    body = f"<Error><Code>{code}</Code></Error>".encode()
    return faults.Fault(PUT, faults.Reply(status=status, body=body, content_type="application/xml"), times=1)


async def test_a_put_that_never_succeeds_ends_after_the_attempts_of_the_policy(direct, sandbox, video):
    sandbox.faults = [faults.reset(PUT)]
    with pytest.raises(TransportError) as broken:
        await direct.assets.upload(video)

    assert broken.value.attempts == QUICK.max_attempts
    assert routes(sandbox).count(PUT) == QUICK.max_attempts


TRANSIENT = {
    "408": lambda route: faults.error(408, "timeout", route=route, times=2),
    "429": lambda route: faults.rate_limited(route, retry_after=0, times=2),
    "500": lambda route: faults.server_error(route, status=500, times=2),
    "503": lambda route: faults.server_error(route, status=503, body="html", times=2),
    "html 200": lambda route: faults.html(route, times=2),
    "reset": lambda route: faults.reset(route, times=2),
    "reset after": lambda route: faults.reset(route, after=True, times=2),
    "timeout": lambda route: faults.stall(route, times=2),
}


@pytest.mark.parametrize("route", [POST, ANNOUNCE, PUT, COMPLETE])
@pytest.mark.parametrize("failure", TRANSIENT)
async def test_a_transient_failure_of_any_request_of_an_upload_is_retried(sandbox, video, route, failure):
    sandbox.faults = [TRANSIENT[failure](route)]
    timeouts = Timeouts(transfer_idle=0.3, write=0.3) if failure == "timeout" else Timeouts()
    async with session(sandbox, timeouts=timeouts) as heygen:
        heygen._calls.transfers.multipart_max = 1 << 30 if route == POST else 0
        patient = heygen.with_options(retry=RetryPolicy(first_delay=0.001, max_delay=0.002, max_attempts=10))
        asset = await asyncio.wait_for(patient.assets.upload(video), 20)

    assert await content(asset) == video.read_bytes()
    assert routes(sandbox).count(route) >= 3
    sandbox.release()


@pytest.mark.parametrize("route", [POST, ANNOUNCE, PUT, COMPLETE])
@pytest.mark.parametrize("failure", [name for name in TRANSIENT if name != "timeout"])
async def test_a_failure_that_stays_ends_an_upload_in_a_transient_error(sandbox, video, route, failure):
    sandbox.faults = [evolve(TRANSIENT[failure](route), times=None)]
    quick = RetryPolicy(first_delay=0.02, max_delay=0.02, max_attempts=2, max_seconds=0.1)
    async with session(sandbox) as heygen:
        heygen._calls.transfers.multipart_max = 1 << 30 if route == POST else 0
        with pytest.raises(HeyGenError) as failed:
            await asyncio.wait_for(heygen.with_options(retry=quick).assets.upload(video), 20)

    assert failed.value.is_transient


@pytest.mark.parametrize("status", [400, 402, 422])
async def test_a_refusal_of_the_storage_host_is_not_retried(direct, sandbox, video, status):
    sandbox.faults = [faults.error(status, "no", route=PUT)]
    with pytest.raises(HeyGenError) as refused:
        await direct.assets.upload(video)

    assert not refused.value.is_transient
    assert routes(sandbox).count(PUT) == 1


@pytest.mark.parametrize("status", [403, 400])
async def test_a_new_upload_link_is_requested_if_one_has_expired(direct, sandbox, video, status):
    sandbox.faults = [faults.expired_link(PUT, times=1) if status == 403 else storage_error(400, "ExpiredToken")]

    asset = await direct.assets.upload(video)

    assert routes(sandbox) == [ANNOUNCE, PUT, ANNOUNCE, PUT, COMPLETE]
    assert await content(asset) == video.read_bytes()


async def test_upload_links_are_not_requested_without_end(direct, sandbox, video):
    sandbox.faults = [faults.expired_link(PUT)]
    with pytest.raises(APIError, match="the file host refused") as refused:
        await direct.assets.upload(video)

    assert routes(sandbox).count(ANNOUNCE) == 3
    walked = traceback.walk_tb(refused.value.__traceback__)
    frames = [frame for frame, _ in walked if frame.f_code.co_filename != __file__]
    assert "X-Amz" not in f"{refused.value} {refused.value.__cause__} {[frame.f_locals for frame in frames]}"


@pytest.mark.parametrize("status", [401, 402, 403, 404])
async def test_a_refusal_of_the_file_host_says_nothing_of_the_key_or_the_credit(direct, sandbox, video, status):
    sandbox.faults = [faults.error(status, "AccessDenied", route=PUT)]
    with pytest.raises(APIError, match="the file host refused") as refused:
        await direct.assets.upload(video)

    assert (type(refused.value), refused.value.status, refused.value.outcome) == (APIError, status, "rejected")
    assert "HEYGEN_API_KEY" not in str(refused.value)


async def test_an_upload_without_progress_times_out(video):
    hold = asyncio.Event()

    async def never(request):
        await hold.wait()
        return web.Response()

    timeouts = Timeouts(transfer_idle=0.2, write=0.2)
    once = RetryPolicy(max_attempts=1)
    async with (
        served(*grant(), web.put("/put", never)) as url,
        HeyGenSession("key", base_url=url, timeouts=timeouts, retry=once) as heygen,
    ):
        heygen._calls.transfers.multipart_max = 0
        with pytest.raises(TransportError, match="in time"):
            await asyncio.wait_for(heygen.assets.upload(video), 10)
        hold.set()


@pytest.mark.parametrize("name", ["a\x1bb.mp4", "a\x7f.mp4", "\x01.mp4"])
@pytest.mark.parametrize("is_form", [True, False])
async def test_a_file_with_control_characters_in_its_name_is_uploaded(heygen, tmp_path, name, is_form):
    heygen._calls.transfers.multipart_max = 32_000_000 if is_form else 0
    assert (await heygen.assets.upload(write(tmp_path / name, mp4(1000)))).id


@pytest.mark.parametrize("host", ["a" * 70 + ".b", "\ufffd", "a..b"], ids=ascii)
async def test_an_upload_link_whose_host_cannot_be_looked_up_is_an_error_that_stays(video, host):
    async with (
        served(*grant(upload_url=f"https://{host}/put?secret")) as url,
        HeyGenSession("key", base_url=url) as heygen,
    ):
        heygen._calls.transfers.multipart_max = 0
        with pytest.raises(TransportError, match="its address is not valid") as odd:
            await heygen.assets.upload(video)

    shown = "".join(traceback.TracebackException.from_exception(odd.value, capture_locals=True).format())
    assert "secret" not in shown
    assert (odd.value.is_transient, odd.value.outcome) == (False, "not_sent")


async def test_a_page_in_packets_is_not_the_answer_to_a_put(video):
    async def gateway(request):
        await request.read()
        response = web.StreamResponse()
        await response.prepare(request)
        for packet in (b" ", b"<!doc", b"type html>"):
            await response.write(packet)
            await asyncio.sleep(0.01)
        return response

    async with served(*grant(), web.put("/put", gateway)) as url, HeyGenSession("key", base_url=url) as heygen:
        heygen._calls.transfers.multipart_max = 0
        with pytest.raises(UnexpectedResponse, match="a page"):
            await heygen.with_options(retry=QUICK).assets.upload(video)


async def test_the_key_and_the_callers_headers_never_go_to_the_storage_host(sandbox, video):
    theirs = {"X-Private": "p", "Authorization": "Bearer theirs"}
    async with (
        aiohttp.ClientSession(headers=theirs, cookies={"c": "1"}) as http,
        session(sandbox, headers={"X-Mine": "m"}, http=http) as heygen,
    ):
        heygen._calls.transfers.multipart_max = 0
        await heygen.assets.upload(video)

    put = next(request for request in sandbox.requests if request.route == PUT)
    await until(lambda: put.status == 200)
    assert not {"X-Api-Key", "Authorization", "X-Mine", "X-Private", "Cookie"} & {*put.headers}
    assert sandbox.api_key not in str(dict(put.headers))


async def test_nothing_is_left_running_or_open_when_an_upload_is_cancelled(direct, sandbox, video):
    sandbox.faults = [faults.stall(PUT)]
    before = asyncio.all_tasks()
    files = open_files()
    task = asyncio.create_task(direct.assets.upload(video))
    await until(lambda: PUT in routes(sandbox))

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    ours = str(Path(heygen_async.__file__).parent)  # the file of a task's coroutine; the sandbox's are aiohttp's own
    await until(lambda: not any(ours in repr(task) for task in asyncio.all_tasks() - before))
    await until(lambda: video not in open_files() - files)

    assert len(direct._calls.transfers.uploaded) == 0
    sandbox.release()


async def test_a_cancelled_upload_of_a_pipe_closes_a_temporary_file_that_is_just_being_created(heygen, monkeypatch):
    create, is_waiting, may_create, created = tempfile.TemporaryFile, threading.Event(), threading.Event(), []

    def slow():
        is_waiting.set()
        assert may_create.wait(10)
        created.append(create())
        return created[0]

    monkeypatch.setattr(tempfile, "TemporaryFile", slow)
    reader, writer = os.pipe()
    os.write(writer, mp4(100))
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        task = asyncio.create_task(heygen.assets.upload(pipe))
        await until(is_waiting.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_create.set()
        await until(lambda: created and created[0].closed)
    os.close(writer)


def open_files():
    found = set()
    with suppress(FileNotFoundError):  # where there is no /proc
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found.add(link.readlink())
    return found


# Progress


@pytest.mark.parametrize("way", ["form", "direct"])
async def test_progress_reports_the_bytes_of_the_file(heygen, video, way):
    heygen._calls.transfers.multipart_max = 0 if way == "direct" else 1 << 30
    reports = []

    await heygen.assets.upload(video, progress=lambda done, total: reports.append((done, total)))

    assert reports == [(262144, 700_000), (524288, 700_000), (700_000, 700_000)]


async def test_progress_may_be_a_coroutine_function(heygen, video):
    reports = []

    async def progress(done, total):
        await asyncio.sleep(0)
        reports.append(done)

    await heygen.assets.upload(video, progress=progress)
    await heygen.assets.upload(video, progress=progress)

    assert reports == [262144, 524288, 700_000, 700_000]  # the second time it is there already


async def test_an_exception_of_progress_ends_the_transfer(direct, video):
    def progress(done, total):
        raise LookupError("stop")

    with pytest.raises(LookupError, match="stop"):
        await direct.assets.upload(video, progress=progress)


# Each content once


@pytest.mark.usefixtures("hashed")
async def test_ten_jobs_that_share_a_video_cause_one_upload(heygen, sandbox, video):
    jobs = await asyncio.gather(
        *(heygen.lipsyncs.create(video=video, audio=SAMPLE_AUDIO, title=f"Job {i}") for i in range(10))
    )

    assert len({job.id for job in jobs}) == 10
    assert routes(sandbox).count(POST) == 2
    assert len({str(job.body["video"]) for job in sandbox.jobs}) == 1


@pytest.mark.usefixtures("hashed")
async def test_the_same_content_is_uploaded_once_under_any_name(heygen, sandbox, tmp_path):
    one, other = write(tmp_path / "a.mp4", mp4(9000)), write(tmp_path / "b.mp4", mp4(9000))

    with one.open("rb") as file:
        assets = [await heygen.assets.upload(source) for source in (one, other, file, mp4(9000), io.BytesIO(mp4(9000)))]

    assert routes(sandbox) == [POST]
    assert len({asset.id for asset in assets}) == 1


@pytest.mark.usefixtures("hashed")
async def test_the_same_content_is_uploaded_once_when_two_names_start_at_once(heygen, sandbox, tmp_path):
    one, other = write(tmp_path / "a.mp4", mp4(9000)), write(tmp_path / "b.mp4", mp4(9000))

    assets = await asyncio.gather(heygen.assets.upload(one), heygen.assets.upload(other))

    assert routes(sandbox) == [POST]
    assert assets[0].id == assets[1].id


@pytest.mark.usefixtures("hashed")
async def test_files_of_one_size_with_different_content_are_uploaded_separately(heygen, sandbox, tmp_path):
    paths = [write(tmp_path / f"{i}.mp4", mp4(9000, bytes([i]))) for i in range(4)]

    assets = await asyncio.gather(*(heygen.assets.upload(path) for path in paths))

    assert routes(sandbox).count(POST) == 4
    assert [await content(asset) for asset in assets] == [path.read_bytes() for path in paths]


def overwrite(path, content):
    with path.open("r+b") as file:
        file.write(content)


def replace(path, content):
    write(path.with_name("new"), content).replace(path)


@pytest.mark.parametrize("change", [overwrite, replace, write])
@pytest.mark.parametrize("keeps_times", [True, False])
async def test_a_file_with_new_content_is_uploaded_again_though_size_and_times_are_equal(
    heygen, sandbox, tmp_path, change, keeps_times
):
    path = write(tmp_path / "a.mp4", mp4(9000, b"0"))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    for seed in (b"0", b"1", b"2", b"2"):
        change(path, mp4(9000, seed))
        if keeps_times:
            os.utime(path, ns=times)
        assert await content(await heygen.assets.upload(path)) == mp4(9000, seed)

    assert routes(sandbox).count(POST) == 3


async def test_a_job_gets_what_is_on_the_disk_when_it_is_submitted(heygen, sandbox, tmp_path):
    path = write(tmp_path / "a.mp4", mp4(9000, b"old"))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    await heygen.lipsyncs.create(video=path, audio=SAMPLE_AUDIO)
    overwrite(path, mp4(9000, b"new"))
    os.utime(path, ns=times)
    await heygen.lipsyncs.create(video=path, audio=SAMPLE_AUDIO)

    old, new = [job.body["video"]["asset_id"] for job in sandbox.jobs]
    assert await content(await heygen.assets.get(old)) == mp4(9000, b"old")
    assert await content(await heygen.assets.get(new)) == mp4(9000, b"new")


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("way", ["form", "direct"])
async def test_a_file_that_changes_between_its_hash_and_its_upload_is_never_sent_whole(heygen, sandbox, tmp_path, way):
    heygen._calls.transfers.multipart_max = 0 if way == "direct" else 1 << 30
    path = write(tmp_path / "a.mp4", mp4(9_000_000, b"old"))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    await until(lambda: time.time() > path.stat().st_ctime + 0.05)  # the clock of a file system has coarse steps

    async def change(done, total):
        await asyncio.to_thread(overwrite, path, mp4(9_000_000, b"new"))
        await asyncio.to_thread(os.utime, path, ns=times)

    with pytest.raises(OSError, match="changed"):
        await heygen.assets.upload(path, progress=change)

    assert COMPLETE not in routes(sandbox)
    assert len(heygen._calls.transfers.uploaded) == 0


@pytest.mark.parametrize("most", [0, 1 << 30], ids=["to the storage host", "as a form"])
async def test_another_content_than_the_one_that_was_checked_becomes_no_asset(heygen, sandbox, video, hashed, most):
    """A run knows what its row was made of; the file may have another content for a moment, which no check sees."""
    heygen._calls.transfers.multipart_max = most
    uploads, checked = heygen._calls.uploads, hashlib.sha256(video.read_bytes()).hexdigest()
    write(video, mp4(700_000, b"y"))
    async with local_file(video) as file:
        with pytest.raises(OSError, match="changed"):
            await uploads.upload(file, sha256=checked)
    assert not any(one.status == 200 and one.route in {POST, COMPLETE} for one in sandbox.requests)

    write(video, mp4(700_000))
    async with local_file(video) as file:
        asset = await uploads.upload(file, sha256=checked)
    assert await content(asset) == video.read_bytes()


async def test_a_file_that_nobody_has_changed_for_a_while_is_read_once(direct, sandbox, video):
    direct._calls.transfers.settled_after = 0
    read = Passes(video)
    async with local_file(video) as file:
        asset = await direct.assets._uploads.upload(evolve(file, open=read.open))

    announced, _, completed = sandbox.requests
    assert read.bytes == 700_000 + 3 * reading.SAMPLE
    assert "checksum_sha256" not in announced.json
    assert completed.json == {"checksum_sha256": hashlib.sha256(video.read_bytes()).hexdigest()}
    assert await content(asset) == video.read_bytes()


class Passes:
    """Counts what is read of a file."""

    def __init__(self, path):
        self.path, self.bytes = path, 0

    def open(self):
        file = self.path.open("rb")
        read = file.read

        def counted(size):
            block = read(size)
            self.bytes += len(block)
            return block

        return SimpleNamespace(read=counted, seek=file.seek, close=file.close)


async def test_a_file_whose_mode_changes_while_it_is_sent_is_uploaded(heygen, sandbox, tmp_path):
    heygen._calls.transfers.settled_after = 0
    path = write(tmp_path / "a.mp4", mp4(9_000_000))
    await until(lambda: time.time() > path.stat().st_ctime + 0.05)

    asset = await heygen.assets.upload(path, progress=lambda done, total: path.chmod(0o640))

    assert await content(asset) == mp4(9_000_000)


def twins(folder):
    """Make two files that differ where no sample looks."""
    one, other = bytearray(mp4(700_000)), bytearray(mp4(700_000))
    other[200_000] ^= 1
    return write(folder / "a.mp4", bytes(one)), write(folder / "b.mp4", bytes(other))


async def test_contents_with_the_same_sample_are_uploaded_separately(heygen, sandbox, tmp_path):
    heygen._calls.transfers.settled_after = 0
    paths = twins(tmp_path)

    assets = await asyncio.gather(*(heygen.assets.upload(path) for path in paths))
    again = [await heygen.assets.upload(path) for path in paths]

    assert routes(sandbox).count(POST) == 2
    assert [await content(asset) for asset in assets] == [path.read_bytes() for path in paths]
    assert [asset.id for asset in again] == [asset.id for asset in assets]


async def test_the_failure_of_an_upload_is_not_that_of_another_content_with_the_same_sample(direct, sandbox, tmp_path):
    direct._calls.transfers.settled_after = 0
    sandbox.faults = [faults.stall(ANNOUNCE, times=1), faults.error(413, "EntityTooLarge", route=PUT, times=1)]
    one, other = twins(tmp_path)
    first = asyncio.create_task(direct.assets.upload(one))
    await until(lambda: held(sandbox) == 1)
    second = asyncio.create_task(direct.assets.upload(other))
    await until(lambda: [entry.waiting for entry in entries(direct)] == [1])
    sandbox.release()

    with pytest.raises(InvalidRequest):
        await first
    assert await content(await second) == other.read_bytes()


class Api:
    """An API in memory: each upload ends as the next of *ends* says."""

    def __init__(self, ends):
        self.ends, self.stored, self.failures = iter(ends), [], 0

    async def send(self, request):
        form = b"".join([bytes(piece) async for piece in request.body.chunks()])
        content = form.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        await asyncio.sleep(0)
        if next(self.ends, "stored") == "failed":
            self.failures += 1
            raise TransportError("it broke")
        self.stored.append(content)
        return Response(200, {}, {"data": {"asset_id": f"asset_{len(self.stored)}"}})


ONE, OTHER, THIRD = mp4(700_000), mp4(700_000)[:200_000] + b"?" + mp4(700_000)[200_001:], mp4(700_000, b"third")


@given(
    calls=st.lists(st.tuples(st.sampled_from([ONE, OTHER, THIRD]), st.booleans(), st.integers(0, 3)), max_size=7),
    cancelled=st.sets(st.integers(0, 6), max_size=3),
    ends=st.lists(st.sampled_from(["stored", "failed"]), max_size=5),
)
def test_in_any_order_of_calls_failures_and_cancellations_each_content_is_stored_once(calls, cancelled, ends):
    api = Api(ends)
    transfers = Transfers(max_download_bytes=1)
    transfers.settled_after = 0
    uploads = Uploads(api, transfers, Ingestion(api, PollPolicy()))

    async def upload(content, is_settled, pauses):
        await asyncio.sleep(pauses / 1000)
        touched_at = 0 if is_settled else None
        file = LocalFile("a.mp4", "video/mp4", len(content), partial(io.BytesIO, content), always, always, touched_at)
        return await uploads.upload(file)

    async def run():
        tasks = [asyncio.create_task(upload(*call)) for call in calls]
        await asyncio.sleep(0.001)
        for number in cancelled & set(range(len(tasks))):
            tasks[number].cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    results = asyncio.run(run())
    transfers.close()

    for (content, _, _), result in zip(calls, results, strict=True):
        if isinstance(result, Asset):
            assert api.stored[int(result.id.removeprefix("asset_")) - 1] == content
        else:
            assert isinstance(result, (TransportError, asyncio.CancelledError))
    assert len(set(api.stored)) == len(api.stored)
    assert sum(isinstance(result, TransportError) for result in results) >= min(api.failures, 1)
    assert all(entry.is_ready and not entry.waiting for entry in transfers.uploaded._entries.values())
    assert transfers.uploaded._unhashed == {}


def always():
    return True


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_if_the_first_caller_is_cancelled_another_takes_over_and_its_upload_is_remembered(
    direct, sandbox, video, count
):
    sandbox.faults = [faults.stall(PUT, times=1)]
    first = asyncio.create_task(direct.assets.upload(video))
    await until(lambda: PUT in routes(sandbox))
    others = [asyncio.create_task(direct.assets.upload(video)) for _ in range(count)]
    await until(lambda: [entry.waiting for entry in entries(direct)] == [count])

    first.cancel()
    assets = await asyncio.wait_for(asyncio.gather(*others), 10)
    assets.append(await asyncio.wait_for(direct.assets.upload(video), 10))

    assert first.cancelled()
    assert len({asset.id for asset in assets}) == 1
    assert routes(sandbox).count(COMPLETE) == 1
    sandbox.release()


@pytest.mark.usefixtures("hashed")
async def test_a_failure_is_raised_to_each_waiter_as_an_exception_of_its_own(direct, sandbox, video):
    sandbox.faults = [faults.stall(ANNOUNCE, times=1), faults.error(413, "EntityTooLarge", route=PUT)]
    tasks = [asyncio.create_task(direct.assets.upload(video)) for _ in range(3)]
    await until(lambda: [entry.waiting for entry in entries(direct)] == [2])
    await until(lambda: held(sandbox) == 1)
    sandbox.release()

    errors = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(error) for error in errors} == {InvalidRequest}
    assert len({id(error) for error in errors}) == 3
    assert routes(sandbox) == [ANNOUNCE, PUT]
    sandbox.faults = []
    assert await direct.assets.upload(video)  # and is not remembered


@pytest.mark.usefixtures("hashed")
async def test_a_failure_before_the_file_is_read_is_raised_to_each_waiter_too(direct, sandbox, video):
    sandbox.faults = [faults.error(402, "insufficient_credit", route=ANNOUNCE)]
    seats = direct._calls.transfers.seats
    async with AsyncExitStack() as taken:
        for _ in range(8):
            await taken.enter_async_context(seats)
        tasks = [asyncio.create_task(direct.assets.upload(video)) for _ in range(3)]
        await until(lambda: [entry.waiting for entry in entries(direct)] == [2])

    errors = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(error) for error in errors} == {InsufficientCredit}
    assert routes(sandbox) == [ANNOUNCE]


async def test_an_exception_of_progress_at_the_end_does_not_undo_the_upload(heygen, sandbox, video):
    def burst(done, total):
        if done == total:
            raise LookupError("mine")

    with pytest.raises(LookupError):
        await heygen.assets.upload(video, progress=burst)
    await heygen.assets.upload(video)

    assert routes(sandbox) == [POST]


async def test_an_answer_before_the_whole_file_is_sent_is_an_error(tmp_path):
    async def hasty(request):
        return web.Response()

    path = write(tmp_path / "video.mp4", mp4(30_000_000))
    async with served(*grant(), web.put("/put", hasty)) as url, HeyGenSession("key", base_url=url) as heygen:
        heygen._calls.transfers.multipart_max = 0
        with pytest.raises(HeyGenError):
            await asyncio.wait_for(heygen.with_options(retry=QUICK).assets.upload(path), 10)


@pytest.mark.usefixtures("hashed")
async def test_an_exception_of_one_callers_progress_does_not_reach_the_others(heygen, sandbox, video):
    def burst(done, total):
        raise LookupError("mine")

    results = await asyncio.gather(
        heygen.assets.upload(video, progress=burst), heygen.assets.upload(video), return_exceptions=True
    )

    assert isinstance(results[0], LookupError)
    assert isinstance(results[1], Asset)


@pytest.mark.parametrize("how", ["path", "asset", "id", "all"])
async def test_an_upload_can_be_forgotten(heygen, sandbox, video, how):
    asset = await heygen.assets.upload(video)

    heygen.assets.forget({"path": video, "asset": asset, "id": AssetId(asset.id), "all": None}[how])
    await heygen.assets.upload(video)

    assert routes(sandbox).count(POST) == 2


async def test_forgetting_another_file_forgets_nothing(heygen, sandbox, video):
    await heygen.assets.upload(video)

    heygen.assets.forget(video.with_name("other.mp4"))
    heygen.assets.forget(AssetId("asset_other"))
    await heygen.assets.upload(video)

    assert routes(sandbox).count(POST) == 1


async def test_an_asset_that_was_deleted_is_forgotten(heygen, sandbox, video):
    await heygen.assets.delete((await heygen.assets.upload(video)).id)
    await heygen.assets.upload(video)

    assert routes(sandbox).count(POST) == 2


async def test_views_of_a_session_share_what_was_uploaded(heygen, sandbox, video):
    await heygen.assets.upload(video)
    await heygen.with_options(headers={"X-A": "b"}).assets.upload(video)

    assert routes(sandbox) == [POST]


def test_the_cache_remembers_so_many_uploads_and_forgets_what_was_not_used_for_longest():
    cache = UploadCache(max_entries=3)
    for number in range(5):
        entry = cache.entry((number, ""), f"digest {number}", None)
        entry.asset, entry.is_ready = Asset(id=str(number)), True
        cache.entry((0, ""), "digest 0", None)

    assert [number for number in range(5) if f"digest {number}" in cache._entries] == [0, 3, 4]


# Assets that are still being processed

EAGER = PollPolicy(fastest=0.001, slowest=0.002)


class Processing:
    """A server on which assets take a while, in the words of `states`, one for each status request."""

    def __init__(self, *states, form=True, field="video_id"):
        self.states = list(states)
        self.form = form
        self.field = field
        self.calls = []
        self.create_answers = []

    def handlers(self):
        return [
            web.post("/v3/assets", self.upload),
            *grant()[:1],
            web.put("/put", self.put),
            web.post("/v3/assets/a1/complete", self.complete),
            web.get("/v3/assets/statuses", self.statuses),
            web.post("/v3/lipsyncs", self.create),
        ]

    async def put(self, request):
        await request.read()
        return web.Response()

    async def upload(self, request):
        await request.read()
        return self.asset("upload")

    async def complete(self, request):
        return self.asset("complete")

    def asset(self, call):
        self.calls.append(call)
        return web.json_response({"data": {"asset_id": "a1", "status": "processing"}})

    async def statuses(self, request):
        assert request.query["asset_ids"] == "a1"
        self.calls.append("statuses")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, int):
            return web.json_response({"error": {"code": "not_found", "message": "no"}}, status=state)
        entry = {self.field: "a1", **(state if isinstance(state, dict) else {"status": state})}
        return web.json_response({"data": [entry], "has_more": False, "next_token": None})

    async def create(self, request):
        self.calls.append("create")
        code = self.create_answers.pop(0) if self.create_answers else None
        if code is not None:
            return web.json_response({"error": {"code": code, "message": code}}, status=400)
        return web.json_response({"data": {"lipsync_id": "ls_1"}})


@asynccontextmanager
async def processing(server, polling=EAGER):
    async with (
        served(*server.handlers()) as url,
        HeyGenSession("key", base_url=url, retry=QUICK, polling=polling) as heygen,
    ):
        heygen._calls.transfers.multipart_max = 1 << 30 if server.form else 0
        yield heygen


@pytest.mark.parametrize("form", [True, False])
@pytest.mark.parametrize("field", ["video_id", "asset_id", "id"])
async def test_an_asset_that_is_still_being_processed_is_waited_for(video, form, field):
    server = Processing("processing", "queued", "completed", form=form, field=field)
    async with processing(server) as heygen:
        assets = await asyncio.wait_for(asyncio.gather(*(heygen.assets.upload(video) for _ in range(3))), 20)

    assert {asset.status for asset in assets} == {"completed"}
    assert server.calls == ["upload" if form else "complete", *["statuses"] * 3]


@pytest.mark.parametrize("state", [404, 403, "ready", {}])
async def test_an_asset_of_unknown_state_counts_as_ready(video, state):
    server = Processing(state)
    async with processing(server) as heygen:
        await asyncio.wait_for(heygen.assets.upload(video), 20)

    assert server.calls == ["upload", "statuses"]


@pytest.mark.parametrize("error", [{"message": "no video track"}, "no video track"])
async def test_an_asset_that_heygen_cannot_process_is_an_error_and_is_not_remembered(video, error):
    server = Processing({"status": "failed", "error": error})
    async with processing(server) as heygen:
        with pytest.raises(InvalidRequest, match="could not process the asset a1: no video track") as failed:
            await asyncio.wait_for(heygen.assets.upload(video), 20)
        assert len(heygen._calls.transfers.uploaded) == 0

    assert not failed.value.is_transient


@pytest.mark.parametrize(
    "quoted", ["https://b.example/v.mp4?sig=5ec5e7", "https://user:5ec5e7@b.example/v", "/v?t=a b&token=5ec5e7"]
)
async def test_why_an_asset_cannot_be_processed_shows_neither_the_key_nor_a_query(video, quoted):
    server = Processing({"status": "failed", "error": f"cannot read {quoted}\nwith the key k3y-123"})
    async with (
        served(*server.handlers()) as url,
        HeyGenSession("k3y-123", base_url=url, retry=QUICK, polling=EAGER) as heygen,
    ):
        with pytest.raises(InvalidRequest, match="could not process the asset a1: cannot read") as failed:
            await asyncio.wait_for(heygen.assets.upload(video), 20)

    assert "5ec5e7" not in str(failed.value)
    assert "k3y-123" not in str(failed.value)


@pytest.mark.parametrize(
    "answer",
    [
        {"data": "odd"},
        {"data": [7, {"video_id": ["a1"]}, {"id": None, "status": "processing"}]},
        {"data": [{"video_id": "a1", "status": 7}], "has_more": True, "next_token": 5},
        {"data": [{"video_id": "other", "status": "processing"}], "has_more": True, "next_token": "t"},
        [],
    ],
)
async def test_an_odd_answer_about_the_state_of_an_asset_does_no_harm(video, answer):
    async def statuses(request):
        return web.json_response(answer)

    server = Processing("completed")
    handlers = [handler for handler in server.handlers() if handler.path != "/v3/assets/statuses"]
    async with (
        served(*handlers, web.get("/v3/assets/statuses", statuses)) as url,
        HeyGenSession("key", base_url=url, retry=QUICK, polling=EAGER) as heygen,
    ):
        asset = await asyncio.wait_for(heygen.assets.upload(video), 20)

    assert asset.id == "a1"


async def test_the_states_of_many_assets_are_read_over_several_pages():
    calls = []

    async def statuses(request):
        calls.append(request.query.get("token"))
        asset_id, states = ("a1", ["processing", "completed"]) if calls[-1] is None else ("a2", ["completed"] * 2)
        entry = {"video_id": asset_id, "status": states[len(calls) > 2]}
        more = {"has_more": True, "next_token": "t"} if calls[-1] is None else {"has_more": False, "next_token": None}
        return web.json_response({"data": [entry], **more})

    async with (
        served(web.get("/v3/assets/statuses", statuses)) as url,
        HeyGenSession("key", base_url=url, retry=QUICK, polling=EAGER) as session,
    ):
        states = await asyncio.wait_for(session.assets._uploads._ingestion.wait(["a1", "a2", "a1"]), 20)

    assert {asset_id: state.status for asset_id, state in states.items()} == {"a1": "completed", "a2": "completed"}
    assert calls == [None, "t", None]


async def test_an_asset_is_not_waited_for_without_end(video):
    server = Processing("processing")
    async with processing(server, PollPolicy(fastest=0.001, slowest=0.002, longest=0.05)) as heygen:
        with pytest.raises(RequestTimeout, match="still processing the asset a1"):
            await asyncio.wait_for(heygen.assets.upload(video), 20)
        server.states = ["completed"]
        await asyncio.wait_for(heygen.assets.upload(video), 20)

    assert server.calls.count("upload") == 1


async def test_a_cancelled_wait_for_an_asset_does_not_upload_it_again(video):
    server = Processing("processing")
    async with processing(server) as heygen:
        first = asyncio.create_task(heygen.assets.upload(video))
        await until(lambda: "statuses" in server.calls)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        server.states = ["completed"]
        await asyncio.wait_for(heygen.assets.upload(video), 20)

    assert server.calls.count("upload") == 1


@pytest.mark.parametrize("source", ["file", "asset", "id"])
async def test_a_create_waits_for_an_asset_that_is_still_being_processed(video, source):
    server = Processing("completed")
    server.create_answers = ["asset_not_available"]
    async with processing(server) as heygen:
        asset = await asyncio.wait_for(heygen.assets.upload(video), 20)
        server.states = ["processing", "processing", "completed"]
        given = {"file": video, "asset": asset, "id": AssetId(asset.id)}[source]
        job = await asyncio.wait_for(
            heygen.lipsyncs.create(video=given, audio="https://x.test/a.mp3", idempotency_key="mine"), 20
        )

    assert (job.id, job.idempotency_key) == ("ls_1", "mine")
    assert server.calls == ["upload", "statuses", "create", *["statuses"] * 3, "create"]


async def test_a_job_can_be_made_of_a_file_that_the_sandbox_processes_for_a_while(video):
    async with (
        Sandbox(ingest_seconds=0.05) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, retry=QUICK, polling=EAGER) as heygen,
    ):
        heygen._calls.transfers.multipart_max = 0
        await asyncio.wait_for(heygen.lipsyncs.create(video=video, audio=SAMPLE_AUDIO), 20)

        statuses = [request.status for request in sandbox.requests if request.route == CREATE]
        assert statuses == [200]
        assert routes(sandbox).count(PUT) == 2
        assert "GET /v3/assets/statuses" in routes(sandbox)


async def test_a_create_uploads_again_what_is_gone_by_its_state(video):
    server = Processing("completed")
    server.create_answers = ["asset_not_available"]
    async with processing(server) as heygen:
        await asyncio.wait_for(heygen.assets.upload(video), 20)
        server.states = ["not_found", "completed"]
        await asyncio.wait_for(heygen.lipsyncs.create(video=video, audio="https://x.test/a.mp3"), 20)

    assert server.calls == ["upload", "statuses", "create", "statuses", "upload", "statuses", "create"]


@pytest.mark.parametrize("state", ["not_found", "failed", 404])
async def test_an_asset_of_the_callers_own_that_cannot_be_used_is_an_error(video, state):
    server = Processing(state)
    server.create_answers = ["asset_not_available"]
    async with processing(server) as heygen:
        with pytest.raises(InvalidRequest, match="asset_not_available"):
            await asyncio.wait_for(heygen.lipsyncs.create(video=AssetId("a1"), audio="https://x.test/a.mp3"), 20)

    assert server.calls == ["create", "statuses"]


async def test_a_create_that_is_cancelled_while_it_waits_for_an_asset_says_what_is_known_of_it(video):
    server = Processing("processing")
    server.create_answers = ["asset_not_available"]
    async with processing(server) as heygen:
        create = heygen.lipsyncs.create(video=AssetId("a1"), audio="https://x.test/a.mp3", idempotency_key="mine")
        task = asyncio.create_task(create)
        await until(lambda: server.calls.count("statuses") > 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task

    record = cancelled.value
    assert (record.idempotency_key, record.attempts, record.outcome) == ("mine", 1, "rejected")


# In a create


async def test_both_files_of_a_create_are_checked_before_either_is_sent(heygen, sandbox, tmp_path, video):
    with pytest.raises(FileNotFoundError):
        await heygen.lipsyncs.create(video=video, audio=tmp_path / "nothing.mp3")
    with pytest.raises(ValueError, match=r"audio: video\.mp4 is MP4 video; HeyGen takes WAV or MP3 audio"):
        await heygen.lipsyncs.create(video=video, audio=video)
    with pytest.raises(ValueError, match=r"video: sample\.mp3 is MP3 audio; HeyGen takes MP4 or WebM video"):
        await heygen.lipsyncs.create(video=SAMPLE_AUDIO, audio=SAMPLE_AUDIO)
    assert not sandbox.requests


async def test_every_file_of_a_batch_is_checked_before_any_is_sent(heygen, sandbox, tmp_path, video):
    good = LipsyncRequest(video=video, audio=SAMPLE_AUDIO)
    bad = LipsyncRequest(video=video, audio=tmp_path / "nothing.mp3")
    with pytest.raises(FileNotFoundError):
        await heygen.lipsyncs.create_batch([good, bad])
    assert not sandbox.requests

    await heygen.lipsyncs.create_batch([good, good, good])
    assert routes(sandbox).count(POST) == 2


async def test_both_files_of_a_create_are_uploaded_at_the_same_time(heygen, sandbox, video):
    sandbox.faults = [faults.stall(POST)]
    task = asyncio.create_task(heygen.lipsyncs.create(video=video, audio=SAMPLE_AUDIO))
    await until(lambda: held(sandbox) == 2)
    sandbox.release()

    assert (await task).id


async def test_an_asset_that_is_gone_is_uploaded_again_and_the_create_keeps_its_key(heygen, sandbox, video):
    asset = await heygen.assets.upload(video)
    async with session(sandbox) as other:
        await other.assets.delete(asset.id)

    job = await heygen.lipsyncs.create(video=video, audio=SAMPLE_AUDIO, idempotency_key="mine")

    creates = [request for request in sandbox.requests if request.route == CREATE]
    assert [request.status for request in creates] == [404, 200]
    assert {request.headers["Idempotency-Key"] for request in creates} == {"mine"}
    assert job.idempotency_key == "mine"


async def test_an_asset_that_is_missing_again_after_a_new_upload_is_an_error(heygen, sandbox, video):
    sandbox.faults = [faults.error(404, "asset_not_found", route=CREATE)]
    with pytest.raises(NotFound):
        await heygen.lipsyncs.create(video=video, audio=SAMPLE_AUDIO)

    assert routes(sandbox).count(CREATE) == 2


async def test_a_missing_asset_of_the_callers_own_is_an_error_at_once(heygen, sandbox):
    with pytest.raises(NotFound):
        await heygen.lipsyncs.create(video=AssetId("asset_gone"), audio=AssetId("asset_gone"))

    assert routes(sandbox).count(CREATE) == 1


@pytest.mark.parametrize("given", ["asset", "id"])
async def test_an_asset_of_the_callers_own_that_is_gone_is_uploaded_again_by_the_next_upload(
    heygen, sandbox, video, given
):
    asset = await heygen.assets.upload(video)
    async with session(sandbox) as other:
        await other.assets.delete(asset.id)
    with pytest.raises(NotFound):
        await heygen.lipsyncs.create(
            video=asset if given == "asset" else AssetId(asset.id), audio="https://x.test/a.mp3"
        )

    again = await heygen.assets.upload(video)

    assert routes(sandbox).count(POST) == 2
    assert again.id != asset.id


async def test_an_upload_that_fails_in_a_create_says_that_the_create_was_not_sent(heygen, sandbox, video):
    sandbox.faults = [faults.error(402, "insufficient_credit", route=POST)]
    with pytest.raises(InsufficientCredit) as failed:
        await heygen.lipsyncs.create(video=video, audio=SAMPLE_AUDIO, idempotency_key="mine")

    error = failed.value
    assert (error.idempotency_key, error.attempts, error.outcome) == ("mine", 0, "not_sent")


# Calls do not wait for transfers


async def test_at_most_eight_files_are_transferred_at_once_and_calls_do_not_wait_for_them(direct, sandbox):
    sandbox.faults = [faults.stall(PUT)]
    tasks = [asyncio.create_task(direct.assets.upload(mp4(1000 + i))) for i in range(12)]
    async with asyncio.timeout(10):
        await until(lambda: held(sandbox) == 8)
        await direct.account.me()
        assert routes(sandbox).count(ANNOUNCE) == 8
        sandbox.faults = []
        sandbox.release()
        await asyncio.gather(*tasks)


# Reading


@given(
    size=st.integers(1, 4000),
    block=st.integers(1, 700),
    piece=st.integers(1, 300),
)
def test_whatever_the_sizes_all_bytes_are_read_in_order_and_digested(size, block, piece):
    data = bytes(range(256)) * (size // 256 + 1)
    transfers = Transfers(max_download_bytes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", block)
        patch.setattr(reading, "PIECE", piece)
        read, digest = asyncio.run(read_all(transfers, data[:size]))
    transfers.close()

    assert b"".join(read) == data[:size]
    assert max(map(len, read)) <= piece
    assert digest == hashlib.sha256(data[:size]).hexdigest()


async def read_all(transfers, data):
    file = LocalFile("a", "video/mp4", len(data), open=lambda: io.BytesIO(data), is_unchanged=lambda: True)
    sha256 = await sha256_of(transfers.pool, file)
    return [chunk async for chunk in Reading(transfers.pool, file, sha256, None).stream().chunks()], sha256


AUDIO = "https://example.com/a.mp3"


class Silent:
    """A pipe that nothing comes out of until it is closed."""

    def __init__(self):
        self.is_read, self.is_closed = threading.Event(), threading.Event()

    def read(self, _size=-1):
        self.is_read.set()
        self.is_closed.wait()
        return b""


BEFORE_IT_IS_SENT = {
    "create": lambda heygen, pipe: heygen.lipsyncs.create(video=pipe, audio=AUDIO, idempotency_key="mine"),
    "create_batch": lambda heygen, pipe: heygen.lipsyncs.create_batch(
        [LipsyncRequest(video=AUDIO, audio=AUDIO), LipsyncRequest(video=AUDIO, audio=pipe)], idempotency_key="mine"
    ),
    "dub": lambda heygen, pipe: heygen.dub(video=pipe, audio=AUDIO, idempotency_key="mine"),
}


async def cancelled_while_it_reads(call, heygen):
    """Cancel *call* while it reads its file, and return the cancellation."""
    pipe = Silent()
    task = asyncio.create_task(call(heygen, pipe))
    await asyncio.to_thread(pipe.is_read.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    pipe.is_closed.set()
    return caught.value


@pytest.mark.parametrize("call", BEFORE_IT_IS_SENT.values(), ids=BEFORE_IT_IS_SENT)
async def test_a_create_that_is_cancelled_while_its_files_are_read_says_that_it_was_not_sent(heygen, sandbox, call):
    error = await cancelled_while_it_reads(call, heygen)
    assert (error.idempotency_key, error.attempts, error.outcome) == ("mine", 0, "not_sent")
    assert not sandbox.requests


async def test_a_dub_whose_time_is_up_while_its_files_are_read_says_that_it_was_not_sent(heygen, sandbox):
    pipe = Silent()
    with pytest.raises(WaitTimeout) as caught:
        await heygen.dub(video=pipe, audio=AUDIO, idempotency_key="mine", timeout=0.05)
    pipe.is_closed.set()
    error = caught.value
    assert (error.idempotency_key, error.attempts, error.outcome) == ("mine", 0, "not_sent")
    assert error.hint.startswith("Nothing was created")
    assert not sandbox.requests


@pytest.mark.parametrize("call", BEFORE_IT_IS_SENT.values(), ids=BEFORE_IT_IS_SENT)
async def test_a_key_in_doubt_stays_in_doubt_if_the_next_call_ends_while_its_files_are_read(heygen, sandbox, call):
    sandbox.faults = [faults.reset("POST /v3/lipsyncs*")]
    once = heygen.with_options(retry=RetryPolicy(max_attempts=1))
    with pytest.raises(TransportError) as lost:
        await once.lipsyncs.create(video=AUDIO, audio=AUDIO, idempotency_key="mine")
    assert lost.value.outcome == "unknown"

    error = await cancelled_while_it_reads(call, heygen)
    assert (error.idempotency_key, error.outcome) == ("mine", "unknown")


async def test_a_file_that_cannot_be_read_leaves_with_the_key_of_its_create(heygen, tmp_path):
    for call in (heygen.lipsyncs.create, heygen.dub):
        with pytest.raises(FileNotFoundError) as caught:
            await call(video=tmp_path / "none.mp4", audio=AUDIO, idempotency_key="mine")
        error = caught.value
        assert (error.idempotency_key, error.attempts, error.outcome) == ("mine", 0, "not_sent")


class SeeksWithoutAnAnswer:
    """A file whose `seek` returns nothing, as that of `paramiko.SFTPFile` does."""

    def __init__(self, content, *, at):
        self._file = io.BytesIO(content)
        self._file.seek(at)

    def seekable(self):
        return True

    def read(self, size=-1):
        return self._file.read(size)

    def seek(self, *place):
        self._file.seek(*place)

    def tell(self):
        return self._file.tell()


@pytest.mark.parametrize("at", [0, 5])
async def test_an_open_file_whose_seek_returns_nothing_is_uploaded(heygen, at):
    audio = SAMPLE_AUDIO.read_bytes()
    file = SeeksWithoutAnAnswer(b"x" * at + audio, at=at)
    asset = await heygen.assets.upload(file)
    assert asset.size_bytes == len(audio)
    assert file.tell() == at


class Slots:
    """A file that no weak reference can be made to."""

    __slots__ = ("_file",)

    def __init__(self, content):
        self._file = io.BytesIO(content)

    def __getattr__(self, name):
        return getattr(self._file, name)


class Equal(SeeksWithoutAnAnswer):
    """A file that cannot be hashed."""

    def __init__(self, content):
        super().__init__(content, at=0)

    def __eq__(self, other):
        return isinstance(other, Equal)

    __hash__ = None


@pytest.mark.parametrize("kind", [Slots, Equal, io.BytesIO])
async def test_an_open_file_of_any_class_is_uploaded_by_several_calls_at_once(heygen, kind):
    file, other = kind(mp4(300_000)), kind(mp4(300_001))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(heygen.assets.upload(one)) for one in (file, other, file, file)]

    assert [await content(task.result()) for task in tasks] == [
        mp4(size) for size in (300_000, 300_001, 300_000, 300_000)
    ]
    assert file.tell() == other.tell() == 0


class ShortReads(io.RawIOBase):
    """A raw file that can be rewound, and whose reads return a few bytes each."""

    def __init__(self, content, size):
        self.file, self.size = io.BytesIO(content), size

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, position, whence=0):
        return self.file.seek(position, whence)

    def tell(self):
        return self.file.tell()

    def readinto(self, buffer):
        read = self.file.read(min(self.size, len(buffer)))
        buffer[: len(read)] = read
        return len(read)


@pytest.mark.parametrize("size", [1, 5, 100])
async def test_a_file_whose_reads_are_short_is_uploaded(heygen, size):
    content = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes([size]) * 500
    asset = await heygen.assets.upload(ShortReads(content, size), name="v.mp4")
    assert asset.size_bytes == len(content)
