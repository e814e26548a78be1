"""The calls of a session that a bulk run makes: `heygen_async.bulk.store.HeyGen` for the real API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from heygen_async._media.downloads import Downloads
from heygen_async._media.sources import local_file
from heygen_async._media.uploads import Uploads
from heygen_async.errors import APIError
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
from heygen_async.resources.account import Accounts
from heygen_async.resources.lipsyncs import Lipsyncs

_AFTER_CANCELLED: Final = 1.0
"""Seconds before a read that follows a cancelled one: mostly a run ends, and the next one is cancelled in a moment."""


@define(eq=False)
class JobList:
    """The list of the account's jobs, shared by all readers in a run: none reads it before a `Retry-After` is over.

    Args:
        lipsyncs: The calls that read it.
    """

    _lipsyncs: Lipsyncs
    _error: APIError | None = None
    """Why it could not be read the last time."""
    _not_before: float = 0.0
    """When it may be read again, on the event loop's clock."""
    _was_cancelled: bool = False
    """Whether the last read was cancelled, perhaps while it waited for the `Retry-After` of an answer."""
    _lock: asyncio.Lock = field(factory=asyncio.Lock)

    async def page(self, page_size: int, token: str | None) -> Page[Lipsync]:
        """Return the page of a cursor; `None` for the newest jobs.

        Raises:
            HeyGenError: If it cannot be read; nothing is sent before the server is ready for that.
        """
        now = asyncio.get_running_loop().time
        async with self._lock:  # so that a call sees the error of the one before it
            if self._error is not None and now() < self._not_before:
                raise self._error.fresh()
            try:
                if self._was_cancelled:
                    await asyncio.sleep(_AFTER_CANCELLED)
                self._was_cancelled = False
                return await anext(self._lipsyncs.list(page_size=page_size, token=token).pages())
            except asyncio.CancelledError:
                self._was_cancelled = True
                raise
            except APIError as error:
                self._error, self._not_before = error, now() + (error.retry_after or 0.0)
                raise


@frozen(kw_only=True)
class BulkCalls:
    """What a run needs of the API."""

    lipsyncs: Lipsyncs
    jobs: JobList
    batches: Callable[[Callable[[], float]], Lipsyncs]
    """Returns the calls for batches; its argument returns the age of the idempotency key in seconds."""
    creates: Callable[[Callable[[], float]], Lipsyncs]
    """Returns the calls for single creates; a 429 is raised at once, because the run decides when to create again."""
    uploads: Uploads
    account: Accounts
    poller: LipsyncPoller
    downloads: Downloads
    statuses: Callable[[Sequence[str]], Awaitable[Mapping[str, LipsyncStatus | str]]]
    """Returns the statuses of as many jobs as fit into one request."""
    origin: str
    """The address of the API."""
    _claimed: dict[Path, Path | None] = field(factory=dict, init=False)
    """What the rows of the run have claimed, by their targets."""

    @property
    def polling(self) -> PollPolicy:
        """How often jobs are looked at."""
        return self.poller.policy

    async def create(
        self, key: str, *, key_age: Callable[[], float], video: Source, audio: Source, options: LipsyncOptions
    ) -> str:
        """Create a job under an idempotency key that was first sent *key_age* seconds ago."""
        call = self.creates(key_age).create(video=video, audio=audio, idempotency_key=key, **options)
        del video, audio, options  # or a traceback with local variables would show their queries
        return (await call).id

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest], *, key_age: Callable[[], float]) -> str:
        """Create up to 100 jobs under one idempotency key that was first sent *key_age* seconds ago."""
        return (await self.batches(key_age).create_batch(requests, idempotency_key=key)).id

    def batch(self, batch_id: str) -> AsyncIterator[Page[BatchItem]]:
        """Iterate over the pages of the items of a batch."""
        return self.lipsyncs.batch(batch_id).items().pages()

    async def batch_status(self, batch_id: str) -> LipsyncStatus | str:
        """Return the status of a batch."""
        return (await self.lipsyncs.batch(batch_id).get()).status

    def list(self, *, page_size: int) -> AsyncIterator[Page[Lipsync]]:
        """Iterate over the pages of the account's jobs, newest first."""
        return Paginator(partial(self.jobs.page, page_size), identity=attrgetter("id")).pages()

    async def get(self, lipsync_id: str) -> Lipsync:
        """Return a job."""
        return await self.lipsyncs.get(lipsync_id)

    async def wait(self, lipsync_id: str, *, since: float | None, policy: PollPolicy | None) -> Lipsync:
        """Return a job once it is completed."""
        created_at = None if since is None else datetime.fromtimestamp(since, UTC)
        return await self.poller.wait(lipsync_id, created_at=created_at, policy=policy)

    async def upload(self, source: Source, sha256: str) -> AssetId:
        """Upload a local file with the content that has this SHA-256."""
        async with local_file(source) as file:
            return AssetId((await self.uploads.upload(file, sha256=sha256)).id)

    def forget_upload(self, asset_id: str) -> None:
        """Forget an upload that the server no longer has."""
        self.uploads.forget(AssetId(asset_id))

    @asynccontextmanager
    async def claim(self, path: Path) -> AsyncIterator[None]:
        """Keep other calls of the session away from the file *path*."""
        async with self.downloads.claim(path) as place:
            self._claimed[path] = place
            try:
                yield
            finally:
                del self._claimed[path]

    async def download(
        self,
        lipsync: Lipsync | str,
        path: Path,
        *,
        overwrite: bool,
        progress: Callable[[int, int | None], Awaitable[None]],
    ) -> Path:
        """Write the video of a completed job."""
        claimed = self._claimed.get(path)
        return await self.downloads.download(lipsync, path, overwrite=overwrite, progress=progress, claimed=claimed)

    async def download_captions(self, lipsync: Lipsync | str, path: Path, *, overwrite: bool) -> Path:
        """Write the captions of a completed job beside the video at *path*."""
        return await self.downloads.download_captions(lipsync, path, overwrite=overwrite)

    async def me(self) -> Account:
        """Return the account."""
        return await self.account.me()
