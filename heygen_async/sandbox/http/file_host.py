"""The storage host that presigned links point at, and the two calls that carry bytes to it.

It is separate from the API: it accepts no key, refuses requests that show one, and answers errors in XML.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError
from attrs import frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, StorageError, invalid
from heygen_async.sandbox.faults import Damage
from heygen_async.sandbox.http.storage import Storage, StoredFile, etag, read
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.asset_store import AssetStore, ReceivedFile, StoredAsset
from heygen_async.sandbox.state.clock import Clock
from heygen_async.sandbox.state.signed_links import SignedLinks
from heygen_async.sandbox.state.world import SimulatedJob, World

_CHUNK: Final = 64 << 10
_FORM_OVERHEAD: Final = 64 << 10
"""What the boundaries and headers of a multipart body may add to its file."""
_CUE_SECONDS: Final = 3.0
_RECORDED: Final = "recorded"
"""The content of each file that a recording links to: recordings hold no media."""
_CAPTIONS: Final = frozenset({".srt", ".vtt"})
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@frozen
class FileHost:
    """Sends videos, captions and assets; receives uploads."""

    world: World
    assets: AssetStore
    storage: Storage
    links: SignedLinks
    clock: Clock
    sample: StoredFile
    settings: Settings

    # --- downloads ---------------------------------------------------------------------------------------

    def sample_link(self, extension: str, origin: str) -> str:
        """Return a link to the sample video, or to captions for it, in place of one that was recorded.

        Args:
            extension: That of the recorded link.
            origin: Scheme, host and port of the link.
        """
        path = f"/captions/{_RECORDED}.srt" if extension in _CAPTIONS else f"/files/{_RECORDED}.mp4"
        return self.links.sign("GET", path, self.clock.wall(self.clock.now()), origin)

    async def find(self, request: web.Request, name: str) -> FileSlice:
        """Return what `GET /files/{name}` asks for."""
        self._check_link(request)
        stem = name.rpartition(".")[0]
        if stem == _RECORDED:
            return requested_slice(request.headers, self.sample)
        job = self.world.find(stem)
        if job is not None and job.ended_at is not None and job.failure_message is None:
            return requested_slice(request.headers, self._output(job))
        asset = self.assets.find(stem)
        if asset is None or asset.received is None:
            raise _no_such_key()
        return requested_slice(request.headers, self._stored(asset, asset.received))

    async def find_captions(self, request: web.Request, name: str) -> FileSlice:
        """Return what `GET /captions/{name}` asks for."""
        self._check_link(request)
        if name == f"{_RECORDED}.srt":
            return requested_slice(request.headers, await self._write_captions(_RECORDED, _CUE_SECONDS, "Captions"))
        job = self.world.find(name.removesuffix(".srt"))
        if job is None or job.ended_at is None or not self._has_captions(job.ended_at):
            raise _no_such_key()
        return requested_slice(request.headers, await self._captions(job))

    def _has_captions(self, ended_at: float) -> bool:
        is_late = self.clock.now() < ended_at + self.settings.caption_seconds
        return self.settings.captions != "gone" and not is_late

    def _output(self, job: SimulatedJob) -> StoredFile:
        asset = job.script.asset
        return self.sample if asset is None or asset.received is None else self._stored(asset, asset.received)

    async def _captions(self, job: SimulatedJob) -> StoredFile:
        return await self._write_captions(job.id, job.script.duration, job.title or "Captions")

    async def _write_captions(self, name: str, duration: float, words: str) -> StoredFile:
        text = "" if self.settings.captions == "empty" else srt(duration, words)
        return await self.storage.write(f"{name}.srt", text.encode(errors="replace"), "application/x-subrip")

    def _stored(self, asset: StoredAsset, received: ReceivedFile) -> StoredFile:
        path = self.storage.path(asset.id)
        return StoredFile(path, received.size_bytes, asset.mime_type, etag(received.sha256))

    # --- uploads -----------------------------------------------------------------------------------------

    async def receive_put(self, request: web.Request, asset_id: str) -> web.Response:
        """Answer `PUT /uploads/{asset_id}`."""
        self._check_link(request)
        asset = self.assets.find(asset_id)
        if asset is None:
            raise _no_such_key()
        if asset.ready_at is not None:
            raise StorageError(409, "OperationAborted", "The upload is complete.")
        asset.check_headers(request.headers)
        received = await self.storage.receive(
            request.content.iter_any(),
            asset.id,
            filename=asset.name,
            max_bytes=asset.size_bytes,
            check=asset.check_bytes,
        )
        asset.received = received
        return web.Response(headers={"ETag": etag(received.sha256)})

    async def receive_form(self, request: web.Request) -> StoredAsset:
        """Receive the body of `POST /v3/assets`, the one call of the API that carries bytes itself."""
        limit = self.settings.max_multipart_bytes
        if (request.content_length or 0) > limit + _FORM_OVERHEAD:
            raise ErrorAnswer(413, "payload_too_large", f"At most {limit} bytes.", "file")
        if request.content_type != "multipart/form-data":
            raise invalid("The body must be sent as multipart/form-data.")
        try:
            return await self._receive_form(request, limit)
        except (ValueError, HttpProcessingError) as error:  # raised by aiohttp's reader for a broken form
            raise invalid(f"The form cannot be read: {error}.", "file") from error

    async def _receive_form(self, request: web.Request, limit: int) -> StoredAsset:
        form = await request.multipart()
        field = await form.next()
        if not isinstance(field, BodyPartReader) or field.name != "file" or not field.filename:
            raise invalid("The body must have one field, file, with a filename.", "file")
        asset_id = self.assets.new_id()
        received = await self.storage.receive(_chunks(field), asset_id, filename=field.filename, max_bytes=limit)
        if await form.next() is not None:
            raise invalid("The body must have one field only.", "file")
        return self.assets.add(asset_id, field.filename, received, self.clock.now())

    def _check_link(self, request: web.Request) -> None:
        if "X-Api-Key" in request.headers or "Authorization" in request.headers:
            raise StorageError(400, "InvalidArgument", "Only one auth mechanism allowed: the link is signed.")
        self.links.check(request.method, request.path, request.query, self.clock.wall(self.clock.now()))


async def _chunks(field: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await field.read_chunk(_CHUNK):
        yield chunk


def _no_such_key() -> StorageError:
    return StorageError(404, "NoSuchKey", "The specified key does not exist.")


def xml(error: StorageError) -> web.Response:
    """Return the answer of a storage service to a request that it refuses."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
    )
    return web.Response(status=error.status, text=text, content_type="application/xml")


# --- slices of files (RFC 9110, section 14) ----------------------------------------------------------------


@frozen
class FileSlice:
    """Some bytes of a file, or all of them."""

    stored: StoredFile
    start: int
    length: int
    is_whole: bool

    @property
    def status(self) -> int:
        """The status of the answer."""
        return 200 if self.is_whole else 206

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        stored = self.stored
        headers = {"Content-Type": stored.mime_type, "ETag": stored.etag, "Accept-Ranges": "bytes"}
        headers["Content-Length"] = str(self.length)
        if not self.is_whole:
            headers["Content-Range"] = f"bytes {self.start}-{self.start + self.length - 1}/{stored.size_bytes}"
        return headers


def whole(stored: StoredFile) -> FileSlice:
    """Return all bytes of a file."""
    return FileSlice(stored, 0, stored.size_bytes, is_whole=True)


def requested_slice(headers: Mapping[str, str], stored: StoredFile) -> FileSlice:
    """Return the requested bytes: all of them if `Range` is absent, malformed or for another version of the file."""
    total = stored.size_bytes
    found = _RANGE.fullmatch(headers.get("Range", ""))
    if found is None or found.groups() == ("", "") or headers.get("If-Range", stored.etag) != stored.etag:
        return whole(stored)
    first, last = found.groups()
    start = int(first) if first else max(0, total - int(last))
    end = min(int(last) + 1, total) if first and last else total
    if start >= total or (first and last and int(last) < start):
        raise StorageError(416, "InvalidRange", "The requested range is not satisfiable")
    return FileSlice(stored, start, end - start, is_whole=False)


# --- sending -----------------------------------------------------------------------------------------------


async def send(
    request: web.Request, file: FileSlice, damage: Damage, *, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer *request* with *file*, with *damage* applied."""
    file = file if damage.ranges else whole(file.stored)
    response = web.StreamResponse(status=file.status, headers={**headers, **_headers(file, damage)})
    await response.prepare(request)
    length = file.length if damage.cut_after is None else min(damage.cut_after, file.length)
    async for chunk in read(file.stored.path, file.start, length):
        for piece in _pieces(chunk, damage.drip_bytes):
            await response.write(piece)
            if damage.drip_seconds:
                await asyncio.sleep(damage.drip_seconds)
    if length < file.length + damage.length_off_by:
        close(request)
    else:
        await response.write_eof()
    return response


def _headers(file: FileSlice, damage: Damage) -> dict[str, str]:
    headers = {**file.headers(), "Content-Length": str(max(0, file.length + damage.length_off_by))}
    if not damage.ranges:
        del headers["Accept-Ranges"]
    return headers


def _pieces(chunk: bytes, size: int | None) -> Iterator[bytes]:
    step = size or len(chunk)
    return (chunk[start : start + step] for start in range(0, len(chunk), step))


def close(request: web.Request) -> None:
    """Close the connection once everything written has been sent."""
    if request.transport is not None:
        request.transport.close()


# --- captions ----------------------------------------------------------------------------------------------


def srt(duration: float, text: str) -> str:
    """Return captions that show *text* for *duration* seconds, in cues of 3 s."""
    starts = [index * _CUE_SECONDS for index in range(max(1, int(-(-duration // _CUE_SECONDS))))]
    cues = (
        f"{number}\n{_stamp(start)} --> {_stamp(min(start + _CUE_SECONDS, duration))}\n{text} ({number})\n"
        for number, start in enumerate(starts, 1)
    )
    return "\n".join(cues)


def _stamp(seconds: float) -> str:
    millis = round(seconds * 1000)
    return f"{millis // 3_600_000:02}:{millis // 60_000 % 60:02}:{millis // 1000 % 60:02},{millis % 1000:03}"
