"""Who the key belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from heygen_async.sandbox import strict
from heygen_async.sandbox.routes import Answer, Call, Route, data
from heygen_async.sandbox.world import World


@frozen
class Account:
    """The call under `/v3/users`."""

    world: World
    username: str

    def routes(self) -> Iterator[Route]:
        """List the call."""
        yield Route("GET", "/v3/users/me", self.me)

    def me(self, call: Call) -> Answer:
        """`GET /v3/users/me`."""
        strict.query(call.query, ())
        return data(
            {
                "username": self.username,
                "email": f"{self.username}@example.com",
                "first_name": "Sandbox",
                "last_name": "User",
                "billing_type": "wallet",
                "wallet": {
                    "currency": "usd",
                    "remaining_balance": self.world.balance,
                    "auto_reload": {"enabled": False},
                },
                "subscription": None,
                "usage_based": None,
            }
        )
