"""Folders that a run needs, made and removed off the event loop."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from anyio import to_thread


@asynccontextmanager
async def temporary_folder() -> AsyncGenerator[Path, None]:
    """Give out a folder that is gone with all that is in it afterwards."""
    folder = await to_thread.run_sync(partial(tempfile.mkdtemp, prefix="heygen-"))
    try:
        yield Path(folder)
    finally:
        await to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


async def check_writable(folder: Path | None) -> None:
    """Make *folder* if it is not there, and see that a file can be made in it.

    Raises:
        OSError: If not.
    """
    if folder is not None:
        await to_thread.run_sync(_try_to_write, folder)


def _try_to_write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".heygen-", dir=folder)
    os.close(handle)
    os.unlink(name)  # noqa: PTH108 it is a string
