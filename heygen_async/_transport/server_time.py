"""The API's time, from the `Date` of its answers: how long the API remembers a key is judged by its clock, not by ours.

Rule 1: between two answers time passes as `_uptime` shows it. A key is as old as the older of two clocks says.
Rule 2: until an answer has had a date, the time is that of the wall clock, and any later time is possible. An API or a
proxy that sends no dates leaves it at that: the wall clock may have been wrong in an earlier run.
Rule 3: a date is from some moment between its request and its arrival, which can be days if the machine was suspended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from heygen_async import _uptime
from heygen_async._wire import unix_time

_PRECISION: Final = 2.0
"""By how many seconds a date may be behind: it has whole seconds, and servers keep it for a moment."""
_LAST_DATE: Final = 1e11
"""Unix time, in the year 5138: a later date is none. After the year 9999 no time can be computed with it."""


@frozen
class Moment:
    """A moment by two clocks of this machine: either may stand still in a suspend of it, or of what it runs on."""

    elapsed: float
    """By `ServerTime.elapsed`."""
    wall: float
    """By the wall clock."""

    def before(self, seconds: float) -> Moment:
        """Return the moment so many seconds before."""
        return Moment(self.elapsed - seconds, self.wall - seconds)

    def age(self, now: Moment) -> float:
        """Return the seconds since then, by the clock that counted more."""
        return max(now.elapsed - self.elapsed, now.wall - self.wall)


@define(eq=False)
class ServerTime:
    """What time it is for the API, as a session knows it. One for a session and its views.

    Args:
        elapsed: Seconds since some moment.
    """

    elapsed: Callable[[], float] = lambda: _uptime.since_boot()  # noqa: PLW0108 looked up when it is called
    _offset: float | None = None
    """Unix time less `elapsed`, once it is known."""
    _last: tuple[str, float] = field(default=("", 0.0))
    """The last date, and what it means: answers within one second have the same."""

    def now(self) -> float:
        """Return Unix time in seconds."""
        return time.time() if self._offset is None else self.elapsed() + self._offset

    def latest(self) -> float:
        """Return the latest time that it can be: infinity before the first date, then the later one of two clocks."""
        return math.inf if self._offset is None else max(self.now(), time.time())

    def note(self, date: str | None, *, sent: float) -> None:
        """Learn from the `Date` of an answer that has just arrived; one that cannot be read counts as none.

        Args:
            date: The date.
            sent: When the request was sent, by `elapsed`.
        """
        if not date:
            return
        if date != self._last[0]:
            stamp = unix_time(date)
            if stamp is None:
                return
            self._last = (date, stamp)
        stamp = self._last[1]
        if not 0 < stamp < _LAST_DATE:
            return
        earliest, latest = stamp - self.elapsed(), stamp + _PRECISION - sent
        if self._offset is None:
            self._offset = stamp - sent  # rather too late: a key that seems too old is not sent again
        else:
            self._offset = min(max(self._offset, earliest), latest)
