"""SIGINT, SIGTERM and SIGHUP, on commands as processes: orderly, with the way to continue, and in time."""

import array
import csv
import fcntl
import os
import pty
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import termios
import time

import orjson
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import AUDIO_URL, QUICK, SOURCES, VIDEO_URL, free_port, read_terminal, run, running, until
from cli_sandbox import start as start_process

from heygen_async.sandbox.faults import stall

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
each_signal = pytest.mark.parametrize(("number", "code"), SIGNALS.items(), ids=[number.name for number in SIGNALS])


@pytest.fixture
def start():
    """Start commands that end with the test, at the latest."""
    processes = []

    def begin(*argv, **options):
        processes.append(start_process(*argv, **options))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def error(err):
    return orjson.loads(err.splitlines()[-1])["error"]


@pytest.fixture
def patient():
    """A sandbox in which no job ends."""
    with running(manual=True) as sandbox:
        yield sandbox


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "episodes.csv"
    rows = [f"ep-{number},{VIDEO_URL}?n={number},{AUDIO_URL}" for number in range(3)]
    path.write_text("\n".join(["key,video,audio", *rows]))
    return path


def polled(sandbox):
    return any(request.method == "GET" for request in sandbox.requests)


# One signal


@each_signal
def test_a_create_that_waits_names_its_job(start, number, code, patient):
    process = start("lipsync", "create", *SOURCES, "--wait", *QUICK, sandbox=patient)
    until(lambda: polled(patient))
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    [job] = patient.jobs

    assert (process.returncode, out) == (code, "")
    assert error(err)["code"] == "interrupted"
    assert f"heygen-async lipsync wait {job.id}" in error(err)["hint"]
    assert len(err.splitlines()) == 1


def test_a_wait_says_how_to_wait_again(start, patient):
    ids = [run("lipsync", "create", *SOURCES, sandbox=patient).answer["data"]["lipsync_id"], "ls_2"]
    before = len(patient.requests)
    process = start("lipsync", "wait", *ids, *QUICK, sandbox=patient)
    until(lambda: len(patient.requests) > before + 2)
    process.terminate()
    _, err = process.communicate(timeout=20)

    assert process.returncode == 143
    assert f"heygen-async lipsync wait {' '.join(ids)}" in error(err)["hint"]


def test_a_create_with_an_output_says_how_to_download(start, patient, tmp_path):
    process = start("lipsync", "create", *SOURCES, "-o", tmp_path / "out.mp4", *QUICK, sandbox=patient)
    until(lambda: polled(patient))
    process.terminate()
    _, err = process.communicate(timeout=20)
    [job] = patient.jobs

    assert error(err)["hint"].endswith(f"&& heygen-async lipsync download {job.id} -o {tmp_path / 'out.mp4'}")


def test_a_create_without_an_answer_names_its_key(start):
    with running(faults=[stall("POST /v3/lipsyncs", after=True)]) as sandbox:
        process = start("lipsync", "create", *SOURCES, sandbox=sandbox)
        until(lambda: sandbox.jobs)
        process.terminate()
        out, err = process.communicate(timeout=20)
        [request] = sandbox.requests

    assert (process.returncode, out) == (143, "")
    assert f"--idempotency-key {request.headers['Idempotency-Key']}" in error(err)["hint"]


@each_signal
def test_a_run_leaves_a_report_a_clean_journal_and_a_summary(start, number, code, patient, manifest):
    folder = manifest.parent
    process = start("dub", manifest, "--output-dir", folder / "out", *QUICK, sandbox=patient)
    until(lambda: len(patient.jobs) == 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    with (folder / "episodes.report.csv").open(newline="", encoding="utf-8-sig") as file:
        reported = list(csv.DictReader(file))
    database = sqlite3.connect(folder / "episodes.sqlite")
    kept = {row[0] for row in database.execute("SELECT lipsync_id FROM rows")}
    database.close()

    assert process.returncode == code
    assert "run the same command again" in error(err)["hint"]
    assert {row["lipsync_id"] for row in reported} == kept == {job.id for job in patient.jobs}
    assert orjson.loads(out.splitlines()[-1])["type"] == "summary"


@each_signal
def test_a_run_whose_manifest_is_a_silent_pipe_ends(start, number, code, patient, tmp_path):
    os.mkfifo(tmp_path / "rows.csv")
    process = start("dub", tmp_path / "rows.csv", "--journal", tmp_path / "run.sqlite", sandbox=patient)
    with (tmp_path / "rows.csv").open("w"):  # which waits until it is read
        process.send_signal(number)
        _, err = process.communicate(timeout=20)

    assert process.returncode == code
    assert error(err)["code"] == "interrupted"


def test_a_demo_ends(start, tmp_path):
    process = start("demo", "-v", "--output-dir", tmp_path / "out", stdout=subprocess.DEVNULL)
    until(lambda: "created lipsync" in process.stderr.readline())
    process.terminate()
    _, err = process.communicate(timeout=20)

    assert process.returncode == 143
    assert "Traceback" not in err


def test_a_line_of_the_log_is_written_at_once_into_a_pipe_too(start, patient):
    process = start("lipsync", "create", *SOURCES, "--wait", "-v", sandbox=patient)
    until(lambda: "created lipsync" in process.stderr.readline())
    process.terminate()
    process.communicate(timeout=20)

    assert process.returncode == 143


# Processes that started with other handlers


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(start, patient):
    process = start("lipsync", "create", *SOURCES, "--wait", *QUICK, sandbox=patient, prefix=("nohup",))
    until(lambda: polled(patient))
    process.send_signal(signal.SIGHUP)
    before = len(patient.requests)
    until(lambda: len(patient.requests) > before + 3)
    assert process.poll() is None

    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert error(err)["code"] == "interrupted"


def test_a_background_job_of_a_script_ends_on_sigterm(start, patient):
    prefix = ("bash", "-c", "trap '' INT; exec \"$@\"", "bash")
    process = start("lipsync", "create", *SOURCES, "--wait", *QUICK, sandbox=patient, prefix=prefix)
    until(lambda: polled(patient))
    process.send_signal(signal.SIGINT)
    before = len(patient.requests)
    until(lambda: len(patient.requests) > before + 3)
    process.terminate()
    _, err = process.communicate(timeout=20)

    assert process.returncode == 143
    assert patient.jobs[0].id in error(err)["hint"]


NEW_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")


def can_unshare():
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NEW_NAMESPACE, "true"], check=False, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not can_unshare(), reason="no other process id namespace can be made")
@each_signal
def test_process_1_of_a_container_ends(start, number, code, patient):
    process = start(
        "lipsync",
        "create",
        *SOURCES,
        "--wait",
        *QUICK,
        sandbox=patient,
        prefix=NEW_NAMESPACE,
    )
    until(lambda: polled(patient))
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:  # noqa: PTH123
        os.kill(int(file.read()), number)
    _, err = process.communicate(timeout=20)

    assert process.returncode == code
    assert patient.jobs[0].id in error(err)["hint"]


@pytest.mark.skipif(shutil.which("timeout") is None, reason="there is no timeout")
def test_the_two_signals_of_timeout_are_one(start, patient, manifest, tmp_path):
    """It sends SIGTERM to its child, and then to the group that the child is in."""
    process = start("dub", manifest, *QUICK, sandbox=patient, prefix=("timeout", "--preserve-status", "60"))
    until(lambda: len(patient.jobs) == 3)
    process.terminate()
    out, err = process.communicate(timeout=20)

    assert process.returncode == 143
    assert "run the same command again" in error(err)["hint"]
    assert orjson.loads(out.splitlines()[-1])["type"] == "summary"
    assert (tmp_path / "episodes.report.csv").exists()


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
def test_a_run_whose_terminal_is_closed_leaves_a_report(start, patient, manifest):
    ours, theirs = pty.openpty()
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False, "env": {"TERM": "xterm"}}
    process = start("dub", manifest, *QUICK, sandbox=patient, prefix=("setsid", "--ctty"), **terminal)
    os.close(theirs)
    until(lambda: len(patient.jobs) == 3)
    os.close(ours)  # the kernel sends SIGHUP, and writing fails
    process.wait(20)

    assert process.returncode == 129
    assert (manifest.parent / "episodes.report.csv").exists()


# A second signal


@pytest.mark.parametrize("second", SIGNALS, ids=lambda number: number.name)
def test_a_second_signal_ends_it_at_once(start, second, manifest):
    with running(faults=[stall("POST /v3/lipsyncs")]) as sandbox:
        process = start("dub", manifest, sandbox=sandbox)
        until(lambda: any(request.method == "POST" for request in sandbox.requests))
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)  # it waits for the answer, up to 5 seconds
        process.send_signal(second)
        process.communicate(timeout=4)

    assert process.returncode == 128 + second


def test_a_second_signal_ends_a_command_whose_output_nobody_reads(start, patient):
    """Writing to a full pipe blocks the event loop, so the handler must not need the loop."""
    run("lipsync", "create", *SOURCES, "--title", "T" * 9000, sandbox=patient)
    process = start("lipsync", "list", "--all", sandbox=patient)
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    until(lambda: _is_full(process.stdout))
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert process.returncode == 143


def _is_full(pipe):
    held = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, held)
    return held[0] >= fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


# Servers


HALF_A_REQUEST = b"POST /v3/lipsyncs HTTP/1.1\r\nHost: a\r\nX-Api-Key: sandbox-key\r\nContent-Length: 99\r\n\r\n{"


@pytest.mark.parametrize("server", ["sandbox", "listen"])
@pytest.mark.parametrize(
    ("clients", "number"),
    [
        ("none", signal.SIGHUP),
        ("idle", signal.SIGINT),
        ("keep-alive", signal.SIGTERM),
        ("half a request", signal.SIGINT),
    ],
)
def test_a_server_ends_at_once_whoever_is_connected(start, server, clients, number):
    port = free_port()
    argv = {"sandbox": ("sandbox",), "listen": ("webhook", "listen", "--unsigned")}[server]
    process = start(*argv, "--port", port)
    connections = [_connection(port) for _ in range(0 if clients == "none" else 3)]
    _connection(port).close()
    for connection in connections:
        if clients == "keep-alive":
            connection.sendall(b"OPTIONS /v3/x HTTP/1.1\r\nHost: a\r\nX-Api-Key: k\r\n\r\n")
            assert connection.recv(9).startswith(b"HTTP/1.1")
        elif clients == "half a request":
            connection.sendall(HALF_A_REQUEST)
    process.send_signal(number)
    process.communicate(timeout=20)
    for connection in connections:
        connection.close()

    assert process.returncode == SIGNALS[number]


def _connection(port):
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_terminal_gets_its_cursor_back(start, signals, patient):
    """A live view hides it."""
    ours, theirs = pty.openpty()
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False, "env": {"TERM": "xterm"}}
    process = start("lipsync", "create", *SOURCES, "--wait", *QUICK, sandbox=patient, **terminal)
    os.close(theirs)
    until(lambda: polled(patient))
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
    got = b"".join(iter(lambda: read_terminal(ours), b""))
    process.wait(20)
    os.close(ours)

    assert process.returncode == 130
    assert got.rindex(b"\x1b[?25h") > got.rindex(b"\x1b[?25l")


def test_a_run_that_is_interrupted_on_a_terminal_ends_with_a_summary_and_the_next_command(start, patient, manifest):
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "80"}
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False, "env": environment}
    process = start("dub", manifest, *QUICK, sandbox=patient, **terminal)
    os.close(theirs)
    until(lambda: len(patient.jobs) == 3)
    process.send_signal(signal.SIGINT)
    got = b"".join(iter(lambda: read_terminal(ours), b"")).decode().replace("\r\n", "\n")
    process.wait(20)
    os.close(ours)
    end = got[got.index("3 in progress in 0:0") :].splitlines()

    assert process.returncode == 130
    assert "$0.00 spent" in end[0]
    assert end[-4:] == [
        "Continue:",
        f"  heygen-async dub {manifest}",
        "heygen-async: interrupted",
        "  hint: run the same command again to continue; submitted jobs keep running",
    ]


WITHOUT_SIGNAL_HANDLERS = """
import asyncio

class Loop(asyncio.SelectorEventLoop):
    def add_signal_handler(self, *arguments):
        raise NotImplementedError

    def remove_signal_handler(self, *arguments):
        raise NotImplementedError

class Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = Loop

asyncio.set_event_loop_policy(Policy())
from heygen_async.cli import main
main()
"""


def test_a_loop_without_signal_handlers_is_interrupted_too(start, patient):
    """Windows has such a loop. Every poll wakes it."""
    program = ("bash", "-c", 'exec "$0" -c "$1" "${@:7}"', sys.executable, WITHOUT_SIGNAL_HANDLERS)
    process = start("lipsync", "create", *SOURCES, "--wait", *QUICK, sandbox=patient, prefix=program)
    until(lambda: polled(patient))
    process.terminate()
    _, err = process.communicate(timeout=20)

    assert process.returncode == 143
    assert patient.jobs[0].id in error(err)["hint"]
