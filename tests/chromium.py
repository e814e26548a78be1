"""A page in a headless Chromium, for tests."""

import asyncio
import base64
import shutil
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
import pytest
from attrs import define, field

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium")


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
