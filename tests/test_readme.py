"""Every program in the README runs, unchanged, against the sandbox; its commands are what they say."""

import asyncio
import functools
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import orjson
import pytest

from heygen_async import DownloadError, HeyGenSession
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
PROGRAMS = [text for language, text in BLOCKS if language == "python"]


async def run(*command, folder, **environment):
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(50):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(PROGRAMS.index(program)))
async def test_a_program_of_the_readme_runs(program, tmp_path):
    shutil.copy(SAMPLE_VIDEO, tmp_path / "source.mp4")
    shutil.copy(SAMPLE_AUDIO, tmp_path / "new-audio.mp3")
    (tmp_path / "dub.py").write_text(program)
    async with Sandbox(speed=100) as sandbox:
        code, output = await run(
            sys.executable,
            "-W",
            "error",
            "dub.py",
            folder=tmp_path,
            HEYGEN_API_KEY=sandbox.api_key,
            HEYGEN_BASE_URL=sandbox.url,
        )
    assert code == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("wrong", "raised"),
    [
        ({"video": Path("new-audio.mp3")}, ValueError),
        ({"video": 7}, TypeError),
        ({"audio": Path("none.mp3")}, FileNotFoundError),
        ({"output": "source.mp4"}, DownloadError),
        ({"output": "none/dubbed.mp4"}, DownloadError),
    ],
    ids=["media type", "type", "no source", "existing output", "no folder"],
)
async def test_errors_before_anything_is_sent_are_those_of_the_readme(wrong, raised, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE_VIDEO, "source.mp4")
    shutil.copy(SAMPLE_AUDIO, "new-audio.mp3")
    async with Sandbox() as sandbox, HeyGenSession(sandbox.api_key, base_url=sandbox.url) as heygen:
        with pytest.raises(raised):
            await heygen.dub(**{"video": Path("source.mp4"), "audio": Path("new-audio.mp3")} | wrong)
        assert sandbox.requests == []


async def test_the_manifest_of_the_readme_is_dubbed_as_it_says(tmp_path):
    pytest.importorskip("cyclopts", reason="the command line is an extra")
    [manifest] = [text for language, text in BLOCKS if language == "csv"]
    [commands] = [text for language, text in BLOCKS if language == "bash" and "dub episodes.csv" in text]
    shutil.copy(SAMPLE_VIDEO, tmp_path / "source.mp4")
    shutil.copy(SAMPLE_AUDIO, tmp_path / "new-audio.mp3")
    (tmp_path / "episodes.csv").write_text(manifest)

    async with Sandbox(speed=100) as sandbox:
        keys = {"HEYGEN_API_KEY": sandbox.api_key, "HEYGEN_BASE_URL": sandbox.url}
        for command in commands.splitlines():
            words = command.removeprefix("heygen-async ").split()
            code, output = await run(sys.executable, "-m", "heygen_async.cli", *words, folder=tmp_path, **keys)
            assert code == 0, output

        assert len(sandbox.jobs) == 3
    assert sorted(path.name for path in (tmp_path / "dubbed").iterdir()) == [
        "ep-1-de.mp4",
        "ep-1-fr.mp4",
        "ep-2-fr.mp4",
    ]
    assert (tmp_path / "episodes.sqlite").exists()
    assert (tmp_path / "episodes.report.csv").exists()


def test_the_first_commands_of_the_readme_are_the_demo_and_the_tests():
    commands = [text for language, text in BLOCKS if language == "bash"]
    assert commands[0].rstrip().endswith("heygen-async demo")
    assert commands[1].rstrip().endswith("-m pytest -q")


def test_every_command_of_the_readme_has_the_flags_that_it_is_given():
    pytest.importorskip("cyclopts", reason="the command line is an extra")
    from heygen_async.cli.app import make_app  # noqa: PLC0415 it is an extra

    lines = [line for language, text in BLOCKS if language in {"bash", "console"} for line in text.splitlines()]
    commands = [line.partition("heygen-async ")[2].removesuffix(" &") for line in lines if "heygen-async " in line]
    for command in commands:
        make_app().parse_args(shlex.split(command), exit_on_error=False, print_error=False)

    assert len(commands) > 20
    assert not [line for line in lines if " #" in line]  # which an interactive zsh takes for words of the command


async def test_the_sample_files_of_the_readme_are_copied(tmp_path):
    copies = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith("cp ")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    code, output = await run("sh", "-c", " && ".join(copies), folder=tmp_path, PATH=path)

    assert code == 0, output
    assert (tmp_path / "source.mp4").read_bytes() == SAMPLE_VIDEO.read_bytes()
    assert (tmp_path / "new-audio.mp3").read_bytes() == SAMPLE_AUDIO.read_bytes()


async def test_every_call_that_the_readme_lists_exists():
    listed = README.read_text(encoding="utf-8").partition("\n## The calls\n")[2].partition("\n## ")[0]
    async with HeyGenSession("key", base_url="http://127.0.0.1:9") as heygen:
        for calls in re.findall(r"^\| (`heygen.*?) \|", listed, re.MULTILINE):
            owner = heygen
            for call in re.findall(r"`([\w.]+)\(", calls):
                *owners, name = call.removeprefix("heygen.").split(".")
                owner = functools.reduce(getattr, owners, heygen if call.startswith("heygen.") else owner)
                assert callable(getattr(owner, name)), call


async def test_the_demo_writes_three_videos_that_play(tmp_path):
    pytest.importorskip("cyclopts", reason="the command line is an extra")
    code, output = await run(sys.executable, "-m", "heygen_async.cli", "demo", folder=tmp_path, COLUMNS="120")
    written = sorted((tmp_path / "dubbed").iterdir())
    assert code == 0, output
    assert [path.name for path in written] == ["sample-french.mp4", "sample-german.mp4", "sample-spanish.mp4"]
    assert all(path.read_bytes() == SAMPLE_VIDEO.read_bytes() for path in written)
    assert [orjson.loads(line)["data"]["status"] for line in output.splitlines()] == ["completed"] * 3
