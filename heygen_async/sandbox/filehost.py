"""The storage host that presigned links point at, and the two calls that carry bytes to it.

It stands apart from the API: it knows no key, refuses whoever shows it one, and answers in XML.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from xml.sax.saxutils import escape

from aiohttp import BodyPartReader, web
from attrs import frozen

from heygen_async.sandbox.assets import Asset, Assets, Received
from heygen_async.sandbox.captions import srt
from heygen_async.sandbox.clock import Clock
from heygen_async.sandbox.links import Denied, Links
from heygen_async.sandbox.ranges import Part, part
from heygen_async.sandbox.refusals import Refusal, invalid
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.storage import Storage, StoredFile, etag
from heygen_async.sandbox.uploads import check_bytes, check_headers
from heygen_async.sandbox.world import Job, World

_CHUNK: Final = 64 << 10
_FORM_OVERHEAD: Final = 64 << 10
"""What the boundaries and headers of a multipart body may add to its file."""


@frozen
class Parcel:
    """What of a file goes out."""

    stored: StoredFile
    part: Part


@frozen
class FileHost:
    """Sends outputs, captions and assets; takes uploads."""

    world: World
    assets: Assets
    storage: Storage
    links: Links
    clock: Clock
    sample: StoredFile
    settings: Settings

    # --- out ---------------------------------------------------------------------------------------------

    async def find(self, request: web.Request, name: str) -> Parcel:
        """Answer `GET /files/{name}`."""
        self._admit(request)
        stored = self._find(name)
        return Parcel(stored, part(request.headers, etag=stored.etag, total=stored.size_bytes))

    async def find_captions(self, request: web.Request, name: str) -> Parcel:
        """Answer `GET /captions/{name}`."""
        self._admit(request)
        job = self.world.find(name.removesuffix(".srt"))
        if job is None or job.ended_at is None or not self._has_captions(job.ended_at):
            raise _no_such_key()
        stored = await self._captions(job)
        return Parcel(stored, part(request.headers, etag=stored.etag, total=stored.size_bytes))

    def _has_captions(self, ended_at: float) -> bool:
        late = self.clock.now() < ended_at + self.settings.caption_seconds
        return self.settings.captions != "gone" and not late

    def _find(self, name: str) -> StoredFile:
        stem = name.rpartition(".")[0]
        job = self.world.find(stem)
        if job is not None and job.ended_at is not None and job.failure_message is None:
            return self._output(job)
        asset = self.assets.find(stem)
        if asset is None or asset.received is None:
            raise _no_such_key()
        return self._stored(asset, asset.received)

    def _output(self, job: Job) -> StoredFile:
        asset = job.plan.asset
        return self.sample if asset is None or asset.received is None else self._stored(asset, asset.received)

    async def _captions(self, job: Job) -> StoredFile:
        is_empty = self.settings.captions == "empty"
        content = b"" if is_empty else srt(job.plan.duration, job.title or "Captions").encode(errors="replace")
        return await self.storage.write(f"{job.id}.srt", content, "application/x-subrip")

    def _stored(self, asset: Asset, received: Received) -> StoredFile:
        path = self.storage.path(asset.id)
        return StoredFile(path, received.size_bytes, asset.mime_type, etag(received.sha256))

    # --- in ----------------------------------------------------------------------------------------------

    async def take(self, request: web.Request, asset_id: str) -> web.Response:
        """Answer `PUT /uploads/{asset_id}`."""
        self._admit(request)
        asset = self.assets.find(asset_id)
        if asset is None:
            raise _no_such_key()
        if asset.ready_at is not None:
            raise Denied(409, "OperationAborted", "The upload has been completed.")
        check_headers(asset, request.headers)
        received = await self.storage.receive(
            request.content.iter_any(), asset.id, filename=asset.name, max_bytes=asset.size_bytes
        )
        check_bytes(asset, received)
        asset.received = received
        return web.Response(headers={"ETag": etag(received.sha256)})

    async def receive_form(self, request: web.Request) -> Asset:
        """Take the body of `POST /v3/assets`, the one call of the API that carries bytes itself."""
        if (request.content_length or 0) > self.settings.max_multipart_bytes + _FORM_OVERHEAD:
            raise Refusal(413, "payload_too_large", f"At most {self.settings.max_multipart_bytes} bytes.", "file")
        if request.content_type != "multipart/form-data":
            raise invalid("The body must be sent as multipart/form-data.")
        try:
            return await self._receive(request)
        except ValueError as error:  # what aiohttp's reader says of a form that is broken
            raise invalid(f"The form cannot be read: {error}.", "file") from error

    async def _receive(self, request: web.Request) -> Asset:
        form = await request.multipart()
        field = await form.next()
        if not isinstance(field, BodyPartReader) or field.name != "file" or not field.filename:
            raise invalid("The body must have one field, file, with a filename.", "file")
        asset_id = self.assets.new_id()
        received = await self.storage.receive(
            _chunks(field), asset_id, filename=field.filename, max_bytes=self.settings.max_multipart_bytes
        )
        if await form.next() is not None:
            raise invalid("The body must have one field only.", "file")
        return self.assets.add(asset_id, field.filename, received, self.clock.now())

    def _admit(self, request: web.Request) -> None:
        if "X-Api-Key" in request.headers or "Authorization" in request.headers:
            raise Denied(400, "InvalidArgument", "Only one auth mechanism allowed: the link is signed.")
        self.links.check(request.method, request.path, request.query, self.clock.wall(self.clock.now()))


def _no_such_key() -> Denied:
    return Denied(404, "NoSuchKey", "The specified key does not exist.")


async def _chunks(field: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await field.read_chunk(_CHUNK):
        yield chunk


def xml(denied: Denied) -> web.Response:
    """Return the answer that a storage service gives."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(denied.code)}</Code><Message>{escape(denied.message)}</Message></Error>"
    )
    return web.Response(status=denied.status, text=text, content_type="application/xml")
