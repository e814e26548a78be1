"""Lists that the API returns in pages: `async for` follows the cursor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, Generic, TypeAlias, TypeVar

from attrs import frozen

from heygen_async._arguments import check_count, check_type
from heygen_async.errors import UnexpectedResponse

__all__ = ("Page", "Paginator")

T = TypeVar("T")

MAX_PAGE: Final = 100
"""Most items in one page, by the contract."""


@frozen(kw_only=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: In the server's order.
        next_token: The cursor of the next page; `None` on the last.
        has_more: Whether there is another page. If so, and it has no cursor, the list cannot be read to its end.
    """

    items: list[T]
    next_token: str | None = None
    has_more: bool = False


_MOST_EMPTY: Final = 100
"""Empty pages in a row after which a list counts as endless."""

_REMEMBERED: Final = 1000
"""Identities of items that are kept: those of several pages, so that memory stays flat however long the list is."""

Fetch: TypeAlias = Callable[[str | None], Awaitable[Page[T]]]
Identity: TypeAlias = Callable[[T], object]


class _Pages(AsyncIterator[Page[T]]):
    # An object, not an async generator: it needs no clean-up when it is left early, and it can be continued after a
    # fetch that failed or was cancelled.
    def __init__(self, fetch: Fetch[T], token: str | None, identity: Identity[T] | None) -> None:
        self._fetch = fetch
        self._next: str | None = token
        self._identity = identity
        self._seen: set[str | None] = set()
        self._items: dict[object, None] = {}  # in the order in which they came
        self._empty = 0
        self._is_incomplete = False
        self._is_repeated = False

    async def __anext__(self) -> Page[T]:
        if self._is_incomplete:  # what is not on these pages is not known to be missing
            raise UnexpectedResponse(["there are more pages, but no cursor @ $.next_token"], status=200)
        if self._seen and not self._next:
            raise StopAsyncIteration
        if self._next in self._seen:
            raise UnexpectedResponse(["the same cursor came twice @ $.next_token"], status=200)
        if self._is_repeated:  # a server that ignores the cursor may give another one each time
            raise UnexpectedResponse(["a page has only items of pages before it @ $.data"], status=200)
        page = await self._fetch(self._next)
        self._seen.add(self._next)
        self._next = page.next_token
        self._is_incomplete = page.has_more and not page.next_token
        self._is_repeated = self._has_nothing_new(page)
        self._empty = 0 if page.items else self._empty + 1
        if self._empty >= _MOST_EMPTY:
            raise UnexpectedResponse([f"{_MOST_EMPTY} pages in a row have no items @ $.data"], status=200)
        return page

    def _has_nothing_new(self, page: Page[T]) -> bool:
        if self._identity is None or not page.items:
            return False
        ids = dict.fromkeys(map(self._identity, page.items))
        is_repeated = ids.keys() <= self._items.keys()
        self._items |= dict.fromkeys(id_ for id_ in ids if id_ is not None)  # without an id it counts as new
        for oldest in list(self._items)[:-_REMEMBERED]:
            del self._items[oldest]
        return is_repeated


class _Items(AsyncIterator[T]):
    def __init__(self, pages: AsyncIterator[Page[T]]) -> None:
        self._pages = pages
        self._left: Iterator[T] = iter(())

    async def __anext__(self) -> T:
        while True:
            for item in self._left:
                return item
            self._left = iter((await anext(self._pages)).items)


class Paginator(Generic[T]):
    """A list on the server, fetched page by page as it is iterated; nothing is sent before.

    Each iteration starts again at the first page, or at the paginator's token. An iteration that ends early or is
    cancelled has fetched only the pages that it reached, and leaves nothing running.

    ::

        async for lipsync in heygen.lipsyncs.list():
            ...
        async for page in heygen.lipsyncs.list().pages():
            ...
        newest = await heygen.lipsyncs.list().first()

    Args:
        fetch: Fetches the page of a cursor; `None` for the first page.
        token: The cursor to start at; `None` for the first page.
        identity: Returns what no two items of the list share, such as an id; `None` for an item without it. The list
            ends with an error after a page with nothing but items that came shortly before: the server may ignore the
            cursor.

    Raises:
        TypeError: If *token* is not a string.
    """

    def __init__(self, fetch: Fetch[T], *, token: str | None = None, identity: Identity[T] | None = None) -> None:
        self._fetch = fetch
        self._identity = identity
        check_type("token", token, str, is_optional=True)
        self._token = token

    def __aiter__(self) -> AsyncIterator[T]:
        """Iterate over the items of all pages.

        Raises:
            HeyGenError: If a page cannot be fetched; the next `anext` tries it again.
        """
        return _Items(self.pages())

    def pages(self) -> AsyncIterator[Page[T]]:
        """Iterate over the pages, empty ones included.

        Raises:
            HeyGenError: If a page cannot be fetched; the next `anext` tries it again.
            UnexpectedResponse: If the server repeats a cursor, says that there are more pages and gives none, or sends
                100 empty pages in a row or one with no new item (by *identity*), which may never end.
        """
        return _Pages(self._fetch, self._token, self._identity)

    async def collect(self, *, limit: int | None = None) -> list[T]:
        """Return the items as a list, fetching only the pages that it needs.

        Args:
            limit: The most items to return, 1 or more; `None` for all.

        Raises:
            TypeError, ValueError: If *limit* is not a number from 1 up.
            HeyGenError: If a page cannot be fetched.

        Cancelling it affects nothing.
        """
        if limit is not None:
            check_count("limit", limit)
        found: list[T] = []
        async for page in self.pages():
            found += page.items
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    async def first(self) -> T | None:
        """Return the first item; `None` if the list is empty.

        Raises:
            HeyGenError: If the page cannot be fetched.

        Cancelling it affects nothing.
        """
        return next(iter(await self.collect(limit=1)), None)
