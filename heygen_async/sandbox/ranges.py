"""Which bytes of a file a request wants (RFC 9110, section 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from heygen_async.sandbox.state.signed_links import Denied

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


@frozen
class Part:
    """Some bytes of a file, or all."""

    start: int
    length: int
    total: int
    is_whole: bool

    @property
    def status(self) -> int:
        """The status of the answer."""
        return 200 if self.is_whole else 206

    def headers(self) -> dict[str, str]:
        """Return what the answer says of its length and place."""
        headers = {"Content-Length": str(self.length), "Accept-Ranges": "bytes"}
        if not self.is_whole:
            headers["Content-Range"] = f"bytes {self.start}-{self.start + self.length - 1}/{self.total}"
        return headers


def part(headers: Mapping[str, str], *, etag: str, total: int) -> Part:
    """Return what is asked for; all of it where `Range` is absent, odd, or for another version of the file."""
    whole = Part(0, total, total, is_whole=True)
    found = _RANGE.fullmatch(headers.get("Range", ""))
    if found is None or found.groups() == ("", "") or headers.get("If-Range", etag) != etag:
        return whole
    first, last = found.groups()
    start = int(first) if first else max(0, total - int(last))
    end = min(int(last) + 1, total) if first and last else total
    if start >= total or (first and last and int(last) < start):
        raise Denied(416, "InvalidRange", "The requested range is not satisfiable")
    return Part(start, end - start, total, is_whole=False)
