"""Requests over aiohttp: the connections of a session, and one exchange at a time.

Rule 1: one exchange is one request on the wire: no redirect is followed, no cookie kept, nothing repeated.
Rule 2: errors of aiohttp and of the system become ours here; cancellation and bugs pass.
Rule 3: the API key is a constant of the client that only talks to the API's origin. File hosts get a client of
their own over the same connector, which has no key.
Rule 4: an error leaves without aiohttp's frames and without our frames that hold a body or a link: their local
variables hold secrets, and some tools show the local variables of a traceback.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from ssl import SSLContext
from typing import TYPE_CHECKING, Final, Literal, TypedDict, TypeVar

import aiohttp
from aiohttp import hdrs
from aiohttp.helpers import get_env_proxy_for_url
from anyio import to_thread
from attrs import field, frozen
from multidict import CIMultiDict
from yarl import URL

from heygen_async._arguments import check_count, check_type, is_loopback
from heygen_async._masking import Mask
from heygen_async._transport.aiohttp_errors import FAILURES, without_frames
from heygen_async._transport.origin import Origin, check_allowed, user_agent
from heygen_async._transport.sending import AttemptBody, send_stream
from heygen_async._wire import Answer, Piece, Request, Stream, request_id
from heygen_async.errors import CLOSED, TransportError, UnexpectedResponse
from heygen_async.models import Secret
from heygen_async.policies import Timeouts

if TYPE_CHECKING:
    from heygen_async._transport.probe import Reach

T = TypeVar("T")

logger: Final = logging.getLogger("heygen_async")

_GET_FILE: Final = "GET from the file host"
_CLOSE_SECONDS: Final = 5.0
_HOST_EXCERPT: Final = 4096
_READ_BUFFER: Final = 256 * 1024


class _Verification(TypedDict, total=False):
    ssl: bool


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
        ssl: For our own connector: a context, or `False` for no verification of hosts on loopback.
        trust_env: Whether `HTTP_PROXY`, `HTTPS_PROXY` and `.netrc` count.
        trace_configs: aiohttp's tracing, passed on.
        max_response_bytes: The longest answer of the API, after decompression.

    Raises:
        TypeError, ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        borrowed: aiohttp.ClientSession | None,
        ssl: SSLContext | Literal[False] | None,
        trust_env: bool,
        trace_configs: Sequence[aiohttp.TraceConfig],
        max_response_bytes: int,
    ) -> None:
        self._state = _State.UNOPENED  # first: an object that is refused is deleted too
        check_type("http", borrowed, aiohttp.ClientSession, is_optional=True)
        _check_ssl(ssl, origin, is_borrowed=borrowed is not None)
        check_type("trust_env", trust_env, bool)
        self._trace_configs = _checked_trace_configs(trace_configs)
        self.origin = origin
        self._borrowed = borrowed
        self._ssl = ssl
        self._trust_env = trust_env
        self._max_response_bytes = check_count("max_response_bytes", max_response_bytes)
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
        """Open on the running loop, or check that it was opened on this loop.

        Raises:
            RuntimeError: If it is closed, or belongs to another loop.
        """
        loop = asyncio.get_running_loop()
        if self._state is _State.OPEN:
            if loop is not self._loop:
                raise RuntimeError("this HeyGenSession was opened on another event loop; make one for each loop")
        elif self._state is _State.CLOSED:
            raise RuntimeError(CLOSED)
        else:
            self._open(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        check_allowed(self.origin, os.environ)
        if self._borrowed is None:
            # limit=0: connections are counted before the connector, where waiting does not count as connecting.
            self._connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl or True)
        elif self._borrowed.closed or self._borrowed.connector is None:
            raise RuntimeError("the aiohttp.ClientSession given as http= is closed")
        else:
            self._connector = self._borrowed.connector
        self._api = self._client(self._connector, self.origin.headers)
        self._files = self._client(self._connector, lambda: {"User-Agent": user_agent()})
        self._loop, self._state = loop, _State.OPEN

    def _client(
        self, connector: aiohttp.BaseConnector, make_headers: Callable[[], dict[str, str]]
    ) -> aiohttp.ClientSession:
        theirs = self._borrowed
        client = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=make_headers(),
            trust_env=theirs.trust_env if theirs else self._trust_env,
            trace_configs=[*(theirs.trace_configs if theirs else ()), *self._trace_configs],
            # aiohttp has no public name for it, and a proxy that is silently ignored would be a leak.
            proxy=theirs._default_proxy if theirs else None,  # noqa: SLF001
        )
        # aiohttp sends a GET, PUT or DELETE once more itself if a kept connection breaks, though the server may have
        # carried it out, and reports nothing. There is no public switch; its own test client uses this one.
        client._retry_connection = False  # noqa: SLF001
        return client

    def _verification(self, url: URL) -> _Verification:
        """Return the arguments that switch off verification: for loopback only, where the user wants it off."""
        return {"ssl": False} if self._ssl is False and is_loopback(url.host) else {}

    async def aclose(self) -> None:
        """Close the connections; a second time does nothing. A borrowed client stays open.

        Only the end of TLS is awaited, 5 s at most; if that is cancelled, the connections are closed all the same.

        Raises:
            RuntimeError: As `ensure_closable` does.
        """
        self.ensure_closable()
        if self._state is not _State.OPEN:
            self._state = _State.CLOSED
            return
        self._state = _State.CLOSED
        self._detach()
        if self._borrowed is None and self._connector is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._connector.close()
            except TimeoutError:
                logger.warning("connections did not close within %s s", _CLOSE_SECONDS)

    def ensure_closable(self) -> None:
        """Check that it may be closed on the running loop.

        Raises:
            RuntimeError: If it was opened on another one.
        """
        if self._state is _State.OPEN and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("close this HeyGenSession on the event loop that it was opened on")

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

    async def probe(self, timeout: float) -> Reach | None:
        """Connect to the API once without sending anything, and return how far that got.

        `None` with a borrowed client: its connector decides how to connect.

        Args:
            timeout: Seconds for each stage.
        """
        from heygen_async._transport.probe import probe  # noqa: PLC0415 few programs need it

        self.ensure_open()
        if self._borrowed is not None:
            return None
        proxy = await to_thread.run_sync(_environment_proxy, self._base) if self._trust_env else None
        verification = True if self._ssl is None else self._ssl
        return await probe(self._base, proxy=proxy, verification=verification, timeout=timeout)

    async def exchange(self, request: Request, *, headers: Mapping[str, str], timeouts: Timeouts) -> Answer:
        """Send *request* to the API once, and return the answer.

        Raises:
            TransportError: If no answer came; `RequestTimeout` if it did not come in time.
            UnexpectedResponse: If the body is longer than allowed.
        """
        self.ensure_open()
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
        assert self._api is not None  # noqa: S101 exchange opened it
        response = await self._api.request(
            request.method,
            self._url(request),
            data=data,
            headers=_request_headers(request, headers),
            timeout=timeout,
            allow_redirects=False,
            **self._verification(self._base),
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
        send = partial(self._put, self.files, link, headers)
        return await send_stream(send, stream, "PUT to the file host", timeouts)

    async def _put(
        self,
        client: aiohttp.ClientSession,
        link: Secret,
        headers: Mapping[str, str],
        body: AttemptBody,
        timeout: aiohttp.ClientTimeout,
    ) -> Answer:
        # The given headers replace ours: the link may be signed for their Content-Type.
        merged: CIMultiDict[str] = CIMultiDict(body.headers)
        merged.update(headers)
        url = _presigned(link)
        response = await client.put(
            url, data=body.pieces, headers=merged, timeout=timeout, allow_redirects=False, **self._verification(url)
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
            return await self._get(self.files, link, headers, timeouts)
        except FAILURES as error:
            failure = without_frames(error, _GET_FILE)
        raise failure

    async def _get(
        self, client: aiohttp.ClientSession, link: Secret, headers: Mapping[str, str], timeouts: Timeouts
    ) -> Incoming:
        url = _presigned(link)
        response = await client.get(
            url,
            # The bytes as they are stored: a file that is resumed and measured must not be compressed on the way.
            headers={**headers, "Accept-Encoding": "identity", "Accept": "*/*"},
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_read=timeouts.transfer_idle),
            allow_redirects=False,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            **self._verification(url),
        )
        return Incoming(response)

    def _url(self, request: Request) -> URL:
        if request.query:
            return URL(f"{self.origin.base_url}{request.path}?{request.query}", encoded=True)
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
    while len(start) < _HOST_EXCERPT and (data := await content.read(_HOST_EXCERPT - len(start))):
        start += data
    return bytes(start)


def _environment_proxy(url: URL) -> URL | None:
    """Return the proxy that aiohttp uses for *url* with `trust_env`, without its password."""
    try:
        return get_env_proxy_for_url(url)[0]
    except LookupError:
        return None


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


def _check_ssl(ssl: object, origin: Origin, *, is_borrowed: bool) -> None:
    if ssl is None:
        return
    if ssl is not False and not isinstance(ssl, SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, False or None, not {type(ssl).__name__}")
    if is_borrowed:
        raise ValueError("give ssl or http, not both: a borrowed aiohttp.ClientSession has its own connector")
    if ssl is False and not origin.is_loopback:
        raise ValueError("ssl=False is for a base_url on loopback; for a private CA give an ssl.SSLContext")


def _checked_trace_configs(configs: object) -> list[aiohttp.TraceConfig]:
    if isinstance(configs, str) or not isinstance(configs, Iterable):
        raise TypeError(f"trace_configs must be a list of aiohttp.TraceConfig, not {type(configs).__name__}")
    listed = list(configs)  # a generator can be read once
    for config in listed:
        if not isinstance(config, aiohttp.TraceConfig):
            raise TypeError(f"trace_configs must be a list of aiohttp.TraceConfig, not of {type(config).__name__}")
    return listed
