"""What the first bytes of a download say: that it may be the file, or is certainly a page or another file. Pure.

What is not certain may be the file: a video of a format that is not known here is written all the same.
"""

from __future__ import annotations

import codecs
import enum
import re
from typing import Final, Literal, TypeAlias

from heygen_async._media.sniffing import HEIF, M4A, SNIFFED, recognize

OutputKind: TypeAlias = Literal["video", "captions"]

BLANKS: Final = b" \t\n\v\f\r" + codecs.BOM_UTF8
MOST_BLANKS: Final = 1 << 16
"""Bytes at the start of a file that may be blank."""

_CAPTION_PAGES: Final = (b"<!doctype", b"<!--", b"<?xml", b"<html", b"<head", b"<body", b"<title", b"<error")
"""How a page begins. Captions may begin with other tags."""
_WIDE_TAG: Final = rb"<\0[a-z!?/]\0|\0<\0[a-z!?/]"
"""A tag in UTF-16 without a byte order mark."""
_PAGES: Final = {
    "video": re.compile(rb'<[a-z!?/]|"|\{\s*["}]|\[\s*[{\["\]]|' + _WIDE_TAG, re.IGNORECASE),
    "captions": re.compile(
        rb'\{\s*["}]|\[\s*[{\]]|' + b"|".join(map(re.escape, _CAPTION_PAGES)) + b"|" + _WIDE_TAG, re.IGNORECASE
    ),
}
"""How HTML, XML and JSON begin; captions may also begin with a quotation or a remark in brackets."""
_CUT: Final = re.compile(rb"[<{\[]?|<\0.?|\0<\0?|\0\0\xfe", re.DOTALL)
"""What may become one of these."""
_BOX: Final = re.compile(
    rb".{4}(?:ftyp|styp|moov|moof|mdat|sidx|pnot)|\0.{3}(?:uuid|free|skip|wide)|\x1a\x45\xdf\xa3", re.DOTALL
)
"""How an MP4 begins: the length of its first box, which may have any bytes, and what that box is. Or a WebM."""
_BOX_BYTES: Final = 12
"""Those, and the first brand."""
_OTHER_FILES: Final = (b"#EXTM3U", b"%PDF", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08")
"""How files begin that are certainly no video: a list of parts, a document, an archive, an image."""
_NO_CAPTIONS: Final = (*_OTHER_FILES, b"\x1a\x45\xdf\xa3")
"""How files begin that are certainly no captions, though they may have no NUL at once: a WebM too."""
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ENCODINGS: Final = (
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *((mark, "utf-16") for mark in _UTF_16),
)


class Verdict(enum.Enum):
    """What is known of a file by its first bytes."""

    MAY_BE = "may be"
    OPEN = "open"
    """More must be read to know."""
    PAGE = "page"
    OTHER = "other"
    """It is a file of another kind."""


def verdict_on(start: bytes, kind: OutputKind, *, is_doubtful: bool = False, is_all: bool = False) -> Verdict:
    """Return what the first bytes of a file say.

    Args:
        start: The bytes; more than blanks if they are all.
        kind: What the file should be.
        is_doubtful: Whether only what certainly begins as a video may be one, because of how it is declared.
        is_all: Whether the file ends there.
    """
    is_certain = is_page(start, kind)
    if is_certain or (is_certain is None and (is_all or len(start) > MOST_BLANKS)):
        return Verdict.PAGE
    if is_certain is None:
        return Verdict.OPEN
    if kind == "video":
        return _verdict_on_video(start, is_doubtful=is_doubtful, is_all=is_all)
    return Verdict.OTHER if _is_binary(start) else _verdict_by_signature(start, _NO_CAPTIONS, is_all=is_all)


def _verdict_on_video(start: bytes, *, is_doubtful: bool, is_all: bool) -> Verdict:
    if not is_doubtful:
        return _verdict_by_signature(start, _OTHER_FILES, is_all=is_all)
    if len(start) < _BOX_BYTES and not is_all:
        return Verdict.OPEN
    is_video = _BOX.match(start) and recognize(start[:SNIFFED]) not in {M4A, HEIF}
    return Verdict.MAY_BE if is_video else Verdict.OTHER


def _verdict_by_signature(start: bytes, signatures: tuple[bytes, ...], *, is_all: bool) -> Verdict:
    if start.startswith(signatures):
        return Verdict.OTHER
    is_open = not is_all and any(signature.startswith(start) for signature in signatures)
    return Verdict.OPEN if is_open else Verdict.MAY_BE


def _is_binary(start: bytes) -> bool:
    """Return whether *start* is no text: there is a NUL in it, and no mark of UTF-16 or UTF-32 before it."""
    return b"\0" in start and not start.startswith(tuple(mark for mark, _ in _ENCODINGS))


def is_page(start: bytes, kind: OutputKind = "video") -> bool | None:
    """Return whether a file that begins with *start* is a page, whatever its declared type; `None` if that is open."""
    if _BOX.match(start):
        return False
    if start in {mark[:1] for mark in _UTF_16}:
        return None
    code = next((code for mark, code in _ENCODINGS if start.startswith(mark)), None)
    text = (start.decode(code, "ignore").encode() if code else start).lstrip(BLANKS)
    if _PAGES[kind].match(text):
        return True
    rest = text.strip().lower()
    is_open = _CUT.fullmatch(rest) or (kind == "captions" and any(page.startswith(rest) for page in _CAPTION_PAGES))
    return None if is_open else False
