"""What happens during a life, besides mishaps of requests: to clocks, files, money and seats, and by other people."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from .fault_kinds import OUTAGES
from .network import Mishap
from .scenario import Fault

if TYPE_CHECKING:
    from .lives import Life, Simulation
    from .network import Network

_EDITS = frozenset(
    {"row added", "row on top", "row removed", "rows reordered", "output renamed", "outputs swapped", "audio changed"}
)
_FILES = frozenset(
    {"foreign file", "foreign part", "output deleted", "output emptied", "output replaced", "source changed"}
)
_FAR = 10**9


@frozen
class Happenings:
    """What can happen in one life."""

    simulation: Simulation
    life: Life
    network: Network
    main: asyncio.Task[None]

    def of(self, fault: Fault) -> Callable[[], object] | None:
        """Return what lets *fault* happen; `None` if it does not happen at a time."""
        author, journal, disk = self.simulation.author, self.life.plan.journal, self.simulation.disk
        assert disk is not None
        if fault.what in _EDITS:
            return partial(disk.by_people, partial(author.edit, fault, journal))
        if fault.what in _FILES:
            return partial(disk.by_people, partial(author.touch_files, fault, journal))
        known: dict[str, Callable[[], object]] = {
            "clock": partial(self._set_clock, fault.value),
            "suspend": partial(self.simulation.universe.suspend, fault.value),
            "other jobs": partial(self._use_seats, int(fault.value)),
            "no credit": partial(self._set_credit, 0),
            "credit again": partial(self._set_credit, _FAR),
            "assets lost": self.simulation.service.lose_assets,
            "foreign job": partial(self._foreign_job, fault.on),
            "journal copied": partial(self._copy_journal, journal),
            "stopped by its user": self.main.cancel,
            **{what: partial(self._begin_outage, fault, Mishap(*mishap)) for what, mishap in OUTAGES.items()},
        }
        return known.get(fault.what)

    def _copy_journal(self, name: str) -> None:
        """Copy a journal, unless it may be closed and has created nothing: then it is like a new one."""
        if self.simulation.has_created(name) or not self.main.cancelling():
            copy_journal(self.simulation.journal(name))

    def _use_seats(self, count: int) -> None:
        """Let other programs use some of the account's seats, for five minutes."""
        service, limit = self.simulation.service, self.simulation.scenario.conditions.account_limit
        service.world.resize(service.settle(), account_limit=limit, other_jobs=count)
        self.simulation.universe.note(f"other programs use {count} seats")
        if count:
            self.simulation.universe.after(300.0, partial(self._use_seats, 0))

    def _begin_outage(self, fault: Fault, mishap: Mishap) -> None:
        """Let all requests on a route have no usable answer, for a while."""
        self.network.outages[fault.on] = mishap
        self.simulation.universe.note(str(fault))
        self.simulation.universe.after(fault.value, partial(self.network.outages.pop, fault.on, None))

    def _set_clock(self, seconds: float) -> None:
        self.simulation.universe.wall_error += seconds
        self.simulation.universe.note(f"the wall clock jumps by {seconds:g} s")

    def _set_credit(self, micros: int) -> None:
        self.simulation.service.world._balance = micros
        self.simulation.universe.note(f"the credit is {micros}")

    def _foreign_job(self, key: str) -> None:
        """Let another program create a job that looks like the row's, and is not."""
        rows = self.simulation.author.rows[self.life.plan.journal]
        row = next((one for one in rows if one.key == key), None)
        if row is None:
            return
        body = {
            "video": {"type": "url", "url": "https://example.com/foreign.mp4"},
            "audio": {"type": "url", "url": "https://example.com/foreign.mp3"},
            "title": "A foreign job",
        }
        if row.callback_id is not None:
            body["callback_id"] = row.callback_id
        self.simulation.service.create_foreign(body)


def copy_journal(path: Path) -> None:
    """Copy a journal as it is, for a later restore."""
    if path.exists():
        shutil.copyfile(path, path.with_suffix(".copy"))
