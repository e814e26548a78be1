"""Errors of aiohttp and of the system as ours, without the frames and objects that hold secrets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from traceback import walk_tb
from types import CodeType, TracebackType
from typing import Final, TypeAlias, TypeVar

import aiohttp

from heygen_async.errors import HeyGenError, RequestTimeout, TransportError, copy_of

_TLS_HINT: Final = (
    "The server's certificate was not accepted. "
    "For a private CA set SSL_CERT_FILE, or give an ssl.SSLContext as ssl= in Python."
)

_PROXY_HINT: Final = "Check HTTP_PROXY and HTTPS_PROXY, or in Python the proxy of an aiohttp.ClientSession of your own: http://host:port."
_TRACING: Final = aiohttp.tracing.__file__
_MOST_PLACES: Final = 8
_READING_THE_PROXY: Final = frozenset({"proxies_from_env", "_update_proxy_auth_header_and_build_proxy_req"})
"""The functions of aiohttp that read the URL of a proxy. They call nothing of the caller's."""

FAILURES: Final = (Exception, asyncio.CancelledError)
"""What an exchange with a server may end with. A bug is one, too: of the caller's tracing or resolver, for instance."""

_AnyError = TypeVar("_AnyError", bound=BaseException)
_Theirs: TypeAlias = aiohttp.ClientError | OSError | UnicodeError


def without_frames(error: BaseException, what: str) -> BaseException:
    """Return one of `FAILURES` as it may leave: without aiohttp's frames, and as ours if it is aiohttp's.

    Raise it outside of the handler that caught it, or *error* would be its context::

        try:
            return await exchange()
        except FAILURES as error:
            failure = without_frames(error, "GET /v3/lipsyncs")
        raise failure

    This costs nothing until something fails, unlike a coroutine around each exchange.
    """
    if isinstance(error, HeyGenError) or not isinstance(error, Exception):
        return error.with_traceback(None)
    if isinstance(error, ValueError) and any(code.co_name in _READING_THE_PROXY for code in _codes_of_aiohttp(error)):
        return _invalid_proxy(what)
    of_hook = _error_of_hook(error)
    if of_hook is None and isinstance(error, (aiohttp.ClientError, OSError, UnicodeError)):
        return _transport_error(error, what)
    return _foreign(of_hook or error, what)


def _error_of_hook(error: Exception) -> Exception | None:
    """Return what a tracing hook of the caller's has raised, which says nothing of the connection; else `None`."""
    for one in (error, error.__cause__):  # aiohttp makes its own error of an OSError
        if isinstance(one, Exception) and any(code.co_filename == _TRACING for code in _codes_of_aiohttp(one)):
            return one
    return None


def _invalid_proxy(what: str) -> TransportError:
    failure = TransportError(f"{what}: no connection (the proxy is not valid)", outcome="not_sent")
    failure.is_transient, failure.hint = False, _PROXY_HINT
    return failure


def _codes_of_aiohttp(error: BaseException) -> Iterator[CodeType]:
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").partition(".")[0] == "aiohttp":
            yield frame.f_code


def _foreign(error: Exception, what: str) -> Exception:
    """Return the error of a bug; if it came through aiohttp, a copy: a note says where it was raised, not frames."""
    if not any(_codes_of_aiohttp(error)):
        return error
    copied = copy_of(error)
    _strip(copied)
    note = f"It was raised during {what}, at:\n{_places(error.__traceback__)}"
    object.__setattr__(copied, "__notes__", [*getattr(copied, "__notes__", ()), note])  # it may be frozen
    return copied


def _places(trace: TracebackType | None) -> str:
    places = [
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}' for frame, line in walk_tb(trace)
    ]
    return "\n".join(places[-_MOST_PLACES:])


def _transport_error(error: _Theirs, what: str) -> TransportError:
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


def _strip(error: _AnyError) -> _AnyError:
    for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _strip(one)
    for name in ("__cause__", "__context__"):
        object.__setattr__(error, name, None)  # an exception may be frozen
    return error.with_traceback(None)
