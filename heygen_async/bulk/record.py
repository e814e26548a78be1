"""The record of a row: its state, and the changes of it. Pure; `program` says what to do next.

Rule 1: nothing here waits or reads a clock; times are unix timestamps in seconds and come as arguments.
Rule 2: a row has at most one job that may cost money. A create is recorded before it is sent, under a key that is
used for this row and this body only. While its outcome is unknown, it is repeated under the same key for as long as
the server remembers that; later the job is searched for first.
Rule 3: a second job is created only after the first was seen to fail, or its video was rejected, under another key.
Rule 4: what is recorded of a file holds for that path and that file only.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from heygen_async.bulk.attempt_keys import attempt_key
from heygen_async.errors import APIError
from heygen_async.models import Lipsync

if TYPE_CHECKING:
    from attrs import evolve as evolve  # noqa: PLC0414 for type checkers, who know it
else:

    def evolve(record: Record, **changes: object) -> Record:
        """Return *record* with changes, as `attrs.evolve` does it, in a fifth of the time."""
        changed = object.__new__(Record)
        vars(changed).update(vars(record), **changes)
        return changed


_NOT_SAVED: Final[Mapping[str, bool]] = {"saved": False}


class State(enum.StrEnum):
    """The state of a row."""

    PLANNED = "planned"
    """There is no job, and no request that could have created one."""
    SUBMITTING = "submitting"
    """A create was sent or is about to be; its outcome is not known."""
    SUBMITTED = "submitted"
    """There is a job."""
    COMPLETED = "completed"
    """The job is completed; its file is not written yet."""
    DONE = "done"
    """Nothing is left to do."""
    FAILED = "failed"
    """The job failed."""


UNDER_WAY: Final = frozenset({State.SUBMITTING, State.SUBMITTED})
"""States of a row whose job may run, and is paid for then."""
WITHOUT_A_JOB: Final = frozenset({State.PLANNED, State.FAILED})
"""States of a row without a job that could still be completed."""


@frozen(kw_only=True, slots=False)  # for evolve
class Record:
    """What the journal knows of one row. It contains no link and no secret."""

    key: str
    inputs: str
    """Digest of everything that is sent for the row."""
    number: int = 0
    """The number of the row, from 1, in the last run that had it."""
    place: str = ""
    """Where the row is listed, for people: `line 12`."""
    target: str | None = None
    """The file to write; `None` writes none."""
    state: State = State.PLANNED
    attempt: int = 1
    """The number of the current attempt key."""
    attempt_key: str | None = None
    """The idempotency key of the create that was, or is about to be, sent."""
    body: str | None = None
    """Digest of that create."""
    callback_id: str | None = None
    """The callback id in it."""
    video_asset: str | None = None
    audio_asset: str | None = None
    """What was uploaded for it."""
    sent_at: float | None = None
    """When it was first sent, or when a search last showed that there is no job of it; `None` if it was not sent, or if
    only a search can settle whether there is one."""
    batch: str | None = None
    """The key of the batch that it was sent in."""
    item: int | None = None
    """Its index in that batch, from 0."""
    batch_id: str | None = None
    """The batch, once it exists; the job is known only when the item has ended."""
    lipsync_id: str | None = None
    earlier: tuple[str, ...] = ()
    """The failed jobs of earlier attempts."""
    forgiven: int = 0
    """How many of them do not count any more, because the caller requested another attempt."""
    writing_to: str | None = None
    """The absolute path that was free when this row began to write to it."""
    written: str | None = None
    """Fingerprint of the file that this row has written there; until the row is done, only its device, inode and
    length, and without the length while that is not known."""
    captions_free: bool = False
    """Whether the path of its captions was free as well."""
    captions: str | None = None
    """Fingerprint of the captions that this row has written beside it."""
    replaces: str | None = None
    """Fingerprint of its file of an earlier job, which the next one may replace."""
    is_final: bool = False
    """Whether the failure is one that another attempt would meet again: of the job, or of a create that was refused."""
    error: str | None = None
    """What went wrong last."""
    estimate: float = 0.0
    """The estimated cost of its job, in dollars."""
    earlier_estimate: float = 0.0
    """The estimated cost of the jobs before it that were not wanted."""
    seconds: float | None = None
    """The length of its output in seconds."""
    draft: str | None = None
    """The key of the row that is its draft; `None` if it is no final version of another row."""
    draft_job: str | None = None
    """The job of that draft that was approved."""
    upload_seconds: float | None = None
    submit_seconds: float | None = None
    wait_seconds: float | None = None
    download_seconds: float | None = None
    version: int = 0
    """How often it was saved."""

    # Of this run only: not saved.
    is_fresh: bool = field(default=False, eq=False, metadata=_NOT_SAVED)
    """Whether the create in the record has not been sent yet."""
    failure: Exception | None = field(default=None, eq=False, metadata=_NOT_SAVED)
    """What went wrong with the last effect."""
    is_key_lost: bool = field(default=False, eq=False, metadata=_NOT_SAVED)
    """Whether the server may have forgotten the key of its create, whatever the clock says."""
    was_searched_for: bool = field(default=False, eq=False, metadata=_NOT_SAVED)
    """Whether a search has shown that its create, which has no answer, made no job."""
    is_stopped: bool = field(default=False, eq=False, metadata=_NOT_SAVED)
    """Whether nothing more is done for the row in this run."""
    ends_run: bool = field(default=False, eq=False, metadata=_NOT_SAVED)
    """Whether the failure ends the whole run."""
    tries: int = field(default=0, eq=False, metadata=_NOT_SAVED)
    """How often the same effect has failed in a row."""
    hold: float = field(default=0.0, eq=False, metadata=_NOT_SAVED)
    """Seconds to wait before the next effect."""
    has_reuploaded: bool = field(default=False, eq=False, metadata=_NOT_SAVED)
    """Whether its files were uploaded again because the server had lost them."""
    outdated_assets: tuple[str, ...] = field(default=(), eq=False, metadata=_NOT_SAVED)
    """Uploads of an attempt that failed: the next one does not use them, because they may have caused the failure."""
    group: str | None = field(default=None, eq=False, metadata=_NOT_SAVED)
    """The group of rows that it is to share its next batch with."""
    job: Lipsync | None = field(default=None, eq=False, metadata=_NOT_SAVED)
    """The job as it was last seen."""
    warnings: tuple[str, ...] = field(default=(), eq=False, metadata=_NOT_SAVED)
    """What went wrong beside the video."""

    @property
    def jobs(self) -> int:
        """How many jobs it has had."""
        return len(self.earlier) + (self.lipsync_id is not None or self.batch_id is not None)

    @property
    def assets(self) -> tuple[str, ...]:
        """What was uploaded for it."""
        return tuple(asset for asset in (self.video_asset, self.audio_asset) if asset is not None)

    @property
    def is_ours_to_find(self) -> bool:
        """Whether a job with its callback id is certainly the job of this row and this attempt."""
        return self.callback_id == attempt_key(self.key, self.inputs, self.attempt)

    # Each of these returns the record to save after something happened to the row.

    def sending(
        self,
        body: str,
        callback_id: str | None,
        now: float,
        *,
        estimate: float = 0.0,
    ) -> Record:
        """Return the record to save before the first create of an attempt is sent.

        Args:
            body: The `body_digest` of what is sent, without a callback id of ours.
            callback_id: The row's own; without one the attempt key is sent, so that the job can be found in the list.
            now: The time.
            estimate: The estimated cost, in dollars.
        """
        if self.state is not State.PLANNED:
            raise ValueError(f"{self.key} is {self.state}")
        # The server may replay a refusal too, so another body goes under another key.
        attempt = self.attempt + self._is_another_create(body)
        key = attempt_key(self.key, self.inputs, attempt)
        return evolve(
            self,
            state=State.SUBMITTING,
            attempt=attempt,
            attempt_key=key,
            body=body,
            callback_id=callback_id or key,
            sent_at=now,
            error=None,
            is_final=False,
            estimate=estimate,
            is_fresh=True,
            was_searched_for=False,
        )

    @property
    def _was_refused(self) -> bool:
        """Whether its last create was refused for good: after a 429 it goes under its key again."""
        return self.state is State.PLANNED and self.body is not None and self.error is not None

    def _is_another_create(self, body: str) -> bool:
        if self.body is None:
            return False
        if self._was_refused:  # perhaps for a signature that had expired
            return self.body != body
        return self.body.partition(".")[0] != body.partition(".")[0]

    def in_batch(self, batch: str, item: int) -> Record:
        """Return the record of a row that is sent as an item of a batch."""
        return evolve(self, batch=batch, item=item, group=None)

    def not_sent(self) -> Record:
        """Return the record after a create that certainly created no job."""
        return evolve(
            self,
            state=State.PLANNED,
            batch=None,
            item=None,
            batch_id=None,
            sent_at=None,
            error=None,
            estimate=0.0,
            is_key_lost=False,
        )

    def never_made(self) -> Record:
        """Return the record after the server took the batch, but not this item."""
        # The server keeps the batch under its key, with that answer: the next create goes under another.
        return evolve(self.not_sent(), body="")

    def not_found(self, now: float) -> Record:
        """Return the record after a complete search found no job: the create may be sent again."""
        # An item is not sent alone under the key of its batch. If the clock was set back since then, it may be new.
        if self.batch is not None and (self.sent_at is None or now >= self.sent_at):
            return self.not_sent()
        return evolve(self, sent_at=now, is_key_lost=False, was_searched_for=True)

    def in_doubt(self, error: Exception) -> Record:
        """Return the record after a search that did not show for certain which job is the row's.

        From then on only a search settles it: whatever a clock says later, its key is never sent again.
        """
        return evolve(self.stopped(error), sent_at=None)

    def accepted(self, lipsync_id: str) -> Record:
        """Return the record once there is a job."""
        return evolve(self, state=State.SUBMITTED, lipsync_id=lipsync_id, error=None, is_fresh=False)

    def accepted_in(self, batch_id: str) -> Record:
        """Return the record once there is a batch."""
        return evolve(self, state=State.SUBMITTED, batch_id=batch_id, error=None, is_fresh=False)

    def adopted(self, attempt: int, lipsync_id: str, now: float, *, estimate: float) -> Record:
        """Return the record of a row whose job was created in an earlier run that could not record it."""
        key = attempt_key(self.key, self.inputs, attempt)
        found = evolve(
            self, attempt=attempt, attempt_key=key, callback_id=key, sent_at=now, estimate=estimate, body=None
        )
        return found.accepted(lipsync_id)

    def completed(self, estimate: float, seconds: float | None = None) -> Record:
        """Return the record once the job is completed; *estimate* is now from its true length, *seconds*."""
        return evolve(self, state=State.COMPLETED, estimate=estimate, seconds=seconds, error=None)

    def writing(self, path: str, *, written: str | None = None, captions_free: bool = False) -> Record:
        """Return the record to save before *path*, which is free, is written to.

        Args:
            path: The absolute path.
            written: The identity of an unfinished file that another executor of the row may still publish there.
            captions_free: Whether the path of its captions is free as well.
        """
        # A finished row, too, is not finished for a new target until the file is there.
        return evolve(self, state=State.COMPLETED, writing_to=path, written=written, captions_free=captions_free)

    def writing_part(self, identity: str | None) -> Record:
        """Return the record to save before the file with *identity* gets its name: its device, inode and length."""
        return evolve(self, written=identity)

    def failed(self, error: str, *, is_final: bool) -> Record:
        """Return the record of a failed job, which costs nothing."""
        return evolve(self, state=State.FAILED, error=error, is_final=is_final, estimate=0.0)

    def with_draft(self, key: str, job: str) -> Record:
        """Return the record of the final version of the draft with *key*, of which *job* was approved."""
        return evolve(self, draft=key, draft_job=job)

    def with_inputs(self, inputs: str) -> Record:
        """Return the record of a row that was not sent, and of which *inputs* is the digest now."""
        if inputs == self.inputs:
            return self
        return evolve(self, inputs=inputs, video_asset=None, audio_asset=None)

    def renewed(self) -> Record:
        """Return the record before the next attempt."""
        earlier = (*self.earlier, self.lipsync_id) if self.lipsync_id else self.earlier
        return evolve(
            self,
            state=State.PLANNED,
            attempt=self.attempt + 1,
            attempt_key=None,
            body=None,
            callback_id=None,
            video_asset=None,
            audio_asset=None,
            sent_at=None,
            batch=None,
            item=None,
            batch_id=None,
            lipsync_id=None,
            earlier=earlier,
            is_final=False,
            error=None,
            earlier_estimate=self.earlier_estimate + self.estimate,
            estimate=0.0,
        )

    def another_attempt(self) -> Record:
        """Return the record for another attempt that the caller requests."""
        renewed = self.renewed()
        return evolve(renewed, forgiven=len(renewed.earlier))

    def redone(self, inputs: str) -> Record:
        """Return the record for another job in place of one that was paid for, because its video is not wanted.

        Args:
            inputs: Digest of what is sent for the row now.
        """
        renewed = self.renewed()
        return evolve(
            renewed,
            inputs=inputs,
            forgiven=len(renewed.earlier),
            replaces=self.written or self.replaces,
            written=None,
            seconds=None,
            upload_seconds=None,
            submit_seconds=None,
            wait_seconds=None,
            download_seconds=None,
        )

    def forgiving(self) -> Record:
        """Return the record for another attempt that the caller requests, whatever failed before."""
        # What failed may have failed because its uploads are gone at HeyGen, which no message is certain to say.
        if self.state is State.FAILED:
            return evolve(self.another_attempt(), outdated_assets=self.assets)
        if self._was_refused:  # the server may replay the refusal
            again = evolve(self, body="")
            return again.without_assets(outdated=self.assets) if self.is_final else again
        return self

    def done(self, written: str | None = None) -> Record:
        """Return the record of a finished row; *written* is the fingerprint of its file, if one was wanted."""
        replaces = self.replaces if written is None else None  # else the one of an earlier job is still there
        return evolve(self, state=State.DONE, error=None, written=written, captions_free=False, replaces=replaces)

    def uploaded(self, video: str | None, audio: str | None) -> Record:
        """Return the record once its local files are uploaded."""
        return evolve(self, video_asset=video, audio_asset=audio, outdated_assets=())

    def without_assets(self, *, outdated: tuple[str, ...] = ()) -> Record:
        """Return the record of a row whose uploads are not used any more; no row uses the *outdated* ones."""
        return evolve(self, video_asset=None, audio_asset=None, outdated_assets=outdated)

    def reuploading(self) -> Record:
        """Return the record of a row whose uploads the server has lost, once they are forgotten."""
        return evolve(self.without_assets(), has_reuploaded=True)

    def before_effect(self) -> Record:
        """Return the record without the failure of the last effect."""
        return self if self.failure is None and not self.hold else evolve(self, failure=None, hold=0.0)

    def after_effect(self) -> Record:
        """Return the record after an effect: one that succeeded ends the failures in a row."""
        return self if self.failure is not None or not self.tries else evolve(self, tries=0)

    def failing(self, error: Exception, *, hold: float = 0.0) -> Record:
        """Return the record after an effect that failed, and may succeed later.

        Args:
            error: The failure.
            hold: Seconds to wait before the next effect; longer if the `Retry-After` of the error is.
        """
        requested = error.retry_after if isinstance(error, APIError) else None
        return evolve(self, failure=error, tries=self.tries + 1, hold=max(hold, requested or 0.0))

    def stopped(self, error: Exception) -> Record:
        """Return the record of a row for which nothing more is done in this run."""
        return evolve(self, failure=error, is_stopped=True, error=str(error))

    def next_version(self) -> Record:
        """Return the record as it is to be saved."""
        return evolve(self, version=self.version + 1)
