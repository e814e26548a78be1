"""`session.webhooks`: webhook endpoints, event types and past events. `heygen_async.webhooks` receives events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from operator import attrgetter

from attrs import frozen

from heygen_async._arguments import check_callback_url, check_count, check_text, check_type
from heygen_async._converter import read, read_own, read_page, read_rotated
from heygen_async._ids import check_optional_key
from heygen_async._transport.driver import Transport
from heygen_async._wire import compose
from heygen_async.models import JSON, EventType, Secret, WebhookEndpoint, WebhookEvent
from heygen_async.pagination import MAX_PAGE, Page, Paginator

_ALL = "/v3/webhooks/endpoints"
_ONE = "/v3/webhooks/endpoints/{endpoint_id}"


@frozen
class WebhookEndpoints:
    """Manage webhook endpoints.

    Every call raises `HeyGenError` if the server or the network fails, and `RuntimeError` if the session is closed or
    in use by another event loop.
    """

    _transport: Transport

    async def create(
        self,
        url: str,
        *,
        events: Iterable[str] | None = None,
        entity_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> WebhookEndpoint:
        """Create an endpoint: a URL that HeyGen sends events to.

        HeyGen probes it at once with an `OPTIONS` request, which must be answered within a second. No event type is
        about a single lipsync: use `lipsyncs.create(callback_url=...)` for those, and `batch.finished` for batches.

        Args:
            url: An https URL (http on loopback, where only the sandbox can reach it).
            events: The event types to send, see `event_types`; `None` for all.
            entity_id: The entity whose events to send; `None` for all.
            idempotency_key: Your own key, 1 to 255 of `A-Z a-z 0-9 _ - : .`, for repeating the call after an error
                without creating a second endpoint; one is made by default.

        Returns:
            The endpoint. Only this answer has its `.secret`: store `.secret.reveal()` for the receiver.

        Raises:
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            HeyGenError: With `.idempotency_key`, `.attempts` and `.outcome`, as has a cancellation.
        """
        body: dict[str, JSON] = {"url": url}
        try:
            check_text("entity_id", entity_id)
            _check_url(url)
            if events is not None:
                body["events"] = _checked_events(events)
            if entity_id is not None:
                body["entity_id"] = entity_id
            request = compose("POST", _ALL, json=body, idempotency_key=check_optional_key(idempotency_key))
        except (TypeError, ValueError) as error:
            del url, body  # as below
            raise error.with_traceback(None) from None
        del url, body  # or a traceback with local variables would show the query
        return read(await self._transport.send(request), WebhookEndpoint)

    def list(self, *, page_size: int = MAX_PAGE, token: str | None = None) -> Paginator[WebhookEndpoint]:
        """List the endpoints, without their secrets; nothing is sent before it is iterated.

        Args:
            page_size: Endpoints in one request, 1 to 100.
            token: The cursor to start at, a page's `next_token`; `None` for the first page.

        Returns:
            An iterable of endpoints; iterating raises `HeyGenError` if a page cannot be fetched.

        Raises:
            TypeError, ValueError: If an argument is wrong.
        """
        check_count("page_size", page_size, most=MAX_PAGE)
        return Paginator(partial(self._page, page_size), token=token, identity=attrgetter("id"))

    async def _page(self, page_size: int, token: str | None) -> Page[WebhookEndpoint]:
        request = compose("GET", _ALL, params={"limit": page_size, "token": token})
        return read_page(await self._transport.send(request), WebhookEndpoint)

    async def update(
        self, endpoint_id: str, *, url: str | None = None, events: Iterable[str] | None = None
    ) -> WebhookEndpoint:
        """Change the URL or the event types of an endpoint, and return it.

        Args:
            endpoint_id: The endpoint.
            url: The new URL, as for `create`; `None` leaves it.
            events: The event types to send from now on, instead of the present ones; `None` leaves them.

        Raises:
            TypeError, ValueError: If an argument is wrong, or both are `None`; nothing was sent.
            NotFound: If there is no such endpoint in this account.

        If cancelled, it may have been carried out; `.outcome` of the `CancelledError` says what is known.
        """
        if url is None and events is None:
            raise ValueError("there is nothing to update: give url or events")
        body: dict[str, JSON] = {}
        try:
            if url is not None:
                _check_url(url)
                body["url"] = url
            if events is not None:
                body["events"] = _checked_events(events)
            request = compose("PATCH", _ONE, segments={"endpoint_id": endpoint_id}, json=body)
        except (TypeError, ValueError) as error:
            del url, body  # as below
            raise error.with_traceback(None) from None
        del url, body  # or a traceback with local variables would show the query
        return read_own(await self._transport.send(request), WebhookEndpoint, endpoint_id)

    async def delete(self, endpoint_id: str) -> None:
        """Delete an endpoint. HeyGen sends no more events to it.

        Args:
            endpoint_id: The endpoint.

        Raises:
            TypeError, ValueError: If it is not an id; nothing was sent.
            NotFound: If there is no such endpoint. A retry that no longer finds it, after an attempt without an
                answer, counts as success.

        If cancelled, it may have been carried out; `.outcome` of the `CancelledError` says what is known.
        """
        await self._transport.send(compose("DELETE", _ONE, segments={"endpoint_id": endpoint_id}))

    async def rotate_secret(self, endpoint_id: str, *, idempotency_key: str | None = None) -> Secret:
        """Replace the secret of an endpoint, and return the new one.

        Only this answer has it. Repeated deliveries may still be signed with the old secret, so pass both to the
        receiver for a day.

        Args:
            endpoint_id: The endpoint.
            idempotency_key: Your own key, as for `create`, for repeating the call after an error without rotating
                twice.

        Raises:
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            NotFound: If there is no such endpoint in this account.

        If cancelled, it may have been carried out; another call with the `.idempotency_key` of the `CancelledError`
        returns the secret.
        """
        request = compose(
            "POST",
            f"{_ONE}/rotate-secret",
            segments={"endpoint_id": endpoint_id},
            idempotency_key=check_optional_key(idempotency_key),
        )
        return read_rotated(await self._transport.send(request), endpoint_id)

    async def event_types(self) -> Sequence[EventType]:
        """Return the event types that can be sent to an endpoint.

        Raises:
            HeyGenError: If the server or the network fails.

        Cancelling it affects nothing.
        """
        return await Paginator(self._event_types_page, identity=attrgetter("event_type")).collect()

    async def _event_types_page(self, token: str | None) -> Page[EventType]:
        # No pages are documented for this call, but its answer has the form of one.
        request = compose("GET", "/v3/webhooks/event-types", params={"token": token})
        return read_page(await self._transport.send(request), EventType)

    def events(
        self,
        *,
        event_type: str | None = None,
        entity_id: str | None = None,
        page_size: int = MAX_PAGE,
        token: str | None = None,
    ) -> Paginator[WebhookEvent]:
        """List past events, newest first, delivered or not; nothing is sent before it is iterated.

        Args:
            event_type: Only events of this type; `None` for all.
            entity_id: Only events of this entity, a video for instance; `None` for all.
            page_size: Events in one request, 1 to 100.
            token: The cursor to start at, a page's `next_token`; `None` for the first page.

        Returns:
            An iterable of events; iterating raises `HeyGenError` if a page cannot be fetched.

        Raises:
            TypeError, ValueError: If an argument is wrong.
        """
        check_text("event_type", event_type)
        check_text("entity_id", entity_id)
        check_count("page_size", page_size, most=MAX_PAGE)
        page = partial(self._events_page, event_type, entity_id, page_size)
        return Paginator(page, token=token, identity=attrgetter("event_id"))

    async def _events_page(
        self, event_type: str | None, entity_id: str | None, page_size: int, token: str | None
    ) -> Page[WebhookEvent]:
        params = {"event_type": event_type, "entity_id": entity_id, "limit": page_size, "token": token}
        return read_page(await self._transport.send(compose("GET", "/v3/webhooks/events", params=params)), WebhookEvent)

    def __repr__(self) -> str:
        return "<WebhookEndpoints: create(), list(), update(), delete(), rotate_secret(), event_types(), events()>"


def _check_url(url: str) -> None:
    check_type("url", url, str)
    check_callback_url("url", url)


# A tuple: inside the class `list` is a method.
def _checked_events(events: Iterable[str]) -> tuple[str, ...]:
    if isinstance(events, str):
        raise TypeError("events must be a list of event types, not one string")
    names = tuple(events)
    for name in names:
        check_text("events", name)
    if not names or None in names:
        raise ValueError("events must name at least one event type, or be left out")
    return names
