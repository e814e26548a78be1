"""What a test can look at: the requests that the sandbox received, its deliveries and its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from attrs import define, field, frozen

from heygen_async.sandbox.faults import Fault
from heygen_async.sandbox.recording.exchange import Exchange

_SECRET: Final = frozenset({"x-api-key", "authorization", "cookie", "x-amz-signature"})
_MOST_SHOWN: Final = 200


def masked(given: Mapping[str, str]) -> dict[str, str]:
    """Return headers or a query without the key and without the signatures of links."""
    return {str(name): "***" if name.lower() in _SECRET else value for name, value in given.items()}


def shown_masked(given: Mapping[str, str]) -> str:
    """Return the repr of headers or a query without their secrets."""
    return repr(masked(given))


def shortened(body: bytes) -> str:
    """Return the repr of the start of *body*."""
    return repr(body[:_MOST_SHOWN]) + ("..." if len(body) > _MOST_SHOWN else "")


@define(eq=False, kw_only=True)
class RecordedRequest:
    """One request, as it was received."""

    id: str
    """The `X-Request-Id` of the answer."""
    method: str
    path: str
    route: str = ""
    """Method and path template, such as `GET /v3/lipsyncs/{lipsync_id}`; empty where nothing answers."""
    query: Mapping[str, str] = field(repr=shown_masked)
    """The repr leaves the signature of a link out."""
    headers: Mapping[str, str] = field(repr=shown_masked)
    """Case does not matter. They hold the key that was sent; the repr leaves it out."""
    at: float
    """When, in seconds of sandbox time."""
    body: bytes = field(default=b"", repr=shortened)
    """Empty for uploads: those are streamed to disk. The repr has its first 200 bytes."""
    status: int | None = None
    """The status of the answer; None while there is none, and if the connection ended early."""
    fault: Fault | None = None
    """What went wrong on purpose."""
    recording: Exchange | None = field(default=None, repr=False)
    """The recording that it was answered from."""

    @property
    def json(self) -> object:
        """The parsed body; None if there is none."""
        return orjson.loads(self.body) if self.body else None


@frozen(kw_only=True)
class RecordedDelivery:
    """One attempt to deliver an event."""

    event_id: str | None
    """None for the probe of a new endpoint."""
    url: str
    at: float
    """When, in seconds of sandbox time."""
    status: int | None
    """The status of the answer; None if there was none, or if the URL is not on this machine."""

    @property
    def is_taken(self) -> bool:
        """Whether the answer was a 2xx."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - the class of successes


@frozen(kw_only=True)
class SandboxJob:
    """A job at the moment when it was looked at. Times are unix timestamps in seconds."""

    id: str
    status: str
    """`pending`, `running`, `completed` or `failed`."""
    title: str | None
    body: Mapping[str, object]
    """The body of its create."""
    charged: float
    """What it cost, in the account's currency; 0 once it has failed."""
    created_at: float
    ended_at: float | None
    failure_message: str | None
    deleted: bool
    batch_id: str | None
