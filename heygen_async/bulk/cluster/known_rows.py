"""The rows of a run that are stored: what an enqueue checks its rows against.

Rule: what a row had before it changed, such as its output, another row of the same enqueue may have.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Final, LiteralString

from attrs import define, field, frozen

from heygen_async.bulk.claims import conflict, rivals
from heygen_async.bulk.cluster.database import Statements, to_jsonb
from heygen_async.bulk.cluster.rows import Stage, record_from_json, row_digest
from heygen_async.bulk.entries import admitted
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.record import Record
from heygen_async.bulk.reviews import Review
from heygen_async.bulk.store import Admission, Entry, Problem

_LONGEST_INDEXED: Final = 2600
"""The most bytes of a path in an ordered index of PostgreSQL."""


@frozen
class KnownRow:
    """A row that is stored."""

    record: Record
    stage: Stage
    content: str
    """The digest of its row: see `row_digest`."""


@frozen
class _Claimed:
    """A row that has what others must not have."""

    run: int
    key: str
    name: str
    """The name of its run."""
    is_held: bool

    def __str__(self) -> str:
        unfinished = ", whose enqueue goes on, or was interrupted (then prune removes it)" if self.is_held else ""
        return f"the row {self.key} of the run {self.name}{unfinished}"


@define(eq=False)
class KnownRows:
    """The store that rows are checked against: the run in the database. See `store.RowStore`."""

    database: Statements
    run: int
    _known: dict[str, KnownRow] = field(factory=dict)
    _claims: dict[str, tuple[str, str]] = field(factory=dict)
    """What rows of this enqueue have claimed: the key of the row, and where it is listed."""
    _undecided: dict[str, tuple[str, Problem]] = field(factory=dict)
    """What stored rows of this run have claimed, and others claim now: the key of the stored row, and the problem."""

    async def records(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """Return the records of the rows that are stored."""
        found = await self.database.fetch(
            "SELECT record, version, stage, prepared FROM rows "
            "WHERE run = %(run)s AND key = ANY(%(keys)s) AND NOT is_held",
            {"run": self.run, "keys": list(keys)},
        )
        known = {key: one for key in keys if (one := self._known.get(key)) is not None}
        for record, version, stage, prepared in found:
            one = KnownRow(record_from_json(record, version), Stage(stage), row_digest(prepared))
            known[one.record.key] = self._known[one.record.key] = one
        return {key: one.record for key, one in known.items()}

    def known(self, key: str) -> KnownRow | None:
        """Return a row that is stored."""
        return self._known.get(key)

    async def admit(self, entries: Sequence[Entry]) -> Sequence[Admission]:
        """Return the record of each row as it is to be, or why it cannot be enqueued."""
        records = await self.records([entry.key for entry in entries])
        taken = await self._taken({rival for entry in entries for claim in entry.claims for rival in rivals(claim)})
        return [self._admit(entry, records.get(entry.key), taken) for entry in entries]

    def _admit(self, entry: Entry, known: Record | None, taken: Mapping[str, _Claimed]) -> Admission:
        claims = (f"key {entry.key}", *entry.claims)
        found = self._conflict(entry, claims, taken) or admitted(entry, known)
        if isinstance(found, str):
            return Problem(entry.place, found)
        self._claims |= dict.fromkeys(claims, (entry.key, entry.place))
        return found

    def _conflict(self, entry: Entry, claims: Sequence[str], taken: Mapping[str, _Claimed]) -> str | None:
        for claim in claims:
            for rival in rivals(claim):
                other = self._claims.get(rival)
                if other is not None and other[1] != entry.place:
                    return conflict(entry, claim, rival, other[1])
                stored = taken.get(rival)
                if stored is None or (stored.run, stored.key) == (self.run, entry.key):
                    continue
                found = conflict(entry, claim, rival, str(stored))
                if stored.run != self.run:
                    return found
                self._undecided[rival] = (stored.key, Problem(entry.place, found))
        return None

    def conflicts(self) -> list[Problem]:
        """Return the conflicts with stored rows of this run that are not among those of this enqueue."""
        return [problem for key, problem in self._undecided.values() if f"key {key}" not in self._claims]

    def passed_on(self) -> list[tuple[str, str, str]]:
        """Return the claims of stored rows that other rows have now: with the key of each, and where it is listed."""
        return [(claim, *self._claims[claim]) for claim in self._undecided if claim in self._claims]

    async def _taken(self, claims: Collection[str]) -> Mapping[str, _Claimed]:
        found = await self.database.fetch(
            "SELECT claim, run, key, name, is_held FROM claims JOIN runs ON runs.id = run "
            "WHERE claim = ANY(%(claims)s)",
            {"claims": list(claims)},
        )
        return {claim: _Claimed(*values) for claim, *values in found}

    async def reviews(self, keys: Sequence[str]) -> Sequence[Review]:  # noqa: ARG002 as the protocol has it
        """Return nothing: decisions are made on journals."""
        return ()

    async def file_info(self, paths: Sequence[str]) -> Mapping[str, FileInfo]:
        """Return what was last read from files."""
        found = await self.database.fetch(
            "SELECT path, fingerprint, digest, seconds FROM files WHERE path = ANY(%(paths)s)", {"paths": list(paths)}
        )
        return {path: FileInfo(*facts) for path, *facts in found}

    async def keep_file_info(self, facts: Mapping[str, FileInfo]) -> None:
        """Save what was read from files; those with a path that no index takes are read again."""
        rows = [
            [path, one.fingerprint, one.digest, one.seconds]
            for path, one in facts.items()
            if len(os.fsencode(path)) <= _LONGEST_INDEXED
        ]
        await self.database.fetch(_KEEP_FILES, {"files": to_jsonb(rows)})


_KEEP_FILES: Final[LiteralString] = """
INSERT INTO files
SELECT one->>0, one->>1, one->>2, (one->>3)::double precision FROM jsonb_array_elements(%(files)s) AS one
ON CONFLICT (path) DO UPDATE SET fingerprint = excluded.fingerprint, digest = excluded.digest,
    seconds = excluded.seconds
"""
