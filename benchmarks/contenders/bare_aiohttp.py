"""aiohttp and orjson by hand: the least that a call can cost on aiohttp."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from benchmarks.answers import IDS, create_body
from benchmarks.contender import Client, Contender

_NO_HELP = "has none: it is what one writes by hand"


class BareAiohttp(Client):
    """The requests of the library, and the JSON of the answers."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._url = http, f"{url}/v3/lipsyncs"

    async def get(self, n: int) -> object:
        return await self._json(f"{self._url}/ls_{n:06}")

    async def create(self, n: int) -> object:
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        async with self._http.post(self._url, data=create_body(n), headers=headers) as response:
            response.raise_for_status()
            return orjson.loads(await response.read())

    async def page(self, n: int) -> object:
        return await self._json(self._url, {"limit": "100", "token": f"t{n}"})

    async def items(self) -> AsyncIterator[object]:
        token = "0"
        while token:
            page = await self._json(self._url, {"limit": "100", "token": token})
            for item in page["data"]:
                yield item
            token = page["next_token"]

    async def statuses(self, n: int) -> object:
        ids = ",".join([*IDS[1:], f"ls_{n:024}"])
        answer = await self._json(f"{self._url}/statuses", {"lipsync_ids": ids})
        return {entry["video_id"]: entry["status"] for entry in answer["data"]}

    async def _json(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        async with self._http.get(url, params=params) as response:
            response.raise_for_status()
            answer: dict[str, Any] = orjson.loads(await response.read())
            return answer


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"X-Api-Key": "key"}) as http:
        yield BareAiohttp(http, url)


CONTENDER = Contender(
    name="aiohttp by hand",
    requirement="aiohttp",
    module="aiohttp",
    statement="import aiohttp",
    open=_open,
    cannot={"upload": _NO_HELP, "download": _NO_HELP, "wait": _NO_HELP},
)
