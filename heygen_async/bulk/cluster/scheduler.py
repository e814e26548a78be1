"""What the scheduler of an account decides: what it learns, who gets a seat, and what is delivered again. Pure.

Rule 1: times and rows are arguments, and what is decided is returned; `scheduling` reads and writes.
Rule 2: a seat is the stage of a row. Jobs in flight and creates in the air are counted from rows, never remembered.
Rule 3: accepted creates are counted before refused ones: a refusal sets the limit to the jobs in flight, and they are
among them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from attrs import define, evolve, field, frozen

from heygen_async.bulk.budget import Budget
from heygen_async.bulk.cluster.rows import Run, Stage, StepAnswer, StoredRow, Ticket
from heygen_async.bulk.cluster.transitions import after_unanswered, placed
from heygen_async.bulk.limits import CircuitBreaker, Limiter
from heygen_async.bulk.program import RetryDelays, intent
from heygen_async.bulk.record import State
from heygen_async.models import JSON

AHEAD: Final = 16
"""How many rows of a run may be uploading, or be ready and wait for a seat."""

QUEUED_SECONDS: Final = 1.0
"""How long a delivery may be under way before it is looked for."""

_ORDER: Final = {StepAnswer.ACCEPTED: 0, StepAnswer.REFUSED: 1}
_SEATS: Final = frozenset(
    {StepAnswer.ACCEPTED, StepAnswer.REFUSED, StepAnswer.REJECTED, StepAnswer.FAILED, StepAnswer.DROPPED}
)
"""Answers that end a create in the air."""


@define
class Learnt:
    """What the scheduler has learnt of an account: one value, saved as a whole."""

    limiter: Limiter = field(factory=Limiter)
    breaker: CircuitBreaker = field(factory=CircuitBreaker)
    answers: int = 0
    """How many requests on which creates depend had a usable answer."""

    def to_json(self) -> dict[str, JSON]:
        """Return it as JSON, without the counts that come from rows."""
        return {"limiter": _state(self.limiter), "breaker": _state(self.breaker), "answers": self.answers}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Learnt:
        """Return what was saved; of an empty object, what is known in the beginning."""
        return cls(
            Limiter(**_arguments(stored.get("limiter", {}))),
            CircuitBreaker(**_arguments(stored.get("breaker", {}))),
            stored.get("answers", 0),
        )

    def may_send(self, now: float) -> bool:
        """Return whether a create may be sent now."""
        return self.limiter.may_send(now) and self.breaker.may_send(now, in_air=self.limiter.in_air)

    def next_chance(self, now: float) -> float:
        """Return when a create may be sent if nothing else happens before."""
        chance = now if self.limiter.may_send(now) else self.limiter.next_chance()
        return max(chance, self.breaker.next_chance() if self.breaker.failures else now)


_COUNTED: Final = frozenset({"most", "in_flight", "in_air"})


def _state(machine: Limiter | CircuitBreaker) -> dict[str, JSON]:
    found = attrs.asdict(machine)
    return {
        name.lstrip("_"): None if isinstance(value, float) and math.isinf(value) else value
        for name, value in found.items()
        if name not in _COUNTED
    }


def _arguments(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if value is not None}


@frozen
class Busy:
    """The rows of an account that hold a seat, by run."""

    flight: Mapping[int, int] = field(factory=dict)
    air: Mapping[int, int] = field(factory=dict)

    def of_run(self, run: int) -> int:
        """Return how many seats a run holds."""
        return self.flight.get(run, 0) + self.air.get(run, 0)

    @property
    def in_flight(self) -> int:
        """Jobs that run."""
        return sum(self.flight.values())

    @property
    def in_air(self) -> int:
        """Creates that have no answer yet."""
        return sum(self.air.values())


@frozen(kw_only=True)
class Answered:
    """A row with an answer to learn from."""

    ticket: Ticket
    stage: Stage
    answer: StepAnswer
    retry_after: float | None = None
    epoch: int = 0
    due: float = 0.0
    unanswered: tuple[int, int] = (0, -1)
    lipsync_id: str | None = None
    asked_at: float | None = None


@frozen(kw_only=True)
class AfterAnswer:
    """What becomes of a row whose answer was learnt."""

    ticket: Ticket
    due: float
    unanswered: tuple[int, int]
    is_given_up: bool = False


def learn(learnt: Learnt, answered: Iterable[Answered], busy: Busy, now: float) -> list[AfterAnswer]:
    """Learn from answers, each once; *busy* is what holds seats after them."""
    ordered = sorted(answered, key=lambda one: (_ORDER.get(one.answer, 2), one.ticket))
    limiter = learnt.limiter
    accepted = sum(one.answer is StepAnswer.ACCEPTED and one.stage is Stage.FLIGHT for one in ordered)
    limiter.in_flight = busy.in_flight - accepted
    limiter.in_air = busy.in_air + sum(one.answer in _SEATS for one in ordered)
    updates = [_learn_one(learnt, one, now) for one in ordered]
    limiter.in_flight, limiter.in_air = busy.in_flight, busy.in_air
    return updates


def _learn_one(learnt: Learnt, one: Answered, now: float) -> AfterAnswer:
    limiter, breaker = learnt.limiter, learnt.breaker
    is_failure = one.answer in {StepAnswer.FAILED, StepAnswer.UNANSWERED}
    if is_failure:
        breaker.failure(now)
    elif one.answer is not StepAnswer.DROPPED:
        breaker.success()
        learnt.answers += 1
    if one.answer is StepAnswer.ACCEPTED:
        limiter.accept(now)
    elif one.answer is StepAnswer.REFUSED:
        limiter.refuse(one.epoch, now, retry_after=one.retry_after)
    elif one.answer in _SEATS:
        limiter.give_up()
    if not is_failure:
        return AfterAnswer(ticket=one.ticket, due=one.due, unanswered=(0, -1))
    unanswered, is_given_up = after_unanswered(one.unanswered, learnt.answers)
    due = max(one.due, breaker.next_chance())
    return AfterAnswer(ticket=one.ticket, due=due, unanswered=unanswered, is_given_up=is_given_up)


@define
class Budgets:
    """The budgets of the runs of an account."""

    runs: Mapping[int, Run]
    reserved: Mapping[int, Sequence[float]] = field(factory=dict)
    """What is reserved for jobs that have not ended, by run."""
    _budgets: dict[int, Budget] = field(factory=dict, init=False)

    def of(self, run: int) -> Budget:
        """Return the budget of a run, with what its rows have cost and reserved."""
        if run not in self._budgets:
            known = self.runs[run]
            budget = Budget(known.options.rates, known.options.budget, known.spent)
            budget.learn_length(known.longest)
            for price in self.reserved.get(run, ()):
                budget.resume(price)
            self._budgets[run] = budget
        return self._budgets[run]

    def reserve(self, stored: StoredRow) -> StoredRow | None:
        """Return a row with the price of its job reserved, or as skipped; `None` if it has to wait for room."""
        if stored.reserved:
            return stored
        budget = self.of(stored.run)
        price = stored.row.price(budget)
        if budget.reserve(price, is_guess=stored.row.seconds is None):
            return evolve(stored, price=price + stored.record.earlier_estimate, reserved=True)
        return None if budget.may_fit(price) else evolve(stored, stage=Stage.SKIPPED)


def grant(
    learnt: Learnt,
    candidates: Iterable[StoredRow],
    busy: Busy,
    budgets: Budgets,
    *,
    now: float,
    delays: RetryDelays,
) -> list[StoredRow]:
    """Return the rows that get a seat now, with their intents, and those that are skipped or moved instead.

    Args:
        learnt: What is known of the account; its counts are those of *busy*.
        candidates: Rows that want a seat, in their order.
        busy: What holds seats now.
        budgets: The budgets.
        now: The time.
        delays: How long rows wait.
    """
    limiter = learnt.limiter
    limiter.in_flight, limiter.in_air = busy.in_flight, busy.in_air
    taken = Counter({run: busy.of_run(run) for run in budgets.runs})
    decided = []
    if learnt.breaker.failures:  # it may be a row, and not the API, that gets no answer
        candidates = sorted(candidates, key=lambda one: one.unanswered[0])
    for candidate in candidates:
        if not learnt.may_send(now):
            break
        options = budgets.runs[candidate.run].options
        if options.max_in_flight is not None and taken[candidate.run] >= options.max_in_flight:
            continue
        row = _granted(candidate, budgets, now, delays)
        if row is None:
            continue
        if row.stage is Stage.CREATE:
            row = evolve(row, epoch=limiter.send())
            taken[row.run] += 1
        decided.append(row)
    return decided


def _granted(candidate: StoredRow, budgets: Budgets, now: float, delays: RetryDelays) -> StoredRow | None:
    record = candidate.record
    if record.state is not State.PLANNED:  # the same create again, unless the server may have forgotten its key
        most = budgets.runs[candidate.run].options.max_attempts
        found = placed(candidate, now, max_attempts=most, delays=delays, has_file=False)
        return evolve(found, stage=Stage.CREATE, due=now) if found.stage is Stage.READY else found
    row = budgets.reserve(candidate)
    if row is None or row.stage is Stage.SKIPPED:
        return row
    estimate = row.price - record.earlier_estimate
    return evolve(row, record=intent(row.row, record, now, estimate=estimate), stage=Stage.CREATE, due=now)


def to_prepare(candidates: Iterable[StoredRow], budgets: Budgets) -> list[StoredRow]:
    """Return the rows whose files are to be uploaded now, with their prices reserved, and those that are skipped."""
    return [row for candidate in candidates if (row := budgets.reserve(candidate)) is not None]


@frozen
class AtWork:
    """A row that is a worker's to do."""

    ticket: Ticket
    holder: str | None
    """The worker that has begun it."""
    deferred: float | None
    """When it was last given to the engine."""


@frozen
class Redelivery:
    """Rows that are delivered again."""

    overdue: Sequence[Ticket]
    """The engine has lost them: the same version."""
    orphaned: Sequence[Ticket]
    """Their worker is gone: another version, so that it can save nothing if it comes back."""


def to_redeliver(
    rows: Iterable[AtWork], queued: Collection[Ticket], dead: Collection[str | None], now: float
) -> Redelivery:
    """Return what is to be delivered again: nothing that only waits for its turn.

    Args:
        rows: What is at work.
        queued: What the engine has and no worker has yet.
        dead: Workers that are gone, or have been silent for too long.
        now: The time.
    """
    overdue, orphaned = [], []
    for row in rows:
        if row.holder is not None:
            if row.holder in dead:
                orphaned.append(row.ticket)
        elif row.ticket not in queued and (row.deferred is None or row.deferred <= now - QUEUED_SECONDS):
            overdue.append(row.ticket)
    return Redelivery(overdue, orphaned)
