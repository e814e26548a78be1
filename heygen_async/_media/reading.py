"""Local files, read in threads: sampled, hashed, and read to be sent."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from heygen_async._media.open_file import OpenFile
from heygen_async._media.sources import LocalFile, Readable
from heygen_async._media.transfers import Progress, report
from heygen_async._media.upload_cache import Sample
from heygen_async._wire import Piece, Stream

BLOCK: Final = 2 << 20
"""How much of a file is read at once, in bytes."""

PIECE: Final = 256 * 1024
"""How much is handed to the connection at once, in bytes: small, so that a slow line shows progress."""

SAMPLE: Final = 64 * 1024
"""The bytes at the start, in the middle and at the end of a file that are its sample."""

_HASHED_AT_ONCE: Final = 4 * BLOCK
"""The bytes that are hashed in one visit to a thread."""


class Reading:
    """The passes over one file: each attempt to send it starts a new one, and ends the one before.

    *progress* is called for all pieces but the last: whether that arrives, only the answer tells.

    Args:
        pool: The threads.
        file: The file.
        sha256: What its content must have, in hex; the last piece of another content is never sent. `None` if it
            is not known: the first whole pass finds it.
        progress: Called with the bytes that are sent.

    Attributes:
        sha256: As above, and what was found.
        is_whole: Whether a pass has come to its end. One is enough: the answer to a later attempt may come early, as
            the server repeats the first answer to an idempotency key.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, file: LocalFile, sha256: str | None, progress: Progress | None
    ) -> None:
        self.sha256 = sha256
        self.is_whole = False
        self._pool = pool
        self._file = file
        self._progress = progress
        self._pass: OpenFile[Readable] | None = None

    def stream(self) -> Stream:
        """Return the file as the body of a request."""
        return Stream(content_type=self._file.mime_type, length=self._file.size, chunks=self._chunks)

    def close(self) -> None:
        """End the pass that is under way, if one is. Nothing is awaited."""
        if self._pass is not None:
            self._pass.close()

    async def _chunks(self) -> AsyncIterator[Piece]:
        self.close()
        self._pass = opened = OpenFile(self._pool, self._file.open)
        # aiohttp may abandon this generator: its owner closes the file, in `close`.
        digest = None if self._file.sha256 else hashlib.sha256()  # a content that cannot change is not hashed again
        done, total = 0, self._file.size
        last: Piece = b""
        block = await opened.run(partial(_next, digest, b""))
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
        if digest is not None:
            await self._check(opened, digest.hexdigest())
        opened.close()
        self.is_whole = True
        yield last

    async def _check(self, opened: OpenFile[Readable], found: str) -> None:
        """Check that what was read is one content, and the one that was hashed before."""
        known = self.sha256
        if known is None:
            # A change during the pass moves the time of the last status change, which nobody can set; so does a rename.
            is_one_content = await opened.run(lambda _: self._file.is_untouched())
            known = found if is_one_content else await sha256_of(self._pool, self._file)
        if found != known:
            raise OSError(f"{self._file.name} changed since it was hashed")
        self.sha256 = found


def _next(digest: hashlib._Hash | None, block: bytes, file: Readable) -> bytes:
    if digest is not None:
        digest.update(block)
    return file.read(BLOCK)


def pieces(block: bytes) -> Iterator[Piece]:
    """Cut a *block* into what is sent at once; nothing is copied."""
    view = memoryview(block)
    return (view[start : start + PIECE] for start in range(0, len(block), PIECE))


async def sample_of(pool: ThreadPoolExecutor, file: LocalFile) -> Sample:
    """Return the sample of *file*.

    Raises:
        OSError: If it cannot be read, or has changed.
    """
    with OpenFile(pool, file.open) as opened:
        return file.size, await opened.run(partial(_sample, file.size))


def _sample(size: int, file: Readable) -> str:
    digest = hashlib.sha256()
    for start in sorted({0, max(0, size // 2 - SAMPLE // 2), max(0, size - SAMPLE)}):
        file.seek(start)
        digest.update(file.read(SAMPLE))
    return digest.hexdigest()


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
    while read < _HASHED_AT_ONCE and (block := file.read(BLOCK)):
        digest.update(block)
        read += len(block)
    return read
