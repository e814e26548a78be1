"""The nouns of the API: frozen values with open enums."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias, TypedDict, cast, get_args

from attrs import Factory, field, frozen

from heygen_async._arguments import (
    check_callback_url,
    check_flag,
    check_seconds,
    check_text,
    is_https,
    shown,
    without_query,
)
from heygen_async._model import JSON, Model, Secret

__all__ = (
    "JSON",
    "Account",
    "ApiKey",
    "Asset",
    "AssetId",
    "Batch",
    "BatchItem",
    "Credits",
    "DubOutcome",
    "DubRow",
    "EventType",
    "FpsMode",
    "Lipsync",
    "LipsyncOptions",
    "LipsyncRequest",
    "LipsyncStatus",
    "Mode",
    "Secret",
    "Source",
    "Subscription",
    "SubscriptionCredits",
    "UsageBased",
    "Wallet",
    "WebhookEndpoint",
    "WebhookEvent",
    "row_faults",
)

Mode: TypeAlias = Literal["speed", "precision"]
FpsMode: TypeAlias = Literal["vfr", "cfr", "passthrough"]


class LipsyncStatus(enum.StrEnum):
    """The state of a job, in the words of `GET /v3/lipsyncs/{id}`.

    `queued` and `processing`, which bulk answers use, are read as `PENDING` and `RUNNING`.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    NOT_FOUND = "not_found"


TERMINAL: Final = frozenset({LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND})
"""The states that a job does not leave. An unknown word is not among them."""

_NOTHING: Final[Mapping[str, JSON]] = {}


@frozen(kw_only=True)
class Lipsync(Model):
    """A lipsync job, as `GET /v3/lipsyncs/{lipsync_id}` and the list return it."""

    id: str
    status: LipsyncStatus | str
    """A `LipsyncStatus`, or the server's own word if it is new; compares with plain strings either way."""
    title: str | None = None
    duration: float | None = None
    """Length of the output in seconds; known once completed."""
    video_url: str | None = field(default=None, repr=without_query)
    """Presigned link to the output, a secret that expires; get the lipsync again for a fresh one."""
    caption_url: str | None = field(default=None, repr=without_query)
    """Presigned link to the captions (SRT). Every completed job has one; the file may be empty."""
    callback_id: str | None = None
    """The caller's own id, as given to the create."""
    created_at: datetime | None = None
    """Aware, UTC."""
    failure_message: str | None = None
    """Why it failed; only when failed."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended. An unknown status has not."""
        return self.status in TERMINAL


@frozen(kw_only=True)
class Batch(Model):
    """A batch of lipsyncs, as `GET /v3/lipsyncs/batches/{batch_id}` returns it."""

    id: str
    status: LipsyncStatus | str
    """`running` (the API says `processing`), `completed` or `failed`."""
    counts_by_status: Mapping[str, int] = field(factory=dict)
    """How many items are in each state, in the words of `LipsyncStatus`."""
    total_items: int = field(default=Factory(lambda batch: sum(batch.counts_by_status.values()), takes_self=True))
    """How many items there are; the sum of `counts_by_status` if the API does not say."""
    created_at: datetime | None = None
    """Aware, UTC."""
    title: str | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def is_terminal(self) -> bool:
        """Whether all of its items have ended."""
        return self.status in TERMINAL


@frozen(kw_only=True)
class BatchItem(Model):
    """One lipsync of a batch."""

    item_index: int
    """Its position in the list that the batch was created from, from 0."""
    status: LipsyncStatus | str
    lipsync_id: str | None = None
    """The job, once the server has created it."""
    error: str | None = None
    """Why this item failed; the others are not affected."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True)
class Asset(Model):
    """An uploaded file. Which fields are known depends on the call that returned it."""

    id: str
    url: str | None = field(default=None, repr=without_query)
    """Link to the file, which may be presigned: a secret that expires."""
    mime_type: str | None = None
    size_bytes: int | None = None
    name: str | None = None
    type: str | None = None
    status: str | None = None
    """The server's own word: an asset that is `processing` cannot be used yet."""
    uploaded_at: datetime | None = None
    """Aware, UTC."""
    folder_id: str | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)


@frozen(kw_only=True)
class Wallet(Model):
    """What is left of a prepaid account."""

    currency: str = ""
    """`usd` or `credits`; empty if the API does not say."""
    remaining_balance: float | None = None
    """In `currency`."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read, such as `auto_reload`."""


@frozen(kw_only=True)
class Credits(Model):
    """Credits of one kind."""

    remaining: float | None = None
    resets_at: datetime | None = None
    """When they are renewed; aware, UTC."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True)
class SubscriptionCredits(Model):
    """The credits of a subscription, by kind."""

    premium_credits: Credits | None = None
    add_on_credits: Credits | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True)
class Subscription(Model):
    """The plan of an account that pays by subscription."""

    plan: str | None = None
    credits: SubscriptionCredits | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True)
class UsageBased(Model):
    """The figures of an account that pays by usage."""

    spending_cap_usd: float | None = None
    spending_current_usd: float | None = None
    remaining_credits: float | None = None
    included_credits: float | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True)
class Account(Model):
    """The account of the key, as `GET /v3/users/me` returns it."""

    username: str = ""
    """Empty if the API does not say."""
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    billing_type: str | None = None
    """`wallet`, `subscription` or `usage_based`: which of the three below is filled in."""
    wallet: Wallet | None = None
    subscription: Subscription | None = None
    usage_based: UsageBased | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True)
class ApiKey(Model):
    """The API key that a session uses, as `GET /v3/api_keys/self` returns it. The key itself is not in it."""

    key_id: str
    key_name: str | None = None
    status: str | None = None
    """The server's own word."""
    scope_mode: str | None = None
    """The server's own word for how `scopes` are meant."""
    scopes: Sequence[str] = ()
    """What the key may do, such as `lipsync:write` and `account:read`; `*:*` is everything."""
    created_at: datetime | None = None
    """Aware, UTC, as the two below."""
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    """When it ends; `None` if never, or if the API does not say."""
    expires_in_seconds: float | None = None
    """Seconds until then, when the answer was made."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.key_id)

    def has_scope(self, scope: str) -> bool:
        """Return whether the key's scopes include *scope*, directly or by a wildcard (`*:*`, `lipsync:*`, `*:read`).

        Args:
            scope: Such as `lipsync:write`.

        Raises:
            ValueError: If it does not have the form `resource:action`.
        """
        resource, colon, action = scope.partition(":")
        if not (resource and colon and action):
            raise ValueError(f"scope must have the form resource:action, not {shown(scope)}")
        wildcards = {scope, f"{resource}:*", f"*:{action}", "*:*", "*"}
        return not wildcards.isdisjoint(self.scopes)


@frozen(kw_only=True)
class WebhookEndpoint(Model):
    """A URL that HeyGen sends events to, as the calls under `/v3/webhooks/endpoints` return it."""

    id: str
    url: str = field(default="", repr=without_query)
    """Empty if the API does not say."""
    events: Sequence[str] | None = None
    """The event types that are sent to it; `None` for all of them."""
    status: str | None = None
    """`enabled`, or the server's own word."""
    created_at: datetime | None = None
    """Aware, UTC."""
    secret: Secret | None = None
    """The secret that deliveries are signed with. Only a create returns it: store `.reveal()` then."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)


@frozen(kw_only=True)
class EventType(Model):
    """A type of event that can be sent to an endpoint."""

    event_type: str
    """Such as `video_translate.success` or `batch.finished`."""
    description: str | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True)
class WebhookEvent(Model):
    """An event of a delivery: a hint to get the job, since the API does not specify its contents."""

    event_id: str
    """The same in every delivery of this event."""
    event_type: str = ""
    """Such as `batch.finished`; empty for a plain callback, which has none."""
    lipsync_id: str | None = None
    """The job, under whichever name it came."""
    batch_id: str | None = None
    """The batch, for `batch.finished`."""
    callback_id: str | None = None
    """The caller's own id, as given to the create."""
    outcome: LipsyncStatus | None = None
    """`completed` or `failed`, by the event type or the status in it; `None` if neither says."""
    video_url: str | None = field(default=None, repr=without_query)
    """Link to the output, a secret that expires."""
    failure_message: str | None = None
    """Why it failed."""
    data: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """The `event_data` as it came, or the members of a plain callback."""
    created_at: datetime | None = None
    """When it happened, if the delivery says so; aware, UTC."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Other members beside `event_data`."""

    def __hash__(self) -> int:
        return hash(self.event_id)


# What a create takes


@frozen
class AssetId(Model):
    """The id of a file that was uploaded before, to be used as `video=` or `audio=`."""

    value: str


Source: TypeAlias = str | Path | AssetId | Asset | bytes | BinaryIO
"""A video or audio: an https URL (`str`), a local file (`Path`, `bytes` or an open binary file), or an asset."""


class LipsyncOptions(TypedDict, total=False):
    """Optional parameters of a lipsync; `LipsyncRequest` documents each."""

    mode: Mode
    title: str | None
    enable_caption: bool | None
    enable_dynamic_duration: bool | None
    disable_music_track: bool | None
    enable_speech_enhancement: bool | None
    enable_watermark: bool | None
    start_time: float | None
    end_time: float | None
    keep_the_same_format: bool | None
    fps_mode: FpsMode | None
    callback_url: str | None
    callback_id: str | None
    folder_id: str | None


MAX_TITLE: Final = 10_000
"""Longest title, in characters."""


def _shown_source(source: Source) -> str:
    if isinstance(source, str):
        return without_query(source)
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else repr(source)


@frozen(kw_only=True)
class LipsyncRequest(Model):
    """One lipsync to create, for `lipsyncs.create_batch`: the keywords of `lipsyncs.create`. `None` is not sent.

    Raises:
        TypeError, ValueError: If arguments are wrong; the message names each of them.
    """

    video: Source = field(repr=_shown_source)
    """The source video: an https URL, a `Path`, or an asset."""
    audio: Source = field(repr=_shown_source)
    """The new audio: an https URL, a `Path`, or an asset."""
    mode: Mode = "speed"
    """`speed`: fast, audio only. `precision`: higher fidelity, at about twice the price."""
    title: str | None = None
    """Shown in the dashboard; one line, at most 10,000 characters."""
    enable_caption: bool | None = None
    """Write captions too, where the result is downloaded. The API makes them in any case."""
    enable_dynamic_duration: bool | None = None
    """Let the output's length follow the new audio; the server's default is true."""
    disable_music_track: bool | None = None
    """Strip background music from the source video."""
    enable_speech_enhancement: bool | None = None
    """Make the speech of the output clearer."""
    enable_watermark: bool | None = None
    """Put a watermark on the output."""
    start_time: float | None = None
    """Where a partial lipsync starts, in seconds."""
    end_time: float | None = None
    """Where it ends, in seconds; after `start_time`."""
    keep_the_same_format: bool | None = None
    """Keep the source's resolution and bitrate."""
    fps_mode: FpsMode | None = None
    """`vfr`, `cfr` or `passthrough`."""
    callback_url: str | None = field(default=None, repr=without_query)
    """Where HeyGen POSTs when the job has ended."""
    callback_id: str | None = None
    """An id of your own, returned in webhooks, by get and by list."""
    folder_id: str | None = None
    """The folder to put it in."""

    def __attrs_post_init__(self) -> None:
        _refuse(_faults({name: getattr(self, name) for name in _REQUEST_CHECKS}, _REQUEST_CHECKS))


# Bulk

_ROW_KEY: Final = re.compile(r"[A-Za-z0-9_\-:.]{1,250}")

Output: TypeAlias = "str | PathLike[str]"


@frozen
class DubRow(LipsyncRequest):
    """One lipsync of a bulk run: the keywords of `lipsyncs.create`, a key, and the file to write.

    A row may be repeated after a crash, so its sources must last: an open file is refused.

    Raises:
        TypeError, ValueError: If arguments are wrong; the message names each of them, as does `row_faults`.
    """

    video: Source = field(repr=_shown_source)
    """The source video: an https URL, a `Path`, bytes, or an asset."""
    audio: Source = field(repr=_shown_source)
    """The new audio: an https URL, a `Path`, bytes, or an asset."""
    key: str | None = field(default=None, kw_only=True)
    """Your own name for the row, unique in its journal: 1 to 250 of `A-Z a-z 0-9 _ - : .`. Without one, a key is made
    from everything that is sent, so that two equal rows are one job."""
    output: Output | None = field(default=None, kw_only=True)
    """The file to write, relative to the output folder of the run if that has one."""
    captions: bool | None = field(default=None, kw_only=True)
    """Whether captions are written beside the video, as `.srt`; `None` leaves it to the run."""

    def __attrs_post_init__(self) -> None:
        _refuse(_faults({name: getattr(self, name) for name in _ROW_CHECKS}, _ROW_CHECKS))


# Checks: each raises a TypeError or ValueError whose message starts with the name of the field.

_Check: TypeAlias = Callable[[str, object], None]
_Fault: TypeAlias = tuple[str, TypeError | ValueError]


def check_source(name: str, value: object) -> None:
    """Check that *value* can be the video or audio called *name*; files are not opened here.

    Raises:
        TypeError, ValueError: If it cannot; the message names the argument.
    """
    if isinstance(value, (AssetId, Asset, Path)):
        return
    if isinstance(value, str):
        if not is_https(value):
            raise ValueError(f"{name} must be an https URL; for a local file give a Path: {shown(value)}")
    elif isinstance(value, bytes):
        if not value:
            raise ValueError(f"{name} is empty")
    elif not hasattr(value, "read"):
        raise TypeError(f"{name} must be a URL, a Path, an AssetId or an Asset, not {type(value).__name__}")


def check_title(name: str, value: object) -> None:
    """Check that *value* is a title: one line of text, at most 10,000 characters.

    Raises:
        TypeError, ValueError: If it is not; the message names the argument.
    """
    check_text(name, value)
    if isinstance(value, str) and len(value) > MAX_TITLE:
        raise ValueError(f"{name} must be at most {MAX_TITLE:,} characters, not {len(value):,}")


def _one_of(*words: str | None) -> _Check:
    listed = ", ".join(word for word in words if word)

    def check(name: str, value: object) -> None:
        if not (value is None or isinstance(value, str)) or value not in words:
            raise ValueError(f"{name} must be one of {listed}, not {shown(value)}")

    return check


def _check_lasting_source(name: str, value: object) -> None:
    check_source(name, value)
    if not isinstance(value, (str, bytes, Path, AssetId, Asset)):
        raise TypeError(f"{name} must last for a second attempt: give a Path instead of an open file")


def _check_row_key(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and _ROW_KEY.fullmatch(value)):
        raise ValueError(f"{name} must be 1 to 250 of A-Z a-z 0-9 _ - : . and not {shown(value)}")


def _check_output(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, (str, PathLike)):
        raise TypeError(f"{name} must be a path, not {type(value).__name__}")
    if not Path(value).name:
        raise ValueError(f"{name} must be the name of a file, not {shown(str(value))}")


_REQUEST_CHECKS: Final[Mapping[str, _Check]] = {
    "video": check_source,
    "audio": check_source,
    "mode": _one_of(*get_args(Mode)),
    "title": check_title,
    "enable_caption": check_flag,
    "enable_dynamic_duration": check_flag,
    "disable_music_track": check_flag,
    "enable_speech_enhancement": check_flag,
    "enable_watermark": check_flag,
    "start_time": check_seconds,
    "end_time": check_seconds,
    "keep_the_same_format": check_flag,
    "fps_mode": _one_of(*get_args(FpsMode), None),
    "callback_url": check_callback_url,
    "callback_id": check_text,
    "folder_id": check_text,
}
_ROW_CHECKS: Final[Mapping[str, _Check]] = {
    **_REQUEST_CHECKS,
    "video": _check_lasting_source,
    "audio": _check_lasting_source,
    "key": _check_row_key,
    "output": _check_output,
    "captions": check_flag,
}
_REQUIRED: Final = ("video", "audio")


def row_faults(fields: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return every fault that `DubRow(**fields)` has, as (field, message), in the order of the fields.

    A field that is missing or unknown is a fault too. Nothing is raised, and no file is opened.

    Args:
        fields: Keyword arguments of `DubRow`.

    Returns:
        The faults; empty if the row is valid.
    """
    missing = [(name, f"{name} is missing") for name in _REQUIRED if name not in fields]
    unknown = [(name, f"there is no field {shown(name)}") for name in fields if name not in _ROW_CHECKS]
    return [*missing, *unknown, *((name, str(error)) for name, error in _faults(fields, _ROW_CHECKS))]


def _faults(fields: Mapping[str, object], checks: Mapping[str, _Check]) -> list[_Fault]:
    faults: list[_Fault] = []
    for name, check in checks.items():
        try:
            if name in fields:
                check(name, fields[name])
        except (TypeError, ValueError) as error:
            faults.append((name, error))
    faulty = {name for name, _ in faults}
    start, end = fields.get("start_time") or 0, fields.get("end_time")
    if end is not None and faulty.isdisjoint(("start_time", "end_time")) and cast("float", end) <= cast("float", start):
        faults.append(("end_time", ValueError(f"end_time ({end}) must be after start_time ({start})")))
    return faults


def _refuse(faults: Sequence[_Fault]) -> None:
    """Raise one error that lists all *faults*: a TypeError if all of them are."""
    if faults:
        errors = [error for _, error in faults]
        kind = TypeError if all(isinstance(error, TypeError) for error in errors) else ValueError
        raise kind("; ".join(map(str, errors)))


@frozen(kw_only=True)
class DubOutcome(Model):
    """The outcome of one row of a bulk run."""

    row: DubRow
    key: str
    """The row's key: its own, or the one that was made for it."""
    state: Literal["completed", "unchanged", "failed", "skipped"]
    """`completed`: finished in this run, its file written if there is one to write. `unchanged`: finished by an earlier
    run. `failed`: `.error` says why. `skipped`: left out of this run; `.error` says why."""
    lipsync: Lipsync | None = None
    """The job as this run last saw it."""
    path: Path | None = None
    """The file, if there is one."""
    error: Exception | None = None
    """Why it failed or was skipped."""
    attempts: int = 0
    """How many jobs were created for it, in this run and before."""
    warnings: tuple[str, ...] = ()
    """Problems beside the video, such as captions that could not be downloaded."""
