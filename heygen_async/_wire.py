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
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import quote, urlencode, urlsplit

import orjson
from attrs import field, frozen

from heygen_async._arguments import is_https
from heygen_async._ids import new_key, segment
from heygen_async._masking import Mask
from heygen_async._text import one_line, whole_characters, without_queries
from heygen_async.errors import (
    IN_PROGRESS,
    APIError,
    Conflict,
    Fault,
    HeyGenError,
    InvalidRequest,
    NotFound,
    Outcome,
    RateLimited,
    UnexpectedResponse,
    error_class,
)
from heygen_async.models import JSON

RateScope: TypeAlias = Literal["creates", "session"]
"""Which requests a 429 holds back: single creates have a limit of their own."""
Parameter: TypeAlias = str | int | float | bool | None

_TAG: Final = re.compile(r"<[^>]*>")
_EXCERPT: Final = 160
_WINDOW: Final = 4096
_LONGEST_TEXT: Final = 1000
_MOST_FAULTS: Final = 100


@frozen
class Answer:
    """An answer as it came. Its repr shows neither headers nor body: both may hold secrets."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Look-up ignores case."""
    body: bytes = field(repr=lambda body: f"<{len(body):,} bytes>")


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
    """The path as the documentation writes it."""
    query: str = field(default="", repr=False)
    """Percent-encoded, without `?`."""
    body: bytes | Stream | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    scope: RateScope = "session"
    """Which requests a 429 on this one holds back."""

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
    headers: Mapping[str, str] = field(repr=False)
    data: JSON = field(repr=False)
    idempotency_key: str | None = None
    attempts: int = 1

    @property
    def request_id(self) -> str | None:
        """The `X-Request-Id` of the answer; `None` if it has none."""
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
        scope="creates" if method == "POST" and path == "/v3/lipsyncs" else "session",
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


def decipher(answer: Answer, request: Request, *, now: float, mask: Mask) -> JSON:
    """Return the parsed body of the *answer* to *request*, or raise the error that it is.

    Args:
        answer: The whole answer.
        request: What was sent.
        now: Unix time in seconds, for a `Retry-After` that is a date.
        mask: Hides the API key, should the server echo it.

    Raises:
        APIError: For 4xx and 5xx, and for a success whose body is an error.
        UnexpectedResponse: For anything that is not the API's: another status, or a body that is not JSON.
    """
    # Raised here, where no local variable holds the body: a traceback may show them.
    found = _understood(answer, request, now=now, mask=mask)
    if isinstance(found, HeyGenError):
        raise found
    return found


def _understood(answer: Answer, request: Request, *, now: float, mask: Mask) -> JSON | HeyGenError:
    status = answer.status
    if 400 <= status < 600:  # noqa: PLR2004 the errors
        report = _report(_parsed_or_none(answer.body))
        return _api_error(status, report, answer, request, now=now, mask=mask)
    if not 200 <= status < 300:  # noqa: PLR2004 the successes
        redirected = status // 100 == 3  # noqa: PLR2004 3xx
        return _unexpected("a redirect, which is not followed" if redirected else "no such status", answer, mask)
    if not answer.body:
        return None
    try:
        parsed = parse_json(answer.body)
    except ValueError:
        return _unexpected(f"the body is not JSON: {excerpt(answer.body, mask)}", answer, mask)
    report = _report_in_success(parsed)
    if report:
        status = _meant_status(report) or status
        return _api_error(status, report, answer, request, now=now, mask=mask)
    return parsed


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


def _unexpected(problem: str, answer: Answer, mask: Mask) -> UnexpectedResponse:
    return UnexpectedResponse(
        [problem], status=answer.status, request_id=request_id(answer.headers, mask), outcome="unknown"
    )


def created_id(request: Request, data: JSON) -> tuple[str, str] | None:
    """Return kind and id of what *request* has created, a lipsync or a batch; `None` if it created neither."""
    name = _CREATES.get(request.path) if request.method == "POST" else None
    created = data.get("data") if isinstance(data, dict) else None
    if name is None or not isinstance(created, dict):
        return None
    id_ = created.get(name)
    return (name.removesuffix("_id"), id_) if isinstance(id_, str) else None


_CREATES: Final[Mapping[str, str]] = {"/v3/lipsyncs": "lipsync_id", "/v3/lipsyncs/batches": "batch_id"}


def request_id(headers: Mapping[str, str], mask: Mask) -> str | None:
    """Return the `X-Request-Id` as one line of text; `None` if there is none."""
    return one_line(mask(headers.get("X-Request-Id", "")[:_LONGEST_TEXT])) or None


# Errors of the API, in the shapes of all its services


def _api_error(
    status: int, report: Mapping[str, object], answer: Answer, request: Request, *, now: float, mask: Mask
) -> APIError:
    code, message = _text(report, "code", mask), _text(report, "message", mask)
    faults = _faults(report, mask)
    if message is None:
        message = "; ".join(fault.message for fault in faults[:3]) if report else excerpt(answer.body, mask)
    error = error_class(status)(
        message,
        status=status,
        code=code,
        param=_text(report, "param", mask),
        doc_url=_text(report, "doc_url", mask),
        errors=faults,
        request_id=request_id(answer.headers, mask),
        retry_after=retry_after(answer.headers.get("Retry-After"), now=now),
        hint=_scope_hint(request, code, message) if status == HTTPStatus.FORBIDDEN else None,
    )
    # An error inside a success: part of it may have been done.
    error.outcome = "unknown" if answer.status < HTTPStatus.BAD_REQUEST or is_unsettled(error) else "rejected"
    return error


def _parsed_or_none(body: bytes) -> JSON:
    try:
        return parse_json(body)
    except ValueError:
        return None


def _report(parsed: JSON) -> Mapping[str, object]:
    """Return the object with the fields of an error; it is empty if *parsed* has none."""
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str) and error:
        return {**parsed, "message": parsed.get("message") or error}
    return parsed if parsed.get("code") or parsed.get("message") else {}


def _report_in_success(parsed: JSON) -> Mapping[str, object]:
    """Return the error inside the body of a success; it is empty if there is none."""
    if not isinstance(parsed, dict) or parsed.get("data") is not None:
        return {}
    report = _report(parsed)
    return report if parsed.get("error") or _meant_status(report) else {}


_STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "unauthorized": 401,
    "authentication_failed": 401,
    "insufficient_credit": 402,
    "trial_limit_exceeded": 402,
    "plan_upgrade_required": 402,
    "forbidden": 403,
    "resource_access_denied": 403,
    "ai_vendor_access_restricted": 403,
    "not_found": 404,
    "resource_not_found": 404,
    "asset_not_found": 404,
    "webhook_not_found": 404,
    IN_PROGRESS: 409,
    "conflict": 409,
    "resource_not_ready": 409,
    "payload_too_large": 413,
    "rate_limit_exceeded": 429,
    "quota_exceeded": 429,
    "resource_limit_reached": 429,
    "invalid_parameter": 400,
    "download_failed": 400,
    "asset_not_available": 400,
    "content_policy_violation": 400,
    "internal_error": 500,
    "gateway_timeout": 504,
}


def _meant_status(report: Mapping[str, object]) -> int | None:
    """Return the HTTP status that an error inside a success stands for; `None` if its code is not known."""
    code = str(report.get("code"))
    if re.fullmatch(r"[45][0-9]{2}(?:[0-9]{3})?", code):  # 400140: a number of the older services
        return int(code[:3])
    return _STATUS_OF_CODE.get(code)


def _text(report: Mapping[str, object], name: str, mask: Mask) -> str | None:
    value = report.get(name)
    if name == "code" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return None
    is_cut = len(value) > _LONGEST_TEXT + _WINDOW
    shown = without_queries(mask(value[: _LONGEST_TEXT + _WINDOW], is_cut=is_cut))
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[:_LONGEST_TEXT]}…"


def _faults(report: Mapping[str, object], mask: Mask) -> tuple[Fault, ...]:
    listed = report.get("errors")
    items = listed[:_MOST_FAULTS] if isinstance(listed, list) else []
    return tuple(fault for item in items if (fault := _fault(item, mask)) is not None)


def _fault(item: object, mask: Mask) -> Fault | None:
    if isinstance(item, str):
        item = {"message": item}
    if not isinstance(item, dict):
        return None
    path = item.get("path")
    if isinstance(path, list):
        item = {**item, "path": ".".join(str(part) for part in path)}
    message, code = _text(item, "message", mask), _text(item, "code", mask)
    if message is None and code is None:
        return None
    return Fault(message or code or "", code=code, path=_text(item, "path", mask))


_SCOPE: Final = re.compile(r"\b[a-z][a-z_]*:(?:read|write|\*)")
# These codes say that a scope is not what is missing.
_NO_SCOPE: Final = frozenset({"resource_access_denied", "ai_vendor_access_restricted"})


def _scope_hint(request: Request, code: str | None, message: str) -> str | None:
    named = _SCOPE.search(message)
    if named is not None:
        return f"The API key lacks the scope {named[0]}. Add it to the key, or use another key."
    scope = _scope_of(request)
    if scope is None or code in _NO_SCOPE:
        return None
    return f"This call needs the scope {scope}: check that the API key has it."


def _scope_of(request: Request) -> str | None:
    if request.path.startswith("/v3/users/"):
        return "account:read"
    if request.method == "GET":
        return None
    return next((scope for path, scope in _WRITE_SCOPES.items() if request.path.startswith(path)), None)


_WRITE_SCOPES: Final[Mapping[str, str]] = {"/v3/lipsyncs": "lipsync:write", "/v3/assets": "assets:write"}


# What an error says of the request


def is_in_progress(error: HeyGenError) -> bool:
    """Return whether the first request under this idempotency key is still being processed."""
    return isinstance(error, Conflict) and error.code == IN_PROGRESS


def is_unsettled(error: APIError) -> bool:
    """Return whether the request may have been carried out in spite of this answer: 408, 409 in progress, 5xx."""
    return error.is_transient and not isinstance(error, RateLimited)


def is_final_answer(error: HeyGenError) -> bool:
    """Return whether *error* shows that no request under its idempotency key has created anything.

    The API looks the key up before it looks at the body, so a refused body means that the key was unknown to it, or
    that the refusal is what it keeps for the key. 401, 402, 403, 404 of the route and 429 may come before the look-up,
    and an answer without one of the API's codes may be a gateway's.
    """
    if error.outcome == "unknown":  # an error inside a success
        return False
    if isinstance(error, InvalidRequest):
        return error.code is not None and error.code != str(error.status)
    return isinstance(error, NotFound) and error.code == "asset_not_found"


_SEVERITY: Final[Mapping[Outcome | None, int]] = {None: 0, "not_sent": 1, "rejected": 2, "unknown": 3}


def worse(one: Outcome | None, other: Outcome | None) -> Outcome | None:
    """Return the outcome of two that leaves more open."""
    return max(one, other, key=_SEVERITY.__getitem__)


def outcome_after(earlier: Outcome | None, error: HeyGenError) -> Outcome | None:
    """Return what is known of a call whose latest attempt ended in *error*.

    Args:
        earlier: What was known before. Once it is `unknown`, only a final answer under the key changes that.
        error: What ended the latest attempt, with the outcome of that attempt alone.
    """
    return "rejected" if is_final_answer(error) else worse(earlier, error.outcome)


# Bodies and headers


def excerpt(body: bytes, mask: Mask) -> str:
    """Return the first words of a *body* that could not be read, on one line, without the key and without queries."""
    import html  # noqa: PLC0415 its table of names is slow to load, and few answers are web pages

    start = mask(body[:_WINDOW].decode("utf-8", "replace"), is_cut=len(body) > _WINDOW)
    words = one_line(without_queries(mask(html.unescape(_TAG.sub(" ", start)))))
    return words if len(words) <= _EXCERPT else f"{words[:_EXCERPT]}…"


def retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait, 0 or more; `None` if it cannot be read.

    Args:
        value: Seconds, or a date in any form of HTTP. A date without a zone, and one with `-0000`, is UTC.
        now: Unix time in seconds.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        at = date.replace(tzinfo=UTC) if date.tzinfo is None else date
        return max(0.0, at.timestamp() - now)
    except (ValueError, OverflowError, IndexError, TypeError):
        return _decimal(value)


def _decimal(value: str) -> float | None:
    # Not in the standard, but some gateways send "1.5".
    return float(value) if re.fullmatch(r"\d{1,9}\.\d{1,9}", value) else None
