"""`heygen-async lipsync`: make, look at, await, fetch, rename and delete lipsyncs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Unpack

import attrs
from cyclopts import App, Parameter
from cyclopts.validators import Number

from heygen_async import HeyGenSession, LipsyncJob, Page, Paginator
from heygen_async.cli.asking import confirmed
from heygen_async.cli.options import Options, Patience, Switch, session
from heygen_async.cli.output import Exit, advising, emit, note, print_json
from heygen_async.cli.progress import transfer
from heygen_async.cli.request import compose, options_of, read_data
from heygen_async.cli.schema import request_schema
from heygen_async.cli.waiting import look_at, path_of, wait_for
from heygen_async.errors import HeyGenError, UnexpectedResponse
from heygen_async.models import JSON, LipsyncOptions, LipsyncRequest, Source

_LIST: Final = "/v3/lipsyncs"
_SOURCE: Final = "URL|FILE|asset:ID"
_PAGE: Final = 10
_LARGEST_PAGE: Final = 100

app: Final = App(name="lipsync", help="Make, look at, await, fetch, rename and delete lipsyncs.")


@app.command
def create(
    *,
    data: Annotated[
        str | None, Parameter(name=("--data", "-d"), allow_leading_hyphen=True, metavar="JSON|FILE|-")
    ] = None,
    video: Annotated[str | None, Parameter(metavar=_SOURCE)] = None,
    audio: Annotated[str | None, Parameter(metavar=_SOURCE)] = None,
    wait: Switch = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    overwrite: Switch = False,
    idempotency_key: str | None = None,
    request_schema: Switch = False,
    patience: Patience = Patience(),  # noqa: B008 frozen
    options: Options = Options(),  # noqa: B008 frozen
    **flags: Unpack[LipsyncOptions],
) -> int:
    """Make a lipsync: a video with its lips moved to new audio. It costs credit.

    It prints the new lipsync's id, or with --wait the whole lipsync once it is finished.

    Example: heygen-async lipsync create --video source.mp4 --audio new-audio.mp3 --title "Episode 1" --wait -o out.mp4

    Args:
        data: The request as the API takes it: JSON, a file that holds it, or - for standard input. The other
            flags win over it.
        video: The source video: an https URL, a file (uploaded first), or asset:ID.
        audio: The new audio, likewise.
        wait: Wait until it is finished, and print it.
        output: Wait, and write the video to this file, or into this folder.
        overwrite: Replace a file that is there.
        idempotency_key: A key of your own: within a day the API answers a used one with the first lipsync.
        request_schema: Print the JSON Schema of what --data takes, and do nothing else. It needs no key.
        flags.mode: speed is fast; precision costs about twice as much.
        flags.title: Shown in the dashboard.
        flags.enable_caption: Make captions too.
        flags.enable_dynamic_duration: Let the output's length follow the new audio, which is the default.
        flags.disable_music_track: Strip background music from the source video.
        flags.enable_speech_enhancement: Enhance speech.
        flags.enable_watermark: Add a watermark.
        flags.start_time: Where a partial lipsync starts, in seconds.
        flags.end_time: Where it ends, in seconds.
        flags.keep_the_same_format: Keep the source's resolution and bitrate.
        flags.fps_mode: What to do about the frame rate.
        flags.callback_url: Where HeyGen POSTs when it has ended; https.
        flags.callback_id: An id of your own, which comes back in webhooks, gets and lists.
        flags.folder_id: The folder to put it in.
    """
    if request_schema:
        print_json(_schema())
        return Exit.DONE
    wait = wait or output is not None
    if patience != Patience() and not wait:
        raise ValueError("--timeout and --poll-every need --wait")
    # Files and standard input are read before the event loop runs: there Ctrl-C would wait for them.
    request = compose(None if data is None else read_data(data), video=video, audio=audio, flags=flags)
    _check_output(output, overwrite=overwrite)
    order = _Order(request, idempotency_key, patience, options)
    return asyncio.run(order.made_and_awaited(output, overwrite=overwrite) if wait else order.made())


_schema = request_schema


@attrs.frozen
class _Order:
    """A create as it was asked for."""

    request: LipsyncRequest
    idempotency_key: str | None
    patience: Patience
    options: Options

    async def made(self) -> Exit:
        async with session(self.options) as heygen:
            job = await self._make(heygen)
        emit({"data": {"lipsync_id": job.id}}, self.options)
        note(f"to wait for it: heygen-async lipsync wait {job.id}", self.options)
        return Exit.DONE

    async def made_and_awaited(self, output: Path | None, *, overwrite: bool) -> Exit:
        async with session(self.options, polling=self.patience.polling) as heygen:
            job = await self._make(heygen)
            note(f"{job.id} is made", self.options)
            code = await wait_for(heygen, [job.id], self.options, timeout=self.patience.timeout)
            if output is not None and code == Exit.DONE:
                with advising(f"it is finished; to fetch it: heygen-async lipsync download {job.id} -o {output}"):
                    path = await _fetch(heygen, job.id, output, self.options, overwrite=overwrite)
                note(f"written to {path}", self.options)
        return code

    async def _make(self, heygen: HeyGenSession) -> LipsyncJob:
        video = await _uploaded(heygen, self.request.video, self.options)
        audio = await _uploaded(heygen, self.request.audio, self.options)
        try:
            return await heygen.lipsyncs.create(
                video=video, audio=audio, idempotency_key=self.idempotency_key, **options_of(self.request)
            )
        except (HeyGenError, asyncio.CancelledError) as error:
            if getattr(error, "outcome", None) == "unknown":
                key = getattr(error, "idempotency_key", None)
                error.add_note(f"it may have been made; to find out: the same command with --idempotency-key {key}")
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
    """Print the account's lipsyncs, newest first: a page of them, or with --all every one.

    Example: heygen-async lipsync list --limit 10

    Args:
        limit: How many in a page, 1 to 100; 10 without it.
        token: Where to start: the next_token of the page before.
        all_: Follow the pages to the end, and print everything as one list.
    """
    size = limit or (_LARGEST_PAGE if all_ else _PAGE)
    async with session(options) as heygen:
        if all_:
            emit(await _whole_list(heygen, size, token), options)
            return
        page = (await heygen.request("GET", _LIST, params={"limit": size, "token": token})).data
    emit(page, options)
    if isinstance(page, Mapping) and (following := page.get("next_token")):
        note(f"there are more: --all, or --token {following}", options)


@app.command
async def update(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    title: str,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Give a lipsync another title, and print it.

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
) -> int:
    """Delete a lipsync, for good. It asks first.

    Example: heygen-async lipsync delete ls_abc123 --force

    Args:
        lipsync_id: The lipsync.
        force: Do not ask; needed where nobody can answer.
    """
    path = path_of(lipsync_id)
    # Asked before the event loop runs: there Ctrl-C would wait for the answer.
    if not force and not confirmed(f"Delete {lipsync_id} for good?"):
        note("nothing was deleted", options)
        return Exit.FAILED
    return asyncio.run(_delete(lipsync_id, path, options))


async def _delete(lipsync_id: str, path: str, options: Options) -> Exit:
    async with session(options) as heygen:
        answer = (await heygen.request("DELETE", path)).data
    emit({"data": {"id": lipsync_id}} if answer is None else answer, options)
    note("it is deleted", options)
    return Exit.DONE


@app.command
async def wait(
    *lipsync_ids: Annotated[str, Parameter(name="ID")],
    patience: Patience = Patience(),  # noqa: B008 frozen
    options: Options = Options(),  # noqa: B008 frozen
) -> int:
    """Wait for lipsyncs, and print each as it ends: as JSON, one in a line.

    If the time is up it prints how far the others are, and exits with 4.

    Example: heygen-async lipsync wait ls_abc123 --timeout 30m

    Args:
        lipsync_ids: The lipsyncs.
    """
    if not lipsync_ids:
        raise ValueError("give the id of the lipsync to wait for, or several")
    for lipsync_id in lipsync_ids:
        path_of(lipsync_id)
    async with session(options, polling=patience.polling) as heygen:
        await look_at(heygen, lipsync_ids[0])
        return await wait_for(heygen, lipsync_ids, options, timeout=patience.timeout)


@app.command
async def download(
    lipsync_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path(),
    overwrite: Switch = False,
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Write the video of a finished lipsync to a file, its captions beside it; what broke off goes on.

    Example: heygen-async lipsync download ls_abc123 -o episode-1.mp4

    Args:
        lipsync_id: The lipsync.
        output: The file, or a folder, where it is called after its title; without it, this folder.
        overwrite: Replace a file that is there.
    """
    path_of(lipsync_id)
    async with session(options) as heygen:
        path = await _fetch(heygen, lipsync_id, output, options, overwrite=overwrite)
    emit({"data": {"id": lipsync_id, "path": str(path)}}, options)


def _check_output(output: Path | None, *, overwrite: bool) -> None:
    """See that *output* can be written, before anything is paid for."""
    if output is None or output.is_dir():
        return
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {output.parent}, where --output is to be")
    if output.exists() and not overwrite:
        raise ValueError(f"{output} is there already; give --overwrite to replace it")


async def _uploaded(heygen: HeyGenSession, source: Source, options: Options) -> Source:
    if not isinstance(source, Path):
        return source
    with transfer(f"uploading {source.name}", options) as progress:
        return await heygen.assets.upload(source, progress=progress)


async def _fetch(heygen: HeyGenSession, lipsync_id: str, output: Path, options: Options, *, overwrite: bool) -> Path:
    with transfer("downloading", options) as progress:
        return await heygen.download(lipsync_id, output, overwrite=overwrite, progress=progress)


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
