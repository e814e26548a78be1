"""`heygen-async dub`: its output, its files, its exit codes, and how it continues after Ctrl-C."""

import csv
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import wave
from pathlib import Path

import orjson
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import QUICK, Ran, known_to_the_shell, on_terminal, running, start, until

from heygen_async.cli import main
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO
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


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--sandbox",)])
def test_a_manifest_whose_name_is_not_utf_8_is_misuse(more, server, cli, manifest):
    odd = manifest.rename(manifest.with_name("caf\udce9.csv"))
    ran = cli("dub", odd, *more)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert ran.error["message"].endswith("is not UTF-8: rename it")
    assert list(manifest.parent.iterdir()) == [odd]


def test_the_report_is_beside_the_journal(server, cli, manifest, tmp_path):
    cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
    with (tmp_path / "episodes.report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert [row["key"] for row in rows] == ["ep-1", "ep-2", "ep-3", "ep-4"]
    assert [row["place"] for row in rows] == ["line 2", "line 3", "line 4", "line 5"]
    assert {row["state"] for row in rows} == {"completed"}
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
    database.execute("CREATE TABLE t (x)")  # an empty file is one that was cut off
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
    assert ran.answers[-1]["summary"]["next_commands"] == [
        f"heygen-async dub {manifest} --output-dir {tmp_path / 'out'} --dry-run",
        f"heygen-async dub {manifest} --output-dir {tmp_path / 'out'}",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes.csv"]


@pytest.mark.parametrize(
    "sources", [f"{SAMPLE_VIDEO},long.wav", f"https://example.com/v.mp4,{AUDIO}", "asset:a,asset:b"]
)
@pytest.mark.parametrize("budget", [(), ("--budget", "0.01")], ids=str)
def test_a_rehearsal_says_nothing_about_money_because_its_jobs_have_other_lengths(sources, budget, cli, tmp_path):
    with wave.open(str(tmp_path / "long.wav"), "wb") as audio:
        audio.setparams((1, 2, 1000, 90_000, "NONE", ""))
        audio.writeframes(bytes(180_000))
    manifest = tmp_path / "rows.csv"
    manifest.write_text(f"video,audio\n{sources}\n")
    summary = cli("dub", manifest, "--sandbox", *budget).answers[-1]["summary"]

    assert summary["rows"] == {"completed": 1}
    assert {summary[name] for name in ("estimate", "spent", "reserved")} == {0.0}
    assert summary["budget"] is None
    assert shlex.split(summary["next_commands"][0]) == ["heygen-async", "dub", str(manifest), *budget, "--dry-run"]


def test_a_rehearsal_that_is_interrupted_does_not_say_that_jobs_go_on(manifest):
    manifest.write_text(manifest.read_text() + f"\nlong,{URL}?seconds=9000,{AUDIO},Long\n")
    with start("dub", manifest, "--sandbox") as process:
        rows = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert [orjson.loads(row)["type"] for row in rows] == ["row"] * 4
    assert orjson.loads(out.splitlines()[-1])["summary"]["rows"] == {"completed": 4, "running": 1}
    assert orjson.loads(err)["error"]["hint"] is None


@pytest.mark.parametrize("where", ["out", "out/deeper", "out/a/b"])
@pytest.mark.parametrize("flags", [(), ("--dry-run",)], ids=str)
def test_an_output_folder_that_is_a_file_is_a_problem_of_the_rows(server, cli, manifest, tmp_path, where, flags):  # noqa: PLR0917 fixtures
    (tmp_path / "out").write_text("a file")
    ran = cli("dub", manifest, "--output-dir", tmp_path / where, *flags)

    assert (ran.code, server.requests) == (2, [])
    assert all(f"{tmp_path / 'out'} is not a folder" in problem["message"] for problem in ran.error["problems"])


def test_a_budget_leaves_rows_and_exits_1(server, cli, tmp_path):
    manifest = tmp_path / "rows.csv"
    lines = [f"k{number},{URL}?duration=10,{AUDIO},10" for number in range(4)]
    manifest.write_text("\n".join(["key,video,audio,end_time", *lines]))
    ran = cli("dub", manifest, "--budget", "0.7", "--rates.speed", "0.033", *QUICK)

    assert ran.code == 1
    assert ran.answers[-1]["summary"]["rows"] == {"completed": 2, "skipped": 2}
    assert "budget of $0.70" in ran.answers[-1]["summary"]["halted"]


def test_a_dry_run_counts_what_earlier_runs_have_spent(server, cli, tmp_path):
    manifest, flags = tmp_path / "rows.csv", ("--rates.speed", "0.1", "--budget", "1.5")
    lines = ["key,video,audio,end_time", f"k1,{URL}?duration=10,{AUDIO},10"]
    manifest.write_text("\n".join(lines))
    cli("dub", manifest, *flags, *QUICK)
    manifest.write_text("\n".join([*lines, f"k2,{URL}?duration=10,{AUDIO},10"]))
    survey = cli("dub", manifest, "--dry-run", *flags).answer["survey"]

    assert (survey["estimate"], survey["earlier_estimate"], survey["budget"]) == (1.0, 1.0, 1.5)
    assert "less than that and the $1.00" in on_terminal("dub", manifest, "--dry-run", *flags).out
    assert cli("dub", manifest, *flags, *QUICK).answers[-1]["summary"]["rows"] == {"unchanged": 1, "skipped": 1}


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
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "run the same command again" in orjson.loads(err)["error"]["hint"]
        interrupted = orjson.loads(out.splitlines()[-1])["summary"]
        assert (interrupted["rows"], interrupted["spent"]) == ({"running": 4}, 0.0)
        assert interrupted["reserved"] == interrupted["estimate"] > 0  # the jobs go on, and will be paid
        [command] = interrupted["next_commands"]
        assert command == f"heygen-async dub {manifest} --output-dir {tmp_path / 'out'}"
        with (tmp_path / "episodes.report.csv").open(newline="") as file:
            assert {row["state"] for row in csv.DictReader(file)} == {"running"}

        process = start("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)
        until(lambda: any("statuses" in request.path for request in sandbox.requests))
        _advance(sandbox)
        out, err = process.communicate(timeout=20)

        assert (process.returncode, err) == (0, "")
        assert orjson.loads(out.splitlines()[-1])["summary"]["rows"] == {"completed": 4}
        assert len(sandbox.jobs) == 4


def test_what_an_interrupted_run_has_reserved_is_for_the_jobs_that_go_on(manifest, tmp_path):
    with running(manual=True, account_limit=2) as sandbox:
        process = start("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)
        until(lambda: any(request.status == 429 for request in sandbox.requests))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    summary = orjson.loads(out.splitlines()[-1])["summary"]

    assert (process.returncode, len(sandbox.jobs)) == (130, 2)
    assert summary["spent"] == 0.0
    assert summary["reserved"] == pytest.approx(2 * 60 * 0.0333)


def _advance(sandbox):
    clock = sandbox._backend.clock
    clock.move_to(clock.now() + 60)


def test_a_terminal_gets_a_live_view_and_a_summary(manifest, tmp_path):
    with running(speed=100) as sandbox:
        ran = on_terminal("dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)

    assert ran.code == 0
    assert "checking all rows before anything is sent" in ran.out
    assert "concurrent jobs" in ran.out
    assert "rows/min" in ran.out
    assert "4 completed in 0:0" in ran.out
    assert "Balance: $100.00 before, $99.47 after" in ran.out
    assert f"Report: {tmp_path / 'episodes.report.csv'}\n" in ran.out  # in one piece, however long it is


def test_a_terminal_that_cannot_replace_lines_gets_one_for_each_row(manifest, tmp_path):
    with running(speed=100) as sandbox:
        flags = ("--output-dir", tmp_path / "out", *QUICK)
        ran = on_terminal("dub", manifest, *flags, sandbox=sandbox, env={"TERM": "dumb"})

    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()[:4]] == ["1/4", "2/4", "3/4", "4/4"]


def test_a_terminal_gets_the_warnings_of_rows(manifest, tmp_path):
    with running(speed=100, faults=[error(404, "not_found", route="GET /captions/{name}")]) as sandbox:
        flags = ("--output-dir", tmp_path / "out", "--captions", *QUICK)
        ran = on_terminal("dub", manifest, *flags, sandbox=sandbox, columns=500)

    assert ran.code == 0
    assert ran.out.count("(warning: the captions were not written: ") == 4


def test_a_run_without_a_folder_says_how_to_download_its_videos(server, cli, manifest, tmp_path):
    manifest.write_text(manifest.read_text().replace("title", "title,output", 1) + ",given.mp4")
    [command] = cli("dub", manifest, *QUICK).answers[-1]["summary"]["next_commands"][:1]
    words = shlex.split(command.replace("PATH", str(tmp_path / "out")))
    ran = cli(*words[1:])

    assert command == f"heygen-async dub {manifest} --output-dir PATH"
    assert {line["file"] is None for line in ran.answers[:-1]} == {False}
    assert len(server.jobs) == 4


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


def test_a_rehearsal_of_a_manifest_from_a_pipe_needs_no_journal(manifest, tmp_path):
    with start("dub", "/dev/stdin", "--sandbox", stdin=subprocess.PIPE, cwd=tmp_path) as process:
        out, err = process.communicate(manifest.read_text(), timeout=30)

    assert (process.returncode, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == [manifest.name]
    assert orjson.loads(out.splitlines()[-1])["summary"]["rows"] == {"completed": 4}


def test_a_run_of_a_named_pipe_has_a_page_too(server, manifest, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    argv = ("dub", "pipe", "--journal", "run.sqlite", "--review", *QUICK)
    with start(*argv, sandbox=server, cwd=tmp_path) as process:
        (tmp_path / "pipe").write_text(manifest.read_text())
        until((tmp_path / "run.report.csv").exists)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)

    assert process.returncode == 130
    assert [orjson.loads(line)["type"] for line in out.splitlines()] == ["page", *["row"] * 4, "summary"]


def test_a_rehearsal_has_assets_of_the_account(cli, tmp_path):
    manifest = tmp_path / "rows.csv"
    manifest.write_text(f"key,video,audio\na,asset:as_1,{AUDIO}\nb,{URL},asset:as/2\n,asset:as_1,asset:as_3\n")
    ran = cli("dub", manifest, "--sandbox")

    assert (ran.code, ran.answers[-1]["summary"]["rows"]) == (0, {"completed": 3})


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_journal_in_a_folder_that_does_not_exist_is_misuse(more, server, cli, manifest, tmp_path):
    ran = cli("dub", manifest, "--journal", tmp_path / "none" / "run.sqlite", *more)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert ran.error["message"].startswith("--journal: the folder of the journal ")


@pytest.mark.parametrize("name", [".", "..", "/", "episodes.sqlite"])
def test_a_journal_that_is_a_folder_is_misuse(name, server, cli, manifest, monkeypatch):
    monkeypatch.chdir(manifest.parent)
    (manifest.parent / "episodes.sqlite").mkdir()
    ran = cli("dub", manifest, "--journal", name)

    assert (ran.code, server.requests) == (2, [])
    assert ran.error["message"].startswith(f"--journal: {name} is a folder: name a file in it")


@pytest.mark.parametrize("mode", ["folder", "journal"])
def test_a_journal_that_cannot_be_written_is_misuse(mode):
    program = (
        "import os, sys; from pathlib import Path; from heygen_async.cli.dub_files import RunFiles\n"
        "os.geteuid() or os.setuid(65534)  # root may write all\n"
        "try: RunFiles.of(Path(sys.argv[1], 'a.csv'), None)\n"
        "except ValueError as bad: print(*bad.problems)"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.csv", "a.sqlite"):
            (Path(folder) / name).touch(0o444)
        Path(folder).chmod(0o555 if mode == "folder" else 0o777)
        command = [sys.executable, "-c", program, folder]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        Path(folder).chmod(0o777)

    assert "is not writable" in ran.stdout
    assert folder in ran.stdout
    assert "give a journal" not in ran.stdout  # it would pay for the rows of this one again


def test_outputs_of_a_manifest_from_a_pipe_are_in_the_current_folder(server, manifest, tmp_path):
    (tmp_path / "here").mkdir()
    row = f'{{"video": "{URL}", "audio": "{AUDIO}", "output": "one.mp4"}}'
    argv = ("dub", "/dev/stdin", "--journal", tmp_path / "run.sqlite", *QUICK)
    with start(*argv, sandbox=server, stdin=subprocess.PIPE, cwd=tmp_path / "here") as process:
        _, err = process.communicate(row, timeout=30)

    assert (process.returncode, err) == (0, "")
    assert (tmp_path / "here" / "one.mp4").exists()


@pytest.mark.parametrize("stem", ["m" * 234, "\u3042" * 78], ids=len)
def test_the_report_of_a_manifest_with_the_longest_name_is_written(stem, server, cli, manifest, tmp_path):
    manifest = manifest.rename(tmp_path / f"{stem}.csv")
    ran = cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)

    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / f"{stem}.report.csv").exists()


@pytest.mark.parametrize("stem", ["m" * 236, "\u3042" * 80, "m" * 243, "m" * 250, "\u3042" * 83], ids=len)
def test_a_manifest_whose_report_or_journal_would_have_too_long_a_name_is_misuse(stem, server, cli, manifest, tmp_path):
    manifest = manifest.rename(tmp_path / f"{stem}.csv")
    ran = cli("dub", manifest, "--output-dir", tmp_path / "out", *QUICK)
    named = cli("dub", manifest, "--output-dir", tmp_path / "out", "--journal", tmp_path / "run.sqlite", *QUICK)

    assert (ran.code, ran.out) == (2, "")
    assert [(one["place"], "--journal run.sqlite" in one["message"]) for one in ran.error["problems"]] == [
        ("--journal", True)
    ]
    assert (named.code, len(server.jobs)) == (0, 4)


@pytest.mark.parametrize("name", ["j" * 248, "j" * 250, "j" * 300], ids=len)
def test_a_journal_with_too_long_a_name_is_misuse(name, server, cli, manifest, tmp_path):
    ran = cli("dub", manifest, "--journal", tmp_path / name, *QUICK)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert "too long" in ran.error["message"]


def test_a_report_in_the_place_of_a_folder_is_refused(cli, server, manifest, tmp_path):
    (tmp_path / "run.report.csv").mkdir()
    ran = cli("dub", manifest, "--journal", tmp_path / "run.sqlite", *QUICK)

    assert ran.code == 2
    assert "is a folder: move it away, or give another journal" in ran.error["message"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(os.devnull)], ids=["pipe", "device"])
def test_a_report_in_the_place_of_a_pipe_or_a_device_is_refused(make, cli, server, manifest, tmp_path):
    make(tmp_path / "episodes.report.csv")
    ran = cli("dub", manifest, *QUICK)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert "exists and is not a report of a run: move it away" in ran.error["message"]
    assert not (tmp_path / "episodes.report.csv").is_file()


def test_a_report_that_could_not_be_written_is_not_named_in_the_summary(server, manifest, tmp_path):
    pipe, report = tmp_path / "pipe", tmp_path / "run.report.csv"
    os.mkfifo(pipe)

    def send():
        until((tmp_path / "run.sqlite").exists)  # the files of the run have been checked
        report.mkdir()
        pipe.write_text(manifest.read_text())

    sender = threading.Thread(target=send)
    sender.start()
    ran = on_terminal("dub", pipe, "--journal", tmp_path / "run.sqlite", *QUICK, sandbox=server, columns=200)
    sender.join()

    assert ran.code == 0
    assert "the report was not written: " in ran.out
    assert f"Journal: {tmp_path / 'run.sqlite'}\n" in ran.out
    assert "Report: " not in ran.out


def test_where_there_is_a_journal_no_other_one_is_advised(cli, server, manifest, tmp_path):
    report = tmp_path / "episodes.report.csv"
    report.write_text("my own notes")
    new = cli("dub", manifest, *QUICK).error["message"]
    (tmp_path / "episodes.sqlite").touch()
    known = cli("dub", manifest, *QUICK).error["message"]

    assert new.endswith("move it away, or give another journal")
    assert known.endswith("move it away")


def test_a_rehearsal_offers_no_retry_but_the_run_itself(manifest, tmp_path):
    manifest.write_text(manifest.read_text() + f"\nbad,{URL}?fail=No+face,{AUDIO},Bad\n")
    ran = on_terminal("dub", manifest, "--sandbox", "--output-dir", tmp_path / "out")

    assert ran.code == 1
    assert "1 failed" in ran.out
    assert "--retry-failed" not in ran.out
    assert "Balance" not in ran.out  # the sandbox's money is nobody's
    assert f"Start the run:\n  heygen-async dub {manifest} --output-dir {tmp_path / 'out'}\n" in ran.out


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
    assert ran.answers[-1]["summary"]["next_commands"] == [f"heygen-async dub {manifest}"]


@pytest.mark.parametrize("end", ["credit", "budget"])
def test_a_run_that_leaves_rows_out_ends_with_the_command_that_continues_it(manifest, end):
    flags = ("--budget", "0.1") if end == "budget" else ()
    with running(speed=1000, balance=0.5 if end == "credit" else 100) as sandbox:
        ran = on_terminal("dub", manifest, *flags, *QUICK, sandbox=sandbox, columns=80)
    steps = {
        "credit": ["Continue:", f"  heygen-async dub {manifest}"],
        "budget": ["Continue with a higher budget:", f"  heygen-async dub {manifest} --budget USD"],
    }
    lines = ran.out.splitlines()
    at = lines.index(steps[end][0])

    assert ran.code == 1
    _, skipped, summary = ran.out.partition("skipped in 0:0")
    assert skipped
    assert summary.count("insufficient_credit" if end == "credit" else "Not all rows were submitted: ") == 1
    assert lines[at : at + 2] == steps[end]


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
    assert "was made for the manifest episodes.csv, not for episodes.jsonl" in refused.error["message"]
    assert "give the manifest its old name" in refused.error["message"]
    assert "another journal is for other rows, and pays for these again" in refused.error["message"]
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
    [failed] = [line for line in again.answers[:-1] if line["state"] == "failed"]
    assert failed["lipsync_id"] == next(job.id for job in server.jobs if "fail" in job.body["video"]["url"])

    assert cli(*argv, "--retry-failed").code == 1
    assert len(server.jobs) == jobs + 1
