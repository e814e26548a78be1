"""Shrinks a scenario that breaks a promise: fewer faults, lives and rows, as long as it breaks the same one."""

from collections.abc import Callable, Iterator, Sequence

from attrs import evolve

from .scenario import Fault, Scenario

Breaks = Callable[[Scenario], bool]
"""Whether a scenario breaks the promise."""


def shrunk(scenario: Scenario, breaks: Breaks) -> Scenario:
    """Return a smaller scenario that breaks the promise, from which no single fault can be left out."""
    before = None
    while scenario != before:
        before = scenario
        scenario = _with_fewer_faults(scenario, breaks)
        for smaller in _smaller(scenario):
            if breaks(smaller):
                scenario = smaller
                break
    return scenario


def _with_fewer_faults(scenario: Scenario, breaks: Breaks) -> Scenario:
    """Leave out faults, many at once first."""
    faults = list(scenario.faults)
    size = max(1, len(faults) // 2)
    while faults:
        start = 0
        while start < len(faults):
            fewer = faults[:start] + faults[start + size :]
            if breaks(evolve(scenario, faults=fewer)):
                faults = fewer
            else:
                start += size
        if size == 1:
            break
        size = max(1, size // 2)
    return evolve(scenario, faults=faults)


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with one thing less."""
    if scenario.failing:
        yield evolve(scenario, failing={})
        for key in scenario.failing:
            yield evolve(scenario, failing={one: how for one, how in scenario.failing.items() if one != key})
    for number in range(len(scenario.lives) if len(scenario.lives) > 1 else 0):
        yield _without_life(scenario, number)
    size = max(1, len(scenario.rows) // 2)
    while len(scenario.rows) > 1:
        for start in range(0, len(scenario.rows), size):
            rows = [*scenario.rows[:start], *scenario.rows[start + size :]]
            if rows:
                kept = {row.key for row in rows}
                yield evolve(scenario, rows=rows, others=[row for row in scenario.others if row.key in kept])
        if size == 1:
            break
        size = max(1, size // 2)


def _without_life(scenario: Scenario, number: int) -> Scenario:
    lives = [plan for at, plan in enumerate(scenario.lives) if at != number]
    faults = [_earlier(one, number) for one in scenario.faults if one.life != number]
    return evolve(scenario, lives=lives, faults=faults)


def _earlier(fault: Fault, number: int) -> Fault:
    return evolve(fault, life=fault.life - (fault.life > number))


def described(scenario: Scenario) -> Sequence[str]:
    """Return a scenario in a few lines."""
    lines = [f"{len(scenario.rows)} rows: {', '.join(row.key for row in scenario.rows)}"]
    for key, how in scenario.failing.items():
        lines.append(f"jobs of {key} {'are refused' if how.refusal else 'fail'} {how.times} times: {how.message!r}")
    for number, plan in enumerate(scenario.lives):
        lines.append(f"life {number}: journal {plan.journal}, submit={plan.submit}")
        lines += [str(fault) for fault in scenario.faults if fault.life == number]
    return lines
