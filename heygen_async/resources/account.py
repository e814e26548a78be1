"""`session.account`: who the key belongs to."""

from __future__ import annotations

from attrs import frozen

from heygen_async._converter import read
from heygen_async._transport.driver import Transport
from heygen_async._wire import compose
from heygen_async.models import Account


@frozen
class Accounts:
    """The calls under `/v3/users`."""

    _transport: Transport

    async def me(self) -> Account:
        """Get the account of the key, with what is left in its wallet where the API tells.

        Raises:
            HeyGenError: See `heygen_async.errors`.
        """
        return read(await self._transport.send(compose("GET", "/v3/users/me")), Account)
