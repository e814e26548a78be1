"""The scenario of a seed: its rows, its lives, and which kinds of faults they have. Pure."""

import random
from collections.abc import Sequence
from typing import Final

from attrs import evolve

from .fault_kinds import faults_of
from .scenario import DAY, Failing, Fault, LifePlan, RowSpec, Scenario
from .server import Conditions


def scenario_of(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    if random.Random(f"kind {seed}").random() < _CLUSTERS:
        return _cluster_scenario(seed)
    dice = random.Random(f"scenario {seed}")
    families = _families(dice)
    rows = [_row(dice, number, families) for number in range(1, dice.randint(8, 16) + 1)]
    if random.Random(f"set back {seed}").random() < _SET_BACK:
        families = {"doubts", "set back"}
    if random.Random(f"refusals {seed}").random() < _REFUSALS:
        families = {"refusals"}
    families = _later_theme(seed) or families
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
    if "lost journal" in families:
        lives = [evolve(plan, submit=lives[0].submit, journal="a", budget=None) for plan in lives]
        rows, others = [evolve(row, callback_id=None) for row in rows], []
    faults = [one for life in range(len(lives)) for one in faults_of(dice, life, rows, families)]
    return Scenario(
        seed=seed,
        rows=rows,
        others=others,
        lives=lives,
        faults=faults,
        conditions=evolve(_conditions(dice, families), has_dates=_has_dates(seed, faults)),
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
    faults = [one for life in range(len(lives)) for one in faults_of(dice, life, rows, families)]
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
    return dice.choice([2, 3] if families & _OF_SEVERAL_LIVES else [1, 1, 2, 2, 3])


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

_REFUSALS: Final = 0.03
"""The share of runs in which most creates are refused, and asked to wait."""

_SET_BACK: Final = 0.03
"""The share of runs with a clock that is set back by as much time as passes until the next life."""

_LATER_THEMES: Final = {
    "wrong clock": frozenset({"doubts", "wrong clock", "long gaps"}),
    "outages": frozenset({"outages"}),
    "lost journal": frozenset({"lost journal", "failures"}),
}
"""Kinds that are dangerous together, added later: each has dice of its own, so that other seeds stay what they were."""

_LATER: Final = 0.03
"""The share of each."""

_OF_SEVERAL_LIVES: Final = frozenset({"lost batches", "moved", "set back", *_LATER_THEMES})

_DATELESS: Final = 0.04
"""The share of servers whose answers have no `Date`."""

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


def _later_theme(seed: int) -> set[str]:
    """Return the families of a theme that was added later: its own dice leave the other seeds as they were."""
    for name, families in _LATER_THEMES.items():
        if random.Random(f"{name} {seed}").random() < _LATER:
            return set(families)
    return set()


def _has_dates(seed: int, faults: Sequence[Fault]) -> bool:
    """Return whether answers have dates; without them, wall clocks are right: nothing else shows the age of a key."""
    return random.Random(f"dates {seed}").random() > _DATELESS or any("clock" in one.what for one in faults)


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
