"""JSON to models: required fields strictly, optional ones as far as they can be read."""

from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async import (
    Account,
    ApiKey,
    Asset,
    AssetId,
    Batch,
    BatchItem,
    EventType,
    Lipsync,
    LipsyncRequest,
    LipsyncStatus,
    UnexpectedResponse,
    Wallet,
    WebhookEndpoint,
    WebhookEvent,
)
from heygen_async._converter import (
    _SPELLINGS,
    BatchCreated,
    Created,
    RotatedSecret,
    StatusEntry,
    _converter,
    read,
    read_batch,
    read_batch_items,
    read_new,
    read_page,
    read_statuses,
    request_body,
)
from heygen_async._one_pass import one_pass_reader
from heygen_async._values import UNREADABLE, read_status
from heygen_async._wire import Response, parse_json

SEED = {
    "id": "ls_abc123",
    "title": "My Lipsync",
    "status": "completed",
    "duration": 42.5,
    "video_url": "https://files.heygen.ai/...",
    "callback_id": None,
    "created_at": 1717000000,
    "failure_message": None,
}


def answer(data, **beside):
    return Response(200, {"X-Request-Id": "req_1"}, {"data": data, **beside})


def test_the_documented_answer_is_a_lipsync():
    assert read(answer(SEED), Lipsync) == Lipsync(
        id="ls_abc123",
        title="My Lipsync",
        status=LipsyncStatus.COMPLETED,
        duration=42.5,
        video_url="https://files.heygen.ai/...",
        created_at=datetime(2024, 5, 29, 16, 26, 40, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", LipsyncStatus.PENDING),
        ("queued", LipsyncStatus.PENDING),
        ("running", LipsyncStatus.RUNNING),
        ("processing", LipsyncStatus.RUNNING),
        ("completed", LipsyncStatus.COMPLETED),
        ("failed", LipsyncStatus.FAILED),
        ("not_found", LipsyncStatus.NOT_FOUND),
        ("COMPLETED", LipsyncStatus.COMPLETED),
        ("Queued ", LipsyncStatus.PENDING),
    ],
)
def test_both_vocabularies_read_as_one(word, status):
    assert read_status(word) is status


@pytest.mark.parametrize("name", ["lipsync_id", "id", "video_id"])
def test_the_id_of_a_created_job_may_have_any_of_its_names(name):
    assert read_new(answer({name: "ls_1"}), Created, "lipsync_id") == Created("ls_1")


@pytest.mark.parametrize("name", ["batch_id", "id"])
def test_the_id_of_a_created_batch_may_have_any_of_its_names(name):
    assert read_new(answer({name: "b_1"}), BatchCreated, "batch_id") == BatchCreated("b_1")


def test_an_unknown_status_survives_as_itself():
    lipsync = read(answer({"id": "ls_1", "status": "throttled"}), Lipsync)
    assert lipsync.status == "throttled"
    assert not lipsync.is_terminal


def test_unknown_fields_are_kept():
    lipsync = read(answer({**SEED, "extra": 1, "gpu": {"kind": "h200"}}), Lipsync)
    assert lipsync.extra == {"extra": 1, "gpu": {"kind": "h200"}}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({**SEED, "id": None}, "invalid value for type, expected str @ $.data.id"),
        ({**SEED, "id": 5}, "invalid value for type, expected str @ $.data.id"),
        ({**SEED, "id": None, "duration": "42"}, "@ $.data.id"),
        ({**SEED, "status": None}, "@ $.data.status"),
        ({"id": "ls_1"}, "required field missing @ $.data.status"),
        ([], "@ $.data"),
        (None, "@ $.data"),
        ("text", "@ $.data"),
    ],
)
def test_what_is_not_a_lipsync_is_a_problem_with_a_path(data, problem):
    with pytest.raises(UnexpectedResponse) as caught:
        read(answer(data), Lipsync)
    (found,) = caught.value.problems
    assert problem in found
    assert caught.value.request_id == "req_1"
    assert caught.value.outcome == "unknown"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "required field missing @ $.data"),
        (None, "expected an object @ $"),
        ([SEED], "expected an object @ $"),
        ({"Data": SEED}, "required field missing @ $.data"),
    ],
)
def test_a_200_without_data_is_unexpected(body, problem):
    with pytest.raises(UnexpectedResponse) as caught:
        read(Response(200, {}, body), Lipsync)
    assert caught.value.problems == [problem]


def test_every_problem_of_a_page_is_reported():
    with pytest.raises(UnexpectedResponse) as caught:
        read_page(answer([SEED, {"id": 4, "status": "x"}, {"id": "a"}]), Lipsync)
    assert caught.value.problems == [
        "invalid value for type, expected str @ $.data[1].id",
        "required field missing @ $.data[2].status",
    ]


@pytest.mark.parametrize("unreadable", [{}, [], {"id": "a"}, None], ids=str)
def test_a_page_of_items_that_cannot_be_read_is_read_no_further_than_its_first_problems(unreadable):
    with pytest.raises(UnexpectedResponse) as caught:
        read_page(answer([SEED, *[unreadable] * 500]), Lipsync)
    problems = caught.value.problems
    assert 10 <= len(problems) < 15
    assert "$.data[1]" in problems[0]
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("beside", "token"),
    [
        ({"has_more": True, "next_token": "t"}, "t"),
        ({"has_more": False, "next_token": None}, None),
        ({"has_more": False, "next_token": "t"}, None),
        ({"next_token": "t"}, "t"),
        ({"has_more": True, "next_token": None}, None),
        ({"has_more": True, "next_token": ""}, None),
        ({"has_more": True, "next_token": 5}, "5"),
        ({"has_more": False, "next_token": {}}, None),
        ({"has_more": False, "next_token": ["t"]}, None),
        ({"next_token": 0}, None),
        ({}, None),
    ],
)
def test_a_cursor_counts_unless_has_more_is_false(beside, token):
    page = read_page(answer([SEED], **beside), Lipsync)
    assert (page.next_token, page.has_more) == (token, token is not None or beside.get("has_more", False))


def test_a_cursor_of_another_type_is_unexpected():
    with pytest.raises(UnexpectedResponse, match=r"\$\.next_token"):
        read_page(answer([], next_token=[5]), Lipsync)


def test_a_batch_has_its_cursor_inside_data():
    data = {
        "batch_id": "b_1",
        "status": "processing",
        "total_items": 2,
        "counts_by_status": {"queued": 1, "pending": 1, "odd": 1},
        "created_at": 1717000000,
        "items": [
            {"item_index": 0, "status": "queued", "video_id": "ls_1", "error": None},
            {"item_index": 1, "status": "failed", "error": {"code": "download_failed", "message": "404"}},
            {"item_index": 2, "status": "failed", "error": "no face"},
        ],
        "has_more": True,
        "next_token": "t",
    }
    batch = read(answer(data), Batch)
    page = read_batch_items(answer(data), "b_1")

    assert (batch.id, batch.status, batch.total_items) == ("b_1", LipsyncStatus.RUNNING, 2)
    assert batch.counts_by_status == {"pending": 2, "odd": 1}
    assert [item.lipsync_id for item in page.items] == ["ls_1", None, None]
    assert [item.error for item in page.items] == [None, "download_failed: 404", "no face"]
    assert page.next_token == "t"


@pytest.mark.parametrize("spelling", ["id", "asset_id"])
def test_an_asset_has_an_id_whichever_way_the_api_spells_it(spelling):
    asset = read(answer({spelling: "as_1", "size_bytes": 5, "new": True}), Asset)
    assert (asset.id, asset.size_bytes, asset.extra) == ("as_1", 5, {"new": True})


def test_an_account_has_a_balance():
    account = read(answer({"username": "u", "wallet": {"currency": "usd", "remaining_balance": 3}}), Account)
    assert account.wallet is not None
    assert account.wallet.remaining_balance == 3.0
    assert account.subscription is None


def test_times_are_unix_seconds_or_iso_and_always_utc():
    moment = datetime(2024, 5, 29, 16, 26, 40, tzinfo=UTC)
    for spelling in (
        1717000000,
        1717000000.0,
        "2024-05-29T16:26:40Z",
        "2024-05-29T18:26:40+02:00",
        "2024-05-29T16:26:40",
    ):
        found = read(answer({"id": "a", "status": "x", "created_at": spelling}), Lipsync).created_at
        assert found == moment
        assert found.tzinfo is UTC


MOMENT = datetime(2024, 5, 29, 16, 26, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("duration", "12.5", 12.5),
        ("duration", " 12 ", 12.0),
        ("duration", "1.25e1", 12.5),
        ("duration", "-3", -3.0),
        ("created_at", 1717000000000, MOMENT),
        ("created_at", 1717000000000000, MOMENT),
        ("created_at", 1717000000000000000, MOMENT),
        ("created_at", "1717000000", MOMENT),
        ("created_at", "1717000000000", MOMENT),
        ("created_at", "1717000000.0", MOMENT),
        ("created_at", "2024-05-29T16:26:40.000000000Z", MOMENT),
        ("created_at", "2024-05-29 16:26:40 UTC", MOMENT),
        ("created_at", " 2024-05-29T16:26:40Z", MOMENT),
        ("callback_id", 42, "42"),
        ("callback_id", 4.5, "4.5"),
        ("title", 5, "5"),
        ("failure_message", 500, "500"),
    ],
)
def test_an_optional_field_is_read_as_far_as_its_meaning_is_clear(field, value, expected):
    lipsync = read(answer({**SEED, field: value}), Lipsync)

    assert getattr(lipsync, field) == expected
    assert lipsync.extra == {}
    assert (lipsync.id, lipsync.status, lipsync.video_url) == ("ls_abc123", "completed", "https://files.heygen.ai/...")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("duration", ""),
        ("duration", "NaN"),
        ("duration", "Infinity"),
        ("duration", "1e999"),
        ("duration", "1_000"),
        ("duration", "\u0661\u0662"),
        ("duration", "about a minute"),
        ("duration", True),
        ("duration", {"seconds": 12}),
        ("duration", [12.5]),
        ("duration", 10**400),
        ("created_at", ""),
        ("created_at", 0),
        ("created_at", "0"),
        ("created_at", -1),
        ("created_at", 1e30),
        ("created_at", 10**400),
        ("created_at", "9" * 39),
        ("created_at", False),
        ("created_at", "0001-01-01T00:00:00Z"),
        ("created_at", "0001-01-01T00:00:00+23:59"),
        ("created_at", "yesterday"),
        ("created_at", {"seconds": 1717000000}),
        ("callback_id", True),
        ("callback_id", {"id": "row-1"}),
        ("callback_id", ["row-1"]),
        ("title", {"text": "T"}),
        ("video_url", ["https://x"]),
        ("caption_url", {"srt": "https://x"}),
        ("failure_message", True),
        ("failure_message", {}),
        ("failure_message", []),
        ("failure_message", {"status": "x"}),
        ("failure_message", {"message": {"message": {}}}),
    ],
)
def test_an_optional_field_that_cannot_be_read_is_none_and_goes_to_extra(field, value):
    lipsync = read(answer({**SEED, field: value, "new": 1}), Lipsync)

    assert getattr(lipsync, field) is None
    assert lipsync.extra == {field: value, "new": 1}
    assert (lipsync.id, lipsync.status) == ("ls_abc123", "completed")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"code": "no_speech", "message": "No speech detected"}, "no_speech: No speech detected"),
        ({"code": 400140, "msg": "too long"}, "400140: too long"),
        ({"message": "No speech"}, "No speech"),
        ({"error": {"code": "x", "message": "inner"}}, "x: inner"),
        (["first", {"message": "second"}], "first; second"),
        ({"code": "no_speech"}, "no_speech"),
    ],
)
def test_a_failure_that_is_an_object_becomes_text_and_stays_in_extra(value, expected):
    lipsync = read(answer({"id": "ls_1", "status": "failed", "failure_message": value}), Lipsync)

    assert lipsync.failure_message == expected
    assert lipsync.extra == {"failure_message": value}


def test_one_odd_field_does_not_hide_the_rest_of_a_page():
    odd = {"duration": "12.5", "created_at": "", "callback_id": 42, "failure_message": {"message": "m"}, "title": []}
    page = read_page(answer([SEED, {**SEED, **odd}, SEED], next_token="t"), Lipsync)

    assert page.items[0] == page.items[2] == read(answer(SEED), Lipsync)
    assert (page.items[1].duration, page.items[1].callback_id, page.items[1].title) == (12.5, "42", None)
    assert page.next_token == "t"


def test_an_entry_of_a_status_answer_that_cannot_be_read_is_left_out():
    entries = [
        {"video_id": "a", "status": "completed"},
        {"video_id": "b", "status": None},
        {"video_id": None, "status": "failed"},
        "text",
        {"lipsync_id": "c", "status": "new", "error": {"code": 1}, "item_index": "0"},
    ]

    page = read_statuses(answer(entries, next_token="t"))

    assert page.items == [("a", "completed"), ("c", "new")]
    assert page.next_token == "t"
    with pytest.raises(UnexpectedResponse, match=r"\$\.data"):
        read_statuses(answer({"a": "completed"}))


BATCH = {"batch_id": "b_1", "status": "processing", "total_items": 3, "counts_by_status": {"queued": 1, "failed": 2}}


@pytest.mark.parametrize(
    ("changed", "total", "counts", "extra"),
    [
        ({}, 3, {"pending": 1, "failed": 2}, {}),
        ({"total_items": "3"}, 3, {"pending": 1, "failed": 2}, {}),
        ({"total_items": 3.0}, 3, {"pending": 1, "failed": 2}, {}),
        ({"total_items": None}, 3, {"pending": 1, "failed": 2}, {}),
        ({"total_items": "many"}, 3, {"pending": 1, "failed": 2}, {"total_items": "many"}),
        (
            {"counts_by_status": {"queued": "1", "failed": None}},
            3,
            {"pending": 1},
            {"counts_by_status": {"queued": "1", "failed": None}},
        ),
        ({"counts_by_status": [1]}, 3, {}, {"counts_by_status": [1]}),
        ({"counts_by_status": None, "total_items": None}, 0, {}, {}),
        ({"title": 7, "created_at": "soon"}, 3, {"pending": 1, "failed": 2}, {"created_at": "soon"}),
    ],
)
def test_a_batch_is_read_whatever_its_figures_are(changed, total, counts, extra):
    batch = read(answer({**BATCH, **changed}), Batch)

    assert (batch.id, batch.status, batch.total_items, batch.counts_by_status) == ("b_1", "running", total, counts)
    assert batch.extra == extra


@pytest.mark.parametrize(
    ("beside", "extra"),
    [
        ({"items": [{"item_index": 0, "status": "queued"}], "has_more": True, "next_token": "t"}, {}),
        ({"items": None, "next_token": None, "priority": 5}, {"priority": 5}),
        ({"items": {}, "has_more": 1, "total_items": "many"}, {"total_items": "many"}),
    ],
)
def test_a_batch_is_without_the_page_of_its_items(beside, extra):
    batch = read_batch(answer({**BATCH, **beside}), "b_1")

    assert (batch.id, batch.total_items, batch.extra) == ("b_1", 3, extra)


def test_an_item_of_a_batch_may_have_its_index_as_text():
    item = {"item_index": "1", "status": "failed", "video_id": None, "error": {"code": 7}}
    (found,) = read_batch_items(answer({"items": [item]}), "b_1").items

    assert (found.item_index, found.lipsync_id, found.error) == (1, None, "7")
    with pytest.raises(UnexpectedResponse, match="item_index"):
        read_batch_items(answer({"items": [{"item_index": "first", "status": "failed"}]}), "b_1")


def test_an_asset_is_read_whatever_its_optional_fields_are():
    wire = {"id": None, "asset_id": "as_1", "size_bytes": "5", "uploaded_at": 0, "mime_type": [], "name": 7}
    asset = read(answer(wire), Asset)

    assert (asset.id, asset.size_bytes, asset.uploaded_at, asset.mime_type, asset.name) == ("as_1", 5, None, None, "7")
    assert asset.extra == {"uploaded_at": 0, "mime_type": []}


def test_a_webhook_endpoint_is_read_whatever_its_optional_fields_are():
    wire = {"endpoint_id": "we_1", "url": None, "events": "batch.finished", "created_at": "", "secret": 12345}
    endpoint = read(answer(wire), WebhookEndpoint)

    assert (endpoint.id, endpoint.url, endpoint.events) == ("we_1", "", ("batch.finished",))
    assert endpoint.secret.reveal() == "12345"
    assert endpoint.extra == {"created_at": ""}
    some = read(answer({"endpoint_id": "we_1", "events": ["batch.finished", None, 5]}), WebhookEndpoint)
    assert some.events == ("batch.finished",)
    assert read(answer({"endpoint_id": "we_1", "events": None}), WebhookEndpoint).events is None
    assert read(answer({"endpoint_id": "we_1", "events": ["a"]}), WebhookEndpoint).events == ("a",)


@pytest.mark.parametrize("secret", [{"value": "whsec_1"}, ["whsec_1"]])
def test_a_secret_of_another_shape_is_still_a_secret(secret):
    endpoint = read(answer({"endpoint_id": "we_1", "secret": secret}), WebhookEndpoint)

    assert "whsec_1" in endpoint.secret.reveal()
    assert "whsec_1" not in repr(endpoint) + endpoint.to_json()
    with pytest.raises(UnexpectedResponse):
        read(answer({"secret": None}), RotatedSecret)


def test_the_history_of_events_is_read_whatever_the_events_are():
    events = [
        {"event_id": "evt_1", "event_type": "batch.finished", "event_data": None, "created_at": 1717000000000},
        {"event_id": "evt_2", "event_type": "x.fail", "event_data": {"msg": {"message": "m"}, "callback_id": 42}},
    ]
    page = read_page(answer(events), WebhookEvent)

    assert [event.created_at for event in page.items] == [MOMENT, None]
    assert (page.items[1].failure_message, page.items[1].callback_id) == ("m", "42")


ACCOUNT = {
    "username": "u",
    "billing_type": "subscription",
    "wallet": {"currency": "credits", "remaining_balance": "12.5", "auto_reload": {"enabled": True}},
    "subscription": {
        "plan": "creator",
        "credits": {
            "premium_credits": {"remaining": 120, "resets_at": 1717000000},
            "add_on_credits": {"remaining": "30.5", "resets_at": None},
            "bonus_credits": {"remaining": 1},
        },
        "seats": 2,
    },
    "usage_based": {"spending_cap_usd": 100, "spending_current_usd": "12.25", "remaining_credits": 5, "new": []},
}


def test_an_account_has_typed_figures_of_its_billing():
    account = read(answer(ACCOUNT), Account)

    assert (account.wallet.currency, account.wallet.remaining_balance) == ("credits", 12.5)
    assert account.wallet.extra == {"auto_reload": {"enabled": True}}
    assert account.subscription.plan == "creator"
    assert account.subscription.credits.premium_credits.remaining == 120.0
    assert account.subscription.credits.premium_credits.resets_at == MOMENT
    assert account.subscription.credits.add_on_credits.remaining == 30.5
    assert account.subscription.credits.extra == {"bonus_credits": {"remaining": 1}}
    assert account.subscription.extra == {"seats": 2}
    assert (account.usage_based.spending_cap_usd, account.usage_based.spending_current_usd) == (100.0, 12.25)
    assert (account.usage_based.remaining_credits, account.usage_based.included_credits) == (5.0, None)
    assert account.usage_based.extra == {"new": []}
    assert account.extra == {}


@pytest.mark.parametrize("field", ["wallet", "subscription", "usage_based"])
@pytest.mark.parametrize("value", ["none", 5, [], True])
def test_an_account_is_readable_whatever_its_billing_is(field, value):
    account = read(answer({**ACCOUNT, field: value}), Account)

    assert account.username == "u"
    assert getattr(account, field) is None
    assert account.extra == {field: value}


def test_an_account_without_a_name_or_a_currency_is_readable():
    account = read(answer({"username": None, "wallet": {"remaining_balance": 5}}), Account)

    assert (account.username, account.wallet.currency, account.wallet.remaining_balance) == ("", "", 5.0)


KEY = {
    "key_id": "key_1",
    "key_name": "ci",
    "status": "active",
    "scope_mode": "restricted",
    "scopes": ["lipsync:write", "assets:*"],
    "created_at": 1717000000,
    "updated_at": "2024-05-29T16:26:40Z",
    "expires_at": None,
    "expires_in_seconds": 3600,
}


def test_an_api_key_has_scopes_and_an_end():
    key = read(answer(KEY), ApiKey)

    assert (key.key_id, key.key_name, key.status, key.scope_mode) == ("key_1", "ci", "active", "restricted")
    assert key.scopes == ("lipsync:write", "assets:*")
    assert (key.created_at, key.updated_at, key.expires_at, key.expires_in_seconds) == (MOMENT, MOMENT, None, 3600.0)


def test_an_api_key_is_readable_whatever_its_scopes_are():
    odd = read(answer({"key_id": "key_1", "scopes": "lipsync:write", "expires_at": "", "status": 1}), ApiKey)

    assert (odd.scopes, odd.expires_at, odd.status, odd.extra) == (("lipsync:write",), None, "1", {"expires_at": ""})
    assert read(answer({"key_id": "key_1", "scopes": None}), ApiKey).scopes == ()


def test_half_of_a_surrogate_pair_does_not_hide_a_job():
    lipsync = read(
        Response(200, {}, parse_json(b'{"data": {"id": "a", "status": "x", "title": "L \\ud83d"}}')), Lipsync
    )

    assert lipsync.title == "L \ufffd"


@pytest.mark.parametrize(
    ("title", "shown"),
    [(b"cut \xe3\x81", "cut \ufffd"), (b"caf\xe9", "caf\ufffd"), (b"a\tb", "a\tb"), (b"a\0b", "a\0b")],
)
def test_a_title_that_is_not_quite_json_does_not_hide_a_page_of_jobs(title, shown):
    body = b'{"data": [{"id": "a", "status": "completed", "title": "%b"}, {"id": "b", "status": "x"}]}' % title

    first, second = read_page(Response(200, {}, parse_json(body)), Lipsync).items

    assert (first.id, first.title, second.id) == ("a", shown, "b")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-1e999", b"9" * 400])
def test_a_number_that_is_none_does_not_hide_a_job(number):
    body = b'{"data": [{"id": "a", "status": "completed", "title": "NaN", "duration": %b, "n": [%b]}]}' % (
        number,
        number,
    )
    (lipsync,) = read_page(Response(200, {}, parse_json(body)), Lipsync).items

    assert (lipsync.id, lipsync.title, lipsync.duration, lipsync.extra) == ("a", "NaN", None, {"n": [None]})


def test_a_body_with_an_odd_number_keeps_its_other_numbers():
    body = b'{"a": NaN, "b": 1, "c": -0.5, "d": 12345678901234567890123, "e": 1e2}'
    assert parse_json(body) == {"a": None, "b": 1, "c": -0.5, "d": 12345678901234567890123.0, "e": 100.0}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from([Lipsync, Batch, Asset, Account, ApiKey, WebhookEndpoint, StatusEntry]))
def test_any_json_is_a_model_or_one_of_our_errors(value, model):
    try:
        read(Response(200, {}, value), model)
    except UnexpectedResponse as error:
        assert error.problems


PLAIN = [Lipsync, Batch, BatchItem, Asset, Wallet, ApiKey, EventType, WebhookEndpoint, StatusEntry]
SPELLINGS = ["asset_id", "batch_id", "video_id", "endpoint_id", "extra", "new"]
# Values that a field may have, so that more than a few objects can be read.
likely = st.sampled_from(
    ["a", "completed", "new", "2024-05-29T16:26:40Z", 1717000000, 1.5, 3, ["x"], {"queued": 1}, None]
)


def objects_like(model):
    names = st.sampled_from([*(field.name for field in attrs.fields(model)), *SPELLINGS])
    return st.dictionaries(names, likely | json_values)


@given(st.data(), st.sampled_from(PLAIN))
def test_one_pass_reads_what_the_converter_reads_and_nothing_else(data, model):
    value = data.draw(objects_like(model) | json_values)
    one_pass = one_pass_reader(model, _SPELLINGS.get(model, {}))
    try:
        found = one_pass(value)
    except UNREADABLE:
        return  # the converter decides
    assert fields_of(found) == fields_of(_converter().structure(value, model))


def fields_of(found):
    return [(name, type(value), value) for name, value in attrs.asdict(found, recurse=False).items()]


def test_every_plain_model_is_read_in_one_pass():
    assert [model for model in PLAIN if one_pass_reader(model, {}) is None] == []
    wire = {"id": "a", "status": "queued", "created_at": 1717000000, "new": [1]}
    found = one_pass_reader(Lipsync, {})(wire)
    assert found == _converter().structure(wire, Lipsync)
    assert (found.status, found.extra) == (LipsyncStatus.PENDING, {"new": [1]})


@given(st.lists(objects_like(StatusEntry) | json_values, max_size=3))
def test_statuses_are_those_of_the_entries_that_are_readable(entries):
    expected = []
    for entry in entries:
        try:
            found = _converter().structure(entry, StatusEntry)
        except UNREADABLE:
            continue
        expected.append((found.lipsync_id, found.status))
    assert read_statuses(answer(entries)).items == expected


@given(st.lists(objects_like(Lipsync), max_size=3))
def test_a_page_is_read_as_the_converter_reads_its_items(entries):
    try:
        expected = _converter().structure(entries, list[Lipsync])
    except UNREADABLE:
        with pytest.raises(UnexpectedResponse, match=r"\$\.data"):
            read_page(answer(entries), Lipsync)
    else:
        assert read_page(answer(entries), Lipsync).items == expected


@given(st.dictionaries(st.sampled_from([*list(SEED)[3:], "title", "new"]), json_values))
def test_no_optional_field_makes_a_job_unreadable(fields):
    lipsync = read(answer({**fields, "id": "ls_1", "status": "failed"}), Lipsync)

    assert (lipsync.id, lipsync.status) == ("ls_1", "failed")
    for name, value in fields.items():  # nothing is lost
        assert value is None or name in lipsync.extra or getattr(lipsync, name) is not None


optional_text = st.none() | st.text(max_size=20)


@given(
    st.fixed_dictionaries(
        {"id": st.text(min_size=1, max_size=20), "status": st.sampled_from([*LipsyncStatus, "brand_new"]).map(str)},
        optional={
            "title": optional_text,
            "duration": st.none() | st.floats(0, 1e6),
            "video_url": optional_text,
            "caption_url": optional_text,
            "callback_id": optional_text,
            "created_at": st.none() | st.integers(0, 4_000_000_000),
            "failure_message": optional_text,
            "something_new": json_values,
        },
    )
)
def test_no_field_of_a_lipsync_is_lost(wire):
    lipsync = read(answer(wire), Lipsync)
    back = {name: getattr(lipsync, name) for name in wire if name not in ("something_new", "created_at")}
    if "created_at" in wire:
        back["created_at"] = lipsync.created_at and int(lipsync.created_at.timestamp())
    assert {**back, **lipsync.extra} == wire


def test_a_body_holds_the_given_options_only():
    request = LipsyncRequest(
        video="https://x/v.mp4", audio=AssetId("as_1"), title="T", enable_caption=False, start_time=0, end_time=2.5
    )
    assert request_body(request, video="https://x/v.mp4", audio=AssetId("as_1")) == {
        "video": {"type": "url", "url": "https://x/v.mp4"},
        "audio": {"type": "asset_id", "asset_id": "as_1"},
        "mode": "speed",
        "title": "T",
        "enable_caption": False,
        "start_time": 0,
        "end_time": 2.5,
    }
