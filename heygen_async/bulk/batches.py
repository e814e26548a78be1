"""Rows in batches: up to 100 in a request, which the server queues, so that they need no seat of the account.

A row waits twice. First it joins a group, which is closed when it has 100 rows, or when no other row may still join.
Then each row has the key and its index in a batch, and its executor saves them. Second it waits until all rows of the
batch are back, and the last one starts the request. The rows of an interrupted run wait for each other too: a batch can
be sent again under its key only with all of its rows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import orjson
from attrs import Factory, define, field

from heygen_async._task_group import TaskGroup
from heygen_async.bulk.batch_results import BatchResults, Work
from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.effects import Tools, after_failed_create
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import after_create, is_of_item, key_age, may_be_young, sent_options, sources_of
from heygen_async.bulk.record import Record, State, evolve
from heygen_async.bulk.window import Window
from heygen_async.errors import HeyGenError, NotFound, PermissionDenied
from heygen_async.models import MAX_BATCH, LipsyncRequest

_MAX_SENDING: Final = 2
"""How many batches may be sent at once."""

_MAX_IDLE: Final = 1.0
"""Seconds without another row after which a group is closed though more rows may come."""


class IncompleteBatch(ValueError):
    """Raised for a row of an interrupted batch that cannot be sent again, because other rows of it are missing."""


@define(eq=False)
class _Member:
    """A row that waits in a group or a batch."""

    row: PreparedRow
    record: Record
    done: asyncio.Future[Record] = field(factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, record: Record) -> None:
        if not self.done.done():  # else its row was cancelled
            self.done.set_result(record)


@define(eq=False)
class _Batch:
    """A batch that has not been created."""

    size: int
    keys: set[str] = field(factory=set)
    """The keys of its rows that take part in this run."""
    members: list[_Member] = field(factory=list)
    """Its rows that wait for the others."""


@define(eq=False)
class _RetryGroup:
    """Rows of a batch that was not created. They share their next batch, and no other row joins them."""

    size: int
    members: list[_Member] = field(factory=list)


@define(eq=False)
class BatchCollector:
    """Collects rows into batches, sends these, and waits for their items."""

    tools: Tools
    queue: CreateQueue
    window: Window
    _candidates: int = 0
    """How many rows have started and may still join a group."""
    _is_complete: bool = False
    """Whether no more rows will start."""
    _group: list[_Member] = field(factory=list)
    """The rows that have no batch yet."""
    _retry_groups: dict[str, _RetryGroup] = field(factory=dict)
    _groups_made: int = 0
    _batches: dict[str, _Batch] = field(factory=dict)
    """The batches to be created, by their key."""
    _expired: set[str] = field(factory=set)
    """The keys of batches that the server may have forgotten."""
    _timer: asyncio.TimerHandle | None = None
    _sending: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_MAX_SENDING))
    _work: asyncio.Queue[Work | None] = field(factory=asyncio.Queue)
    results: BatchResults = field(
        init=False,
        default=Factory(lambda self: BatchResults(self.tools, self._work.put_nowait), takes_self=True),
    )

    async def run(self) -> None:
        """Send batches and look at them, until `close`."""
        async with TaskGroup() as tasks:
            while (work := await self._work.get()) is not None:
                tasks.create_task(work())

    def close(self) -> None:
        """Let `run` end once its work is done."""
        self._work.put_nowait(None)

    # Groups

    def add_candidate(self) -> None:
        """Count a row that has started."""
        self._candidates += 1

    def remove_candidate(self) -> None:
        """Count a row that has joined, or will not."""
        self._candidates -= 1
        self._close_groups()

    def no_more_candidates(self) -> None:
        """Note that no more rows will start."""
        self._is_complete = True
        self._close_groups()

    async def join(self, row: PreparedRow, intent: Record, *, before_waiting: Callable[[], None]) -> Record:
        """Wait for other rows, and return *intent* with the batch that it is an item of."""
        member = _Member(row, intent)
        if intent.group is None:
            members = self._group
            members.append(member)
            before_waiting()
            self._close_groups()
        else:
            members = self._retry_groups[intent.group].members
            members.append(member)
            self._close_retry_group(intent.group)
        return await _settled(member, members)

    def row_ended(self, record: Record) -> None:
        """Note that a row has ended in this run, so that no other row waits for it."""
        self.leave(record.batch, record.key)
        if record.group is not None and (group := self._retry_groups.get(record.group)) is not None:
            group.size -= 1
            self._close_retry_group(record.group)

    def leave(self, key: str | None, row: str) -> None:
        """Note that the *row* does not come back to the batch with this *key*, which thus cannot be sent again."""
        batch = self._batches.get(key or "")
        if batch is not None and row in batch.keys:
            batch.keys.remove(row)
            self._fail_if_incomplete(batch)

    def _close_retry_group(self, name: str) -> None:
        group = self._retry_groups[name]
        if len(group.members) == group.size:
            del self._retry_groups[name]
            self._make_batch(group.members)

    def _close_groups(self) -> None:
        """Make batches of the rows that have waited long enough for others."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._group) >= MAX_BATCH:
            self._close_group()
        if self._candidates:
            return
        if not self._is_complete:
            if self._group:
                self._timer = asyncio.get_running_loop().call_later(_MAX_IDLE, self._close_group)
            return
        self._close_group()
        for batch in list(self._batches.values()):
            self._fail_if_incomplete(batch)

    def _close_group(self) -> None:
        members = self._group[:MAX_BATCH]
        del self._group[:MAX_BATCH]
        self._make_batch(members)

    def _make_batch(self, members: Sequence[_Member]) -> None:
        """Give rows their place in a batch. The same rows make the same batch in every run, in whatever order."""
        if not members:
            return
        members = sorted(members, key=lambda one: one.row.number)
        key = _batch_key([member.record for member in members])
        self._expired.discard(key)  # each of them has searched for its job since: none was created under the key
        # All of them come back, once their records are saved.
        self._batches[key] = _Batch(len(members), {member.row.key for member in members})
        for item, member in enumerate(members):
            member.settle(member.record.in_batch(key, item))

    # Sending

    def expire(self, key: str) -> None:
        """Let each row of a batch search for its job: the server may have forgotten the *key*, which is old."""
        self._expired.add(key)
        batch = self._batches.pop(key, None)
        for member in batch.members if batch is not None else ():
            member.settle(evolve(member.record, is_key_lost=True))

    async def create(self, row: PreparedRow, record: Record, *, before_waiting: Callable[[], None]) -> Record:
        """Wait for the other rows of the batch, send it as it was recorded, and return the row's record."""
        key = record.batch
        assert key is not None  # noqa: S101 the record has one since join()
        if (known := await self._known(key, record)) is not None:
            return known
        batch = self._batches[key]
        member = _Member(row, record)
        batch.members.append(member)
        batch.keys.add(row.key)
        before_waiting()
        if len(batch.members) < batch.size:
            if len(batch.keys) < batch.size:
                self.window.widen(row.key)  # the others come later, so that all rows of a journal's batches may wait
            self._close_groups()
        else:
            self._start(key, batch)
        return await _settled(member, batch.members)

    async def _known(self, key: str, record: Record) -> Record | None:
        """Return the record of a row whose batch exists, or may be forgotten; `None` if it is to be created."""
        if key not in self._expired and key not in self._batches:  # of an interrupted run
            recorded = await self.tools.store.rows_of_batch(key)
            if (batch_id := next((one.batch_id for one in recorded if one.batch_id), None)) is not None:
                return record.accepted_in(batch_id)  # that run could not record it for all of its rows
            self._batches.setdefault(key, _Batch(len(recorded)))
        return evolve(record, is_key_lost=True) if key in self._expired else None

    def _start(self, key: str, batch: _Batch) -> None:
        """Start the request of a batch that all of its rows wait for."""
        members = sorted(batch.members, key=lambda one: one.record.item or 0)
        if _is_whole(key, [one.record for one in members]):
            batch.members.clear()
            self._work.put_nowait(partial(self._send, key, members))
        elif any(may_be_young(member.record, self.tools.clock.now()) for member in members):
            self._fail_incomplete(batch)
        else:  # some of its rows have left it, after a search
            self.expire(key)

    def _fail_if_incomplete(self, batch: _Batch) -> None:
        if len(batch.keys) < batch.size:  # else the others were here before, and come back after a pause
            self._fail_incomplete(batch)

    def _fail_incomplete(self, batch: _Batch) -> None:
        for member in batch.members:
            error = IncompleteBatch(
                f"{member.row.key} was interrupted in a batch with rows that are missing now, in doubt, or found "
                "already; add those rows again, or start this run again: it can go on a day after the interruption"
            )
            member.settle(member.record.stopped(error))

    async def _send(self, key: str, members: Sequence[_Member]) -> None:
        requests = []
        for member in members:
            video, audio = sources_of(member.row, member.record)
            requests.append(LipsyncRequest(video=video, audio=audio, **sent_options(member.row, member.record)))
        try:
            async with self._sending:
                await self.queue.wait_if_closed()
                with self.queue.sending_batch():
                    age = partial(key_age, [member.record for member in members], self.tools.clock.now)
                    batch_id = await self.tools.heygen.create_batch(key, requests, key_age=age)
        except HeyGenError as error:
            await self._not_created(members, error)
            return
        self.queue.recover()
        del self._batches[key]
        for member in members:
            member.settle(member.record.accepted_in(batch_id))

    async def _not_created(self, members: Sequence[_Member], error: HeyGenError) -> None:
        is_of_an_item = error.outcome == "rejected" and is_of_item(error)
        if not is_of_an_item and error.outcome == "rejected" and isinstance(error, NotFound | PermissionDenied):
            self._end_run(members, error)
            return
        if not error.is_transient:
            self.queue.recover()
        records = [await after_failed_create(one.row, one.record, error.fresh(), self.tools) for one in members]
        if not is_of_an_item or len(members) == 1:
            self._regroup(members, records)
            return
        # Refused for one item: sent again in two groups, so that in the end only that item is refused.
        records = [evolve(record, is_stopped=False, failure=None) for record in records]
        half = (len(members) + 1) // 2
        self._regroup(members[:half], records[:half])
        self._regroup(members[half:], records[half:])

    def _end_run(self, members: Sequence[_Member], error: NotFound | PermissionDenied) -> None:
        message = f"this account has no batches ({error.message}); use submit='each'"
        failure = type(error)(message, status=error.status, code=error.code, outcome="rejected")
        for member in members:
            after = after_create(member.record, failure.fresh(), self.tools.delays)
            member.settle(evolve(after, ends_run=True))

    def _regroup(self, members: Sequence[_Member], records: Sequence[Record]) -> None:
        """Let the rows that need another batch share it."""
        again = [record.state is State.PLANNED and not record.is_stopped for record in records]
        self._groups_made += 1
        name, size = f"group {self._groups_made}", sum(again)
        if size:
            self._retry_groups[name] = _RetryGroup(size)
        for member, record, is_again in zip(members, records, again, strict=True):
            member.settle(evolve(record, group=name) if is_again else record)


async def _settled(member: _Member, members: list[_Member]) -> Record:
    try:
        return await member.done
    finally:
        if member in members:
            members.remove(member)


def _batch_key(records: Sequence[Record]) -> str:
    """Return a key that is the same for the same creates in the same order, in every journal, and only for these."""
    covered = orjson.dumps([record.attempt_key for record in records])
    return f"batch-{hashlib.sha256(covered).hexdigest()[:40]}"


def _is_whole(key: str, records: Sequence[Record]) -> bool:
    """Return whether *records* are all that the batch with this key was recorded with."""
    first_version = orjson.dumps([(record.attempt_key, record.body) for record in records])
    return key in {_batch_key(records), f"batch-{hashlib.sha256(first_version).hexdigest()[:40]}"}
