"""Whole programs under whole servers: a form is sent, a callback comes, a page shows the video, in a browser too."""

import asyncio
import contextlib
import os
import random
import socket
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest
from chromium import browser, needs_chromium, process
from until import until

from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox

PROGRAMS = Path(__file__).parent / "programs"

needs_fastapi = pytest.mark.skipif(
    not all(map(find_spec, ("fastapi", "uvicorn", "python_multipart"))), reason="needs fastapi, uvicorn, multipart"
)

COMMANDS = {
    "fastapi": ["-m", "uvicorn", "dub_fastapi:app", "--no-access-log", "--log-level", "warning"],
    "aiohttp": ["dub_aiohttp.py"],
}


@pytest.fixture(params=[pytest.param("fastapi", marks=needs_fastapi), "aiohttp"])
def command(request):
    return COMMANDS[request.param]


def free_port():
    """Return a free port below the ephemeral ones, which any other process may get in the meantime."""
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", random.randrange(10_000, 30_000))) as free,
        ):
            return free.getsockname()[1]


@asynccontextmanager
async def served(command, sandbox):
    """Serve a program against *sandbox*, and give out its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"HEYGEN_BASE_URL": sandbox.url, "HEYGEN_API_KEY": sandbox.api_key, "PUBLIC_URL": url}
    async with process(sys.executable, *command, "--port", str(port), cwd=PROGRAMS, env={**os.environ, **settings}):
        await answered(url)
        yield url


async def answered(url):
    """Wait until a server is there."""
    async with asyncio.timeout(20), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(url):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


def reads(sandbox):
    """Return the requests for the states of jobs, or for a job."""
    return [request.route for request in sandbox.requests if request.route.startswith("GET /v3/lipsyncs")]


async def end_of_the_job(sandbox):
    """End the job once the program has looked at it."""
    await until(lambda: reads(sandbox))
    await sandbox.advance(30)


async def test_the_page_follows_the_callback(command):
    async with (
        asyncio.timeout(50),
        Sandbox(job_seconds=30, manual=True) as sandbox,
        served(command, sandbox) as url,
        aiohttp.ClientSession() as http,
    ):
        with SAMPLE_VIDEO.open("rb") as video, SAMPLE_AUDIO.open("rb") as audio:
            async with http.post(f"{url}/dubs", data={"video": video, "audio": audio}) as page:
                assert page.status == 200
                assert page.url.path == f"/dubs/{sandbox.jobs[0].id}"
        async with http.get(f"{page.url}/events") as events:
            assert events.content_type == "text/event-stream"
            await end_of_the_job(sandbox)
            statuses = (await events.text()).removesuffix("\n\n").split("\n\n")
        async with http.get(f"{page.url}/video") as dubbed:
            assert await dubbed.read() == SAMPLE_VIDEO.read_bytes()

    assert statuses[-1] == "data: completed"
    assert [delivery.status for delivery in sandbox.deliveries] == [200]
    # The first look, the one for the callback, and one for a fresh link: there was no polling.
    assert reads(sandbox) == [
        "GET /v3/lipsyncs/statuses",
        "GET /v3/lipsyncs/{lipsync_id}",
        "GET /v3/lipsyncs/{lipsync_id}",
    ]


WATCHED = """new Promise(resolve => {
    const video = document.querySelector("video")
    const tell = () => resolve([document.querySelector("output").textContent, video.videoWidth > 0, video.duration > 1])
    if (video.readyState >= video.HAVE_CURRENT_DATA) tell()
    else video.addEventListener("loadeddata", tell)
})"""


@needs_chromium
async def test_a_browser_shows_the_video_by_itself(command, tmp_path):
    async with (
        asyncio.timeout(50),
        Sandbox(job_seconds=30, manual=True) as sandbox,
        served(command, sandbox) as url,
        browser(tmp_path / "profile") as page,
    ):
        await page.open(url)
        await page.choose("input[name=video]", SAMPLE_VIDEO)
        await page.choose("input[name=audio]", SAMPLE_AUDIO)
        await page.photograph(tmp_path / "form.png")
        await page.run("document.forms[0].requestSubmit()")
        await page.happened("Page.loadEventFired")
        await end_of_the_job(sandbox)
        assert await page.run(WATCHED) == ["completed", True, True]
        await page.photograph(tmp_path / "dub.png")
