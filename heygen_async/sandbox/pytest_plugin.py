"""The pytest plugin of heygen_async: the fixtures `heygen_sandbox` and `heygen_session`, local and without a key.

No test reaches the real API by accident. Two variables are set for the whole run: `HEYGEN_BASE_URL`, unless it is set
already, to a closed address, so that a `HeyGenSession()` in a test that forgets the fixture fails to connect, and
`HEYGEN_LOOPBACK_ONLY`, so that a session with a `base_url` of its own on another machine is a `RuntimeError` at its
first request. To test against the real API on purpose, mark a test `heygen_live`, or set
`HEYGEN_BASE_URL=https://api.heygen.com` for the run (needed for sessions that are created on import): if it names
another machine, nothing is set.

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

The fixtures are pytest-asyncio's, in its auto and strict modes; without pytest-asyncio they are plain async fixtures,
as anyio's plugin takes them.

Pytest imports this module in every run, also in those that do not use HeyGen. So it imports nothing of the package
before a fixture is used, and the packages above it import nothing either.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Container, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:
    async_fixture = pytest.fixture  # type: ignore[assignment] # it is used in the same way

if TYPE_CHECKING:
    from heygen_async import HeyGenSession
    from heygen_async.sandbox import Sandbox

__all__ = ("heygen_sandbox", "heygen_session")

_BASE_URL: Final = "HEYGEN_BASE_URL"
_NOWHERE: Final = "http://127.0.0.1:1"
"""Nothing listens there: the port is one that only the system may open."""

_STEP: Final = 0.005
"""Real seconds after which a wait for a job that has ended looks at it."""

_GUARD: Final = {_BASE_URL: _NOWHERE, "HEYGEN_LOOPBACK_ONLY": "1"}
_OURS_OF_IT: Final = pytest.StashKey[dict[str, str]]()
"""What of the guard this run has set, and not the user or a run around it."""

_HINT: Final = f"""\
The test tried to reach HeyGen. {_BASE_URL} is {_NOWHERE} so that no test does by accident.
Use the fixture heygen_sandbox or heygen_session. If the real API is meant, mark the test heygen_live, or run
pytest with {_BASE_URL}=https://api.heygen.com."""

_OF_XDIST: Final = "heygen_async"
"""What pytest-xdist brings to its workers under this name: `_OURS_OF_IT`."""
_OTHER_LOOP: Final = """\
heygen_sandbox runs on the event loop of each {fixture}, the test on that of its {test}: the sandbox answers nothing
while the test runs. Set asyncio_default_fixture_loop_scope = {test}, or use the loop of the {fixture} in the test."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and close the way to the API if a `conftest.py` has loaded the plugin."""
    _guard(config)
    config.addinivalue_line(
        "markers",
        "heygen_sandbox(**options): options of the Sandbox that the fixture starts, such as manual=True or "
        "faults=[...]; those of a function win over those of its class and module.",
    )
    config.addinivalue_line(
        "markers", "heygen_live: the test may reach the real API; without it only this machine can be reached."
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Close the way to the API before the first module of the user is imported."""
    _guard(early_config)


def _guard(config: pytest.Config) -> None:
    """Set what is missing of the guard, unless the environment names another machine on purpose."""
    missing = {name: value for name, value in _GUARD.items() if not os.environ.get(name)}
    if missing and (_BASE_URL in missing or _is_on_this_machine(os.environ[_BASE_URL])):
        os.environ.update(missing)
        config.stash.setdefault(_OURS_OF_IT, {}).update(missing)
        config.add_cleanup(lambda: _remove(missing))


    config.stash.setdefault(_OURS_OF_IT, {}).update(getattr(config, "workerinput", {}).get(_OF_XDIST, {}))
def _is_on_this_machine(url: str) -> bool:
    from heygen_async.sandbox.http.validation import is_loopback  # noqa: PLC0415 only where the variable is set

    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _remove(names: Iterable[str]) -> None:
    for name in names:
        os.environ.pop(name, None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Open the way to the API for a test that is marked `heygen_live`."""
    ours = item.config.stash.get(_OURS_OF_IT, {})
    guard = {name: value for name, value in ours.items() if os.environ.get(name) == value}
    if item.get_closest_marker("heygen_live"):
        _remove(guard)
    yield
    os.environ.update(guard)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 a class of pytest-xdist
    """Tell a worker of pytest-xdist, which has the environment of this process, what of it is the guard."""
    node.workerinput[_OF_XDIST] = node.config.stash.get(_OURS_OF_IT, {})


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Explain the failure of a test that met the closed address, or whose sandbox is on another event loop."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed and "('127.0.0.1', 1)" in report.longreprtext:
        report.sections.append(("heygen_async", _HINT))
    if report.failed and "heygen_sandbox" in getattr(item, "fixturenames", ()):
        report.sections.extend(("heygen_async", text) for text in _loop_problems(item))


def _loop_problems(item: pytest.Item) -> Iterator[str]:
    """Yield what to say if pytest-asyncio runs the test and its fixtures on different event loops."""
    mark = item.get_closest_marker("asyncio")
    if mark is not None:
        test = mark.kwargs.get("loop_scope") or _loop_scope(item.config, "asyncio_default_test_loop_scope")
        fixture = _loop_scope(item.config, "asyncio_default_fixture_loop_scope")
        if test != fixture:
            yield _OTHER_LOOP.format(test=test, fixture=fixture)


def _loop_scope(config: pytest.Config, setting: str) -> str:
    try:
        return config.getini(setting) or "function"
    except ValueError:  # an older pytest-asyncio does not have it
        return "function"


@async_fixture
async def heygen_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A `heygen_async.sandbox.Sandbox` of the test's own; the marker `heygen_sandbox` sets its options.

    Its time runs a thousand times as fast as real time, so that a job takes 20 ms, unless the marker says `speed=` or
    `manual=True`. `HEYGEN_BASE_URL` and `HEYGEN_API_KEY` name it while the test runs: a `HeyGenSession()` that the
    code under test creates uses it.

    If the sandbox is manual, every wait for a job, of any session on the test's event loop, sees its end as soon as
    `advance`, `finish` or `fail` has ended it, whatever the session's `PollPolicy`. `on_finished` is used for that.

    The test is an `async def`: while a synchronous one runs, the event loop does not, and the sandbox answers nothing.
    """
    _warn_if_synchronous(request.node)
    from heygen_async.sandbox import Sandbox  # noqa: PLC0415 imported on first use

    async with Sandbox(**_options(request.node)) as sandbox:
        monkeypatch.setenv("HEYGEN_BASE_URL", sandbox.url)
        monkeypatch.setenv("HEYGEN_API_KEY", sandbox.api_key)
        if sandbox.is_manual:
            async with _waits_driven(sandbox):
                yield sandbox
        else:
            yield sandbox


@asynccontextmanager
async def _waits_driven(sandbox: Sandbox) -> AsyncIterator[None]:
    """While the body runs, have waits look at jobs that have ended, before the wait began or later."""
    import asyncio  # noqa: PLC0415 imported on first use

    ended: set[str] = set()
    sandbox.on_finished = ended.add
    driving = asyncio.create_task(_drive_waits(ended))
    try:
        yield
    finally:
        driving.cancel()
        await asyncio.wait([driving])


async def _drive_waits(ended: Container[str]) -> None:
    import asyncio  # noqa: PLC0415 imported on first use

    from heygen_async.polling.requests import Dispatcher  # noqa: PLC0415 the same

    while True:
        for dispatcher in Dispatcher.in_use():
            dispatcher.look_at_ended(ended)
        await asyncio.sleep(_STEP)


@async_fixture
async def heygen_session(heygen_sandbox: Sandbox) -> AsyncIterator[HeyGenSession]:
    """A `heygen_async.HeyGenSession` on the test's sandbox, which polls and retries within milliseconds."""
    from heygen_async import HeyGenSession, PollPolicy, RetryPolicy  # noqa: PLC0415 imported on first use

    polling = PollPolicy(fastest=0.01, slowest=0.05)
    retry = RetryPolicy(first_delay=0.001, max_delay=0.01)
    async with HeyGenSession(
        heygen_sandbox.api_key, base_url=heygen_sandbox.url, polling=polling, retry=retry
    ) as session:
        yield session


_OURS: Final = frozenset({"heygen_sandbox", "heygen_session"})


def _warn_if_synchronous(node: pytest.Item) -> None:
    """Warn if a test cannot use the sandbox: it is synchronous, and no asynchronous fixture does that for it."""
    function = getattr(node, "function", None)
    tested = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    fixtures = getattr(getattr(node, "_fixtureinfo", None), "name2fixturedefs", {})
    others = [inspect.unwrap(found[-1].func) for name, found in fixtures.items() if name not in _OURS]
    if not any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (tested, *others)):
        message = (
            f"{node.name} is synchronous: heygen_sandbox answers nothing while it runs. Make it an `async def`; a "
            "program that is synchronous needs a sandbox in another process: python -m heygen_async.sandbox"
        )
        node.warn(pytest.PytestWarning(message))


def _options(node: pytest.Item) -> dict[str, Any]:
    options: dict[str, Any] = {"speed": 1000.0}
    for mark in reversed(list(node.iter_markers("heygen_sandbox"))):
        if mark.args:
            raise pytest.UsageError("the marker heygen_sandbox takes keyword arguments only, those of Sandbox")
        options |= mark.kwargs
    return options
