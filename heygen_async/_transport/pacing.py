"""When requests may leave after a 429: pure, with the time as an argument.

Rule 1: a pause holds back every request of its scope; a refused create holds back creates only.
Rule 2: after a pause requests leave one after another at a learned gap, never all at once: the gap doubles with
each pause that was not long enough, and shrinks with each answer that is no 429.
Rule 3: a time that is reserved for a request which gives up is given to the next request.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from attrs import define, field, frozen

from heygen_async._wire import RateScope

_FIRST_GAP: Final = 0.02
_LONGEST_GAP: Final = 1.0
_SHRINK: Final = 0.95
_NO_GAP: Final = 0.002


@frozen
class Departure:
    """A time that is reserved for a request."""

    time: float
    pauses: int
    """How many pauses there had been when it was reserved: the next one makes it void."""


@define
class Pace:
    """The departures of one scope. Times are seconds on any one clock."""

    paused_until: float = 0.0
    gap: float = 0.0
    pauses: int = 0
    """How many 429s there were."""
    _next: float = 0.0
    _free: list[float] = field(factory=list)
    """A heap of reserved times that were given back."""

    def book(self, now: float) -> Departure:
        """Return when one request may leave, and reserve that time for it."""
        return Departure(self._reserve(max(now, self.paused_until)), self.pauses)

    def _reserve(self, earliest: float) -> float:
        while self._free:
            freed = heapq.heappop(self._free)
            if freed >= earliest:
                return freed
        time = max(earliest, self._next)
        if self.gap:
            self._next = time + self.gap
        return time

    def give_back(self, departure: Departure) -> None:
        """Free a reserved time that will not be used, unless a pause has made it void."""
        if departure.pauses == self.pauses and departure.time < self._next:
            heapq.heappush(self._free, departure.time)

    def refuse(self, now: float, delay: float) -> None:
        """Record a 429: nothing leaves for *delay* seconds."""
        if now >= self.paused_until:
            # Requests in flight together are refused together: only the first one changes the gap.
            self.gap = min(max(2 * self.gap, _FIRST_GAP), _LONGEST_GAP)
        self.paused_until = max(self.paused_until, now + delay)
        self._next = self.paused_until
        self.pauses += 1
        self._free.clear()

    def accept(self, now: float) -> None:
        """Record an answer that is no 429; during a pause it belongs to an older request, and changes nothing."""
        if self.gap and now >= self.paused_until:
            self.gap = self.gap * _SHRINK if self.gap > _NO_GAP else 0.0


@define
class Pacer:
    """The paces of a session: a create waits for both, any other request for the session's."""

    session: Pace = field(factory=Pace)
    creates: Pace = field(factory=Pace)
    is_free: bool = True
    """Whether all requests may leave at once: no pause is on, and no gap is left of one."""

    def _paces(self, scope: RateScope) -> Sequence[Pace]:
        return (self.session, self.creates) if scope == "creates" else (self.session,)

    def pauses(self, scope: RateScope) -> int:
        """Return how many 429s have held back *scope*: a time that was reserved before the last one is void."""
        return sum(pace.pauses for pace in self._paces(scope))

    def book(self, scope: RateScope, now: float) -> Sequence[Departure]:
        """Reserve a time in each pace of *scope*: a request may leave at the last one."""
        return [pace.book(now) for pace in self._paces(scope)]

    def give_back(self, scope: RateScope, departures: Sequence[Departure]) -> None:
        """Free what `book` returned."""
        for pace, departure in zip(self._paces(scope), departures, strict=True):
            pace.give_back(departure)

    def refuse(self, scope: RateScope, now: float, delay: float) -> None:
        """Record that a request of *scope* was answered 429: nothing in that scope leaves for *delay* seconds."""
        self._paces(scope)[-1].refuse(now, delay)
        self.is_free = False

    def accept(self, scope: RateScope, now: float) -> None:
        """Record that a request of *scope* was answered."""
        for pace in self._paces(scope):
            pace.accept(now)
        self.is_free = not (self.session.gap or self.creates.gap)
