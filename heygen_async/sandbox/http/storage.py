"""Files on disk, read and written in threads: uploads and outputs are streamed, so memory stays flat."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final

from anyio import to_thread
from attrs import frozen

from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.state.asset_store import ReceivedFile

_CHUNK: Final = 256 << 10
_FLUSH: Final = 1 << 20  # one hop to a thread for each megabyte of an upload
_SNIFF: Final = 8192


@frozen
class StoredFile:
    """A file that can be sent."""

    path: Path
    size_bytes: int
    mime_type: str
    etag: str


@frozen
class Storage:
    """The directory that holds the uploads."""

    directory: Path

    def path(self, name: str) -> Path:
        """Return the path of the file of that name."""
        return self.directory / name

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        name: str,
        *,
        filename: str,
        max_bytes: int,
        check: Callable[[ReceivedFile], None] = lambda _: None,
    ) -> ReceivedFile:
        """Write an upload under *name* and return what it is; reading stops with a 413 past *max_bytes*.

        What was under that name stays until all of the upload is there and *check* has not raised.
        """
        size, waiting, digest = 0, bytearray(), hashlib.sha256()
        path = await to_thread.run_sync(_new_file, self.directory)
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise ErrorAnswer(413, "payload_too_large", f"At most {max_bytes} bytes.", "file")
                waiting += chunk
                if len(waiting) >= _FLUSH:
                    await to_thread.run_sync(_append, path, bytes(waiting), digest)
                    waiting.clear()
            await to_thread.run_sync(_append, path, bytes(waiting), digest)
            mime_type, duration = await to_thread.run_sync(inspect, path, filename)
            received = ReceivedFile(size_bytes=size, sha256=digest.hexdigest(), mime_type=mime_type, duration=duration)
            check(received)
            await to_thread.run_sync(path.replace, self.path(name))
        finally:
            await to_thread.run_sync(partial(path.unlink, missing_ok=True))
        return received

    async def write(self, name: str, content: bytes, mime_type: str) -> StoredFile:
        """Write a small file of the sandbox's own; whoever reads it meanwhile goes on reading the one before."""
        await to_thread.run_sync(_write, self.path(name), content)
        return StoredFile(self.path(name), len(content), mime_type, etag(hashlib.sha256(content).hexdigest()))


# No file stays open between two steps, so a request that is cancelled leaves none open.


async def read(path: Path, start: int, length: int) -> AsyncIterator[bytes]:
    """Yield *length* bytes of a file from *start* on."""
    while length > 0 and (chunk := await to_thread.run_sync(_read, path, start, min(_CHUNK, length))):
        start, length = start + len(chunk), length - len(chunk)
        yield chunk


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _new_file(directory: Path) -> Path:
    file, name = tempfile.mkstemp(dir=directory)
    os.close(file)
    return Path(name)


def _write(path: Path, content: bytes) -> None:
    unfinished = _new_file(path.parent)
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _append(path: Path, content: bytes, digest: hashlib._Hash) -> None:
    with path.open("ab") as file:
        file.write(content)
    digest.update(content)


def etag(sha256: str) -> str:
    """Return the entity tag of a file with that digest."""
    return f'"{sha256[:32]}"'


def sample(path: Path) -> tuple[StoredFile, float]:
    """Return a shipped file and its length in seconds. This blocks: call it in a thread."""
    content = path.read_bytes()
    mime_type, duration = inspect(path, path.name)
    digest = hashlib.sha256(content).hexdigest()
    return StoredFile(path, len(content), mime_type or "", etag(digest)), duration or 0.0


def inspect(path: Path, filename: str) -> tuple[str | None, float | None]:
    """Return the type of a file, None if it is not supported, and its length in seconds, None if unreadable."""
    mime_type = _mime_type(path, filename)
    playable = mime_type is not None and mime_type.startswith(("video/", "audio/"))
    return mime_type, _duration(path) if playable else None


def _mime_type(path: Path, filename: str) -> str | None:
    with path.open("rb") as file:
        head = file.read(_SNIFF)
    if filename.lower().endswith(".srt") and b"-->" in head:
        return "application/x-subrip"
    if head[4:8] == b"ftyp" and head[8:12] not in _NOT_MP4:
        return "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in head[:64]:
        return "video/webm"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "audio/wav"
    return next((mime_type for start, mime_type in _STARTS if head.startswith(start)), None)


_NOT_MP4: Final = frozenset({b"qt  ", b"M4A ", b"M4B "})
_STARTS: Final = (
    (b"ID3", "audio/mpeg"),
    *((bytes((0xFF, second)), "audio/mpeg") for second in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2)),
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"%PDF", "application/pdf"),
)


def _duration(path: Path) -> float | None:
    from tinytag import TinyTag, TinyTagException  # noqa: PLC0415 - imported on first use

    with path.open("rb") as file:
        try:
            return TinyTag.get(file_obj=file).duration
        except TinyTagException:
            return None
