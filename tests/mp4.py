"""Videos of any size, for tests that need no picture."""

import hashlib


def mp4(size: int, seed: bytes = b"x") -> bytes:
    """Make an MP4 of that many bytes, as far as its boxes say."""
    start = bytes.fromhex("000000186674797069736f6d0000020069736f6d6d703432")
    filling = (hashlib.sha256(seed).digest() * (size // 32 + 1))[: size - len(start) - 16]
    return start + (8 + len(filling)).to_bytes(4, "big") + b"mdat" + filling + (8).to_bytes(4, "big") + b"moov"
