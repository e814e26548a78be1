"""The stage for tests of bulk runs: a quick sandbox, a session on it, rows, and what came of them."""

import re
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from attrs import evolve, frozen

from heygen_async import HeyGenSession, PollPolicy, RetryPolicy
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import UnixClock
from heygen_async.models import DubOutcome, DubRow
from heygen_async.sandbox import Sandbox

AUDIO = "https://example.com/new.mp3"
CREATE = "POST /v3/lipsyncs"
QUICK = RetryPolicy(first_delay=0.001, max_delay=0.002)
HASTY = RetryDelays(
    refused=0.02,
    renewal=0.0,
    missing=(0.01, 0.01),
    download=(0.01, 0.01, 0.01),
    batch_looks=PollPolicy(fastest=0.01, growth=0.25, slowest=0.05),
)


def url(name: object, query: str = "") -> str:
    return f"https://sandbox.invalid/{name}.mp4{'?' + query if query else ''}"


def rows(count: int, **changes: object) -> list[DubRow]:
    return [evolve(DubRow(url(number), AUDIO, key=f"row-{number}"), **changes) for number in range(1, count + 1)]


def row_key(attempt_key: str) -> str:
    """Return the key of the row that sends *attempt_key*."""
    return re.sub(r"\.[0-9a-f]{16}$", "", attempt_key)


def hasty_run(
    heygen: HeyGenSession,
    given: Iterable[DubRow] | AsyncIterator[DubRow],
    *,
    origin: str,
    now: Callable[[], float] = time.time,
    latest: Callable[[], float] | None = None,
    **options: object,
) -> DubRun:
    """Make the run of `dub_many`, but with short delays, and perhaps another time of the world."""
    plan = Plan(**{"delays": HASTY, "clock": UnixClock(now, latest or now), **options})
    return DubRun(heygen._bulk_calls(), given, plan, origin=origin)


@frozen
class Stage:
    """A sandbox, a session, and a folder."""

    sandbox: Sandbox
    heygen: HeyGenSession
    folder: Path

    def run(self, given: Iterable[DubRow] | AsyncIterator[DubRow], **options: object) -> DubRun:
        options = {"journal": self.folder / "run.sqlite", "output_dir": self.folder / "out", **options}
        return hasty_run(self.heygen, given, origin=self.sandbox.url, **options)

    async def outcomes(self, given: Iterable[DubRow], **options: object) -> list[DubOutcome]:
        async with self.run(given, **options) as run:
            return [outcome async for outcome in run]

    async def states(self, given: Iterable[DubRow], **options: object) -> Counter[str]:
        return Counter(outcome.state for outcome in await self.outcomes(given, **options))

    @contextmanager
    def database(self, name: str = "run.sqlite") -> Iterator[sqlite3.Connection]:
        """Open the journal of a run that has ended."""
        with closing(sqlite3.connect(self.folder / name)) as database, database:
            yield database

    def files(self) -> set[str]:
        out = self.folder / "out"
        return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}

    def jobs_by_key(self) -> Counter[str]:
        return Counter(row_key(str(job.body["callback_id"])) for job in self.sandbox.jobs)

    def jobs_by_attempt(self) -> Counter[str]:
        return Counter(str(job.body["callback_id"]) for job in self.sandbox.jobs)

    def asked(self, route: str) -> int:
        return sum(request.route == route for request in self.sandbox.requests)

    def keys_sent(self) -> list[str]:
        """Return the row keys of the creates, each as often as it was sent."""
        return [row_key(key) for key in self.attempt_keys()]

    def attempt_keys(self) -> list[str]:
        return [request.headers["Idempotency-Key"] for request in self.sandbox.requests if request.route == CREATE]


@asynccontextmanager
async def staged(
    folder: Path, *, polling: PollPolicy = PollPolicy(fastest=0.005, slowest=0.02), **settings: object
) -> AsyncIterator[Stage]:
    """Open a sandbox in which a job takes 20 ms, and a session that looks every 5 ms."""
    settings = {"speed": 1000, "retry_after": 0, **settings}
    async with (
        Sandbox(**settings) as sandbox,
        HeyGenSession(sandbox.api_key, base_url=sandbox.url, retry=QUICK, polling=polling) as heygen,
    ):
        yield Stage(sandbox, heygen, folder)
