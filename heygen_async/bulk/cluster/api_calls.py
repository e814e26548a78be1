"""What a cluster needs of the API: the calls of a bulk run, and the statuses of many jobs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from attrs import define, field

from heygen_async._task_group import together
from heygen_async.bulk.store import HeyGen
from heygen_async.errors import (
    AuthenticationError,
    HeyGenError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    may_be_page,
)
from heygen_async.models import LipsyncStatus

_GETS: Final = 8
"""The most jobs that are fetched at once where there are no bulk status requests."""
_PROBE_AFTER: Final = 3
"""Bulk status requests that fail in a row before it is tried whether a job can be fetched."""
_PAUSE: Final = 300.0
"""Seconds without bulk status requests after these have failed, or a gateway's page has refused one."""


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
    """Reads the statuses of jobs: one by one where, or while, the account has no bulk status requests."""

    api: Api
    _bulk_from: float = 0.0
    """When there may be bulk status requests, by the event loop's clock."""
    _failed_in_a_row: int = 0
    """How many of them had no usable answer."""
    _gets: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_GETS))

    async def read(self, lipsync_ids: Sequence[str]) -> Mapping[str, LipsyncStatus | str | HeyGenError]:
        """Return the statuses of at most a hundred jobs, or why one of them cannot be read.

        Raises:
            HeyGenError: If none of them can.
        """
        if asyncio.get_running_loop().time() >= self._bulk_from:
            try:
                found = await self.api.statuses(lipsync_ids)
            except (NotFound, PermissionDenied) as error:
                self._pause(_PAUSE if may_be_page(error) else math.inf)  # a gateway's page says nothing of the account
            except InvalidRequest:
                pass  # one of these ids is wrong
            except (AuthenticationError, RateLimited):
                raise
            except HeyGenError as error:
                await self._note_failure(lipsync_ids[0], error)
            else:
                self._failed_in_a_row = 0
                return found
        statuses = await together(self._one(lipsync_id) for lipsync_id in lipsync_ids)
        errors = [one for one in statuses if isinstance(one, HeyGenError)]
        if len(errors) == len(statuses):
            raise errors[0]
        return dict(zip(lipsync_ids, statuses, strict=True))

    def _pause(self, seconds: float) -> None:
        self._bulk_from, self._failed_in_a_row = asyncio.get_running_loop().time() + seconds, 0

    async def _note_failure(self, lipsync_id: str, error: HeyGenError) -> None:
        """Raise *error*, unless such requests have failed in a row, and a job can be fetched all the same."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row % _PROBE_AFTER or isinstance(await self._one(lipsync_id), HeyGenError):
            raise error
        self._pause(_PAUSE)

    async def _one(self, lipsync_id: str) -> LipsyncStatus | str | HeyGenError:
        async with self._gets:
            try:
                return (await self.api.get(lipsync_id)).status
            except AuthenticationError:
                raise
            except NotFound as error:
                return error if may_be_page(error) else LipsyncStatus.NOT_FOUND
            except HeyGenError as error:
                return error
