"""`heygen-async dub`: all rows of a manifest, in one run that can be resumed."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from heygen_async import HeyGenSession, PollPolicy
from heygen_async.bulk.checks import BadRows
from heygen_async.bulk.events import DubEvent
from heygen_async.bulk.folders import temporary_folder
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import JournalError
from heygen_async.cli.dub_files import RunFiles
from heygen_async.cli.dub_view import (
    Progress,
    line,
    live_view,
    outcome_object,
    summary,
    summary_object,
    survey_lines,
)
from heygen_async.cli.durations import Duration
from heygen_async.cli.exits import Exit
from heygen_async.cli.failures import ArgumentProblem, BadArguments, Problems, advising
from heygen_async.cli.live import is_watched, live
from heygen_async.cli.options import RETRY, Options, PathFlag, Switch, polling, session
from heygen_async.cli.output import note, print_json, print_json_line, print_line, wants_json
from heygen_async.models import DubOutcome, DubRow
from heygen_async.sandbox import Sandbox

if TYPE_CHECKING:
    from heygen_async.cli.review import PageOfRun

_logger: Final = logging.getLogger("heygen_async.cli")

_Count = Annotated[int, Parameter(validator=Number(gte=1))]

_SANDBOX_SPEED: Final = 100.0
_SANDBOX_POLLING: Final = PollPolicy(fastest=0.05, slowest=0.2)
_AGAIN: Final = "run the same command again to continue; submitted jobs keep running at HeyGen"


@attrs.frozen(kw_only=True)
class _Plan:
    """A run as the command line describes it."""

    files: RunFiles
    output_dir: Path | None
    max_in_flight: int | None
    max_attempts: int
    budget: float | None
    rates: Mapping[str, float] | None
    submit: Literal["each", "batch"]
    captions: bool
    retry_failed: bool
    redo_rejected: bool
    final_mode: Literal["speed", "precision"] | None
    """How to render the final versions of approved rows; `None` runs the rows themselves."""
    review: bool
    retry: str | None
    """The command that retries failed rows; `None` for a rehearsal, of which nothing is kept."""
    options: Options

    async def rows(self) -> Iterable[DubRow]:
        """Return the rows: those of the manifest, or the final versions of the approved ones."""
        # Without a folder for all of them outputs are relative to the manifest, as its sources are.
        outputs = self.files.folder if self.output_dir is None else None
        manifest = Manifest(self.files.manifest, outputs=outputs)
        if self.final_mode is None:
            return manifest
        from heygen_async.cli.review import approved_rows  # noqa: PLC0415 only final versions need it

        return await approved_rows(manifest, self.files.journal, self.final_mode)

    def run(
        self, heygen: HeyGenSession, rows: Iterable[DubRow], on_event: Callable[[DubEvent], None] | None = None
    ) -> DubRun:
        """Return the run."""
        return heygen.dub_many(
            rows,
            journal=self.files.journal,
            output_dir=self.output_dir,
            max_in_flight=self.max_in_flight,
            max_attempts=self.max_attempts,
            budget=self.budget,
            rates=self.rates,
            submit=self.submit,
            captions=self.captions,
            retry_failed=self.retry_failed,
            redo_rejected=self.redo_rejected,
            on_event=on_event,
        )


def dub(
    manifest: Annotated[Path, Parameter(name="MANIFEST")],
    /,
    *,
    output_dir: PathFlag | None = None,
    journal: PathFlag | None = None,
    max_in_flight: _Count | None = None,
    max_attempts: _Count = 3,
    budget: Annotated[float | None, Parameter(validator=Number(gte=0), metavar="USD")] = None,
    rates: dict[str, float] | None = None,
    submit: Literal["each", "batch"] = "each",
    captions: Switch = False,
    retry_failed: Switch = False,
    redo_rejected: Switch = False,
    approved: Switch = False,
    mode: Literal["speed", "precision"] | None = None,
    review: Switch = False,
    dry_run: Switch = False,
    sandbox: Switch = False,
    poll_every: Duration | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> Coroutine[Any, Any, int]:
    """Dub every row of a manifest: upload, submit, wait and download, as many at once as the account allows.

    The state of each row is kept in a journal. After Ctrl-C, a crash or an outage run the same command again to
    continue: no job is created twice, and none is lost.

    A manifest is CSV with a header, or JSON Lines. Columns: video and audio (an https URL, a file relative to the
    manifest, or asset:ID), key, output, and any option of lipsync create.

    Example: heygen-async dub episodes.csv --output-dir dubbed --budget 50

    Args:
        manifest: The file that lists the rows.
        output_dir: The folder to write to; without it only rows with an output are downloaded, beside the manifest.
        journal: The journal; without it NAME.sqlite beside a manifest NAME.csv. The report is NAME.report.csv.
        max_in_flight: Jobs at once; without it as many as the account allows.
        max_attempts: Jobs for one row, if jobs fail for reasons that a retry can help with.
        budget: Stop submitting when the estimate for all runs on the journal would exceed it. An output of unknown
            length counts as 60 s until one row, which runs first, has shown a length.
        rates: Dollars per second of output, for the estimate: --rates.speed 0.033 --rates.precision 0.067.
        submit: Each row on its own, or batches of up to 100, which HeyGen queues.
        captions: Write captions too, as .srt beside each video.
        retry_failed: Create another job for rows that failed in earlier runs.
        redo_rejected: Create another job for rows whose video was rejected in the review; they may have changed. The
            new files replace the rejected ones.
        approved: Render the final versions of the rows that were approved in the review, instead of the rows
            themselves. It needs an --output-dir of its own.
        mode: How to render final versions; without it precision.
        review: Show the run in a page on this machine, where its videos can be watched and approved, until Ctrl-C.
        dry_run: Check all rows, print what would be done and the estimated cost, and send nothing.
        sandbox: Rehearse in a local sandbox: no API key, no costs, no file is kept.
        poll_every: Seconds between polls; without it, 1 to 15, by the age of the job.
    """
    files = RunFiles.of(manifest, journal)
    flags = {
        "--output-dir": output_dir,
        "--journal": journal,
        "--budget": budget,
        "--submit": None if submit == "each" else submit,
        "--captions": captions or None,
        "--approved": approved or None,
        "--mode": mode,
    }
    _check_review(approved=approved, mode=mode, output_dir=output_dir, review=review, is_kept=not (sandbox or dry_run))
    plan = _Plan(
        files=files,
        output_dir=output_dir,
        max_in_flight=max_in_flight,
        max_attempts=max_attempts,
        budget=budget,
        rates=rates,
        submit=submit,
        captions=captions,
        retry_failed=retry_failed,
        redo_rejected=redo_rejected,
        final_mode=(mode or "precision") if approved else None,
        review=review,
        retry=files.retry_command(flags),
        options=options,
    )
    if sandbox:
        return _listing_bad_rows(_rehearse(plan, dry_run=dry_run))
    return _listing_bad_rows(_run_for_real(plan, polling(poll_every), dry_run=dry_run))


def _check_review(*, approved: bool, mode: str | None, output_dir: Path | None, review: bool, is_kept: bool) -> None:
    problems = Problems()
    if mode is not None and not approved:
        problems.add("--mode", "is for --approved; the mode of a row is in the manifest")
    if approved and output_dir is None:
        problems.add("--output-dir", "is missing: with --approved give a folder for the final versions")
    if review and not is_kept:
        problems.add("--review", "needs a run that is kept, without --sandbox and --dry-run")
    problems.check()


async def _listing_bad_rows(run: Coroutine[Any, Any, Exit]) -> Exit:
    try:
        return await run
    except BadRows as bad:
        problems = [ArgumentProblem(one.place, one.message) for one in bad.problems]
        raise BadArguments(problems, count=bad.count, code="bad_rows") from bad


async def _run_for_real(plan: _Plan, policy: PollPolicy, *, dry_run: bool) -> Exit:
    async with session(plan.options, polling=policy, needs_key=not dry_run) as heygen:
        return await (_survey if dry_run else _run)(plan, heygen)


async def _rehearse(plan: _Plan, *, dry_run: bool) -> Exit:
    async with temporary_folder() as folder:
        note("rehearsal in a local sandbox: nothing is paid, no file is kept", plan.options)
        # Rows with an output of their own are written where they cannot be in the way of the real run.
        rehearsal = attrs.evolve(plan, files=attrs.evolve(plan.files, journal=None), output_dir=folder, retry=None)
        async with (
            Sandbox(speed=_SANDBOX_SPEED, balance=1e6, seed=secrets.randbits(32)) as sandbox,
            HeyGenSession(sandbox.api_key, base_url=sandbox.url, polling=_SANDBOX_POLLING, retry=RETRY.get()) as heygen,
        ):
            return await (_survey if dry_run else _run)(rehearsal, heygen)


async def _survey(plan: _Plan, heygen: HeyGenSession) -> Exit:
    survey = await plan.run(heygen, await plan.rows()).survey()
    if wants_json(plan.options.json):
        details = {**attrs.asdict(survey), "estimate": round(survey.estimate, 4), "budget": plan.budget}
        print_json({"type": "survey", "survey": details})
    else:
        for text in survey_lines(survey, plan.budget):
            print_line(text)
    return Exit.DONE


async def _run(plan: _Plan, heygen: HeyGenSession) -> Exit:
    progress = Progress(asyncio.get_running_loop().time)
    page = _page(progress) if plan.review else None
    run = plan.run(heygen, await plan.rows(), progress.on_event if page is None else page.on_event)
    with advising(_AGAIN), _summarized(run, progress, plan):
        async with run, _reported(run, plan), _served(page, run, plan):
            progress.begin()
            with _shown(run, progress, plan.options) as show:
                async for outcome in run:
                    progress.add(outcome)
                    show(outcome)
    return Exit.DONE if progress.is_complete else Exit.FAILED


def _page(progress: Progress) -> PageOfRun:
    from heygen_async.cli.review import PageOfRun  # noqa: PLC0415 most runs need no server

    return PageOfRun(progress)


@asynccontextmanager
async def _served(page: PageOfRun | None, run: DubRun, plan: _Plan) -> AsyncIterator[None]:
    """Serve the page of the run, and go on after its end until a signal."""
    if page is None or plan.files.journal is None:
        yield
        return
    async with page.served(run, plan.files.manifest, plan.files.journal, plan.options):
        yield
        await page.stay()


@contextmanager
def _summarized(run: DubRun, progress: Progress, plan: _Plan) -> Iterator[None]:
    """Print the summary at the end, however the run ends."""
    try:
        yield
    finally:
        if progress.has_begun:
            _print_summary(run, progress, plan)


def _print_summary(run: DubRun, progress: Progress, plan: _Plan) -> None:
    snapshot = run.snapshot()
    if wants_json(plan.options.json):
        print_json_line(summary_object(snapshot, progress.elapsed))
        return
    for text in summary(snapshot, progress, plan.retry, plan.files.places()):
        print_line(text)


@asynccontextmanager
async def _reported(run: DubRun, plan: _Plan) -> AsyncIterator[None]:
    """Write the report at the end, however the run ends."""
    try:
        yield
    finally:
        if plan.files.report is not None:
            try:
                await run.stop()
                await run.write_report(plan.files.report)
            except (OSError, JournalError) as error:  # what ended the run matters more
                _logger.warning("the report was not written: %s", error)


@contextmanager
def _shown(run: DubRun, progress: Progress, options: Options) -> Iterator[Callable[[DubOutcome], None]]:
    """Show the run as JSON Lines, as a live view, or as lines; yields a callback for each outcome."""
    if wants_json(options.json):
        yield lambda outcome: print_json_line(outcome_object(outcome))
    elif is_watched(options):
        with live(lambda: live_view(run.snapshot(), progress)):
            yield lambda _: None
    else:
        yield lambda outcome: note(_numbered(run, outcome), options)


def _numbered(run: DubRun, outcome: DubOutcome) -> str:
    snapshot = run.snapshot()
    return line(outcome, snapshot.ended, snapshot.total)
