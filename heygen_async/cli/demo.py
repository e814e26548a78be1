"""`heygen-async demo`: three videos dubbed at once, in a local sandbox, with real files."""

from __future__ import annotations

import asyncio
import filecmp
import os
from collections.abc import Coroutine, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, get_args

from attrs import define
from rich.console import Console
from rich.table import Table
from rich.text import Text

from heygen_async import HeyGenSession, PollPolicy
from heygen_async._media.sniffing import Role
from heygen_async._task_group import TaskGroup
from heygen_async._text import one_line, whole_characters
from heygen_async.cli.create_request import check_file
from heygen_async.cli.live import is_watched, live
from heygen_async.cli.options import PathFlag, Printing
from heygen_async.cli.output import note, print_json_line, wants_json
from heygen_async.cli.problems import Problems
from heygen_async.models import JSON
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox

LANGUAGES: Final = ("French", "German", "Spanish")
JOB_SECONDS: Final = (20.0, 35.0, 50.0)
SPEED: Final = 10.0

PROGRAM: Final = """\
import asyncio
from pathlib import Path

from heygen_async import HeyGenSession


async def main():
    async with HeyGenSession() as heygen:
        lipsync = await heygen.dub(video=Path({video!r}), audio=Path({audio!r}), output="dubbed.mp4")
        print(lipsync.status, lipsync.duration)


asyncio.run(main())"""

_COLOURS: Final = {"completed": "green", "failed": "red", "running": "yellow"}


@define
class _Dub:
    """One video, as the table shows it."""

    title: str
    path: Path
    lipsync_id: str | None = None
    state: str = "uploading"
    size: int = 0
    duration: float | None = None


def demo(
    *,
    video: PathFlag | None = None,
    audio: PathFlag | None = None,
    output_dir: PathFlag = Path("dubbed"),
    options: Printing = Printing(),  # noqa: B008 frozen
) -> Coroutine[Any, Any, None]:
    """Dub three videos at once in a local sandbox: no API key, no network, no costs.

    The sandbox answers as HeyGen does, ten times as fast. It does not move lips: each video comes back as it was sent.

    Example: heygen-async demo --video my.mp4 --audio my.wav

    Args:
        video: Your own video, MP4 or WebM; without it, one that comes with the package.
        audio: Your own audio, MP3 or WAV; without it, one that comes with the package.
        output_dir: The folder to write to. It is created if missing; files of an earlier demo of the same video are
            replaced, and no others.
    """
    sources = video or SAMPLE_VIDEO, audio or SAMPLE_AUDIO
    problems = Problems()
    for role, source in zip(get_args(Role), sources, strict=True):
        with problems.at(f"--{role}"):
            check_file(source, role)
    problems.check()
    dubs = _dubs(sources[0], output_dir)
    with problems.at("--output-dir"):
        _make_folder(output_dir)
        problems.add("--output-dir", *_in_the_way(sources[0], dubs))
    problems.check()
    return _demo(*sources, dubs, options)


def _dubs(video: Path, folder: Path) -> list[_Dub]:
    name = one_line(whole_characters(video.stem)) or "video"  # a file name may hold what no title may
    return [_Dub(f"{name}, {language}", folder / f"{video.stem}-{language.lower()}.mp4") for language in LANGUAGES]


def _make_folder(folder: Path) -> None:
    """Make the folder, unless it is there already.

    Raises:
        OSError: If it cannot be made.
        ValueError: If nothing can be written into it.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"the folder {folder} is not writable")


def _in_the_way(video: Path, dubs: list[_Dub]) -> Iterator[str]:
    """Yield the files that no demo has written, which may be paid for: a demo writes the video as it is."""
    for path in [dub.path for dub in dubs if dub.path.exists()]:
        if not path.is_file() or not filecmp.cmp(path, video, shallow=False):
            yield f"{path} was not written by a demo of this video: move it away, or give another folder"


async def _demo(video: Path, audio: Path, dubs: list[_Dub], options: Printing) -> None:
    async with (
        Sandbox(speed=SPEED, job_seconds=JOB_SECONDS) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, polling=PollPolicy.eager()) as heygen,
    ):
        note(f"Local sandbox: {sandbox.url}", options)
        with live(lambda: _table(dubs)) if is_watched(options) else nullcontext():
            async with TaskGroup() as group:
                for each in dubs:
                    group.create_task(_dub(heygen, video, audio, each))
    if wants_json(options.json):
        for each in dubs:
            print_json_line({"data": _object(each)})
    else:
        _print_for_people(video, audio, dubs)


def _object(dub: _Dub) -> JSON:
    details = {"status": dub.state, "duration": dub.duration, "path": str(dub.path), "size_bytes": dub.size}
    return {"id": dub.lipsync_id, "title": dub.title, **details}


def _print_for_people(video: Path, audio: Path, dubs: list[_Dub]) -> None:
    printer = Console()
    printer.print(_table(dubs))
    printer.print("\nOne such video by HeyGen, with your API key in HEYGEN_API_KEY; it costs credit:\n")
    printer.print(_program(video, audio), highlight=False, markup=False, soft_wrap=True)


async def _dub(heygen: HeyGenSession, video: Path, audio: Path, dub: _Dub) -> None:
    job = await heygen.lipsyncs.create(video=video, audio=audio, title=dub.title)
    dub.lipsync_id = job.id
    async for state in job.updates():
        dub.state = str(state)
    lipsync = await job.wait()
    await job.download(dub.path, overwrite=True)
    dub.size = (await asyncio.to_thread(dub.path.stat)).st_size
    dub.duration = lipsync.duration


def _table(dubs: list[_Dub]) -> Table:
    table = Table("Title", "State", "File")
    table.add_column("Size", justify="right")
    table.add_column("Plays", justify="right")
    for dub in dubs:
        colour = _COLOURS.get(dub.state, "dim")
        size = f"{dub.size / 1000:,.1f} kB" if dub.size else ""
        plays = f"{dub.duration:.1f} s" if dub.duration else ""
        table.add_row(
            Text(one_line(dub.title)), Text(dub.state, style=colour), Text(one_line(str(dub.path))), size, plays
        )
    return table


def _program(video: Path, audio: Path) -> str:
    return PROGRAM.format(video=str(video), audio=str(audio))
