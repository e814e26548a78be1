"""The database of a cluster in memory: what its statements do, one after another, as PostgreSQL does it.

It takes the statements of `heygen_async.bulk.cluster` as they are, and knows each by its text, so that all Python code
of a cluster is real down to the statement. Values pass through JSON, as on a connection. `tests/test_cluster_store.py`
tests the same statements on PostgreSQL.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from attrs import define, field
from psycopg.types.json import Jsonb

from heygen_async.bulk.cluster import accounts, postgres, scheduler_store
from heygen_async.bulk.cluster.postgres import written_row
from heygen_async.bulk.cluster.rows import RunOptions, StoredRow, row_to_json

Values = Mapping[str, Any]
Result = list[tuple[Any, ...]]

_WORK = ("prepare", "create", "search", "download")
_WRITTEN = (
    *("version", "stage", "resend", "due", "deferred", "fresh", "answer", "retry_after", "epoch", "price"),
    *("reserved", "unanswered", "lipsync_id", "asked_at", "record"),
)
_LEARNT = ("due", "answer", "unanswered")
_SAVED = ("version", "resend", "lipsync_id", "asked_at", "record")


@define(kw_only=True, eq=False)
class _Row:
    key: str
    number: int
    prepared: dict[str, Any]
    version: int
    stage: str
    record: dict[str, Any]
    run: int = 1
    token: str | None = None
    resend: bool = False
    due: float = 0.0
    deferred: float | None = None
    holder: str | None = None
    fresh: bool = False
    answer: str | None = None
    retry_after: float | None = None
    epoch: int = 0
    price: float = 0.0
    reserved: bool = False
    lipsync_id: str | None = None
    asked_at: float | None = None
    unanswered: list[int] = field(factory=lambda: [0, -1])

    @property
    def ticket(self) -> tuple[int, str, int]:
        return self.run, self.key, self.version

    @property
    def columns(self) -> tuple[Any, ...]:
        """The columns that `COLUMNS` names."""
        return (
            *(self.run, self.prepared, dict(self.record), self.version, self.number, self.stage, self.due, self.answer),
            *(self.retry_after, self.epoch, self.price, self.reserved, list(self.unanswered), self.fresh),
        )

    @property
    def answered(self) -> tuple[Any, ...]:
        return self.stage, self.answer, self.retry_after, self.epoch, self.due

    def take(self, given: Values, names: Iterable[str]) -> None:
        for name in names:
            setattr(self, name, given[name])


class Tables:
    """All tables, with one account and one run.

    Args:
        now: The time by the database.
        options: The options of the run.
    """

    def __init__(self, now: Callable[[], float], options: RunOptions) -> None:
        self.now = now
        self.options = orjson.loads(orjson.dumps(options.to_json()))
        self.rows: dict[str, _Row] = {}
        self.taken_back: set[str] = set()
        """The keys of rows whose worker seemed to be gone."""
        self.longest = 0.0
        self.epoch = 0
        self.holder: str | None = None
        self.until = 0.0
        self.learnt: dict[str, Any] = {}
        self.halted: str | None = None
        self.facts: dict[str, str] = {}
        self.assets: dict[str, str] = {}
        self.jobs_listed: dict[str, str] = {}
        self.beats: dict[str, float] = {}
        self.rests: dict[str, float] = {}
        self.connected: set[str] = set()
        """The workers that have a connection."""
        self.on_notify: Callable[[], None] = lambda: None
        """Called when rows have changed."""
        self._known = self._statements()

    def enqueue(self, stored: Iterable[StoredRow]) -> None:
        """Store rows, as an enqueue does it."""
        for one in stored:
            given = _json(written_row(one, deferred=None))
            row = _Row(
                key=one.row.key,
                number=one.row.number,
                prepared=orjson.loads(orjson.dumps(row_to_json(one.row))),
                version=one.record.version,
                stage=one.stage,
                record=given["record"],
            )
            row.take(given, _WRITTEN)
            self.rows[row.key] = row

    def fetch(self, statement: str, values: Values | None) -> Result:
        """Carry out a statement."""
        given = {name: _json(one.obj) if isinstance(one, Jsonb) else one for name, one in (values or {}).items()}
        exact = self._known.get(statement)
        if exact is not None:
            return exact(given)
        for start, known in self._known.items():
            if statement.startswith(start):
                return known(given)
        raise AssertionError(f"a statement that is not known: {statement}")

    def _statements(self) -> dict[str, Callable[[Values], Result]]:
        return {
            accounts._TAKE_LEASE: self._take_lease,
            accounts._CLAIM: self._claim,
            "UPDATE workers SET rests_until": self._rest,
            "SELECT count(*) FROM workers": self._others,
            "UPDATE rows SET holder = NULL, fresh = fresh": self._release,
            "UPDATE runs SET longest": self._learn_length,
            "UPDATE accounts SET halted": self._halt,
            "DELETE FROM workers": self._leave,
            postgres.WRITE: self._write,
            postgres._SAVE: self._save,
            "SELECT rows.record, rows.version": self._in_doubt,
            "SELECT asset_id": lambda of: [(self.assets[of["digest"]],)] if of["digest"] in self.assets else [],
            "INSERT INTO assets": lambda of: self._nothing(self.assets.update({of["digest"]: of["asset"]})),
            "DELETE FROM assets": self._forget_assets,
            postgres._KNOWN_JOBS: lambda of: [(job,) for job in sorted(self._jobs() & set(of["jobs"]))],
            "SELECT value FROM facts": lambda of: [(self.facts[of["name"]],)] if of["name"] in self.facts else [],
            "INSERT INTO facts VALUES": lambda of: self._nothing(self.facts.update({of["name"]: of["value"]})),
            "INSERT INTO listed": lambda of: self._nothing(
                self.jobs_listed.update(zip(of["jobs"], of["callbacks"], strict=True))
            ),
            "SELECT lipsync_id, callback_id FROM listed": lambda of: [
                (job, callback) for job, callback in self.jobs_listed.items() if callback in of["ids"]
            ],
            postgres._RECONCILED: self._reconciled,
            "UPDATE accounts SET until = unix_time()": self._renew,
            "UPDATE accounts SET until = 0": self._resign,
            scheduler_store._RUNS: lambda _: [(1, self.options, self._spent(), self.longest)],
            scheduler_store._SNAPSHOT: self._snapshot,
            scheduler_store._SAVE_LEARNT: self._save_learnt,
            scheduler_store._READY: self._ready,
            scheduler_store._TO_PREPARE: self._to_prepare,
            scheduler_store._MONEY: self._money,
            scheduler_store._MARK_DEFERRED: self._mark_deferred,
            scheduler_store._TAKE_BACK: self._take_back,
            scheduler_store._AT_WORK: lambda _: [
                (*row.ticket, row.holder, row.deferred)
                for row in self.rows.values()
                if row.stage in _WORK and (row.holder is not None or row.deferred is not None)
            ],
            scheduler_store._DEAD: self._dead,
            "SELECT run, key, version, lipsync_id": lambda _: [
                (*row.ticket, row.lipsync_id, row.asked_at or 0.0) for row in self._in("flight")
            ],
            scheduler_store._LOAD: self._load,
            "SELECT 1 FROM listed": lambda _: [(1,)] if self.jobs_listed else [],
            "SELECT system_identifier": lambda _: [(1, 1)],
        }

    @staticmethod
    def _nothing(_: object) -> Result:
        return []

    def _in(self, *stages: str) -> list[_Row]:
        return [row for row in self.rows.values() if row.stage in stages]

    def _spent(self) -> float:
        return sum(row.price for row in self.rows.values())

    def _jobs(self) -> set[str]:
        return {job for row in self.rows.values() for job in (row.lipsync_id, *row.record.get("earlier", ())) if job}

    # The account and its workers

    def _take_lease(self, of: Values) -> Result:
        is_free = self.until < self.now() or self.holder in {None, of["worker"]} or self.holder not in self.connected
        if not is_free:
            return []
        self.epoch, self.holder, self.until = self.epoch + 1, of["worker"], self.now() + of["seconds"]
        return [(self.epoch, dict(self.learnt), self.now())]

    def _renew(self, of: Values) -> Result:
        if of["epoch"] != self.epoch:
            return []
        self.until = self.now() + of["seconds"]
        return [(self.now(),)]

    def _resign(self, of: Values) -> Result:
        if of["epoch"] == self.epoch:
            self.until, self.holder = 0.0, None
        return []

    def _rest(self, of: Values) -> Result:
        self.rests[of["worker"]] = self.now() + of["seconds"]
        return []

    def _others(self, of: Values) -> Result:
        alive = [
            name
            for name, beat in self.beats.items()
            if name != of["worker"] and beat > self.now() - of["seconds"] and self.rests.get(name, 0.0) < self.now()
        ]
        return [(len(alive),)]

    def _leave(self, of: Values) -> Result:
        self.beats.pop(of["worker"], None)
        return []

    def _dead(self, of: Values) -> Result:
        holders = {row.holder for row in self.rows.values() if row.holder is not None}
        if of["epoch"] == self.epoch:
            holders.discard(self.holder)
        return [(name,) for name in sorted(holders) if self._is_dead(name, of["silent"], of["gone"])]

    def _is_dead(self, name: str, silent: float, gone: float) -> bool:
        beat, now = self.beats.get(name), self.now()
        return beat is None or beat < now - silent or (name not in self.connected and beat < now - gone)

    def _halt(self, of: Values) -> Result:
        self.halted = of["reason"]
        return []

    def _learn_length(self, of: Values) -> Result:
        self.longest = max(self.longest, of["seconds"])
        return []

    # Steps

    def _claim(self, of: Values) -> Result:
        row = self.rows[of["key"]]
        is_ours = row.holder is None or (row.holder, row.token) == (of["worker"], of["token"])
        if row.version != of["version"] or not is_ours:
            return []
        row.holder, row.token = of["worker"], of["token"]
        return [(*row.columns, self.options, self.now())]

    def _release(self, of: Values) -> Result:
        row = self.rows[of["key"]]
        if row.holder != of["worker"]:
            return []
        row.holder, row.fresh, row.deferred = None, row.fresh and not of["begun"], self.now()
        return [row.ticket]

    def _write(self, of: Values) -> Result:
        written = []
        if of["fence"] is None or of["fence"] == self.epoch:
            for given in of["rows"]:
                row = self.rows[given["key"]]
                if _may_write(row, given, of["token"]):
                    is_repeated = row.version == given["version"]
                    row.take(given, (name for name in _WRITTEN if not (is_repeated and name in _LEARNT)))
                    row.token, row.holder = of["token"], None
                    written.append(row.ticket)
        if written and of["notifies"]:
            self.on_notify()
        return written

    def _save(self, of: Values) -> Result:
        found = [(self.rows[given["key"]], given) for given in of["records"]]
        if not all(_may_write(row, given, of["token"]) for row, given in found):
            return []
        for row, given in found:
            row.take(given, _SAVED)
            row.token = of["token"]
        return [(row.key,) for row, _ in found]

    def _in_doubt(self, _: Values) -> Result:
        return [(dict(row.record), row.version) for row in self.rows.values() if row.resend]

    def _forget_assets(self, of: Values) -> Result:
        self.assets = {digest: one for digest, one in self.assets.items() if one not in of["assets"]}
        return []

    def _reconciled(self, of: Values) -> Result:
        self.facts.pop("unclean", None)
        if of["anchor"] is not None:
            self.facts["anchor"] = of["anchor"]
        return []

    # The scheduler

    def _snapshot(self, of: Values) -> Result:
        now = self.now()
        answered = [
            [*row.ticket, *row.answered, *row.unanswered, row.lipsync_id, row.asked_at]
            for row in self.rows.values()
            if row.answer is not None
        ]
        busy = [[1, stage, count] for stage in ("create", "flight") if (count := len(self._in(stage)))]
        due = [
            list(row.ticket)
            for row in self._in("create", "search", "download")
            if row.deferred is None and row.holder is None and row.answer is None and row.due <= now
        ]
        preparing = sum(row.deferred is not None or row.holder is not None for row in self._in("prepare"))
        ahead = min(preparing, of["limit"]) + min(len(self._in("ready")), of["limit"])
        return [(self.halted, answered, busy, due, [[1, ahead]] if ahead else [])]

    def _save_learnt(self, of: Values) -> Result:
        if of["epoch"] != self.epoch:
            return []
        self.learnt = of["learnt"]
        for given in of["rows"]:
            row = self.rows[given["key"]]
            row.answer, row.unanswered = None, given["unanswered"]
            if row.version == given["version"]:
                row.due = given["due"]
        return [(1,)]

    def _ready(self, of: Values) -> Result:
        rows = [row for row in self._in("ready") if row.answer is None and row.due <= self.now()]
        rows.sort(key=lambda row: (not row.resend, row.number))
        return [row.columns for row in rows[: of["limit"]]]

    def _to_prepare(self, of: Values) -> Result:
        rows = [
            row
            for row in self._in("prepare")
            if row.deferred is None and row.holder is None and row.answer is None and row.due <= self.now()
        ]
        rows.sort(key=lambda row: row.number)
        return [row.columns for one in of["rooms"] for row in rows[: one["room"]]]

    def _money(self, _: Values) -> Result:
        return [(1, self._spent(), self.longest, [row.price for row in self.rows.values() if row.reserved])]

    def _mark_deferred(self, of: Values) -> Result:
        rows = [row for row in self._given(of) if row.holder is None]
        for row in rows:
            row.deferred = self.now()
        return [(*row.ticket, row.stage) for row in rows]

    def _take_back(self, of: Values) -> Result:
        rows = [row for row in self._given(of) if row.holder is not None]
        for row in rows:
            row.version, row.holder, row.fresh, row.deferred = row.version + 1, None, False, self.now()
            self.taken_back.add(row.key)
        return [(*row.ticket, row.stage) for row in rows]

    def _given(self, of: Values) -> list[_Row]:
        """Return the rows of tickets, under the lease."""
        if of["epoch"] != self.epoch:
            return []
        return [row for one in of["rows"] if (row := self.rows[one["key"]]).version == one["version"]]

    def _load(self, of: Values) -> Result:
        rows = [row for one in of["rows"] if (row := self.rows[one["key"]]).version == one["version"]]
        return [row.columns for row in rows if row.answer is None or row.stage == "flight"]


def _may_write(row: _Row, given: Values, token: str) -> bool:
    return row.version == given["version"] - 1 or (row.version == given["version"] and row.token == token)


def _json(value: object) -> Any:
    return orjson.loads(orjson.dumps(value))
