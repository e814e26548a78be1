"""A decision as the page posts it, and what may be decided. Pure."""

from __future__ import annotations

from typing import Final, cast

import orjson
from attrs import frozen

from heygen_async.bulk.record import Record, State
from heygen_async.bulk.reviews import Decision, Review

MOST_BYTES: Final = 64 << 10
"""The longest body of a decision."""
_MOST_NOTE: Final = 4000


class Refused(Exception):
    """Raised for a decision that is not stored.

    Attributes:
        status: The status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@frozen(kw_only=True)
class PostedDecision:
    """A decision that the page posts."""

    key: str
    job: str
    """The job whose video was watched."""
    decision: Decision | None
    """`None` withdraws the decision that is there."""
    note: str

    def review(self, now: float) -> Review | None:
        """Return what is stored; `None` if the decision is withdrawn."""
        return None if self.decision is None else Review(self.key, self.job, self.decision, self.note, now)


def read_decision(body: bytes) -> PostedDecision:
    """Return the decision in the body of a POST.

    Raises:
        Refused: If there is none.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise Refused(400, "a decision is a JSON object")
    key, job, decision, note = (given.get(name) for name in ("key", "job", "decision", "note"))
    if not isinstance(key, str) or not isinstance(job, str):
        raise Refused(400, "a decision names a row and its job")
    if decision not in ("approved", "rejected", None) or not isinstance(note, str | None):
        raise Refused(400, "a decision is approved, rejected or null, with a note")
    text = (note or "").strip()[:_MOST_NOTE]
    return PostedDecision(key=key, job=job, decision=cast("Decision | None", decision), note=text)


def check_decision(posted: PostedDecision, record: Record | None) -> None:
    """Check that a decision is about a video that is there.

    Raises:
        Refused: If not.
    """
    if record is None:
        raise Refused(404, f"there is no row {posted.key}")
    if record.state is not State.DONE:
        raise Refused(409, f"the row {posted.key} has no video yet")
    if record.lipsync_id != posted.job:
        raise Refused(409, f"the row {posted.key} has another video now: watch that one")
