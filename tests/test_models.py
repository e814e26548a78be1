"""The models: answers of the API, requests, and rows of a bulk run."""

import copy
import enum
import inspect
import io
import json
import os
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import get_type_hints

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heygen_async.models
from heygen_async import (
    Account,
    ApiKey,
    Asset,
    AssetId,
    Batch,
    BatchItem,
    Credits,
    DubOutcome,
    DubRow,
    EventType,
    Lipsync,
    LipsyncOptions,
    LipsyncRequest,
    LipsyncStatus,
    Secret,
    Subscription,
    SubscriptionCredits,
    Timeouts,
    UsageBased,
    Wallet,
    WebhookEndpoint,
    WebhookEvent,
)
from heygen_async._arguments import host_problem
from heygen_async.models import row_faults

URL = "https://example.com/source.mp4"


def request(**more):
    return LipsyncRequest(**{"video": URL, "audio": URL, **more})


class Float(float):
    """A float as numpy has them."""


class Whole(int):
    pass


class Word(str, enum.Enum):  # noqa: UP042 as programs had them before StrEnum
    SPEED = "speed"
    TITLE = "My title"


def test_a_secret_prints_as_stars_and_compares_by_value():
    secret = Secret("hunter2")
    assert (str(secret), repr(secret), f"{secret}", f"{[secret]}") == (
        "****",
        "Secret('****')",
        "****",
        "[Secret('****')]",
    )
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2") != Secret("other")
    assert hash(secret) == hash(Secret("hunter2"))


def test_the_repr_of_a_lipsync_shows_links_without_their_query():
    lipsync = Lipsync(id="ls_1", status="completed", video_url="https://files/v.mp4?Signature=s3cret", caption_url=None)
    assert "s3cret" not in repr(lipsync)
    assert "https://files/v.mp4?..." in repr(lipsync)


@pytest.mark.parametrize("url", ["http://[", "not a url", "https://x:99999/?a=b"])
def test_a_repr_survives_any_link_of_the_server(url):
    assert "Lipsync(" in repr(Lipsync(id="ls_1", status="completed", video_url=url))


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ("pending", False),
        ("running", False),
        ("completed", True),
        ("failed", True),
        ("not_found", True),
        ("new", False),
    ],
)
def test_only_known_last_states_are_terminal(status, ended):
    assert Lipsync(id="ls_1", status=status).is_terminal is ended


def test_a_status_compares_with_plain_words():
    assert LipsyncStatus.COMPLETED == "completed"


def test_the_options_of_a_create_are_those_of_a_request():
    fields = {field.name for field in attrs.fields(LipsyncRequest)} - {"video", "audio"}
    assert set(LipsyncOptions.__annotations__) == fields
    attrs.resolve_types(LipsyncRequest)
    types = {field.name: field.type for field in attrs.fields(LipsyncRequest)}
    assert get_type_hints(LipsyncOptions) == {name: types[name] for name in fields}


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LOCALHOST:8443",
            "files.localhost",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "0.0.0.0",
        ),
        *(
            "2130706433",
            "192.168.1.5",
            "10.0.0.1:443",
            "169.254.169.254",
            "100.64.1.1",
            "u:p@127.0.0.1",
            "a.b@10.0.0.1",
        ),
        *("[::1]", "[fd00::1]", "[fe80::1%25eth0]", "[::ffff:127.0.0.1]:443"),
    ],
)
def test_an_address_of_a_private_network_is_not_public(host):
    for rest in ("", "/v.mp4", "?a=b", "#a"):
        assert "must be on a public host" in host_problem(f"https://{host}{rest}")


@pytest.mark.parametrize(
    "url",
    [
        *(URL, "https://8.8.8.8/v", "https://[2606:4700::1111]/v", "https://localhost.example.com/v", "https://x/v"),
        *(
            "https://example.com/127.0.0.1/v",
            "https://example.com?u=https://127.0.0.1/",
            "https://cdn1.example2.com:443/",
        ),
        *("https://localhosts/v", "https://bucket-1/v", "https://mylocalhost/v", "https://[/", "https://[::1/", ""),
    ],
)
def test_every_other_host_may_be_public(url):
    assert host_problem(url) is None


@pytest.mark.parametrize(
    "source",
    [URL, "https://x/v?Signature=1", Path("v.mp4"), b"bytes", AssetId("a"), Asset(id="a"), io.BytesIO(b"x")],
)
def test_a_source_is_a_url_a_file_or_an_asset(source):
    assert request(video=source).video is source


@pytest.mark.parametrize("value", ["", "  ", "a b", " a", "a\n", "\ud83d", "a\x00", "x" * 256, "https://x/v.mp4"])
def test_an_asset_id_that_the_server_cannot_have_given_is_refused(value):
    with pytest.raises(ValueError, match="asset_id must be an id"):
        AssetId(value)
    with pytest.raises(ValueError, match=r"audio\.id must be an id"):
        request(audio=Asset(id=value))


@pytest.mark.parametrize("value", [42, None, b"as_1", AssetId("as_1")])
def test_an_asset_id_is_a_string(value):
    with pytest.raises(TypeError, match="asset_id must be a string"):
        AssetId(value)
    with pytest.raises(TypeError, match=r"video\.id must be a string"):
        DubRow(Asset(id=value), URL)


@pytest.mark.parametrize("value", ["as_1", "a/b+c==", "7" * 255, "\u6771\u4eac", "space:1~x", "\ufffd"])
def test_an_asset_id_that_a_server_may_give_is_accepted(value):
    assert request(video=AssetId(value)).video.value == value
    assert request(video=Asset(id=value)).video.id == value


NO_URL = "audio must be an https URL; for a local file give a Path"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": "http://example.com/v.mp4"}, "video must be an https URL"),
        ({"video": "v.mp4"}, "video must be an https URL; for a local file give a Path"),
        ({"video": ""}, "video must be an https URL"),
        ({"audio": "https://"}, "audio must be an https URL"),
        ({"audio": "https://[/"}, "audio must be an https URL"),
        (
            {"audio": "https://x/a b"},
            "audio must be an https URL; for a local file give a Path: 'https://x/a b' (write blanks",
        ),
        (
            {"audio": "https://x/a?b c"},
            "audio must be an https URL; for a local file give a Path: 'https://x/a?...' (write b",
        ),
        ({"audio": b""}, "audio is empty"),
        ({"mode": "fast"}, "mode must be one of speed, precision, not 'fast'"),
        ({"mode": None}, "mode must be one of"),
        ({"fps_mode": "ntsc"}, "fps_mode must be one of vfr, cfr, passthrough"),
        ({"title": ""}, "title must be one line of text"),
        ({"title": "a\nb"}, "title must be one line of text"),
        ({"start_time": -1}, "start_time must be 0 seconds or more"),
        ({"end_time": float("nan")}, "end_time must be 0 seconds or more"),
        ({"end_time": float("inf")}, "end_time must be 0 seconds or more"),
        ({"start_time": 5, "end_time": 5}, "end_time (5) must be after start_time (5)"),
        ({"end_time": 0}, "end_time (0) must be after start_time (0)"),
        ({"callback_url": "http://me/hook"}, "callback_url must be an https URL"),
    ],
    ids=repr,
)
def test_a_wrong_value_is_a_value_error_that_names_its_argument(arguments, message):
    with pytest.raises(ValueError, match=r"must|is empty") as caught:
        request(**arguments)
    assert str(caught.value).startswith(message)


def test_a_sandbox_may_call_back_on_this_machine():
    assert request(callback_url="http://127.0.0.1:8000/hook").callback_url


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": 5}, "video must be a URL, a Path, an AssetId or an Asset, not int"),
        ({"video": None}, "video must be a URL, a Path, an AssetId or an Asset, not NoneType"),
        ({"title": 5}, "title must be a string, not int"),
        ({"enable_caption": 1}, "enable_caption must be True, False or None, not 1"),
        ({"start_time": "1"}, "start_time must be a number of seconds, not '1'"),
        ({"start_time": True}, "start_time must be a number of seconds, not True"),
        ({"callback_id": b"x"}, "callback_id must be a string, not bytes"),
        ({"colour": "red"}, "LipsyncRequest.__init__() got an unexpected keyword argument 'colour'"),
    ],
    ids=repr,
)
def test_a_wrong_type_is_a_type_error_that_names_its_argument(arguments, message):
    with pytest.raises(TypeError) as caught:
        request(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"end_time": Float(2.5)}, {"end_time": 2.5}),
        ({"start_time": Whole(1), "end_time": Float(2.0)}, {"start_time": 1, "end_time": 2.0}),
        ({"mode": Word.SPEED, "title": Word.TITLE}, {"mode": "speed", "title": "My title"}),
    ],
)
def test_a_value_of_a_subclass_becomes_the_plain_value(given, plain):
    for model in (LipsyncRequest, DubRow):
        one = model(video=URL, audio=URL, **given)
        assert one == model(video=URL, audio=URL, **plain)
        for name, value in plain.items():
            assert type(getattr(one, name)) is type(value)
            assert str(getattr(one, name)) == str(value)


def test_the_id_of_an_asset_becomes_a_plain_string():
    assert type(AssetId(Word.SPEED).value) is str


def test_a_signed_url_is_not_repeated_in_a_message():
    with pytest.raises(ValueError, match=r"\?\.\.\.") as caught:
        request(video="http://x/v.mp4?Signature=s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "title",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u6771\u4eac\u3000\u591c",
        "Prix\u00a0: 5\u00a0\u20ac",
        "\u202bRTL\u202c",
        "soft\u00adhyphen",
    ],
    ids=["zwnj", "zwj-emoji", "u3000", "nbsp", "bidi", "soft-hyphen"],
)
def test_any_unicode_text_is_a_title(title):
    assert request(title=title).title == title
    assert DubRow(video=URL, audio=URL, title=title).title == title
    assert request(callback_id=title, folder_id=title).callback_id == title


def test_a_title_has_at_most_ten_thousand_characters():
    assert request(title="\u3042" * 10_000)
    for model in (LipsyncRequest, DubRow):
        with pytest.raises(ValueError, match="title must be at most 10,000 characters, not 10,001"):
            model(video=URL, audio=URL, title="x" * 10_001)


async def test_no_title_that_is_too_long_is_sent(sandbox, heygen):
    long = "x" * 10_001

    with pytest.raises(ValueError, match="title"):
        await heygen.lipsyncs.update("ls_1", title=long)
    with pytest.raises(ValueError, match="title"):
        await heygen.lipsyncs.create(video=URL, audio=URL, title=long)
    with pytest.raises(ValueError, match="title"):
        await heygen.lipsyncs.create_batch([request()], title=long)
    assert sandbox.requests == []


async def test_a_batch_is_made_of_requests(sandbox, heygen):
    for requests in (request(), [request(), {"video": URL, "audio": URL}], "ab"):
        with pytest.raises(TypeError, match=r"requests\[\d\] must be a LipsyncRequest"):
            await heygen.lipsyncs.create_batch(requests)
    assert sandbox.requests == []


SIGNED = "https://user:s3cret@files.example/v.mp4?Signature=s3cret&Expires=1"


@pytest.mark.parametrize("model", [LipsyncRequest, DubRow])
def test_the_repr_of_a_request_shows_no_secret_of_a_url(model):
    shown = repr(model(video=SIGNED, audio=SIGNED, callback_url="https://me.example/hook?token=s3cret"))

    assert "s3cret" not in shown
    assert "files.example/v.mp4?..." in shown
    assert "me.example/hook?..." in shown


@pytest.mark.parametrize(
    "field",
    [field.name for field in attrs.fields(DubRow) if field.name not in ("title", "callback_id", "folder_id", "output")],
)
@pytest.mark.parametrize("value", [SIGNED.replace("https", "http"), f"{SIGNED}\n", [SIGNED], {"url": SIGNED}])
def test_no_message_repeats_a_secret_of_a_url(field, value):
    faults = row_faults({"video": URL, "audio": URL, field: value})

    assert [name for name, _ in faults] == [field]
    assert "s3cret" not in faults[0][1]


def test_a_message_is_short_whatever_the_value():
    for name, message in row_faults({field.name: "x\n" * 100_000 for field in attrs.fields(DubRow)}):
        assert len(message) < 250, name


def test_every_fault_of_a_request_is_in_one_message():
    with pytest.raises(ValueError, match="video") as caught:
        request(video="v.mp4", mode="fast", title="", start_time=-1, callback_url="http://me/hook")

    assert [part.partition(" ")[0] for part in str(caught.value).split("; ") if " must be" in part] == [
        "video",
        "mode",
        "title",
        "start_time",
        "callback_url",
    ]


def test_faults_that_are_all_of_type_are_a_type_error():
    with pytest.raises(TypeError, match="title must be a string, not int; enable_caption must be True"):
        request(title=5, enable_caption=1)
    with pytest.raises(ValueError, match="title must be a string, not int; end_time must be 0 seconds or more"):
        request(title=5, end_time=-1)


def test_the_faults_of_a_row_are_listed_by_field():
    assert row_faults({"video": URL, "audio": URL}) == []
    assert row_faults(
        {
            "audio": "http://x/a.mp3",
            "title": 5,
            "tittle": "x",
            "start_time": 5,
            "end_time": 4,
            "key": "a b",
            "output": "",
            "captions": "yes",
        }
    ) == [
        ("video", "video is missing"),
        ("tittle", "there is no field 'tittle'"),
        ("audio", "audio must be an https URL; for a local file give a Path: 'http://x/a.mp3'"),
        ("title", "title must be a string, not int"),
        ("key", "key must be 1 to 250 of A-Z a-z 0-9 _ - : . and not 'a b'"),
        ("output", "output must be the name of a file, not ''"),
        ("captions", "captions must be True, False or None, not 'yes'"),
        ("end_time", "end_time (4) must be after start_time (5)"),
    ]


@pytest.mark.parametrize(("key", "kind"), [(17, "int"), (1.0, "float"), (b"k", "bytes")])
def test_a_key_that_is_no_text_is_called_so(key, kind):
    assert row_faults({"video": URL, "audio": URL, "key": key}) == [("key", f"key must be a string, not {kind}")]


def test_an_output_in_bytes_is_a_fault_of_its_field(tmp_path):
    (tmp_path / "x.mp4").touch()
    with os.scandir(os.fsencode(tmp_path)) as found:
        [entry] = found

    for output in (b"x.mp4", entry):
        assert row_faults({"video": URL, "audio": URL, "output": output, "title": 5}) == [
            ("title", "title must be a string, not int"),
            ("output", "output must be a path, not bytes"),
        ]
    with os.scandir(tmp_path) as found:
        assert row_faults({"video": URL, "audio": URL, "output": next(found)}) == []


any_value = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**5000),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [URL, "speed", "vfr", b"", b"x", Path("v.mp4"), Path(), AssetId("a"), io.BytesIO(), [], {}, SIGNED]
    ),
)


@given(st.dictionaries(st.sampled_from([field.name for field in attrs.fields(DubRow)]), any_value))
def test_a_row_is_refused_exactly_if_it_has_faults(fields):
    fields = {"video": URL, "audio": URL, **fields}
    faults = row_faults(fields)
    try:
        DubRow(**fields)
    except (TypeError, ValueError) as error:
        assert str(error) == "; ".join(message for _, message in faults) != ""
    else:
        assert faults == []


MOMENT = datetime(2024, 5, 29, 16, 26, 40, tzinfo=UTC)
LIPSYNC = Lipsync(
    id="ls_1",
    status=LipsyncStatus.COMPLETED,
    title="\u6771\u4eac",
    duration=42.5,
    video_url="https://files/v.mp4?Signature=abc",
    created_at=MOMENT,
    extra={"gpu": {"kind": "h200"}},
)
LIPSYNC_DICT = {
    "id": "ls_1",
    "status": "completed",
    "title": "\u6771\u4eac",
    "duration": 42.5,
    "video_url": "https://files/v.mp4?Signature=abc",
    "caption_url": None,
    "callback_id": None,
    "created_at": "2024-05-29T16:26:40+00:00",
    "failure_message": None,
    "extra": {"gpu": {"kind": "h200"}},
}
ROW = DubRow(video=URL, audio=Path("a.mp3"), key="ep-1", output=Path("out/1.mp4"))
MODELS = [
    LIPSYNC,
    Batch(id="b_1", status="running", counts_by_status={"pending": 2}, created_at=MOMENT, extra={"x": []}),
    BatchItem(item_index=0, status="failed", error="no face", extra={"x": {}}),
    Asset(id="as_1", size_bytes=5, uploaded_at=MOMENT, extra={"owner": {"id": 1}}),
    AssetId("as_1"),
    Account(
        username="u",
        wallet=Wallet(currency="credits", remaining_balance=1.5, extra={"auto_reload": {}}),
        subscription=Subscription(plan="p", credits=SubscriptionCredits(premium_credits=Credits(resets_at=MOMENT))),
        usage_based=UsageBased(spending_cap_usd=1.0, extra={"x": 1}),
        extra={"x": {}},
    ),
    ApiKey(key_id="key_1", scopes=("lipsync:write",), expires_at=MOMENT, extra={"x": {}}),
    WebhookEndpoint(id="we_1", url="https://me/hook", events=["a"], secret=Secret("whsec_1"), extra={"x": {}}),
    EventType(event_type="batch.finished", extra={"x": {}}),
    WebhookEvent(event_id="evt_1", data={"id": "ls_1"}, created_at=MOMENT, outcome=LipsyncStatus.FAILED),
    LipsyncRequest(video=URL, audio=AssetId("as_1")),
    LipsyncRequest(video=Asset(id="as_1", extra={"x": {}}), audio=b"bytes"),
    ROW,
    DubOutcome(row=ROW, key="ep-1", state="failed", lipsync=LIPSYNC, error=ValueError("no"), warnings=("captions",)),
]
models = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def test_every_model_is_tried_here():
    classes = {thing for thing in vars(heygen_async.models).values() if isinstance(thing, type) and attrs.has(thing)}
    tried = {type(model) for model in MODELS} | {Wallet, Subscription, SubscriptionCredits, Credits, UsageBased}

    assert classes == tried


@models
def test_a_model_becomes_json(model):
    as_dict = model.to_dict()

    assert json.loads(json.dumps(as_dict)) == json.loads(model.to_json()) == as_dict == dict(model)
    assert set(as_dict) == {field.name for field in attrs.fields(type(model))}


@models
def test_a_model_can_be_hashed_pickled_and_copied(model):
    same = copy.copy(model)

    assert same == model
    assert hash(same) == hash(model)
    assert {model: 1}[same] == 1
    if not isinstance(model, DubOutcome):  # two exceptions are never equal
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert twin == model
            assert hash(twin) == hash(model)


def test_a_job_is_hashed_by_its_id_and_compared_by_all():
    earlier = Lipsync(id="ls_1", status="running")

    assert hash(earlier) == hash(LIPSYNC)
    assert earlier != LIPSYNC
    assert len({earlier, LIPSYNC, copy.copy(LIPSYNC)}) == 2


def test_json_has_times_with_their_offset_and_statuses_as_words():
    assert LIPSYNC.to_dict() == LIPSYNC_DICT
    assert type(LIPSYNC.to_dict()["status"]) is str
    assert json.loads(LIPSYNC.to_json()) == LIPSYNC_DICT
    assert "\u6771\u4eac" in LIPSYNC.to_json()


def test_json_masks_secrets_and_keeps_links_whole():
    endpoint = WebhookEndpoint(id="we_1", secret=Secret("whsec_1"))

    assert endpoint.to_dict()["secret"] == "****"
    assert "whsec_1" not in endpoint.to_json()
    assert "Signature=abc" in LIPSYNC.to_json()


def test_an_outcome_becomes_json_with_its_row_and_error():
    as_dict = MODELS[-1].to_dict()

    assert (as_dict["error"], as_dict["warnings"]) == ("ValueError: no", ["captions"])
    assert as_dict["lipsync"] == LIPSYNC_DICT
    assert (as_dict["row"]["audio"], as_dict["row"]["output"]) == ("a.mp3", "out/1.mp4")


def test_what_is_not_json_is_named_and_not_dumped():
    odd = LipsyncRequest(video=io.BytesIO(b"x"), audio=b"bytes", start_time=1)
    lipsync = Lipsync(id="a", status="x", title="half \ud83d", duration=float("nan"), extra={"big": 10**30})

    assert (odd.to_dict()["video"], odd.to_dict()["audio"]) == ("<BytesIO>", "<5 bytes>")
    assert json.loads(lipsync.to_json()) == lipsync.to_dict()
    assert (lipsync.to_dict()["duration"], lipsync.to_dict()["title"]) == (None, "half \ufffd")
    lipsync.to_json().encode()


@pytest.mark.parametrize(
    "model",
    [
        Lipsync(id="a", status="half \ud83d", title="\udfff", extra={"\ud83d": ["\udfff", {"a": "\ud83d"}]}),
        attrs.evolve(
            MODELS[-1], path=Path(os.fsdecode(b"out/\xff.mp4")), error=ValueError("\ud83d"), warnings=("\udcff",)
        ),
        DubRow(Path(os.fsdecode(b"\xff.mp4")), URL, output=os.fsdecode(b"\xff.mp4")),
    ],
    ids=lambda model: type(model).__name__,
)
def test_every_text_of_a_dict_can_be_encoded(model):
    as_dict = model.to_dict()

    assert orjson.loads(orjson.dumps(as_dict)) == json.loads(model.to_json()) == as_dict == dict(model)
    assert "\ufffd" in model.to_json()


@pytest.mark.parametrize("depth", [600, 1000, 100_000])
@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "objects"])
def test_what_is_nested_too_deeply_for_json_is_left_out(wrap, depth):
    value = "the end"
    for _ in range(depth):
        value = wrap(value)
    lipsync = Lipsync(id="a", status="x", title="T", extra={"new": value, "other": 1})
    outcome = DubOutcome(row=ROW, key="k", state="completed", lipsync=lipsync)

    for as_dict in (lipsync.to_dict(), dict(lipsync), json.loads(lipsync.to_json()), outcome.to_dict()["lipsync"]):
        assert (as_dict["title"], as_dict["extra"]["other"]) == ("T", 1)
        assert "<too deeply nested>" in orjson.dumps(as_dict).decode()


def test_what_a_server_may_nest_becomes_json_as_it_is():
    value = [1]
    for _ in range(90):
        value = [value]

    assert Lipsync(id="a", status="x", extra={"new": value}).to_dict()["extra"] == {"new": value}


@pytest.mark.parametrize(
    ("scopes", "has"),
    [
        (("lipsync:write",), True),
        (("*:*",), True),
        (("*",), True),
        (("lipsync:*",), True),
        (("*:write",), True),
        (("assets:write", "lipsync:read"), False),
        (("assets:*", "*:read"), False),
        (("lipsync:writer", "xlipsync:write", "lipsync"), False),
        ((), False),
    ],
)
def test_a_key_has_a_scope_by_name_or_by_wildcard(scopes, has):
    assert ApiKey(key_id="key_1", scopes=scopes).has_scope("lipsync:write") is has


@pytest.mark.parametrize("scope", ["", "lipsync", "lipsync:", ":write"])
def test_a_scope_has_a_resource_and_an_action(scope):
    with pytest.raises(ValueError, match="scope must have the form resource:action"):
        ApiKey(key_id="key_1", scopes=("*:*",)).has_scope(scope)


@pytest.mark.parametrize(("arguments", "kind"), [({"read": 0}, ValueError), ({"connect": "1"}, TypeError)])
def test_a_timeout_that_makes_no_sense_names_its_argument(arguments, kind):
    with pytest.raises(kind, match=next(iter(arguments))):
        Timeouts(**arguments)


def test_every_argument_after_the_first_is_keyword_only():
    assert all(
        parameter.kind is inspect.Parameter.KEYWORD_ONLY
        for parameter in inspect.signature(LipsyncRequest).parameters.values()
    )
