"""Errors of the API, read in the shapes of all its services. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from heygen_async._masking import Mask
from heygen_async._wire.bodies import Answer, excerpt, request_id, retry_after, short_text
from heygen_async._wire.outcomes import is_unsettled
from heygen_async._wire.outgoing import Request
from heygen_async.errors import IN_PROGRESS, APIError, ErrorDetail, error_class
from heygen_async.models import JSON

_MOST_FAULTS: Final = 100
_MOST_TEXT: Final = 16_000
"""Characters of listed faults after which no more are read: to clean a hostile text takes milliseconds."""
_FAULT_TEXTS: Final = ("message", "code", "path")


def api_error(
    status: int, report: Mapping[str, object], answer: Answer, request: Request, *, now: float, mask: Mask
) -> APIError:
    """Return the error in *answer*: *report* is what `error_report` or `report_in_success` has found in its body."""
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
        retry_after=retry_after(answer.headers, now=now),
        hint=_scope_hint(request, code, message) if status == HTTPStatus.FORBIDDEN else None,
    )
    # An error inside a success: part of it may have been done.
    error.outcome = "unknown" if answer.status < HTTPStatus.BAD_REQUEST or is_unsettled(error) else "rejected"
    return error


def error_report(parsed: JSON) -> Mapping[str, object]:
    """Return the object with the fields of an error; it is empty if *parsed* has none."""
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str) and error:
        return {**parsed, "message": parsed.get("message") or error}
    return parsed if parsed.get("code") or parsed.get("message") else {}


def report_in_success(parsed: JSON) -> Mapping[str, object]:
    """Return the error inside the body of a success; it is empty if there is none."""
    if not isinstance(parsed, dict) or parsed.get("data") is not None:
        return {}
    report = error_report(parsed)
    return report if parsed.get("error") or meant_status(report) else {}


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


def meant_status(report: Mapping[str, object]) -> int | None:
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
    return short_text(value, mask)


def _faults(report: Mapping[str, object], mask: Mask) -> tuple[ErrorDetail, ...]:
    listed = report.get("errors")
    faults: list[ErrorDetail] = []
    left = _MOST_TEXT
    for item in listed[:_MOST_FAULTS] if isinstance(listed, list) else ():
        fields = _fault_fields(item)
        if left > 0 and (fault := _fault(fields, mask)) is not None:
            faults.append(fault)
        left -= sum(len(text) for name in _FAULT_TEXTS if isinstance(text := fields.get(name), str))
    return tuple(faults)


def _fault_fields(item: object) -> Mapping[str, object]:
    if isinstance(item, str):
        return {"message": item}
    if not isinstance(item, dict):
        return {}
    path = item.get("path")
    return {**item, "path": ".".join(str(part) for part in path)} if isinstance(path, list) else item


def _fault(fields: Mapping[str, object], mask: Mask) -> ErrorDetail | None:
    message, code, path = (_text(fields, name, mask) for name in _FAULT_TEXTS)
    if message is None and code is None:
        return None
    return ErrorDetail(message or code or "", code=code, path=path)


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
