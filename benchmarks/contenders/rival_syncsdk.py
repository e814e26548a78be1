# pyright: reportMissingImports=false
"""syncsdk, the client of sync.so: one `AsyncSync` by its defaults, on httpx.

`get` and `create` are those of its `generations`. Their list has no pages: `page` and `items` list its assets, with a
loop by hand as it has no iterator. `upload` is `create_with_files`: it sends files only with a create.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import PAGE, audio_url, video_url
from benchmarks.contender import Client, Contender, Route
from benchmarks.rival_routes import DAY, job_route, link_for, page_routes

if TYPE_CHECKING:
    from sync import AsyncSync


class Syncsdk(Client):
    """The calls of one client."""

    def __init__(self, sync: AsyncSync) -> None:
        from sync import Audio, Video  # noqa: PLC0415 optional

        self._sync, self._video, self._audio = sync, Video, Audio

    async def get(self, n: int) -> object:
        return await self._sync.generations.get(f"ls_{n:06}")

    async def create(self, n: int) -> object:
        sources = [self._video(url=video_url(n)), self._audio(url=audio_url(n))]
        return await self._sync.generations.create(model="lipsync-2", input=sources)

    async def page(self, n: int) -> object:
        return await self._sync.assets.list(limit=PAGE, cursor=f"t{n}")

    async def items(self) -> AsyncIterator[object]:
        page = await self._sync.assets.list(limit=PAGE)
        while True:
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            page = await self._sync.assets.list(limit=PAGE, cursor=page.next_cursor)

    async def upload(self, path: Path) -> object:
        with path.open("rb") as file:
            return await self._sync.generations.create_with_files(model="lipsync-2", video=file)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    from sync import AsyncSync  # noqa: PLC0415 optional

    yield Syncsdk(AsyncSync(api_key="key", base_url=f"{url}/syncsdk"))  # it cannot be closed


def _generation(link: str) -> dict[str, object]:
    return {
        "id": "ls_1",
        "createdAt": DAY,
        "input": [],
        "model": "lipsync-2",
        "status": "COMPLETED",
        "outputDuration": 42.5,
        "outputUrl": link,
        "error": None,
    }


def _asset(link: str) -> dict[str, object]:
    return {
        "id": "ls_1",
        "createdAt": DAY,
        "updatedAt": DAY,
        "name": "My Lipsync",
        "url": link,
        "type": "VIDEO",
        "durationSeconds": 42.5,
        "visibility": "PRIVATE",
    }


def _page(ids: Sequence[str], cursor: str | None) -> object:
    return {"items": [{**_asset(_ASSET_LINK), "id": one} for one in ids], "nextCursor": cursor}


_ASSET_LINK = link_for(_asset)
_DONE = _generation(link_for(_generation))
_RUNNING = {**_DONE, "status": "PROCESSING"}

CONTENDER = Contender(
    name="syncsdk",
    requirement="syncsdk",
    module="sync",
    statement="from sync import AsyncSync",
    open=_open,
    routes=(
        job_route("GET /syncsdk/v2/generate/", id_field="id", running=_RUNNING, done=_DONE),
        Route("POST /syncsdk/v2/generate", _RUNNING),
        *page_routes(
            "GET /syncsdk/v2/assets?", alone="GET /syncsdk/v2/assets?limit=100&cursor=t", cursor="cursor", page=_page
        ),
    ),
    cannot={
        "statuses": "has no status of many jobs",
        "download": "does not download",
        "wait": "does not wait for jobs",
    },
)
