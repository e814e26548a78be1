"""`session.lipsyncs`: create, get, list, rename and delete lipsyncs, one by one and in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter, itemgetter
from typing import Unpack

from attrs import frozen

from heygen_async._arguments import (
    check_callback_url,
    check_count,
    check_keywords,
    check_type,
    plain_text,
)
from heygen_async._converter import (
    BatchCreated,
    Created,
    read_batch,
    read_batch_items,
    read_new,
    read_own,
)
from heygen_async._ids import check_optional_key, chunk_ids, new_key, segment, segments
from heygen_async._media.downloads import Downloads
from heygen_async._media.uploads import Uploads
from heygen_async._transport.driver import Transport
from heygen_async._wire import compose
from heygen_async.jobs import LipsyncBatch, LipsyncJob
from heygen_async.models import (
    JSON,
    MAX_BATCH,
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
from heygen_async.polling import LipsyncPoller
from heygen_async.resources.lipsync_creates import LipsyncCreate
from heygen_async.resources.lipsync_reads import fetch_lipsync, fetch_page, fetch_statuses, without_retries

_ONE = "/v3/lipsyncs/{lipsync_id}"
_BATCH = "/v3/lipsyncs/batches/{batch_id}"


@frozen
class Lipsyncs:
    """The calls under `/v3/lipsyncs`.

    Every call raises `HeyGenError` if the server or the network fails, and `RuntimeError` if the session is closed or
    in use by another event loop.
    """

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
            audio: As for *video*; a local file must be WAV or MP3 up to 50 MB.
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
        key = check_optional_key(idempotency_key) or new_key()
        create = LipsyncCreate(self._transport, self._uploads, "/v3/lipsyncs", [request], itemgetter(0), key)
        response = await create.send()
        return LipsyncJob(
            read_new(response, Created, "lipsync_id").lipsync_id,
            self,
            self._poller,
            self._downloads,
            idempotency_key=key,
            created_at=self._now(),
        )

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
        return await fetch_lipsync(self._transport, lipsync_id)

    def list(self, *, page_size: int = MAX_PAGE, token: str | None = None) -> Paginator[Lipsync]:
        """List the lipsyncs of the account, newest first; nothing is sent before the first iteration.

        Args:
            page_size: Lipsyncs in one request, 1 to 100.
            token: The cursor to start at: the `next_token` of a page.

        Raises:
            TypeError, ValueError: If an argument is wrong.
        """
        check_count("page_size", page_size, most=MAX_PAGE)
        return Paginator(partial(fetch_page, self._transport, page_size), token=token, identity=attrgetter("id"))

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
        try:
            listed = _checked_requests(requests)
            check_title("title", title)
            check_callback_url("callback_url", callback_url)
            key = check_optional_key(idempotency_key) or new_key()
        except (TypeError, ValueError) as error:
            del requests, callback_url  # as below
            raise error.with_traceback(None) from None
        wrap = _batch_body(title, callback_url)
        del requests, callback_url  # or a traceback with local variables would show the links in them
        create = LipsyncCreate(self._transport, self._uploads, "/v3/lipsyncs/batches", listed, wrap, key)
        response = await create.send()
        return self._batch(read_new(response, BatchCreated, "batch_id").batch_id, key, created_at=self._now())

    def batch(self, batch_id: str) -> LipsyncBatch:
        """Return a handle on a batch whose id is known; nothing is sent.

        Raises:
            TypeError, ValueError: If it is not an id.
        """
        return self._batch(segment("batch_id", batch_id))

    def _batch(self, batch_id: str, key: str | None = None, *, created_at: datetime | None = None) -> LipsyncBatch:
        return LipsyncBatch(
            batch_id,
            partial(_get_batch, self._transport, batch_id),
            partial(self._batch_page, batch_id),
            self._poller.policy,
            self._transport.server_time.now,
            look=partial(_get_batch, without_retries(self._transport), batch_id),
            idempotency_key=key,
            created_at=created_at,
            sleep=self._transport.gate.sleep,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._transport.server_time.now(), UTC)

    async def _batch_page(self, batch_id: str, token: str | None) -> Page[BatchItem]:
        params = {"limit": MAX_PAGE, "token": token}
        request = compose("GET", _BATCH, segments={"batch_id": batch_id}, params=params)
        return read_batch_items(await self._transport.send(request), batch_id)

    def __repr__(self) -> str:
        return "<Lipsyncs: create(), job(), get(), list(), update(), delete(), statuses(), create_batch(), batch()>"


def _checked_requests(requests: Iterable[LipsyncRequest]) -> Sequence[LipsyncRequest]:
    listed = list(requests)
    check_count("the number of requests", len(listed), most=MAX_BATCH)
    for index, request in enumerate(listed):
        check_type(f"requests[{index}]", request, LipsyncRequest)
    return listed


async def _get_batch(transport: Transport, batch_id: str) -> Batch:
    request = compose("GET", _BATCH, segments={"batch_id": batch_id}, params={"limit": 1})
    return read_batch(await transport.send(request), batch_id)


def _batch_body(title: str | None, callback_url: str | None) -> Callable[[list[JSON]], JSON]:
    given = {"title": title, "callback_url": callback_url}
    options: dict[str, JSON] = {name: value for name, value in given.items() if value}
    return lambda bodies: {"lipsyncs": bodies, **options}
