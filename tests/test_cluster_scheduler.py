"""What the scheduler of a cluster decides, without a database: as a state machine, and case by case."""

import asyncio
import math

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_bulk_executors import prepared

from heygen_async._ids import KEY_SECONDS
from heygen_async.bulk.budget import RATES
from heygen_async.bulk.cluster.api_calls import StatusReader
from heygen_async.bulk.cluster.looks import Looks, Reachability
from heygen_async.bulk.cluster.rows import Run, RunOptions, Stage, StepAnswer, StoredRow, Ticket
from heygen_async.bulk.cluster.scheduler import (
    Answered,
    AtWork,
    Budgets,
    Busy,
    Learnt,
    grant,
    learn,
    to_prepare,
    to_redeliver,
)
from heygen_async.bulk.cluster.transitions import after_end, after_step, given_up
from heygen_async.bulk.limits import MOST_IN_AIR, MOST_TRIES, START
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.record import Record, State
from heygen_async.errors import (
    AuthenticationError,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
    RateLimited,
    ServerError,
    TransportError,
)
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.policies import PollPolicy

DELAYS = RetryDelays(refused=1.0, renewal=1.0, missing=(1.0,), download=(1.0, 1.0))
NOW = 1_795_000_000.0
ATTEMPTS = 3
OPTIONS = RunOptions(rates=RATES, max_attempts=ATTEMPTS)


def stored(number: int, *, stage: Stage = Stage.READY, seconds: float | None = 10.0, audio=None) -> StoredRow:
    row = prepared(f"row-{number}", number, *([] if audio is None else [audio]))
    record = Record(key=row.key, inputs=row.entry.inputs, number=number)
    return StoredRow(run=1, row=evolve(row, seconds=seconds), record=record, stage=stage)


def one_run(**options) -> dict[int, Run]:
    return {1: Run(options=evolve(OPTIONS, **options))}


def granted(rows, learnt=None, busy=Busy(), *, runs=None, now=NOW, reserved=None):
    budgets = Budgets(runs or one_run(), reserved or {})
    return grant(learnt or Learnt(), rows, busy, budgets, now=now, delays=DELAYS)


class World:
    """Rows in a database, an engine that loses what it likes, an account with a limit, and workers that die."""

    def __init__(self, count: int, account_limit: int, most: int | None) -> None:
        self.now = NOW
        self.rows = {f"row-{n}": stored(n) for n in range(1, count + 1)}
        self.holders: dict[str, str] = {}
        self.deferred: dict[str, float | None] = {}
        self.engine: list[Ticket] = []
        self.account_limit = account_limit
        self.jobs: dict[str, str] = {}
        """Attempt keys to what has become of their job."""
        self.refusals = 0
        self.saved = Learnt().to_json()
        self.runs = one_run(max_in_flight=most)
        self.scheduler = Learnt.from_json(self.saved)

    # The database

    def busy(self) -> Busy:
        def count(stage: Stage) -> int:
            return sum(row.stage is stage for row in self.rows.values())

        return Busy({1: count(Stage.FLIGHT)}, {1: count(Stage.CREATE)})

    def write(self, row: StoredRow, *, version: int) -> bool:
        if self.rows[row.row.key].record.version != version:
            return False
        self.rows[row.row.key] = evolve(row, record=evolve(row.record, version=version + 1))
        self.holders.pop(row.row.key, None)
        self.deferred[row.row.key] = None
        return True

    # The scheduler

    def tick(self) -> None:
        answered = [
            Answered(
                ticket=row.ticket,
                stage=row.stage,
                answer=row.answer,
                retry_after=row.retry_after,
                epoch=row.epoch,
                due=row.due,
                unanswered=row.unanswered,
            )
            for row in self.rows.values()
            if row.answer is not None
        ]
        for one in learn(self.scheduler, answered, self.busy(), self.now):
            row = self.rows[one.ticket.key]
            self.rows[one.ticket.key] = evolve(row, answer=None, due=one.due, unanswered=one.unanswered)
        self.saved = self.scheduler.to_json()
        ready = [row for row in self.rows.values() if row.stage is Stage.READY and row.due <= self.now]
        ready.sort(key=lambda row: (row.record.state is not State.SUBMITTING, row.row.number))
        decided = granted(ready[:16], self.scheduler, self.busy(), runs=self.runs, now=self.now)
        for row in decided:
            assert self.write(row, version=row.record.version)
            self.deliver(row.row.key)

    def deliver(self, key: str) -> None:
        self.deferred[key] = self.now
        self.engine.append(self.rows[key].ticket)

    def take_over(self) -> None:
        """Another scheduler, which knows only what was saved."""
        self.scheduler = Learnt.from_json(self.saved)

    def second_look(self, dead: set[str]) -> None:
        rows = [
            AtWork(row.ticket, self.holders.get(key), self.deferred.get(key))
            for key, row in self.rows.items()
            if row.stage in {Stage.CREATE, Stage.DOWNLOAD}
        ]
        found = to_redeliver(rows, set(self.engine), dead, self.now)
        for ticket in found.orphaned:
            row = self.rows[ticket.key]
            self.rows[ticket.key] = evolve(row, record=evolve(row.record, version=ticket.version + 1, is_fresh=False))
            del self.holders[ticket.key]
        for ticket in (*found.orphaned, *found.overdue):
            self.deliver(ticket.key)

    # The workers

    def claim(self, worker: str, place: int) -> StoredRow | None:
        ticket = self.engine.pop(place % len(self.engine))
        row = self.rows[ticket.key]
        if row.ticket != ticket or ticket.key in self.holders:
            return None
        self.holders[ticket.key] = worker
        return row

    def running(self) -> int:
        return sum(state == "running" for state in self.jobs.values())

    def send(self, row: StoredRow) -> Record:
        record = row.record
        key = record.attempt_key or ""
        if key not in self.jobs and self.running() >= self.account_limit:
            self.refusals += 1
            error = RateLimited("busy", status=429, retry_after=1.0, outcome="rejected")
            return evolve(record.not_sent(), failure=error, hold=1.0)
        self.jobs.setdefault(key, "running")
        return record.accepted(f"job of {key}")

    def finish_step(self, row: StoredRow, record: Record) -> bool:
        after = after_step(row, record, self.now, max_attempts=ATTEMPTS, delays=DELAYS)
        return self.write(after, version=row.record.version)


@settings(max_examples=60, stateful_step_count=60)
class ClusterMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, each row gets one job, and all of them get there."""

    @initialize(count=st.integers(1, 8), limit=st.integers(1, 12), most=st.none() | st.integers(1, 5))
    def begin(self, count, limit, most):
        self.world = World(count, limit, most)
        self.frozen: list[StoredRow] = []

    @rule()
    def tick(self):
        self.world.tick()

    @rule(seconds=st.sampled_from([0.1, 1.0, 20.0]))
    def time_passes(self, seconds):
        self.world.now += seconds

    @rule()
    def scheduler_is_replaced(self):
        self.world.take_over()

    @rule()
    def database_answers_but_the_grant_was_not_delivered(self):
        self.world.engine.clear()

    @precondition(lambda self: self.world.engine)
    @rule(place=st.integers(0, 10))
    def delivery_comes_twice(self, place):
        self.world.engine.append(self.world.engine[place % len(self.world.engine)])

    @precondition(lambda self: self.world.engine)
    @rule(place=st.integers(0, 10))
    def worker_takes_a_step(self, place):
        row = self.world.claim("alive", place)
        if row is None:
            return
        if row.stage is Stage.CREATE:
            assert self.world.finish_step(row, self.world.send(row))
        else:
            assert self.world.finish_step(row, row.record.done())

    @precondition(lambda self: self.world.engine)
    @rule(place=st.integers(0, 10), was_sent=st.booleans(), is_frozen=st.booleans())
    def worker_dies_or_freezes(self, place, was_sent, is_frozen):
        row = self.world.claim("dead", place)
        if row is None:
            return
        if was_sent and row.stage is Stage.CREATE:
            self.world.send(row)
        if is_frozen:
            self.frozen.append(row)

    @precondition(lambda self: self.frozen)
    @rule()
    def frozen_worker_comes_back(self):
        row = self.frozen.pop()
        record = self.world.send(row) if row.stage is Stage.CREATE else row.record.done()
        was_its_own = (
            self.world.holders.get(row.row.key) == "dead" and self.world.rows[row.row.key].ticket == row.ticket
        )
        assert self.world.finish_step(row, record) == was_its_own

    @precondition(lambda self: self.world.engine)
    @rule(place=st.integers(0, 10), outcome=st.sampled_from(["unknown", "not_sent"]))
    def create_has_no_usable_answer(self, place, outcome):
        row = self.world.claim("alive", place)
        if row is None or row.stage is not Stage.CREATE:
            return
        error = TransportError("broken", outcome=outcome)
        is_settled = outcome == "not_sent" and row.record.is_fresh
        record = row.record.not_sent() if is_settled else row.record
        assert self.world.finish_step(row, record.failing(error))

    @rule()
    def second_look(self):
        self.world.second_look({"dead"})

    @rule(place=st.integers(0, 10))
    def job_ends(self, place):
        flying = [row for row in self.world.rows.values() if row.stage is Stage.FLIGHT and row.answer is None]
        if not flying:
            return
        row = flying[place % len(flying)]
        self.end(row)

    def end(self, row):
        self.world.jobs[row.record.attempt_key] = "completed"
        job = Lipsync(id=row.record.lipsync_id, status="completed")
        after = after_end(row, job, self.world.now, cost=1.0, max_attempts=ATTEMPTS, delays=DELAYS)
        assert self.world.write(after, version=row.record.version)

    @invariant()
    def no_run_has_more_seats_than_it_may(self):
        if not hasattr(self, "world"):
            return
        most = self.world.runs[1].options.max_in_flight
        assert most is None or self.world.busy().of_run(1) <= most

    @invariant()
    def no_more_creates_are_in_the_air_than_may_be(self):
        if hasattr(self, "world"):
            assert self.world.busy().in_air <= MOST_IN_AIR

    @invariant()
    def each_row_has_at_most_one_job(self):
        if hasattr(self, "world"):
            rows = [key.rpartition(".")[0] for key in self.world.jobs]
            assert len(rows) == len(set(rows))

    def teardown(self):
        """From here on nothing goes wrong: then all rows get there."""
        world = self.world if hasattr(self, "world") else World(1, 1, None)
        for _ in range(3000):
            if all(row.stage in {Stage.DONE, Stage.FAILED} for row in world.rows.values()):
                break
            world.tick()
            world.second_look({"dead"})
            while world.engine:
                row = world.claim("alive", 0)
                if row is not None:
                    record = world.send(row) if row.stage is Stage.CREATE else row.record.done()
                    assert world.finish_step(row, record)
            for row in [one for one in world.rows.values() if one.stage is Stage.FLIGHT and one.answer is None]:
                self.end(row)
            world.now += 2.0
        stages = {key: row.stage for key, row in world.rows.items()}
        # A row is given up only after many requests without an answer while others had one.
        assert set(stages.values()) <= {Stage.DONE}, stages
        assert len(world.jobs) == len(world.rows)


TestCluster = ClusterMachine.TestCase


def test_an_account_of_ten_is_learnt_with_few_refusals():
    world = World(200, 10, None)
    ended: dict[str, float] = {}
    for _ in range(5000):
        world.tick()
        while world.engine:
            row = world.claim("alive", 0)
            if row is not None:
                record = world.send(row)
                world.finish_step(row, record)
                if record.state is State.SUBMITTED:
                    ended[row.row.key] = world.now + 2.0
        for key, end in list(ended.items()):
            row = world.rows[key]
            if end <= world.now and row.stage is Stage.FLIGHT and row.answer is None:
                ended.pop(key)
                world.jobs[row.record.attempt_key] = "completed"
                job = Lipsync(id="ls", status="completed")
                after = after_end(row, job, world.now, cost=1.0, max_attempts=3, delays=DELAYS)
                world.write(after, version=row.record.version)
        if all(row.stage is Stage.DONE for row in world.rows.values()):
            break
        world.now += 0.1

    assert all(row.stage is Stage.DONE for row in world.rows.values())
    assert world.refusals <= 8


# Learning


def answered(number, answer, *, epoch=0, stage=Stage.READY, retry_after=None):
    return Answered(
        ticket=Ticket(1, f"row-{number}", 1), stage=stage, answer=answer, epoch=epoch, retry_after=retry_after, due=NOW
    )


def test_accepted_creates_count_before_those_that_were_refused_with_them():
    learnt = Learnt()
    for _ in range(12):
        learnt.limiter.send()
    answers = [answered(n, StepAnswer.REFUSED) for n in (11, 12)]
    answers += [answered(n, StepAnswer.ACCEPTED, stage=Stage.FLIGHT) for n in range(1, 11)]
    learn(learnt, answers, Busy({1: 10}, {1: 0}), NOW)

    assert learnt.limiter.limit == 10  # not 0, which those in the air would make of it
    assert (learnt.limiter.in_flight, learnt.limiter.in_air) == (10, 0)


def test_refusals_of_one_epoch_teach_once():
    learnt = Learnt()
    learn(learnt, [answered(n, StepAnswer.REFUSED) for n in (1, 2, 3)], Busy({1: 6}, {}), NOW)
    after = learnt.to_json()
    learn(learnt, [answered(4, StepAnswer.REFUSED, epoch=0)], Busy({1: 9}, {}), NOW)

    assert learnt.limiter.limit == 6
    assert after["limiter"]["epoch"] == learnt.to_json()["limiter"]["epoch"] == 1


def test_what_was_learnt_is_the_same_after_a_takeover():
    learnt = Learnt()
    learn(learnt, [answered(1, StepAnswer.REFUSED, retry_after=30.0)], Busy({1: 6}, {}), NOW)
    learn(learnt, [answered(2, StepAnswer.FAILED)], Busy({1: 6}, {}), NOW)
    successor = Learnt.from_json(learnt.to_json())

    assert successor.to_json() == learnt.to_json()
    assert successor.breaker == learnt.breaker
    successor.limiter.in_flight = 6  # counted from rows
    assert successor.next_chance(NOW) == learnt.next_chance(NOW) == NOW + 30.0


def test_an_account_of_which_nothing_is_known_starts_with_the_published_limit():
    assert Learnt.from_json({}).limiter.limit == START


def test_a_row_whose_requests_alone_have_no_answer_is_given_up():
    learnt, count = Learnt(), (0, -1)
    updates = []
    for _ in range(MOST_TRIES):
        learn(learnt, [answered(2, StepAnswer.RECOVERED)], Busy(), NOW)  # others have answers
        one = evolve(answered(1, StepAnswer.FAILED), unanswered=count)
        updates = learn(learnt, [one], Busy(), NOW)
        count = updates[0].unanswered

    assert updates[0].is_given_up


@pytest.mark.parametrize(("tries", "first"), [((1, 0, 0), 2), ((0, 1, 0), 1), ((2, 2, 1), 3)])
def test_after_a_failure_the_row_that_has_had_the_fewest_goes_first(tries, first):
    learnt = Learnt()
    learn(learnt, [answered(1, StepAnswer.FAILED)], Busy(), NOW)
    rows = [evolve(stored(number), unanswered=(count, 0)) for number, count in enumerate(tries, start=1)]

    decided = granted(rows, learnt, Busy(), now=learnt.next_chance(NOW))
    assert [row.row.number for row in decided] == [first]


def test_rows_are_not_given_up_while_nobody_has_an_answer():
    learnt, count = Learnt(), (0, -1)
    for _ in range(50):
        (lesson,) = learn(learnt, [evolve(answered(1, StepAnswer.UNANSWERED), unanswered=count)], Busy(), NOW)
        count = lesson.unanswered
        assert not lesson.is_given_up


def test_after_a_failure_creates_are_sent_one_by_one():
    learnt = Learnt()
    learn(learnt, [answered(1, StepAnswer.FAILED)], Busy(), NOW)

    assert granted([stored(1)], learnt) == []
    assert len(granted([stored(1), stored(2)], learnt, now=NOW + 60.0)) == 1


# Grants


def test_a_granted_row_has_its_intent_and_its_price():
    (row,) = granted([stored(1)])

    assert row.stage is Stage.CREATE
    assert row.record.state is State.SUBMITTING
    assert row.record.is_fresh
    assert row.record.sent_at == NOW
    assert row.reserved
    assert row.price == row.record.estimate == pytest.approx(0.333)


def test_no_more_rows_are_granted_than_may_be_in_the_air():
    assert len(granted([stored(n) for n in range(1, 17)])) == MOST_IN_AIR


def test_creates_of_dead_workers_hold_their_seats_until_they_are_taken_back():
    assert granted([stored(1)], busy=Busy({}, {1: MOST_IN_AIR})) == []


def test_a_run_gets_no_more_than_its_own_most():
    rows = [stored(n) for n in range(1, 6)]
    assert len(granted(rows, busy=Busy({1: 1}, {}), runs=one_run(max_in_flight=3))) == 2


def test_a_create_is_granted_again_under_the_same_key_while_the_server_remembers_it():
    (row,) = granted([stored(1)])
    again = evolve(row, stage=Stage.READY, record=evolve(row.record, is_fresh=False))
    (found,) = granted([again], now=NOW + 3600.0)

    assert found.stage is Stage.CREATE
    assert found.record.attempt_key == row.record.attempt_key
    assert not found.record.is_fresh


def test_a_create_whose_key_the_server_may_have_forgotten_is_searched_for_instead():
    (row,) = granted([stored(1)])
    (found,) = granted([evolve(row, stage=Stage.READY)], now=NOW + KEY_SECONDS + 1)

    assert found.stage is Stage.SEARCH


def test_a_row_that_does_not_fit_the_budget_is_skipped():
    (row,) = granted([stored(1)], runs=one_run(budget=0.2))

    assert (row.stage, row.price) == (Stage.SKIPPED, 0.0)


def test_a_row_waits_for_the_budget_while_jobs_that_run_may_leave_room():
    runs = one_run(budget=0.4)
    (row,) = granted([stored(1)], runs=runs)
    spent = {1: evolve(runs[1], spent=row.price)}

    assert granted([stored(2)], runs=spent, reserved={1: [row.price]}) == []
    (skipped,) = granted([stored(2)], runs=spent)
    assert skipped.stage is Stage.SKIPPED


def test_with_a_budget_one_row_of_unknown_length_goes_first():
    rows = [stored(n, seconds=None) for n in (1, 2)]
    assert len(granted(rows, runs=one_run(budget=100.0))) == 1
    known = one_run(budget=100.0)
    known = {1: evolve(known[1], longest=12.0)}
    assert len(granted(rows, runs=known)) == 2


def test_the_jobs_of_uploads_are_reserved():
    rows = [stored(n, stage=Stage.PREPARE, audio=b"audio") for n in range(1, 4)]
    found = to_prepare(rows, Budgets(one_run()))

    assert [row.row.number for row in found] == [1, 2, 3]
    assert all(row.reserved for row in found)


# After steps


def after(row, record, now=NOW):
    return after_step(row, record, now, max_attempts=ATTEMPTS, delays=DELAYS)


def test_a_create_that_was_not_sent_is_ready_again_and_not_refused():
    (row,) = granted([stored(1)])
    error = TransportError("no connection", outcome="not_sent")
    found = after(row, row.record.not_sent().failing(error))

    assert (found.stage, found.answer) == (Stage.READY, StepAnswer.FAILED)
    assert (found.price, found.reserved) == (0.0, False)


def test_a_create_without_an_answer_keeps_its_reservation_and_wants_its_seat_again():
    (row,) = granted([stored(1)])
    found = after(row, row.record.failing(TransportError("cut", outcome="unknown")))

    assert (found.stage, found.answer, found.reserved) == (Stage.READY, StepAnswer.FAILED, True)
    assert found.record.state is State.SUBMITTING


def test_a_refused_create_waits_as_long_as_the_server_says():
    (row,) = granted([stored(1)])
    error = RateLimited("busy", status=429, retry_after=7.0, outcome="rejected")
    found = after(row, row.record.not_sent().failing(error, hold=7.0))

    assert (found.stage, found.answer, found.retry_after, found.due) == (
        Stage.READY,
        StepAnswer.REFUSED,
        7.0,
        NOW + 7.0,
    )


def test_a_rejected_create_fails_the_row():
    (row,) = granted([stored(1)])
    error = InvalidRequest("bad", status=400, outcome="rejected")
    found = after(row, row.record.not_sent().stopped(error))

    assert (found.stage, found.answer, found.price) == (Stage.FAILED, StepAnswer.REJECTED, 0.0)


def test_a_failed_job_is_renewed_at_once_and_what_was_reserved_is_free():
    (row,) = granted([stored(1)])
    flying = after(row, row.record.accepted("ls_1"))
    job = Lipsync(id="ls_1", status=LipsyncStatus.FAILED, failure_message="internal error")
    found = after_end(flying, job, NOW, cost=0.0, max_attempts=ATTEMPTS, delays=DELAYS)

    assert (found.stage, found.due, found.reserved) == (Stage.READY, NOW + DELAYS.renewal, False)
    assert (found.record.state, found.record.earlier, found.record.attempt) == (State.PLANNED, ("ls_1",), 2)


def test_a_job_that_would_fail_again_fails_its_row():
    (row,) = granted([stored(1)])
    flying = after(row, row.record.accepted("ls_1"))
    job = Lipsync(id="ls_1", status=LipsyncStatus.FAILED, failure_message="no face was found")
    found = after_end(flying, job, NOW, cost=0.0, max_attempts=ATTEMPTS, delays=DELAYS)

    assert (found.stage, found.price) == (Stage.FAILED, 0.0)


def test_a_row_that_is_given_up_keeps_the_price_of_a_job_that_may_run():
    (row,) = granted([stored(1)])
    flying = after(row, row.record.accepted("ls_1"))
    found = given_up(flying, LipsyncFailed(Lipsync(id="ls_1", status="failed")), NOW, max_attempts=3, delays=DELAYS)

    assert (found.stage, found.price, found.reserved) == (Stage.FAILED, row.price, False)


# The second look


def work(number, *, holder=None, deferred=NOW):
    return AtWork(Ticket(1, f"row-{number}", 3), holder, deferred)


def test_what_only_waits_for_its_turn_is_not_delivered_again():
    row = work(1, deferred=NOW - 3600.0)
    assert to_redeliver([row], {row.ticket}, set(), NOW).overdue == []
    assert to_redeliver([row], set(), set(), NOW).overdue == [row.ticket]


def test_what_was_just_delivered_is_not_looked_for_yet():
    assert to_redeliver([work(1)], set(), set(), NOW).overdue == []


def test_only_the_work_of_workers_that_are_gone_is_taken_back():
    alive, dead = work(1, holder="alive"), work(2, holder="dead")
    found = to_redeliver([alive, dead], set(), {"dead"}, NOW + 100.0)

    assert (found.overdue, found.orphaned) == ([], [dead.ticket])


# Looks


def looks(count=0, policy=PollPolicy()):
    found = Looks(policy, (5.0, 15.0))
    for number in range(count):
        found.add(Ticket(1, f"row-{number}", 1), f"ls_{number}", NOW, NOW + number)
    return found


def test_a_request_takes_the_jobs_that_are_due_and_then_those_that_will_be():
    found = looks(250)
    taken = found.take(NOW)

    assert [look.lipsync_id for look in taken] == [f"ls_{n}" for n in range(100)]
    assert found.next_due() == NOW + 100
    assert found.take(NOW + 99) == []


def test_a_job_is_not_in_two_requests():
    found = looks(1)
    assert len(found.take(NOW)) == 1
    found.notify("ls_0", NOW)
    assert found.take(NOW + 3600) == []


def test_ends_are_returned_once_and_running_jobs_are_looked_at_later():
    found = looks(2)
    taken = found.take(NOW)
    ended = found.answered(taken, {"ls_0": LipsyncStatus.COMPLETED, "ls_1": LipsyncStatus.RUNNING}, NOW + 2, 1.0)

    assert [(one.look.lipsync_id, one.status) for one in ended] == [("ls_0", LipsyncStatus.COMPLETED)]
    assert len(found) == 1
    assert NOW + 2 < found.next_due() < math.inf


def test_a_job_that_the_server_does_not_know_is_given_some_time():
    found = looks(1)
    now = NOW
    for pause in (5.0, 15.0):
        assert found.answered(found.take(now), {}, now, 1.0) == []
        now += pause
        assert found.next_due() == now
    (ended,) = found.answered(found.take(now), {"ls_0": LipsyncStatus.NOT_FOUND}, now, 1.0)
    assert ended.status == LipsyncStatus.NOT_FOUND


def test_a_request_that_fails_for_a_while_ends_no_job():
    found = looks(3)
    assert found.failed(found.take(NOW + 9), TransportError("away"), NOW + 9) == []
    assert len(found) == 3
    assert found.next_due() > NOW + 9


def test_a_webhook_makes_its_job_due_at_once():
    found = looks(3)
    found.answered(found.take(NOW), dict.fromkeys(["ls_0", "ls_1", "ls_2"], LipsyncStatus.RUNNING), NOW, 1.0)
    assert found.take(NOW) == []
    assert found.notify("ls_2", NOW)
    assert found.take(NOW)[0].lipsync_id == "ls_2"
    assert not found.notify("of somebody else", NOW)


def test_jobs_that_others_saw_end_are_forgotten():
    found = looks(3)
    taken = found.take(NOW)
    found.keep({"ls_1"})
    ended = found.answered(taken, dict.fromkeys(["ls_0", "ls_1", "ls_2"], LipsyncStatus.COMPLETED), NOW, 1.0)
    assert [one.look.lipsync_id for one in ended] == ["ls_1"]


@given(st.lists(st.sampled_from(["take", "answer", "fail", "back", "add", "notify"]), max_size=60))
def test_no_job_is_ever_forgotten_while_it_runs(actions):
    found, now, number = looks(0), NOW, 0
    in_requests: list[list] = []
    for action in actions:
        now += 1.0
        if action == "add":
            found.add(Ticket(1, f"row-{number}", 1), f"ls_{number}", now, now)
            number += 1
        elif action == "take" and (taken := found.take(now)):
            in_requests.append(taken)
        elif action == "notify" and number:
            found.notify(f"ls_{number - 1}", now)
        elif in_requests:
            taken = in_requests.pop()
            if action == "answer":
                found.answered(taken, {look.lipsync_id: LipsyncStatus.RUNNING for look in taken}, now, 1.0)
            elif action == "fail":
                found.failed(taken, TransportError("away"), now)
            else:
                found.put_back(taken, now)
    for taken in in_requests:
        found.put_back(taken, now)
    seen = set()
    while len(seen) < number:
        taken = found.take(now + 86400.0)
        assert taken
        seen |= {look.lipsync_id for look in taken}
    assert len(found) == number


def test_a_worker_is_blind_once_nothing_was_answered_for_a_while():
    times = iter([0.0, 7.0, 9.0, 9.0, 9.0])
    reachability = Reachability(lambda: next(times))
    assert not reachability.is_unreachable(8.0)
    reachability.begin()
    assert not reachability.is_unreachable(8.0)
    assert reachability.is_unreachable(8.0)
    reachability.note(is_answered=True)
    assert not reachability.is_unreachable(8.0)


# Calls side by side


class OneByOne:
    """An API without bulk status requests, which refuses the key for one job and takes for ever for the other."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def statuses(self, _: object) -> object:
        raise NotFound("no such route", status=404)

    async def get(self, lipsync_id: str) -> object:
        try:
            await asyncio.sleep(0 if lipsync_id == "broken" else 3600)
        finally:
            self.ended.append(lipsync_id)
        raise AuthenticationError("no such key", status=401, code="unauthorized")


class Refusing:
    """An API that refuses bulk status requests, and counts them. The job `broken` cannot be fetched."""

    def __init__(self, error: Exception) -> None:
        self.error, self.refused = error, 0

    async def statuses(self, _: object) -> object:
        self.refused += 1
        raise self.error

    async def get(self, lipsync_id: str) -> Lipsync:
        if lipsync_id == "broken":
            raise BROKEN
        return Lipsync(id=lipsync_id, status="running")


BROKEN = ServerError("cannot be fetched", status=500)


@pytest.mark.parametrize(("code", "again"), [("not_found", None), (None, 301.0)], ids=["the API", "a gateway's page"])
@pytest.mark.looptime
async def test_bulk_statuses_are_given_up_when_the_api_itself_refuses_them(
    code: str | None, again: float | None
) -> None:
    api = Refusing(NotFound("no", status=404, code=code))
    reader = StatusReader(api)
    for _ in range(2):
        assert await reader.read(["ls_1"]) == {"ls_1": "running"}
    assert api.refused == 1
    await asyncio.sleep(again or 1e6)
    assert await reader.read(["ls_1"]) == {"ls_1": "running"}
    assert api.refused == (1 if again is None else 2)


async def test_a_bulk_status_request_with_an_id_that_is_wrong_says_nothing_of_the_other_jobs() -> None:
    api = Refusing(InvalidRequest("no id", status=400, code="invalid_parameter"))
    reader = StatusReader(api)
    for _ in range(2):
        assert await reader.read(["ls_1", "broken", "ls_2"]) == {"ls_1": "running", "broken": BROKEN, "ls_2": "running"}
    assert api.refused == 2


@pytest.mark.looptime
async def test_jobs_are_fetched_for_a_while_if_bulk_status_requests_alone_have_no_answer() -> None:
    api = Refusing(ServerError("no answer", status=503))
    reader = StatusReader(api)
    for _ in range(2):
        with pytest.raises(ServerError, match="no answer"):
            await reader.read(["ls_1"])
    for _ in range(3):
        assert await reader.read(["ls_1", "ls_2"]) == {"ls_1": "running", "ls_2": "running"}
    assert api.refused == 3
    await asyncio.sleep(301)
    with pytest.raises(ServerError, match="no answer"):
        await reader.read(["ls_1"])


async def test_bulk_status_requests_go_on_while_no_job_can_be_fetched_either() -> None:
    api = Refusing(ServerError("no answer", status=503))
    reader = StatusReader(api)
    for _ in range(7):
        with pytest.raises(ServerError, match="no answer"):
            await reader.read(["broken", "ls_1"])
    assert api.refused == 7


def test_a_job_that_cannot_be_read_by_itself_ends_no_other_and_is_looked_at_again():
    found = looks()
    for name in ("ls_1", "ls_2", "ls_3"):
        found.add(Ticket(1, name, 1), name, NOW, NOW)
    refused = NotFound("gone", status=404, code="not_found")
    statuses = {"ls_1": TransportError("away"), "ls_2": "completed", "ls_3": refused}
    ended = found.answered(found.take(NOW), statuses, NOW, 1.0)

    assert [(one.look.lipsync_id, one.error) for one in ended] == [("ls_2", None), ("ls_3", refused)]
    assert [look.lipsync_id for look in found.take(NOW + 60)] == ["ls_1"]


async def test_looks_at_single_jobs_end_together_when_the_key_is_refused() -> None:
    api = OneByOne()
    with pytest.raises(AuthenticationError):
        await StatusReader(api).read(["slow", "broken"])
    assert sorted(api.ended) == ["broken", "slow"]
    assert len(asyncio.all_tasks()) == 1
