"""What has happened in a bulk run so far: outcomes, rows in progress, rate and time left. The clock is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from attrs import define, field

from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.events import ENDS, DubEvent, DubSnapshot, Stage
from heygen_async.models import DubOutcome

CENT: Final = 0.005
"""Less than this is shown as $0.00."""
_FAILURES: Final = 5
"""Failed rows that are kept; all of them are in the report."""
_BEFORE_JOB: Final = frozenset({"waiting", "submitting"})


@define
class RunProgress:
    """What has happened in a run so far.

    Args:
        clock: The clock of the run, in seconds.
        is_rehearsal: Whether it runs in a local sandbox, where nothing is paid.
    """

    clock: Callable[[], float]
    is_rehearsal: bool = False
    has_begun: bool = False
    has_earlier_runs: bool = False
    """Whether earlier runs on the journal have spent money."""
    is_stopping: bool = False
    """Whether the run was interrupted, and waits for the answers of creates."""
    is_reported: bool = False
    """Whether the report was written."""
    is_over_budget: bool = False
    """Whether rows were skipped because of the budget."""
    started: float = 0.0
    is_without_files: bool = False
    """Whether a job was completed whose video was not written, because neither its row nor the run has a place."""
    has_drafts: bool = False
    """Whether there is a video in speed mode to watch."""
    outcomes: Counter[str] = field(factory=Counter)
    """Outcomes by state."""
    failures: list[DubOutcome] = field(factory=list)
    """The last failed rows."""
    active: dict[str, Stage] = field(factory=dict)
    """The rows in progress, in the order in which they started."""
    _fresh: set[str] = field(factory=set)
    """Rows in progress whose job is created in this run."""
    _fresh_since: float | None = None
    _fresh_ended: int = 0

    def begin(self, snapshot: DubSnapshot) -> None:
        """Start to measure: the rows are checked, and the first may be sent."""
        self.has_begun, self.started = True, self.clock()
        self.has_earlier_runs = snapshot.spent > CENT

    def on_event(self, event: DubEvent) -> None:
        """Follow a row from stage to stage."""
        if event.stage in ENDS:
            self.active.pop(event.key, None)
            return
        self.active[event.key] = event.stage
        if event.stage in _BEFORE_JOB:
            self._fresh.add(event.key)
            self._fresh_since = self.clock() if self._fresh_since is None else self._fresh_since

    def add(self, outcome: DubOutcome) -> None:
        """Count an outcome."""
        self.outcomes[outcome.state] += 1
        if outcome.state == "failed":
            self.failures = [*self.failures, outcome][-_FAILURES:]
        is_written = outcome.path is not None or outcome.row.output is not None
        self.is_without_files = self.is_without_files or (outcome.state == "completed" and not is_written)
        self.has_drafts = self.has_drafts or (outcome.path is not None and outcome.row.mode == "speed")
        self.is_over_budget = self.is_over_budget or isinstance(outcome.error, OverBudget)
        if outcome.key in self._fresh:
            self._fresh.discard(outcome.key)
            self._fresh_ended += outcome.state != "skipped"

    @property
    def is_complete(self) -> bool:
        """Whether no row failed or was left out."""
        return not self.outcomes["failed"] and not self.outcomes["skipped"]

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def rate(self) -> float | None:
        """Return how many rows end in a second; `None` before the first job that was created in this run has ended.

        Rows that an earlier run finished or submitted end at once after a resume, and rows that are skipped do so too:
        they say nothing about the others.
        """
        if self._fresh_since is None or not self._fresh_ended:
            return None
        return self._fresh_ended / max(self.clock() - self._fresh_since, 1e-9)

    def seconds_left(self, snapshot: DubSnapshot) -> float | None:
        """Return the seconds until all rows will have ended; `None` if they cannot be estimated."""
        rate = self.rate()
        return None if rate is None or snapshot.total is None else (snapshot.total - snapshot.ended) / rate
