"""How far a connection to the API gets: its name, its address or its proxy, and TLS, each with its time."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, cast

from aiohappyeyeballs import AddrInfoType, start_connection
from anyio import to_thread
from attrs import define, frozen
from yarl import URL

ConnectStage: TypeAlias = Literal["dns", "connect", "tls"]

_HAPPY_EYEBALLS: Final = 0.25


@frozen(kw_only=True)
class Failure:
    """What did not work, and why."""

    stage: ConnectStage
    reason: str
    """In the words of the system or of OpenSSL."""
    certificate_error: int | None = None
    """OpenSSL's number of what is wrong with the certificate; `None` for anything else."""


@define(kw_only=True)
class Reach:
    """How far a connection got. Times are seconds."""

    host: str
    """Where it went: the API, or the proxy."""
    port: int
    is_proxy: bool = False
    addresses: int = 0
    dns_seconds: float | None = None
    connect_seconds: float | None = None
    tls_seconds: float | None = None
    tls_version: str | None = None
    certificate_end: datetime | None = None
    """When the server's certificate expires."""
    failure: Failure | None = None


async def probe(api: URL, *, proxy: URL | None, verification: ssl.SSLContext | bool, timeout: float) -> Reach:
    """Connect to *api*, or only to *proxy* if there is one, send nothing, and return how far it got.

    Args:
        api: The base URL.
        proxy: What requests go through; `None` for a direct connection.
        verification: The context of the connections; `True` for the default one, `False` for no verification.
        timeout: Seconds for each stage.
    """
    to = proxy or api
    reach = Reach(host=to.host or "", port=to.port or 0, is_proxy=proxy is not None)
    stage: ConnectStage = "dns"
    writer: asyncio.StreamWriter | None = None
    try:
        addresses = await _resolve(reach, timeout)
        stage = "connect"
        writer = await _connect(reach, addresses, timeout)
        stage = "tls"
        if proxy is None and api.scheme == "https":
            await _encrypt(reach, writer, verification=verification, timeout=timeout)
    except OSError as error:  # TimeoutError and ssl.SSLError are too
        reach.failure = _failure(stage, error, timeout)
    finally:
        if writer is not None:
            writer.transport.abort()
    return reach


async def _resolve(reach: Reach, timeout: float) -> Sequence[AddrInfoType]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(reach.host, reach.port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "no host can have this name") from None
    reach.addresses, reach.dns_seconds = len({entry[4][0] for entry in found}), loop.time() - started
    return found


async def _connect(reach: Reach, addresses: Sequence[AddrInfoType], timeout: float) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(timeout):
        # As aiohttp does. That of asyncio is not in uvloop, and fails with eager tasks in some versions of Python.
        connected = await start_connection(addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS)
        _, writer = await asyncio.open_connection(sock=connected)
    reach.connect_seconds = loop.time() - started
    return writer


async def _encrypt(
    reach: Reach, writer: asyncio.StreamWriter, *, verification: ssl.SSLContext | bool, timeout: float
) -> None:
    context = await to_thread.run_sync(_context) if isinstance(verification, bool) else verification
    if verification is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(timeout):
        await writer.start_tls(context, server_hostname=reach.host)
    reach.tls_seconds = loop.time() - started
    connection = cast("ssl.SSLObject", writer.get_extra_info("ssl_object"))
    reach.tls_version, reach.certificate_end = connection.version(), _end_of(connection)


def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _end_of(connection: ssl.SSLObject) -> datetime | None:
    certificate = connection.getpeercert() or {}  # empty if it was not verified
    with suppress(ValueError, KeyError):
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(cast("str", certificate["notAfter"])), UTC)
    return None


def _failure(stage: ConnectStage, error: OSError, timeout: float) -> Failure:
    match error:
        case TimeoutError() if error.errno is None:
            return Failure(stage=stage, reason=f"no answer within {timeout:g} s")
        case ssl.SSLCertVerificationError():
            return Failure(stage=stage, reason=error.verify_message, certificate_error=error.verify_code)
        case ssl.SSLError():
            return Failure(stage=stage, reason=error.reason or "the handshake failed")
        case ConnectionError() if stage == "tls":
            return Failure(stage=stage, reason="the connection was closed during the handshake")
        case socket.gaierror():  # its numbers are not those of the system's errors
            return Failure(stage=stage, reason=error.strerror or str(error))
        case _:
            # asyncio has a text of its own in place of the system's, and another one for several addresses.
            return Failure(stage=stage, reason=os.strerror(error.errno) if error.errno else str(error))
