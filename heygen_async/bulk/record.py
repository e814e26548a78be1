"""What a row has reached, and what is to be done with it next: values and a pure decision.

Rule 1: nothing here waits or reads a clock; times are unix timestamps in seconds and come as arguments.
Rule 2: a row has at most one job that may cost money. A create is noted before it is sent, and goes under a key
that is used for this row and this body only. While it is not known what became of it, it is sent again as it was,
for as long as the server remembers the key; later its job is searched for first.
Rule 3: a second job is asked for only after the first was seen failed, under a key of its own.
"""

from __future__ import annotations

import enum
from typing import Final

from attrs import evolve, frozen

KEY_SECONDS: Final = 24 * 3600 - 600.0
"""How long a key is relied upon after it was first sent. The server keeps it 24 h; the rest is for the way there."""


class State(enum.StrEnum):
    """Where a row is, in the words of the journal."""

    PLANNED = "planned"
    """There is no job, and no request that could have made one."""
    SUBMITTING = "submitting"
    """A create was or is about to be sent; what became of it is not known."""
    SUBMITTED = "submitted"
    """There is a job."""
    COMPLETED = "completed"
    """The job is completed; its file is not written yet."""
    DONE = "done"
    """Nothing is left to do."""
    FAILED = "failed"
    """The job failed."""


class Step(enum.Enum):
    """What to do with a row next."""

    SEND = enum.auto()
    """Upload what is local, note the create, and send it."""
    REPEAT = enum.auto()
    """Send the create again, the very same under the same key."""
    SEARCH = enum.auto()
    """Search for the job by its callback id: the server may have forgotten the key."""
    WAIT = enum.auto()
    """Wait for the job."""
    RENEW = enum.auto()
    """Ask for another job, under the next key."""
    DOWNLOAD = enum.auto()
    """Write the file."""
    FINISH = enum.auto()
    """Note that nothing is left to do: no file is wanted."""
    NOTHING = enum.auto()
    """All is done."""
    GIVE_UP = enum.auto()
    """It failed, and is not tried again."""


@frozen(kw_only=True)
class Record:
    """What the journal knows of one row. It has no link and no secret in it."""

    key: str
    inputs: str
    """Digest of all that is sent for the row."""
    number: int = 0
    """Which row it is, from 1, in the run that saw it last."""
    place: str = ""
    """Where it stands, for people: `line 12`."""
    target: str | None = None
    """The file to write; `None` writes none."""
    state: State = State.PLANNED
    attempt: int = 1
    """Which job this is: more than 1 after failures."""
    body: str | None = None
    """Digest of the create that went, or goes, under this attempt's key."""
    callback_id: str | None = None
    """What was sent as the callback id with it."""
    video_asset: str | None = None
    audio_asset: str | None = None
    """What was uploaded for it."""
    asked_at: float | None = None
    """When it was first sent, unless a search since showed that there is no job of it."""
    batch: str | None = None
    """The key of the batch that it was sent in."""
    item: int | None = None
    """Its place in that batch, from 0."""
    batch_id: str | None = None
    """The batch, once there is one; the job in it is known only when it has ended."""
    lipsync_id: str | None = None
    earlier: tuple[str, ...] = ()
    """The failed jobs of the attempts before."""
    is_writing: bool = False
    """Whether the file at the target, if there is one, is of our writing."""
    is_final: bool = False
    """Whether the failure is one that another job will not mend."""
    error: str | None = None
    """What went wrong last."""
    estimate: float = 0.0
    """What the jobs asked for are thought to cost, in dollars."""
    upload_seconds: float | None = None
    submit_seconds: float | None = None
    wait_seconds: float | None = None
    download_seconds: float | None = None

    @property
    def attempt_key(self) -> str:
        """The idempotency key of this attempt."""
        return attempt_key(self.key, self.attempt)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was ever sent for it."""
        return self.state is State.PLANNED and self.attempt == 1 and self.body is None

    # What happened to it. Each returns the record that is to be written down.

    def sending(
        self,
        body: str,
        callback_id: str | None,
        now: float,
        *,
        assets: tuple[str | None, str | None] = (None, None),
        estimate: float = 0.0,
    ) -> Record:
        """Note that a create with the digest *body* is about to be sent, the first one of this attempt.

        Args:
            body: Of all that is sent but for a callback id of ours.
            callback_id: The row's own; without one the attempt's key is sent, by which its job can be found again.
            now: The time.
            assets: What was uploaded for it, video and audio.
            estimate: What it is thought to cost, in dollars.
        """
        if self.state is not State.PLANNED:
            raise ValueError(f"{self.key} is {self.state}")
        # A rejected create leaves its key unused, but another body still goes under another key.
        attempt = self.attempt + (self.body not in {None, body})
        return evolve(
            self,
            state=State.SUBMITTING,
            attempt=attempt,
            body=body,
            callback_id=callback_id or attempt_key(self.key, attempt),
            video_asset=assets[0],
            audio_asset=assets[1],
            asked_at=now,
            error=None,
            estimate=estimate,
        )

    def in_batch(self, batch: str, item: int) -> Record:
        """Note that it is sent as an item of a batch."""
        return evolve(self, batch=batch, item=item)

    def not_sent(self, error: str | None) -> Record:
        """Note that the create was refused for certain, and made no job."""
        return evolve(
            self,
            state=State.PLANNED,
            batch=None,
            item=None,
            batch_id=None,
            asked_at=None,
            error=error,
            estimate=0.0,
        )

    def never_made(self, error: str) -> Record:
        """Note that the server took the batch, but not this item of it."""
        # The batch is kept under its key, with that answer: what is sent the next time goes under another.
        return evolve(self.not_sent(error), body="")

    def not_found(self, now: float) -> Record:
        """Note that a search showed no job: what was sent made none, and may be sent anew."""
        if self.batch is not None:  # an item does not go alone under the key of its batch
            return self.not_sent(None)
        return evolve(self, asked_at=now)

    def accepted(self, lipsync_id: str) -> Record:
        """Note the job."""
        return evolve(self, state=State.SUBMITTED, lipsync_id=lipsync_id, error=None)

    def accepted_in(self, batch_id: str) -> Record:
        """Note the batch that it is in."""
        return evolve(self, state=State.SUBMITTED, batch_id=batch_id, error=None)

    def completed(self, estimate: float) -> Record:
        """Note that the job is completed; *estimate* is now from its true length."""
        return evolve(self, state=State.COMPLETED, estimate=estimate, error=None)

    def writing(self) -> Record:
        """Note that the target was free, and is about to be written."""
        return evolve(self, is_writing=True)

    def failed(self, error: str, *, is_final: bool) -> Record:
        """Note that the job failed; a failed job costs nothing."""
        return evolve(self, state=State.FAILED, error=error, is_final=is_final, estimate=0.0)

    def renewed(self) -> Record:
        """Return the row as it is before its next job is asked for."""
        earlier = (*self.earlier, self.lipsync_id) if self.lipsync_id else self.earlier
        return evolve(
            self,
            state=State.PLANNED,
            attempt=self.attempt + 1,
            body=None,
            asked_at=None,
            batch=None,
            item=None,
            batch_id=None,
            lipsync_id=None,
            earlier=earlier,
        )

    def done(self) -> Record:
        """Note that nothing is left to do."""
        return evolve(self, state=State.DONE, error=None)

    def troubled(self, error: str) -> Record:
        """Note what went wrong, without a change of state."""
        return evolve(self, error=error)


def attempt_key(key: str, attempt: int) -> str:
    """Return the idempotency key of a row's job number *attempt*, from 1."""
    return key if attempt == 1 else f"{key}.{attempt}"


def next_step(record: Record, now: float, *, max_attempts: int, has_file: bool) -> Step:
    """Decide what to do with a row.

    Args:
        record: What it reached.
        now: The time.
        max_attempts: How many jobs may be asked for.
        has_file: Whether its file is there.
    """
    match record.state:
        case State.PLANNED:
            return Step.SEND
        case State.SUBMITTING:
            return Step.REPEAT if _is_remembered(record, now) else Step.SEARCH
        case State.SUBMITTED:
            return Step.WAIT
        case State.COMPLETED:
            return Step.FINISH if record.target is None else Step.DOWNLOAD
        case State.DONE:
            return Step.NOTHING if record.target is None or has_file else Step.DOWNLOAD
        case State.FAILED:
            return Step.GIVE_UP if record.is_final or record.attempt >= max_attempts else Step.RENEW


def _is_remembered(record: Record, now: float) -> bool:
    # A clock that was put back makes the time since then look short: then, too, it is searched for.
    return record.asked_at is not None and 0 <= now - record.asked_at < KEY_SECONDS
