"""Standard input, output and error that never stop a command.

Rule 1: a stream that is closed is the null device, so that no file of ours gets its number.
Rule 2: what cannot be written, because the reader of a pipe has left for instance, is dropped.
Rule 3: a stream that is set not to block is waited for: a process that shares the pipe or terminal may have set it.
Rule 4: what the encoding of a stream does not have is written as the escapes of JSON, so JSON stays JSON.
Rule 5: a window of no columns or lines is one of unknown size: nothing could be laid out for it.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_STDERR: Final = 2
_ESCAPED: Final = "heygen_async.escaped"
_READER_LEFT: Final = frozenset({errno.EPIPE, errno.EIO})
"""The errors of a pipe and of a terminal without a reader."""


class _Dropping(io.RawIOBase):
    """A raw stream that waits for its reader, and drops what it is given once a write has failed."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: object) -> int | None:
        block = memoryview(cast("bytes", data))
        if self.error is None:
            try:
                return self._write(block)
            except OSError as error:
                self.error = error
        return block.nbytes

    def _write(self, block: memoryview) -> int:
        while (written := self._raw.write(block)) is None:  # it is full, and set not to block
            _wait(self._raw, "write")
        return written


class _Waiting(io.RawIOBase):
    """A raw stream that is read to its end, also if it is set not to block."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while (count := self._raw.readinto(buffer)) is None:
            _wait(self._raw, "read")
        return count


def _wait(raw: io.RawIOBase, direction: Literal["read", "write"]) -> None:
    """Wait until *raw* can be read or written. It can be written, too, if its reader has left."""
    from select import select  # noqa: PLC0415 few streams are set not to block

    one = [raw]
    select(one if direction == "read" else [], one if direction == "write" else [], [])


def read_input() -> bytes:
    """Read standard input to its end."""
    raw = getattr(sys.stdin.buffer, "raw", None)
    return sys.stdin.buffer.read() if raw is None else io.BufferedReader(_Waiting(raw)).read()


@contextmanager
def standard_streams() -> Iterator[None]:
    """Replace the standard streams of this process by ones that never fail; others, a test's for instance, stay."""
    _fill_closed()
    _forget_empty_window()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = _unfailing(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _unfailing(sys.stderr, sys.__stderr__, _STDERR)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # it was closed
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def check_output() -> None:
    """Check that everything was written to standard output that its reader wanted.

    Raises:
        OSError: If a write failed for another reason than a reader that left, such as a full disk.
    """
    error = _output_error()
    if error is not None and error.errno not in _READER_LEFT:
        raise OSError(error.errno, f"cannot write to standard output: {error.strerror}") from error


def is_output_lost() -> bool:
    """Return whether nothing can be printed any more: a write failed, and what follows is dropped."""
    return _output_error() is not None


def _output_error() -> OSError | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Dropping) else None


def _fill_closed() -> None:
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one


def _forget_empty_window() -> None:
    for name in ("COLUMNS", "LINES"):  # which some programs export as 0 where there is no terminal
        if not os.environ.get(name, "").strip("0"):
            os.environ.pop(name, None)


def _unfailing(stream: TextIO | None, own: TextIO | None, number: int) -> TextIO:
    if stream is None:  # it was closed
        return _text_of(io.FileIO(number, "w", closefd=False), "utf-8", number)
    buffer = getattr(stream, "buffer", None)
    if stream is not own or buffer is None:
        return stream
    stream.flush()
    return _text_of(getattr(buffer, "raw", buffer), stream.encoding, number)  # with python -u there is no buffer


def _text_of(raw: io.RawIOBase, encoding: str, number: int) -> TextIO:
    buffer = io.BufferedWriter(_Dropping(raw))
    by_line = number == _STDERR or raw.isatty()  # as Python has it: a log in a file is not behind
    return io.TextIOWrapper(buffer, encoding=encoding, errors=_ESCAPED, line_buffering=by_line)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[place : place + 2], "big") for place in range(0, len(units), 2)]
    return "".join(f"\\u{code:04x}" for code in codes), error.end


codecs.register_error(_ESCAPED, _escape)
