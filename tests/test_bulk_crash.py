"""A run that is killed with SIGKILL at any point is resumed: one job and one good file for each row."""

import asyncio
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bulk_stage import Stage, staged
from killable_run import rows_of_a_killable_run

from heygen_async.sandbox import SAMPLE_VIDEO

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

DAY = 24 * 3600.0
_MOST_POINTS = 100


@asynccontextmanager
async def _killable_run() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("killable_run.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _killed(process: asyncio.subprocess.Process, point: int, stage: Stage) -> bool:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{point} {stage.sandbox.url} {stage.folder}\n".encode())
    answer = (await process.stdout.readline()).decode().strip()
    assert answer in {"killed", "done"}
    return answer == "killed"


def _known_to_have_a_job(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "run.sqlite") as database:
        try:
            found = database.execute(
                "SELECT key FROM rows WHERE state IN ('submitted', 'completed', 'done')"
            ).fetchall()
        except sqlite3.OperationalError:  # there are no tables yet
            found = []
    database.close()
    return {key for (key,) in found}


async def _resume(stage: Stage, *, after: float = 0.0) -> None:
    known = _known_to_have_a_job(stage.folder)
    sent = Counter(stage.keys_sent())
    if after >= DAY:
        stage.sandbox.forget_keys()
    states = await stage.states(rows_of_a_killable_run(), now=lambda: time.time() + after)

    assert set(states) <= {"completed", "unchanged"}
    assert stage.jobs_by_key() == {"row-1": 1, "row-2": 1}
    assert stage.files() == {"row-1.mp4", "row-2.mp4"}
    for path in (stage.folder / "out").iterdir():
        assert path.read_bytes() == SAMPLE_VIDEO.read_bytes()
    again = Counter(stage.keys_sent()) - sent
    assert not known & set(again)  # no create is repeated that was known to be done


@pytest.mark.timeout(240)  # it starts two programs for each point
@pytest.mark.parametrize("after", [0.0, DAY + 3600], ids=["at once", "after the server forgot the keys"])
async def test_a_run_that_is_killed_at_any_point_is_resumed_without_a_loss(tmp_path: Path, after: float) -> None:
    async with _killable_run() as process:
        for point in range(1, _MOST_POINTS):
            folder = tmp_path / str(point)
            folder.mkdir()
            async with staged(folder) as stage:
                was_killed = await _killed(process, point, stage)
                await _resume(stage, after=after)
            if not was_killed:
                break

    assert 25 < point < _MOST_POINTS  # it went through to the end, and there were points on the way


async def test_a_run_that_is_killed_repeatedly_completes(tmp_path: Path) -> None:
    async with _killable_run() as process, staged(tmp_path) as stage:
        for point in (3, 7, 9, 12, 14):
            await _killed(process, point, stage)
        await _resume(stage)
