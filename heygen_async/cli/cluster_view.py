"""What `heygen-async cluster` shows: what was enqueued, and the state of runs and accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from heygen_async._text import one_line
from heygen_async.cli.dub_view import clock, with_reserved
from heygen_async.models import JSON

if TYPE_CHECKING:
    from heygen_async.bulk.cluster import AccountStatus, ClusterStatus, Enqueued, RunStatus

_ORDER = ("done", "failed", "skipped", "download", "flight", "search", "create", "ready", "prepare")


def enqueued_lines(found: Enqueued, budget: float | None) -> Iterator[str]:
    """Return what was enqueued, line by line.

    Args:
        found: What was enqueued.
        budget: The budget of the run: that of its last enqueue.
    """
    changed = f", {found.changed:,} of them changed" if found.changed else ""
    known = found.rows - found.added
    yield one_line(f"run {found.run}: {_many(found.added, 'row')} added, {known:,} known already{changed}")
    survey = found.survey
    assumed = f"; {survey.unknown:,} of unknown length, for which a length is assumed" if survey.unknown else ""
    yield f"about ${survey.estimate:,.2f} for {_many(survey.to_submit, 'row')} to submit{assumed}"
    yield f"budget of the run from now on: {'none' if budget is None else f'${budget:,.2f}'}"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def enqueued_object(found: Enqueued, budget: float | None) -> JSON:
    """Return the JSON of what was enqueued; the arguments are those of `enqueued_lines`."""
    return {
        "type": "enqueued",
        "run": found.run,
        "rows": found.rows,
        "added": found.added,
        "changed": found.changed,
        "to_submit": found.survey.to_submit,
        "estimate": round(found.survey.estimate, 4),
        "budget": budget,
    }


def status_lines(status: ClusterStatus) -> Iterator[str]:
    """Return the status, line by line."""
    if not status.runs:
        yield "no runs"
    names = Counter(run.name for run in status.runs)
    for run in status.runs:
        yield from _run_lines(run, name=run.name if names[run.name] == 1 else f"{run.name} at {run.origin}")
    for account in status.accounts:
        yield from _account_lines(account)


def _run_lines(run: RunStatus, *, name: str) -> Iterator[str]:
    counts = [f"{run.rows[stage]:,} {stage}" for stage in _ORDER if run.rows.get(stage)]
    ended = f"{run.ended:,} of {_many(run.total, 'row')} ended"
    yield one_line(f"run {name}: {ended} ({', '.join(counts) or 'no rows'})")
    left = run.seconds_left
    pace = f"{60 * run.rate:,.1f} rows/min, " if run.rate and run.ended < run.total else ""
    time_left = f"about {clock(left)} left, " if left else ""
    yield f"  {pace}{time_left}{with_reserved(f'about ${run.spent:,.2f} spent', run)}"
    if run.halted is not None:
        yield one_line(f"  no more rows are submitted: {run.halted}")


def _account_lines(account: AccountStatus) -> Iterator[str]:
    who = account.name or "the account of an unknown name"
    yield one_line(
        f"{who} at {account.origin}: {account.in_flight} of {account.limit} concurrent jobs, "
        f"{account.in_air} being created, {_many(len(account.workers), 'worker')}, "
        f"scheduler {account.scheduler or 'none'}"
    )
    if account.trouble is not None:
        yield one_line(f"  retrying: {account.trouble}")


def live_view(status: ClusterStatus) -> RenderableType:
    """Return the status as it is shown while it changes."""
    return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in status_lines(status)), Text())


def status_object(status: ClusterStatus) -> JSON:
    """Return the JSON of the status."""
    return {
        "type": "status",
        "complete": status.is_complete,
        "runs": [_run_object(run) for run in status.runs],
        "accounts": [_account_object(account) for account in status.accounts],
    }


def _run_object(run: RunStatus) -> JSON:
    return {
        "name": run.name,
        "origin": run.origin,
        "account": run.account,
        "rows": dict(run.rows),
        "total": run.total,
        "ended": run.ended,
        "rows_per_second": round(run.rate, 4),
        "seconds_left": None if run.seconds_left is None else round(run.seconds_left, 1),
        "estimate": round(run.estimate, 4),
        "spent": round(run.spent, 4),
        "reserved": round(run.reserved, 4),
        "budget": run.budget,
        "halted": run.halted,
    }


def _account_object(account: AccountStatus) -> JSON:
    return {
        "name": account.name,
        "origin": account.origin,
        "in_flight": account.in_flight,
        "in_air": account.in_air,
        "limit": account.limit,
        "refusals": account.refusals,
        "scheduler": account.scheduler,
        "workers": list(account.workers),
        "trouble": account.trouble,
    }
