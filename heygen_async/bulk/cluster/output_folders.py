"""The folders of outputs, which all machines share: an enqueue marks them, and every step looks for the mark first.

Rule 1: where the mark is missing the folder is not mounted. Nothing is written there, and no row fails for it, nor for
one that this machine can only read.
Rule 2: a file has the same inode on all machines, but each machine numbers its devices itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from anyio import to_thread
from attrs import define, evolve, field

from heygen_async.bulk.cluster.database import ClusterError
from heygen_async.bulk.cluster.rows import RunOptions
from heygen_async.bulk.folders import MARK, is_shared_folder, mark_shared
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.record import Record

_HINT: Final = f"mount it, then try again (if it was removed: make it again, with an empty file {MARK} in it)"


class UnusableFolder(ClusterError):
    """Raised on a machine where a folder of outputs is not mounted, or cannot be written to."""


def folder_of(row: PreparedRow, options: RunOptions) -> str | None:
    """Return the folder of outputs that the file of a row is in; `None` if none is written."""
    if row.target is None:
        return None
    return options.output_dir or str(row.target.parent)


async def check_usable(folder: str) -> None:
    """Check that a folder is the shared one on this machine, and can be written to.

    Raises:
        UnusableFolder: If not.
    """
    await _check_mounted(folder)
    if not await to_thread.run_sync(os.access, folder, os.W_OK | os.X_OK):
        raise UnusableFolder(f"{folder} cannot be written to on this machine; mount it so that it can, then try again")


async def _check_mounted(folder: str) -> None:
    if not await is_shared_folder(folder):
        raise UnusableFolder(f"{folder} is not the shared output folder on this machine; {_HINT}")


def seen_from_here(record: Record, target: Path) -> Record:
    """Return a record in which the files that its row has written are on the device of its folder; for a thread."""
    try:
        device = target.parent.stat().st_dev
    except OSError:
        return record  # there is no file either
    written, captions = (_on_device(one, device) for one in (record.written, record.captions))
    return evolve(record, written=written, captions=captions)


def _on_device(fingerprint: str | None, device: int) -> str | None:
    return None if fingerprint is None else f"{device}:{fingerprint.partition(':')[2]}"


@define
class OutputFolders:
    """The folders of the rows of an enqueue.

    Args:
        options: The options of the run.
        has_rows: Whether rows of the run are stored.
    """

    options: RunOptions
    has_rows: bool
    _known: set[str] = field(factory=set, init=False)
    """Those of rows that are stored, which were marked then."""
    _all: set[str] = field(factory=set, init=False)

    def add(self, row: PreparedRow, *, is_known: bool) -> None:
        """Note the folder of a row, whose output has an absolute path; *is_known* if it is stored with that output."""
        folder = folder_of(row, self.options)
        if folder is None:
            return
        self._all.add(folder)
        if is_known or (self.has_rows and folder == self.options.output_dir):
            self._known.add(folder)

    async def mark(self) -> None:
        """Make and mark those that are new.

        Raises:
            UnusableFolder: If one of the others is not mounted here: then nothing was marked.
            OSError: If one cannot be written to.
        """
        for folder in sorted(self._known):
            await _check_mounted(folder)
        for folder in sorted(self._all - self._known):
            await mark_shared(folder)
