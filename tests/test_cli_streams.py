"""Encodings, pipes and closed descriptors: they cost output at most, never the work or its exit code."""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import (
    AUDIO_URL,
    QUICK,
    SOURCES,
    VIDEO_URL,
    free_port,
    needs_dev_full,
    on_terminal,
    run,
    running,
    shell,
    start,
    until,
)

from heygen_async.cli.output import to_json
from heygen_async.cli.streams import read_input
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO

TITLE = "日本語 é 😀"


@pytest.fixture
def sandbox():
    with running(speed=1000) as started:
        yield started


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "episodes.csv"
    lines = [f"ep-{number},{VIDEO_URL}?n={number},{AUDIO_URL},{TITLE}" for number in range(3)]
    path.write_text("\n".join(["key,video,audio,title", *lines]))
    return path


# Encodings


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8:surrogateescape"])
def test_json_is_the_same_value_in_every_encoding(encoding, sandbox, tmp_path):
    target = tmp_path / "out.mp4"
    with open(tmp_path / "printed", "wb") as file:  # noqa: PTH123 a descriptor is wanted
        argv = ("lipsync", "create", *SOURCES, "--title", TITLE, "--wait", "-o", target, *QUICK)
        ran = run(*argv, sandbox=sandbox, env={"PYTHONIOENCODING": encoding}, stdout=file)
    printed = (tmp_path / "printed").read_bytes().decode(encoding.partition(":")[0])

    assert (ran.code, ran.err) == (0, "")
    assert orjson.loads(printed)["data"]["title"] == TITLE
    assert target.read_bytes() == SAMPLE_VIDEO.read_bytes()


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_text_for_people_has_escapes_for_what_the_encoding_lacks(encoding, sandbox):
    ran = on_terminal(
        "lipsync",
        "create",
        *SOURCES,
        "--title",
        "日本",
        "--wait",
        *QUICK,
        sandbox=sandbox,
        env={"PYTHONIOENCODING": encoding},
    )

    assert ran.code == 0
    assert "\\u65e5\\u672c" in ran.out
    assert "Traceback" not in ran.out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_errors_are_printed_in_every_encoding(encoding):
    ran = run("lipsync", "create", "--video", "日本.mp4", "--audio", "\udcff.mp3", env={"PYTHONIOENCODING": encoding})

    assert ran.code == 2
    assert "日本.mp4" in ran.error["message"]
    assert len(ran.error["problems"]) == 2


@pytest.mark.parametrize("words", [("lipsync", "create", *SOURCES, "--title", "café"), ("dub", "café.csv")], ids=str)
def test_where_the_locale_lacks_a_character_of_the_command_a_hint_says_what_to_do(words, tmp_path):
    (tmp_path / "café.csv").touch()
    ran = run(*words, cwd=tmp_path, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})

    assert ran.code == 2
    assert "PYTHONUTF8=1" in ran.error["hint"]


def test_a_file_name_that_is_not_utf_8_is_printed(sandbox, tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"\xff.mp4")  # noqa: PTH118 a pathlib path has no bytes
    ran = run("lipsync", "create", *SOURCES, "-o", os.fsdecode(name), *QUICK, sandbox=sandbox)
    again = run("lipsync", "download", sandbox.jobs[0].id, "-o", os.fsdecode(name), "--overwrite", sandbox=sandbox)

    assert (ran.code, again.code) == (0, 0)
    assert again.answer["data"]["path"].endswith("/\ufffd.mp4")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff.mp4"]  # noqa: PTH208 pathlib has no bytes


@pytest.mark.parametrize("char", ["\x7f", "\x9b", "\u202e", "\u2066", "\u2028"])
def test_json_has_escapes_for_what_a_terminal_obeys(char):
    for is_indented in (False, True):
        text = to_json({"title": f"a{char}b", "file": ["日本\n"]}, is_indented=is_indented)

        assert char not in text
        assert orjson.loads(text) == {"title": f"a{char}b", "file": ["日本\n"]}


# Pipes


@pytest.mark.parametrize(
    "argv",
    [("lipsync", "list", "--all"), ("lipsync", "create", "--help"), (), ("account",), ("lipsync", "list", "--json")],
    ids=" ".join,
)
def test_a_closed_pipe_is_silent(argv, sandbox):
    reader, writer = os.pipe()
    os.close(reader)
    ran = run(*argv, sandbox=sandbox, stdout=writer)
    os.close(writer)

    assert (ran.code, ran.err) == (0, "")


def test_a_create_into_a_closed_pipe_writes_its_file(sandbox, tmp_path):
    target = tmp_path / "out.mp4"
    ran = shell(
        '"$@" | true; exit "${PIPESTATUS[0]}"', "lipsync", "create", *SOURCES, "-o", target, *QUICK, sandbox=sandbox
    )

    assert (ran.code, ran.err) == (0, "")
    assert target.read_bytes() == SAMPLE_VIDEO.read_bytes()


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_run_into_a_closed_pipe_completes_every_row(reader, sandbox, manifest, tmp_path):
    script = f'"$@" | {reader} >/dev/null; exit "${{PIPESTATUS[0]}}"'
    ran = shell(script, "dub", manifest, "--json", "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)

    assert (ran.code, ran.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ep-0.mp4", "ep-1.mp4", "ep-2.mp4"]
    assert (tmp_path / "episodes.report.csv").exists()


def test_a_failed_row_shows_in_the_exit_code_though_nobody_reads(sandbox, manifest, tmp_path):
    manifest.write_text(manifest.read_text() + f"\nbad,https://sandbox.invalid/v.mp4?fail=No+face,{AUDIO_URL},Bad\n")
    script = '"$@" | true; exit "${PIPESTATUS[0]}"'
    ran = shell(script, "dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)

    assert ran.code == 1
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_listener_ends_when_its_reader_has_left():
    script = '"$@" | head -1 >/dev/null; exit "${PIPESTATUS[0]}"'
    port = free_port()
    argv = ("webhook", "listen", "--unsigned", "--port", port)
    with start(*argv, prefix=("bash", "-c", script, "bash")) as process:
        numbers = itertools.count()
        until(lambda: deliver(port, next(numbers)) is None and process.poll() is not None)
        _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")


def deliver(port, number):
    """Deliver an event if somebody listens, and return the status of the answer."""
    body = orjson.dumps({"event_id": f"evt_{number}", "event_type": "batch.finished", "event_data": {}})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hook", data=body, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


@needs_dev_full
def test_a_full_disk_under_the_output_is_an_error_after_the_work_is_done(sandbox, tmp_path):
    target = tmp_path / "out.mp4"
    with open("/dev/full", "wb") as full:  # noqa: PTH123 a descriptor is wanted
        ran = run("lipsync", "create", *SOURCES, "-o", target, *QUICK, sandbox=sandbox, stdout=full)

    assert ran.code == 1
    assert "standard output" in ran.error["message"]
    assert target.exists()


def run_into_a_full_disk(*argv, **options):
    with open("/dev/full", "wb") as full:  # noqa: PTH123 a descriptor is wanted
        return run(*argv, stdout=full, **options)


@needs_dev_full
@pytest.mark.parametrize("flags", [(), ("--wait", *QUICK)], ids=["create", "wait"])
def test_a_full_disk_under_the_output_does_not_cost_the_id_of_a_job(flags, sandbox):
    ran = run_into_a_full_disk("lipsync", "create", *SOURCES, *flags, sandbox=sandbox)
    job = sandbox.jobs[0].id

    assert ran.code == 1
    assert ran.error["hint"].startswith(f"{job} was created; ")
    assert ran.error["hint"].endswith(f": heygen-async lipsync wait {job}")


@needs_dev_full
def test_a_full_disk_under_the_output_does_not_cost_the_id_of_a_job_whose_video_is_written(sandbox, tmp_path):
    ran = run_into_a_full_disk("lipsync", "create", *SOURCES, "-o", tmp_path / "out.mp4", *QUICK, sandbox=sandbox)

    assert ran.code == 1
    assert sandbox.jobs[0].id in ran.error["hint"]
    assert (tmp_path / "out.mp4").exists()


@needs_dev_full
def test_a_full_disk_under_the_output_does_not_cost_the_id_of_an_asset(sandbox):
    ran = run_into_a_full_disk("asset", "upload", SAMPLE_AUDIO, sandbox=sandbox)

    assert ran.code == 1
    assert re.fullmatch(r"(\S+) was uploaded; to use it: asset:\1", ran.error["hint"])


@needs_dev_full
def test_a_full_disk_under_the_output_does_not_cost_the_secret_of_an_endpoint(sandbox):
    created = run_into_a_full_disk("webhook", "endpoints", "create", "https://example.com/hook", sandbox=sandbox)
    endpoint = run("webhook", "endpoints", "list", sandbox=sandbox).answer["data"][0]["endpoint_id"]
    rotated = run_into_a_full_disk("webhook", "endpoints", "rotate", endpoint, sandbox=sandbox)
    answers = [orjson.loads(ran.error["hint"].partition(": ")[2])["data"] for ran in (created, rotated)]

    assert (created.code, rotated.code) == (1, 1)
    assert [answer["endpoint_id"] for answer in answers] == [endpoint, endpoint]
    assert len({answer["secret"] for answer in answers}) == 2


@needs_dev_full
@pytest.mark.parametrize("flags", [(), ("--json",)], ids=str)
def test_a_listener_whose_output_cannot_be_written_ends_and_refuses_the_event(flags):
    port, statuses = free_port(), []
    with (
        open("/dev/full", "wb") as full,  # noqa: PTH123 a descriptor is wanted
        start("webhook", "listen", "--unsigned", "--port", port, *flags, stdout=full) as process,
    ):
        until(lambda: statuses.append(deliver(port, 1)) or statuses[-1] is not None)
        _, err = process.communicate(timeout=20)

    assert (statuses[-1], process.returncode) == (500, 1)
    assert "No space left on device" in orjson.loads(err.splitlines()[-1])["error"]["message"]


# Streams that are set not to block


def full_pipe():
    """Return both ends of a full pipe that is set not to block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b" " * 4096)
    return reader, writer


def read_all(reader):
    with open(reader, "rb") as file:  # noqa: PTH123 it is a descriptor
        return file.read().decode().strip()


def waits_for_its_reader(process):
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    return True


@pytest.mark.parametrize(
    "argv",
    [("lipsync", "create", *SOURCES, "--title", TITLE, "-o"), ("dub", "--output-dir")],
    ids=["create", "dub"],
)
def test_a_command_waits_for_a_slow_reader_of_a_pipe_that_does_not_block(argv, sandbox, manifest, tmp_path):
    out = tmp_path / "out"
    rows = [manifest] if argv[0] == "dub" else []
    reader, writer = full_pipe()
    with start(*argv, out, *rows, *QUICK, sandbox=sandbox, stdout=writer) as process:
        os.close(writer)
        until(out.exists)
        assert waits_for_its_reader(process)
        printed = read_all(reader)
        _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")
    assert [orjson.loads(line) for line in printed.splitlines()]
    assert out.is_file() or len(list(out.iterdir())) == 3


def test_a_long_list_is_not_cut_where_the_pipe_does_not_block(sandbox):
    for _ in range(8):
        run("lipsync", "create", *SOURCES, "--title", "x" * 9000, sandbox=sandbox)
    reader, writer = full_pipe()
    with start("lipsync", "list", sandbox=sandbox, stdout=writer) as process:
        os.close(writer)
        until(lambda: sandbox.requests[-1].method == "GET")
        assert waits_for_its_reader(process)
        listed = orjson.loads(read_all(reader))

    assert process.returncode == 0
    assert len(listed["data"]) == 8


def test_log_lines_wait_for_a_slow_reader_too(sandbox, tmp_path):
    argv = ("lipsync", "create", *SOURCES, "-o", tmp_path / "out.mp4", "-v", *QUICK)
    reader, writer = full_pipe()
    with start(*argv, sandbox=sandbox, stderr=writer) as process:
        os.close(writer)
        until(lambda: sandbox.jobs)
        assert waits_for_its_reader(process)
        logged = read_all(reader)
        process.communicate(timeout=20)

    assert process.returncode == 0
    assert sandbox.jobs[0].id in logged
    assert (tmp_path / "out.mp4").exists()


def test_a_reader_that_leaves_a_full_pipe_ends_the_wait(sandbox, tmp_path):
    target = tmp_path / "out.mp4"
    argv = ("lipsync", "create", *SOURCES, "-o", target, *QUICK)
    reader, writer = full_pipe()
    with start(*argv, sandbox=sandbox, stdout=writer) as process:
        os.close(writer)
        until(target.exists)
        assert waits_for_its_reader(process)
        os.close(reader)
        _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")


def test_input_is_read_to_its_end_where_it_does_not_block(monkeypatch):
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with open(reader, encoding="utf-8") as stdin, ThreadPoolExecutor(1) as pool:  # noqa: PTH123 it is a descriptor
        monkeypatch.setattr("sys.stdin", stdin)
        reading = pool.submit(read_input)
        with pytest.raises(TimeoutError):
            reading.result(0.1)
        for part in (b'{"video":', b' "a.mp4"}'):
            os.write(writer, part)
        os.close(writer)

        assert reading.result(20) == b'{"video": "a.mp4"}'


# Closed descriptors


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(closed, sandbox, manifest, tmp_path):
    target = tmp_path / "out.mp4"
    create = shell(f'exec "$@" {closed}', "lipsync", "create", *SOURCES, "-o", target, *QUICK, sandbox=sandbox)
    dub = shell(f'exec "$@" {closed}', "dub", manifest, "--output-dir", tmp_path / "out", *QUICK, sandbox=sandbox)
    listed = shell(f'exec "$@" {closed}', "lipsync", "list", sandbox=sandbox)

    assert [ran.code for ran in (create, dub, listed)] == [0, 0, 0]
    assert "Traceback" not in create.err + dub.err + listed.err
    assert target.read_bytes() == SAMPLE_VIDEO.read_bytes()
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
    "argv", [("lipsync", "delete", "ls_1"), ("lipsync", "create", "-d", "-"), ("frobnicate",)], ids=" ".join
)
@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_misuse_with_closed_streams_exits_2(argv, closed, sandbox):
    ran = shell(f'exec "$@" {closed}', *argv, sandbox=sandbox)

    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_no_file_of_a_run_gets_the_number_of_a_closed_stream(sandbox, tmp_path):
    """The journal would otherwise be descriptor 1, and a library that writes there would corrupt it."""
    shutil.copy(SAMPLE_AUDIO, tmp_path / "a.mp3")
    (tmp_path / "rows.csv").write_text(f"video,audio\n{VIDEO_URL},a.mp3\n")
    ran = shell('exec "$@" <&- >&- 2>&-', "dub", tmp_path / "rows.csv", *QUICK, sandbox=sandbox)
    check = ["sqlite3", tmp_path / "rows.sqlite", "PRAGMA integrity_check"]

    assert ran.code == 0
    if shutil.which("sqlite3"):
        assert subprocess.run(check, capture_output=True, text=True, check=True).stdout == "ok\n"


def test_the_package_and_the_command_line_are_runnable_modules():
    by_package = run("--version")

    assert by_package.code == 0
    assert by_package.out.strip()


# Windows


@pytest.mark.parametrize("columns", ["0", "00", ""])
def test_a_window_of_no_columns_is_one_of_unknown_size(columns, sandbox, manifest):
    helped = run("--help", env={"COLUMNS": columns})
    rehearsed = on_terminal("dub", manifest, "--sandbox", columns=columns, env={"LINES": "0"})
    made = run("lipsync", "create", *SOURCES, sandbox=sandbox).answer["data"]["lipsync_id"]
    listed = on_terminal("lipsync", "list", columns=columns, sandbox=sandbox)

    assert (helped.code, rehearsed.code, listed.code) == (0, 0, 0)
    assert "Usage: heygen-async COMMAND" in helped.out
    assert "Start the run:" in rehearsed.out
    assert made in listed.out
