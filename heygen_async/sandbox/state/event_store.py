"""Webhook endpoints, the history of events, and the deliveries that are due."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from attrs import define, field, frozen

from heygen_async.sandbox.state.paged_store import Ids, PagedStore

EVENT_TYPES: Final[Mapping[str, str]] = {
    "avatar_video.success": "A video has completed.",
    "avatar_video.fail": "A video has failed.",
    "avatar_video_gif.success": "The preview of a video has completed.",
    "avatar_video_gif.fail": "The preview of a video has failed.",
    "video_translate.success": "A translation has completed.",
    "video_translate.fail": "A translation has failed.",
    "proofread_creation.success": "A proofread has completed.",
    "proofread_creation.fail": "A proofread has failed.",
    "ai_clipping.success": "A clipping job has completed.",
    "ai_clipping.fail": "A clipping job has failed.",
    "batch.finished": "All jobs of a batch have ended.",
}
"""The published types and their descriptions; none is of single lipsyncs."""

LIPSYNC_EVENT_TYPES: Final[Mapping[str, str]] = {
    "lipsync.success": "A lipsync has completed.",
    "lipsync.fail": "A lipsync has failed.",
}
"""A guess: the API does not publish these."""

FIRST_DELAY: Final = 10.0
"""Seconds before the second attempt of a delivery."""
GROWTH: Final = 3
GIVEN_UP_AFTER: Final = 24 * 3600.0


@define(eq=False, kw_only=True)
class Endpoint:
    """A URL that is registered for events."""

    id: str
    url: str
    events: Sequence[str] | None
    """The event types; None is all."""
    secret: str = field(repr=False)
    created_at: float
    entity_id: str | None = None
    deleted: bool = False

    def wants(self, event: Event) -> bool:
        """Return whether *event* is delivered to it."""
        return (self.events is None or event.type in self.events) and self.entity_id in {None, event.entity_id}


@frozen(kw_only=True)
class Event:
    """Something that happened."""

    id: str
    type: str
    entity_id: str
    """The lipsync or the batch that it happened to."""
    data: Mapping[str, object] = field(repr=False)
    flat: Mapping[str, object] = field(repr=False)
    """The same as a callback without an envelope."""
    created_at: float


@define(eq=False, kw_only=True)
class QueuedDelivery:
    """An event for one URL, or the probe of a new endpoint."""

    method: Literal["POST", "OPTIONS"] = "POST"
    event: Event | None = None
    target: Endpoint | str
    """An endpoint, as it will be by then, or the `callback_url` of a create."""
    first_due: float
    attempts: int = 0

    @property
    def url(self) -> str:
        """Where it goes."""
        return self.target if isinstance(self.target, str) else self.target.url

    @property
    def is_dropped(self) -> bool:
        """Whether its endpoint was deleted."""
        return not isinstance(self.target, str) and self.target.deleted


_Due: TypeAlias = tuple[float, int, QueuedDelivery]


class EventStore:
    """The endpoints, the history and what is due."""

    def __init__(self, ids: Ids, *, lipsync_events: bool) -> None:
        self._ids = ids
        self._endpoints: PagedStore[Endpoint] = PagedStore("Webhook endpoint", "webhook_not_found")
        self._history: PagedStore[Event] = PagedStore("Event")
        self._due: list[_Due] = []
        self._queued = 0
        self.event_types = {**EVENT_TYPES, **(LIPSYNC_EVENT_TYPES if lipsync_events else {})}
        self.endpoint = self._endpoints.get
        self.endpoints = self._endpoints.page

    # --- endpoints ---------------------------------------------------------------------------------------

    def create(self, url: str, events: Sequence[str] | None, entity_id: str | None, now: float) -> Endpoint:
        """Register a URL, and probe it."""
        endpoint = Endpoint(
            id=self._ids.new("we"),
            url=url,
            events=events,
            secret=self._ids.new("whsec"),
            created_at=now,
            entity_id=entity_id,
        )
        self._endpoints.add(endpoint)
        self._queue(QueuedDelivery(method="OPTIONS", target=endpoint, first_due=now), now)
        return endpoint

    def rotate(self, endpoint_id: str) -> Endpoint:
        """Give an endpoint a new secret, for everything that is sent from now on."""
        endpoint = self.endpoint(endpoint_id)
        endpoint.secret = self._ids.new("whsec")
        return endpoint

    def delete(self, endpoint_id: str) -> None:
        """Delete an endpoint and all deliveries to it that are due."""
        self._endpoints.remove(endpoint_id).deleted = True

    # --- events ------------------------------------------------------------------------------------------

    def new_event_id(self) -> str:
        """Return an id for an event that is about to be added."""
        return self._ids.new("evt")

    def add(self, event: Event, *, callback_url: str | None) -> None:
        """Queue an event for its callback, and for endpoints and history if its type is one of `event_types`."""
        targets: list[Endpoint | str] = [callback_url] if callback_url else []
        if event.type in self.event_types:
            self._history.add(event)
            targets = [*(one for one in self._endpoints if one.wants(event)), *targets]
        for target in targets:
            self._queue(QueuedDelivery(event=event, target=target, first_due=event.created_at), event.created_at)

    def history(
        self, limit: int, before: int | None, *, event_type: str | None, entity_id: str | None
    ) -> tuple[list[Event], int | None]:
        """Return a page of events, newest first, and where the next one starts."""
        found: list[Event] = []
        while len(found) < limit:
            events, before = self._history.page(1, before)
            found += [
                event for event in events if event_type in {None, event.type} and entity_id in {None, event.entity_id}
            ]
            if before is None:
                break
        return found, before

    # --- deliveries --------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when the next delivery is due; None if none is."""
        return self._due[0][0] if self._due else None

    def take(self, now: float) -> list[QueuedDelivery]:
        """Remove and return the deliveries that are due; call `failed` for those that fail."""
        taken: list[QueuedDelivery] = []
        while self._due and self._due[0][0] <= now:
            delivery = heapq.heappop(self._due)[2]
            if not delivery.is_dropped:
                taken.append(delivery)
        return taken

    def failed(self, delivery: QueuedDelivery, now: float) -> None:
        """Queue a failed delivery again, with growing delays, for 24 h. A probe is not repeated."""
        delay = FIRST_DELAY * GROWTH**delivery.attempts
        delivery.attempts += 1
        if delivery.method == "POST" and now + delay <= delivery.first_due + GIVEN_UP_AFTER:
            self._queue(delivery, now + delay)

    def _queue(self, delivery: QueuedDelivery, due: float) -> None:
        self._queued += 1
        heapq.heappush(self._due, (due, self._queued, delivery))
