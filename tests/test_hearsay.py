"""The poller under webhooks, in virtual time: it looks seldom while there is word, and as often as ever when not."""

import asyncio
import time
from datetime import UTC, datetime

import orjson
import pytest
from attrs import define, field

from heygen_async._polling.hearsay import Hearsay, patience
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.pagination import Page
from heygen_async.policies import PollPolicy
from heygen_async.polling import LipsyncPoller
from heygen_async.webhooks import WebhookReceiver, sign

LATENCY = 0.05


def clock():
    return asyncio.get_running_loop().time()


@define
class HeyGen:
    """Jobs that end at their time, of which the poller is told or not; and when it asked what."""

    ends: dict[str, float] = field(factory=dict)
    looks: list[float] = field(factory=list)
    fetches: list[str] = field(factory=list)
    late: dict[str, float] = field(factory=dict)

    def poller(self):
        poller = LipsyncPoller(
            statuses=self.statuses, get=self.get, list_page=self.list_page, policy=PollPolicy(), random=lambda: 0.5
        )
        poller.expect_notifications()
        return poller

    def status(self, lipsync_id):
        return LipsyncStatus.COMPLETED if clock() >= self.ends[lipsync_id] else LipsyncStatus.RUNNING

    async def statuses(self, ids):
        self.looks.append(clock())
        await asyncio.sleep(LATENCY)
        return {one: self.status(one) for one in ids}

    async def get(self, lipsync_id):
        self.fetches.append(lipsync_id)
        await asyncio.sleep(LATENCY)
        return Lipsync(id=lipsync_id, status=self.status(lipsync_id))

    async def list_page(self, token):
        return Page(items=[])

    async def job(self, poller, name, *, starts=0.0, lasts=100.0, told=True):
        """Run a job, wait for it, and note how late its end was seen."""
        await asyncio.sleep(starts)
        self.ends[name] = clock() + lasts
        if told:
            asyncio.get_running_loop().call_later(lasts, poller.notify, name)
        await poller.wait(name, created_at=datetime.now(UTC))
        self.late[name] = clock() - self.ends[name]


async def run(*jobs):
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job)


@pytest.mark.looptime
async def test_while_there_is_word_the_ends_are_seen_at_once_and_hardly_anything_is_asked():
    heygen = HeyGen()
    poller = heygen.poller()

    await run(*(heygen.job(poller, f"ls_{n}", starts=10 * n, lasts=90 + n % 20) for n in range(300)))

    assert max(heygen.late.values()) < 2.1 * LATENCY  # it may come while a look is on its way
    assert len(heygen.fetches) == 300
    assert len(heygen.looks) <= 30


@pytest.mark.looptime
async def test_a_thousand_jobs_at_once_cost_a_tenth_of_a_request_each_beside_their_own():
    heygen = HeyGen()
    poller = heygen.poller()

    await run(*(heygen.job(poller, f"ls_{n}", lasts=200 + n / 5) for n in range(1000)))

    assert max(heygen.late.values()) < 2.1 * LATENCY
    assert len(heygen.fetches) == 1000
    assert len(heygen.looks) <= 100


@pytest.mark.looptime
async def test_an_end_without_word_is_found_by_the_safety_net():
    heygen = HeyGen()
    poller = heygen.poller()
    jobs = [heygen.job(poller, f"ls_{n}", starts=10 * n, told=n % 10 != 5) for n in range(100)]

    await run(*jobs)

    assert len(heygen.late) == len(heygen.fetches) == 100
    assert max(heygen.late.values()) < 65
    assert len(heygen.looks) < 25  # one lost in ten is no reason to doubt


@pytest.mark.looptime
async def test_when_word_stops_it_looks_as_often_as_ever_and_seldom_again_when_word_comes_again():
    heygen = HeyGen()
    poller = heygen.poller()

    def wave(name, start, *, told):
        return [heygen.job(poller, f"{name}_{n}", starts=start + 10 * n, told=told) for n in range(50)]

    # Each wave lasts for 600 s, and starts when the last one has ended.
    await run(*wave("first", 0, told=True), *wave("silent", 1000, told=False), *wave("second", 2000, told=True))

    silent = [heygen.late[f"silent_{n}"] for n in range(50)]
    assert max(silent[:10]) < 60
    assert max(silent[20:]) < 3.5  # a share of 0.03 of the job's length, as the policy says
    assert sum(look < 1000 for look in heygen.looks) <= 10
    assert sum(look > 2100 for look in heygen.looks) <= 10
    assert max(heygen.late[f"second_{n}"] for n in range(50)) < 3.5


@pytest.mark.looptime
async def test_when_word_never_comes_one_job_is_late_and_that_is_all():
    heygen = HeyGen()
    poller = heygen.poller()

    for n in range(3):
        await heygen.job(poller, f"ls_{n}", told=False)

    assert heygen.late["ls_0"] == pytest.approx(35, abs=1)  # looked at after 30, 60, 90 and 135 s
    assert max(heygen.late["ls_1"], heygen.late["ls_2"]) < 3.5


@pytest.mark.looptime
async def test_those_who_wait_already_are_looked_at_sooner_once_word_is_doubted():
    heygen = HeyGen()
    poller = heygen.poller()

    await run(
        heygen.job(poller, "ls_short", lasts=20, told=False), heygen.job(poller, "ls_long", lasts=100, told=False)
    )

    assert heygen.late["ls_short"] == pytest.approx(10, abs=1)
    assert heygen.late["ls_long"] < 3.5


@pytest.mark.looptime
async def test_a_job_whose_word_came_too_soon_is_looked_at_as_often_as_ever():
    heygen = HeyGen()
    poller = heygen.poller()
    asyncio.get_running_loop().call_later(90, poller.notify, "ls_1")

    await heygen.job(poller, "ls_1", told=False)

    assert heygen.late["ls_1"] < 3.5


@pytest.mark.looptime
async def test_a_job_that_had_ended_before_the_wait_is_no_reason_to_doubt():
    heygen = HeyGen(ends={"ls_old": -1.0})
    poller = heygen.poller()

    await poller.wait("ls_old")
    await heygen.job(poller, "ls_1", lasts=1000)

    assert len(heygen.looks) <= 10


@pytest.mark.looptime
async def test_a_delivery_is_a_reason_to_look_and_what_the_wait_returns_comes_from_the_api():
    heygen = HeyGen(ends={"ls_1": 50.0})
    poller = heygen.poller()
    receiver = WebhookReceiver(secret="whsec_1", queue_size=1)
    receiver.attach(poller)
    waiting = asyncio.create_task(poller.wait("ls_1", created_at=datetime.now(UTC)))
    await asyncio.sleep(50)

    statuses = [await deliver(receiver, f"evt_{n}", "ls_1") for n in range(3)]

    assert await waiting == Lipsync(id="ls_1", status=LipsyncStatus.COMPLETED)
    assert clock() == pytest.approx(50 + LATENCY)
    assert heygen.fetches == ["ls_1"]
    assert statuses == [200, 200, 200]  # nobody iterates, and the queue is not filled


@pytest.mark.looptime
async def test_an_attached_receiver_queues_for_whoever_iterates():
    receiver = WebhookReceiver(secret="whsec_1", queue_size=1)
    receiver.attach(HeyGen().poller())
    await deliver(receiver, "evt_1", "ls_1")

    taking = asyncio.create_task(anext(aiter(receiver)))
    await asyncio.sleep(0)
    await deliver(receiver, "evt_2", "ls_1")

    assert (await taking).event_id == "evt_2"


async def deliver(receiver, event_id, lipsync_id):
    body = orjson.dumps({"event_id": event_id, "event_type": "lipsync.success", "event_data": {"id": lipsync_id}})
    headers = sign(body, secret="whsec_1", event_id=event_id, timestamp=time.time())
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    await receiver({"type": "http", "method": "POST", "headers": raw}, receive, send)
    return sent[0]["status"]


def test_the_safety_net_is_a_policy_like_others():
    policy = PollPolicy.with_webhooks()

    assert policy.interval(0, 0) == 30
    assert policy.interval(0, 100) == 50
    assert policy.interval(10_000, 0) == 600


@pytest.mark.parametrize(
    ("age", "typical", "seconds"),
    [
        pytest.param(0, 0, 30, id="nothing-is-known"),
        pytest.param(200, 0, 100, id="old-and-nothing-is-known"),
        pytest.param(0, 100, 150, id="new"),
        pytest.param(90, 100, 60, id="nearly-done"),
        pytest.param(150, 100, 75, id="overdue"),
        pytest.param(0, 3600, 4200, id="long"),
        pytest.param(4200, 3600, 600, id="long-and-overdue"),
    ],
)
def test_a_job_is_looked_at_when_it_is_overdue_and_then_ever_again(age, typical, seconds):
    assert patience(PollPolicy.with_webhooks(), age, typical) == seconds


def test_what_was_never_expected_is_neither_believed_nor_missed():
    hearsay = Hearsay()
    hearsay.confirmed(5.0)

    assert not hearsay.is_believed
    assert not hearsay.missed(0.0)


@pytest.mark.parametrize(("since", "is_doubted"), [(9.0, False), (10.0, False), (10.1, True)])
def test_it_is_doubted_by_a_job_that_has_heard_of_nobody(since, is_doubted):
    hearsay = Hearsay()
    hearsay.expect()
    hearsay.confirmed(10.0)

    assert hearsay.missed(since) is is_doubted
    assert hearsay.is_believed is not is_doubted
    assert not hearsay.missed(20.0) or not is_doubted
