"""Videos on disk that the page may show: those that the journal names, as the run left them. For threads.

Rule 1: a file is opened first and compared then, by its descriptor: what is served is what was compared.
Rule 2: it must have the fingerprint that the journal recorded: inode, size and times. So a link to another
file, a file in its place or a changed one is never served. Links in the path of its folder may be there: the run wrote
through them.
Rule 3: only regular files are read. Their media type is one of four video types, whatever their name or content.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Final, cast

from heygen_async._media.sources import fingerprint
from heygen_async._media.targets import captions_path
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.local_files import read_file_info
from heygen_async.bulk.outputs import fingerprint_of, is_same_file
from heygen_async.bulk.record import Record, State
from heygen_async.review.row_view import FileState

_TYPES: Final = {".webm": "video/webm", ".mkv": "video/x-matroska", ".ogv": "video/ogg"}
_USUAL: Final = "video/mp4"
_CAPTIONS: Final = 4 << 20
"""The longest captions that are shown, in bytes."""
# Without NONBLOCK the opening of a pipe would wait for its other end.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NotShown(Exception):
    """Raised for a file that is not served.

    Attributes:
        state: Why.
    """

    def __init__(self, state: FileState) -> None:
        super().__init__(state)
        self.state = state


def result_state(record: Record) -> FileState:
    """Return the state of a row's result."""
    if record.target is None:
        return "none"
    path, written = _written(record)
    if path is None or written is None:
        return "unknown"
    found = fingerprint_of(path)
    if found is None or os.path.islink(path):  # noqa: PTH114 a string will do
        return "missing" if found is None else "changed"
    return "ready" if is_same_file(written, found) else "changed"


def open_result(record: Record) -> BinaryIO:
    """Open the result of a row.

    Raises:
        NotShown: If there is none, or it is not the file that the run wrote.
    """
    path, written = _written(record)
    if path is None or written is None:
        raise NotShown("none" if record.target is None else "unknown")
    return _opened(path, written)


def _written(record: Record) -> tuple[str | None, str | None]:
    """Return the path that a finished row has written, and the fingerprint of the file there."""
    if record.state is not State.DONE or record.target is None:
        return None, None
    return record.writing_to, record.written


def read_again(path: str, info: FileInfo) -> FileInfo:
    """Return what is known of a source after it was read once more, because only its content was recorded.

    Raises:
        NotShown: If its content has changed.
    """
    found = read_file_info(Path(path))
    if isinstance(found, str):
        raise NotShown("missing")
    if found.digest != info.digest:
        raise NotShown("changed")
    return found


def open_source(path: str, info: FileInfo | None) -> BinaryIO:
    """Open a source video.

    Args:
        path: Where the manifest says it is.
        info: What the journal knows of the file there.

    Raises:
        NotShown: If the journal does not know it, or it has changed.
    """
    if info is None or not info.fingerprint:
        raise NotShown("unknown")
    return _opened(path, info.fingerprint, follows_links=True)


def _opened(path: str, expected: str, *, follows_links: bool = False) -> BinaryIO:
    flags = _FLAGS & ~getattr(os, "O_NOFOLLOW", 0) if follows_links else _FLAGS
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise NotShown("missing" if isinstance(error, FileNotFoundError) else "changed") from error
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or not is_same_file(expected, fingerprint(found)):
        file.close()
        raise NotShown("changed")
    return cast("BinaryIO", file)


def read_captions(record: Record) -> bytes | None:
    """Return the captions that the run wrote beside a row's result; `None` if there are none."""
    path, _ = _written(record)
    if path is None or record.captions is None:
        return None
    try:
        with _opened(os.fspath(captions_path(Path(path))), record.captions) as file:
            return file.read(_CAPTIONS)
    except NotShown:
        return None


def video_type(path: str) -> str:
    """Return the media type to serve a video with."""
    return _TYPES.get(os.path.splitext(path)[1].lower(), _USUAL)  # noqa: PTH122 a string will do
