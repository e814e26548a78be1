"""Handles on jobs and batches at HeyGen. They hold an id and no task; make one from the id at any time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Protocol

from heygen_async._arguments import check_timeout
from heygen_async._media.downloads import Downloads
from heygen_async._media.transfers import Progress
from heygen_async.models import Batch, BatchItem, FilePath, Lipsync, LipsyncStatus
from heygen_async.pagination import Page, Paginator
from heygen_async.policies import PollPolicy
from heygen_async.polling import LipsyncPoller
from heygen_async.polling.batch_wait import until_batch_ended
from heygen_async.polling.cadence import is_young
from heygen_async.polling.requests import log_finished

__all__ = ("LipsyncBatch", "LipsyncJob")


class _Lipsyncs(Protocol):
    """What a job needs of `session.lipsyncs`."""

    async def get(self, lipsync_id: str) -> Lipsync: ...

    async def delete(self, lipsync_id: str) -> None: ...


class LipsyncJob:
    """One lipsync job.

    Attributes:
        id: The lipsync's id. `session.lipsyncs.job(id)` returns this handle again, in another process too.
        idempotency_key: The key it was created with; `None` if the handle was made from an id.
        created_at: When it was created, in UTC; `None` if the handle was made from an id.
    """

    def __init__(
        self,
        id: str,
        lipsyncs: _Lipsyncs,
        poller: LipsyncPoller,
        downloads: Downloads,
        *,
        idempotency_key: str | None = None,
        created_at: datetime | None = None,
    ) -> None:
        self.id = id
        self.idempotency_key = idempotency_key
        self.created_at = created_at
        self._lipsyncs = lipsyncs
        self._poller = poller
        self._downloads = downloads

    async def get(self) -> Lipsync:
        """Get the lipsync in its current state, with fresh links if it is completed.

        Raises:
            NotFound: There is no such lipsync in this account.
            HeyGenError: Any other error of the request; see `heygen_async.errors`.

        Cancelling it affects nothing.
        """
        return await self._lipsyncs.get(self.id)

    async def wait(self, *, timeout: float | None = None) -> Lipsync:
        """Wait until the lipsync is completed.

        All waits of a session share status requests, so thousands at once cost few. Cancelling a wait affects no
        other wait, and the job goes on.

        Args:
            timeout: Seconds for everything inside, 0 or more; `None` is `PollPolicy.longest`.

        Returns:
            The completed lipsync, with fresh links.

        Raises:
            TypeError, ValueError: *timeout* is wrong; nothing was sent.
            LipsyncFailed: The job failed; `.lipsync.failure_message` says why.
            WaitTimeout: The time is up. The job still runs, and may be waited for again.
            NotFound: There is no such lipsync in this account. For a new one it is raised after four such answers,
                because reads may lag behind its create.
            HeyGenError: Any other error that is not transient, such as a 401, or answers stay unreadable.
            RuntimeError: The session is closed, or in use by another event loop.
        """
        return await self._poller.wait(self.id, timeout=timeout, created_at=self.created_at)

    def updates(self) -> AsyncGenerator[LipsyncStatus | str, None]:
        """Iterate over the statuses of the job, from the current one to the terminal one, failed or not.

        Nothing is sent between two steps.

        Raises:
            WaitTimeout: From a step: the status did not change for `PollPolicy.longest`.
            HeyGenError: From a step: an error that is not transient, or answers stay unreadable.
            RuntimeError: From a step: the session is closed, or in use by another event loop.

        Cancelling a step ends the iteration, and affects no other wait.
        """
        return self._poller.updates(self.id, created_at=self.created_at)

    async def download(
        self, path: FilePath, *, overwrite: bool = False, captions: bool = False, progress: Progress | None = None
    ) -> Path:
        """Write the video to *path*, and with *captions* its captions beside it; see `HeyGenSession.download`.

        Raises:
            DownloadError: The video cannot be downloaded or written, or the job is not completed.
            LipsyncFailed: The job failed.
            TypeError: An argument is wrong; nothing was sent.
            HeyGenError: The API does not return the lipsync.
            RuntimeError: The session is closed, or in use by another event loop.

        If cancelled, it stops at once, and keeps the `.part` to be resumed.
        """
        return await self._downloads.download(self.id, path, overwrite=overwrite, captions=captions, progress=progress)

    def iter_bytes(self) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes of the video; see `HeyGenSession.iter_bytes`.

        Raises:
            DownloadError: From a step: the video cannot be downloaded, or the job is not completed.
            LipsyncFailed: From a step: the job failed.
            HeyGenError: From a step: the API does not return the lipsync.
            RuntimeError: From a step: the session is closed, or in use by another event loop.

        Cancelling a step ends the iteration.
        """
        return self._downloads.iter_bytes(self.id)

    async def delete(self) -> None:
        """Delete the lipsync permanently.

        Raises:
            NotFound: There is no such lipsync in this account.
            HeyGenError: Any other error of the request; see `heygen_async.errors`.

        If cancelled, it may have been carried out; `.outcome` of the `CancelledError` says what is known.
        """
        await self._lipsyncs.delete(self.id)

    def __repr__(self) -> str:
        return f"LipsyncJob({self.id!r})"


class LipsyncBatch:
    """Up to 100 lipsyncs that were created in one request.

    Attributes:
        id: The batch's id. `session.lipsyncs.batch(id)` returns this handle again, in another process too.
        idempotency_key: The key it was created with; `None` if the handle was made from an id.
        created_at: When it was created, in UTC; `None` if the handle was made from an id.
    """

    def __init__(
        self,
        id: str,
        get: Callable[[], Awaitable[Batch]],
        fetch_items: Callable[[str | None], Awaitable[Page[BatchItem]]],
        policy: PollPolicy,
        now: Callable[[], float],
        *,
        look: Callable[[], Awaitable[Batch]],
        idempotency_key: str | None = None,
        created_at: datetime | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.id = id
        self.idempotency_key = idempotency_key
        self.created_at = created_at
        self._sleep = sleep
        self._get = get
        self._look = look  # as `get`, but without retries: a wait looks again by itself
        self._fetch_items = fetch_items
        self._policy = policy
        self._now = now  # by the clock of the API

    async def get(self) -> Batch:
        """Get the batch in its current state, without its items.

        Raises:
            NotFound: There is no such batch in this account.
            HeyGenError: Any other error of the request; see `heygen_async.errors`.

        Cancelling it affects nothing.
        """
        return await self._get()

    def items(self) -> Paginator[BatchItem]:
        """List the items, in the order in which they were created.

        Nothing is sent before the result is iterated. A step that fails or is cancelled can be repeated.

        Raises:
            NotFound: From a step: there is no such batch in this account.
            HeyGenError: From a step: a page cannot be fetched.
            UnexpectedResponse: From a step: the pages may never end, see `Paginator.pages`.
            RuntimeError: From a step: the session is closed, or in use by another event loop.
        """
        return Paginator(self._fetch_items, identity=attrgetter("item_index"))

    async def wait(self, *, timeout: float | None = None) -> Batch:
        """Wait until every item has ended, completed or failed; `items()` lists them.

        Transient errors are retried, by the same rule as in `LipsyncJob.wait`. Cancelling a wait does not affect the
        batch.

        Args:
            timeout: Seconds for everything inside, 0 or more; `None` is `PollPolicy.longest`.

        Returns:
            The batch, with its last status.

        Raises:
            TypeError, ValueError: *timeout* is wrong; nothing was sent.
            WaitTimeout: The time is up. `.lipsync_id` is the batch's id, and the batch still runs.
            NotFound: There is no such batch in this account. For a new one it is raised after four such answers,
                because reads may lag behind its create.
            HeyGenError: Any other error that is not transient, such as a 401, or answers stay unreadable.
            RuntimeError: The session is closed, or in use by another event loop.
        """
        check_timeout(timeout)
        policy, started = self._policy, asyncio.get_running_loop().time()
        batch: Batch | None = None

        def waited() -> float:
            return asyncio.get_running_loop().time() - started

        async def look() -> LipsyncStatus | str:
            nonlocal batch
            batch = await self._look()
            return batch.status

        def interval() -> float:
            return policy.interval(max(waited(), _age(batch, self._now())), 0)

        longest = policy.longest if timeout is None else timeout
        await until_batch_ended(self.id, look, interval, policy, longest, is_new=self._is_new, sleep=self._sleep)
        assert batch is not None  # noqa: S101 its status was seen
        log_finished("batch", batch.id, batch.status, waited())
        return batch

    def _is_new(self) -> bool:
        return self.created_at is not None and is_young(self._now() - self.created_at.timestamp())

    def __repr__(self) -> str:
        return f"LipsyncBatch({self.id!r})"


def _age(batch: Batch | None, now: float) -> float:
    """Return the seconds since the batch was created; 0 if that is not known."""
    created_at = batch.created_at if batch else None
    return 0.0 if created_at is None else now - created_at.timestamp()
