"""How a command starts: it imports what it needs, and help imports nearly nothing."""

import subprocess
import sys

import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import run, running

from heygen_async.cli.app import COMMANDS, make_app

PROGRAM = """
import sys
from heygen_async.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*sorted(sys.modules), file=open("modules", "w"))
"""
OURS = {"heygen_async", "heygen_async._arguments", "heygen_async._text", "heygen_async._version"}
FRAME = OURS | {"heygen_async.errors", "heygen_async.policies"}
"""What of the package the frame of the command line needs, beside `heygen_async.cli`."""

_LATER = ("_calls", "_media.sources", "_media.targets", "bulk", "polling", "resources", "sandbox")
NOT_FOR_A_GET = tuple(f"heygen_async.{part}" for part in _LATER)


def modules_of(folder, *argv, env=()):
    """Run a command in *folder*, and return its exit code and the modules that it imported."""
    environment = {"PATH": "", "COLUMNS": "80", **dict(env)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        cwd=folder,
        env=environment,
        capture_output=True,
        check=False,
        timeout=30,
    )
    return done.returncode, set((folder / "modules").read_text().split())


def parts_of(modules):
    """Return the modules of the package outside of the command line."""
    return {name for name in modules if name.partition(".")[0] == "heygen_async"} - commands_of(modules)


def commands_of(modules):
    return {name for name in modules if name.startswith("heygen_async.cli")}


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("--json", "--help"), ("--version",)], ids=str)
def test_the_list_of_commands_imports_none_of_them(argv, tmp_path):
    _, modules = modules_of(tmp_path, *argv)

    assert parts_of(modules) == FRAME
    assert not {path.partition(":")[0] for path, _ in COMMANDS.values()} & modules
    assert not {"aiohttp", "anyio", "asyncio", "cattrs", "orjson"} & modules


@pytest.mark.parametrize("argv", [("lipsync", "--help"), ("lipsync", "get", "--help"), ("lipsync", "gt")], ids=" ".join)
def test_help_and_misuse_of_a_command_open_no_session(argv, tmp_path):
    _, modules = modules_of(tmp_path, *argv)

    assert "heygen_async.cli.lipsync" in modules
    assert not {"aiohttp", "cattrs", "heygen_async.session"} & modules


def test_a_get_imports_only_what_it_needs(tmp_path):
    with running() as sandbox:
        environment = {"HEYGEN_API_KEY": sandbox.api_key, "HEYGEN_BASE_URL": sandbox.url}
        code, modules = modules_of(tmp_path, "lipsync", "get", "ls_none", env=environment)

    assert (code, len(sandbox.requests)) == (1, 1)
    assert "heygen_async.session" in modules
    assert not {"rich", "docstring_parser", "sqlite3", "cattrs", "anyio.streams"} & modules
    assert not {name for name in parts_of(modules) if name.startswith(NOT_FOR_A_GET)}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_text_of_a_command_in_the_list_is_the_first_line_of_its_help(name):
    command = make_app()[name]
    own_help = command.help or command.default_command.__doc__

    assert COMMANDS[name][1] == own_help.splitlines()[0]


@pytest.mark.parametrize(
    ("argv", "guess"),
    [
        (["lipsnc"], '"lipsync"'),
        (["webhok", "listen"], '"webhook"'),
        (["lipsync", "gt"], '"get"'),
        (["dub", "--buget", "3"], "--budget"),
        (["lipsync", "create", "--vido", "x"], "--video"),
    ],
    ids=str,
)
def test_a_typo_gets_a_guess(argv, guess):
    ran = run(*argv)

    assert (ran.code, ran.out) == (2, "")
    assert f"Did you mean {guess}" in ran.error["message"]
