"""Reads rows for the page: their records, decisions and files, and what the manifest says of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from anyio import to_thread
from attrs import frozen

from heygen_async.bulk.journal import Journal
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.reviews import Review
from heygen_async.models import JSON, DubRow
from heygen_async.review.live_rows import LiveRows
from heygen_async.review.result_files import result_state
from heygen_async.review.row_view import FileState, moved_view, row_view

_PAGE: Final = 1000
"""How many rows are read at once: few enough that a run beside the page is not held up."""


@frozen(kw_only=True)
class RowReader:
    """Reads the rows of a journal.

    Args:
        journal: The journal; open.
        rows: The rows of the manifest by key, for titles and sources.
        live: The rows of the run in progress, if there is one.
    """

    journal: Journal
    rows: Mapping[str, DubRow]
    live: LiveRows | None

    async def pages(self) -> AsyncIterator[list[dict[str, JSON]]]:
        """Iterate over the objects of all rows, some at a time."""
        last, reviews = "", await self.journal.reviews()
        while records := await self.journal.all_rows(last, _PAGE):
            last = records[-1].key
            yield await self._views(records, reviews)

    async def views(self, keys: Sequence[str]) -> list[dict[str, JSON]]:
        """Return the objects of the rows with these keys."""
        records = await self.journal.records(keys)
        done = [key for key, record in records.items() if record.state is State.DONE]
        return await self._views(list(records.values()), await self.journal.reviews(done) if done else [])

    def moved(self, keys: Sequence[str]) -> list[dict[str, JSON]]:
        """Return what has changed of rows that are only at another stage of the run."""
        found = [] if self.live is None else [(key, self.live.row(key)) for key in keys]
        return [moved_view(key, live) for key, live in found if live is not None]

    async def _views(self, records: Sequence[Record], found: Iterable[Review]) -> list[dict[str, JSON]]:
        reviews = {review.key: review for review in found}
        has_files = any(record.state is State.DONE for record in records)
        states = await to_thread.run_sync(partial(_states, records)) if has_files else _states(records)
        return [self._view(one, reviews.get(one.key), state) for one, state in zip(records, states, strict=True)]

    def _view(self, record: Record, review: Review | None, state: FileState) -> dict[str, JSON]:
        current = review if review is not None and review.is_of(record) else None
        live = None if self.live is None else self.live.row(record.key)
        return row_view(record, current, self.row(record), state, live)

    def row(self, record: Record) -> DubRow | None:
        """Return what the manifest says of a row; of a final version, what it says of its draft."""
        return self.rows.get(record.draft or record.key)


def _states(records: Iterable[Record]) -> list[FileState]:
    return [result_state(record) if record.state is State.DONE else "none" for record in records]
