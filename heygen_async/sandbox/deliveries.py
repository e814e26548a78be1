"""Webhooks and callbacks: the events of what has ended, and their delivery over HTTP, to this machine only."""

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

from heygen_async.sandbox.http.validation import is_loopback
from heygen_async.sandbox.records import RecordedDelivery
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.clock import Clock
from heygen_async.sandbox.state.event_store import Endpoint, Event, EventStore, QueuedDelivery
from heygen_async.sandbox.state.signed_links import SignedLinks
from heygen_async.sandbox.state.world import SimulatedBatch, SimulatedJob

_ANSWER_WITHIN: Final = 10.0
_PROBE_WITHIN: Final = 1.0
_CONNECTIONS: Final = 100
"""To one receiver at once."""
_JSON: Final = {"Content-Type": "application/json"}


@frozen
class EventWriter:
    """Writes the events of what has ended.

    Their words differ on purpose (`url` here, `msg` there): so do the API's, and a receiver has to accept all of them.
    """

    events: EventStore
    links: SignedLinks
    clock: Clock

    def write(self, ended: SimulatedJob | SimulatedBatch) -> None:
        """Add the event of the end of a job or a batch."""
        at = ended.ended_at or 0.0
        event = self._batch_event(ended, at) if isinstance(ended, SimulatedBatch) else self._job_event(ended, at)
        self.events.add(event, callback_url=ended.callback_url)

    def _batch_event(self, batch: SimulatedBatch, at: float) -> Event:
        status, counts = batch.state(at), batch.counts(at)
        data: dict[str, object] = {"batch_id": batch.id, "status": status, "counts_by_status": counts}
        return self._event("batch.finished", batch.id, at, data=data, flat=data)

    def _job_event(self, job: SimulatedJob, at: float) -> Event:
        callback_id, failure = job.body.get("callback_id"), job.failure_message
        flat: dict[str, object] = {"lipsync_id": job.id, "status": job.state(at), "callback_id": callback_id}
        data: dict[str, object] = {"lipsync_id": job.id, "callback_id": callback_id}
        if failure is not None:
            data, flat = {**data, "msg": failure}, {**flat, "failure_message": failure}
            return self._event("lipsync.fail", job.id, at, data=data, flat=flat)
        link = self.links.sign("GET", f"/files/{job.video_name}", self.clock.wall(at))
        data, flat = {**data, "url": link}, {**flat, "video_url": link}
        return self._event("lipsync.success", job.id, at, data=data, flat=flat)

    def _event(
        self, event_type: str, entity_id: str, at: float, *, data: dict[str, object], flat: dict[str, object]
    ) -> Event:
        event_id = self.events.new_event_id()
        return Event(id=event_id, type=event_type, entity_id=entity_id, data=data, flat=flat, created_at=at)


def _client() -> aiohttp.ClientSession:
    """Return a client whose connections to one receiver do not keep another waiting."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, limit_per_host=_CONNECTIONS))


class DeliveryWorker:
    """Delivers what is due: continuously in `run`, or once in `flush`."""

    def __init__(
        self,
        events: EventStore,
        clock: Clock,
        settings: Settings,
        *,
        settle: Callable[[], float],
        next_due: Callable[[], float | None],
    ) -> None:
        self._events = events
        self._clock = clock
        self._settings = settings
        self._settle = settle
        self._next_due = next_due
        self._woken = asyncio.Event()
        self.records: list[RecordedDelivery] = []

    def wake(self) -> None:
        """Make `run` look again at what is due, because something has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled; a slow receiver does not hold up the others."""
        async with _client() as http, asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                for delivery in self._events.take(self._settle()):
                    group.create_task(self._deliver(http, delivery))
                await self._wait_until(self._next_due())

    async def flush(self) -> None:
        """Deliver what is due now, and return once it has been answered."""
        due = self._events.take(self._settle())
        if not due:
            return
        async with _client() as http, asyncio.TaskGroup() as group:
            for delivery in due:
                group.create_task(self._deliver(http, delivery))

    async def _wait_until(self, due: float | None) -> None:
        try:
            async with asyncio.timeout(None if due is None else self._clock.until(due)):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _deliver(self, http: aiohttp.ClientSession, delivery: QueuedDelivery) -> None:
        at, status = self._clock.now(), None
        try:
            if is_loopback(urlsplit(delivery.url).hostname or ""):
                status = await self._send(http, delivery)
        finally:  # one that is cancelled has failed, so that it is made again
            self._note(delivery, at, status)

    def _note(self, delivery: QueuedDelivery, at: float, status: int | None) -> None:
        event_id = None if delivery.event is None else delivery.event.id
        record = RecordedDelivery(event_id=event_id, url=delivery.url, at=at, status=status)
        self.records.append(record)
        if not record.is_taken:
            self._events.failed(delivery, at)
            self.wake()

    async def _send(self, http: aiohttp.ClientSession, delivery: QueuedDelivery) -> int | None:
        body, headers = self._message(delivery.event, delivery.target)
        seconds = _PROBE_WITHIN if delivery.event is None else _ANSWER_WITHIN
        within = aiohttp.ClientTimeout(sock_connect=seconds, sock_read=seconds)  # without the wait for a connection
        try:
            async with http.request(
                delivery.method, delivery.url, data=body, headers=headers, timeout=within, allow_redirects=False
            ) as answer:
                return answer.status
        # A TimeoutError is an OSError. A ValueError is for a URL that can be a URL, but not be sent to.
        except (aiohttp.ClientError, OSError, ValueError):
            return None

    # --- what is sent ------------------------------------------------------------------------------------

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
        created_at = self._clock.iso(event.created_at)
        return {"event_id": event.id, "event_type": event.type, "event_data": event.data, "created_at": created_at}

    def _headers(self, event: Event, body: bytes, secret: str | None) -> dict[str, str]:
        # The timestamp is the real time even where the sandbox's own runs faster: the receiver compares it with its.
        headers = {**_JSON, "Heygen-Timestamp": str(int(time.time())), "Heygen-Event-Id": event.id}
        if secret is not None:
            signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            headers[self._settings.signature_header] = signature
        return headers
