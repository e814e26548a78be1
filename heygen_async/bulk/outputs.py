"""The files of rows on disk: which ones were written by us. For threads."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

from heygen_async._media import sources
from heygen_async._media.parts import part_path
from heygen_async._media.targets import captions_path, target_problems
from heygen_async.bulk.record import Record, State

Found: TypeAlias = Literal["nothing", "ours", "replaceable", "foreign"]
"""What is at the path of a row's output: `replaceable` is its own file of an earlier job, or with nothing in it."""


_COLONS_BEFORE_LENGTH: Final = 2
_COLONS: Final = 4
"""In the fingerprint of a finished file."""


def absolute_path(path: str | Path) -> str:
    """Return *path* as the records of rows name it."""
    return os.path.abspath(path)  # noqa: PTH100 it also takes out `..`


def fingerprint_of(path: str | Path) -> str | None:
    """Return what identifies the version of the file at *path*; `None` if there is no file."""
    try:
        return sources.fingerprint(os.stat(path))  # noqa: PTH116 a string will do
    except OSError:
        return None


def is_same_file(recorded: str | None, found: str | None) -> bool:
    """Return whether a file that was *found* is the version that was *recorded*, by their fingerprints.

    The device does not count: a file system has another number on another machine, or once it is mounted again.
    """
    return recorded is not None and found is not None and _without_device(recorded) == _without_device(found)


def _without_device(fingerprint: str) -> str:
    return fingerprint.partition(":")[2]


def part_identity(target: Path, total: int | None) -> str | None:
    """Return what the unfinished form of *target* keeps when it becomes the target: device, inode, and its length.

    The length is *total*. Without it this says which file the part is, but not that it is complete.
    """
    found = fingerprint_of(part_path(target))
    if found is None:
        return None
    device, inode, *_ = found.split(":")
    return ":".join([device, inode] if total is None else [device, inode, str(total)])


def has_part(record: Record, target: Path) -> bool:
    """Return whether the part of *target* is the one in the record, which another executor may still publish."""
    found = fingerprint_of(part_path(target))
    if found is None or record.written is None or record.writing_to != absolute_path(target):
        return False
    return found.split(":")[1:2] == record.written.split(":")[1:2]


def is_written(record: Record) -> bool:
    """Return whether a row is done and there is a file, changed since or not, at the path that it was written to."""
    if record.state is not State.DONE or record.target is None or record.writing_to != absolute_path(record.target):
        return False
    is_of_earlier_job = record.replaces is not None
    return not is_of_earlier_job and has_content(record.target)


def found_at(path: str, record: Record) -> Found:
    """Return what is at *path*, by a single look: what comes there afterwards is not the row's."""
    try:
        found = os.stat(path)  # noqa: PTH116 a string will do
    except OSError:
        return "foreign" if os.path.lexists(path) else "nothing"
    is_renamed = record.writing_to != path  # the folder of its file, if that is what is there
    if record.written is None and record.replaces is None:
        return "foreign"
    if not found.st_size:
        return "foreign" if is_renamed else "replaceable"
    least = _COLONS if is_renamed else _COLONS_BEFORE_LENGTH
    if _has_fingerprint(found, record.written, least):
        return "ours"
    return "replaceable" if _has_fingerprint(found, record.replaces, least) else "foreign"


def _has_fingerprint(found: os.stat_result, recorded: str | None, least_colons: int) -> bool:
    if recorded is None or recorded.count(":") < least_colons:
        return False  # an incomplete part that was renamed would match, or another file that was given its inode
    return f"{_without_device(sources.fingerprint(found))}:".startswith(f"{_without_device(recorded)}:")


def has_content(path: str) -> bool:
    """Return whether there is a file with something in it at *path*."""
    return os.path.isfile(path) and os.path.getsize(path) > 0  # noqa: PTH113, PTH202 a string will do


def is_changed(record: Record) -> bool:
    """Return whether the file of a finished row was changed or replaced after it was written."""
    if record.target is None or record.written is None:  # version 0.1 kept no fingerprint
        return False
    return not is_same_file(record.written, fingerprint_of(record.target))


def output_problems(record: Record, target: Path, *, captions: bool = False) -> list[str]:
    """Return every reason why the row must not write *target*, or its captions if those are wanted."""
    job = record.lipsync_id
    found = target_problems(target, overwrite=True, makes_folders=True, captions=captions, lipsync_id=job)
    is_foreign = _exists(target) and found_at(absolute_path(target), record) == "foreign"
    foreign = [target] if is_foreign else []
    if captions and _exists(captions_path(target)) and not captions_are_free(record, target):
        foreign.append(captions_path(target))
    return found + [f"{file} exists already and was not written by this row: move it away" for file in foreign]


def _exists(file: Path) -> bool:
    return os.path.lexists(file) and not os.path.isdir(file)  # noqa: PTH112 never raises


def captions_are_free(record: Record, target: Path) -> bool:
    """Return whether captions of *target* may be written: there are none, or only those that the row has written."""
    was_free = record.writing_to == absolute_path(target) and record.captions_free
    captions = captions_path(target)
    return was_free or _has_written(record, captions) or not os.path.lexists(captions)


def remove_captions(record: Record, target: Path) -> None:
    """Remove the captions of *target* if they are as the row has written them."""
    captions = captions_path(target)
    if _has_written(record, captions):
        with suppress(OSError):  # the video is there, whatever is beside it
            captions.unlink()


def _has_written(record: Record, captions: Path) -> bool:
    return is_same_file(record.captions, fingerprint_of(captions))
