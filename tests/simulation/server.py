"""HeyGen in memory: the sandbox's world and calls behind bytes, with a file host, lags and a log of what was created.

The jobs, the money, the checks and the idempotency keys are the sandbox's own code. New here are the routing, the
file host (each output names its job, so that a file tells whose it is), and what makes the service unpleasant: answers
that lag behind, other programs on the account, and jobs that fail.
"""

import hashlib
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from attrs import define, evolve, frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, StorageError
from heygen_async.sandbox.http.account_calls import AccountCalls
from heygen_async.sandbox.http.asset_calls import AssetCalls
from heygen_async.sandbox.http.calls import Call, Handler
from heygen_async.sandbox.http.lipsync_calls import LipsyncCalls
from heygen_async.sandbox.http.validation import json_body
from heygen_async.sandbox.routes import ROUTES
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.asset_store import AssetStore, ReceivedFile
from heygen_async.sandbox.state.clock import Clock
from heygen_async.sandbox.state.idempotency import IdempotencyKeys, Scope, StoredAnswer
from heygen_async.sandbox.state.paged_store import Ids
from heygen_async.sandbox.state.scripts import JobScript, ScriptReader
from heygen_async.sandbox.state.signed_links import SignedLinks
from heygen_async.sandbox.state.world import SimulatedJob, World

from .contents import content_name, video_of, without_signature
from .network import HttpAnswer, HttpRequest, Reply
from .universe import Universe

API, FILES = "http://127.0.0.1:8001", "http://127.0.0.1:8002"
RATES = {"speed": 0.0333, "precision": 0.0667}
_JSON = {"Content-Type": "application/json"}
_WRITES = frozenset({"POST", "PATCH", "DELETE"})


@frozen
class Conditions:
    """How the service behaves, for a whole run."""

    account_limit: int | None = 10
    balance: float = 1000.0
    link_seconds: float = 7 * 24 * 3600.0
    status_lag: float = 0.0
    """Seconds until the end of a job is seen in statuses, lists and GETs."""
    list_lag: float = 0.0
    """Seconds until a new job is in the list."""
    get_lag: float = 0.0
    """Seconds until a new job is found by its id."""
    write_seconds: float = 0.5
    """The longest time that a write takes."""
    has_statuses: bool = True
    has_dates: bool = True
    """Whether answers have a `Date`."""
    keeps_refusals: bool = False
    """Whether a refusal is replayed under its key too."""
    ingest_seconds: float = 0.0
    video_bytes: int = 1500


@define(eq=False)
class Creation:
    """A job that somebody created."""

    job: SimulatedJob
    canon: str
    """What it was made of."""
    key: str | None
    """The idempotency key of the request."""
    life: Any
    """Who sent the request; `None` if it was another program."""
    at: float


class Service:
    """The whole service.

    Args:
        universe: Where it is.
        conditions: How it behaves.
        script: Says how each job goes, by what it is made of: its length, and why it fails.
    """

    def __init__(
        self, universe: Universe, conditions: Conditions, script: Callable[[str, JobScript], JobScript]
    ) -> None:
        self.universe = universe
        self.conditions = conditions
        settings = Settings(
            account_limit=conditions.account_limit,
            balance=conditions.balance,
            rates=RATES,
            retry_after=5.0,
            link_seconds=conditions.link_seconds,
            statuses_available=conditions.has_statuses,
            ingest_seconds=conditions.ingest_seconds,
        )
        ids = Ids(0)
        clock = _WorldClock(universe)
        self.world = World(ids, settings)
        self.assets = AssetStore(ids, settings)
        self.contents: dict[str, bytes] = {}
        """The bytes of uploads, by asset."""
        self.creations: list[Creation] = []
        self.by_job: dict[str, Creation] = {}
        self.bodies: dict[tuple[str, str], object] = {}
        """What was sent under each idempotency key, without signatures."""
        self.problems: list[str] = []
        """What the client did that no client may do."""
        self._clock = clock
        self._links = SignedLinks(FILES, b"sign", settings.link_seconds)
        self._keys = IdempotencyKeys()
        self._script = script
        self._reader = _Scripts(self)
        self._answered: dict[Scope, bytes] = {}
        asset_calls = AssetCalls(self.assets, self._links, clock)
        self._asset_calls = asset_calls
        self._handlers: Mapping[str, Handler] = {
            **LipsyncCalls(self.world, self._reader, self._links, clock, settings).handlers(),
            **asset_calls.handlers(),
            **AccountCalls(self.world, clock, settings).handlers(),
        }
        self._current: HttpRequest | None = None

    # Routing

    def route(self, request: HttpRequest) -> str:
        """Return the name of the route of a request."""
        return _matching(request.method, urlsplit(request.target).path)[0]

    def handle(self, request: HttpRequest, reply: Reply) -> None:
        """Answer a request after the time that the service needs."""
        seconds = self.universe.random.random() * (self.conditions.write_seconds if request.method in _WRITES else 0.05)
        self._check(request)
        key = request.headers.get("idempotency-key")
        if request.method != "POST" or key is None:
            self.universe.after(seconds, lambda: reply(self._answer(request)))
            return
        scope = (urlsplit(request.target).path, key)
        self._check_key(scope, request)
        try:
            kept = self._keys.begin(scope, self.settle())
        except ErrorAnswer as error:
            reply(_error(error))
            return
        if kept is not None:
            self.universe.after(0.01, partial(reply, HttpAnswer(kept.status, kept.body, self._json())))
            return
        self.universe.after(seconds, partial(self._first, request, scope, reply))

    def _first(self, request: HttpRequest, scope: Scope, reply: Reply) -> None:
        """Work on the first request under a key."""
        answer = self._answer(request)
        is_kept = answer.status < 300 or (self.conditions.keeps_refusals and answer.status in {400, 404})
        kept = StoredAnswer(200, answer.body) if is_kept else None
        self._keys.end(scope, kept, self.settle())
        if kept is not None:  # what is replayed has the status of the first answer
            self._keys._answers[scope] = StoredAnswer(answer.status, answer.body)
        reply(answer)

    def forget_keys(self) -> None:
        """Forget all idempotency keys, as after a day."""
        self._keys = IdempotencyKeys()

    def settle(self) -> float:
        """Let all end that is due, and return the time."""
        self.world.settle(self.universe.now)
        return self.universe.now

    def _answer(self, request: HttpRequest) -> HttpAnswer:
        now, count = self.settle(), len(self.world.created)
        url = urlsplit(request.target)
        self._current = request
        try:
            return self._dispatch(*_matching(request.method, url.path), request, dict(parse_qsl(url.query)), now)
        except ErrorAnswer as error:
            return _error(error)
        except StorageError as error:
            body = f"<Error><Code>{error.code}</Code></Error>".encode()
            return HttpAnswer(error.status, body, {"Content-Type": "application/xml"})
        finally:
            self.note_created(count)

    def _dispatch(
        self, name: str, names: Mapping[str, str], request: HttpRequest, query: Mapping[str, str], now: float
    ) -> HttpAnswer:
        match name:
            case "GET /files/{name}":
                return self._file(request, query, names["name"])
            case "GET /captions/{name}":
                return self._captions(request, query, names["name"])
            case "PUT /uploads/{asset_id}":
                return self._put(request, query, names["asset_id"])
            case "POST /v3/assets":
                return self._form(request, now)
        route = ROUTES[name]
        body = None
        if route.body != "none":
            body = json_body(request.body, "application/json", optional=route.body == "optional")
        if name == "GET /v3/lipsyncs" and "token" not in query:
            # The newest jobs are not listed yet: the page begins after them.
            hidden = sum(not self._is_listed(one.id, now) for one in self.world.created[-100:])
            query = {**query, "limit": str(min(100, int(query.get("limit", 10)) + hidden))}
        answer = self._handlers[name](Call(path=names, query=query, body=body, now=now, origin=FILES))
        payload = self._lagging(name, answer.payload, now)
        return HttpAnswer(answer.status, orjson.dumps(payload), self._json())

    def _json(self) -> dict[str, str]:
        """Return the headers of an answer of the API."""
        if not self.conditions.has_dates:
            return dict(_JSON)
        return {**_JSON, "Date": formatdate(self._clock.wall(self.universe.now), usegmt=True)}

    # What the client may not do

    def _check(self, request: HttpRequest) -> None:
        is_api = request.host in API
        if is_api != ("x-api-key" in request.headers):
            self.problems.append(f"the API key and {request.host}: {request.method} {request.target}")

    def _check_key(self, scope: Scope, request: HttpRequest) -> None:
        if not request.headers.get("content-type", "").startswith("application/json"):
            return
        body = self._plain(orjson.loads(request.body))
        first = self.bodies.setdefault(scope, body)
        if first != body:
            self.problems.append(f"the key {scope[1]} was used for {first}, and now for {body}")

    def _plain(self, value: object) -> object:
        """Return a body without signatures, and with the content of uploads in place of their ids."""
        match value:
            case {"type": "asset_id", "asset_id": asset_id}:
                return {"content": content_name(self.contents.get(asset_id, b""))}
            case dict():
                return {name: self._plain(one) for name, one in value.items()}
            case list():
                return [self._plain(one) for one in value]
            case str() if value.startswith("https://"):
                return without_signature(value)
            case _:
                return value

    # Lags

    def _lagging(self, name: str, payload: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        conditions = self.conditions
        if name == "GET /v3/lipsyncs":
            items = [self._late(one, now) for one in payload["data"] if self._is_listed(one["id"], now)]
            return {**payload, "data": items}
        if name == "GET /v3/lipsyncs/{lipsync_id}":
            found = self.by_job.get(payload["data"]["id"])
            if found is not None and now < found.at + conditions.get_lag:
                raise ErrorAnswer(404, "not_found", "There is no such lipsync.")
            return {"data": self._late(payload["data"], now)}
        if name == "GET /v3/lipsyncs/statuses":
            return {**payload, "data": [self._late_status(one, now) for one in payload["data"]]}
        return payload

    def _is_listed(self, lipsync_id: str, now: float) -> bool:
        job = self.world.find(lipsync_id)
        return job is not None and now >= job.created_at + self.conditions.list_lag

    def _has_ended_late(self, lipsync_id: str | None, now: float) -> bool:
        job = self.world.find(lipsync_id or "")
        return job is not None and job.ended_at is not None and now < job.ended_at + self.conditions.status_lag

    def _late(self, view: dict[str, Any], now: float) -> dict[str, Any]:
        if not self._has_ended_late(view["id"], now):
            return view
        hidden = dict.fromkeys(("duration", "video_url", "caption_url", "failure_message"))
        return {**view, **hidden, "status": "running"}

    def _late_status(self, row: dict[str, Any], now: float) -> dict[str, Any]:
        if not self._has_ended_late(row["video_id"], now):
            return row
        return {**{name: value for name, value in row.items() if name != "error"}, "status": "processing"}

    # Jobs

    def script_of(self, body: Mapping[str, Any], script: JobScript) -> JobScript:
        """Return how a job goes."""
        script = self._script(self.canon(body), script)
        return evolve(script, duration=min(script.duration, body.get("end_time", script.duration)))

    def note_created(self, count: int) -> None:
        """Keep who created the jobs that are new."""
        request = self._current
        for job in self.world.created[count:]:
            key = None if request is None else request.headers.get("idempotency-key")
            life = None if request is None else request.life
            creation = Creation(job, self.canon(job.body), key, life, self.universe.now)
            self.creations.append(creation)
            self.by_job[job.id] = creation
            self.universe.note(f"   job {job.id[:12]} is created for {creation.canon} under {key}")

    def canon(self, body: Mapping[str, Any]) -> str:
        """Return what a job is made of: its sources by address or content, and its title."""
        video, audio = (self._source(body[name]) for name in ("video", "audio"))
        return f"{video} + {audio} + {body.get('title')} + {body.get('mode', 'speed')}"

    def _source(self, source: Mapping[str, str]) -> str:
        if source["type"] == "url":
            return without_signature(source["url"])
        return content_name(self.contents.get(source["asset_id"], b""))

    def create_foreign(self, body: Mapping[str, Any]) -> None:
        """Create a job as another program of the account does, if there is room."""
        self.settle()
        self._current, count = None, len(self.world.created)
        try:
            self.world.create(body, JobScript(duration=10.0, seconds=60.0), self.universe.now)
        except ErrorAnswer:
            return
        self.note_created(count)

    # Files

    def _file(self, request: HttpRequest, query: Mapping[str, str], name: str) -> HttpAnswer:
        self._links.check("GET", f"/files/{name}", query, self._clock.wall(self.universe.now))
        job = self.world.find(name.rpartition(".")[0])
        if job is None or job.ended_at is None or job.failure_message is not None:
            raise StorageError(404, "NoSuchKey", "")
        content = video_of(job.id, self.conditions.video_bytes)
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {"Content-Type": "video/mp4", "ETag": etag, "Accept-Ranges": "bytes"}
        wanted = request.headers.get("range")
        if wanted is None or request.headers.get("if-range", etag) != etag:
            return HttpAnswer(200, content, headers)
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            raise StorageError(416, "InvalidRange", "")
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return HttpAnswer(206, content[start:], headers)

    def _captions(self, _: HttpRequest, query: Mapping[str, str], name: str) -> HttpAnswer:
        self._links.check("GET", f"/captions/{name}", query, self._clock.wall(self.universe.now))
        body = f"1\n00:00:00,000 --> 00:00:01,000\n{name}\n".encode()
        return HttpAnswer(200, body, {"Content-Type": "application/x-subrip"})

    def _put(self, request: HttpRequest, query: Mapping[str, str], asset_id: str) -> HttpAnswer:
        self._links.check("PUT", f"/uploads/{asset_id}", query, self._clock.wall(self.universe.now))
        asset = self.assets.find(asset_id)
        if asset is None:
            raise StorageError(404, "NoSuchKey", "")
        received = _received(request.body)
        asset.check_bytes(received)
        asset.received = received
        self.contents[asset_id] = request.body
        return HttpAnswer(200, b"", {"ETag": '"x"'})

    def _form(self, request: HttpRequest, now: float) -> HttpAnswer:
        boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
        _, part, _ = request.body.split(b"--" + boundary, 2)
        head, _, content = part.partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        name = head.partition(b'filename="')[2].partition(b'"')[0].decode()
        asset = self.assets.add(self.assets.new_id(), name, _received(content), now)
        self.contents[asset.id] = content
        return HttpAnswer(200, orjson.dumps({"data": self._asset_calls.uploaded(asset, now, FILES)}), _JSON)

    def lose_assets(self) -> None:
        """Delete all uploads, as the service may after a time."""
        for asset_id in list(self.contents):
            if self.assets.find(asset_id) is not None:
                self.assets.delete(asset_id)


class _WorldClock(Clock):
    """The world's clock, in seconds since its start."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        super().__init__(lambda: universe.now, speed=1.0, started_at=float(int(universe.wall())))

    def now(self) -> float:
        return self._universe.now


class _Scripts(ScriptReader):
    """Reads how jobs go, and remembers which were created."""

    def __init__(self, service: Service) -> None:
        object.__setattr__(self, "assets", service.assets)
        object.__setattr__(self, "sample_seconds", 10.0)
        object.__setattr__(self, "_service", service)

    def read(self, body: Mapping[str, object], now: float) -> JobScript:
        service = self._service
        return service.script_of(body, super().read(body, now))


def _received(content: bytes) -> ReceivedFile:
    kind = "video/mp4" if content[4:8] == b"ftyp" else "audio/mpeg" if content[:3] == b"ID3" else None
    return ReceivedFile(
        size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), mime_type=kind, duration=10.0
    )


def _error(error: ErrorAnswer) -> HttpAnswer:
    headers = dict(_JSON)
    if error.retry_after is not None:
        headers["Retry-After"] = str(int(error.retry_after))
    return HttpAnswer(error.status, orjson.dumps(error.envelope()), headers)


_PARTS = {name: tuple(name.split(" ")[1].split("/")[1:]) for name in ROUTES}


def _matching(method: str, path: str) -> tuple[str, Mapping[str, str]]:
    """Return the route of a request, and the names in its path."""
    parts = path.split("/")[1:]
    for name, pattern in _PARTS.items():
        if not name.startswith(f"{method} ") or len(pattern) != len(parts):
            continue
        names = {}
        for expected, part in zip(pattern, parts, strict=True):
            if expected.startswith("{"):
                names[expected[1:-1]] = unquote(part)
            elif expected != part:
                break
        else:
            return name, names
    raise ValueError(f"the client has sent {method} {path}")
