"""A run that makes a rejected row again and is killed with SIGKILL at any point: one more job, and its file."""

import os
from collections import Counter
from pathlib import Path

import pytest
from bulk_stage import Stage, staged
from killable_run import rows_of_a_killable_run
from test_bulk_crash import _killable_run, _killed

from heygen_async.bulk import Review
from heygen_async.bulk.journal import Journal
from heygen_async.sandbox import SAMPLE_VIDEO

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

_MOST_POINTS = 100


async def _reject(stage: Stage, key: str) -> None:
    journal = Journal(stage.folder / "run.sqlite", origin="")
    await journal.open_existing()
    try:
        record = (await journal.records([key]))[key]
        assert record.lipsync_id is not None
        await journal.keep_review(Review(key, record.lipsync_id, "rejected"))
    finally:
        await journal.aclose()


async def _drafts(stage: Stage) -> Path:
    """Make both rows and reject the second, which has a local source; return its file."""
    assert set(await stage.states(rows_of_a_killable_run())) == {"completed"}
    await _reject(stage, "row-2")
    return stage.folder / "out" / "row-2.mp4"


@pytest.mark.timeout(300)
async def test_a_redo_that_is_killed_at_any_point_is_resumed_with_one_more_job(tmp_path: Path) -> None:
    async with _killable_run() as process:
        for point in range(1, _MOST_POINTS):
            folder = tmp_path / str(point)
            folder.mkdir()
            async with staged(folder) as stage:
                rejected = await _drafts(stage)
                before = rejected.stat().st_ino
                was_killed = await _killed(process, point, stage)
                states = await stage.states(rows_of_a_killable_run(), redo_rejected=True)
                assert set(states) <= {"completed", "unchanged"}
                assert stage.jobs_by_key() == {"row-1": 1, "row-2": 2}
                assert max(stage.jobs_by_attempt().values()) == 1
                assert stage.files() == {"row-1.mp4", "row-2.mp4"}
                assert rejected.read_bytes() == SAMPLE_VIDEO.read_bytes()
                assert rejected.stat().st_ino != before
            if not was_killed:
                break
    assert 20 < point < _MOST_POINTS  # it went through to the end, and there were points on the way


async def test_a_redo_that_is_killed_and_continued_without_the_option_is_the_same_redo(tmp_path: Path) -> None:
    async with _killable_run() as process, staged(tmp_path) as stage:
        await _drafts(stage)
        for point in (9, 12, 15):
            await _killed(process, point, stage)
        states: Counter[str] = await stage.states(rows_of_a_killable_run())
        assert set(states) <= {"completed", "unchanged"}
        assert stage.jobs_by_key()["row-2"] <= 2
        assert max(stage.jobs_by_attempt().values()) == 1
