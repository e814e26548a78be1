"""A worker: slots for each kind of step, its heartbeat, and its attempts to become the scheduler.

Rule 1: it lives as long as its own connection does: the others see its end by that.
Rule 2: it ends in order: transfers are put back, creates are finished, and the lease is given up.
Rule 3: a worker that cannot reach the API rests, if there is another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, LiteralString

import psycopg
from attrs import define, field, frozen
from psycopg import sql

from heygen_async._task_group import TaskGroup
from heygen_async.bulk.cluster.accounts import MOST_REQUESTS, AccountStore, Lease, LeaseLost
from heygen_async.bulk.cluster.api_calls import Api
from heygen_async.bulk.cluster.database import Database, DatabaseLost, RetryingStatements, translated
from heygen_async.bulk.cluster.delivery import WorkDelivery
from heygen_async.bulk.cluster.looks import Reachability
from heygen_async.bulk.cluster.postgres import PostgresStore
from heygen_async.bulk.cluster.rows import WorkKind
from heygen_async.bulk.cluster.scheduler_store import SchedulerStore
from heygen_async.bulk.cluster.scheduling import ApiUnreachable, DatabaseClock, Scheduler, Tuning
from heygen_async.bulk.cluster.schema import CHANNEL
from heygen_async.bulk.cluster.steps import Steps
from heygen_async.bulk.searching import Searcher
from heygen_async.bulk.store import UnixClock

BEAT_SECONDS: Final = 0.5
"""Seconds between two heartbeats."""
RECONNECT_SECONDS: Final = 0.05
"""Seconds between two attempts to connect again."""
_AWAY: Final = 2
"""After how many such attempts a warning says that the worker waits for the database."""
CANDIDATE_SECONDS: Final = 0.25
"""Seconds between two attempts to become the scheduler."""
REST_SECONDS: Final = 30.0
"""How long a worker rests that cannot reach the API."""
GRACE_SECONDS: Final = 5.0
"""How long the end of a worker waits for the answers of creates."""
CREATES: Final = 8
_LEAVE_SECONDS: Final = 0.5
"""The most that each write takes with which a worker or a scheduler gives up what it holds, in seconds."""

_BEAT: Final[LiteralString] = f"""
INSERT INTO workers (name, account, host, process, pid, beat)
VALUES (%(name)s, %(account)s, %(host)s, %(process)s, pg_backend_pid(), unix_time())
ON CONFLICT (name) DO UPDATE SET pid = excluded.pid, beat = excluded.beat
RETURNING ({MOST_REQUESTS}) IS NOT NULL
"""  # noqa: S608 a statement of ours

_logger: Final = logging.getLogger("heygen_async")


@frozen(kw_only=True)
class Slots:
    """How many steps of each kind a worker takes at once."""

    uploads: int = 4
    downloads: int = 4

    def by_kind(self) -> Mapping[WorkKind, int]:
        """Return them by kind."""
        return {WorkKind.UPLOAD: self.uploads, WorkKind.CREATE: CREATES, WorkKind.DOWNLOAD: self.downloads}


@define(eq=False)
class SharedPace:
    """The requests a second of all workers of an account together."""

    accounts: AccountStore
    is_on: bool = False
    """Whether a run has a limit."""

    async def __call__(self) -> None:
        """Return once a request may leave."""
        if self.is_on and (seconds := await self.accounts.pace()) > 0:
            await asyncio.sleep(seconds)


@define(eq=False)
class Worker:
    """One worker of an account.

    Args:
        database: The database.
        account: The account.
        delivery: Brings work.
        api: The API.
        slots: How much at once.
        pace: The requests a second of all workers together.
        tuning: Its delays and time limits.
        rest_seconds: How long it rests.
    """

    database: Database
    account: int
    delivery: WorkDelivery
    api: Api
    slots: Slots
    pace: SharedPace
    tuning: Tuning = field(factory=Tuning)
    rest_seconds: float = REST_SECONDS
    name: str = field(factory=lambda: f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}")
    _scheduler: Scheduler | None = field(default=None, init=False)
    _reachability: Reachability = field(init=False)
    _is_known: asyncio.Event = field(factory=asyncio.Event, init=False)
    _fatal: asyncio.Future[None] = field(init=False)
    _is_resting: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._reachability = Reachability(loop.time)
        self._fatal = loop.create_future()

    @property
    def _accounts(self) -> AccountStore:
        return AccountStore(self.database, self.account)

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            AuthenticationError: If the API key is refused.
            ClusterError: If the database cannot be used, or the shared folder is missing.
        """
        try:
            async with TaskGroup() as tasks:
                steps = Steps(
                    AccountStore(RetryingStatements(self.database), self.account),
                    self.delivery,
                    self.api,
                    self.name,
                    self._reachability,
                    self.tuning.delays,
                    tasks,
                    self._end_with,
                )
                await self._run(steps)
        finally:
            self._fatal.cancel()
            await self._leave()

    async def _run(self, steps: Steps) -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="heygen-cluster-listen")
            candidate = tasks.create_task(self._be_candidate(), name="heygen-cluster-candidate")
            tasks.create_task(self._serve(steps), name="heygen-cluster-serve")
            try:
                await asyncio.shield(self._fatal)
            finally:
                candidate.cancel()
                await steps.close(GRACE_SECONDS)

    def _end_with(self, error: Exception) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _leave(self) -> None:
        """Delete the worker's row, so that others take over its rows at once."""
        with suppress(DatabaseLost, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self.database.fetch("DELETE FROM workers WHERE name = %(worker)s", {"worker": self.name})

    # The heartbeat

    async def _listen(self) -> None:
        """Receive notifications, and send heartbeats, on one connection, for as long as the worker runs."""
        failures = 0
        while True:
            try:
                async with await self.database.connect() as connection:
                    with translated():
                        for channel in (CHANNEL, *self.delivery.channels):
                            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    for kind in WorkKind:  # what was notified before
                        self.delivery.wake(kind)
                    while True:
                        with translated():
                            await self._beat_and_receive(connection)
                        if failures >= _AWAY:
                            _logger.warning("the database answers again")
                        failures = 0
            except DatabaseLost as error:
                failures += 1
                _logger.log(logging.WARNING if failures == _AWAY else logging.INFO, "connecting again: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _beat_and_receive(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        loop = asyncio.get_running_loop()
        cursor = await connection.execute(
            _BEAT,
            {
                "name": self.name,
                "account": self.account,
                "host": socket.gethostname(),
                "process": os.getpid(),
            },
        )
        ((self.pace.is_on,),) = await cursor.fetchall()
        self._is_known.set()
        until = loop.time() + BEAT_SECONDS
        while (left := until - loop.time()) > 0:
            async for notification in connection.notifies(timeout=left, stop_after=1):
                self._on_notification(notification.channel, notification.payload)

    def _on_notification(self, channel: str, payload: str) -> None:
        scheduler, kind = self._scheduler, self.delivery.channels.get(channel)
        if kind is not None:
            self.delivery.wake(kind)
            return
        if scheduler is None:
            return
        word, _, lipsync_id = payload.partition(" ")
        if word == "job":
            scheduler.notify(lipsync_id)
        elif word in ("0", str(self.account)):  # 0: the rows of a run that belongs to no account yet
            scheduler.wake(is_new_run=word == "0")

    # Steps

    async def _serve(self, steps: Steps) -> None:
        await self._is_known.wait()  # or its rows would be taken back at once
        while True:
            async with TaskGroup() as kinds:
                serving = [
                    kinds.create_task(self.delivery.serve(kind, slots, partial(steps.handle, kind)))
                    for kind, slots in self.slots.by_kind().items()
                    if slots
                ]
                await self._until_unreachable()
                for task in serving:
                    task.cancel()
            await asyncio.sleep(self.rest_seconds)
            self._is_resting = False

    async def _until_unreachable(self) -> None:
        """Return once the API has not answered this worker for a while, and another worker may do better."""
        while True:
            await asyncio.sleep(1.0)
            with suppress(DatabaseLost):
                if await self._is_worse():
                    self._is_resting = True
                    self._reachability.note(is_answered=True)
                    await self._accounts.rest(self.name, self.rest_seconds)
                    _logger.warning("the API does not answer this worker: it rests for %.0f s", self.rest_seconds)
                    return

    # The scheduler

    async def _be_candidate(self) -> None:
        await self._is_known.wait()
        while True:
            if not self._is_resting:
                try:
                    if not await self._is_worse():
                        await self._schedule()
                except* (DatabaseLost, LeaseLost, ApiUnreachable) as errors:
                    _logger.info("not the scheduler any more: %s", errors.exceptions[0])
            await asyncio.sleep(CANDIDATE_SECONDS)

    async def _is_worse(self) -> bool:
        """Return whether this worker cannot reach the API, and another one may."""
        return self._reachability.is_unreachable(self.tuning.unreachable) and await self._accounts.has_others(self.name)

    async def _schedule(self) -> None:
        """Schedule for as long as the lease is ours, if it can be had."""
        lease = await self._accounts.take_lease(self.name)
        if lease is None:
            return
        _logger.info("%s is the scheduler", self.name)
        self._scheduler = scheduler = self._new_scheduler(lease)
        try:
            await scheduler.run()
        finally:
            self._scheduler = None
            with suppress(DatabaseLost, TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await scheduler.store.resign()

    def _new_scheduler(self, lease: Lease) -> Scheduler:
        clock = DatabaseClock()
        clock.set(lease.now)
        return Scheduler(
            store=SchedulerStore(self.database, lease, self.api.origin),
            delivery=self.delivery,
            api=self.api,
            searcher=Searcher(self.api, PostgresStore(self.database, self.account, 0), UnixClock(clock)),
            is_worse=self._is_worse,
            reachability=self._reachability,
            tuning=self.tuning,
            clock=clock,
            learnt=lease.learnt,
        )
