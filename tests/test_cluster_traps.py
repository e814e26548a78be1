"""What a cluster could get wrong without an error: seats that stay idle, requests made twice, slow handovers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from attrs import frozen
from bulk_stage import HASTY, QUICK
from cluster_harness import ORIGIN, ClusterApi, ClusterHarness, open_harness
from test_bulk_executors import Killed
from test_cluster import AUDIO, EAGER, Stage, rows, staged, url

from heygen_async import HeyGenSession
from heygen_async.bulk.cluster import Cluster, delivery, scheduler_store, scheduling, worker
from heygen_async.bulk.cluster.accounts import AccountStore, LeaseLost
from heygen_async.bulk.cluster.database import Database
from heygen_async.bulk.cluster.rows import Stage as At
from heygen_async.bulk.cluster.rows import WorkKind
from heygen_async.bulk.cluster.scheduler import AHEAD, Learnt
from heygen_async.bulk.cluster.scheduler_store import AccountSnapshot, SchedulerStore
from heygen_async.models import DubRow, Lipsync, LipsyncStatus, Source
from heygen_async.policies import PollPolicy
from heygen_async.sandbox import SAMPLE_AUDIO
from heygen_async.sandbox.faults import stall

AN_HOUR = 3600.0


async def test_files_are_uploaded_while_all_downloads_of_a_worker_are_slow(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "new.mp3").write_bytes(SAMPLE_AUDIO.read_bytes())
    async with staged(database_url, tmp_path, latency={"GET /files/*": AN_HOUR}) as stage:
        await stage.enqueue(rows(1))
        async with stage.worker(uploads=1, downloads=1):
            await _until_held(stage, At.DOWNLOAD)
            await stage.enqueue([*rows(1), DubRow(url("local"), tmp_path / "new.mp3", key="local")])
            await stage.until(lambda status: status.runs[0].rows == {"download": 2})

    assert stage.jobs() == {"row-1": 1, "local": 1}


async def _until_held(stage: Stage, at: At) -> None:
    async with asyncio.timeout(50):
        while not await stage.cluster._database.fetch(  # noqa: ASYNC110 nothing sets an event
            "SELECT 1 FROM rows WHERE stage = %(stage)s AND holder IS NOT NULL", {"stage": at}
        ):
            await asyncio.sleep(0.02)


async def test_work_is_begun_when_it_is_notified_and_not_at_the_next_look(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (worker, "BEAT_SECONDS"),
        (delivery, "_POLL"),
        (scheduling, "IDLE_SECONDS"),
        (scheduling, "REDELIVERY_SECONDS"),
    ):
        monkeypatch.setattr(module, name, AN_HOUR)
    (tmp_path / "new.mp3").write_bytes(SAMPLE_AUDIO.read_bytes())
    async with staged(database_url, tmp_path) as stage, stage.worker():
        await stage.until(lambda status: any(one.scheduler for one in status.accounts))
        await stage.enqueue([*rows(15), DubRow(url("local"), tmp_path / "new.mp3", key="local")])
        status = await stage.until(lambda status: status.is_complete)

    assert status.runs[0].rows == {"done": 16}


async def test_each_job_is_fetched_once_by_whoever_downloads_it(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path) as stage:
        await stage.enqueue(rows(12))
        async with stage.worker(), stage.worker():
            await stage.until(lambda status: status.is_complete)

    assert [one.route for one in stage.sandbox.requests].count("GET /v3/lipsyncs/{lipsync_id}") == 12


async def test_one_of_all_workers_asks_for_statuses(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path) as stage:
        await stage.enqueue(rows(12))
        async with _counted(stage) as first:
            await stage.until(lambda status: any(one.scheduler for one in status.accounts))
            async with _counted(stage) as second:
                await stage.until(lambda status: status.is_complete)

    asked = sum("statuses" in request.route for request in stage.sandbox.requests)
    assert (first[0], second[0]) == (asked, 0)


@pytest.mark.parametrize("with_output", [True, False])
async def test_a_job_that_cannot_be_fetched_holds_up_no_ends_of_others(
    database_url: str, tmp_path: Path, with_output: bool
) -> None:
    async with staged(database_url, tmp_path, manual=True) as stage:
        failing = DubRow(url("bad", "fail=No+face"), AUDIO, key="bad")
        await stage.enqueue([failing, *rows(3)], output_dir=tmp_path / "out" if with_output else None)
        async with stage.worker(downloads=0):
            await stage.until(lambda status: status.runs[0].rows == {"flight": 4})
            stage.sandbox.faults = [stall("GET /v3/lipsyncs/{lipsync_id}", times=1)]
            await stage.sandbox.advance(100.0)
            await stage.until(lambda status: status.runs[0].rows["flight"] == 1)


@asynccontextmanager
async def _counted(stage: Stage) -> AsyncIterator[list[int]]:
    """Start a worker; yields how often it asks for statuses."""
    count = [0]

    async def note(_session: object, _context: object, request: aiohttp.TraceRequestStartParams) -> None:
        count[0] += "statuses" in request.url.path

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as http,
        HeyGenSession(
            stage.sandbox.api_key, base_url=stage.sandbox.url, retry=QUICK, polling=EAGER, http=http
        ) as heygen,
        Cluster(stage.url) as cluster,
    ):
        task = asyncio.create_task(cluster.work(heygen, delays=HASTY))
        try:
            yield count
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_the_limit_of_an_account_is_learnt_with_few_refusals(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path, account_limit=10, speed=50) as stage:
        await stage.enqueue(rows(60))
        async with stage.worker(), stage.worker():
            await stage.until(lambda status: status.is_complete)

    assert sum(one.status == 429 for one in stage.sandbox.requests) <= 8
    assert stage.jobs().total() == 60


@frozen
class DiesAfter:
    """A database whose client dies after a statement."""

    database: Database
    statement: str
    was_reached: list[bool]

    async def fetch(self, statement: str, values: object = None) -> object:
        found = await self.database.fetch(statement, values)
        if self.statement in str(statement):
            self.was_reached.append(True)
            raise Killed
        return found


async def test_a_file_whose_upload_was_answered_is_not_uploaded_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[object] = []
    upload = ClusterApi.upload

    async def counted(self: ClusterApi, source: Source, sha256: str) -> object:
        uploads.append(source)
        return await upload(self, source, sha256)

    monkeypatch.setattr(ClusterApi, "upload", counted)
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        await one.schedule()
        alive, one.database = one.database, DiesAfter(one.database, "INSERT INTO assets", [])
        with pytest.raises(BaseExceptionGroup):
            await one.work("killed")
        assert one.database.was_reached
        one.database = alive
        await one.complete()
        assert await one.stages() == {"done": 3}
    assert len(uploads) == 1


# What a refusal teaches


@frozen
class DiesAt:
    """A database whose client dies around the statement that saves what was learnt."""

    database: Database
    when: str

    async def fetch(self, statement: str, values: object = None) -> object:
        is_it = "SET limiter" in statement
        if is_it and self.when == "before":
            raise Killed
        found = await self.database.fetch(statement, values)
        if is_it and self.when == "after":
            raise Killed
        return found


async def _fly(one: ClusterHarness) -> None:
    """Have a job run that has just been created."""
    await one.database.fetch(
        "UPDATE rows SET stage = 'flight', lipsync_id = 'ls_1', asked_at = unix_time() WHERE key = 'plain'"
    )


async def _refuse(one: ClusterHarness) -> None:
    """Have one job run, and the create of another row refused."""
    await _fly(one)
    await one.database.fetch("UPDATE rows SET answer = 'refused', retry_after = 30 WHERE key = 'fails'")


async def _learnt(one: ClusterHarness) -> tuple[int, int]:
    """Return how many refusals were learnt, and how many are to be learnt."""
    ((stored, waiting),) = await one.database.fetch(
        "SELECT limiter, (SELECT count(*) FROM rows WHERE answer IS NOT NULL) FROM accounts"
    )
    return Learnt.from_json(stored).limiter.refusals, waiting


@pytest.mark.parametrize(("when", "expected"), [("before", (0, 1)), ("after", (1, 0))])
async def test_a_refusal_teaches_once_though_the_scheduler_dies_before_or_after_it_saves_that(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, expected: tuple[int, int]
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        await _refuse(one)
        first = await one.scheduler()
        first.store = SchedulerStore(DiesAt(one.database, when), first.store.lease, ORIGIN)
        await first._look_around()
        with pytest.raises(Killed):
            await first._move()
        assert await _learnt(one) == expected
        second = await one.scheduler()
        await second._look_around()
        await second._move()
        await second._move()
        assert await _learnt(one) == (1, 0)


async def test_a_scheduler_that_lost_its_lease_saves_nothing_of_what_it_learns(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        first = await one.scheduler()
        await first._look_around()
        await _refuse(one)
        await one.scheduler()
        with pytest.raises(LeaseLost):
            await first._move()
        assert await _learnt(one) == (0, 1)


# How often jobs are looked at


async def _nothing(_: ClusterHarness) -> None:
    pass


async def _limited(one: ClusterHarness) -> None:
    await one.database.fetch("""UPDATE runs SET options = options || '{"max_in_flight": 1}'""")


async def _uploading(one: ClusterHarness) -> None:
    await one.database.fetch("UPDATE rows SET stage = 'prepare', deferred = unix_time() WHERE stage = 'ready'")


async def _halted(one: ClusterHarness) -> None:
    await one.database.fetch("UPDATE accounts SET halted = 'no credit'")


async def _alone(one: ClusterHarness) -> None:
    await one.database.fetch("UPDATE rows SET stage = 'done' WHERE stage <> 'flight'")


async def _running(lipsync_id: str) -> Lipsync:
    return Lipsync(id=lipsync_id, status=LipsyncStatus.RUNNING)


@pytest.mark.parametrize(
    ("situation", "is_often"),
    [(_nothing, True), (_limited, True), (_uploading, True), (_halted, False), (_alone, False)],
    ids=["rows wait", "for a seat of their run", "for their files", "none can be created", "none wait"],
)
async def test_jobs_are_looked_at_often_while_rows_wait_for_their_seats(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    situation: Callable[[ClusterHarness], Awaitable[None]],
    is_often: bool,
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        await _fly(one)
        await situation(one)
        monkeypatch.setattr(type(one.api), "get", lambda _, lipsync_id: _running(lipsync_id))
        scheduler = await one.scheduler()
        await scheduler._look_around()
        await scheduler._move()
        await _look(scheduler)
        assert _pause(scheduler) == is_often


async def test_a_new_scheduler_looks_often_until_it_knows_whether_rows_wait(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        await _fly(one)
        monkeypatch.setattr(type(one.api), "get", lambda _, lipsync_id: _running(lipsync_id))
        scheduler = await one.scheduler()
        await scheduler._look_around()
        await _look(scheduler)
        assert _pause(scheduler)


async def _look(scheduler: scheduling.Scheduler) -> None:
    taken = scheduler._looks.take(scheduler.clock())
    assert len(taken) == 1
    await scheduler._look(taken)


def _pause(scheduler: scheduling.Scheduler) -> bool:
    """Return whether the next look comes sooner than a policy of its own would have it."""
    (look,) = scheduler._looks._jobs.values()
    return look.due - scheduler.clock() < PollPolicy().fastest / 2


# When a worker counts as gone


@pytest.mark.parametrize(
    ("silence", "is_connected", "is_gone"),
    [
        (0.4 * scheduler_store.GONE_SECONDS, False, False),
        (1.1 * scheduler_store.GONE_SECONDS, False, True),
        (0.6 * scheduler_store.SILENT_SECONDS, True, False),
        (1.1 * scheduler_store.SILENT_SECONDS, True, True),
    ],
    ids=["connecting again", "killed", "busy", "frozen"],
)
async def test_a_worker_is_gone_once_it_is_silent_and_sooner_without_a_connection(  # noqa: PLR0917 fixtures
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    silence: float,
    is_connected: bool,
    is_gone: bool,
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        scheduler = await one.scheduler()
        await scheduler._look_around()
        (ticket, *_) = (row.ticket for row in await scheduler.store.ready([1], 1))
        assert await AccountStore(one.database, one.account).claim(ticket, "other") is not None
        async with await one.database.connect() as connection:
            await connection.execute(
                "INSERT INTO workers (name, account, host, process, pid, beat) "
                "VALUES ('other', %(account)s, '', 0, %(pid)s, unix_time() - %(silence)s)",
                {
                    "account": one.account,
                    "pid": connection.info.backend_pid if is_connected else 0,
                    "silence": silence,
                },
            )
            assert await scheduler.store.dead_workers() == ({"other"} if is_gone else set())


async def test_the_worker_that_is_the_scheduler_is_not_gone_after_the_database_was_away(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own heartbeat is as old as that of the others, and it is certainly there."""
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        scheduler = await one.scheduler()
        await scheduler._look_around()
        first, second, *_ = (row.ticket for row in await scheduler.store.ready([1], 2))
        accounts = AccountStore(one.database, one.account)
        assert await accounts.claim(first, "scheduler") is not None
        assert await accounts.claim(second, "other") is not None

        assert await scheduler.store.dead_workers() == {"other"}


async def test_a_run_that_is_removed_while_the_scheduler_looks_at_it_does_not_end_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(database_url, tmp_path, monkeypatch) as one:
        await one.complete()
        scheduler, snapshot = await one.scheduler(), SchedulerStore.snapshot
        await scheduler._look_around()

        async def then_remove(self: SchedulerStore, runs: Collection[int]) -> AccountSnapshot:
            found = await snapshot(self, runs)
            await one.cluster.prune(older_than=0.0)
            await scheduler._look_around()
            return found

        monkeypatch.setattr(SchedulerStore, "snapshot", then_remove)
        await scheduler._move()
        assert (await one.cluster.status()).runs == []


async def test_rows_that_wait_for_a_seat_of_their_run_hold_up_no_uploads_of_another(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    local = [DubRow(url(number), source, key=f"local-{number}") for number in range(AHEAD + 5)]
    async with open_harness(database_url, tmp_path, monkeypatch, rows(AHEAD + 5)) as one:
        options = {"output_dir": tmp_path / "out", "base_url": ORIGIN}
        await one.cluster.enqueue(rows(AHEAD + 5), max_in_flight=1, **options)
        await one.cluster.enqueue(local, run="local", **options)
        for _ in range(2):
            await one.schedule()
        uploads = [ticket.key for kind, ticket in one.engine.waiting if kind is WorkKind.UPLOAD]
    assert uploads == [f"local-{number}" for number in range(AHEAD)]
