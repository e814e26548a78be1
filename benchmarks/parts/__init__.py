"""What is measured, one module each."""

from typing import Protocol

from benchmarks.bench import Bench
from benchmarks.parts import (
    bulk,
    calls,
    cluster,
    dropped_create,
    instructions,
    media,
    pagination,
    poller,
    review,
    start,
    waiting,
    webhooks,
)
from benchmarks.results import Table


class Part(Protocol):
    """A module of this folder. The first line of its docstring is its summary."""

    __doc__: str | None

    @property
    def MINUTES(self) -> float:  # noqa: N802 a constant of a module
        """About how long it takes with all contenders on two cores."""
        ...

    async def measure(self, bench: Bench, /) -> list[Table]:
        """Measure, and return the tables."""
        ...


PARTS: dict[str, Part] = {
    "calls": calls,
    "dropped_create": dropped_create,
    "pagination": pagination,
    "start": start,
    "instructions": instructions,
    "waiting": waiting,
    "poller": poller,
    "media": media,
    "bulk": bulk,
    "webhooks": webhooks,
    "review": review,
    "cluster": cluster,
}
