"""The one converter between the API's JSON and the models.

What each type looks like on the wire:

* text, numbers and booleans are what they are in JSON, never coerced: an `id` of `null` is a problem, not `"None"`;
* a status is a word of either of the API's vocabularies, and an unknown word stays a string;
* a time is unix seconds or ISO 8601, and becomes an aware datetime in UTC;
* an id may be spelled in more than one way (`id`, `asset_id`);
* an event of a webhook tells of a job in words that are not pinned, so whatever is not understood is passed over;
* a field that no model knows goes into `.extra`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, cast, get_args, get_origin

import attrs
from attrs import field, frozen
from cattrs import BaseValidationError, Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from heygen_async._wire import Response
from heygen_async.errors import UnexpectedResponse
from heygen_async.models import (
    JSON,
    Account,
    Asset,
    AssetId,
    Batch,
    BatchItem,
    EventType,
    Lipsync,
    LipsyncRequest,
    LipsyncStatus,
    Secret,
    Wallet,
    WebhookEndpoint,
    WebhookEvent,
)
from heygen_async.pagination import Page

P = ParamSpec("P")
T = TypeVar("T")

_WORDS: Final[Mapping[str, LipsyncStatus]] = {
    **{status.value: status for status in LipsyncStatus},
    "queued": LipsyncStatus.PENDING,
    "processing": LipsyncStatus.RUNNING,
}


def read_status(value: object, _: object = None) -> LipsyncStatus | str:
    """Return a status word of either vocabulary as the one of `LipsyncStatus`; an unknown one as it is."""
    text = _text(value)
    return _WORDS.get(text, text)


def _text(value: object, _: object = None) -> str:
    if type(value) is not str:
        raise ValueError("not a string")
    return value


def _whole(value: object, _: object = None) -> int:
    if type(value) is not int:
        raise ValueError("not a whole number")
    return value


def _number(value: object, _: object = None) -> float:
    if value.__class__ is not float and value.__class__ is not int:
        raise ValueError("not a number")
    return float(cast("float", value))


def _time(value: object, _: object = None) -> datetime:
    try:
        if not isinstance(value, str):
            return datetime.fromtimestamp(_number(value), UTC)
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, OSError):
        raise ValueError("not a time") from None


def _object(value: object, _: object = None) -> Mapping[str, JSON]:
    if value.__class__ is not dict:
        raise ValueError("not an object")
    return cast("Mapping[str, JSON]", value)


def _counts(value: object, _: object = None) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for word, count in _object(value).items():
        status = str(read_status(word))
        counts[status] = counts.get(status, 0) + _whole(count)
    return counts


def _reason(value: object, _: object = None) -> str | None:
    """Read why an item failed: the contract does not pin whether it is a text or an error object."""
    if isinstance(value, Mapping):
        return ": ".join(str(value[name]) for name in ("code", "message") if value.get(name)) or None
    return None if value is None else _text(value)


def _secret(value: object, _: object = None) -> Secret:
    return Secret(_text(value))


# The optional ones are whole hooks of their own: a chain of two would be half of what a model costs.


def _text_or_none(value: object, _: object = None) -> str | None:
    return None if value is None else _text(value)


def _whole_or_none(value: object, _: object = None) -> int | None:
    return None if value is None else _whole(value)


def _number_or_none(value: object, _: object = None) -> float | None:
    return None if value is None else _number(value)


def _time_or_none(value: object, _: object = None) -> datetime | None:
    return None if value is None else _time(value)


def _secret_or_none(value: object, _: object = None) -> Secret | None:
    return None if value is None else _secret(value)


def _object_or_none(value: object, _: object = None) -> Mapping[str, JSON] | None:
    return None if value is None else _object(value)


@frozen
class Created:
    """The answer to a create."""

    lipsync_id: str


@frozen
class BatchCreated:
    """The answer to a batch's create."""

    batch_id: str


@frozen
class StatusEntry:
    """One job in the answer to a bulk status request."""

    lipsync_id: str
    status: LipsyncStatus | str


@frozen
class DirectUpload:
    """The answer to the announcement of an upload that goes to the storage host."""

    asset_id: str
    upload_url: Secret
    upload_headers: Mapping[str, JSON] = field(default={}, repr=False)
    """To be sent with it, as they are."""
    max_bytes: int | None = None


@frozen
class RotatedSecret:
    """The answer to the rotation of an endpoint's secret."""

    secret: Secret


_LEAVES: Final[Mapping[Any, Callable[[object, object], object]]] = {
    str: _text,
    int: _whole,
    float: _number,
    datetime: _time,
    Secret: _secret,
    str | None: _text_or_none,
    int | None: _whole_or_none,
    float | None: _number_or_none,
    datetime | None: _time_or_none,
    Secret | None: _secret_or_none,
    LipsyncStatus | str: read_status,
}

# Where the wire's name is not the model's: {wire: model}. An asset's id is spelled in both ways.
_SPELLINGS: Final[Mapping[type, Mapping[str, str]]] = {
    Asset: {"asset_id": "id"},
    Batch: {"batch_id": "id"},
    BatchItem: {"video_id": "lipsync_id"},
    StatusEntry: {"video_id": "lipsync_id"},
    WebhookEndpoint: {"endpoint_id": "id"},
}
_MODELS: Final = (
    Account,
    Asset,
    Batch,
    BatchItem,
    EventType,
    Lipsync,
    Wallet,
    WebhookEndpoint,
    Created,
    BatchCreated,
    DirectUpload,
    RotatedSecret,
    StatusEntry,
)


def _make_converter(*, detailed: bool) -> Converter:
    converter = Converter(detailed_validation=detailed)
    for leaf, hook in _LEAVES.items():
        converter.register_structure_hook(leaf, hook)
    converter.register_structure_hook_func(_is_mapping, _object)
    converter.register_structure_hook_func(_is_optional_mapping, _object_or_none)
    # A factory: a model's hook is compiled when it is first read, not at import.
    converter.register_structure_hook_factory(_MODELS.__contains__, lambda model: _model_hook(model, converter))
    converter.register_structure_hook(WebhookEvent, read_event)
    return converter


def _is_mapping(type_: object) -> bool:
    return get_origin(type_) is Mapping


def _is_optional_mapping(type_: object) -> bool:
    return any(_is_mapping(member) for member in get_args(type_)) and type(None) in get_args(type_)


def _model_hook(model: type[T], converter: Converter) -> Callable[[object, object], T]:
    """Make the hook of one model: its fields by the wire's names, and what it does not know into `.extra`."""
    spellings = _SPELLINGS.get(model, {})
    special = {"counts_by_status": _counts, "error": _reason}
    names = [attribute.name for attribute in attrs.fields(cast("Any", model))]
    overrides: dict[str, Any] = {name: override(struct_hook=hook) for name, hook in special.items() if name in names}
    structure = make_dict_structure_fn(model, converter, **overrides)
    known = frozenset({*names, *spellings} - {"extra"})

    def hook(value: object, _: object) -> T:
        wire = _object(value)
        for spelling, name in spellings.items():
            if spelling in wire and name not in wire:
                wire = {**wire, name: wire[spelling]}
        if not known.issuperset(wire):
            wire = {**wire, "extra": {name: wire[name] for name in wire.keys() - known}}
        return structure(wire, model)

    return hook


_OUTCOMES: Final = {"success": LipsyncStatus.COMPLETED, "fail": LipsyncStatus.FAILED}
_EVENT_FIELDS: Final = frozenset({"event_id", "event_type", "event_data", "created_at"})


def read_event(value: object, _: object = None) -> WebhookEvent:
    """Read an event, of a delivery or of the history.

    Raises:
        ValueError: If it does not say what it is, and which.
    """
    wire = _object(value)
    event_type = _text(wire.get("event_type"))
    data = wire.get("event_data")
    data = data if isinstance(data, dict) else {}
    outcome = _OUTCOMES.get(event_type.rpartition(".")[2])
    # A batch's own id may come as `id` too.
    names = ("lipsync_id", "video_id") if event_type.startswith("batch.") else ("lipsync_id", "video_id", "id")
    failed = outcome is not LipsyncStatus.COMPLETED
    return WebhookEvent(
        event_id=_text(wire.get("event_id")),
        event_type=event_type,
        lipsync_id=_first_text(data, *names),
        callback_id=_first_text(data, "callback_id"),
        outcome=outcome,
        video_url=_first_text(data, "video_url", "url"),
        failure_message=_first_text(data, "failure_message", "message", "msg") if failed else None,
        data=data,
        created_at=_time_if_any(wire.get("created_at")),
        extra={name: wire[name] for name in wire.keys() - _EVENT_FIELDS},
    )


def _first_text(data: Mapping[str, JSON], *names: str) -> str | None:
    texts = (value for name in names if isinstance(value := data.get(name), str) and value)
    return next(texts, None)


def _time_if_any(value: object) -> datetime | None:
    try:
        return _time(value)
    except (ValueError, OverflowError):
        return None


_converter: Final = _make_converter(detailed=False)
# Its twin tells what is wrong and where, which costs a third more; it reads only what the other could not.
_explainer: Final = _make_converter(detailed=True)


def _without_frames(read: Callable[P, T]) -> Callable[P, T]:
    """Raise the errors of *read* without its frames: their variables hold presigned links."""

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except UnexpectedResponse as error:
            failure = error.with_traceback(None)
        raise failure

    return reading


@_without_frames
def read(response: Response, model: type[T]) -> T:
    """Return the `data` of an answer as a *model*.

    Raises:
        UnexpectedResponse: If it is not one; its `.problems` say what is wrong and where.
    """
    return _structure(response, _member(response, response.data, "data", "$"), model, "$.data")


@_without_frames
def read_page(response: Response, model: type[T]) -> Page[T]:
    """Return an answer whose `data` is a list, and whose cursor stands beside it, as a page of *model*."""
    return _page(response, response.data, "data", model, "$")


@_without_frames
def read_batch_items(response: Response) -> Page[BatchItem]:
    """Return the items of a batch: there the list and its cursor are both inside `data`."""
    return _page(response, _member(response, response.data, "data", "$"), "items", BatchItem, "$.data")


def _page(response: Response, envelope: object, name: str, model: type[T], path: str) -> Page[T]:
    items = _structure(response, _member(response, envelope, name, path), list[model], f"{path}.{name}")  # type: ignore[valid-type]
    cursor = cast("Mapping[str, object]", envelope).get("next_token")
    if cursor is not None and not isinstance(cursor, str):
        raise _unexpected(response, [f"invalid type for field, expected str @ {path}.next_token"])
    has_more = cast("Mapping[str, object]", envelope).get("has_more") is not False and bool(cursor)
    return Page(items=items, next_token=cursor if has_more else None, has_more=has_more)


def _member(response: Response, envelope: object, name: str, path: str) -> object:
    if not isinstance(envelope, dict):
        raise _unexpected(response, [f"expected an object @ {path}"])
    if name not in envelope:
        raise _unexpected(response, [f"required field missing @ {path}.{name}"])
    return cast("Mapping[str, object]", envelope)[name]


def _structure(response: Response, value: object, type_: type[T], path: str) -> T:
    with suppress(LookupError, ValueError, TypeError):
        return _converter.structure(value, type_)
    try:
        return _explainer.structure(value, type_)
    except (BaseValidationError, ValueError, TypeError) as error:
        problems = transform_error(error, path=path)
    raise _unexpected(response, problems)


def _unexpected(response: Response, problems: Sequence[str]) -> UnexpectedResponse:
    error = UnexpectedResponse(problems, status=response.status, request_id=response.request_id, outcome="unknown")
    error.idempotency_key, error.attempts = response.idempotency_key, response.attempts
    return error


def request_body(request: LipsyncRequest, *, video: str | AssetId, audio: str | AssetId) -> dict[str, JSON]:
    """Return the JSON of a create, with sources that need no upload any more; what was not said is left out."""
    said = {
        attribute.name: value
        for attribute in attrs.fields(LipsyncRequest)
        if (value := getattr(request, attribute.name)) is not None
    }
    return {**said, "video": _source(video), "audio": _source(audio)}


def _source(source: str | AssetId) -> dict[str, JSON]:
    if isinstance(source, AssetId):
        return {"type": "asset_id", "asset_id": source.value}
    return {"type": "url", "url": source}
