"""What goes on while a command waits, for the person in front of it; on standard error, and only on a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from heygen_async import HeyGenSession
from heygen_async.cli.options import Options
from heygen_async.cli.output import wants_json
from heygen_async.polling import WaitingFor

_TICK: Final = 0.5


def is_watched(options: Options) -> bool:
    """Tell whether a person looks at standard error."""
    return not wants_json(options.json) and sys.stderr.isatty()


@contextmanager
def transfer(label: str, options: Options) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar for one file that goes up or comes down; yields what to tell of bytes done and in all."""
    if not is_watched(options):
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 most commands need none of it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(
    heygen: HeyGenSession, count: int, options: Options
) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Show what the session's poller knows of *count* jobs while the body waits for them.

    Yields what to put around printing something else meanwhile.
    """
    if not is_watched(options):
        yield nullcontext
        return
    from rich.console import Console  # noqa: PLC0415 most commands need none of it

    loop = asyncio.get_running_loop()
    started = loop.time()
    timer: asyncio.Handle
    with Console(stderr=True).status("waiting") as status:

        def tick() -> None:
            nonlocal timer
            states = [_state(each) for each in heygen.poller.snapshot().waiting.values()]
            status.update(summary(states, count, loop.time() - started))
            timer = loop.call_later(_TICK, tick)

        @contextmanager
        def aside() -> Iterator[None]:
            status.stop()
            yield
            status.start()

        timer = loop.call_soon(tick)
        try:
            yield aside
        finally:
            timer.cancel()


def _state(job: WaitingFor) -> str:
    trouble = f" ({type(job.error).__name__})" if job.error else ""
    return f"{job.status or 'waiting'}{trouble}"


def summary(states: list[str], count: int, seconds: float) -> str:
    """Return one line on *count* jobs, of which those not done are in *states*, after so many *seconds*."""
    told = ", ".join(f"{many} {state}" if count > 1 else state for state, many in sorted(Counter(states).items()))
    done = f"{count - len(states)} of {count} done" if count > 1 else ""
    minutes, left = divmod(int(seconds), 60)
    return ", ".join(part for part in (done, told, f"{minutes}:{left:02}") if part)
