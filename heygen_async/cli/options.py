"""The options that commands share, and the session made from them."""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen
from cyclopts import Parameter, Token, convert

from heygen_async._arguments import is_loopback
from heygen_async.cli.durations import Duration
from heygen_async.cli.suggestions import command, flag
from heygen_async.policies import PollPolicy, RetryPolicy

if TYPE_CHECKING:
    from heygen_async import HeyGenSession

RETRY: Final[ContextVar[RetryPolicy]] = ContextVar("RETRY", default=RetryPolicy())  # noqa: B039 frozen
"""How requests are retried. A program that runs commands in-process, such as a test, may set another policy."""


class MissingKey(ValueError):
    """There is no API key in the environment."""

    hint = "export HEYGEN_API_KEY=...   (or try it without a key: heygen-async demo)"


class WrongKey(MissingKey):
    """What is in the environment cannot be an API key."""

    hint = "Check the API key in HEYGEN_API_KEY."


Switch: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
"""A flag that is off unless it is given."""


def _chosen(kind: type, tokens: list[Token]) -> object:
    return convert(kind, tokens)


CHOICE: Final = Parameter(converter=_chosen)
"""For a choice that may be left out: without it, the words none and null would leave it out too."""


def _expanded(_type: object, tokens: list[Token]) -> Path:
    if not tokens[0].value:
        raise ValueError("must not be empty")
    return Path(os.path.expanduser(tokens[0].value))  # noqa: PTH111 Path raises where there is no home


PathFlag: TypeAlias = Annotated[Path, Parameter(converter=_expanded, metavar="PATH")]
"""A path; a shell leaves the `~` of `--flag=~/file` to the program."""


@Parameter(name="*", group="Everywhere")
@frozen(kw_only=True)
class Printing:
    """How to print."""

    json: Switch = False
    """Print JSON; the default where the output is not a terminal."""
    verbose: Annotated[int, Parameter(name=("--verbose", "-v"), count=True, negative="", show_default=False)] = 0
    """Log each job to standard error; with -vv, each request too."""


@Parameter(name="*", group="Everywhere")
@frozen(kw_only=True)
class Options(Printing):
    """How to print, and where the API is."""

    base_url: Annotated[str | None, Parameter(metavar="URL")] = None
    """The address of the API; without it HEYGEN_BASE_URL, else https://api.heygen.com."""

    def command(self, *words: str) -> str:
        """Return another command of this program for the same API, to be copied."""
        url = () if self.base_url is None else flag("--base-url", self.base_url)
        return command(*words, *url)


@Parameter(name="*")
@frozen(kw_only=True)
class WaitOptions:
    """How long to wait for a job, and how often to poll."""

    timeout: Duration | None = None
    """How long to wait, such as 90, 90s, 30m or 1h30m; a day without it. The job keeps running."""
    poll_every: Duration | None = None
    """How often to poll, such as 5 or 1m; without it every 1 to 15 s, by the age of the job."""

    @property
    def polling(self) -> PollPolicy:
        """The poller's policy."""
        return polling(self.poll_every)


def polling(poll_every: float | None) -> PollPolicy:
    """Return the policy for polling each *poll_every* seconds; `None` leaves it to the age of each job."""
    return PollPolicy() if poll_every is None else PollPolicy(fastest=poll_every, slowest=poll_every)


def session(options: Options, *, polling: PollPolicy | None = None, needs_key: bool = True) -> HeyGenSession:
    """Make the session that a command uses; one that sends nothing needs no key.

    Raises:
        MissingKey: If `HEYGEN_API_KEY` is not set, or cannot be a key.
        ValueError: If the base URL cannot be used.
    """
    from heygen_async import HeyGenSession  # noqa: PLC0415 help and errors of usage need none of it

    key = os.environ.get("HEYGEN_API_KEY", "").strip() or (None if needs_key else "none")
    if key is None:
        raise MissingKey("there is no API key: set the environment variable HEYGEN_API_KEY")
    # An empty --base-url, of a variable that is not set for instance, must not mean the real API.
    url = os.environ.get("HEYGEN_BASE_URL") if options.base_url is None else options.base_url
    is_local = _is_local(url)
    if not is_local and os.environ.get("HEYGEN_LOOPBACK_ONLY"):
        raise ValueError(
            "HEYGEN_LOOPBACK_ONLY is set: --base-url or HEYGEN_BASE_URL must be an address of this machine"
        )
    try:
        return HeyGenSession(
            key,
            base_url=url,
            polling=polling or PollPolicy(),
            retry=RETRY.get(),
            trust_env=not is_local,  # a proxy cannot reach this machine's loopback
        )
    except ValueError as error:
        if str(error).startswith("api_key "):
            raise WrongKey(str(error).replace("api_key", "HEYGEN_API_KEY", 1)) from error
        raise


def _is_local(url: str | None) -> bool:
    try:
        return is_loopback(urlsplit(url or "").hostname)
    except ValueError:
        return False  # the session refuses it
