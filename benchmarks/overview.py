"""The table and the plots that the README shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import frozen

from benchmarks.contenders import CONTENDERS
from benchmarks.markdown import NONE, grid, picture, text
from benchmarks.results import Figure, Results

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


@frozen
class Column:
    """One figure of each contender."""

    head: str
    part: str
    table: str
    figure: str


CPU = Column("CPU a call, 100 at once", "calls", "get, 100 at once", "CPU a call")
IMPORT = Column("CPU of the import", "start", "Import", "CPU")
JOBS = Column("one create, all answers lost: jobs paid for", "dropped_create", "Every connection drops", "jobs made")
COLUMNS = (
    Column("calls a second", "calls", "get, 100 at once", "calls a second"),
    Column("CPU a call", "calls", "get, 100 at once", "CPU a call"),
    IMPORT,
    Column("one create, first answer lost: jobs paid for", "dropped_create", "The first connection drops", "jobs made"),
    Column("and returned", "dropped_create", "The first connection drops", "jobs returned"),
    JOBS,
)
PLOTS = {
    "overview": (CPU, IMPORT, JOBS),
    "calls": (
        CPU,
        Column("CPU a create, 100 at once", "calls", "create, 100 at once", "CPU a call"),
        Column("CPU a page, 100 at once", "calls", "page, 100 at once", "CPU a call"),
    ),
    "waiting": (
        Column("1,000 waits: requests", "waiting", "1,000 jobs", "requests"),
        Column("1,000 waits: mean delay", "waiting", "1,000 jobs", "delay, mean"),
        Column("1,000 waits: CPU", "waiting", "1,000 jobs", "CPU"),
    ),
}
"""Columns beside each other in one plot, by its name."""


def column(results: Results, wanted: Column) -> Mapping[str, Figure]:
    """Return the figures of a column by contender; none if it was not measured."""
    lines = [
        line
        for part in results.parts
        for table in part.tables
        for line in table.lines
        if (part.name, table.title) == (wanted.part, wanted.table)
    ]
    figures = {line.name: line.figures[wanted.figure] for line in lines if wanted.figure in line.figures}
    return {name: figures[name] for name in CONTENDERS if name in figures}


def readme_section(results: Results, plots: str) -> str:
    """Return what is between `BEGIN` and `END`: the table, the plot and the command that made them.

    Args:
        results: Of the parts of `COLUMNS`.
        plots: The folder of the plots, from the README.
    """
    columns = {one.head: column(results, one) for one in COLUMNS}
    rows = [
        [f"**{name}**" if number == 0 else name, *(_cell(figures.get(name)) for figures in columns.values())]
        for number, name in enumerate(CONTENDERS)
        if any(name in figures for figures in columns.values())
    ]
    return "\n\n".join([BEGIN, grid(["", *columns], rows), *_words(results, plots), END])


def _cell(figure: Figure | None) -> str:
    return NONE if figure is None else text(figure, with_spread=False)


def _words(results: Results, plots: str) -> Iterator[str]:
    yield picture_of("overview", f"{plots}/overview")
    yield (
        f"`{results.command}`, {results.date}, {results.machine}. All figures: [results.md](benchmarks/results.md); "
        "how to run them: [benchmarks](benchmarks/README.md)."
    )


def picture_of(name: str, path: str) -> str:
    """Return a plot of `PLOTS` as a picture for light and for dark pages."""
    return picture(path, f"{'; '.join(one.head for one in PLOTS[name])}: for each client")


def with_section(readme: str, section: str) -> str:
    """Return the README with its section replaced.

    Raises:
        ValueError: It has no section: the two comments are missing.
    """
    found = re.subn(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section, readme, count=1, flags=re.DOTALL)
    if not found[1]:
        raise ValueError(f"the README has no {BEGIN} ... {END}")
    return found[0]
