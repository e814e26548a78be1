"""What can go wrong in a sandbox: faults as values, and the choice of one for a request.

A list of faults is a script as well as a table of odds: the first one that matches a request applies. A fault with
`times` is used up and leaves the list; one with a `probability` may pass the request on to the next.

    Sandbox(faults=[
        rate_limited("POST /v3/lipsyncs", retry_after=2, times=1),   # the first create
        nothing("POST /v3/lipsyncs", times=1),                       # not the second
        reset("POST /v3/lipsyncs", after=True, times=1),             # the third creates a job, without an answer
        server_error(probability=0.05),                              # one call in twenty, always
    ])

A mistyped route is a `ValueError` at once. Of the requests that match, a fault passes over those that cannot have its
effect. Faults apply to errors as they do to successes.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final, Literal, SupportsIndex, TypeAlias, TypedDict, Unpack

import orjson
from attrs import evolve, field, frozen

from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.option_checks import number, one_of, optional, whole_number
from heygen_async.sandbox.routes import ROUTES, check_route, matches
from heygen_async.sandbox.state.clock import LATEST

ANY_CALL: Final = "* /v3/*"
DOWNLOADS: Final = "GET /files/{name}"
"""Videos and assets."""
CAPTIONS: Final = "GET /captions/{name}"

_HTML: Final = b"<!DOCTYPE html><html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"
_GZIP: Final = 31  # zlib's window bits for the gzip format
_LARGEST: Final = 1 << 30
"""Bytes of the largest answer: it is made in memory."""
_NOT_IN_A_HEADER: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


# --- what happens ------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Reply:
    """An answer in place of the true one."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict)
    retry_date: float | None = None
    """Seconds from the moment of the answer; sent in `Retry-After` as a date."""
    after: bool = False

    def __attrs_post_init__(self) -> None:
        whole_number(200, 599)("status", self.status)  # a 1xx would not be the answer, and others are no HTTP


@frozen
class Reset:
    """The connection is reset and there is no answer."""

    after: bool


@frozen
class Stall:
    """There is no answer until `Sandbox.release`."""

    after: bool


@frozen
class Truncate:
    """The connection closes after half of the answer's body."""


@frozen
class Alter:
    """The true answer, with *fields* put into every object of its data, or into its error."""

    fields: Mapping[str, object]
    replace_only: bool
    """Whether only fields that are there are set."""


@frozen(kw_only=True)
class Damage:
    """A download that is sent wrongly."""

    cut_after: int | None = None
    length_off_by: int = 0
    ranges: bool = True
    drip_bytes: int | None = None
    drip_seconds: float = 0.0


@frozen
class NoRequestId:
    """The true answer without `X-Request-Id`."""


@frozen
class Nothing:
    """The true answer."""


Effect: TypeAlias = Reply | Reset | Stall | Truncate | Alter | Damage | NoRequestId | Nothing


# --- when --------------------------------------------------------------------------------------------------


class When(TypedDict, total=False):
    """How often a fault applies."""

    probability: float
    """From 0 to 1; 1 unless given."""
    times: int
    """How often it applies before it is used up; without a limit unless given."""


@frozen
class Fault:
    """One thing that goes wrong.

    Args:
        route: Method and path template, such as `POST /v3/lipsyncs` or `GET /v3/lipsyncs/{lipsync_id}`; `*`
            matches anything, as in `GET /v3/lipsyncs*`.
        effect: What happens.
        probability: The share of matching requests that it applies to, 0 to 1.
        times: The number of requests that it applies to before it is used up; None is no limit.

    Raises:
        TypeError: An argument is of another type.
        ValueError: No route of the sandbox matches *route*, none that can have this effect does, or a number is out of
            range.
    """

    route: str
    effect: Effect
    probability: float = field(default=1.0, kw_only=True)
    times: int | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_route(self.route)
        if not any(_can_apply(self, one) for one in ROUTES):
            kind = "downloads" if isinstance(self.effect, Damage) else "answers in JSON"
            raise ValueError(f"this is a fault of {kind}, and {self.route!r} matches none; leave out the route.")
        number(most=1)("probability", self.probability)
        optional(whole_number(1))("times", self.times)


def _can_apply(fault: Fault, route: str) -> bool:
    """Return whether a fault matches a route whose requests can have its effect."""
    if not matches(route, fault.route):
        return False
    if isinstance(fault.effect, Damage):
        return route in (DOWNLOADS, CAPTIONS)
    return not isinstance(fault.effect, Alter) or matches(route, ANY_CALL)  # the file host answers without JSON


def checked_faults(given: object) -> tuple[Fault, ...]:
    """Return faults.

    Raises:
        TypeError: If any is something else, such as the JSON that `/_sandbox/faults` takes.
    """
    if isinstance(given, Fault) or not isinstance(given, Iterable):
        raise TypeError(f"faults must be a list of faults, not {given!r}.")
    faults = tuple(given)
    for fault in faults:
        if not isinstance(fault, Fault):
            example = "rate_limited('POST /v3/lipsyncs', times=1)"
            raise TypeError(f"faults must be made by heygen_async.sandbox.faults, such as {example}, not {fault!r}.")
    return faults


class FaultList(list[Fault]):
    """Faults that are added at any time: what is none is a `TypeError` at once, not an answer to the next request."""

    def append(self, fault: Fault, /) -> None:
        """Add a fault."""
        super().extend(checked_faults([fault]))

    def insert(self, index: SupportsIndex, fault: Fault, /) -> None:
        """Add a fault before others."""
        super().insert(index, *checked_faults([fault]))

    def extend(self, faults: Iterable[Fault], /) -> None:
        """Add faults."""
        super().extend(checked_faults(faults))


def choose(faults: list[Fault], route: str, random: Random) -> Fault | None:
    """Return the fault that applies to a request, and use it up in *faults*."""
    for index, fault in enumerate(faults):
        if not _can_apply(fault, route) or random.random() >= fault.probability:
            continue
        if fault.times is not None:
            faults[index : index + 1] = [evolve(fault, times=fault.times - 1)] if fault.times > 1 else []
        return fault
    return None


# --- answers -----------------------------------------------------------------------------------------------


def nothing(route: str = ANY_CALL, **when: Unpack[When]) -> Fault:
    """Let requests pass: a pause in a script."""
    return Fault(route, Nothing(), **when)


def error(
    status: int,
    code: str | int,
    message: str = "A fault of the sandbox.",
    *,
    route: str = ANY_CALL,
    shape: Literal["v3", "number", "text"] = "v3",
    after: bool = False,
    **when: Unpack[When],
) -> Fault:
    """Answer with an error: any status (200 too) and any code, before the work or *after* it.

    Args:
        status: The HTTP status, from 200 to 599.
        code: Any code; a number such as 400140 in the shape `number`.
        message: The message.
        route: See `Fault`.
        shape: `v3` is `{"error": {"code", "message"}}`; `number`, `{"code", "message"}`, and `text`,
            `{"error": "message"}`, are those of older services.
        after: Whether the work is done first.
        **when: `probability` and `times`, see `Fault`.
    """
    one_of("v3", "number", "text")("shape", shape)
    body = {
        "v3": {"error": {"code": code, "message": message}},
        "number": {"code": code, "message": message},
        "text": {"error": message},
    }[shape]
    return Fault(route, Reply(status=status, body=orjson.dumps(body), after=after), **when)


def rate_limited(
    route: str = ANY_CALL, *, retry_after: float | None = 1.0, as_date: bool = False, **when: Unpack[When]
) -> Fault:
    """Answer 429, with `Retry-After` in seconds, as an HTTP date, or not at all.

    Raises:
        ValueError: If the seconds are below 0, or lead beyond the year 9999.
    """
    optional(number(most=LATEST))("retry_after", retry_after)
    body = orjson.dumps(ErrorAnswer(429, "rate_limit_exceeded", "Too many requests.").envelope())
    if as_date:
        return Fault(route, Reply(status=429, body=body, retry_date=retry_after), **when)
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:.15g}"}
    return Fault(route, Reply(status=429, body=body, headers=headers), **when)


def server_error(
    route: str = ANY_CALL,
    *,
    status: int = 500,
    body: Literal["json", "html", "none"] = "json",
    after: bool = False,
    **when: Unpack[When],
) -> Fault:
    """Answer 5xx with the API's envelope, a gateway's page or nothing, before the work or *after* it."""
    one_of("json", "html", "none")("body", body)
    code = "gateway_timeout" if status in {502, 504} else "internal_error"
    reply = {
        "json": Reply(
            status=status,
            body=orjson.dumps(ErrorAnswer(status, code, "Something went wrong.").envelope()),
            after=after,
        ),
        "html": Reply(status=status, body=_HTML, content_type="text/html", after=after),
        "none": Reply(status=status, content_type="application/octet-stream", after=after),
    }[body]
    return Fault(route, reply, **when)


def missing(route: str, **when: Unpack[When]) -> Fault:
    """Answer 404, as if the account did not have the endpoint."""
    return error(404, "not_found", "There is nothing at this path.", route=route, **when)


def redirect(
    route: str = ANY_CALL, *, location: str = "https://elsewhere.invalid/", status: int = 302, **when: Unpack[When]
) -> Fault:
    """Answer 3xx.

    Raises:
        ValueError: If *location* cannot be in a header.
    """
    if _NOT_IN_A_HEADER.search(location):
        raise ValueError("location must be one line of text.")
    return Fault(route, Reply(status=status, headers={"Location": location}), **when)


def html(route: str = ANY_CALL, **when: Unpack[When]) -> Fault:
    """Answer 200 with an HTML page instead of JSON or media."""
    return Fault(route, Reply(status=200, body=_HTML, content_type="text/html"), **when)


def huge(route: str = ANY_CALL, *, size: int = 64 << 20, **when: Unpack[When]) -> Fault:
    """Answer 200 with *size* bytes of JSON, at most 1 GiB.

    Raises:
        ValueError: If it is more.
    """
    size = _checked_size(size)
    return Fault(route, Reply(status=200, body=b'{"data":"%s"}' % (b"x" * (size - len('{"data":""}')))), **when)


def gzip_bomb(route: str = ANY_CALL, *, size: int = 64 << 20, **when: Unpack[When]) -> Fault:
    """Answer 200 with a small gzip body that unpacks to about *size* bytes of JSON, at most 1 GiB.

    Raises:
        ValueError: If it is more.
    """
    size = _checked_size(size)
    packer = zlib.compressobj(level=1, wbits=_GZIP)
    block = b"x" * (1 << 20)
    parts = [packer.compress(b'{"data":"'), *(packer.compress(block) for _ in range(max(1, size >> 20)))]
    body = b"".join([*parts, packer.compress(b'"}'), packer.flush()])
    return Fault(route, Reply(status=200, body=body, headers={"Content-Encoding": "gzip"}), **when)


def _checked_size(size: int) -> int:
    whole_number(1)("size", size)
    if size > _LARGEST:
        raise ValueError(f"size must be at most {_LARGEST:,} bytes.")
    return int(size)


# --- missing, partial and odd answers ----------------------------------------------------------------------


def reset(route: str = ANY_CALL, *, after: bool = False, **when: Unpack[When]) -> Fault:
    """Reset the connection without an answer, before the work or *after* it."""
    return Fault(route, Reset(after), **when)


def stall(route: str = ANY_CALL, *, after: bool = False, **when: Unpack[When]) -> Fault:
    """Give no answer until `Sandbox.release`, before the work or *after* it."""
    return Fault(route, Stall(after), **when)


def truncated(route: str = ANY_CALL, **when: Unpack[When]) -> Fault:
    """Send half of the answer's body and close the connection."""
    return Fault(route, Truncate(), **when)


def unknown_fields(route: str = ANY_CALL, **when: Unpack[When]) -> Fault:
    """Add an unknown field to every object of the answer's data, or to its error."""
    return Fault(route, Alter({"sandbox_news": {"since": 2026}}, replace_only=False), **when)


def unknown_status(route: str = ANY_CALL, *, word: str = "polishing", **when: Unpack[When]) -> Fault:
    """Replace every status in the answer's data by an unknown word."""
    return Fault(route, Alter({"status": word}, replace_only=True), **when)


def odd_fields(route: str = ANY_CALL, *, fields: Mapping[str, object], **when: Unpack[When]) -> Fault:
    r"""Replace fields of the answer's data by any JSON value, for instance of an unexpected type.

    Any text can be sent, half of a surrogate pair (`"\ud83d"`) too. Fields that an object does not have are not added.

        odd_fields("GET /v3/lipsyncs/{lipsync_id}", fields={"duration": "12.5", "created_at": "", "callback_id": 42})
    """
    try:
        json.dumps(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"fields must be names and JSON values: {error}") from error
    return Fault(route, Alter(dict(fields), replace_only=True), **when)


def no_request_id(route: str = ANY_CALL, **when: Unpack[When]) -> Fault:
    """Leave the header `X-Request-Id` out of the answer."""
    return Fault(route, NoRequestId(), **when)


def altered(payload: object, alter: Alter) -> object:
    """Return *payload* with the fields of *alter* in the objects of its `data` or `error`, and of lists in them."""
    if not isinstance(payload, dict):
        return payload
    return {key: _altered(one, alter) if key in {"data", "error"} else one for key, one in payload.items()}


def _altered(value: object, alter: Alter) -> object:
    if isinstance(value, list):
        return [_altered(one, alter) for one in value]
    if not isinstance(value, dict):
        return value
    inside = {key: _altered(one, alter) if isinstance(one, list) else one for key, one in value.items()}
    return {**inside, **{key: one for key, one in alter.fields.items() if not alter.replace_only or key in value}}


# --- downloads ---------------------------------------------------------------------------------------------


def cut_download(route: str = DOWNLOADS, *, after_bytes: int, **when: Unpack[When]) -> Fault:
    """Close the connection after so many bytes of the body.

    Raises:
        ValueError: If the bytes are below 0.
    """
    whole_number()("after_bytes", after_bytes)
    return Fault(route, Damage(cut_after=int(after_bytes)), **when)


def wrong_length(route: str = DOWNLOADS, *, off_by: int, **when: Unpack[When]) -> Fault:
    """Send a `Content-Length` that is *off_by* bytes too long or, below 0, too short, and no more than the file.

    Raises:
        ValueError: If *off_by* is 0: the length would be right.
    """
    whole_number(-math.inf)("off_by", off_by)
    if off_by == 0:
        raise ValueError("off_by must not be 0.")
    return Fault(route, Damage(length_off_by=int(off_by)), **when)


def no_ranges(route: str = DOWNLOADS, **when: Unpack[When]) -> Fault:
    """Ignore `Range`: always send the whole file."""
    return Fault(route, Damage(ranges=False), **when)


def slow_drip(route: str = DOWNLOADS, *, chunk: int = 1024, pause: float = 0.01, **when: Unpack[When]) -> Fault:
    """Send *chunk* bytes at a time, with *pause* seconds of real time between."""
    whole_number(1)("chunk", chunk)
    number()("pause", pause)
    return Fault(route, Damage(drip_bytes=int(chunk), drip_seconds=pause), **when)


def expired_link(route: str = DOWNLOADS, **when: Unpack[When]) -> Fault:
    """Answer as a storage service does when a link has expired."""
    body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    return Fault(route, Reply(status=403, body=body, content_type="application/xml"), **when)
