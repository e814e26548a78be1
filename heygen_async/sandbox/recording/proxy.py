"""A proxy in front of the real API that records each exchange, without secrets, and compares it with the sandbox."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from anyio import to_thread

from heygen_async.sandbox.address import Address, listening
from heygen_async.sandbox.http.validation import is_loopback
from heygen_async.sandbox.recording.comparison import comparing
from heygen_async.sandbox.recording.exchange_log import ExchangeLog
from heygen_async.sandbox.recording.forwarding import MAX_JSON_BYTES, Forwarder
from heygen_async.sandbox.recording.links import ProxiedLinks

_CONNECT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 300.0
_SHUTDOWN_SECONDS: Final = 2.0


class RecordingProxy:
    """Records what passes between programs and an API; use it with `async with`, and give the programs its `url`.

    ::

        async with RecordingProxy("https://api.heygen.com", "recordings") as proxy:
            async with HeyGenSession(base_url=proxy.url) as heygen:
                ...
        for (call, difference), count in proxy.differences.items():
            print(call, difference, count)

    It listens on this machine only, and keeps no key, no link, no name and no address. Media is passed on in constant
    memory, and not kept.

    Args:
        upstream: The address of the API: https, or http on loopback.
        into: The directory for the recordings, one JSON file for each exchange; created if it is missing. Recordings
            that are in it stay.
        host: The address of this machine to listen on.
        port: The port; 0 takes a free one.
        trust_env: Whether the proxies of `HTTP_PROXY` and `HTTPS_PROXY` are used.

    Raises:
        ValueError: If *upstream* is not such an address, or `HEYGEN_LOOPBACK_ONLY` is set and it is another machine, or
            *host* is not on this machine.
    """

    def __init__(
        self, upstream: str, into: str | Path, *, host: str = "127.0.0.1", port: int = 0, trust_env: bool = False
    ) -> None:
        self._upstream = checked_upstream(upstream)
        if not is_loopback(host):
            raise ValueError(f"the proxy passes keys on, so it listens on this machine only, not on {host}")
        self._host, self._port, self._trust_env = host, port, trust_env
        self._log = ExchangeLog(Path(into))
        self._url: str | None = None
        self._ending = AsyncExitStack()

    @property
    def url(self) -> str:
        """Its address, without a slash at the end; known once started."""
        if self._url is None:
            raise RuntimeError("The proxy has not started: use it with `async with`.")
        return self._url

    @property
    def directory(self) -> Path:
        """Where the recordings are."""
        return self._log.directory

    @property
    def count(self) -> int:
        """How many exchanges were recorded."""
        return self._log.count

    @property
    def differences(self) -> Mapping[tuple[str, str], int]:
        """How often each call differed from what is expected: by call and sentence, the most frequent first."""
        return dict(self._log.differences.most_common())

    async def __aenter__(self) -> Self:
        if self._url is not None:
            raise RuntimeError("A proxy starts once; create a new one.")
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._ending = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack) -> None:
        await to_thread.run_sync(self._log.prepare)
        socket_ = stack.enter_context(listening(self._host, self._port))
        self._url = Address.of(socket_.getsockname()).url
        record = partial(self._log.add, await stack.enter_async_context(comparing()))
        client = await stack.enter_async_context(self._client())
        forwarder = Forwarder(client, self._upstream, ProxiedLinks(self._url), record)
        app = web.Application(client_max_size=MAX_JSON_BYTES)
        app.router.add_route("*", "/{path:.*}", forwarder.forward)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.SockSite(runner, socket_).start()

    def _client(self) -> aiohttp.ClientSession:
        client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_IDLE_SECONDS),
            # Bodies are compared, so they must not be compressed; what is compressed all the same passes as it is.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=self._trust_env,
        )
        # aiohttp sends a GET, PUT or DELETE once more itself if its connection breaks, and has no public switch for it.
        client._retry_connection = False  # noqa: SLF001
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ending.aclose()


def checked_upstream(url: str) -> str:
    """Return the address of the API that a proxy stands before, without a slash at its end.

    Raises:
        ValueError: If it is no such address, or another machine although `HEYGEN_LOOPBACK_ONLY` is set.
    """
    if not _is_upstream(url):
        raise ValueError("the upstream must be an https URL, or http on loopback, without user, query and fragment")
    if os.environ.get("HEYGEN_LOOPBACK_ONLY") and not is_loopback(urlsplit(url).hostname or ""):
        raise ValueError("HEYGEN_LOOPBACK_ONLY is set: the upstream must be an address of this machine")
    return url.rstrip("/")


def _is_upstream(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    return is_safe and bool(parts.hostname) and not (parts.query or parts.fragment or "@" in parts.netloc)
