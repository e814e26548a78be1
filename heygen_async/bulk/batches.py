"""Rows in batches: up to 100 in a request, which the server queues, so that no seat of the account is needed.

A row joins twice. First it waits for company: a group leaves when it has 100 rows, or when no other row is on the way;
then each row knows the key of its batch, and its executor saves that. Then it waits for the rows of the same batch, and
the last one to arrive lets the request go; so does a row of an interrupted run, since only all rows together are what
was sent under the key. Requests and looks at batches run in one collector task.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

import orjson
from attrs import define, evolve, field

from heygen_async.bulk.admission import AdmissionQueue, RunAborted
from heygen_async.bulk.intake import PreparedRow
from heygen_async.bulk.program import (
    ENDS_RUN,
    GONE,
    NeverMade,
    Tools,
    after_create,
    sent_options,
    sources_of,
    without_lost_assets,
)
from heygen_async.bulk.record import Record, State
from heygen_async.errors import (
    HeyGenError,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
    PermissionDenied,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async.models import BatchItem, Lipsync, LipsyncRequest, LipsyncStatus

_FULL: Final = 100
_IN_AIR: Final = 2
"""How many batches may be sent at once."""

_LINGER: Final = 1.0
"""Seconds without another row after which a group leaves though it is not full."""

_ENDS: Final = frozenset({LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND})

_PAGE_SAVES: Final = 2
"""How many finished jobs are worth one page of the list, which has 100, newest first."""

_TAIL: Final = 5.0
"""Seconds to the next look for each row that is left, once there is only one batch: the run waits for its end."""

_Work: TypeAlias = Callable[[], Coroutine[None, None, None]]


@define(eq=False)
class _Member:
    row: PreparedRow
    record: Record
    done: asyncio.Future[Record] = field(factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, record: Record) -> None:
        if not self.done.done():  # else its row was cancelled
            self.done.set_result(record)


@define(eq=False)
class BatchCollector:
    """Collects rows into batches, sends these, and waits for their items."""

    tools: Tools
    queue: AdmissionQueue
    _on_the_way: int = 0
    _is_complete: bool = False
    _waiting: list[_Member] = field(factory=list)
    _groups: dict[str, list[_Member]] = field(factory=dict)
    """Rows that wait for the others of a group that is already fixed, by its name."""
    _arrived: dict[str, list[_Member]] = field(factory=dict)
    """Rows that wait for the others of their batch, by its key."""
    _missing: dict[str, int] = field(factory=dict)
    """How many rows of a group will not come back, by its name."""
    _dissolved: set[str] = field(factory=set)
    """The keys of batches that the server may have forgotten."""
    _sizes: dict[str, int] = field(factory=dict)
    _groups_made: int = 0
    _seen: dict[str, set[str]] = field(factory=dict)
    """The keys of the rows of each batch that have taken part in this run."""
    _timer: asyncio.TimerHandle | None = None
    _air: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_IN_AIR))
    _watched: dict[str, dict[int, asyncio.Future[Lipsync]]] = field(factory=dict)
    _work: asyncio.Queue[_Work | None] = field(factory=asyncio.Queue)

    async def run(self) -> None:
        """Send batches and look at them, until `close`."""
        async with asyncio.TaskGroup() as tasks:
            while (work := await self._work.get()) is not None:
                tasks.create_task(work())

    def close(self) -> None:
        """Let `run` end once its work is done."""
        self._work.put_nowait(None)

    def _start(self, work: _Work) -> None:
        self._work.put_nowait(work)

    # Company

    def expect(self) -> None:
        """Count a row that has begun, and may join."""
        self._on_the_way += 1

    def arrived(self) -> None:
        """Count a row that has joined, or will not."""
        self._on_the_way -= 1
        self._move()

    def complete(self) -> None:
        """Note that no more rows will begin."""
        self._is_complete = True
        self._move()

    async def join(self, row: PreparedRow, intent: Record, *, before_waiting: Callable[[], None]) -> Record:
        """Wait for company, and return *intent* with the batch that it is an item of."""
        member = _Member(row, intent)
        if intent.group is None:
            company = self._waiting
            company.append(member)
            before_waiting()
            self._move()
        else:
            name, _ = intent.group
            company = self._groups.setdefault(name, [])
            company.append(member)
            self._fix_group(intent.group)
        return await _ended(member, company)

    def drop(self, record: Record) -> None:
        """Note that a row is done for this run, so that nobody waits for it."""
        if record.group is not None:
            name, size = record.group
            self._missing[name] = self._missing.get(name, 0) + 1
            self._fix_group((name, size))

    def _fix_group(self, group: tuple[str, int]) -> None:
        name, size = group
        if len(self._groups.get(name, ())) == size - self._missing.get(name, 0):
            members = self._groups.pop(name, [])
            if members:
                self._fix(members)

    def _move(self) -> None:
        """Let the groups leave that have waited enough for company."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._waiting) >= _FULL:
            self._leave()
        if self._on_the_way or not (self._waiting or self._arrived):
            return
        if not self._is_complete:
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._leave)
            return
        self._leave()
        for key in list(self._arrived):
            self._fail_if_incomplete(key)

    def _leave(self) -> None:
        members = self._waiting[:_FULL]
        del self._waiting[:_FULL]
        if members:
            self._fix(members)

    def _fix(self, members: Sequence[_Member]) -> None:
        """Fix a batch. The same rows make the same batch in every run, whichever was ready first."""
        members = sorted(members, key=lambda one: one.row.number)
        key = _batch_key([member.record for member in members])
        self._sizes[key] = len(members)
        self._seen[key] = {member.row.key for member in members}  # all of them come once their intents are saved
        for item, member in enumerate(members):
            member.end(evolve(member.record.in_batch(key, item), group=None))

    def _fail_if_incomplete(self, key: str) -> None:
        if len(self._seen[key]) >= self._sizes[key]:
            return  # the others have arrived before, and come back after a pause
        for member in self._arrived.pop(key):
            error = ValueError(
                f"{member.row.key} was interrupted in a batch with rows that are missing now; "
                "add them, or run it again a day after it was interrupted"
            )
            member.end(member.record.stopped(error))

    # Sending

    def dissolve(self, key: str) -> None:
        """Let each row of a batch search for its job: the server may have forgotten the key."""
        self._dissolved.add(key)
        for member in self._arrived.pop(key, ()):
            member.end(evolve(member.record, is_key_lost=True))

    async def create(self, row: PreparedRow, record: Record, *, before_waiting: Callable[[], None]) -> Record:
        """Wait for the other rows of the batch, send it as it was recorded, and return the row's record."""
        key = record.batch
        assert key is not None  # noqa: S101 join has set it
        if key in self._dissolved:
            return evolve(record, is_key_lost=True)
        if key not in self._sizes:
            self._sizes[key] = await self.tools.store.batch_size(key)
        member = _Member(row, record)
        company = self._arrived.setdefault(key, [])
        company.append(member)
        self._seen.setdefault(key, set()).add(row.key)
        before_waiting()
        if len(company) < self._sizes[key]:
            self._move()
            return await _ended(member, company)
        members = sorted(company, key=lambda one: one.record.item or 0)
        if _batch_key([one.record for one in members]) == key:
            del self._arrived[key]
            self._start(partial(self._send, key, members))
        else:  # some of its rows have left it, after a search
            self.dissolve(key)
        return await _ended(member, company)

    async def _send(self, key: str, members: Sequence[_Member]) -> None:
        requests = []
        for member in members:
            video, audio = sources_of(member.row, member.record)
            requests.append(LipsyncRequest(video=video, audio=audio, **sent_options(member.row, member.record)))
        try:
            async with self._air:
                with self.queue.sending_batch():
                    batch_id = await self.tools.heygen.create_batch(key, requests)
        except HeyGenError as error:
            await self._not_created(members, error)
            return
        self.queue.recover()
        for member in members:
            member.end(evolve(member.record.accepted_in(batch_id), is_fresh=False))

    async def _not_created(self, members: Sequence[_Member], error: HeyGenError) -> None:
        is_of_an_item = _is_of_an_item(error)
        if not is_of_an_item and error.outcome == "rejected" and isinstance(error, NotFound | PermissionDenied):
            without = f"this account has no batches ({error.message}); use submit='each'"
            failure = type(error)(without, status=error.status, code=error.code, outcome="rejected")
            for member in members:
                after = after_create(member.record, failure.fresh(), self.tools.delays)
                member.end(evolve(after, ends_run=True))
            return
        if not error.is_transient:
            self.queue.recover()
        afters = [await without_lost_assets(one.row, one.record, error.fresh(), self.tools) for one in members]
        # Refused for one item: sent again in two groups, so that in the end only what is at fault is refused.
        half = (len(members) + 1) // 2
        parts = [members[:half], members[half:]] if is_of_an_item and len(members) > 1 else [members]
        left = iter(afters)
        for part in parts:
            self._regroup(part, [next(left) for _ in part], may_stop=len(parts) == 1)

    def _regroup(self, members: Sequence[_Member], records: Sequence[Record], *, may_stop: bool) -> None:
        """Let the rows that go on share their next batch."""
        if not may_stop:
            records = [evolve(record, is_stopped=False, failure=None) for record in records]
        again = [one for one in records if one.state is State.PLANNED and not one.is_stopped]
        self._groups_made += 1
        group = (f"group {self._groups_made}", len(again))
        for member, record in zip(members, records, strict=True):
            is_again = record.state is State.PLANNED and not record.is_stopped
            member.end(evolve(record, group=group) if is_again else record)

    # Waiting

    async def result(self, record: Record) -> Lipsync:
        """Wait for the job of a row that is in a batch.

        Raises:
            LipsyncFailed: If it failed.
            NeverMade: If the server did not take it.
            HeyGenError: If the batch cannot be looked at.
        """
        batch_id, item = record.batch_id, record.item
        assert batch_id is not None  # noqa: S101 who calls has seen it
        assert item is not None  # noqa: S101 it came with the batch
        waiting = self._watched.get(batch_id)
        if waiting is None:
            waiting = self._watched[batch_id] = {}
            age = max(0.0, self.tools.now() - (record.asked_at or 0.0))
            self._start(partial(self._watch, batch_id, age))
        waiting[item] = asyncio.get_running_loop().create_future()
        return await waiting[item]

    async def _watch(self, batch_id: str, age: float) -> None:
        """Look at a batch until the items of all rows that wait have ended."""
        waiting, born = self._watched[batch_id], self.queue.clock() - age
        until = self.queue.clock() + self.tools.heygen.polling.longest
        try:
            while waiting:
                is_moving = False
                try:
                    is_moving = await self._look(batch_id, waiting)
                except HeyGenError as error:
                    if not error.is_transient:
                        raise
                if waiting and self.queue.clock() >= until:
                    raise WaitTimeout(batch_id)
                interval = self.tools.delays.look_interval(self.queue.clock() - born) * (1 if is_moving else 2)
                is_last = len(self._watched) == 1
                await asyncio.sleep(min(interval, _TAIL * len(waiting)) if is_last else interval)
        except ENDS_RUN as error:
            raise RunAborted(error) from error
        except HeyGenError as error:
            for future in waiting.values():
                _end(future, error.fresh())
        finally:
            del self._watched[batch_id]

    async def _look(self, batch_id: str, waiting: dict[int, asyncio.Future[Lipsync]]) -> bool:
        """Wake the rows whose items have ended; return whether any item has been started."""
        items = await self.tools.heygen.batch(batch_id)
        over = [item for item in items if item.item_index in waiting and item.status in _ENDS]
        found = await self._fetch(
            [item.lipsync_id for item in over if item.status == LipsyncStatus.COMPLETED and item.lipsync_id]
        )
        for item in over:
            end = _end_of(item, found.get(item.lipsync_id or ""))
            if end is not None:
                _end(waiting.pop(item.item_index), end)
        return any(item.status != LipsyncStatus.PENDING for item in items)

    async def _fetch(self, lipsync_ids: Sequence[str]) -> Mapping[str, Lipsync | NotFound]:
        """Get finished jobs: from the list where that is cheaper, and one by one."""
        found: dict[str, Lipsync | NotFound] = {}
        left, pages = set(lipsync_ids), len(lipsync_ids) // _PAGE_SAVES
        listing = self.tools.heygen.list(page_size=100)
        while pages and len(left) > 1:
            page = await anext(listing, None)
            if page is None:
                break
            there = {lipsync.id: lipsync for lipsync in page.items if lipsync.id in left and lipsync.is_terminal}
            found |= there
            left -= there.keys()
            pages -= 1
        for lipsync_id in left:
            try:
                found[lipsync_id] = await self.tools.heygen.get(lipsync_id)
            except NotFound as error:
                found[lipsync_id] = error
        return found


async def _ended(member: _Member, company: list[_Member]) -> Record:
    try:
        return await member.done
    finally:
        if member in company:
            company.remove(member)


def _end(future: asyncio.Future[Lipsync], end: Lipsync | Exception) -> None:
    if future.done():  # its row was cancelled
        return
    if isinstance(end, Exception):
        future.set_exception(end)
    else:
        future.set_result(end)


def _is_of_an_item(error: HeyGenError) -> bool:
    """Return whether a batch was refused because of something in it."""
    is_of_it = isinstance(error, InvalidRequest) or (isinstance(error, NotFound) and error.code in GONE)
    return is_of_it and error.outcome == "rejected"


def _end_of(item: BatchItem, found: Lipsync | NotFound | None) -> Lipsync | HeyGenError | None:
    """Return what the row of an item is to hear; `None` if its job goes on, whatever the batch says."""
    if item.status == LipsyncStatus.NOT_FOUND:
        return NotFound(f"there is no lipsync {item.lipsync_id}", status=404, code="not_found")
    if item.status == LipsyncStatus.FAILED:
        return _failure(item)
    if item.lipsync_id is None:
        return UnexpectedResponse([f"item {item.item_index} is completed, and has no lipsync_id"], status=200)
    if isinstance(found, Lipsync) and found.status == LipsyncStatus.FAILED:
        return LipsyncFailed(found)
    return None if isinstance(found, Lipsync) and not found.is_terminal else found


def _failure(item: BatchItem) -> HeyGenError:
    message = item.error or "no reason was given"
    if item.lipsync_id is None:
        return NeverMade(message, status=400, outcome="rejected")
    return LipsyncFailed(Lipsync(id=item.lipsync_id, status=LipsyncStatus.FAILED, failure_message=message))


def _batch_key(records: Sequence[Record]) -> str:
    """Return a key that is the same for the same creates in the same order, in every journal, and only for these."""
    covered = orjson.dumps([record.attempt_key for record in records])
    return f"batch-{hashlib.sha256(covered).hexdigest()[:40]}"
