"""The calls of a session, over its transport. They are loaded when the first of them is used.

A program that only makes raw requests, as a command of the command line does, starts in less time without them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import evolve

from heygen_async._arguments import check_type
from heygen_async._bulk_calls import BulkCalls, JobList
from heygen_async._dub import OneDub
from heygen_async._media.downloads import Downloads
from heygen_async._media.ingestion import Ingestion
from heygen_async._media.transfers import Transfers
from heygen_async._media.uploads import Uploads
from heygen_async._transport.driver import Transport
from heygen_async._transport.keys import UsedKeys
from heygen_async.models import FilePath, LipsyncOptions
from heygen_async.pagination import MAX_PAGE
from heygen_async.policies import PollPolicy
from heygen_async.polling import LipsyncPoller
from heygen_async.resources.account import Accounts
from heygen_async.resources.assets import Assets
from heygen_async.resources.lipsync_reads import fetch_lipsync, fetch_page, fetch_statuses, without_retries
from heygen_async.resources.lipsyncs import Lipsyncs
from heygen_async.resources.webhook_endpoints import WebhookEndpoints


class Calls:
    """The calls of a session, or of a view of it: `over` makes others that share the transfers and the poller."""

    def __init__(self, transport: Transport, transfers: Transfers, poller: LipsyncPoller) -> None:
        self.transport = transport
        self.transfers = transfers
        self.poller = poller
        self.uploads = Uploads(transport, transfers, Ingestion(transport, poller.policy))
        self.downloads = Downloads(transport, transfers, partial(fetch_lipsync, transport))
        self.account = Accounts(transport)
        self.webhooks = WebhookEndpoints(transport)
        self.assets = Assets(transport, self.uploads)
        self.lipsyncs = Lipsyncs(transport, poller, self.uploads, self.downloads)

    @classmethod
    def make(cls, transport: Transport, polling: PollPolicy, max_download_bytes: int) -> Calls:
        """Make those of a session."""
        once = without_retries(transport)
        poller = LipsyncPoller(
            statuses=partial(fetch_statuses, once),
            get=partial(fetch_lipsync, once),
            list_page=partial(fetch_page, once, MAX_PAGE),
            policy=polling,
            now=transport.server_time.now,
        )
        return cls(transport, Transfers(max_download_bytes), poller)

    def over(self, transport: Transport) -> Calls:
        """Make those of a view of the session."""
        return Calls(transport, self.transfers, self.poller)

    def close(self) -> None:
        """End all waits with a `RuntimeError`, and let idle threads end."""
        self.poller.close()
        self.transfers.close()

    def dub(self, output: FilePath | None, *, captions: bool, options: LipsyncOptions) -> OneDub:
        """Make one call of `dub`.

        Raises:
            TypeError, ValueError: If *captions* is no flag, or there is no output to write them beside.
        """
        check_type("captions", captions, bool)
        if captions and output is None:
            raise ValueError("captions=True needs an output to write them beside")
        captions = captions or bool(options.get("enable_caption"))
        return OneDub(self.transport, self.lipsyncs, self.downloads, output, captions)

    def lipsyncs_with_keys(self, age: Callable[[], float]) -> Lipsyncs:
        """Return the calls for idempotency keys that were first sent *age* seconds ago."""
        ours = self.transport
        # The age is computed last: if the machine is suspended here, the key only seems older.
        now = ours.moment()
        return evolve(self.lipsyncs, transport=evolve(ours, key_since=now.before(age())))

    def of_run(self, pace: Callable[[], Awaitable[None]] | None) -> BulkCalls:
        """Make the calls of a bulk run; *pace* returns once a request may leave."""
        calls = self if pace is None else self.over(evolve(self.transport, pace=pace))
        ours = calls.transport
        # Its records say what a key is for: a link that was signed again may be sent under the key of the one before.
        creating = evolve(ours, keys=UsedKeys())
        refusing = evolve(creating, retry=evolve(ours.retry, on_rate_limit="raise"))
        return BulkCalls(
            lipsyncs=calls.lipsyncs,
            jobs=JobList(calls.lipsyncs),
            batches=calls.over(creating).lipsyncs_with_keys,
            creates=calls.over(refusing).lipsyncs_with_keys,
            uploads=calls.uploads,
            account=calls.account,
            poller=calls.poller,
            downloads=calls.downloads,
            statuses=partial(fetch_statuses, ours),
            origin=ours.http.origin.base_url,
        )
