"""What every command that talks to the API takes, and the session made of it."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Annotated, Final, TypeAlias

from attrs import frozen
from cyclopts import Parameter

from heygen_async import HeyGenSession
from heygen_async.cli.durations import Duration
from heygen_async.policies import PollPolicy, RetryPolicy

RETRY: Final[ContextVar[RetryPolicy]] = ContextVar("RETRY", default=RetryPolicy())  # noqa: B039 frozen
"""How patiently requests are repeated. A program that runs commands in-process, such as a test, may set another."""


class MissingKey(ValueError):
    """There is no API key in the environment."""

    hint = "export HEYGEN_API_KEY=...   (or try it without one: heygen-async demo)"


Switch: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
"""A flag that is off unless it is given."""


@Parameter(name="*", group="Everywhere")
@frozen(kw_only=True)
class Options:
    """Where the API is, and how to print."""

    json: Switch = False
    """Print JSON; the default where the output is not a terminal."""
    base_url: Annotated[str | None, Parameter(metavar="URL")] = None
    """Where the API is; HEYGEN_BASE_URL without it, else https://api.heygen.com."""


@Parameter(name="*")
@frozen(kw_only=True)
class Patience:
    """How long to wait for a job, and how often to look."""

    timeout: Duration | None = None
    """How long to wait, such as 90, 90s, 30m or 1h30m; a day without it. The job goes on."""
    poll_every: Duration | None = None
    """How often to look, in seconds; without it the job's age decides, from every second to every 15."""

    @property
    def polling(self) -> PollPolicy:
        """The poller's policy."""
        if self.poll_every is None:
            return PollPolicy()
        return PollPolicy(fastest=self.poll_every, slowest=self.poll_every)


def session(options: Options, *, polling: PollPolicy | None = None, needs_key: bool = True) -> HeyGenSession:
    """Make the session that a command uses; one that sends nothing needs no key.

    Raises:
        MissingKey: If `HEYGEN_API_KEY` is not set.
        ValueError: If the base URL cannot be used.
    """
    key = os.environ.get("HEYGEN_API_KEY") or (None if needs_key else "none")
    if key is None:
        raise MissingKey("there is no API key: set the environment variable HEYGEN_API_KEY")
    return HeyGenSession(key, base_url=options.base_url, polling=polling or PollPolicy(), retry=RETRY.get())
