"""The tables of a journal: their schema, how records and facts are stored in them, and the conversion from version 0.1.

No function here begins a transaction or handles errors of SQLite; `journal_file` does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

import attrs
import orjson

from heygen_async._text import line_without_queries
from heygen_async.bulk import reviews
from heygen_async.bulk.attempt_keys import first_version_key
from heygen_async.bulk.record import Record, State

APPLICATION: Final = 0x48474A31  # "HGJ1", which marks a database as a journal
VERSION: Final = 3
FIRST_VERSION: Final = 1

_FIELDS: Final = tuple(one.name for one in attrs.fields(Record) if one.metadata.get("saved", True))
_IN_FIELDS: Final = attrgetter(*_FIELDS)
_COLUMNS: Final = tuple("asked_at" if name == "sent_at" else name for name in _FIELDS)
"""The columns of the fields: their names, except for one that was called otherwise in version 0.1."""
_EARLIER, _ERROR = _COLUMNS.index("earlier"), _COLUMNS.index("error")

_SCHEMA: Final = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows ({", ".join(_COLUMNS)}, run INTEGER NOT NULL, PRIMARY KEY (key));
CREATE INDEX rows_by_number ON rows (run, number);
CREATE INDEX rows_by_job ON rows (lipsync_id) WHERE lipsync_id IS NOT NULL;
CREATE TABLE claims (claim TEXT PRIMARY KEY, key TEXT NOT NULL, place TEXT NOT NULL, run INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE assets (digest TEXT PRIMARY KEY, asset_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE listed (lipsync_id TEXT PRIMARY KEY, callback_id TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX listed_by_callback ON listed (callback_id);
CREATE TABLE files (path TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, digest TEXT NOT NULL, seconds REAL) WITHOUT ROWID;
{reviews.SCHEMA}
"""

_SAVE: Final = (
    f"INSERT INTO rows ({', '.join(_COLUMNS)}, run) VALUES ({', '.join('?' * len(_COLUMNS))}, ?) "  # noqa: S608 names of ours
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in (*_COLUMNS, 'run'))}"
)
_LOAD: Final = f"SELECT {', '.join(_COLUMNS)} FROM rows"  # noqa: S608 names of ours


def create_tables(db: sqlite3.Connection) -> None:
    """Create the tables of a new journal."""
    for statement in _SCHEMA.split(";"):
        db.execute(statement)


def fact(db: sqlite3.Connection, name: str) -> str | None:
    """Return a fact of the journal as a whole."""
    found = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def keep_fact(db: sqlite3.Connection, name: str, value: str) -> None:
    """Save a fact."""
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def save(db: sqlite3.Connection, records: Iterable[Record], run: int) -> None:
    """Save records of a run."""
    db.executemany(_SAVE, [(*_values(record), run) for record in records])


def select(db: sqlite3.Connection, where: str, *values: str | int) -> list[Record]:
    """Return the records that match an SQL condition."""
    return [_record(row) for row in db.execute(f"{_LOAD} WHERE {where}", values)]


def _values(record: Record) -> list[object]:
    values = list(_IN_FIELDS(record))
    values[_EARLIER] = orjson.dumps(record.earlier).decode()
    values[_ERROR] = None if record.error is None else line_without_queries(record.error)
    return values


def _record(values: Sequence[object]) -> Record:
    fields = dict(zip(_FIELDS, values, strict=True))
    try:
        fields["state"] = State(str(fields["state"]))
        fields["earlier"] = tuple(orjson.loads(str(fields["earlier"])))
    except ValueError as error:  # somebody has edited it
        raise sqlite3.DataError(f"the row {fields['key']} cannot be read: {error}") from error
    for name in ("is_final", "captions_free"):
        fields[name] = bool(fields[name])
    return Record(**fields)  # type: ignore[arg-type]  # written by _values


def convert_first_version(db: sqlite3.Connection) -> None:
    """Convert a journal of version 0.1. It does not say whether its last run ended cleanly, so it counts as unclean."""
    kept = {}
    for table in ("facts", "claims", "assets"):
        kept[table] = db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 names of ours
    cursor = db.execute("SELECT * FROM rows ORDER BY rowid")
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, values, strict=True)) for values in cursor]
    for table in ("rows", "files", *kept):
        db.execute(f"DROP TABLE {table}")
    create_tables(db)
    for table, values in kept.items():
        for one in values:
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(one))})", one)  # noqa: S608
    for row in rows:
        run = int(row.pop("run"))
        save(db, [_first_version_record(row)], run)
    keep_fact(db, "unclean", "0")
    keep_fact(db, "legacy", "1")


def _first_version_record(row: dict[str, object]) -> Record:
    """Return a record of the first version: the first attempt had the row's key, later ones `KEY.NUMBER`."""
    key, attempt = str(row["key"]), int(str(row["attempt"]))
    was_writing = row.pop("is_writing")
    target = row["target"]
    added: dict[str, object] = {
        "attempt_key": None if row["body"] is None else first_version_key(key, attempt),
        "forgiven": 0,
        "writing_to": os.path.abspath(str(target)) if was_writing and target is not None else None,  # noqa: PTH100
        "written": None,
        "captions_free": 0,
        "earlier_estimate": 0.0,
        "version": 0,
    }
    row.update(added)
    return _record([row.get(name) for name in _COLUMNS])
