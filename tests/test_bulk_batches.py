"""Bulk runs in batches: up to a hundred rows a request, each with an end of its own."""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from attrs import evolve
from bulk_stage import AUDIO, CREATE, HASTY, Stage, row_key, rows, staged, url
from memory_store import MemoryStore
from until import until

from benchmarks.virtual_heygen import FakeHeyGen, Server
from heygen_async import (
    APIError,
    AssetId,
    AuthenticationError,
    ErrorDetail,
    InsufficientCredit,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
    PermissionDenied,
    PollPolicy,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async._bulk_calls import BulkCalls
from heygen_async.bulk import batches as batches_module
from heygen_async.bulk import run as run_module
from heygen_async.bulk.batches import BatchCollector
from heygen_async.bulk.budget import RATES
from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.effects import Tools
from heygen_async.bulk.limits import CircuitBreaker, Limiter
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import intent
from heygen_async.bulk.record import Record
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import Entry, UnixClock
from heygen_async.bulk.window import Window
from heygen_async.jobs import LipsyncBatch
from heygen_async.models import BatchItem, DubOutcome, DubRow, Lipsync, LipsyncRequest, LipsyncStatus
from heygen_async.pagination import Page
from heygen_async.resources.lipsyncs import Lipsyncs
from heygen_async.sandbox import SAMPLE_AUDIO, Fault
from heygen_async.sandbox.faults import Alter, Reply, error, html, reset, server_error

BATCH = "POST /v3/lipsyncs/batches"
LOOK = "GET /v3/lipsyncs/batches/{batch_id}"
GET = "GET /v3/lipsyncs/{lipsync_id}"
LIST = "GET /v3/lipsyncs"
DAY = 24 * 3600.0


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


async def _outcomes(stage: Stage, given: list[DubRow], **options: object) -> dict[str, DubOutcome]:
    return {outcome.key: outcome for outcome in await stage.outcomes(given, submit="batch", **options)}


async def _states(stage: Stage, given: list[DubRow], **options: object) -> Counter[str]:
    return await stage.states(given, submit="batch", **options)


def _batch_keys(stage: Stage) -> list[str]:
    return [request.headers["Idempotency-Key"] for request in stage.sandbox.requests if request.route == BATCH]


async def test_a_hundred_rows_go_in_one_request(stage: Stage) -> None:
    states = await _states(stage, rows(230))

    assert states == {"completed": 230}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 231)}
    assert len(stage.files()) == 230
    assert stage.asked(BATCH) == 3
    assert stage.asked(CREATE) == 0
    assert Counter(job.batch_id for job in stage.sandbox.jobs).most_common()[0][1] == 100
    assert await _states(stage, rows(230)) == {"unchanged": 230}


async def test_files_are_uploaded_before_their_batch_leaves(stage: Stage) -> None:
    given = [*rows(3), *rows(6, audio=SAMPLE_AUDIO)[3:]]

    assert await _states(stage, given) == {"completed": 6}
    assert stage.asked("POST /v3/assets") == 1
    assert stage.asked(BATCH) == 1


async def test_a_batch_does_not_wait_for_a_slow_stream(stage: Stage) -> None:
    async def trickle() -> AsyncIterator[DubRow]:
        first, second = rows(2)
        yield first
        await until(lambda: stage.asked(BATCH) == 1)
        yield second

    assert await stage.states(trickle(), submit="batch") == {"completed": 2}
    assert stage.asked(BATCH) == 2


async def test_an_item_fails_alone(stage: Stage) -> None:
    bad = [
        DubRow(url("a", "refuse=download_failed"), AUDIO, key="refused"),
        DubRow(url("b", "fail=No+face+was+found"), AUDIO, key="final"),
        DubRow(url("c", "fail=Internal+error"), AUDIO, key="server"),
    ]
    outcomes = await _outcomes(stage, [*bad, *rows(5)])

    assert Counter(outcome.state for outcome in outcomes.values()) == {"failed": 3, "completed": 5}
    assert isinstance(outcomes["final"].error, LipsyncFailed)
    assert "could not be downloaded" in str(outcomes["refused"].error)
    assert outcomes["server"].attempts == 3
    assert stage.jobs_by_key()["server"] == 3


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidRequest("one item is wrong", status=400, code="invalid_parameter", outcome="rejected"),
        InvalidRequest("too large", status=413, code="payload_too_large", outcome="rejected"),
        NotFound("no folder", status=404, code="not_found", param="lipsyncs[2].folder_id", outcome="rejected"),
        PermissionDenied(
            "no access",
            status=403,
            code="resource_access_denied",
            errors=[ErrorDetail(message="no access", path="lipsyncs.2.video")],
            outcome="rejected",
        ),
    ],
    ids=lambda refusal: str(refusal.status),
)
async def test_a_batch_that_is_refused_as_a_whole_is_split_until_only_the_invalid_item_is_refused(
    stage: Stage, refusal: APIError
) -> None:
    bad = DubRow(url("x"), AUDIO, key="bad", callback_url="https://example.com/hook")
    calls = stage.heygen._bulk_calls()
    wholesale = evolve(calls, batches=lambda age: _WholesaleLipsyncs(calls.batches(age), refusal))
    plan = Plan(journal=stage.folder / "run.sqlite", submit="batch", delays=HASTY)
    async with DubRun(wholesale, [*rows(6), bad], plan, origin=stage.sandbox.url) as run:
        outcomes = {outcome.key: outcome async for outcome in run}

    assert {key for key, outcome in outcomes.items() if outcome.state == "failed"} == {"bad"}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 7)}


class _WholesaleLipsyncs:
    """The calls under `/v3/lipsyncs` of a server that refuses a whole batch for one item that it does not like."""

    def __init__(self, lipsyncs: Lipsyncs, refusal: APIError) -> None:
        self._lipsyncs = lipsyncs
        self._refusal = refusal

    async def create_batch(self, requests: Sequence[LipsyncRequest], **options: object) -> LipsyncBatch:
        if any(request.callback_url for request in requests):
            raise self._refusal.fresh()
        return await self._lipsyncs.create_batch(requests, **options)

    def __getattr__(self, name: str) -> object:
        return getattr(self._lipsyncs, name)


async def test_an_account_without_batches_gets_an_error_that_names_submit_each(tmp_path: Path) -> None:
    async with staged(tmp_path, batches_available=False) as stage:
        with pytest.raises(NotFound, match="submit='each'"):
            await _outcomes(stage, rows(3))

        assert await stage.states(rows(3)) == {"completed": 3}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(402, "insufficient_credit", InsufficientCredit), (401, "unauthorized", AuthenticationError)],
)
async def test_an_error_that_concerns_all_rows_ends_the_run(
    stage: Stage, status: int, code: str, kind: type[Exception]
) -> None:
    stage.sandbox.faults = [error(status, code, route=BATCH, times=1)]
    with pytest.raises(kind):
        await _outcomes(stage, rows(3))

    assert await _states(stage, rows(3)) == {"completed": 3}


async def test_a_budget_bounds_a_batch_too(stage: Stage) -> None:
    given = [evolve(row, video=f"{row.video}?duration=10", end_time=10.0) for row in rows(6)]
    states = await _states(stage, given, budget=1.0, rates={"speed": 0.03})

    assert states == {"completed": 3, "skipped": 3}
    assert len(stage.sandbox.jobs) == 3


@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_a_batch_whose_answer_is_lost_is_created_once(stage: Stage, after: bool) -> None:
    stage.sandbox.faults = [reset(BATCH, after=after, times=4), server_error(BATCH, after=after, times=1)]

    assert await _states(stage, rows(4)) == {"completed": 4}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 5)}


async def _cut_off(stage: Stage, given: list[DubRow], *, after: bool = False, **options: object) -> None:
    """Run until a batch has arrived, and let the run end without its answer."""
    stage.sandbox.faults = [reset(BATCH, after=after)]
    async with stage.run(given, submit="batch", **options):
        await until(lambda: stage.asked(BATCH))
    stage.sandbox.faults = []
    assert _noted(stage, "SELECT state FROM rows") == {"submitting"}


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_an_interrupted_batch_is_sent_again_unchanged(stage: Stage, submit: str, after: bool) -> None:
    given = rows(30)
    await _cut_off(stage, given, after=after)
    states = await stage.states([*reversed(given), DubRow(url("new"), AUDIO, key="new")], submit=submit)

    assert states == {"completed": 31}
    assert stage.jobs_by_key() == {"new": 1, **{row.key: 1 for row in given}}
    keys = Counter(_batch_keys(stage))
    assert len(keys) == (2 if submit == "batch" else 1)
    assert max(keys.values()) >= 2


async def test_rows_of_an_interrupted_batch_are_not_sent_without_the_others(stage: Stage) -> None:
    await _cut_off(stage, rows(3), after=False)
    outcomes = await _outcomes(stage, rows(2))

    assert {outcome.state for outcome in outcomes.values()} == {"failed"}
    assert "add those rows again" in str(outcomes["row-1"].error)
    assert stage.sandbox.jobs == []
    assert await _states(stage, rows(3)) == {"completed": 3}
    assert len(stage.sandbox.jobs) == 3


@pytest.mark.parametrize("is_clean", [False, True], ids=["killed", "ended"])
@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("callback_id", [None, "mine"])
async def test_rows_of_an_interrupted_batch_find_their_jobs_without_the_others(
    stage: Stage, is_clean: bool, submit: str, callback_id: str | None
) -> None:
    given = [evolve(row, callback_id=callback_id and f"{callback_id}-{row.key}", title="Title") for row in rows(3)]
    await _cut_off(stage, given, after=True)
    if not is_clean:
        with stage.database() as database:
            database.execute("INSERT INTO facts VALUES ('open', ?)", (repr(time.time()),))

    assert await stage.states(given[:2], submit=submit) == {"completed": 2}
    assert await stage.states(given, submit=submit) == {"unchanged": 2, "completed": 1}
    assert len(stage.sandbox.jobs) == 3


async def test_rows_of_an_interrupted_batch_fail_as_incomplete_where_the_list_is_refused(stage: Stage) -> None:
    await _cut_off(stage, rows(3), after=True)
    stage.sandbox.faults = [error(403, "forbidden", route=LIST)]
    outcomes = await _outcomes(stage, rows(2))

    assert all("add those rows again" in str(outcome.error) for outcome in outcomes.values())
    assert len(stage.sandbox.jobs) == 3


async def test_rows_of_an_interrupted_batch_find_their_jobs_once_the_list_answers_again(stage: Stage) -> None:
    await _cut_off(stage, rows(3), after=True)
    stage.sandbox.faults = [error(500, "internal_error", route=LIST, times=12)]

    assert await _states(stage, rows(2)) == {"completed": 2}
    assert len(stage.sandbox.jobs) == 3


@pytest.mark.parametrize("retry_failed", [False, True])
@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_jobs_of_a_batch_that_the_api_no_longer_has_are_found(
    tmp_path: Path, submit: str, retry_failed: bool
) -> None:
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(rows(3), submit="batch") as run:
            await until(lambda: run.snapshot().stages.get("running") == 3)
        await stage.sandbox.advance(1000)
        await stage.heygen.lipsyncs.delete(stage.sandbox.jobs[2].id)
        stage.sandbox.faults = [error(404, "not_found", route=LOOK)]
        outcomes = await _outcomes(stage, rows(3), retry_failed=retry_failed)

        assert Counter(outcome.state for outcome in outcomes.values()) == {"completed": 2, "failed": 1}
        assert isinstance(outcomes["row-3"].error, NotFound)
        assert len(_batch_keys(stage)) == 1
        assert stage.asked(CREATE) == 0


async def test_a_page_of_a_gateway_does_not_show_that_a_batch_is_gone(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(rows(1), submit="batch") as run:
            await until(lambda: run.snapshot().stages.get("running") == 1)
        lists = stage.asked(LIST)
        stage.sandbox.faults = [Fault(LOOK, Reply(status=404, body=b"<html>no</html>", content_type="text/html"))]

        assert await _states(stage, rows(1)) == {"failed": 1}
        assert stage.asked(LIST) == lists


@pytest.mark.parametrize("submit", ["each", "batch"])
async def test_rows_of_interrupted_batches_wait_for_each_other_beside_the_window_of_a_run(
    stage: Stage, submit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_WINDOW", 4)
    monkeypatch.setattr(batches_module, "MAX_BATCH", 2)
    given = rows(16)
    stage.sandbox.faults = [reset(BATCH)]
    for start in range(0, 16, 4):  # each run is stopped while its batches have no answer
        async with stage.run(given[start : start + 4], submit="batch"):
            await until(lambda made=start // 2 + 2: len(set(_batch_keys(stage))) == made)
    assert _noted(stage, "SELECT count(DISTINCT batch) FROM rows WHERE state = 'submitting'") == {8}
    stage.sandbox.faults = []

    assert await stage.states([*given[0::2], *given[1::2]], submit=submit) == {"completed": 16}
    assert stage.jobs_by_key() == {row.key: 1 for row in given}


async def test_a_window_has_room_for_one_more_row_for_each_that_waits_for_the_others_of_its_batch() -> None:
    window, entered = Window(2), Counter[str]()

    async def enter() -> None:
        while True:
            await window.enter()
            entered["rows"] += 1

    async with asyncio.timeout(10):
        entering = asyncio.create_task(enter())
        for widened, expected in [((), 2), (("a", "a"), 3), (("b",), 4)]:
            for key in widened:
                window.widen(key)
            await until(lambda expected=expected: entered["rows"] == expected)
        window.leave("a")
        window.leave("b")
        window.leave("other")
        await until(lambda: entered["rows"] == 5)
        entering.cancel()


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("recorded", [{"row-1"}, {"row-2", "row-3"}], ids=sorted)
async def test_a_batch_that_was_recorded_for_some_of_its_rows_is_that_of_the_others(
    tmp_path: Path, recorded: set[str], submit: str
) -> None:
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(rows(3), submit="batch") as run:
            await until(lambda: run.snapshot().stages.get("running") == 3)
        with stage.database() as database:  # as if the machine had lost its power between two writes
            lost = [(row.key,) for row in rows(3) if row.key not in recorded]
            database.executemany("UPDATE rows SET state = 'submitting', batch_id = NULL WHERE key = ?", lost)
            database.execute("INSERT INTO facts VALUES ('open', ?)", (repr(time.time()),))
        async with stage.run(rows(3), submit=submit) as run:
            await until(lambda: run.snapshot().stages.get("running") == 3)
            await stage.sandbox.advance(100)
            assert [outcome.state async for outcome in run] == ["completed"] * 3

        assert len(stage.sandbox.jobs) == 3
        assert len(_batch_keys(stage)) == 1


@pytest.mark.parametrize("first", ["each", "batch"])
@pytest.mark.parametrize("count", [3, 4, 130])
async def test_the_same_rows_in_other_batches_of_a_new_journal_are_not_paid_again(
    stage: Stage, first: str, count: int
) -> None:
    await stage.outcomes(rows(3), submit=first, journal=stage.folder / "lost.sqlite", output_dir=stage.folder / "lost")
    await stage.outcomes([DubRow(url("other"), AUDIO, key="other")], journal=None, output_dir=None)

    assert await _states(stage, rows(count)) == {"completed": count}
    assert stage.jobs_by_key() == {**{f"row-{number}": 1 for number in range(1, count + 1)}, "other": 1}
    assert await _states(stage, rows(count)) == {"unchanged": count}


@pytest.mark.parametrize("count", [3, 4])
async def test_rows_of_batches_are_not_paid_again_one_by_one_in_a_new_journal(stage: Stage, count: int) -> None:
    await stage.outcomes(rows(3), submit="batch", journal=stage.folder / "lost.sqlite", output_dir=None)
    lists = stage.asked("GET /v3/lipsyncs")

    assert await stage.states(rows(count)) == {"completed": count}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, count + 1)}
    assert stage.asked("GET /v3/lipsyncs") == lists + 1


async def test_more_rows_of_batches_than_a_page_are_not_paid_again_one_by_one_in_a_new_journal(stage: Stage) -> None:
    await stage.outcomes(rows(102), submit="batch", journal=stage.folder / "lost.sqlite", output_dir=None)

    assert await stage.states(rows(102), output_dir=None) == {"completed": 102}
    assert len(stage.sandbox.jobs) == 102


@pytest.mark.parametrize("callback_id", [None, "mine", "row-1"])
async def test_rows_of_batches_before_a_page_of_other_jobs_are_not_paid_again_in_a_new_journal(
    stage: Stage, callback_id: str | None
) -> None:
    await stage.outcomes(rows(3), submit="batch", journal=stage.folder / "lost.sqlite", output_dir=None)
    await stage.heygen.lipsyncs.create_batch(
        [LipsyncRequest(video=url("other"), audio=AUDIO, callback_id=callback_id)] * 100
    )
    await stage.heygen.lipsyncs.create(video=url("other"), audio=AUDIO, callback_id=callback_id)

    assert await stage.states(rows(3), output_dir=None) == {"completed": 3}
    assert len(stage.sandbox.jobs) == 3 + 101


@pytest.mark.parametrize("runs", [1, 9, 30])
async def test_a_job_of_a_late_attempt_is_found_by_a_new_journal(stage: Stage, runs: int) -> None:
    """Rows were tried again, by a program that runs each minute for example, until the API took them."""
    stage.sandbox.faults = [error(400, "download_failed", route=CREATE)]
    lost = {"journal": stage.folder / "lost.sqlite", "retry_failed": True, "output_dir": None}
    for _ in range(runs):
        await stage.outcomes(rows(2), **lost)
    stage.sandbox.faults = []
    await stage.outcomes(rows(2), **lost)

    assert await stage.states(rows(2), output_dir=None) == {"completed": 2}
    assert stage.jobs_by_key() == {"row-1": 1, "row-2": 1}


@pytest.mark.parametrize("callback_id", ["mine-{}", None])
async def test_a_new_journal_adopts_no_job_of_other_inputs_or_with_a_callback_id_of_the_users(
    stage: Stage, callback_id: str | None
) -> None:
    def given(title: str) -> list[DubRow]:
        ids = [None if callback_id is None else callback_id.format(number) for number in range(3)]
        return [evolve(row, callback_id=one, title=title) for row, one in zip(rows(3), ids, strict=True)]

    await stage.outcomes(given("one"), submit="batch", journal=stage.folder / "lost.sqlite", output_dir=None)

    assert await _states(stage, given("another")) == {"completed": 3}
    assert len(stage.sandbox.jobs) == 3 + 3


async def test_a_new_journal_adopts_no_job_of_the_day_before(stage: Stage) -> None:
    await stage.outcomes(rows(3), submit="batch", journal=stage.folder / "lost.sqlite", output_dir=None)

    assert await _states(stage, rows(4), now=lambda: time.time() + 2 * DAY) == {"completed": 4}
    assert len(stage.sandbox.jobs) == 3 + 4


class _Unreachable(FakeHeyGen):
    """A HeyGen that answers no create of a batch."""

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest], *, key_age: Callable[[], float]) -> str:
        raise TransportError("the connection was reset", outcome="unknown")


async def _sent(batches: BatchCollector, row: PreparedRow, record: Record) -> Record:
    return await batches.create(row, record, before_waiting=lambda: None)


@pytest.mark.parametrize("given_up", [0, 1, 2])
async def test_the_rows_of_a_batch_do_not_wait_for_one_that_has_been_given_up(given_up: int) -> None:
    heygen, store = _Unreachable(Server({}, lambda _: 10)), MemoryStore()
    tools = Tools(heygen=heygen, store=store, clock=UnixClock(), delays=HASTY)
    batches = BatchCollector(tools, CreateQueue(Limiter(), CircuitBreaker()), Window(10))
    given = [_prepared(row, number) for number, row in enumerate(rows(3), 1)]
    planned = [intent(row, Record(key=row.key, inputs="-", number=row.number), 1.0, estimate=0.0) for row in given]
    batches.no_more_candidates()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(batches.run())
        for _ in given:
            batches.add_candidate()
        joins = [
            tasks.create_task(batches.join(row, one, before_waiting=batches.remove_candidate))
            for row, one in zip(given, planned, strict=True)
        ]
        records = [await one for one in joins]
        sends = [tasks.create_task(_sent(batches, row, one)) for row, one in zip(given, records, strict=True)]
        records = [await one for one in sends]
        assert all(isinstance(one.failure, TransportError) and not one.is_stopped for one in records)
        others = [at for at in range(3) if at != given_up]
        again = [tasks.create_task(_sent(batches, given[others[0]], records[others[0]].before_effect()))]
        await asyncio.sleep(0)
        batches.row_ended(records[given_up].stopped(TransportError("nobody answers")))
        again.append(tasks.create_task(_sent(batches, given[others[1]], records[others[1]].before_effect())))
        records = [await one for one in again]
        batches.close()

    assert all(one.is_stopped and "start this run again" in str(one.failure) for one in records)


def _prepared(row: DubRow, number: int) -> PreparedRow:
    entry = Entry(key=row.key or "", inputs="-", number=number, place="")
    return PreparedRow(row=row, target=None, captions=False, files={}, missing={}, seconds=1.0, entry=entry)


@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_after_a_day_the_jobs_of_an_interrupted_batch_are_searched_for(stage: Stage, after: bool) -> None:
    await _cut_off(stage, rows(5), after=after)
    stage.sandbox.forget_keys()
    states = await stage.states(rows(4), now=lambda: time.time() + DAY)

    assert states == {"completed": 4}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 6 if after else 5)}
    walks, creating_runs = 1, 1 if after else 2  # one walk for all rows, and the newest job before a run's first create
    assert stage.asked("GET /v3/lipsyncs") == walks + creating_runs


async def test_a_run_that_was_interrupted_while_it_waited_continues_to_wait(stage: Stage) -> None:
    async with stage.run(rows(20), submit="batch") as run:
        await anext(run)
    sent = len(stage.sandbox.jobs)
    states = await stage.states(rows(20))

    assert set(states) <= {"completed", "unchanged"}
    assert len(stage.sandbox.jobs) == sent == 20


async def test_a_batch_costs_few_requests(stage: Stage) -> None:
    states = await _states(stage, rows(100), output_dir=None)

    assert states == {"completed": 100}
    assert stage.asked("GET /v3/lipsyncs/{lipsync_id}") + stage.asked("GET /v3/lipsyncs") < 70


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_a_batch_whose_answer_is_lost_for_a_day_is_searched_for(stage: Stage, after: bool, count: int) -> None:
    passed = 0.0
    stage.sandbox.faults = [reset(BATCH, after=after)]
    async with stage.run(rows(count), submit="batch", now=lambda: time.time() + passed) as run:
        await until(lambda: stage.asked(BATCH) == 4)  # the last of the transport's own
        passed = DAY + 3600
        stage.sandbox.forget_keys()
        stage.sandbox.faults = []
        assert [outcome.state async for outcome in run] == ["completed"] * count

    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, count + 1)}


async def test_a_batch_that_says_it_has_more_items_and_gives_no_cursor_has_those_that_were_read(stage: Stage) -> None:
    stage.sandbox.faults = [Fault(LOOK, Alter({"has_more": True}, replace_only=True))]
    outcomes = await _outcomes(stage, rows(2))

    assert {outcome.state for outcome in outcomes.values()} == {"completed"}


def _alter_items(monkeypatch: pytest.MonkeyPatch, alter: Callable[[list[BatchItem]], list[BatchItem]]) -> None:
    """Alter the items on each page of a batch."""
    real = BulkCalls.batch

    async def altered(self: BulkCalls, batch_id: str) -> AsyncIterator[Page[BatchItem]]:
        async for page in real(self, batch_id):
            yield Page(items=alter(page.items))

    monkeypatch.setattr(BulkCalls, "batch", altered)


def _counted_from_one(items: list[BatchItem]) -> list[BatchItem]:
    return [evolve(one, item_index=one.item_index + 1) for one in items]


def _swapped(items: list[BatchItem]) -> list[BatchItem]:
    if len(items) < 3:
        return items
    return [evolve(items[0], item_index=1), evolve(items[1], item_index=0), *items[2:]]


async def test_an_item_that_leads_to_the_job_of_another_row_is_not_its_video(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _alter_items(monkeypatch, _counted_from_one)
    found = await _outcomes(stage, rows(3))

    jobs = {job.id: row_key(str(job.body["callback_id"])) for job in stage.sandbox.jobs}
    assert found.keys() == {"row-1", "row-2", "row-3"}
    for outcome in found.values():
        assert outcome.lipsync is not None
        assert (outcome.state, jobs[outcome.lipsync.id]) == ("completed", outcome.key)


@pytest.mark.parametrize("reason", ["No face", "internal error"])
async def test_an_item_whose_job_of_another_row_failed_is_not_created_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    _alter_items(monkeypatch, _counted_from_one)
    given = [DubRow(url("f", f"fail={reason.replace(' ', '+')}"), AUDIO, key="bad"), *rows(1)]
    found = await _outcomes(stage, given, max_attempts=1)

    assert {outcome.key: outcome.state for outcome in found.values()} == {"bad": "failed", "row-1": "completed"}
    assert stage.jobs_by_key() == {"bad": 1, "row-1": 1}


@pytest.mark.parametrize("own", [{1}, {2}, {1, 2, 3}], ids=repr)
async def test_an_item_that_leads_to_the_job_of_a_row_with_an_id_of_its_own_is_not_its_video(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, own: set[int]
) -> None:
    _alter_items(monkeypatch, _counted_from_one)
    given = [
        evolve(row, callback_id=f"episode-{number}" if number in own else None, title=f"Episode {number}")
        for number, row in enumerate(rows(3), 1)
    ]
    found = await _outcomes(stage, given)

    titles = {job.id: job.body["title"] for job in stage.sandbox.jobs}
    assert {outcome.state for outcome in found.values()} == {"completed"}
    for outcome in found.values():
        assert outcome.lipsync is not None
        assert titles[outcome.lipsync.id] == outcome.row.title


@pytest.mark.parametrize("looks", [1, 3])
async def test_a_failed_item_whose_job_goes_on_or_is_completed_is_not_created_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    left = looks

    def failed(items: list[BatchItem]) -> list[BatchItem]:
        nonlocal left
        if left == 0 or not all(one.lipsync_id for one in items):
            return items
        left -= 1
        return [evolve(one, status=LipsyncStatus.FAILED, error="lost the worker") for one in items]

    _alter_items(monkeypatch, failed)

    assert await _states(stage, rows(2)) == {"completed": 2}
    assert left < looks
    assert stage.jobs_by_key() == {"row-1": 1, "row-2": 1}


@pytest.mark.parametrize("message", [None, ""])
async def test_the_reason_of_a_failed_item_counts_if_its_job_has_none(stage: Stage, message: str | None) -> None:
    alter = Alter({"failure_message": message}, replace_only=True)
    stage.sandbox.faults = [Fault("GET /v3/lipsyncs/{lipsync_id}", alter), Fault("GET /v3/lipsyncs", alter)]
    outcomes = await _outcomes(stage, [DubRow(url("f", "fail=No+face+was+found"), AUDIO, key="bad"), *rows(1)])

    assert "No face was found" in str(outcomes["bad"].error)
    assert stage.jobs_by_key() == {"bad": 1, "row-1": 1}


async def test_a_failed_job_of_a_batch_that_cannot_be_read_fails_its_row_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BulkCalls.get

    async def get(self: BulkCalls, lipsync_id: str) -> Lipsync:
        job = await real(self, lipsync_id)
        if job.title == "unreadable":
            raise PermissionDenied("no", status=403, code="resource_access_denied")
        return job

    monkeypatch.setattr(BulkCalls, "get", get)
    slower = [DubRow(url(number, f"seconds={500 * number}"), AUDIO, key=f"row-{number}") for number in (1, 2, 3)]
    given = [DubRow(url("f", "fail=No+face"), AUDIO, key="bad", title="unreadable"), *slower]
    async with asyncio.timeout(12):
        assert await _states(stage, given) == {"failed": 1, "completed": 3}
    assert stage.jobs_by_key() == {"bad": 1, "row-1": 1, "row-2": 1, "row-3": 1}


@pytest.mark.parametrize(
    "unreadable",
    [html(GET), error(403, "forbidden", route=GET), Fault(GET, Alter({"status": 7}, replace_only=True))],
    ids=["html", "403", "json"],
)
async def test_a_failed_item_whose_job_cannot_be_read_is_not_created_again(stage: Stage, unreadable: Fault) -> None:
    lost = Fault(LOOK, Alter({"status": "failed", "error": "lost the worker"}, replace_only=True))
    stage.sandbox.faults = [unreadable, lost]
    async with asyncio.timeout(20):
        assert await _states(stage, rows(1)) == {"failed": 1}
    assert stage.jobs_by_key() == {"row-1": 1}  # which is completed


@pytest.mark.parametrize("lost", ["", "no id"])
@pytest.mark.parametrize("source", ["fail=No+face", ""])
async def test_an_item_that_has_ended_without_an_id_is_not_waited_for(stage: Stage, source: str, lost: str) -> None:
    no_id = Fault(LOOK, Alter({"video_id": lost}, replace_only=True))
    stage.sandbox.faults = [error(403, "forbidden", route=LIST), no_id]
    async with asyncio.timeout(10):
        assert await _states(stage, [DubRow(url("f", source), AUDIO, key="bad")]) == {"failed": 1}


@pytest.mark.parametrize(
    "odd",
    [{"video_id": ""}, {"video_id": "no id"}, {"item_index": 7}, {"items": None}],
    ids=["no id", "an id that is none", "another index", "no items"],
)
async def test_rows_whose_batch_does_not_lead_to_their_jobs_find_them_in_the_list(
    stage: Stage, odd: dict[str, object]
) -> None:
    stage.sandbox.faults = [Fault(LOOK, Alter(odd, replace_only=True))]
    async with asyncio.timeout(20):
        found = await _outcomes(stage, rows(3))

    jobs = {job.id: row_key(str(job.body["callback_id"])) for job in stage.sandbox.jobs}
    assert {outcome.state for outcome in found.values()} == {"completed"}
    assert {jobs[outcome.lipsync.id]: key for key, outcome in found.items() if outcome.lipsync} == {
        f"row-{number}": f"row-{number}" for number in (1, 2, 3)
    }
    assert len(jobs) == 3


async def test_callback_ids_of_another_form_do_not_matter_where_the_list_cannot_be_read(stage: Stage) -> None:
    other = Fault("GET *", Alter({"callback_id": "row"}, replace_only=True))
    stage.sandbox.faults = [error(403, "forbidden", route="GET /v3/lipsyncs"), other]
    async with asyncio.timeout(20):
        assert await _states(stage, rows(4)) == {"completed": 4}


async def test_rows_of_an_interrupted_batch_are_found_though_newer_jobs_are_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _alter_items(monkeypatch, _swapped)
    slow = [DubRow(url(number, "seconds=2000"), AUDIO, key=f"row-{number}") for number in (1, 2)]
    given = [*slow, rows(3)[2]]
    async with asyncio.timeout(20), stage.run(given, submit="batch") as run:
        await anext(run)  # the newest job of the batch
    async with asyncio.timeout(30):
        assert await _states(stage, [*given, rows(4)[3]]) == {"unchanged": 1, "completed": 3}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 5)}


@pytest.mark.parametrize("read", [1, 2])
async def test_a_page_of_a_batch_that_stays_unreadable_fails_the_rows_on_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    real = BulkCalls.batch

    async def cut(self: BulkCalls, batch_id: str) -> AsyncIterator[Page[BatchItem]]:
        async for page in real(self, batch_id):
            yield Page(items=[one for one in page.items if one.item_index < read])
            raise UnexpectedResponse(["not JSON @ $.data.items[7]"], status=200)

    monkeypatch.setattr(BulkCalls, "batch", cut)
    stage.sandbox.faults = [error(403, "forbidden", route=LIST)]
    async with asyncio.timeout(20):
        outcomes = await _outcomes(stage, rows(3))
    assert Counter(outcome.state for outcome in outcomes.values()) == {"completed": read, "failed": 3 - read}
    assert isinstance(outcomes["row-3"].error, UnexpectedResponse)


@pytest.mark.parametrize("callback_id", ["", "row", "ROW-1.0123456789ABCDEF"])
async def test_a_callback_id_of_another_form_says_nothing_of_an_item(stage: Stage, callback_id: str) -> None:
    stage.sandbox.faults = [Fault("GET *", Alter({"callback_id": callback_id}, replace_only=True))]

    assert await _states(stage, rows(3)) == {"completed": 3}


@pytest.mark.parametrize("is_known", [False, True], ids=["unknown lengths", "known lengths"])
async def test_an_interrupted_batch_that_is_refused_for_an_item_does_not_wait_for_its_own_money(
    stage: Stage, is_known: bool
) -> None:
    price = 60 * RATES["speed"]
    given = rows(4, **({"start_time": 0.0, "end_time": 60.0} if is_known else {}))
    budget = 5.2 * price if is_known else 100.0
    await _cut_off(stage, given, budget=budget if is_known else None)
    stage.sandbox.faults = [error(400, "invalid_parameter", "no", route=BATCH, times=1)]

    async with asyncio.timeout(20):
        assert await _states(stage, given, budget=budget) == {"completed": 4}


async def _estimates(stage: Stage, given: list[DubRow], **options: object) -> tuple[Counter[str], float, float]:
    """Return the states of a run, what it says that was spent, and what its journal says."""
    run = stage.run(given, submit="batch", **options)
    async with asyncio.timeout(20), run:
        states = Counter([outcome.state async for outcome in run])
    with stage.database() as database:
        [recorded] = database.execute("SELECT total(estimate + earlier_estimate) FROM rows").fetchone()
    return states, run.snapshot().estimate, recorded


@pytest.mark.parametrize("is_made", [False, True], ids=["never created", "found by a search"])
async def test_the_price_of_an_interrupted_batch_is_counted_once(stage: Stage, is_made: bool) -> None:
    given = rows(4, start_time=0.0, end_time=60.0)
    await _cut_off(stage, given, after=is_made)
    later = time.time() + 2 * DAY
    budget = 4 * 60 * RATES["speed"] + 1.0

    states, estimate, recorded = await _estimates(stage, given, now=lambda: later, budget=budget)

    assert states == {"completed": 4}
    assert estimate == pytest.approx(recorded)


async def test_an_interrupted_batch_that_is_continued_one_by_one_counts_once(stage: Stage) -> None:
    given = rows(4, start_time=0.0, end_time=60.0)
    await _cut_off(stage, given)
    stage.sandbox.faults = [error(400, "invalid_parameter", "no", route=BATCH, times=1)]

    run = stage.run(given)
    async with asyncio.timeout(20), run:
        assert Counter([outcome.state async for outcome in run]) == {"completed": 4}
    with stage.database() as database:
        [recorded] = database.execute("SELECT total(estimate + earlier_estimate) FROM rows").fetchone()
    assert run.snapshot().estimate == pytest.approx(recorded)


async def test_a_job_of_a_batch_that_was_deleted_is_not_waited_for(stage: Stage) -> None:
    given = [DubRow(url("slow", "seconds=100000"), AUDIO, key="slow"), *rows(1)]
    async with stage.run(given, submit="batch") as run:
        await until(lambda: len(stage.sandbox.jobs) == 2)
        [slow] = [
            job.id for job in stage.sandbox.jobs if row_key(str(job.body["callback_id"])) == "slow"
        ]  # rows come in any order
        await stage.heygen.lipsyncs.delete(slow)
        outcomes = {outcome.key: outcome async for outcome in run}

    assert outcomes["row-1"].state == "completed"
    assert isinstance(outcomes["slow"].error, NotFound)


async def _delete_the_first_job_of_a_batch(stage: Stage) -> str:
    """Run two rows until their jobs run, delete one of them, and return the key of its row."""
    async with stage.run(rows(2), submit="batch") as run:
        await until(lambda: run.snapshot().stages.get("running") == 2)
    job = stage.sandbox.jobs[0]
    await stage.heygen.lipsyncs.delete(job.id)
    await stage.sandbox.advance(100)
    return row_key(str(job.body["callback_id"]))


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("max_attempts", [1, 3])
async def test_a_row_of_a_batch_whose_job_was_deleted_gets_another_one_with_retry_failed_only(
    tmp_path: Path, submit: str, max_attempts: int
) -> None:
    async with staged(tmp_path, manual=True) as stage:
        deleted = await _delete_the_first_job_of_a_batch(stage)
        assert (await _outcomes(stage, rows(2)))[deleted].state == "failed"
        assert len(stage.sandbox.jobs) == 2

        async with stage.run(rows(2), submit=submit, retry_failed=True, max_attempts=max_attempts) as run:
            await until(lambda: len(stage.sandbox.jobs) == 3)
            await stage.sandbox.advance(100)
            states = {outcome.key: outcome.state async for outcome in run}
        assert states[deleted] == "completed"
        assert stage.jobs_by_key()[deleted] == 2


@pytest.mark.parametrize("submit", ["each", "batch"])
@pytest.mark.parametrize("is_new", [False, True])
async def test_retry_failed_replaces_no_job_of_its_own_run_that_the_api_does_not_show(
    tmp_path: Path, submit: str, is_new: bool
) -> None:
    async with staged(tmp_path, manual=True) as stage:
        if not is_new:
            async with stage.run(rows(2), submit=submit) as run:
                await until(lambda: run.snapshot().stages.get("running") == 2)
        unknown = Alter({"status": "not_found"}, True)
        stage.sandbox.faults = [
            error(404, "not_found", route=GET),
            *(Fault(route, unknown) for route in (LOOK, "GET /v3/lipsyncs/statuses")),
            Fault(LIST, Alter({"callback_id": "unknown"}, True)),
        ]
        outcomes = await stage.outcomes(rows(2), submit=submit, retry_failed=True)

        assert all(isinstance(outcome.error, NotFound) for outcome in outcomes)
        assert len(stage.sandbox.jobs) == (2 if is_new else 4)


async def test_an_item_that_is_not_found_and_never_had_a_job_may_get_one_and_is_not_replaced(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage:
        async with stage.run(rows(2), submit="batch") as run:
            await until(lambda: run.snapshot().stages.get("running") == 2)
        late = Alter({"status": "not_found", "video_id": None}, True)
        stage.sandbox.faults = [Fault(LOOK, late), Fault(LIST, Alter({"callback_id": None}, True))]
        assert await _states(stage, rows(2), retry_failed=True) == {"failed": 2}
        assert len(stage.sandbox.jobs) == 2

        stage.sandbox.faults = []
        await stage.sandbox.advance(100)
        assert await _states(stage, rows(2), retry_failed=True) == {"completed": 2}
        assert len(stage.sandbox.jobs) == 2


@pytest.mark.parametrize("lost", ["batch", "list"])
async def test_a_row_of_a_batch_is_not_paid_again_while_it_is_not_certain_that_its_job_is_gone(
    tmp_path: Path, lost: str
) -> None:
    async with staged(tmp_path, manual=True) as stage:
        await _delete_the_first_job_of_a_batch(stage)
        is_batch = lost == "batch"
        stage.sandbox.faults = [error(404, "not_found", route=LOOK) if is_batch else error(403, "no", route=LIST)]

        assert await _states(stage, rows(2), retry_failed=True) == {"completed": 1, "failed": 1}
        assert len(stage.sandbox.jobs) == 2


async def test_a_row_of_a_batch_whose_item_names_a_job_that_was_deleted_finds_its_own_one(tmp_path: Path) -> None:
    async with staged(tmp_path, manual=True) as stage:
        await _delete_the_first_job_of_a_batch(stage)
        with stage.database() as database:  # as if the API counted the items in another way
            database.execute("UPDATE rows SET item = 1 - item")

        assert await _states(stage, rows(2), retry_failed=True) == {"completed": 1, "failed": 1}
        assert max(stage.jobs_by_attempt().values()) == 1


@pytest.mark.parametrize("fault", [html(LOOK), error(408, None, route=LOOK)], ids=["HTML", "408"])
async def test_a_batch_is_awaited_through_transient_errors_until_the_longest_wait_is_over(
    tmp_path: Path, fault: Fault
) -> None:
    polling = PollPolicy(fastest=0.005, slowest=0.02, longest=0.3)
    async with staged(tmp_path, polling=polling, faults=[fault]) as stage:
        outcomes = await _outcomes(stage, rows(2))
        assert {type(outcome.error) for outcome in outcomes.values()} == {WaitTimeout}

        stage.sandbox.faults = []
        assert await _states(stage, rows(2)) == {"completed": 2}
        assert len(stage.sandbox.jobs) == 2


@pytest.mark.parametrize("fault", [html(LOOK, times=30), error(408, None, route=LOOK, times=30)], ids=["HTML", "408"])
async def test_transient_errors_while_a_batch_runs_cost_no_row(stage: Stage, fault: Fault) -> None:
    stage.sandbox.faults = [fault]

    assert await _states(stage, rows(3)) == {"completed": 3}


async def test_the_state_of_a_job_from_a_get_overrides_the_state_in_its_batch(stage: Stage) -> None:
    failed = Alter({"status": "failed", "failure_message": "Internal error", "video_url": None}, replace_only=True)
    stage.sandbox.faults = [Fault("GET /v3/lipsyncs/{lipsync_id}", failed, times=1)]
    [outcome] = (await _outcomes(stage, rows(1), max_attempts=1)).values()

    assert isinstance(outcome.error, LipsyncFailed)
    assert stage.asked("GET /files/{name}") == 0


async def test_one_missing_asset_is_not_a_missing_batch(stage: Stage) -> None:
    stage.sandbox.faults = [error(404, "asset_not_found", route=BATCH, times=1)]

    assert await _states(stage, rows(3)) == {"completed": 3}


async def test_an_upload_that_the_server_lost_is_sent_again_with_its_batch(stage: Stage) -> None:
    first, second = rows(2, audio=SAMPLE_AUDIO)
    await _states(stage, [first])
    [asset] = _noted(stage, "SELECT asset_id FROM assets")
    await stage.heygen.assets.delete(asset)
    stage.heygen.assets.forget(AssetId(asset))

    assert await _states(stage, [first, second]) == {"unchanged": 1, "completed": 1}


async def test_an_item_that_was_refused_goes_under_another_key_the_next_time(stage: Stage) -> None:
    refused = [DubRow(url("a", "refuse=download_failed"), AUDIO, key="a")]

    assert await _states(stage, refused) == {"failed": 1}
    assert await _states(stage, refused) == {"failed": 1}
    assert len(set(_batch_keys(stage))) == 2


async def test_the_end_of_a_run_waits_for_a_batch_without_an_answer(tmp_path: Path) -> None:
    async with staged(tmp_path, latency={BATCH: 0.2}) as stage:
        async with stage.run(rows(2), submit="batch"):
            await until(lambda: stage.asked(BATCH))
        assert _noted(stage, "SELECT state FROM rows") == {"submitted"}


def _noted(stage: Stage, query: str) -> set[str]:
    """Return what the journal has in one column."""
    database = sqlite3.connect(stage.folder / "run.sqlite")
    found = {value for (value,) in database.execute(query)}
    database.close()
    return found


async def test_rows_that_wait_for_the_budget_do_not_block_the_rest_of_their_batch(stage: Stage) -> None:
    siblings, budget = rows(2), 2 * 60 * RATES["speed"] + 0.01
    stage.sandbox.faults = [reset(BATCH)]
    async with stage.run(siblings, submit="batch", budget=budget):
        await until(lambda: stage.asked(BATCH))
        await asyncio.sleep(0.02)
    stage.sandbox.faults = []
    between = [DubRow(url(f"n{number}"), AUDIO, key=f"n{number}") for number in range(1100)]
    states = await _states(stage, [siblings[0], *between, siblings[1]], budget=budget)

    assert states["completed"] >= 2
    assert states.total() == 1102
