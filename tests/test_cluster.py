"""Rows on workers of a cluster, in this process, against the sandbox and a real database."""

import asyncio
import csv
import errno
import logging
import os
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import procrastinate
import psycopg
import pytest
from attrs import evolve, frozen
from bulk_stage import HASTY, QUICK
from psycopg import sql
from psycopg.types.json import Jsonb
from until import until

import heygen_async.bulk.cluster.cluster as facade
from heygen_async import (
    AuthenticationError,
    HeyGenSession,
    NotFound,
    PollPolicy,
    ServerError,
    TransportError,
    UnexpectedResponse,
)
from heygen_async.bulk import report
from heygen_async.bulk.checks import BadRows
from heygen_async.bulk.cluster import Cluster, ClusterError, ClusterStatus, output_folders, scheduler_store
from heygen_async.bulk.cluster.accounts import AccountStore
from heygen_async.bulk.cluster.database import Database, DatabaseLost, LockedConnection
from heygen_async.bulk.cluster.enqueue import Enqueue, locked_run
from heygen_async.bulk.cluster.rows import RunOptions
from heygen_async.bulk.cluster.scheduling import Scheduler, Tuning
from heygen_async.bulk.manifest import Manifest
from heygen_async.models import AssetId, DubRow
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Fault, Sandbox
from heygen_async.sandbox.faults import Reply, error, html, odd_fields, rate_limited, reset, server_error, stall

AUDIO = "https://example.com/new.mp3"
CREATE = "POST /v3/lipsyncs"
ME = "GET /v3/users/me"
EAGER = PollPolicy(fastest=0.02, slowest=0.05)


def url(name: object, query: str = "") -> str:
    return f"https://sandbox.invalid/{name}.mp4{'?' + query if query else ''}"


def rows(count: int, query: str = "") -> list[DubRow]:
    return [DubRow(url(number, query), AUDIO, key=f"row-{number}") for number in range(1, count + 1)]


@frozen
class Stage:
    """A sandbox, a cluster, and a folder."""

    sandbox: Sandbox
    cluster: Cluster
    url: str
    folder: Path

    async def enqueue(self, given: Sequence[DubRow], **options: object) -> object:
        options = {"output_dir": self.folder / "out", "base_url": self.sandbox.url, **options}
        return await self.cluster.enqueue(given, **options)

    @asynccontextmanager
    async def worker(
        self, *, key: str | None = None, base_url: str | None = None, **options: object
    ) -> AsyncIterator[asyncio.Task[None]]:
        async with (
            Cluster(self.url) as cluster,
            HeyGenSession(
                key or self.sandbox.api_key, base_url=base_url or self.sandbox.url, retry=QUICK, polling=EAGER
            ) as heygen,
        ):
            task = asyncio.create_task(cluster.work(heygen, delays=HASTY, **options))
            try:
                yield task
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def until(self, condition: Callable[[ClusterStatus], bool]) -> ClusterStatus:
        async with asyncio.timeout(50):
            while not condition(found := await self.cluster.status()):  # noqa: ASYNC110 nothing sets an event
                await asyncio.sleep(0.02)
        return found

    async def complete(self) -> ClusterStatus:
        async with self.worker():
            return await self.until(lambda status: status.is_complete)

    def jobs(self) -> Counter[str]:
        return Counter(str(job.body["callback_id"]).rpartition(".")[0] for job in self.sandbox.jobs)

    def files(self) -> set[str]:
        return {path.name for path in (self.folder / "out").iterdir() if not path.name.startswith(".")}

    async def report(self, **chosen: str) -> list[dict[str, str]]:
        path = self.folder / "report.csv"
        await self.cluster.report(path, **chosen)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def everything(self) -> str:
        """Return all that is stored in the database, as text."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            tables = connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'heygen%'"
            ).fetchall()
            found = [connection.execute(f"SELECT t::text FROM {name} t").fetchall() for (name,) in tables]
        return str(found)


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(database_url, tmp_path) as one:
        yield one


@asynccontextmanager
async def staged(database_url: str, folder: Path, **settings: object) -> AsyncIterator[Stage]:
    settings = {"speed": 200, "retry_after": 0, "balance": 1e6, **settings}
    async with Sandbox(**settings) as sandbox, Cluster(database_url) as cluster:
        yield Stage(sandbox, cluster, database_url, folder)


async def test_rows_are_dubbed_by_two_workers_each_once(stage: Stage) -> None:
    await stage.enqueue(rows(30))
    async with stage.worker(), stage.worker():
        status = await stage.until(lambda status: status.is_complete)

    assert status.runs[0].rows == {"done": 30}
    assert stage.jobs() == Counter({f"row-{number}": 1 for number in range(1, 31)})
    assert stage.files() == {f"row-{number}.mp4" for number in range(1, 31)}
    assert (stage.folder / "out" / "row-7.mp4").read_bytes() == SAMPLE_VIDEO.read_bytes()


async def test_the_same_rows_again_add_nothing(stage: Stage) -> None:
    first = await stage.enqueue(rows(5))
    again = await stage.enqueue(rows(5))
    await stage.complete()
    later = await stage.enqueue(rows(5))
    await stage.complete()

    assert [(one.added, one.changed) for one in (first, again, later)] == [(5, 0), (0, 0), (0, 0)]
    assert sum(stage.jobs().values()) == 5


async def test_more_rows_are_added_while_workers_run(stage: Stage) -> None:
    await stage.enqueue(rows(2))
    async with stage.worker():
        await stage.until(lambda status: status.is_complete)
        found = await stage.enqueue(rows(4))
        await stage.until(lambda status: status.is_complete and status.runs[0].total == 4)

    assert (found.added, sum(stage.jobs().values())) == (2, 4)


async def test_a_row_whose_file_was_removed_is_downloaded_again_without_another_job(stage: Stage) -> None:
    await stage.enqueue(rows(2))
    await stage.complete()
    (stage.folder / "out" / "row-1.mp4").unlink()
    found = await stage.enqueue(rows(2))
    await stage.complete()

    assert (found.added, found.changed) == (0, 1)
    assert stage.files() == {"row-1.mp4", "row-2.mp4"}
    assert sum(stage.jobs().values()) == 2


async def test_local_files_are_uploaded_once_and_compared_by_content(stage: Stage) -> None:
    source = stage.folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    given = [DubRow(url(number), source, key=f"row-{number}") for number in range(3)]
    await stage.enqueue(given)
    await stage.complete()

    assert stage.files() == {"row-0.mp4", "row-1.mp4", "row-2.mp4"}
    assert len({job.body["audio"]["asset_id"] for job in stage.sandbox.jobs}) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no path that is long enough")
async def test_a_local_file_has_a_path_as_long_as_the_system_takes(stage: Stage) -> None:
    folder = stage.folder.joinpath(*(secrets.token_hex(120) for _ in range(12)))  # random, or it would be compressed
    folder.mkdir(parents=True)
    source = folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    await stage.enqueue([DubRow(url(1), source, key="long")])
    assert (await stage.complete()).runs[0].rows == {"done": 1}


async def test_a_file_that_changed_since_it_was_enqueued_fails_its_row_and_creates_no_job(stage: Stage) -> None:
    source = stage.folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    await stage.enqueue([DubRow(url(1), source, key="row-1")])
    source.write_bytes(SAMPLE_AUDIO.read_bytes() + b"more")
    status = await stage.complete()

    assert status.runs[0].rows == {"failed": 1}
    assert "changed" in (await stage.report())[0]["error"]
    assert stage.jobs() == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (DubRow(url(1, "X-Amz-Signature=abc&X-Amz-Expires=60"), AUDIO, key="signed"), "signed link"),
        (DubRow("https://me:abc@example.com/v.mp4", AUDIO, key="user"), "user name or a password"),
        (DubRow(b"\0" * 10, AUDIO, key="bytes"), "only this process has it"),
        (DubRow(url(1), AUDIO, key="hook", callback_url="https://example.com/?X-Amz-Signature=abc"), "would be stored"),
        (DubRow(url(1), AUDIO, key="hook", callback_url="https://me:abc@example.com/"), "would be stored"),
        (DubRow(url(1), Path("/nowhere/new.mp3"), key="missing"), "cannot be read"),
    ],
    ids=["signed", "user", "bytes", "callback", "callback user", "missing"],
)
async def test_a_source_that_not_every_worker_could_reach_is_refused_and_nothing_is_enqueued(
    stage: Stage, row: DubRow, message: str
) -> None:
    with pytest.raises(BadRows, match=message) as caught:
        await stage.enqueue([*rows(2), row])

    assert "abc" not in str(caught.value)
    assert (await stage.cluster.status()).runs == []
    assert (await stage.enqueue(rows(2))).added == 2


async def test_a_path_that_cannot_be_stored_is_refused_before_anything_is_enqueued(stage: Stage) -> None:
    folder = stage.folder / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    source = folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())

    with pytest.raises(BadRows, match="row 1, audio: its path is not valid UTF-8"):
        await stage.enqueue([DubRow(url(1), source, key="row")])
    with pytest.raises(ValueError, match="output_dir is not valid UTF-8"):
        await stage.enqueue(rows(1), output_dir=folder / "out")
    assert (await stage.cluster.status()).runs == []


@pytest.mark.parametrize(
    ("name", "error"), [(b"run", TypeError), (5, TypeError), ("", ValueError), ("a\0", ValueError)]
)
async def test_the_name_of_a_run_is_one_line_of_text(stage: Stage, name: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="run must be"):
        await stage.enqueue(rows(1), run=name)
    assert (await stage.cluster.status()).runs == []


async def test_rows_that_were_refused_are_enqueued_once_they_are_right_with_another_folder(stage: Stage) -> None:
    bad = DubRow(url(3), Path("/nowhere/new.mp3"), key="bad")
    with pytest.raises(BadRows):
        await stage.enqueue([*rows(2), bad], output_dir=stage.folder / "wrong" / "out")
    assert not (stage.folder / "wrong").exists()

    assert (await stage.enqueue(rows(2), output_dir=stage.folder / "out")).added == 2
    assert (await stage.complete()).runs[0].rows == {"done": 2}


async def test_a_folder_that_cannot_be_written_to_leaves_no_run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(folder: str) -> None:
        raise OSError(errno.ENOSPC, "the disk is full", folder)

    with monkeypatch.context() as patched:
        patched.setattr(output_folders, "mark_shared", full)
        with pytest.raises(OSError, match="disk is full"):
            await stage.enqueue(rows(2))
    assert (await stage.cluster.status()).runs == []

    assert (await stage.enqueue(rows(2))).added == 2


async def test_an_enqueue_that_is_refused_leaves_a_run_with_rows_as_it_was(stage: Stage) -> None:
    failing = rows(1, "fail=No+face")
    await stage.enqueue(failing)
    assert (await stage.complete()).runs[0].rows == {"failed": 1}

    # More than one slice of rows: the first is right, and gives the failed row another attempt.
    changed = [evolve(row, title="again") for row in failing]
    with pytest.raises(BadRows):
        await stage.enqueue([*changed, *rows(150)[1:], DubRow(url(3), Path("/nowhere/new.mp3"), key="bad")])
    assert (await stage.cluster.status()).runs[0].rows == {"failed": 1}


async def test_a_failed_row_that_has_changed_is_left_as_it_was_by_an_enqueue_that_does_not_come_to_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = DubRow(url(1, "fail=No+face"), AUDIO, key="row")
    await stage.enqueue([failing])
    assert (await stage.complete()).runs[0].rows == {"failed": 1}

    again = [evolve(failing, title="again"), *rows(2)]
    await _dies_before_the_release(stage, again, monkeypatch)
    assert (await stage.cluster.status()).runs[0].rows == {"failed": 1}
    assert (await stage.enqueue(again)).changed == 1
    assert (await stage.complete()).runs[0].rows == {"failed": 1, "done": 2}
    assert stage.jobs() == {"row": 2, "row-1": 1, "row-2": 1}


async def test_a_failed_row_that_has_changed_is_left_as_it_was_where_another_run_takes_an_output_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = DubRow(url(1, "fail=No+face"), AUDIO, key="row")
    await stage.enqueue([failing])
    await stage.complete()
    fetch = LockedConnection.fetch

    async def after_another(self: LockedConnection, statement: str, values: object = None) -> object:
        if "INSERT INTO claims" in statement:
            monkeypatch.undo()
            await stage.enqueue([DubRow(url(2), AUDIO, key="other", output="same.mp4")], run="other")
        return await fetch(self, statement, values)

    monkeypatch.setattr(LockedConnection, "fetch", after_another)
    again = evolve(failing, title="again", output="again.mp4")
    with pytest.raises(BadRows):
        await stage.enqueue([again, DubRow(url(3), AUDIO, key="late", output="same.mp4")])

    assert (await stage.cluster.status()).runs[0].rows == {"failed": 1}
    assert (await stage.enqueue([failing, DubRow(url(3), AUDIO, key="late", output="again.mp4")])).added == 1


async def test_rows_that_have_changed_are_stored_a_slice_at_a_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rows(120)
    await stage.enqueue(given)
    await stage.complete()
    for name in stage.files():
        (stage.folder / "out" / name).unlink()
    fetch, sizes = LockedConnection.fetch, []

    async def measured(self: LockedConnection, statement: str, values: Mapping[str, object] | None = None) -> object:
        sizes.extend(len(one.obj) for one in (values or {}).values() if isinstance(one, Jsonb))
        return await fetch(self, statement, values)

    monkeypatch.setattr(LockedConnection, "fetch", measured)
    assert (await stage.enqueue(given)).changed == 120
    assert max(sizes) < 120


async def test_a_skipped_row_that_has_changed_is_changed_and_released(stage: Stage) -> None:
    (row,) = [evolve(row, end_time=10.0) for row in rows(1)]
    await stage.enqueue([row], budget=0.1)
    assert (await stage.complete()).runs[0].rows == {"skipped": 1}

    assert (await stage.enqueue([evolve(row, end_time=20.0)], budget=5.0)).changed == 1
    assert (await stage.complete()).runs[0].rows == {"done": 1}
    assert [job.body["end_time"] for job in stage.sandbox.jobs] == [20.0]


async def test_a_run_that_an_enqueue_left_when_it_died_takes_another_folder(stage: Stage) -> None:
    async with locked_run(stage.cluster._database, stage.sandbox.url, "default", RunOptions(output_dir="/nowhere")):
        pass
    assert (await stage.cluster.status()).runs[0].rows == {}

    assert (await stage.enqueue(rows(2))).added == 2
    assert (await stage.complete()).runs[0].rows == {"done": 2}


async def test_a_run_that_is_removed_before_it_is_locked_is_made_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, locked, removed = stage.cluster._database, Database.locked, []

    @asynccontextmanager
    async def late(self: Database, run: int) -> AsyncIterator[LockedConnection | None]:
        if not removed:
            removed.append(run)
            await database.fetch("DELETE FROM runs WHERE id = %(run)s", {"run": run})
        async with locked(self, run) as found:
            yield found

    monkeypatch.setattr(Database, "locked", late)
    assert (await stage.enqueue(rows(2))).added == 2
    assert (await stage.complete()).runs[0].rows == {"done": 2}


async def test_every_problem_of_a_manifest_is_reported_and_nothing_is_enqueued(stage: Stage) -> None:
    manifest = stage.folder / "episodes.csv"
    manifest.write_text(
        f"video,audio,key,mode\n{url(1)},{AUDIO},a,speed\n{url(2)},{AUDIO},b,fast\n{url(3)},none.mp3,c,speed\n"
    )
    with pytest.raises(BadRows) as caught:
        await stage.enqueue(Manifest(manifest))

    assert [problem.place for problem in caught.value.problems] == ["line 3, mode", "line 4, audio"]
    assert (await stage.cluster.status()).runs == []


async def test_a_source_on_no_public_host_is_refused_before_anything_is_enqueued(stage: Stage) -> None:
    with pytest.raises(BadRows, match=r"row 2, video: must be on a public host"):
        await stage.enqueue([*rows(1), evolve(rows(2)[1], video="https://10.0.0.7/v.mp4")])
    assert (await stage.cluster.status()).runs == []


async def test_two_rows_that_would_write_one_file_are_refused_in_two_runs_too(stage: Stage) -> None:
    one = evolve(rows(1)[0], output="same.mp4")
    with pytest.raises(BadRows, match="duplicate"):
        await stage.enqueue([one, evolve(one, key="other")])
    await stage.enqueue([one], run="first")
    with pytest.raises(BadRows, match="duplicate of the row row-1 of the run first: the same output"):
        await stage.enqueue([evolve(one, key="other")], run="second")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("x.mp4", "x.mp4/y.mp4", "a folder of its output is where"),
        ("x.mp4/deep/y.mp4", "x.mp4", "its output is where"),
        ("x.mp4.part/y.mp4", "x.mp4", "its output is where"),
    ],
)
async def test_an_output_that_is_a_folder_of_another_is_refused_in_one_run_and_in_two(
    stage: Stage, first: str, second: str, message: str
) -> None:
    one, two = (evolve(row, output=output) for row, output in zip(rows(2), (first, second), strict=True))
    with pytest.raises(BadRows, match=f"row 2: {message} row 1 "):
        await stage.enqueue([one, two])
    await stage.enqueue([one], run="first")
    with pytest.raises(BadRows, match=f"row 1: {message} the row row-1 of the run first "):
        await stage.enqueue([two], run="second")
    await stage.enqueue([evolve(two, output="x.mp4/other.mp4" if "/" in first else "other.mp4")], run="third")


async def test_several_runs_share_a_database_and_the_limit_of_their_account(stage: Stage) -> None:
    await stage.enqueue(rows(15), run="first")
    other = [evolve(row, key=f"other-{row.key}", output=f"other-{row.key}.mp4") for row in rows(15)]
    await stage.enqueue(other, run="second")
    status = await stage.complete()

    assert {run.name: run.rows for run in status.runs} == {"first": {"done": 15}, "second": {"done": 15}}
    assert sum(stage.jobs().values()) == 30
    assert len(status.accounts) == 1
    with pytest.raises(ClusterError, match="several runs"):
        await stage.cluster.report(stage.folder / "r.csv")
    await stage.cluster.report(stage.folder / "r.csv", run="second")


async def test_a_job_that_rows_of_two_runs_share_is_counted_once(stage: Stage) -> None:
    given = [evolve(row, end_time=60.0) for row in rows(3, "duration=30")]
    await stage.enqueue(given, run="first", output_dir=stage.folder / "a")
    await stage.enqueue(given, run="second", output_dir=stage.folder / "b")
    status = await stage.complete()

    assert [run.rows for run in status.runs] == [{"done": 3}, {"done": 3}]
    assert len(stage.sandbox.jobs) == 3
    assert sum(run.spent for run in status.runs) == pytest.approx(3 * 30 * 0.0333)
    assert sum(run.reserved for run in status.runs) == 0.0


async def test_a_run_keeps_its_output_folder(stage: Stage) -> None:
    await stage.enqueue(rows(1))
    with pytest.raises(ClusterError, match="writes to"):
        await stage.enqueue(rows(1), output_dir=stage.folder / "elsewhere")


async def test_workers_of_another_api_leave_a_run_alone(stage: Stage) -> None:
    await stage.enqueue(rows(2))
    async with Sandbox(speed=1000) as other:
        await stage.enqueue([DubRow(url("other"), AUDIO, key="other")], base_url=other.url, output_dir=stage.folder)
        async with stage.worker(base_url=other.url):
            status = await stage.until(lambda status: any(run.rows == {"done": 1} for run in status.runs))
        assert {"ready": 2} in [run.rows for run in status.runs]
        assert len(other.jobs) == 1
    assert (await stage.complete()).runs[0].rows == {"done": 2}


async def test_no_key_and_no_signed_link_is_in_the_database(stage: Stage) -> None:
    source = stage.folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    await stage.enqueue(
        [
            *rows(3),
            DubRow(url("fails", "fail=No+face"), source, key="fails"),
            DubRow(url("x"), AssetId("asset_1"), key="asset"),
        ]
    )
    await stage.complete()
    found = stage.everything()

    assert "row-1" in found
    assert stage.sandbox.api_key not in found
    assert "X-Amz-Signature" not in found
    assert "signature=" not in found.lower()


async def test_failed_rows_are_tried_again_only_on_request(stage: Stage) -> None:
    await stage.enqueue([*rows(1), DubRow(url("bad", "fail=No+face"), AUDIO, key="bad")])
    status = await stage.complete()
    assert status.runs[0].rows == {"done": 1, "failed": 1}
    assert (await stage.complete()).runs[0].rows == {"done": 1, "failed": 1}

    assert await stage.cluster.retry_failed() == 1
    assert (await stage.complete()).runs[0].rows == {"done": 1, "failed": 1}
    assert stage.jobs() == {"row-1": 1, "bad": 2}


async def _delete_the_job_in_flight(stage: Stage, *, number: int = 1) -> None:
    async with (
        stage.worker(),
        HeyGenSession(stage.sandbox.api_key, base_url=stage.sandbox.url, retry=QUICK) as heygen,
    ):
        await stage.until(lambda status: status.runs[0].rows == {"flight": 1} and len(stage.sandbox.jobs) == number)
        await heygen.lipsyncs.delete(stage.sandbox.jobs[-1].id)
        await stage.until(lambda status: status.runs[0].rows == {"failed": 1})


@pytest.mark.parametrize("times", [1, 2])
async def test_a_row_whose_job_was_deleted_gets_another_one_each_time_that_it_is_requested(
    database_url: str, tmp_path: Path, times: int
) -> None:
    async with staged(database_url, tmp_path, job_seconds=[1e6] * times + [1.0]) as stage:
        await stage.enqueue([evolve(row, end_time=10.0) for row in rows(1, "duration=10")], max_attempts=1)
        await _delete_the_job_in_flight(stage)
        assert (await stage.complete()).runs[0].rows == {"failed": 1}
        for number in range(2, times + 1):
            assert await stage.cluster.retry_failed() == 1
            await _delete_the_job_in_flight(stage, number=number)
        assert len(stage.sandbox.jobs) == times

        assert await stage.cluster.retry_failed() == 1
        status = await stage.complete()
        assert status.runs[0].rows == {"done": 1}
        assert stage.jobs() == {"row-1": times + 1}
        assert status.runs[0].spent == pytest.approx((times + 1) * 10 * 0.0333)  # those before may have been paid


async def test_a_row_whose_job_was_deleted_gets_no_other_one_if_it_may_be_that_of_another_account(
    database_url: str, tmp_path: Path
) -> None:
    faults = [error(403, "forbidden", route=ME)]
    async with staged(database_url, tmp_path, job_seconds=1e6, faults=faults) as stage:
        await stage.enqueue(rows(1))
        await _delete_the_job_in_flight(stage)
        assert await stage.cluster.retry_failed() == 1
        assert (await stage.complete()).runs[0].rows == {"failed": 1}
        assert len(stage.sandbox.jobs) == 1


async def test_a_job_that_was_requested_again_and_is_there_is_waited_for(stage: Stage) -> None:
    stage.sandbox.faults = [error(404, "not_found", route="GET /v3/lipsyncs/{lipsync_id}", times=1)]
    await stage.enqueue(rows(1), output_dir=None)
    assert (await stage.complete()).runs[0].rows == {"failed": 1}
    assert await stage.cluster.retry_failed() == 1
    assert (await stage.complete()).runs[0].rows == {"done": 1}
    assert len(stage.sandbox.jobs) == 1


async def test_rows_that_failed_while_there_was_no_scheduler_are_tried_again(stage: Stage) -> None:
    await stage.enqueue(rows(2))
    stage.sandbox.faults = [error(400, "invalid_parameter", route=CREATE)]
    assert (await stage.complete()).runs[0].rows == {"failed": 2}
    await stage.cluster._database.fetch("UPDATE rows SET answer = 'rejected'")  # as when all workers have just ended

    stage.sandbox.faults = []
    assert await stage.cluster.retry_failed() == 2
    assert (await stage.complete()).runs[0].rows == {"done": 2}


@pytest.mark.parametrize("chosen", [{"run": "default"}, {}])
async def test_creates_of_an_account_go_on_if_its_rows_are_tried_again(stage: Stage, chosen: Mapping[str, str]) -> None:
    await stage.enqueue(rows(1))
    await stage.complete()
    database = stage.cluster._database
    await facade.join_account(database, "http://127.0.0.1:1", "other")
    await database.fetch("UPDATE accounts SET halted = 'for a day'")
    await stage.cluster.retry_failed(**chosen)

    halted = await database.fetch("SELECT name FROM accounts WHERE halted IS NOT NULL")
    assert halted == ([("other",)] if chosen else [])


async def test_a_job_that_fails_for_a_passing_reason_is_renewed_a_few_times(stage: Stage) -> None:
    await stage.enqueue([DubRow(url("bad", "fail=internal+error"), AUDIO, key="bad")], max_attempts=3)
    status = await stage.complete()

    assert status.runs[0].rows == {"failed": 1}
    assert stage.jobs() == {"bad": 3}
    (row,) = await stage.report()
    assert (row["attempts"], row["error"]) == ("3", "internal error")


async def test_the_budget_skips_rows_and_a_higher_one_lets_them_go(stage: Stage) -> None:
    given = [evolve(row, end_time=10.0) for row in rows(4)]  # $0.333 each
    await stage.enqueue(given, budget=0.7)
    status = await stage.complete()
    spent = status.runs[0].spent
    assert status.runs[0].rows["done"] >= 2
    assert set(status.runs[0].rows) == {"done", "skipped"}
    assert spent <= 0.7

    await stage.enqueue(given, budget=10.0)
    assert (await stage.complete()).runs[0].rows == {"done": 4}
    assert sum(stage.jobs().values()) == 4


@pytest.mark.parametrize("kinds", [("links", "files"), ("files", "links"), ("links", "files", "links")])
async def test_the_budget_counts_for_links_and_files_together(stage: Stage, kinds: Sequence[str]) -> None:
    source = stage.folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    audio = {"links": AUDIO, "files": source}
    given = [
        DubRow(url(f"{part}-{number}", "duration=10"), audio[kind], key=f"row-{part}-{number}", end_time=10.0)  # $0.333
        for part, kind in enumerate(kinds)
        for number in range(3)
    ]
    await stage.enqueue(given, budget=1.0)
    status = await stage.complete()

    assert set(status.runs[0].rows) == {"done", "skipped"}
    assert status.runs[0].spent <= 1.0


@pytest.mark.parametrize("has_output", [True, False])
@pytest.mark.parametrize(("length", "most", "done"), [(60, 4.0, 1), (10, 2.5, 6)])
async def test_a_length_that_is_not_known_is_taken_as_the_longest_seen_of_such_rows(
    stage: Stage, has_output: bool, length: int, most: float, done: int
) -> None:
    options = {"budget": most, "output_dir": stage.folder / "out" if has_output else None}
    part = [DubRow(url("part", "duration=1"), AUDIO, key="part", end_time=1.0)]
    await stage.enqueue(part, **options)
    await stage.complete()
    await stage.enqueue([*part, *rows(6, f"duration={length}")], **options)
    status = await stage.complete()

    assert status.runs[0].rows["done"] == 1 + done
    assert status.runs[0].spent <= most


@pytest.mark.parametrize("kind", ["links", "files"])
async def test_a_run_that_waits_for_its_budget_holds_up_no_other_run(
    database_url: str, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    audio = AUDIO if kind == "links" else source
    many = [DubRow(url(number), audio, key=f"many-{number}", end_time=10.0) for number in range(40)]
    async with staged(database_url, tmp_path, job_seconds=1e6) as stage:
        await stage.enqueue(many, run="many", budget=0.5)  # enough for some of them
        async with stage.worker():
            await stage.until(lambda status: status.runs[0].rows.get("flight", 0) >= 1)
            await stage.enqueue([DubRow(url("few"), audio, key="few")], run="few")
            status = await stage.until(lambda status: status.runs[1].rows == {"flight": 1})

    assert status.runs[0].rows["flight"] < 5


async def test_more_rows_that_wait_than_are_prepared_ahead_end_no_worker(stage: Stage, tmp_path: Path) -> None:
    source = tmp_path / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    stage.sandbox.faults = [stall("POST /v3/assets")]
    await stage.enqueue([DubRow(url(1), source, key="local")], run="local")
    async with stage.worker():
        await stage.until(lambda status: status.runs[0].rows == {"prepare": 1} and bool(stage.sandbox.requests))
        await stage.enqueue(rows(30), run="links", max_in_flight=1)
        await stage.until(lambda status: status.runs[1].rows.get("done", 0) >= 2)


async def test_money_is_settled_by_the_true_length_of_each_output(stage: Stage) -> None:
    await stage.enqueue([DubRow(url(1, "duration=30"), AUDIO, key="row-1", end_time=60.0)])
    status = await stage.complete()

    assert status.runs[0].spent == pytest.approx(30 * 0.0333)
    assert status.runs[0].reserved == 0.0


async def test_a_run_has_no_more_jobs_at_once_than_its_own_limit(stage: Stage) -> None:
    await stage.enqueue(rows(12), max_in_flight=3)
    await stage.complete()
    ends = sorted(
        [(job.created_at, 1) for job in stage.sandbox.jobs] + [(job.ended_at, -1) for job in stage.sandbox.jobs]
    )
    running = peak = 0
    for _, change in ends:
        running += change
        peak = max(peak, running)

    assert peak <= 3
    assert not any(request.status == 429 for request in stage.sandbox.requests)


async def test_all_workers_together_send_only_so_many_requests_a_second(stage: Stage) -> None:
    await stage.enqueue(rows(6), max_requests_per_second=20.0)
    started = asyncio.get_running_loop().time()
    async with stage.worker(), stage.worker():
        await stage.until(lambda status: status.is_complete)
        # Not the file host's, and not those that say whose the key is.
        routes = [request.route for request in stage.sandbox.requests if "/v3/lipsyncs" in request.route]
        paced = routes[1:]
        elapsed = asyncio.get_running_loop().time() - started

    assert len(paced) > 10
    assert elapsed >= len(paced) / 20.0


async def test_requests_are_not_held_back_by_a_run_at_another_api(stage: Stage) -> None:
    await stage.enqueue(rows(1))
    await stage.enqueue(
        [DubRow(url("x"), AUDIO, key="x")], base_url="http://127.0.0.1:1", max_requests_per_second=0.001
    )
    async with stage.worker():
        await stage.until(lambda status: status.runs[0].rows == {"done": 1})


@pytest.mark.parametrize("end", ["", "fail=No+face"])
async def test_requests_are_not_held_back_by_a_run_that_has_ended(stage: Stage, end: str) -> None:
    before = rows(1, end)
    await stage.enqueue(before)
    await stage.complete()
    await stage.enqueue(before, max_requests_per_second=0.001)
    await stage.enqueue([DubRow(url("x"), AUDIO, key="x")], run="other")
    async with stage.worker():
        await stage.until(lambda status: status.runs[1].rows == {"done": 1})


@pytest.mark.parametrize("at", ["prepare", "ready", "create", "search", "flight", "download"])
async def test_requests_are_held_back_by_a_run_that_has_not_ended(stage: Stage, at: str) -> None:
    database = stage.cluster._database
    account = AccountStore(database, await facade.join_account(database, stage.sandbox.url, "sandbox"))
    await stage.enqueue(rows(1), max_requests_per_second=0.001)
    await database.fetch("UPDATE rows SET stage = %(stage)s", {"stage": at})
    assert [round(await account.pace(), -3) for _ in range(2)] == [0, 1000]


async def test_requests_go_at_a_rate_that_was_corrected_at_once(stage: Stage) -> None:
    database, given = stage.cluster._database, rows(1)
    account = AccountStore(database, await facade.join_account(database, stage.sandbox.url, "sandbox"))
    await stage.enqueue(given, max_requests_per_second=0.001)
    await database.fetch("UPDATE runs SET account = %(account)s", {"account": account.account})
    await stage.enqueue(given, max_requests_per_second=0.001)
    assert [round(await account.pace(), -3) for _ in range(3)] == [0, 1000, 2000]
    await stage.enqueue(given, max_requests_per_second=0.001)
    assert await account.pace() > 2000

    await stage.enqueue(given, max_requests_per_second=10.0)
    assert await account.pace() < 1000


async def test_an_account_without_credit_creates_nothing_more_until_it_is_said_so(
    database_url: str, tmp_path: Path
) -> None:
    async with staged(database_url, tmp_path, balance=0.0) as stage:
        await stage.enqueue(rows(3))
        async with stage.worker():
            status = await stage.until(lambda status: status.runs[0].halted is not None)
            status = await stage.until(lambda status: status.runs[0].rows == {"ready": 3})
            assert "enqueue the same rows again" in (status.runs[0].halted or "")
            sent = len(stage.sandbox.requests)
            await asyncio.sleep(0.3)
            assert sum(request.route == CREATE for request in stage.sandbox.requests[sent:]) <= 3
            sent = len(stage.sandbox.requests)
            assert (await stage.enqueue(rows(3))).added == 0
            await stage.until(lambda _: any(request.route == CREATE for request in stage.sandbox.requests[sent:]))


async def test_creates_that_are_refused_for_hours_are_halted_and_go_on_when_it_is_said_so(stage: Stage) -> None:
    stage.sandbox.faults = [rate_limited(CREATE, retry_after=365 * 86_400.0)]
    await stage.enqueue(rows(2))
    async with stage.worker():
        status = await stage.until(lambda status: status.runs[0].halted is not None)
        assert "8,760.0 hours" in (status.runs[0].halted or "")
        assert "enqueue the same rows again" in (status.runs[0].halted or "")
        await stage.until(lambda status: status.runs[0].rows == {"ready": 2})
        stage.sandbox.faults = []
        await stage.enqueue(rows(2))
        await stage.until(lambda status: status.runs[0].rows == {"done": 2})


async def test_a_row_whose_upload_is_refused_for_hours_fails_alone(stage: Stage) -> None:
    audio = stage.folder / "new.mp3"
    audio.write_bytes(SAMPLE_AUDIO.read_bytes())
    reply = Reply(status=503, headers={"Retry-After": "86400"})
    stage.sandbox.faults = [Fault("POST /v3/assets", reply)]
    await stage.enqueue([*rows(1), DubRow(url("local"), audio, key="local")])
    async with stage.worker():
        await stage.until(lambda status: status.runs[0].rows == {"done": 1, "failed": 1})


@pytest.mark.parametrize("length", [0, -1])
async def test_a_completed_job_without_a_length_counts_with_its_estimate(stage: Stage, length: float) -> None:
    stage.sandbox.faults = [odd_fields("GET /v3/lipsyncs*", fields={"duration": length})]
    await stage.enqueue(rows(2), budget=100.0)
    async with stage.worker():
        status = await stage.until(lambda status: status.is_complete)
    assert status.runs[0].spent == pytest.approx(2 * 60 * 0.0333)


async def test_errors_of_the_server_cost_no_row(stage: Stage) -> None:
    stage.sandbox.faults = [server_error(CREATE, times=6)]
    await stage.enqueue(rows(4))

    assert (await stage.complete()).runs[0].rows == {"done": 4}
    assert sum(stage.jobs().values()) == 4


async def test_a_key_that_is_refused_ends_the_worker_and_no_row(stage: Stage) -> None:
    await stage.enqueue(rows(2))
    async with stage.worker(key="wrong-key") as task:
        with pytest.raises(AuthenticationError):
            async with asyncio.timeout(20):
                await task
    status = await stage.cluster.status()
    assert (status.accounts, status.runs[0].account) == ([], None)
    assert (await stage.complete()).runs[0].rows == {"done": 2}


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (server_error(ME), ServerError),
        (reset(ME), TransportError),
        (html(ME), UnexpectedResponse),
        (Fault(ME, Reply(status=404, body=b"<html>no such page</html>", content_type="text/html")), NotFound),
    ],
    ids=["server error", "no answer", "page of a gateway", "404 of a gateway"],
)
async def test_a_worker_that_cannot_learn_its_account_ends_and_takes_no_run(
    database_url: str, tmp_path: Path, fault: Fault, raised: type[Exception]
) -> None:
    async with staged(database_url, tmp_path, faults=[fault]) as stage:
        await stage.enqueue(rows(2))
        async with stage.worker() as task:
            with pytest.raises(raised):
                async with asyncio.timeout(20):
                    await task
        status = await stage.cluster.status()
        assert (status.accounts, status.runs[0].account) == ([], None)
        assert stage.sandbox.jobs == []


async def test_a_key_that_may_not_read_its_account_may_be_that_of_a_worker(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path, faults=[error(403, "forbidden", route=ME)]) as stage:
        await stage.enqueue(rows(2))
        status = await stage.complete()

    assert (status.runs[0].rows, status.runs[0].account) == ({"done": 2}, "")


@pytest.mark.parametrize("ends", [True, False], ids=["sessions end", "sessions stay"])
async def test_a_database_that_is_read_only_for_a_while_ends_no_worker(
    stage: Stage, caplog: pytest.LogCaptureFixture, ends: bool
) -> None:
    await stage.enqueue(rows(3))
    with caplog.at_level(logging.INFO, "heygen_async"):
        async with stage.worker() as worker:
            await stage.until(lambda status: status.runs[0].rows == {"done": 3})
            with read_only(stage.url, ends=ends):
                await until_warned("connecting again: .* read-only", caplog)
            async with Cluster(stage.url) as cluster:  # the connections of the first one have ended
                later = evolve(stage, cluster=cluster)
                await later.enqueue(rows(6))
                status = await later.until(lambda status: worker.done() or status.is_complete)
            await until_warned("the database answers again", caplog)
            assert not worker.done()

    assert status.runs[0].rows == {"done": 6}
    assert stage.jobs().total() == 6


async def until_warned(message: str, caplog: pytest.LogCaptureFixture) -> None:
    await until(
        lambda: any(
            record.levelno == logging.WARNING and re.match(message, record.getMessage()) for record in caplog.records
        )
    )


@contextmanager
def read_only(url: str, *, ends: bool) -> Iterator[None]:
    """Let every session write nothing for a while, as where a disk is full; *ends* ends them at last."""
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        name = sql.Identifier(connection.info.dbname)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        end += "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        connection.execute(end)
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
            if ends:
                connection.execute(end)


async def test_a_worker_with_another_version_of_the_engine_than_those_that_run_ends_and_disturbs_none(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.worker():
        await stage.until(lambda status: any(account.workers for account in status.accounts))
        with monkeypatch.context() as other:
            other.setattr(procrastinate, "__version__", "3.99.0")
            async with stage.worker() as task:
                with pytest.raises(ClusterError, match=r"procrastinate 3\.\d+\.\d+, and this machine has 3\.99\.0"):
                    async with asyncio.timeout(20):
                        await task
        await stage.enqueue(rows(2))
        await stage.until(lambda status: status.runs[0].rows == {"done": 2})


async def test_a_worker_without_slots_for_downloads_leaves_them_to_others(stage: Stage) -> None:
    await stage.enqueue(rows(3))
    async with stage.worker(downloads=0):
        await stage.until(lambda status: status.runs[0].rows == {"download": 3})
    assert stage.files() == set()
    assert (await stage.complete()).runs[0].rows == {"done": 3}


async def test_webhooks_show_ends_at_once(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path, manual=True) as stage:
        await stage.enqueue(rows(1))
        async with (
            Cluster(database_url) as cluster,
            HeyGenSession(
                stage.sandbox.api_key, base_url=stage.sandbox.url, polling=PollPolicy(fastest=3000.0, slowest=3000.0)
            ) as heygen,
        ):
            task = asyncio.create_task(cluster.work(heygen, delays=HASTY))
            await stage.until(lambda status: status.runs[0].rows == {"flight": 1} and status.accounts[0].in_air == 0)
            looks = sum("statuses" in request.route for request in stage.sandbox.requests)
            (job,) = stage.sandbox.jobs
            await stage.sandbox.advance(100.0)
            while not (await stage.cluster.status()).is_complete:  # the first may come before the scheduler knows it
                await stage.cluster.notify(job.id)
                await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
    assert looks <= 1


async def test_a_report_lists_every_row_of_a_run(stage: Stage) -> None:
    await stage.enqueue([*rows(2), DubRow(url("bad", "fail=No+face"), AUDIO, key="bad")])
    await stage.complete()
    found = await stage.report()

    assert [(row["key"], row["state"]) for row in found] == [
        ("row-1", "completed"),
        ("row-2", "completed"),
        ("bad", "failed"),
    ]
    assert found[0]["file"].endswith("row-1.mp4")


async def test_a_report_lists_rows_of_several_enqueues_that_have_the_same_number(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_PAGE", 4)
    manifests = [[f"{name}{number}" for number in range(5)] for name in "abc"]
    for keys in manifests:
        await stage.enqueue([DubRow(url(key), AUDIO, key=key) for key in keys])
    assert {row["key"] for row in await stage.report()} == {key for keys in manifests for key in keys}


async def test_one_of_two_runs_of_a_name_at_different_apis_is_reported_and_retried(stage: Stage) -> None:
    elsewhere = "http://127.0.0.1:1"
    await stage.enqueue(rows(1))
    await stage.enqueue([DubRow(url("x"), AUDIO, key="other")], base_url=elsewhere)
    await stage.cluster._database.fetch("UPDATE rows SET stage = 'skipped'")
    with pytest.raises(ClusterError, match=f"default at {stage.sandbox.url}, default at {elsewhere}"):
        await stage.report(run="default")
    with pytest.raises(ClusterError, match=r"there is no run default at http://127\.0\.0\.1:2"):
        await stage.report(run="default", base_url="http://127.0.0.1:2")

    assert [row["key"] for row in await stage.report(base_url=f"{elsewhere}/")] == ["other"]
    assert await stage.cluster.retry_failed(run="default", base_url=elsewhere) == 1
    assert await stage.cluster.retry_failed(run="default") == 1


async def test_prune_removes_runs_that_have_ended(stage: Stage) -> None:
    await stage.enqueue(rows(1), run="old")
    await stage.complete()
    other = evolve(rows(1)[0], key="x", output="x.mp4")
    await stage.enqueue([other], run="new")

    assert await stage.cluster.prune(older_than=3600.0) == 0
    assert await stage.cluster.prune(older_than=0.0) == 1
    assert [run.name for run in (await stage.cluster.status()).runs] == ["new"]
    with pytest.raises(BadRows, match="was not written by this row"):  # nobody knows any more who wrote it
        await stage.enqueue(rows(1), run="old")
    (stage.folder / "out" / "row-1.mp4").unlink()
    assert (await stage.enqueue(rows(1), run="old")).added == 1


async def test_prune_leaves_a_run_alone_in_which_rows_are_being_enqueued(stage: Stage) -> None:
    await stage.enqueue(rows(1))
    await stage.complete()

    async def slow() -> AsyncIterator[DubRow]:
        for row in rows(2):
            yield row
        assert await stage.cluster.prune(older_than=0.0) == 0

    assert (await stage.enqueue(slow())).added == 1
    assert (await stage.complete()).runs[0].rows == {"done": 2}


async def test_prune_removes_what_an_enqueue_that_died_has_left_and_another_run_may_have_its_outputs(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.enqueue([DubRow(url("old"), AUDIO, key="old")], run="ended")
    await stage.complete()
    late = DubRow(url("late"), AUDIO, key="late")
    await _dies_before_the_release(stage, rows(1), monkeypatch)
    await _dies_before_the_release(stage, [late], monkeypatch, run="ended")
    with pytest.raises(BadRows, match="row-1 of the run default, whose enqueue goes on, or was interrupted"):
        await stage.enqueue(rows(1), run="other")

    assert await stage.cluster.prune() == 1
    assert [run.name for run in (await stage.cluster.status()).runs] == ["ended"]
    assert (await stage.enqueue([*rows(1), late], run="other")).added == 2


async def test_the_status_shows_what_runs(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path, manual=True) as stage:
        await stage.enqueue([evolve(row, end_time=10.0) for row in rows(14)], budget=100.0)
        async with stage.worker():
            status = await stage.until(
                lambda status: (
                    bool(status.accounts)
                    and status.accounts[0].in_flight == 10
                    and status.runs[0].rows.get("flight") == 10
                )
            )
            (run,), (account,) = status.runs, status.accounts
            assert run.rows["flight"] == 10
            assert (run.total, run.ended, run.seconds_left, run.budget) == (14, 0, None, 100.0)
            assert (run.reserved, run.spent) == (pytest.approx(run.estimate), pytest.approx(0.0, abs=1e-9))
            assert run.account == account.name == "sandbox"
            # A create may be refused before the one beside it is known to be accepted.
            assert account.limit >= 9
            assert account.scheduler in account.workers
    assert not status.is_complete


async def test_the_rate_is_that_since_the_workers_have_started(stage: Stage) -> None:
    await stage.enqueue(rows(5))
    await stage.cluster._database.fetch("UPDATE runs SET created = created - 3600")
    async with stage.worker():
        status = await stage.until(lambda status: status.is_complete)
        assert status.runs[0].rate > 5 / 60
    assert (await stage.until(lambda status: not status.accounts[0].workers)).runs[0].rate == pytest.approx(5 / 300)


async def test_an_account_without_bulk_statuses_is_polled_job_by_job(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path, statuses_available=False) as stage:
        await stage.enqueue(rows(3))
        assert (await stage.complete()).runs[0].rows == {"done": 3}
    assert sum("statuses" in request.route for request in stage.sandbox.requests) <= 2


async def test_rows_without_an_output_are_finished_by_the_scheduler(stage: Stage) -> None:
    await stage.enqueue(rows(3), output_dir=None)
    status = await stage.complete()

    assert status.runs[0].rows == {"done": 3}
    assert not any("files" in request.route for request in stage.sandbox.requests)
    assert status.runs[0].spent > 0


async def test_captions_are_written_beside_the_videos(stage: Stage) -> None:
    await stage.enqueue(rows(1), captions=True)
    await stage.complete()

    assert stage.files() == {"row-1.mp4", "row-1.srt"}


@pytest.mark.parametrize("captions", ["empty", "gone"])
async def test_a_problem_with_captions_is_logged(
    database_url: str, tmp_path: Path, captions: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(database_url, tmp_path, captions=captions) as stage:
        await stage.enqueue(rows(2), captions=True)
        async with stage.worker():
            await stage.until(lambda status: status.runs[0].rows == {"done": 2} and caplog.text.count("WARNING") == 2)

    assert "the row row-1: the captions were not written: " in caplog.text


async def test_a_job_in_doubt_is_searched_for_once_the_server_may_have_forgotten_its_key(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.enqueue(rows(1))
    await stage.complete()
    with psycopg.connect(stage.url, autocommit=True) as connection:  # as if its answer had been lost, two days ago
        connection.execute(
            "UPDATE heygen.rows SET stage = 'ready', resend = true, lipsync_id = NULL, version = version + 1, "
            "record = record - 'lipsync_id' || jsonb_build_object('state', 'submitting', 'sent_at', 1)"
        )
    stage.sandbox.forget_keys()
    status = await stage.complete()

    assert status.runs[0].rows == {"done": 1}
    assert sum(stage.jobs().values()) == 1


async def test_after_the_database_was_restored_jobs_that_it_lost_are_adopted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.enqueue(rows(2))
    await stage.complete()
    for path in (stage.folder / "out").glob("*.mp4"):
        path.unlink()
    with psycopg.connect(stage.url, autocommit=True) as connection:  # an old copy knows of no job
        connection.execute("DELETE FROM heygen.runs")
    await stage.enqueue(rows(2))
    stage.sandbox.forget_keys()

    async def restored(_: object) -> str:
        return "another.2"

    monkeypatch.setattr(scheduler_store.SchedulerStore, "timeline", restored)
    assert (await stage.complete()).runs[0].rows == {"done": 2}
    assert stage.jobs() == {"row-1": 1, "row-2": 1}


async def test_after_the_database_was_restored_jobs_of_rows_that_were_uploaded_already_are_adopted_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = stage.folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    await stage.enqueue([DubRow(url(1), source, key="local")])
    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "_grant", lambda *_: asyncio.sleep(0))
        async with stage.worker():
            await stage.until(lambda status: status.runs[0].rows == {"ready": 1})
    copy = await stage.cluster._database.fetch("SELECT record FROM rows WHERE reserved")
    await stage.complete()
    (stage.folder / "out" / "local.mp4").unlink()
    await stage.cluster._database.fetch(
        "UPDATE rows SET record = %(record)s, stage = 'ready', reserved = true, price = 1, lipsync_id = NULL",
        {"record": Jsonb(copy[0][0])},
    )
    stage.sandbox.forget_keys()

    async def restored(_: object) -> str:
        return "another.2"

    monkeypatch.setattr(scheduler_store.SchedulerStore, "timeline", restored)
    assert (await stage.complete()).runs[0].rows == {"done": 1}
    assert stage.jobs() == {"local": 1}


async def test_a_worker_that_ends_puts_its_transfers_back_and_finishes_its_creates(
    database_url: str, tmp_path: Path
) -> None:
    latency = {"POST /v3/lipsyncs": 0.3, "GET /files/*": 3600.0}
    async with staged(database_url, tmp_path, latency=latency) as stage:
        await stage.enqueue(rows(5))
        async with stage.worker():
            await stage.until(
                lambda status: status.runs[0].rows.get("download", 0) > 0 and status.accounts[0].in_air > 0
            )
        with psycopg.connect(database_url) as connection:
            found = connection.execute("SELECT stage, holder FROM heygen.rows").fetchall()
    assert {holder for _, holder in found} == {None}
    assert "create" not in {one for one, _ in found}


class CutConnector(aiohttp.TCPConnector):
    """Connections that break while it is cut."""

    is_cut = False

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.refused: list[float] = []
        """When it refused a connection, by the clock of the loop."""

    async def connect(self, *arguments: object, **options: object) -> object:
        if self.is_cut:
            self.refused.append(asyncio.get_running_loop().time())
            raise aiohttp.ClientConnectionError("cut")
        return await super().connect(*arguments, **options)


async def test_a_worker_that_cannot_reach_the_api_rests_and_another_is_the_scheduler(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "Tuning", lambda **options: Tuning(unreachable=0.3, **options))
    async with (
        staged(database_url, tmp_path, manual=True) as stage,
        aiohttp.ClientSession(connector=CutConnector(force_close=True)) as http,
    ):
        await stage.enqueue(rows(4))
        async with (
            Cluster(stage.url) as cluster,
            HeyGenSession(
                stage.sandbox.api_key, base_url=stage.sandbox.url, retry=QUICK, polling=EAGER, http=http
            ) as heygen,
        ):
            # It may take a download before it rests, which must not be its last attempt.
            patient = evolve(HASTY, download=(0.05,) * 200)
            task = asyncio.create_task(cluster.work(heygen, delays=patient))
            first = await stage.until(lambda status: status.runs[0].rows == {"flight": 4})
            async with stage.worker():
                await stage.until(lambda status: len(status.accounts[0].workers) == 2)
                http.connector.is_cut = True
                await stage.until(
                    lambda status: status.accounts[0].scheduler not in (None, first.accounts[0].scheduler)
                )
                await stage.sandbox.advance(100.0)
                status = await stage.until(lambda status: status.is_complete)
            task.cancel()
            await asyncio.wait([task])
    assert status.runs[0].rows == {"done": 4}


async def test_a_worker_alone_stays_the_scheduler_though_it_cannot_reach_the_api(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "Tuning", lambda **options: Tuning(unreachable=0.3, **options))
    async with (
        staged(database_url, tmp_path) as stage,
        aiohttp.ClientSession(connector=CutConnector(force_close=True)) as http,
        Cluster(stage.url) as cluster,
        HeyGenSession(
            stage.sandbox.api_key, base_url=stage.sandbox.url, retry=QUICK, polling=EAGER, http=http
        ) as heygen,
    ):
        task = asyncio.create_task(cluster.work(heygen, delays=HASTY))
        await stage.until(lambda status: any(one.scheduler for one in status.accounts))
        http.connector.is_cut = True
        await stage.enqueue(rows(2))
        refused = http.connector.refused
        await until(lambda: refused and refused[-1] - refused[0] > 1.5)  # after it was examined, which is once a second
        http.connector.is_cut = False
        status = await stage.until(lambda status: status.is_complete)
        task.cancel()
        await asyncio.wait([task])
    assert status.runs[0].rows == {"done": 2}


def test_the_import_of_bulk_loads_nothing_of_the_cluster() -> None:
    program = "import sys, heygen_async.bulk, heygen_async; from heygen_async import HeyGenSession; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = ("psycopg", "psycopg_pool", "procrastinate", "heygen_async.bulk.cluster")
    assert [module for module in found if module.startswith(heavy)] == []


async def _dies_before_the_release(
    stage: Stage, given: Sequence[DubRow], monkeypatch: pytest.MonkeyPatch, **options: object
) -> None:
    """Enqueue rows, but die before they are released, as by SIGKILL."""
    fetch = LockedConnection.fetch

    async def until_then(self: LockedConnection, statement: str, values: object = None) -> object:
        if "released" in statement:
            raise KeyboardInterrupt
        if "gone AS" in statement and await fetch(self, "SELECT 1 FROM rows"):
            return []  # who is dead removes nothing
        return await fetch(self, statement, values)

    with monkeypatch.context() as patch:
        patch.setattr(LockedConnection, "fetch", until_then)
        with pytest.raises(KeyboardInterrupt):
            await stage.enqueue(given, **options)


async def test_the_rows_of_an_enqueue_that_died_are_not_released_by_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _dies_before_the_release(stage, [*rows(2), DubRow(url("old"), AUDIO, key="old", output="x.mp4")], monkeypatch)
    await stage.enqueue([*rows(1), DubRow(url("new"), AUDIO, key="new", output="x.mp4")])
    await stage.complete()
    assert stage.jobs() == Counter({"row-1": 1, "new": 1})


async def test_a_run_has_one_enqueue_at_a_time(stage: Stage) -> None:
    has_refused = asyncio.Event()

    async def slow() -> AsyncIterator[DubRow]:
        for row in rows(2):
            yield row
        with pytest.raises(ClusterError, match="at the moment"):
            await stage.enqueue(rows(1))
        has_refused.set()

    found = await stage.enqueue(slow())
    assert has_refused.is_set()
    assert found.added == (await stage.cluster.status()).runs[0].total == 2
    assert (await stage.enqueue(rows(2))).added == 0  # and the next one may go


async def test_a_run_is_unlocked_before_the_connection_of_its_enqueue_is_closed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server notices the end of a connection a moment later: the next enqueue would be refused."""
    close, locks = psycopg.AsyncConnection.close, []

    async def after_a_look(self: psycopg.AsyncConnection) -> None:
        locks.extend(await stage.cluster._database.fetch("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
        await close(self)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncConnection, "close", after_a_look)
        await stage.enqueue(rows(1))
        with pytest.raises(BadRows):
            await stage.enqueue([*rows(1), *rows(1)])
    assert locks == []


async def test_an_enqueue_that_has_lost_its_lock_releases_nothing_and_removes_nothing_of_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, added = Enqueue._release, []

    async def after_the_next(self: Enqueue, *arguments: object) -> None:
        monkeypatch.undo()
        ends = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        await stage.cluster._database.fetch(ends)
        added.append(await stage.enqueue(rows(1)))
        await release(self, *arguments)

    monkeypatch.setattr(Enqueue, "_release", after_the_next)
    with pytest.raises(DatabaseLost):
        await stage.enqueue(rows(3))
    assert [one.added for one in added] == [1]
    assert (await stage.cluster.status()).runs[0].total == 1
    assert (await stage.enqueue(rows(3))).added == 2


async def test_one_of_two_runs_that_are_enqueued_at_once_has_an_output(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = asyncio.Barrier(2)
    fetch = LockedConnection.fetch

    async def together(self: LockedConnection, statement: str, values: object = None) -> object:
        if "INSERT INTO claims" in statement:
            async with asyncio.timeout(10):
                await both.wait()
        return await fetch(self, statement, values)

    monkeypatch.setattr(LockedConnection, "fetch", together)
    row = DubRow(url(1), AUDIO, key="one", output="same.mp4")
    found = await asyncio.gather(*(stage.enqueue([row], run=run) for run in "ab"), return_exceptions=True)
    monkeypatch.undo()

    assert [type(one) for one in found].count(BadRows) == 1
    await stage.complete()
    assert stage.jobs().total() == 1


async def test_each_failed_row_gets_one_more_attempt_though_the_scheduler_is_quick(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.enqueue(rows(3))
    await stage.cluster._database.fetch("UPDATE rows SET stage = 'skipped'")
    fetch = Database.fetch

    async def then_skip(self: Database, statement: str, values: object = None) -> object:
        found = await fetch(self, statement, values)
        if "RETURNING rows.key" in statement:
            await fetch(self, "UPDATE rows SET stage = 'skipped'")
        return found

    monkeypatch.setattr(Database, "fetch", then_skip)
    monkeypatch.setattr(facade, "_PAGE", 2)
    async with asyncio.timeout(20):
        assert await stage.cluster.retry_failed() == 3


@pytest.mark.parametrize("age", [-1.0, float("nan")])
async def test_runs_are_not_pruned_by_an_age_that_is_none(stage: Stage, age: float) -> None:
    await stage.enqueue(rows(1))
    await stage.complete()
    with pytest.raises(ValueError, match="older_than must be 0 or more"):
        await stage.cluster.prune(older_than=age)
    assert len((await stage.cluster.status()).runs) == 1
