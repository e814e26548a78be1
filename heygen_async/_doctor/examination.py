"""The calls of the doctor: each is a GET, free of charge, and sent again once after a transient error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from attrs import evolve, frozen

from heygen_async._doctor.judgement import diagnose
from heygen_async._doctor.seen import CallResult, CallResults, Offers
from heygen_async._ids import segment
from heygen_async._task_group import TaskGroup, first_error
from heygen_async._transport.driver import Transport
from heygen_async._transport.http import Http
from heygen_async._wire import Answer, Parameter, Request, compose
from heygen_async.diagnosis import Diagnosis
from heygen_async.errors import HeyGenError
from heygen_async.policies import RetryPolicy, Timeouts

_KEY: Final = "/v3/api_keys/self"
_ACCOUNT: Final = "/v3/users/me"
_LIST: Final = "/v3/lipsyncs"
_ONE: Final = "/v3/lipsyncs/{lipsync_id}"
_STATUSES: Final = "/v3/lipsyncs/statuses"
_BATCH: Final = "/v3/lipsyncs/batches/{batch_id}"
_NOWHERE: Final = "/v3/lipsyncs/{lipsync_id}/no-such-path"
_EVENT_TYPES: Final = "/v3/webhooks/event-types"

_PAGE: Final = 10
_NO_ID: Final = "doctor-no-such-id"
# A person waits for the result, so the session's own limits are only lowered.
_ATTEMPTS: Final = 2
_RETRY_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 15.0


async def examine(transport: Transport) -> Diagnosis:
    """Look at network, key, account and API, and return what was found.

    Raises:
        RuntimeError: If the session is closed, or belongs to another event loop.

    Cancelled, it stops at once; nothing has to be undone.
    """
    calls = _ReadOnlyCalls(evolve(transport, retry=_fewer(transport.retry), timeouts=_shorter(transport.timeouts)))
    started = datetime.fromtimestamp(transport.clock(), UTC)
    reach = await transport.http.connections.probe(calls.transport.timeouts.connect)
    can_connect = reach is None or reach.failure is None
    results = await calls.make() if can_connect else None
    return diagnose(transport.http.origin, reach, results, at=started)


def _fewer(given: RetryPolicy) -> RetryPolicy:
    return evolve(
        given,
        max_attempts=min(given.max_attempts, _ATTEMPTS),
        max_seconds=min(given.max_seconds, _RETRY_SECONDS),
        max_retry_after=min(given.max_retry_after, _RETRY_SECONDS),
    )


def _shorter(given: Timeouts) -> Timeouts:
    return evolve(given, connect=min(given.connect, _CONNECT_SECONDS), read=min(given.read, _READ_SECONDS))


@frozen
class _ReadOnlyCalls:
    """Makes the calls."""

    transport: Transport

    async def make(self) -> CallResults:
        """Make the first two calls, and the others if these were answered and the key was accepted."""
        results = CallResults(key=await self._get(_KEY))
        if results.unanswered is None:
            results = evolve(results, page=await self._get(_LIST, params={"limit": _PAGE}))
        if results.page is None or results.unanswered is not None or results.unauthorized is not None:
            return results
        ids = [id_ for item in results.page.objects[:_PAGE] if (id_ := _id(item.get("id"))) is not None]
        offers, details = await self._make_others(ids)
        return evolve(results, offers=offers, details=details)

    async def _make_others(self, ids: list[str]) -> tuple[Offers, list[CallResult]]:
        """Make the other calls, and those for the lipsyncs with these *ids* at the same time."""
        try:
            async with TaskGroup() as group:
                details = [group.create_task(self._get(_ONE, lipsync_id=id_)) for id_ in ids]
                offers = await self._offers(ids)
        except ExceptionGroup as failed:  # the session was closed, or a tracing hook has a bug
            failure = first_error(failed)
        else:
            return offers, [task.result() for task in details]
        raise failure

    async def _offers(self, ids: list[str]) -> Offers:
        statuses = await self._get(_STATUSES, params={"lipsync_ids": ",".join(ids or [_NO_ID])})
        batch_ids = (_id(entry.get("batch_id")) for entry in statuses.objects)
        batch_id = next((id_ for id_ in batch_ids if id_ is not None), _NO_ID)
        return Offers(
            account=await self._get(_ACCOUNT),
            statuses=statuses,
            batch=await self._get(_BATCH, params={"limit": _PAGE}, batch_id=batch_id),
            nowhere=await self._get(_NOWHERE, lipsync_id=_NO_ID),
            event_types=await self._get(_EVENT_TYPES),
        )

    async def _get(
        self, template: str, *, params: Mapping[str, Parameter] | None = None, **segments: str
    ) -> CallResult:
        http = _TimedHttp(self.transport.http)
        response, error = None, None
        try:
            request = compose("GET", template, segments=segments, params=params)
            response = await evolve(self.transport, http=http).send(request)
        except HeyGenError as failure:
            error = failure
        return CallResult(
            call=f"GET {template}",
            seconds=http.seconds,
            received_at=self.transport.clock(),
            response=response,
            error=error,
        )


class _TimedHttp(Http):
    """Sends the requests of one call over another `Http`, and measures the last of them.

    A request first waits for its turn, by the limits of the session, which says nothing of the network.
    """

    def __init__(self, http: Http) -> None:
        self.connections, self.origin, self._http = http.connections, http.origin, http
        self.seconds = 0.0

    async def exchange(self, request: Request, *, headers: Mapping[str, str], timeouts: Timeouts) -> Answer:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            return await self._http.exchange(request, headers=headers, timeouts=timeouts)
        finally:
            self.seconds = clock() - started


def _id(value: object) -> str | None:
    """Return an id of the server's if it can be part of a path."""
    try:
        return segment("id", value)
    except (TypeError, ValueError):
        return None
