"""A process that is killed with SIGKILL in the middle of a bulk run, again and again, each time a little later.

It reads lines `POINT URL FOLDER`, runs each in a fork of itself, so that everything is imported once, and prints
`killed` or `done`. The run dies at its POINT-th point: before and after each write to the journal, and at each event.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path

from attrs import evolve
from bulk_stage import QUICK, hasty_run, rows

from heygen_async import HeyGenSession, PollPolicy
from heygen_async.bulk.journal import Journal
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_AUDIO


def rows_of_a_killable_run() -> list[DubRow]:
    first, second = rows(2)
    return [first, evolve(second, audio=SAMPLE_AUDIO)]


def die_at(point: int) -> Callable[[], None]:
    points = count(1)

    def pass_by() -> None:
        if next(points) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return pass_by


def watch(name: str, pass_by: Callable[[], None]) -> None:
    write = getattr(Journal, name)

    async def watched(self: Journal, *arguments: object) -> object:
        pass_by()
        done: Coroutine[object, object, object] = write(self, *arguments)
        result = await done
        pass_by()
        return result

    setattr(Journal, name, watched)


async def live(point: int, url: str, folder: Path) -> None:
    pass_by = die_at(point)
    for name in ("admit", "save", "keep_asset"):
        watch(name, pass_by)
    polling = PollPolicy(fastest=0.005, slowest=0.02)
    async with HeyGenSession("sandbox-key", base_url=url, retry=QUICK, polling=polling) as heygen:
        run = hasty_run(
            heygen,
            rows_of_a_killable_run(),
            origin=url,
            journal=folder / "run.sqlite",
            output_dir=folder / "out",
            redo_rejected=True,
            on_event=lambda _: pass_by(),
        )
        async with run:
            async for _ in run:
                pass


def main() -> None:
    for line in sys.stdin:
        point, url, folder = line.split()
        child = os.fork()
        if not child:
            asyncio.run(live(int(point), url, Path(folder)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        answer = "killed" if os.WIFSIGNALED(status) else "done" if status == 0 else "failed"
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
