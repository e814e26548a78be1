"""What came of a job, on its way down to a file or to whoever iterates over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from anyio import CancelScope, to_thread
from attrs import frozen

from heygen_async._media.answers import Held
from heygen_async._media.arrivals import Arrival, arrivals
from heygen_async._media.links import Kind, Link, link_of
from heygen_async._media.names import file_name
from heygen_async._media.owner import part_path
from heygen_async._media.parts import Part
from heygen_async._media.progress import Progress, tell
from heygen_async._media.sources import BLOCK
from heygen_async._media.targets import FilePath, captions_path, check_target
from heygen_async._media.threads import OpenFile
from heygen_async._media.transfers import Transfers
from heygen_async._transport.driver import Transport
from heygen_async.errors import DownloadError, HeyGenError
from heygen_async.models import Lipsync

T = TypeVar("T")

_LINGER: Final = 0.05
"""Seconds after which bytes are written though they are few: so much of a slow download may be lost by a cancel."""


@frozen
class Downloads:
    """Brings files down."""

    _transport: Transport
    _transfers: Transfers
    _get: Callable[[str], Awaitable[Lipsync]]

    async def download(
        self, lipsync: Lipsync | str, path: FilePath, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Path:
        """Write what came of a lipsync to files; see `HeyGenSession.download`."""
        known = lipsync if isinstance(lipsync, str) else lipsync.id
        await check_target(path, overwrite=overwrite, lipsync_id=known)
        found = await self._get(lipsync) if isinstance(lipsync, str) else lipsync
        wanted = await self._plan(found, Path(path))
        absolute = [await check_target(target, overwrite=overwrite, lipsync_id=found.id) for _, target in wanted]
        with self._claim(absolute), ExitStack() as stack:
            async with self._transfers.seats:
                files = [
                    stack.enter_context(_Receiver(self._transport, self._transfers, item, found.id))
                    for _, item in wanted
                ]
                for (link, _), file in zip(wanted, files, strict=True):
                    await file.receive(link, progress if link.kind == "video" else None)
                with CancelScope(shield=True):  # or a cancel could leave one without the other; it is soon done
                    for file in reversed(files):  # the video last: where it is, everything is
                        await file.publish(overwrite=overwrite)
        return wanted[0][1]

    async def _plan(self, lipsync: Lipsync, path: Path) -> list[tuple[Link, Path]]:
        url = link_of(lipsync, "video")
        if await to_thread.run_sync(path.is_dir):
            path /= file_name(lipsync.title, lipsync.id, url)
        wanted = [(self._link("video", lipsync), path)]
        if lipsync.caption_url:
            wanted.append((self._link("captions", lipsync), captions_path(path)))
        return wanted

    def _link(self, kind: Kind, lipsync: Lipsync) -> Link:
        link = Link(kind, lipsync, self._transport.http.origin.is_loopback, self._get)
        _ = link.url  # raises if there is none to follow
        return link

    @contextmanager
    def _claim(self, targets: Sequence[Path]) -> Iterator[None]:
        """Keep other downloads of the session away from *targets*."""
        mine = set(targets)
        if taken := mine & self._transfers.targets:
            raise DownloadError(f"{min(taken)} is being downloaded already")
        self._transfers.targets |= mine
        try:
            yield
        finally:
            self._transfers.targets -= mine

    async def iter_bytes(self, lipsync: Lipsync | str) -> AsyncIterator[bytes]:
        """Give out the video of a lipsync; see `HeyGenSession.iter_bytes`."""
        found = await self._get(lipsync) if isinstance(lipsync, str) else lipsync
        given = Held()
        async with aclosing(arrivals(self._transport, self._link("video", found), given)) as arriving:
            async for arrival in arriving:
                news = _news(given, arrival)
                given = Held(given.done + len(news), arrival.held.etag)
                if news:
                    yield news


def _news(given: Held, arrival: Arrival) -> bytes:
    """Return what of an arrival was not given out before."""
    if arrival.place < given.done and (given.etag is None or arrival.held.etag != given.etag):
        raise DownloadError(f"the video had to be had anew after {given.done:,} bytes were given out")
    return arrival.data[max(0, given.done - arrival.place) :]


class _Receiver(OpenFile[Part]):
    """One file, from the network into its part."""

    def __init__(self, transport: Transport, transfers: Transfers, target: Path, lipsync_id: str) -> None:
        self._target = target
        super().__init__(transfers.pool, partial(Part.open, target, lipsync_id))
        self._transport = transport
        self._written: asyncio.Future[None] | None = None
        self._is_broken = False

    async def receive(self, link: Link, progress: Progress | None) -> None:
        """Bring the file into its part.

        Raises:
            DownloadError: If it cannot be had, written, or is cut short.
        """
        held = await self._on_disk(Part.held)
        await self._receive(link, held, progress)
        if await self._on_disk(Part.flaw) is None:
            return
        # It came as long as it was said to be. Perhaps that was a slip; twice is no slip.
        await self._receive(link, Held(), progress)
        flaw = await self._on_disk(Part.flaw)
        if flaw is not None:
            await self._on_disk(Part.discard)
            raise DownloadError(f"the {link.kind} of {link.lipsync.id} is cut short on its host: {flaw}")

    async def _receive(self, link: Link, held: Held, progress: Progress | None) -> None:
        clock = asyncio.get_running_loop().time
        blocks: list[bytes] = []
        waiting, written_at, place = 0, clock(), -1
        try:
            async with aclosing(arrivals(self._transport, link, held)) as arriving:
                async for arrival in arriving:
                    if arrival.place != place or arrival.held.total != held.total:
                        await self._write(blocks)
                        await self._settle()
                        await self._on_disk(partial(_begin, arrival))
                        blocks, waiting = [], 0
                    blocks.append(arrival.data)
                    waiting += len(arrival.data)
                    held, place = arrival.held, arrival.held.done
                    if waiting >= BLOCK or clock() - written_at > _LINGER:
                        await self._write(blocks)
                        blocks, waiting, written_at = [], 0, clock()
                    await tell(progress, held.done, held.total)
        except HeyGenError:
            await self._write(blocks)
            await self._settle()
            raise
        await self._write(blocks)
        await self._settle()

    async def _write(self, blocks: Sequence[bytes]) -> None:
        """Write while the next bytes come; returns once what was written before is."""
        await self._settle()
        if blocks and not self._is_broken:  # what follows a block that was not written must not be either
            self._written = self.start(lambda part: part.write(blocks))

    async def _settle(self) -> None:
        written, self._written = self._written, None
        if written is None:
            return
        try:
            await self._or_download_error(written)
        except DownloadError:
            self._is_broken = True
            raise

    async def _on_disk(self, job: Callable[[Part], T]) -> T:
        return await self._or_download_error(self.start(job))

    async def _or_download_error(self, done: Awaitable[T]) -> T:
        try:
            return await done
        except FileExistsError as error:
            raise DownloadError(f"{self._target} has appeared meanwhile; it was not overwritten") from error
        except OSError as error:
            raise DownloadError(f"cannot write {part_path(self._target)}: {error.strerror or error}") from error

    async def publish(self, *, overwrite: bool) -> None:
        """Give the file its name."""
        await self._on_disk(lambda part: part.publish(overwrite=overwrite))


def _begin(arrival: Arrival, part: Part) -> None:
    part.begin(arrival.place, arrival.held)
