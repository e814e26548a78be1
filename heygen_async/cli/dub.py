"""`heygen-async dub`: all rows of a manifest, in one run that can be taken up again."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import attrs
import orjson
from anyio import to_thread
from cyclopts import Parameter
from cyclopts.validators import Number

from heygen_async import HeyGenSession, PollPolicy
from heygen_async.bulk.folders import temporary_folder
from heygen_async.bulk.journal import JournalError
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.runner import BadRows, DubRun
from heygen_async.cli.dubbing import Progress, board, line, outcome_object, summary, summary_object, survey_lines
from heygen_async.cli.durations import Duration
from heygen_async.cli.options import RETRY, Options, Switch, session
from heygen_async.cli.output import Exit, advising, note, print_json, wants_json
from heygen_async.cli.progress import is_watched
from heygen_async.models import DubOutcome
from heygen_async.sandbox import Sandbox

_Count = Annotated[int, Parameter(validator=Number(gte=1))]

_SANDBOX_SPEED: Final = 100.0
_SANDBOX_POLLING: Final = PollPolicy(fastest=0.05, slowest=0.2)
_AGAIN: Final = "run the same command again to go on; jobs that were asked for go on at HeyGen"


@attrs.frozen(kw_only=True)
class _Order:
    """A run as it was asked for."""

    manifest: Path
    output_dir: Path | None
    journal: Path | None
    max_in_flight: int | None
    max_attempts: int
    budget: float | None
    rates: Mapping[str, float] | None
    submit: Literal["each", "batch"]
    options: Options

    def run(self, heygen: HeyGenSession) -> DubRun:
        """Return the run."""
        # Without a folder for all of them outputs are beside the manifest, as its sources are.
        outputs = self.manifest.absolute().parent if self.output_dir is None else None
        return heygen.dub_many(
            Manifest(self.manifest, outputs=outputs),
            journal=self.journal,
            output_dir=self.output_dir,
            max_in_flight=self.max_in_flight,
            max_attempts=self.max_attempts,
            budget=self.budget,
            rates=self.rates,
            submit=self.submit,
        )


async def dub(
    manifest: Annotated[Path, Parameter(name="MANIFEST")],
    /,
    *,
    output_dir: Path | None = None,
    journal: Path | None = None,
    max_in_flight: _Count | None = None,
    max_attempts: _Count = 3,
    budget: Annotated[float | None, Parameter(validator=Number(gte=0), metavar="USD")] = None,
    rates: dict[str, float] | None = None,
    submit: Literal["each", "batch"] = "each",
    dry_run: Switch = False,
    sandbox: Switch = False,
    poll_every: Duration | None = None,
    options: Options = Options(),  # noqa: B008 frozen
) -> int:
    """Dub every row of a manifest: upload, submit, wait and download, as many at once as the account takes.

    What each row has reached is kept in a journal. After Ctrl-C, a crash or an outage the same command goes on from
    there: no job is made twice, and none is lost.

    A manifest is CSV with a header, or JSON Lines. Columns: video and audio (an https URL, a file relative to the
    manifest, or asset:ID), key, output, and any option of lipsync create.

    Example: heygen-async dub episodes.csv --output-dir dubbed --budget 50

    Args:
        manifest: The file that lists the rows.
        output_dir: Where the videos go; without it only rows with an output are downloaded, beside the manifest.
        journal: The journal; without it NAME.sqlite beside a manifest NAME.csv.
        max_in_flight: Jobs at once; without it as many as the account takes.
        max_attempts: Jobs that may be asked for, for one row, if they fail for no fault of the row's.
        budget: Submit nothing with which all runs on the journal are thought to cost more than this. An output of
            unknown length is taken for 60 s long until the first has come back, which it then goes alone to find out.
        rates: Dollars for a second of output, for the estimate: --rates.speed 0.033 --rates.precision 0.067.
        submit: Each on its own, or in a batch of up to 100, which HeyGen queues.
        dry_run: Check all rows, say what would be done and what it would cost, and send nothing.
        sandbox: Rehearse it in a sandbox on this machine: no key, nothing to pay, no file is kept.
        poll_every: How often to look at jobs, in seconds; without it their age decides.
    """
    if not await to_thread.run_sync(manifest.is_file):
        raise FileNotFoundError(2, "there is no such file to read rows from", str(manifest))
    order = _Order(
        manifest=manifest,
        output_dir=output_dir,
        journal=journal or manifest.with_suffix(".sqlite"),
        max_in_flight=max_in_flight,
        max_attempts=max_attempts,
        budget=budget,
        rates=rates,
        submit=submit,
        options=options,
    )
    try:
        if sandbox:
            return await _rehearsed(order, dry_run=dry_run)
        polling = PollPolicy() if poll_every is None else PollPolicy(fastest=poll_every, slowest=poll_every)
        async with session(options, polling=polling, needs_key=not dry_run) as heygen:
            return await _surveyed(order, heygen) if dry_run else await _done(order, heygen)
    except BadRows as bad:
        _tell_problems(bad, as_json=wants_json(options.json))
        return Exit.USAGE


async def _surveyed(order: _Order, heygen: HeyGenSession) -> Exit:
    survey = await order.run(heygen).survey()
    if wants_json(order.options.json):
        told = {**attrs.asdict(survey), "estimate": round(survey.estimate, 4), "budget": order.budget}
        print_json({"survey": told})
    for text in () if wants_json(order.options.json) else survey_lines(survey, order.budget):
        print(text)  # noqa: T201 it is the result
    return Exit.DONE


async def _rehearsed(order: _Order, *, dry_run: bool) -> Exit:
    async with temporary_folder() as folder:
        note("this is a rehearsal: a sandbox on this machine, nothing is paid, no file is kept", order.options)
        # What has an output of its own goes where it cannot be in the way of the real run.
        rehearsal = attrs.evolve(order, journal=None, output_dir=folder)
        async with (
            Sandbox(speed=_SANDBOX_SPEED, balance=1e6, seed=secrets.randbits(32)) as sandbox,
            HeyGenSession(sandbox.api_key, base_url=sandbox.url, polling=_SANDBOX_POLLING, retry=RETRY.get()) as heygen,
        ):
            return await (_surveyed if dry_run else _done)(rehearsal, heygen)


async def _done(order: _Order, heygen: HeyGenSession) -> Exit:
    report = None if order.journal is None else order.journal.with_suffix(".report.csv")
    clock = asyncio.get_running_loop().time
    progress = Progress(clock())
    with advising(_AGAIN):
        async with order.run(heygen) as run, _reported(run, report, order.options):
            with _shown(run, progress, order.options) as show:
                async for outcome in run:
                    progress.add(outcome)
                    show(outcome)
    snapshot, now = run.snapshot(), clock()
    if wants_json(order.options.json):
        print_line({"summary": summary_object(snapshot, now - progress.started)})
    places = () if report is None else (f"report: {report}", f"journal: {order.journal}")
    for text in () if wants_json(order.options.json) else summary(snapshot, progress, now, places):
        print(text)  # noqa: T201 it is the result
    return Exit.FAILED if progress.bad else Exit.DONE


@asynccontextmanager
async def _reported(run: DubRun, path: Path | None, options: Options) -> AsyncIterator[None]:
    """Write the report in the end, however that comes."""
    try:
        yield
    finally:
        if path is not None:
            try:
                await run.write_report(path)
            except (OSError, JournalError) as error:  # what ended the run is worth more
                note(f"there is no report: {error}", options)


@contextmanager
def _shown(run: DubRun, progress: Progress, options: Options) -> Iterator[Callable[[DubOutcome], None]]:
    """Show how the run goes, as JSON Lines, as a board, or as lines; yields what to tell of each outcome."""
    if wants_json(options.json):
        yield lambda outcome: print_line(outcome_object(outcome))
    elif is_watched(options):
        from rich.console import Console  # noqa: PLC0415 most runs in pipelines need none of it
        from rich.live import Live  # noqa: PLC0415

        clock = asyncio.get_running_loop().time
        with Live(
            console=Console(stderr=True),
            get_renderable=lambda: board(run.snapshot(), progress, clock()),
            transient=True,
        ):
            yield lambda _: None
    else:
        yield lambda outcome: note(_numbered(run, outcome), options)


def _numbered(run: DubRun, outcome: DubOutcome) -> str:
    snapshot = run.snapshot()
    return line(outcome, snapshot.ended, snapshot.total)


def print_line(data: object) -> None:
    """Print *data* as one line of JSON."""
    print(orjson.dumps(data).decode(), flush=True)  # noqa: T201 it is the result


def _tell_problems(bad: BadRows, *, as_json: bool) -> None:
    if as_json:
        problems = [{"place": problem.place, "message": problem.message} for problem in bad.problems]
        told = {"code": "bad_rows", "message": f"{bad.count} problems in the rows; nothing was sent"}
        print(orjson.dumps({"error": {**told, "hint": None, "problems": problems}}).decode(), file=sys.stderr)  # noqa: T201 it is the result
        return
    for problem in bad.problems:
        print(f"heygen-async: {problem}", file=sys.stderr)  # noqa: T201 it is the result
    more = bad.count - len(bad.problems)
    shown = f", {more} of them not shown" if more else ""
    print(f"  {bad.count} to mend{shown}; nothing was sent", file=sys.stderr)  # noqa: T201 it is the result
