"""What only a process of its own shows: signals, pipes, terminals, shells."""

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import orjson
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import SOURCES, running

from heygen_async.sandbox.faults import stall

# With -W error a connection that is left open makes a message that no test here expects.
COMMAND = (sys.executable, "-W", "error", "-c", "from heygen_async.cli import main; main()")
ONE = "GET /v3/lipsyncs/{lipsync_id}"


def start(*argv, sandbox=None, **options):
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    if sandbox is not None:
        environment |= {"HEYGEN_API_KEY": sandbox.api_key, "HEYGEN_BASE_URL": sandbox.url}
    environment |= options.pop("env", {})
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *argv], env=environment, **{**pipes, **options})


def run(*argv, **options):
    with start(*argv, **options) as process:
        out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def on_terminal(*argv, columns=100, **options):
    """Run a command on a terminal, and return its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False}
    environment = {"TERM": "xterm", "COLUMNS": str(columns), **options.pop("env", {})}
    with start(*argv, **terminal, env=environment, **options) as process:
        os.close(theirs)
        got = b"".join(iter(lambda: _read(ours), b""))
        code = process.wait(30)
    os.close(ours)
    return code, got.decode().replace("\r\n", "\n")


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end has gone
        return b""


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


# Ctrl-C


def test_ctrl_c_while_waiting_exits_130_names_the_job_and_leaves_nothing_open():
    with running(manual=True) as sandbox:
        process = start("lipsync", "create", *SOURCES, "--wait", "--poll-every", "0.02", sandbox=sandbox)
        until(lambda: any(request.method == "GET" for request in sandbox.requests))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        [job] = sandbox.jobs

    assert (process.returncode, out) == (130, "")
    assert orjson.loads(err)["error"]["code"] == "interrupted"
    assert f"heygen-async lipsync wait {job.id}" in orjson.loads(err)["error"]["hint"]


def test_ctrl_c_while_a_create_is_on_its_way_tells_its_key():
    with running(faults=[stall("POST /v3/lipsyncs", after=True)]) as sandbox:
        process = start("lipsync", "create", *SOURCES, sandbox=sandbox)
        until(lambda: sandbox.jobs)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        [request] = sandbox.requests

    assert (process.returncode, out) == (130, "")
    assert f"--idempotency-key {request.headers['Idempotency-Key']}" in orjson.loads(err)["error"]["hint"]


# Pipes


@pytest.mark.parametrize("argv", [("lipsync", "list", "--all"), ("lipsync", "create", "--help")], ids=" ".join)
def test_a_broken_pipe_is_silent(argv):
    reader, writer = os.pipe()
    os.close(reader)
    with running() as sandbox:
        code, _, err = run(*argv, sandbox=sandbox, stdout=writer)
    os.close(writer)

    assert (code, err) == (0, "")


# Terminals


def test_a_terminal_gets_lines_in_colour_and_no_json():
    with running(speed=1000) as sandbox:
        code, got = on_terminal("lipsync", "create", *SOURCES, "--wait", "--poll-every", "0.02", sandbox=sandbox)

    assert code == 0
    assert re.search(r"status\S* .*\x1b\[32mcompleted", got)
    assert f"created {sandbox.jobs[0].id}" in got
    assert "{" not in got


def test_no_color_is_heeded_and_an_error_is_a_line_and_a_hint():
    with running() as sandbox:
        code, got = on_terminal("lipsync", "get", "ls_none", sandbox=sandbox, env={"NO_COLOR": "1"})

    assert code == 1
    assert "\x1b" not in got
    assert got.splitlines()[0].startswith("heygen-async: 404")
    assert got.splitlines()[1].startswith("  hint: ")


def test_a_terminal_gets_json_if_it_asks_for_it():
    with running() as sandbox:
        code, got = on_terminal("lipsync", "list", "--json", sandbox=sandbox)

    assert code == 0
    assert orjson.loads(got) == {"data": [], "has_more": False, "next_token": None}


# Shells


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_that_the_shell_reads(shell, tmp_path):
    code, script, err = run("completion", shell)
    (tmp_path / "script").write_text(script)

    assert (code, err) == (0, "")
    assert "create" in script
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} to read it")
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=20)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"), [("lipsync cr", "create"), ("lipsync create --mo", "--mode"), ("comp", "completion")]
)
def test_bash_completes_commands_and_flags(words, expected, completion_script):
    line = shlex.join(["heygen-async", *words.split()])
    program = f"""
        source {completion_script}
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD={len(words.split())}
        function=$(complete -p heygen-async | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function heygen-async "" "" 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    completed = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, timeout=20)

    assert expected in completed.stdout.split()


@pytest.fixture(scope="module")
def completion_script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "heygen-async.bash"
    path.write_text(run("completion", "bash")[1])
    return path


# The sandbox


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_sandbox_prints_a_curl_line_that_works():
    ours, theirs = pty.openpty()
    with start("sandbox", "--port", "0", stdout=theirs) as process:
        os.close(theirs)
        got = b""
        while b"Ctrl-C" not in got:
            got += _read(ours)
        [curl] = re.findall(r"^ +(curl .*?)\n\n", got.decode().replace("\r\n", "\n"), re.MULTILINE | re.DOTALL)
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, check=True, timeout=20).stdout
        process.send_signal(signal.SIGTERM)
        code, err = process.wait(20), process.stderr.read()
    os.close(ours)

    assert orjson.loads(answer)["data"]["lipsync_id"]
    assert (code, err) == (143, "heygen-async: interrupted by SIGTERM\n")


def test_the_sandbox_tells_a_script_where_it_is_and_ctrl_c_ends_it():
    with start("sandbox", "--port", "0") as process:
        told = orjson.loads(process.stdout.readline())["data"]
        environment = {"HEYGEN_API_KEY": told["api_key"], "HEYGEN_BASE_URL": told["base_url"]}
        code, out, _ = run("account", env=environment)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()

    assert (code, orjson.loads(out)["data"]["username"]) == (0, "sandbox")
    assert process.returncode == 130
    assert orjson.loads(err)["error"]["code"] == "interrupted"


# The extra


def test_without_the_extra_it_says_what_to_install():
    program = "import sys; sys.modules['cyclopts'] = None; from heygen_async.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20)

    assert done.returncode == 1
    assert "pip install 'heygen-async[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
