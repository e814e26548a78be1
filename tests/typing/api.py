"""What type checkers see of the main paths. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import assert_type

from heygen_async import (
    Account,
    ApiKey,
    Asset,
    AssetId,
    Batch,
    BatchItem,
    DubRow,
    HeyGenError,
    HeyGenSession,
    Lipsync,
    LipsyncBatch,
    LipsyncFailed,
    LipsyncJob,
    LipsyncRequest,
    LipsyncStatus,
    Page,
    Paginator,
    Response,
    RetryPolicy,
    WaitTimeout,
)
from heygen_async.bulk import Manifest, Review, promote, read_reviews
from heygen_async.diagnosis import Check, Diagnosis


async def main_paths(heygen: HeyGenSession) -> None:
    async with heygen as entered:
        assert_type(entered, HeyGenSession)
    job = await heygen.lipsyncs.create(
        video="https://example.com/v.mp4", audio=Path("a.mp3"), mode="precision", fps_mode="cfr", start_time=1
    )
    assert_type(job, LipsyncJob)
    assert_type(job.id, str)
    assert_type(job.idempotency_key, str | None)
    lipsync = await job.wait(timeout=1800)
    assert_type(lipsync, Lipsync)
    assert_type(lipsync.status, LipsyncStatus | str)
    assert_type(lipsync.created_at, datetime | None)
    assert_type(lipsync.duration, float | None)
    assert_type(await job.download("x.mp4"), Path)
    async for state in job.updates():
        assert_type(state, LipsyncStatus | str)
    assert_type(await heygen.dub(video=AssetId("a"), audio=Path("b"), output="c.mp4", title="t"), Lipsync)


async def iterations_that_may_stop_early(heygen: HeyGenSession, job: LipsyncJob) -> None:
    async with aclosing(heygen.iter_bytes("ls_1")) as pieces:
        assert_type(pieces, AsyncGenerator[bytes, None])
    async with aclosing(job.iter_bytes()) as pieces:
        assert_type(pieces, AsyncGenerator[bytes, None])
    async with aclosing(job.updates()) as statuses:
        assert_type(statuses, AsyncGenerator[LipsyncStatus | str, None])
    async with aclosing(heygen.poller.updates("ls_1")) as statuses:
        assert_type(statuses, AsyncGenerator[LipsyncStatus | str, None])


async def lists(heygen: HeyGenSession) -> None:
    paginator = heygen.lipsyncs.list(page_size=100)
    assert_type(paginator, Paginator[Lipsync])
    async for lipsync in paginator:
        assert_type(lipsync, Lipsync)
    async for page in paginator.pages():
        assert_type(page, Page[Lipsync])
    assert_type(await paginator.first(), Lipsync | None)
    assert_type(await paginator.collect(limit=5), list[Lipsync])


async def the_rest(heygen: HeyGenSession) -> None:
    assert_type(await heygen.lipsyncs.statuses(["a"]), dict[str, LipsyncStatus | str])
    batch = await heygen.lipsyncs.create_batch([LipsyncRequest(video="https://a/b", audio=b"c")])
    assert_type(batch, LipsyncBatch)
    assert_type(await batch.wait(), Batch)
    assert_type(batch.items(), Paginator[BatchItem])
    assert_type(await heygen.account.me(), Account)
    diagnosis = await heygen.doctor()
    assert_type(diagnosis, Diagnosis)
    assert_type(diagnosis.findings, Sequence[Check])
    assert_type(await heygen.account.key(), ApiKey)
    assert_type((await heygen.account.key()).has_scope("lipsync:write"), bool)
    assert_type((await batch.wait()).to_json(), str)
    assert_type(await heygen.assets.upload(Path("a")), Asset)
    assert_type(await heygen.request("GET", "/v3/x", params={"limit": 5}), Response)
    assert_type(heygen.with_options(retry=RetryPolicy(max_attempts=1)), HeyGenSession)


async def finals(heygen: HeyGenSession) -> None:
    reviews = await read_reviews("run.sqlite")
    assert_type(reviews.approved, list[Review])
    rows = promote(Manifest("rows.csv"), reviews, mode="precision")
    assert_type(rows, Iterable[DubRow])
    heygen.dub_many(rows, journal="run.sqlite", output_dir="final", redo_rejected=True)


def errors(error: HeyGenError) -> None:
    match error:
        case LipsyncFailed():
            assert_type(error.lipsync, Lipsync)
        case WaitTimeout():
            assert_type(error.lipsync_id, str | None)
        case _:
            assert_type(error.idempotency_key, str | None)


async def mistakes(heygen: HeyGenSession) -> None:
    await heygen.lipsyncs.create(video="https://a/b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await heygen.lipsyncs.create(video="https://a/b", audio="https://a/b", mode="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await heygen.lipsyncs.create(video=5, audio="https://a/b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await heygen.lipsyncs.create(video="https://a/b", audio="https://a/b", colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
