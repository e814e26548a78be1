"""Whether pages of the list are worth reading, learnt from those that were read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from heygen_async._polling.waiting import Errand, LipsyncPage

_FROM: Final = 10
"""How many lipsyncs must be wanted for a page, which is 100 whole ones, to be tried."""

_PAYS: Final = 5
"""How many requests a page must have saved for the next one to be read."""

_LONGEST_PAUSE: Final = 31
"""The most chances to read a page that are passed over after pages that saved too little."""


class Pages:
    """The reading of the list, newest first: one page at a time, for as long as it pays."""

    def __init__(self) -> None:
        self.reading: Errand | None = None
        """The page that is on its way."""
        self.cursor: str | None = None
        """Where to go on; `None` is the newest."""
        self._went_back = False
        self._pause = 0
        self._skip = 0

    def worth_it(self, wanted: int) -> bool:
        """Return whether to begin to read, with so many wanted. Asking counts as a chance."""
        if wanted < _FROM or self.reading is not None:
            return False
        self._skip -= 1
        return self._skip < 0

    def join(self, wanted: int) -> Errand | None:
        """Return the page on its way, if so many wanted should wait for it."""
        return self.reading if wanted >= _FROM else None

    def begin(self, *, at_the_newest: bool) -> str | None:
        """Begin to read, and return where."""
        # Batches that end one after the other are further and further down the list.
        if at_the_newest:
            self.cursor = None
        self._went_back = self.cursor is not None
        return self.cursor

    def learn(self, errand: Errand, page: LipsyncPage | None, *, saved: int, left: int) -> bool:
        """Take in what a page brought, `None` if it failed; return whether to go on at the cursor.

        Args:
            errand: The page.
            page: What came.
            saved: How many requests it made needless.
            left: How many lipsyncs are still wanted.
        """
        went_back, self._went_back = self._went_back, False
        if page is not None and saved >= _PAYS:
            self._pause = self._skip = 0
            self.cursor = page.next_token if page.has_more else None
            return self.cursor is not None and left >= _FROM
        self.cursor = None
        if errand.token is None:
            self._pause = self._skip = min(2 * self._pause + 1, _LONGEST_PAUSE)
        return went_back and left >= _FROM
