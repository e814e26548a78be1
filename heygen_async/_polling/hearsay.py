"""How far it can be left to webhooks to tell which jobs have ended. Pure: times are arguments."""

from __future__ import annotations

import math


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
