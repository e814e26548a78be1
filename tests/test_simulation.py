"""A bounded share of the simulation: whole runs in virtual time with faults and crashes, and planted bugs.

It runs in a process of its own, because it replaces the clock, the randomness and the files of its process. For more,
see `python -m tests.simulation --help`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from simulation.scenario import Fault, Scenario
from simulation.scenarios_by_seed import scenario_of
from simulation.shrinking import described, shrunk

_ROOT = Path(__file__).parents[1]
_SEEDS = 200

pytestmark = pytest.mark.timeout(900)  # seconds, on a machine that does much else


def simulation(*options: str) -> tuple[int, str]:
    """Run the simulation, and return its exit code and what it prints."""
    command = [sys.executable, "-m", "tests.simulation", *options]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_no_seed_violates_an_invariant() -> None:
    code, printed = simulation("--seeds", f"0:{_SEEDS}")

    assert code == 0, printed
    assert f"{_SEEDS} seeds, 0 with a violation" in printed


def test_planted_bugs_are_found() -> None:
    code, printed = simulation("--mutants", "--known")

    assert code == 0, printed
    assert printed.count("found by seed") == len(printed.splitlines()) >= 40


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    runs = {re.sub(r"heygen-simulation-\d+", "", simulation("--seed", "17", "--trace")[1]) for _ in range(2)}

    assert len(runs) == 1
    assert len(runs.pop().splitlines()) > 100


def test_a_violation_is_shrunk_to_a_few_lines() -> None:
    code, printed = simulation("--seed", "15", "--mutant", "a failed job keeps its estimate", "--shrink")

    assert code == 1
    _, _, shortest = printed.partition("The shortest way")
    assert "estimates hold" in shortest
    assert len(shortest.splitlines()) < 10


# Scenarios and their faults are values


def test_shrinking_keeps_what_is_needed_and_nothing_else() -> None:
    scenario = next(one for one in map(scenario_of, range(100)) if len(one.faults) > 30 and len(one.lives) > 1)
    needed = [scenario.faults[3], scenario.faults[-1]]

    def breaks(one: Scenario) -> bool:
        return {_timeless(fault) for fault in needed} <= {_timeless(fault) for fault in one.faults}

    smallest = shrunk(scenario, breaks)
    assert [_timeless(fault) for fault in smallest.faults] == [_timeless(fault) for fault in needed]
    assert len(smallest.rows) == 1
    assert len(described(smallest)) <= 6


def _timeless(fault: Fault) -> Fault:
    return evolve(fault, life=0)


def test_scenarios_differ_and_have_every_kind_of_fault() -> None:
    scenarios = [scenario_of(seed) for seed in range(300)]
    kinds = {fault.what for one in scenarios for fault in one.faults}

    assert len({one.rows for one in map(_hashable, scenarios)}) > 250
    assert {"answer lost", "doubled", "late", "crash at callback", "suspend", "clock", "journal restored"} <= kinds
    assert {"foreign file", "source changed", "disk full at statement", "no credit", "row on top"} <= kinds
    assert any(one.others for one in scenarios)
    assert {plan.submit for one in scenarios for plan in one.lives} == {"each", "batch"}


def _hashable(scenario: Scenario) -> Scenario:
    return evolve(scenario, rows=tuple(scenario.rows))
