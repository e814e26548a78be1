"""`heygen-async dub`: all rows of a manifest, in one run that can be resumed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs
from cyclopts import Parameter

from heygen_async import HeyGenSession, PollPolicy
from heygen_async._text import one_line
from heygen_async.bulk.events import DubEvent
from heygen_async.bulk.folders import temporary_folder
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import JournalError
from heygen_async.cli.advice import advising
from heygen_async.cli.dub_commands import RunCommands
from heygen_async.cli.dub_files import RehearsedManifest, RunFiles, approved_rows, earlier_estimate
from heygen_async.cli.dub_flags import RunFlags
from heygen_async.cli.dub_progress import RunProgress
from heygen_async.cli.dub_summary import (
    next_steps,
    outcome_object,
    summary,
    summary_object,
    survey_lines,
    survey_object,
)
from heygen_async.cli.dub_view import checking_view, line, live_view
from heygen_async.cli.durations import Duration
from heygen_async.cli.exits import Exit
from heygen_async.cli.live import is_watched, live
from heygen_async.cli.options import RETRY, Options, PathFlag, Switch, polling, session
from heygen_async.cli.output import note, print_json, print_json_line, print_parts, wants_json
from heygen_async.cli.problems import listing_bad_rows
from heygen_async.cli.review_flags import ReviewFlags
from heygen_async.errors import HeyGenError
from heygen_async.models import DubOutcome, DubRow
from heygen_async.sandbox import Sandbox

if TYPE_CHECKING:
    from heygen_async.cli.review import PageOfRun

_logger: Final = logging.getLogger("heygen_async.cli")

_SANDBOX_SPEED: Final = 100.0
_SANDBOX_POLLING: Final = PollPolicy(fastest=0.05, slowest=0.2)
_AGAIN: Final = "run the same command again to continue; submitted jobs keep running"


@attrs.frozen(kw_only=True)
class _Plan:
    """A run as the command line describes it."""

    files: RunFiles
    flags: RunFlags
    review: ReviewFlags
    commands: RunCommands
    options: Options

    @property
    def is_rehearsal(self) -> bool:
        """Whether nothing of the run is kept."""
        return self.files.journal is None

    async def rows(self) -> Iterable[DubRow]:
        """Return the rows of the manifest, or the final versions of the approved ones."""
        # Without a folder for all of them outputs are relative to the manifest, as its sources are.
        outputs = self.files.folder if self.flags.output_dir is None else None
        manifest = (RehearsedManifest if self.is_rehearsal else Manifest)(self.files.manifest, outputs=outputs)
        return await approved_rows(manifest, self.files, self.review) if self.review.approved else manifest

    def run(
        self, heygen: HeyGenSession, rows: Iterable[DubRow], on_event: Callable[[DubEvent], None] | None = None
    ) -> DubRun:
        """Return the run."""
        return heygen.dub_many(
            rows,
            **attrs.asdict(attrs.evolve(self.flags, journal=self.files.journal), recurse=False),
            on_event=on_event,
        )


def dub(
    manifest: Annotated[PathFlag, Parameter(name="MANIFEST")],
    /,
    *,
    flags: RunFlags = RunFlags(),  # noqa: B008 frozen
    review: ReviewFlags = ReviewFlags(),  # noqa: B008 frozen
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
        dry_run: Check all rows, print what would be done and the estimated cost, and send nothing.
        sandbox: Rehearse in a local sandbox: no API key, no costs, no budget, no file is kept.
        poll_every: How often to poll, such as 5 or 1m; without it every 1 to 15 s, by the age of the job.
    """
    files = RunFiles.of(manifest, flags.journal, is_kept=not sandbox)
    review.check(output_dir=flags.output_dir, is_kept=not sandbox and not dry_run)
    suggested = _with_journal(flags, manifest) if sandbox else flags
    commands = RunCommands(manifest, suggested, review, options.base_url)
    plan = _Plan(files=files, flags=flags, review=review, commands=commands, options=options)
    if sandbox:
        return _listing_bad_rows(_rehearse(plan, dry_run=dry_run))
    return _listing_bad_rows(_run_for_real(plan, polling(poll_every), dry_run=dry_run))


def _with_journal(flags: RunFlags, manifest: Path) -> RunFlags:
    """Return *flags* with the journal that a run of a pipe needs, which a rehearsal does not."""
    is_pipe = flags.journal is None and Manifest(manifest).name is None
    return attrs.evolve(flags, journal=Path("run.sqlite")) if is_pipe else flags


async def _listing_bad_rows(run: Coroutine[Any, Any, Exit]) -> Exit:
    with listing_bad_rows():
        return await run


async def _run_for_real(plan: _Plan, policy: PollPolicy, *, dry_run: bool) -> Exit:
    async with session(plan.options, polling=policy, needs_key=not dry_run) as heygen:
        return await (_survey if dry_run else _run)(plan, heygen)


async def _rehearse(plan: _Plan, *, dry_run: bool) -> Exit:
    async with temporary_folder() as folder:
        note("rehearsal in a local sandbox: nothing is paid, no file is kept", plan.options)
        # Rows with an output of their own are written where they cannot be in the way of the real run. The budget is
        # for the dry run only: the jobs of a sandbox are as long as its sample, or as the video, and not as the audio.
        budget = plan.flags.budget if dry_run else None
        rehearsal = attrs.evolve(plan, flags=attrs.evolve(plan.flags, output_dir=folder, budget=budget))
        async with (
            Sandbox(speed=_SANDBOX_SPEED, balance=1e6, seed=secrets.randbits(32)) as sandbox,
            HeyGenSession(sandbox.api_key, base_url=sandbox.url, polling=_SANDBOX_POLLING, retry=RETRY.get()) as heygen,
        ):
            return await (_survey if dry_run else _run)(rehearsal, heygen)


async def _survey(plan: _Plan, heygen: HeyGenSession) -> Exit:
    survey = await plan.run(heygen, await plan.rows()).survey()
    earlier, budget = await earlier_estimate(plan.files.journal), plan.flags.budget
    if wants_json(plan.options.json):
        print_json(survey_object(survey, budget, earlier=earlier))
    else:
        lines = survey_lines(survey, budget, earlier=earlier)
        print_parts([*lines, *next_steps(plan.commands.after_dry_run(survey))])
    return Exit.DONE


async def _run(plan: _Plan, heygen: HeyGenSession) -> Exit:
    progress = RunProgress(asyncio.get_running_loop().time, plan.is_rehearsal)
    page = _page(progress) if plan.review.review else None
    run = plan.run(heygen, await plan.rows(), progress.on_event if page is None else page.on_event)
    with _summarized(run, progress, plan) as print_summary:
        async with _entered(run, plan), _served(page, run, plan, print_summary):
            with _advising(plan):
                progress.begin(run.snapshot())
                with _shown(run, progress, plan.options) as show:
                    async with _reported(run, progress, plan):
                        async for outcome in run:
                            progress.add(outcome)
                            show(outcome)
    return Exit.DONE if progress.is_complete else Exit.FAILED


@asynccontextmanager
async def _entered(run: DubRun, plan: _Plan) -> AsyncIterator[None]:
    """Enter the run, and show meanwhile that its rows are checked."""
    async with AsyncExitStack() as stack:
        with _advising(plan), live(checking_view) if is_watched(plan.options) else nullcontext():
            await stack.enter_async_context(run)
        yield


def _advising(plan: _Plan) -> AbstractContextManager[None]:
    """Say to what interrupts the body how to continue the run; a rehearsal leaves nothing to continue."""
    return nullcontext() if plan.is_rehearsal else advising(_AGAIN)


def _page(progress: RunProgress) -> PageOfRun:
    from heygen_async.cli.review import PageOfRun  # noqa: PLC0415 most runs need no server

    return PageOfRun(progress)


@asynccontextmanager
async def _served(
    page: PageOfRun | None, run: DubRun, plan: _Plan, print_summary: Callable[[], None]
) -> AsyncIterator[None]:
    """Serve the page of the run, and go on after its end and its summary until a signal."""
    if page is None or plan.files.journal is None:
        yield
        return
    async with page.served(run, plan.files.manifest, plan.files.journal, plan.options):
        try:
            yield
        except HeyGenError as error:
            note(f"the run has ended: {one_line(str(error))}", plan.options)
            print_summary()
            await page.stay(plan.options)
            raise
        print_summary()
        await page.stay(plan.options)


@contextmanager
def _summarized(run: DubRun, progress: RunProgress, plan: _Plan) -> Iterator[Callable[[], None]]:
    """Print the summary at the end, however the run ends; yields a function that prints it before."""
    is_printed = False

    def print_once() -> None:
        nonlocal is_printed
        if progress.has_begun and not is_printed:
            is_printed = True
            _print_summary(run, progress, plan)

    try:
        yield print_once
    finally:
        print_once()


def _print_summary(run: DubRun, progress: RunProgress, plan: _Plan) -> None:
    snapshot = run.snapshot()
    is_json = wants_json(plan.options.json)
    if not is_json and str(sys.exception()) == snapshot.halted:
        snapshot = attrs.evolve(snapshot, halted=None)  # the error is printed below, with a hint
    if plan.is_rehearsal:
        snapshot = attrs.evolve(snapshot, estimate=0.0, spent=0.0, reserved=0.0)
        snapshot = attrs.evolve(snapshot, balance_before=None, balance_after=None)
        commands = plan.commands.after_rehearsal()
    else:
        drafts = plan.files.journal if progress.has_drafts else None
        commands = plan.commands.after(
            snapshot,
            is_over_budget=progress.is_over_budget,
            is_without_files=progress.is_without_files,
            drafts=drafts,
        )
    if is_json:
        print_json_line(summary_object(snapshot, progress.elapsed, commands))
    else:
        places = plan.files.places(is_reported=progress.is_reported)
        print_parts(summary(snapshot, progress, places, commands))


@asynccontextmanager
async def _reported(run: DubRun, progress: RunProgress, plan: _Plan) -> AsyncIterator[None]:
    """Write the report at the end, however the run ends."""
    try:
        yield
    except asyncio.CancelledError:
        progress.is_stopping = True
        raise
    finally:
        if plan.files.report is not None:
            try:
                await run.stop()
                await run.write_report(plan.files.report)
                progress.is_reported = True
            except (OSError, JournalError) as error:  # what ended the run matters more
                _logger.warning("the report was not written: %s", error)


@contextmanager
def _shown(run: DubRun, progress: RunProgress, options: Options) -> Iterator[Callable[[DubOutcome], None]]:
    """Show the run as JSON Lines, as a live view, or as lines; yields a callback for each outcome."""

    def numbered(outcome: DubOutcome) -> str:
        return line(outcome, progress.outcomes.total(), run.snapshot().total)

    if wants_json(options.json):
        yield lambda outcome: print_json_line(outcome_object(outcome))
    elif is_watched(options):
        with live(lambda: live_view(run.snapshot(), progress)):
            yield lambda outcome: note(numbered(outcome), options) if outcome.warnings else None
    else:
        yield lambda outcome: note(numbered(outcome), options)
