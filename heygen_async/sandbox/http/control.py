"""Control of a sandbox over HTTP, for tests in any language, and a page that shows what happens in it.

Everything is under `/_sandbox`, takes no API key, and answers this machine only:

* `GET /_sandbox`: the page
* `GET /_sandbox/clock`: seconds of sandbox time, and how they pass
* `GET /_sandbox/jobs?limit=1000`, `GET /_sandbox/requests?limit=1000`: what happened, as `Sandbox.jobs` and
  `Sandbox.requests`; the newest of them, oldest first
* `POST /_sandbox/finish {"lipsync_id", "failure_message"?}`: end a job now
* `POST /_sandbox/advance {"seconds"}`: move the clock of a manual sandbox
* `GET`, `POST {"kind", "route"?, "times"?, ...}` and `DELETE /_sandbox/faults`: what goes wrong from now on, see
  `fault_requests`
* `POST /_sandbox/release`: let stalled requests continue
* `POST /_sandbox/reset`: forget everything and start again
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web
from attrs import asdict, frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, invalid
from heygen_async.sandbox.faults import Fault
from heygen_async.sandbox.http import validation
from heygen_async.sandbox.http.api_app import json_answer, json_error
from heygen_async.sandbox.http.fault_requests import read_fault
from heygen_async.sandbox.records import RecordedRequest, SandboxJob, masked
from heygen_async.sandbox.state.idempotency import StoredAnswer

PREFIX: Final = "/_sandbox"
_MAX_SHOWN: Final = 20_000
_LIMIT: Final = re.compile(r"[0-9]{1,5}")
_BODY_SHOWN: Final = 64 << 10
_IPV4: Final = "::ffff:"
"""What an IPv4 address begins with where the sandbox listens on `::`."""

_PAGE: Final = {
    "": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_FOLDER: Final = Path(__file__).parent.with_name("page")
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Answer: TypeAlias = Callable[[web.Request], Awaitable[object]]


class _Controlled(Protocol):
    """What is controlled: a `Sandbox`."""

    @property
    def is_manual(self) -> bool: ...
    @property
    def now(self) -> float: ...
    @property
    def speed(self) -> float: ...
    @property
    def jobs(self) -> list[SandboxJob]: ...
    @property
    def requests(self) -> list[RecordedRequest]: ...
    @property
    def faults(self) -> list[Fault]: ...

    async def advance(self, seconds: float) -> None: ...
    async def reset(self) -> None: ...
    def release(self) -> None: ...
    def finish(self, lipsync_id: str) -> None: ...
    def fail(self, lipsync_id: str, message: str) -> None: ...


def control_app(sandbox: _Controlled) -> web.Application:
    """Return the application that is mounted at `PREFIX`."""
    calls = _ControlCalls(sandbox)
    app = web.Application(middlewares=[_guarded])
    for path, (name, content_type) in _PAGE.items():
        app.router.add_get(path, partial(_send_page, name, content_type))
    for name, answer in calls.by_route().items():
        method, _, path = name.partition(" ")
        app.router.add_route(method, path, partial(_answered, answer))
    return app


@web.middleware
async def _guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        check_caller(request.remote or "", request.headers)
        response = await handler(request)
    except ErrorAnswer as error:
        response = json_error(error)
    except web.HTTPException as error:
        response = json_error(ErrorAnswer(error.status, error.reason.lower().replace(" ", "_"), f"{error.reason}."))
    response.headers.update(_HEADERS)
    return response


def check_caller(remote: str, headers: Mapping[str, str]) -> None:
    """Check that a request comes from this machine, and not through a page of another origin in a browser.

    Raises:
        ErrorAnswer: If not. A name that leads to this machine is not enough: it might be another site's.
    """
    host, origin = headers.get("Host", ""), headers.get("Origin")
    caller = remote.removeprefix(_IPV4)
    if not validation.is_loopback(caller) or not validation.is_loopback(_host_name(host)):
        raise ErrorAnswer(403, "forbidden", "The control of a sandbox is for its own machine only.")
    if origin is not None and origin != f"http://{host}":
        raise ErrorAnswer(403, "forbidden", "The control of a sandbox is not for pages of other origins.")


def _host_name(host: str) -> str:
    """Return the name in a `Host` header; nothing if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half of the brackets of IPv6, for instance
        return ""


async def _answered(answer: Answer, request: web.Request) -> web.Response:
    # json, not orjson: it writes what a request had of bytes that are no text, as escapes.
    return json_answer(StoredAnswer(200, json.dumps({"data": await answer(request)}).encode()))


async def _send_page(name: str, content_type: str, _: web.Request) -> web.FileResponse:
    return web.FileResponse(_FOLDER / name, headers={"Content-Type": content_type})


@frozen
class _ControlCalls:
    """The calls, each a thin one to the sandbox."""

    sandbox: _Controlled

    def by_route(self) -> dict[str, Answer]:
        return {
            "GET /clock": self.clock,
            "GET /jobs": self.jobs,
            "GET /requests": self.requests,
            "POST /finish": self.finish,
            "POST /advance": self.advance,
            "GET /faults": self.faults,
            "POST /faults": self.add_fault,
            "DELETE /faults": self.clear_faults,
            "POST /release": self.release,
            "POST /reset": self.reset,
        }

    async def clock(self, _: web.Request) -> object:
        return {"now": self.sandbox.now, "is_manual": self.sandbox.is_manual, "speed": self.sandbox.speed}

    async def jobs(self, request: web.Request) -> Sequence[object]:
        return [asdict(job) for job in self.sandbox.jobs[-_limit(request) :]]

    async def requests(self, request: web.Request) -> Sequence[object]:
        return [request_view(one) for one in self.sandbox.requests[-_limit(request) :]]

    async def finish(self, request: web.Request) -> None:
        shape = {"lipsync_id": validation.asset_id, "failure_message": validation.text}
        body = validation.fields(await _body(request), shape, required=("lipsync_id",))
        lipsync_id, message = str(body["lipsync_id"]), validation.text_in(body, "failure_message")
        try:
            if message is None:
                self.sandbox.finish(lipsync_id)
            else:
                self.sandbox.fail(lipsync_id, message)
        except LookupError as error:
            raise ErrorAnswer(404, "not_found", str(error.args[0]), "lipsync_id") from error
        except ValueError as error:
            raise ErrorAnswer(409, "has_ended", str(error), "lipsync_id") from error

    async def advance(self, request: web.Request) -> None:
        body = validation.fields(await _body(request), {"seconds": validation.seconds}, required=("seconds",))
        if not self.sandbox.is_manual:
            raise ErrorAnswer(409, "not_manual", "Only a manual sandbox can be advanced: start it with --manual.")
        try:
            await self.sandbox.advance(float(str(body["seconds"])))
        except ValueError as error:
            raise invalid(str(error), "seconds") from error

    async def faults(self, _: web.Request) -> Sequence[object]:
        return [fault_view(fault) for fault in self.sandbox.faults]

    async def add_fault(self, request: web.Request) -> Sequence[object]:
        self.sandbox.faults.append(read_fault(await _body(request)))
        return await self.faults(request)

    async def clear_faults(self, _: web.Request) -> None:
        self.sandbox.faults.clear()

    async def release(self, _: web.Request) -> None:
        self.sandbox.release()

    async def reset(self, _: web.Request) -> None:
        await self.sandbox.reset()


def _limit(request: web.Request) -> int:
    limit = request.query.get("limit", "1000")
    if not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= _MAX_SHOWN):
        raise invalid(f"limit must be a whole number from 1 to {_MAX_SHOWN}.", "limit")
    return int(limit)


async def _body(request: web.Request) -> object:
    return validation.json_body(await request.read(), request.content_type)


def request_view(record: RecordedRequest) -> dict[str, object]:
    """Return a request as JSON can show it, without secrets."""
    return {
        "id": record.id,
        "at": record.at,
        "method": record.method,
        "path": record.path,
        "route": record.route,
        "query": masked(record.query),
        "headers": masked(record.headers),
        "body": record.body[:_BODY_SHOWN].decode(errors="replace"),
        "status": record.status,
        "fault": None if record.fault is None else fault_view(record.fault),
    }


def fault_view(fault: Fault) -> dict[str, object]:
    """Return a fault as JSON can show it."""
    return {
        "route": fault.route,
        "effect": repr(fault.effect),
        "probability": fault.probability,
        "times": fault.times,
    }
