"""What is known of a row is checked before anything is sent, in a run and in a dry run alike."""

import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from anyio import to_thread
from attrs import evolve
from bulk_stage import AUDIO, CREATE, QUICK, Stage, rows, staged, url
from until import until

from heygen_async import HeyGenSession
from heygen_async.bulk.checks import BadRows
from heygen_async.bulk.identity import inputs_digest
from heygen_async.bulk.intake import prepare
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.local_files import check_files
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.store import JournalError
from heygen_async.models import Asset, AssetId, DubRow
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO
from heygen_async.sandbox.faults import reset, stall

WAV = (
    b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data"
)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


async def problems_of(stage: Stage, given: object, **options: object) -> list[str]:
    """Return the problems of rows: the same in a run and in a dry run, and nothing is sent."""
    before = len(stage.sandbox.requests)
    with pytest.raises(BadRows) as surveyed:
        await stage.run(given, **options).survey()
    with pytest.raises(BadRows) as caught:
        await stage.outcomes(given, **options)
    assert caught.value.problems == surveyed.value.problems
    assert len(stage.sandbox.requests) == before
    return [str(problem) for problem in caught.value.problems]


def audio(folder: Path, name: str = "a.wav", content: bytes = b"one") -> Path:
    path = folder / name
    path.write_bytes(WAV + content)
    return path


# Sources


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0", "WAV or MP3"),
        ("a.ogg", b"OggS\0\2", "WAV or MP3"),
        ("a.mp3", b"<!DOCTYPE html><html>", "HTML"),
        ("a.wav", b"", "empty"),
        ("a.wav", SAMPLE_VIDEO.read_bytes(), "WAV or MP3"),
        ("a.txt", b"hello", "text"),
    ],
)
async def test_an_audio_of_a_wrong_type_is_found_by_its_content(
    stage: Stage, name: str, content: bytes, message: str
) -> None:
    path = stage.folder / name
    path.write_bytes(content)
    [found] = await problems_of(stage, [DubRow(url(1), path)])

    assert found.startswith("row 1, audio: ")
    assert message in found
    assert name in found


@pytest.mark.parametrize(
    ("name", "content"),
    [("v.mp3", SAMPLE_AUDIO.read_bytes()), ("v.mov", b"\0\0\0\x14ftypqt  \0\0\0\0"), ("v.mp4", b"<html></html>")],
)
async def test_a_video_of_a_wrong_type_is_found_by_its_content(stage: Stage, name: str, content: bytes) -> None:
    path = stage.folder / name
    path.write_bytes(content)

    assert [one.partition(": ")[0] for one in await problems_of(stage, [DubRow(path, AUDIO)])] == ["row 1, video"]
    assert [one.partition(": ")[0] for one in await problems_of(stage, [DubRow(content, AUDIO)])] == ["row 1, video"]


@pytest.mark.parametrize("size", [-1, -200, 0.5])
async def test_a_video_that_was_cut_off_is_found_before_it_is_paid(stage: Stage, size: float) -> None:
    whole = SAMPLE_VIDEO.read_bytes()
    path = stage.folder / "v.mp4"
    path.write_bytes(whole[: int(size if size < 0 else len(whole) * size)])

    for video in (path, path.read_bytes()):
        [found] = await problems_of(stage, [DubRow(video, AUDIO)])
        assert found.startswith("row 1, video: ")
        assert "is not complete: its " in found


def box(kind: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return (8 + len(content) if length is None else length).to_bytes(4, "big") + kind + content


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")


@pytest.mark.parametrize(
    "media",
    [
        box(b"free") + box(b"mdat", bytes(500), length=0),
        box(b"mdat", bytes(500)),
        box(b"moof", bytes(20)) + box(b"mdat", bytes(500)),
    ],
    ids=["of ffmpeg", "whole", "fragment"],
)
async def test_a_recording_that_was_interrupted_is_found_before_it_is_paid(stage: Stage, media: bytes) -> None:
    path = stage.folder / "v.mp4"
    path.write_bytes(FTYP + media)

    for video in (path, path.read_bytes()):
        [found] = await problems_of(stage, [DubRow(video, AUDIO)])
        assert found.startswith("row 1, video: ")
        assert "is not complete: it has no moov box" in found


@pytest.mark.parametrize(
    "length", [b"\0" * 12 + b"\0\0\3\xe8" + b"\xff" * 4, b"\1" + b"\0" * 19 + b"\0\0\3\xe8" + b"\xff" * 8, bytes(20)]
)
async def test_a_video_that_says_its_length_is_unknown_is_of_unknown_length(stage: Stage, length: bytes) -> None:
    path = stage.folder / "v.mp4"
    path.write_bytes(FTYP + box(b"moov", box(b"mvhd", length + bytes(80))) + box(b"mdat", bytes(500)))
    survey = await stage.run([DubRow(path, SAMPLE_AUDIO, enable_dynamic_duration=False)]).survey()

    assert (survey.to_submit, survey.unknown) == (1, 1)
    assert survey.estimate == pytest.approx(60 * 0.0333, rel=0.01)


@pytest.mark.parametrize("size", [100, 5000, 300_000])
@pytest.mark.parametrize(
    ("start", "format_"), [(b"fLaC", "FLAC"), (b"\xff\xf1\x50\x80", "AAC"), (b"\xff\xf9\0", "AAC")]
)
async def test_an_audio_of_a_wrong_type_is_found_behind_a_tag_with_a_picture(
    stage: Stage, size: int, start: bytes, format_: str
) -> None:
    tag = b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\xff\xd8\xff" + bytes(size - 3)
    path = stage.folder / "a.mp3"
    path.write_bytes(tag + start + bytes(100))

    for audio in (path, path.read_bytes()):
        [found] = await problems_of(stage, [DubRow(url(1), audio)])
        assert f"is {format_} audio; HeyGen takes WAV or MP3" in found

    path.write_bytes(tag + SAMPLE_AUDIO.read_bytes())
    assert (await stage.run([DubRow(url(1), path)]).survey()).to_submit == 1


async def test_a_file_that_is_too_large_is_not_read_through(stage: Stage) -> None:
    path = stage.folder / "v.mp4"
    with path.open("wb") as file:
        file.write(SAMPLE_VIDEO.read_bytes())
        file.truncate(1 << 42)  # sparse: to read it would take an hour
    [found] = await problems_of(stage, [DubRow(path, AUDIO)])

    assert found.startswith("row 1, video: v.mp4 has 4,398,046,511,104 bytes")


async def test_a_file_that_is_missing_or_unreadable_is_named(stage: Stage) -> None:
    os.mkfifo(stage.folder / "pipe.mp4")
    (stage.folder / "folder.wav").mkdir()
    given = [DubRow(stage.folder / "pipe.mp4", stage.folder / "folder.wav"), DubRow(stage.folder / "no.mp4", AUDIO)]
    found = await problems_of(stage, given)

    assert [one.partition(": ")[0] for one in found] == ["row 1, video", "row 1, audio", "row 2, video"]
    assert "No such file" in found[2]


async def test_files_are_looked_at_in_the_order_of_their_rows(tmp_path: Path) -> None:
    takes = [audio(tmp_path, f"{number}.wav") for number in range(20)]
    given = [DubRow(url(number), take, key=f"ep-{number}") for number, take in enumerate([*takes, *takes])]

    journal = Journal(None, origin="https://api.heygen.com")
    await journal.open()
    try:
        found = await check_files(given, journal)
    finally:
        await journal.aclose()

    assert [path for _, path in found] == takes


async def test_a_file_whose_name_is_not_utf_8_is_an_error_of_its_row(stage: Stage) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    path = audio(stage.folder, name)
    [found] = await problems_of(stage, [*rows(2), DubRow(url(3), path)])
    outcomes = await stage.outcomes(iter([*rows(2), DubRow(url(3), path, key="k")]))

    assert found.startswith("row 3, audio: the file name is not valid UTF-8")
    assert found.isprintable()
    assert Counter(outcome.state for outcome in outcomes) == {"completed": 2, "failed": 1}


@pytest.mark.parametrize("name", ["\ud83d.mp4", "a\ud83d/x.mp4", "x\udc00\ud800.mp4"])
async def test_a_path_with_half_a_character_is_an_error_of_its_row(stage: Stage, name: str) -> None:
    given = [*rows(1), DubRow(Path(name), AUDIO, key="k", output=name)]
    found = await problems_of(stage, given)
    outcomes = await stage.outcomes(iter(given))

    assert [one.partition(": ")[0] for one in found] == ["row 2, video", "row 2, output"]
    assert all(one.isprintable() for one in found)
    assert Counter(outcome.state for outcome in outcomes) == {"completed": 1, "failed": 1}


@pytest.mark.parametrize(
    ("video", "audio", "problems"),
    [
        (Asset(id="as_1", mime_type="image/png"), AUDIO, ["video: the asset as_1 is a PNG image"]),
        (Asset(id="as_1", mime_type="audio/mpeg"), AUDIO, ["video: the asset as_1 is MP3 audio"]),
        (Asset(id="as_1"), Asset(id="as_2", mime_type="Image/GIF"), ["audio: the asset as_2 is image/gif"]),
        (Asset(id="as_1", mime_type="video/mp4"), Asset(id="as_2", mime_type="audio/wav"), []),
        (AssetId("as_1"), Asset(id="as_2", mime_type="application/octet-stream"), []),
    ],
)
async def test_an_asset_that_cannot_have_its_role_is_found(
    stage: Stage, video: Asset | AssetId, audio: str | Asset, problems: list[str]
) -> None:
    given = [*rows(1), DubRow(video, audio, key="k")]
    if not problems:
        assert (await stage.run(given).survey()).to_submit == 2
        return
    found = await problems_of(stage, given)

    assert [one.partition("; ")[0] for one in found] == [f"row 2, {problem}" for problem in problems]


async def test_every_problem_of_every_row_is_found_at_once(stage: Stage) -> None:
    manifest = stage.folder / "rows.csv"
    (stage.folder / "t.mp4").write_text("text")
    manifest.write_text(
        "video,audio,key,output,title,mode\n"
        f"t.mp4,no.wav,a,../x.mp4,,\n"
        f"{url(1)}?sig=5ec5e7,t.mp4,,y.mp4/,,\n"
        f"{url(1)},{AUDIO},b,,{'t' * 10_001},fast\n"
        f"{url(1)},{AUDIO},c,y.mp4,,\n"
        f"{url(2)},{AUDIO},d,Y.mp4,,\n"
    )
    found = await problems_of(stage, Manifest(manifest))

    assert [one.partition(": ")[0] for one in found] == [
        "line 2, video",
        "line 2, audio",
        "line 2, output",
        "line 3, audio",
        "line 3, key",
        "line 3, output",
        "line 4, mode",
        "line 4, title",
        "line 6",
    ]
    assert "5ec5e7" not in "".join(found)


async def test_a_row_of_a_stream_fails_once_with_all_of_its_problems(stage: Stage) -> None:
    bad = DubRow(stage.folder / "no.mp4", stage.folder / "no.wav", key="bad", output="../x.mp4")
    outcomes = await stage.outcomes(iter([bad, *rows(1)]))
    [failed] = [outcome for outcome in outcomes if outcome.state == "failed"]

    assert len(outcomes) == 2
    assert [part in str(failed.error) for part in ("row 1, video", "row 1, audio", "row 1, output")] == [True] * 3


# Outputs


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("output", "make", "message"),
    [
        ("あ" * 83 + ".mp4", None, "253 bytes"),
        ("x" * 242 + ".mp4", None, "246 bytes"),
        ("x" * 300 + "/x.mp4", None, "folder name"),
        ("x\0.mp4", None, "NUL"),
        ("x.mp4.part", None, "unfinished"),
        ("x.mp4", ("x.mp4", Path.touch), "exists already"),
        ("x.mp4", ("x.mp4", a_link), "exists already"),
        ("x.mp4", ("x.mp4", a_folder), "is a folder"),
        ("x.mp4", ("x.mp4.part", a_folder), "x.mp4.part"),
        ("x.mp4", ("x.mp4.part", lambda path: path.write_text("mine")), "x.mp4.part"),
        ("x.mp4", ("x.mp4.part.etag", lambda path: path.write_text("mine")), "x.mp4.part.etag"),
        ("sub/x.mp4", ("sub", Path.touch), "not a folder"),
    ],
)
async def test_an_output_that_cannot_be_written_is_found(
    stage: Stage, output: str, make: tuple[str, Callable[[Path], object]] | None, message: str
) -> None:
    out = stage.folder / "out"
    out.mkdir()
    if make is not None:
        make[1](out / make[0])
    [found] = await problems_of(stage, [*rows(1), evolve(*rows(1), key="k", output=output)])

    assert found.startswith("row 2, output: ")
    assert message in found


async def test_two_outputs_that_lead_to_one_file_are_found(stage: Stage) -> None:
    out = stage.folder / "out"
    (out / "real").mkdir(parents=True)
    (out / "link").symlink_to("real")
    one, two, three = rows(3)
    given = [evolve(one, output="real/x.mp4"), evolve(two, output="link/x.mp4"), evolve(three, output="real/./X.MP4")]
    found = await problems_of(stage, given)

    assert [place.partition(": ")[0] for place in found] == ["row 2", "row 3"]
    assert all("duplicate of row 1: the same output" in one for one in found)


@pytest.mark.parametrize(
    ("first", "second"),
    [("\u0390", "\u03aa\u0301"), ("\u1fb7", "\u1fbc\u0342"), ("stra\u00dfe", "STRASSE"), ("caf\u00e9", "CAFE\u0301")],
)
async def test_outputs_that_differ_only_in_case_and_in_how_accents_are_written_are_one_file(
    stage: Stage, first: str, second: str
) -> None:
    given = [evolve(row, output=f"{name}.mp4") for row, name in zip(rows(2), (first, second), strict=True)]
    [found] = await problems_of(stage, given)

    assert "duplicate of row 1" in found


async def test_two_rows_do_not_write_the_same_captions(stage: Stage) -> None:
    one, two = rows(2)
    given = [evolve(one, output="x.mp4"), evolve(two, output="x.webm")]
    assert len(await problems_of(stage, given, captions=True)) == 1

    assert await stage.states(given) == {"completed": 2}


async def test_captions_that_exist_are_found_only_if_captions_are_wanted(stage: Stage) -> None:
    (stage.folder / "out").mkdir()
    (stage.folder / "out/row-1.srt").write_text("mine")
    [found] = await problems_of(stage, rows(1), captions=True)
    assert "row-1.srt exists already" in found

    assert await stage.states(rows(1)) == {"completed": 1}
    assert (stage.folder / "out/row-1.srt").read_text() == "mine"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("x.mp4", "x.mp4/y.mp4", "a folder of its output is where row 1 writes"),
        ("x.mp4", "X.MP4/deep/y.mp4", "a folder of its output is where row 1 writes"),
        ("x.mp4", "x.mp4.part/y.mp4", "a folder of its output is where row 1 writes"),
        ("x.mp4", "x.mp4.part.etag/y.mp4", "a folder of its output is where row 1 writes"),
        ("x.mp4/y.mp4", "x.mp4", "its output is where row 1 makes a folder"),
        ("x.mp4.part/y.mp4", "x.mp4", "its output is where row 1 makes a folder"),
        ("a/b/c/y.mp4", "a/b", "its output is where row 1 makes a folder"),
    ],
)
async def test_an_output_that_is_a_folder_of_another_is_a_problem_of_the_later_row(
    stage: Stage, first: str, second: str, message: str
) -> None:
    one, two, three = rows(3)
    [found] = await problems_of(stage, [evolve(one, output=first), evolve(two, output=second), three])

    assert found.startswith(f"row 2: {message}: ")


async def test_captions_that_are_a_folder_of_an_output_are_a_problem_of_the_later_row(stage: Stage) -> None:
    one, two = rows(2)
    given = [evolve(one, output="x.mp4", captions=True), evolve(two, output="x.srt/y.mp4")]
    [found] = await problems_of(stage, given)

    assert found.startswith("row 2: a folder of its output is where row 1 writes: ")


async def test_an_output_that_is_a_folder_of_another_fails_in_a_stream_of_rows_before_it_is_paid(stage: Stage) -> None:
    one, two = rows(2)
    given = iter([evolve(one, output="x.mp4"), evolve(two, output="x.mp4/y.mp4")])

    assert await stage.states(given) == {"completed": 1, "failed": 1}
    assert len(stage.sandbox.jobs) == 1


async def test_rows_may_share_folders_that_are_made_for_them_in_all_of_their_runs(stage: Stage) -> None:
    given = [evolve(row, output=f"season/{row.key}/x.mp4") for row in rows(2)]
    given += [evolve(row, key=f"more-{row.key}", output=f"season/{row.key}/y.mp4") for row in rows(2)]

    assert await stage.states(given) == {"completed": 4}
    assert await stage.states(given) == {"unchanged": 4}
    assert await stage.states([*given, DubRow(url(9), AUDIO, key="k", output="season.mp4")]) == {
        "completed": 1,
        "unchanged": 4,
    }


@pytest.mark.parametrize(
    "name",
    [
        *("rows.csv", "run.sqlite", "run.report.csv", "run.sqlite-journal", "run.sqlite-wal"),
        *("run.report.csv/x.mp4", "run.sqlite-journal/deep/x.mp4", "run.sqlite-wal/x.mp4"),
    ],
)
async def test_no_row_writes_a_file_of_the_run_itself(stage: Stage, name: str) -> None:
    manifest = stage.folder / "rows.csv"
    manifest.write_text(f"video,audio,key,output\n{url(1)},{AUDIO},a,{name}\n")
    [found] = await problems_of(stage, Manifest(manifest), output_dir=stage.folder)

    assert found.startswith("line 2, output: ")
    assert "of this run" in found


async def test_an_output_that_is_a_file_of_the_run_is_named_as_it_was_given(stage: Stage) -> None:
    folder, journal = stage.folder / "Season", stage.folder / "Season" / "Run.SRT"
    folder.mkdir()
    given = [DubRow(url(1), AUDIO, output="Run.mp4"), DubRow(url(2), AUDIO, output="Run.SRT/x.mp4")]
    found = await problems_of(stage, given, output_dir=folder, journal=journal, captions=True)

    assert found == [
        f"row 1, output: {folder / 'Run.srt'} is the journal of this run",
        f"row 2, output: {journal} is the journal of this run",
    ]


async def test_outputs_that_are_one_file_are_named_as_they_were_given(stage: Stage) -> None:
    given = [DubRow(url(1), AUDIO, output="One.mp4"), DubRow(url(2), AUDIO, output="ONE.mov")]
    given += [DubRow(url(3), AUDIO, output="ONE.mp4"), DubRow(url(4), AUDIO, output="One.MP4/Deep/x.mp4")]
    found = await problems_of(stage, given, captions=True)

    out = stage.folder / "out"
    assert found == [
        f"row 2: duplicate of row 1: the same output {out / 'ONE.srt'}",
        f"row 3: duplicate of row 1: the same output {out / 'ONE.mp4'}",
        f"row 4: a folder of its output is where row 1 writes: {out / 'One.MP4'}",
    ]


async def test_no_row_writes_its_captions_over_a_file_of_the_run_itself(stage: Stage) -> None:
    given = [evolve(one, output="run.mp4") for one in rows(1)]
    [found] = await problems_of(stage, given, output_dir=stage.folder, journal=stage.folder / "run.srt", captions=True)

    assert "run.srt is the journal of this run" in found


async def test_no_row_writes_its_own_source(stage: Stage) -> None:
    shutil.copy(SAMPLE_VIDEO, stage.folder / "v.mp4")
    (stage.folder / "link").symlink_to(".")
    row = DubRow(stage.folder / "v.mp4", AUDIO, output=stage.folder / "link/v.mp4")
    [found] = await problems_of(stage, [row], output_dir=None)

    assert "is the video of this row" in found


async def test_a_dry_run_writes_nothing(stage: Stage) -> None:
    await stage.run(rows(2)).survey()

    assert list(stage.folder.iterdir()) == []


@pytest.mark.parametrize("where", ["/proc/out", "/proc/out/deeper", "/proc"])
async def test_a_dry_run_finds_an_output_folder_that_cannot_be_written(stage: Stage, where: str) -> None:
    with pytest.raises(OSError, match=r"/proc|No such file|denied|Read-only"):
        await stage.run(rows(1), output_dir=Path(where)).survey()
    with pytest.raises(OSError, match=r"/proc|No such file|denied|Read-only"):
        await stage.outcomes(rows(1), output_dir=Path(where))
    assert not stage.sandbox.jobs


async def test_a_file_in_the_place_of_the_output_folder_is_a_problem_of_the_rows(stage: Stage) -> None:
    (stage.folder / "out").write_bytes(b"a file")
    [problem] = await problems_of(stage, rows(1))

    assert "out is not a folder" in problem


@pytest.mark.parametrize("name", ["missing/run.sqlite", "folder", "missing/deep/run.sqlite"])
async def test_a_dry_run_finds_a_place_where_no_journal_can_be(stage: Stage, name: str) -> None:
    (stage.folder / "folder").mkdir()
    for attempt in (stage.run(rows(1), journal=stage.folder / name).survey, None):
        with pytest.raises(JournalError, match=r"does not exist|is a folder"):
            await (attempt() if attempt else stage.outcomes(rows(1), journal=stage.folder / name))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "192.168.1.5", "[::1]"])
async def test_a_source_on_no_public_host_is_a_problem_of_its_row_in_a_list_and_in_a_manifest(
    stage: Stage, host: str
) -> None:
    video, audio = f"https://{host}/v.mp4", f"https://{host}/a.mp3?token=5ec5e7"
    manifest = stage.folder / "rows.csv"
    manifest.write_text(f"video,audio,key,title\n{url(1)},{audio},a,\n{video},{AUDIO},b,\n{url(3)},{AUDIO},c,\n")
    found = await problems_of(stage, [DubRow(url(1), audio, key="a"), DubRow(video, AUDIO, key="b"), *rows(1)])

    assert found == [
        f"row 1, audio: must be on a public host, which HeyGen can reach, not 'https://{host}/a.mp3?...'",
        f"row 2, video: must be on a public host, which HeyGen can reach, not 'https://{host}/v.mp4'",
    ]
    assert await problems_of(stage, Manifest(manifest), journal=stage.folder / "rows.sqlite") == [
        one.replace("row 2", "line 3").replace("row 1", "line 2") for one in found
    ]


async def test_a_source_on_no_public_host_is_a_problem_beside_others_of_its_row(stage: Stage) -> None:
    manifest = stage.folder / "rows.csv"
    manifest.write_text(f"video,audio,mode\nhttps://10.0.0.1/v.mp4,{AUDIO},fast\n")
    found = await problems_of(stage, Manifest(manifest))

    assert [one.partition(": ")[0] for one in found] == ["line 2, mode", "line 2, video"]


async def test_a_row_that_has_a_job_may_have_its_source_on_any_host(stage: Stage) -> None:
    row = DubRow(url(1), AUDIO, key="a")
    assert await stage.states([row]) == {"completed": 1}
    with stage.database() as database:  # as of a version that did not check it
        moved = evolve(row, video="https://localhost/v.mp4")
        database.execute("UPDATE rows SET inputs = ?", [inputs_digest(moved, {})])

    assert await stage.states([moved]) == {"unchanged": 1}


async def test_below_a_header_with_errors_the_files_of_rows_are_checked_and_none_is_called_a_duplicate(
    stage: Stage,
) -> None:
    manifest = stage.folder / "rows.csv"
    same = f"{url(1)},{AUDIO},1"
    manifest.write_text(f"video,audio,strat_time\n{same}\n{same}\n{url(2)},none.wav,2\n{url(2)},{AUDIO},3\n")
    found = await problems_of(stage, Manifest(manifest))

    assert [one.partition(": ")[0] for one in found] == ["line 1", "line 4, audio"]


# Rows that an earlier run has begun


async def test_a_finished_row_needs_no_source_and_no_free_output(stage: Stage) -> None:
    path = audio(stage.folder)
    given = [DubRow(url(1), path, key="a")]
    assert await stage.states(given) == {"completed": 1}
    path.unlink()
    sent = len(stage.sandbox.requests)

    assert await stage.states(given) == {"unchanged": 1}
    assert (await stage.run(given).survey()).done == 1
    assert len(stage.sandbox.requests) == sent


async def test_a_row_with_a_job_needs_no_source(tmp_path: Path) -> None:
    path = audio(tmp_path)
    given = [DubRow(url(1), path, key="a")]
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(given) as run:
            await until(lambda: run.snapshot().stages.get("running"))
        path.unlink()
        async with stage.run(given) as run:
            await stage.sandbox.advance(3600)
            [outcome] = [outcome async for outcome in run]

    assert outcome.state == "completed"


@pytest.mark.parametrize("unusable", ["missing", "html", "too large"])
@pytest.mark.parametrize("state", ["finished", "running"])
async def test_a_row_with_a_job_whose_source_is_another_one_is_refused_though_that_cannot_be_used(
    tmp_path: Path, unusable: str, state: str
) -> None:
    """Nothing shows that its job, in the other language perhaps, was created from what the row says now."""
    row = DubRow(url(1), audio(tmp_path, "french.wav"), key="a")
    german = tmp_path / "german.wav"
    if unusable != "missing":
        german.write_bytes(b"<!DOCTYPE html><html>" if unusable == "html" else WAV)
    if unusable == "too large":
        os.truncate(german, 1 << 30)
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run([row]) as run:
            await until(lambda: run.snapshot().stages.get("running"))
            if state == "finished":
                await stage.sandbox.advance(3600)
                assert [outcome.state async for outcome in run] == ["completed"]
        for changed in (evolve(row, audio=german), evolve(row, audio=german, title="other", mode="precision")):
            [found] = await problems_of(stage, [changed])
            assert found.startswith("row 1, audio: ")
            assert found.endswith("put the file back, or leave the row out")
        [found] = await problems_of(stage, [evolve(row, video=german)])
        assert found.startswith("row 1, video: ")


async def test_a_row_whose_job_failed_needs_its_source_again(stage: Stage) -> None:
    path = audio(stage.folder)
    given = [DubRow(url(1, "fail=Internal+error"), path, key="a")]
    assert await stage.states(given, max_attempts=1) == {"failed": 1}
    path.unlink()

    assert (await problems_of(stage, given))[0].startswith("row 1, audio: ")


async def test_a_missing_source_fails_one_row_if_its_job_fails_meanwhile(tmp_path: Path) -> None:
    path = audio(tmp_path)
    given = [DubRow(url(1, "fail=Internal+error"), path, key="a"), *rows(2)]
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(given) as run:
            await until(lambda: run.snapshot().stages.get("running") == 3)
        path.unlink()
        await stage.sandbox.advance(3600)
        outcomes = await stage.outcomes(given)

    assert Counter(outcome.state for outcome in outcomes) == {"failed": 1, "completed": 2}


# The content on disk is what is sent


def replace(path: Path, content: bytes) -> None:
    """Write another file of the same size over *path*, with its times, as `cp -p` and `unzip` do."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


async def test_another_take_with_the_same_size_and_time_is_sent(stage: Stage) -> None:
    path = audio(stage.folder, content=b"one")
    await stage.outcomes([DubRow(url(1), path, key="a")])
    replace(path, WAV + b"two")
    await stage.outcomes([DubRow(url(1), path, key="b")])

    assert stage.asked("POST /v3/assets") == 2
    assert len({job.body["audio"]["asset_id"] for job in stage.sandbox.jobs}) == 2


async def test_another_file_in_its_place_is_sent(stage: Stage) -> None:
    path = audio(stage.folder, content=b"one")
    await stage.outcomes([DubRow(url(1), path, key="a")])
    other = audio(stage.folder, "b.wav", content=b"two")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    await stage.outcomes([DubRow(url(1), path, key="b")])

    assert stage.asked("POST /v3/assets") == 2


async def test_under_the_key_of_a_finished_row_another_take_is_noticed(stage: Stage) -> None:
    path = audio(stage.folder, content=b"one")
    await stage.outcomes([DubRow(url(1), path, key="a")])
    replace(path, WAV + b"two")

    [found] = await problems_of(stage, [DubRow(url(1), path, key="a")])
    assert "changed" in found


async def test_a_file_that_was_only_touched_is_the_same(stage: Stage) -> None:
    path = audio(stage.folder)
    given = [DubRow(url(1), path, key="a")]
    await stage.outcomes(given)
    os.utime(path, (1, 1))

    assert await stage.states(given) == {"unchanged": 1}


async def test_a_file_that_changes_while_its_row_waits_is_not_sent(tmp_path: Path) -> None:
    paths = [audio(tmp_path, f"{number}.wav", bytes([number]) * 3) for number in range(20)]
    given = [DubRow(url(number), path, key=f"k{number}") for number, path in enumerate(paths)]
    async with staged(tmp_path, faults=[stall("POST /v3/assets")]) as stage, stage.run(given) as run:
        await until(lambda: stage.asked("POST /v3/assets"))
        replace(paths[19], WAV + b"two")  # more than 16 rows ahead
        stage.sandbox.faults = []
        stage.sandbox.release()
        outcomes = {outcome.key: outcome async for outcome in run}

    assert outcomes["k19"].state == "failed"
    assert "19.wav" in str(outcomes["k19"].error)
    assert "k19" not in stage.jobs_by_key()
    assert sum(outcome.state == "completed" for outcome in outcomes.values()) == 19


async def test_a_file_that_changes_during_its_upload_gets_no_job(tmp_path: Path) -> None:
    path = audio(tmp_path, content=b"one")
    async with staged(tmp_path, faults=[stall("POST /v3/assets")]) as stage:
        async with stage.run([DubRow(url(1), path, key="a")]) as run:
            await until(lambda: stage.asked("POST /v3/assets"))
            replace(path, WAV + b"two")
            stage.sandbox.faults = []
            stage.sandbox.release()
            [outcome] = [outcome async for outcome in run]

        assert outcome.state == "failed"
        assert "changed" in str(outcome.error)
        assert stage.asked(CREATE) == 0


# Links


def token(day: int) -> str:
    return f"https://cdn.example.com/v.mp4?token={'abcdefghij'[day]}1B2c3D4e5F6g7H8i9J0k&expires={1_764_000_000 + day}"


def supabase(day: int) -> str:
    return f"https://x.supabase.co/storage/v1/object/sign/b/v.mp4?token=eyJ{day}"


@pytest.mark.parametrize("make", [token, supabase])
async def test_a_row_without_a_key_is_refused_if_its_link_looks_signed(
    stage: Stage, make: Callable[[int], str]
) -> None:
    [found] = await problems_of(stage, [DubRow(make(1), AUDIO)])

    assert found.startswith("row 1, key: video looks like a signed link")
    assert "token" not in found


@pytest.mark.parametrize("make", [token, supabase])
async def test_a_finished_row_with_a_key_stays_finished_when_its_link_is_signed_again(
    stage: Stage, make: Callable[[int], str]
) -> None:
    for day in (1, 2, 3):
        states = await stage.states([DubRow(make(day), AUDIO, key="a")])

    assert states == {"unchanged": 1}
    assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("make", [token, supabase])
async def test_a_row_in_doubt_is_not_paid_again_when_its_link_is_signed_again(
    tmp_path: Path, make: Callable[[int], str]
) -> None:
    async with staged(tmp_path) as stage:
        stage.sandbox.faults = [reset(CREATE, after=True)]
        async with stage.run([DubRow(make(1), AUDIO, key="a")]):
            await until(stage.keys_sent)
        stage.sandbox.faults = []
        # Another process: a session takes no key for two bodies.
        async with HeyGenSession(stage.sandbox.api_key, base_url=stage.sandbox.url, retry=QUICK) as heygen:
            [outcome] = await evolve(stage, heygen=heygen).outcomes([DubRow(make(2), AUDIO, key="a")])

        assert outcome.error is None
        assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("dl?file=first.mp4&sig=1", "dl?file=second.mp4&sig=2"),
        ("dl?token=first", "dl?token=second"),
        ("v.mp4?versionId=1&X-Amz-Signature=1", "v.mp4?versionId=2&X-Amz-Signature=2"),
    ],
)
async def test_a_link_to_another_file_under_one_key_is_noticed(stage: Stage, first: str, second: str) -> None:
    given = [[DubRow(f"https://example.com/{path}", AUDIO, key="a")] for path in (first, second)]
    await stage.outcomes(given[0])

    [found] = await problems_of(stage, given[1])
    assert "changed" in found


# A journal and its manifest


def manifest_of(folder: Path, name: str) -> Manifest:
    path = folder / name
    is_json = name.endswith("jsonl")
    path.write_text(f'{{"video": "{url(1)}", "audio": "{AUDIO}"}}\n' if is_json else f"video,audio\n{url(1)},{AUDIO}\n")
    return Manifest(path)


async def test_a_journal_of_another_manifest_is_refused(stage: Stage) -> None:
    await stage.outcomes(manifest_of(stage.folder, "eps.csv"))
    other = manifest_of(stage.folder, "eps.jsonl")
    listed = [DubRow(url(1), AUDIO)]
    with pytest.raises(JournalError, match=r"made for the manifest eps\.csv, not for eps\.jsonl"):
        await stage.outcomes(other)
    with pytest.raises(JournalError, match=r"eps\.csv"):
        await stage.run(other).survey()

    assert await stage.states(manifest_of(stage.folder, "eps.csv")) == {"unchanged": 1}
    assert await stage.states(listed) == {"unchanged": 1}  # rows of a program are of no manifest


@pytest.mark.parametrize("name", ["run.report.csv", "run.sqlite"])
async def test_a_manifest_is_not_overwritten_by_its_run(stage: Stage, name: str) -> None:
    manifest = manifest_of(stage.folder, name)
    for attempt in (stage.run(manifest).survey, lambda: stage.outcomes(manifest)):
        with pytest.raises((ValueError, JournalError), match=r"manifest|database"):
            await attempt()

    assert manifest.path.read_text().startswith("video,audio")
    assert stage.sandbox.requests == []


async def test_a_pipe_is_dubbed_like_a_file(stage: Stage) -> None:
    read, write = os.pipe()
    os.write(write, f"video,audio,key\n{url(1)},{AUDIO},a\n{url(2)},{AUDIO},b\n".encode())
    os.close(write)
    try:
        assert await stage.states(Manifest(f"/dev/fd/{read}")) == {"completed": 2}
    finally:
        os.close(read)


@pytest.mark.parametrize(
    ("cells", "columns"),
    [
        ({"mode": "fast", "audio": "gone.mp3"}, {"mode", "audio"}),
        (
            {"video": "ftp://example.com/a.mp4", "audio": "gone.mp3", "start_time": "-1"},
            {"video", "audio", "start_time"},
        ),
        ({"key": "no spaces", "output": "x" * 300 + ".mp4"}, {"key", "output"}),
    ],
)
async def test_the_files_of_a_row_are_checked_whatever_else_is_wrong_with_it(tmp_path, cells, columns):
    cells = {"video": "https://example.com/a.mp4", "audio": "https://example.com/a.mp3", **cells}
    manifest = tmp_path / "rows.csv"
    manifest.write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    journal = Journal(None, origin="http://localhost")
    await journal.open()
    listed = await to_thread.run_sync(lambda: list(Manifest(manifest).source_rows()))
    try:
        [found] = await prepare(listed, journal, Plan(journal=None, output_dir=tmp_path / "out"), {})
    finally:
        await journal.aclose()
    assert {problem.place.rpartition(", ")[2] for problem in found.problems} == columns
