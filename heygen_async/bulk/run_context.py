"""What the rows of a run in one process share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container

from attrs import Factory, define, field, frozen

from heygen_async.bulk.batches import BatchCollector
from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.effects import Tools
from heygen_async.bulk.events import StageCounter
from heygen_async.bulk.spending import Spending
from heygen_async.bulk.store import HeyGen
from heygen_async.bulk.window import Window


@define(eq=False)
class AccountJobs:
    """The jobs that the account has: its whole list, read once in a run, when that is first needed."""

    _heygen: HeyGen
    _ids: Container[str | None] | None = None
    _lock: asyncio.Lock = field(factory=asyncio.Lock)

    async def ids(self) -> Container[str | None]:
        """Return their ids.

        Raises:
            HeyGenError: If the list cannot be read to its end.
        """
        async with self._lock:
            if self._ids is None:
                self._ids = {job.id async for page in self._heygen.list(page_size=100) for job in page.items}
            return self._ids


@frozen(kw_only=True)
class RunContext:
    """What the rows of a run share."""

    tools: Tools
    queue: CreateQueue
    spending: Spending
    stages: StageCounter
    batches: BatchCollector
    window: Window
    downloads: asyncio.Semaphore
    max_attempts: int
    retry_failed: bool
    is_batching: bool
    check_account: Callable[[], Awaitable[None]]
    """Checks, once in a run, that the key belongs to the store's account."""
    account_jobs: AccountJobs = field(
        init=False, default=Factory(lambda self: AccountJobs(self.tools.heygen), takes_self=True)
    )
