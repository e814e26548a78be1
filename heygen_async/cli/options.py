"""What every command that talks to the API takes, and the session made of it."""

from __future__ import annotations

import os

from attrs import frozen
from cyclopts import Parameter

from heygen_async import HeyGenSession
from heygen_async.polling import PollPolicy


class MissingKey(ValueError):
    """There is no API key in the environment."""

    hint = "export HEYGEN_API_KEY=...   (or try it without one: heygen-async demo)"


@Parameter(name="*")
@frozen(kw_only=True)
class Options:
    """Where the API is, and how to print."""

    json: bool = False
    """Print JSON; the default where the output is not a terminal."""
    base_url: str | None = None
    """Where the API is; HEYGEN_BASE_URL without it, else https://api.heygen.com."""


def session(options: Options, *, polling: PollPolicy | None = None) -> HeyGenSession:
    """Make the session that a command uses.

    Raises:
        MissingKey: If `HEYGEN_API_KEY` is not set.
        ValueError: If the base URL cannot be used.
    """
    if not os.environ.get("HEYGEN_API_KEY"):
        raise MissingKey("there is no API key: set the environment variable HEYGEN_API_KEY")
    return HeyGenSession(base_url=options.base_url, polling=polling or PollPolicy())
