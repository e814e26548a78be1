"""`heygen-async cluster`: the rows of manifests on many machines, with PostgreSQL between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import attrs
from cyclopts import App, Parameter

from heygen_async.bulk.manifest import Manifest
from heygen_async.cli.cluster_view import enqueued_lines, enqueued_object, live_view, status_lines, status_object
from heygen_async.cli.dub_files import report_problem
from heygen_async.cli.durations import Duration
from heygen_async.cli.exits import Exit
from heygen_async.cli.live import is_watched, live
from heygen_async.cli.number_flags import Count, Dollars, PositiveNumber, Rates, Slots
from heygen_async.cli.options import Options, PathFlag, Printing, Switch, polling, session
from heygen_async.cli.output import note, print_for_people, print_json, print_json_line, print_line, wants_json
from heygen_async.cli.problems import listing_bad_rows
from heygen_async.cli.streams import is_output_lost

if TYPE_CHECKING:
    from heygen_async.bulk.cluster import Cluster, ClusterStatus

_WATCH_SECONDS: Final = 1.0

Address: TypeAlias = Annotated[str | None, Parameter(metavar="URL")]
"""The address of the API of a run."""

app: Final = App(name="cluster", help="Dub the rows of manifests on many machines, with PostgreSQL between them.")


class MissingExtra(ValueError):
    """What a cluster needs is not installed."""

    hint = "pip install 'heygen-async[cli,cluster]'"


class MissingDatabase(ValueError):
    """There is no database URL."""

    hint = "export HEYGEN_DATABASE_URL=postgresql://USER:PASSWORD@HOST:PORT/NAME"


@Parameter(name="*", group="Everywhere")
@attrs.frozen(kw_only=True)
class Where:
    """Which database."""

    database: Annotated[str | None, Parameter(metavar="URL")] = attrs.field(default=None, repr=False)
    """The PostgreSQL database; without it HEYGEN_DATABASE_URL, which others on this machine cannot see."""


@app.command
async def enqueue(
    manifest: Annotated[Path, Parameter(name="MANIFEST")],
    /,
    *,
    output_dir: PathFlag | None = None,
    run: str | None = None,
    max_in_flight: Count | None = None,
    max_attempts: Count = 3,
    max_requests_per_second: PositiveNumber | None = None,
    budget: Dollars | None = None,
    rates: Rates | None = None,
    captions: Switch = False,
    where: Where = Where(),
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Check all rows of a manifest, and store them for the workers; it needs no API key.

    Sources are public URLs, files in a folder that all machines share under the same path, or asset:ID. Enqueueing
    the same manifest again adds nothing; rows that have changed are worked on as they are then, and rows that are left
    out stay in the run. The options that are given then count from then on, and those that are not given are back at
    their defaults: without --budget the run has none.

    Example: heygen-async cluster enqueue episodes.csv --output-dir /shared/dubbed

    Args:
        manifest: The file that lists the rows.
        output_dir: The folder to write to, which all machines share.
        run: A name for the run; without it the manifest's.
        max_in_flight: Jobs of this run at once; without it as many as the account allows.
        max_attempts: Jobs for one row, if jobs fail for reasons that a retry can help with.
        max_requests_per_second: Requests of all workers together to the API in a second.
        budget: Skip rows whose jobs would exceed it, by the estimate.
        rates: Dollars per second of output, for the estimate; without it --rates.speed 0.0333 --rates.precision 0.0667.
        captions: Write captions too, as .srt beside each video.
    """
    outputs = None if output_dir is not None else await asyncio.to_thread(lambda: Manifest(manifest).folder)
    rows = Manifest(manifest, outputs=outputs)
    async with _opened(where) as cluster:
        with listing_bad_rows():
            found = await cluster.enqueue(
                rows,
                output_dir=output_dir,
                run=run,
                base_url=options.base_url,
                max_in_flight=max_in_flight,
                max_attempts=max_attempts,
                max_requests_per_second=max_requests_per_second,
                budget=budget,
                rates=rates,
                captions=captions,
            )
    if wants_json(options.json):
        print_json(enqueued_object(found, budget))
    else:
        for text in enqueued_lines(found, budget):
            print_line(text)


@app.command
async def worker(
    *,
    uploads: Slots = 4,
    downloads: Slots = 4,
    poll_every: Duration | None = None,
    where: Where = Where(),
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Work on the rows of the account of HEYGEN_API_KEY, until SIGTERM or Ctrl-C.

    Start as many as you like, on as many machines. One of them is the scheduler; when it ends, another takes over
    within seconds. At the end, transfers are put back and creates are finished.

    Example: heygen-async cluster worker --downloads 8

    Args:
        uploads: Files to upload at once.
        downloads: Files to download at once.
        poll_every: Seconds between polls; without it, by the age of the job.
    """
    async with (
        session(options, polling=polling(poll_every)) as heygen,
        _opened(where) as cluster,
    ):
        note("working until SIGTERM or Ctrl-C", options)
        await cluster.work(heygen, uploads=uploads, downloads=downloads)


@app.command
async def status(
    *,
    watch: Switch = False,
    where: Where = Where(),
    options: Printing = Printing(),  # noqa: B008 frozen
) -> int:
    """Print rows by state, jobs in flight and the limit, workers, rate, time left and money.

    Example: heygen-async cluster status --watch

    Args:
        watch: Keep showing it until every row has ended, or until Ctrl-C; exit code 1 if rows failed or were skipped.
    """
    async with _opened(where) as cluster:
        found = await cluster.status()
        if not watch:
            _print_status(found, options)
            return Exit.DONE
        found = await (_watch if is_watched(options) else _print_until_complete)(cluster, found, options)
    return Exit.FAILED if found.has_failures else Exit.DONE


@app.command
async def report(
    path: Annotated[PathFlag, Parameter(name="PATH")],
    /,
    *,
    run: str | None = None,
    base_url: Address = None,
    where: Where = Where(),
    options: Printing = Printing(),  # noqa: B008 frozen
) -> None:
    """Write the state of each row of a run, as CSV. An older report is replaced, and no other file.

    Example: heygen-async cluster report episodes.report.csv

    Args:
        path: The file to write.
        run: The run, if there are several.
        base_url: The address of its API, if runs of several have that name.
    """
    if problem := await asyncio.to_thread(report_problem, path):
        raise ValueError(f"{problem}, or give another file")
    async with _opened(where) as cluster:
        await cluster.report(path, run=run, base_url=base_url)
    if wants_json(options.json):
        print_json({"type": "report", "path": str(path)})
    else:
        note(f"report: {path}", options)


@app.command
async def retry_failed(
    *,
    run: str | None = None,
    base_url: Address = None,
    where: Where = Where(),
    options: Printing = Printing(),  # noqa: B008 frozen
) -> None:
    """Give rows that failed or were skipped another attempt, final failures included.

    Example: heygen-async cluster retry-failed

    Args:
        run: The run; without it all of them.
        base_url: The address of its API; without it all of them.
    """
    async with _opened(where) as cluster:
        count = await cluster.retry_failed(run=run, base_url=base_url)
    if wants_json(options.json):
        print_json({"type": "retried", "rows": count})
    else:
        print_line(f"{count:,} {'row gets' if count == 1 else 'rows get'} another attempt")


@app.command
async def prune(
    *,
    older_than: Annotated[Duration, Parameter(show_default=lambda _: "168h")] = 168 * 3600.0,
    where: Where = Where(),
    options: Printing = Printing(),  # noqa: B008 frozen
) -> None:
    """Remove runs of which every row has ended, and what interrupted enqueues have left.

    The rows of a removed run, enqueued later, are paid for again.

    Example: heygen-async cluster prune --older-than 720h

    Args:
        older_than: How long ago the last row of a run must have ended.
    """
    async with _opened(where) as cluster:
        count = await cluster.prune(older_than=older_than)
    if wants_json(options.json):
        print_json({"type": "pruned", "runs": count})
    else:
        print_line(f"{count:,} {'run' if count == 1 else 'runs'} removed")


@asynccontextmanager
async def _opened(where: Where) -> AsyncIterator[Cluster]:
    """Open the cluster of the command line."""
    try:
        from heygen_async.bulk.cluster import Cluster  # noqa: PLC0415 what it needs is an extra
        from heygen_async.bulk.cluster.database import has_password  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("procrastinate", "psycopg", "psycopg_pool"):
            raise
        raise MissingExtra(f"{error.name} is not installed") from error
    url = where.database or os.environ.get("HEYGEN_DATABASE_URL")
    if not url:
        raise MissingDatabase("there is no database: give --database, or set HEYGEN_DATABASE_URL")
    if where.database is not None and has_password(where.database):
        print_for_people("note: others on this machine can see the password of --database; use HEYGEN_DATABASE_URL")
    cluster = Cluster(url)
    del url, where  # or a traceback with local variables would show the password
    async with cluster:
        yield cluster


def _print_status(found: ClusterStatus, options: Printing) -> None:
    if wants_json(options.json):
        print_json(status_object(found))
    else:
        for text in status_lines(found):
            print_line(text)


async def _watch(cluster: Cluster, found: ClusterStatus, options: Printing) -> ClusterStatus:
    with live(lambda: live_view(found)):
        while not found.is_complete:
            found = await _later_status(cluster)
    _print_status(found, options)
    return found


async def _print_until_complete(cluster: Cluster, found: ClusterStatus, options: Printing) -> ClusterStatus:
    while True:
        if wants_json(options.json):
            print_json_line(status_object(found))
        else:
            _print_status(found, options)
        if found.is_complete or is_output_lost():
            return found
        found = await _later_status(cluster)


async def _later_status(cluster: Cluster) -> ClusterStatus:
    """Return the status a moment later, however long the database is away: the workers wait for it too."""
    from heygen_async.bulk.cluster import DatabaseLost  # noqa: PLC0415 what it needs is an extra

    is_reported = False
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        try:
            return await cluster.status()
        except DatabaseLost as error:
            if not is_reported:
                print_for_people(f"waiting for the database: {error}")
            is_reported = True
