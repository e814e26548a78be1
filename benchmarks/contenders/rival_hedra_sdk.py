# pyright: reportMissingImports=false
"""hedra-sdk, the client of Hedra: one `AsyncHedra` by its defaults, on httpx.

`create` is its talking avatar. `wait` is the loop of its README, with a pause of 2 s; its stream of server-sent events,
which takes a connection for each job, is not measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import PAGE, audio_url, video_url
from benchmarks.contender import Client, Contender, Route, wait_for_each
from benchmarks.rival_routes import DAY, job_route, link_for, page_routes

if TYPE_CHECKING:
    from hedra import AsyncHedra


class HedraSdk(Client):
    """The calls of one client."""

    def __init__(self, hedra: AsyncHedra) -> None:
        from hedra import (  # noqa: PLC0415 optional
            InputHedraAvatar,
            InputHedraAvatarAudioZero_Url,
            InputHedraAvatarStartImage_Url,
        )

        self._hedra, self._input = hedra, InputHedraAvatar
        self._image, self._audio = InputHedraAvatarStartImage_Url, InputHedraAvatarAudioZero_Url

    async def get(self, n: int) -> object:
        return await self._hedra.jobs.get(f"ls_{n:06}")

    async def create(self, n: int) -> object:
        image, audio = self._image(url=video_url(n)), self._audio(url=audio_url(n))
        return await self._hedra.jobs.submit_hedra_avatar(
            input=self._input(prompt="x", aspect_ratio="16:9", resolution="540p", start_image=image, audio=audio)
        )

    async def page(self, n: int) -> object:
        return await self._hedra.jobs.list(limit=PAGE, cursor=f"t{n}")

    async def items(self) -> AsyncIterator[object]:
        async for item in await self._hedra.jobs.list(limit=PAGE):
            yield item

    async def upload(self, path: Path) -> object:
        with path.open("rb") as file:
            return await self._hedra.files.upload(file=file)

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        async def wait(job: str) -> None:
            status = await self._hedra.jobs.get_status(job)
            while status.status in {"IN_QUEUE", "IN_PROGRESS"}:
                await asyncio.sleep(2)
                status = await self._hedra.jobs.get_status(job)
            await self._hedra.jobs.get(job)

        await wait_for_each(wait, ids, seen)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    from hedra import AsyncHedra  # noqa: PLC0415 optional

    yield HedraSdk(AsyncHedra(api_key="key", base_url=f"{url}/hedra-sdk/v3"))  # it cannot be closed


def _done(link: str) -> dict[str, object]:
    output = {"asset_id": "a_1", "url": link, "content_type": "video/mp4", "duration_ms": 42500}
    return {"job_id": "ls_1", "model": "hedra-avatar", "status": "COMPLETED", "outputs": [output], "error": None}


def _summary(link: str) -> dict[str, object]:
    return {"job_id": "ls_1", "model": "hedra-avatar", "quality": link, "status": "COMPLETED", "created_at": DAY}


def _page(ids: Sequence[str], cursor: str | None) -> object:
    return {"data": [{**_summary(_SUMMARY_LINK), "job_id": one} for one in ids], "next_cursor": cursor}


_SUMMARY_LINK = link_for(_summary)
_DONE = _done(link_for(_done))
_CREATED = {"job_id": "ls_1", "model": "hedra-avatar", "status": "IN_QUEUE", "status_url": "/1/s", "result_url": "/1"}

CONTENDER = Contender(
    name="hedra-sdk",
    requirement="hedra-sdk",
    module="hedra",
    statement="from hedra import AsyncHedra",
    open=_open,
    routes=(
        job_route(
            "GET /hedra-sdk/v3/jobs/",
            id_field="job_id",
            running={**_DONE, "status": "IN_PROGRESS", "outputs": []},
            done=_DONE,
        ),
        Route("POST /hedra-sdk/v3/models/hedra-avatar", _CREATED, status=202),
        *page_routes(
            "GET /hedra-sdk/v3/jobs?", alone="GET /hedra-sdk/v3/jobs?limit=100&cursor=t", cursor="cursor", page=_page
        ),
        Route("POST /hedra-sdk/v3/files", {"url": "u", "content_type": "video/mp4", "expires_at": DAY}),
    ),
    cannot={"statuses": "has no status of many jobs", "download": "does not download"},
)
