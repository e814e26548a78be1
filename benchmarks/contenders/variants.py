"""Other ways to upload with the library and with aiohttp, to compare with."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from attrs import evolve

from benchmarks.contender import Client, Contender
from benchmarks.contenders import bare_aiohttp, ours


class BareWithDigest(bare_aiohttp.BareAiohttp):
    """As `BareAiohttp`, and hashes what it sends."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        super().__init__(http, url)
        self._digest = hashlib.sha256()

    def _take(self, chunk: bytes) -> None:
        self._digest.update(chunk)


@asynccontextmanager
async def _open_with_digest(url: str) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        yield BareWithDigest(http, url)


@asynccontextmanager
async def _open_for_new_files(url: str) -> AsyncIterator[Client]:
    """Take each file for one that was changed a moment ago: it is hashed before it is sent."""
    from heygen_async import HeyGenSession  # noqa: PLC0415 the server's process needs none

    async with HeyGenSession("key", base_url=url) as heygen:
        heygen._calls.transfers.settled_after = float("inf")  # noqa: SLF001 the file is a minute old
        yield ours.Ours(heygen)


WITH_DIGEST = evolve(bare_aiohttp.CONTENDER, name="aiohttp by hand, SHA-256", open=_open_with_digest)
NEW_FILE = evolve(ours.CONTENDER, name="heygen-async, new file", open=_open_for_new_files)

VARIANTS: dict[str, Contender] = {one.name: one for one in (WITH_DIGEST, NEW_FILE)}
"""Measured only where a task names them."""
