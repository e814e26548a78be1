"""Runs of seeds: one, or many in several processes."""

import gc
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from .edges import collect_dead, simulated_edges
from .invariants import check_end, check_life, check_outcome
from .lives import Simulation, Violation
from .mutants import MUTANTS, planted
from .scenario import Scenario
from .scenarios_by_seed import scenario_of

_MEMORY = Path("/dev/shm")
_SLICE = 20
"""Seeds that a process takes at once."""


@frozen
class Run:
    """What came of a run."""

    seed: int
    violation: Violation | None
    lives: int
    requests: int
    cpu: float
    """Seconds of the processor."""


def run(scenario: Scenario, trace: Callable[[str], None] | None = None) -> Run:
    """Run a scenario."""
    started = time.process_time()
    with _folder() as folder, _quiet_collector():
        simulation: Simulation | None = Simulation(scenario, folder, check_outcome, check_life, trace=trace)
        violation = None
        with simulated_edges(simulation.universe):
            try:
                simulation.live()
                check_end(simulation)
            except Violation as error:
                violation = Violation(error.promise, error.what)
            lives, requests = len(simulation.lives), simulation.requests
            simulation.universe.is_dead = True  # whatever is still in memory is only collected
            simulation = None
            collect_dead()
    return Run(scenario.seed, violation, lives, requests, time.process_time() - started)


@contextmanager
def _folder() -> Iterator[Path]:
    """Yield an empty folder, in memory where there is such a file system; its path is the same for each run."""
    base = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    folder = base / f"heygen-simulation-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Let garbage be collected only between lives, so that every run goes the same way."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what is left are caches and modules, which no later collection needs to look at
        gc.enable()


def run_all(seeds: range, workers: int, *, mutant: str | None = None) -> Iterator[list[Run]]:
    """Run seeds in several processes, and yield what came of them, slice by slice."""
    slices = [(seeds[start : start + _SLICE], mutant) for start in range(0, len(seeds), _SLICE)]
    if workers == 1:
        gc.freeze()
        yield from map(_run_slice, slices)
        return
    with multiprocessing.get_context("fork").Pool(workers, initializer=gc.freeze) as pool:
        yield from pool.imap_unordered(_run_slice, slices)


def _run_slice(task: tuple[Sequence[int], str | None]) -> list[Run]:
    seeds, mutant = task
    found = []
    with planted(mutant):
        for scenario in map(scenario_of, seeds):
            if mutant is not None and not MUTANTS[mutant].only(scenario):
                continue
            found.append(run(scenario))
            if mutant is not None and found[-1].violation is not None:
                break
    return found
