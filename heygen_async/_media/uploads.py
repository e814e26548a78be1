"""Files on their way up: once each, in one of the API's two ways."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from pathlib import Path
from random import random
from typing import Final

from attrs import frozen

from heygen_async._arguments import is_https
from heygen_async._converter import DirectUpload, read
from heygen_async._media.hosts import refusal
from heygen_async._media.ledger import Entry
from heygen_async._media.patience import Patience
from heygen_async._media.progress import Progress, report
from heygen_async._media.reading import Reading, digest_of
from heygen_async._media.sniffing import Role
from heygen_async._media.sources import LocalFile, local_file
from heygen_async._media.transfers import Transfers
from heygen_async._transport.driver import Transport
from heygen_async._wire import compose, multipart
from heygen_async.errors import HeyGenError, InvalidRequest, PermissionDenied, UnexpectedResponse
from heygen_async.models import JSON, Asset, AssetId, Source

_LINKS: Final = 3
"""How many upload links one file is worth."""

# What the connection itself says of a body; a server has no say in it.
_NOT_THEIRS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
_HEADER: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@frozen
class Uploads:
    """Sends files up."""

    _transport: Transport
    _transfers: Transfers

    def look_at(
        self, source: Source, *, name: str | None = None, role: Role | None = None
    ) -> AbstractAsyncContextManager[LocalFile]:
        """Look at a file, which sends nothing; see `local_file`."""
        return local_file(source, name=name, role=role)

    async def upload(self, file: LocalFile, *, progress: Progress | None = None) -> Asset:
        """Return the asset of *file*: one that the session has uploaded, or is uploading, or a new one.

        Cancellation stops this upload only if nobody else waits for it; else one of those carries on.

        Raises:
            HeyGenError: If it cannot be uploaded.
            OSError: If the file cannot be read, or changed since it was looked at.
        """
        entry = await self._entry(file)
        while entry.asset is None:
            if entry.flight is None:
                await self._carry(entry, file, progress)
            else:
                await self._wait(entry)
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

    def forget(self, what: Asset | AssetId | Path | None) -> None:
        """Forget that a file was uploaded, or all of them."""
        self._transfers.uploaded.forget(what)

    async def _entry(self, file: LocalFile) -> Entry:
        ledger, sha256 = self._transfers.uploaded, file.sha256
        while (entry := ledger.find(file, sha256)) is None:
            rivals = ledger.rivals(file)
            if rivals and sha256 is None:
                sha256 = await digest_of(self._transfers.pool, file)
            elif unknown := [rival for rival in rivals if rival.sha256 is None]:
                await self._learn(unknown[0])
            else:
                return ledger.add(file, sha256)
        return entry

    async def _learn(self, rival: Entry) -> None:
        """Compute the digest of an upload that is on its way."""
        assert rival.file is not None  # noqa: S101 what is uploaded has a digest
        try:
            sha256 = await digest_of(self._transfers.pool, rival.file)
        except (OSError, ValueError):  # its file is gone, or closed: then it is the same as no other
            sha256 = ""
        rival.sha256 = rival.sha256 or sha256

    async def _wait(self, entry: Entry) -> None:
        flight = entry.flight
        assert flight is not None  # noqa: S101 who calls has seen it
        entry.waiting += 1
        try:
            await flight.landed.wait()
        finally:
            entry.waiting -= 1
            self._transfers.uploaded.tidy(entry)
        if flight.error is not None:
            raise flight.error.fresh() from flight.error

    async def _carry(self, entry: Entry, file: LocalFile, progress: Progress | None) -> None:
        ledger = self._transfers.uploaded
        flight = ledger.depart(entry, file)
        reading = Reading(self._transfers.pool, file, progress)
        try:
            async with self._transfers.seats:
                asset = await self._send(file, reading)
            if not reading.is_whole:
                raise _unexpected("the server answered before it had all of the file")
        except HeyGenError as error:
            flight.error = error
            raise
        else:
            entry.sha256, entry.asset = reading.sha256, asset
        finally:
            reading.close()
            ledger.land(entry, flight)

    async def _send(self, file: LocalFile, reading: Reading) -> Asset:
        if file.size <= self._transfers.multipart_max:
            body = multipart(file.name, file.mime_type, reading.stream())
            try:
                return read(await self._transport.send(compose("POST", "/v3/assets", stream=body)), Asset)
            except InvalidRequest as error:
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise
        return await self._send_direct(file, reading)

    async def _send_direct(self, file: LocalFile, reading: Reading) -> Asset:
        asset_id = await self._store(file, reading)
        request = compose(
            "POST",
            "/v3/assets/{asset_id}/complete",
            segments={"asset_id": asset_id},
            json={"checksum_sha256": reading.sha256},
        )
        return read(await self._transport.send(request), Asset)

    async def _store(self, file: LocalFile, reading: Reading) -> str:
        """Send *file* to the storage host, and return the id of the asset that waits to be completed."""
        links = 1
        while True:
            grant = await self._announce(file, reading.sha256)
            try:
                await self._put(grant, reading)
            except PermissionDenied:  # the link has expired: ask for another
                if links == _LINKS:
                    raise
                links += 1
            else:
                return grant.asset_id

    async def _announce(self, file: LocalFile, sha256: str | None) -> DirectUpload:
        body: dict[str, JSON] = {"filename": file.name, "content_type": file.mime_type, "size_bytes": file.size}
        checksum: dict[str, JSON] = {} if sha256 is None else {"checksum_sha256": sha256}
        request = compose("POST", "/v3/assets/direct-uploads", json={**body, **checksum})
        grant = read(await self._transport.send(request), DirectUpload)
        if grant.max_bytes is not None and file.size > grant.max_bytes:
            raise _too_large(file, grant.max_bytes)
        if not is_https(grant.upload_url, or_loopback=self._transport.http.origin.is_loopback):
            raise _unexpected("the upload link is not https @ $.data.upload_url")
        return grant

    async def _put(self, grant: DirectUpload, reading: Reading) -> None:
        patience, headers = Patience(self._transport.retry), put_headers(grant.upload_headers)
        while True:
            try:
                return await self._put_once(grant.upload_url, headers, reading)
            except HeyGenError as error:
                delay = patience.after(error, chance=random())  # noqa: S311 it spreads retries, it guards nothing
                error.attempts = patience.tries
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    async def _put_once(self, url: str, headers: Mapping[str, str], reading: Reading) -> None:
        transport = self._transport
        status, told, body = await transport.http.put(
            url, reading.stream(), headers=headers, timeouts=transport.timeouts
        )
        error = refusal(status, told, body, now=time.time())
        if error is not None:
            raise error


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
