"""When a request is sent again, as a table."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async import (
    APIError,
    AuthenticationError,
    Conflict,
    InsufficientCredit,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    PollPolicy,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
    UnexpectedResponse,
)
from heygen_async._transport.retry import Attempts, backoff


def server_error(status=500, **more):
    return ServerError("no", status=status, **more)


def limited(retry_after=None):
    return RateLimited("slow down", status=429, retry_after=retry_after)


def in_progress(retry_after=None):
    return Conflict("wait", status=409, code="request_in_progress", retry_after=retry_after)


def delay(error, *, policy=RetryPolicy(), made=0, refusals=0, elapsed=0.0, repeatable=True, chance=1.0):
    """Return the delay after *error*, which ends one attempt more than were *made*."""
    attempts = Attempts(policy, is_repeatable=repeatable, made=made + refusals, refusals=refusals)
    return attempts.delay_after(error, chance=chance, elapsed=elapsed)


@pytest.mark.parametrize(
    "error",
    [
        TransportError("gone"),
        RequestTimeout("late"),
        APIError("timeout", status=408),
        server_error(500),
        server_error(503),
        server_error(599),
        UnexpectedResponse(["the body is not JSON"], status=200),
    ],
    ids=repr,
)
def test_a_transient_error_is_retried(error):
    assert delay(error) == 0.5
    assert delay(error, chance=0.5) == 0.25


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("bad", status=400),
        AuthenticationError("who", status=401),
        InsufficientCredit("poor", status=402),
        PermissionDenied("no", status=403),
        NotFound("where", status=404),
        Conflict("state", status=409, code="conflict"),
        UnexpectedResponse(["a redirect"], status=302),
    ],
    ids=repr,
)
def test_a_lasting_error_is_not_retried(error):
    assert delay(error) is None


@pytest.mark.parametrize("error", [server_error(), limited(1.0), in_progress(), TransportError("gone")], ids=repr)
def test_nothing_is_retried_that_is_not_safe_to_repeat_or_where_one_attempt_is_allowed(error):
    assert delay(error, repeatable=False) is None
    assert delay(error, policy=RetryPolicy(max_attempts=1)) is None


def test_attempts_run_out():
    assert delay(server_error(), made=2) is not None
    assert delay(server_error(), made=3) is None


@pytest.mark.parametrize("error", [limited(1.0), in_progress()], ids=repr)
def test_a_refusal_uses_up_no_attempt_but_time(error):
    assert delay(error, made=4, refusals=49, elapsed=100) is not None
    assert delay(error, elapsed=180) is None


def test_retry_after_is_never_undercut():
    assert delay(server_error(retry_after=30.0), chance=0.0) == 30.0
    assert delay(in_progress(3.0), chance=0.0) == 3.0
    assert delay(limited(30.0), chance=1.0) == 30.0


def test_a_retry_after_beyond_the_cap_is_raised_at_once():
    assert delay(limited(120.0)) == 120.0
    assert delay(limited(121.0)) is None
    assert delay(server_error(retry_after=121.0)) is None


def test_a_429_without_a_time_backs_off():
    assert delay(limited()) == 0.5
    assert delay(limited(0.0), refusals=2, elapsed=1) == 2.0


def test_a_policy_can_have_429_raised():
    policy = RetryPolicy(on_rate_limit="raise")
    assert delay(limited(1.0), policy=policy) is None
    assert delay(in_progress(), policy=policy) is not None


def test_no_attempt_starts_after_the_total_time():
    assert delay(server_error(), elapsed=179.6, chance=0.5) == 0.25
    assert delay(server_error(), elapsed=179.6, chance=1.0) is None


def test_backoff_doubles_up_to_its_cap():
    waits = [backoff(RetryPolicy(), failures, chance=1.0) for failures in range(1, 8)]
    assert waits == [0.5, 1, 2, 4, 8, 8, 8]
    assert backoff(RetryPolicy(), 10**9, chance=1.0) == 8


@given(
    made=st.integers(0, 50),
    refusals=st.integers(0, 50),
    elapsed=st.floats(0, 300),
    chance=st.floats(0, 1),
    retry_after=st.none() | st.floats(0, 300),
)
def test_a_wait_keeps_every_bound(made, refusals, elapsed, chance, retry_after):
    policy = RetryPolicy()
    error = server_error(retry_after=retry_after)
    wait = delay(error, made=made, refusals=refusals, elapsed=elapsed, chance=chance)
    if wait is not None:
        assert made + 1 < policy.max_attempts
        assert elapsed + wait <= policy.max_seconds
        assert wait >= (retry_after or 0)
        assert wait <= max(policy.max_delay, policy.max_retry_after)


def test_the_attempts_of_a_transfer_are_bounded_until_there_is_progress():
    attempts = Attempts(RetryPolicy(max_attempts=3))
    delays = [attempts.delay_after(TransportError("broken"), chance=1) for _ in range(3)]
    attempts.reset()
    assert [delay is None for delay in delays] == [False, False, True]
    assert attempts.delay_after(TransportError("broken"), chance=1) is not None


def test_a_transfer_is_bounded_in_the_time_that_it_waits():
    attempts = Attempts(RetryPolicy(max_attempts=2, max_seconds=10))
    assert [attempts.delay_after(limited(4.0), chance=1) for _ in range(3)] == [4, 4, None]


def test_a_different_request_is_tried_at_once_even_without_retries():
    attempts = Attempts(RetryPolicy(max_attempts=1))
    assert attempts.delay_before_change(chance=1) == 0
    assert attempts.delay_before_change(chance=1) is None


def test_different_requests_back_off_after_the_first():
    attempts = Attempts(RetryPolicy(max_attempts=4))
    assert [attempts.delay_before_change(chance=1) for _ in range(4)] == [0, 0.5, 1, None]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"max_attempts": 0}, ValueError),
        ({"max_attempts": 1.5}, TypeError),
        ({"max_attempts": True}, TypeError),
        ({"max_seconds": -1}, ValueError),
        ({"first_delay": float("nan")}, ValueError),
        ({"max_delay": "8"}, TypeError),
        ({"max_retry_after": float("inf")}, ValueError),
        ({"on_rate_limit": "ignore"}, ValueError),
        ({"on_rate_limit": None}, ValueError),
    ],
)
def test_a_policy_that_makes_no_sense_names_its_argument(arguments, kind):
    with pytest.raises(kind, match=f"^{next(iter(arguments))} must be"):
        RetryPolicy(**arguments)


@pytest.mark.parametrize("policy", [RetryPolicy, PollPolicy, Timeouts])
def test_no_value_of_a_policy_may_be_missing(policy):
    for field in attrs.fields(policy):
        with pytest.raises((TypeError, ValueError), match=f"^{field.name} must be"):
            policy(**{field.name: None})
