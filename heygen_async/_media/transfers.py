"""What the transfers of a session share: seats, threads, and how a caller learns of their progress."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from inspect import isawaitable
from pathlib import Path
from typing import Final, ParamSpec, TypeAlias, TypeVar

from heygen_async._media.upload_cache import UploadCache
from heygen_async.errors import CLOSED

MAX_TRANSFERS: Final = 8
"""Files that are transferred at once, uploads and downloads together. API calls have limits of their own."""

MULTIPART_MAX: Final = 32_000_000
"""The largest file in bytes that is uploaded as a form; a larger one goes to the storage host.

HeyGen says "32 MB". This reading holds whatever it counts as one MB, as a file of any size may go to the storage host.
"""

SETTLED_AFTER: Final = 60.0
"""Seconds without a change after which a file may be hashed while it is sent. A younger one is hashed before.

Somebody may still be writing to that, and file systems count in steps of up to two seconds.
"""

Progress: TypeAlias = Callable[[int, int | None], Awaitable[None] | None]
"""Called with bytes done and in all; `None` where the total is not known before the end. May be a coroutine function.

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

    def __init__(self, max_download_bytes: int) -> None:
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
