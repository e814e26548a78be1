"""What a run reports while it runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

from attrs import define, field, frozen

from heygen_async.bulk.run_aborted import RunAborted
from heygen_async.models import RowState, Wallet

Stage: TypeAlias = Literal["uploading", "waiting", "submitting", "running", "downloading", RowState]
"""The stage of a row. `waiting`: for a free concurrency slot. A row does not leave those of `RowState`."""

ENDS: frozenset[Stage] = frozenset(get_args(RowState))


@frozen(kw_only=True)
class DubEvent:
    """A row has reached another stage, or there is a message about it."""

    stage: Stage
    key: str
    place: str
    """Where the row is listed, such as `line 12`."""
    lipsync_id: str | None = None
    """Its job, once there is one."""
    message: str | None = None
    """What went wrong, or what there is to say."""


@frozen(kw_only=True)
class DubSnapshot:
    """A run at one moment."""

    stages: Mapping[str, int]
    """How many rows are in each stage; rows that have not started are in none."""
    total: int | None
    """How many rows there are; `None` if they come from an iterator."""
    in_flight: int
    """Jobs that run at HeyGen, as far as is known."""
    limit: int
    """How many the account seems to take at once."""
    refusals: int
    """Creates that were answered 429."""
    estimate: float
    """The estimated cost of all jobs on this journal, in dollars: `spent` and `reserved`."""
    spent: float
    """The part of it for jobs that have ended."""
    reserved: float
    """The part of it for jobs that run or are about to be created."""
    budget: float | None
    """The most that the estimate may be."""
    balance_before: Wallet | None
    """The wallet before the first request of the run; `None` if it is not known."""
    balance_after: Wallet | None
    """The wallet at the end of the run."""
    trouble: str | None
    """The last error, if the API does not answer at the moment; the run keeps trying."""
    halted: str | None
    """Why rows are left out, if some are: the budget or the credit."""

    @property
    def ended(self) -> int:
        """How many rows have ended in this run."""
        return sum(self.stages.get(stage, 0) for stage in ENDS)

    @property
    def not_started(self) -> int | None:
        """How many rows have not started; `None` if the total is not known."""
        return None if self.total is None else self.total - sum(self.stages.values())


@define
class StageCounter:
    """Counts rows by stage, and passes events on."""

    on_event: Callable[[DubEvent], None] | None
    stages: Counter[str] = field(factory=Counter)

    def move(self, event: DubEvent, before: Stage | None) -> None:
        """Count a row that leaves the stage *before*, and pass the event on."""
        if before != event.stage:
            if before is not None:
                self.stages[before] -= 1
            self.stages[event.stage] += 1
        if self.on_event is not None:
            try:
                self.on_event(event)
            except asyncio.CancelledError as error:  # nobody has cancelled the row, which would end without an outcome
                failure = RuntimeError("on_event raised CancelledError")
                failure.__cause__ = error
                raise RunAborted(failure) from error
            except Exception as error:  # the caller's error, not the row's
                raise RunAborted(error) from error


@define(eq=False)
class RowStage:
    """The stage of one row, as it was last reported."""

    _counter: StageCounter
    _key: str
    _place: str
    current: Stage | None = None

    def report(self, stage: Stage, message: str | None = None, *, lipsync_id: str | None) -> None:
        """Report that the row is in *stage*, unless that is known and there is no message.

        Raises:
            RunAborted: If the caller's `on_event` raised something.
        """
        before, self.current = self.current, stage
        if before == stage and message is None:
            return
        event = DubEvent(stage=stage, key=self._key, place=self._place, lipsync_id=lipsync_id, message=message)
        self._counter.move(event, before)
