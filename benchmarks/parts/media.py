"""1 GiB up and 1 GiB down on loopback: speed, CPU, memory, and the longest stall of the event loop.

Each round is a new process, so that one's memory is not another's. aiohttp by hand does what one would write: blocks of
256 kB, read and written in threads, no resume and no retries; a variant of it hashes what it sends, as the library
does. The library hashes a file while it sends it, and before if the file was changed less than a minute ago; a variant
of it does not hash, as if the content were known.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from benchmarks.bench import Bench, Clients, Rounds, Task
from benchmarks.contenders import BARE, OURS
from benchmarks.contenders.variants import KNOWN_CONTENT, NEW_FILE, WITH_DIGEST
from benchmarks.results import Figure, Table
from benchmarks.sample import Sample
from benchmarks.videos import video_blocks

MINUTES = 6.0
SMALL = 8 << 20
SETTLED = 61.0
"""Seconds after which the library knows that a file does not change any more."""
JOBS = {"ls_000000": 0.0}
"""While there are any, the server links videos of its own."""
DIGEST = WITH_DIGEST.name


async def measure(bench: Bench) -> list[Table]:
    """Measure both ways."""
    size = bench.pick(1 << 30, 33 << 20)
    with tempfile.TemporaryDirectory() as folder:
        small, whole = Path(folder, "small.mp4"), Path(folder, "whole.mp4")
        await asyncio.to_thread(_make, small, SMALL)
        await asyncio.to_thread(_make, whole, size)
        async with bench.open() as clients:
            down = await _download(bench, clients, Path(folder), size)
            await asyncio.sleep(bench.pick(SETTLED, 0))
            return [await _upload(bench, clients, small, whole, size), down]


def _make(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.writelines(video_blocks(size))


async def _upload(bench: Bench, clients: Clients, small: Path, whole: Path, size: int) -> Table:
    task = Task(
        "upload",
        "upload",
        {"path": str(whole)},
        warm_up={"path": str(small)},
        variants=(DIGEST, NEW_FILE.name, KNOWN_CONTENT.name),
        is_fresh=True,
    )
    rounds = await clients.rounds(task, rounds=bench.pick(5, 1))
    return Table(
        f"Upload of {size >> 20:,} MiB",
        "Beside aiohttp by hand, which hashes nothing and does not check what was stored, and beside one that hashes.",
        rounds.lines(lambda name: _figures(rounds, name, size) | _upload_figures(rounds, name)),
    )


async def _download(bench: Bench, clients: Clients, folder: Path, size: int) -> Table:
    path = folder / "v.mp4"
    server = {"lengths": JOBS, "video_size": size}
    task = Task(
        "download",
        "download",
        {"path": str(path)},
        warm_up={"path": str(path)},
        server=server,
        warm_up_server={**server, "video_size": SMALL},
        is_fresh=True,
    )
    rounds = await clients.rounds(task, rounds=bench.pick(5, 1))
    return Table(
        f"Download of {size >> 20:,} MiB",
        "To a file that is replaced.",
        rounds.lines(lambda name: _figures(rounds, name, size) | _download_figures(rounds, name)),
    )


def _figures(rounds: Rounds, name: str, size: int) -> dict[str, Figure]:
    gigabytes = size / (1 << 30)
    samples = rounds.samples[name]
    is_upload = DIGEST in rounds.samples
    goals = (1.05, 16.0) if name == OURS and is_upload else (None, None)
    return {
        "speed": rounds.figure(name, lambda one: gigabytes * 1024 / one.wall, "MB/s"),
        "CPU": rounds.figure(name, lambda one: one.cpu / gigabytes, "s/GB", at_most=goals[0]),
        "peak memory": rounds.figure(name, lambda one: one.memory, "MB"),
        "at worst": Figure.of([max(one.memory for one in samples)], "MB", at_most=goals[1]),
        "longest stall": rounds.figure(name, lambda one: one.stall * 1e3, "ms"),
        f"CPU, {BARE} = 1": rounds.ratio(name, _cpu, to=BARE),
    }


def _upload_figures(rounds: Rounds, name: str) -> dict[str, Figure]:
    return {
        f"CPU, {DIGEST} = 1": rounds.ratio(name, _cpu, to=DIGEST),
        f"speed, {BARE} = 1": rounds.ratio(
            name, _speed, to=BARE, at_least=0.85 if name == KNOWN_CONTENT.name else None
        ),
        f"speed, {DIGEST} = 1": rounds.ratio(name, _speed, to=DIGEST),
    }


def _download_figures(rounds: Rounds, name: str) -> dict[str, Figure]:
    return {f"time, {BARE} = 1": rounds.ratio(name, _time, to=BARE, at_most=1.15 if name == OURS else None)}


def _cpu(sample: Sample) -> float:
    return sample.cpu


def _time(sample: Sample) -> float:
    return sample.wall


def _speed(sample: Sample) -> float:
    return 1 / sample.wall
