"""A download on disk: `NAME.part` beside its target until it is whole, then the target itself.

`NAME.part.etag` says which version of the file the part is of, so that another run can go on with it.
Everything here is for threads.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from heygen_async._media import mp4
from heygen_async._media.answers import Held
from heygen_async.errors import DownloadError

try:
    import fcntl
except ImportError:  # Windows: there another process is kept out by nothing but its own care
    fcntl = None  # type: ignore[assignment]

_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class Part:
    """The unfinished form of one file."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._version = target.with_name(f"{target.name}.part.etag")

    def open(self) -> BinaryIO:
        """Open it, made if it is not there, for nobody else.

        Raises:
            DownloadError: If another process has it.
        """
        self._part_company()
        while True:
            file = os.fdopen(os.open(self.path, _FLAGS, 0o666), "r+b", buffering=0)
            try:
                self._lock(file)
                # Between opening and locking it another process may have finished it: then it is its target now.
                if self._is_it(file):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _part_company(self) -> None:
        """Unlink it if it is the target by another name: a crash between the two steps of publishing left it so."""
        with suppress(FileNotFoundError):
            if self.path.samefile(self.target):
                self.path.unlink()

    def _lock(self, file: BinaryIO) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"{self.path} is being downloaded by someone else") from None
        except OSError:  # some network file systems know no locks
            return

    def _is_it(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def held(self, file: BinaryIO) -> Held:
        """Return what there is of the file; nothing, if its version is not known."""
        size = file.seek(0, os.SEEK_END)
        try:
            etag, _, total = self._version.read_text("ascii").partition("\n")
        except (OSError, ValueError):
            return Held()
        known = int(total) if total.strip().isdigit() else None
        if not etag.startswith('"') or not etag.isprintable() or (known is not None and size > known):
            return Held()
        return Held(size, etag, known)

    def begin(self, place: int, held: Held, file: BinaryIO) -> None:
        """Make ready for bytes from *place* on, of the version that *held* names."""
        # In this order: after a crash there may be bytes without a version, but never a version of other bytes.
        if place == 0:
            self._version.unlink(missing_ok=True)
        file.truncate(place)
        file.seek(place)
        if held.etag is not None:
            self._version.write_text(f"{held.etag}\n{'' if held.total is None else held.total}\n", "ascii")

    def flaw(self, file: BinaryIO) -> str | None:
        """Return what is wrong with the whole file, though as many bytes came as were announced."""
        return mp4.cut_short(file)

    def publish(self, file: BinaryIO, *, overwrite: bool) -> None:
        """Give the file its name, all at once.

        Raises:
            FileExistsError: If the name has been taken meanwhile, and may not be overwritten.
        """
        if fcntl is None:
            file.close()  # Windows renames no open file
        if overwrite:
            self.path.replace(self.target)
        else:
            self._publish_if_free()
        self._version.unlink(missing_ok=True)

    def _publish_if_free(self) -> None:
        try:
            os.link(self.path, self.target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without links: take the name with an empty file, which is then replaced.
            os.close(os.open(self.target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            self.path.replace(self.target)
        else:
            self.path.unlink(missing_ok=True)  # another process may have found it to be the target already

    def discard(self, _: BinaryIO) -> None:
        """Remove it."""
        for path in (self._version, self.path):
            with suppress(OSError):
                path.unlink()


def write_all(blocks: Iterable[bytes], file: BinaryIO) -> None:
    """Write *blocks*, whole."""
    for block in blocks:
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
