"""Bytes over aiohttp: the only module that knows its client.

Rule 1: one exchange, one request: no redirect is followed, no cookie kept, nothing repeated here.
Rule 2: aiohttp's and the system's errors become ours here; cancellation and bugs pass.
Rule 3: the API key is a constant of the client that only talks to the API's origin. File hosts get a client of
their own over the same connector, which knows no key.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
from aiohttp import hdrs
from attrs import frozen
from multidict import CIMultiDict
from yarl import URL

from heygen_async._arguments import is_loopback
from heygen_async._version import __version__
from heygen_async._wire import Answer, Request, Stream
from heygen_async.errors import RequestTimeout, TransportError, UnexpectedResponse
from heygen_async.models import Secret
from heygen_async.policies import Timeouts

if TYPE_CHECKING:
    from aiohttp.typedefs import LooseHeaders

T = TypeVar("T")

logger: Final = logging.getLogger("heygen_async")

_CLOSE_SECONDS: Final = 5.0
_HOST_EXCERPT: Final = 4096
_READ_BUFFER: Final = 256 * 1024


@frozen
class Origin:
    """Where the API is, and who we are there."""

    base_url: str
    auth_header: str
    auth_prefix: str
    credential: Secret

    @property
    def is_loopback(self) -> bool:
        """Whether the API is on this machine, so that plain http may be used."""
        return is_loopback(URL(self.base_url).host)

    def headers(self) -> dict[str, str]:
        """Return the headers that every request to the API carries."""
        return {
            self.auth_header: self.auth_prefix + self.credential.reveal(),
            "Accept": "application/json",
            "User-Agent": user_agent(),
        }


def user_agent() -> str:
    """Return what we call ourselves."""
    return f"heygen-async/{__version__} aiohttp/{aiohttp.__version__}"


class _State(enum.Enum):
    UNOPENED = "unopened"
    OPEN = "open"
    CLOSED = "closed"


class Http:
    """The connections of a session: opened on first use, on the loop of that use; closed once.

    Args:
        origin: The API.
        borrowed: A client of the user's. Its connector, proxy, tracing and `trust_env` are used; its headers,
            cookies, timeouts and `base_url` are not, and it is never closed.
        trust_env: Whether `HTTP_PROXY`, `HTTPS_PROXY` and `.netrc` count.
        trace_configs: aiohttp's tracing, passed on.
        max_response_bytes: The longest answer of the API, after decompression.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        borrowed: aiohttp.ClientSession | None,
        trust_env: bool,
        trace_configs: Sequence[aiohttp.TraceConfig],
        max_response_bytes: int,
    ) -> None:
        self.origin = origin
        self._borrowed = borrowed
        self._trust_env = trust_env
        self._trace_configs = list(trace_configs)
        self._max_response_bytes = max_response_bytes
        self._state = _State.UNOPENED
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connector: aiohttp.BaseConnector | None = None
        self._base = URL(origin.base_url)
        self._prefix = self._base.raw_path.rstrip("/")
        self._api: aiohttp.ClientSession | None = None
        self._files: aiohttp.ClientSession | None = None

    @property
    def state(self) -> str:
        """`unopened`, `open` or `closed`."""
        return self._state.value

    def ensure_open(self) -> None:
        """Open on the running loop, or see that this is the loop it was opened on.

        Raises:
            RuntimeError: If it is closed, or belongs to another loop.
        """
        loop = asyncio.get_running_loop()
        if self._state is _State.OPEN:
            if loop is not self._loop:
                raise RuntimeError("this HeyGenSession was opened on another event loop; make one for each loop")
        elif self._state is _State.CLOSED:
            raise RuntimeError("this HeyGenSession is closed; make a new one")
        else:
            self._open(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._borrowed is None:
            # limit=0: seats are given out before the connector, where waiting does not count as connecting.
            self._connector = aiohttp.TCPConnector(limit=0)
        elif self._borrowed.closed or self._borrowed.connector is None:
            raise RuntimeError("the aiohttp.ClientSession given as http= is closed")
        else:
            self._connector = self._borrowed.connector
        self._api = self._client(self._connector, headers=self.origin.headers())
        self._files = self._client(self._connector, headers={"User-Agent": user_agent()})
        self._loop, self._state = loop, _State.OPEN

    def _client(self, connector: aiohttp.BaseConnector, *, headers: LooseHeaders) -> aiohttp.ClientSession:
        theirs = self._borrowed
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            trust_env=theirs.trust_env if theirs else self._trust_env,
            trace_configs=[*(theirs.trace_configs if theirs else ()), *self._trace_configs],
            # aiohttp has no public name for it, and a proxy passed over in silence is a leak.
            proxy=theirs._default_proxy if theirs else None,  # noqa: SLF001
        )

    async def aclose(self) -> None:
        """Close the connections; a second time does nothing. A borrowed client stays open.

        Sockets are closed at once; what is awaited, 5 s at most, is their farewell, so cancelling loses nothing.
        """
        if self._state is not _State.OPEN:
            self._state = _State.CLOSED
            return
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("close this HeyGenSession on the event loop that it was opened on")
        self._state = _State.CLOSED
        self._detach()
        if self._borrowed is None and self._connector is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._connector.close()
            except TimeoutError:
                logger.warning("connections did not close within %s s", _CLOSE_SECONDS)

    def _detach(self) -> None:
        for client in (self._api, self._files):
            if client is not None:
                client.detach()

    def __del__(self) -> None:
        if self._state is not _State.OPEN or sys.is_finalizing():
            return
        warnings.warn(
            "Unclosed HeyGenSession: use 'async with HeyGenSession() as heygen:' or 'await heygen.aclose()'",
            ResourceWarning,
            source=self,
            stacklevel=1,
        )
        # Or aiohttp would warn of each of its objects too. Sockets are closed, nothing is awaited.
        self._detach()
        if self._borrowed is None and self._connector is not None:
            self._connector._close()  # noqa: SLF001 close() would make a task

    @property
    def files(self) -> aiohttp.ClientSession:
        """The client for presigned links: it has no key. Opens on first use."""
        self.ensure_open()
        assert self._files is not None  # noqa: S101 ensure_open set it
        return self._files

    async def exchange(self, request: Request, *, headers: Mapping[str, str], timeouts: Timeouts) -> Answer:
        """Send *request* to the API once, and return status, headers and body.

        Raises:
            TransportError: If no answer came; `RequestTimeout` if it did not come in time.
            UnexpectedResponse: If the body is longer than allowed.
        """
        self.ensure_open()
        if isinstance(request.body, Stream):  # not in the try: an OSError of reading the file is no broken connection
            send = partial(self._send_form, request, headers)
            return await _watched(send, request.body, _name(request), timeouts)
        try:
            timeout = _client_timeout(timeouts, request.method)
            return await self._send(request, request.body, _request_headers(request, headers), timeout)
        except (aiohttp.ClientError, OSError) as error:
            raise transport_error(error, _name(request)) from error

    async def _send(
        self,
        request: Request,
        data: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> tuple[int, Mapping[str, str], bytes]:
        assert self._api is not None  # noqa: S101 exchange opened it
        response = await self._api.request(
            request.method, self._url(request), data=data, headers=headers, timeout=timeout, allow_redirects=False
        )
        try:
            return response.status, response.headers, await self._read(response)
        finally:
            response.release()

    async def _send_form(
        self, request: Request, headers: Mapping[str, str], form: _Body, timeout: aiohttp.ClientTimeout
    ) -> tuple[int, Mapping[str, str], bytes]:
        return await self._send(request, form.pieces, {**_request_headers(request, headers), **form.headers}, timeout)

    async def put(
        self, url: str, stream: Stream, *, headers: Mapping[str, str], timeouts: Timeouts
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send *stream* to a presigned link once, and return status, headers and the start of the body.

        Raises:
            TransportError: If no answer came; whatever reading the stream raises comes out as it is.
        """
        send = partial(self._put, self.files, url, headers)
        return await _watched(send, stream, "PUT to the file host", timeouts)

    async def _put(
        self,
        client: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, str],
        body: _Body,
        timeout: aiohttp.ClientTimeout,
    ) -> tuple[int, Mapping[str, str], bytes]:
        # Theirs over ours: the link may be signed for their Content-Type.
        told: CIMultiDict[str] = CIMultiDict(body.headers)
        told.update(headers)
        link = URL(url, encoded=True)
        response = await client.put(link, data=body.pieces, headers=told, timeout=timeout, allow_redirects=False)
        try:
            return response.status, response.headers, await response.content.read(_HOST_EXCERPT)
        finally:
            response.release()

    async def get(self, url: str, *, headers: Mapping[str, str], timeouts: Timeouts) -> Incoming:
        """Ask a presigned link for a file. Close what is returned; its body comes as it is read.

        Raises:
            TransportError: If no answer came.
        """
        client = self.files
        # Bytes as they are on the other side: what is resumed and measured must not be unpacked on the way.
        plain = {**headers, "Accept-Encoding": "identity", "Accept": "*/*"}
        try:
            response = await client.get(
                URL(url, encoded=True),
                headers=plain,
                timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=timeouts.transfer_idle),
                allow_redirects=False,
                auto_decompress=False,
                read_bufsize=_READ_BUFFER,
            )
        except (aiohttp.ClientError, OSError) as error:
            failure = transport_error(error, "GET from the file host")
        else:
            return Incoming(response)
        raise failure  # not in the handler: aiohttp's error may hold the link, whose query is a secret

    def _url(self, request: Request) -> URL:
        if request.query:
            return URL(f"{self.origin.base_url}{request.path}?{request.query}", encoded=True)
        # Nothing is parsed here: half of what the line above costs.
        return self._base.with_path(self._prefix + request.path, encoded=True)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        length = response.content_length
        bound = self._max_response_bytes
        if length is not None and length <= bound and hdrs.CONTENT_ENCODING not in response.headers:
            return await response.read()
        chunks = bytearray()
        # aiohttp decompresses a piece at a time, so a small body that unpacks to gigabytes is caught in time.
        async for chunk in response.content.iter_any():
            chunks += chunk
            if len(chunks) > bound:
                response.close()
                raise _too_long(response, bound)
        return bytes(chunks)


@frozen
class _Body:
    """What one attempt sends."""

    pieces: AsyncIterator[bytes]
    headers: Mapping[str, str]


async def _watched(
    send: Callable[[_Body, aiohttp.ClientTimeout], Awaitable[T]], stream: Stream, what: str, timeouts: Timeouts
) -> T:
    """Send *stream* once: its bytes must keep moving, its whole time has no limit."""
    outgoing = _Outgoing(stream, timeouts)
    timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect)
    length = {"Content-Length": str(stream.length), "Content-Type": stream.content_type}
    try:
        async with asyncio.timeout(timeouts.connect + timeouts.transfer_idle) as deadline:
            return await send(_Body(outgoing.pieces(deadline), length), timeout)
    except (aiohttp.ClientError, OSError) as error:
        failure = outgoing.failure or transport_error(error, what)
    raise failure  # not in the handler: aiohttp's error may hold the link, whose query is a secret


class _Outgoing:
    """A body on its way out: each piece puts off the deadline, and what breaks in reading it is kept.

    aiohttp would pass that off as a broken connection, which is worth another try; a file that is gone is not.
    """

    def __init__(self, stream: Stream, timeouts: Timeouts) -> None:
        self._stream = stream
        self._timeouts = timeouts
        self.failure: Exception | None = None

    async def pieces(self, deadline: asyncio.Timeout) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        try:
            async for piece in self._stream.chunks():
                deadline.reschedule(clock() + self._timeouts.transfer_idle)
                yield piece
        except Exception as error:
            self.failure = error
            raise
        deadline.reschedule(clock() + self._timeouts.write)  # all is sent: now the server works


@frozen
class Incoming:
    """The answer of a file host, whose body is yet to come."""

    _response: aiohttp.ClientResponse

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; look-up ignores case."""
        return self._response.headers

    async def read(self) -> bytes:
        """Return what has come of the body since, at least a byte; nothing at its end.

        Raises:
            TransportError: If it broke off.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            failure = transport_error(error, "GET from the file host")
        raise failure

    def close(self) -> None:
        """End it; a connection whose body was read to its end is kept for the next."""
        self._response.release()


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


def _too_long(response: aiohttp.ClientResponse, bound: int) -> UnexpectedResponse:
    return UnexpectedResponse(
        [f"the body is longer than max_response_bytes={bound}"],
        status=response.status,
        request_id=response.headers.get("X-Request-Id"),
        outcome="unknown",
        is_transient=False,
    )


def transport_error(error: aiohttp.ClientError | OSError, what: str) -> TransportError:
    """Return our error for one of aiohttp's or the system's, with what it tells of the request's fate."""
    if isinstance(error, TimeoutError):
        connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
        message = f"{what}: no {'connection' if connecting else 'answer'} in time"
        return RequestTimeout(message, outcome="not_sent" if connecting else "unknown")
    connecting = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.InvalidURL))
    reason = getattr(error, "os_error", None) or type(error).__name__
    message = f"{what}: {'no connection' if connecting else 'the connection broke'} ({reason})"
    return TransportError(message, outcome="not_sent" if connecting else "unknown")
