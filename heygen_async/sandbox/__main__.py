"""`python -m heygen_async.sandbox`: a sandbox until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys

from heygen_async.sandbox.running import greeting, until_told_to_end
from heygen_async.sandbox.server import Sandbox


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
        sys.stdout.write(f"{greeting(sandbox)}\n")
        sys.stdout.flush()
        await until_told_to_end()


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
