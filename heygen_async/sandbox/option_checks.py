"""Checks of options and faults: the error of a value that cannot be begins with its name. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, TypeAlias

_HALF_A_PAIR: Final = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: text that has one cannot be written as bytes."""

Check: TypeAlias = Callable[[str, object], None]
"""Checks a value; the message of its error begins with the name of the option."""

_LARGEST: Final = 2.0**63
"""Larger numbers, with which no time and no price can be computed, are refused."""


def number(*, is_above: bool = False, most: float = _LARGEST) -> Check:
    """Return the check that a value is a finite number from 0, or above it, to *most*."""
    wanted = f"a number {'above 0' if is_above else 'that is 0 or more'}"
    wanted += f", at most {most:g}" if most < _LARGEST else ""

    def check(name: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be {wanted}, not {value!r}.")
        if not 0 <= value <= most or (is_above and value == 0):  # NaN is not
            raise ValueError(f"{name} must be {wanted}, not {value!r}.")

    return check


def whole_number(least: float = 0, most: float = math.inf) -> Check:
    """Return the check that a value is a whole number from *least* to *most*."""
    limits = f", {least:g} or more" if most == math.inf else f" from {least:g} to {most:g}"
    wanted = f"a whole number{limits if least > -math.inf else ''}"

    def check(name: str, value: object) -> None:
        if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
            raise TypeError(f"{name} must be {wanted}, not {value!r}.")
        if not least <= value <= most:
            raise ValueError(f"{name} must be {wanted}, not {value!r}.")

    return check


def text(name: str, value: object) -> None:
    """Check that a value is text that can be sent. No message shows it: some of them are secrets."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}.")
    if _HALF_A_PAIR.search(value):
        raise ValueError(f"{name} must be text, without half of a surrogate pair.")


def one_of(*words: str) -> Check:
    """Return the check that a value is one of *words*."""

    def check(name: str, value: object) -> None:
        if value not in words:
            raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}.")

    return check


def optional(check: Check) -> Check:
    """Return *check*, which `None` passes too."""

    def check_it(name: str, value: object) -> None:
        if value is not None:
            check(name, value)

    return check_it
