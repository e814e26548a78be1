"""Numbers as people write them on a command line: in ASCII digits, as `5`, `0.5` or `1e3`; no word is one. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def plain_number(text: str, kind: type[float]) -> float:
    """Return the number, of this *kind*, that *text* is.

    Raises:
        ValueError: If it is none.
    """
    written = text.strip()
    if (_WHOLE if kind is int else _DECIMAL).fullmatch(written) and math.isfinite(value := kind(written)):
        return value
    raise ValueError(f"not a number: {text!r}")
