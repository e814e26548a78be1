"""Creates of lipsyncs, one or a batch: their local files are uploaded first, and again if the server lost them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

from attrs import field, frozen

from heygen_async._arguments import host_problem
from heygen_async._converter import request_body
from heygen_async._media.sniffing import Role, check_asset
from heygen_async._media.sources import LocalFile, local_file
from heygen_async._media.uploads import Uploads
from heygen_async._transport.driver import Transport
from heygen_async._transport.keys import already_used
from heygen_async._wire import Request, Response, compose
from heygen_async.errors import UNUSABLE_ASSET, APIError, CallRecord, InvalidRequest, NotFound
from heygen_async.models import JSON, Asset, AssetId, LipsyncRequest, Source

_PROCESSING = "asset_not_available"
_REMOTE = (str, Asset, AssetId)

_Place: TypeAlias = tuple[int, Role]
"""A source: the index of its request, and its role."""


@frozen
class LipsyncCreate:
    """One logical call that creates a lipsync or a batch."""

    _transport: Transport
    _uploads: Uploads
    _path: str
    _requests: Sequence[LipsyncRequest] = field(repr=False)
    _wrap: Callable[[list[JSON]], JSON] = field(repr=False)
    """Makes the body of the call of those of its requests."""
    _key: str

    async def send(self) -> Response:
        """Upload the local files of the requests, send the call, and return the answer.

        Raises:
            TypeError, ValueError: If a source is wrong, or the key was used for a different request; nothing is sent.
            OSError: If a file cannot be read.
            HeyGenError: If the server or the network fails.

        Errors and cancellations after the check of the sources have `.idempotency_key`, `.attempts` and `.outcome`.
        """
        _check_sources(self._requests)
        sources = _local_sources(self._requests)
        if not sources:
            return await self._send({})
        async with AsyncExitStack() as stack:
            with self._transport.unsent(self._key).on_error():
                files = {  # every file is checked before the first is sent
                    place: await stack.enter_async_context(local_file(source, role=place[1]))
                    for place, source in sources
                }
                await self._refuse_used_key(files.values())
            return await self._send(files)

    async def _refuse_used_key(self, files: Iterable[LocalFile]) -> None:
        """Refuse a used key before anything is uploaded: a new upload makes the request a different one."""
        if self._transport.keys.is_used(self._key):
            for file in files:
                if not await self._uploads.is_known(file):
                    raise already_used(self._key)

    async def _send(self, files: Mapping[_Place, LocalFile]) -> Response:
        assets: Mapping[_Place, Asset] = {}
        if files:
            assets = await self._upload(files, self._transport.unsent(self._key))
        try:
            return await self._transport.send(self._composed(assets))
        except (NotFound, InvalidRequest) as error:
            if error.code not in UNUSABLE_ASSET or error.outcome != "rejected":
                raise
            record = CallRecord.read_from(error)
            if not await self._recover(error, assets, record):
                raise
        # Nothing was created, so the key is free.
        return await self._transport.send(self._composed(await self._upload(files, record)))

    async def _upload(self, files: Mapping[_Place, LocalFile], record: CallRecord) -> dict[_Place, Asset]:
        with record.on_error():  # that of the create: the upload is only a part of it
            return dict(zip(files, await self._uploads.upload_all(list(files.values())), strict=True))

    async def _recover(self, error: APIError, assets: Mapping[_Place, Asset], record: CallRecord) -> bool:
        """Return whether to send the request again after it was refused for an asset that cannot be used.

        An asset that is still being processed is waited for. Uploads of the session that the server no longer has are
        forgotten, whoever made them, and those of this call are made again.
        """
        used = _used_assets(self._requests, assets)
        if error.code == _PROCESSING:
            with record.on_error():
                return await self._uploads.recover(used) or bool(assets)
        for asset in used:  # which of them is gone the error does not say
            self._uploads.forget(asset)
        return bool(assets)

    def _composed(self, assets: Mapping[_Place, Asset]) -> Request:
        bodies: list[JSON] = [
            request_body(
                request,
                video=assets.get((index, "video"), request.video),
                audio=assets.get((index, "audio"), request.audio),
            )
            for index, request in enumerate(self._requests)
        ]
        return compose("POST", self._path, json=self._wrap(bodies), idempotency_key=self._key)


def _local_sources(requests: Sequence[LipsyncRequest]) -> list[tuple[_Place, Source]]:
    """List the sources that must be uploaded first."""
    sources: list[tuple[_Place, Source]] = []
    for index, request in enumerate(requests):
        if not isinstance(request.video, _REMOTE):
            sources.append(((index, "video"), request.video))
        if not isinstance(request.audio, _REMOTE):
            sources.append(((index, "audio"), request.audio))
    return sources


def _check_sources(requests: Sequence[LipsyncRequest]) -> None:
    """Check, like the types of local files, the hosts of links, and the types of assets as far as they are known."""
    for request in requests:
        if isinstance(request.video, Asset):
            check_asset(request.video, "video")
        if isinstance(request.audio, Asset):
            check_asset(request.audio, "audio")
        for role in ("video", "audio"):
            # No local variable has a link: a traceback may show them all.
            if (problem := host_problem(getattr(request, role))) is not None:
                raise ValueError(f"{role} {problem}")


def _used_assets(requests: Sequence[LipsyncRequest], assets: Mapping[_Place, Asset]) -> list[Asset | AssetId]:
    """List the assets that *requests* use: those just uploaded, and the caller's own."""
    own = (source for request in requests for source in (request.video, request.audio))
    return [*assets.values(), *(source for source in own if isinstance(source, (Asset, AssetId)))]
