"""The board: who waits for what, what is due, who asks. Pure, so time is a number."""

import gc
import math
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from attrs import define, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from heygen_async._ids import MAX_STATUS_IDS, MAX_STATUS_QUERY
from heygen_async._polling.board import Board
from heygen_async._polling.lanes import Lane, Lanes
from heygen_async._polling.pages import Pages
from heygen_async._polling.waiting import Errand, ManyWaiter, Moment, Place, Waiter, Way
from heygen_async.errors import (
    APIError,
    AuthenticationError,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.policies import PollPolicy

RUNNING, COMPLETED = LipsyncStatus.RUNNING, LipsyncStatus.COMPLETED


@frozen
class Page:
    items: list
    next_token: str | None = None
    has_more: bool = False


def done(lipsync_id, status=COMPLETED):
    return Lipsync(id=lipsync_id, status=status)


def crowd(board, count, *, now=0.0, deadline=math.inf, name="ls"):
    """Let *count* waiters wait for an id each, due at once, and return the waiters."""
    waiters = [Waiter(deadline) for _ in range(count)]
    for n, waiter in enumerate(waiters):
        board.join(waiter, f"{name}_{n}", now)
    return waiters


def errands(waiters):
    """Return the errands that these were handed."""
    return [waiter.errand for waiter in waiters if waiter.errand is not None]


def one_look(board, waiters, now=0.0):
    board.take(now)
    (errand,) = errands(waiters)
    return errand


# When to look


@pytest.mark.parametrize(
    ("age", "typical", "seconds"),
    [
        pytest.param(0, 0, 1, id="never sooner than the fastest"),
        pytest.param(100, 0, 3, id="a share of its age"),
        pytest.param(10, 200, 6, id="a share of a typical job while it is younger"),
        pytest.param(300, 200, 9, id="a share of its age once it is older"),
        pytest.param(1e9, 0, 15, id="never later than the slowest"),
    ],
)
def test_the_interval_is_a_share_of_the_jobs_length(age, typical, seconds):
    assert PollPolicy().interval(age, typical) == pytest.approx(seconds)


def test_the_named_policies_differ_in_how_soon_they_look():
    eager, default, gentle = PollPolicy.eager(), PollPolicy(), PollPolicy.gentle()

    for age in (0, 100, 10_000):
        assert eager.interval(age, 0) < default.interval(age, 0) < gentle.interval(age, 0)
    assert default.longest < gentle.longest


@pytest.mark.parametrize("field", ["fastest", "growth", "slowest", "longest", "max_bulk"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "1"])
def test_a_policy_of_nonsense_is_refused(field, value):
    with pytest.raises((TypeError, ValueError), match=field):
        PollPolicy(**{field: value})


def test_a_policy_whose_fastest_is_slower_than_its_slowest_is_refused():
    with pytest.raises(ValueError, match="fastest"):
        PollPolicy(fastest=10, slowest=5)


def test_an_id_of_unknown_age_is_due_at_once_and_a_new_job_is_not():
    board = Board(PollPolicy())

    unknown = board.join(Waiter(math.inf), "ls_1", 100.0)
    new = board.join(Waiter(math.inf), "ls_2", 100.0, age=0.0)
    old = board.join(Waiter(math.inf), "ls_3", 100.0, age=50.0)

    assert (unknown.due, new.due, old.due) == (100.0, 101.0, 100.0)
    assert board.next_due() == 100.0


def test_the_age_that_anybody_knows_counts_for_all():
    board = Board(PollPolicy())
    first = board.join(Waiter(math.inf), "ls_1", 100.0)

    again = board.join(Waiter(math.inf), "ls_1", 110.0, age=60.0)

    assert first is again
    assert again.born == 50.0


def test_the_time_to_the_next_look_goes_by_age_and_spread():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    errand = one_look(board, [waiter])

    board.heard(errand, {"ls_0": RUNNING}, Moment(200.0, spread=1.1))

    assert board.next_due() == pytest.approx(200 + 200 * 0.03 * 1.1)


def test_the_typical_length_is_the_median_of_those_seen_to_run_and_end():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    errand = one_look(board, waiters)
    board.heard(errand, dict.fromkeys(errand.ids, RUNNING), Moment(1.0))
    for waiter, now in zip(waiters, (100.0, 200.0, 9000.0), strict=True):
        board.take(now)
        (errand,) = errands(waiters)
        board.heard(errand, dict.fromkeys(errand.ids, RUNNING) | {_id(board, waiter): COMPLETED}, Moment(now))
        board.fetched(waiter.errand, done(_id(board, waiter)), Moment(now))

    board.join(Waiter(math.inf), "ls_new", 9000.0, age=0.0)
    late = [one for one in board.awaited() if one.id == "ls_new"]

    assert late[0].due == pytest.approx(9000 + 200 * 0.03)


def _id(board, waiter):
    return next(one.id for one in board.awaited() if waiter in one.waiters)


def test_a_job_that_had_ended_before_it_was_waited_for_tells_nothing_of_lengths():
    board = Board(PollPolicy())
    waiters = [Waiter(math.inf)]
    board.join(waiters[0], "ls_old", 0.0, age=1e6)
    errand = one_look(board, waiters)
    board.heard(errand, {"ls_old": COMPLETED}, Moment(0.0))
    board.fetched(waiters[0].errand, done("ls_old"), Moment(0.0))

    assert board.join(Waiter(math.inf), "ls_new", 0.0, age=0.0).due == 1.0


def test_created_at_of_a_fetched_lipsync_is_its_age():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.notify("ls_0")
    wall = datetime(2026, 1, 1, tzinfo=UTC)
    running = Lipsync(id="ls_0", status=RUNNING, created_at=wall - timedelta(seconds=400))

    board.fetched(waiter.errand, running, Moment(7.0, wall))

    assert [one.due for one in board.awaited()] == [pytest.approx(7 + 400 * 0.03)]


# Chunks


def test_ids_that_are_due_leave_in_chunks_of_a_hundred_and_the_rest_waits_for_a_seat():
    board = Board(PollPolicy(max_bulk=2))
    waiters = crowd(board, 250)

    board.take(0.0)

    first, second = errands(waiters)
    assert [len(first.ids), len(second.ids)] == [MAX_STATUS_IDS, MAX_STATUS_IDS]
    assert board.next_due() is None

    board.heard(first, dict.fromkeys(first.ids, RUNNING), Moment(1.0))
    board.take(1.0)
    (third,) = (errand for errand in errands(waiters) if errand is not second)
    assert third.ids[:50] == [f"ls_{n}" for n in range(200, 250)]


def test_empty_seats_are_taken_by_those_due_next():
    board = Board(PollPolicy())
    waiters = [Waiter(math.inf) for _ in range(150)]
    for n, waiter in enumerate(waiters):
        board.join(waiter, f"ls_{n}", float(n), age=0.0)

    board.take(1.0)

    (errand,) = errands(waiters)
    assert errand.ids == [f"ls_{n}" for n in range(100)]


def test_a_chunk_ends_at_the_length_that_a_query_may_have():
    board = Board(PollPolicy(max_bulk=1))
    waiters = crowd(board, 100, name="x" * 194)

    errand = one_look(board, waiters)

    assert len(",".join(errand.ids)) <= MAX_STATUS_QUERY
    assert len(errand.ids) == 30  # 194 + 2 or 3 for the number + 3 for the comma
    asked = set(errand.ids)
    for _ in range(3):
        board.heard(errand, dict.fromkeys(errand.ids, RUNNING), Moment(0.5))
        errand = one_look(board, waiters, 0.5)
        asked |= set(errand.ids)
    assert len(asked) == 100


def test_characters_that_are_escaped_in_a_query_count_as_what_they_become():
    board = Board(PollPolicy(max_bulk=1))

    errand = one_look(board, crowd(board, 100, name="é" * 32))

    assert len(errand.ids) == 30  # six characters each


def test_an_id_longer_than_a_query_is_asked_about_by_itself():
    board = Board(PollPolicy())
    waiter = Waiter(math.inf)
    board.join(waiter, "x" * 9000, 0.0)

    assert one_look(board, [waiter]).ids == ["x" * 9000]


def test_with_nobody_waiting_nothing_is_due():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    (awaited,) = board.awaited()

    board.leave(waiter, awaited, 0.0)

    assert board.next_due() is None
    assert board.awaited() == []


def test_what_nobody_waits_for_takes_no_seat():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    gone = next(one for one in board.awaited() if one.id == "ls_1")
    board.leave(waiters.pop(1), gone, 0.0)

    assert one_look(board, waiters).ids == ["ls_0", "ls_2"]


def test_ids_that_come_and_go_leave_nothing_behind():
    board = Board(PollPolicy())
    crowd(board, 1, name="stays")
    for n in range(10_000):
        waiter = Waiter(math.inf)
        board.leave(waiter, board.join(waiter, f"ls_{n}", 0.0), 0.0)

    gc.collect()

    assert len(board._shared.entries) < 100
    assert len(board._index) < 100


# Carriers


def test_the_waiter_with_the_latest_deadline_carries_the_chunk():
    board = Board(PollPolicy())
    hasty, patient = Waiter(1.0), Waiter(50.0)
    board.join(hasty, "ls_1", 0.0)
    board.join(patient, "ls_2", 0.0)

    board.take(0.0)

    assert hasty.errand is None
    assert patient.errand is not None
    assert patient.errand.ids == ["ls_1", "ls_2"]


def test_a_carrier_that_leaves_hands_its_chunk_to_another_at_once():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    errand = one_look(board, waiters)
    carrier = errand.carrier
    (own,) = (one for one in errand.awaited if carrier in one.waiters)

    board.leave(carrier, own, 5.0)
    board.take(5.0)

    (again,) = errands(waiter for waiter in waiters if waiter is not carrier)
    assert set(again.ids) == set(errand.ids) - {own.id}


def test_a_late_answer_to_an_errand_that_was_given_back_changes_nothing():
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    errand = one_look(board, waiters)
    board.give_back(errand, Moment(5.0))

    board.heard(errand, dict.fromkeys(errand.ids, COMPLETED), Moment(6.0))

    assert [one.place for one in board.awaited()] == [Place.QUEUED, Place.QUEUED]
    assert board.looks == 0


def test_a_slow_chunk_holds_up_no_other():
    board = Board(PollPolicy())
    waiters = crowd(board, 300)
    board.take(0.0)
    slow, *others = errands(waiters)

    for errand in others:
        board.heard(errand, dict.fromkeys(errand.ids, RUNNING), Moment(0.1))
    board.take(2.0)

    asked = {one for errand in errands(waiters) if errand is not slow for one in errand.ids}
    assert asked == {f"ls_{n}" for n in range(300)} - set(slow.ids)


def test_one_of_those_who_wait_for_a_finished_id_fetches_it_for_all():
    board = Board(PollPolicy())
    hasty, patient = Waiter(1.0), Waiter(50.0)
    for waiter in (hasty, patient):
        board.join(waiter, "ls_1", 0.0)
    look = one_look(board, [hasty, patient])

    board.heard(look, {"ls_1": COMPLETED}, Moment(0.5))
    fetch = patient.errand
    assert (fetch.way, hasty.errand) == (Way.FETCH, None)
    board.fetched(fetch, done("ls_1"), Moment(0.6))

    assert hasty.outcome == patient.outcome == done("ls_1")


def test_an_id_that_the_get_says_is_running_goes_back():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.heard(one_look(board, [waiter]), {"ls_0": COMPLETED}, Moment(0.0))

    board.fetched(waiter.errand, done("ls_0", RUNNING), Moment(0.0))

    assert waiter.outcome is None
    assert board.next_due() == 1.0


def test_somebody_who_joins_a_finished_id_that_nobody_fetches_does():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    board.join(many, "ls_1", 0.0)
    board.enter(many)
    board.take(0.0)
    (look,) = many.to_start
    board.exit(many)
    board.heard(look, {"ls_1": COMPLETED}, Moment(1.0))
    (awaited,) = board.awaited()
    assert awaited.place is Place.WANTED

    waiter = Waiter(math.inf)
    board.join(waiter, "ls_1", 2.0)

    assert waiter.errand.way is Way.FETCH


def away_with_a_finished_batch(count=20):
    """Return a board and a waiter of many that is away, with *count* ids that want to be fetched."""
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(count):
        board.join(many, f"ls_{n}", 0.0)
    board.enter(many)
    board.take(0.0)
    look = many.to_start.popleft()
    board.exit(many)
    board.heard(look, dict.fromkeys(look.ids, COMPLETED), Moment(1.0))
    return board, many


def test_what_finished_while_its_waiter_was_away_is_read_off_the_list_on_return():
    board, many = away_with_a_finished_batch()

    board.enter(many)

    assert [(errand.way, len(errand.ids)) for errand in many.to_start] == [(Way.PAGE, 20)]


def test_an_id_that_two_waiters_of_many_want_is_asked_about_once():
    board, many = away_with_a_finished_batch()
    other = ManyWaiter(math.inf)
    board.join(other, "ls_0", 1.0)

    board.enter(many)
    board.enter(other)

    asked = [one for waiter in (many, other) for errand in waiter.to_start for one in errand.ids]
    assert sorted(asked) == sorted(f"ls_{n}" for n in range(20))


def test_pages_that_go_on_when_nobody_is_there_leave_the_rest_to_be_fetched_on_return():
    board, many = away_with_a_finished_batch()
    board.enter(many)
    page = many.to_start.popleft()
    board.exit(many)

    board.paged(page, Page([done(f"ls_{n}") for n in range(8)], "more", has_more=True), Moment(2.0))
    board.enter(many)

    assert [(errand.way, errand.token) for errand in many.to_start] == [(Way.PAGE, "more")]
    assert len(many.to_start[0].ids) == 12


# Answers


@pytest.mark.parametrize("status", [LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND])
def test_every_last_status_is_looked_at_whole(status):
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    board.heard(one_look(board, [waiter]), {"ls_0": status}, Moment(0.0))

    assert waiter.errand.way is Way.FETCH


def test_an_unknown_status_is_not_the_last():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    board.heard(one_look(board, [waiter]), {"ls_0": "simmering"}, Moment(0.0))

    assert waiter.errand is None
    assert [one.status for one in board.awaited()] == ["simmering"]


def test_an_id_missing_from_an_answer_is_asked_again_and_in_the_end_on_its_own():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    ways = []
    for now in (0.0, 10.0, 20.0):
        board.take(now)
        ways.append(waiter.errand.way)
        board.heard(waiter.errand, {}, Moment(now))
    ways.append(waiter.errand.way)

    assert ways == [Way.LOOK, Way.LOOK, Way.LOOK, Way.FETCH]


def test_only_answers_in_a_row_that_leave_out_an_id_count():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    for now, words in enumerate([{}, {}, {"ls_0": RUNNING}, {}, {}]):
        board.take(now * 20.0)
        board.heard(waiter.errand, words, Moment(now * 20.0))

    assert waiter.errand is None


def test_an_answer_that_comes_after_all_waits_were_ended_changes_nothing():
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    board.notify("ls_1")
    look, fetch = waiters[0].errand, waiters[1].errand
    assert look is None
    board.take(0.0)
    look = waiters[0].errand
    board.end_all(error := RuntimeError("closed"), 1.0)

    board.heard(look, {"ls_0": COMPLETED}, Moment(2.0))
    board.fetched(fetch, done("ls_1"), Moment(2.0))

    assert [waiter.outcome for waiter in waiters] == [error, error]
    assert board.next_due() is None or board.awaited() == []
    assert board.looks == 0


def test_watchers_are_rung_when_a_status_changes_and_only_then():
    board = Board(PollPolicy())
    watcher, other = Waiter(math.inf, watching=True), Waiter(math.inf)
    for waiter in (watcher, other):
        board.join(waiter, "ls_1", 0.0)

    rung = []
    for now, status in ((0.0, "pending"), (10.0, "pending"), (20.0, "running")):
        errand = one_look(board, [watcher, other], now)
        board.rung()
        board.heard(errand, {"ls_1": status}, Moment(now))
        rung.append([waiter is watcher for waiter in board.rung()])

    assert rung == [[True], [], [True]]


def test_word_of_an_id_has_it_fetched_at_once():
    board = Board(PollPolicy())
    waiter = Waiter(math.inf)
    board.join(waiter, "ls_1", 0.0, age=0.0)

    board.notify("ls_1")
    board.notify("ls_1")
    board.notify("ls_nobody_waits_for")

    assert waiter.errand.way is Way.FETCH


def test_word_of_an_id_whose_waiter_is_away_has_it_fetched_on_its_return():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    board.join(many, "ls_1", 0.0)
    other = Waiter(math.inf)
    board.join(other, "ls_other", 0.0)
    board.take(0.0)

    board.notify("ls_1")
    board.enter(many)

    assert [errand.way for errand in many.to_start] == [Way.FETCH]


def test_an_id_that_was_fetched_early_is_not_asked_about_at_its_former_time():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.notify("ls_0")
    board.fetched(waiter.errand, done("ls_0", RUNNING), Moment(0.0))

    board.take(0.5)
    assert waiter.errand is None
    board.take(1.0)
    assert waiter.errand is not None


def test_an_id_that_is_queued_twice_for_one_time_takes_one_seat():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.heard(one_look(board, [waiter]), {"ls_0": RUNNING}, Moment(0.0))
    board.notify("ls_0")
    board.fetched(waiter.errand, done("ls_0", RUNNING), Moment(0.0))

    assert one_look(board, [waiter], 1.0).ids == ["ls_0"]


def test_word_that_comes_while_an_id_is_in_flight_is_not_lost():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    look = one_look(board, [waiter])
    board.notify("ls_0")

    board.heard(look, {"ls_0": RUNNING}, Moment(1.0))
    assert waiter.errand.way is Way.FETCH
    board.fetched(waiter.errand, done("ls_0", RUNNING), Moment(1.0))

    assert waiter.errand is None


def test_the_policys_deadline_ends_a_wait_that_has_none_of_its_own():
    board = Board(PollPolicy())
    soft, hard = Waiter(10.0, soft=True), Waiter(10.0)
    for waiter in (soft, hard):
        board.join(waiter, "ls_1", 0.0)
    errand = one_look(board, [soft, hard])

    board.heard(errand, {"ls_1": RUNNING}, Moment(10.0))

    assert [list(one.waiters) for one in board.awaited()] == [[hard]]
    assert isinstance(soft.outcome, WaitTimeout)
    assert soft.outcome.last_status == "running"
    assert hard.outcome is None


# Errors


def http(kind, status, **fields):
    return kind("no", status=status, **fields)


TRANSIENT = [
    TransportError("gone"),
    RequestTimeout("late"),
    http(ServerError, 503),
    http(RateLimited, 429),
    http(APIError, 408),
    UnexpectedResponse(["html"], status=200),
]
LASTING = [http(InvalidRequest, 400), http(APIError, 402), LipsyncFailed(done("ls_1"))]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_may_pass_is_tried_again_and_ever_later(error):
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    dues = [0.0]

    for _ in range(4):
        board.failed(one_look(board, [waiter], dues[-1]), error, Moment(dues[-1]))
        dues.append(board.next_due())

    assert waiter.outcome is None
    assert [b - a for a, b in pairwise(dues)] == [2.0, 4.0, 8.0, 15.0]
    assert [one.failures.error for one in board.awaited()] == [error]


def test_a_server_that_is_gone_for_days_is_still_tried():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.awaited()[0].failures.count = 100_000

    board.failed(one_look(board, [waiter]), TransportError("gone"), Moment(1.0))

    assert board.next_due() == 16.0


def test_the_time_that_a_server_asks_for_is_never_undercut():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    board.failed(one_look(board, [waiter]), http(RateLimited, 429, retry_after=77), Moment(1.0))

    assert board.next_due() == 78.0


def test_a_server_that_asks_for_a_year_does_not_keep_a_wait_beyond_the_longest():
    board = Board(PollPolicy(longest=100))
    (waiter,) = crowd(board, 1)

    board.failed(one_look(board, [waiter]), http(RateLimited, 429, retry_after=365 * 86400.0), Moment(1.0))

    assert board.next_due() == 101.0


def test_an_answer_that_stays_unreadable_is_told():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    error = UnexpectedResponse(["html"], status=200)

    for _ in range(10):
        assert waiter.outcome is None
        now = board.next_due()
        board.failed(one_look(board, [waiter], now), error, Moment(now))

    assert waiter.outcome is error


def test_an_unreadable_answer_after_a_long_outage_is_not_the_last_straw():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    for n in range(60):
        now = board.next_due()
        error = UnexpectedResponse(["html"], status=200) if n % 20 > 11 else TransportError("gone")
        board.failed(one_look(board, [waiter], now), error, Moment(now))

    assert waiter.outcome is None


@pytest.mark.parametrize("error", [error for error in LASTING if not isinstance(error, InvalidRequest)], ids=repr)
def test_what_will_not_pass_is_told_to_those_of_the_chunk_only(error):
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.take(0.0)
    errand, other = errands(waiters)

    board.failed(errand, error, Moment(1.0))

    told = [waiter for waiter in waiters if waiter.outcome is not None]
    assert len(told) == 100
    assert all(waiter.outcome is error for waiter in told)
    assert not other.settled


def test_one_bad_id_in_a_chunk_ends_no_other():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    errand = one_look(board, waiters)

    board.failed(errand, http(InvalidRequest, 400), Moment(1.0))
    assert [waiter.errand.way for waiter in waiters] == [Way.FETCH] * 3
    board.failed(waiters[0].errand, bad := http(InvalidRequest, 400), Moment(2.0))

    assert [waiter.outcome for waiter in waiters] == [bad, None, None]


@pytest.mark.parametrize("error", [*LASTING, http(NotFound, 404), http(PermissionDenied, 403)], ids=repr)
def test_a_fetch_that_will_not_succeed_is_told_to_those_of_the_id(error):
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    board.notify("ls_0")

    board.failed(waiters[0].errand, error, Moment(1.0))

    assert [waiter.outcome for waiter in waiters] == [error, None]
    assert board.has_statuses


def test_a_refused_key_ends_all_waits():
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.take(0.0)

    board.failed(errands(waiters)[0], error := http(AuthenticationError, 401), Moment(1.0))

    assert all(waiter.outcome is error for waiter in waiters)
    assert board.awaited() == []


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_only_what_may_pass_is_transient(error):
    assert error.is_transient
    assert not any(lasting.is_transient for lasting in LASTING)


# An account without bulk status requests


@pytest.mark.parametrize("error", [http(NotFound, 404), http(PermissionDenied, 403)], ids=repr)
def test_an_account_without_bulk_requests_is_learnt_once(error):
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    board.failed(one_look(board, waiters), error, Moment(1.0))

    board.take(1.0)
    assert [waiter.errand.way for waiter in waiters] == [Way.FETCH] * 3
    for n, waiter in enumerate(waiters):
        board.fetched(waiter.errand, done(f"ls_{n}", RUNNING), Moment(1.0))
    board.take(50.0)

    assert [waiter.errand.way for waiter in waiters] == [Way.FETCH] * 3


def without_bulk(count):
    board = Board(PollPolicy())
    waiters = crowd(board, count)
    board.has_statuses = False
    return board, waiters


def test_without_bulk_requests_many_ids_are_looked_for_in_the_list():
    board, waiters = without_bulk(50)
    page = one_look(board, waiters)
    assert (page.way, page.token) == (Way.PAGE, None)

    items = [done(f"ls_{n}", RUNNING if n % 2 else COMPLETED) for n in range(30)]
    board.paged(page, Page(items, "more", has_more=True), Moment(1.0))
    (following,) = errands(waiters)
    assert (following.way, following.token, len(following.ids)) == (Way.PAGE, "more", 20)
    board.paged(following, Page([], None), Moment(2.0))

    assert sum(waiter.outcome is not None for waiter in waiters) == 15
    assert [errand.way for errand in errands(waiters)] == [Way.FETCH] * 20


def test_without_bulk_requests_none_is_made_however_many_ids_are_due():
    board, waiters = without_bulk(2500)

    board.take(0.0)
    board.take(0.0)

    assert {errand.way for errand in errands(waiters)} <= {Way.PAGE, Way.FETCH}


def test_pages_that_bring_too_little_are_tried_less_and_less():
    board, waiters = without_bulk(20)

    ways = []
    for now in range(0, 2000, 20):
        board.take(float(now))
        ways.append(errands(waiters)[0].way)
        for _ in range(2):
            for errand in errands(waiters):
                if errand.way is Way.PAGE:
                    board.paged(errand, Page([]), Moment(float(now)))
                else:
                    board.fetched(errand, done(errand.ids[0], RUNNING), Moment(float(now)))

    assert [n for n, way in enumerate(ways) if way is Way.PAGE] == [0, 2, 6, 14, 30, 62, 94]


@pytest.mark.parametrize(
    ("brought", "has_more"),
    [pytest.param(4, True, id="too little"), pytest.param(20, False, id="the list is at its end")],
)
def test_no_further_page_is_read_for_nothing(brought, has_more):
    board, waiters = without_bulk(50)

    items = [done(f"ls_{n}") for n in range(brought)]
    board.paged(one_look(board, waiters), Page(items, "more", has_more=has_more), Moment(1.0))

    assert [errand.way for errand in errands(waiters)] == [Way.FETCH] * (50 - brought)


def page_errand(token=None):
    return Errand(Way.PAGE, [], Waiter(math.inf), token)


def test_a_page_that_pays_makes_up_for_those_that_did_not():
    pages = Pages()
    for _ in range(2):
        pages.learn(page_errand(), Page([]), saved=0, left=50)

    pages.learn(page_errand(), Page([]), saved=5, left=0)

    assert pages.worth_it(100)


def test_the_reading_of_the_list_goes_on_where_it_found_all_it_wanted():
    pages = Pages()
    assert pages.begin(at_the_newest=False) is None

    assert not pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)
    assert pages.begin(at_the_newest=False) == "two"


def test_the_reading_of_the_list_goes_back_to_the_newest_if_there_is_nothing_where_it_left_off():
    pages = Pages()
    pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)
    pages.begin(at_the_newest=False)

    assert pages.learn(page_errand("two"), Page([], "three", has_more=True), saved=0, left=50)
    assert pages.cursor is None
    assert not pages.learn(page_errand(), Page([], "three", has_more=True), saved=0, left=50)


def test_it_does_not_go_back_to_the_newest_for_a_few():
    pages = Pages()
    pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)
    pages.begin(at_the_newest=False)

    assert not pages.learn(page_errand("two"), Page([]), saved=0, left=9)
    assert pages.worth_it(50)


def test_one_page_is_read_at_a_time_and_only_many_wait_for_it():
    pages = Pages()
    pages.reading = reading = page_errand()

    assert not pages.worth_it(100)
    assert pages.join(9) is None
    assert pages.join(10) is reading


def test_without_bulk_requests_the_list_is_read_from_the_newest():
    pages = Pages()
    pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)

    assert pages.begin(at_the_newest=True) is None
    assert not pages.learn(page_errand(), Page([]), saved=0, left=50)


@pytest.mark.parametrize("order", [1, -1], ids=["oldest first", "newest first"])
def test_jobs_that_had_all_ended_cost_a_few_requests_for_each_hundred(order):
    board = Board(PollPolicy())
    names = [f"ls_{n}" for n in range(2000)]
    many = ManyWaiter(math.inf)
    for one in names[::order]:
        board.join(many, one, 0.0)
    board.enter(many)

    requests = 0
    while len(many.heard) < len(names):
        board.take(0.0)
        for errand in tuple(many.carried):
            requests += 1
            if errand.way is Way.LOOK:
                board.heard(errand, dict.fromkeys(errand.ids, COMPLETED), Moment(0.0))
            elif errand.way is Way.FETCH:
                board.fetched(errand, done(errand.ids[0]), Moment(0.0))
            else:
                at = int(errand.token or 0)
                items = [done(one) for one in names[::-1][at : at + 100]]
                board.paged(errand, Page(items, str(at + 100), has_more=at < 1900), Moment(0.0))

    # 40 at best; a page says nothing of those that are in flight while it comes, and some of them are fetched.
    assert requests < 200


def test_a_page_tells_of_others_that_are_awaited():
    board = Board(PollPolicy())
    waiters = crowd(board, 100)
    look = one_look(board, waiters)
    late = Waiter(math.inf)
    board.join(late, "ls_late", 0.0, age=0.0)
    board.heard(look, dict.fromkeys(look.ids, COMPLETED), Moment(0.1))

    (page,) = errands(waiters)
    board.paged(page, Page([done("ls_late")]), Moment(0.2))

    assert late.outcome == done("ls_late")


def test_a_page_leaves_alone_what_another_request_is_about():
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.take(0.0)
    first, second = errands(waiters)
    board.heard(first, dict.fromkeys(first.ids, COMPLETED), Moment(0.1))

    page = next(errand for errand in errands(waiters) if errand.way is Way.PAGE)
    board.paged(page, Page([done(one) for one in second.ids]), Moment(0.2))

    assert {awaited.place for awaited in second.awaited} == {Place.IN_FLIGHT}


def test_a_finished_batch_is_read_off_the_list():
    board = Board(PollPolicy())
    waiters = crowd(board, 100)
    look = one_look(board, waiters)

    board.heard(look, dict.fromkeys(look.ids, COMPLETED), Moment(1.0))
    (page,) = errands(waiters)
    board.paged(page, Page([done(one) for one in look.ids]), Moment(2.0))

    assert all(waiter.outcome == done(f"ls_{n}") for n, waiter in enumerate(waiters))


def test_what_finishes_while_a_page_is_read_waits_for_it():
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.take(0.0)
    first, second = errands(waiters)

    board.heard(first, dict.fromkeys(first.ids, COMPLETED), Moment(1.0))
    board.heard(second, dict.fromkeys(second.ids, COMPLETED), Moment(1.0))
    (page,) = errands(waiters)
    board.paged(page, Page([done(f"ls_{n}") for n in range(200)]), Moment(2.0))

    assert all(waiter.outcome is not None for waiter in waiters)


def test_a_page_that_fails_leaves_its_ids_to_be_fetched():
    board, waiters = without_bulk(20)
    page = one_look(board, waiters)

    board.failed(page, http(ServerError, 500), Moment(1.0))

    assert [errand.way for errand in errands(waiters)] == [Way.FETCH] * 20


# A waiter of many


def test_what_is_due_while_its_only_waiter_is_away_is_not_asked_about_until_it_is_back():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(3):
        board.join(many, f"ls_{n}", 0.0)
    other = Waiter(1.0)
    board.join(other, "ls_other", 0.0)

    assert one_look(board, [other]).ids == ["ls_other"]
    board.enter(many)
    board.take(0.0)

    assert [errand.ids for errand in many.to_start] == [["ls_0", "ls_1", "ls_2"]]


def test_a_waiter_of_many_fetches_a_limited_number_at_once_and_then_the_rest():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(40):
        board.join(many, f"ls_{n}", 0.0)
        board.notify(f"ls_{n}")
    board.enter(many)
    (page,) = many.to_start
    many.to_start.clear()
    board.paged(page, Page([]), Moment(0.0))
    assert len(many.carried) == 32

    while many.to_start:
        errand = many.to_start.popleft()
        board.fetched(errand, done(errand.ids[0]), Moment(1.0))

    assert sorted(one for one, _ in many.heard) == sorted(f"ls_{n}" for n in range(40))
    assert not many.pending


def test_a_waiter_of_many_that_goes_gives_its_errands_back():
    board = Board(PollPolicy())
    many, other = ManyWaiter(100.0), Waiter(1.0)
    board.join(many, "ls_1", 0.0)
    board.join(other, "ls_2", 0.0)
    board.enter(many)
    board.take(0.0)
    assert many.carried

    board.exit(many)
    board.leave_all(many, 5.0)
    board.take(5.0)

    assert not many.carried
    assert not many.to_start
    assert other.errand.ids == ["ls_2"]


def test_the_coming_and_going_of_a_waiter_of_many_costs_the_same_however_many_it_waits_for():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(3000):
        board.join(many, f"ls_{n}", 0.0)
    waiter = Waiter(math.inf)
    board.join(waiter, "ls_other", 1.0)

    assert one_look(board, [waiter], 1.0).ids == ["ls_other"]

    assert len(many.lane.entries) == 3000
    assert board.next_due() is None


def test_stale_entries_are_passed_over_a_slice_at_a_time():
    board = Board(PollPolicy())
    waiters = crowd(board, 2500)
    for waiter in waiters:
        board.notify(_id_of(waiters, waiter))
    late = Waiter(math.inf)
    board.join(late, "ls_late", 1.0)

    takes = 0
    while late.errand is None:
        takes += 1
        board.take(1.0)

    assert takes == 3


def _id_of(waiters, waiter):
    return f"ls_{waiters.index(waiter)}"


def test_an_id_that_only_somebody_away_waits_for_takes_no_seat_of_another():
    board = Board(PollPolicy())
    many, one, other = ManyWaiter(math.inf), Waiter(math.inf), Waiter(math.inf)
    held = board.join(one, "ls_1", 0.0)
    board.join(other, "ls_2", 0.0)
    board.join(many, "ls_1", 0.0)
    board.leave(one, held, 0.0)

    assert one_look(board, [other]).ids == ["ls_2"]
    board.enter(many)
    board.take(0.0)

    assert [errand.ids for errand in many.to_start] == [["ls_1"]]


def test_an_id_that_is_only_held_on_to_is_due_again_for_whoever_comes_back():
    board = Board(PollPolicy())
    crowd(board, 1, name="stays")
    first = Waiter(math.inf)
    held = board.join(first, "ls_1", 0.0)
    board.leave(first, held, 0.0)
    for n in range(200):
        waiter = Waiter(math.inf)
        board.leave(waiter, board.join(waiter, f"ls_{n + 2}", 0.0), 0.0)
    assert len(board._shared.entries) < 100

    second = Waiter(2.0)
    assert board.join(second, "ls_1", 0.0) is held
    board.take(0.0)

    assert held.place is Place.IN_FLIGHT


def test_a_refused_key_leaves_nothing_queued():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(1000):
        board.join(many, f"ls_{n}", 0.0)
    crowd(board, 1000)

    board.end_all(http(AuthenticationError, 401), 0.0)

    assert not many.lane.entries
    assert not board._shared.entries


# Lanes, against the plain way


LANE_STEPS = st.tuples(
    st.sampled_from(["push", "push", "look", "pop", "open", "close", "clear"]), st.integers(0, 1), st.integers(0, 5)
)


@given(st.lists(LANE_STEPS, min_size=20, max_size=80))
@settings(max_examples=200)
def test_of_all_open_lanes_the_first_due_comes_first(steps):
    lanes, model, is_open = Lanes(), [[], []], [False, False]
    both = [Lane(waiting=100) for _ in model]
    for step, n, due in steps:
        if step == "push":
            lanes.push(both[n], due, None)
            model[n].append(due)
        elif step == "clear":
            both[n].waiting = 0
            lanes.tidy(both[n], None)
            model[n].clear()
        elif step in {"open", "close"}:
            getattr(lanes, step)(both[n])
            is_open[n] = step == "open"
        else:
            due_now = [due for one, dues in zip(is_open, model, strict=True) if one for due in dues]
            assert lanes.first_due() == min(due_now, default=None)
            if step == "pop" and due_now:
                lane, popped, _ = lanes.pop()
                assert popped == min(due_now)
                model[both.index(lane)].remove(popped)


def test_the_list_of_lanes_does_not_grow_with_what_passes_through_them():
    lanes, lane = Lanes(), Lane()
    lanes.open(lane)

    lanes.push(lane, 1e9, None)
    for due in range(1000):
        lanes.push(lane, due, None)
        lanes.push(lane, due + 0.5, None)
        lanes.pop()
        lanes.pop()
        assert lanes.first_due() == 1e9

    assert len(lanes._heads) < 5


def test_a_lane_that_was_tidied_up_is_in_order():
    lanes, lane = Lanes(), Lane(waiting=1)
    lanes.open(lane)
    for due in sorted(range(200), key=lambda due: due * 7 % 200):
        lanes.push(lane, due, None)

    lanes.tidy(lane, lambda _lane, due, _awaited: due % 3 == 2)

    assert len(lane.entries) == 66
    popped = []
    while lanes.first_due() is not None:
        popped.append(lanes.pop()[1])
    assert popped == list(range(2, 200, 3))


# All of it, in any order


IDS = [f"ls_{n}" for n in range(140)]
ERRORS = [*TRANSIENT, *LASTING, http(NotFound, 404), http(AuthenticationError, 401)]


@define(eq=False)
class OneWaiter(Waiter):
    """A waiter that sees to it that it is treated well."""

    def give(self, errand):
        assert self.errand is None
        assert self.outcome is None
        _check_fit_to_carry(self, errand)
        super().give(errand)

    def tell(self, awaited, outcome):
        assert self.outcome is None
        super().tell(awaited, outcome)


@define(eq=False)
class Many(ManyWaiter):
    def give(self, errand):
        _check_fit_to_carry(self, errand)
        super().give(errand)

    def tell(self, awaited, outcome):
        assert awaited.id in self.pending
        super().tell(awaited, outcome)


def _check_fit_to_carry(waiter, errand):
    assert not isinstance(waiter, ManyWaiter) or waiter.here
    assert any(waiter in awaited.waiters for awaited in errand.awaited)
    free = [one for awaited in errand.awaited for one in awaited.waiters if one.is_free(errand.way)]
    assert waiter.deadline == max(one.deadline for one in free)


def pick(data, things):
    # By its place: hypothesis prints what it draws, and these are large.
    return things[data.draw(st.integers(0, len(things) - 1))]


class BoardMachine(RuleBasedStateMachine):
    """Every call of the board in any order, held against what must always be true."""

    @initialize(max_bulk=st.integers(1, 3), has_statuses=st.booleans())
    def start(self, max_bulk, has_statuses):
        self.board = Board(PollPolicy(max_bulk=max_bulk))
        self.board.has_statuses = has_statuses
        self.now = 0.0
        self.singles = {}
        self.manys = []
        self.random = random.Random(0)

    # Those who wait

    @rule(
        start=st.integers(0, 139),
        count=st.sampled_from([1, 1, 5, 120]),
        patience=st.sampled_from([0.5, 20.0, math.inf]),
        soft=st.booleans(),
        age=st.sampled_from([None, 0.0, 100.0]),
    )
    def join(self, start, count, patience, soft, age):
        for n in range(start, start + count):
            waiter = OneWaiter(self.now + patience, soft=soft)
            self.singles[waiter] = self.board.join(waiter, IDS[n % 140], self.now, age=age)

    @precondition(lambda self: self.singles)
    @rule(data=st.data())
    def leave(self, data):
        waiter = pick(data, list(self.singles))
        self.board.leave(waiter, self.singles.pop(waiter), self.now)

    @precondition(lambda self: any(waiter.errand for waiter in self.singles))
    @rule(data=st.data())
    def carrier_is_cancelled(self, data):
        waiter = pick(data, [waiter for waiter in self.singles if waiter.errand])
        self.board.leave(waiter, self.singles.pop(waiter), self.now)

    @rule(start=st.integers(0, 139), count=st.sampled_from([1, 5, 120]), patience=st.sampled_from([5.0, math.inf]))
    def join_many(self, start, count, patience):
        many = Many(self.now + patience)
        for n in range(start, start + count):
            self.board.join(many, IDS[n % 140], self.now)
        self.manys.append(many)

    @precondition(lambda self: self.manys)
    @rule(data=st.data())
    def come_or_go(self, data):
        many = pick(data, self.manys)
        if many.here:
            self.board.exit(many)
        else:
            self.board.enter(many)

    @precondition(lambda self: any(not many.here for many in self.manys))
    @rule(data=st.data(), for_good=st.booleans())
    def break_off(self, data, for_good):
        many = pick(data, [many for many in self.manys if not many.here])
        if for_good:
            self.board.leave_all(many, self.now)
            self.manys.remove(many)
        else:
            self.board.drop(many, self.now)

    # What happens

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 20.0]))
    def time_passes(self, seconds):
        self.now += seconds
        before = set(self.errands())
        self.board.take(self.now)
        self.check_taken(set(self.errands()) - before)

    def check_taken(self, new):
        waiting = [one for one in self.board.awaited() if one.place is Place.QUEUED and self.attended(one)]
        for errand in new:
            assert all(self.attended(awaited) for awaited in errand.awaited)
            if errand.way is Way.LOOK:
                assert len(errand.ids) == MAX_STATUS_IDS or not waiting, "empty seats"
        if self.board.looks < self.board.policy.max_bulk or not self.board.has_statuses:
            assert not any(awaited.due <= self.now for awaited in waiting)

    @rule(lipsync_id=st.sampled_from(IDS))
    def notify(self, lipsync_id):
        self.board.notify(lipsync_id)

    @precondition(lambda self: self.errands())
    @rule(data=st.data(), seed=st.integers(0, 2**16), share=st.sampled_from([0.0, 0.03, 1.0]))
    def answer(self, data, seed, share):
        self.random.seed(seed)
        errand = pick(data, self.errands())
        if errand.way is Way.LOOK:
            words = {one: self.draw_status(share) for one in errand.ids if self.random.random() < 0.95}
            self.board.heard(errand, words, Moment(self.now))
        elif errand.way is Way.FETCH:
            self.board.fetched(errand, done(errand.ids[0], self.draw_status(share)), Moment(self.now))
        else:
            items = [done(one, self.draw_status(share)) for one in self.random.sample(IDS, k=seed % 101)]
            self.board.paged(errand, Page(items, "next", has_more=seed % 2 == 0), Moment(self.now))
        assert errand.settled

    def draw_status(self, share):
        running = [RUNNING, LipsyncStatus.PENDING, "simmering"]
        ended = [COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND]
        return self.random.choice(ended if self.random.random() < share else running)

    @precondition(lambda self: self.errands())
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data, error):
        errand = pick(data, self.errands())
        before = {waiter for waiter in self.singles if waiter.outcome is None}
        touched = {waiter for awaited in errand.awaited for waiter in awaited.waiters}
        self.board.failed(errand, error, Moment(self.now))
        told = {waiter for waiter in before if waiter.outcome is error}
        assert isinstance(error, AuthenticationError) or told <= touched

    # What is always true

    def errands(self):
        single = [waiter.errand for waiter in self.singles if waiter.errand]
        return single + [errand for many in self.manys for errand in many.carried]

    def attended(self, awaited):
        return any(not isinstance(waiter, ManyWaiter) or waiter.here for waiter in awaited.waiters)

    @invariant()
    def everybody_told_has_left_the_ids(self):
        self.singles = {
            waiter: awaited for waiter, awaited in self.singles.items() if not self.leave_if_told(waiter, awaited)
        }

    def leave_if_told(self, waiter, awaited):
        if waiter.outcome is None or waiter.errand is not None:
            return False
        assert waiter not in awaited.waiters
        self.board.leave(waiter, awaited, self.now)
        return True

    @invariant()
    def nobody_is_lost(self):
        in_flight = [awaited for errand in self.errands() for awaited in errand.awaited]
        for awaited in self.board.awaited():
            many = [waiter for waiter in awaited.waiters if isinstance(waiter, Many)]
            if awaited.place is Place.QUEUED:
                for lane in {waiter.lane if waiter in many else self.board._shared for waiter in awaited.waiters}:
                    assert (awaited.due, awaited) in self.queued(lane)
            elif awaited.place is Place.IN_FLIGHT:
                assert in_flight.count(awaited) == 1
            else:
                assert awaited.place is Place.WANTED
                assert len(many) == len(awaited.waiters), "one that waits for one id is never too busy"
                assert all(awaited in waiter.wanted for waiter in many)
                assert not any(waiter.is_free(Way.FETCH) for waiter in many)

    def queued(self, lane):
        return {(due, awaited) for due, _, awaited in lane.entries}

    @invariant()
    def everybody_who_waits_is_on_the_board(self):
        for waiter, awaited in self.singles.items():
            assert waiter.outcome is not None or waiter in awaited.waiters
        for many in self.manys:
            assert all(many in awaited.waiters for awaited in many.pending.values())

    @invariant()
    def no_errand_is_too_large_and_no_more_are_in_the_air_than_may_be(self):
        looks = [errand for errand in self.errands() if errand.way is Way.LOOK]
        assert self.board.looks == len(looks)
        assert len(looks) <= self.board.policy.max_bulk
        assert all(len(errand.ids) <= MAX_STATUS_IDS for errand in looks)
        assert all(not errand.settled for errand in self.errands())
        assert sum(errand.way is Way.PAGE for errand in self.errands()) <= 1
        about = [awaited.place for errand in self.errands() for awaited in errand.awaited]
        assert set(about) <= {Place.IN_FLIGHT, Place.DONE}

    @invariant()
    def it_counts_right(self):
        lanes = [self.board._shared, *(many.lane for many in self.manys)]
        assert sum(lane.waiting for lane in lanes) == sum(len(one.waiters) for one in self.board.awaited())
        assert all(len(lane.entries) <= 65 + 2 * lane.waiting for lane in lanes)
        for many in self.manys:
            assert many.fetches == sum(errand.way is Way.FETCH for errand in many.carried)

    @invariant()
    def only_those_are_rung_who_have_something_to_do_or_to_hear(self):
        for waiter in self.board.rung():
            if isinstance(waiter, Many):
                assert waiter.to_start or waiter.heard or waiter not in self.manys
            else:
                assert waiter.errand or waiter.outcome or waiter not in self.singles

    def teardown(self):
        """From any state, a server that answers brings everybody home."""
        if not hasattr(self, "board"):
            return
        for many in self.manys:
            if not many.here:
                self.board.enter(many)
        for _ in range(600):
            if not self.singles and not any(many.pending for many in self.manys):
                return
            self.now = max(self.now, self.board.next_due() or self.now)
            self.board.take(self.now)
            for errand in self.errands():
                self.complete(errand)
            self.everybody_told_has_left_the_ids()
        raise AssertionError("somebody waits for ever")

    def complete(self, errand):
        if errand.way is Way.LOOK:
            self.board.heard(errand, dict.fromkeys(errand.ids, COMPLETED), Moment(self.now))
        elif errand.way is Way.FETCH:
            self.board.fetched(errand, done(errand.ids[0]), Moment(self.now))
        else:
            self.board.paged(errand, Page([]), Moment(self.now))


TestBoardMachine = BoardMachine.TestCase
TestBoardMachine.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
