"""Two results beside each other: which figures changed, and which changes are noise. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from attrs import frozen

from benchmarks.results import RATIO, Figure, Results

NOISE = 0.10
"""A smaller change is noise, whatever the spreads are."""

Place = tuple[str, str, str, str]
"""The part, the table, the line and the column of a figure."""


@frozen
class Change:
    """A figure that both results have."""

    place: Place
    before: Figure
    now: Figure

    @property
    def ratio(self) -> float | None:
        """The figure of now beside that of before; `None` if that was 0."""
        return self.now.value / self.before.value if self.before.value else None

    @property
    def is_fixed(self) -> bool:
        """Whether the figure is 1 in every round of both: what all others are compared with."""
        return all(value == 1 for one in (self.before, self.now) for value in (one.low, one.value, one.high))

    @property
    def verdict(self) -> Literal["noise", "lower", "higher"]:
        """`"noise"` if the change is small, or the spreads overlap: either alone is enough."""
        do_overlap = self.now.low <= self.before.high and self.before.low <= self.now.high
        if do_overlap or abs(self.now.value - self.before.value) < NOISE * abs(self.before.value):
            return "noise"
        return "lower" if self.now.value < self.before.value else "higher"


@frozen
class Comparison:
    """What changed from one run to another."""

    is_same_machine: bool
    """Otherwise ratios and counts only are compared: seconds and megabytes of two machines say nothing."""
    changes: Sequence[Change]

    @property
    def changes_of_ratios(self) -> Sequence[float]:
        """By what share each ratio changed, in ascending order; those of a contender to itself are left out."""
        ratios = [change.ratio for change in self.changes if change.now.unit == RATIO and not change.is_fixed]
        return sorted(abs(ratio - 1) for ratio in ratios if ratio is not None)


def compare(before: Results, now: Results) -> Comparison:
    """Return the changes of all figures that both have, as far as they can be compared."""
    is_same_machine = (before.machine, before.versions.get("Python")) == (now.machine, now.versions.get("Python"))
    old = dict(_figures(before))
    changes = [
        Change(place, old[place], figure)
        for place, figure in _figures(now)
        if place in old and old[place].unit == figure.unit and (is_same_machine or figure.unit in {RATIO, ""})
    ]
    return Comparison(is_same_machine, changes)


def _figures(results: Results) -> Iterator[tuple[Place, Figure]]:
    for part in results.parts:
        for table in part.tables:
            for line in table.lines:
                for column, figure in line.figures.items():
                    yield (part.name, table.title, line.name, column), figure
