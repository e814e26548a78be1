"""`heygen-async lipsync create`: create a lipsync, wait for it and write its video."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Unpack

from attrs import frozen
from cyclopts import Parameter

from heygen_async._ids import check_key
from heygen_async.cli.advice import advising, advising_on_doubt, advising_on_output
from heygen_async.cli.create_request import compose, options_of, read_data
from heygen_async.cli.exits import Exit
from heygen_async.cli.live import transfer
from heygen_async.cli.number_flags import PlainNumber
from heygen_async.cli.options import CHOICE, Options, Switch, WaitOptions, session
from heygen_async.cli.output import emit, note, print_json
from heygen_async.cli.output_flags import FileText, OutputFlags, Target
from heygen_async.cli.problems import Problems
from heygen_async.cli.wait import how_to_continue, wait_for
from heygen_async.errors import HeyGenError
from heygen_async.models import FpsMode, Lipsync, LipsyncOptions, LipsyncRequest, Source

if TYPE_CHECKING:
    from heygen_async import HeyGenSession, LipsyncJob

_SOURCE: Final = "URL|FILE|asset:ID"


class _Flags(LipsyncOptions, total=False):
    """The options of a create, with numbers and choices as all flags take them."""

    start_time: PlainNumber | None
    end_time: PlainNumber | None
    fps_mode: Annotated[FpsMode | None, CHOICE]


def create(
    *,
    data: Annotated[
        FileText | None, Parameter(name=("--data", "-d"), allow_leading_hyphen=True, metavar="JSON|FILE|-")
    ] = None,
    video: Annotated[FileText | None, Parameter(metavar=_SOURCE)] = None,
    audio: Annotated[FileText | None, Parameter(metavar=_SOURCE)] = None,
    wait: Switch = False,
    output: Target | None = None,
    captions: Switch = False,
    overwrite: Switch = False,
    idempotency_key: str | None = None,
    request_schema: Switch = False,
    waiting: WaitOptions = WaitOptions(),  # noqa: B008 frozen
    options: Options = Options(),  # noqa: B008 frozen
    **flags: Unpack[_Flags],
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
        flags.folder_id: The id of the folder for the lipsync.
    """
    if request_schema:
        return _print_schema()
    problems = Problems()
    wait = wait or output is not None
    if waiting != WaitOptions() and not wait:
        problems.add("", "--timeout and --poll-every need --wait")
    if (captions or overwrite) and output is None:
        problems.add("", "--captions and --overwrite need --output")
    # Standard input is read before the event loop runs: there a signal would wait for its end.
    content = None if data is None else read_data(str(data))
    request = compose(content, video=video, audio=audio, flags=flags, problems=problems)
    if idempotency_key is not None:
        with problems.at("--idempotency-key"):
            check_key(idempotency_key)
    captions = captions or (request is not None and request.enable_caption is True)
    delivery = None if output is None else OutputFlags(output, overwrite=overwrite, captions=captions)
    problems.add("--output", *(delivery.problems() if delivery is not None else ()))
    problems.check()
    assert request is not None  # noqa: S101 there is no problem
    creation = _Creation(request, idempotency_key, waiting, options)
    return creation.create_and_wait(delivery) if wait else creation.create()


def _print_schema() -> Exit:
    from heygen_async.cli.create_schema import schema_of_create  # noqa: PLC0415 few commands need it

    print_json(schema_of_create())
    return Exit.DONE


@frozen
class _Creation:
    """A create whose arguments are valid."""

    request: LipsyncRequest
    idempotency_key: str | None
    waiting: WaitOptions
    options: Options

    async def create(self) -> Exit:
        async with session(self.options) as heygen:
            job = await self._send(heygen)
            # Before the session closes: a signal at that time would cost the id.
            to_wait = f"to wait for it: {self.options.command('lipsync', 'wait', job.id)}"
            with advising_on_output(f"{job.id} was created; {to_wait}"):
                emit({"data": {"lipsync_id": job.id}}, self.options)
            note(to_wait, self.options)
        return Exit.DONE

    async def create_and_wait(self, delivery: OutputFlags | None) -> Exit:
        async with session(self.options, polling=self.waiting.polling) as heygen:
            job = await self._send(heygen)
            note(f"created {job.id}", self.options)
            wait = partial(
                wait_for, heygen, [job.id], self.options, timeout=self.waiting.timeout, created_at=job.created_at
            )
            to_print = f"to print it: {self.options.command('lipsync', 'wait', job.id)}"
            try:
                with advising_on_output(f"{job.id} was created; {to_print}"):
                    if delivery is None:
                        return await wait()
                    advice = f"{how_to_continue([job.id], self.options)} && {delivery.command(job.id, self.options)}"
                    return await wait(advice=advice, deliver=partial(self._deliver, heygen, delivery))
            except HeyGenError as error:  # of any kind: the job is paid for
                error.add_note(how_to_continue([job.id], self.options))
                raise

    async def _deliver(self, heygen: HeyGenSession, delivery: OutputFlags, lipsync: Lipsync) -> None:
        with advising(f"it is completed; to download it: {delivery.command(lipsync.id, self.options)}"):
            path = await delivery.download(heygen, lipsync.id, self.options)
        note(f"written to {path}", self.options)

    async def _send(self, heygen: HeyGenSession) -> LipsyncJob:
        with advising("no lipsync was created: run the same command again"):
            video = await _upload(heygen, self.request.video, self.options)
            audio = await _upload(heygen, self.request.audio, self.options)
        with advising_on_doubt("it may have been created"):
            return await heygen.lipsyncs.create(
                video=video, audio=audio, idempotency_key=self.idempotency_key, **options_of(self.request)
            )


async def _upload(heygen: HeyGenSession, source: Source, options: Options) -> Source:
    if not isinstance(source, Path):
        return source
    with transfer(f"uploading {source.name}", options) as progress:
        return await heygen.assets.upload(source, progress=progress)
