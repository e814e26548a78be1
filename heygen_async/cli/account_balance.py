"""`heygen-async account`: the account of the API key."""

from __future__ import annotations

from heygen_async.cli.options import Options, session
from heygen_async.cli.output import emit


async def account(*, options: Options = Options()) -> None:  # noqa: B008 frozen
    """Print the account of the API key, with its balance where the API returns one.

    Example: heygen-async account
    """
    async with session(options) as heygen:
        emit((await heygen.request("GET", "/v3/users/me")).data, options)
