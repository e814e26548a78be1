"""`heygen-async webhook`: the commands in-process against a sandbox, and listening as a process of its own."""

import asyncio
import os
import pty
import re
import signal
import socket
import sys
import time
import urllib.request
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import Ran, known_to_the_shell, on_ipv6, start

from heygen_async import RetryPolicy
from heygen_async.cli import main
from heygen_async.cli.options import RETRY
from heygen_async.sandbox.faults import reset
from heygen_async.webhooks import sign

URL = "https://app.example/hook"
SECRET = "whsec_1"


@pytest.fixture
def server(monkeypatch):
    """A sandbox that the command line knows of."""
    with known_to_the_shell(monkeypatch, speed=100) as sandbox:
        yield sandbox


@pytest.fixture
def cli(capsys):
    def run(*argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["webhook", *argv])
        return Ran(int(exit_.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def made(server, cli):
    """Make an endpoint, and return its id."""
    return cli("endpoints", "create", URL).answer["data"]["endpoint_id"]


def test_create_prints_the_secret(server, cli):
    answered = cli("endpoints", "create", URL, "--events", "batch.finished", "ai_clipping.fail").answer["data"]

    assert answered["secret"]
    assert (answered["url"], answered["events"]) == (URL, ["batch.finished", "ai_clipping.fail"])


def test_one_key_makes_one_endpoint(server, cli):
    one, same = (cli("endpoints", "create", URL, "--idempotency-key", "hook-1").answer for _ in range(2))

    assert one == same


def test_list_prints_the_answer_of_the_api(server, cli, made):
    answer = cli("endpoints", "list", "--limit", "5").answer

    assert [endpoint["endpoint_id"] for endpoint in answer["data"]] == [made]
    assert answer["has_more"] is False


def test_update_prints_the_endpoint_as_it_is_now(server, cli, made):
    answered = cli("endpoints", "update", made, "--url", f"{URL}/2", "--events", "batch.finished").answer["data"]

    assert (answered["endpoint_id"], answered["url"], answered["events"]) == (made, f"{URL}/2", ["batch.finished"])


def test_an_update_of_nothing_is_misuse(server, cli, made):
    ran = cli("endpoints", "update", made)

    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert "nothing to update" in ran.error["message"]


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        (("endpoints", "create", "https://app.example/\udcff"), "URL"),
        (("endpoints", "create", "http://app.example/hook"), "URL"),
        (("endpoints", "create", URL, "--events", "batch.finished", "\udcff"), "--events"),
        (("endpoints", "create", URL, "--entity-id", "\udcff"), "--entity-id"),
        (("endpoints", "create", URL, "--idempotency-key", "a b"), "--idempotency-key"),
        (("endpoints", "update", "we_1", "--url", "https://app.example/\udcff"), "--url"),
        (("endpoints", "update", "we_1", "--events", ""), "--events"),
        (("endpoints", "rotate", "we_1", "--idempotency-key", "\udcff"), "--idempotency-key"),
        (("endpoints", "list", "--token", "\udcff"), "--token"),
        (("events", "--event-type", "\udcff"), "--event-type"),
        (("events", "--entity-id", "\udcff"), "--entity-id"),
        (("listen", "--unsigned", "--host", "\udcff"), "--host"),
        (("listen", "--unsigned", "--host", ""), "--host"),
    ],
)
def test_misuse_names_its_flag_and_sends_nothing(argv, place, server, cli):
    ran = cli(*argv)

    assert (ran.code, ran.out, server.requests) == (2, "", [])
    assert [one["place"] for one in ran.error["problems"]] == [place]


def test_rotate_prints_another_secret(server, cli, made):
    assert cli("endpoints", "rotate", made).answer["data"]["secret"]


@pytest.mark.parametrize("command", ["create", "rotate"])
def test_a_secret_whose_answer_was_lost_can_be_had_with_the_key_of_the_hint(command, server, cli, made):
    words = ("endpoints", command, made if command == "rotate" else f"{URL}/2")
    server.faults = [reset("POST /v3/webhooks/*", after=True, times=1)]
    token = RETRY.set(RetryPolicy(max_attempts=1))
    lost = cli(*words)
    RETRY.reset(token)
    flag, key = lost.error["hint"].split()[-2:]

    assert (lost.code, lost.out, flag) == (1, "", "--idempotency-key")
    assert cli(*words, flag, key).answer["data"]["secret"]
    assert len(cli("endpoints", "list").answer["data"]) == {"create": 2, "rotate": 1}[command]


def test_delete_needs_force_without_a_terminal(server, cli, made):
    refused = cli("endpoints", "delete", made)

    assert refused.code == 2
    assert "--force" in refused.error["message"]
    assert cli("endpoints", "delete", made, "--force").answer == {"data": {"endpoint_id": made}}
    assert cli("endpoints", "list").answer["data"] == []
    assert cli("endpoints", "delete", made, "--force").error["code"] == "webhook_not_found"


def test_event_types_and_events_are_answers_of_the_api(server, cli):
    kinds = cli("event-types").answer["data"]
    answer = cli("events", "--event-type", kinds[0]["event_type"], "--limit", "3").answer

    assert "batch.finished" in [kind["event_type"] for kind in kinds]
    assert answer["data"] == []


@pytest.mark.parametrize("secret", [None, "", " , "])
def test_listening_needs_a_secret_or_unsigned(cli, monkeypatch, secret):
    monkeypatch.delenv("HEYGEN_WEBHOOK_SECRET", raising=False)
    if secret is not None:
        monkeypatch.setenv("HEYGEN_WEBHOOK_SECRET", secret)

    ran = cli("listen")
    assert ran.code == 2
    assert "--unsigned" in ran.error["hint"]


@asynccontextmanager
async def listening(*switches, secret=""):
    """Listen in a process of its own; give out its address and what it prints."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = "from heygen_async.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "webhook", "listen", "--port", str(port), *switches),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HEYGEN_WEBHOOK_SECRET": secret},
    )
    try:
        yield f"http://127.0.0.1:{port}/any/path", process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 10)


async def deliver(url, body, headers):
    """Deliver once somebody listens, and return the status."""
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.post(url, data=body, headers=headers) as answer:
                    return answer.status
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def test_listen_prints_each_verified_event_once():
    event = {"event_id": "evt_1", "event_type": "lipsync.success", "event_data": {"lipsync_id": "ls_1"}, "entity": "e"}
    body = orjson.dumps(event)
    headers = sign(body, secret=SECRET, event_id="evt_1", timestamp=time.time())

    async with asyncio.timeout(30), listening(secret=f"whsec_old, {SECRET}") as (url, printed):
        assert await deliver(url, b"{}", headers) == 401
        assert await deliver(url, body, headers) == 200
        assert await deliver(url, body, headers) == 200
        assert orjson.loads(await printed.readline()) == {"data": event}
    assert await printed.read() == b""


async def test_listen_accepts_unsigned_events_on_request():
    body = b'{"event_id": "evt_1", "event_type": "lipsync.fail", "event_data": {}, "created_at": 1780000000}'

    async with asyncio.timeout(30), listening("--unsigned") as (url, printed):
        assert await deliver(url, body, {}) == 200
        assert orjson.loads(await printed.readline())["data"]["created_at"] == "2026-05-28T20:26:40+00:00"


@pytest.mark.parametrize(
    ("flags", "origin"),
    [
        (("--port", "0"), r"http://127\.0\.0\.1:[1-9]\d*"),
        pytest.param(("--port", "0", "--host", "::1"), r"http://\[::1\]:[1-9]\d*", marks=on_ipv6),
        (("--port", "0", "--host", "0.0.0.0"), r"http://127\.0\.0\.1:[1-9]\d*"),
        (("--port", "0", "--host", "localhost"), r"http://(127\.0\.0\.1|\[::1\]):[1-9]\d*"),
    ],
    ids=str,
)
def test_listen_prints_an_address_that_can_be_used(flags, origin):
    ours, theirs = pty.openpty()
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False}
    with start("webhook", "listen", "--unsigned", *flags, **terminal) as process:
        os.close(theirs)
        line = read_line(ours)
        url = line.removeprefix("listening on ")
        body = b'{"event_id": "evt_1", "event_type": "lipsync.fail", "event_data": {}}'
        with urllib.request.urlopen(url, data=body, timeout=10) as answer:
            status = answer.status
        process.send_signal(signal.SIGINT)
        process.wait(10)
    os.close(ours)

    assert re.fullmatch(origin, url)
    assert status == 200


def read_line(terminal):
    """Return the first line that a terminal gets."""
    got = b""
    while b"\n" not in got:
        read = os.read(terminal, 65536)
        assert read, got
        got += read
    return got.decode().partition("\r\n")[0]
