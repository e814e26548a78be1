"""How a bulk run looks: a board that lives, lines, a summary. Values in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import define, field
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from heygen_async.bulk.progress import DubSnapshot
from heygen_async.bulk.survey import Survey
from heygen_async.cli.layout import printable
from heygen_async.models import JSON, DubOutcome, Wallet

_STAGES: Final = ("uploading", "waiting", "submitting", "running", "downloading", "completed", "failed", "skipped")
_ALWAYS: Final = frozenset({"waiting", "running", "completed", "failed"})
_COLOURS: Final = {"completed": "green", "failed": "red", "skipped": "dim", "running": "yellow"}
_FAILURES: Final = 5


@define
class Progress:
    """What a run has come to, for those who look at it."""

    started: float
    worked: int = 0
    """Outcomes for which something was done in this run."""
    failures: list[DubOutcome] = field(factory=list)
    """The last ones."""
    bad: int = 0
    """How many rows failed, or were skipped for a reason."""

    def add(self, outcome: DubOutcome) -> None:
        """Count an outcome."""
        self.worked += outcome.state != "skipped"
        self.bad += outcome.error is not None
        if outcome.state == "failed":
            self.failures = [*self.failures, outcome][-_FAILURES:]

    def seconds_left(self, snapshot: DubSnapshot, now: float) -> float | None:
        """Return when the run will about be over; `None` where nothing tells."""
        if snapshot.total is None or not self.worked:
            return None
        return (snapshot.total - snapshot.ended) * (now - self.started) / self.worked


# While it goes on


def board(snapshot: DubSnapshot, progress: Progress, now: float) -> RenderableType:
    """Return the board: rows by state, jobs in flight, rate, the end, the last failures."""
    rows = Table.grid()
    rows.add_row(_counts(snapshot))
    if snapshot.total:
        rows.add_row(ProgressBar(total=snapshot.total, completed=snapshot.ended, width=60))
    rows.add_row(Text(_pace(snapshot, progress, now), style="dim"))
    if snapshot.trouble is not None:
        rows.add_row(Text(printable(f"  trying again: {snapshot.trouble}"), style="yellow"))
    for outcome in progress.failures:
        rows.add_row(Text(f"  {_failure(outcome)}", style="red", no_wrap=True, overflow="ellipsis"))
    return rows


def _counts(snapshot: DubSnapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [stage for stage in _STAGES if snapshot.stages.get(stage) or stage in _ALWAYS]
    for stage in shown:
        table.add_column(stage, justify="right", style=_COLOURS.get(stage, ""))
    table.add_row(*(str(snapshot.stages.get(stage, 0)) for stage in shown))
    return table


def _pace(snapshot: DubSnapshot, progress: Progress, now: float) -> str:
    minutes = (now - progress.started) / 60
    told = [
        clock(now - progress.started),
        f"{snapshot.ended} of {snapshot.total} rows" if snapshot.total is not None else f"{snapshot.ended} rows",
        f"{snapshot.in_flight} in flight, limit {snapshot.limit}" if snapshot.in_flight else "",
        f"{progress.worked / minutes:.1f} a minute" if minutes > 0 and progress.worked else "",
        money(snapshot),
    ]
    left = progress.seconds_left(snapshot, now)
    if left is not None:
        told.append(f"about {clock(left)} left")
    if snapshot.halted is not None:
        told.append(snapshot.halted)
    return ", ".join(part for part in told if part)


def money(snapshot: DubSnapshot) -> str:
    """Return what is asked for so far, by the estimate."""
    budget = "" if snapshot.budget is None else f" of ${snapshot.budget:,.2f}"
    return f"about ${snapshot.estimate:,.2f}{budget} asked for"


def line(outcome: DubOutcome, number: int, total: int | None) -> str:
    """Return one line on a row."""
    count = f"{number}/{total}" if total is not None else str(number)
    what = outcome.error if outcome.error is not None else outcome.path or ""
    return printable(f"{count} {outcome.key} {outcome.state} {what}").rstrip()


def _failure(outcome: DubOutcome) -> str:
    return printable(f"{outcome.key}: {outcome.error}")


def clock(seconds: float) -> str:
    """Return a length of time as `1:02:03` or `2:03`."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


# At the end, and before the beginning


def summary(snapshot: DubSnapshot, progress: Progress, now: float, places: Sequence[str]) -> Iterator[str]:
    """Return what there is to say at the end, line by line; *places* tell where what is."""
    counts = [f"{snapshot.stages[stage]} {stage}" for stage in _STAGES if snapshot.stages.get(stage)]
    yield f"{', '.join(counts) or 'no rows'} in {clock(now - progress.started)}; {money(snapshot)}"
    yield from (f"  {_failure(outcome)}" for outcome in progress.failures)
    if len(progress.failures) < snapshot.stages.get("failed", 0):
        yield "  and others before, which the report tells of"
    if snapshot.balance_before is not None and snapshot.balance_after is not None:
        yield f"balance: {_amount(snapshot.balance_before)} before, {_amount(snapshot.balance_after)} after"
    if snapshot.halted is not None:
        yield f"not all was submitted: {snapshot.halted}"
    yield from places


def _amount(wallet: Wallet) -> str:
    left = "?" if wallet.remaining_balance is None else f"{wallet.remaining_balance:,.2f}"
    return f"${left}" if wallet.currency == "usd" else f"{left} {wallet.currency}"


def survey_lines(survey: Survey, budget: float | None) -> Iterator[str]:
    """Return what a run would do, line by line."""
    yield f"{survey.rows} {'row' if survey.rows == 1 else 'rows'} without a fault; nothing was sent"
    going = f"{survey.to_submit} to submit, {survey.under_way} under way"
    yield f"{going}, {survey.done} done, {survey.failed} failed before"
    assumed = f"; for {survey.unknown} of them the length is not known, and assumed" if survey.unknown else ""
    yield f"about ${survey.estimate:,.2f} for those to submit{assumed}"
    if budget is not None and survey.estimate > budget:
        yield f"the budget of ${budget:,.2f} is for less than that"


# As JSON


def outcome_object(outcome: DubOutcome) -> JSON:
    """Return what a script wants to know of a row."""
    return {
        "key": outcome.key,
        "state": outcome.state,
        "lipsync_id": outcome.lipsync.id if outcome.lipsync else None,
        "file": None if outcome.path is None else str(outcome.path),
        "attempts": outcome.attempts,
        "error": None if outcome.error is None else str(outcome.error),
    }


def summary_object(snapshot: DubSnapshot, seconds: float) -> JSON:
    """Return what a script wants to know at the end."""
    before, after = snapshot.balance_before, snapshot.balance_after
    return {
        "rows": dict(snapshot.stages),
        "seconds": round(seconds, 3),
        "estimate": round(snapshot.estimate, 4),
        "refusals": snapshot.refusals,
        "balance_before": None if before is None else before.remaining_balance,
        "balance_after": None if after is None else after.remaining_balance,
        "halted": snapshot.halted,
    }
