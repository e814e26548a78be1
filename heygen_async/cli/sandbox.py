"""`heygen-async sandbox`: a local sandbox until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from heygen_async.cli.advice import advising_on_port
from heygen_async.cli.number_flags import PlainNumber, Port, PositiveNumber, WholeNumber
from heygen_async.cli.options import PathFlag, Printing, Switch
from heygen_async.cli.output import print_json, wants_json
from heygen_async.cli.problems import Problems
from heygen_async.sandbox import Sandbox
from heygen_async.sandbox.server import greeting
from heygen_async.sandbox.settings import CHECKS


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SandboxFlags:
    """What `Sandbox` takes, under its names."""

    api_key: str = attrs.field(default="sandbox-key", repr=False)
    """The API key that it accepts."""
    speed: PositiveNumber = 1.0
    """How much faster its time runs: with 60, a job of a minute takes a second."""
    manual: Switch = False
    """Its time stands still, and moves in POST /_sandbox/advance."""
    job_seconds: PlainNumber = 20.0
    """How long a job takes, in seconds of its time."""
    account_limit: WholeNumber = 10
    """Jobs that run at once."""
    balance: PlainNumber = 100.0
    """Dollars in the wallet."""

    def given(self) -> list[str]:
        """Return the flags that differ from the defaults."""
        names = [flag.name for flag in attrs.fields(type(self)) if getattr(self, flag.name) != flag.default]
        return [_flag(name) for name in names]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


async def sandbox(
    *,
    port: Port = 8080,
    host: str = "127.0.0.1",
    flags: SandboxFlags = SandboxFlags(),
    record: Annotated[str | None, Parameter(metavar="URL")] = None,
    into: PathFlag | None = None,
    replay: PathFlag | None = None,
    options: Printing = Printing(),  # noqa: B008 frozen
) -> None:
    """Run a local sandbox of the API, without an API key, a network or costs, until Ctrl-C.

    It is as strict as the API, does not move lips, and keeps nothing when it ends.

    With --record it is a proxy in front of the real API instead: it passes requests on with their own key, writes each
    exchange into the directory of --into without secrets, and prints at its end how the API differs from the sandbox.
    With --replay it answers from such a directory what was recorded, and everything else as usual.

    Example: heygen-async sandbox --port 8080 --speed 60

    Args:
        port: The port to listen on; 0 takes a free one.
        host: The address to listen on.
        record: The API to record, such as https://api.heygen.com; needs --into.
        into: The directory for recordings; created if it is missing.
        replay: A directory of recordings to answer from.
    """
    if record is not None or into is not None:
        await _record(record, into, replay, flags, host=host, port=port, as_json=wants_json(options.json))
        return
    problems = Problems()
    for name, value in {"host": host, **attrs.asdict(flags)}.items():
        with problems.at(_flag(name)):
            CHECKS[name](name, value)
    with problems.at("--replay"):
        if replay is not None:
            await asyncio.to_thread(os.listdir, replay)
    problems.check()
    # Another seed each time: an id from yesterday's sandbox must not name a job of today's.
    with advising_on_port(port, host):
        async with Sandbox(
            **attrs.asdict(flags), port=port, host=host, seed=secrets.randbits(32), recordings=replay
        ) as running:
            _greet(running, as_json=wants_json(options.json))
            await asyncio.Event().wait()  # until a signal


async def _record(
    upstream: str | None,
    into: Path | None,
    replay: Path | None,
    flags: SandboxFlags,
    *,
    host: str,
    port: int,
    as_json: bool,
) -> None:
    if upstream is None or into is None:
        raise ValueError("--record URL and --into PATH belong together")
    if replay is not None:
        raise ValueError("--record and --replay exclude each other")
    problems = Problems()
    for flag in flags.given():
        problems.add(flag, "is for a sandbox of its own; with --record the API answers")
    with problems.at("--into"):
        if await asyncio.to_thread(into.is_file):
            raise ValueError(f"{into} is a file, not a folder")
    problems.check()
    from heygen_async.cli.recorder import record  # noqa: PLC0415 few sandboxes record

    await record(upstream, into, host=host, port=port, as_json=as_json)


def _greet(running: Sandbox, *, as_json: bool) -> None:
    if as_json:
        print_json({"data": {"base_url": running.url, "api_key": running.api_key}})
    else:
        print(greeting(running), flush=True)  # noqa: T201 it is the result
