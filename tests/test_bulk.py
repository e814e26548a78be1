"""Bulk runs from end to end: one job and one file for each row, whatever happens on the way."""

import asyncio
import hashlib
import shutil
import sqlite3
import struct
import threading
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve
from bulk_stage import AUDIO, CREATE, Stage, rows, staged, url
from until import until

from heygen_async import (
    APIError,
    AssetId,
    AuthenticationError,
    DownloadError,
    InsufficientCredit,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
)
from heygen_async._ids import KEY_SECONDS
from heygen_async._media import parts
from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.checks import BadRows
from heygen_async.bulk.events import DubEvent
from heygen_async.bulk.identity import FileInfo, inputs_digest_0_1
from heygen_async.bulk.journal_file import JournalInUse
from heygen_async.bulk.manifest import Manifest, SourceRow
from heygen_async.bulk.row_source import slices_of
from heygen_async.bulk.store import JournalError
from heygen_async.models import DubOutcome, DubRow
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO
from heygen_async.sandbox.faults import Alter, Fault, Reply, error, missing, rate_limited, reset, server_error, stall

DAY = 24 * 3600.0


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


# What a run does


async def test_each_row_becomes_one_job_and_one_file(stage: Stage) -> None:
    outcomes = await stage.outcomes(rows(25))

    assert Counter(outcome.state for outcome in outcomes) == {"completed": 25}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 26)}
    assert stage.files() == {f"row-{number}.mp4" for number in range(1, 26)}
    assert all(outcome.path and outcome.path.read_bytes() == SAMPLE_VIDEO.read_bytes() for outcome in outcomes)
    assert set(stage.keys_sent()) == {f"row-{number}" for number in range(1, 26)}


async def test_an_outcome_describes_its_row_job_and_file(stage: Stage) -> None:
    [row] = rows(1, title="One", output="fr/one.mp4")
    [outcome] = await stage.outcomes([row])

    assert (outcome.row, outcome.key, outcome.state, outcome.attempts) == (row, "row-1", "completed", 1)
    assert outcome.path == stage.folder / "out/fr/one.mp4"
    assert outcome.lipsync is not None
    assert outcome.lipsync.id == stage.sandbox.jobs[0].id
    assert stage.sandbox.jobs[0].title == "One"
    assert outcome.error is None


async def test_a_second_run_with_the_same_rows_sends_nothing(stage: Stage) -> None:
    await stage.outcomes(rows(3))
    before = len(stage.sandbox.requests)
    outcomes = await stage.outcomes(rows(3))

    assert [outcome.state for outcome in outcomes] == ["unchanged"] * 3
    assert [outcome.path.name for outcome in outcomes if outcome.path] == ["row-1.mp4", "row-2.mp4", "row-3.mp4"]
    assert all(outcome.error is None for outcome in outcomes)
    assert len(stage.sandbox.requests) == before


async def test_a_file_that_was_removed_is_downloaded_again(stage: Stage) -> None:
    await stage.outcomes(rows(2))
    (stage.folder / "out/row-1.mp4").unlink()
    states = await stage.states(rows(2))

    assert states == {"completed": 1, "unchanged": 1}
    assert len(stage.sandbox.jobs) == 2
    assert stage.files() == {"row-1.mp4", "row-2.mp4"}


async def test_a_file_that_was_emptied_is_downloaded_again(stage: Stage) -> None:
    await stage.outcomes(rows(1))
    (stage.folder / "out/row-1.mp4").write_bytes(b"")

    assert await stage.states(rows(1)) == {"completed": 1}
    assert (stage.folder / "out/row-1.mp4").read_bytes() == SAMPLE_VIDEO.read_bytes()
    assert len(stage.sandbox.jobs) == 1


async def test_rows_may_come_from_anywhere(stage: Stage) -> None:
    async def trickle() -> AsyncIterator[DubRow]:
        for row in rows(3):
            await asyncio.sleep(0)
            yield row

    assert await stage.states(trickle(), journal=None) == {"completed": 3}
    shutil.rmtree(stage.folder / "out")
    assert await stage.states(iter(rows(3)), journal=None) == {"completed": 3}
    manifest = stage.folder / "rows.csv"
    manifest.write_text(f"video,audio,key\n{url(1)},{AUDIO},m-1\n")
    assert await stage.states(Manifest(manifest)) == {"completed": 1}


async def test_without_a_folder_only_named_outputs_are_written(stage: Stage) -> None:
    named = stage.folder / "named.mp4"
    given = [*rows(1), DubRow(url(2), AUDIO, key="named", output=named)]
    outcomes = await stage.outcomes(given, output_dir=None)

    assert {outcome.key: outcome.path for outcome in outcomes} == {"row-1": None, "named": named}
    assert named.exists()
    assert await stage.states(given, output_dir=None) == {"unchanged": 2}


async def test_the_same_content_is_uploaded_once_in_all_runs(stage: Stage) -> None:
    copy = stage.folder / "copy.mp3"
    shutil.copy(SAMPLE_AUDIO, copy)
    given = [DubRow(url(number), path, key=f"k{number}") for number, path in enumerate([SAMPLE_AUDIO, copy] * 3)]
    await stage.outcomes(given[:3])
    async with staged(stage.folder) as other:  # a new session has no memory of its own
        assert other.asked("POST /v3/assets") == 0
    await stage.outcomes(given)

    assert stage.asked("POST /v3/assets") == 1
    assert len(stage.sandbox.jobs) == 6


async def test_the_options_of_a_row_are_sent(stage: Stage) -> None:
    options = {"mode": "precision", "title": "T", "enable_caption": True, "callback_id": "mine"}
    row = DubRow(url(1), AUDIO, key="k", captions=False, **options)
    await stage.outcomes([row])
    [job] = stage.sandbox.jobs

    assert job.body == {
        "video": {"type": "url", "url": url(1)},
        "audio": {"type": "url", "url": AUDIO},
        **options,
    }


async def test_no_more_jobs_are_in_flight_than_the_caller_says(stage: Stage) -> None:
    most = 0

    def note(_: DubEvent) -> None:
        nonlocal most
        most = max(most, run.snapshot().in_flight)

    async with stage.run(rows(12), max_in_flight=2, on_event=note) as run:
        assert len([outcome async for outcome in run]) == 12

    assert most == 2
    assert not any(request.status == 429 for request in stage.sandbox.requests)


async def test_uploads_are_only_so_far_ahead_of_creates(tmp_path: Path) -> None:
    async with staged(tmp_path, faults=[stall(CREATE)]) as stage:
        given = [DubRow(url(number), SAMPLE_AUDIO.read_bytes() + bytes([number])) for number in range(60)]
        async with stage.run(given) as run:
            await until(lambda: run.snapshot().stages == {"waiting": 12, "submitting": 4})  # and none is uploading
            assert stage.asked("POST /v3/assets") == 16
            stage.sandbox.release()


async def test_stalled_downloads_delay_no_create(tmp_path: Path) -> None:
    async with staged(tmp_path, faults=[stall("GET /files/{name}")]) as stage, stage.run(rows(60)):
        await until(lambda: len(stage.sandbox.jobs) == 60)
        assert stage.asked("GET /files/{name}") == 4
        stage.sandbox.release()


async def test_a_journal_holds_no_key_and_no_link(stage: Stage) -> None:
    given = [DubRow("https://example.com/v.mp4?X-Amz-Signature=5ec5e7", SAMPLE_AUDIO, key="k")]
    async with stage.run(given) as run:
        await anext(run)
        written = b"".join(path.read_bytes() for path in stage.folder.glob("run.sqlite*"))
        await run.write_report(stage.folder / "report.csv")

    written += (stage.folder / "run.sqlite").read_bytes() + (stage.folder / "report.csv").read_bytes()
    assert b"k.mp4" in written
    assert not [word for word in (b"sandbox-key", b"5ec5e7", b"example.com") if word in written]


async def test_an_account_that_takes_three_gets_three(tmp_path: Path) -> None:
    # Time stands still while creates are on their way: a job that ends unseen would make room for a fourth.
    async with staged(tmp_path, account_limit=3, manual=True) as stage, stage.run(rows(12)) as run:

        def is_full(made: int) -> bool:
            now = run.snapshot()
            return len(stage.sandbox.jobs) == made and now.limit == 3 and not now.stages.get("submitting")

        for wave in range(1, 5):
            await until(partial(is_full, 3 * wave))
            await stage.sandbox.advance(20)
        states = Counter([outcome.state async for outcome in run])

    assert states == {"completed": 12}
    assert run.snapshot().limit == 3
    assert run.snapshot().refusals <= 2 * 4  # those of a wave: one that finds the limit, one that tries it again


# Rows that are wrong


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        pytest.param([DubRow(Path("nowhere.mp4"), AUDIO)], "row 1, video: nowhere.mp4 cannot be read", id="no file"),
        pytest.param(rows(1) * 2, "row 2: duplicate of row 1: the same key row-1", id="same key"),
        pytest.param(
            [DubRow(url(1), AUDIO)] * 2, "row 2: duplicate of row 1: the same key", id="same row without a key"
        ),
        pytest.param(rows(2, output="x.mp4"), "row 2: duplicate of row 1: the same output", id="same output"),
        pytest.param(
            rows(2, callback_id="c"), "row 2: duplicate of row 1: the same callback_id c", id="same callback id"
        ),
        pytest.param(rows(1, output="../x.mp4"), "row 1, output: must stay in the output folder", id="leaves"),
        pytest.param([DubRow(url(1, "sig=1"), AUDIO)], "row 1, key: video looks like a signed link", id="signed"),
    ],
)
async def test_an_invalid_row_is_reported_before_anything_is_sent(
    stage: Stage, given: list[DubRow], problem: str
) -> None:
    with pytest.raises(BadRows) as caught:
        await stage.outcomes([DubRow(url("good"), AUDIO), *given][-len(given) :])

    assert str(caught.value.problems[0]).startswith(problem)
    assert stage.sandbox.requests == []


async def test_all_invalid_rows_are_reported_together(stage: Stage) -> None:
    manifest = stage.folder / "rows.csv"
    manifest.write_text(f"video,audio\n{url(1)},none.mp3\n{url(2)},{AUDIO}\nhttp://a.b/c,{AUDIO}\n{url(2)},{AUDIO}\n")
    with pytest.raises(BadRows) as caught:
        await stage.outcomes(Manifest(manifest))

    assert [problem.place for problem in caught.value.problems] == ["line 2, audio", "line 4, video", "line 5"]
    assert caught.value.count == 3


async def test_an_invalid_row_of_a_stream_fails_alone(stage: Stage) -> None:
    good, other = rows(2)
    outcomes = await stage.outcomes(iter([good, good, evolve(other, output="../x.mp4"), other]))

    assert Counter(outcome.state for outcome in outcomes) == {"completed": 2, "failed": 2}
    assert {str(outcome.error) for outcome in outcomes if outcome.error} == {
        "row 2: duplicate of row 1: the same key row-1",
        "row 3, output: must stay in the output folder: '../x.mp4'",
    }


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_of_two_runs_that_write_the_same_files_at_once_one_fails_before_it_is_paid(
    stage: Stage, submit: str
) -> None:
    french, german = (rows(3, audio=f"https://example.com/{language}.mp3") for language in ("fr", "de"))
    found = await asyncio.gather(
        stage.states(french, submit=submit, journal=stage.folder / "fr.sqlite"),
        stage.states(german, submit=submit, journal=stage.folder / "de.sqlite"),
    )

    assert sum(found, Counter()) == {"completed": 3, "failed": 3}
    assert len(stage.sandbox.jobs) == 3


async def test_a_row_whose_file_a_dub_is_about_to_write_fails_before_it_is_paid(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage:
        output = tmp_path / "out" / "row-1.mp4"
        output.parent.mkdir()
        dub = asyncio.create_task(stage.heygen.dub(video=url(1), audio=AUDIO, output=output))
        await until(lambda: stage.sandbox.jobs)

        (outcome,) = await stage.outcomes(rows(1))
        assert "is being downloaded already" in str(outcome.error)
        assert len(stage.sandbox.jobs) == 1
        await stage.sandbox.advance(1000)
        await dub


async def test_a_row_gives_its_file_free_when_it_has_ended(stage: Stage) -> None:
    assert await stage.states(rows(1)) == {"completed": 1}
    stage.sandbox.faults = [error(400, "invalid_parameter", route=CREATE)]
    assert await stage.states(rows(2)) == {"unchanged": 1, "failed": 1}
    stage.sandbox.faults = []

    assert await stage.states(rows(2)) == {"unchanged": 1, "completed": 1}
    (stage.folder / "out" / "row-1.mp4").unlink()
    assert await stage.states(rows(2)) == {"unchanged": 1, "completed": 1}


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("times", [1, 12], ids=["at first", "for longer than a download takes"])
async def test_a_video_whose_link_is_late_is_downloaded_in_the_same_run(stage: Stage, submit: str, times: int) -> None:
    get = "GET /v3/lipsyncs/{lipsync_id}"
    stage.sandbox.faults = [Fault(get, Alter({"video_url": None}, replace_only=True), times=times)]

    assert await stage.states(rows(1), submit=submit) == {"completed": 1}
    assert stage.files() == {"row-1.mp4"}


async def _row_and_a_cancelled_task(one: DubRow, ready: Callable[[], object]) -> AsyncIterator[DubRow]:
    yield one
    await until(ready)
    feed = asyncio.create_task(asyncio.sleep(3600))
    feed.cancel()
    await feed


def _row_and_a_cancelled_error(one: DubRow, _ready: Callable[[], object]) -> Iterator[DubRow]:
    yield one
    raise asyncio.CancelledError


@pytest.mark.parametrize("source", [_row_and_a_cancelled_task, _row_and_a_cancelled_error])
async def test_rows_that_raise_cancelled_error_end_the_run_with_an_error(
    tmp_path: Path, source: Callable[..., Iterator[DubRow] | AsyncIterator[DubRow]]
) -> None:
    async with staged(tmp_path, manual=True) as stage:
        with pytest.raises(RuntimeError, match="the rows raised CancelledError") as caught:
            async with stage.run(source(rows(1)[0], lambda: stage.sandbox.jobs)) as run:
                _ = [outcome async for outcome in run]

    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_a_run_that_is_left_while_the_next_row_is_awaited_ends_without_an_error(tmp_path: Path) -> None:
    is_awaited, is_ended = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[DubRow]:
        try:
            yield rows(1)[0]
            is_awaited.set()
            await asyncio.Event().wait()
        finally:
            is_ended.set()

    async with staged(tmp_path, manual=True) as stage, stage.run(endless()):
        await is_awaited.wait()

    assert is_ended.is_set()


async def test_inputs_that_changed_need_a_new_key(stage: Stage) -> None:
    await stage.outcomes(rows(1))
    with pytest.raises(BadRows, match="new key"):
        await stage.outcomes(rows(1, title="another"))

    assert len(stage.sandbox.jobs) == 1


async def test_a_link_that_was_signed_again_is_the_same_row(stage: Stage) -> None:
    for signature in ("mon", "tue"):
        states = await stage.states([DubRow(f"https://example.com/v.mp4?sig={signature}", AUDIO, key="k")])

    assert states == {"unchanged": 1}
    assert len(stage.sandbox.jobs) == 1


async def test_a_row_without_a_key_is_recognised_by_its_content(stage: Stage) -> None:
    first, second = stage.folder / "a.mp3", stage.folder / "b.mp3"
    for path in (first, second):
        shutil.copy(SAMPLE_AUDIO, path)
    await stage.outcomes([DubRow(url(1), first)])

    assert await stage.states([DubRow(url(1), second)]) == {"unchanged": 1}


async def test_rows_that_are_not_dub_rows_are_refused(stage: Stage) -> None:
    with pytest.raises(TypeError, match="Manifest"):
        stage.heygen.dub_many("rows.csv", journal=None)
    for options in ({"submit": "all"}, {"max_in_flight": 0}, {"max_attempts": 0}, {"budget": -1}, {"rates": {"x": 1}}):
        with pytest.raises(ValueError, match=r"must|are"):
            stage.heygen.dub_many([], journal=None, **options)
    with pytest.raises(TypeError, match="row 1 must be a DubRow"):
        await stage.outcomes([{"video": url(1)}])


# Files that are in the way


async def test_a_file_that_is_there_already_is_not_overwritten_and_nothing_is_paid(stage: Stage) -> None:
    out = stage.folder / "out"
    out.mkdir()
    (out / "row-1.mp4").write_text("mine")
    with pytest.raises(BadRows, match=r"row 1, output: .*exists already"):
        await stage.outcomes(rows(2))

    assert (out / "row-1.mp4").read_text() == "mine"
    assert stage.sandbox.requests == []
    (out / "row-1.mp4").unlink()
    assert await stage.states(rows(2)) == {"completed": 2}


async def test_an_output_folder_that_cannot_be_written_is_reported_before_anything_is_sent(stage: Stage) -> None:
    (stage.folder / "out").write_text("a file")
    with pytest.raises(BadRows, match="out is not a folder"):
        await stage.outcomes(rows(1))

    assert stage.sandbox.requests == []
    (stage.folder / "out").unlink()
    assert await stage.states(rows(1)) == {"completed": 1}  # the journal was let go


async def test_a_download_that_cannot_be_written_is_repeated_in_the_next_run(stage: Stage) -> None:
    [row] = rows(1, output="sub/x.mp4")
    async with stage.run([row]) as run:
        (stage.folder / "out/sub").write_text("a file where a folder should be")
        [outcome] = [outcome async for outcome in run]

    assert outcome.state == "failed"
    (stage.folder / "out/sub").unlink()
    assert await stage.states([row]) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 1


@contextmanager
def _files_are_full_at(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size* bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="there are no limits of processes here")
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


async def test_a_disk_that_is_full_of_videos_costs_no_job_and_no_second_try(stage: Stage) -> None:
    [row] = rows(1)
    async with stage.run([row], journal=None) as run:
        with _files_are_full_at(1000):
            [outcome] = [outcome async for outcome in run]

    assert outcome.state == "failed"
    assert isinstance(outcome.error, DownloadError)
    assert "row-1.mp4" in str(outcome.error)
    assert isinstance(outcome.error.__cause__, OSError)
    assert stage.asked("GET /files/{name}") == 1
    assert "row-1.mp4" not in stage.files()


async def test_a_run_whose_disk_was_full_continues_when_there_is_room(stage: Stage) -> None:
    given = rows(3)
    async with stage.run(given) as run:
        await until(lambda: len(stage.sandbox.jobs) == 3)
        with _files_are_full_at(1000), pytest.raises(JournalError, match=r"run\.sqlite cannot be used"):
            async for _ in run:
                pass

    states = await stage.states(given)

    assert set(states) <= {"completed", "unchanged"}
    assert stage.jobs_by_key() == {row.key: 1 for row in given}
    assert stage.files() == {f"{row.key}.mp4" for row in given}


# Jobs that fail


async def test_a_bad_source_is_final(stage: Stage) -> None:
    bad = DubRow(url("bad", "fail=No+face+was+found"), AUDIO, key="bad")
    for _ in range(2):
        outcomes = await stage.outcomes([bad, *rows(2)])
        failed = next(outcome for outcome in outcomes if outcome.key == "bad")

        assert failed.state == "failed"
        assert isinstance(failed.error, LipsyncFailed)
        assert failed.error.lipsync.failure_message == "No face was found"
    assert stage.jobs_by_key()["bad"] == 1
    assert len(stage.sandbox.jobs) == 3


async def test_a_server_fault_is_retried_under_other_keys(stage: Stage) -> None:
    bad = DubRow(url("bad", "fail=Internal+error"), AUDIO, key="bad")
    [outcome] = await stage.outcomes([bad])

    assert (outcome.state, outcome.attempts) == ("failed", 3)
    assert stage.keys_sent() == ["bad"] * 3
    assert len(set(stage.attempt_keys())) == 3
    assert await stage.states([bad]) == {"failed": 1}
    assert len(stage.sandbox.jobs) == 3

    await stage.outcomes([bad], max_attempts=4)
    assert stage.keys_sent() == ["bad"] * 4
    assert len(set(stage.attempt_keys())) == 4


async def test_a_job_that_fails_once_is_repeated(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage, stage.run(rows(1)) as run:
        await until(lambda: stage.sandbox.jobs)
        stage.sandbox.fail(stage.sandbox.jobs[0].id, "server overloaded")
        await until(lambda: len(stage.sandbox.jobs) == 2)
        await stage.sandbox.advance(60)
        outcome = await anext(run)

        assert (outcome.state, outcome.attempts) == ("completed", 2)
        assert stage.files() == {"row-1.mp4"}


async def test_a_refused_create_is_final_for_the_run_and_free_for_the_next(stage: Stage) -> None:
    refused = [error(400, "download_failed", route=CREATE, times=1)]
    stage.sandbox.faults = refused
    [outcome] = await stage.outcomes(rows(1))
    assert outcome.state == "failed"
    assert isinstance(outcome.error, InvalidRequest)
    assert stage.sandbox.jobs == []

    assert await stage.states(rows(1)) == {"completed": 1}
    assert stage.keys_sent() == ["row-1", "row-1"]


async def test_a_row_that_fails_affects_no_other_row(stage: Stage) -> None:
    bad = [
        DubRow(url("a", "refuse=download_failed"), AUDIO, key="a"),
        DubRow(url("b", "fail=No+face"), AUDIO, key="b"),
        DubRow(AssetId("as_unknown"), AUDIO, key="c"),
    ]

    assert await stage.states([*bad, *rows(6)]) == {"failed": 3, "completed": 6}


class _Float(float):
    """What other libraries have for numbers."""


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("number", [float, _Float])
async def test_rows_whose_numbers_are_written_in_another_way_are_one_job(
    stage: Stage, key: str | None, number: type[float]
) -> None:
    given = DubRow(url("a"), AUDIO, key=key, start_time=1, end_time=5)
    assert await stage.states([given]) == {"completed": 1}
    again = evolve(given, start_time=number(1), end_time=number(5))
    assert await stage.states([again]) == {"unchanged": 1}
    assert await stage.states([again], journal=stage.folder / "new.sqlite", output_dir=None) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("key", [None, "k"])
async def test_rows_with_integers_of_an_older_journal_are_not_paid_again(stage: Stage, key: str | None) -> None:
    given = DubRow(url("a"), AUDIO, key=key, output="a.mp4", start_time=1, end_time=5)
    await stage.outcomes([given])
    older = inputs_digest_0_1(given, {})
    assert older is not None
    with stage.database() as database:
        database.execute("UPDATE rows SET key = ?, inputs = ?", [key or older[:32], older])

    assert await stage.states([given]) == {"unchanged": 1}
    assert len(stage.sandbox.jobs) == 1


async def test_a_survey_changes_no_record(stage: Stage) -> None:
    failing = DubRow(url("f", "fail=No+face"), AUDIO, key="f")
    await stage.outcomes([*rows(2), failing])
    query = "SELECT key, target, state, attempt, number, place FROM rows ORDER BY key"
    with stage.database() as database:
        before = database.execute(query).fetchall()

    survey = await stage.run([evolve(failing, title="another"), *rows(2)], output_dir=None).survey()

    assert survey.to_submit == 1
    with stage.database() as database:
        assert database.execute(query).fetchall() == before


async def test_the_longest_output_counts_for_the_next_run_too(stage: Stage) -> None:
    given = rows(10)
    length = 4.0 * 0.0333
    assert await stage.states(given[:5], budget=18 * length) == {"completed": 5}
    assert await stage.states(given, budget=18 * length) == {"unchanged": 5, "completed": 5}
    assert (await stage.run(rows(11)).survey()).estimate == pytest.approx(length)


def _local(path: Path, **options: object) -> DubRow:
    return DubRow(url("f", "fail=No+face"), path, key="f", **options)


@pytest.mark.parametrize(("name", "retry_failed"), [("gone.mp3", True), ("typo.mp3", False)])
async def test_a_source_of_a_failed_row_is_checked_before_anything_is_sent_if_it_is_needed(
    stage: Stage, name: str, retry_failed: bool
) -> None:
    gone = stage.folder / "gone.mp3"
    gone.write_bytes(SAMPLE_AUDIO.read_bytes())
    assert await stage.states([_local(gone)]) == {"failed": 1}
    gone.unlink()

    with pytest.raises(BadRows, match=rf"audio.*{name}"):
        await stage.outcomes([_local(stage.folder / name), *rows(2)], retry_failed=retry_failed)
    assert len(stage.sandbox.jobs) == 1


async def test_a_source_of_a_failed_row_that_stays_as_it_is_need_not_be_there(stage: Stage) -> None:
    gone = stage.folder / "gone.mp3"
    gone.write_bytes(SAMPLE_AUDIO.read_bytes())
    await stage.outcomes([_local(gone)])
    gone.unlink()

    assert await stage.states([_local(gone), *rows(1)]) == {"failed": 1, "completed": 1}


async def test_a_failed_row_with_integers_of_an_older_journal_need_not_have_its_sources(stage: Stage) -> None:
    gone = stage.folder / "gone.mp3"
    gone.write_bytes(SAMPLE_AUDIO.read_bytes())
    given = _local(gone, start_time=1, end_time=5)
    await stage.outcomes([given])
    digest = hashlib.sha256(gone.read_bytes()).hexdigest()
    with stage.database() as database:
        older = inputs_digest_0_1(given, {"audio": FileInfo("", digest, None)})
        database.execute("UPDATE rows SET inputs = ?", [older])
    gone.unlink()

    assert await stage.states([given, *rows(1)]) == {"failed": 1, "completed": 1}


@pytest.mark.parametrize("start", [4, 1000.0])
@pytest.mark.parametrize("video", [SAMPLE_VIDEO, SAMPLE_VIDEO.read_bytes()], ids=["file", "bytes"])
async def test_a_row_that_starts_beyond_the_end_of_its_video_is_refused(
    stage: Stage, start: float, video: Path | bytes
) -> None:
    given = [*rows(1), DubRow(video, AUDIO, key="k", start_time=start)]
    with pytest.raises(BadRows) as caught:
        await stage.outcomes(given)

    problem = f"row 2, start_time: {start:g} is beyond the end of the video (4 s)"
    assert list(map(str, caught.value.problems)) == [problem]
    assert stage.sandbox.requests == []


async def test_a_part_beyond_the_end_of_the_audio_is_of_unknown_length(stage: Stage) -> None:
    survey = await stage.run([DubRow(url("v"), SAMPLE_AUDIO, key="k", start_time=1000.0)]).survey()

    assert (survey.to_submit, survey.unknown) == (1, 1)
    assert survey.estimate > 0


@pytest.mark.parametrize("length", [300, 30])
async def test_a_survey_says_which_length_it_assumes(stage: Stage, length: int) -> None:
    await stage.outcomes([DubRow(url("a", f"duration={length}"), AUDIO, key="a")])
    survey = await stage.run([DubRow(url("b"), AUDIO, key="b")]).survey()

    assert survey.assumed_seconds == length
    assert survey.estimate == pytest.approx(length * 0.0333)


@pytest.mark.parametrize(("rate", "size"), [(16_000, 2), (48_000, 2), (8_000, 1)])
async def test_a_wav_that_was_written_to_a_pipe_is_as_long_as_its_samples(stage: Stage, rate: int, size: int) -> None:
    header = struct.pack("<IHHIIHH", 16, 1, 1, rate, size * rate, size, 8 * size)
    unknown = struct.pack("<I", 0xFFFFFFFF)
    wav = stage.folder / "a.wav"
    wav.write_bytes(b"RIFF" + unknown + b"WAVEfmt " + header + b"data" + unknown + bytes(2 * rate * size))

    survey = await stage.run([DubRow(url("v"), wav, key="a")]).survey()
    assert survey.estimate == pytest.approx(2 * 0.0333, rel=0.01)


@pytest.mark.parametrize("kind", [ValueError, BrokenPipeError, KeyError])
async def test_an_error_of_the_callers_callback_ends_the_run_and_is_no_rows(
    stage: Stage, kind: type[Exception]
) -> None:
    def listen(event: DubEvent) -> None:
        if event.stage == "submitting":
            raise kind("of the callback")

    with pytest.raises(kind, match="of the callback"):
        await stage.outcomes(rows(2), on_event=listen)
    assert await stage.states(rows(2)) == {"completed": 2}


async def test_a_job_that_was_deleted_is_not_created_again(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(rows(1)) as run:
            await until(lambda: stage.sandbox.jobs)
            await stage.heygen.lipsyncs.delete(stage.sandbox.jobs[0].id)
            outcome = await anext(run)

        assert isinstance(outcome.error, NotFound)
        assert await stage.states(rows(1)) == {"failed": 1}
        assert len(stage.sandbox.jobs) == 1


async def _delete_the_job_of_a_row_in_progress(stage: Stage) -> None:
    async with stage.run(rows(1)) as run:
        await until(lambda: run.snapshot().stages.get("running"))
    await stage.heygen.lipsyncs.delete(stage.sandbox.jobs[0].id)


@pytest.mark.parametrize("max_attempts", [1, 3])
async def test_a_row_whose_job_was_deleted_gets_another_one_with_retry_failed_only(
    tmp_path: Path, max_attempts: int
) -> None:
    async with staged(tmp_path, manual=True) as stage:
        await _delete_the_job_of_a_row_in_progress(stage)
        assert await stage.states(rows(1)) == {"failed": 1}
        assert await stage.states(rows(1)) == {"failed": 1}
        assert len(stage.sandbox.jobs) == 1

        async with stage.run(rows(1), retry_failed=True, max_attempts=max_attempts) as run:
            await until(lambda: len(stage.sandbox.jobs) == 2)
            await stage.sandbox.advance(100)
            assert [outcome.state async for outcome in run] == ["completed"]
            spent = run.snapshot().spent
        with stage.database() as database:  # the first job may have been paid
            assert database.execute("SELECT earlier_estimate > 0, estimate > 0 FROM rows").fetchone() == (1, 1)
            [total] = database.execute("SELECT total(estimate + earlier_estimate) FROM rows").fetchone()
        assert spent == pytest.approx(total)


async def test_a_row_whose_job_was_deleted_is_not_paid_again_if_it_may_be_that_of_another_account(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path, manual=True, faults=[error(403, "forbidden", route="GET /v3/users/me")]) as stage:
        await _delete_the_job_of_a_row_in_progress(stage)

        assert await stage.states(rows(1), retry_failed=True) == {"failed": 1}
        assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("is_done", [False, True], ids=["not downloaded yet", "done and moved away"])
async def test_a_job_that_has_ended_and_cannot_be_found_is_not_replaced(stage: Stage, is_done: bool) -> None:
    """The API may lag behind, and what was completed was paid."""
    if not is_done:
        stage.sandbox.faults = [server_error("GET /files/{name}")]
    await stage.outcomes(rows(1))
    (stage.folder / "out" / "row-1.mp4").unlink(missing_ok=True)
    stage.sandbox.faults = [missing("GET /v3/lipsyncs/{lipsync_id}")]
    for retry_failed in (False, True):
        assert await stage.states(rows(1), retry_failed=retry_failed) == {"failed": 1}
    stage.sandbox.faults = []

    assert await stage.states(rows(1)) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_page_of_a_gateway_does_not_say_that_a_job_was_deleted(tmp_path: Path, status: int) -> None:
    page = Reply(status=status, body=b"<html>gone</html>", content_type="text/html")
    async with staged(tmp_path, manual=True, statuses_available=False) as stage:
        async with stage.run(rows(1)) as run:
            await until(lambda: run.snapshot().stages.get("running"))
        stage.sandbox.faults = [Fault("GET /v3/lipsyncs/{lipsync_id}", page), Fault("GET /v3/lipsyncs", page)]
        assert await stage.states(rows(1), retry_failed=True) == {"failed": 1}

        assert len(stage.sandbox.jobs) == 1


async def test_an_upload_that_the_server_lost_is_sent_again_under_another_key(stage: Stage) -> None:
    given = [DubRow(url(1), SAMPLE_AUDIO, key="a"), DubRow(url(2), SAMPLE_AUDIO, key="b")]
    await stage.outcomes(given[:1])
    [asset_id] = {job.body["audio"]["asset_id"] for job in stage.sandbox.jobs}
    await stage.heygen.assets.delete(asset_id)

    assert await stage.states(given) == {"unchanged": 1, "completed": 1}
    assert stage.asked("POST /v3/assets") == 2
    assert stage.keys_sent() == ["a", "b", "b"]
    assert len(set(stage.attempt_keys())) == 3


# What concerns all rows


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(402, "insufficient_credit", InsufficientCredit), (401, "unauthorized", AuthenticationError)],
)
async def test_no_credit_or_a_wrong_key_ends_the_run_which_can_be_resumed(
    stage: Stage, status: int, code: str, kind: type[Exception]
) -> None:
    stage.sandbox.faults = [error(status, code, route=CREATE, times=1)]
    with pytest.raises(kind):
        await stage.outcomes(rows(8))

    assert set(await stage.states(rows(8))) <= {"completed", "unchanged"}
    assert all(count == 1 for count in stage.jobs_by_key().values())
    assert len(stage.jobs_by_key()) == 8


async def test_a_wallet_that_becomes_empty_ends_the_run(tmp_path: Path) -> None:
    # Each job costs 0.033 dollars a second, and lasts 10.
    given = [DubRow(url(number, "duration=10"), AUDIO, key=f"k{number}") for number in range(8)]
    async with staged(tmp_path, balance=1.0) as stage:
        with pytest.raises(InsufficientCredit):
            await stage.outcomes(given)

        assert len(stage.sandbox.jobs) == 3


async def test_an_error_in_an_events_listener_ends_the_run(stage: Stage) -> None:
    def listen(event: DubEvent) -> None:
        raise RuntimeError(event.stage)

    with pytest.raises(RuntimeError, match="waiting"):
        await stage.outcomes(rows(2), on_event=listen)


async def test_an_error_of_a_listener_keeps_its_cause(stage: Stage) -> None:
    def listen(event: DubEvent) -> None:
        raise RuntimeError("of the callback") from KeyError(event.stage)

    with pytest.raises(RuntimeError, match="of the callback") as raised:
        await stage.outcomes(rows(2), on_event=listen)
    assert isinstance(raised.value.__cause__, KeyError)


async def test_an_error_of_a_listener_keeps_the_error_that_it_was_raised_for(stage: Stage) -> None:
    def listen(event: DubEvent) -> None:
        try:
            {}[event.stage]
        except KeyError:
            raise RuntimeError("of the callback")  # noqa: B904 the case that is tested

    with pytest.raises(RuntimeError, match="of the callback") as raised:
        await stage.outcomes(rows(2), on_event=listen)
    assert isinstance(raised.value.__context__, KeyError)


@pytest.mark.parametrize("stage_of_event", ["waiting", "submitting", "running", "completed"])
async def test_a_cancelled_error_of_a_listener_ends_the_run_with_an_error(stage: Stage, stage_of_event: str) -> None:
    def listen(event: DubEvent) -> None:
        if event.stage == stage_of_event:
            raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="on_event raised CancelledError") as raised:
        await stage.outcomes(rows(2), on_event=listen)
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert sum((await stage.states(rows(2))).values()) == 2
    assert all(count == 1 for count in stage.jobs_by_key().values())


# Money


async def test_a_run_stops_submitting_before_the_estimate_passes_the_budget(stage: Stage) -> None:
    given = [DubRow(url(number), AUDIO, key=f"k{number}", end_time=10.0) for number in range(6)]
    options = {"budget": 1.0, "rates": {"speed": 0.3}}  # 3 dollars each, by the estimate
    assert await stage.states(given, **options) == {"skipped": 6}

    options = {"budget": 1.0, "rates": {"speed": 0.03}}  # 0.3 dollars each
    outcomes = await stage.outcomes(given, **options, max_in_flight=1)
    skipped = [outcome for outcome in outcomes if outcome.state == "skipped"]
    assert len(stage.sandbox.jobs) == 6 - len(skipped) >= 3
    assert all(isinstance(outcome.error, OverBudget) for outcome in skipped)


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_a_run_continues_while_the_true_costs_fit_the_budget(stage: Stage, submit: str) -> None:
    # Of no known length each is thought to cost $1.98; it turns out to be $0.13.
    assert await stage.states(rows(30), budget=5.0, submit=submit) == {"completed": 30}


async def test_jobs_of_an_earlier_run_may_cost_less_than_estimated(stage: Stage) -> None:
    async with stage.run(rows(2)):
        await until(lambda: len(stage.sandbox.jobs) == 2)

    assert await stage.states(rows(10), budget=5.0) == {"completed": 10}


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_with_a_budget_the_first_job_of_unknown_length_goes_alone(stage: Stage, submit: str) -> None:
    long = [DubRow(url(n, "duration=600"), AUDIO, key=f"k{n}") for n in range(6)]  # $19.80 each, thought to be $1.98

    assert await stage.states(long, budget=10.0, submit=submit) == {"completed": 1, "skipped": 5}
    assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("known", ["video", "audio"])
async def test_a_row_with_one_source_of_known_length_may_be_of_unknown_length(
    stage: Stage, submit: str, known: str
) -> None:
    options = {"video": SAMPLE_VIDEO} if known == "video" else {"audio": SAMPLE_AUDIO, "enable_dynamic_duration": False}
    given = [evolve(DubRow(url(n, "duration=600"), url(n, "duration=600"), key=f"k{n}"), **options) for n in range(6)]
    survey = await stage.run(given).survey()

    assert survey.unknown == 6
    assert survey.estimate == pytest.approx(6 * 60 * 0.0333)
    assert await stage.states(given, budget=10.0, submit=submit) == {"completed": 1, "skipped": 5}


async def test_the_guess_of_a_length_is_at_least_that_of_the_source_that_is_known(stage: Stage) -> None:
    audio = stage.folder / "a.wav"
    with wave.open(str(audio), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(100 * 8000))  # 100 s, $3.33
    given = [DubRow(url("v"), audio, key="k", enable_dynamic_duration=False)]

    assert (await stage.run(given).survey()).estimate == pytest.approx(100 * 0.0333)
    assert await stage.states(given, budget=3.0) == {"skipped": 1}


async def test_a_row_that_is_too_expensive_stops_no_other_row(stage: Stage) -> None:
    given = [DubRow(url(n, "duration=10"), AUDIO, key=f"k{n}", end_time=10.0) for n in range(4)]
    dear = DubRow(url("dear", "duration=5000"), AUDIO, key="dear", end_time=5000.0)

    assert await stage.states([dear, *given], budget=10.0, rates={"speed": 0.1}) == {"completed": 4, "skipped": 1}


async def test_a_job_with_an_estimate_of_almost_0_counts_with_its_true_cost(stage: Stage) -> None:
    given = [DubRow(url(n, "duration=100"), AUDIO, key=f"k{n}", end_time=0.001) for n in range(3)]
    async with stage.run(given, budget=1.0, rates={"speed": 1.0}, max_in_flight=1) as run:
        assert len([outcome async for outcome in run]) == 3

    assert run.snapshot().estimate == pytest.approx(300.0)


@pytest.mark.parametrize("length", [0, "0", -5.0])
async def test_an_output_of_no_length_above_0_counts_with_its_estimate(stage: Stage, length: object) -> None:
    routes = ["GET /v3/lipsyncs", "GET /v3/lipsyncs/{lipsync_id}"]
    stage.sandbox.faults = [Fault(route, Alter({"duration": length}, replace_only=True)) for route in routes]
    given = [DubRow(url(number), AUDIO, key=f"k{number}", end_time=10.0) for number in range(6)]
    options = {"budget": 1.0, "rates": {"speed": 0.03}}  # 0.3 dollars each

    assert await stage.states(given, **options) == {"completed": 3, "skipped": 3}
    assert await stage.states(given, **options) == {"unchanged": 3, "skipped": 3}
    with stage.database() as database:
        assert database.execute("SELECT DISTINCT seconds FROM rows").fetchall() == [(None,)]


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_the_length_of_a_part_is_not_the_guess_for_rows_of_unknown_length(stage: Stage, submit: str) -> None:
    part = DubRow(url("part", "duration=1"), AUDIO, key="part", end_time=1.0)
    await stage.outcomes([part], rates={"speed": 0.1})
    whole = [DubRow(url(number, "duration=50"), AUDIO, key=f"whole-{number}") for number in range(5)]
    again = evolve(part, video=url("again", "duration=1"), key="again")

    states = await stage.states([part, again, *whole], budget=7.0, rates={"speed": 0.1}, submit=submit)
    assert states == {"unchanged": 1, "completed": 2, "skipped": 4}


async def test_a_budget_is_for_all_runs_on_a_journal(tmp_path: Path) -> None:
    given = [DubRow(url(number, "duration=10"), AUDIO, key=f"k{number}", end_time=10.0) for number in range(6)]
    options = {"budget": 1.0, "rates": {"speed": 0.033}}
    async with staged(tmp_path) as stage:
        assert await stage.states(given, **options) == {"completed": 3, "skipped": 3}
        assert await stage.states(given, **options) == {"unchanged": 3, "skipped": 3}
        assert len(stage.sandbox.jobs) == 3
        assert await stage.states(given, **{**options, "budget": 2.0}) == {"unchanged": 3, "completed": 3}


async def test_a_failed_job_releases_its_estimate(stage: Stage) -> None:
    bad = DubRow(url("bad", "duration=10&fail=No+face"), AUDIO, key="bad", end_time=10.0)
    async with stage.run([bad], rates={"speed": 0.1}) as run:
        assert [outcome.state async for outcome in run] == ["failed"]
        assert run.snapshot().estimate == pytest.approx(0.0)


async def test_the_balance_is_requested_only_by_a_run_that_submits(stage: Stage) -> None:
    async with stage.run(rows(8)) as run:
        assert [outcome.state async for outcome in run] == ["completed"] * 8
        snapshot = run.snapshot()
    await stage.outcomes(rows(8))

    assert snapshot.balance_before is not None
    assert snapshot.balance_after is not None
    assert snapshot.balance_before.remaining_balance == 100  # it was asked before anything was taken
    assert snapshot.balance_after.remaining_balance == pytest.approx(100 - stage.sandbox.charged)
    assert stage.asked("GET /v3/users/me") == 2


async def test_a_run_needs_no_balance(stage: Stage) -> None:
    stage.sandbox.faults = [error(403, "forbidden", route="GET /v3/users/me")]

    assert await stage.states(rows(1)) == {"completed": 1}


# Answers that do not come


@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_a_create_whose_answer_is_lost_makes_one_job(stage: Stage, after: bool) -> None:
    stage.sandbox.faults = [reset(CREATE, after=after, times=5), server_error(CREATE, after=after, times=5)]

    assert await stage.states(rows(4)) == {"completed": 4}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 5)}


async def test_refused_rows_wait_for_the_retry_after(stage: Stage) -> None:
    stage.sandbox.faults = [rate_limited(CREATE, retry_after=0.05, times=3)]

    assert await stage.states(rows(3)) == {"completed": 3}
    assert all(count == 1 for count in stage.jobs_by_key().values())


_HOURS = {"Retry-After": "7200"}


@pytest.mark.parametrize(
    ("route", "submit", "failed"),
    [(CREATE, "each", 1), (f"{CREATE}/batches", "batch", 3), ("POST /v3/assets", "each", 1)],
)
async def test_a_row_that_is_to_be_sent_hours_later_fails_and_goes_on_in_another_run(
    stage: Stage, route: str, submit: str, failed: int
) -> None:
    stage.sandbox.faults = [Fault(route, Reply(status=503, headers=_HOURS), times=1)]
    given = [*rows(2), DubRow(url("v"), SAMPLE_AUDIO, key="local")]
    async with asyncio.timeout(20):
        outcomes = await stage.outcomes(given, submit=submit)

    errors = [str(outcome.error) for outcome in outcomes if outcome.state == "failed"]
    assert len(errors) == failed
    assert all("the API asks to wait 2.0 hours" in message for message in errors)
    assert await stage.states(given, submit=submit) == Counter(completed=failed, unchanged=3 - failed)
    assert stage.jobs_by_key() == {"row-1": 1, "row-2": 1, "local": 1}


@pytest.mark.parametrize(
    ("route", "status", "submit"),
    [(CREATE, 429, "each"), (f"{CREATE}/batches", 429, "batch"), ("GET /v3/lipsyncs", 503, "each")],
)
async def test_a_run_that_may_create_nothing_for_hours_ends_and_goes_on_in_another_one(
    stage: Stage, route: str, status: int, submit: str
) -> None:
    stage.sandbox.faults = [Fault(route, Reply(status=status, headers=_HOURS), times=1)]
    async with asyncio.timeout(20), stage.run(rows(3), submit=submit) as run:
        with pytest.raises(APIError, match=r"the API asks to wait 2\.0 hours"):
            [outcome async for outcome in run]

    assert (await stage.states(rows(3), submit=submit)).total() == 3
    assert stage.jobs_by_key() == {"row-1": 1, "row-2": 1, "row-3": 1}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_iteration_that_is_cancelled_while_an_outcome_arrives_loses_none(stage: Stage, when: str) -> None:
    waiting: list[asyncio.Task[DubOutcome]] = []

    def cancel(event: DubEvent) -> None:
        if event.stage == "completed" and waiting:
            task = waiting.pop()
            task.cancel() if when == "before" else asyncio.get_running_loop().call_soon(task.cancel)

    async with stage.run(rows(3), on_event=cancel) as run:
        waiting.append(asyncio.ensure_future(anext(run)))
        first = waiting[0]
        await asyncio.wait([first])
        assert first.cancelled() or when == "after"
        keys = {outcome.key async for outcome in run} | ({first.result().key} if not first.cancelled() else set())

    assert keys == {"row-1", "row-2", "row-3"}


async def test_after_a_day_a_row_in_doubt_is_searched_for_before_anything_is_sent(stage: Stage) -> None:
    # Two creates without an answer, of which one made a job.
    await _cut_off(stage, rows(1), after=True)
    await _cut_off(stage, rows(2)[1:], after=False)
    made = [job.id for job in stage.sandbox.jobs]
    assert len(made) == 1
    before = len(stage.sandbox.requests)
    outcomes = await stage.outcomes(rows(2), now=lambda: time.time() + DAY)

    assert {outcome.key: outcome.state for outcome in outcomes} == {"row-1": "completed", "row-2": "completed"}
    assert next(o.lipsync.id for o in outcomes if o.key == "row-1" and o.lipsync) == made[0]
    asked = [request.route for request in stage.sandbox.requests[before:]]
    assert asked.index("GET /v3/lipsyncs") < asked.index(CREATE)
    assert asked.count(CREATE) == 1
    assert asked.count("GET /v3/lipsyncs") == 2  # one walk for all, and the newest job before the first create
    assert stage.jobs_by_key() == {"row-1": 1, "row-2": 1}


async def test_a_create_that_waits_until_its_key_may_be_forgotten_is_not_repeated(tmp_path: Path) -> None:
    passed = 0.0
    slow = DubRow(url("slow"), AUDIO, key="slow", callback_id="slow")
    given = [
        slow,
        DubRow(url("doubt"), AUDIO, key="doubt", title="Doubt", callback_id="doubt"),
    ]  # no key of ours to find
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(given[:1]) as run:
            await until(lambda: run.snapshot().stages.get("running"))
        stage.sandbox.faults = [reset(CREATE, after=True)]
        async with stage.run(given):
            await until(lambda: len(stage.sandbox.jobs) == 2)
            await asyncio.sleep(0.02)
        stage.sandbox.faults = []
        passed = KEY_SECONDS - 600  # the key is known still, but there is no seat

        async with stage.run(given, now=lambda: time.time() + passed, max_in_flight=1) as run:
            await until(lambda: run.snapshot().stages.get("waiting") == 1)
            passed += 3600
            stage.sandbox.forget_keys()
            await stage.sandbox.advance(3600)
            assert {outcome.state async for outcome in run} == {"completed"}

        assert stage.jobs_by_key() == {"slow": 1, "doubt": 1}


async def test_nothing_is_sent_after_a_day_while_the_list_cannot_be_read(stage: Stage) -> None:
    await _cut_off(stage, rows(1), after=True)
    stage.sandbox.faults = [error(403, "forbidden", route="GET /v3/lipsyncs")]
    sent = len(stage.keys_sent())

    assert await stage.states(rows(1), now=lambda: time.time() + DAY) == {"failed": 1}
    assert len(stage.keys_sent()) == sent
    stage.sandbox.faults = []
    assert await stage.states(rows(1), now=lambda: time.time() + DAY) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 1


async def _cut_off(stage: Stage, given: list[DubRow], *, after: bool) -> None:
    """Run until a create has arrived, and break off without its answer."""
    arrived = len(stage.keys_sent())
    stage.sandbox.faults = [reset(CREATE, after=after)]
    async with stage.run(given):
        await until(lambda: len(stage.keys_sent()) > arrived)
        await asyncio.sleep(0.02)
    stage.sandbox.faults = []
    database = sqlite3.connect(stage.folder / "run.sqlite")
    [(state,)] = database.execute("SELECT state FROM rows WHERE key = ?", (given[0].key,))
    database.close()
    assert state == "submitting"


# The life of a run


async def test_a_run_is_iterated_inside_async_with(stage: Stage) -> None:
    run = stage.run(rows(1))
    with pytest.raises(RuntimeError, match="inside"):
        await anext(run)
    async with run:
        pass
    with pytest.raises(RuntimeError, match="inside"):
        await anext(run)
    with pytest.raises(RuntimeError, match="once"):
        await run.__aenter__()


async def test_a_run_that_is_left_early_leaves_no_task_and_can_be_resumed(stage: Stage) -> None:
    before = asyncio.all_tasks()
    async with stage.run(rows(20)) as run:
        async for _ in run:
            break
    assert {
        task for task in asyncio.all_tasks() - before if "aiohttp" not in repr(task) and "sandbox" not in repr(task)
    } == set()

    states = await stage.states(rows(20))
    assert states["failed"] == 0
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 21)}
    assert len(stage.files()) == 20


async def test_an_error_in_the_body_is_raised_unchanged(stage: Stage) -> None:
    class Mine(Exception):
        pass

    with pytest.raises(Mine):  # noqa: PT012 the body is what is tested
        async with stage.run(rows(5)) as run:
            async for _ in run:
                raise Mine


async def test_a_cancelled_run_can_be_resumed(stage: Stage) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with stage.run(rows(20)) as run:
            async for _ in run:
                started.set()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stage.outcomes(rows(20))

    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 21)}
    assert len(stage.files()) == 20


async def test_the_end_of_a_run_waits_for_creates_without_an_answer(tmp_path: Path) -> None:
    async with staged(tmp_path, latency={CREATE: 0.1}, manual=True) as stage:
        async with stage.run(rows(3)) as run:
            await until(lambda: run.snapshot().stages.get("submitting", 0) == 3)
        database = sqlite3.connect(tmp_path / "run.sqlite")
        states = [state for (state,) in database.execute("SELECT state FROM rows")]
        database.close()

    assert states == ["submitted"] * 3


async def test_a_run_that_is_cancelled_while_a_thread_reads_its_manifest_raises_only_the_cancellation(
    tmp_path: Path,
) -> None:
    """A manifest may come through a pipe that is silent."""
    reading, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class SilentManifest(Manifest):
        def source_rows(self) -> Generator[SourceRow, None, None]:
            try:
                reading.set()
                go_on.wait(10)
                yield SourceRow(1, "line 2", rows(1)[0])
            finally:
                closed.set()

    async def read() -> None:
        async for _ in slices_of(SilentManifest(tmp_path / "rows.csv")):
            pass

    task = asyncio.create_task(read())
    await until(reading.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await until(closed.is_set)


async def test_a_second_cancellation_ends_the_run_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path, latency={CREATE: 30}, manual=True) as stage:

        async def work() -> None:
            async with stage.run(rows(1)) as run:
                await anext(run)

        task = asyncio.create_task(work())
        await until(stage.keys_sent)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(4):  # less than a run waits for creates that have no answer
                await task


async def test_two_runs_do_not_share_a_journal(stage: Stage) -> None:
    async with stage.run(rows(1)):
        with pytest.raises(JournalInUse, match=r"run\.sqlite"):
            await stage.outcomes(rows(1))

    await stage.outcomes(rows(1))


async def test_a_run_may_be_left_without_iterating(stage: Stage) -> None:
    async with stage.run(rows(1)):
        pass

    assert set(await stage.states(rows(1))) <= {"completed", "unchanged"}


async def test_the_events_of_a_row_come_in_order(stage: Stage) -> None:
    events: list[DubEvent] = []
    await stage.outcomes([DubRow(url(1), SAMPLE_AUDIO, key="k")], on_event=events.append)

    assert [event.stage for event in events] == [
        "uploading",
        "waiting",
        "submitting",
        "running",
        "downloading",
        "completed",
    ]
    assert {event.key for event in events} == {"k"}
    assert events[-1].lipsync_id == stage.sandbox.jobs[0].id


async def test_a_slow_reader_delays_no_row(stage: Stage) -> None:
    async with stage.run(rows(10)) as run:
        first = await anext(run)
        await until(lambda: run.snapshot().stages == {"completed": 10})
        rest = [outcome async for outcome in run]

    assert {first.key, *(outcome.key for outcome in rest)} == {row.key for row in rows(10)}


# Captions


async def test_captions_are_written_only_on_request(stage: Stage) -> None:
    await stage.outcomes(rows(1))
    assert stage.files() == {"row-1.mp4"}

    given = [DubRow(url(2), AUDIO, key="yes", captions=True), DubRow(url(3), AUDIO, key="old", enable_caption=True)]
    assert await stage.states(given) == {"completed": 2}
    assert stage.files() == {"row-1.mp4", "yes.mp4", "yes.srt", "old.mp4", "old.srt"}

    given = [DubRow(url(4), AUDIO, key="no", captions=False, enable_caption=True), *rows(5)[4:]]
    assert await stage.states(given, captions=True) == {"completed": 2}
    assert stage.files() >= {"no.mp4", "row-5.mp4", "row-5.srt"}
    assert "no.srt" not in stage.files()


async def test_captions_of_a_finished_row_are_written_once_its_video_is_moved_away(stage: Stage) -> None:
    await stage.outcomes(rows(1))
    [asked] = await stage.outcomes(rows(1), captions=True)
    video = stage.folder / "out" / "row-1.mp4"
    assert (asked.state, asked.path, stage.files()) == ("unchanged", video, {"row-1.mp4"})
    [warning] = asked.warnings
    assert f"it has no captions: to write both, move {video} away and run it again" in warning

    video.rename(stage.folder / "aside.mp4")
    [written] = await stage.outcomes(rows(1), captions=True)
    [again] = await stage.outcomes(rows(1), captions=True)
    assert (written.state, again.state, again.warnings) == ("completed", "unchanged", ())
    assert (stage.files(), len(stage.sandbox.jobs)) == ({"row-1.mp4", "row-1.srt"}, 1)


@pytest.mark.parametrize("captions", ["empty", "gone"])
async def test_a_problem_with_captions_is_a_warning(tmp_path: Path, captions: str) -> None:
    async with staged(tmp_path, captions=captions) as stage:
        [outcome] = await stage.outcomes(rows(1), captions=True)

        assert (outcome.state, len(outcome.warnings)) == ("completed", 1)
        assert "captions" in outcome.warnings[0]
        assert stage.files() == {"row-1.mp4"}
        assert await stage.states(rows(1), captions=True) == {"unchanged": 1}


@pytest.mark.parametrize("captions", ["empty", "gone"])
async def test_captions_that_a_killed_process_left_unfinished_do_not_stay_if_there_are_none(
    tmp_path: Path, captions: str
) -> None:
    async with staged(tmp_path, captions=captions) as stage:
        (stage.folder / "out").mkdir()
        parts._temporary(stage.folder / "out" / "row-1.srt").write_bytes(b"half")
        [outcome] = await stage.outcomes(rows(1), captions=True)

        assert outcome.state == "completed"
        assert stage.files() == {"row-1.mp4"}


async def test_foreign_captions_that_appear_during_the_run_are_not_replaced(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(rows(1), captions=True) as run:
            await until(lambda: stage.sandbox.jobs)
            captions = tmp_path / "out" / "row-1.srt"
            captions.write_text("mine")
            await stage.sandbox.advance(60)
            [outcome] = [outcome async for outcome in run]

        assert outcome.state == "completed"
        assert "captions" in outcome.warnings[0]
        assert stage.files() == {"row-1.mp4", "row-1.srt"}
        assert await stage.states(rows(1), captions=True) == {"unchanged": 1}
        assert captions.read_text() == "mine"
