"""What a cluster needs of the API: the calls of a bulk run, and the statuses of many jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from attrs import define, field

from heygen_async._task_group import together
from heygen_async.bulk.store import HeyGen
from heygen_async.errors import NotFound, PermissionDenied, may_be_page
from heygen_async.models import LipsyncStatus

_GETS: Final = 8
"""The most jobs that are fetched at once where there are no bulk status requests."""


class Api(HeyGen, Protocol):
    """What a cluster needs of the API. Every call raises `HeyGenError`."""

    @property
    def origin(self) -> str:
        """The address of the API."""
        ...

    @property
    def statuses(self) -> Callable[[Sequence[str]], Awaitable[Mapping[str, LipsyncStatus | str]]]:
        """Returns the statuses of as many jobs as fit into one request."""
        ...


class Session(Protocol):
    """An open `HeyGenSession`."""

    def _bulk_calls(self, pace: Callable[[], Awaitable[None]] | None = None) -> Api:
        """Return the calls; *pace* returns once a request may leave."""
        ...


@define(eq=False)
class StatusReader:
    """Reads the statuses of jobs; one by one, once the account turned out not to have bulk status requests."""

    api: Api
    _has_statuses: bool = True
    _gets: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_GETS))

    async def read(self, lipsync_ids: Sequence[str]) -> Mapping[str, LipsyncStatus | str]:
        """Return the statuses of at most a hundred jobs."""
        if self._has_statuses:
            try:
                return await self.api.statuses(lipsync_ids)
            except (NotFound, PermissionDenied) as error:
                self._has_statuses = may_be_page(error)  # a gateway's page says nothing of the account
        found = await together(self._one(lipsync_id) for lipsync_id in lipsync_ids)
        return dict(zip(lipsync_ids, found, strict=True))

    async def _one(self, lipsync_id: str) -> LipsyncStatus | str:
        async with self._gets:
            try:
                return (await self.api.get(lipsync_id)).status
            except NotFound:
                return LipsyncStatus.NOT_FOUND
