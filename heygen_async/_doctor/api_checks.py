"""What the API offers to the account, and how its answers differ from the models. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import define, field

from heygen_async._doctor.account_checks import failed
from heygen_async._doctor.seen import CallResult
from heygen_async._drift import SHAPES, Difference, differences
from heygen_async.diagnosis import Check, Level
from heygen_async.errors import (
    APIError,
    HeyGenError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
)

BATCH_FINISHED: Final = "batch.finished"
"""The event that a batch ends with, the only one that this library's programs are documented to wait for."""
_MOST_LISTED: Final = 8
_MOST_DIFFERENCES: Final = 50


def page_checks(page: CallResult, details: Sequence[CallResult]) -> Iterator[Check]:
    """Yield whether the newest lipsyncs could be read, and whether they are enough for a comparison."""
    for result in (page, *details):
        if result.error is not None:
            yield failed(result.call, result.error)
    if page.error is None and not page.objects:
        yield _info("answers", "the account has no lipsyncs yet, so none could be compared with the models")
    elif page.error is None and not any(item.get("status") == "completed" for item in page.objects):
        yield _info("answers", f"none of the newest {len(page.objects)} lipsyncs is completed: no links to compare")


def statuses_check(result: CallResult) -> Check:
    """Return whether the account has bulk status requests."""
    match result.error:
        case NotFound() | PermissionDenied() as error:
            summary = f"{result.call} is not available ({error.status}): waits read the list and single jobs instead"
            return _info("calls", summary, "Nothing to do; waiting for many jobs takes more requests.")
        case HeyGenError() as error:
            return failed(result.call, error)
        case None:
            return Check(area="calls", level=Level.OK, summary=f"{result.call} is available: waits share requests")


def batches_check(batch: CallResult, nowhere: CallResult) -> Check:
    """Return whether the account has batches.

    Args:
        batch: The answer for a batch, which need not exist.
        nowhere: The answer for a path that no API has: an absent call looks the same.
    """
    match batch.error:
        case None | InvalidRequest():
            is_there = True
        case PermissionDenied() as error:
            return _info("calls", f'batches are not allowed to this key ({error.status}): use submit="each"')
        case NotFound():
            is_there = not _are_alike(batch.error, nowhere.error)
        case HeyGenError() as error:
            return failed(batch.call, error)
    if is_there:
        return Check(area="calls", level=Level.OK, summary="batches are available")
    summary = "batches seem not to be available: their path is answered like one that does not exist"
    return _info("calls", summary, 'Nothing to do; keep submit="each", which is the default.')


def _are_alike(one: HeyGenError, other: HeyGenError | None) -> bool:
    if not isinstance(one, APIError) or not isinstance(other, APIError):
        return False
    return (one.status, one.code, one.message) == (other.status, other.code, other.message)


def event_types_check(result: CallResult) -> Check:
    """Return whether the event that a batch ends with is offered."""
    match result.error:
        case NotFound() | PermissionDenied() as error:
            return _info("calls", f"webhooks cannot be read with this key ({error.status})")
        case HeyGenError() as error:
            return failed(result.call, error)
        case None:
            names = [str(item.get("event_type")) for item in result.objects]
    if BATCH_FINISHED in names:
        return Check(area="calls", level=Level.OK, summary=f"the webhook event {BATCH_FINISHED} is offered")
    batch = [name for name in dict.fromkeys(names) if "batch" in name]
    offered = f"; of batches: {', '.join(batch[:_MOST_LISTED])}" if batch else ""
    return Check(
        area="answers",
        level=Level.WARNING,
        summary=f"the webhook event {BATCH_FINISHED} is not among the {len(names)} that are offered{offered}",
        advice="Poll batches instead of waiting for that event, or register for the name above. "
        "Please report it to the authors of heygen-async.",
    )


# --- drift -------------------------------------------------------------------------------------------------


@define
class _Sightings:
    """In which calls, and how often, one difference was seen."""

    calls: set[str] = field(factory=set)
    count: int = 0


def answer_checks(results: Sequence[CallResult]) -> Iterator[Check]:
    """Yield how the answers differ from the models: one check for each field."""
    seen: defaultdict[Difference, _Sightings] = defaultdict(_Sightings)
    compared = [result for result in results if result.response is not None and result.call in SHAPES]
    for result in compared:
        assert result.response is not None  # noqa: S101 filtered above
        for difference in differences(result.response.data, SHAPES[result.call]):
            seen[difference].calls.add(result.call)
            seen[difference].count += 1
    ordered = sorted(seen.items(), key=lambda item: (item[0].where, item[0].kind))
    for difference, sightings in ordered[:_MOST_DIFFERENCES]:
        yield _drift(difference, sightings)
    if len(ordered) > _MOST_DIFFERENCES:
        text = f"{len(ordered) - _MOST_DIFFERENCES} more differences are not listed"
        yield Check(area="answers", level=Level.WARNING, summary=text, advice=_REPORT)
    if compared and not seen:
        text = f"{len(compared)} answers have exactly the fields and types that this version expects"
        yield Check(area="answers", level=Level.OK, summary=text)


def _drift(difference: Difference, sightings: _Sightings) -> Check:
    times = "" if sightings.count == 1 else f", {sightings.count} times"
    return Check(
        area="answers",
        level=Level.WARNING,
        summary=f"{difference} ({', '.join(sorted(sightings.calls))}{times})",
        advice=_ADVICE[difference.kind],
    )


_REPORT: Final = "Please report it to the authors of heygen-async."
_ADVICE: Final = {
    "unknown": f"Nothing breaks: the value is kept in .extra. {_REPORT}",
    "missing": f"Do not rely on this field: it has its default, or the answer cannot be read. {_REPORT}",
    "type": f"The value is converted where that is safe, and kept in .extra. {_REPORT}",
    "word": f"Waits go on while a status is not known to be final. {_REPORT}",
}


def _info(area: str, summary: str, advice: str | None = None) -> Check:
    return Check(area=area, level=Level.INFO, summary=summary, advice=advice)
