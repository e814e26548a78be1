"""What makes a row the same row again: its key, the digest of what is sent for it, and the name of its file.

Rule 1: nothing here opens a file; what is known of local files comes in as `FileFacts`.
Rule 2: a link that is signed anew each time is the same link: its query does not count.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Final, cast
from urllib.parse import parse_qsl, urlsplit

import attrs
import orjson

from heygen_async.bulk.journal import FileFacts
from heygen_async.models import Asset, AssetId, DubRow, LipsyncOptions, LipsyncRequest, Source

_SOURCES: Final = ("video", "audio")
OPTIONS: Final = tuple(a.name for a in attrs.fields(LipsyncRequest) if a.name not in _SOURCES)
"""What may be said of a row besides its sources, its key and its output."""

_SIGNATURES: Final = frozenset({"x-amz-signature", "x-goog-signature", "signature", "sig"})
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._\-]+")
_LONGEST_NAME: Final = 200
"""Characters of a file name that is made of a key: most file systems take 255 bytes, and `.part` is added."""


def is_signed(source: Source) -> bool:
    """Tell whether *source* is a URL that looks signed, so that it changes with every signing."""
    if not isinstance(source, str):
        return False
    names = (name.lower() for name, _ in parse_qsl(urlsplit(source).query, keep_blank_values=True))
    return not _SIGNATURES.isdisjoint(names)


def options_of(row: DubRow) -> LipsyncOptions:
    """Return the options of *row* that say something."""
    said = {name: value for name in OPTIONS if (value := getattr(row, name)) is not None}
    return cast("LipsyncOptions", said)


def inputs_digest(row: DubRow, files: Mapping[str, FileFacts]) -> str:
    """Return the digest of all that is sent for *row*: a local file counts by its content.

    Args:
        row: The row.
        files: What is known of its local files, by `video` and `audio`.
    """
    sources = {name: _identity(getattr(row, name), files.get(name)) for name in _SOURCES}
    return _digest({**sources, **options_of(row)})


def body_digest(video: str | AssetId, audio: str | AssetId, options: LipsyncOptions) -> str:
    """Return the digest of a create that is ready to be sent."""
    return _digest({"video": _identity(video, None), "audio": _identity(audio, None), **options})


def _digest(value: Mapping[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _identity(source: Source, facts: FileFacts | None) -> Mapping[str, str]:
    if facts is not None:
        return {"sha256": facts.digest}
    match source:
        case AssetId(value):
            return {"asset_id": value}
        case Asset(id=asset_id):
            return {"asset_id": asset_id}
        case str() if is_signed(source):
            return {"signed": source.partition("?")[0]}
        case str():
            return {"url": source}
        case _:
            raise TypeError("a local file counts by its content")


def key_of(row: DubRow, inputs: str) -> str:
    """Return the key of *row*: its own, or one that is made of what is sent for it.

    Raises:
        ValueError: If it has none, and none can be made that will be the same next time.
    """
    if row.key is not None:
        return row.key
    for name in _SOURCES:
        if is_signed(getattr(row, name)):
            raise ValueError(f"{name} is a signed link, which changes with every signing: give the row a key")
    return inputs[:32]


def target_of(row: DubRow, key: str, output_dir: Path | None) -> Path | None:
    """Return the file that *row* is to be written to; `None` if none is wanted.

    Raises:
        ValueError: If it would leave *output_dir*.
    """
    if output_dir is None:
        return None if row.output is None else Path(row.output)
    if row.output is None:
        return output_dir / _default_name(row, key)
    return inside(output_dir, row.output)


def inside(folder: Path, output: str | PathLike[str]) -> Path:
    """Return *output* in *folder*.

    Raises:
        ValueError: If it would leave it.
    """
    relative = Path(output)
    if relative.is_absolute() or relative.drive or ".." in relative.parts:
        raise ValueError(f"output must stay in the output folder: {str(relative)!r}")
    return folder / relative


def claims_of(row: DubRow, target: Path | None) -> tuple[str, ...]:
    """Return what no two rows of a run may share, besides the key."""
    claims = []
    if row.callback_id is not None:
        claims.append(f"callback_id {row.callback_id}")
    # Some file systems take names for the same that differ in case, or in how an accent is written.
    files = written_by(row, target) if target else ()
    claims += [f"output {unicodedata.normalize('NFC', str(path)).casefold()}" for path in files]
    return tuple(claims)


def written_by(row: DubRow, target: Path) -> Sequence[Path]:
    """Return the files that a download of *row* to *target* writes: its captions go beside its video."""
    return [target, target.with_suffix(".srt")] if row.enable_caption else [target]


def _default_name(row: DubRow, key: str) -> str:
    if row.key is None:
        return f"{_stem(row.video)}-{key[:12]}.mp4"
    name = key.replace(":", "_")
    name = f"_{name[1:]}" if name.startswith(".") else name
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 13]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return f"{name}.mp4"


def _stem(source: Source) -> str:
    """Return a few words of a file's name by which a person will know it."""
    match source:
        case str():
            name = PurePosixPath(urlsplit(source).path).stem
        case Path():
            name = source.stem
        case _:
            name = ""
    return _UNSAFE.sub("-", name).strip("-.")[:60] or "video"
