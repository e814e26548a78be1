"""How often a transfer is tried again: the session's `RetryPolicy`, counted in tries that got nowhere. Pure."""

from __future__ import annotations

from attrs import define

from heygen_async._transport.retry import Spent, backoff, decide, is_refusal
from heygen_async.errors import HeyGenError
from heygen_async.policies import RetryPolicy


@define
class Patience:
    """What one transfer has used up.

    A transfer may take hours, so `max_seconds` bounds the time that it spends waiting between tries, not the time
    in which bytes move.
    """

    policy: RetryPolicy
    tries: int = 0
    refusals: int = 0
    waited: float = 0.0

    def after(self, error: HeyGenError, *, chance: float) -> float | None:
        """Return the seconds to wait after a try that ended in *error*, or `None` to give up."""
        self.tries += 1
        self.refusals += is_refusal(error)
        spent = Spent(attempts=self.tries - self.refusals, refusals=self.refusals, seconds=self.waited)
        delay = decide(self.policy, error, spent=spent, repeatable=True, chance=chance)
        self.waited += delay or 0.0
        return delay

    def renew(self) -> None:
        """Start to count anew: there was progress."""
        self.tries, self.refusals, self.waited = 0, 0, 0.0

    def again(self, *, chance: float) -> float | None:
        """Return the seconds to wait before another way is tried, a fresh link for instance; `None` to give up.

        The first other way is tried at once, and even where the policy allows no repeat: it is not the same request.
        """
        self.tries += 1
        if self.tries >= max(self.policy.max_attempts, 2):
            return None
        delay = backoff(self.policy, self.tries - 1, chance=chance) if self.tries > 1 else 0.0
        self.waited += delay
        return delay
