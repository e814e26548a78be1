"""What the tests share: a sandbox and a session on it, and a guard against blocking calls."""

import asyncio
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aiolimiter  # noqa: F401 its import reads a file, which is allowed before the loop runs
import loopback
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

from heygen_async import HeyGenSession
from heygen_async.sandbox import Sandbox

pytest.register_assert_rewrite("chromium", "cli_sandbox", "cluster_harness", "review_stage")

settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_configure() -> None:
    """Start every run from the same state of the process."""
    # looptime gets the event loop in sync tests too, and 3.11 would make one and leak it.
    asyncio.set_event_loop(None)
    # A background job of a shell ignores SIGINT, and so would the programs that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what was loaded for the tests out of garbage collections, which would traverse it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Fail a test in which our code blocks the event loop."""
    with blockbuster_ctx("heygen_async") as guard:
        yield guard


@pytest.fixture(autouse=True)
def _on_this_machine() -> Iterator[None]:
    """Fail a test that tries to reach another machine, even if it does not notice that it was refused."""
    loopback.attempts.clear()
    yield
    assert loopback.attempts == []


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own key and address out of the tests."""
    monkeypatch.delenv("HEYGEN_API_KEY", raising=False)
    monkeypatch.delenv("HEYGEN_BASE_URL", raising=False)
    monkeypatch.delenv("HEYGEN_LOOPBACK_ONLY", raising=False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a PostgreSQL of our own, or use the one that the environment names; yield the URL of a new database."""
    from benchmarks.cluster_postgres import binaries, new_database, temporary_server  # noqa: PLC0415 its driver is an extra

    if url := os.environ.get("HEYGEN_ASYNC_TEST_DATABASE"):
        with new_database(url) as database:
            yield database
        return
    if binaries() is None:
        reason = "there is no PostgreSQL: install it, or set HEYGEN_ASYNC_TEST_DATABASE"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with temporary_server() as server:
        yield server.url


@pytest.fixture
def database_url(postgres_server: str) -> Iterator[str]:
    """Yield the URL of a database without tables of ours."""
    from benchmarks.cluster_postgres import empty  # noqa: PLC0415 its driver is an extra

    yield postgres_server
    empty(postgres_server)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return an empty folder for the videos of a run."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def every_point() -> int:
    """Return how many points a test that stops at each of them goes on by: 1 where the environment asks for all."""
    return 1 if os.environ.get("HEYGEN_ASYNC_TEST_ALL_POINTS") else 11


# The library's own tests use the plugin like anyone else.


@pytest.fixture
def sandbox(heygen_sandbox: Sandbox) -> Sandbox:
    return heygen_sandbox


@pytest.fixture
def heygen(heygen_session: HeyGenSession) -> HeyGenSession:
    return heygen_session
