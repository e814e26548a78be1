"""The store of a run in PostgreSQL: what the store in memory promises, and what many writers need."""

import asyncio
import contextlib
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path

import procrastinate
import psycopg
import pytest
from attrs import evolve, frozen
from test_bulk_executors import Killed, Points, Scene, never, prepared

from heygen_async.bulk.budget import RATES
from heygen_async.bulk.cluster import Cluster
from heygen_async.bulk.cluster import database as module
from heygen_async.bulk.cluster.accounts import join_account
from heygen_async.bulk.cluster.database import (
    ClusterError,
    Database,
    DatabaseLost,
    RetryingStatements,
    to_jsonb,
    translated,
)
from heygen_async.bulk.cluster.delivery import make_engine_tables
from heygen_async.bulk.cluster.enqueue import Enqueue
from heygen_async.bulk.cluster.postgres import GIVEN, PostgresStore, write, written_row
from heygen_async.bulk.cluster.rows import (
    RunOptions,
    Stage,
    StepAnswer,
    StoredRow,
    record_from_json,
    record_to_json,
    row_from_json,
    row_to_json,
)
from heygen_async.bulk.cluster.schema import MIGRATIONS
from heygen_async.bulk.manifest import SourceRow
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import LostRow
from heygen_async.errors import LipsyncFailed
from heygen_async.models import AssetId, Lipsync, Secret

ROWS = [prepared("plain", 1), prepared("fails", 2), prepared("local", 3, b"audio")]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(Secret(database_url)) as opened:
        await opened.migrate(lambda: make_engine_tables(opened))
        yield opened


async def new_store(database: Database, name: str = "run") -> PostgresStore:
    """Make a run with the rows, on an account of its own, as an enqueue does."""
    ((account,),) = await database.fetch(
        "INSERT INTO accounts (origin, name) VALUES ('http://x', %(name)s) RETURNING id", {"name": name}
    )
    ((run,),) = await database.fetch(
        "INSERT INTO runs (origin, name, account, options) VALUES ('http://x', %(name)s, %(account)s, '{}') "
        "RETURNING id",
        {"name": name, "account": account},
    )
    stored = [
        StoredRow(
            run=run,
            row=row,
            record=Record(key=row.key, inputs=row.entry.inputs, number=row.number, place=row.place),
            stage=Stage.READY,
        )
        for row in (evolve(one, row=evolve(one.row, audio="https://example.com/a.mp3")) for one in ROWS)
    ]
    new = [
        {**written_row(one, deferred=None), "number": one.row.number, "prepared": row_to_json(one.row)}
        for one in stored
    ]
    columns = "run, key, number, version, stage, resend, due, price, reserved, lipsync_id, asked_at, prepared, record"
    await database.fetch(
        f"INSERT INTO rows ({columns}, is_held) SELECT {columns}, true FROM jsonb_to_recordset(%(new)s) AS {GIVEN}",
        {"new": to_jsonb(new)},
    )
    return PostgresStore(database, account, run)


def scene_of(store: PostgresStore) -> Scene:
    """Return executors of the rows on a store."""
    return Scene(Path("unused"), ROWS, store)


async def no_row_was_paid_twice(store: PostgresStore, scene: Scene) -> None:
    records = await store.records([row.key for row in ROWS])
    assert {record.state for record in records.values()} == {State.DONE}
    assert Counter(key.rpartition(".")[0] for key in scene.jobs.values()) == {"plain": 1, "fails": 2, "local": 1}


async def _killed_at(database: Database, point: int) -> bool:
    store = await new_store(database, f"killed {point}")
    scene = scene_of(store)

    def kill() -> None:
        raise Killed

    points = Points(point, kill)
    with contextlib.suppress(Killed):
        await scene.execute(points)
    outcomes = await scene.execute(never())

    assert {outcome.state for outcome in outcomes} <= {"completed", "unchanged"}
    await no_row_was_paid_twice(store, scene)
    return points.was_reached


async def _frozen_at(database: Database, point: int) -> bool:
    store = await new_store(database, f"frozen {point}")
    scene = scene_of(store)
    thaw, is_there = asyncio.Event(), asyncio.Event()

    async def stop() -> None:
        is_there.set()
        await thaw.wait()

    points = Points(point, stop)
    frozen_one = asyncio.create_task(scene.execute(points))
    frozen_one.add_done_callback(lambda _: is_there.set())
    await is_there.wait()
    outcomes = await scene.execute(never())
    assert {outcome.state for outcome in outcomes} <= {"completed", "unchanged"}
    thaw.set()
    late = await frozen_one

    assert {type(outcome.error) for outcome in late} <= {type(None), LostRow}
    await no_row_was_paid_twice(store, scene)
    return points.was_reached


@pytest.mark.parametrize("at", [_killed_at, _frozen_at], ids=["killed", "frozen"])
async def test_an_executor_that_stops_at_any_await_costs_no_second_job(
    database: Database, at: Callable[[Database, int], object]
) -> None:
    point = 1
    while await at(database, point):
        point += 1

    assert 30 < point < 200  # it went through to the end, and there were points on the way


async def test_two_executors_that_run_side_by_side_pay_each_row_once(database: Database) -> None:
    store = await new_store(database)
    scene = scene_of(store)
    both = await asyncio.gather(scene.execute(never()), scene.execute(never()))

    assert {type(outcome.error) for outcomes in both for outcome in outcomes} <= {type(None), LostRow}
    for outcome in await scene.execute(never()):
        assert outcome.state in {"completed", "unchanged"}
    await no_row_was_paid_twice(store, scene)


async def test_a_save_of_an_old_version_is_refused(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    await store.save(record.next_version())

    with pytest.raises(LostRow):
        await store.save(evolve(record, error="late").next_version())


async def test_of_several_records_all_are_saved_or_none(database: Database) -> None:
    store = await new_store(database)
    first, second, _ = await store.admit([row.entry for row in ROWS])
    await store.save(second.next_version())

    with pytest.raises(LostRow):
        await store.save(evolve(first, error="new").next_version(), second.next_version())
    assert (await store.records([first.key]))[first.key].version == 0


async def test_a_record_comes_back_as_it_was_saved_with_what_the_next_worker_needs(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    changed = evolve(
        record,
        state=State.FAILED,
        earlier=("ls_1", "ls_2"),
        error="no face",
        tries=3,
        has_reuploaded=True,
        is_stopped=True,
        warnings=("no captions",),
        sent_at=1795888404.6849973,
    ).next_version()
    await store.save(changed)

    found = (await store.records([record.key]))[record.key]
    assert found == changed
    assert (found.tries, found.has_reuploaded, found.is_stopped) == (3, True, True)
    assert found.warnings == ("no captions",)


async def test_a_job_that_a_page_lists_twice_is_kept_once(database: Database) -> None:
    store = await new_store(database)
    await store.keep_listed([("job_1", "one"), ("job_2", "two"), ("job_1", "one")])
    assert sorted(await store.listed(["one", "two"])) == [("job_1", "one"), ("job_2", "two")]


async def test_links_in_errors_are_stored_without_their_queries(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    await store.save(
        evolve(record, error="GET https://files.example.com/v.mp4?X-Amz-Signature=abc failed").next_version()
    )

    assert "abc" not in ((await store.records([record.key]))[record.key].error or "")


@frozen
class Flaky:
    """A database whose answers get lost, after the statement was carried out."""

    database: Database
    lost: list[bool]

    async def fetch(self, statement: str, values: dict[str, object] | None = None) -> Sequence[object]:
        found = await self.database.fetch(statement, values)
        if self.lost and self.lost.pop():
            raise DatabaseLost("the answer was lost")
        return found


async def test_a_committed_write_whose_answer_was_lost_is_known_again_when_it_is_repeated(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    flaky = PostgresStore(RetryingStatements(Flaky(database, [True, True])), store.account, store.run)
    await flaky.save(evolve(record, error="saved once").next_version())

    saved = (await store.records([record.key]))[record.key]
    assert (saved.version, saved.error) == (1, "saved once")


async def test_what_a_row_teaches_is_not_stored_again_when_its_write_is_repeated(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    row = StoredRow(run=store.run, row=ROWS[0], record=record, stage=Stage.READY, answer=StepAnswer.FAILED).saved()

    @frozen
    class Learning:
        lost: list[bool]

        async def fetch(self, statement: str, values: dict[str, object] | None = None) -> Sequence[object]:
            found = await database.fetch(statement, values)
            if self.lost and self.lost.pop():
                await database.fetch("UPDATE rows SET answer = NULL, due = 7, unanswered = '{1,0}'")
                raise DatabaseLost("the answer was lost")
            return found

    assert await write(RetryingStatements(Learning([True])), store.account, [row]) == {row.ticket}
    learnt = "SELECT answer, due, unanswered FROM rows WHERE key = %(key)s"
    assert await database.fetch(learnt, {"key": row.row.key}) == [(None, 7.0, [1, 0])]


async def test_of_two_writers_of_a_version_one_learns_that_it_lost(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    row = StoredRow(run=store.run, row=ROWS[0], record=record, stage=Stage.CREATE).saved()
    both = await asyncio.gather(*(write(database, store.account, [row]) for _ in range(2)))

    assert sorted(map(len, both)) == [0, 1]


async def test_a_write_under_an_old_epoch_changes_nothing(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    row = StoredRow(run=store.run, row=ROWS[0], record=record, stage=Stage.CREATE).saved()
    await database.fetch("UPDATE accounts SET epoch = 7 WHERE id = %(account)s", {"account": store.account})

    assert await write(database, store.account, [row], fence=6) == set()
    assert await write(database, store.account, [row], fence=7) == {row.ticket}


async def test_the_sum_of_a_run_follows_the_prices_of_its_rows(database: Database) -> None:
    store = await new_store(database)
    record, *_ = await store.admit([row.entry for row in ROWS])
    row = StoredRow(run=store.run, row=ROWS[0], record=record, stage=Stage.FLIGHT, price=2.0, reserved=True).saved()
    await write(database, store.account, [row])
    await write(database, store.account, [evolve(row, price=0.5, reserved=False).saved()])

    assert await database.fetch("SELECT spent FROM runs WHERE id = %(run)s", {"run": store.run}) == [(0.5,)]


async def test_of_two_rows_that_get_the_same_job_at_once_one_is_counted(database: Database) -> None:
    both = []
    for name in ("first", "second"):
        store = await new_store(database, name)
        record, *_ = await store.admit([row.entry for row in ROWS])
        flying = evolve(record, lipsync_id="ls_1", state=State.SUBMITTED)
        row = StoredRow(run=store.run, row=ROWS[0], record=flying, stage=Stage.FLIGHT, price=2.0, reserved=True)
        both.append(write(database, store.account, [row.saved()]))
    await asyncio.gather(*both)

    assert await database.fetch("SELECT sum(spent) FROM runs") == [(2.0,)]


async def test_tables_of_the_first_version_are_brought_to_this_one_with_what_is_in_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(module, "MIGRATIONS", MIGRATIONS[:1])
        older.setattr(module, "VERSION", 1)
        async with Database(Secret(database_url)) as database:
            await database.migrate(lambda: make_engine_tables(database))
            store = await new_store(database)
            record, *_ = await store.admit([row.entry for row in ROWS])
            row = StoredRow(run=store.run, row=ROWS[0], record=record, stage=Stage.FLIGHT, price=2.0, reserved=True)
            await write(database, store.account, [row.saved()])
    async with Database(Secret(database_url)) as database:
        await database.migrate(lambda: make_engine_tables(database))
        await write(database, store.account, [evolve(row.saved(), price=0.5, reserved=False).saved()])
        assert await database.fetch("SELECT spent FROM runs") == [(0.5,)]
        assert await database.fetch("SELECT counted FROM rows WHERE key = 'plain'") == [(0.5,)]


async def test_rows_are_forgotten_in_a_database_whose_tables_are_all_replicated(database: Database) -> None:
    await database.fetch("CREATE PUBLICATION all_tables FOR ALL TABLES")
    try:
        store = await new_store(database)
        claim = {"run": store.run}
        await database.fetch("INSERT INTO claims SELECT 'claim', %(run)s, 'key', 'row 1'", claim)
        await database.fetch("UPDATE claims SET place = 'row 2'")
        await database.fetch("DELETE FROM runs")
        assert await database.fetch("SELECT claim FROM claims") == []
    finally:
        await database.fetch("DROP PUBLICATION all_tables")


def test_a_row_comes_back_as_it_was_stored_but_for_the_fingerprints_of_its_files() -> None:
    for row in (ROWS[0], ROWS[1]):
        found = row_from_json(row_to_json(row), row.number, row.entry.inputs)
        assert (found.row, found.key, found.place, found.seconds) == (row.row, row.key, row.place, row.seconds)
    record = Record(key="k", inputs="i", job=Lipsync(id="ls_1", status="completed", video_url="https://x/?secret"))
    assert "secret" not in str(record_to_json(record))
    assert record_from_json(record_to_json(record), 4).version == 4


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("video", {"asset": "an id, by the rules of then"}, AssetId),
        ("audio", {"asset": ""}, AssetId),
        ("audio", {"url": "http://example.com/a.mp3"}, str),
        ("key", "a key with spaces", str),
        ("title", "t" * 20_000, str),
        ("mode", "draft", str),
        ("end_time", -1.0, float),
    ],
)
def test_a_row_that_the_rules_of_today_refuse_is_read_as_it_was_stored(name: str, value: object, read: type) -> None:
    stored = row_to_json(ROWS[0])
    stored["fields"][name] = value
    found = row_from_json(stored, 1, "inputs")

    assert isinstance(getattr(found.row, name), read)
    assert row_to_json(found)["fields"][name] == value


def test_a_stored_row_has_the_defaults_of_fields_that_it_does_not_know_and_no_others() -> None:
    stored = row_to_json(ROWS[0])
    del stored["fields"]["mode"]
    stored["fields"]["abandoned"] = True

    assert row_from_json(stored, 1, "inputs").row == evolve(ROWS[0].row, mode="speed")


async def test_opening_the_database_again_keeps_its_tables(database: Database, database_url: str) -> None:
    store = await new_store(database)
    async with Database(Secret(database_url)) as again:
        await again.migrate(lambda: make_engine_tables(again))
        assert len(await PostgresStore(again, store.account, store.run).records(["plain"])) == 1


async def test_a_database_of_a_later_version_is_refused(database: Database) -> None:
    await database.fetch("COMMENT ON SCHEMA heygen IS 'heygen-async 99'")

    with pytest.raises(ClusterError, match="later version"):
        await database.migrate(lambda: make_engine_tables(database))


async def test_tables_of_another_version_of_the_engine_are_replaced(database: Database) -> None:
    await database.fetch("COMMENT ON SCHEMA heygen_engine IS '3.0.0'")
    await database.migrate(lambda: make_engine_tables(database))

    ((comment,),) = await database.fetch("SELECT obj_description('heygen_engine'::regnamespace, 'pg_namespace')")
    assert comment != "3.0.0"
    assert await database.fetch("SELECT * FROM procrastinate_jobs") == []


@pytest.mark.parametrize(("silence", "version"), [(0.0, "3.0.0"), (1e6, procrastinate.__version__)])
async def test_tables_of_another_version_of_the_engine_are_left_to_the_workers_that_use_them(
    database: Database, silence: float, version: str
) -> None:
    account = await join_account(database, "https://api.heygen.com", "tester")
    await database.fetch(
        "INSERT INTO workers (name, account, host, process, pid, beat) "
        "VALUES ('w', %(account)s, 'h', 1, 1, unix_time() - %(silence)s)",
        {"account": account, "silence": silence},
    )
    await database.fetch("COMMENT ON SCHEMA heygen_engine IS '3.0.0'")
    await database.migrate(lambda: make_engine_tables(database))

    assert await database.fetch("SELECT obj_description('heygen_engine'::regnamespace, 'pg_namespace')") == [(version,)]


async def test_whoever_uses_tables_that_are_there_needs_no_right_to_make_a_schema(
    database: Database, database_url: str
) -> None:
    await database.fetch("DROP ROLE IF EXISTS heygen_user")
    await database.fetch("CREATE ROLE heygen_user")
    try:
        await database.fetch("GRANT USAGE ON SCHEMA heygen, heygen_engine TO heygen_user")
        await database.fetch("GRANT ALL ON ALL TABLES IN SCHEMA heygen TO heygen_user")
        async with Database(Secret(f"{database_url}?options=-c%20role%3Dheygen_user")) as one:
            await one.migrate(lambda: make_engine_tables(one))
            assert await one.fetch("SELECT current_user::text, id FROM accounts") == []
    finally:
        await database.fetch("DROP OWNED BY heygen_user")
        await database.fetch("DROP ROLE heygen_user")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_cannot_store_every_text_is_refused_with_what_to_do(
    database_url: str, encoding: str
) -> None:
    name = f"heygen_{encoding.lower()}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        connection.execute(f"CREATE DATABASE {name} {options}".encode())
        try:
            with pytest.raises(ClusterError, match=f"{encoding}.*createdb --encoding=UTF8"):
                async with Database(Secret(f"{database_url.rpartition('/')[0]}/{name}")):
                    pass
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def test_the_encoding_of_the_environment_is_not_used(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    async with Database(Secret(database_url)) as one:
        await one.migrate(lambda: make_engine_tables(one))
        assert await one.fetch("SELECT %(text)s", {"text": "\u540d"}) == [("\u540d",)]


async def test_many_that_open_a_new_database_at_once_make_its_tables_once(database_url: str) -> None:
    async def open_it() -> None:
        async with Database(Secret(database_url)) as one:
            await one.migrate(lambda: make_engine_tables(one))

    await asyncio.gather(*(open_it() for _ in range(4)))


@pytest.mark.parametrize(
    "url", ["postgres//user:pass-word@host/db", "postgresql://user:pass-word@[host/db", "x y=pass-word"]
)
def test_the_password_of_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="the database URL cannot be read") as caught:
        Cluster(url)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = [f"{frame.line} {frame.locals}" for frame in trace.stack if frame.filename != __file__]
    assert "pass-word" not in f"{shown} {list(trace.format_exception_only())}"
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_the_password_of_a_database_that_refuses_it_is_not_shown(database_url: str) -> None:
    with pytest.raises(DatabaseLost) as caught:
        async with Database(Secret(database_url.replace("secret-word", "pass-word"))):
            pass
    assert "pass-word" not in repr(caught.value)


@pytest.mark.parametrize("error", [None, psycopg.OperationalError("gone")], ids=["result", "error"])
async def test_a_cancellation_that_the_driver_loses_is_raised_all_the_same(error: Exception | None) -> None:
    async def lose_it() -> None:
        with translated():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if error is not None:
                raise error

    task = asyncio.create_task(lose_it())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_timeout_is_still_one_where_the_driver_loses_a_cancellation() -> None:
    with pytest.raises(TimeoutError):  # noqa: PT012 the timeout is what is tested
        async with asyncio.timeout(0.01):
            with translated(), contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO files SELECT string_agg(md5(n::text), ''), '', '' FROM generate_series(1, 500) AS n",
        f"SELECT {', '.join(['1'] * 2000)}",
    ],
    ids=["index", "columns"],
)
async def test_what_is_too_large_for_the_database_is_refused_and_not_tried_again(
    database: Database, statement: str
) -> None:
    with pytest.raises(ClusterError, match="refused a statement") as caught:
        await database.fetch(statement)
    assert not isinstance(caught.value, DatabaseLost)


def test_a_lost_database_may_be_there_again() -> None:
    assert DatabaseLost("x").is_transient
    assert not ClusterError("x").is_transient
    assert not issubclass(DatabaseLost, LipsyncFailed)


async def test_a_cancelled_enqueue_is_cancelled_though_the_database_is_lost() -> None:
    has_begun = asyncio.Event()

    class Lost:
        async def fetch(self, *_: object) -> list[tuple[object, ...]]:
            if has_begun.is_set():
                raise DatabaseLost("the connection broke")
            return []

    async def slices() -> AsyncGenerator[list[SourceRow], None]:
        has_begun.set()
        await asyncio.sleep(60)
        yield []

    enqueue = Enqueue(Lost(), run=1, name="a", options=RunOptions(rates=RATES), now=0.0)
    task = asyncio.create_task(enqueue.check_and_add(slices()))
    await has_begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
