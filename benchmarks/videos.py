"""Video files of any size that look like MP4. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator

_START = bytes.fromhex("000000186674797069736f6d0000020069736f6d6d703432")
_END = (8).to_bytes(4, "big") + b"moov"
_BLOCK = os.urandom(1 << 20)
SMALLEST = len(_START) + 8 + len(_END)


def video_blocks(size: int) -> Iterator[bytes]:
    """Return the file of so many bytes, `SMALLEST` or more, in blocks of 1 MiB at most."""
    left = size - SMALLEST
    yield _START + (left + 8).to_bytes(4, "big") + b"mdat"
    while left:
        block = _BLOCK[:left]
        left -= len(block)
        yield block
    yield _END
