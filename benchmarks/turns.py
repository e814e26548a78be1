"""How long the turns of an event loop take."""

from __future__ import annotations

import selectors
import time


class Turns(selectors.DefaultSelector):
    """A selector that measures the turns of its event loop, from one select to the next, in seconds of the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        self._since = time.perf_counter()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events: here a turn ends, and the next begins when it returns."""
        self.longest = max(self.longest, time.perf_counter() - self._since)
        ready = super().select(timeout)
        self._since = time.perf_counter()
        return ready

    def reset(self) -> None:
        """Forget the turns so far, and what the present one has taken."""
        self.longest, self._since = 0.0, time.perf_counter()
