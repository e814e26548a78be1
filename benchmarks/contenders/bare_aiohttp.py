"""aiohttp and orjson by hand: the least that a call can cost on aiohttp."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import orjson

from benchmarks.answers import IDS, create_body
from benchmarks.contender import Client, Contender

CHUNK = 256 * 1024
"""Bytes that are read from a file, or written to it, in a thread."""


class BareAiohttp(Client):
    """The requests of the library, and the JSON of the answers."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._origin, self._url = http, url, f"{url}/v3/lipsyncs"

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

    async def upload(self, path: Path) -> object:
        async with self._http.post(f"{self._origin}/v3/assets/direct-uploads") as response:
            grant = (await response.json())["data"]
        size = (await asyncio.to_thread(path.stat)).st_size
        headers = {**grant["upload_headers"], "Content-Length": str(size)}
        async with self._http.put(grant["upload_url"], data=self._chunks(path), headers=headers) as response:
            return await response.read()

    async def _chunks(self, path: Path) -> AsyncIterator[bytes]:
        with await asyncio.to_thread(path.open, "rb") as file:
            while chunk := await asyncio.to_thread(self._read, file):
                yield chunk

    def _read(self, file: BinaryIO) -> bytes:
        chunk = file.read(CHUNK)
        self._take(chunk)
        return chunk

    def _take(self, chunk: bytes) -> None:
        """See what is sent."""

    async def download(self, n: int, path: Path) -> object:
        job = (await self._json(f"{self._url}/ls_{n:06}"))["data"]
        with await asyncio.to_thread(path.open, "wb") as file:
            async with self._http.get(job["video_url"]) as response:
                async for chunk in response.content.iter_chunked(CHUNK):
                    await asyncio.to_thread(file.write, chunk)
        return path

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
    cannot={"wait": "has none: it is what one writes by hand"},
)
