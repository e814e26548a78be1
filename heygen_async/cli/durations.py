"""Lengths of time as people write them: `90`, `90s`, `30m`, `1h30m`."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter, Token

_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0}
_PARTS: Final = re.compile("".join(rf"(?:(?P<{unit}>\d{{1,9}}(?:\.\d{{1,9}})?){unit})?" for unit in _SECONDS), re.ASCII)
_PLAIN: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)


def seconds(text: str) -> float:
    """Return the seconds of a length of time: `90`, `90s`, `30m`, `1h30m`, `1.5h`.

    Raises:
        ValueError: If it is no such thing, or nothing.
    """
    written = text.strip().lower()
    parts = _PARTS.fullmatch(written)
    if _PLAIN.fullmatch(written):
        length = float(written)
    elif written and parts:
        length = sum(float(count) * _SECONDS[unit] for unit, count in parts.groupdict().items() if count)
    else:
        raise ValueError(f"write it as 90, 90s, 30m or 1h30m, not {text!r}")
    if length == 0:
        raise ValueError("it must be more than 0")
    return length


def _convert(_type: object, tokens: list[Token]) -> float:
    return seconds(tokens[0].value)


Duration: TypeAlias = Annotated[float, Parameter(converter=_convert, metavar="TIME")]
"""Seconds, which the command line takes in any of these spellings."""
