"""Applies faults to requests and answers."""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Final, TypeAlias

import orjson
from aiohttp import web
from attrs import evolve

from heygen_async.sandbox.faults import Alter, Damage, Effect, Fault, Reply, Reset, Stall, Truncate, altered
from heygen_async.sandbox.http.file_host import close

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER, on and 0 s

Work: TypeAlias = Callable[[], Awaitable[web.StreamResponse]]


async def apply(
    effect: Effect, request: web.Request, work: Work, released: Callable[[], Awaitable[object]]
) -> web.StreamResponse:
    """Answer *request* with *effect* applied; *work* returns the true answer, *released* ends a stall."""
    match effect:
        case Reply():
            return await _reply(effect, work)
        case Reset():
            return await _reset(effect, request, work)
        case Stall(after=after):
            return await _stall(work, released, after=after)
        case Truncate():
            return await _truncate(request, await work())
        case Alter():
            return _alter(await work(), effect)
    return await work()


def on_download(effect: Effect) -> Effect:
    """Return *effect* for a download, whose work is to send the file: what would be after it is before it."""
    return evolve(effect, after=False) if isinstance(effect, (Reply, Reset, Stall)) else effect


def damage_to(length: int, fault: Fault | None) -> Damage:
    """Return the damage to a download of *length* bytes."""
    match None if fault is None else fault.effect:
        case Damage() as damage:
            return damage
        case Truncate():
            return Damage(cut_after=length // 2)
    return Damage()


async def _reply(reply: Reply, work: Work) -> web.Response:
    if reply.after:
        await work()
    response = web.Response(status=reply.status, body=reply.body, content_type=reply.content_type)
    response.headers.update(reply.headers)
    if reply.retry_date is not None:
        # Whole seconds, rounded up: a date must not be early.
        date = formatdate(math.ceil(time.time() + reply.retry_date), usegmt=True)
        response.headers["Retry-After"] = date
    return response


async def _reset(effect: Reset, request: web.Request, work: Work) -> web.StreamResponse:
    answer = await work() if effect.after else web.Response()
    transport = request.transport
    if transport is not None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return answer


async def _stall(work: Work, released: Callable[[], Awaitable[object]], *, after: bool) -> web.StreamResponse:
    if not after:
        await released()
        return await work()
    answer = await work()
    await released()
    return answer


async def _truncate(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    if answer.prepared:
        return answer  # a download, see `damage_to`
    body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    close(request)
    return response


def _alter(answer: web.StreamResponse, effect: Alter) -> web.StreamResponse:
    if isinstance(answer, web.Response) and isinstance(answer.body, bytes) and answer.content_type.endswith("json"):
        # json, not orjson: it writes half of a surrogate pair, as an escape.
        answer.body = json.dumps(altered(orjson.loads(answer.body), effect)).encode()
    return answer
