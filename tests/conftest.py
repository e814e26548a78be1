"""What the tests share: a sandbox and a session on it, and a guard against blocking calls."""

import asyncio
from collections.abc import Iterator

import aiolimiter  # noqa: F401 its import reads a file, which is allowed before the loop runs
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

from heygen_async import HeyGenSession
from heygen_async.sandbox import Sandbox

settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_configure() -> None:
    """Say that there is no event loop: looptime asks for one in sync tests too, and 3.11 would make and leak it."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Fail a test in which our code blocks the event loop."""
    with blockbuster_ctx("heygen_async") as guard:
        yield guard


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own key and address out of the tests."""
    monkeypatch.delenv("HEYGEN_API_KEY", raising=False)
    monkeypatch.delenv("HEYGEN_BASE_URL", raising=False)


# The library's own tests use the plugin like anyone else.


@pytest.fixture
def sandbox(heygen_sandbox: Sandbox) -> Sandbox:
    return heygen_sandbox


@pytest.fixture
def heygen(heygen_session: HeyGenSession) -> HeyGenSession:
    return heygen_session
