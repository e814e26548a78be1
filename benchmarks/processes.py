"""Processes that answer commands in lines of JSON: one for the server, one for each contender; and fresh ones."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from attrs import define, frozen

from benchmarks.contender import Contender

ROOT = Path(__file__).parents[1]
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if name != "PYTHONDONTWRITEBYTECODE" and not name.lower().endswith("_proxy")
} | {"HEYGEN_API_KEY": "key", "PYTHONPATH": str(ROOT)}
"""With byte code kept, as an installed package has it, this folder first, and no proxy on the way to the server."""
LINE = 64 << 20
"""Bytes that an answer may have."""
SECONDS = 900.0
"""How long a command may take."""


class ProcessFailed(Exception):
    """A process ended before it answered. The message is the last line of its standard error."""


@define
class Worker:
    """A process that answers one line to each."""

    process: asyncio.subprocess.Process
    errors: BinaryIO
    """Its standard error: a file, because nobody reads it while the process runs."""

    async def read(self) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            ProcessFailed: The process ended, or took too long.
        """
        assert self.process.stdout
        try:
            async with asyncio.timeout(SECONDS):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise ProcessFailed(f"no answer in {SECONDS:.0f} s") from None
        if not line:
            self.errors.seek(0)
            error = self.errors.read().decode(errors="replace")
            raise ProcessFailed(_last_line(error) or "it ended without a word")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Send a command, and return its answer.

        Raises:
            ProcessFailed: The process ended, or took too long.
        """
        assert self.process.stdin
        self.process.stdin.write(orjson.dumps({"command": command, **arguments}) + b"\n")
        return await self.read()


@asynccontextmanager
async def worker(*command: str, env: Mapping[str, str] = ENVIRON) -> AsyncIterator[Worker]:
    """Run `python -m` with the words of the command, until the block ends."""
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, stdin=pipe, stdout=pipe, stderr=errors, limit=LINE, env=env, cwd=ROOT
        )
        try:
            yield Worker(process, errors)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@frozen
class Server:
    """The canned server. Its process answers the commands of `canned_heygen.Canned`."""

    url: str
    worker: Worker


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    """Run the canned server until the block ends."""
    async with worker("benchmarks.canned_heygen") as process:
        yield Server(str((await process.read())["url"]), process)


@asynccontextmanager
async def client(contender: Contender, url: str) -> AsyncIterator[Worker]:
    """Run the process of a contender, for the commands of `client.MEASURES`."""
    async with worker("benchmarks.client", contender.name, url) as process:
        await process.read()
        yield process


@frozen
class Usage:
    """What a process took from its start to its end, in seconds."""

    wall: float
    cpu: float
    output: str


def run_fresh(command: Sequence[str], env: Mapping[str, str] = ENVIRON) -> Usage:
    """Run a Python process to its end: `run_fresh(["-c", "import aiohttp"])`.

    Raises:
        ProcessFailed: It did not end well.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        assert process.stdout
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ProcessFailed(_last_line(output) or f"exit code {process.returncode}")
    return Usage(time.perf_counter() - started, used.ru_utime + used.ru_stime, output)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
