"""A local file on its way out: read in threads, a megabyte at a time, and digested while the last one is sent."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from heygen_async._media.progress import Progress, report
from heygen_async._media.sources import BLOCK, LocalFile, Readable
from heygen_async._media.threads import OpenFile
from heygen_async._wire import Stream

PIECE: Final = 256 * 1024
"""What is handed to the connection at once, in bytes: small, so that a slow line shows that it moves."""

_GULP: Final = 8 * BLOCK


class Reading:
    """The passes over one file: each attempt to send it starts a new one, and ends the one before.

    *progress* is told of all pieces but the last: what came of that is for the answer to tell.

    Attributes:
        sha256: In hex, once a pass has come to its end.
        is_whole: Whether the last pass has.
    """

    def __init__(self, pool: ThreadPoolExecutor, file: LocalFile, progress: Progress | None) -> None:
        self.sha256 = file.sha256
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

    async def _chunks(self) -> AsyncIterator[bytes]:
        self.close()
        self.is_whole = False
        self._pass = opened = OpenFile(self._pool, self._file.open)
        # aiohttp may leave this generator where it stands: its owner closes the file, in `close`.
        digest, done, total = hashlib.sha256(), 0, self._file.size
        last, block = b"", await opened.run(partial(_next, None, b""))
        while block and done + len(last) + len(block) <= total:
            ahead = opened.start(partial(_next, digest if self.sha256 is None else None, block))
            for piece in pieces(block):
                if last:
                    yield last
                    done += len(last)
                    await report(self._progress, done, total)
                last = piece
            block = await ahead
        # The server may answer as soon as it has the last piece: all that is to be known is known before it goes.
        done += len(last)
        if block or done < total or not await opened.run(lambda _: self._file.is_unchanged()):
            raise self._file.changed(done + len(block))
        opened.close()
        self.sha256, self.is_whole = self.sha256 or digest.hexdigest(), True
        yield last


def _next(digest: hashlib._Hash | None, block: bytes, file: Readable) -> bytes:
    if digest is not None:
        digest.update(block)
    return file.read(BLOCK)


def pieces(block: bytes) -> list[bytes]:
    """Cut a *block* into what is sent at once."""
    if len(block) <= PIECE:
        return [block]
    return [block[start : start + PIECE] for start in range(0, len(block), PIECE)]


async def digest_of(pool: ThreadPoolExecutor, file: LocalFile) -> str:
    """Return the SHA-256 of *file*, in hex, without sending it.

    Raises:
        OSError: If it cannot be read, or has changed.
    """
    digest, done = hashlib.sha256(), 0
    with OpenFile(pool, file.open) as opened:
        while read := await opened.run(partial(_absorb, digest)):
            done += read
    if done != file.size:
        raise file.changed(done)
    return digest.hexdigest()


def _absorb(digest: hashlib._Hash, file: Readable) -> int:
    # Some blocks in one visit to a thread, and few enough that whoever is cancelled soon leaves it idle.
    read = 0
    while read < _GULP and (block := file.read(BLOCK)):
        digest.update(block)
        read += len(block)
    return read
