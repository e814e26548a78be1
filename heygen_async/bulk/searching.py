"""Jobs of which only a callback id is known: one walk through the list for all rows in doubt."""

from __future__ import annotations

import asyncio

from attrs import define, field

from heygen_async.bulk import steps
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.record import Record
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.session import HeyGenSession

_SLACK = 24 * 3600.0
"""By how many seconds the server's clock and ours may differ; a day costs a few pages more."""


@define(eq=False)
class Searcher:
    """Finds jobs by their callback ids."""

    heygen: HeyGenSession
    journal: Journal
    _found: dict[str, list[Lipsync]] = field(factory=dict)
    _lock: asyncio.Lock = field(factory=asyncio.Lock)

    async def find(self, record: Record) -> str | None:
        """Return the job of a row in doubt; `None` if there is none.

        Raises:
            HeyGenError: If the list cannot be read to its end: then nothing is known.
        """
        callback_id = record.callback_id or record.attempt_key
        async with self._lock:
            if callback_id not in self._found:
                await self._walk(record)
        known = await self.journal.known_jobs([lipsync.id for lipsync in self._found[callback_id]])
        jobs = [lipsync for lipsync in self._found[callback_id] if lipsync.id not in known]
        # Newest first; one that did not fail before one that did.
        best = min(jobs, key=lambda lipsync: lipsync.status == LipsyncStatus.FAILED, default=None)
        return None if best is None else best.id

    async def _walk(self, record: Record) -> None:
        """Look for the jobs of all rows in doubt at once."""
        doubtful = [record, *await self.journal.in_doubt()]
        wanted = frozenset(one.callback_id or one.attempt_key for one in doubtful)
        since = min((one.asked_at for one in doubtful if one.asked_at is not None), default=0.0) - _SLACK
        found = await steps.search(self.heygen, wanted, since=since)
        self._found |= {callback_id: found.get(callback_id, []) for callback_id in wanted}
