"""What a sandbox prints when it starts as a command."""

from __future__ import annotations

from typing import Final

from heygen_async.sandbox.server import Sandbox

_GREETING: Final = """\
The sandbox listens at {url}; its API key is {key}.

    export HEYGEN_BASE_URL={url} HEYGEN_API_KEY={key}

    curl -X POST {url}/v3/lipsyncs -H "X-Api-Key: {key}" -H "Content-Type: application/json" \\
      -d '{{"video": {{"type": "url", "url": "https://example.com/source.mp4"}},
           "audio": {{"type": "url", "url": "https://example.com/new-audio.mp3"}}}}'

Ctrl-C ends it."""


def greeting(sandbox: Sandbox) -> str:
    """Return what a person needs to use a running *sandbox*: its address, its key, and a `curl` line that works."""
    return _GREETING.format(url=sandbox.url, key=sandbox.api_key)
