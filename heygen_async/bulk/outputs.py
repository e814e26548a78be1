"""The files of rows on disk: which ones were written by us. For threads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from heygen_async._media.targets import captions_path
from heygen_async.bulk.record import Record, State

_PART: Final = ".part"


def absolute(path: str | Path) -> str:
    """Return *path* as the records of rows name it."""
    return os.path.abspath(path)  # noqa: PTH100 it also takes out `..`


def fingerprint(path: str | Path) -> str | None:
    """Return what changes when the file at *path* is changed or replaced; `None` if there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116 a string will do
    except OSError:
        return None
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def is_finished(record: Record) -> bool:
    """Return whether the row is done and its target, whoever changed it since, is the path that it was written to."""
    if record.state is not State.DONE or record.target is None or record.writing_to != absolute(record.target):
        return False
    return os.path.isfile(record.target) and os.path.getsize(record.target) > 0  # noqa: PTH113, PTH202 a string will do


def is_changed(record: Record) -> bool:
    """Return whether the file of a finished row was changed or replaced after it was written."""
    # The first version kept no fingerprint.
    return record.target is not None and record.written not in {None, fingerprint(record.target)}


def may_write(record: Record, target: Path) -> bool:
    """Return whether *target* is free, or the file there is one that this row has written."""
    path = absolute(target)
    if not os.path.lexists(path):
        return True
    if record.writing_to != path:
        return False
    if record.written is not None:
        return record.written == fingerprint(path) or not os.path.getsize(path)  # noqa: PTH202 a string will do
    return _was_published(path)


def _was_published(path: str) -> bool:
    """Return whether the download to *path* had ended when the run was interrupted: then the file is ours."""
    part = path + _PART
    return not os.path.lexists(part) or (os.path.exists(part) and os.path.samefile(part, path))  # noqa: PTH110, PTH121


def captions_are_free(record: Record, target: Path) -> bool:
    """Return whether captions of *target* may be written: there are none, or only those of an interrupted run."""
    was_free = record.writing_to == absolute(target) and record.captions_free
    return was_free or not os.path.lexists(captions_path(target))
