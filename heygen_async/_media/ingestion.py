"""Assets that HeyGen is still processing: wait until they can be used, instead of uploading them again."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from heygen_async._ids import chunk_ids
from heygen_async._masking import Mask
from heygen_async._text import one_line
from heygen_async._transport.driver import Transport
from heygen_async._wire import Response, compose, short_text
from heygen_async.errors import NO_REASON, InvalidRequest, NotFound, PermissionDenied, RequestTimeout
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

    async def wait(self, asset_ids: Iterable[str]) -> dict[str, AssetState]:
        """Wait while any of some assets is being processed, and return what each became.

        If cancelled, it stops at once.

        Raises:
            RequestTimeout: If one takes too long; it may become usable later.
            HeyGenError: If the API refuses the status request.
        """
        clock = asyncio.get_running_loop().time
        started, longest = clock(), min(self._policy.longest, LONGEST)
        states: dict[str, AssetState] = {}
        waiting = list(dict.fromkeys(asset_ids))
        while True:
            for chunk in chunk_ids(waiting):
                states |= await self._states(chunk)
            waiting = [asset_id for asset_id in waiting if states[asset_id].status in PROCESSING]
            age = clock() - started
            if not waiting:
                return states
            if age >= longest:
                message = f"HeyGen is still processing the asset {waiting[0]} after {longest:.0f} s"
                raise RequestTimeout(message, outcome="rejected")
            await self._transport.gate.sleep(self._policy.interval(age, 0))

    async def wait_until_ready(self, asset_id: str) -> None:
        """Wait while an asset is being processed.

        Raises:
            InvalidRequest: If HeyGen could not process it.
            HeyGenError: As `wait` does.
        """
        state = (await self.wait([asset_id]))[asset_id]
        if state.status == "failed":
            reason = state.message or NO_REASON
            message = f"HeyGen could not process the asset {asset_id}: {reason}"
            raise InvalidRequest(message, status=_FAILED, code="asset_failed", outcome="rejected")

    async def _states(self, asset_ids: Sequence[str]) -> dict[str, AssetState]:
        states = dict.fromkeys(asset_ids, AssetState(None))
        missing, token = set(asset_ids), None
        while True:
            params = {"asset_ids": ",".join(asset_ids), "token": token}
            # An answer that says nothing of an asset is no reason not to use it, so one without data is read too.
            request = compose("GET", "/v3/assets/statuses", params=params, has_data=False)
            try:
                response = await self._transport.send(request)
            except (NotFound, PermissionDenied):  # not every account has the call
                return states
            found = _found(response, missing)
            states |= found
            missing -= found.keys()
            token = _next_token(response)
            if not found or not missing or token is None:
                return states


def _next_token(response: Response) -> str | None:
    answer = _envelope(response)
    token = answer.get("next_token")
    return token if answer.get("has_more") and isinstance(token, str) else None


def _found(response: Response, wanted: Container[str]) -> dict[str, AssetState]:
    """Return the states of those of the *wanted* assets that are in an answer."""
    named = ((entry.get(name), entry) for entry in _entries(_envelope(response)) for name in _ID_FIELDS)
    return {
        asset_id: _read(entry, response.mask)
        for asset_id, entry in named
        if isinstance(asset_id, str) and asset_id in wanted
    }


def _envelope(response: Response) -> Mapping[str, JSON]:
    return response.data if isinstance(response.data, Mapping) else {}


def _entries(answer: Mapping[str, JSON]) -> Iterator[Mapping[str, JSON]]:
    found = answer.get("data")
    if isinstance(found, (list, tuple)):
        yield from (entry for entry in found if isinstance(entry, Mapping))


def _read(entry: Mapping[str, JSON], mask: Mask) -> AssetState:
    status, error = entry.get("status"), entry.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    message = one_line(short_text(error, mask)) if isinstance(error, str) else None
    return AssetState(status if isinstance(status, str) else None, message)
