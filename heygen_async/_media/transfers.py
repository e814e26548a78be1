"""What the transfers of a session share: seats, threads, open files, and how a caller learns of their progress.

Files are touched in threads only. Rule 1: a file has one job at a time. Rule 2: the last user closes the file: `close`
where no job runs, else the job as it ends. So a cancelled caller neither waits for a disk nor leaves a file open.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, ParamSpec, Protocol, Self, TypeAlias, TypeVar

from heygen_async._media.upload_cache import UploadCache
from heygen_async.errors import CLOSED

MAX_TRANSFERS: Final = 8
"""Files that are transferred at once, uploads and downloads together. API calls have limits of their own."""

MULTIPART_MAX: Final = 32_000_000
"""The largest file in bytes that is uploaded as a form; a larger one goes to the storage host.

HeyGen says "32 MB". This reading holds whatever it counts as one MB, as a file of any size may go to the storage host.
"""

SETTLED_AFTER: Final = 60.0
"""Seconds without a change after which a file is hashed while it is sent, and not before.

Somebody may still be writing to a younger one, and file systems count in steps of up to two seconds.
"""

Progress: TypeAlias = Callable[[int, int | None], Awaitable[None] | None]
"""Called with bytes done and in all; `None` where the total is not known. May be a coroutine function.

What it raises ends the transfer and reaches the caller. A repeated attempt starts at fewer bytes again.
"""


async def report(progress: Progress | None, done: int, total: int | None) -> None:
    """Call *progress*, if there is one, and wait for it if it is a coroutine function."""
    if progress is not None:
        result = progress(done, total)
        if isawaitable(result):
            await result


P = ParamSpec("P")
T = TypeVar("T")


class _Threads(ThreadPoolExecutor):
    """Threads of a session. A job that comes after its end is refused as a request is."""

    _is_closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._is_closed:
            raise RuntimeError(CLOSED)
        return super().submit(fn, *args, **kwargs)

    def close(self) -> None:
        """Let the threads end when they are idle, without waiting for them."""
        self._is_closed = True
        self.shutdown(wait=False)


class Transfers:
    """The seats, threads and memory of a session's transfers; views of the session share them.

    Args:
        max_download_bytes: The longest video that is downloaded.
    """

    def __init__(self, max_download_bytes: int = 16 << 30) -> None:
        self.max_download_bytes = max_download_bytes
        self.seats = asyncio.Semaphore(MAX_TRANSFERS)
        # Our own threads: asyncio's look up host names too, and must not wait for a slow disk.
        self.pool = _Threads(MAX_TRANSFERS, thread_name_prefix="heygen-files")
        self.uploaded = UploadCache()
        self.targets: set[Path] = set()
        """The files that are being written."""
        self.multipart_max = MULTIPART_MAX
        self.settled_after = SETTLED_AFTER

    def close(self) -> None:
        """Let the threads end when they are idle, without waiting for them."""
        self.pool.close()


class Closable(Protocol):
    """Anything that is opened and closed."""

    def close(self) -> None: ...


F = TypeVar("F", bound=Closable)


class OpenFile(Generic[F]):
    """A file that is opened by its first job, and can be closed at any moment without waiting.

    Args:
        pool: The threads; `None` for those of the event loop.
        open: Opens the file; called in a thread.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor | None,
        open: Callable[[], F],  # noqa: A002 it says what it does
    ) -> None:
        self._pool = pool
        self._open = open
        self._lock = threading.Lock()  # held for a few instructions only, never while a disk works
        self._file: F | None = None
        self._is_busy = False
        self._is_closed = False
        self._job: asyncio.Future[object] | None = None

    def start(self, job: Callable[[F], T]) -> asyncio.Future[T]:
        """Run *job* in a thread; await the returned future before the next one."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, partial(self._do, job))
        self._job = future  # type: ignore[assignment]  # Future is invariant; only cancel is called
        return future

    async def run(self, job: Callable[[F], T]) -> T:
        """Run *job* in a thread and return its result. If cancelled, it still runs to its end there."""
        return await self.start(job)

    def _do(self, job: Callable[[F], T]) -> T:
        with self._lock:
            if self._is_closed:
                raise ValueError("the file is closed")
            self._is_busy = True
        try:
            if self._file is None:
                self._file = self._open()
            return job(self._file)
        finally:
            with self._lock:
                self._is_busy = False
                if self._is_closed:
                    self._close_file()

    def close(self) -> None:
        """Close the file, or let the running job close it; a second call does nothing."""
        if self._job is not None:
            self._job.cancel()  # nobody awaits it any more; a running thread goes on to its end
        with self._lock:
            self._is_closed = True
            if not self._is_busy:
                self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
