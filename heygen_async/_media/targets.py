"""Where a download may be written. For threads, but for `check_target`."""

from __future__ import annotations

import os
import unicodedata
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from anyio import to_thread

from heygen_async.errors import DownloadError

FilePath: TypeAlias = "str | PathLike[str]"


def captions_path(path: Path) -> Path:
    """Return the path of the captions of the video at *path*: beside it."""
    return path.with_suffix(".srt") if path.suffix != ".srt" else path.with_name(f"{path.name}.srt")


async def check_target(path: FilePath, *, overwrite: bool) -> Path:
    """Check that a file can be written at *path*, or into it if it is a folder; return its absolute path.

    Raises:
        DownloadError: If a file exists there and may not be overwritten, or the folder is missing.
    """
    return await to_thread.run_sync(partial(_check_target, Path(path), overwrite=overwrite))


def _check_target(path: Path, *, overwrite: bool) -> Path:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 it also takes out `..`
    if path.is_dir():
        return absolute
    for problem in target_problems(path, overwrite=overwrite):
        raise DownloadError(problem)
    return absolute


def target_problems(
    target: Path, *, overwrite: bool = False, makes_folders: bool = False, captions: bool = False
) -> list[str]:
    """Return every reason why a video cannot be written to *target*; nothing is written to find out.

    Args:
        target: The file.
        overwrite: Whether a file that exists may be replaced.
        makes_folders: Whether missing folders are made before it is written.
        captions: Whether captions are written beside it.
    """
    problems = []
    if not makes_folders and not target.parent.is_dir():
        problems.append(f"cannot write {target}: the folder {target.parent} does not exist")
    if overwrite:
        return problems
    files = (target, captions_path(target)) if captions else (target,)
    there = [file for file in files if os.path.lexists(file)]
    return problems + [f"{file} exists already; give overwrite=True to replace it" for file in there]


def same_file_key(path: Path) -> str:
    """Return a text that is equal for all paths that lead to one file, links and spellings of the name included."""
    # Some file systems take names for the same that differ in case, or in how an accent is written.
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()
