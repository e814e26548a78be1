"""1 GB up and 1 GB down on loopback: throughput beside bare aiohttp, memory, and the event loop's longest stall.

The server is a process of its own, and as lean as can be. Each measurement is a process of its own too, so that one's
memory is not another's. Ours and bare aiohttp take turns; the table gives the median of each, and the goals are ratios
of neighbours, round by round.

    python benchmarks/media.py [--gigabytes 1] [--rounds 5] [--quick] [--peers]

Bare aiohttp does what one would write by hand: 256 kB chunks, files read and written in threads, no digest, no resume,
no retries. Ours hashes a file while it sends it, unless the file was changed less than a minute ago: then before, which
"ours up, new file" measures. `--peers` adds the uploads of openai, replicate and fal-client, of those that are
installed. `--quick` is for trying it out: 64 MB, 2 rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import BinaryIO

import aiohttp
import orjson
from aiohttp import web

CHUNK = 256 * 1024
GIGABYTE = 1 << 30
SMALL = 8 << 20
MP4_START = bytes.fromhex("000000186674797069736f6d0000020069736f6d6d703432")


# The server: takes any upload, sends any file


async def serve(path: Path) -> None:
    sizes = {"/whole.mp4": size_of(path), "/small.mp4": SMALL}
    storage = await asyncio.get_running_loop().create_server(StorageHost, "127.0.0.1", 0)
    stored_at = f"http://127.0.0.1:{storage.sockets[0].getsockname()[1]}/put?X-Amz-Signature=1"
    block = os.urandom(1 << 20)

    async def announce(_: web.Request) -> web.Response:
        return reply(
            {
                "asset_id": "asset_1",
                "upload_url": stored_at,
                "upload_headers": {"x-amz-meta-a": "b"},
                "max_bytes": 1 << 40,
            }
        )

    async def sink(request: web.Request) -> web.Response:
        total = 0
        while chunk := await request.content.readany():
            total += len(chunk)
        return reply(peers_answer(f"{request.scheme}://{request.host}", total), headers={"ETag": '"1"'})

    async def complete(_: web.Request) -> web.Response:
        return reply({"asset_id": "asset_1", "status": "completed"})

    async def lipsync(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        link = f"{request.scheme}://{request.host}/{name}.mp4?X-Amz-Signature=1"
        return reply({"id": name, "status": "completed", "video_url": link})

    async def source(request: web.Request) -> web.StreamResponse:
        size = sizes[request.path]
        response = web.StreamResponse(headers={"Content-Length": str(size), "ETag": '"1"', "Content-Type": "video/mp4"})
        await response.prepare(request)
        await response.write(MP4_START + (size - len(MP4_START) - 8).to_bytes(4, "big") + b"mdat")
        left = size - len(MP4_START) - 8 - 8
        while left:
            piece = block[: min(left, len(block))]
            left -= len(piece)
            await response.write(piece)
        await response.write((8).to_bytes(4, "big") + b"moov")
        return response

    app = web.Application(client_max_size=1 << 62)
    app.router.add_post("/v3/assets/direct-uploads", announce)
    app.router.add_post("/v3/assets/{id}/complete", complete)
    app.router.add_get("/v3/lipsyncs/{id}", lipsync)
    app.router.add_get("/{any:.*mp4}", source)
    app.router.add_route("*", "/{any:.*}", sink)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def reply(data: dict[str, object], headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({**data, "data": data}, headers=headers)


def peers_answer(origin: str, size: int) -> dict[str, object]:
    """Return what the peers' clients must find in an answer, all of them in one."""
    replicate = {"name": "a", "content_type": "video/mp4", "etag": "1", "checksums": {}, "metadata": {}, "urls": {}}
    fal = {
        "token": "t",
        "token_type": "Bearer",
        "base_url": origin,
        "expires_at": "2100-01-01T00:00:00+00:00",
        "access_url": f"{origin}/fal",
        "uploadId": "1",
    }
    return {"id": "file_1", "size": size, "created_at": "2026-01-01T00:00:00Z", **replicate, **fal}


class StorageHost(asyncio.BufferedProtocol):
    """Takes any PUT with a length, and keeps nothing of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._memory = memoryview(bytearray(1 << 20))
        self._head = b""
        self._left = 0

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 it takes all that there is
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:
            head, end, body = (self._head + bytes(self._memory[:nbytes])).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert length
            self._head, self._left, nbytes = b"", int(length[1]), len(body)
        self._left -= nbytes
        if not self._left:
            self._transport.write(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\n\r\n')


# What is measured


async def ours_up(url: str, path: Path, _: Path, *, settled_after: float = 0) -> None:
    from heygen_async import HeyGenSession  # noqa: PLC0415 only this process pays for it

    async with HeyGenSession("key", base_url=url) as heygen:
        heygen._transfers.settled_after = settled_after  # noqa: SLF001 the file is not a minute old
        await heygen.assets.upload(path)


async def ours_up_new(url: str, path: Path, target: Path) -> None:
    await ours_up(url, path, target, settled_after=1 << 40)


async def ours_down(url: str, path: Path, target: Path) -> None:
    from heygen_async import HeyGenSession  # noqa: PLC0415 only this process pays for it

    async with HeyGenSession("key", base_url=url) as heygen:
        await heygen.download(path.stem, target, overwrite=True)


async def bare_up(url: str, path: Path, _: Path) -> None:
    await put(url, path, lambda file: file.read(CHUNK))


async def digested_up(url: str, path: Path, _: Path) -> None:
    digest = hashlib.sha256()

    def read(file: BinaryIO) -> bytes:
        chunk = file.read(CHUNK)
        digest.update(chunk)
        return chunk

    await put(url, path, read)


async def put(url: str, path: Path, read: Callable[[BinaryIO], bytes]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        with await asyncio.to_thread(path.open, "rb") as file:
            while chunk := await asyncio.to_thread(read, file):
                yield chunk

    headers = {"Content-Length": str(size_of(path))}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{url}/v3/assets/direct-uploads") as response:
            link = (await response.json())["data"]["upload_url"]
        async with http.put(link, data=chunks(), headers=headers) as response:
            await response.read()


def size_of(path: Path) -> int:
    return path.stat().st_size


async def bare_down(url: str, path: Path, target: Path) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/{path.name}") as response:
        with await asyncio.to_thread(target.open, "wb") as file:
            async for chunk in response.content.iter_chunked(CHUNK):
                await asyncio.to_thread(file.write, chunk)


async def openai_up(url: str, path: Path, _: Path) -> None:
    import openai  # type: ignore[import-not-found]  # noqa: PLC0415 a peer

    await openai.AsyncOpenAI(api_key="k", base_url=url).files.create(file=path, purpose="assistants")


async def replicate_up(url: str, path: Path, _: Path) -> None:
    import replicate  # type: ignore[import-not-found]  # noqa: PLC0415 a peer

    await replicate.Client(api_token="k", base_url=url).files.async_create(path)


async def fal_up(url: str, path: Path, _: Path) -> None:
    import fal_client  # type: ignore[import-not-found]  # noqa: PLC0415 a peer

    fal_client.client.REST_URL = fal_client.client.CDN_URL = url  # it takes no address
    await fal_client.AsyncClient(key="k").upload_file(str(path))


CONTENDERS: dict[str, Callable[[str, Path, Path], Awaitable[None]]] = {
    "ours up": ours_up,
    "ours up, new file": ours_up_new,
    "bare aiohttp up": bare_up,
    "bare aiohttp + SHA-256 up": digested_up,
    "ours down": ours_down,
    "bare aiohttp down": bare_down,
    "openai up": openai_up,
    "replicate up": replicate_up,
    "fal-client up": fal_up,
}
PEERS = {"openai up": "openai", "replicate up": "replicate", "fal-client up": "fal_client"}


class Stalls:
    """How late the loop comes to a call that is due, at worst."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._tick()

    def _tick(self) -> None:
        now = self._loop.time()
        self.worst = max(self.worst, now - self._due)
        self._due = now + 0.001
        self._handle = self._loop.call_at(self._due, self._tick)

    def stop(self) -> float:
        self._handle.cancel()
        return self.worst


async def measure(name: str, url: str, path: Path, target: Path) -> dict[str, float]:
    run = CONTENDERS[name]
    await run(url, path.with_name("small.mp4"), target)  # imports and threads are not what is measured
    before = peak()
    stalls = Stalls()
    started, worked = time.perf_counter(), time.process_time()
    await run(url, path, target)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    return {"seconds": seconds, "cpu": cpu, "stall": stalls.stop(), "growth": peak() - before}


def peak() -> float:
    """Return the peak of resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


# The run


def child(*arguments: str) -> list[str]:
    return [sys.executable, __file__, *arguments]


def make_file(path: Path, size: int) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        file.write(MP4_START + (size - len(MP4_START) - 8).to_bytes(4, "big") + b"mdat")
        for _ in range(size >> 20):
            file.write(block)
        file.truncate(size - 8)
        file.seek(0, os.SEEK_END)
        file.write((8).to_bytes(4, "big") + b"moov")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--measure", nargs=4)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
    elif options.measure:
        name, url, path, target = options.measure
        print(orjson.dumps(asyncio.run(measure(name, url, Path(path), Path(target)))).decode())
    else:
        size, rounds = (1 / 16, 2) if options.quick else (options.gigabytes, options.rounds)
        compare(size, rounds, with_peers=options.peers)


def compare(gigabytes: float, rounds: int, *, with_peers: bool) -> None:
    names = [name for name in CONTENDERS if name not in PEERS]
    if with_peers:
        for name, package in PEERS.items():
            if importlib.util.find_spec(package):
                names.append(name)
            else:
                print(f"{name}: skipped, {package} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "whole.mp4")
        make_file(path, int(gigabytes * GIGABYTE))
        make_file(path.with_name("small.mp4"), SMALL)
        with subprocess.Popen(child("--serve", str(path)), stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
                results = run_rounds(names, rounds, url, path)
            finally:
                server.kill()
    report(results, gigabytes)


def run_rounds(names: list[str], rounds: int, url: str, path: Path) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            target = path.with_name("target.mp4")
            done = subprocess.run(
                child("--measure", name, url, str(path), str(target)), capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"{name}: failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            results[name].append(orjson.loads(done.stdout))
    return results


def report(results: dict[str, list[dict[str, float]]], gigabytes: float) -> None:
    print(f"{gigabytes:g} GB on loopback; Python {platform.python_version()}, aiohttp {aiohttp.__version__}, ", end="")
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}; medians, worst in brackets")
    print(f"{'':28}{'MB/s':>8}{'CPU, s':>8}{'memory, MB':>16}{'longest stall, ms':>22}")
    for name, runs in results.items():
        if not runs:
            continue
        speed = gigabytes * 1024 / median(run["seconds"] for run in runs)
        cpu, growth, stall = ([run[key] for run in runs] for key in ("cpu", "growth", "stall"))
        print(
            f"{name:28}{speed:8.0f}{median(cpu):8.2f}{median(growth):+8.1f} ({max(growth):+5.1f})"
            f"{1000 * median(stall):14.1f} ({1000 * max(stall):5.1f})"
        )
    report_goals(results, gigabytes)


def report_goals(results: dict[str, list[dict[str, float]]], gigabytes: float) -> None:
    ours, hashing, bare = "ours up", "bare aiohttp + SHA-256 up", "bare aiohttp up"
    cpu = [run["cpu"] / gigabytes for run in results[ours]]
    memory = max(run["growth"] for run in results[ours])
    rows = (
        ("upload, CPU s a GB, digest included", (median(cpu), min(cpu)), "<= 1.05"),
        ("upload, CPU beside bare aiohttp + SHA-256", ratios(results, "cpu", ours, hashing), ""),
        ("upload, speed beside bare aiohttp, which hashes nothing", ratios(results, "seconds", bare, ours), ">= 0.85"),
        ("upload, speed beside bare aiohttp + SHA-256", ratios(results, "seconds", hashing, ours), ""),
        ("upload, memory at most, MB", (memory, memory), "<= 16"),
        ("download, time beside bare aiohttp", ratios(results, "seconds", "ours down", "bare aiohttp down"), "<= 1.15"),
        ("download, CPU beside bare aiohttp", ratios(results, "cpu", "ours down", "bare aiohttp down"), ""),
    )
    print(f"\n{'goals':58}{'median':>8}{'at best':>9}  goal")
    for name, (middle, best), goal in rows:
        print(f"{name:58}{middle:8.2f}{best:9.2f}  {goal}")


def ratios(results: dict[str, list[dict[str, float]]], key: str, one: str, other: str) -> tuple[float, float]:
    """Return the median of the ratios of neighbours, and the ratio of the best rounds, which load affects less."""
    neighbours = zip(results[one], results[other], strict=False)
    best = min(run[key] for run in results[one]) / min(run[key] for run in results[other])
    return median(mine[key] / theirs[key] for mine, theirs in neighbours), best


if __name__ == "__main__":
    main()
