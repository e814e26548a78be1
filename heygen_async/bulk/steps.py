"""The row program: `upload`, `submit`, `wait`, `download`. Four coroutines that know no store.

In one process the journal checkpoints them; an engine for many machines may wrap the very same four. Each may be
done again after a crash: an upload makes another asset, a submit goes under its key, a wait and a download are reads.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from heygen_async._media.transfers import Progress
from heygen_async.models import AssetId, Lipsync, LipsyncOptions, Source
from heygen_async.policies import PollPolicy
from heygen_async.session import HeyGenSession


async def upload(heygen: HeyGenSession, source: Source) -> AssetId:
    """Upload a local file.

    Raises:
        HeyGenError: If it cannot be uploaded.
        OSError, ValueError: If it cannot be read, or is nothing that HeyGen takes.
    """
    return AssetId((await heygen.assets.upload(source)).id)


async def submit(
    heygen: HeyGenSession, key: str, *, video: str | AssetId, audio: str | AssetId, options: LipsyncOptions
) -> str:
    """Ask for a job under the idempotency *key*, and return its id.

    Raises:
        HeyGenError: With what is known of it, as `lipsyncs.create` does.
    """
    return (await heygen.lipsyncs.create(video=video, audio=audio, idempotency_key=key, **options)).id


async def wait(
    heygen: HeyGenSession, lipsync_id: str, *, asked_at: float | None = None, policy: PollPolicy | None = None
) -> Lipsync:
    """Wait for a job; *asked_at* is when it was asked for, a unix timestamp, if that is known.

    Raises:
        LipsyncFailed: If the job failed.
        HeyGenError: If it cannot be waited for.
    """
    created_at = None if asked_at is None else datetime.fromtimestamp(asked_at, UTC)
    return await heygen.poller.wait(lipsync_id, created_at=created_at, policy=policy)


async def download(
    heygen: HeyGenSession, lipsync: Lipsync | str, path: Path, *, overwrite: bool, progress: Progress
) -> Path:
    """Write the video of a completed job to *path*; *progress* is awaited before the file gets its name.

    Raises:
        HeyGenError: If it cannot be had or written.
    """
    return await heygen.download(lipsync, path, overwrite=overwrite, progress=progress)


async def download_captions(heygen: HeyGenSession, lipsync: Lipsync | str, path: Path, *, overwrite: bool) -> Path:
    """Write the captions of a completed job beside the video at *path*.

    Raises:
        HeyGenError: If they cannot be downloaded or written.
    """
    return await heygen.download_captions(lipsync, path, overwrite=overwrite)
