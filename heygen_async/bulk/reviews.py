"""Decisions of people on videos that they have watched, and how a journal stores them.

Rule 1: a decision belongs to the job that was watched. A row with another job has no decision.
Rule 2: no function here begins a transaction or handles errors of SQLite; `journal_file` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import orjson
from attrs import frozen

from heygen_async.bulk.record import Record

Decision: TypeAlias = Literal["approved", "rejected"]

SCHEMA: Final = """
CREATE TABLE reviews (
    key TEXT PRIMARY KEY, lipsync_id TEXT NOT NULL, decision TEXT NOT NULL, note TEXT NOT NULL, decided_at REAL NOT NULL
) WITHOUT ROWID;
"""


@frozen
class Review:
    """A decision on the video of a row."""

    key: str
    """The key of the row."""
    lipsync_id: str
    """The job whose video was watched."""
    decision: Decision
    note: str = ""
    """Why, in the words of the person."""
    decided_at: float = 0.0
    """When, as a Unix time in seconds."""

    def is_of(self, record: Record) -> bool:
        """Return whether it is about the job that *record* has now."""
        return self.key == record.key and self.lipsync_id == record.lipsync_id


def load(db: sqlite3.Connection, keys: Sequence[str] | None) -> list[Review]:
    """Return the decisions on the rows with these keys; `None` for all rows."""
    if keys is None:
        found = db.execute("SELECT * FROM reviews")
    else:
        wanted = orjson.dumps(keys).decode()
        found = db.execute("SELECT * FROM reviews WHERE key IN (SELECT value FROM json_each(?))", (wanted,))
    return [Review(*values) for values in found]


def save(db: sqlite3.Connection, review: Review) -> None:
    """Save a decision, in place of an earlier one on the same row."""
    values = (review.key, review.lipsync_id, review.decision, review.note, review.decided_at)
    db.execute("INSERT OR REPLACE INTO reviews VALUES (?, ?, ?, ?, ?)", values)


def delete(db: sqlite3.Connection, key: str) -> None:
    """Withdraw the decision on a row."""
    db.execute("DELETE FROM reviews WHERE key = ?", (key,))
