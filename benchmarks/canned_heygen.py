# ruff: noqa: ANN401, ARG002 a fake has the signatures of what it stands for
"""A HeyGen of canned answers, which costs next to nothing: on loopback in a process of its own, or in memory.

`Served` is the process. `InMemory` is a connector of aiohttp without sockets, for counting instructions: an answer is
there in the next turn of the event loop, so nothing depends on the kernel or on other processes.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from types import TracebackType
from typing import Any

import aiohttp
import orjson
from aiohttp.client_proto import ResponseHandler

IDS = [f"ls_{n:024}" for n in range(100)]
LIPSYNC = {
    "id": "ls_abc123",
    "title": "My Lipsync",
    "status": "completed",
    "duration": 42.5,
    "video_url": "https://files.heygen.ai/v.mp4?X-Amz-Signature=" + "0" * 300,
    "callback_id": None,
    "created_at": 1717000000,
    "failure_message": None,
}
OPENAI_FILE = {
    "id": "file-abc123",
    "object": "file",
    "bytes": 120000,
    "created_at": 1717000000,
    "expires_at": None,
    "filename": "v.jsonl?X-Amz-Signature=" + "0" * 300,
    "purpose": "batch",
    "status": "processed",
}


def _http(body: object) -> bytes:
    content = orjson.dumps(body)
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: req_0123456789abcdef\r\n"
        f"Server: canned\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


_GET = _http({"data": LIPSYNC})
_STATUSES = _http({"data": [{"video_id": one, "status": "processing"} for one in IDS], "next_token": None})
_PAGE = _http({"data": [{**LIPSYNC, "id": one} for one in IDS], "next_token": None, "has_more": False})
_CREATED = _http({"data": {"lipsync_id": "ls_abc123"}})
_FILE = _http(OPENAI_FILE)
_LENGTH = re.compile(rb"(?i)content-length: ([0-9]+)")


def take_answer(received: bytearray) -> bytes | None:
    """Remove one whole request from *received*, and return its answer; `None` if there is none yet."""
    head, end, rest = bytes(received).partition(b"\r\n\r\n")
    length = int(found[1]) if (found := _LENGTH.search(head)) else 0
    if not end or len(rest) < length:
        return None
    del received[: len(head) + 4 + length]
    if head.startswith(b"POST"):
        return _CREATED
    path = head[4:30]
    if path.startswith(b"/v3/lipsyncs/statuses"):
        return _STATUSES
    if path.startswith(b"/v3/lipsyncs?"):
        return _PAGE
    return _FILE if path.startswith(b"/v1/files/") else _GET


# On loopback


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.received = bytearray()

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (answer := take_answer(self.received)) is not None:
            self.transport.write(answer)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


class Served:
    """The process: `with Served() as url`. It ends when its standard input is closed."""

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        return f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._process.communicate()


# In memory


class _Pipe(asyncio.Transport):
    def __init__(self, client: ResponseHandler, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._client, self._loop = client, loop
        self._received = bytearray()
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._received += data
        while (answer := take_answer(self._received)) is not None:
            self._loop.call_soon(self._client.data_received, answer)

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
        protocol.connection_made(_Pipe(protocol, self._loop))
        return protocol


if __name__ == "__main__":
    asyncio.run(_serve())
