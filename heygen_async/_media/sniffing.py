"""What a file is, told from its first bytes and its name. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

SNIFFED: Final = 8192
"""How many first bytes are looked at."""

Role: TypeAlias = Literal["video", "audio"]

EXTENSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "video/mp4": (".mp4", ".m4v"),
    "video/webm": (".webm",),
    "audio/mpeg": (".mp3",),
    "audio/wav": (".wav",),
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "application/pdf": (".pdf",),
    "application/x-subrip": (".srt",),
}
"""What HeyGen takes, and the extensions that each may have; the first is given to a file without one."""

_ROLES: Final[Mapping[Role, tuple[str, ...]]] = {
    "video": ("video/mp4", "video/webm"),
    "audio": ("audio/wav", "audio/mpeg"),
}
_WORDS: Final = {"video": "MP4 or WebM", "audio": "WAV or MP3"}

MAX_BYTES: Final[Mapping[Role, int]] = {"video": 100_000_000, "audio": 50_000_000}
"""The largest file of each role. HeyGen says 100 MB and 50 MB; this reading holds whatever it counts as one MB."""

_ONE_NAME: Final = {"audio/x-wav": "audio/wav", "video/x-m4v": "video/mp4"}

# Brands of MP4 that filetype passes over where a file names none of isom, mp41 and mp42.
_MP4_BRANDS: Final = (b"iso", b"avc1", b"dash", b"mp4", b"MSNV", b"M4V", b"XAVC")
_MP3_STARTS: Final = (b"\xff\xfa", b"\xff\xe3", b"\xff\xe2")  # with checksums, and MPEG 2.5


def sniff(head: bytes, name: str, *, role: Role | None = None) -> tuple[str, str]:
    """Return the MIME type of a file, and the name that it is uploaded under.

    Args:
        head: Its first `SNIFFED` bytes.
        name: Its name; an extension that says nothing is not taken for one.
        role: What it is to be used as.

    Raises:
        ValueError: If it is empty, of no type that HeyGen takes, not what its extension says, or not fit for its
            role. The message says which file, and what was found.
    """
    subject = f"{role}: {name}" if role else name
    if not head:
        raise ValueError(f"{subject} is empty")
    suffix = PurePath(name).suffix.lower()
    found = "application/x-subrip" if suffix == ".srt" else _guess(head)
    if found == "application/x-subrip":
        _check_srt(head, subject)
    if found is None or found not in EXTENSIONS:
        raise ValueError(f"{subject} is {_told(found, head)}; HeyGen takes MP4, WebM, MP3, WAV, PNG, JPEG, PDF and SRT")
    if role is not None and found not in _ROLES[role]:
        raise ValueError(f"{subject} is {found}; the {role} must be {_WORDS[role]}")
    return found, _matching_name(name, suffix, found, subject)


def check_size(name: str, size: int, role: Role | None) -> None:
    """Check the *size* in bytes of a file that is to be used as *role*.

    Raises:
        ValueError: If it is larger than HeyGen takes.
    """
    if role is not None and size > MAX_BYTES[role]:
        raise ValueError(
            f"{role}: {name} has {size:,} bytes; HeyGen takes {_WORDS[role]} up to {MAX_BYTES[role] // 10**6} MB"
        )


def _guess(head: bytes) -> str | None:
    import filetype  # type: ignore[import-untyped]  # noqa: PLC0415 only who uploads pays for it

    guessed: str | None = filetype.guess_mime(head)
    if guessed is not None:
        return _ONE_NAME.get(guessed, guessed)
    if head[4:8] == b"ftyp" and head[8:12].startswith(_MP4_BRANDS):
        return "video/mp4"
    return "audio/mpeg" if head.startswith(_MP3_STARTS) else None


def _told(found: str | None, head: bytes) -> str:
    if found is not None:
        return found
    shown = head[:16].decode("ascii", "replace").replace("\ufffd", "?")
    return f"of no known type (it starts with {shown!r})"


def _check_srt(head: bytes, subject: str) -> None:
    try:
        # Incremental: the last character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        raise ValueError(f"{subject} is not UTF-8 text, as SRT must be") from None
    if "-->" not in text:
        raise ValueError(f"{subject} has no SRT cue: there is no --> in it")


def _matching_name(name: str, suffix: str, found: str, subject: str) -> str:
    allowed = EXTENSIONS[found]
    if suffix in allowed:
        return name
    if _is_telling(suffix):
        raise ValueError(f"{subject} is {found}, which its extension {suffix} belies; it should be {allowed[0]}")
    return f"{name}{allowed[0]}"


def _is_telling(suffix: str) -> bool:
    """Tell whether an extension names a format, as `.mov` does and the one of `Episode 1.final` does not."""
    import filetype  # noqa: PLC0415 only who uploads pays for it

    return suffix in {".jpeg", ".srt"} or filetype.get_type(ext=suffix[1:]) is not None
