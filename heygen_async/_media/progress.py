"""How a caller learns of the bytes that have moved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int | None], Awaitable[None] | None]
"""Called with bytes done and in all; `None` where the total is not known. May be a coroutine function.

What it raises ends the transfer and reaches the caller. A repeated attempt starts at fewer bytes again.
"""


async def report(progress: Progress | None, done: int, total: int | None) -> None:
    """Call *progress*, if there is one, and wait for it if it is a coroutine function."""
    if progress is not None:
        result = progress(done, total)
        if isawaitable(result):
            await result
