"""What webhooks spare: requests for each finished job after its create, and how late its end is seen.

The sandbox is a process of its own. The client creates all jobs, waits for each in a task of its own, and serves a
`WebhookReceiver` that is attached to its poller. Between the sandbox and the receiver is a relay that loses, doubles
and delays deliveries. Lengths are spread evenly from half of a time to one and a half of it. An event is what came to
`on_event`; none should come twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import mean
from typing import Any

from aiohttp import web
from attrs import define, field, frozen

from benchmarks import processes
from benchmarks.bench import Bench
from benchmarks.results import Figure, Line, Table
from heygen_async import HeyGenSession
from heygen_async.models import WebhookEvent
from heygen_async.webhooks import WebhookReceiver

MINUTES = 4.0
SEED = 1
VIDEO, AUDIO = "https://example.com/v.mp4", "https://example.com/a.mp3"


@frozen(kw_only=True)
class Deliveries:
    """What becomes of deliveries on their way."""

    lost: float = 0.0
    """The share that is answered and thrown away."""
    doubled: float = 0.0
    delay: float = 0.0
    """The longest time that one is held back, in seconds; so that they come in another order."""
    end_after: float = float("inf")
    """When the last one comes through, in seconds from the start."""


KINDS: Mapping[str, Deliveries | None] = {
    "polling alone": None,
    "webhooks": Deliveries(),
    "10 % lost, 20 % doubled, shuffled": Deliveries(lost=0.1, doubled=0.2, delay=2.0),
    "webhooks that end half-way": Deliveries(end_after=30.0),
}
QUICK: Mapping[str, Deliveries | None] = {
    "polling alone": None,
    "20 % doubled, shuffled": Deliveries(doubled=0.2, delay=0.1),
}
"""None is lost here: what is seen by polling then takes half a minute."""


async def measure(bench: Bench) -> list[Table]:
    """Measure polling alone, and webhooks of three kinds."""
    jobs, seconds = bench.pick((1000, 30.0), (10, 0.5))
    kinds = bench.pick(KINDS, QUICK)
    lines = [Line(name, await _case(jobs, seconds, deliveries)) for name, deliveries in kinds.items()]
    about = "Requests are those to the API after the creates. A share is that of the length of a job."
    return [Table(f"{jobs:,} jobs of {seconds / 2:g} to {seconds * 1.5:g} s", about, lines)]


# The relay


@define
class Relay:
    """Is before the receiver."""

    deliveries: Deliveries
    receiver: WebhookReceiver
    rng: random.Random
    start: float = field(factory=time.monotonic)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        deliveries, rng = self.deliveries, self.rng
        if rng.random() < deliveries.lost or time.monotonic() - self.start > deliveries.end_after:
            return web.Response()
        if deliveries.delay:
            await asyncio.sleep(rng.uniform(0, deliveries.delay))
        if rng.random() < deliveries.doubled:
            await self.receiver.handle(request)
        return await self.receiver.handle(request)


@asynccontextmanager
async def _listening(app: web.Application) -> AsyncIterator[str]:
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
    """What the client sees."""

    ends: dict[str, float] = field(factory=dict)
    """When the end of each job was seen, in unix time."""
    events: Counter[str] = field(factory=Counter)

    async def on_event(self, event: WebhookEvent) -> None:
        if event.lipsync_id is not None:
            self.events[event.lipsync_id] += 1

    async def one(self, heygen: HeyGenSession) -> None:
        job = await heygen.lipsyncs.create(video=VIDEO, audio=AUDIO)
        lipsync = await job.wait()
        assert lipsync.id not in self.ends
        self.ends[lipsync.id] = time.time()


async def _case(jobs: int, seconds: float, deliveries: Deliveries | None) -> Mapping[str, Figure]:
    run = Run()
    async with processes.worker("benchmarks.sandbox_process", str(seconds), str(SEED)) as sandbox:
        address = await sandbox.read()
        async with HeyGenSession(**address) as heygen, AsyncExitStack() as stack:
            if deliveries is not None:
                await stack.enter_async_context(_hooked(heygen, run, deliveries))
            async with asyncio.TaskGroup() as group:
                for _ in range(jobs):
                    group.create_task(run.one(heygen))
        return _figures(run, await sandbox.ask("report"), jobs)


@asynccontextmanager
async def _hooked(heygen: HeyGenSession, run: Run, deliveries: Deliveries) -> AsyncIterator[None]:
    endpoint = await heygen.webhooks.create("http://127.0.0.1:9/hook", events=["lipsync.success", "lipsync.fail"])
    assert endpoint.secret
    receiver = WebhookReceiver(secret=endpoint.secret, on_event=run.on_event)
    receiver.attach(heygen.poller)
    app = web.Application()
    app.router.add_route("*", "/hook", Relay(deliveries, receiver, random.Random(SEED)).handle)
    async with _listening(app) as url:
        await heygen.webhooks.update(endpoint.id, url=f"{url}/hook")
        yield


def _figures(run: Run, seen: Mapping[str, Any], jobs: int) -> Mapping[str, Figure]:
    requests = sum(count for route, count in seen["routes"].items() if route.startswith("GET /v3/lipsyncs"))
    delays = [run.ends[job] - ended for job, (_, ended) in seen["jobs"].items()]
    shares = [(run.ends[job] - ended) / (ended - created) for job, (created, ended) in seen["jobs"].items()]
    return {
        "requests": Figure.of([requests / jobs], "a job"),
        "delay, mean": Figure.of([mean(delays)], "s"),
        "at worst": Figure.of([max(delays)], "s"),
        "share": Figure.of([mean(shares) * 100], "%"),
        "jobs": Figure.of([len(run.ends)], "", at_least=jobs, at_most=jobs),
        "events": Figure.of([run.events.total()], ""),
        "twice": Figure.of([sum(count > 1 for count in run.events.values())], "", at_most=0),
    }
