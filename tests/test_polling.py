"""The poller's shell, in virtual time, against a recording server of three callables."""

import asyncio

import pytest
from attrs import define, field

from heygen_async.errors import LipsyncFailed, NotFound, WaitTimeout
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.polling import LipsyncPoller

pytestmark = pytest.mark.looptime


@define
class Page:
    items: list
    next_token: str | None = None
    has_more: bool = False


@define
class Server:
    """Jobs that end at a time, and what was asked about them."""

    latency: float = 0.02
    jobs: dict[str, tuple[float, LipsyncStatus]] = field(factory=dict)
    looks: list[list[str]] = field(factory=list)
    fetches: list[str] = field(factory=list)
    pages: list[str | None] = field(factory=list)

    def add(self, lipsync_id, *, lasts=10.0, ends=LipsyncStatus.COMPLETED):
        self.jobs[lipsync_id] = (asyncio.get_running_loop().time() + lasts, ends)
        return lipsync_id

    def status(self, lipsync_id):
        until, ends = self.jobs[lipsync_id]
        return ends if asyncio.get_running_loop().time() >= until else LipsyncStatus.RUNNING

    async def statuses(self, ids):
        self.looks.append(list(ids))
        await asyncio.sleep(self.latency)
        return {one: self.status(one) if one in self.jobs else LipsyncStatus.NOT_FOUND for one in ids}

    async def get(self, lipsync_id):
        self.fetches.append(lipsync_id)
        await asyncio.sleep(self.latency)
        if lipsync_id not in self.jobs:
            raise NotFound("no such lipsync", status=404)
        return Lipsync(id=lipsync_id, status=self.status(lipsync_id))

    async def list_page(self, token):
        self.pages.append(token)
        await asyncio.sleep(self.latency)
        start = int(token or 0)
        ids = list(reversed(self.jobs))
        items = [Lipsync(id=one, status=self.status(one)) for one in ids[start : start + 100]]
        return Page(items, str(start + 100), start + 100 < len(ids))

    def poller(self, **options):
        return LipsyncPoller(statuses=self.statuses, get=self.get, list_page=self.list_page, **options)


async def test_a_wait_returns_the_completed_lipsync():
    server = Server()
    server.add("ls_1", lasts=10)

    lipsync = await server.poller().wait("ls_1")

    assert lipsync == Lipsync(id="ls_1", status=LipsyncStatus.COMPLETED)
    assert server.fetches == ["ls_1"]


async def test_a_failed_job_raises_with_the_lipsync():
    server = Server()
    server.add("ls_1", ends=LipsyncStatus.FAILED)

    with pytest.raises(LipsyncFailed) as caught:
        await server.poller().wait("ls_1")
    assert caught.value.lipsync.id == "ls_1"


async def test_an_unknown_id_is_not_found():
    with pytest.raises(NotFound):
        await Server().poller().wait("ls_1")


async def test_a_wait_that_takes_too_long_tells_the_last_status():
    server = Server()
    server.add("ls_1", lasts=1000)

    with pytest.raises(WaitTimeout) as caught:
        await server.poller().wait("ls_1", timeout=5)
    assert (caught.value.lipsync_id, caught.value.last_status) == ("ls_1", "running")


async def test_waits_share_their_requests():
    server = Server()
    poller = server.poller()
    ids = [server.add(f"ls_{n}", lasts=100) for n in range(100)]

    await asyncio.gather(*(poller.wait(one) for one in ids for _ in range(3)))

    assert all(len(look) == 100 for look in server.looks[:-1])
    assert len(server.fetches) + len(server.pages) <= 100


async def test_as_completed_yields_in_the_order_of_completion():
    server = Server()
    ids = [server.add(f"ls_{n}", lasts=200 - 20 * n) for n in range(5)]

    seen = [lipsync.id async for lipsync in server.poller().as_completed([*ids, "ls_bad"])]

    assert seen == ["ls_bad", *reversed(ids)]


async def test_updates_yield_each_status_once():
    server = Server()
    server.add("ls_1", lasts=10)

    assert [word async for word in server.poller().updates("ls_1")] == ["running", "completed"]


async def test_close_ends_every_wait():
    server = Server()
    server.add("ls_1", lasts=100)
    poller = server.poller()
    task = asyncio.create_task(poller.wait("ls_1"))
    await asyncio.sleep(5)

    poller.close()

    with pytest.raises(RuntimeError, match="closed"):
        await task
    with pytest.raises(RuntimeError, match="closed"):
        await poller.wait("ls_1")
