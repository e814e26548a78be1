"""The row program over a store in memory: executors that are killed or frozen at every point, and compete for a row.

The outputs are files on disk. They are downloaded as the library does it, by `Part`, with points in between.
"""

import asyncio
import contextlib
import hashlib
import inspect
import math
from asyncio import to_thread
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from attrs import define, evolve, field, frozen
from memory_store import MemoryStore
from until import until

from heygen_async import pagination
from heygen_async._bulk_calls import JobList
from heygen_async._media.hosts import PartState
from heygen_async._media.parts import Part, owner_line, part_path, side_path
from heygen_async._media.targets import captions_path
from heygen_async.bulk.attempt_keys import attempt_key
from heygen_async.bulk.batches import BatchCollector
from heygen_async.bulk.budget import RATES, Budget
from heygen_async.bulk.create_queue import CreateQueue
from heygen_async.bulk.effects import Tools, advance
from heygen_async.bulk.events import StageCounter
from heygen_async.bulk.executor import RowExecutor
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.limits import CircuitBreaker, Limiter
from heygen_async.bulk.outputs import is_changed, is_written
from heygen_async.bulk.owner import Owner
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import RetryDelays, Step
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.run_context import RunContext
from heygen_async.bulk.searching import Searcher
from heygen_async.bulk.spending import Spending
from heygen_async.bulk.store import DownloadProgress, Entry, LostRow, UnixClock
from heygen_async.bulk.window import Window
from heygen_async.errors import (
    DownloadError,
    InsufficientCredit,
    LipsyncFailed,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
    UnexpectedResponse,
)
from heygen_async.models import Account, AssetId, DubOutcome, DubRow, Lipsync, LipsyncRequest, Source
from heygen_async.policies import PollPolicy

URL, AUDIO = "https://example.com/v.mp4", "https://example.com/a.mp3"
_MOST_POINTS = 400


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
        if not inspect.iscoroutinefunction(found):
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

    points: Points
    jobs: dict[str, str] = field(factory=dict)
    """Attempt keys by job."""
    keys: dict[str, str] = field(factory=dict)
    polling: PollPolicy = field(factory=PollPolicy)

    async def create(self, key: str, **_: object) -> str:
        if key not in self.keys:
            self.keys[key] = f"ls_{len(self.jobs) + 1}"
            self.jobs[self.keys[key]] = key
        return self.keys[key]

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest], *, key_age: Callable[[], float]) -> str:
        raise NotImplementedError

    def batch(self, batch_id: str) -> AsyncIterator[Page]:
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

    async def upload(self, source: Source, sha256: str) -> AssetId:
        assert sha256 == hashlib.sha256(bytes(source)).hexdigest()
        return AssetId(f"as_{sha256[:8]}")

    def forget_upload(self, asset_id: str) -> None:
        pass

    def claim(self, path: Path) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()  # each executor is a process of its own

    async def download(
        self, lipsync: Lipsync | str, path: Path, *, overwrite: bool, progress: DownloadProgress
    ) -> Path:
        content = video_of(lipsync)
        part = await to_thread(Part.open, path, str(getattr(lipsync, "id", lipsync)))
        try:
            await self.points.reach()
            await to_thread(part.begin, 0, PartState())
            await to_thread(part.write, [content[:5]])
            await progress(5, len(content))
            await self.points.reach()
            await to_thread(part.write, [content[5:]])
            await progress(len(content), len(content))
            await self.points.reach()
            await to_thread(part.publish, overwrite=overwrite)
            await self.points.reach()
        finally:
            part.close()
        return path

    async def download_captions(self, lipsync: Lipsync | str, path: Path, *, overwrite: bool) -> Path:
        await to_thread(write_captions, captions_path(path), overwrite=overwrite)
        return path

    async def me(self) -> Account:
        raise NotFound("not readable", status=404, code="not_found")


class UnknownLengths(Api):
    """An API whose files have a known length only at their end."""

    async def download(
        self, lipsync: Lipsync | str, path: Path, *, overwrite: bool, progress: DownloadProgress
    ) -> Path:
        async def unannounced(done: int, total: int | None) -> None:
            await progress(done, None)
            if done == total:
                await self.points.reach()
                await progress(done, total)

        return await super().download(lipsync, path, overwrite=overwrite, progress=unannounced)


def write_captions(path: Path, *, overwrite: bool) -> None:
    with path.open("wb" if overwrite else "xb") as file:
        file.write(b"captions")


def video_of(lipsync: Lipsync | str) -> bytes:
    return b"the video of " + str(getattr(lipsync, "id", lipsync)).encode()


def prepared(key: str, number: int, audio: str | bytes = AUDIO, target: Path | None = None) -> PreparedRow:
    files = {} if isinstance(audio, str) else {"audio": FileInfo("", hashlib.sha256(audio).hexdigest(), None)}
    return PreparedRow(
        row=DubRow(URL, audio, key=key),
        target=target,
        captions=target is not None,
        files=files,
        missing={},
        seconds=1.0,
        entry=Entry(
            key=key,
            inputs=f"inputs of {key}",
            number=number,
            place=f"row {number}",
            target=None if target is None else str(target),
        ),
    )


def rows_in(folder: Path) -> list[PreparedRow]:
    """Return rows of which the last two have outputs."""
    return [
        prepared("plain", 1),
        prepared("fails", 2),
        prepared("local", 3, b"audio"),
        prepared("file", 4, target=folder / "file.mp4"),
        prepared("other", 5, b"audio", target=folder / "new" / "other.mp4"),
    ]


@frozen
class Scene:
    """What executors share: rows, the folder of their outputs, the store and the API."""

    folder: Path
    rows: list[PreparedRow]
    store: MemoryStore = field(factory=MemoryStore)
    jobs: dict[str, str] = field(factory=dict)
    keys: dict[str, str] = field(factory=dict)
    api: type[Api] = Api

    async def execute(self, points: Points, api: type[Api] | None = None) -> list[DubOutcome]:
        """Run all rows in one executor process."""
        heygen, watched = Watched((api or self.api)(points, self.jobs, self.keys), points), Watched(self.store, points)
        delays = RetryDelays(refused=0, renewal=0, missing=(), download=())
        tools = Tools(heygen=heygen, store=watched, clock=UnixClock(lambda: 1000.0), delays=delays)
        queue = CreateQueue(Limiter(), CircuitBreaker())
        window = Window(10)
        context = RunContext(
            tools=tools,
            queue=queue,
            spending=Spending(Budget(RATES)),
            stages=StageCounter(None),
            batches=BatchCollector(tools, queue, window),
            window=window,
            downloads=asyncio.Semaphore(4),
            max_attempts=3,
            retry_failed=False,
            is_batching=False,
            check_account=Owner(heygen, watched).check,
        )
        records = await self.store.admit([row.entry for row in self.rows])
        outcomes = []
        for row, record in zip(self.rows, records, strict=True):
            executor = RowExecutor(context, row, record, await to_thread(is_written, record), lambda: None)
            outcomes.append(await executor.outcome())
        return outcomes

    def no_row_was_paid_twice(self) -> None:
        records = self.store.records
        assert {key: record.state for key, record in records.items()} == dict.fromkeys(records, State.DONE)
        jobs = Counter(key.rpartition(".")[0] for key in self.jobs.values())
        assert jobs == {row.key: 2 if row.key == "fails" else 1 for row in self.rows}

    def every_file_is_there(self, *, may_leave_parts: bool = False) -> None:
        """Check that each output is the video of its row's job, and that no other file was left behind.

        An executor that loses its row while it downloads leaves the part, as every interrupted download does.
        """
        records = [self.store.records[row.key] for row in self.rows if row.target is not None]
        videos = {Path(str(record.target)): video_of(str(record.lipsync_id)) for record in records}
        captions = {captions_path(target): b"captions" for target in videos}
        files = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        if may_leave_parts:
            for target in videos:
                files.pop(part_path(target), None)
                files.pop(side_path(target), None)
        assert files == videos | captions
        assert [is_changed(record) for record in records] == [False] * len(records)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, rows_in(tmp_path))


def never() -> Points:
    return Points(0, lambda: None)


async def _killed_at(point: int, scene: Scene) -> bool:
    def kill() -> None:
        raise Killed

    points = Points(point, kill)
    with contextlib.suppress(Killed):
        await scene.execute(points)
    outcomes = await scene.execute(never())

    assert {outcome.state for outcome in outcomes} <= {"completed", "unchanged"}
    scene.no_row_was_paid_twice()
    await to_thread(scene.every_file_is_there)
    return points.was_reached


async def _frozen_at(point: int, scene: Scene) -> bool:
    thaw = asyncio.Event()
    points = Points(point, thaw.wait)
    frozen_one = asyncio.create_task(scene.execute(points))
    while not points.was_reached and not frozen_one.done():  # noqa: ASYNC110 nothing notifies
        await asyncio.sleep(0)
    outcomes = await scene.execute(never())
    # The frozen one may hold the lock of an unfinished download.
    errors = [str(outcome.error) for outcome in outcomes if outcome.state not in {"completed", "unchanged"}]
    assert [error for error in errors if "is being downloaded by another process" not in error] == []
    thaw.set()
    late = await frozen_one
    assert {type(outcome.error) for outcome in late} <= {type(None), LostRow, DownloadError}

    assert {outcome.state for outcome in await scene.execute(never())} <= {"completed", "unchanged"}
    scene.no_row_was_paid_twice()
    await to_thread(scene.every_file_is_there, may_leave_parts=True)
    return points.was_reached


@pytest.mark.parametrize("api", [Api, UnknownLengths])
@pytest.mark.parametrize("at", [_killed_at, _frozen_at], ids=["killed", "frozen"])
async def test_an_executor_that_stops_at_any_await_costs_no_second_job_and_no_file(
    at: Callable[[int, Scene], Awaitable[bool]], tmp_path: Path, api: type[Api]
) -> None:
    for point in count(1):
        folder = tmp_path / str(point)
        await to_thread(folder.mkdir)
        if not await at(point, Scene(folder, rows_in(folder), api=api)):
            break

    assert 60 < point < _MOST_POINTS  # it went through to the end, and there were points on the way


async def test_two_executors_that_run_side_by_side_pay_each_row_once(scene: Scene) -> None:
    both = await asyncio.gather(scene.execute(never()), scene.execute(never()))

    assert {type(outcome.error) for outcomes in both for outcome in outcomes} <= {type(None), LostRow, DownloadError}
    for outcome in await scene.execute(never()):
        assert outcome.state in {"completed", "unchanged"}
    scene.no_row_was_paid_twice()
    await to_thread(scene.every_file_is_there, may_leave_parts=True)


@pytest.mark.parametrize("status", [429, 402])
async def test_an_executor_that_repeats_the_create_of_another_one_is_the_only_one_to_save_its_answer(
    status: int, tmp_path: Path
) -> None:
    scene = Scene(tmp_path, [prepared("plain", 1)])
    was_sent, may_fail = asyncio.Event(), asyncio.Event()

    class Refusing(Api):
        async def create(self, key: str, **_: object) -> str:
            was_sent.set()
            await may_fail.wait()
            raise (RateLimited if status == 429 else InsufficientCredit)("refused", status=status, outcome="rejected")

    class Creating(Api):
        async def create(self, key: str, **_: object) -> str:
            may_fail.set()
            await asyncio.wait([first])  # the answer to the first create is dealt with before this one is sent
            return await super().create(key)

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(scene.execute(never(), Refusing))
        await was_sent.wait()
        second = tasks.create_task(scene.execute(never(), Creating))

    assert [type(outcome.error) for outcome in first.result()] == [LostRow]
    assert [outcome.state for outcome in second.result()] == ["completed"]
    scene.no_row_was_paid_twice()


@pytest.mark.parametrize("is_ours", [True, False])
async def test_a_row_that_another_executor_has_finished_keeps_no_unfinished_download_of_ours(
    scene: Scene, is_ours: bool
) -> None:
    row = scene.rows[3]
    target = row.target
    assert target is not None

    class Lost(MemoryStore):
        async def save(self, *records: Record) -> None:
            if records[0].state is State.DONE:
                owner = str(records[0].lipsync_id) if is_ours else "of another"
                await to_thread(side_path(target).write_text, owner_line(owner))
                await to_thread(part_path(target).write_bytes, b"")
                raise LostRow("another executor has it")
            await super().save(*records)

    [outcome] = await evolve(scene, rows=[row], store=Lost()).execute(never())

    assert isinstance(outcome.error, LostRow)
    assert await to_thread(part_path(target).exists) is not is_ours
    assert await to_thread(side_path(target).exists) is not is_ours
    assert await to_thread(target.exists)


async def test_a_file_that_another_executor_publishes_as_ours_begins_its_download_is_the_file_of_the_row(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, [prepared("file", 1, target=tmp_path / "file.mp4")])
    is_written, may_publish = asyncio.Event(), asyncio.Event()

    class Late(Api):
        async def download(self, lipsync, path, *, overwrite, progress):
            async def wait_at_the_end(done: int, total: int | None) -> None:
                await progress(done, total)
                if done == total:
                    is_written.set()
                    await may_publish.wait()

            return await super().download(lipsync, path, overwrite=overwrite, progress=wait_at_the_end)

    class Next(Api):
        async def download(self, lipsync, path, **options):
            may_publish.set()
            await asyncio.wait([late])
            return await super().download(lipsync, path, **options)

    async with asyncio.TaskGroup() as tasks:
        late = tasks.create_task(scene.execute(never(), Late))
        await is_written.wait()
        following = tasks.create_task(scene.execute(never(), Next))

    assert [type(outcome.error) for outcome in late.result()] == [LostRow]
    assert ["written by another executor" in str(outcome.error) for outcome in following.result()] == [True]
    assert [outcome.state for outcome in await scene.execute(never())] == ["completed"]
    await to_thread(scene.every_file_is_there)


async def test_a_file_that_appears_while_the_intent_to_write_is_saved_is_not_replaced(scene: Scene) -> None:
    class Occupied(MemoryStore):
        async def save(self, *records: Record) -> None:
            await super().save(*records)
            if records[0].writing_to is not None:
                await to_thread(Path(records[0].writing_to).write_text, "another program's")

    scene = evolve(scene, rows=[scene.rows[3]], store=Occupied())
    [outcome] = await scene.execute(never())

    assert outcome.state == "failed"
    assert await to_thread(scene.rows[0].target.read_text) == "another program's"


async def test_an_invalid_id_from_the_server_fails_its_row_alone(scene: Scene) -> None:
    class OddApi(Api):
        async def wait(self, lipsync_id: str, **options: object) -> Lipsync:
            if self.jobs[lipsync_id].startswith("plain."):
                raise ValueError("lipsync_id is not an id")
            return await super().wait(lipsync_id, **options)

    outcomes = await evolve(scene, rows=scene.rows[:3]).execute(never(), OddApi)

    assert [outcome.state for outcome in outcomes] == ["failed", "completed", "completed"]
    assert str(outcomes[0].error) == "lipsync_id is not an id"


async def test_a_save_of_an_old_version_is_refused() -> None:
    store = MemoryStore()
    [record] = await store.admit([prepared("plain", 1).entry])
    await store.save(record.next_version())

    with pytest.raises(LostRow):
        await store.save(evolve(record, error="late").next_version())


@pytest.mark.parametrize("unclean", [None, "0.0 0.0"])
@pytest.mark.parametrize("is_in_doubt", [True, False])
async def test_the_newest_job_is_not_the_anchor_if_another_executor_may_have_created_it_just_now(
    unclean: str | None, is_in_doubt: bool
) -> None:
    """A later search for that job goes back to the anchor, and would stop before it."""
    store = MemoryStore(facts={"anchor": "ls_0"} | ({} if unclean is None else {"unclean": unclean}))

    class BusyApi(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            if is_in_doubt:
                store.records["other"] = Record(key="other", inputs="in", state=State.SUBMITTING)
            yield Page(
                [Lipsync(id="ls_1", status="running", callback_id="other.1"), Lipsync(id="ls_0", status="running")]
            )

    await Searcher(BusyApi(never()), store, UnixClock(lambda: 1e9)).prepare()

    assert store.facts["anchor"] == ("ls_0" if is_in_doubt else "ls_1")
    assert "unclean" not in store.facts


@pytest.mark.parametrize("is_same_run", [True, False], ids=["in the same run", "in a later run"])
async def test_after_an_unclean_end_the_list_is_read_again_because_it_may_have_lagged(is_same_run: bool) -> None:
    store, api, now = MemoryStore(facts={"anchor": "", "unclean": "0.0"}), Api(never()), [1e9]
    key = attempt_key("a", "in", 1)

    def searcher_of_a_run() -> Searcher:
        return Searcher(api, store, UnixClock(lambda: now[0]))

    searcher = searcher_of_a_run()
    await searcher.prepare()
    api.jobs["ls_1"] = key  # it was created before, and is listed only now
    now[0] += 1799
    assert searcher.is_prepared
    now[0] += 1
    searcher = searcher if is_same_run else searcher_of_a_run()
    assert not searcher.is_prepared
    await searcher.prepare()

    assert await store.listed([key]) == [("ls_1", key)]
    assert store.facts == {"anchor": "ls_1"}
    now[0] += 1e6
    assert searcher.is_prepared


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_list_that_cannot_be_read_once_more_stops_no_run_while_the_keys_are_known(is_known: bool) -> None:
    class BrokenApi(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            raise ServerError("busy", status=500)
            yield

    store, now = MemoryStore(facts={"anchor": "", "unclean": "1e9"}), [1e9]
    searcher = Searcher(Api(never()), store, UnixClock(lambda: now[0]))
    await searcher.prepare()
    searcher.heygen = BrokenApi(never())
    now[0] += 1800 if is_known else 86_400
    with contextlib.nullcontext() if is_known else pytest.raises(ServerError):
        await searcher.prepare()

    assert searcher.is_prepared is is_known
    assert store.facts["unclean"] == "1e9 1000000000.0"


class EmptyPageFirst(Api):
    """An API whose list begins with an empty page."""

    def __init__(self, newest: str) -> None:
        super().__init__(never())
        self.newest = newest

    async def list(self, *, page_size: int) -> AsyncIterator[Page]:
        yield Page([])
        yield Page([Lipsync(id=self.newest, status="running", callback_id=attempt_key("a", "in", 1))])
        yield Page([Lipsync(id="ls_0", status="running")])


async def test_an_empty_page_before_the_newest_job_hides_no_older_copy_of_a_journal() -> None:
    store = MemoryStore(facts={"anchor": "ls_0"})
    await Searcher(EmptyPageFirst("ls_9"), store, UnixClock(lambda: 1e9)).prepare()

    assert store.facts["anchor"] == "ls_9"
    assert await store.listed([attempt_key("a", "in", 1)])


@pytest.mark.parametrize("in_batches", [False, True])
async def test_an_empty_page_before_the_newest_job_hides_no_job_from_a_new_journal(in_batches: bool) -> None:
    store = MemoryStore()
    await Searcher(EmptyPageFirst("ls_9"), store, UnixClock(lambda: 1e9)).prepare(in_batches=in_batches)

    assert store.facts["anchor"] == "ls_9"
    assert await store.listed([attempt_key("a", "in", 1)])


class LongList(Api):
    """An API with pages of jobs of other programs between the jobs of bulk runs; the last page is of the day before."""

    async def list(self, *, page_size: int) -> AsyncIterator[Page]:
        for number, key in enumerate([_KEYS[0], None, "foreign", _KEYS[1], None, _KEYS[2]]):
            yield Page([Lipsync(id=f"ls_{9 - number}", status="running", callback_id=key)])
        day_before = datetime.fromtimestamp(1.8e9 - 25 * 3600, UTC)
        yield Page([Lipsync(id="ls_3", status="completed", callback_id=_OLD_KEY, created_at=day_before)])
        raise AssertionError("the walk goes on")


_KEYS = [attempt_key(key, "in", 1) for key in "abc"]
_OLD_KEY = attempt_key("d", "in", 1)


@pytest.mark.parametrize("in_batches", [False, True], ids=["each", "batch"])
async def test_a_new_journal_finds_all_jobs_of_rows_of_the_last_day_among_those_of_other_programs(
    in_batches: bool,
) -> None:
    store = MemoryStore()
    await Searcher(LongList(never()), store, UnixClock(lambda: 1.8e9)).prepare(in_batches=in_batches)

    assert len(await store.listed(_KEYS)) == 3
    assert not await store.listed([_OLD_KEY])
    assert store.facts["anchor"] == "ls_9"


@pytest.mark.parametrize(
    "created_at", [None, datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)]
)
async def test_a_job_whose_time_cannot_be_right_is_found_by_a_new_journal(created_at: datetime | None) -> None:
    class OddTimes(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            yield Page([Lipsync(id="ls_9", status="running", callback_id=_KEYS[0], created_at=created_at)])

    store = MemoryStore()
    await Searcher(OddTimes(never()), store, UnixClock(lambda: 1.8e9)).prepare()

    assert await store.listed(_KEYS)


@pytest.mark.parametrize("unclean", [{}, {"unclean": "0.0"}], ids=["a clean end", "an interruption"])
async def test_a_run_in_batches_reads_what_a_run_without_them_could_not_read_once(unclean: dict[str, str]) -> None:
    store, pages, is_unreadable = MemoryStore(), 0, True

    class WatchedList(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            nonlocal pages
            for number, key in enumerate([_KEYS[0], "foreign", _KEYS[2]]):
                pages += 1
                if is_unreadable and number == 1:
                    raise UnexpectedResponse(["not JSON @ $.data[7]"], status=200)
                yield Page([Lipsync(id=f"ls_{9 - number}", status="running", callback_id=key)])

    async def pages_read(*, in_batches: bool) -> int:
        before = pages
        await Searcher(WatchedList(never()), store, UnixClock(lambda: 1e9)).prepare(in_batches=in_batches)
        return pages - before

    assert await pages_read(in_batches=False) == 2 + 1  # and the newest job
    assert await pages_read(in_batches=False) == 1
    with pytest.raises(UnexpectedResponse):
        await pages_read(in_batches=True)
    is_unreadable = False
    store.facts |= unclean
    assert await pages_read(in_batches=True) == 3 + len(unclean)
    assert len(await store.listed(_KEYS)) == 2
    assert await pages_read(in_batches=True) == 1


@pytest.mark.parametrize("unclean", [None, "0.0"], ids=["after a clean end", "after an interruption"])
async def test_rows_that_wait_for_the_list_share_its_failure(unclean: str | None) -> None:
    reads = 0

    class BusyApi(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            nonlocal reads
            reads += 1
            await asyncio.sleep(0)
            raise ServerError("busy", status=500)
            yield

    store = MemoryStore(facts={"anchor": "ls_0"} | ({} if unclean is None else {"unclean": unclean}))
    searcher = Searcher(BusyApi(never()), store, UnixClock(lambda: 1.0))
    failures = await asyncio.gather(*(searcher.prepare() for _ in range(5)), return_exceptions=True)

    assert [type(one) for one in failures] == [ServerError] * 5
    assert len(set(map(id, failures))) == 5
    assert reads == 1
    with pytest.raises(ServerError):
        await searcher.prepare()
    assert reads == 2


@pytest.mark.parametrize("is_needed", [True, False])
async def test_rows_share_the_page_of_a_gateway_only_if_they_can_do_without_the_list(is_needed: bool) -> None:
    """A row that needs the list stops at such a page; the next one may get the list."""
    reads = 0

    class BlockedApi(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            nonlocal reads
            reads += 1
            await asyncio.sleep(0)
            if reads == 1:
                raise PermissionDenied("<html>", status=403)
            yield Page([])

    store = MemoryStore(facts={"anchor": "ls_0", "unclean": "0.0"})
    searcher = Searcher(BlockedApi(never()), store, UnixClock(lambda: 1.0))
    prepared = (searcher.prepare(is_needed=is_needed) for _ in range(5))
    ends = [type(one) for one in await asyncio.gather(*prepared, return_exceptions=True)]

    assert ends == [PermissionDenied, *[type(None) if is_needed else PermissionDenied] * 4]
    assert reads == (2 if is_needed else 1)


@pytest.mark.parametrize("now", [1.0, math.inf], ids=["a second later", "before the first answer"])
async def test_rows_that_are_searched_for_together_share_a_walk_and_a_later_one_needs_its_own(now: float) -> None:
    """The create of a row may have been on its way when the list was read for another one."""
    walks: list[int] = []

    class SlowApi(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            walks.append(page_size)
            await asyncio.sleep(0)
            yield Page([Lipsync(id=job, status="running", callback_id=key) for job, key in self.jobs.items()])

    store, api = MemoryStore(), SlowApi(never())
    searcher = Searcher(api, store, UnixClock(lambda: now))
    given = [prepared(key, number) for number, key in enumerate(("a", "b", "c", "d"), start=1)]
    for row in given:
        key = attempt_key(row.key, "in", 1)
        store.records[row.key] = Record(
            key=row.key, inputs="in", state=State.SUBMITTING, callback_id=key, attempt_key=key, sent_at=0.0
        )
    *together, later = ((store.records[row.key], row.row) for row in given)

    assert await asyncio.gather(*(searcher.find(*one) for one in together)) == [None] * 3
    assert len(walks) == 2  # the first had begun when the others came
    api.jobs["ls_4"] = attempt_key("d", "in", 1)
    found = await searcher.find(*later)
    assert found is not None
    assert found.lipsync_id == "ls_4"
    assert len(walks) == 3


@pytest.mark.parametrize("days", [1, 2])
async def test_a_search_that_began_while_the_key_was_known_does_not_show_that_there_is_no_job(days: int) -> None:
    """The machine may be suspended while the answer is on its way, and so may the create be."""
    key, clock = attempt_key("a", "in", 1), [1e9]

    class SuspendedApi(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            page = Page([Lipsync(id=job, status="running", callback_id=key) for job, key in self.jobs.items()])
            self.jobs["ls_1"] = key
            clock[0] += days * 86_400.0
            yield page

    async def save(_record: Record) -> None:
        raise AssertionError

    tools = Tools(
        heygen=SuspendedApi(never()), store=MemoryStore(), clock=UnixClock(lambda: clock[0]), delays=RetryDelays()
    )
    sent = Record(key="a", inputs="in", state=State.SUBMITTING, callback_id=key, attempt_key=key, sent_at=1e9 - 1)

    unknown = await advance(prepared("a", 1), sent, Step.SEARCH, tools, save)
    assert (unknown.state, unknown.sent_at, unknown.was_searched_for) == (State.SUBMITTING, sent.sent_at, False)
    found = await advance(prepared("a", 1), unknown, Step.SEARCH, tools, save)
    assert found.lipsync_id == "ls_1"


@pytest.mark.parametrize("state", [State.SUBMITTED, State.SUBMITTING], ids=["has a job", "was just searched for"])
async def test_a_search_for_another_row_does_not_cover_the_next_create_of_a_row_of_a_batch(state: State) -> None:
    walks: list[int] = []

    class WatchedApi(Api):
        async def list(self, *, page_size: int) -> AsyncIterator[Page]:
            walks.append(page_size)
            yield Page([])

    now = [1e9]
    store = MemoryStore(facts={"anchor": ""})
    searcher = Searcher(WatchedApi(never()), store, UnixClock(lambda: now[0]))
    old = {"inputs": "in", "sent_at": 1e9 - 3 * 86_400.0, "attempt_key": "k", "batch": "b"}
    earlier = Record(key="a", state=state, callback_id="own-a", batch_id="b_1", item=0, **old)
    doubtful = Record(key="d", state=State.SUBMITTING, callback_id="own-d", **old)
    store.records = {"a": earlier, "d": doubtful}
    row = prepared("a", 1).row

    assert await searcher.find(doubtful, row) is None
    again = evolve(earlier, state=State.SUBMITTING, batch="b2", batch_id=None, sent_at=now[0], attempt=2)
    store.records["a"] = again
    now[0] += 25 * 3600.0
    assert await searcher.find(again, row) is None
    assert len(walks) == 2


@pytest.mark.parametrize(("retry_after", "requests"), [(60.0, 1), (None, 2)], ids=["with a time", "without"])
async def test_the_list_is_not_read_again_by_anybody_before_the_server_is_ready(
    retry_after: float | None, requests: int
) -> None:
    sent: list[str | None] = []

    async def refuse(token: str | None) -> pagination.Page[Lipsync]:
        sent.append(token)
        raise ServerError("busy", status=503, retry_after=retry_after)

    class BusyLipsyncs:
        def list(self, **_: object) -> pagination.Paginator[Lipsync]:
            return pagination.Paginator(refuse)

    jobs = JobList(BusyLipsyncs())
    for page_size in (1, 100):
        with pytest.raises(ServerError, match="busy"):
            await jobs.page(page_size, None)

    assert len(sent) == requests


async def test_a_run_that_is_stopped_reads_no_list_that_the_server_is_not_ready_for() -> None:
    """The row that reads the list waits for its `Retry-After` when all are cancelled, one after another."""
    sent: list[str | None] = []

    async def wait(token: str | None) -> pagination.Page[Lipsync]:
        sent.append(token)
        await asyncio.Event().wait()
        raise AssertionError

    class WaitingLipsyncs:
        def list(self, **_: object) -> pagination.Paginator[Lipsync]:
            return pagination.Paginator(wait)

    jobs = JobList(WaitingLipsyncs())
    readers = [asyncio.create_task(jobs.page(100, None)) for _ in range(3)]
    await until(lambda: sent)
    for reader in readers:
        reader.cancel()
        await asyncio.wait([reader])

    assert len(sent) == 1


async def test_the_list_is_read_by_one_at_a_time() -> None:
    """A read that was refused waits inside of the call until it may be sent again, and so must the others."""
    reading, most = 0, 0

    async def wait(token: str | None) -> pagination.Page[Lipsync]:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(0)
        reading -= 1
        return pagination.Page(items=[])

    class SlowLipsyncs:
        def list(self, **_: object) -> pagination.Paginator[Lipsync]:
            return pagination.Paginator(wait)

    jobs = JobList(SlowLipsyncs())
    await asyncio.gather(*(jobs.page(100, None) for _ in range(3)))

    assert most == 1
