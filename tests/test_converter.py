"""JSON to models and no coercion on the way."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async import Account, Asset, AssetId, Batch, Lipsync, LipsyncRequest, LipsyncStatus, UnexpectedResponse
from heygen_async._converter import StatusEntry, read, read_batch_items, read_page, read_status, request_body
from heygen_async._wire import Response

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


def test_the_seeds_own_answer_is_a_lipsync():
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
    ],
)
def test_both_vocabularies_read_as_one(word, status):
    assert read_status(word) is status


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
        ({**SEED, "duration": "42"}, "@ $.data.duration"),
        ({**SEED, "duration": True}, "@ $.data.duration"),
        ({**SEED, "created_at": 1e30}, "@ $.data.created_at"),
        ({**SEED, "created_at": "0001-01-01T00:00:00+23:59"}, "@ $.data.created_at"),
        ({**SEED, "created_at": "yesterday"}, "@ $.data.created_at"),
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
    (told,) = caught.value.problems
    assert problem in told
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


def test_every_problem_of_a_page_is_told():
    with pytest.raises(UnexpectedResponse) as caught:
        read_page(answer([SEED, {"id": 4, "status": "x"}, {"id": "a"}]), Lipsync)
    assert caught.value.problems == [
        "invalid value for type, expected str @ $.data[1].id",
        "required field missing @ $.data[2].status",
    ]


@pytest.mark.parametrize(
    ("beside", "token"),
    [
        ({"has_more": True, "next_token": "t"}, "t"),
        ({"has_more": False, "next_token": None}, None),
        ({"has_more": False, "next_token": "t"}, None),
        ({"next_token": "t"}, "t"),
        ({"has_more": True, "next_token": None}, None),
        ({"has_more": True, "next_token": ""}, None),
        ({}, None),
    ],
)
def test_a_cursor_counts_where_the_server_does_not_say_that_there_is_no_more(beside, token):
    page = read_page(answer([SEED], **beside), Lipsync)
    assert (page.next_token, page.has_more) == (token, token is not None)


def test_a_cursor_of_another_type_is_unexpected():
    with pytest.raises(UnexpectedResponse, match=r"\$\.next_token"):
        read_page(answer([], next_token=5), Lipsync)


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
    page = read_batch_items(answer(data))

    assert (batch.id, batch.status, batch.total_items) == ("b_1", LipsyncStatus.RUNNING, 2)
    assert batch.counts_by_status == {"pending": 2, "odd": 1}
    assert [item.lipsync_id for item in page.items] == ["ls_1", None, None]
    assert [item.error for item in page.items] == [None, "download_failed: 404", "no face"]
    assert page.next_token == "t"


@pytest.mark.parametrize("spelling", ["id", "asset_id"])
def test_an_asset_has_an_id_whichever_way_the_api_spells_it(spelling):
    asset = read(answer({spelling: "as_1", "size_bytes": 5, "new": True}), Asset)
    assert (asset.id, asset.size_bytes, asset.extra) == ("as_1", 5, {"new": True})


def test_an_account_tells_what_is_left():
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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from([Lipsync, Batch, Asset, Account, StatusEntry]))
def test_any_json_is_a_model_or_one_of_our_errors(value, model):
    try:
        read(Response(200, {}, value), model)
    except UnexpectedResponse as error:
        assert error.problems


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
def test_nothing_that_the_server_says_of_a_lipsync_is_lost(wire):
    lipsync = read(answer(wire), Lipsync)
    back = {name: getattr(lipsync, name) for name in wire if name not in ("something_new", "created_at")}
    if "created_at" in wire:
        back["created_at"] = lipsync.created_at and int(lipsync.created_at.timestamp())
    assert {**back, **lipsync.extra} == wire


def test_a_body_holds_what_was_said_and_nothing_else():
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
