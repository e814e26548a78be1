"""Local files, touched in threads only: opened, read to be sent, and hashed.

Rule 1: a file has one job at a time.
Rule 2: the last user closes the file: `close` where no job runs, else the job as it ends. So a cancelled caller neither
waits for a disk nor leaves a file open.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

from heygen_async._media.sources import BLOCK, LocalFile, Readable
from heygen_async._media.transfers import Progress, report
from heygen_async._wire import Stream

PIECE: Final = 256 * 1024
"""How much is handed to the connection at once, in bytes: small, so that a slow line shows progress."""

_GULP: Final = 8 * BLOCK


class Closable(Protocol):
    """Anything that is opened and closed."""

    def close(self) -> None: ...


T = TypeVar("T")
F = TypeVar("F", bound=Closable)


class OpenFile(Generic[F]):
    """A file that is opened by its first job, and can be closed at any moment without waiting.

    Args:
        pool: The threads.
        open: Opens the file; called in a thread.
    """

    def __init__(self, pool: ThreadPoolExecutor, open: Callable[[], F]) -> None:  # noqa: A002 it says what it does
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


class Reading:
    """The passes over one file: each attempt to send it starts a new one, and ends the one before.

    *progress* is called for all pieces but the last: whether that arrives, only the answer tells.

    Args:
        pool: The threads.
        file: The file.
        sha256: What its content must have, in hex; the last piece of another content is never sent.
        progress: Called with the bytes that are sent.

    Attributes:
        is_whole: Whether a pass has come to its end. One is enough: the answer to a later attempt may come early, as
            the server repeats the first answer to an idempotency key.
    """

    def __init__(self, pool: ThreadPoolExecutor, file: LocalFile, sha256: str, progress: Progress | None) -> None:
        self.is_whole = False
        self._pool = pool
        self._file = file
        self._sha256 = sha256
        self._progress = progress
        self._pass: OpenFile[Readable] | None = None

    def stream(self) -> Stream:
        """Return the file as the body of a request."""
        return Stream(content_type=self._file.mime_type, length=self._file.size, chunks=self._chunks)

    def close(self) -> None:
        """End the pass that is under way, if one is. Nothing is awaited."""
        if self._pass is not None:
            self._pass.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        self.close()
        self._pass = opened = OpenFile(self._pool, self._file.open)
        # aiohttp may abandon this generator: its owner closes the file, in `close`.
        digest, done, total = hashlib.sha256(), 0, self._file.size
        last, block = b"", await opened.run(partial(_next, digest, b""))
        while block and done + len(last) + len(block) <= total:
            ahead = opened.start(partial(_next, digest, block))
            for piece in pieces(block):
                if last:
                    yield last
                    done += len(last)
                    await report(self._progress, done, total)
                last = piece
            block = await ahead
        # The server may answer as soon as it has the last piece, so everything is checked before that is sent.
        done += len(last)
        if block or done < total or not await opened.run(lambda _: self._file.is_unchanged()):
            raise self._file.changed(done + len(block))
        if digest.hexdigest() != self._sha256:
            raise OSError(f"{self._file.name} changed since it was hashed")
        opened.close()
        self.is_whole = True
        yield last


def _next(digest: hashlib._Hash, block: bytes, file: Readable) -> bytes:
    digest.update(block)
    return file.read(BLOCK)


def pieces(block: bytes) -> list[bytes]:
    """Cut a *block* into what is sent at once."""
    if len(block) <= PIECE:
        return [block]
    return [block[start : start + PIECE] for start in range(0, len(block), PIECE)]


async def sha256_of(pool: ThreadPoolExecutor, file: LocalFile) -> str:
    """Return the SHA-256 of *file*, in hex.

    Raises:
        OSError: If it cannot be read, or has changed.
    """
    if file.sha256 is not None:
        return file.sha256
    digest, done = hashlib.sha256(), 0
    with OpenFile(pool, file.open) as opened:
        while read := await opened.run(partial(_absorb, digest)):
            done += read
            if done > file.size:
                break
    if done != file.size:
        raise file.changed(done)
    return digest.hexdigest()


def _absorb(digest: hashlib._Hash, file: Readable) -> int:
    # Several blocks in one visit to a thread, and few enough that a cancelled caller soon leaves it idle.
    read = 0
    while read < _GULP and (block := file.read(BLOCK)):
        digest.update(block)
        read += len(block)
    return read
