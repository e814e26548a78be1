"""What a file is, by its first bytes: the formats that HeyGen takes, and those that people often have instead. Pure."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

from attrs import frozen

from heygen_async.models import Asset

SNIFFED: Final = 8192
"""How many first bytes are looked at."""

Role: TypeAlias = Literal["video", "audio"]


@frozen
class Format:
    """A file format."""

    name: str
    """As a sentence names it: "the file is ..."."""
    extensions: tuple[str, ...]
    """Those that it may have; the first is given to a file without one."""
    kind: Literal["video", "audio", "other"] = "other"
    mime_type: str | None = None
    """Of a format that HeyGen takes."""


MP4: Final = Format("MP4 video", (".mp4", ".m4v"), "video", "video/mp4")
WEBM: Final = Format("WebM video", (".webm",), "video", "video/webm")
MP3: Final = Format("MP3 audio", (".mp3",), "audio", "audio/mpeg")
WAV: Final = Format("WAV audio", (".wav",), "audio", "audio/wav")
PNG: Final = Format("a PNG image", (".png",), mime_type="image/png")
JPEG: Final = Format("a JPEG image", (".jpg", ".jpeg"), mime_type="image/jpeg")
PDF: Final = Format("a PDF document", (".pdf",), mime_type="application/pdf")
SRT: Final = Format("SRT captions", (".srt",), mime_type="application/x-subrip")

QUICKTIME: Final = Format("a QuickTime movie", (".mov", ".qt"), "video")
M4A: Final = Format("M4A audio", (".m4a", ".m4b", ".m4p"), "audio")
MATROSKA: Final = Format("a Matroska file", (".mkv", ".mka", ".mk3d"), "video")
AVI: Final = Format("an AVI video", (".avi",), "video")
OGG: Final = Format("an Ogg file", (".ogg", ".oga", ".ogv", ".opus", ".spx"), "audio")
FLAC: Final = Format("FLAC audio", (".flac",), "audio")
AAC: Final = Format("AAC audio", (".aac",), "audio")
AIFF: Final = Format("AIFF audio", (".aiff", ".aif", ".aifc"), "audio")
AMR: Final = Format("AMR audio", (".amr",), "audio")
CAF: Final = Format("CAF audio", (".caf",), "audio")
MPEG_AUDIO: Final = Format("MPEG audio of another layer than MP3", (".mp2", ".mp1", ".mpa"), "audio")
WMV: Final = Format("a Windows Media file", (".wmv", ".wma", ".asf"), "video")
FLV: Final = Format("a Flash video", (".flv", ".f4v"), "video")
THREE_GP: Final = Format("a 3GPP video", (".3gp", ".3g2"), "video")
MPEG_STREAM: Final = Format("an MPEG stream", (".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".vob"), "video")
GIF: Final = Format("a GIF image", (".gif",))
WEBP: Final = Format("a WebP image", (".webp",))
HEIF: Final = Format("a HEIF or AVIF image", (".heic", ".heif", ".avif"))
TIFF: Final = Format("a TIFF image", (".tif", ".tiff"))
ZIP: Final = Format("a ZIP archive", (".zip", ".docx", ".xlsx", ".pptx"))
ARCHIVE: Final = Format("an archive", (".gz", ".7z", ".rar", ".xz", ".bz2", ".zst"))
WEBVTT: Final = Format("WebVTT captions", (".vtt",))
HTML: Final = Format("an HTML page", (".html", ".htm"))
XML: Final = Format("an XML document", (".xml",))
TEXT: Final = Format("text", (".txt", ".json", ".csv", ".md"))

_FORMATS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Format))
_EXTENSIONS: Final = frozenset(extension for format_ in _FORMATS for extension in format_.extensions)

_SIGNATURES: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"OggS", OGG),
    (b"fLaC", FLAC),
    (b"#!AMR", AMR),
    (b"caff", CAF),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", WMV),
    (b"FLV\x01", FLV),
    (b"\x00\x00\x01\xba", MPEG_STREAM),
    (b"\x00\x00\x01\xb3", MPEG_STREAM),
    (b"GIF8", GIF),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"\x1f\x8b", ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", ARCHIVE),
    (b"Rar!\x1a\x07", ARCHIVE),
    (b"\xfd7zXZ\x00", ARCHIVE),
    (b"BZh", ARCHIVE),
    (b"\x28\xb5\x2f\xfd", ARCHIVE),
)

_TAKEN: Final = {
    "video": "MP4 or WebM video",
    "audio": "WAV or MP3 audio",
    "other": "MP4, WebM, MP3, WAV, PNG, JPEG, PDF and SRT",
}

MAX_BYTES: Final[Mapping[Role, int]] = {"video": 100_000_000, "audio": 50_000_000}
"""The largest file of each role. HeyGen says 100 MB and 50 MB; this reading holds whatever it counts as one MB."""


def sniff(head: bytes, name: str, *, role: Role | None = None) -> tuple[str, str]:
    """Return the MIME type of a file, and the name that it is uploaded under.

    Args:
        head: Its first `SNIFFED` bytes.
        name: Its name. An extension is added if it has none that names a format.
        role: What it is to be used as.

    Raises:
        ValueError: If it is empty, of a format that HeyGen does not take (in that role), or has the extension of
            another format. The message says which file, and what was found.
    """
    subject = f"{role}: {name}" if role else name
    if not head:
        raise ValueError(f"{subject} is empty")
    extension = PurePath(name).suffix.lower()
    found = recognize(head)
    if found is MP4 and extension in M4A.extensions:
        found = M4A  # some recorders write audio under the brands of video
    if extension in SRT.extensions:
        _check_srt(head, subject)
        found = SRT
    if found is None:
        start = _start(head)
        raise ValueError(f"{subject} is of an unknown format (it starts with {start}); {_takes(role or 'other')}")
    if found.mime_type is None or (role is not None and found.kind != role):
        raise ValueError(f"{subject} is {found.name}; {_takes(role or found.kind)}")
    return found.mime_type, _name_with_extension(name, extension, found, subject)


def check_size(name: str, size: int, role: Role | None) -> None:
    """Check the *size* in bytes of a file that is to be used as *role*.

    Raises:
        ValueError: If it is larger than HeyGen takes.
    """
    if role is not None and size > MAX_BYTES[role]:
        limit = f"{MAX_BYTES[role] // 10**6} MB"
        raise ValueError(f"{role}: {name} has {size:,} bytes; {_takes(role)} up to {limit}")


_OF_TYPE: Final = {format_.mime_type: format_ for format_ in _FORMATS if format_.mime_type is not None}


def check_asset(asset: Asset, role: Role) -> None:
    """Check that an uploaded file may be used as *role*, as far as its type is known.

    Servers call some audio a video, so only the other way round is certain.

    Raises:
        ValueError: If its type certainly cannot have that role.
    """
    mime_type = (asset.mime_type or "").partition(";")[0].strip().lower()
    found = _OF_TYPE.get(mime_type)
    kind = found.kind if found is not None else mime_type.partition("/")[0]
    if kind in {"image", "other"} or (kind == "audio" and role == "video"):
        raise ValueError(f"{role}: the asset {asset.id} is {found.name if found else mime_type}; {_takes(role)}")


def _takes(what: str) -> str:
    return f"HeyGen takes {_TAKEN[what]}"


def _start(head: bytes) -> str:
    return repr(head[:16].decode("ascii", "replace").replace("\ufffd", "?"))


def _name_with_extension(name: str, extension: str, found: Format, subject: str) -> str:
    if extension in found.extensions:
        return name
    if extension in _EXTENSIONS:
        wanted = found.extensions[0]
        raise ValueError(f"{subject} is {found.name} but has the extension {extension}; rename it to {wanted}")
    return f"{name}{found.extensions[0]}"


def _check_srt(head: bytes, subject: str) -> None:
    text = _text(head)
    if text is None:
        raise ValueError(f"{subject} is not UTF-8 text, as SRT captions must be")
    if "-->" not in text:
        raise ValueError(f"{subject} has no SRT cue: there is no --> in it")


# Recognition


def recognize(head: bytes) -> Format | None:
    """Return the format of a file that starts with *head*; `None` if it is none that is known here."""
    for start, format_ in _SIGNATURES:
        if head.startswith(start):
            return format_
    return _container(head) or _document(head) or _mpeg(head)


def _container(head: bytes) -> Format | None:
    if head[4:8] in _BOXES:
        return _iso(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if _doc_type(head) == b"webm" else MATROSKA
    if head[:4] in {b"RIFF", b"RF64", b"BW64"}:
        return _RIFF.get(head[8:12])
    return AIFF if head.startswith(b"FORM") and head[8:12] in {b"AIFF", b"AIFC"} else None


_RIFF: Final = {b"WAVE": WAV, b"AVI ": AVI, b"WEBP": WEBP}

# MP4 and its relatives: boxes of a length, a kind and a content. The one of kind "ftyp" names brands.

_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_BRANDS: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"qt  ", QUICKTIME),
    (b"M4A ", M4A),
    (b"M4B ", M4A),
    (b"M4P ", M4A),
    (b"F4A ", M4A),
    (b"F4B ", M4A),
    (b"F4V ", FLV),
    (b"hei", HEIF),
    (b"hev", HEIF),
    (b"mif1", HEIF),
    (b"msf1", HEIF),
    (b"avif", HEIF),
    (b"avis", HEIF),
)
_PHONE_BRANDS: Final = (b"3gp", b"3g2")
_MP4_BRANDS: Final = (b"iso", b"mp4", b"avc1")


def _iso(head: bytes) -> Format:
    for kind, content in _boxes(head):
        if kind == b"ftyp":
            return _by_brand(content[:4], [content[place : place + 4] for place in range(8, len(content), 4)])
    return QUICKTIME  # from before there were brands


def _by_brand(major: bytes, others: list[bytes]) -> Format:
    for start, format_ in _BRANDS:
        if major.startswith(start):
            return format_
    if major.startswith(_PHONE_BRANDS) and not any(brand.startswith(_MP4_BRANDS) for brand in others):
        return THREE_GP
    return MP4


def _boxes(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(head):
        length = int.from_bytes(head[place : place + 4], "big")
        yield head[place + 4 : place + 8], head[place + 8 : place + max(length, 8)]
        if length < 8:  # noqa: PLR2004 to the end of the file, or of a 64-bit length
            return
        place += length


def _doc_type(head: bytes) -> bytes:
    """Return the DocType of an EBML header; nothing if it names none, which means Matroska."""
    place = head.find(b"\x42\x82", 4, 128)
    if place < 0 or place + 3 > len(head):
        return b""
    # The length is a number of as many bytes as its first byte has leading zero bits, and one more.
    size = 9 - head[place + 2].bit_length()
    length = int.from_bytes(head[place + 2 : place + 2 + size], "big") & ((1 << 7 * size) - 1)
    return head[place + 2 + size : place + 2 + size + length].rstrip(b"\0")


# Text

_PAGE: Final = re.compile(rb"<(!doctype\s+html|html|head|body|script|title|meta)\b", re.IGNORECASE)
_CUE: Final = re.compile(r"^\d+\r?\n\d\d?:\d\d:\d\d[,.]\d{1,3} *-->", re.MULTILINE)
_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def _document(head: bytes) -> Format | None:
    if b"%PDF-" in head[:1024]:
        return PDF
    text = _text(head)
    if text is None or _CONTROL.search(text):
        return None
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if _PAGE.match(start) or _PAGE.search(start[:1024]):
        return HTML
    if start.startswith(b"<?xml"):
        return XML
    if start.startswith(b"WEBVTT"):
        return WEBVTT
    return SRT if _CUE.search(text) else TEXT


def _text(head: bytes) -> str | None:
    try:
        # Incremental: the last character may be cut in two.
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None


# MPEG audio and streams

_TS_PACKET: Final = 188
_KBITS: Final[Mapping[bool, tuple[int, ...]]] = {  # MPEG 1, layer 3; MPEG 2 and 2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ: Final[Mapping[int, tuple[int, ...]]] = {
    3: (44100, 48000, 32000),
    2: (22050, 24000, 16000),
    0: (11025, 12000, 8000),
}
_LAYER_3: Final = 1
EMPTY_TAG: Final = b"ID3\x04\0\0" + bytes(4)
"""An ID3 tag with nothing in it."""


def _mpeg(head: bytes) -> Format | None:
    if head.startswith(b"ID3"):
        return _after_id3(head)
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47:  # noqa: PLR2004 the sync byte
        return MPEG_STREAM
    if _frame_length(head, 0):
        return MP3
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:  # noqa: PLR2004 the sync bits of ADTS
        return AAC
    # Padding or remains of something cut off may come first: two frames in a row are no coincidence.
    if any(_frame_length(head, place, then=1) for place in range(1, len(head))):
        return MP3
    return MPEG_AUDIO if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0 else None  # noqa: PLR2004


def tag_size(head: bytes) -> int:
    """Return the bytes of the ID3 tag that a file begins with, perhaps more than *head* has; 0 if there is none."""
    if not head.startswith(b"ID3") or len(head) < len(EMPTY_TAG):
        return 0
    size = 0
    for byte in head[6:10]:  # of seven bits each
        size = size << 7 | byte & 0x7F
    return len(EMPTY_TAG) + size


def _after_id3(head: bytes) -> Format:
    after = head[tag_size(head) :]
    if after.startswith(b"fLaC"):
        return FLAC
    return AAC if after[:1] == b"\xff" and len(after) > 1 and after[1] & 0xF6 == 0xF0 else MP3  # noqa: PLR2004


def _frame_length(head: bytes, place: int, *, then: int = 0) -> int:
    """Return the length of the MP3 frame at *place*; 0 if there is none, or not *then* more behind it.

    A frame of which the end is not in *head* is taken for the first of as many as it takes.
    """
    if place + 4 > len(head) or head[place] != 0xFF or head[place + 1] & 0xE0 != 0xE0:  # noqa: PLR2004 sync bits
        return 0
    version, layer = head[place + 1] >> 3 & 3, head[place + 1] >> 1 & 3
    rate, hertz, padding = head[place + 2] >> 4, head[place + 2] >> 2 & 3, head[place + 2] >> 1 & 1
    if version not in _HERTZ or layer != _LAYER_3 or rate == 15 or hertz == 3:  # noqa: PLR2004 reserved values
        return 0
    if rate == 0:  # "free format", of any length
        return 0 if then else 1
    is_first = version == 3  # noqa: PLR2004 MPEG 1
    length = (144 if is_first else 72) * 1000 * _KBITS[is_first][rate] // _HERTZ[version][hertz] + padding
    return length if not then or _frame_length(head, place + length, then=then - 1) else 0
