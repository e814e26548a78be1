"""The run of one seed: the client lives, dies and lives again in one universe, and is checked after each life."""

import asyncio
import random
import shutil
import sqlite3
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import orjson
from anyio import to_thread
from attrs import asdict, define, evolve, field
from memory_store import MemoryStore

from heygen_async import HeyGenSession, PollPolicy
from heygen_async.bulk import BadRows
from heygen_async.bulk.plan import Plan
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.store import UnixClock
from heygen_async.errors import HeyGenError
from heygen_async.models import DubOutcome
from heygen_async.sandbox.error_answers import ErrorAnswer
from heygen_async.sandbox.state.scripts import JobScript

from .author import Author
from .cluster import Cluster
from .disk import Disk, FileTimes
from .edges import collect_dead
from .happenings import Happenings, copy_journal
from .network import HttpRequest, Mishap, Network
from .scenario import DAY, Fault, LifePlan, Scenario
from .server import API, Service
from .universe import Crashed, Stuck, Universe, VirtualLoop
from .workers import Worker, prepared

_START = 1_800_000_000.0
"""What the wall clock shows at first, in the year 2027: after the times of all real files."""

_CALM_SECONDS = 6 * 3600.0
"""The longest time that a run may take once the world is calm."""
_CALM_CLUSTER_SECONDS = 1800.0
_ROUGH_SECONDS = 40 * DAY
_CALM_LIVES = 6

_MISHAPS = frozenset(
    {
        "request lost",
        "answer lost",
        "request and connection silent",
        "answer silent",
        "late",
        "answer late",
        "doubled",
        "refused",
        "answer replaced",
        "answer truncated",
        "cut",
        "a foreign file appears",
        "sources change",
    }
)
_SLOW = PollPolicy(fastest=2.0, growth=0.2, slowest=30.0)


class Violation(Exception):
    """A promise that was broken.

    Args:
        promise: Which one, in a few words.
        what: What happened.
    """

    def __init__(self, promise: str, what: str) -> None:
        self.promise = promise
        self.what = what
        super().__init__(promise, what)  # as they came, or it could not be sent to another process

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


@define(eq=False)
class Life:
    """One life of the client, and what came of it."""

    number: int
    plan: LifePlan
    is_calm: bool
    end: str = ""
    """`clean`, `crashed`, `refused`, or the name of an error."""
    outcomes: list[DubOutcome] = field(factory=list)
    refused: BadRows | None = None
    violation: Violation | None = None


@define(eq=False)
class Simulation:
    """The run of a scenario.

    Args:
        scenario: What happens.
        folder: An empty folder.
        trace: Takes lines of the log.
    """

    scenario: Scenario
    folder: Path
    check_outcome: Callable[["Simulation", DubOutcome], None]
    check_life: Callable[["Simulation", Life], None]
    trace: Callable[[str], None] | None = None
    universe: Universe = field(init=False)
    service: Service = field(init=False)
    author: Author = field(init=False)
    lives: list[Life] = field(factory=list)
    restored: set[str] = field(factory=set)
    """The journals that were restored from an older copy, and not run to a clean end since."""
    was_restored: set[str] = field(factory=set)
    """The journals that were ever restored."""
    store: MemoryStore = field(factory=MemoryStore)
    """What workers share."""
    prepared: list[PreparedRow] = field(factory=list)
    cluster: Cluster | None = None
    requests: int = 0
    disk: Disk | None = None
    _file_times: FileTimes = field(init=False)
    """When files were changed, in all lives."""
    _network: Network | None = None
    _life_start: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.universe = Universe(self.scenario.seed, wall=_START, trace=self.trace)
        self.universe.drift = self.scenario.drift
        self._file_times = FileTimes(self.universe)
        self.service = Service(self.universe, self.scenario.conditions, self._script)
        (self.folder / "tmp").mkdir()
        self.author = Author(self.universe, self.scenario, self.folder)

    # How jobs go

    def _script(self, canon: str, script: JobScript) -> JobScript:
        dice = random.Random(f"{self.scenario.seed} {canon} {self._jobs_of(canon)}")
        seconds = dice.uniform(*self.scenario.seconds)
        script = evolve(script, seconds=seconds, duration=self.scenario.duration)
        key = next((keys[canon] for keys in self.author.canons.values() if canon in keys), None)
        failing = self.scenario.failing.get(key or "")
        if failing is None or self._jobs_of(canon) >= failing.times:
            return script
        if failing.refusal:
            raise ErrorAnswer(400, "download_failed", "The audio could not be downloaded.", "audio.url")
        return evolve(script, failure=failing.message or "?")

    def _jobs_of(self, canon: str) -> int:
        return sum(one.canon == canon for one in self.service.creations)

    # Lives

    def live(self) -> None:
        """Live all lives, and check what came of each.

        Raises:
            Violation: If a promise was broken.
        """
        for number, plan in enumerate(self.scenario.lives):
            self._one(Life(number, plan, is_calm=False))
        self._calm_down()
        journals = sorted({plan.journal for plan in self.scenario.lives})
        for journal in journals:
            for count in range(_CALM_LIVES):
                plan = LifePlan(journal=journal, retry_failed=True)
                self._one(life := Life(100 + count, plan, is_calm=True))
                self.universe.pass_time(600.0 if count == 0 else 25 * 3600.0)  # some advice is to wait a day
                if life.end == "clean" and self._is_complete(life):
                    break

    def _is_complete(self, life: Life) -> bool:
        if self.cluster is not None:
            return all(record.state is State.DONE for record in self.cluster.records())
        return all(one.state in {"completed", "unchanged"} for one in life.outcomes)

    def _calm_down(self) -> None:
        """Let everything that is under way arrive, and make the world a friendly place."""
        universe, service = self.universe, self.service
        universe.note("from here on the world is calm")
        universe.pass_time(1000.0)
        universe.wall_error = universe.drift = 0.0
        service.world._balance = 10**12
        service.world.resize(service.settle(), account_limit=10, other_jobs=0)
        self.author.calm_down()

    def _one(self, life: Life) -> None:
        self._before(life)
        self.lives.append(life)
        self.universe.note(f"life {life.number} begins: {life.plan}")
        disk = self.disk = Disk(self.universe, self.folder, self._file_times)
        faults = [] if life.is_calm else [one for one in self.scenario.faults if one.life == life.number]
        self._prepare_disk(disk, faults)
        mishaps = {(one.on, int(one.at)): Mishap(one.what, one.value) for one in faults if one.what in _MISHAPS}
        self._network = network = Network(
            self.universe, self.service, mishaps, life=life, disturb=partial(self._disturb, life)
        )
        crash = next((int(one.at) for one in faults if one.what == "crash at callback"), None)
        loop = VirtualLoop(self.universe, crash_after=crash, disk_seconds=life.plan.disk_seconds)
        loop.stop_at = next((int(one.at) for one in faults if one.what == "stopped at callback"), None)
        calm = _CALM_CLUSTER_SECONDS if self.scenario.is_cluster else _CALM_SECONDS
        loop.deadline = loop.time() + (calm if life.is_calm else _ROUGH_SECONDS)
        self._life_start = loop.time()
        with disk.mounted():
            self._run(loop, life, network, faults)
        self.requests += sum(network.counts.values())
        self.universe.note(f"life {life.number} ends: {life.end}")
        if life.violation is not None:
            raise life.violation
        if any(one.what == "journal copied at the end" for one in faults) and self.has_created(life.plan.journal):
            # The copy of one that had created nothing would be like a new journal, which may pay again after a day.
            copy_journal(self.journal(life.plan.journal))
        if life.end == "clean" and all(one.state != "failed" for one in life.outcomes):  # such a row is not looked for
            self.restored.discard(life.plan.journal)
        self.check_life(self, life)
        if life.refused is not None:
            self.author.repair(life.plan.journal, life.refused)

    def _disturb(self, life: Life, request: HttpRequest, effect: str) -> None:
        """Change local files, or put a foreign file where the video that is being downloaded is to go."""
        assert self.disk is not None
        if effect == "sources change":
            self.disk.by_people(partial(self.author.change_sources, life.plan.journal))
            return
        creation = self.service.by_job.get(request.target.rpartition("/")[2].partition(".")[0])
        key = None if creation is None else self.author.canons[life.plan.journal].get(creation.canon)
        if key is not None:
            fault = Fault(life=life.number, what="foreign file", on=key, at=self.universe.now)
            self.disk.by_people(partial(self.author.touch_files, fault, life.plan.journal))

    def _before(self, life: Life) -> None:
        """Let happen what happens between two lives."""
        known = {
            "gap": self.universe.pass_time,
            "clock at start": self._set_clock,
            "journal restored": partial(self._restore, life),
            "journal lost": partial(self._lose, life),
        }
        for one in self.scenario.faults:
            if one.life == life.number and one.what in known:
                self.universe.note(str(one))
                known[one.what](one.value)

    def _set_clock(self, ahead: float) -> None:
        self.universe.wall_error = ahead

    def has_created(self, journal: str) -> bool:
        """Return whether a run with this journal has created a job."""
        return any(one.life is not None and one.life.plan.journal == journal for one in self.service.creations)

    def _restore(self, life: Life, seconds: float) -> None:
        # What was under way when a journal was copied has arrived, and is listed, before the copy is used.
        self.universe.pass_time(seconds)
        copy = self.journal(life.plan.journal).with_suffix(".copy")
        if copy.exists():
            shutil.copyfile(copy, self.journal(life.plan.journal))
            self.restored.add(life.plan.journal)
            self.was_restored.add(life.plan.journal)

    def _lose(self, life: Life, seconds: float) -> None:
        """Lose the journal of a life and what it has written; what was under way arrives before that."""
        self.universe.pass_time(seconds)
        name = life.plan.journal
        self.journal(name).unlink(missing_ok=True)
        self.author.remove_outputs(name)
        self.was_restored.add(name)

    def journal(self, name: str) -> Path:
        """Return the path of a journal."""
        return self.folder / f"{name}.sqlite"

    def records(self, journal: str) -> list[dict[str, Any]]:
        """Return the records of the rows of a manifest, as the client has kept them."""
        if self.cluster is not None:
            return [_plain(record) for record in self.cluster.records()]
        if self.scenario.workers > 1:
            return [_plain(record) for record in self.store.records.values()]
        path = self.journal(journal)
        return read_journal(path) if path.exists() else []

    @staticmethod
    def _prepare_disk(disk: Disk, faults: list[Fault]) -> None:
        for one in faults:
            span = range(int(one.at), int(one.at + one.value))
            match one.what:
                case "crash at change":
                    disk.crash_at = int(one.at)
                case "disk full at change":
                    disk.full = span
                case "disk full at statement":
                    disk.full_statements = span

    def _run(self, loop: VirtualLoop, life: Life, network: Network, faults: list[Fault]) -> None:
        """Run one life to its end, whatever that is."""
        asyncio.set_event_loop(loop)
        stuck = self._until_end(loop, life, network, faults)
        asyncio.set_event_loop(None)
        # Here, where no traceback holds its frames any more.
        if stuck is None and not self.universe.is_dead:
            self._check_leftovers(loop, network)
            loop.close()
            return
        self._bury(loop, network)
        life.end = "crashed"
        if stuck is not None:
            raise Violation("every run ends", stuck)

    def _until_end(self, loop: VirtualLoop, life: Life, network: Network, faults: list[Fault]) -> str | None:
        """Run until the life is over or the process dies; return why it is stuck if it is."""
        try:
            with mock.patch.object(to_thread, "run_sync", loop.run_in_worker):
                loop.run_until_complete(self._main(loop, life, network, faults))
                loop.run_until_complete(asyncio.sleep(1.0))  # connections close
        except Crashed:
            return None
        except Stuck as stuck:
            return str(stuck)
        return None

    def _bury(self, loop: VirtualLoop, network: Network) -> None:
        """Collect what a dead process leaves in memory, which must have no effect."""
        self.universe.is_dead = True
        assert self.disk is not None
        self.disk.die()
        loop.drop()
        network.die()
        collect_dead()
        self.universe.is_dead = False

    def _check_leftovers(self, loop: VirtualLoop, network: Network) -> None:
        assert self.disk is not None
        left = loop.leftovers() + self.disk.leftovers() + network.leftovers()
        left += self.universe.complaints
        left += [f"an error: {one.get('message')} {one.get('exception')!r}" for one in loop.unhandled]
        if left:
            raise Violation("nothing is left", "; ".join(left))

    def early_requests(self) -> list[str]:
        """Return the requests of this life that the service had asked to wait with."""
        return [] if self._network is None else self._network.problems

    def busiest_minutes(self) -> dict[str, int]:
        """Return how often each route was used in some minute of an outage in this life, at the most."""
        found: Counter[str] = Counter()
        recent: deque[tuple[str, float]] = deque()
        for route, at in [] if self._network is None else self._network.during_outages:
            recent.append((route, at))
            while recent[0][1] < at - 60.0:
                recent.popleft()
            found[route] = max(found[route], sum(one == route for one, _ in recent))
        return found

    # What happens in a life

    async def _main(self, loop: VirtualLoop, life: Life, network: Network, faults: list[Fault]) -> None:
        task = asyncio.current_task()
        assert task is not None
        happenings = Happenings(self, life, network, task)
        timers = [loop.call_later(one.at, happen) for one in faults if (happen := happenings.of(one)) is not None]
        loop.interrupt = partial(self._interrupt, task)
        end = "clean"
        try:
            if self.scenario.is_cluster:
                await self._clustered(life, network, faults)
            elif self.scenario.workers > 1:
                await self._shared(life, network, faults)
            else:
                await self._session(life, network)
        except BadRows as refused:
            end, life.refused = "refused", refused
        except asyncio.CancelledError:
            end = "stopped"
        except (HeyGenError, OSError) as error:
            end = f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 whatever it is, it is a bug
            if not self.universe.is_dead:  # else this runs because it is collected
                life.violation = Violation("the client raises its own errors only", repr(error))
        if not self.universe.is_dead:
            life.end = end
            for timer in timers:
                timer.cancel()

    def _interrupt(self, task: asyncio.Task[None]) -> None:
        self.universe.note("the user stops it")
        task.cancel()

    async def _shared(self, life: Life, network: Network, faults: list[Fault]) -> None:
        """Let workers work through the rows over one store."""
        loop, rows = asyncio.get_running_loop(), await self._prepared()
        count = 1 if life.is_calm else self.scenario.workers
        make = partial(Worker, universe=self.universe, store=self.store, network=network, rows=rows)
        report = partial(self._report, life)
        workers = [make(number=number, report=report) for number in range(count)]
        timers = []
        for one in faults:
            worker = workers[int(one.value) % count]
            if one.what == "worker killed":
                timers.append(loop.call_later(one.at, worker.kill))
            elif one.what == "worker frozen":
                timers.append(loop.call_later(one.at, worker.freeze, one.value * 10))
            elif one.what == "worker frozen at call":
                worker.freezes[int(one.at)] = one.value * 10
            elif one.what == "worker frozen before a file":
                worker.file_freezes[int(one.at)] = one.value * 10
        try:
            async with asyncio.TaskGroup() as tasks:
                for worker in workers:
                    tasks.create_task(worker.work())
        finally:
            for timer in timers:
                timer.cancel()

    async def _prepared(self) -> list[PreparedRow]:
        author = self.author
        author.note_meaning()
        if not self.prepared:  # once: later their outputs are there, which a store of its own would not know of
            self.prepared = await prepared([author.dub_row(row) for row in author.rows["a"]], author.output_dir("a"))
        return self.prepared

    async def _clustered(self, life: Life, network: Network, faults: list[Fault]) -> None:
        """Let the workers of a cluster work through the rows."""
        rows = await self._prepared()
        if self.cluster is None:
            self.cluster = Cluster(self.universe, self.author.output_dir("a"), start=_START)
            self.cluster.enqueue(rows)
        elif life.is_calm:
            self.cluster.tables.halted = None
            self.cluster.forgive()
        network.is_shared = True
        await self.cluster.work(self.scenario.workers, network, faults, is_calm=life.is_calm)

    def _report(self, life: Life, outcome: DubOutcome) -> None:
        life.outcomes.append(outcome)
        try:
            self.check_outcome(self, outcome)
        except Violation as violation:  # it is raised once the life is over
            life.violation = life.violation or violation

    async def _session(self, life: Life, network: Network) -> None:
        plan, journal = life.plan, life.plan.journal
        policy = PollPolicy() if plan.is_eager else _SLOW
        rows = self.author.rows_given(journal)
        async with (
            aiohttp.ClientSession(connector=network.connector()) as borrowed,
            HeyGenSession("secret-key", base_url=API, http=borrowed, polling=policy) as heygen,
        ):
            heygen._calls.transfers.multipart_max = plan.multipart_max
            options = Plan(
                journal=self.journal(journal),
                output_dir=self.author.output_dir(journal),
                max_in_flight=plan.max_in_flight,
                max_attempts=plan.max_attempts,
                budget=plan.budget,
                submit=plan.submit,
                captions=plan.captions,
                retry_failed=plan.retry_failed,
                clock=UnixClock(heygen._transport.server_time.now, heygen._transport.server_time.latest),
            )
            run = DubRun(heygen._bulk_calls(), rows, options, origin=API)
            async with run:
                self.author.accept(journal)
                async for outcome in run:
                    self.universe.note(f"outcome {outcome.key}: {outcome.state} {outcome.error or ''}")
                    self._report(life, outcome)


def _plain(record: Record) -> dict[str, Any]:
    return {**asdict(record, recurse=False), "earlier": orjson.dumps(record.earlier), "run": 0}


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a journal that nobody uses."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
            return []  # its process died before the first tables were made
        cursor = database.execute("SELECT * FROM rows ORDER BY rowid")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, values, strict=True)) for values in cursor]
    finally:
        database.close()
