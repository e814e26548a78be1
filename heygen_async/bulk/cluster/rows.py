"""What a cluster stores of a row: its place in the cluster, the row itself, and its record.

Rule 1: a source is stored only if every worker can reach it: an unsigned URL, a file in a shared folder, an asset.
Rule 2: what is stored is read without the checks of what a user gives, which were made when it was enqueued: a row
that later rules refuse must not stop the workers that read it.
Rule 3: the record is stored as a journal does, with what has to survive a step here: the next one runs elsewhere.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import attrs
import orjson
from attrs import evolve, field, frozen

from heygen_async._arguments import without_query
from heygen_async._text import line_without_queries
from heygen_async.bulk.identity import ROLES, FileInfo, is_signed
from heygen_async.bulk.local_files import is_utf_8
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import Entry
from heygen_async.models import JSON, Asset, AssetId, DubRow, Source, restored


class Stage(enum.StrEnum):
    """Where a row is in the cluster."""

    PREPARE = "prepare"
    """Its files are to be uploaded."""
    READY = "ready"
    """It wants a seat, for a create or for the same create again."""
    CREATE = "create"
    """It has a seat, and its create is in the air."""
    SEARCH = "search"
    """Its job is to be searched for."""
    FLIGHT = "flight"
    """Its job runs, and occupies the seat."""
    DOWNLOAD = "download"
    """Its file is to be written."""
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It does not fit the budget."""


class WorkKind(enum.StrEnum):
    """The kinds of work that have slots of their own, so that none waits behind another."""

    UPLOAD = "upload"
    CREATE = "create"
    DOWNLOAD = "download"


KINDS: Final[Mapping[Stage, WorkKind]] = {
    Stage.PREPARE: WorkKind.UPLOAD,
    Stage.SEARCH: WorkKind.UPLOAD,
    Stage.CREATE: WorkKind.CREATE,
    Stage.DOWNLOAD: WorkKind.DOWNLOAD,
}
"""Which stages are work for a worker."""

ENDED: Final = frozenset({Stage.DONE, Stage.FAILED, Stage.SKIPPED})


class StepAnswer(enum.StrEnum):
    """What a step has shown, which the scheduler is to learn from."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    REJECTED = "rejected"
    FAILED = "failed"
    """The create had no usable answer."""
    DROPPED = "dropped"
    """The create was not sent."""
    RECOVERED = "recovered"
    """Another request was answered."""
    UNANSWERED = "unanswered"
    """Another request was not."""


@frozen(order=True)
class Ticket:
    """A row at one version: what the engine delivers. At any other version it means nothing."""

    run: int
    key: str
    version: int


@frozen(kw_only=True)
class StoredRow:
    """A row with all that is stored of it."""

    run: int
    row: PreparedRow
    record: Record
    stage: Stage
    due: float = 0.0
    """When its next step may begin."""
    answer: StepAnswer | None = None
    """What is to be learnt from its last step."""
    retry_after: float | None = None
    epoch: int = 0
    """What the limiter knew when its create was sent."""
    price: float = 0.0
    """What is counted for it: reserved before the end of its job, its cost afterwards."""
    reserved: bool = False
    unanswered: tuple[int, int] = (0, -1)
    """How many of its requests had no usable answer while others had, and how many answers there were."""

    @property
    def ticket(self) -> Ticket:
        """What delivers it at this version."""
        return Ticket(self.run, self.row.key, self.record.version)

    def saved(self) -> StoredRow:
        """Return the row as it is to be saved, at the next version."""
        return evolve(self, record=self.record.next_version())


_KEPT: Final = ("tries", "has_reuploaded", "is_stopped", "is_key_lost", "outdated_assets", "warnings")
"""Fields of a record that a journal does not keep, because there they end with the run."""

_SAVED: Final = tuple(
    one.name
    for one in attrs.fields(Record)
    if one.name != "version" and (one.metadata.get("saved", True) or one.name in _KEPT)
)
_USER_INFO: Final = "the link has a user name or a password in it, which would be stored"
_ROW_FIELDS: Final = tuple(one.name for one in attrs.fields(DubRow))


def record_to_json(record: Record) -> dict[str, JSON]:
    """Return a record as JSON, without its version."""
    found: dict[str, JSON] = {name: getattr(record, name) for name in _SAVED}
    found["earlier"], found["warnings"] = list(record.earlier), [line_without_queries(one) for one in record.warnings]
    found["outdated_assets"] = list(record.outdated_assets)
    found["error"] = None if record.error is None else line_without_queries(record.error)
    return {name: value for name, value in found.items() if value is not None}


def record_from_json(stored: Mapping[str, Any], version: int, *, fresh: bool = False) -> Record:
    """Return the record that was stored at *version*."""
    fields = {name: value for name, value in stored.items() if name in _SAVED}
    fields["state"] = State(fields["state"])
    fields["earlier"], fields["warnings"] = tuple(fields["earlier"]), tuple(fields["warnings"])
    fields["outdated_assets"] = tuple(fields.get("outdated_assets", ()))
    return Record(**fields, version=version, is_fresh=fresh)


def source_problem(source: Source) -> str | None:
    """Return why not every worker could reach *source*; `None` if it can be stored."""
    match source:
        case str() if is_signed(source):
            return (
                f"{without_query(source)} is a signed link, which is a secret and expires: "
                "give a public link, an asset, or a file in the shared folder"
            )
        case str() if has_user_info(source):
            return f"{_USER_INFO}: give a public link, an asset, or a file in the shared folder"
        case Path() if not is_utf_8(os.path.abspath(source)):  # noqa: PTH100 as it is stored
            return f"its path is not valid UTF-8: {source}"
        case str() | Path() | AssetId() | Asset():
            return None
        case _:
            return "only this process has it: give a file in the shared folder, a public link, or an asset"


def has_user_info(url: str) -> bool:
    """Return whether there is a user name or a password in *url*."""
    return "@" in urlsplit(url).netloc


def option_problem(row: DubRow) -> str | None:
    """Return why the options of *row* cannot be stored."""
    if row.callback_url is not None and is_signed(row.callback_url):
        return "callback_url is a signed link, which is a secret: it would be stored"
    if row.callback_url is not None and has_user_info(row.callback_url):
        return _USER_INFO
    return None


def row_to_json(prepared: PreparedRow) -> dict[str, JSON]:
    """Return a row as JSON."""
    fields: dict[str, JSON] = {}
    for name in _ROW_FIELDS:
        value = getattr(prepared.row, name)
        if name in ROLES:
            fields[name] = _source_to_json(value)
        elif value is not None:
            fields[name] = os.fspath(value) if name == "output" else value
    return {
        "fields": fields,
        "place": prepared.place,
        "key": prepared.key,
        "target": None if prepared.target is None else str(prepared.target),
        "captions": prepared.captions,
        "files": {role: [one.digest, one.seconds] for role, one in prepared.files.items()},
        "missing": dict(prepared.missing),
        "seconds": prepared.seconds,
    }


def row_digest(stored: Mapping[str, JSON]) -> str:
    """Return the digest of a row as `row_to_json` returns it, the same wherever it is listed."""
    return hashlib.sha256(orjson.dumps({**stored, "place": None}, option=orjson.OPT_SORT_KEYS)).hexdigest()


def row_from_json(stored: Mapping[str, Any], number: int, inputs: str) -> PreparedRow:
    """Return the row that was stored. Its files have no fingerprint: every machine compares their content."""
    fields = {**stored["fields"]}
    for name in ROLES:
        fields[name] = _source_from_json(fields[name])
    target = stored["target"]
    return PreparedRow(
        row=restored(DubRow, fields),
        target=None if target is None else Path(target),
        captions=stored["captions"],
        files={role: FileInfo("", digest, seconds) for role, (digest, seconds) in stored["files"].items()},
        missing=stored["missing"],
        seconds=stored["seconds"],
        entry=Entry(key=stored["key"], inputs=inputs, number=number, place=stored["place"], target=target),
    )


def _source_to_json(source: Source) -> JSON:
    match source:
        case str():
            return {"url": source}
        case Path():
            return {"path": os.path.abspath(source)}  # noqa: PTH100 it also takes out `..`
        case AssetId(value):
            return {"asset": value}
        case Asset(id=asset_id):
            return {"asset": asset_id}
        case _:
            raise TypeError("a source in memory cannot be stored")


def _source_from_json(stored: Mapping[str, str]) -> Source:
    match stored:
        case {"url": str(url)}:
            return url
        case {"path": str(path)}:
            return Path(path)
        case _:
            return restored(AssetId, {"value": stored["asset"]})


@frozen(kw_only=True)
class RunOptions:
    """The options of a run, as they are stored."""

    output_dir: str | None = None
    max_in_flight: int | None = None
    max_attempts: int = 3
    budget: float | None = None
    rates: Mapping[str, float] = field(factory=dict)
    captions: bool = False
    max_requests_per_second: float | None = None
    manifest: str | None = None
    """The file that its rows were listed in; `None` if they were not in a file."""

    def to_json(self) -> dict[str, JSON]:
        """Return them as JSON."""
        return cast("dict[str, JSON]", {**attrs.asdict(self), "rates": dict(self.rates)})

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RunOptions:
        """Return the stored options."""
        return cls(**stored)


@frozen(kw_only=True)
class Run:
    """A run, as the scheduler and the workers see it."""

    options: RunOptions
    spent: float = 0.0
    """The estimated cost of all its jobs, in dollars."""
    longest: float = 0.0
    """The longest output seen, in seconds."""
