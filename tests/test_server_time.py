"""The API's time: how long keys are remembered is judged by the dates of answers, not by a clock that people set."""

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async import DubRow, HeyGenSession, _uptime
from heygen_async._doctor.network_checks import clock_check
from heygen_async._doctor.seen import CallResult
from heygen_async._ids import CLOCK_ERROR
from heygen_async._transport import server_time
from heygen_async._transport.server_time import ServerTime
from heygen_async._wire import Response
from heygen_async.diagnosis import Level

VIDEO, AUDIO = "https://example.com/v.mp4", "https://example.com/a.mp3"
DAY = 24 * 3600.0
NOON = 1_800_000_000.0


class Machine:
    """A machine whose clocks are set by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.elapsed = NOON, 100.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        self.time = ServerTime(lambda: self.elapsed)

    def answer(self, date: float | str | None, *, took: float = 0.0) -> None:
        """Let an answer arrive that took so long."""
        sent, self.elapsed = self.elapsed, self.elapsed + took
        self.time.note(formatdate(date, usegmt=True) if isinstance(date, float) else date, sent=sent)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_before_the_first_date_the_time_is_that_of_the_machine(machine: Machine) -> None:
    assert machine.time.now() == NOON
    machine.answer(None)
    assert machine.time.now() == NOON


def test_before_the_first_date_it_can_be_any_time(machine: Machine) -> None:
    assert machine.time.latest() == math.inf
    machine.answer(None)
    assert machine.time.latest() == math.inf
    machine.answer(NOON - DAY)
    assert machine.time.latest() == NOON


def test_a_date_sets_the_time_and_the_wall_clock_counts_no_more(machine: Machine) -> None:
    machine.answer(NOON + 3 * DAY)
    machine.wall -= 5 * DAY
    machine.elapsed += 2 * DAY  # the machine was suspended
    assert machine.time.now() == NOON + 5 * DAY


@pytest.mark.parametrize(("difference", "moved"), [(-1.0, 0.0), (-2.0, 0.0), (-5.0, -3.0), (2.0, 2.0), (-DAY, 2 - DAY)])
def test_a_later_date_moves_the_time_as_far_as_it_must(machine: Machine, difference: float, moved: float) -> None:
    machine.answer(NOON)
    machine.answer(NOON + difference)
    assert machine.time.now() == NOON + moved


def test_an_answer_that_waited_for_a_suspended_machine_does_not_set_the_time_back(machine: Machine) -> None:
    machine.answer(NOON)
    machine.answer(NOON, took=2 * DAY)
    assert machine.time.now() == NOON + 2 * DAY


def test_a_first_answer_that_took_long_counts_as_from_its_start(machine: Machine) -> None:
    machine.answer(NOON, took=2 * DAY)
    assert machine.time.now() == NOON + 2 * DAY


@given(st.lists(st.tuples(st.floats(0, 3600), st.floats(0, 3600), st.floats(0, 1)), min_size=1))
def test_the_time_is_never_behind_and_ahead_by_no_more_than_an_answer_took(
    answers: list[tuple[float, float, float]],
) -> None:
    elapsed = 0.0
    known = ServerTime(lambda: elapsed)
    for pause, took, share in answers:
        sent = elapsed = elapsed + pause
        stamped = NOON + int(sent + share * took)
        elapsed += took
        known.note(formatdate(stamped, usegmt=True), sent=sent)
        assert NOON + elapsed - 1 <= known.now() <= NOON + elapsed + max(took for _, took, _ in answers) + 2


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Mon, 99 Jan 2026 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Sat, 01 Jan 1600 00:00:00 GMT",
    ],
)
def test_a_date_that_cannot_be_read_counts_as_none(machine: Machine, date: str) -> None:
    machine.answer(date)
    assert machine.time.now() == NOON


@pytest.fixture(params=["Asia/Tokyo", "America/New_York"])
def far_from_utc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this machine in another time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no TZ")
@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S -0000"])
def test_a_date_without_a_zone_is_utc_wherever_this_machine_is(machine: Machine, form: str) -> None:
    date = time.strftime(form, time.gmtime(NOON + DAY))
    machine.answer(date)
    assert machine.time.now() == NOON + DAY

    result = CallResult(call="GET", response=Response(200, {"Date": date}, None), seconds=0.0, received_at=NOON + DAY)
    assert clock_check([result]).level is Level.OK


def test_the_clock_between_two_answers_is_not_the_one_that_people_set(monkeypatch: pytest.MonkeyPatch) -> None:
    if _uptime._CLOCK is None:
        pytest.skip("this system has only a clock that people set")
    before = _uptime.since_boot()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert before <= _uptime.since_boot() < before + 60


@pytest.fixture
def three_days_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_time, "time", SimpleNamespace(time=lambda: time.time() + 3 * DAY))


@pytest.mark.usefixtures("three_days_ahead")
async def test_a_session_and_its_views_share_the_time_of_the_api(heygen_session: HeyGenSession) -> None:
    view = heygen_session.with_options()
    assert view._transport.server_time.now() > time.time() + 2 * DAY
    await heygen_session.account.me()
    assert abs(view._transport.server_time.now() - time.time()) < CLOCK_ERROR


@pytest.mark.usefixtures("three_days_ahead")
async def test_the_waits_of_a_session_know_the_time_of_the_api(heygen_session: HeyGenSession) -> None:
    await heygen_session.account.me()
    assert abs(heygen_session.poller._dispatcher._wall().timestamp() - time.time()) < CLOCK_ERROR


@pytest.mark.usefixtures("three_days_ahead")
async def test_a_run_records_when_it_sends_a_create_by_the_time_of_the_api(
    heygen_session: HeyGenSession, tmp_path: Path
) -> None:
    journal = tmp_path / "run.sqlite"
    async with heygen_session.dub_many([DubRow(VIDEO, AUDIO, key="row")], journal=journal) as run:
        assert [outcome.state async for outcome in run] == ["completed"]
    with closing(sqlite3.connect(journal)) as database:
        (asked_at,) = database.execute("SELECT asked_at FROM rows").fetchone()
    assert abs(asked_at - time.time()) < CLOCK_ERROR
