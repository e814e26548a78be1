"""Whether an MP4 file is all there, told from the lengths of its top-level boxes."""

from __future__ import annotations

import os
from typing import BinaryIO, Final

_HEADER: Final = 8
_LARGE_HEADER: Final = 16


def cut_short(file: BinaryIO) -> str | None:
    """Return what is missing of an MP4 file, or `None` if nothing is, or if it is no MP4.

    Only what is certain counts: bytes after the last box, or boxes of unknown kinds, do no harm to a player.
    """
    size = file.seek(0, os.SEEK_END)
    place, kinds = 0, set[bytes]()
    while place + _HEADER <= size:
        length, kind = _box(file, place, size)
        if not kinds and kind != b"ftyp":
            return None
        if not kind.isalnum() and not kind.strip(b" ").isalnum():
            break
        kinds.add(kind)
        if length < _HEADER:
            break
        if place + length > size:
            return f"its {kind.decode('ascii')} box ends {place + length - size:,} bytes after the file"
        place += length
    return "it has no moov box" if kinds and b"moov" not in kinds else None


def _box(file: BinaryIO, place: int, size: int) -> tuple[int, bytes]:
    file.seek(place)
    header = file.read(_LARGE_HEADER)
    length, kind = int.from_bytes(header[:4], "big"), header[4:8]
    if length == 0:  # to the end of the file
        length = size - place
    elif length == 1:  # too long for four bytes
        length = int.from_bytes(header[8:16], "big")
    return length, kind
