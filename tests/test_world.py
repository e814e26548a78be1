"""The sandbox's world: jobs on a clock, no event loop."""

import ast
from pathlib import Path

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.http.validation import LIPSYNC, lipsync, public_url
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state import world as world_module
from heygen_async.sandbox.state.asset_store import AssetStore, ReceivedFile
from heygen_async.sandbox.state.idempotency import IdempotencyKeys, StoredAnswer
from heygen_async.sandbox.state.paged_store import Ids, PagedStore
from heygen_async.sandbox.state.scripts import JobScript, ScriptReader
from heygen_async.sandbox.state.world import World

BODY = {
    "video": {"type": "url", "url": "https://a.example/v.mp4"},
    "audio": {"type": "url", "url": "https://a.example/a.mp3"},
}
TEN_SECONDS = JobScript(duration=10.0)


STATE = sorted(Path(world_module.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", STATE, ids=lambda path: path.stem)
def test_state_awaits_nothing_and_knows_no_http(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert not [node for node in nodes if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    assert not [
        name for name in imported if name.startswith(("aiohttp", "anyio", "asyncio", "heygen_async.sandbox.http"))
    ]


def a_world(*, account_limit=10, balance=100.0, seconds=20.0):
    rates = {"speed": 0.033, "precision": 0.067}
    return World(
        Ids(0), Settings(account_limit=account_limit, balance=balance, rates=rates, job_seconds=lambda _: seconds)
    )


def test_a_job_is_pending_then_running_then_completed():
    world = a_world()
    job = world.create(BODY, TEN_SECONDS, 0.0)
    seen = []
    for now in (0.0, 1.9, 2.0, 19.9, 20.0):
        world.settle(now)
        seen.append(job.state(now))
    assert seen == ["pending", "pending", "running", "running", "completed"]


def test_a_job_ends_at_its_own_moment_however_late_anyone_looks():
    world = a_world()
    job = world.create(BODY, TEN_SECONDS, 5.0)
    assert world.settle(1000.0) == [job]
    assert job.ended_at == 25.0


def test_a_create_past_the_limit_is_refused_until_a_seat_is_free():
    world = a_world(account_limit=2)
    for _ in range(2):
        world.create(BODY, TEN_SECONDS, 0.0)
    with pytest.raises(ErrorAnswer) as refused:
        world.create(BODY, TEN_SECONDS, 1.0)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "rate_limit_exceeded", 1.0)
    world.settle(20.0)
    assert world.create(BODY, TEN_SECONDS, 20.0).state(20.0) == "pending"


def test_the_jobs_of_a_batch_queue_for_seats_instead():
    world = a_world(account_limit=2)
    batch = world.create_batch([(BODY, TEN_SECONDS)] * 5, {}, 0.0)
    world.settle(25.0)
    # Two at a time for 20 s each: done at 20, the next two run from 20 to 40, the last waits.
    assert batch.counts(25.0) == {"completed": 2, "processing": 2, "queued": 1}
    world.settle(1000.0)
    assert [item.job.ended_at for item in batch.items] == [20.0, 20.0, 40.0, 40.0, 60.0]
    assert batch.state(1000.0) == "completed"


def test_one_bad_item_of_a_batch_fails_alone():
    world = a_world()
    bad = ErrorAnswer(400, "download_failed", "gone")
    batch = world.create_batch([(BODY, TEN_SECONDS), (BODY, bad)], {}, 0.0)
    world.settle(20.0)
    assert [(item.state(20.0), item.error) for item in batch.items] == [("completed", None), ("failed", "gone")]
    assert batch.state(20.0) == "completed"


def test_an_item_that_the_wallet_cannot_pay_fails_alone():
    world = a_world(balance=0.5)
    batch = world.create_batch([(BODY, TEN_SECONDS)] * 2, {}, 0.0)
    world.settle(20.0)
    assert batch.counts(20.0) == {"completed": 1, "failed": 1}
    assert (len(world.created), batch.state(20.0)) == (1, "completed")


def test_a_batch_of_which_nothing_comes_is_failed():
    world = a_world()
    bad = ErrorAnswer(400, "download_failed", "gone")
    batch = world.create_batch([(BODY, bad)], {}, 0.0)
    assert batch.state(0.0) == "failed"


def test_money_is_taken_at_the_create_and_given_back_by_a_failure():
    world = a_world(balance=1.0)
    world.create(BODY, TEN_SECONDS, 0.0)
    failing = world.create({**BODY, "mode": "precision"}, JobScript(duration=10.0, failure="no face"), 0.0)
    assert world.spent == pytest.approx(0.33 + 0.67)
    assert world.balance == 0.0
    world.settle(20.0)
    assert (failing.state(20.0), failing.failure_message) == ("failed", "no face")
    assert (world.spent, world.balance) == (0.33, 0.67)


def test_a_job_that_the_wallet_cannot_pay_is_refused_and_takes_nothing():
    world = a_world(balance=0.5)
    world.create(BODY, TEN_SECONDS, 0.0)
    with pytest.raises(ErrorAnswer) as refused:
        world.create(BODY, TEN_SECONDS, 0.0)
    assert (refused.value.status, refused.value.code) == (402, "insufficient_credit")
    assert world.balance == pytest.approx(0.17)


@pytest.mark.parametrize("how", ["delete", "fail"])
def test_a_job_taken_from_its_seat_makes_room_at_once(how):
    world = a_world(account_limit=1)
    job = world.create(BODY, TEN_SECONDS, 0.0)
    batch = world.create_batch([(BODY, TEN_SECONDS)], {}, 0.0)
    world.settle(5.0)
    if how == "delete":
        world.delete(job.id, 5.0)
    else:
        world.end(job.id, "no face", 5.0)
    world.settle(25.0)
    assert batch.items[0].job.ended_at == 25.0


def test_a_queued_job_that_is_deleted_leaves_the_queue_and_its_batch():
    world = a_world(account_limit=1)
    batch = world.create_batch([(BODY, TEN_SECONDS)] * 3, {}, 0.0)
    world.delete(batch.items[1].job.id, 0.0)
    world.settle(40.0)
    assert [item.state(40.0) for item in batch.items] == ["completed", "not_found", "completed"]
    assert batch.state(40.0) == "completed"


def test_a_job_of_no_length_ends_when_it_starts():
    world = a_world(seconds=0.0)
    job = world.create(BODY, TEN_SECONDS, 3.0)
    world.settle(3.0)
    assert job.state(3.0) == "completed"


def test_the_next_due_time_is_that_of_the_job_that_ends_first():
    world = a_world()
    assert world.next_due() is None
    world.create(BODY, TEN_SECONDS, 0.0)
    world.create(BODY, JobScript(duration=1.0, seconds=7.0), 0.0)
    assert world.next_due() == 7.0


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30),
)
def test_never_do_more_jobs_run_than_the_account_may(limit, plans):
    world = a_world(account_limit=limit, balance=1e9)
    now = 0.0
    for pause, seconds in plans:
        now += pause
        world.settle(now)
        world.create_batch([(BODY, JobScript(duration=1.0, seconds=seconds))], {}, now)
    world.settle(1e9)
    spans = [(job.started_at, job.ended_at) for job in world.created]
    for start, _ in spans:
        assert sum(1 for begin, end in spans if begin <= start < end) <= limit
    assert all(job.ended_at == job.started_at + job.seconds for job in world.created)


@pytest.mark.parametrize(("name", "most"), [("video", 100), ("audio", 50)])
def test_media_past_the_size_of_its_kind_is_refused(name, most):
    assets = AssetStore(Ids(0), Settings())
    mime_type, filename = {"video": ("video/mp4", "a.mp4"), "audio": ("audio/mpeg", "a.mp3")}[name]
    for over in (0, 1):
        received = ReceivedFile(size_bytes=(most << 20) + over, sha256="", mime_type=mime_type, duration=None)
        asset = assets.add(assets.new_id(), filename, received, 0.0)
        body = {**BODY, name: {"type": "asset_id", "asset_id": asset.id}}
        if over:
            with pytest.raises(ErrorAnswer, match="at most"):
                ScriptReader(assets, 4.0).read(body, 0.0)
        else:
            # What has no readable length of its own is given one.
            assert ScriptReader(assets, 4.0).read(body, 0.0).duration == (10.0 if name == "video" else 4.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("https://example.com/v.mp4"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*LIPSYNC, "type", "url", "x"]), inner),
    max_leaves=8,
)


@given(JSON | st.fixed_dictionaries({"video": st.just(BODY["video"]), "audio": JSON}))
def test_whatever_is_sent_is_taken_or_refused_in_words(body):
    try:
        taken = lipsync(body)
    except ErrorAnswer as refused:
        assert refused.status == 400
        assert refused.envelope()["error"]["message"]
    else:
        assert taken is body


@given(st.text() | st.from_regex(r"https?://[^ ]*"))
def test_whatever_is_given_as_a_url_is_taken_or_refused_in_words(url):
    try:
        public_url(url, "video.url")
    except ErrorAnswer as refused:
        assert refused.param == "video.url"
    else:
        assert url.lower().startswith("https://")


@frozen
class Thing:
    id: str


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 7), st.data())
def test_pages_hold_everything_that_stays_once_newest_first(removals, limit, data):
    store = PagedStore("Thing")
    things = [Thing(str(number)) for number in range(data.draw(st.integers(0, 40)))]
    for thing in things:
        store.add(thing)
    gone = {things[index].id for index in removals if index < len(things)}
    early = set(data.draw(st.lists(st.sampled_from(sorted(gone)), unique=True))) if gone else set()
    for thing_id in early:
        store.remove(thing_id)
    seen, before = store.page(limit, None)
    for thing_id in gone - early:  # removed while somebody reads on
        store.remove(thing_id)
    while before is not None:
        page, before = store.page(limit, before)
        assert page or before is None
        seen += page
    numbers = [int(thing.id) for thing in seen]
    assert numbers == sorted(set(numbers), reverse=True)
    assert {thing.id for thing in things} - gone <= {thing.id for thing in seen}
    assert [thing.id for thing in store] == [thing.id for thing in things if thing.id not in gone]


def test_an_unknown_id_is_a_404_with_the_noun_and_the_code():
    store = PagedStore("Thing", "thing_not_found")
    assert store.find("x") is None
    for call in (store.get, store.remove):
        with pytest.raises(ErrorAnswer) as caught:
            call("x")
        assert (caught.value.status, caught.value.code) == (404, "thing_not_found")
        assert caught.value.message == "Thing 'x' was not found."


def test_a_key_keys_its_first_answer_for_a_day():
    keys = IdempotencyKeys()
    assert keys.begin(("/v3/lipsyncs", "k"), 0.0) is None
    keys.end(("/v3/lipsyncs", "k"), StoredAnswer(200, b"first"), 0.0)
    assert keys.begin(("/v3/lipsyncs", "k"), 86_399.9) == StoredAnswer(200, b"first")
    assert keys.begin(("/v3/lipsyncs/batches", "k"), 0.0) is None
    assert keys.begin(("/v3/lipsyncs", "k"), 86_400.0) is None


@pytest.mark.parametrize(
    "answer", [None, StoredAnswer(429, b""), StoredAnswer(500, b"")], ids=["cut off", "refused", "broken"]
)
def test_only_a_success_is_kept_under_a_key(answer):
    keys = IdempotencyKeys()
    keys.begin(("/v3/lipsyncs", "k"), 0.0)
    keys.end(("/v3/lipsyncs", "k"), answer, 0.0)
    assert keys.begin(("/v3/lipsyncs", "k"), 1.0) is None


def test_a_key_in_flight_is_a_conflict():
    keys = IdempotencyKeys()
    keys.begin(("/v3/lipsyncs", "k"), 0.0)
    with pytest.raises(ErrorAnswer) as refused:
        keys.begin(("/v3/lipsyncs", "k"), 0.1)
    assert (refused.value.status, refused.value.code) == (409, "request_in_progress")
