"""The options of a `Sandbox` as one frozen value: every default and every check is here."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, TypedDict

from attrs import field, frozen
from attrs.validators import in_

from heygen_async.sandbox.faults import Fault
from heygen_async.sandbox.routes import check_route, matches

JobSeconds: TypeAlias = float | Sequence[float] | Callable[[Mapping[str, object]], float]
"""How long jobs run, in seconds: one number, numbers to repeat in order, or a function of the create's body."""

Captions: TypeAlias = Literal["ready", "empty", "gone"]
Billing: TypeAlias = Literal["wallet", "subscription", "usage_based"]
Currency: TypeAlias = Literal["usd", "credits"]
CallbackShape: TypeAlias = Literal["event", "flat"]

USERNAME: Final = "sandbox"
SCOPES: Final = frozenset({"lipsync", "assets", "webhooks", "account"})
LONGEST_LINK: Final = 7 * 24 * 3600.0
_RATES: Final[Mapping[Currency, Mapping[str, float]]] = {
    "usd": {"speed": 0.0333, "precision": 0.0667},
    "credits": {"speed": 0.05, "precision": 0.1},
}
_SCOPE: Final = re.compile(rf"\*:\*|({'|'.join(sorted(SCOPES))}):(read|write|\*)")


class SandboxOptions(TypedDict, total=False):
    """The keyword arguments of `Sandbox`; its docstring describes them."""

    api_key: str
    host: str
    port: int
    speed: float
    manual: bool
    seed: int
    scopes: Iterable[str]
    key_seconds: float | None
    account_limit: int | None
    other_jobs: int
    job_seconds: JobSeconds
    billing: Billing
    currency: Currency
    balance: float
    rates: Mapping[str, float]
    retry_after: float
    link_seconds: float
    latency: float | Mapping[str, float]
    max_asset_bytes: int
    max_multipart_bytes: int
    ingest_seconds: float
    captions: Captions
    caption_seconds: float
    statuses_available: bool
    batches_available: bool
    lipsync_events: bool
    callback_shape: CallbackShape
    callback_secret: str | None
    signature_header: str
    request_ids: bool
    faults: Iterable[Fault]
    recordings: str | os.PathLike[str] | None


def _scopes(given: Iterable[str]) -> frozenset[str]:
    scopes = frozenset(given)
    for scope in sorted(scopes):
        if not _SCOPE.fullmatch(scope):
            nouns = ", ".join(sorted(SCOPES))
            raise ValueError(f"scopes must be '*:*' or NOUN:read, NOUN:write, NOUN:* of {nouns}, not {scope!r}.")
    return scopes


def _check_rates(_: object, __: object, rates: Mapping[str, float]) -> None:
    for mode in rates:
        if mode not in _RATES["usd"]:
            raise ValueError(f"rates must be by mode, speed or precision, not {mode!r}.")


def _check_latency(_: object, __: object, latency: float | Mapping[str, float]) -> None:
    for route in latency if isinstance(latency, Mapping) else ():
        check_route(route)


def _faults(given: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(given)


@frozen(kw_only=True)
class Settings:
    """What a `Sandbox` was given, checked."""

    api_key: str = field(default="sandbox-key", repr=False)
    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 1.0
    manual: bool = False
    seed: int = 0
    scopes: frozenset[str] = field(default=frozenset({"*:*"}), converter=_scopes)
    key_seconds: float | None = None
    account_limit: int | None = 10
    other_jobs: int = 0
    job_seconds: JobSeconds = 20.0
    billing: Billing = field(default="wallet", validator=in_(("wallet", "subscription", "usage_based")))
    currency: Currency = field(default="usd", validator=in_(("usd", "credits")))
    balance: float = 100.0
    rates: Mapping[str, float] = field(factory=dict, validator=_check_rates)
    retry_after: float = 1.0
    link_seconds: float = LONGEST_LINK
    latency: float | Mapping[str, float] = field(default=0.0, validator=_check_latency)
    max_asset_bytes: int = 1 << 30
    max_multipart_bytes: int = 32 << 20
    ingest_seconds: float = 0.0
    captions: Captions = field(default="ready", validator=in_(("ready", "empty", "gone")))
    caption_seconds: float = 0.0
    statuses_available: bool = True
    batches_available: bool = True
    lipsync_events: bool = False
    callback_shape: CallbackShape = field(default="event", validator=in_(("event", "flat")))
    callback_secret: str | None = field(default=None, repr=False)
    signature_header: str = "Heygen-Signature"
    request_ids: bool = True
    faults: tuple[Fault, ...] = field(default=(), converter=_faults)
    recordings: str | os.PathLike[str] | None = None

    def __attrs_post_init__(self) -> None:
        if self.speed <= 0:
            raise ValueError("speed must be above 0.")
        if not 0 < self.link_seconds <= LONGEST_LINK:
            raise ValueError("link_seconds must be above 0 and at most 7 days.")
        for name in ("other_jobs", "ingest_seconds", "caption_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more.")

    def rate(self, mode: str) -> float:
        """Return the price of a second of output, in the account's currency."""
        return {**_RATES[self.currency], **self.rates}[mode]

    def seconds_of(self, route: str) -> float:
        """Return the latency of a route."""
        if isinstance(self.latency, Mapping):
            return next((seconds for pattern, seconds in self.latency.items() if matches(route, pattern)), 0.0)
        return self.latency

    def allows(self, scope: str | None) -> bool:
        """Return whether the key has *scope*; `NOUN:write` includes `NOUN:read`, and None needs nothing."""
        if scope is None:
            return True
        noun = scope.partition(":")[0]
        return not self.scopes.isdisjoint({"*:*", f"{noun}:*", f"{noun}:write", scope})

    def lengths(self) -> Callable[[Mapping[str, object]], float]:
        """Return the function that gives each new job its seconds."""
        given = self.job_seconds
        if callable(given):
            return given
        if isinstance(given, Sequence):
            lengths = itertools.cycle(given)
            return lambda _: next(lengths)
        return lambda _: given
