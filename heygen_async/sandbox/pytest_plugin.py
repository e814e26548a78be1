"""The pytest plugin of heygen_async: `heygen_sandbox` and `heygen_session`, on this machine and without a key.

A test of a FastAPI handler, for instance::

    import httpx
    import pytest

    from shop.web import app, heygen  # heygen is the dependency that gives handlers their HeyGenSession


    @pytest.mark.heygen_sandbox(job_seconds=1200)
    async def test_an_order_is_dubbed_once(heygen_sandbox, heygen_session):
        app.dependency_overrides[heygen] = lambda: heygen_session
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            answer = await client.post("/orders/7/dub", json={"audio": "https://example.com/fr.mp3"})

        assert answer.status_code == 202
        [job] = heygen_sandbox.jobs
        assert job.body["callback_id"] == "order-7"

The fixtures are pytest-asyncio's, and work in its auto and its strict mode; without pytest-asyncio they are plain
async fixtures, as anyio's plugin takes them.

Pytest imports this module in every run, also in those that have nothing to do with HeyGen. So it imports nothing of
the package before a fixture is used, and the packages above it import nothing either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:
    async_fixture = pytest.fixture  # type: ignore[assignment] # it is used in the same way

if TYPE_CHECKING:
    from heygen_async import HeyGenSession
    from heygen_async.sandbox import Sandbox

__all__ = ("heygen_sandbox", "heygen_session", "pytest_configure")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "heygen_sandbox(**options): options of the Sandbox that the fixture starts, such as manual=True or "
        "faults=[...]; those of a function win over those of its class and module.",
    )


@async_fixture
async def heygen_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A `heygen_async.sandbox.Sandbox` of the test's own; the marker `heygen_sandbox` sets its options.

    Its time runs a thousand times as fast as yours, so that a job takes a fiftieth of a second, unless the marker
    says `speed=` or `manual=True`. `HEYGEN_BASE_URL` and `HEYGEN_API_KEY` name it while the test runs: a
    `HeyGenSession()` that the code under test makes goes here, and never to HeyGen.
    """
    from heygen_async.sandbox import Sandbox  # noqa: PLC0415 only who uses the fixture pays for it

    async with Sandbox(**_options(request.node)) as sandbox:
        monkeypatch.setenv("HEYGEN_BASE_URL", sandbox.url)
        monkeypatch.setenv("HEYGEN_API_KEY", sandbox.api_key)
        yield sandbox


@async_fixture
async def heygen_session(heygen_sandbox: Sandbox) -> AsyncIterator[HeyGenSession]:
    """A `heygen_async.HeyGenSession` on the test's sandbox, which looks and retries within milliseconds."""
    from heygen_async import HeyGenSession, PollPolicy, RetryPolicy  # noqa: PLC0415 the same

    polling = PollPolicy(fastest=0.01, slowest=0.05)
    retry = RetryPolicy(first_delay=0.001, max_delay=0.01)
    async with HeyGenSession(
        heygen_sandbox.api_key, base_url=heygen_sandbox.url, polling=polling, retry=retry
    ) as session:
        yield session


def _options(node: pytest.Item) -> dict[str, Any]:
    options: dict[str, Any] = {"speed": 1000.0}
    for mark in reversed(list(node.iter_markers("heygen_sandbox"))):
        if mark.args:
            raise pytest.UsageError("the marker heygen_sandbox takes keyword arguments only, those of Sandbox")
        options |= mark.kwargs
    return options
