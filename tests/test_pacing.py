"""Departures after a 429."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async._transport.pacing import Pace, Pacer


def leaves(pacer, scope, now):
    return max(departure.time for departure in pacer.book(scope, now))


def test_without_a_429_requests_leave_at_once():
    pace = Pace()
    assert [pace.book(5.0).time for _ in range(3)] == [5.0, 5.0, 5.0]


def test_after_a_pause_requests_leave_one_by_one():
    pace = Pace()
    pace.refuse(10.0, 2.0)
    assert [pace.book(11.0).time for _ in range(3)] == [12.0, 12.02, 12.04]


def test_requests_refused_together_teach_the_gap_once():
    pace = Pace()
    for _ in range(10):
        pace.refuse(10.0, 1.0)
    assert pace.gap == 0.02
    pace.refuse(11.5, 1.0)
    assert pace.gap == 0.04


def test_the_gap_has_an_upper_bound_and_shrinks_to_nothing():
    pace = Pace()
    for now in range(0, 100, 10):
        pace.refuse(now, 1.0)
    assert pace.gap == 1.0
    for _ in range(500):
        pace.accept(100.0)
    assert pace.gap == 0.0


def test_an_answer_during_a_pause_teaches_nothing():
    pace = Pace()
    pace.refuse(0.0, 5.0)
    for _ in range(500):
        pace.accept(4.9)
    assert pace.gap == 0.02


def test_a_shorter_pause_does_not_cut_a_longer_one():
    pace = Pace()
    pace.refuse(0.0, 10.0)
    pace.refuse(1.0, 2.0)
    assert pace.book(1.0).time == 10.0


def test_a_time_that_was_given_back_is_the_next_ones():
    pace = Pace()
    pace.refuse(0.0, 1.0)
    first, second, third = (pace.book(0.0) for _ in range(3))
    pace.give_back(third)
    pace.give_back(first)
    assert [pace.book(0.5).time for _ in range(3)] == [first.time, third.time, 1.06]
    pace.give_back(second)
    assert pace.book(1.03).time == 1.08  # the second's time has passed


def test_a_refusal_voids_the_times_that_were_given_back():
    pace = Pace()
    pace.refuse(0.0, 1.0)
    pace.give_back(pace.book(0.0))
    pace.refuse(0.5, 1.0)
    assert pace.book(0.5).time == 1.5


def test_a_refused_create_holds_back_creates_only():
    pacer = Pacer()
    pacer.refuse("creates", 0.0, 5.0)
    assert leaves(pacer, "session", 1.0) == 1.0
    assert leaves(pacer, "creates", 1.0) == 5.0


def test_any_other_refusal_holds_back_everybody():
    pacer = Pacer()
    pacer.refuse("session", 0.0, 5.0)
    assert leaves(pacer, "creates", 1.0) == 5.0


def test_a_refusal_voids_what_was_booked_in_its_scope_only():
    pacer = Pacer()
    pacer.refuse("creates", 0.0, 1.0)
    assert {scope: pacer.pauses(scope) for scope in ("session", "creates")} == {"session": 0, "creates": 1}
    pacer.refuse("session", 0.0, 1.0)
    assert {scope: pacer.pauses(scope) for scope in ("session", "creates")} == {"session": 1, "creates": 2}


def test_the_pacer_is_free_again_when_the_last_gap_has_gone():
    pacer = Pacer()
    assert pacer.is_free
    pacer.refuse("creates", 0.0, 1.0)
    pacer.refuse("session", 0.0, 1.0)
    assert not pacer.is_free
    for _ in range(200):
        pacer.accept("session", 2.0)
    assert not pacer.is_free
    for _ in range(200):
        pacer.accept("creates", 2.0)
    assert pacer.is_free


@given(st.lists(st.tuples(st.sampled_from(["book", "refuse", "accept"]), st.floats(0, 3)), max_size=60))
def test_between_two_refusals_departures_keep_their_order_and_none_is_before_its_time(events):
    pace, now, last = Pace(), 0.0, 0.0
    for event, number in events:
        now += number
        if event == "book":
            departure = pace.book(now).time
            assert departure >= max(now, pace.paused_until)
            assert departure >= last
            last = departure
        elif event == "refuse":
            pace.refuse(now, number)
            last = 0.0  # what was booked before is void
        else:
            pace.accept(now)


@pytest.mark.parametrize(("waiting", "refused"), [("creates", "creates"), ("creates", "session")])
def test_a_pause_of_one_pace_takes_nothing_of_the_times_that_the_other_gets_back(waiting, refused):
    pacer = Pacer()
    for pace in (pacer.session, pacer.creates):
        pace.refuse(0.0, 1.0)
    booked = [pacer.book(waiting, 0.0) for _ in range(1000)]
    pacer.refuse(refused, 0.5, 1.0)
    for departures in booked:
        pacer.give_back(waiting, departures)

    other = "session" if refused == "creates" else "creates"
    assert leaves(pacer, other, 0.6) <= 1.6
