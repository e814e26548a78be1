"""The identity of a row: its key, the digest of what is sent for it, and its output.

Rule 1: nothing here opens a file; what is known of local files comes in as `FileInfo`.
Rule 2: a link that is signed again is the same link: `signatures` says which of its parameters do not count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from operator import attrgetter
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import orjson
from attrs import frozen

from heygen_async._media.sniffing import Role
from heygen_async._media.targets import plain, unreserved
from heygen_async.bulk.signatures import looks_signed, without_likely_signature, without_signature
from heygen_async.models import Asset, AssetId, DubRow, LipsyncOptions, LipsyncRequest, Source

ROLES: Final[tuple[Role, ...]] = ("video", "audio")
"""What the sources of a row are, by the names of its fields."""
OPTIONS: Final = tuple(a.name for a in attrs.fields(LipsyncRequest) if a.name not in ROLES)
"""The names of the optional parameters of a create."""
_IN_OPTIONS: Final = attrgetter(*OPTIONS)

_SIGNATURES_0_1: Final = frozenset({"x-amz-signature", "x-goog-signature", "signature", "sig"})
"""By which version 0.1 recognised a signed link; it left out the whole query of one."""
_LONGEST_STEM: Final = 40
"""Characters of a file name that is made of another: of any script, so up to 160 bytes."""
_LONGEST_NAME: Final = 200
"""Characters of a file name that is made of a key: most file systems take 255 bytes, and `.part` is added."""


@frozen
class FileInfo:
    """What was read from a local file."""

    fingerprint: str
    """Its fingerprint at that time."""
    digest: str
    """SHA-256 of its content, in hex."""
    seconds: float | None
    """How long it plays; `None` if that cannot be read."""


def is_signed(source: Source) -> bool:
    """Return whether *source* is a URL that is signed, or looks so: it changes with every signing."""
    return isinstance(source, str) and looks_signed(source)


def options_of(row: DubRow) -> LipsyncOptions:
    """Return the options of *row* that are set."""
    given = {name: value for name, value in zip(OPTIONS, _IN_OPTIONS(row), strict=True) if value is not None}
    return cast("LipsyncOptions", given)


def inputs_digest(row: DubRow, files: Mapping[str, FileInfo]) -> str:
    """Return the digest of everything that is sent for *row*: a file by its content, a link without its signature.

    If a link has parameters that only look like a signature, a dot and a second digest follow, of the row without
    them. So the first part distinguishes requests; `same_inputs` says whether a row has changed.

    Args:
        row: The row.
        files: What is known of its local files, by `video` and `audio`.
    """
    exact, likely = (_sources(row, files, address) for address in (without_signature, without_likely_signature))
    options = _canonical(options_of(row))
    digest = _digest({**exact, **options})
    return digest if exact == likely else f"{digest}.{_digest({**likely, **options})}"


def same_inputs(recorded: str, current: str, current_0_1: str | None = None) -> bool:
    """Return whether what is sent for a row is what was recorded, but perhaps for the signature of a link.

    Args:
        recorded: The `inputs_digest` in the journal, or what version 0.1 recorded.
        current: The `inputs_digest` of the row as it is now.
        current_0_1: Its `inputs_digest_0_1`.
    """
    exact, _, likely = current.partition(".")
    recorded_exact, _, recorded_likely = recorded.partition(".")
    # The same link is the same inputs, also if another version took other parameters for its signature.
    return recorded_exact in {exact, current_0_1} or (recorded_likely or recorded_exact) == (likely or exact)


def inputs_digest_0_1(row: DubRow, files: Mapping[str, FileInfo]) -> str | None:
    """Return the digest that version 0.1 recorded for *row* if it is another than now.

    It is `None`, too, if that version recorded the same digest for links to other files.
    """
    sources: dict[str, Mapping[str, str] | None] = {
        name: _identity_0_1(getattr(row, name), files.get(name)) for name in ROLES
    }
    options = options_of(row)
    has_integers = any(type(value) is int for value in options.values())
    if None in sources.values() or (sources == _sources(row, files, without_signature) and not has_integers):
        return None
    return _digest({**sources, **options})


def _canonical(options: LipsyncOptions) -> Mapping[str, object]:
    """Return *options* with each number in one form: 5 and 5.0 are the same, and 0.0 and -0.0."""
    return {
        name: float(value) + 0.0 if isinstance(value, float) or type(value) is int else value
        for name, value in options.items()
    }


def body_digest(video: str | AssetId, audio: str | AssetId, options: LipsyncOptions) -> str:
    """Return the digest of a create that is ready to be sent.

    If a link is signed, a dot and a second digest follow, of the create with the signature.
    """
    sources, given = {"video": video, "audio": audio}, _canonical(options)
    lasting, exact = (
        {name: _identity(one, None, address) for name, one in sources.items()} for address in (without_signature, str)
    )
    digest = _digest({**lasting, **given})
    return digest if exact == lasting else f"{digest}.{_digest({**exact, **given})}"


def _sources(
    row: DubRow, files: Mapping[str, FileInfo], address: Callable[[str], str]
) -> Mapping[str, Mapping[str, str]]:
    return {name: _identity(getattr(row, name), files.get(name), address) for name in ROLES}


def _digest(value: Mapping[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _identity(source: Source, info: FileInfo | None, address: Callable[[str], str]) -> Mapping[str, str]:
    if info is not None:
        return {"sha256": info.digest}
    match source:
        case AssetId(value):
            return {"asset_id": value}
        case Asset(id=asset_id):
            return {"asset_id": asset_id}
        case str():
            return {"url": address(source)}
        case _:
            raise TypeError("a local file counts by its content")


def _identity_0_1(source: Source, info: FileInfo | None) -> Mapping[str, str] | None:
    if not isinstance(source, str) or not _was_signed_0_1(source):
        return _identity(source, info, str)
    return None if "?" in without_signature(source) else {"signed": source.partition("?")[0]}


def _was_signed_0_1(url: str) -> bool:
    if "?" not in url:
        return False
    names = (name.lower() for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True))
    return not _SIGNATURES_0_1.isdisjoint(names)


def key_of(row: DubRow, inputs: str) -> str:
    """Return the key of *row*: its own, or one that is made of what is sent for it."""
    return inputs[:32] if row.key is None else row.key


def key_problem(row: DubRow) -> str | None:
    """Return why no key can be made for *row* that will be the same the next time; `None` if it has one or can."""
    signed = [] if row.key is not None else [name for name in ROLES if is_signed(getattr(row, name))]
    if not signed:
        return None
    return f"{' and '.join(signed)} looks like a signed link, which changes with every signing: give the row a key"


def wants_captions(row: DubRow, *, captions: bool) -> bool:
    """Return whether the captions of *row* are written.

    Args:
        row: The row; its own `captions` comes first.
        captions: What the run says.
    """
    return row.captions if row.captions is not None else captions or bool(row.enable_caption)


def target_of(row: DubRow, key: str, output_dir: Path | None) -> Path | None:
    """Return the file that *row* is to be written to; `None` if none is wanted.

    Raises:
        ValueError: If it is no file, or would leave *output_dir*.
    """
    if row.output is None:
        return None if output_dir is None else output_dir / _default_name(row, key)
    return _named(row.output) if output_dir is None else inside(output_dir, row.output)


def inside(folder: Path, output: str | PathLike[str]) -> Path:
    """Return *output* in *folder*.

    Raises:
        ValueError: If it is no file, or would leave it.
    """
    relative = _named(output)
    if relative.is_absolute() or relative.drive or ".." in relative.parts:
        raise ValueError(f"output must stay in the output folder: {str(relative)!r}")
    return folder / relative


def _named(output: str | PathLike[str]) -> Path:
    written = os.fspath(output)
    if "\0" in written:
        raise ValueError("output must not contain NUL")
    if os.path.basename(written) in {"", ".", ".."}:  # noqa: PTH119 Path drops the separator at the end
        raise ValueError(f"output must name a file, not a folder: {written!r}")
    if written.startswith("~") and os.path.expanduser(written) != written:  # noqa: PTH111 the same
        raise ValueError(f"output must not start with ~, which is not expanded: {written!r}")
    return Path(output)


def _default_name(row: DubRow, key: str) -> str:
    if row.key is None:
        return unreserved(f"{_stem(row.video)}-{key[:12]}.mp4")
    name = key.replace(":", "_")
    name = f"_{name[1:]}" if name.startswith(".") else name
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 13]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return unreserved(f"{name}.mp4")


def _stem(source: Source) -> str:
    """Return some characters of a file's name by which a person recognises it."""
    match source:
        case str():
            name = PurePosixPath(unquote(urlsplit(source).path)).stem
        case Path():
            name = source.stem
        case _:
            name = ""
    return plain(name).replace(" ", "-").strip("-.")[:_LONGEST_STEM].rstrip("-. ") or "video"
