"""From what was seen to a diagnosis: all checks in their order, without secrets, and the verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from attrs import evolve

from heygen_async._doctor.account_checks import account_checks, key_checks, unauthorized
from heygen_async._doctor.api_checks import answer_checks, batches_check, event_types_check, page_checks, statuses_check
from heygen_async._doctor.network_checks import clock_check, latency_check, reach_checks, unanswered
from heygen_async._doctor.seen import CallResults, Offers
from heygen_async._masking import Mask
from heygen_async._text import one_line
from heygen_async._version import __version__
from heygen_async._wire import short_text
from heygen_async.diagnosis import Check, Diagnosis, Verdict

if TYPE_CHECKING:
    from heygen_async._transport.origin import Origin
    from heygen_async._transport.probe import Reach

_LONGEST: Final = 400
"""Characters of a sentence, of which a part may be a server's."""


def diagnose(origin: Origin, reach: Reach | None, results: CallResults | None, *, at: datetime) -> Diagnosis:
    """Return the diagnosis.

    Args:
        origin: The API; its key is masked wherever a server may have repeated it.
        reach: How far a connection got; `None` if none was tried.
        results: What the API returned; `None` if it could not be reached.
        at: When the examination started.
    """
    checks = [] if reach is None else [*reach_checks(reach, now=at)]
    if results is not None:
        checks += _result_checks(results, reach)
    return Diagnosis(
        base_url=origin.base_url,
        version=__version__,
        at=at,
        verdict=_verdict(checks, results),
        checks=tuple(_clean(check, origin.mask) for check in checks),
    )


def _result_checks(results: CallResults, reach: Reach | None) -> Iterator[Check]:
    if results.unanswered is not None:
        yield unanswered(results.unanswered, reach)
        return
    yield latency_check(results.all)
    if results.unauthorized is not None:
        yield unauthorized(results.unauthorized)
        return
    yield clock_check(results.all)
    yield from key_checks(results.key, results.page)
    if results.offers is not None:
        yield from _offer_checks(results.offers)
    if results.page is not None:
        yield from page_checks(results.page, results.details)
    yield from answer_checks(results.all)


def _offer_checks(offers: Offers) -> Iterator[Check]:
    yield from account_checks(offers.account)
    yield statuses_check(offers.statuses)
    yield batches_check(offers.batch, offers.nowhere)
    yield event_types_check(offers.event_types)


def _verdict(checks: Sequence[Check], results: CallResults | None) -> Verdict:
    if results is not None and results.unauthorized is not None:
        return Verdict.UNAUTHORIZED
    return Verdict.FINDINGS if any(check.is_finding for check in checks) else Verdict.READY


def _clean(check: Check, mask: Mask) -> Check:
    """Return *check* without what a server may have put into a name or a message: the key, a query, a control."""
    summary = one_line(short_text(check.summary, mask))
    return evolve(check, summary=summary if len(summary) <= _LONGEST else f"{summary[:_LONGEST]}…")
