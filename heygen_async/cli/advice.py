"""Advice on how to continue, given to what interrupts a command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from heygen_async.errors import DownloadError, HeyGenError, WaitTimeout


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Add *advice* on how to continue to what interrupts the body: a signal, a timeout, a transient error.

    It is printed as the hint of the error. Other errors, such as a wrong key, keep their own.
    """
    try:
        yield
    except (asyncio.CancelledError, HeyGenError) as error:
        if not isinstance(error, HeyGenError) or error.is_transient or isinstance(error, (WaitTimeout, DownloadError)):
            error.add_note(advice)
        raise
