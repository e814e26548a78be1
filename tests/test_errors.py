"""The tree of errors, and what each carries."""

import asyncio
import copy
import os
import pickle
import time

import pytest

import heygen_async
from heygen_async import (
    APIError,
    DownloadError,
    HeyGenError,
    HeyGenSession,
    InsufficientCredit,
    InvalidSignature,
    Lipsync,
    LipsyncFailed,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitTimeout,
)
from heygen_async._media.targets import file_name
from heygen_async.bulk import JournalInUse
from heygen_async.errors import CallRecord
from heygen_async.sandbox import Sandbox
from heygen_async.sandbox.faults import error as answer_error
from heygen_async.sandbox.faults import html, reset, server_error

CREATE = "POST /v3/lipsyncs"
IN_DOUBT = "The request may have been carried out. Repeat a create with the same idempotency key."

FAILED = Lipsync(id="ls_1", status="failed", failure_message="no face was found")
EXAMPLES = [
    RateLimited("slow down", status=429, code="rate_limit_exceeded", retry_after=3.0, request_id="req_1"),
    APIError("teapot", status=418),
    UnexpectedResponse(["required field missing @ $.data.id"], status=200, request_id="req_1"),
    LipsyncFailed(FAILED),
    WaitTimeout("ls_1", last_status="running"),
    WaitTimeout(None),
    WaitTimeout(None, pending={"ls_1": "running", "ls_2": None}),
    RequestTimeout("GET /v3/users/me: no answer in time"),
    DownloadError("disk full"),
    InvalidSignature("no"),
    WaitTimeout("ls_1", last_status="completed"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error)), lambda error: error.fresh()]
)
def test_every_error_survives_pickle_and_copy(error, again):
    error.idempotency_key, error.attempts, error.outcome = "key", 3, "unknown"
    error.add_note("for the record")

    found = again(error)

    assert type(found) is type(error)
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))
    assert found.__traceback__ is None


@pytest.mark.parametrize("again", [copy.copy, lambda error: error.fresh()])
def test_a_note_on_a_copy_is_on_no_other(again):
    error = ServerError("no", status=500)
    error.add_note("for all")
    first, second = again(error), again(error)
    first.add_note("for the first")
    assert [one.__notes__ for one in (error, first, second)] == [["for all"], ["for all", "for the first"], ["for all"]]


def test_one_root_catches_all_that_the_library_raises():
    for name in heygen_async.__all__:
        thing = getattr(heygen_async, name)
        if isinstance(thing, type) and issubclass(thing, BaseException):
            assert issubclass(thing, HeyGenError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EXAMPLES[0], "429 rate_limit_exceeded: slow down [request req_1]"),
        (EXAMPLES[1], "418: teapot"),
        (EXAMPLES[2], "unexpected answer (200): required field missing @ $.data.id [request req_1]"),
        (EXAMPLES[3], "lipsync ls_1 failed: no face was found"),
        (EXAMPLES[4], "ls_1 did not end in time (last status: running)"),
        (EXAMPLES[5], "the deadline passed before the create was answered"),
        (EXAMPLES[6], "2 lipsyncs did not end in time"),
        (EXAMPLES[10], "ls_1 is completed, but its video did not arrive in time"),
        (WaitTimeout(None, pending={}), "the deadline passed before all ids were read"),
        (WaitTimeout(None, pending={"ls_1": "completed"}), "ls_1 is completed, but its video did not arrive in time"),
        (WaitTimeout(None, pending={"ls_1": "completed", "ls_2": None}), "2 lipsyncs did not end in time"),
    ],
)
def test_an_error_is_a_sentence(error, text):
    assert str(error) == text


def test_a_wait_timeout_is_a_timeout_error_and_has_no_errno():
    error = WaitTimeout("ls_1", last_status="running")
    assert isinstance(error, TimeoutError)
    assert error.errno is None
    assert (error.lipsync_id, error.last_status, error.pending) == ("ls_1", "running", {})


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (APIError("x", status=409, code="request_in_progress"), "Repeat the call later with the same key"),
        (APIError("x", status=418), None),
        (PermissionDenied("x", status=403), "check its scopes"),
        (PermissionDenied("x", status=403, hint="Use another key."), "Use another key."),
        (InvalidSignature("x"), "secret of this webhook endpoint"),
        (DownloadError("x"), None),
        (WaitTimeout("ls_1", last_status="running"), "still runs"),
        (WaitTimeout("ls_1", last_status="completed"), "is completed and paid. Download its video"),
        (WaitTimeout(None, pending={"ls_1": "completed"}), "is completed and paid. Download its video"),
    ],
)
def test_a_hint_says_what_to_do(error, hint):
    assert error.hint is None if hint is None else hint in error.hint


@pytest.mark.parametrize(
    ("outcome", "hint"),
    [
        ("not_sent", "Nothing was created"),
        ("rejected", "Nothing was created"),
        ("unknown", "Repeat a create with the same idempotency key"),
    ],
)
def test_the_advice_of_a_deadline_before_the_create_is_about_the_create(outcome, hint):
    error = WaitTimeout(None)
    CallRecord(idempotency_key="mine", attempts=1, outcome=outcome).write_to(error)
    assert hint in error.hint
    assert "still runs" not in error.hint
    assert hint in pickle.loads(pickle.dumps(error)).hint


def test_a_record_of_a_call_is_written_to_any_exception_and_read_from_it():
    record = CallRecord(idempotency_key="row-1", attempts=2, outcome="unknown")
    cancelled, error = asyncio.CancelledError(), WaitTimeout(None)
    record.write_to(cancelled)
    CallRecord.read_from(cancelled).write_to(error)
    assert (error.idempotency_key, error.attempts, error.outcome) == ("row-1", 2, "unknown")
    assert CallRecord.read_from(KeyError()) == CallRecord()


def test_an_error_that_came_from_no_request_knows_no_attempt():
    error = DownloadError("x")
    assert (error.idempotency_key, error.attempts, error.outcome) == (None, 0, None)


@pytest.mark.parametrize(
    "error",
    [
        TransportError("the connection broke", outcome="unknown"),
        RequestTimeout("no answer in time", outcome="unknown"),
        ServerError("no", status=500, outcome="unknown"),
        InsufficientCredit("no", status=402, outcome="unknown"),
        UnexpectedResponse(["no JSON"], status=200, outcome="unknown"),
        WaitTimeout(None),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_hint_of_a_request_in_doubt_is_to_repeat_it_with_its_key(error):
    CallRecord(idempotency_key="row-1", attempts=4, outcome="unknown").write_to(error)
    for one in (error, error.fresh(), pickle.loads(pickle.dumps(error))):
        assert one.hint == IN_DOUBT


@pytest.mark.parametrize(
    ("record", "hint"),
    [
        (CallRecord(idempotency_key="row-1", attempts=1, outcome="not_sent"), "Check the network"),
        (CallRecord(attempts=4, outcome="unknown"), "Check the network"),  # it was no POST
    ],
    ids=["not sent", "no key"],
)
def test_the_hint_of_a_request_that_can_be_made_again_is_that_of_its_failure(record, hint):
    for error in (TransportError("no connection"), RequestTimeout("no connection in time")):
        record.write_to(error)
        assert error.hint.startswith(hint)


def test_a_hint_that_was_made_for_an_error_stays():
    error = ServerError("no", status=500)
    error.hint = "Look for it in the list."
    CallRecord(idempotency_key="row-1", attempts=4, outcome="unknown").write_to(error)
    assert pickle.loads(pickle.dumps(error)).hint == "Look for it in the list."


@pytest.mark.parametrize(
    "fault",
    [
        reset(CREATE, after=True),
        server_error(CREATE, after=True),
        html(CREATE),
        answer_error(408, "timeout", route=CREATE),
    ],
    ids=["no answer", "server error", "page of a gateway", "408"],
)
async def test_a_create_whose_answer_is_lost_is_never_advised_to_be_made_again(fault):
    async with (
        Sandbox(faults=[fault]) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, retry=RetryPolicy(max_attempts=1)) as heygen,
    ):
        with pytest.raises(HeyGenError) as caught:
            await heygen.lipsyncs.create(video="https://example.com/v.mp4", audio="https://example.com/a.mp3")

    assert (caught.value.outcome, caught.value.hint) == ("unknown", IN_DOUBT)


LONG = [
    "x" * 2_000_000,
    "no face https://h/v.mp4?sig=s3cret " * 60_000,
    "https://h/" + "v" * 2_000_000 + "?sig=s3cret",
    ". " * 1_000_000,
]


@pytest.mark.parametrize("text", LONG, ids=["letters", "links", "link", "dots"])
@pytest.mark.parametrize(
    "shown",
    [
        lambda text: str(LipsyncFailed(Lipsync(id="ls_1", status="failed", failure_message=text))),
        lambda text: str(WaitTimeout("ls_1", last_status=text)),
        lambda text: repr(Lipsync(id="ls_1", status=text)),
        lambda text: repr(Lipsync(id="ls_1", status="failed", failure_message=text)),
        lambda text: repr(Lipsync(id="ls_1", status="failed", video_url=text)),
    ],
    ids=["failed", "timeout", "status", "message", "link"],
)
def test_a_text_of_the_server_of_any_length_is_shown_short_and_at_once(text, shown):
    began = time.thread_time()
    found = shown(text)
    assert time.thread_time() - began < 0.5  # uncut it takes seconds
    assert len(found) < 1500
    assert "s3cret" not in found


@pytest.mark.parametrize("text", LONG, ids=["letters", "links", "link", "dots"])
def test_a_title_of_any_length_makes_a_name_at_once(text):
    began = time.thread_time()
    assert file_name(text, "ls_1", "https://h/v.mp4").endswith(("(ls_1).mp4", "ls_1.mp4"))
    assert time.thread_time() - began < 0.5


def test_a_long_reason_is_whole_on_the_lipsync_and_cut_in_the_message():
    reason = "the face is too small " * 1000
    error = LipsyncFailed(Lipsync(id="ls_1", status="failed", failure_message=reason))
    assert error.lipsync.failure_message == reason
    assert str(error).startswith("lipsync ls_1 failed: the face is too small the face")
    assert str(error).endswith("…")
    assert len(str(error)) == 1001


@pytest.mark.parametrize("error", [DownloadError, TransportError, JournalInUse])
def test_a_message_with_the_name_of_a_file_that_is_no_text_can_be_printed(error):
    message = f"cannot write {os.fsdecode(b'caf' + bytes([0xE9]))}.mp4"

    assert str(error(message)).encode() == "cannot write caf\ufffd.mp4".encode()
    assert str(error("cannot write café.mp4")) == "cannot write café.mp4"
