"""Which contents a session has uploaded or is uploading, so that each is sent once. No I/O, no await.

Rule 1: a content is identified by its SHA-256 alone. What a file system says of a file (inode, size, times) can be
equal for different contents, so it is read again for each upload.
Rule 2: a content that is certainly new may be hashed while it is uploaded. Until then its entry has no SHA-256 and is
found by its sample; there is one such entry for a sample, and contents with the same sample wait for its end.
Rule 3: an entry has at most one upload under way. If that is cancelled, one of those who wait for it takes over.
Rule 4: an entry that is neither uploaded, nor under way, nor waited for, is removed.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, TypeAlias

from attrs import define, field

from heygen_async.errors import HeyGenError
from heygen_async.models import Asset, AssetId

MAX_ENTRIES: Final = 1000

Sample: TypeAlias = tuple[int, str]
"""The size of a content, and the digest of a few of its bytes. Contents with different samples are different."""


@define(eq=False)
class Upload:
    """One attempt to upload a content."""

    finished: asyncio.Event = field(factory=asyncio.Event)
    error: HeyGenError | None = None
    """Why it failed, if others would fail in the same way."""


@define(eq=False)
class CachedUpload:
    """One content."""

    sample: Sample
    sha256: str | None
    """`None` until the upload that is under way has found it."""
    paths: set[Path] = field(factory=set)
    """Where it was found."""
    asset: Asset | None = None
    is_ready: bool = False
    """Whether the asset can be used, and is not being processed by HeyGen any more."""
    upload: Upload | None = None
    waiting: int = 0


class UploadCache:
    """The entries by SHA-256, the one used last at the end; and by sample those that have none yet.

    Args:
        max_entries: How many uploads are remembered.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: dict[str, CachedUpload] = {}
        self._unhashed: dict[Sample, CachedUpload] = {}

    def has_sample(self, sample: Sample) -> bool:
        """Return whether there is a content with that sample."""
        return sample in self._unhashed or any(entry.sample == sample for entry in self._entries.values())

    def unhashed(self, sample: Sample) -> CachedUpload | None:
        """Return the entry with that sample whose SHA-256 is not known yet."""
        return self._unhashed.get(sample)

    def add_unhashed(self, sample: Sample, path: Path | None) -> CachedUpload:
        """Return a new entry without a SHA-256; the caller starts its upload at once."""
        entry = self._unhashed[sample] = CachedUpload(sample, None, set() if path is None else {path})
        return entry

    def set_sha256(self, entry: CachedUpload, sha256: str) -> None:
        """Record the SHA-256 of *entry*."""
        entry.sha256 = sha256
        if self._unhashed.get(entry.sample) is entry:
            del self._unhashed[entry.sample]
            self._entries[sha256] = entry

    def entry(self, sample: Sample, sha256: str, path: Path | None) -> CachedUpload:
        """Return the entry of a content, made if it is new; the one that was not used for longest may be removed."""
        entry = self._entries.pop(sha256, None) or CachedUpload(sample, sha256)
        self._entries[sha256] = entry
        if path is not None:
            entry.paths.add(path)
        idle = [old for old in self._entries.values() if old.is_ready and not old.waiting and old is not entry]
        for old in idle[: max(0, len(self._entries) - self._max_entries)]:
            self._remove(old)
        return entry

    @staticmethod
    def start(entry: CachedUpload) -> Upload:
        """Record that an upload of *entry* starts."""
        entry.upload = Upload()
        return entry.upload

    def finish(self, entry: CachedUpload, upload: Upload) -> None:
        """Record that *upload* has ended, and wake those who wait for it."""
        entry.upload = None
        upload.finished.set()
        self.tidy(entry)

    def tidy(self, entry: CachedUpload) -> None:
        """Remove *entry* if it has no asset, no upload under way, and no task that waits to take over.

        An entry without a SHA-256 is removed even while others wait: only its own upload could have found the digest.
        """
        if entry.asset is None and entry.upload is None and not (entry.sha256 and entry.waiting):
            self._remove(entry)

    def forget(self, what: Asset | AssetId | Path | None) -> None:
        """Remove an upload, or all. One that is under way goes on for those who wait for it."""
        for entry in [*self._entries.values(), *self._unhashed.values()]:
            if _is_meant(entry, what):
                self._remove(entry)

    def _remove(self, entry: CachedUpload) -> None:
        if entry.sha256 is not None and self._entries.get(entry.sha256) is entry:
            del self._entries[entry.sha256]
        if self._unhashed.get(entry.sample) is entry:
            del self._unhashed[entry.sample]

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._entries

    def __len__(self) -> int:
        return len(self._entries) + len(self._unhashed)


def _is_meant(entry: CachedUpload, what: Asset | AssetId | Path | None) -> bool:
    if what is None:
        return True
    if isinstance(what, Path):
        return what in entry.paths
    asset_id = what.value if isinstance(what, AssetId) else what.id
    return entry.asset is not None and entry.asset.id == asset_id
