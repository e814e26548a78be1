"""Things in the order they were made, read newest first: a page costs what is on it, however many there are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Generic[T]):
    """A list that hands out pages and lets go of things in the middle."""

    def __init__(self) -> None:
        self._things: dict[int, T] = {}
        self._serials: list[int] = []  # of what is still here, ascending
        self._made = 0

    def __iter__(self) -> Iterator[T]:
        return iter(self._things.values())

    def add(self, thing: T) -> int:
        """Put *thing* on top and return its serial number."""
        self._made += 1
        self._things[self._made] = thing
        self._serials.append(self._made)
        return self._made

    def remove(self, serial: int) -> None:
        """Take away the thing with that serial number. Tokens that point at it go on working."""
        del self._things[serial]
        del self._serials[bisect_left(self._serials, serial)]

    def page(self, limit: int, before: int | None) -> tuple[list[T], int | None]:
        """Return at most *limit* things older than *before*, newest first, and where the next page starts."""
        end = len(self._serials) if before is None else bisect_left(self._serials, before)
        start = max(0, end - limit)
        things = [self._things[serial] for serial in reversed(self._serials[start:end])]
        return things, self._serials[start] if start else None
