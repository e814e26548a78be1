"""Sends a file, or a part of it, well or damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from aiohttp import web

from heygen_async.sandbox.faults import Damage
from heygen_async.sandbox.filehost import Parcel
from heygen_async.sandbox.ranges import Part
from heygen_async.sandbox.storage import read


async def send(
    request: web.Request, parcel: Parcel, damage: Damage, *, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer *request* with *parcel*, damaged on its way."""
    part = parcel.part if damage.ranges else Part(0, parcel.part.total, parcel.part.total, is_whole=True)
    response = web.StreamResponse(status=part.status, headers={**headers, **_headers(parcel, part, damage)})
    await response.prepare(request)
    length = part.length if damage.cut_after is None else min(damage.cut_after, part.length)
    async for chunk in read(parcel.stored.path, part.start, length):
        for piece in _pieces(chunk, damage.drip_bytes):
            await response.write(piece)
            if damage.drip_seconds:
                await asyncio.sleep(damage.drip_seconds)
    if length < part.length + damage.length_off_by:
        hang_up(request)
    else:
        await response.write_eof()
    return response


def _headers(parcel: Parcel, part: Part, damage: Damage) -> dict[str, str]:
    stored = parcel.stored
    headers = {"Content-Type": stored.mime_type, "ETag": stored.etag, **part.headers()}
    headers["Content-Length"] = str(max(0, part.length + damage.length_off_by))
    if not damage.ranges:
        del headers["Accept-Ranges"]
    return headers


def _pieces(chunk: bytes, size: int | None) -> Iterator[bytes]:
    step = size or len(chunk)
    return (chunk[start : start + step] for start in range(0, len(chunk), step))


def hang_up(request: web.Request) -> None:
    """End the connection once everything written has left."""
    if request.transport is not None:
        request.transport.close()
