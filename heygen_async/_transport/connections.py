"""The connections of a session: opened on first use, on the event loop of that use, and closed once.

Rule 1: the API key is a constant of the client that only talks to the API's origin. File hosts get a client of
their own over the same connector, which has no key.
Rule 2: no client keeps a cookie, and none repeats a request by itself.
Rule 3: the key is not sent to a proxy in front of an https API: aiohttp sends a client's headers to the proxy too,
unencrypted, when it opens a connection through it.
Rule 4: of `.netrc` only the passwords of proxies are used. One for the API would go beside the key, or instead of the
token; a file host refuses a presigned link that comes with one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from ssl import SSLContext
from typing import TYPE_CHECKING, Final, Literal, TypedDict

import aiohttp
from aiohttp.helpers import get_env_proxy_for_url
from anyio import to_thread
from yarl import URL

from heygen_async._arguments import check_type, is_loopback
from heygen_async._transport.origin import Origin, check_allowed, public_headers, user_agent
from heygen_async.errors import CLOSED

if TYPE_CHECKING:
    from heygen_async._transport.probe import Reach

_logger: Final = logging.getLogger("heygen_async")

_CLOSE_SECONDS: Final = 5.0
_BORROWED_CLOSED: Final = "the aiohttp.ClientSession given as http= is closed"
_BORROWED_ELSEWHERE: Final = "the aiohttp.ClientSession given as http= was made on another event loop"


class Verification(TypedDict, total=False):
    """The arguments of a request that switch off the verification of certificates."""

    ssl: bool


class Connections:
    """The connections of a session: opened on first use, on the loop of that use; closed once.

    Args:
        origin: The API.
        borrowed: A client of the user's. Its connector, proxy, tracing and `trust_env` are used; its headers,
            cookies, timeouts and `base_url` are not, and it is never closed.
        ssl: For our own connector: a context, or `False` for no verification of hosts on loopback.
        trust_env: Whether `HTTP_PROXY`, `HTTPS_PROXY` and the passwords of proxies in `.netrc` count. They do, too, if
            *borrowed* says so.
        trace_configs: aiohttp's tracing, passed on.

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
    ) -> None:
        # First: an object that is refused is deleted too.
        self.state: Literal["unopened", "open", "closed"] = "unopened"
        check_type("http", borrowed, aiohttp.ClientSession, is_optional=True)
        _check_ssl(ssl, origin, is_borrowed=borrowed is not None)
        check_type("trust_env", trust_env, bool)
        self._trace_configs = _checked_trace_configs(trace_configs)
        self.origin = origin
        self._borrowed = borrowed
        self._ssl = ssl
        self._trust_env = trust_env
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connector: aiohttp.BaseConnector | None = None
        self._api: aiohttp.ClientSession | None = None
        self._files: aiohttp.ClientSession | None = None

    def at_most(self, count: int) -> int:
        """Return *count*, or how many connections to one host the connector of a borrowed client allows, if fewer.

        aiohttp counts waiting for one of them as connecting, so no request may have to.
        """
        connector = None if self._borrowed is None else self._borrowed.connector
        limits = (0, 0) if connector is None else (connector.limit, connector.limit_per_host)
        return min(count, *(limit or count for limit in limits))

    def ensure_open(self) -> None:
        """Open on the running loop, or check that it was opened on this loop.

        Raises:
            RuntimeError: If it is closed, or belongs to another loop.
        """
        loop = asyncio.get_running_loop()
        if self.state == "closed":
            raise RuntimeError(CLOSED)
        check_allowed(self.origin, os.getenv)  # each time: it may be used in another test than it was opened in
        if self.state != "open":
            self._open(loop)
        elif loop is not self._loop:
            raise RuntimeError("this HeyGenSession was opened on another event loop; make one for each loop")
        elif self._borrowed is not None and self._borrowed.closed:
            raise RuntimeError(_BORROWED_CLOSED)

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._borrowed is None:
            # limit=0: connections are counted before the connector, where waiting does not count as connecting.
            self._connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl or True)
        elif self._borrowed.closed or self._borrowed.connector is None:
            raise RuntimeError(_BORROWED_CLOSED)
        elif self._borrowed._loop is not loop:  # noqa: SLF001 its public name is deprecated
            raise RuntimeError(_BORROWED_ELSEWHERE)  # else aiohttp raises, in frames with the key
        else:
            self._connector = self._borrowed.connector
        if self._borrowed is None or self._borrowed._default_proxy is None:  # noqa: SLF001 as below
            self._api = self._client(self._connector, self.origin.headers)
        else:
            self._api = self._client(self._connector, public_headers, _authorizing(self.origin))
        self._files = self._client(self._connector, lambda: {"User-Agent": user_agent()})
        self._loop, self.state = loop, "open"

    def _client(
        self,
        connector: aiohttp.BaseConnector,
        make_headers: Callable[[], dict[str, str]],
        *middlewares: aiohttp.ClientMiddlewareType,
    ) -> aiohttp.ClientSession:
        theirs = self._borrowed
        client = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=make_headers(),
            middlewares=middlewares,
            trust_env=self._trust_env or (theirs is not None and theirs.trust_env),
            trace_configs=[*(theirs.trace_configs if theirs else ()), *self._trace_configs],
            # aiohttp has no public name for it, and a proxy that is silently ignored would be a leak.
            proxy=theirs._default_proxy if theirs else None,  # noqa: SLF001
        )
        if theirs:
            # As an argument it would warn a second time that it is deprecated.
            client._default_proxy_auth = theirs._default_proxy_auth  # noqa: SLF001
        # aiohttp sends a GET, PUT or DELETE once more itself if a kept connection breaks, though the server may have
        # carried it out, and reports nothing. There is no public switch; its own test client uses this one.
        client._retry_connection = False  # noqa: SLF001
        # It is looked up for each host, and there is no public switch. Set like this, because in its debug mode aiohttp
        # warns of attributes that it does not know, and a warning may be an error.
        object.__setattr__(client, "_get_netrc_auth", _no_password)
        return client

    def verification(self, url: URL) -> Verification:
        """Return the arguments that switch off verification: for loopback only, where the user wants it off."""
        return {"ssl": False} if self._ssl is False and is_loopback(url.host) else {}

    async def aclose(self) -> None:
        """Close the connections; a second time does nothing. A borrowed client stays open.

        Only the end of TLS is awaited, 5 s at most; if that is cancelled, the connections are closed all the same.

        Raises:
            RuntimeError: As `ensure_closable` does.
        """
        self.ensure_closable()
        if self.state != "open":
            self.state = "closed"
            return
        self.state = "closed"
        self._detach()
        if self._borrowed is None and self._connector is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._connector.close()
            except TimeoutError:
                _logger.warning("connections did not close within %s s", _CLOSE_SECONDS)

    def ensure_closable(self) -> None:
        """Check that it may be closed on the running loop.

        Raises:
            RuntimeError: If it was opened on another one.
        """
        if self.state == "open" and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("close this HeyGenSession on the event loop that it was opened on")

    def _detach(self) -> None:
        for client in (self._api, self._files):
            if client is not None:
                client.detach()

    def __del__(self) -> None:
        if self.state != "open" or sys.is_finalizing():
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
    def api(self) -> aiohttp.ClientSession:
        """The client for the API's origin: it has the key. Opens on first use."""
        self.ensure_open()
        assert self._api is not None  # noqa: S101 ensure_open set it
        return self._api

    @property
    def files(self) -> aiohttp.ClientSession:
        """The client for presigned links: it has no key. Opens on first use."""
        self.ensure_open()
        assert self._files is not None  # noqa: S101 ensure_open set it
        return self._files

    async def probe(self, timeout: float) -> Reach | None:
        """Connect to the API once without sending anything, and return how far that got.

        Returns `None` with a borrowed client, whose connector decides how to connect, and if the proxy of the
        environment is not valid, which the first request reports.

        Args:
            timeout: Seconds for each stage.
        """
        from heygen_async._transport.probe import probe  # noqa: PLC0415 few programs need it

        self.ensure_open()
        if self._borrowed is not None:
            return None
        api = URL(self.origin.base_url)
        try:
            proxy = await to_thread.run_sync(_environment_proxy, api) if self._trust_env else None
        except ValueError:
            return None
        verification = True if self._ssl is None else self._ssl
        return await probe(api, proxy=proxy, verification=verification, timeout=timeout)


def _authorizing(origin: Origin) -> aiohttp.ClientMiddlewareType:
    """Return what adds the key to each request that goes through a proxy; it keeps no session alive."""

    async def authorize(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers.update(origin.credentials())
        return await handler(request)

    return authorize


def _no_password(_host: str) -> None:
    """Return no password of `.netrc` for a host that is no proxy."""


def _environment_proxy(url: URL) -> URL | None:
    """Return the proxy that aiohttp uses for *url* with `trust_env`, without its password.

    Raises:
        ValueError: If it is not valid.
    """
    try:
        proxy = get_env_proxy_for_url(url)[0]
    except LookupError:
        return None
    if not proxy.host:
        raise ValueError("the proxy is not valid")
    return proxy


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
