"""The API over HTTP: keys and scopes, idempotency, faults, and how an answer becomes bytes."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from random import Random
from typing import Final, TypeAlias

import orjson
from aiohttp import web
from attrs import frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, StorageError, invalid
from heygen_async.sandbox.faults import CAPTIONS, DOWNLOADS, Fault, NoRequestId, choose
from heygen_async.sandbox.http.asset_calls import AssetCalls
from heygen_async.sandbox.http.calls import Call, CallAnswer, Handler, data
from heygen_async.sandbox.http.fault_effects import apply, damage_to, on_download
from heygen_async.sandbox.http.file_host import FileHost, FileSlice, send, xml
from heygen_async.sandbox.http.validation import json_body
from heygen_async.sandbox.recording.replay import STATUSES, Replay
from heygen_async.sandbox.records import RecordedRequest
from heygen_async.sandbox.routes import ROUTES, Route
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.idempotency import IdempotencyKeys, Scope, StoredAnswer, check_key
from heygen_async.sandbox.state.paged_store import Ids

MAX_JSON_BYTES: Final = 4 << 20
MAX_RECORDS: Final = 20_000
"""How many requests are remembered; older ones are forgotten."""


@frozen
class RequestContext:
    """A request and its record."""

    request: web.Request
    record: RecordedRequest
    respond: Callable[[RequestContext], Awaitable[web.StreamResponse]]
    """Answers it."""

    @property
    def names(self) -> Mapping[str, str]:
        """The values of the names in the path of its route."""
        return self.request.match_info


Respond: TypeAlias = Callable[[RequestContext], Awaitable[web.StreamResponse]]
HttpHandler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CONTEXT: Final = web.RequestKey("context", RequestContext)


class ApiApp:
    """Answers every request."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        settings: Settings,
        *,
        files: FileHost,
        assets: AssetCalls,
        settle: Callable[[], float],
        changed: Callable[[], None],
        faults: list[Fault],
        replay: Replay,
        origin: Callable[[str], str],
    ) -> None:
        self._settings = settings
        self._files = files
        self._assets = assets
        self._settle = settle
        self._changed = changed
        self._ids = Ids(settings.seed)
        self._random = Random(settings.seed)  # noqa: S311 - it rolls dice
        self._keys = IdempotencyKeys()
        self._released = asyncio.Event()
        self._faults = faults
        self._replay = replay
        self._origin = origin
        self.records: deque[RecordedRequest] = deque(maxlen=MAX_RECORDS)
        self._responders: Mapping[str, Respond] = {
            **{name: partial(self._api, ROUTES[name], handler) for name, handler in handlers.items()},
            "POST /v3/assets": self._upload,
            DOWNLOADS: partial(self._send, files.find),
            CAPTIONS: partial(self._send, files.find_captions),
            "PUT /uploads/{asset_id}": self._put,
        }

    def release(self) -> None:
        """Let every stalled request continue."""
        self._released.set()
        self._released = asyncio.Event()

    def forget_keys(self) -> None:
        """Forget every idempotency key."""
        self._keys = IdempotencyKeys()

    # --- any request -------------------------------------------------------------------------------------

    async def handle(self, request: web.Request, handler: HttpHandler) -> web.StreamResponse:
        """Record a request, and answer it; *handler* is that of its route."""
        record = self._record(request)
        response = await self._converted(record, partial(self._answer, request, record, handler))
        if request.transport is not None and not request.transport.is_closing():
            record.status = response.status
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

    async def _answer(self, request: web.Request, record: RecordedRequest, handler: HttpHandler) -> web.StreamResponse:
        name = record.route = _route_name(request)
        if ROUTES[name].body != "stream":
            record.body = await request.read()
        fault = record.fault = choose(self._faults, name, self._random)
        request[_CONTEXT] = RequestContext(request, record, self._responders[name])
        work = partial(handler, request)
        if fault is None:
            return await work()
        effect = on_download(fault.effect) if name in (DOWNLOADS, CAPTIONS) else fault.effect
        # A fault applies to an error as it does to a success, so the error is converted first.
        return await apply(effect, request, partial(self._converted, record, work), self._released.wait)

    async def _converted(
        self, record: RecordedRequest, work: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Return the answer of *work*; its errors become answers."""
        try:
            response = await work()
        except ErrorAnswer as error:
            response = json_error(error)
        except StorageError as error:
            response = xml(error)
        except web.HTTPRequestEntityTooLarge:
            response = json_error(ErrorAnswer(413, "payload_too_large", f"At most {MAX_JSON_BYTES} bytes of JSON."))
        except web.RequestPayloadError as error:
            response = json_error(invalid(f"The body cannot be read: {error}."))
        except ConnectionError:
            response = web.Response()  # the client has gone
        if not response.prepared:
            response.headers.update(self._id_header(record))
        return response

    def _id_header(self, record: RecordedRequest) -> dict[str, str]:
        is_hidden = record.fault is not None and isinstance(record.fault.effect, NoRequestId)
        return {"X-Request-Id": record.id} if self._settings.request_ids and not is_hidden else {}

    # --- the API -----------------------------------------------------------------------------------------

    async def _api(self, route: Route, handler: Handler, context: RequestContext) -> web.Response:
        self._authorize(context.request, route)
        return await self._once(context, partial(self._call, route, handler, context))

    async def _call(self, route: Route, handler: Handler, context: RequestContext) -> StoredAnswer:
        body = None
        if route.body != "none":
            content_type = context.request.content_type
            body = json_body(context.record.body, content_type, optional=route.body == "optional")
        call = Call(
            path=context.names,
            query=context.request.query,
            body=body,
            now=self._settle(),
            origin=self._origin_of(context),
        )
        answer = self._answered(call, handler, context.record)
        if context.request.method != "GET":
            self._changed()
        return StoredAnswer(answer.status, orjson.dumps(answer.payload))

    def _answered(self, call: Call, handler: Handler, record: RecordedRequest) -> CallAnswer:
        if record.route == STATUSES:
            return self._replay.statuses(call, handler)
        record.recording = self._replay.find(record.route, record.path, call)
        return handler(call) if record.recording is None else self._replay.answer(record.recording, call.origin)

    async def _upload(self, context: RequestContext) -> web.Response:
        self._authorize(context.request, ROUTES[context.record.route])
        return await self._once(context, partial(self._receive, context))

    async def _receive(self, context: RequestContext) -> StoredAnswer:
        asset = await self._files.receive_form(context.request)
        answer = data(self._assets.uploaded(asset, self._settle(), self._origin_of(context)))
        return StoredAnswer(answer.status, orjson.dumps(answer.payload))

    def _origin_of(self, context: RequestContext) -> str:
        return self._origin(context.request.headers.get("Host", ""))

    def _authorize(self, request: web.Request, route: Route) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = request.headers.get("X-Api-Key", token if scheme.lower() == "bearer" else "")
        is_right = hmac.compare_digest(given.encode(errors="surrogateescape"), self._settings.api_key.encode())
        lifetime = self._settings.key_seconds
        if not is_right or (lifetime is not None and self._settle() >= lifetime):
            raise ErrorAnswer(401, "unauthorized", "The API key is missing or wrong.")
        if not self._settings.allows(route.scope):
            raise ErrorAnswer(403, "forbidden", f"The API key does not have the scope {route.scope}.")

    async def _once(self, context: RequestContext, work: Callable[[], Awaitable[StoredAnswer]]) -> web.Response:
        key = context.request.headers.get("Idempotency-Key")
        if context.request.method != "POST" or key is None:
            await self._delay(context)
            return json_answer(await work())
        scope = (context.record.path, check_key(key))
        kept = self._keys.begin(scope, self._settle())
        return json_answer(await self._first(context, scope, work) if kept is None else kept)

    async def _first(
        self, context: RequestContext, scope: Scope, work: Callable[[], Awaitable[StoredAnswer]]
    ) -> StoredAnswer:
        keys, answer = self._keys, None
        try:
            # The latency is inside, so that a second request finds the key in flight.
            await self._delay(context)
            answer = await work()
            return answer
        finally:
            keys.end(scope, answer, self._settle())

    async def _delay(self, context: RequestContext) -> None:
        seconds = self._settings.seconds_of(context.record.route)
        if seconds > 0:
            await asyncio.sleep(seconds)

    # --- the file host -----------------------------------------------------------------------------------

    async def _send(
        self, find: Callable[[web.Request, str], Awaitable[FileSlice]], context: RequestContext
    ) -> web.StreamResponse:
        await self._delay(context)
        file = await find(context.request, context.names["name"])
        damage = damage_to(file.length, context.record.fault)
        return await send(context.request, file, damage, headers=self._id_header(context.record))

    async def _put(self, context: RequestContext) -> web.Response:
        await self._delay(context)
        return await self._files.receive_put(context.request, context.names["asset_id"])


async def _respond(request: web.Request) -> web.StreamResponse:
    context = request[_CONTEXT]
    return await context.respond(context)


def application(current: Callable[[], ApiApp]) -> web.Application:
    """Return the application of the API; its middleware answers 404 and 405 in the API's JSON.

    Args:
        current: Returns what answers a request, which `Sandbox.reset` replaces.
    """

    @web.middleware
    async def handle(request: web.Request, handler: HttpHandler) -> web.StreamResponse:
        is_mounted = len(request.match_info.apps) > 1  # an application of its own under a prefix
        return await (handler(request) if is_mounted else current().handle(request, handler))

    app = web.Application(client_max_size=MAX_JSON_BYTES, middlewares=[handle])
    for name in ROUTES:
        method, path = name.split(" ")
        app.router.add_route(method, path, _respond)
    return app


def _route_name(request: web.Request) -> str:
    failure = request.match_info.http_exception
    if isinstance(failure, web.HTTPMethodNotAllowed):
        raise ErrorAnswer(405, "method_not_allowed", f"{request.method} is not allowed here.")
    resource = request.match_info.route.resource
    if failure is not None or resource is None:
        raise ErrorAnswer(404, "not_found", "There is nothing at this path.")
    return f"{request.method} {resource.canonical}"


def json_answer(answer: StoredAnswer) -> web.Response:
    """Return an answer whose body is JSON."""
    return web.Response(status=answer.status, body=answer.body, content_type="application/json")


def json_error(error: ErrorAnswer) -> web.Response:
    """Return the API's answer to a request that it refuses."""
    response = json_answer(StoredAnswer(error.status, orjson.dumps(error.envelope())))
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return response
