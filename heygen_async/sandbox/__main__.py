"""`python -m heygen_async.sandbox`: a sandbox until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys

from heygen_async.sandbox import Sandbox

_GREETING = """\
A HeyGen sandbox listens at {url}, its key is {key}.

    export HEYGEN_BASE_URL={url} HEYGEN_API_KEY={key}

    curl -X POST {url}/v3/lipsyncs -H "X-Api-Key: {key}" -H "Content-Type: application/json" \\
      -d '{{"video": {{"type": "url", "url": "https://example.com/source.mp4"}},
           "audio": {{"type": "url", "url": "https://example.com/new-audio.mp3"}}}}'

Ctrl-C ends it.
"""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m heygen_async.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default %(default)s)")
    parser.add_argument("--api-key", default="sandbox-key", help="the key it accepts (default %(default)s)")
    parser.add_argument("--speed", type=float, default=1.0, help="60: a job of a minute takes a second")
    parser.add_argument("--job-seconds", type=float, default=20.0, help="how long a job takes (default %(default)s)")
    parser.add_argument("--account-limit", type=int, default=10, help="jobs at once (default %(default)s)")
    parser.add_argument("--balance", type=float, default=100.0, help="dollars in the wallet (default %(default)s)")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    # Another seed each time: an id from yesterday's sandbox must not name a job of today's.
    async with Sandbox(**vars(options), seed=secrets.randbits(32)) as sandbox:
        sys.stdout.write(_GREETING.format(url=sandbox.url, key=sandbox.api_key))
        sys.stdout.flush()
        await _until_told_to_end()


async def _until_told_to_end() -> None:
    end = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: there only Ctrl-C ends it
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()


def main() -> int:
    """Run until told to end; return the exit code."""
    options = _options()
    try:
        asyncio.run(_serve(options))
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
        sys.stderr.write(f"The sandbox cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
