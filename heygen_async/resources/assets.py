"""`session.assets`: files for HeyGen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from attrs import frozen

from heygen_async._arguments import check_count, check_text
from heygen_async._converter import read, read_page
from heygen_async._media import Progress, read_file
from heygen_async._transport.driver import Transport
from heygen_async._wire import Parameter, compose, multipart
from heygen_async.models import Asset, Source
from heygen_async.pagination import Page, Paginator

_ONE = "/v3/assets/{asset_id}"


@frozen
class Assets:
    """The calls under `/v3/assets`. Every call raises `HeyGenError` for what the server or network does."""

    _transport: Transport

    async def upload(self, source: Source, *, progress: Progress | None = None) -> Asset:
        """Upload a file.

        Args:
            source: The file.
            progress: Called with bytes done and in all.

        Raises:
            ValueError: If the file is empty.
            OSError: If it cannot be read.
        """
        if not isinstance(source, Path):
            raise TypeError(f"source must be a Path, not {type(source).__name__}")
        stream = await read_file(source)
        body = multipart(source.name, stream.content_type, stream)
        return read(await self._transport.send(compose("POST", "/v3/assets", stream=body)), Asset)

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
