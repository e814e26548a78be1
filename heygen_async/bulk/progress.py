"""What a run tells of itself while it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from attrs import define, field, frozen

from heygen_async.models import Wallet

Stage: TypeAlias = Literal[
    "uploading", "waiting", "submitting", "running", "downloading", "completed", "failed", "skipped"
]
"""Where a row is. `waiting` is for a seat: the account takes no more jobs just now. The last three are for good."""

ENDS: frozenset[Stage] = frozenset({"completed", "failed", "skipped"})


@frozen(kw_only=True)
class DubEvent:
    """A row that comes to another stage, or something worth a line about it."""

    stage: Stage
    key: str
    place: str
    """Where the row stands, such as `line 12`."""
    lipsync_id: str | None = None
    """Its job, once there is one."""
    message: str | None = None
    """What went wrong, or what there is to say."""


@frozen(kw_only=True)
class DubSnapshot:
    """A run at one moment."""

    stages: Mapping[str, int]
    """How many rows are in each stage; those that have not begun are in none."""
    total: int | None
    """How many rows there are; `None` if they come from an iterator."""
    in_flight: int
    """Jobs that run at HeyGen, as far as is known."""
    limit: int
    """How many the account seems to take at once."""
    refusals: int
    """Creates that were answered 429."""
    estimate: float
    """What all jobs asked for on this journal are thought to cost, in dollars."""
    budget: float | None
    """The most that may be."""
    balance_before: Wallet | None
    """What the account had when the first job was asked for; `None` if it does not tell, or was not asked."""
    balance_after: Wallet | None
    """What it has at the end."""
    trouble: str | None
    """What is wrong just now, if the API does not answer; the run tries again and again."""
    halted: str | None
    """Why rows are left out, if some are: the budget."""

    @property
    def ended(self) -> int:
        """How many rows have come to their end in this run."""
        return sum(self.stages.get(stage, 0) for stage in ENDS)


@define
class Tally:
    """Counts rows by stage, and passes the news on."""

    on_event: Callable[[DubEvent], None] | None
    stages: Counter[str] = field(factory=Counter)

    def tell(self, event: DubEvent, before: Stage | None) -> None:
        """Count a row that comes from the stage *before*, and tell of it."""
        if before != event.stage:
            if before is not None:
                self.stages[before] -= 1
            self.stages[event.stage] += 1
        if self.on_event is not None:
            self.on_event(event)
