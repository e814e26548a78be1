# ruff: noqa: ANN401, ARG002 a fake has the signatures of what it stands for
"""The server of all measurements: it answers from memory, and costs next to nothing.

`python -m benchmarks.canned_heygen` is its process (see `processes.server`). `InMemory` is a connector of aiohttp
without sockets, for counting instructions: an answer is there in the next turn of the event loop, so nothing depends on
the kernel or on other processes. It takes bodies of any size, with a length or in chunks, and keeps no large ones.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import orjson
from aiohttp.client_proto import ResponseHandler
from attrs import Factory, define, field

from benchmarks import answers
from benchmarks.contender import Asked, Route, Video
from benchmarks.contenders import CONTENDERS
from benchmarks.videos import video_blocks

KEPT = 1 << 20
HANG = 3.0
SMALL = 8 << 20
_HOST = re.compile(rb"(?i)\r\nhost: *([^\r]+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
_KEY = re.compile(rb"(?i)\r\n[a-z-]*idempotency[a-z-]*: *([^\r]+)")
_VIDEO_HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nETag: "1"\r\nContent-Length: %d\r\n\r\n'
_LAST_CHUNK = b"\r\n0\r\n\r\n"
Answer = bytes | Video
Prepared = Sequence[tuple[bytes, Route, Answer | None]]
"""Routes with the bytes that their requests begin with, and their answers if these are fixed."""


@define
class Canned:
    """What the server knows, and the commands of the parent process."""

    routes: Sequence[Route] = field(
        factory=lambda: [*answers.ROUTES, *(route for one in CONTENDERS.values() for route in one.routes)]
    )
    counts: Counter[str] = field(factory=Counter)
    """Requests by the beginning of their route."""
    drops: int = 0
    """How many more POSTs are answered by closing the connection, after their work is done."""
    posts: Counter[str] = field(factory=Counter)
    """POSTs by their idempotency key; "" for none."""
    ends: dict[str, float] = field(factory=dict)
    """When each job is over, by `time.monotonic`."""
    latency: float = 0.0
    hangs_at: float | None = None
    """When the next answer takes `HANG` longer, by `time.monotonic`; only one does."""
    video_size: int = SMALL
    _prepared: Prepared = field(init=False, default=Factory(lambda self: _prepare(self.routes), takes_self=True))
    _with_jobs: Prepared = field(
        init=False, default=Factory(lambda self: _prepare([*answers.JOB_ROUTES, *self.routes]), takes_self=True)
    )
    _newest: Sequence[str] = field(init=False, default=())
    _begun_at: int = field(init=False, default=0)
    _kept: dict[bytes, bytes] = field(init=False, factory=dict)
    _cpu: float = field(init=False, default=0.0)

    def command(self, name: str, arguments: Mapping[str, Any]) -> object:
        """Do what the parent process asks."""
        commands: Mapping[str, Callable[..., object]] = {"reset": self.reset, "report": self.report}
        return commands[name](**arguments)

    def reset(
        self,
        drops: int = 0,
        latency: float = 0.0,
        lengths: Mapping[str, float] | None = None,
        hang_after: float | None = None,
        video_size: int = SMALL,
    ) -> object:
        """Forget all requests.

        Args:
            drops: So many POSTs are from now on not answered: their connection is closed after their work is done.
            latency: How long an answer takes, in seconds.
            lengths: Jobs that begin now, with their lengths in seconds, by id.
            hang_after: The first request after so many seconds is answered 3 s late.
            video_size: Of the videos for download, in bytes.
        """
        self.counts.clear()
        self.posts.clear()
        self.drops, self.latency, self.video_size = drops, latency, video_size
        now = time.monotonic()
        self.ends = {one: now + length for one, length in (lengths or {}).items()}
        self._newest, self._begun_at = list(reversed(self.ends)), int(time.time())
        self.hangs_at = None if hang_after is None else now + hang_after
        self._cpu = time.process_time()
        return {}

    def report(self) -> object:
        """Return what came since. A job is made by each POST without a key, and by the first with a key."""
        keys = sum(bool(key) for key in self.posts)
        return {
            "requests": self.counts,
            "posts": self.posts.total(),
            "keys": keys,
            "jobs": keys + self.posts[""],
            "ends": self.ends,
            "cpu": time.process_time() - self._cpu,
        }

    def is_over(self, job: str) -> bool:
        """Whether the job has ended; one that was never begun has."""
        return time.monotonic() >= self.ends.get(job, 0.0)

    def pause(self) -> float:
        """Return how long the next answer takes, in seconds."""
        if self.hangs_at is not None and time.monotonic() >= self.hangs_at:
            self.hangs_at = None
            return self.latency + HANG
        return self.latency

    def answer(self, head: bytes, body: bytes) -> Answer | None:
        """Return the answer to a request, or `None` if its connection is to be closed."""
        prepared = self._with_jobs if self.ends else self._prepared
        found = next((one for one in prepared if head.startswith(one[0])), None)
        if found is None:
            return _http({"error": {"code": "not_found", "message": head.decode(errors="replace")[:80]}}, status=404)
        _, route, fixed = found
        self.counts[route.begins] += 1
        if head.startswith(b"POST"):
            self.posts[key[1].decode() if (key := _KEY.search(head)) else ""] += 1
            if self.drops:
                self.drops -= 1
                return None
        return fixed or self._computed(route, head, body)

    def _computed(self, route: Route, head: bytes, body: bytes) -> bytes:
        target = head.split(b" ", 2)[1]
        if (kept := self._kept.get(target)) is not None:
            return kept
        assert callable(route.answer)
        host = found[1].decode() if (found := _HOST.search(head)) else ""
        asked = Asked(target.decode(), f"http://{host}", body, self.is_over, self._newest, self._begun_at)
        answer = _http(route.answer(asked), route.status, route.headers)
        if route.is_kept:
            self._kept[target] = answer
        return answer


def _prepare(routes: Sequence[Route]) -> Prepared:
    ordered = sorted(routes, key=lambda route: len(route.begins), reverse=True)
    return [(route.begins.encode(), route, _fixed(route)) for route in ordered]


def _fixed(route: Route) -> Answer | None:
    if isinstance(route.answer, Video):
        return route.answer
    return None if callable(route.answer) else _http(route.answer, route.status, route.headers)


def _http(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    content = orjson.dumps(body)
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nX-Request-Id: req_0123456789abcdef\r\n"
        f"Server: canned\r\nContent-Length: {len(content)}\r\n{more}\r\n"
    )
    return head.encode() + content


@define
class Requests:
    """The requests of one connection, cut out of its bytes."""

    canned: Canned
    write: Callable[[Answer], None]
    close: Callable[[], None]
    received: bytes = b""
    head: bytes = b""
    left: int = 0
    """Bytes of the body that are missing; -1 for a body in chunks."""

    def feed(self, data: bytes) -> None:
        """Take some bytes, and answer the requests that are whole."""
        self.received += data
        while self._is_whole():
            head, body = self.head, self.received if self.left < 0 else self.received[: self.left]
            self.received = b"" if self.left < 0 else self.received[self.left :]
            self.head = b""
            answer = self.canned.answer(head, body)
            if answer is None:
                self.close()
                return
            self.write(answer)

    def _is_whole(self) -> bool:
        if not self.head:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                return False
            self.head, self.received = head, rest
            length = _LENGTH.search(head)
            self.left = int(length[1]) if length else -1 if _CHUNKED.search(head) else 0
            if re.search(rb"(?i)\r\nexpect: *100", head):
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.left < 0:
            self._forget(KEPT)
            return self.received.endswith(_LAST_CHUNK) or self.received == _LAST_CHUNK[2:]
        if self.left > KEPT:
            self.left -= self._forget(0)
        return len(self.received) >= self.left

    def _forget(self, kept: int) -> int:
        """Drop what is beyond the last *kept* bytes, and return how much that was."""
        dropped = max(0, len(self.received) - kept)
        if self.left > 0:
            dropped = min(dropped, self.left)
        self.received = self.received[dropped:]
        return dropped


# On loopback


class _Connection(asyncio.Protocol):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._blocks: Iterator[bytes] = iter(())
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._requests = Requests(self._canned, self._write, transport.close)

    def data_received(self, data: bytes) -> None:
        self._requests.feed(data)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._write_blocks()

    def _write(self, answer: Answer) -> None:
        if pause := self._canned.pause():
            asyncio.get_running_loop().call_later(pause, self._write_now, answer)
        else:
            self._write_now(answer)

    def _write_now(self, answer: Answer) -> None:
        if isinstance(answer, Video):
            size = self._canned.video_size
            self._transport.write(_VIDEO_HEAD % size)
            self._blocks = video_blocks(size)
            self._write_blocks()
        else:
            self._transport.write(answer)

    def _write_blocks(self) -> None:
        while not self._is_paused and (block := next(self._blocks, None)) is not None:
            self._transport.write(block)


async def _serve() -> None:
    """Print the address, then answer commands until standard input is closed."""
    canned = Canned()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(canned), "127.0.0.1", 0, backlog=4096)
    print(orjson.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}).decode(), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        arguments = orjson.loads(line)
        result = canned.command(arguments.pop("command"), arguments)
        print(orjson.dumps(result).decode(), flush=True)


# In memory


class _Pipe(asyncio.Transport):
    def __init__(self, client: ResponseHandler, canned: Canned, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._client, self._loop = client, loop
        self._requests = Requests(canned, self._answer, self.close)
        self._closed = False

    def _answer(self, answer: Answer) -> None:
        assert isinstance(answer, bytes), "there are no videos in memory"
        self._loop.call_soon(self._client.data_received, answer)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._requests.feed(bytes(data))

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._client.connection_lost, None)

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class InMemory(aiohttp.BaseConnector):
    """A connector whose connections are answered in memory."""

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        protocol = ResponseHandler(loop=self._loop)
        protocol.connection_made(_Pipe(protocol, Canned(routes=answers.ROUTES), self._loop))
        return protocol


if __name__ == "__main__":
    asyncio.run(_serve())
