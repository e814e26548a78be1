"""The command line: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import markdown, plots
from benchmarks.bench import Bench
from benchmarks.compare import compare
from benchmarks.machine import machine, versions
from benchmarks.overview import PLOTS, picture_of, readme_section, with_section
from benchmarks.parts import PARTS, Part
from benchmarks.processes import ProcessFailed
from benchmarks.results import PartResult, Results, Table

DESCRIPTION = """Measure heygen_async beside what a user would pick instead.

Each contender has a process of its own, and all speak to one server in another. What is not installed is left out:
pip install -r benchmarks/requirements.txt
"""


def main() -> None:
    """Measure the parts that are named, or all of them."""
    options = _options()
    if options.list:
        for name, part in PARTS.items():
            print(f"{name:16} {_minutes(part):>8}  {_summary(part)}")
        return
    if options.results:
        results = Results.from_json(options.results.read_bytes())
    else:
        results = asyncio.run(_measure(options.names or list(PARTS), Bench(is_quick=options.quick)))
    print(markdown.document(results))
    if options.output:
        _write(results, options.output)
    if options.readme:
        _write_readme(results, options.readme)
    if options.compare:
        print(markdown.comparison(compare(Results.from_json(options.compare.read_bytes()), results)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of --list; without any, all of them")
    parser.add_argument("--list", action="store_true", help="print the parts, and how long each takes")
    parser.add_argument("--quick", action="store_true", help="each thing once, at its smallest size; nothing to quote")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="print what changed since this results.json")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write results.json and results.md there")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write its table there, and its plots to .github")
    parser.add_argument("--results", type=Path, metavar="FILE", help="measure nothing: take the results of this file")
    options = parser.parse_args()
    for name in options.names:
        if name not in PARTS:
            parser.error(f"there is no {name}; the parts are {', '.join(PARTS)}")
    return options


def _summary(part: Part) -> str:
    return (part.__doc__ or "").partition("\n")[0]


def _minutes(part: Part) -> str:
    return f"{part.MINUTES:g} min"


async def _measure(names: Sequence[str], bench: Bench) -> Results:
    parts = []
    for name in names:
        print(f"{name}: about {_minutes(PARTS[name])} ...", file=sys.stderr)
        started = time.perf_counter()
        try:
            tables = await PARTS[name].measure(bench)
        except ProcessFailed as error:  # the other parts are worth having
            tables = [Table("Not measured", f"A process failed: {error}", [])]
        parts.append(PartResult(name, time.perf_counter() - started, tables))
    command = " ".join(["python -m benchmarks", *names, *(["--quick"] if bench.is_quick else [])])
    return Results(machine(), versions(), f"{datetime.now(UTC):%Y-%m-%d}", command, parts)


def _write(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(results.to_json())
    pictures = [picture_of(name, name) for name in _draw(results, folder, PLOTS)]
    (folder / "results.md").write_text(markdown.document(results, pictures))


def _write_readme(results: Results, readme: Path) -> None:
    folder = readme.parent / ".github"
    readme.write_text(with_section(readme.read_text(), readme_section(results, folder.name)))
    folder.mkdir(exist_ok=True)
    _draw(results, folder, ["overview"])


def _draw(results: Results, folder: Path, names: Iterable[str]) -> list[str]:
    """Write the plots, and return the names of those that there are."""
    if plots.has_matplotlib():
        return plots.write(results, folder, names)
    print("No plots: matplotlib is not installed.", file=sys.stderr)
    return []


if __name__ == "__main__":
    main()
