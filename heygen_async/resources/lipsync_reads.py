"""The reads of lipsyncs that `session.lipsyncs` shares with the poller, the downloads and bulk runs.

They are functions: the poller needs them, and `Lipsyncs` needs the poller.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from heygen_async._converter import read_own, read_page, read_statuses
from heygen_async._ids import segment
from heygen_async._transport.driver import Transport
from heygen_async._wire import Request, compose
from heygen_async.models import Lipsync, LipsyncStatus
from heygen_async.pagination import Page


def without_retries(transport: Transport) -> Transport:
    """Return a transport for the looks of a wait, which sends each request once.

    A wait looks again by its own policy. Retries on top would multiply its requests to an API out of order.
    """
    return evolve(transport, retry=evolve(transport.retry, max_attempts=1))


async def fetch_lipsync(transport: Transport, lipsync_id: str) -> Lipsync:
    """Get one lipsync."""
    # Without `compose`, which would be 3 % of the call.
    request = Request("GET", f"/v3/lipsyncs/{segment('lipsync_id', lipsync_id)}", "/v3/lipsyncs/{lipsync_id}")
    return read_own(await transport.send(request), Lipsync, lipsync_id)


async def fetch_page(transport: Transport, page_size: int, token: str | None) -> Page[Lipsync]:
    """Get one page of the list."""
    params = {"limit": page_size, "token": token}
    return read_page(await transport.send(compose("GET", "/v3/lipsyncs", params=params)), Lipsync)


async def fetch_statuses(transport: Transport, lipsync_ids: Sequence[str]) -> dict[str, LipsyncStatus | str]:
    """Get the statuses of as many jobs as fit into one request, and follow pages while they bring some."""
    found: dict[str, LipsyncStatus | str] = {}
    missing, joined, token = set(lipsync_ids), ",".join(lipsync_ids), None
    while True:
        page = await _status_page(transport, joined, token)
        found.update(page.items)
        new = missing & found.keys()
        missing -= new
        token = page.next_token
        # Not by a `Paginator`: that the list cannot be read to its end is no reason to lose what is known.
        if not new or not missing or token is None:
            return found


async def _status_page(transport: Transport, joined: str, token: str | None) -> Page[tuple[str, LipsyncStatus | str]]:
    params = {"lipsync_ids": joined, "token": token}
    return read_statuses(await transport.send(compose("GET", "/v3/lipsyncs/statuses", params=params)))
