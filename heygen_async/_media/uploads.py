"""Uploads of files: each content once, as a form to the API or directly to its storage host."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from random import random
from typing import Final

from attrs import evolve, frozen

from heygen_async._arguments import is_https, is_word
from heygen_async._converter import DirectUpload, read_new
from heygen_async._media.hosts import has_expired, not_stored, refusal
from heygen_async._media.ingestion import COMPLETED, PROCESSING, Ingestion
from heygen_async._media.reading import Reading, sample_of, sha256_of
from heygen_async._media.sources import LocalFile
from heygen_async._media.transfers import Progress, Transfers, report
from heygen_async._media.upload_cache import CachedUpload, Sample, Upload
from heygen_async._task_group import together
from heygen_async._transport.driver import Transport
from heygen_async._transport.origin import SecretHeaders
from heygen_async._transport.retry import Attempts
from heygen_async._wire import compose, multipart
from heygen_async.errors import APIError, HeyGenError, InvalidRequest, UnexpectedResponse
from heygen_async.models import JSON, Asset, AssetId, Secret

_LINKS: Final = 3
"""How many upload links are requested for one file."""

# Headers that aiohttp sets itself; those that the API gives are ignored.
_NOT_THEIRS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
_HEADER: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@frozen
class Uploads:
    """Uploads files."""

    _transport: Transport
    _transfers: Transfers
    _ingestion: Ingestion

    async def upload(self, file: LocalFile, *, sha256: str | None = None, progress: Progress | None = None) -> Asset:
        """Return the asset of *file*: one that the session has uploaded, or is uploading, or a new one.

        Cancellation stops this upload only if nobody else waits for it; else one of those takes over.

        Args:
            file: The file.
            sha256: The SHA-256 that its content must have, in hex; `None` for any content.
            progress: See `Assets.upload`.

        Raises:
            HeyGenError: If it cannot be uploaded.
            OSError: If the file cannot be read, changed since it was checked, or has another content.
        """
        cache = self._transfers.uploaded
        sample, found = await self._identify(file)
        if sha256 is not None and found not in {None, sha256}:
            raise OSError(f"{file.name} changed since it was checked")
        sha256 = sha256 or found
        entry = cache.entry(sample, sha256, file.path) if sha256 else cache.add_unhashed(sample, file.path)
        while entry.asset is None or not entry.is_ready:
            if entry.upload is None:
                await self._work_on(entry, file, progress)
                continue
            await self._wait_for(entry, entry.upload, entry.sha256)
            if entry.asset is None and sha256 is not None:
                entry = cache.entry(sample, sha256, file.path)  # it was removed if nobody else waited
        await report(progress, file.size, file.size)
        return entry.asset

    async def upload_all(self, files: Sequence[LocalFile]) -> list[Asset]:
        """Upload several files at once, and return their assets in order. The first failure ends the others."""
        if len(files) < 2:  # noqa: PLR2004 one file needs no task group
            return [await self.upload(file) for file in files]
        return await together(self.upload(file) for file in files)

    async def is_known(self, file: LocalFile) -> bool:
        """Return whether the session has uploaded the content of *file*, or is uploading it.

        Raises:
            OSError: If it cannot be read, or changed since it was checked.
            HeyGenError: If an upload of the same content is under way, and fails.
        """
        _, sha256 = await self._identify(file)
        return sha256 is not None and sha256 in self._transfers.uploaded

    async def _identify(self, file: LocalFile) -> tuple[Sample, str | None]:
        """Return the sample of *file*, and its SHA-256; `None` if it is certainly new and can be hashed as it is sent.

        So most files are read once. One that was touched a moment ago is hashed first: it might still change, and
        the times of a file system are too coarse to show it.
        """
        cache, pool = self._transfers.uploaded, self._transfers.pool
        sample = await sample_of(pool, file)
        sha256 = None if self._is_settled(file) else await sha256_of(pool, file)
        while True:
            if sha256 is None and cache.has_sample(sample):
                sha256 = await sha256_of(pool, file)
            rival = cache.unhashed(sample)
            if rival is None or rival.upload is None:
                return sample, sha256
            await self._wait_for(rival, rival.upload, sha256)

    def _is_settled(self, file: LocalFile) -> bool:
        return file.touched_at is not None and time.time() - file.touched_at >= self._transfers.settled_after

    async def recover(self, assets: Iterable[Asset | AssetId]) -> bool:
        """Wait for assets that HeyGen is still processing, and forget the others, so that they are uploaded again.

        Returns:
            Whether one of them can be used now.

        Raises:
            HeyGenError: If the API refuses the status requests, or an asset takes too long.
        """
        by_id = {asset.id if isinstance(asset, Asset) else asset.value: asset for asset in assets}
        states = await self._ingestion.wait(by_id)
        for asset_id, state in states.items():
            if state.status != COMPLETED:
                self.forget(by_id[asset_id])
        return any(state.status == COMPLETED for state in states.values())

    def forget(self, what: Asset | AssetId | Path | None) -> None:
        """Forget that a file was uploaded, or all of them."""
        self._transfers.uploaded.forget(what)

    async def _wait_for(self, entry: CachedUpload, upload: Upload, sha256: str | None) -> None:
        """Wait for the end of an upload, and raise its error if it is of the content with that *sha256*."""
        entry.waiting += 1
        try:
            await upload.finished.wait()
        finally:
            entry.waiting -= 1
            self._transfers.uploaded.tidy(entry)
        if upload.error is not None and entry.sha256 == sha256:
            raise upload.error.fresh() from upload.error

    async def _work_on(self, entry: CachedUpload, file: LocalFile, progress: Progress | None) -> None:
        """Do what *entry* still needs: the upload, and the wait until HeyGen has processed it."""
        cache = self._transfers.uploaded
        upload = cache.start(entry)
        try:
            if entry.asset is None:
                entry.asset = await self._upload(file, entry, progress)
            if entry.asset.status in PROCESSING:
                entry.asset = await self._processed(entry.asset)
            entry.is_ready = True
        except HeyGenError as error:
            upload.error = error
            if entry.sha256 is None and entry.waiting:  # those who wait must know whether it is their content
                with suppress(OSError):
                    entry.sha256 = await sha256_of(self._transfers.pool, file)
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

    async def _upload(self, file: LocalFile, entry: CachedUpload, progress: Progress | None) -> Asset:
        reading = Reading(self._transfers.pool, file, entry.sha256, progress)
        try:
            async with self._transfers.seats:
                return await self._send(file, reading)
        finally:
            reading.close()
            if reading.sha256 is not None:
                self._transfers.uploaded.set_sha256(entry, reading.sha256)

    async def _send(self, file: LocalFile, reading: Reading) -> Asset:
        if file.size <= self._transfers.multipart_max:
            body = multipart(file.name, file.mime_type, reading.stream())
            try:
                response = await self._transport.send(compose("POST", "/v3/assets", stream=body))
            except InvalidRequest as error:
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise
            else:
                _check_whole(reading)
                return read_new(response, Asset, "id", is_usable=is_word)
        return await self._send_direct(file, reading)

    async def _send_direct(self, file: LocalFile, reading: Reading) -> Asset:
        asset_id = await self._store(file, reading)
        _check_whole(reading)
        request = compose(
            "POST",
            "/v3/assets/{asset_id}/complete",
            segments={"asset_id": asset_id},
            json={"checksum_sha256": reading.sha256},
        )
        return read_new(await self._transport.send(request), Asset, "id", is_usable=lambda found: found == asset_id)

    async def _store(self, file: LocalFile, reading: Reading) -> str:
        """Send *file* to the storage host, and return the id of the asset that waits to be completed."""
        links = 1
        while True:
            grant = await self._announce(file, reading.sha256)
            try:
                await self._put(grant, reading)
            except APIError as error:
                if not has_expired(error) or links == _LINKS:
                    raise
                links += 1
            else:
                return grant.asset_id

    async def _announce(self, file: LocalFile, sha256: str | None) -> DirectUpload:
        body: dict[str, JSON] = {
            "filename": file.name,
            "content_type": file.mime_type,
            "size_bytes": file.size,
        }
        if sha256 is not None:
            body["checksum_sha256"] = sha256
        request = compose("POST", "/v3/assets/direct-uploads", json=body)
        grant = read_new(await self._transport.send(request), DirectUpload, "asset_id")
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
            await self._transport.gate.sleep(delay)

    async def _put_once(self, link: Secret, headers: Mapping[str, str], reading: Reading) -> None:
        transport = self._transport
        answer = await transport.http.put(link, reading.stream(), headers=headers, timeouts=transport.timeouts)
        error = refusal(answer.status, answer.headers, answer.body, now=time.time())
        error = error or not_stored(answer.status, answer.headers, answer.body)
        if error is not None:
            raise error


def put_headers(given: Mapping[str, object]) -> SecretHeaders:
    """Return the headers that a PUT must carry, as the API gave them, but for those that are the connection's own.

    Raises:
        UnexpectedResponse: If one of them cannot be a header.
    """
    wrong = [name for name, value in given.items() if not _is_header(name, value)]
    if wrong:
        del given  # or a traceback with local variables would show it
        raise _unexpected(f"not a header @ $.data.upload_headers.{wrong[0][:40]!r}")
    return SecretHeaders({name: str(value) for name, value in given.items() if name.lower() not in _NOT_THEIRS})


def _is_header(name: str, value: object) -> bool:
    return _HEADER.fullmatch(name) is not None and isinstance(value, str) and value.isprintable()


def _check_whole(reading: Reading) -> None:
    if not reading.is_whole:
        raise _unexpected("the server answered before it had all of the file")


def _too_large(file: LocalFile, most: int) -> InvalidRequest:
    return InvalidRequest(
        f"{file.name} has {file.size:,} bytes, and HeyGen takes {most:,}",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        code="payload_too_large",
        outcome="rejected",
    )


def _unexpected(problem: str) -> UnexpectedResponse:
    return UnexpectedResponse([problem], status=HTTPStatus.OK, outcome="rejected")
