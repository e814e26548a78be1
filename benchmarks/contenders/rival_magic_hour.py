# pyright: reportMissingImports=false
"""magic-hour, the client of Magic Hour: one `AsyncClient` by its defaults, on httpx.

`create` is its lip sync, `get` reads a video project, and `wait` is `check_result`, the end of its `generate`. (In that
call its asynchronous client pauses with `time.sleep`, and stops the event loop.) `download` is the same call with
`download_outputs`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import audio_url, video_url
from benchmarks.contender import Asked, Client, Contender, Route, wait_for_each
from benchmarks.rival_routes import DAY, HOST, job_route, link_for

if TYPE_CHECKING:
    from magic_hour import AsyncClient


class MagicHour(Client):
    """The calls of one client."""

    def __init__(self, magic: AsyncClient) -> None:
        self._magic = magic

    async def get(self, n: int) -> object:
        return await self._magic.v1.video_projects.get(id=f"ls_{n:06}")

    async def create(self, n: int) -> object:
        return await self._magic.v1.lip_sync.create(
            assets={"video_source": "file", "video_file_path": video_url(n), "audio_file_path": audio_url(n)},
            start_seconds=0,
            end_seconds=42.5,
        )

    async def upload(self, path: Path) -> object:
        return await self._magic.v1.files.upload_file(path)

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        async def wait(job: str) -> None:
            await self._magic.v1.video_projects.check_result(job, wait_for_completion=True, download_outputs=False)

        await wait_for_each(wait, ids, seen)

    async def download(self, n: int, path: Path) -> object:
        return await self._magic.v1.video_projects.check_result(
            f"ls_{n:06}", wait_for_completion=True, download_outputs=True, download_directory=str(path.parent)
        )


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    from magic_hour import AsyncClient  # noqa: PLC0415 optional

    yield MagicHour(AsyncClient(token="key", base_url=f"{url}/magic-hour"))  # it cannot be closed


def _done(link: str) -> dict[str, object]:
    return {
        "id": "ls_1",
        "name": "My Lipsync",
        "status": "complete",
        "type": "LIP_SYNC",
        "created_at": DAY,
        "enabled": True,
        "start_seconds": 0,
        "end_seconds": 42.5,
        "fps": 30,
        "width": -1,
        "height": -1,
        "credits_charged": 1,
        "total_frame_cost": 1,
        "download": None,
        "downloads": [{"url": link, "expires_at": DAY}],
        "error": None,
    }


def _upload(asked: Asked) -> object:
    place = {"expires_at": DAY, "file_path": "api-assets/1", "upload_url": f"{asked.origin}/magic-hour/put"}
    return {"items": [place]}


def _done_here(asked: Asked) -> dict[str, object]:
    """Return a job whose video can be downloaded."""
    return {**_DONE, "downloads": [{"url": _LINK.replace(HOST, asked.origin), "expires_at": DAY}]}


_LINK = link_for(_done)
_DONE = _done(_LINK)

CONTENDER = Contender(
    name="magic-hour",
    requirement="magic-hour",
    module="magic_hour",
    statement="from magic_hour import AsyncClient",
    open=_open,
    routes=(
        job_route(
            "GET /magic-hour/v1/video-projects/",
            id_field="id",
            running={**_DONE, "status": "rendering", "downloads": []},
            done=_done_here,
        ),
        Route("POST /magic-hour/v1/lip-sync", {"id": "ls_1", "credits_charged": 1, "estimated_frame_cost": 1}),
        Route("POST /magic-hour/v1/files/upload-urls", _upload),
        Route("PUT /magic-hour/put", {}),
    ),
    cannot={
        "page": "has no list of jobs",
        "items": "has no list of jobs",
        "statuses": "has no status of many jobs",
    },
)
