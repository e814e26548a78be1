"""The session: the one object that a program opens and closes, with all calls as its attributes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Literal, Self, Unpack

from attrs import evolve

from heygen_async._arguments import check_count, check_keywords, check_timeout, check_type
from heygen_async._ids import check_optional_key
from heygen_async._transport.connections import Connections
from heygen_async._transport.driver import Transport
from heygen_async._transport.gate import Gate
from heygen_async._transport.http import Http
from heygen_async._transport.origin import SecretHeaders, check_headers, concealed, make_origin
from heygen_async._wire import Parameter, Response, compose_raw
from heygen_async.models import JSON, DubRow, FilePath, Lipsync, LipsyncOptions, Source
from heygen_async.policies import PollPolicy, RetryPolicy, Timeouts

if TYPE_CHECKING:
    import aiohttp

    from heygen_async._bulk_calls import BulkCalls
    from heygen_async._calls import Calls
    from heygen_async._media.transfers import Progress
    from heygen_async.bulk.events import DubEvent
    from heygen_async.bulk.run import DubRun
    from heygen_async.diagnosis import Diagnosis
    from heygen_async.polling import LipsyncPoller
    from heygen_async.resources.account import Accounts
    from heygen_async.resources.assets import Assets
    from heygen_async.resources.lipsyncs import Lipsyncs
    from heygen_async.resources.webhook_endpoints import WebhookEndpoints

__all__ = ("HeyGenSession",)


class HeyGenSession:
    """A session with HeyGen's v3 API.

    It can be created anywhere, at import time too. It opens on first use or with `async with`, on the running event
    loop, and is closed with `aclose()` or by leaving the `async with`, in any task.

    Args:
        api_key: The API key; by default the environment variable `HEYGEN_API_KEY`, read now. White space around it is
            ignored.
        access_token: An OAuth token instead of a key.
        base_url: The address of the API without `/v3`, https or on loopback; by default the environment variable
            `HEYGEN_BASE_URL`, read now, else `https://api.heygen.com`.
        http: An `aiohttp.ClientSession` of the same event loop to borrow. Its connector, proxy, tracing and `trust_env`
            are used; its headers, cookies, middlewares, timeouts and `base_url` are not, and it is never closed.
        retry: When requests are sent again.
        polling: How often the status of jobs is requested while they are awaited.
        timeouts: How long each kind of operation may take.
        max_connections: Requests in flight at once, 1 or more, and no more than the connector of `http` allows; others
            wait, without using up their timeout.
        max_requests_per_second: The most requests that leave in a second, after a burst of as many, more than 0; `None`
            for no limit.
        max_response_bytes: The longest answer of the API that is read, in bytes after decompression, 1 or more.
        max_download_bytes: The longest video that is downloaded, in bytes, 1 or more. A download ends there with a
            `DownloadError`, also if its file host gives no length.
        headers: Headers to add to every request to the API, printable ASCII.
        trust_env: Whether the proxies of `HTTP_PROXY` and `HTTPS_PROXY` are used, with their passwords in `.netrc`.
            They are always used if `http` itself has `trust_env`.
        trace_configs: aiohttp's tracing, such as OpenTelemetry's instrumentation creates.
        ssl: An `ssl.SSLContext` for the connections of the session, with a private CA for instance; or `False`, which
            needs a `base_url` on loopback, and verifies no certificate of a host on loopback. Not together with `http`.

    Raises:
        TypeError, ValueError: If an argument is wrong or there is no key; the message names the argument, and never
            shows the key. Use after closing, or on another event loop, raises a `RuntimeError`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        access_token: str | None = None,
        base_url: str | None = None,
        http: aiohttp.ClientSession | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 frozen
        polling: PollPolicy = PollPolicy(),  # noqa: B008 frozen
        timeouts: Timeouts = Timeouts(),  # noqa: B008 frozen
        max_connections: int = 100,
        max_requests_per_second: float | None = None,
        max_response_bytes: int = 16 << 20,
        max_download_bytes: int = 16 << 30,
        headers: Mapping[str, str] | None = None,
        trust_env: bool = False,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        ssl: SSLContext | Literal[False] | None = None,
    ) -> None:
        key, token = concealed(api_key), concealed(access_token)
        del api_key, access_token  # or a traceback with local variables would show them
        try:
            secret_headers = check_headers(headers)
            origin = make_origin(key, token, base_url, os.getenv)
        except (TypeError, ValueError) as error:
            del headers, base_url  # as above: a wrong URL may have a password in it
            raise error.with_traceback(None) from None
        del headers, base_url  # as above
        check_type("polling", polling, PollPolicy)
        check_type("retry", retry, RetryPolicy)
        check_type("timeouts", timeouts, Timeouts)
        self._connections = Connections(
            origin, borrowed=http, ssl=ssl, trust_env=trust_env, trace_configs=trace_configs
        )
        exchanges = Http(self._connections, max_response_bytes=max_response_bytes)
        most = self._connections.at_most(check_count("max_connections", max_connections))
        gate = Gate(max_connections=most, max_requests_per_second=max_requests_per_second)
        self._transport = Transport(exchanges, gate, retry, timeouts, secret_headers)
        self._max_download_bytes = check_count("max_download_bytes", max_download_bytes)
        self._polling = polling

    @cached_property
    def lipsyncs(self) -> Lipsyncs:
        """Create, get, list, update and delete lipsyncs."""
        return self._calls.lipsyncs

    @cached_property
    def assets(self) -> Assets:
        """Upload files."""
        return self._calls.assets

    @cached_property
    def account(self) -> Accounts:
        """The account and the key."""
        return self._calls.account

    @cached_property
    def webhooks(self) -> WebhookEndpoints:
        """Manage webhook endpoints."""
        return self._calls.webhooks

    @cached_property
    def poller(self) -> LipsyncPoller:
        """Waits for many jobs at once."""
        return self._calls.poller

    @cached_property
    def _calls(self) -> Calls:
        from heygen_async._calls import Calls  # noqa: PLC0415 a third of what a session takes to import

        calls = Calls.make(self._transport, self._polling, self._max_download_bytes)
        if self._connections.state == "closed":
            calls.close()
        return calls

    def with_options(
        self,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HeyGenSession:
        """Return a view of this session with other options.

        It shares the connections, the limits, the memory of idempotency keys and the poller (which keeps its options).
        Closing it does nothing.

        Args:
            timeouts: As for the session; `None` keeps them.
            retry: As for the session; `None` keeps it.
            headers: Headers to add to those of the session, or to replace those with the same name.

        Raises:
            TypeError, ValueError: If an argument is wrong; the message names it.
        """
        try:
            others = check_headers(headers)
        except (TypeError, ValueError) as error:
            del headers  # as below
            raise error.with_traceback(None) from None
        del headers  # or a traceback with local variables would show them
        check_type("retry", retry, RetryPolicy, is_optional=True)
        check_type("timeouts", timeouts, Timeouts, is_optional=True)
        ours = self._transport
        merged = _merged(ours.headers, others)
        return _View(self, evolve(ours, retry=retry or ours.retry, timeouts=timeouts or ours.timeouts, headers=merged))

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Parameter] | None = None,
        json: JSON = None,
        idempotency_key: str | None = None,
    ) -> Response:
        """Make any other call of the v3 API, with the same retries and errors as every call.

        Args:
            method: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
            path: From `/v3/` on, percent-encoded where necessary, without a query.
            params: The query; `None` values are left out.
            json: The body.
            idempotency_key: For a POST, 1 to 255 of `A-Z a-z 0-9 _ - : .`; by default a new one.

        Returns:
            Status, headers, and as `.data` the parsed JSON body, envelope included.

        Raises:
            TypeError, ValueError: If an argument is wrong, or the idempotency key was used for a different request in
                this session; nothing was sent.
            HeyGenError: With `.idempotency_key`, `.attempts` and `.outcome`; see `heygen_async.errors`.
            RuntimeError: If the session is closed, or in use by another event loop.

        A cancelled call stops at once; its `asyncio.CancelledError` has the same three attributes.
        """
        try:
            check_type("params", params, Mapping, is_optional=True)
            key = check_optional_key(idempotency_key)
            request = compose_raw(method, path, params=params, json=json, idempotency_key=key)
        except (TypeError, ValueError) as error:
            del method, path, params, json  # as below; the first two may be links by mistake
            raise error.with_traceback(None) from None
        del params, json  # or a traceback with local variables would show the links in them
        return await self._transport.send(request)

    async def doctor(self) -> Diagnosis:
        """Look at the network, the key, the account and the API, read-only and free of charge.

        It makes up to 17 GET requests; each is repeated at most once, after a transient error. A problem is a finding,
        not an error. If cancelled, it stops at once.

        Returns:
            What was seen, without secrets. Its `.findings` say what to do.

        Raises:
            RuntimeError: If the session is closed, or in use by another event loop.
        """
        from heygen_async._doctor.examination import examine  # noqa: PLC0415 few programs need it

        return await examine(self._transport)

    async def dub(
        self,
        *,
        video: Source,
        audio: Source,
        output: FilePath | None = None,
        captions: bool = False,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[LipsyncOptions],
    ) -> Lipsync:
        """Create a lipsync, wait for it, and write it to *output*: `create`, `wait` and `download` in one. Return it.

        Args:
            video: As for `lipsyncs.create`.
            audio: As for `lipsyncs.create`.
            output: The file to write, as for `download`; `None` writes none. Everything that can be known about it
                is checked before anything is sent.
            captions: Whether to write the captions beside *output*; `enable_caption=True` means the same. A problem
                with them is logged, and never raised once the job is created.
            timeout: Seconds for the whole call; `None` for no limit but `PollPolicy.longest` on the wait.
            idempotency_key: As for `lipsyncs.create`: if the program is run again with the same key within 24 hours,
                the server returns the job that it has already created.
            **options: As for `lipsyncs.create`.

        Raises:
            WaitTimeout: If the time is up. `.lipsync_id` is `None` if the create was not answered in time; then
                `.outcome` and `.idempotency_key` say what is known of it.
            LipsyncFailed: If the job failed.
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            DownloadError: If *output* cannot be written, before anything is sent; or the video cannot be downloaded.
            OSError: If a source cannot be read.
            HeyGenError: As `lipsyncs.create` and `LipsyncJob.wait` do, with the `.idempotency_key` of the create.
            RuntimeError: If the session is closed, or in use by another event loop.

        A cancelled call stops at once, and a job that was created goes on; an unfinished download can be resumed. Its
        `asyncio.CancelledError` has `.idempotency_key`, `.attempts` and `.outcome` as those of `lipsyncs.create`; once
        there is a job, `.outcome` is `None`, and another call with that key returns the job.
        """
        try:
            check_keywords("dub", options, LipsyncOptions.__annotations__)
            check_timeout(timeout)
            call = self._calls.dub(output, captions=captions, options=options)
        except (TypeError, ValueError, RuntimeError) as error:
            del video, audio, options  # as below
            raise error.with_traceback(None) from None
        create = call.creation(video, audio, idempotency_key, options)
        del video, audio, options  # or a traceback with local variables would show the links in them
        return await call.run(create, timeout, idempotency_key)

    def dub_many(
        self,
        rows: Iterable[DubRow] | AsyncIterable[DubRow],
        *,
        journal: FilePath | None,
        output_dir: FilePath | None = None,
        max_in_flight: int | None = None,
        max_attempts: int = 3,
        budget: float | None = None,
        rates: Mapping[str, float] | None = None,
        submit: Literal["each", "batch"] = "each",
        captions: bool = False,
        retry_failed: bool = False,
        redo_rejected: bool = False,
        on_event: Callable[[DubEvent], None] | None = None,
    ) -> DubRun:
        """Dub any number of rows: upload, create, wait and download each, as many at once as the account allows.

        The state of each row is kept in *journal*. After a crash, a Ctrl-C or an outage, run it again with the same
        rows and the same journal: it continues, creates no job twice and loses none.

        Args:
            rows: The rows. All are checked before anything is sent, and the run uses them as they were checked; rows
                of an iterator are checked one by one. The rows are never all in memory. `heygen_async.bulk.Manifest`
                reads them from a file.
            journal: The SQLite file; `None` keeps the journal in memory, for runs that need not survive a crash. A
                journal belongs to one API and one account.
            output_dir: The folder for the videos, created if it is missing; a row's `output` is relative to it.
                Without it only rows with an `output` are downloaded.
            max_in_flight: The most jobs at once, 1 or more; `None` finds out what the account allows.
            max_attempts: The most jobs for one row if jobs fail for transient reasons, 1 or more.
            budget: Dollars, for all runs on this journal. Submitting stops when the estimate would exceed it; the
                rows that are left are skipped. For an output of unknown length, the longest seen is assumed (60 s
                before any was seen), or the length of the row's own video or audio if that is known and longer.
            rates: Dollars per second of output, by mode, for the estimate; the default is the published rates.
            submit: `each` creates jobs one by one, up to what the account allows at once; `batch` creates up to 100
                in a request, which the server queues.
            captions: Whether captions are written beside each video, as `.srt`. A row decides for itself with
                `captions`, and `enable_caption=True` counts as a request. A problem with captions never blocks the
                video: it is in `DubOutcome.warnings`.
            retry_failed: Whether rows that failed in earlier runs get another attempt, final failures included, and
                rows whose job was deleted. Local files of failed rows are uploaded again, each once: HeyGen may have
                lost the uploads.
            redo_rejected: Whether rows whose video was rejected get another job; they may have changed. Their files are
                replaced by the new ones.
            on_event: Called with each `DubEvent`, on the event loop. An exception that it raises ends the run.

        Returns:
            The run. Enter it with `async with` and iterate over it: outcomes arrive in order of completion.

        Raises:
            TypeError, ValueError: If an argument is wrong.
        """
        from heygen_async.bulk.plan import Plan  # noqa: PLC0415 sqlite3 is slow to load
        from heygen_async.bulk.run import DubRun  # noqa: PLC0415
        from heygen_async.bulk.store import UnixClock  # noqa: PLC0415

        time = self._transport.server_time
        plan = Plan(
            journal=journal,
            output_dir=output_dir,
            max_in_flight=max_in_flight,
            max_attempts=max_attempts,
            budget=budget,
            rates=rates,
            submit=submit,
            captions=captions,
            retry_failed=retry_failed,
            redo_rejected=redo_rejected,
            on_event=on_event,
            clock=UnixClock(time.now, time.latest),
        )
        return DubRun(self._bulk_calls(), rows, plan, origin=self._connections.origin.base_url)

    def _bulk_calls(self, pace: Callable[[], Awaitable[None]] | None = None) -> BulkCalls:
        """Return the calls of a bulk run; *pace* returns once a request may leave."""
        return self._calls.of_run(pace)

    async def download(
        self,
        lipsync: Lipsync | str,
        path: FilePath,
        *,
        overwrite: bool = False,
        captions: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write the video of a completed lipsync to *path*, and its captions beside it if they are wanted.

        Data is written to `PATH.part` and renamed when complete; `PATH.part.etag` beside it names the lipsync. An
        interrupted download is resumed, in this call and by the next one for the same lipsync and path. The
        unfinished download of another lipsync is never touched. An expired link is renewed.

        Args:
            lipsync: The lipsync, or its id.
            path: The file to write, in a folder that exists; or a folder that exists, for a name made of title and
                id. A leading `~` is the home folder. A path that ends with a separator is a folder.
            overwrite: Whether files that exist may be replaced.
            captions: Whether to write the captions too, as `.srt`, once the video is complete. A problem with them
                is logged as a warning and not raised; see `download_captions`.
            progress: A function or coroutine function, called with the bytes of the video that are done, and in all.

        Returns:
            The path of the video.

        Raises:
            DownloadError: If *path* cannot be written, before any request where that can be known; if the job is not
                completed; if the video cannot be downloaded within `RetryPolicy`, is longer than
                `max_download_bytes`, or is cut short. `.is_transient` is true if the host or the network failed.
            LipsyncFailed: If the job failed.
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            HeyGenError: If the API does not return the lipsync.
            RuntimeError: If the session is closed, or in use by another event loop.

        If cancelled, it stops at once, and keeps the `.part` to be resumed.
        """
        downloads = self._calls.downloads
        return await downloads.download(lipsync, path, overwrite=overwrite, captions=captions, progress=progress)

    async def download_captions(self, lipsync: Lipsync | str, path: FilePath, *, overwrite: bool = False) -> Path:
        """Write the captions of a completed lipsync beside its video, with the extension `.srt`.

        Args:
            lipsync: The lipsync, or its id.
            path: The path of the video, as for `download`; it need not exist.
            overwrite: Whether a file that exists may be replaced.

        Returns:
            The path of the captions.

        Raises:
            DownloadError: If they cannot be written, before any request where that can be known; if there are none
                (yet), or they are empty or cannot be downloaded.
            LipsyncFailed: If the job failed.
            TypeError, ValueError: If an argument is wrong; nothing was sent.
            HeyGenError: If the API does not return the lipsync.
            RuntimeError: If the session is closed, or in use by another event loop.

        If cancelled, it stops at once and writes nothing.
        """
        return await self._calls.downloads.download_captions(lipsync, path, overwrite=overwrite)

    def iter_bytes(self, lipsync: Lipsync | str) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes of the video of a completed lipsync, in pieces of any size, resumed as in `download`.

        If you stop early, wrap it in `contextlib.aclosing`, or the connection stays open until it is collected.

        Args:
            lipsync: The lipsync, or its id.

        Raises:
            DownloadError: As `download` does; also if the download must start again after bytes were yielded.
            LipsyncFailed: If the job failed.
            TypeError, ValueError: If *lipsync* is neither a lipsync nor an id; nothing was sent.
            HeyGenError: If the API does not return the lipsync.
            RuntimeError: If the session is closed, or in use by another event loop.

        Steps raise these errors: nothing is sent before the first. Cancelling a step ends the iteration.
        """
        return self._calls.downloads.iter_bytes(lipsync)

    async def aclose(self) -> None:
        """Close the session. Waits on its jobs end with a `RuntimeError`; the jobs themselves go on.

        Calls that wait for their next attempt end with the error of the last one, transfers with a `RuntimeError`. A
        second time it does nothing. A borrowed `aiohttp.ClientSession` stays open. If cancelled, it is closed all the
        same.

        Raises:
            RuntimeError: If it was opened on another event loop; it stays open.
        """
        self._connections.ensure_closable()
        if "_calls" in vars(self):
            self._calls.close()
        self._transport.gate.close()
        await self._connections.aclose()

    async def __aenter__(self) -> Self:
        self._connections.ensure_open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        ours: Connections | None = vars(self).get("_connections")  # missing while an error of the constructor is shown
        return "<HeyGenSession>" if ours is None else f"<HeyGenSession {ours.origin.base_url} {ours.state}>"


def _merged(headers: Mapping[str, str], others: Mapping[str, str]) -> SecretHeaders:
    """Return *headers* with *others* added, or in the place of those with the same name, in any case."""
    replaced = {name.lower() for name in others}
    kept = {name: value for name, value in headers.items() if name.lower() not in replaced}
    return SecretHeaders({**kept, **others})


class _View(HeyGenSession):
    """A session with options of its own, over everything else of another."""

    def __init__(self, session: HeyGenSession, transport: Transport) -> None:
        self._session, self._connections, self._transport = session, session._connections, transport  # noqa: SLF001 its own base

    @cached_property
    def _calls(self) -> Calls:
        return self._session._calls.over(self._transport)  # noqa: SLF001 the same

    async def aclose(self) -> None:
        """Do nothing: the session that it is a view of is closed by its owner."""
