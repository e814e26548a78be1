"""The nouns of the board: an awaited lipsync, the calls that wait for it, and the errands they carry."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from attrs import define, field, frozen

from heygen_async._polling.cadence import Failures
from heygen_async._polling.lanes import Lane
from heygen_async.models import Lipsync, LipsyncStatus

if TYPE_CHECKING:
    import asyncio

    from heygen_async.policies import PollPolicy

_FETCHES: Final = 32
"""The most lipsyncs that one waiter of many fetches at once."""

Outcome: TypeAlias = Lipsync | Exception
"""What a wait ends with: the finished job, or what went wrong."""

Status: TypeAlias = LipsyncStatus | str


class Place(enum.Enum):
    """Where an awaited id is."""

    QUEUED = "queued"
    """In the lane of each who waits for it, until it is due."""
    WANTED = "wanted"
    """To be fetched by the next of its waiters that is free."""
    IN_FLIGHT = "in flight"
    """In an errand."""
    DONE = "done"
    """Off the board, its outcome told."""


class Way(enum.Enum):
    """How an errand asks."""

    LOOK = "look"
    """The statuses of a chunk of ids."""
    FETCH = "fetch"
    """One whole lipsync."""
    PAGE = "page"
    """One page of the list, newest first."""


class LipsyncPage(Protocol):
    """What is read of a `Page` of lipsyncs."""

    @property
    def items(self) -> Sequence[Lipsync]:
        """The lipsyncs, newest first."""
        ...

    @property
    def next_token(self) -> str | None:
        """Where the next page begins."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether there is a next page."""
        ...


@frozen
class Moment:
    """What the shell reads and draws when an answer comes."""

    now: float
    wall: datetime | None = None
    """The same as an aware datetime, to tell the age of jobs by."""
    spread: float = 1.0
    """A factor near 1 on the time to the next look, so that programs do not fall into step."""


@define(eq=False)
class Awaited:
    """A lipsync that somebody waits for."""

    id: str
    born: float
    """When it was created, else when it was first waited for."""
    due: float
    """When to look at it next."""
    size: int
    """How many characters of a query it takes."""
    place: Place = Place.QUEUED
    told: bool = False
    """Whether there was word of it."""
    hurried: bool = False
    """Whether that came while it was in flight."""
    ran: bool = False
    """Whether it was seen unfinished, so that its end tells how long such jobs take."""
    young: bool = False
    """Whether it was so new when it came that it need not be looked at, so it had surely not ended."""
    status: Status | None = None
    failures: Failures = field(factory=Failures)
    """The last requests that told nothing of it."""
    waiters: dict[Waiter, None] = field(factory=dict, repr=False)


@define(eq=False)
class Errand:
    """One request to be made."""

    way: Way
    awaited: list[Awaited] = field(repr=False)
    carrier: Waiter = field(repr=False)
    token: str | None = None
    """Which page; `None` is the first."""
    settled: bool = False

    @property
    def ids(self) -> list[str]:
        """The ids that it asks about."""
        return [awaited.id for awaited in self.awaited]


@define(eq=False)
class Waiter:
    """A call that waits for one lipsync."""

    deadline: float
    started: float = 0.0
    soft: bool = False
    """Whether the deadline is the policy's, which the board keeps. The shell keeps those of callers."""
    watching: bool = False
    """Whether it is to be rung at every change of status."""
    policy: PollPolicy | None = None
    """How often it would have its lipsync looked at, if not as often as the board does."""
    errand: Errand | None = None
    outcome: Outcome | None = None
    bell: asyncio.Future[None] | None = None
    """The shell's: what it sleeps on."""

    def is_free(self, _way: Way) -> bool:
        """Return whether it can carry an errand now."""
        return self.errand is None and self.outcome is None

    def give(self, errand: Errand) -> None:
        """Hand it an errand."""
        self.errand = errand

    def relieve(self, _errand: Errand) -> None:
        """Take back the errand, which is settled."""
        self.errand = None

    def tell(self, _awaited: Awaited, outcome: Outcome) -> None:
        """Tell it how the wait ended."""
        self.outcome = outcome


@define(eq=False)
class ManyWaiter(Waiter):
    """A call that waits for many lipsyncs, and is away while its caller looks at one of them."""

    here: bool = False
    to_start: deque[Errand] = field(factory=deque, repr=False)
    """Errands that it has not begun."""
    carried: dict[Errand, None] = field(factory=dict, repr=False)
    """All of its errands that are not settled."""
    heard: deque[tuple[str, Outcome]] = field(factory=deque, repr=False)
    """Ids and results that it has not passed on."""
    pending: dict[str, Awaited] = field(factory=dict, repr=False)
    """What it still waits for."""
    wanted: deque[Awaited] = field(factory=deque, repr=False)
    """Ids that were to be fetched while it was away or busy."""
    lane: Lane = field(factory=Lane)
    fetches: int = 0

    def is_free(self, way: Way) -> bool:
        """Return whether it can carry an errand now."""
        return self.here and (way is not Way.FETCH or self.fetches < _FETCHES)

    def give(self, errand: Errand) -> None:
        """Hand it an errand."""
        self.to_start.append(errand)
        self.carried[errand] = None
        self.fetches += errand.way is Way.FETCH

    def relieve(self, errand: Errand) -> None:
        """Take back an errand that is settled."""
        del self.carried[errand]
        self.fetches -= errand.way is Way.FETCH

    def tell(self, awaited: Awaited, outcome: Outcome) -> None:
        """Tell it how the wait for one of its ids ended."""
        del self.pending[awaited.id]
        self.heard.append((awaited.id, outcome))
