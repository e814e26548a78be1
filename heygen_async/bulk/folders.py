"""Folders of a run, created and removed off the event loop."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from anyio import to_thread
from attrs import define, field

MARK: Final = ".heygen-cluster"
"""The file in a folder that several machines share."""


@asynccontextmanager
async def temporary_folder() -> AsyncGenerator[Path, None]:
    """Give out a new folder, which is removed afterwards with everything in it."""
    folder = _TemporaryFolder()
    try:
        yield await to_thread.run_sync(folder.make)
    finally:
        await to_thread.run_sync(folder.remove)


@define(eq=False)
class _TemporaryFolder:
    """A folder that is made and removed in threads: a task that is cancelled while it is made still removes it."""

    _path: Path | None = None
    _is_over: bool = False
    _lock: Lock = field(factory=Lock)

    def make(self) -> Path:
        with self._lock:
            if self._is_over:
                raise FileNotFoundError(errno.ENOENT, "the folder is not wanted any more")
            self._path = Path(tempfile.mkdtemp(prefix="heygen-"))
            return self._path

    def remove(self) -> None:
        with self._lock:
            self._is_over = True
            if self._path is not None:
                shutil.rmtree(self._path, ignore_errors=True)


async def check_writable(folder: Path | None) -> None:
    """Create *folder* if it does not exist, and check that a file can be created in it.

    Raises:
        OSError: If it cannot.
    """
    if folder is not None:
        await to_thread.run_sync(_try_to_write, folder)


async def check_creatable(folder: Path | None) -> None:
    """Check the same without creating *folder*: a file can be created in it, or in the folder where it would be made.

    Raises:
        OSError: If it cannot.
    """
    if folder is not None:
        await to_thread.run_sync(_try_to_create, folder)


def _try_to_write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _try_to_create(folder)


def _try_to_create(folder: Path) -> None:
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), folder)
    # The file has no name where the system can do that: no crash leaves it.
    with tempfile.TemporaryFile(prefix=".heygen-", dir=there):
        pass


async def mark_shared(folder: str) -> None:
    """Create *folder* if it does not exist, and mark it, so that other machines can tell that it is the same folder.

    Raises:
        OSError: If it cannot be written to.
    """
    await check_writable(Path(folder))
    await to_thread.run_sync(Path(folder, MARK).touch)


async def is_shared_folder(folder: str) -> bool:
    """Return whether *folder* was marked as one that several machines share; not if it cannot be looked at."""
    return await to_thread.run_sync(os.path.exists, Path(folder, MARK))
