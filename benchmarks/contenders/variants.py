"""Other ways to upload with the library and with aiohttp, to compare with."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from attrs import evolve

from benchmarks.contender import Client, Contender
from benchmarks.contenders import bare_aiohttp, ours
from heygen_async._media.sources import local_file


class BareWithDigest(bare_aiohttp.BareAiohttp):
    """As `BareAiohttp`, and hashes what it sends."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        super().__init__(http, url)
        self._digest = hashlib.sha256()

    def _take(self, chunk: bytes) -> None:
        self._digest.update(chunk)


class KnownContent(ours.Ours):
    """Takes each file for one whose content is known and cannot change, as that of a pipe: it is sent unhashed."""

    async def upload(self, path: Path) -> object:
        uploads = self._heygen.assets._uploads  # noqa: SLF001 a path has no public way to say so
        async with local_file(path) as file:
            known = hashlib.sha256(str(path).encode()).hexdigest()  # the server does not compare it
            return await uploads.upload(evolve(file, sha256=known))


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


@asynccontextmanager
async def _open_for_known_contents(url: str) -> AsyncIterator[Client]:
    from heygen_async import HeyGenSession  # noqa: PLC0415 the server's process needs none

    async with HeyGenSession("key", base_url=url) as heygen:
        yield KnownContent(heygen)


WITH_DIGEST = evolve(bare_aiohttp.CONTENDER, name="aiohttp by hand, SHA-256", open=_open_with_digest)
NEW_FILE = evolve(ours.CONTENDER, name="heygen-async, new file", open=_open_for_new_files)
KNOWN_CONTENT = evolve(ours.CONTENDER, name="heygen-async, no digest", open=_open_for_known_contents)

VARIANTS: dict[str, Contender] = {one.name: one for one in (WITH_DIGEST, NEW_FILE, KNOWN_CONTENT)}
"""Measured only where a task names them."""
