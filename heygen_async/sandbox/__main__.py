"""`python -m heygen_async.sandbox`: a sandbox until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
from functools import partial
from typing import Final

from heygen_async.sandbox.plain_numbers import plain_number
from heygen_async.sandbox.server import Sandbox, greeting

_INTERRUPTED: Final = 130
_EXIT_CODES: Final = {"SIGTERM": 0, "SIGINT": _INTERRUPTED, "SIGHUP": 129}  # Windows has no SIGHUP


def _number(text: str, *, kind: type[float]) -> float:
    try:
        return plain_number(text, kind)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    whole, plain = partial(_number, kind=int), partial(_number, kind=float)
    parser = argparse.ArgumentParser(prog="python -m heygen_async.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=whole, default=8080, help="0 takes a free one (default %(default)s)")
    parser.add_argument("--api-key", default="sandbox-key", help="the key it accepts (default %(default)s)")
    parser.add_argument("--speed", type=plain, default=1.0, help="seconds of its time per second (default %(default)s)")
    parser.add_argument("--manual", action="store_true", help="its time stands still except in POST /_sandbox/advance")
    parser.add_argument("--job-seconds", type=plain, default=20.0, help="how long a job takes (default %(default)s)")
    parser.add_argument("--account-limit", type=whole, default=10, help="jobs at once (default %(default)s)")
    parser.add_argument("--balance", type=plain, default=100.0, help="dollars in the wallet (default %(default)s)")
    return parser


def _sandbox() -> Sandbox:
    """Make the sandbox that the arguments describe; wrong ones end the process, with the usage."""
    parser = _parser()
    try:
        # Another seed each time: an id from yesterday's sandbox must not name a job of today's.
        return Sandbox(**vars(parser.parse_args()), seed=secrets.randbits(32))
    except ValueError as error:
        parser.error(str(error))


async def _serve(sandbox: Sandbox) -> int:
    async with sandbox:
        code = _exit_code()
        print(greeting(sandbox), flush=True)  # noqa: T201 it is the result; nothing if the output is closed
        return await code


def _exit_code() -> asyncio.Future[int]:
    """Return what a signal will set: the exit code."""
    loop = asyncio.get_running_loop()
    code: asyncio.Future[int] = loop.create_future()
    for name, value in _EXIT_CODES.items():
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) is signal.SIG_IGN:
            continue  # ignored as under nohup
        # The loop's own handlers wake it; those of `signal` may run only with the next request.
        with contextlib.suppress(NotImplementedError):  # Windows: there Ctrl-C raises KeyboardInterrupt
            loop.add_signal_handler(number, _settle, code, value)
    return code


def _settle(future: asyncio.Future[int], value: int) -> None:
    if not future.done():
        future.set_result(value)


def main() -> int:
    """Run until a signal comes; return the exit code."""
    sandbox = _sandbox()
    try:
        return asyncio.run(_serve(sandbox))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        sys.stderr.write(f"The sandbox cannot start: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
