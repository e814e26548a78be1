"""The command line, `heygen-async`: it reads arguments, calls the library and prints the results."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from heygen_async.cli.interrupts import Interrupted, Interrupts, has_blocked_threads
from heygen_async.cli.streams import standard_streams

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on *argv* (the process's own arguments without one), and exit."""
    interrupts = Interrupts()
    is_blocked = False
    with standard_streams():
        try:
            with interrupts.handled():
                code = _run(sys.argv[1:] if argv is None else argv, interrupts)
                is_blocked = interrupts.first is not None and has_blocked_threads()
        except Interrupted as interrupted:  # before or after the command
            code = interrupted.exit_code
    if is_blocked:
        os._exit(code)  # Python would wait for them
    sys.exit(code)


def _run(argv: Sequence[str], interrupts: Interrupts) -> int:
    try:
        from heygen_async.cli.app import run  # noqa: PLC0415 what it needs is an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("cyclopts", "rich"):
            raise
        hint = "install the command line: pip install 'heygen-async[cli]'"
        sys.stderr.write(f"heygen-async: {error.name} is not installed; {hint}\n")
        return 1
    return run(argv, interrupts)
