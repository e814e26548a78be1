"""The one converter between the API's JSON and the models.

What each type looks like on the wire:

* text and numbers are what they are in JSON: an `id` of `null` is a problem, not `"None"`;
* a status is a word of either of the API's vocabularies, and an unknown word stays a string;
* a time is unix seconds or ISO 8601, and becomes an aware datetime in UTC;
* an id may be spelled in more than one way (`id`, `asset_id`);
* a field that no model knows goes into `.extra`.

Optional fields may come in types that the contract does not name. A model is first read strictly, if possible in one
pass, which is fast. If that fails, each optional field is read leniently, and one that still cannot be read goes into
`.extra`. Only a required field makes an answer unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from operator import eq
from typing import Any, Final, ParamSpec, TypeVar, cast, get_origin

import attrs
from attrs import field, frozen
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn, override

from heygen_async._events import read_event
from heygen_async._one_pass import attributes, one_pass_reader, respelled
from heygen_async._values import (
    LENIENT,
    LENIENT_BY_NAME,
    STRICT,
    STRICT_BY_NAME,
    UNREADABLE,
    Lenient,
    Strict,
    acceptable,
    lenient_secret,
    lenient_text,
    read_object,
    read_status,
    read_text,
)
from heygen_async._wire import Response
from heygen_async.errors import UnexpectedResponse
from heygen_async.models import (
    JSON,
    Account,
    ApiKey,
    Asset,
    AssetId,
    Batch,
    BatchItem,
    Credits,
    EventType,
    Lipsync,
    LipsyncRequest,
    LipsyncStatus,
    Secret,
    Subscription,
    SubscriptionCredits,
    UsageBased,
    Wallet,
    WebhookEndpoint,
    WebhookEvent,
)
from heygen_async.pagination import Page

P = ParamSpec("P")
T = TypeVar("T")


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
    """The answer that starts a direct upload to the storage host."""

    asset_id: str
    upload_url: Secret
    upload_headers: Mapping[str, JSON] = field(default={}, repr=False)
    """Sent with the upload, unchanged."""
    max_bytes: int | None = None


@frozen
class RotatedSecret:
    """The answer to the rotation of an endpoint's secret."""

    secret: Secret


# Where the name on the wire differs from the model's: {wire: model}. An asset's id comes under both names.
_SPELLINGS: Final[Mapping[type, Mapping[str, str]]] = {
    Asset: {"asset_id": "id"},
    Batch: {"batch_id": "id"},
    BatchItem: {"video_id": "lipsync_id"},
    StatusEntry: {"video_id": "lipsync_id"},
    WebhookEndpoint: {"endpoint_id": "id"},
    WebhookEvent: {"event_data": "data"},
}
_MODELS: Final = (
    Account,
    ApiKey,
    Asset,
    Batch,
    BatchItem,
    Credits,
    EventType,
    Lipsync,
    Subscription,
    SubscriptionCredits,
    UsageBased,
    Wallet,
    WebhookEndpoint,
    Created,
    BatchCreated,
    DirectUpload,
    RotatedSecret,
    StatusEntry,
)


def _make_converter() -> Converter:
    converter = Converter()
    for type_, hook in STRICT.items():
        converter.register_structure_hook_func(partial(eq, type_), hook)
        if isinstance(type_, type):  # cattrs looks up its own hooks of plain types before the predicates
            converter.register_structure_hook(type_, hook)
    converter.register_structure_hook_func(lambda type_: get_origin(type_) is cast("Any", Mapping), read_object)
    # A factory: a model's hook is compiled when it is first read, not at import.
    converter.register_structure_hook_factory(_MODELS.__contains__, lambda model: _model_hook(model, converter))
    converter.register_structure_hook(WebhookEvent, read_event)
    return converter


def _model_hook(model: type[T], converter: Converter) -> Callable[[object, object], T]:
    """Make the hook of one model: fields by their names on the wire, unknown ones into `.extra`."""
    fields = [_Field.of(attribute, converter) for attribute in attributes(model) if attribute.name != "extra"]
    keeps_extra = len(fields) < len(attributes(model))
    overrides: dict[str, Any] = {
        field.name: override(struct_hook=field.strict) for field in fields if field.name in STRICT_BY_NAME
    }
    structure = make_dict_structure_fn(model, converter, **overrides)
    spellings = _SPELLINGS.get(model, {})
    known = frozenset(field.name for field in fields)

    def hook(value: object, _: object) -> T:
        wire = respelled(read_object(value), spellings)
        if not known.issuperset(wire):
            wire = {**wire, "extra": {name: wire[name] for name in wire.keys() - known}}
        try:
            return structure(wire, model)
        except UNREADABLE:
            if not keeps_extra:  # nothing may be lost
                raise
            return structure(_readable(wire, fields), model)

    return hook


def wire_fields(model: type) -> Iterator[tuple[attrs.Attribute[Any], Sequence[str]]]:
    """Yield the fields of a *model*, each with its names on the wire."""
    spellings = _SPELLINGS.get(model, {})
    for attribute in attributes(model):
        if attribute.name != "extra":
            yield attribute, [attribute.name, *(name for name, of in spellings.items() if of == attribute.name)]


@frozen
class _Field:
    """How one field of a model is read."""

    name: str
    strict: Strict
    lenient: Lenient | None
    is_optional: bool

    @classmethod
    def of(cls, attribute: attrs.Attribute[Any], converter: Converter) -> _Field:
        name, type_ = attribute.name, attribute.type
        is_optional = attribute.default is not attrs.NOTHING
        return cls(
            name,
            STRICT_BY_NAME.get(name) or (lambda value, _: converter.structure(value, cast("Any", type_))),
            # Of the required fields, only an index is unambiguous in another type.
            LENIENT_BY_NAME.get(name) or LENIENT.get(type_) if is_optional or type_ is int else None,
            is_optional,
        )


def _readable(wire: Mapping[str, JSON], fields: Sequence[_Field]) -> Mapping[str, object]:
    """Return *wire* with every optional field either readable or moved into `extra`."""
    readable: dict[str, object] = dict(wire)
    extra = dict(cast("Mapping[str, JSON]", wire.get("extra", {})))
    for known in fields:
        value = wire.get(known.name)
        found = acceptable(value, known.strict, known.lenient)
        if found is not None:
            readable[known.name] = found
        elif known.is_optional:
            readable.pop(known.name, None)
        # Of an object or a list, only a part may have been read.
        is_partial = found is not value and isinstance(value, (dict, list))
        if value is not None and (found is None or is_partial) and known.lenient is not lenient_secret:
            extra[known.name] = value
    return {**readable, "extra": extra}


_converter: Final = _make_converter()


_readers: Final[dict[type, Callable[[object], Any]]] = {}
"""Readers of the models that were read before."""


def _reader(model: type[T]) -> Callable[[object], T]:
    """Return the fastest reader of a model. It raises one of `UNREADABLE`, which does not always say what is wrong."""
    if model not in _readers:
        one_pass = one_pass_reader(model, _SPELLINGS.get(model, {}))
        _readers[model] = one_pass or (lambda value: _converter.structure(value, model))
    return _readers[model]


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


def read(response: Response, model: type[T]) -> T:
    """Return the `data` of an answer as a *model*.

    Raises:
        UnexpectedResponse: If it is not one; its `.problems` say what is wrong and where.
    """
    try:
        return _reader(model)(cast("Any", response.data)["data"])
    except UNREADABLE:
        pass
    return _read(response, model)


@_without_frames
def _read(response: Response, model: type[T]) -> T:
    return _structure(response, _member(response, response.data, "data", "$"), model, "$.data")


@_without_frames
def read_page(response: Response, model: type[T]) -> Page[T]:
    """Return an answer whose `data` is a list, with the cursor beside it, as a page of *model*."""
    return _page(response, response.data, "data", partial(_models, model), "$")


@_without_frames
def read_statuses(response: Response) -> Page[tuple[str, LipsyncStatus | str]]:
    """Return the ids and statuses of a bulk status answer. Entries that cannot be read are left out."""
    return _page(response, response.data, "data", _statuses, "$")


@_without_frames
def read_batch_items(response: Response) -> Page[BatchItem]:
    """Return the items of a batch, whose list and cursor are both inside `data`."""
    data = _member(response, response.data, "data", "$")
    return _page(response, data, "items", partial(_models, BatchItem), "$.data")


def _page(
    response: Response, envelope: object, name: str, read_list: Callable[[Response, list[Any], str], list[T]], path: str
) -> Page[T]:
    listed = _member(response, envelope, name, path)
    if not isinstance(listed, list):
        raise _unexpected(response, [f"expected a list @ {path}.{name}"])
    items = read_list(response, listed, f"{path}.{name}")
    members = cast("Mapping[str, object]", envelope)
    if members.get("has_more") is False or not members.get("next_token"):
        return Page(items=items)
    try:
        return Page(items=items, next_token=lenient_text(members["next_token"]), has_more=True)
    except TypeError:
        raise _unexpected(response, [f"invalid type for field, expected str @ {path}.next_token"]) from None


def _models(model: type[T], response: Response, listed: list[object], path: str) -> list[T]:
    try:
        return list(map(_reader(model), listed))
    except UNREADABLE:
        pass
    return _structure(response, listed, list[model], path)  # type: ignore[valid-type]


def _statuses(_: Response, listed: list[Any], _path: str) -> list[tuple[str, LipsyncStatus | str]]:
    try:
        # As the API sends them: a model for each would cost more than the rest of the request.
        pairs = [(read_text(one["video_id"]), read_status(one["status"])) for one in listed if "lipsync_id" not in one]
    except UNREADABLE:
        pairs = []
    if len(pairs) == len(listed):
        return pairs
    entries = [entry for item in listed if (entry := _status_entry(item)) is not None]
    return [(entry.lipsync_id, entry.status) for entry in entries]


def _status_entry(item: object) -> StatusEntry | None:
    try:
        return _reader(StatusEntry)(item)
    except UNREADABLE:
        return None


def _member(response: Response, envelope: object, name: str, path: str) -> object:
    if not isinstance(envelope, dict):
        raise _unexpected(response, [f"expected an object @ {path}"])
    if name not in envelope:
        raise _unexpected(response, [f"required field missing @ {path}.{name}"])
    return cast("Mapping[str, object]", envelope)[name]


def _structure(response: Response, value: object, type_: type[T], path: str) -> T:
    try:
        return _converter.structure(value, type_)
    except UNREADABLE as error:
        problems = transform_error(error, path=path)
    raise _unexpected(response, problems)


def _unexpected(response: Response, problems: Sequence[str]) -> UnexpectedResponse:
    error = UnexpectedResponse(problems, status=response.status, request_id=response.request_id, outcome="unknown")
    error.idempotency_key, error.attempts = response.idempotency_key, response.attempts
    return error


def request_body(request: LipsyncRequest, *, video: str | AssetId, audio: str | AssetId) -> dict[str, JSON]:
    """Return the JSON of a create, with sources that are uploaded already; options that are `None` are left out."""
    given = {
        attribute.name: value
        for attribute in attrs.fields(LipsyncRequest)
        if (value := getattr(request, attribute.name)) is not None
    }
    return {**given, "video": _source(video), "audio": _source(audio)}


def _source(source: str | AssetId) -> dict[str, JSON]:
    if isinstance(source, AssetId):
        return {"type": "asset_id", "asset_id": source.value}
    return {"type": "url", "url": source}
