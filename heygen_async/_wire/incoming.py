"""Answers of the API: data, or the error that it means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heygen_async._masking import Mask
from heygen_async._wire.api_errors import api_error, error_report, meant_status, report_in_success
from heygen_async._wire.bodies import Answer, excerpt, parse_json, request_id
from heygen_async._wire.outgoing import Request
from heygen_async.errors import HeyGenError, UnexpectedResponse
from heygen_async.models import JSON


def decipher(answer: Answer, request: Request, *, now: float, mask: Mask) -> JSON:
    """Return the parsed body of the *answer* to *request*, or raise the error that it is.

    Args:
        answer: The whole answer.
        request: What was sent.
        now: Unix time in seconds, for a `Retry-After` that is a date.
        mask: Hides the API key, should the server echo it.

    Raises:
        APIError: For 4xx and 5xx, and for a success whose body is an error.
        UnexpectedResponse: For anything that is not the API's: another status, a body that is not JSON, or one without
            the data that *request* is answered with.
    """
    # Raised here, where no local variable holds the body: a traceback may show them.
    found = _understood(answer, request, now=now, mask=mask)
    if isinstance(found, HeyGenError):
        raise found
    return found


def _understood(answer: Answer, request: Request, *, now: float, mask: Mask) -> JSON | HeyGenError:
    status = answer.status
    if 400 <= status < 600:  # noqa: PLR2004 the errors
        report = error_report(_parsed_or_none(answer.body))
        return api_error(status, report, answer, request, now=now, mask=mask)
    if not 200 <= status < 300:  # noqa: PLR2004 the successes
        redirected = status // 100 == 3  # noqa: PLR2004 3xx
        return _unexpected("a redirect, which is not followed" if redirected else "an unexpected status", answer, mask)
    try:
        parsed = parse_json(answer.body) if answer.body else None
    except ValueError:
        return _unexpected(f"the body is not JSON: {excerpt(answer.body, mask)}", answer, mask)
    report = report_in_success(parsed)
    if report:
        status = meant_status(report) or status
        return api_error(status, report, answer, request, now=now, mask=mask)
    problem = _missing_data(parsed) if request.has_data else None
    return parsed if problem is None else _unexpected(problem, answer, mask)


def _missing_data(parsed: JSON) -> str | None:
    if not isinstance(parsed, dict):
        return "expected an object @ $"
    return "required field missing @ $.data" if parsed.get("data") is None else None


def _parsed_or_none(body: bytes) -> JSON:
    try:
        return parse_json(body)
    except ValueError:
        return None


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
