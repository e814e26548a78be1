"""Uploads of files: each content once, as a form to the API or directly to its storage host."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from pathlib import Path
from random import random
from typing import Final

from attrs import evolve, frozen

from heygen_async._arguments import is_https
from heygen_async._converter import DirectUpload, read
from heygen_async._media.files import Reading, sha256_of
from heygen_async._media.hosts import EXPIRED, check_stored, refusal
from heygen_async._media.ingestion import COMPLETED, PROCESSING, Ingestion
from heygen_async._media.sniffing import Role
from heygen_async._media.sources import LocalFile, local_file
from heygen_async._media.transfers import Progress, Transfers, report
from heygen_async._media.upload_cache import CachedUpload, Upload
from heygen_async._transport.driver import Transport
from heygen_async._transport.retry import Attempts
from heygen_async._wire import compose, multipart
from heygen_async.errors import APIError, HeyGenError, InvalidRequest, UnexpectedResponse
from heygen_async.models import JSON, Asset, AssetId, Secret, Source

_LINKS: Final = 3
"""How many upload links are requested for one file."""

# What the connection itself says of a body; a server has no say in it.
_NOT_THEIRS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
_HEADER: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@frozen
class Uploads:
    """Uploads files."""

    _transport: Transport
    _transfers: Transfers
    _ingestion: Ingestion

    def look_at(
        self, source: Source, *, name: str | None = None, role: Role | None = None
    ) -> AbstractAsyncContextManager[LocalFile]:
        """Check a file, which sends nothing; see `local_file`."""
        return local_file(source, name=name, role=role)

    async def upload(self, file: LocalFile, *, progress: Progress | None = None) -> Asset:
        """Return the asset of *file*: one that the session has uploaded, or is uploading, or a new one.

        Cancellation stops this upload only if nobody else waits for it; else one of those takes over.

        Raises:
            HeyGenError: If it cannot be uploaded.
            OSError: If the file cannot be read, or changed since it was checked.
        """
        sha256 = await sha256_of(self._transfers.pool, file)
        entry = self._transfers.uploaded.entry(sha256, file.path)
        while entry.asset is None or not entry.is_ready:
            if entry.upload is None:
                await self._work_on(entry, file, progress)
            else:
                await self._wait_for(entry, entry.upload)
        await report(progress, file.size, file.size)
        return entry.asset

    async def upload_all(self, files: Sequence[LocalFile]) -> list[Asset]:
        """Upload several files at once, and return their assets in order. The first failure ends the others."""
        if len(files) < 2:  # noqa: PLR2004 one needs no company
            return [await self.upload(file) for file in files]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.upload(file)) for file in files]
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
        else:
            return [task.result() for task in tasks]
        raise first

    async def is_known(self, file: LocalFile) -> bool:
        """Return whether the session has uploaded the content of *file*, or is uploading it.

        Raises:
            OSError: If it cannot be read, or changed since it was checked.
        """
        return await sha256_of(self._transfers.pool, file) in self._transfers.uploaded

    async def recover(self, asset_ids: Iterable[str]) -> bool:
        """Wait for assets that HeyGen is still processing, and forget the others, so that they are uploaded again.

        Returns:
            Whether one of them can be used now.

        Raises:
            HeyGenError: If the API refuses the status requests, or an asset takes too long.
        """
        states = await self._ingestion.wait(asset_ids)
        for asset_id, state in states.items():
            if state.status != COMPLETED:
                self.forget(AssetId(asset_id))
        return any(state.status == COMPLETED for state in states.values())

    def forget(self, what: Asset | AssetId | Path | None) -> None:
        """Forget that a file was uploaded, or all of them."""
        self._transfers.uploaded.forget(what)

    async def _wait_for(self, entry: CachedUpload, upload: Upload) -> None:
        entry.waiting += 1
        try:
            await upload.finished.wait()
        finally:
            entry.waiting -= 1
            self._transfers.uploaded.tidy(entry)
        if upload.error is not None:
            raise upload.error.fresh() from upload.error

    async def _work_on(self, entry: CachedUpload, file: LocalFile, progress: Progress | None) -> None:
        """Do what *entry* still needs: the upload, and the wait until HeyGen has processed it."""
        cache = self._transfers.uploaded
        upload = cache.start(entry)
        try:
            if entry.asset is None:
                entry.asset = await self._upload(file, entry.sha256, progress)
            if entry.asset.status in PROCESSING:
                entry.asset = await self._processed(entry.asset)
            entry.is_ready = True
        except HeyGenError as error:
            upload.error = error
            raise
        finally:
            cache.finish(entry, upload)

    async def _processed(self, asset: Asset) -> Asset:
        try:
            await self._ingestion.wait_until_ready(asset.id)
        except InvalidRequest:  # it failed, so the next call starts from its beginning
            self.forget(asset)
            raise
        return evolve(asset, status=COMPLETED)

    async def _upload(self, file: LocalFile, sha256: str, progress: Progress | None) -> Asset:
        reading = Reading(self._transfers.pool, file, sha256, progress)
        try:
            async with self._transfers.seats:
                asset = await self._send(file, sha256, reading)
        finally:
            reading.close()
        if not reading.is_whole:
            raise _unexpected("the server answered before it had all of the file")
        return asset

    async def _send(self, file: LocalFile, sha256: str, reading: Reading) -> Asset:
        if file.size <= self._transfers.multipart_max:
            body = multipart(file.name, file.mime_type, reading.stream())
            try:
                return read(await self._transport.send(compose("POST", "/v3/assets", stream=body)), Asset)
            except InvalidRequest as error:
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise
        return await self._send_direct(file, sha256, reading)

    async def _send_direct(self, file: LocalFile, sha256: str, reading: Reading) -> Asset:
        asset_id = await self._store(file, sha256, reading)
        request = compose(
            "POST",
            "/v3/assets/{asset_id}/complete",
            segments={"asset_id": asset_id},
            json={"checksum_sha256": sha256},
        )
        return read(await self._transport.send(request), Asset)

    async def _store(self, file: LocalFile, sha256: str, reading: Reading) -> str:
        """Send *file* to the storage host, and return the id of the asset that waits to be completed."""
        links = 1
        while True:
            grant = await self._announce(file, sha256)
            try:
                await self._put(grant, reading)
            except APIError as error:
                if error.status not in EXPIRED or links == _LINKS:
                    raise
                links += 1
            else:
                return grant.asset_id

    async def _announce(self, file: LocalFile, sha256: str) -> DirectUpload:
        body: dict[str, JSON] = {
            "filename": file.name,
            "content_type": file.mime_type,
            "size_bytes": file.size,
            "checksum_sha256": sha256,
        }
        request = compose("POST", "/v3/assets/direct-uploads", json=body)
        grant = read(await self._transport.send(request), DirectUpload)
        if grant.max_bytes is not None and file.size > grant.max_bytes:
            raise _too_large(file, grant.max_bytes)
        if not is_https(grant.upload_url.reveal(), or_loopback=self._transport.http.origin.is_loopback):
            raise _unexpected("the upload link is not https @ $.data.upload_url")
        return grant

    async def _put(self, grant: DirectUpload, reading: Reading) -> None:
        attempts, headers = Attempts(self._transport.retry), put_headers(grant.upload_headers)
        while True:
            try:
                return await self._put_once(grant.upload_url, headers, reading)
            except HeyGenError as error:
                delay = attempts.delay_after(error, chance=random())  # noqa: S311 it spreads retries, it guards nothing
                error.attempts = attempts.made
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    async def _put_once(self, link: Secret, headers: Mapping[str, str], reading: Reading) -> None:
        transport = self._transport
        answer = await transport.http.put(link, reading.stream(), headers=headers, timeouts=transport.timeouts)
        error = refusal(answer.status, answer.headers, answer.body, now=time.time())
        if error is not None:
            raise error
        check_stored(answer.status, answer.headers, answer.body)


def put_headers(given: Mapping[str, object]) -> dict[str, str]:
    """Return the headers that a PUT must carry, as the API gave them, but for those that are the connection's own.

    Raises:
        UnexpectedResponse: If one of them cannot be a header.
    """
    headers: dict[str, str] = {}
    for name, value in given.items():
        if not _HEADER.fullmatch(name) or not isinstance(value, str) or not value.isprintable():
            raise _unexpected(f"not a header @ $.data.upload_headers.{name[:40]!r}")
        if name.lower() not in _NOT_THEIRS:
            headers[name] = value
    return headers


def _too_large(file: LocalFile, most: int) -> InvalidRequest:
    error = InvalidRequest(
        f"{file.name} has {file.size:,} bytes, and HeyGen takes {most:,}",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        code="payload_too_large",
    )
    error.outcome = "rejected"
    return error


def _unexpected(problem: str) -> UnexpectedResponse:
    error = UnexpectedResponse([problem], status=HTTPStatus.OK)
    error.outcome = "rejected"
    return error
