"""The pytest plugin, as a project that uses it would: each test runs pytest on a test of its own."""

import os
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
NAME, MODULE = "heygen_sandbox", "heygen_async.sandbox.pytest_plugin"
AUTO = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function"


@pytest.fixture
def tests(pytester, monkeypatch):
    """Run pytest on a test file, in a process of its own, with this plugin, those named, and no others."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(source, *options, plugins=("pytest_asyncio.plugin",), settings=AUTO):
        pytester.makepyfile(source)
        pytester.makeini(f"[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n{settings}\n")
        loaded = [word for plugin in (*plugins, MODULE) for word in ("-p", plugin)]
        return pytester.runpytest_subprocess(*loaded, *options, timeout=50)

    return run


def test_it_is_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {NAME: MODULE}


def test_a_run_that_does_not_use_it_imports_nothing_of_it(tests):
    ran = tests(
        """
        import sys

        def test_what_is_imported(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("heygen_async.sandbox.pytest_plugin")
            assert not {"aiohttp", "anyio", "attrs", "cattrs", "orjson"} & set(sys.modules)
        """,
        plugins=(),
        settings="",
    )

    ran.assert_outcomes(passed=1)


BASICS = """
    import os
    from pathlib import Path

    import pytest

    from heygen_async import HeyGenSession
    from heygen_async.sandbox import SAMPLE_VIDEO

    {mark}
    async def test_a_video_is_dubbed(heygen_sandbox, heygen_session, tmp_path):
        lipsync = await heygen_session.dub(
            video=SAMPLE_VIDEO, audio="https://example.com/fr.mp3", output=tmp_path / "out.mp4", timeout=20
        )
        assert lipsync.status == "completed"
        assert (tmp_path / "out.mp4").read_bytes() == SAMPLE_VIDEO.read_bytes()
        assert len(heygen_sandbox.jobs) == 1

    {mark}
    async def test_the_next_test_has_a_sandbox_of_its_own(heygen_sandbox):
        assert heygen_sandbox.jobs == heygen_sandbox.requests == []

    {mark}
    async def test_a_session_that_the_program_makes_talks_to_the_sandbox(heygen_sandbox):
        async with HeyGenSession() as heygen:
            await heygen.lipsyncs.create(video="https://example.com/a.mp4", audio="https://example.com/a.mp3")
        assert len(heygen_sandbox.jobs) == 1

    def test_outside_of_it_the_environment_names_no_sandbox():
        assert "HEYGEN_API_KEY" not in os.environ
        assert os.environ["HEYGEN_BASE_URL"] == "http://127.0.0.1:1"
"""


@pytest.mark.parametrize(("mode", "mark"), [("auto", ""), ("strict", "@pytest.mark.asyncio")])
def test_the_fixtures_work_in_both_modes_of_pytest_asyncio(mode, mark, tests):
    settings = f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function"
    tests(BASICS.format(mark=mark), settings=settings).assert_outcomes(passed=4)


def test_without_pytest_asyncio_anyio_runs_the_fixtures(tests, pytester):
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n")
    pytester.makepyfile(pytest_asyncio="raise ImportError('it is not installed')")
    ran = tests(BASICS.format(mark="@pytest.mark.anyio"), plugins=("anyio",), settings="pythonpath = .")

    ran.assert_outcomes(passed=4)


def test_the_marker_sets_the_options_and_the_nearest_wins(tests):
    ran = tests(
        """
        import pytest

        pytestmark = pytest.mark.heygen_sandbox(job_seconds=1200, balance=7)

        class TestInAClass:
            @pytest.mark.heygen_sandbox(manual=True, balance=5)
            async def test_a_job_of_twenty_minutes_takes_no_time(self, heygen_sandbox, heygen_session):
                account = await heygen_session.account.me()
                assert account.wallet.remaining_balance == 5
                job = await heygen_session.lipsyncs.create(
                    video="https://example.com/a.mp4", audio="https://example.com/a.mp3"
                )
                await heygen_sandbox.advance(1199)
                assert (await job.get()).status == "running"
                await heygen_sandbox.advance(1)
                assert (await job.wait(timeout=10)).status == "completed"

        async def test_of_the_module(heygen_session):
            assert (await heygen_session.account.me()).wallet.remaining_balance == 7
        """
    )

    ran.assert_outcomes(passed=2)


WAITS = """
    import asyncio
    import pytest
    from heygen_async import DubRow, HeyGenSession, PollPolicy, WaitTimeout

    SELDOM = PollPolicy(fastest=3600, slowest=3600)
    SOURCES = {"video": "https://example.com/a.mp4", "audio": "https://example.com/a.mp3"}

    pytestmark = pytest.mark.heygen_sandbox(manual=True, job_seconds=1200)

    async def looked_at(sandbox):
        while not any("statuses" in request.path for request in sandbox.requests):
            await asyncio.sleep(0.001)

    @pytest.fixture
    async def heygen(heygen_sandbox):  # a session of the program, not of the fixture
        async with HeyGenSession(polling=SELDOM) as session:
            yield session

    async def test_a_wait_in_progress(heygen_sandbox, heygen):
        created = await heygen.lipsyncs.create(**SOURCES)
        waiting = asyncio.create_task(heygen.lipsyncs.job(created.id).wait(timeout=20))  # it looks once, at first
        await looked_at(heygen_sandbox)
        await heygen_sandbox.advance(1199)
        assert not waiting.done()
        await heygen_sandbox.advance(1)
        assert (await waiting).status == "completed"

    async def test_a_wait_that_has_not_looked_yet(heygen_sandbox, heygen):
        job = await heygen.lipsyncs.create(**SOURCES)
        waiting = asyncio.create_task(job.wait(timeout=20))
        await heygen_sandbox.advance(1200)
        assert (await waiting).status == "completed"

    async def test_a_wait_that_begins_later(heygen_sandbox, heygen):
        job = await heygen.lipsyncs.create(**SOURCES)
        await heygen_sandbox.advance(1200)
        assert (await job.wait(timeout=20)).status == "completed"

    async def test_many_jobs_at_once(heygen_sandbox, heygen):
        jobs = [await heygen.lipsyncs.create(**SOURCES) for _ in range(5)]
        heygen_sandbox.fail(jobs[3].id, "No face")
        await heygen_sandbox.advance(1200)
        found = [lipsync async for lipsync in heygen.poller.as_completed([job.id for job in jobs], timeout=20)]
        assert sorted(lipsync.status for lipsync in found) == ["completed"] * 4 + ["failed"]

    async def test_a_bulk_run(heygen_sandbox, heygen, tmp_path):
        rows = [DubRow(**SOURCES, key=f"row-{number}", output=f"{number}.mp4") for number in range(3)]
        async with heygen.dub_many(rows, journal=tmp_path / "run.sqlite", output_dir=tmp_path) as run:
            running = asyncio.create_task(collect(run))
            while len(heygen_sandbox.jobs) < 3:
                await asyncio.sleep(0.001)
            await heygen_sandbox.advance(1200)
            assert await asyncio.wait_for(running, 20) == ["completed"] * 3

    async def collect(run):
        return [outcome.state async for outcome in run]

    async def test_two_sessions(heygen_sandbox, heygen, heygen_session):
        job = await heygen_session.lipsyncs.create(**SOURCES)
        waits = [session.lipsyncs.job(job.id).wait(timeout=20) for session in (heygen, heygen_session)]
        waiting = asyncio.gather(*waits)
        await looked_at(heygen_sandbox)
        await heygen_sandbox.advance(1200)
        assert [lipsync.status for lipsync in await waiting] == ["completed"] * 2

    async def test_nothing_ends_without_advance(heygen_sandbox, heygen):
        job = await heygen.lipsyncs.create(**SOURCES)
        with pytest.raises(WaitTimeout):
            await job.wait(timeout=0.1)

    @pytest.mark.heygen_sandbox(manual=False)
    async def test_of_a_sandbox_that_runs_by_itself(heygen_sandbox, heygen):
        assert heygen_sandbox.on_finished is None
"""


def test_advance_drives_the_waits_of_every_session_however_seldom_it_polls(tests):
    tests(WAITS).assert_outcomes(passed=8)


# The way to the real API


FORGETFUL = """
    import os
    import pytest
    from heygen_async import HeyGenSession, RetryPolicy

    {mark}
    async def test_without_the_fixture():
        async with HeyGenSession("sk_real", retry=RetryPolicy(max_attempts=1)) as heygen:
            await heygen.account.me()
"""


SYNCHRONOUS = """
    import asyncio
    import unittest

    import pytest
    import pytest_asyncio

    pytestmark = pytest.mark.heygen_sandbox(speed=60)

    def test_with_its_address(heygen_sandbox):
        assert heygen_sandbox.url

    @pytest.mark.parametrize("number", [1, 2])
    def test_with_a_loop_of_its_own(number, heygen_session):
        asyncio.run(asyncio.sleep(0))

    class TestInAClass:
        def test_of_a_class(self, heygen_sandbox):
            assert heygen_sandbox.url

    @pytest.mark.usefixtures("heygen_sandbox")
    class TestOfUnittest(unittest.IsolatedAsyncioTestCase):  # it has an event loop of its own
        async def test_of_unittest(self):
            await asyncio.sleep(0)

    {fixture}
    async def account(heygen_session):
        return await heygen_session.account.me()

    def test_that_looks_at_what_an_asynchronous_fixture_did(account, heygen_sandbox):
        assert heygen_sandbox.requests

    async def test_that_is_asynchronous(heygen_session):
        await heygen_session.account.me()
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_a_synchronous_test_is_warned_of_unless_an_asynchronous_fixture_uses_the_sandbox(tests, mode):
    source = SYNCHRONOUS.replace("\n    async def test", "\n    @pytest.mark.asyncio\n    async def test")
    source = source.replace("{fixture}", "@pytest_asyncio.fixture")
    settings = f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function"
    ran = tests(source, "-W", "default", settings=settings)

    ran.assert_outcomes(passed=7, warnings=5)
    for reason in ("test_with_its_address is synchronous", "test_of_unittest is a test of unittest"):
        ran.stdout.fnmatch_lines([f"*{reason}*: heygen_sandbox answers nothing while it runs*"])


def test_a_test_of_unittest_starts_a_sandbox_as_the_warning_says(tests):
    ran = tests(
        """
        import unittest

        from heygen_async import HeyGenSession
        from heygen_async.sandbox import Sandbox

        class TestOfUnittest(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.sandbox = await self.enterAsyncContext(Sandbox())

            async def test_it(self):
                async with HeyGenSession(self.sandbox.api_key, base_url=self.sandbox.url) as heygen:
                    await heygen.account.me()
        """,
        plugins=(),
        settings="",
    )

    ran.assert_outcomes(passed=1)


BLOCKED = """
    import time

    import pytest
    from heygen_async import HeyGenSession, RetryPolicy, Timeouts

    async def ask():
        async with HeyGenSession(retry=RetryPolicy(max_attempts=1), timeouts=Timeouts(read=2.2)) as heygen:
            await heygen.account.me()

    {test}
"""
ON_ANOTHER_LOOP = """
    @pytest.mark.asyncio(loop_scope="module")
    async def test_on_another_event_loop(heygen_sandbox):
        await ask()
"""
WITHOUT_ITS_LOOP = """
    def test_that_is_synchronous(heygen_sandbox):
        import asyncio
        asyncio.run(ask())
"""
BLOCKING_IT = """
    async def test_that_blocks(heygen_sandbox):  # as the client of FastAPI does
        import anyio.from_thread
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.call(ask)
"""


@pytest.mark.parametrize(
    "test", [ON_ANOTHER_LOOP, WITHOUT_ITS_LOOP, BLOCKING_IT], ids=["loop", "synchronous", "blocking"]
)
def test_a_failure_while_the_event_loop_of_the_sandbox_stands_still_is_explained(tests, test):
    ran = tests(BLOCKED.replace("    {test}", test), "-W", "default")

    ran.assert_outcomes(failed=1, warnings=int("synchronous" in test))
    ran.stdout.fnmatch_lines(["*RequestTimeout*", "The event loop of heygen_sandbox stood still for * s of the test*"])


@pytest.mark.parametrize(
    "test",
    [
        "async def test_it(heygen_sandbox): raise TimeoutError",
        "async def test_it(slow, heygen_sandbox): raise TimeoutError",
        "async def test_it(heygen_sandbox, slow): raise TimeoutError",
    ],
)
def test_no_other_failure_is_explained_with_the_event_loop(tests, test):
    slow = "@pytest.fixture\n    def slow(): time.sleep(2.2)\n    "
    ran = tests(BLOCKED.replace("{test}", slow + test))

    ran.assert_outcomes(failed=1)
    assert "event loop" not in ran.stdout.str()


OVERRIDDEN = """
    import pytest
    import pytest_asyncio
    from heygen_async.sandbox import Sandbox

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def heygen_sandbox():
        async with Sandbox() as sandbox:
            yield sandbox

    @pytest.mark.asyncio(loop_scope="module")
    async def test_with_a_sandbox_of_its_module(heygen_sandbox):
        raise TimeoutError

    @pytest.mark.asyncio(loop_scope="module")
    async def test_with_a_session_on_another_loop(heygen_session):
        await heygen_session.account.me()
"""


def test_a_session_on_another_event_loop_than_its_test_is_explained_and_nothing_else(tests):
    ran = tests(OVERRIDDEN)

    ran.assert_outcomes(failed=2)
    assert ran.stdout.str().count("A session works on one event loop") == 1
    assert ran.stdout.str().count("- heygen_async -") == 1


def test_a_test_of_hypothesis_may_be_asynchronous(tests):
    ran = tests(
        """
        from hypothesis import HealthCheck, given, settings, strategies

        @settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(title=strategies.sampled_from(["a", "b"]))
        async def test_titles(title, heygen_sandbox, heygen_session):
            await heygen_session.account.me()
        """
    )

    ran.assert_outcomes(passed=1)


def test_a_clock_that_cannot_be_moved_names_the_marker(tests):
    ran = tests(
        """
        async def test_it_waits(heygen_sandbox):
            await heygen_sandbox.advance(20)
        """
    )

    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(["*RuntimeError: *Sandbox(manual=True)*@pytest.mark.heygen_sandbox(manual=True)*"])


def test_a_test_that_forgets_the_fixture_cannot_reach_the_api_and_the_report_says_why(tests):
    ran = tests(FORGETFUL.format(mark=""))

    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(["*The test tried to reach HeyGen*", "*fixture heygen_sandbox*"])


UNSAID = """
    import logging
    import os
    import pytest
    from heygen_async import HeyGenSession, RetryPolicy

    created_on_import = HeyGenSession("sk_real", retry=RetryPolicy(max_attempts=1))

    async def test_of_an_application_that_catches_the_error(heygen_sandbox):
        async with created_on_import:
            try:
                await created_on_import.account.me()
            except Exception:
                logging.exception("cannot reach HeyGen")
        assert not "the status 200"

    def test_without_a_key():
        os.environ.pop("HEYGEN_API_KEY", None)
        HeyGenSession()

    @pytest.mark.heygen_live
    def test_that_is_live_and_has_no_key():
        HeyGenSession()
"""


def test_an_application_that_hides_why_it_did_not_reach_heygen_is_explained_too(tests):
    ran = tests(UNSAID)

    ran.assert_outcomes(failed=3)
    assert ran.stdout.str().count("The test tried to reach HeyGen") == 2
    ran.stdout.fnmatch_lines(["*was created before the fixture, on import for instance*"])


def test_a_run_whose_conftest_loads_the_plugin_cannot_reach_the_api_either(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("HEYGEN_BASE_URL", "HEYGEN_LOOPBACK_ONLY"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeconftest(f"pytest_plugins = ['{MODULE}']")
    pytester.makepyfile(
        """
        import os

        def test_it():
            assert os.environ["HEYGEN_BASE_URL"] == "http://127.0.0.1:1"
            assert os.environ["HEYGEN_LOOPBACK_ONLY"]
        """
    )
    pytester.runpytest_subprocess(timeout=50).assert_outcomes(passed=1)


def test_a_session_that_is_created_in_a_conftest_cannot_reach_the_api_either(tests, pytester):
    pytester.makeconftest("from heygen_async import HeyGenSession\nheygen = HeyGenSession('sk_real')\n")
    ran = tests("from conftest import heygen\ndef test_it(): assert '127.0.0.1:1 ' in repr(heygen)\n")

    ran.assert_outcomes(passed=1)


LIVE = """
    import os
    import pytest
    from heygen_async import HeyGenSession

    @pytest.mark.heygen_live
    def test_with_the_marker():
        assert "api.heygen.com" in repr(HeyGenSession("sk_real"))

    def test_without_the_marker():
        assert "127.0.0.1:1 " in repr(HeyGenSession("sk_real"))

    @pytest.mark.heygen_live
    def test_with_the_marker_and_an_address_of_its_own():
        assert "HEYGEN_LOOPBACK_ONLY" not in os.environ

    def test_the_next_test_is_guarded_again():
        assert os.environ["HEYGEN_LOOPBACK_ONLY"]
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1"), ("-n", "2")], ids=["alone", "one-worker", "two-workers"])
def test_a_test_may_be_marked_as_live(tests, workers):
    tests(LIVE, *workers, plugins=("xdist",) if workers else (), settings="").assert_outcomes(passed=4)


def test_no_worker_opens_a_way_that_the_user_has_closed(tests, monkeypatch):
    monkeypatch.setenv("HEYGEN_LOOPBACK_ONLY", "1")
    ran = tests(
        """
        import os
        import pytest

        @pytest.mark.heygen_live
        def test_with_the_marker():
            assert os.environ["HEYGEN_LOOPBACK_ONLY"]
        """,
        "-n",
        "1",
        plugins=("xdist",),
        settings="",
    )

    ran.assert_outcomes(passed=1)


ELSEWHERE = """
    import pytest
    from heygen_async import HeyGenSession, RetryPolicy

    {mark}
    async def test_a_session_with_an_address_of_its_own():
        async with HeyGenSession("sk_real", base_url="https://192.0.2.1", retry=RetryPolicy(max_attempts=1)) as heygen:
            await heygen.account.me()
"""


def test_a_session_on_another_machine_is_an_error_that_names_the_marker(tests):
    ran = tests(ELSEWHERE.format(mark=""))

    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(["*RuntimeError: HEYGEN_LOOPBACK_ONLY is set*mark the test heygen_live*"])


def test_an_address_in_the_environment_is_respected(tests, monkeypatch):
    monkeypatch.setenv("HEYGEN_BASE_URL", "https://api.heygen.com")
    ran = tests("""
        import os
        from heygen_async import HeyGenSession

        def test_it():
            assert "api.heygen.com" in repr(HeyGenSession("sk_real"))
            assert "HEYGEN_LOOPBACK_ONLY" not in os.environ
        """)

    ran.assert_outcomes(passed=1)


LOCAL = """
    import os
    import pytest
    from heygen_async import HeyGenSession, RetryPolicy

    async def get(**options):
        async with HeyGenSession("sk_real", retry=RetryPolicy(max_attempts=1), **options) as heygen:
            await heygen.account.me()

    async def test_a_session_with_an_address_of_its_own():
        with pytest.raises(RuntimeError, match="mark the test heygen_live"):
            await get(base_url="https://192.0.2.1")

    async def test_that_deletes_the_address(monkeypatch):
        monkeypatch.delenv("HEYGEN_BASE_URL")
        with pytest.raises(RuntimeError, match="mark the test heygen_live"):
            await get()

    @pytest.mark.heygen_live
    def test_with_the_marker():
        assert os.environ["HEYGEN_BASE_URL"].endswith(":8000")
        assert "HEYGEN_LOOPBACK_ONLY" not in os.environ

    def test_the_next_test_is_guarded_again():
        assert os.environ["HEYGEN_LOOPBACK_ONLY"]
"""


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000", "http://localhost:8000"])
def test_an_address_of_this_machine_in_the_environment_opens_no_way_to_another(tests, monkeypatch, address):
    monkeypatch.setenv("HEYGEN_BASE_URL", address)
    tests(LOCAL).assert_outcomes(passed=4)


def test_a_run_inside_a_run_leaves_the_environment_as_it_was(pytester, monkeypatch):
    for before in ("http://127.0.0.1:1", "https://api.heygen.com", None):
        if before is None:
            monkeypatch.delenv("HEYGEN_BASE_URL", raising=False)
        else:
            monkeypatch.setenv("HEYGEN_BASE_URL", before)
        monkeypatch.delenv("HEYGEN_LOOPBACK_ONLY", raising=False)
        pytester.makepyfile("import os\ndef test_it(): assert os.environ['HEYGEN_BASE_URL']\n")
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        pytester.runpytest_inprocess("-p", MODULE).assert_outcomes(passed=1)
        assert os.environ.get("HEYGEN_BASE_URL") == before
        assert "HEYGEN_LOOPBACK_ONLY" not in os.environ


def test_an_option_that_is_none_is_an_error_that_says_so(tests):
    ran = tests(
        """
        import pytest

        @pytest.mark.heygen_sandbox(30)
        async def test_positional(heygen_sandbox): ...

        @pytest.mark.heygen_sandbox(spede=30)
        async def test_misspelt(heygen_sandbox): ...
        """
    )

    ran.assert_outcomes(errors=2)
    ran.stdout.fnmatch_lines(["*takes keyword arguments only*", "*unexpected keyword argument 'spede'*"])


def test_pytest_knows_the_marker_and_the_fixtures(tests):
    tests("", "--markers").stdout.fnmatch_lines(["@pytest.mark.heygen_sandbox(*options): options of the Sandbox*"])
    tests("", "--fixtures").stdout.fnmatch_lines(["heygen_sandbox*", "heygen_session*"])


SHOP = """
    from typing import Annotated

    from fastapi import Depends, FastAPI, Request

    from heygen_async import HeyGenSession

    app = FastAPI()

    def heygen(request: Request) -> HeyGenSession:
        return request.app.state.heygen  # that its lifespan opened

    @app.post("/orders/{order}/dub", status_code=202)
    async def dub(order: int, audio: str, heygen: Annotated[HeyGenSession, Depends(heygen)]):
        job = await heygen.lipsyncs.create(
            video="https://shop.example/source.mp4",
            audio=audio,
            callback_id=f"order-{order}",
            idempotency_key=f"order-{order}",
        )
        return {"job": job.id}
"""


def test_a_fastapi_handler_is_tested_as_the_documentation_shows(tests, pytester):
    pytest.importorskip("fastapi", reason="a user's, not ours")
    pytest.importorskip("httpx", reason="a user's, not ours")
    pytester.makepyfile(shop=SHOP)
    ran = tests(
        """
        import httpx
        import pytest

        from shop import app, heygen

        @pytest.mark.heygen_sandbox(job_seconds=1200)
        async def test_an_order_is_dubbed_once(heygen_sandbox, heygen_session, monkeypatch):
            monkeypatch.setitem(app.dependency_overrides, heygen, lambda: heygen_session)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
                for _ in range(2):
                    answer = await client.post("/orders/7/dub", params={"audio": "https://example.com/fr.mp3"})

            assert answer.status_code == 202
            [job] = heygen_sandbox.jobs
            assert job.body["callback_id"] == "order-7"

        def test_the_next_test_has_no_session_of_the_one_before():
            assert app.dependency_overrides == {}
        """
    )

    ran.assert_outcomes(passed=2)
