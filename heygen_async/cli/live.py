"""Progress of transfers and waits, on standard error if that is a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from heygen_async._text import one_line
from heygen_async.cli.options import Printing
from heygen_async.cli.output import wants_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from heygen_async import HeyGenSession
    from heygen_async.polling import WaitingFor

_TICK: Final = 0.25
_DUMB: Final = ("dumb", "unknown")


def is_watched(options: Printing) -> bool:
    """Return whether a person watches standard error, on a terminal that can replace what it shows."""
    return not wants_json(options.json) and sys.stderr.isatty() and os.environ.get("TERM") not in _DUMB


@contextmanager
def transfer(label: str, options: Printing) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar for one transfer; yields a callback that takes the bytes done and in all."""
    if not is_watched(options):
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 most commands need none of it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(one_line(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(
    heygen: HeyGenSession, count: int, options: Printing
) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Show the states of *count* jobs, as the session's poller knows them, while the body waits for them.

    Yields a context manager for printing something else meanwhile.
    """
    if not is_watched(options):
        yield nullcontext
        return
    from rich.console import Console  # noqa: PLC0415 most commands need none of it
    from rich.text import Text  # noqa: PLC0415

    clock = asyncio.get_running_loop().time
    started = clock()
    console = Console(stderr=True)
    with console.status("waiting", spinner="dots" if console.encoding.startswith("utf") else "line") as status:

        def update() -> None:
            states = [_state(each) for each in heygen.poller.snapshot().waiting.values()]
            status.update(Text(summary(states, count, clock() - started)))

        @contextmanager
        def aside() -> Iterator[None]:
            status.stop()
            try:
                yield
            finally:
                status.start()

        with ticking(update):
            yield aside


@contextmanager
def live(view: Callable[[], RenderableType]) -> Iterator[None]:
    """Show *view* on standard error while the body runs; it is called on the event loop, so it may read its state."""
    from rich.console import Console  # noqa: PLC0415 most commands need none of it
    from rich.live import Live  # noqa: PLC0415

    shown = Live(console=Console(stderr=True), get_renderable=view, auto_refresh=False, transient=True)
    with shown, ticking(shown.refresh):
        yield


@contextmanager
def ticking(call: Callable[[], object]) -> Iterator[None]:
    """Call *call* on the event loop several times a second while the body runs."""
    loop = asyncio.get_running_loop()
    timer: asyncio.Handle

    def tick() -> None:
        nonlocal timer
        call()
        timer = loop.call_later(_TICK, tick)

    timer = loop.call_soon(tick)
    try:
        yield
    finally:
        timer.cancel()


def _state(job: WaitingFor) -> str:
    trouble = f" ({type(job.error).__name__})" if job.error else ""
    return one_line(f"{job.status or 'waiting'}{trouble}")


def summary(states: list[str], count: int, seconds: float) -> str:
    """Return one line on *count* jobs: how many have ended, the *states* of the others, and the *seconds* so far."""
    shown = ", ".join(f"{many} {state}" if count > 1 else state for state, many in sorted(Counter(states).items()))
    ended = f"{count - len(states)} of {count} done" if count > 1 else ""
    minutes, left = divmod(int(seconds), 60)
    return ", ".join(part for part in (ended, shown, f"{minutes}:{left:02}") if part)
