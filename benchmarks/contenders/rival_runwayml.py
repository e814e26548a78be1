# pyright: reportMissingImports=false
"""runwayml, the client of Runway: one `AsyncRunwayML` by its defaults, on httpx.

`get` and `wait` are those of its `tasks`, `create` is a character's performance after a video. It has no list of tasks:
`page` and `items` list its documents, the smallest objects that it has in pages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import PAGE, video_url
from benchmarks.contender import Asked, Client, Contender, Route, wait_for_each
from benchmarks.rival_routes import DAY, job_route, link_for, page_routes

if TYPE_CHECKING:
    from runwayml import AsyncRunwayML


class Runwayml(Client):
    """The calls of one client."""

    def __init__(self, runway: AsyncRunwayML) -> None:
        self._runway = runway

    async def get(self, n: int) -> object:
        return await self._runway.tasks.retrieve(f"ls_{n:06}")

    async def create(self, n: int) -> object:
        return await self._runway.character_performance.create(
            model="act_two",
            character={"type": "video", "uri": video_url(n)},
            reference={"type": "video", "uri": video_url(n)},
        )

    async def page(self, n: int) -> object:
        return await self._runway.documents.list(limit=PAGE, order="asc", sort="createdAt", cursor=f"t{n}")

    async def items(self) -> AsyncIterator[object]:
        async for item in self._runway.documents.list(limit=PAGE, order="asc", sort="createdAt"):
            yield item

    async def upload(self, path: Path) -> object:
        return await self._runway.uploads.create_ephemeral(file=path)

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        async def wait(job: str) -> None:
            task = await self._runway.tasks.retrieve(job)
            await task.wait_for_task_output(timeout=None)

        await wait_for_each(wait, ids, seen)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    from runwayml import AsyncRunwayML  # noqa: PLC0415 optional

    async with AsyncRunwayML(api_key="key", base_url=f"{url}/runwayml") as runway:
        yield Runwayml(runway)


def _done(link: str) -> dict[str, object]:
    return {"id": "ls_1", "createdAt": DAY, "status": "SUCCEEDED", "cost": {"credits": 1}, "output": [link]}


def _document(link: str) -> dict[str, object]:
    return {"id": "ls_1", "createdAt": DAY, "updatedAt": DAY, "name": link, "type": "file", "usedBy": []}


def _page(ids: Sequence[str], cursor: str | None) -> object:
    return {"data": [{**_document(_DOCUMENT_LINK), "id": one} for one in ids], "nextCursor": cursor}


def _upload(asked: Asked) -> object:
    return {"runwayUri": "runway://1", "uploadUrl": f"{asked.origin}/runwayml/put", "fields": {"key": "1"}}


_DOCUMENT_LINK = link_for(_document)
_RUNNING = {"createdAt": DAY, "status": "RUNNING", "estimatedCost": {"credits": 1}, "progress": 0.5}

CONTENDER = Contender(
    name="runwayml",
    requirement="runwayml",
    module="runwayml",
    statement="from runwayml import AsyncRunwayML",
    open=_open,
    routes=(
        job_route("GET /runwayml/v1/tasks/", id_field="id", running=_RUNNING, done=_done(link_for(_done))),
        Route("POST /runwayml/v1/character_performance", {"id": "ls_1"}),
        *page_routes(
            "GET /runwayml/v1/documents?",
            alone="GET /runwayml/v1/documents?limit=100&order=asc&sort=createdAt&cursor=t",
            cursor="cursor",
            page=_page,
        ),
        Route("POST /runwayml/v1/uploads", _upload),
        Route("POST /runwayml/put", {}),
    ),
    cannot={"statuses": "has no status of many jobs", "download": "does not download"},
)
