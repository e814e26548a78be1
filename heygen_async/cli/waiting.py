"""Waiting for jobs on the command line: each is printed as it ends, and what was not finished in time too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final

from heygen_async import HeyGenSession
from heygen_async._ids import segment
from heygen_async.cli.options import Options
from heygen_async.cli.output import Exit, advising, emit, exit_code, tell, wants_json
from heygen_async.cli.progress import waiting
from heygen_async.errors import HeyGenError, LipsyncFailed, NotFound, WaitTimeout
from heygen_async.models import JSON, Lipsync, LipsyncStatus

_LAST_LOOK: Final = 10.0
"""Seconds for fetching what was not finished in time."""
_NAMED: Final = 5


def path_of(lipsync_id: str) -> str:
    """Return the path of one lipsync.

    Raises:
        ValueError: If it is not an id.
    """
    return f"/v3/lipsyncs/{segment('lipsync_id', lipsync_id)}"


async def fetch(heygen: HeyGenSession, lipsync_id: str) -> JSON:
    """Get one lipsync as the API answers it, envelope included."""
    return (await heygen.request("GET", path_of(lipsync_id))).data


async def look_at(heygen: HeyGenSession, lipsync_id: str) -> None:
    """See that the API can be asked: a wait would be patient with a network that is not there at all.

    Raises:
        HeyGenError: If not. An unknown id is left to the wait.
    """
    with suppress(NotFound):
        await fetch(heygen, lipsync_id)


async def wait_for(
    heygen: HeyGenSession, lipsync_ids: Sequence[str], options: Options, *, timeout: float | None
) -> Exit:
    """Print each lipsync as it ends, and tell of those that failed.

    Returns:
        0 if all of them were completed.

    Raises:
        WaitTimeout: If the time was up; what is known of the others was printed.
    """
    with advising(how_to_go_on(lipsync_ids)):
        try:
            with waiting(heygen, len(lipsync_ids), options) as aside:
                ended = heygen.poller.as_completed(lipsync_ids, timeout=timeout)
                async with ended:
                    return max([await _report(heygen, lipsync, options, aside) async for lipsync in ended])
        except WaitTimeout as late:
            await _print_unfinished(heygen, late.pending, options)
            raise


def how_to_go_on(lipsync_ids: Sequence[str]) -> str:
    """Return the advice for whoever still wants these lipsyncs."""
    if len(lipsync_ids) > _NAMED:
        return "the jobs go on at HeyGen; run the same command again to wait for them"
    goes = "the job goes on" if len(lipsync_ids) == 1 else "the jobs go on"
    return f"{goes} at HeyGen; to wait again: heygen-async lipsync wait {' '.join(lipsync_ids)}"


async def _report(
    heygen: HeyGenSession, lipsync: Lipsync, options: Options, aside: Callable[[], AbstractContextManager[None]]
) -> Exit:
    try:
        envelope = await fetch(heygen, lipsync.id)
        with aside():
            emit(envelope, options)
        if lipsync.status != LipsyncStatus.COMPLETED:
            raise LipsyncFailed(lipsync)
    except HeyGenError as error:
        with aside():
            tell(error, as_json=wants_json(options.json))
        return exit_code(error)
    return Exit.DONE


async def _print_unfinished(heygen: HeyGenSession, pending: Mapping[str, str | None], options: Options) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _LAST_LOOK
    for lipsync_id, status in pending.items():
        envelope: JSON = {"data": {"id": lipsync_id, "status": status}}
        try:
            async with asyncio.timeout_at(end):
                envelope = await fetch(heygen, lipsync_id)
        except (HeyGenError, TimeoutError):
            pass  # then what the wait heard must do
        emit(envelope, options)
