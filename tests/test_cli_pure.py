"""What the command line decides without a server: times, requests, the schema, and how things look."""

import errno
import io
import re
import socket

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cyclopts", reason="the command line is an extra")

from rich.cells import cell_len
from rich.console import Console

from heygen_async import AssetId, LipsyncRequest
from heygen_async.cli.advice import advising_on_port
from heygen_async.cli.app import make_app
from heygen_async.cli.create_request import compose, options_of
from heygen_async.cli.create_schema import schema_of_create
from heygen_async.cli.durations import seconds
from heygen_async.cli.envelope_view import show
from heygen_async.cli.exits import Exit, exit_code
from heygen_async.cli.live import summary
from heygen_async.cli.problems import Problems
from heygen_async.models import LipsyncOptions
from heygen_async.sandbox.plain_numbers import plain_number

# Times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1h1m1s", 3661),
        ("1.5H", 5400),
        (" 2s ", 2),
    ],
)
def test_a_time_is_seconds_or_has_units(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "s", "m30", "30m1h", "1d", "-5", "+5", "5 s", "1e3", "inf", "nan", "1..5", "٣", "0", "0h0m", "9" * 400]
)
def test_an_invalid_time_is_refused(text):
    with pytest.raises(ValueError, match=r"30m|more than 0"):
        seconds(text)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_units_add_up(hours, minutes, left):
    assert seconds(f"{hours}h{minutes}m{left}s") == seconds(str(3600 * hours + 60 * minutes + left))


# Numbers


def commands(app):
    """Yield an application, and all of its commands, that have arguments."""
    for name in [name for name in app if not name.startswith("-")]:
        yield from commands(app[name])
    if app.default_command is not None:
        yield app


def takes_a_number(argument):
    return re.search(r"\b(int|float)\b", f"{argument.hint!r}") is not None and not argument.parameter.count


def test_every_flag_for_a_number_has_a_converter_that_takes_no_words():
    arguments = [each for one in commands(make_app()) for each in one.assemble_argument_collection()]
    numbers = [each for each in arguments if takes_a_number(each)]
    lenient = [each for each in numbers if each.parameter.converter is None and "_convert" not in f"{each.hint!r}"]

    assert len(numbers) > 20
    assert [each.names for each in lenient] == []


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [("5", float, 5), ("0.5", float, 0.5), (".5", float, 0.5), ("-2", float, -2), ("1e3", float, 1e3), ("12", int, 12)],
)
def test_a_number_is_in_plain_digits(text, kind, expected):
    assert plain_number(text, kind) == expected


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize(
    "text",
    ["", "none", "Null", "1_0", "٣", "0x10", "nan", "inf", "-infinity", "1e999", "+5", "1,5", "--5", "5 5", "9" * 5000],
)
def test_anything_else_is_no_number(text, kind):
    with pytest.raises(ValueError, match="not a number"):
        plain_number(text, kind)


# Requests


URL = "https://example.com/a.mp4"


def composed(data, audio=None):
    problems = Problems()
    request = compose(data, video=None, audio=audio, flags={}, problems=problems)
    problems.check()
    return request


def test_a_null_in_the_json_is_not_given():
    data = b'{"video": {"type": "url", "url": "%s"}, "mode": null, "title": null}' % URL.encode()
    request = composed(data, audio="asset:as_1")

    assert request == LipsyncRequest(video=URL, audio=AssetId("as_1"))


def test_the_options_of_a_request_are_its_fields_without_the_sources():
    request = LipsyncRequest(video=URL, audio=URL, title="T", mode="precision")

    assert set(options_of(request)) == set(LipsyncOptions.__annotations__)
    assert options_of(request)["title"] == "T"


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(), st.lists))
def test_any_json_is_a_request_or_an_error(value):
    body = {"video": {"type": "url", "url": URL}, "audio": value, "title": value}
    with pytest.raises((ValueError, TypeError), match=r"."):
        composed(orjson.dumps(body))


# The schema

KINDS = {"string": str, "number": (int, float), "boolean": bool}


def allows(schema, value):
    """Tell whether a *value* fits a *schema*, as far as the schemas here go."""
    if "oneOf" in schema:
        return sum(allows(each, value) for each in schema["oneOf"]) == 1
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema["type"] == "object":
        return (
            isinstance(value, dict)
            and set(schema["required"]) <= set(value) <= set(schema["properties"])
            and all(allows(schema["properties"][name], each) for name, each in value.items())
        )
    if not isinstance(value, KINDS[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return False
    if isinstance(value, str):
        return len(value) >= schema.get("minLength", 0) and value.startswith(schema.get("pattern", "")[1:])
    return value >= schema.get("minimum", value)


def test_the_schema_has_every_field_with_a_type_and_a_description():
    properties = schema_of_create()["properties"]

    assert list(properties) == [field.name for field in attrs.fields(LipsyncRequest)]
    assert [name for name, schema in properties.items() if not {"type", "enum", "oneOf"} & set(schema)] == []
    assert [name for name, schema in properties.items() if "description" not in schema] == []


SOURCE = {"type": "asset_id", "asset_id": "as_1"}
GUESSES = {
    "video": [{"type": "url", "url": URL}, SOURCE, {"type": "url", "url": "http://example.com"}, {"type": "url"}, URL],
    "mode": ["speed", "precision", "fast", 1],
    "fps_mode": ["vfr", "cfr", "passthrough", "pal"],
    "title": ["T", "", 1, True],
    "start_time": [0, 1.5, -1, "1", True],
    "end_time": [2, -2],
    "callback_url": [URL, "http://example.com", "x", 1],
    "enable_caption": [True, False, 1, "true"],
    "keep_the_same_format": [True, "true"],
    "vidoe": [1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GUESSES.items() for value in values])
def test_the_schema_accepts_what_a_create_accepts(name, value):
    body = {"video": SOURCE, "audio": SOURCE, name: value}
    try:
        composed(orjson.dumps(body))
    except (ValueError, TypeError):
        taken = False
    else:
        taken = True

    assert allows(schema_of_create(), body) == taken


# Layout


def shown(envelope, width=80, *, colour=False):
    file = io.StringIO()
    show(envelope, Console(file=file, width=width, force_terminal=colour, color_system="standard" if colour else None))
    return file.getvalue()


ITEM = {"id": "ls_c2094cac629f6fbed82c07cd", "status": "completed", "title": "Episode 1", "duration": 42.5}


def test_one_object_is_shown_in_lines_without_nulls():
    lines = shown({"data": {**ITEM, "callback_id": None, "wallet": {"currency": "usd"}}}).splitlines()

    assert lines == [
        "id               ls_c2094cac629f6fbed82c07cd",
        "status           completed",
        "title            Episode 1",
        "duration         42.5 s",
        "wallet.currency  usd",
    ]


def test_a_long_link_is_shown_in_one_piece():
    link = f"https://files.example/{'x' * 200}"

    assert link in shown({"data": {"video_url": link}})


def test_a_list_is_a_table_that_cuts_titles_and_never_ids():
    lines = shown({"data": [ITEM, {**ITEM, "title": "A very long title, " * 9}]}).splitlines()

    assert lines[0].split() == ["id", "status", "duration", "title"]
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(ITEM["id"]) for line in lines[1:])
    assert lines[2].rstrip().endswith("…")


@pytest.mark.parametrize("width", [10, 40, 60])
def test_an_id_is_whole_in_a_narrow_window(width):
    ids = [f"ls_{number:024x}" for number in range(3)]
    jobs = [{"id": one, "status": "completed", "duration": 4.0, "created_at": 1.0, "title": "Episode"} for one in ids]
    lines = shown({"data": jobs}, width=width).splitlines()

    assert [line.split()[0] for line in lines[1:]] == ids


def test_a_table_fits_the_window_whatever_the_width_of_characters():
    titles = ["日本語のとても長いタイトル" * 9, "한국어" * 30, "👩‍👩‍👧 family " * 9, "نیم‌فاصله" * 20]
    lines = shown({"data": [{**ITEM, "title": title} for title in titles]}).splitlines()

    assert len(lines) == 1 + len(titles)
    assert max(map(cell_len, lines)) <= 80


def test_wide_names_line_up():
    lines = shown({"data": {"題名": "a", "id": "b"}}).splitlines()

    assert lines == ["題名  a", "id    b"]


def test_an_empty_list_is_shown_as_none():
    assert shown({"data": []}) == "none\n"


def test_no_text_of_the_server_controls_the_terminal():
    text = shown({"data": [{"id": "\x1b[2J", "title": "[red]x[/red]\x07\r\n", "status": "\x1b]0;x\x07"}]}, colour=True)

    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda kids: (
        st.lists(kids, max_size=3) | st.dictionaries(st.sampled_from([*ITEM, "created_at", "x"]), kids, max_size=4)
    ),
)


@given(ANYTHING)
def test_any_answer_can_be_shown(value):
    assert shown({"data": value}).endswith("\n")
    assert shown(value).endswith("\n")


def test_a_wait_is_summarized_in_a_line():
    assert summary(["running"], 1, 62) == "running, 1:02"
    assert summary(["running", "pending", "running"], 5, 0.4) == "2 of 5 done, 1 pending, 2 running, 0:00"
    assert summary([], 1, 0) == "0:00"


# Listening


@pytest.mark.parametrize("host", ["nohost.invalid", "a b", "999.1.1.1"])
def test_a_host_without_an_address_is_misuse_and_named(host):
    with (
        pytest.raises(ValueError, match=f"--host {host} has no address: not known") as caught,
        advising_on_port(1, host),
    ):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    assert exit_code(caught.value) == Exit.USAGE


def test_a_host_of_another_machine_is_misuse_and_named():
    with (
        pytest.raises(ValueError, match=r"--host 203\.0\.113\.1 is no address of this machine") as caught,
        advising_on_port(1, "203.0.113.1"),
    ):
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    assert exit_code(caught.value) == Exit.USAGE


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EACCES])
def test_a_path_that_nothing_can_be_written_to_is_misuse(number):
    assert exit_code(OSError(number, "cannot be written", "recordings")) == Exit.USAGE


def test_other_errors_of_a_listener_are_its_own():
    with pytest.raises(PermissionError, match="low port"), advising_on_port(80, "127.0.0.1"):
        raise PermissionError("low port")
    with pytest.raises(OSError, match="give another one with --port"), advising_on_port(80, "127.0.0.1"):
        raise OSError(errno.EADDRINUSE, "in use")
