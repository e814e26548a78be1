"""What the API answers: jobs, batches, assets, the account and its key, webhook endpoints and events.

The models have no slots: their classes and instances are made in less time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from attrs import Factory, field, frozen

from heygen_async._arguments import quoted, quoted_word, shown, without_query
from heygen_async._models.contract import contract
from heygen_async._models.model import JSON, Model, Secret


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
_NO_COUNTS: Final[Mapping[str, int]] = {}

# When a field with a default is there all the same, and how its time is written: for reports on drift only.
_ALWAYS: Final = contract(when={})
_COMPLETED: Final = contract(when={"status": "completed"})
_FAILED: Final = contract(when={"status": "failed"})
_UNIX_TIME: Final = contract(when={}, time="unix")
_ISO_TIME: Final = contract(when={}, time="iso")


@frozen(kw_only=True, slots=False)
class Lipsync(Model):
    """A lipsync job, as `GET /v3/lipsyncs/{lipsync_id}` and the list return it."""

    id: str = field(repr=quoted_word)
    status: LipsyncStatus | str = field(repr=quoted_word)
    """A `LipsyncStatus`, or the server's own word if it is new; compares with plain strings either way."""
    title: str | None = field(default=None, repr=quoted)
    duration: float | None = field(default=None, metadata=_COMPLETED)
    """Length of the output in seconds; known once completed."""
    video_url: str | None = field(default=None, repr=without_query, metadata=_COMPLETED)
    """Presigned link to the output, a secret that expires; get the lipsync again for a fresh one."""
    caption_url: str | None = field(default=None, repr=without_query, metadata=_COMPLETED)
    """Presigned link to the captions (SRT). Every completed job has one; the file may be empty."""
    callback_id: str | None = field(default=None, repr=quoted)
    """The caller's own id, as given to the create."""
    created_at: datetime | None = field(default=None, metadata=_UNIX_TIME)
    """Aware, UTC."""
    failure_message: str | None = field(default=None, repr=quoted, metadata=_FAILED)
    """Why it failed; only when failed."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended. An unknown status has not."""
        return self.status in TERMINAL


@frozen(kw_only=True, slots=False)
class Batch(Model):
    """A batch of lipsyncs, as `GET /v3/lipsyncs/batches/{batch_id}` returns it."""

    id: str = field(repr=quoted_word)
    status: LipsyncStatus | str = field(repr=quoted_word)
    """`running` (the API says `processing`), `completed` or `failed`."""
    counts_by_status: Mapping[str, int] = field(default=_NO_COUNTS, metadata=_ALWAYS)
    """How many items are in each state, in the words of `LipsyncStatus`."""
    total_items: int = field(
        default=Factory(lambda batch: sum(batch.counts_by_status.values()), takes_self=True), metadata=_ALWAYS
    )
    """How many items there are; the sum of `counts_by_status` if the API does not say."""
    created_at: datetime | None = field(default=None, metadata=_UNIX_TIME)
    """Aware, UTC."""
    title: str | None = field(default=None, repr=quoted)
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def is_terminal(self) -> bool:
        """Whether all of its items have ended."""
        return self.status in TERMINAL


@frozen(kw_only=True, slots=False)
class BatchItem(Model):
    """One lipsync of a batch."""

    item_index: int
    """Its position in the list that the batch was created from, from 0."""
    status: LipsyncStatus | str = field(repr=quoted_word)
    lipsync_id: str | None = field(default=None, repr=quoted_word)
    """The job, once the server has created it."""
    error: str | None = field(default=None, repr=quoted, metadata=_FAILED)
    """Why this item failed; the others are not affected."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True, slots=False)
class Asset(Model):
    """An uploaded file. Which fields are known depends on the call that returned it."""

    id: str = field(repr=quoted_word)
    url: str | None = field(default=None, repr=without_query)
    """Link to the file, which may be presigned: a secret that expires."""
    mime_type: str | None = field(default=None, repr=quoted_word)
    size_bytes: int | None = None
    name: str | None = field(default=None, repr=quoted_word)
    type: str | None = field(default=None, repr=quoted_word)
    status: str | None = field(default=None, repr=quoted_word)
    """The server's own word: an asset that is `processing` cannot be used yet."""
    uploaded_at: datetime | None = None
    """Aware, UTC."""
    folder_id: str | None = field(default=None, repr=quoted_word)
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)


@frozen(kw_only=True, slots=False)
class Wallet(Model):
    """The balance of a prepaid account."""

    currency: str = field(default="", metadata=_ALWAYS)
    """`usd` or `credits`; empty if the API does not say."""
    remaining_balance: float | None = None
    """In `currency`."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read, such as `auto_reload`."""


@frozen(kw_only=True, slots=False)
class Credits(Model):
    """Credits of one kind."""

    remaining: float | None = None
    resets_at: datetime | None = None
    """When they are renewed; aware, UTC."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True, slots=False)
class SubscriptionCredits(Model):
    """The credits of a subscription, by kind."""

    premium_credits: Credits | None = None
    add_on_credits: Credits | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True, slots=False)
class Subscription(Model):
    """The plan of an account that pays by subscription."""

    plan: str | None = None
    credits: SubscriptionCredits | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True, slots=False)
class UsageBased(Model):
    """The figures of an account that pays by usage."""

    spending_cap_usd: float | None = None
    spending_current_usd: float | None = None
    remaining_credits: float | None = None
    included_credits: float | None = None
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True, slots=False)
class Account(Model):
    """The account of the key, as `GET /v3/users/me` returns it."""

    username: str = field(default="", metadata=_ALWAYS)
    """Empty if the API does not say."""
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    billing_type: str | None = None
    """`wallet`, `subscription` or `usage_based`: which of the three below is filled in."""
    wallet: Wallet | None = field(default=None, metadata=contract(when={"billing_type": "wallet"}))
    subscription: Subscription | None = field(default=None, metadata=contract(when={"billing_type": "subscription"}))
    usage_based: UsageBased | None = field(default=None, metadata=contract(when={"billing_type": "usage_based"}))
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True, slots=False)
class ApiKey(Model):
    """The API key that a session uses, as `GET /v3/api_keys/self` returns it. The key itself is not in it."""

    key_id: str
    key_name: str | None = field(default=None, metadata=_ALWAYS)
    status: str | None = field(default=None, metadata=_ALWAYS)
    """The server's own word."""
    scope_mode: str | None = field(default=None, metadata=_ALWAYS)
    """The server's own word for how `scopes` are meant."""
    scopes: Sequence[str] = field(default=(), metadata=_ALWAYS)
    """What the key may do, such as `lipsync:write` and `account:read`; `*:*` is everything."""
    created_at: datetime | None = field(default=None, metadata=_ALWAYS)
    """Aware, UTC, as the two below."""
    updated_at: datetime | None = field(default=None, metadata=_ALWAYS)
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


@frozen(kw_only=True, slots=False)
class WebhookEndpoint(Model):
    """A URL that HeyGen sends events to, as the calls under `/v3/webhooks/endpoints` return it."""

    id: str
    url: str = field(default="", repr=without_query, metadata=_ALWAYS)
    """Empty if the API does not say."""
    events: Sequence[str] | None = None
    """The event types that are sent to it; `None` for all of them."""
    status: str | None = field(default=None, metadata=_ALWAYS)
    """`enabled`, or the server's own word."""
    created_at: datetime | None = field(default=None, metadata=_ISO_TIME)
    """Aware, UTC."""
    secret: Secret | None = None
    """The secret that deliveries are signed with. Only a create returns it: store `.reveal()` then."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Fields that this version does not know or cannot read."""

    def __hash__(self) -> int:
        return hash(self.id)


@frozen(kw_only=True, slots=False)
class EventType(Model):
    """A type of event that can be sent to an endpoint."""

    event_type: str
    """Such as `video_translate.success` or `batch.finished`."""
    description: str | None = field(default=None, metadata=_ALWAYS)
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False, hash=False)
    """Fields that this version does not know or cannot read."""


@frozen(kw_only=True, slots=False)
class WebhookEvent(Model):
    """An event of a delivery: a hint to get the job, since the API does not specify its contents."""

    event_id: str = field(repr=quoted_word)
    """The same in every delivery of this event."""
    event_type: str = field(default="", repr=quoted_word, metadata=_ALWAYS)
    """Such as `batch.finished`; empty if there is none, as in a plain callback."""
    lipsync_id: str | None = field(default=None, repr=quoted_word)
    """The job, under whichever name it came."""
    batch_id: str | None = field(default=None, repr=quoted_word)
    """The batch, for `batch.finished`."""
    callback_id: str | None = field(default=None, repr=quoted)
    """The caller's own id, as given to the create."""
    outcome: LipsyncStatus | None = None
    """`completed` or `failed`, by the event type or the status in it; `None` if neither says."""
    video_url: str | None = field(default=None, repr=without_query)
    """Link to the output, a secret that expires."""
    failure_message: str | None = field(default=None, repr=quoted)
    """Why it failed."""
    data: Mapping[str, JSON] = field(default=_NOTHING, repr=False, metadata=_ALWAYS)
    """The `event_data` as it was received, or the members of a plain callback."""
    created_at: datetime | None = None
    """When it happened, if the delivery says so; aware, UTC."""
    extra: Mapping[str, JSON] = field(default=_NOTHING, repr=False)
    """Other members beside `event_data`."""

    def __hash__(self) -> int:
        return hash(self.event_id)
