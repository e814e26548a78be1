"""The sandbox's time: seconds since its start."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

LATEST: Final = 100_000_000_000
"""The last second of sandbox time, after 3,000 years: dates in answers end with the year 9999."""


class Clock:
    """Time that runs *speed* times as fast as *source*."""

    def __init__(self, source: Callable[[], float], *, speed: float, started_at: float) -> None:
        self._source = source
        self._speed = speed
        self._start = source()
        self._started_at = started_at  # unix timestamp

    def now(self) -> float:
        """Return the seconds of sandbox time since the start."""
        return (self._source() - self._start) * self._speed

    def wall(self, now: float) -> float:
        """Return *now* as a unix timestamp in seconds."""
        return self._started_at + now

    def iso(self, now: float) -> str:
        """Return *now* as ISO 8601 in UTC, in whole seconds."""
        return datetime.fromtimestamp(self.wall(now), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def until(self, due: float) -> float:
        """Return the seconds of the source's time until *due*, at least 0."""
        return max(0.0, (due - self.now()) / self._speed)


class ManualClock(Clock):
    """Time that moves only in `move_to`."""

    def __init__(self) -> None:
        self._now = 0.0
        # From a whole second, so that the whole seconds of created_at and of links are exact.
        super().__init__(lambda: self._now, speed=1.0, started_at=float(int(time.time())))

    def move_to(self, now: float) -> None:
        """Set the time; it never goes back."""
        self._now = max(self._now, now)
