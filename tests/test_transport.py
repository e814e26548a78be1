"""The driver: one logical call over several attempts, on a virtual clock with a scripted exchange."""

import asyncio
import contextlib
import logging
from itertools import pairwise

import orjson
import pytest
from attrs import evolve

from heygen_async import (
    APIError,
    Conflict,
    HeyGenError,
    NotFound,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
)
from heygen_async._transport.driver import Transport
from heygen_async._transport.gate import Gate
from heygen_async._transport.origin import Origin
from heygen_async._transport.server_time import Moment, ServerTime
from heygen_async._wire import Answer, compose
from heygen_async.models import Secret

pytestmark = pytest.mark.looptime

OK = Answer(200, {"X-Request-Id": "req_1"}, b'{"data": {}}')
CREATE = compose("POST", "/v3/lipsyncs", json={"a": 1})
GET = compose("GET", "/v3/lipsyncs/{lipsync_id}", segments={"lipsync_id": "ls_1"})


def api_error(status, code="code", **headers):
    return Answer(status, headers, orjson.dumps({"error": {"code": code, "message": "no"}}))


def broken(outcome="unknown"):
    error = TransportError("the connection broke")
    error.outcome = outcome
    return error


class Wire:
    """Stands for `Http` and its connections: answers from a script, and notes when which request left."""

    def __init__(self, *script, seconds=0.0):
        self.origin = Origin("https://api.test", "X-Api-Key", "", Secret("sk_test"))
        self.script = list(script)
        self.seconds = seconds
        self.sent = []
        self.in_the_air = self.most_in_the_air = 0
        self.connections = self

    def ensure_open(self):
        """It is always open."""

    async def exchange(self, request, *, headers, timeouts):
        self.sent.append((asyncio.get_running_loop().time(), request))
        self.in_the_air += 1
        self.most_in_the_air = max(self.most_in_the_air, self.in_the_air)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.in_the_air -= 1
        answer = self.script.pop(0) if self.script else OK
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def times(self):
        return [round(at, 3) for at, _ in self.sent]


def transport(wire, *, retry=RetryPolicy(), max_connections=100, rate=None, clock=lambda: 1_700_000_000.0):
    gate = Gate(max_connections=max_connections, max_requests_per_second=rate)
    return Transport(wire, gate, retry, Timeouts(), {}, clock=clock, server_time=ServerTime(clock))


async def test_an_answer_is_its_status_headers_and_data():
    response = await transport(Wire(OK)).send(GET)
    assert (response.status, response.data, response.request_id) == (200, {"data": {}}, "req_1")


async def test_a_create_is_sent_again_with_the_same_bytes_under_the_same_key():
    wire = Wire(broken(), api_error(500), OK)
    await transport(wire).send(CREATE)
    assert [request for _, request in wire.sent] == [CREATE] * 3
    assert CREATE.idempotency_key


@pytest.mark.parametrize(
    "answer",
    [
        api_error(408),
        api_error(429),
        api_error(500),
        api_error(503),
        api_error(409, "request_in_progress"),
        Answer(200, {}, b"<html>Sorry</html>"),
        Answer(200, {}, b""),
        Answer(200, {}, b"{}"),
        Answer(200, {}, b'{"error": {"code": "internal_error"}}'),
        broken(),
        broken("not_sent"),
        RequestTimeout("late", outcome="unknown"),
    ],
)
@pytest.mark.parametrize("request_", [CREATE, GET])
async def test_every_transient_failure_is_repeated(answer, request_):
    wire = Wire(answer, OK)
    assert (await transport(wire).send(request_)).status == 200
    assert [request for _, request in wire.sent] == [request_] * 2


async def test_an_error_has_the_key_the_attempts_and_the_outcome():
    wire = Wire(*[api_error(500)] * 4)
    with pytest.raises(ServerError) as caught:
        await transport(wire).send(CREATE)
    assert caught.value.idempotency_key == CREATE.idempotency_key
    assert caught.value.attempts == 4
    assert caught.value.outcome == "unknown"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([broken("not_sent")] * 4, "not_sent"),
        ([broken("not_sent"), api_error(400)], "rejected"),
        ([broken(), api_error(400)], "rejected"),
        ([api_error(503), api_error(404, "asset_not_found")], "rejected"),
        ([api_error(409, "request_in_progress"), api_error(422)], "rejected"),
        ([broken(), Answer(400, {}, b"<html>Bad request</html>")], "unknown"),
        ([broken(), Answer(400, {}, b'{"error": "bad request"}')], "unknown"),
        ([broken(), Answer(400, {}, b'{"code": 400, "message": "bad request"}')], "unknown"),
        ([api_error(500), api_error(404)], "unknown"),
        ([api_error(500), api_error(401)], "unknown"),
        ([api_error(408), api_error(402)], "unknown"),
        ([broken(), api_error(403)], "unknown"),
        ([broken(), api_error(429, **{"Retry-After": "999"})], "unknown"),
        ([broken(), api_error(409, "conflict")], "unknown"),
        ([api_error(400)], "rejected"),
        ([Answer(200, {}, b"<html>")] * 4, "unknown"),
    ],
)
async def test_the_outcome_is_that_of_all_attempts(script, outcome):
    with pytest.raises(HeyGenError) as caught:
        await transport(Wire(*script)).send(CREATE)
    assert caught.value.outcome == outcome


@pytest.mark.parametrize("refusal", [api_error(402), api_error(404), Answer(400, {}, b""), broken("not_sent")])
async def test_a_doubt_outlives_its_call_until_an_answer_under_the_key_resolves_it(refusal):
    once = RetryPolicy(max_attempts=1)
    sender = transport(Wire(broken(), refusal, api_error(400), api_error(402)), retry=once)
    outcomes = []
    for _ in range(4):
        with pytest.raises(HeyGenError) as caught:
            await sender.send(CREATE)
        outcomes.append(caught.value.outcome)
    assert outcomes == ["unknown", "unknown", "rejected", "rejected"]


async def test_a_key_is_sent_with_one_request_only():
    other = compose("POST", "/v3/lipsyncs", json={"a": 2}, idempotency_key=CREATE.idempotency_key)
    wire = Wire(broken(), OK)
    sender = transport(wire)
    with pytest.raises(ValueError, match="already used for a different request"):
        await asyncio.gather(sender.send(CREATE), sender.send(other))
    await asyncio.sleep(10)  # virtual: the first one goes on
    assert [request for _, request in wire.sent] == [CREATE, CREATE]


# The age of a key


class Clock:
    """Unix time that jumps when an attempt has ended."""

    def __init__(self, *jumps):
        self.jumps = list(jumps)
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


class JumpingWire(Wire):
    def __init__(self, clock, *script):
        super().__init__(*script)
        self.clock = clock

    async def exchange(self, request, **more):
        try:
            return await super().exchange(request, **more)
        finally:
            self.clock.now += self.clock.jumps.pop(0) if self.clock.jumps else 0


@pytest.mark.parametrize("jumps", [[25 * 3600], [12 * 3600, 12 * 3600], [-86400], [0, -7200]], ids=str)
async def test_a_key_that_is_too_old_by_the_clock_is_not_sent_again(jumps):
    clock = Clock(*jumps)
    wire = JumpingWire(clock, *[broken()] * 4)
    with pytest.raises(TransportError) as caught:
        await transport(wire, clock=clock).send(CREATE)
    error = caught.value
    assert (error.outcome, error.attempts, len(wire.sent)) == ("unknown", len(jumps), len(jumps))
    assert not error.is_transient
    assert "It was not sent again" in error.__notes__[0]


@pytest.mark.parametrize("jumps", [[25 * 3600], [12 * 3600, 12 * 3600], [-86400, 86400 + 24 * 3600]], ids=str)
@pytest.mark.parametrize("moves", ["the wall clock", "the clock since boot"])
async def test_a_key_is_as_old_as_the_clock_says_that_has_moved_more(jumps, moves):
    moving, standing = Clock(*jumps), Clock()
    wire = JumpingWire(moving, *[broken()] * 4)
    since_boot, wall = (standing, moving) if moves == "the wall clock" else (moving, standing)
    shared = evolve(transport(wire, clock=wall), server_time=ServerTime(since_boot))
    with pytest.raises(TransportError) as caught:
        await shared.send(CREATE)
    assert caught.value.outcome == "unknown"
    assert len(wire.sent) <= len(jumps)


@pytest.mark.parametrize("jumps", [[22 * 3600], [-30], [3600, 3600, -3600]], ids=str)
async def test_a_key_that_is_young_enough_is_sent_again(jumps):
    clock = Clock(*jumps)
    wire = JumpingWire(clock, *[broken()] * 3)
    await transport(wire, clock=clock).send(CREATE)
    assert len(wire.sent) == 4


@pytest.mark.parametrize("age", [23 * 3600 + 1, 2 * 86400, -61], ids=str)
async def test_a_key_of_an_earlier_process_that_is_too_old_is_not_sent_at_all(age):
    clock, wire = Clock(), Wire()
    with pytest.raises(TransportError) as caught:
        await evolve(transport(wire, clock=clock), key_since=Moment(clock(), clock()).before(age)).send(CREATE)
    error = caught.value
    assert (error.outcome, error.attempts, wire.sent) == ("not_sent", 0, [])
    assert not error.is_transient


async def test_a_key_of_an_earlier_process_ages_while_its_call_waits_for_a_connection():
    clock = Clock(3600)
    wire = JumpingWire(clock)
    shared = transport(wire, max_connections=1, clock=clock)
    results = await asyncio.gather(
        shared.send(GET),
        evolve(shared, key_since=shared.moment().before(22.5 * 3600)).send(CREATE),
        evolve(shared, key_since=shared.moment().before(21.5 * 3600)).send(
            compose("POST", "/v3/lipsyncs", json={"a": 2})
        ),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == ["Response", "TransportError", "Response"]


async def test_a_key_whose_call_had_no_answer_ages_until_the_next_call():
    clock = Clock()
    wire = JumpingWire(clock, *[broken()] * 4)
    shared = transport(wire, retry=RetryPolicy(max_attempts=1), clock=clock)
    for hours in (0, 12, 10):
        clock.now += hours * 3600
        with pytest.raises(TransportError):
            await shared.send(CREATE)
    clock.now += 2 * 3600
    with pytest.raises(TransportError) as caught:
        await shared.send(CREATE)
    assert (caught.value.outcome, caught.value.attempts, len(wire.sent)) == ("unknown", 0, 3)
    assert "It was not sent again" in caught.value.__notes__[0]


async def test_a_key_whose_call_succeeded_may_be_sent_again_at_any_time():
    clock, wire = Clock(), Wire(broken(), OK)
    shared = transport(wire, clock=clock)
    await shared.send(CREATE)
    clock.now += 48 * 3600
    await shared.send(CREATE)
    assert len(wire.sent) == 3


async def test_requests_without_a_key_have_no_age():
    clock = Clock(25 * 3600)
    wire = JumpingWire(clock, broken())
    await transport(wire, clock=clock).send(GET)
    assert len(wire.sent) == 2


async def test_a_key_that_aged_in_a_pause_is_not_sent_again_and_frees_its_connection():
    clock = Clock(25 * 3600)
    wire = JumpingWire(clock, api_error(429, **{"Retry-After": "5"}))
    sender = transport(wire, clock=clock, max_connections=1)
    with pytest.raises(RateLimited) as caught:
        await sender.send(CREATE)
    assert (caught.value.outcome, len(wire.sent)) == ("rejected", 1)
    await sender.send(GET)


async def test_a_request_in_progress_is_repeated_with_its_key_and_uses_up_no_attempt():
    wire = Wire(*[api_error(409, "request_in_progress", **{"Retry-After": "2"})] * 6, OK)
    await transport(wire).send(CREATE)
    assert len({request.idempotency_key for _, request in wire.sent}) == 1
    assert all(later - earlier >= 1.999 for earlier, later in pairwise(wire.times))


async def test_retries_of_refusals_end_with_the_total_time():
    wire = Wire(*[api_error(409, "request_in_progress", **{"Retry-After": "50"})] * 10)
    with pytest.raises(Conflict) as caught:
        await transport(wire).send(CREATE)
    assert caught.value.attempts == len(wire.sent) == 4  # at 0, 50, 100 and 150 s of 180


async def test_another_conflict_is_raised_at_once():
    wire = Wire(api_error(409, "conflict"))
    with pytest.raises(Conflict):
        await transport(wire).send(CREATE)
    assert len(wire.sent) == 1


async def test_one_attempt_means_one_attempt():
    for answer in (api_error(500), api_error(429), api_error(409, "request_in_progress"), broken()):
        wire = Wire(answer)
        with pytest.raises((ServerError, RateLimited, Conflict, TransportError)):
            await transport(wire, retry=RetryPolicy(max_attempts=1)).send(CREATE)
        assert len(wire.sent) == 1


async def test_a_repeated_delete_that_finds_nothing_has_deleted_it():
    delete = compose("DELETE", "/v3/lipsyncs/{lipsync_id}", segments={"lipsync_id": "ls_1"})
    response = await transport(Wire(broken(), api_error(404))).send(delete)
    assert response.data is None


@pytest.mark.parametrize(
    "page", [Answer(404, {}, b"<html>no route</html>"), Answer(404, {}, b'{"message": "no route"}')]
)
async def test_a_404_of_a_gateway_does_not_show_that_an_earlier_attempt_has_deleted_it(page):
    delete = compose("DELETE", "/v3/lipsyncs/{lipsync_id}", segments={"lipsync_id": "ls_1"})
    with pytest.raises(NotFound) as caught:
        await transport(Wire(broken(), page)).send(delete)
    assert (caught.value.attempts, caught.value.outcome) == (2, "unknown")


@pytest.mark.parametrize("first", [api_error(429), broken("not_sent")])
async def test_a_delete_that_was_never_carried_out_and_finds_nothing_is_an_error(first):
    delete = compose("DELETE", "/v3/lipsyncs/{lipsync_id}", segments={"lipsync_id": "ls_1"})
    with pytest.raises(NotFound):
        await transport(Wire(first, api_error(404))).send(delete)


# 429


async def test_a_429_holds_back_the_whole_session_and_then_lets_it_go_one_by_one():
    wire = Wire(api_error(429, **{"Retry-After": "5"}), seconds=0.001)
    sender = transport(wire)
    await asyncio.gather(sender.send(GET), sender.send(GET), *(send_later(sender, GET, 1.0) for _ in range(4)))
    first, second, *others = wire.times
    assert (first, second) == (0.0, 0.0)
    assert others[0] >= 5.0
    assert all(later - earlier >= 0.015 for earlier, later in pairwise(others))
    assert len(others) == 5


@pytest.mark.parametrize("request_", [CREATE, GET])
async def test_requests_that_are_given_up_while_they_wait_do_not_delay_later_ones(request_):
    wire = Wire(api_error(429, **{"Retry-After": "5"}))
    sender = transport(wire)
    first = asyncio.create_task(sender.send(request_))
    await asyncio.sleep(1)
    given_up = [asyncio.create_task(sender.send(request_)) for _ in range(1000)]
    await asyncio.sleep(1)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    await asyncio.gather(first, sender.send(request_))
    assert wire.times == [0.0, 5.0, 5.02]


@pytest.mark.parametrize("answer", [OK, api_error(404, "not_found"), api_error(400), api_error(402)], ids=str)
async def test_the_gap_after_a_429_shrinks_with_any_other_answer(answer):
    sender = transport(Wire(api_error(429, **{"Retry-After": "1"}), *[answer] * 100))
    for _ in range(80):
        with contextlib.suppress(APIError):
            await sender.send(GET)
    assert sender.gate.pacer.is_free


async def send_later(sender, request, seconds):
    await asyncio.sleep(seconds)
    return await sender.send(request)


async def test_a_refused_create_holds_back_creates_only():
    wire = Wire(api_error(429, **{"Retry-After": "5"}))
    sender = transport(wire)
    await asyncio.gather(sender.send(CREATE), send_later(sender, GET, 1.0), send_later(sender, CREATE, 1.0))
    assert [(at >= 5.0, request.method) for at, request in wire.sent] == [
        (False, "POST"),
        (False, "GET"),
        (True, "POST"),
        (True, "POST"),
    ]


async def test_a_refused_create_uses_up_no_rate_of_others():
    wire = Wire(api_error(429, **{"Retry-After": "60"}))
    sender = transport(wire, rate=0.5)
    await asyncio.gather(sender.send(CREATE), sender.send(GET), sender.send(GET))
    assert wire.times[:3] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("policy", [RetryPolicy(max_attempts=1), RetryPolicy(max_seconds=4)], ids=["one", "4 s"])
@pytest.mark.parametrize(("refused", "other"), [(GET, CREATE), (CREATE, CREATE)], ids=["session", "creates"])
async def test_a_429_that_ends_its_call_holds_back_the_next_ones(policy, refused, other):
    wire = Wire(api_error(429, **{"Retry-After": "5"}))
    sender = transport(wire, retry=policy)
    with pytest.raises(RateLimited):
        await sender.send(refused)
    await sender.send(other)
    assert wire.times == [0.0, 5.0]


async def test_an_old_429_that_ends_a_call_later_holds_back_nobody():
    clock = Clock(24 * 3600)
    sender = transport(wire := JumpingWire(clock, api_error(429, **{"Retry-After": "5"})), clock=clock)
    with pytest.raises(RateLimited):
        await sender.send(CREATE)
    await sender.send(compose("POST", "/v3/lipsyncs", json={"a": 2}))
    assert wire.times == [0.0, 5.02]


async def test_a_retry_after_beyond_the_cap_is_raised_at_once_and_pauses_nobody():
    wire = Wire(api_error(429, **{"Retry-After": "3600"}))
    sender = transport(wire)
    with pytest.raises(RateLimited) as caught:
        await sender.send(GET)
    assert caught.value.retry_after == 3600
    await sender.send(GET)
    assert wire.times == [0.0, 0.0]


async def test_a_policy_that_raises_429_pauses_nobody():
    wire = Wire(api_error(429, **{"Retry-After": "5"}))
    sender = transport(wire, retry=RetryPolicy(on_rate_limit="raise"))
    with pytest.raises(RateLimited):
        await sender.send(CREATE)
    await sender.send(CREATE)
    assert wire.times == [0.0, 0.0]


async def test_a_pause_that_begins_while_a_request_waits_for_its_seat_holds_it_back_too():
    wire = Wire(api_error(429, **{"Retry-After": "5"}), seconds=1.0)
    sender = transport(wire, max_connections=1)
    await asyncio.gather(sender.send(GET), sender.send(GET))
    assert wire.times[0] == 0.0
    assert all(at >= 6.0 for at in wire.times[1:])


# The gate


async def test_connections_are_bounded_before_the_request_starts():
    wire = Wire(seconds=1.0)
    sender = transport(wire, max_connections=3)
    await asyncio.gather(*(sender.send(GET) for _ in range(9)))
    assert wire.most_in_the_air == 3


async def test_requests_keep_to_the_rate():
    wire = Wire()
    sender = transport(wire, rate=10)
    await asyncio.gather(*(sender.send(GET) for _ in range(30)))
    for start in wire.times:
        assert sum(start <= at < start + 1.0 for at in wire.times) <= 20  # a full bucket, and what drips in
    assert wire.times[-1] >= 1.9


async def test_a_rate_below_one_a_second_works():
    wire = Wire()
    sender = transport(wire, rate=0.5)
    await asyncio.gather(*(sender.send(GET) for _ in range(3)))
    assert wire.times[-1] >= 3.9


async def test_a_request_that_is_cancelled_gives_its_seat_back():
    wire = Wire(seconds=10.0)
    sender = transport(wire, max_connections=1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await sender.send(GET)
    wire.seconds = 0.0
    async with asyncio.timeout(10):
        await sender.send(GET)


async def test_a_request_that_is_cancelled_while_it_keeps_to_the_rate_gives_its_seat_back():
    wire = Wire()
    sender = transport(wire, max_connections=1, rate=0.5)
    await sender.send(GET)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await sender.send(GET)
    async with asyncio.timeout(10):
        await sender.send(GET)
    assert wire.times == [0.0, 2.0]


# Cancellation


async def test_a_create_that_is_cancelled_in_flight_carries_what_is_known():
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(1.0):
            await transport(Wire(seconds=10.0)).send(CREATE)
    cancelled = caught.value.__cause__
    assert isinstance(cancelled, asyncio.CancelledError)
    known = (cancelled.idempotency_key, cancelled.attempts, cancelled.outcome)
    assert known == (CREATE.idempotency_key, 1, "unknown")


async def test_a_create_that_is_cancelled_before_it_left_was_not_sent():
    sender = transport(Wire(seconds=10.0), max_connections=1)
    first = asyncio.create_task(sender.send(GET))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(1.0):
            await sender.send(CREATE)
    assert (caught.value.__cause__.attempts, caught.value.__cause__.outcome) == (0, "not_sent")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_create_that_is_cancelled_between_attempts_knows_the_earlier_ones():
    wire = Wire(*[api_error(503, **{"Retry-After": "60"})] * 4)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(5.0):
            await transport(wire).send(CREATE)
    assert (caught.value.__cause__.attempts, caught.value.__cause__.outcome) == (1, "unknown")


async def test_a_bug_passes_and_is_not_retried():
    wire = Wire(KeyError("a bug"))
    with pytest.raises(KeyError):
        await transport(wire).send(GET)
    assert len(wire.sent) == 1


# Logging


async def test_an_attempt_is_logged_with_path_status_and_request_id_and_without_query(caplog):
    caplog.set_level(logging.DEBUG, logger="heygen_async")
    wire = Wire(api_error(500, **{"X-Request-Id": "req_0"}), RequestTimeout("late"), OK)
    query = compose("GET", "/v3/lipsyncs/{lipsync_id}", segments={"lipsync_id": "ls_1"}, params={"token": "s3cret"})
    await transport(wire).send(query)

    lines = [record.getMessage() for record in caplog.records]
    attempts = [line for line in lines if "->" in line]
    assert [line.split(" in ")[0] for line in attempts] == [
        "GET /v3/lipsyncs/ls_1 -> 500",
        "GET /v3/lipsyncs/ls_1 -> no answer",
        "GET /v3/lipsyncs/ls_1 -> 200",
    ]
    assert [line.split(" ms ")[1] for line in attempts] == [
        "(attempt 1, request req_0)",
        "(attempt 2)",
        "(attempt 3, request req_1)",
    ]
    assert not any("s3cret" in line or "sk_test" in line for line in lines)


@pytest.mark.parametrize(
    ("path", "body", "line"),
    [
        ("/v3/lipsyncs", {"lipsync_id": "ls_1"}, "created lipsync ls_1 (key row-1, 2 attempts)"),
        ("/v3/lipsyncs/batches", {"batch_id": "b_1"}, "created batch b_1 (key row-1, 2 attempts)"),
        ("/v3/assets", {"asset_id": "as_1"}, None),
        ("/v3/lipsyncs", {"lipsync_id": 5}, None),
        ("/v3/lipsyncs", {"lipsync_id": "ls 1/?token=SIGSECRET"}, None),
        ("/v3/lipsyncs", {"lipsync_id": "1" * 1000}, None),
        ("/v3/lipsyncs/batches", {"batch_id": "b_1\x1b[2J"}, None),
    ],
)
async def test_each_created_job_or_batch_is_one_info_line(caplog, path, body, line):
    caplog.set_level(logging.INFO, logger="heygen_async")
    request = compose("POST", path, json={}, idempotency_key="row-1")
    await transport(Wire(api_error(500), Answer(200, {}, orjson.dumps({"data": body})))).send(request)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[1:] == ([] if line is None else [line])


@pytest.mark.parametrize("echo", ["sk_test", "id sk_test", "a\x1b[31m sk%5Ftest"])
async def test_the_request_id_of_an_answer_is_one_line_without_the_key(echo):
    response = await transport(Wire(Answer(200, {"X-Request-Id": echo}, OK.body))).send(GET)

    assert "****" in response.request_id
    assert not {"sk_test", "sk%5Ftest", "\x1b"} & {*response.request_id.split(), *response.request_id}


async def test_the_servers_request_id_is_logged_as_one_line_without_the_key(caplog):
    caplog.set_level(logging.DEBUG, logger="heygen_async")
    await transport(Wire(Answer(200, {"X-Request-Id": "a\x1b[31m sk_test b"}, OK.body))).send(GET)
    assert caplog.records[-1].getMessage().endswith("(attempt 1, request a [31m **** b)")
