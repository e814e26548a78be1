# ruff: noqa: ANN401, ARG002 a fake has the signatures of what it stands for
"""A HeyGen without a wire, in time that jumps: for tests and benchmarks of whole runs.

`VirtualLoop` is an event loop whose time goes to the next timer. `Server` is the sandbox's world behind a network that
takes time, and `FakeHeyGen` is what a bulk run needs of it: `heygen_async.bulk.store.HeyGen`. `BatchHeyGen` is the same
for batches alone; it takes any number of jobs and forgets the oldest, so that its own cost is the same for each row.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from heygen_async.bulk.budget import RATES
from heygen_async.bulk.store import DownloadProgress
from heygen_async.errors import NotFound, RateLimited
from heygen_async.models import (
    Account,
    AssetId,
    BatchItem,
    Lipsync,
    LipsyncOptions,
    LipsyncRequest,
    LipsyncStatus,
    Source,
)
from heygen_async.pagination import Page, Paginator
from heygen_async.policies import PollPolicy
from heygen_async.polling import LipsyncPoller
from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.paged_store import Ids
from heygen_async.sandbox.state.scripts import JobScript
from heygen_async.sandbox.state.world import SimulatedItem, SimulatedJob, World

CREATE, READ, RETRY_AFTER = 0.3, 0.1, 5.0
"""Seconds: how long a create and a read take, and the `Retry-After` of a refused create."""

T = TypeVar("T")

Limit = Callable[[float], int]
"""How many jobs an account takes at a time."""


# Time that jumps


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer; work for threads is done in its next turn."""

    def __init__(self) -> None:
        super().__init__(_Leaper(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]  # plain arguments will do
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        self.call_soon(_work, future, partial(func, *args))
        return future


def _work(future: asyncio.Future[Any], work: Callable[[], Any]) -> None:
    if future.cancelled():
        return
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 whoever awaits it gets it
        future.set_exception(error)


class _Leaper(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events and timeout:
            self._loop.now += timeout
        return events


# A HeyGen without a wire


class Server:
    """The sandbox's world behind a network that takes time."""

    def __init__(self, lengths: Mapping[str, float], limit: Limit) -> None:
        self.limit = limit
        settings = Settings(
            account_limit=limit(0.0),
            balance=1e9,
            rates=RATES,
            retry_after=RETRY_AFTER,
            job_seconds=lambda body: lengths[str(body["callback_id"]).partition(".")[0]],
        )
        self.world = World(Ids(0), settings)
        self.asked: Counter[str] = Counter()
        self.refused = 0

    def now(self) -> float:
        now = asyncio.get_running_loop().time()
        self.world.settle(now)
        self.world.resize(now, account_limit=self.limit(now), other_jobs=0)
        return now

    async def call(self, name: str, seconds: float, work: Callable[[], T]) -> T:
        """Answer a request: half of the time goes by before it is worked on, and half after."""
        self.asked[name] += 1
        await asyncio.sleep(seconds / 2)
        self.now()
        try:
            return work()
        except ErrorAnswer as refusal:
            self.refused += refusal.status == 429
            kind = RateLimited if refusal.status == 429 else NotFound
            raise kind(
                refusal.message, status=refusal.status, retry_after=refusal.retry_after, outcome="rejected"
            ) from None
        finally:
            await asyncio.sleep(seconds / 2)

    def lipsync(self, job: SimulatedJob) -> Lipsync:
        now = self.now()
        return Lipsync(
            id=job.id,
            status=LipsyncStatus(job.state(now)),
            callback_id=str(job.body["callback_id"]),
            duration=job.script.duration if job.ended_at is not None else None,
        )


class FakeHeyGen:
    """What a bulk run needs of the API, answered by a server in virtual time. Nothing is uploaded or downloaded."""

    def __init__(self, server: Server, policy: PollPolicy | None = None) -> None:
        self.server = server
        self.poller = LipsyncPoller(
            statuses=self.statuses, get=self.get, list_page=self.page, policy=policy, random=random.Random(0).random
        )

    @property
    def polling(self) -> PollPolicy:
        return self.poller.policy

    async def create(
        self, key: str, *, key_age: Callable[[], float], video: Source, audio: Source, options: LipsyncOptions
    ) -> str:
        server = self.server
        body: dict[str, object] = {"video": video, "audio": audio, **options}
        job = await server.call(
            "create", CREATE, lambda: server.world.create(body, JobScript(duration=4.0), server.now())
        )
        return job.id

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest], *, key_age: Callable[[], float]) -> str:
        server = self.server
        entries = [({"callback_id": one.callback_id, "mode": one.mode}, JobScript(duration=4.0)) for one in requests]
        make = lambda: server.world.create_batch(entries, {}, server.now())  # noqa: E731
        return (await server.call("create_batch", CREATE, make)).id

    async def batch(self, batch_id: str) -> AsyncIterator[Page[BatchItem]]:
        server = self.server
        look = lambda: [  # noqa: E731
            _item(index, item, server.now()) for index, item in enumerate(server.world.batch(batch_id).items)
        ]
        yield Page(items=await server.call("batch", READ, look))

    async def batch_status(self, batch_id: str) -> LipsyncStatus:
        return LipsyncStatus.RUNNING

    async def get(self, lipsync_id: str) -> Lipsync:
        server = self.server
        return await server.call("get", READ, lambda: server.lipsync(server.world.job(lipsync_id)))

    async def statuses(self, ids: Sequence[str]) -> Mapping[str, LipsyncStatus]:
        server = self.server
        look = lambda: {one: LipsyncStatus(server.world.job(one).state(server.now())) for one in ids}  # noqa: E731
        return await server.call("statuses", READ, look)

    async def page(self, token: str | None) -> Page[Lipsync]:
        server = self.server
        jobs, before = await server.call("list", READ, lambda: server.world.page(100, int(token) if token else None))
        cursor = None if before is None else str(before)
        return Page(items=[server.lipsync(job) for job in jobs], next_token=cursor, has_more=before is not None)

    def list(self, *, page_size: int) -> AsyncIterator[Page[Lipsync]]:
        return Paginator(self.page).pages()

    async def wait(self, lipsync_id: str, *, since: float | None, policy: PollPolicy | None) -> Lipsync:
        # The poller takes ages from the wall clock, whose microseconds would make every run different. A job
        # that will be created in an hour has the age 0.
        created_at = None if since is None else datetime.now(UTC) + timedelta(hours=1)
        return await self.poller.wait(lipsync_id, created_at=created_at, policy=policy)

    async def me(self) -> Account:
        raise NotFound("this account has no name", status=404, code="not_found")

    async def upload(self, source: Source, sha256: str) -> AssetId:
        raise NotImplementedError

    def forget_upload(self, asset_id: str) -> None:
        raise NotImplementedError

    def claim(self, path: Path) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def download(
        self, lipsync: Lipsync | str, path: Path, *, overwrite: bool, progress: DownloadProgress
    ) -> Path:
        raise NotImplementedError

    async def download_captions(self, lipsync: Lipsync | str, path: Path, *, overwrite: bool) -> Path:
        raise NotImplementedError


def _item(index: int, item: SimulatedItem, now: float) -> BatchItem:
    words = {"queued": "pending", "processing": "running"}
    state = item.state(now)
    return BatchItem(
        item_index=index,
        status=LipsyncStatus(words.get(state, state)),
        lipsync_id=item.job.id if item.job else None,
    )


class BatchHeyGen(FakeHeyGen):
    """A HeyGen whose jobs take a minute, however many there are. It knows the newest jobs only."""

    _KNOWN = 5000
    _SECONDS = 60.0

    def __init__(self) -> None:
        super().__init__(Server({}, lambda _: 1))
        self._ends: dict[str, float] = {}
        self._batches: dict[str, Sequence[str]] = {}
        self._rng = random.Random(0)

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest], *, key_age: Callable[[], float]) -> str:
        now = await self._answered("create_batch", CREATE)
        ids = [f"ls_{self._rng.randbytes(12).hex()}" for _ in requests]
        self._ends |= dict.fromkeys(ids, now + self._SECONDS)
        self._batches[key] = ids
        for one in list(islice(self._ends, max(0, len(self._ends) - self._KNOWN))):
            del self._ends[one]
        for one in list(islice(self._batches, max(0, len(self._batches) - self._KNOWN // 100))):
            del self._batches[one]
        return key

    async def batch(self, batch_id: str) -> AsyncIterator[Page[BatchItem]]:
        now = await self._answered("batch", READ)
        statuses = ((one, self._status(one, now)) for one in self._batches[batch_id])
        yield Page(items=[BatchItem(item_index=n, status=it, lipsync_id=one) for n, (one, it) in enumerate(statuses)])

    async def get(self, lipsync_id: str) -> Lipsync:
        now = await self._answered("get", READ)
        return Lipsync(id=lipsync_id, status=self._status(lipsync_id, now), duration=4.0)

    async def page(self, token: str | None) -> Page[Lipsync]:
        now = await self._answered("list", READ)
        first, newest = int(token or 0), list(reversed(self._ends))
        items = [Lipsync(id=one, status=self._status(one, now), duration=4.0) for one in newest[first : first + 100]]
        has_more = first + 100 < len(newest)
        return Page(items=items, next_token=str(first + 100) if has_more else None, has_more=has_more)

    def _status(self, lipsync_id: str, now: float) -> LipsyncStatus:
        return LipsyncStatus.COMPLETED if now >= self._ends[lipsync_id] else LipsyncStatus.RUNNING

    async def _answered(self, name: str, seconds: float) -> float:
        self.server.asked[name] += 1
        await asyncio.sleep(seconds)
        return asyncio.get_running_loop().time()
