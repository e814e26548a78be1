"""No row is paid twice, whatever becomes of the journal, the clocks and the answers."""

import asyncio
import hashlib
import math
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from attrs import evolve
from bulk_stage import AUDIO, CREATE, Stage, row_key, rows, staged, url
from until import until

from heygen_async import HeyGenError, HeyGenSession, InsufficientCredit, NotFound, RetryPolicy
from heygen_async._transport import driver, server_time
from heygen_async.bulk import DubRun, JournalError
from heygen_async.bulk.identity import inputs_digest
from heygen_async.bulk.searching import InDoubt
from heygen_async.models import DubOutcome, DubRow, LipsyncRequest
from heygen_async.sandbox import SAMPLE_AUDIO, Fault
from heygen_async.sandbox.faults import Alter, Reply, error, html, missing, rate_limited, reset, server_error, stall

DAY = 24 * 3600.0
BATCH = "POST /v3/lipsyncs/batches"
LIST = "GET /v3/lipsyncs"
GET = "GET /v3/lipsyncs/{lipsync_id}"
ME = "GET /v3/users/me"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


def _two_days_later() -> float:
    return time.time() + 2 * DAY


def _forget_keys(stage: Stage) -> None:
    stage.sandbox.forget_keys()


# A machine that is suspended


class _Machine:
    """Its clock jumps by two days at one of the looks at it, and then the server has forgotten all keys."""

    def __init__(self, stage: Stage, jumps_at: int) -> None:
        self._stage = stage
        self._left = jumps_at
        self._slept = 0.0

    def time(self) -> float:
        self._left -= 1
        if self._left == 0:
            self._slept = 2 * DAY
            _forget_keys(self._stage)
        return time.time() + self._slept

    @property
    def has_slept(self) -> bool:
        return self._slept > 0


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_a_machine_that_is_suspended_at_any_look_at_the_clock_pays_for_nothing_again(
    tmp_path: Path, submit: str
) -> None:
    given = rows(1 if submit == "each" else 2)  # one request: another one could be on its way when the clock jumps
    jumps_at, has_slept = 0, True
    while has_slept:
        jumps_at += 1
        folder = tmp_path / str(jumps_at)
        folder.mkdir()
        async with staged(folder) as stage:
            await _lose_the_answers(stage, given, submit)
            machine = _Machine(stage, jumps_at)
            stage.heygen._transport.server_time.elapsed = machine.time
            assert await stage.states(given, submit=submit, now=machine.time) == {"completed": len(given)}
            has_slept = machine.has_slept
            assert set(await stage.states(given, now=machine.time)) <= {"completed", "unchanged"}
            assert len(stage.sandbox.jobs) == len(given)
    assert jumps_at > 10


@pytest.fixture
def two_days_ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns what sets the wall clock of a session; the dates of the API's answers stay what they are."""
    ahead = SimpleNamespace(time=_two_days_later)

    def move() -> None:
        monkeypatch.setattr(server_time, "time", ahead)
        monkeypatch.setattr(driver, "time", ahead)

    return move


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_a_wall_clock_that_moves_during_a_run_pays_for_nothing_again(
    stage: Stage, submit: str, two_days_ahead: Callable[[], None]
) -> None:
    stage.sandbox.faults = [reset(route, after=True, times=1) for route in (CREATE, BATCH)]
    retry = RetryPolicy(first_delay=0.2, max_delay=0.2)
    journal = stage.folder / "run.sqlite"
    async with stage.heygen.with_options(retry=retry).dub_many(rows(1), journal=journal, submit=submit) as run:
        ends = asyncio.ensure_future(anext(run))
        await until(lambda: stage.sandbox.jobs)
        two_days_ahead()
        _forget_keys(stage)
        outcome = await ends

    assert outcome.state == "completed"
    assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("after", [True, False], ids=["after the work", "before the work"])
async def test_a_row_is_searched_for_if_its_key_is_old_by_the_wall_clock_alone(
    stage: Stage, submit: str, after: bool, two_days_ahead: Callable[[], None]
) -> None:
    if after:
        await _lose_the_answers(stage, rows(2), submit)
        _forget_keys(stage)
    else:
        stage.sandbox.faults = [reset(route) for route in (CREATE, BATCH)]
        async with stage.run(rows(2), submit=submit):
            await until(lambda: stage.asked(BATCH if submit == "batch" else CREATE))
    stage.sandbox.faults = []
    two_days_ahead()

    async with stage.heygen.dub_many(rows(2), journal=stage.folder / "run.sqlite", submit=submit) as run:
        states = [outcome.state async for outcome in run]
    assert states == ["completed"] * 2
    assert len(stage.sandbox.jobs) == 2
    assert stage.asked(LIST) <= 5


@pytest.mark.parametrize("is_doubtful", [True, False], ids=["in doubt", "found"])
async def test_rows_of_a_batch_that_one_of_them_has_left_are_not_sent_again_while_the_list_lags(
    stage: Stage, is_doubtful: bool
) -> None:
    given = [evolve(row, callback_id="mine" if is_doubtful and row.key == "row-1" else None) for row in rows(3)]
    await _lose_the_answers(stage, given, "batch")
    foreign = await stage.heygen.lipsyncs.create(video=url("foreign"), audio=AUDIO, callback_id="mine")
    listed = next(one for one in stage.sandbox.jobs if (one.id == foreign.id) == is_doubtful)
    job = {"id": listed.id, "status": "processing", "callback_id": listed.body["callback_id"]}
    page = orjson.dumps({"data": [job], "has_more": False, "next_token": None})
    stage.sandbox.faults = [Fault(LIST, Reply(status=200, body=page))]

    left = {"failed": 3} if is_doubtful else {"completed": 1, "failed": 2}
    assert await stage.states(given, submit="batch", latest=_two_days_later) == left
    assert (await stage.states(given, submit="batch"))["failed"] == left["failed"]
    assert len(stage.sandbox.jobs) == 4

    stage.sandbox.faults = []
    states = await stage.states(given, submit="batch", latest=_two_days_later)
    assert states == ({"failed": 1, "completed": 2} if is_doubtful else {"unchanged": 1, "completed": 2})
    assert len(stage.sandbox.jobs) == 4


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("may_list", [True, False])
async def test_a_row_that_was_never_sent_is_not_searched_for_whatever_the_wall_clock_says(
    stage: Stage, submit: str, may_list: bool, two_days_ahead: Callable[[], None]
) -> None:
    stage.sandbox.faults = [] if may_list else [error(403, "forbidden", route=LIST)]
    two_days_ahead()
    async with stage.heygen.dub_many(rows(6), journal=stage.folder / "run.sqlite", submit=submit) as run:
        states = [outcome.state async for outcome in run]

    assert states == ["completed"] * 6
    assert stage.asked(LIST) <= 2  # the newest job, and the results of a batch


@pytest.mark.parametrize("status", [403, 404, 410])
@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_a_create_without_an_answer_is_repeated_though_the_list_cannot_be_read(
    stage: Stage, submit: str, status: int
) -> None:
    await _lose_the_answers(stage, rows(2), submit)
    stage.sandbox.faults = [Fault(LIST, Reply(status=status, content_type="text/plain"))]

    assert await stage.states(rows(2), submit=submit) == {"completed": 2}
    assert len(stage.sandbox.jobs) == 2


@pytest.mark.parametrize("status", [403, 404, 405])
@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_a_new_journal_needs_no_list(stage: Stage, submit: str, status: int) -> None:
    stage.sandbox.faults = [Fault(LIST, Reply(status=status, content_type="text/plain"))]

    assert await stage.states(rows(3), submit=submit) == {"completed": 3}
    stage.sandbox.faults = []
    assert await stage.states(rows(5), submit=submit) == {"completed": 2, "unchanged": 3}
    assert len(stage.sandbox.jobs) == 5


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_before_the_first_answer_no_clock_is_believed_that_makes_a_key_young(stage: Stage, submit: str) -> None:
    """The clock was set back by two days, and the request before the first create was not answered by the API."""
    await _lose_the_answers(stage, rows(2), submit)
    _forget_keys(stage)
    walks = stage.asked(LIST)
    stage.sandbox.faults = [html("GET /v3/users/me", times=1)]

    def latest() -> float:
        return _two_days_later() if stage.asked(LIST) > walks else math.inf

    def now() -> float:
        return _two_days_later() if stage.asked(LIST) > walks else time.time()

    assert await stage.states(rows(2), submit=submit, now=now, latest=latest) == {"completed": 2}
    assert len(stage.sandbox.jobs) == 2


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Returns what sets the wall clock of a session ahead, by seconds; no answer of the API has a date."""
    note = server_time.ServerTime.note
    monkeypatch.setattr(server_time.ServerTime, "note", lambda known, _, sent: note(known, None, sent=sent))

    def move(seconds: float) -> None:
        clock = SimpleNamespace(time=lambda: time.time() + seconds)
        monkeypatch.setattr(server_time, "time", clock)
        monkeypatch.setattr(driver, "time", clock)

    return move


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_without_dates_of_the_api_no_wall_clock_makes_an_old_key_young(
    stage: Stage, submit: str, ahead: Callable[[float], None]
) -> None:
    """The clock was 22 hours ahead when the row was sent, and is right 25 hours later."""
    journal = stage.folder / "run.sqlite"
    stage.sandbox.faults = [stall(CREATE, after=True, times=1), reset(BATCH, after=True)]
    ahead(22 * 3600.0)
    async with stage.heygen.dub_many(rows(2), journal=journal, submit=submit) as run:
        await (anext(run) if submit == "each" else until(lambda: stage.sandbox.jobs))
    stage.sandbox.faults = []
    _forget_keys(stage)
    lists = stage.asked(LIST)
    ahead(25 * 3600.0)
    async with stage.heygen.dub_many(rows(2), journal=journal, submit=submit) as run:
        assert {outcome.state async for outcome in run} <= {"completed", "unchanged"}

    assert len(stage.sandbox.jobs) == 2
    assert stage.asked(LIST) <= lists + 3


async def _lose_the_answers(stage: Stage, given: list[DubRow], submit: str) -> None:
    """Create the jobs of all rows, and stop the run before it knows."""
    stage.sandbox.faults = [reset(route, after=True) for route in (CREATE, BATCH)]
    async with stage.run(given, submit=submit):
        await until(lambda: len(stage.sandbox.jobs) == len(given))
    stage.sandbox.faults = []


# A journal that lost its last writes


async def _run_that_loses_its_last_writes(stage: Stage, given: list[DubRow], **options: object) -> None:
    """Run all rows, and leave the journal as it was before the first job."""
    journal, before = stage.folder / "run.sqlite", stage.folder / "before.sqlite"
    async with stage.run(given, **options) as run:
        await until(lambda: stage.asked(LIST))  # what is about to be created is not in the journal yet
        shutil.copy(journal, before)
        outcomes = [outcome async for outcome in run]
    assert {outcome.state for outcome in outcomes} == {"completed"}
    before.replace(journal)


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_jobs_that_the_journal_lost_are_found_and_not_paid_again(stage: Stage, submit: str) -> None:
    await _run_that_loses_its_last_writes(stage, rows(8), submit=submit, output_dir=None)
    _forget_keys(stage)
    sent = len(stage.keys_sent())

    assert await stage.states(rows(8), submit=submit, now=_two_days_later) == {"completed": 8}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 9)}
    assert len(stage.keys_sent()) == sent
    assert await stage.states(rows(8)) == {"unchanged": 8}


def _signed_rows(token: str) -> list[DubRow]:
    """Return rows whose links are signed by a host that is not known."""
    query = f"token={token * 10}&expires=1800000000"
    return [DubRow(url("video"), f"https://cdn.example.com/{one}.mp3?{query}", key=f"row-{one}") for one in range(3)]


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_jobs_that_the_journal_lost_are_found_although_the_links_were_signed_again(
    stage: Stage, submit: str
) -> None:
    await _run_that_loses_its_last_writes(stage, _signed_rows("q8Zk"), submit=submit, output_dir=None)

    assert await stage.states(_signed_rows("Hs2K"), submit=submit, output_dir=None) == {"completed": 3}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(3)}


async def test_a_run_that_ends_again_before_all_lost_jobs_are_adopted_loses_none(stage: Stage) -> None:
    await _run_that_loses_its_last_writes(stage, rows(12), output_dir=None)
    _forget_keys(stage)
    async with stage.run(rows(12)[:3], now=_two_days_later) as run:
        await anext(run)

    assert set(await stage.states(rows(12), now=_two_days_later)) <= {"completed", "unchanged"}
    assert len(stage.sandbox.jobs) == 12


async def test_lost_jobs_that_the_list_did_not_show_yet_are_found_by_the_run_after_the_next(stage: Stage) -> None:
    await _run_that_loses_its_last_writes(stage, rows(2), output_dir=None)
    stage.sandbox.faults = [Fault(LIST, Reply(status=200, body=b'{"data": [], "has_more": false, "next_token": null}'))]
    assert await stage.states(rows(3)[2:], output_dir=None) == {"completed": 1}
    stage.sandbox.faults = []
    _forget_keys(stage)

    assert await stage.states(rows(3), output_dir=None, now=_two_days_later) == {"completed": 2, "unchanged": 1}
    assert len(stage.sandbox.jobs) == 3


async def test_the_last_of_several_lost_attempts_is_adopted(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage:
        journal, before = stage.folder / "run.sqlite", stage.folder / "before.sqlite"
        async with stage.run(rows(1), output_dir=None) as run:
            await until(lambda: stage.sandbox.jobs)
            shutil.copy(journal, before)
            stage.sandbox.fail(stage.sandbox.jobs[0].id, "server overloaded")
            await until(lambda: len(stage.sandbox.jobs) == 2)
            await stage.sandbox.advance(60)
            assert (await anext(run)).state == "completed"
        before.replace(journal)
        _forget_attempts(stage)
        _forget_keys(stage)
        [outcome] = await stage.outcomes(rows(1), now=_two_days_later)

        assert outcome.lipsync is not None
        assert outcome.lipsync.id == stage.sandbox.jobs[1].id
        assert len(stage.sandbox.jobs) == 2


def _forget_attempts(stage: Stage) -> None:
    with stage.database() as database:
        database.execute("UPDATE rows SET state = 'planned', attempt_key = NULL, body = NULL, lipsync_id = NULL")


@contextmanager
def _restored_afterwards(stage: Stage, *, forgets_keys: bool = True) -> Iterator[None]:
    """Go back to the journal of now at the end, without the videos; the server may have forgotten the keys by then."""
    shutil.copy(stage.folder / "run.sqlite", stage.folder / "copy.sqlite")
    yield
    (stage.folder / "copy.sqlite").replace(stage.folder / "run.sqlite")
    if forgets_keys:
        _forget_keys(stage)
    shutil.rmtree(stage.folder / "out")


async def test_after_a_clean_end_the_list_is_not_walked(stage: Stage) -> None:
    await stage.outcomes(rows(2))
    before = stage.asked(LIST)
    await stage.outcomes(rows(4))

    assert stage.asked(LIST) == before + 1  # for the newest job


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_an_older_copy_of_a_journal_that_was_ended_cleanly_pays_for_nothing_again(
    stage: Stage, submit: str
) -> None:
    await stage.outcomes(rows(3))  # the first jobs of the account
    with _restored_afterwards(stage):
        await stage.outcomes(rows(8), submit=submit)
        await stage.heygen.lipsyncs.create(video=url("another-program"), audio=AUDIO)

    assert await stage.states(rows(8), submit=submit, now=_two_days_later) == {"completed": 8}
    assert len(stage.sandbox.jobs) == 8 + 1


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_an_older_copy_with_a_row_in_doubt_pays_for_nothing_again(stage: Stage, submit: str) -> None:
    await _cut_off(stage, rows(40)[39:])
    with _restored_afterwards(stage):
        await stage.outcomes(rows(40), submit=submit)

    assert await stage.states(rows(40), submit=submit, now=_two_days_later) == {"completed": 40}
    assert len(stage.sandbox.jobs) == 40


@pytest.mark.parametrize("forgets_keys", [False, True], ids=["an hour later", "two days later"])
@pytest.mark.parametrize(
    "refusal", [error(404, "asset_not_found", route=CREATE), error(400, "download_failed")], ids=repr
)
async def test_an_older_copy_with_a_create_that_was_refused_since_finds_the_job_of_a_later_attempt(
    stage: Stage, refusal: Fault, forgets_keys: bool
) -> None:
    given = rows(1, audio=SAMPLE_AUDIO)
    await _cut_off(stage, given, after=False)
    with _restored_afterwards(stage, forgets_keys=forgets_keys):
        stage.sandbox.faults = [evolve(refusal, route=CREATE, times=1)]
        await stage.outcomes(given)
        await stage.outcomes(given, retry_failed=True)
        [job] = stage.sandbox.jobs

    now = _two_days_later if forgets_keys else time.time
    [outcome] = await stage.outcomes(given, now=now)
    assert outcome.state == "completed"
    assert outcome.lipsync.id == job.id
    assert len(stage.sandbox.jobs) == 1


async def test_the_repeat_of_a_create_does_not_hide_an_older_copy(stage: Stage) -> None:
    await _cut_off(stage, rows(1), after=False)
    with _restored_afterwards(stage, forgets_keys=False):
        await stage.outcomes(rows(4)[1:], submit="batch")

    # The repeat creates the newest job of the account, which the journal then knows.
    assert await stage.states(rows(3), max_in_flight=1) == {"completed": 3}
    assert len(stage.sandbox.jobs) == 4


def _signed(number: int) -> list[DubRow]:
    return rows(2, audio=f"https://b.s3.amazonaws.com/a.mp3?X-Amz-Signature={number}&X-Amz-Date={number}")


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("journal", ["run.sqlite", "another.sqlite"])
async def test_links_that_are_signed_again_are_sent_under_the_same_key_in_one_session(
    stage: Stage, submit: str, journal: str
) -> None:
    await _lose_the_answers(stage, _signed(1), submit)
    stage.sandbox.faults = []

    assert await stage.states(_signed(2), submit=submit, journal=stage.folder / journal) == {"completed": 2}
    assert len(stage.sandbox.jobs) == 2


async def test_an_older_copy_is_recognised_even_if_the_list_was_refused_before_its_first_create(stage: Stage) -> None:
    stage.sandbox.faults = [error(403, "forbidden", route=LIST, times=1)]
    await stage.outcomes(rows(1))
    with _restored_afterwards(stage):
        await stage.outcomes(rows(3))

    assert await stage.states(rows(3), now=_two_days_later) == {"completed": 3}
    assert len(stage.sandbox.jobs) == 3


async def test_a_lost_job_with_a_callback_id_of_the_users_is_in_doubt(stage: Stage) -> None:
    given = rows(1, callback_id="mine")
    await _run_that_loses_its_last_writes(stage, given, output_dir=None)
    _forget_keys(stage)
    for _ in range(2):
        [outcome] = await stage.outcomes(given, now=_two_days_later)
        assert isinstance(outcome.error, InDoubt)
        assert outcome.error.candidates == (stage.sandbox.jobs[0].id,)

    assert len(stage.sandbox.jobs) == 1


async def test_a_list_that_cannot_be_read_stops_creates_once_the_keys_may_be_forgotten(stage: Stage) -> None:
    await _run_that_loses_its_last_writes(stage, rows(2), output_dir=None)
    stage.sandbox.faults = [error(403, "forbidden", route=LIST)]

    assert await stage.states(rows(2), now=_two_days_later) == {"failed": 2}
    assert len(stage.sandbox.jobs) == 2
    assert await stage.states(rows(2)) == {"completed": 2}  # within a day the keys are enough
    assert len(stage.sandbox.jobs) == 2


def _page_instead_of_the_list(status: int) -> Fault:
    return Fault(LIST, Reply(status=status, body=b"<html>no</html>", content_type="text/html"), times=1)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_page_of_a_gateway_instead_of_the_list_leads_to_no_second_batch(stage: Stage, status: int) -> None:
    await _run_that_loses_its_last_writes(stage, rows(4), submit="batch", output_dir=None)
    stage.sandbox.faults = [_page_instead_of_the_list(status)]

    first = await stage.states(rows(3), submit="batch")  # other rows than before would be a batch with another key
    assert first["failed"] == 1
    assert await stage.states(rows(3), submit="batch") == {"completed": 1, "unchanged": 2}
    assert len(stage.sandbox.jobs) == 4


@pytest.mark.parametrize("status", [403, 404])
async def test_a_page_of_a_gateway_instead_of_the_list_hides_no_older_copy(stage: Stage, status: int) -> None:
    await stage.outcomes(rows(1))
    with _restored_afterwards(stage):
        await stage.outcomes(rows(4))
    stage.sandbox.faults = [_page_instead_of_the_list(status)]

    assert (await stage.states(rows(4), now=_two_days_later))["failed"] == 1
    assert len(stage.sandbox.jobs) == 4


_CUT_LIST = Reply(status=200, body=b'{"data": [], "has_more": true, "next_token": null}')


async def test_a_list_that_says_there_is_more_and_gives_no_cursor_was_not_read_to_its_end(stage: Stage) -> None:
    await _run_that_loses_its_last_writes(stage, rows(2), output_dir=None)
    _forget_keys(stage)
    stage.sandbox.faults = [Fault(LIST, _CUT_LIST, times=1)]

    assert await stage.states(rows(2), now=_two_days_later) == {"completed": 2}
    assert len(stage.sandbox.jobs) == 2


async def test_a_damaged_journal_is_refused_with_advice(stage: Stage) -> None:
    await stage.outcomes(rows(30), output_dir=None)
    journal = stage.folder / "run.sqlite"
    with stage.database() as database:
        database.execute("INSERT INTO facts VALUES ('open', '1.0')")
    content = bytearray(journal.read_bytes())
    content[4096 * 2 : 4096 * 3] = bytes(4096)
    journal.write_bytes(content)

    with pytest.raises(JournalError, match=r"is damaged.*move it away and run again"):
        await stage.outcomes(rows(30), output_dir=None)


@pytest.mark.parametrize("missing", ["all but a byte", "all but 99 bytes", "all pages but one", "a page", "a byte"])
async def test_a_journal_that_was_cut_off_is_refused_with_advice(stage: Stage, missing: str) -> None:
    await stage.outcomes(rows(30), output_dir=None)
    journal = stage.folder / "run.sqlite"
    size = journal.stat().st_size
    kept = {
        "all but a byte": 1,
        "all but 99 bytes": 99,
        "all pages but one": 4096,
        "a page": size - 4096,
        "a byte": size - 1,
    }[missing]
    os.truncate(journal, kept)

    with pytest.raises(JournalError, match=r"is damaged.*move it away and run again"):
        await stage.outcomes(rows(30), output_dir=None, now=_two_days_later)
    assert len(stage.sandbox.jobs) == 30
    assert journal.stat().st_size == kept


async def test_the_main_file_is_complete_while_the_run_goes_on(stage: Stage) -> None:
    async with stage.run(rows(3), output_dir=None) as run:
        async for _ in run:
            pass
        shutil.copy(stage.folder / "run.sqlite", stage.folder / "copy.sqlite")
        assert not (stage.folder / "run.sqlite-wal").exists()
    with stage.database("copy.sqlite") as database:
        assert [state for (state,) in database.execute("SELECT state FROM rows")] == ["done"] * 3


async def test_a_404_that_is_not_the_apis_does_not_show_that_a_job_is_gone(stage: Stage) -> None:
    given = rows(1, callback_id="mine")
    await _run_that_loses_its_last_writes(stage, given, output_dir=None)
    _forget_keys(stage)
    stage.sandbox.faults = [Fault(GET, Reply(status=404, body=b"<html>404</html>", content_type="text/html"))]

    [outcome] = await stage.outcomes(given, now=_two_days_later)
    assert isinstance(outcome.error, NotFound)
    assert len(stage.sandbox.jobs) == 1


# Clocks


@pytest.mark.parametrize("created_at", [0, 4e9, None], ids=["zero", "far ahead", "missing"])
async def test_no_time_in_the_list_ends_a_search_early(stage: Stage, created_at: float | None) -> None:
    await _cut_off(stage, rows(1))
    await stage.heygen.lipsyncs.create(video=url("newer"), audio=AUDIO)
    _forget_keys(stage)
    stage.sandbox.faults = [Fault(LIST, Alter({"created_at": created_at}, replace_only=True))]

    assert await stage.states(rows(1), now=_two_days_later) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 2


@pytest.mark.parametrize("offset", [3 * DAY, -3 * DAY], ids=["ahead", "behind"])
async def test_a_clock_that_was_wrong_when_a_row_was_sent_costs_no_second_job(stage: Stage, offset: float) -> None:
    await _cut_off(stage, rows(1), now=lambda: time.time() + offset)
    _forget_keys(stage)

    assert await stage.states(rows(1), now=lambda: time.time() + DAY + 60) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 1


async def test_a_row_that_was_in_doubt_stays_so_when_a_clock_says_that_its_key_is_young(stage: Stage) -> None:
    given = rows(1, callback_id="mine")
    await _cut_off(stage, given, now=lambda: time.time() + 3 * DAY)
    _forget_keys(stage)
    for later in (DAY, 3 * DAY + 3600):
        [outcome] = await stage.outcomes(given, now=lambda later=later: time.time() + later)
        assert isinstance(outcome.error, InDoubt)

    assert len(stage.sandbox.jobs) == 1


async def test_a_batch_is_not_sent_again_without_the_rows_that_have_left_it(stage: Stage) -> None:
    given = [*rows(3), *[evolve(row, key="doubtful", callback_id="mine", video=url(4)) for row in rows(1)]]
    stage.sandbox.faults = [reset(BATCH)]
    async with stage.run(given, submit="batch", now=lambda: time.time() + 3 * DAY):
        await until(lambda: stage.asked(BATCH))
    stage.sandbox.faults = []
    await stage.heygen.lipsyncs.create(video=url("foreign"), audio=AUDIO, callback_id="mine")
    assert await stage.states(given, submit="batch") == {"failed": 4}  # the clock is right again
    assert len(stage.sandbox.jobs) == 1

    for submit, state in (("batch", "completed"), ("each", "unchanged")):
        later = lambda: time.time() + 3 * DAY + 3600  # noqa: E731
        assert await stage.states(given, submit=submit, now=later) == {state: 3, "failed": 1}
    assert len(stage.sandbox.jobs) == 3 + 1


LIST_THAT_LAGS = Fault(LIST, Reply(status=200, body=b'{"data": [], "has_more": false, "next_token": null}'))


@pytest.mark.parametrize(("submit", "count"), [("each", 3), ("batch", 4)])
async def test_a_clock_that_was_set_back_does_not_make_a_list_that_lags_a_proof(
    stage: Stage, submit: str, count: int
) -> None:
    stage.sandbox.faults = [reset(BATCH, after=True)]
    async with stage.run(rows(3), submit="batch", output_dir=None, now=lambda: time.time() + 120.0):
        await until(lambda: len(stage.sandbox.jobs) == 3)
    stage.sandbox.faults = [LIST_THAT_LAGS]

    assert await stage.states(rows(count), submit=submit, output_dir=None) == {"completed": count}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, count + 1)}


async def test_a_young_batch_that_a_refused_row_has_left_is_not_sent_in_another_one_while_the_list_lags(
    stage: Stage,
) -> None:
    bad = DubRow("https://sandbox.invalid/bad.mp4?refuse=download_failed", AUDIO, key="bad")
    given = [bad, *rows(3)]
    stage.sandbox.faults = [reset(BATCH, after=True)]
    async with stage.run(given, submit="batch", output_dir=None):
        await until(lambda: len(stage.sandbox.jobs) == 3)
    with stage.database() as database:  # the process died while the answer was saved, after the first row
        [batch_id] = {job.batch_id for job in stage.sandbox.jobs}
        database.execute("UPDATE rows SET state = 'submitted', batch_id = ? WHERE key = 'bad'", [batch_id])
    stage.sandbox.faults = [LIST_THAT_LAGS]

    assert await stage.states([bad], submit="batch", output_dir=None) == {"failed": 1}
    assert await stage.states(given, submit="batch", output_dir=None) == {"failed": 4}
    stage.sandbox.faults = []
    assert await stage.states(given, submit="batch", output_dir=None) == {"completed": 3, "failed": 1}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 4)}


async def test_a_batch_that_is_too_old_only_by_a_wrong_clock_is_sent_again_as_it_was(stage: Stage) -> None:
    stage.sandbox.faults = [reset(BATCH)]
    async with stage.run(rows(3), submit="batch"):
        await until(lambda: stage.asked(BATCH))
    stage.sandbox.faults = []
    lists = stage.asked(LIST)

    def corrected_by_the_list() -> float:
        return time.time() + (2 * DAY if stage.asked(LIST) == lists else 0.0)

    assert await stage.states(rows(3), submit="each", now=corrected_by_the_list) == {"completed": 3}
    assert stage.asked(CREATE) == 0
    assert len(stage.sandbox.jobs) == 3


async def _cut_off(stage: Stage, given: list[DubRow], *, after: bool = True, **options: object) -> None:
    """Run until a create has arrived, and break off without its answer."""
    arrived = len(stage.keys_sent())
    stage.sandbox.faults = [reset(CREATE, after=after)]
    async with stage.run(given, **options):
        await until(lambda: len(stage.keys_sent()) > arrived)
        await asyncio.sleep(0.02)
    stage.sandbox.faults = []
    assert _states(stage) == {given[0].key: "submitting"}


def _states(stage: Stage) -> dict[str, str]:
    with stage.database() as database:
        return dict(database.execute("SELECT key, state FROM rows"))


# Answers that settle nothing


@pytest.mark.parametrize(
    "answer",
    [
        missing(CREATE),
        error(404, "not_found", route=CREATE),
        error(402, "insufficient_credit", route=CREATE),
        error(403, "forbidden", route=CREATE),
        error(429, "rate_limit_exceeded", route=CREATE, times=1),
        html(CREATE, times=4),
    ],
    ids=["404 of a route", "404", "402", "403", "429", "HTML"],
)
async def test_only_an_answer_under_the_key_settles_a_row_in_doubt(stage: Stage, answer: Fault) -> None:
    await _cut_off(stage, rows(1))
    stage.sandbox.faults = [answer]
    async with stage.run(rows(1), output_dir=None) as run:
        try:
            async for _ in run:
                pass
        except HeyGenError as error:
            assert isinstance(error, InsufficientCredit)
    assert _states(stage)["row-1"] in {"submitting", "done"}
    stage.sandbox.faults = []
    _forget_keys(stage)

    assert set(await stage.states(rows(1), now=_two_days_later)) <= {"completed", "unchanged"}
    assert len(stage.sandbox.jobs) == 1


# The account


async def test_a_journal_of_another_account_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.outcomes(rows(1))
        with stage.database() as database:
            database.execute("UPDATE facts SET value = 'somebody-else' WHERE name = 'account'")
        with pytest.raises(JournalError, match="belongs to the account somebody-else"):
            await stage.outcomes(rows(2))

        assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize(
    "fault", [server_error(ME, times=4), reset(ME, times=4), html(ME, times=4)], ids=["5xx", "no answer", "a page"]
)
async def test_a_journal_of_another_account_is_refused_though_the_account_could_not_be_read_at_first(
    stage: Stage, fault: Fault
) -> None:
    await _run_on_another_account(stage)
    stage.sandbox.faults = [fault]  # as often as the session asks
    with pytest.raises(JournalError, match="belongs to the account somebody-else"):
        await stage.outcomes(rows(2))

    assert len(stage.sandbox.jobs) == 1


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_an_answer_of_a_gateway_is_no_word_on_the_account(stage: Stage, status: int) -> None:
    await _run_on_another_account(stage)
    stage.sandbox.faults = [Fault(ME, Reply(status=status, body=b"<html>blocked</html>", content_type="text/html"))]
    with pytest.raises(HeyGenError):
        await stage.outcomes(rows(2))

    assert len(stage.sandbox.jobs) == 1


async def _run_on_another_account(stage: Stage) -> None:
    """Leave a journal with one row, of an account that is not the key's."""
    await stage.outcomes(rows(1))
    with stage.database() as database:
        database.execute("UPDATE facts SET value = 'somebody-else' WHERE name = 'account'")


@pytest.mark.parametrize(
    "refusal",
    [error(403, "forbidden", route=ME), missing(ME), *[Fault(ME, Reply(status=one)) for one in (404, 405, 501)]],
)
async def test_a_key_that_may_not_read_the_account_may_dub(stage: Stage, refusal: Fault) -> None:
    stage.sandbox.faults = [refusal]
    async with stage.run(rows(2)) as run:
        assert [outcome.state async for outcome in run] == ["completed"] * 2
        snapshot = run.snapshot()

    assert (snapshot.balance_before, snapshot.balance_after) == (None, None)


# Journals of version 0.1

_OLD_SCHEMA = """
PRAGMA application_id = 0x48474A31;
PRAGMA user_version = 1;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (key, inputs, number, place, target, state, attempt, body, callback_id, video_asset, audio_asset,
    asked_at, batch, item, batch_id, lipsync_id, earlier, is_writing, is_final, error, estimate, upload_seconds,
    submit_seconds, wait_seconds, download_seconds, run INTEGER NOT NULL, PRIMARY KEY (key));
CREATE INDEX rows_by_number ON rows (run, number);
CREATE INDEX rows_by_job ON rows (lipsync_id) WHERE lipsync_id IS NOT NULL;
CREATE TABLE claims (claim TEXT PRIMARY KEY, key TEXT NOT NULL, place TEXT NOT NULL, run INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE assets (digest TEXT PRIMARY KEY, asset_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL, seconds REAL) WITHOUT ROWID;
"""


def _old_journal(stage: Stage, *values: dict[str, object]) -> None:
    """Write a journal as version 0.1 leaves it after a clean end: its header says that it uses a write-ahead log."""
    database = sqlite3.connect(stage.folder / "run.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(_OLD_SCHEMA)
    database.execute("INSERT INTO facts VALUES ('origin', ?), ('runs', '1')", (stage.sandbox.url,))
    for row in values:
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        database.execute(f"INSERT INTO rows ({names}) VALUES ({marks})", tuple(row.values()))
    database.close()


def _old_row(stage: Stage, row: DubRow, **changes: object) -> dict[str, object]:
    return {
        "key": row.key,
        "inputs": inputs_digest(row, {}),
        "number": 1,
        "place": "row 1",
        "target": str(stage.folder / "out" / f"{row.key}.mp4"),
        "state": "planned",
        "attempt": 1,
        "earlier": "[]",
        "is_writing": 0,
        "is_final": 0,
        "estimate": 0.0,
        "run": 1,
        **changes,
    }


async def test_a_finished_row_of_an_old_journal_stays_finished(stage: Stage) -> None:
    [row] = rows(1)
    job = await stage.heygen.lipsyncs.create(video=url(1), audio=AUDIO, callback_id="row-1", idempotency_key="row-1")
    _old_journal(stage, _old_row(stage, row, state="done", is_writing=1, body="b", lipsync_id=job.id))
    (stage.folder / "out").mkdir()
    (stage.folder / "out" / "row-1.mp4").write_bytes(b"video")

    assert await stage.states([row]) == {"unchanged": 1}
    assert len(stage.sandbox.jobs) == 1


async def test_a_row_in_doubt_of_an_old_journal_is_repeated_under_the_key_that_it_was_sent_under(stage: Stage) -> None:
    [row] = rows(1)
    await stage.heygen.lipsyncs.create(video=url(1), audio=AUDIO, callback_id="row-1", idempotency_key="row-1")
    old = _old_row(stage, row, state="submitting", body="b", callback_id="row-1", asked_at=time.time())
    _old_journal(stage, old)

    assert await stage.states([row]) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 1
    assert stage.attempt_keys() == ["row-1", "row-1"]


async def test_a_batch_in_flight_of_an_old_journal_is_repeated_under_its_key(stage: Stage) -> None:
    given = rows(2)
    covered = orjson.dumps([(row.key, "b") for row in given])
    key = f"batch-{hashlib.sha256(covered).hexdigest()[:40]}"
    requests = [LipsyncRequest(video=str(row.video), audio=AUDIO, callback_id=row.key) for row in given]
    await stage.heygen.lipsyncs.create_batch(requests, idempotency_key=key)
    sent = {"state": "submitting", "body": "b", "batch": key, "asked_at": time.time()}
    _old_journal(
        stage,
        *(
            _old_row(stage, row, number=item + 1, place=f"row {item + 1}", item=item, callback_id=row.key, **sent)
            for item, row in enumerate(given)
        ),
    )

    assert await stage.states(given, submit="batch") == {"completed": 2}
    assert len(stage.sandbox.jobs) == 2
    sent_under = [one.headers["Idempotency-Key"] for one in stage.sandbox.requests if one.route == BATCH]
    assert sent_under == [key, key]


async def test_an_old_journal_that_lost_rows_with_its_log_pays_for_none_of_them_again(stage: Stage) -> None:
    for row in rows(2):
        await stage.heygen.lipsyncs.create(
            video=str(row.video), audio=AUDIO, callback_id=row.key, idempotency_key=row.key
        )
    _old_journal(stage)
    outcomes = await stage.outcomes(rows(3), now=_two_days_later)

    assert {outcome.key: outcome.state for outcome in outcomes} == {
        "row-1": "failed",
        "row-2": "failed",
        "row-3": "completed",
    }
    assert {type(outcome.error) for outcome in outcomes if outcome.error} == {InDoubt}
    assert len(stage.sandbox.jobs) == 3


async def test_an_old_journal_without_its_log_is_refused_if_nothing_else_is_left(stage: Stage) -> None:
    journal = stage.folder / "run.sqlite"
    database = sqlite3.connect(journal, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.executescript(_OLD_SCHEMA)
    content = journal.read_bytes()
    database.close()
    journal.write_bytes(content)
    assert len(content) == 4096

    with pytest.raises(JournalError, match=r"run\.sqlite-wal is missing: put that back"):
        await stage.outcomes(rows(1))
    assert stage.sandbox.jobs == []


@pytest.mark.parametrize("main", ["missing", "of another version"])
async def test_a_log_without_its_journal_is_not_ignored(stage: Stage, main: str) -> None:
    if main != "missing":
        await stage.outcomes(rows(1))
    (stage.folder / "run.sqlite-wal").write_bytes(b"frames")
    jobs = len(stage.sandbox.jobs)

    with pytest.raises(JournalError, match="put that file back"):
        await stage.outcomes(rows(2))
    assert len(stage.sandbox.jobs) == jobs
    assert (stage.folder / "run.sqlite-wal").read_bytes() == b"frames"


# Failed rows


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_retry_failed_gives_final_failures_another_attempt(stage: Stage, submit: str) -> None:
    bad = DubRow(url("bad", "fail=No+face"), AUDIO, key="bad")
    given = [bad, *rows(1)]
    assert await stage.states(given, submit=submit) == {"failed": 1, "completed": 1}
    assert await stage.states(given, submit=submit) == {"failed": 1, "unchanged": 1}
    assert stage.jobs_by_key()["bad"] == 1

    outcomes = {outcome.key: outcome for outcome in await stage.outcomes(given, retry_failed=True, submit=submit)}
    assert (outcomes["bad"].state, outcomes["bad"].attempts) == ("failed", 2)
    assert outcomes["row-1"].state == "unchanged"
    assert stage.jobs_by_key()["bad"] == 2
    assert len(set(stage.jobs_by_attempt())) == 3


async def test_a_failed_row_with_a_new_source_is_tried_again_under_its_key(stage: Stage) -> None:
    await stage.outcomes([DubRow(url("bad", "fail=No+face"), AUDIO, key="k")])

    assert await stage.states([DubRow(url("good"), AUDIO, key="k")]) == {"completed": 1}
    assert stage.jobs_by_key() == {"k": 2}


async def test_a_refused_create_is_retried_under_another_key_if_the_caller_asks(stage: Stage) -> None:
    stage.sandbox.faults = [error(400, "download_failed", route=CREATE, times=1)]
    await stage.outcomes(rows(1))

    assert await stage.states(rows(1), retry_failed=True) == {"completed": 1}
    assert [row_key(key) for key in stage.attempt_keys()] == ["row-1", "row-1"]
    assert len(set(stage.attempt_keys())) == 2


@pytest.mark.parametrize("is_hidden", [False, True], ids=["listed", "not listed yet"])
async def test_a_create_that_got_a_429_is_not_retried_under_another_key_in_an_older_copy(
    stage: Stage, is_hidden: bool
) -> None:
    stage.sandbox.faults = [rate_limited(CREATE, retry_after=0)]
    async with stage.run(rows(1)):
        await until(lambda: stage.asked(CREATE))
    assert _states(stage) == {"row-1": "planned"}
    stage.sandbox.faults = []
    with _restored_afterwards(stage, forgets_keys=False):
        await stage.outcomes(rows(1))

    empty = Reply(status=200, body=b'{"data": [], "has_more": false, "next_token": null}')
    stage.sandbox.faults = [Fault(LIST, empty)] if is_hidden else []
    assert await stage.states(rows(1), retry_failed=True) == {"completed": 1}
    assert len(stage.sandbox.jobs) == 1


async def test_a_refused_create_is_sent_under_another_key_once_its_link_was_signed_again(stage: Stage) -> None:
    stage.sandbox.faults = [error(400, "download_failed", route=CREATE, times=4)]
    for number, state in [(77001, "failed"), (77001, "failed"), (77002, "completed")]:
        assert await stage.states(_signed(number)) == {state: 2}
    first, again, signed_again = (set(stage.attempt_keys()[at : at + 2]) for at in (0, 2, 4))

    assert first == again
    assert not first & signed_again
    assert b"77001" not in (stage.folder / "run.sqlite").read_bytes()


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_a_finished_row_whose_job_is_gone_is_never_paid_again_by_a_retry(stage: Stage, submit: str) -> None:
    assert await stage.states(rows(1), submit=submit) == {"completed": 1}
    await stage.heygen.lipsyncs.delete(stage.sandbox.jobs[0].id)
    (stage.folder / "out" / "row-1.mp4").unlink()  # moved to an archive

    for _ in range(3):  # each night
        assert await stage.states(rows(1), submit=submit, retry_failed=True) == {"failed": 1}
    assert len(stage.sandbox.jobs) == 1


UPLOAD = "POST /v3/assets"


def _rows_with_one_file(stage: Stage) -> list[DubRow]:
    file = stage.folder / "new.mp3"
    file.write_bytes(SAMPLE_AUDIO.read_bytes())
    return rows(3, audio=file)


def _assets(stage: Stage, number: int) -> set[object]:
    """Return the uploads in the last *number* jobs."""
    return {job.body["audio"]["asset_id"] for job in stage.sandbox.jobs[-number:]}


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_retry_failed_uploads_the_files_of_failed_jobs_again_each_once(tmp_path: Path, submit: str) -> None:
    async with staged(tmp_path, manual=True) as stage:
        given = _rows_with_one_file(stage)
        for count in (3, 6):
            async with stage.run(given, submit=submit, retry_failed=count > 3) as run:
                await until(lambda count=count: len(stage.sandbox.jobs) == count)
                for job in stage.sandbox.jobs[-3:]:
                    stage.sandbox.fail(job.id, "The audio could not be downloaded")
                assert [outcome.state async for outcome in run] == ["failed"] * 3

        assert stage.asked(UPLOAD) == 2
        assert len(_assets(stage, 3)) == 1
        assert len(_assets(stage, 6)) == 2


@pytest.mark.parametrize("is_same_session", [False, True])
async def test_retry_failed_uploads_the_files_of_refused_creates_again(tmp_path: Path, is_same_session: bool) -> None:
    async with staged(tmp_path) as stage:
        given = _rows_with_one_file(stage)
        refusal = error(400, "invalid_parameter", "audio: this asset has expired", route=CREATE)
        stage.sandbox.faults = [refusal]
        assert await stage.states(given) == {"failed": 3}
        stage.sandbox.faults = []
        if is_same_session:
            assert await stage.states(given, retry_failed=True) == {"completed": 3}
        else:
            async with HeyGenSession(stage.sandbox.api_key, base_url=stage.sandbox.url) as heygen:
                assert await evolve(stage, heygen=heygen).states(given, retry_failed=True) == {"completed": 3}

        assert stage.asked(UPLOAD) == 2


async def test_retry_failed_uploads_nothing_again_after_the_credit_was_gone(stage: Stage) -> None:
    given = _rows_with_one_file(stage)
    stage.sandbox.faults = [error(402, "insufficient_credit", route=CREATE)]
    with pytest.raises(InsufficientCredit):
        await stage.states(given)
    stage.sandbox.faults = []

    assert await stage.states(given, retry_failed=True) == {"completed": 3}
    assert stage.asked(UPLOAD) == 1


# Without credit


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_without_credit_nothing_more_is_created_and_running_jobs_are_finished(
    tmp_path: Path, submit: str
) -> None:
    given = [DubRow(url(number, "duration=10"), AUDIO, key=f"k{number}") for number in range(150)]
    outcomes: list[DubOutcome] = []
    refusal = error(402, "insufficient_credit", route=BATCH, probability=1.0)
    async with staged(tmp_path, balance=10.0 if submit == "each" else 1000.0) as stage:
        async with stage.run(given, submit=submit) as run:
            if submit == "batch":
                await until(lambda: stage.asked(BATCH))
                stage.sandbox.faults = [refusal]
            with pytest.raises(InsufficientCredit):
                await _collect(run, outcomes)
            snapshot = run.snapshot()
        jobs = len(stage.sandbox.jobs)
        files = stage.files()

    assert 0 < jobs < 150
    assert len(outcomes) == 150
    states = [outcome.state for outcome in outcomes]
    assert states.count("completed") == jobs == len(files)
    assert states.count("skipped") == 150 - jobs
    assert all(isinstance(outcome.error, InsufficientCredit) for outcome in outcomes if outcome.state == "skipped")
    assert snapshot.halted is not None
    assert snapshot.balance_after is not None
    assert (snapshot.spent, snapshot.reserved) == (pytest.approx(snapshot.estimate), 0.0)


async def _collect(run: DubRun, outcomes: list[DubOutcome]) -> None:
    async for outcome in run:
        outcomes.append(outcome)  # noqa: PERF401 what came before an error counts


# Money that is spent, and money that is reserved


async def test_running_jobs_are_reserved_and_ended_ones_are_spent(tmp_path: Path) -> None:
    given = [evolve(row, video=f"{row.video}?duration=10", end_time=20.0) for row in rows(3)]
    async with staged(tmp_path, manual=True) as stage, stage.run(given, rates={"speed": 0.1}, max_in_flight=2) as run:
        await until(lambda: run.snapshot().stages.get("running") == 2)
        during = run.snapshot()
        await stage.sandbox.advance(60)
        await until(lambda: run.snapshot().ended == 2)
        await stage.sandbox.advance(60)
        assert [outcome.state async for outcome in run] == ["completed"] * 3
        after = run.snapshot()

    assert (during.spent, during.not_started) == (0.0, 0)
    assert during.reserved >= 4.0
    assert (after.spent, after.reserved, after.estimate) == (pytest.approx(3.0), 0.0, pytest.approx(3.0))


async def test_rows_that_have_not_started_are_counted(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage, stage.run(rows(60), max_in_flight=1) as run:
        await until(lambda: run.snapshot().stages.get("running"))
        snapshot = run.snapshot()

    assert snapshot.not_started is not None
    assert snapshot.not_started + sum(snapshot.stages.values()) == snapshot.total == 60
    assert snapshot.not_started > 0


# Sources that are gone


async def test_a_finished_row_does_not_need_its_source_any_more(stage: Stage) -> None:
    audio = stage.folder / "a.mp3"
    shutil.copy(SAMPLE_AUDIO, audio)
    given = [DubRow(url(1), audio, key="with-key")]
    await stage.outcomes(given)
    audio.unlink()

    assert await stage.states(given) == {"unchanged": 1}
