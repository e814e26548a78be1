"""One row on its way: what `next_step` says is done, what came of it is written down, until nothing is left to do.

Rule 1: what is said here of a create holds for every path through it: the intent is on the disk before the first
byte leaves, and what is known afterwards is written down before anything else is done for the row.
Rule 2: a row fails alone. Only what concerns all rows (the key, the credit, the journal, an outage without an end)
leaves it, as `Fatal`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from anyio import to_thread
from attrs import define, evolve, field, frozen

from heygen_async._wire import is_final_answer
from heygen_async.bulk import outputs, steps
from heygen_async.bulk.budget import Budget, OverBudget
from heygen_async.bulk.identity import body_digest, options_of
from heygen_async.bulk.intake import PreparedRow, check_unchanged
from heygen_async.bulk.journal import Journal, JournalError
from heygen_async.bulk.progress import DubEvent, Stage, Tally
from heygen_async.bulk.record import Record, State, Step, next_step
from heygen_async.bulk.searching import Searcher
from heygen_async.bulk.slots import Slots
from heygen_async.errors import (
    AuthenticationError,
    DownloadError,
    HeyGenError,
    InsufficientCredit,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
    RateLimited,
)
from heygen_async.models import Asset, AssetId, DubOutcome, Lipsync, LipsyncOptions, LipsyncStatus, Source
from heygen_async.policies import PollPolicy
from heygen_async.session import HeyGenSession

if TYPE_CHECKING:
    from heygen_async.bulk.batches import Batcher

T = TypeVar("T")

CONCERNS_ALL: Final = (AuthenticationError, JournalError)
"""What ends the run at once. Without credit, nothing more is created, but what runs is finished."""
GONE: Final = frozenset({"asset_not_found", "asset_not_available"})

_UNDER_WAY: Final = frozenset({State.SUBMITTING, State.SUBMITTED})

_TRIES: Final = 6
"""How often a request without a usable answer is tried for a row, while others have answers."""

_FOR_ITS_SEAT: Final = PollPolicy(fastest=0.05, growth=0.045)
"""How often to look at a job for whose seat others wait: soon at a short one, else so that what it costs is fair.

A seat is idle from the end of its job until that is seen, half a look on average. Over a thousand jobs this makes a
run of 60 s jobs on 10 seats 2.6 % longer than it could be, for less than 3 looks a row.
"""

_SERVER_FAULTS: Final = (
    "internal",
    "server",
    "timeout",
    "timed out",
    "time out",
    "unavailable",
    "overload",
    "capacity",
    "try again",
    "retry",
    "temporar",
    "unexpected",
)
_SOURCE_FAULTS: Final = (
    "face",
    "speech",
    "voice",
    "silen",
    "no audio",
    "no video",
    "download",
    "accessib",
    "format",
    "codec",
    "duration",
    "resolution",
    "too long",
    "too short",
    "too large",
    "policy",
    "moderation",
    "unsupported",
    "not supported",
    "invalid",
    "corrupt",
    "not found",
)


class Fatal(Exception):
    """Carries what ends the run out of a row."""

    def __init__(self, error: HeyGenError) -> None:
        self.error = error
        super().__init__(str(error))


class NeverMade(InvalidRequest):
    """Raised when the server did not take one item of a batch."""


@frozen(kw_only=True)
class Patience:
    """How long a row waits before it tries again, in seconds."""

    refused: float = 5.0
    """After a 429 that says no time."""
    renewal: float = 5.0
    """Before another job is asked for in place of one that failed."""
    missing: tuple[float, ...] = (5.0, 15.0, 45.0)
    """While the server does not know a job that it has just made."""
    download: tuple[float, ...] = (5.0, 15.0, 45.0, 135.0, 300.0)
    """After a download that failed."""
    look_growth: float = 0.25
    look_fastest: float = 1.0
    look_slowest: float = 75.0
    """Between two looks at a batch: a share of its age, from and to. No seat of the account waits for it."""

    def look_interval(self, age: float) -> float:
        """Return the seconds to the next look at a batch."""
        return min(max(self.look_growth * age, self.look_fastest), self.look_slowest)


@define(eq=False, kw_only=True)
class Workshop:
    """What the rows of a run share."""

    heygen: HeyGenSession
    creates: HeyGenSession
    """A view of the session that raises a 429 instead of waiting: it is the limiter's."""
    journal: Journal
    slots: Slots
    budget: Budget
    searcher: Searcher
    tally: Tally
    max_attempts: int
    patience: Patience
    downloads: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(4))
    """Half of the session's transfers: the other half is left for uploads, which creates wait for."""
    batcher: Batcher
    """Sends rows in batches, if that is how they go, and waits for those that went so."""
    is_batching: bool = False
    check_account: Callable[[], Awaitable[None]]
    """Checks, once in a run, that the key belongs to the journal's account."""
    now: Callable[[], float] = time.time
    """The time of the world, by which a server forgets keys."""
    over_budget: OverBudget | None = None
    no_credit: InsufficientCredit | None = None
    """Why rows are left out, once some are."""
    _settled: asyncio.Event = field(factory=asyncio.Event)

    def clock(self) -> float:
        """Return the event loop's time."""
        return asyncio.get_running_loop().time()

    async def afford(self, task: PreparedRow, *, before_waiting: Callable[[], None]) -> float:
        """Reserve what a job is thought to cost, and return it.

        Where the budget does not bear it, but may once others have turned out to cost less, it waits for them.

        Raises:
            OverBudget: If it will not.
        """
        while not self.budget.reserve(
            price := self.budget.price(task.row.mode, task.seconds), is_guess=task.seconds is None
        ):
            self.check_credit()
            if not self.budget.may_fit(price):
                self.over_budget = OverBudget(f"the budget of ${self.budget.limit:,.2f} would be passed")
                raise self.over_budget
            before_waiting()
            await self._settled.wait()
        return price

    def settle(self, stake: float, cost: float) -> None:
        """Count what a job cost instead of what was reserved for it, and wake the rows that wait for the budget."""
        self.budget.settle(stake, cost)
        self._wake()

    def stop_creating(self, error: InsufficientCredit) -> None:
        """Create nothing more, because the credit is used up; what runs is finished."""
        self.no_credit = self.no_credit or error
        self._wake()

    def check_credit(self) -> None:
        """Check that the account is not known to be out of credit.

        Raises:
            InsufficientCredit: If it is.
        """
        if self.no_credit is not None:
            raise self.no_credit.fresh()

    def _wake(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()

    async def retried(self, call: Callable[[], Awaitable[T]], tries: Tries) -> T:
        """Return what *call* returns, which creates depend on; transient errors are retried.

        Raises:
            HeyGenError: If the error is not transient, or others had answers meanwhile.
            Fatal: If the API does not answer for too long.
        """
        while True:
            try:
                result = await call()
            except HeyGenError as error:
                if not error.is_transient:
                    raise
                self.slots.trouble()
                tries.note(error, self.slots)
                await asyncio.sleep(self.slots.weather.next_chance() - self.slots.clock())
            else:
                self.slots.relief()
                return result

    def polling(self) -> PollPolicy | None:
        """Return how often to look at a job: for its seat, if rows wait for one and the caller leaves it to us."""
        is_scarce = self.slots.wanted and self.heygen.poller.policy == PollPolicy()
        return _FOR_ITS_SEAT if is_scarce else None


@define
class Tries:
    """Counts the tries of one create or upload that had no usable answer."""

    _count: int = 0
    _answers: int = -1

    def note(self, error: HeyGenError, slots: Slots) -> None:
        """Raise *error* when it is enough: this one's own fault if others had answers meanwhile, else an outage.

        Raises:
            Fatal: For an outage without an end.
        """
        slots.last_trouble = str(error)
        if slots.answers != self._answers:
            self._count, self._answers = self._count + 1, slots.answers
        if self._count >= _TRIES:
            raise error
        if slots.weather.is_hopeless(slots.clock()):
            raise Fatal(error)


def is_final_failure(message: str | None) -> bool:
    """Tell from a job's failure message whether another job would fail as well, because of what it was given.

    Server faults pass, and so may what is not understood; a failed job costs nothing.
    """
    text = (message or "").lower()
    return not any(word in text for word in _SERVER_FAULTS) and any(word in text for word in _SOURCE_FAULTS)


@define(eq=False)
class RowRun:
    """One row in one run."""

    shop: Workshop
    task: PreparedRow
    record: Record
    on_submitted: Callable[[], None] = lambda: None
    """Called once the row does not stand before its create any more."""
    has_file: bool = False
    """Whether its file existed when the run came to it, or was written since."""
    warnings: tuple[str, ...] = ()
    """What went wrong beside the video."""
    lipsync: Lipsync | None = None
    _stage: Stage | None = None
    _has_worked: bool = False
    _is_in_flight: bool = False
    _has_reuploaded: bool = False
    _held_until: float = 0.0
    _stake: float | None = None
    """What is reserved for its job, while that may turn out to cost less."""
    _tries: Tries = field(factory=Tries)

    async def outcome(self) -> DubOutcome:
        """Do all that is left to do, and return what became of it.

        Raises:
            Fatal: If something went wrong that concerns all rows.

        Cancelled, it leaves the journal as it is: the row goes on from there another time.
        """
        try:
            done = await self._drive()
        except OverBudget as reason:
            return self._end("skipped", reason)
        except InsufficientCredit as error:
            self.shop.stop_creating(error)
            return self._end("skipped", error)
        except CONCERNS_ALL as error:
            raise Fatal(error) from error
        except (HeyGenError, OSError, ValueError) as error:
            try:
                await self._save(self.record.troubled(str(error)))
            except JournalError as worse:
                raise Fatal(worse) from worse
            return self._end("failed", error)
        finally:
            self.on_submitted()
            self._settle(self._stake)  # whatever it is, nothing more will be known of it
        if done is Step.GIVE_UP:
            return self._end("failed", LipsyncFailed(self._failed_lipsync()))
        if self._has_worked:
            return self._end("completed", None)
        return self._end("unchanged", None, path=await self._unchanged_path())

    async def _unchanged_path(self) -> Path | None:
        """Return the file of a row that was finished before, unless it is not the file that was written."""
        if self.task.target is None or not await to_thread.run_sync(outputs.is_changed, self.record):
            return self.task.target
        self.warnings += (f"{self.task.target} has changed since it was written; it was left as it is",)
        return None

    def next_step(self) -> Step:
        """Return what is to be done next."""
        return next_step(self.record, self.shop.now(), max_attempts=self.shop.max_attempts, has_file=self.has_file)

    async def _drive(self) -> Step:
        # One that was cut off in a batch waits for the others of it first, and they may wait for the budget.
        if self.record.state in _UNDER_WAY and (self.record.batch is None or self.record.batch_id is not None):
            self._resume_stake()
        while (step := self.next_step()) not in {Step.NOTHING, Step.GIVE_UP}:
            if not self._has_worked:
                await self.shop.check_account()
            self._has_worked = True
            try:
                await self._do(step)
            finally:
                if self.record.state not in _UNDER_WAY:
                    self._settle(self.record.estimate)
        return step

    def _resume_stake(self) -> None:
        self._stake = self.record.estimate
        self.shop.budget.resume(self._stake)

    def _settle(self, cost: float | None) -> None:
        if self._stake is not None:
            self.shop.settle(self._stake, cost or 0.0)
            self._stake = None

    async def _do(self, step: Step) -> None:  # noqa: PLR0911 one line for each
        match step:
            case Step.SEND:
                return await self.send()
            case Step.REPEAT:
                return await self.repeat()
            case Step.SEARCH:
                return await self.search()
            case Step.RENEW:
                return await self.renew()
            case Step.WAIT:
                return await self.wait()
            case Step.DOWNLOAD:
                return await self.download()
            case _:
                return await self._save(self.record.done())

    # Up to the job

    async def send(self) -> None:
        """Upload what is local, note the create, and send it."""
        self.shop.check_credit()
        await self._check_target()
        if not self.shop.searcher.is_prepared:
            await self.shop.retried(self.shop.searcher.prepare, self._tries)
        if await self._adopt():
            return
        # Others may wait for this one, as those do that want to share a batch: not while it waits for what they cost.
        self._stake = await self.shop.afford(self.task, before_waiting=self.on_submitted)
        video, audio = await self._ready("video"), await self._ready("audio")
        if self.shop.is_batching:
            self._tell("waiting")
            try:
                await self.shop.batcher.join(self, video, audio)
            except (InvalidRequest, NotFound) as error:
                if not await self._forget_assets(error):
                    raise
            return
        lesson = await self._enter()
        try:
            self.shop.check_credit()
            await self._save(self.intent(video, audio))
        except BaseException:
            self.shop.slots.dropped()
            raise
        await self._submit(lesson, was_fresh=True)

    async def repeat(self) -> None:
        """Send the create again, the very same under the same key."""
        if self.record.batch is not None:
            await self.shop.batcher.rejoin(self)
            if self.record.state in _UNDER_WAY:
                self._resume_stake()
            return
        lesson = await self._enter()
        if self.next_step() is not Step.REPEAT:  # it was so long in coming that the server may have forgotten the key
            self.shop.slots.dropped()
            return
        await self._submit(lesson, was_fresh=False)

    async def search(self) -> None:
        """Search for the job: the server may have forgotten its key."""
        found = await self.shop.retried(partial(self.shop.searcher.find, self.record, self.task.row), self._tries)
        now = self.shop.now()
        await self._save(self.record.not_found(now) if found is None else self.record.accepted(found))

    async def _adopt(self) -> bool:
        """Adopt the job that an interrupted run created for this row without a record of it, if there is one."""
        found = await self.shop.searcher.lost_job(self.record, self.task.row, self.shop.max_attempts)
        if found is None:
            return False
        price = self.shop.budget.price(self.task.row.mode, self.task.seconds)
        self._stake = price
        self.shop.budget.spent += price
        self.shop.budget.resume(price)
        await self._save(self.record.adopted(*found, self.shop.now(), estimate=price))
        return True

    async def renew(self) -> None:
        """Prepare another attempt."""
        self._tell("waiting", f"the job failed and is tried again: {self.record.error}")
        self.record = self.record.renewed()
        self._held_until = self.shop.clock() + self.shop.patience.renewal

    async def _check_target(self) -> None:
        """Check that the target can be written, and that no file of anybody else is there.

        Raises:
            DownloadError: If not.
        """
        if self.task.target is None:
            return
        problems = await to_thread.run_sync(outputs.problems, self.record, self.task.target)
        if problems:
            raise DownloadError("; ".join(problems))

    async def _ready(self, name: Literal["video", "audio"]) -> str | AssetId:
        source: Source = getattr(self.task.row, name)
        match source:
            case str() | AssetId():
                return source
            case Asset(id=asset_id):
                return AssetId(asset_id)
        info = self.task.file(name)
        known = await self.shop.journal.asset(info.digest)
        if isinstance(source, Path):
            await check_unchanged(name, source, info, reads=False)
        if known is not None:
            return AssetId(known)
        asset = await self._upload(source)
        if isinstance(source, Path):
            await check_unchanged(name, source, info, reads=True)
        await self.shop.journal.keep_asset(info.digest, asset.value)
        return asset

    async def _upload(self, source: Source) -> AssetId:
        self._tell("uploading")
        started = self.shop.clock()
        asset = await self.shop.retried(partial(steps.upload, self.shop.heygen, source), self._tries)
        seconds = (self.record.upload_seconds or 0.0) + self.shop.clock() - started
        self.record = evolve(self.record, upload_seconds=seconds)
        return asset

    async def _enter(self) -> int:
        self._tell("waiting")
        lesson = await self.shop.slots.enter(self.task.number, self._held_until)
        self._tell("submitting")
        return lesson

    def intent(self, video: str | AssetId, audio: str | AssetId) -> Record:
        """Return what is to be written down before the create is sent."""
        shop, row = self.shop, self.task.row
        assets = (_asset_id(video), _asset_id(audio))
        body = body_digest(video, audio, options_of(row))
        return self.record.sending(body, row.callback_id, shop.now(), assets=assets, estimate=self._stake or 0.0)

    async def _submit(self, lesson: int, *, was_fresh: bool) -> None:
        shop, started = self.shop, self.shop.clock()
        try:
            video, audio, options = self.call()
            key = self.record.attempt_key
            assert key is not None  # noqa: S101 it is recorded before anything is sent
            lipsync_id = await steps.submit(shop.creates, key, video=video, audio=audio, options=options)
        except HeyGenError as error:
            await self._not_accepted(error, lesson, was_fresh=was_fresh)
        except BaseException:
            shop.slots.dropped()
            raise
        else:
            shop.slots.accepted()
            self._is_in_flight = True
            await self._save(evolve(self.record.accepted(lipsync_id), submit_seconds=shop.clock() - started))

    def call(self) -> tuple[str | AssetId, str | AssetId, LipsyncOptions]:
        """Return what is sent, or was sent before. A row of which more than a signature has changed is not admitted.

        Raises:
            ValueError: If the record does not say what was uploaded.
        """
        row, record = self.task.row, self.record
        video = AssetId(record.video_asset) if record.video_asset is not None else row.video
        audio = AssetId(record.audio_asset) if record.audio_asset is not None else row.audio
        options = options_of(row)
        if not isinstance(video, (str, AssetId)) or not isinstance(audio, (str, AssetId)):
            raise ValueError(f"what was uploaded for {record.key} is not in the journal")  # noqa: TRY004 of a row
        if record.callback_id is not None:
            options["callback_id"] = record.callback_id
        return video, audio, options

    async def _not_accepted(self, error: HeyGenError, lesson: int, *, was_fresh: bool) -> None:
        """Draw the conclusions from a create without a job; return if the row goes on."""
        slots = self.shop.slots
        is_refusal, is_answer = isinstance(error, RateLimited), not error.is_transient
        if isinstance(error, RateLimited):
            slots.refused(lesson, error.retry_after)
            wait = self.shop.patience.refused if error.retry_after is None else error.retry_after
            self._held_until = self.shop.clock() + wait
        elif is_answer:
            slots.answered()
        else:
            slots.troubled()
        if is_settled(error, was_fresh=was_fresh):
            await self._save(self.record.not_sent(str(error)))
        self._tell("waiting", str(error))
        if is_refusal or (is_answer and await self._forget_assets(error)):
            return
        if is_answer:
            raise error
        self._tries.note(error, self.shop.slots)

    async def _forget_assets(self, error: HeyGenError) -> bool:
        """Forget uploads that the server does not have any more, and tell whether there were any."""
        assets = {"video": self.record.video_asset, "audio": self.record.audio_asset}
        used = [asset for name in self.task.files if (asset := assets[name]) is not None]
        is_one_of_them = isinstance(error, NeverMade) or getattr(error, "code", None) in GONE  # items have no codes
        if not used or self._has_reuploaded or not is_one_of_them:
            return False
        self._has_reuploaded = True
        await self.shop.journal.forget_assets(used)
        for asset_id in used:
            self.shop.heygen.assets.forget(AssetId(asset_id))
        return True

    # From the job on

    async def wait(self) -> None:
        """Wait for the job."""
        self.on_submitted()
        self._tell("running")
        is_alone = self.record.batch_id is None  # what runs in a batch takes no seat of the account
        if is_alone and not self._is_in_flight:
            self.shop.slots.adopt()
        self._is_in_flight = is_alone
        started = self.shop.clock()
        try:
            self.lipsync = await self._awaited()
            failure = None
        except LipsyncFailed as failed:
            self.lipsync = failed.lipsync
            failure = failed.lipsync.failure_message or "no reason was given"
        except NeverMade as error:
            await self._save(self.record.never_made(str(error)))
            if not await self._forget_assets(error):
                raise
            return
        finally:
            if self._is_in_flight:
                self._is_in_flight = False
                self.shop.slots.finished()
        record = evolve(self.record, lipsync_id=self.lipsync.id, wait_seconds=self.shop.clock() - started)
        if failure is None:
            await self._save(record.completed(self._true_price(self.lipsync)))
        else:
            await self._save(record.failed(failure, is_final=is_final_failure(failure)))

    async def _awaited(self) -> Lipsync:
        for pause in (*self.shop.patience.missing, None):
            try:
                if self.record.lipsync_id is None:
                    return await self.shop.batcher.result(self)
                return await steps.wait(
                    self.shop.heygen, self.record.lipsync_id, asked_at=self.record.asked_at, policy=self.shop.polling()
                )
            except NotFound:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError  # the last pause is None

    def _true_price(self, lipsync: Lipsync) -> float:
        """Return the price by the true length."""
        if lipsync.duration is None:
            return self.record.estimate
        self.shop.budget.learn_length(lipsync.duration)
        return self.shop.budget.price(self.task.row.mode, lipsync.duration)

    async def download(self) -> None:
        """Write the video, and then its captions if they are wanted."""
        self.on_submitted()
        target = self.task.target
        assert target is not None  # noqa: S101 next_step says so
        async with self.shop.downloads:
            self._tell("downloading")
            started = self.shop.clock()
            await to_thread.run_sync(partial(target.parent.mkdir, parents=True, exist_ok=True))
            await self._check_target()
            captions_free = await to_thread.run_sync(outputs.captions_are_free, self.record, target)
            path = await to_thread.run_sync(outputs.absolute, target)
            is_published = await to_thread.run_sync(
                outputs.is_file, path
            )  # it is ours: a run was interrupted just then
            if not is_published:
                await self._save(self.record.writing(path, captions_free=captions_free))
                await self._fetch(target)
            written = await to_thread.run_sync(outputs.fingerprint, path)
            if self.task.captions:
                await self._fetch_captions(target, overwrite=captions_free)
        self.has_file = True
        await self._save(evolve(self.record.done(written), download_seconds=self.shop.clock() - started))

    async def _fetch(self, target: Path) -> None:
        was_emptied = await to_thread.run_sync(os.path.lexists, target)

        async def note(_done: int, _total: int | None) -> None:
            if self.record.written is None:
                await self._save(self.record.writing_part(await to_thread.run_sync(outputs.part_identity, target)))

        for pause in (*self.shop.patience.download, None):
            try:
                await steps.download(
                    self.shop.heygen, self._finished_job(), target, overwrite=was_emptied, progress=note
                )
            except HeyGenError as error:
                if pause is None or not error.is_transient:
                    raise
                self._tell("downloading", str(error))
                await asyncio.sleep(pause)
            else:
                return

    async def _fetch_captions(self, target: Path, *, overwrite: bool) -> None:
        try:
            await steps.download_captions(self.shop.heygen, self._finished_job(), target, overwrite=overwrite)
        except HeyGenError as error:
            self.warnings += (f"the captions were not written: {error}",)
            self._tell("downloading", self.warnings[-1])

    def _finished_job(self) -> Lipsync | str:
        job = self.lipsync or self.record.lipsync_id
        assert job is not None  # noqa: S101 it is completed
        return job

    # What is told

    async def _save(self, record: Record) -> None:
        self.record = record
        await self.shop.journal.save(record)

    def _tell(self, stage: Stage, message: str | None = None) -> None:
        before, self._stage = self._stage, stage
        if before == stage and message is None:
            return
        event = DubEvent(
            stage=stage,
            key=self.task.key,
            place=self.task.place,
            lipsync_id=self.record.lipsync_id,
            message=message,
        )
        self.shop.tally.tell(event, before)

    def _end(
        self,
        state: Literal["completed", "unchanged", "failed", "skipped"],
        error: Exception | None,
        *,
        path: Path | None = None,
    ) -> DubOutcome:
        self._tell(state, None if error is None else str(error))
        return DubOutcome(
            row=self.task.row,
            key=self.task.key,
            state=state,
            lipsync=self.lipsync,
            path=self.task.target if state == "completed" else path,
            error=error,
            attempts=self.record.jobs,
            warnings=self.warnings,
        )

    def _failed_lipsync(self) -> Lipsync:
        if self.lipsync is not None:
            return self.lipsync
        return Lipsync(id=self.record.lipsync_id or "", status=LipsyncStatus.FAILED, failure_message=self.record.error)


def _asset_id(source: str | AssetId) -> str | None:
    return source.value if isinstance(source, AssetId) else None


def is_settled(error: HeyGenError, *, was_fresh: bool) -> bool:
    """Return whether *error* shows that no create under its key has created a job.

    That is so of a first create that was rejected or not sent. Once a create had no answer, only an answer of the API
    itself under that key settles it.
    """
    if was_fresh:
        return error.outcome in {"rejected", "not_sent"}
    return error.outcome == "rejected" and is_final_answer(error)
