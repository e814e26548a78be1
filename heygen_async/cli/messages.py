"""Messages of errors on one line, in the words of a shell."""

from __future__ import annotations

import re
from typing import Final

from heygen_async._text import escape_controls

# A library's message names keyword arguments and types; a shell has flags and paths.
_KEYWORD: Final = re.compile(r"\b(?:([a-z_]+)=True\b|(run|base_url)=(?=[ ,]))")
_NOT_AN_ID: Final = re.compile(r"\A(lipsync|endpoint)_id (is not an id: .*)", re.DOTALL)
_IDS: Final = {"lipsync": "ls_abc123", "endpoint": "we_1"}
_ARGUMENT: Final = re.compile(r"\A(?:base_url|(lipsync|endpoint)_id)\b")


def in_shell_words(text: str) -> str:
    """Return a message of the library on one line, with flags and paths in place of keyword arguments and types."""
    text = _KEYWORD.sub(lambda found: f"--{(found[1] or found[2]).replace('_', '-')}", text)
    text = _NOT_AN_ID.sub(lambda found: f"ID {found[2]}; an id is one word, such as {_IDS[found[1]]}", text)
    text = _ARGUMENT.sub(lambda found: "ID" if found[1] else "the base URL (--base-url, HEYGEN_BASE_URL)", text)
    text = text.replace("give a Path", "give its path").replace("must be True, False or None", "must be true or false")
    return _on_one_line(text)


def _on_one_line(text: str) -> str:
    """Return *text* on one line, with all of its spaces: the name of a file in it may be copied."""
    return escape_controls(" ".join(text.splitlines())).strip(" ")


def message_of(error: BaseException) -> str:
    """Return the message of an *error* on one line."""
    if isinstance(error, OSError) and isinstance(error.strerror, str):
        return _on_one_line(": ".join(str(part) for part in (error.strerror, error.filename) if part))
    return in_shell_words(str(error) or type(error).__name__)
