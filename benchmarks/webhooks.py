"""What webhooks spare: requests for each finished job after its create, and how late its end is seen.

    python benchmarks/webhooks.py [--jobs 1000] [--seconds 30]

The sandbox is a process of its own. The client creates all jobs, waits for each in a task of its own, and serves a
`WebhookReceiver` that is attached to its poller. Between the sandbox and the receiver is the weather: it loses, doubles
and delays deliveries. Job lengths are spread evenly from half of `--seconds` to one and a half. Columns: requests to
the API after the creates for each job; how late the end was seen, in the mean and at worst, in seconds and (the mean)
as a share of the job's length; jobs that were waited for to their end; events that came to `on_event`, and of those
the ones that came twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from aiohttp import web
from attrs import define, field, frozen

from heygen_async import HeyGenSession
from heygen_async.models import WebhookEvent
from heygen_async.sandbox import Sandbox
from heygen_async.webhooks import WebhookReceiver

SOURCES = {"video": "https://example.com/v.mp4", "audio": "https://example.com/a.mp3"}


# The server's process


async def serve(seconds: float, seed: int) -> None:
    """Run a sandbox until standard input ends, then print what it saw."""
    rng = random.Random(seed)
    async with Sandbox(
        account_limit=None,
        balance=1e6,
        job_seconds=lambda _: seconds * rng.uniform(0.5, 1.5),
        lipsync_events=True,
    ) as sandbox:
        print(orjson.dumps({"base_url": sandbox.url, "api_key": sandbox.api_key}).decode(), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        jobs = {job.id: [job.created_at, job.ended_at] for job in sandbox.jobs}
        routes = Counter(request.route for request in sandbox.requests)
        print(orjson.dumps({"jobs": jobs, "routes": routes}).decode(), flush=True)


@asynccontextmanager
async def server(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        assert process.stdout
        yield process, orjson.loads(await process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def testimony(process: asyncio.subprocess.Process) -> dict[str, dict[str, list[float]]]:
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    return orjson.loads(await process.stdout.readline())


# The weather


@frozen(kw_only=True)
class Weather:
    """What becomes of deliveries on their way."""

    lost: float = 0.0
    """The share that is answered and thrown away."""
    doubled: float = 0.0
    delay: float = 0.0
    """The longest time that one is held back, in seconds; so that they come in another order."""
    ends_after: float = float("inf")
    """When the last one comes through, in seconds from the start."""


@define
class Relay:
    """Stands before the receiver."""

    weather: Weather
    receiver: WebhookReceiver
    rng: random.Random
    start: float = field(factory=time.monotonic)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        weather, rng = self.weather, self.rng
        if rng.random() < weather.lost or time.monotonic() - self.start > weather.ends_after:
            return web.Response()
        if weather.delay:
            await asyncio.sleep(rng.uniform(0, weather.delay))
        if rng.random() < weather.doubled:
            await self.receiver.handle(request)
        return await self.receiver.handle(request)


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


# One run


@define
class Run:
    ends: dict[str, float] = field(factory=dict)
    """When the end of each job was seen, in unix time."""
    events: Counter[str] = field(factory=Counter)

    async def on_event(self, event: WebhookEvent) -> None:
        if event.lipsync_id is not None:
            self.events[event.lipsync_id] += 1

    async def one(self, heygen: HeyGenSession) -> None:
        job = await heygen.lipsyncs.create(**SOURCES)
        lipsync = await job.wait()
        assert lipsync.id not in self.ends
        self.ends[lipsync.id] = time.time()


async def measure(jobs: int, seconds: float, weather: Weather | None, seed: int) -> str:
    run = Run()
    async with server("--seconds", str(seconds), "--seed", str(seed)) as (process, told):
        async with HeyGenSession(**told) as heygen, contextlib.AsyncExitStack() as stack:
            if weather is not None:
                await stack.enter_async_context(hooked(heygen, run, weather, seed))
            async with asyncio.TaskGroup() as group:
                for _ in range(jobs):
                    group.create_task(run.one(heygen))
        return row(run, await testimony(process), jobs)


@asynccontextmanager
async def hooked(heygen: HeyGenSession, run: Run, weather: Weather, seed: int) -> AsyncIterator[None]:
    endpoint = await heygen.webhooks.create("http://127.0.0.1:9/hook", events=["lipsync.success", "lipsync.fail"])
    assert endpoint.secret
    receiver = WebhookReceiver(secret=endpoint.secret, on_event=run.on_event)
    receiver.attach(heygen.poller)
    app = web.Application()
    app.router.add_route("*", "/hook", Relay(weather, receiver, random.Random(seed)).handle)
    async with listening(app) as url:
        await heygen.webhooks.update(endpoint.id, url=f"{url}/hook")
        yield


def row(run: Run, seen: dict[str, dict[str, list[float]]], jobs: int) -> str:
    asked = sum(count for route, count in seen["routes"].items() if route.startswith("GET /v3/lipsyncs"))
    delays = [run.ends[name] - ended for name, (_, ended) in seen["jobs"].items()]
    shares = [(run.ends[name] - ended) / (ended - created) for name, (created, ended) in seen["jobs"].items()]
    twice = sum(count > 1 for count in run.events.values())
    cells = [
        f"{asked / jobs:8.3f}",
        f"{statistics.mean(delays):10.3f}",
        f"{max(delays):10.3f}",
        f"{statistics.mean(shares):9.2%}",
        f"{len(run.ends):6d}",
        f"{run.events.total():7d}",
        f"{twice:6d}",
    ]
    return " ".join(cells)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", action="store_true")
    given = parser.parse_args()
    if given.serve:
        await serve(given.seconds, given.seed)
        return
    print(f"{given.jobs} jobs of {given.seconds / 2:g} to {given.seconds * 1.5:g} s")
    print(f"{'':34} requests  mean late worst late    share   jobs  events  twice")
    weathers = {
        "polling alone": None,
        "webhooks": Weather(),
        "10 % lost, 20 % doubled, shuffled": Weather(lost=0.1, doubled=0.2, delay=2.0),
        "webhooks that end half-way": Weather(ends_after=given.seconds),
    }
    for name, weather in weathers.items():
        print(f"{name:34} {await measure(given.jobs, given.seconds, weather, given.seed)}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
