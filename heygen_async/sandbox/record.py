"""What was asked of the sandbox, kept for a test to look at."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from attrs import define, field

from heygen_async.sandbox.faults import Fault


@define(eq=False, kw_only=True)
class RecordedRequest:
    """One request, as it came in."""

    id: str
    """The `X-Request-Id` that it was answered with."""
    method: str
    path: str
    route: str = ""
    """Method and path template, such as `GET /v3/lipsyncs/{lipsync_id}`; empty where nothing answers."""
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    """Case does not matter. They hold the key that was sent."""
    at: float
    """When, in seconds of sandbox time."""
    body: bytes = field(default=b"", repr=False)
    """Empty for uploads: those are streamed to disk."""
    status: int | None = None
    """What it was answered with; None while it has no answer, and if its connection ended early."""

    fault: Fault | None = None
    """What went wrong on purpose."""

    @property
    def json(self) -> object:
        """The parsed body; None if there is none."""
        return orjson.loads(self.body) if self.body else None
