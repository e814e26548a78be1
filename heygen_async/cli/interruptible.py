"""A command on an event loop, which the first signal cancels: its clean-up runs, and `Interrupted` is raised then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from heygen_async.cli.interrupts import Interrupted, Interrupts

T = TypeVar("T")


def run_interruptible(command: Coroutine[Any, Any, T], interrupts: Interrupts) -> T:
    """Run *command* on an event loop of its own.

    Raises:
        Interrupted: If a signal came and the command did not complete. What it raised is the `__cause__`.
    """
    return asyncio.run(_interruptible(command, interrupts))


async def _interruptible(command: Coroutine[Any, Any, T], interrupts: Interrupts) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 this is a coroutine
    try:
        with (
            interrupts.cancelling(lambda: loop.call_soon_threadsafe(task.cancel)) as numbers,
            _waking(loop, numbers, interrupts),
        ):
            return await command
    except (asyncio.CancelledError, Exception) as error:
        if interrupts.first is None:
            raise
        raise Interrupted(interrupts.first) from error


@contextmanager
def _waking(loop: asyncio.AbstractEventLoop, numbers: Sequence[int], interrupts: Interrupts) -> Iterator[None]:
    """Have the signals with these *numbers* wake the *loop*.

    A handler of `signal` alone runs late if the signal comes just before the loop begins to wait: only the loop's
    own handler makes the signal write to the descriptor that wakes it. Ours replaces it after that, because it
    also runs while the loop is blocked, for instance by a full pipe.
    """
    for number in numbers:
        with suppress(NotImplementedError):  # Windows: there every signal wakes the loop
            loop.add_signal_handler(number, _nothing)
        signal.signal(number, interrupts.on_signal)
    try:
        yield
    finally:
        for number in numbers:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, interrupts.on_signal)


def _nothing() -> None:
    """Do nothing: the signal was handled already."""
