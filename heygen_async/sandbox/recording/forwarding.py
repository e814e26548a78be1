"""Passes a request on to the upstream, and its answer back, piece by piece where it may be long.

Rule 1: one request is sent on once, with the caller's own headers, and to the upstream only; no redirect is followed.
Rule 2: links to file hosts in answers lead through the proxy; such a host never sees a key or a cookie.
Rule 3: only JSON is held in memory, up to a limit.
Rule 4: `finished` is awaited before the last piece of an answer leaves.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

import aiohttp
import orjson
from aiohttp import web
from attrs import define, field, frozen
from multidict import CIMultiDict
from yarl import URL

from heygen_async.sandbox.recording.links import PREFIX, ProxiedLinks

MAX_JSON_BYTES: Final = 16 << 20
"""The longest body that is held in memory and recorded."""
_CHUNK: Final = 64 << 10
_MULTIPLE_CHOICES, _NOT_MODIFIED, _BAD_REQUEST = 300, 304, 400
# Of one connection and not of the message, or set by aiohttp.
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "host", "expect", "accept-encoding"}
)
_CREDENTIALS: Final = frozenset({"x-api-key", "authorization", "cookie"})
_COMPRESSED: Final = frozenset({"content-encoding", "content-length"})


@define(kw_only=True)
class Passage:
    """One exchange while it passes."""

    request: web.Request
    started: float = field(factory=time.monotonic)
    at: datetime = field(factory=lambda: datetime.now(UTC))
    sent: bytes | None = None
    """The body of the request; `None` if it is streamed."""
    sent_size: int = 0
    status: int | None = None
    """The status of the upstream's answer; `None` if there is none."""
    headers: Mapping[str, str] = field(factory=dict)
    received: bytes | None = None
    """The body of the answer; `None` if it is streamed."""
    received_size: int = 0
    problem: str | None = None
    """Why there is no answer, or not all of it."""

    @property
    def is_media(self) -> bool:
        """Whether it goes to a file host."""
        return self.request.path.startswith(PREFIX)

    @property
    def answer(self) -> object:
        """The parsed body of the answer; `None` if it is no JSON."""
        return parsed(self.received)


Finished: TypeAlias = Callable[[Passage], Awaitable[None]]


@frozen
class Forwarder:
    """Passes requests on."""

    client: aiohttp.ClientSession
    upstream: str
    links: ProxiedLinks
    finished: Finished
    """Called with each exchange, before the last piece of its answer leaves."""

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Return the answer of the upstream to *request*."""
        passage = Passage(request=request)
        target = self._target(passage)
        if target is None:
            return _error(404, "not_found", "The proxy does not know this address.")
        response: web.StreamResponse | None = None
        try:
            async with self.client.request(
                request.method,
                URL(target, encoded=True),
                headers=_request_headers(passage),
                data=await _body(passage),
                allow_redirects=False,
            ) as answer:
                passage.status, passage.headers = answer.status, answer.headers
                if _MULTIPLE_CHOICES <= answer.status < _BAD_REQUEST and answer.status != _NOT_MODIFIED:
                    return await self._redirected(passage)
                start, is_whole = await _start(answer, 0 if passage.is_media else MAX_JSON_BYTES)
                if is_whole:
                    return await self._whole(passage, start)
                response = web.StreamResponse(status=answer.status, headers=_forwarded(answer.headers))
                return await self._streamed(passage, answer, response, start)
        except (aiohttp.ClientError, OSError) as error:  # of the upstream, or the program has gone
            return await self._broken(passage, error, response)

    def _target(self, passage: Passage) -> str | None:
        raw = passage.request.raw_path
        if passage.is_media:
            return self.links.target(passage.request.path)
        # Anything else after the host would change the host: "api.heygen.com" + "@elsewhere.example".
        return f"{self.upstream}{raw}" if raw.startswith("/") else None

    async def _redirected(self, passage: Passage) -> web.Response:
        passage.problem = f"the upstream redirects ({passage.status}), which is not followed"
        await self.finished(passage)
        return _error(502, "bad_gateway", f"The proxy does not follow redirects ({passage.status}).")

    async def _whole(self, passage: Passage, body: bytes) -> web.Response:
        passage.received, passage.received_size = body, len(body)
        await self.finished(passage)
        ours = self.links.rewrite(passage.request.path, body, passage.answer)
        headers = _forwarded(passage.headers, without=frozenset({"content-length"}))
        return web.Response(status=passage.status or 502, headers=headers, body=ours)

    async def _streamed(
        self, passage: Passage, answer: aiohttp.ClientResponse, response: web.StreamResponse, start: bytes
    ) -> web.StreamResponse:
        await response.prepare(passage.request)
        held = start
        passage.received_size = len(start)
        async for chunk in answer.content.iter_chunked(_CHUNK):
            await response.write(held)
            held = chunk
            passage.received_size += len(chunk)
        await self.finished(passage)
        await response.write(held)
        await response.write_eof()
        return response

    async def _broken(
        self, passage: Passage, error: Exception, response: web.StreamResponse | None
    ) -> web.StreamResponse:
        passage.problem = f"the connection broke ({type(error).__name__})"
        await self.finished(passage)
        if response is None:
            return _error(502, "bad_gateway", f"The upstream did not answer: {type(error).__name__}.")
        if passage.request.transport is not None:
            passage.request.transport.abort()  # so that the program sees a broken answer, not a short one
        return response


def parsed(body: bytes | None) -> object:
    """Return a JSON body; `None` if it is none, or is nested so deeply that it could not be written to a file."""
    try:
        value: object = orjson.loads(body or b"")
        orjson.dumps([[value]])  # as deep as it is in a recording
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return value


async def _body(passage: Passage) -> bytes | AsyncIterator[bytes] | None:
    request = passage.request
    if not request.can_read_body:
        passage.sent = b""
        return None
    if request.content_type.endswith("json") and (request.content_length or 0) <= MAX_JSON_BYTES:
        passage.sent = await request.read()
        passage.sent_size = len(passage.sent)
        return passage.sent
    return _counted(passage)


async def _counted(passage: Passage) -> AsyncIterator[bytes]:
    async for chunk in passage.request.content.iter_chunked(_CHUNK):
        passage.sent_size += len(chunk)
        yield chunk


async def _start(answer: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """Return the start of a body, and whether it is all of a JSON body of at most *limit* bytes."""
    if not answer.content_type.endswith("json") or (answer.content_length or 0) > limit:
        return b"", False
    start = bytearray()
    while chunk := await answer.content.readany():
        start += chunk
        if len(start) > limit:
            return bytes(start), False
    return bytes(start), True


def _request_headers(passage: Passage) -> CIMultiDict[str]:
    headers = passage.request.headers
    without = _CREDENTIALS if passage.is_media else frozenset()
    if "Content-Encoding" in headers:  # aiohttp has decompressed the body
        without |= _COMPRESSED
    return _forwarded(headers, without=without)


def _forwarded(headers: Mapping[str, str], *, without: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    """Return the headers of a message that belong to the next one too."""
    named = headers.get("Connection", "").lower().replace(" ", "").split(",")
    dropped = _HOP_BY_HOP.union(named, without)
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
