"""What every part is given: contenders in interleaved rounds, each in its own process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from attrs import define, field, frozen
from cattrs import structure

from benchmarks import processes
from benchmarks.contender import Contender
from benchmarks.contenders import CONTENDERS
from benchmarks.processes import ProcessFailed, Worker
from benchmarks.results import RATIO, Figure, Line
from benchmarks.sample import Sample

T = TypeVar("T")

Value = Callable[[Sample], float]


@frozen
class Rounds:
    """The samples of the contenders: those at one place of the lists are of the same round."""

    samples: Mapping[str, Sequence[Sample]]
    notes: Mapping[str, str]
    """Why the others have none."""

    def figure(self, name: str, value: Value, unit: str) -> Figure:
        """Return the figure of a contender that is measured."""
        return Figure.of([value(sample) for sample in self.samples[name]], unit)

    def ratio(
        self,
        name: str,
        value: Value,
        *,
        to: str,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> Figure:
        """Return the median of the ratios of each round: what loads the machine loads both."""
        pairs = zip(self.samples[name], self.samples[to], strict=True)
        return Figure.of([value(one) / value(other) for one, other in pairs], RATIO, at_most=at_most, at_least=at_least)

    def lines(self, figures: Callable[[str], Mapping[str, Figure]]) -> list[Line]:
        """Return a line for each contender, with the figures for its name, or the note that says why not."""
        return [
            Line(name, figures(name)) if name in self.samples else Line(name, note=self.notes[name])
            for name in (*self.samples, *self.notes)
        ]


@frozen
class Bench:
    """How the parts measure in this run."""

    is_quick: bool = False
    """Whether each thing is done once, at its smallest size, to see that it works."""

    def pick(self, full: T, quick: T) -> T:
        """Return the size for this run."""
        return quick if self.is_quick else full

    def able(self, operation: str) -> tuple[list[Contender], dict[str, str]]:
        """Return the contenders that are measured in an operation, and why the others are not."""
        reasons = {name: one.why_not(operation) for name, one in CONTENDERS.items()}
        return (
            [CONTENDERS[name] for name, reason in reasons.items() if reason is None],
            {name: reason for name, reason in reasons.items() if reason is not None},
        )

    async def rounds(
        self, url: str, operation: str, measure: str, *, rounds: int, warm_up: int = 1, **arguments: object
    ) -> Rounds:
        """Measure an operation of `Client` for all contenders in turn.

        Each has one process for all rounds, idle while it is not its turn. The order is reversed in every second round.
        One whose process fails is out, and the note says why.

        Args:
            url: The server's.
            operation: A method of `Client`: those that cannot do it are out.
            measure: A name of `client.MEASURES`.
            rounds: How many.
            warm_up: Rounds before these, which do not count.
            arguments: For the measure.
        """
        contenders, notes = self.able(operation)
        async with AsyncExitStack() as stack:
            run = _Run(stack, notes)
            for contender in contenders:
                await run.start(contender, url)
            for number in range(warm_up + rounds):
                await run.round(measure, arguments, is_reversed=number % 2 == 1)
        return Rounds({name: samples[warm_up:] for name, samples in run.samples.items()}, run.notes)


@define
class _Run:
    """The processes of one measurement."""

    stack: AsyncExitStack
    notes: dict[str, str]
    workers: dict[str, Worker] = field(factory=dict)
    samples: dict[str, list[Sample]] = field(factory=dict)

    async def start(self, contender: Contender, url: str) -> None:
        try:
            self.workers[contender.name] = await self.stack.enter_async_context(processes.client(contender, url))
        except ProcessFailed as error:
            self.fail(contender.name, error)
        else:
            self.samples[contender.name] = []

    async def round(self, measure: str, arguments: Mapping[str, Any], *, is_reversed: bool) -> None:
        for name in list(reversed(self.workers) if is_reversed else self.workers):
            try:
                sample = await self.workers[name].ask(measure, **arguments)
            except ProcessFailed as error:
                self.fail(name, error)
            else:
                self.samples[name].append(structure(sample, Sample))

    def fail(self, name: str, error: ProcessFailed) -> None:
        print(f"{name}: {error}", file=sys.stderr)
        self.workers.pop(name, None)
        self.samples.pop(name, None)
        self.notes[name] = f"failed: {error}"
