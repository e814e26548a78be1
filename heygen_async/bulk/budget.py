"""The estimated cost of a run: lengths times rates, and their sum, which a budget may limit. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from heygen_async._arguments import shown
from heygen_async.errors import HeyGenError
from heygen_async.models import DubRow, Lipsync

RATES: Final[Mapping[str, float]] = {"speed": 0.0333, "precision": 0.0667}
"""Dollars for a second of output, by mode, as published in 2026; pass `rates=` if yours differ."""

ASSUMED_SECONDS: Final = 60.0
"""The assumed length of an output of unknown length, until one was seen."""


_DUST: Final = 1e-9
"""By how many dollars a sum of floats may be off."""


class OverBudget(HeyGenError):
    """Why a row was skipped: with its job, the estimated cost would exceed the budget."""

    _hint = "Run it again with a higher budget; finished rows stay finished."


def seconds_of(row: DubRow, video: float | None, audio: float | None) -> float | None:
    """Return the estimated length of the output of *row* in seconds, rather too long than too short.

    The output is as long as the audio, or as the video if `enable_dynamic_duration` is false. Unless that length is
    known, the other one says too little; nor is the length of a part known that goes to the end of an unknown video.

    Args:
        row: The row.
        video: The length of its video in seconds; `None` if it is not known.
        audio: The length of its audio in seconds; `None` if it is not known.

    Returns:
        The seconds; `None` if only a guess is possible, see `least_seconds_of`.
    """
    start, end = row.start_time or 0.0, row.end_time
    decisive = video if row.enable_dynamic_duration is False else audio
    if decisive is None or (start and video is None):
        return None if end is None else end - start
    longest = max(decisive, video or 0.0, audio or 0.0)
    return min(longest, math.inf if end is None else end) - start


def least_seconds_of(row: DubRow, video: float | None, audio: float | None) -> float:
    """Return the least that a guess of the length of *row* may be in seconds: what is known of its sources."""
    return max((video or 0.0) - (row.start_time or 0.0), audio or 0.0)


def length_of(job: Lipsync) -> float | None:
    """Return the length of the output of *job* in seconds; `None` if it is not known: the API may say 0, or less."""
    return job.duration if job.duration is not None and job.duration > 0 else None


@define
class Budget:
    """The sum of the estimates, which a limit may bound.

    Args:
        rates: Dollars for a second of output, by mode.
        limit: The most that the sum may be; `None` for no limit.
        spent: The estimates of earlier runs on the same journal.
    """

    rates: Mapping[str, float]
    limit: float | None = None
    spent: float = 0.0
    under_way: float = field(default=0.0, init=False)
    """The part of it that is reserved for jobs that have not ended, and may turn out to be less."""
    _jobs: int = field(default=0, init=False)
    """How many jobs these are."""
    longest: float = field(default=0.0, init=False)
    """The longest output seen, in seconds."""

    @property
    def assumed(self) -> float:
        """The length that is assumed where it is not known, in seconds: that of the longest output seen."""
        return self.longest or ASSUMED_SECONDS

    def price(self, mode: str, seconds: float | None, *, at_least: float = 0.0) -> float:
        """Return the estimated price of an output of *seconds*; `None` assumes a length, but *at_least* this one."""
        length = seconds if seconds is not None else max(self.assumed, at_least)
        return max(0.0, length) * self.rates[mode]  # the API may answer with any number

    def reserve(self, price: float, *, is_guess: bool = False) -> bool:
        """Count a job that is about to be created, unless the sum would exceed the limit.

        Until a length was seen, a price that is a guess is reserved for one job only: it may be very wrong.
        """
        is_blind = is_guess and self.limit is not None and not self.longest and self._jobs > 0
        if is_blind or not self._fits(self.spent + price):
            return False
        self.spent += price
        self.resume(price)
        return True

    def _fits(self, total: float) -> bool:
        return self.limit is None or total <= self.limit + _DUST

    def may_fit(self, price: float) -> bool:
        """Return whether *price* would fit if all jobs under way turned out to cost nothing."""
        return self._jobs > 0 and self._fits(self.spent - self.under_way + price)

    def resume(self, reserved: float) -> None:
        """Count a job of an earlier run that has not ended; its price is in the sum already."""
        self.under_way += reserved
        self._jobs += 1

    def settle(self, reserved: float, cost: float) -> None:
        """Replace what was *reserved* or resumed for a job that has ended by its *cost*."""
        self.spent += cost - reserved
        self._jobs -= 1
        self.under_way = self.under_way - reserved if self._jobs else 0.0

    def learn_length(self, seconds: float) -> None:
        """Note the length of an output."""
        self.longest = max(self.longest, seconds)


def check_rates(rates: Mapping[str, float] | None) -> Mapping[str, float]:
    """Return the rates to use: the published ones, replaced by *rates* where given.

    Raises:
        TypeError: If *rates* is no mapping of modes to numbers.
        ValueError: If a mode is unknown, or a rate is not 0 or more.
    """
    if rates is not None and not isinstance(rates, Mapping):
        raise TypeError(f"rates must map modes to dollars for a second, not {shown(rates)}")
    for mode, rate in (rates or {}).items():
        if mode not in RATES:
            raise ValueError(f"rates are by mode, {' and '.join(RATES)}, not {shown(mode)}")
        _check_dollars(f"the rate of {mode}", rate)
    return {**RATES, **(rates or {})}


def check_budget(budget: float | None) -> None:
    """Check that *budget* is a sum of money, or `None`.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not 0 or more.
    """
    if budget is not None:
        _check_dollars("budget", budget)


def _check_dollars(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of dollars, not {shown(value)}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 dollars or more, not {shown(value)}")
