"""What waiting costs: requests for each finished job, how late its end is seen, CPU, stalls and memory.

    python benchmarks/polling.py                    # all of it, half an hour; writes polling.md and polling.svg
    python benchmarks/polling.py --jobs 10 100      # no more than so many jobs at once
    python benchmarks/polling.py --only weather     # one part: table, weather, patience, memory

Each row has a server process and a client process. All jobs begin at once. Their lengths are not known to the client;
they are lognormal (median 30 s, sigma 0.4, so 32.5 s in the mean, the longest of 1,000 about 110 s) and the same for
every row. The server is a small fake of the three calls of the poller; each answer takes `--latency`. Objects that
exist before the first wait are frozen, so that the longest turn includes the garbage collection of the waits only.

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
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import aiohttp
from aiohttp import web

from heygen_async import HeyGenSession, PollPolicy, WaitTimeout

MEDIAN, SIGMA = 30.0, 0.4
MEAN = MEDIAN * math.exp(SIGMA**2 / 2)
OURS, FEW, FEW_BULK = "ours", "ours, max_bulk=4", 4
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
        return web.json_response({"ends": self.ends, "counts": self.counts})

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
    """A selector that measures the longest turn of its event loop: from one select to the next."""

    longest = 0.0
    _since: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._since is not None:
            self.longest = max(self.longest, time.perf_counter() - self._since)
        ready = super().select(timeout)
        self._since = time.perf_counter()
        return ready


TURNS = Turns()


async def measure(http: aiohttp.ClientSession, url: str, wait: Wait) -> dict[str, Any]:
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
    TURNS.longest = 0.0
    cpu = time.process_time()
    async with asyncio.TaskGroup() as group:
        for n, lipsync_id in enumerate(ids):
            group.create_task(one(lipsync_id))
            if n % 100 == 99:
                await asyncio.sleep(0)
    cpu = time.process_time() - cpu
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
        "stall": TURNS.longest,
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
    polling = PollPolicy(max_bulk=options.max_bulk)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        HeyGenSession("key", base_url=url, polling=polling) as heygen,
    ):
        if options.way == "patience":
            result = await patience(heygen, http, url)
        elif options.way in {"memory", "bare"}:
            result = await memory(heygen, http, url, bare=options.way == "bare")
        else:
            result = await measure(http, url, way(options, heygen, http, url))
    print(json.dumps(result))


def way(options: argparse.Namespace, heygen: HeyGenSession, http: aiohttp.ClientSession, url: str) -> Wait:
    if options.way in {OURS, FEW}:
        return heygen.poller.wait
    if options.way == "get loop":
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
        bulk = FEW_BULK if way == FEW else PollPolicy().max_bulk
        client = [*this, "client", "--way", way, "--port", port, "--interval", str(interval), "--max-bulk", str(bulk)]
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
            if latency and jobs > 1000:
                rows.append(row(FEW, jobs, latency=latency))
            rows += [ours, row("get loop", jobs, latency=latency, interval=2 * ours["late"])]
        if jobs <= 1000:
            rows += [row(peer, jobs) for peer in PEERS]
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| jobs | latency | way | requests a job | late, mean | late, p99 | CPU s | longest turn |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one['jobs']:,} | {one.get('latency', 0) * 1000:.0f} ms | {one['way']} | {one['requests']:.2f} "
        f"| {one['late']:.2f} s ({one['late'] / MEAN:.1%}) | {one['late_p99']:.2f} s ({one['late_p99'] / MEAN:.1%}) "
        f"| {one['cpu']:.1f} | {one['stall'] * 1000:.0f} ms |"
        for one in rows
    ]
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw requests and delay against the number of jobs."""
    import matplotlib as mpl  # noqa: PLC0415 for this part only

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (requests, late) = plt.subplots(1, 2, figsize=(10, 4))
    for name in (OURS, "get loop", *PEERS):
        mine = [one for one in rows if one["way"] == name and not one.get("latency")]
        style = {"marker": "o", "linewidth": 2.5 if name == OURS else 1.2, "label": name}
        requests.plot([one["jobs"] for one in mine], [one["requests"] for one in mine], **style)
        late.plot([one["jobs"] for one in mine], [one["late"] for one in mine], **style)
    for axes, title in ((requests, "requests for each finished job"), (late, "mean delay in seeing the end, s")):
        axes.set(xscale="log", yscale="log", xlabel="jobs at once", title=title)
        axes.grid(visible=True, alpha=0.3)
    requests.legend()
    figure.tight_layout()
    figure.savefig(HERE / "polling.svg", metadata={"Date": None})


def weather() -> str:
    measured = row(OURS, 300, median=20, sigma=0.0, hang_at=19)
    return (
        f"One of three requests hangs for 3 s: of 300 jobs {measured['late_over_2s']} are seen more than 2 s late, the "
        f"other 200 at most {measured['late_200th']:.2f} s."
    )


def patient() -> str:
    lates = [row("patience", 100, latency=latency, median=20, sigma=0.1)["late"] for latency in (0.0, 0.15)]
    return (
        "Beside 50 waits a second with a deadline of 0.1 s, one without sees its job "
        f"{lates[0]:.2f} s late ({lates[1]:.2f} s with 150 ms of latency)."
    )


def footprint() -> str:
    ours, bare = (row(way, 10_000, median=1e6)["bytes"] for way in ("memory", "bare"))
    return f"Resident memory of 10,000 waits: {ours:,.0f} bytes each, {bare:,.0f} of them the task's own."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["serve", "client"])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--only", choices=["table", "weather", "patience", "memory"])
    parser.add_argument("--way")
    parser.add_argument("--port")
    parser.add_argument("--interval", type=float)
    parser.add_argument("--median", type=float, default=MEDIAN)
    parser.add_argument("--sigma", type=float, default=SIGMA)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--max-bulk", type=int, default=PollPolicy().max_bulk)
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
    parts = {"weather": weather, "patience": patient, "memory": footprint}
    text = [f"{platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC):%d %B %Y}"]
    text += [part() for name, part in parts.items() if options.only in {None, name}]
    if options.only in {None, "table"}:
        rows = table(options.jobs)
        text.append(markdown(rows))
        draw(rows)
    print("\n\n".join(text))
    if options.only is None:
        (HERE / "polling.md").write_text("# Waiting\n\n" + "\n\n".join(text) + "\n\n![](polling.svg)\n")


if __name__ == "__main__":
    main()
