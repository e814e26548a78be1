"""What only one row of a run may have, besides its key: a callback id, and the files that it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from heygen_async._media.parts import PART, SIDE
from heygen_async._media.targets import captions_path, same_file_key
from heygen_async.bulk.store import Entry
from heygen_async.models import DubRow

_OUTPUT, _FOLDER = "output", "folder"
"""The kinds of claims on a path: a file that a row writes, and a folder that is made for one."""


def claims_of(row: DubRow, target: Path | None, *, captions: bool = False) -> tuple[str, ...]:
    """Return what a row claims in its run, besides the key; `rivals` says which claims exclude each other.

    It resolves links and looks at folders: for a thread.

    Args:
        row: The row.
        target: The file that it is written to.
        captions: Whether its captions are written too.
    """
    own = () if row.callback_id is None else (f"callback_id {row.callback_id}",)
    if target is None:
        return own
    files = [same_file_key(path) for path in written_by(target, captions=captions)]
    folders = (_file_at(folder) for folder in folders_made_for(target, files[0]))
    return (*own, *(f"{_OUTPUT} {file}" for file in files), *(f"{_FOLDER} {folder}" for folder in folders))


def rivals(claim: str) -> tuple[str, ...]:
    """Return the claims that no other row may have if a row has *claim*: rows may share a folder, but not a file."""
    kind, _, path = claim.partition(" ")
    if kind == _OUTPUT:
        return (claim, f"{_FOLDER} {path}")
    return (f"{_OUTPUT} {path}",) if kind == _FOLDER else (claim,)


def conflict(entry: Entry, claim: str, rival: str, other: str) -> str:
    """Return why a row cannot have *claim* while the row *other* has *rival*, which is one of its `rivals`."""
    kind, _, claimed = claim.partition(" ")
    shown = _paths_as_given(entry).get(claim, claimed)
    if claim == rival:
        return f"duplicate of {other}: the same {kind} {shown}"
    if kind == _OUTPUT:
        return f"its output is where {other} makes a folder: {shown}"
    return f"a folder of its output is where {other} writes: {shown}"


def _paths_as_given(entry: Entry) -> Mapping[str, Path]:
    """Return the paths of a row as it names them, by its claims, in which all names of one file are the same."""
    if entry.target is None:
        return {}
    target = Path(entry.target)
    files = (claim for claim in entry.claims if claim.startswith(f"{_OUTPUT} "))
    folders = (claim for claim in entry.claims if claim.startswith(f"{_FOLDER} "))
    given = (*zip(files, written_by(target, captions=True), strict=False), *zip(folders, target.parents, strict=False))
    return dict(given)


def folders_made_for(target: Path, key: str) -> Iterator[str]:
    """Iterate over the folders that have to be made before *target* is written. It looks at folders: for a thread.

    Args:
        target: The file.
        key: Its `same_file_key`; the folders are named in the same way. No link can be in what does not exist.
    """
    for folder in target.parents:
        if os.path.isdir(folder):  # noqa: PTH112 never raises
            return
        key = os.path.dirname(key)  # noqa: PTH120 a hundred thousand times
        yield key


def _file_at(folder: str) -> str:
    """Return the output that a folder would be in the way of: a download writes files with these endings too."""
    return folder.removesuffix(SIDE).removesuffix(PART)


def written_by(target: Path, *, captions: bool) -> Sequence[Path]:
    """Return the files that a download to *target* writes: captions go beside the video."""
    return [target, captions_path(target)] if captions else [target]
