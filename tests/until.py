"""Wait for a condition that nothing announces."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    """Return once *condition* is true; raise `TimeoutError` after *seconds* without it."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 nothing sets an event
            await asyncio.sleep(0.001)
