"""Which bytes of a file a `Range` header means, and which of them are sent. Pure."""

from __future__ import annotations

import re
from typing import Final

PART: Final = 1 << 20
"""How many bytes are sent of a range without an end."""
_SINGLE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class RangeNotSatisfiable(ValueError):
    """Raised for a range that is outside of the file."""


def sent_bytes(header: str | None, size: int) -> range | None:
    """Return the bytes to send for a `Range` header; `None` for the whole file.

    Several ranges, other units and headers that cannot be read mean the whole file, as RFC 9110 allows. A range without
    an end is how browsers request a video from a moment on, most of which they never take: they get its first part, as
    RFC 9110 allows too, and request the next one when they need it.

    Args:
        header: The header; `None` if there is none.
        size: The length of the file in bytes.

    Raises:
        RangeNotSatisfiable: If the range is outside of the file.
    """
    found = _SINGLE.fullmatch(header.strip()) if header is not None else None
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":  # the last bytes
        start, stop = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        stop = min(size, start + PART if found[2] == "" else int(found[2]) + 1)
        if found[2] != "" and int(found[2]) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiable(f"the file has {size} bytes")
    return range(start, stop)
