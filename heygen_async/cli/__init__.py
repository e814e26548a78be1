"""The command line, `heygen-async`: no logic of its own, only the library's public names, read and printed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on *argv* (the process's own arguments without one), and exit."""
    try:
        from heygen_async.cli.app import run  # noqa: PLC0415 what it needs is an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise
        sys.exit("heygen-async: the command line is an extra; install it with: pip install 'heygen-async[cli]'")
    sys.exit(run(sys.argv[1:] if argv is None else argv))
