"""Lipsyncs and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, invalid
from heygen_async.sandbox.http import validation
from heygen_async.sandbox.http.calls import Call, CallAnswer, Handler, data, listed, paging
from heygen_async.sandbox.http.validation import Body
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.clock import Clock
from heygen_async.sandbox.state.scripts import JobScript, ScriptReader
from heygen_async.sandbox.state.signed_links import SignedLinks
from heygen_async.sandbox.state.world import SimulatedBatch, SimulatedItem, SimulatedJob, World

_DEFAULT_LIMIT: Final = 10


@frozen
class LipsyncCalls:
    """The calls under `/v3/lipsyncs`."""

    world: World
    scripts: ScriptReader
    links: SignedLinks
    clock: Clock
    settings: Settings

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by route."""
        has_statuses, has_batches = self.settings.statuses_available, self.settings.batches_available
        return {
            "POST /v3/lipsyncs": self.create,
            "GET /v3/lipsyncs": self.list,
            "GET /v3/lipsyncs/statuses": self.statuses if has_statuses else _absent,
            "POST /v3/lipsyncs/batches": self.create_batch if has_batches else _absent,
            "GET /v3/lipsyncs/batches/{batch_id}": self.get_batch if has_batches else _absent,
            "GET /v3/lipsyncs/{lipsync_id}": self.get,
            "PATCH /v3/lipsyncs/{lipsync_id}": self.update,
            "DELETE /v3/lipsyncs/{lipsync_id}": self.delete,
        }

    # --- one ---------------------------------------------------------------------------------------------

    def create(self, call: Call) -> CallAnswer:
        """`POST /v3/lipsyncs`."""
        body = validation.lipsync(call.body)
        job = self.world.create(body, self.scripts.read(body, call.now), call.now)
        return data({"lipsync_id": job.id})

    def get(self, call: Call) -> CallAnswer:
        """`GET /v3/lipsyncs/{lipsync_id}`."""
        job = self._job(call)
        validation.query(call.query, ())
        return data(self._view(job, call))

    def list(self, call: Call) -> CallAnswer:
        """`GET /v3/lipsyncs`."""
        jobs, before = self.world.page(*validation.page(call.query, "lipsyncs", _DEFAULT_LIMIT))
        return listed([self._view(job, call) for job in jobs], "lipsyncs", before)

    def update(self, call: Call) -> CallAnswer:
        """`PATCH /v3/lipsyncs/{lipsync_id}`."""
        job = self._job(call)
        body = validation.fields(call.body, {"title": validation.text}, required=("title",))
        job.title = str(body["title"])
        return data(self._view(job, call))

    def delete(self, call: Call) -> CallAnswer:
        """`DELETE /v3/lipsyncs/{lipsync_id}`."""
        job = self._job(call)
        self.world.delete(job.id, call.now)
        return data({"id": job.id})

    def _job(self, call: Call) -> SimulatedJob:
        return self.world.job(validation.identifier(call.path["lipsync_id"], "lipsync_id"))

    def _view(self, job: SimulatedJob, call: Call) -> dict[str, object]:
        state = job.state(call.now)
        done = state == "completed"
        return {
            "id": job.id,
            "title": job.title,
            "status": state,
            "duration": job.script.duration if done else None,
            "video_url": self._link(f"/files/{job.video_name}", call) if done else None,
            "caption_url": self._link(f"/captions/{job.id}.srt", call) if done else None,
            "callback_id": job.body.get("callback_id"),
            "created_at": int(self.clock.wall(job.created_at)),
            "failure_message": job.failure_message,
        }

    def _link(self, path: str, call: Call) -> str:
        return self.links.sign("GET", path, self.clock.wall(call.now), call.origin)

    # --- many --------------------------------------------------------------------------------------------

    def statuses(self, call: Call) -> CallAnswer:
        """`GET /v3/lipsyncs/statuses`."""
        limit, start = validation.page(call.query, "statuses", validation.MAX_IDS, also=("lipsync_ids", "batch_ids"))
        lipsync_ids, batch_ids = validation.ids(call.query, "lipsync_ids"), validation.ids(call.query, "batch_ids")
        if not 1 <= len(lipsync_ids) + len(batch_ids) <= validation.MAX_IDS:
            raise invalid(f"lipsync_ids and batch_ids take 1 to {validation.MAX_IDS} ids.", "lipsync_ids")
        rows = [self._status(one, call.now) for one in lipsync_ids]
        for one in batch_ids:
            rows.extend(self._batch_statuses(one, call.now))
        end = (start or 0) + limit
        return listed(rows[start:end], "statuses", end if end < len(rows) else None)

    def _status(self, lipsync_id: str, now: float) -> dict[str, object]:
        job = self.world.find(lipsync_id)
        if job is None:
            return {"video_id": lipsync_id, "status": "not_found"}
        return _row(SimulatedItem(job=job), job.batch, job.item_index, now)

    def _batch_statuses(self, batch_id: str, now: float) -> Iterator[dict[str, object]]:
        batch = self.world.find_batch(batch_id)
        if batch is None:
            yield {"video_id": None, "batch_id": batch_id, "status": "not_found"}
            return
        for index, item in enumerate(batch.items):
            yield _row(item, batch, index, now)

    def create_batch(self, call: Call) -> CallAnswer:
        """`POST /v3/lipsyncs/batches`."""
        body = validation.fields(call.body, validation.BATCH, required=("lipsyncs",))
        lipsyncs = body["lipsyncs"]
        entries = [(one, self._script(one, call.now)) for one in lipsyncs] if isinstance(lipsyncs, list) else []
        return data({"batch_id": self.world.create_batch(entries, body, call.now).id}, 202)

    def _script(self, body: Body, now: float) -> JobScript | ErrorAnswer:
        try:
            return self.scripts.read(body, now)
        except ErrorAnswer as refusal:
            return refusal

    def get_batch(self, call: Call) -> CallAnswer:
        """`GET /v3/lipsyncs/batches/{batch_id}`."""
        limit, position = validation.page(call.query, "items", validation.MAX_IDS)
        batch = self.world.batch(validation.identifier(call.path["batch_id"], "batch_id"))
        start = position or 0
        end = start + limit
        return data(
            {
                "batch_id": batch.id,
                "status": batch.state(call.now),
                "total_items": len(batch.items),
                "counts_by_status": batch.counts(call.now),
                "created_at": int(self.clock.wall(batch.created_at)),
                "title": batch.title,
                "items": [_item(index, item, call.now) for index, item in enumerate(batch.items[start:end], start)],
                **paging("items", end if end < len(batch.items) else None),
            }
        )


def _absent(_: Call) -> CallAnswer:
    raise ErrorAnswer(404, "not_found", "There is nothing at this path.")


def _row(item: SimulatedItem, batch: SimulatedBatch | None, index: int | None, now: float) -> dict[str, object]:
    row: dict[str, object] = {"video_id": item.job.id if item.job else None, "status": item.state(now)}
    if item.error is not None:
        row["error"] = item.error
    return row if batch is None else {**row, "batch_id": batch.id, "item_index": index}


def _item(index: int, item: SimulatedItem, now: float) -> dict[str, object]:
    return {
        "item_index": index,
        "status": item.state(now),
        "video_id": item.job.id if item.job else None,
        "error": item.error,
    }
