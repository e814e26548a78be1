"""Whether pages of the list are worth reading, learnt from those that were read. Pure."""

from __future__ import annotations

from typing import Final

from heygen_async.polling.waiters import LipsyncPage, StatusRequest

_MIN_WANTED: Final = 10
"""The fewest wanted lipsyncs for which a page of 100 is read."""

_MIN_SAVED: Final = 5
"""How many requests a page must have saved for the next one to be read."""

_MOST_SKIPPED: Final = 31
"""The most chances to read a page that are skipped after pages that saved too little."""


class Pages:
    """The reading of the list, newest first: one page at a time, for as long as it saves requests."""

    def __init__(self) -> None:
        self.reading: StatusRequest | None = None
        """The page in flight."""
        self.cursor: str | None = None
        """Where to continue; `None` is the newest."""
        self._continued = False
        self._skips = 0
        self._skips_left = 0

    def is_worthwhile(self, wanted: int) -> bool:
        """Return whether to begin reading, with so many lipsyncs wanted. Each call with enough of them is a chance."""
        if wanted < _MIN_WANTED or self.reading is not None:
            return False
        self._skips_left -= 1
        return self._skips_left < 0

    def join(self, wanted: int) -> StatusRequest | None:
        """Return the page in flight, if so many wanted lipsyncs should wait for it."""
        return self.reading if wanted >= _MIN_WANTED else None

    def begin(self, *, at_the_newest: bool) -> str | None:
        """Begin reading, and return the cursor."""
        # Batches that end one after the other are further and further down the list.
        if at_the_newest:
            self.cursor = None
        self._continued = self.cursor is not None
        return self.cursor

    def learn(self, request: StatusRequest, page: LipsyncPage | None, *, saved: int, left: int) -> bool:
        """Note what a page brought, and return whether to read another one at the cursor.

        Args:
            request: The request for the page.
            page: The answer; `None` if the request failed.
            saved: How many requests the page saved.
            left: How many lipsyncs are still wanted.
        """
        continued, self._continued = self._continued, False
        if page is not None and saved >= _MIN_SAVED:
            self._skips = self._skips_left = 0
            self.cursor = page.next_token if page.has_more else None
            return self.cursor is not None and left >= _MIN_WANTED
        self.cursor = None
        if request.token is None:
            self._skips = self._skips_left = min(2 * self._skips + 1, _MOST_SKIPPED)
        return continued and left >= _MIN_WANTED
