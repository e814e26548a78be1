"""Tells the webhooks what has ended, in the words of each event.

The words differ on purpose (`url` here, `msg` there): so do the API's, and a receiver has to bear it.
"""

from __future__ import annotations

from attrs import frozen

from heygen_async.sandbox.clock import Clock
from heygen_async.sandbox.links import Links
from heygen_async.sandbox.webhooks import Webhooks
from heygen_async.sandbox.world import Batch, Job


@frozen
class Announcer:
    """Makes events of what has ended."""

    webhooks: Webhooks
    links: Links
    clock: Clock

    def announce(self, ended: Job | Batch) -> None:
        """Make the event."""
        at = ended.ended_at or 0.0
        if isinstance(ended, Batch):
            data: dict[str, object] = {
                "batch_id": ended.id,
                "status": ended.state(at),
                "counts_by_status": ended.counts(at),
            }
            self.webhooks.announce("batch.finished", ended.id, data, at, callback_url=ended.callback_url)
        else:
            name, data = self._told(ended, at)
            self.webhooks.announce(name, ended.id, data, at, callback_url=ended.callback_url)

    def _told(self, job: Job, at: float) -> tuple[str, dict[str, object]]:
        data: dict[str, object] = {"lipsync_id": job.id, "callback_id": job.body.get("callback_id")}
        if job.failure_message is not None:
            return "lipsync.fail", {**data, "msg": job.failure_message}
        link = self.links.sign("GET", f"/files/{job.video_name}", self.clock.wall(at))
        return "lipsync.success", {**data, "url": link}
