"""Assets that HeyGen is still processing: wait until they can be used, instead of uploading them again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from heygen_async._transport.driver import Transport
from heygen_async._wire import compose
from heygen_async.errors import InvalidRequest, NotFound, PermissionDenied, RequestTimeout
from heygen_async.models import JSON
from heygen_async.policies import PollPolicy

PROCESSING: Final = frozenset({"processing", "queued", "pending", "running"})
"""The states of an asset that will become usable by itself."""
COMPLETED: Final = "completed"

LONGEST: Final = 900.0
"""Seconds that HeyGen may take for one asset."""

_FAILED: Final = 422
_ID_FIELDS: Final = ("asset_id", "video_id", "id")
"""Lipsync statuses call the id `video_id`; which it is for assets is not published."""


@frozen
class AssetState:
    """What `GET /v3/assets/statuses` says of one asset."""

    status: str | None
    """`None` if it says nothing, or the account does not have the call."""
    message: str | None = None
    """Why it failed, if it did."""


@frozen
class Ingestion:
    """Waits for assets."""

    _transport: Transport
    _policy: PollPolicy

    async def wait(self, asset_id: str) -> AssetState:
        """Wait while an asset is being processed, and return what it became. Cancelled, it stops at once.

        Raises:
            RequestTimeout: If it takes too long; the asset may become usable later.
            HeyGenError: If the API refuses the status request.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        longest = min(self._policy.longest, LONGEST)
        while True:
            state = await self._state(asset_id)
            if state.status not in PROCESSING:
                return state
            age = clock() - started
            if age >= longest:
                message = f"HeyGen is still processing the asset {asset_id} after {longest:.0f} s"
                raise RequestTimeout(message, outcome="rejected")
            await asyncio.sleep(self._policy.interval(age, 0))

    async def wait_until_ready(self, asset_id: str) -> None:
        """Wait while an asset is being processed.

        Raises:
            InvalidRequest: If HeyGen could not process it.
            HeyGenError: As `wait` does.
        """
        state = await self.wait(asset_id)
        if state.status == "failed":
            reason = state.message or "no reason was given"
            message = f"HeyGen could not process the asset {asset_id}: {reason}"
            raise InvalidRequest(message, status=_FAILED, code="asset_failed", outcome="rejected")

    async def _state(self, asset_id: str) -> AssetState:
        request = compose("GET", "/v3/assets/statuses", params={"asset_ids": asset_id})
        try:
            response = await self._transport.send(request)
        except (NotFound, PermissionDenied):  # not every account has the call
            return AssetState(None)
        for entry in _entries(response.data):
            if any(entry.get(name) == asset_id for name in _ID_FIELDS):
                return _read(entry)
        return AssetState(None)


def _entries(data: JSON) -> Iterator[Mapping[str, JSON]]:
    found = data.get("data") if isinstance(data, Mapping) else None
    if isinstance(found, (list, tuple)):
        yield from (entry for entry in found if isinstance(entry, Mapping))


def _read(entry: Mapping[str, JSON]) -> AssetState:
    status, error = entry.get("status"), entry.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    return AssetState(status if isinstance(status, str) else None, error if isinstance(error, str) else None)
