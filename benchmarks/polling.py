"""What waiting costs: requests for each finished job, how late its end is seen, CPU, stalls and memory.

    python benchmarks/polling.py                    # all of it, half an hour; writes polling.md and polling.svg
    python benchmarks/polling.py --quick            # a small size of each part, two minutes; writes nothing
    python benchmarks/polling.py --jobs 10 100      # no more than so many jobs at once
    python benchmarks/polling.py --only virtual     # one part: virtual, table, large, weather, patience, memory

virtual: the poller alone over a server without a wire, in time that jumps, so that the load of the machine does not
matter: requests and delay by the default policy. The number of connections is not limited.

table: each row has a server process and a client process. All jobs begin at once. Their lengths are not known to the
client; they are lognormal (median 30 s, sigma 0.4, so 32.5 s in the mean, the longest of 1,000 about 110 s) and the
same for every row. The server is a small fake of the three calls of the poller; each answer takes `--latency`. Turns of
the event loop are measured as CPU time of its thread, with and without the garbage collections in them. Objects that
exist before the first wait are frozen, so that collections traverse those of the waits only.

collections: what garbage collection takes while 50,000 wait, before and after `gc.freeze()`.

large: 50,000 waits at once, as they are, and with `gc.freeze()` once all of them wait.

For comparison: a GET loop on the same session, with an interval that gives the mean delay that ours had in the same
run; and the default loops of other clients as documented, one for each job, on plain aiohttp: fal (every 0.1 s),
replicate (0.5 s), OpenAI (1 s), runway (6 s with a jitter of 1.5 s).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import platform
import random
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import aiohttp
from aiohttp import web
from attrs import define, field, frozen
from virtual_heygen import VirtualLoop

from heygen_async import HeyGenSession, WaitTimeout
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.pagination import Page
from heygen_async.polling import LipsyncPoller

T = TypeVar("T")

MEDIAN, SIGMA = 30.0, 0.4
MEAN = MEDIAN * math.exp(SIGMA**2 / 2)
OURS, FROZEN, GET_LOOP = "ours", "ours, gc.freeze()", "get loop"
PEERS = {"fal": (0.1, 0.0), "replicate": (0.5, 0.0), "openai": (1.0, 0.0), "runway": (6.0, 1.5)}
HERE = Path(__file__).parent


# The server's process


class Server:
    """Jobs that end at a time, and the requests for them."""

    def __init__(self, options: argparse.Namespace) -> None:
        draw = random.Random(options.jobs)
        lengths = (draw.lognormvariate(math.log(options.median), options.sigma) for _ in range(options.jobs))
        self.lengths = {f"ls_{n:024}": length for n, length in enumerate(lengths)}
        self.ends: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self.latency = options.latency
        self.hang_at = options.hang_at
        self.begun = 0.0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/begin", self.begin)
        app.router.add_get("/report", self.report)
        app.router.add_get("/v3/lipsyncs/statuses", self.statuses)
        app.router.add_get("/v3/lipsyncs/{id}", self.get)
        app.router.add_get("/v3/lipsyncs", self.list)
        return app

    async def begin(self, _: web.Request) -> web.Response:
        self.begun = time.monotonic()
        self.ends = {one: self.begun + length for one, length in self.lengths.items()}
        return web.json_response(list(self.ends))

    async def report(self, _: web.Request) -> web.Response:
        return web.json_response({"ends": self.ends, "counts": self.counts, "cpu": time.process_time()})

    def is_over(self, lipsync_id: str) -> bool:
        return time.monotonic() >= self.ends[lipsync_id]

    def whole(self, lipsync_id: str) -> dict[str, object]:
        return {"id": lipsync_id, "status": "completed" if self.is_over(lipsync_id) else "running"}

    async def statuses(self, request: web.Request) -> web.Response:
        self.counts["statuses"] += 1
        await self.work()
        ids = request.query["lipsync_ids"].split(",")
        data = [{"video_id": one, "status": "completed" if self.is_over(one) else "processing"} for one in ids]
        if self.hang_at is not None and time.monotonic() - self.begun >= self.hang_at:
            self.hang_at = None
            await asyncio.sleep(3)
        return web.json_response({"data": data, "has_more": False, "next_token": None})

    async def get(self, request: web.Request) -> web.Response:
        self.counts["get"] += 1
        await self.work()
        return web.json_response({"data": self.whole(request.match_info["id"])})

    async def list(self, request: web.Request) -> web.Response:
        self.counts["list"] += 1
        await self.work()
        start = int(request.query.get("token", 0))
        ids = list(reversed(self.ends))
        more = start + 100 < len(ids)
        items = [self.whole(one) for one in ids[start : start + 100]]
        return web.json_response({"data": items, "has_more": more, "next_token": str(start + 100) if more else None})

    async def work(self) -> None:
        if self.latency:
            await asyncio.sleep(self.latency)


async def serve(options: argparse.Namespace) -> None:
    """Answer until standard input closes."""
    runner = web.AppRunner(Server(options).app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


# The client's process

Wait = Callable[[str], Awaitable[object]]


def get_loop(heygen: HeyGenSession, interval: float) -> Wait:
    async def wait(lipsync_id: str) -> None:
        while not (await heygen.lipsyncs.get(lipsync_id)).is_terminal:  # noqa: ASYNC110 it is the turns that are watched
            await asyncio.sleep(interval)

    return wait


def peer_loop(http: aiohttp.ClientSession, url: str, interval: float, jitter: float) -> Wait:
    async def wait(lipsync_id: str) -> None:
        while True:
            async with http.get(f"{url}/v3/lipsyncs/{lipsync_id}") as response:
                if (await response.json())["data"]["status"] == "completed":
                    return
            await asyncio.sleep(interval + random.uniform(-jitter, jitter))

    return wait


class Turns(selectors.DefaultSelector):
    """A selector that measures the turns of its event loop, from one select to the next, in CPU time of its thread."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.longest = self.longest_without_gc = self.gc_seconds = self.longest_gc = 0.0
        self._gc_in_turn = self._gc_since = 0.0
        self._since: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._since is not None:
            turn = time.thread_time() - self._since
            self.longest = max(self.longest, turn)
            self.longest_without_gc = max(self.longest_without_gc, turn - self._gc_in_turn)
        ready = super().select(timeout)
        self._since, self._gc_in_turn = time.thread_time(), 0.0
        return ready

    def on_gc(self, phase: str, _: object) -> None:
        """Measure a garbage collection: one of `gc.callbacks`."""
        if phase == "start":
            self._gc_since = time.thread_time()
            return
        took = time.thread_time() - self._gc_since
        self._gc_in_turn += took
        self.gc_seconds += took
        self.longest_gc = max(self.longest_gc, took)


TURNS = Turns()


async def measure(http: aiohttp.ClientSession, url: str, wait: Wait, *, freeze: bool) -> dict[str, Any]:
    """Wait for all jobs, each in a task, and return what it cost."""
    seen = {}

    async def one(lipsync_id: str) -> None:
        await wait(lipsync_id)
        seen[lipsync_id] = time.monotonic()

    async with http.post(f"{url}/begin") as response:
        ids = await response.json()
    gc.collect()
    gc.freeze()
    await asyncio.sleep(0)
    TURNS.reset()
    gc.callbacks.append(TURNS.on_gc)
    cpu, start = time.process_time(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for n, lipsync_id in enumerate(ids):
            group.create_task(one(lipsync_id))
            if n % 100 == 99:
                await asyncio.sleep(0)
        if freeze:
            gc.freeze()
    cpu, seconds = time.process_time() - cpu, time.monotonic() - start
    async with http.get(f"{url}/report") as response:
        report = await response.json()
    late = sorted(seen[lipsync_id] - end for lipsync_id, end in report["ends"].items())
    return {
        "requests": sum(report["counts"].values()) / len(ids),
        "counts": report["counts"],
        "late": mean(late),
        "late_p99": late[int(0.99 * len(late))],
        "late_over_2s": sum(one > 2 for one in late),
        "late_200th": late[min(199, len(late) - 1)],
        "cpu": cpu,
        "server_cpu": report["cpu"],
        "seconds": seconds,
        "turn": TURNS.longest_without_gc,
        "turn_with_gc": TURNS.longest,
        "gc": TURNS.gc_seconds,
        "longest_gc": TURNS.longest_gc,
    }


async def patience(heygen: HeyGenSession, http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Wait for one job without a deadline while fifty waits a second with a deadline of 0.1 s come and go."""
    async with http.post(f"{url}/begin") as response:
        patient, *others = await response.json()
    waiting = asyncio.create_task(heygen.poller.wait(patient))

    async def hasty(lipsync_id: str) -> None:
        with suppress(WaitTimeout):
            await heygen.poller.wait(lipsync_id, timeout=0.1)

    async with asyncio.TaskGroup() as group:
        while not waiting.done():
            group.create_task(hasty(random.choice(others)))
            await asyncio.sleep(0.02)
    seen = time.monotonic()
    async with http.get(f"{url}/report") as response:
        return {"late": seen - (await response.json())["ends"][patient]}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def memory(heygen: HeyGenSession, http: aiohttp.ClientSession, url: str, *, bare: bool) -> dict[str, Any]:
    """Return the resident memory of a task that waits for a job, or for nothing if *bare*."""
    async with http.post(f"{url}/begin") as response:
        ids = await response.json()
    await heygen.lipsyncs.get(ids[0])
    gc.collect()

    async def nothing(_: str) -> None:
        await asyncio.get_running_loop().create_future()

    before = resident()
    tasks = [asyncio.create_task(nothing(one) if bare else heygen.poller.wait(one)) for one in ids]
    await asyncio.sleep(10)
    size = (resident() - before) / len(ids)
    for task in tasks:
        task.cancel()
    return {"bytes": size}


async def run_client(options: argparse.Namespace) -> None:
    url = f"http://127.0.0.1:{options.port}"
    connector = aiohttp.TCPConnector(limit=100)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        HeyGenSession("key", base_url=url) as heygen,
    ):
        if options.way == "patience":
            result = await patience(heygen, http, url)
        elif options.way in {"memory", "bare"}:
            result = await memory(heygen, http, url, bare=options.way == "bare")
        else:
            result = await measure(http, url, way(options, heygen, http, url), freeze=options.way == FROZEN)
    print(json.dumps(result))


def way(options: argparse.Namespace, heygen: HeyGenSession, http: aiohttp.ClientSession, url: str) -> Wait:
    if options.way in {OURS, FROZEN}:
        return heygen.poller.wait
    if options.way == GET_LOOP:
        return get_loop(heygen, options.interval)
    return peer_loop(http, url, *PEERS[options.way])


# The parent process


def row(way: str, jobs: int, *, interval: float = 0.0, **server: float) -> dict[str, Any]:
    """Run a server and a client, and return what the client measured."""
    this = [sys.executable, __file__]
    given = [part for name, value in server.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with subprocess.Popen(
        [*this, "serve", "--jobs", str(jobs), *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        port = process.stdout.readline().strip()
        client = [*this, "client", "--way", way, "--port", port, "--interval", str(interval)]
        printed = subprocess.run(client, capture_output=True, text=True, check=True).stdout
        process.stdin.close()
    result = json.loads(printed) | {"way": way, "jobs": jobs, **server}
    print(result, file=sys.stderr, flush=True)
    return result


def table(most: list[int]) -> list[dict[str, Any]]:
    """Measure every way with every number of jobs; the other clients' loops with 1,000 at most."""
    rows = []
    for jobs in most:
        for latency in (0.0, 0.15) if jobs >= 1000 else (0.0,):
            ours = row(OURS, jobs, latency=latency)
            rows += [ours, row(GET_LOOP, jobs, latency=latency, interval=2 * ours["late"])]
        if jobs <= 1000:
            rows += [row(peer, jobs) for peer in PEERS]
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| jobs | latency | way | requests a job | late, mean | late, p99 | CPU s | longest turn | collections |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one['jobs']:,} | {one.get('latency', 0) * 1000:.0f} ms | {one['way']} | {one['requests']:.2f} "
        f"| {one['late']:.2f} s ({one['late'] / MEAN:.1%}) | {one['late_p99']:.2f} s ({one['late_p99'] / MEAN:.1%}) "
        f"| {one['cpu']:.1f} | {one['turn'] * 1000:.0f} ms, with gc {one['turn_with_gc'] * 1000:.0f} ms "
        f"| {one['gc']:.1f} s, longest {one['longest_gc'] * 1000:.0f} ms |"
        for one in rows
    ]
    return "\n".join(lines)


def draw(costs: Sequence[VirtualCost]) -> None:
    """Draw requests and delay in virtual time against the number of jobs."""
    import matplotlib as mpl  # noqa: PLC0415 for this part only

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (requests, late) = plt.subplots(1, 2, figsize=(10, 4))
    for name in (OURS, GET_LOOP, *PEERS):
        mine = [one for one in costs if one.way == name]
        style = {"marker": "o", "linewidth": 2.5 if name == OURS else 1.2, "label": name}
        requests.plot([one.jobs for one in mine], [one.requests for one in mine], **style)
        late.plot([one.jobs for one in mine], [100 * one.late for one in mine], **style)
    for axes, title in ((requests, "requests for each finished job"), (late, "mean delay, % of a job's length")):
        axes.set(xscale="log", yscale="log", xlabel="jobs at once", title=title)
        axes.grid(visible=True, alpha=0.3)
    requests.legend()
    figure.tight_layout()
    figure.savefig(HERE / "polling.svg", metadata={"Date": None})


def weather(_: argparse.Namespace) -> str:
    measured = row(OURS, 300, median=20, sigma=0.0, hang_at=19)
    return (
        f"One of three requests hangs for 3 s: of 300 jobs {measured['late_over_2s']} are seen more than 2 s late, the "
        f"other 200 at most {measured['late_200th']:.2f} s."
    )


def patient(_: argparse.Namespace) -> str:
    lates = [row("patience", 100, latency=latency, median=20, sigma=0.1)["late"] for latency in (0.0, 0.15)]
    return (
        "Beside 50 waits a second with a deadline of 0.1 s, one without sees its job "
        f"{lates[0]:.2f} s late ({lates[1]:.2f} s with 150 ms of latency)."
    )


def footprint(options: argparse.Namespace) -> str:
    jobs = 1000 if options.quick else 50_000
    ours, bare = (row(way, jobs, median=1e6)["bytes"] for way in ("memory", "bare"))
    return f"Resident memory of {jobs:,} waits: {ours:,.0f} bytes each, {bare:,.0f} of them the task's own."


def large(options: argparse.Namespace) -> str:
    jobs = 500 if options.quick else 50_000
    return markdown([row(way, jobs, latency=0.15) for way in (OURS, FROZEN)])


# The poller alone, in virtual time


@define
class VirtualServer:
    """The three calls of the poller. The state of a job is that of the middle of each call."""

    lengths: Mapping[str, float]
    latency: float
    counts: Counter[str] = field(factory=Counter)

    async def call(self, name: str, answer: Callable[[], T]) -> T:
        self.counts[name] += 1
        await asyncio.sleep(self.latency / 2)
        result = answer()
        await asyncio.sleep(self.latency / 2)
        return result

    def status(self, lipsync_id: str) -> LipsyncStatus:
        is_over = asyncio.get_running_loop().time() >= self.lengths[lipsync_id]
        return LipsyncStatus.COMPLETED if is_over else LipsyncStatus.RUNNING

    def lipsync(self, lipsync_id: str) -> Lipsync:
        return Lipsync(id=lipsync_id, status=self.status(lipsync_id))

    async def statuses(self, ids: Sequence[str]) -> Mapping[str, LipsyncStatus]:
        return await self.call("statuses", lambda: {one: self.status(one) for one in ids})

    async def get(self, lipsync_id: str) -> Lipsync:
        return await self.call("get", lambda: self.lipsync(lipsync_id))

    async def loop(self, lipsync_id: str, interval: float, jitter: float = 0.0) -> None:
        """Wait as other clients do."""
        while not (await self.get(lipsync_id)).is_terminal:  # noqa: ASYNC110 it is what they do
            await asyncio.sleep(interval + random.uniform(-jitter, jitter))

    async def page(self, token: str | None) -> Page[Lipsync]:
        first, newest = int(token or 0), list(reversed(self.lengths))
        last = first + 100
        return await self.call(
            "list",
            lambda: Page(
                items=[self.lipsync(one) for one in newest[first:last]],
                next_token=str(last) if last < len(newest) else None,
                has_more=last < len(newest),
            ),
        )


def collections(options: argparse.Namespace) -> str:
    jobs = 1000 if options.quick else 50_000
    server = VirtualServer({f"ls_{n:024}": 1000.0 for n in range(jobs)}, latency=0.15)
    poller = LipsyncPoller(statuses=server.statuses, get=server.get, list_page=server.page)
    turns = Turns()

    async def seconds() -> list[float]:
        waits = [asyncio.ensure_future(poller.wait(one)) for one in server.lengths]
        await asyncio.sleep(60)
        started = turns.gc_seconds
        gc.collect()
        full = turns.gc_seconds - started
        gc.freeze()
        gc.collect()
        frozen = turns.gc_seconds - started - full
        for wait in waits:
            wait.cancel()
        return [started, full, frozen]

    gc.collect()
    gc.freeze()
    gc.callbacks.append(turns.on_gc)
    loop = VirtualLoop()
    try:
        started, full, frozen = loop.run_until_complete(seconds())
    finally:
        loop.close()
        gc.callbacks.remove(turns.on_gc)
        gc.unfreeze()
    return (
        f"Garbage collections while {jobs:,} waits start take {started:.2f} s. "
        f"A full one later takes {full * 1000:.0f} ms, and {frozen * 1000:.2f} ms once they are frozen."
    )


@frozen
class VirtualCost:
    way: str
    jobs: int
    requests: float
    """For each job."""
    late: float
    """How late an end is seen, as a share of the mean length."""


def virtual_cost(jobs: int, *, way: str = OURS, interval: float = 0.0, latency: float = 0.15) -> VirtualCost:
    """Wait for so many jobs at once in virtual time, ours by the default policy."""
    rng = random.Random(jobs)
    server = VirtualServer(
        {f"ls_{n:024}": rng.lognormvariate(math.log(MEDIAN), SIGMA) for n in range(jobs)}, latency=latency
    )
    poller = LipsyncPoller(
        statuses=server.statuses, get=server.get, list_page=server.page, random=random.Random(0).random
    )
    waits: dict[str, Wait] = {OURS: poller.wait, GET_LOOP: partial(server.loop, interval=interval)}
    waits |= {peer: partial(server.loop, interval=pause, jitter=jitter) for peer, (pause, jitter) in PEERS.items()}
    loop = VirtualLoop()

    async def lateness(lipsync_id: str) -> float:
        await waits[way](lipsync_id)
        return loop.time() - server.lengths[lipsync_id]

    async def all_of_them() -> list[float]:
        return await asyncio.gather(*map(lateness, server.lengths))

    try:
        late = loop.run_until_complete(all_of_them())
    finally:
        loop.close()
    return VirtualCost(way, jobs, server.counts.total() / jobs, mean(late) / mean(server.lengths.values()))


def virtual(options: argparse.Namespace) -> str:
    costs = []
    for jobs in (10, 100) if options.quick else (10, 100, 1000, 10_000, 50_000):
        ours = virtual_cost(jobs)
        costs.append(ours)
        if jobs <= 1000:
            costs.append(virtual_cost(jobs, way=GET_LOOP, interval=2 * ours.late * MEAN))
            costs += [virtual_cost(jobs, way=peer) for peer in PEERS]
    lines = ["| jobs | way | requests a job | late, mean |", "| ---: | --- | ---: | ---: |"]
    lines += [f"| {one.jobs:,} | {one.way} | {one.requests:.2f} | {one.late:.1%} |" for one in costs]
    if not options.quick:
        draw(costs)
    return "In virtual time, with 150 ms of latency and the default policy:\n\n" + "\n".join(lines)


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "virtual": virtual,
    "collections": collections,
    "weather": weather,
    "patience": patient,
    "memory": footprint,
    "large": large,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["serve", "client"])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["table", *PARTS])
    parser.add_argument("--way")
    parser.add_argument("--port")
    parser.add_argument("--interval", type=float)
    parser.add_argument("--median", type=float, default=MEDIAN)
    parser.add_argument("--sigma", type=float, default=SIGMA)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--hang-at", type=float)
    options = parser.parse_args()
    if options.part == "serve":
        options.jobs = options.jobs[0]
        asyncio.run(serve(options))
    elif options.part == "client":
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TURNS)) as runner:
            runner.run(run_client(options))
    else:
        report(options)


def report(options: argparse.Namespace) -> None:
    text = [f"{platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC):%d %B %Y}"]
    text += [part(options) for name, part in PARTS.items() if options.only in {None, name}]
    if options.only in {None, "table"}:
        rows = table([10, 100] if options.quick else options.jobs)
        text.append(markdown(rows))
    print("\n\n".join(text))
    if options.only is None and not options.quick:
        (HERE / "polling.md").write_text("# Waiting\n\n" + "\n\n".join(text) + "\n\n![](polling.svg)\n")


if __name__ == "__main__":
    main()
