"""The sandbox over HTTP: who may come in, what is replayed, and how an answer becomes bytes."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final, TypeAlias

import orjson
from aiohttp import web
from attrs import frozen

from heygen_async.sandbox.filehost import FileHost, xml
from heygen_async.sandbox.ids import Ids
from heygen_async.sandbox.links import Denied
from heygen_async.sandbox.record import RecordedRequest
from heygen_async.sandbox.refusals import Refusal
from heygen_async.sandbox.replays import Kept, Replays, Scope, check_key
from heygen_async.sandbox.router import Router
from heygen_async.sandbox.routes import Call, Route, data
from heygen_async.sandbox.routes.assets import AssetRoutes
from heygen_async.sandbox.storage import read
from heygen_async.sandbox.strict import json_body

MAX_JSON_BYTES: Final = 4 << 20
MAX_RECORDS: Final = 100_000
"""How many requests are remembered; older ones are forgotten."""


@frozen
class Visit:
    """A request on its way through."""

    request: web.Request
    record: RecordedRequest
    names: Mapping[str, str]


Serve: TypeAlias = Callable[[Visit], Awaitable[web.StreamResponse]]


class Front:
    """Takes every request."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        files: FileHost,
        assets: AssetRoutes,
        settle: Callable[[], float],
        api_key: str,
        latency: float | Mapping[str, float],
        ids: Ids,
    ) -> None:
        self._files = files
        self._assets = assets
        self._settle = settle
        self._api_key = api_key.encode()
        self._latency = latency
        self._ids = ids
        self._replays = Replays()
        self.records: deque[RecordedRequest] = deque(maxlen=MAX_RECORDS)
        api = [(route.method, route.path, partial(self._api, route)) for route in routes]
        carriers: list[tuple[str, str, Serve]] = [
            ("POST", "/v3/assets", self._upload),
            ("GET", "/files/{name}", self._send),
            ("PUT", "/uploads/{asset_id}", self._take),
        ]
        self._router: Router[Serve] = Router([*api, *carriers])

    def app(self) -> web.Application:
        """Return the application; it finds its own way, so that 404 and 405 speak the API's language."""
        app = web.Application(client_max_size=MAX_JSON_BYTES)
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        record = self._record(request)
        try:
            match = self._router.find(request.method, request.rel_url.raw_path)
            record.route = match.route
            response = await match.target(Visit(request, record, match.names))
        except Refusal as refusal:
            response = _refused(refusal)
        except Denied as denied:
            response = xml(denied)
        except web.HTTPRequestEntityTooLarge:
            response = _refused(Refusal(413, "payload_too_large", f"At most {MAX_JSON_BYTES} bytes of JSON."))
        record.status = response.status
        if not response.prepared:
            response.headers["X-Request-Id"] = record.id
        return response

    def _record(self, request: web.Request) -> RecordedRequest:
        record = RecordedRequest(
            id=self._ids.new("req"),
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            at=self._settle(),
        )
        self.records.append(record)
        return record

    # --- the API -----------------------------------------------------------------------------------------

    async def _api(self, route: Route, visit: Visit) -> web.Response:
        self._authorize(visit.request)
        visit.record.body = await visit.request.read()
        return await self._once(visit, partial(self._act, route, visit))

    async def _act(self, route: Route, visit: Visit) -> Kept:
        body = None
        if route.body != "none":
            content_type = visit.request.content_type
            body = json_body(visit.record.body, content_type, optional=route.body == "optional")
        call = Call(path=visit.names, query=visit.request.query, body=body, now=self._settle())
        answer = route.act(call)
        return Kept(answer.status, orjson.dumps(answer.payload))

    async def _upload(self, visit: Visit) -> web.Response:
        self._authorize(visit.request)
        return await self._once(visit, partial(self._receive, visit))

    async def _receive(self, visit: Visit) -> Kept:
        asset = await self._files.receive_form(visit.request)
        answer = data(self._assets.uploaded(asset, self._settle()))
        return Kept(answer.status, orjson.dumps(answer.payload))

    def _authorize(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = request.headers.get("X-Api-Key", token if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(given.encode(), self._api_key):
            raise Refusal(401, "unauthorized", "The API key is missing or wrong.")

    async def _once(self, visit: Visit, work: Callable[[], Awaitable[Kept]]) -> web.Response:
        key = visit.request.headers.get("Idempotency-Key")
        if visit.request.method != "POST" or key is None:
            await self._delay(visit)
            return _json(await work())
        scope = (visit.record.path, check_key(key))
        kept = self._replays.begin(scope, self._settle())
        return _json(await self._first(visit, scope, work) if kept is None else kept)

    async def _first(self, visit: Visit, scope: Scope, work: Callable[[], Awaitable[Kept]]) -> Kept:
        answer: Kept | None = None
        try:
            # The key is in flight while the server is slow: that is when a second request meets it.
            await self._delay(visit)
            answer = await work()
            return answer
        finally:
            self._replays.end(scope, answer, self._settle())

    async def _delay(self, visit: Visit) -> None:
        latency = self._latency
        seconds = latency if isinstance(latency, int | float) else latency.get(visit.record.route, 0.0)
        if seconds > 0:
            await asyncio.sleep(seconds)

    # --- the file host -----------------------------------------------------------------------------------

    async def _send(self, visit: Visit) -> web.StreamResponse:
        parcel = await self._files.find(visit.request, visit.names["name"])
        response = web.StreamResponse(status=parcel.part.status, headers=parcel.headers())
        response.headers["X-Request-Id"] = visit.record.id
        await response.prepare(visit.request)
        async for chunk in read(parcel.stored.path, parcel.part.start, parcel.part.length):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _take(self, visit: Visit) -> web.Response:
        return await self._files.take(visit.request, visit.names["asset_id"])


def _json(answer: Kept) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, content_type="application/json")


def _refused(refusal: Refusal) -> web.Response:
    response = _json(Kept(refusal.status, orjson.dumps(refusal.envelope())))
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(refusal.retry_after))
    return response
