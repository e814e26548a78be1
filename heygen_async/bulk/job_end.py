"""The end of a row's job: when it has ended, whose it is, what it cost, and whether the row may get another one."""

from __future__ import annotations

import asyncio

from heygen_async.bulk.attempt_keys import is_like_attempt_key
from heygen_async.bulk.budget import length_of
from heygen_async.bulk.limits import look_policy
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import ENDS_RUN, ItemGone, failed_step, is_gone
from heygen_async.bulk.record import Record
from heygen_async.bulk.run_context import RunContext
from heygen_async.bulk.searching import InDoubt
from heygen_async.errors import APIError, HeyGenError, LipsyncFailed, NotFound, UnexpectedResponse, has_own_code
from heygen_async.models import Lipsync


async def ended_job(run: RunContext, record: Record) -> Lipsync:
    """Return the job of a row once it has ended, failed ones too.

    Raises:
        HeyGenError: If it cannot be waited for. `NotFound`: it is missing for longer than a new one may be.
    """
    heygen = run.tools.heygen
    for pause in (*run.tools.delays.missing, None):
        try:
            if record.lipsync_id is None:
                return await run.batches.results.result(record)
            policy = look_policy(heygen.polling, is_scarce=bool(run.queue.waiting))
            return await heygen.wait(record.lipsync_id, since=record.sent_at, policy=policy)
        except LipsyncFailed as failed:
            return failed.lipsync
        except NotFound:
            if pause is None:
                raise
            await asyncio.sleep(pause)
    raise AssertionError  # the last pause is None


async def checked_item(run: RunContext, row: PreparedRow, record: Record, job: Lipsync) -> Record | None:
    """Search for a row's own job if its item of a batch names a *job* with another callback id.

    Returns:
        The record with its own job, or with the failure; `None` if *job* is the row's. If no other is found, only a
        callback id of our form proves that *job* is another row's: a server may change other callback ids.
    """
    if record.lipsync_id is not None or not job.callback_id or job.callback_id == record.callback_id:
        return None
    try:
        found = await _searched(run, row, record)
    except ENDS_RUN:
        raise
    except HeyGenError as error:
        is_refused = isinstance(error, APIError) and not error.is_transient
        if is_refused and not is_like_attempt_key(job.callback_id):
            return None  # without the list nothing says that it is another row's
        return failed_step(record, error)
    if found is not None:
        return found
    if not is_like_attempt_key(job.callback_id):
        return None
    reason = f"item {record.item} of the batch {record.batch_id} leads to the job {job.id} of another row"
    return record.stopped(UnexpectedResponse([reason], status=200))


async def without_job(
    run: RunContext, row: PreparedRow, record: Record, error: HeyGenError, *, is_of_earlier_run: bool
) -> Record:
    """Return the record of a row whose job cannot be waited for because of *error*.

    The row gets another job if all of this holds: the API says that its job is gone, an earlier run created that job,
    the caller wants another one (`retry_failed`), and it is known which account the store belongs to. If only its batch
    does not lead to its job, the list may have that.
    """
    if _is_only_of_batch(record, error):
        return await job_in_list(run, row, record, error)
    is_wanted = run.retry_failed and is_of_earlier_run and is_gone(record, error)
    if not is_wanted or await run.tools.store.fact("account") is None:
        return record.stopped(error)
    if record.lipsync_id is not None:
        return record.another_attempt()
    try:  # an item of a batch may name the job of another row
        return await _searched(run, row, record) or record.another_attempt()
    except ENDS_RUN:
        raise
    except HeyGenError as failure:
        return failed_step(record, failure)


def _is_only_of_batch(record: Record, error: HeyGenError) -> bool:
    """Return whether the batch of a row is gone, or does not say which job is the row's: the job may be there."""
    if record.lipsync_id is not None or isinstance(error, ItemGone):
        return False
    return isinstance(error, UnexpectedResponse) or (isinstance(error, NotFound) and has_own_code(error))


async def job_in_list(run: RunContext, row: PreparedRow, record: Record, reason: Exception) -> Record:
    """Return the record of a row with its job, if the account's list has that; otherwise it stops with *reason*.

    Nothing is sent for it in this run: that the list does not have the job is not proof enough.
    """
    try:
        return await _searched(run, row, record) or record.stopped(reason)
    except ENDS_RUN:
        raise
    except HeyGenError as failure:
        if failure.is_transient:
            return record.failing(failure)
        return record.stopped(failure if isinstance(failure, InDoubt) else reason)


async def _searched(run: RunContext, row: PreparedRow, record: Record) -> Record | None:
    found = await run.tools.searcher.find(record, row.row)
    run.queue.recover()
    return found


async def cost_of(run: RunContext, row: PreparedRow, record: Record, job: Lipsync) -> float:
    """Return what *job* cost, in US dollars: its estimate, unless the API reports its length."""
    budget, seconds = run.spending.budget, length_of(job)
    if seconds is None:
        return record.estimate
    if row.seconds is None:  # the length of a part says nothing of rows whose length is not known
        before = budget.longest
        budget.learn_length(seconds)
        if budget.longest > before:
            await run.tools.store.keep_fact("longest", repr(budget.longest))
    return budget.price(row.row.mode, seconds)
