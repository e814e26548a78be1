"""What one round of one client cost."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from benchmarks.turns import Turns

MEGABYTE = 1 << 20


@frozen
class Sample:
    """One round. Seconds, and megabytes."""

    wall: float
    cpu: float
    """Of the client's process, its threads and the kernel's work for it included."""
    memory: float
    """The peak of resident memory beyond what there was at the start of the round."""
    stall: float
    """The longest turn of the event loop."""
    work: float
    """The longest turn, if garbage collections are left out."""
    facts: Mapping[str, Any] = field(factory=dict)
    """What the measure adds: how many calls were made, when ends were seen."""


@define
class Observer:
    """Measures rounds in this process."""

    turns: Turns

    async def observe(self, work: Callable[[], Awaitable[Mapping[str, Any]]]) -> Sample:
        """Do the work, and return what it cost with the facts that it returns."""
        gc.collect()
        before = _start_of_peak()
        self.turns.reset()
        cpu, wall = time.process_time(), time.perf_counter()
        facts = await work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = max(0.0, _peak() - before)
        return Sample(wall, cpu, memory, self.turns.longest, self.turns.longest_work, facts)


def _start_of_peak() -> float:
    """Set the peak of resident memory to what there is now, where the system can, and return it in megabytes."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


def resident() -> int:
    """Return the bytes of this process that are in memory. Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
