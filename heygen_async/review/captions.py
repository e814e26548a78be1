"""Captions as browsers show them: SubRip in, WebVTT out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TIMES: Final = re.compile(
    r"\s*(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[,.](\d{1,3})\s*-->\s*(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[,.](\d{1,3})", re.ASCII
)
_BLANK: Final = re.compile(r"\n[ \t]*\n")
_OTHER_TAG: Final = re.compile(r"<(?!/?[biu]>)/?[A-Za-z][^<>]*>")
_LESS_THAN: Final = re.compile(r"<(?!/?[biu]>)")


def web_captions(content: bytes) -> str:
    """Return SubRip captions as WebVTT; what is not a caption is left out.

    Args:
        content: The file, in UTF-8 or UTF-16 with a mark.
    """
    text = _decoded(content).replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(["WEBVTT", "", *_cues(text)])


def _decoded(content: bytes) -> str:
    is_utf_16 = content[:2] in {b"\xff\xfe", b"\xfe\xff"}
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig", "replace")


def _cues(text: str) -> Iterator[str]:
    for block in _BLANK.split(text):
        lines = block.strip().split("\n")
        for number, line in enumerate(lines[:2]):  # a number may come before
            if times := _TIMES.match(line):
                yield f"{_time(times.groups()[:4])} --> {_time(times.groups()[4:])}"
                yield from (_text(one).replace("-->", "->") for one in lines[number + 1 :] if one.strip())
                yield ""
                break


def _text(line: str) -> str:
    return _LESS_THAN.sub("&lt;", _OTHER_TAG.sub("", line))  # a browser shows nothing that follows a bare "<"


def _time(parts: tuple[str | None, ...]) -> str:
    hours, minutes, seconds, fraction = parts
    return f"{int(hours or 0):02}:{int(minutes or 0):02}:{seconds}.{(fraction or '0').ljust(3, '0')}"
