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
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

import attrs
from attrs import field, frozen

from heygen_async._arguments import shown
from heygen_async._ids import is_id
from heygen_async._one_pass import attributes, one_pass_reader
from heygen_async._values import (
    UNREADABLE,
    lenient_text,
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
    LipsyncOptions,
    LipsyncRequest,
    LipsyncStatus,
    Secret,
    Source,
    Subscription,
    SubscriptionCredits,
    UsageBased,
    Wallet,
    WebhookEndpoint,
    WebhookEvent,
)
from heygen_async.pagination import Page

if TYPE_CHECKING:
    from cattrs import Converter

_PAGE_OF_ITEMS: Final = frozenset({"items", "has_more", "next_token"})
"""What the answer for a batch has beside the batch itself."""

_MOST_PROBLEMS: Final = 10
"""Problems of the items of a list after which the rest is not read: it takes cattrs long to say what is wrong."""

P = ParamSpec("P")
T = TypeVar("T")


@frozen(slots=False)
class Created:
    """The answer to a create."""

    lipsync_id: str


@frozen(slots=False)
class BatchCreated:
    """The answer to a batch's create."""

    batch_id: str


@frozen(slots=False)
class StatusEntry:
    """One job in the answer to a bulk status request."""

    lipsync_id: str
    status: LipsyncStatus | str


@frozen(slots=False)
class DirectUpload:
    """The answer that starts a direct upload to the storage host."""

    asset_id: str
    upload_url: Secret
    upload_headers: Mapping[str, JSON] = field(default={}, repr=False)
    """Sent with the upload, unchanged."""
    max_bytes: int | None = None


@frozen(slots=False)
class RotatedSecret:
    """The answer to the rotation of an endpoint's secret."""

    secret: Secret


# Where the name on the wire differs from the model's: {wire: model}. An asset's id comes under both names.
_SPELLINGS: Final[Mapping[type, Mapping[str, str]]] = {
    Asset: {"asset_id": "id"},
    Batch: {"batch_id": "id"},
    BatchCreated: {"id": "batch_id"},
    BatchItem: {"video_id": "lipsync_id"},
    Created: {"id": "lipsync_id", "video_id": "lipsync_id"},
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


@cache
def _converter() -> Converter:
    # cattrs is slow to import, and few answers need it.
    from heygen_async._lenient_models import make_converter  # noqa: PLC0415

    return make_converter(_MODELS, _SPELLINGS)


def wire_fields(model: type) -> Iterator[tuple[attrs.Attribute[Any], Sequence[str]]]:
    """Yield the fields of a *model*, each with its names on the wire."""
    spellings = _SPELLINGS.get(model, {})
    for attribute in attributes(model):
        if attribute.name != "extra":
            yield attribute, [attribute.name, *(name for name, of in spellings.items() if of == attribute.name)]


_readers: Final[dict[type, Callable[[object], Any]]] = {}
"""Readers of the models that were read before."""


def _reader(model: type[T]) -> Callable[[object], T]:
    """Return the fastest reader of a model. It raises one of `UNREADABLE`, which does not always say what is wrong."""
    if model not in _readers:
        one_pass = one_pass_reader(model, _SPELLINGS.get(model, {}))
        _readers[model] = one_pass or (lambda value: _converter().structure(value, model))
    return _readers[model]


def _raising_without_frames(read: Callable[P, T]) -> Callable[P, T]:
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
    return _read_or_explain(response, model)


@_raising_without_frames
def read_new(response: Response, model: type[T], id_field: str, *, is_usable: Callable[[str], bool] = is_id) -> T:
    """Return the `data` of the answer to a request that makes something, as a *model* whose *id_field* is an id.

    Args:
        response: The answer.
        model: The model.
        id_field: The field of the id.
        is_usable: Whether an id can be used: in the path of a request, or only in bodies.

    Raises:
        UnexpectedResponse: If it is not one, or has no usable id. Something may have been made: the same request under
            the same idempotency key returns it.
    """
    made = read(response, model)
    made_id = getattr(made, id_field)
    if not is_usable(made_id):
        raise _unexpected(response, [f"no usable id @ $.data.{id_field}: {shown(made_id)}"])
    return made


@_raising_without_frames
def read_own(response: Response, model: type[T], own_id: str) -> T:
    """Return the `data` of the answer to a request for one thing, as a *model* whose id is *own_id*.

    Raises:
        UnexpectedResponse: As `read` does, and if it has another id: a cache may confuse two answers.
    """
    found: Any = read(response, model)
    if found.id != own_id:
        raise _another(response, "$.data.id", found.id)
    return cast("T", found)


def read_rotated(response: Response, own_id: str) -> Secret:
    """Return the secret in the answer to its rotation at the endpoint *own_id*.

    Raises:
        UnexpectedResponse: As `read` does, and if it is the secret of another endpoint.
    """
    found = read(response, RotatedSecret)
    given = cast("Any", response.data)["data"].get("endpoint_id")
    if isinstance(given, str) and given != own_id:  # one of another type is no reason to lose the secret
        raise _another(response, "$.data.endpoint_id", given)
    return found.secret


@_raising_without_frames
def _read_or_explain(response: Response, model: type[T]) -> T:
    return _structure(response, _member(response, response.data, "data", "$"), model, "$.data")


@_raising_without_frames
def read_page(response: Response, model: type[T]) -> Page[T]:
    """Return an answer whose `data` is a list, with the cursor beside it, as a page of *model*."""
    return _page(response, response.data, "data", partial(_models, model), "$")


@_raising_without_frames
def read_statuses(response: Response) -> Page[tuple[str, LipsyncStatus | str]]:
    """Return the ids and statuses of a bulk status answer. Entries that cannot be read are left out."""
    return _page(response, response.data, "data", _statuses, "$")


@_raising_without_frames
def read_batch(response: Response, batch_id: str) -> Batch:
    """Return the batch *batch_id*, without the page of its items that comes with it.

    Raises:
        UnexpectedResponse: As `read_own` does.
    """
    batch = read_own(response, Batch, batch_id)
    extra = {name: value for name, value in batch.extra.items() if name not in _PAGE_OF_ITEMS}
    return attrs.evolve(batch, extra=extra)


@_raising_without_frames
def read_batch_items(response: Response, batch_id: str) -> Page[BatchItem]:
    """Return items of the batch *batch_id*; their list and cursor are both inside `data`.

    Raises:
        UnexpectedResponse: If it is no such answer, or that of another batch.
    """
    data = _member(response, response.data, "data", "$")
    members = cast("Mapping[str, object]", data) if isinstance(data, dict) else {}
    if (members.get("batch_id") or batch_id) != batch_id:
        raise _another(response, "$.data.batch_id", members["batch_id"])
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
        return Page(items=items, has_more=members.get("has_more") is True)
    try:
        return Page(items=items, next_token=lenient_text(members["next_token"]), has_more=True)
    except TypeError:
        raise _unexpected(response, [f"invalid type for field, expected str @ {path}.next_token"]) from None


def _models(model: type[T], response: Response, listed: list[object], path: str) -> list[T]:
    try:
        return list(map(_reader(model), listed))
    except UNREADABLE:
        pass
    items: list[T] = []
    problems: list[str] = []
    for index, item in enumerate(listed):
        try:
            items.append(_structure(response, item, model, f"{path}[{index}]"))
        except UnexpectedResponse as error:
            problems += error.problems
        if len(problems) >= _MOST_PROBLEMS:
            break
    if problems:
        raise _unexpected(response, problems)
    return items


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


def _structure(response: Response, value: object, model: type[T], path: str) -> T:
    from heygen_async._lenient_models import problems_of  # noqa: PLC0415 as above

    try:
        return _converter().structure(value, model)
    except UNREADABLE as error:
        problems = problems_of(error, path)
    raise _unexpected(response, problems)


def _unexpected(response: Response, problems: Sequence[str]) -> UnexpectedResponse:
    error = UnexpectedResponse(problems, status=response.status, request_id=response.request_id, outcome="unknown")
    error.idempotency_key, error.attempts = response.idempotency_key, response.attempts
    return error


def _another(response: Response, path: str, id: object) -> UnexpectedResponse:
    return _unexpected(response, [f"another id than the requested one @ {path}: {shown(id)}"])


_OPTIONS: Final = frozenset(LipsyncOptions.__annotations__)


def request_body(request: LipsyncRequest, *, video: Source, audio: Source) -> dict[str, JSON]:
    """Return the JSON of a create, with sources that are uploaded already; options that are `None` are left out."""
    body: dict[str, JSON] = {
        name: value for name, value in vars(request).items() if value is not None and name in _OPTIONS
    }
    body["video"], body["audio"] = _source(video), _source(audio)
    return body


def _source(source: Source) -> dict[str, JSON]:
    if isinstance(source, str):
        return {"type": "url", "url": source}
    assert isinstance(source, (Asset, AssetId))  # noqa: S101 the others have been uploaded
    return {"type": "asset_id", "asset_id": source.id if isinstance(source, Asset) else source.value}
