"""What follows a step of a row in a cluster: its next stage, its money, and what there is to learn from it. Pure.

`program` decides what happens to a row; here is only where in the cluster that is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve

from heygen_async.bulk.budget import Budget, length_of
from heygen_async.bulk.cluster.rows import Stage, StepAnswer, StoredRow
from heygen_async.bulk.limits import Unanswered, asks_too_long
from heygen_async.bulk.program import RetryDelays, Step, answer_of, ended, is_gone, next_step
from heygen_async.bulk.record import UNDER_WAY, Record, State
from heygen_async.errors import HeyGenError, RateLimited
from heygen_async.models import Lipsync

_STAGES: Final[Mapping[Step, Stage]] = {
    Step.PREPARE: Stage.PREPARE,
    Step.INTEND: Stage.READY,
    Step.CREATE: Stage.READY,
    Step.SEARCH: Stage.SEARCH,
    Step.WAIT: Stage.FLIGHT,
    Step.DOWNLOAD: Stage.DOWNLOAD,
    Step.NOTHING: Stage.DONE,
    Step.GIVE_UP: Stage.FAILED,
    Step.STOP: Stage.FAILED,
}
STEPS: Final[Mapping[Stage, Step]] = {
    Stage.PREPARE: Step.PREPARE,
    Stage.CREATE: Step.CREATE,
    Stage.SEARCH: Step.SEARCH,
    Stage.DOWNLOAD: Step.DOWNLOAD,
}
"""The step that a worker takes in each stage of work."""


def placed(stored: StoredRow, now: float, *, max_attempts: int, delays: RetryDelays, has_file: bool) -> StoredRow:
    """Return a row in the stage that its record says; steps without an effect outside are taken at once."""
    hold = 0.0
    while True:
        record = stored.record
        step = next_step(stored.row, record, now, max_attempts=max_attempts, has_file=has_file)
        if step is Step.FINISH:
            stored = evolve(stored, record=record.done())
        elif step is Step.RENEW:
            stored = evolve(stored, record=record.renewed(), price=0.0, reserved=False)
            hold = delays.renewal
        else:
            return _with_money(evolve(stored, stage=_STAGES[step], due=now + max(hold, record.hold)))


def _with_money(stored: StoredRow) -> StoredRow:
    """Return a row with the money that is counted for it."""
    record = stored.record
    price = record.earlier_estimate + record.estimate
    if stored.stage is Stage.FAILED and record.state is State.PLANNED:
        return evolve(stored, price=price, reserved=False)
    if record.state in UNDER_WAY:
        # A row that was given up in these states may have a job that is paid for.
        return evolve(stored, price=price, reserved=stored.stage is not Stage.FAILED)
    if record.state is State.COMPLETED:  # until the download has seen its true length
        return evolve(stored, price=price, reserved=stored.stage is not Stage.FAILED and stored.reserved)
    if record.state is State.PLANNED:
        return evolve(stored, price=stored.price if stored.reserved else price)
    return evolve(stored, price=price, reserved=False)


def after_step(
    before: StoredRow, record: Record, now: float, *, max_attempts: int, delays: RetryDelays, is_skipped: bool = False
) -> StoredRow:
    """Return a row after a worker has taken its step, as it is to be saved.

    Args:
        before: The row as the worker found it.
        record: Its record after the step.
        now: The time.
        max_attempts: The most jobs for a row.
        delays: How long rows wait.
        is_skipped: Whether the step was not taken, because another one is due by now.
    """
    answer, retry_after = _answer(before.stage, record, is_skipped=is_skipped)
    if before.stage is Stage.CREATE and record.state is State.PLANNED:
        before = evolve(before, price=0.0, reserved=False)  # what was reserved for its create is free
    found = evolve(before, record=record, answer=answer, retry_after=retry_after)
    after = placed(found, now, max_attempts=max_attempts, delays=delays, has_file=record.state is State.DONE)
    return evolve(after, record=evolve(after.record, failure=None, hold=0.0))


def _answer(stage: Stage, record: Record, *, is_skipped: bool) -> tuple[StepAnswer | None, float | None]:
    error = record.failure
    if stage is Stage.CREATE:
        if is_skipped:
            return StepAnswer.DROPPED, None
        if not isinstance(error, RateLimited) or asks_too_long(error):  # after that all creates are halted
            return StepAnswer(answer_of(record)), None
        return StepAnswer(answer_of(record)), error.retry_after
    if stage is Stage.DOWNLOAD or is_skipped:
        return None, None  # creates do not depend on it
    is_unanswered = isinstance(error, HeyGenError) and error.is_transient
    return StepAnswer.UNANSWERED if is_unanswered else StepAnswer.RECOVERED, None


def cost_of(stored: StoredRow, job: Lipsync, rates: Mapping[str, float]) -> float:
    """Return what the job of a row cost, in dollars: its estimate, unless the API reports its length."""
    seconds = length_of(job)
    return stored.record.estimate if seconds is None else Budget(rates).price(stored.row.row.mode, seconds)


def after_end(
    stored: StoredRow, job: Lipsync, now: float, *, cost: float, max_attempts: int, delays: RetryDelays
) -> StoredRow:
    """Return a row after the end of its job; *cost* is by its true length, or the estimate until that is known."""
    record = ended(stored.record, job, cost=cost)
    return placed(evolve(stored, record=record), now, max_attempts=max_attempts, delays=delays, has_file=False)


def unstopped(record: Record) -> Record:
    """Return the record of a row that is worked on again."""
    return evolve(record, is_stopped=False, tries=0)


def given_up(stored: StoredRow, error: Exception, now: float, *, max_attempts: int, delays: RetryDelays) -> StoredRow:
    """Return a row for which nothing more is done, unless another job was requested in place of one that is gone."""
    record = stored.record
    if is_gone(record, error) and record.forgiven >= record.jobs:
        found = evolve(stored, record=record.another_attempt(), price=0.0, reserved=False)
    else:
        found = evolve(stored, record=record.stopped(error), answer=None)
    return placed(found, now, max_attempts=max_attempts, delays=delays, has_file=False)


def retried(stored: StoredRow, *, is_account_known: bool) -> StoredRow:
    """Return a row that had failed, with the record for another attempt that the caller requests."""
    record = evolve(unstopped(stored.record), error=None)
    if record.state is State.SUBMITTED and is_account_known:
        record = evolve(record, forgiven=record.jobs)  # this job too, if it is gone
    elif record.state is not State.DONE:
        record = record.forgiving()
    return evolve(stored, record=record, unanswered=(0, -1))


def after_unanswered(count: tuple[int, int], answers: int) -> tuple[tuple[int, int], bool]:
    """Return the unanswered requests of a row after one more, and whether the row is given up."""
    found = Unanswered(*count).after(answers)
    return (found.count, found.answers), found.is_too_many
