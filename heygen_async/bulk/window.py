"""How many rows of a run may be active, or have an outcome that was not taken yet, so that memory stays bounded."""

from __future__ import annotations

import asyncio

from attrs import Factory, define, field


@define(eq=False)
class Window:
    """The rows that are active, or whose outcome was not taken yet.

    Args:
        size: How many there may be, beside those for which `widen` was called.
    """

    size: int
    _free: asyncio.Semaphore = field(
        init=False, default=Factory(lambda self: asyncio.Semaphore(self.size), takes_self=True)
    )
    _extra: set[str] = field(factory=set, init=False)
    """Keys of active rows that do not count against `size`."""

    async def enter(self) -> None:
        """Wait until there is room for another row."""
        await self._free.acquire()

    def widen(self, key: str) -> None:
        """Make room for another row while the row with *key* is active: it waits for rows that may not have started."""
        if key not in self._extra:
            self._extra.add(key)
            self._free.release()

    def leave(self, key: str) -> None:
        """Note that the outcome of the row with *key* was taken."""
        if key in self._extra:
            self._extra.remove(key)
        else:
            self._free.release()
