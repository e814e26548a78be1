"""How long the turns of an event loop take."""

from __future__ import annotations

import gc
import selectors
import time


class Turns(selectors.DefaultSelector):
    """A selector that measures the turns of its event loop, from one select to the next, in seconds of the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        self.longest_work = 0.0
        """The longest, if the garbage collections of a turn are left out."""
        self._since = time.perf_counter()
        self._collecting_since = 0.0
        self._collected = 0.0
        gc.callbacks.append(self._on_collection)

    def close(self) -> None:
        """Close it, and measure no more."""
        gc.callbacks.remove(self._on_collection)
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events: here a turn ends, and the next begins when it returns."""
        turn = time.perf_counter() - self._since
        self.longest = max(self.longest, turn)
        self.longest_work = max(self.longest_work, turn - self._collected)
        ready = super().select(timeout)
        self._since, self._collected = time.perf_counter(), 0.0
        return ready

    def reset(self) -> None:
        """Forget the turns so far, and what the present one has taken."""
        self.longest = self.longest_work = self._collected = 0.0
        self._since = time.perf_counter()

    def _on_collection(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self._collected += time.perf_counter() - self._collecting_since
