"""The exit codes, and which of them an error has."""

from __future__ import annotations

import enum
import errno
from typing import Final

from heygen_async.cli.interrupts import Interrupted
from heygen_async.cli.options import MissingKey
from heygen_async.errors import AuthenticationError, HeyGenError, WaitTimeout


class Exit(enum.IntEnum):
    """The exit codes: those of the vendor's tool, and 128 plus the number of the signal that ended the command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    AUTH = 3
    TIMED_OUT = 4
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


_CODES: Final[tuple[tuple[type[BaseException], Exit], ...]] = (
    (AuthenticationError, Exit.AUTH),
    (MissingKey, Exit.AUTH),
    (WaitTimeout, Exit.TIMED_OUT),
    (KeyboardInterrupt, Exit.INTERRUPTED),
    # An argument names a wrong path.
    (FileNotFoundError, Exit.USAGE),
    (NotADirectoryError, Exit.USAGE),
    (IsADirectoryError, Exit.USAGE),
    (PermissionError, Exit.USAGE),
    (HeyGenError, Exit.FAILED),
    (OSError, Exit.FAILED),
)
"""The first that fits decides."""
_WRONG_PATH: Final = frozenset({errno.ENAMETOOLONG, errno.EROFS})
"""The errors of a wrong path that have no class of their own."""


def exit_code(error: BaseException) -> Exit:
    """Return the exit code for an *error* that ends a command."""
    if isinstance(error, Interrupted):
        return Exit(error.exit_code)
    if isinstance(error, OSError) and error.errno in _WRONG_PATH:
        return Exit.USAGE
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.USAGE)
