"""`heygen-async dub`: what it prints, what it leaves, how it exits, and how it goes on after Ctrl-C."""

import csv
import os
import pty
import signal
import subprocess
import sys
import time

import orjson
import pytest
from attrs import evolve

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import Ran, known_to_the_shell, running
from rich.console import Console

from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.progress import DubSnapshot
from heygen_async.cli import main
from heygen_async.cli.app import run as run_app
from heygen_async.cli.dubbing import Progress, board, clock, line, summary
from heygen_async.models import DubOutcome, DubRow, Wallet
from heygen_async.sandbox import SAMPLE_AUDIO
from heygen_async.sandbox.faults import error, stall

URL, AUDIO = "https://sandbox.invalid/v.mp4", "https://example.com/a.mp3"
QUICK = ("--poll-every", "0.02")
COMMAND = (sys.executable, "-W", "error", "-m", "heygen_async.cli")


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


def test_a_manifest_is_dubbed_and_told_of_in_json_lines(server, cli, manifest, tmp_path):
    ran = cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
    *outcomes, last = ran.answers

    assert (ran.code, ran.err) == (0, "")
    assert {outcome["key"]: outcome["state"] for outcome in outcomes} == dict.fromkeys(
        ("ep-1", "ep-2", "ep-3", "ep-4"), "completed"
    )
    assert outcomes[0].keys() == {"key", "state", "lipsync_id", "file", "attempts", "error"}
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
    assert {outcome["state"] for outcome in ran.answers[:-1]} == {"skipped"}
    assert len(server.requests) == before


def test_a_row_that_fails_makes_the_exit_code_1(server, cli, manifest, tmp_path):
    manifest.write_text(manifest.read_text() + f"\nbad,{URL}?fail=No+face+was+found,{AUDIO},Bad\n")
    ran = cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)

    assert ran.code == 1
    [failed] = [outcome for outcome in ran.answers[:-1] if outcome["state"] == "failed"]
    assert (failed["key"], failed["file"]) == ("bad", None)
    assert "No face was found" in failed["error"]


def test_a_wrong_manifest_exits_2_with_all_that_is_wrong(server, cli, tmp_path):
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


def test_no_credit_exits_1_and_says_how_to_go_on(server, cli, manifest):
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


def _start(*argv, sandbox, **options):
    environment = {**os.environ, "HEYGEN_API_KEY": sandbox.api_key, "HEYGEN_BASE_URL": sandbox.url}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment |= options.pop("env", {})
    return subprocess.Popen([*COMMAND, *map(str, argv)], env=environment, **{**pipes, **options})


def _until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(manifest, tmp_path):
    with running(manual=True) as sandbox:
        process = _start("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)
        _until(lambda: len(sandbox.jobs) == 4)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "run the same command again" in orjson.loads(err)["error"]["hint"]
        with (tmp_path / "episodes.report.csv").open(newline="") as file:
            assert {row["state"] for row in csv.DictReader(file)} == {"submitted"}

        process = _start("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)
        _until(lambda: any("statuses" in request.path for request in sandbox.requests))
        _advance(sandbox)
        out, err = process.communicate(timeout=20)

        assert (process.returncode, err) == (0, "")
        assert orjson.loads(out.splitlines()[-1])["summary"]["rows"] == {"completed": 4}
        assert len(sandbox.jobs) == 4


def _advance(sandbox):
    clock = sandbox._backend.clock
    clock.move_to(clock.now() + 60)


def test_a_second_ctrl_c_leaves_at_once(manifest):
    with running(faults=[stall("POST /v3/lipsyncs")]) as sandbox:
        process = _start("dub", manifest, sandbox=sandbox)
        _until(lambda: any(request.method == "POST" for request in sandbox.requests))
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert process.poll() is None  # it waits for the answer, up to 5 seconds
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=4)

    assert process.returncode == 130


def test_a_terminal_gets_a_board_and_a_summary(manifest, tmp_path):
    with running(speed=100) as sandbox:
        ours, theirs = pty.openpty()
        terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False}
        argv = ("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
        with _start(*argv, sandbox=sandbox, env={"TERM": "xterm", "COLUMNS": "100"}, **terminal) as process:
            os.close(theirs)
            got = b"".join(iter(lambda: _read(ours), b"")).decode()
            code = process.wait(30)
        os.close(ours)

    assert code == 0
    assert "in flight" in got
    assert "4 completed in 0:0" in got
    assert "balance: $100.00 before, $99.47 after" in got
    assert f"report: {tmp_path / 'episodes.report.csv'}" in got


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end has gone
        return b""


# How it looks


SNAPSHOT = DubSnapshot(
    stages={"running": 10, "completed": 40},
    total=100,
    in_flight=10,
    limit=10,
    refusals=3,
    estimate=12.5,
    budget=50.0,
    trouble=None,
    balance_before=Wallet(currency="usd", remaining_balance=20.0),
    balance_after=Wallet(currency="credits", remaining_balance=1234.5),
    halted=None,
)
ROW = DubRow(URL, AUDIO, key="ep-1")


def test_the_board_tells_how_far_it_is_and_when_it_ends():
    progress = Progress(started=0.0, worked=40)
    progress.add(DubOutcome(row=ROW, key="ep-1", state="failed", error=ValueError("no\x1b[31m face")))
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(board(SNAPSHOT, progress, 600.0))
    shown = " ".join(console.export_text().split())
    console.file.close()

    assert (
        "40 of 100 rows, 10 in flight, limit 10, 4.1 a minute, about $12.50 of $50.00 asked for, about 14:38 left"
        in shown
    )
    assert "ep-1: no [31m face" in shown


def test_the_board_tells_what_is_wrong_while_the_api_does_not_answer():
    console = Console(width=60, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(board(evolve(SNAPSHOT, trouble="no connection to a.b"), Progress(0.0), 60.0))
    shown = console.export_text()
    console.file.close()

    assert "waiting  running  completed  failed" in shown  # in a narrow window too
    assert "trying again: no connection to a.b" in shown


def test_the_end_is_not_guessed_without_a_total_or_a_beginning():
    assert Progress(0.0).seconds_left(SNAPSHOT, 10.0) is None


def test_a_line_tells_of_a_row():
    done = DubOutcome(row=ROW, key="ep-1", state="completed")

    assert line(done, 3, 10) == "3/10 ep-1 completed"
    assert line(done, 3, None) == "3 ep-1 completed"


def test_the_summary_tells_what_it_cost():
    assert list(summary(SNAPSHOT, Progress(started=1.0), 3726.0, ["report: r.csv"])) == [
        "10 running, 40 completed in 1:02:05; about $12.50 of $50.00 asked for",
        "balance: $20.00 before, 1,234.50 credits after",
        "report: r.csv",
    ]


def test_the_summary_tells_what_failed():
    progress = Progress(started=0.0)
    for number in range(7):
        progress.add(DubOutcome(row=ROW, key=f"ep-{number}", state="failed", error=ValueError("no face")))
    progress.add(DubOutcome(row=ROW, key="ep-8", state="skipped", error=OverBudget("too much")))
    told = list(summary(evolve(SNAPSHOT, stages={"failed": 7, "skipped": 1}), progress, 1.0, []))

    assert told[1:7] == [f"  ep-{number}: no face" for number in range(2, 7)] + [
        "  and others before, which the report tells of"
    ]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (61.9, "1:01"), (3600, "1:00:00")])
def test_lengths_of_time_are_short(seconds, shown):
    assert clock(seconds) == shown


def test_the_help_has_an_example(capsys):
    assert run_app(["dub", "--help"]) == 0
    assert "heygen-async dub episodes.csv" in capsys.readouterr().out
