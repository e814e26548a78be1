"""How an answer of the API differs from the models: fields that are unknown, missing or of another type. Pure.

The models and the readers of their fields are the only source of what is expected. A difference has names, types and
words of a status, and no other value of the answer: values may be secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

import attrs
from attrs import frozen

from heygen_async._converter import (
    BatchCreated,
    Created,
    DirectUpload,
    RotatedSecret,
    StatusEntry,
    wire_fields,
)
from heygen_async._models.contract import is_promised, time_form
from heygen_async._text import clean_line
from heygen_async._values import STRICT, STRICT_BY_NAME, accepts, read_object, read_status
from heygen_async.models import (
    Account,
    ApiKey,
    Asset,
    Batch,
    BatchItem,
    EventType,
    Lipsync,
    LipsyncStatus,
    Secret,
    WebhookEndpoint,
    WebhookEvent,
)

Kind: TypeAlias = Literal["unknown", "missing", "type", "word"]

_LONGEST_NAME: Final = 60
_CURSOR: Final = frozenset({"has_more", "next_token"})


@frozen
class Difference:
    """One field that is not as the models expect it."""

    where: str
    """The model and the field, such as `Account.wallet.currency`; `answer.data` is outside of a model."""
    kind: Kind
    """`word`: a status that is not known."""
    expected: str = ""
    """The type, in words; empty for an unknown field."""
    found: str = ""
    """The type that came, or the word; empty for a missing field."""

    def __str__(self) -> str:
        match self.kind:
            case "unknown":
                return f"{self.where} is new: {self.found}"
            case "missing":
                return f"{self.where} is missing: {self.expected}"
            case "type":
                return f"{self.where} is {self.found}, not {self.expected}"
            case "word":
                return f"{self.where} has a new word: {self.found}"


@frozen
class Shape:
    """What the answer of a call consists of."""

    model: type
    """What `data` is, or its items."""
    is_page: bool = False
    """Whether `data` is a list, with a cursor beside it."""
    items: type | None = None
    """What `data.items` holds, where the list and its cursor are inside of `data`."""
    unread: frozenset[str] = frozenset()
    """Fields that the API has and no model reads, by path, such as `wallet.auto_reload`."""


SHAPES: Final[Mapping[str, Shape]] = {
    "POST /v3/lipsyncs": Shape(Created),
    "GET /v3/lipsyncs": Shape(Lipsync, is_page=True),
    "GET /v3/lipsyncs/statuses": Shape(
        StatusEntry, is_page=True, unread=frozenset({"error", "batch_id", "item_index"})
    ),
    "POST /v3/lipsyncs/batches": Shape(BatchCreated),
    "GET /v3/lipsyncs/batches/{batch_id}": Shape(Batch, items=BatchItem),
    "GET /v3/lipsyncs/{lipsync_id}": Shape(Lipsync),
    "PATCH /v3/lipsyncs/{lipsync_id}": Shape(Lipsync),
    "POST /v3/assets": Shape(Asset),
    "POST /v3/assets/direct-uploads": Shape(DirectUpload, unread=frozenset({"expires_in_seconds", "status"})),
    "POST /v3/assets/{asset_id}/complete": Shape(Asset),
    "GET /v3/assets": Shape(Asset, is_page=True, unread=frozenset({"owner", "space_id"})),
    "GET /v3/assets/{asset_id}": Shape(Asset, unread=frozenset({"owner", "space_id"})),
    "POST /v3/webhooks/endpoints": Shape(WebhookEndpoint, unread=frozenset({"entity_id"})),
    "GET /v3/webhooks/endpoints": Shape(WebhookEndpoint, is_page=True, unread=frozenset({"entity_id"})),
    "PATCH /v3/webhooks/endpoints/{endpoint_id}": Shape(WebhookEndpoint, unread=frozenset({"entity_id"})),
    "POST /v3/webhooks/endpoints/{endpoint_id}/rotate-secret": Shape(RotatedSecret, unread=frozenset({"endpoint_id"})),
    "GET /v3/webhooks/event-types": Shape(EventType, is_page=True),
    "GET /v3/webhooks/events": Shape(WebhookEvent, is_page=True, unread=frozenset({"entity_id"})),
    "GET /v3/api_keys/self": Shape(ApiKey),
    "GET /v3/users/me": Shape(Account, unread=frozenset({"wallet.auto_reload"})),
}
"""The calls whose answers are models, by method and path template."""


def differences(payload: object, shape: Shape) -> list[Difference]:
    """Return how the body of a success differs from a *shape*; one difference for each field of each object."""
    if not isinstance(payload, dict):
        return [Difference("answer", "type", "an object", kind_of(payload))]
    found = [*_unknown("answer", payload, {"data", *_CURSOR} if shape.is_page else {"data"})]
    data = payload.get("data")
    if "data" not in payload:
        return [*found, Difference("answer.data", "missing", "a list" if shape.is_page else "an object")]
    if shape.is_page:
        return [*found, *_cursor("answer", payload), *_listed("answer.data", data, shape.model, shape.unread)]
    if shape.items is None or not isinstance(data, dict):
        return [*found, *_object(shape.model.__name__, data, shape.model, shape.unread)]
    inside = {name: value for name, value in data.items() if name not in {"items", *_CURSOR}}
    found += _object(shape.model.__name__, inside, shape.model, shape.unread)
    found += _cursor("answer.data", data)
    return [*found, *_listed("answer.data.items", data.get("items"), shape.items, frozenset())]


def _listed(where: str, value: object, model: type, unread: frozenset[str]) -> Iterator[Difference]:
    if not isinstance(value, list):
        yield Difference(where, "type", "a list", kind_of(value))
        return
    for item in value:
        yield from _object(model.__name__, item, model, unread)


def _cursor(where: str, members: Mapping[str, object]) -> Iterator[Difference]:
    has_more, token = members.get("has_more"), members.get("next_token")
    if not isinstance(has_more, bool):
        yield _odd(f"{where}.has_more", "true or false", has_more)
    if token is not None and not isinstance(token, str):
        yield _odd(f"{where}.next_token", "text", token)


def _object(where: str, value: object, model: type, unread: frozenset[str]) -> Iterator[Difference]:
    if not isinstance(value, dict):
        yield Difference(where, "type", "an object", kind_of(value))
        return
    known = {name for name in unread if "." not in name}
    for attribute, names in wire_fields(model):
        known.update(names)
        yield from _field(where, value, attribute, names, unread)
    yield from _unknown(where, value, known)


def _unknown(where: str, value: Mapping[str, object], known: set[str]) -> Iterator[Difference]:
    for name in value.keys() - known:
        yield Difference(f"{where}.{_shown(name)}", "unknown", found=kind_of(value[name]))


def _field(
    where: str,
    value: Mapping[str, object],
    attribute: attrs.Attribute[Any],
    names: Sequence[str],
    unread: frozenset[str],
) -> Iterator[Difference]:
    name = next((name for name in names if value.get(name) is not None), names[-1])
    found, place = value.get(name), f"{where}.{name}"
    if found is None:
        if attribute.default is attrs.NOTHING or is_promised(attribute, value):
            yield Difference(place, "missing", _expected(attribute))
    elif (model := _nested(attribute.type)) is not None:
        inside = (path.partition(".") for path in unread)
        yield from _object(place, found, model, frozenset(rest for first, _, rest in inside if first == name and rest))
    elif not _fits(attribute, found):
        yield _odd(place, _expected(attribute), found)
    elif attribute.type == LipsyncStatus | str and not isinstance(read_status(found), LipsyncStatus):
        yield Difference(place, "word", "one of the known words", _shown(str(found)))


def _odd(where: str, expected: str, found: object) -> Difference:
    if found is None:
        return Difference(where, "missing", expected)
    return Difference(where, "type", expected, kind_of(found))


def _fits(attribute: attrs.Attribute[Any], value: object) -> bool:
    form = time_form(attribute)
    if form is not None and isinstance(value, str) is not (form == "iso"):
        return False
    strict = STRICT_BY_NAME.get(attribute.name) or STRICT.get(attribute.type, read_object)
    return accepts(strict, value)


def _expected(attribute: attrs.Attribute[Any]) -> str:
    type_ = _bare(attribute.type)
    if type_ is datetime:
        return _TIMES[time_form(attribute)]
    return _IN_WORDS.get(type_, "an object")


_TIMES: Final = {"unix": "a time in unix seconds", "iso": "a time in ISO 8601", None: "a time"}
_IN_WORDS: Final[Mapping[object, str]] = {
    str: "text",
    Secret: "text",
    int: "a whole number",
    float: "a number",
    Sequence[str]: "a list of texts",
    Mapping[str, int]: "an object of whole numbers",
    LipsyncStatus | str: "text",
}


def _nested(type_: object) -> type | None:
    bare = _bare(type_)
    return bare if isinstance(bare, type) and attrs.has(bare) else None


def _bare(type_: object) -> object:
    """Return the type of a field that may be `None` without the `None`."""
    kinds = [kind for kind in get_args(type_) if kind is not type(None)]
    is_optional = type(None) in get_args(type_) and get_origin(type_) is not None
    return kinds[0] if is_optional and len(kinds) == 1 else type_


def kind_of(value: object) -> str:
    """Return the type of a JSON value in words."""
    for type_, words in _KINDS:
        if isinstance(value, type_):
            return words
    return "null"


_KINDS: Final = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
)


def _shown(text: str) -> str:
    """Return a name or a word of the server's for a message: a name may be anything, a link too."""
    shown = clean_line(text)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}…"
