"""What the row program needs of its surroundings: the store of its records, the API and the time, mostly as protocols.

A run on one machine uses the SQLite journal and a session; tests and other ways to run rows bring their own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from attrs import Factory, field, frozen

from heygen_async._text import line_without_queries
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.record import Record
from heygen_async.bulk.reviews import Review
from heygen_async.errors import HeyGenError
from heygen_async.models import (
    Account,
    AssetId,
    BatchItem,
    Lipsync,
    LipsyncOptions,
    LipsyncRequest,
    LipsyncStatus,
    Source,
)
from heygen_async.policies import PollPolicy

T_co = TypeVar("T_co", covariant=True)


class JournalError(HeyGenError):
    """Raised when the records of a run cannot be read or written, or do not belong to it."""


class LostRow(JournalError):
    """Raised by a save when somebody else has saved the record since it was loaded."""


@frozen
class Draft:
    """The draft that a final version is rendered from."""

    key: str
    job: str
    """The job of it that was approved."""


@frozen(kw_only=True)
class Entry:
    """A row that is to be admitted to a run."""

    key: str
    inputs: str
    """Digest of everything that is sent for it; the one of its record if its files cannot be read any more."""
    number: int
    place: str
    inputs_0_1: str | None = None
    """The digest that version 0.1 recorded for the same."""
    target: str | None = None
    redoes: str | None = None
    """The job in place of which another one is created, if its record still has that job."""
    draft: Draft | None = None
    """Its draft, if it is a final version."""
    claims: tuple[str, ...] = ()
    """Other things that no other row may have, such as its file and its callback id."""


@frozen
class Problem:
    """Why a row cannot be run."""

    place: str = field(converter=line_without_queries)
    message: str = field(converter=line_without_queries)
    """On one line, with no query of a link in it."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


Admission: TypeAlias = Record | Problem


class Facts(Protocol):
    """What is known of the store as a whole, by name.

    `anchor` (the newest job before the first create of a run, or empty), `unclean` (there until all jobs of an
    interrupted run are certainly listed: when that run began, and after a space when the list was first read for it),
    `last_day` (`unread` if a new store could not read all jobs of the day before it). A journal also has `account` (its
    user name), `legacy` (converted from version 0.1), `longest` (the longest output in seconds), `manifest` (its file
    name), `origin`, `runs` and `open`; a cluster has `timeline`.
    """

    def fact(self, name: str) -> Awaitable[str | None]:
        """Return a fact, such as the account that it belongs to."""
        ...

    def keep_fact(self, name: str, value: str) -> Awaitable[None]:
        """Save a fact."""
        ...


class Store(Facts, Protocol):
    """Keeps the records of a run."""

    def save(self, *records: Record) -> Awaitable[None]:
        """Save records, all of them or none.

        A record carries the version that is to be written: the one that was loaded, plus 1.

        Raises:
            LostRow: If somebody else has written that version.
        """
        ...

    def in_doubt(self) -> Awaitable[Sequence[Record]]:
        """Return the rows for which it is not known whether there is a job, or which job of their batch is theirs."""
        ...

    def rows_of_batch(self, batch: str) -> Awaitable[Sequence[Record]]:
        """Return the rows that were recorded for the batch with this key."""
        ...

    def asset(self, digest: str) -> Awaitable[str | None]:
        """Return the id under which the content with *digest* was uploaded."""
        ...

    def keep_asset(self, digest: str, asset_id: str) -> Awaitable[None]:
        """Save the asset of an uploaded content."""
        ...

    def forget_assets(self, asset_ids: Sequence[str]) -> Awaitable[None]:
        """Forget assets that the server no longer has."""
        ...

    def keep_listed(self, jobs: Sequence[tuple[str, str]]) -> Awaitable[None]:
        """Keep jobs that were seen in the account's list: their ids and callback ids."""
        ...

    def has_listed(self) -> Awaitable[bool]:
        """Return whether any were kept."""
        ...

    def listed(self, callback_ids: Sequence[str]) -> Awaitable[Sequence[tuple[str, str]]]:
        """Return those with one of the callback ids that belong to no row: their ids and callback ids."""
        ...

    def reconciled(self, anchor: str | None) -> Awaitable[None]:
        """Record that all jobs up to *anchor*, the newest one, are listed: no write of an earlier run is missed."""
        ...

    def known_jobs(self, lipsync_ids: Sequence[str]) -> Awaitable[set[str]]:
        """Return those of the jobs that belong to a row."""
        ...


class RowStore(Protocol):
    """What the checks of rows need of a store."""

    def records(self, keys: Sequence[str]) -> Awaitable[Mapping[str, Record]]:
        """Return the records of the rows with these keys, as far as there are any."""
        ...

    def admit(self, entries: Sequence[Entry]) -> Awaitable[Sequence[Admission]]:
        """Admit rows to the run: return the record of each, or why it cannot be admitted."""
        ...

    def reviews(self, keys: Sequence[str]) -> Awaitable[Sequence[Review]]:
        """Return the decisions on the rows with these keys."""
        ...

    def file_info(self, paths: Sequence[str]) -> Awaitable[Mapping[str, FileInfo]]:
        """Return what was last read from the files at *paths*."""
        ...

    def keep_file_info(self, facts: Mapping[str, FileInfo]) -> Awaitable[None]:
        """Save what was read from files, by path."""
        ...


class RowPages(Protocol):
    """What a report needs of a store."""

    def rows(self, after: int, limit: int) -> Awaitable[Sequence[Record]]:
        """Return rows of the run in order, the first *limit* after row number *after*."""
        ...


class ListPage(Protocol[T_co]):
    """One page of a list of the API."""

    @property
    def items(self) -> Sequence[T_co]:
        """What it lists, in order."""
        ...


@frozen
class UnixClock:
    """The time, in Unix seconds."""

    now: Callable[[], float] = time.time
    latest: Callable[[], float] = field(default=Factory(lambda self: self.now, takes_self=True))
    """Returns the latest that the time can be, as `now` may be wrong; infinity if that is not known."""


DownloadProgress: TypeAlias = Callable[[int, int | None], Awaitable[None]]


class HeyGen(Protocol):
    """What a run needs of the API. Every call raises `HeyGenError`."""

    @property
    def polling(self) -> PollPolicy:
        """How often jobs are looked at, by the caller's choice."""
        ...

    async def create(
        self, key: str, *, key_age: Callable[[], float], video: Source, audio: Source, options: LipsyncOptions
    ) -> str:
        """Create a job under an idempotency key; a 429 is raised at once. Return the job's id.

        The key was first sent *key_age* seconds ago, if it was. Once the API may have forgotten it nothing is sent,
        however long this call waits before.
        """
        ...

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest], *, key_age: Callable[[], float]) -> str:
        """Create up to 100 jobs under one idempotency key, and return the id of the batch; *key_age* as in `create`."""
        ...

    def batch(self, batch_id: str) -> AsyncIterator[ListPage[BatchItem]]:
        """Iterate over the pages of the items of a batch."""
        ...

    async def batch_status(self, batch_id: str) -> LipsyncStatus | str:
        """Return the status of a batch."""
        ...

    def list(self, *, page_size: int) -> AsyncIterator[ListPage[Lipsync]]:
        """Iterate over the pages of the account's jobs, newest first."""
        ...

    async def get(self, lipsync_id: str) -> Lipsync:
        """Return a job."""
        ...

    async def wait(self, lipsync_id: str, *, since: float | None, policy: PollPolicy | None) -> Lipsync:
        """Return a job once it is completed; *since* is when it was sent, a Unix time, if that is known.

        Raises:
            LipsyncFailed: If it failed.
        """
        ...

    async def upload(self, source: Source, sha256: str) -> AssetId:
        """Upload a local file.

        Raises:
            OSError: If its content does not have this SHA-256, in hex; then nothing can be made of it.
        """
        ...

    def forget_upload(self, asset_id: str) -> None:
        """Forget an upload that the server no longer has."""
        ...

    def claim(self, path: Path) -> AbstractAsyncContextManager[None]:
        """Keep other calls of this program away from the file *path*, until the row that writes it has ended.

        Raises:
            DownloadError: If another one writes it, or is about to.
        """
        ...

    async def download(
        self, lipsync: Lipsync | str, path: Path, *, overwrite: bool, progress: DownloadProgress
    ) -> Path:
        """Write the video of a completed job; *progress* is awaited before the file gets its name."""
        ...

    async def download_captions(self, lipsync: Lipsync | str, path: Path, *, overwrite: bool) -> Path:
        """Write the captions of a completed job beside the video at *path*."""
        ...

    async def me(self) -> Account:
        """Return the account."""
        ...
