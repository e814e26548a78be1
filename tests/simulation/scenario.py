"""What happens in the run of a seed: the rows, the lives of the client, the service, and every fault, as values. Pure.

A fault says when it strikes in terms of what can be counted, such as the third create of the second life, so that any
of them can be left out and the rest still makes sense: `shrinking` does that.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from attrs import evolve, field, frozen

from .server import Conditions

DAY: Final = 24 * 3600.0

CREATE, BATCH, LIST = "POST /v3/lipsyncs", "POST /v3/lipsyncs/batches", "GET /v3/lipsyncs"
STATUSES, GET, ME = "GET /v3/lipsyncs/statuses", "GET /v3/lipsyncs/{lipsync_id}", "GET /v3/users/me"
LOOK, UPLOAD = "GET /v3/lipsyncs/batches/{batch_id}", "POST /v3/assets"
ANNOUNCE, PUT = "POST /v3/assets/direct-uploads", "PUT /uploads/{asset_id}"
COMPLETE, FILE, CAPTIONS = "POST /v3/assets/{asset_id}/complete", "GET /files/{name}", "GET /captions/{name}"

_LIKELY: Final = {CREATE: 16, BATCH: 4, LIST: 4, STATUSES: 30, GET: 16, LOOK: 12, UPLOAD: 6, FILE: 14, ME: 2}
_RARE: Final = {ANNOUNCE: 4, PUT: 4, COMPLETE: 4, CAPTIONS: 6}


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


# Making one


def scenario_of(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    if random.Random(f"kind {seed}").random() < _CLUSTERS:
        return _cluster_scenario(seed)
    dice = random.Random(f"scenario {seed}")
    families = _families(dice)
    rows = [_row(dice, number, families) for number in range(1, dice.randint(8, 16) + 1)]
    if random.Random(f"set back {seed}").random() < _SET_BACK:
        families = {"doubts", "set back"}
    workers = dice.choice([2, 3]) if dice.random() < 0.13 else 1
    if workers > 1:
        families = (families & _SHARED) | {"workers"}
    has_others = dice.random() < 0.12 and workers == 1
    others = [_other(dice, row) for row in rows if dice.random() < 0.6] if has_others else []
    budget = dice.choice([4.0, 6.0, 8.0]) * 0.0333 * 20 if dice.random() < 0.12 and workers == 1 else None
    lives = [_life(dice, budget, has_others=bool(others)) for _ in range(_number_of_lives(dice, families))]
    if "lost batches" in families:
        lives = [evolve(plan, submit="batch", journal="a") for plan in lives]
    if "old copy" in families:
        lives = [evolve(plan, max_in_flight=dice.choice([1, 3]), journal="a") for plan in lives]
    faults = [one for life in range(len(lives)) for one in _faults(dice, life, rows, families)]
    return Scenario(
        seed=seed,
        rows=rows,
        others=others,
        lives=lives,
        faults=faults,
        conditions=_conditions(dice, families),
        failing={row.key: _failing(dice) for row in rows if "failures" in families and dice.random() < 0.3},
        seconds=dice.choice([(5.0, 60.0), (5.0, 60.0), (1.0, 5.0), (60.0, 300.0)]),
        drift=dice.choice([0.0, 0.001, -0.001]) if "clocks" in families else 0.0,
        workers=workers,
    )


def _cluster_scenario(seed: int) -> Scenario:
    dice = random.Random(f"cluster {seed}")
    families = (_families(dice) & _CLUSTERED) | {"members"}
    rows = [
        evolve(_row(dice, number, families), captions=None, end_time=None)
        for number in range(1, dice.randint(6, 14) + 1)
    ]
    lives = [LifePlan(multipart_max=dice.choice([32_000_000, 100])) for _ in range(dice.choice([1, 1, 2]))]
    faults = [one for life in range(len(lives)) for one in _faults(dice, life, rows, families)]
    return Scenario(
        seed=seed,
        rows=rows,
        lives=lives,
        faults=faults,
        conditions=_conditions(dice, families),
        failing={row.key: _failing(dice) for row in rows if "failures" in families and dice.random() < 0.3},
        seconds=dice.choice([(5.0, 60.0), (1.0, 5.0), (60.0, 300.0)]),
        workers=dice.choice([1, 2, 2, 3]),
        is_cluster=True,
    )


def _number_of_lives(dice: random.Random, families: set[str]) -> int:
    if "old copy" in families:
        return 3
    return dice.choice([2, 3] if families & {"lost batches", "moved", "set back"} else [1, 1, 2, 2, 3])


def _row(dice: random.Random, number: int, families: set[str]) -> RowSpec:
    key = dice.choice(["ep-{}", "ep-{}", "row.{}", "r:{}"]).format(number)
    is_local = dice.random() < (0.4 if "files" in families else 0.2)
    has_callback = dice.random() < (0.4 if "foreign" in families else 0.1)
    return RowSpec(
        key=key,
        video=f"file:{key}" if is_local and dice.random() < 0.4 else f"url:{key}",
        audio=f"file:{key}" if is_local else f"url:{key}",
        title=f"Title {number}" if dice.random() < 0.5 else None,
        callback_id=f"mine-{number}" if has_callback else None,
        output=f"own-{number}.mp4" if dice.random() < 0.1 else None,
        captions=True if dice.random() < 0.05 else None,
        end_time=5.0 if dice.random() < 0.1 else None,
    )


def _other(dice: random.Random, row: RowSpec) -> RowSpec:
    """Return the row of the other manifest with the same key; most of them differ."""
    other = evolve(row, output=None, callback_id=None, captions=None)
    return other if dice.random() < 0.3 else evolve(other, audio=f"url:{row.key}-de")


def _life(dice: random.Random, budget: float | None, *, has_others: bool) -> LifePlan:
    return LifePlan(
        journal="b" if has_others and dice.random() < 0.5 else "a",
        submit="batch" if dice.random() < 0.25 else "each",
        max_in_flight=dice.choice([None, None, None, 1, 3]),
        max_attempts=dice.choice([3, 3, 1, 2]),
        budget=budget,
        captions=dice.random() < 0.05,
        retry_failed=dice.random() < 0.2,
        multipart_max=dice.choice([32_000_000, 32_000_000, 100]),
        is_eager=dice.random() < 0.2,
        disk_seconds=dice.choice([0.002, 0.002, 0.05, 0.5]),
    )


_SHARED: Final = frozenset({"requests", "crashes", "clocks", "limits", "failures", "lags", "links"})
"""The kinds of faults that a run with a shared store may have."""

_CLUSTERED: Final = frozenset({"requests", "crashes", "clocks", "sleep", "limits", "failures", "lags", "links"})
"""The same for a cluster."""

_SET_BACK: Final = 0.03
"""The share of runs with a clock that is set back by as much time as passes until the next life."""

_CLUSTERS: Final = 0.1
"""The share of clusters."""

_FAMILIES: Final = {
    "requests": 0.75,
    "crashes": 0.65,
    "clocks": 0.25,
    "limits": 0.3,
    "credit": 0.08,
    "files": 0.3,
    "disk": 0.12,
    "edits": 0.3,
    "restored": 0.15,
    "failures": 0.3,
    "lags": 0.3,
    "foreign": 0.2,
    "links": 0.15,
    "stops": 0.2,
}


_THEMES: Final = (
    frozenset[str](),
    frozenset[str](),
    frozenset({"doubts", "foreign", "long gaps"}),
    frozenset({"crashes", "restored", "long gaps"}),
    frozenset({"doubts", "clocks", "foreign"}),
    frozenset({"crashes", "files", "edits"}),
    frozenset({"clocks", "requests"}),
    frozenset({"doubts", "sleep"}),
    frozenset({"lost batches"}),
    frozenset({"old copy"}),
    frozenset({"moved"}),
)
"""Kinds that are dangerous together."""


def _families(dice: random.Random) -> set[str]:
    """Return the kinds of faults that a run has: not all at once, or they would hide each other."""
    families = {name for name, chance in _FAMILIES.items() if dice.random() < chance}
    theme = dice.choice(_THEMES)
    if theme & {"old copy", "moved"}:  # it would not be that if the first run ended in another way
        families -= {"crashes", "restored", "stops", "edits"}
    return families | theme


def _conditions(dice: random.Random, families: set[str]) -> Conditions:
    has_lags = "lags" in families
    return Conditions(
        account_limit=dice.choice([10, 10, 3, 1, None]) if "limits" in families else 10,
        link_seconds=dice.choice([2.0, 30.0]) if "links" in families else 7 * DAY,
        status_lag=dice.choice([0.0, 5.0, 60.0]) if has_lags else 0.0,
        list_lag=dice.choice([0.0, 5.0, 60.0]) if has_lags else 0.0,
        get_lag=dice.choice([0.0, 3.0]) if has_lags else 0.0,
        write_seconds=dice.choice([0.5, 0.5, 5.0, 30.0]),
        has_statuses=dice.random() > 0.1,
        keeps_refusals=dice.random() < 0.3,
        ingest_seconds=dice.choice([0.0, 0.0, 8.0]),
        video_bytes=dice.choice([300, 1500, 5000]),
    )


_FAILURES: Final = (
    "internal server error",
    "worker timed out, try again",
    "the moon was not full",
    "",
    "no face was found in the video",
    "No speech detected",
)


def _failing(dice: random.Random) -> Failing:
    message = dice.choice(_FAILURES)
    return Failing(times=dice.choice([1, 1, 2, 5]), message=message, refusal=dice.random() < 0.1)


# Faults


def _faults(dice: random.Random, life: int, rows: Sequence[RowSpec], families: set[str]) -> Iterator[Fault]:
    makers = {
        "requests": _request_faults,
        "crashes": _crashes,
        "clocks": _clock_faults,
        "limits": _limits,
        "credit": _credit,
        "files": _file_faults,
        "disk": _disk_faults,
        "edits": _edits,
        "restored": _restores,
        "foreign": _foreign_jobs,
        "stops": _stops,
        "doubts": _doubts,
        "sleep": _sleeps,
        "lost batches": _lost_batches,
        "old copy": _old_copy,
        "moved": _moved,
        "set back": _set_back,
        "workers": _worker_faults,
        "members": _member_faults,
    }
    for family, make in makers.items():
        if family in families:
            yield from make(dice, life, rows)
    if life and dice.random() < 0.6 and "set back" not in families:
        gaps = [25 * 3600.0, 3 * DAY] if "long gaps" in families else [1.0, 600.0, 20 * 3600.0, 25 * 3600.0, 3 * DAY]
        yield Fault(life=life, what="gap", value=dice.choice(gaps))


_EFFECTS: Final = (
    ("request lost", 0.0),
    ("answer lost", 0.0),
    ("answer lost", 0.0),
    ("answer lost", 0.0),
    ("request and connection silent", 0.0),
    ("answer silent", 0.0),
    ("late", 3.0),
    ("late", 100.0),
    ("late", 400.0),
    ("answer late", 50.0),
    ("answer late", 200.0),
    ("doubled", 0.02),
    ("doubled", 30.0),
    ("refused", 429.0),
    ("refused", 500.0),
    ("refused", 502.0),
    ("refused", 503.0),
    ("refused", 404.0),
    ("refused", 403.0),
    ("refused", 408.0),
    ("refused", 200.0),
    ("answer replaced", 502.0),
    ("answer replaced", 200.0),
    ("answer replaced", 500.0),
    ("answer truncated", 0.0),
    ("cut", 100.0),
    ("cut", 700.0),
)


def _request_faults(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    rate = dice.choice([0.03, 0.1, 0.3])
    focus = dice.choice([None, None, CREATE, FILE, LIST, GET])
    for route, most in {**_LIKELY, **_RARE}.items():
        chance = rate * (2 if route == focus else 1)
        for number in range(1, most + 1):
            if dice.random() < chance:
                effect, value = dice.choice(_EFFECTS)
                yield Fault(life=life, on=route, at=number, what=effect, value=value)
    for number in range(1, 30):
        if dice.random() < rate / 3:
            yield Fault(life=life, on="connection", at=number, what="refused")


def _crashes(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    kind = dice.random()
    if kind < 0.6:
        yield Fault(life=life, what="crash at callback", at=int(dice.choice([300, 1500, 4000]) * (0.2 + dice.random())))
    elif kind < 0.85:
        yield Fault(life=life, what="crash at change", at=dice.randint(1, 90))


def _clock_faults(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    for _ in range(dice.randint(1, 2)):
        at = dice.uniform(0, 120)
        if dice.random() < 0.5:
            yield Fault(
                life=life, what="suspend", at=at, value=dice.choice([3600.0, 23.5 * 3600.0, 25 * 3600.0, 2 * DAY])
            )
        else:
            shift = dice.choice([-3 * DAY, -20 * 3600.0, -600.0, 600.0, 20 * 3600.0, 3 * DAY])
            yield Fault(life=life, what="clock", at=at, value=shift)


def _limits(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    for _ in range(dice.randint(1, 3)):
        yield Fault(life=life, what="other jobs", at=dice.uniform(0, 200), value=dice.choice([0, 2, 9, 10]))


def _credit(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    yield Fault(life=life, what="no credit", at=dice.uniform(0, 60))
    if dice.random() < 0.5:
        yield Fault(life=life, what="credit again", at=dice.uniform(60, 200))


_FILE_FAULTS: Final = (
    "foreign file",
    "foreign file",
    "foreign part",
    "output deleted",
    "output emptied",
    "output replaced",
    "source changed",
    "source changed",
    "assets lost",
)


def _file_faults(dice: random.Random, life: int, rows: Sequence[RowSpec]) -> Iterator[Fault]:
    for _ in range(dice.randint(1, 4)):
        key = dice.choice(rows).key
        at = dice.choice([0.0, dice.uniform(0, 5), dice.uniform(0, 120)])
        yield Fault(life=life, what=dice.choice(_FILE_FAULTS), on=key, at=at)
    for number in range(1, 15):
        if dice.random() < 0.15:
            yield Fault(life=life, on=FILE, at=number, what="a foreign file appears")
    if dice.random() < 0.3:
        yield Fault(life=life, on=dice.choice([UPLOAD, ANNOUNCE]), at=dice.randint(1, 4), what="sources change")


def _disk_faults(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    if dice.random() < 0.5:
        yield Fault(life=life, what="disk full at statement", at=dice.randint(20, 300), value=dice.choice([1, 5]))
    else:
        yield Fault(life=life, what="disk full at change", at=dice.randint(1, 90), value=dice.choice([1, 5, 30]))


_EDITS: Final = (
    "row added",
    "row on top",
    "row removed",
    "rows reordered",
    "output renamed",
    "output renamed",
    "output renamed",
    "outputs swapped",
    "audio changed",
)


def _edits(dice: random.Random, life: int, rows: Sequence[RowSpec]) -> Iterator[Fault]:
    for _ in range(dice.randint(1, 3)):
        at = dice.choice([0.0, dice.uniform(0, 60)]) if life else dice.uniform(0, 60)
        yield Fault(life=life, what=dice.choice(_EDITS), on=dice.choice(rows).key, at=at)


def _restores(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    if dice.random() < 0.5:
        yield Fault(life=life, what="journal copied at the end")
    else:
        yield Fault(life=life, what="journal copied", at=dice.choice([dice.uniform(0, 2), dice.uniform(0, 100)]))
    if life:
        yield Fault(life=life, what="journal restored", value=dice.choice([600.0, 2 * DAY]))


def _foreign_jobs(dice: random.Random, life: int, rows: Sequence[RowSpec]) -> Iterator[Fault]:
    similar = [row for row in rows if row.callback_id is not None] or rows
    for _ in range(dice.randint(1, 3)):
        yield Fault(life=life, what="foreign job", on=dice.choice(similar).key, at=dice.uniform(0, 60))


def _doubts(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """Leave creates without an answer, and end the life before one can come."""
    for number in range(1, 12):
        if dice.random() < 0.4:
            effect = dice.choice(["request and connection silent", "answer silent"])
            yield Fault(life=life, on=dice.choice([CREATE, CREATE, BATCH]), at=number, what=effect)
    yield Fault(life=life, what="stopped by its user", at=dice.uniform(5, 60))


def _stops(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    if dice.random() < 0.5:
        yield Fault(life=life, what="stopped by its user", at=dice.choice([dice.uniform(0, 5), dice.uniform(0, 200)]))
    else:
        yield Fault(life=life, what="stopped at callback", at=dice.randint(1, dice.choice([60, 600, 4000])))


def _set_back(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """Set the clock back, and let as much time pass before the next life."""
    if life == 0:
        yield Fault(life=life, what="clock", at=dice.uniform(1, 20), value=-3 * DAY)
    elif life == 1:
        yield Fault(life=life, what="gap", value=3 * DAY)


def _moved(dice: random.Random, life: int, rows: Sequence[RowSpec]) -> Iterator[Fault]:
    """Give all rows other outputs once they are done, and crash while these are written."""
    if life == 1:
        for row in rows:
            yield Fault(life=life, what="output renamed", on=row.key)
        yield Fault(life=life, what="crash at callback", at=dice.randint(100, 1200))


def _worker_faults(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    for _ in range(dice.randint(1, 4)):
        what = dice.choice(["worker killed", "worker frozen"])
        yield Fault(life=life, what=what, at=dice.uniform(0, 100), value=dice.randint(0, 30))
    for _ in range(dice.randint(0, 3)):
        yield Fault(life=life, what="worker frozen at call", at=dice.randint(1, 300), value=dice.randint(0, 30))
    for _ in range(dice.randint(0, 2)):
        yield Fault(life=life, what="worker frozen before a file", at=dice.randint(1, 6), value=dice.randint(0, 30))


def _member_faults(dice: random.Random, life: int, rows: Sequence[RowSpec]) -> Iterator[Fault]:
    yield from _worker_faults(dice, life, rows)
    if dice.random() < 0.4:
        at, who = dice.uniform(0, 60), dice.randint(0, 30)
        yield Fault(life=life, what="worker blind", at=at, value=who)
        yield Fault(life=life, what="worker sees again", at=at + dice.uniform(5, 100), value=who)
    if dice.random() < 0.4:
        yield Fault(life=life, what="database away", at=dice.uniform(0, 100), value=dice.choice([2.0, 20.0]))
    for _ in range(dice.choice([0, 3, 10])):
        yield Fault(life=life, what="answer of the database lost", at=dice.randint(1, 600))
    for _ in range(dice.choice([0, 3, 10])):
        yield Fault(life=life, what="delivery lost", at=dice.randint(1, 60))


def _sleeps(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """Suspend the machine for more than a day, while creates have no answer."""
    yield Fault(life=life, what="suspend", at=dice.uniform(0, 20), value=dice.choice([25 * 3600.0, 2 * DAY]))


def _lost_batches(dice: random.Random, life: int, rows: Sequence[RowSpec]) -> Iterator[Fault]:
    """Leave batches without an answer, and continue without some of their rows."""
    if life:
        for row in dice.sample(rows, 2):
            yield Fault(life=life, what="row removed", on=row.key)
        return
    for number in range(1, 8):
        yield Fault(life=life, on=BATCH, at=number, what=dice.choice(["answer silent", "answer lost"]))
    yield Fault(life=life, what="stopped by its user", at=dice.uniform(2, 60))


def _old_copy(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """Stop early, copy the journal, run again, and two days later restore the copy."""
    if life == 0:
        yield Fault(life=life, what="stopped by its user", at=dice.uniform(1, 40))
        yield Fault(life=life, what="journal copied at the end")
    elif life == 2:
        yield Fault(life=life, what="journal restored", value=2 * DAY)
