"""What the page shows of a run in progress, as one JSON object. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from heygen_async.bulk.events import DubSnapshot
from heygen_async.models import JSON

Pace: TypeAlias = Callable[[DubSnapshot], tuple[float | None, float | None]]
"""Returns rows a second and the seconds that are left, as far as they are known."""


def run_view(snapshot: DubSnapshot, pace: Pace, *, elapsed: float, has_ended: bool) -> dict[str, JSON]:
    """Return the JSON object of a run.

    Args:
        snapshot: The run.
        pace: Its rate and the time that is left.
        elapsed: Seconds since its start.
        has_ended: Whether it has ended.
    """
    rate, left = pace(snapshot)
    return {
        "stages": {stage: count for stage, count in snapshot.stages.items() if count},
        "not_started": snapshot.not_started,
        "total": snapshot.total,
        "ended": snapshot.ended,
        "in_flight": snapshot.in_flight,
        "limit": snapshot.limit,
        "rate": rate,
        "seconds_left": left,
        "elapsed": elapsed,
        "spent": snapshot.spent,
        "reserved": snapshot.reserved,
        "budget": snapshot.budget,
        "trouble": snapshot.trouble,
        "halted": snapshot.halted,
        "has_ended": has_ended,
    }
