"""A sandbox that runs until it is told to end: what it says of itself, and how it is told."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Final

from heygen_async.sandbox.server import Sandbox

_GREETING: Final = """\
A HeyGen sandbox listens at {url}, its key is {key}.

    export HEYGEN_BASE_URL={url} HEYGEN_API_KEY={key}

    curl -X POST {url}/v3/lipsyncs -H "X-Api-Key: {key}" -H "Content-Type: application/json" \\
      -d '{{"video": {{"type": "url", "url": "https://example.com/source.mp4"}},
           "audio": {{"type": "url", "url": "https://example.com/new-audio.mp3"}}}}'

Ctrl-C ends it."""


def greeting(sandbox: Sandbox) -> str:
    """Return what a person wants to know of a *sandbox*: its address, its key, and a `curl` line that works."""
    return _GREETING.format(url=sandbox.url, key=sandbox.api_key)


async def until_told_to_end() -> None:
    """Wait for SIGTERM; Ctrl-C interrupts it."""
    end = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: there only Ctrl-C ends it
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()
