"""`heygen-async dub`: its output, its files, its exit codes, and how it continues after Ctrl-C."""

import csv
import io
import os
import signal
import subprocess

import orjson
import pytest
from attrs import evolve

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import QUICK, Ran, known_to_the_shell, on_terminal, running, start, until
from rich.cells import cell_len
from rich.console import Console

from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.events import DubEvent, DubSnapshot
from heygen_async.cli import main
from heygen_async.cli.dub_files import RunFiles
from heygen_async.cli.dub_view import Progress, clock, line, live_view, summary
from heygen_async.models import DubOutcome, DubRow, Wallet
from heygen_async.sandbox import SAMPLE_AUDIO
from heygen_async.sandbox.faults import error

URL, AUDIO = "https://sandbox.invalid/v.mp4", "https://example.com/a.mp3"


@pytest.fixture
def server(monkeypatch):
    with known_to_the_shell(monkeypatch, speed=1000, retry_after=0) as sandbox:
        yield sandbox


@pytest.fixture
def cli(capsys):
    def run(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in argv])
        return Ran(int(exit_.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "episodes.csv"
    lines = [f"ep-{number},{URL}?n={number},{AUDIO},Episode {number}" for number in range(1, 5)]
    path.write_text("\n".join(["key,video,audio,title", *lines]).replace("?n=1", "").replace("?n=", "?seconds=2"))
    return path


def test_a_manifest_is_dubbed_and_reported_in_json_lines(server, cli, manifest, tmp_path):
    ran = cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
    *outcomes, last = ran.answers

    assert (ran.code, ran.err) == (0, "")
    assert {outcome["key"]: outcome["state"] for outcome in outcomes} == dict.fromkeys(
        ("ep-1", "ep-2", "ep-3", "ep-4"), "completed"
    )
    assert outcomes[0].keys() == {"type", "key", "state", "lipsync_id", "file", "attempts", "error", "warnings"}
    assert last["summary"]["rows"] == {"completed": 4}
    assert last["summary"]["balance_before"] == pytest.approx(100)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"ep-{number}.mp4" for number in range(1, 5)]
    assert (tmp_path / "episodes.sqlite").exists()


def test_the_report_is_beside_the_journal(server, cli, manifest, tmp_path):
    cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
    with (tmp_path / "episodes.report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert [row["key"] for row in rows] == ["ep-1", "ep-2", "ep-3", "ep-4"]
    assert [row["place"] for row in rows] == ["line 2", "line 3", "line 4", "line 5"]
    assert {row["state"] for row in rows} == {"done"}
    assert {row["lipsync_id"] for row in rows} == {job.id for job in server.jobs}
    assert all(float(row["wait_seconds"]) > 0 and row["file"].endswith(".mp4") for row in rows)


def test_the_same_command_again_sends_nothing(server, cli, manifest, tmp_path):
    cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
    before = len(server.requests)
    ran = cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)

    assert ran.code == 0
    assert {outcome["state"] for outcome in ran.answers[:-1]} == {"unchanged"}
    assert len(server.requests) == before


def test_a_row_that_fails_makes_the_exit_code_1(server, cli, manifest, tmp_path):
    manifest.write_text(manifest.read_text() + f"\nbad,{URL}?fail=No+face+was+found,{AUDIO},Bad\n")
    ran = cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)

    assert ran.code == 1
    [failed] = [outcome for outcome in ran.answers[:-1] if outcome["state"] == "failed"]
    assert (failed["key"], failed["file"]) == ("bad", None)
    assert "No face was found" in failed["error"]


def test_a_wrong_manifest_exits_2_with_every_problem(server, cli, tmp_path):
    manifest = tmp_path / "bad.csv"
    manifest.write_text(f"video,audio\n{URL},none.mp3\nhttp://a.b/c,{AUDIO}\n")
    ran = cli("dub", manifest)

    assert ran.code == 2
    assert ran.error["code"] == "bad_rows"
    assert [problem["place"] for problem in ran.error["problems"]] == ["line 2, audio", "line 3, video"]
    assert server.requests == []
    assert cli("dub", tmp_path / "none.csv").code == 2


def test_a_locked_journal_exits_1(server, cli, manifest, tmp_path):
    import sqlite3  # noqa: PLC0415 only here

    database = sqlite3.connect(tmp_path / "episodes.sqlite", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    ran = cli("dub", manifest)
    database.close()

    assert ran.code == 1
    assert "in use by another run" in ran.error["message"]


def test_no_key_exits_3(cli, manifest):
    assert cli("dub", manifest).code == 3


def test_no_credit_exits_1_with_the_next_step(server, cli, manifest):
    server.faults = [error(402, "insufficient_credit", route="POST /v3/lipsyncs")]
    ran = cli("dub", manifest)

    assert ran.code == 1
    assert ran.error["code"] == "insufficient_credit"
    assert "run it again" in ran.error["hint"]


def test_a_dry_run_needs_no_key(cli, manifest):
    assert cli("dub", manifest, "--dry-run").answer["survey"]["rows"] == 4


def test_a_dry_run_sends_nothing_and_leaves_nothing(server, cli, tmp_path):
    manifest = tmp_path / "rows.csv"
    manifest.write_text(f"video,audio,end_time\n{URL},{SAMPLE_AUDIO},\n{URL}?duration=9,{AUDIO},10\n{URL},{AUDIO},\n")
    ran = cli("dub", manifest, "--dry-run", "--rates.speed", "0.1", "--budget", "5")
    survey = ran.answer["survey"]

    assert ran.code == 0
    assert (survey["rows"], survey["to_submit"], survey["unknown"], survey["budget"]) == (3, 3, 1, 5)
    assert survey["estimate"] == pytest.approx(0.1 * (4 + 10 + 60), rel=0.05)  # the sample plays about 4 s
    assert server.requests == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


def test_a_rehearsal_needs_no_key_and_leaves_nothing(cli, manifest, tmp_path):
    ran = cli("dub", manifest, "--sandbox", "--output-dir", tmp_path / "out")

    assert ran.code == 0
    assert ran.answers[-1]["summary"]["rows"] == {"completed": 4}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes.csv"]


def test_a_budget_leaves_rows_and_exits_1(server, cli, tmp_path):
    manifest = tmp_path / "rows.csv"
    lines = [f"k{number},{URL}?duration=10,{AUDIO},10" for number in range(4)]
    manifest.write_text("\n".join(["key,video,audio,end_time", *lines]))
    ran = cli("dub", manifest, "--budget", "0.7", "--rates.speed", "0.033", *QUICK)

    assert ran.code == 1
    assert ran.answers[-1]["summary"]["rows"] == {"completed": 2, "skipped": 2}
    assert "budget of $0.70" in ran.answers[-1]["summary"]["halted"]


def test_batches_go_through_the_command_line(server, cli, manifest):
    assert cli("dub", manifest, "--submit", "batch").code == 0
    assert {job.batch_id for job in server.jobs} != {None}
    assert len({job.batch_id for job in server.jobs}) == 1


def test_outputs_without_a_folder_are_beside_the_manifest(server, cli, tmp_path):
    manifest = tmp_path / "sub" / "rows.csv"
    manifest.parent.mkdir()
    manifest.write_text(f"video,audio,output\n{URL},{AUDIO},fr/one.mp4\n")

    assert cli("dub", manifest, *QUICK).code == 0
    assert (manifest.parent / "fr/one.mp4").exists()
    manifest.write_text(f"video,audio,output\n{URL},{AUDIO},../one.mp4\n")
    ran = cli("dub", manifest)
    assert "must stay in the output folder" in ran.error["problems"][0]["message"]


# As a process


def test_the_same_command_continues_after_ctrl_c(manifest, tmp_path):
    with running(manual=True) as sandbox:
        process = start("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)
        until(lambda: len(sandbox.jobs) == 4)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "run the same command again" in orjson.loads(err)["error"]["hint"]
        with (tmp_path / "episodes.report.csv").open(newline="") as file:
            assert {row["state"] for row in csv.DictReader(file)} == {"submitted"}

        process = start("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)
        until(lambda: any("statuses" in request.path for request in sandbox.requests))
        _advance(sandbox)
        out, err = process.communicate(timeout=20)

        assert (process.returncode, err) == (0, "")
        assert orjson.loads(out.splitlines()[-1])["summary"]["rows"] == {"completed": 4}
        assert len(sandbox.jobs) == 4


def _advance(sandbox):
    clock = sandbox._backend.clock
    clock.move_to(clock.now() + 60)


def test_a_terminal_gets_a_live_view_and_a_summary(manifest, tmp_path):
    with running(speed=100) as sandbox:
        ran = on_terminal("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)

    assert ran.code == 0
    assert "concurrent jobs" in ran.out
    assert "rows/min" in ran.out
    assert "4 completed in 0:0" in ran.out
    assert "balance: $100.00 before, $99.47 after" in ran.out
    assert f"report: {tmp_path / 'episodes.report.csv'}" in ran.out


# Views


SNAPSHOT = DubSnapshot(
    stages={"running": 10, "completed": 40},
    total=100,
    in_flight=10,
    limit=10,
    refusals=3,
    estimate=12.5,
    spent=10.0,
    reserved=2.5,
    budget=50.0,
    trouble=None,
    balance_before=Wallet(currency="usd", remaining_balance=20.0),
    balance_after=Wallet(currency="credits", remaining_balance=1234.5),
    halted=None,
)
ROW = DubRow(URL, AUDIO, key="ep-1")


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def now():
    return Clock()


@pytest.fixture
def progress(now):
    begun = Progress(now)
    begun.begin()
    return begun


def outcome(key="ep-1", state="completed", error=None, **details):
    return DubOutcome(row=ROW, key=key, state=state, error=error, **details)


def event(stage, key="ep-1"):
    return DubEvent(stage=stage, key=key, place="line 2")


def shown(view, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(view)
    return console.file.getvalue()


def test_the_live_view_shows_rows_rate_time_left_and_money(progress, now):
    for number in range(50):
        progress.on_event(event("submitting", f"ep-{number}"))
    for number in range(40):
        progress.on_event(event("completed", f"ep-{number}"))
        progress.add(outcome(f"ep-{number}"))
    now.now += 600
    view = shown(live_view(SNAPSHOT, progress))

    assert view.splitlines()[0] == "40 completed, 10 running, 50 not started"
    assert "40 of 100 rows in 10:00, 4.0 rows/min, about 15:00 left" in view
    assert "10 of 10 concurrent jobs, about $10.00 spent, $2.50 reserved, budget $50.00" in view
    assert "ep-40 submitting, ep-41 submitting" in view


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_of_the_live_view_is_wider_than_the_window(progress, width):
    stages = ("uploading", "waiting", "submitting", "running", "downloading", "completed", "failed", "skipped")
    for number in range(30):
        progress.on_event(event("running", f"{number}.a-long-key-of-a-row-in-progress"))
    progress.add(outcome("日本語" * 30, "failed", ValueError("顔が見つかりません" * 20)))
    view = shown(live_view(evolve(SNAPSHOT, stages=dict.fromkeys(stages, 1234), total=99_999), progress), width)

    assert max(cell_len(line) for line in view.splitlines()) <= width


def test_control_characters_of_names_and_messages_are_not_shown(progress):
    hostile = "a\x1b[2Jb\x9bc\u202ed\ne"
    progress.on_event(event("running", hostile))
    progress.add(outcome(hostile, "failed", ValueError(hostile)))
    view = shown(live_view(evolve(SNAPSHOT, trouble=hostile, halted=hostile), progress))
    lines = list(summary(evolve(SNAPSHOT, stages={"failed": 1}, halted=hostile), progress, hostile, [hostile]))

    assert not set(view + "".join(lines)) & {"\x1b", "\x9b", "\u202e"}
    assert all("\n" not in text for text in lines)
    assert line(outcome(hostile), 1, 2) == "1/2 a [2Jb c d e completed"


def test_the_live_view_shows_the_error_while_the_api_does_not_answer(progress):
    view = shown(live_view(evolve(SNAPSHOT, trouble="no connection to a.b"), progress), 60)

    assert "retrying: no connection to a.b" in view


def test_the_time_left_is_not_estimated_without_a_total(progress, now):
    progress.on_event(event("submitting"))
    now.now += 10
    progress.add(outcome())

    assert progress.seconds_left(evolve(SNAPSHOT, total=None)) is None


def test_rows_that_an_earlier_run_finished_or_submitted_do_not_count_for_the_rate(progress, now):
    progress.add(outcome("ep-1", "unchanged"))
    progress.on_event(event("running", "ep-2"))
    progress.add(outcome("ep-2"))
    now.now += 10
    assert progress.rate() is None

    progress.on_event(event("submitting", "ep-3"))
    now.now += 10
    progress.add(outcome("ep-3"))
    assert progress.rate() == pytest.approx(0.1)


def test_a_row_is_shown_in_a_line():
    assert line(outcome(), 3, 10) == "3/10 ep-1 completed"
    assert line(outcome(), 3, None) == "3 ep-1 completed"
    assert line(outcome(warnings=("no captions",)), 3, None) == "3 ep-1 completed (warning: no captions)"
    assert line(outcome(state="failed", error=ValueError("give overwrite=True")), 1, None) == (
        "1 ep-1 failed give --overwrite"
    )


def test_the_summary_has_counts_time_money_and_the_next_step(progress, now):
    now.now += 192
    stages = {"completed": 40, "failed": 1, "unchanged": 18, "running": 2}
    progress.add(outcome("ep-9", "failed", ValueError("no face")))
    lines = list(
        summary(
            evolve(SNAPSHOT, stages=stages, budget=None, reserved=0.0),
            progress,
            "heygen-async dub a.csv",
            ["report: r"],
        )
    )

    assert lines == [
        "40 completed, 1 failed, 18 unchanged, 2 running, 39 not started in 3:12, about $10.00 spent.",
        "  ep-9: no face",
        "Retry the failed rows: heygen-async dub a.csv",
        "balance: $20.00 before, 1,234.50 credits after",
        "report: r",
    ]


def test_the_summary_has_the_last_failed_rows(progress):
    for number in range(7):
        progress.add(outcome(f"ep-{number}", "failed", ValueError("no face")))
    progress.add(outcome("ep-8", "skipped", OverBudget("too much")))
    lines = list(summary(evolve(SNAPSHOT, stages={"failed": 7, "skipped": 1}), progress, "", []))

    assert lines[1:7] == [f"  ep-{number}: no face" for number in range(2, 7)] + [
        "  2 more failed rows are in the report"
    ]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (61.9, "1:01"), (3600, "1:00:00")])
def test_lengths_of_time_are_short(seconds, shown):
    assert clock(seconds) == shown


def test_the_help_has_an_example(cli):
    assert "heygen-async dub episodes.csv" in cli("dub", "--help").out


# Files beside the manifest


def test_a_report_never_overwrites_the_manifest(server, cli, manifest, tmp_path):
    twin = tmp_path / "run.report.csv"
    manifest.rename(twin)
    ran = cli("dub", twin, "--journal", tmp_path / "run.sqlite")

    assert (ran.code, server.requests) == (2, [])
    assert "overwrite the manifest" in ran.error["message"]
    assert twin.read_text().startswith("key,video")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_to_the_manifest_is_the_manifest(link, server, cli, manifest, tmp_path):
    getattr(tmp_path / "run.report.csv", link)(manifest)
    ran = cli("dub", manifest, "--journal", tmp_path / "run.sqlite")

    assert (ran.code, server.requests) == (2, [])
    assert manifest.read_text().startswith("key,video")


def test_a_report_overwrites_a_report_and_no_other_file(server, cli, manifest, tmp_path):
    report = tmp_path / "episodes.report.csv"
    report.write_text("my own notes")
    refused = cli("dub", manifest, *QUICK)
    assert (refused.code, server.requests, report.read_text()) == (2, [], "my own notes")

    report.unlink()
    assert cli("dub", manifest, *QUICK).code == 0
    assert cli("dub", manifest, *QUICK).code == 0


@pytest.mark.parametrize("name", ["episodes.csv", "./episodes.csv"])
def test_a_journal_is_not_the_manifest(name, server, cli, manifest, monkeypatch):
    monkeypatch.chdir(manifest.parent)
    ran = cli("dub", manifest, "--journal", name)

    assert (ran.code, server.requests) == (2, [])
    assert manifest.read_text().startswith("key,video")


def test_a_manifest_from_a_pipe_needs_a_journal(server, cli, manifest, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    ran = cli("dub", tmp_path / "pipe")

    assert ran.code == 2
    assert "--journal" in ran.error["message"]


def test_outputs_of_a_manifest_from_a_pipe_are_in_the_current_folder(server, manifest, tmp_path):
    (tmp_path / "here").mkdir()
    row = f'{{"video": "{URL}", "audio": "{AUDIO}", "output": "one.mp4"}}'
    argv = ("dub", "/dev/stdin", "--journal", tmp_path / "run.sqlite", *QUICK)
    with start(*argv, sandbox=server, stdin=subprocess.PIPE, cwd=tmp_path / "here") as process:
        _, err = process.communicate(row, timeout=30)

    assert (process.returncode, err) == (0, "")
    assert (tmp_path / "here" / "one.mp4").exists()


def test_a_report_in_the_place_of_a_folder_is_refused(cli, server, manifest, tmp_path):
    (tmp_path / "run.report.csv").mkdir()
    ran = cli("dub", manifest, "--journal", tmp_path / "run.sqlite", *QUICK)

    assert ran.code == 2
    assert "folder" in ran.error["message"]


def test_a_rehearsal_offers_no_retry(manifest):
    manifest.write_text(manifest.read_text() + f"\nbad,{URL}?fail=No+face,{AUDIO},Bad\n")
    ran = on_terminal("dub", manifest, "--sandbox")

    assert ran.code == 1
    assert "1 failed" in ran.out
    assert "--retry-failed" not in ran.out


def test_the_retry_command_has_the_flags_of_the_run(manifest):
    files = RunFiles.of(manifest, None)

    assert files.retry_command({"--output-dir": "my videos", "--journal": None, "--captions": True}) == (
        f"heygen-async dub {manifest} --output-dir 'my videos' --captions --retry-failed"
    )


def test_paths_of_flags_may_start_with_the_home_folder(server, cli, manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cli("dub", manifest, "--output-dir=~/out", "--journal=~/run.sqlite", *QUICK).code == 0
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert (tmp_path / "run.report.csv").exists()


# Runs that are interrupted


def test_a_run_without_credit_prints_a_summary(server, cli, manifest):
    server.faults = [error(402, "insufficient_credit", route="POST /v3/lipsyncs")]
    ran = cli("dub", manifest)

    assert (ran.code, ran.error["code"]) == (1, "insufficient_credit")
    assert ran.answers[-1]["type"] == "summary"


def test_each_json_line_has_a_type(server, cli, manifest):
    assert {line["type"] for line in cli("dub", manifest, *QUICK).answers} == {"row", "summary"}
    assert cli("dub", manifest, "--dry-run").answer["type"] == "survey"


# Journals, captions, retries


def test_a_journal_of_another_manifest_is_refused(server, cli, manifest, tmp_path):
    assert cli("dub", manifest, *QUICK).code == 0
    before = len(server.jobs)
    twin = tmp_path / "episodes.jsonl"
    twin.write_text(f'{{"key": "other", "video": "{URL}?seconds=3", "audio": "{AUDIO}"}}\n')
    refused = cli("dub", twin, *QUICK)

    assert refused.code != 0
    assert "episodes.csv" in refused.error["message"]
    assert len(server.jobs) == before
    assert cli("dub", twin, "--journal", tmp_path / "other.sqlite", *QUICK).code == 0
    assert cli("dub", manifest, *QUICK).code == 0


def test_captions_are_written_on_request(server, cli, manifest, tmp_path):
    assert cli("dub", manifest, "--output-dir", tmp_path / "plain", *QUICK).code == 0
    journal = ("--journal", tmp_path / "other.sqlite")
    assert cli("dub", manifest, "--output-dir", tmp_path / "full", "--captions", *journal, *QUICK).code == 0

    assert list((tmp_path / "plain").glob("*.srt")) == []
    assert len(list((tmp_path / "full").glob("*.srt"))) == 4


def test_failed_rows_are_retried_on_request_only(server, cli, manifest, tmp_path):
    server.faults = []
    manifest.write_text(manifest.read_text() + f"\nbad,{URL}?fail=No+face,{AUDIO},Bad\n")
    argv = ("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
    assert cli(*argv).code == 1
    jobs = len(server.jobs)
    again = cli(*argv)
    assert ({line["state"] for line in again.answers[:-1]}, len(server.jobs)) == ({"unchanged", "failed"}, jobs)

    assert cli(*argv, "--retry-failed").code == 1
    assert len(server.jobs) == jobs + 1
