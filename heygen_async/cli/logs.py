"""The log on standard error: warnings, and with -v or -vv more, one line each and without secrets."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from heygen_async._text import one_line, without_queries

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)
_SECRETS: Final = ("HEYGEN_API_KEY", "HEYGEN_WEBHOOK_SECRET")


class _OneLine(logging.Formatter):
    """A record on one line; of an exception its type and message."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        when = self.formatTime(record, "%H:%M:%S")
        return one_line(f"{when} {record.levelname} {record.name}: {without_secrets(text)}")


class _ToStandardError(logging.Handler):
    """Writes to the current standard error, which a live view replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)  # noqa: T201 the log


@contextmanager
def logging_to_stderr(verbosity: int) -> Iterator[None]:
    """Log to standard error while the body runs: warnings; at verbosity 1 each job, at 2 each request."""
    logger = logging.getLogger("heygen_async")
    handler = _ToStandardError()
    handler.setFormatter(_OneLine())
    before = logger.level
    logger.setLevel(_LEVELS[min(verbosity, len(_LEVELS) - 1)])
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def without_secrets(text: str) -> str:
    """Return *text* without the queries of links and without the secrets of the environment."""
    from heygen_async._masking import Mask  # noqa: PLC0415 most commands log nothing
    from heygen_async.models import Secret  # noqa: PLC0415 the same

    for name in _SECRETS:
        for secret in os.environ.get(name, "").split(","):
            text = Mask(Secret(secret.strip()))(text)
    return without_queries(text)
