"""All rows of a run, checked and admitted slice by slice, each once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Final

from anyio import to_thread
from attrs import frozen

from heygen_async.bulk.intake import prepare
from heygen_async.bulk.manifest import SourceRow
from heygen_async.bulk.outputs import is_written
from heygen_async.bulk.own_files import OwnFiles
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import Admission, Entry, Problem, RowStore
from heygen_async.models import DubRow

_MOST_PROBLEMS: Final = 1000
"""How many problems of rows are kept in memory."""


class BadRows(ValueError):
    """Raised when rows cannot be run, before anything is sent.

    Attributes:
        problems: What is wrong, each with its place; the first thousand.
        count: How many there are.
    """

    def __init__(self, problems: Sequence[Problem], count: int) -> None:
        self.problems = list(problems)
        self.count = count
        shown = [str(problem) for problem in self.problems[:20]]
        more = [f"and {count - len(shown)} more"] if count > len(shown) else []
        super().__init__(
            "\n".join([f"{count} errors in the rows:" if count > 1 else "1 error in the rows:", *shown, *more])
        )


@frozen(slots=False)  # a snapshot reads it faster
class AdmittedRow:
    """A row that is ready to be worked on."""

    row: PreparedRow
    record: Record
    has_file: bool
    """Whether its file was written, and exists."""


@frozen
class RefusedRow:
    """A row with problems."""

    row: DubRow | None
    problems: Sequence[Problem]


@frozen
class RowChecker:
    """Checks and admits rows."""

    journal: RowStore
    plan: Plan
    own_files: OwnFiles

    async def admit(self, rows: Sequence[SourceRow]) -> list[AdmittedRow | RefusedRow]:
        """Check and admit a slice of rows, in their order."""
        made = await prepare(rows, self.journal, self.plan, self.own_files)
        entries = [one.entry for one in made if isinstance(one, PreparedRow)]
        admissions = await self.journal.admit(entries)
        records = [self._renewed(entry, one) for entry, one in zip(entries, admissions, strict=True)]
        files, left = await _written(records), iter(records)
        return [
            _admitted(one, next(left), files) if isinstance(one, PreparedRow) else RefusedRow(one.row, one.problems)
            for one in made
        ]

    def _renewed(self, entry: Entry, admission: Admission) -> Admission:
        """Return the record with another attempt, where the caller requests one."""
        if isinstance(admission, Problem):
            return admission
        if entry.redoes is not None and entry.redoes == admission.lipsync_id:
            redone = admission.redone(entry.inputs)
            return redone if entry.draft is None else redone.with_draft(entry.draft.key, entry.draft.job)
        return admission.forgiving() if self.plan.retry_failed else admission

    async def admit_each(
        self, slices: AsyncGenerator[list[SourceRow], None]
    ) -> AsyncGenerator[Sequence[AdmittedRow | RefusedRow], None]:
        """Iterate over slices of rows, each checked and admitted when it is read."""
        async with aclosing(slices):
            async for rows in slices:
                yield await self.admit(rows)

    async def admit_all(self, slices: AsyncGenerator[list[SourceRow], None]) -> AsyncGenerator[list[AdmittedRow], None]:
        """Iterate over slices of rows that were admitted.

        Raises:
            BadRows: At the end, if any row has a problem.
        """
        problems: list[Problem] = []
        count = 0
        async with aclosing(self.admit_each(slices)) as checked:
            async for rows in checked:
                found = [problem for one in rows if isinstance(one, RefusedRow) for problem in one.problems]
                count += len(found)
                problems += found[: _MOST_PROBLEMS - len(problems)]
                if not count:
                    yield [one for one in rows if isinstance(one, AdmittedRow)]
        if count:
            raise BadRows(problems, count)


def _admitted(row: PreparedRow, admission: Admission, files: set[str | None]) -> AdmittedRow | RefusedRow:
    if isinstance(admission, Problem):
        return RefusedRow(row.row, [admission])
    return AdmittedRow(row, admission, has_file=admission.target in files)


async def _written(admissions: Iterable[Admission]) -> set[str | None]:
    """Return the targets of finished rows that exist."""
    done = [one for one in admissions if isinstance(one, Record) and one.state is State.DONE and one.target]
    return await to_thread.run_sync(_finished, done) if done else set()


def _finished(records: Iterable[Record]) -> set[str | None]:
    return {record.target for record in records if is_written(record)}
