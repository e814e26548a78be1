"""What a typed call costs beside bare aiohttp, and what the import costs beside `import aiohttp`.

    python benchmarks/overhead.py

CPU seconds of the client process for each `lipsyncs.get`, against `aiohttp` and `orjson` by hand on the same server
(another process), 50 at once, in alternating rounds; and fresh interpreters that import one or the other. Ratios of
medians: the machine's own speed cancels out.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from statistics import median

import aiohttp
import orjson
from aiohttp import web

from heygen_async import HeyGenSession

AT_ONCE, CALLS, ROUNDS, IMPORTS = 50, 2_000, 15, 15
BODY = orjson.dumps(
    {
        "data": {
            "id": "ls_abc123",
            "title": "My Lipsync",
            "status": "completed",
            "duration": 42.5,
            "video_url": "https://files.heygen.ai/v.mp4?X-Amz-Signature=" + "0" * 300,
            "callback_id": None,
            "created_at": 1717000000,
            "failure_message": None,
        }
    }
)


async def serve() -> None:
    """Answer every GET with the same lipsync, until standard input closes."""
    app = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="application/json")

    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def at_once(call: Callable[[], Awaitable[None]]) -> float:
    """Make the calls, so many at once, and return the CPU seconds for each."""

    async def worker() -> None:
        for _ in range(CALLS // AT_ONCE):
            await call()

    gc.collect()
    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return (time.process_time() - started) / CALLS


async def calls(port: int) -> tuple[float, float]:
    url = f"http://127.0.0.1:{port}"
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, headers={"X-Api-Key": "key"}) as bare,
        HeyGenSession("key", base_url=url) as heygen,
    ):
        ids = cycle([f"ls_{n:06}" for n in range(5_000)])  # as in life, no two calls are for the same job

        async def by_hand() -> None:
            async with bare.get(f"{url}/v3/lipsyncs/{next(ids)}") as response:
                response.raise_for_status()
                orjson.loads(await response.read())

        async def typed() -> None:
            await heygen.lipsyncs.get(next(ids))

        await at_once(by_hand), await at_once(typed)
        rounds = [(await at_once(by_hand), await at_once(typed)) for _ in range(ROUNDS)]
    return median(hand for hand, _ in rounds), median(ours for _, ours in rounds)


def import_seconds(module: str) -> float:
    # With byte code kept, as an installed package has it.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=kept)
    return time.perf_counter() - started


def main() -> None:
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        hand, ours = asyncio.run(calls(int(server.stdout.readline())))
    finally:
        server.communicate()
    print(f"CPU a call, {AT_ONCE} at once: bare {hand * 1e6:.0f} us, typed {ours * 1e6:.0f} us: ", end="")
    print(f"x{ours / hand:.3f} (goal 1.15)")

    import_seconds("heygen_async.session")
    pairs = [(import_seconds("aiohttp"), import_seconds("heygen_async.session")) for _ in range(IMPORTS)]
    bare, whole = median(bare for bare, _ in pairs), median(whole for _, whole in pairs)
    print(f"import: aiohttp {bare * 1e3:.0f} ms, the session {whole * 1e3:.0f} ms: x{whole / bare:.2f} (goal 1.4)")


if __name__ == "__main__":
    asyncio.run(serve()) if sys.argv[1:] == ["serve"] else main()
