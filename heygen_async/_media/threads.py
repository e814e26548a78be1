"""Files that are touched in threads only.

Rule 1: one job at a time on one file.
Rule 2: whoever is last closes: `close` where no job runs, else the job as it ends. So whoever is cancelled need
not wait for a disk, and leaves no file open.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar


class Closable(Protocol):
    """A file, as far as this module cares."""

    def close(self) -> None: ...


T = TypeVar("T")
F = TypeVar("F", bound=Closable)


class OpenFile(Generic[F]):
    """A file that opens with its first job and may be closed, without waiting, at any moment.

    Args:
        pool: The threads.
        open: Opens the file; called in a thread.
    """

    def __init__(self, pool: ThreadPoolExecutor, open: Callable[[], F]) -> None:  # noqa: A002 what it does
        self._pool = pool
        self._open = open
        self._lock = threading.Lock()  # held for a few instructions only, never while a disk works
        self._file: F | None = None
        self._is_busy = False
        self._is_closed = False
        self._job: asyncio.Future[object] | None = None

    def start(self, job: Callable[[F], T]) -> asyncio.Future[T]:
        """Let a thread do *job*; await what is returned before the next one."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, partial(self._do, job))
        self._job = future  # type: ignore[assignment]  # Future is invariant; only cancel is called
        return future

    async def run(self, job: Callable[[F], T]) -> T:
        """Do *job* in a thread. If cancelled, it comes to its end there, and nobody hears of it."""
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
        """Close the file, or leave it to the job that is running; a second time does nothing."""
        if self._job is not None:
            self._job.cancel()  # its outcome interests nobody any more; a running thread goes on to its end
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
