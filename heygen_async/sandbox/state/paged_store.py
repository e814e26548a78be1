"""Objects by id, in order of creation; the cost of a page does not depend on their number."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from random import Random
from typing import Generic, Protocol, TypeVar

from heygen_async.sandbox.error_answers import ErrorAnswer


class Identified(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> str: ...  # noqa: D102 - as it says


T = TypeVar("T", bound=Identified)


class Ids:
    """Makes unique ids from a seed, so that a run can be repeated.

    Args:
        seed: The seed.
        taken: Ids that are not made: those of recordings, which another sandbox may have made from the same seed.
    """

    def __init__(self, seed: int, taken: Collection[str] = frozenset()) -> None:
        self._random = Random(seed)  # noqa: S311 - an id is no secret
        self._taken = taken

    def new(self, prefix: str) -> str:
        """Return an id such as `ls_3f9c...`."""
        while (made := f"{prefix}_{self._random.getrandbits(96):024x}") in self._taken:
            pass
        return made


class PagedStore(Generic[T]):
    """Things by id, which can be removed anywhere and read in pages, newest first.

    Args:
        noun: What a 404 calls a thing.
        code: The error code of that 404.
    """

    def __init__(self, noun: str, code: str = "not_found") -> None:
        self._noun = noun
        self._code = code
        self._serials: dict[str, int] = {}
        self._things: dict[int, T] = {}
        self._order: list[int] = []  # the serials that are still here, ascending
        self._created = 0

    def __iter__(self) -> Iterator[T]:
        return iter(self._things.values())

    def add(self, thing: T) -> None:
        """Add *thing* as the newest."""
        self._created += 1
        self._serials[thing.id] = self._created
        self._things[self._created] = thing
        self._order.append(self._created)

    def find(self, thing_id: str) -> T | None:
        """Return the thing with that id; None if there is none."""
        serial = self._serials.get(thing_id)
        return None if serial is None else self._things[serial]

    def get(self, thing_id: str) -> T:
        """Return the thing with that id, or raise the 404."""
        thing = self.find(thing_id)
        if thing is None:
            raise ErrorAnswer(404, self._code, f"{self._noun} {thing_id!r} was not found.")
        return thing

    def remove(self, thing_id: str) -> T:
        """Remove the thing with that id and return it, or raise the 404. Tokens that point at it stay valid."""
        thing = self.get(thing_id)
        serial = self._serials.pop(thing_id)
        del self._things[serial]
        del self._order[bisect_left(self._order, serial)]
        return thing

    def page(self, limit: int, before: int | None) -> tuple[list[T], int | None]:
        """Return at most *limit* things older than *before*, newest first, and where the next page starts."""
        end = len(self._order) if before is None else bisect_left(self._order, before)
        start = max(0, end - limit)
        things = [self._things[serial] for serial in reversed(self._order[start:end])]
        return things, self._order[start] if start else None
