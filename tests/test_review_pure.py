"""What the run page decides without I/O: which requests it accepts, ranges, captions, decisions, what a row shows."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.record import Record, State
from heygen_async.bulk.reviews import Review
from heygen_async.models import DubRow
from heygen_async.review.access import has_token, origin_of, policy, refusal
from heygen_async.review.captions import web_captions
from heygen_async.review.decisions import Refused, check_decision, read_decision
from heygen_async.review.ranges import PART, RangeNotSatisfiable, sent_bytes
from heygen_async.review.row_view import LiveRow, category_of, moved_view, row_view

HERE = {"Host": "127.0.0.1:8000"}
ROW = Record(key="a", inputs="i")
DONE = Record(key="a", inputs="i", state=State.DONE, lipsync_id="ls_1", target="a.mp4", writing_to="/a.mp4")
YES = Review("a", "ls_1", "approved")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        pytest.param("GET", HERE, id="an address that was typed"),
        pytest.param("GET", {"Host": "localhost:9000"}, id="a tunnel with another port"),
        pytest.param("GET", {"Host": "[::1]:8000"}, id="IPv6"),
        pytest.param("GET", {**HERE, "Origin": "http://127.0.0.1:8000"}, id="our own page"),
        pytest.param("POST", {**HERE, "Origin": "http://127.0.0.1:8000"}, id="a post of our own page"),
        pytest.param("GET", {**HERE, "Sec-Fetch-Site": "same-origin"}, id="a request of our own page"),
        pytest.param("GET", {**HERE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, id="a link"),
    ],
)
def test_requests_that_are_accepted(method, headers):
    assert refusal(method, headers) is None


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        pytest.param("GET", {}, id="no host"),
        pytest.param("GET", {"Host": "evil.example:8000"}, id="a foreign name that leads here"),
        pytest.param("GET", {"Host": "127.0.0.1.evil.example"}, id="a name that begins like ours"),
        pytest.param("GET", {"Host": "127.0.0.1@evil.example"}, id="a name that hides behind ours"),
        pytest.param("GET", {"Host": "192.168.1.4:8000"}, id="this machine from the network"),
        pytest.param("GET", {**HERE, "Origin": "https://evil.example"}, id="another page"),
        pytest.param("GET", {**HERE, "Origin": "http://127.0.0.1:9999"}, id="another server here"),
        pytest.param("GET", {**HERE, "Origin": "http://localhost:8000"}, id="our server by another name"),
        pytest.param("GET", {**HERE, "Origin": "null"}, id="a page without an origin"),
        pytest.param("POST", HERE, id="a post that says nothing"),
        pytest.param("POST", {**HERE, "Origin": "https://evil.example"}, id="a post of another page"),
        pytest.param("GET", {**HERE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, id="an image"),
        pytest.param("GET", {**HERE, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, id="another port"),
        pytest.param(
            "POST",
            {**HERE, "Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
            id="a form elsewhere",
        ),
    ],
)
def test_requests_that_are_refused(method, headers):
    assert refusal(method, headers)


def test_only_the_token_itself_is_the_token():
    assert has_token("secret", "secret")
    assert not any(has_token("secret", other) for other in ("", "secre", "secret ", "Secret", "sécret", "\udc80"))


def test_the_policy_allows_the_page_itself_and_the_origins_of_videos_only():
    assert policy({"https://cdn.example", "https://a.example:8443"}) == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "media-src 'self' https://a.example:8443 https://cdn.example; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


@pytest.mark.parametrize(
    ("also", "named"), [(set(), "'self' https:"), ({"http://a.example"}, "'self' http: https:")], ids=["", "http"]
)
def test_a_policy_with_many_origins_names_their_schemes(also, named):
    origins = {f"https://{number}.example" for number in range(101)}
    assert f"media-src {named};" in policy(origins | also)
    assert len(policy(origins)) < 300


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://user:secret@Cdn.Example:8443/a.mp4?sig=1", "https://cdn.example:8443"),
        ("https://[::1]/a.mp4", "https://[::1]"),
        ("https://exämple.com/a", "https://xn--exmple-cua.com"),
        ("https://a.example;script-src/x", None),
        ("https://a.example 'unsafe-inline'/x", None),
        ("data:video/mp4,", None),
        ("https://a.example:99999/x", None),
    ],
)
def test_the_origin_of_a_video_contains_nothing_that_a_policy_would_read(url, origin):
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-", range(10)),
        ("bytes=0-0", range(1)),
        ("bytes=3-5", range(3, 6)),
        ("bytes=8-99", range(8, 10)),
        ("bytes=-4", range(6, 10)),
        ("bytes=-99", range(10)),
        ("bytes=5-3", None),
        ("bytes=0-1,4-5", None),
        ("items=0-1", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=٣-", None),
    ],
)
def test_the_bytes_that_a_range_means(header, wanted):
    assert sent_bytes(header, 10) == wanted


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        pytest.param("bytes=0-", range(PART), id="from the start"),
        pytest.param(f"bytes={PART}-", range(PART, 2 * PART), id="the next part"),
        pytest.param(f"bytes={4 * PART - 9}-", range(4 * PART - 9, 4 * PART), id="to the end"),
        pytest.param(f"bytes=0-{3 * PART - 1}", range(3 * PART), id="a range with an end is sent whole"),
        pytest.param(f"bytes=-{3 * PART}", range(PART, 4 * PART), id="the last bytes too"),
        pytest.param(None, None, id="and the whole file"),
    ],
)
def test_of_a_range_without_an_end_the_first_part_is_sent(header, sent):
    assert sent_bytes(header, 4 * PART) == sent


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_a_range_outside_of_the_file_is_refused(header, size):
    with pytest.raises(RangeNotSatisfiable):
        sent_bytes(header, size)


@given(st.text(max_size=30), st.integers(0, 1000))
def test_whatever_a_range_says_it_stays_within_the_file(text, size):
    try:
        found = sent_bytes(text, size)
    except RangeNotSatisfiable:
        return
    assert found is None or (0 <= found.start < found.stop <= size)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        pytest.param(
            "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\nHello\r\nthere\r\n\r\n"
            "2\r\n00:00:03,000 --> 00:00:04,000\r\nMore\r\n",
            "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nHello\nthere\n\n00:00:03.000 --> 00:00:04.000\nMore\n",
            id="as editors write them",
        ),
        pytest.param(
            "01:02,5 --> 01:04.75\nNo number", "WEBVTT\n\n00:01:02.500 --> 00:01:04.750\nNo number\n", id="short"
        ),
        pytest.param("root:x:0:0:root:/root:/bin/bash\n", "WEBVTT\n", id="no captions"),
        pytest.param(
            "1\n00:00:01,000 --> 00:00:02,000\n<b>bold</b> <script>x</script> 1 --> 2",
            "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n<b>bold</b> x 1 -> 2\n",
            id="tags and arrows",
        ),
        pytest.param(
            "1\n00:00:01,000 --> 00:00:02,000\nif 1 < 2 then <i>yes</i>\nI <3 you > me <font color=red>so</font> <i",
            "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nif 1 &lt; 2 then <i>yes</i>\nI &lt;3 you > me so &lt;i\n",
            id="less than",
        ),
        pytest.param("", "WEBVTT\n", id="empty"),
    ],
)
def test_captions_become_what_browsers_show(content, shown):
    assert web_captions(content.encode()) == shown
    assert web_captions(content.removeprefix("\ufeff").encode("utf-16")) == shown


@given(st.binary(max_size=300))
def test_whatever_captions_contain_they_become_captions(content):
    assert web_captions(content).startswith("WEBVTT\n")


def test_captions_of_half_tags_take_no_longer_than_others():
    cue = b"1\n00:00:00,000 --> 00:00:01,000\n%b\n"
    assert web_captions(cue % (b"<i>a</i> <x>b <" + b"<" * (4 << 20))).startswith(
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<i>a</i> b &lt;&lt;"
    )  # else it takes hours


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"key": "a"}',
        b'{"key": "a", "job": 1, "decision": "approved"}',
        b'{"key": "a", "job": "ls_1", "decision": "perhaps"}',
        b'{"key": "a", "job": "ls_1", "decision": ["approved"]}',
        b'{"key": "a", "job": "ls_1", "decision": "approved", "note": 3}',
    ],
)
def test_what_is_no_decision_is_refused(body):
    with pytest.raises(Refused) as refused:
        read_decision(body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("record", "status"),
    [(None, 404), (ROW, 409), (Record(key="a", inputs="i", state=State.DONE, lipsync_id="ls_2"), 409)],
    ids=["no such row", "no video", "another job"],
)
def test_a_decision_on_what_is_not_there_is_refused(record, status):
    posted = read_decision(orjson.dumps({"key": "a", "job": "ls_1", "decision": "approved"}))
    with pytest.raises(Refused) as refused:
        check_decision(posted, record)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("record", "review", "live", "category"),
    [
        (ROW, None, None, "running"),
        (DONE, None, None, "review"),
        (DONE, YES, None, "approved"),
        (DONE, Review("a", "ls_1", "rejected"), None, "rejected"),
        (Record(key="a", inputs="i", state=State.FAILED), None, None, "failed"),
        (Record(key="a", inputs="i", error="refused"), None, None, "failed"),
        (Record(key="a", inputs="i", state=State.COMPLETED, error="no space"), None, None, "failed"),
        (Record(key="a", inputs="i", state=State.FAILED), None, LiveRow("waiting", None, ()), "running"),
        (DONE, YES, LiveRow("unchanged", None, ()), "approved"),
        (ROW, None, LiveRow("failed", "no", ()), "failed"),
        (ROW, None, LiveRow("skipped", "the budget", ()), "running"),
    ],
)
def test_every_row_is_in_one_category(record, review, live, category):
    assert category_of(record, review, live) == category


@pytest.mark.parametrize(
    ("record", "file", "words"),
    [
        (DONE, "missing", "downloaded again"),
        (DONE, "changed", "Move it away"),
        (Record(key="a", inputs="i", state=State.FAILED, error="no face", is_final=True), "none", "change the video"),
        (Record(key="a", inputs="i", state=State.FAILED, error="busy"), "none", "--retry-failed"),
        (Record(key="a", inputs="i", error="refused"), "none", "No job was created"),
        (Record(key="a", inputs="i", state=State.COMPLETED, error="disk full"), "none", "only the download"),
        (ROW, "none", "it continues"),
    ],
)
def test_a_row_that_cannot_be_watched_says_what_to_do(record, file, words):
    view = row_view(record, None, None, file, None)
    assert words in view["advice"]
    assert view.get("error") == record.error


def test_a_row_that_can_be_watched_says_nothing():
    assert "advice" not in row_view(DONE, None, None, "ready", None)


def test_what_is_empty_is_left_out_of_a_row():
    assert row_view(ROW, None, None, "none", None) == {
        "key": "a",
        "category": "running",
        "state": "planned",
        "advice": "Run the same dub command again: it continues where it stopped.",
    }


def test_a_row_that_is_worked_on_gives_no_advice_and_shows_its_stage():
    live = LiveRow("waiting", None, ((0.0, "uploading"), (1.23456, "waiting")))
    view = row_view(ROW, None, None, "none", live)
    assert "advice" not in view
    assert moved_view("a", live) == {
        "key": "a",
        "category": view["category"],
        "state": view["state"],
        "error": None,
        "history": view["history"],
    }
    assert view["history"] == [[0.0, "uploading"], [1.235, "waiting"]]


def test_a_row_shows_the_cost_of_all_its_jobs_and_where_its_source_begins():
    record = Record(key="a", inputs="i", estimate=1.0, earlier_estimate=0.5)
    view = row_view(
        record, None, DubRow("https://a.example/v.mp4", "https://a.example/a.mp3", start_time=3), "none", None
    )
    assert view["cost"] == 1.5
    assert view["offset"] == 3
    assert view["source"] == {"kind": "url", "url": "https://a.example/v.mp4"}
