"""What every part is given: contenders in interleaved rounds, each in its own process."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from attrs import define, evolve, field, frozen
from cattrs import structure

from benchmarks import processes
from benchmarks.contender import Contender
from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.variants import VARIANTS
from benchmarks.processes import ProcessFailed, Server, Worker
from benchmarks.results import RATIO, Figure, Line
from benchmarks.sample import Sample

T = TypeVar("T")

Value = Callable[[Sample], float]


@frozen
class Task:
    """What each contender does in a round."""

    operation: str
    """A method of `Client`: those that cannot do it are out."""
    measure: str
    """A name of `client.MEASURES`."""
    arguments: Mapping[str, object] = field(factory=dict)
    """Of the measure."""
    warm_up: Mapping[str, object] | None = None
    """Its arguments for once before each sample, which does not count: it opens connections that were idle too long."""
    warm_up_server: Mapping[str, object] = field(factory=dict)
    """Arguments of `Canned.reset` for that."""
    server: Mapping[str, object] = field(factory=dict)
    """Arguments of `Canned.reset`: what the server does meanwhile."""
    left_out: Mapping[str, str] = field(factory=dict)
    """Why some contenders are not measured, by their name."""
    variants: Sequence[str] = ()
    """Names of `VARIANTS` that are measured too."""
    is_fresh: bool = False
    """Whether each round has a new process: what the memory of one round was is then not there for the next."""


@frozen
class Rounds:
    """The samples of the contenders: those at one place of the lists are of the same round."""

    samples: Mapping[str, Sequence[Sample]]
    notes: Mapping[str, str]
    """Why the others have none."""

    def figure(
        self, name: str, value: Value, unit: str, *, at_most: float | None = None, at_least: float | None = None
    ) -> Figure:
        """Return the figure of a contender that is measured, with its goal."""
        values = [value(sample) for sample in self.samples[name]]
        return Figure.of(values, unit, at_most=at_most, at_least=at_least)

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

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Clients]:
        """Start a server; the processes of the contenders follow when they are used. All end with the block."""
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(processes.server())
            yield Clients(server, stack)


@define
class Clients:
    """A server, and one process for each contender."""

    server: Server
    _stack: AsyncExitStack
    _workers: dict[str, Worker] = field(init=False, factory=dict)

    async def rounds(self, task: Task, *, rounds: int) -> Rounds:
        """Measure a task for all contenders in turn.

        Each is idle while it is not its turn. The order is reversed in every second round. One whose process fails is
        out, and the note says why.
        """
        contenders = {**CONTENDERS, **{name: VARIANTS[name] for name in task.variants}}
        reasons = {name: task.left_out.get(name, one.why_not(task.operation)) for name, one in contenders.items()}
        notes = {name: reason for name, reason in reasons.items() if reason is not None}
        samples: dict[str, list[Sample]] = {name: [] for name in contenders if name not in notes}
        for number in range(rounds):
            for name in list(samples) if number % 2 == 0 else list(reversed(samples)):
                try:
                    samples[name].append(await self._sample(contenders[name], task))
                except ProcessFailed as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    notes[name] = f"failed: {error}"
                    del samples[name]
                    self._workers.pop(name, None)
        return Rounds(samples, notes)

    async def _sample(self, contender: Contender, task: Task) -> Sample:
        if task.is_fresh:
            async with processes.client(contender, self.server.url) as worker:
                return await self._measured(worker, task)
        if contender.name not in self._workers:
            client = processes.client(contender, self.server.url)
            self._workers[contender.name] = await self._stack.enter_async_context(client)
        return await self._measured(self._workers[contender.name], task)

    async def _measured(self, worker: Worker, task: Task) -> Sample:
        if task.warm_up is not None:
            await self.server.worker.ask("reset", **task.warm_up_server)
            await worker.ask(task.measure, **task.warm_up)
        await self.server.worker.ask("reset", **task.server)
        sample = structure(await worker.ask(task.measure, **task.arguments), Sample)
        report = await self.server.worker.ask("report")
        return evolve(sample, facts={**sample.facts, "server": report})
