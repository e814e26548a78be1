"""The options of a run, checked, as one value."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from attrs import Factory, field, frozen

from heygen_async._arguments import check_count, check_function, check_type
from heygen_async.bulk.budget import RATES, check_budget, check_rates
from heygen_async.bulk.events import DubEvent
from heygen_async.bulk.program import RetryDelays
from heygen_async.models import DubRow

Submit: TypeAlias = Literal["each", "batch"]


@frozen(kw_only=True)
class Plan:
    """How a run goes; see `HeyGenSession.dub_many`."""

    journal: Path | None
    output_dir: Path | None = None
    max_in_flight: int | None = None
    max_attempts: int = 3
    budget: float | None = None
    rates: Mapping[str, float] = field(default=RATES)
    submit: Submit = "each"
    captions: bool = False
    retry_failed: bool = False
    redo_rejected: bool = False
    on_event: Callable[[DubEvent], None] | None = None
    delays: RetryDelays = field(factory=RetryDelays)
    now: Callable[[], float] = time.time
    latest: Callable[[], float] = field(default=Factory(lambda self: self.now, takes_self=True))
    """Returns the latest time that it can be, where `now` may be wrong."""


def make_plan(
    *,
    journal: str | PathLike[str] | None,
    output_dir: str | PathLike[str] | None,
    max_in_flight: int | None,
    max_attempts: int,
    budget: float | None,
    rates: Mapping[str, float] | None,
    submit: Submit,
    captions: bool,
    retry_failed: bool,
    redo_rejected: bool,
    on_event: Callable[[DubEvent], None] | None,
    now: Callable[[], float],
    latest: Callable[[], float],
) -> Plan:
    """Return the plan of a run.

    Raises:
        TypeError, ValueError: If an option is wrong.
    """
    if submit not in get_args(Submit):
        raise ValueError(f"submit must be each or batch, not {submit!r}")
    if max_in_flight is not None:
        check_count("max_in_flight", max_in_flight)
    check_budget(budget)
    check_type("captions", captions, bool)
    check_type("retry_failed", retry_failed, bool)
    check_type("redo_rejected", redo_rejected, bool)
    check_function("on_event", on_event)
    if iscoroutinefunction(on_event):
        raise TypeError("on_event must be a plain function: it is not awaited")
    return Plan(
        journal=None if journal is None else Path(journal),
        output_dir=None if output_dir is None else Path(output_dir),
        max_in_flight=max_in_flight,
        max_attempts=check_count("max_attempts", max_attempts),
        budget=budget,
        rates=check_rates(rates),
        submit=submit,
        captions=captions,
        retry_failed=retry_failed,
        redo_rejected=redo_rejected,
        on_event=on_event,
        now=now,
        latest=latest,
    )


def check_rows(rows: object) -> None:
    """Check that *rows* are an iterable of rows.

    Raises:
        TypeError: If not.
    """
    if isinstance(rows, (str, bytes, PathLike, DubRow)) or not isinstance(rows, Iterable | AsyncIterable):
        raise TypeError(f"rows must be an iterable of DubRow, not {type(rows).__name__}; a file is read by Manifest")
