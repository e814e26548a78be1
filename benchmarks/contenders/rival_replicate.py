# pyright: reportMissingImports=false
"""replicate, the client of Replicate: one `Client` by its defaults, on httpx.

Jobs are its predictions. `download` writes the chunks of a `FileOutput`, its object for a link to an output.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import audio_url, video_url
from benchmarks.contender import Client, Contender, Route, wait_for_each
from benchmarks.rival_routes import DAY, job_route, link_for, page_routes

if TYPE_CHECKING:
    import replicate


class Replicate(Client):
    """The calls of one client."""

    def __init__(self, client: replicate.Client) -> None:
        self._client = client

    async def get(self, n: int) -> object:
        return await self._client.predictions.async_get(f"ls_{n:06}")

    async def create(self, n: int) -> object:
        return await self._client.predictions.async_create("0" * 64, {"video": video_url(n), "audio": audio_url(n)})

    async def page(self, n: int) -> object:
        return await self._client.predictions.async_list(f"/v1/predictions?cursor=t{n}")

    async def items(self) -> AsyncIterator[object]:
        from replicate.pagination import async_paginate  # noqa: PLC0415 optional

        async for page in async_paginate(self._client.predictions.async_list):
            for item in page:
                yield item

    async def upload(self, path: Path) -> object:
        return await self._client.files.async_create(path)

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        async def wait(job: str) -> None:
            prediction = await self._client.predictions.async_get(job)
            await prediction.async_wait()

        await wait_for_each(wait, ids, seen)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    import replicate  # noqa: PLC0415 optional

    yield Replicate(replicate.Client(api_token="key", base_url=f"{url}/replicate"))  # it cannot be closed


def _prediction(link: str) -> dict[str, object]:
    return {
        "id": "ls_1",
        "model": "sync/lipsync-2",
        "version": "hidden",
        "status": "succeeded",
        "input": {},
        "output": link,
        "error": None,
        "created_at": DAY,
    }


def _page(ids: Sequence[str], cursor: str | None) -> object:
    following = None if cursor is None else f"/v1/predictions?cursor={cursor}"
    return {"previous": None, "next": following, "results": [{**_DONE, "id": one} for one in ids]}


_DONE = _prediction(link_for(_prediction))
_RUNNING = {**_DONE, "status": "processing"}
_FILE = {
    "id": "file_1",
    "name": "v.mp4",
    "content_type": "video/mp4",
    "size": 1,
    "etag": "1",
    "checksums": {},
    "metadata": {},
    "created_at": DAY,
    "urls": {},
}

CONTENDER = Contender(
    name="replicate",
    requirement="replicate",
    module="replicate",
    statement="from replicate import Client",
    open=_open,
    routes=(
        job_route("GET /replicate/v1/predictions/", id_field="id", running=_RUNNING, done=_DONE),
        Route("POST /replicate/v1/predictions", _RUNNING),
        *page_routes(
            "GET /replicate/v1/predictions",
            alone="GET /replicate/v1/predictions?cursor=t",
            cursor="cursor",
            page=_page,
        ),
        Route("POST /replicate/v1/files", _FILE),
    ),
    cannot={"statuses": "has no status of many jobs", "download": "returns links, or a stream to write by hand"},
)
