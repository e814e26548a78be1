"""What the API answers that cannot be stored or used: it is an error of that row, and no worker ends by it."""

import base64
from pathlib import Path
from random import Random

import psycopg
import pytest
from attrs import evolve
from test_cluster import AUDIO, CREATE, rows, staged, url

from heygen_async.bulk.checks import BadRows
from heygen_async.bulk.cluster.database import Database, to_jsonb
from heygen_async.bulk.cluster.delivery import make_engine_tables
from heygen_async.bulk.promotion import FinalRow
from heygen_async.models import DubRow, Secret
from heygen_async.sandbox import SAMPLE_AUDIO
from heygen_async.sandbox.faults import error, odd_fields

LONG = base64.b64encode(Random(1).randbytes(4500)).decode()
"""More than an ordered index takes, however well that is packed."""


@pytest.mark.parametrize("answered", ["a\0b", "a\ud83d", "a/b", "statuses"], ids=["NUL", "surrogate", "slash", "word"])
async def test_a_create_that_is_answered_with_no_usable_id_is_repeated_under_its_key(
    database_url: str, tmp_path: Path, answered: str
) -> None:
    async with staged(database_url, tmp_path) as stage:
        stage.sandbox.faults.append(odd_fields(CREATE, fields={"lipsync_id": answered, "id": answered}, times=1))
        await stage.enqueue(rows(4))
        async with stage.worker() as worker:
            status = await stage.until(lambda status: status.is_complete)
            assert not worker.done()

    assert status.runs[0].rows == {"done": 4}
    assert len(stage.sandbox.jobs) == 4


async def test_an_upload_that_is_answered_with_no_usable_id_is_sent_again(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "new.mp3").write_bytes(SAMPLE_AUDIO.read_bytes())
    async with staged(database_url, tmp_path) as stage:
        stage.sandbox.faults.append(odd_fields("POST /v3/assets", fields={"asset_id": "as\0x"}, times=1))
        await stage.enqueue([*rows(2), DubRow(url("local"), tmp_path / "new.mp3", key="local")])
        async with stage.worker() as worker:
            status = await stage.until(lambda status: status.is_complete)
            assert not worker.done()

    assert status.runs[0].rows == {"done": 3}


@pytest.mark.parametrize("status", [400, 402], ids=["rejected", "without credit"])
async def test_a_message_that_cannot_be_stored_ends_no_worker(database_url: str, tmp_path: Path, status: int) -> None:
    async with staged(database_url, tmp_path) as stage:
        stage.sandbox.faults.append(error(status, "x", "no\0way", route=CREATE, times=1))
        await stage.enqueue(rows(2))
        async with stage.worker() as worker:
            await stage.until(lambda found: found.is_complete if status == 400 else found.runs[0].halted is not None)
            assert not worker.done()


async def test_jobs_of_others_that_cannot_be_stored_do_not_end_a_search(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path) as stage:
        stage.sandbox.faults.append(odd_fields("GET /v3/lipsyncs", fields={"id": "a\0b", "callback_id": "c\0d"}))
        await stage.enqueue(rows(1))
        with psycopg.connect(database_url, autocommit=True) as connection:
            await stage.complete()
            connection.execute("UPDATE heygen.facts SET value = 'another.1' WHERE name = 'timeline'")
        await stage.enqueue(rows(2))
        status = await stage.complete()

    assert status.runs[0].rows == {"done": 2}


@pytest.mark.parametrize("is_ours", [False, True], ids=["of somebody else", "of the row"])
async def test_a_callback_id_of_any_length_in_the_list_holds_nothing_up(
    database_url: str, tmp_path: Path, is_ours: bool
) -> None:
    given = [evolve(row, callback_id=LONG if is_ours else None) for row in rows(1)]
    async with staged(database_url, tmp_path) as stage:
        if not is_ours:
            stage.sandbox.faults.append(odd_fields("GET /v3/lipsyncs", fields={"callback_id": LONG}))
        await stage.enqueue(given)
        await stage.complete()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE heygen.facts SET value = 'another.1' WHERE name = 'timeline'")
            if is_ours:
                connection.execute("DELETE FROM heygen.runs")  # an old copy knows of no job
                (tmp_path / "out" / "row-1.mp4").unlink()
        await stage.enqueue([*given, *rows(3)[1:]])
        status = await stage.complete()

    assert status.runs[0].rows == ({"failed": 1, "done": 2} if is_ours else {"done": 3})
    assert len(stage.sandbox.jobs) == 3


async def test_text_with_a_nul_is_stored_without_it_and_a_backslash_is_kept(database_url: str) -> None:
    async with Database(Secret(database_url)) as database:
        await database.migrate(lambda: make_engine_tables(database))
        for texts, stored in (
            (["a\0b", "a\\u0000b", "plain"], ["a\ufffdb", "a\\u0000b", "plain"]),
            (["a\ud83db", "\U0001f600"], ["a\ufffdb", "\U0001f600"]),
        ):
            found = await database.fetch(
                "SELECT %(texts)s::text[], %(json)s::jsonb", {"texts": texts, "json": to_jsonb({"texts": texts})}
            )
            assert found == [(stored, {"texts": stored})]


@pytest.mark.parametrize("lipsync_id", ["a\0b", "", "a/b"])
async def test_a_notification_of_no_job_is_refused(database_url: str, tmp_path: Path, lipsync_id: str) -> None:
    async with staged(database_url, tmp_path) as stage:
        with pytest.raises(ValueError, match="is not an id"):
            await stage.cluster.notify(lipsync_id)


async def test_the_final_version_of_a_draft_is_refused_with_where_it_belongs(database_url: str, tmp_path: Path) -> None:
    async with staged(database_url, tmp_path) as stage:
        draft = DubRow(url(1), AUDIO, key="row-1")
        final = FinalRow(
            url(1), AUDIO, key="row-1-final", mode="precision", draft=draft, draft_key="row-1", draft_job="x"
        )
        with pytest.raises(BadRows, match="final version of a draft, which a journal knows: run it with dub_many"):
            await stage.enqueue([final])
