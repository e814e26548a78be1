"""The rows of a bulk run, and their outcomes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import ClassVar, Final, Literal, TypeAlias

from attrs import field, frozen

from heygen_async._arguments import check_flag, shown
from heygen_async._models.answers import Asset, Lipsync
from heygen_async._models.lipsync_request import (
    REQUEST_CHECKS,
    AssetId,
    FieldCheck,
    LipsyncRequest,
    Source,
    check_source,
    faults_of,
    shown_source,
)
from heygen_async._models.model import Model, hide_arguments

MAX_ROW_KEY: Final = 250
"""The most characters of the key of a row."""
_ROW_KEY: Final = re.compile(rf"[A-Za-z0-9_\-:.]{{1,{MAX_ROW_KEY}}}")

FilePath: TypeAlias = "str | PathLike[str]"

RowState: TypeAlias = Literal["completed", "unchanged", "failed", "skipped"]
"""How a row of a run can end."""


def _check_lasting_source(name: str, value: object) -> None:
    check_source(name, value)
    if not isinstance(value, (str, bytes, Path, AssetId, Asset)):
        raise TypeError(f"{name} must last for a second attempt: give a Path instead of an open file")


def _check_row_key(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not _ROW_KEY.fullmatch(value):
        raise ValueError(f"{name} must be 1 to {MAX_ROW_KEY} of A-Z a-z 0-9 _ - : . and not {shown(value)}")


def _check_output(name: str, value: object) -> None:
    if value is None:
        return
    written = os.fspath(value) if isinstance(value, PathLike) else value
    if not isinstance(written, str):
        raise TypeError(f"{name} must be a path, not {type(written).__name__}")
    if not Path(written).name:
        raise ValueError(f"{name} must be the name of a file, not {shown(written)}")


_ROW_CHECKS: Final[Mapping[str, FieldCheck]] = {
    **REQUEST_CHECKS,
    "video": _check_lasting_source,
    "audio": _check_lasting_source,
    "key": _check_row_key,
    "output": _check_output,
    "captions": check_flag,
}
_REQUIRED: Final = ("video", "audio")


@hide_arguments
@frozen(slots=False)
class DubRow(LipsyncRequest):
    """One lipsync of a bulk run: the keywords of `lipsyncs.create`, a key, and the file to write.

    A row may be repeated after a crash, so its sources must last: an open file is refused.

    Raises:
        TypeError, ValueError: If arguments are wrong; the message names each of them, as does `row_faults`.
    """

    video: Source = field(repr=shown_source)
    """The source video: an https URL, a `Path`, bytes, or an asset."""
    audio: Source = field(repr=shown_source)
    """The new audio: an https URL, a `Path`, bytes, or an asset."""
    key: str | None = field(default=None, kw_only=True)
    """Your own name for the row, unique in its journal: 1 to 250 of `A-Z a-z 0-9 _ - : .`. Without one, a key is made
    from everything that is sent, so that two equal rows are one job."""
    output: FilePath | None = field(default=None, kw_only=True)
    """The file to write, relative to the output folder of the run if that has one."""
    captions: bool | None = field(default=None, kw_only=True)
    """Whether captions are written beside the video, as `.srt`; `None` leaves it to the run."""

    _checks: ClassVar[Mapping[str, FieldCheck]] = _ROW_CHECKS


def row_faults(fields: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return every fault that `DubRow(**fields)` has, as (field, message), in the order of the fields.

    A field that is missing or unknown is a fault too. Nothing is raised, and no file is opened.

    Args:
        fields: Keyword arguments of `DubRow`.

    Returns:
        The faults; empty if the row is valid.
    """
    missing = [(name, f"{name} is missing") for name in _REQUIRED if name not in fields]
    unknown = [(name, f"there is no field {shown(name)}") for name in fields if name not in _ROW_CHECKS]
    return [*missing, *unknown, *((name, str(error)) for name, error in faults_of(fields, _ROW_CHECKS))]


@frozen(kw_only=True, slots=False)
class DubOutcome(Model):
    """The outcome of one row of a bulk run."""

    row: DubRow
    key: str
    """The row's key: its own, or the one that was made for it."""
    state: RowState
    """`completed`: finished in this run, its file written if there is one to write. `unchanged`: finished by an earlier
    run. `failed`: `.error` says why. `skipped`: left out of this run; `.error` says why."""
    lipsync: Lipsync | None = None
    """The job as this run last saw it."""
    path: Path | None = None
    """The file, if there is one."""
    error: Exception | None = None
    """Why it failed or was skipped."""
    attempts: int = 0
    """How many jobs were created for it, in this run and before."""
    warnings: tuple[str, ...] = ()
    """Problems beside the video, such as captions that could not be downloaded."""
