"""One wait for a batch, until all of its items have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from heygen_async.errors import HeyGenError, WaitTimeout
from heygen_async.models import TERMINAL
from heygen_async.policies import PollPolicy
from heygen_async.polling.cadence import NO_FAILURES
from heygen_async.polling.waiters import Status


async def until_batch_ended(
    batch_id: str,
    look: Callable[[], Awaitable[Status]],
    interval: Callable[[], float],
    policy: PollPolicy,
    timeout: float,
    *,
    is_new: Callable[[], bool],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look at a batch until its status is terminal. Transient errors are retried, by the same rule as for a job.

    Args:
        batch_id: The batch.
        look: Sends one request, and returns the status of the batch.
        interval: Returns the seconds until the next look.
        policy: How long to wait after failures.
        timeout: Seconds for everything inside.
        is_new: Returns whether the batch is so new that reads may not know it yet.
        sleep: Waits so many seconds, or shorter if the next look fails at once.

    Raises:
        WaitTimeout: The time is up.
        HeyGenError: Any other error that is not transient, or answers stay unreadable.
    """
    status: Status | None = None
    failures = NO_FAILURES
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            while True:
                try:
                    status, failures = await look(), NO_FAILURES
                except HeyGenError as error:
                    counted = failures.after_error(error, is_new=is_new())
                    if counted is None:
                        raise
                    failures = counted
                if status in TERMINAL:
                    return
                await sleep(max(failures.delay(policy), interval()))
    except TimeoutError:
        if not scope.expired():
            raise
        raise WaitTimeout(batch_id, last_status=status) from failures.error
