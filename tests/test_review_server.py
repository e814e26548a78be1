"""The run page over HTTP: which requests it accepts and which files it serves, decisions, journals it cannot show."""

import asyncio
import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from attrs import evolve
from review_stage import (
    ORIGIN,
    failed,
    finished,
    keep_sources,
    local_row,
    running,
    visited,
    with_captions,
    write_journal,
)
from until import until

from heygen_async.bulk import read_reviews
from heygen_async.bulk.journal import Journal, existing_journal
from heygen_async.bulk.journal_file import JournalInUse
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import JournalError
from heygen_async.cli.options import Printing
from heygen_async.cli.review import _open as open_browser
from heygen_async.models import DubRow
from heygen_async.review import RunPage
from heygen_async.review.ranges import PART
from heygen_async.review.result_files import NotShown
from heygen_async.review.video_answers import opened_in_thread
from heygen_async.sandbox import SAMPLE_VIDEO

VIDEO = SAMPLE_VIDEO.read_bytes()


@pytest.fixture
async def journal(tmp_path, out):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [with_captions(finished(1, out)), finished(2, out), failed(3, "No face was found")])
    return path


# Which requests are accepted


@pytest.mark.parametrize("path", ["", "rows", "events", "result?key=row-1", "source?key=row-1", "main.js"])
async def test_another_host_is_refused_whatever_its_path(journal, path):
    async with visited(journal) as visit:
        status, _, body = await visit.get(path, Host="evil.example")
        assert status == 403
        assert b"row-1" not in body


@pytest.mark.parametrize("path", ["", "rows", "events", "result?key=row-1", "main.js"])
async def test_another_origin_is_refused_whatever_its_path(journal, path):
    async with visited(journal) as visit:
        assert (await visit.get(path, Origin="https://evil.example"))[0] == 403


async def test_a_decision_of_another_origin_is_refused_and_not_stored(journal):
    async with visited(journal) as visit:
        body = {"key": "row-1", "job": "ls_1", "decision": "approved"}
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
            async with visit.http.post(visit.url + "decision", json=body, headers=headers) as answer:
                assert answer.status == 403
        assert await visit.journal.reviews() == []


async def test_a_form_of_another_page_cannot_decide(journal):
    async with visited(journal) as visit:
        data = '{"key": "row-1", "job": "ls_1", "decision": "approved"}'
        headers = {"Origin": visit.origin, "Content-Type": "text/plain"}
        async with visit.http.post(visit.url + "decision", data=data, headers=headers) as answer:
            assert answer.status == 415
        assert await visit.journal.reviews() == []


@pytest.mark.parametrize("path", ["/", "/rows", "/index.html", "/wrong/", "/wrong/rows", "//rows", "/%2e%2e/rows"])
async def test_without_the_token_there_is_nothing(journal, path):
    async with visited(journal) as visit, visit.http.get(visit.origin + path) as answer:
        assert answer.status == 404
        assert await answer.text() == "not found"


@pytest.mark.parametrize("target", [b"OPTIONS *", b"GET http://127.0.0.1"])
async def test_without_a_path_there_is_nothing_either(journal, target):
    async with visited(journal) as visit:
        reader, writer = await asyncio.open_connection("127.0.0.1", visit.port)
        writer.write(target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        writer.close()
        await writer.wait_closed()


async def test_the_token_is_long_and_another_one_each_time(journal):
    tokens = set()
    for _ in range(2):
        async with visited(journal) as visit:
            tokens.add(visit.url.rstrip("/").rpartition("/")[2])
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


async def test_a_browser_is_started_with_an_address_that_works_once(journal):
    async with visited(journal) as visit:
        once = visit.page.address_once(visit.url)
        assert visit.page.token not in once
        assert (await visit.http.get(once, headers={"Host": "evil.example"})).status == 403
        async with visit.http.get(once) as answer:
            assert (answer.status, str(answer.url)) == (200, visit.url)
        async with visit.http.get(once) as answer:
            assert (answer.status, await answer.text()) == (404, "not found")


@pytest.mark.parametrize(("has_started", "status"), [(True, 200), (False, 404)], ids=["started", "not started"])
async def test_an_address_for_a_browser_that_does_not_start_leads_nowhere(journal, has_started, status, monkeypatch):
    addresses = []
    monkeypatch.setattr("webbrowser.open", lambda url: addresses.append(url) or has_started)
    monkeypatch.setattr("heygen_async.cli.review._has_browser", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    async with visited(journal) as visit:
        await open_browser(visit.page, visit.url, Printing())
        async with visit.http.get(*addresses) as answer:
            assert answer.status == status


async def test_every_answer_has_the_policy_and_is_not_kept(journal):
    async with visited(journal) as visit:
        for path, token in (("", True), ("rows", True), ("result?key=row-1", True), ("nothing", True), ("", False)):
            url = visit.url + path if token else visit.origin
            async with visit.http.get(url) as answer:
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_page_loads_its_own_files_only(journal):
    async with visited(journal) as visit:
        _, _, page = await visit.get("")
        assert b"<script>" not in page
        assert b" style=" not in page
        assert b"//" not in page.replace(b"<!doctype html>", b"")
        for name in ("main.js", "page.css", "icon.svg", "player.js"):
            assert (await visit.get(name))[0] == 200


def listening_at(port):
    """Return the addresses at which sockets listen on a port, as the kernel writes them."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()]
    return [line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs the tables of Linux")
async def test_the_server_listens_on_this_machine_only(journal):
    async with visited(journal) as visit:
        assert listening_at(visit.port) == [f"0100007F:{visit.port:04X}"]


# Rows


async def test_rows_say_what_they_are_and_what_to_do(journal, tmp_path):
    rows = {"row-1": local_row(1, tmp_path)}
    async with visited(journal, rows) as visit:
        found = await visit.rows()
    assert [(row["category"], row.get("file")) for row in found.values()] == [
        ("review", "ready"),
        ("review", "ready"),
        ("failed", None),
    ]
    assert found["row-1"]["title"] == "Episode 1"
    assert found["row-1"]["steps"] == [0.5, 0.1, 30.0, 1.0]
    assert found["row-1"]["has_captions"]
    assert found["row-3"]["error"] == "No face was found"
    assert "--retry-failed" in found["row-3"]["advice"]


async def test_more_rows_than_are_read_at_once_are_all_sent(tmp_path):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [Record(key=f"row-{number}", inputs="i", number=number) for number in range(1201)])
    async with visited(path) as visit:
        assert len(await visit.rows()) == 1201


async def test_rows_that_can_be_read_in_part_only_are_an_answer_that_breaks_off(tmp_path, monkeypatch):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [Record(key=f"row-{number}", inputs="i", number=number) for number in range(1201)])
    all_rows = Journal.all_rows

    async def unreadable(journal, last, most):
        if last:
            raise JournalError("disk I/O error")
        return await all_rows(journal, last, most)

    monkeypatch.setattr(Journal, "all_rows", unreadable)
    async with visited(path) as visit:
        async with visit.http.get(visit.url + "rows") as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        assert (await visit.get(""))[0] == 200


# Files


async def test_a_journal_whose_name_is_not_utf_8_is_shown(tmp_path, out):
    path = tmp_path / os.fsdecode(b"caf\xe9.sqlite")
    await write_journal(path, [finished(1, out)])
    async with visited(path) as visit:
        assert orjson.loads((await visit.get("rows"))[2])["info"]["journal"] == "caf\N{REPLACEMENT CHARACTER}.sqlite"


async def test_a_result_is_served_whole_and_in_parts(journal):
    async with visited(journal) as visit:
        status, headers, body = await visit.get("result?key=row-1")
        assert (status, body, headers["Content-Type"]) == (200, VIDEO, "video/mp4")
        status, headers, body = await visit.get("result?key=row-1", Range="bytes=100-199")
        assert (status, body) == (206, VIDEO[100:200])
        assert headers["Content-Range"] == f"bytes 100-199/{len(VIDEO)}"
        tag = headers["ETag"]
        assert (await visit.get("result?key=row-1", Range="bytes=-5", **{"If-Range": tag}))[2] == VIDEO[-5:]
        assert (await visit.get("result?key=row-1", Range="bytes=-5", **{"If-Range": '"x"'}))[2] == VIDEO
        status, headers, _ = await visit.get("result?key=row-1", Range=f"bytes={len(VIDEO)}-")
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(VIDEO)}")
        async with visit.http.head(visit.url + "result?key=row-1") as answer:
            assert (answer.status, answer.content_length) == (200, len(VIDEO))


@pytest.fixture
async def long_video(tmp_path, out):
    """A journal whose only video is longer than what is sent of it at once."""
    path = tmp_path / "run.sqlite"
    await write_journal(path, [finished(1, out, content=b"video" * PART)])
    return path


async def test_a_browser_that_wants_a_video_from_a_moment_on_gets_it_in_parts(long_video):
    async with visited(long_video) as visit:
        status, headers, body = await visit.get("result?key=row-1", Range="bytes=5-")
        assert (status, headers["Content-Range"]) == (206, f"bytes 5-{PART + 4}/{5 * PART}")
        assert body == (b"video" * PART)[:PART]
        assert len((await visit.get("result?key=row-1"))[2]) == 5 * PART


async def test_a_browser_that_leaves_in_the_middle_of_a_video_is_no_error(long_video, caplog):
    async def video(request):
        request.transport.abort()  # so the next write fails before the server learns why
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    async with existing_journal(long_video) as journal, aiohttp.ClientSession() as http:
        page = RunPage(journal=journal, name="run", rows={}, token="token")
        app = web.Application(middlewares=[page._guarded])
        app.router.add_get("/token/video", video)
        async with TestServer(app, host="127.0.0.1") as server:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await http.get(server.make_url("/token/video"))
    assert caplog.records == []


@pytest.mark.parametrize("is_there", [True, False], ids=["a file", "no file"])
async def test_a_file_that_is_opened_for_a_browser_that_has_left_is_closed(is_there, tmp_path):
    begun, goes_on, has_ended, files = threading.Event(), threading.Event(), threading.Event(), []

    def open_late():
        begun.set()
        goes_on.wait(10)
        has_ended.set()
        if not is_there:
            raise NotShown("missing")
        files.append((tmp_path / "v.mp4").open("wb"))
        return files[0]

    opening = asyncio.create_task(opened_in_thread(open_late))
    await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    goes_on.set()
    await asyncio.to_thread(has_ended.wait, 10)
    await until(lambda: not is_there or (files and files[0].closed))


@pytest.mark.parametrize(
    "key",
    ["../../etc/passwd", "..%2F..%2Fetc%2Fpasswd", "/etc/passwd", "row-1/../row-2", "row-9", "", "%ff", "%00", "row-3"],
)
@pytest.mark.parametrize("what", ["result", "source", "captions"])
async def test_only_what_the_journal_names_is_served(journal, what, key):
    async with visited(journal) as visit:
        status, headers, body = await visit.get(f"{what}?key={key}")
        assert (status, headers["Content-Type"]) == (404, "application/json")
        assert b"root" not in body


@pytest.mark.parametrize(
    "path", ["../row_view.py", "..%2Frow_view.py", "%2e%2e/row_view.py", "page/main.js", "main.js/"]
)
async def test_no_path_leads_out_of_the_page(journal, path):
    async with visited(journal) as visit:
        url = aiohttp.client.URL(visit.url + path, encoded=True)
        async with visit.http.get(url) as answer:
            assert answer.status == 404


async def _state_of(visit, key):
    status, _, _ = await visit.get(f"result?key={key}")
    return (await visit.rows())[key].get("file"), status


async def test_a_file_in_place_of_the_result_is_not_served(journal, out):
    async with visited(journal) as visit:
        (out / "row-1.mp4").unlink()
        (out / "row-1.mp4").write_bytes(VIDEO)
        assert await _state_of(visit, "row-1") == ("changed", 404)


async def test_a_result_that_was_changed_is_not_served(journal, out):
    async with visited(journal) as visit:
        with (out / "row-1.mp4").open("r+b") as file:
            file.write(b"secret")
        assert await _state_of(visit, "row-1") == ("changed", 404)


async def test_a_result_is_served_though_its_device_has_another_number_since(journal):
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute("UPDATE rows SET written = '99' || written")
    async with visited(journal) as visit:
        assert await _state_of(visit, "row-1") == ("ready", 200)


async def test_a_result_that_is_gone_is_a_state_of_its_row(journal, out):
    async with visited(journal) as visit:
        (out / "row-1.mp4").unlink()
        assert await _state_of(visit, "row-1") == ("missing", 404)
        row = (await visit.rows())["row-1"]
        assert row["category"] == "review"
        assert "downloaded again" in row["advice"]


@pytest.mark.parametrize("leads_to_it", [True, False], ids=["the result itself", "another file"])
async def test_a_symlink_in_place_of_the_result_is_not_served(journal, out, tmp_path, leads_to_it):
    target = out / "row-1.mp4"
    async with visited(journal) as visit:
        if leads_to_it:
            target.rename(tmp_path / "moved.mp4")
        else:
            target.unlink()
            (tmp_path / "moved.mp4").write_bytes(b"secret")
        target.symlink_to(tmp_path / "moved.mp4")
        assert await _state_of(visit, "row-1") == ("changed", 404)


async def test_a_pipe_in_place_of_the_result_holds_up_nothing(journal, out):
    async with visited(journal) as visit, asyncio.timeout(10):
        (out / "row-1.mp4").unlink()
        os.mkfifo(out / "row-1.mp4")
        assert await _state_of(visit, "row-1") == ("changed", 404)


async def test_a_folder_that_is_a_link_is_where_the_run_wrote(tmp_path, out):
    (tmp_path / "link").symlink_to(out)
    path = tmp_path / "run.sqlite"
    await write_journal(path, [finished(1, tmp_path / "link")])
    async with visited(path) as visit:
        assert await _state_of(visit, "row-1") == ("ready", 200)


async def test_a_result_without_a_fingerprint_is_not_served(tmp_path, out):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [evolve(finished(1, out), written=None)])
    async with visited(path) as visit:
        assert await _state_of(visit, "row-1") == ("unknown", 404)


async def test_a_row_whose_job_still_runs_shows_no_file(tmp_path, out):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [evolve(finished(1, out), state=State.SUBMITTED)])
    async with visited(path) as visit:
        assert await _state_of(visit, "row-1") == (None, 404)


async def test_a_result_with_the_name_of_a_page_is_served_as_a_video(tmp_path, out):
    target = out / "page.html"
    record = finished(1, out)
    (out / "row-1.mp4").rename(target)
    target.write_text("<script>alert(1)</script>")
    status = target.stat()
    written = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
    path = tmp_path / "run.sqlite"
    await write_journal(path, [evolve(record, target=str(target), writing_to=str(target), written=written)])
    async with visited(path) as visit:
        _, headers, _ = await visit.get("result?key=row-1")
        assert headers["Content-Type"] == "video/mp4"


async def test_captions_are_a_track_if_the_run_wrote_them(journal, out):
    async with visited(journal) as visit:
        status, headers, body = await visit.get("captions?key=row-1")
        assert (status, headers["Content-Type"]) == (200, "text/vtt; charset=utf-8")
        assert body == b"WEBVTT\n\n00:00:00.000 --> 00:00:03.000\nHello <b>there</b>\n"
        assert (await visit.get("captions?key=row-2"))[0] == 404
        (out / "row-2.srt").write_text("1\n00:00:00,000 --> 00:00:03,000\nsecret\n")
        assert (await visit.get("captions?key=row-2"))[0] == 404
        (out / "row-1.srt").write_text("1\n00:00:00,000 --> 00:00:03,000\nsecret\n")
        assert (await visit.get("captions?key=row-1"))[0] == 404


async def test_a_source_is_served_if_the_journal_knows_it_and_it_is_the_same(journal, tmp_path):
    row = local_row(1, tmp_path)
    async with visited(journal, {"row-1": row}) as visit:
        assert (await visit.get("source?key=row-1"))[0] == 404  # the journal does not know it
    await keep_sources(journal, [row])
    async with visited(journal, {"row-1": row}) as visit:
        assert (await visit.get("source?key=row-1"))[2] == VIDEO
        row.video.write_bytes(b"secret")
        assert (await visit.get("source?key=row-1"))[0] == 404


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_source_that_was_dubbed_as_soon_as_it_was_written_is_compared_by_its_content(
    journal, tmp_path, is_same
):
    row = local_row(1, tmp_path)
    await keep_sources(journal, [row])
    async with existing_journal(journal) as known:
        path = str(row.video)
        info = (await known.file_info([path]))[path]
        await known.keep_file_info({path: evolve(info, fingerprint="")})
    if not is_same:
        row.video.write_bytes(VIDEO + b"x")
    async with visited(journal, {"row-1": row}) as visit:
        assert (await visit.get("source?key=row-1"))[0] == (200 if is_same else 404)


async def test_a_source_by_url_is_in_the_policy_and_never_fetched_here(journal):
    row = DubRow("https://cdn.example/v.mp4?signature=1", "https://example.com/a.mp3", key="row-1")
    async with visited(journal, {"row-1": row}) as visit:
        _, headers, _ = await visit.get("")
        assert "media-src 'self' https://cdn.example;" in headers["Content-Security-Policy"]
        _, others, _ = await visit.get("rows")
        assert "media-src 'self';" in others["Content-Security-Policy"]  # only a page loads something
        assert (await visit.get("source?key=row-1"))[0] == 404
        assert (await visit.rows())["row-1"]["source"] == {"kind": "url", "url": row.video}


@pytest.mark.parametrize("what", ["result", "captions"])
async def test_the_video_of_another_job_is_not_shown_for_the_one_that_was_named(journal, what):
    async with visited(journal) as visit:
        assert (await visit.get(f"{what}?key=row-1&job=ls_1"))[0] == 200
        assert (await visit.get(f"{what}?key=row-1&job=ls_0"))[0] == 409


# Decisions


async def test_a_decision_is_in_the_journal_before_it_is_answered(journal):
    async with visited(journal) as visit:
        status, answer = await visit.decide("row-1", "ls_1", "rejected", "  the lips are late ")
        assert status == 200
        assert (answer["row"]["decision"], answer["row"]["note"]) == ("rejected", "the lips are late")
        [review] = await visit.journal.reviews()
        assert (review.key, review.lipsync_id, review.decision) == ("row-1", "ls_1", "rejected")
    assert (await read_reviews(journal)).rejected == [review]


async def test_a_decision_is_replaced_and_withdrawn(journal):
    async with visited(journal) as visit:
        await visit.decide("row-1", "ls_1", "rejected", "late")
        await visit.decide("row-1", "ls_1", "approved")
        assert [one.decision for one in await visit.journal.reviews()] == ["approved"]
        _, answer = await visit.decide("row-1", "ls_1", None)
        assert answer["row"]["category"] == "review"
        assert await visit.journal.reviews() == []


@pytest.mark.parametrize(
    ("key", "job", "status"), [("row-9", "ls_9", 404), ("row-1", "ls_0", 409), ("row-3", "ls_3", 409)]
)
async def test_a_decision_on_a_row_that_does_not_have_that_video_is_refused(journal, key, job, status):
    async with visited(journal) as visit:
        found, answer = await visit.decide(key, job, "approved")
        assert found == status
        assert key in answer["error"]
        assert await visit.journal.reviews() == []


async def test_a_decision_belongs_to_the_job_that_was_watched(journal, out):
    async with visited(journal) as visit:
        await visit.decide("row-1", "ls_1", "approved")
        await visit.journal.save(evolve(finished(1, out), lipsync_id="ls_again"))
        row = (await visit.rows())["row-1"]
        assert (row["category"], row.get("decision")) == ("review", None)
    assert (await read_reviews(journal)).approved == []


async def test_a_body_that_is_too_long_is_refused(journal):
    async with visited(journal) as visit:
        headers = {"Origin": visit.origin, "Content-Type": "application/json"}
        async with visit.http.post(visit.url + "decision", data=b" " * 100_000, headers=headers) as answer:
            assert answer.status == 413


async def test_open_pages_learn_of_a_decision(journal):
    async with visited(journal) as visit, visit.http.get(visit.url + "events") as events, asyncio.timeout(20):
        assert await events.content.readuntil(b"\n\n") == b"retry: 1000\n\n"
        assert orjson.loads((await events.content.readuntil(b"\n\n")).removeprefix(b"data: ")) == {"run": None}
        await visit.decide("row-1", "ls_1", "approved")
        change = orjson.loads((await events.content.readuntil(b"\n\n")).removeprefix(b"data: "))
    assert [(row["key"], row["decision"]) for row in change["rows"]] == [("row-1", "approved")]


# Journals


async def test_a_journal_is_shown_as_its_last_run_left_it(journal):
    async with running(journal) as run:
        await run.keep_fact("unclean", "1.0")
    with closing(sqlite3.connect(journal)) as database:
        before = database.execute("SELECT * FROM facts ORDER BY name").fetchall()
    async with visited(journal) as visit:
        await visit.rows()
    with closing(sqlite3.connect(journal)) as database:
        assert database.execute("SELECT * FROM facts ORDER BY name").fetchall() == before


async def _problem(path):
    with pytest.raises(JournalError) as error:
        async with existing_journal(path):
            pass
    assert "\n" not in str(error.value)
    return error.value


async def test_a_journal_that_is_in_use_says_so(journal):
    async with running(journal):
        error = await _problem(journal)
        assert isinstance(error, JournalInUse)
        assert "end it" in error.hint


async def test_a_run_is_refused_while_its_journal_is_reviewed(journal):
    async with visited(journal):
        with pytest.raises(JournalInUse):
            await Journal(journal, origin=ORIGIN).open()


async def test_a_journal_that_does_not_exist_says_which_file_is_meant(tmp_path):
    assert "beside its manifest" in str(await _problem(tmp_path / "none.sqlite"))
    assert not (tmp_path / "none.sqlite").exists()


async def test_what_is_no_journal_says_so(tmp_path):
    (tmp_path / "empty.sqlite").touch()
    assert "is empty" in str(await _problem(tmp_path / "empty.sqlite"))
    (tmp_path / "text.sqlite").write_text("hello" * 1000)
    assert "cannot be used" in str(await _problem(tmp_path / "text.sqlite"))
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as database:
        database.execute("CREATE TABLE t (x)")
    assert "not a journal of heygen-async: name another file" in str(await _problem(tmp_path / "other.sqlite"))


@pytest.mark.parametrize(("version", "words"), [(1, "run its dub command once more"), (99, "another version")])
async def test_a_journal_of_another_version_says_so(journal, version, words):
    with closing(sqlite3.connect(journal)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    assert words in str(await _problem(journal))


async def test_a_journal_that_cannot_be_written_is_an_answer_and_no_trace(journal):
    async with visited(journal) as visit:
        await visit.journal.in_turn(lambda: visit.journal._file.db.execute("DROP TABLE reviews"))
        status, answer = await visit.decide("row-1", "ls_1", "approved")
        assert status == 503
        assert "cannot be used" in answer["error"]
