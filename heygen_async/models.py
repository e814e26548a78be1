"""The nouns of the API: frozen values with open enums.

A status or code that this version does not know stays the plain string that the server sent. Fields that it
does not know are kept in `.extra`. Times are aware datetimes in UTC; lengths are seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, TypeAlias, TypedDict
from urllib.parse import urlsplit

from attrs import field, frozen

__all__ = (
    "JSON",
    "Account",
    "Asset",
    "Batch",
    "BatchItem",
    "FpsMode",
    "Lipsync",
    "LipsyncStatus",
    "Mode",
    "Secret",
    "Wallet",
)

JSON: TypeAlias = "None | bool | int | float | str | Sequence[JSON] | Mapping[str, JSON]"
"""Any JSON value."""

Mode: TypeAlias = Literal["speed", "precision"]
FpsMode: TypeAlias = Literal["vfr", "cfr", "passthrough"]


class LipsyncStatus(enum.StrEnum):
    """Where a job is, in the words of `GET /v3/lipsyncs/{id}`.

    `queued` and `processing`, which bulk answers use, read as `PENDING` and `RUNNING`.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    NOT_FOUND = "not_found"


TERMINAL: Final = frozenset({LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND})
"""The states that a job does not leave. An unknown word is not among them."""


class Secret:
    """A string that prints as `****`, so that it reaches no log, no traceback and no repr."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('****')"

    def __str__(self) -> str:
        return "****"

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))


def without_query(url: str | None) -> str:
    """Return the repr of *url* less its query, which in a presigned link is a secret."""
    if url is None:
        return "None"
    return repr(urlsplit(url)._replace(query="...").geturl() if "?" in url else url)


_EMPTY: Final[Mapping[str, JSON]] = {}


@frozen(kw_only=True)
class Lipsync:
    """A lipsync job, as `GET /v3/lipsyncs/{lipsync_id}` and the list tell it."""

    id: str
    status: LipsyncStatus | str
    """A `LipsyncStatus`, or the server's own word if it is new; compares with plain strings either way."""
    title: str | None = None
    duration: float | None = None
    """Length of the output in seconds; known once completed."""
    video_url: str | None = field(default=None, repr=without_query)
    """Presigned link to the output, a secret that expires; get the lipsync again for a fresh one."""
    caption_url: str | None = field(default=None, repr=without_query)
    """Presigned link to the captions (SRT), if they were asked for."""
    callback_id: str | None = None
    """The caller's own id, as given to the create."""
    created_at: datetime | None = None
    """Aware, UTC."""
    failure_message: str | None = None
    """Why it failed; only when failed."""
    extra: Mapping[str, JSON] = field(default=_EMPTY, repr=False)
    """Fields that this version of the library does not know."""

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended. An unknown status has not."""
        return self.status in TERMINAL


@frozen(kw_only=True)
class Batch:
    """A batch of lipsyncs, as `GET /v3/lipsyncs/batches/{batch_id}` tells it."""

    id: str
    status: LipsyncStatus | str
    """`running` (the API says `processing`), `completed` or `failed`."""
    total_items: int
    counts_by_status: Mapping[str, int] = _EMPTY
    """How many items are in each state, in the words of `LipsyncStatus`."""
    created_at: datetime | None = None
    title: str | None = None
    extra: Mapping[str, JSON] = field(default=_EMPTY, repr=False)

    @property
    def is_terminal(self) -> bool:
        """Whether all of its items have ended."""
        return self.status in TERMINAL


@frozen(kw_only=True)
class BatchItem:
    """One lipsync of a batch."""

    item_index: int
    """Its place in the list that the batch was created from, from 0."""
    status: LipsyncStatus | str
    lipsync_id: str | None = None
    """The job, once the server has made it."""
    error: str | None = None
    """Why this item failed; the others are not touched by it."""
    extra: Mapping[str, JSON] = field(default=_EMPTY, repr=False)


@frozen(kw_only=True)
class Asset:
    """An uploaded file. Which fields are known depends on the call that told of it."""

    id: str
    url: str | None = field(default=None, repr=without_query)
    mime_type: str | None = None
    size_bytes: int | None = None
    name: str | None = None
    type: str | None = None
    status: str | None = None
    uploaded_at: datetime | None = None
    folder_id: str | None = None
    extra: Mapping[str, JSON] = field(default=_EMPTY, repr=False)


@frozen(kw_only=True)
class Wallet:
    """What a pay-as-you-go account has left."""

    currency: str
    """`usd` or `credits`."""
    remaining_balance: float | None = None
    """In `currency`."""
    extra: Mapping[str, JSON] = field(default=_EMPTY, repr=False)


@frozen(kw_only=True)
class Account:
    """Who the key belongs to, as `GET /v3/users/me` tells it."""

    username: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    billing_type: str | None = None
    """`wallet`, `subscription` or `usage_based`."""
    wallet: Wallet | None = None
    subscription: Mapping[str, JSON] | None = None
    usage_based: Mapping[str, JSON] | None = None
    extra: Mapping[str, JSON] = field(default=_EMPTY, repr=False)
