"""What must hold after every life, and at the end. Everything is judged by what the world knows, not by the client."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from heygen_async.bulk.folders import MARK
from heygen_async.bulk.searching import InDoubt
from heygen_async.models import DubOutcome

from .contents import job_of
from .fault_kinds import LIST, ME
from .lives import Life, Simulation, Violation
from .scenario import RowSpec
from .server import RATES, Creation

_CENT = 0.01
_MOST_A_MINUTE = {LIST: 48, ME: 48}
"""How often a run reads during an outage what it reads once for all rows: twelve times, with four attempts each."""
_MOST_OF_A_ROW_A_MINUTE = 12
"""Likewise, for each row: looks, with one attempt each."""
_MOST_OF_UPLOADS_A_MINUTE = 24
"""Likewise, for each row: two files, with four attempts each whenever the row is tried again."""
_SIDES = (".part", ".part.etag")
_MOVES = frozenset({"outputs swapped", "output renamed", "row removed"})
"""What people do so that captions are wanted at another place, or nowhere."""


def check_life(simulation: Simulation, life: Life) -> None:
    """Check what holds after a life.

    Raises:
        Violation: If something does not.
    """
    _check_requests(simulation)
    _check_jobs(simulation)
    _check_foreign(simulation)
    records = simulation.records(life.plan.journal)
    if life.end != "refused":
        _check_records(simulation, life, records)
        _check_money(simulation, life, records)


def check_end(simulation: Simulation) -> None:
    """Check what holds once the world has been calm for long enough.

    Raises:
        Violation: If something does not.
    """
    for journal in sorted({life.plan.journal for life in simulation.lives}):
        records = {record["key"]: record for record in simulation.records(journal)}
        for row in simulation.author.rows[journal]:
            _check_finished(simulation, journal, row, records.get(row.key))
        _check_folder(simulation, journal, records)


# What was sent, and what was created


def _check_requests(simulation: Simulation) -> None:
    for problem in simulation.service.problems:
        raise Violation("a key is used for one body, and the API key for the API", problem)
    for problem in simulation.early_requests():
        raise Violation("Retry-After is never undercut", problem)
    rows = sum(map(len, simulation.author.rows.values()))
    for route, count in simulation.busiest_minutes().items():
        of_a_row = _MOST_OF_UPLOADS_A_MINUTE if route.startswith("POST /v3/assets") else _MOST_OF_A_ROW_A_MINUTE
        if count > _MOST_A_MINUTE.get(route, of_a_row * max(12, rows)):
            raise Violation("an API that is out of order is spared", f"{route} was sent {count} times in a minute")


def _check_jobs(simulation: Simulation) -> None:
    """Check that no attempt has two jobs, and no row a second one while the first may be alive or has succeeded."""
    rows: dict[tuple[str, str], list[Creation]] = defaultdict(list)
    for one in simulation.service.creations:
        if one.life is not None:
            journal = one.life.plan.journal
            key = simulation.author.canons[journal].get(one.canon)
            if key is None:
                raise Violation("only what rows say is created", f"a job of {one.canon}")
            rows[journal, key].append(one)
    for (journal, key), creations in rows.items():
        for before, after in pairwise(creations):
            was_restored = journal in simulation.was_restored
            _check_pair(f"the row {key} of {journal}", before, after, was_restored=was_restored)


def _check_pair(row: str, before: Creation, after: Creation, *, was_restored: bool) -> None:
    ended = before.job.ended_at
    if was_restored and before.canon != after.canon:
        return  # the row was changed, and a journal that had lost its job could not know
    names = (
        f"{row}: {before.job.id} ({before.key}, at {before.at:.0f}) and {after.job.id} ({after.key}, at {after.at:.0f})"
    )
    attempt = before.job.body.get("callback_id")
    if attempt == after.job.body.get("callback_id") and str(attempt).startswith(row.split()[2]):
        raise Violation("never two jobs for one attempt", names)
    if ended is None or ended > after.at:
        raise Violation("no second attempt while the first may be alive", names)
    if before.job.failure_message is None:
        raise Violation("no second attempt after a success", names)


# Files


def _check_foreign(simulation: Simulation) -> None:
    for path, content in simulation.author.foreign.items():
        if not path.exists() or path.read_bytes() != content:
            raise Violation("no foreign file is touched", str(path))


def _content(simulation: Simulation, path: Path) -> str | None:
    """Return the job whose whole output is at *path*."""
    return job_of(path.read_bytes(), simulation.scenario.conditions.video_bytes)


def check_outcome(simulation: Simulation, outcome: DubOutcome) -> None:
    """Check that what the run says of a row is so, at the moment when it says so.

    Raises:
        Violation: If it is not.
    """
    path, author = outcome.path, simulation.author
    if outcome.state not in {"completed", "unchanged"} or path is None or author.was_just_touched(path):
        return
    if path in author.foreign:
        raise Violation("an outcome is true", f"{outcome.key} is {outcome.state}, and {path.name} is of somebody else")
    if not path.exists() or not path.stat().st_size:
        raise Violation("an outcome is true", f"{outcome.key} is {outcome.state}, and there is no {path.name}")
    job = _check_file(simulation, path, outcome.key)
    if outcome.lipsync is not None and outcome.lipsync.id != job:
        raise Violation("an outcome is true", f"{outcome.key} has {outcome.lipsync.id}, and {path.name} is of {job}")


def _check_file(simulation: Simulation, path: Path, key: str) -> str:
    job = _content(simulation, path)
    creation = None if job is None else simulation.service.by_job.get(job)
    if creation is None:
        raise Violation("a file has the content of its row's job", f"{path.name} of {key} is no whole output of a job")
    if creation.canon not in simulation.author.meant.get(str(path), ()):
        raise Violation("a file has the content of its row's job", f"{path.name} of {key} is of {creation.canon}")
    return creation.job.id


def _check_folder(simulation: Simulation, journal: str, records: Mapping[str, dict[str, Any]]) -> None:
    """Check that nothing is left beside the outputs of rows that are done; a row in doubt keeps what it has."""
    for row in simulation.author.rows[journal]:
        if records.get(row.key, {}).get("state") != "done":
            continue
        target = simulation.author.target(journal, row)
        for side in _SIDES:
            if (path := target.with_name(target.name + side)).exists():
                raise Violation("nothing is left beside the outputs", path.name)
    if _may_leave_captions(simulation, journal):
        return
    for path in simulation.author.output_dir(journal).glob(".*"):
        if path.name != MARK:
            raise Violation("nothing is left beside the outputs", path.name)


def _may_leave_captions(simulation: Simulation, journal: str) -> bool:
    """Return whether unfinished captions may stay.

    So they do if the process is killed while it writes them and from then on none are wanted, or none at that place, or
    if another one of several has finished the row, or if a disk that is full lets nobody remove them.
    """
    were_wanted = any(life.plan.captions for life in simulation.lives if life.plan.journal == journal)
    are_several = simulation.scenario.workers > 1
    happened = {one.what for one in simulation.scenario.faults}
    are_elsewhere = bool(happened & _MOVES) and any(row.captions for row in simulation.scenario.rows_of(journal))
    return were_wanted or are_several or are_elsewhere or any(one.startswith("disk full") for one in happened)


# Journals


def _check_records(simulation: Simulation, life: Life, records: list[dict[str, Any]]) -> None:
    journal = life.plan.journal
    known = {row.key: row for rows in (simulation.author.rows, simulation.author.accepted) for row in rows[journal]}
    own: dict[str, list[Creation]] = defaultdict(list)
    for one in simulation.service.creations:
        if one.life is not None and one.life.plan.journal == journal:
            own[simulation.author.canons[journal][one.canon]].append(one)
    last_run = max((record["run"] for record in records), default=0)
    for record in records:
        row = known.get(record["key"])
        was_restored = journal in simulation.was_restored
        is_open = journal in simulation.restored or (was_restored and _is_in_doubt(life, record["key"], row))
        for problem in _false_claims(simulation, record, own[record["key"]], is_restored=is_open):
            raise Violation(
                "the journal never claims what is not so", f"{record['key']} is {record['state']}: {problem}"
            )
        if record["state"] == "done" and record["run"] == last_run:
            _check_done(simulation, record)


def _is_in_doubt(life: Life, key: str, row: RowSpec | None) -> bool:
    """Return whether a row may be without its job: nobody can say which job is its, or it is not listed any more."""
    if row is None or row.callback_id is not None:
        return True
    return any(one.key == key and isinstance(one.error, InDoubt) for one in life.outcomes)


def _false_claims(
    simulation: Simulation, record: Mapping[str, Any], own: list[Creation], *, is_restored: bool
) -> Iterator[str]:
    job = record["lipsync_id"]
    creation = None if job is None else simulation.service.by_job.get(job)
    state = record["state"]
    meant = simulation.author.digests.get(record["inputs"])
    if job is not None and creation is None:
        yield f"there is no {job}"
    if creation is not None:
        keys = [names.get(creation.canon) for names in simulation.author.canons.values()]
        if record["key"] not in keys:
            yield f"{job} is of another row, {creation.canon}"
        ended, failure = creation.job.ended_at, creation.job.failure_message
        if state in {"completed", "done"} and (ended is None or failure is not None):
            yield f"{job} is not completed"
        if state == "failed" and failure is None:
            yield f"{job} has not failed"
        if meant is not None and meant != creation.canon:
            yield f"{job} is made of {creation.canon}, and the record says {meant}"
    earlier = orjson.loads(record["earlier"])
    for one in earlier:
        found = simulation.service.by_job.get(one)
        if found is None or found.job.failure_message is None:
            yield f"the earlier {one} has not failed"
    # With an older copy of the journal, a row that was changed since then is another one: the earlier job is not its.
    made = [one.job.id for one in own if meant in {None, one.canon}]
    unknown = [one for one in made if one not in {*earlier, job}]
    if state == "planned" and unknown and not is_restored and record["batch_id"] is None:
        yield f"there is {unknown[-1]}"


def _check_done(simulation: Simulation, record: Mapping[str, Any]) -> None:
    if record["target"] is None:
        return
    path, author = Path(record["target"]), simulation.author
    if record["writing_to"] != str(path):
        return  # it was done for another target
    if path in author.foreign or not path.exists() or not path.stat().st_size:
        if not author.was_touched(path):
            what = f"{record['key']} is done, and there is no {path.name}"
            raise Violation("the journal never claims what is not so", what)
        return
    job = _check_file(simulation, path, record["key"])
    if job != record["lipsync_id"]:
        what = f"{path.name} is of {job}, not of {record['lipsync_id']}"
        raise Violation("the journal never claims what is not so", what)


# Money


def _check_money(simulation: Simulation, life: Life, records: list[dict[str, Any]]) -> None:
    """Check the estimates, and that the budget was kept: all outputs have one length, which is not above the guess."""
    for record in records:
        job = simulation.service.by_job.get(record["lipsync_id"] or "")
        price = 0.0 if job is None else job.job.script.duration * RATES["speed"]
        known = {"done"} if simulation.cluster is not None else {"completed", "done"}  # who downloads learns the length
        if record["state"] in known and abs(record["estimate"] - price) > _CENT:
            raise Violation("estimates hold", f"{record['key']} has cost {price:.2f}, not {record['estimate']:.2f}")
        if record["state"] in {"planned", "failed"} and record["estimate"]:
            raise Violation(
                "estimates hold", f"{record['key']} is {record['state']}, and costs {record['estimate']:.2f}"
            )
    journal, budget = life.plan.journal, life.plan.budget
    if budget is None or journal in simulation.was_restored:
        return
    own = [one for one in simulation.service.creations if one.life is not None and one.life.plan.journal == journal]
    spent = sum(one.job.price / 1e6 for one in own if one.life.plan.budget is not None)
    if spent > budget + _CENT:
        raise Violation("the budget holds", f"{spent:.2f} were spent of {budget:.2f}")


# The end


def _check_finished(simulation: Simulation, journal: str, row: RowSpec, record: Mapping[str, Any] | None) -> None:
    """Check that a row is done, unless there is a reason why it cannot be."""
    failing = simulation.scenario.failing.get(row.key)
    # The other manifest may have paid for the same row, and whoever repairs that manifest changes files of both.
    has_twin = any(one.key == row.key for one in simulation.scenario.others)
    last = [life for life in simulation.lives if life.plan.journal == journal][-1]
    outcome = next((one for one in last.outcomes if one.key == row.key), None)
    if record is not None and record["state"] == "done":
        path = simulation.author.target(journal, row)
        if not path.exists() or not path.stat().st_size:
            raise Violation("every row is finished in the end", f"{row.key}: there is no {path.name}")
        job = _check_file(simulation, path, row.key)
        canon, meant = simulation.service.by_job[job].canon, simulation.author.canon(row)
        if job != record["lipsync_id"] or (canon != meant and not has_twin):
            what = f"{path.name} of {row.key} is of {job}, {canon}, not of {record['lipsync_id']}, {meant}"
            raise Violation("a file has the content of its row's job", what)
        return
    if failing is not None and (failing.refusal or failing.times > 3 or simulation.scenario.workers > 1):
        return
    can_be_in_doubt = row.callback_id is not None or journal in simulation.was_restored or has_twin
    if outcome is not None and isinstance(outcome.error, InDoubt) and can_be_in_doubt:
        return
    if simulation.cluster is not None and record is not None and "is in doubt" in (record["error"] or ""):
        return
    error = None if outcome is None else f"{outcome.state} {outcome.error!r}"
    state = None if record is None else record["state"]
    raise Violation("every row is finished in the end", f"{row.key} is {state}; {last.end}; {error}")
