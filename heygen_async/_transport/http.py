"""Requests over aiohttp: one exchange at a time, with the API or with a file host.

Rule 1: one exchange is one request on the wire: no redirect is followed, no cookie kept, nothing repeated.
Rule 2: errors of aiohttp and of the system become ours here; cancellation and bugs pass.
Rule 3: an error, that of a bug too, leaves without aiohttp's frames and without our frames that hold a body or a link:
their local variables hold secrets, and some tools show the local variables of a traceback.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import lru_cache, partial
from typing import Final

import aiohttp
from aiohttp import hdrs
from attrs import field, frozen
from multidict import CIMultiDict
from yarl import URL

from heygen_async._arguments import check_count
from heygen_async._masking import Mask
from heygen_async._transport.aiohttp_errors import FAILURES, without_frames
from heygen_async._transport.connections import Connections
from heygen_async._transport.sending import AttemptBody, send_stream
from heygen_async._wire import Answer, Piece, Request, Stream, request_id
from heygen_async.errors import TransportError, UnexpectedResponse
from heygen_async.models import Secret
from heygen_async.policies import Timeouts

_GET_FILE: Final = "GET from the file host"
HOST_EXCERPT: Final = 4096
"""How much is read of what a file host says, in bytes."""
_READ_BUFFER: Final = 256 * 1024


class Http:
    """Sends single requests.

    Args:
        connections: Those of the session.
        max_response_bytes: The longest answer of the API, after decompression.

    Raises:
        TypeError, ValueError: If an argument is wrong.
    """

    def __init__(self, connections: Connections, *, max_response_bytes: int) -> None:
        self.connections = connections
        self.origin = connections.origin
        self._max_response_bytes = check_count("max_response_bytes", max_response_bytes)
        self._base = URL(self.origin.base_url)
        self._base_text = str(self._base).rstrip("/")  # with other letters than ASCII as they are sent
        self._prefix = self._base.raw_path.rstrip("/")
        self._verification = connections.verification(self._base)

    async def exchange(self, request: Request, *, headers: Mapping[str, str], timeouts: Timeouts) -> Answer:
        """Send *request* to the API once, and return the answer.

        Raises:
            TransportError: If no answer came; `RequestTimeout` if it did not come in time.
            UnexpectedResponse: If the body is longer than allowed.
        """
        if isinstance(request.body, Stream):
            send = partial(self._send_form, request, headers)
            return await send_stream(send, request.body, _name(request), timeouts)
        timeout = _client_timeout(timeouts, request.method)
        try:
            return await self._send(request, request.body, headers, timeout)
        except FAILURES as error:
            failure = without_frames(error, _name(request))
        raise failure

    async def _send(
        self,
        request: Request,
        data: bytes | AsyncIterator[Piece] | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> Answer:
        response = await self.connections.api.request(
            request.method,
            self._url(request),
            data=data,
            headers=_request_headers(request, headers),
            timeout=timeout,
            allow_redirects=False,
            **self._verification,
        )
        try:
            whole = response.read() if self._is_short(response) else self._read_bounded(response)
            return Answer(response.status, response.headers, await whole)
        finally:
            response.release()

    async def _send_form(
        self, request: Request, headers: Mapping[str, str], form: AttemptBody, timeout: aiohttp.ClientTimeout
    ) -> Answer:
        return await self._send(request, form.pieces, {**headers, **form.headers}, timeout)

    async def put(self, link: Secret, stream: Stream, *, headers: Mapping[str, str], timeouts: Timeouts) -> Answer:
        """Send *stream* to a presigned link once, and return the answer with the start of its body.

        Raises:
            TransportError: If no answer came; whatever reading the stream raises comes out as it is.
        """
        send = partial(self._put, link, headers)
        return await send_stream(send, stream, "PUT to the file host", timeouts)

    async def _put(
        self, link: Secret, headers: Mapping[str, str], body: AttemptBody, timeout: aiohttp.ClientTimeout
    ) -> Answer:
        client = self.connections.files
        # The given headers replace ours: the link may be signed for their Content-Type.
        merged: CIMultiDict[str] = CIMultiDict(body.headers)
        merged.update(headers)
        url = _presigned(link)
        response = await client.put(
            url,
            data=body.pieces,
            headers=merged,
            timeout=timeout,
            allow_redirects=False,
            **self.connections.verification(url),
        )
        try:
            return Answer(response.status, response.headers, await _excerpt(response.content))
        finally:
            response.release()

    async def get(self, link: Secret, *, headers: Mapping[str, str], timeouts: Timeouts) -> Incoming:
        """Request a file by its presigned link. Close what is returned; its body is read piece by piece.

        Raises:
            TransportError: If no answer came.
        """
        try:
            return await self._get(link, headers, timeouts)
        except FAILURES as error:
            failure = without_frames(error, _GET_FILE)
        raise failure

    async def _get(self, link: Secret, headers: Mapping[str, str], timeouts: Timeouts) -> Incoming:
        client = self.connections.files
        url = _presigned(link)
        response = await client.get(
            url,
            # The bytes as they are stored: a file that is resumed and measured must not be compressed on the way.
            headers={**headers, "Accept-Encoding": "identity", "Accept": "*/*"},
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=timeouts.transfer_idle),
            allow_redirects=False,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            **self.connections.verification(url),
        )
        return Incoming(response)

    def _url(self, request: Request) -> URL:
        if request.query:
            return URL(f"{self._base_text}{request.path}?{request.query}", encoded=True)
        # Nothing is parsed here: half of what the line above costs.
        return self._base.with_path(self._prefix + request.path, encoded=True)

    def _is_short(self, response: aiohttp.ClientResponse) -> bool:
        """Return whether the body is certainly not longer than allowed."""
        length = response.content_length
        return (
            length is not None and length <= self._max_response_bytes and hdrs.CONTENT_ENCODING not in response.headers
        )

    async def _read_bounded(self, response: aiohttp.ClientResponse) -> bytes:
        bound = self._max_response_bytes
        chunks = bytearray()
        # aiohttp decompresses a piece at a time, so a small body that unpacks to gigabytes is caught in time.
        async for chunk in response.content.iter_any():
            chunks += chunk
            if len(chunks) > bound:
                response.close()
                raise _too_long(response, bound, self.origin.mask)
        return bytes(chunks)


@frozen
class Incoming:
    """The answer of a file host, whose body is still to be read."""

    _response: aiohttp.ClientResponse = field(repr=False)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; look-up ignores case."""
        return self._response.headers

    async def read(self) -> bytes:
        """Return what has arrived of the body, at least one byte; nothing at its end.

        Raises:
            TransportError: If the connection broke.
        """
        try:
            return await self._response.content.readany()
        except FAILURES as error:
            failure = without_frames(error, _GET_FILE)
        # aiohttp raises a broken connection before it returns what arrived until then; read_nowait raises too.
        rest = self._response.content._read_nowait(-1) if isinstance(failure, TransportError) else b""  # noqa: SLF001
        if rest:
            return rest
        raise failure

    def close(self) -> None:
        """End it; a connection whose body was read to its end is kept for the next request."""
        self._response.release()


def _presigned(link: Secret) -> URL:
    """Return a link as a URL.

    Raises:
        aiohttp.InvalidURL: If it is none; the error does not hold the link.
    """
    try:
        return URL(link.reveal(), encoded=True)
    except ValueError:
        pass
    raise aiohttp.InvalidURL("a presigned link")


async def _excerpt(content: aiohttp.StreamReader) -> bytes:
    """Return the start of a body: one read may return less of it, as it arrives in packets."""
    start = bytearray()
    while len(start) < HOST_EXCERPT and (data := await content.read(HOST_EXCERPT - len(start))):
        start += data
    return bytes(start)


def _name(request: Request) -> str:
    return f"{request.method} {request.template}"


@lru_cache(maxsize=32)
def _client_timeout(timeouts: Timeouts, method: str) -> aiohttp.ClientTimeout:
    total = timeouts.read if method == "GET" else timeouts.write
    return aiohttp.ClientTimeout(total=total, connect=timeouts.connect)


def _request_headers(request: Request, extra: Mapping[str, str]) -> Mapping[str, str]:
    if request.idempotency_key is None and request.body is None:
        return extra
    headers = dict(extra)
    if isinstance(request.body, bytes):
        headers["Content-Type"] = "application/json"
    if request.idempotency_key is not None:
        headers["Idempotency-Key"] = request.idempotency_key
    return headers


def _too_long(response: aiohttp.ClientResponse, bound: int, mask: Mask) -> UnexpectedResponse:
    return UnexpectedResponse(
        [f"the body is longer than max_response_bytes={bound}"],
        status=response.status,
        request_id=request_id(response.headers, mask),
        outcome="unknown",
        is_transient=False,
    )
