"""`python -m tests.simulation`: run seeds, replay one, or look for planted bugs."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a run
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])

sys.path.insert(0, str(Path(__file__).parents[1]))  # for what tests share

from .lives import Violation
from .mutants import MUTANTS, planted
from .scenario import Scenario
from .scenarios_by_seed import scenario_of
from .seeds import Run, run, run_all
from .shrinking import described, shrunk

_MOST = 2000
"""Within how many seeds each planted bug must be found."""
_NEAR = 20
"""How many seeds are tried from the one on that found a planted bug when it was last looked for."""


def main() -> int:
    """Do what the command line says, and return the exit code."""
    options = _options()
    if options.mutants is not None:
        return _hunt(
            options.mutants or list(MUTANTS), None if options.known else _range(options.seeds), options.workers
        )
    if options.seed is not None:
        with planted(options.mutant):
            return _replay(options.seed, is_traced=options.trace, is_shrunk=options.shrink)
    return _sweep(_range(options.seeds), options.workers, options.mutant)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", default="0:300", help="FIRST:END")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, help="replay one seed")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--shrink", action="store_true", help="find the shortest list of faults that still fails")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant a bug")
    parser.add_argument("--mutants", nargs="*", help="look for planted bugs, all of them or these")
    parser.add_argument("--known", action="store_true", help="look for each first where it was last found")
    return parser.parse_args()


def _range(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end))


def _sweep(seeds: range, workers: int, mutant: str | None) -> int:
    started, cpu, lives, requests, done = time.monotonic(), 0.0, 0, 0, 0
    failed: list[Run] = []
    for runs in run_all(seeds, workers, mutant=mutant):
        for one in runs:
            cpu, lives, requests, done = cpu + one.cpu, lives + one.lives, requests + one.requests, done + 1
            if one.violation is not None:
                failed.append(one)
                print(f"seed {one.seed}: {one.violation}", flush=True)
        if done % 1000 < len(runs):
            print(f"... {done} seeds, {len(failed)} with a violation, {time.monotonic() - started:.0f} s", flush=True)
    print(
        f"{done} seeds, {len(failed)} with a violation, in {time.monotonic() - started:.0f} s: "
        f"{60 * done / cpu:.0f} seeds ({60 * lives / cpu:.0f} runs of the client, {60 * requests / cpu:.0f} requests) "
        "a minute of processor time"
    )
    if failed and mutant is None:
        _print_shrunk(min(failed, key=lambda one: one.seed).seed)
    return 1 if failed else 0


def _replay(seed: int, *, is_traced: bool, is_shrunk: bool) -> int:
    scenario = scenario_of(seed)
    if is_traced:
        print("\n".join(described(scenario)))
    found = run(scenario, trace=print if is_traced else None)
    print(f"seed {seed}: {found.violation or 'no violation'}")
    if found.violation is not None and is_shrunk:
        _print_shrunk(seed)
    return 1 if found.violation is not None else 0


def _print_shrunk(seed: int) -> None:
    scenario = scenario_of(seed)
    violation = run(scenario).violation
    if violation is None:
        return
    smallest = shrunk(scenario, lambda one: _breaks(one, violation))
    print(f"\nThe shortest way from seed {seed} to the same:")
    print("\n".join(described(smallest)))
    print(f"=> {run(smallest).violation}")


def _breaks(scenario: Scenario, violation: Violation) -> bool:
    found = run(scenario).violation
    return found is not None and found.promise == violation.promise


def _hunt(names: Sequence[str], seeds: range | None, workers: int) -> int:
    """Look for each planted bug until it is found; without a range, first near the seed that found it last."""
    missed = 0
    for name in names:
        near = range(MUTANTS[name].seed, MUTANTS[name].seed + _NEAR)
        found = _first(near, 1, name) if seeds is None else None
        found = found or _first(seeds or range(_MOST), workers, name)
        missed += found is None
        what = "not found" if found is None else f"found by seed {found.seed}: {found.violation}"
        print(f"{name:45} {what}"[:200], flush=True)
    return 1 if missed else 0


def _first(seeds: range, workers: int, mutant: str) -> Run | None:
    """Return the first run that finds a planted bug."""
    for runs in run_all(seeds, workers, mutant=mutant):
        for one in runs:
            if one.violation is not None:
                return one
    return None


sys.exit(main())
