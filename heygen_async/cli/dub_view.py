"""How a bulk run is shown: a live view, lines, a summary, JSON Lines. Values in, text out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from attrs import define, field
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from heygen_async._text import one_line
from heygen_async.bulk.events import ENDS, DubEvent, DubSnapshot, Stage
from heygen_async.bulk.survey import Survey
from heygen_async.cli.messages import in_shell_words
from heygen_async.models import JSON, DubOutcome, Wallet

_ENDED: Final = ("completed", "unchanged", "failed", "skipped")
_UNDER_WAY: Final = ("uploading", "waiting", "submitting", "running", "downloading")
_COLOURS: Final = {"completed": "green", "failed": "red", "running": "yellow"}
_CENT: Final = 0.005
_FAILURES: Final = 5
"""Failed rows that are shown; all of them are in the report."""
_NAMES: Final = 20
"""Rows in progress that are named at most; the width of the window usually allows fewer."""


@define
class Progress:
    """What has happened in a run so far.

    Args:
        clock: The clock of the run, in seconds.
    """

    clock: Callable[[], float]
    has_begun: bool = False
    started: float = 0.0
    outcomes: Counter[str] = field(factory=Counter)
    """Outcomes by state."""
    failures: list[DubOutcome] = field(factory=list)
    """The last failed rows."""
    active: dict[str, Stage] = field(factory=dict)
    """The rows in progress, in the order in which they started."""
    _fresh: set[str] = field(factory=set)
    """Rows in progress whose job was created in this run."""
    _fresh_since: float | None = None
    _fresh_ended: int = 0

    def begin(self) -> None:
        """Start to measure: the rows are checked, and the first may be sent."""
        self.has_begun, self.started = True, self.clock()

    def on_event(self, event: DubEvent) -> None:
        """Follow a row from stage to stage."""
        if event.stage in ENDS:
            self.active.pop(event.key, None)
            return
        self.active[event.key] = event.stage
        if event.stage == "submitting":
            self._fresh.add(event.key)
            self._fresh_since = self.clock() if self._fresh_since is None else self._fresh_since

    def add(self, outcome: DubOutcome) -> None:
        """Count an outcome."""
        self.outcomes[outcome.state] += 1
        if outcome.state == "failed":
            self.failures = [*self.failures, outcome][-_FAILURES:]
        if outcome.key in self._fresh:
            self._fresh.discard(outcome.key)
            self._fresh_ended += 1

    @property
    def is_complete(self) -> bool:
        """Whether no row failed or was left out."""
        return not self.outcomes["failed"] and not self.outcomes["skipped"]

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def rate(self) -> float | None:
        """Return how many rows end in a second; `None` before the first job that was created in this run has ended.

        Rows that an earlier run finished or submitted end at once after a resume, and say nothing about the others.
        """
        if self._fresh_since is None or not self._fresh_ended:
            return None
        return self._fresh_ended / max(self.clock() - self._fresh_since, 1e-9)

    def seconds_left(self, snapshot: DubSnapshot) -> float | None:
        """Return the seconds until all rows will have ended; `None` if they cannot be estimated."""
        rate = self.rate()
        return None if rate is None or snapshot.total is None else (snapshot.total - snapshot.ended) / rate


# During the run


def live_view(snapshot: DubSnapshot, progress: Progress) -> RenderableType:
    """Return the live view: rows by stage, rate and time left, money, rows in progress, the last failures."""
    parts: list[RenderableType] = [_counts(snapshot)]
    if snapshot.total:
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=snapshot.total, completed=snapshot.ended, width=60))
        parts.append(bar)
    parts += [Text(_pace(snapshot, progress), style="dim"), Text(_usage(snapshot), style="dim")]
    if names := _names(progress):
        parts.append(Text(names, no_wrap=True, overflow="ellipsis"))
    if snapshot.trouble is not None:
        parts.append(Text(one_line(f"retrying: {snapshot.trouble}"), style="yellow"))
    if snapshot.halted is not None:
        parts.append(Text(one_line(f"no more rows are submitted: {snapshot.halted}"), style="yellow"))
    parts += [Text(_failure(one), style="red", no_wrap=True, overflow="ellipsis") for one in progress.failures]
    return Group(*parts, Text())  # the terminal writes ^C into the last line; a full one would become two


def _counts(snapshot: DubSnapshot) -> Text:
    counts = [(stage, snapshot.stages.get(stage, 0)) for stage in (*_ENDED, *_UNDER_WAY)]
    shown = [Text(f"{count:,} {stage}", style=_COLOURS.get(stage, "")) for stage, count in counts if count]
    if snapshot.not_started:
        shown.append(Text(f"{snapshot.not_started:,} not started", style="dim"))
    return Text(", ").join(shown or [Text("no rows yet")])


def _pace(snapshot: DubSnapshot, progress: Progress) -> str:
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


def _usage(snapshot: DubSnapshot) -> str:
    jobs = f"{snapshot.in_flight} of {snapshot.limit} concurrent jobs, " if snapshot.in_flight else ""
    return jobs + money(snapshot)


def _names(progress: Progress) -> str:
    busy = [f"{one_line(key)} {stage}" for key, stage in progress.active.items() if stage != "waiting"]
    more = f", {len(busy) - _NAMES} more" if len(busy) > _NAMES else ""
    return ", ".join(busy[:_NAMES]) + more


def money(snapshot: DubSnapshot) -> str:
    """Return what is spent and reserved, by the estimate."""
    reserved = f", ${snapshot.reserved:,.2f} reserved" if snapshot.reserved > _CENT else ""
    budget = "" if snapshot.budget is None else f", budget ${snapshot.budget:,.2f}"
    return f"about ${snapshot.spent:,.2f} spent{reserved}{budget}"


def line(outcome: DubOutcome, number: int, total: int | None) -> str:
    """Return one line on a row."""
    count = f"{number}/{total}" if total is not None else str(number)
    details = outcome.path or "" if outcome.error is None else in_shell_words(str(outcome.error))
    warnings = "; ".join(outcome.warnings)
    return one_line(f"{count} {outcome.key} {outcome.state} {details}{f' (warning: {warnings})' if warnings else ''}")


def _failure(outcome: DubOutcome) -> str:
    return f"  {in_shell_words(f'{outcome.key}: {outcome.error}')}"


def clock(seconds: float) -> str:
    """Return a length of time as `1:02:03` or `2:03`."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


# At the end, and before the start


def summary(snapshot: DubSnapshot, progress: Progress, retry: str | None, places: Sequence[str]) -> Iterator[str]:
    """Return the summary of a run, line by line.

    Args:
        snapshot: The run.
        progress: What happened in it.
        retry: The command that retries failed rows; `None` if they cannot be retried.
        places: Where the report and the journal are.
    """
    failed = snapshot.stages.get("failed", 0)
    yield f"{_summary_counts(snapshot)} in {clock(progress.elapsed)}, {money(snapshot)}."
    yield from (_failure(outcome) for outcome in progress.failures)
    if len(progress.failures) < failed:
        yield f"  {failed - len(progress.failures):,} more failed rows are in the report"
    if failed and retry is not None:
        yield one_line(f"Retry the failed rows: {retry}")
    if snapshot.balance_before is not None and snapshot.balance_after is not None:
        yield f"balance: {_amount(snapshot.balance_before)} before, {_amount(snapshot.balance_after)} after"
    if snapshot.halted is not None:
        yield one_line(f"not all rows were submitted: {snapshot.halted}")
    yield from map(one_line, places)


def _summary_counts(snapshot: DubSnapshot) -> str:
    ordered = ("completed", "failed", "unchanged", "skipped", *_UNDER_WAY)
    counts = [f"{snapshot.stages[stage]:,} {stage}" for stage in ordered if snapshot.stages.get(stage)]
    if snapshot.not_started:
        counts.append(f"{snapshot.not_started:,} not started")
    return ", ".join(counts) or "no rows"


def _amount(wallet: Wallet) -> str:
    left = "?" if wallet.remaining_balance is None else f"{wallet.remaining_balance:,.2f}"
    return f"${left}" if wallet.currency == "usd" else f"{left} {wallet.currency}"


def survey_lines(survey: Survey, budget: float | None) -> Iterator[str]:
    """Return what a run would do, line by line."""
    yield f"{survey.rows:,} valid {'row' if survey.rows == 1 else 'rows'}; nothing was sent"
    pending = f"{survey.to_submit:,} to submit, {survey.under_way:,} in progress"
    yield f"{pending}, {survey.done:,} done, {survey.failed:,} failed before"
    assumed = f"; {survey.unknown:,} of unknown length, for which a length is assumed" if survey.unknown else ""
    yield f"about ${survey.estimate:,.2f} for the rows to submit{assumed}"
    if budget is not None and survey.estimate > budget:
        yield f"the budget of ${budget:,.2f} is less than that"


# As JSON


def outcome_object(outcome: DubOutcome) -> JSON:
    """Return the JSON of an outcome."""
    return {
        "type": "row",
        "key": outcome.key,
        "state": outcome.state,
        "lipsync_id": outcome.lipsync.id if outcome.lipsync else None,
        "file": None if outcome.path is None else str(outcome.path),
        "attempts": outcome.attempts,
        "error": None if outcome.error is None else in_shell_words(str(outcome.error)),
        "warnings": list(outcome.warnings),
    }


def summary_object(snapshot: DubSnapshot, seconds: float) -> JSON:
    """Return the JSON of a summary."""
    before, after = snapshot.balance_before, snapshot.balance_after
    counts: dict[str, JSON] = {
        "rows": dict(snapshot.stages),
        "not_started": snapshot.not_started,
        "seconds": round(seconds, 3),
        "estimate": round(snapshot.estimate, 4),
        "spent": round(snapshot.spent, 4),
        "reserved": round(snapshot.reserved, 4),
        "refusals": snapshot.refusals,
        "balance_before": None if before is None else before.remaining_balance,
        "balance_after": None if after is None else after.remaining_balance,
        "halted": snapshot.halted,
    }
    return {"type": "summary", "summary": counts}
