"""What the sandbox and the models say of a real exchange: would the sandbox accept it, do the models know its answer?

The sandbox is asked with the request itself, so there is no second list of what it accepts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import orjson
from attrs import frozen
from yarl import URL

from heygen_async._drift import SHAPES, differences
from heygen_async.sandbox.recording.exchange import route_of
from heygen_async.sandbox.routes import ROUTES
from heygen_async.sandbox.server import Sandbox

_EVENT_TYPES: Final = "GET /v3/webhooks/event-types"
_BAD_REQUEST: Final = 400
_ERRORS: Final = 400
_ABSENT: Final = (404, 405)


@frozen(kw_only=True)
class Seen:
    """An exchange as it was, with everything that is masked later."""

    method: str
    target: str
    """Path and query, percent-encoded."""
    body: bytes | None
    """`None` if it was streamed."""
    content_type: str
    status: int
    answer: object
    """The parsed body; `None` if it is no JSON."""
    is_json: bool

    @property
    def path(self) -> str:
        """The path alone."""
        return self.target.partition("?")[0]

    @property
    def route(self) -> str:
        """Method and path template; empty for a call that the sandbox does not have."""
        return route_of(self.method, self.path)

    @property
    def is_success(self) -> bool:
        """Whether the answer is a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 the class of successes


@frozen
class Comparison:
    """Compares exchanges, with a sandbox to which it sends each request."""

    _sandbox: Sandbox
    _http: aiohttp.ClientSession

    async def differences(self, seen: Seen) -> list[str]:
        """Return how an exchange differs from what is expected, in sentences without values of it."""
        if not seen.path.startswith("/v3/"):
            return []
        return [*_answer_differences(seen), *await self._events(seen), *await self._request(seen)]

    async def _request(self, seen: Seen) -> list[str]:
        if not seen.route:
            return ["the sandbox has no such call"] if seen.is_success else []
        if seen.body is None or ROUTES[seen.route].body == "stream":
            return []
        target = URL(seen.target, encoded=True)
        first_page = target.without_query_params("token")  # the cursor of another server is unknown to the sandbox
        status, answer = await self._sandboxed(seen.method, str(first_page), seen.body, seen.content_type)
        if status == _BAD_REQUEST and seen.is_success:
            return [f"the API accepts what the sandbox refuses: {_messages(answer)}"]
        if seen.status == _BAD_REQUEST and status not in (_BAD_REQUEST, *_ABSENT) and target == first_page:
            return [f"the API refuses what the sandbox accepts: {_code(seen.answer)}"]
        return []

    async def _sandboxed(self, method: str, target: str, body: bytes | None, content_type: str) -> tuple[int, object]:
        headers = {"X-Api-Key": self._sandbox.api_key, **({"Content-Type": content_type} if content_type else {})}
        url = URL(self._sandbox.url + target, encoded=True)
        async with self._http.request(method, url, data=body or None, headers=headers) as answer:
            # What is no HTTP for the sandbox's server is answered in plain text.
            is_json = answer.content_type == "application/json"
            return answer.status, orjson.loads(await answer.read()) if is_json else None

    async def _events(self, seen: Seen) -> list[str]:
        if not seen.is_success or seen.route not in (_EVENT_TYPES, "GET /v3/webhooks/events"):
            return []
        _, answer = await self._sandboxed("GET", "/v3/webhooks/event-types", None, "")
        known, named = frozenset(_event_types(answer)), frozenset(_event_types(seen.answer))
        new = [f"the event type {name[:60]} is not known to the sandbox" for name in sorted(named - known)]
        gone = sorted(known - named) if seen.route == _EVENT_TYPES else ()
        return [*new, *(f"the event type {name} of the sandbox is not offered" for name in gone)]


@asynccontextmanager
async def comparing() -> AsyncIterator[Comparison]:
    """Start the sandbox of a comparison, and stop it at the end."""
    async with (
        Sandbox(manual=True, account_limit=None, balance=1e15) as sandbox,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        yield Comparison(sandbox, http)


def _answer_differences(seen: Seen) -> Iterator[str]:
    if seen.is_success and seen.route in SHAPES:
        if seen.is_json:
            yield from map(str, differences(seen.answer, SHAPES[seen.route]))
        else:
            yield "the answer is not JSON"
    elif seen.status >= _ERRORS and not _code(seen.answer):
        yield f"the error has another shape than the sandbox's ({seen.status})"


def _event_types(answer: object) -> Iterator[str]:
    data = answer.get("data") if isinstance(answer, dict) else None
    for item in data if isinstance(data, list) else ():
        name = item.get("event_type") if isinstance(item, dict) else None
        if isinstance(name, str):
            yield name


def _error(answer: object) -> Mapping[str, object]:
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _code(answer: object) -> str:
    code, message = _error(answer).get("code"), _error(answer).get("message")
    return code[:60] if isinstance(code, str) and isinstance(message, str) else ""


def _messages(answer: object) -> str:
    """Return the sentences of an error of the sandbox, which name fields and hold no values."""
    error = _error(answer)
    listed = error.get("errors")
    errors = listed if isinstance(listed, list) else [error]
    return " ".join(str(one.get("message")) for one in errors if isinstance(one, dict))
