"""`session.webhooks`: whom HeyGen tells of events. What takes them in is `heygen_async.webhooks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from attrs import frozen

from heygen_async._arguments import check_count, check_text, is_https, without_query
from heygen_async._converter import RotatedSecret, read, read_page
from heygen_async._ids import check_key
from heygen_async._transport.driver import Transport
from heygen_async._wire import compose
from heygen_async.models import JSON, EventType, Secret, WebhookEndpoint, WebhookEvent
from heygen_async.pagination import Page, Paginator

_ALL = "/v3/webhooks/endpoints"
_ONE = "/v3/webhooks/endpoints/{endpoint_id}"


@frozen
class WebhookEndpoints:
    """The calls under `/v3/webhooks`. Every call raises `HeyGenError` for what the server or network does."""

    _transport: Transport

    async def create(
        self,
        url: str,
        *,
        events: Iterable[str] | None = None,
        entity_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> WebhookEndpoint:
        """Have HeyGen tell *url* of events.

        HeyGen tries the address at once, with an `OPTIONS` that is to be answered within a second.

        Args:
            url: An https URL (http is taken for loopback, where only the sandbox can reach it).
            events: The event types to be told of, see `event_types`; `None` for all.
            entity_id: The one thing whose events are wanted; `None` for all.
            idempotency_key: Your own key, for calling again after an error without making a second endpoint.

        Returns:
            The endpoint. Its `.secret` is told this once: store `.secret.reveal()` where the receiver finds it.

        Raises:
            TypeError, ValueError: If an argument is wrong; nothing was sent.
        """
        check_text("entity_id", entity_id)
        body: dict[str, JSON] = {"url": _checked_url(url)}
        if events is not None:
            body["events"] = _checked_events(events)
        if entity_id is not None:
            body["entity_id"] = entity_id
        request = compose("POST", _ALL, json=body, idempotency_key=_checked_key(idempotency_key))
        return read(await self._transport.send(request), WebhookEndpoint)

    def list(self, *, page_size: int = 100, token: str | None = None) -> Paginator[WebhookEndpoint]:
        """List the endpoints, without their secrets; nothing is sent before it is iterated.

        Args:
            page_size: Endpoints in one request, 1 to 100.
            token: The cursor to start at: a page's `next_token`.
        """
        check_count("page_size", page_size, most=100)
        return Paginator(partial(self._page, page_size), token=token)

    async def _page(self, page_size: int, token: str | None) -> Page[WebhookEndpoint]:
        request = compose("GET", _ALL, params={"limit": page_size, "token": token})
        return read_page(await self._transport.send(request), WebhookEndpoint)

    async def update(
        self, endpoint_id: str, *, url: str | None = None, events: Iterable[str] | None = None
    ) -> WebhookEndpoint:
        """Change the address of an endpoint, or what it is told of; what is left out stays.

        Args:
            endpoint_id: The endpoint.
            url: As for `create`.
            events: All the event types to be told of from now on, in place of those of before.

        Raises:
            TypeError, ValueError: If an argument is wrong, or there is nothing to change.
            NotFound: If there is no such endpoint in this account.
        """
        body: dict[str, JSON] = {}
        if url is not None:
            body["url"] = _checked_url(url)
        if events is not None:
            body["events"] = _checked_events(events)
        if not body:
            raise ValueError("there is nothing to update: give url or events")
        request = compose("PATCH", _ONE, segments={"endpoint_id": endpoint_id}, json=body)
        return read(await self._transport.send(request), WebhookEndpoint)

    async def delete(self, endpoint_id: str) -> None:
        """Delete an endpoint: it is told of nothing any more.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such endpoint; but not if an attempt without an answer has deleted it.
        """
        await self._transport.send(compose("DELETE", _ONE, segments={"endpoint_id": endpoint_id}))

    async def rotate_secret(self, endpoint_id: str, *, idempotency_key: str | None = None) -> Secret:
        """Give an endpoint another secret, and return it: it is told this once.

        What is delivered again may still be signed with the old one, so let the receiver take both for a day.

        Args:
            endpoint_id: The endpoint.
            idempotency_key: Your own key, for calling again after an error without rotating twice.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such endpoint in this account.
        """
        request = compose(
            "POST",
            f"{_ONE}/rotate-secret",
            segments={"endpoint_id": endpoint_id},
            idempotency_key=_checked_key(idempotency_key),
        )
        return read(await self._transport.send(request), RotatedSecret).secret

    async def event_types(self) -> Sequence[EventType]:
        """Return the kinds of events that there are."""
        return read_page(await self._transport.send(compose("GET", "/v3/webhooks/event-types")), EventType).items

    def events(
        self,
        *,
        event_type: str | None = None,
        entity_id: str | None = None,
        page_size: int = 100,
        token: str | None = None,
    ) -> Paginator[WebhookEvent]:
        """List what has happened, newest first, delivered or not; nothing is sent before it is iterated.

        Args:
            event_type: Only events of this type.
            entity_id: Only events of this thing, a lipsync for instance.
            page_size: Events in one request, 1 to 100.
            token: The cursor to start at: a page's `next_token`.
        """
        check_text("event_type", event_type)
        check_text("entity_id", entity_id)
        check_count("page_size", page_size, most=100)
        return Paginator(partial(self._events_page, event_type, entity_id, page_size), token=token)

    async def _events_page(
        self, event_type: str | None, entity_id: str | None, page_size: int, token: str | None
    ) -> Page[WebhookEvent]:
        params = {"event_type": event_type, "entity_id": entity_id, "limit": page_size, "token": token}
        return read_page(await self._transport.send(compose("GET", "/v3/webhooks/events", params=params)), WebhookEvent)


def _checked_url(url: str) -> str:
    check_text("url", url)
    if not is_https(url, or_loopback=True):
        raise ValueError(f"url must be an https URL (http is taken for loopback), not {without_query(url)}")
    return url


# A tuple: inside the class `list` is a method.
def _checked_events(events: Iterable[str]) -> tuple[str, ...]:
    if isinstance(events, str):
        raise TypeError("events is one string; give a list of event types")
    names = tuple(events)
    for name in names:
        check_text("events", name)
    if not names or None in names:
        raise ValueError("events must name at least one event type; leave it out for all of them")
    return names


def _checked_key(key: str | None) -> str | None:
    return None if key is None else check_key(key)
