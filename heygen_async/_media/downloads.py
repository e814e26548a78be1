"""The outputs of a lipsync, to files or as an async iterator."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Final, TypeVar

from anyio import to_thread
from attrs import frozen

from heygen_async._arguments import check_function, check_type
from heygen_async._media.fetch import Chunk, TooLongError, fetch
from heygen_async._media.first_bytes import OutputKind
from heygen_async._media.hosts import PartState
from heygen_async._media.open_file import OpenFile
from heygen_async._media.output_links import OutputLink
from heygen_async._media.parts import Part, part_path, write_whole
from heygen_async._media.targets import (
    captions_path,
    check_captions,
    check_file,
    expanded,
    place_of,
    target_in,
)
from heygen_async._media.transfers import Progress, Transfers, report
from heygen_async._text import one_line
from heygen_async._transport.driver import Transport
from heygen_async._transport.retry import Attempts
from heygen_async.errors import DownloadError, HeyGenError
from heygen_async.models import FilePath, Lipsync

T = TypeVar("T")

_logger: Final = logging.getLogger("heygen_async")

MAX_CAPTION_BYTES: Final = 16 << 20
"""The longest captions; a film has about 0.1 MB."""

_BLOCK: Final = 1 << 20
"""How much is written at once, in bytes."""

_LINGER: Final = 0.05
"""Seconds after which bytes are written though they are few: a cancelled slow download loses no more."""


@frozen
class Downloads:
    """Downloads the outputs of lipsyncs."""

    _transport: Transport
    _transfers: Transfers
    _get: Callable[[str], Awaitable[Lipsync]]

    async def download(
        self,
        lipsync: Lipsync | str,
        path: FilePath,
        *,
        overwrite: bool = False,
        captions: bool = False,
        progress: Progress | None = None,
        claimed: Path | None = None,
    ) -> Path:
        """Write the video of a lipsync, and its captions, to files; see `HeyGenSession.download`.

        Args:
            lipsync: The lipsync.
            path: The file, or a folder.
            overwrite: Whether a file that exists is replaced.
            captions: Whether captions are written, too.
            progress: See `Progress`.
            claimed: What the caller has claimed, if anything.
        """
        _check_lipsync(lipsync)
        _check_options(overwrite=overwrite, captions=captions)
        check_function("progress", progress)
        known = lipsync if isinstance(lipsync, str) else lipsync.id
        await check_file(path, overwrite=overwrite, lipsync_id=known)
        link = await self._link("video", lipsync)
        target = await self._target(path, link)
        await check_file(target, overwrite=overwrite, lipsync_id=known)
        place = await to_thread.run_sync(place_of, str(target))
        with nullcontext() if place == claimed else self._claim(place):
            await self._write_video(link, target, overwrite=overwrite, progress=progress)
        if captions:
            await self.try_captions(link.lipsync, target, overwrite=overwrite)
        return target

    async def download_captions(self, lipsync: Lipsync | str, path: FilePath, *, overwrite: bool = False) -> Path:
        """Write the captions of a lipsync beside its video; see `HeyGenSession.download_captions`."""
        _check_lipsync(lipsync)
        _check_options(overwrite=overwrite)
        await check_captions(path, overwrite=overwrite)
        link = await self._link("captions", lipsync)
        video = await self._target(path, link)
        await check_captions(video, overwrite=overwrite)
        target = captions_path(video)
        async with self._transfers.seats:
            content = await self._captions(link)
        with _disk_errors(target, target):
            await to_thread.run_sync(partial(write_whole, target, content, overwrite=overwrite))
        return target

    async def iter_bytes(self, lipsync: Lipsync | str) -> AsyncGenerator[bytes, None]:
        """Yield the video of a lipsync; see `HeyGenSession.iter_bytes`."""
        _check_lipsync(lipsync)
        link = await self._link("video", lipsync)
        state, limit = PartState(), self._transfers.max_download_bytes
        async with aclosing(fetch(self._transport, link, state, max_bytes=limit)) as chunks:
            async for chunk in chunks:
                new = _new_bytes(state, chunk)
                state = PartState(state.done + len(new), chunk.state.etag)
                if new:
                    yield new

    async def _link(self, kind: OutputKind, lipsync: Lipsync | str) -> OutputLink:
        if isinstance(lipsync, str) or (kind == "captions" and not lipsync.caption_url):
            lipsync = await self._get(lipsync if isinstance(lipsync, str) else lipsync.id)
        link = OutputLink(kind, lipsync, self._transport.http.origin.is_loopback, self._get)
        if kind == "video":
            await link.until_given(Attempts(self._transport.retry), self._transport.gate.sleep)
        _ = link.url  # raises if there is none to follow
        return link

    @staticmethod
    async def _target(path: FilePath, link: OutputLink) -> Path:
        url_without_query = link.url.reveal().partition("?")[0]
        lipsync = link.lipsync
        return await to_thread.run_sync(target_in, expanded(path), lipsync.title, lipsync.id, url_without_query)

    async def _write_video(self, link: OutputLink, target: Path, *, overwrite: bool, progress: Progress | None) -> None:
        opener = partial(Part.open, target, link.lipsync.id)
        with OpenFile(self._transfers.pool, opener) as part:
            async with self._transfers.seats:
                receiver = _Receiver(self._transport, part, target, self._transfers.max_download_bytes)
                await receiver.receive(link, progress)
                await receiver.publish(overwrite=overwrite)

    @asynccontextmanager
    async def claim(self, path: FilePath | None) -> AsyncIterator[Path | None]:
        """Keep other calls of the session away from the file *path*, and yield what `download` takes as `claimed`.

        In a folder each video has a name of its own, so a folder is not claimed, and neither is `None`.

        Raises:
            DownloadError: If another call has claimed it, or downloads to it.
        """
        place = None if path is None else await to_thread.run_sync(_claimable, expanded(path))
        with nullcontext() if place is None else self._claim(place):
            yield place

    @contextmanager
    def _claim(self, place: Path) -> Iterator[None]:
        if place in self._transfers.targets:
            raise DownloadError(
                f"{place} is being downloaded already by another call: wait for it, or use another path"
            )
        self._transfers.targets.add(place)
        try:
            yield
        finally:
            self._transfers.targets.remove(place)

    async def try_captions(
        self, lipsync: Lipsync, target: Path, *, overwrite: bool = False, end: float | None = None
    ) -> None:
        """Write the captions, or log why not: the video is there, and a problem with captions does not undo that.

        Args:
            lipsync: The lipsync.
            target: Its video.
            overwrite: Whether captions that exist are replaced.
            end: When to give up, on the event loop's clock; `None` for no limit.
        """
        try:
            async with asyncio.timeout_at(end):
                await self.download_captions(lipsync, target, overwrite=overwrite)
        except (HeyGenError, TimeoutError) as error:
            reason = one_line(str(error)) or "they did not arrive in time"
            _logger.warning("the captions of %s were not written: %s", lipsync.id, reason)

    async def _captions(self, link: OutputLink) -> bytes:
        content = bytearray()
        async with aclosing(fetch(self._transport, link, PartState(), max_bytes=MAX_CAPTION_BYTES)) as chunks:
            async for chunk in chunks:
                content[chunk.start :] = chunk.data
        return bytes(content)


def _claimable(path: str) -> Path | None:
    return None if os.path.isdir(path) else place_of(path)  # noqa: PTH112 never raises


def _check_lipsync(lipsync: Lipsync | str) -> None:
    if not isinstance(lipsync, (str, Lipsync)):
        advice = ": call its own download(), or give its .id" if hasattr(lipsync, "id") else ""
        raise TypeError(f"lipsync must be a Lipsync or its id, not {type(lipsync).__name__}{advice}")


def _check_options(**options: bool) -> None:
    for name, value in options.items():
        check_type(name, value, bool)


def _new_bytes(state: PartState, chunk: Chunk) -> bytes:
    """Return what of *chunk* was not yielded before."""
    if chunk.start < state.done and (state.etag is None or chunk.state.etag != state.etag):
        raise DownloadError(
            f"the download had to start again after {state.done:,} bytes, and the video may have changed",
            is_transient=True,
        )
    return chunk.data[max(0, state.done - chunk.start) :]


class _Receiver:
    """One video, from the network into its part."""

    def __init__(self, transport: Transport, part: OpenFile[Part], target: Path, max_bytes: int) -> None:
        self._transport = transport
        self._part = part
        self._target = target
        self._max_bytes = max_bytes
        self._written: asyncio.Future[None] | None = None
        self._is_broken = False

    async def receive(self, link: OutputLink, progress: Progress | None) -> None:
        """Download the file into its part, and report its length at the end if the host has not announced it.

        Raises:
            DownloadError: If it cannot be downloaded or written, is too long, or is cut short.
        """
        try:
            state = await self._receive(link, await self._on_disk(Part.state), progress)
            flaw = await self._on_disk(Part.flaw)
            if flaw is not None:
                # It has the length that was announced. A second copy that is cut short too is the host's error.
                state = await self._receive(link, PartState(), progress)
                flaw = await self._on_disk(Part.flaw)
        except TooLongError:
            await self._on_disk(Part.discard)
            raise
        if flaw is not None:
            await self._on_disk(Part.discard)
            message = f"the {link.kind} of {link.lipsync.id} is cut short on its host: {flaw}"
            raise DownloadError(message, is_transient=True)
        if state.total is None:
            await report(progress, state.done, state.done)

    async def _receive(self, link: OutputLink, state: PartState, progress: Progress | None) -> PartState:
        clock = asyncio.get_running_loop().time
        blocks: list[bytes] = []
        waiting, written_at, end = 0, clock(), -1
        try:
            async with aclosing(fetch(self._transport, link, state, max_bytes=self._max_bytes)) as chunks:
                async for chunk in chunks:
                    if chunk.start != end or chunk.state.total != state.total:
                        await self._flush(blocks)
                        await self._on_disk(methodcaller("begin", chunk.start, chunk.state))
                        blocks, waiting = [], 0
                    blocks.append(chunk.data)
                    waiting += len(chunk.data)
                    state, end = chunk.state, chunk.state.done
                    if waiting >= _BLOCK or clock() - written_at > _LINGER:
                        await self._write(blocks)
                        blocks, waiting, written_at = [], 0, clock()
                    await report(progress, state.done, state.total)
        except HeyGenError:
            await self._flush(blocks)
            raise
        await self._flush(blocks)
        return state

    async def _flush(self, blocks: Sequence[bytes]) -> None:
        await self._write(blocks)
        await self._settle()

    async def _write(self, blocks: Sequence[bytes]) -> None:
        """Write while the next bytes arrive; returns once what was written before is on disk."""
        await self._settle()
        if blocks and not self._is_broken:  # what follows a block that was not written must not be either
            self._written = self._part.start(lambda part: part.write(blocks))

    async def _settle(self) -> None:
        written, self._written = self._written, None
        if written is None:
            return
        try:
            with _disk_errors(self._target, part_path(self._target)):
                await written
        except DownloadError:
            self._is_broken = True
            raise

    async def _on_disk(self, job: Callable[[Part], T]) -> T:
        with _disk_errors(self._target, part_path(self._target)):
            return await self._part.run(job)

    async def publish(self, *, overwrite: bool) -> None:
        """Give the file its name."""
        await self._on_disk(lambda part: part.publish(overwrite=overwrite))


@contextmanager
def _disk_errors(target: Path, written: Path) -> Iterator[None]:
    """Turn what the file system reports into a `DownloadError`, which is not transient."""
    try:
        yield
    except FileExistsError as error:
        raise DownloadError(f"{target} was created by somebody else meanwhile; it was not overwritten") from error
    except OSError as error:
        raise DownloadError(f"cannot write {written}: {error.strerror or error}") from error
