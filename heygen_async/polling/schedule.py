"""What is due when: priority queues, of which only the open ones are considered.

All waiters of one job share a queue. A waiter of many jobs has a queue of its own, so that it can pause and resume, as
it does between two of its results, at the same cost for any number of jobs.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from attrs import define, field

T = TypeVar("T")

_SMALL: Final = 64
"""A queue of up to so many entries is not worth compacting."""


@define(eq=False)
class DueQueue(Generic[T]):
    """Items by due time. An entry whose item has been rescheduled is stale and is skipped."""

    waiting: int = 0
    """How many waits are in it."""
    is_open: bool = False
    entries: list[tuple[float, int, T]] = field(factory=list, repr=False)
    """A heap of due time, sequence number and item."""
    listed: list[float] = field(factory=list, repr=False)
    """The due times under which the schedule lists this queue, earliest last."""


class Schedule(Generic[T]):
    """The open queues, ordered by the first due time of each."""

    def __init__(self) -> None:
        self._heads: list[tuple[float, int, DueQueue[T]]] = []
        self._count = itertools.count()

    def open(self, queue: DueQueue[T]) -> None:
        """Consider *queue* from now on."""
        queue.is_open = True
        self._list(queue)

    def close(self, queue: DueQueue[T]) -> None:
        """Ignore *queue* until it is opened again."""
        queue.is_open = False

    def push(self, queue: DueQueue[T], due: float, item: T) -> None:
        """Add *item* to *queue*."""
        heapq.heappush(queue.entries, (due, next(self._count), item))
        self._list(queue)

    def first_due(self) -> float | None:
        """Return the due time of the first entry of all open queues."""
        while self._heads:
            due, _, queue = self._heads[0]
            if queue.is_open and queue.entries and queue.entries[0][0] == due:
                return due
            self._unlist(queue)
        return None

    def pop(self) -> tuple[DueQueue[T], float, T]:
        """Remove and return the entry whose time `first_due` returned."""
        queue = self._heads[0][2]
        due, _, item = heapq.heappop(queue.entries)
        self._unlist(queue)
        return queue, due, item

    def compact(self, queue: DueQueue[T], is_live: Callable[[DueQueue[T], float, T], bool]) -> None:
        """Remove stale entries once they are the larger part of *queue*; remove all if no wait is left in it."""
        if not queue.waiting:
            queue.entries.clear()
        elif len(queue.entries) > _SMALL + 2 * queue.waiting:
            queue.entries = [entry for entry in queue.entries if is_live(queue, entry[0], entry[2])]
            heapq.heapify(queue.entries)

    def _list(self, queue: DueQueue[T]) -> None:
        if queue.is_open and queue.entries and (not queue.listed or queue.entries[0][0] < queue.listed[-1]):
            queue.listed.append(queue.entries[0][0])
            heapq.heappush(self._heads, (queue.listed[-1], next(self._count), queue))

    def _unlist(self, queue: DueQueue[T]) -> None:
        """Remove *queue*, which is the first, and list it again under its next due time."""
        heapq.heappop(self._heads)
        queue.listed.pop()
        self._list(queue)
