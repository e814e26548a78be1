"""How close the in-flight limiter comes to a schedule that knows the account's limit, in virtual time.

    python benchmarks/bulk_limits.py [--seeds 20]

One run is 300 jobs with lognormal lengths of 60 s on average. The ideal is the list schedule: the jobs in the same
order, each started the moment a seat is free, with no network. The model has the network (a create takes 0.3 s, a
look 0.1 s) and a poller that looks as `PollPolicy` says. Beside the limiter: additive increase and
multiplicative decrease, and all at once with retry on 429.
"""

# ruff: noqa: ARG002 the rivals have the limiter's own signature

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence

from heygen_async.bulk.limits import Limiter
from heygen_async.polling import PollPolicy

JOBS, MEAN, SIGMA = 300, 60.0, 0.6
CREATE, LOOK, RETRY_AFTER = 0.3, 0.1, 5.0
POLICY = PollPolicy()

Limit = Callable[[float], int]


def lengths(seed: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.lognormvariate(math.log(MEAN) - SIGMA**2 / 2, SIGMA) for _ in range(JOBS)]


def ideal(jobs: Sequence[float], limit: Limit, changes: Sequence[float]) -> float:
    """Return how long the list schedule takes."""
    ends: list[float] = []
    now, left = 0.0, list(reversed(jobs))
    while left:
        while left and len(ends) < limit(now):
            heapq.heappush(ends, now + left.pop())
        next_change = min((at for at in changes if at > now), default=math.inf)
        now = heapq.heappop(ends) if ends and ends[0] <= next_change else next_change
    return max([now, *ends])


class Aimd:
    """The textbook's way, for comparison."""

    def __init__(self) -> None:
        self.window, self.in_flight, self.in_air, self.refusals, self._held = 10.0, 0, 0, 0, 0.0

    def may_send(self, now: float) -> bool:
        return now >= self._held and self.in_flight + self.in_air < int(self.window)

    def next_chance(self) -> float:
        return self._held

    def send(self) -> int:
        self.in_air += 1
        return 0

    def accept(self, now: float) -> None:
        self.in_air -= 1
        self.in_flight += 1
        self.window += 1 / self.window

    def refuse(self, lesson: int, now: float, *, retry_after: float | None = None) -> None:
        self.in_air -= 1
        self.refusals += 1
        if now >= self._held:
            self.window, self._held = max(1.0, self.window / 2), now + (retry_after or 0)

    def finish(self) -> None:
        self.in_flight -= 1


class AllAtOnce(Aimd):
    """No limit; each refused create comes again when it was told to."""

    def may_send(self, now: float) -> bool:
        return True

    def refuse(self, lesson: int, now: float, *, retry_after: float | None = None) -> None:
        self.in_air -= 1
        self.refusals += 1


class Model:
    """One run: the account, the poller's looks and the rows, on a heap of events."""

    def __init__(self, limiter: Limiter | Aimd, jobs: Sequence[float], limit: Limit) -> None:
        self.limiter, self.limit = limiter, limit
        self.now, self.ended, self.busy, self.looks = 0.0, 0.0, 0, 0
        self.jobs = jobs
        self.rows = dict.fromkeys(range(len(jobs)), 0.0)  # number: held back until
        self.running: dict[int, list[float]] = {}  # row: start, end, due
        self.seen: list[float] = []
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._looking = False
        self._wake = math.inf

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self._order), what))

    def run(self) -> float:
        self.pump()
        while self.events:
            self.now, _, what = heapq.heappop(self.events)
            what()
        return self.ended

    def pump(self) -> None:
        while self.rows and self.limiter.may_send(self.now):
            ready = min((number for number, held in self.rows.items() if held <= self.now), default=None)
            if ready is None:
                self.wake(min(self.rows.values()))
                return
            del self.rows[ready]
            lesson = self.limiter.send()
            self.at(self.now + CREATE / 2, lambda row=ready, lesson=lesson: self.arrive(row, lesson))
        if self.rows and self.limiter.next_chance() < math.inf:
            self.wake(self.limiter.next_chance())

    def wake(self, when: float) -> None:
        if when > self.now and (when < self._wake or self._wake <= self.now):
            self._wake = when
            self.at(when, self.pump)

    def arrive(self, row: int, lesson: int) -> None:
        back = self.now + CREATE / 2
        if self.busy >= self.limit(self.now):
            self.at(back, lambda: self.refused(row, lesson))
            return
        self.busy += 1
        start, end = self.now, self.now + self.jobs[row]
        self.at(end, self.leave)
        self.at(back, lambda: self.accepted(row, start, end))

    def leave(self) -> None:
        self.busy -= 1

    def refused(self, row: int, lesson: int) -> None:
        self.limiter.refuse(lesson, self.now, retry_after=RETRY_AFTER)
        self.rows[row] = self.now + RETRY_AFTER
        self.pump()

    def accepted(self, number: int, start: float, end: float) -> None:
        self.limiter.accept(self.now)
        self.running[number] = [start, end, 0.0]
        self.rest(number)
        self.pump()

    def rest(self, number: int) -> None:
        job = self.running[number]
        typical = statistics.median(self.seen) if self.seen else 0.0
        job[2] = self.now + POLICY.interval(self.now - job[0], typical)
        self.at(job[2], self.look)

    def look(self) -> None:
        if self._looking or not any(job[2] <= self.now + 1e-9 for job in self.running.values()):
            return
        self._looking = True
        self.looks += 1
        found = {number: job[1] <= self.now + LOOK / 2 for number, job in self.running.items()}
        self.at(self.now + LOOK, lambda: self.looked(found))

    def looked(self, found: dict[int, bool]) -> None:
        self._looking = False
        for number, ended in found.items():
            if ended:
                start, end, _ = self.running.pop(number)
                self.seen = [*self.seen, end - start][-64:]
                self.at(self.now + LOOK, self.finished)  # the GET that brings its link
            else:
                self.rest(number)

    def finished(self) -> None:
        self.limiter.finish()
        self.ended = self.now
        self.pump()


def steady(limit: int) -> tuple[Limit, list[float]]:
    return lambda _: limit, []


def dip(start: float, end: float) -> tuple[Limit, list[float]]:
    return lambda now: 5 if start <= now < end else 10, [start, end]


def zero(start: float, end: float) -> tuple[Limit, list[float]]:
    return lambda now: 0 if start <= now < end else 10, [start, end]


def step(at: float) -> tuple[Limit, list[float]]:
    return lambda now: 10 if now < at else 20, [at]


ACCOUNTS: dict[str, tuple[Limit, list[float]]] = {
    "limit 3": steady(3),
    "limit 10": steady(10),
    "limit 20": steady(20),
    "10, 5, 10 again": dip(600, 1200),
    "10, 0, 10 again": zero(300, 600),
    "10, then 20": step(500),
}
POLICIES: dict[str, Callable[[], Limiter | Aimd]] = {
    "limiter": Limiter,
    "AIMD": Aimd,
    "all at once": AllAtOnce,
}


def measure(account: str, policy: str, seed: int) -> tuple[float, int, float]:
    """Return the ratio to the ideal time, the creates answered 429, and the requests for each row."""
    limit, changes = ACCOUNTS[account]
    jobs = lengths(seed)
    limiter = POLICIES[policy]()
    model = Model(limiter, jobs, limit)
    took = model.run()
    return took / ideal(jobs, limit, changes), limiter.refusals, 2 + (limiter.refusals + model.looks) / JOBS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    print(f"{'account':22} {'policy':12} {'time / ideal':>22} {'429s':>14} {'requests a row':>15}")
    for account, policy in itertools.product(ACCOUNTS, POLICIES):
        runs = [measure(account, policy, seed) for seed in seeds]
        ratios, refused, requests = zip(*runs, strict=True)
        print(
            f"{account:22} {policy:12} {statistics.median(ratios):9.3f} (worst {max(ratios):.3f})"
            f" {statistics.median(refused):6.0f} (worst {max(refused)}) {statistics.median(requests):8.2f}"
        )


if __name__ == "__main__":
    main()
