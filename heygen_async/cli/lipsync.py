"""`heygen-async lipsync`: create, get, list, wait for, download, rename and delete lipsyncs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Unpack

import attrs
from cyclopts import App, Parameter
from cyclopts.validators import Number

from heygen_async import HeyGenSession, LipsyncJob, Page, Paginator
from heygen_async._ids import check_key
from heygen_async.cli import create_schema
from heygen_async.cli.confirm import confirm
from heygen_async.cli.create_request import compose, options_of, read_data
from heygen_async.cli.delivery import Delivery, Target
from heygen_async.cli.exits import Exit
from heygen_async.cli.failures import Problems, advising
from heygen_async.cli.live import transfer
from heygen_async.cli.options import Options, Switch, WaitOptions, session
from heygen_async.cli.output import emit, note, print_json
from heygen_async.cli.wait import check_connection, how_to_continue, path_of, wait_for
from heygen_async.errors import HeyGenError, UnexpectedResponse
from heygen_async.models import JSON, Lipsync, LipsyncOptions, LipsyncRequest, Source

_LIST: Final = "/v3/lipsyncs"
_SOURCE: Final = "URL|FILE|asset:ID"
_PAGE: Final = 10
_LARGEST_PAGE: Final = 100

app: Final = App(name="lipsync", help="Create, get, list, wait for, download, rename and delete lipsyncs.")


@app.command
def create(
    *,
    data: Annotated[
        str | None, Parameter(name=("--data", "-d"), allow_leading_hyphen=True, metavar="JSON|FILE|-")
    ] = None,
    video: Annotated[str | None, Parameter(metavar=_SOURCE)] = None,
    audio: Annotated[str | None, Parameter(metavar=_SOURCE)] = None,
    wait: Switch = False,
    output: Target | None = None,
    captions: Switch = False,
    overwrite: Switch = False,
    idempotency_key: str | None = None,
    request_schema: Switch = False,
    waiting: WaitOptions = WaitOptions(),  # noqa: B008 frozen
    options: Options = Options(),  # noqa: B008 frozen
    **flags: Unpack[LipsyncOptions],
) -> int | Coroutine[Any, Any, int]:
    """Create a lipsync: a video with its lips moved to new audio. It costs credit.

    It prints the id of the new lipsync, or with --wait the whole lipsync when it has ended.

    Example: heygen-async lipsync create --video source.mp4 --audio new-audio.mp3 --title "Episode 1" --wait -o out.mp4

    Args:
        data: The request as the API takes it: JSON, a file that contains it, or - for standard input. Other flags
            win over it.
        video: The source video: an https URL, a file (uploaded first), or asset:ID.
        audio: The new audio: an https URL, a file (uploaded first), or asset:ID.
        wait: Wait until it has ended, and print it.
        output: Wait, and write the video to this file, or into this folder.
        captions: Write the captions too, as .srt beside the video.
        overwrite: Replace files that exist.
        idempotency_key: A key of your own: within 24 h the API answers a used key with the first lipsync.
        request_schema: Print the JSON Schema of what --data takes, and do nothing else. It needs no API key.
        flags.mode: speed is fast; precision costs about twice as much.
        flags.title: Shown in the dashboard.
        flags.enable_caption: Write captions where the video is downloaded, as --captions does.
        flags.enable_dynamic_duration: Let the length of the output follow the new audio, which is the default.
        flags.disable_music_track: Strip background music from the source video.
        flags.enable_speech_enhancement: Enhance speech.
        flags.enable_watermark: Add a watermark.
        flags.start_time: Start of a partial lipsync, in seconds.
        flags.end_time: End of a partial lipsync, in seconds.
        flags.keep_the_same_format: Keep the resolution and bitrate of the source.
        flags.fps_mode: How the frame rate is handled.
        flags.callback_url: The https URL that HeyGen calls when the job has ended.
        flags.callback_id: An id of your own, returned in webhooks, by get and by list.
        flags.folder_id: The folder to put it in.
    """
    if request_schema:
        print_json(create_schema.request_schema())
        return Exit.DONE
    problems = Problems()
    wait = wait or output is not None
    if waiting != WaitOptions() and not wait:
        problems.add("", "--timeout and --poll-every need --wait")
    if captions and output is None:
        problems.add("", "--captions needs --output")
    # Standard input is read before the event loop runs: there a signal would wait for its end.
    content = None if data is None else read_data(data)
    request = compose(content, video=video, audio=audio, flags=flags, problems=problems)
    if idempotency_key is not None:
        with problems.at("--idempotency-key"):
            check_key(idempotency_key)
    captions = captions or (request is not None and request.enable_caption is True)
    delivery = None if output is None else Delivery(output, overwrite=overwrite, captions=captions)
    problems.add("--output", *(delivery.problems() if delivery is not None else ()))
    problems.check()
    assert request is not None  # noqa: S101 there is no problem
    creation = _Creation(request, idempotency_key, waiting, options)
    return creation.create_and_wait(delivery) if wait else creation.create()


@attrs.frozen
class _Creation:
    """A create whose arguments are valid."""

    request: LipsyncRequest
    idempotency_key: str | None
    waiting: WaitOptions
    options: Options

    async def create(self) -> Exit:
        async with session(self.options) as heygen:
            job = await self._send(heygen)
        emit({"data": {"lipsync_id": job.id}}, self.options)
        note(f"to wait for it: heygen-async lipsync wait {job.id}", self.options)
        return Exit.DONE

    async def create_and_wait(self, delivery: Delivery | None) -> Exit:
        async with session(self.options, polling=self.waiting.polling) as heygen:
            job = await self._send(heygen)
            note(f"created {job.id}", self.options)
            if delivery is None:
                return await wait_for(heygen, [job.id], self.options, timeout=self.waiting.timeout)
            return await wait_for(
                heygen,
                [job.id],
                self.options,
                timeout=self.waiting.timeout,
                advice=f"{how_to_continue([job.id])} && {delivery.command(job.id)}",
                deliver=partial(self._deliver, heygen, delivery),
            )

    async def _deliver(self, heygen: HeyGenSession, delivery: Delivery, lipsync: Lipsync) -> None:
        with advising(f"it is completed; to download it: {delivery.command(lipsync.id)}"):
            path = await delivery.download(heygen, lipsync.id, self.options)
        note(f"written to {path}", self.options)

    async def _send(self, heygen: HeyGenSession) -> LipsyncJob:
        video = await _upload(heygen, self.request.video, self.options)
        audio = await _upload(heygen, self.request.audio, self.options)
        try:
            return await heygen.lipsyncs.create(
                video=video, audio=audio, idempotency_key=self.idempotency_key, **options_of(self.request)
            )
        except (HeyGenError, asyncio.CancelledError) as error:
            if getattr(error, "outcome", None) == "unknown":
                key = getattr(error, "idempotency_key", None)
                error.add_note(
                    f"it may have been created; to find out, run the same command with --idempotency-key {key}"
                )
            raise


@app.command
async def get(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print a lipsync, with a fresh link if it is finished.

    Example: heygen-async lipsync get ls_abc123

    Args:
        lipsync_id: The lipsync.
    """
    path = path_of(lipsync_id)
    async with session(options) as heygen:
        emit((await heygen.request("GET", path)).data, options)


@app.command(name="list")
async def list_(
    *,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1, lte=_LARGEST_PAGE))] = None,
    token: str | None = None,
    all_: Annotated[Switch, Parameter(name="--all")] = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Print the lipsyncs of the account, newest first: one page, or all with --all.

    Example: heygen-async lipsync list --limit 10

    Args:
        limit: Lipsyncs in a page, 1 to 100; 10 without it.
        token: The page to start at: the next_token of the page before.
        all_: Follow the pages to the end, and print all lipsyncs as one list.
    """
    size = limit or (_LARGEST_PAGE if all_ else _PAGE)
    async with session(options) as heygen:
        if all_:
            emit(await _whole_list(heygen, size, token), options)
            return
        page = (await heygen.request("GET", _LIST, params={"limit": size, "token": token})).data
    emit(page, options)
    if isinstance(page, Mapping) and (following := page.get("next_token")):
        note(f"the next page: --token {following}; all pages: --all", options)


@app.command
async def update(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    title: str,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Rename a lipsync, and print it.

    Example: heygen-async lipsync update ls_abc123 --title "Episode 1, French"

    Args:
        lipsync_id: The lipsync.
        title: Its new title.
    """
    path = path_of(lipsync_id)
    async with session(options) as heygen:
        emit((await heygen.request("PATCH", path, json={"title": title})).data, options)


@app.command
def delete(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    force: Annotated[Switch, Parameter(name=("--force", "-f"))] = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> int | Coroutine[Any, Any, int]:
    """Delete a lipsync for good, after confirmation.

    Example: heygen-async lipsync delete ls_abc123 --force

    Args:
        lipsync_id: The lipsync.
        force: Delete without confirmation; needed where the input is not a terminal.
    """
    path = path_of(lipsync_id)
    # Confirmed before the event loop runs: there a signal would wait for the answer.
    if not force and not confirm(f"Delete {lipsync_id} for good?"):
        note("nothing was deleted", options)
        return Exit.FAILED
    return _delete(lipsync_id, path, options)


async def _delete(lipsync_id: str, path: str, options: Options) -> Exit:
    async with session(options) as heygen:
        answer = (await heygen.request("DELETE", path)).data
    emit({"data": {"id": lipsync_id}} if answer is None else answer, options)
    note(f"deleted {lipsync_id}", options)
    return Exit.DONE


@app.command
async def wait(
    *lipsync_ids: Annotated[str, Parameter(name="ID")],
    waiting: WaitOptions = WaitOptions(),  # noqa: B008 frozen
    options: Options = Options(),  # noqa: B008 frozen
) -> int:
    """Wait for lipsyncs, and print each when it ends: as JSON, one per line.

    At a timeout it prints the status of the others, and exits with 4.

    Example: heygen-async lipsync wait ls_abc123 --timeout 30m

    Args:
        lipsync_ids: The lipsyncs.
    """
    if not lipsync_ids:
        raise ValueError("give the id of a lipsync to wait for, or several")
    for lipsync_id in lipsync_ids:
        path_of(lipsync_id)
    async with session(options, polling=waiting.polling) as heygen:
        await check_connection(heygen, lipsync_ids[0])
        return await wait_for(heygen, lipsync_ids, options, timeout=waiting.timeout)


@app.command
def download(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    output: Target = ".",
    captions: Switch = False,
    overwrite: Switch = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> Coroutine[Any, Any, None]:
    """Write the video of a completed lipsync to a file; an interrupted download is resumed.

    Example: heygen-async lipsync download ls_abc123 -o episode-1.mp4

    Args:
        lipsync_id: The lipsync.
        output: The file; or a folder, for a file named after the title. Without it, this folder.
        captions: Write the captions too, as .srt beside the video.
        overwrite: Replace files that exist.
    """
    path_of(lipsync_id)
    delivery = Delivery(output, overwrite=overwrite, captions=captions)
    problems = Problems()
    problems.add("--output", *delivery.folder_problems())
    problems.check()
    return _download(lipsync_id, delivery, options)


async def _download(lipsync_id: str, delivery: Delivery, options: Options) -> None:
    async with session(options) as heygen:
        with advising(f"to resume it: {delivery.command(lipsync_id)}"):
            path = await delivery.download(heygen, lipsync_id, options)
    emit({"data": {"id": lipsync_id, "path": str(path)}}, options)


async def _upload(heygen: HeyGenSession, source: Source, options: Options) -> Source:
    if not isinstance(source, Path):
        return source
    with transfer(f"uploading {source.name}", options) as progress:
        return await heygen.assets.upload(source, progress=progress)


async def _whole_list(heygen: HeyGenSession, size: int, token: str | None) -> JSON:
    async def page(cursor: str | None) -> Page[JSON]:
        answer = (await heygen.request("GET", _LIST, params={"limit": size, "token": cursor})).data
        return _page(answer)

    return {"data": await Paginator(page, token=token).collect(), "has_more": False, "next_token": None}


def _page(answer: JSON) -> Page[JSON]:
    match answer:
        case {"data": list(items), "next_token": None | str() as token}:
            return Page(items=items, next_token=token)
        case {"data": list(items)}:
            return Page(items=items)
        case _:
            raise UnexpectedResponse(["not a list @ $.data"], status=200)
