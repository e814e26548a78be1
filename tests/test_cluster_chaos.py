"""Workers as processes, and what befalls them: each row gets one job and its right file, whoever is killed or cut off.

`HEYGEN_ASYNC_TEST_CHAOS=1` runs more rows for a longer time; without it they are few.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from benchmarks.cluster_fleet import (
    UPLOAD_SLOTS,
    Fleet,
    Outcome,
    churn,
    clock,
    completed,
    enqueue,
    fleet,
    local_rows,
    outcome,
    until,
    url_rows,
)
from benchmarks.cluster_postgres import binaries, temporary_server
from heygen_async.bulk.cluster import ClusterStatus
from heygen_async.models import DubRow
from heygen_async.sandbox.faults import stall

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.timeout(300),
]

IS_LARGE = bool(os.environ.get("HEYGEN_ASYNC_TEST_CHAOS"))
ROWS = 200 if IS_LARGE else 40
JOB_SECONDS = 2.0 if IS_LARGE else 1.0
KILL_SECONDS = 4.0 if IS_LARGE else 1.5
FROZEN_SECONDS = 12.0 if IS_LARGE else 7.5


def all_is_right(found: Outcome) -> None:
    assert found.jobs == found.rows
    assert found.files == found.rows
    assert found.peak <= 10
    # A worker that is killed or frozen loses the uploads that it has under way, and no others.
    assert found.uploads <= found.rows + UPLOAD_SLOTS * (found.kills + found.freezes)
    assert found.replays <= found.interrupted
    assert found.refusals <= 8 + found.kills


async def run(one: Fleet, rows: Sequence[DubRow], chaos: object = None) -> Outcome:
    started = clock()
    disaster = None if chaos is None else asyncio.create_task(chaos)
    try:
        await completed(one)
    finally:
        if disaster is not None:
            disaster.cancel()
            await asyncio.wait([disaster])
            if not disaster.cancelled() and disaster.exception() is not None:
                raise disaster.exception()
    return await outcome(one, rows, clock() - started, len(rows) * JOB_SECONDS / 10)


@asynccontextmanager
async def working(
    url: str, folder: Path, rows: Sequence[DubRow], workers: int = 4, **settings: object
) -> AsyncIterator[Fleet]:
    async with fleet(url, folder, job_seconds=JOB_SECONDS, **settings) as one:
        await one.start(workers)
        await one.until_alive(workers)
        await enqueue(one, rows)
        yield one


@pytest.mark.parametrize("hunts", [False, True], ids=["any worker", "the scheduler"])
async def test_workers_that_are_killed_and_frozen_lose_no_row(database_url: str, tmp_path: Path, hunts: bool) -> None:
    rows = local_rows(tmp_path, ROWS)
    async with working(database_url, tmp_path, rows) as one:
        found = await run(one, rows, churn(one, KILL_SECONDS, random.Random(1), hunts=hunts, freezes=FROZEN_SECONDS))
        again = await enqueue(one, rows)

    assert one.kills > 0
    all_is_right(found)
    assert again.added == again.changed == 0


async def test_a_database_that_is_killed_loses_no_row(tmp_path: Path) -> None:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL to be killed")
    rows = local_rows(tmp_path, ROWS)
    with temporary_server() as server:
        async with working(server.url, tmp_path, rows) as one:

            async def kill() -> None:
                await until_some(one, "done")
                await asyncio.to_thread(server.kill)
                await one.kill(one.alive()[0])
                await asyncio.to_thread(server.start)
                await one.start()

            found = await run(one, rows, kill())
    all_is_right(found)


async def until_some(one: Fleet, stage: str, count: int = 1) -> ClusterStatus:
    found: list[ClusterStatus] = []

    async def are_there() -> bool:
        found[:] = [await one.cluster.status()]
        return found[0].runs[0].rows.get(stage, 0) >= count

    await until(are_there, 60)
    return found[0]


async def test_all_workers_killed_while_all_seats_are_held_and_started_again(database_url: str, tmp_path: Path) -> None:
    rows = local_rows(tmp_path, ROWS)
    async with working(database_url, tmp_path, rows) as one:
        await until_some(one, "flight", 10)
        await one.kill_all()
        assert (await enqueue(one, rows)).added == 0
        await one.start(4)
        found = await run(one, rows)
    all_is_right(found)


async def test_a_worker_that_is_killed_loses_the_uploads_that_it_has_under_way_and_no_others(
    database_url: str, tmp_path: Path
) -> None:
    rows = local_rows(tmp_path, UPLOAD_SLOTS + 5)
    async with working(database_url, tmp_path, rows[:5], workers=1) as one:
        await completed(one)
        assert uploads(one) == 5
        one.sandbox.faults.append(stall("POST /v3/assets", after=True))
        await enqueue(one, rows)
        await until_held(one, "prepare", UPLOAD_SLOTS)
        await until_uploads(one, 5 + UPLOAD_SLOTS)
        await one.kill(one.members[0])
        one.sandbox.faults.clear()
        await one.start()
        found = await run(one, rows)
    assert found.uploads == found.rows + UPLOAD_SLOTS
    assert found.jobs == found.files == found.rows


def uploads(one: Fleet) -> int:
    return sum(request.route == "POST /v3/assets" for request in one.sandbox.requests)


async def until_uploads(one: Fleet, count: int) -> None:
    async def are_there() -> bool:
        return uploads(one) >= count

    await until(are_there, 60)


async def until_held(one: Fleet, stage: str, count: int) -> None:
    async def are_there() -> bool:
        return count == len(
            await one.cluster._database.fetch(
                "SELECT 1 FROM rows WHERE holder IS NOT NULL AND stage = %(stage)s", {"stage": stage}
            )
        )

    await until(are_there, 60)


async def test_a_worker_that_is_told_to_end_puts_back_what_it_transfers(database_url: str, tmp_path: Path) -> None:
    rows = url_rows(6)
    async with working(database_url, tmp_path, rows, workers=1, latency={"GET /files/{name}": 3600.0}) as one:
        await until_some(one, "download", 4)
        (member,) = one.members
        member.signal(signal.SIGTERM)
        await member.ended()  # an hour before its downloads would
        held = await one.cluster._database.fetch("SELECT key, stage, version FROM rows WHERE holder IS NOT NULL")
        (account,) = (await one.cluster.status()).accounts

    assert held == [], one.log()[-3000:]
    assert (account.workers, account.scheduler) == ((), None)
    assert "Traceback" not in one.log()


class CuttingProxy:
    """Passes bytes to the database and back, and now and then cuts a connection instead of passing an answer."""

    def __init__(self, port: int, every: int) -> None:
        self._target = port
        self._every = every
        self._answers = 0
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            its_reader, its_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        there = asyncio.create_task(self._pass(reader, its_writer))
        back = asyncio.create_task(self._pass(its_reader, writer, cuts=True))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.wait([there, back])
            for one in (writer, its_writer):
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cuts: bool = False) -> None:
        while data := await reader.read(65536):
            self._answers += cuts
            if cuts and self._answers % self._every == 0:
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()


async def test_answers_of_the_database_that_are_lost_cost_no_row(database_url: str, tmp_path: Path) -> None:
    rows = local_rows(tmp_path, ROWS)
    port = int(database_url.rpartition(":")[2].partition("/")[0])
    proxy = CuttingProxy(port, every=53)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        here = server.sockets[0].getsockname()[1]
        env = {"HEYGEN_DATABASE_URL": database_url.replace(f":{port}/", f":{here}/")}
        async with fleet(database_url, tmp_path, job_seconds=JOB_SECONDS) as one:
            await enqueue(one, rows)
            await one.start(3, env=env)
            found = await run(one, rows)
            await one.kill_all()
    assert proxy.cuts > 5
    assert found.jobs == found.rows == found.files
    assert found.peak <= 10


async def test_a_long_manifest_is_enqueued_once(database_url: str, tmp_path: Path) -> None:
    rows = url_rows(10_000 if IS_LARGE else 1_000)
    async with fleet(database_url, tmp_path) as one:
        first, again = await enqueue(one, rows), await enqueue(one, rows)
        status = await one.cluster.status()

    assert (first.added, again.added, again.changed) == (len(rows), 0, 0)
    assert status.runs[0].rows == {"ready": len(rows)}
