"""One wait for a batch, until all of its items have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from attrs import define

from heygen_async.errors import HeyGenError, WaitTimeout
from heygen_async.models import TERMINAL
from heygen_async.policies import PollPolicy
from heygen_async.polling.cadence import NO_FAILURES, Failures
from heygen_async.polling.waiters import Status


@define(eq=False)
class BatchWait:
    """The polling loop of a batch. Transient errors are retried, by the same rule as for a job.

    Args:
        batch_id: The batch.
        look: Sends one request, and returns the status of the batch.
        interval: Returns the seconds until the next look.
        policy: How long to wait after failures.
    """

    batch_id: str
    look: Callable[[], Awaitable[Status]]
    interval: Callable[[], float]
    policy: PollPolicy
    _status: Status | None = None
    _failures: Failures = NO_FAILURES

    async def until_ended(self, timeout: float) -> None:
        """Look at the batch until its status is terminal.

        Args:
            timeout: Seconds for everything inside.

        Raises:
            WaitTimeout: The time is up.
            HeyGenError: Any other error that is not transient, or answers stay unreadable.
        """
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                while True:
                    if await self._has_ended():
                        return
                    await asyncio.sleep(max(self._failures.delay(self.policy), self.interval()))
        except TimeoutError:
            if not scope.expired():
                raise
            raise WaitTimeout(self.batch_id, last_status=self._status) from self._failures.error

    async def _has_ended(self) -> bool:
        try:
            self._status = await self.look()
        except HeyGenError as error:
            failures = self._failures.after_error(error)
            if failures is None:
                raise
            self._failures = failures
            return False
        self._failures = NO_FAILURES
        return self._status in TERMINAL
