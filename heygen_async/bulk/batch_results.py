"""The results of rows that were sent in batches: each batch is looked at for all of its rows together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from attrs import define, evolve, field

from heygen_async.bulk.effects import Tools
from heygen_async.bulk.program import ENDS_RUN, ItemGone, NeverMade
from heygen_async.bulk.record import Record
from heygen_async.bulk.run_aborted import RunAborted
from heygen_async.errors import NO_REASON, HeyGenError, LipsyncFailed, NotFound, UnexpectedResponse, has_own_code
from heygen_async.models import TERMINAL, BatchItem, Lipsync, LipsyncStatus
from heygen_async.polling.batch_wait import until_batch_ended
from heygen_async.polling.cadence import NO_FAILURES, Failures, is_young

_PAGE_SAVES: Final = 2
"""How many finished jobs are worth one page of the list, which has 100, newest first."""

_TAIL: Final = 5.0
"""Seconds to the next look for each row that still waits, once there is only one batch: the run waits for its end."""

Work: TypeAlias = Callable[[], Coroutine[None, None, None]]
"""What a task of the run is to do."""


@define(eq=False)
class _AwaitedBatch:
    """A batch that rows wait for."""

    created: float
    """When it was sent, on the event loop's clock."""
    waiting: dict[int, asyncio.Future[Lipsync]] = field(factory=dict)
    """The rows that wait, by their item."""
    status: LipsyncStatus = LipsyncStatus.PENDING
    """Its status, as far as these rows are concerned."""
    failures: dict[int, Failures] = field(factory=dict)
    """By item: failed requests for its job, looks at it without one, and looks at a batch that is over without it."""


@define(eq=False)
class BatchResults:
    """Waits for the items of batches.

    Args:
        tools: What to work with.
        start: Starts a task.
    """

    tools: Tools
    start: Callable[[Work], None]
    _batches: dict[str, _AwaitedBatch] = field(factory=dict)

    async def result(self, record: Record) -> Lipsync:
        """Wait for the job of a row that is in a batch.

        Raises:
            LipsyncFailed: It failed.
            NeverMade: The server did not create it.
            WaitTimeout: It did not end within `PollPolicy.longest`.
            HeyGenError: The batch cannot be looked at.
        """
        batch_id, item = record.batch_id, record.item
        assert batch_id is not None  # noqa: S101 the caller has checked it
        assert item is not None  # noqa: S101 it was saved with the batch
        batch = self._batches.get(batch_id)
        if batch is None:
            age = max(0.0, self.tools.clock.now() - (record.sent_at or 0.0))
            batch = self._batches[batch_id] = _AwaitedBatch(asyncio.get_running_loop().time() - age)
            self.start(partial(self._watch, batch_id, batch))
        batch.waiting[item] = asyncio.get_running_loop().create_future()
        return await batch.waiting[item]

    async def _watch(self, batch_id: str, batch: _AwaitedBatch) -> None:
        """Look at a batch until the items of all rows that wait have ended."""
        policy = evolve(self.tools.delays.batch_looks, longest=self.tools.heygen.polling.longest)
        look, interval = partial(self._look, batch_id, batch), partial(self._interval, batch)
        is_new = partial(self._is_new, batch)
        try:
            await until_batch_ended(batch_id, look, interval, policy, policy.longest, is_new=is_new)
        except ENDS_RUN as error:
            raise RunAborted(error) from error
        except HeyGenError as error:
            for future in batch.waiting.values():
                _settle(future, error.fresh())
        finally:
            del self._batches[batch_id]

    def _is_new(self, batch: _AwaitedBatch) -> bool:
        return is_young(asyncio.get_running_loop().time() - batch.created)

    def _interval(self, batch: _AwaitedBatch) -> float:
        """Return the seconds to the next look."""
        policy = self.tools.delays.batch_looks
        usual = policy.interval(asyncio.get_running_loop().time() - batch.created, 0)
        if batch.status is LipsyncStatus.PENDING:
            usual *= 2
        if len(self._batches) == 1:
            usual = min(usual, _TAIL * len(batch.waiting))
        return max([usual, *(failures.delay(policy) for failures in batch.failures.values())])

    async def _look(self, batch_id: str, batch: _AwaitedBatch) -> LipsyncStatus:
        """Wake the rows whose items have ended; return the status of the batch."""
        items, unreadable = await self._read(batch_id)
        of_rows = [item for item in items if item.item_index in batch.waiting]
        if unreadable is not None and not of_rows:
            raise unreadable
        ended = {item.item_index: item for item in of_rows if item.status in TERMINAL}  # a page may list one twice
        found = await self._fetch(batch, ended.values())
        for index, item in ended.items():
            result = self._result(batch, item, found.get(item.lipsync_id or ""))
            if result is not None:
                batch.failures.pop(index, None)
                _settle(batch.waiting.pop(index), result)
        if unreadable is None and all(item.status in TERMINAL for item in items):
            await self._count_missing(batch_id, batch, {item.item_index for item in items})
        is_pending = all(item.status == LipsyncStatus.PENDING for item in items)
        going_on = LipsyncStatus.PENDING if is_pending else LipsyncStatus.RUNNING
        batch.status = going_on if batch.waiting else LipsyncStatus.COMPLETED
        return batch.status

    async def _read(self, batch_id: str) -> tuple[list[BatchItem], UnexpectedResponse | None]:
        """Return the items on the pages that can be read, and why the next page cannot be."""
        items: list[BatchItem] = []
        try:
            async for page in self.tools.heygen.batch(batch_id):
                items += page.items
        except UnexpectedResponse as error:
            return items, error
        return items, None

    async def _fetch(self, batch: _AwaitedBatch, ended: Iterable[BatchItem]) -> Mapping[str, Lipsync | HeyGenError]:
        """Get the jobs of items: from the list where that takes fewer requests, the others one by one."""
        # Those that failed least are first: an outage, with its retries, ends the look.
        ordered = sorted(ended, key=lambda item: batch.failures.get(item.item_index, NO_FAILURES).count)
        ids = list(
            dict.fromkeys(one.lipsync_id for one in ordered if one.lipsync_id and one.status != LipsyncStatus.NOT_FOUND)
        )
        found: dict[str, Lipsync | HeyGenError] = {**await self._listed(ids)}
        for lipsync_id in ids:
            if lipsync_id not in found:
                found[lipsync_id] = job = await self._get(lipsync_id)
                if isinstance(job, HeyGenError) and job.is_transient:
                    break
        return found

    async def _get(self, lipsync_id: str) -> Lipsync | HeyGenError:
        try:
            return await self.tools.heygen.get(lipsync_id)
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            return error
        except ValueError as error:  # no id that can be requested
            return UnexpectedResponse([f"{error} @ $.data.items"], status=200, is_transient=False)

    def _result(
        self, batch: _AwaitedBatch, item: BatchItem, found: Lipsync | HeyGenError | None
    ) -> Lipsync | HeyGenError | None:
        """Return the result of an item that has ended; `None` if it is not known yet. Counts failed requests."""
        if item.status == LipsyncStatus.COMPLETED and not item.lipsync_id:
            found = UnexpectedResponse([f"item {item.item_index} is completed, and has no lipsync_id"], status=200)
        if isinstance(found, HeyGenError):
            failures = batch.failures.get(item.item_index, NO_FAILURES).after_error(found)
            if failures is not None:
                batch.failures[item.item_index] = failures
                return None
        elif found is not None:
            batch.failures.pop(item.item_index, None)
        return _end_of(item, found)

    async def _count_missing(self, batch_id: str, batch: _AwaitedBatch, listed: Container[int]) -> None:
        """If the batch is over, count this look for each row without an item; ten of them end its wait."""
        missing = [index for index in batch.waiting if index not in listed]
        if not missing or await self.tools.heygen.batch_status(batch_id) not in TERMINAL:
            return
        for index in missing:
            error = UnexpectedResponse([f"the batch {batch_id} has ended, and does not list item {index}"], status=200)
            failures = batch.failures.get(index, NO_FAILURES).after_error(error)
            if failures is not None:
                batch.failures[index] = failures
            else:
                del batch.failures[index]
                _settle(batch.waiting.pop(index), error)

    async def _listed(self, lipsync_ids: Sequence[str]) -> Mapping[str, Lipsync]:
        """Return those of the jobs that are completed on the first pages of the list, if it can be read."""
        found: dict[str, Lipsync] = {}
        wanted, pages = set(lipsync_ids), len(lipsync_ids) // _PAGE_SAVES
        listing = self.tools.heygen.list(page_size=100)
        while pages and len(wanted) - len(found) > 1:
            try:
                page = await anext(listing, None)
            except ENDS_RUN:
                raise
            except HeyGenError:
                break
            if page is None:
                break
            found |= {lipsync.id: lipsync for lipsync in page.items if lipsync.id in wanted and lipsync.is_terminal}
            pages -= 1
        return found


def _settle(future: asyncio.Future[Lipsync], result: Lipsync | Exception) -> None:
    if future.done():  # its row was cancelled
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _end_of(item: BatchItem, found: Lipsync | HeyGenError | None) -> Lipsync | HeyGenError | None:
    """Return how an item has ended; `None` if its job goes on, or was not looked at.

    The job itself says how it ended, and for which row it was created. Only where there is none the item counts: what
    cannot be read may be completed.
    """
    if item.status == LipsyncStatus.NOT_FOUND:
        if not item.lipsync_id:  # it may get its job yet
            message = f"item {item.item_index} of the batch is not found, and has no lipsync_id"
            return NotFound(message, status=404, code="not_found")
        return ItemGone(f"there is no lipsync {item.lipsync_id}", status=404, code="not_found")
    is_gone = isinstance(found, NotFound) and has_own_code(found)
    if item.status == LipsyncStatus.FAILED and (not item.lipsync_id or is_gone):
        return _failure(item)
    if not isinstance(found, Lipsync):
        return found
    if found.status == LipsyncStatus.FAILED:
        return LipsyncFailed(evolve(found, failure_message=found.failure_message or item.error))
    return found if found.is_terminal else None


def _failure(item: BatchItem) -> HeyGenError:
    message = item.error or NO_REASON
    if not item.lipsync_id:
        return NeverMade(message, status=400, outcome="rejected")
    return LipsyncFailed(Lipsync(id=item.lipsync_id, status=LipsyncStatus.FAILED, failure_message=message))
