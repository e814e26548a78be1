"""Carries deliveries out: over HTTP, to this machine only."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson
from attrs import frozen

from heygen_async.sandbox.clock import Clock, iso
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.strict import is_loopback
from heygen_async.sandbox.webhooks import Delivery, Endpoint, Event, Webhooks

_ANSWER_WITHIN: Final = 10.0
_PROBE_WITHIN: Final = 1.0
_JSON: Final = {"Content-Type": "application/json"}


@frozen(kw_only=True)
class RecordedDelivery:
    """One attempt to tell somebody of something."""

    event_id: str | None
    """None for the probe of a new endpoint."""
    url: str
    at: float
    """When, in seconds of sandbox time."""
    status: int | None
    """What was answered; None if nothing was, or if the URL is not on this machine."""

    @property
    def is_taken(self) -> bool:
        """Whether the answer was a 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - the class of successes


class Courier:
    """Delivers what is due: by itself in `run`, or when told to in `flush`."""

    def __init__(
        self,
        webhooks: Webhooks,
        clock: Clock,
        settings: Settings,
        *,
        settle: Callable[[], float],
        next_due: Callable[[], float | None],
    ) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self._settings = settings
        self._settle = settle
        self._next_due = next_due
        self._changed = asyncio.Event()
        self.records: list[RecordedDelivery] = []

    def look(self) -> None:
        """Make `run` look again at what is due: something has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled; a slow receiver holds up nobody else."""
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for delivery in self._webhooks.take(self._settle()):
                    group.create_task(self._deliver(http, delivery))
                await self._wait_until(self._next_due())

    async def flush(self) -> None:
        """Deliver what is due now, and return once it has been answered."""
        due = self._webhooks.take(self._settle())
        if not due:
            return
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            for delivery in due:
                group.create_task(self._deliver(http, delivery))

    async def _wait_until(self, due: float | None) -> None:
        try:
            async with asyncio.timeout(None if due is None else self._clock.until(due)):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _deliver(self, http: aiohttp.ClientSession, delivery: Delivery) -> None:
        at = self._clock.now()
        status = await self._send(http, delivery) if is_loopback(urlsplit(delivery.url).hostname or "") else None
        event_id = None if delivery.event is None else delivery.event.id
        record = RecordedDelivery(event_id=event_id, url=delivery.url, at=at, status=status)
        self.records.append(record)
        if not record.is_taken:
            self._webhooks.failed(delivery, at)
            self.look()

    async def _send(self, http: aiohttp.ClientSession, delivery: Delivery) -> int | None:
        body, headers = self._message(delivery.event, delivery.target)
        within = aiohttp.ClientTimeout(total=_PROBE_WITHIN if delivery.event is None else _ANSWER_WITHIN)
        try:
            async with http.request(
                delivery.method, delivery.url, data=body, headers=headers, timeout=within, allow_redirects=False
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
            return None

    def _message(self, event: Event | None, target: Endpoint | str) -> tuple[bytes, dict[str, str]]:
        if event is None:
            return b"", {}
        if isinstance(target, Endpoint):
            body = orjson.dumps(self._envelope(event))
            return body, self._headers(event, body, target.secret)
        secret = self._settings.callback_secret
        if self._settings.callback_shape == "event":
            body = orjson.dumps({"event_type": event.type, "event_data": event.data})
            return body, self._headers(event, body, secret)
        body = orjson.dumps(event.flat)
        return body, _JSON if secret is None else self._headers(event, body, secret)

    def _envelope(self, event: Event) -> dict[str, object]:
        created_at = iso(self._clock.wall(event.created_at))
        return {"event_id": event.id, "event_type": event.type, "event_data": event.data, "created_at": created_at}

    def _headers(self, event: Event, body: bytes, secret: str | None) -> dict[str, str]:
        # The timestamp is the real time even where the sandbox's own runs faster: the receiver compares it with its.
        headers = {**_JSON, "Heygen-Timestamp": str(int(time.time())), "Heygen-Event-Id": event.id}
        if secret is not None:
            signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            headers[self._settings.signature_header] = signature
        return headers
