"""Waiting for jobs on the command line: each is printed when it ends, and the others at a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from heygen_async._ids import segment
from heygen_async.cli.advice import advising
from heygen_async.cli.error_view import print_error
from heygen_async.cli.exits import Exit, exit_code
from heygen_async.cli.live import waiting
from heygen_async.cli.options import Options
from heygen_async.cli.output import emit_one_of_many, wants_json
from heygen_async.errors import HeyGenError, LipsyncFailed, NotFound, WaitTimeout
from heygen_async.models import JSON, Lipsync, LipsyncStatus

if TYPE_CHECKING:
    from heygen_async import HeyGenSession

_LAST_LOOK: Final = 10.0
"""Seconds for fetching the jobs that did not end in time."""
_NAMED: Final = 5

Aside: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Makes room for other output while a wait is shown."""

Deliver: TypeAlias = Callable[[Lipsync], Awaitable[None]]
"""Takes a completed lipsync before it is printed."""


async def _keep(_lipsync: Lipsync) -> None:
    """Deliver nothing."""


def path_of(lipsync_id: str) -> str:
    """Return the path of one lipsync.

    Raises:
        ValueError: If it is not an id.
    """
    return f"/v3/lipsyncs/{segment('lipsync_id', lipsync_id)}"


async def fetch_envelope(heygen: HeyGenSession, lipsync_id: str) -> JSON:
    """Get one lipsync as the API answers it, envelope included."""
    return (await heygen.request("GET", path_of(lipsync_id))).data


async def check_connection(heygen: HeyGenSession, lipsync_id: str) -> None:
    """Send one request first: a wait would retry for long if there is no network at all.

    Raises:
        HeyGenError: If it fails. An unknown id is left to the wait.
    """
    with suppress(NotFound):
        await fetch_envelope(heygen, lipsync_id)


async def wait_for(
    heygen: HeyGenSession,
    lipsync_ids: Sequence[str],
    options: Options,
    *,
    timeout: float | None,
    created_at: datetime | None = None,
    advice: str | None = None,
    deliver: Deliver = _keep,
) -> Exit:
    """Print each lipsync when it ends, and the errors of those that failed.

    Args:
        heygen: The session.
        lipsync_ids: The lipsyncs.
        options: How to print.
        timeout: Seconds for all of them; `None` for the policy's longest wait.
        created_at: When they were created, if that was just now.
        advice: How to continue after an interruption; `None` says how to wait for them.
        deliver: Called with each completed lipsync before it is printed: a closed pipe must not cost its file.

    Returns:
        0 if all of them were completed and delivered.

    Raises:
        WaitTimeout: If the time is up; the last known state of the others was printed.
    """
    with advising(advice or how_to_continue(lipsync_ids, options)):
        try:
            with waiting(heygen, len(lipsync_ids), options) as aside:
                report = partial(_report, heygen, options, aside, deliver, is_ours=created_at is not None)
                ended = heygen.poller.as_completed(lipsync_ids, timeout=timeout, created_at=created_at)
                async with ended:
                    return max([await report(lipsync) async for lipsync in ended])
        except WaitTimeout as late:
            await _print_unfinished(heygen, late.pending, options)
            raise


def how_to_continue(lipsync_ids: Sequence[str], options: Options) -> str:
    """Return how to wait for these lipsyncs."""
    if len(lipsync_ids) > _NAMED:
        return "the jobs keep running at HeyGen; run the same command again to wait for them"
    keeps, them = ("the job keeps", "it") if len(lipsync_ids) == 1 else ("the jobs keep", "them")
    return f"{keeps} running at HeyGen; to wait for {them}: {options.command('lipsync', 'wait', *lipsync_ids)}"


async def _report(
    heygen: HeyGenSession, options: Options, aside: Aside, deliver: Deliver, lipsync: Lipsync, *, is_ours: bool
) -> Exit:
    with aside():
        try:
            envelope = await _fetch(heygen, lipsync.id, options, is_ours=is_ours)
            try:
                if lipsync.status == LipsyncStatus.COMPLETED:
                    await deliver(lipsync)
            finally:
                emit_one_of_many(envelope, options)
            if lipsync.status != LipsyncStatus.COMPLETED:
                raise LipsyncFailed(lipsync)
        except HeyGenError as error:
            print_error(error, as_json=wants_json(options.json))
            return exit_code(error)
    return Exit.DONE


async def _fetch(heygen: HeyGenSession, lipsync_id: str, options: Options, *, is_ours: bool) -> JSON:
    try:
        return await fetch_envelope(heygen, lipsync_id)
    except HeyGenError as error:
        if is_ours or not isinstance(error, NotFound):  # an id that was given may be of no job
            error.add_note(how_to_continue([lipsync_id], options))
        raise


async def _print_unfinished(heygen: HeyGenSession, pending: Mapping[str, str | None], options: Options) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _LAST_LOOK
    for lipsync_id, status in pending.items():
        envelope: JSON = {"data": {"id": lipsync_id, "status": status}}
        try:
            async with asyncio.timeout_at(end):
                envelope = await fetch_envelope(heygen, lipsync_id)
        except (HeyGenError, TimeoutError):
            pass  # then the last known status is printed
        emit_one_of_many(envelope, options)
