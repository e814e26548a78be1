"""Waiting for a batch, in virtual time: when it is looked at, and what ends the wait."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from attrs import define, evolve, field

from heygen_async import (
    Batch,
    LipsyncBatch,
    LipsyncRequest,
    NotFound,
    PollPolicy,
    RateLimited,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async.errors import error_class

pytestmark = pytest.mark.looptime

RUNNING = Batch(id="batch_1", status="running", total_items=3)
HTML = UnexpectedResponse(["not JSON"], status=200)
GONE = TransportError("no network")


def today():
    """Return the time of day, which passes as the virtual time of the loop does."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=asyncio.get_running_loop().time())


@define
class Server:
    """Answers one after another, the last one for ever; and when each was sent."""

    answers: list
    times: list = field(factory=list)
    created_at: datetime | None = None

    async def get(self):
        self.times.append(asyncio.get_running_loop().time())
        answer = self.answers[min(len(self.times), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, *, now=lambda: today().timestamp(), **options):
        batch = LipsyncBatch("batch_1", None, None, PollPolicy(), now, look=self.get, created_at=self.created_at)
        return batch.wait(**options)


def completed():
    return evolve(RUNNING, status="completed")


async def test_it_returns_the_batch_once_every_item_has_ended(caplog):
    with caplog.at_level(logging.INFO, "heygen_async"):
        batch = await Server([RUNNING, RUNNING, completed()]).wait()

    assert batch.status == "completed"
    assert [record.getMessage() for record in caplog.records] == ["batch batch_1: completed after 2.0 s of waiting"]


@pytest.mark.parametrize(
    ("status", "most"), [(400, 10), (401, 3), (402, 10), (403, 10), (404, 10), (405, 10), (413, 10), (451, 10)]
)
async def test_a_page_of_a_gateway_ends_the_wait_only_if_it_stays(status, most):
    page = error_class(status)("Blocked", status=status)
    assert (await Server([RUNNING, *[page] * (most - 1), completed()]).wait()).status == "completed"

    server = Server([RUNNING, page])
    with pytest.raises(type(page)):
        await server.wait()
    assert len(server.times) == most + 1


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refusal_of_the_api_ends_the_wait_at_once(status):
    server = Server([RUNNING, error_class(status)("no", status=status, code="refused")])
    with pytest.raises(error_class(status)):
        await server.wait()
    assert len(server.times) == 2


async def test_an_old_batch_is_looked_at_rarely():
    server = Server([evolve(RUNNING, created_at=today() - timedelta(hours=1)), completed()])

    await server.wait()

    assert server.times == [0, 15]


@pytest.mark.parametrize("ahead", [3600, -3600, 3 * 86400], ids=str)
async def test_the_age_of_a_batch_is_by_the_clock_of_the_api(ahead):
    server = Server([evolve(RUNNING, created_at=today() + timedelta(seconds=ahead)), completed()])

    await server.wait(now=lambda: today().timestamp() + ahead)

    assert server.times == [0, 1]


async def test_after_errors_in_a_row_the_looks_become_rare():
    server = Server([GONE] * 5 + [completed()])

    await server.wait()

    assert server.times == [0, 2, 6, 14, 29, 44]


async def test_a_retry_after_is_respected():
    server = Server([RateLimited("no", status=429, retry_after=77), completed()])

    await server.wait()

    assert server.times == [0, 77]


async def test_answers_that_stay_unreadable_end_it():
    server = Server([HTML])

    with pytest.raises(UnexpectedResponse):
        await server.wait()

    assert len(server.times) == 10


async def test_unreadable_answers_that_are_not_in_a_row_do_not_end_it():
    server = Server([*[HTML] * 9, RUNNING, *[HTML] * 9, GONE, *[HTML] * 9, completed()])

    assert (await server.wait()).status == "completed"


async def test_an_error_that_is_not_transient_ends_it_at_once():
    server = Server([NotFound("no", status=404, code="not_found")])

    with pytest.raises(NotFound):
        await server.wait()

    assert len(server.times) == 1


MISSING = NotFound("no", status=404, code="not_found")


@pytest.mark.parametrize("count", [1, 3])
async def test_a_new_batch_that_reads_do_not_know_yet_is_waited_for(count):
    server = Server([*[MISSING] * count, RUNNING, completed()], created_at=today())
    assert (await server.wait()).status == "completed"


@pytest.mark.parametrize(("age", "looks"), [(0, 4), (59, 2), (61, 1)])
async def test_a_batch_that_stays_unknown_ends_it_sooner_the_older_it_is(age, looks):
    server = Server([MISSING], created_at=datetime.fromtimestamp(1000 - age, UTC))
    started = asyncio.get_running_loop().time()
    with pytest.raises(NotFound):
        await server.wait(now=lambda: 1000 + asyncio.get_running_loop().time() - started)
    assert len(server.times) == looks


async def test_a_batch_that_was_just_created_has_the_time_of_it_and_one_of_an_id_has_none(heygen):
    request = LipsyncRequest(video="https://example.com/v.mp4", audio="https://example.com/a.mp3")
    batch = await heygen.lipsyncs.create_batch([request])
    assert abs((datetime.now(UTC) - batch.created_at).total_seconds()) < 60
    assert heygen.lipsyncs.batch(batch.id).created_at is None


async def test_the_error_at_its_deadline_has_the_last_status_and_the_last_error():
    with pytest.raises(WaitTimeout) as caught:
        await Server([RUNNING, GONE]).wait(timeout=30)

    assert (caught.value.lipsync_id, caught.value.last_status) == ("batch_1", "running")
    assert caught.value.__cause__ is GONE
    assert asyncio.get_running_loop().time() == 30


async def test_a_timeout_of_something_else_is_raised_unchanged():
    with pytest.raises(TimeoutError, match="database"):
        await Server([TimeoutError("the database")]).wait(timeout=30)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
async def test_an_invalid_timeout_is_refused_before_anything_is_sent(timeout):
    server = Server([completed()])

    with pytest.raises((TypeError, ValueError), match="timeout"):
        await server.wait(timeout=timeout)

    assert server.times == []
