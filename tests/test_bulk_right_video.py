"""Each row gets its own video: never another row's, never an old one, and never over somebody else's file."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from attrs import evolve
from bulk_stage import AUDIO, CREATE, Stage, rows, staged, url
from until import until

from heygen_async._media.parts import is_in_use, part_path, side_path
from heygen_async.bulk import BadRows, Manifest
from heygen_async.bulk.searching import InDoubt
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO
from heygen_async.sandbox.faults import DOWNLOADS, Alter, Fault, cut_download, error, reset, stall

DAY = 24 * 3600.0


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


# Two journals


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_two_manifests_with_one_key_and_different_audio_get_two_jobs(stage: Stage, submit: str) -> None:
    lipsyncs = set()
    for language in ("fr", "de"):
        row = DubRow(url("ep"), f"https://sandbox.invalid/{language}.mp3", key="ep-1")
        [outcome] = await stage.outcomes(
            [row], journal=stage.folder / f"{language}.sqlite", output_dir=None, submit=submit
        )
        assert outcome.lipsync is not None
        lipsyncs.add(outcome.lipsync.id)

    assert len(lipsyncs) == len(stage.sandbox.jobs) == 2


@pytest.mark.parametrize(
    "changes",
    [{"title": "other"}, {"mode": "precision"}, {"start_time": 1.0}, {"video": url("other")}, {"callback_id": "mine"}],
    ids=str,
)
async def test_a_row_that_differs_in_anything_gets_its_own_job(stage: Stage, changes: dict[str, object]) -> None:
    [row] = rows(1)
    for number, one in enumerate([row, evolve(row, **changes)]):
        await stage.outcomes([one], journal=stage.folder / f"{number}.sqlite", output_dir=stage.folder / str(number))

    assert len(stage.sandbox.jobs) == 2


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_the_same_rows_with_a_new_journal_are_not_paid_twice(stage: Stage, submit: str) -> None:
    given = [*rows(3), DubRow(url("local"), SAMPLE_AUDIO, key="local")]
    for number in range(2):
        journal, out = stage.folder / f"{number}.sqlite", stage.folder / f"out-{number}"
        assert await stage.states(given, journal=journal, output_dir=out, submit=submit) == {"completed": 4}

    assert len(stage.sandbox.jobs) == 4


class _Float(float):
    """A float as numpy has them."""


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_a_row_with_a_time_of_another_type_of_float_is_the_same_row(stage: Stage, submit: str) -> None:
    for number, end in enumerate([2.0, _Float(2)]):
        journal = stage.folder / f"{number}.sqlite"
        given = rows(3, end_time=end)
        assert await stage.states(given, journal=journal, output_dir=None, submit=submit) == {"completed": 3}

    assert len(stage.sandbox.jobs) == 3


async def test_the_second_attempt_of_a_row_never_gets_the_job_of_a_row_with_a_similar_key(stage: Stage) -> None:
    await stage.outcomes([DubRow(url("of-a"), AUDIO, key="ep.2")], journal=stage.folder / "a.sqlite", output_dir=None)
    failing = DubRow(url("of-b", "fail=Internal+error"), AUDIO, key="ep")
    [outcome] = await stage.outcomes([failing], journal=stage.folder / "b.sqlite", output_dir=None, max_attempts=2)

    assert outcome.state == "failed"
    assert len(stage.sandbox.jobs) == 3


# The rows as they were checked


async def test_a_manifest_that_changes_during_the_run_does_not_change_the_run(tmp_path: Path) -> None:
    manifest = tmp_path / "rows.csv"
    lines = [f"{url(number)},{AUDIO},k{number},Title {number}" for number in range(400)]
    header = "video,audio,key,title"
    manifest.write_text("\n".join([header, *lines]))
    async with staged(tmp_path) as stage, stage.run(Manifest(manifest), output_dir=None) as run:
        await anext(run)
        manifest.write_text("\n".join([header, f"{url('new')},{AUDIO},new,New", *lines]))
        outcomes = [outcome async for outcome in run]
        titles = {str(job.body["video"]["url"]): job.title for job in stage.sandbox.jobs}

    assert {outcome.state for outcome in outcomes} == {"completed"}
    assert len(outcomes) == 399
    assert titles == {url(number): f"Title {number}" for number in range(400)}


async def test_a_list_that_changes_during_the_run_does_not_change_the_run(stage: Stage) -> None:
    given = rows(300)
    async with stage.run(given, output_dir=None) as run:
        given.insert(0, DubRow(url("new"), AUDIO, key="new"))
        assert {outcome.key async for outcome in run} == {f"row-{number}" for number in range(1, 301)}


@pytest.mark.parametrize("before", ["failed", "uploaded, and then interrupted"])
async def test_a_source_that_was_replaced_between_two_runs_is_sent(tmp_path: Path, before: str) -> None:
    audio = tmp_path / "a.mp3"
    shutil.copy(SAMPLE_AUDIO, audio)
    async with staged(tmp_path) as stage:
        row = DubRow(url("x", "fail=No+face" if before == "failed" else ""), audio, key="k")
        if before == "failed":
            await stage.outcomes([row])
        else:
            stage.sandbox.faults = [reset(CREATE)]
            async with stage.run([row]):
                await until(stage.keys_sent)
        stage.sandbox.faults = []
        audio.write_bytes(SAMPLE_AUDIO.read_bytes() + b"another take")
        if before != "failed":
            _forget_the_create(stage)
        uploads = stage.asked("POST /v3/assets")
        await stage.outcomes([row])

        assert stage.asked("POST /v3/assets") == uploads + 1
        sent = [job.body["audio"]["asset_id"] for job in stage.sandbox.jobs]
        assert len(set(sent)) == len(sent)


def _forget_the_create(stage: Stage) -> None:
    with stage.database() as database:
        database.execute("UPDATE rows SET state = 'planned', body = NULL, attempt_key = NULL")
        assert database.execute("SELECT audio_asset FROM rows").fetchone() != (None,)


# Targets


async def test_two_finished_rows_whose_outputs_are_swapped_are_not_unchanged(stage: Stage) -> None:
    first, second = (evolve(row, output=f"{row.key}.mp4") for row in rows(2))
    await stage.outcomes([first, second])
    swapped = [evolve(first, output=second.output), evolve(second, output=first.output)]
    with pytest.raises(BadRows, match=r"row-2\.mp4 exists already(.|\n)*row-1\.mp4 exists already"):
        await stage.outcomes(swapped)
    for name in ("row-1.mp4", "row-2.mp4"):
        (stage.folder / "out" / name).unlink()
    assert await stage.states(swapped) == {"completed": 2}
    assert len(stage.sandbox.jobs) == 2


async def test_a_finished_row_with_a_new_output_is_downloaded_there(stage: Stage) -> None:
    await stage.outcomes(rows(1))

    assert await stage.states(rows(1, output="other.mp4")) == {"completed": 1}
    assert stage.files() == {"row-1.mp4", "other.mp4"}
    assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("captions", [False, True])
async def test_files_whose_folder_was_renamed_are_still_those_of_the_run(stage: Stage, captions: bool) -> None:
    """As in a project that was moved, or that a container has at another place."""
    await stage.outcomes(rows(2), captions=captions)
    (stage.folder / "out").rename(stage.folder / "moved")
    downloads = stage.asked(DOWNLOADS)

    for state in ("completed", "unchanged"):
        outcomes = await stage.outcomes(rows(2), captions=captions, output_dir=stage.folder / "moved")
        assert {(one.state, one.path, one.warnings) for one in outcomes} == {
            (state, stage.folder / "moved" / f"row-{number}.mp4", ()) for number in (1, 2)
        }
    assert stage.asked(DOWNLOADS) == downloads
    assert len(stage.sandbox.jobs) == 2


@pytest.mark.parametrize("content", [b"mine", b""])
async def test_a_file_in_a_folder_that_was_renamed_is_foreign_unless_the_row_has_written_it(
    stage: Stage, content: bytes
) -> None:
    await stage.outcomes(rows(1))
    (stage.folder / "out").rename(stage.folder / "moved")
    film = stage.folder / "moved" / "row-1.mp4"
    film.write_bytes(content)

    with pytest.raises(BadRows, match="was not written by this row"):
        await stage.outcomes(rows(1), output_dir=stage.folder / "moved")
    assert film.read_bytes() == content


async def test_a_finished_row_whose_new_output_was_not_written_yet_takes_no_other_file_for_it(stage: Stage) -> None:
    [row] = rows(1, output="before.mp4")
    await stage.outcomes([row])
    renamed = evolve(row, output="after.mp4")
    stage.sandbox.faults = [stall(DOWNLOADS)]
    before = stage.asked(DOWNLOADS)
    async with stage.run([renamed]):
        await until(lambda: stage.asked(DOWNLOADS) > before)
    stage.sandbox.faults = []
    stage.sandbox.release()
    film = stage.folder / "out" / "after.mp4"
    film.write_bytes(b"somebody else's film")

    with pytest.raises(BadRows, match="was not written by this row"):
        await stage.outcomes([renamed])
    assert film.read_bytes() == b"somebody else's film"


async def test_a_finished_row_never_replaces_a_foreign_file(stage: Stage) -> None:
    await stage.outcomes(rows(1))
    film = stage.folder / "out" / "holiday.mp4"
    film.write_text("mine")
    with pytest.raises(BadRows, match="exists already"):
        await stage.outcomes(rows(1, output="holiday.mp4"))
    [outcome] = await stage.outcomes(iter(rows(1, output="holiday.mp4")))

    assert (outcome.state, outcome.path) == ("failed", None)
    assert film.read_text() == "mine"


async def test_a_row_that_was_interrupted_while_it_was_written_overwrites_no_other_file(tmp_path: Path) -> None:
    async with staged(tmp_path, faults=[error(500, "internal_error", route="GET /files/{name}")]) as stage:
        async with stage.run(rows(1)) as run:
            await until(lambda: stage.asked("GET /files/{name}"))
            assert run.snapshot().stages == {"downloading": 1}
        stage.sandbox.faults = []
        for output in ("holiday.mp4", "row-1.mp4"):
            film = stage.folder / "out" / output
            film.write_text("mine")
            with pytest.raises(BadRows, match="exists already"):
                await stage.outcomes(rows(1, output=output))
            [outcome] = await stage.outcomes(iter(rows(1, output=output)))
            assert outcome.state == "failed"
            assert film.read_text() == "mine"
            film.unlink()
        assert await stage.states(rows(1)) == {"completed": 1}
        assert len(stage.sandbox.jobs) == 1


async def test_a_file_that_was_given_the_inode_of_an_unfinished_video_is_not_the_video(tmp_path: Path) -> None:
    async with staged(tmp_path, faults=[cut_download(after_bytes=1000)]) as stage:
        target = stage.folder / "out" / "row-1.mp4"
        part = part_path(target)
        async with stage.run(rows(1)):
            await until(lambda: part.exists() and part.stat().st_size)
        stage.sandbox.faults = []
        await until(lambda: not is_in_use(target))  # a thread ends its last write after the run
        film = part.rename(target)
        film.write_text("mine")
        [outcome] = await stage.outcomes(iter(rows(1)))

    assert (outcome.state, outcome.path) == ("failed", None)
    assert film.read_text() == "mine"


@pytest.mark.parametrize("how", ["replaced", "edited"])
async def test_a_file_that_was_changed_after_it_was_written_is_left_alone_and_not_given_as_the_video(
    stage: Stage, how: str
) -> None:
    await stage.outcomes(rows(1))
    path = stage.folder / "out" / "row-1.mp4"
    if how == "replaced":
        shutil.copy(SAMPLE_AUDIO, stage.folder / "x")
        (stage.folder / "x").replace(path)
    else:
        path.write_bytes(b"edited" + SAMPLE_VIDEO.read_bytes())
    before = path.read_bytes()
    [outcome] = await stage.outcomes(rows(1))

    assert (outcome.state, outcome.path) == ("unchanged", None)
    assert "changed since it was written" in outcome.warnings[0]
    assert path.read_bytes() == before


@pytest.mark.parametrize("is_other_device", [False, True])
async def test_a_row_that_was_killed_just_after_its_file_got_its_name_is_finished_without_another_download(
    stage: Stage, is_other_device: bool
) -> None:
    await stage.outcomes(rows(1))
    path = stage.folder / "out" / "row-1.mp4"
    found = path.stat()
    _forget_that_it_is_done(stage, f"{found.st_dev + is_other_device}:{found.st_ino}:{found.st_size}")
    downloads = stage.asked("GET /files/{name}")

    assert await stage.states(rows(1)) == {"completed": 1}
    assert stage.asked("GET /files/{name}") == downloads
    assert await stage.states(rows(1)) == {"unchanged": 1}


async def test_files_on_a_device_that_has_another_number_since_are_still_those_of_the_run(stage: Stage) -> None:
    """As after a restart of the machine, for many file systems, or on another machine that shares the folder."""
    await stage.outcomes(rows(2), captions=True)
    _move_to_another_device(stage)

    outcomes = await stage.outcomes(rows(2), captions=True)
    assert [(one.state, one.path, one.warnings) for one in outcomes] == [
        ("unchanged", stage.folder / "out" / f"row-{number}.mp4", ()) for number in (1, 2)
    ]


def _move_to_another_device(stage: Stage) -> None:
    """Let the journal say that all files are on another device."""
    with stage.database() as database:
        for name in ("written", "captions"):
            database.execute(f"UPDATE rows SET {name} = '99' || {name}")


@asynccontextmanager
async def _host_without_lengths(stage: Stage, *, size: int) -> AsyncIterator[None]:
    """Serve the video without its length; the first answer stops after *size* bytes."""
    data, answers, is_over = SAMPLE_VIDEO.read_bytes(), count(), asyncio.Event()

    async def video(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4", "ETag": '"v1"'})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if next(answers):
            await response.write(data)
            return response
        for start in range(0, size, 100):  # piece by piece: what arrives at once is not written at once
            await response.write(data[start : start + 100])
            await asyncio.sleep(0.02)
        await is_over.wait()
        return response

    app = web.Application()
    app.router.add_get("/v.mp4", video)
    async with TestServer(app) as server:
        link = {"video_url": str(server.make_url("/v.mp4"))}
        stage.sandbox.faults = [Fault("GET /v3/lipsyncs/{lipsync_id}", Alter(link, replace_only=True))]
        yield
        is_over.set()


@pytest.mark.parametrize("without_side_file", [False, True])
async def test_an_unfinished_download_of_unknown_length_that_was_renamed_is_not_taken_for_the_video(
    stage: Stage, without_side_file: bool
) -> None:
    target = stage.folder / "out" / "row-1.mp4"
    part = part_path(target)
    async with _host_without_lengths(stage, size=3000):
        async with stage.run(rows(1)):
            await until(lambda: part.exists() and part.stat().st_size)
        await until(lambda: not is_in_use(target))
        part.rename(target)
        if without_side_file:
            side_path(target).unlink()
        with pytest.raises(BadRows, match=r"row-1\.mp4 exists already and was not written by this row"):
            await stage.outcomes(rows(1))
        target.unlink()

        assert await stage.states(rows(1)) == {"completed": 1}
    assert target.read_bytes() == SAMPLE_VIDEO.read_bytes()
    assert stage.files() == {"row-1.mp4"}


def _forget_that_it_is_done(stage: Stage, written: str) -> None:
    with stage.database() as database:
        database.execute("UPDATE rows SET state = 'completed', written = ?", (written,))


# Rows in doubt


async def _in_doubt(
    stage: Stage, row: DubRow, journal: str, *, after: bool, now: Callable[[], float] = time.time
) -> None:
    """Leave *row* in doubt: its create was sent, and there was no answer."""
    arrived = len(stage.keys_sent())
    stage.sandbox.faults = [reset(CREATE, after=after)]
    async with stage.run([row], journal=stage.folder / journal, now=now):
        await until(lambda: len(stage.keys_sent()) > arrived)
        await asyncio.sleep(0.02)
    stage.sandbox.faults = []


async def test_a_row_in_doubt_never_adopts_the_job_of_another_row_with_its_callback_id(stage: Stage) -> None:
    [row] = rows(1, callback_id="ours")
    await _in_doubt(stage, row, "a.sqlite", after=False)
    other = evolve(row, audio="https://sandbox.invalid/de.mp3", key="other")
    await stage.outcomes([other], journal=stage.folder / "b.sqlite", output_dir=None)
    [job] = stage.sandbox.jobs
    [outcome] = await stage.outcomes([row], journal=stage.folder / "a.sqlite", now=lambda: time.time() + 2 * DAY)

    assert isinstance(outcome.error, InDoubt)
    assert outcome.error.candidates == (job.id,)
    assert job.id in str(outcome.error)
    assert len(stage.sandbox.jobs) == 1
    await stage.heygen.lipsyncs.delete(job.id)
    later = {"journal": stage.folder / "a.sqlite", "now": lambda: time.time() + 2 * DAY}
    assert await stage.states([row], **later) == {"completed": 1}


@pytest.mark.parametrize("folder", ["~", "~/out", Path("~/a/b")])
async def test_the_files_of_a_run_may_be_in_the_home_folder(
    stage: Stage, folder: str | Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = stage.folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(stage.folder)
    async with stage.run(rows(1), journal="~/run.sqlite", output_dir=folder) as run:
        [outcome] = [outcome async for outcome in run]
        await run.write_report(Path("~/report.csv"))

    assert outcome.path == home.joinpath(*Path(folder).parts[1:], "row-1.mp4")
    assert outcome.path.stat().st_size
    assert {"run.sqlite", "report.csv"} <= {path.name for path in home.iterdir()}
    assert not (stage.folder / "~").exists()


async def test_a_foreign_file_in_the_home_folder_is_found_before_a_row_is_paid(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(stage.folder))
    (stage.folder / "row-1.mp4").write_bytes(b"somebody else's")
    with pytest.raises(BadRows):
        await stage.outcomes(rows(1), output_dir="~")

    assert not stage.sandbox.jobs


async def test_a_row_in_doubt_adopts_the_only_job_with_its_callback_id_and_its_title(stage: Stage) -> None:
    [row] = rows(1, callback_id="ours", title="Episode 1, French")
    await _in_doubt(stage, row, "a.sqlite", after=True)
    [outcome] = await stage.outcomes([row], journal=stage.folder / "a.sqlite", now=lambda: time.time() + 2 * DAY)

    assert outcome.state == "completed"
    assert len(stage.sandbox.jobs) == 1


async def test_a_row_in_doubt_adopts_no_job_that_was_created_after_its_key_was_used_the_last_time(stage: Stage) -> None:
    [row] = rows(1, callback_id="ours", title="Episode 1")
    await _in_doubt(stage, row, "a.sqlite", after=False, now=lambda: time.time() - 2 * DAY)
    german = evolve(row, audio="https://sandbox.invalid/de.mp3", key="german")
    await stage.outcomes([german], journal=stage.folder / "b.sqlite", output_dir=None)
    [job] = stage.sandbox.jobs
    [outcome] = await stage.outcomes([row], journal=stage.folder / "a.sqlite")

    assert isinstance(outcome.error, InDoubt)
    assert outcome.error.candidates == (job.id,)


async def test_a_row_with_two_jobs_under_its_own_key_adopts_the_one_that_did_not_fail(stage: Stage) -> None:
    [row] = rows(1)
    await _in_doubt(stage, row, "a.sqlite", after=True)
    [job] = stage.sandbox.jobs
    key = str(job.body["callback_id"])
    await stage.heygen.lipsyncs.create(video=url("x", "fail=Internal+error"), audio=AUDIO, callback_id=key)
    await until(lambda: stage.sandbox.jobs[1].status == "failed")
    [outcome] = await stage.outcomes([row], journal=stage.folder / "a.sqlite", now=lambda: time.time() + 2 * DAY)

    assert outcome.lipsync is not None
    assert outcome.lipsync.id == job.id
