"""What the library costs beside its parts: calls, the import and the command line, as ratios.

    python benchmarks/overhead.py                 # all of it, about three minutes
    python benchmarks/overhead.py --only calls    # one part: calls, instructions, start
    python benchmarks/overhead.py --quick         # one short round of each, to see that it works: no figures to quote

`calls`: CPU seconds of the client process for each call, against aiohttp and orjson by hand on the same server (another
process), 50 at once, no two calls alike, in alternating rounds. `lipsyncs.get` is also compared with an equal call of
OpenAI's client on aiohttp, if that is installed (`pip install -r benchmarks/requirements.txt`).
`instructions`: the same calls under cachegrind, over connections in memory: what another process does has no influence.
`start`: CPU of fresh processes that import the session or run a command.

Ratios of medians: the machine's own speed cancels out. The goal of each figure is printed beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from statistics import median

import aiohttp
import orjson
from canned_heygen import IDS, InMemory, Served

from heygen_async import HeyGenSession

AT_ONCE = 50
ROUNDS = 15
CALLS = {"get": 2_000, "statuses": 300, "page": 300, "create": 1_000}
GOALS = {"get": 1.22, "statuses": 2.0, "page": 3.5, "create": 1.35}
OPENAI_GOAL = 5.5
COUNTED = {"get": 500, "statuses": 100, "page": 100, "create": 300}
ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""With byte code kept, as an installed package has it."""

Call = Callable[[], Awaitable[object]]


# The calls


def by_hand(http: aiohttp.ClientSession, url: str) -> Mapping[str, Call]:
    """Return the calls with aiohttp and orjson alone."""
    number = count()

    async def get() -> None:
        async with http.get(f"{url}/v3/lipsyncs/ls_{next(number):06}") as response:
            response.raise_for_status()
            orjson.loads(await response.read())

    async def statuses() -> None:
        params = {"lipsync_ids": ",".join([*IDS[1:], f"ls_{next(number):024}"])}
        async with http.get(f"{url}/v3/lipsyncs/statuses", params=params) as response:
            response.raise_for_status()
            _ = {entry["video_id"]: entry["status"] for entry in orjson.loads(await response.read())["data"]}

    async def page() -> None:
        async with http.get(f"{url}/v3/lipsyncs", params={"limit": 100, "token": f"t{next(number)}"}) as response:
            response.raise_for_status()
            orjson.loads(await response.read())

    async def create() -> None:
        n = next(number)
        body = {"video": link(n, "mp4"), "audio": link(n, "mp3"), "mode": "speed", "title": "x"}
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        async with http.post(f"{url}/v3/lipsyncs", data=orjson.dumps(body), headers=headers) as response:
            response.raise_for_status()
            orjson.loads(await response.read())

    def link(n: int, kind: str) -> dict[str, str]:
        return {"type": "url", "url": f"https://example.com/{n}.{kind}"}

    return {"get": get, "statuses": statuses, "page": page, "create": create}


def typed(heygen: HeyGenSession) -> Mapping[str, Call]:
    """Return the same calls of the library."""
    number = count()
    lipsyncs = heygen.lipsyncs

    def create() -> Awaitable[object]:
        n = next(number)
        video, audio = f"https://example.com/{n}.mp4", f"https://example.com/{n}.mp3"
        return lipsyncs.create(video=video, audio=audio, title="x")

    return {
        "get": lambda: lipsyncs.get(f"ls_{next(number):06}"),
        "statuses": lambda: lipsyncs.statuses([*IDS[1:], f"ls_{next(number):024}"]),
        "page": lambda: lipsyncs.list(page_size=100, token=f"t{next(number)}").first(),
        "create": create,
    }


async def cpu(call: Call, calls: int) -> float:
    """Make the calls, so many at once, and return the CPU seconds for each."""

    async def worker() -> None:
        for _ in range(calls // AT_ONCE):
            await call()

    gc.collect()
    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return (time.process_time() - started) / calls


async def medians(contenders: Mapping[str, Call], calls: int, rounds: int) -> dict[str, float]:
    """Run the contenders in turn, after one round that does not count."""
    for call in contenders.values():
        await cpu(call, calls)
    figures = [{name: await cpu(call, calls) for name, call in contenders.items()} for _ in range(rounds)]
    return {name: median(figure[name] for figure in figures) for name in contenders}


async def measure_calls(url: str, sizes: Mapping[str, int], rounds: int) -> None:
    print(f"CPU a call, {AT_ONCE} at once")
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers={"X-Api-Key": "key"}) as http,
        HeyGenSession("key", base_url=url) as heygen,
    ):
        hand, ours = by_hand(http, url), typed(heygen)
        for name, calls in sizes.items():
            found = await medians({"bare": hand[name], "typed": ours[name]}, calls, rounds)
            show(name, found["bare"] * 1e6, found["typed"] * 1e6, "us", GOALS[name])
        await measure_openai(url, ours["get"], sizes["get"], rounds)


async def measure_openai(url: str, get: Call, calls: int, rounds: int) -> None:
    if importlib.util.find_spec("openai") is None:
        print("  openai     skipped: it is not installed (pip install -r benchmarks/requirements.txt)")
        return
    from openai import AsyncOpenAI, DefaultAioHttpClient  # noqa: PLC0415 optional

    number = count()
    async with AsyncOpenAI(api_key="key", base_url=f"{url}/v1", http_client=DefaultAioHttpClient()) as client:
        theirs = lambda: client.files.retrieve(f"file-{next(number):06}")  # noqa: E731 as the calls above
        found = await medians({"typed": get, "openai": theirs}, calls, rounds)
    ratio = found["openai"] / found["typed"]
    print(f"  openai     typed {found['typed'] * 1e6:.0f} us, openai {found['openai'] * 1e6:.0f} us: ", end="")
    print(f"x{ratio:.2f} of ours (goal: at least {OPENAI_GOAL})")


def show(name: str, bare: float, ours: float, unit: str, goal: float) -> None:
    print(f"  {name:10} bare {bare:.0f} {unit}, typed {ours:.0f} {unit}: x{ours / bare:.3f} (goal {goal})")


# Instructions


async def call_in_memory(who: str, name: str, calls: int) -> None:
    """Make *calls* calls over connections in memory; the process is counted by cachegrind."""
    url = "http://127.0.0.1:1"
    async with (
        aiohttp.ClientSession(connector=InMemory(limit=0), headers={"X-Api-Key": "key"}) as http,
        HeyGenSession("key", base_url=url, http=http) as heygen,
    ):
        await cpu({"bare": by_hand(http, url), "typed": typed(heygen)}[who][name], calls)


def instructions(who: str, name: str) -> float:
    """Return the instructions of one call: those of many less those of few, so that the start does not count."""
    few, many = AT_ONCE, AT_ONCE + COUNTED[name] // AT_ONCE * AT_ONCE
    return (counted(who, name, many) - counted(who, name, few)) / (many - few)


def counted(who: str, name: str, calls: int) -> int:
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command = [*tool, sys.executable, __file__, "--in-memory", who, name, str(calls)]
    env = {**ENVIRON, "PYTHONHASHSEED": "0"}
    report = subprocess.run(command, check=True, env=env, capture_output=True, text=True).stderr
    found = re.search(r"I +refs: +([0-9,]+)", report)
    assert found is not None, report
    return int(found[1].replace(",", ""))


def measure_instructions(*, is_quick: bool) -> None:
    if is_quick:
        for name in CALLS:
            for who in ("bare", "typed"):
                asyncio.run(call_in_memory(who, name, AT_ONCE))
        print("Instructions a call: not counted, each call was only made in memory")
    elif shutil.which("valgrind") is None:
        print("Instructions a call: skipped, valgrind is not installed")
    else:
        print("Instructions a call, in memory (no goals: without the kernel's work a ratio is higher than that of CPU)")
        counted("typed", "get", AT_ONCE)  # keeps the byte code, or the first figure would contain the compilation
        for name in CALLS:
            bare, ours = instructions("bare", name), instructions("typed", name)
            print(f"  {name:10} bare {bare:,.0f}, typed {ours:,.0f}: x{ours / bare:.3f}", flush=True)


# Fresh processes


def cpu_of(*command: str) -> float:
    """Run a Python process, and return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, env=ENVIRON, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_start(url: str, rounds: int) -> None:
    print("CPU of fresh processes")
    programs = {
        "python": ("-c", "pass"),
        "aiohttp": ("-c", "import aiohttp"),
        "session": ("-c", "import heygen_async.session"),
        "help": ("-m", "heygen_async", "--help"),
        "get": ("-m", "heygen_async", "lipsync", "get", "ls_abc123"),
    }
    ENVIRON.update(HEYGEN_API_KEY="key", HEYGEN_BASE_URL=url)
    for command in programs.values():
        cpu_of(*command)
    runs = [{name: cpu_of(*command) for name, command in programs.items()} for _ in range(rounds)]
    found = {name: median(run[name] for run in runs) * 1e3 for name in programs}
    show("import", found["aiohttp"], found["session"], "ms", 1.30)
    for name, goal in (("help", 200), ("get", 230)):
        command = " ".join(("heygen-async", *programs[name][2:]))
        print(f"  {command}: {found[name] - found['python']:.0f} ms beyond Python's own (goal {goal})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["calls", "instructions", "start"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="one short round of each part; nothing is counted")
    parser.add_argument("--in-memory", nargs=3, metavar=("WHO", "CALL", "CALLS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_memory:
        who, name, calls = options.in_memory
        asyncio.run(call_in_memory(who, name, int(calls)))
        return
    sizes, rounds = (dict.fromkeys(CALLS, AT_ONCE), 1) if options.quick else (CALLS, options.rounds)
    with Served() as url:
        if options.only in (None, "calls"):
            asyncio.run(measure_calls(url, sizes, rounds))
        if options.only in (None, "start"):
            measure_start(url, rounds)
    if options.only in (None, "instructions"):
        measure_instructions(is_quick=options.quick)


if __name__ == "__main__":
    main()
