"""Where a video is written: its name, and all that can prevent it, found before anything is paid for.

Only `check_file` and `check_captions` are coroutines; the rest touches the file system and belongs in a thread. Nothing
is written.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import Final
from urllib.parse import unquote, urlsplit

from anyio import to_thread

from heygen_async._media.parts import PART, SIDE, part_problem
from heygen_async._text import one_line, start_of
from heygen_async.errors import DownloadError
from heygen_async.models import FilePath

_SUFFIX_BYTES: Final = len(SIDE)
_NAME_BYTES, _PATH_BYTES = 255, 4096
"""What file systems take, where they do not say."""

_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*]')
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
_SUFFIXES: Final = (".mp4", ".webm", ".mov", ".m4v")
_LONGEST_NAME: Final = 200
"""Bytes. File systems take 255, some encrypted ones 143; the name of an unfinished download is longer."""
_LONGEST_ID: Final = 80
_JOINER: Final = "\u200d"


def captions_path(path: Path) -> Path:
    """Return the path of the captions of the video at *path*: beside it."""
    return path.with_suffix(".srt") if path.suffix != ".srt" else path.with_name(f"{path.name}.srt")


def same_file_key(path: Path) -> str:
    """Return a text that is equal for all paths that lead to one file, links and spellings of the name included."""
    # Some file systems take names for the same that differ in case, or in how an accent is written. Names are taken
    # apart first: some capitals with two accents have no character of their own.
    apart = unicodedata.normalize("NFD", _resolved(str(path)))
    return unicodedata.normalize("NFC", apart.casefold())


def place_of(path: str) -> Path:
    """Return what is equal for all paths that lead to one name in one folder. For threads."""
    folder, name = os.path.split(path)
    return Path(_resolved(folder), name)


def _resolved(path: str) -> str:
    """Return *path* without links; as it is if it has a character that no path can have."""
    try:
        return os.path.realpath(path)
    except ValueError:
        return path


def expanded(path: FilePath) -> str:
    """Return *path* with a leading `~` expanded; a separator at its end, which means a folder, stays."""
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 Path drops the separator at the end


async def check_file(path: FilePath, *, overwrite: bool, captions: bool = False, lipsync_id: str | None = None) -> None:
    """Check that a video can be written at *path*, or into it if it is a folder.

    Raises:
        DownloadError: If not, with every reason.
    """
    check = partial(target_problems, overwrite=overwrite, captions=captions, lipsync_id=lipsync_id)
    await _check(path, check)


async def check_captions(path: FilePath, *, overwrite: bool) -> None:
    """Check that captions can be written beside a video at *path*, or into it if it is a folder.

    Raises:
        DownloadError: If not, with every reason.
    """
    await _check(path, partial(_captions_problems, overwrite=overwrite))


async def _check(path: FilePath, problems_of: Callable[[Path], list[str]]) -> None:
    if problems := await to_thread.run_sync(_problems, expanded(path), problems_of):
        raise DownloadError("; ".join(problems))


def _problems(path: str, problems_of: Callable[[Path], list[str]]) -> list[str]:
    target = Path(path)
    if os.path.isdir(path):  # noqa: PTH112 never raises, whatever the path holds
        return _folder_problems(target, target, makes_folders=False)
    if path.endswith((os.sep, os.altsep or os.sep)):
        return [f"cannot write into {target}: the folder does not exist"]
    return problems_of(target)


def _captions_problems(target: Path, *, overwrite: bool) -> list[str]:
    if problem := _name_problem(target):
        return [problem]
    captions = captions_path(target)
    problems = _folder_problems(target, target.parent, makes_folders=False) + _length_problems(captions, suffix="")
    return problems + _existing_problems(captions, overwrite=overwrite)


def target_in(path: str, title: str | None, lipsync_id: str, url: str) -> Path:
    """Return the file to write: *path*, or in it, if it is a folder, a name made of title, id and the end of *url*."""
    target = Path(path)
    if not os.path.isdir(path):  # noqa: PTH112 never raises, whatever the path holds
        return target
    fits = _limit(target, "PC_NAME_MAX", _NAME_BYTES) - _SUFFIX_BYTES
    return target / file_name(title, lipsync_id, url, longest=min(_LONGEST_NAME, fits))


def target_problems(
    target: Path,
    *,
    overwrite: bool = False,
    makes_folders: bool = False,
    captions: bool = False,
    lipsync_id: str | None = None,
) -> list[str]:
    """Return every reason why a video cannot be written to *target*. Nothing is written to find out.

    Args:
        target: The file.
        overwrite: Whether a file that exists may be replaced.
        makes_folders: Whether missing folders are made before it is written.
        captions: Whether captions are written beside it.
        lipsync_id: The lipsync whose unfinished download may be resumed; `None` before it is created. The
            unfinished download of any other lipsync is a problem, whatever *overwrite* is.
    """
    if problem := _name_problem(target):
        return [problem]
    problems = _folder_problems(target, target.parent, makes_folders=makes_folders)
    problems += _length_problems(target)
    problems += _existing_problems(target, overwrite=overwrite)
    if captions:
        problems += _existing_problems(captions_path(target), overwrite=overwrite)
    if problem := part_problem(target, lipsync_id):
        problems.append(problem)
    return problems


def _name_problem(target: Path) -> str | None:
    if not target.name:
        return f"cannot write {str(target)!r}: it names no file"
    if "\0" in str(target):
        return f"cannot write {str(target)!r}: a path must not contain NUL"
    try:
        os.fsencode(target)
    except UnicodeEncodeError:
        return f"cannot write {str(target)!a}: the path has a character that no file name can have"
    if target.name.lower().endswith((PART, SIDE)):
        return f"cannot write {target}: names that end with {PART} or {SIDE} belong to unfinished downloads"
    return None


def _folder_problems(target: Path, folder: Path, *, makes_folders: bool) -> list[str]:
    existing = _nearest(folder)
    if not os.path.isdir(existing):  # noqa: PTH112 never raises
        return [f"cannot write {target}: {existing} is not a folder"]
    if existing != folder and not makes_folders:
        return [f"cannot write {target}: the folder {folder} does not exist"]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"cannot write {target}: the folder {existing} is not writable"]
    return []


def _nearest(path: Path) -> Path:
    """Return *path*, or the nearest of its parents that exists."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def _length_problems(target: Path, *, suffix: str = SIDE) -> list[str]:
    folder = _nearest(target.parent)
    most = _limit(folder, "PC_NAME_MAX", _NAME_BYTES)
    missing = target.parent.parts[len(folder.parts) :]
    problems = [
        f"cannot write {target}: the folder name {name!r} has {size} bytes, and {most} fit"
        for name in missing
        if (size := len(os.fsencode(name))) > most
    ]
    most -= len(suffix)
    if (size := len(os.fsencode(target.name))) > most:
        reason = f", as it is written to a file named {SIDE} and {PART} after it first" if suffix else ""
        problems.append(f"cannot write {target}: the name has {size} bytes, and {most} fit{reason}")
    longest = _limit(folder, "PC_PATH_MAX", _PATH_BYTES) - 1 - len(suffix)  # it counts a NUL
    if (size := len(os.fsencode(os.path.abspath(target)))) > longest:  # noqa: PTH100 no links
        problems.append(f"cannot write {target}: the path has {size} bytes, and {longest} fit")
    return problems


def _limit(folder: Path, name: str, otherwise: int) -> int:
    try:
        limit = os.pathconf(folder, name)
    except (OSError, ValueError, AttributeError):  # Windows has no pathconf
        return otherwise
    return limit if limit > 0 else otherwise  # -1: it has none, or does not say


def _existing_problems(file: Path, *, overwrite: bool) -> list[str]:
    if os.path.isdir(file):  # noqa: PTH112 never raises
        return [f"cannot write {file}: it is a folder"]
    if os.path.exists(file) and not os.path.isfile(file):  # noqa: PTH110, PTH113 they never raise
        return [f"cannot write {file}: it is not a regular file"]  # a device or a pipe, which would be replaced
    if not overwrite and os.path.lexists(file):
        return [f"{file} exists already; give overwrite=True to replace it"]
    return []


# The name of a file


def file_name(title: str | None, lipsync_id: str, url: str, *, longest: int = _LONGEST_NAME) -> str:
    """Return a name that every file system takes, from a title and an id, such as `Episode 1 (ls_1).mp4`.

    Letters of any script are kept; it has no separators, is no device of Windows, and starts with no dot, dash or
    tilde: other programs take these for an option or a home folder.

    Args:
        title: The title.
        lipsync_id: The id.
        url: Where the file comes from; its extension is kept if it is one of a video.
        longest: Bytes that fit, 100 or more.
    """
    known = _cut(plain(lipsync_id), min(_LONGEST_ID, longest // 2)) or "lipsync"
    suffix = PurePath(unquote(urlsplit(url).path)).suffix.lower()
    suffix = suffix if suffix in _SUFFIXES else ".mp4"
    tail = f" ({known}){suffix}"
    head = _cut(plain(title or ""), longest - len(tail.encode()) - 1)
    return unreserved(head + tail if head else known + suffix)


def unreserved(name: str) -> str:
    """Return *name*, with an underscore before it if it is a device on Windows, such as `nul.mp4`."""
    return f"_{name}" if _RESERVED.match(name) else name


def plain(text: str) -> str:
    """Return *text* without what some file system refuses, dots and spaces at its ends, and what begins an option."""
    # Not str.isprintable(): joiners (Persian, emoji), U+00A0 and U+3000 are text.
    composed = unicodedata.normalize("NFC", one_line(start_of(text)))
    return _trim(_FORBIDDEN.sub("_", composed))


def _trim(text: str) -> str:
    while text != (shorter := text.strip().strip(".").lstrip("-~")):
        text = shorter
    return text


def _cut(text: str, most: int) -> str:
    """Return as much of *text* as fits into *most* bytes, without half of a character that is drawn as one."""
    kept = text.encode()[: max(most, 0)].decode(errors="ignore")
    while kept and len(kept) < len(text) and (kept[-1] == _JOINER or _is_joined(text[len(kept)])):
        kept = kept[:-1]
    return _trim(kept)


def _is_joined(char: str) -> bool:
    """Return whether *char* is drawn together with the one before it."""
    is_skin_tone = "\U0001f3fb" <= char <= "\U0001f3ff"
    return char == _JOINER or is_skin_tone or unicodedata.category(char) in {"Mn", "Mc", "Me"}
