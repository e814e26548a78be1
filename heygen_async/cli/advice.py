"""Advice on how to continue, given to what interrupts a command."""

from __future__ import annotations

import asyncio
import errno
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import EAI_AGAIN, EAI_NONAME, gaierror
from typing import Final

from heygen_async.cli.streams import check_output
from heygen_async.cli.suggestions import flag
from heygen_async.errors import DownloadError, HeyGenError, WaitTimeout

_NO_ADDRESS: Final = frozenset({EAI_AGAIN, EAI_NONAME})
"""The numbers of a `gaierror` that `socket.create_server` has made a plain `OSError` of."""


def _always() -> bool:
    return True


@contextmanager
def advising(advice: str, *, helps: Callable[[], bool] = _always) -> Iterator[None]:
    """Add *advice* on how to continue to what interrupts the body: a signal, a timeout, a transient error.

    It is printed as the hint of the error. Other errors, such as a wrong key, keep their own.

    Args:
        advice: The advice.
        helps: Says whether it also helps after a download that failed for a reason that stays until somebody acts.
    """
    try:
        yield
    except (asyncio.CancelledError, HeyGenError) as error:
        is_interrupted = not isinstance(error, HeyGenError) or error.is_transient or isinstance(error, WaitTimeout)
        if is_interrupted or (isinstance(error, DownloadError) and helps()):
            error.add_note(advice)
        raise


@contextmanager
def advising_on_doubt(what: str) -> Iterator[None]:
    """Say how to find out what became of a request without an answer; *what* says what it may have done."""
    try:
        yield
    except (HeyGenError, asyncio.CancelledError) as error:
        if getattr(error, "outcome", None) == "unknown":
            key = getattr(error, "idempotency_key", None)
            words = shlex.join(flag("--idempotency-key", key))
            error.add_note(f"{what}; to find out, run the same command with {words}")
        raise


@contextmanager
def advising_on_output(advice: str) -> Iterator[None]:
    """Add *advice* to the error if what the body prints cannot be written, such as on a full disk.

    It is for results that are shown once: an id that was paid for, or a secret.

    Raises:
        OSError: As `check_output` does.
    """
    yield
    try:
        check_output()
    except OSError as error:
        error.add_note(advice)
        raise


@contextmanager
def advising_on_port(port: int, host: str | None = None) -> Iterator[None]:
    """Say which flag helps if the body cannot listen: another program uses *port*, or *host* is no address to do so."""
    try:
        yield
    except OSError as error:
        # On other systems these numbers are those of other errors, which have classes of their own.
        has_no_address = isinstance(error, gaierror) or (type(error) is OSError and error.errno in _NO_ADDRESS)
        if host is not None and has_no_address:
            reason = str(error.strerror).partition(" (while ")[0]
            raise ValueError(f"--host {host} has no address: {reason}") from error
        if host is not None and error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"--host {host} is no address of this machine") from error
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(error.errno, f"port {port} is in use; give another one with --port") from error
