"""Workers and schedulers of a cluster that are killed or frozen at any await: no job is lost or paid for twice."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from cluster_harness import AUDIO, URL, ClusterHarness, open_harness
from test_bulk_executors import Killed, Points

from heygen_async import DubRow, _uptime
from heygen_async.bulk.cluster.accounts import AccountStore, LeaseLost
from heygen_async.bulk.cluster.rows import Ticket
from heygen_async.errors import RateLimited

MOST_POINTS = 400


async def _ends_right(one: ClusterHarness) -> None:
    await one.complete()
    assert await one.stages() == {"done": 3}, await one.errors()
    assert one.jobs() == {"plain": 1, "fails": 2, "local": 1}
    assert one.has_right_files("plain", "fails", "local")


async def _all_of_it(one: ClusterHarness, points: Points, *, who: str) -> None:
    """Schedule and work, one of the two with points."""
    for _ in range(8):
        await one.schedule(points if who == "scheduler" else None)
        await one.work("first", points if who == "worker" else None)


async def _killed(one: ClusterHarness, point: int, who: str) -> bool:
    def kill() -> None:
        raise Killed

    points = Points(point, kill)
    with contextlib.suppress(Killed, BaseExceptionGroup):
        await _all_of_it(one, points, who=who)
    await _ends_right(one)
    return points.was_reached


async def _frozen(one: ClusterHarness, point: int, who: str) -> bool:
    thaw, is_there = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        is_there.set()
        await thaw.wait()

    points = Points(point, stop)
    frozen_one = asyncio.create_task(_all_of_it(one, points, who=who))
    frozen_one.add_done_callback(lambda _: is_there.set())
    await is_there.wait()
    for _ in range(4):  # what the frozen one holds, such as a part of a file, it may keep until it comes back
        await one.schedule()
        await one.work("healthy")
    thaw.set()
    with contextlib.suppress(LeaseLost):
        await frozen_one
    await _ends_right(one)
    return points.was_reached


@pytest.mark.parametrize("who", ["worker", "scheduler"])
@pytest.mark.parametrize("at", [_killed, _frozen], ids=["killed", "frozen"])
async def test_whoever_stops_at_any_await_loses_no_job_and_pays_for_none_twice(  # noqa: PLR0917 fixtures
    at: Callable[[ClusterHarness, int, str], Awaitable[bool]],
    who: str,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every_point: int,
) -> None:
    point = 1
    while True:
        folder = tmp_path / str(point)
        folder.mkdir()
        async with open_harness(database_url, folder, monkeypatch) as one:
            was_reached = await at(one, point, who)
            await one.database.fetch("TRUNCATE heygen.runs, heygen.rows, heygen.accounts, heygen.claims CASCADE")
        if not was_reached:
            break
        point += every_point

    assert 40 < point < MOST_POINTS  # it went through to the end, and there were points on the way


@contextlib.contextmanager
def _frozen_in_each_claim(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """Let the worker be frozen for so long after each claim, before it reads the answer."""
    awake, claim, slept = _uptime.since_boot, AccountStore.claim, []

    async def claim_and_freeze(accounts: AccountStore, ticket: Ticket, worker: str) -> object:
        claimed = await claim(accounts, ticket, worker)
        slept.append(seconds)
        return claimed

    monkeypatch.setattr(_uptime, "since_boot", lambda: awake() + sum(slept))
    with monkeypatch.context() as frozen:
        frozen.setattr(AccountStore, "claim", claim_and_freeze)
        yield
    assert slept


async def test_a_worker_that_was_frozen_while_it_claimed_a_row_does_not_send_a_key_that_is_a_day_old(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch, [DubRow(URL, AUDIO, key="plain")]) as one:
        await one.schedule()
        with _frozen_in_each_claim(monkeypatch, 25 * 3600.0):
            await one.work("frozen")
        assert not one.jobs()
        await one.complete()
        assert one.jobs() == {"plain": 1}


async def test_a_retry_after_counts_from_its_answer_though_the_worker_was_frozen_while_it_claimed_the_row(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> str:
        raise RateLimited("busy", status=429, retry_after=50.0)

    async with open_harness(database_url, tmp_path, monkeypatch, [DubRow(URL, AUDIO, key="plain")]) as one:
        await one.schedule()
        monkeypatch.setattr(one.api, "create", refuse)
        with _frozen_in_each_claim(monkeypatch, 1000.0):
            await one.work("frozen")
        [(wait,)] = await one.database.fetch("SELECT due - extract(epoch FROM clock_timestamp()) FROM heygen.rows")

    assert wait > 1000.0
