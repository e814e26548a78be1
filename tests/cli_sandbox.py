"""What the tests of the command line share: a sandbox beside the test, commands as processes, and their results."""

import asyncio
import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import orjson
import pytest
from attrs import frozen

from heygen_async.sandbox import Sandbox

VIDEO_URL = "https://example.com/source.mp4"
AUDIO_URL = "https://example.com/new-audio.mp3"
SOURCES = ("--video", VIDEO_URL, "--audio", AUDIO_URL)
QUICK = ("--poll-every", "0.02")

needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110

# Under nohup or in the background of a shell these are ignored, and would be in the commands that tests interrupt.
for _number, _handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# With -W error a connection that is left open makes a message that no test here expects.
COMMAND = (sys.executable, "-W", "error", "-m", "heygen_async")


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
        """The JSON values on standard output, one per line."""
        return [orjson.loads(line) for line in self.out.splitlines()]

    @property
    def error(self):
        """The error on standard error."""
        return orjson.loads(self.err)["error"]


# Processes


class Process(subprocess.Popen):
    """A process that ends with its test, if that fails."""

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.kill()
        super().__exit__(kind, error, trace)


def start(*argv, sandbox=None, prefix=(), env=(), **options):
    """Start a command; *prefix* is a program that runs it, such as nohup."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    if sandbox is not None:
        environment |= {"HEYGEN_API_KEY": sandbox.api_key, "HEYGEN_BASE_URL": sandbox.url}
    environment |= dict(env)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*prefix, *COMMAND, *map(str, argv)]
    return Process(command, env=environment, **{**pipes, **options})


def run(*argv, **options):
    """Run a command to its end."""
    with start(*argv, **options) as process:
        out, err = process.communicate(timeout=30)
    return Ran(process.returncode, out or "", err or "")


def shell(script, *argv, **options):
    """Run a bash *script* in which "$@" is the command."""
    return run(*argv, prefix=("bash", "-c", script, "bash"), **options)


def on_terminal(*argv, columns=100, env=(), **options):
    """Run a command on a terminal; the two streams of the result are one."""
    ours, theirs = pty.openpty()
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False}
    environment = {"TERM": "xterm", "COLUMNS": str(columns), **dict(env)}
    with start(*argv, **terminal, env=environment, **options) as process:
        os.close(theirs)
        got = b"".join(iter(lambda: read_terminal(ours), b""))
        code = process.wait(30)
    os.close(ours)
    return Ran(code, got.decode().replace("\r\n", "\n"), "")


def read_terminal(terminal):
    """Return what a terminal got; nothing once its other end is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux raises it instead of an end of file
        return b""


def until(condition):
    """Wait until a *condition* holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def free_port():
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def has_ipv6():
    """Return whether this machine has the loopback address of IPv6: many containers do not."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


on_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6")
