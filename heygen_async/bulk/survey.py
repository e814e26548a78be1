"""What a run would do and cost, from its rows and its journal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence

from attrs import define, field, frozen

from heygen_async.bulk.budget import Budget
from heygen_async.bulk.intake import PreparedRow
from heygen_async.bulk.record import Record, State, Step, next_step


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
    """Rows to submit whose length is not known; a length is assumed for them."""
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

    def add(self, tasks: Sequence[PreparedRow], records: Sequence[Record], files: Container[str | None]) -> None:
        """Add rows, with their records, and the targets that exist."""
        for task, record in zip(tasks, records, strict=True):
            has_file = record.state is State.DONE and record.target in files
            step = next_step(record, self.now(), max_attempts=self.max_attempts, has_file=has_file)
            self._count[step] += 1
            if step in {Step.SEND, Step.RENEW}:
                self._unknown += task.seconds is None
                self._estimate += self.budget.price(task.row.mode, task.seconds)

    def survey(self) -> Survey:
        """Return the survey of all rows that were added."""
        count = self._count
        to_submit = count[Step.SEND] + count[Step.RENEW]
        done, failed = count[Step.NOTHING], count[Step.GIVE_UP]
        return Survey(
            rows=count.total(),
            to_submit=to_submit,
            under_way=count.total() - to_submit - done - failed,
            done=done,
            failed=failed,
            unknown=self._unknown,
            estimate=self._estimate,
        )
