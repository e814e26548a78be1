"""The rows of a run in progress: the stage of each and when it reached it, and which rows have changed.

An event only notes the stage; the rest is done when an open page reads the rows. A row that comes to another stage is
read from the journal only at first and at its end: this is most of what an open page costs a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from attrs import define, field, frozen

from heygen_async.bulk.events import ENDS, DubEvent, Stage
from heygen_async.review.row_view import LiveRow

_MOST_STEPS: Final = 64
"""Changes of stage that are kept of one row; one that is retried for hours has more."""


@frozen
class Changes:
    """Rows that have changed: those to read, and those that are only at another stage."""

    read: list[str]
    moved: list[str]


@define(eq=False)
class Follower:
    """What has changed since an open page looked."""

    _read: set[str] = field(factory=set)
    _moved: set[str] = field(factory=set)
    _wakeup: asyncio.Event = field(factory=asyncio.Event)

    def wake(self, key: str | None, *, is_moved: bool) -> None:
        """Note a change of a row, or of the run."""
        if key is not None:
            (self._moved if is_moved else self._read).add(key)
        self._wakeup.set()

    async def wait(self) -> None:
        """Wait until something has changed."""
        await self._wakeup.wait()

    def take(self, most: int) -> Changes:
        """Return the rows that have changed, at most so many to read, and forget them."""
        read = list(islice(self._read, most))
        moved = [key for key in self._moved if key not in self._read]
        self._read.difference_update(read)
        self._moved.clear()
        if not self._read:
            self._wakeup.clear()
        return Changes(read, moved)


@define(eq=False)
class ChangedRows:
    """The rows that have changed, for each open page."""

    _followers: list[Follower] = field(factory=list)

    def add(self, key: str | None, *, is_moved: bool = False) -> None:
        """Note that a row has changed, or only its stage; `None` if it is the run alone."""
        for follower in self._followers:
            follower.wake(key, is_moved=is_moved)

    @contextmanager
    def followed(self) -> Iterator[Follower]:
        """Yield a follower of the changes from now on."""
        follower = Follower()
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)


@define
class _Progress:
    stage: Stage
    message: str | None
    history: list[tuple[float, Stage]]


@define(eq=False)
class LiveRows:
    """Follows the rows of a run.

    Args:
        clock: The clock of the run, in seconds.
    """

    clock: Callable[[], float]
    changed: ChangedRows = field(factory=ChangedRows)
    _started: float | None = None
    _rows: dict[str, _Progress] = field(factory=dict)

    def on_event(self, event: DubEvent) -> None:
        """Follow a row from stage to stage."""
        now = self.clock()
        if self._started is None:
            self._started = now
        row = self._rows.get(event.key)
        is_moved = row is not None and event.stage not in ENDS
        if row is None:
            row = self._rows[event.key] = _Progress(event.stage, None, [])
        if not row.history or row.stage != event.stage:
            row.history.append((now - self._started, event.stage))
            del row.history[:-_MOST_STEPS]
        row.stage, row.message = event.stage, event.message
        self.changed.add(event.key, is_moved=is_moved)

    def row(self, key: str) -> LiveRow | None:
        """Return where a row is; `None` if the run has not reached it."""
        row = self._rows.get(key)
        return None if row is None else LiveRow(row.stage, row.message, tuple(row.history))

    @property
    def elapsed(self) -> float:
        """Seconds since the first event."""
        return 0.0 if self._started is None else self.clock() - self._started
