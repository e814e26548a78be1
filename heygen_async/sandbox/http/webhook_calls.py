"""Webhook endpoints and the history of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from heygen_async.sandbox.error_answers import invalid
from heygen_async.sandbox.http import validation
from heygen_async.sandbox.http.calls import Call, CallAnswer, Handler, data, listed
from heygen_async.sandbox.http.validation import Check
from heygen_async.sandbox.state.clock import Clock
from heygen_async.sandbox.state.event_store import Endpoint, Event, EventStore

_DEFAULT_LIMIT: Final = 10


@frozen
class WebhookCalls:
    """The calls under `/v3/webhooks`."""

    events: EventStore
    clock: Clock

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by route."""
        return {
            "POST /v3/webhooks/endpoints": self.create,
            "GET /v3/webhooks/endpoints": self.list,
            "PATCH /v3/webhooks/endpoints/{endpoint_id}": self.update,
            "DELETE /v3/webhooks/endpoints/{endpoint_id}": self.delete,
            "POST /v3/webhooks/endpoints/{endpoint_id}/rotate-secret": self.rotate,
            "GET /v3/webhooks/event-types": self.event_types,
            "GET /v3/webhooks/events": self.history,
        }

    def create(self, call: Call) -> CallAnswer:
        """`POST /v3/webhooks/endpoints`."""
        body = validation.fields(call.body, {**self._shape(), "entity_id": validation.text}, required=("url",))
        entity_id = validation.text_in(body, "entity_id")
        endpoint = self.events.create(str(body["url"]), _names(body.get("events")), entity_id, call.now)
        return data({**self._view(endpoint), "secret": endpoint.secret})

    def list(self, call: Call) -> CallAnswer:
        """`GET /v3/webhooks/endpoints`."""
        found, before = self.events.endpoints(*validation.page(call.query, "endpoints", _DEFAULT_LIMIT))
        return listed([self._view(one) for one in found], "endpoints", before)

    def update(self, call: Call) -> CallAnswer:
        """`PATCH /v3/webhooks/endpoints/{endpoint_id}`."""
        endpoint = self.events.endpoint(self._id(call))
        body = validation.fields(call.body, self._shape(), required=())
        endpoint.url = str(body.get("url", endpoint.url))
        endpoint.events = _names(body["events"]) if "events" in body else endpoint.events
        return data(self._view(endpoint))

    def delete(self, call: Call) -> CallAnswer:
        """`DELETE /v3/webhooks/endpoints/{endpoint_id}`."""
        endpoint_id = self._id(call)
        self.events.delete(endpoint_id)
        return data({"endpoint_id": endpoint_id})

    def rotate(self, call: Call) -> CallAnswer:
        """`POST /v3/webhooks/endpoints/{endpoint_id}/rotate-secret`."""
        validation.fields(call.body, {}, required=())
        endpoint = self.events.rotate(self._id(call))
        return data({"endpoint_id": endpoint.id, "secret": endpoint.secret})

    def event_types(self, call: Call) -> CallAnswer:
        """`GET /v3/webhooks/event-types`."""
        validation.query(call.query, ())
        types = self.events.event_types.items()
        return listed([{"event_type": name, "description": text} for name, text in types], "types")

    def history(self, call: Call) -> CallAnswer:
        """`GET /v3/webhooks/events`."""
        limit, start = validation.page(call.query, "events", _DEFAULT_LIMIT, also=("event_type", "entity_id"))
        found, before = self.events.history(
            limit, start, event_type=call.query.get("event_type"), entity_id=call.query.get("entity_id")
        )
        return listed([self._event_view(event) for event in found], "events", before)

    def _id(self, call: Call) -> str:
        return validation.identifier(call.path["endpoint_id"], "endpoint_id")

    def _shape(self) -> Mapping[str, Check]:
        return {"url": validation.callback_url, "events": self._check_types}

    def _check_types(self, value: object, name: str) -> None:
        known = self.events.event_types
        names = value if isinstance(value, list) else []
        is_list = names != [] and all(isinstance(one, str) and one in known for one in names)
        if value is not None and not is_list:
            raise invalid(f"{name} must be null or a list of some of {', '.join(known)}.", name)

    def _view(self, endpoint: Endpoint) -> dict[str, object]:
        return {
            "endpoint_id": endpoint.id,
            "url": endpoint.url,
            "events": endpoint.events,
            "status": "enabled",
            "created_at": self.clock.iso(endpoint.created_at),
        }

    def _event_view(self, event: Event) -> dict[str, object]:
        return {
            "event_id": event.id,
            "event_type": event.type,
            "event_data": event.data,
            "created_at": self.clock.iso(event.created_at),
        }


def _names(value: object) -> Sequence[str] | None:
    return [str(one) for one in value] if isinstance(value, list) else None
