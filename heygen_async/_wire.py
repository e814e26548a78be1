"""The protocol of HeyGen's v3 API as pure functions: values in, values or errors out; no I/O, no clock.

Rule 1: whatever is known of paths, headers, envelopes and keys is known here, or in `_converter` if it is about
the shape of `data`.
Rule 2: nothing here awaits, logs or reads the time; who calls says what time it is.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import quote, urlencode, urlsplit

import orjson
from attrs import frozen

from heygen_async._arguments import is_https
from heygen_async._ids import new_key, segment
from heygen_async._text import whole_characters
from heygen_async.errors import (
    IN_PROGRESS,
    APIError,
    Conflict,
    HeyGenError,
    InvalidRequest,
    NotFound,
    Outcome,
    UnexpectedResponse,
    error_class,
)
from heygen_async.models import JSON

Lane: TypeAlias = Literal["creates", "session"]
Answer: TypeAlias = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body of an answer, as they came."""
Parameter: TypeAlias = str | int | float | bool | None

_TAG: Final = re.compile(r"<[^>]*>")
_EXCERPT: Final = 160


@frozen
class Stream:
    """A body that is read piece by piece, from its start again for each attempt."""

    content_type: str
    length: int
    """In bytes; what is read must add up to it."""
    chunks: Callable[[], AsyncIterator[bytes]]
    is_repeatable: bool = True


@frozen
class Request:
    """One call, complete before its first attempt: a repeated create sends the very same bytes."""

    method: str
    path: str
    """Percent-encoded, from `/v3` on."""
    template: str
    """The path as the documentation writes it: what a log may show."""
    query: str = ""
    """Percent-encoded, without `?`."""
    body: bytes | Stream | None = None
    idempotency_key: str | None = None
    lane: Lane = "session"
    """Which requests a 429 on this one holds back: single creates have a limit of their own."""

    @property
    def is_repeatable(self) -> bool:
        """Whether sending it twice is safe, and can be done at all."""
        if isinstance(self.body, Stream) and not self.body.is_repeatable:
            return False
        return self.method != "POST" or self.idempotency_key is not None


@frozen
class Response:
    """An answer of the API.

    Attributes:
        status: The HTTP status, 200 to 299.
        headers: The headers; look-up ignores case.
        data: The parsed JSON body, envelope included; `None` if there was none.
        idempotency_key: The key that a POST went under.
        attempts: How many times it was sent.
    """

    status: int
    headers: Mapping[str, str]
    data: JSON
    idempotency_key: str | None = None
    attempts: int = 1

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer."""
        return self.headers.get("X-Request-Id")


def compose(
    method: str,
    template: str,
    *,
    segments: Mapping[str, str] | None = None,
    params: Mapping[str, Parameter] | None = None,
    json: JSON = None,
    stream: Stream | None = None,
    idempotency_key: str | None = None,
) -> Request:
    """Compose a request from a path *template* such as `/v3/lipsyncs/{lipsync_id}` and what fills it.

    A POST gets an idempotency key if it has none; parameters that are `None` are left out.
    """
    path = template
    for name, value in (segments or {}).items():
        path = path.replace(f"{{{name}}}", segment(name, value))
    if method == "POST":
        idempotency_key = idempotency_key or new_key()
    return Request(
        method=method,
        path=path,
        template=template,
        query=query_string(params) if params else "",
        body=stream if json is None else orjson.dumps(json),
        idempotency_key=idempotency_key,
        lane="creates" if method == "POST" and path == "/v3/lipsyncs" else "session",
    )


_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_PATH: Final = re.compile(r"/v3(?:/[A-Za-z0-9\-._~:@!$&'()*+;=%]+)+")


def compose_raw(
    method: str,
    path: str,
    *,
    params: Mapping[str, Parameter] | None = None,
    json: JSON = None,
    idempotency_key: str | None = None,
) -> Request:
    """Compose a request of any call under `/v3/` from a percent-encoded *path*.

    Raises:
        ValueError: If it is no such path, or the method is none of the API's.
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(sorted(_METHODS))}, not {method!r}")
    if not _PATH.fullmatch(path) or any(part.strip(".") == "" for part in path[1:].split("/")):
        raise ValueError(f"path must be percent-encoded, start with /v3/ and have no query: {path[:80]!r}")
    return compose(method, path, params=params, json=json, idempotency_key=idempotency_key)


def query_string(params: Mapping[str, Parameter]) -> str:
    """Return *params* as a percent-encoded query, with booleans in JSON's spelling."""
    pairs = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in params.items()
        if value is not None
    }
    return urlencode(pairs, safe=",", quote_via=quote)


def multipart(name: str, content_type: str, file: Stream) -> Stream:
    """Return *file* as the one field, `file`, of a multipart form whose length is known from the start."""
    boundary = uuid.uuid4().hex
    escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{escaped}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    async def chunks() -> AsyncIterator[bytes]:
        yield head
        async for chunk in file.chunks():
            yield chunk
        yield tail

    return Stream(
        content_type=f"multipart/form-data; boundary={boundary}",
        length=len(head) + file.length + len(tail),
        chunks=chunks,
        is_repeatable=file.is_repeatable,
    )


# Addresses


def check_base_url(url: object) -> str:
    """Return the base *url* without a trailing slash.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is not an https URL (http is taken for loopback), or has more than host, port and path.
    """
    if not isinstance(url, str):
        raise TypeError(f"base_url must be a string, not {type(url).__name__}")
    url = url.strip().rstrip("/")
    if not is_https(url, or_loopback=True):
        raise ValueError(f"base_url must be an https URL, or http on loopback: {url!r}")
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("base_url must have no query, no fragment and no user name")
    return url


# Answers


def decipher(status: int, headers: Mapping[str, str], body: bytes, *, now: float, secret: str = "") -> JSON:
    """Return the parsed body of an answer, or raise what it means.

    Args:
        status: The HTTP status.
        headers: The headers; look-up ignores case.
        body: The whole body.
        now: Unix time in seconds, for a `Retry-After` that is a date.
        secret: What must not appear in an error even if the server echoes it: the key.

    Raises:
        APIError: For 4xx and 5xx.
        UnexpectedResponse: For anything that is not the API's: another status, or a body that is not JSON.
    """
    if 200 <= status < 300:  # noqa: PLR2004 the successes
        if not body:
            return None
        try:
            return parse_json(body)
        except ValueError:
            problem = f"the body is not JSON: {excerpt(_conceal(secret, body))}"
            raise _unexpected(problem, status, headers) from None
    if 400 <= status < 600:  # noqa: PLR2004 the errors
        raise _api_error(status, headers, _conceal(secret, body), now=now)
    redirected = status // 100 == 3  # noqa: PLR2004 3xx
    raise _unexpected("a redirect, which is not followed" if redirected else "no such status", status, headers)


def parse_json(body: bytes) -> JSON:
    """Return the value of a JSON *body*; half of a surrogate pair in a text becomes U+FFFD.

    Raises:
        ValueError: If it is not JSON in UTF-8.
    """
    try:
        parsed: JSON = orjson.loads(body)
    except orjson.JSONDecodeError:
        if rb"\u" not in body:
            raise
    else:
        return parsed
    # orjson refuses an escaped half of a pair, which the standard library reads.
    try:
        return _with_whole_characters(json.loads(body.decode(), parse_constant=_no_constant))
    except RecursionError:
        raise ValueError("too deeply nested") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _with_whole_characters(value: Any) -> JSON:  # noqa: ANN401 what json.loads returns
    match value:
        case str():
            return whole_characters(value)
        case list():
            return [_with_whole_characters(item) for item in value]
        case dict():
            return {whole_characters(name): _with_whole_characters(item) for name, item in value.items()}
        case _:
            return cast("JSON", value)


def _conceal(secret: str, body: bytes) -> bytes:
    return body.replace(secret.encode(), b"****") if secret else body


def _unexpected(problem: str, status: int, headers: Mapping[str, str]) -> UnexpectedResponse:
    return UnexpectedResponse([problem], status=status, request_id=headers.get("X-Request-Id"), outcome="unknown")


def _api_error(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> APIError:
    told = _error_object(body)
    error = error_class(status)(
        _text(told, "message") or excerpt(body if not told else b""),
        status=status,
        code=_text(told, "code"),
        param=_text(told, "param"),
        doc_url=_text(told, "doc_url"),
        request_id=headers.get("X-Request-Id"),
        retry_after=retry_after(headers.get("Retry-After"), now=now),
    )
    error.outcome = "unknown" if is_unsettled(error) else "rejected"
    return error


def is_in_progress(error: HeyGenError) -> bool:
    """Tell whether the first request under this idempotency key is still being worked on."""
    return isinstance(error, Conflict) and error.code == IN_PROGRESS


def is_unsettled(error: APIError) -> bool:
    """Tell whether the request may have been carried out in spite of this answer."""
    return error.status >= 500 or error.status == 408 or is_in_progress(error)  # noqa: PLR2004 5xx, Request Timeout


def is_final_answer(error: HeyGenError) -> bool:
    """Return whether *error* shows that no request under its idempotency key has created anything.

    The API looks the key up before it looks at the body, so a refused body means that the key was unknown to it, or
    that the refusal is what it keeps for the key. 401, 402, 403, 404 of the route and 429 may come before the look-up,
    and an answer without one of the API's codes may be a gateway's.
    """
    if isinstance(error, InvalidRequest):
        return error.code is not None
    return isinstance(error, NotFound) and error.code == "asset_not_found"


_SEVERITY: Final[Mapping[Outcome | None, int]] = {None: 0, "not_sent": 1, "rejected": 2, "unknown": 3}


def worse(one: Outcome | None, other: Outcome | None) -> Outcome | None:
    """Return what is known after two attempts: once one is unknown, no later refusal makes it known."""
    return max(one, other, key=_SEVERITY.__getitem__)


def _error_object(body: bytes) -> Mapping[str, object]:
    try:
        parsed = parse_json(body)
    except ValueError:
        return {}
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return error if isinstance(error, dict) else {}


def _text(told: Mapping[str, object], name: str) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) and value else None


def excerpt(body: bytes) -> str:
    """Return the first words of a *body* that could not be read, as one printable line."""
    import html  # noqa: PLC0415 its table of names is dear, and few answers are web pages

    text = html.unescape(_TAG.sub(" ", body[: 8 * _EXCERPT].decode("utf-8", "replace")))
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _EXCERPT else f"{line[:_EXCERPT]}…"


def retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait, 0 at least; `None` if it cannot be read."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError, IndexError, TypeError):
        return _decimal(value)


def _decimal(value: str) -> float | None:
    # Not in the standard, but some gateways send "1.5".
    return float(value) if re.fullmatch(r"\d{1,9}\.\d{1,9}", value) else None
