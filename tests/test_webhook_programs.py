"""Whole programs under whole servers: a form is sent, a callback comes, a page shows the video, in a browser too."""

import asyncio
import base64
import contextlib
import os
import random
import shutil
import socket
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from attrs import define, field

from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox

PROGRAMS = Path(__file__).parent / "programs"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_fastapi = pytest.mark.skipif(
    not all(map(find_spec, ("fastapi", "uvicorn", "python_multipart"))), reason="needs fastapi, uvicorn, multipart"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium")

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
async def process(*command, **options):
    """Run a program for as long as the block, and see that it ends by itself when it is asked to."""
    running = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield running
    finally:
        running.terminate()
        try:
            await asyncio.wait_for(running.wait(), 10)
        except TimeoutError:
            running.kill()
            await running.wait()
            raise


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
    while not reads(sandbox):  # noqa: ASYNC110 the sandbox has no event for it
        await asyncio.sleep(0.01)
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


@define
class Browser:
    """One page of a headless Chromium, over its DevTools protocol."""

    socket: aiohttp.ClientWebSocketResponse
    numbers: count = field(factory=count)
    events: list = field(factory=list)

    async def call(self, method, **params):
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        while (message := await self.socket.receive_json()).get("id") != number:
            self.events.append(message["method"])
        assert "error" not in message, message
        return message["result"]

    async def happened(self, event):
        while event not in self.events:
            self.events.append((await self.socket.receive_json()).get("method"))
        self.events.clear()

    async def open(self, url):
        await self.call("Page.enable")
        await self.call("Page.navigate", url=url)
        await self.happened("Page.loadEventFired")

    async def choose(self, selector, path):
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        found = await self.call("DOM.querySelector", nodeId=root, selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=found["nodeId"])

    async def run(self, script):
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    async def photograph(self, path):
        image = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(image["data"]))


@asynccontextmanager
async def browser(profile):
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    switches = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--remote-debugging-port=0",
        *quiet,
    ]
    program = [CHROMIUM, *switches, f"--user-data-dir={profile}", "--window-size=800,900", "about:blank"]
    async with process(*program, stderr=asyncio.subprocess.PIPE) as running, aiohttp.ClientSession() as http:
        async for line in running.stderr:
            if b"DevTools listening on" in line:
                break
        port = line.decode().split(":")[-1].partition("/")[0]
        async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (page,) = [target for target in await answer.json() if target["type"] == "page"]
        async with http.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as opened:
            yield Browser(opened)


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
