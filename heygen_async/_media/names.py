"""What a downloaded file is called. Pure."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath
from typing import Final
from urllib.parse import unquote, urlsplit

from heygen_async._text import one_line

_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*]')
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
_SUFFIXES: Final = (".mp4", ".webm", ".mov", ".m4v")
_LONGEST: Final = 200
"""Bytes; file systems take 255, and `.part.etag` must fit in."""
_LONGEST_ID: Final = 80


def file_name(title: str | None, lipsync_id: str, url: str) -> str:
    """Return a name that every file system takes, from a title and an id, such as `Episode 1 (ls_1).mp4`.

    Letters of any script are kept; it has no separators, is no reserved word, and starts with no dot.
    """
    known = _cut(plain(lipsync_id), _LONGEST_ID) or "lipsync"
    suffix = PurePath(unquote(urlsplit(url).path)).suffix.lower()
    suffix = suffix if suffix in _SUFFIXES else ".mp4"
    tail = f" ({known}){suffix}"
    head = _cut(plain(title or ""), _LONGEST - len(tail.encode()))
    name = head + tail if head else known + suffix
    return unreserved(name)


def unreserved(name: str) -> str:
    """Return *name*, with an underscore before it if it is a device on Windows, such as `nul.mp4`."""
    return f"_{name}" if _RESERVED.match(name) else name


def plain(text: str) -> str:
    """Return *text* without characters that some file system refuses, and without dots and spaces at its ends."""
    # Not str.isprintable(): joiners (Persian, emoji), U+00A0 and U+3000 are text.
    composed = unicodedata.normalize("NFC", one_line(text))
    return _FORBIDDEN.sub("_", composed).strip(". ")


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore").rstrip(". ")
