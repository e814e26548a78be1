"""The account that a journal belongs to, and its wallet before and after a run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from attrs import define, field

from heygen_async.bulk.store import Facts, HeyGen, JournalError
from heygen_async.errors import HeyGenError
from heygen_async.models import Account, Wallet

_SECONDS: Final = 10.0
"""How long to wait for the account."""


class WrongAccount(JournalError):
    """Raised when the API key belongs to another account than the journal."""

    hint = "Use a key of that account, or another journal."


@define(eq=False)
class Owner:
    """Looks at the account, where the key is allowed to."""

    heygen: HeyGen
    facts: Facts
    before: Wallet | None = None
    """The wallet before the first request of the run."""
    after: Wallet | None = None
    """The wallet at the end."""
    _lock: asyncio.Lock = field(factory=asyncio.Lock)
    _is_checked: bool = False

    async def check(self) -> None:
        """Check, once in a run, that the store belongs to the account of the key.

        Raises:
            WrongAccount: If it belongs to another one.
        """
        async with self._lock:
            if self._is_checked:
                return
            account = await self._account()
            if account is not None:
                self.before = account.wallet
                await self._compare(account.username)
            self._is_checked = True

    async def _compare(self, username: str) -> None:
        owner = await self.facts.fact("account")
        if owner is None:
            await self.facts.keep_fact("account", username)
        elif owner != username:
            raise WrongAccount(f"{self.facts} belongs to the account {owner}, and the API key to {username}")

    async def look_again(self) -> None:
        """Look at the wallet at the end of a run, if that has sent anything."""
        if self._is_checked:
            account = await self._account()
            self.after = None if account is None else account.wallet

    async def _account(self) -> Account | None:
        with suppress(HeyGenError, TimeoutError):  # the key may not be allowed to read it
            async with asyncio.timeout(_SECONDS):
                return await self.heygen.me()
        return None
