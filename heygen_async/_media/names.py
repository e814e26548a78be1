"""What a downloaded file is called. Pure."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath
from typing import Final
from urllib.parse import unquote, urlsplit

from heygen_async._text import one_line

_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*]')
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
_SUFFIXES: Final = (".mp4", ".webm", ".mov", ".m4v")
LONGEST: Final = 200
"""Bytes. File systems take 255, some encrypted ones 143; the name of an unfinished download is longer."""
_LONGEST_ID: Final = 80
_JOINER: Final = "\u200d"


def file_name(title: str | None, lipsync_id: str, url: str, *, longest: int = LONGEST) -> str:
    """Return a name that every file system takes, from a title and an id, such as `Episode 1 (ls_1).mp4`.

    Letters of any script are kept; it has no separators, is no device of Windows, and starts with no dot.

    Args:
        title: The title.
        lipsync_id: The id.
        url: Where the file comes from; its extension is kept if it is one of a video.
        longest: Bytes that fit, 100 or more.
    """
    known = _cut(plain(lipsync_id), min(_LONGEST_ID, longest // 2)) or "lipsync"
    suffix = PurePath(unquote(urlsplit(url).path)).suffix.lower()
    suffix = suffix if suffix in _SUFFIXES else ".mp4"
    tail = f" ({known}){suffix}"
    head = _cut(plain(title or ""), longest - len(tail.encode()) - 1)
    return unreserved(head + tail if head else known + suffix)


def unreserved(name: str) -> str:
    """Return *name*, with an underscore before it if it is a device on Windows, such as `nul.mp4`."""
    return f"_{name}" if _RESERVED.match(name) else name


def plain(text: str) -> str:
    """Return *text* without characters that some file system refuses, and without dots and spaces at its ends."""
    # Not str.isprintable(): joiners (Persian, emoji), U+00A0 and U+3000 are text.
    composed = unicodedata.normalize("NFC", one_line(text))
    return _trim(_FORBIDDEN.sub("_", composed))


def _trim(text: str) -> str:
    while text != (shorter := text.strip().strip(".")):
        text = shorter
    return text


def _cut(text: str, most: int) -> str:
    """Return as much of *text* as fits into *most* bytes, without half of a character that is drawn as one."""
    kept = text.encode()[: max(most, 0)].decode(errors="ignore")
    while kept and len(kept) < len(text) and (kept[-1] == _JOINER or _is_joined(text[len(kept)])):
        kept = kept[:-1]
    return _trim(kept)


def _is_joined(char: str) -> bool:
    """Return whether *char* is drawn together with the one before it."""
    is_skin_tone = "\U0001f3fb" <= char <= "\U0001f3ff"
    return char == _JOINER or is_skin_tone or unicodedata.category(char) in {"Mn", "Mc", "Me"}
