"""The account that a journal belongs to, and its wallet before and after a run.

Rule: an account counts as unknown where it cannot be read, as with a key without that scope. An answer of a gateway, or
one that may be another the next time, says nothing about the account, so nothing may be sent yet.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from attrs import define, field

from heygen_async.bulk.limits import CircuitBreaker, asks_too_long, with_wait
from heygen_async.bulk.run_aborted import RunAborted
from heygen_async.bulk.store import Facts, HeyGen, JournalError
from heygen_async.errors import APIError, AuthenticationError, HeyGenError, has_own_code
from heygen_async.models import Account, Wallet

_NO_SUCH_CALL: Final = frozenset({404, 405, 501})
"""What an API without this call answers; a run needs it for a check only."""
_SECONDS: Final = 10.0
"""How long the end of a run waits for the account."""


class WrongAccount(JournalError):
    """Raised when the API key belongs to another account than the journal."""

    _hint = "Use a key of that account, or another journal."


async def account_of(heygen: HeyGen) -> Account | None:
    """Return the account of the key; `None` if it cannot be read.

    Raises:
        AuthenticationError: If the key is refused.
        HeyGenError: If there was no answer of the API, or one that may be another the next time.
    """
    try:
        return await heygen.me()
    except APIError as error:
        is_lasting = has_own_code(error) and not error.is_transient
        if not is_lasting or isinstance(error, AuthenticationError):
            raise
        return None


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
    _failure: HeyGenError | None = None
    """Why the account could not be read, and no row can be sent."""

    async def check(self) -> None:
        """Check, once in a run, that the store belongs to the account of the key.

        While the API does not answer, nothing is checked, and all rows wait here.

        Raises:
            WrongAccount: If it belongs to another one.
            RunAborted: If the API refuses the request, or does not answer for a minute.
        """
        async with self._lock:
            if self._is_checked:
                return
            if self._failure is not None:
                raise RunAborted(self._failure.fresh()) from self._failure
            account = await self._first_look()
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

    async def _first_look(self) -> Account | None:
        clock, breaker = asyncio.get_running_loop().time, CircuitBreaker()
        while True:
            try:
                return await account_of(self.heygen)
            except HeyGenError as error:
                if await self._is_optional(error):
                    return None
                breaker.failure(clock())
                requested = (error.retry_after if isinstance(error, APIError) else None) or 0.0
                if not error.is_transient or breaker.is_hopeless(clock() + requested):
                    self._failure = with_wait(error) if asks_too_long(error) else error
                    raise RunAborted(self._failure) from error
            await asyncio.sleep(max(breaker.next_chance() - clock(), requested))

    async def _is_optional(self, error: HeyGenError) -> bool:
        """Return whether the API may lack this call: a store whose account is known has been checked before."""
        has_no_call = isinstance(error, APIError) and error.status in _NO_SUCH_CALL
        return has_no_call and await self.facts.fact("account") is None

    async def look_again(self) -> None:
        """Look at the wallet at the end of a run, if that has sent anything; it is for information only."""
        if self._is_checked:
            with suppress(HeyGenError, TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    account = await self.heygen.me()
                    self.after = account.wallet
