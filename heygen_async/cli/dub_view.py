"""How a bulk run is shown while it runs: a live view, or a line for each row. Values in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from heygen_async._text import clean_line, escape_controls, one_line
from heygen_async.bulk.events import DubSnapshot
from heygen_async.cli.dub_progress import CENT, RunProgress
from heygen_async.cli.messages import in_shell_words
from heygen_async.errors import NO_REASON, LipsyncFailed
from heygen_async.models import DubOutcome

_ENDED: Final = ("completed", "unchanged", "failed", "skipped")
_IN_PROGRESS: Final = ("uploading", "waiting", "submitting", "running", "downloading")
_COLOURS: Final = {"completed": "green", "failed": "red", "running": "yellow"}
_NAMES: Final = 20
"""Rows in progress that are named at most; the width of the window usually allows fewer."""


def checking_view() -> RenderableType:
    """Return what is shown while the rows are checked, which takes a while if there are many or large files."""
    return Text("checking all rows before anything is sent")


def live_view(snapshot: DubSnapshot, progress: RunProgress) -> RenderableType:
    """Return the live view: rows by stage, rate and time left, money, rows in progress, the last failures."""
    parts: list[RenderableType] = [*_counts(snapshot)]
    if snapshot.total:
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=snapshot.total, completed=snapshot.ended, width=60))
        parts.append(bar)
    parts += [Text(line, style="dim") for line in _figures(snapshot, progress)]
    if names := _names(progress):
        parts.append(Text(names, no_wrap=True, overflow="ellipsis"))
    if snapshot.trouble is not None:
        parts.append(Text(one_line(f"retrying: {snapshot.trouble}"), style="yellow"))
    if snapshot.halted is not None:
        parts.append(Text(one_line(f"no more rows are submitted: {snapshot.halted}"), style="yellow"))
    parts += [_failure(outcome) for outcome in progress.failures]
    if progress.is_stopping:
        parts.append(Text("stopping after the next answers; a second Ctrl-C stops at once", style="yellow"))
    return Group(*parts, Text())  # the terminal writes ^C into the last line; a full one would become two


def _counts(snapshot: DubSnapshot) -> Iterator[Text]:
    """Return the rows that have ended or not started, and those in progress: together these are all rows."""
    others = [_count(snapshot, stage) for stage in _ENDED if snapshot.stages.get(stage)]
    in_progress = [_count(snapshot, stage) for stage in _IN_PROGRESS if snapshot.stages.get(stage)]
    if snapshot.not_started:
        others.append(Text(f"{snapshot.not_started:,} not started", style="dim"))
    yield from (Text(", ").join(counts) for counts in (others, in_progress) if counts)


def _count(snapshot: DubSnapshot, stage: str) -> Text:
    return Text(f"{snapshot.stages[stage]:,} {stage}", style=_COLOURS.get(stage, ""))


def _figures(snapshot: DubSnapshot, progress: RunProgress) -> Iterator[str]:
    yield _pace(snapshot, progress)
    if snapshot.in_flight:
        yield f"{snapshot.in_flight:,} of {snapshot.limit:,} concurrent jobs"
    yield money(snapshot, progress)


def _pace(snapshot: DubSnapshot, progress: RunProgress) -> str:
    rate, left = progress.rate(), progress.seconds_left(snapshot)
    rows = (
        f"{snapshot.ended:,} of {snapshot.total:,} rows" if snapshot.total is not None else f"{snapshot.ended:,} rows"
    )
    parts = [
        f"{rows} in {clock(progress.elapsed)}",
        "" if rate is None else f"{60 * rate:,.1f} rows/min",
        "" if left is None else f"about {clock(left)} left",
    ]
    return ", ".join(part for part in parts if part)


def _names(progress: RunProgress) -> str:
    busy = [f"{one_line(key)} {stage}" for key, stage in progress.active.items() if stage != "waiting"]
    more = f", {len(busy) - _NAMES} more" if len(busy) > _NAMES else ""
    return ", ".join(busy[:_NAMES]) + more


def _failure(outcome: DubOutcome) -> Text:
    return Text(f"  {failed_row(outcome)}", style="red", no_wrap=True, overflow="ellipsis")


def money(snapshot: DubSnapshot, progress: RunProgress) -> str:
    """Return what is spent and reserved, by the estimate."""
    if progress.is_rehearsal:
        return "nothing paid"
    runs = " in all runs" if progress.has_earlier_runs else ""
    return with_reserved(f"about ${snapshot.spent:,.2f} spent{runs}", snapshot)


class _Money(Protocol):
    @property
    def reserved(self) -> float: ...

    @property
    def budget(self) -> float | None: ...


def with_reserved(spent: str, money: _Money) -> str:
    """Return what is *spent*, with what is reserved beside it, and the budget."""
    reserved = f", ${money.reserved:,.2f} reserved" if money.reserved > CENT else ""
    budget = "" if money.budget is None else f", budget ${money.budget:,.2f}"
    return f"{spent}{reserved}{budget}"


def line(outcome: DubOutcome, number: int, total: int | None) -> str:
    """Return one line on a row."""
    count = f"{number}/{total}" if total is not None else str(number)
    path = "" if outcome.path is None else f" {escape_controls(str(outcome.path))}"  # with all of its spaces
    details = path if outcome.error is None else f": {_reason(outcome.error)}"
    warnings = one_line(f"(warning: {'; '.join(outcome.warnings)})") if outcome.warnings else ""
    return f"{count} {one_line(outcome.key)} {outcome.state}{details} {warnings}".rstrip()


def failed_row(outcome: DubOutcome) -> str:
    """Return one line on a failed row: its key and the reason."""
    return one_line(f"{outcome.key}: {'' if outcome.error is None else _reason(outcome.error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, LipsyncFailed):  # the id of the job is in the report
        return clean_line(error.lipsync.failure_message or f"the job failed, and {NO_REASON}")
    return in_shell_words(str(error))


def clock(seconds: float) -> str:
    """Return a length of time as `1:02:03` or `2:03`."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
