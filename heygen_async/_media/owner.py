"""Which lipsync an unfinished download on disk belongs to. For threads.

A download is written to `NAME.part`. `NAME.part.etag` is made before it and removed after it: its first line names the
lipsync, the next two, once the file host has answered, the version of the file. A part without it is not ours.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

PART: Final = ".part"
SIDE: Final = ".part.etag"

_OWNER: Final = "lipsync "
SIDE_BYTES: Final = 4096
"""More than we ever write into a side file."""


def part_path(target: Path) -> Path:
    """Return where the unfinished form of *target* is."""
    return target.with_name(target.name + PART)


def side_path(target: Path) -> Path:
    """Return where the owner and the version of the unfinished form of *target* are."""
    return target.with_name(target.name + SIDE)


def owner_line(lipsync_id: str) -> str:
    """Return the first line of a side file."""
    return f"{_OWNER}{lipsync_id}\n"


def part_problem(target: Path, lipsync_id: str | None) -> str | None:
    """Return why the unfinished form of *target* must not be touched; `None` if it is free, or of this lipsync.

    Args:
        target: The file that it is to become.
        lipsync_id: The lipsync; `None` for one that does not exist yet.
    """
    side = side_path(target)
    for path in (part_path(target), side):
        found = _lstat(path)
        if found is not None and not stat.S_ISREG(found.st_mode):
            return f"cannot write {path}: it is {'a folder' if stat.S_ISDIR(found.st_mode) else 'not a regular file'}"
    if _lstat(side) is None:
        return owner_problem(target, "", lipsync_id)
    try:
        with side.open("rb") as file:
            return owner_problem(target, file.read(SIDE_BYTES).decode("ascii", "replace"), lipsync_id)
    except OSError as error:
        return f"cannot read {side}: {error.strerror or error}"


def owner_problem(target: Path, side_text: str, lipsync_id: str | None) -> str | None:
    """Return why the unfinished form of *target*, whose side file contains *side_text*, must not be touched."""
    part, side = part_path(target), side_path(target)
    first, newline, _ = side_text.partition("\n")
    owner = first.removeprefix(_OWNER) if newline and first.startswith(_OWNER) else None
    if _lstat(part) is None:  # there are no bytes to lose
        return _foreign(side) if side_text and owner is None else None
    if is_published(target):
        return None
    if owner is None:
        return _foreign(part)
    if owner == lipsync_id:
        return None
    return (
        f"{part} is an unfinished download of lipsync {owner}; finish that download to {target}, "
        f"or remove it and {side.name}"
    )


def is_published(target: Path) -> bool:
    """Return whether the part and *target* are two names of one file, as a crash at the end of a download leaves."""
    try:
        return part_path(target).samefile(target)
    except OSError:
        return False


def _foreign(path: Path) -> str:
    return f"{path} exists and is not an unfinished download of this lipsync; move or remove it"


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:  # it is not there, or its name is too long to be
        return None
