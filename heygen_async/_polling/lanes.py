"""What is due when: a queue for each who waits, of which only the open ones are looked at.

Those who wait for one id each share a lane. One that waits for many has a lane of its own, so that it can come and
go, as it does between two of its results, without a hand being laid on its hundred thousand ids.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from attrs import define, field

if TYPE_CHECKING:
    from heygen_async._polling.waiting import Awaited

_SMALL: Final = 64
"""A lane of up to so many entries is not worth tidying up."""

_Entry: TypeAlias = "tuple[float, int, Awaited]"


@define(eq=False)
class Lane:
    """Ids by the time when they are due. An entry whose id has moved on is stale, and is passed over."""

    waiting: int = 0
    """How many waits there are in it."""
    is_open: bool = False
    entries: list[_Entry] = field(factory=list, repr=False)
    """A heap."""
    listed: list[float] = field(factory=list, repr=False)
    """The times under which the list of lanes has it, the first of them last."""


class Lanes:
    """The open lanes, by what is due first in each."""

    def __init__(self) -> None:
        self._heads: list[tuple[float, int, Lane]] = []
        self._count = itertools.count()

    def open(self, lane: Lane) -> None:
        """Look at *lane* from now on."""
        lane.is_open = True
        self._list(lane)

    def close(self, lane: Lane) -> None:
        """Do not look at *lane* for now."""
        lane.is_open = False

    def push(self, lane: Lane, due: float, awaited: Awaited) -> None:
        """Enter *awaited* in *lane*."""
        heapq.heappush(lane.entries, (due, next(self._count), awaited))
        self._list(lane)

    def first_due(self) -> float | None:
        """Return when the first entry of all open lanes is due."""
        while self._heads:
            due, _, lane = self._heads[0]
            if lane.is_open and lane.entries and lane.entries[0][0] == due:
                return due
            self._strike(lane)
        return None

    def pop(self) -> tuple[Lane, float, Awaited]:
        """Take out the entry that `first_due` tells of."""
        lane = self._heads[0][2]
        due, _, awaited = heapq.heappop(lane.entries)
        self._strike(lane)
        return lane, due, awaited

    def tidy(self, lane: Lane, is_live: Callable[[Lane, float, Awaited], bool]) -> None:
        """Drop stale entries once they are the larger part of *lane*; all of them if nobody waits in it."""
        if not lane.waiting:
            lane.entries.clear()
        elif len(lane.entries) > _SMALL + 2 * lane.waiting:
            lane.entries = [entry for entry in lane.entries if is_live(lane, entry[0], entry[2])]
            heapq.heapify(lane.entries)

    def _list(self, lane: Lane) -> None:
        if lane.is_open and lane.entries and (not lane.listed or lane.entries[0][0] < lane.listed[-1]):
            lane.listed.append(lane.entries[0][0])
            heapq.heappush(self._heads, (lane.listed[-1], next(self._count), lane))

    def _strike(self, lane: Lane) -> None:
        """Take the first lane off the list, and list it anew if it is to be there."""
        heapq.heappop(self._heads)
        lane.listed.pop()
        self._list(lane)
