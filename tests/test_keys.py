"""Idempotency keys: each belongs to one request, for as long as the server may remember it."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async._ids import KEY_SECONDS, is_key_fresh
from heygen_async._transport.keys import UsedKeys
from heygen_async._wire import Stream, compose


def create(body=1, key="k", path="/v3/lipsyncs"):
    return compose("POST", path, json={"a": body}, idempotency_key=key)


def run(keys, request, outcome, *, is_final=False):
    keys.end(keys.begin(request), outcome, is_final=is_final)


def is_refused(keys, request):
    try:
        use = keys.begin(request)
    except ValueError as error:
        assert str(request.idempotency_key) in str(error)
        return True
    keys.end(use, None, is_final=False)
    return False


@pytest.mark.parametrize(
    ("outcome", "is_final", "refused"),
    [
        (None, False, True),
        ("unknown", False, True),
        ("rejected", False, False),
        ("not_sent", False, False),
        ("rejected", True, False),
    ],
    ids=["done", "unknown", "rejected", "not sent", "final"],
)
@pytest.mark.parametrize(
    "other", [create(2), create(path="/v3/lipsyncs/batches"), compose("POST", "/v3/x", idempotency_key="k")]
)
def test_a_key_is_free_again_only_if_nothing_can_have_been_created(outcome, is_final, refused, other):
    keys = UsedKeys()
    run(keys, create(), outcome, is_final=is_final)
    assert is_refused(keys, other) is refused


def test_a_key_of_a_call_under_way_is_not_free():
    keys = UsedKeys()
    keys.begin(create())
    assert is_refused(keys, create(2))
    run(keys, create(), "rejected")
    assert is_refused(keys, create(2))


def test_a_call_that_ends_after_its_key_was_freed_does_not_touch_the_new_use():
    keys = UsedKeys()
    old = keys.begin(create())
    run(keys, create(), "rejected", is_final=True)
    new = keys.begin(create(2))
    keys.end(old, "rejected", is_final=True)
    assert is_refused(keys, create())
    keys.end(new, None, is_final=False)
    assert is_refused(keys, create())


@pytest.mark.parametrize(
    ("outcome", "refused"), [(None, True), ("unknown", True), ("rejected", False)], ids=["done", "unknown", "rejected"]
)
def test_a_key_that_was_freed_belongs_to_the_request_again_that_has_succeeded_under_it(outcome, refused):
    keys = UsedKeys()
    one, other = keys.begin(create()), keys.begin(create())
    keys.end(one, "rejected", is_final=True)
    keys.end(other, outcome, is_final=False)
    assert is_refused(keys, create(2)) is refused


def test_a_doubt_of_one_call_is_known_to_the_next_until_it_is_resolved():
    keys = UsedKeys()
    run(keys, create(), "unknown")
    use = keys.begin(create())
    assert use.is_unknown
    keys.end(use, "unknown", is_final=False)
    run(keys, create(), None)
    assert not keys.begin(create()).is_unknown


def test_a_refusal_of_one_call_does_not_resolve_the_doubt_of_another():
    keys = UsedKeys()
    one, other = keys.begin(create()), keys.begin(create())
    keys.end(one, "unknown", is_final=False)
    keys.end(other, "rejected", is_final=False)
    assert keys.begin(create()).is_unknown


def test_the_order_of_fields_does_not_make_a_request_different():
    keys = UsedKeys()
    run(keys, compose("POST", "/v3/x", json={"a": 1, "b": {"c": 1, "d": 2}}, idempotency_key="k"), None)
    assert not is_refused(keys, compose("POST", "/v3/x", json={"b": {"d": 2, "c": 1}, "a": 1}, idempotency_key="k"))
    assert is_refused(keys, compose("POST", "/v3/x", json={"b": {"d": 1, "c": 1}, "a": 1}, idempotency_key="k"))


def test_the_memory_is_bounded_and_keeps_the_most_recent_keys():
    keys = UsedKeys(most=3)
    for key in ("a", "b", "c", "a", "d"):
        run(keys, create(key=key), None)
    assert [is_refused(keys, create(2, key=key)) for key in ("a", "c", "d")] == [True] * 3
    assert not is_refused(keys, create(2, key="b"))


def test_keys_that_are_done_leave_no_object_to_the_garbage_collector():
    keys = UsedKeys()
    run(keys, create(key="first"), None)
    before = len(gc.get_objects())
    for number in range(1000):
        run(keys, create(key=f"k{number}"), None)
    assert len(gc.get_objects()) - before < 100


def test_requests_without_a_key_and_uploads_are_not_kept():
    keys = UsedKeys()
    assert keys.begin(compose("GET", "/v3/lipsyncs")) is None
    assert keys.begin(compose("POST", "/v3/assets", stream=Stream("video/mp4", 1, chunks=lambda: aiter([])))) is None


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([None, "unknown", "rejected", "final"]), st.booleans())))
def test_while_something_may_exist_under_a_key_no_other_body_is_sent(events):
    keys, open_calls, may_exist = UsedKeys(), [], set()
    for body, end, starts in events:
        if starts:
            try:
                open_calls.append((body, keys.begin(create(body))))
            except ValueError:
                continue
            assert not may_exist - {body}
        elif open_calls:
            body_, use = open_calls.pop(0)
            keys.end(use, "rejected" if end == "final" else end, is_final=end == "final")
            if end in (None, "unknown"):
                may_exist = {body_}
            if end == "final":
                may_exist.clear()
                open_calls.clear()  # a final answer is about every request under the key


@pytest.mark.parametrize(
    ("seconds", "is_fresh"),
    [
        (0, True),
        (KEY_SECONDS, True),
        (KEY_SECONDS + 1, False),
        (25 * 3600, False),
        (-1, True),  # a small correction of the clock
        (-3600, False),  # the clock was set back: the age is not known
        (-3 * 86400, False),
    ],
)
def test_a_key_is_fresh_for_23_hours_by_the_clock(seconds, is_fresh):
    assert is_key_fresh(1_700_000_000.0, 1_700_000_000.0 + seconds) is is_fresh
