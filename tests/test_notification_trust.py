"""The poller with webhooks, in virtual time: it looks rarely while notifications arrive, and as usual when not."""

import asyncio
import time
from datetime import UTC, datetime

import orjson
import pytest
from attrs import define, field

from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.pagination import Page
from heygen_async.policies import PollPolicy
from heygen_async.polling import LipsyncPoller
from heygen_async.polling.cadence import NotificationTrust, safety_net_interval
from heygen_async.webhooks import WebhookReceiver, sign

LATENCY = 0.05
NEW = datetime(9999, 1, 1, tzinfo=UTC)
"""When a job was created whose age is 0, whatever this machine's clock says: real time passes in virtual time too."""


def clock():
    return asyncio.get_running_loop().time()


@define
class HeyGen:
    """Jobs that end at their time, with or without a notification; and what was requested when."""

    ends: dict[str, float] = field(factory=dict)
    looks: list[float] = field(factory=list)
    gets: list[str] = field(factory=list)
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
        self.gets.append(lipsync_id)
        await asyncio.sleep(LATENCY)
        return Lipsync(id=lipsync_id, status=self.status(lipsync_id))

    async def list_page(self, token):
        return Page(items=[])

    async def job(self, poller, name, *, starts=0.0, lasts=100.0, notified=True):
        """Run a job, wait for it, and note how late its end was seen."""
        await asyncio.sleep(starts)
        self.ends[name] = clock() + lasts
        if notified:
            asyncio.get_running_loop().call_later(lasts, poller.notify, name)
        await poller.wait(name, created_at=NEW)
        self.late[name] = clock() - self.ends[name]


async def run(*jobs):
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job)


@pytest.mark.looptime
async def test_with_notifications_the_ends_are_seen_at_once_with_few_requests():
    heygen = HeyGen()
    poller = heygen.poller()

    await run(*(heygen.job(poller, f"ls_{n}", starts=10 * n, lasts=90 + n % 20) for n in range(300)))

    assert max(heygen.late.values()) < 2.1 * LATENCY  # it may come while a look is on its way
    assert len(heygen.gets) == 300
    assert len(heygen.looks) <= 30


@pytest.mark.looptime
async def test_a_thousand_jobs_at_once_cost_a_tenth_of_a_request_each_beside_their_own():
    heygen = HeyGen()
    poller = heygen.poller()

    await run(*(heygen.job(poller, f"ls_{n}", lasts=200 + n / 5) for n in range(1000)))

    assert max(heygen.late.values()) < 2.1 * LATENCY
    assert len(heygen.gets) == 1000
    assert len(heygen.looks) <= 100


@pytest.mark.looptime
async def test_an_end_without_a_notification_is_found_by_the_safety_net():
    heygen = HeyGen()
    poller = heygen.poller()
    jobs = [heygen.job(poller, f"ls_{n}", starts=10 * n, notified=n % 10 != 5) for n in range(100)]

    await run(*jobs)

    assert len(heygen.late) == len(heygen.gets) == 100
    assert max(heygen.late.values()) < 65
    assert len(heygen.looks) < 25  # one lost in ten is no reason to doubt


@pytest.mark.looptime
async def test_when_notifications_stop_it_polls_as_usual_until_they_are_back():
    heygen = HeyGen()
    poller = heygen.poller()

    def wave(name, start, *, notified):
        return [heygen.job(poller, f"{name}_{n}", starts=start + 10 * n, notified=notified) for n in range(50)]

    # Each wave lasts for 600 s, and starts when the last one has ended.
    await run(
        *wave("first", 0, notified=True), *wave("silent", 1000, notified=False), *wave("second", 2000, notified=True)
    )

    silent = [heygen.late[f"silent_{n}"] for n in range(50)]
    assert max(silent[:10]) < 60
    assert max(silent[20:]) < 3.5  # a share of 0.03 of the job's length, as the policy says
    assert sum(look < 1000 for look in heygen.looks) <= 10
    assert sum(look > 2100 for look in heygen.looks) <= 10
    assert max(heygen.late[f"second_{n}"] for n in range(50)) < 3.5


@pytest.mark.looptime
async def test_without_any_notification_only_one_job_is_late():
    heygen = HeyGen()
    poller = heygen.poller()

    for n in range(3):
        await heygen.job(poller, f"ls_{n}", notified=False)

    assert heygen.late["ls_0"] == pytest.approx(35, abs=1)  # looked at after 30, 60, 90 and 135 s
    assert max(heygen.late["ls_1"], heygen.late["ls_2"]) < 3.5


@pytest.mark.looptime
async def test_once_trust_ends_the_jobs_waited_for_are_looked_at_sooner():
    heygen = HeyGen()
    poller = heygen.poller()

    await run(
        heygen.job(poller, "ls_short", lasts=20, notified=False),
        heygen.job(poller, "ls_long", lasts=100, notified=False),
    )

    assert heygen.late["ls_short"] == pytest.approx(10, abs=1)
    assert heygen.late["ls_long"] < 3.5


@pytest.mark.looptime
async def test_a_job_notified_too_early_is_polled_as_usual():
    heygen = HeyGen()
    poller = heygen.poller()
    asyncio.get_running_loop().call_later(90, poller.notify, "ls_1")

    await heygen.job(poller, "ls_1", notified=False)

    assert heygen.late["ls_1"] < 3.5


@pytest.mark.looptime
async def test_a_job_that_ended_before_the_wait_does_not_end_the_trust():
    heygen = HeyGen(ends={"ls_old": -1.0})
    poller = heygen.poller()

    await poller.wait("ls_old")
    await heygen.job(poller, "ls_1", lasts=1000)

    assert len(heygen.looks) <= 10


@pytest.mark.looptime
async def test_a_delivery_makes_it_look_and_the_result_comes_from_the_api():
    heygen = HeyGen(ends={"ls_1": 50.0})
    poller = heygen.poller()
    receiver = WebhookReceiver(secret="whsec_1", queue_size=1)
    receiver.attach(poller)
    waiting = asyncio.create_task(poller.wait("ls_1", created_at=NEW))
    await asyncio.sleep(50)

    statuses = [await deliver(receiver, f"evt_{n}", "ls_1") for n in range(3)]

    assert await waiting == Lipsync(id="ls_1", status=LipsyncStatus.COMPLETED)
    assert clock() == pytest.approx(50 + LATENCY)
    assert heygen.gets == ["ls_1"]
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
def test_the_safety_net_looks_when_a_job_is_overdue_and_then_repeatedly(age, typical, seconds):
    assert safety_net_interval(PollPolicy.with_webhooks(), age, typical) == seconds


def test_notifications_that_are_not_expected_are_neither_trusted_nor_missed():
    trust = NotificationTrust()
    trust.confirmed(5.0)

    assert not trust.is_trusted
    assert not trust.missed(0.0)


@pytest.mark.parametrize(("since", "is_doubted"), [(9.0, False), (10.0, False), (10.1, True)])
def test_trust_ends_with_a_job_during_which_no_notification_arrived(since, is_doubted):
    trust = NotificationTrust()
    trust.expect()
    trust.confirmed(10.0)

    assert trust.missed(since) is is_doubted
    assert trust.is_trusted is not is_doubted
    assert not trust.missed(20.0) or not is_doubted
