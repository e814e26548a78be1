"""When requests may leave after a 429: a pure book of departures, with the time as an argument.

Rule 1: a pause holds back everybody in its lane; a refused create holds back creates only.
Rule 2: after a pause requests leave one after another at a learned gap, never all at once: the gap doubles with
each pause that was not long enough, and shrinks with each answer that is no refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, field

from heygen_async._wire import Lane

_FIRST_GAP: Final = 0.02
_LONGEST_GAP: Final = 1.0
_SHRINK: Final = 0.95
_NO_GAP: Final = 0.002


@define
class Pace:
    """The departures of one lane. Times are seconds on any one clock."""

    paused_until: float = 0.0
    gap: float = 0.0
    _next: float = 0.0

    def book(self, now: float) -> float:
        """Return when one request may leave, and keep that departure for it."""
        departure = max(now, self.paused_until, self._next)
        if self.gap:
            self._next = departure + self.gap
        return departure

    def refuse(self, now: float, delay: float) -> None:
        """Learn of a 429: nothing leaves for *delay* seconds."""
        if now >= self.paused_until:
            # Requests that were in the air together are refused together: the gap learns from the first.
            self.gap = min(max(2 * self.gap, _FIRST_GAP), _LONGEST_GAP)
        self.paused_until = max(self.paused_until, now + delay)
        self._next = self.paused_until

    def accept(self, now: float) -> None:
        """Learn of an answer that is no refusal; one to a request from before the pause teaches nothing."""
        if self.gap and now >= self.paused_until:
            self.gap = self.gap * _SHRINK if self.gap > _NO_GAP else 0.0


@define
class Timetable:
    """The lanes of a session: a create waits for both, anything else for the session's."""

    session: Pace = field(factory=Pace)
    creates: Pace = field(factory=Pace)
    is_free: bool = True
    """Whether everybody may leave at once: no pause is on, and none has left a gap behind."""
    pauses: int = 0
    """How many refusals there were: a departure that was booked before the last one is void."""

    def _lanes(self, lane: Lane) -> Sequence[Pace]:
        return (self.session, self.creates) if lane == "creates" else (self.session,)

    def book(self, lane: Lane, now: float) -> float:
        """Return when a request of *lane* may leave, and keep that departure for it."""
        return max(pace.book(now) for pace in self._lanes(lane))

    def refuse(self, lane: Lane, now: float, delay: float) -> None:
        """Learn that a request of *lane* was answered 429: nothing of it leaves for *delay* seconds."""
        self._lanes(lane)[-1].refuse(now, delay)
        self.pauses += 1
        self.is_free = False

    def accept(self, lane: Lane, now: float) -> None:
        """Learn that a request of *lane* was answered."""
        for pace in self._lanes(lane):
            pace.accept(now)
        self.is_free = not (self.session.gap or self.creates.gap)
