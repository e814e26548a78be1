"""What an error says of its request: whether it was carried out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heygen_async.errors import (
    IN_PROGRESS,
    APIError,
    Conflict,
    HeyGenError,
    InvalidRequest,
    NotFound,
    Outcome,
    RateLimited,
    has_own_code,
)


def is_in_progress(error: HeyGenError) -> bool:
    """Return whether the first request under this idempotency key is still being processed."""
    return isinstance(error, Conflict) and error.code == IN_PROGRESS


def is_unsettled(error: APIError) -> bool:
    """Return whether the request may have been carried out in spite of this answer: 408, 409 in progress, 5xx."""
    return error.is_transient and not isinstance(error, RateLimited)


def is_final_answer(error: HeyGenError) -> bool:
    """Return whether *error* shows that no request under its idempotency key has created anything.

    The API looks the key up before it looks at the body, so a refused body means that the key was unknown to it, or
    that the refusal is what it keeps for the key. 401, 402, 403, 404 of the route and 429 may come before the look-up.
    """
    if error.outcome == "unknown":  # an error inside a success
        return False
    if isinstance(error, InvalidRequest):
        return has_own_code(error)
    return isinstance(error, NotFound) and error.code == "asset_not_found"


_SEVERITY: Final[Mapping[Outcome | None, int]] = {None: 0, "not_sent": 1, "rejected": 2, "unknown": 3}


def worse(one: Outcome | None, other: Outcome | None) -> Outcome | None:
    """Return the outcome of two that leaves more open."""
    return max(one, other, key=_SEVERITY.__getitem__)


def outcome_after(earlier: Outcome | None, error: HeyGenError) -> Outcome | None:
    """Return what is known of a call whose latest attempt ended in *error*.

    Args:
        earlier: What was known before. Once it is `unknown`, only a final answer under the key changes that.
        error: What ended the latest attempt, with the outcome of that attempt alone.
    """
    return "rejected" if is_final_answer(error) else worse(earlier, error.outcome)
