"""The boxes of an MP4 file: whether one of them is incomplete or missing."""

from __future__ import annotations

import os
from typing import BinaryIO, Final, Protocol

_BOX_HEADER: Final = 8
_LARGE_BOX_HEADER: Final = 16
_KINDS: Final = frozenset(b"ftyp styp moov moof mfra mdat sidx meta uuid free skip wide emsg prft pdin".split())
"""The kinds of boxes at the top level of an MP4."""
_MOST_BOXES: Final = 100_000
"""Boxes that are looked at: a file of tiny ones would take minutes."""
_NO_MOOV: Final = "it has no moov box, without which no player opens it"


class Seekable(Protocol):
    """A file that can be read anywhere."""

    def seek(self, position: int, /) -> object: ...

    def read(self, size: int, /) -> bytes: ...


def cut_short(file: BinaryIO) -> str | None:
    """Return what is missing of an MP4 file, or `None` if nothing is, or if it is no MP4.

    Only what is certain counts: bytes after the last box, text for instance, or boxes of unknown kinds, do no harm to a
    player.
    """
    kinds, missing, _ = _boxes(file, file.seek(0, os.SEEK_END))
    return _NO_MOOV if missing is None and kinds and b"moov" not in kinds else missing


def without_end(file: Seekable, size: int) -> str | None:
    """Return what an MP4 file of *size* bytes has not at its end: all of its last box, or the index of a recording.

    It is `None` for a file of which that is not certain. A recorder that is interrupted writes no index.
    """
    kinds, missing, place = _boxes(file, size)
    is_interrupted = place == size and b"mdat" in kinds and b"moov" not in kinds
    return _NO_MOOV if missing is None and is_interrupted else missing


def _boxes(file: Seekable, size: int) -> tuple[set[bytes], str | None, int]:
    """Return the kinds of boxes in a file, none if it is no MP4, what the last one lacks, and where that ends."""
    place, kinds = 0, set[bytes]()
    for _ in range(_MOST_BOXES):
        if place + _BOX_HEADER > size:
            break
        length, kind = _box(file, place, size)
        if (not kinds and kind != b"ftyp") or (not kind.isalnum() and not kind.strip(b" ").isalnum()):
            break
        kinds.add(kind)
        if length < _BOX_HEADER or (kind not in _KINDS and place + length > size):
            break
        place += length
        if place > size:
            return kinds, f"its {kind.decode('ascii')} box ends {place - size:,} bytes after the file", place
    return kinds, None, place


def _box(file: Seekable, place: int, size: int) -> tuple[int, bytes]:
    header = _header(file, place)
    length, kind = int.from_bytes(header[:4], "big"), header[4:8]
    if length == 0:  # to the end of the file
        length = size - place
    elif length == 1:  # too long for four bytes
        length = int.from_bytes(header[8:16], "big")
    return length, kind


def _header(file: Seekable, place: int) -> bytes:
    """Return the start of a box. The reads of a caller's file may return less than there is."""
    file.seek(place)
    header = b""
    while len(header) < _LARGE_BOX_HEADER and (more := file.read(_LARGE_BOX_HEADER - len(header))):
        header += more
    return header
