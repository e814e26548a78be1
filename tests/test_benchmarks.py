"""The benchmarks of the repository run: each part at its smallest size, with the contenders that are installed."""

import subprocess
import sys
from pathlib import Path

from benchmarks.parts import PARTS
from benchmarks.results import Results

ROOT = Path(__file__).parents[1]
SECONDS = 50


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT).stdout


def test_every_part_has_a_summary_in_the_list():
    lines = run("--list").splitlines()
    assert [line.split()[0] for line in lines] == list(PARTS)


def test_the_calls_of_the_contenders_are_measured():
    (part,) = Results.from_json(run("calls", "--quick")).parts
    assert [table.title for table in part.tables][:2] == ["get, 1 at once", "get, 100 at once"]
    for table in part.tables:
        assert [line.name for line in table.lines if line.figures][:2] == ["heygen-async", "aiohttp by hand"]
