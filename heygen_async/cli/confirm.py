"""Confirmation by a person before something is deleted permanently."""

from __future__ import annotations

import sys

from heygen_async._text import one_line


def confirm(question: str) -> bool:
    """Ask *question* on the terminal, and return whether the answer was yes.

    Call it before the event loop runs: there a signal would wait for the answer.

    Raises:
        ValueError: If standard input is not interactive.
    """
    if not sys.stdin.isatty():
        raise ValueError("standard input is not interactive: give --force to delete without confirmation")
    print(f"{one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 a question
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201 end the line of the question
        raise
