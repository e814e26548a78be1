"""Jobs that the journal does not know: those of rows in doubt, and those that an interrupted run could not record.

Rule 1: a walk goes through the list from the newest job to the anchor, which is the newest job that there was before
the first create of the run, or to the end of the list. No clock is compared.
Rule 2: a job is adopted only if it is certainly the row's; otherwise the row fails as in doubt.
Rule 3: what a walk finds is saved before the anchor moves.
Rule 4: a run whose store knows the newest job of the account walks nowhere. That is decided before its first create, a
repeated one included: what that one creates would be known.
Rule 5: a run whose store is new looks at all jobs of the last day: another store may have sent its rows in batches, or
in later attempts, under other keys. A run without batches begins even if one of these jobs cannot be read: the first
attempts of its rows have the same keys in all stores. A later run in batches reads them then.
Rule 6: the list may not show the newest jobs yet. After an unclean end it is read once more, half an hour after it was
first read for that end or later: in the same run, or in the next one. Nothing waits for that: a row whose job is not
shown yet is sent under the same key, unless that was the key of a batch, and now it is sent in another one or alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from attrs import define, field, frozen

from heygen_async._ids import KEY_SECONDS, is_key_fresh
from heygen_async.bulk.attempt_keys import attempt_key, first_version_key, is_like_attempt_key
from heygen_async.bulk.record import Record
from heygen_async.bulk.store import HeyGen, JournalError, Store, UnixClock
from heygen_async.errors import APIError, HeyGenError, NotFound, UnexpectedResponse, has_own_code
from heygen_async.models import DubRow, Lipsync, LipsyncStatus

_MORE_ATTEMPTS: Final = 100
"""How many attempts more than usual runs may have made that the store has no record of: each run that retries failed
rows makes one. Their keys take 0.2 ms a row, and are computed only if there are jobs that may be those of rows."""

_ARRIVED_AFTER: Final = 1800.0
"""Seconds after which a request that was sent has certainly arrived, or never will."""

_REMEMBERED: Final = 24 * 3600.0
"""Seconds during which the same row is not paid for twice, whatever store it is in."""

_FIRST_JOB: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""HeyGen is younger: an earlier time in the list is none."""

_CLOCK_SKEW: Final = 300.0
"""By how many seconds the server's clock and ours may differ where a job is to be certain."""


class InDoubt(HeyGenError):
    """Raised when a row may have a job, and it is not certain which one.

    Attributes:
        candidates: The ids of the jobs that may be the row's.
    """

    _hint = "Look at these jobs: delete those that are not wanted, or give the row another key and callback_id."

    def __init__(self, key: str, candidates: Sequence[str]) -> None:
        self.candidates = tuple(candidates)
        shown = ", ".join(self.candidates)
        super().__init__(f"the row {key} is in doubt: it may already have a job ({shown}); nothing more is sent")


@frozen
class _Search:
    """A walk through the list for rows in doubt."""

    number: int
    began: float
    """When it began; minus infinity if the time was not known."""

    def is_after_keys_of(self, record: Record) -> bool:
        """Return whether it began when no create of *record* could be sent again, or was on its way any more."""
        return (record.sent_at or 0.0) + KEY_SECONDS + _ARRIVED_AFTER < self.began


@define(eq=False)
class Searcher:
    """Finds jobs in the account's list.

    Args:
        heygen: The API.
        store: What knows the rows.
        clock: The time, by which keys are judged.
    """

    heygen: HeyGen
    store: Store
    clock: UnixClock
    _searches: int = 0
    """How many searches have read the list."""
    _last: _Search = field(factory=lambda: _Search(0, -math.inf))
    """The last one of them that has read it to the end."""
    _lock: asyncio.Lock = field(factory=asyncio.Lock)
    _failure: HeyGenError | None = None
    """Why the list could not be read the last time that this failed."""
    _failures: int = 0
    """How often it could not be read."""
    _is_prepared: bool = False
    _again_at: float = math.inf
    """When the list is to be read once more after an unclean end."""
    _is_legacy: bool = False
    """Whether the store was converted from version 0.1, which sent other keys."""

    @property
    def is_prepared(self) -> bool:
        """Whether creates may be sent; after an unclean end not for ever."""
        return self._is_prepared and self.clock.now() < self._again_at

    async def prepare(self, *, in_batches: bool = False, is_needed: bool = True) -> None:
        """Prepare for creates, unless that was done: find what the store does not know, and keep the newest job.

        Args:
            in_batches: Whether rows are sent in batches.
            is_needed: Whether the caller needs the list. A caller that does not shares every failure of a call that it
                waited for, and one that does only those that are transient.

        Raises:
            HeyGenError: If the list cannot be read now; or at all, and the server may have forgotten the keys of the
                interrupted run.
        """
        async with self._turn(shares_all=not is_needed):
            if self.is_prepared:
                return
            self._is_legacy = await self.store.fact("legacy") is not None
            unclean = await self.store.fact("unclean")
            if unclean is not None:
                await self._reconcile(unclean)
            if unclean is None or (in_batches and await self._has_unread_jobs()):
                await self._keep_newest(in_batches=in_batches)
            self._is_prepared = True

    @asynccontextmanager
    async def _turn(self, *, shares_all: bool = False) -> AsyncIterator[None]:
        """Let one call at a time read the list; those that waited share its failure, if they may try again later."""
        failures = self._failures
        async with self._lock:
            failure = self._failure
            if failure is not None and failures != self._failures and (failure.is_transient or shares_all):
                raise failure.fresh() from failure
            try:
                yield
            except HeyGenError as error:
                self._failure, self._failures = error, self._failures + 1
                raise

    async def _reconcile(self, unclean: str) -> None:
        since, _, first = unclean.partition(" ")
        began = self.clock.now()
        try:
            newest = await self._walk()
        except HeyGenError as error:
            if not self._can_do_without_list(error, float(since)):
                raise
            self._again_at = began + _ARRIVED_AFTER
            return
        first_began = min(float(first or began), began)  # the clock may have been set back
        self._again_at = first_began + _ARRIVED_AFTER
        if began < self._again_at:
            await self.store.keep_fact("unclean", f"{since} {first_began!r}")
            return
        self._again_at = math.inf
        await self.store.reconciled(None if await self.store.in_doubt() else newest)

    def _can_do_without_list(self, error: HeyGenError, since: float) -> bool:
        """Return whether the server still knows every key that may have been used.

        Without need nothing is created on that alone: only if the list stays closed, or was read before in this run.
        """
        if not is_key_fresh(since, self.clock.latest()) or isinstance(error, JournalError):
            return False
        return self._is_prepared or (isinstance(error, APIError) and _is_lasting(error))

    async def _keep_newest(self, *, in_batches: bool) -> None:
        is_new = await self.store.fact("anchor") is None
        looks_back = is_new or (in_batches and await self._has_unread_jobs())
        try:
            newest = await (self._look_at_last_day(in_batches=in_batches) if looks_back else self._newest())
            if newest is not None and await self._may_be_older_copy(newest):
                newest = await self._walk(to_known=True)
        except APIError as error:
            # A new store has no job to lose, so an API without the list, or a gateway's page, does not hold it up.
            if error.is_transient or not (is_new or _is_lasting(error)):
                raise
            newest = await self.store.fact("anchor")  # a walk goes back to an older one, or to the end
        if not await self.store.in_doubt():  # another executor may have created the newest job, and not know it yet
            # "" is before all jobs. A store without an anchor has created nothing, so there is nothing to look for.
            await self.store.keep_fact("anchor", newest or "")

    async def _look_at_last_day(self, *, in_batches: bool) -> str | None:
        try:
            newest = await self._walk_last_day()
        except UnexpectedResponse:  # one job that cannot be read makes its page unreadable
            if in_batches:
                raise
            await self.store.keep_fact("last_day", "unread")
            return await self._newest()
        if await self._has_unread_jobs():
            await self.store.keep_fact("last_day", "read")
        return newest

    async def _has_unread_jobs(self) -> bool:
        """Return whether a run without batches could not read all jobs of the day before the store was new."""
        return await self.store.fact("last_day") == "unread"

    async def _newest(self) -> str | None:
        async for page in self.heygen.list(page_size=1):
            if page.items:
                return page.items[0].id
        return None

    async def _may_be_older_copy(self, newest: str) -> bool:
        """Return whether the store may be from before the last run: it does not know the newest job of the account."""
        anchor = await self.store.fact("anchor")
        return anchor not in {None, newest} and not await self.store.known_jobs([newest])

    async def _walk(self, *, to_known: bool = False) -> str | None:
        """Save the jobs from the newest to the anchor, or to one that the store knows, and return the newest."""
        anchor, newest = await self.store.fact("anchor"), None
        async for page in self.heygen.list(page_size=100):
            ids = [lipsync.id for lipsync in page.items]
            newest = newest or next(iter(ids), None)
            recent = page.items[: ids.index(anchor)] if anchor in ids else page.items
            await self.store.keep_listed([(one.id, one.callback_id) for one in recent if one.callback_id])
            if anchor in ids or (to_known and await self.store.known_jobs(ids)):
                break
        return newest

    async def _walk_last_day(self) -> str | None:
        """Save the jobs of the last day that may be those of rows, and return the newest job of all."""
        newest, oldest = None, datetime.fromtimestamp(self.clock.now() - _REMEMBERED, UTC)
        async for page in self.heygen.list(page_size=100):
            newest = newest or next((lipsync.id for lipsync in page.items), None)
            recent = [one for one in page.items if one.created_at is None or not _FIRST_JOB <= one.created_at < oldest]
            known = [(one.id, one.callback_id) for one in recent if one.callback_id]
            await self.store.keep_listed([one for one in known if is_like_attempt_key(one[1])])
            if page.items and not recent:
                break
        return newest

    async def find(self, record: Record, row: DubRow) -> Record | None:
        """Return the record of a row in doubt with its job; `None` if there is none.

        Raises:
            InDoubt: If it is not certain which job is the row's.
            HeyGenError: If the list cannot be read: then nothing is known.
        """
        callback_id = record.callback_id
        assert callback_id is not None  # noqa: S101 it is recorded before anything is sent
        await self._cover(record)
        if record.is_ours_to_find:
            return await self.seen_job(record)
        listed = [lipsync_id for lipsync_id, _ in await self.store.listed([callback_id])]
        job = await self._certain(record, row, listed)
        return None if job is None else record.accepted(job)

    async def seen_job(self, record: Record) -> Record | None:
        """Return the record of a row in doubt with its job, if one has been seen in the list.

        In a store from before the last run the create may have been refused since, and sent under later keys.

        Raises:
            InDoubt: If it is not certain which job is the row's.
            HeyGenError: If a job that may be the row's cannot be looked at.
        """
        if not record.is_ours_to_find or not await self.store.has_listed():
            return None
        found = await self._last_seen(record, _MORE_ATTEMPTS)
        if found is None:
            return None
        attempt, job = found
        if attempt == record.attempt:
            return record.accepted(job)
        return record.adopted(attempt, job, self.clock.now(), estimate=record.estimate)

    async def _cover(self, record: Record) -> None:
        """Walk, unless the last walk began when no create of the row was on its way any more."""
        before = self._searches
        async with self._turn():
            if self._last.number > before or self._last.is_after_keys_of(record):
                return
            self._searches += 1
            search = _Search(self._searches, -math.inf if math.isinf(self.clock.latest()) else self.clock.now())
            await self._walk()
            self._last = search

    async def lost_job(self, record: Record, row: DubRow, max_attempts: int) -> tuple[int, str] | None:
        """Return the attempt and the job of a row that is about to be sent, if an interrupted run created it.

        Raises:
            InDoubt: If it is not certain which job is the row's.
            HeyGenError: If a job that may be the row's cannot be looked at.
        """
        if not await self.store.has_listed():  # so it is after a clean end
            return None
        count = max_attempts + _MORE_ATTEMPTS
        if row.callback_id is not None:
            await self._check_no_job(record.key, [row.callback_id])
            return None
        if self._is_legacy:
            attempts = range(record.attempt, record.attempt + count)
            await self._check_no_job(record.key, [first_version_key(record.key, attempt) for attempt in attempts])
        return await self._last_seen(record, count)

    async def _last_seen(self, record: Record, count: int) -> tuple[int, str] | None:
        """Return the last of the next *count* attempts of a row that has a job in the list, and that job."""
        attempts = range(record.attempt, record.attempt + count)
        keys = {attempt_key(record.key, record.inputs, attempt): attempt for attempt in attempts}
        listed = await self.store.listed(list(keys))
        if not listed:
            return None
        last = max(keys[callback_id] for _, callback_id in listed)
        job = await self._only_one(record.key, [one for one, callback_id in listed if keys[callback_id] == last])
        return None if job is None else (last, job)

    async def _check_no_job(self, key: str, callback_ids: Sequence[str]) -> None:
        """Check that no job in the list has one of these callback ids."""
        listed = [lipsync_id for lipsync_id, _ in await self.store.listed(callback_ids)]
        candidates = await self._existing(listed)
        if candidates:
            raise InDoubt(key, [lipsync.id for lipsync in candidates])

    async def _only_one(self, key: str, lipsync_ids: Sequence[str]) -> str | None:
        """Return the job among those that have a callback id of ours."""
        if len(lipsync_ids) <= 1:
            return next(iter(lipsync_ids), None)
        jobs = await self._existing(lipsync_ids)
        alive = jobs if len(jobs) <= 1 else [job for job in jobs if job.status != LipsyncStatus.FAILED]
        if len(alive) == 1 or not jobs:
            return next((job.id for job in alive), None)
        raise InDoubt(key, [job.id for job in jobs])

    async def _certain(self, record: Record, row: DubRow, lipsync_ids: Sequence[str]) -> str | None:
        """Return the job among those that have the user's own callback id, which other rows may have too."""
        jobs = await self._existing(lipsync_ids)
        if not jobs:
            return None
        if len(jobs) == 1 and _is_the_rows(jobs[0], record, row):
            return jobs[0].id
        raise InDoubt(record.key, [job.id for job in jobs])

    async def _existing(self, lipsync_ids: Sequence[str]) -> list[Lipsync]:
        found = []
        for lipsync_id in lipsync_ids:
            try:
                found.append(await self.heygen.get(lipsync_id))
            except NotFound as error:
                if not has_own_code(error):
                    raise
                continue  # deleted since it was listed
        return found


def _is_lasting(error: APIError) -> bool:
    """Return whether the API itself does not let this account read the list: a gateway may do so the next time."""
    return not error.is_transient and has_own_code(error)


def _is_the_rows(job: Lipsync, record: Record, row: DubRow) -> bool:
    if record.sent_at is None or job.created_at is None:
        return False
    age = job.created_at.timestamp() - record.sent_at  # a create is sent again for as long as its key is fresh
    is_of_that_time = -_CLOCK_SKEW <= age <= KEY_SECONDS + _ARRIVED_AFTER + _CLOCK_SKEW
    return is_of_that_time and row.title is not None and job.title == row.title
