"""`heygen-async review`, and the flags of `dub` for it: from drafts to final versions, and what cannot be shown."""

import asyncio
import contextlib
import os
import pty
import re
import shlex
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import aiohttp
import orjson
import pytest
from cli_sandbox import AUDIO_URL, VIDEO_URL, on_terminal, read_terminal, run, running, start
from review_stage import failed, finished, write_journal

from heygen_async.cli.review import _has_browser
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
HASTE = ("--poll-every", "0.02")


@pytest.fixture
def sandbox():
    with running(speed=1000, balance=1000) as sandbox:
        yield sandbox


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "v.mp4").write_bytes(SAMPLE_VIDEO.read_bytes())
    (tmp_path / "a.mp3").write_bytes(SAMPLE_AUDIO.read_bytes())
    lines = ["key,title,video,audio", *(f"row-{number},Episode {number},v.mp4,a.mp3" for number in range(1, 21))]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def journal(tmp_path):
    (tmp_path / "out").mkdir()
    records = [finished(1, tmp_path / "out"), failed(2, "No face")]
    asyncio.run(write_journal(tmp_path / "rows.sqlite", records))
    return tmp_path / "rows.sqlite"


@contextlib.contextmanager
def reviewing(*words, **options):
    """Run a command that serves the page; yields its process and the address."""
    with start(*words, **options) as process:
        yield process, orjson.loads(process.stdout.readline())["url"]
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 143


def visit(url, *decisions):
    """Post decisions as the page does, and return the rows by key."""

    async def visiting():
        async with aiohttp.ClientSession() as http:
            for decision in decisions:
                origin = url[: url.index("/", 8)]
                async with http.post(f"{url}decision", json=decision, headers={"Origin": origin}) as answer:
                    assert answer.status == 200
            async with http.get(f"{url}rows") as answer:
                return {row["key"]: row for row in (await answer.json())["rows"]}

    return asyncio.run(visiting())


def test_twenty_rows_get_from_drafts_to_final_files_with_the_three_commands_of_the_readme(sandbox, manifest, tmp_path):
    places = {"drafts.csv": manifest, "drafts.sqlite": manifest.with_suffix(".sqlite")}
    places |= {name: tmp_path / name for name in ("drafts", "final")}
    [block] = [text for text in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "--approved" in text]
    drafts, review, final = (
        [places.get(word, word) for word in line.removeprefix("heygen-async ").split()] for line in block.splitlines()
    )
    assert run(*drafts, *HASTE, sandbox=sandbox).code == 0
    with reviewing(*review) as (_, url):
        rows = visit(url)
        assert {row["category"] for row in rows.values()} == {"review"}
        assert rows["row-7"]["title"] == "Episode 7"
        assert rows["row-7"]["source"] == {"kind": "file", "name": "v.mp4"}
        words = {number: "rejected" if number % 5 == 0 else "approved" for number in range(1, 21)}
        visit(
            url,
            *({"key": f"row-{n}", "job": rows[f"row-{n}"]["job"], "decision": word} for n, word in words.items()),
        )
    assert run(*final, *HASTE, sandbox=sandbox).code == 0
    assert {path.name for path in (tmp_path / "final").iterdir()} == {
        f"row-{number}.mp4" for number, word in words.items() if word == "approved"
    }
    assert run(*drafts, *HASTE, "--redo-rejected", sandbox=sandbox).code == 0
    assert len(sandbox.jobs) == 20 + 16 + 4
    assert [job.body.get("mode") for job in sandbox.jobs].count("precision") == 16


def test_a_run_that_ends_without_credit_leaves_its_page_and_its_summary(manifest, tmp_path):
    with running(speed=1000, balance=0.3) as poor:
        words = ("dub", manifest, "--output-dir", tmp_path / "drafts", "--review", *HASTE)
        with reviewing(*words, sandbox=poor) as (process, url):
            while not (line := process.stdout.readline()).startswith('{"type":"summary"'):
                assert line
            assert orjson.loads(line)["summary"]["halted"]
            assert len(visit(url)) == 20


def test_a_journal_that_is_in_use_is_one_sentence_and_what_to_do(journal):
    with reviewing("review", journal) as _:
        ran = run("review", journal)
    assert ran.code == 1
    assert ran.error["message"].endswith("is in use by another run")
    assert "end it" in ran.error["hint"]


def test_a_journal_that_does_not_exist_is_one_sentence(tmp_path):
    ran = run("review", tmp_path / "none.sqlite")
    assert (ran.code, ran.out) == (2, "")
    assert "does not exist: name the .sqlite file of a run" in ran.error["message"]


def test_a_port_that_is_taken_is_one_sentence(journal):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run("review", journal, "--port", taken.getsockname()[1])
    assert ran.code != 0
    assert "Traceback" not in ran.err
    assert "give another one with --port" in ran.error["message"]


def test_a_journal_without_its_manifest_is_shown_by_its_keys(journal, tmp_path):
    with reviewing("review", journal) as (_, url):
        assert "title" not in visit(url)["row-1"]
    (tmp_path / "other.csv").write_text(
        "key,title,video,audio\nrow-1,One,https://a.example/v.mp4,https://a.example/a.mp3\n"
    )
    with reviewing("review", journal, "--manifest", tmp_path / "other.csv") as (_, url):
        assert visit(url)["row-1"]["title"] == "One"


@pytest.fixture
def browser(tmp_path):
    """A browser that writes down its address and ends the command, and the environment in which it is found."""
    opened, script = tmp_path / "opened", tmp_path / "browser.sh"
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}\nkill -INT $PPID\n')
    script.chmod(0o700)
    return opened, {"DISPLAY": ":0", "BROWSER": f"{script} %s"}


def test_at_a_terminal_a_browser_is_started_without_the_address_of_the_page(journal, browser):
    opened, environment = browser
    ran = on_terminal("review", journal, env=environment)
    assert ran.code == 130
    printed = re.search(r"^run page: (http://127\.0\.0\.1:\d+)/(\S+)/$", ran.out, re.MULTILINE)
    assert opened.read_text().startswith(printed[1])
    assert printed[2] not in opened.read_text()
    assert "Traceback" not in ran.out


@pytest.mark.parametrize(("flags", "is_opened"), [((), True), (("--no-open",), False)], ids=["", "--no-open"])
def test_a_browser_is_started_unless_the_flag_says_not_to(journal, browser, flags, is_opened):
    opened, environment = browser
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    with start("review", journal, *flags, **streams, text=False, env={"TERM": "xterm", **environment}) as process:
        os.close(theirs)
        shown = b""
        while (found := re.search(rb"run page: (\S+)\r\n", shown)) is None:
            shown += read_terminal(ours)
        if not is_opened:
            visit(found[1].decode())  # it answers once it has started the browser
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    os.close(ours)
    assert opened.exists() is is_opened


@pytest.mark.parametrize(
    ("environment", "has_browser"),
    [({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "w"}, True), ({"DISPLAY": ""}, False)],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there always is a window")
def test_where_there_is_no_window_no_browser_takes_over_the_terminal(environment, has_browser, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _has_browser() is has_browser


def test_the_next_command_is_that_for_what_was_approved(sandbox, manifest, browser, tmp_path):
    assert run("dub", manifest, "--output-dir", tmp_path / "drafts", *HASTE, sandbox=sandbox).code == 0
    journal = tmp_path / "rows.sqlite"
    command = f"then render what was approved:\nheygen-async dub {manifest} --approved --output-dir final"
    here = {**browser[1], "HEYGEN_BASE_URL": f"{sandbox.url}/"}
    assert f"{command}\n" in on_terminal("review", journal, env=here).out
    journal = journal.rename(tmp_path / "other.sqlite")
    assert f"{command} --journal {journal}\n" in on_terminal("review", journal, env=here).out


@pytest.mark.parametrize("chosen", ["https://elsewhere.example", "nonsense"])
def test_the_next_command_is_for_the_api_that_the_journal_belongs_to(chosen, sandbox, manifest, browser, tmp_path):
    assert run("dub", manifest, "--output-dir", tmp_path / "drafts", *HASTE, sandbox=sandbox).code == 0
    elsewhere = {**browser[1], "HEYGEN_BASE_URL": chosen}
    ran = on_terminal("review", tmp_path / "rows.sqlite", env=elsewhere)

    assert f"--approved --output-dir final --base-url {sandbox.url}\n" in ran.out


def test_a_manifest_that_does_not_exist_is_one_sentence(journal, tmp_path):
    ran = run("review", journal, "--manifest", tmp_path / "none.csv")
    assert ran.code == 2
    assert ran.error["message"] == f"--manifest: No such file or directory: {tmp_path / 'none.csv'}"


@pytest.mark.parametrize("name", ["rows.report.csv", "v.mp4", "empty.csv"])
def test_a_manifest_that_is_none_is_misuse(name, manifest, journal, tmp_path):
    (tmp_path / "rows.report.csv").write_text("row,place,key,state\n1,line 2,row-1,completed\n")
    (tmp_path / "empty.csv").touch()
    ran = run("review", journal, "--manifest", tmp_path / name)

    assert (ran.code, ran.out) == (2, "")
    assert ran.error["message"].startswith(f"--manifest: {tmp_path / name} has no valid row")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("--approved",), "--output-dir"),
        (("--mode", "precision"), "--mode"),
        (("--review", "--sandbox"), "--review"),
        (("--review", "--dry-run"), "--review"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(manifest, words, place):
    ran = run("dub", manifest, *words)
    assert ran.code == 2
    assert place in ran.error["message"]


@pytest.mark.parametrize("name", ["rows", "two  words", "-rows", "it's"])
def test_without_an_approved_row_a_command_to_paste_says_how_to_approve(name, sandbox, manifest, journal):
    manifest.rename(manifest.with_stem(name))
    journal.rename(journal.with_stem(name))
    words = ("dub", "--approved", "--output-dir", "final", "--", f"{name}.csv")
    ran = run(*words, sandbox=sandbox, cwd=manifest.parent)

    assert ran.code == 2
    *_, suggested = shlex.split(ran.error["hint"])
    assert (manifest.parent / suggested).samefile(journal.with_stem(name))


@pytest.mark.parametrize("key", ["row-1", ""], ids=["with a key", "without a key"])
def test_approved_rows_that_the_manifest_no_longer_has_are_named(key, sandbox, tmp_path):
    manifest = tmp_path / "rows.csv"
    rows = [f"{key and 'row-2'},Kept,{VIDEO_URL},{AUDIO_URL}", f"{key},Old,{VIDEO_URL},{AUDIO_URL}"]
    manifest.write_text("\n".join(["key,title,video,audio", *rows]))
    assert run("dub", manifest, "--output-dir", tmp_path / "drafts", *HASTE, sandbox=sandbox).code == 0
    with reviewing("review", tmp_path / "rows.sqlite") as (_, url):
        drafts = visit(url).values()
        visit(url, *({"key": row["key"], "job": row["job"], "decision": "approved"} for row in drafts))
    [gone] = [row["key"] for row in drafts if row["title"] == "Old"]
    manifest.write_text("\n".join(["key,title,video,audio", rows[0], f"{key and 'row-3'},New,{VIDEO_URL},{AUDIO_URL}"]))
    words = ("dub", manifest, "--approved", "--output-dir", tmp_path / "final")
    for ran in (run(*words, "--dry-run", sandbox=sandbox), run(*words, *HASTE, sandbox=sandbox)):
        assert ran.code == 0
        assert ran.err.endswith(f": 1 approved row is left out, not in {manifest} or changed in it: {gone}\n")
    assert sorted(job.body["title"] for job in sandbox.jobs) == ["Kept", "Kept", "Old"]


def test_final_versions_that_are_approved_too_are_not_called_left_out(sandbox, manifest, tmp_path):
    assert run("dub", manifest, "--output-dir", tmp_path / "drafts", *HASTE, sandbox=sandbox).code == 0
    final = ("dub", manifest, "--approved", "--output-dir", tmp_path / "final", *HASTE)
    for key in ("row-1", "row-1:precision"):
        with reviewing("review", tmp_path / "rows.sqlite") as (_, url):
            visit(url, {"key": key, "job": visit(url)[key]["job"], "decision": "approved"})
        ran = run(*final, sandbox=sandbox)
        assert (ran.code, ran.err) == (0, "")


def test_the_next_command_after_a_run_of_final_versions_is_about_them(sandbox, manifest, tmp_path):
    assert run("dub", manifest, "--output-dir", tmp_path / "drafts", *HASTE, sandbox=sandbox).code == 0
    with reviewing("review", tmp_path / "rows.sqlite") as (_, url):
        visit(url, {"key": "row-1", "job": visit(url)["row-1"]["job"], "decision": "approved"})
    words = ("dub", manifest, "--approved", "--mode", "precision", "--output-dir", tmp_path / "final", "--dry-run")
    ran = run(*words, sandbox=sandbox)
    assert ran.answer["survey"]["to_submit"] == 1
    ran = run(*words[:-1], "--budget", "0", sandbox=sandbox)
    [command] = ran.answers[-1]["summary"]["next_commands"]
    assert "--approved --mode precision" in command


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("rows.csv", "name the .sqlite file beside it"),
        ("nope.sqlite", "beside its manifest"),
        ("folder", "beside its manifest"),
    ],
)
def test_a_path_that_is_not_of_a_journal_is_an_error_of_usage(manifest, tmp_path, name, advice):
    (tmp_path / "folder").mkdir()
    ran = run("review", tmp_path / name, "--no-open")

    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert advice in ran.error["message"]


def test_a_journal_that_cannot_be_used_for_another_reason_is_no_error_of_usage(journal):
    with contextlib.closing(sqlite3.connect(journal)) as database:
        database.execute("PRAGMA user_version = 99")
    ran = run("review", journal, "--no-open")

    assert (ran.code, ran.error["code"]) == (1, "journal_error")
    assert "another version" in ran.error["message"]
