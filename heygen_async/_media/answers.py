"""What a file host's answer to a (resumed) download means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from attrs import evolve, frozen

from heygen_async.errors import DownloadError

EXPIRED: Final = frozenset({401, 403, 404, 410})
"""With these a file host says that a link has expired, or was not one of its own."""

_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)
_PAGES: Final = ("text/html", "application/xhtml+xml", "application/json")
_PAGE_STARTS: Final = (b"<!doctype html", b"<html")


@frozen
class Held:
    """What one has of a file.

    Attributes:
        done: Bytes, from its start.
        etag: Which version of the file; `None` where the host does not say it for certain.
        total: Bytes in all, if known.
    """

    done: int = 0
    etag: str | None = None
    total: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing. Where the total is not known, nobody can tell."""
        return self.done == self.total

    @property
    def resumes_at(self) -> int:
        """Where to go on; the last byte of what seems whole is asked for again, to hear that it still is."""
        if self.etag is None:
            return 0
        return self.done - 1 if self.is_complete and self.done else self.done

    def plus(self, size: int) -> Held:
        """Return what one has after *size* more bytes."""
        return evolve(self, done=self.done + size)


def range_headers(held: Held) -> dict[str, str]:
    """Return the headers that ask for what is missing, if it still is the same file; else for all of it."""
    if held.etag is None or not held.resumes_at:
        return {}
    return {"Range": f"bytes={held.resumes_at}-", "If-Range": held.etag}


def continued(held: Held, status: int, headers: Mapping[str, str]) -> Held | None:
    """Return where the body of an answer starts, and of what; `None` if it is best to ask for all of the file.

    Args:
        held: What one has, and has asked with.
        status: 200, 206 or 416.
        headers: The headers; look-up ignores case.

    Raises:
        DownloadError: If the body is not media, or was packed on the way.
    """
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return None
    _check_media(headers)
    if status == HTTPStatus.OK:
        return Held(0, strong_etag(headers), _length(headers))
    match = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None or int(match[1]) != held.resumes_at or held.etag is None:
        return None
    total = None if match[3] == "*" else int(match[3])
    if strong_etag(headers) not in {None, held.etag} or (held.total and total and held.total != total):
        return None
    return Held(int(match[1]), held.etag, total or held.total)


def _check_media(headers: Mapping[str, str]) -> None:
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _PAGES:
        raise DownloadError(f"the file host sent a page ({kind}) where media was asked for")
    if headers.get("Content-Encoding", "identity").lower() not in {"identity", ""}:
        raise DownloadError("the file host packed the file on its way, though it was asked not to")


def check_start(data: bytes) -> None:
    """See that the first bytes of a file are not those of a page, whatever its type was said to be."""
    if data[:64].lstrip().lower().startswith(_PAGE_STARTS):
        raise DownloadError("the file host sent a page (HTML) where media was asked for")


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """Return the ETag if equal ones mean equal bytes."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') and etag.isprintable() and len(etag) > len('""') else None


def _length(headers: Mapping[str, str]) -> int | None:
    length = headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None
