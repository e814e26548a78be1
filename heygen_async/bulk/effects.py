"""The effects of a row's steps: uploads, creates, searches and downloads, from record to record.

Rule 1: nothing here knows who calls it, or when. `advance` takes one step a call.
Rule 2: an error of an effect is in the record that it returns; only what ends the run is raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from anyio import to_thread
from attrs import Factory, define, field, frozen

from heygen_async._media.parts import remove_leftovers, remove_unwritten
from heygen_async._media.sniffing import Role
from heygen_async._media.targets import captions_path
from heygen_async.bulk.local_files import check_unchanged
from heygen_async.bulk.outputs import (
    absolute_path,
    captions_are_free,
    fingerprint_of,
    found_at,
    has_part,
    output_problems,
    part_identity,
    remove_captions,
)
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import (
    ENDS_RUN,
    NeverMade,
    RetryDelays,
    Step,
    after_create,
    failed_download,
    failed_step,
    is_local,
    is_remembered,
    key_age,
    sent_options,
    sources_of,
)
from heygen_async.bulk.record import Record, State, evolve
from heygen_async.bulk.searching import InDoubt, Searcher
from heygen_async.bulk.store import HeyGen, Store, UnixClock
from heygen_async.errors import UNUSABLE_ASSET, APIError, DownloadError, HeyGenError
from heygen_async.models import Lipsync, Source

Save: TypeAlias = Callable[[Record], Awaitable[None]]


@frozen(kw_only=True)
class Tools:
    """What the effects of rows work with."""

    heygen: HeyGen
    store: Store
    clock: UnixClock
    delays: RetryDelays
    searcher: Searcher = field(
        init=False, default=Factory(lambda self: Searcher(self.heygen, self.store, self.clock), takes_self=True)
    )


async def advance(row: PreparedRow, record: Record, step: Step, tools: Tools, save: Save) -> Record:
    """Carry out one step of a row, and return its record.

    Args:
        row: The row.
        record: Its record.
        step: `PREPARE`, `CREATE`, `SEARCH`, `DOWNLOAD`, `FINISH` or `RENEW`.
        tools: What to work with.
        save: Saves a record in the middle of a step.

    Raises:
        AuthenticationError, JournalError: These end the run.

    Cancelled, it leaves the store as it is: the row continues from there another time.
    """
    effect = _EFFECTS[step]
    try:
        return (await effect(row, record.before_effect(), tools, save)).after_effect()
    except ENDS_RUN:
        raise
    except HeyGenError as error:
        return failed_step(record, error)
    except (OSError, ValueError) as error:
        return record.stopped(error)


async def _prepare(row: PreparedRow, record: Record, tools: Tools, _save: Save) -> Record:
    await _forget_uploads(record.outdated_assets, tools)
    video = record.video_asset or await _uploaded(row, "video", tools)
    audio = record.audio_asset or await _uploaded(row, "audio", tools)
    return record.uploaded(video, audio)


async def _uploaded(row: PreparedRow, role: Role, tools: Tools) -> str | None:
    """Return the asset of a local file, uploaded now unless it was before; `None` if it is not local."""
    source: Source = row.row.video if role == "video" else row.row.audio
    if not is_local(source):
        return None
    info = row.file(role)
    known = await tools.store.asset(info.digest)
    if isinstance(source, Path):
        await check_unchanged(role, source, info)
    if known is not None:
        return known
    asset = await tools.heygen.upload(source, info.digest)
    if isinstance(source, Path):
        await check_unchanged(role, source, info)  # or a job would be made of what its author has replaced
    await tools.store.keep_asset(info.digest, asset.value)
    return asset.value


async def _create(row: PreparedRow, record: Record, tools: Tools, _save: Save) -> Record:
    video, audio = sources_of(row, record)
    assert record.attempt_key is not None  # noqa: S101 it is recorded before anything is sent
    call = tools.heygen.create(
        record.attempt_key,
        key_age=partial(key_age, [record], tools.clock.now),
        video=video,
        audio=audio,
        options=sent_options(row, record),
    )
    del video, audio  # or a traceback with local variables would show their queries
    try:
        lipsync_id = await call
    except HeyGenError as error:
        return await after_failed_create(row, record, error, tools)
    return record.accepted(lipsync_id)


async def after_failed_create(row: PreparedRow, record: Record, error: HeyGenError, tools: Tools) -> Record:
    """Return the record after a create without a job; uploads that the server has lost are forgotten, once."""
    if error.outcome == "unknown" and not is_remembered(record, tools.clock.latest()):
        return evolve(record, is_fresh=False, was_searched_for=False).failing(error)  # its job is searched for
    after = after_create(record, error, tools.delays)
    is_lost = isinstance(error, NeverMade) or (isinstance(error, APIError) and error.code in UNUSABLE_ASSET)
    assets = {"video": record.video_asset, "audio": record.audio_asset}
    used = [asset for role in row.files if (asset := assets[role]) is not None]
    if not is_lost or not used or record.has_reuploaded or after.state is not State.PLANNED:
        return after
    await _forget_uploads(used, tools)
    return evolve(after.reuploading(), is_stopped=False, failure=None)


async def _forget_uploads(assets: Sequence[str], tools: Tools) -> None:
    if assets:
        await tools.store.forget_assets(assets)
    for asset_id in assets:
        tools.heygen.forget_upload(asset_id)


async def _search(row: PreparedRow, record: Record, tools: Tools, _save: Save) -> Record:
    began = tools.clock.now()
    try:
        found = await tools.searcher.find(record, row.row)
    except InDoubt as error:
        return record.in_doubt(error)
    if found is not None:
        return found
    now = tools.clock.now()  # the answers have shown the API's time
    if is_remembered(record, now):  # the key is old only by our clock: the create is sent again under it
        return evolve(record, was_searched_for=True)
    # When the list was read the create may have been on its way, if only then the key got too old: in a suspend.
    return record if is_remembered(record, began) else record.not_found(now)


async def _renew(_row: PreparedRow, record: Record, tools: Tools, _save: Save) -> Record:
    return evolve(record.renewed(), hold=tools.delays.renewal)


async def _finish(_row: PreparedRow, record: Record, _tools: Tools, _save: Save) -> Record:
    return record.done()


async def check_target(row: PreparedRow, record: Record) -> None:
    """Check that the target can be written, and that no other file is there.

    Raises:
        DownloadError: If not.
    """
    if row.target is None:
        return
    problems = await to_thread.run_sync(output_problems, record, row.target)
    if problems:
        raise DownloadError("; ".join(problems))


async def _download(row: PreparedRow, record: Record, tools: Tools, save: Save) -> Record:
    target = row.target
    assert target is not None  # noqa: S101 next_step says so
    await to_thread.run_sync(partial(target.parent.mkdir, parents=True, exist_ok=True))
    await check_target(row, record)
    path = await to_thread.run_sync(absolute_path, target)
    captions_free = await to_thread.run_sync(captions_are_free, record, target)
    is_started = await to_thread.run_sync(has_part, record, target)  # first: it may be published at any moment
    found = await to_thread.run_sync(found_at, path, record)
    if found == "ours":  # a run was interrupted just after it was published, or its folder was renamed
        record = evolve(record, writing_to=path)
        await to_thread.run_sync(remove_leftovers, target)
    else:
        written = record.written if is_started else None
        record = record.writing(path, written=written, captions_free=captions_free)
        await save(record)
        try:
            record = await _write_video(record, target, tools, save, overwrite=found == "replaceable")
        except ENDS_RUN:
            raise
        except HeyGenError as error:
            return failed_download(record, error, tools.delays)
    published = await to_thread.run_sync(fingerprint_of, path)  # now: a later change makes it another file
    record = await _with_captions(row, record, target, tools, overwrite=captions_free)
    return record.done(published)


async def _write_video(record: Record, target: Path, tools: Tools, save: Save, *, overwrite: bool) -> Record:
    part = _PartNote(target, record, save)
    await tools.heygen.download(_finished_job(record), target, overwrite=overwrite, progress=part.note)
    return part.record


@define(eq=False)
class _PartNote:
    """Saves which file the part of *target* is, before that gets its name; again if the length turns out otherwise."""

    target: Path
    record: Record
    save: Save
    _noted: tuple[int | None] | None = None
    """The length in the last note."""

    async def note(self, _done: int, total: int | None) -> None:
        if self._noted is None:
            await self._check_unpublished()
        if self.record.written is None or self._noted != (total,):
            identity = await to_thread.run_sync(part_identity, self.target, total)
            self.record, self._noted = self.record.writing_part(identity), (total,)
            await self.save(self.record)

    async def _check_unpublished(self) -> None:
        """Check that no other executor has given its own part the name since that was last looked at.

        From now on none can: the part is open, and locked.

        Raises:
            DownloadError: If one has. The record keeps the identity of that file.
        """
        path = self.record.writing_to
        if path is not None and await to_thread.run_sync(found_at, path, self.record) == "ours":
            raise DownloadError(f"{path} was written by another executor meanwhile", is_transient=True)


async def _with_captions(row: PreparedRow, record: Record, target: Path, tools: Tools, *, overwrite: bool) -> Record:
    """Write the captions if they are wanted, and remove those of an earlier job if they are still there."""
    earlier = record.captions if record.replaces is not None else None
    if row.captions:
        record = await _write_captions(record, target, tools, overwrite=overwrite)
    if earlier is None or record.captions != earlier:
        return record
    await to_thread.run_sync(remove_captions, record, target)
    return evolve(record, captions=None)


async def _write_captions(record: Record, target: Path, tools: Tools, *, overwrite: bool) -> Record:
    await to_thread.run_sync(remove_unwritten, captions_path(target))  # whether or not they can be written now
    try:
        await tools.heygen.download_captions(_finished_job(record), target, overwrite=overwrite)
    except HeyGenError as error:
        return evolve(record, warnings=(*record.warnings, f"the captions were not written: {error}"))
    return evolve(record, captions=await to_thread.run_sync(fingerprint_of, captions_path(target)))


def _finished_job(record: Record) -> Lipsync | str:
    job = record.job or record.lipsync_id
    assert job is not None  # noqa: S101 it is completed
    return job


_EFFECTS: Final[dict[Step, Callable[[PreparedRow, Record, Tools, Save], Awaitable[Record]]]] = {
    Step.PREPARE: _prepare,
    Step.CREATE: _create,
    Step.SEARCH: _search,
    Step.RENEW: _renew,
    Step.DOWNLOAD: _download,
    Step.FINISH: _finish,
}
