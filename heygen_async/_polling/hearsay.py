"""How far it can be left to webhooks to tell which jobs have ended. Pure: times are arguments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heygen_async.policies import PollPolicy


def patience(net: PollPolicy, age: float, typical: float) -> float:
    """Return the seconds to the next look at a job that there will be word of.

    It is looked at when it is overdue, by half the length of a typical job, and then ever again.

    Args:
        net: The policy of the safety net.
        age: Seconds since the job was created.
        typical: How long such jobs take, in seconds; 0 if nothing is known of it.
    """
    overdue = typical + min(typical / 2, net.slowest)
    return max(net.interval(age, typical), overdue - age)


class Hearsay:
    """Whether word of ends comes while it is expected.

    One lost delivery is no reason to doubt: others come. So it is doubted when a job has ended without word, and
    there was none of any other job either, for as long as that one has been there. It is believed again when the
    next job ends with word.
    """

    def __init__(self) -> None:
        self.is_believed = False
        self._expected = False
        self._last = -math.inf

    def expect(self) -> None:
        """Believe in it from now on."""
        self.is_believed = self._expected = True

    def confirmed(self, now: float) -> None:
        """Note that a job has ended of which there was word."""
        self._last = now
        self.is_believed = self._expected

    def missed(self, since: float) -> bool:
        """Note that a job, there *since*, has ended without word; return whether that ends the belief."""
        if not self.is_believed or self._last >= since:
            return False
        self.is_believed = False
        return True
