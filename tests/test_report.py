"""The report of a run opens in a spreadsheet, whatever is in its cells, and replaces no other file of the run."""

import csv
import io
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from bulk_stage import AUDIO, Stage, rows, staged, url
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.journal import Journal
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.own_files import own_files_of
from heygen_async.bulk.program import RetryDelays, after_create
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.report import COLUMNS, _cell, default_report, is_report, write_report
from heygen_async.errors import RateLimited
from heygen_async.models import DubRow

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def reported(folder: Path, *records: Record) -> list[dict[str, str]]:
    journal = Journal(None, origin="https://api.heygen.com")
    await journal.open()
    try:
        await journal.save(*records)
        await write_report(journal, folder / "report.csv", {})
    finally:
        await journal.aclose()
    return read(folder / "report.csv")


async def test_a_report_has_a_row_for_each_row(stage: Stage) -> None:
    given = [*rows(2, output="fr/x.mp4")[:1], DubRow(url("bad", "fail=No+face"), AUDIO, key="bad")]
    async with stage.run(given) as run:
        outcomes = {outcome.key: outcome async for outcome in run}
        await run.write_report(stage.folder / "report.csv")
    found = {row["key"]: row for row in read(stage.folder / "report.csv")}

    assert tuple(found["bad"]) == COLUMNS
    assert found["row-1"]["file"] == str(outcomes["row-1"].path)
    assert (found["row-1"]["state"], found["row-1"]["lipsync_id"]) == ("completed", outcomes["row-1"].lipsync.id)
    assert (found["bad"]["state"], found["bad"]["error"]) == ("failed", "No face")


@pytest.mark.parametrize(
    ("state", "error", "word"),
    [
        (State.PLANNED, None, "not submitted"),
        (State.PLANNED, "400 invalid_parameter", "failed"),  # a create that was refused
        (State.SUBMITTING, None, "submitting"),
        (State.SUBMITTED, None, "running"),
        (State.COMPLETED, None, "downloading"),
        (State.COMPLETED, "No space left on device", "failed"),
        (State.DONE, None, "completed"),
        (State.FAILED, "No face", "failed"),
    ],
)
async def test_the_states_of_a_report_are_those_that_a_run_prints(
    tmp_path: Path, state: State, error: str | None, word: str
) -> None:
    [row] = await reported(tmp_path, Record(key="a", inputs="i", number=1, state=state, error=error))

    assert row["state"] == word


@pytest.mark.parametrize("retry_after", [None, 60.0])
async def test_a_row_that_waits_after_a_429_is_not_submitted(tmp_path: Path, retry_after: float | None) -> None:
    error = RateLimited("too many jobs", status=429, retry_after=retry_after, outcome="rejected")
    sent = Record(key="a", inputs="i", number=1).sending("body", None, 1.0)
    [row] = await reported(tmp_path, after_create(sent, error, RetryDelays()).next_version())

    assert (row["state"], row["error"]) == ("not submitted", "")


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_row_that_is_to_be_tried_again_is_not_submitted(tmp_path: Path, attempts: int) -> None:
    record = Record(key="a", inputs="i", number=1)
    for number in range(attempts):
        failed = record.sending("body", None, 1.0).accepted(f"ls_{number}").failed("server overloaded", is_final=False)
        record = failed.renewed()
    [row] = await reported(tmp_path, record.next_version())

    assert (row["state"], row["attempts"], row["error"]) == ("not submitted", str(attempts), "")


async def test_a_report_has_the_seconds_of_each_step(tmp_path: Path) -> None:
    times = {"upload_seconds": 1.25, "submit_seconds": 0.5, "wait_seconds": 61.0, "download_seconds": 2.0}
    [row] = await reported(tmp_path, Record(key="a", inputs="i", number=1, state=State.DONE, **times))

    assert {name: float(row[name]) for name in times} == times


async def test_a_report_starts_with_a_byte_order_mark(tmp_path: Path) -> None:
    [row] = await reported(tmp_path, Record(key="a", inputs="i", number=1, state=State.FAILED, error="日本語 é"))

    assert (tmp_path / "report.csv").read_bytes().startswith(b"\xef\xbb\xbfrow,place,key")
    assert row["error"] == "日本語 é"


@pytest.mark.parametrize("start", FORMULAS)
async def test_no_cell_is_a_formula(tmp_path: Path, start: str) -> None:
    text = f"{start}cmd|' /C calc'!A0"
    record = Record(
        key="-a", inputs="i", number=1, place=text, lipsync_id=text, state=State.DONE, target=text, error=text
    )
    [row] = await reported(tmp_path, record)

    assert not [name for name, cell in row.items() if cell.startswith(FORMULAS)]
    assert row["key"] == "'-a"
    assert row["file"].endswith("cmd|' /C calc'!A0")


@pytest.mark.parametrize("start", [";", "; ", ';"', ";;", '; ""', "\t;\n"])
@pytest.mark.parametrize("sign", ["=", "@", "-", "\uff0b"])
async def test_no_part_of_a_cell_is_a_formula_where_a_semicolon_separates_cells(
    tmp_path: Path, start: str, sign: str
) -> None:
    text = f"no{start}{sign}HYPERLINK(1); see below"
    await reported(tmp_path, Record(key="a", inputs="i", number=1, place=text, target=text, error=text))
    lines = (tmp_path / "report.csv").read_text("utf-8-sig").splitlines()
    cells = [cell for row in csv.reader(lines, delimiter=";") for cell in row]

    assert len(cells) > 2
    assert not [cell for cell in cells if cell.lstrip().startswith(FORMULAS)]


async def test_no_cell_contains_control_characters(tmp_path: Path) -> None:
    text = "a\x1b[31mb\x9b2Jc\x00d\ne\u202ef\udce9"
    [row] = await reported(
        tmp_path,
        Record(key="a", inputs="i", number=1, place="line 1", state=State.DONE, target="x\x1b[31m", error=text),
    )

    assert row["file"] == r"x\u001b[31m"
    assert row["error"] == "a [31mb 2Jc d e f"


@pytest.mark.parametrize("path", ["My  videos/a.mp4", " a   b.mp4 ", "a\u3000\u3000b.mp4"])
async def test_a_path_keeps_its_spaces(tmp_path: Path, path: str) -> None:
    [row] = await reported(tmp_path, Record(key="a", inputs="i", number=1, state=State.DONE, target=path))

    assert row["file"] == path


@given(st.text())
def test_any_text_is_one_harmless_line(text: str) -> None:
    cell = _cell(text)

    assert cell is not None
    assert not cell.startswith(FORMULAS)
    assert len(cell.splitlines()) <= 1
    assert cell.encode().decode() == cell


async def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text("before")
    journal = Journal(None, origin="https://api.heygen.com")
    await journal.open()
    await journal.aclose()
    with pytest.raises(RuntimeError):
        await write_report(journal, path, {})

    assert path.read_text() == "before"
    assert names_in(tmp_path) == ["report.csv"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(os.devnull)], ids=["pipe", "device"])
async def test_a_report_replaces_no_pipe_and_no_device(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "report.csv"
    make(path)
    with pytest.raises(FileExistsError, match="not a regular file"):
        await reported(tmp_path)

    assert not path.is_file()
    assert names_in(tmp_path) == ["report.csv"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("head", "is_one"),
    [
        (b"row,place,key,lipsync_id", True),
        (b"row;place;key;lipsync_id", True),
        (b'"row","place","key","lipsync_id"', True),
        (b"row\tplace\tkey\tlipsync_id", True),
        (b"row,key,place", False),
        (b"rows,place,key", False),
        (b"video,audio,key", False),
    ],
)
def test_a_report_is_one_after_a_spreadsheet_has_saved_it(
    tmp_path: Path,
    mark: bytes,
    head: bytes,
    is_one: bool,
) -> None:
    (tmp_path / "report.csv").write_bytes(mark + head + b"\r\n1")

    assert is_report(tmp_path / "report.csv") == is_one


def test_a_pipe_is_no_report_and_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)  # so that it would be read, and not waited for
    os.write(writer, b"row,place,key,")
    try:
        assert not is_report(tmp_path / "pipe")
        assert os.read(writer, 100) == b"row,place,key,"
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("journal", "report"),
    [
        ("run.sqlite", "run.report.csv"),
        ("run.db", "run.report.csv"),
        ("run", "run.report.csv"),
        ("night.fr", "night.fr.report.csv"),
        ("night.de", "night.de.report.csv"),
        (".sqlite", ".sqlite.report.csv"),
    ],
)
def test_journals_of_different_names_have_different_reports(journal: str, report: str) -> None:
    assert default_report(Path("a.b", journal)) == Path("a.b", report)


@pytest.mark.parametrize("name", ["rows.csv", "run.sqlite", "link.csv", "./rows.csv"])
async def test_a_report_replaces_no_other_file_of_the_run(stage: Stage, name: str) -> None:
    manifest = stage.folder / "rows.csv"
    manifest.write_text(f"video,audio\n{url(1)},{AUDIO}\n")
    (stage.folder / "link.csv").symlink_to("rows.csv")
    async with stage.run(Manifest(manifest)) as run:
        async for _ in run:
            pass
        with pytest.raises(ValueError, match="would overwrite the"):
            await run.write_report(stage.folder / name)
        await run.write_report(default_report(stage.folder / "run.sqlite"))

    assert manifest.read_text().startswith("video,audio")


def test_files_of_a_run_are_different_files(tmp_path: Path) -> None:
    journal = tmp_path / "run.sqlite"
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="the report would overwrite the manifest"):
        own_files_of(manifest=tmp_path / "link/run.report.csv", journal=journal, report=default_report(journal))
    with pytest.raises(ValueError, match="the journal would overwrite the manifest"):
        own_files_of(manifest=journal, journal=journal)

    assert set(own_files_of(manifest=None, journal=journal, report=default_report(journal)).values()) == {
        "the journal",
        "a file of the journal",
        "the report",
    }
