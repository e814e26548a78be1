"""The `Sandbox`: its start and stop, its clock, and what a test can look at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, Unpack

from aiohttp import web
from anyio import to_thread

from heygen_async.sandbox.address import Address, listening
from heygen_async.sandbox.backend import Backend
from heygen_async.sandbox.faults import Fault, FaultList, checked_faults
from heygen_async.sandbox.http.api_app import application
from heygen_async.sandbox.http.control import PREFIX, control_app
from heygen_async.sandbox.http.storage import sample
from heygen_async.sandbox.option_checks import number, text
from heygen_async.sandbox.recording.exchange import Exchange, load_recordings
from heygen_async.sandbox.records import RecordedDelivery, RecordedRequest, SandboxJob
from heygen_async.sandbox.settings import (
    CHECKS,
    JobSeconds,
    SandboxOptions,
    Settings,
    check_names,
)
from heygen_async.sandbox.state.clock import LATEST, Clock, ManualClock
from heygen_async.sandbox.state.world import SimulatedJob

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

_GREETING: Final = """\
The sandbox listens at {url}; its API key is {word}.
{url}/_sandbox shows what happens in it.

    export HEYGEN_BASE_URL={url} HEYGEN_API_KEY={word}

    curl -X POST {url}/v3/lipsyncs -H {header} -H "Content-Type: application/json" \\
      -d '{{"video": {{"type": "url", "url": "https://example.com/source.mp4"}},
           "audio": {{"type": "url", "url": "https://example.com/new-audio.mp3"}}}}'
{manual}
Ctrl-C ends it."""

_MANUAL: Final = """
Its time stands still until somebody moves it:

    curl -X POST {url}/_sandbox/advance -H "Content-Type: application/json" -d '{{"seconds": 20}}'
"""

_NOT_MANUAL: Final = (
    "The time of this sandbox moves by itself, so it cannot be advanced. Start it with Sandbox(manual=True); in a test "
    "with the fixture, mark that with @pytest.mark.heygen_sandbox(manual=True); on the command line, use --manual."
)

_SHUTDOWN_SECONDS: Final = 0.05
"""How long requests in progress have to end, twice: to be answered, then to be cancelled."""


class Sandbox:
    """A local stand-in for HeyGen with one account; use it with `async with`.

    Its clock is its own: it runs *speed* times as fast as real time, or, with *manual*, only in `advance`.
    A job costs its price when it is created, and is refunded if it fails. All arguments are keywords.

    A source URL on the host `sandbox.invalid` scripts its job: `https://sandbox.invalid/v.mp4?seconds=600` runs for
    600 s, `?fail=No+face` fails with that message, `?duration=42.5` sets the length of the output and so its price,
    `?refuse=download_failed` (or `content_policy_violation`) refuses the create. Any other URL stands for the sample
    video: the sandbox reads nothing from the network. An uploaded video comes back as it was sent.

    Args:
        api_key: The key that it accepts, as `X-Api-Key` or as a bearer token; `"sandbox-key"` by default.
        host: Address to listen on; `"127.0.0.1"` by default. On every address, `"0.0.0.0"` or `"::"`, links have the
            host by which their request came, and `url` is the loopback address.
        port: Port to listen on; 0, the default, takes a free one.
        speed: Seconds of sandbox time per second of real time; 1 by default, a million at most. Links and idempotency
            keys age as fast: at 10,000, a key is forgotten after 9 real seconds.
        manual: Whether time stands still except in `advance`.
        seed: Seed of ids and faults; the same seed and the same requests give the same answers.
        scopes: What the key may do: `"*:*"` (the default), or `NOUN:read`, `NOUN:write`, `NOUN:*` with the nouns
            `lipsync`, `assets`, `webhooks` and `account`; write includes read. A call beyond them gets a 403.
        key_seconds: Sandbox time after which the key expires and gets a 401; None, the default, is never.
        account_limit: Jobs that the account runs at once, 10 by default; None is no limit. A create past it gets a
            429; jobs of a batch are queued instead. May be assigned at any time.
        other_jobs: How many of these places are taken by other work of the account, such as translations; 0 by
            default. May be assigned at any time.
        job_seconds: How long a job runs, in sandbox time: a number (20 by default), numbers to repeat in order, or a
            function of the create's body.
        billing: `"wallet"` (the default), `"subscription"` or `"usage_based"`: the shape of `GET /v3/users/me`.
        currency: `"usd"` (the default) or `"credits"`: the unit of *balance*, *rates* and `charged`.
        balance: What the account can spend; 100 by default. A job that costs more gets a 402.
        rates: Price of a second of output by mode; by default 0.0333 and 0.0667 usd, or 0.05 and 0.1 credits.
        retry_after: Seconds, rounded up, in the `Retry-After` of a refused create; 1 by default.
        link_seconds: How long a presigned link works, in sandbox time; 7 days by default, and at most.
        latency: Real seconds that each answer takes, 0 by default; or by route, as in `{"POST /v3/lipsyncs": 0.15,
            "GET *": 0.05}`, of which the first match counts.
        max_asset_bytes: Largest direct upload; 1 GiB by default.
        max_multipart_bytes: Largest multipart upload; 32 MiB by default.
        ingest_seconds: How long, in sandbox time, a direct upload is `processing` after `complete`; 0 by default.
        captions: What the caption link of a completed job leads to: `"ready"` (the default), `"empty"` (0 bytes) or
            `"gone"` (404).
        caption_seconds: How long after the end of a job, in sandbox time, its caption link answers 404; 0 by default.
        statuses_available: Whether the account has `GET /v3/lipsyncs/statuses`; true by default.
        batches_available: Whether the account has batches; true by default.
        lipsync_events: Whether `lipsync.success` and `lipsync.fail` are event types. The API publishes none for
            single lipsyncs, so by default only a `callback_url` is notified of them.
        callback_shape: The body sent to a `callback_url`: `"event"` (the default) is `{"event_type", "event_data"}`,
            `"flat"` an object with `lipsync_id`, `status` and `video_url` or `failure_message`.
        callback_secret: The secret that callbacks are signed with; None, the default, leaves them unsigned.
        signature_header: Name of the signature's header; `"Heygen-Signature"` by default.
        request_ids: Whether answers have the header `X-Request-Id`; true by default.
        faults: What goes wrong, see `heygen_async.sandbox.faults`.
        recordings: A directory of recordings, see `heygen_async.sandbox.recording`. Lipsyncs, batches, the account and
            events are answered from them where they match, and everything else as usual. Recorded jobs are in their
            final state at once, are not in `jobs`, and have no callbacks.

    Raises:
        TypeError: An argument is unknown, or of another type.
        ValueError: An argument is out of range.

    Starting it raises an `OSError` or `ValueError` if the recordings cannot be read, or there are none.
    """

    def __init__(self, **options: Unpack[SandboxOptions]) -> None:
        check_names(options)
        self._settings = Settings(**options)
        self._faults = FaultList(self._settings.faults)
        self.on_finished: Callable[[str], object] | None = None
        """Called with the id of each lipsync that ends, on the sandbox's event loop; None by default.

        `sandbox.on_finished = heygen.poller.notify` makes waits see the end of a job at once.
        """
        self._url: str | None = None
        self._backend: Backend | None = None
        self._new_backend: Callable[..., Backend]
        self._delivering: asyncio.Task[None] | None = None
        self._ending = contextlib.AsyncExitStack()

    # --- start and stop ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._backend is not None:
            raise RuntimeError("A sandbox starts once; create a new one.")
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._ending = stack.pop_all()
        return self

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        socket_ = stack.enter_context(listening(self._settings.host, int(self._settings.port)))
        address = Address.of(socket_.getsockname())
        self._url = address.url
        directory = await to_thread.run_sync(partial(tempfile.mkdtemp, prefix="heygen-sandbox-"))
        stack.push_async_callback(to_thread.run_sync, partial(shutil.rmtree, directory, ignore_errors=True))
        sample_file = await to_thread.run_sync(sample, SAMPLE_VIDEO)
        recordings = await to_thread.run_sync(_loaded, self._settings.recordings)
        self._new_backend = partial(
            Backend,
            self._settings,
            faults=self._faults,
            address=address,
            directory=Path(directory),
            sample=sample_file,
            recordings=recordings,
            on_finished=self._finished,
        )
        app = application(lambda: self._running.app)
        app.add_subapp(PREFIX, control_app(self))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        stack.push_async_callback(_stop, runner)
        await runner.setup()
        stack.push_async_callback(lambda: _end(self._delivering))
        self._begin()
        await web.SockSite(runner, socket_).start()

    def _begin(self) -> None:
        self._backend = self._new_backend(clock=self._make_clock())
        if not self._settings.manual:
            self._delivering = asyncio.create_task(self._backend.deliveries.run())

    async def reset(self) -> None:
        """Forget everything that happened, and start again as with a new sandbox of the same options and address.

        Jobs, assets, webhooks, requests and keys are gone, stalled requests continue, `faults` are those of the
        options, money and time start again, and so do ids. A session keeps what it knows of its uploads and keys, so
        make a new one too.

        What is awaited is the end of deliveries that are under way; if cancelled, it has been reset all the same.
        """
        self._running.app.release()
        self.faults = self._settings.faults
        delivering = self._delivering
        self._begin()
        await _end(delivering)

    def _finished(self, lipsync_id: str) -> None:
        if self.on_finished is not None:
            self.on_finished(lipsync_id)

    def _make_clock(self) -> Clock:
        if self._settings.manual:
            return ManualClock()
        return Clock(asyncio.get_running_loop().time, speed=self._settings.speed, started_at=time.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ending.aclose()

    # --- time --------------------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Move the clock of a manual sandbox; what falls due happens in order, each thing at its own moment.

        Moves: the state of jobs, batches and assets, `created_at`, the expiry of links, keys and idempotency keys,
        and the redelivery of webhooks. Webhooks are delivered and answered in here.

        Does not move: real time. The client waits in real seconds between two requests for a status and between two
        attempts. The pytest plugin makes the waits of every session see the end of a job at once; elsewhere assign
        `on_finished`. `latency` and `Retry-After` are real seconds too.

        If cancelled, the clock stays where it is, and a webhook without an answer is delivered again later.

        Args:
            seconds: How far, in sandbox time; 0 delivers what is due now.

        Raises:
            RuntimeError: The sandbox is not manual.
            ValueError: *seconds* is below 0, not finite, or leads beyond the calendar.
        """
        backend = self._running
        number()("seconds", seconds)
        if not isinstance(backend.clock, ManualClock):
            raise RuntimeError(_NOT_MANUAL)  # noqa: TRY004 - a wrong state
        end = backend.clock.now() + seconds
        if end > LATEST:
            raise ValueError(f"seconds must not lead beyond {LATEST:,} seconds of sandbox time.")
        await backend.deliveries.flush()
        while (due := backend.next_due()) is not None and due <= end:
            backend.clock.move_to(due)
            await backend.deliveries.flush()
        backend.clock.move_to(end)
        backend.settle()

    @property
    def is_manual(self) -> bool:
        """Whether time moves only in `advance`."""
        return self._settings.manual

    @property
    def speed(self) -> float:
        """Seconds of sandbox time per second of real time, unless it is manual."""
        return self._settings.speed

    @property
    def now(self) -> float:
        """Seconds of sandbox time since its start."""
        return self._running.clock.now()

    @property
    def faults(self) -> list[Fault]:
        """What goes wrong from now on: a list to change or to replace at any time. Used-up faults leave it.

        Whatever is added is a `Fault`, else a `TypeError` is raised.
        """
        return self._faults

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        self._faults[:] = checked_faults(faults)

    def release(self) -> None:
        """Let every request that a `stall` fault holds continue."""
        self._running.app.release()

    def forget_keys(self) -> None:
        """Forget every idempotency key, as the API does after 24 hours: its next request is a new one."""
        self._running.app.forget_keys()

    # --- the account's limit -----------------------------------------------------------------------------

    @property
    def account_limit(self) -> int | None:
        """Jobs that the account runs at once; None is no limit. Running jobs continue when it is lowered."""
        return self._running.world.account_limit

    @account_limit.setter
    def account_limit(self, jobs: int | None) -> None:
        self._resize(jobs, self.other_jobs)

    @property
    def other_jobs(self) -> int:
        """How many places of the account are taken by other work."""
        return self._running.world.other_jobs

    @other_jobs.setter
    def other_jobs(self, jobs: int) -> None:
        self._resize(self.account_limit, jobs)

    def _resize(self, account_limit: int | None, other_jobs: int) -> None:
        CHECKS["account_limit"]("account_limit", account_limit)
        CHECKS["other_jobs"]("other_jobs", other_jobs)
        backend = self._running
        backend.world.resize(backend.settle(), account_limit=account_limit, other_jobs=other_jobs)
        backend.deliveries.wake()

    # --- what happened -----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Address of the API for this machine, without a slash at the end; known once started."""
        if self._url is None:
            raise RuntimeError("The sandbox has not started: use it with `async with`.")
        return self._url

    @property
    def api_key(self) -> str:
        """The key that it accepts."""
        return self._settings.api_key

    @property
    def jobs(self) -> list[SandboxJob]:
        """Every job that was created, deleted ones too, oldest first."""
        backend = self._running
        now = backend.settle()
        return [self._view(job, now) for job in backend.world.created]

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last 20,000 requests, oldest first."""
        return list(self._running.app.records)

    @property
    def unused_recordings(self) -> list[Exchange]:
        """The recorded requests that create or change something and have not been made, in their order."""
        return self._running.unused_recordings

    @property
    def deliveries(self) -> list[RecordedDelivery]:
        """Every attempt to deliver a webhook, oldest first."""
        return list(self._running.deliveries.records)

    @property
    def charged(self) -> float:
        """What all jobs have cost so far, in the account's currency."""
        self._running.settle()
        return self._running.world.spent

    def fail(self, lipsync_id: str, message: str) -> None:
        """End a job that has not ended, now, as failed.

        In a manual sandbox its callback is sent in the next `advance`.

        Args:
            lipsync_id: The job.
            message: Its `failure_message`.

        Raises:
            LookupError: There is no such job.
            TypeError: *message* is not text.
            ValueError: The job has ended already, or *message* has half of a surrogate pair, which cannot be sent.
        """
        text("message", message)
        self._end(lipsync_id, message)

    def finish(self, lipsync_id: str) -> None:
        """End a job that has not ended, now, as completed.

        In a manual sandbox its callback is sent in the next `advance`.

        Args:
            lipsync_id: The job.

        Raises:
            LookupError: There is no such job.
            ValueError: It has ended already.
        """
        self._end(lipsync_id, None)

    def _end(self, lipsync_id: str, failure: str | None) -> None:
        backend = self._running
        now = backend.settle()
        if backend.world.find(lipsync_id) is None:
            raise LookupError(f"There is no lipsync {lipsync_id!r}.")
        backend.world.end(lipsync_id, failure, now)
        backend.settle()
        backend.deliveries.wake()

    @property
    def _running(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("The sandbox has not started: use it with `async with`.")
        return self._backend

    def _view(self, job: SimulatedJob, now: float) -> SandboxJob:
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


def _loaded(directory: str | os.PathLike[str] | None) -> Sequence[Exchange]:
    if directory is None:
        return ()
    if recordings := load_recordings(directory):
        return recordings
    # Every answer would be the sandbox's own.
    raise ValueError(f"no recordings in {os.fspath(directory)}; make them with heygen-async sandbox --record")


async def _stop(runner: web.AppRunner) -> None:
    """Stop serving; a connection that was accepted meanwhile is closed too."""
    server = runner.server
    await runner.cleanup()
    for connection in server.connections if server is not None else ():
        connection.force_close()


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # it broke: let that be seen


def greeting(sandbox: Sandbox) -> str:
    """Return what a person needs to use a running *sandbox*: its address, its key, and a `curl` line that works."""
    manual = _MANUAL.format(url=sandbox.url) if sandbox.is_manual else ""
    word, header = shlex.quote(sandbox.api_key), shlex.quote(f"X-Api-Key: {sandbox.api_key}")
    return _GREETING.format(url=sandbox.url, word=word, header=header, manual=manual)
