"""The server of the run page, on 127.0.0.1 only: the page, the rows of a journal, their videos, and decisions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from anyio import to_thread
from attrs import define, field, frozen

from heygen_async._text import whole_characters
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.outputs import absolute_path
from heygen_async.bulk.record import Record
from heygen_async.bulk.store import JournalError
from heygen_async.models import JSON, DubRow
from heygen_async.review.access import HEADERS, POLICY, has_token, origin_of, policy, refusal
from heygen_async.review.captions import web_captions
from heygen_async.review.decisions import MOST_BYTES, Refused, check_decision, read_decision
from heygen_async.review.event_stream import send_events
from heygen_async.review.live_rows import ChangedRows, LiveRows
from heygen_async.review.page_files import INDEX, PageFile, read_page_files
from heygen_async.review.result_files import NotShown, open_result, open_source, read_again, read_captions, video_type
from heygen_async.review.row_reader import RowReader
from heygen_async.review.video_answers import opened_in_thread, send_video

HOST: Final = "127.0.0.1"
_SHUTDOWN_SECONDS: Final = 0.5
"""How long open connections may go on when the server ends."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@frozen(kw_only=True)
class LiveRun:
    """The run in progress beside the page."""

    rows: LiveRows
    state: Callable[[], Mapping[str, JSON]]
    """Returns how far it is; see `run_view`."""


@define(eq=False, kw_only=True)
class RunPage:
    """The run page of one journal.

    Args:
        journal: The journal; open.
        name: What the page calls it.
        rows: The rows of the manifest by key, for titles and sources; empty if there is no manifest.
        live: The run in progress, if there is one.
        token: What the path of every request starts with.
        now: Returns the Unix time in seconds.
    """

    journal: Journal
    name: str = field(converter=whole_characters)  # a file name may have bytes that are not text
    rows: Mapping[str, DubRow]
    live: LiveRun | None = None
    token: str = field(factory=lambda: secrets.token_urlsafe(24), repr=False)
    now: Callable[[], float] = time.time
    _changed: ChangedRows = field(init=False)
    _reader: RowReader = field(init=False)
    _policy: str = field(init=False)
    """That of the page itself, which shows videos of other hosts."""
    _once: set[str] = field(factory=set, init=False, repr=False)
    """Tokens that lead to the page once."""
    _sources: dict[str, FileInfo] = field(factory=dict, init=False)
    """Source videos that had to be read again, by path."""

    def __attrs_post_init__(self) -> None:
        live = None if self.live is None else self.live.rows
        self._changed = ChangedRows() if live is None else live.changed
        self._reader = RowReader(journal=self.journal, rows=self.rows, live=live)
        urls = (row.video for row in self.rows.values() if isinstance(row.video, str))
        self._policy = policy({origin for url in urls if (origin := origin_of(url)) is not None})

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[str]:
        """Serve the page while the body runs; yields its address, which contains the token.

        Args:
            port: The port; 0 takes a free one.

        Raises:
            OSError: If the port is taken.
        """
        runner = web.AppRunner(
            self._app(await to_thread.run_sync(read_page_files)),
            access_log=None,  # it would show the token
            handler_cancellation=True,  # a closed page ends its downloads
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port).start()
            yield f"http://{HOST}:{runner.addresses[0][1]}/{self.token}/"
        finally:
            await runner.cleanup()

    def address_once(self, url: str) -> str:
        """Return an address that leads to the page one time, for a browser to be started with.

        Other users of the machine can see the command line of a browser, but come too late to use its address. If no
        browser has started, `withdraw` it.

        Args:
            url: The address of the page.
        """
        token = secrets.token_urlsafe(24)
        self._once.add(token)
        return url.replace(self.token, token)

    def withdraw(self, address: str) -> None:
        """Have an address of `address_once` lead nowhere."""
        self._once.discard(urlsplit(address).path.strip("/"))

    def _app(self, files: Mapping[str, PageFile]) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=MOST_BYTES)
        app.on_response_prepare.append(self._add_headers)
        app.router.add_get("/{token}/", partial(_send_file, files[INDEX], {POLICY: self._policy}))
        for name in files.keys() - {INDEX}:
            app.router.add_get("/{token}/" + name, partial(_send_file, files[name], {}))
        app.router.add_get("/{token}/rows", self._send_rows)
        app.router.add_get("/{token}/events", self._send_events)
        app.router.add_get("/{token}/result", self._send_result)
        app.router.add_get("/{token}/source", self._send_source)
        app.router.add_get("/{token}/captions", self._send_captions)
        app.router.add_post("/{token}/decision", self._decide)
        return app

    # Every request

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.path.removeprefix("/").partition("/")[0]  # a path may be empty, or "*"
        is_once = given in self._once
        if not is_once and not has_token(self.token, given):
            return web.Response(status=404, text="not found")
        refused = refusal(request.method, request.headers)
        if refused is not None:
            return web.Response(status=403, text=refused)
        if is_once:
            self._once.remove(given)
            return web.Response(status=303, headers={"Location": f"/{self.token}/"})
        return await self._answer(request, handler)

    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (NotShown, Refused, JournalError) as error:
            return _aborted(request) if request.writer.output_size else _problem_of(error)
        except ConnectionResetError:  # the browser needs no more of a video, or its page was closed
            return web.Response()

    async def _add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)

    # Rows

    async def _send_rows(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"info": %b, "rows": [' % orjson.dumps(self._info()))
        comma = b""
        async for views in self._reader.pages():
            await response.write(comma + orjson.dumps(views)[1:-1])
            comma = b","
        await response.write(b"]}")
        return response

    def _info(self) -> dict[str, JSON]:
        return {"journal": self.name, "has_manifest": bool(self.rows), "is_live": self.live is not None}

    async def _send_events(self, request: web.Request) -> web.StreamResponse:
        return await send_events(request, self._reader, self._changed, self._run)

    def _run(self) -> Mapping[str, JSON] | None:
        return None if self.live is None else self.live.state()

    # Files

    async def _record(self, request: web.Request) -> Record:
        key = request.query.get("key", "")
        record = (await self.journal.records([key])).get(key)
        if record is None:
            raise Refused(404, "there is no such row")
        if request.query.get("job", record.lipsync_id) != record.lipsync_id:
            raise Refused(409, "the row has another video now")  # a decision would be about the one before
        return record

    async def _send_result(self, request: web.Request) -> web.StreamResponse:
        record = await self._record(request)
        file = await opened_in_thread(partial(open_result, record))
        return await send_video(request, file, video_type(record.target or ""), record.written or "")

    async def _send_source(self, request: web.Request) -> web.StreamResponse:
        row = self._reader.row(await self._record(request))
        if row is None or not isinstance(row.video, Path):
            raise NotShown("unknown")
        path = await to_thread.run_sync(absolute_path, row.video)
        known = (await self.journal.file_info([path])).get(path)
        info = self._sources.get(path, known)
        if info is not None and not info.fingerprint:  # it had only just been written when the run read it
            info = self._sources[path] = await to_thread.run_sync(read_again, path, info)
        file = await opened_in_thread(partial(open_source, path, info))
        return await send_video(request, file, video_type(path), "" if info is None else info.fingerprint)

    async def _send_captions(self, request: web.Request) -> web.Response:
        content = await to_thread.run_sync(read_captions, await self._record(request))
        if content is None:
            raise NotShown("none")
        return web.Response(text=web_captions(content), content_type="text/vtt", charset="utf-8")

    # Decisions

    async def _decide(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise Refused(415, "a decision is sent as application/json")
        posted = read_decision(await request.read())
        check_decision(posted, (await self.journal.records([posted.key])).get(posted.key))
        review = posted.review(self.now())
        if review is None:
            await self.journal.withdraw_review(posted.key)
        else:
            await self.journal.keep_review(review)
        self._changed.add(posted.key)
        return _json({"row": (await self._reader.views([posted.key]))[0]})


async def _send_file(file: PageFile, headers: Mapping[str, str], _request: web.Request) -> web.Response:
    return web.Response(body=file.content, content_type=file.media_type, charset="utf-8", headers=headers)


def _json(value: Mapping[str, object], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def _problem_of(error: NotShown | Refused | JournalError) -> web.Response:
    match error:
        case NotShown():
            return _json({"error": error.state}, 404)
        case Refused():
            return _json({"error": str(error)}, error.status)
    return _json({"error": str(error)}, 503)


def _aborted(request: web.Request) -> web.Response:
    """End an answer that has begun, so that the browser knows that it is not whole; what is returned is not sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
