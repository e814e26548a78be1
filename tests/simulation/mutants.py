"""Bugs to plant into the client: each is one change of the real code, which the simulation must notice.

A mutant names a function and a text in it that is replaced. The code object of the changed function takes the place of
the real one, so that everybody who has imported the function runs the bug.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import CodeType, FunctionType

from attrs import frozen

from .fault_kinds import OUTAGES
from .scenario import Scenario


@frozen
class Mutant:
    """One change of one function."""

    module: str
    function: str
    """Its qualified name."""
    old: str
    new: str
    only: Callable[[Scenario], bool] = lambda _: True
    """Whether it could show in a scenario: the others need not run."""
    seed: int = 0
    """The first seed that found it when it was last looked for."""


_BULK = "heygen_async.bulk."


def _in_a_cluster(scenario: Scenario) -> bool:
    return scenario.is_cluster


def _with(*faults: str) -> Callable[[Scenario], bool]:
    """Return whether a scenario has one of these faults."""
    return lambda scenario: any(one.what in faults for one in scenario.faults)


MUTANTS = {
    "no intent before the create": Mutant(
        f"{_BULK}executor",
        "RowExecutor._save",
        "await self.run.tools.store.save(self.record)",
        "self.record.state is State.SUBMITTING or await self.run.tools.store.save(self.record)",
        seed=2,
    ),
    "key without digest": Mutant(
        f"{_BULK}attempt_keys", "attempt_key", "[row_key, digest, attempt]", "[row_key, attempt]", seed=22
    ),
    "key without attempt": Mutant(
        f"{_BULK}attempt_keys", "attempt_key", "[row_key, digest, attempt]", "[row_key, digest]", seed=1
    ),
    "no reconciliation": Mutant(
        f"{_BULK}searching", "Searcher.prepare", "if unclean is not None:", "if False:", seed=287
    ),
    "no search for a row in doubt": Mutant(
        f"{_BULK}searching", "Searcher.find", "callback_id = record.callback_id", "return None", seed=2
    ),
    "adoption by a foreign callback id": Mutant(
        f"{_BULK}searching",
        "Searcher._certain",
        "if len(jobs) == 1 and _is_the_rows(jobs[0], record, row):",
        "if len(jobs) >= 1:",
        only=_with("foreign job"),
        seed=258,
    ),
    "state applied to a new target": Mutant(
        f"{_BULK}outputs",
        "is_written",
        "or record.writing_to != absolute_path(record.target)",
        "",
        only=_with("output renamed", "outputs swapped"),
        seed=102,
    ),
    "a finished row stays finished at a new target": Mutant(
        f"{_BULK}record",
        "Record.writing",
        "state=State.COMPLETED, ",
        "",
        only=_with("output renamed", "outputs swapped"),
        seed=8,
    ),
    "Retry-After ignored": Mutant(
        "heygen_async._transport.retry", "Attempts._delay", "if not retry_after:", "if True:", seed=10
    ),
    "keys are remembered for ever": Mutant(
        f"{_BULK}program", "is_remembered", "is_key_fresh(record.sent_at, now)", "True", seed=2
    ),
    "any refusal settles a doubt": Mutant(f"{_BULK}program", "is_settled", "if was_fresh:", "if True:", seed=142),
    "a foreign file is replaced": Mutant("heygen_async._media.parts", "_publish", "if overwrite:", "if True:", seed=37),
    "a foreign part is taken": Mutant(
        "heygen_async._media.parts", "owner_problem", "return _foreign(part)", "return None", seed=22
    ),
    "a resumed download starts at the beginning": Mutant(
        "heygen_async._media.parts", "Part.begin", "self._file.seek(start)", "self._file.seek(0)", seed=8
    ),
    "a missing job has failed": Mutant(
        f"{_BULK}job_end",
        "ended_job",
        "if pause is None:",
        "return Lipsync(id=record.lipsync_id or '', status='failed')\n            if pause is None:",
        seed=8,
    ),
    "a changed row keeps its job": Mutant(
        f"{_BULK}entries", "_change", "record.state in WITHOUT_A_JOB or", "True or", seed=55
    ),
    "a local file is never checked again": Mutant(
        f"{_BULK}effects",
        "_uploaded",
        "known = await tools.store.asset(info.digest)",
        "return (await tools.heygen.upload(source, None)).value\n    known = None",
        only=_with("source changed", "sources change"),
        seed=21,
    ),
    "a batch is sent without some of its rows": Mutant(
        f"{_BULK}batches",
        "BatchCollector._fail_incomplete",
        "for member in batch.members:",
        "key = next(key for key, one in self._batches.items() if one is batch)\n"
        "        self._work.put_nowait(partial(self._send, key, list(batch.members)))\n"
        "        for member in ():",
        only=_with("row removed"),
        seed=26,
    ),
    "no budget": Mutant(f"{_BULK}budget", "Budget._fits", "self.limit is None or", "True or", seed=48),
    "a failed job keeps its estimate": Mutant(f"{_BULK}record", "Record.failed", ", estimate=0.0", "", seed=15),
    "a part teaches the length of other rows": Mutant(
        f"{_BULK}job_end", "cost_of", "if row.seconds is None:", "if True:", seed=48
    ),
    "a seat is never given back": Mutant(
        f"{_BULK}create_queue", "RowSeat.release", "if not self.is_taken:", "if True:", seed=8
    ),
    "a timer is left": Mutant(f"{_BULK}create_queue", "CreateQueue.close", "self._timer.cancel()", "pass", seed=49),
    "a temporary file is left": Mutant(
        f"{_BULK}row_source",
        "new_snapshot",
        "opening.add_done_callback(_close)",
        "pass",
        only=_with("stopped at callback"),
        seed=612,
    ),
    "the API key is sent to the file host": Mutant(
        "heygen_async._transport.connections",
        "Connections._open",
        'lambda: {"User-Agent": user_agent()}',
        "self.origin.headers",
        seed=0,
    ),
    "a step that saves twice counts once": Mutant(
        f"{_BULK}executor",
        "RowExecutor._save",
        "evolve(record, version=self.record.version + 1)",
        "evolve(record, version=record.version + 1)",
        seed=10,
    ),
    "the clock of the machine judges keys": Mutant(
        "heygen_async._transport.server_time",
        "ServerTime.now",
        "if self._offset is None",
        "if True",
        seed=76,
        only=_with("clock"),
    ),
    "an error of a gateway hides a job": Mutant(
        f"{_BULK}searching",
        "Searcher._existing",
        "if not has_own_code(error):",
        "if False:",
        only=_with("foreign job"),
        seed=722,
    ),
    "Retry-After is forgotten between the attempts of a row": Mutant(
        f"{_BULK}record", "Record.failing", "requested or 0.0", "0.0", seed=16
    ),
    "a file that a paused worker publishes is foreign": Mutant(
        f"{_BULK}record",
        "Record.writing",
        "written=written,",
        "written=None,",
        only=_with("worker frozen before a file"),
        seed=14,
    ),
    "work of a worker that is gone is not taken back": Mutant(
        f"{_BULK}cluster.scheduler", "to_redeliver", "if row.holder in dead:", "if False:", only=_in_a_cluster, seed=43
    ),
    "work that the engine has lost is not delivered again": Mutant(
        f"{_BULK}cluster.scheduler",
        "to_redeliver",
        "elif row.ticket not in queued",
        "elif False",
        only=_in_a_cluster,
        seed=27,
    ),
    "a worker sends a key that has become too old": Mutant(
        f"{_BULK}cluster.steps",
        "_OneStep._advanced",
        "claimed.latest(), max",
        "row.record.sent_at or 0.0, max",
        only=_in_a_cluster,
        seed=99,
    ),
    "a worker saves the step of another one": Mutant(
        f"{_BULK}cluster.steps",
        "_OneStep._save",
        "version=self.record.version).next_version()",
        "version=record.version)",
        only=_in_a_cluster,
        seed=4,
    ),
    "an older copy of a journal is not noticed": Mutant(
        f"{_BULK}searching",
        "Searcher._may_be_older_copy",
        "anchor = await",
        "return False\n        anchor = await",
        only=_with("journal restored"),
        seed=100,
    ),
    "a new journal looks for nothing": Mutant(
        f"{_BULK}searching",
        "Searcher._keep_newest",
        "in_batches=in_batches) if looks_back",
        "in_batches=in_batches) if False",
        only=_with("journal lost"),
        seed=83,
    ),
    "a list that cannot be read is read without a pause": Mutant(
        f"{_BULK}executor",
        "RowExecutor._after_failure",
        "was_sent = step is Step.CREATE and self.run.tools.searcher.is_prepared",
        "was_sent = step is Step.CREATE",
        only=_with(*OUTAGES),
        seed=694,
    ),
    "each row reads a list that cannot be read": Mutant(
        f"{_BULK}searching",
        "Searcher._turn",
        "failures != self._failures",
        "False",
        only=_with(*OUTAGES),
        seed=54,
    ),
    "the account is read again before its time": Mutant(
        f"{_BULK}owner",
        "Owner._first_look",
        "requested = (error.retry_after",
        "requested = (None",
        only=_with(*OUTAGES),
        seed=1116,
    ),
    "an old key is sent again after a suspend": Mutant(
        "heygen_async._ids",
        "is_key_fresh",
        "return -CLOCK_ERROR <= now",
        "return True or now",
        seed=277,
        only=_with("suspend"),
    ),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant the bug with that name; `None` plants none."""
    if name is None:
        yield
        return
    mutant = MUTANTS[name]
    real = _function(mutant)
    before = real.__code__
    real.__code__ = _changed(mutant)
    try:
        yield
    finally:
        real.__code__ = before


def _function(mutant: Mutant) -> FunctionType:
    found: object = import_module(mutant.module)
    for name in mutant.function.split("."):
        found = vars(found)[name]
    found = getattr(found, "__wrapped__", getattr(found, "__func__", found))
    assert isinstance(found, FunctionType)
    return found


def _changed(mutant: Mutant) -> CodeType:
    """Return the code of the function with the change."""
    module = sys.modules[mutant.module]
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:  # noqa: PTH123 it is a string
        source = file.read()
    before = _function(mutant).__code__
    lines = source.splitlines(keepends=True)
    start = before.co_firstlineno - 1
    head, body = "".join(lines[:start]), "".join(lines[start:])
    if mutant.old not in body:
        raise ValueError(f"{mutant.function} has no {mutant.old!r} any more")
    code = compile(head + body.replace(mutant.old, mutant.new, 1), module.__file__, "exec")
    found = _code_in(code, before.co_qualname)
    if found is None or (found.co_code, found.co_consts) == (before.co_code, before.co_consts):
        raise ValueError(f"the change is not in {mutant.function}")
    return found


def _code_in(code: CodeType, qualname: str) -> CodeType | None:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            found = one if one.co_qualname == qualname else _code_in(one, qualname)
            if found is not None:
                return found
    return None
