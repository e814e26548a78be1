"""Commands as processes: on terminals, in shells, and without the extra."""

import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import SOURCES, Process, on_terminal, read_terminal, run, running, start

from heygen_async.sandbox import SAMPLE_VIDEO

# Terminals


def test_a_terminal_gets_lines_in_colour_and_no_json():
    with running(speed=1000) as sandbox:
        ran = on_terminal("lipsync", "create", *SOURCES, "--wait", "--poll-every", "0.02", sandbox=sandbox)

    assert ran.code == 0
    assert re.search(r"status\S* .*\x1b\[32mcompleted", ran.out)
    assert f"created {sandbox.jobs[0].id}" in ran.out
    assert "{" not in ran.out


def test_without_colours_an_error_is_a_line_and_a_hint():
    with running() as sandbox:
        ran = on_terminal("lipsync", "get", "ls_none", sandbox=sandbox, env={"NO_COLOR": "1"})

    assert ran.code == 1
    assert "\x1b" not in ran.out
    assert ran.out.splitlines()[0].startswith("heygen-async: 404")
    assert ran.out.splitlines()[1].startswith("  hint: ")


def test_a_terminal_gets_json_on_request():
    with running() as sandbox:
        ran = on_terminal("lipsync", "list", "--json", sandbox=sandbox)

    assert ran.code == 0
    assert orjson.loads(ran.out) == {"data": [], "has_more": False, "next_token": None}


@pytest.mark.parametrize("columns", ["1", "2", "3"])
@pytest.mark.parametrize("words", [("lipsync", "create"), ("dub",), ("cluster",), ()], ids=" ".join)
def test_help_ends_however_narrow_the_terminal_is(words, columns):
    ran = run(*words, "--help", env={"COLUMNS": columns})

    assert (ran.code, ran.err) == (0, "")
    assert "Usage" in ran.out


# Shells


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_that_the_shell_reads(shell, tmp_path):
    ran = run("completion", shell)
    (tmp_path / "script").write_text(ran.out)

    assert (ran.code, ran.err) == (0, "")
    assert "create" in ran.out
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


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("words", ["lipsync create --video ", "lipsync create -o ", "dub ", "review "])
@pytest.mark.parametrize("name", ["source.mp4", "two  words.mp4"])
def test_bash_completes_names_of_files(words, name, completion_script, tmp_path):
    (tmp_path / name).touch()
    typed = f"""source {completion_script}; heygen-async() {{ printf '<%s>' "$@"; }}
        heygen-async {words}{name[:3]}\t
        exit\n"""
    ours, theirs = pty.openpty()
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    environment = {**os.environ, "INPUTRC": os.devnull, "TERM": "dumb"}
    with Process(["bash", "--norc", "--noprofile", "-i"], **terminal, cwd=tmp_path, env=environment):
        os.close(theirs)
        os.write(ours, typed.encode())
        got = b"".join(iter(lambda: read_terminal(ours), b""))
    os.close(ours)

    assert f"<{name}>" in got.decode()


def test_zsh_finds_the_function_that_it_loads_from_a_file_of_its_name():
    defined = re.findall(r"^([\w-]+)\(\) \{", run("completion", "zsh").out, re.MULTILINE)

    assert defined[0] == "_heygen-async"


@pytest.mark.parametrize("flag", ["--video", "--audio", "--data", "--output"])
def test_zsh_completes_names_of_files(flag):
    values = re.findall(rf"'\*{flag}\[.*\]:\S*", run("completion", "zsh").out)

    assert {value.rpartition(":")[2] for value in values} == {"_files'"}


@pytest.fixture(scope="module")
def completion_script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "heygen-async.bash"
    path.write_text(run("completion", "bash").out)
    return path


# The sandbox


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_sandbox_prints_a_curl_line_that_works():
    ours, theirs = pty.openpty()
    with start("sandbox", "--port", "0", stdout=theirs) as process:
        os.close(theirs)
        got = b""
        while b"Ctrl-C" not in got:
            got += read_terminal(ours)
        [curl] = re.findall(r"^ +(curl .*?)\n\n", got.decode().replace("\r\n", "\n"), re.MULTILINE | re.DOTALL)
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, check=True, timeout=20).stdout
        process.send_signal(signal.SIGTERM)
        code, err = process.wait(20), process.stderr.read()
    os.close(ours)

    assert orjson.loads(answer)["data"]["lipsync_id"]
    assert (code, err) == (143, "heygen-async: interrupted by SIGTERM\n")


def test_the_sandbox_prints_its_address_for_a_script():
    with start("sandbox", "--port", "0") as process:
        printed = orjson.loads(process.stdout.readline())["data"]
        environment = {"HEYGEN_API_KEY": printed["api_key"], "HEYGEN_BASE_URL": printed["base_url"]}
        account = run("account", env=environment)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()

    assert (account.code, account.answer["data"]["username"]) == (0, "sandbox")
    assert process.returncode == 130
    assert orjson.loads(err)["error"]["code"] == "interrupted"


@pytest.mark.parametrize(
    "words",
    [
        ("sandbox", "--port", "99999"),
        ("sandbox", "--port=-1"),
        ("sandbox", "--host", "none.invalid"),
        ("webhook", "listen", "--unsigned", "--port", "70000"),
        ("webhook", "listen", "--unsigned", "--port=-1"),
        ("sandbox", "--job-seconds", "nan"),
        ("sandbox", "--account-limit=-1"),
        ("sandbox", "--balance=nan"),
        ("sandbox", "--record", "https://api.heygen.com", "--into", "recordings", "--port", "99999"),
        ("review", "run.sqlite", "--port", "99999"),
    ],
    ids=" ".join,
)
def test_numbers_that_make_no_sense_are_errors_of_usage(words):
    ran = run(*words)

    assert (ran.code, ran.error["code"], "Traceback" in ran.err) == (2, "usage", False)


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--output-dir", "{file}"),
        ("demo", "--output-dir", "{file}/dubbed"),
        ("sandbox", "--record", "https://api.heygen.com", "--port", "0", "--into", "{file}"),
    ],
    ids=" ".join,
)
def test_a_file_in_place_of_a_folder_is_an_error_of_usage_with_its_flag(words, tmp_path):
    (tmp_path / "file").touch()
    ran = run(*(word.format(file=tmp_path / "file") for word in words))

    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert ran.error["message"].startswith(words[-2])


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("dub", "rows.csv", "--journal", "", "--dry-run"), "--journal"),
        (("dub", "rows.csv", "--output-dir", "", "--dry-run"), "--output-dir"),
        (("demo", "--video="), "--video"),
        (("sandbox", "--replay", ""), "--replay"),
        (("sandbox", "--replay", "nowhere"), "--replay"),
        (("sandbox", "--replay", "file"), "--replay"),
        (("sandbox", "--record", "https://[::1", "--into", "r"), "--record"),
        (("sandbox", "--record", "https://api.example:99999", "--into", "r"), "--record"),
        (("sandbox", "--record", "api.example", "--into", "r"), "--record"),
        (("sandbox", "--record", "https://api.example", "--into", "r", "--speed", "60"), "--speed"),
        (("sandbox", "--record", "https://api.example", "--into", "r", "--api-key", "mine"), "--api-key"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_is_an_error_of_usage_with_its_flag(words, flag, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "rows.csv").write_text("video,audio\nhttps://example.com/v.mp4,https://example.com/a.mp3\n")
    ran = run(*words, cwd=tmp_path)

    assert (ran.code, ran.error["code"], ran.out) == (2, "usage", "")
    assert re.match(f"(Invalid value for )?{flag}: ", ran.error["message"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "rows.csv"]


@pytest.mark.parametrize("key", ["", "  ", "\n", " \t "])
def test_a_blank_key_is_no_key(key):
    ran = run("lipsync", "list", env={"HEYGEN_API_KEY": key, "HEYGEN_BASE_URL": "http://127.0.0.1:9"})

    assert (ran.code, ran.error["code"]) == (3, "missing_key")
    assert ran.error["message"].startswith("there is no API key")


@pytest.mark.parametrize(
    ("flags", "address"),
    [(("--base-url", "https://api.example"), "http://127.0.0.1:9"), ((), "https://api.example")],
    ids=["flag", "environment"],
)
def test_a_command_that_may_reach_this_machine_only_says_so(flags, address):
    env = {"HEYGEN_API_KEY": "k", "HEYGEN_LOOPBACK_ONLY": "1", "HEYGEN_BASE_URL": address}
    ran = run("account", *flags, env=env)

    assert (ran.code, ran.error["code"], ran.out) == (2, "usage", "")
    assert ran.error["message"].startswith("HEYGEN_LOOPBACK_ONLY is set")


@pytest.mark.parametrize("key", ["sand box", "sandbox-kéy", "sand\tbox"])
def test_a_key_that_cannot_be_one_is_a_wrong_key_and_is_not_shown(key):
    ran = run("account", env={"HEYGEN_API_KEY": key, "HEYGEN_BASE_URL": "http://127.0.0.1:9"})

    assert (ran.code, ran.error["code"]) == (3, "wrong_key")
    assert ran.error["message"] == "HEYGEN_API_KEY must be printable ASCII without spaces"
    assert key not in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("dub", "rows.csv", "--dry-run"),
        ("lipsync", "create", "--video", "pipe.mp4", "--audio", "https://example.com/a.mp3"),
        ("asset", "upload", "pipe.mp4"),
    ],
    ids=" ".join,
)
def test_a_named_pipe_is_refused_with_advice_that_fits_every_command(words, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "rows.csv").write_text("video,audio\npipe.mp4,https://example.com/a.mp3\n")
    ran = run(*words, cwd=tmp_path, env={"HEYGEN_API_KEY": "k", "HEYGEN_BASE_URL": "http://127.0.0.1:9"})

    assert ran.code == 2
    assert ran.error["message"].endswith("pipe.mp4 is not a regular file; write its content to a file first")


@pytest.mark.parametrize("command", [("sandbox",), ("webhook", "listen", "--unsigned")], ids=" ".join)
def test_a_port_that_is_in_use_is_named_with_its_flag(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run(*command, "--port", port)

    assert (ran.code, ran.out) == (1, "")
    assert ran.error["message"] == f"port {port} is in use; give another one with --port"


def test_a_demo_replaces_no_file_but_its_own(tmp_path):
    paid = tmp_path / "dubbed" / "sample-german.mp4"
    paid.parent.mkdir()
    paid.write_bytes(b"paid")
    ran = run("demo", cwd=tmp_path)

    assert (ran.code, ran.error["code"], paid.read_bytes()) == (2, "usage", b"paid")
    assert ran.error["message"].startswith("--output-dir: dubbed/sample-german.mp4 was not written by a demo")
    paid.unlink()
    assert [run("demo", cwd=tmp_path).code for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (b"caf\xe9.mp4", "caf\N{REPLACEMENT CHARACTER}"),
        (b"two\nlines.mp4", "two lines"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}.mp4".encode(), "video"),
    ],
)
def test_a_demo_takes_a_video_with_any_name(name, title, tmp_path):
    video = tmp_path / os.fsdecode(name)
    video.write_bytes(SAMPLE_VIDEO.read_bytes())
    ran = run("demo", "--video", video, "--output-dir", tmp_path / "out")

    assert ran.code == 0
    assert ran.answers[0]["data"]["title"] == f"{title}, French"
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_demo_prints_each_video_as_a_line_of_json(tmp_path):
    ran = run("demo", "--output-dir", tmp_path)
    found = [answer["data"] for answer in ran.answers]

    assert (ran.code, ran.err) == (0, "")
    assert [one["title"] for one in found] == ["sample, French", "sample, German", "sample, Spanish"]
    assert {one["path"] for one in found} == {str(path) for path in tmp_path.iterdir()}
    assert all(one["status"] == "completed" and one["duration"] == 4.0 and one["id"] for one in found)


@pytest.mark.parametrize("name", [None, "it's mine.mp4", "\N{KATAKANA LETTER A}\udce9.mp4"])
def test_the_program_that_a_demo_prints_runs_as_it_is(name, tmp_path):
    video = () if name is None else ("--video", "videos/" + name)
    for _, path in [video] * bool(video):
        (tmp_path / "videos").mkdir()
        (tmp_path / path).write_bytes(SAMPLE_VIDEO.read_bytes())
    ran = on_terminal("demo", *video, cwd=tmp_path)
    program = ran.out.partition("it costs credit:\n\n")[2]
    with running(speed=1000) as sandbox:
        keys = {"HEYGEN_API_KEY": sandbox.api_key, "HEYGEN_BASE_URL": sandbox.url}
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **keys}, cwd=tmp_path, check=True, timeout=30
        )

    assert (tmp_path / "dubbed.mp4").read_bytes() == SAMPLE_VIDEO.read_bytes()


def test_a_demo_into_what_is_no_folder_is_misuse(tmp_path):
    (tmp_path / "file").touch()
    ran = run("demo", "--output-dir", tmp_path / "file")

    assert (ran.code, ran.error["message"]) == (2, f"--output-dir: {tmp_path / 'file'} is not a folder")


def test_a_demo_into_a_folder_that_is_not_writable_is_misuse_before_it_begins():
    program = (
        "import os, sys; from pathlib import Path; from heygen_async.cli.demo import demo\n"
        "if os.geteuid() == 0:  # root may write all, and others may not read what would be imported later\n"
        "    demo(output_dir=Path(sys.argv[1])).close(); os.setuid(65534)\n"
        "try: demo(output_dir=Path(sys.argv[1]))\n"
        "except ValueError as bad: print(*bad.problems)"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", program, folder]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)

    assert f"the folder {folder} is not writable" in ran.stdout


@pytest.mark.parametrize(("flags", "is_table"), [((), True), (("--json",), False)])
def test_at_a_terminal_a_demo_shows_a_table_unless_json_is_wanted(flags, is_table, tmp_path):
    ran = on_terminal("demo", "--output-dir", tmp_path, *flags)

    assert ran.code == 0
    assert ("await heygen.dub(" in ran.out) is is_table
    assert ('{"data":{"id":' in ran.out) is not is_table


# The extra


def test_without_the_extra_the_error_names_it():
    program = "import sys; sys.modules['cyclopts'] = None; from heygen_async.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20)

    assert done.returncode == 1
    assert "pip install 'heygen-async[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
