"""`heygen-async demo`: three videos dubbed at once, in a sandbox on this machine, with real files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from attrs import define
from rich.console import Console
from rich.live import Live
from rich.table import Table

from heygen_async import HeyGenSession, PollPolicy
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox

LANGUAGES: Final = ("French", "German", "Spanish")
JOB_SECONDS: Final = (20.0, 35.0, 50.0)
SPEED: Final = 10.0

PROGRAM: Final = """\
async with HeyGenSession() as heygen:
    lipsync = await heygen.dub(video=Path({video!r}), audio=Path({audio!r}), output="dubbed.mp4")
    print(lipsync.title, lipsync.duration)"""

_COLOURS: Final = {"completed": "green", "failed": "red", "running": "yellow"}


@define
class _Dub:
    """One video on its way, as the table shows it."""

    title: str
    path: Path
    state: str = "uploading"
    size: int = 0
    duration: float | None = None


async def demo(*, video: Path | None = None, audio: Path | None = None, output_dir: Path = Path("dubbed")) -> None:
    """Dub three videos at once, on this machine: no key, no network, nothing to pay.

    A sandbox is started that answers as HeyGen does, ten times as fast. It does not move lips: each video comes
    back as it was sent.

    Example: heygen-async demo --video my.mp4 --audio my.wav

    Args:
        video: Your own video, MP4 or WebM; without it, one that comes with the package.
        audio: Your own audio, MP3 or WAV; without it, one that comes with the package.
        output_dir: Where the dubbed videos go. It is made if it is not there; files of an earlier demo are replaced.
    """
    video, audio = video or SAMPLE_VIDEO, audio or SAMPLE_AUDIO
    await asyncio.to_thread(output_dir.mkdir, parents=True, exist_ok=True)
    dubs = [
        _Dub(f"{video.stem}, {language}", output_dir / f"{video.stem}-{language.lower()}.mp4") for language in LANGUAGES
    ]
    screen = Console(stderr=True)
    async with (
        Sandbox(speed=SPEED, job_seconds=JOB_SECONDS) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, polling=PollPolicy.eager()) as heygen,
    ):
        screen.print(f"A HeyGen on this machine: {sandbox.url}", highlight=False)
        with Live(console=screen, get_renderable=lambda: _table(dubs), transient=True):
            async with asyncio.TaskGroup() as group:
                for each in dubs:
                    group.create_task(_dub(heygen, video, audio, each))
    printer = Console()
    printer.print(_table(dubs))
    printer.print("\nThe same with your key in HEYGEN_API_KEY, for real:\n")
    printer.print(_program(video, audio), highlight=False, soft_wrap=True)


async def _dub(heygen: HeyGenSession, video: Path, audio: Path, dub: _Dub) -> None:
    job = await heygen.lipsyncs.create(video=video, audio=audio, title=dub.title)
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
        table.add_row(dub.title, f"[{colour}]{dub.state}", str(dub.path), size, plays)
    return table


def _program(video: Path, audio: Path) -> str:
    return PROGRAM.format(video=video.name, audio=audio.name)
