"""How an event is read, of a delivery or of the history. Pure.

The API does not specify what is in an event. It may be an object with `event_type` and `event_data`, or a plain
callback: the members of a lipsync or batch without an envelope. Whatever is not understood is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from heygen_async._values import (
    acceptable,
    lenient_reason,
    lenient_text,
    lenient_time,
    read_object,
    read_status,
    read_text,
    read_time,
)
from heygen_async.models import JSON, LipsyncStatus, WebhookEvent

_OUTCOMES: Final = {"success": LipsyncStatus.COMPLETED, "fail": LipsyncStatus.FAILED}
_ENDS: Final = frozenset(_OUTCOMES.values())
_ENVELOPE: Final = frozenset({"event_id", "event_type", "event_data", "created_at"})
_REASONS: Final = ("failure_message", "message", "msg", "error")


def read_event(value: object) -> WebhookEvent:
    """Read an event.

    Raises:
        ValueError: If it is no object, or has no id.
    """
    wire = read_object(value)
    beside = {name: wire[name] for name in wire.keys() - _ENVELOPE}
    event_data = wire.get("event_data")
    data, extra = (event_data, beside) if isinstance(event_data, dict) else (beside, {})
    event_type = _first_text(wire, "event_type") or ""
    of_a_batch = event_type.startswith("batch.")
    lipsync_id = _first_text(data, "lipsync_id", "video_id", *(() if of_a_batch else ("id",)))
    batch_id = _first_text(data, "batch_id", *(("id",) if of_a_batch else ()))
    outcome = _outcome(event_type, data)
    return WebhookEvent(
        event_id=read_text(wire.get("event_id")),
        event_type=event_type,
        lipsync_id=lipsync_id,
        batch_id=batch_id,
        callback_id=_callback_id(data),
        outcome=outcome,
        video_url=_first_text(data, "video_url", "url"),
        failure_message=None if outcome is LipsyncStatus.COMPLETED else _reason(data),
        data=data,
        created_at=_time(wire.get("created_at")),
        extra=extra,
    )


def _outcome(event_type: str, data: Mapping[str, JSON]) -> LipsyncStatus | None:
    named = _OUTCOMES.get(event_type.rpartition(".")[2])
    status = read_status(_first_text(data, "status") or "")
    return named or (status if isinstance(status, LipsyncStatus) and status in _ENDS else None)


def _first_text(data: Mapping[str, JSON], *names: str) -> str | None:
    texts = (value for name in names if isinstance(value := data.get(name), str) and value)
    return next(texts, None)


def _callback_id(data: Mapping[str, JSON]) -> str | None:
    found = acceptable(data.get("callback_id"), read_text, lenient_text)
    return read_text(found) if found else None


def _reason(data: Mapping[str, JSON]) -> str | None:
    found = (acceptable(data.get(name), read_text, lenient_reason) for name in _REASONS)
    return next((read_text(text) for text in found if text), None)


def _time(value: object) -> datetime | None:
    found = acceptable(value, read_time, lenient_time)
    return None if found is None else read_time(found)
