"""Videos over HTTP: the whole file or a range of it, read piece by piece as the browser takes it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO, Final

from aiohttp import web
from anyio import to_thread

from heygen_async.review.ranges import RangeNotSatisfiable, sent_bytes

_BLOCK: Final = 256 << 10


async def opened_in_thread(open_file: Callable[[], BinaryIO]) -> BinaryIO:
    """Open a file in a thread; it is closed if the browser has left before."""
    opening = asyncio.get_running_loop().run_in_executor(None, open_file)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)  # the thread opens it all the same
        raise


def _close(opening: asyncio.Future[BinaryIO]) -> None:
    if opening.exception() is None:
        opening.result().close()


async def send_video(request: web.Request, file: BinaryIO, media_type: str, version: str) -> web.StreamResponse:
    """Answer with an open file, which is closed at the end.

    Args:
        request: The request.
        file: The file.
        media_type: Its media type.
        version: What identifies its version; `If-Range` compares it.
    """
    try:
        size = await to_thread.run_sync(lambda: os.fstat(file.fileno()).st_size)
        tag = f'"{hashlib.sha256(version.encode()).hexdigest()[:32]}"'
        headers = {"Accept-Ranges": "bytes", "ETag": tag, "Content-Type": media_type}
        has_changed = request.headers.get("If-Range", tag) != tag
        try:
            part = None if has_changed else sent_bytes(request.headers.get("Range"), size)
        except RangeNotSatisfiable:
            return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        return await _sent(request, file, part, size, headers)
    finally:
        file.close()  # nothing is written, so it does not wait


async def _sent(
    request: web.Request, file: BinaryIO, part: range | None, size: int, headers: dict[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
    if part is not None:
        response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    wanted = range(size) if part is None else part
    response.content_length = len(wanted)
    await response.prepare(request)
    if request.method != "HEAD":
        await _write(response, file, wanted)
        await response.write_eof()
    return response


async def _write(response: web.StreamResponse, file: BinaryIO, wanted: range) -> None:
    left = len(wanted)
    await to_thread.run_sync(file.seek, wanted.start)
    while left and (block := await to_thread.run_sync(file.read, min(_BLOCK, left))):
        left -= len(block)
        await response.write(block)
