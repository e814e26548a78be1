"""`heygen-async sandbox --record`: a proxy that records what passes, until Ctrl-C, and then prints the differences."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from heygen_async._arguments import is_loopback
from heygen_async._text import escape_controls, one_line
from heygen_async.cli.advice import advising_on_port
from heygen_async.cli.output import print_json, print_line
from heygen_async.cli.problems import Problems
from heygen_async.models import JSON
from heygen_async.sandbox.recording.proxy import RecordingProxy, checked_upstream

_GREETING: Final = """\
Recording what passes through {url} to {upstream} into {directory}.

    export HEYGEN_BASE_URL={url}

Programs use their own API key, and jobs cost what they always cost. Ctrl-C ends it and prints the differences."""


async def record(upstream: str, directory: Path, *, host: str, port: int, as_json: bool) -> None:
    """Record until a signal comes, and print how what was recorded differs from the sandbox and the models.

    Raises:
        BadArguments: If *upstream* is no address of an API.
    """
    problems = Problems()
    with problems.at("--record"):
        checked_upstream(upstream)
    problems.check()
    # With trust_env aiohttp would also send the passwords of ~/.netrc.
    os.environ.setdefault("NETRC", os.devnull)
    trust_env = not is_loopback(urlsplit(upstream).hostname)  # a proxy cannot reach this machine's loopback
    async with AsyncExitStack() as stack:
        with advising_on_port(port, host):
            passing = RecordingProxy(upstream, directory, host=host, port=port, trust_env=trust_env)
            proxy = await stack.enter_async_context(passing)
        if as_json:
            print_json({"data": {"base_url": proxy.url, "recordings": str(directory)}})
        else:
            print_line(_GREETING.format(url=proxy.url, upstream=one_line(upstream), directory=_shown(directory)))
        started = stack.pop_all()
    try:
        async with started:
            await asyncio.Event().wait()
    finally:  # once the last exchanges are recorded
        _print_summary(proxy, as_json=as_json)


def _shown(path: Path) -> str:
    return escape_controls(str(path))  # it may be copied, so its spaces stay


def _print_summary(proxy: RecordingProxy, *, as_json: bool) -> None:
    if as_json:
        differences: list[JSON] = [
            {"call": call, "difference": difference, "count": count}
            for (call, difference), count in proxy.differences.items()
        ]
        print_json({"data": {"exchanges": proxy.count, "differences": differences}})
        return
    for line in summary(proxy):
        print_line(line)


def summary(proxy: RecordingProxy) -> Iterator[str]:
    """Yield the lines that say what was recorded, and each difference with how often it was seen."""
    count = len(proxy.differences)
    yield ""
    yield (
        f"{proxy.count} exchange{'' if proxy.count == 1 else 's'} recorded in {_shown(proxy.directory)}; "
        f"{count or 'no'} difference{'' if count == 1 else 's'} from the sandbox and the models{':' if count else '.'}"
    )
    for (call, difference), times in proxy.differences.items():
        yield f"  {times:>5}  {one_line(call)}: {one_line(difference)}"
