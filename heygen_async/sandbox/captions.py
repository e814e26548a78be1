"""The captions of an output: an SRT with one cue for each few seconds of it."""

from __future__ import annotations

from typing import Final

_CUE_SECONDS: Final = 3.0


def srt(duration: float, text: str) -> str:
    """Return captions that say *text* for *duration* seconds."""
    starts = [index * _CUE_SECONDS for index in range(max(1, int(-(-duration // _CUE_SECONDS))))]
    cues = (
        f"{number}\n{_stamp(start)} --> {_stamp(min(start + _CUE_SECONDS, duration))}\n{text} ({number})\n"
        for number, start in enumerate(starts, 1)
    )
    return "\n".join(cues)


def _stamp(seconds: float) -> str:
    millis = round(seconds * 1000)
    return f"{millis // 3_600_000:02}:{millis // 60_000 % 60:02}:{millis // 1000 % 60:02},{millis % 1000:03}"
