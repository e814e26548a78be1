"""Errors of aiohttp and of the system as ours, without the frames and objects that hold secrets."""

from __future__ import annotations

import asyncio
import os
from typing import Final, TypeAlias, cast

import aiohttp

from heygen_async.errors import HeyGenError, RequestTimeout, TransportError

_TLS_HINT: Final = "The server's certificate was not accepted. For a private CA give an ssl.SSLContext as ssl=."

FAILURES: Final = (aiohttp.ClientError, OSError, UnicodeError, HeyGenError, asyncio.CancelledError)
"""What an exchange with a server may end with, apart from bugs. `UnicodeError`: its name cannot be looked up."""

_Theirs: TypeAlias = aiohttp.ClientError | OSError | UnicodeError


def without_frames(error: BaseException, what: str) -> BaseException:
    """Return one of `FAILURES` as it may leave: without the frames it went through, and as ours if it is aiohttp's.

    Raise it outside of the handler that caught it, or *error* would be its context::

        try:
            return await exchange()
        except FAILURES as error:
            failure = without_frames(error, "GET /v3/lipsyncs")
        raise failure

    This costs nothing until something fails, unlike a coroutine around each exchange.
    """
    if isinstance(error, (HeyGenError, asyncio.CancelledError)):
        return error.with_traceback(None)
    return transport_error(cast("_Theirs", error), what)


def transport_error(error: _Theirs, what: str) -> TransportError:
    """Return our error for one of aiohttp's or the system's, with what is known of the request's outcome.

    Its cause is *error* where that holds no header and no link; without its traceback, whose frames do.
    """
    if isinstance(error, TimeoutError):
        connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
        message = f"{what}: no {'connection' if connecting else 'answer'} in time"
        return RequestTimeout(message, outcome="not_sent" if connecting else "unknown")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        message = f"{what}: no connection (the proxy answered {error.status})"
        return TransportError(message, outcome="not_sent")
    is_no_address = isinstance(error, (aiohttp.InvalidURL, UnicodeError))
    connecting = is_no_address or isinstance(error, aiohttp.ClientConnectorError)
    reason = _reason(error)
    message = f"{what}: {'no connection' if connecting else 'the connection broke'} ({reason})"
    failure = TransportError(message, outcome="not_sent" if connecting else "unknown")
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        failure.hint = _TLS_HINT
    if is_no_address:
        failure.is_transient = False
    failure.__cause__ = _without_traceback(error)
    return failure


def _reason(error: _Theirs) -> object:
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):
        return "its address is not valid"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    # Not its text, which may hold the URL.
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__


def _without_traceback(error: _Theirs) -> Exception | None:
    if isinstance(error, aiohttp.ClientConnectorError):
        if error._conn_key.proxy is not None:  # noqa: SLF001 its URL may hold a password
            return None
        for inner in error.args:
            if isinstance(inner, Exception):
                _strip(inner)
    elif isinstance(error, (aiohttp.ClientError, UnicodeError)):
        return None  # it may hold the request, headers and all, or the link
    return _strip(error)


def _strip(error: Exception) -> Exception:
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
