"""Where benchmarks run: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contenders import CONTENDERS


def machine() -> str:
    """Return the processor, the number of cores and the system: "Intel Xeon, 2 cores, Linux 6.1"."""
    cores = os.cpu_count()
    return f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}, {platform.system()} {platform.release()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    models = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.exists() else []
    return models[0].partition(":")[2].strip() if models else platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the contenders that are installed."""
    found = {"Python": platform.python_version()}
    for contender in CONTENDERS.values():
        package = contender.requirement.partition("[")[0]
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
