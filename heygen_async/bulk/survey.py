"""What a run would do and cost, from its rows and its journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from heygen_async.bulk.budget import Budget
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import Step, next_step
from heygen_async.bulk.record import Record

_TO_SUBMIT: Final = frozenset({Step.PREPARE, Step.INTEND, Step.RENEW})


@frozen(kw_only=True)
class Survey:
    """What a run would do; all rows are valid."""

    rows: int
    to_submit: int
    """Rows for which a job would be created."""
    under_way: int
    """Rows that have a job, or may have one, and would be continued."""
    done: int
    failed: int
    """Rows that failed before, and would not be tried again."""
    unknown: int
    """Rows to submit whose length is not known."""
    assumed_seconds: float
    """The length that is assumed for each of them, unless one of its sources is known to be longer."""
    estimate: float
    """The estimated cost of the rows to submit, in dollars."""


@define
class SurveyBuilder:
    """Adds up a survey, slice by slice."""

    max_attempts: int
    budget: Budget
    now: Callable[[], float]
    _count: Counter[Step] = field(factory=Counter)
    _unknown: int = 0
    _estimate: float = 0.0

    def add(self, row: PreparedRow, record: Record, *, has_file: bool) -> None:
        """Add a row, with its record."""
        step = next_step(row, record, self.now(), max_attempts=self.max_attempts, has_file=has_file)
        self._count[step] += 1
        if step in _TO_SUBMIT:
            self._unknown += row.seconds is None
            self._estimate += row.price(self.budget)

    def survey(self) -> Survey:
        """Return the survey of all rows that were added."""
        count = self._count
        to_submit = sum(count[step] for step in _TO_SUBMIT)
        done, failed = count[Step.NOTHING], count[Step.GIVE_UP]
        return Survey(
            rows=count.total(),
            to_submit=to_submit,
            under_way=count.total() - to_submit - done - failed,
            done=done,
            failed=failed,
            unknown=self._unknown,
            assumed_seconds=self.budget.assumed,
            estimate=self._estimate,
        )
