"""A clock that no one sets, and that counts while the machine is suspended. Systems without one use the wall clock."""

import sys
import time
from typing import Final

# `time.monotonic` stands still while the machine is suspended, on Linux and on macOS.
_NAME: Final = "CLOCK_MONOTONIC" if sys.platform == "darwin" else "CLOCK_BOOTTIME"
_CLOCK: Final[int | None] = getattr(time, _NAME, None)


def since_boot() -> float:
    """Return the seconds since some moment, those included during which the machine was suspended."""
    return time.time() if _CLOCK is None else time.clock_gettime(_CLOCK)
