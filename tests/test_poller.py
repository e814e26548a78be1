"""The poller in virtual time, against a recording server of three callables."""

import asyncio
import contextvars
import gc
import itertools
import logging
import math
import tracemalloc
import weakref
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta

import pytest
import uvloop
from attrs import define, field
from loops import LOOPS

from heygen_async.errors import (
    AuthenticationError,
    InvalidRequest,
    LipsyncFailed,
    NotFound,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.pagination import Page
from heygen_async.policies import PollPolicy
from heygen_async.polling import LipsyncPoller

pytestmark = pytest.mark.looptime

COMPLETED, FAILED, RUNNING = LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.RUNNING


def now():
    return asyncio.get_running_loop().time()


def today():
    """Return the time of day, which passes as the virtual time of the loop does."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=now())


@define
class Server:
    """Jobs that end at a time, and the requests for them with their times."""

    latency: float = 0.02
    jobs: dict[str, tuple[float, LipsyncStatus | str]] = field(factory=dict)
    looks: list[list[str]] = field(factory=list)
    gets: list[str] = field(factory=list)
    pages: list[str | None] = field(factory=list)
    times: list[float] = field(factory=list)
    trouble: dict[str, object] = field(factory=dict)
    """By the kind of request: an exception to raise, or a coroutine function to await first, given its ids."""
    edit: object = None
    """What is done to an answer of statuses before it is sent."""
    lipsync: object = Lipsync
    """What makes the answer of a get or an item of a page."""
    suspends: bool = True
    """Whether a request suspends at all."""

    def add(self, lipsync_id, *, lasts=10.0, ends=COMPLETED):
        self.jobs[lipsync_id] = (now() + lasts, ends)
        return lipsync_id

    def add_many(self, count, *, lasts=10.0, prefix="ls"):
        return [self.add(f"{prefix}_{n}", lasts=lasts) for n in range(count)]

    def status(self, lipsync_id):
        until, ends = self.jobs[lipsync_id]
        return ends if now() >= until else RUNNING

    async def statuses(self, ids):
        self.looks.append(list(ids))
        await self._work("statuses", ids)
        answer = {one: self.status(one) if one in self.jobs else LipsyncStatus.NOT_FOUND for one in ids}
        return answer if self.edit is None else self.edit(answer)

    async def get(self, lipsync_id):
        self.gets.append(lipsync_id)
        await self._work("get", lipsync_id)
        if lipsync_id not in self.jobs:
            raise NotFound("no such lipsync", status=404, code="not_found")
        return self.lipsync(id=lipsync_id, status=self.status(lipsync_id))

    async def list_page(self, token):
        self.pages.append(token)
        await self._work("list_page", token)
        start = int(token or 0)
        ids = list(reversed(self.jobs))
        items = [self.lipsync(id=one, status=self.status(one)) for one in ids[start : start + 100]]
        return Page(items=items, next_token=str(start + 100), has_more=start + 100 < len(ids))

    async def _work(self, kind, asked):
        self.times.append(now())
        if self.suspends:
            await asyncio.sleep(self.latency)
        trouble = self.trouble.get(kind)
        if isinstance(trouble, BaseException):
            raise trouble
        if trouble is not None:
            await trouble(asked)

    @property
    def requests(self):
        return len(self.looks) + len(self.gets) + len(self.pages)

    def poller(self, **options):
        options.setdefault("random", lambda: 0.5)  # no jitter
        options.setdefault("now", lambda: today().timestamp())
        return LipsyncPoller(statuses=self.statuses, get=self.get, list_page=self.list_page, **options)


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """Let `gc.collect` in these tests pass over what earlier test modules left."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def server():
    return Server()


def http(kind, status, **fields):
    return kind("no", status=status, **fields)


def nothing_is_left(poller):
    """Whether the poller is as if nobody had ever waited."""
    dispatcher = poller._dispatcher
    gc.collect()
    return dispatcher._timer is None and not dispatcher.board.jobs() and dispatcher.board.bulk_requests == 0


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


# One wait


async def test_a_wait_returns_the_completed_lipsync(server):
    server.add("ls_1", lasts=10)
    poller = server.poller()

    lipsync = await poller.wait("ls_1")

    assert lipsync == Lipsync(id="ls_1", status=COMPLETED)
    assert server.gets == ["ls_1"]
    assert now() < 10 + 1 + 3 * server.latency
    assert nothing_is_left(poller)


async def test_a_failed_job_raises_with_the_lipsync(server):
    server.add("ls_1", ends=FAILED)

    with pytest.raises(LipsyncFailed) as caught:
        await server.poller().wait("ls_1")
    assert caught.value.lipsync.id == "ls_1"


async def test_an_unknown_id_is_not_found(server):
    with pytest.raises(NotFound):
        await server.poller().wait("ls_1")


async def test_a_new_job_that_reads_do_not_know_yet_is_waited_for(server):
    asyncio.get_running_loop().call_later(5, server.add, "ls_1")
    poller = server.poller()

    assert (await poller.wait("ls_1", created_at=today())).status == COMPLETED
    assert nothing_is_left(poller)


@pytest.mark.parametrize("age", [0.5, 1.1, 5, 30])
async def test_a_job_of_less_than_a_minute_is_new(age, server):
    asyncio.get_running_loop().call_later(3, server.add, "ls_1")

    made = today() - timedelta(seconds=age)
    assert (await server.poller().wait("ls_1", created_at=made)).status == COMPLETED


@pytest.mark.parametrize("trouble", ["omitted by statuses", "503 in between"])
async def test_a_new_job_that_stays_unknown_is_not_found_whatever_happens_in_between(trouble, server):
    async def fail_in_between(_ids):
        if len(server.gets) % 2:
            raise http(ServerError, 503)

    if trouble == "omitted by statuses":
        server.edit = lambda _answer: {}
    else:
        server.trouble["get"] = fail_in_between
    with pytest.raises(NotFound):
        await server.poller().wait("ls_1", created_at=today())
    assert len(server.gets) <= 8
    assert now() < 120


async def test_a_new_job_that_stays_unknown_is_not_found(server):
    with pytest.raises(NotFound):
        await server.poller().wait("ls_1", created_at=today())
    assert len(server.gets) == 4


@pytest.mark.parametrize("hours", [1, 24])
async def test_an_old_job_that_is_unknown_is_not_found_at_once(hours, server):
    with pytest.raises(NotFound):
        await server.poller().wait("ls_1", created_at=today() - timedelta(hours=hours))
    assert len(server.gets) == 1


@pytest.mark.parametrize("word", ["get", "list"])
async def test_a_lipsync_that_says_that_it_is_not_there_is_not_found(server, word):
    server.add("ls_1", lasts=0, ends=LipsyncStatus.NOT_FOUND)

    with pytest.raises(NotFound, match="ls_1"):
        await server.poller().wait("ls_1")


async def test_a_wait_that_takes_too_long_reports_the_last_status(server):
    server.add("ls_1", lasts=1000)
    poller = server.poller()

    with pytest.raises(WaitTimeout) as caught:
        await poller.wait("ls_1", timeout=5)

    assert (caught.value.lipsync_id, caught.value.last_status) == ("ls_1", "running")
    assert now() == 5
    assert nothing_is_left(poller)


@pytest.mark.parametrize("timeout", [-1, math.nan])
async def test_a_timeout_that_cannot_pass_is_refused(server, timeout):
    with pytest.raises(ValueError, match="timeout"):
        await server.poller().wait("ls_1", timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        server.poller().as_completed(["ls_1"], timeout=timeout)


async def test_a_job_may_be_waited_for_again_after_a_timeout(server):
    server.add("ls_1", lasts=8)
    poller = server.poller()

    with pytest.raises(WaitTimeout):
        await poller.wait("ls_1", timeout=5)

    assert (await poller.wait("ls_1", timeout=5)).status == COMPLETED


async def test_the_policy_ends_a_wait_without_a_timeout(server):
    server.add("ls_1", lasts=math.inf)

    with pytest.raises(WaitTimeout) as caught:
        await server.poller(policy=PollPolicy(longest=3600)).wait("ls_1")

    assert caught.value.last_status == "running"
    assert 3600 <= now() < 3616


async def test_a_wait_outlasts_transient_errors(server):
    server.add("ls_1", lasts=100)
    server.trouble["statuses"] = http(ServerError, 503)
    task = asyncio.create_task(server.poller().wait("ls_1"))
    await asyncio.sleep(90)

    server.trouble.clear()

    assert (await task).status == COMPLETED
    assert len(server.looks) < 20


async def test_a_timeout_has_the_last_error_as_its_cause(server):
    server.add("ls_1", lasts=100)
    error = TransportError("no network")
    server.trouble |= {"statuses": error, "get": error}

    with pytest.raises(WaitTimeout) as caught:
        await server.poller().wait("ls_1", timeout=30)

    assert caught.value.last_status is None
    assert caught.value.__cause__ is error


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can jump, as it seems to when a callback takes long."""

    ahead = 0.0

    def time(self):
        return super().time() + self.ahead


@pytest.mark.looptime(False)
def test_a_result_that_comes_with_the_deadline_is_preferred_to_it():
    server = Server(latency=0)

    async def main():
        loop = asyncio.get_running_loop()
        poller = server.poller()
        server.add("ls_1", lasts=0)
        answered = loop.create_future()

        async def hold(_asked):
            await answered

        def answer_late():
            # The sender runs and wakes the other in the next round, in which the other's deadline passes, too.
            answered.set_result(None)
            loop.ahead = 100.0

        server.trouble["get"] = hold
        patient = asyncio.create_task(poller.wait("ls_1", timeout=1000))
        hasty = asyncio.create_task(poller.wait("ls_1", timeout=50))
        await turns(10)
        assert server.gets
        loop.call_soon(answer_late)
        assert (await hasty).status == COMPLETED
        await patient

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


BAD_IDS = ["", "a,b", "a/b", "a b", "é", "a%2Fb", "a?b", "a#b", "..", "statuses", "x" * 256]


@pytest.mark.parametrize("bad", [*BAD_IDS, None, 7, b"ls_1"])
async def test_an_invalid_id_is_refused(server, bad):
    with pytest.raises((TypeError, ValueError), match="lipsync_id"):
        await server.poller().wait(bad)
    with pytest.raises((TypeError, ValueError), match="lipsync_id"):
        await anext(server.poller().updates(bad))
    assert server.requests == 0


async def test_a_new_job_is_first_looked_at_when_it_is_due(server):
    server.add("ls_1", lasts=3)

    await server.poller().wait("ls_1", created_at=today())

    assert server.times[0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("ahead", [600, -600, 3 * 86400], ids=str)
async def test_the_age_of_a_job_is_by_the_clock_of_the_api(server, ahead):
    server.add("ls_1", lasts=3)
    created = today() + timedelta(seconds=ahead)

    await server.poller(now=lambda: today().timestamp() + ahead).wait("ls_1", created_at=created)

    assert server.times[0] == pytest.approx(1.0, abs=1e-4)


async def test_an_old_job_is_looked_at_at_once_and_rarely(server):
    server.add("ls_1", lasts=20)

    await server.poller().wait("ls_1", created_at=today() - timedelta(hours=1))

    assert server.times[:2] == [0, pytest.approx(15.02)]


async def test_a_wait_may_have_a_policy_of_its_own(server):
    server.add("ls_1", lasts=10)
    policy = PollPolicy(fastest=0.25, slowest=0.25)

    await server.poller().wait("ls_1", created_at=today(), policy=policy)

    assert server.times[:3] == [
        pytest.approx(0.25, abs=1e-4),
        pytest.approx(0.52, abs=1e-4),
        pytest.approx(0.79, abs=1e-4),
    ]


async def test_of_several_waits_for_one_job_the_most_frequent_looks_win(server):
    server.add("ls_1", lasts=100)
    poller, begun = server.poller(), today()
    policies = [PollPolicy(fastest=2, slowest=2), PollPolicy(fastest=5, slowest=5), PollPolicy.gentle()]
    looks = []
    async with asyncio.TaskGroup() as group:
        for task in [group.create_task(poller.wait("ls_1", created_at=begun, policy=policy)) for policy in policies]:
            await asyncio.sleep(20)
            looks.append(len(server.looks))
            task.cancel()

    assert [after - before for before, after in itertools.pairwise([0, *looks])] == [9, 4, 2]


async def test_a_wrong_clock_does_not_delay_a_job(server):
    server.add("ls_1", lasts=3)

    await server.poller().wait("ls_1", created_at=today() + timedelta(hours=1))

    assert now() < 5


async def test_jitter_spreads_the_looks(server):
    firsts = []
    for draw in (0.0, 0.999):
        server = Server()
        server.add("ls_1", lasts=5)
        begun = now()
        await server.poller(random=lambda draw=draw: draw).wait("ls_1")
        firsts.append(server.times[1] - begun - server.latency)

    assert firsts == [pytest.approx(0.9), pytest.approx(1.1, abs=0.001)]


async def test_an_unknown_status_is_logged_once_and_is_not_terminal(server, caplog):
    server.add("ls_1", lasts=5)
    server.edit = lambda answer: {one: "simmering" if status == RUNNING else status for one, status in answer.items()}

    with caplog.at_level(logging.WARNING, "heygen_async"):
        assert (await server.poller().wait("ls_1")).status == COMPLETED

    assert len(caplog.records) == 1
    assert "simmering" in caplog.text


@pytest.mark.parametrize("bulk", [True, False], ids=["with bulk requests", "without"])
async def test_however_many_unknown_statuses_there_are_the_log_is_not_flooded(server, caplog, bulk):
    unknown = itertools.count()
    server.add_many(100, lasts=3)
    odd = lambda status: f"status {next(unknown)}" if status == RUNNING else status  # noqa: E731 short
    server.edit = lambda answer: {one: odd(status) for one, status in answer.items()}
    server.lipsync = lambda id, status: Lipsync(id=id, status=odd(status))
    if not bulk:
        server.trouble["statuses"] = http(NotFound, 404)
    poller = server.poller()

    with caplog.at_level(logging.WARNING, "heygen_async"):
        await asyncio.gather(*(poller.wait(one) for one in server.jobs))

    assert next(unknown) > 100
    assert len(caplog.records) == 32


async def test_each_wait_that_sees_its_job_end_is_logged_in_one_line(server, caplog):
    poller = server.poller()
    server.add("ls_1", lasts=10)
    server.add("ls_2", lasts=0, ends=FAILED)
    server.add("ls_3", lasts=1000)

    with caplog.at_level(logging.INFO, "heygen_async"):
        waits = [poller.wait("ls_1"), poller.wait("ls_2"), poller.wait("ls_3", timeout=20)]
        await asyncio.gather(*waits, return_exceptions=True)
        async for _ in poller.as_completed(["ls_1", "a\nb"]):
            pass

    assert [record.getMessage() for record in caplog.records] == [
        "lipsync ls_2: failed after 0.0 s of waiting",
        "lipsync ls_1: completed after 10.2 s of waiting",
        "lipsync a b: not_found after 0.0 s of waiting",
        "lipsync ls_1: completed after 0.0 s of waiting",
    ]


# Many waits


async def test_waits_share_their_requests(server):
    poller = server.poller()
    ids = server.add_many(100, lasts=100)

    await asyncio.gather(*(poller.wait(one) for one in ids for _ in range(3)))

    assert {len(look) for look in server.looks} == {100}
    assert len(server.gets) + len(server.pages) <= 100
    assert nothing_is_left(poller)


async def test_a_result_is_shared_by_all_waits_for_it(server):
    poller = server.poller()
    server.add("ls_1")

    results = await asyncio.gather(*(poller.wait("ls_1") for _ in range(50)))

    assert len(server.gets) == 1
    assert all(result is results[0] for result in results)


async def test_each_wait_gets_its_own_copy_of_a_shared_error(server):
    poller = server.poller()
    server.trouble["get"] = error = http(InvalidRequest, 400)
    server.add("ls_1", lasts=0)

    caught = await asyncio.gather(*(poller.wait("ls_1") for _ in range(3)), return_exceptions=True)

    assert {type(one) for one in caught} == {InvalidRequest}
    assert len({id(one) for one in caught}) == 3
    assert all(one.__cause__ is error for one in caught)


async def test_a_refused_key_ends_all_waits_and_the_next_one_sends_again(server):
    poller = server.poller()
    ids = server.add_many(250, lasts=50)
    waits = asyncio.gather(*(poller.wait(one) for one in ids), return_exceptions=True)
    await asyncio.sleep(5)

    server.trouble["statuses"] = http(AuthenticationError, 401, code="unauthorized")
    assert {type(one) for one in await waits} == {AuthenticationError}
    assert now() < 8
    assert nothing_is_left(poller)

    server.trouble.clear()
    assert (await poller.wait(ids[0])).status == COMPLETED


async def test_a_bug_in_a_request_ends_only_its_own_waits(server):
    poller = server.poller()
    ids = server.add_many(200, lasts=5)

    async def bug(asked):
        if "ls_0" in asked:
            raise ZeroDivisionError("a bug")

    server.trouble["statuses"] = bug
    results = await asyncio.gather(*(poller.wait(one) for one in ids), return_exceptions=True)

    bugs = [one for one in results if isinstance(one, ZeroDivisionError)]
    assert len(bugs) == 100
    assert [bug.__cause__ for bug in bugs].count(None) == 1  # the sender's own, where it happened
    assert sum(isinstance(one, Lipsync) for one in results) == 100
    assert nothing_is_left(poller)


@pytest.mark.parametrize("answer", [None, 7, {"ls_1": None}, {"ls_1": 7}], ids=repr)
async def test_an_answer_of_a_wrong_type_hangs_no_wait(server, answer):
    server.edit = lambda _answer: answer

    with pytest.raises(TypeError):
        await server.poller().wait("ls_1", timeout=5)
    assert now() == server.latency


@pytest.mark.parametrize("count", [1, 20], ids=["a get", "a page"])
async def test_a_lipsync_of_a_wrong_type_hangs_no_wait(server, count):
    server.lipsync = lambda **_fields: None
    poller = server.poller()
    ids = server.add_many(count, lasts=0)

    waits = [poller.wait(one, timeout=5) for one in ids for _ in range(2)]
    results = await asyncio.gather(*waits, return_exceptions=True)

    assert {type(one) for one in results} == {AttributeError}
    assert now() < 1


async def test_without_bulk_requests_every_job_still_ends(server):
    poller = server.poller()
    ids = server.add_many(300, lasts=30)
    server.trouble["statuses"] = http(NotFound, 404)

    await asyncio.gather(*(poller.wait(one) for one in ids))

    assert len(server.looks) == 3  # in flight when it was learnt
    assert not poller.snapshot().has_statuses
    assert now() < 32
    # Pages of 100 instead of a GET for each: 3 pages for a look at all jobs.
    assert server.requests < 300
    assert nothing_is_left(poller)


async def test_one_bad_id_ends_no_other_wait(server):
    poller = server.poller()
    ids = server.add_many(50, lasts=5)

    async def refuse(asked):
        if "bad" in asked or asked == "bad":
            raise http(InvalidRequest, 400)

    server.trouble.update(statuses=refuse, get=refuse)
    results = await asyncio.gather(*(poller.wait(one) for one in [*ids, "bad"]), return_exceptions=True)

    assert isinstance(results.pop(), InvalidRequest)
    assert all(isinstance(one, Lipsync) for one in results)


async def test_a_hung_request_delays_only_its_own_ids(server):
    poller = server.poller()
    ids = server.add_many(300, lasts=10)
    ended = {}

    async def wait(one):
        await poller.wait(one)
        ended[one] = now()

    async def hang(asked):
        if "ls_0" in asked and 8 < now() < 11:
            hung.update(asked)
            await asyncio.sleep(3)

    hung = set()
    server.trouble["statuses"] = hang
    await asyncio.gather(*(wait(one) for one in ids))

    assert len(hung) == 100
    assert max(ended[one] for one in ids if one not in hung) < 10 + 1.2
    assert max(ended[one] for one in hung) < 10 + 1.2 + 3


async def test_no_more_bulk_requests_are_in_flight_than_the_policy_allows(server):
    poller = server.poller(policy=PollPolicy(max_bulk=2))
    ids = server.add_many(1000, lasts=5)
    most = 0

    async def watch(_asked):
        nonlocal most
        most = max(most, poller.snapshot().bulk_requests)

    server.trouble["statuses"] = watch
    await asyncio.gather(*(poller.wait(one) for one in ids))

    assert most == 2


@pytest.mark.parametrize("latency", [0.02, 0.08, 0.15], ids=lambda latency: f"{latency:g} s")
async def test_short_deadlines_do_not_starve_a_patient_wait(server, latency):
    server.latency = latency
    poller = server.poller()
    server.add("patient", lasts=10)
    patient = asyncio.create_task(poller.wait("patient"))

    async def hasty(one):
        with suppress(WaitTimeout):
            await poller.wait(one, timeout=0.1)

    async with asyncio.TaskGroup() as group:
        for n in itertools.count():
            if patient.done():
                break
            group.create_task(hasty(server.add(f"ls_{n}", lasts=1000)))
            group.create_task(hasty("patient"))
            await asyncio.sleep(0.03)

    assert now() < 10 + 0.5 + 2 * latency


async def test_with_nobody_waiting_nothing_is_sent(server):
    poller = server.poller()
    server.add("ls_1", lasts=100)
    task = asyncio.create_task(poller.wait("ls_1"))
    await asyncio.sleep(10)
    task.cancel()
    await turns(3)
    before = server.requests

    await asyncio.sleep(1000)

    assert server.requests == before
    assert nothing_is_left(poller)


# Cancellation


class CancelAt:
    """Await a coroutine, and cancel its task at its *nth* suspension."""

    def __init__(self, coroutine, nth):
        self.coroutine = coroutine
        self.nth = nth
        self.reached = False

    def __await__(self):
        inner = self.coroutine.__await__()
        resume = inner.__next__
        for n in itertools.count():
            try:
                future = resume()
            except StopIteration as stop:
                return stop.value
            if n == self.nth:
                self.reached = True
                asyncio.current_task().cancel()
            try:
                yield future
                resume = inner.__next__
            except BaseException as error:  # noqa: BLE001 all of them go on into the coroutine
                resume = lambda error=error: inner.throw(error)  # noqa: E731 as __next__ above


@pytest.mark.parametrize("company", [0, 1, 3])
@pytest.mark.parametrize("deadline", [None, 1000.0], ids=["victim is patient", "victim has a deadline"])
async def test_a_wait_can_be_cancelled_at_every_point_without_affecting_others(company, deadline):
    for nth in itertools.count():
        server = Server()
        poller = server.poller()
        begun = now()
        ids = server.add_many(4, lasts=3)
        others = [asyncio.create_task(poller.wait(ids[n % 4], timeout=500)) for n in range(2 * company)]
        victim = CancelAt(poller.wait(ids[0], timeout=deadline), nth)

        async def run(victim=victim):
            return await victim

        task = asyncio.create_task(run())
        done, pending = await asyncio.wait([task, *others], timeout=100)

        assert not pending
        assert all(one.result().status == COMPLETED for one in others)
        assert now() - begun < 3 + 1 + 4 * server.latency
        assert nothing_is_left(poller)
        assert len(asyncio.all_tasks()) == 1
        if not victim.reached:
            assert nth >= 4
            assert task in done
            assert task.result().status == COMPLETED
            break
        assert task.cancelled()


@pytest.mark.parametrize("kind", ["statuses", "get"])
async def test_the_request_of_a_waiter_cancelled_as_it_is_woken_is_sent_by_another(server, kind):
    poller = server.poller()
    ids = server.add_many(2, lasts=2)
    tasks = [asyncio.create_task(poller.wait(ids[0], timeout=50 + n)) for n in range(3)]
    victims = iter(tasks[:2])

    async def strike(_asked):
        # Runs after the sender has settled the request and before the waiters that it woke.
        if now() >= 2 and (victim := next(victims, None)):
            asyncio.get_running_loop().call_soon(victim.cancel)

    server.trouble[kind] = strike
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[2], Lipsync)
    assert now() < 4
    assert nothing_is_left(poller)


async def test_the_request_of_a_sender_that_times_out_is_sent_by_another_at_once(server):
    poller = server.poller()
    server.add("ls_1", lasts=0)
    server.latency = 1
    hasty = asyncio.create_task(poller.wait("ls_1", timeout=0.5))
    await asyncio.sleep(0.1)
    patient = asyncio.create_task(poller.wait("ls_1"))

    with pytest.raises(WaitTimeout):
        await hasty
    await patient

    assert server.times == [0, pytest.approx(0.5), pytest.approx(1.5)]


async def test_ten_thousand_waits_cancelled_at_once_leave_nothing():
    server = Server()
    poller = server.poller()
    tasks = [asyncio.create_task(poller.wait(one)) for one in server.add_many(10_000, lasts=100)]
    await asyncio.sleep(3)

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert nothing_is_left(poller)


# Contexts


async def test_a_request_runs_in_the_context_of_its_sender_and_in_no_other(server):
    user = contextvars.ContextVar("user")
    poller = server.poller()
    signed = {}

    async def sign(asked):
        signed[str(asked)] = user.get()

    server.trouble.update(statuses=sign, get=sign)

    async def wait(one):
        user.set(one)
        server.add(one, lasts=3)
        await poller.wait(one)
        return user.get()

    ids = [f"ls_{n}" for n in range(8)]
    assert await asyncio.gather(*(wait(one) for one in ids)) == ids

    assert set(signed.values()) <= set(ids)
    assert {one: signed[one] for one in ids} == {one: one for one in ids}


async def test_the_timer_keeps_nobodys_context_alive(server):
    class Request:
        pass

    current = contextvars.ContextVar("current")
    poller = server.poller()
    server.add_many(2, lasts=100)
    other = asyncio.create_task(poller.wait("ls_0", created_at=today() - timedelta(hours=1)))
    await asyncio.sleep(1)
    seen = []

    async def wait():
        request = Request()
        current.set(request)
        seen.append(weakref.ref(request))
        with suppress(WaitTimeout):
            await poller.wait("ls_1", timeout=0.5, created_at=today())

    await asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    gc.collect()

    assert poller._dispatcher._timer_at == pytest.approx(2, abs=0.01)  # the timer that the request had set
    assert seen[0]() is None
    other.cancel()


async def test_there_is_one_timer_however_many_wait(server):
    poller = server.poller()
    loop = asyncio.get_running_loop()
    tasks = []
    for n in range(500):
        server.add(f"ls_{n}", lasts=1000)
        tasks.append(asyncio.create_task(poller.wait(f"ls_{n}")))
        if n % 50 == 0:
            await asyncio.sleep(0.05)
        timers = [handle for handle in loop._scheduled if handle._callback == poller._dispatcher._on_timer]
        assert sum(not handle.cancelled() for handle in timers) <= 1
        assert len(timers) < 20
    for task in tasks:
        task.cancel()


# as_completed


async def test_as_completed_yields_in_the_order_of_completion(server):
    ids = [server.add(f"ls_{n}", lasts=200 - 20 * n) for n in range(5)]
    server.add("ls_failed", lasts=30, ends=FAILED)
    poller = server.poller()

    seen = [(one.id, one.status) async for one in poller.as_completed([*ids, "ls_failed", "ls_bad"])]

    assert seen == [
        ("ls_bad", LipsyncStatus.NOT_FOUND),
        ("ls_failed", FAILED),
        *((one, COMPLETED) for one in reversed(ids)),
    ]
    assert nothing_is_left(poller)
    assert len(asyncio.all_tasks()) == 1


async def as_async(ids, *, every=0.0):
    for one in ids:
        await asyncio.sleep(every)
        yield one


SOURCES = {
    "list": list,
    "set": set,
    "generator": lambda ids: (one for one in ids),
    "dict": dict.fromkeys,
    "async generator": as_async,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
@pytest.mark.parametrize("entered", [False, True], ids=["bare", "entered"])
async def test_ids_come_from_anything_that_can_be_iterated(server, source, entered):
    ids = server.add_many(1200, lasts=20)
    completions = server.poller().as_completed(source(ids))

    if entered:
        async with completions:
            seen = [one.id async for one in completions]
    else:
        seen = [one.id async for one in completions]

    assert sorted(seen) == sorted(ids)


class UntilNone:
    """The ids in a queue, up to a None: asked again after its end, it waits for more."""

    def __init__(self, ids):
        self.queue = asyncio.Queue()
        for one in [*ids, None]:
            self.queue.put_nowait(one)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if (one := await self.queue.get()) is None:
            raise StopAsyncIteration
        return one


@pytest.mark.parametrize("entered", [False, True], ids=["bare", "entered"])
async def test_a_source_of_ids_that_has_ended_is_not_asked_again(server, entered):
    ids = server.add_many(3, lasts=20)
    completions = server.poller().as_completed(UntilNone(ids))

    async with asyncio.timeout(100):
        if entered:
            async with completions:
                seen = [one.id async for one in completions]
        else:
            seen = [one.id async for one in completions]

    assert sorted(seen) == sorted(ids)


class UntilAnError(UntilNone):
    async def __anext__(self):
        if (one := await self.queue.get()) is None:
            raise ValueError("the source is broken")
        return one


async def test_a_source_of_ids_that_has_failed_is_not_asked_again(server):
    source = UntilAnError(server.add_many(1))
    source.queue = asyncio.Queue()
    source.queue.put_nowait("ls_0")
    async with asyncio.timeout(100), server.poller().as_completed(source) as completions:
        await anext(completions)
        source.queue.put_nowait(None)
        await asyncio.sleep(1)  # the source fails between two steps
        with pytest.raises(ValueError, match="the source is broken"):
            await anext(completions)


async def test_no_ids_are_completed_at_once(server):
    assert [one async for one in server.poller().as_completed([])] == []
    async with server.poller().as_completed(as_async([])) as completions:
        assert [one async for one in completions] == []


async def test_a_duplicate_id_is_yielded_once(server):
    server.add_many(2, lasts=3)
    poller = server.poller()

    assert len([one async for one in poller.as_completed(["ls_0", "ls_0"])]) == 1
    async with poller.as_completed(as_async(["ls_0", "ls_1", "ls_0"], every=10)) as completions:
        assert [one.id async for one in completions] == ["ls_0", "ls_1"]
    assert nothing_is_left(poller)


async def test_entered_it_yields_while_ids_are_still_read(server):
    ids = server.add_many(5, lasts=2)

    async with server.poller().as_completed(as_async(ids, every=10)) as completions:
        seen = [now() async for _ in completions]

    assert seen == [pytest.approx(10 * n + 10, abs=0.1) for n in range(5)]


async def test_an_error_in_the_source_of_ids_comes_through(server):
    server.add("ls_1", lasts=1000)

    async def broken():
        yield "ls_1"
        raise OSError("the file is gone")

    poller = server.poller()
    async with poller.as_completed(broken()) as completions:
        with pytest.raises(OSError, match="gone"):
            await anext(completions)
    with pytest.raises(OSError, match="gone"):
        await anext(poller.as_completed(broken()))


@pytest.mark.parametrize("ids", ["ls_1", ["ls_1", None], [7]], ids=repr)
async def test_an_id_must_be_a_string(server, ids):
    with pytest.raises(TypeError, match="string"):
        await anext(server.poller().as_completed(ids))


async def test_a_string_that_cannot_be_an_id_is_an_outcome_like_others(server):
    good = server.add("ls_1", lasts=3)

    async with server.poller().as_completed(["", "a,b", good, "a/b"]) as completions:
        seen = {one.id: one async for one in completions}

    assert {one.id: one.status for one in seen.values()} == dict.fromkeys(["", "a,b", "a/b"], "not_found") | {
        good: "completed"
    }
    assert "lipsync_id is not an id" in seen["a,b"].failure_message
    assert all(look == [good] for look in server.looks)


@pytest.mark.parametrize("ids", [["a,b"], ["ls_1", "a/b"], ["ls_1", "ls_2", ""]], ids=repr)
async def test_entered_it_yields_a_string_that_cannot_be_an_id_at_once(server, ids):
    server.add_many(3, lasts=1000)

    async def source():
        async for one in as_async(ids, every=10):
            yield one
        await asyncio.sleep(1000)

    async with server.poller().as_completed(source()) as completions:
        assert (await anext(completions)).id == ids[-1]
        assert now() == pytest.approx(10 * len(ids), abs=0.1)


@pytest.mark.parametrize("kind", [list, tuple, dict.fromkeys])
async def test_the_error_at_a_deadline_while_the_ids_are_read_has_all_of_a_collection(server, kind):
    ids = [f"ls_{number}" for number in range(2000)]
    with pytest.raises(WaitTimeout) as caught:
        await anext(server.poller().as_completed(kind(ids), timeout=0))
    assert list(caught.value.pending) == ids
    assert str(caught.value) == "2000 lipsyncs did not end in time"


async def test_the_error_at_a_deadline_while_the_ids_are_read_exhausts_no_generator(server):
    ids = iter([f"ls_{number}" for number in range(2000)])
    with pytest.raises(WaitTimeout) as caught:
        await anext(server.poller().as_completed(ids, timeout=0))
    assert len(caught.value.pending) + len(list(ids)) == 2000
    assert len(caught.value.pending) < 2000


async def test_the_error_at_its_deadline_has_the_pending_ids(server):
    server.add("ls_1", lasts=3)
    server.add("ls_2", lasts=1000)
    poller = server.poller()
    completions = poller.as_completed(["ls_1", "ls_2"], timeout=10)

    assert (await anext(completions)).id == "ls_1"
    with pytest.raises(WaitTimeout) as caught:
        await anext(completions)

    assert caught.value.pending == {"ls_2": "running"}
    assert now() == 10
    assert nothing_is_left(poller)


@pytest.mark.parametrize("ids", [[], ["ls_0"], ["ls_0", "ls_1"]], ids=len)
async def test_the_error_at_its_deadline_says_that_the_source_of_ids_has_not_ended(server, ids):
    server.add_many(2, lasts=0)

    async def source():
        for one in ids:
            yield one
        await asyncio.sleep(1000)

    async with server.poller().as_completed(source(), timeout=100) as completions:
        seen = [(await anext(completions)).id for _ in ids]
        with pytest.raises(WaitTimeout, match="the deadline passed before all ids were read") as caught:
            await anext(completions)

    assert sorted(seen) == ids
    assert (caught.value.pending, now()) == ({}, 100)


async def test_it_waits_without_a_timeout_for_as_long_as_the_policy_says(server):
    server.add("ls_1", lasts=math.inf)

    with pytest.raises(WaitTimeout):
        async for _ in server.poller(policy=PollPolicy(longest=100)).as_completed(["ls_1"]):
            pass
    assert now() == 100


async def test_nothing_is_sent_while_it_is_paused(server):
    server.add("ls_1", lasts=1)
    server.add("ls_2", lasts=100)

    async for one in server.poller().as_completed(["ls_1", "ls_2"]):
        before = server.requests
        await asyncio.sleep(50)
        assert server.requests == before
        if one.id == "ls_2":
            break


async def test_a_request_in_flight_is_not_wasted_when_another_brings_a_result_first(server):
    server.add_many(200, lasts=1000)
    server.add("ls_0", lasts=0)

    async def slow(asked):
        if "ls_0" not in asked:
            await asyncio.sleep(5)

    server.trouble["statuses"] = slow
    completions = server.poller().as_completed(f"ls_{n}" for n in range(200))

    async with completions:
        assert (await anext(completions)).id == "ls_0"
        assert now() < 1
        before = len(server.looks)
        await asyncio.sleep(10)
        assert len(server.looks) == before == 2


async def test_leaving_early_ends_its_requests(server):
    server.add_many(2, lasts=1)
    server.add("ls_1", lasts=0)
    poller = server.poller()

    async def hang(asked):
        if asked == "ls_0":
            await asyncio.Event().wait()

    server.trouble["get"] = hang
    async with poller.as_completed(["ls_0", "ls_1"]) as completions:
        assert (await anext(completions)).id == "ls_1"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(completions), 5)

    assert len(asyncio.all_tasks()) == 1
    assert nothing_is_left(poller)
    assert [one async for one in completions] == []


async def test_a_break_without_async_with_leaves_nothing_for_long(server):
    server.add_many(300, lasts=1000)
    server.add("ls_0", lasts=0)
    poller = server.poller()

    async for _ in poller.as_completed([f"ls_{n}" for n in range(300)]):
        break
    before = server.requests
    await asyncio.sleep(100)

    assert server.requests == before
    assert len(asyncio.all_tasks()) == 1
    assert poller._dispatcher._timer is None


async def test_a_step_can_be_cancelled_at_every_point_and_loses_nothing():
    for nth in itertools.count():
        server = Server()
        poller = server.poller()
        begun = now()
        ids = [server.add(f"ls_{n}", lasts=n % 3) for n in range(12)]
        bystander = asyncio.create_task(poller.wait("ls_2"))
        async with poller.as_completed(ids) as completions:
            victim = CancelAt(completions.__anext__(), nth)

            async def run(victim=victim):
                return await victim

            task = asyncio.create_task(run())
            await asyncio.wait([task])
            seen = [] if task.cancelled() else [task.result().id]
            seen += [one.id async for one in completions]

        assert sorted(seen) == sorted(ids)
        assert (await bystander).status == COMPLETED
        assert now() - begun < 2 + 1 + 6 * server.latency
        assert nothing_is_left(poller)
        assert len(asyncio.all_tasks()) == 1
        if not victim.reached:
            assert nth >= 1
            break


async def test_cancelling_a_step_that_reads_ids_loses_none_silently(server):
    ids = server.add_many(3, lasts=1)
    poller = server.poller()
    bare = poller.as_completed(as_async(ids, every=10))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(bare), 15)
    with pytest.raises(RuntimeError, match="async with"):
        await anext(bare)

    async with poller.as_completed(as_async(ids, every=10)) as entered:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(entered), 5)
        assert sorted([one.id async for one in entered]) == ids


async def test_reading_ids_gives_the_loop_its_turns(server):
    turned = 0

    async def count_turns():
        nonlocal turned
        while True:
            turned += 1
            await asyncio.sleep(0)

    async def without_a_pause():
        for n in range(5000):
            yield f"ls_{n}"
        counter.cancel()

    counter = asyncio.create_task(count_turns())
    await turns(1)
    await anext(server.poller().as_completed(without_a_pause()))

    assert turned == 11  # one for each 500, and the first


async def test_a_step_that_is_cancelled_ends_its_requests(server):
    server.latency = 5
    ids = server.add_many(2, lasts=0)
    poller = server.poller()
    completions = poller.as_completed(ids)
    step = asyncio.create_task(anext(completions))
    await asyncio.sleep(1)
    assert poller.snapshot().bulk_requests == 1

    step.cancel()
    await turns(3)

    assert len(asyncio.all_tasks()) == 1
    assert poller.snapshot().bulk_requests == 0
    assert sorted([one.id async for one in completions]) == ids


async def test_leaving_it_waits_until_its_requests_have_ended(server):
    server.add_many(200, lasts=0)
    ended = []

    async def end_slowly(asked):
        if "ls_0" not in asked:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)
                ended.append(len(asked))

    server.trouble["statuses"] = end_slowly
    async with server.poller().as_completed(f"ls_{n}" for n in range(200)) as completions:
        await anext(completions)

    assert ended == [100]
    assert len(asyncio.all_tasks()) == 1


async def test_closed_before_it_began_it_yields_nothing(server):
    completions = server.poller().as_completed([server.add("ls_1")])

    await completions.aclose()

    assert [one async for one in completions] == []
    assert server.requests == 0


async def test_while_it_is_paused_other_waits_send_their_own_requests(server):
    server.add_many(3, lasts=1)
    server.add("ls_0", lasts=0)
    poller = server.poller()

    async for _ in poller.as_completed(["ls_0", "ls_1"]):
        other = asyncio.create_task(poller.wait("ls_2", timeout=100))
        await asyncio.sleep(50)
        break

    assert other.done()
    assert other.result().status == COMPLETED


async def test_jobs_that_finished_while_it_was_paused_come_at_once(server):
    server.add_many(200, lasts=1000)
    server.add("ls_0", lasts=0)
    server.add("ls_150", lasts=0)

    async def slow(asked):
        if "ls_150" in asked and "ls_0" not in asked:
            await asyncio.sleep(5)

    server.trouble["statuses"] = slow
    seen = []
    async for one in server.poller().as_completed(f"ls_{n}" for n in range(200)):
        seen.append((one.id, now()))
        if len(seen) == 2:
            break
        await asyncio.sleep(10)

    assert seen == [("ls_0", pytest.approx(0.04)), ("ls_150", pytest.approx(10.06))]


async def test_two_cannot_iterate_it_at_once(server):
    server.add("ls_1", lasts=100)
    completions = server.poller().as_completed(["ls_1"])
    first = asyncio.create_task(anext(completions))
    await turns(2)

    with pytest.raises(RuntimeError, match="another task"):
        await anext(completions)
    first.cancel()


async def test_closing_it_ends_a_step_of_another_task(server):
    server.add("ls_1", lasts=100)
    completions = server.poller().as_completed(["ls_1"])
    step = asyncio.create_task(anext(completions, None))
    await asyncio.sleep(5)

    await completions.aclose()

    assert await step is None
    assert now() == 5


async def test_a_refused_key_ends_it(server):
    server.add_many(5, lasts=100)
    server.trouble["statuses"] = http(AuthenticationError, 401, code="unauthorized")
    poller = server.poller()

    with pytest.raises(AuthenticationError):
        async for _ in poller.as_completed([f"ls_{n}" for n in range(5)]):
            pass
    assert nothing_is_left(poller)


async def test_a_bug_ends_it_as_itself(server, caplog):
    server.add_many(200, lasts=100)
    poller = server.poller()

    async def bug(asked):
        if "ls_0" in asked:
            raise ZeroDivisionError("a bug")

    server.trouble["statuses"] = bug
    with pytest.raises(ZeroDivisionError):
        await anext(poller.as_completed([f"ls_{n}" for n in range(200)]))
    await turns(3)
    assert nothing_is_left(poller)
    assert len(asyncio.all_tasks()) == 1
    assert "never retrieved" not in caplog.text


async def test_a_job_that_cannot_be_read_comes_with_the_reason(server):
    server.add("ls_1", lasts=1)
    server.add("ls_2", lasts=2)

    async def refuse(asked):
        if asked == "ls_1":
            raise UnexpectedResponse(["not JSON"], status=200)

    server.trouble["get"] = refuse
    seen = {one.id: one async for one in server.poller().as_completed(["ls_1", "ls_2"])}

    assert seen["ls_2"].status == COMPLETED
    assert seen["ls_1"].status == LipsyncStatus.NOT_FOUND
    assert "not JSON" in seen["ls_1"].failure_message


@pytest.mark.looptime(False)
def test_results_that_come_with_the_deadline_are_yielded_first():
    server = Server(latency=0)

    async def main():
        loop = asyncio.get_running_loop()
        server.add("ls_1", lasts=0)
        server.add("ls_2", lasts=math.inf)
        poller = server.poller()
        answered = loop.create_future()

        async def hold(_asked):
            await answered

        def answer_late():
            answered.set_result(None)
            loop.ahead = 100.0

        server.trouble["get"] = hold
        completions = poller.as_completed(["ls_1", "ls_2"], timeout=50)
        step = asyncio.create_task(anext(completions))
        await turns(10)
        assert server.gets
        loop.call_soon(answer_late)

        assert (await step).id == "ls_1"
        with pytest.raises(WaitTimeout):
            await anext(completions)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


async def test_a_timeout_of_other_code_is_not_taken_for_its_own(server):
    async def slow_source():
        raise TimeoutError("the database")
        yield

    server.add("ls_1")
    server.trouble["statuses"] = TimeoutError("a bug of the transport")

    with pytest.raises(TimeoutError, match="database"):
        await anext(server.poller().as_completed(slow_source()))
    with pytest.raises(TimeoutError, match="transport"):
        await server.poller().wait("ls_1", timeout=5)


async def test_an_error_that_cannot_be_copied_is_shared_as_it_is(server):
    class Stubborn(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    server.trouble["statuses"] = error = Stubborn(1, 2)
    poller = server.poller()

    caught = await asyncio.gather(*(poller.wait("ls_1") for _ in range(3)), return_exceptions=True)

    assert caught == [error, error, error]


async def test_jobs_that_were_due_while_it_was_paused_are_requested_when_it_resumes(server):
    ids = server.add_many(3000, lasts=1)
    poller = server.poller()
    completions = poller.as_completed(ids)
    patient = asyncio.create_task(poller.wait(server.add("ls_other", lasts=200)))

    first = await anext(completions)
    await asyncio.sleep(100)
    rest = [one.id async for one in completions]

    assert sorted([first.id, *rest]) == sorted(ids)
    assert now() < 110
    await patient


async def test_old_jobs_are_read_from_the_list():
    server = Server()
    ids = server.add_many(2000, lasts=0)

    seen = [one.id async for one in server.poller().as_completed(ids)]

    assert sorted(seen) == sorted(ids)
    assert server.requests < 200


async def test_it_shares_its_requests_with_waits(server):
    poller = server.poller()
    ids = server.add_many(50, lasts=20)

    async def collect():
        return [one.id async for one in poller.as_completed(ids)]

    collected, *waited = await asyncio.gather(collect(), *(poller.wait(one) for one in ids))

    assert sorted(collected) == sorted(one.id for one in waited) == sorted(ids)
    assert len(server.gets) + len(server.pages) <= 50
    assert len(server.looks) < 30


@pytest.mark.parametrize("policy", [3, 0, {"fastest": 1}])
def test_a_policy_that_is_none_is_refused_by_name(server, policy):
    with pytest.raises(TypeError, match="policy must be a PollPolicy"):
        server.poller(policy=policy)


# updates


async def test_updates_yield_each_status_once(server):
    server.add("ls_1", lasts=10)
    poller = server.poller()

    assert [status async for status in poller.updates("ls_1")] == ["running", "completed"]
    assert nothing_is_left(poller)


@pytest.mark.parametrize("ends", [COMPLETED, FAILED])
async def test_updates_repeat_no_status_though_another_wait_saw_the_end_before_a_read_that_lags_behind(server, ends):
    poller = server.poller()
    server.add("ls_1", ends=ends)
    async with aclosing(poller.updates("ls_1")) as updates:
        assert await anext(updates) == "running"
        with suppress(LipsyncFailed):
            await poller.wait("ls_1")
        server.add("ls_1", ends=ends)
        assert [status async for status in updates] == [ends]


@pytest.mark.parametrize("ends", [FAILED, LipsyncStatus.NOT_FOUND])
async def test_updates_end_after_the_terminal_status_without_raising(server, ends):
    server.add("ls_1", lasts=0, ends=ends)

    assert [status async for status in server.poller().updates("ls_1")] == [ends]


async def test_updates_of_an_unknown_id_end_with_not_found(server):
    assert [status async for status in server.poller().updates("ls_1")] == ["not_found"]


async def test_updates_raise_lasting_errors(server):
    server.trouble["statuses"] = http(AuthenticationError, 401, code="unauthorized")

    with pytest.raises(AuthenticationError):
        async for _ in server.poller().updates("ls_1"):
            pass


async def test_nothing_is_sent_between_two_updates(server):
    server.add("ls_1", lasts=10)
    poller = server.poller()

    async with aclosing(poller.updates("ls_1")) as updates:
        async for _ in updates:
            before = server.requests
            await asyncio.sleep(100)
            assert server.requests == before
            break

    assert nothing_is_left(poller)


async def test_updates_are_looked_for_as_often_as_the_jobs_age_says(server):
    unknown = itertools.cycle(["a", "b"])
    server.add("ls_1", lasts=60)
    server.edit = lambda answer: {one: next(unknown) if status == RUNNING else status for one, status in answer.items()}

    seen = [status async for status in server.poller().updates("ls_1")]

    assert len(seen) == len(server.looks)
    assert len(server.looks) < 60  # not one straight after the other


# notify, snapshot


async def test_a_notification_ends_a_wait_at_once(server):
    server.add("ls_1", lasts=100)
    poller = server.poller()
    task = asyncio.create_task(poller.wait("ls_1"))
    await asyncio.sleep(100.01)
    before = len(server.looks)

    poller.notify("ls_1")
    await task

    assert now() < 100.1
    assert len(server.looks) == before


async def test_a_notification_of_a_job_without_waiters_does_nothing(server):
    poller = server.poller()

    poller.notify("ls_1")
    server.add("ls_2", lasts=2)
    await poller.wait("ls_2")
    poller.notify("ls_2")
    await asyncio.sleep(10)

    assert server.gets == ["ls_2"]
    assert nothing_is_left(poller)


async def test_a_snapshot_shows_the_jobs_that_are_waited_for(server):
    poller = server.poller()
    server.add_many(2, lasts=1000)
    tasks = [asyncio.create_task(poller.wait(one)) for one in ("ls_0", "ls_1", "ls_1")]
    await asyncio.sleep(60)
    server.trouble["statuses"] = error = TransportError("no network")
    await asyncio.sleep(2)

    snapshot = poller.snapshot()

    assert set(snapshot.waiting) == {"ls_0", "ls_1"}
    assert (snapshot.waiting["ls_0"].waiters, snapshot.waiting["ls_1"].waiters) == (1, 2)
    assert snapshot.waiting["ls_1"].status == "running"
    assert snapshot.waiting["ls_1"].error is error
    assert snapshot.waiting["ls_1"].age == pytest.approx(62)
    assert 0 < snapshot.waiting["ls_1"].due_in < 15
    assert snapshot.has_statuses
    for task in tasks:
        task.cancel()
    await turns(2)
    assert not poller.snapshot().waiting


# Opening and closing


async def test_close_ends_every_wait_and_every_later_one(server):
    server.add("ls_1", lasts=100)
    poller = server.poller()
    tasks = [
        asyncio.create_task(poller.wait("ls_1")),
        asyncio.create_task(anext(poller.updates("ls_1"))),
        asyncio.create_task(anext(poller.as_completed(["ls_1"]))),
    ]
    await turns(3)

    await asyncio.create_task(asyncio.sleep(0))
    poller.close()
    poller.close()

    for task in tasks:
        with pytest.raises(RuntimeError, match="closed"):
            await task
    with pytest.raises(RuntimeError, match="closed"):
        await poller.wait("ls_1")
    with pytest.raises(RuntimeError, match="closed"):
        await anext(poller.as_completed(["ls_1"]))
    assert poller._dispatcher._timer is None


@pytest.mark.parametrize("ids", [[], ["ls_0"], ["ls_0", "ls_1"]], ids=len)
async def test_close_ends_a_step_that_waits_for_more_ids_only(server, ids):
    server.add_many(2, lasts=0)
    poller = server.poller()

    async def source():
        for one in ids:
            yield one
        await asyncio.sleep(1000)

    async with poller.as_completed(source()) as completions:
        for _ in ids:
            await anext(completions)
        step = asyncio.create_task(anext(completions))
        await turns(3)
        poller.close()
        with pytest.raises(RuntimeError, match="closed"):
            await step
        with pytest.raises(RuntimeError, match="closed"):
            await anext(completions)

    assert now() < 10
    assert len(asyncio.all_tasks()) == 1


async def test_a_wait_that_is_sending_when_the_session_closes_ends_with_its_request(server):
    server.add("ls_1", lasts=100)
    server.latency = 1
    poller = server.poller()
    task = asyncio.create_task(poller.wait("ls_1"))
    await asyncio.sleep(0.5)

    poller.close()

    with pytest.raises(RuntimeError, match="closed"):
        await task
    assert now() == 1


@pytest.mark.looptime(False)
def test_a_poller_is_made_anywhere_and_belongs_to_the_loop_of_its_first_wait():
    server = Server(latency=0)
    poller = server.poller(policy=PollPolicy(fastest=0.001, slowest=0.01))

    async def wait():
        server.add("ls_1", lasts=0)
        return await poller.wait("ls_1")

    assert asyncio.run(wait()).status == COMPLETED
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(wait())
    poller.close()


@pytest.mark.looptime(False)
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_waits_that_are_never_finished_are_cleaned_up_quietly_after_their_loop(new_loop):
    server = Server()
    poller = server.poller()
    loop = new_loop()

    async def begin():
        tasks = [asyncio.create_task(poller.wait(server.add(f"ls_{n}"))) for n in range(3)]
        await turns(3)
        return tasks

    tasks = loop.run_until_complete(begin())
    loop.close()

    poller.close()

    for task in tasks:
        task._log_destroy_pending = False
    del task, tasks
    gc.collect()


@pytest.mark.looptime(False)
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "not closed"])
def test_a_loop_whose_exception_handler_holds_the_poller_is_forgotten_with_it(is_closed):
    server = Server(latency=0)
    poller = server.poller(policy=PollPolicy(fastest=0.001))

    async def wait(poller):
        asyncio.get_running_loop().set_exception_handler(lambda *_: poller)
        server.add("ls_1", lasts=0)
        await poller.wait("ls_1")
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(wait(poller))
    if is_closed:
        poller.close()
    del poller
    gc.collect()

    assert loop() is None


@pytest.mark.looptime(False)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("latency", [None, 0, 0.001], ids=["no suspension", "no latency", "some latency"])
def test_it_works_on_every_loop(loop, latency):
    server = Server(latency=latency or 0, suspends=latency is not None)

    async def main():
        poller = server.poller(policy=PollPolicy(fastest=0.002, slowest=0.02))
        ids = [server.add(f"ls_{n}", lasts=n / 10_000) for n in range(250)]

        async def collect():
            return {one.id async for one in poller.as_completed(ids)}

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            waits = [group.create_task(poller.wait(one, timeout=10)) for one in ids]
            collected = group.create_task(collect())
        assert collected.result() == {wait.result().id for wait in waits} == set(ids)
        assert nothing_is_left(poller)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


# Cost


async def test_a_wait_and_its_task_take_at_most_2_2_kilobytes(server):
    poller = server.poller()
    ids = server.add_many(2000, lasts=1000)
    gc.collect()
    tracemalloc.start()
    try:
        tasks = [asyncio.create_task(poller.wait(one)) for one in ids]
        await asyncio.sleep(5)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert size / len(ids) <= 2200
