"""What the API says about the key and its account: scopes, expiry, balance. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, TypeVar

from heygen_async._converter import read
from heygen_async._doctor.seen import CallResult
from heygen_async.diagnosis import Check, Level
from heygen_async.errors import (
    AuthenticationError,
    HeyGenError,
    NotFound,
    PermissionDenied,
    UnexpectedResponse,
    has_own_code,
)
from heygen_async.models import Account, ApiKey, Subscription, UsageBased, Wallet

T = TypeVar("T")

_DAY: Final = 86400.0
_SOON: Final = 7 * _DAY
_ADD_SCOPE: Final = "Add the scope to the key in HeyGen's settings, or use another key."
_ACTIVE: Final = frozenset({"active", "enabled", "valid"})
_MOST_SCOPES: Final = 12
_SCOPES: Final = (
    ("lipsync:write", Level.ERROR, "creates will be refused with 403"),
    ("assets:write", Level.WARNING, "local files cannot be uploaded, only URLs can be used"),
)


def key_checks(result: CallResult, page: CallResult | None) -> Iterator[Check]:
    """Yield what is known of the key.

    Args:
        result: What `GET /v3/api_keys/self` says of it.
        page: The list of lipsyncs, which may show that a key is valid that may not read itself.
    """
    match result.error:
        case AuthenticationError() | PermissionDenied() as error:
            yield _unreadable_key(error.status, is_valid=_accepts_key(result) or _accepts_key(page))
        case NotFound() as error:
            summary = f"this account has no call to read the key ({error.status}): its scopes are not known"
            yield _key(Level.INFO, summary)
        case HeyGenError() as error:
            yield failed(result.call, error)
        case None:
            key = _model(result, ApiKey)
            if key is None:
                yield _key(Level.INFO, "the key is valid, but what the API says of it cannot be read")
            else:
                yield from _known_key(key, datetime.fromtimestamp(result.received_at, UTC))


def _accepts_key(result: CallResult | None) -> bool:
    """Return whether the API has answered a call, or refused only what the key may do."""
    if result is None or result.error is None:
        return result is not None
    return isinstance(result.error, PermissionDenied) and has_own_code(result.error)


def _unreadable_key(status: int, *, is_valid: bool) -> Check:
    if is_valid:
        summary = f"the key is valid, but may not read itself ({status}): scopes and expiry are not known"
        return _key(Level.INFO, summary)
    summary = f"the API refuses the key here ({status}), and the list failed, so whether it is valid is not known"
    advice = "Try again later. If it is still refused, copy the key again from HeyGen's settings into HEYGEN_API_KEY."
    return _key(Level.ERROR, summary, advice)


def unauthorized(error: AuthenticationError) -> Check:
    """Return the check for a 401."""
    advice = (
        "The API answers a missing, mistyped, revoked or expired key with the same 401. Copy the key again from "
        "HeyGen's settings into HEYGEN_API_KEY, without quotes, or make a new one."
    )
    return _key(Level.ERROR, f"the API does not accept the key: {error}", advice)


def _known_key(key: ApiKey, now: datetime) -> Iterator[Check]:
    if key.status is not None and key.status.lower() not in _ACTIVE:
        summary = f"the key is valid, but its status is {key.status}"
        yield _key(Level.WARNING, summary, "Check the key in HeyGen's settings.")
    else:
        yield _key(Level.OK, f"the key is valid; {_scopes(key)}")
    for scope, level, effect in _SCOPES if key.scopes else ():
        if not key.has_scope(scope):
            yield _key(level, f"the key lacks the scope {scope}: {effect}", _ADD_SCOPE)
    yield _expiry(key, now)


def _scopes(key: ApiKey) -> str:
    if not key.scopes:
        return "the API does not say which scopes it has"
    rest = len(key.scopes) - _MOST_SCOPES
    return f"scopes: {', '.join(key.scopes[:_MOST_SCOPES])}{f' and {rest} more' if rest > 0 else ''}"


def _expiry(key: ApiKey, now: datetime) -> Check:
    seconds = key.expires_in_seconds
    if seconds is None and key.expires_at is not None:
        seconds = (key.expires_at - now).total_seconds()
    if seconds is None:
        return _key(Level.OK, "the key does not expire, as far as the API says")
    if seconds <= 0:
        return _key(Level.ERROR, "the key has expired", "Make a new key in HeyGen's settings.")
    left = f"{seconds / _DAY:.0f} days" if seconds >= 2 * _DAY else f"{seconds / 3600:.1f} hours"
    if seconds < _SOON:
        return _key(Level.WARNING, f"the key expires in {left}", "Make a new key in HeyGen's settings before that.")
    return _key(Level.OK, f"the key expires in {left}")


def account_checks(result: CallResult) -> Iterator[Check]:
    """Yield what `GET /v3/users/me` says of the account: no name and no address."""
    match result.error:
        case PermissionDenied() as error:
            summary = f"the key may not read the account ({error.status}), so its balance is not known"
            advice = "Only the scope account:read is missing; lipsyncs do not need it."
            yield Check(area="account", level=Level.INFO, summary=summary, advice=advice)
        case HeyGenError() as error:
            yield failed(result.call, error)
        case None:
            account = _model(result, Account)
            if account is not None:
                yield _balance(account)


def _balance(account: Account) -> Check:
    left, unit = _left(account)
    billing = account.billing_type or "a way that the API does not name"  # unchanged, so that a secret in it is masked
    if left is None:
        return Check(area="account", level=Level.INFO, summary=f"billed by {billing}; the API gives no balance")
    text = f"billed by {billing}; {left:,.2f} {unit} left"
    if left > 0:
        return Check(area="account", level=Level.OK, summary=text)
    advice = "Creates will be refused with 402. Add credit in HeyGen's settings."
    return Check(area="account", level=Level.ERROR, summary=text, advice=advice)


def _left(account: Account) -> tuple[float | None, str]:
    """Return how much is left of what the account is billed to, or of what the API shows instead, and its unit."""
    kinds = {"wallet": account.wallet, "usage_based": account.usage_based, "subscription": account.subscription}
    billed = kinds.get(account.billing_type or "")
    match next((kind for kind in (billed, *kinds.values()) if kind is not None), None):
        case Wallet() as wallet:
            return wallet.remaining_balance, wallet.currency or "(no currency given)"
        case UsageBased() as usage:
            return usage.remaining_credits, "credits"
        case Subscription() as subscription:
            return _credits(subscription), "credits"
    return None, ""


def _credits(subscription: Subscription) -> float | None:
    kinds = subscription.credits
    if kinds is None:
        return None
    left = [kind.remaining for kind in (kinds.premium_credits, kinds.add_on_credits) if kind is not None]
    known = [remaining for remaining in left if remaining is not None]
    return sum(known) if known else None


def failed(call: str, error: HeyGenError) -> Check:
    """Return the check for a call that failed for no reason of the account's."""
    return Check(
        area="calls", level=Level.ERROR, summary=f"{call} failed: {error}", advice=error.hint or "Try again later."
    )


def _key(level: Level, summary: str, advice: str | None = None) -> Check:
    return Check(area="key", level=level, summary=summary, advice=advice)


def _model(result: CallResult, model: type[T]) -> T | None:
    assert result.response is not None  # noqa: S101 there was no error
    try:
        return read(result.response, model)
    except UnexpectedResponse:
        return None  # what is wrong with it is a finding of its own
