"""Connects the parts of a sandbox: its state, its clock, its routes and its deliveries."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from heygen_async.sandbox.address import Address
from heygen_async.sandbox.deliveries import DeliveryWorker, EventWriter
from heygen_async.sandbox.faults import Fault
from heygen_async.sandbox.http.account_calls import AccountCalls
from heygen_async.sandbox.http.api_app import ApiApp
from heygen_async.sandbox.http.asset_calls import AssetCalls
from heygen_async.sandbox.http.file_host import FileHost
from heygen_async.sandbox.http.lipsync_calls import LipsyncCalls
from heygen_async.sandbox.http.storage import Storage, StoredFile
from heygen_async.sandbox.http.webhook_calls import WebhookCalls
from heygen_async.sandbox.recording.exchange import Exchange
from heygen_async.sandbox.recording.replay import Replay, recorded_ids
from heygen_async.sandbox.settings import Settings
from heygen_async.sandbox.state.asset_store import AssetStore
from heygen_async.sandbox.state.clock import Clock
from heygen_async.sandbox.state.event_store import EventStore
from heygen_async.sandbox.state.paged_store import Ids
from heygen_async.sandbox.state.scripts import ScriptReader
from heygen_async.sandbox.state.signed_links import SignedLinks
from heygen_async.sandbox.state.world import SimulatedJob, World


class Backend:
    """All that runs behind one address."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        faults: list[Fault],
        address: Address,
        directory: Path,
        sample: tuple[StoredFile, float],
        recordings: Sequence[Exchange],
        on_finished: Callable[[str], None],
    ) -> None:
        ids = Ids(settings.seed, taken=recorded_ids(recordings))
        sample_file, sample_seconds = sample
        links = SignedLinks(address.url, secrets.token_bytes(32), settings.link_seconds)
        assets = AssetStore(ids, settings)
        self.clock = clock
        self.world = World(ids, settings)
        self._on_finished = on_finished
        self._events = EventStore(ids, lipsync_events=settings.lipsync_events)
        self._writer = EventWriter(self._events, links, clock)
        self.deliveries = DeliveryWorker(self._events, clock, settings, settle=self.settle, next_due=self.next_due)
        files = FileHost(self.world, assets, Storage(directory), links, clock, sample_file, settings)
        self._replay = Replay(recordings, files.sample_link)
        asset_calls = AssetCalls(assets, links, clock)
        self.app = ApiApp(
            {
                **LipsyncCalls(self.world, ScriptReader(assets, sample_seconds), links, clock, settings).handlers(),
                **asset_calls.handlers(),
                **WebhookCalls(self._events, clock).handlers(),
                **AccountCalls(self.world, clock, settings).handlers(),
            },
            settings,
            files=files,
            assets=asset_calls,
            settle=self.settle,
            changed=self.deliveries.wake,
            faults=faults,
            replay=self._replay,
            origin=address.origin,
        )

    @property
    def unused_recordings(self) -> list[Exchange]:
        """The recorded writes that no request has used up."""
        return self._replay.unused

    def settle(self) -> float:
        """Process everything that is due, and return the time."""
        now = self.clock.now()
        for ended in self.world.settle(now):
            self._writer.write(ended)
            if isinstance(ended, SimulatedJob):
                self._on_finished(ended.id)
        return now

    def next_due(self) -> float | None:
        """Return when something is due next; None if nothing is."""
        dues = (self.world.next_due(), self._events.next_due())
        return min((due for due in dues if due is not None), default=None)
