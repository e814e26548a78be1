"""Asking a person before something is gone for good."""

from __future__ import annotations

import sys


def confirmed(question: str) -> bool:
    """Ask on the terminal, and return whether the answer was yes.

    Call it before the event loop runs: there Ctrl-C would wait for the answer.

    Raises:
        ValueError: If nobody can answer.
    """
    if not sys.stdin.isatty():
        raise ValueError("nobody can be asked here: give --force to delete")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 a question
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201 what comes next gets a line of its own
        raise
