"""The rows of a run in progress, as the run page follows them."""

import asyncio

from heygen_async.bulk.events import DubEvent, DubSnapshot
from heygen_async.review import LiveRows, run_view
from heygen_async.review.live_rows import Changes


def follow(*steps):
    """Return the rows of a run after steps of (time, key, stage)."""
    now = 0.0
    rows = LiveRows(lambda: now)
    for when, key, stage in steps:
        now = when
        rows.on_event(DubEvent(stage=stage, key=key, place="line 2"))
    return rows


def test_a_row_has_its_stages_with_the_seconds_since_the_start():
    rows = follow((10, "a", "uploading"), (12, "a", "waiting"), (12, "b", "unchanged"), (15, "a", "running"))
    assert rows.row("a").stage == "running"
    assert rows.row("a").history == ((0, "uploading"), (2, "waiting"), (5, "running"))
    assert rows.row("b").history == ((2, "unchanged"),)
    assert rows.row("c") is None


def test_a_message_about_the_same_stage_is_no_new_stage():
    rows = LiveRows(lambda: 1.0)
    rows.on_event(DubEvent(stage="waiting", key="a", place="line 2"))
    rows.on_event(DubEvent(stage="waiting", key="a", place="line 2", message="busy"))
    assert rows.row("a").message == "busy"
    assert len(rows.row("a").history) == 1


def test_a_row_that_is_retried_for_hours_keeps_its_last_stages_only():
    rows = follow(*((number, "a", ("waiting", "submitting")[number % 2]) for number in range(1000)))
    assert len(rows.row("a").history) == 64
    assert rows.row("a").history[-1] == (999, "submitting")


async def test_each_page_learns_of_each_change_once():
    rows = LiveRows(lambda: 0.0)
    with rows.changed.followed() as first:
        rows.on_event(DubEvent(stage="waiting", key="a", place="line 2"))
        with rows.changed.followed() as second:
            rows.on_event(DubEvent(stage="waiting", key="b", place="line 3"))
            rows.on_event(DubEvent(stage="submitting", key="b", place="line 3"))
            assert second.take(10) == Changes(["b"], [])
        assert sorted(first.take(10).read) == ["a", "b"]
        assert first.take(10) == Changes([], [])


async def test_a_row_is_read_at_first_and_at_its_end_and_moved_between():
    rows = LiveRows(lambda: 0.0)
    with rows.changed.followed() as page:
        for stage, changes in [
            ("uploading", Changes(["a"], [])),
            ("waiting", Changes([], ["a"])),
            ("submitting", Changes([], ["a"])),
            ("running", Changes([], ["a"])),
            ("downloading", Changes([], ["a"])),
            ("completed", Changes(["a"], [])),
        ]:
            rows.on_event(DubEvent(stage=stage, key="a", place="line 2"))
            assert page.take(10) == changes


async def test_a_row_that_is_to_be_read_is_not_moved_as_well():
    rows = LiveRows(lambda: 0.0)
    with rows.changed.followed() as page:
        for stage in ("uploading", "waiting", "running", "downloading"):
            rows.on_event(DubEvent(stage=stage, key="a", place="line 2"))
        assert page.take(10) == Changes(["a"], [])


async def test_a_page_waits_until_something_changes_and_takes_what_it_can_carry():
    rows = LiveRows(lambda: 0.0)
    with rows.changed.followed() as page:
        waiting = asyncio.ensure_future(page.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        rows.changed.add("a")
        rows.changed.add("b")
        await asyncio.wait_for(waiting, 10)
        page.take(1)
        await asyncio.wait_for(page.wait(), 10)  # there is more
        page.take(1)
        rows.changed.add(None)  # the run alone
        await asyncio.wait_for(page.wait(), 10)
        assert page.take(1) == Changes([], [])


def test_a_run_shows_its_stages_its_pace_and_its_money():
    snapshot = DubSnapshot(
        stages={"completed": 2, "running": 1, "failed": 0},
        total=5,
        in_flight=1,
        limit=10,
        refusals=0,
        estimate=3.0,
        spent=2.0,
        reserved=1.0,
        budget=9.0,
        balance_before=None,
        balance_after=None,
        trouble=None,
        halted=None,
    )
    view = run_view(snapshot, lambda _: (0.5, 6.0), elapsed=4.0, has_ended=False)
    assert view["stages"] == {"completed": 2, "running": 1}
    assert (view["ended"], view["total"], view["not_started"]) == (2, 5, 2)
    assert (view["in_flight"], view["limit"], view["rate"], view["seconds_left"]) == (1, 10, 0.5, 6.0)
    assert (view["spent"], view["reserved"], view["budget"]) == (2.0, 1.0, 9.0)
