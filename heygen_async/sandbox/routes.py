"""Every route of the sandbox, with the scope that its key needs and the body that it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

from attrs import frozen

BodyKind: TypeAlias = Literal["none", "json", "optional", "stream"]


@frozen
class Route:
    """What a route needs."""

    scope: str | None = None
    """None: no key, or any valid key."""
    body: BodyKind = "none"
    """`optional`: JSON or nothing; `stream`: read by the handler itself."""


ROUTES: Final[Mapping[str, Route]] = {
    # A path without names comes before those that would match it too.
    "POST /v3/lipsyncs": Route("lipsync:write", "json"),
    "GET /v3/lipsyncs": Route("lipsync:read"),
    "GET /v3/lipsyncs/statuses": Route("lipsync:read"),
    "POST /v3/lipsyncs/batches": Route("lipsync:write", "json"),
    "GET /v3/lipsyncs/batches/{batch_id}": Route("lipsync:read"),
    "GET /v3/lipsyncs/{lipsync_id}": Route("lipsync:read"),
    "PATCH /v3/lipsyncs/{lipsync_id}": Route("lipsync:write", "json"),
    "DELETE /v3/lipsyncs/{lipsync_id}": Route("lipsync:write"),
    "POST /v3/assets": Route("assets:write", "stream"),
    "GET /v3/assets": Route("assets:read"),
    "POST /v3/assets/direct-uploads": Route("assets:write", "json"),
    "GET /v3/assets/statuses": Route("assets:read"),
    "POST /v3/assets/{asset_id}/complete": Route("assets:write", "optional"),
    "GET /v3/assets/{asset_id}": Route("assets:read"),
    "DELETE /v3/assets/{asset_id}": Route("assets:write"),
    "POST /v3/webhooks/endpoints": Route("webhooks:write", "json"),
    "GET /v3/webhooks/endpoints": Route("webhooks:read"),
    "PATCH /v3/webhooks/endpoints/{endpoint_id}": Route("webhooks:write", "json"),
    "DELETE /v3/webhooks/endpoints/{endpoint_id}": Route("webhooks:write"),
    "POST /v3/webhooks/endpoints/{endpoint_id}/rotate-secret": Route("webhooks:write", "optional"),
    "GET /v3/webhooks/event-types": Route("webhooks:read"),
    "GET /v3/webhooks/events": Route("webhooks:read"),
    "GET /v3/api_keys/self": Route(),
    "GET /v3/users/me": Route("account:read"),
    "GET /files/{name}": Route(),
    "GET /captions/{name}": Route(),
    "PUT /uploads/{asset_id}": Route(body="stream"),
}


def matches(route: str, pattern: str) -> bool:
    """Return whether *pattern*, in which `*` stands for any text, matches a route."""
    return fnmatchcase(route, pattern)


def check_route(pattern: str) -> str:
    """Return *pattern* if it matches a route; else raise `ValueError` with the nearest one."""
    if any(matches(route, pattern) for route in ROUTES):
        return pattern
    fitting = [route for route in ROUTES if re.fullmatch(re.sub(r"\{.*?\}", "[^/]+", route), pattern)]
    near = fitting or get_close_matches(pattern, ROUTES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"No route of the sandbox matches {pattern!r}{hint}")
