"""The command line: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from benchmarks.bench import Bench
from benchmarks.contenders import CONTENDERS
from benchmarks.parts import PARTS, Part
from benchmarks.results import PartResult, Results


def main() -> None:
    """Measure the parts that are named, or all of them."""
    options = _options()
    if options.list:
        for name, part in PARTS.items():
            print(f"{name:16} {_summary(part)} About {part.MINUTES:g} min.")
        return
    results = asyncio.run(_measure(options.names or list(PARTS), Bench(is_quick=options.quick)))
    print(results.to_json())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *PARTS], help="a part; all of them without")
    parser.add_argument("--list", action="store_true", help="print what there is, and how long it takes")
    parser.add_argument("--quick", action="store_true", help="each thing once at its smallest size; nothing to quote")
    return parser.parse_args()


def _summary(part: Part) -> str:
    return (part.__doc__ or "").partition("\n")[0]


async def _measure(names: Sequence[str], bench: Bench) -> Results:
    parts = []
    for name in names:
        print(f"{name} ...", file=sys.stderr)
        started = time.perf_counter()
        tables = await PARTS[name].measure(bench)
        parts.append(PartResult(name, time.perf_counter() - started, tables))
    return Results(
        f"{platform.machine()}, {platform.system()}",
        _versions(),
        f"{datetime.now(UTC):%Y-%m-%d}",
        " ".join(["python -m benchmarks", *sys.argv[1:]]),
        parts,
    )


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for contender in CONTENDERS.values():
        package = contender.requirement.partition("[")[0]
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
