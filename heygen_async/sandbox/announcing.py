"""Makes the events of what has ended, in the words of each event type.

The words differ on purpose (`url` here, `msg` there): so do the API's, and a receiver has to accept all of them.
"""

from __future__ import annotations

from attrs import frozen

from heygen_async.sandbox.clock import Clock
from heygen_async.sandbox.links import Links
from heygen_async.sandbox.webhooks import Event, Webhooks
from heygen_async.sandbox.world import Batch, Job


@frozen
class Announcer:
    """Makes events of what has ended."""

    webhooks: Webhooks
    links: Links
    clock: Clock

    def announce(self, ended: Job | Batch) -> None:
        """Make the event and queue its deliveries."""
        at = ended.ended_at or 0.0
        event = self._batch_event(ended, at) if isinstance(ended, Batch) else self._job_event(ended, at)
        self.webhooks.announce(event, callback_url=ended.callback_url)

    def _batch_event(self, batch: Batch, at: float) -> Event:
        data: dict[str, object] = {
            "batch_id": batch.id,
            "status": batch.state(at),
            "counts_by_status": batch.counts(at),
        }
        return self._event("batch.finished", batch.id, at, data=data, flat=data)

    def _job_event(self, job: Job, at: float) -> Event:
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
        event_id = self.webhooks.new_event_id()
        return Event(id=event_id, type=event_type, entity_id=entity_id, data=data, flat=flat, created_at=at)
