"""What the answers of a file host mean, to a PUT and to a download that may be resumed. Pure.

A file host speaks no JSON, and its error pages quote the presigned link: only their error code is shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from attrs import evolve, frozen

from heygen_async._media.first_bytes import BLANKS, OutputKind
from heygen_async._wire import is_unsettled, retry_after
from heygen_async.errors import APIError, HeyGenError, UnexpectedResponse, error_class

_EXPIRED: Final = frozenset({401, 403, 404, 410})
"""The statuses with which a file host says that a link has expired, or does not exist (yet)."""
_EXPIRED_CODE: Final = "ExpiredToken"
"""The code of a 400 that means it: at Google's storage, and at Amazon's if the signer's credentials have expired."""
_OF_THE_API: Final = frozenset({401, 402, 403, 404})
"""The statuses whose classes are about the API: its key, its credit, its ids. A file host has none of them."""
_TRANSIENT_CODES: Final = frozenset({"RequestTimeout", "OperationAborted"})
"""The codes of a 400 and a 409 that may pass: the connection was idle, another request was under way."""

_CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_NO_RANGE: Final = re.compile(r"bytes \*/(\d{1,18})", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)
_COMPRESSION: Final = re.compile(r"(?:x-)?(?:gzip|compress)|deflate|br|zstd|dc[bz]")
_TEXT_CODINGS: Final = frozenset({"utf-8", "utf8", "binary"})
"""What captions may have as their `Content-Encoding` and still be text."""
_HTML: Final = re.compile(r"text/html|application/xhtml\+xml")
_DOCUMENT: Final = re.compile(r"text/html|(?:application|text)/(?:xml|json)|[^/]+/.+\+(?:xml|json)")
"""Media types of pages, and of the reports of errors; a video and SubRip have others."""
PLAIN_TEXT: Final = "text/plain"
"""What web servers call a file whose name they do not know."""
_NO_VIDEO: Final = re.compile(
    r"text/(?!plain$).+|image/.+|audio/.+|application/(?:x-mpegurl|vnd\.apple\.mpegurl|pdf|zip|(?:x-)?javascript)"
)
_NO_TEXT: Final = re.compile(r"(?:image|video|audio)/.+")
"""Other media types that no video has, and no captions."""
_HTML_STARTS: Final = (b"<!doctype html", b"<html", b"<head", b"<body")
_ASIDES: Final = re.compile(rb"<!--.*?-->|<\?.*?\?>", re.DOTALL)
_ETAG: Final = re.compile(r'"[!#-~]+"')


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> HeyGenError | None:
    """Return the error for an answer with that *status*; `None` for a success.

    Args:
        status: The HTTP status.
        headers: The headers; look-up ignores case.
        body: The start of the body.
        now: Unix time in seconds, for a `Retry-After` that is a date.
    """
    if 200 <= status < 300:  # noqa: PLR2004 the successes
        return None
    if 400 <= status < 600:  # noqa: PLR2004 the errors
        code = _CODE.search(body)
        wait = retry_after(headers, now=now)
        word = code[1].decode() if code else None
        kind = APIError if status in _OF_THE_API else error_class(status)
        error = kind("the file host refused the request", status=status, code=word, retry_after=wait)
        error.is_transient = error.is_transient or word in _TRANSIENT_CODES
        error.outcome = "unknown" if is_unsettled(error) else "rejected"
        return error
    answer = "a redirect, which is not followed" if status // 100 == 3 else "an unexpected status"  # noqa: PLR2004 3xx
    return UnexpectedResponse([f"the file host sent {answer}"], status=status)


def has_expired(error: HeyGenError) -> bool:
    """Return whether a file host has refused a link because it has expired, or does not exist (yet)."""
    return isinstance(error, APIError) and (error.status in _EXPIRED or error.code == _EXPIRED_CODE)


def not_stored(status: int, headers: Mapping[str, str], body: bytes) -> UnexpectedResponse | None:
    """Return the error for a success of a PUT that is a page, of a gateway for instance; `None` for the host's own.

    Some answer in JSON or XML. It is not raised here, where a traceback would show the body.
    """
    kind = media_type(headers)
    if not _HTML.fullmatch(kind):
        if not _ASIDES.sub(b"", body).lstrip(BLANKS).lower().startswith(_HTML_STARTS):
            return None
        kind = "HTML"
    return UnexpectedResponse([f"the file host sent a page ({kind})"], status=status, outcome="unknown")


# Downloads


@frozen
class PartState:
    """How much of a file there is.

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
        """Whether nothing is missing. Never true where the total is not known."""
        return self.done == self.total

    @property
    def resumes_at(self) -> int:
        """Where to resume. Of a complete file the last byte is requested again, to learn whether it has changed."""
        if self.etag is None:
            return 0
        return self.done - 1 if self.is_complete and self.done else self.done

    def plus(self, size: int) -> PartState:
        """Return the state after *size* more bytes."""
        return evolve(self, done=self.done + size)


def range_headers(state: PartState) -> dict[str, str]:
    """Return the headers that request what is missing if the file is the same; else all of it."""
    if state.etag is None or not state.resumes_at:
        return {}
    return {"Range": f"bytes={state.resumes_at}-", "If-Range": state.etag}


def resumed(state: PartState, status: int, headers: Mapping[str, str], kind: OutputKind = "video") -> PartState | None:
    """Return where the body of an answer starts, and in what; `None` if all of the file must be requested.

    The state is complete if there is nothing more to read.

    Args:
        state: What there is, and was requested with.
        status: 200, 206 or 416.
        headers: The headers; look-up ignores case.
        kind: What the file is.

    Raises:
        UnexpectedResponse: If the body is compressed, or declared as what it cannot be, and its first bytes do not
            say what it is.
    """
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _completed(state, headers)
    _check_coding(status, headers, kind)
    if not _is_judged_by_bytes(state, status, headers, kind) and (error := declared_otherwise(status, headers, kind)):
        raise error
    if status == HTTPStatus.OK:
        return PartState(0, strong_etag(headers), _length(headers))
    match = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None or int(match[1]) != state.resumes_at:
        return None
    total = None if match[3] == "*" else int(match[3])
    if not state.resumes_at:  # some hosts answer 206 to every request; it may be less than the file
        return None if total is None else PartState(0, strong_etag(headers), total)
    if _is_another(state, headers) or (state.total and total and state.total != total):
        return None
    return PartState(int(match[1]), state.etag, total or state.total)


def _completed(state: PartState, headers: Mapping[str, str]) -> PartState | None:
    """Return the state of a file of which a 416 says that it is complete; `None` if it does not say that.

    So ends the download of a file whose length was not announced, and whose answer did not come to its end.
    """
    match = _NO_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None or int(match[1]) != state.done or state.total is not None or _is_another(state, headers):
        return None
    return evolve(state, total=state.done)


def _is_another(state: PartState, headers: Mapping[str, str]) -> bool:
    """Return whether an answer is certainly of another version of the file than there is."""
    # A weak ETag does not prove that the file is the same, but another one proves that it is not.
    return headers.get("ETag", state.etag or "").removeprefix("W/") != state.etag


def _is_judged_by_bytes(state: PartState, status: int, headers: Mapping[str, str], kind: OutputKind) -> bool:
    """Return whether the first bytes, of the answer or of what there is already, say whether this is a video."""
    has_first_bytes = status == HTTPStatus.OK or not state.resumes_at
    return kind == "video" and (has_first_bytes or headers.get("ETag") == state.etag)


def _check_coding(status: int, headers: Mapping[str, str], kind: OutputKind) -> None:
    codings = _codings(headers)
    if any(map(_COMPRESSION.fullmatch, codings)) or (kind == "captions" and not codings <= _TEXT_CODINGS):
        raise UnexpectedResponse(["the file host sent a compressed file, which was not requested"], status=status)


def declared_otherwise(status: int, headers: Mapping[str, str], kind: OutputKind) -> UnexpectedResponse | None:
    """Return the error for a declared type that no file of this *kind* has; `None` for any other."""
    given = media_type(headers)
    if _DOCUMENT.fullmatch(given):
        return UnexpectedResponse([f"the file host sent a page ({given})"], status=status, outcome="unknown")
    is_other = (_NO_VIDEO if kind == "video" else _NO_TEXT).fullmatch(given)
    return no_output(status, given, kind) if is_other else None


def _codings(headers: Mapping[str, str]) -> set[str]:
    """Return how a file may be encoded. Some store what changes nothing there, such as `utf-8` or `binary`."""
    listed = headers.get("Content-Encoding", "").lower().split(",")
    return {coding.strip() for coding in listed} - {"", "identity"}


def media_type(headers: Mapping[str, str]) -> str:
    """Return the declared type of a file, without its parameters."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def is_unnamed(headers: Mapping[str, str]) -> bool:
    """Return whether the declared type says nothing: the host does not know it, or the file may be encoded."""
    return bool(_codings(headers)) or media_type(headers) == PLAIN_TEXT


def no_output(status: int, given: str, kind: OutputKind) -> UnexpectedResponse:
    """Return the error for what is no page, so no answer of a gateway that the next attempt may not meet."""
    expected = "video" if kind == "video" else "text"
    return UnexpectedResponse(
        [f"the file host sent {given}, which is no {expected}"], status=status, is_transient=False
    )


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """Return the ETag if equal ones mean equal bytes."""
    etag = headers.get("ETag", "")
    return etag if is_strong(etag) else None


def is_strong(etag: str) -> bool:
    """Return whether *etag* is one of which equal ones mean equal bytes."""
    return _ETAG.fullmatch(etag) is not None


def _length(headers: Mapping[str, str]) -> int | None:
    length = headers.get("Content-Length", "")
    return int(length) if _LENGTH.fullmatch(length) else None
