"""`session.account`: the account and the API key that a session uses."""

from __future__ import annotations

from attrs import frozen

from heygen_async._converter import read
from heygen_async._transport.driver import Transport
from heygen_async._wire import compose
from heygen_async.models import Account, ApiKey


@frozen
class Accounts:
    """Read the account and its API key."""

    _transport: Transport

    async def me(self) -> Account:
        """Get the account of the key, with its balance where the API returns one.

        Raises:
            PermissionDenied: If the key does not have the scope `account:read`. It may still create lipsyncs.
            HeyGenError: See `heygen_async.errors`.

        Cancelling it affects nothing.
        """
        return read(await self._transport.send(compose("GET", "/v3/users/me")), Account)

    async def key(self) -> ApiKey:
        """Get the API key that the session uses: its scopes and when it expires, not the key itself.

        Raises:
            PermissionDenied: If the key may not read this.
            NotFound: If the API does not have this call for the account.
            HeyGenError: See `heygen_async.errors`.

        Cancelling it affects nothing.
        """
        return read(await self._transport.send(compose("GET", "/v3/api_keys/self")), ApiKey)

    def __repr__(self) -> str:
        return "<Accounts: me(), key()>"
