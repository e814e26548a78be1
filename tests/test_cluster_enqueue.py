"""Rows that are enqueued again: changed, moved on meanwhile, with other outputs, or listed elsewhere."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from attrs import evolve
from test_cluster import AUDIO, Stage, rows, staged, url

from heygen_async.bulk.checks import BadRows
from heygen_async.bulk.cluster import ClusterError
from heygen_async.bulk.cluster.database import LockedConnection
from heygen_async.bulk.manifest import Manifest
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_AUDIO


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(database_url, tmp_path) as one:
        yield one


def _change_in_content(stage: Stage, source: Path) -> DubRow:
    source.write_bytes(SAMPLE_AUDIO.read_bytes() + b"more")
    return DubRow(url(1), source, key="row-1")


def _move(stage: Stage, source: Path) -> DubRow:
    source.rename(stage.folder / "moved.mp3")
    return DubRow(url(1), stage.folder / "moved.mp3", key="row-1")


def _take_the_output(stage: Stage, source: Path) -> DubRow:
    (stage.folder / "out" / "row-1.mp4").write_bytes(b"of somebody else")
    return DubRow(url(1), source, key="row-1", output="free.mp4")


@pytest.mark.parametrize("change", [_change_in_content, _move, _take_the_output])
async def test_a_row_that_failed_before_it_had_a_job_is_tried_again_as_it_is_enqueued_then(
    stage: Stage, change: Callable[[Stage, Path], DubRow]
) -> None:
    source = stage.folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    await stage.enqueue([DubRow(url(1), source, key="row-1")])
    again = change(stage, source)
    assert (await stage.complete()).runs[0].rows == {"failed": 1}

    found = await stage.enqueue([again])
    assert (found.changed, found.survey.to_submit) == (1, 1)
    assert (await stage.complete()).runs[0].rows == {"done": 1}
    assert (await stage.enqueue([again])).changed == 0


async def test_captions_are_written_of_rows_that_have_not_ended_if_the_last_enqueue_wants_them(stage: Stage) -> None:
    await stage.enqueue(rows(1))
    await stage.complete()
    await stage.enqueue(rows(3))
    assert (await stage.enqueue([*rows(2), evolve(rows(3)[2], captions=False)], captions=True)).changed == 2
    await stage.complete()

    assert stage.files() == {"row-1.mp4", "row-2.mp4", "row-2.srt", "row-3.mp4"}


def before_the_release(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]]) -> None:
    """Do something once when all rows of the next enqueue were checked and stored."""
    fetch = LockedConnection.fetch

    async def after_that(self: LockedConnection, statement: str, values: object = None) -> object:
        if "released" in statement:
            monkeypatch.undo()
            await act()
        return await fetch(self, statement, values)

    monkeypatch.setattr(LockedConnection, "fetch", after_that)


@pytest.mark.parametrize(
    "change", [{"audio": "https://example.com/other.mp3"}, {"title": "other"}, {"mode": "precision"}]
)
async def test_a_row_that_is_submitted_while_its_change_is_checked_is_refused_with_all_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, change: Mapping[str, str]
) -> None:
    await stage.enqueue(rows(1))
    before_the_release(monkeypatch, stage.complete)
    with pytest.raises(BadRows, match="of the row row-1 have changed since its job was created"):
        await stage.enqueue([evolve(rows(1)[0], **change), *rows(2)[1:]])

    assert (await stage.cluster.status()).runs[0].rows == {"done": 1}
    assert [job.body["audio"]["url"] for job in stage.sandbox.jobs] == [AUDIO]


@pytest.mark.parametrize("stages", [{"flight"}, {"download"}, {"done"}])
async def test_a_row_that_moves_on_while_its_new_output_is_checked_is_written_there(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, stages: set[str]
) -> None:
    await stage.enqueue(rows(3))
    again = [evolve(row, output=f"new/{row.key}.mp4") for row in rows(3)]

    async def until_there() -> None:
        async with stage.worker(downloads=0 if "done" not in stages else 4):
            await stage.until(lambda status: bool(stages & status.runs[0].rows.keys()))

    before_the_release(monkeypatch, until_there)
    assert (await stage.enqueue(again)).changed == 3
    assert (await stage.complete()).runs[0].rows == {"done": 3}
    assert {path.name for path in (stage.folder / "out" / "new").iterdir()} == {f"row-{n}.mp4" for n in (1, 2, 3)}
    assert sum(stage.jobs().values()) == 3


def _listed_in(folder: Path, audio: str) -> Manifest:
    folder.mkdir()
    (folder / "episodes.csv").write_text(f"video,audio,key,output\n{url(1)},{audio},ep-1,ep-1.mp4\n")
    return Manifest(folder / "episodes.csv", outputs=folder)


async def test_another_manifest_of_the_same_name_does_not_change_the_rows_of_the_first(stage: Stage) -> None:
    french = _listed_in(stage.folder / "fr", AUDIO)
    german = _listed_in(stage.folder / "de", "https://example.com/german.mp3")
    await stage.enqueue(french, output_dir=None)
    with pytest.raises(
        ClusterError, match=r"the run episodes\.csv is of the manifest .*/fr/episodes\.csv, not of .*/de/"
    ):
        await stage.enqueue(german, output_dir=None)
    assert (await stage.enqueue(german, output_dir=None, run="german")).added == 1
    await stage.complete()

    assert {job.body["audio"]["url"] for job in stage.sandbox.jobs} == {AUDIO, "https://example.com/german.mp3"}
    assert len(stage.sandbox.jobs) == 2
    assert {path.name for path in stage.folder.glob("*/ep-1.mp4")} == {"ep-1.mp4"}


async def test_a_report_does_not_replace_the_manifest_of_its_run(stage: Stage) -> None:
    manifest = _listed_in(stage.folder / "fr", AUDIO)
    await stage.enqueue(manifest, output_dir=None)
    (stage.folder / "link.csv").symlink_to(manifest.path)
    for path in (manifest.path, stage.folder / "link.csv"):
        with pytest.raises(ValueError, match="the report would overwrite the manifest"):
            await stage.cluster.report(path)
    assert manifest.path.read_text().startswith("video,audio")


async def test_a_manifest_that_was_moved_continues_its_run_if_that_is_named(stage: Stage) -> None:
    manifest = stage.folder / "episodes.csv"
    manifest.write_text(f"video,audio,key\n{url(1)},{AUDIO},ep-1\n")
    await stage.enqueue(Manifest(manifest))
    (stage.folder / "link.csv").symlink_to(manifest)
    assert (await stage.enqueue(Manifest(stage.folder / "link.csv"), run="episodes.csv")).added == 0
    (stage.folder / "later").mkdir()
    moved = Manifest(manifest.rename(stage.folder / "later" / "episodes.csv"))
    with pytest.raises(ClusterError, match=r"with episodes\.csv if these are the same rows"):
        await stage.enqueue(moved)

    assert (await stage.enqueue(moved, run="episodes.csv")).added == 0
    assert (await stage.enqueue(moved)).added == 0


@pytest.mark.parametrize("is_done", [False, True])
async def test_outputs_that_are_exchanged_belong_to_the_other_row_from_then_on(stage: Stage, is_done: bool) -> None:
    one, two = rows(2)
    await stage.enqueue([evolve(one, output="a.mp4"), evolve(two, output="b.mp4")])
    if is_done:
        await stage.complete()
        for name in ("a.mp4", "b.mp4"):
            (stage.folder / "out" / name).unlink()
    exchanged = [evolve(one, output="b.mp4"), evolve(two, output="a.mp4")]
    assert (await stage.enqueue(exchanged)).changed == 2
    assert (await stage.enqueue(exchanged)).changed == 0
    assert (await stage.complete()).runs[0].rows == {"done": 2}

    assert {row["key"]: Path(row["file"]).name for row in await stage.report()} == {"row-1": "b.mp4", "row-2": "a.mp4"}
    assert sum(stage.jobs().values()) == 2
    (stage.folder / "out" / "a.mp4").unlink()
    with pytest.raises(BadRows, match="duplicate of the row row-2 of the run default: the same output"):
        await stage.enqueue([evolve(rows(3)[2], output="a.mp4")])


async def test_an_output_that_a_row_has_no_more_is_free_in_its_own_and_in_other_runs(stage: Stage) -> None:
    one, two, three = rows(3)
    await stage.enqueue([evolve(one, output="a.mp4")], captions=True)
    with pytest.raises(BadRows, match="duplicate of the row row-1 of the run default: the same output"):
        await stage.enqueue([evolve(two, output="a.mp4")])
    assert (await stage.enqueue([evolve(one, output="b/b.mp4"), evolve(two, output="a.mp4")])).added == 1
    await stage.enqueue([evolve(two, output="c.mp4")])
    assert (await stage.enqueue([evolve(three, output="a.mp4")], run="other", captions=True)).added == 1
    await stage.complete()
    assert stage.files() == {"b", "c.mp4", "a.mp4", "a.srt"}
