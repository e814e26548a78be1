"""Commands of this program as they are suggested: pasted into a shell, they do what they say. Values in, text out."""

from __future__ import annotations

import shlex
from pathlib import Path


def command(*words: str) -> str:
    """Return the command of this program with these *words*."""
    return shlex.join(["heygen-async", *words])


def flag(name: str, value: object) -> tuple[str, ...]:
    """Return the words of a flag with its *value*: one that starts with - would be another flag on its own."""
    text = str(value)
    return (f"{name}={text}",) if text.startswith("-") else (name, text)


def file(path: Path) -> str:
    """Return the word of a file: a `Path` has forgotten the `./` without which a name that starts with - is a flag."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text
