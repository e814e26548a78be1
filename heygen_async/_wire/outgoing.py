"""Requests: composed from values, complete before the first attempt. No I/O of its own."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import quote, urlsplit

import orjson
from attrs import define, field, frozen

from heygen_async._arguments import built_in, is_https, shown
from heygen_async._ids import new_key, segment
from heygen_async.models import JSON

RateScope: TypeAlias = Literal["creates", "session"]
"""Which requests a 429 holds back: single creates have a limit of their own."""
Piece: TypeAlias = bytes | memoryview
"""Some bytes of a body."""
Parameter: TypeAlias = str | int | float | bool | None

GetEnv: TypeAlias = Callable[[str], str | None]
"""`os.getenv`, not `os.environ`: a traceback with local variables would show that, and every secret in it."""


@frozen
class Stream:
    """A body that is read piece by piece; each attempt reads it from its start."""

    content_type: str
    length: int
    """In bytes; the pieces must add up to it."""
    chunks: Callable[[], AsyncIterator[Piece]]
    is_repeatable: bool = True


@define  # not frozen, nor is an answer: that would be 3 % of a call
class Request:
    """One call, complete before its first attempt and never changed: a repeated create sends the very same bytes."""

    method: str
    path: str
    """Percent-encoded, from `/v3` on."""
    template: str
    """The path as in the API's documentation."""
    query: str = field(default="", repr=False)
    """Percent-encoded, without `?`."""
    body: bytes | Stream | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    scope: RateScope = "session"
    """Which requests wait after a 429 on this one."""
    has_data: bool = True
    """Whether a success has `data` in its body: otherwise it is an answer of a gateway."""

    @property
    def is_repeatable(self) -> bool:
        """Whether sending it twice is safe, and can be done at all."""
        if isinstance(self.body, Stream) and not self.body.is_repeatable:
            return False
        return self.method != "POST" or self.idempotency_key is not None


def compose(
    method: str,
    template: str,
    *,
    segments: Mapping[str, str] | None = None,
    params: Mapping[str, Parameter] | None = None,
    json: JSON = None,
    stream: Stream | None = None,
    idempotency_key: str | None = None,
    has_data: bool = True,
) -> Request:
    """Compose a request from a path *template* such as `/v3/lipsyncs/{lipsync_id}` and what fills it.

    A POST gets an idempotency key if it has none; parameters that are `None` are left out. A success has data, unless
    *has_data* is false or it is a DELETE.
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
        # Sorted: the same fields give the same bytes, which `_transport/keys` compares by hash.
        body=stream if json is None else orjson.dumps(json, default=_built_in, option=orjson.OPT_SORT_KEYS),
        idempotency_key=idempotency_key,
        scope="creates" if method == "POST" and path == "/v3/lipsyncs" else "session",
        has_data=has_data and method != "DELETE",
    )


def _built_in(value: object) -> object:
    plain = built_in(value)
    if plain is value:
        raise TypeError(f"JSON has no {type(value).__name__}")
    return plain


_BASE_URL: Final = "https://api.heygen.com"
_VERSION_AT_END: Final = re.compile(r"/+v\d$")
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
        TypeError: If *path* is not a string, or *params* or *json* has a value that a query or JSON does not have.
        ValueError: If it is no such path, or the method is none of the API's.
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(sorted(_METHODS))}, not {shown(method)}")
    if not isinstance(path, str):
        raise TypeError(f"path must be a string, not {type(path).__name__}")
    if not _PATH.fullmatch(path) or any(part.strip(".") == "" for part in path[1:].split("/")):
        raise ValueError(f"path must be percent-encoded, start with /v3/ and have no query: {shown(path)}")
    # Of calls that this library does not know, nor is it known whether their answers have data.
    request = compose(method, path, params=params, json=json, idempotency_key=idempotency_key, has_data=False)
    _check_finite(json)  # what could be written is not nested without end
    return request


def _check_finite(json: object) -> None:
    """Check that all numbers in *json* are finite: others would be sent as `null`."""
    left = [json]
    while left:
        match left.pop():
            case float() as number if not math.isfinite(number):
                raise TypeError(f"JSON has no {number}")
            case dict() as members:
                left += members.values()
            case list() | tuple() as items:
                left += items


def query_string(params: Mapping[str, Parameter]) -> str:
    """Return *params* as a percent-encoded query, with booleans in JSON's spelling."""
    for name in params:
        if not isinstance(name, str):
            raise TypeError(f"the name of a parameter must be a string, not {type(name).__name__}")
    given = {name: value for name, value in params.items() if value is not None}
    try:
        return "&".join(f"{_quoted(name)}={_quoted(_spelled(value))}" for name, value in given.items())
    except UnicodeEncodeError:
        pass
    raise ValueError("a parameter is not text: it has half of a surrogate pair")


def _spelled(value: Parameter) -> str:
    if not isinstance(value, (str, int, float)):  # its str() would be sent as if it had been meant
        raise TypeError(f"a parameter must be a string, a number, a boolean or None, not {type(value).__name__}")
    return str(value).lower() if isinstance(value, bool) else str(built_in(value))


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=",")


_PLAIN: Final = re.compile(r"[A-Za-z0-9\-._~,]*")
"""What needs no quoting, such as a hundred ids; `quote` takes ten times as long to find that out."""


# As browsers do with quotation marks and line ends; other control characters make a header that servers refuse.
_NOT_IN_QUOTES: Final = re.compile('["\x00-\x1f\x7f]')


def multipart(name: str, content_type: str, file: Stream) -> Stream:
    """Return *file* as the one field, `file`, of a multipart form whose length is known from the start."""
    boundary = secrets.token_hex(16)
    escaped = _NOT_IN_QUOTES.sub(lambda found: f"%{ord(found[0]):02X}", name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{escaped}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    async def chunks() -> AsyncIterator[Piece]:
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


def chosen_base_url(given: str | None, variable: GetEnv) -> str:
    """Return the address of the API: the *given* one, or that of the environment, or HeyGen's.

    Raises:
        TypeError, ValueError: If it cannot be used.
    """
    return check_base_url(variable("HEYGEN_BASE_URL") or _BASE_URL if given is None else given)


def check_base_url(url: object) -> str:
    """Return the base *url* without a trailing slash.

    Raises:
        TypeError: If it is not a string.
        ValueError: If it is not an https URL (http is taken for loopback), has more than host, port and path, or ends
            with a version.
    """
    if not isinstance(url, str):
        raise TypeError(f"base_url must be a string, not {type(url).__name__}")
    url = url.strip().rstrip("/")
    if not is_https(url, or_loopback=True):
        raise ValueError(f"base_url must be an https URL, or http on loopback, not {shown(url)}")
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("base_url must have no query, no fragment and no user name")
    if version := _VERSION_AT_END.search(url):
        without = shown(url[: version.start()])
        raise ValueError(f"base_url must not end with {version[0]}: each request adds its version. Give {without}")
    return url
