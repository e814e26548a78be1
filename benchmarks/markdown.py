"""Results and comparisons as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.compare import NOISE, Comparison
from benchmarks.results import RATIO, Figure, Line, Results, Table

NONE = "-"
NOTE = "note"


def number(value: float) -> str:
    """Return three digits that count, with thousands apart: "1,230", "12.3", "0.123"."""
    if value == 0 or abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def text(figure: Figure | None, *, with_spread: bool = True) -> str:
    """Return a figure with its unit and its spread: "104 us (98 to 120)"."""
    if figure is None:
        return NONE
    unit = {RATIO: "x", "": "", "a second": "/s"}.get(figure.unit, f" {figure.unit}")
    median, low, high = (_digits(value, figure.unit) for value in (figure.value, figure.low, figure.high))
    spread = f" ({low} to {high})" if with_spread and low != high else ""
    return f"{median}{unit}{spread}"


def _digits(value: float, unit: str) -> str:
    if unit == "MB":
        return f"{value:,.1f}"
    return f"{value:,.0f}" if unit == "" else number(value)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; figures are aligned to the right."""
    lines = [head, ["---" if one in {"", NOTE} else "---:" for one in head], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture(path: str, alt: str) -> str:
    """Return a plot for light and for dark pages: *path* is "plots/calls" for `plots/calls-light.svg`."""
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{path}-dark.svg">\n'
        f'  <img src="{path}-light.svg" width="830" alt="{alt}">\n</picture>'
    )


def document(results: Results, pictures: Sequence[str] = ()) -> str:
    """Return all tables, with what was measured where, and the goals."""
    parts = [text for part in results.parts for text in (f"## {part.name}", *map(_section, part.tables))]
    return "\n\n".join(["# Results", heading(results), *pictures, *parts, "## Goals", _goals(results)]) + "\n"


def heading(results: Results) -> str:
    """Return the command, the date, the machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"`{results.command}`, {results.date}, on {results.machine}. {versions}.\n\n"
        "Medians of interleaved rounds; in brackets the quartiles, or the lowest and the highest of fewer than four. "
        "A ratio is the median of the ratios of each round."
    )


def _section(table: Table) -> str:
    columns = list(dict.fromkeys(column for line in table.lines for column in line.figures))
    has_notes = any(line.note for line in table.lines)
    head = ["", *columns, *([NOTE] if has_notes else [])]
    rows = [_row(line, columns, has_notes=has_notes) for line in table.lines]
    return "\n\n".join([f"### {table.title}", table.about, *([grid(head, rows)] if rows else [])])


def _row(line: Line, columns: Sequence[str], *, has_notes: bool) -> list[str]:
    return [line.name, *(text(line.figures.get(one)) for one in columns), *([line.note] if has_notes else [])]


def _goals(results: Results) -> str:
    rows = [
        [f"{part.name}, {table.title}, {line.name}: {column}", text(figure), _goal(figure), _reached(figure)]
        for part in results.parts
        for table in part.tables
        for line in table.lines
        for column, figure in line.figures.items()
        if _goal(figure)
    ]
    return grid(["", "measured", "goal", "reached"], rows) if rows else "None of these figures has one."


def _goal(figure: Figure) -> str:
    bounds = [("at least", figure.at_least), ("at most", figure.at_most)]
    return ", ".join(f"{word} {number(bound)}" for word, bound in bounds if bound is not None)


def _reached(figure: Figure) -> str:
    return "yes" if figure.is_met else "**no**"


def comparison(found: Comparison) -> str:
    """Return the changes that are no noise, and how many are."""
    rows = [
        [", ".join(change.place), text(change.before), text(change.now), _ratio(change.ratio), change.verdict]
        for change in found.changes
        if change.verdict != "noise"
    ]
    return "\n\n".join(["# Comparison", *_rules(found), grid(["", "before", "now", "ratio", ""], rows)]) + "\n"


def _rules(found: Comparison) -> Iterator[str]:
    noise = sum(change.verdict == "noise" for change in found.changes)
    yield (
        f"A change below {NOISE:.0%} is noise, and so is one whose spreads overlap. "
        f"{noise} of {len(found.changes)} figures that both results have did not change by more than that."
    )
    if changes := found.changes_of_ratios:
        half, most = changes[len(changes) // 2], changes[len(changes) * 9 // 10]
        yield f"Of {len(changes)} ratios half changed by at most {half:.0%}, and nine of ten by at most {most:.0%}."
    if not found.is_same_machine:
        yield "The machines or the versions of Python differ: ratios and counts only are compared."


def _ratio(ratio: float | None) -> str:
    return NONE if ratio is None else f"{number(ratio)}x"
