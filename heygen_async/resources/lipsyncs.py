"""`session.lipsyncs`: create, get, list, rename and delete lipsyncs, one by one and in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import TypeAlias, Unpack

from attrs import evolve, frozen

from heygen_async._arguments import (
    check_callback_url,
    check_count,
    check_keywords,
    check_type,
    host_problem,
    plain_text,
)
from heygen_async._converter import (
    BatchCreated,
    Created,
    read_batch_items,
    read_new,
    read_own,
    read_page,
    read_statuses,
    request_body,
)
from heygen_async._ids import check_key, chunk_ids, new_key, segment, segments
from heygen_async._media.downloads import Downloads
from heygen_async._media.sniffing import Role, check_asset
from heygen_async._media.sources import LocalFile, local_file
from heygen_async._media.uploads import Uploads
from heygen_async._transport.driver import Transport
from heygen_async._transport.keys import already_used
from heygen_async._wire import Request, Response, compose
from heygen_async.errors import UNUSABLE_ASSET, APIError, CallRecord, HeyGenError, InvalidRequest, NotFound
from heygen_async.jobs import LipsyncBatch, LipsyncJob
from heygen_async.models import (
    JSON,
    Asset,
    AssetId,
    Batch,
    BatchItem,
    Lipsync,
    LipsyncOptions,
    LipsyncRequest,
    LipsyncStatus,
    Source,
    check_title,
)
from heygen_async.pagination import MAX_PAGE, Page, Paginator
from heygen_async.policies import PollPolicy
from heygen_async.polling import LipsyncPoller

_ONE = "/v3/lipsyncs/{lipsync_id}"
_BATCH = "/v3/lipsyncs/batches/{batch_id}"
_PROCESSING = "asset_not_available"
_ASSETS = (Asset, AssetId)
_REMOTE = (str, Asset, AssetId)
MAX_BATCH = 100

_Place: TypeAlias = tuple[int, Role]
"""A source: the index of its request, and its role."""


# These are not methods: the poller needs them, and Lipsyncs needs the poller.


async def fetch(transport: Transport, lipsync_id: str) -> Lipsync:
    """Get one lipsync."""
    # Without `compose`, which would be 3 % of the call.
    request = Request("GET", f"/v3/lipsyncs/{segment('lipsync_id', lipsync_id)}", _ONE)
    return read_own(await transport.send(request), Lipsync, lipsync_id)


async def fetch_page(transport: Transport, page_size: int, token: str | None) -> Page[Lipsync]:
    """Get one page of the list."""
    params = {"limit": page_size, "token": token}
    return read_page(await transport.send(compose("GET", "/v3/lipsyncs", params=params)), Lipsync)


async def fetch_statuses(transport: Transport, lipsync_ids: Sequence[str]) -> dict[str, LipsyncStatus | str]:
    """Get the statuses of as many jobs as fit into one request, and follow pages while they bring some."""
    found: dict[str, LipsyncStatus | str] = {}
    missing = set(lipsync_ids)
    async for page in Paginator(partial(_status_page, transport, ",".join(lipsync_ids))).pages():
        found.update(page.items)
        new = missing & found.keys()
        missing -= new
        if not new or not missing:
            break
    return found


async def _status_page(transport: Transport, joined: str, token: str | None) -> Page[tuple[str, LipsyncStatus | str]]:
    params = {"lipsync_ids": joined, "token": token}
    return read_statuses(await transport.send(compose("GET", "/v3/lipsyncs/statuses", params=params)))


def make_poller(transport: Transport, policy: PollPolicy) -> LipsyncPoller:
    """Make the poller of a session."""
    # A poller looks again by its own policy. Retries on top would multiply its requests while the API is out of order.
    once = evolve(transport, retry=evolve(transport.retry, max_attempts=1))
    return LipsyncPoller(
        statuses=partial(fetch_statuses, once),
        get=partial(fetch, once),
        list_page=partial(fetch_page, once, MAX_PAGE),
        policy=policy,
        now=transport.server_time.now,
    )


@frozen
class Lipsyncs:
    """The calls under `/v3/lipsyncs`. Every call raises `HeyGenError` for what the server or network does."""

    _transport: Transport
    _poller: LipsyncPoller
    _uploads: Uploads
    _downloads: Downloads

    async def create(
        self,
        *,
        video: Source,
        audio: Source,
        idempotency_key: str | None = None,
        **options: Unpack[LipsyncOptions],
    ) -> LipsyncJob:
        """Create a lipsync: *video* with its lips moved to *audio*. It costs credit.

        This is one logical call with one idempotency key: however often it is sent, it creates one job.

        Args:
            video: An https URL, an `AssetId` or an `Asset`; or a local file, MP4 or WebM up to 100 MB, which is
                uploaded first, once in a session: a `Path`, `bytes` or an open binary file.
            audio: Likewise; a local file must be WAV or MP3 up to 50 MB.
            idempotency_key: Your own key, 1 to 255 of `A-Z a-z 0-9 _ - : .`; by default a new one. Within 24 hours the
                server answers a used key with the first job, whatever the request. So a session refuses a key that it
                has used for a different request.
            **options: `mode` (`"speed"`, or `"precision"` at about twice the price), `title`, `enable_caption`,
                `enable_dynamic_duration`, `disable_music_track`, `enable_speech_enhancement`,
                `enable_watermark`, `start_time` and `end_time` in seconds, `keep_the_same_format`, `fps_mode`,
                `callback_url`, `callback_id`, `folder_id`; `LipsyncRequest` says what each does.

        Returns:
            The job, which runs for minutes: `await job.wait()`.

        Raises:
            TypeError, ValueError: If an argument is wrong, a file or an asset of the wrong type for instance, or if the
                key was used for a different request; nothing was sent.
            OSError: If a file cannot be read; nothing was sent, unless it changes while it is read.
            HeyGenError: With `.idempotency_key`, `.attempts` and `.outcome`. If the outcome is `unknown`, call again
                with the same arguments and that key to find out.

        A cancelled call stops at once; its `asyncio.CancelledError` has the same three attributes.
        """
        try:
            check_keywords("create", options, LipsyncOptions.__annotations__)
            request = LipsyncRequest(video=video, audio=audio, **options)
        except (TypeError, ValueError) as error:
            del video, audio, options  # as below
            raise error.with_traceback(None) from None
        del video, audio, options  # or a traceback with local variables would show the links in them
        key = new_key() if idempotency_key is None else check_key(idempotency_key)
        response = await self._create("/v3/lipsyncs", [request], itemgetter(0), key)
        return LipsyncJob(
            read_new(response, Created, "lipsync_id").lipsync_id,
            self,
            self._poller,
            self._downloads,
            idempotency_key=key,
            created_at=datetime.fromtimestamp(self._transport.server_time.now(), UTC),
        )

    def _create(
        self, path: str, requests: Sequence[LipsyncRequest], wrap: Callable[[list[JSON]], JSON], key: str
    ) -> Awaitable[Response]:
        """Upload the files of *requests*, and send what *wrap* makes of their bodies."""
        _check_sources(requests)
        compose_with = partial(_composed, path, requests, wrap, key)
        sources = _local_sources(requests)
        if sources:
            return self._send_with_files(compose_with, requests, sources, key)
        return self._send(compose_with, requests, {}, key)

    async def _send_with_files(
        self,
        compose_with: Callable[[Mapping[_Place, Asset]], Request],
        requests: Sequence[LipsyncRequest],
        sources: Sequence[tuple[_Place, Source]],
        key: str,
    ) -> Response:
        async with AsyncExitStack() as stack:
            files = {  # every file is checked before the first is sent
                place: await stack.enter_async_context(local_file(source, role=place[1])) for place, source in sources
            }
            await self._check_key(key, files.values())
            return await self._send(compose_with, requests, files, key)

    async def _send(
        self,
        compose_with: Callable[[Mapping[_Place, Asset]], Request],
        requests: Sequence[LipsyncRequest],
        files: Mapping[_Place, LocalFile],
        key: str,
    ) -> Response:
        assets: Mapping[_Place, Asset] = {}
        if files:
            assets = await self._upload(files, CallRecord(idempotency_key=key, outcome="not_sent"))
        try:
            return await self._transport.send(compose_with(assets))
        except (NotFound, InvalidRequest) as error:
            if error.code not in UNUSABLE_ASSET or error.outcome != "rejected":
                raise
            record = CallRecord.read_from(error)
            if not await self._recover(error, requests, assets, record):
                raise
        # Nothing was created, so the key is free.
        return await self._transport.send(compose_with(await self._upload(files, record)))

    async def _recover(
        self, error: APIError, requests: Sequence[LipsyncRequest], assets: Mapping[_Place, Asset], record: CallRecord
    ) -> bool:
        """Return whether to send the request again after it was refused for an asset that cannot be used.

        An asset that is still being processed is waited for. The session's own uploads are made again if the server
        no longer has them.
        """
        if error.code != _PROCESSING:
            for asset in assets.values():
                self._uploads.forget(asset)
            return bool(assets)
        try:
            return await self._uploads.recover(_asset_ids(requests, assets)) or bool(assets)
        except (HeyGenError, asyncio.CancelledError) as failed:
            record.write_to(failed)
            raise

    async def _check_key(self, key: str, files: Iterable[LocalFile]) -> None:
        """Refuse a used key before anything is uploaded: a new upload makes the request a different one."""
        if self._transport.keys.is_used(key):
            for file in files:
                if not await self._uploads.is_known(file):
                    raise already_used(key)

    async def _upload(self, files: Mapping[_Place, LocalFile], record: CallRecord) -> dict[_Place, Asset]:
        try:
            return dict(zip(files, await self._uploads.upload_all(list(files.values())), strict=True))
        except (HeyGenError, asyncio.CancelledError) as error:
            record.write_to(error)  # of the create: the upload is only a part of it
            raise

    def job(self, lipsync_id: str) -> LipsyncJob:
        """Return a handle on a job whose id is known; nothing is sent.

        Raises:
            TypeError, ValueError: If it is not an id.
        """
        return LipsyncJob(segment("lipsync_id", lipsync_id), self, self._poller, self._downloads)

    async def get(self, lipsync_id: str) -> Lipsync:
        """Get one lipsync, with fresh links if it is completed.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such lipsync in this account.

        Cancelling it affects nothing.
        """
        return await fetch(self._transport, lipsync_id)

    def list(self, *, page_size: int = MAX_PAGE, token: str | None = None) -> Paginator[Lipsync]:
        """List the lipsyncs of the account, newest first; nothing is sent before the first iteration.

        Args:
            page_size: Lipsyncs in one request, 1 to 100.
            token: The cursor to start at: the `next_token` of a page.

        Raises:
            TypeError, ValueError: If an argument is wrong.
        """
        check_count("page_size", page_size, most=MAX_PAGE)
        return Paginator(partial(fetch_page, self._transport, page_size), token=token)

    async def update(self, lipsync_id: str, *, title: str) -> Lipsync:
        """Rename a lipsync, and return it.

        Args:
            lipsync_id: The lipsync.
            title: The new title: one line of text.

        Raises:
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            NotFound: If there is no such lipsync in this account.

        If cancelled, it may have been carried out; `.outcome` of the `CancelledError` says what is known.
        """
        check_type("title", title, str)
        check_title("title", title)
        request = compose("PATCH", _ONE, segments={"lipsync_id": lipsync_id}, json={"title": title})
        return read_own(await self._transport.send(request), Lipsync, lipsync_id)

    async def delete(self, lipsync_id: str) -> None:
        """Delete a lipsync permanently.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such lipsync, unless an earlier attempt of this call may have deleted it.

        If cancelled, it may have been carried out; `.outcome` of the `CancelledError` says what is known.
        """
        await self._transport.send(compose("DELETE", _ONE, segments={"lipsync_id": lipsync_id}))

    async def statuses(self, lipsync_ids: Iterable[str]) -> dict[str, LipsyncStatus | str]:
        """Get the statuses of any number of jobs, 100 in a request.

        Returns:
            The status of each id; `LipsyncStatus.NOT_FOUND` for one that is not in the account. An id that the server
            leaves out is left out here.

        Raises:
            TypeError, ValueError: If one of them is not an id; nothing was sent.
            NotFound, PermissionDenied: If the account does not have this call.
            HeyGenError: For any other failure of the server or the network.

        Cancelling it affects nothing.
        """
        if isinstance(lipsync_ids, str):
            raise TypeError("lipsync_ids is one string; pass a list of ids")
        ids = list(dict.fromkeys(lipsync_ids))
        segments("lipsync_ids", ids)
        found: dict[str, LipsyncStatus | str] = {}
        for chunk in chunk_ids(map(plain_text, ids)):
            statuses = await fetch_statuses(self._transport, chunk)
            found |= {lipsync_id: statuses[lipsync_id] for lipsync_id in chunk if lipsync_id in statuses}
        return found

    async def create_batch(
        self,
        requests: Iterable[LipsyncRequest],
        *,
        title: str | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> LipsyncBatch:
        """Create up to 100 lipsyncs in one request; the server queues them, and each can fail alone. It costs credit.

        Args:
            requests: 1 to 100 of them; local files are uploaded first.
            title: The title of the batch: one line of text.
            callback_url: The https URL that HeyGen calls when the batch has ended.
            idempotency_key: As for `create`.

        Returns:
            The batch: `await batch.wait()`.

        Raises:
            TypeError, ValueError: As for `create`; nothing was sent.
            OSError: As for `create`.
            HeyGenError: As for `create`.

        A cancelled call stops at once; its `asyncio.CancelledError` has the same attributes as for `create`.
        """
        listed = list(requests)
        check_count("the number of requests", len(listed), most=MAX_BATCH)
        for index, request in enumerate(listed):
            check_type(f"requests[{index}]", request, LipsyncRequest)
        try:
            check_title("title", title)
            check_callback_url("callback_url", callback_url)
            key = new_key() if idempotency_key is None else check_key(idempotency_key)
        except (TypeError, ValueError) as error:
            del callback_url  # as below
            raise error.with_traceback(None) from None
        wrap = _batch_body(title, callback_url)
        del callback_url  # or a traceback with local variables would show its query
        response = await self._create("/v3/lipsyncs/batches", listed, wrap, key)
        return self._batch(read_new(response, BatchCreated, "batch_id").batch_id, key)

    def batch(self, batch_id: str) -> LipsyncBatch:
        """Return a handle on a batch whose id is known; nothing is sent.

        Raises:
            TypeError, ValueError: If it is not an id.
        """
        return self._batch(segment("batch_id", batch_id))

    def _batch(self, batch_id: str, idempotency_key: str | None = None) -> LipsyncBatch:
        get, fetch_items = partial(self._get_batch, batch_id), partial(self._batch_page, batch_id)
        now = self._transport.server_time.now
        return LipsyncBatch(batch_id, get, fetch_items, self._poller.policy, now, idempotency_key=idempotency_key)

    async def _get_batch(self, batch_id: str) -> Batch:
        request = compose("GET", _BATCH, segments={"batch_id": batch_id}, params={"limit": 1})
        return read_own(await self._transport.send(request), Batch, batch_id)

    async def _batch_page(self, batch_id: str, token: str | None) -> Page[BatchItem]:
        params = {"limit": MAX_PAGE, "token": token}
        request = compose("GET", _BATCH, segments={"batch_id": batch_id}, params=params)
        return read_batch_items(await self._transport.send(request), batch_id)

    def __repr__(self) -> str:
        return "<Lipsyncs: create(), job(), get(), list(), update(), delete(), statuses(), create_batch(), batch()>"


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


def _batch_body(title: str | None, callback_url: str | None) -> Callable[[list[JSON]], JSON]:
    given = {"title": title, "callback_url": callback_url}
    options: dict[str, JSON] = {name: value for name, value in given.items() if value}
    return lambda bodies: {"lipsyncs": bodies, **options}


def _asset_ids(requests: Sequence[LipsyncRequest], assets: Mapping[_Place, Asset]) -> list[str]:
    """List the assets that *requests* use, once each: those just uploaded, and the caller's own."""
    own = (source for request in requests for source in (request.video, request.audio))
    ids = [source.id if isinstance(source, Asset) else source.value for source in own if isinstance(source, _ASSETS)]
    return list(dict.fromkeys([*(asset.id for asset in assets.values()), *ids]))


def _composed(
    path: str,
    requests: Sequence[LipsyncRequest],
    wrap: Callable[[list[JSON]], JSON],
    key: str,
    assets: Mapping[_Place, Asset],
) -> Request:
    bodies: list[JSON] = [
        request_body(
            request,
            video=assets.get((index, "video"), request.video),
            audio=assets.get((index, "audio"), request.audio),
        )
        for index, request in enumerate(requests)
    ]
    return compose("POST", path, json=wrap(bodies), idempotency_key=key)
