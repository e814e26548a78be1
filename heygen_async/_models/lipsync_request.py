"""What a create takes, and the checks of it.

Each check raises a TypeError or ValueError whose message starts with the name of the field. `None` means "not given".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import BinaryIO, ClassVar, Final, Literal, TypeAlias, TypedDict, cast, get_args

from attrs import field, frozen

from heygen_async._arguments import (
    built_in,
    check_callback_url,
    check_flag,
    check_id,
    check_seconds,
    check_text,
    is_https,
    link_advice,
    shown,
    without_query,
)
from heygen_async._models.answers import Asset
from heygen_async._models.model import Model, hide_arguments

Mode: TypeAlias = Literal["speed", "precision"]
FpsMode: TypeAlias = Literal["vfr", "cfr", "passthrough"]


@hide_arguments
@frozen(slots=False)
class AssetId(Model):
    """The id of a file that was uploaded before, to be used as `video=` or `audio=`.

    Raises:
        TypeError, ValueError: If it cannot be an id.
    """

    value: str

    def __attrs_post_init__(self) -> None:
        check_id("asset_id", self.value)
        vars(self)["value"] = built_in(self.value)


Source: TypeAlias = str | Path | AssetId | Asset | bytes | BinaryIO
"""A video or audio: an https URL (`str`), a local file (`Path`, `bytes` or an open binary file), or an asset."""


class LipsyncOptions(TypedDict, total=False):
    """Optional parameters of a lipsync; `LipsyncRequest` documents each."""

    mode: Mode
    title: str | None
    enable_caption: bool | None
    enable_dynamic_duration: bool | None
    disable_music_track: bool | None
    enable_speech_enhancement: bool | None
    enable_watermark: bool | None
    start_time: float | None
    end_time: float | None
    keep_the_same_format: bool | None
    fps_mode: FpsMode | None
    callback_url: str | None
    callback_id: str | None
    folder_id: str | None


MAX_TITLE: Final = 10_000
"""Longest title, in characters."""
MAX_BATCH: Final = 100
"""Most lipsyncs in one batch."""

FieldCheck: TypeAlias = Callable[[str, object], None]
FieldFault: TypeAlias = tuple[str, TypeError | ValueError]
"""The name of a field, and what is wrong with it."""


def check_source(name: str, value: object) -> None:
    """Check that *value* can be the video or audio called *name*; files are not opened here.

    Raises:
        TypeError, ValueError: If it cannot; the message names the argument.
    """
    if isinstance(value, str):
        if not is_https(value):
            message = f"{name} must be an https URL; for a local file give a Path: {shown(value)}"
            raise ValueError(f"{message}{link_advice(value)}")
    elif isinstance(value, bytes):
        if not value:
            raise ValueError(f"{name} is empty")
    elif isinstance(value, Asset):
        check_id(f"{name}.id", value.id)
    elif not isinstance(value, (AssetId, Path)) and not hasattr(value, "read"):
        raise TypeError(f"{name} must be a URL, a Path, an AssetId or an Asset, not {type(value).__name__}")


def check_title(name: str, value: object) -> None:
    """Check that *value* is a title: one line of text, at most 10,000 characters.

    Raises:
        TypeError, ValueError: If it is not; the message names the argument.
    """
    check_text(name, value)
    if isinstance(value, str) and len(value) > MAX_TITLE:
        raise ValueError(f"{name} must be at most {MAX_TITLE:,} characters, not {len(value):,}")


def _one_of(*words: str | None) -> FieldCheck:
    listed = ", ".join(word for word in words if word)

    def check(name: str, value: object) -> None:
        if not (value is None or isinstance(value, str)) or value not in words:
            raise ValueError(f"{name} must be one of {listed}, not {shown(value)}")

    return check


REQUEST_CHECKS: Final[Mapping[str, FieldCheck]] = {
    "video": check_source,
    "audio": check_source,
    "mode": _one_of(*get_args(Mode)),
    "title": check_title,
    "enable_caption": check_flag,
    "enable_dynamic_duration": check_flag,
    "disable_music_track": check_flag,
    "enable_speech_enhancement": check_flag,
    "enable_watermark": check_flag,
    "start_time": check_seconds,
    "end_time": check_seconds,
    "keep_the_same_format": check_flag,
    "fps_mode": _one_of(*get_args(FpsMode), None),
    "callback_url": check_callback_url,
    "callback_id": check_text,
    "folder_id": check_text,
}


_NEVER_NONE: Final = frozenset({"video", "audio", "mode"})
_SPAN: Final = ("start_time", "end_time")
_AS_SENT: Final = frozenset({str, float, int, bool, NoneType})
"""The types of most values, which stay as they are."""


def faults_of(fields: Mapping[str, object], checks: Mapping[str, FieldCheck]) -> list[FieldFault]:
    """Return what *checks* find wrong with *fields*, in their order; a field without a check is not checked."""
    faults: list[FieldFault] = []
    for name, value in fields.items():
        if (value is not None or name in _NEVER_NONE) and name in checks:
            try:
                checks[name](name, value)
            except (TypeError, ValueError) as error:
                faults.append((name, error))
    if len(faults) > 1:
        faults.sort(key=lambda fault: list(checks).index(fault[0]))
    if fields.get("end_time") is not None and not any(name in _SPAN for name, _ in faults):
        faults += _span_faults(cast("float", fields.get("start_time") or 0), cast("float", fields["end_time"]))
    return faults


def _span_faults(start: float, end: float) -> list[FieldFault]:
    if end > start:
        return []
    return [("end_time", ValueError(f"end_time ({end}) must be after start_time ({start})"))]


def _refuse(faults: Sequence[FieldFault]) -> None:
    """Raise one error that lists all *faults*: a TypeError if all of them are."""
    if faults:
        errors = [error for _, error in faults]
        kind = TypeError if all(isinstance(error, TypeError) for error in errors) else ValueError
        raise kind("; ".join(map(str, errors)))


def shown_source(source: Source) -> str:
    """Return the repr of a video or audio, without what may be secret or long."""
    if isinstance(source, str):
        return without_query(source)
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else repr(source)


@hide_arguments
@frozen(kw_only=True, slots=False)
class LipsyncRequest(Model):
    """One lipsync to create, for `lipsyncs.create_batch`: the keywords of `lipsyncs.create`. `None` is not sent.

    `video` and `audio` are each an https URL, a local file (a `Path`, `bytes` or an open binary file), or an asset.

    Raises:
        TypeError, ValueError: If arguments are wrong; the message names each of them.
    """

    video: Source = field(repr=shown_source)
    """The source video."""
    audio: Source = field(repr=shown_source)
    """The new audio."""
    mode: Mode = "speed"
    """`speed`: fast, audio only. `precision`: higher fidelity, at about twice the price."""
    title: str | None = None
    """Shown in the dashboard; one line, at most 10,000 characters."""
    enable_caption: bool | None = None
    """Write captions too, where the result is downloaded. The API makes them in any case."""
    enable_dynamic_duration: bool | None = None
    """Let the output's length follow the new audio; the server's default is true."""
    disable_music_track: bool | None = None
    """Strip background music from the source video."""
    enable_speech_enhancement: bool | None = None
    """Make the speech of the output clearer."""
    enable_watermark: bool | None = None
    """Put a watermark on the output."""
    start_time: float | None = None
    """Where a partial lipsync starts, in seconds."""
    end_time: float | None = None
    """Where a partial lipsync ends, in seconds; after `start_time`."""
    keep_the_same_format: bool | None = None
    """Keep the source's resolution and bitrate."""
    fps_mode: FpsMode | None = None
    """`vfr`, `cfr` or `passthrough`."""
    callback_url: str | None = field(default=None, repr=without_query)
    """Where HeyGen POSTs when the job has ended."""
    callback_id: str | None = None
    """An id of your own, returned in webhooks, by get and by list."""
    folder_id: str | None = None
    """The id of the folder for the lipsync."""

    _checks: ClassVar[Mapping[str, FieldCheck]] = REQUEST_CHECKS

    def __attrs_post_init__(self) -> None:
        fields = vars(self)
        _refuse(faults_of(fields, self._checks))
        fields.update({name: built_in(value) for name, value in fields.items() if type(value) not in _AS_SENT})
