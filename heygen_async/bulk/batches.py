"""Rows in batches: up to 100 in a request, which the server queues, so that no seat of the account is needed.

Who waits for whom: a row that is ready joins those that wait for company. They leave when there are 100 of them, or
when nobody else is on the way. A row that was cut off in a batch rejoins the others of it, for only all of them
together are what was sent under its key. Once there is a batch, one task looks at it for all of its rows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from attrs import define, field

from heygen_async.bulk.record import Record, State, Step
from heygen_async.bulk.worker import CONCERNS_ALL, GONE, Fatal, NeverMade, RowRun, Tries, Workshop, is_settled
from heygen_async.errors import (
    HeyGenError,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
    PermissionDenied,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async.models import AssetId, BatchItem, Lipsync, LipsyncRequest, LipsyncStatus

_FULL: Final = 100
_IN_AIR: Final = 2
"""How many batches may be on their way to the server at once."""

_LINGER: Final = 1.0
"""Seconds in which no row comes, after which those that wait for company leave without more."""

_ENDS: Final = frozenset({LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.NOT_FOUND})

_PAGE_SAVES: Final = 2
"""How many finished jobs are worth one page of the list, which brings 100, newest first, wherever they are in it."""

_TAIL: Final = 5.0
"""Seconds to the next look for each row that is left, once there is only one batch: the run waits for its end."""


@define(eq=False)
class _Member:
    """A row that waits to be sent."""

    row: RowRun
    sources: tuple[str | AssetId, str | AssetId] | None = None
    """What to send; `None` where the record says what was sent."""
    done: asyncio.Future[None] = field(factory=lambda: asyncio.get_running_loop().create_future())


@define(eq=False)
class Batcher:
    """Sends rows in batches and brings back what came of them."""

    shop: Workshop = field(init=False)
    group: asyncio.TaskGroup = field(init=False)
    """Where its tasks belong."""
    _on_the_way: int = 0
    _is_fed: bool = False
    _waiting: list[_Member] = field(factory=list)
    _cut_off: dict[str, list[_Member]] = field(factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _air: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_IN_AIR))
    _watches: dict[str, dict[int, asyncio.Future[Lipsync]]] = field(factory=dict)

    # Company

    def expect(self) -> None:
        """A row has begun, and may join."""
        self._on_the_way += 1

    def came(self) -> None:
        """A row has joined, or will not."""
        self._on_the_way -= 1
        self._move()

    def fed(self) -> None:
        """No more rows will begin."""
        self._is_fed = True
        self._move()

    async def join(self, row: RowRun, video: str | AssetId, audio: str | AssetId) -> None:
        """Send *row* in company, and return once it is in a batch.

        Raises:
            HeyGenError: If it cannot be.
        """
        member = _Member(row, (video, audio))
        self._waiting.append(member)
        row.on_submitted()  # which lets those go that waited for this one only
        self._move()
        await self._sent(member, self._waiting)

    async def rejoin(self, row: RowRun) -> None:
        """Send *row* again with the others of its batch, as they were, under its key.

        Raises:
            HeyGenError: If it cannot be.
            ValueError: If others of its batch are missing, so that it cannot be sent as it was.
        """
        batch = row.record.batch
        assert batch is not None  # noqa: S101 who calls has seen it
        size = await self.shop.journal.batch_size(batch)
        member = _Member(row)
        mates = self._cut_off.setdefault(batch, [])
        mates.append(member)
        if len(mates) == size:
            self._launch(sorted(self._cut_off.pop(batch), key=lambda one: one.row.record.item or 0))
        row.on_submitted()
        await self._sent(member, mates)

    async def _sent(self, member: _Member, company: list[_Member]) -> None:
        try:
            await member.done
        finally:
            if member in company:
                company.remove(member)

    def _move(self) -> None:
        """Let those go that have waited enough for company."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._waiting) >= _FULL:
            self._launch(self._taken())
        if self._on_the_way or not (self._waiting or self._cut_off):
            return
        if self._is_fed:
            self._leave()
        else:
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._leave)

    def _leave(self) -> None:
        if self._waiting:
            self._launch(self._taken())
        if self._is_fed:
            for mates in self._cut_off.values():
                self._lament(mates)

    def _taken(self) -> list[_Member]:
        taken = self._waiting[:_FULL]
        del self._waiting[:_FULL]
        # The same rows are the same batch in another run, whichever was ready first.
        return sorted(taken, key=lambda one: one.row.task.number)

    def _lament(self, mates: Sequence[_Member]) -> None:
        for member in mates:
            error = ValueError(
                f"{member.row.task.key} was cut off in a batch with rows that are not there now; "
                "give them too, or run it again a day after it was cut off"
            )
            if not member.done.done():
                member.done.set_exception(error)

    # Sending

    def _launch(self, members: Sequence[_Member]) -> None:
        self.group.create_task(self._send(members))

    async def _send(self, members: Sequence[_Member]) -> None:
        async with self._air:
            await self._send_apart(members)

    async def _send_apart(self, members: Sequence[_Member]) -> None:
        """Send some, whose failure is nobody else's."""
        try:
            await self._send_until_settled(members)
        except (HeyGenError, ValueError) as error:
            for member in members:
                if not member.done.done():
                    member.done.set_exception(error.fresh() if isinstance(error, HeyGenError) else error)

    async def _send_until_settled(self, members: Sequence[_Member]) -> None:
        tries, slots = Tries(), self.shop.slots
        while members := [member for member in members if not member.done.done()]:
            was_fresh = members[0].row.record.state is State.PLANNED
            if was_fresh:
                self.shop.check_credit()
                await self._intend(members)
            elif any(member.row.next_step() is not Step.REPEAT for member in members):
                _release(members)  # it took so long that the server may have forgotten the key: each looks for its job
                return
            try:
                batch_id = await self._create(members)
            except HeyGenError as error:
                await self._settle(members, error, was_fresh=was_fresh)
                if _is_of_an_item(error) and len(members) > 1:
                    await self._send_halves(members)
                    return
                self._conclude(error)
                slots.trouble()
                tries.note(error, slots)
                await asyncio.sleep(slots.weather.next_chance() - slots.clock())
            else:
                slots.relief()
                await self._note(members, [member.row.record.accepted_in(batch_id) for member in members])
                _release(members)

    async def _send_halves(self, members: Sequence[_Member]) -> None:
        """Send what was refused as a whole in two parts: in the end only what is at fault is refused."""
        half = len(members) // 2
        for part in (members[:half], members[half:]):
            await self._send_apart(part)

    def _conclude(self, error: HeyGenError) -> None:
        """Raise what another try would not mend."""
        if isinstance(error, CONCERNS_ALL):
            raise Fatal(error) from error
        if error.outcome == "rejected" and isinstance(error, NotFound | PermissionDenied) and not _is_of_an_item(error):
            without = type(error)(
                f"this account has no batches ({error.message}); use submit='each'",
                status=error.status,
                code=error.code,
            )
            raise Fatal(without) from error
        if not error.is_transient:
            self.shop.slots.relief()
            raise error

    async def _intend(self, members: Sequence[_Member]) -> None:
        """Write down what is about to be sent."""
        records = [member.row.intent(*member.sources) for member in members if member.sources is not None]
        key = _batch_key(records)
        await self._note(members, [record.in_batch(key, item) for item, record in enumerate(records)])

    async def _create(self, members: Sequence[_Member]) -> str:
        requests = []
        for member in members:
            video, audio, options = member.row.call()
            requests.append(LipsyncRequest(video=video, audio=audio, **options))
        key = members[0].row.record.batch
        with self.shop.slots.batch_in_air():
            return (await self.shop.heygen.lipsyncs.create_batch(requests, idempotency_key=key)).id

    async def _settle(self, members: Sequence[_Member], error: HeyGenError, *, was_fresh: bool) -> None:
        """Write down that nothing was made, if that is certain."""
        if not is_settled(error, was_fresh=was_fresh):
            return
        await self._note(members, [member.row.record.not_sent(str(error)) for member in members])
        if not was_fresh:
            _release(members)  # they begin anew, each for itself

    async def _note(self, members: Sequence[_Member], records: Sequence[Record]) -> None:
        for member, record in zip(members, records, strict=True):
            member.row.record = record
        await self.shop.journal.save(*records)

    # Waiting

    async def result(self, row: RowRun) -> Lipsync:
        """Wait for the job of a row that is in a batch.

        Raises:
            LipsyncFailed: If it failed.
            NeverMade: If the server did not take it.
            HeyGenError: If the batch cannot be looked at.
        """
        batch_id, item = row.record.batch_id, row.record.item
        assert batch_id is not None  # noqa: S101 who calls has seen it
        assert item is not None  # noqa: S101 it came with the batch
        waiting = self._watches.get(batch_id)
        if waiting is None:
            waiting = self._watches[batch_id] = {}
            self.group.create_task(self._watch(batch_id, max(0.0, self.shop.now() - (row.record.asked_at or 0.0))))
        waiting[item] = asyncio.get_running_loop().create_future()
        return await waiting[item]

    async def _watch(self, batch_id: str, age: float) -> None:
        """Look at a batch until all of its rows have heard."""
        waiting, born = self._watches[batch_id], self.shop.clock() - age
        patience = self.shop.patience
        until = self.shop.clock() + self.shop.heygen.poller.policy.longest
        try:
            while waiting:
                is_moving = False
                try:
                    is_moving = await self._look(batch_id, waiting)
                except HeyGenError as error:
                    if not error.is_transient:
                        raise
                if waiting and self.shop.clock() >= until:
                    raise WaitTimeout(batch_id)
                interval = patience.look_interval(self.shop.clock() - born) * (1 if is_moving else 2)
                is_last = len(self._watches) == 1
                await asyncio.sleep(min(interval, _TAIL * len(waiting)) if is_last else interval)
        except CONCERNS_ALL as error:
            raise Fatal(error) from error
        except HeyGenError as error:
            for future in waiting.values():
                _tell(future, error.fresh())
        finally:
            del self._watches[batch_id]

    async def _look(self, batch_id: str, waiting: dict[int, asyncio.Future[Lipsync]]) -> bool:
        """Tell the rows that have ended; return whether any is on its way."""
        items = await self.shop.heygen.lipsyncs.batch(batch_id).items().collect()
        ended = [item for item in items if item.item_index in waiting and item.status in _ENDS]
        found = await self._fetch(
            [item.lipsync_id for item in ended if item.status == LipsyncStatus.COMPLETED and item.lipsync_id]
        )
        for item in ended:
            what = _end_of(item, found.get(item.lipsync_id or ""))
            if what is not None:
                _tell(waiting.pop(item.item_index), what)
        return any(item.status != LipsyncStatus.PENDING for item in items)

    async def _fetch(self, lipsync_ids: Sequence[str]) -> Mapping[str, Lipsync | NotFound]:
        """Get finished jobs: from the list where that is cheaper, and one by one."""
        found: dict[str, Lipsync | NotFound] = {}
        left, pages = set(lipsync_ids), len(lipsync_ids) // _PAGE_SAVES
        listing = self.shop.heygen.lipsyncs.list(page_size=100).pages()
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
                found[lipsync_id] = await self.shop.heygen.lipsyncs.get(lipsync_id)
            except NotFound as error:
                found[lipsync_id] = error
        return found


def _release(members: Sequence[_Member]) -> None:
    for member in members:
        if not member.done.done():
            member.done.set_result(None)


def _tell(future: asyncio.Future[Lipsync], what: Lipsync | Exception) -> None:
    if future.done():  # its row was cancelled
        return
    if isinstance(what, Exception):
        future.set_exception(what)
    else:
        future.set_result(what)


def _is_of_an_item(error: HeyGenError) -> bool:
    """Tell whether a batch was refused for the sake of something in it."""
    is_of_it = isinstance(error, InvalidRequest) or (isinstance(error, NotFound) and error.code in GONE)
    return is_of_it and error.outcome == "rejected"


def _end_of(item: BatchItem, found: Lipsync | NotFound | None) -> Lipsync | HeyGenError | None:
    """Return what a row is to hear of its item; `None` if its job goes on, whatever the batch says."""
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
        error = NeverMade(message, status=400)
        error.outcome = "rejected"
        return error
    return LipsyncFailed(Lipsync(id=item.lipsync_id, status=LipsyncStatus.FAILED, failure_message=message))


def _batch_key(records: Sequence[Record]) -> str:
    """Return a key that is the same for the same creates in the same order, in every journal, and only for these."""
    told = orjson.dumps([record.attempt_key for record in records])
    return f"batch-{hashlib.sha256(told).hexdigest()[:40]}"
