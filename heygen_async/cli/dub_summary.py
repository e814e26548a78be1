"""The end of a bulk run, and what a run would do: text for a terminal, and JSON Lines. Values in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import attrs
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from heygen_async._text import escape_controls, one_line
from heygen_async.bulk.events import DubSnapshot
from heygen_async.bulk.survey import Survey
from heygen_async.cli.dub_progress import CENT, RunProgress
from heygen_async.cli.dub_view import clock, failed_row, money
from heygen_async.cli.messages import in_shell_words
from heygen_async.errors import LipsyncFailed
from heygen_async.models import JSON, DubOutcome, Wallet

_ENDED: Final = ("completed", "failed", "unchanged", "skipped")
_IN_PROGRESS: Final = ("submitting", "running", "downloading")
_NOT_SUBMITTED: Final = ("uploading", "waiting")


def summary(
    snapshot: DubSnapshot, progress: RunProgress, places: Mapping[str, object], commands: Mapping[str, str]
) -> Iterator[RenderableType]:
    """Return the summary of a run, part by part: prose is wrapped, paths and commands are on lines of their own.

    Args:
        snapshot: The run.
        progress: What happened in it.
        places: The paths of its files, by what they are.
        commands: The commands to run next, by what they do.
    """
    failed = snapshot.stages.get("failed", 0)
    yield Text(f"{_counts(snapshot)} in {clock(progress.elapsed)}, {money(snapshot, progress)}.")
    yield from (_indented(failed_row(outcome)) for outcome in progress.failures)
    if len(progress.failures) < failed:
        where = " are in the report" if progress.is_reported else ""
        yield _indented(f"{failed - len(progress.failures):,} more failed rows{where}")
    if snapshot.halted is not None:
        yield Text(one_line(f"Not all rows were submitted: {snapshot.halted}"))
    if snapshot.balance_before is not None and snapshot.balance_after is not None:
        yield Text(f"Balance: {_amount(snapshot.balance_before)} before, {_amount(snapshot.balance_after)} after")
    yield from (_whole(f"{name}: {path}") for name, path in places.items())
    yield from next_steps(commands)


def next_steps(commands: Mapping[str, str]) -> Iterator[RenderableType]:
    """Return the *commands* to run next, each below what it does."""
    for purpose, command in commands.items():
        yield Text(f"{purpose}:")
        yield _whole(f"  {command}")


def _indented(text: str) -> Padding:
    return Padding(Text(text), (0, 0, 0, 2), expand=False)


def _whole(line: str) -> Text:
    """Return a line that is not wrapped: somebody may copy it."""
    return Text(escape_controls(line), no_wrap=True, overflow="ignore")


def _counts(snapshot: DubSnapshot) -> str:
    counts = {stage: snapshot.stages.get(stage, 0) for stage in _ENDED}
    counts["in progress"] = sum(snapshot.stages.get(stage, 0) for stage in _IN_PROGRESS)
    not_submitted = sum(snapshot.stages.get(stage, 0) for stage in _NOT_SUBMITTED)
    counts["not submitted"] = not_submitted + (snapshot.not_started or 0)
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "no rows"


def _amount(wallet: Wallet) -> str:
    left = "?" if wallet.remaining_balance is None else f"{wallet.remaining_balance:,.2f}"
    return f"${left}" if wallet.currency == "usd" else one_line(f"{left} {wallet.currency}")


def survey_lines(survey: Survey, budget: float | None, *, earlier: float = 0.0) -> Iterator[RenderableType]:
    """Return what a run would do, part by part.

    Args:
        survey: What it would do.
        budget: The budget.
        earlier: The dollars that earlier runs on the journal have spent or reserved.
    """
    yield Text(f"{survey.rows:,} valid {'row' if survey.rows == 1 else 'rows'}; nothing was sent.")
    pending = f"{survey.to_submit:,} to submit, {survey.under_way:,} in progress"
    yield Text(f"{pending}, {survey.done:,} done, {survey.failed:,} failed before.")
    length = f"{survey.assumed_seconds:,.0f} s"
    assumed = f", with {length} for each unknown length ({survey.unknown:,})" if survey.unknown else ""
    yield Text(f"About ${survey.estimate:,.2f} for the rows to submit{assumed}.")
    if budget is not None and survey.to_submit and round(earlier + survey.estimate, 6) > budget:
        also = f" and the ${earlier:,.2f} of earlier jobs" if earlier > CENT else ""
        yield Text(f"The budget of ${budget:,.2f} is less than that{also}.")


# As JSON


def survey_object(survey: Survey, budget: float | None, *, earlier: float) -> JSON:
    """Return the JSON of what a run would do; the arguments are those of `survey_lines`."""
    details = {**attrs.asdict(survey), "estimate": round(survey.estimate, 4), "budget": budget}
    return {"type": "survey", "survey": {**details, "earlier_estimate": round(earlier, 4)}}


def outcome_object(outcome: DubOutcome) -> JSON:
    """Return the JSON of an outcome."""
    job = outcome.lipsync
    if job is None and isinstance(outcome.error, LipsyncFailed):  # it failed in an earlier run
        job = outcome.error.lipsync
    return {
        "type": "row",
        "key": outcome.key,
        "state": outcome.state,
        "lipsync_id": job.id if job is not None and job.id else None,
        "file": None if outcome.path is None else str(outcome.path),
        "attempts": outcome.attempts,
        "error": None if outcome.error is None else in_shell_words(str(outcome.error)),
        "warnings": list(outcome.warnings),
    }


def summary_object(snapshot: DubSnapshot, seconds: float, commands: Mapping[str, str]) -> JSON:
    """Return the JSON of a summary."""
    before, after = snapshot.balance_before, snapshot.balance_after
    counts: dict[str, JSON] = {
        "rows": dict(snapshot.stages),
        "not_started": snapshot.not_started,
        "seconds": round(seconds, 3),
        "estimate": round(snapshot.estimate, 4),
        "spent": round(snapshot.spent, 4),
        "reserved": round(snapshot.reserved, 4),
        "budget": snapshot.budget,
        "refusals": snapshot.refusals,
        "balance_before": None if before is None else before.remaining_balance,
        "balance_after": None if after is None else after.remaining_balance,
        "halted": snapshot.halted,
        "next_commands": list(commands.values()),
    }
    return {"type": "summary", "summary": counts}
