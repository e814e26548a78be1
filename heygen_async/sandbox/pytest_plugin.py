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
    async def test_an_order_is_dubbed_once(heygen_sandbox, heygen_session, monkeypatch):
        monkeypatch.setitem(app.dependency_overrides, heygen, lambda: heygen_session)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            answer = await client.post("/orders/7/dub", json={"audio": "https://example.com/fr.mp3"})

        assert answer.status_code == 202
        [job] = heygen_sandbox.jobs
        assert job.body["callback_id"] == "order-7"

If the session is a global of `shop.web`, `monkeypatch.setattr(shop.web, "heygen", heygen_session)` replaces it. To be
created on import it needs a `HEYGEN_API_KEY`, which may be any text in tests.

The fixtures are pytest-asyncio's, in its auto and strict modes; without pytest-asyncio they are plain async fixtures,
as anyio's plugin takes them. The sandbox answers while their event loop runs. So the test is an `async def` on that
loop, and what blocks is called in a thread: `await asyncio.to_thread(client.get, "/orders/7")` with FastAPI's
`TestClient`, for instance. Tests of `unittest` have event loops of their own, and start their own sandbox, in
`asyncSetUp`: `sandbox = await self.enterAsyncContext(Sandbox())`.

Pytest imports this module in every run, also in those that do not use HeyGen. So it imports nothing of the package
before a fixture is used, and the packages above it import nothing either.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Container, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:
    async_fixture = pytest.fixture  # type: ignore[assignment] # it is used in the same way

if TYPE_CHECKING:
    import asyncio

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
_OF_XDIST: Final = "heygen_async"
"""What pytest-xdist brings to its workers under this name: `_OURS_OF_IT`."""

_FORGOTTEN: Final = f"""\
The test tried to reach HeyGen. {_BASE_URL} is {_NOWHERE} so that no test does by accident.
Use the fixture heygen_sandbox or heygen_session. A session that was created before the fixture, on import for instance,
keeps its address: give the code under test heygen_session instead. If the real API is meant, mark the test heygen_live,
or run pytest with {_BASE_URL}=https://api.heygen.com."""

_OTHER_LOOP: Final = """\
A session works on one event loop, and pytest-asyncio has one for each test unless you set loop scopes. Create the
session in the test, or in a fixture of the same loop scope: that of fixtures is asyncio_default_fixture_loop_scope."""

_STOOD_STILL: Final = """\
The event loop of heygen_sandbox stood still for {:.0f} s of the test; the sandbox answers nothing meanwhile.
Either the test blocks it, as FastAPI's TestClient does: call such code with `await asyncio.to_thread(...)`.
Or the test runs on another event loop: give asyncio_default_fixture_loop_scope the loop scope of the test."""

_SYNCHRONOUS: Final = (
    "{} is synchronous: heygen_sandbox answers nothing while it runs. Make it an `async def`, and call what is "
    "synchronous with `await asyncio.to_thread(...)`; or start a sandbox in another process: python -m "
    "heygen_async.sandbox"
)
_OF_UNITTEST: Final = (
    "{} is a test of unittest, on an event loop of its own: heygen_sandbox answers nothing while it runs. Start a "
    "sandbox in `asyncSetUp` instead: await self.enterAsyncContext(Sandbox())"
)

_LONG: Final = 2.0
"""Seconds without a step of the event loop that are explained; imports on a slow machine take less."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and close the way to the API if a `conftest.py` has loaded the plugin."""
    _guard(config)
    config.stash.setdefault(_OURS_OF_IT, {}).update(getattr(config, "workerinput", {}).get(_OF_XDIST, {}))
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


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 a class of pytest-xdist
    """Tell a worker of pytest-xdist, which has the environment of this process, what of it is the guard."""
    node.workerinput[_OF_XDIST] = node.config.stash.get(_OURS_OF_IT, {})


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


# --- the reports of failures -------------------------------------------------------------------------------


class _LoopWatch:
    """Measures how long an event loop stands still."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.begin()

    def begin(self) -> None:
        """Forget what was before."""
        self.end()
        self._longest, self._seen = 0.0, monotonic()
        self._step()

    def end(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def longest(self) -> float:
        """Seconds between the two steps of the loop that are farthest apart, the present one included."""
        return max(self._longest, monotonic() - self._seen)

    def _step(self) -> None:
        self._longest, self._seen = self.longest, monotonic()
        self._timer = self._loop.call_later(_LONG / 4, self._step)


_WATCH: Final = pytest.StashKey[_LoopWatch]()


@contextmanager
def _loop_watched(node: pytest.Item) -> Iterator[None]:
    """While the body runs, measure how long the event loop of *node*'s fixture stands still."""
    import asyncio  # noqa: PLC0415 imported on first use

    watch = node.stash[_WATCH] = _LoopWatch(asyncio.get_running_loop())
    try:
        yield
    finally:
        watch.end()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Leave out what fixtures took."""
    if _WATCH in item.stash:
        item.stash[_WATCH].begin()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Explain the failure of a test that could not reach a sandbox."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        report.sections.extend(("heygen_async", text) for text in [*_explanations(item, report)])


def _explanations(item: pytest.Item, report: pytest.TestReport) -> Iterator[str]:
    # A web application that answers 502 logs why.
    text = "\n".join([report.longreprtext, *(content for _, content in report.sections)])
    is_guarded = os.environ.get(_BASE_URL) == _NOWHERE
    if "('127.0.0.1', 1)" in text or (is_guarded and "there is no API key" in text):
        yield _FORGOTTEN
    if "HeyGenSession was opened on another event loop" in text:
        yield _OTHER_LOOP
    if report.when == "call" and _WATCH in item.stash and item.stash[_WATCH].longest > _LONG:
        yield _STOOD_STILL.format(item.stash[_WATCH].longest)


# --- the fixtures ------------------------------------------------------------------------------------------


@async_fixture
async def heygen_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A `heygen_async.sandbox.Sandbox` of the test's own; the marker `heygen_sandbox` sets its options.

    Its time runs a thousand times as fast as real time, so that a job takes 20 ms, unless the marker says `speed=` or
    `manual=True`. `HEYGEN_BASE_URL` and `HEYGEN_API_KEY` name it while the test runs: a `HeyGenSession()` that the
    code under test creates uses it.

    If the sandbox is manual, every wait for a job, of any session on the test's event loop, sees its end as soon as
    `advance`, `finish` or `fail` has ended it, whatever the session's `PollPolicy`. `on_finished` is used for that.
    Waits for a whole batch look again by that policy.

    The test is an `async def`: while a synchronous one runs, the event loop does not, and the sandbox answers nothing.
    For many tests together, write a fixture of that scope with `async with Sandbox(...)`.
    """
    _warn_if_unanswered(request.node)
    from heygen_async.sandbox import Sandbox  # noqa: PLC0415 imported on first use

    async with Sandbox(**_options(request.node)) as sandbox:
        monkeypatch.setenv("HEYGEN_BASE_URL", sandbox.url)
        monkeypatch.setenv("HEYGEN_API_KEY", sandbox.api_key)
        with _loop_watched(request.node):
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


def _warn_if_unanswered(node: pytest.Item) -> None:
    """Warn if a test certainly cannot use the sandbox."""
    message = _why_unanswered(node)
    if message is not None:
        node.warn(pytest.PytestWarning(message.format(node.name)))


def _why_unanswered(node: pytest.Item) -> str | None:
    import unittest  # noqa: PLC0415 imported on first use

    if issubclass(getattr(node, "cls", None) or object, unittest.TestCase):
        return _OF_UNITTEST
    function = getattr(node, "function", None)
    tested = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    fixtures = getattr(getattr(node, "_fixtureinfo", None), "name2fixturedefs", {})
    others = [inspect.unwrap(found[-1].func) for name, found in fixtures.items() if name not in _OURS]
    # A synchronous test may look at what an asynchronous fixture did with the sandbox.
    is_used = any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (tested, *others))
    return None if is_used else _SYNCHRONOUS


def _options(node: pytest.Item) -> dict[str, Any]:
    options: dict[str, Any] = {"speed": 1000.0}
    for mark in reversed(list(node.iter_markers("heygen_sandbox"))):
        if mark.args:
            raise pytest.UsageError("the marker heygen_sandbox takes keyword arguments only, those of Sandbox")
        options |= mark.kwargs
    return options
