"""Time, and the event loop that jumps through it.

A `Universe` is one run of one seed: its clocks, what the network and the world still have to do, and its randomness. It
outlives the client: a `VirtualLoop` is one life of the client in it, and may be dropped after any callback.

Three clocks differ: `now`, which is the world's; the event loop's, which stands still while the machine is suspended;
and the wall clock, which can be wrong.
"""

import asyncio
import heapq
import math
import random
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from itertools import count

MOST_STEPS = 400_000
"""More callbacks than any life takes on a day without a long outage: a life that takes more does not end."""

STEPS_A_SECOND = 20
"""More callbacks than a life takes for each second of an outage, during which it tries again all the time."""


class Crashed(BaseException):
    """The process of the client is dead. Raised by whatever a dead process tries to do to its files."""


class Stuck(Exception):
    """The client waits for something that will never happen, or never stops working."""


class Universe:
    """Everything that outlives the client.

    Args:
        seed: Of the randomness.
        wall: What the wall clock shows at the start, in Unix time.
        trace: Takes a line of the log; `None` logs nothing.
    """

    def __init__(self, seed: int, *, wall: float, trace: Callable[[str], None] | None = None) -> None:
        self.now = 0.0
        self.suspended = 0.0
        """For how long the machine has been suspended, in all."""
        self.wall_error = 0.0
        """By how much the wall clock is ahead."""
        self.drift = 0.0
        """By how much it gains, in seconds a second."""
        self.random = random.Random(f"universe {seed}")
        self.is_dead = False
        """Whether the client's process is dead: then it changes no file any more."""
        self.complaints: list[str] = []
        """Warnings, and errors that nobody handles."""
        self._wall = wall
        self._trace = trace
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def wall(self) -> float:
        """Return what the wall clock of the client's machine shows."""
        return self._wall + self.now * (1 + self.drift) + self.wall_error

    def note(self, text: str) -> None:
        """Write a line of the log."""
        if self._trace is not None:
            self._trace(f"{self.now:12.3f}  {text}")

    @property
    def is_traced(self) -> bool:
        """Whether anybody reads the log."""
        return self._trace is not None

    # What the network and the world have to do

    def at(self, when: float, event: Callable[[], None]) -> None:
        """Let *event* happen at a time of the world, whatever becomes of the client."""
        heapq.heappush(self._agenda, (when, next(self._order), event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let *event* happen in so many seconds of the world."""
        self.at(self.now + seconds, event)

    def next_event(self) -> float | None:
        """Return when the next event is due."""
        return self._agenda[0][0] if self._agenda else None

    def happen(self) -> None:
        """Let the next event happen, at its time."""
        when, _, event = heapq.heappop(self._agenda)
        self.now = max(self.now, when)
        event()

    def pass_time(self, seconds: float) -> None:
        """Let time pass without the client."""
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self.happen()
        self.now = end

    def suspend(self, seconds: float) -> None:
        """Suspend the client's machine: the world and its wall clock go on, the loop's clock does not."""
        self.note(f"the machine is suspended for {seconds:.0f} s")
        before = self.now
        self.pass_time(seconds)
        self.suspended += self.now - before


class _Task(asyncio.Task):
    """A task whose place in a set is the same in every process."""

    _numbers = count()

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._number = next(self._numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _Lane:
    """The threads of one executor."""

    def __init__(self, width: int) -> None:
        self.free = width
        self.jobs: deque[_Job] = deque()


class _Job:
    def __init__(self, future: asyncio.Future, work: Callable[[], object], *, is_certain: bool) -> None:
        self.future = future
        self.work = work
        self.is_certain = is_certain


class VirtualLoop(BaseEventLoop):
    """One life of the client: an event loop in a universe.

    Work for threads is done between two callbacks, after the jobs that were given to the same threads before. As in
    the real executors, a job whose future is cancelled before a thread takes it is not done.

    Args:
        universe: Where it lives.
        crash_after: The number of callbacks after which the process dies.
        disk_seconds: The longest time that a job in a thread takes.
    """

    def __init__(self, universe: Universe, *, crash_after: int | None = None, disk_seconds: float = 0.002) -> None:
        super().__init__()
        self.universe = universe
        self.steps = 0
        self.crash_after = crash_after or math.inf
        self.unhandled: list[dict[str, object]] = []
        self.stop_at: int | None = None
        """The number of the callback before which `interrupt` is called."""
        self.interrupt: Callable[[], object] = lambda: None
        self.deadline = float("inf")
        """On the loop's clock; a life that is not over by then is stuck."""
        self._disk_seconds = disk_seconds
        self._lanes: dict[Executor | None, _Lane] = {}
        self.set_task_factory(lambda loop, coro, **kwargs: _Task(coro, loop=loop, **kwargs))
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        """Return the loop's clock."""
        return self.universe.now - self.universe.suspended

    def _write_to_self(self) -> None:
        """Wake nobody: there are no threads."""

    def _run_once(self) -> None:
        self._wait()
        now, scheduled, ready = self.time(), self._scheduled, self._ready
        while scheduled and scheduled[0]._when <= now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self.steps == self.stop_at:
                self.stop_at = None
                self.interrupt()
            if self.steps >= self.crash_after:
                self.universe.is_dead = True
            else:
                self.steps += 1
                handle._run()
            if self.universe.is_dead:
                raise Crashed
            if self.steps >= MOST_STEPS + now * STEPS_A_SECOND or now > self.deadline:
                raise Stuck(f"it is not over after {self.steps} callbacks and {now:.0f} s")

    def _wait(self) -> None:
        """Jump to what is due next, of ours and of the world's."""
        universe, scheduled = self.universe, self._scheduled
        while not self._ready:
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False
            own = scheduled[0]._when + universe.suspended if scheduled else None
            event = universe.next_event()
            if event is not None and (own is None or event <= own):
                universe.happen()
            elif own is not None:
                # Adding what was subtracted may leave the clock just before the timer.
                universe.now = max(universe.now, own)
                while self.time() < scheduled[0]._when:
                    universe.now += 1e-9
                return
            else:
                raise Stuck("nothing is left to do, and the client still waits")

    # Threads

    def run_in_executor(self, executor: Executor | None, func: Callable[..., object], *args: object) -> asyncio.Future:
        """Do work as a thread of *executor* does it."""
        return self._submit(executor, partial(func, *args), is_certain=False)

    async def run_in_worker(self, func: Callable[..., object], *args: object, **_: object) -> object:
        """Do work as `anyio.to_thread.run_sync` does it: what was submitted is done, even if it is cancelled."""
        await asyncio.sleep(0)
        return await self._submit(None, partial(func, *args), is_certain=True)

    def _submit(self, executor: Executor | None, work: Callable[[], object], *, is_certain: bool) -> asyncio.Future:
        future = self.create_future()
        lane = self._lanes.get(executor)
        if lane is None:
            lane = self._lanes[executor] = _Lane(getattr(executor, "_max_workers", 8))
        lane.jobs.append(_Job(future, work, is_certain=is_certain))
        self.call_soon(self._take, lane)
        return future

    def _take(self, lane: _Lane) -> None:
        if not lane.jobs or not lane.free:
            return
        job = lane.jobs.popleft()
        if job.future.cancelled() and not job.is_certain:
            self.call_soon(self._take, lane)
            return
        lane.free -= 1
        result: object = None
        failure: Exception | None = None
        try:
            result = job.work()
        except Exception as error:  # noqa: BLE001 it is carried to whoever awaits it
            failure = error
        self.call_later(self.universe.random.random() * self._disk_seconds, self._finish, lane, job, result, failure)

    def _finish(self, lane: _Lane, job: _Job, result: object, failure: Exception | None) -> None:
        lane.free += 1
        if lane.jobs:
            self.call_soon(self._take, lane)
        if job.future.done():
            return
        if failure is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(failure)

    # Ends

    def leftovers(self) -> list[str]:
        """Return what is still to happen in this life."""
        tasks = [f"the task {task.get_coro()!r}" for task in asyncio.all_tasks(self)]
        timers = [f"the timer {timer!r}" for timer in self._scheduled if not timer._cancelled]
        jobs = [f"the job {job.work!r}" for lane in self._lanes.values() for job in lane.jobs]
        return tasks + timers + jobs

    def drop(self) -> None:
        """End this life as the death of a process does: nothing of it runs any more that has an effect."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False
        self._ready.clear()
        self._scheduled.clear()
        self._lanes.clear()
        self.unhandled.clear()
        self.close()
