"""The sandbox over HTTP: who may come in, what is replayed, and how an answer becomes bytes."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from random import Random
from typing import Final, TypeAlias

import orjson
from aiohttp import web
from attrs import frozen

from heygen_async.sandbox.faults import Damage, Fault, choose
from heygen_async.sandbox.filehost import FileHost, xml
from heygen_async.sandbox.ids import Ids
from heygen_async.sandbox.links import Denied
from heygen_async.sandbox.record import RecordedRequest
from heygen_async.sandbox.refusals import Refusal, invalid
from heygen_async.sandbox.replays import Kept, Replays, Scope, check_key
from heygen_async.sandbox.router import Router
from heygen_async.sandbox.routes import Call, Route, data
from heygen_async.sandbox.routes.assets import AssetRoutes
from heygen_async.sandbox.sending import send
from heygen_async.sandbox.strict import json_body
from heygen_async.sandbox.striking import strike

MAX_JSON_BYTES: Final = 4 << 20
MAX_RECORDS: Final = 20_000
"""How many requests are remembered; older ones are forgotten."""


@frozen
class Visit:
    """A request on its way through."""

    request: web.Request
    record: RecordedRequest
    names: Mapping[str, str]
    damage: Damage


Serve: TypeAlias = Callable[[Visit], Awaitable[web.StreamResponse]]


@frozen
class _Endpoint:
    serve: Serve
    streams: bool
    """Whether the body of the request goes to disk instead of being read at once."""


class Front:
    """Takes every request."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        files: FileHost,
        assets: AssetRoutes,
        settle: Callable[[], float],
        changed: Callable[[], None],
        api_key: str,
        latency: float | Mapping[str, float],
        seed: int,
        faults: list[Fault],
    ) -> None:
        self._files = files
        self._assets = assets
        self._settle = settle
        self._changed = changed
        self._api_key = api_key.encode()
        self._latency = latency
        self._ids = Ids(seed)
        self._random = Random(seed)  # noqa: S311 - it rolls dice
        self._replays = Replays()
        self._released = asyncio.Event()
        self._faults = faults
        self.records: deque[RecordedRequest] = deque(maxlen=MAX_RECORDS)
        api = [(route.method, route.path, _Endpoint(partial(self._api, route), streams=False)) for route in routes]
        carriers = [
            ("POST", "/v3/assets", _Endpoint(self._upload, streams=True)),
            ("GET", "/files/{name}", _Endpoint(self._send, streams=False)),
            ("PUT", "/uploads/{asset_id}", _Endpoint(self._take, streams=True)),
        ]
        self._router: Router[_Endpoint] = Router([*api, *carriers])

    def app(self) -> web.Application:
        """Return the application; it finds its own way, so that 404 and 405 speak the API's language."""
        app = web.Application(client_max_size=MAX_JSON_BYTES)
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        record = self._record(request)
        response = await self._spoken(record, partial(self._answer, request, record))
        if request.transport is not None and not request.transport.is_closing():
            record.status = response.status
        return response

    async def _answer(self, request: web.Request, record: RecordedRequest) -> web.StreamResponse:
        match = self._router.find(request.method, request.rel_url.raw_path)
        record.route = match.route
        if not match.target.streams:
            record.body = await request.read()
        fault = record.fault = choose(self._faults, match.route, self._random)
        effect = None if fault is None else fault.effect
        damage = effect if isinstance(effect, Damage) else Damage()
        work = partial(match.target.serve, Visit(request, record, match.names, damage))
        if effect is None:
            return await work()
        # A fault strikes a refusal as it does a success, so by then it has to be an answer.
        return await strike(effect, request, partial(self._spoken, record, work), self._released.wait)

    async def _spoken(
        self, record: RecordedRequest, work: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            response = await work()
        except Refusal as refusal:
            response = _refused(refusal)
        except Denied as denied:
            response = xml(denied)
        except web.HTTPRequestEntityTooLarge:
            response = _refused(Refusal(413, "payload_too_large", f"At most {MAX_JSON_BYTES} bytes of JSON."))
        except web.RequestPayloadError as error:
            response = _refused(invalid(f"The body cannot be read: {error}."))
        except ConnectionError:
            response = web.Response()  # nobody is there to read it
        if not response.prepared:
            response.headers["X-Request-Id"] = record.id
        return response

    def release(self) -> None:
        """Let every stalled request go on."""
        self._released.set()
        self._released = asyncio.Event()

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
        return await self._once(visit, partial(self._act, route, visit))

    async def _act(self, route: Route, visit: Visit) -> Kept:
        body = None
        if route.body != "none":
            content_type = visit.request.content_type
            body = json_body(visit.record.body, content_type, optional=route.body == "optional")
        call = Call(path=visit.names, query=visit.request.query, body=body, now=self._settle())
        answer = route.act(call)
        if route.method != "GET":
            self._changed()
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
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._api_key):
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
        await self._delay(visit)
        parcel = await self._files.find(visit.request, visit.names["name"])
        return await send(visit.request, parcel, visit.damage, request_id=visit.record.id)

    async def _take(self, visit: Visit) -> web.Response:
        await self._delay(visit)
        return await self._files.take(visit.request, visit.names["asset_id"])


def _json(answer: Kept) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, content_type="application/json")


def _refused(refusal: Refusal) -> web.Response:
    response = _json(Kept(refusal.status, orjson.dumps(refusal.envelope())))
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(refusal.retry_after))
    return response
