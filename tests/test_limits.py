"""How many jobs may be in flight, and when a server that does not answer is asked again."""

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from heygen_async.bulk.limits import MOST_IN_AIR, NEVER_ANSWERED, OUTAGE, START, CircuitBreaker, Limiter


def _fill(limiter: Limiter, count: int) -> None:
    for _ in range(count):
        limiter.send()
        limiter.accept(0.0)


def _refused_at(count: int) -> Limiter:
    """Return a limiter that has *count* jobs in flight and was refused one more at the time 0."""
    limiter = Limiter()
    _fill(limiter, count)
    limiter.refuse(limiter.send(), 0.0)
    return limiter


def test_at_most_four_creates_have_no_answer() -> None:
    limiter = Limiter()
    for _ in range(MOST_IN_AIR):
        assert limiter.may_send(0.0)
        limiter.send()

    assert not limiter.may_send(0.0)


def test_the_limit_grows_with_each_accepted_create_until_the_first_refusal() -> None:
    limiter = Limiter()
    _fill(limiter, 17)
    assert limiter.limit == START + 17

    limiter.refuse(limiter.send(), 0.0)

    assert limiter.limit == 17
    assert not limiter.may_send(0.0)


def test_a_finished_job_makes_room_for_one_more() -> None:
    limiter = _refused_at(3)
    limiter.finish()
    assert limiter.may_send(0.0)

    limiter.send()

    assert not limiter.may_send(0.0)


def test_creates_that_were_refused_together_change_the_limit_once() -> None:
    limiter = Limiter()
    _fill(limiter, 3)
    epochs = [limiter.send() for _ in range(4)]
    for epoch in epochs:
        limiter.refuse(epoch, 0.0)

    assert limiter.refusals == 4
    assert limiter.limit == 3
    assert limiter.next_chance() == 15.0  # had each been a epoch of its own: 120


def test_one_more_is_tried_after_15_seconds_and_then_less_and_less_often() -> None:
    limiter = _refused_at(10)
    waits, now = [], 0.0
    for _ in range(7):
        waits.append(limiter.next_chance() - now)
        now = limiter.next_chance()
        assert limiter.may_send(now)
        limiter.refuse(limiter.send(), now)

    assert waits == [15, 30, 60, 120, 240, 480, 600]


def test_an_accepted_probe_raises_the_limit_and_the_next_is_sent_at_once() -> None:
    limiter = _refused_at(10)
    limiter.send()
    limiter.accept(15.0)

    assert limiter.limit == 11
    assert limiter.may_send(15.0)


def test_a_limit_that_has_dropped_is_tried_more_often() -> None:
    limiter = _refused_at(10)
    now = 0.0
    for _ in range(6):
        now = limiter.next_chance()
        limiter.refuse(limiter.send(), now)
    for _ in range(5):  # the account's limit is 5 now: each seat that was freed is refused
        limiter.finish()
        limiter.refuse(limiter.send(), now)

    assert limiter.limit == 5
    assert limiter.next_chance() - now == 75


def test_while_others_use_the_whole_account_it_is_tried_soon_and_then_every_half_minute() -> None:
    limiter = _refused_at(0)
    waits, now = [], 0.0
    for _ in range(7):
        waits.append(limiter.next_chance() - now)
        now = limiter.next_chance()
        limiter.refuse(limiter.send(), now)

    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert limiter.limit == 0


@pytest.mark.parametrize("ended", [1, 2])
def test_a_job_that_ends_during_a_refused_create_may_have_made_room_which_is_tried_soon(ended: int) -> None:
    limiter = _refused_at(3)
    now = limiter.next_chance()
    probe = limiter.send()
    for _ in range(ended):
        limiter.finish()
    limiter.refuse(probe, now)

    assert limiter.limit == 3 - ended
    assert limiter.next_chance() == now + 1


def test_a_job_that_is_accepted_and_ends_during_a_refused_create_may_have_made_room() -> None:
    limiter = Limiter()
    _fill(limiter, 2)
    epochs = [limiter.send(), limiter.send()]
    limiter.accept(0.0)
    limiter.finish()
    limiter.refuse(epochs[1], 0.0)

    assert limiter.next_chance() == 1


def test_a_job_that_ended_before_a_refused_create_has_made_no_room() -> None:
    limiter = _refused_at(3)
    limiter.finish()
    limiter.refuse(limiter.send(), 0.0)

    assert limiter.limit == 2
    assert limiter.next_chance() == 15


def test_a_probe_waits_for_the_retry_after() -> None:
    limiter = Limiter()
    _fill(limiter, 2)
    limiter.refuse(limiter.send(), 100.0, retry_after=90)

    assert limiter.next_chance() == 190


def test_the_callers_own_limit_is_never_exceeded() -> None:
    limiter = Limiter(most=2)
    _fill(limiter, 2)

    assert not limiter.may_send(math.inf)
    assert limiter.next_chance() == math.inf


def test_jobs_of_an_earlier_run_count() -> None:
    limiter = Limiter()
    for _ in range(12):
        limiter.adopt()

    assert limiter.limit == 12
    assert not limiter.may_send(0.0)


class LimiterMachine(RuleBasedStateMachine):
    """Anything may happen in any order; an account of any size, which changes, answers."""

    def __init__(self) -> None:
        super().__init__()
        self.limiter = Limiter()
        self.now = 0.0
        self.epochs: list[int] = []

    @rule(seconds=st.floats(0, 1000))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.limiter.may_send(self.now))
    @rule()
    def send(self) -> None:
        self.epochs.append(self.limiter.send())

    @precondition(lambda self: self.epochs)
    @rule(pick=st.randoms())
    def accept(self, pick) -> None:
        self.epochs.remove(pick.choice(self.epochs))
        self.limiter.accept(self.now)

    @precondition(lambda self: self.epochs)
    @rule(pick=st.randoms(), retry_after=st.none() | st.floats(0, 100))
    def refuse(self, pick, retry_after: float | None) -> None:
        epoch = pick.choice(self.epochs)
        self.epochs.remove(epoch)
        self.limiter.refuse(epoch, self.now, retry_after=retry_after)

    @precondition(lambda self: self.epochs)
    @rule()
    def give_up(self) -> None:
        self.epochs.pop()
        self.limiter.give_up()

    @precondition(lambda self: self.limiter.in_flight)
    @rule()
    def finish(self) -> None:
        self.limiter.finish()

    @rule()
    def adopt(self) -> None:
        self.limiter.adopt()

    @invariant()
    def counts_are_right(self) -> None:
        assert self.limiter.in_air == len(self.epochs) <= MOST_IN_AIR
        assert self.limiter.in_flight >= 0
        assert self.limiter.limit >= 0

    @invariant()
    def it_never_waits_for_what_cannot_come(self) -> None:
        if not self.limiter.in_air and not self.limiter.in_flight:
            assert self.limiter.may_send(max(self.now, self.limiter.next_chance())) or self.limiter.may_send(self.now)

    @invariant()
    def the_chance_it_names_is_one(self) -> None:
        chance = self.limiter.next_chance()
        assert chance == math.inf or self.limiter.may_send(max(chance, self.now))


TestLimiterMachine = LimiterMachine.TestCase


def test_after_a_create_without_an_answer_they_are_sent_one_by_one_and_less_and_less_often() -> None:
    breaker = CircuitBreaker()
    waits, now = [], 100.0
    for _ in range(8):
        breaker.failure(now)
        waits.append(breaker.next_chance() - now)
        assert not breaker.may_send(now, in_air=0)
        now = breaker.next_chance()
        assert breaker.may_send(now, in_air=0)
        assert not breaker.may_send(now, in_air=1)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_creates_that_failed_together_count_as_one_failure() -> None:
    breaker = CircuitBreaker()
    for moment in (100.0, 100.1, 100.9):
        breaker.failure(moment)

    assert breaker.next_chance() == 101.0


def test_an_answer_ends_the_failures() -> None:
    breaker = CircuitBreaker()
    breaker.failure(0.0)
    breaker.success()

    assert breaker.may_send(0.5, in_air=3)


def test_a_server_that_never_answered_ends_the_run_soon() -> None:
    breaker = CircuitBreaker()
    assert not breaker.is_hopeless(1e9)  # nothing was asked yet

    breaker.failure(100.0)
    breaker.failure(130.0)

    assert not breaker.is_hopeless(100 + NEVER_ANSWERED)
    assert breaker.is_hopeless(101 + NEVER_ANSWERED)


def test_an_outage_of_up_to_an_hour_is_waited_out() -> None:
    breaker = CircuitBreaker()
    breaker.success()
    breaker.failure(10_000.0)
    breaker.failure(12_000.0)

    assert not breaker.is_hopeless(10_000 + OUTAGE)
    assert breaker.is_hopeless(10_001 + OUTAGE)
