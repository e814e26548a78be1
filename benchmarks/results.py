"""What a run of benchmarks found: figures in lines, lines in tables, tables in parts. To JSON and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Self

from attrs import field, frozen
from cattrs.preconf.orjson import make_converter

CONVERTER = make_converter(forbid_extra_keys=True)
RATIO = "x"
"""The unit of a figure that is a ratio of two others from the same rounds."""
QUARTILES_FROM = 4
"""With fewer rounds the spread is from the lowest to the highest, otherwise from the lower to the upper quartile."""


@frozen
class Figure:
    """The median of some rounds, and their spread."""

    value: float
    unit: str
    """`RATIO`, `""` for a count, or an absolute one: "us", "ms", "s", "MB", "a second"."""
    low: float
    high: float
    rounds: int
    at_most: float | None = None
    """The goal, if the figure should be low."""
    at_least: float | None = None
    """The goal, if the figure should be high."""

    @classmethod
    def of(
        cls, values: Sequence[float], unit: str, *, at_most: float | None = None, at_least: float | None = None
    ) -> Self:
        """Return the figure of the values of some rounds."""
        low, high = min(values), max(values)
        if len(values) >= QUARTILES_FROM:
            low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(median(values), unit, low, high, len(values), at_most, at_least)

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached; true if there is none."""
        return not (
            (self.at_most is not None and self.value > self.at_most)
            or (self.at_least is not None and self.value < self.at_least)
        )


@frozen
class Line:
    """What was measured of one contender, or of one case. Without figures, the note says why."""

    name: str
    figures: Mapping[str, Figure] = field(factory=dict)
    """By the title of their column."""
    note: str = ""


@frozen
class Table:
    """Lines with the same columns."""

    title: str
    about: str
    """What was measured and how, in a sentence or two."""
    lines: tuple[Line, ...] = field(converter=tuple[Line, ...])


@frozen
class PartResult:
    """The tables of one part."""

    name: str
    seconds: float
    tables: tuple[Table, ...] = field(converter=tuple[Table, ...])


@frozen
class Results:
    """One run of the command."""

    machine: str
    versions: Mapping[str, str]
    """Of Python and of each package that was measured."""
    date: str
    command: str
    parts: tuple[PartResult, ...] = field(converter=tuple[PartResult, ...])

    def to_json(self) -> str:
        """Return the results as JSON."""
        return CONVERTER.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the results that `to_json` wrote."""
        return CONVERTER.loads(text, cls)
