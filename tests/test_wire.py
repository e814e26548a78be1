"""The protocol: values in, values or errors out."""

import enum
import html
import json
import math
import re
import string
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote, urlencode, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async import errors
from heygen_async._arguments import _PLAIN_HTTPS, is_https
from heygen_async._ids import check_key, chunk_ids, query_size, segment, segments
from heygen_async._masking import Mask
from heygen_async._text import is_text
from heygen_async._transport.origin import check_headers
from heygen_async._wire import (
    Answer,
    Stream,
    compose,
    compose_raw,
    is_final_answer,
    multipart,
    parse_json,
    retry_after,
)
from heygen_async._wire import decipher as _decipher
from heygen_async._wire.bodies import excerpt
from heygen_async._wire.outcomes import worse
from heygen_async._wire.outgoing import check_base_url, query_string
from heygen_async.models import Secret

NOW = 1_717_000_000.0
GET = compose("GET", "/v3/lipsyncs/{lipsync_id}", segments={"lipsync_id": "ls_1"})
CREATE = compose("POST", "/v3/lipsyncs", json={})
NO_MASK = Mask(Secret(""))


def decipher(status, headers, body, *, request=GET, secret=""):
    return _decipher(Answer(status, headers, body), request, now=NOW, mask=Mask(Secret(secret)))


def api_error(code, message="no", **more):
    return orjson.dumps({"error": {"code": code, "message": message, **more}})


# decipher


def test_a_success_is_its_parsed_body():
    assert decipher(200, {}, b'{"data": {"id": "ls_1"}}') == {"data": {"id": "ls_1"}}


@pytest.mark.parametrize(
    "request_",
    [compose("DELETE", "/v3/lipsyncs/ls_1"), compose_raw("POST", "/v3/other"), compose_raw("GET", "/v3/other")],
)
@pytest.mark.parametrize(
    ("status", "body", "data"), [(204, b"", None), (200, b"", None), (200, b'{"ok": 1}', {"ok": 1})]
)
def test_a_success_of_a_delete_or_of_any_other_call_may_have_no_data(request_, status, body, data):
    assert decipher(status, {}, body, request=request_) == data


@pytest.mark.parametrize("request_", [GET, CREATE])
@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "expected an object @ $"),
        (b'"ok"', "expected an object @ $"),
        (b"[]", "expected an object @ $"),
        (b"{}", "required field missing @ $.data"),
        (b'{"data": null}', "required field missing @ $.data"),
    ],
)
def test_a_success_without_the_data_of_its_call_is_unexpected_and_may_pass(request_, status, body, problem):
    with pytest.raises(errors.UnexpectedResponse) as caught:
        decipher(status, {}, body, request=request_)
    assert caught.value.problems == [problem]
    assert (caught.value.outcome, caught.value.is_transient) == ("unknown", True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.AuthenticationError),
        (402, errors.InsufficientCredit),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.InvalidRequest),
        (418, errors.APIError),
        (422, errors.InvalidRequest),
        (429, errors.RateLimited),
        (500, errors.ServerError),
        (503, errors.ServerError),
        (599, errors.ServerError),
    ],
)
def test_an_error_has_the_class_of_its_status_whatever_its_code(status, kind):
    body = api_error("a_code_from_the_future", "Sorry.", param="video", doc_url="https://docs")
    with pytest.raises(errors.APIError) as caught:
        decipher(status, {"X-Request-Id": "req_1", "Retry-After": "7"}, body)

    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.message) == (status, "a_code_from_the_future", "Sorry.")
    assert (error.param, error.doc_url, error.request_id) == ("video", "https://docs", "req_1")
    assert error.retry_after == 7.0
    assert str(error) == f"{status} a_code_from_the_future: Sorry. (field video) [request req_1]"


def test_all_faults_of_a_batch_of_a_hundred_items_are_listed():
    faults = [{"code": "invalid", "message": f"no. {number}", "path": ["items", number]} for number in range(100)]
    with pytest.raises(errors.APIError) as caught:
        decipher(400, {}, api_error("invalid", errors=faults))
    assert [fault.path for fault in caught.value.errors] == [f"items.{number}" for number in range(100)]


@pytest.mark.parametrize("text", ["%3F" * 1700, "word " * 1000, "/a?" * 1_000_000], ids=["escapes", "words", "endless"])
@pytest.mark.parametrize("name", ["message", "path"])
def test_of_faults_with_long_texts_only_the_first_are_read(text, name):
    faults = [{"code": "invalid", "message": "no", name: text}] * 100
    with pytest.raises(errors.APIError) as caught:
        decipher(400, {}, api_error("invalid", errors=faults))
    assert 1 <= len(caught.value.errors) <= 4


def test_the_message_of_an_unexpected_answer_is_short_whatever_its_problems_are():
    error = errors.UnexpectedResponse(["x" * 500, "y" * 500, "z" * 100_000], status=200, request_id="req_1")
    assert len(str(error)) < 1100
    assert str(error).endswith("[request req_1]")


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (400, "invalid_parameter", "rejected"),
        (404, "not_found", "rejected"),
        (429, "rate_limit_exceeded", "rejected"),
        (409, "conflict", "rejected"),
        (409, "request_in_progress", "unknown"),
        (408, "timeout", "unknown"),
        (500, "internal_error", "unknown"),
        (504, "gateway_timeout", "unknown"),
    ],
)
def test_an_error_reports_whether_the_request_may_have_been_carried_out(status, code, outcome):
    with pytest.raises(errors.APIError) as caught:
        decipher(status, {}, api_error(code))
    assert caught.value.outcome == outcome


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway nginx"),
        (b"", ""),
        (b'{"error": {"code": null, "message": 5}}', ""),
        (b'{"error": 5}', '{"error": 5}'),
        (b'[{"error"', '[{"error"'),
        (b"\xff\xfe\x00", "\ufffd\ufffd"),
    ],
    ids=["html", "nothing", "wrong types", "not an object", "half a json", "not text"],
)
def test_an_error_of_a_gateway_keeps_its_class_and_a_short_excerpt(body, message):
    with pytest.raises(errors.ServerError) as caught:
        decipher(502, {}, body)
    assert caught.value.message == message
    assert caught.value.code is None


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b"<html>Welcome</html>", "the body is not JSON: Welcome"),
        (200, b'{"data": {"id": "ls', 'the body is not JSON: {"data": {"id": "ls'),
        (302, b"", "a redirect, which is not followed"),
        (101, b"", "an unexpected status"),
        (999, b"", "an unexpected status"),
    ],
)
def test_an_answer_that_is_not_the_apis_is_unexpected(status, body, problem):
    with pytest.raises(errors.UnexpectedResponse) as caught:
        decipher(status, {"X-Request-Id": "req_1"}, body)
    assert caught.value.problems == [problem]
    assert caught.value.request_id == "req_1"
    assert caught.value.outcome == "unknown"


# Errors in the shapes of all services


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"code": 400140, "message": "Invalid voice"}, "400140", "Invalid voice"),
        ({"code": 400140, "message": "Invalid voice", "data": None}, "400140", "Invalid voice"),
        ({"error": "text"}, None, "text"),
        ({"error": "Not Found", "message": "No such route", "status": 404}, None, "No such route"),
        ({"message": "Forbidden"}, None, "Forbidden"),
        ({"error": {"code": 40012, "message": "no"}}, "40012", "no"),
        ({"error": {"code": True, "message": "no"}}, None, "no"),
        ({"error": {"code": "a_code"}}, "a_code", ""),
        ({"error": {"message": "x" * 5000}}, None, "x" * 1000 + "…"),
        ({"error": {"message": "see https://a.b/c?sig=1&d=2 (twice)"}}, None, "see https://a.b/c?... (twice)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_error_is_read_in_any_shape(body, code, message):
    with pytest.raises(errors.InvalidRequest) as caught:
        decipher(400, {}, orjson.dumps(body))
    assert (caught.value.code, caught.value.message) == (code, message)
    assert caught.value.request_id is None


@pytest.mark.parametrize(
    ("listed", "faults"),
    [
        (
            [{"code": "a", "message": "m", "path": "video.url"}, {"code": "b", "message": "n"}],
            (errors.ErrorDetail("m", "a", "video.url"), errors.ErrorDetail("n", "b", None)),
        ),
        ([{"message": "m", "path": ["lipsyncs", 3, "audio"]}], (errors.ErrorDetail("m", None, "lipsyncs.3.audio"),)),
        (["m", 5, None, {}, {"code": "b"}], (errors.ErrorDetail("m"), errors.ErrorDetail("b", "b"))),
        ({"a": 1}, ()),
        (None, ()),
        ([{"message": "m"}] * 1000, (errors.ErrorDetail("m"),) * 100),
    ],
    ids=["both", "a list as path", "odd items", "no list", "nothing", "very many"],
)
def test_the_faults_of_a_request_are_listed(listed, faults):
    with pytest.raises(errors.InvalidRequest) as caught:
        decipher(400, {}, api_error("invalid_parameter", "two faults", errors=listed))
    assert caught.value.errors == faults


def test_faults_without_a_message_of_their_own_make_one():
    with pytest.raises(errors.InvalidRequest, match="400: no video; no audio"):
        decipher(400, {}, orjson.dumps({"error": {"errors": ["no video", {"message": "no audio"}]}}))


@pytest.mark.parametrize(
    ("body", "kind", "status", "is_transient"),
    [
        ({"error": {"code": "insufficient_credit", "message": "no"}}, errors.InsufficientCredit, 402, False),
        ({"error": {"code": "unauthorized", "message": "no"}, "data": None}, errors.AuthenticationError, 401, False),
        ({"error": {"code": "internal_error", "message": "no"}}, errors.ServerError, 500, True),
        ({"error": {"code": "rate_limit_exceeded", "message": "no"}}, errors.RateLimited, 429, True),
        ({"error": {"code": 400140, "message": "no"}}, errors.InvalidRequest, 400, False),
        ({"code": 400140, "message": "no"}, errors.InvalidRequest, 400, False),
        ({"error": {"code": "a_new_code", "message": "no"}}, errors.APIError, 200, False),
        ({"error": "no"}, errors.APIError, 200, False),
    ],
    ids=str,
)
def test_an_error_inside_a_success_is_that_error_and_leaves_the_outcome_open(body, kind, status, is_transient):
    with pytest.raises(errors.APIError) as caught:
        decipher(200, {}, orjson.dumps(body))
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.message, error.outcome) == (status, "no", "unknown")
    assert error.is_transient is is_transient
    assert not is_final_answer(error)


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"id": "ls_1"}, "error": None},
        {"data": {"id": "ls_1"}, "error": {"code": "a_warning"}},
        {"data": {"id": "ls_1"}, "code": 100, "message": "Success"},
        {"data": None, "error": None},
        {"code": 100, "message": "Success"},
        {},
        [],
    ],
    ids=str,
)
def test_a_success_with_data_or_without_an_error_is_no_error(body):
    assert decipher(200, {}, orjson.dumps(body), request=compose_raw("GET", "/v3/other")) == body


# The scope of a key


@pytest.mark.parametrize(
    ("request_", "code", "message", "hint"),
    [
        (CREATE, "forbidden", "no", "lipsync:write"),
        (compose("DELETE", "/v3/lipsyncs/ls_1"), "forbidden", "no", "lipsync:write"),
        (compose("POST", "/v3/assets/direct-uploads"), "forbidden", "no", "assets:write"),
        (compose("GET", "/v3/users/me"), "forbidden", "no", "account:read"),
        (GET, "forbidden", "This key needs lipsync:read.", "lipsync:read"),
        (CREATE, "forbidden", "Missing scope: videos:write", "videos:write"),
        (CREATE, "ai_vendor_access_restricted", "no", "permissions"),
        (GET, "forbidden", "no", "permissions"),
        (compose("GET", "/v3/users/me"), None, "", "account:read"),
    ],
)
def test_a_refusal_for_a_missing_scope_names_the_scope(request_, code, message, hint):
    with pytest.raises(errors.PermissionDenied) as caught:
        decipher(403, {}, api_error(code, message), request=request_)
    assert hint in caught.value.hint


# The key


SECRET = "sk_live/12+3%&Z"


@pytest.mark.parametrize("status", [200, 302, 401, 500])
@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        orjson.dumps(SECRET).decode()[1:-1].replace("/", r"\/"),
        "".join(f"\\u{ord(char):04x}" for char in SECRET),
        quote(SECRET, safe=""),
        quote(quote(SECRET, safe=""), safe=""),
        "".join(f"%{ord(char):02x}" for char in SECRET),
        html.escape(SECRET),
        "".join(f"&#{ord(char)};" for char in SECRET),
        "".join(f"&#x{ord(char):X};" for char in SECRET),
        SECRET.replace("_", "&lowbar;").replace("/", "&sol;"),
        json.dumps(quote(SECRET, safe="")).replace("%", r"\u0025")[1:-1],
    ],
)
@pytest.mark.parametrize(
    "body", ["bad key: {}!", "<p>bad key: {}!</p>", '{{"error": {{"code": "c", "message": "bad key: {}!"}}', "{{{}"]
)
def test_a_key_that_the_server_echoes_is_hidden_however_it_is_spelled(status, spelled, body):
    with pytest.raises(errors.HeyGenError) as caught:
        decipher(status, {"X-Request-Id": f"r {spelled}"}, body.format(spelled).encode(), secret=SECRET)
    shown = f"{caught.value} {vars(caught.value)}"
    for text in (SECRET, spelled, spelled[:8], spelled[-12:]):
        assert text not in shown
    assert "r ****" in shown


def test_a_key_at_the_edge_of_an_excerpt_is_hidden_too():
    for before in range(4096 - 20, 4096 + 2):
        body = b"<" + b"x" * (before - 2) + b">" + SECRET.encode() + b" more" * 2000
        assert "sk_l" not in excerpt(body, Mask(Secret(SECRET)))
    for before in range(140, 161):
        shown = excerpt(b"y" * before + SECRET.encode(), Mask(Secret(SECRET)))
        assert "sk_l" not in shown


@given(status=st.integers(100, 999), body=st.binary(max_size=300), header=st.text(max_size=40))
def test_whatever_comes_it_is_a_value_or_one_of_our_errors(status, body, header):
    try:
        decipher(status, {"Retry-After": header, "X-Request-Id": header}, body)
    except errors.HeyGenError as error:
        assert len(str(error)) < 2000
        assert error.outcome in ("rejected", "unknown")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<p>a</p>\n\x00<b>b &amp; c</b>", "a b & c"),
        (b"x" * 10_000, "x" * 160 + "…"),
        ("\u200cمی‌خواهم \u3000 👩‍👩‍👧".encode(), "\u200cمی‌خواهم \u3000 👩‍👩‍👧"),
        (b"\x1b[31mred \xc2\x9b0m \xe2\x80\xaegnp.exe", "[31mred 0m gnp.exe"),
        (b"go to https://a.b/c?X-Amz-Signature=abc&x=1 now", "go to https://a.b/c?... now"),
        (rb'{"url": "https:\/\/a.b\/c?X-Amz-Signature=abc', '{"url": "https:\\/\\/a.b\\/c?...'),
    ],
    ids=["html", "long", "any Unicode", "control characters", "a signed link", "a signed link in JSON"],
)
def test_an_excerpt_is_one_short_line_of_text(body, text):
    assert excerpt(body, NO_MASK) == text


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        (format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True), 30.0),
        (format_datetime(datetime.fromtimestamp(NOW - 30, UTC), usegmt=True), 0.0),
        ("9" * 400, 1e9),
        ("99999999999", 1e9),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("1e9", None),
        ("٣", None),
        ("Fri, 99 Foo 2024 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(value, seconds):
    assert retry_after({} if value is None else {"Retry-After": value}, now=NOW) == seconds


def http_date(seconds):
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


@pytest.mark.parametrize("error", [-3 * 86400, 60, 3 * 86400], ids=str)
def test_a_retry_after_that_is_a_date_counts_from_the_date_of_its_answer_whatever_the_clock_says(error):
    headers = {"Retry-After": http_date(NOW + 30), "Date": http_date(NOW)}
    assert retry_after(headers, now=NOW + error) == 30.0


@pytest.mark.parametrize("date", ["", "soon"])
def test_a_retry_after_counts_from_the_clock_if_its_answer_has_no_date(date):
    assert retry_after({"Retry-After": http_date(NOW + 30), "Date": date}, now=NOW) == 30.0


@pytest.fixture(params=["Asia/Tokyo", "America/Los_Angeles", "UTC"])
def zone(request, monkeypatch):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "form",
    [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %d %H:%M:%S %Y",
        "%a %b %e %H:%M:%S %Y",
        "%a, %d %b %Y %H:%M:%S -0000",
        "%a, %d %b %Y %H:%M:%S +0000",
        "%d %b %Y %H:%M:%S",
        "%a, %d %b %Y %H:%M:%S UTC",
    ],
    ids=["IMF", "RFC 850", "asctime", "asctime, padded", "-0000", "+0000", "no zone", "UTC"],
)
def test_a_date_in_any_form_of_http_is_utc_in_every_time_zone(zone, form):
    date = datetime.fromtimestamp(NOW + 30, UTC).strftime(form)
    assert retry_after({"Retry-After": date}, now=NOW) == 30.0


# Requests


def test_a_request_is_composed_once_and_whole():
    request = compose(
        "GET",
        "/v3/lipsyncs/{lipsync_id}",
        segments={"lipsync_id": "ls_1"},
        params={"limit": 10, "token": "a b&c=/", "none": None, "flag": True},
    )
    assert request.path == "/v3/lipsyncs/ls_1"
    assert request.template == "/v3/lipsyncs/{lipsync_id}"
    assert request.query == "limit=10&token=a%20b%26c%3D%2F&flag=true"
    assert request.body is None
    assert request.idempotency_key is None


def test_every_post_gets_a_key_of_its_own():
    one, other = (compose("POST", "/v3/lipsyncs", json={"a": 1}) for _ in range(2))
    assert one.body == b'{"a":1}'
    assert check_key(one.idempotency_key) != check_key(other.idempotency_key)


def test_a_given_key_is_kept():
    assert compose("POST", "/v3/lipsyncs", json={}, idempotency_key="row:1").idempotency_key == "row:1"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v3/lipsyncs", "creates"),
        ("POST", "/v3/lipsyncs/batches", "session"),
        ("GET", "/v3/lipsyncs", "session"),
    ],
)
def test_only_single_creates_have_a_scope_of_their_own(method, path, scope):
    assert compose(method, path).scope == scope


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_what_sets_a_state_may_be_sent_twice(method):
    assert compose(method, "/v3/x").is_repeatable


def test_a_body_that_can_be_read_only_once_is_never_sent_twice():
    stream = Stream("text/plain", 1, chunks=lambda: aiter([]), is_repeatable=False)
    assert not compose("POST", "/v3/assets", stream=stream).is_repeatable


def test_a_list_of_ids_keeps_its_commas():
    assert query_string({"lipsync_ids": "a,b"}) == "lipsync_ids=a,b"


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a b", "a%2Fb", "a,b", "statuses", "batches", "\n", "é", "x" * 256],
)
def test_what_could_be_read_as_another_path_is_no_id(value):
    with pytest.raises(ValueError, match="lipsync_id is not an id"):
        segment("lipsync_id", value)


def test_an_id_must_be_a_string():
    with pytest.raises(TypeError, match="lipsync_id must be a string, not int"):
        segment("lipsync_id", 5)


@given(st.text(alphabet=string.printable, min_size=1, max_size=40))
def test_an_id_never_leaves_its_segment(value):
    try:
        found = segment("id", value)
    except ValueError:
        return
    assert not set(found) & set("/?#\\ \n\r")


class Float(float):
    """A float as numpy has them."""


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, Float("nan")], ids=str)
@pytest.mark.parametrize(
    "nest", [lambda x: x, lambda x: {"start_time": x}, lambda x: {"a": [{"b": (1, x)}]}], ids=["bare", "member", "deep"]
)
def test_a_number_that_json_does_not_have_is_a_type_error_and_not_sent_as_null(number, nest):
    with pytest.raises(TypeError, match=r"JSON has no (nan|inf|-inf)"):
        compose_raw("POST", "/v3/other", json=nest(number))


def test_json_that_contains_itself_is_a_type_error():
    endless = [1.5]
    endless.append(endless)
    with pytest.raises(TypeError):
        compose_raw("POST", "/v3/other", json=endless)


@pytest.mark.parametrize(
    "path",
    ["/v2/x", "v3/x", "/v3", "/v3/", "/v3/../x", "/v3//x", "/v3/a?b=c", "/v3/a#b", "/v3/a b", "/v3/a\nb", "/v3/é"],
)
def test_a_raw_path_stays_under_v3(path):
    with pytest.raises(ValueError, match="path must be"):
        compose_raw("GET", path)


def test_a_raw_path_may_hold_anything_else():
    assert compose_raw("GET", "/v3/voices/a%20b:c").path == "/v3/voices/a%20b:c"


def test_a_raw_method_is_one_of_the_apis():
    with pytest.raises(ValueError, match="method must be one of"):
        compose_raw("TRACE", "/v3/x")


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "a\n", "a/b"])
def test_a_key_that_the_api_would_refuse_is_refused_here(key):
    with pytest.raises(ValueError, match="idempotency_key must be"):
        check_key(key)


id_like = st.text(alphabet="ab/,.%&é \n", max_size=4) | st.sampled_from(
    ["statuses", "batches", "ls_1", "a" * 255, "a" * 256]
)


@given(st.lists(id_like | st.none() | st.integers(), max_size=4))
def test_many_ids_are_checked_as_each_of_them_is(values):
    def outcome(check):
        try:
            check()
        except (TypeError, ValueError) as error:
            return type(error), str(error)
        return None

    assert outcome(lambda: segments("ids", values)) == outcome(lambda: [segment("ids", value) for value in values])


# Chunks


@given(st.text(alphabet="aZ09-._~,&%+é", max_size=20))
def test_the_size_of_an_id_in_a_query_is_that_of_its_percent_encoding(value):
    assert query_size(value) == len(quote(value, safe="")) + 3


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=255), max_size=350))
def test_chunks_hold_every_id_once_and_fit_into_a_request(ids):
    chunks = chunk_ids(ids)
    assert [one for chunk in chunks for one in chunk] == ids
    assert all(0 < len(chunk) <= 100 and len(",".join(chunk)) <= 6000 for chunk in chunks)


def test_a_full_chunk_has_no_empty_seats():
    assert [len(chunk) for chunk in chunk_ids([f"ls_{n}" for n in range(250)])] == [100, 100, 50]


@given(
    st.dictionaries(st.text(max_size=5), st.text(alphabet="aZ09-._~,&%+ é", max_size=9) | st.booleans() | st.integers())
)
def test_a_query_is_percent_encoded_but_for_commas(params):
    spelled = {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
    assert query_string(params) == urlencode(spelled, safe=",", quote_via=quote)


# Addresses


@given(st.from_regex(_PLAIN_HTTPS, fullmatch=True))
def test_a_plain_https_url_needs_no_parsing_to_be_one(url):
    parts = urlsplit(url)
    assert (parts.scheme, bool(parts.hostname), parts.port, is_text(url), url.split()) == (
        "https",
        True,
        None,
        True,
        [url],
    )


@pytest.mark.parametrize(
    "url",
    ["https://api.heygen.com", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:80", "https://a.b/prefix"],
)
def test_a_base_url_is_https_or_loopback(url):
    assert check_base_url(url + "/") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.heygen.com",
        "http://127.0.0.1.evil.com",
        "http://localhost.evil.com",
        "ftp://x",
        "api.heygen.com",
        "",
        "https://",
        "https://u:p@h",
        "https://h?q=1",
        "https://h#f",
        "https://h:99999",
        "http://[",
    ],
)
def test_any_other_base_url_is_refused(url):
    with pytest.raises(ValueError, match="base_url must"):
        check_base_url(url)


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("https://api.heygen.com/v3", "https://api.heygen.com"),
        ("https://api.heygen.com/v3/", "https://api.heygen.com"),
        ("http://127.0.0.1:8080//v2", "http://127.0.0.1:8080"),
        ("https://gateway.example.com/heygen/v3", "https://gateway.example.com/heygen"),
    ],
)
def test_a_base_url_with_a_version_is_refused_and_the_right_one_is_named(url, without):
    with pytest.raises(ValueError, match=rf"base_url must not end with /+v\d: .* Give '{re.escape(without)}'$"):
        check_base_url(url)


def test_a_refused_base_url_is_shown_without_password_and_query():
    with pytest.raises(ValueError, match="base_url must") as caught:
        check_base_url("http://user:s3cret@example.com/v3?token=s3cret")
    assert "example.com" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_media_moves_over_plain_http_only_where_the_api_is_local():
    assert is_https("http://127.0.0.1/f", or_loopback=True)
    assert not is_https("http://127.0.0.1/f", or_loopback=False)
    assert not is_https("http://files.heygen.ai/f", or_loopback=True)
    assert is_https("https://files.heygen.ai/f", or_loopback=False)
    assert not is_https("https:///f", or_loopback=True)


# Outcomes


def test_of_two_outcomes_the_one_that_leaves_more_open_counts():
    assert worse(None, "not_sent") == "not_sent"
    assert worse("not_sent", "rejected") == "rejected"
    assert worse("unknown", "rejected") == "unknown"
    assert worse("not_sent", None) == "not_sent"


# Multipart


async def test_a_form_is_as_long_as_it_says_and_names_its_file():
    async def chunks():
        yield b"abc"
        yield b"de"

    form = multipart('a"b\r\n.mp4', "video/mp4", Stream("video/mp4", 5, chunks))
    body = b"".join([chunk async for chunk in form.chunks()])
    boundary = form.content_type.partition("boundary=")[2].encode()

    assert len(body) == form.length
    assert body.startswith(b"--" + boundary + b"\r\n")
    assert body.endswith(b"\r\n\r\nabcde\r\n--" + boundary + b"--\r\n")
    assert b'name="file"; filename="a%22b%0D%0A.mp4"\r\nContent-Type: video/mp4' in body


@pytest.mark.parametrize(
    ("name", "sent"),
    [("a\x1bb.mp3", "a%1Bb.mp3"), ("\0\x7f\t.mp4", "%00%7F%09.mp4"), ("é 日.mp4", "é 日.mp4")],
)
async def test_no_control_character_of_a_name_is_in_the_header_of_a_form(name, sent):
    form = multipart(name, "video/mp4", Stream("video/mp4", 0, lambda: aiter([])))
    head = await anext(aiter(form.chunks()))

    assert f'filename="{sent}"\r\n'.encode() in head


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'{"title": "Launch \ud83d"}', {"title": "Launch \ufffd"}),
        (rb'["\udc00\ud83d x", {"\udfff": 1.5}]', ["\ufffd\ufffd x", {"\ufffd": 1.5}]),
        (rb'["\ud83d\ude00", "\ud83d"]', ["\U0001f600", "\ufffd"]),
    ],
)
def test_half_a_character_does_not_make_json_unreadable(body, value):
    assert parse_json(body) == value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        pytest.param(b'{"title": "a\xe3\x81"}', {"title": "a\ufffd"}, id="character-cut-in-two"),
        pytest.param(b'{"title": "caf\xe9", "b": [1, 2.5]}', {"title": "caf\ufffd", "b": [1, 2.5]}, id="latin-1"),
        pytest.param(b'["\xed\xa0\xbd"]', ["\ufffd\ufffd\ufffd"], id="half-of-a-pair-as-bytes"),
        pytest.param(b'{"a\tb": "c\td"}', {"a\tb": "c\td"}, id="tab"),
        pytest.param(b'["a\x00b", "\x1f"]', ["a\0b", "\x1f"], id="control-characters"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', {"a": 1}, id="byte-order-mark"),
        pytest.param(b'\xef\xbb\xbf["\xff\n\\ud83d", NaN]', ["\ufffd\n\ufffd", None], id="all-of-it"),
    ],
)
def test_bytes_that_are_not_quite_json_do_not_hide_an_answer(body, value):
    assert parse_json(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xef\xbb\xbf",
        b'{"a": "\xe3\x81',
        b'{"a": 1}\x00',
        b"[" * 1500 + b"\t1" + b"]" * 1500,
        rb'"\ud83d',
        rb'[nan, "\ud83d"]',
        b"\xff",
        rb'"\ud83d' + b'"\xff',
        b"[" * 100_000 + rb'"\ud83d"',
    ],
)
def test_what_is_not_json_is_a_value_error(body):
    with pytest.raises(ValueError):  # noqa: PT011 orjson's message
        parse_json(body)


class Word(str, enum.Enum):  # noqa: UP042 as programs had them before StrEnum
    FINISHED = "batch.finished"
    ID = "ls_1"


def test_members_of_an_enum_that_are_strings_are_sent_as_their_text():
    request = compose(
        "POST",
        "/v3/x/{id}",
        segments={"id": Word.ID},
        params={"event_type": Word.FINISHED, "token": Word.ID, "limit": Float(1)},
        idempotency_key=check_key(Word.ID),
    )
    assert (request.path, request.query) == ("/v3/x/ls_1", "event_type=batch.finished&token=ls_1&limit=1.0")
    assert f"{request.idempotency_key}" == "ls_1"
    assert f"{dict(check_headers({Word.ID: Word.FINISHED}))}" == "{'ls_1': 'batch.finished'}"


def test_numbers_of_a_subclass_are_sent_as_numbers_and_what_json_does_not_have_is_refused():
    assert compose("POST", "/v3/x", json={"a": Float(1.5), "b": [Float(2)]}).body == b'{"a":1.5,"b":[2.0]}'
    with pytest.raises(TypeError, match="not JSON serializable"):
        compose("POST", "/v3/x", json={"a": object()})
