"""What the rows of a run in one process share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from attrs import frozen

from heygen_async.bulk.batches import BatchCollector
from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.effects import Tools
from heygen_async.bulk.events import StageCounter
from heygen_async.bulk.spending import Spending
from heygen_async.bulk.window import Window


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
