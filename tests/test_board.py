"""The board: who waits for what, what is due, who sends it. Pure, so time is a number."""

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
from heygen_async.errors import (
    APIError,
    AuthenticationError,
    InsufficientCredit,
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
    error_class,
)
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.policies import PollPolicy
from heygen_async.polling.board import Board
from heygen_async.polling.cadence import NO_FAILURES, Failures
from heygen_async.polling.pages import Pages
from heygen_async.polling.schedule import DueQueue, Schedule
from heygen_async.polling.waiters import JobState, ManyWaiter, Now, RequestKind, StatusRequest, Waiter

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


def requests_of(waiters):
    """Return the requests that these were assigned."""
    return [waiter.request for waiter in waiters if waiter.request is not None]


def one_look(board, waiters, now=0.0):
    board.start_due(now)
    (request,) = requests_of(waiters)
    return request


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
def test_a_policy_with_invalid_values_is_refused(field, value):
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


def test_a_known_age_counts_for_all_waiters():
    board = Board(PollPolicy())
    first = board.join(Waiter(math.inf), "ls_1", 100.0)

    again = board.join(Waiter(math.inf), "ls_1", 110.0, age=60.0)

    assert first is again
    assert again.created == 50.0


def test_the_time_to_the_next_look_depends_on_age_and_jitter():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    request = one_look(board, [waiter])

    board.on_statuses(request, {"ls_0": RUNNING}, Now(200.0, jitter=1.1))

    assert board.next_due() == pytest.approx(200 + 200 * 0.03 * 1.1)


def test_the_typical_length_is_the_median_of_those_seen_to_run_and_end():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    request = one_look(board, waiters)
    board.on_statuses(request, dict.fromkeys(request.ids, RUNNING), Now(1.0))
    for waiter, now in zip(waiters, (100.0, 200.0, 9000.0), strict=True):
        board.start_due(now)
        (request,) = requests_of(waiters)
        board.on_statuses(request, dict.fromkeys(request.ids, RUNNING) | {_id(board, waiter): COMPLETED}, Now(now))
        board.on_lipsync(waiter.request, done(_id(board, waiter)), Now(now))

    board.join(Waiter(math.inf), "ls_new", 9000.0, age=0.0)
    late = [one for one in board.jobs() if one.id == "ls_new"]

    assert late[0].due == pytest.approx(9000 + 200 * 0.03)


def _id(board, waiter):
    return next(one.id for one in board.jobs() if waiter in one.waiters)


def test_a_job_that_ended_before_the_wait_does_not_count_for_the_typical_length():
    board = Board(PollPolicy())
    waiters = [Waiter(math.inf)]
    board.join(waiters[0], "ls_old", 0.0, age=1e6)
    request = one_look(board, waiters)
    board.on_statuses(request, {"ls_old": COMPLETED}, Now(0.0))
    board.on_lipsync(waiters[0].request, done("ls_old"), Now(0.0))

    assert board.join(Waiter(math.inf), "ls_new", 0.0, age=0.0).due == 1.0


def test_created_at_of_a_fetched_lipsync_is_its_age():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.notify("ls_0", 0.0)
    wall = datetime(2026, 1, 1, tzinfo=UTC)
    running = Lipsync(id="ls_0", status=RUNNING, created_at=wall - timedelta(seconds=400))

    board.on_lipsync(waiter.request, running, Now(7.0, wall))

    assert [one.due for one in board.jobs()] == [pytest.approx(7 + 400 * 0.03)]


# Chunks


def test_due_jobs_are_requested_in_chunks_of_a_hundred_and_the_rest_waits():
    board = Board(PollPolicy(max_bulk=2))
    waiters = crowd(board, 250)

    board.start_due(0.0)

    first, second = requests_of(waiters)
    assert [len(first.ids), len(second.ids)] == [MAX_STATUS_IDS, MAX_STATUS_IDS]
    assert board.next_due() is None

    board.on_statuses(first, dict.fromkeys(first.ids, RUNNING), Now(1.0))
    board.start_due(1.0)
    (third,) = (request for request in requests_of(waiters) if request is not second)
    assert third.ids[:50] == [f"ls_{n}" for n in range(200, 250)]


def test_a_request_is_filled_up_with_the_next_due():
    board = Board(PollPolicy())
    waiters = [Waiter(math.inf) for _ in range(150)]
    for n, waiter in enumerate(waiters):
        board.join(waiter, f"ls_{n}", float(n), age=0.0)

    board.start_due(1.0)

    (request,) = requests_of(waiters)
    assert request.ids == [f"ls_{n}" for n in range(100)]


def test_a_chunk_ends_at_the_length_that_a_query_may_have():
    board = Board(PollPolicy(max_bulk=1))
    waiters = crowd(board, 100, name="x" * 194)

    request = one_look(board, waiters)

    assert len(",".join(request.ids)) <= MAX_STATUS_QUERY
    assert len(request.ids) == 30  # 194 + 2 or 3 for the number + 3 for the comma
    requested = set(request.ids)
    for _ in range(3):
        board.on_statuses(request, dict.fromkeys(request.ids, RUNNING), Now(0.5))
        request = one_look(board, waiters, 0.5)
        requested |= set(request.ids)
    assert len(requested) == 100


def test_characters_that_are_escaped_in_a_query_count_as_what_they_become():
    board = Board(PollPolicy(max_bulk=1))

    request = one_look(board, crowd(board, 100, name="é" * 32))

    assert len(request.ids) == 30  # six characters each


def test_an_id_longer_than_a_query_is_requested_alone():
    board = Board(PollPolicy())
    waiter = Waiter(math.inf)
    board.join(waiter, "x" * 9000, 0.0)

    assert one_look(board, [waiter]).ids == ["x" * 9000]


def test_with_nobody_waiting_nothing_is_due():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    (job,) = board.jobs()

    board.leave(waiter, job, 0.0)

    assert board.next_due() is None
    assert board.jobs() == []


def test_a_job_without_waiters_is_not_in_a_request():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    gone = next(one for one in board.jobs() if one.id == "ls_1")
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
    assert len(board._jobs) < 100


# Senders


def test_the_waiter_with_the_latest_deadline_sends_the_request():
    board = Board(PollPolicy())
    hasty, patient = Waiter(1.0), Waiter(50.0)
    board.join(hasty, "ls_1", 0.0)
    board.join(patient, "ls_2", 0.0)

    board.start_due(0.0)

    assert hasty.request is None
    assert patient.request is not None
    assert patient.request.ids == ["ls_1", "ls_2"]


def test_the_request_of_a_sender_that_leaves_is_sent_by_another_at_once():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    request = one_look(board, waiters)
    sender = request.sender
    (own,) = (one for one in request.jobs if sender in one.waiters)

    board.leave(sender, own, 5.0)
    board.start_due(5.0)

    (again,) = requests_of(waiter for waiter in waiters if waiter is not sender)
    assert set(again.ids) == set(request.ids) - {own.id}


def test_a_late_answer_to_a_cancelled_request_changes_nothing():
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    request = one_look(board, waiters)
    board.on_cancelled(request, 5.0)

    board.on_statuses(request, dict.fromkeys(request.ids, COMPLETED), Now(6.0))

    assert [one.state for one in board.jobs()] == [JobState.QUEUED, JobState.QUEUED]
    assert board.bulk_requests == 0


def test_a_slow_request_delays_no_other():
    board = Board(PollPolicy())
    waiters = crowd(board, 300)
    board.start_due(0.0)
    slow, *others = requests_of(waiters)

    for request in others:
        board.on_statuses(request, dict.fromkeys(request.ids, RUNNING), Now(0.1))
    board.start_due(2.0)

    requested = {one for request in requests_of(waiters) if request is not slow for one in request.ids}
    assert requested == {f"ls_{n}" for n in range(300)} - set(slow.ids)


def test_one_waiter_of_a_finished_job_fetches_it_for_all():
    board = Board(PollPolicy())
    hasty, patient = Waiter(1.0), Waiter(50.0)
    for waiter in (hasty, patient):
        board.join(waiter, "ls_1", 0.0)
    look = one_look(board, [hasty, patient])

    board.on_statuses(look, {"ls_1": COMPLETED}, Now(0.5))
    fetch = patient.request
    assert (fetch.kind, hasty.request) == (RequestKind.LIPSYNC, None)
    board.on_lipsync(fetch, done("ls_1"), Now(0.6))

    assert hasty.result == patient.result == done("ls_1")


def test_a_job_that_the_get_reports_as_running_is_queued_again():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.on_statuses(one_look(board, [waiter]), {"ls_0": COMPLETED}, Now(0.0))

    board.on_lipsync(waiter.request, done("ls_0", RUNNING), Now(0.0))

    assert waiter.result is None
    assert board.next_due() == 1.0


def test_a_new_waiter_fetches_a_finished_job_that_nobody_else_can_fetch():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    board.join(many, "ls_1", 0.0)
    board.resume(many)
    board.start_due(0.0)
    (look,) = many.to_start
    board.pause(many)
    board.on_statuses(look, {"ls_1": COMPLETED}, Now(1.0))
    (job,) = board.jobs()
    assert job.state is JobState.TO_GET

    waiter = Waiter(math.inf)
    board.join(waiter, "ls_1", 2.0)

    assert waiter.request.kind is RequestKind.LIPSYNC


def paused_with_finished_jobs(count=20):
    """Return a board and a waiter of many that is paused, with *count* ids that are to be fetched."""
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(count):
        board.join(many, f"ls_{n}", 0.0)
    board.resume(many)
    board.start_due(0.0)
    look = many.to_start.popleft()
    board.pause(many)
    board.on_statuses(look, dict.fromkeys(look.ids, COMPLETED), Now(1.0))
    return board, many


def test_jobs_that_finished_while_their_waiter_was_paused_are_read_from_the_list():
    board, many = paused_with_finished_jobs()

    board.resume(many)

    assert [(request.kind, len(request.ids)) for request in many.to_start] == [(RequestKind.PAGE, 20)]


def test_a_job_of_two_waiters_of_many_is_requested_once():
    board, many = paused_with_finished_jobs()
    other = ManyWaiter(math.inf)
    board.join(other, "ls_0", 1.0)

    board.resume(many)
    board.resume(other)

    requested = [one for waiter in (many, other) for request in waiter.to_start for one in request.ids]
    assert sorted(requested) == sorted(f"ls_{n}" for n in range(20))


def test_a_page_that_ends_while_its_waiter_is_paused_leaves_the_rest_for_later():
    board, many = paused_with_finished_jobs()
    board.resume(many)
    page = many.to_start.popleft()
    board.pause(many)

    board.on_page(page, Page([done(f"ls_{n}") for n in range(8)], "more", has_more=True), Now(2.0))
    board.resume(many)

    assert [(request.kind, request.token) for request in many.to_start] == [(RequestKind.PAGE, "more")]
    assert len(many.to_start[0].ids) == 12


# Answers


@pytest.mark.parametrize("status", [LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND])
def test_after_every_terminal_status_the_lipsync_is_fetched(status):
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    board.on_statuses(one_look(board, [waiter]), {"ls_0": status}, Now(0.0))

    assert waiter.request.kind is RequestKind.LIPSYNC


def test_an_unknown_status_is_not_terminal():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    board.on_statuses(one_look(board, [waiter]), {"ls_0": "simmering"}, Now(0.0))

    assert waiter.request is None
    assert [one.status for one in board.jobs()] == ["simmering"]


def test_a_job_missing_from_three_answers_is_fetched_by_itself():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    ways = []
    for now in (0.0, 10.0, 20.0):
        board.start_due(now)
        ways.append(waiter.request.kind)
        board.on_statuses(waiter.request, {}, Now(now))
    ways.append(waiter.request.kind)

    assert ways == [RequestKind.STATUSES, RequestKind.STATUSES, RequestKind.STATUSES, RequestKind.LIPSYNC]


def test_only_consecutive_omissions_count():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    for now, statuses in enumerate([{}, {}, {"ls_0": RUNNING}, {}, {}]):
        board.start_due(now * 20.0)
        board.on_statuses(waiter.request, statuses, Now(now * 20.0))

    assert waiter.request is None


def test_an_answer_that_comes_after_all_waits_were_ended_changes_nothing():
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    board.notify("ls_1", 0.0)
    look, fetch = waiters[0].request, waiters[1].request
    assert look is None
    board.start_due(0.0)
    look = waiters[0].request
    board.end_all(error := RuntimeError("closed"), 1.0)

    board.on_statuses(look, {"ls_0": COMPLETED}, Now(2.0))
    board.on_lipsync(fetch, done("ls_1"), Now(2.0))

    assert [waiter.result for waiter in waiters] == [error, error]
    assert board.next_due() is None or board.jobs() == []
    assert board.bulk_requests == 0


def test_waiters_for_updates_are_woken_when_the_status_changes_and_only_then():
    board = Board(PollPolicy())
    watcher, other = Waiter(math.inf, wants_updates=True), Waiter(math.inf)
    for waiter in (watcher, other):
        board.join(waiter, "ls_1", 0.0)

    woken = []
    for now, status in ((0.0, "pending"), (10.0, "pending"), (20.0, "running")):
        request = one_look(board, [watcher, other], now)
        board.take_ready()
        board.on_statuses(request, {"ls_1": status}, Now(now))
        woken.append([waiter is watcher for waiter in board.take_ready()])

    assert woken == [[True], [], [True]]


def test_a_notification_has_the_job_fetched_at_once():
    board = Board(PollPolicy())
    waiter = Waiter(math.inf)
    board.join(waiter, "ls_1", 0.0, age=0.0)

    board.notify("ls_1", 0.0)
    board.notify("ls_1", 0.0)
    board.notify("ls_nobody_waits_for", 0.0)

    assert waiter.request.kind is RequestKind.LIPSYNC


def test_a_job_notified_while_its_waiter_is_paused_is_fetched_on_resume():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    board.join(many, "ls_1", 0.0)
    other = Waiter(math.inf)
    board.join(other, "ls_other", 0.0)
    board.start_due(0.0)

    board.notify("ls_1", 0.0)
    board.resume(many)

    assert [request.kind for request in many.to_start] == [RequestKind.LIPSYNC]


def test_a_job_that_was_fetched_early_is_not_requested_at_its_former_time():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.notify("ls_0", 0.0)
    board.on_lipsync(waiter.request, done("ls_0", RUNNING), Now(0.0))

    board.start_due(0.5)
    assert waiter.request is None
    board.start_due(1.0)
    assert waiter.request is not None


def test_a_job_that_is_queued_twice_for_one_time_is_requested_once():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.on_statuses(one_look(board, [waiter]), {"ls_0": RUNNING}, Now(0.0))
    board.notify("ls_0", 0.0)
    board.on_lipsync(waiter.request, done("ls_0", RUNNING), Now(0.0))

    assert one_look(board, [waiter], 1.0).ids == ["ls_0"]


def test_a_notification_while_a_job_is_in_flight_is_not_lost():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    look = one_look(board, [waiter])
    board.notify("ls_0", 0.0)

    board.on_statuses(look, {"ls_0": RUNNING}, Now(1.0))
    assert waiter.request.kind is RequestKind.LIPSYNC
    board.on_lipsync(waiter.request, done("ls_0", RUNNING), Now(1.0))

    assert waiter.request is None


def test_the_policys_deadline_ends_a_wait_without_a_timeout_of_its_own():
    board = Board(PollPolicy())
    soft, hard = Waiter(10.0, is_limited_by_policy=True), Waiter(10.0)
    for waiter in (soft, hard):
        board.join(waiter, "ls_1", 0.0)
    request = one_look(board, [soft, hard])

    board.on_statuses(request, {"ls_1": RUNNING}, Now(10.0))

    assert [list(one.waiters) for one in board.jobs()] == [[hard]]
    assert isinstance(soft.result, WaitTimeout)
    assert soft.result.last_status == "running"
    assert hard.result is None


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
LASTING = [
    http(InvalidRequest, 400, code="invalid_parameter"),
    http(InsufficientCredit, 402, code="insufficient_credit"),
    LipsyncFailed(done("ls_1")),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_transient_errors_are_retried_with_growing_delays(error):
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    dues = [0.0]

    for _ in range(4):
        board.on_error(one_look(board, [waiter], dues[-1]), error, Now(dues[-1]))
        dues.append(board.next_due())

    assert waiter.result is None
    assert [b - a for a, b in pairwise(dues)] == [2.0, 4.0, 8.0, 15.0]
    assert [one.failures.error for one in board.jobs()] == [error]


def test_a_server_that_is_down_for_days_is_still_tried():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    board.jobs()[0].failures = Failures(count=100_000)

    board.on_error(one_look(board, [waiter]), TransportError("gone"), Now(1.0))

    assert board.next_due() == 16.0


def test_a_retry_after_is_respected():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    board.on_error(one_look(board, [waiter]), http(RateLimited, 429, retry_after=77), Now(1.0))

    assert board.next_due() == 78.0


def refused_get(board, seconds):
    """Let the GETs of two completed jobs fail, the first with a Retry-After; return the waiters."""
    first, second = crowd(board, 2)
    board.on_statuses(one_look(board, [first, second]), {"ls_0": COMPLETED, "ls_1": RUNNING}, Now(0.0))
    assert first.request.kind is RequestKind.LIPSYNC
    board.on_error(first.request, http(ServerError, 503, retry_after=seconds), Now(1.0))
    return first, second


def test_a_get_is_not_repeated_before_its_time_because_a_status_request_was_sent_for_another_job():
    board = Board(PollPolicy())
    first, second = refused_get(board, 60)

    request = one_look(board, [first, second], now=10.0)
    assert request.ids == ["ls_1", "ls_0"]
    board.on_statuses(request, {"ls_0": COMPLETED, "ls_1": COMPLETED}, Now(11.0))
    assert [one.ids for one in requests_of([first, second])] == [["ls_1"]]

    board.on_lipsync(second.request, done("ls_1"), Now(12.0))
    assert board.next_due() == 61.0
    board.on_statuses(one_look(board, [first], now=61.0), {"ls_0": COMPLETED}, Now(62.0))
    assert first.request.kind is RequestKind.LIPSYNC


FAILED_GETS = [
    http(ServerError, 500),
    http(RateLimited, 429),
    TransportError("gone"),
    UnexpectedResponse("?", status=200),
]


@pytest.mark.parametrize("error", FAILED_GETS, ids=repr)
def test_a_get_that_fails_backs_off_although_status_requests_for_other_jobs_report_its_job_as_completed(error):
    board = Board(PollPolicy(fastest=2.0, slowest=16.0))
    waiters = waiter, other = Waiter(math.inf), Waiter(math.inf, policy=PollPolicy(fastest=1.0, slowest=1.0))
    board.join(waiter, "ls_0", 0.0)
    board.join(other, "ls_1", 0.0)
    gets = []
    for now in map(float, range(40)):
        board.start_due(now)
        for request in requests_of(waiters):
            if request.kind is RequestKind.STATUSES:
                board.on_statuses(request, {"ls_0": COMPLETED, "ls_1": RUNNING}, Now(now))
        if waiter.request is not None:
            gets.append(now)
            board.on_error(waiter.request, error, Now(now))

    assert gets == [0.0, 4.0, 12.0, 28.0]


@pytest.mark.parametrize("is_in_flight", [False, True])
def test_a_get_is_not_repeated_before_its_time_because_a_notification_arrives(is_in_flight):
    board = Board(PollPolicy())
    first, second = refused_get(board, 60)
    request = one_look(board, [first, second], now=10.0) if is_in_flight else None

    board.notify("ls_0", 0.0)
    if request is not None:
        board.on_statuses(request, {"ls_0": COMPLETED, "ls_1": RUNNING}, Now(11.0))

    assert first.request is None


@pytest.mark.parametrize("end", ["403", "404", "400", "omissions"])
def test_no_end_of_a_bulk_request_has_a_job_fetched_before_its_retry_after(end):
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    board.notify("ls_0", 0.0)
    board.on_error(waiters[0].request, http(ServerError, 503, retry_after=100), Now(1.0))
    for now in (1.0, 4.0, 8.0):
        request = one_look(board, waiters, now)
        assert request.ids == ["ls_1", "ls_0"]  # it fills up a request that is sent for another
        if end == "omissions":
            board.on_statuses(request, {"ls_1": RUNNING}, Now(now))
        else:
            error = {"403": PermissionDenied, "404": NotFound, "400": InvalidRequest}[end]
            board.on_error(request, http(error, int(end)), Now(now))
            break
    board.start_due(100.9)

    assert "ls_0" not in [one for request in requests_of(waiters) for one in request.ids if len(request.jobs) == 1]
    board.start_due(101.0)
    assert any("ls_0" in request.ids for request in requests_of(waiters))


@pytest.mark.parametrize("when", ["in flight", "afterwards"])
def test_a_notification_does_not_shorten_a_retry_after_that_status_requests_followed(when):
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    board.notify("ls_0", 0.0)
    board.on_error(waiters[0].request, http(ServerError, 503, retry_after=100), Now(1.0))
    request = one_look(board, waiters, 2.0)
    if when == "in flight":
        board.notify("ls_0", 3.0)
    board.on_statuses(request, dict.fromkeys(request.ids, RUNNING), Now(4.0))
    if when == "afterwards":
        board.notify("ls_0", 5.0)
    assert waiters[0].request is None


def test_a_cancelled_status_request_does_not_shorten_the_retry_after_of_its_jobs():
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    board.notify("ls_0", 0.0)
    board.on_error(waiters[0].request, http(ServerError, 503, retry_after=100), Now(1.0))
    board.on_cancelled(one_look(board, waiters, 2.0), 3.0)
    board.start_due(3.0)
    assert [request.jobs[0].id for request in requests_of(waiters)] == ["ls_1"]


def test_a_retry_after_of_a_year_does_not_extend_a_wait_beyond_the_longest():
    board = Board(PollPolicy(longest=100))
    (waiter,) = crowd(board, 1)

    board.on_error(one_look(board, [waiter]), http(RateLimited, 429, retry_after=365 * 86400.0), Now(1.0))

    assert board.next_due() == 101.0


def test_answers_that_stay_unreadable_end_the_wait():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)
    error = UnexpectedResponse(["html"], status=200)

    for _ in range(10):
        assert waiter.result is None
        now = board.next_due()
        board.on_error(one_look(board, [waiter], now), error, Now(now))

    assert waiter.result is error


def test_only_consecutive_unreadable_answers_count():
    board = Board(PollPolicy())
    (waiter,) = crowd(board, 1)

    for n in range(60):
        now = board.next_due()
        error = UnexpectedResponse(["html"], status=200) if n % 20 > 11 else TransportError("gone")
        board.on_error(one_look(board, [waiter], now), error, Now(now))

    assert waiter.result is None


@pytest.mark.parametrize("error", [error for error in LASTING if not isinstance(error, InvalidRequest)], ids=repr)
def test_a_lasting_error_ends_only_the_waits_of_its_request(error):
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.start_due(0.0)
    request, other = requests_of(waiters)

    board.on_error(request, error, Now(1.0))

    ended = [waiter for waiter in waiters if waiter.result is not None]
    assert len(ended) == 100
    assert all(waiter.result is error for waiter in ended)
    assert not other.settled


def test_one_bad_id_in_a_request_ends_no_other_wait():
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    request = one_look(board, waiters)

    board.on_error(request, http(InvalidRequest, 400), Now(1.0))
    assert [waiter.request.kind for waiter in waiters] == [RequestKind.LIPSYNC] * 3
    board.on_error(waiters[0].request, bad := http(InvalidRequest, 400, code="invalid_parameter"), Now(2.0))

    assert [waiter.result for waiter in waiters] == [bad, None, None]


REFUSALS = [http(NotFound, 404, code="not_found"), http(PermissionDenied, 403, code="forbidden")]
PAGES = [
    http(NotFound, 404),
    http(NotFound, 404, code="404"),
    *(http(error_class(status), status) for status in (400, 401, 402, 403, 405, 407, 413, 422, 451)),
]


@pytest.mark.parametrize("error", [*LASTING, *REFUSALS], ids=repr)
def test_a_lasting_error_of_a_get_ends_only_the_waits_of_its_job(error):
    board = Board(PollPolicy())
    waiters = crowd(board, 2)
    board.notify("ls_0", 0.0)

    board.on_error(waiters[0].request, error, Now(1.0))

    assert [waiter.result for waiter in waiters] == [error, None]
    assert board.has_statuses


def test_pages_of_a_gateway_do_not_count_as_a_missing_job():
    failures = NO_FAILURES
    for error in [UnexpectedResponse(["html"], status=200), *PAGES[:8], *[http(NotFound, 404, code="not_found")] * 3]:
        failures = failures.after_error(error, is_new=True)
        assert failures is not None
    assert failures.after_error(http(NotFound, 404, code="not_found"), is_new=True) is None


@pytest.mark.parametrize("error", PAGES, ids=repr)
def test_a_page_of_a_gateway_ends_a_wait_only_if_it_stays(error):
    board = Board(PollPolicy())
    [waiter] = crowd(board, 1)
    for attempt in range(3 if isinstance(error, AuthenticationError) else 10):
        assert waiter.result is None
        board.notify("ls_0", 100.0 * attempt)
        board.on_error(waiter.request, error, Now(100.0 * attempt))

    assert waiter.result is error


def test_a_refused_key_ends_all_waits():
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.start_due(0.0)

    board.on_error(requests_of(waiters)[0], error := http(AuthenticationError, 401, code="unauthorized"), Now(1.0))

    assert all(waiter.result is error for waiter in waiters)
    assert board.jobs() == []


def test_a_page_that_refuses_the_key_ends_only_waits_that_meet_it_three_times_in_a_row():
    board = Board(PollPolicy())
    unlucky, other = crowd(board, 2)
    error = http(AuthenticationError, 401)
    for attempt in range(3):
        assert unlucky.result is None
        board.notify("ls_0", 100.0 * attempt)
        board.on_error(unlucky.request, error, Now(100.0 * attempt))

    assert (unlucky.result, other.result) == (error, None)


def test_a_page_in_place_of_bulk_statuses_ends_no_wait():
    for status in (400, 401, 402, 405, 407, 413, 422, 451):
        board = Board(PollPolicy())
        waiters = crowd(board, 3)
        board.on_error(one_look(board, waiters), http(error_class(status), status), Now(1.0))
        assert not any(waiter.result for waiter in waiters)
        assert len(board.jobs()) == 3


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_the_errors_of_these_tests_are_transient_or_not_as_named(error):
    assert error.is_transient
    assert not any(lasting.is_transient for lasting in LASTING)


# An account without bulk status requests


@pytest.mark.parametrize("error", [*REFUSALS, http(NotFound, 404), http(PermissionDenied, 403)], ids=repr)
def test_an_account_without_bulk_requests_is_remembered(error):
    board = Board(PollPolicy())
    waiters = crowd(board, 3)
    board.on_error(one_look(board, waiters), error, Now(1.0))

    board.start_due(1.0)
    assert [waiter.request.kind for waiter in waiters] == [RequestKind.LIPSYNC] * 3
    for n, waiter in enumerate(waiters):
        board.on_lipsync(waiter.request, done(f"ls_{n}", RUNNING), Now(1.0))
    board.start_due(50.0)

    assert [waiter.request.kind for waiter in waiters] == [RequestKind.LIPSYNC] * 3


@pytest.mark.parametrize("error", [http(NotFound, 404), http(NotFound, 404, code="404"), http(PermissionDenied, 403)])
def test_after_a_gateways_page_bulk_requests_are_tried_again_later(error):
    board = Board(PollPolicy(fastest=10.0, slowest=10.0))
    waiters = crowd(board, 3)
    kinds = {}
    for now in map(float, range(0, 700, 10)):
        board.start_due(now)
        for request in requests_of(waiters):
            kinds.setdefault(now, request.kind)
            if request.kind is RequestKind.STATUSES:
                board.on_error(request, error, Now(now))
            else:
                board.on_lipsync(request, done(*request.ids, RUNNING), Now(now))

    assert [now for now, kind in kinds.items() if kind is RequestKind.STATUSES] == [0.0, 300.0, 600.0]


def test_after_a_refusal_of_the_api_itself_bulk_requests_are_never_tried_again():
    board = Board(PollPolicy())
    board.on_error(one_look(board, crowd(board, 1)), http(NotFound, 404, code="not_found"), Now(1.0))
    board.start_due(1e9)
    assert not board.has_statuses


def without_bulk(count):
    board = Board(PollPolicy())
    waiters = crowd(board, count)
    board.has_statuses = False
    return board, waiters


def test_without_bulk_requests_many_jobs_are_read_from_the_list():
    board, waiters = without_bulk(50)
    page = one_look(board, waiters)
    assert (page.kind, page.token) == (RequestKind.PAGE, None)

    items = [done(f"ls_{n}", RUNNING if n % 2 else COMPLETED) for n in range(30)]
    board.on_page(page, Page(items, "more", has_more=True), Now(1.0))
    (following,) = requests_of(waiters)
    assert (following.kind, following.token, len(following.ids)) == (RequestKind.PAGE, "more", 20)
    board.on_page(following, Page([], None), Now(2.0))

    assert sum(waiter.result is not None for waiter in waiters) == 15
    assert [request.kind for request in requests_of(waiters)] == [RequestKind.LIPSYNC] * 20


def test_without_bulk_requests_none_is_sent_however_many_jobs_are_due():
    board, waiters = without_bulk(2500)

    board.start_due(0.0)
    board.start_due(0.0)

    assert {request.kind for request in requests_of(waiters)} <= {RequestKind.PAGE, RequestKind.LIPSYNC}


def test_pages_that_save_too_little_are_tried_less_and_less_often():
    board, waiters = without_bulk(20)

    ways = []
    for now in range(0, 2000, 20):
        board.start_due(float(now))
        ways.append(requests_of(waiters)[0].kind)
        for _ in range(2):
            for request in requests_of(waiters):
                if request.kind is RequestKind.PAGE:
                    board.on_page(request, Page([]), Now(float(now)))
                else:
                    board.on_lipsync(request, done(request.ids[0], RUNNING), Now(float(now)))

    assert [n for n, way in enumerate(ways) if way is RequestKind.PAGE] == [0, 2, 6, 14, 30, 62, 94]


@pytest.mark.parametrize(
    ("brought", "has_more"),
    [pytest.param(4, True, id="too little"), pytest.param(20, False, id="the list is at its end")],
)
def test_no_further_page_is_read_for_nothing(brought, has_more):
    board, waiters = without_bulk(50)

    items = [done(f"ls_{n}") for n in range(brought)]
    board.on_page(one_look(board, waiters), Page(items, "more", has_more=has_more), Now(1.0))

    assert [request.kind for request in requests_of(waiters)] == [RequestKind.LIPSYNC] * (50 - brought)


def page_errand(token=None):
    return StatusRequest(RequestKind.PAGE, [], Waiter(math.inf), token)


def test_a_page_that_saves_requests_ends_the_pause():
    pages = Pages()
    for _ in range(2):
        pages.learn(page_errand(), Page([]), saved=0, left=50)

    pages.learn(page_errand(), Page([]), saved=5, left=0)

    assert pages.is_worthwhile(100)


def test_the_list_is_read_further_from_where_everything_wanted_was_found():
    pages = Pages()
    assert pages.begin(at_the_newest=False) is None

    assert not pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)
    assert pages.begin(at_the_newest=False) == "two"


def test_the_list_is_read_from_the_newest_again_if_nothing_is_found_at_the_cursor():
    pages = Pages()
    pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)
    pages.begin(at_the_newest=False)

    assert pages.learn(page_errand("two"), Page([], "three", has_more=True), saved=0, left=50)
    assert pages.cursor is None
    assert not pages.learn(page_errand(), Page([], "three", has_more=True), saved=0, left=50)


def test_the_list_is_not_read_from_the_newest_again_for_a_few_jobs():
    pages = Pages()
    pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)
    pages.begin(at_the_newest=False)

    assert not pages.learn(page_errand("two"), Page([]), saved=0, left=9)
    assert pages.is_worthwhile(50)


def test_one_page_is_read_at_a_time_and_only_many_wait_for_it():
    pages = Pages()
    pages.reading = reading = page_errand()

    assert not pages.is_worthwhile(100)
    assert pages.join(9) is None
    assert pages.join(10) is reading


def test_without_bulk_requests_the_list_is_read_from_the_newest():
    pages = Pages()
    pages.learn(page_errand(), Page([], "two", has_more=True), saved=100, left=0)

    assert pages.begin(at_the_newest=True) is None
    assert not pages.learn(page_errand(), Page([]), saved=0, left=50)


@pytest.mark.parametrize("order", [1, -1], ids=["oldest first", "newest first"])
def test_finished_jobs_cost_a_few_requests_for_each_hundred(order):
    board = Board(PollPolicy())
    names = [f"ls_{n}" for n in range(2000)]
    many = ManyWaiter(math.inf)
    for one in names[::order]:
        board.join(many, one, 0.0)
    board.resume(many)

    requests = 0
    while len(many.results) < len(names):
        board.start_due(0.0)
        for request in tuple(many.requests):
            requests += 1
            if request.kind is RequestKind.STATUSES:
                board.on_statuses(request, dict.fromkeys(request.ids, COMPLETED), Now(0.0))
            elif request.kind is RequestKind.LIPSYNC:
                board.on_lipsync(request, done(request.ids[0]), Now(0.0))
            else:
                at = int(request.token or 0)
                items = [done(one) for one in names[::-1][at : at + 100]]
                board.on_page(request, Page(items, str(at + 100), has_more=at < 1900), Now(0.0))

    # 40 at best; a page says nothing of those that are in flight while it comes, and some of them are fetched.
    assert requests < 200


def test_a_page_settles_other_jobs_with_waiters():
    board = Board(PollPolicy())
    waiters = crowd(board, 100)
    look = one_look(board, waiters)
    late = Waiter(math.inf)
    board.join(late, "ls_late", 0.0, age=0.0)
    board.on_statuses(look, dict.fromkeys(look.ids, COMPLETED), Now(0.1))

    (page,) = requests_of(waiters)
    board.on_page(page, Page([done("ls_late")]), Now(0.2))

    assert late.result == done("ls_late")


def test_a_page_does_not_settle_jobs_of_another_request():
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.start_due(0.0)
    first, second = requests_of(waiters)
    board.on_statuses(first, dict.fromkeys(first.ids, COMPLETED), Now(0.1))

    page = next(request for request in requests_of(waiters) if request.kind is RequestKind.PAGE)
    board.on_page(page, Page([done(one) for one in second.ids]), Now(0.2))

    assert {job.state for job in second.jobs} == {JobState.IN_FLIGHT}


def test_a_finished_batch_is_read_from_the_list():
    board = Board(PollPolicy())
    waiters = crowd(board, 100)
    look = one_look(board, waiters)

    board.on_statuses(look, dict.fromkeys(look.ids, COMPLETED), Now(1.0))
    (page,) = requests_of(waiters)
    board.on_page(page, Page([done(one) for one in look.ids]), Now(2.0))

    assert all(waiter.result == done(f"ls_{n}") for n, waiter in enumerate(waiters))


def test_jobs_that_finish_while_a_page_is_read_wait_for_it():
    board = Board(PollPolicy())
    waiters = crowd(board, 200)
    board.start_due(0.0)
    first, second = requests_of(waiters)

    board.on_statuses(first, dict.fromkeys(first.ids, COMPLETED), Now(1.0))
    board.on_statuses(second, dict.fromkeys(second.ids, COMPLETED), Now(1.0))
    (page,) = requests_of(waiters)
    board.on_page(page, Page([done(f"ls_{n}") for n in range(200)]), Now(2.0))

    assert all(waiter.result is not None for waiter in waiters)


def test_the_jobs_of_a_page_that_fails_are_fetched():
    board, waiters = without_bulk(20)
    page = one_look(board, waiters)

    board.on_error(page, http(ServerError, 500), Now(1.0))

    assert [request.kind for request in requests_of(waiters)] == [RequestKind.LIPSYNC] * 20


# A waiter of many


def test_a_job_whose_only_waiter_is_paused_is_not_requested_until_it_resumes():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(3):
        board.join(many, f"ls_{n}", 0.0)
    other = Waiter(1.0)
    board.join(other, "ls_other", 0.0)

    assert one_look(board, [other]).ids == ["ls_other"]
    board.resume(many)
    board.start_due(0.0)

    assert [request.ids for request in many.to_start] == [["ls_0", "ls_1", "ls_2"]]


def test_a_waiter_of_many_gets_a_limited_number_at_once_and_then_the_rest():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(40):
        board.join(many, f"ls_{n}", 0.0)
        board.notify(f"ls_{n}", 0.0)
    board.resume(many)
    (page,) = many.to_start
    many.to_start.clear()
    board.on_page(page, Page([]), Now(0.0))
    assert len(many.requests) == 32

    while many.to_start:
        request = many.to_start.popleft()
        board.on_lipsync(request, done(request.ids[0]), Now(1.0))

    assert sorted(one for one, _ in many.results) == sorted(f"ls_{n}" for n in range(40))
    assert not many.pending


def test_the_requests_of_a_waiter_of_many_that_leaves_are_sent_by_others():
    board = Board(PollPolicy())
    many, other = ManyWaiter(100.0), Waiter(1.0)
    board.join(many, "ls_1", 0.0)
    board.join(other, "ls_2", 0.0)
    board.resume(many)
    board.start_due(0.0)
    assert many.requests

    board.pause(many)
    board.leave_all(many, 5.0)
    board.start_due(5.0)

    assert not many.requests
    assert not many.to_start
    assert other.request.ids == ["ls_2"]


def test_pausing_a_waiter_of_many_costs_the_same_for_any_number_of_jobs():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(3000):
        board.join(many, f"ls_{n}", 0.0)
    waiter = Waiter(math.inf)
    board.join(waiter, "ls_other", 1.0)

    assert one_look(board, [waiter], 1.0).ids == ["ls_other"]

    assert len(many.queue.entries) == 3000
    assert board.next_due() is None


def test_stale_entries_are_skipped_a_slice_at_a_time():
    board = Board(PollPolicy())
    waiters = crowd(board, 2500)
    for waiter in waiters:
        board.notify(_id_of(waiters, waiter), 0.0)
    late = Waiter(math.inf)
    board.join(late, "ls_late", 1.0)

    takes = 0
    while late.request is None:
        takes += 1
        board.start_due(1.0)

    assert takes == 3


def _id_of(waiters, waiter):
    return f"ls_{waiters.index(waiter)}"


def test_a_job_of_a_paused_waiter_is_not_in_a_request_of_another():
    board = Board(PollPolicy())
    many, one, other = ManyWaiter(math.inf), Waiter(math.inf), Waiter(math.inf)
    held = board.join(one, "ls_1", 0.0)
    board.join(other, "ls_2", 0.0)
    board.join(many, "ls_1", 0.0)
    board.leave(one, held, 0.0)

    assert one_look(board, [other]).ids == ["ls_2"]
    board.resume(many)
    board.start_due(0.0)

    assert [request.ids for request in many.to_start] == [["ls_1"]]


def test_a_job_that_is_only_referenced_is_due_again_for_a_new_waiter():
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
    board.start_due(0.0)

    assert held.state is JobState.IN_FLIGHT


def test_a_refused_key_leaves_nothing_queued():
    board = Board(PollPolicy())
    many = ManyWaiter(math.inf)
    for n in range(1000):
        board.join(many, f"ls_{n}", 0.0)
    crowd(board, 1000)

    board.end_all(http(AuthenticationError, 401), 0.0)

    assert not many.queue.entries
    assert not board._shared.entries


# The schedule, against a simple model


QUEUE_STEPS = st.tuples(
    st.sampled_from(["push", "push", "look", "pop", "open", "close", "clear"]), st.integers(0, 1), st.integers(0, 5)
)


@given(st.lists(QUEUE_STEPS, min_size=20, max_size=80))
@settings(max_examples=200)
def test_the_first_due_of_all_open_queues_comes_first(steps):
    schedule, model, is_open = Schedule(), [[], []], [False, False]
    both = [DueQueue(waiting=100) for _ in model]
    for step, n, due in steps:
        if step == "push":
            schedule.push(both[n], due, None)
            model[n].append(due)
        elif step == "clear":
            both[n].waiting = 0
            schedule.compact(both[n], None)
            model[n].clear()
        elif step in {"open", "close"}:
            getattr(schedule, step)(both[n])
            is_open[n] = step == "open"
        else:
            due_now = [due for one, dues in zip(is_open, model, strict=True) if one for due in dues]
            assert schedule.first_due() == min(due_now, default=None)
            if step == "pop" and due_now:
                queue, popped, _ = schedule.pop()
                assert popped == min(due_now)
                model[both.index(queue)].remove(popped)


def test_the_list_of_queues_does_not_grow_with_what_passes_through_them():
    schedule, queue = Schedule(), DueQueue()
    schedule.open(queue)

    schedule.push(queue, 1e9, None)
    for due in range(1000):
        schedule.push(queue, due, None)
        schedule.push(queue, due + 0.5, None)
        schedule.pop()
        schedule.pop()
        assert schedule.first_due() == 1e9

    assert len(schedule._heads) < 5


def test_a_compacted_queue_is_in_order():
    schedule, queue = Schedule(), DueQueue(waiting=1)
    schedule.open(queue)
    for due in sorted(range(200), key=lambda due: due * 7 % 200):
        schedule.push(queue, due, None)

    schedule.compact(queue, lambda _lane, due, _job: due % 3 == 2)

    assert len(queue.entries) == 66
    popped = []
    while schedule.first_due() is not None:
        popped.append(schedule.pop()[1])
    assert popped == list(range(2, 200, 3))


# All of it, in any order


IDS = [f"ls_{n}" for n in range(140)]
ERRORS = [
    *TRANSIENT,
    *LASTING,
    http(NotFound, 404),
    *(http(AuthenticationError, 401, code=code) for code in (None, "unauthorized")),
]


@define(eq=False)
class OneWaiter(Waiter):
    """A waiter that checks what it is given."""

    def assign(self, request):
        assert self.request is None
        assert self.result is None
        _check_fit_to_send(self, request)
        super().assign(request)

    def deliver(self, job, result):
        assert self.result is None
        super().deliver(job, result)


@define(eq=False)
class Many(ManyWaiter):
    def assign(self, request):
        _check_fit_to_send(self, request)
        super().assign(request)

    def deliver(self, job, result):
        assert job.id in self.pending
        super().deliver(job, result)


def _check_fit_to_send(waiter, request):
    assert not isinstance(waiter, ManyWaiter) or waiter.is_active
    assert any(waiter in job.waiters for job in request.jobs)
    free = [one for job in request.jobs for one in job.waiters if one.is_free(request.kind)]
    assert waiter.deadline == max(one.deadline for one in free)


def pick(data, things):
    # By index: hypothesis prints what it draws, and these are large.
    return things[data.draw(st.integers(0, len(things) - 1))]


class BoardMachine(RuleBasedStateMachine):
    """Every call of the board in any order, checked against invariants."""

    @initialize(max_bulk=st.integers(1, 3), has_statuses=st.booleans())
    def start(self, max_bulk, has_statuses):
        self.board = Board(PollPolicy(max_bulk=max_bulk))
        self.board.has_statuses = has_statuses
        self.now = 0.0
        self.singles = {}
        self.manys = []
        self.random = random.Random(0)

    # Waiters

    @rule(
        start=st.integers(0, 139),
        count=st.sampled_from([1, 1, 5, 120]),
        patience=st.sampled_from([0.5, 20.0, math.inf]),
        is_limited_by_policy=st.booleans(),
        age=st.sampled_from([None, 0.0, 100.0]),
    )
    def join(self, start, count, patience, is_limited_by_policy, age):
        for n in range(start, start + count):
            waiter = OneWaiter(self.now + patience, is_limited_by_policy=is_limited_by_policy)
            self.singles[waiter] = self.board.join(waiter, IDS[n % 140], self.now, age=age)

    @precondition(lambda self: self.singles)
    @rule(data=st.data())
    def leave(self, data):
        waiter = pick(data, list(self.singles))
        self.board.leave(waiter, self.singles.pop(waiter), self.now)

    @precondition(lambda self: any(waiter.request for waiter in self.singles))
    @rule(data=st.data())
    def sender_is_cancelled(self, data):
        waiter = pick(data, [waiter for waiter in self.singles if waiter.request])
        self.board.leave(waiter, self.singles.pop(waiter), self.now)

    @rule(start=st.integers(0, 139), count=st.sampled_from([1, 5, 120]), patience=st.sampled_from([5.0, math.inf]))
    def join_many(self, start, count, patience):
        many = Many(self.now + patience)
        for n in range(start, start + count):
            self.board.join(many, IDS[n % 140], self.now)
        self.manys.append(many)

    @precondition(lambda self: self.manys)
    @rule(data=st.data())
    def pause_or_resume(self, data):
        many = pick(data, self.manys)
        if many.is_active:
            self.board.pause(many)
        else:
            self.board.resume(many)

    @precondition(lambda self: any(not many.is_active for many in self.manys))
    @rule(data=st.data(), for_good=st.booleans())
    def cancel(self, data, for_good):
        many = pick(data, [many for many in self.manys if not many.is_active])
        if for_good:
            self.board.leave_all(many, self.now)
            self.manys.remove(many)
        else:
            self.board.cancel_requests(many, self.now)

    # What happens

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 20.0]))
    def time_passes(self, seconds):
        self.now += seconds
        before = set(self.requests_of())
        self.board.start_due(self.now)
        self.check_taken(set(self.requests_of()) - before)

    def check_taken(self, new):
        waiting = [one for one in self.board.jobs() if one.state is JobState.QUEUED and self.is_attended(one)]
        for request in new:
            assert all(self.is_attended(job) for job in request.jobs)
            if request.kind is RequestKind.STATUSES:
                assert len(request.ids) == MAX_STATUS_IDS or not waiting, "there is room in the request"
        if self.board.bulk_requests < self.board._policy.max_bulk or not self.board.has_statuses:
            assert not any(job.due <= self.now for job in waiting)

    @rule(lipsync_id=st.sampled_from(IDS))
    def notify(self, lipsync_id):
        self.board.notify(lipsync_id, 0.0)

    @precondition(lambda self: self.requests_of())
    @rule(data=st.data(), seed=st.integers(0, 2**16), share=st.sampled_from([0.0, 0.03, 1.0]))
    def answer(self, data, seed, share):
        self.random.seed(seed)
        request = pick(data, self.requests_of())
        if request.kind is RequestKind.STATUSES:
            statuses = {one: self.draw_status(share) for one in request.ids if self.random.random() < 0.95}
            self.board.on_statuses(request, statuses, Now(self.now))
        elif request.kind is RequestKind.LIPSYNC:
            self.board.on_lipsync(request, done(request.ids[0], self.draw_status(share)), Now(self.now))
        else:
            items = [done(one, self.draw_status(share)) for one in self.random.sample(IDS, k=seed % 101)]
            self.board.on_page(request, Page(items, "next", has_more=seed % 2 == 0), Now(self.now))
        assert request.settled

    def draw_status(self, share):
        running = [RUNNING, LipsyncStatus.PENDING, "simmering"]
        ended = [COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND]
        return self.random.choice(ended if self.random.random() < share else running)

    @precondition(lambda self: self.requests_of())
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data, error):
        request = pick(data, self.requests_of())
        before = {waiter for waiter in self.singles if waiter.result is None}
        touched = {waiter for job in request.jobs for waiter in job.waiters}
        self.board.on_error(request, error, Now(self.now))
        ended = {waiter for waiter in before if waiter.result is error}
        assert isinstance(error, AuthenticationError) or ended <= touched

    # Invariants

    def requests_of(self):
        single = [waiter.request for waiter in self.singles if waiter.request]
        return single + [request for many in self.manys for request in many.requests]

    def is_attended(self, job):
        return any(not isinstance(waiter, ManyWaiter) or waiter.is_active for waiter in job.waiters)

    @invariant()
    def every_waiter_with_a_result_has_left_its_job(self):
        self.singles = {waiter: job for waiter, job in self.singles.items() if not self.leave_if_ended(waiter, job)}

    def leave_if_ended(self, waiter, job):
        if waiter.result is None or waiter.request is not None:
            return False
        assert waiter not in job.waiters
        self.board.leave(waiter, job, self.now)
        return True

    @invariant()
    def no_waiter_is_lost(self):
        in_flight = [job for request in self.requests_of() for job in request.jobs]
        for job in self.board.jobs():
            many = [waiter for waiter in job.waiters if isinstance(waiter, Many)]
            if job.state is JobState.QUEUED:
                for queue in {waiter.queue if waiter in many else self.board._shared for waiter in job.waiters}:
                    assert (job.due, job) in self.queued(queue)
            elif job.state is JobState.IN_FLIGHT:
                assert in_flight.count(job) == 1
            else:
                assert job.state is JobState.TO_GET
                assert len(many) == len(job.waiters), "a waiter of one job is never too busy"
                assert all(job in waiter.to_get for waiter in many)
                assert not any(waiter.is_free(RequestKind.LIPSYNC) for waiter in many)

    def queued(self, queue):
        return {(due, job) for due, _, job in queue.entries}

    @invariant()
    def every_waiter_is_on_the_board(self):
        for waiter, job in self.singles.items():
            assert waiter.result is not None or waiter in job.waiters
        for many in self.manys:
            assert all(many in job.waiters for job in many.pending.values())

    @invariant()
    def requests_keep_to_their_limits(self):
        looks = [request for request in self.requests_of() if request.kind is RequestKind.STATUSES]
        assert self.board.bulk_requests == len(looks)
        assert len(looks) <= self.board._policy.max_bulk
        assert all(len(request.ids) <= MAX_STATUS_IDS for request in looks)
        assert all(not request.settled for request in self.requests_of())
        assert sum(request.kind is RequestKind.PAGE for request in self.requests_of()) <= 1
        about = [job.state for request in self.requests_of() for job in request.jobs]
        assert set(about) <= {JobState.IN_FLIGHT, JobState.DONE}

    @invariant()
    def it_counts_right(self):
        schedule = [self.board._shared, *(many.queue for many in self.manys)]
        assert sum(queue.waiting for queue in schedule) == sum(len(one.waiters) for one in self.board.jobs())
        assert all(len(queue.entries) <= 65 + 2 * queue.waiting for queue in schedule)
        for many in self.manys:
            assert many.gets == sum(request.kind is RequestKind.LIPSYNC for request in many.requests)

    @invariant()
    def only_waiters_with_a_request_or_a_result_are_woken(self):
        for waiter in self.board.take_ready():
            if isinstance(waiter, Many):
                assert waiter.to_start or waiter.results or waiter not in self.manys
            else:
                assert waiter.request or waiter.result or waiter not in self.singles

    def teardown(self):
        """From any state, a server that answers ends every wait."""
        if not hasattr(self, "board"):
            return
        for many in self.manys:
            if not many.is_active:
                self.board.resume(many)
        for _ in range(600):
            if not self.singles and not any(many.pending for many in self.manys):
                return
            self.now = max(self.now, self.board.next_due() or self.now)
            self.board.start_due(self.now)
            for request in self.requests_of():
                self.complete(request)
            self.every_waiter_with_a_result_has_left_its_job()
        raise AssertionError("a wait never ends")

    def complete(self, request):
        if request.kind is RequestKind.STATUSES:
            self.board.on_statuses(request, dict.fromkeys(request.ids, COMPLETED), Now(self.now))
        elif request.kind is RequestKind.LIPSYNC:
            self.board.on_lipsync(request, done(request.ids[0]), Now(self.now))
        else:
            self.board.on_page(request, Page([]), Now(self.now))


TestBoardMachine = BoardMachine.TestCase
TestBoardMachine.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
