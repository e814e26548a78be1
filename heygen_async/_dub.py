"""`session.dub`: create, wait and download, within one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from anyio import to_thread
from attrs import evolve, frozen

from heygen_async._media.downloads import Downloads
from heygen_async._media.parts import owner_line, side_path
from heygen_async._media.targets import check_file, expanded
from heygen_async._transport.driver import Transport
from heygen_async.errors import CallRecord, LipsyncFailed, WaitTimeout
from heygen_async.jobs import LipsyncJob
from heygen_async.models import FilePath, Lipsync, LipsyncOptions, Source
from heygen_async.resources.lipsyncs import Lipsyncs

_NAMING_THE_JOB: Final = (LipsyncFailed, WaitTimeout, asyncio.CancelledError)


@frozen
class OneDub:
    """One call of `dub`: its output, and what it needs of a session."""

    transport: Transport
    lipsyncs: Lipsyncs
    downloads: Downloads
    output: FilePath | None
    captions: bool

    def creation(
        self, video: Source, audio: Source, key: str | None, options: LipsyncOptions
    ) -> Callable[[], Awaitable[LipsyncJob]]:
        """Return the create, as a function whose repr does not show the links in it."""
        return lambda: self.lipsyncs.create(video=video, audio=audio, idempotency_key=key, **options)

    async def run(self, create: Callable[[], Awaitable[LipsyncJob]], timeout: float | None, key: str | None) -> Lipsync:
        """Create the job under *key*, wait for it, and write its output if there is one to write.

        Raises:
            WaitTimeout: If the time is up, with what is known of the create if that was not answered.

        All errors and cancellations after the create have its key: under it, another call returns the job. Errors name
        the job.
        """
        end = None if timeout is None else asyncio.get_running_loop().time() + timeout
        unsent = self.transport.unsent(key)
        async with AsyncExitStack() as stack:
            with unsent.on_error():
                claimed = await stack.enter_async_context(self.downloads.claim(self.output))
            job = await self._create(create, end, unsent)
            try:
                return await self._finish(job, claimed, end)
            except BaseException as error:
                known = CallRecord.read_from(error)  # of a request after the create
                evolve(known, idempotency_key=job.idempotency_key, outcome=None).write_to(error)
                if not isinstance(error, _NAMING_THE_JOB):
                    error.add_note(f"The job is {job.id}. Once it is completed: heygen.download({job.id!r}, path)")
                raise

    async def _finish(self, job: LipsyncJob, claimed: Path | None, end: float | None) -> Lipsync:
        left = None if end is None else max(0.0, end - asyncio.get_running_loop().time())
        lipsync = await job.wait(timeout=left)
        if self.output is not None:
            await self._download(lipsync, self.output, claimed, end)
        return lipsync

    async def _create(
        self, create: Callable[[], Awaitable[LipsyncJob]], end: float | None, unsent: CallRecord
    ) -> LipsyncJob:
        scope = asyncio.timeout_at(end)
        try:
            async with scope:
                if self.output is not None:
                    with unsent.on_error():
                        await self._check(self.output, unsent.idempotency_key)
                return await create()
        except TimeoutError as error:
            if not scope.expired():
                raise
            late = WaitTimeout(None)
            CallRecord.read_from(error.__cause__ or error).write_to(late)  # what the cancelled create knew of itself
            raise late from error

    async def _check(self, output: FilePath, key: str | None) -> None:
        """Check that *output* can be written. A call under the *key* of an earlier one may resume its download."""
        resumed = None if key is None else await to_thread.run_sync(_downloaded_lipsync, output)
        await check_file(output, overwrite=False, captions=self.captions, lipsync_id=resumed)

    async def _download(self, lipsync: Lipsync, output: FilePath, claimed: Path | None, end: float | None) -> None:
        scope = asyncio.timeout_at(end)
        try:
            async with scope:
                target = await self.downloads.download(lipsync, output, claimed=claimed)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise WaitTimeout(lipsync.id, last_status=lipsync.status) from error
        if self.captions:
            await self.downloads.try_captions(lipsync, target, end=end)


def _downloaded_lipsync(output: FilePath) -> str | None:
    """Return the lipsync of which there is an unfinished download to *output*; `None` if there is none of ours."""
    try:
        first = side_path(Path(expanded(output))).read_text(errors="replace").partition("\n")[0]
    except (OSError, ValueError):
        return None
    owner = first.rpartition(" ")[2]
    return owner if owner_line(owner) == f"{first}\n" else None
