"""Registered webhook endpoints and the history of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from heygen_async.sandbox import strict
from heygen_async.sandbox.clock import Clock, iso
from heygen_async.sandbox.refusals import invalid
from heygen_async.sandbox.routes import Answer, Call, Handler, data, listed
from heygen_async.sandbox.strict import Check
from heygen_async.sandbox.webhooks import Endpoint, Webhooks

_DEFAULT_LIMIT: Final = 10


@frozen
class WebhookRoutes:
    """The calls under `/v3/webhooks`."""

    webhooks: Webhooks
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
            "GET /v3/webhooks/events": self.events,
        }

    def create(self, call: Call) -> Answer:
        """`POST /v3/webhooks/endpoints`."""
        shape: Mapping[str, Check] = {
            "url": strict.callback_url,
            "events": self._check_events,
            "entity_id": strict.text,
        }
        body = strict.fields(call.body, shape, required=("url",))
        entity_id = body.get("entity_id")
        endpoint = self.webhooks.create(
            str(body["url"]),
            _names(body.get("events")),
            entity_id if isinstance(entity_id, str) else None,
            call.now,
        )
        return data({**self._view(endpoint), "secret": endpoint.secret})

    def list(self, call: Call) -> Answer:
        """`GET /v3/webhooks/endpoints`."""
        found, before = self.webhooks.page(*strict.page(call.query, "endpoints", _DEFAULT_LIMIT))
        return listed([self._view(one) for one in found], "endpoints", before)

    def update(self, call: Call) -> Answer:
        """`PATCH /v3/webhooks/endpoints/{endpoint_id}`."""
        endpoint = self.webhooks.get(self._id(call))
        body = strict.fields(call.body, {"url": strict.callback_url, "events": self._check_events}, required=())
        endpoint.url = str(body.get("url", endpoint.url))
        endpoint.events = _names(body["events"]) if "events" in body else endpoint.events
        return data(self._view(endpoint))

    def delete(self, call: Call) -> Answer:
        """`DELETE /v3/webhooks/endpoints/{endpoint_id}`."""
        endpoint_id = self._id(call)
        self.webhooks.delete(endpoint_id)
        return data({"endpoint_id": endpoint_id})

    def rotate(self, call: Call) -> Answer:
        """`POST /v3/webhooks/endpoints/{endpoint_id}/rotate-secret`."""
        strict.fields(call.body, {}, required=())
        endpoint = self.webhooks.rotate(self._id(call))
        return data({"endpoint_id": endpoint.id, "secret": endpoint.secret})

    def event_types(self, call: Call) -> Answer:
        """`GET /v3/webhooks/event-types`."""
        strict.query(call.query, ())
        kinds = self.webhooks.event_types.items()
        return listed([{"event_type": name, "description": text} for name, text in kinds], "types", None)

    def events(self, call: Call) -> Answer:
        """`GET /v3/webhooks/events`."""
        limit, start = strict.page(call.query, "events", _DEFAULT_LIMIT, also=("event_type", "entity_id"))
        found, before = self.webhooks.history(
            limit, start, event_type=call.query.get("event_type"), entity_id=call.query.get("entity_id")
        )
        rows: list[dict[str, object]] = [
            {
                "event_id": event.id,
                "event_type": event.type,
                "event_data": event.data,
                "created_at": iso(self.clock.wall(event.created_at)),
            }
            for event in found
        ]
        return listed(rows, "events", before)

    def _check_events(self, value: object, name: str) -> None:
        known = self.webhooks.event_types
        if value is not None and (not isinstance(value, list) or not value or any(one not in known for one in value)):
            raise invalid(f"{name} must be null or a list of some of {', '.join(known)}.", name)

    def _id(self, call: Call) -> str:
        return strict.identifier(call.path["endpoint_id"], "endpoint_id")

    def _view(self, endpoint: Endpoint) -> dict[str, object]:
        return {
            "endpoint_id": endpoint.id,
            "url": endpoint.url,
            "events": endpoint.events,
            "status": "enabled",
            "created_at": iso(self.clock.wall(endpoint.created_at)),
        }


def _names(value: object) -> Sequence[str] | None:
    return [str(one) for one in value] if isinstance(value, list) else None
