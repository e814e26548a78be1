"""The options of a run, checked, as one value."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from attrs import field, frozen
from attrs.validators import optional

from heygen_async._arguments import check_function, check_type, one_of, valid_count
from heygen_async._media.targets import expanded
from heygen_async.bulk.budget import check_budget, check_rates
from heygen_async.bulk.events import DubEvent
from heygen_async.bulk.program import RetryDelays
from heygen_async.bulk.store import UnixClock
from heygen_async.models import DubRow

if TYPE_CHECKING:
    from heygen_async._arguments import Field

Submit: TypeAlias = Literal["each", "batch"]


def _path(path: str | PathLike[str] | None) -> Path | None:
    return None if path is None else Path(expanded(path))


def _budget(_plan: Plan, _field: Field, value: float | None) -> None:
    check_budget(value)


def _flag(_plan: Plan, field: Field, value: object) -> None:
    check_type(field.name, value, bool)


def _plain_function(_plan: Plan, field: Field, value: object) -> None:
    check_function(field.name, value)
    if iscoroutinefunction(value):
        raise TypeError(f"{field.name} must be a plain function: it is not awaited")


@frozen(kw_only=True)
class Plan:
    """How a run goes; see `HeyGenSession.dub_many`.

    Raises:
        TypeError, ValueError: If an option is wrong.
    """

    journal: Path | None = field(converter=_path)
    output_dir: Path | None = field(default=None, converter=_path)
    max_in_flight: int | None = field(default=None, validator=optional(valid_count))
    max_attempts: int = field(default=3, validator=valid_count)
    budget: float | None = field(default=None, validator=_budget)
    rates: Mapping[str, float] = field(default=None, converter=check_rates)
    submit: Submit = field(default="each", validator=one_of(*get_args(Submit)))
    captions: bool = field(default=False, validator=_flag)
    retry_failed: bool = field(default=False, validator=_flag)
    redo_rejected: bool = field(default=False, validator=_flag)
    on_event: Callable[[DubEvent], None] | None = field(default=None, validator=_plain_function)
    delays: RetryDelays = field(factory=RetryDelays)
    clock: UnixClock = field(factory=UnixClock)


def check_rows(rows: object) -> None:
    """Check that *rows* are an iterable of rows.

    Raises:
        TypeError: If not.
    """
    if isinstance(rows, (str, bytes, PathLike, DubRow)) or not isinstance(rows, Iterable | AsyncIterable):
        raise TypeError(f"rows must be an iterable of DubRow, not {type(rows).__name__}; a file is read by Manifest")
