"""The nouns, and what a create takes."""

import inspect
import io
from pathlib import Path
from typing import get_type_hints

import attrs
import pytest

from heygen_async import AssetId, Lipsync, LipsyncOptions, LipsyncRequest, LipsyncStatus, Secret, Timeouts
from heygen_async.models import Asset

URL = "https://example.com/source.mp4"


def request(**more):
    return LipsyncRequest(**{"video": URL, "audio": URL, **more})


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
    "source",
    [URL, "https://x/v?Signature=1", Path("v.mp4"), b"bytes", AssetId("a"), Asset(id="a"), io.BytesIO(b"x")],
)
def test_a_source_is_a_url_a_file_or_an_asset(source):
    assert request(video=source).video is source


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": "http://example.com/v.mp4"}, "video must be an https URL"),
        ({"video": "v.mp4"}, "video must be an https URL; for a local file give a Path"),
        ({"video": ""}, "video must be an https URL"),
        ({"audio": "https://"}, "audio must be an https URL"),
        ({"audio": "https://[/"}, "audio must be an https URL"),
        ({"audio": "https://x/a b"}, "audio must be an https URL"),
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


def test_a_signed_url_is_not_repeated_in_a_message():
    with pytest.raises(ValueError, match=r"\?\.\.\.") as caught:
        request(video="http://x/v.mp4?Signature=s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "kind"), [({"read": 0}, ValueError), ({"connect": "1"}, TypeError)])
def test_a_timeout_that_makes_no_sense_names_its_argument(arguments, kind):
    with pytest.raises(kind, match=next(iter(arguments))):
        Timeouts(**arguments)


def test_every_argument_after_the_first_is_keyword_only():
    assert all(
        parameter.kind is inspect.Parameter.KEYWORD_ONLY
        for parameter in inspect.signature(LipsyncRequest).parameters.values()
    )
