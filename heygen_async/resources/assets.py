"""`session.assets`: files for HeyGen."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from pathlib import Path
from types import NoneType

from attrs import frozen

from heygen_async._arguments import check_count, check_function, check_text, check_type
from heygen_async._converter import read_own, read_page
from heygen_async._media.sources import local_file
from heygen_async._media.transfers import Progress
from heygen_async._media.uploads import Uploads
from heygen_async._transport.driver import Transport
from heygen_async._wire import Parameter, compose
from heygen_async.models import Asset, AssetId, Source
from heygen_async.pagination import MAX_PAGE, Page, Paginator

_ONE = "/v3/assets/{asset_id}"
_NO_FILE = "source must be a Path, bytes or an open file, not str; a URL needs no upload, a local file is a Path"


@frozen
class Assets:
    """The calls under `/v3/assets`.

    Every call raises `HeyGenError` if the server or the network fails, and `RuntimeError` if the session is closed or
    in use by another event loop.
    """

    _transport: Transport
    _uploads: Uploads

    async def upload(self, source: Source, *, name: str | None = None, progress: Progress | None = None) -> Asset:
        """Upload a file. The same content is uploaded once in a session, also by many calls at the same time.

        The file is read off the event loop, in constant memory whatever its size: once for its SHA-256, which
        identifies the content, and once for each attempt. Up to 32 MB go to the API, larger files to the storage host
        that it names. If HeyGen processes the asset first, this waits until it can be used.

        Args:
            source: A `Path`, `bytes`, or an open binary file, which is read from its current position and left there.
                A file that cannot be rewound, such as a pipe, is copied to a temporary file first.
            name: The name to upload it under; `None` for its own. A content that is uploaded already keeps its name.
            progress: A function or coroutine function, called with the bytes that are sent, and in all. What it
                raises ends the upload.

        Returns:
            The asset, for `video=` or `audio=` of `lipsyncs.create`.

        Raises:
            TypeError, ValueError: If it is not a file, is empty, is of no type that HeyGen takes (MP4, WebM, MP3, WAV,
                PNG, JPEG, PDF, SRT), or has the extension of another type; nothing was sent.
            OSError: If it cannot be read, or changes meanwhile; it is never uploaded in part.
            InvalidRequest: If it is larger than the server takes (`.status` is 413), or cannot be processed.
            RequestTimeout: If HeyGen still processes it after 15 minutes. The next call goes on waiting.
            HeyGenError: For any other failure of the server or the network.

        If cancelled, it stops at once; if other calls wait for the same content, one of them takes over.
        """
        check_text("name", name)
        check_function("progress", progress)
        if isinstance(source, str):
            del source  # or a traceback with local variables would show its query
            raise TypeError(_NO_FILE)
        async with local_file(source, name=name) as file:
            return await self._uploads.upload(file, progress=progress)

    def forget(self, what: Asset | AssetId | Path | None = None) -> None:
        """Forget that the session has uploaded a file, so that the next call uploads it again.

        Nothing is deleted, and an upload that is under way goes on.

        Args:
            what: The asset, its `AssetId`, or the `Path` it was uploaded from; `None` for all uploads.

        Raises:
            TypeError: If it is none of these.
        """
        if not isinstance(what, (Asset, AssetId, Path, NoneType)):
            raise TypeError(f"what must be an Asset, an AssetId, a Path or None, not {type(what).__name__}")
        self._uploads.forget(what.absolute() if isinstance(what, Path) else what)

    async def get(self, asset_id: str) -> Asset:
        """Get one asset.

        Args:
            asset_id: Its id.

        Raises:
            TypeError, ValueError: If *asset_id* is not an id; nothing was sent.
            NotFound: If there is no such asset in this account.

        Cancelling it affects nothing.
        """
        request = compose("GET", _ONE, segments={"asset_id": asset_id})
        return read_own(await self._transport.send(request), Asset, asset_id)

    async def delete(self, asset_id: str) -> None:
        """Delete an asset permanently.

        Args:
            asset_id: Its id.

        Raises:
            TypeError, ValueError: If *asset_id* is not an id; nothing was sent.
            NotFound: If there is no such asset. It is not raised if an earlier attempt without an answer deleted it.

        If cancelled, it may have been carried out; `.outcome` of the `CancelledError` says what is known.
        """
        await self._transport.send(compose("DELETE", _ONE, segments={"asset_id": asset_id}))
        self._uploads.forget(AssetId(asset_id))

    def list(self, *, username: str, page_size: int = MAX_PAGE, token: str | None = None) -> Paginator[Asset]:
        """List the assets of a user of the account; nothing is sent before it is iterated.

        Args:
            username: The user; the API requires it.
            page_size: Assets in one request, 1 to 100.
            token: The cursor to start at, a page's `next_token`.

        Raises:
            TypeError, ValueError: If an argument is wrong.
        """
        check_type("username", username, str)
        check_text("username", username)
        check_count("page_size", page_size, most=MAX_PAGE)
        return Paginator(partial(self._page, username, page_size), token=token, identity=attrgetter("id"))

    async def _page(self, username: str, page_size: int, token: str | None) -> Page[Asset]:
        params: dict[str, Parameter] = {"username": username, "limit": page_size, "token": token}
        return read_page(await self._transport.send(compose("GET", "/v3/assets", params=params)), Asset)

    def __repr__(self) -> str:
        return "<Assets: upload(), forget(), get(), delete(), list()>"
