"""`session.lipsyncs`: make, get, list, rename and delete lipsyncs, one by one and in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Unpack

from attrs import frozen

from heygen_async._arguments import check_count, check_https_url, check_text
from heygen_async._converter import (
    BatchCreated,
    Created,
    StatusEntry,
    read,
    read_batch_items,
    read_page,
    request_body,
)
from heygen_async._transport.driver import Transport
from heygen_async._wire import check_key, chunk_ids, compose, new_key, segment
from heygen_async.errors import HeyGenError
from heygen_async.jobs import Download, LipsyncBatch, LipsyncJob
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
)
from heygen_async.pagination import Page, Paginator
from heygen_async.polling import LipsyncPoller, PollPolicy

_ONE = "/v3/lipsyncs/{lipsync_id}"
_BATCH = "/v3/lipsyncs/batches/{batch_id}"
MAX_BATCH = 100
MAX_PAGE = 100


# The reads stand outside the class: the poller is made of them, and Lipsyncs of the poller.


async def fetch(transport: Transport, lipsync_id: str) -> Lipsync:
    """Get one lipsync."""
    return read(await transport.send(compose("GET", _ONE, segments={"lipsync_id": lipsync_id})), Lipsync)


async def fetch_page(transport: Transport, page_size: int, token: str | None) -> Page[Lipsync]:
    """Get one page of the list."""
    params = {"limit": page_size, "token": token}
    return read_page(await transport.send(compose("GET", "/v3/lipsyncs", params=params)), Lipsync)


async def fetch_statuses(transport: Transport, lipsync_ids: Sequence[str]) -> dict[str, LipsyncStatus | str]:
    """Ask for the states of as many jobs as go into one request."""
    found: dict[str, LipsyncStatus | str] = {}
    async for entry in Paginator(partial(_status_page, transport, ",".join(lipsync_ids))):
        found[entry.lipsync_id] = entry.status
    return found


async def _status_page(transport: Transport, joined: str, token: str | None) -> Page[StatusEntry]:
    params = {"lipsync_ids": joined, "token": token}
    return read_page(await transport.send(compose("GET", "/v3/lipsyncs/statuses", params=params)), StatusEntry)


@frozen
class Lipsyncs:
    """The calls under `/v3/lipsyncs`. Every call raises `HeyGenError` for what the server or network does."""

    _transport: Transport
    _poller: LipsyncPoller
    _polling: PollPolicy
    _upload: Callable[[Source], Awaitable[Asset]]
    _download: Download

    async def create(
        self,
        *,
        video: Source,
        audio: Source,
        idempotency_key: str | None = None,
        **options: Unpack[LipsyncOptions],
    ) -> LipsyncJob:
        """Make a lipsync: *video* with its lips moved to *audio*. It costs credit.

        It is one logical call under one idempotency key: it may be sent several times, and makes one job.

        Args:
            video: An https URL, a `Path` (uploaded first), an `AssetId` or an `Asset`.
            audio: Likewise.
            idempotency_key: Your own key, 1 to 255 of `A-Z a-z 0-9 _ - : .`. Within 24 h the server answers a
                used key with the first job, whatever the rest says. One is made if none is given.
            **options: `mode` (`"speed"`, or `"precision"` at about twice the price), `title`, `enable_caption`,
                `enable_dynamic_duration`, `disable_music_track`, `enable_speech_enhancement`,
                `enable_watermark`, `start_time` and `end_time` in seconds, `keep_the_same_format`, `fps_mode`,
                `callback_url`, `callback_id`, `folder_id`; `LipsyncRequest` says what each does.

        Returns:
            The job, which runs for minutes: `await job.wait()`.

        Raises:
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            HeyGenError: With `.idempotency_key`, `.attempts` and `.outcome`. If the outcome is `unknown`, call
                again with that key to find out. Cancellation carries the same three attributes.
        """
        request = LipsyncRequest(video=video, audio=audio, **options)
        key = new_key() if idempotency_key is None else check_key(idempotency_key)
        body = await self._body(request, key)
        response = await self._transport.send(compose("POST", "/v3/lipsyncs", json=body, idempotency_key=key))
        return self._job(read(response, Created).lipsync_id, key)

    async def _body(self, request: LipsyncRequest, key: str) -> dict[str, JSON]:
        try:
            return request_body(request, video=await self._ready(request.video), audio=await self._ready(request.audio))
        except (HeyGenError, asyncio.CancelledError) as error:
            # What failed was an upload: of the create itself it is known that it was not sent.
            vars(error).update(idempotency_key=key, attempts=0, outcome="not_sent")
            raise

    async def _ready(self, source: Source) -> str | AssetId:
        if isinstance(source, (str, AssetId)):
            return source
        asset = source if isinstance(source, Asset) else await self._upload(source)
        return AssetId(asset.id)

    def _job(self, lipsync_id: str, idempotency_key: str | None = None) -> LipsyncJob:
        return LipsyncJob(lipsync_id, self, self._poller, self._download, idempotency_key=idempotency_key)

    def job(self, lipsync_id: str) -> LipsyncJob:
        """Return a handle on a job whose id was kept elsewhere; nothing is sent.

        Raises:
            TypeError, ValueError: If it is not an id.
        """
        segment("lipsync_id", lipsync_id)
        return self._job(lipsync_id)

    async def get(self, lipsync_id: str) -> Lipsync:
        """Get one lipsync, with fresh links if it is completed.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such lipsync in this account.
        """
        return await fetch(self._transport, lipsync_id)

    def list(self, *, page_size: int = MAX_PAGE, token: str | None = None) -> Paginator[Lipsync]:
        """List the account's lipsyncs, newest first; nothing is sent before it is iterated.

        Args:
            page_size: Lipsyncs in one request, 1 to 100.
            token: The cursor to start at: a page's `next_token`.
        """
        check_count("page_size", page_size, most=MAX_PAGE)
        return Paginator(partial(fetch_page, self._transport, page_size), token=token)

    async def update(self, lipsync_id: str, *, title: str) -> Lipsync:
        """Give a lipsync another *title*, and return it.

        Raises:
            TypeError, ValueError: If an argument is wrong.
            NotFound: If there is no such lipsync in this account.
        """
        check_text("title", title)
        request = compose("PATCH", _ONE, segments={"lipsync_id": lipsync_id}, json={"title": title})
        return read(await self._transport.send(request), Lipsync)

    async def delete(self, lipsync_id: str) -> None:
        """Delete a lipsync, for good.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such lipsync; but not if an attempt without an answer has deleted it.
        """
        await self._transport.send(compose("DELETE", _ONE, segments={"lipsync_id": lipsync_id}))

    async def statuses(self, lipsync_ids: Iterable[str]) -> dict[str, LipsyncStatus | str]:
        """Ask for the states of any number of jobs, 100 in a request.

        Returns:
            The state of each id; `LipsyncStatus.NOT_FOUND` for one that the account has not. An id that the
            server leaves out is left out here.

        Raises:
            TypeError, ValueError: If one of them is not an id.
            NotFound, PermissionDenied: If the account does not have this call.
        """
        ids = [segment("lipsync_ids", lipsync_id) for lipsync_id in dict.fromkeys(lipsync_ids)]
        found: dict[str, LipsyncStatus | str] = {}
        for chunk in chunk_ids(ids):
            found |= await fetch_statuses(self._transport, chunk)
        return found

    async def create_batch(
        self,
        requests: Iterable[LipsyncRequest],
        *,
        title: str | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> LipsyncBatch:
        """Make up to 100 lipsyncs in one request; the server queues them, and each fails alone.

        Args:
            requests: 1 to 100 of them; files are uploaded first.
            title: Of the batch.
            callback_url: Where HeyGen POSTs when the batch has ended; https.
            idempotency_key: As for `create`.

        Raises:
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            HeyGenError: As `create` does.
        """
        listed = list(requests)
        check_count("the number of requests", len(listed), most=MAX_BATCH)
        check_text("title", title)
        check_https_url("callback_url", callback_url)
        key = new_key() if idempotency_key is None else check_key(idempotency_key)
        bodies = [await self._body(request, key) for request in listed]
        body: dict[str, JSON] = {"lipsyncs": bodies}
        body |= {name: value for name, value in (("title", title), ("callback_url", callback_url)) if value}
        request = compose("POST", "/v3/lipsyncs/batches", json=body, idempotency_key=key)
        return self._batch(read(await self._transport.send(request), BatchCreated).batch_id, key)

    def batch(self, batch_id: str) -> LipsyncBatch:
        """Return a handle on a batch whose id was kept elsewhere; nothing is sent.

        Raises:
            TypeError, ValueError: If it is not an id.
        """
        segment("batch_id", batch_id)
        return self._batch(batch_id)

    def _batch(self, batch_id: str, idempotency_key: str | None = None) -> LipsyncBatch:
        get, fetch_items = partial(self._get_batch, batch_id), partial(self._batch_page, batch_id)
        return LipsyncBatch(batch_id, get, fetch_items, self._polling, idempotency_key=idempotency_key)

    async def _get_batch(self, batch_id: str) -> Batch:
        request = compose("GET", _BATCH, segments={"batch_id": batch_id}, params={"limit": 1})
        return read(await self._transport.send(request), Batch)

    async def _batch_page(self, batch_id: str, token: str | None) -> Page[BatchItem]:
        params = {"limit": MAX_PAGE, "token": token}
        request = compose("GET", _BATCH, segments={"batch_id": batch_id}, params=params)
        return read_batch_items(await self._transport.send(request))
