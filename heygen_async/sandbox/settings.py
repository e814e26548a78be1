"""The options of a `Sandbox` as one frozen value: its defaults, and how each is checked."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, TypedDict

from attrs import field, frozen

from heygen_async.sandbox.faults import Fault, checked_faults
from heygen_async.sandbox.option_checks import Check, number, one_of, optional, text, whole_number
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
_FASTEST: Final = 1e6
"""The highest speed: at a thousand times as much, dates are beyond the year 9999 within minutes."""
_RATES: Final[Mapping[Currency, Mapping[str, float]]] = {
    "usd": {"speed": 0.0333, "precision": 0.0667},
    "credits": {"speed": 0.05, "precision": 0.1},
}
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
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


# --- checks ------------------------------------------------------------------------------------------------


def _duration(name: str, value: object) -> None:
    """Check that a value is seconds, perhaps infinitely many: that never ends."""
    if value != math.inf:
        number()(name, value)


def _amount(name: str, value: object) -> None:
    """Check that a value is an amount of money, which may be owed."""
    number()(name, -value if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0 else value)


def _flag(name: str, value: object) -> None:
    if value not in (True, False):  # 0 and 1 too
        raise TypeError(f"{name} must be True or False, not {value!r}.")


def _some_text(name: str, value: object) -> None:
    text(name, value)
    if not value:
        raise ValueError(f"{name} must not be empty.")


def _header_name(name: str, value: object) -> None:
    text(name, value)
    if not _HEADER.fullmatch(str(value)):
        raise ValueError(f"{name} must be the name of a header, not {value!r}.")


def _path(name: str, value: object) -> None:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, not {value!r}.")


def _job_seconds(name: str, value: object) -> None:
    if callable(value):
        return
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if not value:
            raise ValueError(f"{name} must not be an empty list.")
        for one in value:
            _duration(name, one)
        return
    _duration(name, value)


def _rates(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be prices by mode, not {value!r}.")
    for mode, price in value.items():
        if mode not in _RATES["usd"]:
            raise ValueError(f"{name} must be by mode, speed or precision, not {mode!r}.")
        number()(f"{name}[{mode!r}]", price)


def _latency(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        number()(name, value)
        return
    for route, seconds in value.items():
        check_route(route)
        number()(f"{name}[{route!r}]", seconds)


def _scopes(given: object) -> frozenset[str]:
    if not isinstance(given, Iterable):
        raise TypeError(f"scopes must be a collection of scopes, not {given!r}.")
    if isinstance(given, str):
        raise ValueError(f"scopes must be a collection of scopes, not {given!r} alone.")  # noqa: TRY004 it iterates
    scopes = frozenset(given)
    for scope in sorted(scopes, key=str):
        if not isinstance(scope, str) or not _SCOPE.fullmatch(scope):
            nouns = ", ".join(sorted(SCOPES))
            raise ValueError(f"scopes must be '*:*' or NOUN:read, NOUN:write, NOUN:* of {nouns}, not {scope!r}.")
    return scopes


CHECKS: Final[Mapping[str, Check]] = {
    "api_key": _some_text,
    "host": _some_text,
    "port": whole_number(most=65535),
    "speed": number(is_above=True, most=_FASTEST),
    "manual": _flag,
    "seed": optional(whole_number(-math.inf)),
    "key_seconds": optional(_duration),
    "account_limit": optional(whole_number()),
    "other_jobs": whole_number(),
    "job_seconds": _job_seconds,
    "billing": one_of("wallet", "subscription", "usage_based"),
    "currency": one_of("usd", "credits"),
    "balance": _amount,
    "rates": _rates,
    "retry_after": number(),
    "link_seconds": number(is_above=True, most=LONGEST_LINK),
    "latency": _latency,
    "max_asset_bytes": whole_number(),
    "max_multipart_bytes": whole_number(),
    "ingest_seconds": _duration,
    "captions": one_of("ready", "empty", "gone"),
    "caption_seconds": _duration,
    "statuses_available": _flag,
    "batches_available": _flag,
    "lipsync_events": _flag,
    "callback_shape": one_of("event", "flat"),
    "callback_secret": optional(_some_text),
    "signature_header": _header_name,
    "request_ids": _flag,
    "recordings": optional(_path),
}
"""How each option is checked; `scopes` and `faults` are converted."""


def check_names(options: Iterable[str]) -> None:
    """Check that a `Sandbox` has all of these options.

    Raises:
        TypeError: If it does not have one.
    """
    known = SandboxOptions.__annotations__
    for name in options:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            raise TypeError(f"Sandbox() got an unexpected keyword argument {name!r}{hint}")


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
    billing: Billing = "wallet"
    currency: Currency = "usd"
    balance: float = 100.0
    rates: Mapping[str, float] = field(factory=dict)
    retry_after: float = 1.0
    link_seconds: float = LONGEST_LINK
    latency: float | Mapping[str, float] = 0.0
    max_asset_bytes: int = 1 << 30
    max_multipart_bytes: int = 32 << 20
    ingest_seconds: float = 0.0
    captions: Captions = "ready"
    caption_seconds: float = 0.0
    statuses_available: bool = True
    batches_available: bool = True
    lipsync_events: bool = False
    callback_shape: CallbackShape = "event"
    callback_secret: str | None = field(default=None, repr=False)
    signature_header: str = "Heygen-Signature"
    request_ids: bool = True
    faults: tuple[Fault, ...] = field(default=(), converter=checked_faults)
    recordings: str | os.PathLike[str] | None = None

    def __attrs_post_init__(self) -> None:
        for name, check in CHECKS.items():
            check(name, getattr(self, name))

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
            return lambda body: _length(given(body))
        if isinstance(given, Sequence):
            lengths = itertools.cycle(given)
            return lambda _: next(lengths)
        return lambda _: given


def _length(seconds: float) -> float:
    _duration("The result of job_seconds", seconds)
    return seconds
