"""The row program: the next step of a row, and how an answer changes its record. Pure; `effects` has the calls.

Rule 1: nothing here knows who calls it, or when.
Rule 2: a create is sent only after the record that `intent` returns was saved.
Rule 3: once a create had no answer, only an answer of the API under its key, or a complete search, settles it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from attrs import frozen

from heygen_async._ids import KEY_SECONDS, is_key_fresh
from heygen_async._wire import is_final_answer
from heygen_async.bulk.budget import length_of
from heygen_async.bulk.identity import body_digest, options_of
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.record import Record, State, evolve
from heygen_async.bulk.store import JournalError
from heygen_async.errors import (
    NO_REASON,
    UNUSABLE_ASSET,
    AuthenticationError,
    HeyGenError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    has_own_code,
)
from heygen_async.models import Asset, AssetId, Lipsync, LipsyncOptions, LipsyncStatus, Source
from heygen_async.policies import PollPolicy

ENDS_RUN: Final = (AuthenticationError, JournalError)
"""What ends the run at once. Without credit, nothing more is created, but what runs is finished."""

CreateAnswer: TypeAlias = Literal["accepted", "refused", "rejected", "failed"]
"""`refused` is a 429, `rejected` any other error that is not transient, `failed` a create without a usable answer."""

_BATCH_LOOKS: Final = PollPolicy(fastest=1.0, growth=0.25, slowest=75.0)

_SERVER_FAULT: Final = re.compile(
    "internal|server|timeout|timed out|time out|unavailable|overload|capacity|try again|retry|temporar|unexpected"
)
_SOURCE_FAULT: Final = re.compile(
    "face|speech|voice|silen|no audio|no video|download|accessib|format|codec|duration|resolution|too long|too short|"
    "too large|policy|moderation|unsupported|not supported|invalid|corrupt|not found"
)


class NeverMade(InvalidRequest):
    """Raised when the server did not take one item of a batch."""


class ItemGone(NotFound):
    """Raised when the server does not have the job of an item of a batch any more."""


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


LAST_STEPS: Final = frozenset({Step.NOTHING, Step.GIVE_UP, Step.STOP})


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


def may_be_young(record: Record, now: float) -> bool:
    """Return whether a create without an answer may be so new that the list does not show its job yet."""
    # A clock that was set back since then does not show how long ago it was sent.
    return record.sent_at is not None and now - record.sent_at <= KEY_SECONDS


def key_age(records: Sequence[Record], clock: Callable[[], float]) -> float:
    """Return the seconds since the key of a create of these rows was first sent, or since that was recorded."""
    now = clock()
    return now - min(now if record.sent_at is None else record.sent_at for record in records)


def _is_uploaded(row: PreparedRow, record: Record) -> bool:
    has_video = not is_local(row.row.video) or record.video_asset is not None
    return has_video and (not is_local(row.row.audio) or record.audio_asset is not None)


def is_local(source: Source) -> bool:
    """Return whether *source* has to be uploaded."""
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
    is_final = record.state is State.PLANNED and is_of_item(error)
    return evolve(record.stopped(error), is_final=is_final, ends_run=isinstance(error, ENDS_RUN))


def is_of_item(error: HeyGenError) -> bool:
    """Return whether a create, or a batch of them, failed because of something in it."""
    if isinstance(error, NotFound | PermissionDenied):  # a folder or an asset, if the API names one
        return error.code in UNUSABLE_ASSET or error.param is not None or any(one.path for one in error.errors)
    return isinstance(error, InvalidRequest)


def answer_of(record: Record) -> CreateAnswer:
    """Return how the last create of this record was answered."""
    error = record.failure
    if record.state is State.SUBMITTED:
        return "accepted"
    if isinstance(error, RateLimited):
        return "refused"
    is_unanswered = isinstance(error, HeyGenError) and error.is_transient
    return "failed" if is_unanswered else "rejected"


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
        completed = record.completed(cost, length_of(job))
        return completed if record.target is not None else completed.done()
    message = job.failure_message or NO_REASON
    return record.failed(message, is_final=is_final_failure(message))


def is_final_failure(message: str | None) -> bool:
    """Return whether another attempt would fail as well, because of its sources.

    Server faults may pass, and so may what is not understood; a failed job costs nothing.
    """
    text = (message or "").lower()
    return _SERVER_FAULT.search(text) is None and _SOURCE_FAULT.search(text) is not None


def is_gone(record: Record, error: Exception) -> bool:
    """Return whether the API itself, not a gateway, says that it does not have the job of a row."""
    if record.lipsync_id is None:
        return isinstance(error, ItemGone)
    return isinstance(error, NotFound) and has_own_code(error)


def failed_step(record: Record, error: HeyGenError) -> Record:
    """Return the record after a step that failed: it is taken again if that can help."""
    return record.failing(error) if error.is_transient else record.stopped(error)


def failed_download(record: Record, error: HeyGenError, delays: RetryDelays) -> Record:
    """Return the record after a download that failed: it is repeated a few times."""
    if not error.is_transient or record.tries >= len(delays.download):
        return record.stopped(error)
    return record.failing(error, hold=delays.download[record.tries])


def timed(step: Step, record: Record, before: Record, seconds: float) -> Record:
    """Return *record* with the time that a step has taken; *before* is the record before it."""
    match step:
        case Step.PREPARE:
            return evolve(record, upload_seconds=(before.upload_seconds or 0.0) + seconds)
        case Step.CREATE:
            return evolve(record, submit_seconds=seconds)
        case Step.DOWNLOAD:
            return evolve(record, download_seconds=seconds)
        case _:
            return record
