"""The faults of each kind, with their times and places. Pure."""

import random
from collections.abc import Iterator, Sequence
from typing import Final

from .scenario import DAY, Fault, RowSpec

CREATE, BATCH, LIST = "POST /v3/lipsyncs", "POST /v3/lipsyncs/batches", "GET /v3/lipsyncs"
STATUSES, GET, ME = "GET /v3/lipsyncs/statuses", "GET /v3/lipsyncs/{lipsync_id}", "GET /v3/users/me"
LOOK, UPLOAD = "GET /v3/lipsyncs/batches/{batch_id}", "POST /v3/assets"
ANNOUNCE, PUT = "POST /v3/assets/direct-uploads", "PUT /uploads/{asset_id}"
COMPLETE, FILE, CAPTIONS = "POST /v3/assets/{asset_id}/complete", "GET /files/{name}", "GET /captions/{name}"

_LIKELY: Final = {CREATE: 16, BATCH: 4, LIST: 4, STATUSES: 30, GET: 16, LOOK: 12, UPLOAD: 6, FILE: 14, ME: 2}
_RARE: Final = {ANNOUNCE: 4, PUT: 4, COMPLETE: 4, CAPTIONS: 6}


def faults_of(dice: random.Random, life: int, rows: Sequence[RowSpec], families: set[str]) -> Iterator[Fault]:
    """Return the faults of one life, of the kinds in *families*."""
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
        "refusals": _refusals,
        "wrong clock": _wrong_clock,
        "outages": _outages,
        "lost journal": _lost_journal,
        "workers": _worker_faults,
        "members": _member_faults,
    }
    for family, make in makers.items():
        if family in families:
            yield from make(dice, life, rows)
    if life and dice.random() < 0.6 and not families & {"set back", "lost journal"}:
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
    if life and dice.random() < 0.5:  # a gateway knows no job that a search has found
        for number in range(1, 6):
            yield Fault(life=life, on=GET, at=number, what="refused", value=404.0)


def _stops(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    if dice.random() < 0.5:
        yield Fault(life=life, what="stopped by its user", at=dice.choice([dice.uniform(0, 5), dice.uniform(0, 200)]))
    else:
        yield Fault(life=life, what="stopped at callback", at=dice.randint(1, dice.choice([60, 600, 4000])))


def _refusals(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    for number in range(1, 40):
        if dice.random() < 0.7:
            yield Fault(life=life, on=CREATE, at=number, what="refused", value=503.0)


def _set_back(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """Set the clock back, and let as much time pass before the next life."""
    if life == 0:
        yield Fault(life=life, what="clock", at=dice.uniform(1, 20), value=-3 * DAY)
    elif life == 1:
        yield Fault(life=life, what="gap", value=3 * DAY)


def _wrong_clock(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """Let lives begin with a wall clock that is wrong, or that was set right."""
    if life == 0 or dice.random() < 0.7:
        ahead = dice.choice([600.0, 22 * 3600.0, 25 * 3600.0, 2 * DAY, -DAY, -2 * DAY, -2 * DAY])
        yield Fault(life=life, what="clock at start", value=ahead)
    else:
        yield Fault(life=life, what="clock at start")
    if dice.random() < 0.7:
        yield _outage(dice, life, dice.choice([CREATE, CREATE, LIST, ""]))


OUTAGES: Final = {
    "only 503 for": ("refused", 503.0),
    "only 500 for": ("refused", 500.0),
    "only 403 for": ("refused", 403.0),
    "no answer for": ("answer silent", 0.0),
    "lost for": ("request lost", 0.0),
}
"""What may happen to all requests on a route for so many seconds, as the mishap that each of them has."""


def _outages(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """Crash while creates have no answer, and let lives begin or go on without the API, or a part of it."""
    if life == 0:
        yield Fault(life=life, what="crash at callback", at=dice.randint(200, 1500))
        for number in range(1, 12):
            if dice.random() < 0.3:
                yield Fault(life=life, on=CREATE, at=number, what="answer silent")
    elif dice.random() < 0.7:
        yield _outage(dice, life, LIST)
    if life == 0 or dice.random() < 0.5:
        yield _outage(dice, life, dice.choice([CREATE, BATCH, LIST, STATUSES, GET, ME, FILE, "", ""]))


def _outage(dice: random.Random, life: int, route: str) -> Fault:
    what = dice.choice(list(OUTAGES))
    at = dice.choice([0.0, 0.0, dice.uniform(0, 60)])
    return Fault(life=life, on=route, at=at, what=what, value=dice.choice([30.0, 600.0, 2 * 3600.0, 30 * 3600.0]))


def _lost_journal(dice: random.Random, life: int, _: Sequence[RowSpec]) -> Iterator[Fault]:
    """End a life early, and let the next one begin without its journal and outputs, on the same day."""
    if life == 0:
        what = dice.choice(["stopped by its user", "crash at callback", "nothing"])
        at = dice.randint(200, 3000) if what == "crash at callback" else dice.uniform(1, 60)
        if what != "nothing":
            yield Fault(life=life, what=what, at=at)
    elif life == 1:
        yield Fault(life=life, what="journal lost", value=dice.choice([1000.0, 10 * 3600.0]))


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
