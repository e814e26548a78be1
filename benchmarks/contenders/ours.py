"""heygen_async itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import IDS, audio_url, video_url
from benchmarks.contender import Client, Contender

if TYPE_CHECKING:
    from heygen_async import HeyGenSession


class Ours(Client):
    """The library by its default settings."""

    def __init__(self, heygen: HeyGenSession) -> None:
        self._heygen = heygen

    async def get(self, n: int) -> object:
        return await self._heygen.lipsyncs.get(f"ls_{n:06}")

    async def create(self, n: int) -> object:
        return await self._heygen.lipsyncs.create(video=video_url(n), audio=audio_url(n), title="x")

    async def page(self, n: int) -> object:
        return await self._heygen.lipsyncs.list(page_size=100, token=f"t{n}").first()

    def items(self) -> AsyncIterator[object]:
        return aiter(self._heygen.lipsyncs.list(page_size=100, token="0"))

    async def statuses(self, n: int) -> object:
        return await self._heygen.lipsyncs.statuses([*IDS[1:], f"ls_{n:024}"])

    async def upload(self, path: Path) -> object:
        return await self._heygen.assets.upload(path)

    async def download(self, n: int, path: Path) -> object:
        return await self._heygen.download(f"ls_{n:06}", path, overwrite=True)

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        async for lipsync in self._heygen.poller.as_completed(ids):
            seen(lipsync.id)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    from heygen_async import HeyGenSession  # noqa: PLC0415 the server's process needs none

    async with HeyGenSession("key", base_url=url) as heygen:
        yield Ours(heygen)


CONTENDER = Contender(
    name="heygen-async",
    requirement="heygen-async",
    module="heygen_async",
    statement="from heygen_async import HeyGenSession",
    open=_open,
)
