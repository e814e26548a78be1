"""A store in memory that several executors share: every save compares the version of the record."""

from collections.abc import Sequence

from attrs import define, evolve, field

from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import Admission, Entry, LostRow


@define
class MemoryStore:
    """See `heygen_async.bulk.store.Store`."""

    records: dict[str, Record] = field(factory=dict)
    assets: dict[str, str] = field(factory=dict)
    facts: dict[str, str] = field(factory=dict)
    jobs_listed: dict[str, str] = field(factory=dict)

    async def admit(self, entries: Sequence[Entry]) -> Sequence[Admission]:
        return [self._admitted(entry) for entry in entries]

    def _admitted(self, entry: Entry) -> Record:
        new = Record(key=entry.key, inputs=entry.inputs, number=entry.number, place=entry.place, target=entry.target)
        # What is of one run only does not come back.
        kept = self.records.setdefault(entry.key, new)
        return evolve(new, **{name: getattr(kept, name) for name in _saved_names()})

    async def save(self, *records: Record) -> None:
        for record in records:
            if self.records[record.key].version != record.version - 1:
                raise LostRow(f"{record.key} was saved by another executor")
        self.records |= {record.key: record for record in records}

    async def in_doubt(self) -> Sequence[Record]:
        return [
            record
            for record in self.records.values()
            if record.state is State.SUBMITTING or (record.state is State.SUBMITTED and record.lipsync_id is None)
        ]

    async def rows_of_batch(self, batch: str) -> Sequence[Record]:
        return [record for record in self.records.values() if record.batch == batch]

    async def asset(self, digest: str) -> str | None:
        return self.assets.get(digest)

    async def keep_asset(self, digest: str, asset_id: str) -> None:
        self.assets[digest] = asset_id

    async def forget_assets(self, asset_ids: Sequence[str]) -> None:
        self.assets = {digest: one for digest, one in self.assets.items() if one not in asset_ids}

    async def known_jobs(self, lipsync_ids: Sequence[str]) -> set[str]:
        known = {job for record in self.records.values() for job in (*record.earlier, record.lipsync_id) if job}
        return known & set(lipsync_ids)

    async def fact(self, name: str) -> str | None:
        return self.facts.get(name)

    async def keep_fact(self, name: str, value: str) -> None:
        self.facts[name] = value

    async def keep_listed(self, jobs: Sequence[tuple[str, str]]) -> None:
        self.jobs_listed |= dict(jobs)

    async def has_listed(self) -> bool:
        return bool(self.jobs_listed)

    async def listed(self, callback_ids: Sequence[str]) -> Sequence[tuple[str, str]]:
        found = {job: callback_id for job, callback_id in self.jobs_listed.items() if callback_id in callback_ids}
        known = await self.known_jobs(list(found))
        return [(job, callback_id) for job, callback_id in found.items() if job not in known]

    async def reconciled(self, anchor: str | None) -> None:
        self.facts.pop("unclean", None)
        if anchor is not None:
            self.facts["anchor"] = anchor


def _saved_names() -> list[str]:
    return [one.name for one in Record.__attrs_attrs__ if one.metadata.get("saved", True)]
