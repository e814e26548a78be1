"""Which files a session has sent up, and which are on their way, so that each goes once. No I/O, no await.

Rule 1: a file is told by its digest. Where that is not known yet, by what the file system says of it; and
where neither tells, because another file of the same size is here, its digest must be computed first.
Rule 2: an entry that is on its way has one carrier. If the carrier is cancelled, one of those who wait carries on.
Rule 3: an entry that is neither uploaded, nor on its way, nor waited for, is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from pathlib import Path
from typing import Final

from attrs import define, field

from heygen_async._media.sources import LocalFile
from heygen_async.errors import HeyGenError
from heygen_async.models import Asset, AssetId

MAX_ENTRIES: Final = 1000


@define(eq=False)
class Flight:
    """One carrier's attempt."""

    landed: asyncio.Event = field(factory=asyncio.Event)
    error: HeyGenError | None = None
    """Why it failed, if that is everyone's failure and not the carrier's own."""


@define(eq=False)
class Entry:
    """One content."""

    size: int
    sha256: str | None
    file: LocalFile | None
    """While it has no asset: something to compute its digest from."""
    identities: set[Hashable] = field(factory=set)
    paths: set[Path] = field(factory=set)
    asset: Asset | None = None
    flight: Flight | None = None
    waiting: int = 0

    def meet(self, file: LocalFile) -> None:
        """Learn of another name of this content."""
        if file.identity is not None:
            self.identities.add(file.identity)
        if file.path is not None:
            self.paths.add(file.path)


class Ledger:
    """All entries, the one used last at the end.

    Args:
        max_entries: How many uploads are remembered.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: dict[Entry, None] = {}

    def find(self, file: LocalFile, sha256: str | None) -> Entry | None:
        """Return the entry of *file*, if what is known of it is enough to tell."""
        for entry in self._entries:
            if entry.size != file.size:
                continue
            if (sha256 is not None and sha256 == entry.sha256) or file.identity in entry.identities:
                self._entries[entry] = self._entries.pop(entry)
                entry.meet(file)
                return entry
        return None

    def rivals(self, file: LocalFile) -> list[Entry]:
        """Return the entries that may be of the same content."""
        return [entry for entry in self._entries if entry.size == file.size]

    def add(self, file: LocalFile, sha256: str | None) -> Entry:
        """Make an entry; the uploads that were not used for longest are forgotten if there are too many."""
        entry = Entry(file.size, sha256, file)
        entry.meet(file)
        self._entries[entry] = None
        idle = [old for old in self._entries if old.asset is not None and not old.waiting]
        for old in idle[: max(0, len(self._entries) - self._max_entries)]:
            del self._entries[old]
        return entry

    def depart(self, entry: Entry, file: LocalFile) -> Flight:
        """Note that *entry* has a carrier, who sends it from *file*."""
        entry.file, entry.flight = file, Flight()
        return entry.flight

    def land(self, entry: Entry, flight: Flight) -> None:
        """Note that the carrier is back, with an asset or without, and wake who waits."""
        entry.flight = None
        if entry.asset is not None:
            entry.file = None  # which may hold all of its bytes
        flight.landed.set()
        self.tidy(entry)

    def tidy(self, entry: Entry) -> None:
        """Forget *entry* if nothing came of it and nobody is there to carry on."""
        if entry.asset is None and entry.flight is None and not entry.waiting:
            self._entries.pop(entry, None)

    def forget(self, what: Asset | AssetId | Path | None) -> None:
        """Forget an upload, or all; what is on its way goes on for those who wait for it."""
        self._entries = {entry: None for entry in self._entries if not _is_meant(entry, what)}

    def __len__(self) -> int:
        return len(self._entries)


def _is_meant(entry: Entry, what: Asset | AssetId | Path | None) -> bool:
    if what is None:
        return True
    if isinstance(what, Path):
        return what in entry.paths
    asset_id = what.value if isinstance(what, AssetId) else what.id
    return entry.asset is not None and entry.asset.id == asset_id
