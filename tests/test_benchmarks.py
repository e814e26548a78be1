"""The benchmarks of the repository run: a short round of each part."""

import subprocess
import sys
from pathlib import Path

OVERHEAD = Path(__file__).parents[1] / "benchmarks" / "overhead.py"
SECONDS = 120
"""For the command; it takes about 3 where nothing else runs."""


def test_the_overhead_is_measured_in_every_part():
    command = [sys.executable, str(OVERHEAD), "--quick"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout
    for name in ("get", "statuses", "page", "create", "import"):
        assert f"\n  {name:10} bare " in printed
    assert "lipsync get ls_abc123: " in printed
    assert "each call was only made in memory" in printed
