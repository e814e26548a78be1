"""The row program: what to do with a row next, and the effects that bring it forward, from record to record.

Rule 1: nothing here knows who calls it, or when. `next_step`, `intent`, `after_create` and `ended` are pure; `advance`
has one effect a call. An error of an effect is in the record that it returns; only what ends the run is raised.
Rule 2: a create is sent only after the record that `intent` returns was saved.
Rule 3: once a create had no answer, only an answer of the API under its key, or a complete search, settles it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from anyio import to_thread
from attrs import Factory, field, frozen

from heygen_async._ids import is_key_fresh
from heygen_async._media.parts import remove_leftovers, remove_unwritten
from heygen_async._media.targets import captions_path
from heygen_async._wire import is_final_answer
from heygen_async.bulk.identity import body_digest, options_of
from heygen_async.bulk.intake import PreparedRow
from heygen_async.bulk.local_files import check_unchanged
from heygen_async.bulk.outputs import (
    absolute_path,
    captions_are_free,
    fingerprint_of,
    found_at,
    has_part,
    output_problems,
    part_identity,
)
from heygen_async.bulk.record import Record, State, evolve
from heygen_async.bulk.searching import InDoubt, Searcher
from heygen_async.bulk.store import HeyGen, JournalError, Store, UnixClock
from heygen_async.errors import (
    NO_REASON,
    UNUSABLE_ASSET,
    APIError,
    AuthenticationError,
    DownloadError,
    HeyGenError,
    InvalidRequest,
    RateLimited,
)
from heygen_async.models import Asset, AssetId, Lipsync, LipsyncOptions, LipsyncStatus, Source
from heygen_async.policies import PollPolicy

ENDS_RUN: Final = (AuthenticationError, JournalError)
"""What ends the run at once. Without credit, nothing more is created, but what runs is finished."""

_BATCH_LOOKS: Final = PollPolicy(fastest=1.0, growth=0.25, slowest=75.0)

Save: TypeAlias = Callable[[Record], Awaitable[None]]
_Role: TypeAlias = Literal["video", "audio"]

_SERVER_FAULT: Final = re.compile(
    "internal|server|timeout|timed out|time out|unavailable|overload|capacity|try again|retry|temporar|unexpected"
)
_SOURCE_FAULT: Final = re.compile(
    "face|speech|voice|silen|no audio|no video|download|accessib|format|codec|duration|resolution|too long|too short|"
    "too large|policy|moderation|unsupported|not supported|invalid|corrupt|not found"
)


class NeverMade(InvalidRequest):
    """Raised when the server did not take one item of a batch."""


@frozen(kw_only=True)
class RetryDelays:
    """How long a row waits, in seconds, before it tries again or looks again."""

    refused: float = 5.0
    """After a 429 without `Retry-After`."""
    renewal: float = 5.0
    """Before another attempt, after a job that failed."""
    missing: tuple[float, ...] = (5.0, 15.0, 45.0)
    """While the server does not know a job that was just created."""
    download: tuple[float, ...] = (5.0, 15.0, 45.0, 135.0, 300.0)
    """After a download that failed."""
    batch_looks: PollPolicy = _BATCH_LOOKS
    """Between two looks at a batch: rarely, because no seat of the account depends on it."""


class Step(enum.Enum):
    """What to do with a row next."""

    PREPARE = enum.auto()
    """Upload its local files."""
    INTEND = enum.auto()
    """Take a seat, and record the create that is about to be sent."""
    CREATE = enum.auto()
    """Send the recorded create, again if need be, under its key."""
    SEARCH = enum.auto()
    """Search for the job by its callback id: the server may have forgotten the key."""
    WAIT = enum.auto()
    """Wait for the job."""
    RENEW = enum.auto()
    """Prepare another attempt, under the next key."""
    DOWNLOAD = enum.auto()
    """Write the file."""
    FINISH = enum.auto()
    """Record that nothing is left to do: no file is wanted."""
    NOTHING = enum.auto()
    """Everything is done."""
    GIVE_UP = enum.auto()
    """It failed, and is not tried again."""
    STOP = enum.auto()
    """Nothing more is done for it in this run."""


ENDS: Final = frozenset({Step.NOTHING, Step.GIVE_UP, Step.STOP})


@frozen(kw_only=True)
class Tools:
    """What the effects of rows work with."""

    heygen: HeyGen
    store: Store
    clock: UnixClock
    delays: RetryDelays
    searcher: Searcher = field(
        init=False, default=Factory(lambda self: Searcher(self.heygen, self.store, self.clock), takes_self=True)
    )


# Decisions


def next_step(row: PreparedRow, record: Record, now: float, *, max_attempts: int, has_file: bool) -> Step:  # noqa: PLR0911
    """Return what to do with a row next.

    Args:
        row: The row.
        record: Its record.
        now: The time.
        max_attempts: How many jobs may be created.
        has_file: Whether its file exists.
    """
    if record.is_stopped:
        return Step.STOP
    match record.state:
        case State.PLANNED:
            return Step.INTEND if _is_uploaded(row, record) else Step.PREPARE
        case State.SUBMITTING:
            return Step.CREATE if is_remembered(record, now) else Step.SEARCH
        case State.SUBMITTED:
            return Step.WAIT
        case State.COMPLETED:
            return Step.FINISH if record.target is None else Step.DOWNLOAD
        case State.DONE:
            return Step.NOTHING if record.target is None or has_file else Step.DOWNLOAD
        case State.FAILED:
            is_last = record.jobs - record.forgiven >= max_attempts
            return Step.GIVE_UP if record.is_final or is_last else Step.RENEW


def is_remembered(record: Record, now: float) -> bool:
    """Return whether the server certainly still knows the key of a create without an answer."""
    return not record.is_key_lost and record.sent_at is not None and is_key_fresh(record.sent_at, now)


def key_age(records: Sequence[Record], clock: Callable[[], float]) -> float:
    """Return the seconds since the key of a create of these rows was first sent, or since that was recorded."""
    now = clock()
    return now - min(now if record.sent_at is None else record.sent_at for record in records)


def _is_uploaded(row: PreparedRow, record: Record) -> bool:
    has_video = not _is_local(row.row.video) or record.video_asset is not None
    return has_video and (not _is_local(row.row.audio) or record.audio_asset is not None)


def _is_local(source: Source) -> bool:
    return not isinstance(source, (str, AssetId, Asset))


def intent(row: PreparedRow, record: Record, now: float, *, estimate: float) -> Record:
    """Return the record to save before the create is sent."""
    video, audio = sources_of(row, record)
    return record.sending(body_digest(video, audio, options_of(row.row)), row.row.callback_id, now, estimate=estimate)


def sources_of(row: PreparedRow, record: Record) -> tuple[str | AssetId, str | AssetId]:
    """Return the video and the audio to send: what was uploaded, or what the row says."""
    return _source(row.row.video, record.video_asset), _source(row.row.audio, record.audio_asset)


def _source(source: Source, asset_id: str | None) -> str | AssetId:
    match source:
        case str() | AssetId():
            return source
        case Asset(id=known):
            return AssetId(known)
        case _:
            assert asset_id is not None  # noqa: S101 next_step has seen to it
            return AssetId(asset_id)


def sent_options(row: PreparedRow, record: Record) -> LipsyncOptions:
    """Return the options of the recorded create."""
    options = options_of(row.row)
    if record.callback_id is not None:
        options["callback_id"] = record.callback_id
    return options


def after_create(record: Record, error: HeyGenError, delays: RetryDelays) -> Record:
    """Return the record after a create without a job."""
    record = record.not_sent() if is_settled(error, was_fresh=record.is_fresh) else record
    record = evolve(record, is_fresh=False, was_searched_for=False)
    if isinstance(error, RateLimited):
        return record.failing(error, hold=delays.refused if error.retry_after is None else error.retry_after)
    if error.is_transient or error.outcome == "not_sent":
        return record.failing(error)
    return evolve(record.stopped(error), ends_run=isinstance(error, ENDS_RUN))


def is_settled(error: HeyGenError, *, was_fresh: bool) -> bool:
    """Return whether *error* shows that no create under its key has created a job.

    That is so of a first create that was rejected or not sent. Once a create had no answer, only an answer of the API
    itself under that key settles it.
    """
    if was_fresh:
        return error.outcome in {"rejected", "not_sent"}
    return error.outcome == "rejected" and is_final_answer(error)


def ended(record: Record, job: Lipsync, *, cost: float) -> Record:
    """Return the record after the end of its job; *cost* is by the job's true length."""
    record = evolve(record, lipsync_id=job.id, job=job, tries=0)
    if job.status == LipsyncStatus.COMPLETED:
        completed = record.completed(cost, job.duration)
        return completed if record.target is not None else completed.done()
    message = job.failure_message or NO_REASON
    return record.failed(message, is_final=is_final_failure(message))


def is_final_failure(message: str | None) -> bool:
    """Return whether another attempt would fail as well, because of its sources.

    Server faults may pass, and so may what is not understood; a failed job costs nothing.
    """
    text = (message or "").lower()
    return _SERVER_FAULT.search(text) is None and _SOURCE_FAULT.search(text) is not None


# Effects


async def advance(row: PreparedRow, record: Record, step: Step, at: Tools, save: Save) -> Record:
    """Carry out one step of a row, and return its record.

    Args:
        row: The row.
        record: Its record.
        step: `PREPARE`, `CREATE`, `SEARCH`, `DOWNLOAD`, `FINISH` or `RENEW`.
        at: What to work with.
        save: Saves a record in the middle of a step.

    Raises:
        AuthenticationError, JournalError: These end the run.

    Cancelled, it leaves the store as it is: the row continues from there another time.
    """
    effect = _EFFECTS[step]
    try:
        return (await effect(row, record.before_effect(), at, save)).after_effect()
    except ENDS_RUN:
        raise
    except HeyGenError as error:
        return failed_step(record, error)
    except (OSError, ValueError) as error:
        return record.stopped(error)


def failed_step(record: Record, error: HeyGenError) -> Record:
    """Return the record after a step that failed: it is taken again if that can help."""
    return record.failing(error) if error.is_transient else record.stopped(error)


async def _prepare(row: PreparedRow, record: Record, at: Tools, _save: Save) -> Record:
    video = record.video_asset or await _uploaded(row, "video", at)
    audio = record.audio_asset or await _uploaded(row, "audio", at)
    return record.uploaded(video, audio)


async def _uploaded(row: PreparedRow, role: _Role, at: Tools) -> str | None:
    """Return the asset of a local file, uploaded now unless it was before; `None` if it is not local."""
    source: Source = row.row.video if role == "video" else row.row.audio
    if not _is_local(source):
        return None
    info = row.file(role)
    known = await at.store.asset(info.digest)
    if isinstance(source, Path):
        await check_unchanged(role, source, info)
    if known is not None:
        return known
    asset = await at.heygen.upload(source, info.digest)
    if isinstance(source, Path):
        await check_unchanged(role, source, info)  # or a job would be made of what its author has replaced
    await at.store.keep_asset(info.digest, asset.value)
    return asset.value


async def _create(row: PreparedRow, record: Record, at: Tools, _save: Save) -> Record:
    video, audio = sources_of(row, record)
    assert record.attempt_key is not None  # noqa: S101 it is recorded before anything is sent
    call = at.heygen.create(
        record.attempt_key,
        key_age=partial(key_age, [record], at.clock.now),
        video=video,
        audio=audio,
        options=sent_options(row, record),
    )
    del video, audio  # or a traceback with local variables would show their queries
    try:
        lipsync_id = await call
    except HeyGenError as error:
        return await after_failed_create(row, record, error, at)
    return record.accepted(lipsync_id)


async def after_failed_create(row: PreparedRow, record: Record, error: HeyGenError, at: Tools) -> Record:
    """Return the record after a create without a job; uploads that the server has lost are forgotten, once."""
    if error.outcome == "unknown" and not is_remembered(record, at.clock.latest()):
        return evolve(record, is_fresh=False, was_searched_for=False).failing(error)  # its job is searched for
    after = after_create(record, error, at.delays)
    is_lost = isinstance(error, NeverMade) or (isinstance(error, APIError) and error.code in UNUSABLE_ASSET)
    assets = {"video": record.video_asset, "audio": record.audio_asset}
    used = [asset for role in row.files if (asset := assets[role]) is not None]
    if not is_lost or not used or record.has_reuploaded or after.state is not State.PLANNED:
        return after
    await at.store.forget_assets(used)
    for asset_id in used:
        at.heygen.forget_upload(asset_id)
    return evolve(after.without_assets(), is_stopped=False, failure=None)


async def _search(row: PreparedRow, record: Record, at: Tools, _save: Save) -> Record:
    try:
        found = await at.searcher.find(record, row.row)
    except InDoubt as error:
        return record.in_doubt(error)
    if found is not None:
        return record.accepted(found)
    now = at.clock.now()  # the answers have shown the API's time
    # If the key is old only by our clock, the create is sent again under it.
    return evolve(record, was_searched_for=True) if is_remembered(record, now) else record.not_found(now)


async def _renew(_row: PreparedRow, record: Record, at: Tools, _save: Save) -> Record:
    return evolve(record.renewed(), hold=at.delays.renewal)


async def _finish(_row: PreparedRow, record: Record, _at: Tools, _save: Save) -> Record:
    return record.done()


async def check_target(row: PreparedRow, record: Record) -> None:
    """Check that the target can be written, and that no other file is there.

    Raises:
        DownloadError: If not.
    """
    if row.target is None:
        return
    problems = await to_thread.run_sync(output_problems, record, row.target)
    if problems:
        raise DownloadError("; ".join(problems))


async def _download(row: PreparedRow, record: Record, at: Tools, save: Save) -> Record:
    target = row.target
    assert target is not None  # noqa: S101 next_step says so
    await to_thread.run_sync(partial(target.parent.mkdir, parents=True, exist_ok=True))
    await check_target(row, record)
    path = await to_thread.run_sync(absolute_path, target)
    captions_free = await to_thread.run_sync(captions_are_free, record, target)
    is_started = await to_thread.run_sync(has_part, record, target)  # first: it may be published at any moment
    found = await to_thread.run_sync(found_at, path, record)
    if found == "ours":  # a run was interrupted just after it was published
        await to_thread.run_sync(remove_leftovers, target)
    else:
        written = record.written if is_started else None
        record = record.writing(path, written=written, captions_free=captions_free)
        await save(record)
        try:
            record = await _write_video(record, target, at, save, overwrite=found == "replaceable")
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            return _after_download(record, error, at.delays)
    published = await to_thread.run_sync(fingerprint_of, path)  # now: a later change makes it another file
    if row.captions:
        record = await _write_captions(record, target, at, overwrite=captions_free)
    return record.done(published)


async def _write_video(record: Record, target: Path, at: Tools, save: Save, *, overwrite: bool) -> Record:
    noted = record
    lengths: list[int | None] = []

    async def note_part(_done: int, total: int | None) -> None:
        nonlocal noted
        if noted.written is None or lengths != [total]:
            noted = noted.writing_part(await to_thread.run_sync(part_identity, target, total))
            lengths[:] = [total]
            await save(noted)

    await at.heygen.download(_finished_job(record), target, overwrite=overwrite, progress=note_part)
    return noted


def _after_download(record: Record, error: HeyGenError, delays: RetryDelays) -> Record:
    if not error.is_transient or record.tries >= len(delays.download):
        return record.stopped(error)
    return record.failing(error, hold=delays.download[record.tries])


async def _write_captions(record: Record, target: Path, at: Tools, *, overwrite: bool) -> Record:
    await to_thread.run_sync(remove_unwritten, captions_path(target))  # whether or not they can be written now
    try:
        await at.heygen.download_captions(_finished_job(record), target, overwrite=overwrite)
    except HeyGenError as error:
        return evolve(record, warnings=(*record.warnings, f"the captions were not written: {error}"))
    return evolve(record, captions=await to_thread.run_sync(fingerprint_of, captions_path(target)))


def _finished_job(record: Record) -> Lipsync | str:
    job = record.job or record.lipsync_id
    assert job is not None  # noqa: S101 it is completed
    return job


_EFFECTS: Final[dict[Step, Callable[[PreparedRow, Record, Tools, Save], Awaitable[Record]]]] = {
    Step.PREPARE: _prepare,
    Step.CREATE: _create,
    Step.SEARCH: _search,
    Step.RENEW: _renew,
    Step.DOWNLOAD: _download,
    Step.FINISH: _finish,
}
