"""A file that only threads touch, and that its caller can leave at any moment.

Rule 1: a file has one job at a time.
Rule 2: the last user closes the file: `close` where no job runs, else the job as it ends. So a cancelled caller neither
waits for a disk nor leaves a file open.
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
    """Anything that is opened and closed."""

    def close(self) -> None: ...


F = TypeVar("F", bound=Closable)
T = TypeVar("T")


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
