"""`session.dub`: create, wait and download, within one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from attrs import frozen

from heygen_async._media.downloads import Downloads
from heygen_async._media.targets import FilePath, check_file
from heygen_async.errors import CallRecord, WaitTimeout
from heygen_async.jobs import LipsyncJob
from heygen_async.models import Lipsync, LipsyncOptions, Source
from heygen_async.resources.lipsyncs import Lipsyncs


@frozen
class OneDub:
    """One call of `dub`: its output, and what it needs of a session."""

    lipsyncs: Lipsyncs
    downloads: Downloads
    output: FilePath | None
    captions: bool

    def creation(
        self, video: Source, audio: Source, key: str | None, options: LipsyncOptions
    ) -> Callable[[], Awaitable[LipsyncJob]]:
        """Return the create, as a function whose repr does not show the links in it."""
        return lambda: self.lipsyncs.create(video=video, audio=audio, idempotency_key=key, **options)

    async def run(self, create: Callable[[], Awaitable[LipsyncJob]], timeout: float | None) -> Lipsync:
        """Create the job, wait for it, and write its output if there is one to write.

        Raises:
            WaitTimeout: If the time is up, with what is known of the create if that was not answered.
        """
        job = None
        try:
            async with asyncio.timeout(timeout):
                if self.output is not None:
                    await check_file(self.output, overwrite=False, captions=self.captions)
                job = await create()
                lipsync = await job.wait()
                if self.output is not None:
                    await self.downloads.download(lipsync, self.output, captions=self.captions)
                return lipsync
        except WaitTimeout:
            raise
        except TimeoutError as error:
            late = WaitTimeout(job.id if job else None)
            if job is None:  # what the cancelled create knew of itself
                CallRecord.read_from(error.__cause__ or error).write_to(late)
            raise late from error
