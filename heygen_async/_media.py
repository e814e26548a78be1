"""Files in and out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from os import PathLike
from pathlib import Path
from typing import Final, TypeAlias

import anyio
from anyio import to_thread

from heygen_async._transport.http import Http, Timeouts
from heygen_async._wire import Stream, is_trusted_link
from heygen_async.errors import DownloadError

Progress: TypeAlias = Callable[[int, int | None], Awaitable[None] | None]
"""Told of bytes done and in all; `None` where the whole is not known. May be a coroutine function."""

FilePath: TypeAlias = "str | PathLike[str]"

CHUNK: Final = 256 * 1024


async def read_file(path: Path) -> Stream:
    """Return the file at *path* as a body; it is opened anew, and read off the event loop, for each attempt."""
    size = (await to_thread.run_sync(os.stat, path)).st_size
    if size == 0:
        raise ValueError(f"{path.name} is empty")

    async def chunks() -> AsyncIterator[bytes]:
        async with await anyio.open_file(path, "rb") as file:
            while chunk := await file.read(CHUNK):
                yield chunk

    return Stream(content_type="application/octet-stream", length=size, chunks=chunks)


async def check_target(path: FilePath, *, overwrite: bool) -> Path:
    """Return where a download goes, before anything is asked for.

    Raises:
        DownloadError: If a file is there and may not be overwritten, or the folder is missing.
    """
    target = Path(path)
    if not await anyio.Path(target.parent).is_dir():
        raise DownloadError(f"cannot write {target}: the folder {target.parent} does not exist")
    if not overwrite and await anyio.Path(target).exists():
        raise DownloadError(f"{target} is there already; give overwrite=True to replace it")
    return target


async def fetch_file(http: Http, url: str, target: Path, *, timeouts: Timeouts, progress: Progress | None) -> None:
    """Write what is at the presigned *url* to *target*, by way of a `.part` file beside it."""
    if not is_trusted_link(url, allow_loopback=http.origin.is_loopback):
        raise DownloadError("the link to the video is not https")
    part = target.with_name(target.name + ".part")
    async with await anyio.open_file(part, "wb") as file:
        async for chunk in http.fetch(url, timeouts=timeouts):
            await file.write(chunk)
    await anyio.Path(part).replace(target)
