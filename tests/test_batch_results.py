"""How rows wait for the items of their batch, in virtual time: when it is looked at, and what ends the wait."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from attrs import define, evolve, field

from heygen_async import (
    HeyGenError,
    NotFound,
    PermissionDenied,
    PollPolicy,
    RateLimited,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async._ids import segment
from heygen_async.bulk.batch_results import BatchResults
from heygen_async.bulk.effects import Tools
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.record import Record
from heygen_async.bulk.store import UnixClock
from heygen_async.models import BatchItem, Lipsync, LipsyncStatus
from heygen_async.pagination import Page

pytestmark = pytest.mark.looptime

RECORD = Record(key="a", inputs="in", sent_at=1000.0, batch="b", batch_id="batch_1", item=0)
MISSING = NotFound("no", status=404, code="not_found")
HTML = UnexpectedResponse(["not JSON"], status=200)
NO_NETWORK = TransportError("no network")


def items(*statuses: LipsyncStatus) -> list[BatchItem]:
    return [
        BatchItem(item_index=index, status=status, lipsync_id=f"ls_{index}") for index, status in enumerate(statuses)
    ]


COMPLETED = items(LipsyncStatus.COMPLETED)
RUNNING = items(LipsyncStatus.RUNNING)


@define
class Server:
    """Answers one after another, the last one for ever, and remembers when each was sent."""

    answers: list[Sequence[BatchItem] | Exception]
    times: list[float] = field(factory=list)
    polling: PollPolicy = field(factory=PollPolicy)
    runs_until: float = 0.0
    """When the batch itself ends."""

    async def batch_status(self, _: str) -> LipsyncStatus:
        has_ended = asyncio.get_running_loop().time() >= self.runs_until
        return LipsyncStatus.COMPLETED if has_ended else LipsyncStatus.RUNNING

    async def batch(self, _: str) -> AsyncIterator[Page[BatchItem]]:
        self.times.append(asyncio.get_running_loop().time())
        answer = self.answers[min(len(self.times), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        yield Page(items=answer)

    async def get(self, lipsync_id: str) -> Lipsync:
        return Lipsync(id=lipsync_id, status=LipsyncStatus.COMPLETED)

    async def list(self, **_: object) -> AsyncIterator[None]:
        return
        yield


async def results_of(server: Server, *records: Record) -> list[Lipsync | BaseException]:
    tools = Tools(heygen=server, store=None, clock=UnixClock(lambda: 1000.0), delays=RetryDelays())
    async with asyncio.TaskGroup() as tasks:
        results = BatchResults(tools, lambda work: tasks.create_task(work()))
        return await asyncio.gather(*map(results.result, records), return_exceptions=True)


async def test_the_rows_of_a_batch_share_its_looks() -> None:
    server = Server([items(*[LipsyncStatus.RUNNING] * 2), items(*[LipsyncStatus.COMPLETED] * 2)])
    found = await results_of(server, RECORD, evolve(RECORD, key="b", item=1))

    assert [job.id for job in found] == ["ls_0", "ls_1"]
    assert len(server.times) == 2


async def _ends_of_batch(count: int, refusal: Exception) -> list[Lipsync | BaseException]:
    """Return the results of *count* completed items of an account whose list cannot be read."""

    class Unlisted(Server):
        async def list(self, **_: object) -> AsyncIterator[None]:
            raise refusal
            yield

    server = Unlisted([items(*[LipsyncStatus.COMPLETED] * count)])
    return await results_of(server, *[evolve(RECORD, key=f"row-{number}", item=number) for number in range(count)])


@pytest.mark.parametrize(
    "refusal",
    [PermissionDenied("no", status=403, code="forbidden"), NotFound("no", status=404), RateLimited("no", status=429)],
    ids=["403", "404", "429"],
)
async def test_a_list_that_cannot_be_read_fails_no_row(refusal: Exception) -> None:
    assert [job.id for job in await _ends_of_batch(5, refusal)] == [f"ls_{number}" for number in range(5)]


@pytest.mark.parametrize("wrong", ["../x", "ls 1", "a/b"])
async def test_an_item_with_no_usable_id_fails_alone(wrong: str) -> None:
    class Strict(Server):
        async def get(self, lipsync_id: str) -> Lipsync:
            return await super().get(segment("lipsync_id", lipsync_id))

    bad = [
        evolve(one, lipsync_id=wrong) if one.item_index == 0 else one for one in items(*[LipsyncStatus.COMPLETED] * 2)
    ]
    found = await results_of(Strict([bad]), RECORD, evolve(RECORD, key="b", item=1))

    assert isinstance(found[0], UnexpectedResponse)
    assert "is not an id" in str(found[0])
    assert found[1].id == "ls_1"


@pytest.mark.parametrize("status", [LipsyncStatus.COMPLETED, LipsyncStatus.FAILED, LipsyncStatus.RUNNING])
async def test_an_item_that_is_listed_twice_has_one_result(status: LipsyncStatus) -> None:
    server = Server([[*COMPLETED, *items(status), *COMPLETED]])
    [job] = await results_of(server, RECORD)

    assert job.id == "ls_0"


async def test_a_batch_that_has_not_begun_is_looked_at_half_as_often() -> None:
    server = Server([items(LipsyncStatus.PENDING), RUNNING, COMPLETED])
    await results_of(server, RECORD)

    assert server.times == [0, 2, 3]


async def test_a_retry_after_is_respected() -> None:
    server = Server([RateLimited("no", status=429, retry_after=77), COMPLETED])
    await results_of(server, RECORD)

    assert server.times == [0, 77]


async def test_after_errors_in_a_row_the_looks_become_rare() -> None:
    server = Server([NO_NETWORK] * 4 + [COMPLETED])
    await results_of(server, RECORD)

    assert server.times == [0, 2, 6, 14, 30]


async def test_answers_that_stay_unreadable_end_the_wait_of_each_row() -> None:
    server = Server([HTML])
    found = await results_of(server, RECORD, evolve(RECORD, key="b", item=1))

    assert [type(one) for one in found] == [UnexpectedResponse] * 2
    assert len(server.times) == 10


async def test_unreadable_answers_that_are_not_in_a_row_do_not_end_it() -> None:
    [job] = await results_of(Server([*[HTML] * 9, RUNNING, *[HTML] * 9, COMPLETED]), RECORD)

    assert job.status is LipsyncStatus.COMPLETED


async def test_an_error_that_is_not_transient_ends_it_at_once() -> None:
    server = Server([MISSING])
    [error] = await results_of(server, evolve(RECORD, sent_at=940.0))

    assert isinstance(error, NotFound)
    assert len(server.times) == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_a_new_batch_that_reads_do_not_know_yet_is_waited_for(count: int) -> None:
    [job] = await results_of(Server([*[MISSING] * count, RUNNING, COMPLETED]), RECORD)
    assert job.status is LipsyncStatus.COMPLETED


async def test_a_new_batch_that_stays_unknown_ends_it() -> None:
    server = Server([MISSING])
    [error] = await results_of(server, RECORD)
    assert isinstance(error, NotFound)
    assert len(server.times) == 4


@pytest.mark.parametrize("page", [NotFound("no", status=404), PermissionDenied("no", status=403, code="403")], ids=repr)
async def test_a_page_of_a_gateway_does_not_end_it(page: HeyGenError) -> None:
    [job] = await results_of(Server([*[page] * 9, RUNNING, *[page] * 9, COMPLETED]), RECORD)

    assert job.status is LipsyncStatus.COMPLETED


async def test_it_ends_after_the_longest_wait_of_the_callers_policy() -> None:
    server = Server([NO_NETWORK], polling=PollPolicy(longest=600))
    [error] = await results_of(server, RECORD)

    assert isinstance(error, WaitTimeout)
    assert asyncio.get_running_loop().time() == 600


@define
class Unread(Server):
    """A server whose requests for jobs fail: for each job with its errors in order, the last one for ever."""

    errors: dict[str, list[HeyGenError | None]] = field(factory=dict)
    gets: list[str] = field(factory=list)

    async def get(self, lipsync_id: str) -> Lipsync:
        count = self.gets.count(lipsync_id)
        self.gets.append(lipsync_id)
        errors = self.errors.get(lipsync_id, [None])
        if (error := errors[min(count, len(errors) - 1)]) is not None:
            raise error
        return await super().get(lipsync_id)


BOTH = items(*[LipsyncStatus.COMPLETED] * 2)
SECOND = evolve(RECORD, key="b", item=1)


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_job_that_may_not_be_read_fails_its_row_alone(lost: int) -> None:
    refusal = PermissionDenied("no", status=403, code="resource_access_denied")
    found = await results_of(Unread([BOTH], errors={f"ls_{lost}": [refusal]}), RECORD, SECOND)

    assert isinstance(found[lost], PermissionDenied)
    assert found[1 - lost].id == f"ls_{1 - lost}"


@pytest.mark.parametrize("error", [HTML, NotFound("no", status=404)], ids=repr)
async def test_a_job_that_stays_unreadable_fails_its_row_alone(error: HeyGenError) -> None:
    running = [BOTH[0], evolve(BOTH[1], status=LipsyncStatus.RUNNING)]
    server = Unread([*[running] * 20, BOTH], errors={"ls_0": [error]})
    found = await results_of(server, RECORD, SECOND)

    assert isinstance(found[0], type(error))
    assert found[1].id == "ls_1"
    assert server.gets.count("ls_0") == 10


async def test_two_jobs_that_stay_unreadable_both_end_their_rows() -> None:
    server = Unread([BOTH], errors={"ls_0": [HTML], "ls_1": [HTML]})
    found = await results_of(server, RECORD, SECOND)

    assert [type(one) for one in found] == [UnexpectedResponse] * 2
    assert server.gets.count("ls_0") == server.gets.count("ls_1") == 10


async def test_a_job_whose_request_fails_is_requested_last_and_again() -> None:
    server = Unread([BOTH], errors={"ls_0": [NO_NETWORK, NO_NETWORK, None]})
    found = await results_of(server, RECORD, SECOND)

    assert [job.id for job in found] == ["ls_0", "ls_1"]
    assert server.gets == ["ls_0", "ls_1", "ls_0", "ls_0"]


async def test_a_retry_after_of_a_job_is_respected() -> None:
    server = Unread([BOTH], errors={"ls_0": [RateLimited("no", status=429, retry_after=77), None]})
    await results_of(server, RECORD, SECOND)

    assert server.times == [0, 77]


async def test_a_row_whose_item_is_not_in_a_batch_that_is_over_does_not_wait_for_ever() -> None:
    server = Server([COMPLETED])
    found = await results_of(server, RECORD, SECOND)

    assert found[0].id == "ls_0"
    assert "does not list item 1" in str(found[1])
    assert len(server.times) == 10


@pytest.mark.parametrize("listed", [[], COMPLETED], ids=["no item", "the other item"])
async def test_a_batch_that_is_over_without_an_item_is_not_waited_for(listed: list[BatchItem]) -> None:
    server = Server([listed], runs_until=2000)
    [error] = await results_of(server, SECOND)

    assert isinstance(error, UnexpectedResponse)
    assert "does not list item 1" in str(error)
    assert sum(time >= 2000 for time in server.times) == 10


@pytest.mark.parametrize(
    ("before", "runs_until"),
    [([COMPLETED] * 9, 0), ([RUNNING] * 20, 0), ([[]] * 20, 3600), ([COMPLETED] * 20, 3600)],
    ids=["nine looks", "another runs", "none is listed yet", "it goes on"],
)
async def test_an_item_that_is_listed_late_counts(before: list[list[BatchItem]], runs_until: float) -> None:
    found = await results_of(Server([*before, BOTH], runs_until=runs_until), RECORD, SECOND)

    assert [job.id for job in found] == ["ls_0", "ls_1"]


@pytest.mark.parametrize("lipsync_id", [None, ""])
@pytest.mark.parametrize("looks", [1, 9])
async def test_a_completed_item_may_get_its_job_late(lipsync_id: str | None, looks: int) -> None:
    nameless = [evolve(BOTH[0], lipsync_id=lipsync_id), BOTH[1]]
    found = await results_of(Server([*[nameless] * looks, BOTH]), RECORD, SECOND)

    assert [job.id for job in found] == ["ls_0", "ls_1"]


async def test_a_completed_item_that_gets_no_job_ends_its_row() -> None:
    server = Server([[evolve(BOTH[0], lipsync_id=None), BOTH[1]]])
    found = await results_of(server, RECORD, SECOND)

    assert "has no lipsync_id" in str(found[0])
    assert found[1].id == "ls_1"
    assert len(server.times) == 10


async def test_a_job_whose_requests_always_fail_holds_up_no_other_one() -> None:
    errors = {"ls_0": [NO_NETWORK], "ls_1": [NO_NETWORK, None]}
    found = await results_of(Unread([BOTH], errors=errors, polling=PollPolicy(longest=600)), RECORD, SECOND)

    assert isinstance(found[0], WaitTimeout)
    assert found[1].id == "ls_1"
