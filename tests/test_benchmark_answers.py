"""What the server of the benchmarks answers: as much for each rival as for us, and jobs that run and end."""

import contextlib
import gc
import time

import orjson
import pytest

from benchmarks.answers import ITEM_SIZE, ITEMS, PAGE
from benchmarks.canned_heygen import HANG, Canned
from benchmarks.contender import Asked, Video
from benchmarks.contenders import CONTENDERS
from benchmarks.sample import Sample
from benchmarks.turns import Turns
from benchmarks.videos import SMALLEST, video_blocks
from benchmarks.waiting_jobs import lateness, lengths_of, mean_lateness, percentile, requests_a_job

ORIGIN = "http://127.0.0.1:8000"
ID_SIZE = 30
"""Bytes that a job may have more than another: for its id and the host of its link."""
JOBS = {name: one for name, one in CONTENDERS.items() if any(not route.is_kept for route in one.routes)}


def asked(path, *, is_over=True):
    return Asked(path, ORIGIN, b"", lambda _: is_over)


def answer_of(canned, request):
    answer = canned.answer(f"{request} HTTP/1.1\r\nHost: 127.0.0.1:8000".encode(), b"")
    return orjson.loads(answer.partition(b"\r\n\r\n")[2])


def job_route(contender):
    return next(route for route in contender.routes if route.begins.startswith("GET ") and callable(route.answer))


def page_route(contender):
    return next(route for route in contender.routes if route.is_kept)


# Rivals


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_every_rival_is_as_large_as_ours_once_it_is_over(name):
    route = job_route(CONTENDERS[name])
    path = f"{route.begins.removeprefix('GET ')}ls_{7:024}"
    over, running = route.answer(asked(path)), route.answer(asked(path, is_over=False))
    assert f"ls_{7:024}" in over.values()
    assert over != running
    assert abs(len(orjson.dumps(over)) - ITEM_SIZE) <= ID_SIZE


@pytest.mark.parametrize("name", [name for name in JOBS if CONTENDERS[name].cannot.get("items") is None])
def test_a_list_of_every_rival_ends_after_all_of_its_jobs(name):
    route = page_route(CONTENDERS[name])
    begins = route.begins.removeprefix("GET ")
    cursor = "after" if name.startswith("openai") else "cursor"
    first, last = (
        route.answer(asked(f"{begins.rstrip('?')}?limit=100&{cursor}={start}")) for start in (0, ITEMS - PAGE)
    )
    assert [orjson.dumps(page).count(b'"ls_') for page in (first, last)] == [PAGE, PAGE]
    assert f"ls_{ITEMS:024}".encode() in orjson.dumps(last)
    assert (has_next(first), has_next(last)) == (True, False)


def has_next(page):
    return any(page.get(name) for name in ("nextCursor", "next_cursor", "next", "has_more"))


# Jobs that run and end


def test_jobs_run_until_their_time_and_are_listed_newest_first():
    canned = Canned()
    canned.reset(lengths={"ls_short": 0.0, "ls_long": 3600.0})
    states = answer_of(canned, "GET /v3/lipsyncs/statuses?lipsync_ids=ls_short,ls_long")["data"]
    assert [state["status"] for state in states] == ["completed", "processing"]
    assert answer_of(canned, "GET /v3/lipsyncs/ls_long")["data"]["status"] == "running"
    page = answer_of(canned, "GET /v3/lipsyncs?limit=100")
    assert [(job["id"], job["status"]) for job in page["data"]] == [("ls_long", "running"), ("ls_short", "completed")]
    assert not page["has_more"]


def test_jobs_that_run_began_now():
    canned = Canned()
    before = int(time.time())
    canned.reset(lengths={"ls_1": 1.0})
    assert before <= answer_of(canned, "GET /v3/lipsyncs/ls_1")["data"]["created_at"] <= time.time()


def test_many_jobs_are_listed_in_pages():
    canned = Canned()
    canned.reset(lengths=dict.fromkeys((f"ls_{n}" for n in range(250)), 1.0))
    pages = [answer_of(canned, f"GET /v3/lipsyncs?limit=100&token={start}") for start in (0, 100, 200)]
    assert [job["id"] for page in pages for job in page["data"]] == [f"ls_{n}" for n in reversed(range(250))]
    assert [page["next_token"] for page in pages] == ["100", "200", None]


def test_one_answer_hangs():
    canned = Canned()
    canned.reset(latency=0.5, hang_after=0.0)
    assert [canned.pause() for _ in range(3)] == [HANG + 0.5, 0.5, 0.5]


def test_a_video_is_as_large_as_the_server_was_told():
    canned = Canned()
    canned.reset(lengths={"ls_1": 0.0}, video_size=SMALLEST + 5)
    link = answer_of(canned, "GET /v3/lipsyncs/ls_1")["data"]["video_url"]
    assert link.startswith(f"{ORIGIN}/")
    assert isinstance(canned.answer(f"GET {link.removeprefix(ORIGIN)} HTTP/1.1\r\n".encode(), b""), Video)


@pytest.mark.parametrize("more", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_video_has_its_size_and_a_beginning_and_an_end(more):
    content = b"".join(video_blocks(SMALLEST + more))
    assert len(content) == SMALLEST + more
    assert content[4:8] == b"ftyp"
    assert content.endswith(b"moov")


# How late


def test_delays_are_from_the_end_of_a_job_until_it_was_seen():
    server = {"ends": {"a": 10.0, "b": 20.0}, "requests": {"GET /v3/lipsyncs/": 3, "GET /v3/lipsyncs?": 2}}
    facts = {"seen": {"b": 20.5, "a": 11.5}, "server": server}
    sample = Sample(wall=0.0, cpu=0.0, memory=0.0, stall=0.0, work=0.0, facts=facts)
    assert lateness(sample) == [0.5, 1.5]
    assert mean_lateness(sample) == 1.0
    assert percentile(sample, 0.99) == 1.5
    assert requests_a_job(sample) == 2.5


def test_the_lengths_of_jobs_are_the_same_each_time():
    assert lengths_of(100) == lengths_of(100)
    assert lengths_of(100) != lengths_of(101)


def test_the_work_of_a_turn_leaves_garbage_collections_out():
    with contextlib.closing(Turns()) as turns:
        turns.reset()
        gc.collect()
        turns.select(0)

        assert 0 < turns.longest_work < turns.longest
