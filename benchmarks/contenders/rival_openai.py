# pyright: reportMissingImports=false
"""openai, the client of OpenAI: one `AsyncOpenAI` by its defaults, once on its own httpx2 and once on its aiohttp.

Jobs are its files, which have a state, a list, an upload and a wait (`files.wait_for_processing`). `create` is a batch:
what is paid for there. (Its `videos` were shut down in September 2026.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import PAGE, audio_url, video_url
from benchmarks.contender import Client, Contender, Route, Video, wait_for_each
from benchmarks.rival_routes import job_route, link_for, page_routes

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class Openai(Client):
    """The calls of one client."""

    def __init__(self, openai: AsyncOpenAI) -> None:
        self._openai = openai

    async def get(self, n: int) -> object:
        return await self._openai.files.retrieve(f"ls_{n:06}")

    async def create(self, n: int) -> object:
        return await self._openai.batches.create(
            input_file_id="file-abc123",
            endpoint="/v1/responses",
            completion_window="24h",
            metadata={"video": video_url(n), "audio": audio_url(n)},
        )

    async def page(self, n: int) -> object:
        return await self._openai.files.list(limit=PAGE, after=f"t{n}")

    async def items(self) -> AsyncIterator[object]:
        async for item in self._openai.files.list(limit=PAGE):
            yield item

    async def upload(self, path: Path) -> object:
        return await self._openai.files.create(file=path, purpose="user_data")

    async def download(self, n: int, path: Path) -> object:  # noqa: ARG002 one file is there
        async with self._openai.files.with_streaming_response.content("ls_video") as response:
            return await response.stream_to_file(path)

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        async def wait(job: str) -> None:
            await self._openai.files.wait_for_processing(job)

        await wait_for_each(wait, ids, seen)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    from openai import AsyncOpenAI  # noqa: PLC0415 optional

    async with AsyncOpenAI(api_key="key", base_url=f"{url}/openai/v1") as openai:
        yield Openai(openai)


@asynccontextmanager
async def _open_on_aiohttp(url: str) -> AsyncIterator[Client]:
    from openai import AsyncOpenAI, DefaultAioHttpClient  # noqa: PLC0415 optional

    http = DefaultAioHttpClient()
    async with AsyncOpenAI(api_key="key", base_url=f"{url}/openai/v1", http_client=http) as openai:
        yield Openai(openai)


def _file(link: str) -> dict[str, object]:
    return {
        "id": "ls_1",
        "object": "file",
        "bytes": 120000,
        "created_at": 1717000000,
        "expires_at": None,
        "filename": link,
        "purpose": "user_data",
        "status": "processed",
    }


def _page(ids: Sequence[str], cursor: str | None) -> object:
    return {"object": "list", "data": [{**_DONE, "id": one} for one in ids], "has_more": cursor is not None}


_DONE = _file(link_for(_file))
_BATCH = {
    "id": "batch_1",
    "object": "batch",
    "completion_window": "24h",
    "created_at": 1717000000,
    "endpoint": "/v1/responses",
    "input_file_id": "file-abc123",
    "status": "validating",
}
_CANNOT = {"statuses": "has no status of many jobs"}

CONTENDER = Contender(
    name="openai",
    requirement="openai[aiohttp]",
    module="openai",
    statement="from openai import AsyncOpenAI",
    open=_open,
    routes=(
        job_route("GET /openai/v1/files/", id_field="id", running={**_DONE, "status": "uploaded"}, done=_DONE),
        Route("POST /openai/v1/batches", _BATCH),
        *page_routes("GET /openai/v1/files?", alone="GET /openai/v1/files?after=t", cursor="after", page=_page),
        Route("POST /openai/v1/files", _DONE),
        Route("GET /openai/v1/files/ls_video/content", Video()),
    ),
    cannot=_CANNOT,
)
ON_AIOHTTP = Contender(
    name="openai (aiohttp)",
    requirement="openai[aiohttp]",
    module="openai",
    statement="from openai import AsyncOpenAI, DefaultAioHttpClient",
    open=_open_on_aiohttp,
    cannot=_CANNOT,
)
