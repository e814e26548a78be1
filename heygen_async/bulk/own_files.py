"""The files of a run itself: its manifest, journal and report, which no row may write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from anyio import to_thread

from heygen_async._media.targets import same_file_key
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.store import Facts, JournalError

OwnFiles: TypeAlias = Mapping[str, str]
"""What the files of the run itself are, by `same_file_key`."""

_BESIDE_A_DATABASE: Final = ("-journal", "-wal")
"""After the name of a database, for the files that SQLite makes, reads and deletes beside it."""


def own_files_of(*, manifest: Path | None, journal: Path | None, report: Path | None = None) -> OwnFiles:
    """Return the files of a run, which no row may write; for a thread.

    Raises:
        ValueError: If two of them are one file.
    """
    named = [("the manifest", manifest), ("the journal", journal), ("the report", report)]
    if journal is not None:
        named += [("a file of the journal", journal.with_name(journal.name + end)) for end in _BESIDE_A_DATABASE]
    files: dict[str, str] = {}
    for name, path in named:
        if path is None:
            continue
        other = files.setdefault(same_file_key(path), name)
        if other != name:
            raise ValueError(f"{name} would overwrite {other}, {path}: name another journal")
    return files


async def check_manifest(journal: Facts, manifest: Manifest) -> None:
    """Check that *journal* was not made for another manifest, and note for which one it is.

    Raises:
        JournalError: If it was made for another one.
        ValueError: If the name of the manifest cannot be stored.
    """
    name = await to_thread.run_sync(manifest.storable_name)
    if name is None:
        return
    found = await journal.fact("manifest")
    if found is None:
        await journal.keep_fact("manifest", name)
    elif found != name:
        raise JournalError(
            f"{journal} was made for the manifest {found}, not for {name}: if these are the same rows, give the "
            "manifest its old name; another journal is for other rows, and pays for these again"
        )
