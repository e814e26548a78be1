"""Whole runs in virtual time: how long they take, what they cost, and how they survive an outage."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.bulk_ways import in_virtual_time, lengths_of, rows_of
from benchmarks.virtual_heygen import FakeHeyGen, Server, VirtualLoop
from heygen_async import Account, APIError, LipsyncFailed, PollPolicy, RateLimited, ServerError, TransportError
from heygen_async.bulk.limits import MOST_IN_AIR
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import UnixClock
from heygen_async.models import DubRow, Lipsync, LipsyncRequest, LipsyncStatus


@pytest.fixture
def blockbuster() -> None:
    """Let it be: in virtual time the journal's thread is the event loop's own."""


@pytest.mark.parametrize(
    ("account", "ratio", "refused", "requests"),
    [("3", 1.03, 20, 11), ("10", 1.03, 20, 5), ("20", 1.03, 20, 4), ("10, 5, 10 again", 1.04, 32, 5.5)],
)
def test_a_run_takes_hardly_longer_than_one_that_knew_the_limit(
    account: str, ratio: float, refused: int, requests: float
) -> None:
    measured = in_virtual_time("dub_many", account, seed=0)

    assert measured.ratio <= ratio
    assert measured.refused <= refused
    assert measured.requests <= requests


def test_a_row_of_a_batch_costs_less_than_one_request() -> None:
    measured = in_virtual_time("dub_many, batches", "10", seed=0)

    assert measured.requests <= 0.7
    assert measured.ratio <= 1.03


def test_while_rows_wait_for_a_seat_short_jobs_are_looked_at_soon() -> None:
    assert in_virtual_time("dub_many", "10", seed=0, mean=5.0).ratio <= 1.15  # 0.4 s of 5 are the network's


def test_a_policy_of_the_sessions_own_is_kept() -> None:
    lengths = lengths_of(0, 40)
    server = Server(lengths, lambda _: 10)
    heygen = FakeHeyGen(server, PollPolicy(fastest=15))
    with closing(VirtualLoop()) as loop:
        loop.run_until_complete(_drained(heygen, lengths))
        took = loop.time()

    assert server.asked["statuses"] <= took / 13  # an interval of 15 s, with its jitter


class Outage(FakeHeyGen):
    """Creates, and the list that goes before them, get no answer for a while."""

    def __init__(self, server: Server, start: float, end: float) -> None:
        super().__init__(server)
        self.start, self.end, self.tried = start, end, 0

    def is_on(self) -> bool:
        return self.start <= asyncio.get_running_loop().time() < self.end

    async def create(self, key: str, **request: object) -> str:
        if self.is_on():
            self.tried += 1
            await asyncio.sleep(10)  # the transport's own attempts
            raise TransportError("the network is down", outcome="unknown")
        return await super().create(key, **request)

    async def page(self, token: str | None) -> object:
        if self.is_on():
            raise TransportError("the network is down")
        return await super().page(token)


def _run_through(start: float, end: float) -> tuple[float, Outage, BaseException | None]:
    lengths = lengths_of(0, 60)
    server = Server(lengths, lambda _: 10)
    heygen = Outage(server, start, end)
    failure = None
    with closing(VirtualLoop()) as loop:
        try:
            loop.run_until_complete(_drained(heygen, lengths))
        except TransportError as error:
            failure = error
    return loop.now, heygen, failure


async def _drained(heygen: object, lengths: dict[str, float], plan: Plan = Plan(journal=None)) -> None:
    async with DubRun(heygen, rows_of(lengths), plan, origin="virtual") as run:
        states = [outcome.state async for outcome in run]
    assert states == ["completed"] * len(lengths)


def test_an_outage_of_half_an_hour_costs_no_row_and_few_requests() -> None:
    usual, _, _ = _run_through(0, 0)
    took, heygen, failure = _run_through(60, 60 + 1800)

    assert failure is None
    assert took < usual + 1800 + 100  # it is back at work within two of the longest pauses
    assert heygen.tried < 40


def test_an_outage_without_an_end_ends_the_run_after_an_hour() -> None:
    took, _, failure = _run_through(60, float("inf"))

    assert isinstance(failure, TransportError)
    assert 3600 < took - 60 < 3600 + 200


def test_a_server_that_is_not_there_ends_the_run_soon() -> None:
    took, heygen, failure = _run_through(0, float("inf"))

    assert isinstance(failure, TransportError)
    assert took < 180
    assert heygen.tried < 10


class Unnamed(FakeHeyGen):
    """The account cannot be read for a while, and everything else works."""

    def __init__(self, server: Server, end: float) -> None:
        super().__init__(server)
        self.end, self.created_early = end, 0

    async def me(self) -> Account:
        if asyncio.get_running_loop().time() < self.end:
            raise ServerError("the server failed", status=500, code="internal_error")
        return await super().me()

    async def create(self, key: str, **request: object) -> str:
        self.created_early += asyncio.get_running_loop().time() < self.end
        return await super().create(key, **request)


@pytest.mark.parametrize(("end", "is_failed"), [(40.0, False), (float("inf"), True)], ids=["a while", "for good"])
def test_nothing_is_created_before_the_account_is_known(end: float, is_failed: bool) -> None:
    lengths = lengths_of(0, 20)
    heygen = Unnamed(Server(lengths, lambda _: 10), end)
    with closing(VirtualLoop()) as loop:
        if is_failed:
            with pytest.raises(ServerError):
                loop.run_until_complete(_drained(heygen, lengths))
            assert 60 < loop.now < 180
        else:
            loop.run_until_complete(_drained(heygen, lengths))

    assert heygen.created_early == 0


class Busy(FakeHeyGen):
    """The account cannot be read before the server is ready again, which it says."""

    def __init__(self, server: Server, retry_after: float) -> None:
        super().__init__(server)
        self.retry_after, self.reads = retry_after, list[float]()

    async def me(self) -> Account:
        self.reads.append(asyncio.get_running_loop().time())
        if self.reads[-1] < self.reads[0] + self.retry_after:
            raise ServerError("busy", status=503, retry_after=self.retry_after)
        return await super().me()


@pytest.mark.parametrize(("retry_after", "reads"), [(7.0, 2), (45.0, 2), (90.0, 1), (3600.0, 1)])
def test_the_account_is_not_read_again_before_its_time_and_a_run_waits_a_minute_for_it(
    retry_after: float, reads: int
) -> None:
    lengths = lengths_of(0, 5)
    heygen = Busy(Server(lengths, lambda _: 10), retry_after)
    with closing(VirtualLoop()) as loop:
        if reads == 1:
            with pytest.raises(ServerError):
                loop.run_until_complete(_drained(heygen, lengths))
        else:
            loop.run_until_complete(_drained(heygen, lengths))

    starts = heygen.reads[:-1] if reads > 1 else heygen.reads  # the last one is at the end of the run
    assert len(starts) == reads


class Silent(FakeHeyGen):
    """Creates get no answer."""

    async def create(self, key: str, **request: object) -> str:
        await asyncio.Event().wait()
        raise AssertionError


async def _stopped(heygen: FakeHeyGen, lengths: dict[str, float]) -> float:
    clock = asyncio.get_running_loop().time
    async with DubRun(heygen, rows_of(lengths), Plan(journal=None), origin="virtual") as run:
        while not run.snapshot().stages.get("submitting"):  # noqa: ASYNC110 there is no event for it
            await asyncio.sleep(0.1)
        started = clock()
        await run.stop()
    return clock() - started


def test_a_run_that_is_stopped_and_left_waits_once_for_the_answers_of_creates() -> None:
    lengths = lengths_of(0, 4)
    with closing(VirtualLoop()) as loop:
        took = loop.run_until_complete(_stopped(Silent(Server(lengths, lambda _: 10)), lengths))

    assert took == pytest.approx(5.0, abs=0.5)


class Unlucky(FakeHeyGen):
    """The first five creates of each attempt of one row have no answer, and its first job fails."""

    KEY = "row-0"

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.sent: Counter[str] = Counter()
        self.jobs: list[str] = []

    async def create(self, key: str, **request: object) -> str:
        if not key.startswith(f"{self.KEY}."):
            return await super().create(key, **request)
        self.sent[key] += 1
        if self.sent[key] <= 5:
            raise TransportError("the connection was reset", outcome="unknown")
        self.jobs.append(await super().create(key, **request))
        return self.jobs[-1]

    async def wait(self, lipsync_id: str, **options: object) -> Lipsync:
        if self.jobs[:1] == [lipsync_id]:
            raise LipsyncFailed(Lipsync(id=lipsync_id, status=LipsyncStatus.FAILED, failure_message="overloaded"))
        return await super().wait(lipsync_id, **options)


def test_requests_without_an_answer_count_until_the_next_answer() -> None:
    lengths = lengths_of(0, 200)
    assert Unlucky.KEY in lengths
    heygen = Unlucky(Server(lengths, lambda _: 10))
    with closing(VirtualLoop()) as loop:
        loop.run_until_complete(_drained(heygen, lengths))

    assert len(heygen.sent) == 2  # six of one request without an answer are too many, ten of two are not
    assert min(heygen.sent.values()) > 5


class Poisoned(FakeHeyGen):
    """The creates of some rows never get an answer."""

    def __init__(self, server: Server, keys: set[str]) -> None:
        super().__init__(server)
        self.keys = keys

    async def create(self, key: str, **request: object) -> str:
        if key.rpartition(".")[0] in self.keys:
            raise ServerError("the server failed", status=500)
        return await super().create(key, **request)


@pytest.mark.parametrize("max_in_flight", [None, 1, 3])
@pytest.mark.parametrize("keys", [{"row-0"}, {"row-0", "row-1", "row-2"}, {"row-5", "row-9"}])
def test_rows_that_get_no_answer_hold_up_no_other_row(keys: set[str], max_in_flight: int | None) -> None:
    lengths = lengths_of(0, 20)
    heygen = Poisoned(Server(lengths, lambda _: 10), keys)

    async def states() -> dict[str, str]:
        plan = Plan(journal=None, max_in_flight=max_in_flight)
        async with DubRun(heygen, rows_of(lengths), plan, origin="virtual") as run:
            return {outcome.key: outcome.state async for outcome in run}

    with closing(VirtualLoop()) as loop:
        found = loop.run_until_complete(states())

    assert found == {key: "failed" if key in keys else "completed" for key in lengths}


class Unlisted(FakeHeyGen):
    """Creates, or the list, get no answer until a time."""

    def __init__(self, server: Server, *, creates_from: float = 0.0, lists_from: float = 0.0) -> None:
        super().__init__(server)
        self.creates_from, self.lists_from = creates_from, lists_from
        self.creates = self.lists = 0

    async def create(self, key: str, **request: object) -> str:
        self.creates += 1
        if asyncio.get_running_loop().time() < self.creates_from:
            raise TransportError("the connection was reset", outcome="unknown")
        return await super().create(key, **request)

    async def page(self, token: str | None) -> object:
        self.lists += 1
        if asyncio.get_running_loop().time() < self.lists_from:
            raise RateLimited("busy", status=429, outcome="rejected") if self.lists % 2 else TransportError("reset")
        return await super().page(token)


def test_a_resumed_run_does_not_hurry_while_the_list_cannot_be_read(tmp_path: Path) -> None:
    lengths = lengths_of(0, 3)
    server, plan = Server(lengths, lambda _: 10), Plan(journal=tmp_path / "run.sqlite")
    first, second = Unlisted(server, creates_from=math.inf), Unlisted(server, lists_from=40.0)

    async def main() -> None:
        async with DubRun(first, rows_of(lengths), plan, origin="virtual"):
            while first.creates < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await _drained(second, lengths, plan)

    with closing(VirtualLoop()) as loop:
        loop.run_until_complete(main())
    assert second.lists < 30


def test_a_wall_clock_that_is_ahead_makes_no_row_hurry() -> None:
    lengths = lengths_of(0, 3)
    heygen = Unlisted(Server(lengths, lambda _: 10), creates_from=300.0)
    with closing(VirtualLoop()) as loop:
        plan = Plan(journal=None, clock=UnixClock(loop.time, lambda: loop.time() + 2 * 86400))
        loop.run_until_complete(_drained(heygen, lengths, plan))
    assert heygen.creates < 50
    assert heygen.lists < 80


class Maintenance(FakeHeyGen):
    """An API that answers the first create with 503 and asks the client to wait, longer than the run would."""

    SECONDS = 120.0

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.sent: dict[str, list[float]] = {}

    async def create(self, key: str, **request: object) -> str:
        times = self.sent.setdefault(key, [])
        times.append(asyncio.get_running_loop().time())
        if len(self.sent) == len(times) == 1:
            raise APIError("down for maintenance", status=503, retry_after=self.SECONDS, outcome="unknown")
        return await super().create(key, **request)


def test_a_row_waits_for_the_retry_after_of_an_error_that_is_no_429() -> None:
    lengths = lengths_of(0, 3)
    heygen = Maintenance(Server(lengths, lambda _: 10))
    with closing(VirtualLoop()) as loop:
        loop.run_until_complete(_drained(heygen, lengths))

    refused, again = next(iter(heygen.sent.values()))
    assert again - refused >= heygen.SECONDS
    assert sum(len(times) for times in heygen.sent.values()) == 4


class Quota(FakeHeyGen):
    """An API that takes a few creates, and answers the others with a `Retry-After` of two hours."""

    def __init__(self, server: Server, takes: int, error: type[APIError], status: int) -> None:
        super().__init__(server)
        self.takes, self.error, self.status = takes, error, status
        self.sent = 0

    async def create(self, key: str, **request: object) -> str:
        self.sent += 1
        if self.sent > self.takes:
            raise self.error("no more today", status=self.status, retry_after=7200.0, outcome="rejected")
        return await super().create(key, **request)


async def _end_of(heygen: FakeHeyGen, lengths: dict[str, float]) -> tuple[dict[str, int], BaseException | None]:
    """Return the states of the outcomes until the run ended, and its error."""
    states = Counter[str]()
    async with DubRun(heygen, rows_of(lengths), Plan(journal=None), origin="virtual") as run:
        try:
            async for outcome in run:
                states[outcome.state] += 1
        except APIError as error:
            return states, error
    return states, None


def _ended(heygen: FakeHeyGen, lengths: dict[str, float]) -> tuple[dict[str, int], BaseException | None, float]:
    """Return the states of the outcomes of a run in virtual time, its error, and how long it took."""
    with closing(VirtualLoop()) as loop:
        return *loop.run_until_complete(_end_of(heygen, lengths)), loop.now


def test_a_run_that_may_create_no_more_for_hours_finishes_its_jobs_first() -> None:
    lengths = lengths_of(0, 60)
    heygen = Quota(Server(lengths, lambda _: 10), 8, RateLimited, 429)
    states, error, seconds = _ended(heygen, lengths)

    assert states == {"completed": 8, "skipped": 52}
    assert isinstance(error, RateLimited)
    assert heygen.sent <= 8 + MOST_IN_AIR
    assert seconds < 1800


def test_creates_that_are_all_to_be_sent_hours_later_end_the_run_after_an_hour() -> None:
    lengths = lengths_of(0, 200)
    heygen = Quota(Server(lengths, lambda _: 10), 8, ServerError, 503)
    states, error, seconds = _ended(heygen, lengths)

    assert states["completed"] == 8
    assert states["failed"] < 90
    assert isinstance(error, ServerError)
    assert 3600 < seconds < 4500


class Crowded(FakeHeyGen):
    """An account of which others use up the rate: most creates of batches are answered 429."""

    def __init__(self, server: Server, accepts_each: int) -> None:
        super().__init__(server)
        self.accepts_each = accepts_each
        self.sent = 0

    async def create_batch(self, key: str, requests: Sequence[LipsyncRequest], *, key_age: Callable[[], float]) -> str:
        self.sent += 1
        if self.sent % self.accepts_each:
            raise RateLimited("too many requests", status=429, retry_after=1, outcome="rejected")
        return await super().create_batch(key, requests, key_age=key_age)


@pytest.mark.parametrize("accepts_each", [8, 10])
def test_a_batch_that_is_refused_with_429_while_others_are_accepted_fails_no_row(accepts_each: int) -> None:
    lengths = lengths_of(0, 800)
    heygen = Crowded(Server(lengths, lambda _: 10), accepts_each)
    with closing(VirtualLoop()) as loop:
        loop.run_until_complete(_drained(heygen, lengths, Plan(journal=None, submit="batch")))

    assert heygen.server.asked["create_batch"] == 8


def test_batches_that_are_only_refused_with_429_end_the_run_after_an_hour() -> None:
    lengths = lengths_of(0, 20)
    heygen = Crowded(Server(lengths, lambda _: 10), 10**9)
    with closing(VirtualLoop()) as loop, pytest.raises(RateLimited):
        loop.run_until_complete(_drained(heygen, lengths, Plan(journal=None, submit="batch")))

    assert 3600 <= loop.now < 4000


def test_after_a_stop_no_batch_is_created() -> None:
    lengths = lengths_of(0, 2)
    heygen = FakeHeyGen(Server(lengths, lambda _: 10))

    async def stopped() -> None:
        async def source() -> AsyncIterator[DubRow]:
            for row in rows_of(lengths):
                yield row
            fed.set()

        fed = asyncio.Event()
        async with DubRun(heygen, source(), Plan(journal=None, submit="batch"), origin="virtual") as run:
            await run.stop()
            await fed.wait()
            await asyncio.sleep(60)
            assert run.snapshot().stages == {"waiting": 2}

    with closing(VirtualLoop()) as loop:
        loop.run_until_complete(stopped())
    assert heygen.server.asked["create_batch"] == 0
