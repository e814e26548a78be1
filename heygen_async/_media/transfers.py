"""What the transfers of a session share."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from heygen_async._media.upload_cache import UploadCache

MAX_TRANSFERS: Final = 8
"""Files that move at once, up and down together. They have seats of their own, so API calls never wait for one."""

MULTIPART_MAX: Final = 32_000_000
"""The largest file in bytes that goes up as a form; a larger one goes to the storage host.

HeyGen says "32 MB". The smaller reading is right under both, as any size may go to the storage host.
"""


class Transfers:
    """The seats, threads and memory of a session's transfers; views of the session share them.

    Args:
        max_download_bytes: The longest video that is downloaded.
    """

    def __init__(self, max_download_bytes: int = 16 << 30) -> None:
        self.max_download_bytes = max_download_bytes
        self.seats = asyncio.Semaphore(MAX_TRANSFERS)
        # Our own threads: asyncio's look up names too, and must not stand in line behind a slow disk.
        self.pool = ThreadPoolExecutor(MAX_TRANSFERS, thread_name_prefix="heygen-files")
        self.uploaded = UploadCache()
        self.targets: set[Path] = set()
        """The files that are being written."""
        self.multipart_max = MULTIPART_MAX

    def close(self) -> None:
        """Let the threads end as they get idle; waits for none."""
        self.pool.shutdown(wait=False)
