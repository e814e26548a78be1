"""Puts the sandbox together: the world, its clock, its files and its front."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from heygen_async.sandbox.announcing import Announcer
from heygen_async.sandbox.app import ApiApp
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
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.storage import Storage, StoredFile
from heygen_async.sandbox.webhooks import Webhooks
from heygen_async.sandbox.world import Job, World


class Backend:
    """All that runs behind one address."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        faults: list[Fault],
        *,
        origin: str,
        directory: Path,
        sample: tuple[StoredFile, float],
    ) -> None:
        ids = Ids(settings.seed)
        sample_file, sample_seconds = sample
        self.clock = clock
        self.world = World(ids, settings)
        self.on_finished: Callable[[str], object] | None = None
        assets = Assets(ids, settings)
        links = Links(origin, secrets.token_bytes(32), settings.link_seconds)
        self._webhooks = Webhooks(ids, lipsync_events=settings.lipsync_events)
        self._announcer = Announcer(self._webhooks, links, clock)
        self.courier = Courier(self._webhooks, clock, settings, settle=self.settle, next_due=self.next_due)
        asset_routes = AssetRoutes(assets, links, clock)
        self.app = ApiApp(
            {
                **Lipsyncs(self.world, Planner(assets, sample_seconds), links, clock, settings).handlers(),
                **asset_routes.handlers(),
                **WebhookRoutes(self._webhooks, clock).handlers(),
                **Account(self.world, clock, settings).handlers(),
            },
            settings,
            files=FileHost(self.world, assets, Storage(directory), links, clock, sample_file, settings),
            assets=asset_routes,
            settle=self.settle,
            changed=self.courier.look,
            faults=faults,
        )

    def settle(self) -> float:
        """Let everything happen that is due, and return the time."""
        now = self.clock.now()
        for ended in self.world.settle(now):
            self._announcer.announce(ended)
            if self.on_finished is not None and isinstance(ended, Job):
                self.on_finished(ended.id)
        return now

    def next_due(self) -> float | None:
        """Return when something will happen by itself next."""
        dues = (self.world.next_due(), self._webhooks.next_due())
        return min((due for due in dues if due is not None), default=None)
