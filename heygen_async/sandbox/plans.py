"""What a create asks for, decided before anything is made: how long it runs, how it ends, what comes out.

A source URL on the host `sandbox.invalid` scripts its job, so that failures need no special client:

* `https://sandbox.invalid/any.mp4?seconds=600`: runs 600 s of sandbox time
* `https://sandbox.invalid/any.mp4?duration=42.5`: the output is said to be 42.5 s long, and is billed so
* `https://sandbox.invalid/any.mp4?fail=No+face+was+found`: ends as failed, with that message
* `https://sandbox.invalid/any.mp4?refuse=download_failed`: the create is refused at once with that code
  (`download_failed` or `content_policy_violation`); in a batch that item fails alone

Any other URL stands for media that is the shipped sample: the sandbox never uses the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from attrs import evolve, frozen

from heygen_async.sandbox.assets import Asset, Assets
from heygen_async.sandbox.refusals import Problems, Refusal, invalid
from heygen_async.sandbox.strict import Body

SCRIPT_HOST: Final = "sandbox.invalid"
UNREADABLE_SECONDS: Final = 10.0
"""Length given to media whose own cannot be read, such as WebM."""

_REFUSALS: Final = {
    "download_failed": "could not be downloaded.",
    "content_policy_violation": "breaks the content policy.",
}
_VIDEO: Final = frozenset({"video/mp4", "video/webm"})
_AUDIO: Final = frozenset({"audio/mpeg", "audio/wav"})
_MAX_VIDEO: Final = 100 << 20
_MAX_AUDIO: Final = 50 << 20


@frozen(kw_only=True)
class Plan:
    """How one job will go."""

    duration: float
    """Length of the output in seconds."""
    asset: Asset | None = None
    """The upload that becomes the output; None for the shipped sample."""
    seconds: float | None = None
    """How long it runs, in sandbox time; None for what the sandbox gives every job."""
    failure: str | None = None
    """Why it will fail; None if it will not."""


@frozen
class Planner:
    """Plans jobs from their bodies and the assets that are there."""

    assets: Assets
    sample_seconds: float

    def plan(self, body: Body, now: float) -> Plan:
        """Return the plan for a checked create body, or raise a `Refusal` for its sources."""
        problems, video = Problems(), None
        with problems.collect():
            video = self._source(body, "video", now)
        with problems.collect():
            self._source(body, "audio", now)
        problems.raise_all()
        duration = self.sample_seconds if video is None else video.duration or UNREADABLE_SECONDS
        plan = Plan(duration=duration, asset=video)
        for name in ("video", "audio"):
            plan = _scripted(plan, body, name)
        return plan

    def _source(self, body: Body, name: str, now: float) -> Asset | None:
        given = body[name]
        if not isinstance(given, dict) or given["type"] == "url":
            return None
        asset = self.assets.usable(given["asset_id"], now)
        _fits(asset, name)
        return asset


def _fits(asset: Asset, name: str) -> None:
    types, most = (_VIDEO, _MAX_VIDEO) if name == "video" else (_AUDIO, _MAX_AUDIO)
    param = f"{name}.asset_id"
    if asset.mime_type not in types:
        raise invalid(f"{name} must be {' or '.join(sorted(types))}, not {asset.mime_type}.", param)
    if asset.size_bytes > most:
        raise invalid(f"{name} must be at most {most >> 20} MB.", param)


def _scripted(plan: Plan, body: Body, name: str) -> Plan:
    given = body[name]
    url = urlsplit(given["url"] if isinstance(given, dict) and given["type"] == "url" else "")
    if url.hostname != SCRIPT_HOST:
        return plan
    for key, value in parse_qsl(url.query, keep_blank_values=True):
        step = _STEPS.get(key)
        if step is None:
            raise invalid(f"{SCRIPT_HOST} knows {', '.join(_STEPS)}, not {key!r}.", f"{name}.url")
        plan = step(plan, value, name)
    return plan


def _seconds(plan: Plan, value: str, name: str) -> Plan:
    return evolve(plan, seconds=_number(value, name))


def _duration(plan: Plan, value: str, name: str) -> Plan:
    return evolve(plan, duration=_number(value, name))


def _fail(plan: Plan, value: str, name: str) -> Plan:  # noqa: ARG001 - the steps have one shape
    return evolve(plan, failure=value or "The sandbox was asked to fail this job.")


def _refuse(plan: Plan, value: str, name: str) -> Plan:  # noqa: ARG001 - the steps have one shape
    if value not in _REFUSALS:
        raise invalid(f"{SCRIPT_HOST} can refuse with {', '.join(_REFUSALS)}.", f"{name}.url")
    raise Refusal(400, value, f"The {name} {_REFUSALS[value]}", f"{name}.url")


_STEPS: Final[Mapping[str, Callable[[Plan, str, str], Plan]]] = {
    "seconds": _seconds,
    "duration": _duration,
    "fail": _fail,
    "refuse": _refuse,
}


def _number(value: str, name: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise invalid(f"{SCRIPT_HOST} takes a number of seconds, not {value!r}.", f"{name}.url")
    return found
