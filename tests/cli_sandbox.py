"""What the tests of the command line share: a sandbox beside the test, and what a command leaves."""

import asyncio
import contextlib
import threading

import orjson
from attrs import frozen

from heygen_async.sandbox import Sandbox

VIDEO_URL = "https://example.com/source.mp4"
AUDIO_URL = "https://example.com/new-audio.mp3"
SOURCES = ("--video", VIDEO_URL, "--audio", AUDIO_URL)


@contextlib.contextmanager
def running(**options):
    """Run a sandbox on a loop of its own, so that a command may have the test's thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, loop).result(10)

    sandbox = Sandbox(**options)
    try:
        call(sandbox.__aenter__())
        try:
            yield sandbox
        finally:
            call(sandbox.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


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
