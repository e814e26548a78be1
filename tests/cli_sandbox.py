"""What the tests of the command line share: a sandbox beside the test, and what a command leaves."""

import asyncio
import contextlib
import threading
from concurrent.futures import Future

import orjson
from attrs import frozen

from heygen_async.sandbox import Sandbox

VIDEO_URL = "https://example.com/source.mp4"
AUDIO_URL = "https://example.com/new-audio.mp3"
SOURCES = ("--video", VIDEO_URL, "--audio", AUDIO_URL)


@contextlib.contextmanager
def running(**options):
    """Run a sandbox on a loop of its own, so that a command may have the test's thread."""
    started = Future()
    thread = threading.Thread(target=asyncio.run, args=(_serve(Sandbox(**options), started),))
    thread.start()
    sandbox, loop, end = started.result(10)
    try:
        yield sandbox
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


@contextlib.contextmanager
def known_to_the_shell(monkeypatch, **options):
    """Run a sandbox that the command line knows of, by its environment."""
    with running(**options) as sandbox:
        monkeypatch.setenv("HEYGEN_API_KEY", sandbox.api_key)
        monkeypatch.setenv("HEYGEN_BASE_URL", sandbox.url)
        yield sandbox


async def _serve(sandbox, started):
    end = asyncio.Event()
    async with sandbox:
        started.set_result((sandbox, asyncio.get_running_loop(), end))
        await end.wait()


@frozen
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def answer(self):
        """The one JSON value on standard output."""
        return orjson.loads(self.out)

    @property
    def answers(self):
        """The JSON values on standard output, one in a line."""
        return [orjson.loads(line) for line in self.out.splitlines()]

    @property
    def error(self):
        """The error on standard error."""
        return orjson.loads(self.err)["error"]
