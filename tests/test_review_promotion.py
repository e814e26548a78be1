"""From draft to final: what is rendered is what was approved, once; rejected rows are made again, once."""

import asyncio
from pathlib import Path

import pytest
from attrs import evolve
from bulk_stage import AUDIO, CREATE, rows, staged, url
from hypothesis import given
from hypothesis import strategies as st
from until import until

from heygen_async.bulk import BadRows, JournalInUse, Manifest, Review, identity, promote, read_reviews
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.promotion import FinalRow, KnownFiles, Reviews, final_key, known_keys
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO
from heygen_async.sandbox.faults import CAPTIONS, DOWNLOADS, Fault, Reply, error, missing, reset


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path) as stage:
        yield stage


async def decide(stage, **decisions):
    """Decide on rows by their keys, as somebody does who watches the videos that they have now."""
    journal = Journal(stage.folder / "run.sqlite", origin="")
    await journal.open_existing()
    try:
        for key, decision in decisions.items():
            name = key.replace("_", "-")
            record = (await journal.records([name]))[name]
            await journal.keep_review(Review(name, record.lipsync_id, decision))
    finally:
        await journal.aclose()


async def finals(stage, drafts, **options):
    reviews = await read_reviews(stage.folder / "run.sqlite")
    options = {"output_dir": stage.folder / "final", **options}
    return await stage.outcomes(promote(drafts, reviews), **options)


async def records(stage):
    journal = Journal(stage.folder / "run.sqlite", origin="")
    await journal.open_existing()
    try:
        return {record.key: record for record in await journal.all_rows("", 1000)}
    finally:
        await journal.aclose()


def modes(stage):
    return [job.body.get("mode", "speed") for job in stage.sandbox.jobs]


# Final versions


async def test_only_what_was_approved_is_rendered_in_precision_mode_beside_its_draft(stage):
    drafts = rows(3)
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved", row_2="rejected")
    outcomes = await finals(stage, drafts)
    assert [(one.key, one.state, one.path) for one in outcomes] == [
        ("row-1:precision", "completed", stage.folder / "final" / "row-1.mp4")
    ]
    assert modes(stage) == ["speed"] * 3 + ["precision"]
    final = (await records(stage))["row-1:precision"]
    assert (final.draft, final.draft_job) == ("row-1", (await records(stage))["row-1"].lipsync_id)


async def test_promoted_twice_a_final_version_is_rendered_once(stage):
    drafts = rows(2)
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved", row_2="approved")
    assert {one.state for one in await finals(stage, drafts)} == {"completed"}
    assert {one.state for one in await finals(stage, drafts)} == {"unchanged"}
    assert modes(stage).count("precision") == 2


async def test_a_run_of_final_versions_that_is_killed_is_continued(stage):
    drafts = rows(4, video=url("slow", "seconds=40"))
    await stage.outcomes(drafts)
    await decide(stage, **{f"row_{number}": "approved" for number in range(1, 5)})
    reviews = await read_reviews(stage.folder / "run.sqlite")
    run = stage.run(promote(drafts, reviews), output_dir=stage.folder / "final")
    async with run:
        await until(lambda: modes(stage).count("precision") >= 2)
    assert {one.state for one in await finals(stage, drafts)} <= {"completed", "unchanged"}
    assert modes(stage).count("precision") == 4


async def test_a_final_version_has_the_name_of_its_draft(stage):
    drafts = [DubRow(url("clip"), AUDIO), DubRow(url("b"), AUDIO, key="b", output="sub/b.mp4")]
    outcomes = await stage.outcomes(drafts)
    await decide(stage, **{one.key: "approved" for one in outcomes})
    names = {one.path.relative_to(stage.folder / "final") for one in await finals(stage, drafts)}
    assert names == {one.path.relative_to(stage.folder / "out") for one in outcomes}


async def test_final_versions_do_not_overwrite_their_drafts(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved")
    with pytest.raises(BadRows, match="exists already and was not written by this row"):
        await finals(stage, drafts, output_dir=stage.folder / "out")
    assert modes(stage) == ["speed"]


async def test_local_files_without_a_key_are_recognised(stage, tmp_path):
    video, audio = tmp_path / "v.mp4", tmp_path / "a.mp3"
    video.write_bytes(SAMPLE_VIDEO.read_bytes())
    audio.write_bytes(SAMPLE_AUDIO.read_bytes())
    drafts = [DubRow(video, audio, title="local")]
    [draft] = await stage.outcomes(drafts)
    await decide(stage, **{draft.key: "approved"})
    [final] = await finals(stage, drafts)
    assert final.key == f"{draft.key}:precision"
    assert modes(stage) == ["speed", "precision"]


async def test_what_changed_since_it_was_approved_is_not_rendered(stage):
    await stage.outcomes(rows(1))
    await decide(stage, row_1="approved")
    with pytest.raises(BadRows, match="have changed since the draft was approved"):
        await finals(stage, rows(1, audio="https://example.com/other.mp3"))
    assert modes(stage) == ["speed"]


async def recorded_by_0_1(stage, monkeypatch, drafts):
    """Run drafts, and leave them in the journal as version 0.1 records them: 5 and 5.0 are two numbers for it."""
    with monkeypatch.context() as patched:
        patched.setattr(identity, "_canonical", lambda options: options)
        [outcome] = await stage.outcomes(drafts)
    return outcome.key.replace("-", "_")


@pytest.mark.parametrize("key", ["row-1", None])
@pytest.mark.parametrize("part", [{"start_time": 5, "end_time": 8}, {"start_time": 5}, {"end_time": 8}], ids=repr)
async def test_a_draft_of_a_journal_of_0_1_is_rendered_once_it_is_approved(stage, monkeypatch, key, part):
    drafts = [DubRow(url(1), AUDIO, key=key, **part)]
    await decide(stage, **{await recorded_by_0_1(stage, monkeypatch, drafts): "approved"})

    assert [one.state for one in await finals(stage, drafts)] == ["completed"]
    assert [one.state for one in await finals(stage, drafts)] == ["unchanged"]
    assert modes(stage) == ["speed", "precision"]


@pytest.mark.parametrize("key", ["row-1", None])
async def test_a_row_of_a_journal_of_0_1_is_redone_once_it_is_rejected(stage, monkeypatch, key):
    drafts = [DubRow(url(1), AUDIO, key=key, start_time=5, end_time=8)]
    await decide(stage, **{await recorded_by_0_1(stage, monkeypatch, drafts): "rejected"})

    assert await stage.states(drafts) == {"unchanged": 1}
    assert await stage.states(drafts, redo_rejected=True) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 2


async def test_a_link_that_was_signed_again_is_what_was_approved(stage):
    def signed(number):
        return rows(1, audio=f"https://example.com/a.mp3?X-Amz-Signature={number}&X-Amz-Credential=c&X-Amz-Expires=9")

    await stage.outcomes(signed(1))
    await decide(stage, row_1="approved")
    assert [one.state for one in await finals(stage, signed(2))] == ["completed"]


def local_rows(folder, content):
    video = folder / "v.mp4"
    video.write_bytes(SAMPLE_VIDEO.read_bytes() + b"\0\0\0\x10free" + content)
    return [DubRow(video, AUDIO, key="row-1")]


@pytest.mark.parametrize("redone", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_the_file_of_a_rejected_job_is_not_taken_for_that_of_the_next(stage, tmp_path, redone, submit):
    await stage.outcomes(local_rows(tmp_path, b"rejected"))
    for number in range(redone):
        await decide(stage, row_1="rejected")
        given = local_rows(tmp_path, b"again-%02d" % number)
        [outcome] = await stage.outcomes(given, output_dir=None, redo_rejected=True, submit=submit)
        assert outcome.path is None
    [outcome] = await stage.outcomes(given)

    assert outcome.state == "completed"
    assert outcome.path.read_bytes().endswith(b"again-%02d" % (redone - 1))
    assert [one.state for one in await stage.outcomes(given)] == ["unchanged"]
    assert len(stage.sandbox.jobs) == 1 + redone


async def test_a_draft_that_was_redone_since_is_not_rendered(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved")
    reviews = await read_reviews(stage.folder / "run.sqlite")
    await decide(stage, row_1="rejected")
    await stage.outcomes(drafts, redo_rejected=True)
    with pytest.raises(BadRows, match="another job than the one that was approved"):
        await stage.outcomes(promote(drafts, reviews), output_dir=stage.folder / "final")
    assert await finals(stage, drafts) == []
    assert modes(stage) == ["speed", "speed"]


async def test_an_approved_draft_whose_file_could_not_be_downloaded_again_is_rendered(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved")
    (stage.folder / "out" / "row-1.mp4").unlink()
    stage.sandbox.faults = [error(422, "no", route=DOWNLOADS)]
    assert await stage.states(drafts) == {"failed": 1}
    stage.sandbox.faults = []
    assert [outcome.state for outcome in await finals(stage, drafts)] == ["completed"]


async def test_a_draft_that_is_final_already_is_not_rendered_again(stage):
    drafts = rows(1, mode="precision")
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved")
    with pytest.raises(BadRows, match="final already, in precision mode: undo its approval in the review"):
        await finals(stage, drafts)


async def test_a_draft_whose_mode_has_changed_in_the_manifest_is_not_called_final(stage):
    await stage.outcomes(rows(1))
    await decide(stage, row_1="approved")
    with pytest.raises(BadRows, match="options have changed since the draft was approved"):
        await finals(stage, rows(1, mode="precision"))


def listed_in(manifest, given):
    """List rows in a manifest."""
    lines = [f"{row.key},{row.video},{row.audio},{row.output or ''}\n" for row in given]
    manifest.write_text("".join(["key,video,audio,output\n", *lines]))
    return Manifest(manifest)


@pytest.mark.parametrize(
    ("is_listed", "places"),
    [(True, ["line 2, output", "line 3, video"]), (False, ["row 1, output", "row 2, video"])],
    ids=["manifest", "rows"],
)
async def test_an_output_outside_of_the_folder_is_reported_with_all_other_problems(stage, tmp_path, is_listed, places):
    drafts = rows(2)
    changed = [evolve(drafts[0], output="../a.mp4"), evolve(drafts[1], audio="https://example.com/other.mp3")]
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved", row_2="approved")
    with pytest.raises(BadRows) as bad:
        await finals(stage, listed_in(tmp_path / "rows.csv", changed) if is_listed else changed)

    assert [one.place for one in bad.value.problems] == places
    assert modes(stage) == ["speed", "speed"]


async def test_a_row_with_the_key_of_a_final_version_is_not_taken_for_it(stage):
    own = DubRow(url("own"), AUDIO, key="row-1:precision", mode="precision")
    await stage.outcomes([*rows(1), own])
    await decide(stage, row_1="approved")
    with pytest.raises(BadRows, match="no final version of row-1"):
        await finals(stage, rows(1))


async def test_final_versions_count_towards_the_budget(stage):
    drafts = rows(3, video=url("long", "duration=100"))
    await stage.outcomes(drafts, rates={"speed": 0.01, "precision": 0.02})
    await decide(stage, row_1="approved", row_2="approved", row_3="approved")
    outcomes = await finals(stage, drafts, rates={"speed": 0.01, "precision": 0.02}, budget=7.0)
    assert sorted(one.state for one in outcomes) == ["completed", "completed", "skipped"]


async def test_the_final_version_follows_a_draft_that_was_redone_with_other_sources(stage):
    drafts, changed = rows(1), rows(1, audio="https://example.com/better.mp3")
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved")
    [first] = await finals(stage, drafts)
    await decide(stage, row_1="rejected")
    await stage.outcomes(changed, redo_rejected=True)
    await decide(stage, row_1="approved")
    [second] = await finals(stage, changed)
    assert (second.state, second.key, second.path) == ("completed", first.key, first.path)
    assert second.lipsync.id != first.lipsync.id
    assert [job.body["audio"]["url"] for job in stage.sandbox.jobs if job.body.get("mode") == "precision"] == [
        AUDIO,
        "https://example.com/better.mp3",
    ]


async def test_the_final_version_of_a_draft_that_was_redone_as_it_was_is_not_paid_for_again(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved")
    await finals(stage, drafts)
    await decide(stage, row_1="rejected")
    await stage.outcomes(drafts, redo_rejected=True)
    await decide(stage, row_1="approved")
    assert [one.state for one in await finals(stage, drafts)] == ["unchanged"]
    assert modes(stage) == ["speed", "precision", "speed"]


async def test_a_manifest_is_promoted_with_the_places_of_its_rows(stage, tmp_path):
    manifest = tmp_path / "rows.csv"
    manifest.write_text("key,video,audio\n" + "".join(f"row-{n},{url(n)},{AUDIO}\n" for n in (1, 2, 3)))
    await stage.outcomes(Manifest(manifest))
    await decide(stage, row_2="approved", row_3="approved")
    await finals(stage, Manifest(manifest))
    found = await records(stage)
    assert [found[f"row-{n}:precision"].place for n in (2, 3)] == ["line 3", "line 4"]
    manifest.write_text(manifest.read_text() + f"row 4,{url(4)},{AUDIO}\n")
    with pytest.raises(BadRows, match="line 5"):
        await finals(stage, Manifest(manifest))


# Rejected rows


@pytest.mark.parametrize("is_other_device", [False, True])
async def test_a_rejected_row_gets_one_new_job_and_its_file_is_replaced(stage, is_other_device):
    drafts = rows(3, captions=True)
    await stage.outcomes(drafts)
    if is_other_device:  # as after a restart of the machine, for many file systems
        with stage.database() as database:
            database.execute("UPDATE rows SET written = '99' || written, captions = '99' || captions")
    before = {path.name: path.stat().st_ino for path in (stage.folder / "out").iterdir()}
    await decide(stage, row_1="rejected", row_2="approved")
    outcomes = {one.key: one for one in await stage.outcomes(drafts, redo_rejected=True)}
    assert {key: one.state for key, one in outcomes.items()} == {
        "row-1": "completed",
        "row-2": "unchanged",
        "row-3": "unchanged",
    }
    assert outcomes["row-1"].warnings == ()
    assert stage.jobs_by_key() == {"row-1": 2, "row-2": 1, "row-3": 1}
    after = {path.name: path.stat().st_ino for path in (stage.folder / "out").iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"row-1.mp4", "row-1.srt"}
    assert after.keys() == before.keys()


async def test_a_rejected_row_is_redone_though_its_folder_was_renamed(stage):
    await stage.outcomes(rows(1))
    await decide(stage, row_1="rejected")
    (stage.folder / "out").rename(stage.folder / "moved")
    [outcome] = await stage.outcomes(rows(1), redo_rejected=True, output_dir=stage.folder / "moved")
    assert (outcome.state, outcome.path) == ("completed", stage.folder / "moved" / "row-1.mp4")
    assert stage.jobs_by_key() == {"row-1": 2}


async def test_rejected_rows_are_redone_in_a_batch_too(stage):
    drafts = rows(4)
    await stage.outcomes(drafts, submit="batch")
    await decide(stage, row_1="rejected", row_3="rejected")
    outcomes = {one.key: one.state for one in await stage.outcomes(drafts, submit="batch", redo_rejected=True)}
    assert outcomes == {"row-1": "completed", "row-2": "unchanged", "row-3": "completed", "row-4": "unchanged"}
    assert len(stage.sandbox.jobs) == 6


async def test_approved_rows_are_rendered_in_a_batch_too(stage):
    drafts = rows(3)
    await stage.outcomes(drafts)
    await decide(stage, row_1="approved", row_3="approved")
    assert {one.state for one in await finals(stage, drafts, submit="batch")} == {"completed"}
    assert modes(stage).count("precision") == 2


async def test_a_row_that_was_redone_and_failed_may_be_tried_again(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    bad = rows(1, video=url("bad", "fail=No+face+was+found"))
    assert [one.state for one in await stage.outcomes(bad, redo_rejected=True)] == ["failed"]
    assert stage.files() == {"row-1.mp4"}  # the draft is replaced by a video only
    assert [one.state for one in await stage.outcomes(rows(1, video=url("good")))] == ["completed"]
    assert len(stage.sandbox.jobs) == 3


async def test_a_row_that_was_redone_is_to_be_reviewed_again_and_not_redone_again(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    await stage.outcomes(drafts, redo_rejected=True)
    assert (await read_reviews(stage.folder / "run.sqlite")).by_key == {}
    assert [one.state for one in await stage.outcomes(drafts, redo_rejected=True)] == ["unchanged"]
    assert stage.jobs_by_key() == {"row-1": 2}


async def test_without_the_option_a_rejected_row_stays_as_it_is(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    assert [one.state for one in await stage.outcomes(drafts)] == ["unchanged"]


async def test_a_rejected_row_may_have_changed(stage):
    await stage.outcomes(rows(2))
    await decide(stage, row_1="rejected")
    changed = [evolve(rows(1)[0], audio="https://example.com/better.mp3"), rows(2)[1]]
    with pytest.raises(BadRows, match="reject its video and redo it"):
        await stage.outcomes(
            [changed[0], evolve(changed[1], audio="https://example.com/other.mp3")], redo_rejected=True
        )
    assert {one.state for one in await stage.outcomes(changed, redo_rejected=True)} == {"completed", "unchanged"}
    assert stage.sandbox.jobs[-1].body["audio"]["url"] == "https://example.com/better.mp3"
    assert [one.state for one in await stage.outcomes(changed)] == ["unchanged", "unchanged"]


async def test_a_rejected_row_without_its_source_is_reported_before_anything_is_sent(stage, tmp_path):
    audio = tmp_path / "a.mp3"
    audio.write_bytes(SAMPLE_AUDIO.read_bytes())
    drafts = rows(1, audio=audio)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    audio.unlink()
    assert [one.state for one in await stage.outcomes(drafts)] == ["unchanged"]
    with pytest.raises(BadRows, match="cannot be read"):
        await stage.outcomes(drafts, redo_rejected=True)


async def test_the_cost_of_a_rejected_job_stays_in_the_estimate(stage):
    drafts = rows(1, video=url("long", "duration=100"))
    options = {"rates": {"speed": 0.01}}
    await stage.outcomes(drafts, **options)
    await decide(stage, row_1="rejected")
    run = stage.run(drafts, redo_rejected=True, **options)
    async with run:
        assert [one.state async for one in run] == ["completed"]
        assert run.snapshot().spent == pytest.approx(2.0)
    assert [one.state for one in await stage.outcomes(drafts, budget=2.0, **options)] == ["unchanged"]
    await decide(stage, row_1="rejected")
    assert [one.state for one in await stage.outcomes(drafts, budget=2.5, redo_rejected=True, **options)] == ["skipped"]


async def test_a_dry_run_says_what_a_redo_costs_and_changes_nothing(stage):
    drafts = rows(2)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    survey = await stage.run(drafts, redo_rejected=True).survey()
    assert (survey.to_submit, survey.done) == (1, 1)
    assert [one.state for one in await stage.outcomes(drafts)] == ["unchanged"] * 2


async def test_a_file_that_somebody_changed_is_not_replaced(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    (stage.folder / "out" / "row-1.mp4").write_bytes(b"mine")
    with pytest.raises(BadRows, match="was not written by this row"):
        await stage.outcomes(drafts, redo_rejected=True)
    assert (stage.folder / "out" / "row-1.mp4").read_bytes() == b"mine"


async def test_captions_that_somebody_edited_are_kept(stage):
    drafts = rows(1, captions=True)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    (stage.folder / "out" / "row-1.srt").write_text("mine")
    with pytest.raises(BadRows, match=r"row-1\.srt exists already"):
        await stage.outcomes(drafts, redo_rejected=True)
    assert (stage.folder / "out" / "row-1.srt").read_text() == "mine"


@pytest.mark.parametrize("why", ["not wanted", "gone", "empty"])
async def test_the_captions_of_a_rejected_job_do_not_stay_beside_the_next_video(stage, why):
    drafts = rows(1)
    await stage.outcomes(drafts, captions=True)
    await decide(stage, row_1="rejected")
    answer = {"gone": missing(CAPTIONS), "empty": Fault(CAPTIONS, Reply(status=200, content_type="text/plain"))}
    stage.sandbox.faults = [answer[why]] if why in answer else []
    again = [evolve(drafts[0], audio="https://example.com/other.mp3")]
    [outcome] = await stage.outcomes(again, captions=why != "not wanted", redo_rejected=True)
    assert outcome.state == "completed"
    assert stage.files() == {"row-1.mp4"}
    assert (await records(stage))["row-1"].captions is None


async def test_the_captions_of_a_rejected_job_stay_beside_its_video_if_the_next_one_has_another_name(stage):
    drafts = rows(1)
    await stage.outcomes(drafts, captions=True)
    await decide(stage, row_1="rejected")
    await stage.outcomes([evolve(drafts[0], output="second.mp4")], redo_rejected=True)
    assert stage.files() == {"row-1.mp4", "row-1.srt", "second.mp4"}


async def test_a_redo_that_is_killed_at_every_step_makes_one_job(stage):
    drafts = rows(1, video=url("slow", "seconds=30"))
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    for step in ("submitting", "running", "downloading"):
        reached = asyncio.Event()
        run = stage.run(
            drafts,
            redo_rejected=True,
            on_event=lambda event, step=step, reached=reached: reached.set() if event.stage == step else None,
        )
        async with run:
            await asyncio.wait_for(reached.wait(), 20)
    assert [one.state for one in await stage.outcomes(drafts, redo_rejected=True)] in (["completed"], ["unchanged"])
    assert stage.jobs_by_key() == {"row-1": 2}
    assert max(stage.jobs_by_attempt().values()) == 1


async def test_an_answer_that_is_lost_during_a_redo_is_not_paid_for_twice(stage):
    drafts = rows(1)
    await stage.outcomes(drafts)
    await decide(stage, row_1="rejected")
    stage.sandbox.faults = [reset(CREATE, after=True, times=2)]
    assert [one.state for one in await stage.outcomes(drafts, redo_rejected=True)] == ["completed"]
    assert stage.jobs_by_key() == {"row-1": 2}


# Pure parts


def test_keys_of_final_versions_differ_if_those_of_their_drafts_do():
    assert final_key("a", "precision") == "a:precision"
    long = ["x" * 250, "x" * 249 + "y", "x" * 241, "x" * 240]
    made = [final_key(key, "precision") for key in long]
    assert len(set(made)) == 4
    assert all(len(key) <= 250 for key in made)


@given(st.from_regex(r"[A-Za-z0-9_\-:.]{1,250}", fullmatch=True))
def test_the_key_of_a_final_version_is_a_key(key):
    DubRow(url(1), AUDIO, key=final_key(key, "precision"))


def test_only_rows_are_promoted_that_were_approved():
    reviews = Reviews(
        by_key={"row-1": Review("row-1", "ls_1", "approved"), "row-2": Review("row-2", "ls_2", "rejected")}
    )
    [final] = promote(rows(3), reviews)
    assert isinstance(final, FinalRow)
    assert (final.key, final.mode, str(final.output), final.title) == (
        "row-1:precision",
        "precision",
        "row-1.mp4",
        None,
    )
    assert [one.key for one in promote(rows(3), reviews, mode="speed")] == ["row-1:speed"]


def test_a_row_of_a_file_that_the_journal_does_not_know_has_no_known_key(tmp_path):
    row = DubRow(tmp_path / "v.mp4", AUDIO)
    files = KnownFiles(str(tmp_path), {str(tmp_path / "v.mp4"): FileInfo("", "d", None)})
    assert known_keys(row, KnownFiles(str(tmp_path))) == []
    assert known_keys(row, files)
    assert known_keys(row, files) == known_keys(evolve(row, video=Path("a/../v.mp4")), files)
    assert known_keys(evolve(row, video=b"content"), files)


@pytest.mark.parametrize("mode", ["final", None, 1])
def test_a_mode_that_does_not_exist_is_refused(mode):
    with pytest.raises(ValueError, match="mode must be speed or precision"):
        promote([], Reviews(by_key={}), mode=mode)


def test_reviews_that_are_none_are_refused():
    with pytest.raises(TypeError, match="reviews"):
        promote([], {})


async def test_reviews_are_not_read_while_a_run_uses_the_journal(stage):
    async with stage.run(rows(1)):
        with pytest.raises(JournalInUse):
            await read_reviews(stage.folder / "run.sqlite")


async def test_a_path_may_be_text(stage):
    await stage.outcomes(rows(1))
    assert (await read_reviews(str(Path(stage.folder) / "run.sqlite"))).by_key == {}
