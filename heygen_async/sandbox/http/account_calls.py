"""The key and the account that it belongs to."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from heygen_async.sandbox.http import validation
from heygen_async.sandbox.http.calls import Call, CallAnswer, Handler, data
from heygen_async.sandbox.settings import USERNAME, Settings
from heygen_async.sandbox.state.clock import LATEST, Clock
from heygen_async.sandbox.state.world import World

_MONTH: Final = 30 * 24 * 3600.0


@frozen
class AccountCalls:
    """The calls under `/v3/users` and `/v3/api_keys`."""

    world: World
    clock: Clock
    settings: Settings

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by route."""
        return {"GET /v3/users/me": self.me, "GET /v3/api_keys/self": self.key}

    def me(self, call: Call) -> CallAnswer:
        """`GET /v3/users/me`."""
        validation.query(call.query, ())
        billing = self.settings.billing
        views = {"wallet": self._wallet, "subscription": self._subscription, "usage_based": self._usage_based}
        return data(
            {
                "username": USERNAME,
                "email": f"{USERNAME}@example.com",
                "first_name": "Sandbox",
                "last_name": "User",
                "billing_type": billing,
                **{name: view() if name == billing else None for name, view in views.items()},
            }
        )

    def key(self, call: Call) -> CallAnswer:
        """`GET /v3/api_keys/self`."""
        validation.query(call.query, ())
        key: dict[str, object] = {
            "key_id": "key_sandbox",
            "key_name": "Sandbox",
            "status": "active",
            "scope_mode": "all" if self.settings.allows("*:*") else "restricted",
            "scopes": sorted(self.settings.scopes),
            "created_at": self.clock.iso(0.0),
            "updated_at": self.clock.iso(0.0),
        }
        seconds = self.settings.key_seconds
        if seconds is not None and seconds <= LATEST:
            key["expires_at"] = self.clock.iso(seconds)
            key["expires_in_seconds"] = int(seconds - call.now)
        return data(key)

    def _wallet(self) -> dict[str, object]:
        return {
            "currency": self.settings.currency,
            "remaining_balance": self.world.balance,
            "auto_reload": {"enabled": False},
        }

    def _subscription(self) -> dict[str, object]:
        credit = {"remaining": self.world.balance, "resets_at": self.clock.iso(_MONTH)}
        return {"plan": "sandbox", "credits": {"premium_credits": credit, "add_on_credits": {**credit, "remaining": 0}}}

    def _usage_based(self) -> dict[str, object]:
        return {
            "spending_cap_usd": self.settings.balance,
            "spending_current_usd": self.world.spent,
            "remaining_credits": self.world.balance,
            "included_credits": self.settings.balance,
        }
