"""The boxes of an MP4 file: whether one of them is incomplete or missing."""

from __future__ import annotations

import os
from typing import BinaryIO, Final

_BOX_HEADER: Final = 8
_LARGE_BOX_HEADER: Final = 16
_KINDS: Final = frozenset(b"ftyp styp moov moof mfra mdat sidx meta uuid free skip wide emsg prft pdin".split())
"""The kinds of boxes at the top level of an MP4."""


def cut_short(file: BinaryIO) -> str | None:
    """Return what is missing of an MP4 file, or `None` if nothing is, or if it is no MP4.

    Only what is certain counts: bytes after the last box, text for instance, or boxes of unknown kinds, do no harm to a
    player.
    """
    size = file.seek(0, os.SEEK_END)
    place, kinds = 0, set[bytes]()
    while place + _BOX_HEADER <= size:
        length, kind = _box(file, place, size)
        if not kinds and kind != b"ftyp":
            return None
        if not kind.isalnum() and not kind.strip(b" ").isalnum():
            break
        kinds.add(kind)
        if length < _BOX_HEADER or (kind not in _KINDS and place + length > size):
            break
        if place + length > size:
            return f"its {kind.decode('ascii')} box ends {place + length - size:,} bytes after the file"
        place += length
    return "it has no moov box" if kinds and b"moov" not in kinds else None


def _box(file: BinaryIO, place: int, size: int) -> tuple[int, bytes]:
    file.seek(place)
    header = file.read(_LARGE_BOX_HEADER)
    length, kind = int.from_bytes(header[:4], "big"), header[4:8]
    if length == 0:  # to the end of the file
        length = size - place
    elif length == 1:  # too long for four bytes
        length = int.from_bytes(header[8:16], "big")
    return length, kind
