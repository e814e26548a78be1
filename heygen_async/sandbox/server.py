"""The server: a `Sandbox` that starts, answers and stops."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiohttp import web
from anyio import to_thread
from attrs import frozen

from heygen_async.sandbox.backend import Backend, JobSeconds, Settings
from heygen_async.sandbox.clock import Clock, ManualClock
from heygen_async.sandbox.courier import RecordedDelivery
from heygen_async.sandbox.faults import Fault
from heygen_async.sandbox.record import RecordedRequest
from heygen_async.sandbox.storage import sample
from heygen_async.sandbox.world import Job

__all__ = (
    "SAMPLE_AUDIO",
    "SAMPLE_VIDEO",
    "Fault",
    "JobSeconds",
    "RecordedDelivery",
    "RecordedRequest",
    "Sandbox",
    "SandboxJob",
)

SAMPLE_VIDEO: Final = Path(__file__).with_name("media") / "sample.mp4"
"""A short talking face, MP4 (H.264 and AAC)."""
SAMPLE_AUDIO: Final = Path(__file__).with_name("media") / "sample.mp3"
"""A sentence in French, MP3."""

_RATES: Final[Mapping[str, float]] = {"speed": 0.033, "precision": 0.067}
_LONGEST_LINK: Final = 7 * 24 * 3600.0
_SHUTDOWN_SECONDS: Final = 0.05


@frozen(kw_only=True)
class SandboxJob:
    """A job as it stood when it was looked at. Times are unix timestamps in seconds."""

    id: str
    status: str
    """`pending`, `running`, `completed` or `failed`."""
    title: str | None
    body: Mapping[str, object]
    """What was sent to create it."""
    charged: float
    """What it cost, in dollars; 0 once it has failed."""
    created_at: float
    ended_at: float | None
    failure_message: str | None
    deleted: bool
    batch_id: str | None


class Sandbox:
    """A HeyGen for one account on one machine; use it with `async with`.

    Time in it is its own: it runs *speed* times as fast as the clock on the wall, or, with *manual*, only by
    `advance`. A job costs its price when it is created, and gets it back if it fails.

    Args:
        api_key: The one key that it accepts, as `X-Api-Key` or as a bearer token.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        speed: Seconds of sandbox time in one second.
        manual: Whether time stands still but for `advance`.
        seed: Of ids and of faults; the same seed and the same requests give the same answers.
        account_limit: Jobs that run at once. A single create past it gets a 429, jobs of a batch wait for a
            seat. None is no limit.
        job_seconds: How long a job takes, in sandbox time: a number, numbers for one job after another, over
            and over, or a function of the create's body.
        balance: Dollars in the wallet. What it cannot pay for gets a 402.
        rates: Dollars for a second of output, by mode.
        retry_after: Seconds, rounded up, that a refused create is told to wait.
        link_seconds: How long a presigned link works, in sandbox time; at most 7 days.
        latency: Seconds, by the loop's clock, that each answer takes; or of a route, such as
            `{"POST /v3/lipsyncs": 0.15}`.
        max_asset_bytes: Largest direct upload.
        max_multipart_bytes: Largest multipart upload.
        statuses_available: Whether the account has `GET /v3/lipsyncs/statuses`.
        batches_available: Whether the account has batches.
        faults: What goes wrong, see `heygen_async.sandbox.faults`.
    """

    def __init__(
        self,
        *,
        api_key: str = "sandbox-key",
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        manual: bool = False,
        seed: int = 0,
        account_limit: int | None = 10,
        job_seconds: JobSeconds = 20.0,
        balance: float = 100.0,
        rates: Mapping[str, float] = _RATES,
        retry_after: float = 1.0,
        link_seconds: float = _LONGEST_LINK,
        latency: float | Mapping[str, float] = 0.0,
        max_asset_bytes: int = 1 << 30,
        max_multipart_bytes: int = 32 << 20,
        statuses_available: bool = True,
        batches_available: bool = True,
        faults: Iterable[Fault] = (),
    ) -> None:
        if speed <= 0:
            raise ValueError("speed must be above 0.")
        if not 0 < link_seconds <= _LONGEST_LINK:
            raise ValueError("link_seconds must be above 0 and at most 7 days.")
        self.api_key = api_key
        self._address = (host, port)
        self._speed = speed
        self._manual = manual
        self._faults = list(faults)
        self._settings = Settings(
            api_key=api_key,
            seed=seed,
            account_limit=account_limit,
            job_seconds=job_seconds,
            balance=balance,
            rates=rates,
            retry_after=retry_after,
            link_seconds=link_seconds,
            latency=latency,
            max_asset_bytes=max_asset_bytes,
            max_multipart_bytes=max_multipart_bytes,
            statuses_available=statuses_available,
            batches_available=batches_available,
            faults=self._faults,
        )
        self._url: str | None = None
        self._backend: Backend | None = None
        self._ending = contextlib.AsyncExitStack()

    # --- life --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._backend is not None:
            raise RuntimeError("A sandbox starts once; make a new one.")
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._ending = stack.pop_all()
        return self

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        listening = stack.enter_context(socket.create_server(self._address))
        host, port = listening.getsockname()[:2]
        self._url = f"http://{host}:{port}"
        directory = await to_thread.run_sync(partial(tempfile.mkdtemp, prefix="heygen-sandbox-"))
        stack.push_async_callback(to_thread.run_sync, partial(shutil.rmtree, directory, ignore_errors=True))
        film = await to_thread.run_sync(sample, SAMPLE_VIDEO)
        backend = self._backend = Backend(
            self._settings, self._make_clock(), origin=self._url, directory=Path(directory), sample=film
        )
        runner = web.AppRunner(backend.front.app(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        if not self._manual:
            stack.push_async_callback(_end, asyncio.create_task(backend.courier.run()))

    def _make_clock(self) -> Clock:
        if self._manual:
            return ManualClock()
        return Clock(asyncio.get_running_loop().time, speed=self._speed, started_at=time.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ending.aclose()

    # --- time --------------------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Move the time of a manual sandbox; everything that falls due happens, in order, each at its moment.

        Webhooks are delivered in here, and waited for. If cancelled, the time stays where it has come to.

        Args:
            seconds: How far, in sandbox time; 0 delivers what is due now.

        Raises:
            RuntimeError: The sandbox is not manual.
        """
        backend = self._running
        if not isinstance(backend.clock, ManualClock):
            raise RuntimeError("Only a sandbox with manual=True can be advanced.")  # noqa: TRY004 - a wrong state
        end = backend.clock.now() + seconds
        await backend.courier.flush()
        while (due := backend.next_due()) is not None and due <= end:
            backend.clock.move_to(due)
            await backend.courier.flush()
        backend.clock.move_to(end)
        backend.settle()

    @property
    def faults(self) -> list[Fault]:
        """What goes wrong from now on: a list to change, or to replace, at any time. Used-up faults leave it."""
        return self._faults

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        self._faults[:] = faults

    def release(self) -> None:
        """Let every request go on that a `stall` holds."""
        self._running.front.release()

    # --- looking -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Address of the API, without a slash at the end; known once started."""
        if self._url is None:
            raise RuntimeError("The sandbox has not started: use it with `async with`.")
        return self._url

    @property
    def jobs(self) -> list[SandboxJob]:
        """Every job that was made, deleted ones too, oldest first."""
        backend = self._running
        now = backend.settle()
        return [self._view(job, now) for job in backend.world.made]

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last 20,000 requests, oldest first."""
        return list(self._running.front.records)

    @property
    def deliveries(self) -> list[RecordedDelivery]:
        """Every attempt to deliver a webhook, oldest first."""
        return list(self._running.courier.records)

    @property
    def charged(self) -> float:
        """What all jobs have cost so far, in dollars."""
        self._running.settle()
        return self._running.world.spent

    def fail(self, lipsync_id: str, message: str) -> None:
        """End a job that is on its way, now, as failed.

        In a manual sandbox its webhooks go out with the next `advance`.

        Args:
            lipsync_id: The job.
            message: Its `failure_message`.

        Raises:
            LookupError: There is no such job.
            ValueError: It has ended already.
        """
        backend = self._running
        now = backend.settle()
        if backend.world.find(lipsync_id) is None:
            raise LookupError(f"There is no lipsync {lipsync_id!r}.")
        backend.world.fail(lipsync_id, message, now)
        backend.courier.look()

    @property
    def _running(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("The sandbox has not started: use it with `async with`.")
        return self._backend

    def _view(self, job: Job, now: float) -> SandboxJob:
        wall = self._running.clock.wall
        return SandboxJob(
            id=job.id,
            status=job.state(now),
            title=job.title,
            body=job.body,
            charged=job.price / 1_000_000,
            created_at=wall(job.created_at),
            ended_at=None if job.ended_at is None else wall(job.ended_at),
            failure_message=job.failure_message,
            deleted=job.deleted,
            batch_id=job.batch.id if job.batch else None,
        )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # it broke: let that be seen
