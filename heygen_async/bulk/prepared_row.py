"""A row that was checked, and that the program works on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from heygen_async._media.sniffing import Role
from heygen_async.bulk.budget import Budget, least_seconds_of
from heygen_async.bulk.identity import ROLES, FileInfo
from heygen_async.bulk.store import Entry
from heygen_async.models import DubRow


@frozen(kw_only=True, slots=False)  # a snapshot reads it faster
class PreparedRow:
    """A row that is ready to be worked on."""

    row: DubRow
    target: Path | None
    captions: bool
    """Whether captions are written beside it."""
    files: Mapping[str, FileInfo]
    """What is known of its local files, by `video` and `audio`."""
    missing: Mapping[str, str]
    """What is wrong with its other local files, which it does not need while its job does not fail."""
    seconds: float | None
    """The estimated length of the output in seconds; `None` if it is not known."""
    entry: Entry

    @property
    def number(self) -> int:
        """The number of the row, from 1."""
        return self.entry.number

    @property
    def place(self) -> str:
        """Where it is listed, for people."""
        return self.entry.place

    @property
    def key(self) -> str:
        """Its key."""
        return self.entry.key

    def price(self, budget: Budget) -> float:
        """Return the estimated price of its job."""
        lengths = (self.files[role].seconds if role in self.files else None for role in ROLES)
        return budget.price(self.row.mode, self.seconds, at_least=least_seconds_of(self.row, *lengths))

    def file(self, role: Role) -> FileInfo:
        """Return what is known of the local file that is its *role*, `video` or `audio`.

        Raises:
            ValueError: If it cannot be used.
        """
        if role in self.missing:
            raise ValueError(f"{role}: {self.missing[role]}")
        return self.files[role]
