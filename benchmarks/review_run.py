# ruff: noqa: ANN401 a meter takes any function
"""A run with an open page, without one, or with one whose work is metered, in a process of its own.

`python -m benchmarks.review_run COUNT KIND URL KEY` prints the address of the page, then the CPU time of the run and
that of the page alone. `live_run` starts it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web

from benchmarks.processes import ENVIRON, ROOT
from heygen_async import DubRow, HeyGenSession, PollPolicy
from heygen_async.bulk.events import DubEvent, DubSnapshot
from heygen_async.bulk.journal import Journal
from heygen_async.cli.dub_progress import RunProgress
from heygen_async.review import LiveRows, LiveRun, RunPage, run_view
from heygen_async.sandbox import Sandbox

Kind = Literal["plain", "page", "metered"]


async def live_run(count: int, kind: Kind) -> tuple[float, float]:
    """Run rows in a process of their own; return its CPU time and that of the page alone, if it is metered."""
    async with Sandbox(speed=20, job_seconds=20, balance=1e6) as sandbox:
        words = (str(count), kind, sandbox.url, sandbox.api_key)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.review_run", *words, stdout=subprocess.PIPE, env=ENVIRON, cwd=ROOT
        )
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(http, url)) if url else None
            cost, own = json.loads(await process.stdout.readline())
            if watching is not None:
                watching.cancel()
            await process.wait()
        return cost, own


async def _watch(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(f"{url}rows") as answer:
        await answer.read()
    try:
        async with http.get(f"{url}events", timeout=aiohttp.ClientTimeout(total=None)) as events:
            async for _ in events.content:
                pass
    except aiohttp.ClientError:
        pass


# Its process


class Meter:
    """Adds up the CPU time of what the page does, in any thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_on: ContextVar[bool] = ContextVar("is_on", default=False)

    def call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return *function*, metered."""

        def metered(*arguments: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.thread_time() - started

        return metered

    @types.coroutine
    def drive(self, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Run a coroutine, each of its steps metered."""
        self._is_on.set(True)
        send, throw, value, error = self.call(work.send), self.call(work.throw), None, None
        while True:
            try:
                waited = send(value) if error is None else throw(error)
            except StopIteration as end:
                return end.value
            try:
                value, error = (yield waited), None
            except BaseException as found:  # noqa: BLE001 it goes on to the work
                error = found

    def attach(self, journal: Journal) -> None:
        """Meter what a journal does in its thread for the page."""
        in_turn = journal.in_turn

        async def metered(job: Callable[[], Any]) -> Any:
            return await in_turn(self.call(job) if self._is_on.get() else job)

        journal.in_turn = metered  # type: ignore[method-assign]


class MeteredPage(RunPage):
    """The run page, with a meter."""

    meter: Meter

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        answer: web.StreamResponse = await self.meter.drive(RunPage._guarded(self, request, handler))  # noqa: SLF001
        return answer


async def run(count: int, kind: str, url: str, key: str) -> None:
    """Run rows, and print the CPU time of it; the process of `live_run`."""
    polling = PollPolicy(fastest=0.25, slowest=1.0)
    given = [
        DubRow(f"https://sandbox.invalid/{n}.mp4", "https://example.com/a.mp3", key=f"row-{n}") for n in range(count)
    ]
    progress, live_rows, meter = RunProgress(time.monotonic), LiveRows(time.monotonic), Meter()
    follow = meter.call(live_rows.on_event) if kind == "metered" else live_rows.on_event

    def on_event(event: DubEvent) -> None:
        progress.on_event(event)  # as `dub` does without a page too
        if kind != "plain":
            follow(event)

    with tempfile.TemporaryDirectory() as name:
        async with HeyGenSession(key, base_url=url, polling=polling) as heygen:
            options: dict[str, Any] = {"journal": Path(name) / "run.sqlite", "output_dir": Path(name) / "out"}
            async with heygen.dub_many(given, **options, on_event=on_event) as running:
                if kind == "plain":
                    print(json.dumps(None), flush=True)
                    await _spend(running, meter)
                    return

                def state() -> Any:
                    return run_view(running.snapshot(), pace, elapsed=live_rows.elapsed, has_ended=False)

                rows_by_key = {str(row.key): row for row in given}
                live_run = LiveRun(rows=live_rows, state=state)
                kind_of_page = MeteredPage if kind == "metered" else RunPage
                shown = kind_of_page(journal=running.journal, name="run", rows=rows_by_key, live=live_run)
                if isinstance(shown, MeteredPage):
                    shown.meter = meter
                    meter.attach(running.journal)
                async with shown.served() as page:
                    print(json.dumps(page), flush=True)
                    await _spend(running, meter)


def pace(_snapshot: DubSnapshot) -> tuple[float | None, float | None]:
    return None, None


async def _spend(running: Any, meter: Meter) -> None:
    before, own = time.process_time(), meter.seconds
    async for outcome in running:
        assert outcome.state == "completed", outcome
    print(json.dumps([time.process_time() - before, meter.seconds - own]), flush=True)


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), *sys.argv[2:]))
