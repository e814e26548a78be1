"""Verifying, reading and signing deliveries: tables, and any bytes whatever."""

import hashlib
import hmac
import traceback
from functools import partial

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.errors import InvalidSignature, StaleDelivery, WebhookError
from heygen_async.models import LipsyncStatus, Secret
from heygen_async.webhooks import WebhookReceiver, parse_event, sign, verify

SECRET = "whsec_abc"
NOW = 1_780_000_000.0
BODY = orjson.dumps(
    {
        "event_id": "evt_1",
        "event_type": "lipsync.success",
        "event_data": {"lipsync_id": "ls_1", "callback_id": "row-1", "url": "https://files.example/1.mp4?sig=s"},
        "created_at": "2026-05-28T20:26:40Z",
    }
)


def signed(body=BODY, *, secret=SECRET, event_id="evt_1", timestamp=NOW, **headers):
    return {**sign(body, secret=secret, event_id=event_id, timestamp=timestamp), **headers}


def event_of(data, *, event_type="lipsync.success", **rest):
    body = orjson.dumps({"event_id": "evt_1", "event_type": event_type, "event_data": data, **rest})
    return parse_event(body, {}, secret=None)


def test_the_signature_is_the_hex_hmac_sha256_of_the_raw_body():
    headers = sign(b'{"a":1}', secret="s", event_id="evt_9", timestamp=12.7)

    assert headers == {
        "Heygen-Signature": hmac.new(b"s", b'{"a":1}', hashlib.sha256).hexdigest(),
        "Heygen-Timestamp": "12",
        "Heygen-Event-Id": "evt_9",
    }


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(SECRET, id="a-string"),
        pytest.param(Secret(SECRET), id="a-secret"),
        pytest.param(["whsec_old", SECRET], id="the-second-of-two"),
        pytest.param((Secret(SECRET), "whsec_new"), id="the-first-of-two"),
    ],
)
def test_a_delivery_signed_with_the_secret_is_verified(secret):
    assert verify(BODY, signed(), secret=secret, now=NOW) is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_may_be_any_kind_of_bytes(kind):
    verify(kind(BODY), signed(), secret=SECRET, now=NOW)
    assert parse_event(kind(BODY), signed(), secret=SECRET, now=NOW).event_id == "evt_1"


def test_hex_is_accepted_in_either_case_and_headers_in_any():
    headers = {name.upper(): value.upper() for name, value in signed().items()}

    verify(BODY, headers, secret=SECRET, now=NOW)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(BODY + b" ", signed(), id="a-byte-more"),
        pytest.param(BODY.replace(b"ls_1", b"ls_2"), signed(), id="another-job"),
        pytest.param(BODY, {}, id="no-headers"),
        pytest.param(BODY, signed(secret="whsec_other"), id="another-secret"),
        pytest.param(BODY, signed() | {"Heygen-Signature": ""}, id="empty"),
        pytest.param(BODY, signed() | {"Heygen-Signature": "é" * 64}, id="not-ascii"),
        pytest.param(BODY, signed() | {"Heygen-Signature": "\udcff" * 64}, id="a-lone-surrogate"),
        pytest.param(BODY, signed() | {"Heygen-Signature": signed()["Heygen-Signature"][:-1]}, id="cut-short"),
        pytest.param(BODY, signed() | {"Heygen-Signature": signed()["Heygen-Signature"] + "0"}, id="too-long"),
    ],
)
def test_a_delivery_that_was_not_signed_with_the_secret_is_refused(body, headers):
    with pytest.raises(InvalidSignature):
        verify(body, headers, secret=SECRET, now=NOW)


@pytest.mark.parametrize("off", [300, -300, 0, 299.5])
def test_a_timestamp_within_the_tolerance_is_accepted_either_way(off):
    verify(BODY, signed(), secret=SECRET, now=NOW + off)


@pytest.mark.parametrize("off", [300.5, -300.5, 1e9, -1e9])
def test_a_timestamp_too_far_from_now_is_stale_either_way(off):
    with pytest.raises(StaleDelivery):
        verify(BODY, signed(), secret=SECRET, now=NOW + off)


@pytest.mark.parametrize(
    "timestamp", [None, "", "soon", "-5", "1e9", "nan", "inf", "١٧٨٠٠٠٠٠٠٠", "9" * 5000, "2026-05-28"]
)
def test_a_timestamp_that_cannot_be_read_is_stale(timestamp):
    headers = signed()
    if timestamp is None:
        del headers["Heygen-Timestamp"]
    else:
        headers["Heygen-Timestamp"] = timestamp

    with pytest.raises(StaleDelivery):
        verify(BODY, headers, secret=SECRET, now=NOW, tolerance=float("inf"))


def test_the_tolerance_can_be_set():
    verify(BODY, signed(), secret=SECRET, now=NOW + 3600, tolerance=3600)
    with pytest.raises(StaleDelivery):
        verify(BODY, signed(), secret=SECRET, now=NOW + 1, tolerance=0)


@pytest.mark.parametrize("secret", ["", Secret(""), [], (), ["whsec_1", ""]])
def test_an_empty_secret_is_a_value_error(secret):
    for check in (verify, parse_event):
        with pytest.raises(ValueError, match="secret"):
            check(BODY, signed(), secret=secret, now=NOW)


@pytest.mark.parametrize("secret", [5, b"whsec_1", [5]])
def test_a_secret_that_is_not_text_is_a_type_error(secret):
    with pytest.raises(TypeError, match="secret"):
        verify(BODY, signed(), secret=secret, now=NOW)


def test_an_empty_secret_signs_nothing():
    with pytest.raises(ValueError, match="secret"):
        sign(BODY, secret="", event_id="evt_1", timestamp=NOW)


@pytest.mark.parametrize("tolerance", [-1, float("nan")])
def test_a_negative_or_nan_tolerance_is_a_value_error(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        verify(BODY, signed(), secret=SECRET, tolerance=tolerance, now=NOW)


@pytest.mark.parametrize("check", [verify, parse_event])
def test_a_body_that_was_decoded_is_a_type_error(check):
    with pytest.raises(TypeError, match="body"):
        check(BODY.decode(), signed(), secret=SECRET, now=NOW)


def test_an_event_names_its_job_and_outcome():
    event = parse_event(BODY, signed(), secret=SECRET, now=NOW)

    assert event.event_id == "evt_1"
    assert event.event_type == "lipsync.success"
    assert event.lipsync_id == "ls_1"
    assert event.callback_id == "row-1"
    assert event.outcome == "completed"
    assert event.video_url == "https://files.example/1.mp4?sig=s"
    assert event.failure_message is None
    assert event.data["lipsync_id"] == "ls_1"
    assert event.created_at.timestamp() == NOW


def test_the_repr_of_an_event_shows_no_query_of_a_link():
    assert "sig=s" not in repr(parse_event(BODY, signed(), secret=SECRET, now=NOW))


@pytest.mark.parametrize("name", ["lipsync_id", "video_id", "id"])
def test_the_job_is_found_under_any_name(name):
    assert event_of({name: "ls_1"}).lipsync_id == "ls_1"


def test_the_best_name_wins_and_what_is_not_text_is_ignored():
    assert event_of({"id": "x", "video_id": "y", "lipsync_id": "ls_1"}).lipsync_id == "ls_1"
    assert event_of({"id": "ls_1", "video_id": None, "lipsync_id": 7}).lipsync_id == "ls_1"


@pytest.mark.parametrize("name", ["url", "video_url"])
def test_the_output_is_found_under_any_name(name):
    assert event_of({name: "https://files.example/1"}).video_url == "https://files.example/1"


@pytest.mark.parametrize("name", ["msg", "message", "failure_message"])
def test_the_failure_is_found_under_any_name(name):
    event = event_of({name: "no face"}, event_type="lipsync.fail")

    assert (event.outcome, event.failure_message) == (LipsyncStatus.FAILED, "no face")


@pytest.mark.parametrize(
    ("event_type", "outcome"),
    [
        ("lipsync.success", "completed"),
        ("lipsync.fail", "failed"),
        ("video_translate.success", "completed"),
        ("batch.finished", None),
        ("something_new", None),
        ("success", "completed"),
        ("", None),
    ],
)
def test_the_event_type_gives_the_outcome(event_type, outcome):
    assert event_of({}, event_type=event_type).outcome == outcome


def test_the_id_of_a_batch_is_not_the_id_of_a_job():
    assert event_of({"id": "batch_1"}, event_type="batch.finished").lipsync_id is None


def test_unknown_members_are_kept():
    event = event_of({"new": [1]}, entity_id="e", created_at=NOW)

    assert event.data == {"new": [1]}
    assert event.extra == {"entity_id": "e"}


def test_the_id_in_the_body_counts_since_the_headers_are_not_signed():
    assert parse_event(BODY, signed(event_id="evt_forged"), secret=SECRET, now=NOW).event_id == "evt_1"


def test_without_an_id_in_the_body_that_of_the_headers_counts():
    body = b'{"event_type": "lipsync.success"}'

    assert parse_event(body, signed(body, event_id="evt_7"), secret=SECRET, now=NOW).event_id == "evt_7"


def test_without_any_id_equal_bodies_are_one_event():
    one, same, other = (
        parse_event(body, {}, secret=None)
        for body in (b'{"event_type": "a"}', b'{"event_type": "a"}', b'{"event_type": "b"}')
    )

    assert one.event_id == same.event_id != other.event_id


def test_a_plain_callback_is_an_event_of_a_job():
    body = orjson.dumps(
        {
            "lipsync_id": "ls_1",
            "status": "completed",
            "video_url": "https://files.example/1.mp4?sig=s",
            "callback_id": "row-1",
            "created_at": NOW,
            "new": 1,
        }
    )
    event = parse_event(body, {}, secret=None)

    assert (event.event_type, event.lipsync_id, event.callback_id) == ("", "ls_1", "row-1")
    assert event.outcome is LipsyncStatus.COMPLETED
    assert event.video_url == "https://files.example/1.mp4?sig=s"
    assert event.created_at.timestamp() == NOW
    assert event.data["new"] == 1
    assert event.extra == {}
    assert event.event_id.startswith("sha256:")
    assert parse_event(body, signed(body, event_id="evt_7"), secret=SECRET, now=NOW).event_id == "evt_7"


@pytest.mark.parametrize(
    ("callback", "outcome", "failure"),
    [
        ({"lipsync_id": "ls_1", "status": "failed", "failure_message": "no face"}, "failed", "no face"),
        ({"id": "ls_1", "status": "failed", "error": {"code": "x", "message": "m"}}, "failed", "x: m"),
        ({"video_id": "ls_1", "status": "processing"}, None, None),
        ({"lipsync_id": "ls_1", "status": 5}, None, None),
        ({"lipsync_id": "ls_1", "event_type": None}, None, None),
        ({"lipsync_id": "ls_1", "event_type": "lipsync.fail", "msg": "no face"}, "failed", "no face"),
        ({"event_data": {"id": "ls_1", "status": "completed"}}, "completed", None),
        ({"event_type": "new.word", "event_data": {"id": "ls_1", "status": "failed"}}, "failed", None),
    ],
)
def test_a_callback_of_any_shape_names_its_job(callback, outcome, failure):
    event = parse_event(orjson.dumps(callback), {}, secret=None)

    assert (event.lipsync_id, event.outcome, event.failure_message) == ("ls_1", outcome, failure)


def test_a_callback_may_name_its_job_by_the_callers_own_id():
    event = parse_event(b'{"callback_id": 42, "status": "completed"}', {}, secret=None)

    assert (event.lipsync_id, event.callback_id, event.outcome) == (None, "42", "completed")


@pytest.mark.parametrize(
    "delivered",
    [
        {"event_type": "batch.finished", "event_data": {"batch_id": "batch_1", "status": "completed"}},
        {"event_type": "batch.finished", "event_data": {"id": "batch_1"}},
        {"batch_id": "batch_1", "status": "completed", "counts_by_status": {"completed": 2}},
    ],
)
def test_the_end_of_a_batch_names_the_batch_and_no_job(delivered):
    event = parse_event(orjson.dumps(delivered), {}, secret=None)

    assert (event.batch_id, event.lipsync_id) == ("batch_1", None)


@pytest.mark.parametrize("created_at", ["", 0, "soon", {}, 1e300, [], True])
def test_a_time_that_cannot_be_read_is_none(created_at):
    assert event_of({}, created_at=created_at).created_at is None


def test_a_time_in_milliseconds_is_read():
    assert event_of({}, created_at=NOW * 1000).created_at.timestamp() == NOW


@pytest.mark.parametrize("escape", ["\\ud83d", "\\udc00\\ud83d", "\\uDBFF!"])
def test_half_of_a_surrogate_pair_does_not_hide_an_event_and_the_raw_body_is_what_is_signed(escape):
    body = f'{{"event_id": "evt_1", "event_type": "x.success", "event_data": {{"title": "L {escape}"}}}}'.encode()
    event = parse_event(body, signed(body), secret=SECRET, now=NOW)

    assert event.event_id == "evt_1"
    assert "\ufffd" in event.data["title"]
    event.to_json().encode()
    with pytest.raises(InvalidSignature):
        parse_event(body.replace(escape.encode(), b"\xef\xbf\xbd"), signed(body), secret=SECRET, now=NOW)


def under(prefix, headers):
    return {prefix + name.removeprefix("Heygen-"): value for name, value in headers.items()}


@pytest.mark.parametrize("prefix", ["Heygen-", "X-Heygen-", "", "x-heygen-", "HEYGEN-"])
def test_the_known_header_names_are_tried(prefix):
    nameless = b'{"event_type": "batch.finished"}'
    headers = under(prefix, signed(nameless, event_id="evt_7"))

    verify(nameless, headers, secret=SECRET, now=NOW)
    assert parse_event(nameless, headers, secret=SECRET, now=NOW).event_id == "evt_7"


@pytest.mark.parametrize("value", [5, None, ["a", "b"], b"x", (1, 0)])
@pytest.mark.parametrize("name", ["Content-Length", "wsgi.version", "Cookie"])
def test_a_header_that_is_not_used_may_have_any_value(name, value):
    headers = signed() | {name: value}

    verify(BODY, headers, secret=SECRET, now=NOW)
    assert parse_event(BODY, headers, secret=SECRET, now=NOW) == parse_event(BODY, headers, secret=None)


@pytest.mark.parametrize("headers", [{"heygen-signature": b"x"}, {"Timestamp": 5}, {b"Heygen-Signature": "x"}])
def test_a_header_that_is_used_must_be_text(headers):
    for check in (verify, parse_event):
        with pytest.raises(TypeError, match="headers must be a mapping of strings; the"):
            check(BODY, signed() | headers, secret=SECRET, now=NOW)


@pytest.mark.parametrize("url", ["http://app.example/h?{}", "app.example/h?{}", "https://app.example/h?a b{}", b"{}"])
def test_no_receiver_that_is_refused_shows_its_url_in_a_traceback(url):
    own = url.format(SECRET) if isinstance(url, str) else url.replace(b"{}", SECRET.encode())
    for options in ({"url": own}, {"url": f"https://app.example/h?{SECRET}", "queue_size": 0}):
        with pytest.raises((TypeError, ValueError)) as caught:
            WebhookReceiver(secret=None, **options)
        trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        shown = [str(frame.locals) for frame in trace.stack if frame.filename != __file__]

        assert shown
        assert SECRET not in f"{shown} {caught.value!r}"


def test_of_several_known_headers_the_best_that_has_a_value_counts():
    headers = signed() | {"Signature": "sig1=:abc=:", "X-Heygen-Signature": ""}
    verify(BODY, headers, secret=SECRET, now=NOW)

    headers = under("X-Heygen-", signed()) | {"Heygen-Signature": " "}
    verify(BODY, headers, secret=SECRET, now=NOW)

    with pytest.raises(InvalidSignature):
        verify(BODY, under("", signed()) | {"Heygen-Signature": "0" * 64}, secret=SECRET, now=NOW)


def test_headers_may_be_named_by_the_user_and_then_only_those_count():
    nameless = b'{"event_type": "batch.finished"}'
    own = {"signature_header": "X-Sig", "timestamp_header": "X-Time"}
    headers = signed(nameless, event_id="evt_7")
    renamed = {"x-sig": headers["Heygen-Signature"], "x-time": "1780000000", "x-event": "evt_8"}

    verify(nameless, renamed, secret=["whsec_other", SECRET], now=NOW, **own)
    event = parse_event(nameless, renamed, secret=SECRET, now=NOW, event_id_header="X-Event", **own)
    assert event.event_id == "evt_8"
    with pytest.raises(InvalidSignature, match="X-Sig is missing"):
        verify(nameless, headers, secret=SECRET, now=NOW, **own)
    with pytest.raises(StaleDelivery, match="X-Time is missing"):
        verify(nameless, headers, secret=SECRET, now=NOW, timestamp_header="X-Time")


@pytest.mark.parametrize(("name", "error"), [("", ValueError), ("a b", ValueError), ("é", ValueError), (5, TypeError)])
@pytest.mark.parametrize("argument", ["signature_header", "timestamp_header", "event_id_header"])
def test_what_is_no_header_name_is_misuse(argument, name, error):
    with pytest.raises(error, match=argument):
        parse_event(BODY, signed(), secret=SECRET, now=NOW, **{argument: name})
    with pytest.raises(error, match=argument):
        WebhookReceiver(secret=SECRET, **{argument: name})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"event_type": 5}',
        b'{"event_type": null, "event_data": {}}',
        b'{"event_type": "lipsync.success"',
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'["\\ud83d"' + b"[" * 1_000_000,
        b'{"event_type": "a", "event_data": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"event_type": "a", "event_data": {"t": "\\ud83d", "n": ' + b"[" * 300 + b"]" * 300 + b"}}",
        b'{"event_type": "a", "t": "\\ud83d", "n": ' + b"9" * 1_000_000,
        b'{"event_data": {"status": "completed"}}',
        b'{"status": "completed", "lipsync_id": 5}',
    ],
)
def test_a_body_that_is_no_event_is_a_webhook_error(body):
    with pytest.raises(WebhookError):
        parse_event(body, signed(body), secret=SECRET, now=NOW)


header_text = st.text(max_size=80) | st.text(alphabet="0123456789abcdefABCDEF", min_size=64, max_size=64)
any_headers = st.dictionaries(
    st.sampled_from(["Heygen-Signature", "heygen-timestamp", "HEYGEN-EVENT-ID", "Content-Type"]) | st.text(max_size=20),
    header_text,
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
event_words = ["lipsync_id", "video_id", "id", "url", "video_url", "msg", "message", "failure_message", "callback_id"]
any_event = st.fixed_dictionaries(
    {"event_type": st.text(max_size=20) | any_json},
    optional={
        "event_id": any_json,
        "event_data": any_json | st.dictionaries(st.sampled_from(event_words), any_json),
        "created_at": any_json | st.just("0001-01-01T00:00:00+23:59"),
    },
)
any_body = st.binary(max_size=200) | any_json.map(orjson.dumps) | any_event.map(orjson.dumps)


@given(any_body, any_headers)
def test_any_unsigned_body_is_refused(body, headers):
    with pytest.raises(InvalidSignature):
        verify(body, headers, secret=SECRET, now=NOW)


@given(any_body, any_headers)
def test_any_body_is_an_event_or_a_webhook_error(body, headers):
    try:
        event = parse_event(body, headers, secret=None)
    except WebhookError:
        return
    assert event.event_id
    assert isinstance(event.event_type, str)


@given(st.binary(max_size=200), st.text(min_size=1, max_size=20, alphabet=st.characters(codec="utf-8")))
def test_a_signed_body_is_verified_and_one_with_a_changed_bit_is_not(body, secret):
    headers = sign(body, secret=secret, event_id="evt_1", timestamp=NOW)

    verify(body, headers, secret=secret, now=NOW)

    changed = bytes([body[0] ^ 1]) + body[1:] if body else b"\0"
    with pytest.raises(InvalidSignature):
        verify(changed, headers, secret=secret, now=NOW)


@pytest.mark.parametrize("event_id", ["", "a b", "a\r\nb", "é", "x" * 256])
def test_a_bad_event_id_cannot_be_signed_for(event_id):
    with pytest.raises(ValueError, match="event_id"):
        sign(BODY, secret=SECRET, event_id=event_id, timestamp=NOW)


@pytest.mark.parametrize(
    ("title", "read"), [(b"caf\xe9", "caf\ufffd"), (b"cut \xe3\x81", "cut \ufffd"), (b"a\tb", "a\tb")]
)
def test_a_delivery_whose_text_is_not_quite_json_is_verified_as_it_came_and_read(title, read):
    body = b'\xef\xbb\xbf{"event_type": "lipsync.success", "event_data": {"lipsync_id": "ls_1", "title": "%b"}}' % title

    event = parse_event(body, signed(body), secret=SECRET, now=NOW)

    assert (event.lipsync_id, event.data["title"]) == ("ls_1", read)


# Secrets in tracebacks

RIGHT = Secret(SECRET)
FAILING = {
    "a wrong signature": lambda secret: verify(BODY, {"Heygen-Signature": "00"}, secret=secret),
    "no signature": lambda secret: parse_event(BODY, {}, secret=secret),
    "a stale delivery": lambda secret: parse_event(BODY, signed(), secret=secret),
    "no event": lambda secret: parse_event(b"{}", signed(b"{}"), secret=secret, now=NOW),
    "not JSON": lambda secret: parse_event(b"no", signed(b"no"), secret=secret, now=NOW),
    "a body that is text": lambda secret: verify("{}", {}, secret=secret),
    "a wrong header name": lambda secret: verify(BODY, {}, secret=secret, signature_header="a b"),
    "a wrong tolerance": lambda secret: parse_event(BODY, {}, secret=secret, tolerance=-1),
    "one that is no string": lambda secret: verify(BODY, {}, secret=[secret, 42]),
    "one that is empty": lambda secret: parse_event(BODY, {}, secret=(secret, "")),
    "one that is not text": lambda secret: verify(BODY, {}, secret=[secret, f"{SECRET}\ud83d"]),
    "bytes": lambda secret: verify(BODY, {}, secret=[secret, SECRET.encode()]),
    "a receiver": lambda secret: WebhookReceiver(secret=secret, tolerance=-1),
    "a receiver with a wrong one": lambda secret: WebhookReceiver(secret=[secret, 42]),
    "sign": lambda secret: sign(BODY, secret=secret, event_id=" ", timestamp=1),
}


@pytest.mark.parametrize("secret", [SECRET, RIGHT], ids=["str", "Secret"])
@pytest.mark.parametrize("call", FAILING.values(), ids=FAILING)
def test_no_failure_shows_the_secret_in_a_traceback(call, secret):
    with pytest.raises((WebhookError, TypeError, ValueError)) as caught:
        call(secret)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = [str(frame.locals) for frame in trace.stack if frame.filename != __file__]

    assert shown
    assert SECRET not in f"{shown} {caught.value!r} {caught.value.__context__!r}"


NO_SECONDS = ["300", "x", True, [], float("nan"), -1]


def starts_with(name):
    return pytest.raises((TypeError, ValueError), match=rf"^{name} must ")


@pytest.mark.parametrize("wrong", [*NO_SECONDS, None])
def test_a_tolerance_that_is_no_number_of_seconds_is_refused_by_name(wrong):
    for call in (partial(verify, secret="s"), partial(parse_event, secret=None)):
        with starts_with("tolerance"):
            call(b"{}", {}, tolerance=wrong)
    with starts_with("tolerance"):
        WebhookReceiver(secret=None, tolerance=wrong)


@pytest.mark.parametrize("wrong", NO_SECONDS)
def test_a_time_that_is_no_number_is_refused_by_name(wrong):
    for call in (partial(verify, secret="s"), partial(parse_event, secret=None)):
        with starts_with("now"):
            call(b"{}", {}, now=wrong)
    with starts_with("timestamp"):
        sign(b"{}", secret="s", event_id="a", timestamp=wrong)


def test_an_infinite_tolerance_takes_every_timestamp():
    headers = sign(b"{}", secret="s", event_id="a", timestamp=1)
    verify(b"{}", headers, secret="s", tolerance=float("inf"))


@pytest.mark.parametrize(
    "wrong", [None, 5, "a: b", [("a", "b")], {"Heygen-Signature": None}, {b"a": b"b"}, {"timestamp": 5}], ids=repr
)
def test_headers_that_are_no_mapping_of_strings_are_refused_by_name(wrong):
    for call in (partial(verify, secret="s"), partial(parse_event, secret=None)):
        with starts_with("headers"):
            call(b'{"event_type": "x"}', wrong)


def test_headers_need_only_have_items():
    class Headers:
        def items(self):
            return [("heygen-event-id", "evt_1")]

    assert parse_event(b'{"event_type": "x"}', Headers(), secret=None).event_id == "evt_1"


@pytest.mark.parametrize("wrong", [5, None, b"a", "", "a b"])
def test_what_is_signed_needs_an_id(wrong):
    with starts_with("event_id"):
        sign(b"{}", secret="s", event_id=wrong, timestamp=1)


@pytest.mark.parametrize("several", [["a", "b"], ("a", "a"), [Secret("a"), "b", "c"]])
def test_a_delivery_is_signed_with_one_secret(several):
    with starts_with("secret"):
        sign(b"{}", secret=several, event_id="a", timestamp=1)


class Half:
    async def has(self, event_id):
        return False


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("on_event", wrong) for wrong in (5, "store", [print])),
        *(("seen", wrong) for wrong in (5, {"evt_1"}, Half())),
        *(("url", wrong) for wrong in (5, "", "app.example/hook", "ftp://app.example/hook")),
    ],
)
def test_a_receiver_refuses_a_wrong_argument_by_name(name, wrong):
    with starts_with(name):
        WebhookReceiver(secret=None, **{name: wrong})
