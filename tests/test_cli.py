"""The commands, in-process, against a sandbox: what they print, what they send, and how they exit."""

import io
import logging
import re
import resource
import select
import shlex
import shutil
import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import orjson
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import AUDIO_URL, QUICK, SOURCES, VIDEO_URL, Ran, known_to_the_shell, on_terminal, running

from heygen_async import RetryPolicy
from heygen_async._version import __version__
from heygen_async.cli import main
from heygen_async.cli.app import COMMANDS as APP_COMMANDS
from heygen_async.cli.app import make_app
from heygen_async.cli.error_view import print_error
from heygen_async.cli.logs import logging_to_stderr
from heygen_async.cli.options import RETRY
from heygen_async.errors import ErrorDetail, InvalidRequest
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO
from heygen_async.sandbox.faults import Fault, Reply, error, nothing, reset, server_error, unknown_fields

BODY = {"video": {"type": "url", "url": VIDEO_URL}, "audio": {"type": "url", "url": AUDIO_URL}, "title": "From JSON"}
JSON = orjson.dumps(BODY).decode()
KEYS_OF_AN_ERROR = {"code", "message", "hint", "param", "doc_url", "request_id"}


@pytest.fixture
def server(monkeypatch):
    """A sandbox that the command line knows of."""
    with running(speed=100) as sandbox:
        monkeypatch.setenv("HEYGEN_API_KEY", sandbox.api_key)
        monkeypatch.setenv("HEYGEN_BASE_URL", sandbox.url)
        yield sandbox


@pytest.fixture
def cli(capsys):
    """Run a command in this process, and return what it left; requests are not repeated."""
    token = RETRY.set(RetryPolicy(max_attempts=1))

    def run(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        return Ran(int(exit_.value.code or 0), *capsys.readouterr())

    yield run
    RETRY.reset(token)


@pytest.fixture
def made(server, cli):
    """Make a lipsync, and return its id."""
    return cli("lipsync", "create", *SOURCES, "--title", "Episode 1").answer["data"]["lipsync_id"]


def sent(server, method=None):
    return [request for request in server.requests if method in (None, request.method)]


# create


def test_create_prints_the_answer_of_the_api(server, cli):
    ran = cli("lipsync", "create", *SOURCES)

    assert (ran.code, ran.err) == (0, "")
    assert ran.answer == {"data": {"lipsync_id": server.jobs[0].id}}


class _WhileConnected(io.StringIO):
    """Standard output that knows, for each line, whether a connection was still open then."""

    def __init__(self, connection):
        super().__init__()
        self._connection = connection
        self.lines = []

    def write(self, text):
        self.lines += [(line, _is_open(self._connection.result(0))) for line in text.splitlines() if line]
        return super().write(text)


def _is_open(connection):
    return select.select([connection], [], [], 0)[0] == []  # the other end sends no more: it would be its closing


def test_create_prints_its_job_before_it_closes_its_connection_which_a_signal_could_interrupt(monkeypatch, cli):
    body = b'{"data": {"lipsync_id": "ls_1"}}'
    connection = Future()

    def answer():
        accepted, _ = server.accept()
        accepted.settimeout(20)
        accepted.recv(65536)
        connection.set_result(accepted)
        accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n" + body)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        server.settimeout(20)
        answered = threads.submit(answer)
        monkeypatch.setenv("HEYGEN_API_KEY", "key")
        monkeypatch.setenv("HEYGEN_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(sys, "stdout", out := _WhileConnected(connection))
        ran = cli("lipsync", "create", *SOURCES)
        answered.result(20)

    assert (ran.code, out.lines) == (0, [('{"data":{"lipsync_id":"ls_1"}}', True)])
    with connection.result(0) as accepted:
        assert not _is_open(accepted)


@pytest.mark.parametrize("where", ["argument", "file", "stdin"])
def test_create_takes_json_from_an_argument_a_file_and_standard_input(where, server, cli, tmp_path, monkeypatch):
    (tmp_path / "body.json").write_text(JSON)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(JSON.encode())))
    data = {"argument": JSON, "file": str(tmp_path / "body.json"), "stdin": "-"}[where]

    assert cli("lipsync", "create", "-d", data).code == 0
    assert server.jobs[0].body == {**BODY, "mode": "speed"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("where", ["argument", "file", "stdin"])
def test_create_takes_json_as_editors_and_shells_save_it(where, encoding, server, cli, tmp_path, monkeypatch):  # noqa: PLR0917
    text = orjson.dumps({**BODY, "title": "日本"}).decode()
    content = f"\ufeff{text}".encode(encoding) if encoding[-1] == "e" else text.encode(encoding)
    (tmp_path / "body.json").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    data = {"argument": f"\ufeff{text}", "file": str(tmp_path / "body.json"), "stdin": "-"}[where]

    assert cli("lipsync", "create", "-d", data).code == 0
    assert server.jobs[0].body["title"] == "日本"


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe{\x00\xd8\x3d", b"\xfe\xff\x00{\x00", b"\xef\xbb\xbf\xff", b'{"title": "\xff"}', b"\xef\xbb\xbf"],
)
def test_data_that_is_no_text_is_not_json(content, server, cli, tmp_path):
    (tmp_path / "body.json").write_bytes(content)
    ran = cli("lipsync", "create", "-d", str(tmp_path / "body.json"))

    assert (ran.code, server.requests) == (2, [])
    assert ran.error["message"].startswith("-d is not JSON")


def test_an_argument_that_is_not_utf_8_is_not_json(server, cli):
    ran = cli("lipsync", "create", "-d", '{"title": "\udcff"}')

    assert (ran.code, server.requests) == (2, [])
    assert ran.error["message"].startswith("-d is not JSON")


@pytest.mark.parametrize(
    "argv",
    [
        ("lipsync", "create", "--video", "~nobody_x/v.mp4", "--audio", AUDIO_URL),
        ("lipsync", "create", "--video", VIDEO_URL, "--audio", "~nobody_x"),
        ("lipsync", "create", "-d", "~nobody_x/body.json"),
        ("lipsync", "create", "-d", "video=" * 50),
        ("lipsync", "create", "-d", "."),
        ("lipsync", "create", "--video", "v" * 300, "--audio", AUDIO_URL),
        ("asset", "upload", "v" * 300),
        ("dub", "m" * 300),
        ("review", "m" * 300),
    ],
    ids=lambda argv: " ".join(argv)[:40],
)
def test_a_path_that_cannot_be_a_file_is_misuse(argv, server, cli):
    ran = cli(*argv)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert ran.error["code"] == "usage"


def test_flags_win_over_the_json(server, cli):
    flags = ("--title", "From a flag", "--audio", "asset:as_1", "--no-enable-dynamic-duration", "--start-time", "1.5")
    ran = cli("lipsync", "create", "-d", JSON, *flags)

    # The asset is not there: it is the request that counts.
    assert ran.code == 1
    assert sent(server, "POST")[0].json == {
        "video": BODY["video"],
        "audio": {"type": "asset_id", "asset_id": "as_1"},
        "mode": "speed",
        "title": "From a flag",
        "enable_dynamic_duration": False,
        "start_time": 1.5,
    }


def test_create_uploads_files_first(server, cli):
    ran = cli("lipsync", "create", "--video", str(SAMPLE_VIDEO), "--audio", str(SAMPLE_AUDIO), "--mode", "precision")

    assert ran.code == 0
    assert [request.path for request in sent(server, "POST")] == ["/v3/assets", "/v3/assets", "/v3/lipsyncs"]
    assert server.jobs[0].body["mode"] == "precision"
    assert server.jobs[0].body["video"]["type"] == "asset_id"


def test_one_create_is_one_job_under_one_key_however_often_it_is_sent(cli, monkeypatch):
    with running(faults=[reset("POST /v3/lipsyncs", after=True, times=2)]) as server:
        monkeypatch.setenv("HEYGEN_API_KEY", server.api_key)
        token = RETRY.set(RetryPolicy(first_delay=0.001, max_delay=0.002))
        ran = cli("lipsync", "create", *SOURCES, "--base-url", server.url)
        RETRY.reset(token)
        keys = {request.headers["Idempotency-Key"] for request in sent(server, "POST")}

        assert ran.code == 0
        assert (len(server.jobs), len(sent(server, "POST")), len(keys)) == (1, 3, 1)


def test_a_create_without_an_answer_has_a_hint_to_find_out(cli, monkeypatch):
    with running(faults=[reset("POST /v3/lipsyncs", after=True, times=1)]) as server:
        monkeypatch.setenv("HEYGEN_API_KEY", server.api_key)
        lost = cli("lipsync", "create", *SOURCES, "--base-url", server.url)
        flag, key = lost.error["hint"].split()[-2:]
        found = cli("lipsync", "create", *SOURCES, "--base-url", server.url, flag, key)

        assert (lost.code, flag) == (1, "--idempotency-key")
        assert found.answer == {"data": {"lipsync_id": server.jobs[0].id}}
        assert len(server.jobs) == 1


def test_a_create_whose_upload_has_no_answer_says_that_nothing_was_created(server, cli):
    server.faults = [reset("* /v3/*", after=True)]
    ran = cli("lipsync", "create", "--video", str(SAMPLE_VIDEO), "--audio", AUDIO_URL)

    assert (ran.code, server.jobs) == (1, [])
    assert ran.error["hint"] == "no lipsync was created: run the same command again"


def test_create_with_wait_prints_the_finished_lipsync_and_nothing_else(server, cli):
    ran = cli("lipsync", "create", *SOURCES, "--wait", "--timeout", "30m", *QUICK)

    assert (ran.code, ran.err) == (0, "")
    assert ran.answer["data"]["id"] == server.jobs[0].id
    assert ran.answer["data"]["status"] == "completed"


def test_output_waits_and_writes_the_video(server, cli, tmp_path):
    ran = cli("lipsync", "create", *SOURCES, "--output", str(tmp_path / "out.mp4"), *QUICK)

    assert ran.code == 0
    assert ran.answer["data"]["status"] == "completed"
    assert (tmp_path / "out.mp4").read_bytes() == SAMPLE_VIDEO.read_bytes()


def test_an_output_that_cannot_be_written_costs_nothing(server, cli, tmp_path):
    (tmp_path / "out.mp4").write_text("precious")
    there = cli("lipsync", "create", *SOURCES, "-o", str(tmp_path / "out.mp4"))
    nowhere = cli("lipsync", "create", *SOURCES, "-o", str(tmp_path / "nowhere" / "out.mp4"))

    assert (there.code, nowhere.code, server.requests) == (2, 2, [])
    assert "--overwrite" in there.error["message"]
    assert (tmp_path / "out.mp4").read_text() == "precious"


def test_the_schema_of_a_create_needs_no_key_and_sends_nothing(cli):
    schema = cli("lipsync", "create", "--request-schema").answer

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["video", "audio"]
    assert schema["properties"]["fps_mode"]["enum"] == ["vfr", "cfr", "passthrough"]


# get, list, update, delete


def test_get_prints_the_answer_of_the_api(server, cli, made):
    answer = cli("lipsync", "get", made).answer

    assert answer["data"]["id"] == made
    assert answer["data"]["title"] == "Episode 1"


def test_unknown_fields_are_printed_too(server, cli, made):
    server.faults = [unknown_fields("GET /v3/lipsyncs/{lipsync_id}")]

    assert cli("lipsync", "get", made).answer["data"]["sandbox_news"] == {"since": 2026}


def test_list_prints_one_page_in_its_envelope(server, cli):
    ids = [cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"] for _ in range(3)]
    first = cli("lipsync", "list", "--limit", "2").answer
    rest = cli("lipsync", "list", "--limit", "2", "--token", first["next_token"]).answer

    assert [item["id"] for item in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"], rest["next_token"]) == (True, False, None)


def test_list_all_is_one_array_of_everything(server, cli):
    ids = [cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"] for _ in range(3)]
    answer = cli("lipsync", "list", "--all", "--limit", "1").answer

    assert [item["id"] for item in answer["data"]] == ids[::-1]
    assert {name: answer[name] for name in ("has_more", "next_token")} == {"has_more": False, "next_token": None}


@pytest.mark.parametrize(
    "fault",
    [
        error(403, "403", route="GET *"),
        error(401, "unauthorized", route="GET *"),
        error(404, "not_found", route="GET /v3/lipsyncs/{lipsync_id}"),
    ],
    ids=["gateway", "key refused", "unknown to reads"],
)
def test_a_create_that_cannot_be_waited_for_names_its_job(fault, server, cli):
    server.faults = [fault]
    ran = cli("lipsync", "create", *SOURCES, "--wait", "--poll-every", "0.01")

    [job] = server.jobs
    assert ran.code != 0
    assert job.id in ran.error["hint"]


def test_a_create_is_waited_for_though_reads_do_not_know_it_yet(server, cli):
    server.faults = [error(404, "not_found", route="GET /v3/lipsyncs/{lipsync_id}", times=2)]
    ran = cli("lipsync", "create", *SOURCES, "--wait", "--poll-every", "0.01")

    assert (ran.code, ran.answer["data"]["status"]) == (0, "completed")


def page_of(*ids, route="GET /v3/lipsyncs", **cursor):
    body = {"data": [{"id": one, "status": "completed"} for one in ids], **cursor}
    return Fault(route, Reply(status=200, body=orjson.dumps(body)), times=1)


@pytest.mark.parametrize("cursor", [1732600000, "1732600000", 17.5])
def test_list_all_follows_a_cursor_of_any_type(cursor, server, cli):
    server.faults = [page_of("ls_2", has_more=True, next_token=cursor), page_of("ls_1", has_more=False)]
    answer = cli("lipsync", "list", "--all").answer

    assert [item["id"] for item in answer["data"]] == ["ls_2", "ls_1"]
    assert server.requests[1].query["token"] == str(cursor)


def test_list_all_ends_where_there_is_no_more_whatever_the_cursor_says(server, cli):
    server.faults = [page_of("ls_1", has_more=False, next_token="end")]

    assert [item["id"] for item in cli("lipsync", "list", "--all").answer["data"]] == ["ls_1"]


@pytest.mark.parametrize("cursor", [True, ["a"], {"a": 1}])
def test_list_all_fails_if_the_cursor_cannot_be_read(cursor, server, cli):
    server.faults = [page_of("ls_1", has_more=True, next_token=cursor)]
    ran = cli("lipsync", "list", "--all")

    assert (ran.code, ran.out) == (1, "")
    assert "next_token" in ran.error["message"]


@pytest.mark.parametrize("cursor", [{"next_token": None}, {}, {"next_token": ""}])
def test_list_all_fails_if_there_is_more_and_no_cursor(cursor, server, cli):
    server.faults = [page_of("ls_1", has_more=True, **cursor)]
    ran = cli("lipsync", "list", "--all")

    assert (ran.code, ran.out) == (1, "")
    assert "there are more pages, but no cursor" in ran.error["message"]


@pytest.mark.parametrize(
    ("argv", "route", "cursor", "is_said"),
    [
        (("lipsync", "list"), "GET /v3/lipsyncs", {"has_more": True, "next_token": 42}, True),
        (("webhook", "events"), "GET /v3/webhooks/events", {"has_more": False, "next_token": 42}, False),
        (("lipsync", "list"), "GET /v3/lipsyncs", {"has_more": True, "next_token": ["42"]}, False),
    ],
)
def test_a_person_is_told_how_to_get_the_next_page(argv, route, cursor, is_said, server):
    server.faults = [page_of("ls_1", route=route, **cursor)]
    ran = on_terminal(*argv, sandbox=server)

    assert ran.code == 0
    assert ("--token 42" in ran.out) == is_said


def test_a_cursor_that_starts_like_a_flag_can_be_pasted(server):
    server.faults = [page_of("ls_1", route="GET /v3/lipsyncs", has_more=True, next_token="-x y")]

    assert "the next page: '--token=-x y'; " in on_terminal("lipsync", "list", sandbox=server).out


def test_a_list_requests_pages_of_ten_and_list_all_of_a_hundred(server, cli):
    cli("lipsync", "list")
    cli("lipsync", "list", "--all")

    assert [request.query["limit"] for request in server.requests] == ["10", "100"]


def test_update_prints_the_lipsync_with_its_new_title(server, cli, made):
    assert cli("lipsync", "update", made, "--title", "Episode 2").answer["data"]["title"] == "Episode 2"


@pytest.mark.parametrize("title", ["", " ", "\x1b[31mred", "a\nb", "\udcff", "x" * 10_001])
def test_update_sends_no_title_that_the_library_refuses(title, server, cli, made):
    ran = cli("lipsync", "update", made, "--title", title)

    assert (ran.code, ran.out, sent(server, "PATCH")) == (2, "", [])
    assert [one["place"] for one in ran.error["problems"]] == ["--title"]


@pytest.mark.parametrize("token", ["\udcff", "a\x1bb", "a\nb"])
def test_a_cursor_that_is_no_text_is_misuse_of_its_flag(token, server, cli):
    for command in (("lipsync", "list"), ("lipsync", "list", "--all"), ("webhook", "events")):
        ran = cli(*command, "--token", token)

        assert (ran.code, ran.out, server.requests) == (2, "", [])
        assert [one["place"] for one in ran.error["problems"]] == ["--token"]


def test_delete_with_force_needs_no_confirmation(server, cli, made):
    ran = cli("lipsync", "delete", made, "--force")

    assert (ran.code, ran.answer) == (0, {"data": {"id": made}})
    assert server.jobs[0].deleted


def test_delete_needs_force_without_a_terminal(server, cli, made):
    ran = cli("lipsync", "delete", made)

    assert (ran.code, sent(server, "DELETE")) == (2, [])
    assert "--force" in ran.error["message"]


class Keyboard(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_delete_is_confirmed_on_a_terminal(answer, code, server, cli, made, monkeypatch):  # noqa: PLR0917 fixtures
    monkeypatch.setattr(sys, "stdin", Keyboard(answer))
    ran = cli("lipsync", "delete", made)

    assert ran.code == code
    assert ran.err.startswith(f"Delete {made} permanently? [y/N]")
    assert server.jobs[0].deleted == (code == 0)


def nested(opening, closing, levels):
    """Return the answer of the API with a lipsync of which one field has so many levels."""
    return b'{"data":{"id":"ls_1","status":"completed","x":' + opening * levels + b"1" + closing * levels + b"}}"


@pytest.mark.parametrize("levels", [300, 1015])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_an_answer_that_is_nested_deeply_is_printed_as_far_as_models_are(opening, closing, levels, server, cli):
    body = nested(opening, closing, levels)
    server.faults = [Fault("GET /v3/lipsyncs/{lipsync_id}", Reply(status=200, body=body))]
    ran = cli("lipsync", "get", "ls_1")
    shown = on_terminal("lipsync", "get", "ls_1", sandbox=server)

    assert (ran.code, shown.code) == (0, 0)
    assert ran.answer["data"]["status"] == "completed"
    assert "too deeply nested" in ran.out
    assert "too deeply nested" in shown.out
    assert "Traceback" not in shown.out


@pytest.mark.parametrize("levels", [1, 90])
def test_an_answer_that_is_nested_less_deeply_is_printed_as_it_is(levels, server, cli):
    body = nested(b'[{"a":', b"}]", levels // 2)
    server.faults = [Fault("GET /v3/lipsyncs/{lipsync_id}", Reply(status=200, body=body))]

    assert cli("lipsync", "get", "ls_1").answer == orjson.loads(body)


def test_a_list_that_is_nested_deeply_is_printed_too(server, cli):
    body = b'{"data":[{"id":"ls_1","x":' + b"[" * 900 + b"]" * 900 + b"}]}"
    server.faults = [Fault("GET /v3/lipsyncs", Reply(status=200, body=body))]

    assert [cli("lipsync", "list", *flags).code for flags in ((), ("--all",))] == [0, 0]


# wait and download


def test_wait_prints_each_lipsync_on_its_own_line(server, cli):
    ids = {cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"] for _ in range(3)}
    ran = cli("lipsync", "wait", *ids, *QUICK)

    assert (ran.code, ran.err) == (0, "")
    assert {answer["data"]["id"] for answer in ran.answers} == ids
    assert {answer["data"]["status"] for answer in ran.answers} == {"completed"}


@pytest.mark.parametrize("command", ["wait", "upload"])
def test_several_results_are_lines_of_json_on_a_terminal_too(command, server, cli):
    ids = [cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"] for _ in range(2)]
    argv = {
        "wait": ("lipsync", "wait", *ids, *QUICK),
        "upload": ("asset", "upload", SAMPLE_VIDEO, SAMPLE_AUDIO),
    }[command]
    ran = on_terminal(*argv, "--json", sandbox=server)

    assert ran.code == 0
    assert len([answer["data"] for answer in ran.answers]) == 2


@pytest.fixture
def patient(cli, monkeypatch):
    """A sandbox in which nothing ends by itself."""
    with running(manual=True) as server:
        monkeypatch.setenv("HEYGEN_API_KEY", server.api_key)
        monkeypatch.setenv("HEYGEN_BASE_URL", server.url)
        yield server


def test_a_wait_that_times_out_prints_the_status_and_exits_4(patient, cli):
    ran = cli("lipsync", "create", *SOURCES, "--wait", "--timeout", "0.05s", *QUICK)

    assert ran.code == 4
    assert ran.answer["data"]["id"] == patient.jobs[0].id
    assert ran.answer["data"]["status"] == "pending"
    assert ran.error["code"] == "wait_timeout"
    assert f"heygen-async lipsync wait {patient.jobs[0].id}" in ran.error["hint"]


def test_each_of_several_that_time_out_is_printed(patient, cli):
    ids = {cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"] for _ in range(2)}
    ran = cli("lipsync", "wait", *ids, "--timeout", "0.05", *QUICK)

    assert ran.code == 4
    assert {answer["data"]["id"] for answer in ran.answers} == ids


def test_the_last_known_status_is_printed_if_the_api_does_not_answer(patient, cli):
    lipsync_id = cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"]
    one = "GET /v3/lipsyncs/{lipsync_id}"
    patient.faults = [nothing(one, times=1), server_error(one)]
    ran = cli("lipsync", "wait", lipsync_id, "--timeout", "0.1", *QUICK)

    assert ran.code == 4
    assert ran.answer == {"data": {"id": lipsync_id, "status": "pending"}}


def test_a_failed_lipsync_is_printed_with_its_error(patient, cli):
    bad = cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"]
    patient.fail(bad, "no face was found")
    ran = cli("lipsync", "wait", bad, *QUICK)

    assert ran.code == 1
    assert ran.answer["data"]["failure_message"] == "no face was found"
    assert ran.error["code"] == "lipsync_failed"
    assert "no face was found" in ran.error["message"]


def test_a_failed_lipsync_is_not_downloaded(server, cli, tmp_path):
    body = {**BODY, "video": {"type": "url", "url": "https://sandbox.invalid/a.mp4?fail=no+face"}}
    ran = cli("lipsync", "create", "-d", orjson.dumps(body).decode(), "-o", str(tmp_path / "out.mp4"), *QUICK)

    assert ran.code == 1
    assert list(tmp_path.iterdir()) == []


def test_download_writes_a_file_and_prints_its_path(server, cli, made, tmp_path):
    cli("lipsync", "wait", made, *QUICK)
    target = tmp_path / "episode.mp4"
    ran = cli("lipsync", "download", made, "-o", str(target))

    assert ran.answer == {"data": {"id": made, "path": str(target)}}
    assert target.read_bytes() == SAMPLE_VIDEO.read_bytes()


def test_a_download_without_a_name_is_named_after_the_title(server, cli, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli("lipsync", "wait", made, *QUICK)
    ran = cli("lipsync", "download", made)

    assert [path.name for path in tmp_path.iterdir()] == [ran.answer["data"]["path"]]
    assert ran.answer["data"]["path"].startswith("Episode 1")


def test_a_download_overwrites_only_on_request(server, cli, made, tmp_path):
    cli("lipsync", "wait", made, *QUICK)
    target = tmp_path / "out.mp4"
    target.write_text("precious")
    refused = cli("lipsync", "download", made, "-o", str(target))
    precious = target.read_text()
    done = cli("lipsync", "download", made, "-o", str(target), "--overwrite")

    assert (refused.code, precious, done.code) == (2, "precious", 0)
    assert "--overwrite" in refused.error["message"]
    assert refused.error["hint"] is None
    assert target.read_bytes() == SAMPLE_VIDEO.read_bytes()


@pytest.mark.parametrize("output", ["there.mp4", "none/out.mp4", "there.mp4/out.mp4", "out.mp4.part", "foreign.mp4"])
def test_a_download_that_cannot_be_written_is_misuse_as_it_is_for_a_create(output, server, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.mp4").write_text("mine")
    (tmp_path / "foreign.mp4.part").write_text("mine")
    downloaded = cli("lipsync", "download", "ls_1", "-o", output)
    created = cli("lipsync", "create", *SOURCES, "-o", output)

    assert (downloaded.code, created.code, server.requests) == (2, 2, [])
    assert downloaded.error["message"].startswith("--output: ")
    assert (downloaded.error["message"], downloaded.error["hint"]) == (created.error["message"], None)


def test_a_download_before_the_end_of_its_lipsync_says_how_to_wait(cli, tmp_path, monkeypatch):
    with known_to_the_shell(monkeypatch, manual=True) as server:
        job = cli("lipsync", "create", *SOURCES).answer["data"]["lipsync_id"]
        address = ("--base-url", server.url)
        ran = cli("lipsync", "download", job, "-o", str(tmp_path / "out.mp4"), *address)

    assert ran.code == 1
    assert "has no video yet" in ran.error["message"]
    assert f"to wait for it: heygen-async lipsync wait {job} --base-url {server.url}" in ran.error["hint"]
    assert "to resume" not in ran.error["hint"]


def test_a_download_whose_name_is_taken_in_its_folder_does_not_say_how_to_resume(server, cli, made, tmp_path):
    cli("lipsync", "wait", made, *QUICK)
    name = cli("lipsync", "download", made, "-o", str(tmp_path)).answer["data"]["path"]
    ran = cli("lipsync", "download", made, "-o", str(tmp_path))

    assert (ran.code, ran.error["hint"]) == (1, None)
    assert f"{name} exists already; give --overwrite" in ran.error["message"]


@pytest.mark.parametrize("name", ["out.mp4", "two  spaces.mp4"])
def test_a_download_that_fails_on_the_way_says_how_to_resume(name, server, cli, made, tmp_path):
    cli("lipsync", "wait", made, *QUICK)
    target = tmp_path / name

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(SAMPLE_VIDEO.read_bytes()) // 2, limits[1]))  # as a full disk does
    try:
        ran = cli("lipsync", "download", made, "-o", str(target), "--base-url", server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    command = ["heygen-async", "lipsync", "download", made, "-o", str(target), "--base-url", server.url]
    assert (ran.code, ran.error["hint"]) == (1, f"to resume it: {shlex.join(command)}")


def test_the_scheme_of_a_url_may_be_in_capitals(server, cli):
    assert cli("lipsync", "create", "--video", VIDEO_URL.replace("https", "HTTPS"), *SOURCES[2:]).code == 0
    assert server.jobs[0].body["video"] == {"type": "url", "url": VIDEO_URL.replace("https", "HTTPS")}


# asset, account


def test_uploads_are_printed_in_order_one_per_line(server, cli):
    ran = cli("asset", "upload", str(SAMPLE_VIDEO), str(SAMPLE_AUDIO))
    video, audio = (answer["data"] for answer in ran.answers)

    assert (video["mime_type"], audio["mime_type"]) == ("video/mp4", "audio/mpeg")
    assert video["size_bytes"] == SAMPLE_VIDEO.stat().st_size
    assert cli("lipsync", "create", "--video", f"asset:{video['asset_id']}", "--audio", AUDIO_URL).code == 0


def test_nothing_is_uploaded_if_one_of_the_files_is_missing(server, cli):
    ran = cli("asset", "upload", str(SAMPLE_VIDEO), "missing.mp3")

    assert (ran.code, server.requests) == (2, [])
    assert "missing.mp3" in ran.error["message"]


def test_account_prints_the_balance(server, cli):
    assert cli("account").answer["data"]["wallet"]["remaining_balance"] == 100.0


# Bad input

COMMANDS = {
    "create": ("lipsync", "create", *SOURCES),
    "create and wait": ("lipsync", "create", *SOURCES, "--wait"),
    "get": ("lipsync", "get", "ls_none"),
    "list": ("lipsync", "list"),
    "list all": ("lipsync", "list", "--all"),
    "update": ("lipsync", "update", "ls_none", "--title", "T"),
    "delete": ("lipsync", "delete", "ls_none", "--force"),
    "wait": ("lipsync", "wait", "ls_none"),
    "download": ("lipsync", "download", "ls_none", "-o", "nothing.mp4"),
    "upload": ("asset", "upload", str(SAMPLE_AUDIO)),
    "account": ("account",),
}
each_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
each_with_an_id = pytest.mark.parametrize(
    "command", [pytest.param(command, id=name) for name, command in COMMANDS.items() if "ls_none" in command]
)


@each_command
def test_without_a_key_nothing_is_sent(command, server, cli, monkeypatch):
    monkeypatch.delenv("HEYGEN_API_KEY")
    ran = cli(*command)

    assert (ran.code, ran.out, server.requests) == (3, "", [])
    assert "HEYGEN_API_KEY" in ran.error["message"]
    assert set(ran.error) == KEYS_OF_AN_ERROR


@each_command
def test_a_wrong_key_exits_3_and_is_not_shown(command, server, cli, monkeypatch):
    monkeypatch.setenv("HEYGEN_API_KEY", "wrong-key")
    ran = cli(*command)

    assert (ran.code, ran.out, server.jobs) == (3, "", [])
    assert "HEYGEN_API_KEY" in ran.error["hint"]
    assert "wrong-key" not in ran.err


@each_command
def test_without_a_network_it_exits_1_with_one_line(command, cli, monkeypatch, unused_tcp_port):
    monkeypatch.setenv("HEYGEN_API_KEY", "key")
    monkeypatch.setenv("HEYGEN_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}")
    ran = cli(*command)

    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert ran.error["code"] == "transport_error"
    assert ran.error["hint"]


@each_with_an_id
def test_an_unknown_id_exits_1_with_its_error(command, server, cli):
    ran = cli(*command)

    assert (ran.code, ran.out) == (1, "")
    assert ran.error["code"] in ("not_found", "resource_not_found")
    assert ran.error["request_id"]


@pytest.mark.parametrize("ids", [["ls_none"], ["ls_none", "ls_nor"]], ids=len)
def test_a_wait_for_a_job_that_does_not_exist_does_not_say_that_it_runs(ids, server, cli):
    hints = [orjson.loads(line)["error"]["hint"] for line in cli("lipsync", "wait", *ids, *QUICK).err.splitlines()]

    assert hints == ["Check the id, and that the API key belongs to the account that created it."] * len(ids)


@pytest.mark.parametrize("asset_id", ["as 1", " ", "\udcff", "https://example.com/v.mp4"])
@pytest.mark.parametrize("flag", ["--video", "-d"])
def test_an_invalid_id_of_an_asset_is_not_sent(flag, asset_id, server, cli):
    body = orjson.dumps({"video": {"type": "asset_id", "asset_id": asset_id.replace("\udcff", "")}}).decode()
    ran = cli("lipsync", "create", flag, f"asset:{asset_id}" if flag == "--video" else body, "--audio", AUDIO_URL)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert ran.error["problems"][0]["place"] == ("--video" if flag == "--video" else "video in -d")
    assert "must be an id" in ran.error["message"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8443", "10.1.2.3", "[::1]"])
def test_a_source_on_no_public_host_is_not_sent(host, server, cli):
    url = f"https://{host}/a.mp3?sig=5ec5e7"
    by_flag = cli("lipsync", "create", "--video", VIDEO_URL, "--audio", url)
    by_data = cli("lipsync", "create", "-d", orjson.dumps({**BODY, "video": {"type": "url", "url": url}}).decode())

    assert (by_flag.code, by_data.code, server.requests) == (2, 2, [])
    assert [one["place"] for one in by_flag.error["problems"]] == ["--audio"]
    assert [one["place"] for one in by_data.error["problems"]] == ["video in -d"]
    assert "5ec5e7" not in by_flag.err + by_data.err


@each_with_an_id
def test_an_invalid_id_is_not_sent(command, server, cli):
    ran = cli(*("a/b" if word == "ls_none" else word for word in command))

    assert (ran.code, ran.out, server.requests) == (2, "", [])


@each_command
def test_an_unknown_flag_is_not_sent(command, server, cli):
    ran = cli(*command, "--frobnicate")

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert "--frobnicate" in ran.error["message"]
    assert ran.error["hint"].endswith("--help")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-d", "{"), "line 1, column 2"),
        (("-d", "[]"), "object"),
        (("-d", "missing.json"), "missing.json"),
        (("-d", '{"vidoe": 1}'), "did you mean 'video'?"),
        (("-d", '{"video": "https://example.com/a.mp4"}'), '{"type": "url"'),
        (("-d", '{"video": {"type": "url", "url": "http://example.com/a.mp4"}}', *SOURCES[2:]), "https"),
        (("-d", JSON.replace("{", '{"title": "Another", ', 1)), "-d has the field 'title' twice"),
        (("-d", JSON.replace('"type"', '"url": "https://example.com/b.mp4", "type"', 1)), "the field 'url' twice"),
        (("-d", JSON, "--mode", "fast"), "precision"),
        (("-d", JSON.replace("From JSON", "")), "title"),
        (("-d", JSON.replace('"From JSON"', "7")), "title must be a string"),
        (("-d", JSON.replace("{", '{"enable_caption": "yes", ', 1)), "enable_caption must be true or false, not 'yes'"),
        ((), "--video"),
        (("--video", VIDEO_URL), "--audio"),
        (("--video", "missing.mp4", "--audio", AUDIO_URL), "missing.mp4"),
        (("--video", "http://example.com/a.mp4", "--audio", AUDIO_URL), "https"),
        ((*SOURCES, "--timeout", "30m"), "--wait"),
        ((*SOURCES, "--wait", "--timeout", "soon"), "1h30m"),
        ((*SOURCES, "--start-time", "5", "--end-time", "4"), "end_time"),
        ((*SOURCES, "--start-time", "-1"), "--start-time: must be 0 seconds or more"),
        ((*SOURCES, "--callback-url", "http://example.com"), "--callback-url: must be an https URL"),
        ((*SOURCES, "--idempotency-key", "a b"), "--idempotency-key: must be 1 to 255"),
        ((*SOURCES, "--base-url", "http://example.com"), "https"),
    ],
    ids=str,
)
def test_a_bad_create_names_the_problem_and_sends_nothing(arguments, said, server, cli):
    ran = cli("lipsync", "create", *arguments)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert said in ran.error["message"]
    assert ran.error["code"] == "usage"
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    "argv",
    [
        ("lipsync", "list", "--limit", "0"),
        ("lipsync", "list", "--limit", "101"),
        ("lipsync", "wait"),
        ("lipsync", "get"),
        ("lipsync", "get", "ls_1", "ls_2"),
        ("lipsync", "update", "ls_1"),
        ("lipsync", "wait", "ls_1", "--timeout", "0"),
        ("asset", "upload"),
        ("sandbox", "--speed", "0"),
        ("completion", "tcsh"),
        ("lipsync", "frobnicate"),
        ("frobnicate",),
    ],
    ids=" ".join,
)
def test_misuse_exits_2_and_sends_nothing(argv, server, cli):
    ran = cli(*argv)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert ran.error["code"] == "usage"


def test_an_error_of_the_api_is_printed_completely(server, cli):
    sent_error = {
        "code": "new_code",
        "message": "No.",
        "param": "video.url",
        "doc_url": "https://docs.example/new_code",
    }
    server.faults = [Fault("POST /v3/lipsyncs", Reply(status=400, body=orjson.dumps({"error": sent_error})))]
    ran = cli("lipsync", "create", *SOURCES)

    assert ran.code == 1
    assert set(ran.error) == KEYS_OF_AN_ERROR
    assert {name: ran.error[name] for name in ("code", "param", "doc_url")} == {
        name: sent_error[name] for name in ("code", "param", "doc_url")
    }
    assert "No." in ran.error["message"]
    assert ran.error["request_id"]


# The frame


def test_version_is_the_packages(cli):
    assert cli("--version").out.strip() == __version__


def test_an_answer_that_is_not_a_list_is_an_error(server, cli):
    server.faults = [Fault("GET /v3/lipsyncs", Reply(status=200, body=b'{"data": {}}'))]

    assert cli("lipsync", "list", "--all").code == 1


# Help

# The sandbox runs until it is interrupted, and is tested as a process; the demo has a test of its own.
COMMAND_NAMES = ("lipsync", "asset", "account", "completion")


def commands():
    """Yield the words of every command that this file tests, and its function."""
    for name in COMMAND_NAMES:
        command = make_app()[name]
        children = [child for child in command if not child.startswith("-")]
        for child in children:
            yield pytest.param((name, child), command[child].default_command, id=f"{name} {child}")
        if not children:
            yield pytest.param((name,), command.default_command, id=name)


@pytest.mark.parametrize(("words", "function"), list(commands()))
def test_the_example_of_a_command_runs(words, function, server, cli, made, tmp_path, monkeypatch):  # noqa: PLR0917 fixtures
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE_VIDEO, "source.mp4")
    shutil.copy(SAMPLE_AUDIO, "new-audio.mp3")
    [example] = re.findall(r"^ *Example: heygen-async (.+)$", function.__doc__, re.MULTILINE)
    argv = shlex.split(example.replace("ls_abc123", made))
    if "download" in argv:
        cli("lipsync", "wait", made, *QUICK)
    ran = cli(*argv, *(QUICK if "wait" in example else ()))

    assert (ran.code, ran.err) == (0, "")
    assert tuple(argv[: len(words)]) == words


@pytest.mark.parametrize(("words", "function"), list(commands()))
def test_help_has_the_example_and_a_text_for_every_flag(words, function, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ran = cli(*words, "--help")
    lines = [line.strip("│ ") for line in ran.out.splitlines() if line.startswith("│ ")]

    assert ran.code == 0
    assert "Example: heygen-async" in ran.out
    assert [line for line in lines if re.fullmatch(r"(-\S+ ?)+([A-Z]\S*)?( +\[.*\])?", line)] == []


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",)], ids=str)
def test_the_commands_are_listed_with_their_help(argv, cli):
    listed = cli(*argv).out

    for name in APP_COMMANDS:
        command = make_app()[name]
        own_help = command.help or command.default_command.__doc__
        assert re.search(rf"{name} +{re.escape(own_help[:20])}", listed)


def test_each_run_lays_out_help_for_its_own_window(cli, monkeypatch):
    widths = []
    for columns in (60, 200, 90):
        monkeypatch.setenv("COLUMNS", str(columns))
        widths.append(max(map(len, cli("lipsync", "create", "--help").out.splitlines())))

    assert widths == [60, 200, 90]


# All faults at once


def test_a_create_reports_every_fault_at_once(server, cli, tmp_path):
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html>")
    (tmp_path / "out.mp4").write_text("precious")
    ran = cli(
        *("lipsync", "create", "--video", str(SAMPLE_AUDIO), "--audio", str(tmp_path / "page.mp4")),
        *("--title", "T" * 10_001, "--start-time", "5", "--end-time", "4", "--idempotency-key", "a b"),
        *("-o", str(tmp_path / "out.mp4"), "--captions"),
    )
    places = [problem["place"] for problem in ran.error["problems"]]

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert places == ["--video", "--audio", "--title", "--end-time", "--idempotency-key", "--output"]
    assert all(problem["message"] in ran.error["message"] for problem in ran.error["problems"])
    assert (tmp_path / "out.mp4").read_text() == "precious"


def test_problems_are_lines_for_people(server, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Keyboard())
    with pytest.raises(SystemExit):
        main(["lipsync", "create", "--video", str(SAMPLE_AUDIO), "--audio", "missing.mp3"])

    assert capsys.readouterr().err.splitlines() == [
        f"heygen-async: --video: {SAMPLE_AUDIO.name} is MP3 audio; HeyGen takes MP4 or WebM video",
        "heygen-async: --audio: no such file: missing.mp3",
        "heygen-async: 2 errors; nothing was sent",
    ]


@pytest.mark.parametrize("role", ["video", "audio"])
def test_a_folder_or_an_empty_file_is_no_source(role, server, cli, tmp_path):
    (tmp_path / "empty.mp4").touch()
    other = {"video": ("--audio", AUDIO_URL), "audio": ("--video", VIDEO_URL)}[role]
    for path in (tmp_path, tmp_path / "empty.mp4"):
        ran = cli("lipsync", "create", f"--{role}", str(path), *other)

        assert (ran.code, server.requests) == (2, [])
        assert str(path.name) in ran.error["message"]


@pytest.mark.parametrize("output", ["none/", "none/out.mp4", "out.mp4/x.mp4", "x" * 300, "a\0b"])
def test_an_output_that_cannot_be_written_is_found_before_anything_is_sent(output, server, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.mp4").write_text("precious")
    ran = cli("lipsync", "create", *SOURCES, "-o", output)

    assert (ran.code, server.requests) == (2, [])
    assert {problem["place"] for problem in ran.error["problems"]} == {"--output"}


@pytest.mark.parametrize("output", ["folder", "folder/", "."])
def test_an_output_that_is_a_folder_gets_a_file_named_after_the_title(output, server, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    ran = cli("lipsync", "create", *SOURCES, "--title", "Episode 1", "-o", output, *QUICK)

    assert ran.code == 0
    assert [path.name for path in (tmp_path / output).glob("*.mp4")] == [f"Episode 1 ({server.jobs[0].id}).mp4"]


def test_a_download_into_a_folder_that_does_not_exist_is_misuse(server, cli, made, tmp_path):
    assert cli("lipsync", "download", made, "-o", f"{tmp_path}/none/").code == 2


def test_an_output_in_the_home_folder_is_found_there(server, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cli("lipsync", "create", *SOURCES, "-o", "~/out.mp4", *QUICK).code == 0
    assert (tmp_path / "out.mp4").exists()


def test_an_upload_reports_every_wrong_file(server, cli, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    ran = cli("asset", "upload", str(SAMPLE_AUDIO), str(tmp_path / "notes.txt"), "missing.mp3")

    assert (ran.code, len(ran.error["problems"]), server.requests) == (2, 2, [])


@pytest.mark.parametrize(
    "argv",
    [
        ("lipsync", "create", "-d", JSON.replace(VIDEO_URL, "source.mp4")),
        ("lipsync", "create", "--video", "none.mp4", "--audio", AUDIO_URL),
        ("lipsync", "create", *SOURCES, "-o", "README.md"),
    ],
)
def test_messages_are_in_the_words_of_a_shell(argv, server, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    message = cli(*argv).error["message"]

    assert not re.search(r"\bPath\b|=True|=None|\w+=\.\.\.", message)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("lipsync", "get", "a/b"), "ID is not an id: 'a/b'; an id is one word, such as ls_abc123"),
        (("lipsync", "wait", "ls_1", "a b"), "ID is not an id: 'a b'; an id is one word, such as ls_abc123"),
        (("webhook", "endpoints", "rotate", "a/b"), "ID is not an id: 'a/b'; an id is one word, such as we_1"),
        (("lipsync", "wait"), "ID is missing"),
        (("asset", "upload"), "FILE is missing"),
        (("lipsync", "create", "--video", "asset:", "--audio", AUDIO_URL), "--video: asset: needs an id"),
        (("lipsync", "create", "--video", VIDEO_URL, "--audio", "asset:"), "--audio: asset: needs an id"),
        (("dub", "a.csv", "--rates", "0.1"), "--rates are by mode: write --rates.speed 0.033"),
        (("dub", "a.csv", "--rates=speed"), "--rates are by mode: write --rates.speed 0.033"),
        (("dub", "a.csv", "--rates.speed", "cheap"), "--rates.speed must be a number, not 'cheap'"),
        (("dub", "a.csv", "--budget", "abc"), "--budget must be a number, not 'abc'"),
        (("dub", "a.csv", "--max-in-flight", "1.5x"), "--max-in-flight must be a whole number, not '1.5x'"),
        (("dub", "a.csv", "--budget", "none"), "--budget must be a number, not 'none'"),
        (("dub", "a.csv", "--budget=NULL"), "--budget must be a number, not 'NULL'"),
        (("dub", "a.csv", "--budget", "1_0"), "--budget must be a number, not '1_0'"),
        (("dub", "a.csv", "--budget", "inf"), "--budget must be a number, not 'inf'"),
        (("dub", "a.csv", "--rates.speed", "null"), "--rates.speed must be a number, not 'null'"),
        (("dub", "a.csv", "--max-in-flight", "none"), "--max-in-flight must be a whole number, not 'none'"),
        (("dub", "a.csv", "--max-in-flight", "٣"), "--max-in-flight must be a whole number, not '٣'"),
        (("cluster", "enqueue", "a.csv", "--budget", "none"), "--budget must be a number, not 'none'"),
        (("lipsync", "create", "--end-time", "null"), "--end-time must be a number, not 'null'"),
        (("dub", "a.csv", "--approved", "--mode", "none"), "--mode"),
        (("lipsync", "create", "--fps-mode", "null"), "--fps-mode"),
        (("lipsync", "create", "--wait=5"), "--wait must be true or false, not '5'"),
        (
            ("lipsync", "create", "--enable-watermark=perhaps"),
            "--enable-watermark must be true or false, not 'perhaps'",
        ),
        (("dub", "a.csv", "--dry-run="), "--dry-run must be true or false, not ''"),
        (("lipsync", "list", "--limit", "none"), "--limit must be a whole number, not 'none'"),
        (("lipsync", "create", "--start-time", "soon"), "--start-time must be a number, not 'soon'"),
        (("dub", "-"), "for standard input give /dev/stdin and --journal"),
        (("dub", "-", "--journal", "a.sqlite"), "for standard input give /dev/stdin and --journal"),
        (("dub", "--dry-run", "-"), "for standard input give /dev/stdin and --journal"),
        (("webhook", "endpoints", "create", "http://example.com"), "URL: must be an https URL"),
        (("account", "--base-url", "http://a.b"), "the base URL (--base-url, HEYGEN_BASE_URL) must be an https URL"),
        (("lipsync", "create", *SOURCES, "--base-url", ""), "the base URL (--base-url, HEYGEN_BASE_URL) must be"),
        (("lipsync", "create", *SOURCES, "--base-url="), "the base URL (--base-url, HEYGEN_BASE_URL) must be"),
        (("lipsync", "create", "--video", "", *SOURCES[2:]), "--video: must not be empty"),
        (("lipsync", "create", *SOURCES, "-o", ""), "--output: must not be empty"),
        (("lipsync", "create", *SOURCES, "--title", "- 1"), "one that starts with - is written --title=VALUE"),
        (("lipsync", "download", "ls_1", "-o=-"), "--output: must be a file or a folder, not standard output"),
        (("lipsync", "create", *SOURCES, "--output=-"), "--output: must be a file or a folder, not standard output"),
        (("lipsync", "download", "ls_1", "-o", "-"), "-o needs a value; one that starts with - is written --output="),
        (("lipsync", "update", "ls_1", "--title"), "--title needs a value"),
        (("lipsync", "get"), "ID is missing"),
        (("lipsync", "update", "ls_1"), "--title is missing"),
        (("lipsync", "update", "ls_1", "New title"), "--title is missing; unexpected: New title"),
        (("lipsync", "update", "ls_1", "--titel", "T"), "Did you mean --title instead of --titel?"),
        (("dub", "--sandbox"), "MANIFEST is missing"),
        (("dub", ""), "MANIFEST: must not be empty"),
        (("review", ""), "JOURNAL: must not be empty"),
        (("asset", "upload", "a.mp4", ""), "FILE: must not be empty"),
        (("sandbox", "--job-seconds", "-1"), "--job-seconds: must be a number"),
        (("sandbox", "--account-limit=-1", "--api-key=", "--host="), "--host: must not be empty.; --api-key: "),
        (("cluster", "prune", "--older-than", "7d"), "--older-than: write it as 90, 90s, 30m or 1h30m, not '7d'"),
        (("cluster", "prune", "--older-than", "0"), "--older-than: it must be more than 0"),
        (("webhook", "endpoints", "create", "https://example.com/", "--events"), "--events: needs a value"),
        (("webhook", "endpoints", "update", "we_1", "--events"), "--events: needs a value"),
        (("-v", "lipsync", "list"), "unexpected: -v; flags come after the command"),
        (("lipsync", "--json", "list"), "unexpected: --json; flags come after the command"),
    ],
    ids=str,
)
def test_a_message_names_the_argument_as_the_help_does(argv, message, server, cli):
    ran = cli(*argv)

    assert (ran.code, server.requests) == (2, [])
    assert message in ran.error["message"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("two  words.mp4", "two  words.mp4"), ("caf\udce9.mp4", "caf\\udce9.mp4"), ("a\tb\x1b[2J", "a\\u0009b\\u001b[2J")],
)
def test_a_message_spells_the_name_of_a_file_as_it_is(name, shown, server, cli, tmp_path, monkeypatch):  # noqa: PLR0917 fixtures
    monkeypatch.chdir(tmp_path)
    for words in (("asset", "upload"), ("lipsync", "create", *SOURCES[2:], "--video"), ("dub",)):
        assert cli(*words, name).error["message"].endswith(f": {shown}")
    (tmp_path / name).touch()
    taken = cli("lipsync", "create", *SOURCES, "--output", name).error["message"]

    assert taken == f"--output: {shown} exists already; give --overwrite to replace it"
    assert server.requests == []


@pytest.mark.parametrize(
    ("words", "usage"), [(("lipsync", "wait"), "[OPTIONS] ID..."), (("asset", "upload"), "[OPTIONS] FILE...")]
)
def test_the_help_names_an_argument_that_may_be_given_several_times(words, usage, cli):
    lines = cli(*words, "--help").out.splitlines()

    assert lines[0] == f"Usage: heygen-async {' '.join(words)} {usage}"
    assert any("[required]" in line for line in lines)


# Captions


def test_captions_are_written_only_on_request(server, cli, tmp_path):
    assert cli("lipsync", "create", *SOURCES, "-o", str(tmp_path / "a.mp4"), *QUICK).code == 0
    assert cli("lipsync", "create", *SOURCES, "-o", str(tmp_path / "b.mp4"), "--captions", *QUICK).code == 0
    assert cli("lipsync", "create", *SOURCES, "-o", str(tmp_path / "c.mp4"), "--enable-caption", *QUICK).code == 0
    job = server.jobs[0].id
    assert cli("lipsync", "download", job, "-o", str(tmp_path / "d.mp4"), "--captions").code == 0

    assert sorted(path.name for path in tmp_path.glob("*.srt")) == ["b.srt", "c.srt", "d.srt"]


def test_other_captions_are_never_overwritten(server, cli, tmp_path):
    (tmp_path / "out.srt").write_text("mine")
    ran = cli("lipsync", "create", *SOURCES, "-o", str(tmp_path / "out.mp4"), "--captions")

    assert (ran.code, server.requests) == (2, [])
    assert "out.srt" in ran.error["message"]


@pytest.mark.parametrize("flag", ["--captions", "--overwrite"])
def test_flags_for_a_file_need_an_output(flag, server, cli):
    ran = cli("lipsync", "create", *SOURCES, "--wait", flag)

    assert (ran.code, server.requests) == (2, [])
    assert flag in ran.error["message"]


# The log


@pytest.mark.parametrize("flag", ["-v", "-vv", "--verbose"])
def test_the_log_is_lines_on_standard_error(flag, server, cli):
    ran = cli("lipsync", "create", *SOURCES, flag)
    [job] = server.jobs

    assert ran.answer == {"data": {"lipsync_id": job.id}}
    assert [line for line in ran.err.splitlines() if job.id in line and " INFO heygen_async" in line]
    assert all(re.match(r"\d\d:\d\d:\d\d (INFO|DEBUG) heygen_async", line) for line in ran.err.splitlines())


def test_the_log_of_requests_names_path_and_request(server, cli, made):
    [line] = [line for line in cli("lipsync", "get", made, "-vv").err.splitlines() if "GET" in line]

    assert "/v3/lipsyncs" in line
    assert "req_" in line


def test_the_log_has_no_secret_and_no_control_character(capsys, monkeypatch):
    monkeypatch.setenv("HEYGEN_API_KEY", "sk-very-secret")
    logger = logging.getLogger("heygen_async")
    with logging_to_stderr(2):
        logger.debug("the key is %s, the link https://a.b/c?X-Sig=42 and \x1b[2J\u202e\nx", "sk-very-secret")
        logger.error("it failed", exc_info=ValueError("sk-very-secret\nsecond line"))
    first, second = capsys.readouterr().err.splitlines()

    assert first.endswith("DEBUG heygen_async: the key is ****, the link https://a.b/c?... and [2J x")
    assert second.endswith("ERROR heygen_async: it failed (ValueError: **** second line)")


def test_without_a_flag_nothing_is_logged(server, cli):
    assert cli("account").err == ""


# The network


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_loopback_is_never_proxied(name, server, cli, monkeypatch):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert cli("account").code == 0


def test_another_host_is_reached_through_the_proxy_of_the_environment(cli, monkeypatch):
    ran, received = through_a_proxy(cli, monkeypatch)

    assert ran.code == 1
    assert received.startswith(b"CONNECT api.heygen.invalid:443")


def through_a_proxy(cli, monkeypatch):
    """Run a command for another host; return what it left, and the request that the proxy got and refused."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("HEYGEN_API_KEY", "key")
        received = []
        answering = threading.Thread(target=_refuse_one, args=(proxy, received))
        answering.start()
        ran = cli("account", "--base-url", "https://api.heygen.invalid")
        answering.join(10)
    return ran, received[0]


def _refuse_one(proxy, received):
    proxy.settimeout(10)
    connection, _ = proxy.accept()
    with connection:
        received.append(connection.recv(1000))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def test_a_netrc_file_has_the_passwords_of_proxies(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password pass")
    monkeypatch.setenv("NETRC", "")
    monkeypatch.delenv("NETRC")
    ran, received = through_a_proxy(cli, monkeypatch)

    assert ran.code == 1
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in received


def test_no_password_of_a_netrc_file_is_sent_to_the_api(server, cli, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login user password pass")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    assert cli("account").code == 0
    assert {request.headers.get("Authorization") for request in server.requests} == {None}


# Errors of the API


def test_each_of_several_errors_is_a_line(capsys):
    faults = [ErrorDetail("No \x1b[2Jtitle.", "invalid_parameter", "title"), ErrorDetail("No.")]
    error = InvalidRequest("2 errors", status=400, code="invalid_parameter", errors=faults)
    print_error(error, as_json=False)
    lines = capsys.readouterr().err.splitlines()
    print_error(error, as_json=True)
    listed = orjson.loads(capsys.readouterr().err)["error"]["errors"]

    assert lines == [
        "heygen-async: 400 invalid_parameter: 2 errors",
        "heygen-async: title: No [2Jtitle.",
        "heygen-async: No.",
    ]
    assert listed[0] == {"code": "invalid_parameter", "message": "No \x1b[2Jtitle.", "path": "title"}


def test_a_refused_permission_has_a_hint(server, cli):
    refusal = {"code": "forbidden", "message": "The key lacks the scope lipsync:write."}
    server.faults = [Fault("POST /v3/lipsyncs", Reply(status=403, body=orjson.dumps({"error": refusal})))]
    ran = cli("lipsync", "create", *SOURCES)

    assert ran.code == 1
    assert "scope" in ran.error["hint"]
