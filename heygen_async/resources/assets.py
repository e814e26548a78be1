"""`session.assets`: files for HeyGen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from attrs import frozen

from heygen_async._arguments import check_count, check_text
from heygen_async._converter import read, read_page
from heygen_async._media.progress import Progress
from heygen_async._media.uploads import Uploads
from heygen_async._transport.driver import Transport
from heygen_async._wire import Parameter, compose
from heygen_async.models import Asset, AssetId, Source
from heygen_async.pagination import Page, Paginator

_ONE = "/v3/assets/{asset_id}"


@frozen
class Assets:
    """The calls under `/v3/assets`. Every call raises `HeyGenError` for what the server or network does."""

    _transport: Transport
    _uploads: Uploads

    async def upload(self, source: Source, *, name: str | None = None, progress: Progress | None = None) -> Asset:
        """Upload a file; the same content goes up once in a session, also from many calls at the same time.

        Memory stays small whatever the size: the file is read a megabyte at a time, off the event loop, and anew for
        each attempt. Up to 32 MB go to the API, more go to the storage host that it names.

        Args:
            source: A `Path`, `bytes`, or an open binary file, from where it stands on; its place is not moved. A
                file that cannot be rewound, such as a pipe, is copied to a temporary file first.
            name: What to call it; else its own name. Content that is up already keeps the name it has.
            progress: Called with bytes done and in all, or a coroutine function. What it raises ends the upload.

        Returns:
            The asset, to be used as `video=` or `audio=` of `lipsyncs.create`.

        Raises:
            TypeError, ValueError: If it is no file, empty, of no type that HeyGen takes (MP4, WebM, MP3, WAV, PNG,
                JPEG, PDF, SRT), or its extension names another; nothing was sent.
            OSError: If it cannot be read, or changes while it is. A short upload never comes of that.
            InvalidRequest: If it is larger than the server takes; its `.status` is 413.
            HeyGenError: For what the server or network does.

        Cancelled, it stops at once; if other calls wait for the same content, one of them carries on.
        """
        check_text("name", name)
        async with self._uploads.look_at(source, name=name) as file:
            return await self._uploads.upload(file, progress=progress)

    def forget(self, what: Asset | AssetId | Path | None = None) -> None:
        """Forget that a file was uploaded, so that it will be again; of all files, if none is named.

        Nothing is deleted, and an upload that is on its way goes on.
        """
        self._uploads.forget(what.absolute() if isinstance(what, Path) else what)

    async def get(self, asset_id: str) -> Asset:
        """Get one asset.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such asset in this account.
        """
        return read(await self._transport.send(compose("GET", _ONE, segments={"asset_id": asset_id})), Asset)

    async def delete(self, asset_id: str) -> None:
        """Delete an asset, for good.

        Raises:
            TypeError, ValueError: If it is not an id.
            NotFound: If there is no such asset; but not if an attempt without an answer has deleted it.
        """
        await self._transport.send(compose("DELETE", _ONE, segments={"asset_id": asset_id}))
        self._uploads.forget(AssetId(asset_id))

    def list(self, *, username: str, page_size: int = 100, token: str | None = None) -> Paginator[Asset]:
        """List the assets of a user of the account; nothing is sent before it is iterated.

        Args:
            username: Whose; the API requires it.
            page_size: Assets in one request, 1 to 100.
            token: The cursor to start at.
        """
        check_text("username", username)
        check_count("page_size", page_size, most=100)
        return Paginator(partial(self._page, username, page_size), token=token)

    async def _page(self, username: str, page_size: int, token: str | None) -> Page[Asset]:
        params: dict[str, Parameter] = {"username": username, "limit": page_size, "token": token}
        return read_page(await self._transport.send(compose("GET", "/v3/assets", params=params)), Asset)
