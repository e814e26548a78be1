"""Puts the sandbox together: the world, its clock, its files and its front."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from attrs import frozen

from heygen_async.sandbox.announcing import Announcer
from heygen_async.sandbox.app import Front
from heygen_async.sandbox.assets import Assets
from heygen_async.sandbox.clock import Clock
from heygen_async.sandbox.courier import Courier
from heygen_async.sandbox.faults import Fault
from heygen_async.sandbox.filehost import FileHost
from heygen_async.sandbox.ids import Ids
from heygen_async.sandbox.links import Links
from heygen_async.sandbox.plans import Planner
from heygen_async.sandbox.routes.account import Account
from heygen_async.sandbox.routes.assets import AssetRoutes
from heygen_async.sandbox.routes.lipsyncs import Lipsyncs
from heygen_async.sandbox.routes.webhooks import WebhookRoutes
from heygen_async.sandbox.storage import Storage, StoredFile
from heygen_async.sandbox.webhooks import Webhooks
from heygen_async.sandbox.world import World

JobSeconds: TypeAlias = float | Sequence[float] | Callable[[Mapping[str, object]], float]
"""How long jobs run, in seconds: all alike, each in its turn and then again, or told by the create's body."""

USERNAME: Final = "sandbox"


@frozen(kw_only=True)
class Settings:
    """What `Sandbox` was given."""

    api_key: str
    seed: int
    account_limit: int | None
    job_seconds: JobSeconds
    balance: float
    rates: Mapping[str, float]
    retry_after: float
    link_seconds: float
    latency: float | Mapping[str, float]
    max_asset_bytes: int
    max_multipart_bytes: int
    statuses_available: bool
    batches_available: bool
    faults: list[Fault]
    """Shared with the caller, who may change it at any time."""


class Backend:
    """All that runs behind one address."""

    def __init__(
        self, settings: Settings, clock: Clock, *, origin: str, directory: Path, sample: tuple[StoredFile, float]
    ) -> None:
        ids = Ids(settings.seed)
        sample_file, sample_seconds = sample
        self.clock = clock
        self.assets = Assets(ids, max_bytes=settings.max_asset_bytes)
        self.world = World(
            ids,
            account_limit=settings.account_limit,
            balance=settings.balance,
            rates=settings.rates,
            retry_after=settings.retry_after,
            job_seconds=_lengths(settings.job_seconds),
        )
        links = Links(origin, secrets.token_bytes(32), settings.link_seconds)
        self._webhooks = Webhooks(ids)
        self._announcer = Announcer(self._webhooks, links, clock)
        self.courier = Courier(self._webhooks, clock, settle=self.settle, next_due=self.next_due)
        asset_routes = AssetRoutes(self.assets, links, clock, USERNAME)
        lipsyncs = Lipsyncs(
            self.world,
            Planner(self.assets, sample_seconds),
            links,
            clock,
            has_statuses=settings.statuses_available,
            has_batches=settings.batches_available,
        )
        files = FileHost(
            self.world, self.assets, Storage(directory), links, clock, sample_file, settings.max_multipart_bytes
        )
        self.front = Front(
            [
                *lipsyncs.routes(),
                *asset_routes.routes(),
                *WebhookRoutes(self._webhooks, clock).routes(),
                *Account(self.world, USERNAME).routes(),
            ],
            files=files,
            assets=asset_routes,
            settle=self.settle,
            changed=self.courier.look,
            api_key=settings.api_key,
            latency=settings.latency,
            seed=settings.seed,
            faults=settings.faults,
        )

    def settle(self) -> float:
        """Let everything happen that is due, and return the time."""
        now = self.clock.now()
        for ended in self.world.settle(now):
            self._announcer.announce(ended)
        return now

    def next_due(self) -> float | None:
        """Return when something will happen by itself next."""
        dues = (self.world.next_due(), self._webhooks.next_due())
        return min((due for due in dues if due is not None), default=None)


def _lengths(job_seconds: JobSeconds) -> Callable[[Mapping[str, object]], float]:
    if callable(job_seconds):
        return job_seconds
    if isinstance(job_seconds, Sequence):
        lengths = itertools.cycle(job_seconds)
        return lambda _: next(lengths)
    return lambda _: job_seconds
