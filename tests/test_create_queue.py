"""The queue before creates, and what it leaves behind."""

import asyncio
import contextlib
import gc

from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.limits import CircuitBreaker, Limiter
from heygen_async.bulk.row_source import new_snapshot


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_rows_that_are_cancelled_while_they_wait_leave_no_timer() -> None:
    queue = CreateQueue(Limiter(), CircuitBreaker())
    queue.note_failure()
    waiting = [asyncio.create_task(queue.enter(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert queue._timer is not None

    for task in waiting:
        await _cancel(task)
    assert queue._timer is None


async def test_a_snapshot_that_is_cancelled_while_its_file_is_opened_leaves_no_file() -> None:
    async def open_one() -> None:
        async with new_snapshot():
            await asyncio.Event().wait()

    task = asyncio.create_task(open_one())
    await asyncio.sleep(0)
    await _cancel(task)
    await asyncio.get_running_loop().shutdown_default_executor()
    await asyncio.sleep(0)

    gc.collect()  # a file that is still open would be a ResourceWarning, which is an error
