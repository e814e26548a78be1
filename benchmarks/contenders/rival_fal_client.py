# pyright: reportMissingImports=false
"""fal-client, the client of fal.ai's queue: one `AsyncClient` by its defaults, on httpx.

It takes no base URL, so constants of its module are set to the server's: nothing else here is not its public API. A job
that it returns is a dictionary. `get` is its `status`, which makes one request; the body is as large as elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.answers import audio_url, video_url
from benchmarks.contender import Asked, Client, Contender, Route, wait_for_each
from benchmarks.rival_routes import job_route, link_for

if TYPE_CHECKING:
    from fal_client import AsyncClient

_APP = "owner/lipsync"


class FalClient(Client):
    """The calls of one client."""

    def __init__(self, fal: AsyncClient) -> None:
        self._fal = fal

    async def get(self, n: int) -> object:
        return await self._fal.status(_APP, f"ls_{n:06}")

    async def create(self, n: int) -> object:
        return await self._fal.submit(_APP, {"video_url": video_url(n), "audio_url": audio_url(n)})

    async def upload(self, path: Path) -> object:
        return await self._fal.upload_file(path)

    async def wait(self, ids: Sequence[str], seen: Callable[[str], None]) -> None:
        async def wait(job: str) -> None:
            await self._fal.result(_APP, job)

        await wait_for_each(wait, ids, seen)


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    from fal_client import AsyncClient, client  # noqa: PLC0415 optional

    base = f"{url}/fal-client"
    client.QUEUE_URL_FORMAT, client.REST_URL, client.CDN_URL = f"{base}/", base, base
    yield FalClient(AsyncClient(key="key"))  # it cannot be closed


def _done(link: str) -> dict[str, object]:
    return {
        "request_id": "ls_1",
        "status": "COMPLETED",
        "logs": [],
        "metrics": {"inference_time": 42.5},
        "response_url": link,
    }


def _stored(asked: Asked) -> object:
    return {"access_url": f"{asked.origin}/fal-client/stored", "uploadId": "1"}


def _token(asked: Asked) -> object:
    far = "2100-01-01T00:00:00+00:00"
    return {"token": "t", "token_type": "Bearer", "base_url": f"{asked.origin}/fal-client", "expires_at": far}


_DONE = _done(link_for(_done))
_RUNNING = {"status": "IN_PROGRESS", "logs": []}
_CREATED = {"request_id": "ls_1", "response_url": "/1", "status_url": "/1/status", "cancel_url": "/1/cancel"}

CONTENDER = Contender(
    name="fal-client",
    requirement="fal-client",
    module="fal_client",
    statement="from fal_client import AsyncClient",
    open=_open,
    routes=(
        job_route("GET /fal-client/owner/lipsync/requests/", id_field="request_id", running=_RUNNING, done=_DONE),
        Route("POST /fal-client/owner/lipsync", _CREATED),
        Route("POST /fal-client/storage/auth/token", _token),
        Route("POST /fal-client/files/", _stored),
        Route("PUT /fal-client/stored/", {}, headers={"ETag": '"1"'}),
        Route("POST /fal-client/stored/", {}),
    ),
    cannot={
        "page": "has no list of jobs",
        "items": "has no list of jobs",
        "statuses": "has no status of many jobs",
        "download": "does not download",
    },
)
