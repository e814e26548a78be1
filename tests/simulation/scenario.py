"""What happens in a run: the rows, the lives of the client, the service, and every fault, as values. Pure.

A fault says when it strikes in terms of what can be counted, such as the third create of the second life, so that any
of them can be left out and the rest still makes sense: `shrinking` does that.
"""

from collections.abc import Sequence
from typing import Final, Literal

from attrs import field, frozen

from .server import Conditions

DAY: Final = 24 * 3600.0


@frozen(kw_only=True)
class RowSpec:
    """One row, as its author thinks of it."""

    key: str
    video: str
    """`url:NAME`, or `file:NAME` for a local file."""
    audio: str
    title: str | None = None
    callback_id: str | None = None
    output: str | None = None
    captions: bool | None = None
    end_time: float | None = None


@frozen(kw_only=True)
class Fault:
    """One thing that goes wrong, or that people do meanwhile."""

    life: int
    """The life in which it happens, from 0."""
    what: str
    on: str = ""
    """What it happens to: a route, or the key of a row."""
    at: float = 0.0
    """The number of the request, the callback or the change of a file; or a time, in seconds from the life's start."""
    value: float = 0.0

    def __str__(self) -> str:
        place = f" {self.on} {self.at:g}" if self.on else f" at {self.at:g}" if self.at else ""
        return f"life {self.life}:{place} {self.what}" + (f" {self.value:g}" if self.value else "")


@frozen(kw_only=True)
class LifePlan:
    """The options of one life."""

    journal: Literal["a", "b"] = "a"
    submit: Literal["each", "batch"] = "each"
    max_in_flight: int | None = None
    max_attempts: int = 3
    budget: float | None = None
    captions: bool = False
    retry_failed: bool = False
    multipart_max: int = 32_000_000
    is_eager: bool = False
    """Whether it polls by the default policy, not by a slower one."""
    disk_seconds: float = 0.002


@frozen(kw_only=True)
class Failing:
    """How the jobs of a row fail."""

    times: int
    """How many of them."""
    message: str
    refusal: bool = False
    """Whether the create is refused instead."""


@frozen(kw_only=True)
class Scenario:
    """All of a run but its randomness."""

    seed: int
    rows: Sequence[RowSpec]
    others: Sequence[RowSpec] = ()
    """The rows of the other manifest, if there is one."""
    lives: Sequence[LifePlan]
    faults: Sequence[Fault] = ()
    conditions: Conditions = field(factory=Conditions)
    failing: dict[str, Failing] = field(factory=dict)
    """By key."""
    seconds: tuple[float, float] = (5.0, 60.0)
    """How long jobs run, from and to."""
    duration: float = 20.0
    """How long each output is, in seconds."""
    drift: float = 0.0
    """How many seconds the wall clock gains in a second."""
    workers: int = 1
    """How many workers share the store; with more than one it is in memory."""
    is_cluster: bool = False
    """Whether these are the workers of a cluster, with its scheduler."""

    def rows_of(self, journal: str) -> Sequence[RowSpec]:
        """Return the rows of a manifest."""
        return self.rows if journal == "a" else self.others
