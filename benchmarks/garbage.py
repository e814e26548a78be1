"""What garbage collection takes."""

from __future__ import annotations

import gc
import time
from typing import Self

from attrs import define


@define
class Collections:
    """What garbage collection takes: a context manager. Seconds of CPU of the thread that collects."""

    seconds: float = 0.0
    longest: float = 0.0
    _since: float = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._observe)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._observe)

    def _observe(self, phase: str, _: object) -> None:
        if phase == "start":
            self._since = time.thread_time()
            return
        took = time.thread_time() - self._since
        self.seconds += took
        self.longest = max(self.longest, took)
