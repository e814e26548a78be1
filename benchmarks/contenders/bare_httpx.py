"""httpx by hand: the same requests on the other HTTP client for asyncio."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.answers import IDS, create_body
from benchmarks.contender import Client, Contender

if TYPE_CHECKING:
    import httpx

_NO_HELP = "has none: it is what one writes by hand"


class BareHttpx(Client):
    """The requests of the library, and the JSON of the answers."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, n: int) -> object:
        return await self._json(f"/v3/lipsyncs/ls_{n:06}")

    async def create(self, n: int) -> object:
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        response = await self._http.post("/v3/lipsyncs", content=create_body(n), headers=headers)
        return orjson.loads(response.raise_for_status().content)

    async def page(self, n: int) -> object:
        return await self._json("/v3/lipsyncs", {"limit": "100", "token": f"t{n}"})

    async def items(self) -> AsyncIterator[object]:
        token = "0"
        while token:
            page = await self._json("/v3/lipsyncs", {"limit": "100", "token": token})
            for item in page["data"]:
                yield item
            token = page["next_token"]

    async def statuses(self, n: int) -> object:
        ids = ",".join([*IDS[1:], f"ls_{n:024}"])
        answer = await self._json("/v3/lipsyncs/statuses", {"lipsync_ids": ids})
        return {entry["video_id"]: entry["status"] for entry in answer["data"]}

    async def _json(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        response = await self._http.get(url, params=params)
        answer: dict[str, Any] = orjson.loads(response.raise_for_status().content)
        return answer


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    import httpx  # noqa: PLC0415 optional

    async with httpx.AsyncClient(base_url=url, headers={"X-Api-Key": "key"}) as http:
        yield BareHttpx(http)


CONTENDER = Contender(
    name="httpx by hand",
    requirement="httpx",
    module="httpx",
    statement="import httpx",
    open=_open,
    cannot={"upload": _NO_HELP, "download": _NO_HELP, "wait": _NO_HELP},
)
