"""The row program over a store in memory: executors that are killed or frozen at every point, and compete for a row."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
from attrs import define, evolve, field, frozen
from memory_store import MemoryStore

from heygen_async.bulk.admission import AdmissionQueue, UnansweredAttempts
from heygen_async.bulk.batches import BatchCollector
from heygen_async.bulk.budget import RATES, Budget
from heygen_async.bulk.events import StageCounter
from heygen_async.bulk.executor import RowExecutor, RunContext
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.intake import PreparedRow
from heygen_async.bulk.limits import CircuitBreaker, Limiter
from heygen_async.bulk.outputs import found_at, part_identity
from heygen_async.bulk.owner import Owner
from heygen_async.bulk.program import RetryDelays, Step, Tools, advance
from heygen_async.bulk.purse import Purse
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.searching import Searcher
from heygen_async.bulk.store import Entry, LostRow
from heygen_async.errors import LipsyncFailed, NotFound
from heygen_async.models import Account, AssetId, BatchItem, DubOutcome, DubRow, Lipsync, LipsyncRequest, Source
from heygen_async.policies import PollPolicy

URL, AUDIO = "https://example.com/v.mp4", "https://example.com/a.mp3"
_MOST_POINTS = 200


class Killed(BaseException):
    """Ends an executor at once, as SIGKILL does; what runs on the way out saves nothing."""


@define
class Points:
    """Counts the awaits of an executor, and stops at one of them."""

    at: int
    stop: Callable[[], object]
    passed: count = field(factory=lambda: count(1))
    was_reached: bool = False

    async def reach(self) -> None:
        await asyncio.sleep(0)
        if next(self.passed) == self.at:
            self.was_reached = True
            stopping = self.stop()
            if stopping is not None:
                await stopping


class Watched:
    """Anything whose coroutine methods have a point before and after each call."""

    def __init__(self, inner: object, points: Points) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def watched(*arguments: object, **options: object) -> object:
            await self._points.reach()
            result = await found(*arguments, **options)
            await self._points.reach()
            return result

        return watched


@frozen
class Page:
    items: Sequence[Lipsync]


@define
class Api:
    """Jobs, and the keys under which they were created; the first job of a row called `fails` fails."""

    jobs: dict[str, str] = field(factory=dict)
    """Attempt keys by job."""
    keys: dict[str, str] = field(factory=dict)
    polling: PollPolicy = field(factory=PollPolicy)

    async def create(self, key: str, **_: object) -> str:
        if key not in self.keys:
            self.keys[key] = f"ls_{len(self.jobs) + 1}"
            self.jobs[self.keys[key]] = key
        return self.keys[key]

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest]) -> str:
        raise NotImplementedError

    async def batch(self, batch_id: str) -> Sequence[BatchItem]:
        raise NotImplementedError

    async def list(self, *, page_size: int) -> AsyncIterator[Page]:
        yield Page([Lipsync(id=job, status="running", callback_id=key) for job, key in reversed(self.jobs.items())])

    async def get(self, lipsync_id: str) -> Lipsync:
        return Lipsync(id=lipsync_id, status="completed", duration=1.0)

    async def wait(self, lipsync_id: str, **_: object) -> Lipsync:
        first = next((job for job, key in self.jobs.items() if key.startswith("fails.")), None)
        if lipsync_id == first:
            raise LipsyncFailed(Lipsync(id=lipsync_id, status="failed", failure_message="internal error"))
        return await self.get(lipsync_id)

    async def upload(self, source: Source) -> AssetId:
        return AssetId(f"as_{hashlib.sha256(bytes(source)).hexdigest()[:8]}")

    def forget_upload(self, asset_id: str) -> None:
        pass

    async def download(self, lipsync: Lipsync | str, path: Path, **_: object) -> Path:
        raise NotImplementedError

    async def download_captions(self, lipsync: Lipsync | str, path: Path, **_: object) -> Path:
        raise NotImplementedError

    async def me(self) -> Account:
        raise NotFound("not readable", status=404)


def prepared(key: str, number: int, audio: str | bytes = AUDIO) -> PreparedRow:
    files = {} if isinstance(audio, str) else {"audio": FileInfo("", hashlib.sha256(audio).hexdigest(), None)}
    return PreparedRow(
        row=DubRow(URL, audio, key=key),
        number=number,
        place=f"row {number}",
        key=key,
        target=None,
        captions=False,
        files=files,
        missing={},
        seconds=1.0,
        entry=Entry(key=key, inputs=f"inputs of {key}", number=number, place=f"row {number}"),
    )


ROWS = [prepared("plain", 1), prepared("fails", 2), prepared("local", 3, b"audio")]


async def execute(store: MemoryStore, api: Api, points: Points, rows: Sequence[PreparedRow] = ROWS) -> list[DubOutcome]:
    """Run rows in one executor process."""
    heygen, watched = Watched(api, points), Watched(store, points)
    now = lambda: 1000.0  # noqa: E731
    delays = RetryDelays(refused=0, renewal=0, missing=(), download=())
    tools = Tools(heygen=heygen, store=watched, searcher=Searcher(heygen, watched, now), delays=delays, now=now)
    queue = AdmissionQueue(Limiter(), CircuitBreaker(), asyncio.get_running_loop().time)
    context = RunContext(
        tools=tools,
        queue=queue,
        purse=Purse(Budget(RATES)),
        stages=StageCounter(None),
        batches=BatchCollector(tools, queue),
        downloads=asyncio.Semaphore(4),
        max_attempts=3,
        is_batching=False,
        check_account=Owner(heygen, watched).check,
    )
    records = await store.admit([row.entry for row in rows])
    outcomes = []
    for row, record in zip(rows, records, strict=True):
        executor = RowExecutor(context, row, record, False, lambda: None, UnansweredAttempts(queue))
        outcomes.append(await executor.outcome())
    return outcomes


def no_row_was_paid_twice(store: MemoryStore, api: Api) -> None:
    assert {key: record.state for key, record in store.records.items()} == dict.fromkeys(
        ("plain", "fails", "local"), State.DONE
    )
    assert Counter(key.rpartition(".")[0] for key in api.jobs.values()) == {"plain": 1, "fails": 2, "local": 1}


def never() -> Points:
    return Points(0, lambda: None)


async def _killed_at(point: int) -> bool:
    store, api = MemoryStore(), Api()

    def kill() -> None:
        raise Killed

    points = Points(point, kill)
    with contextlib.suppress(Killed):
        await execute(store, api, points)
    outcomes = await execute(store, api, never())

    assert {outcome.state for outcome in outcomes} <= {"completed", "unchanged"}
    no_row_was_paid_twice(store, api)
    return points.was_reached


async def _frozen_at(point: int) -> bool:
    store, api = MemoryStore(), Api()
    thaw = asyncio.Event()
    points = Points(point, thaw.wait)
    frozen_one = asyncio.create_task(execute(store, api, points))
    while not points.was_reached and not frozen_one.done():  # noqa: ASYNC110 it tells nobody
        await asyncio.sleep(0)
    outcomes = await execute(store, api, never())
    assert {outcome.state for outcome in outcomes} <= {"completed", "unchanged"}
    thaw.set()
    late = await frozen_one

    assert {type(outcome.error) for outcome in late} <= {type(None), LostRow}
    no_row_was_paid_twice(store, api)
    return points.was_reached


@pytest.mark.parametrize("at", [_killed_at, _frozen_at], ids=["killed", "frozen"])
async def test_an_executor_that_stops_at_any_await_costs_no_second_job(at: Callable[[int], object]) -> None:
    point = 1
    while await at(point):
        point += 1

    assert 30 < point < _MOST_POINTS  # it went through to the end, and there were points on the way


async def test_two_executors_that_run_side_by_side_pay_each_row_once() -> None:
    store, api = MemoryStore(), Api()
    both = await asyncio.gather(execute(store, api, never()), execute(store, api, never()))

    assert {type(outcome.error) for outcomes in both for outcome in outcomes} <= {type(None), LostRow}
    for outcome in await execute(store, api, never()):
        assert outcome.state in {"completed", "unchanged"}
    no_row_was_paid_twice(store, api)


class Writing(Api):
    """Writes a file, as a download does: beside it first, then the whole of it at once."""

    async def download(
        self,
        lipsync: Lipsync | str,
        path: Path,
        *,
        overwrite: bool,
        progress: Callable[[int, int | None], Awaitable[None]],
    ) -> Path:
        part = path.with_name(f"{path.name}.part")
        await asyncio.to_thread(part.write_bytes, b"video")
        await progress(2, 5)
        await progress(5, 5)
        await asyncio.to_thread(part.rename, path)
        return path


async def test_a_row_is_written_though_its_download_saves_on_the_way(tmp_path: Path) -> None:
    target, store = tmp_path / "v.mp4", MemoryStore()
    row = evolve(ROWS[0], target=target, entry=evolve(ROWS[0].entry, target=str(target)))
    [outcome] = await execute(store, Writing(), never(), [row])

    assert (outcome.state, outcome.path) == ("completed", target)
    assert store.records["plain"].state is State.DONE
    assert target.read_bytes() == b"video"


class Downloads(Api):
    """Remembers whether it may replace what is at the target."""

    async def download(self, lipsync: Lipsync | str, path: Path, **options: object) -> Path:
        self.may_replace = options["overwrite"]
        return path


async def test_a_file_that_appears_while_the_intent_to_write_is_saved_may_not_be_replaced(tmp_path: Path) -> None:
    target, store, api = tmp_path / "v.mp4", MemoryStore(), Downloads()
    now = lambda: 1000.0  # noqa: E731
    tools = Tools(heygen=api, store=store, searcher=Searcher(api, store, now), delays=RetryDelays(), now=now)
    row = evolve(prepared("plain", 1), target=target)
    (record,) = await store.admit([evolve(row.entry, target=str(target))])

    async def save(_: Record) -> None:
        await asyncio.to_thread(target.write_text, "somebody else's")

    await advance(row, evolve(record, state=State.COMPLETED, lipsync_id="ls_1"), Step.DOWNLOAD, tools, save)
    assert api.may_replace is False


def test_a_file_that_a_paused_executor_gives_its_name_late_is_the_rows(tmp_path: Path) -> None:
    target = tmp_path / "v.mp4"
    part = tmp_path / "v.mp4.part"
    part.write_bytes(b"video")
    record = Record(key="plain", inputs="", state=State.COMPLETED).writing(str(target))
    paused = record.writing_part(part_identity(target, 5))
    other = paused.writing(str(target))  # another executor has taken over
    part.rename(target)

    assert found_at(str(target), other) == "ours"
    assert found_at(str(target), record) == "foreign"
    assert other.writing(str(tmp_path / "w.mp4")).written is None


async def test_an_id_that_is_none_fails_its_row_alone() -> None:
    class OddApi(Api):
        async def wait(self, lipsync_id: str, **options: object) -> Lipsync:
            if self.jobs[lipsync_id].startswith("plain."):
                raise ValueError("lipsync_id is not an id")
            return await super().wait(lipsync_id, **options)

    outcomes = await execute(MemoryStore(), OddApi(), never())

    assert [outcome.state for outcome in outcomes] == ["failed", "completed", "completed"]
    assert str(outcomes[0].error) == "lipsync_id is not an id"


async def test_a_save_of_an_old_version_is_refused() -> None:
    store = MemoryStore()
    [record] = await store.admit([ROWS[0].entry])
    await store.save(record.next_version())

    with pytest.raises(LostRow):
        await store.save(evolve(record, error="late").next_version())
